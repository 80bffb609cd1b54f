//! What a case puts in force: policies and mesh configuration, and what the sidecar of a workload decides by.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use meshward_core::accept::PortKind;
use meshward_core::api::load::yaml::{Node, Value};
use meshward_core::api::load::{Loaded, Text, load_for_enforcement, load_mesh_config};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::peer_authentication::Mode;
use meshward_core::snapshot::Snapshot;
use meshward_core::snapshot::compile::{InboundSource, Sources, snapshot};
use meshward_core::snapshot::mtls::effective_modes;
use meshward_core::snapshot::select::{self, selects};
use meshward_simulator::mesh::FROM_SIDECAR;

use super::cert::Authorities;
use super::corpus::{Case, Mesh, Workload};
use super::tree::json;

/// What is asked of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Which mode ports have; authorization has no part in it.
    Modes,
    /// Everything that the inbound side of a sidecar does.
    Inbound,
}

/// Policies and mesh configuration as they are in force.
#[derive(Debug)]
pub(super) struct Rules {
    loaded: Loaded,
    mesh: MeshConfig,
}

impl Rules {
    /// Errors are for people: what of the case is refused, or is nothing that acts here.
    pub(super) fn of(
        case: &Case,
        scope: Scope,
        authorities: &mut Authorities,
    ) -> Result<Self, String> {
        let mut texts = Vec::new();
        for (of_fixture, document) in case.documents() {
            let kind = Kind::of(document);
            // Fixtures describe gateways and clients too, which the inbound side of a sidecar does not ask.
            let of_others = of_fixture && kind.is_of_others();
            let of_access = scope == Scope::Modes && kind.is("AuthorizationPolicy");
            if !of_others && !of_access {
                texts.push(kind.text(case, document, authorities)?);
            }
        }
        let loaded =
            load_for_enforcement(&texts, "default").map_err(|refused| refused.to_string())?;
        Ok(Self {
            loaded,
            mesh: mesh_config(case, authorities)?,
        })
    }

    pub(super) fn trust_domain(&self) -> &str {
        &self.mesh.trust_domain
    }

    /// S-20 to S-23.
    pub(super) fn effective_mode(&self, workload: &Workload, port: u16) -> Mode {
        let policies = &self.loaded.peer_authentications;
        effective_modes(&subject(workload), policies, &self.mesh.root_namespace).of(port)
    }

    /// What the sidecar of `workload` decides by: the ports of its services, and `probed`.
    pub(super) fn snapshot(
        &self,
        mesh: &Mesh,
        workload: &Workload,
        probed: u16,
    ) -> Result<Arc<Snapshot>, String> {
        let kinds = port_kinds(mesh, workload);
        let ports: BTreeSet<u16> = kinds.keys().copied().chain([probed]).collect();
        let authorization_policies = Arc::new(self.loaded.authorization_policies.clone());
        let peer_authentications = Arc::new(self.loaded.peer_authentications.clone());
        let request_authentications = Arc::new(self.loaded.request_authentications.clone());
        let inbound = (1..).zip(ports).map(|(listener, port)| InboundSource {
            listener,
            port,
            kind: kinds.get(&port).copied().unwrap_or(PortKind::Auto),
            mode: None,
            upstream: app_address(port),
            from: Some(FROM_SIDECAR),
            records: false,
            authorization_policies: Arc::clone(&authorization_policies),
            peer_authentications: Arc::clone(&peer_authentications),
            request_authentications: Arc::clone(&request_authentications),
        });
        let sources = Sources {
            version: 1,
            workload: subject(workload),
            mesh: self.mesh.clone(),
            inbound: inbound.collect(),
            outbound: Default::default(),
        };
        snapshot(&sources)
            .map(Arc::new)
            .map_err(|error| error.to_string())
    }
}

