//! The mesh of a scenario: addresses, certificates, snapshots. Every driver uses the same.

mod workloads;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use meshward_core::clock::UnixTime;
use meshward_core::link::Entry;
use meshward_core::snapshot::Snapshot;
use meshward_core::spiffe::Svid;
use meshward_simulator::crypto::{Ca, Identity as Certificate};
use meshward_simulator::mesh::svid;
use meshward_simulator::pods::Pods;
use meshward_simulator::tls::Offer;

use crate::journal::Names;
use crate::scenario::{Open, Tls, Workload};
use workloads::Workloads;

/// Everything about a mesh but what runs in it.
#[derive(Debug)]
pub struct Layout {
    net: [u8; 2],
    now: UnixTime,
    authorities: Authorities,
    plan: Plan,
    members: Vec<Member>,
    /// Whatever had a name keeps it: records come late.
    names: Names,
    /// Snapshots that wait for their release.
    held: BTreeMap<usize, VecDeque<Arc<Snapshot>>>,
}

/// The two ways in which a file describes its mesh.
#[derive(Debug)]
enum Plan {
    Workloads(Workloads),
    Pods(Box<Pods>),
}

/// An application, and the sidecar beside it if it has one.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    /// From where it calls.
    pub address: IpAddr,
    pub sidecar: bool,
    /// Where its sidecar takes connections.
    pub doors: Vec<(SocketAddr, Entry)>,
    /// Where its application listens, by the port at which others reach it.
    pub apps: BTreeMap<u16, SocketAddr>,
}

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Direct {
        from: Option<IpAddr>,
        to: SocketAddr,
    },
    /// The sidecar of a member takes what its application sends to `to`, whatever that is.
    Captured { member: usize, to: SocketAddr },
}

impl Layout {
    /// Addresses lie in 127.`net`.0/24, so meshes of one machine do not meet.
    pub fn new(net: [u8; 2], seed: u64, now: UnixTime) -> Self {
        Self {
            net,
            now,
            authorities: Authorities {
                seed,
                now,
                by_name: BTreeMap::from([(MESH.into(), Ca::new(seed, now))]),
            },
            plan: Plan::Workloads(Workloads::new(net)),
            members: Vec::new(),
            names: Names::default(),
            held: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, workload: &Workload) -> Result<(), String> {
        let Plan::Workloads(workloads) = &mut self.plan else {
            return Err("a mesh has pods, not workloads".into());
        };
        workloads.add(workload)?;
        self.look();
        Ok(())
    }

    /// From here on the file is one about pods.
    pub fn mesh(&mut self, yaml: &str) -> Result<(), String> {
        match &self.plan {
            Plan::Workloads(workloads) if workloads.is_empty() => {}
            _ => return Err("a file describes one mesh".into()),
        }
        let mut pods = Pods::new(self.net, self.now);
        pods.apply(yaml)?;
        self.plan = Plan::Pods(Box::new(pods));
        self.look();
        Ok(())
    }

    /// Of workloads: policies, instead of those of before. Of a mesh: any object, as kubectl takes it.
    pub fn apply(&mut self, yaml: &str) -> Result<(), String> {
        match &mut self.plan {
            Plan::Workloads(workloads) => workloads.apply(yaml)?,
            Plan::Pods(pods) => pods.apply(yaml)?,
        }
        self.look();
        Ok(())
    }

    pub fn delete(&mut self, yaml: &str) -> Result<(), String> {
        match &mut self.plan {
            Plan::Workloads(_) => return Err("objects are those of a mesh".into()),
            Plan::Pods(pods) => pods.delete(yaml)?,
        }
        self.look();
        Ok(())
    }

    fn look(&mut self) {
        match &self.plan {
            Plan::Workloads(workloads) => {
                self.members = workloads.members();
                workloads.name(&mut self.names);
            }
            Plan::Pods(pods) => {
                self.members = members(pods);
                name(pods, &mut self.names);
            }
        }
    }

    /// Those who were there before keep their places.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn index(&self, name: &str) -> Result<usize, String> {
        let found = self.members.iter().position(|m| m.name == name);
        found.ok_or_else(|| format!("nobody is called `{name}`"))
    }

    /// Where the application of a member listens.
    pub fn app(&self, name: &str, port: u16) -> Result<SocketAddr, String> {
        let member = &self.members[self.index(name)?];
        let found = member.apps.get(&port).copied();
        found.ok_or_else(|| format!("`{name}` has no port {port}"))
    }

    /// A member with a sidecar.
    pub fn proxy(&self, name: &str) -> Result<usize, String> {
        let index = self.index(name)?;
        let has = self.members[index].sidecar;
        has.then_some(index)
            .ok_or_else(|| format!("`{name}` has no sidecar"))
    }

