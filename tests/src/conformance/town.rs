//! What a case puts in force, as `meshward up` would be given it: objects, and the mesh that they come to.
//!
//! Knows no world: the same town is run in virtual time and over real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use meshward_core::accept::PortKind;
use meshward_core::api::load::yaml::Node;
use meshward_core::api::load::{Text, load_objects};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::object::Object;
use meshward_core::api::peer_authentication::Mode;
use meshward_core::clock::UnixTime;
use meshward_core::control::mesh::{Mesh, PodKey, ServiceFacts};
use meshward_core::control::plane::{Plane, Wiring};
use meshward_core::snapshot::Snapshot;
use meshward_core::spiffe::Svid;
use serde_json::{Value, json};

use super::cert::MESH;
use super::corpus::{App, Case, Service, Workload};
use super::words::Makers;

/// A pod of the town.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    /// `ns/name`.
    pub(super) name: String,
    pub(super) key: PodKey,
    pub(super) ip: IpAddr,
    pub(super) sidecar: bool,
    pub(super) app: App,
    /// By port, what services declare.
    pub(super) kinds: BTreeMap<u16, PortKind>,
    /// Where the application listens, by the port at which others reach it.
    pub(super) apps: BTreeMap<u16, SocketAddr>,
    /// The trust domain of its certificate.
    trust_domain: String,
    service_account: String,
}

impl Pod {
    /// Who it is in its certificate (S-86).
    pub(super) fn identity(&self) -> String {
        format!(
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.key.namespace, self.service_account
        )
    }
}

#[derive(Debug)]
pub(super) struct Town {
    plane: Plane,
    /// What was applied.
    pub(super) objects: Vec<Object>,
    pub(super) pods: Vec<Pod>,
}

/// Where a name leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// What the application of a client means.
    pub(super) meant: SocketAddr,
    /// Where that may come out; empty: nobody is there.
    pub(super) endpoints: Vec<SocketAddr>,
    /// The server name that a sidecar would give in mutual TLS (S-58); `None`: no service.
    pub(super) sni: Option<String>,
}

