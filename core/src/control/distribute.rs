//! What one proxy has to know, compiled from the mesh and its policies.
//!
//! The way in is the workload's own: its ports, the policies that select it. The way out is the same for all workloads of a
//! namespace, but for the names by which they may call, so it is compiled once and shared.
//!
//! Outbound, after Istio: HTTP ports of services share one door per port number, behind which the authority of a request
//! decides; other ports have a door at each address; what no door takes goes where it was meant to go, in plaintext (S-62).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::mesh::{Mesh, PodFacts, PodKey, ServiceFacts, ServicePortFacts};
use super::store::Store;
use crate::accept::PortKind;
use crate::api::authorization_policy::AuthorizationPolicy;
use crate::api::mesh_config::MeshConfig;
use crate::api::meta::Meta;
use crate::api::peer_authentication::PeerAuthentication;
use crate::api::request_authentication::RequestAuthentication;
use crate::snapshot::compile::{CompileError, InboundSource, Sources, snapshot};
use crate::snapshot::mtls::{EndpointFacts, Modes, Plain, effective_modes, namespace_mode, plain};
use crate::snapshot::select::{Workload, by_age};
use crate::snapshot::{ClientTls, Cluster, Endpoint, Endpoints, Outbound, OutboundPort, Snapshot};
use crate::spiffe::istio_identity;

/// Where applications are called from (S-330).
const INBOUND_FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
/// The cluster of calls that no service covers (S-330).
const PASSTHROUGH: &str = "PassthroughCluster";

/// What only a shell knows of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wiring {
    /// By workload port: where the application listens. A port that is not here has no way in.
    pub upstreams: BTreeMap<u16, SocketAddr>,
    /// Number of all the proxy's listeners in its records. Pods with the same one share what is compiled for their
    /// namespace; pods with different ones do not.
    pub first_listener: u32,
}

/// Why there is no snapshot for a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("there is no pod `{}/{}`", .0.namespace, .0.name)]
    NoPod(PodKey),
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// One version of everything, from which snapshots are made as they are asked for.
#[derive(Clone, Debug)]
pub struct Distribution {
    version: u64,
    mesh: Arc<Mesh>,
    config: MeshConfig,
    /// By namespace: its policies and the root namespace's. Only namespaces that have pods or services.
    policies: BTreeMap<String, Policies>,
    modes: BTreeMap<PodKey, Modes>,
    /// Those of the services' ports, then the one of what no service covers.
    clusters: Vec<Arc<Cluster>>,
    passthrough: Arc<Cluster>,
    /// Oldest service first: of two that claim one address it has it.
    ways: Vec<Way>,
    /// By listener number.
    doors: BTreeMap<u32, Doors>,
    outbound: BTreeMap<(String, u32), Arc<Outbound>>,
}

/// What counts in a namespace, oldest first.
#[derive(Clone, Debug, Default)]
struct Policies {
    authorization: Arc<Vec<AuthorizationPolicy>>,
    peer: Arc<Vec<PeerAuthentication>>,
    request: Arc<Vec<RequestAuthentication>>,
}

/// A port of a service and the cluster behind it.
#[derive(Clone, Debug)]
struct Way {
    service: PodKey,
    port: u16,
    kind: PortKind,
    /// Where its door is, if it is not HTTP: the service's address, or those of the pods of a headless service.
    addresses: Vec<IpAddr>,
    cluster: Arc<Cluster>,
}

/// The doors at addresses, which are the same for every namespace.
#[derive(Clone, Debug)]
struct Doors {
    addresses: BTreeMap<SocketAddr, Arc<OutboundPort>>,
    passthrough: Arc<OutboundPort>,
}

impl Distribution {
    /// Compiles what all snapshots have in common. An error here is one of the mesh configuration: what the trust domain or
    /// an alias of it is called.
    pub fn new(
        version: u64,
        mesh: Arc<Mesh>,
        config: MeshConfig,
        store: &Store,
    ) -> Result<Self, CompileError> {
        let policies = policies(&mesh, store, &config.root_namespace);
        let modes = mesh
            .pods()
            .map(|pod| {
                let own = policies.get(&pod.namespace);
                let own = own.map_or(&[][..], |policies| policies.peer.as_slice());
                let modes = effective_modes(&workload(pod), own, &config.root_namespace);
                (pod.key(), modes)
            })
            .collect();
        let mut distribution = Self {
            mesh,
            policies,
            modes,
            ..Self::empty(version, config)
        };
        distribution.clusters()?;
        Ok(distribution)
    }

