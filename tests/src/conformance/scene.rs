//! A case on a stage: its sidecars and applications, and the clients of its checks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use meshward_core::api::peer_authentication::Mode;
use meshward_core::snapshot::Snapshot;
use meshward_core::telemetry::Record;

use super::app::{self, App};
use super::caller::{Caller, Out};
use super::cert::Spec;
use super::checks::{AppTls, Given, To, Who};
use super::client::{Offer, Tls};
use super::corpus::{self, Case};
use super::stage::{Ear, Party, Stage};
use super::town::{Pod, Town, Way};
use super::words::Makers;

/// What of a scene is not as usual.
#[derive(Clone, Debug, Default)]
pub(super) struct Quirks {
    /// Where this client's call comes out somebody listens who says nothing, instead of who is there.
    pub(super) ear: Option<(Who, To)>,
    /// Where the application of this workload should listen nobody does.
    pub(super) absent: Option<String>,
}

pub(super) struct Scene {
    pub(super) stage: Box<dyn Stage>,
    town: Town,
    /// By pod.
    sidecars: Vec<Option<usize>>,
    snapshots: Vec<Option<Arc<Snapshot>>>,
    apps: Vec<usize>,
    pub(super) ear: usize,
    external: BTreeMap<String, IpAddr>,
    /// Servers outside of the mesh, by name and port.
    outside: BTreeMap<(String, u16), (SocketAddr, usize)>,
}

/// A connection of a client.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) party: usize,
    /// The client's own sidecar, which is passed.
    pub(super) sidecar: Option<usize>,
    pub(super) way: Way,
}

/// What a connection carries, as far as that is said before its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    Http,
    Bytes,
}

/// Servers outside of the mesh lie from here on.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);

impl Scene {
    pub(super) fn new(
        case: &Case,
        quirks: &Quirks,
        makers: &mut Makers,
        stage: Box<dyn Stage>,
    ) -> Result<Self, String> {
        let now = stage.now().wall;
        let town = Town::of(case, &more_ports(case), makers, now)?;
        let mut scene = Self {
            stage,
            town,
            sidecars: Vec::new(),
            snapshots: Vec::new(),
            apps: Vec::new(),
            ear: 0,
            external: case.mesh.external.clone(),
            outside: BTreeMap::new(),
        };
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let ear = Party::Ear(Ear::default());
        scene.ear = scene.stage.add_party(ear, loopback, None)?;
        let ears = match &quirks.ear {
            None => Vec::new(),
            Some((from, to)) => {
                let namespace = scene.namespace(from);
                let way = scene.town.way(&to.host, to.port, &namespace);
                way.map_or(Vec::new(), |way| way.endpoints)
            }
        };
        for ear in &ears {
            scene.stage.listen(scene.ear, *ear)?;
        }
        for index in 0..scene.town.pods.len() {
            scene.enter(index, quirks, &ears, makers)?;
        }
        scene.go_outside(case, makers)?;
        scene.stage.settle();
        scene.stage.take_records();
        Ok(scene)
    }

    fn enter(
        &mut self,
        index: usize,
        quirks: &Quirks,
        ears: &[SocketAddr],
        makers: &mut Makers,
    ) -> Result<(), String> {
        let pod = self.town.pods[index].clone();
        let (mut sidecar, mut snapshot) = (None, None);
        if pod.sidecar {
            let svid = self.town.svid(index, makers, self.stage.now().wall)?;
            let decides = self.town.snapshot(index)?;
            snapshot = Some(Arc::clone(&decides));
            let doors = pod.apps.keys().map(|port| SocketAddr::new(pod.ip, *port));
            let doors: Vec<_> = doors.filter(|door| !ears.contains(door)).collect();
            sidecar = Some(self.stage.add_sidecar(pod.ip, svid, decides, &doors)?);
        }
        let app = self.application(&pod, makers)?;
        let app = Party::App(Box::new(app));
        let app = self.stage.add_party(app, pod.ip, sidecar)?;
        if quirks.absent.as_ref() != Some(&pod.name) {
            for address in pod.apps.values().filter(|address| !ears.contains(address)) {
                self.stage.listen(app, *address)?;
            }
        }
        self.sidecars.push(sidecar);
        self.snapshots.push(snapshot);
        self.apps.push(app);
        Ok(())
    }

