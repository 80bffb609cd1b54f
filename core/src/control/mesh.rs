//! What the objects of a mesh come to: pods with their addresses, and services with what is behind them.
//!
//! Objects may be given in any order; the same objects make the same mesh. What is wrong between objects is said here, all
//! at once; whether each of them may exist at all was asked before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::addresses::{Addresses, Want, is_service_address};
use super::inject::{self, INJECTION, Subject};
use super::store::Store;
use super::{doubt, refusal};
use crate::accept::PortKind;
use crate::api::finding::Finding;
use crate::api::kube::{ClusterIp, Container, Service, ServicePort, TargetPort};
use crate::api::meta::{Labels, Meta, Origin, ValuePlace};
use crate::limits;
use crate::snapshot::select::by_age;

/// Ports of a pod's address at which its applications and its sidecar's container enter the mesh.
pub const ENTRY_PORTS: [u16; 2] = [15001, 15002];
/// Label that says how a pod is to be called (S-60); injection sets it.
const TLS_MODE: &str = "security.istio.io/tlsMode";

/// What a pod is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodKey {
    pub namespace: String,
    pub name: String,
}

/// Immutable; a change of an object makes another one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mesh {
    pods: BTreeMap<PodKey, PodFacts>,
    services: BTreeMap<PodKey, ServiceFacts>,
    warnings: Vec<Finding>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PodFacts {
    pub namespace: String,
    pub name: String,
    /// The Deployment that it is of.
    pub owner: Option<String>,
    pub labels: Labels,
    pub annotations: Labels,
    /// Where the values of the annotations stand.
    pub annotation_places: BTreeMap<String, ValuePlace>,
    pub service_account: String,
    pub address: Ipv4Addr,
    pub sidecar: bool,
    /// It is called in mutual TLS where nothing speaks against it: it says so itself, or injection did (S-60).
    pub tls_mode_istio: bool,
    /// Ports of its containers, and those at which services reach it; ascending, each once.
    pub ports: Vec<PodPort>,
    pub containers: Vec<Container>,
    /// Of the Pod or the Deployment.
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPort {
    pub port: u16,
    /// As the oldest service that reaches it declares it; `Auto` without one (S-23).
    pub kind: PortKind,
    /// Of the container's port; may be empty.
    pub name: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServiceFacts {
    pub namespace: String,
    pub name: String,
    /// `None`: headless (S-62).
    pub cluster_ip: Option<IpAddr>,
    /// The pods that its selector takes, in the order of their names.
    pub pods: Vec<PodKey>,
    pub ports: Vec<ServicePortFacts>,
    pub meta: Meta,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServicePortFacts {
    /// May be empty.
    pub name: String,
    pub port: u16,
    pub kind: PortKind,
    /// In the order of the pods' names; a pod that lacks the port is none.
    pub endpoints: Vec<EndpointOf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointOf {
    pub pod: PodKey,
    pub address: SocketAddr,
}

/// Where a connection arrives when no sidecar leads it: what kube-proxy does with its address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrival<'m> {
    /// At the address itself, whoever has it.
    There,
    /// At one of these, of a port of a service; nobody may be behind it.
    Endpoints(&'m ServiceFacts, &'m ServicePortFacts),
    /// A service without this port.
    NoPort(&'m ServiceFacts),
    /// An address of services that none has.
    Nowhere,
}

impl PodFacts {
    pub fn key(&self) -> PodKey {
        PodKey {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

impl ServiceFacts {
    /// `catalog.shop.svc.cluster.local`; without a dot at the end.
    pub fn fqdn(&self) -> String {
        format!(
            "{}.{}.svc.{}",
            self.name,
            self.namespace,
            super::names::CLUSTER_DOMAIN
        )
    }
}

impl Mesh {
    /// Puts the objects together. `former`: the addresses until now, so that whoever stays keeps its own.
    ///
    /// Errors: pods of one name, one address for two, too many pods, a port that is an entry of the mesh.
    pub fn build(store: &Store, former: &Addresses) -> Result<(Self, Addresses), Vec<Finding>> {
        Self::build_beside(store, former, &Standing::default())
    }

    /// The same where pods of `standing` stay as they were made: those of a Deployment keep its former template, and every
    /// one keeps its sidecar, or goes without.
    pub fn build_beside(
        store: &Store,
        former: &Addresses,
        standing: &Standing<'_>,
    ) -> Result<(Self, Addresses), Vec<Finding>> {
        let mut builder = Builder {
            standing: *standing,
            ..Builder::default()
        };
        builder.namespaces(store);
        let drafts = builder.drafts(store);
        let services: Vec<&Service> = store.services().collect();
        let wants = (
            drafts.values().map(Draft::want).collect::<Vec<_>>(),
            services.iter().filter_map(|service| want_of(service)),
        );
        let addresses = match former.assign(&wants.0, &wants.1.collect::<Vec<_>>()) {
            Ok(addresses) => addresses,
            Err(findings) => {
                builder.errors.extend(findings);
                former.clone()
            }
        };
        builder.pods(drafts, &addresses);
        builder.services(services, &addresses);
        builder.finish().map(|mesh| (mesh, addresses))
    }

    pub fn pod(&self, key: &PodKey) -> Option<&PodFacts> {
        self.pods.get(key)
    }

    /// By namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = &PodFacts> {
        self.pods.values()
    }

    pub fn service(&self, namespace: &str, name: &str) -> Option<&ServiceFacts> {
        self.services.get(&PodKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Where a connection to `meant` arrives without a sidecar.
    pub fn arrival(&self, meant: SocketAddr) -> Arrival<'_> {
        let has_it = |service: &&ServiceFacts| service.cluster_ip == Some(meant.ip());
        match self.services.values().find(has_it) {
            None if is_service_address(meant.ip()) => Arrival::Nowhere,
            None => Arrival::There,
            Some(service) => match service.ports.iter().find(|p| p.port == meant.port()) {
                Some(port) => Arrival::Endpoints(service, port),
                None => Arrival::NoPort(service),
            },
        }
    }

    /// The pod that has this address.
    pub fn pod_at(&self, address: IpAddr) -> Option<&PodFacts> {
        self.pods
            .values()
            .find(|pod| IpAddr::V4(pod.address) == address)
    }

    /// By namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &ServiceFacts> {
        self.services.values()
    }

    /// What hardly does what was meant, in the order of files and lines.
    pub fn warnings(&self) -> &[Finding] {
        &self.warnings
    }
}

/// Pods that are there already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing<'a> {
    /// `None`: there are none.
    pub mesh: Option<&'a Mesh>,
    /// These are made anew.
    pub but: &'a [PodKey],
}

impl<'a> Standing<'a> {
    fn pod(&self, key: &PodKey, owner: Option<&str>) -> Option<&'a PodFacts> {
        let facts = self.mesh?.pod(key)?;
        (facts.owner.as_deref() == owner && !self.but.contains(key)).then_some(facts)
    }
}

/// A pod before it has an address.
struct Draft<'a> {
    key: PodKey,
    owner: Option<&'a str>,
    labels: &'a Labels,
    annotations: &'a Labels,
    annotation_places: &'a BTreeMap<String, ValuePlace>,
    service_account: &'a str,
    containers: &'a [Container],
    host_network: bool,
    ip: Option<Ipv4Addr>,
    sidecar: bool,
    origin: &'a Origin,
}

impl Draft<'_> {
    fn want(&self) -> Want {
        Want {
            name: (self.key.namespace.clone(), self.key.name.clone()),
            given: self.ip.map(IpAddr::V4),
            origin: self.origin.clone(),
        }
    }
}

fn want_of(service: &Service) -> Option<Want> {
    let given = match service.cluster_ip {
        ClusterIp::Headless => return None,
        ClusterIp::Auto => None,
        ClusterIp::Given(ip) => Some(ip),
    };
    Some(Want {
        name: (service.meta.namespace.clone(), service.meta.name.clone()),
        given,
        origin: service.meta.origin.clone(),
    })
}

#[derive(Default)]
struct Builder<'a> {
    standing: Standing<'a>,
    namespace_labels: BTreeMap<&'a str, &'a Labels>,
    pods: BTreeMap<PodKey, PodFacts>,
    services: BTreeMap<PodKey, ServiceFacts>,
    /// The pods of a namespace that have a label with a value.
    by_label: BTreeMap<(String, String, String), BTreeSet<PodKey>>,
    warnings: Vec<Finding>,
    errors: Vec<Finding>,
}

impl<'a> Builder<'a> {
    fn namespaces(&mut self, store: &'a Store) {
        for namespace in store.namespaces() {
            let Meta {
                name,
                labels,
                origin,
                ..
            } = &namespace.meta;
            self.namespace_labels.insert(name, labels);
            if let Some(value) = labels.get(INJECTION)
                && !matches!(value.as_str(), "enabled" | "disabled")
            {
                let message = format!(
                    "`{INJECTION}: {value}` is neither `enabled` nor `disabled`; nothing is injected"
                );
                self.warnings
                    .push(doubt(origin, message, "write one of them"));
            }
        }
    }

    /// The pods that Deployments and Pods ask for.
    fn drafts(&mut self, store: &'a Store) -> BTreeMap<PodKey, Draft<'a>> {
        let mut drafts = BTreeMap::new();
        for deployment in store.deployments() {
            let asked = usize::try_from(deployment.replicas).unwrap_or(usize::MAX);
            if asked > limits::PODS_MAX.saturating_sub(drafts.len()) {
                self.too_many(&deployment.meta.origin);
                continue;
            }
            let mut sidecar = None;
            for number in 0..deployment.replicas {
                let key = PodKey {
                    namespace: deployment.meta.namespace.clone(),
                    name: format!("{}-{number}", deployment.meta.name),
                };
                let spec = &deployment.spec;
                let draft = Draft {
                    key,
                    owner: Some(&deployment.meta.name),
                    labels: &deployment.labels,
                    annotations: &deployment.annotations,
                    annotation_places: &deployment.annotation_places,
                    service_account: &spec.service_account,
                    containers: &spec.containers,
                    host_network: spec.host_network,
                    ip: None,
                    sidecar: false,
                    origin: &deployment.meta.origin,
                };
                let sidecar = *sidecar.get_or_insert_with(|| self.inject(&draft));
                let draft = match self.standing.pod(&draft.key, draft.owner) {
                    None => Draft { sidecar, ..draft },
                    Some(facts) => Draft {
                        labels: &facts.labels,
                        annotations: &facts.annotations,
                        annotation_places: &facts.annotation_places,
                        service_account: &facts.service_account,
                        containers: &facts.containers,
                        sidecar: facts.sidecar,
                        origin: &facts.origin,
                        ..draft
                    },
                };
                self.draft(draft, &mut drafts);
            }
        }
        for pod in store.pods() {
            if drafts.len() >= limits::PODS_MAX {
                self.too_many(&pod.meta.origin);
                break;
            }
            let draft = Draft {
                key: PodKey {
                    namespace: pod.meta.namespace.clone(),
                    name: pod.meta.name.clone(),
                },
                owner: None,
                labels: &pod.meta.labels,
                annotations: &pod.meta.annotations,
                annotation_places: &pod.annotation_places,
                service_account: &pod.spec.service_account,
                containers: &pod.spec.containers,
                host_network: pod.spec.host_network,
                ip: pod.ip,
                sidecar: false,
                origin: &pod.meta.origin,
            };
            let sidecar = self.inject(&draft);
            let standing = self.standing.pod(&draft.key, None);
            let sidecar = standing.map_or(sidecar, |facts| facts.sidecar);
            self.draft(Draft { sidecar, ..draft }, &mut drafts);
        }
        drafts
    }

    fn draft(&mut self, draft: Draft<'a>, drafts: &mut BTreeMap<PodKey, Draft<'a>>) {
        if let Some(other) = drafts.get(&draft.key) {
            let PodKey { namespace, name } = &draft.key;
            let message = format!(
                "a second pod `{namespace}/{name}`; the first comes from {}",
                other.origin
            );
            let hint =
                "a Deployment calls its pods NAME-0, NAME-1 and so on; rename one of the two";
            self.errors.push(refusal(draft.origin, message, hint));
            return;
        }
        drafts.insert(draft.key.clone(), draft);
    }

    fn too_many(&mut self, origin: &Origin) {
        let message = format!("the mesh has more than {} pods", limits::PODS_MAX);
        self.errors
            .push(refusal(origin, message, "ask for fewer replicas"));
    }

    fn inject(&mut self, draft: &Draft<'_>) -> bool {
        let none = Labels::new();
        let namespace = draft.key.namespace.as_str();
        let injection = inject::decide(&Subject {
            namespace,
            namespace_labels: self.namespace_labels.get(namespace).unwrap_or(&&none),
            labels: draft.labels,
            annotations: draft.annotations,
            host_network: draft.host_network,
        });
        if let Some((message, hint)) = injection.doubt {
            self.warnings.push(doubt(draft.origin, message, hint));
        }
        injection.sidecar
    }

    fn pods(&mut self, drafts: BTreeMap<PodKey, Draft<'a>>, addresses: &Addresses) {
        for (key, draft) in drafts {
            let name = (key.namespace.clone(), key.name.clone());
            // Without an address there is an error already.
            let Some(address) = addresses.pod(&name) else {
                continue;
            };
            for (label, value) in draft.labels {
                let label = (key.namespace.clone(), label.clone(), value.clone());
                self.by_label.entry(label).or_default().insert(key.clone());
            }
            let mut ports: Vec<PodPort> = Vec::new();
            for port in draft.containers.iter().flat_map(|c| &c.ports) {
                if ports.iter().all(|known| known.port != port.port) {
                    ports.push(PodPort {
                        port: port.port,
                        kind: PortKind::Auto,
                        name: port.name.clone(),
                    });
                }
            }
            let tls_mode_istio = match draft.labels.get(TLS_MODE) {
                Some(mode) => mode == "istio",
                None => draft.sidecar,
            };
            let facts = PodFacts {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                owner: draft.owner.map(str::to_owned),
                labels: draft.labels.clone(),
                annotations: draft.annotations.clone(),
                annotation_places: draft.annotation_places.clone(),
                service_account: draft.service_account.to_owned(),
                address,
                sidecar: draft.sidecar,
                tls_mode_istio,
                ports,
                containers: draft.containers.to_vec(),
                origin: draft.origin.clone(),
            };
            self.pods.insert(key, facts);
        }
    }

    /// Oldest first, since the oldest of several that reach one port of a pod says what it speaks.
    fn services(&mut self, mut services: Vec<&'a Service>, addresses: &Addresses) {
        services.sort_by(|a, b| by_age(&a.meta, &b.meta));
        let mut declared: BTreeMap<(PodKey, u16), (PortKind, &Meta)> = BTreeMap::new();
        for service in services {
            let Meta {
                namespace, name, ..
            } = &service.meta;
            let pods = self.selected(namespace, &service.selector);
            let mut ports: Vec<ServicePortFacts> = Vec::new();
            for port in &service.ports {
                if ports.iter().any(|known| known.port == port.port) {
                    continue;
                }
                let kind = kind_of(port);
                let mut endpoints = Vec::new();
                let mut quarrel = None;
                for pod in &pods {
                    let Some(facts) = self.pods.get_mut(pod) else {
                        continue;
                    };
                    let Some(target) = target_port(facts, &port.target) else {
                        continue;
                    };
                    endpoints.push(EndpointOf {
                        pod: pod.clone(),
                        address: SocketAddr::new(IpAddr::V4(facts.address), target),
                    });
                    let (first, by) = *declared
                        .entry((pod.clone(), target))
                        .or_insert((kind, &service.meta));
                    declare(&mut facts.ports, target, first);
                    if first != kind {
                        quarrel = quarrel.or(Some((target, by)));
                    }
                }
                if let Some((target, by)) = quarrel {
                    let message = format!(
                        "port {} declares another protocol for port {target} of its pods than service `{}/{}` at {}, which is older and counts",
                        port.port, by.namespace, by.name, by.origin
                    );
                    let hint = "give both the same `appProtocol`, or names with the same prefix";
                    self.warnings
                        .push(doubt(&service.meta.origin, message, hint));
                }
                ports.push(ServicePortFacts {
                    name: port.name.clone(),
                    port: port.port,
                    kind,
                    endpoints,
                });
            }
            let facts = ServiceFacts {
                namespace: namespace.clone(),
                name: name.clone(),
                cluster_ip: addresses
                    .service(&(namespace.clone(), name.clone()))
                    .filter(|_| service.cluster_ip != ClusterIp::Headless),
                pods,
                ports,
                meta: service.meta.clone(),
            };
            let key = PodKey {
                namespace: namespace.clone(),
                name: name.clone(),
            };
            self.services.insert(key, facts);
        }
    }

    /// Looks only at the pods that have the rarest of the labels.
    fn selected(&self, namespace: &str, selector: &Labels) -> Vec<PodKey> {
        let mut sets = Vec::with_capacity(selector.len());
        for (label, value) in selector {
            let label = (namespace.to_owned(), label.clone(), value.clone());
            match self.by_label.get(&label) {
                Some(pods) => sets.push(pods),
                None => return Vec::new(),
            }
        }
        let Some(rarest) = sets.iter().min_by_key(|pods| pods.len()) else {
            return Vec::new();
        };
        let in_all = |pod: &&PodKey| sets.iter().all(|pods| pods.contains(*pod));
        rarest.iter().filter(in_all).cloned().collect()
    }

    fn finish(mut self) -> Result<Mesh, Vec<Finding>> {
        let mut told: BTreeSet<(&Origin, u16)> = BTreeSet::new();
        for pod in self.pods.values_mut() {
            pod.ports.sort_by_key(|port| port.port);
        }
        for pod in self.pods.values() {
            for port in pod.ports.iter().map(|port| port.port) {
                if ENTRY_PORTS.contains(&port) && told.insert((&pod.origin, port)) {
                    let PodKey { namespace, name } = pod.key();
                    let message = format!(
                        "port {port} of pod `{namespace}/{name}` is where its calls enter the mesh"
                    );
                    let hint = "listen on a port other than 15001 and 15002";
                    self.errors.push(refusal(&pod.origin, message, hint));
                }
            }
        }
        if !self.errors.is_empty() {
            self.errors.sort_by(|a, b| a.origin.cmp(&b.origin));
            return Err(self.errors);
        }
        self.warnings.sort_by(|a, b| a.origin.cmp(&b.origin));
        Ok(Mesh {
            pods: self.pods,
            services: self.services,
            warnings: self.warnings,
        })
    }
}

fn target_port(pod: &PodFacts, target: &TargetPort) -> Option<u16> {
    match target {
        TargetPort::Number(port) => Some(*port),
        TargetPort::Name(name) => pod
            .containers
            .iter()
            .flat_map(|container| &container.ports)
            .find(|port| port.name == *name)
            .map(|port| port.port),
    }
}

fn declare(ports: &mut Vec<PodPort>, port: u16, kind: PortKind) {
    if let Some(known) = ports.iter_mut().find(|known| known.port == port) {
        known.kind = kind;
        return;
    }
    ports.push(PodPort {
        port,
        kind,
        name: String::new(),
    });
}

/// Istio: pkg/config/kube, ConvertProtocol.
fn kind_of(port: &ServicePort) -> PortKind {
    let name = match port.app_protocol.as_deref() {
        Some("kubernetes.io/h2c" | "kubernetes.io/ws") => return PortKind::Http,
        Some("kubernetes.io/wss") => return PortKind::Tcp,
        Some(protocol) => protocol,
        None => &port.name,
    };
    let name = name.to_ascii_lowercase();
    if name.starts_with("grpc-web") {
        return PortKind::Http;
    }
    match name.split('-').next().unwrap_or_default() {
        "http" | "http_proxy" | "http2" | "grpc" => PortKind::Http,
        "tcp" | "udp" | "https" | "tls" | "mongo" | "mysql" | "redis" => PortKind::Tcp,
        // Where the server speaks first, nothing can be told from the client's bytes: SMTP, DNS, MySQL, MongoDB.
        _ if matches!(port.port, 25 | 53 | 3306 | 27017) => PortKind::Tcp,
        _ => PortKind::Auto,
    }
}

#[cfg(test)]
mod tests;