impl Town {
    /// Errors are for people: what of the case is refused, or is nothing that acts here.
    ///
    /// `ports`: more ports at which a workload listens, by its name; nobody declares what they carry.
    pub(super) fn of(
        case: &Case,
        ports: &BTreeMap<String, BTreeSet<u16>>,
        makers: &mut Makers,
        now: UnixTime,
    ) -> Result<Self, String> {
        let mut texts = vec![text(case, cluster(case, ports)?)];
        texts.push(text(case, mesh_config(case, makers)?));
        for (of_fixture, document) in case.documents() {
            // Fixtures describe gateways and clients of them too, which have no part in what is run.
            if !of_fixture || !is_of_gateways(document) {
                texts.push(text(case, makers.json(document)?));
            }
        }
        let loaded = load_objects(&texts, "default", true).map_err(|e| e.to_string())?;
        let mut objects = loaded.objects;
        for object in &mut objects {
            if let Object::Pod(pod) = object {
                let name = format!("{}/{}", pod.meta.namespace, pod.meta.name);
                // A pod of a cluster has an address that no host has.
                pod.ip = match case.mesh.by_name.get(&name).map(|workload| workload.ip) {
                    Some(IpAddr::V4(ip)) => Some(ip),
                    _ => return Err(format!("`{name}` has no IPv4 address")),
                };
            }
        }
        let mut plane = Plane::new();
        plane
            .apply(objects.clone(), now)
            .map_err(|refused| refused.to_string())?;
        let pods = (1..).zip(case.mesh.by_name.iter().filter(|(_, w)| !w.gateway));
        let pods = pods
            .map(|(number, (name, workload))| pod(&plane, number, name, workload))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            plane,
            objects,
            pods,
        })
    }

    fn mesh(&self) -> &Mesh {
        self.plane.mesh()
    }

    pub(super) fn config(&self) -> &MeshConfig {
        self.plane.mesh_config()
    }

    pub(super) fn pod(&self, name: &str) -> Option<usize> {
        self.pods.iter().position(|pod| pod.name == name)
    }

    /// S-20 to S-23; `None`: no such pod.
    pub(super) fn mode(&self, pod: &PodKey, port: u16) -> Option<Mode> {
        self.plane.modes(pod).map(|modes| modes.of(port))
    }

    pub(super) fn snapshot(&mut self, pod: usize) -> Result<Arc<Snapshot>, String> {
        let Pod { key, apps, .. } = &self.pods[pod];
        let wiring = Wiring {
            upstreams: apps.clone(),
            first_listener: 0,
        };
        self.plane
            .snapshot(key, &wiring)
            .map_err(|error| error.to_string())
    }

    pub(super) fn svid(
        &self,
        pod: usize,
        makers: &mut Makers,
        now: UnixTime,
    ) -> Result<Arc<Svid>, String> {
        let authorities = &mut makers.authorities;
        let identity = authorities.issue_once(&self.pods[pod].identity())?;
        let svid = Svid::from_pem(
            identity.chain_pem.as_bytes(),
            identity.key_pem.as_bytes(),
            authorities.root_pem(MESH)?.as_bytes(),
            now,
        );
        svid.map(Arc::new).map_err(|error| error.to_string())
    }

    /// As cluster DNS answers a client in `namespace`, and as kube-proxy leads on. `None`: nobody has this name.
    pub(super) fn way(&self, host: &str, port: u16, namespace: &str) -> Option<Way> {
        let ip = match host.parse() {
            Ok(ip) => ip,
            Err(_) => *self.mesh().resolve(host, namespace)?.first()?,
        };
        let meant = SocketAddr::new(ip, port);
        // What the resolver of a pod completes a name to; what it found is one of these.
        let names =
            ["", ".cluster.local", ".svc.cluster.local"].map(|rest| format!("{host}{rest}"));
        let own = format!("{host}.{namespace}.svc.cluster.local");
        let service = self.mesh().services().find(|s| match s.cluster_ip {
            Some(own) => own == ip,
            None => names.contains(&s.fqdn()) || own == s.fqdn(),
        });
        let Some(service) = service else {
            return Some(Way {
                meant,
                endpoints: vec![meant],
                sni: None,
            });
        };
        let facts = service.ports.iter().find(|p| p.port == port);
        let endpoints = facts.map_or(&[][..], |port| &port.endpoints).iter();
        Some(Way {
            meant,
            endpoints: match service.cluster_ip {
                Some(_) => endpoints.map(|endpoint| endpoint.address).collect(),
                None => vec![meant],
            },
            sni: facts.map(|_| server_name(service, port)),
        })
    }
}

fn server_name(service: &ServiceFacts, port: u16) -> String {
    format!("outbound_.{port}_._.{}", service.fqdn())
}

fn pod(plane: &Plane, number: u32, name: &str, workload: &Workload) -> Result<Pod, String> {
    let key = PodKey {
        namespace: workload.namespace.clone(),
        name: workload.name.clone(),
    };
    let facts = plane.mesh().pod(&key);
    let facts = facts.ok_or_else(|| format!("the mesh has no pod `{name}`"))?;
    if facts.sidecar != workload.sidecar {
        return Err(format!("whether `{name}` has a sidecar is not as it says"));
    }
    let behind = Ipv4Addr::from_bits(APPS.to_bits() + number);
    let app = |port| match facts.sidecar {
        true => SocketAddr::new(IpAddr::V4(behind), port),
        false => SocketAddr::new(workload.ip, port),
    };
    Ok(Pod {
        name: name.to_owned(),
        ip: workload.ip,
        sidecar: facts.sidecar,
        app: workload.app.clone(),
        kinds: facts.ports.iter().map(|p| (p.port, p.kind)).collect(),
        apps: facts.ports.iter().map(|p| (p.port, app(p.port))).collect(),
        trust_domain: match &workload.trust_domain {
            Some(own) => own.clone(),
            None => plane.mesh_config().trust_domain.clone(),
        },
        service_account: workload.service_account.clone(),
        key,
    })
}

/// The applications behind sidecars lie from here on.
const APPS: Ipv4Addr = Ipv4Addr::new(127, 200, 0, 0);

fn text(case: &Case, document: Value) -> Text {
    Text {
        name: Arc::from(case.id.as_str()),
        text: document.to_string(),
    }
}

