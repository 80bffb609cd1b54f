//! The order of decisions, and the proof that one was made.
//!
//! This is the only module that makes a [`Permit`]; opening an upstream consumes one.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use crate::authz::{Attributes, Decision, HttpAttributes, Listener, PolicyId, evaluate};
use crate::http::head::{Fields, Known};
use crate::path::{self, Normalization};
use crate::snapshot::{InboundPort, OutboundPort};

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
    pub body: &'static str,
    /// The detail of the record (S-118, S-329).
    pub details: String,
}

/// What was decided about a request.
#[derive(Debug)]
pub enum Verdict<'a> {
    /// Goes on with this path, query included.
    Allow(Permit, Cow<'a, [u8]>),
    /// Refused; with the path that was judged.
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

/// May this request pass to the application behind `port`? Path first (S-180), then AUDIT, DENY, ALLOW (S-110).
pub fn inbound_request<'a>(
    port: &InboundPort,
    caller: Caller<'_>,
    request: Request<'a>,
    audit: &mut impl FnMut(&PolicyId),
    listener: &mut impl Listener,
) -> Verdict<'a> {
    let path = match normalized(request.path, port.normalization) {
        Ok(path) => path,
        Err(denial) => return Verdict::Deny(denial, request.path.into()),
    };
    let decision = evaluate(
        &port.http,
        &Attributes {
            principal: caller.principal,
            source_ip: caller.peer.ip(),
            remote_ip: remote_ip(request.fields, caller.peer.ip()),
            destination_ip: caller.reached,
            destination_port: port.port,
            sni: caller.sni,
            http: Some(HttpAttributes {
                method: request.method,
                path: path::without_query(&path),
                authority: request.authority,
                fields: request.fields,
                claims: None,
            }),
        },
        audit,
        listener,
    );
    match decision {
        Decision::Allowed { .. } => Verdict::Allow(Permit { _private: () }, path),
        Decision::Denied { .. } => {
            let details = decision.denial_details().unwrap_or_default();
            Verdict::Deny(
                Denial {
                    status: 403,
                    body: "RBAC: access denied",
                    details,
                },
                path,
            )
        }
    }
}

/// May this request of the application leave? Policies do not apply to what a workload sends (S-122); the path is
/// normalised all the same (S-180).
pub fn outbound_request<'a>(port: &OutboundPort, path: &'a [u8]) -> Verdict<'a> {
    match normalized(path, port.normalization) {
        Ok(path) => Verdict::Allow(Permit { _private: () }, path),
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
    listener: &mut impl Listener,
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
        Decision::Denied { .. } => Err(Denial {
            status: 0,
            body: "",
            details: decision.denial_details().unwrap_or_default(),
        }),
    }
}

/// The path as rules and upstreams see it, or the answer to a request that has none.
///
/// `OPTIONS *` means the next server, which is this proxy: made a path of, it would reach an application as something that
/// the client never asked. Envoy: `absolute_path_rejected`.
fn normalized(path: &[u8], mode: Normalization) -> Result<Cow<'_, [u8]>, Denial> {
    if !path.starts_with(b"/") {
        return Err(Denial {
            status: 404,
            body: "",
            details: "absolute_path_rejected".into(),
        });
    }
    path::normalize(path, mode, true).map_err(|_| Denial {
        status: 400,
        body: "",
        details: "path_normalization_failed".into(), // S-183
    })
}

/// The original client of a request at a sidecar (S-320): the last entry of `x-forwarded-for` if it is an address, else
/// the peer.
fn remote_ip(fields: Fields<'_>, peer: IpAddr) -> IpAddr {
    fields
        .iter()
        .filter(|field| field.known == Known::XForwardedFor)
        .last()
        .map(|field| field.value)
        .and_then(|value| value.rsplit(|b| *b == b',').next())
        .and_then(|last| std::str::from_utf8(last).ok())
        .and_then(|last| last.trim_matches([' ', '\t']).parse().ok())
        .unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_of_x_forwarded_for_is_the_client_if_it_is_an_address() {
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        for (value, ip) in [
            (None, "10.0.0.1"),
            (Some("1.2.3.4"), "1.2.3.4"),
            (Some("9.9.9.9, 1.2.3.4"), "1.2.3.4"),
            (Some("1.2.3.4, junk"), "10.0.0.1"),
            (Some("1.2.3.4:80"), "10.0.0.1"),
            (Some(""), "10.0.0.1"),
            (Some("2001:db8::1"), "2001:db8::1"),
        ] {
            let line = value.map(|value| (&b"X-Forwarded-For"[..], value.as_bytes()));
            let got = remote_ip(Fields::listed(line.as_slice()), peer);
            assert_eq!(got, ip.parse::<IpAddr>().unwrap(), "{value:?}");
        }
    }
}
