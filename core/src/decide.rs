//! The order of decisions, and the proof that one was made.
//!
//! This is the only module that makes a [`Permit`]; opening an upstream consumes one.

mod believed;

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::api::authorization_policy::Action;
use crate::api::meta::Origin;
use crate::authn::status::Status;
use crate::authn::{self, Cache, Effects, Presented, authenticate};
use crate::authz::listener::{Comparison, Part};
use crate::authz::{self, Attributes, Decision, HttpAttributes, PolicyId, evaluate};
use crate::clock::UnixTime;
use crate::http::forwarded::{Place, original_client};
use crate::http::head::{Fields, Known};
use crate::path::{self, Normalization};
use crate::snapshot::{InboundPort, OutboundPort};

pub use believed::believed;

/// Proof that the policies allow this request or connection. Cannot be made elsewhere, cannot be copied.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    _private: (),
}

/// Proof that a connection may be opened towards the application before its first byte was judged: the application's own
/// bytes may flow, none of the client's (S-121).
#[derive(Debug)]
#[must_use]
pub struct Greeting {
    _private: (),
}

/// A refusal with everything that the wire and the record need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub status: u16,
    pub body: Cow<'static, str>,
    /// The detail of the record (S-118, S-329).
    pub details: String,
    /// Further lines of the answer; names in lower case (S-217).
    pub headers: Vec<(&'static str, Vec<u8>)>,
}

impl Denial {
    fn new(status: u16, body: &'static str, details: impl Into<String>) -> Self {
        Self {
            status,
            body: body.into(),
            details: details.into(),
            headers: Vec::new(),
        }
    }
}

/// What goes on of a request that was allowed.
#[derive(Clone, Debug)]
pub struct Passage<'a> {
    /// Normalised, query included, without the tokens that were taken from it.
    pub path: Cow<'a, [u8]>,
    /// What authentication does to the lines of the head.
    pub effects: Effects,
}

/// Hears both halves of a decision about a request; `()` hears nothing.
pub trait Listener: authn::Listener + authz::Listener {}

impl<L: authn::Listener + authz::Listener> Listener for L {}

/// A decision about a request, remembered. `Display` writes it as an indented tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    pub authn: authn::Explanation,
    /// Not decided where the request was refused before.
    pub authz: authz::Explanation,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.authn, self.authz)
    }
}

impl authn::Listener for Explanation {
    fn rule(&mut self, issuer: &str, origin: &Origin) {
        authn::Listener::rule(&mut self.authn, issuer, origin);
    }

    fn token(&mut self, place: authn::Place<'_>, verified: Result<(), Status>) {
        self.authn.token(place, verified);
    }

    fn outcome(&mut self, verified: Result<(), Status>) {
        authn::Listener::outcome(&mut self.authn, verified);
    }

    fn ended(&mut self, end: authn::End) {
        self.authn.ended(end);
    }
}

impl authz::Listener for Explanation {
    const EVERYTHING: bool = true;

    fn engine(&mut self, action: Action) {
        self.authz.engine(action);
    }

    fn rule(&mut self, id: &PolicyId) {
        authz::Listener::rule(&mut self.authz, id);
    }

    fn void(&mut self, reason: &str) {
        self.authz.void(reason);
    }

    fn alternative(&mut self, part: Part) {
        self.authz.alternative(part);
    }

    fn comparison(&mut self, comparison: &Comparison<'_>) {
        self.authz.comparison(comparison);
    }

    fn outcome(&mut self, matched: bool) {
        authz::Listener::outcome(&mut self.authz, matched);
    }

    fn decision(&mut self, decision: &Decision<'_>) {
        self.authz.decision(decision);
    }
}

/// What was decided about a request.
#[derive(Debug)]
pub enum Verdict<'a> {
    Allow(Permit, Passage<'a>),
    /// Refused; with the path that was judged, query included.
    Deny(Denial, Cow<'a, [u8]>),
}

/// Who calls, as the connection knows it.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The peer's SPIFFE URI without its scheme; `None` on plain text (S-126).
    pub principal: Option<&'a str>,
    pub peer: SocketAddr,
    /// The address of ours that was reached (S-151).
    pub reached: IpAddr,
    /// The server name of the ClientHello (S-152).
    pub sni: Option<&'a str>,
}

/// The request as far as decisions look at it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    /// As sent, query included.
    pub path: &'a [u8],
    pub authority: &'a [u8],
    pub fields: Fields<'a>,
}

