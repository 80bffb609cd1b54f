//! Who a request speaks for: JSON Web Tokens and what `RequestAuthentication` demands of them (S-210 to S-234).
//!
//! A request without a token passes without an identity; one with a token that no rule verifies is refused. Knows no links
//! and no clock, and fetches no keys.

mod cache;
mod claims;
mod effects;
mod explanation;
mod json;
pub mod jwa;
pub mod jwk;
pub mod jws;
mod locate;
mod rules;
pub mod status;
pub mod token;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

pub use cache::Cache;
pub use claims::Claims;
pub use effects::Effects;
pub use explanation::{End, Explanation, Listener, RuleTrace, TokenTrace};
pub use locate::Place;
pub use rules::{Finding, Rules, compile, warnings};

use crate::clock::UnixTime;
use crate::http::head::{Fields, Known};
use crate::limits;
use cache::Verified;
use rules::{Digest, Rule};
use status::Status;
use token::{Token, verify};

/// A request, as far as an authentication looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    pub method: &'a str,
    /// Normalised (S-180), with its query.
    pub path: &'a [u8],
    pub authority: &'a [u8],
    /// It came under TLS, which the realm of a refusal says.
    pub tls: bool,
    /// As they came.
    pub fields: Fields<'a>,
}

/// What is known of a request that may go on to the policies.
#[derive(Clone, Debug, Default)]
pub struct Authentication {
    /// Of the token that was verified (S-154); `None`: there was none.
    pub claims: Option<Arc<Claims>>,
    pub effects: Effects,
}

/// Why a request goes nowhere (S-217).
#[derive(Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: Status,
    /// `http://host/path?query`; whatever the client wrote there. It may hold a token of the query.
    pub realm: Vec<u8>,
}

impl Refusal {
    /// The value of `www-authenticate`.
    pub fn challenge(&self) -> Vec<u8> {
        let mut value = b"Bearer realm=\"".to_vec();
        value.extend_from_slice(&self.realm);
        value.push(b'"');
        if self.status != Status::Missing {
            value.extend_from_slice(b", error=\"invalid_token\"");
        }
        value
    }

    /// The detail of the record.
    pub fn details(&self) -> String {
        let text = self.status.text().replace(' ', "_");
        format!("jwt_authn_access_denied{{{text}}}")
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Refusal").field(&self.status).finish()
    }
}

/// Holds the tokens of a request against `rules`, in their order: the first rule whose tokens verify ends it, and without
/// one the request passes only if no rule finds a token (S-211, S-212).
///
/// A token is read once, however many rules look at its place; what was verified before is not verified again. More than
/// [`limits::TOKENS_MAX`] different ones are refused unread, as `BadFormat`.
pub fn authenticate(
    rules: &Rules,
    request: &Presented<'_>,
    now: UnixTime,
    cache: &mut Cache,
    listener: &mut impl Listener,
) -> Result<Authentication, Refusal> {
    if rules.is_empty() {
        listener.ended(End::NoRules);
        return Ok(Authentication::default());
    }
    let mut effects = Effects::without_token(rules);
    if is_preflight(request) {
        listener.ended(End::Preflight);
        return Ok(Authentication {
            claims: None,
            effects,
        });
    }
    let Sightings { texts, places } = Sightings::of(rules, request);
    if texts.len() > limits::TOKENS_MAX {
        listener.ended(End::Refused(Status::BadFormat));
        return Err(Refusal {
            status: Status::BadFormat,
            realm: realm(request),
        });
    }
    let mut tokens: Vec<Candidate<'_>> = texts.iter().map(|text| Candidate::new(text)).collect();
    let mut failure = Status::Missing;
    let mut rest = places.as_slice();
    for (number, rule) in rules.iter().enumerate() {
        listener.rule(&rule.issuer, &rule.origin);
        let of_rule = rest.iter().take_while(|seen| seen.rule == number);
        let (of_rule, others) = rest.split_at(of_rule.count());
        rest = others;
        // From the back, so that what the first one says is said last (S-214).
        let mut verified = Err(Status::Missing);
        for seen in of_rule.iter().rev() {
            let Some(token) = tokens.get_mut(seen.text) else {
                continue;
            };
            verified = token.verify(rule, now, cache);
            listener.token(seen.place, verified.as_ref().map(|_| ()).map_err(|s| *s));
            if verified.is_err() {
                break;
            }
        }
        listener.outcome(verified.as_ref().map(|_| ()).map_err(|s| *s));
        match verified {
            Ok(verified) => {
                if !rule.forward {
                    for seen in of_rule {
                        effects.take(seen.place, request.path);
                    }
                }
                effects.put(rule, &verified.payload.0, &verified.claims);
                listener.ended(End::Verified);
                return Ok(Authentication {
                    claims: Some(verified.claims),
                    effects,
                });
            }
            Err(Status::Missing) => {}
            // Behind all rules Envoy asks each of them once more whether it fails or finds nothing, in the same order, so
            // that of several failures the first is the last one it hears of (S-212).
            Err(status) if matches!(failure, Status::Missing | Status::UnknownIssuer) => {
                failure = status;
            }
            Err(_) => {}
        }
    }
    if failure == Status::Missing {
        listener.ended(End::NoToken);
        return Ok(Authentication {
            claims: None,
            effects,
        });
    }
    listener.ended(End::Refused(failure));
    Err(Refusal {
        status: failure,
        realm: realm(request),
    })
}