    /// Of a mesh without objects.
    pub fn empty(version: u64, config: MeshConfig) -> Self {
        let passthrough = passthrough(0, &config);
        Self {
            version,
            mesh: Arc::default(),
            config,
            policies: BTreeMap::new(),
            modes: BTreeMap::new(),
            clusters: vec![Arc::clone(&passthrough)],
            passthrough,
            ways: Vec::new(),
            doors: BTreeMap::new(),
            outbound: BTreeMap::new(),
        }
    }

    /// The modes of a pod's ports (S-20 to S-23); `None`: no such pod.
    pub fn modes(&self, pod: &PodKey) -> Option<&Modes> {
        self.modes.get(pod)
    }

    /// What the proxy of `pod` decides by. The way out is compiled for the first pod of a namespace that asks.
    pub fn snapshot(
        &mut self,
        pod: &PodKey,
        wiring: &Wiring,
    ) -> Result<Arc<Snapshot>, SnapshotError> {
        let mesh = Arc::clone(&self.mesh);
        let facts = mesh
            .pod(pod)
            .ok_or_else(|| SnapshotError::NoPod(pod.clone()))?;
        let policies = self.policies.get(&facts.namespace).cloned();
        let policies = policies.unwrap_or_default();
        let records = self.wants_records();
        let inbound = facts
            .ports
            .iter()
            .filter_map(|port| {
                let upstream = *wiring.upstreams.get(&port.port)?;
                Some(InboundSource {
                    listener: wiring.first_listener,
                    port: port.port,
                    kind: port.kind,
                    mode: None,
                    upstream,
                    // An application elsewhere cannot be reached from an address of this host's own.
                    from: matches!(upstream.ip(), IpAddr::V4(ip) if ip.is_loopback())
                        .then_some(INBOUND_FROM),
                    records,
                    authorization_policies: Arc::clone(&policies.authorization),
                    peer_authentications: Arc::clone(&policies.peer),
                    request_authentications: Arc::clone(&policies.request),
                })
            })
            .collect();
        let sources = Sources {
            version: self.version,
            workload: workload(facts),
            mesh: self.config.clone(),
            inbound,
            outbound: Vec::new(),
        };
        let mut snapshot = snapshot(&sources)?;
        snapshot.address = Some(IpAddr::V4(facts.address));
        snapshot.outbound = self.outbound(&facts.namespace, wiring.first_listener);
        Ok(Arc::new(snapshot))
    }

    fn wants_records(&self) -> bool {
        !self.config.access_log_file.is_empty()
    }

    fn clusters(&mut self) -> Result<(), CompileError> {
        let mesh = Arc::clone(&self.mesh);
        let mut services: Vec<&ServiceFacts> = mesh.services().collect();
        services.sort_by(|a, b| by_age(&a.meta, &b.meta));
        self.clusters.clear();
        let mut number = 0;
        for service in services {
            let names = self.subject_alt_names(service)?;
            for port in &service.ports {
                let endpoints = self.endpoints(service, port, &names);
                let cluster = Arc::new(Cluster {
                    number,
                    name: format!("outbound|{}||{}", port.port, service.fqdn()),
                    endpoints,
                    connect_timeout: connect_timeout(&self.config),
                });
                number += 1;
                self.clusters.push(Arc::clone(&cluster));
                let addresses = match service.cluster_ip {
                    Some(ip) => vec![ip],
                    None => port.endpoints.iter().map(|e| e.address.ip()).collect(),
                };
                self.ways.push(Way {
                    service: PodKey {
                        namespace: service.namespace.clone(),
                        name: service.name.clone(),
                    },
                    port: port.port,
                    kind: port.kind,
                    addresses,
                    cluster,
                });
            }
        }
        self.passthrough = passthrough(number, &self.config);
        self.clusters.push(Arc::clone(&self.passthrough));
        Ok(())
    }