/// May this request pass to the application behind `port`? Path first (S-180), then tokens, then AUDIT, DENY, ALLOW
/// (S-110). `now` is held against the times of tokens, and `cache` spares verifying one twice.
pub fn inbound_request<'a>(
    port: &InboundPort,
    caller: Caller<'_>,
    request: Request<'a>,
    now: UnixTime,
    cache: &mut Cache,
    audit: &mut impl FnMut(&PolicyId),
    listener: &mut impl Listener,
) -> Verdict<'a> {
    let path = match normalized(request.path, port.normalization) {
        Ok(path) => path,
        Err(denial) => return Verdict::Deny(denial, request.path.into()),
    };
    let tls = caller.principal.is_some();
    let fields = believed(request.fields, tls);
    let presented = Presented {
        method: request.method,
        path: &path,
        authority: request.authority,
        tls,
        fields,
    };
    let authenticated = match authenticate(&port.authn, &presented, now, cache, listener) {
        Ok(authenticated) => authenticated,
        Err(refusal) => {
            let text = refusal.status.text();
            let denial = Denial {
                headers: vec![("www-authenticate", refusal.challenge())],
                ..Denial::new(refusal.status.http_status(), text, refusal.details())
            };
            return Verdict::Deny(denial, path);
        }
    };
    let authn::Authentication {
        claims,
        mut effects,
    } = authenticated;
    let path = effects.take_path(path);
    let decision = evaluate(
        &port.http,
        &Attributes {
            principal: caller.principal,
            source_ip: caller.peer.ip(),
            remote_ip: remote_ip(fields, caller.peer.ip()),
            destination_ip: caller.reached,
            destination_port: port.port,
            sni: caller.sni,
            http: Some(HttpAttributes {
                method: request.method,
                path: path::without_query(&path),
                authority: request.authority,
                fields: effects.fields(fields),
                claims: claims.as_deref(),
            }),
        },
        audit,
        listener,
    );
    match decision {
        Decision::Allowed { .. } => {
            Verdict::Allow(Permit { _private: () }, Passage { path, effects })
        }
        Decision::Denied { .. } => {
            let details = decision.denial_details().unwrap_or_default();
            Verdict::Deny(Denial::new(403, "RBAC: access denied", details), path)
        }
    }
}

/// May this request of the application leave? Policies do not apply to what a workload sends (S-122); the path is
/// normalised all the same (S-180).
pub fn outbound_request<'a>(port: &OutboundPort, path: &'a [u8]) -> Verdict<'a> {
    match normalized(path, port.normalization) {
        Ok(path) => {
            let effects = Effects::default();
            Verdict::Allow(Permit { _private: () }, Passage { path, effects })
        }
        Err(denial) => Verdict::Deny(denial, path.into()),
    }
}

/// May the application's connection leave? Always (S-122).
pub fn outbound_connection(_: &OutboundPort) -> Permit {
    Permit { _private: () }
}

/// What may happen before the first byte of an opaque connection (S-121).
pub fn inbound_greeting(_: &InboundPort) -> Greeting {
    Greeting { _private: () }
}

/// May these opaque bytes pass? Asked once, when the first of them are there (S-121).
pub fn inbound_connection(
    port: &InboundPort,
    caller: Caller<'_>,
    audit: &mut impl FnMut(&PolicyId),
    listener: &mut impl authz::Listener,
) -> Result<Permit, Denial> {
    let decision = evaluate(
        &port.tcp,
        &Attributes {
            principal: caller.principal,
            source_ip: caller.peer.ip(),
            remote_ip: caller.peer.ip(), // S-135
            destination_ip: caller.reached,
            destination_port: port.port,
            sni: caller.sni,
            http: None,
        },
        audit,
        listener,
    );
    match decision {
        Decision::Allowed { .. } => Ok(Permit { _private: () }),
        Decision::Denied { .. } => {
            let details = decision.denial_details().unwrap_or_default();
            Err(Denial::new(0, "", details))
        }
    }
}

/// The path as rules and upstreams see it, or the answer to a request that has none.
///
/// `OPTIONS *` means the next server, which is this proxy: made a path of, it would reach an application as something that
/// the client never asked. Envoy: `absolute_path_rejected`.
fn normalized(path: &[u8], mode: Normalization) -> Result<Cow<'_, [u8]>, Denial> {
    if !path.starts_with(b"/") {
        return Err(Denial::new(404, "", "absolute_path_rejected"));
    }
    // S-183.
    path::normalize(path, mode, true).map_err(|_| Denial::new(400, "", "path_normalization_failed"))
}

/// The original client of a request at a sidecar (S-320).
fn remote_ip(fields: Fields<'_>, peer: IpAddr) -> IpAddr {
    let lines = fields.iter();
    let lines = lines.filter(|field| field.known == Known::XForwardedFor);
    original_client(Place::Sidecar, peer, lines.map(|field| field.value))
}

#[cfg(test)]
mod tests;
