//! What a machine decides by, compiled from policies and ports.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use meshward_core::accept::{Mode, PortKind};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::snapshot::compile::{self, InboundSource, OutboundSource, Sources};
use meshward_core::snapshot::select::Workload;
use meshward_core::snapshot::{self, ClientTls};
use pyo3::prelude::*;

use crate::MeshwardError;
use crate::convert::{Address, Ip, Named};
use crate::plain::{Show as _, plain};
use crate::policies::{Policies, workload};

plain! {
    /// A port of the workload and the application behind it. `protocol` is http, tcp or auto. `mode` is STRICT, PERMISSIVE,
    /// DISABLE, or `None`: then PeerAuthentication decides. `from_` is the address from which the application is called.
    Inbound {
        port: NonZeroU16,
        upstream: Address,
        protocol: Named<PortKind>,
        mode: Option<Named<Mode>>,
        from_: Option<Ip>,
    }
    #[new]
    #[pyo3(signature = (port, upstream, protocol = "http", mode = None, from_ = None))]
    fn new(
        port: NonZeroU16,
        upstream: Address,
        protocol: &str,
        mode: Option<Named<Mode>>,
        from_: Option<Ip>,
    ) -> PyResult<Self> {
        let protocol = Named::parse(protocol)?;
        Ok(Self { port, upstream, protocol, mode, from_ })
    }
}

plain! {
    /// A destination of the workload's own calls: the address that the application means, and where that leads.
    ///
    /// `cluster` is its name in records, as `outbound|80||catalog.default.svc.cluster.local`. With a `server_name` the call
    /// is made in mutual TLS, and the server must prove one of `identities` (`spiffe://…`); if there are none, any of the
    /// mesh will do. `protocol` is http or tcp.
    Outbound {
        address: Address,
        upstream: Address,
        cluster: String,
        protocol: Named<PortKind>,
        server_name: Option<String>,
        identities: Vec<String>,
    }
    #[new]
    #[pyo3(signature = (address, upstream, cluster, protocol = "http", server_name = None, identities = None))]
    fn new(
        address: Address,
        upstream: Address,
        cluster: String,
        protocol: &str,
        server_name: Option<String>,
        identities: Option<Vec<String>>,
    ) -> PyResult<Self> {
        let protocol = Named::parse(protocol)?;
        let identities = identities.unwrap_or_default();
        Ok(Self { address, upstream, cluster, protocol, server_name, identities })
    }
}

/// Everything that a proxy decides by, compiled: ports, destinations, and what the policies say about this workload. Handed
/// to `Proxy.handle` it replaces the one of before as a whole.
///
/// `version` must grow with each snapshot of one proxy. `namespace` and `labels` are the workload's, for selectors;
/// `trust_domain` is the mesh's, where the policies bring no meshConfig. Inbound ports are listeners 0, 1, …; outbound ones
/// follow.
#[pyclass(module = "meshward", frozen)]
pub(crate) struct Snapshot(pub(crate) Arc<snapshot::Snapshot>);

#[pymethods]
impl Snapshot {
    #[new]
    #[pyo3(signature = (policies, inbound, outbound = None, *, version, namespace = "default", labels = None,
                        trust_domain = None))]
    fn new(
        policies: &Policies,
        inbound: Vec<Bound<'_, Inbound>>,
        outbound: Option<Vec<Bound<'_, Outbound>>>,
        version: u64,
        namespace: &str,
        labels: Option<BTreeMap<String, String>>,
        trust_domain: Option<String>,
    ) -> PyResult<Self> {
        let outbound = outbound.unwrap_or_default();
        let inbound: Vec<&Inbound> = inbound.iter().map(Bound::get).collect();
        let outbound: Vec<&Outbound> = outbound.iter().map(Bound::get).collect();
        let mesh = policies.mesh.clone().unwrap_or_else(|| {
            let default = MeshConfig::default();
            MeshConfig {
                trust_domain: trust_domain.unwrap_or(default.trust_domain),
                ..default
            }
        });
        let workload = workload(namespace, labels)?;
        Self::compile(version, workload, mesh, policies, &inbound, &outbound)
    }

    #[getter]
    fn version(&self) -> u64 {
        self.0.version
    }

    fn __repr__(&self) -> String {
        format!("<Snapshot {}>", self.0.version)
    }
}

impl Snapshot {
    pub(crate) fn compile(
        version: u64,
        workload: Workload,
        mesh: MeshConfig,
        policies: &Policies,
        inbound: &[&Inbound],
        outbound: &[&Outbound],
    ) -> PyResult<Self> {
        let inbound: Vec<_> = inbound
            .iter()
            .zip(0..)
            .map(|(port, listener)| inbound_source(listener, port, policies))
            .collect::<PyResult<_>>()?;
        let outbound: Vec<_> = outbound
            .iter()
            .zip(inbound.len() as u32..)
            .map(|(call, listener)| outbound_source(listener, call))
            .collect::<PyResult<_>>()?;
        let sources = Sources {
            version,
            workload,
            mesh,
            inbound,
            outbound,
        };
        let snapshot =
            compile::snapshot(&sources).map_err(|e| MeshwardError::new_err(e.to_string()))?;
        Ok(Self(Arc::new(snapshot)))
    }
}

fn inbound_source(listener: u32, port: &Inbound, policies: &Policies) -> PyResult<InboundSource> {
    listens(port.upstream)?;
    if let (Some(_), Some(policy)) = (port.mode, policies.peer_authentications.first()) {
        return Err(MeshwardError::new_err(format!(
            "{}: a mode is given beside this PeerAuthentication\n  hint: keep one of the two",
            policy.meta.origin
        )));
    }
    Ok(InboundSource {
        listener,
        port: port.port.get(),
        kind: port.protocol.0,
        mode: port.mode.map(|mode| mode.0),
        upstream: port.upstream.0,
        from: port.from_.map(|ip| ip.0),
        records: true,
        authorization_policies: Arc::clone(&policies.authorization_policies),
        peer_authentications: Arc::clone(&policies.peer_authentications),
        request_authentications: Arc::clone(&policies.request_authentications),
    })
}

fn outbound_source(listener: u32, call: &Outbound) -> PyResult<OutboundSource> {
    listens(call.upstream)?;
    if call.protocol.0 == PortKind::Auto {
        return Err(MeshwardError::new_err(
            "a destination is http or tcp\n  hint: a destination of undeclared protocol is tcp",
        ));
    }
    let tls = match (&call.server_name, call.identities.first()) {
        (None, None) => None,
        (None, Some(identity)) => {
            return Err(MeshwardError::new_err(format!(
                "`{identity}` cannot be proved in plain text\n  hint: a server_name makes this call one in TLS"
            )));
        }
        (Some(name), _) => Some(ClientTls {
            sni: name.clone(),
            subject_alt_names: call.identities.clone(),
        }),
    };
    Ok(OutboundSource {
        listener,
        address: call.address.0,
        kind: call.protocol.0,
        upstream: call.upstream.0,
        cluster: call.cluster.clone(),
        tls,
        records: true,
    })
}

pub(crate) fn listens(address: Address) -> PyResult<()> {
    if address.0.port() > 0 {
        return Ok(());
    }
    let address = address.show();
    Err(MeshwardError::new_err(format!(
        "nothing listens on {address}"
    )))
}
