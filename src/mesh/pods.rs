//! One pod: the sockets it is reached by, its app, its sidecar.
//!
//! A pod is prepared, which can fail and leaves nothing behind, and then runs, which cannot. What it decides by and who it
//! is comes from [`running`](super::running).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use meshward_core::clock::UnixTime;
use meshward_core::control::mesh::{ENTRY_PORTS, PodFacts, PodPort};
use meshward_core::control::plane::Wiring;
use meshward_core::telemetry::levels::Levels;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{AbortHandle, JoinSet};

use super::apps::{self, AppHandle, AppKind, AppPlace, AppPort, Death};
use super::certificates::Certificates;
use super::directory::Directory;
use super::edge::Edge;
use super::entry::{self, Way};
use super::folder::Taken;
use super::identities::Member;
use super::relay::{self, relay};
use super::shards::{Seat, Shards};
use super::sources::Source;
use crate::exit::Failure;
use crate::machine::cannot_listen;

/// A pod that went before may need so long to let go of its address.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(2);
/// What to do about an address that is taken.
const IN_USE: &str = "another process has it, perhaps a mesh of another name, whose pods get the same addresses: end it, or give this one --pod-range 127.2.0.0/16";
const LOOK: Duration = Duration::from_millis(10);
/// Connections to an app that is somebody else's server.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How many of them one port carries; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 1024;

/// A pod with all its sockets, which nobody serves yet.
pub(crate) struct Prepared {
    pub(crate) facts: PodFacts,
    kind: AppKind,
    dir: PathBuf,
    doors: Doors,
    /// At [`ENTRY_PORTS`]; the second only beside a sidecar.
    entries: Vec<TcpListener>,
}

/// The ports of a pod, or some more of them.
#[derive(Default)]
pub(crate) struct Doors {
    /// Where the sidecar listens; without one where a server elsewhere is reached.
    listeners: Vec<TcpListener>,
    /// Where the app listens.
    ports: Vec<AppPort>,
}

/// A pod that runs.
pub(crate) struct Pod {
    pub(crate) facts: PodFacts,
    pub(crate) kind: AppKind,
    pub(crate) dir: PathBuf,
    pub(crate) wiring: Wiring,
    pub(crate) sidecar: Option<Sidecar>,
    pub(crate) birth: Birth,
    place: AppPlace,
    app: Option<AppHandle>,
    /// Entries and forwarders.
    tasks: Vec<AbortHandle>,
}

/// Where a pod comes from.
#[derive(Clone, Debug)]
pub(crate) struct Birth {
    /// No other pod has it, whatever it is called.
    pub(crate) uid: u64,
    pub(crate) at: UnixTime,
    /// The Deployment that it was made by, as it was written then.
    pub(crate) made_of: Option<Arc<Source>>,
}

pub(crate) struct Sidecar {
    pub(crate) seat: Seat,
    pub(crate) member: Member,
    pub(crate) certificates: Certificates,
    /// What it was told last.
    pub(crate) sent: Configured,
    /// What it is known to decide by.
    pub(crate) in_force: Option<Configured>,
    /// How much it writes beside its records.
    pub(crate) levels: Levels,
}

/// One snapshot of a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Configured {
    /// Grows with each change of the mesh.
    pub(crate) version: u64,
    /// The digest of the policies that count at it.
    pub(crate) policies: String,
}

impl Sidecar {
    /// It decides by what it was told last.
    pub(crate) fn is_synced(&self) -> bool {
        self.in_force.as_ref() == Some(&self.sent)
    }
}

/// What all pods use.
pub(crate) struct Ground<'a> {
    pub(crate) edge: &'a Edge,
    pub(crate) shards: &'a Arc<Shards>,
    pub(crate) directory: &'a Arc<Directory>,
    pub(crate) deaths: &'a UnboundedSender<Death>,
    pub(crate) taken: &'a Taken,
}

/// `namespace/pod`.
pub(crate) fn called(facts: &PodFacts) -> String {
    format!("{}/{}", facts.namespace, facts.name)
}

