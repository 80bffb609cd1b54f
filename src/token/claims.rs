//! The claims of a new token, from arguments.

use clap::Args;
use meshward_core::clock::UnixTime;
use serde_json::{Map, Value};
use time::{Date, Month, PrimitiveDateTime, Time};

use crate::ca::span;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// `iss`
    #[arg(long)]
    issuer: Option<String>,
    /// `sub`
    #[arg(long)]
    subject: Option<String>,
    /// `aud`; several make a list.
    #[arg(long = "audience", value_name = "AUDIENCE")]
    audiences: Vec<String>,
    /// Any other claim: NAME=TEXT, or NAME:=JSON. Takes the place of `iat` and `exp`, where they would be there by themselves.
    #[arg(long = "claim", value_name = "NAME=TEXT|NAME:=JSON")]
    claims: Vec<String>,
    /// How long from now the token is valid: 24h, 90m, 30s, 1h30m; with `-` before it, how long ago it expired.
    #[arg(
        long,
        value_name = "SPAN",
        default_value = "1h",
        allow_hyphen_values = true
    )]
    expires: String,
    /// When it expires: 2030-01-02T03:04:05Z, or seconds since 1970.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["expires", "no_expiry"])]
    expires_at: Option<String>,
    /// Leaves `exp` out: the token is valid for ever.
    #[arg(long, conflicts_with = "expires")]
    no_expiry: bool,
    /// From when on it is valid: a time as for --expires-at, or a span from now as for --expires.
    #[arg(long, value_name = "TIME|SPAN", allow_hyphen_values = true)]
    not_before: Option<String>,
}

impl Arguments {
    /// The claims of a token made at `now`.
    pub(super) fn read(&self, now: UnixTime) -> Result<Map<String, Value>, String> {
        let now = now.as_secs();
        let mut claims = Map::new();
        for claim in &self.claims {
            let (name, value) =
                claim_of(claim).map_err(|fault| format!("--claim `{claim}`: {fault}"))?;
            if claims.insert(name.to_owned(), value).is_some() {
                return Err(format!("--claim `{claim}`: `{name}` is said twice"));
            }
        }
        let mut put = |option: &str, name: &str, value: Value| match claims.get(name) {
            Some(_) => Err(format!("{option}: `{name}` is said by --claim as well")),
            None => {
                claims.insert(name.to_owned(), value);
                Ok(())
            }
        };
        if let Some(issuer) = &self.issuer {
            put("--issuer", "iss", issuer.as_str().into())?;
        }
        if let Some(subject) = &self.subject {
            put("--subject", "sub", subject.as_str().into())?;
        }
        match self.audiences.as_slice() {
            [] => {}
            [audience] => put("--audience", "aud", audience.as_str().into())?,
            audiences => put("--audience", "aud", audiences.into())?,
        }
        if let Some(text) = &self.not_before {
            let from = moment(text)
                .or_else(|_| later(now, text))
                .map_err(|fault| format!("--not-before `{text}`: {fault}"))?;
            put("--not-before", "nbf", from.into())?;
        }
        if let Some(text) = &self.expires_at {
            let until = moment(text).map_err(|fault| format!("--expires-at `{text}`: {fault}"))?;
            put("--expires-at", "exp", until.into())?;
        } else if !self.no_expiry && !claims.contains_key("exp") {
            let until = later(now, &self.expires)
                .map_err(|fault| format!("--expires `{}`: {fault}", self.expires))?;
            claims.insert("exp".to_owned(), until.into());
        }
        claims.entry("iat").or_insert_with(|| now.into());
        Ok(claims)
    }
}

/// `NAME=TEXT` or `NAME:=JSON`.
fn claim_of(claim: &str) -> Result<(&str, Value), String> {
    let (name, text) = claim
        .split_once('=')
        .ok_or("expected NAME=TEXT or NAME:=JSON")?;
    let (name, value) = match name.strip_suffix(':') {
        Some(name) => {
            let value = serde_json::from_str(text).map_err(|e| format!("is not JSON: {e}"))?;
            (name, value)
        }
        None => (name, text.into()),
    };
    if name.is_empty() {
        return Err("has no name".to_owned());
    }
    Ok((name, value))
}

/// Seconds since 1970 of `now` and a span, which may be negative. Never before 1970.
fn later(now: u64, text: &str) -> Result<u64, &'static str> {
    match text.strip_prefix('-') {
        Some(ago) if !ago.starts_with('-') => Ok(now.saturating_sub(span(ago)?.as_secs())),
        _ if text.starts_with('-') => Err("expected one `-` before a duration"),
        _ => Ok(now.saturating_add(span(text)?.as_secs())),
    }
}

/// Seconds since 1970 of `2030-01-02T03:04:05Z`, or of that number itself.
fn moment(text: &str) -> Result<u64, &'static str> {
    const FORM: &str = "expected a time such as 2030-01-02T03:04:05Z, or seconds since 1970";
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| "too late");
    }
    let bytes = text.as_bytes();
    let separators = [
        (4, b'-'),
        (7, b'-'),
        (10, b'T'),
        (13, b':'),
        (16, b':'),
        (19, b'Z'),
    ];
    let number = |from: usize, to: usize| -> Option<u16> {
        let digits = text.get(from..to)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let small = |from: usize| u8::try_from(number(from, from + 2)?).ok();
    let read = || {
        let is_separated = separators
            .iter()
            .all(|(at, byte)| bytes.get(*at) == Some(byte));
        if bytes.len() != 20 || !is_separated {
            return None;
        }
        let month = Month::try_from(small(5)?).ok()?;
        let date = Date::from_calendar_date(number(0, 4)?.into(), month, small(8)?).ok()?;
        let time = Time::from_hms(small(11)?, small(14)?, small(17)?).ok()?;
        let at = PrimitiveDateTime::new(date, time).assume_utc();
        u64::try_from(at.unix_timestamp()).ok()
    };
    read().ok_or(FORM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_to_the_second() {
        for (text, seconds) in [
            ("0", 0),
            ("1893456000", 1_893_456_000),
            ("1970-01-01T00:00:00Z", 0),
            ("2030-01-01T00:00:00Z", 1_893_456_000),
            ("2024-02-29T23:59:59Z", 1_709_251_199),
        ] {
            assert_eq!(moment(text), Ok(seconds), "{text}");
        }
        for text in [
            "",
            "2030-01-01",
            "2030-01-01T00:00:00",
            "2030-01-01 00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2030-13-01T00:00:00Z",
            "2030-01-01T24:00:00Z",
            "2030-01-01T00:00:00+1",
            "+030-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "99999999999999999999",
            "1é30-01-01T00:00:00Z",
        ] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_go_both_ways() {
        assert_eq!(later(100, "1m"), Ok(160));
        assert_eq!(later(100, "-1m"), Ok(40));
        assert_eq!(later(100, "-1h"), Ok(0));
        for text in ["", "1", "--1h", "-", "1d"] {
            assert!(later(100, text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_claim_is_text_or_json() {
        for (claim, name, value) in [
            ("a=b", "a", Value::from("b")),
            ("a=", "a", "".into()),
            ("a==b=c", "a", "=b=c".into()),
            ("a:=1", "a", 1.into()),
            ("a.b:=[\"x\"]", "a.b", vec!["x"].into()),
            ("https://x/y=z", "https://x/y", "z".into()),
        ] {
            assert_eq!(claim_of(claim), Ok((name, value)), "{claim}");
        }
        for claim in ["", "a", "=b", ":=1", "a:=", "a:=x"] {
            assert!(claim_of(claim).is_err(), "{claim}");
        }
    }
}