    fn application(&self, pod: &Pod, makers: &mut Makers) -> Result<App, String> {
        let mut addresses = BTreeMap::new();
        if let corpus::App::Routes { routes, .. } = &pod.app {
            for call in routes.iter().flat_map(|route| &route.calls) {
                if let Some(way) = self.town.way(&call.host, call.port, &pod.key.namespace) {
                    let direct = way.endpoints.first().copied().unwrap_or(way.meant);
                    let to = if pod.sidecar { way.meant } else { direct };
                    addresses.insert((call.host.clone(), call.port), to);
                }
            }
        }
        let dns = format!("{}.{}", pod.key.name, pod.key.namespace);
        let plan = app::Plan {
            name: pod.name.clone(),
            app: &pod.app,
            kinds: pod.kinds.clone(),
            identity: match pod.app {
                corpus::App::Https => Some(makers.authorities.issue(&server_of(dns))?),
                corpus::App::Echo { .. } | corpus::App::Routes { .. } => None,
            },
            addresses,
        };
        App::new(plan, self.stage.clock())
    }

    /// Lets in the servers outside that checks say to exist.
    fn go_outside(&mut self, case: &Case, makers: &mut Makers) -> Result<(), String> {
        for given in case.checks.iter().filter_map(|check| check.given.as_ref()) {
            let Some((_, to)) = given.call().filter(|(_, to)| to.exists) else {
                continue;
            };
            let name = (to.host.clone(), to.port);
            if self.outside.contains_key(&name) {
                continue;
            }
            let tls = match given {
                Given::Request(request) => request.tls.is_some(),
                Given::Tcp { tls, .. } => tls.is_some(),
                _ => false,
            };
            let ip = Ipv4Addr::from_bits(OUTSIDE.to_bits() + self.outside.len() as u32);
            let ip = IpAddr::V4(ip);
            let plan = app::Plan {
                name: to.host.clone(),
                app: &match tls {
                    true => corpus::App::Https,
                    false => corpus::App::Echo {
                        greetings: BTreeMap::new(),
                    },
                },
                kinds: BTreeMap::new(),
                identity: Some(makers.authorities.issue(&server_of(to.host.clone()))?),
                addresses: BTreeMap::new(),
            };
            let app = App::new(plan, self.stage.clock())?;
            let party = self.stage.add_party(Party::App(Box::new(app)), ip, None)?;
            let address = SocketAddr::new(ip, to.port);
            self.stage.listen(party, address)?;
            self.outside.insert(name, (address, party));
        }
        Ok(())
    }

    /// Where names are looked up for a client.
    fn namespace(&self, from: &Who) -> String {
        let pod = match from {
            Who::Named(name) => self.town.pod(name),
            Who::Bare { .. } => None,
        };
        let pod = pod.map(|pod| self.town.pods[pod].key.namespace.clone());
        pod.unwrap_or_else(|| "default".to_owned())
    }

