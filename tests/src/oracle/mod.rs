//! A real Envoy, asked the same questions as our proxy.
//!
//! Policies are translated as istiod translates them; every question goes to Envoy and to a sidecar of ours, over real
//! sockets, and what the client, the application and the access log get to see must be the same.
//!
//! * [`rbac`] and [`jwt`] make filters of policies, [`envoy`] a configuration of places, and runs it;
//! * [`ours`] runs our proxy for the same places;
//! * [`upstream`] is the application behind both;
//! * [`ask`] is the client.
//!
//! Clients have the addresses that the policies speak of, so this happens in a network namespace in which every address is
//! local ([`namespace`]).

pub mod ask;
pub mod compare;
pub mod drawn;
pub mod envoy;
pub mod jwt;
pub mod namespace;
pub mod ours;
pub mod rbac;
pub mod upstream;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use meshward_core::accept::{Mode, PortKind};
use meshward_core::api::authorization_policy::AuthorizationPolicy;
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::meta::{Labels, Meta};
use meshward_core::api::request_authentication::{KeySource, RequestAuthentication};
use meshward_core::authn::jwk::KeySet;
use meshward_core::snapshot::select::Workload;

/// A port of a workload, with the policies of its mesh.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where its clients reach it.
    pub address: SocketAddr,
    pub kind: PortKind,
    pub mode: Mode,
    pub workload: Workload,
    /// `spiffe://…` of the workload.
    pub identity: String,
    pub mesh: MeshConfig,
    /// Of the whole mesh: which of them count here is for either side to find out.
    pub authorization: Vec<AuthorizationPolicy>,
    pub authentication: Vec<RequestAuthentication>,
}

impl Place {
    /// Whether Envoy would refuse to serve it: a key set without a usable key is an error of its whole configuration
    /// (S-229).
    pub fn is_unservable(&self) -> bool {
        let rules = self
            .authentication
            .iter()
            .filter(|policy| self.counts(&policy.meta, policy.selector.as_ref(), policy.targets))
            .flat_map(|policy| &policy.rules);
        rules.into_iter().any(|rule| match &rule.keys {
            KeySource::Inline(text) => KeySet::parse(text).map_or(true, |keys| keys.is_empty()),
            KeySource::Uri(_) | KeySource::Discovery => false,
        })
    }

    /// Whether two rules that count here name the same issuer.
    pub fn has_issuer_twice(&self) -> bool {
        let mut issuers: Vec<&str> = self
            .authentication
            .iter()
            .filter(|policy| self.counts(&policy.meta, policy.selector.as_ref(), policy.targets))
            .flat_map(|policy| &policy.rules)
            .map(|rule| rule.issuer.as_str())
            .collect();
        issuers.sort_unstable();
        issuers.windows(2).any(|pair| pair[0] == pair[1])
    }

    /// S-1 to S-5, once more: our own selection is one of the things that are asked about.
    fn counts(&self, meta: &Meta, selector: Option<&Labels>, targets: bool) -> bool {
        let in_scope =
            meta.namespace == self.workload.namespace || meta.namespace == self.mesh.root_namespace;
        let selected = selector.is_none_or(|wanted| {
            wanted
                .iter()
                .all(|(name, value)| self.workload.labels.get(name) == Some(value))
        });
        in_scope && selected && !targets
    }
}

/// One connection and what is sent on it.
#[derive(Clone, Debug)]
pub struct Question {
    /// For the report.
    pub id: String,
    /// Position among the places.
    pub place: usize,
    /// The access logs name a question by it, so no two may share it.
    pub from: SocketAddr,
    /// Mutual TLS with this `spiffe://…`; `None`: plain text.
    pub identity: Option<String>,
    pub sni: Option<String>,
    /// It carries a token that was not signed as it stands.
    pub forged: bool,
    pub what: What,
}

/// What is sent.
#[derive(Clone, Debug)]
pub enum What {
    /// A whole request.
    Request(Vec<u8>),
    /// Bytes that are no HTTP.
    Bytes(Vec<u8>),
}

/// The bytes as they stand in a text.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Request(bytes) | Self::Bytes(bytes)) = self;
        bytes.escape_ascii().fmt(f)
    }
}

/// What became of a question, in the words that are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// 0: no HTTP answer.
    pub status: u16,
    /// Of the answer of a proxy; of that of the application it is `upstream`.
    pub body: String,
    /// Lower-case names of those that decide or explain: `www-authenticate`, `grpc-status`, `grpc-message`, `content-type`.
    pub headers: BTreeMap<String, String>,
    /// What the application received.
    pub upstream: Option<Received>,
    /// `%RESPONSE_CODE_DETAILS%`, or for TCP `%CONNECTION_TERMINATION_DETAILS%`.
    pub details: String,
}

/// A request as the application got it, or the bytes of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    pub line: String,
    /// Lower-case names; values of one name in their order, as one list.
    pub headers: BTreeMap<String, String>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}` {}", self.status, self.body, self.details)?;
        for (name, value) in &self.headers {
            write!(f, "; {name}: {value}")?;
        }
        if let Some(received) = &self.upstream {
            write!(f, "; the application got `{}`", received.line)?;
            for (name, value) in &received.headers {
                write!(f, ", {name}: {value}")?;
            }
        }
        Ok(())
    }
}