/// What of a request may be a token.
struct Sightings<'r, 'a> {
    /// A place that several rules look at is one text, so that what a request costs does not grow with the rules.
    texts: Vec<Cow<'a, [u8]>>,
    places: Vec<Sighting<'r>>,
}

/// Something in a place of a rule.
struct Sighting<'r> {
    /// Number of the rule. Sightings ascend by it.
    rule: usize,
    place: Place<'r>,
    /// Number of the text.
    text: usize,
}

impl<'r, 'a> Sightings<'r, 'a> {
    fn of(rules: &'r Rules, request: &Presented<'a>) -> Self {
        let mut texts: Vec<Cow<'a, [u8]>> = Vec::new();
        let mut places = Vec::new();
        for (number, rule) in rules.iter().enumerate() {
            let locations = &rule.locations;
            locations.find(request.fields, request.path, &mut |place, text| {
                // Equal texts in two places are two: to tell costs more than to read one of them again.
                let known = texts.iter().position(|other| match (other, &text) {
                    (Cow::Borrowed(other), Cow::Borrowed(text)) => std::ptr::eq(*other, *text),
                    (Cow::Owned(other), Cow::Owned(text)) => other == text,
                    _ => false,
                });
                places.push(Sighting {
                    rule: number,
                    place,
                    text: known.unwrap_or(texts.len()),
                });
                if known.is_none() {
                    texts.push(text);
                }
            });
        }
        Self { texts, places }
    }
}

/// One text that may be a token, read at most once.
struct Candidate<'t> {
    text: &'t [u8],
    digest: Option<Digest>,
    token: Option<Result<Token<'t>, Status>>,
}

impl<'t> Candidate<'t> {
    fn new(text: &'t [u8]) -> Self {
        Self {
            text,
            digest: None,
            token: None,
        }
    }

    fn verify(
        &mut self,
        rule: &Rule,
        now: UnixTime,
        cache: &mut Cache,
    ) -> Result<Verified, Status> {
        let digest = *self.digest.get_or_insert_with(|| {
            // INVARIANT: a SHA-256 has 32 bytes.
            digest(&SHA256, self.text)
                .as_ref()
                .try_into()
                .unwrap_or_default()
        });
        if let Some(verified) = cache.get(digest, rule.identity, now) {
            return Ok(verified);
        }
        // Its form is right and its issuer another: no need to read it again (S-216).
        let issuer = cache
            .claims(digest)
            .map(|claims| claims.payload().get("iss"));
        if !rule.issuer.is_empty()
            && issuer.is_some_and(|iss| iss.and_then(|iss| iss.as_str()) != Some(&rule.issuer))
        {
            return Err(Status::UnknownIssuer);
        }
        let token = self.token.get_or_insert_with(|| Token::parse(self.text));
        let token = token.as_ref().map_err(|status| *status)?;
        verify(token, &rule.demand(), now)?;
        let verified = Verified::new(token, &rule.delimited, rule.payload_header.is_some());
        cache.put(digest, rule.identity, verified.clone(), self.text.len());
        Ok(verified)
    }
}

/// A question of a browser before a request to another origin, which brings no token (S-227).
fn is_preflight(request: &Presented<'_>) -> bool {
    let has = |name: &[u8]| {
        let mut fields = request.fields.iter().filter(|field| !field.hop_by_hop);
        fields.any(|field| field.name.eq_ignore_ascii_case(name) && !field.value.is_empty())
    };
    request.method == "OPTIONS" && has(b"origin") && has(b"access-control-request-method")
}

/// Scheme and path as the client may have said them in `x-forwarded-proto` and `x-envoy-original-path`, which a sidecar
/// believes (S-217, S-322).
fn realm(request: &Presented<'_>) -> Vec<u8> {
    let is_scheme = |value: &&[u8]| {
        let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        !value.is_empty() && value.iter().all(part)
    };
    let scheme = request.fields.find(Known::XForwardedProto);
    let own: &[u8] = if request.tls { b"https" } else { b"http" };
    let path = request.fields.find(Known::XEnvoyOriginalPath);
    let path = path.unwrap_or(request.path);
    [
        scheme.filter(is_scheme).unwrap_or(own),
        b"://",
        request.authority,
        path.get(..limits::REALM_PATH_MAX).unwrap_or(path),
    ]
    .concat()
}

#[cfg(test)]
mod tests;