    /// Who may answer for a service: the service accounts of its pods, under the trust domain and each of its aliases (S-58).
    fn subject_alt_names(&self, service: &ServiceFacts) -> Result<Vec<String>, CompileError> {
        let accounts: BTreeSet<&str> = service
            .pods
            .iter()
            .filter_map(|pod| self.mesh.pod(pod))
            .map(|pod| pod.service_account.as_str())
            .collect();
        let mut names = BTreeSet::new();
        let config = &self.config;
        for domain in std::iter::once(&config.trust_domain).chain(&config.trust_domain_aliases) {
            for account in &accounts {
                let id = istio_identity(domain, &service.namespace, Some(account))
                    .map_err(|_| CompileError::TrustDomain(domain.clone()))?;
                names.insert(id.as_str().to_owned());
            }
        }
        Ok(names.into_iter().collect())
    }

    /// The endpoints of a service's port, and why each is spoken to in plaintext; `None`: it is not (S-60 to S-62).
    pub fn auto_mtls(
        &self,
        service: &ServiceFacts,
        port: &ServicePortFacts,
    ) -> Vec<(SocketAddr, Option<Plain>)> {
        let own = self.policies.get(&service.namespace);
        let namespace_mode = namespace_mode(
            own.map_or(&[][..], |policies| policies.peer.as_slice()),
            &service.namespace,
            &self.config.root_namespace,
        );
        let facts: Vec<(SocketAddr, EndpointFacts)> = port
            .endpoints
            .iter()
            .filter_map(|endpoint| {
                let facts = EndpointFacts {
                    tls_mode_istio: self.mesh.pod(&endpoint.pod)?.tls_mode_istio,
                    mode: self.modes.get(&endpoint.pod)?.of(endpoint.address.port()),
                };
                Some((endpoint.address, facts))
            })
            .collect();
        let plain = plain(
            self.config.enable_auto_mtls,
            false,
            service.cluster_ip.is_none(),
            namespace_mode,
            &facts.iter().map(|(_, facts)| *facts).collect::<Vec<_>>(),
        );
        let addresses = facts.iter().map(|(address, _)| *address);
        addresses.zip(plain).collect()
    }

    fn endpoints(
        &self,
        service: &ServiceFacts,
        port: &ServicePortFacts,
        subject_alt_names: &[String],
    ) -> Endpoints {
        let endpoints = self.auto_mtls(service, port);
        let tls = endpoints.iter().any(|(_, plain)| plain.is_none()).then(|| {
            Arc::new(ClientTls {
                sni: format!("outbound_.{}_._.{}", port.port, service.fqdn()),
                subject_alt_names: subject_alt_names.to_vec(),
            })
        });
        if service.cluster_ip.is_none() {
            return Endpoints::OriginalDestination { tls };
        }
        Endpoints::Known(
            endpoints
                .into_iter()
                .map(|(address, plain)| Endpoint {
                    address,
                    tls: tls.clone().filter(|_| plain.is_none()),
                })
                .collect(),
        )
    }

    fn outbound(&mut self, namespace: &str, listener: u32) -> Arc<Outbound> {
        let key = (namespace.to_owned(), listener);
        if let Some(outbound) = self.outbound.get(&key) {
            return Arc::clone(outbound);
        }
        let doors = match self.doors.get(&listener) {
            Some(doors) => doors.clone(),
            None => {
                let doors = self.doors(listener);
                self.doors.insert(listener, doors.clone());
                doors
            }
        };
        let outbound = Arc::new(Outbound {
            addresses: doors.addresses,
            ports: self.http_ports(namespace, listener),
            passthrough: Some(doors.passthrough),
            clusters: self.clusters.clone(),
        });
        self.outbound.insert(key, Arc::clone(&outbound));
        outbound
    }

    fn doors(&self, listener: u32) -> Doors {
        let mut addresses = BTreeMap::new();
        for way in self.ways.iter().filter(|way| way.kind != PortKind::Http) {
            // Whatever comes through an address of one service is for it, also if it turns out to be HTTP.
            let door = self.door(listener, way.kind, BTreeMap::new(), &way.cluster);
            let door = Arc::new(door);
            for ip in &way.addresses {
                let address = SocketAddr::new(*ip, way.port);
                addresses
                    .entry(address)
                    .or_insert_with(|| Arc::clone(&door));
            }
        }
        let passthrough = self.door(listener, PortKind::Tcp, BTreeMap::new(), &self.passthrough);
        Doors {
            addresses,
            passthrough: Arc::new(passthrough),
        }
    }

