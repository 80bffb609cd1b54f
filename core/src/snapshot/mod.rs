//! What one workload has to know, typed and compiled.
//!
//! A snapshot is immutable; a change is a new snapshot. Whoever has one request to judge reads one snapshot, the one that
//! was current when the request's head was complete.

pub mod compile;
pub mod mtls;
pub mod select;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::accept::{Mode, PortKind};
use crate::authz::RuleSets;
use crate::path::Normalization;
use crate::spiffe::TrustDomain;

/// Everything that a proxy decides by.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows with each change; a proxy refuses to go back.
    pub version: u64,
    /// Trust domains whose identities may come in (S-31): the mesh's own first, then its aliases.
    pub trust_domains: Vec<TrustDomain>,
    /// TLS 1.3 and nothing older (S-30).
    pub tls13_only: bool,
    /// By workload port.
    pub inbound: BTreeMap<u16, Arc<InboundPort>>,
    /// By the address that the application meant.
    pub outbound: BTreeMap<SocketAddr, Arc<OutboundPort>>,
}

/// One port of the workload, as others reach it.
#[derive(Debug)]
pub struct InboundPort {
    /// Position of the listener, for the log.
    pub listener: u32,
    /// The workload port (S-22, S-137).
    pub port: u16,
    pub kind: PortKind,
    pub mode: Mode,
    /// Where the application listens.
    pub upstream: SocketAddr,
    /// The address from which the application is called (Istio: 127.0.0.6), where it matters.
    pub from: Option<IpAddr>,
    /// `inbound|8080||` (S-330).
    pub cluster: String,
    /// Rules for traffic that is read as HTTP.
    pub http: RuleSets,
    /// Rules for traffic that is not (S-155 to S-158).
    pub tcp: RuleSets,
    pub normalization: Normalization,
    /// `protocolDetectionTimeout`; `None` waits for ever (S-27).
    pub detection_timeout: Option<Duration>,
    pub connect_timeout: Duration,
    /// Whether access records are wanted.
    pub records: bool,
}

/// One destination of the workload's own calls.
#[derive(Debug)]
pub struct OutboundPort {
    /// Position of the listener, for the log.
    pub listener: u32,
    /// `Http` or `Tcp`.
    pub kind: PortKind,
    pub upstream: SocketAddr,
    /// `outbound|80||catalog.default.svc.cluster.local` (S-330).
    pub cluster: String,
    /// `None`: plain text.
    pub tls: Option<ClientTls>,
    pub normalization: Normalization,
    pub connect_timeout: Duration,
    /// Whether access records are wanted.
    pub records: bool,
}

/// How a client proves itself and whom it accepts (S-58).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientTls {
    pub sni: String,
    /// One of these URIs must be in the server's certificate; empty: the chain alone counts.
    pub subject_alt_names: Vec<String>,
}
