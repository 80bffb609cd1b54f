//! The simulator as a driver: virtual time, seeded everything.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use meshward_core::clock::Instant;
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
use crate::layout::Layout;
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

/// One scenario in one world. Process `i` is workload `i`; peer 0 is all clients, peer `i + 1` the application of workload
/// `i`.
#[derive(Debug)]
pub struct Simulated {
    seed: u64,
    layout: Layout,
    world: Option<World<Inspected, Speaker<()>>>,
    weather: Weather,
    clients: BTreeMap<String, Place>,
    told: BTreeMap<Place, Told>,
    records: usize,
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
            clients: BTreeMap::new(),
            told: BTreeMap::new(),
            records: 0,
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
        let mut seeds = Chance::new(self.seed, 200);
        for index in 0..self.layout.workloads().len() {
            let clock = WallClock::default();
            let crypto = crypto::crypto(self.seed ^ (index as u64 + 1) << 40);
            let proxy = Proxy::new(seeds.seed(), crypto, clock.read(Instant(0)));
            world.add_process(Inspected::new(proxy), LOOPBACK, clock);
            world.add_peer(Speaker::new(()), LOOPBACK);
            let svid = self.layout.svid(index);
            world.inject(index, Input::Svid(svid), Duration::ZERO);
            let snapshot = self.layout.snapshot(index);
            world.inject(index, Input::Snapshot(snapshot), Duration::ZERO);
            let process = Node::Process(index);
            for (port, _) in &self.layout.workloads()[index].ports {
                world.listen(process, self.layout.inbound(index, *port), Entry::Inbound);
                let app = Node::Peer(index + 1);
                world.listen(app, self.layout.app(index, *port), Entry::Inbound);
                for caller in 0..self.layout.workloads().len() {
                    let service = self.layout.service(caller, index, *port);
                    world.listen(Node::Process(caller), service, Entry::Outbound);
                }
            }
        }
        self.world = Some(world);
    }

    fn find(&mut self, name: &str) -> Result<Place, String> {
        if let Some(place) = self.clients.get(name) {
            return Ok(*place);
        }
        let (workload, number) = name.rsplit_once('.').ok_or("no such connection")?;
        let peer = self.layout.index(workload) + 1;
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
        let workload = self.layout.index(&open.workload);
        let to = match &open.via {
            None => self.layout.inbound(workload, open.port),
            Some(via) => {
                let caller = self.layout.index(via);
                self.layout.service(caller, workload, open.port)
            }
        };
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
        let link = self
            .world()
            .poke(0, |p, _, out| p.act(out, |hands| hands.open(to, None, tls)));
        self.clients.insert(open.name.clone(), (0, link));
        Ok(())
    }

    fn news(&mut self) -> News {
        let mut news = News::default();
        let names = self.layout.names();
        let Some(world) = &self.world else {
            return news;
        };
        let mut places: Vec<(String, Place)> = Vec::new();
        for (name, place) in &self.clients {
            places.push((name.clone(), *place));
        }
        for (index, workload) in self.layout.workloads().iter().enumerate() {
            let conns = world.peer(index + 1).hands.conns();
            for (n, (link, _)) in (1..).zip(conns) {
                places.push((format!("{}.{n}", workload.name), (index + 1, link)));
            }
        }
        for (name, place) in places {
            let conn = world.peer(place.0).hands.conn(place.1);
            let told = self.told.entry(place).or_default();
            let seen = Seen {
                opened: place.0 > 0 && !told.opened,
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
            let workload = &self.layout.workloads()[reported.process].name;
            news.records
                .push(record_line(workload, &reported.record, &names));
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
            Command::Apply(yaml) => {
                self.layout.apply(yaml)?;
                if self.world.is_some() {
                    for index in 0..self.layout.workloads().len() {
                        let snapshot = self.layout.snapshot(index);
                        self.world()
                            .inject(index, Input::Snapshot(snapshot), Duration::ZERO);
                    }
                }
                Ok(())
            }
            Command::Open(open) => self.open(open),
            Command::Send { conn, bytes } => self.act(conn, |hands, link| hands.send(link, bytes)),
            Command::Finish(conn) => self.act(conn, Hands::finish),
            Command::Reset(conn) => self.act(conn, Hands::reset),
            Command::Close { workload, port } => {
                let app = self.layout.app(self.layout.index(workload), *port);
                self.world().stop_listening(app);
                Ok(())
            }
            Command::Silence { workload, port } => {
                let app = self.layout.app(self.layout.index(workload), *port);
                self.world().net().silence(app);
                Ok(())
            }
            Command::Drain { workload, grace } => {
                let index = self.layout.index(workload);
                let drain = Input::Drain { grace: *grace };
                self.world().inject(index, drain, Duration::ZERO);
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
