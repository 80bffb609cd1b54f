//! The mesh of a file that says `workload`: everybody may call everybody, each through doors of his own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use meshward_core::accept::PortKind;
use meshward_core::link::Entry;
use meshward_core::snapshot::Snapshot;
use meshward_simulator::mesh::{Call, Name, Port, Rules, Site};

use super::{Member, Way};
use crate::journal::Names;
use crate::scenario::{Identity, Open, Protocol, Workload};

#[derive(Debug)]
pub(super) struct Workloads {
    net: [u8; 2],
    workloads: Vec<Workload>,
    rules: Rules,
    version: u64,
}

impl Workloads {
    pub(super) fn new(net: [u8; 2]) -> Self {
        Self {
            net,
            workloads: Vec::new(),
            rules: Rules::read("").expect("no policies are valid policies"),
            version: 1,
        }
    }

    pub(super) fn add(&mut self, workload: &Workload) -> Result<(), String> {
        if self.workloads.len() == 20 {
            return Err("a scenario has 20 workloads at most".into());
        }
        self.workloads.push(workload.clone());
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.workloads.is_empty()
    }

    /// Policies replace those of before; the next snapshots have a new version.
    pub(super) fn apply(&mut self, yaml: &str) -> Result<(), String> {
        self.rules = Rules::read(yaml)?;
        self.version += 1;
        Ok(())
    }

    pub(super) fn members(&self) -> Vec<Member> {
        let member = |index: usize| {
            let me = &self.workloads[index];
            let ports = || me.ports.iter().map(|(port, _)| *port);
            let mut doors: Vec<_> = ports()
                .map(|port| (self.inbound(index, port), Entry::Inbound))
                .collect();
            for other in (0..self.workloads.len()).filter(|other| *other != index) {
                for (port, _) in &self.workloads[other].ports {
                    doors.push((self.service(index, other, *port), Entry::Outbound));
                }
            }
            Member {
                name: me.name.clone(),
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                sidecar: true,
                doors,
                apps: ports().map(|port| (port, self.app(index, port))).collect(),
            }
        };
        (0..self.workloads.len()).map(member).collect()
    }

    fn index(&self, name: &str) -> usize {
        let found = self.workloads.iter().position(|w| w.name == name);
        found.expect("the parser checks names")
    }

    pub(super) fn way(&self, open: &Open) -> Way {
        let workload = self.index(&open.host);
        let to = match &open.via {
            None => self.inbound(workload, open.port),
            Some(via) => self.service(self.index(via), workload, open.port),
        };
        Way::Direct { from: None, to }
    }

    fn address(&self, last: u8, port: u16) -> SocketAddr {
        let [a, b] = self.net;
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, a, b, last)), port)
    }

    /// Where the sidecar of a workload listens for the mesh.
    fn inbound(&self, workload: usize, port: u16) -> SocketAddr {
        self.address(1 + workload as u8, port)
    }

    /// Where its application listens.
    fn app(&self, workload: usize, port: u16) -> SocketAddr {
        self.address(101 + workload as u8, port)
    }

    /// Where the sidecar of `caller` listens for calls to `workload`. Each caller has ports of its own, by 100, so that all
    /// of them fit beside each other.
    fn service(&self, caller: usize, workload: usize, port: u16) -> SocketAddr {
        let at = self.workloads[workload]
            .ports
            .iter()
            .position(|(p, _)| *p == port);
        let nth = at.expect("the parser checks ports") as u16;
        self.address(201 + workload as u8, 10_000 + caller as u16 * 100 + nth)
    }

    pub(super) fn name(&self, names: &mut Names) {
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

    pub(super) fn snapshot(&self, index: usize) -> Arc<Snapshot> {
        self.site(index).snapshot(&self.rules, self.version)
    }

    pub(super) fn identity(&self, index: usize) -> Identity {
        self.workloads[index].identity.clone()
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