impl Prepared {
    pub(crate) fn new(facts: &PodFacts, kind: AppKind, taken: &Taken) -> Result<Self, Failure> {
        let doors = Doors::open(facts, &facts.ports, &kind)?;
        let entries = if facts.sidecar { 2 } else { 1 };
        let entries = ENTRY_PORTS
            .iter()
            .take(entries)
            .map(|port| bind(facts, *port))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            dir: taken.pod(&facts.namespace, &facts.name)?,
            facts: facts.clone(),
            kind,
            doors,
            entries,
        })
    }

    /// How a sidecar finds the app.
    pub(crate) fn wiring(&self) -> Wiring {
        Wiring {
            upstreams: self.doors.upstreams(),
            first_listener: 0,
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn certificates(&self) -> Certificates {
        Certificates::below(&self.dir)
    }

    /// Begins to serve. `sidecar`: has its proxy already, which gets its doors here.
    pub(crate) fn run(
        self,
        sidecar: Option<Sidecar>,
        birth: Birth,
        ground: &Ground<'_>,
    ) -> io::Result<Pod> {
        let Self {
            facts,
            kind,
            dir,
            doors,
            entries,
        } = self;
        let wiring = Wiring {
            upstreams: doors.upstreams(),
            first_listener: 0,
        };
        let place = AppPlace {
            pod: called(&facts),
            ports: doors.ports.clone(),
            proxy: SocketAddr::new(IpAddr::V4(facts.address), ENTRY_PORTS[0]),
            log: dir.join("app.log"),
            dir: dir.clone(),
            environment: surroundings(sidecar.as_ref(), ground.taken),
        };
        let mut pod = Pod {
            kind,
            dir,
            wiring,
            sidecar,
            birth,
            place,
            app: None,
            tasks: Vec::new(),
            facts,
        };
        pod.serve(doors.listeners, ground)?;
        pod.enter(entries, ground)?;
        pod.start_app(ground);
        Ok(pod)
    }
}

impl Doors {
    /// Binds `ports`, some or all of those of the pod.
    pub(crate) fn open(
        facts: &PodFacts,
        ports: &[PodPort],
        kind: &AppKind,
    ) -> Result<Self, Failure> {
        let mut doors = Self::default();
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let free = match (facts.sidecar, kind) {
            (true, AppKind::Upstream(server)) => vec![*server; ports.len()],
            (true, _) => apps::free_ports(local, ports.len()).map_err(|e| {
                let words = crate::files::words(&e);
                Failure::Machine(format!(
                    "no ports for the app of {}: {words}",
                    called(facts)
                ))
            })?,
            (false, _) => Vec::new(),
        };
        for (at, port) in ports.iter().enumerate() {
            let own = SocketAddr::new(IpAddr::V4(facts.address), port.port);
            let listener = bind(facts, port.port)?;
            // Without a sidecar the app listens here itself; that it can was all we wanted to know.
            if facts.sidecar || matches!(kind, AppKind::Upstream(_)) {
                doors.listeners.push(listener);
            }
            doors.ports.push(AppPort {
                workload: port.port,
                kind: port.kind,
                listen: free.get(at).copied().unwrap_or(own),
            });
        }
        Ok(doors)
    }

    pub(crate) fn upstreams(&self) -> BTreeMap<u16, SocketAddr> {
        let upstreams = self.ports.iter().map(|p| (p.workload, p.listen));
        upstreams.collect()
    }
}

impl Pod {
    /// The pod's entry for its app.
    pub(crate) fn entry(&self) -> SocketAddr {
        self.place.proxy
    }

    /// The entry that bypasses the sidecar.
    pub(crate) fn bypass(&self) -> Option<SocketAddr> {
        let port = self.sidecar.as_ref().map(|_| ENTRY_PORTS[1])?;
        Some(SocketAddr::new(IpAddr::V4(self.facts.address), port))
    }

    /// Addresses at which the app is to listen, if somebody here runs it.
    pub(crate) fn awaited(&self) -> Vec<SocketAddr> {
        match self.kind {
            AppKind::Echo | AppKind::Routes(_) => {
                self.place.ports.iter().map(|p| p.listen).collect()
            }
            AppKind::Command(_) => self.place.ports.iter().take(1).map(|p| p.listen).collect(),
            AppKind::Upstream(_) | AppKind::None => Vec::new(),
        }
    }

    /// How often its app has ended although nobody asked it to.
    pub(crate) fn deaths(&self) -> u32 {
        self.app.as_ref().map_or(0, AppHandle::deaths)
    }

    /// Its app has ended and is not started again yet.
    pub(crate) fn is_down(&self) -> bool {
        self.app.as_ref().is_some_and(AppHandle::is_down)
    }

    /// Ports of `facts` that have no door yet.
    pub(crate) fn missing(&self, facts: &PodFacts) -> Vec<PodPort> {
        let known = |port: &PodPort| self.place.ports.iter().any(|p| p.workload == port.port);
        facts.ports.iter().filter(|p| !known(p)).cloned().collect()
    }

    /// Takes over what became of the pod: `more` doors, other kinds of ports, other labels. The app is started again if it
    /// has to be told of it.
    pub(crate) fn change(
        &mut self,
        facts: &PodFacts,
        more: Doors,
        ground: &Ground<'_>,
    ) -> io::Result<()> {
        let before: Vec<_> = self.ports();
        self.wiring.upstreams.extend(more.upstreams());
        self.place.ports.extend(more.ports);
        for port in &mut self.place.ports {
            if let Some(new) = facts.ports.iter().find(|p| p.port == port.workload) {
                port.kind = new.kind;
            }
        }
        self.facts = facts.clone();
        self.serve(more.listeners, ground)?;
        if before != self.ports() && matches!(self.kind, AppKind::Echo | AppKind::Routes(_)) {
            if let Some(app) = self.app.take() {
                ground.edge.wait(app.stop(), ADDRESS_PATIENCE);
            }
            self.start_app(ground);
        }
        Ok(())
    }

    fn ports(&self) -> Vec<(u16, meshward_core::accept::PortKind)> {
        let ports = self.place.ports.iter();
        ports.map(|p| (p.workload, p.kind)).collect()
    }

    fn start_app(&mut self, ground: &Ground<'_>) {
        let (kind, place) = (self.kind.clone(), self.place.clone());
        let deaths = ground.deaths.clone();
        self.app = Some(ground.edge.enter(|| apps::start(kind, place, deaths)));
    }

    /// Gives listeners to the sidecar, or leads them to a server elsewhere.
    fn serve(&mut self, listeners: Vec<TcpListener>, ground: &Ground<'_>) -> io::Result<()> {
        if let Some(sidecar) = &self.sidecar {
            return ground.shards.listen(sidecar.seat, listeners);
        }
        let AppKind::Upstream(server) = self.kind else {
            return Ok(());
        };
        for listener in listeners {
            let listener = ground
                .edge
                .enter(|| tokio::net::TcpListener::from_std(listener))?;
            let task = forward(listener, self.facts.address, server);
            self.tasks.push(ground.edge.spawn(task).abort_handle());
        }
        Ok(())
    }

    fn enter(&mut self, entries: Vec<TcpListener>, ground: &Ground<'_>) -> io::Result<()> {
        let plain = || Way::Plain {
            from: self.facts.address,
        };
        let first = match &self.sidecar {
            None => plain(),
            Some(sidecar) => {
                let (seat, shards) = (sidecar.seat, Arc::clone(ground.shards));
                Way::Sidecar(Box::new(move |stream, peer, meant| {
                    shards.adopt(seat, stream, peer, meant);
                }))
            }
        };
        let mut tasks = Vec::new();
        for (listener, way) in entries.into_iter().zip([first, plain()]) {
            let listener = ground
                .edge
                .enter(|| tokio::net::TcpListener::from_std(listener))?;
            let namespace = self.facts.namespace.clone();
            let directory = Arc::clone(ground.directory) as Arc<dyn entry::Resolver>;
            let task = entry::serve(listener, namespace, directory, Arc::new(way));
            tasks.push(ground.edge.spawn(task).abort_handle());
        }
        self.tasks.extend(tasks);
        Ok(())
    }

    /// Closes the entries; what goes through them without a sidecar ends.
    pub(crate) fn close(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }

    /// The app, to be stopped.
    pub(crate) fn take_app(&mut self) -> Option<AppHandle> {
        self.app.take()
    }
}

/// What a command finds in its environment beside its way.
fn surroundings(sidecar: Option<&Sidecar>, taken: &Taken) -> Vec<(OsString, OsString)> {
    let certs = sidecar.map(|s| ("MESHWARD_CERTS", s.certificates.path().into_os_string()));
    [
        ("MESHWARD_RUN", taken.folder.run().into_os_string()),
        ("MESHWARD_MESH", taken.folder.name.clone().into()),
    ]
    .into_iter()
    .chain(certs)
    .map(|(name, value)| (name.into(), value))
    .collect()
}

fn bind(facts: &PodFacts, port: u16) -> Result<TcpListener, Failure> {
    let address = SocketAddr::new(IpAddr::V4(facts.address), port);
    let end = Instant::now() + ADDRESS_PATIENCE;
    loop {
        match meshward_tokio::bind_listener(address, false) {
            Ok(listener) => return Ok(listener),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                thread::sleep(LOOK);
            }
            Err(e) => {
                let whose = format!("pod {}", called(facts));
                return Err(Failure::Machine(cannot_listen(&whose, address, &e, IN_USE)));
            }
        }
    }
}

/// Leads what comes to a pod without a sidecar to a server elsewhere, for as long as it is polled; what is dropped with it
/// ends.
async fn forward(listener: tokio::net::TcpListener, from: Ipv4Addr, server: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((client, _)) = accepted else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        connections.spawn(async move {
            let dialled = tokio::time::timeout(CONNECT_MAX, entry::dial(from, server)).await;
            if let Ok(Ok(peer)) = dialled {
                relay(client, peer, relay::IDLE_MAX).await;
            } else {
                let _ = client.set_zero_linger();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn what_is_led_to_a_server_ends_with_the_pod() {
        let patience = Duration::from_secs(10);
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = server.local_addr().unwrap();
        let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = door.local_addr().unwrap();
        let serving = tokio::spawn(forward(door, Ipv4Addr::LOCALHOST, there));
        let mut client = TcpStream::connect(here).await.unwrap();
        let (_peer, from) = tokio::task::spawn_blocking(move || server.accept().unwrap())
            .await
            .unwrap();
        assert_eq!(from.ip(), Ipv4Addr::LOCALHOST);
        serving.abort();
        let end = tokio::time::timeout(patience, client.read(&mut [0])).await;
        assert_eq!(end.expect("the connection ends").unwrap_or(0), 0);
    }
}