    /// Every HTTP service by the names that Istio gives its virtual host, for a client in `namespace`.
    fn http_ports(&self, namespace: &str, listener: u32) -> BTreeMap<u16, Arc<OutboundPort>> {
        let mut ports: BTreeMap<u16, BTreeMap<String, Arc<Cluster>>> = BTreeMap::new();
        for way in self.ways.iter().filter(|way| way.kind == PortKind::Http) {
            let Some(service) = self.mesh.service(&way.service.namespace, &way.service.name) else {
                continue;
            };
            let (name, own) = (&service.name, &service.namespace);
            let fqdn = service.fqdn();
            let mut hosts = vec![
                // As DNS takes it too; a shorter name with a dot at the end is another one.
                format!("{fqdn}."),
                fqdn,
                format!("{name}.{own}.svc"),
                format!("{name}.{own}"),
            ];
            if own == namespace {
                hosts.push(name.clone());
            }
            // Pods of a headless service are called by their addresses without it (S-62).
            hosts.extend(service.cluster_ip.map(|ip| ip.to_string()));
            let routes = ports.entry(way.port).or_default();
            for host in hosts {
                routes
                    .entry(host)
                    .or_insert_with(|| Arc::clone(&way.cluster));
            }
        }
        ports
            .into_iter()
            .map(|(port, hosts)| {
                let door = self.door(listener, PortKind::Http, hosts, &self.passthrough);
                (port, Arc::new(door))
            })
            .collect()
    }

    fn door(
        &self,
        listener: u32,
        kind: PortKind,
        hosts: BTreeMap<String, Arc<Cluster>>,
        otherwise: &Arc<Cluster>,
    ) -> OutboundPort {
        OutboundPort {
            listener,
            kind,
            hosts,
            otherwise: Arc::clone(otherwise),
            normalization: self.config.normalization,
            records: self.wants_records(),
        }
    }
}

fn workload(pod: &PodFacts) -> Workload {
    Workload {
        namespace: pod.namespace.clone(),
        labels: pod.labels.clone(),
    }
}

fn connect_timeout(config: &MeshConfig) -> Duration {
    Duration::from_millis(config.connect_timeout_ms)
}

fn passthrough(number: u32, config: &MeshConfig) -> Arc<Cluster> {
    Arc::new(Cluster {
        number,
        name: PASSTHROUGH.to_owned(),
        endpoints: Endpoints::OriginalDestination { tls: None },
        connect_timeout: connect_timeout(config),
    })
}

/// The policies of each namespace that has pods or services, with those of the root namespace (S-1).
fn policies(mesh: &Mesh, store: &Store, root: &str) -> BTreeMap<String, Policies> {
    let namespaces: BTreeSet<&str> = mesh
        .pods()
        .map(|pod| pod.namespace.as_str())
        .chain(mesh.services().map(|service| service.namespace.as_str()))
        .collect();
    let authorization = by_namespace(store.authorization_policies(), |policy| &policy.meta);
    let peer = by_namespace(store.peer_authentications(), |policy| &policy.meta);
    let request = by_namespace(store.request_authentications(), |policy| &policy.meta);
    let scopes = namespaces.into_iter().map(|namespace| {
        let scope: BTreeSet<&str> = [root, namespace].into();
        let policies = Policies {
            authorization: in_scope(&authorization, &scope, |policy| &policy.meta),
            peer: in_scope(&peer, &scope, |policy| &policy.meta),
            request: in_scope(&request, &scope, |policy| &policy.meta),
        };
        (namespace.to_owned(), policies)
    });
    scopes.collect()
}

fn by_namespace<'s, P>(
    policies: impl Iterator<Item = &'s P>,
    meta: fn(&P) -> &Meta,
) -> BTreeMap<&'s str, Vec<&'s P>> {
    let mut by_namespace: BTreeMap<&str, Vec<&P>> = BTreeMap::new();
    for policy in policies {
        let namespace = meta(policy).namespace.as_str();
        by_namespace.entry(namespace).or_default().push(policy);
    }
    by_namespace
}

/// Those of some namespaces, oldest first (S-7).
fn in_scope<P: Clone>(
    policies: &BTreeMap<&str, Vec<&P>>,
    scope: &BTreeSet<&str>,
    meta: fn(&P) -> &Meta,
) -> Arc<Vec<P>> {
    let mut own: Vec<&P> = scope
        .iter()
        .filter_map(|namespace| policies.get(namespace))
        .flatten()
        .copied()
        .collect();
    own.sort_by(|a, b| by_age(meta(a), meta(b)));
    Arc::new(own.into_iter().cloned().collect())
}

#[cfg(test)]
mod tests;
