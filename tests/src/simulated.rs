//! The simulator as a driver: virtual time, seeded everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use meshward_core::id::LinkId;
use meshward_core::link::Entry;
use meshward_core::proxy::{Input, Proxy};
use meshward_simulator::campaign::Inspected;
use meshward_simulator::chance::Chance;
use meshward_simulator::clock::{BIRTH, WallClock};
use meshward_simulator::crypto;
use meshward_simulator::net::Weather;
use meshward_simulator::peer::{Hands, Speaker};
use meshward_simulator::tls::TlsClient;
use meshward_simulator::trace::Trace;
use meshward_simulator::world::{Node, World};

use crate::driver::Driver;
use crate::journal::{News, Seen, record_line};
use crate::layout::{Layout, Way};
use crate::scenario::{Command, Open};

/// A client's or an application's connection: the peer and its link.
type Place = (usize, LinkId);

/// How much of a connection was told.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    opened: bool,
    bytes: usize,
    ending: bool,
}

/// Who a member of the layout is in the world.
#[derive(Clone, Copy, Debug)]
struct Actors {
    process: Option<usize>,
    app: usize,
    /// The application as a client, whose calls the process takes.
    caller: usize,
}

/// One scenario in one world. Peer 0 is all clients from outside.
#[derive(Debug)]
pub struct Simulated {
    seed: u64,
    layout: Layout,
    world: Option<World<Inspected, Speaker<()>>>,
    weather: Weather,
    seeds: Chance,
    /// By member.
    actors: Vec<Actors>,
    /// The member of each process.
    members: Vec<usize>,
    clients: BTreeMap<String, Place>,
    told: BTreeMap<Place, Told>,
    records: usize,
    /// Every address at which somebody listened.
    opened: BTreeSet<SocketAddr>,
}

/// From where everybody calls who does not say otherwise: what a kernel chooses for loopback.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Longer than every timeout of a proxy.
const LONG: Duration = Duration::from_secs(4 * 3600);

impl Simulated {
    /// A world that cuts, delays and buffers bytes as `weather` says.
    pub fn new(seed: u64, weather: Weather) -> Self {
        Self {
            seed,
            layout: Layout::new([1, 0], seed, BIRTH),
            world: None,
            weather,
            seeds: Chance::new(seed, 200),
            actors: Vec::new(),
            members: Vec::new(),
            clients: BTreeMap::new(),
            told: BTreeMap::new(),
            records: 0,
            opened: BTreeSet::new(),
        }
    }

    /// The hash of everything that machines heard and said.
    pub fn trace(&self) -> Option<&Trace> {
        self.world.as_ref().map(World::trace)
    }

    fn world(&mut self) -> &mut World<Inspected, Speaker<()>> {
        if self.world.is_none() {
            self.begin();
        }
        self.world.as_mut().expect("it has begun")
    }

    fn begin(&mut self) {
        let mut world = World::new(self.seed, self.weather.clone(), Trace::with_lines());
        world.add_peer(Speaker::new(()), LOOPBACK);
        self.world = Some(world);
        self.meet();
    }

    /// Lets in those of the layout who are not there yet, and opens whatever doors are new.
    fn meet(&mut self) {
        let Some(mut world) = self.world.take() else {
            return;
        };
        for (index, member) in self.layout.members().to_vec().into_iter().enumerate() {
            let known = self.actors.get(index).copied();
            let actors = known.unwrap_or_else(|| {
                let process = member.sidecar.then(|| {
                    let number = self.members.len() as u64 + 1;
                    let clock = WallClock::default();
                    let crypto = crypto::crypto(self.seed ^ number << 40);
                    let proxy = Proxy::new(self.seeds.seed(), crypto, clock.read(world.now()));
                    let process = world.add_process(Inspected::new(proxy), member.address, clock);
                    self.members.push(index);
                    let svid = self.layout.svid(index);
                    world.inject(process, Input::Svid(svid), Duration::ZERO);
                    let snapshot = self.layout.snapshot(index);
                    world.inject(process, Input::Snapshot(snapshot), Duration::ZERO);
                    process
                });
                let app = world.add_peer(Speaker::new(()), member.address);
                let caller = world.add_peer(Speaker::new(()), member.address);
                if let Some(process) = process {
                    world.capture(caller, process);
                }
                Actors {
                    process,
                    app,
                    caller,
                }
            });
            if known.is_none() {
                self.actors.push(actors);
            }
            let opened = &mut self.opened;
            let mut listen = |node, address, entry| {
                if opened.insert(address) {
                    world.listen(node, address, entry);
                }
            };
            for (address, entry) in member.doors {
                if let Some(process) = actors.process {
                    listen(Node::Process(process), address, entry);
                }
            }
            for address in member.apps.into_values() {
                listen(Node::Peer(actors.app), address, Entry::Inbound);
            }
        }
        self.world = Some(world);
    }

    /// Gives everybody who was there what has changed for them, and lets the others in.
    fn change(&mut self) {
        if self.world.is_none() {
            return;
        }
        for (index, snapshot) in self.layout.publish(self.actors.len()) {
            self.tell(index, Input::Snapshot(snapshot));
        }
        self.meet();
    }

    fn tell(&mut self, member: usize, input: Input) {
        self.world();
        if let Some(process) = self.actors[member].process {
            self.world().inject(process, input, Duration::ZERO);
        }
    }

