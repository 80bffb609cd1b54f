//! From what files say to what a proxy decides by.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::mtls::effective_modes;
use super::select::{Workload, authorization_policies, request_authentications};
use super::{
    ClientTls, Cluster, Endpoint, Endpoints, InboundPort, Outbound, OutboundPort, Snapshot,
};
use crate::accept::{Mode, PortKind};
use crate::api::authorization_policy::AuthorizationPolicy;
use crate::api::mesh_config::MeshConfig;
use crate::api::peer_authentication::{self, PeerAuthentication};
use crate::api::request_authentication::RequestAuthentication;
use crate::authn;
use crate::authz::Layer;
use crate::authz::compile::compile;
use crate::path::Normalization;
use crate::spiffe::TrustDomain;

/// Everything from which the snapshot of one workload is made.
#[derive(Clone, Debug)]
pub struct Sources {
    pub version: u64,
    pub workload: Workload,
    pub mesh: MeshConfig,
    pub inbound: Vec<InboundSource>,
    pub outbound: Vec<OutboundSource>,
}

/// One inbound listener with the resources that count on it. Sharing the resources is the caller's business: each
/// listener of a static file may have a directory of its own.
#[derive(Clone, Debug)]
pub struct InboundSource {
    pub listener: u32,
    pub port: u16,
    pub kind: PortKind,
    /// Overrides PeerAuthentication.
    pub mode: Option<Mode>,
    pub upstream: SocketAddr,
    pub from: Option<IpAddr>,
    pub records: bool,
    pub authorization_policies: Arc<Vec<AuthorizationPolicy>>,
    pub peer_authentications: Arc<Vec<PeerAuthentication>>,
    pub request_authentications: Arc<Vec<RequestAuthentication>>,
}

/// One outbound listener.
#[derive(Clone, Debug)]
pub struct OutboundSource {
    pub listener: u32,
    /// The address that the application means, which is where we listen.
    pub address: SocketAddr,
    pub kind: PortKind,
    pub upstream: SocketAddr,
    pub cluster: String,
    pub tls: Option<ClientTls>,
    pub records: bool,
}

/// Why sources do not make a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error("`{0}` is no trust domain")]
    TrustDomain(String),
    #[error("port {0} has two inbound listeners of one workload")]
    TwicePort(u16),
    #[error("{0} has two outbound listeners of one workload")]
    TwiceAddress(SocketAddr),
}

/// Compiles; pure and deterministic.
pub fn snapshot(sources: &Sources) -> Result<Snapshot, CompileError> {
    let mesh = &sources.mesh;
    let mut trust_domains = Vec::new();
    for name in std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases) {
        let domain =
            TrustDomain::parse(name).map_err(|_| CompileError::TrustDomain(name.clone()))?;
        if !trust_domains.contains(&domain) {
            trust_domains.push(domain);
        }
    }
    let connect_timeout = Duration::from_millis(mesh.connect_timeout_ms);
    let mut inbound = BTreeMap::new();
    // Ports that share their sources share what they come to.
    let mut tokens: Option<(&Arc<Vec<RequestAuthentication>>, Arc<authn::Rules>)> = None;
    for source in &sources.inbound {
        let mode = source.mode.unwrap_or_else(|| {
            let policies = &source.peer_authentications;
            match effective_modes(&sources.workload, policies, &mesh.root_namespace).of(source.port)
            {
                peer_authentication::Mode::Disable => Mode::Disable,
                peer_authentication::Mode::Permissive => Mode::Permissive,
                // INVARIANT: effective modes are never unset; if one were, the strictest is the safe one.
                peer_authentication::Mode::Strict | peer_authentication::Mode::Unset => {
                    Mode::Strict
                }
            }
        });
        let policies = authorization_policies(
            &sources.workload,
            &source.authorization_policies,
            &mesh.root_namespace,
        );
        let shared = tokens
            .take_if(|(of, _)| Arc::ptr_eq(of, &source.request_authentications))
            .map(|(_, rules)| rules);
        let authn = shared.unwrap_or_else(|| {
            let all = &source.request_authentications;
            let root = &mesh.root_namespace;
            let policies = request_authentications(&sources.workload, all, root);
            Arc::new(authn::compile(&policies))
        });
        tokens = Some((&source.request_authentications, Arc::clone(&authn)));
        let port = InboundPort {
            listener: source.listener,
            port: source.port,
            kind: source.kind,
            mode,
            upstream: source.upstream,
            from: source.from,
            cluster: format!("inbound|{}||", source.port),
            authn,
            http: compile(&policies, mesh, Layer::Http),
            tcp: compile(&policies, mesh, Layer::Tcp),
            normalization: mesh.normalization,
            detection_timeout: (mesh.protocol_detection_timeout_ms > 0)
                .then(|| Duration::from_millis(mesh.protocol_detection_timeout_ms)),
            connect_timeout,
            records: source.records,
        };
        if inbound.insert(source.port, Arc::new(port)).is_some() {
            return Err(CompileError::TwicePort(source.port));
        }
    }
    let outbound = static_outbound(&sources.outbound, mesh.normalization, connect_timeout)?;
    Ok(Snapshot {
        version: sources.version,
        trust_domains,
        tls13_only: mesh.tls13_only,
        inbound,
        address: None,
        outbound: Arc::new(outbound),
    })
}

/// The outbound side of a static file: each listener leads to one address.
fn static_outbound(
    sources: &[OutboundSource],
    normalization: Normalization,
    connect_timeout: Duration,
) -> Result<Outbound, CompileError> {
    let mut outbound = Outbound::default();
    for (source, number) in sources.iter().zip(0..) {
        let cluster = Arc::new(Cluster {
            number,
            name: source.cluster.clone(),
            endpoints: Endpoints::Known(vec![Endpoint {
                address: source.upstream,
                tls: source.tls.clone().map(Arc::new),
            }]),
            connect_timeout,
        });
        outbound.clusters.push(Arc::clone(&cluster));
        let port = OutboundPort {
            listener: source.listener,
            kind: source.kind,
            hosts: BTreeMap::new(),
            otherwise: cluster,
            normalization,
            records: source.records,
        };
        let former = outbound.addresses.insert(source.address, Arc::new(port));
        if former.is_some() {
            return Err(CompileError::TwiceAddress(source.address));
        }
    }
    Ok(outbound)
}