/// Where the application of a workload listens.
pub(super) fn app_address(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The workload ports that services declare, by what their names say. Of two services the first counts.
pub(super) fn port_kinds(mesh: &Mesh, workload: &Workload) -> BTreeMap<u16, PortKind> {
    let mut kinds = BTreeMap::new();
    let services = mesh.services.iter().filter(|service| {
        service.namespace == workload.namespace
            && !service.selector.is_empty()
            && selects(Some(&service.selector), &workload.labels)
    });
    for port in services.flat_map(|service| &service.ports) {
        if let Some(kind) = port_kind(&port.name) {
            kinds.entry(port.target).or_insert(kind);
        }
    }
    kinds
}

/// What the prefix of a port's name declares (S-25); `None`: no port for TCP.
fn port_kind(name: &str) -> Option<PortKind> {
    let prefix = name.split('-').next().unwrap_or_default();
    match prefix.to_ascii_lowercase().as_str() {
        // `grpc-web` has the prefix of `grpc`.
        "http" | "http2" | "grpc" => Some(PortKind::Http),
        "https" | "tls" | "tcp" | "mongo" | "mysql" | "redis" => Some(PortKind::Tcp),
        "udp" => None,
        _ => Some(PortKind::Auto),
    }
}

fn subject(workload: &Workload) -> select::Workload {
    select::Workload {
        namespace: workload.namespace.clone(),
        labels: workload.labels.clone(),
    }
}

/// The group and kind of a document.
#[derive(Debug)]
struct Kind {
    group: String,
    name: String,
}

impl Kind {
    fn of(document: &Node) -> Self {
        let field = |name: &str| match &document.value {
            Value::Map(entries) => entries
                .iter()
                .find_map(|(key, node)| match &node.value {
                    Value::Text { text, .. } if key.name == name => Some(text.as_str()),
                    _ => None,
                })
                .unwrap_or_default(),
            _ => "",
        };
        let version = field("apiVersion");
        let group = version.split_once('/').map_or("", |(group, _)| group);
        Self {
            group: group.to_owned(),
            name: field("kind").to_owned(),
        }
    }

    fn is(&self, name: &str) -> bool {
        self.group == "security.istio.io" && self.name == name
    }

    /// Whether it says something about gateways and clients alone.
    fn is_of_others(&self) -> bool {
        let kinds = [
            "Gateway",
            "VirtualService",
            "DestinationRule",
            "ServiceEntry",
        ];
        self.group == "networking.istio.io" && kinds.contains(&self.name.as_str())
    }

    /// The document with its substitutions, for the loader. Kinds that nothing acts on are errors: what they would change
    /// would be missed.
    fn text(
        &self,
        case: &Case,
        document: &Node,
        authorities: &mut Authorities,
    ) -> Result<Text, String> {
        if !self.is("AuthorizationPolicy") && !self.is("PeerAuthentication") {
            let Self { group, name } = self;
            return Err(format!("nothing acts on {name} of `{group}` here"));
        }
        substituted(case, document, authorities)
    }
}

fn mesh_config(case: &Case, authorities: &mut Authorities) -> Result<MeshConfig, String> {
    // `env` sets up Istio itself; `enableAutoMtls` is the client's business, and asked for where a client is.
    let own = ["env", "enableAutoMtls"];
    let entries = case.mesh.mesh_config.iter();
    let mut config = serde_json::Map::new();
    for (name, node) in entries.filter(|(name, _)| !own.contains(&name.as_str())) {
        config.insert(name.clone(), json_of(node, authorities)?);
    }
    // What gateways believe of the proxies before them: sidecars have none.
    if let Some(serde_json::Value::Object(proxies)) = config.get_mut("defaultConfig") {
        proxies.remove("gatewayTopology");
    }
    if config.is_empty() {
        return Ok(MeshConfig::default());
    }
    let text = Text {
        name: Arc::from(case.id.as_str()),
        text: serde_json::Value::Object(config).to_string(),
    };
    load_mesh_config(&text).map_err(|refused| refused.to_string())
}

fn substituted(case: &Case, node: &Node, authorities: &mut Authorities) -> Result<Text, String> {
    Ok(Text {
        name: Arc::from(case.id.as_str()),
        text: json_of(node, authorities)?.to_string(),
    })
}

fn json_of(node: &Node, authorities: &mut Authorities) -> Result<serde_json::Value, String> {
    let authorities = std::cell::RefCell::new(authorities);
    json(node, &|text| {
        substitute(text, &mut authorities.borrow_mut())
    })
}

/// Replaces `${CA:name}` and `${CAB64:name}`. The other substitutions stand for keys and files, which nothing that acts
/// here takes.
fn substitute(text: &str, authorities: &mut Authorities) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let Some((inside, after)) = from[2..].split_once('}') else {
            break;
        };
        out.push_str(before);
        match inside.split_once(':') {
            Some(("CA", name)) => out.push_str(authorities.root_pem(name)?),
            Some(("CAB64", name)) => {
                let pem = authorities.root_pem(name)?;
                base64::engine::general_purpose::STANDARD.encode_string(pem, &mut out);
            }
            Some((word, _))
                if word
                    .bytes()
                    .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) =>
            {
                return Err(format!("nothing stands for `${{{inside}}}` here"));
            }
            _ => {
                out.push_str("${");
                out.push_str(inside);
                out.push('}');
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use meshward_simulator::clock::BIRTH;

    use super::*;

    #[test]
    fn the_prefix_of_a_ports_name_says_what_it_carries() {
        let kinds = [
            ("http", Some(PortKind::Http)),
            ("http-alt", Some(PortKind::Http)),
            ("HTTP2", Some(PortKind::Http)),
            ("grpc-web-a", Some(PortKind::Http)),
            ("https", Some(PortKind::Tcp)),
            ("tls-raw", Some(PortKind::Tcp)),
            ("mongo-b", Some(PortKind::Tcp)),
            ("misc", Some(PortKind::Auto)),
            ("httpbin", Some(PortKind::Auto)),
            ("udp-dns", None),
        ];
        for (name, kind) in kinds {
            assert_eq!(port_kind(name), kind, "{name}");
        }
    }

    #[test]
    fn authorities_stand_for_their_names_and_nothing_else_does() {
        let mut authorities = Authorities::new(BIRTH);
        let pem = substitute("a ${CA:other} ${x}", &mut authorities).expect("a text");
        assert!(pem.starts_with("a -----BEGIN CERTIFICATE-----"), "{pem}");
        assert!(pem.ends_with(" ${x}"), "{pem}");
        assert_eq!(substitute("a ${b", &mut authorities), Ok("a ${b".into()));
        assert!(substitute("${CERTFILE:a.example}", &mut authorities).is_err());
    }
}
