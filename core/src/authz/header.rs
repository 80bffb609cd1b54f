//! The header lines of a request, as rules see them (S-124, S-144 to S-146).
//!
//! Lines of one name are looked at one by one, unless Envoy keeps that name in one place: then its lines are one value,
//! joined in their order. Lines of one hop are not there at all, as they are taken away before the rules are asked.

use std::cmp::Ordering;
use std::fmt;

use super::sets::{Texts, compare_any_case};
use crate::http::head::{Field, Fields, Known, separator};

/// A header that a condition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// In lower case.
    text: Box<str>,
    /// What stands between the lines that are one value.
    separator: Option<&'static str>,
}

impl Name {
    pub(super) fn new(name: &str) -> Self {
        let text = name.to_ascii_lowercase();
        let separator = separator(text.as_bytes());
        Self {
            text: text.into(),
            separator,
        }
    }

    /// Whether one of the values is taken by one of `texts`.
    pub(super) fn matches(&self, fields: Fields<'_>, texts: &Texts) -> bool {
        match self.joined(fields) {
            Some(whole) => texts.matches_forwards(whole),
            None => self.lines(fields).any(|value| texts.matches(value)),
        }
    }

    /// The values of the lines, in their order.
    pub(super) fn lines<'a>(
        &self,
        fields: Fields<'a>,
    ) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a, '_> {
        fields
            .iter()
            .filter(move |field| self.is_name_of(field) && is_seen(field, fields))
            .map(|field| field.value)
    }

    /// The one value of several lines, of which empty ones add nothing, as Envoy joins them; `None`: they are several values, or there is one line at most.
    pub(super) fn joined<'a>(
        &self,
        fields: Fields<'a>,
    ) -> Option<impl Iterator<Item = u8> + Clone + use<'a, '_>> {
        let separator = self.separator?;
        self.lines(fields).nth(1)?;
        let lines = self.lines(fields).filter(|value| !value.is_empty());
        let pieces = lines.enumerate().flat_map(move |(at, value)| {
            let before = if at == 0 { "" } else { separator };
            before.bytes().chain(value.iter().copied())
        });
        Some(pieces)
    }

    /// How it stands to a name in any case, in an order of its own: shorter names first.
    pub(super) fn order_of(&self, other: &[u8]) -> Ordering {
        let by_length = self.text.len().cmp(&other.len());
        by_length.then_with(|| compare_any_case(self.text.as_bytes(), other))
    }

    pub(super) fn is_name_of(&self, field: &Field<'_>) -> bool {
        field.name.len() == self.text.len() && field.name.eq_ignore_ascii_case(self.text.as_bytes())
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order_of(other.text.as_bytes())
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// An upgrade is forwarded, so its lines stay; every other line of one hop is gone.
pub(super) fn is_seen(field: &Field<'_>, fields: Fields<'_>) -> bool {
    let may_stay = matches!(field.known, Known::Connection | Known::Upgrade);
    !field.hop_by_hop || (may_stay && is_upgrade(fields))
}

/// Whether the client asks for another protocol: `upgrade` is there, and `connection` names it.
fn is_upgrade(fields: Fields<'_>) -> bool {
    let is_named = |field: Field<'_>| {
        let mut options = field.value.split(|byte| *byte == b',');
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    };
    fields.find(Known::Upgrade).is_some()
        && fields
            .iter()
            .filter(|field| field.known == Known::Connection)
            .any(is_named)
}

/// The values of one header, to be printed. What may be a secret is shown by its length.
#[derive(Clone, Copy)]
pub struct Lines<'a> {
    name: &'a Name,
    fields: Fields<'a>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(name: &'a Name, fields: Fields<'a>) -> Self {
        Self { name, fields }
    }
}

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.name.lines(self.fields).peekable();
        if lines.peek().is_none() {
            return f.write_str("absent");
        }
        for (at, value) in lines.enumerate() {
            if at > 0 {
                f.write_str(self.name.separator.unwrap_or(" and "))?;
            }
            if is_secret(&self.name.text, value) {
                write!(f, "{} bytes", value.len())?;
            } else {
                write!(f, "`{}`", value.escape_ascii())?;
            }
        }
        Ok(())
    }
}

/// Shows no value.
impl fmt::Debug for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.name.lines(self.fields).count();
        write!(f, "{count} lines of {}", self.name.text)
    }
}

/// Credentials by their name, or by their look: what is, or ends with, three segments of which the first is a JSON object.
fn is_secret(name: &str, value: &[u8]) -> bool {
    let names = ["authorization", "cookie", "proxy-authorization"];
    let is_token = |word: &[u8]| {
        word.starts_with(b"eyJ") && word.iter().filter(|byte| **byte == b'.').count() == 2
    };
    names.contains(&name) || value.split(|byte| b" =,;".contains(byte)).any(is_token)
}

#[cfg(test)]
mod tests;