    fn find(&mut self, name: &str) -> Result<Place, String> {
        if let Some(place) = self.clients.get(name) {
            return Ok(*place);
        }
        let (workload, number) = name.rsplit_once('.').ok_or("no such connection")?;
        let member = self.layout.index(workload)?;
        self.world();
        let peer = self.actors[member].app;
        let nth: usize = number.parse().map_err(|_| "no such connection")?;
        let mut conns = self.world().peer(peer).hands.conns();
        let found = nth.checked_sub(1).and_then(|n| conns.nth(n));
        let (link, _) = found.ok_or_else(|| format!("`{name}` was not opened"))?;
        Ok((peer, link))
    }

    fn act(&mut self, name: &str, act: impl FnOnce(&mut Hands, LinkId)) -> Result<(), String> {
        let (peer, link) = self.find(name)?;
        self.world()
            .poke(peer, |p, _, out| p.act(out, |hands| act(hands, link)));
        Ok(())
    }

    fn open(&mut self, open: &Open) -> Result<(), String> {
        let clock = Arc::new(self.world().shared_clock());
        let tls = match &open.tls {
            None => None,
            Some(tls) => {
                let offer = self.layout.offer(tls);
                let provider = crypto::provider(self.seed ^ 0xc11e ^ self.clients.len() as u64);
                let client = TlsClient::new(&offer, provider, clock).map_err(|e| e.to_string())?;
                Some(client)
            }
        };
        let (peer, from, to) = match self.layout.way(open)? {
            Way::Direct { from, to } => (0, from.map(|ip| SocketAddr::new(ip, 0)), to),
            Way::Captured { member, to } => (self.actors[member].caller, None, to),
        };
        let link = self.world().poke(peer, |p, _, out| {
            p.act(out, |hands| hands.open(to, from, tls))
        });
        self.clients.insert(open.name.clone(), (peer, link));
        Ok(())
    }

    fn news(&mut self) -> News {
        let mut news = News::default();
        let Some(world) = &self.world else {
            return news;
        };
        let mut places: Vec<(String, Place)> = Vec::new();
        for (name, place) in &self.clients {
            places.push((name.clone(), *place));
        }
        let clients = places.len();
        for (actors, member) in self.actors.iter().zip(self.layout.members()) {
            let conns = world.peer(actors.app).hands.conns();
            for (n, (link, _)) in (1..).zip(conns) {
                places.push((format!("{}.{n}", member.name), (actors.app, link)));
            }
        }
        for (at, (name, place)) in places.into_iter().enumerate() {
            let conn = world.peer(place.0).hands.conn(place.1);
            let told = self.told.entry(place).or_default();
            let seen = Seen {
                opened: at >= clients && !told.opened,
                bytes: conn.received[told.bytes..].to_vec(),
                ending: conn.ending.filter(|_| !told.ending),
            };
            *told = Told {
                opened: true,
                bytes: conn.received.len(),
                ending: conn.ending.is_some(),
            };
            if seen != Seen::default() {
                news.conns.insert(name, seen);
            }
        }
        for reported in &world.reports()[self.records..] {
            let member = &self.layout.members()[self.members[reported.process]];
            let line = record_line(&member.name, &reported.record, self.layout.names());
            news.records.push(line);
        }
        self.records = world.reports().len();
        news
    }
}

impl Driver for Simulated {
    fn name(&self) -> &'static str {
        "simulator"
    }

    fn obey(&mut self, command: &Command) -> Result<(), String> {
        match command {
            Command::Workload(workload) => {
                if self.world.is_some() {
                    return Err("workloads come before what happens".into());
                }
                self.layout.add(workload)
            }
            Command::Mesh(yaml) => {
                if self.world.is_some() {
                    return Err("a mesh comes before what happens".into());
                }
                self.layout.mesh(yaml)
            }
            Command::Apply(yaml) => {
                self.layout.apply(yaml)?;
                self.change();
                Ok(())
            }
            Command::Delete(yaml) => {
                self.layout.delete(yaml)?;
                self.change();
                Ok(())
            }
            Command::Hold(name) => self.layout.hold(name),
            Command::Release(name) => {
                for (index, snapshot) in self.layout.release(name)? {
                    self.tell(index, Input::Snapshot(snapshot));
                }
                Ok(())
            }
            Command::Open(open) => self.open(open),
            Command::Send { conn, bytes } => self.act(conn, |hands, link| hands.send(link, bytes)),
            Command::Finish(conn) => self.act(conn, Hands::finish),
            Command::Reset(conn) => self.act(conn, Hands::reset),
            Command::Close { workload, port } => {
                let app = self.layout.app(workload, *port)?;
                self.world().stop_listening(app);
                Ok(())
            }
            Command::Silence { workload, port } => {
                let app = self.layout.app(workload, *port)?;
                self.world().net().silence(app);
                Ok(())
            }
            Command::Drain { workload, grace } => {
                let index = self.layout.proxy(workload)?;
                self.tell(index, Input::Drain { grace: *grace });
                Ok(())
            }
            Command::Advance(span) => {
                self.world().advance(*span);
                Ok(())
            }
        }
    }

    fn observe(&mut self, _enough: &mut dyn FnMut(&News) -> bool) -> News {
        self.world().settle();
        self.news()
    }

    fn end(&mut self) -> (News, Vec<String>) {
        let news = self.news();
        let world = self.world();
        for peer in 0..world.peers().len() {
            world.poke(peer, |p, _, out| {
                p.act(out, |hands| {
                    let links: Vec<_> = hands.conns().map(|(link, _)| link).collect();
                    for link in links {
                        hands.reset(link);
                    }
                });
            });
        }
        let mut left_over = Vec::new();
        if !world.exhaust(LONG) {
            left_over.push("something is still to happen after hours".to_owned());
        }
        for (index, process) in world.processes().iter().enumerate() {
            for pending in process.machine().proxy().pending() {
                left_over.push(format!("p{index} still has {pending}"));
            }
        }
        (news, left_over)
    }
}
