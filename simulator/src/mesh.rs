//! A small mesh as data: who there is, at which addresses, and the snapshot and identity of each.
//!
//! Knows no world: the same mesh is run in virtual time and over real sockets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use meshward_core::accept::PortKind;
use meshward_core::api::load::{self, Loaded, Text};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::peer_authentication::Mode;
use meshward_core::clock::UnixTime;
use meshward_core::snapshot::compile::{self, InboundSource, OutboundSource, Sources};
use meshward_core::snapshot::mtls::effective_modes;
use meshward_core::snapshot::select::Workload;
use meshward_core::snapshot::{ClientTls, Snapshot};
use meshward_core::spiffe::Svid;

use crate::crypto::{Ca, Identity};

/// From where sidecars call their application (S-330).
pub const FROM_SIDECAR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));

/// Who a workload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub trust_domain: String,
    pub namespace: String,
    pub service_account: String,
}

impl Name {
    pub fn uri(&self) -> String {
        format!("spiffe://{}", self.principal())
    }

    /// The URI without its scheme, as policies spell it (S-127).
    pub fn principal(&self) -> String {
        format!(
            "{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

/// One port of a workload.
#[derive(Clone, Debug)]
pub struct Port {
    pub port: u16,
    pub kind: PortKind,
    /// Where the application listens.
    pub app: SocketAddr,
}

/// One address that a workload calls.
#[derive(Clone, Debug)]
pub struct Call {
    /// The address that the application means.
    pub service: SocketAddr,
    /// `outbound|80||catalog.default.svc.cluster.local` (S-330).
    pub cluster: String,
    pub kind: PortKind,
    /// The sidecar that answers.
    pub upstream: SocketAddr,
    /// `None`: plain text. Else the server name and who must answer (S-58).
    pub tls: Option<(String, String)>,
}

/// One workload with a sidecar.
#[derive(Clone, Debug)]
pub struct Site {
    pub label: String,
    pub name: Name,
    pub ip: IpAddr,
    pub ports: Vec<Port>,
    pub calls: Vec<Call>,
}

/// Policies and mesh configuration as they are in force.
#[derive(Clone, Debug)]
pub struct Rules {
    loaded: Arc<Loaded>,
}

impl Rules {
    /// Reads the YAML of policies; one error refuses all, in the words of the loader.
    pub fn read(yaml: &str) -> Result<Self, String> {
        let text = Text {
            name: "policies".into(),
            text: yaml.into(),
        };
        load::load_for_enforcement(&[text], "default")
            .map(|loaded| Self {
                loaded: Arc::new(loaded),
            })
            .map_err(|refused| refused.to_string())
    }

    /// Whether the port of a workload takes no TLS, so that clients know to speak plain text (S-60). `label` is its `app`.
    pub fn disables(&self, label: &str, name: &Name, port: u16) -> bool {
        let root = self.mesh(name).root_namespace;
        let policies = &self.loaded.peer_authentications;
        effective_modes(&workload(label, name), policies, &root).of(port) == Mode::Disable
    }

    fn mesh(&self, name: &Name) -> MeshConfig {
        self.loaded
            .mesh_config
            .clone()
            .unwrap_or_else(|| MeshConfig {
                trust_domain: name.trust_domain.clone(),
                ..MeshConfig::default()
            })
    }
}

impl Site {
    /// What the sidecar of this workload decides by, under `rules`. Workloads have one label, `app`.
    pub fn snapshot(&self, rules: &Rules, version: u64) -> Arc<Snapshot> {
        let loaded = &rules.loaded;
        let authorization_policies = Arc::new(loaded.authorization_policies.clone());
        let peer_authentications = Arc::new(loaded.peer_authentications.clone());
        let request_authentications = Arc::new(loaded.request_authentications.clone());
        let mesh = rules.mesh(&self.name);
        let inbound = self
            .ports
            .iter()
            .zip(0..)
            .map(|(port, listener)| InboundSource {
                listener,
                port: port.port,
                kind: port.kind,
                mode: None,
                upstream: port.app,
                from: Some(FROM_SIDECAR),
                records: true,
                authorization_policies: Arc::clone(&authorization_policies),
                peer_authentications: Arc::clone(&peer_authentications),
                request_authentications: Arc::clone(&request_authentications),
            });
        let first = self.ports.len() as u32;
        let outbound = self
            .calls
            .iter()
            .zip(first..)
            .map(|(call, listener)| OutboundSource {
                listener,
                address: call.service,
                kind: call.kind,
                upstream: call.upstream,
                cluster: call.cluster.clone(),
                tls: call.tls.clone().map(|(sni, san)| ClientTls {
                    sni,
                    subject_alt_names: vec![san],
                }),
                records: true,
            });
        let sources = Sources {
            version,
            workload: workload(&self.label, &self.name),
            mesh,
            inbound: inbound.collect(),
            outbound: outbound.collect(),
        };
        let snapshot = compile::snapshot(&sources).expect("ports and addresses are unique");
        Arc::new(snapshot)
    }
}

fn workload(label: &str, name: &Name) -> Workload {
    Workload {
        namespace: name.namespace.clone(),
        labels: BTreeMap::from([("app".into(), label.to_owned())]),
    }
}

/// `identity` in the form that a sidecar takes; it believes the roots of `ca`.
pub fn svid(identity: &Identity, ca: &Ca, now: UnixTime) -> Arc<Svid> {
    let svid = Svid::from_pem(
        identity.chain_pem.as_bytes(),
        identity.key_pem.as_bytes(),
        ca.root_pem().as_bytes(),
        now,
    );
    Arc::new(svid.expect("our authority makes X509-SVIDs"))
}
