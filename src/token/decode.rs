//! What a token says, in JSON and in words.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use meshward_core::authn::jwk::KeySet;
use meshward_core::authn::token::Token;
use meshward_core::clock::UnixTime;
use serde_json::{Value, json};

use super::{data, read};
use crate::exit::Failure;
use crate::{machine, say};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The token; @FILE: what stands in FILE; `-`: stdin.
    #[arg(value_name = "TEXT|@FILE|-")]
    token: String,
    /// The keys that it is to verify with: a JWK set, or one JWK; private members are not looked at.
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let file = match arguments.token.strip_prefix('@') {
        None if arguments.token == "-" => Some("-"),
        file => file,
    };
    let text = match file {
        Some(file) => read(Path::new(file)).map_err(|e| Failure::Data(vec![e]))?,
        None => arguments.token.clone(),
    };
    let text = text.trim();
    let keys = arguments.jwks.as_deref().map(read_set).transpose()?;
    let token = Token::parse(text.as_bytes());
    let (header, payload) = match &token {
        Ok(token) => (
            Value::Object(token.header().clone()),
            Value::Object(token.payload().clone()),
        ),
        // What no proxy takes may still be looked at.
        Err(status) => sections(text).ok_or_else(|| {
            Failure::Data(vec![format!(
                "error: {status}\n  hint: a token is three parts of base64url with dots between them"
            )])
        })?,
    };
    say::out(format_args!("header {header:#}\npayload {payload:#}"));
    let now = machine::now();
    for (claim, before, after) in [
        ("iat", "issued in", "issued"),
        ("nbf", "valid in", "valid since"),
        ("exp", "expires in", "expired"),
    ] {
        if let Some(at) = payload.get(claim).and_then(Value::as_f64) {
            say::out(when(at, now, before, after));
        }
    }
    if payload.get("exp").is_none() {
        say::out("never expires: there is no exp");
    }
    let token = match token {
        Ok(token) => token,
        Err(status) => {
            say::out(format_args!("not accepted anywhere: {status}"));
            return Ok(if keys.is_none() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
    };
    let Some((path, keys)) = keys else {
        say::out("the signature was not looked at: --jwks FILE says whether it verifies");
        return Ok(ExitCode::SUCCESS);
    };
    for reason in keys.left_out() {
        say::err(format_args!("{path}: {reason}"));
    }
    match token.signer(&keys) {
        Ok(key) => {
            let name = key
                .id()
                .map(|kid| format!(" `{}`", kid.escape_debug()))
                .unwrap_or_default();
            say::out(format_args!(
                "the signature verifies with the {} key{name} of {path}",
                key.kind()
            ));
            Ok(ExitCode::SUCCESS)
        }
        Err(status) => {
            say::out(format_args!(
                "the signature does not verify with {path}: {status}"
            ));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The keys of a set, or of the one JWK that stands alone, and what the file is called.
fn read_set(path: &Path) -> Result<(String, KeySet), Failure> {
    let mut text = read(path).map_err(|e| Failure::Data(vec![e]))?;
    if let Ok(Value::Object(jwk)) = serde_json::from_str(&text)
        && jwk.contains_key("kty")
        && !jwk.contains_key("keys")
    {
        text = json!({ "keys": [jwk] }).to_string();
    }
    let keys = KeySet::parse(&text).map_err(|status| data(path, status.text()))?;
    Ok((path.display().to_string(), keys))
}

/// Header and payload of what is not quite a token.
fn sections(text: &str) -> Option<(Value, Value)> {
    let mut sections = text.split('.').map(|section| {
        let bytes = URL_SAFE_NO_PAD.decode(section.trim_end_matches('=')).ok()?;
        serde_json::from_slice(&bytes).ok()
    });
    Some((sections.next()??, sections.next()??))
}

/// A time in seconds since 1970, and how far it is from `now`.
fn when(at: f64, now: UnixTime, before: &str, after: &str) -> String {
    // Beyond what a date is printed of.
    const END: f64 = 253_402_300_800.0;
    if !(0.0..END).contains(&at) {
        let word = if at >= END { before } else { after };
        let word = word.strip_suffix(" in").unwrap_or(word);
        return format!("{word} at {at}, which is no date");
    }
    let at = UnixTime((at * 1000.0) as u64);
    let date = at.to_string();
    let date = date.replace(".000Z", "Z");
    if at > now {
        format!("{before} {}, at {date}", words((at.0 - now.0) / 1000))
    } else {
        format!("{after} {} ago, at {date}", words((now.0 - at.0) / 1000))
    }
}

/// A span in its two largest units.
fn words(seconds: u64) -> String {
    let units = [
        (seconds / 31_557_600, "y"),
        (seconds % 31_557_600 / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let first = units
        .iter()
        .position(|(count, _)| *count > 0)
        .unwrap_or(units.len() - 1);
    units
        .iter()
        .skip(first)
        .take(2)
        .filter(|(count, _)| *count > 0 || seconds == 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_in_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3599, "59m59s"),
            (3600, "1h"),
            (3661, "1h1m"),
            (86_400, "1d"),
            (90_000, "1d1h"),
            (86_460, "1d"),
            (31_557_600, "1y"),
            (3_155_760_000, "100y"),
        ] {
            assert_eq!(words(seconds), text);
        }
    }

    #[test]
    fn times_are_said_from_where_one_stands() {
        let now = UnixTime(1_893_456_000_000);
        let say = |at| when(at, now, "expires in", "expired");
        assert_eq!(
            say(1_893_459_600.0),
            "expires in 1h, at 2030-01-01T01:00:00Z"
        );
        assert_eq!(
            say(1_893_455_940.5),
            "expired 59s ago, at 2029-12-31T23:59:00.500Z"
        );
        assert_eq!(
            say(1_893_456_000.0),
            "expired 0s ago, at 2030-01-01T00:00:00Z"
        );
        assert_eq!(say(-1.0), "expired at -1, which is no date");
        assert_eq!(
            say(1e30),
            "expires at 1000000000000000000000000000000, which is no date"
        );
    }
}
