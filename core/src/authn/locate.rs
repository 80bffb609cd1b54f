//! Where tokens stand in a request (S-213).

use std::borrow::Cow;
use std::fmt;

use crate::api::request_authentication::{HeaderLocation, JwtRule};
use crate::http::head::{Fields, Known, separator};

/// The places in which one rule looks for tokens. Each kind is in the order of names, without doubles.
#[derive(Debug)]
pub(super) struct Locations {
    /// Names in lower case.
    headers: Vec<HeaderLocation>,
    params: Vec<String>,
    cookies: Vec<String>,
}

/// Where a token was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'r> {
    Header(&'r str),
    Param(&'r str),
    Cookie(&'r str),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header `{name}`"),
            Self::Param(name) => write!(f, "query parameter `{name}`"),
            Self::Cookie(name) => write!(f, "cookie `{name}`"),
        }
    }
}

impl Locations {
    pub(super) fn of(rule: &JwtRule) -> Self {
        let is_default = rule.from_headers.is_empty()
            && rule.from_params.is_empty()
            && rule.from_cookies.is_empty();
        if is_default {
            return Self {
                headers: vec![HeaderLocation {
                    name: "authorization".into(),
                    prefix: "Bearer ".into(),
                }],
                params: vec!["access_token".into()],
                cookies: Vec::new(),
            };
        }
        let headers = rule.from_headers.iter().map(|header| HeaderLocation {
            name: header.name.to_ascii_lowercase(),
            prefix: header.prefix.clone(),
        });
        let mut locations = Self {
            headers: headers.collect(),
            params: rule.from_params.clone(),
            cookies: rule.from_cookies.clone(),
        };
        let key = |header: &HeaderLocation| (header.name.clone(), header.prefix.clone());
        locations.headers.sort_by_key(key);
        locations.headers.dedup();
        locations.params.sort();
        locations.params.dedup();
        locations.cookies.sort();
        locations.cookies.dedup();
        locations
    }

    /// Every token that stands in one of the places: headers, then parameters, then cookies (S-214). `path` with its query.
    pub(super) fn find<'r, 'a>(
        &'r self,
        fields: Fields<'a>,
        path: &'a [u8],
        found: &mut impl FnMut(Place<'r>, Cow<'a, [u8]>),
    ) {
        for location in &self.headers {
            let place = Place::Header(&location.name);
            in_header(location, fields, &mut |token| found(place, token));
        }
        for name in &self.params {
            let value = parameters(path).find(|(key, _)| **key == *name.as_bytes());
            if let Some((_, value)) = value {
                found(Place::Param(name), value);
            }
        }
        for name in &self.cookies {
            if let Some(value) = cookie(fields, name.as_bytes()) {
                found(Place::Cookie(name), value.into());
            }
        }
    }
}

/// The tokens of one header: of each line its own, but of lines that are one value, such as those of `authorization`, one
/// (S-234). Lines of one hop are not there.
fn in_header<'a>(
    location: &HeaderLocation,
    fields: Fields<'a>,
    found: &mut impl FnMut(Cow<'a, [u8]>),
) {
    let name = location.name.as_bytes();
    let mut lines = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case(name) && !field.hop_by_hop)
        .map(|field| Cow::Borrowed(field.value));
    if let Some(separator) = separator(name) {
        let first = lines.next();
        let joined = lines.fold(first, |joined, line| {
            joined.map(|joined| match (joined.is_empty(), line.is_empty()) {
                (false, false) => [&*joined, separator.as_bytes(), &*line].concat().into(),
                (true, _) => line,
                (_, true) => joined,
            })
        });
        joined
            .and_then(|value| behind(&location.prefix, value))
            .into_iter()
            .for_each(found);
    } else {
        lines
            .filter_map(|value| behind(&location.prefix, value))
            .for_each(found);
    }
}

/// What stands behind `prefix`, wherever that is: from the next character of a token to the end of the value. `None`: it is
/// not there, and no token is (S-213).
fn behind<'a>(prefix: &str, value: Cow<'a, [u8]>) -> Option<Cow<'a, [u8]>> {
    if prefix.is_empty() {
        return Some(value);
    }
    let prefix = prefix.as_bytes();
    let at = value
        .windows(prefix.len())
        .position(|part| part == prefix)?
        + prefix.len();
    let begins = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let rest = value.get(at..).unwrap_or_default();
    let start = at + rest.iter().position(begins).unwrap_or(rest.len());
    Some(match value {
        Cow::Borrowed(value) => value.get(start..).unwrap_or_default().into(),
        Cow::Owned(mut value) => value.split_off(start.min(value.len())).into(),
    })
}

/// The parameters of a query, decoded, in their order.
fn parameters(path: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    let (_, query) = split_once(path, b'?').unwrap_or((path, b""));
    query
        .split(|byte| *byte == b'&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (key, value) = split_once(part, b'=').unwrap_or((part, b""));
            (decoded(key), decoded(value))
        })
}

/// `path` without the parameters called `name`; the others as they were sent.
pub(super) fn without_parameter(path: &[u8], name: &str) -> Vec<u8> {
    let Some((before, query)) = split_once(path, b'?') else {
        return path.to_vec();
    };
    let mut kept = query.split(|byte| *byte == b'&').filter(|part| {
        let (key, _) = split_once(part, b'=').unwrap_or((part, b""));
        *decoded(key) != *name.as_bytes()
    });
    let mut out = before.to_vec();
    if let Some(first) = kept.next() {
        out.push(b'?');
        out.extend_from_slice(first);
    }
    for part in kept {
        out.push(b'&');
        out.extend_from_slice(part);
    }
    out
}

/// `+` and `%XX` of a form decoded; `%` before anything else stays.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return text.into();
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match (byte, digit(behind.first()), digit(behind.get(1))) {
            (b'+', ..) => out.push(b' '),
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = behind.get(2..).unwrap_or_default();
            }
            _ => out.push(*byte),
        }
    }
    out.into()
}

/// The first cookie of this name, without the quotation marks that may be around its value (RFC 6265 §4.1.1).
fn cookie<'a>(fields: Fields<'a>, name: &[u8]) -> Option<&'a [u8]> {
    fields
        .iter()
        .filter(|field| field.known == Known::Cookie)
        .flat_map(|field| field.value.split(|byte| *byte == b';'))
        .filter_map(|pair| split_once(pair.trim_ascii_start(), b'='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| match value {
            [b'"', inner @ .., b'"'] => inner,
            _ => value,
        })
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = bytes.iter().position(|byte| *byte == at)?;
    Some((bytes.get(..position)?, bytes.get(position + 1..)?))
}

#[cfg(test)]
mod tests;
