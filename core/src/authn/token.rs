//! One token: what it says, and whether a rule accepts it (S-216 to S-223).
//!
//! Reading comes first and is done once; a token that was read can be held against any number of rules. Where it was found,
//! and what becomes of the request, is said elsewhere.

use std::fmt;

use serde_json::{Map, Value};

use super::json;
use super::jwa::Algorithm;
use super::jwk::{Key, KeySet};
use super::jws::Jws;
use super::status::{Claim, Status};
use crate::clock::UnixTime;
use crate::limits::CLOCK_SKEW;

/// A token that was read. Its signature was not looked at: nothing in it is true yet.
///
/// `Debug` shows the algorithm alone.
pub struct Token<'t> {
    jws: Jws<'t>,
    payload: Map<String, Value>,
    payload_segment: &'t str,
    not_before: Option<u64>,
    expiry: Option<u64>,
}

/// What a rule asks of a token.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'r> {
    /// The `iss`, exactly; empty: any, or none (S-222).
    pub issuer: &'r str,
    /// One of them must be in `aud`; empty: no matter what is there (S-223).
    pub audiences: &'r [String],
    pub keys: &'r KeySet,
}

impl<'t> Token<'t> {
    /// Reads a compact JWS whose payload is a claims set.
    ///
    /// Fails with the first status between `BadFormat` and `SignatureBadBase64`, in the order of [`Status`].
    pub fn parse(text: &'t [u8]) -> Result<Self, Status> {
        let jws = Jws::parse(text)?;
        let payload = jws.payload().ok_or(Status::PayloadBadBase64)?;
        let payload_segment =
            str::from_utf8(jws.payload_section()).map_err(|_| Status::PayloadBadBase64)?;
        let payload = json::object(&payload).ok_or(Status::PayloadBadJson)?;
        if !is_text_or_absent(&payload, "iss") {
            return Err(Status::IssNotString);
        }
        if !is_text_or_absent(&payload, "sub") {
            return Err(Status::SubNotString);
        }
        time(&payload, "iat", Claim::Iat)?;
        let not_before = time(&payload, "nbf", Claim::Nbf)?;
        let expiry = time(&payload, "exp", Claim::Exp)?;
        if !is_text_or_absent(&payload, "jti") {
            return Err(Status::JtiNotString);
        }
        if !is_audience(payload.get("aud")) {
            return Err(Status::BadAud);
        }
        if !jws.has_signature() {
            return Err(Status::SignatureBadBase64);
        }
        Ok(Self {
            jws,
            payload,
            payload_segment,
            not_before,
            expiry,
        })
    }

    pub fn algorithm(&self) -> Algorithm {
        self.jws.algorithm()
    }

    pub fn header(&self) -> &Map<String, Value> {
        self.jws.header()
    }

    pub fn payload(&self) -> &Map<String, Value> {
        &self.payload
    }

    pub fn into_payload(self) -> Map<String, Value> {
        self.payload
    }

    /// The payload as it was sent, in base64url.
    pub fn payload_segment(&self) -> &'t str {
        self.payload_segment
    }

    pub fn issuer(&self) -> Option<&str> {
        self.payload.get("iss").and_then(Value::as_str)
    }

    /// `exp` in seconds since 1970, fractions cut off. The token is accepted for [`CLOCK_SKEW`] beyond it.
    pub fn expiry(&self) -> Option<u64> {
        self.expiry
    }

    /// `nbf` likewise. The token is accepted from [`CLOCK_SKEW`] before it.
    pub(super) fn not_before(&self) -> Option<u64> {
        self.not_before
    }

    /// Fails with `NotYetValid` or `Expired` (S-219). `iat` is not looked at.
    ///
    /// Unlike in Envoy an `exp` of 0 is a time, and past.
    pub fn check_times(&self, now: UnixTime) -> Result<(), Status> {
        let (now, skew) = (now.as_secs(), CLOCK_SKEW.as_secs());
        if self
            .not_before
            .is_some_and(|from| from > now.saturating_add(skew))
        {
            return Err(Status::NotYetValid);
        }
        if self
            .expiry
            .is_some_and(|until| now > until.saturating_add(skew))
        {
            return Err(Status::Expired);
        }
        Ok(())
    }

    /// The key of `keys` that signed this token; see [`Jws::signer`].
    pub fn signer<'k>(&self, keys: &'k KeySet) -> Result<&'k Key, Status> {
        self.jws.signer(keys)
    }

    fn has_audience(&self, allowed: &[String]) -> bool {
        let is_allowed = |audience: &str| {
            let audience = bare(audience);
            allowed.iter().any(|one| bare(one) == audience)
        };
        match self.payload.get("aud") {
            Some(Value::String(audience)) => is_allowed(audience),
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).any(is_allowed),
            Some(_) | None => false,
        }
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.algorithm().name())
    }
}

/// Whether `demand` accepts `token` at `now`: issuer, times, audience, key and signature, in this order (S-216).
pub fn verify(token: &Token<'_>, demand: &Demand<'_>, now: UnixTime) -> Result<(), Status> {
    if !demand.issuer.is_empty() && token.issuer() != Some(demand.issuer) {
        return Err(Status::UnknownIssuer);
    }
    token.check_times(now)?;
    if !demand.audiences.is_empty() && !token.has_audience(demand.audiences) {
        return Err(Status::AudienceNotAllowed);
    }
    token.signer(demand.keys)?;
    Ok(())
}

fn is_text_or_absent(object: &Map<String, Value>, name: &str) -> bool {
    object.get(name).is_none_or(Value::is_string)
}

/// A text, a list of texts, or nothing.
fn is_audience(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::String(_)) => true,
        Some(Value::Array(list)) => list.iter().all(Value::is_string),
        Some(_) => false,
    }
}

/// A time in seconds as Envoy reads it: any number, as an `f64`, fractions cut off.
fn time(payload: &Map<String, Value>, name: &str, claim: Claim) -> Result<Option<u64>, Status> {
    /// 2^64, the first `f64` that is too large.
    const END: f64 = 18_446_744_073_709_551_616.0;
    let Some(value) = payload.get(name) else {
        return Ok(None);
    };
    let number = value.as_f64().ok_or(Status::TimeNotInteger(claim))?;
    if (0.0..END).contains(&number) {
        Ok(Some(number as u64))
    } else {
        Err(Status::TimeNotPositive(claim))
    }
}

/// An audience without its scheme and one slash at its end (S-223).
fn bare(audience: &str) -> &str {
    let rest = audience
        .strip_prefix("http://")
        .or_else(|| audience.strip_prefix("https://"))
        .unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

#[cfg(test)]
mod tests;