/// Namespaces, service accounts, pods and services.
fn cluster(case: &Case, ports: &BTreeMap<String, BTreeSet<u16>>) -> Result<Value, String> {
    let mut namespaces = BTreeSet::from(["default", CONFIG_NAMESPACE]);
    let mut accounts = BTreeSet::new();
    let mut items = Vec::new();
    for (name, workload) in &case.mesh.by_name {
        let Workload {
            namespace,
            service_account,
            ..
        } = workload;
        namespaces.insert(namespace);
        accounts.insert((namespace.as_str(), service_account.as_str()));
        if !workload.gateway {
            let more = ports.get(name).cloned().unwrap_or_default();
            items.push(pod_object(workload, more));
        }
    }
    for service in &case.mesh.services {
        namespaces.insert(&service.namespace);
        items.push(service_object(service)?);
    }
    for (_, document) in case.documents() {
        if let Some(namespace) = document
            .field("metadata")
            .and_then(|metadata| metadata.field("namespace"))
        {
            namespaces.extend(super::tree::text(namespace));
        }
    }
    // `default` of each namespace is there by itself.
    accounts.retain(|(_, account)| *account != "default");
    let object = |kind: &str, metadata: Value| json!({"apiVersion": "v1", "kind": kind, "metadata": metadata});
    let namespaces = namespaces
        .into_iter()
        .map(|name| object("Namespace", json!({"name": name})));
    let accounts = accounts.into_iter().map(|(namespace, name)| {
        object(
            "ServiceAccount",
            json!({"namespace": namespace, "name": name}),
        )
    });
    let items: Vec<Value> = namespaces.chain(accounts).chain(items).collect();
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}

fn pod_object(workload: &Workload, mut ports: BTreeSet<u16>) -> Value {
    let mut labels = workload.labels.clone();
    if workload.sidecar {
        labels.insert("sidecar.istio.io/inject".into(), "true".into());
    }
    if let App::Echo { greetings } = &workload.app {
        ports.extend(greetings.keys());
    }
    let ports = ports.iter().map(|port| json!({"containerPort": port}));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": workload.namespace,
            "name": workload.name,
            "labels": labels,
        },
        "spec": {
            "serviceAccountName": workload.service_account,
            "containers": [{"name": "app", "ports": ports.collect::<Vec<_>>()}],
        },
    })
}

fn service_object(service: &Service) -> Result<Value, String> {
    let Service {
        namespace,
        name,
        selector,
        ports,
        ..
    } = service;
    if service.export_to.as_deref().is_some_and(|to| to != "*") {
        return Err("nothing acts on the `exportTo` of a service".into());
    }
    let ports = ports.iter().map(|port| {
        let protocol = match port.name.split('-').next() {
            Some("udp") => "UDP",
            _ => "TCP",
        };
        json!({"name": port.name, "port": port.port, "targetPort": port.target, "protocol": protocol})
    });
    let mut spec = json!({"selector": selector, "ports": ports.collect::<Vec<_>>()});
    if service.headless {
        spec["clusterIP"] = "None".into();
    }
    let metadata = json!({"namespace": namespace, "name": name});
    Ok(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}))
}

/// Where the mesh configuration is read from.
const CONFIG_NAMESPACE: &str = "istio-system";

/// `meshConfig` as the ConfigMap `istio`. There is always a log: without one nothing shows what was decided.
fn mesh_config(case: &Case, makers: &mut Makers) -> Result<Value, String> {
    let mut config = serde_json::Map::new();
    for (name, node) in &case.mesh.mesh_config {
        // `env` sets up istiod itself.
        if name != "env" {
            config.insert(name.clone(), makers.json(node)?);
        }
    }
    // What gateways believe of the proxies before them: sidecars have none.
    if let Some(Value::Object(proxies)) = config.get_mut("defaultConfig") {
        proxies.remove("gatewayTopology");
    }
    config.insert("accessLogFile".into(), "/dev/stdout".into());
    Ok(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": CONFIG_NAMESPACE, "name": "istio"},
        "data": {"mesh": Value::Object(config).to_string()},
    }))
}

/// Whether a document says something about gateways and their clients alone.
fn is_of_gateways(document: &Node) -> bool {
    let field = |name: &str| {
        document
            .field(name)
            .and_then(|node| super::tree::text(node).ok())
            .unwrap_or_default()
    };
    let kinds = [
        "Gateway",
        "VirtualService",
        "DestinationRule",
        "ServiceEntry",
    ];
    field("apiVersion").starts_with("networking.istio.io/") && kinds.contains(&field("kind"))
}
