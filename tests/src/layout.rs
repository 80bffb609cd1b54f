//! The mesh of a scenario: addresses, certificates, snapshots. Every driver uses the same.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use meshward_core::accept::PortKind;
use meshward_core::clock::UnixTime;
use meshward_core::snapshot::Snapshot;
use meshward_core::spiffe::Svid;
use meshward_simulator::crypto::{Ca, Identity as Certificate};
use meshward_simulator::mesh::{Call, Name, Port, Rules, Site, svid};
use meshward_simulator::tls::Offer;

use crate::journal::Names;
use crate::scenario::{Identity, Protocol, Tls, Workload};

/// Everything about a mesh but what runs in it.
#[derive(Debug)]
pub struct Layout {
    /// The first two bytes of every address after 127.
    net: [u8; 2],
    seed: u64,
    now: UnixTime,
    authorities: BTreeMap<String, Ca>,
    workloads: Vec<Workload>,
    rules: Rules,
    version: u64,
}

/// The one authority that everybody trusts.
const MESH: &str = "mesh";

impl Layout {
    /// Addresses lie in 127.`net`.0/24, so meshes of one machine do not meet.
    pub fn new(net: [u8; 2], seed: u64, now: UnixTime) -> Self {
        Self {
            net,
            seed,
            now,
            authorities: BTreeMap::from([(MESH.into(), Ca::new(seed, now))]),
            workloads: Vec::new(),
            rules: Rules::read("").expect("no policies are valid policies"),
            version: 1,
        }
    }

    pub fn add(&mut self, workload: &Workload) -> Result<(), String> {
        if self.workloads.len() == 20 {
            return Err("a scenario has 20 workloads at most".into());
        }
        self.workloads.push(workload.clone());
        Ok(())
    }

    pub fn workloads(&self) -> &[Workload] {
        &self.workloads
    }

    pub fn index(&self, name: &str) -> usize {
        let found = self.workloads.iter().position(|w| w.name == name);
        found.expect("the parser checks names")
    }

    /// Policies replace those of before; the next snapshots have a new version.
    pub fn apply(&mut self, yaml: &str) -> Result<(), String> {
        self.rules = Rules::read(yaml)?;
        self.version += 1;
        Ok(())
    }

    fn address(&self, last: u8, port: u16) -> SocketAddr {
        let [a, b] = self.net;
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, a, b, last)), port)
    }

    /// Where the sidecar of a workload listens for the mesh.
    pub fn inbound(&self, workload: usize, port: u16) -> SocketAddr {
        self.address(1 + workload as u8, port)
    }

    /// Where its application listens.
    pub fn app(&self, workload: usize, port: u16) -> SocketAddr {
        self.address(101 + workload as u8, port)
    }

    /// Where the sidecar of `caller` listens for calls to `workload`. Each caller has ports of its own, by 100, so that all
    /// of them fit beside each other.
    pub fn service(&self, caller: usize, workload: usize, port: u16) -> SocketAddr {
        let at = self.workloads[workload]
            .ports
            .iter()
            .position(|(p, _)| *p == port);
        let nth = at.expect("the parser checks ports") as u16;
        self.address(201 + workload as u8, 10_000 + caller as u16 * 100 + nth)
    }

    pub fn names(&self) -> Names {
        let mut names = Names::default();
        for (i, w) in self.workloads.iter().enumerate() {
            for (port, _) in &w.ports {
                let mut name = |address, text| names.sockets.insert(address, text);
                name(self.inbound(i, *port), format!("{}:{port}", w.name));
                name(self.app(i, *port), format!("app:{port}"));
                for caller in 0..self.workloads.len() {
                    let text = format!("service-{}:{port}", w.name);
                    name(self.service(caller, i, *port), text);
                }
            }
        }
        names
    }

    fn site(&self, index: usize) -> Site {
        let me = &self.workloads[index];
        let ports = me.ports.iter().map(|(port, protocol)| Port {
            port: *port,
            kind: kind(*protocol),
            app: self.app(index, *port),
        });
        let mut calls = Vec::new();
        for (i, them) in self
            .workloads
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != index)
        {
            let host = format!(
                "{}.{}.svc.cluster.local",
                them.name, them.identity.namespace
            );
            let expected = them.expected.as_ref().unwrap_or(&them.identity);
            for (port, protocol) in &them.ports {
                let in_clear = self
                    .rules
                    .disables(&them.name, &name(&them.identity), *port);
                calls.push(Call {
                    service: self.service(index, i, *port),
                    cluster: format!("outbound|{port}||{host}"),
                    kind: match kind(*protocol) {
                        PortKind::Http => PortKind::Http,
                        PortKind::Tcp | PortKind::Auto => PortKind::Tcp,
                    },
                    upstream: self.inbound(i, *port),
                    tls: (!in_clear)
                        .then(|| (format!("outbound_.{port}_._.{host}"), expected.to_string())),
                });
            }
        }
        Site {
            label: me.name.clone(),
            name: name(&me.identity),
            ip: self.inbound(index, 0).ip(),
            ports: ports.collect(),
            calls,
        }
    }

    /// What the sidecar of a workload decides by now.
    pub fn snapshot(&self, index: usize) -> Arc<Snapshot> {
        self.site(index).snapshot(&self.rules, self.version)
    }

    /// Who the sidecar of a workload is. Every call makes a new certificate.
    pub fn svid(&mut self, index: usize) -> Arc<Svid> {
        let identity = self.workloads[index].identity.clone();
        let certificate = self.certificate(&identity);
        svid(&certificate, &self.authorities[MESH], self.now)
    }

    fn certificate(&mut self, identity: &Identity) -> Certificate {
        let (seed, now, known) = (self.seed, self.now, self.authorities.len() as u64);
        let ca = self
            .authorities
            .entry(identity.ca.clone())
            .or_insert_with(|| Ca::new(seed.wrapping_add(known), now));
        ca.issue(&identity.to_string(), now)
    }

    /// What a client without a sidecar offers.
    pub fn offer(&mut self, tls: &Tls) -> Offer {
        Offer {
            identity: tls.identity.as_ref().map(|i| self.certificate(i)),
            alpn: tls.alpn.iter().map(|a| a.clone().into_bytes()).collect(),
            sni: tls.sni.clone(),
            tls12_only: tls.tls12_only,
        }
    }
}

fn name(identity: &Identity) -> Name {
    Name {
        trust_domain: identity.trust_domain.clone(),
        namespace: identity.namespace.clone(),
        service_account: identity.service_account.clone(),
    }
}

fn kind(protocol: Protocol) -> PortKind {
    match protocol {
        Protocol::Http => PortKind::Http,
        Protocol::Tcp => PortKind::Tcp,
        Protocol::Auto => PortKind::Auto,
    }
}