    /// Begins a connection. `None`: nobody has the name that is called.
    pub(super) fn open(
        &mut self,
        from: &Who,
        to: &To,
        tls: Option<&AppTls>,
        carried: Carried,
        makers: &mut Makers,
    ) -> Result<Option<Opened>, String> {
        if to.indirect {
            return Err("nothing is reached through gateways or by subsets here".into());
        }
        let mut sidecar = None;
        let namespace = self.namespace(from);
        let mut identity = None;
        let ip = match from {
            Who::Bare { identity: own, ip } => {
                identity.clone_from(own);
                *ip
            }
            Who::Named(name) => match (self.town.pod(name), self.external.get(name)) {
                (Some(pod), _) => {
                    sidecar = self.sidecars[pod].filter(|_| !to.bypass);
                    self.town.pods[pod].ip
                }
                (None, Some(ip)) => *ip,
                (None, None) => return Err(format!("`{name}` is no client that is run here")),
            },
        };
        let outside = self.outside.get(&(to.host.clone(), to.port));
        let way = match self.town.way(&to.host, to.port, &namespace) {
            Some(way) => way,
            None => match outside {
                None => return Ok(None),
                Some((address, _)) => Way {
                    meant: *address,
                    endpoints: vec![*address],
                    sni: None,
                },
            },
        };
        let mut sessions = Vec::new();
        if let Some(identity) = &identity {
            // As a sidecar would (S-63).
            let alpn: &[&str] = match carried {
                Carried::Http => &["istio-http/1.1", "istio", "http/1.1"],
                Carried::Bytes => &["istio-peer-exchange", "istio"],
            };
            let offer = Offer {
                version: None,
                alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
                identity: Some(makers.authorities.issue_once(identity)?),
                sni: way.sni.clone(),
            };
            sessions.push(Tls::new(offer, self.stage.clock())?);
        }
        if let Some(tls) = tls {
            let identity = tls.cert.as_ref();
            let identity = identity.map(|spec| makers.authorities.issue(spec));
            let alpn = tls.alpn.clone();
            let offer = Offer {
                version: tls.version,
                alpn: alpn.unwrap_or_else(|| vec!["http/1.1".to_owned()]),
                identity: identity.transpose()?,
                sni: Some(tls.sni.clone().unwrap_or_else(|| to.host.clone())),
            };
            sessions.push(Tls::new(offer, self.stage.clock())?);
        }
        let target = match sidecar {
            Some(_) => way.meant,
            None => way.endpoints.first().copied().unwrap_or(way.meant),
        };
        let party = self.call(Caller::new(sessions), ip, sidecar, target)?;
        Ok(Some(Opened {
            party,
            sidecar,
            way,
        }))
    }

    /// Begins a connection to an address.
    pub(super) fn call(
        &mut self,
        caller: Caller,
        ip: IpAddr,
        sidecar: Option<usize>,
        to: SocketAddr,
    ) -> Result<usize, String> {
        let party = Party::Caller(Box::new(caller));
        let party = self.stage.add_party(party, ip, sidecar)?;
        self.caller(party, |caller, out| caller.connect(to, out));
        Ok(party)
    }

    /// Lets a caller do something, or looks at it.
    pub(super) fn caller<R>(
        &mut self,
        party: usize,
        act: impl FnOnce(&mut Caller, &mut Out) -> R,
    ) -> R {
        let (mut act, mut answer) = (Some(act), None);
        self.stage.act(party, &mut |party, out| {
            if let (Some(caller), Some(act)) = (party.caller(), act.take()) {
                answer = Some(act(caller, out));
            }
        });
        answer.expect("the party is a caller")
    }

    fn app<R>(&mut self, party: usize, look: impl FnOnce(&mut App) -> R) -> R {
        let (mut look, mut answer) = (Some(look), None);
        self.stage.act(party, &mut |party, _| {
            if let (Some(app), Some(look)) = (party.app(), look.take()) {
                answer = Some(look(app));
            }
        });
        answer.expect("the party is an application")
    }

    pub(super) fn ear<R>(&mut self, look: impl FnOnce(&Ear) -> R) -> R {
        let (mut look, mut answer) = (Some(look), None);
        self.stage.act(self.ear, &mut |party, _| {
            if let (Party::Ear(ear), Some(look)) = (party, look.take()) {
                answer = Some(look(ear));
            }
        });
        answer.expect("the party is an ear")
    }

    /// Looks at every application, those outside too.
    pub(super) fn each_app(&mut self, mut look: impl FnMut(&mut App)) {
        let outside = self.outside.values().map(|(_, party)| *party);
        for party in self.apps.iter().copied().chain(outside).collect::<Vec<_>>() {
            self.app(party, &mut look);
        }
    }

    /// The application of a workload, or of a server outside.
    pub(super) fn app_of<R>(&mut self, name: &str, look: impl FnOnce(&mut App) -> R) -> Option<R> {
        let pod = self.town.pod(name).map(|pod| self.apps[pod]);
        let mut outside = self.outside.iter();
        let outside = outside.find(|((host, _), _)| host == name);
        let party = pod.or_else(|| outside.map(|(_, (_, party))| *party))?;
        Some(self.app(party, look))
    }