    pub fn way(&self, open: &Open) -> Result<Way, String> {
        let pods = match &self.plan {
            Plan::Workloads(workloads) => return Ok(workloads.way(open)),
            Plan::Pods(pods) => pods,
        };
        let caller = open.via.as_deref().or(open.from.as_deref());
        let caller = caller.map(|name| self.index(name)).transpose()?;
        let namespace = caller.map_or("default", |pod| &pods.pods()[pod].key.namespace);
        let ip = pods
            .resolve(&open.host, namespace)
            .ok_or_else(|| format!("`{}` is unknown in namespace `{namespace}`", open.host))?;
        let to = SocketAddr::new(ip, open.port);
        if let Some(via) = &open.via {
            let member = self.proxy(via)?;
            return Ok(Way::Captured { member, to });
        }
        let to = pods
            .translate(to)
            .ok_or_else(|| format!("nobody is behind {}:{}", open.host, open.port))?;
        Ok(Way::Direct {
            from: caller.map(|pod| self.members[pod].address),
            to,
        })
    }

    pub fn names(&self) -> &Names {
        &self.names
    }

    /// What the sidecar of a member decides by from its start.
    pub fn snapshot(&mut self, index: usize) -> Arc<Snapshot> {
        match &mut self.plan {
            Plan::Workloads(workloads) => workloads.snapshot(index),
            Plan::Pods(pods) => pods.snapshot(index),
        }
    }

    /// What the sidecars of the first `known` members have to hear after a change. What is held waits.
    pub fn publish(&mut self, known: usize) -> Vec<(usize, Arc<Snapshot>)> {
        let mut out = Vec::new();
        for index in (0..known)
            .filter(|i| self.members[*i].sidecar)
            .collect::<Vec<_>>()
        {
            let snapshot = self.snapshot(index);
            match self.held.get_mut(&index) {
                Some(held) => held.push_back(snapshot),
                None => out.push((index, snapshot)),
            }
        }
        out
    }

    /// Snapshots for this sidecar wait from now on.
    pub fn hold(&mut self, name: &str) -> Result<(), String> {
        let index = self.proxy(name)?;
        self.held.entry(index).or_default();
        Ok(())
    }

    /// All that waited, oldest first.
    pub fn release(
        &mut self,
        name: &str,
    ) -> Result<impl Iterator<Item = (usize, Arc<Snapshot>)> + use<>, String> {
        let index = self.proxy(name)?;
        let held = self.held.remove(&index);
        let held = held.ok_or_else(|| format!("nothing is held from `{name}`"))?;
        Ok(held.into_iter().map(move |snapshot| (index, snapshot)))
    }

    /// Who the sidecar of a member is. Every call makes a new certificate.
    pub fn svid(&mut self, index: usize) -> Arc<Svid> {
        let certificate = match &self.plan {
            Plan::Workloads(workloads) => {
                let identity = workloads.identity(index);
                self.authorities.issue(&identity.ca, &identity.to_string())
            }
            Plan::Pods(pods) => self.authorities.issue(MESH, &pods.identity(index)),
        };
        svid(&certificate, &self.authorities.by_name[MESH], self.now)
    }

    /// What a client without a sidecar offers.
    pub fn offer(&mut self, tls: &Tls) -> Offer {
        let mut issue =
            |id: &crate::scenario::Identity| self.authorities.issue(&id.ca, &id.to_string());
        Offer {
            identity: tls.identity.as_ref().map(&mut issue),
            alpn: tls.alpn.iter().map(|a| a.clone().into_bytes()).collect(),
            sni: tls.sni.clone(),
            tls12_only: tls.tls12_only,
        }
    }
}

fn members(pods: &Pods) -> Vec<Member> {
    let member = |pod: &meshward_simulator::pods::Pod| Member {
        name: pod.key.name.clone(),
        address: IpAddr::V4(pod.address),
        sidecar: pod.sidecar,
        doors: pod
            .apps
            .keys()
            .filter(|_| pod.sidecar)
            .map(|port| (pod.at(*port), Entry::Inbound))
            .collect(),
        apps: pod.apps.clone(),
    };
    pods.pods().iter().map(member).collect()
}

/// Pods by their names, with the ports that they declare; services by `service-NAME.NAMESPACE`.
fn name(pods: &Pods, names: &mut Names) {
    for pod in pods.pods() {
        let name = &pod.key.name;
        names.hosts.insert(IpAddr::V4(pod.address), name.clone());
        for (port, app) in &pod.apps {
            if pod.sidecar {
                names.sockets.insert(*app, format!("app:{port}"));
            }
            names
                .sockets
                .insert(pod.at(*port), format!("{name}:{port}"));
        }
    }
    for service in pods.mesh().services() {
        let Some(ip) = service.cluster_ip else {
            continue;
        };
        let name = format!("service-{}.{}", service.name, service.namespace);
        for port in &service.ports {
            let address = SocketAddr::new(ip, port.port);
            names
                .sockets
                .insert(address, format!("{name}:{}", port.port));
        }
        names.hosts.insert(ip, name);
    }
}

/// Whoever signs certificates in a scenario.
#[derive(Debug)]
struct Authorities {
    seed: u64,
    now: UnixTime,
    by_name: BTreeMap<String, Ca>,
}

/// The one authority that everybody trusts.
const MESH: &str = "mesh";

impl Authorities {
    fn issue(&mut self, ca: &str, uri: &str) -> Certificate {
        let (seed, now, known) = (self.seed, self.now, self.by_name.len() as u64);
        let ca = self
            .by_name
            .entry(ca.to_owned())
            .or_insert_with(|| Ca::new(seed.wrapping_add(known), now));
        ca.issue(uri, now)
    }
}
