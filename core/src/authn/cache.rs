//! Tokens that were verified, so that a signature is checked once.
//!
//! A token is known by its digest and by that of the rule that verified it, never by its text. The digest of a rule covers
//! its keys: with other keys nothing that was verified before is found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Claims;
use super::rules::{Digest, Rules};
use super::token::Token;
use crate::clock::UnixTime;
use crate::limits;

/// Verified tokens of one proxy, at most [`limits::TOKENS_CACHED_MAX`] with [`limits::TOKENS_CACHED_BYTES`] of text. What
/// came first goes first.
#[derive(Debug, Default)]
pub struct Cache {
    entries: BTreeMap<(Digest, Digest), Entry>,
    // INVARIANT: holds exactly the keys of `entries`, by their `serial`.
    by_age: BTreeMap<u64, (Digest, Digest)>,
    serial: u64,
    /// Sum of `Entry::bytes`.
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    verified: Verified,
    serial: u64,
    /// Length of the token.
    bytes: usize,
}

/// What is left of a token that was verified.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    pub(super) claims: Arc<Claims>,
    /// The payload as it stood in the token, where the rule passes it on; else empty.
    pub(super) payload: Payload,
    not_before: Option<u64>,
    expiry: Option<u64>,
}

/// Base64url of a payload. Not shown by `Debug`.
#[derive(Clone)]
pub(super) struct Payload(pub(super) Arc<str>);

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Verified {
    pub(super) fn new(token: &Token<'_>, delimited: &Arc<[String]>, passes_payload: bool) -> Self {
        let payload = if passes_payload {
            token.payload_segment()
        } else {
            ""
        };
        Self {
            claims: Arc::new(Claims::new(token.payload().clone(), Arc::clone(delimited))),
            payload: Payload(payload.into()),
            not_before: token.not_before(),
            expiry: token.expiry(),
        }
    }

    /// S-219.
    fn is_current(&self, now: UnixTime) -> bool {
        let (now, skew) = (now.as_secs(), limits::CLOCK_SKEW.as_secs());
        self.not_before
            .is_none_or(|from| from <= now.saturating_add(skew))
            && !self.is_over(now, skew)
    }

    fn is_over(&self, now: u64, skew: u64) -> bool {
        self.expiry
            .is_some_and(|until| now > until.saturating_add(skew))
    }
}

impl Cache {
    /// Tokens that are remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets what was verified by rules that are none of these.
    pub fn keep<'r>(&mut self, rules: impl Iterator<Item = &'r Rules>) {
        if self.is_empty() {
            return;
        }
        let identities: BTreeSet<Digest> = rules.flat_map(Rules::identities).collect();
        let gone: Vec<(Digest, Digest)> = self
            .entries
            .keys()
            .filter(|(_, rule)| !identities.contains(rule))
            .copied()
            .collect();
        for key in gone {
            self.remove(key);
        }
    }

    /// What is known of a token under a rule, unless its time is over or has not come.
    pub(super) fn get(&mut self, token: Digest, rule: Digest, now: UnixTime) -> Option<Verified> {
        let key = (token, rule);
        let verified = &self.entries.get(&key)?.verified;
        if verified.is_current(now) {
            return Some(verified.clone());
        }
        if verified.is_over(now.as_secs(), limits::CLOCK_SKEW.as_secs()) {
            self.remove(key);
        }
        None
    }

    /// The claims of a token under whichever rule it was verified.
    pub(super) fn claims(&self, token: Digest) -> Option<&Claims> {
        let range = (token, Digest::default())..=(token, [0xff; 32]);
        let (_, entry) = self.entries.range(range).next()?;
        Some(&entry.verified.claims)
    }

    /// Remembers a token of so many bytes, for which others may have to go.
    pub(super) fn put(&mut self, token: Digest, rule: Digest, verified: Verified, bytes: usize) {
        if bytes > limits::TOKEN_CACHED_MAX {
            return;
        }
        let key = (token, rule);
        self.remove(key);
        while self.entries.len() >= limits::TOKENS_CACHED_MAX
            || self.bytes + bytes > limits::TOKENS_CACHED_BYTES
        {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                break;
            };
            self.remove(oldest);
        }
        self.serial += 1;
        let serial = self.serial;
        self.bytes += bytes;
        self.by_age.insert(serial, key);
        let entry = Entry {
            verified,
            serial,
            bytes,
        };
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: (Digest, Digest)) {
        if let Some(entry) = self.entries.remove(&key) {
            self.by_age.remove(&entry.serial);
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests;
