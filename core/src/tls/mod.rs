//! TLS with SPIFFE identities, over byte buffers.
//!
//! [`sniff`] reads a ClientHello before anything is chosen; [`ServerTls`] and [`ClientTls`] are settings, made once;
//! [`Session`] is one end of one connection. rustls does the handshakes, `record` the records after them. No
//! name of rustls leaves this folder but the provider in [`Crypto`]; nothing here knows links, policies or HTTP.

mod client;
mod failure;
mod provider;
mod record;
mod server;
mod session;
mod sniff;
mod verify;

#[cfg(test)]
mod tests;

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

pub use client::{ClientTls, client_alpn};
pub use failure::{FailureKind, TlsError, TlsFailure};
pub use provider::{Crypto, KeyError, KeyKind, KeySource, WallClock};
pub use server::{ChainKind, ServerTls};
pub use session::{Established, Session, TlsEvent};
pub use sniff::{HelloFacts, Sniff, sniff};
pub use verify::PeerCertificate;

/// The versions that are spoken (S-30).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

impl TlsVersion {
    /// All versions from `self` on.
    fn and_later(self) -> &'static [&'static SupportedProtocolVersion] {
        const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
        const NEWEST: &[&SupportedProtocolVersion] = &[&TLS13];
        match self {
            Self::Tls12 => BOTH,
            Self::Tls13 => NEWEST,
        }
    }
}
