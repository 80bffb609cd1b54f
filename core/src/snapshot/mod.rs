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
use crate::authn;
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
    /// The workload's own address: its calls leave from there. `None`: whatever the system chooses.
    pub address: Option<IpAddr>,
    pub outbound: Arc<Outbound>,
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
    /// What is demanded of tokens, in traffic that is read as HTTP (S-231).
    pub authn: Arc<authn::Rules>,
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

/// Where the calls of a workload go. Workloads of one namespace see the same, so they may share it.
#[derive(Debug, Default)]
pub struct Outbound {
    /// By the exact address that the application meant: services that are not HTTP, services of undeclared protocol, and
    /// every listener of a static file. These are asked first.
    pub addresses: BTreeMap<SocketAddr, Arc<OutboundPort>>,
    /// HTTP by port, whatever the address: where the request goes is said by its authority.
    pub ports: BTreeMap<u16, Arc<OutboundPort>>,
    /// Calls that no port above takes, as opaque bytes (S-62). `None`: they are reset.
    pub passthrough: Option<Arc<OutboundPort>>,
    /// Every cluster that a route leads to, by its name. A cluster's `number` is its position.
    pub clusters: Vec<Arc<Cluster>>,
}

impl Outbound {
    /// Through which door a call to `meant` leaves; `None`: it is reset.
    pub fn door(&self, meant: SocketAddr) -> Option<&Arc<OutboundPort>> {
        self.addresses
            .get(&meant)
            .or_else(|| self.ports.get(&meant.port()))
            .or(self.passthrough.as_ref())
    }
}

/// One door for the workload's own calls.
#[derive(Debug)]
pub struct OutboundPort {
    /// Position of the listener, for the log.
    pub listener: u32,
    /// `Auto`: what the application sends first decides between HTTP and opaque bytes.
    pub kind: PortKind,
    /// By the authority of a request, in lower case and without its port. Empty where all requests go one way.
    pub hosts: BTreeMap<String, Arc<Cluster>>,
    /// For requests whose authority is none of `hosts`, and for opaque bytes.
    pub otherwise: Arc<Cluster>,
    pub normalization: Normalization,
    /// Whether access records are wanted.
    pub records: bool,
}

/// A destination that may have several endpoints.
#[derive(Debug)]
pub struct Cluster {
    /// Position in [`Outbound::clusters`].
    pub number: u32,
    /// `outbound|80||catalog.default.svc.cluster.local` (S-330), `PassthroughCluster`.
    pub name: String,
    pub endpoints: Endpoints,
    pub connect_timeout: Duration,
}

/// Where a cluster's links go.
#[derive(Clone, Debug)]
pub enum Endpoints {
    /// To one of these; empty: nobody can answer.
    Known(Vec<Endpoint>),
    /// To the address that the application meant: headless services and calls that no service covers (S-62).
    OriginalDestination { tls: Option<Arc<ClientTls>> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// `None`: plain text (S-60).
    pub tls: Option<Arc<ClientTls>>,
}

/// How a client proves itself and whom it accepts (S-58).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientTls {
    pub sni: String,
    /// One of these URIs must be in the server's certificate; empty: the chain alone counts.
    pub subject_alt_names: Vec<String>,
}