    /// Waits until `is_done`, as long as the stage has patience. False: it did not come to that.
    pub(super) fn wait_until(&mut self, mut is_done: impl FnMut(&mut Self) -> bool) -> bool {
        let step = self.stage.step();
        let mut left = self.stage.patience();
        loop {
            self.stage.settle();
            if is_done(self) {
                return true;
            }
            if left.is_zero() {
                return false;
            }
            self.stage.pass(step.min(left));
            left = left.saturating_sub(step);
        }
    }

    pub(super) fn pods(&self) -> &[Pod] {
        &self.town.pods
    }

    /// Where a name leads from the namespace `default`.
    pub(super) fn way(&self, host: &str, port: u16) -> Option<Way> {
        self.town.way(host, port, "default")
    }

    pub(super) fn sidecar(&self, pod: usize) -> Option<usize> {
        self.sidecars[pod]
    }

    /// What the sidecar of the pod at this address decides by.
    pub(super) fn snapshot_at(&self, ip: IpAddr) -> Option<&Arc<Snapshot>> {
        let pod = self.pods().iter().position(|pod| pod.ip == ip)?;
        self.snapshots[pod].as_ref()
    }

    /// S-20 to S-23; `None`: no such workload.
    pub(super) fn mode(&self, name: &str, port: u16) -> Option<Mode> {
        let pod = &self.pods()[self.town.pod(name)?];
        self.town.mode(&pod.key, port)
    }

    pub(super) fn is_auto_mtls_on(&self) -> bool {
        self.town.config().enable_auto_mtls
    }

    /// What the sidecars of an opened connection reported since this was asked last.
    pub(super) fn take_records(&mut self, opened: &Opened) -> Records {
        let mut found = Records::default();
        for (sidecar, record) in self.stage.take_records() {
            let pod = self.sidecars.iter().position(|own| *own == Some(sidecar));
            let ip = pod.map(|pod| self.town.pods[pod].ip);
            let reached = record.downstream_local;
            let inbound = reached.is_some() && reached.map(|address| address.ip()) == ip;
            let at_endpoint =
                reached.is_some_and(|address| opened.way.endpoints.contains(&address));
            if inbound && at_endpoint {
                found.server.push(record);
            } else if !inbound && opened.sidecar == Some(sidecar) {
                found.client.push(record);
            }
        }
        found
    }

    /// Whether the server that is called has a sidecar.
    pub(super) fn has_sidecar(&self, way: &Way) -> bool {
        way.endpoints.iter().any(|endpoint| {
            let mut pods = self.pods().iter();
            pods.any(|pod| pod.ip == endpoint.ip() && pod.sidecar)
        })
    }
}

/// Lines of the log that belong to one connection, by whose sidecar wrote them.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) client: Vec<Record>,
    pub(super) server: Vec<Record>,
}

fn server_of(dns: String) -> Spec {
    Spec {
        uris: Vec::new(),
        dns: vec![dns],
        ca: "public".into(),
        ..Spec::of("")
    }
}

/// Ports at which workloads are called by their addresses.
pub(super) fn more_ports(case: &Case) -> BTreeMap<String, BTreeSet<u16>> {
    let mut ports: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    for given in case.checks.iter().filter_map(|check| check.given.as_ref()) {
        let mut add = |name: &str, port| {
            ports.entry(name.to_owned()).or_default().insert(port);
        };
        match given {
            Given::TlsProbe { workload, port, .. } => add(workload, *port),
            _ => {
                let Some((_, to)) = given.call() else {
                    continue;
                };
                let Ok(ip) = to.host.parse::<IpAddr>() else {
                    continue;
                };
                let named = case.mesh.by_name.iter().find(|(_, w)| w.ip == ip);
                if let Some((name, _)) = named {
                    add(name, to.port);
                }
            }
        }
    }
    ports
}
