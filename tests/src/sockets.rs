//! Real sockets as a driver: loopback, threads for clients and applications, and a [`Host`] for the sidecars.
//!
//! With a real clock nobody knows when everything has happened, so an outcome is waited for: until it is as it should be and
//! stays so for a moment, or until patience ends. Files that say `advance` live by a [`Pace`]: for their sidecars time passes
//! in `advance` alone, faster than it really does.

mod conn;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use meshward_core::clock::{Deadline, Now, UnixTime};
use meshward_core::link::Entry;
use meshward_core::machine::Machine as CoreMachine;
use meshward_core::proxy::{Action, Input, Proxy};
use meshward_core::telemetry::Record;
use meshward_core::tls::Crypto;
use meshward_simulator::campaign::Inspected;
use meshward_simulator::check::Checked;
use meshward_simulator::clock::SharedClock;
use meshward_simulator::crypto;
use meshward_simulator::tls::TlsClient;

use crate::driver::Driver;
use crate::journal::{News, Seen, record_line};
use crate::layout::{Layout, Way};
use crate::pace::{Pace, Paced};
use crate::scenario::{Command, Open, Scenario};
use conn::{App, Conn, Told, lock};

/// What runs machines over sockets.
pub trait Host {
    /// `tokio`, `glommio`.
    fn name(&self) -> &'static str;

    /// Starts one sidecar; it accepts when this returns.
    fn start(&mut self, sidecar: Sidecar) -> Result<Box<dyn Running>, String>;
}

/// What sidecars are over sockets: a proxy, its pulse, its time, and the contract around all.
pub type Machine = Checked<Paced<Beating<Inspected>>>;

/// Counts everything that happens anywhere in a scenario, so that it can be seen whether something still does.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A machine whose inputs are counted.
#[derive(Debug)]
pub struct Beating<M> {
    machine: M,
    pulse: Pulse,
    /// What it was told by us, not by its links or its clock.
    told: Pulse,
}

impl<M: CoreMachine<Input = Input, Action = Action>> CoreMachine for Beating<M> {
    type Input = Input;
    type Action = Action;

    fn handle(&mut self, input: Input, now: Now) {
        self.pulse.beat();
        let told = !matches!(input, Input::Link(..) | Input::Tick);
        self.machine.handle(input, now);
        if told {
            self.told.beat();
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.machine.poll_action()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.machine.poll_timeout()
    }
}

/// One sidecar to be started.
pub struct Sidecar {
    /// Makes the machine at this instant of its driver, on the thread that it will live on.
    pub machine: Box<dyn FnOnce(Now) -> Machine + Send>,
    /// What the machine hears before anybody connects.
    pub inputs: Vec<Input>,
    /// Bound listeners; what comes in by one was meant for its address.
    pub doors: Vec<(TcpListener, Entry)>,
    /// Takes what the machine reports, on whatever thread.
    pub records: Box<dyn FnMut(Record) + Send>,
}

impl std::fmt::Debug for Sidecar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sidecar")
            .field("doors", &self.doors)
            .finish_non_exhaustive()
    }
}

/// A sidecar that runs.
pub trait Running {
    fn tell(&self, input: Input);

    /// Accepts at one more listener.
    fn open(&self, listener: TcpListener, entry: Entry);

    /// Takes over what its application sends to `to`.
    fn capture(&self, stream: TcpStream, from: SocketAddr, to: SocketAddr);

    /// Ends it. An error if it ended by itself before, with what it said.
    fn stop(self: Box<Self>) -> Result<(), String>;
}

/// Waits until a sidecar that was told to stop has done so; one that does not must fail the test, not hang it.
pub fn wait_for_end(has_ended: impl Fn() -> bool) -> Result<(), String> {
    wait_until(has_ended).ok_or_else(|| "a sidecar does not stop when it is told to".into())
}

/// `None`: it does not become true.
fn wait_until(is_true: impl Fn() -> bool) -> Option<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_true() {
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
    Some(())
}

/// One scenario over real sockets.
#[derive(Debug)]
pub struct Sockets<H> {
    host: H,
    layout: Layout,
    patience: Duration,
    pace: Option<Pace>,
    pulse: Pulse,
    world: Option<World>,
    clock: SharedClock,
    clients: BTreeMap<String, Conn>,
    records: Vec<(usize, Record)>,
    told_records: usize,
}

struct World {
    /// By member of the layout.
    sites: Vec<Site>,
    report: mpsc::Sender<(usize, Record)>,
    records: mpsc::Receiver<(usize, Record)>,
}

/// One member of the layout, alive.
struct Site {
    sidecar: Option<Living>,
    app: App,
    /// Every address at which somebody listened.
    opened: BTreeSet<SocketAddr>,
}

struct Living {
    sidecar: Box<dyn Running>,
    /// How much it was told, and how much it has heard of that.
    told: u64,
    heard: Pulse,
}

impl World {
    fn sidecars(&self) -> impl Iterator<Item = &dyn Running> {
        let living = self.sites.iter().filter_map(|site| site.sidecar.as_ref());
        living.map(|living| &*living.sidecar)
    }

    fn living(&mut self, member: usize) -> Result<&mut Living, String> {
        let living = self.sites[member].sidecar.as_mut();
        living.ok_or_else(|| "a sidecar that is not there".into())
    }

    /// Returns when the sidecar has heard it, so that what the scenario does next comes after it.
    fn tell(&mut self, member: usize, input: Input) -> Result<(), String> {
        let living = self.living(member)?;
        living.told += 1;
        living.sidecar.tell(input);
        let heard = wait_until(|| living.heard.beats() >= living.told);
        heard.ok_or_else(|| "a sidecar does not hear what it is told".into())
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("sites", &self.sites.len())
            .finish_non_exhaustive()
    }
}

/// An outcome has to stay as it is for so long, while nothing happens anywhere; one that is empty longer, since it begins as
/// it should be.
const QUIET: Duration = Duration::from_millis(15);
const QUIET_IF_EMPTY: Duration = Duration::from_millis(120);

fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).map_err(|e| format!("{address}: {e}"))
}

/// For an application, which looks whether somebody has come.
fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    let listener = bind(address)?;
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    Ok(listener)
}

fn connect(from: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let Some(from) = from else {
        return TcpStream::connect(to);
    };
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// Both ends of a connection, and the port of the first: what an entry of the mesh accepts and hands over.
fn pair() -> io::Result<(TcpStream, TcpStream, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let port = ours.local_addr()?.port();
    loop {
        let (theirs, from) = listener.accept()?;
        if from.port() == port {
            return Ok((ours, theirs, port));
        }
    }
}

impl<H: Host> Sockets<H> {
    /// `patience`: how long an outcome is waited for.
    pub fn new(host: H, scenario: &Scenario, patience: Duration) -> Self {
        static MESHES: AtomicU32 = AtomicU32::new(0);
        // Meshes of one process differ in the third byte, processes in the second.
        let mesh = MESHES.fetch_add(1, Ordering::Relaxed);
        let net = [
            10 + ((std::process::id() + mesh / 250) % 240) as u8,
            (mesh % 250) as u8,
        ];
        let wall = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let now = UnixTime(u64::try_from(wall.as_millis()).unwrap_or_default());
        let clock = SharedClock::default();
        clock.set(now);
        Self {
            host,
            layout: Layout::new(net, 1, now),
            patience,
            pace: scenario.moves_time().then(Pace::default),
            pulse: Pulse::default(),
            world: None,
            clock,
            clients: BTreeMap::new(),
            records: Vec::new(),
            told_records: 0,
        }
    }

    fn world(&mut self) -> Result<&mut World, String> {
        if self.world.is_none() {
            let (report, records) = mpsc::channel();
            self.world = Some(World {
                sites: Vec::new(),
                report,
                records,
            });
            self.meet()?;
        }
        Ok(self.world.as_mut().expect("it has begun"))
    }

    /// Lets in those of the layout who are not there yet, and opens whatever doors are new.
    fn meet(&mut self) -> Result<(), String> {
        let Some(world) = &mut self.world else {
            return Ok(());
        };
        for (index, member) in self.layout.members().to_vec().into_iter().enumerate() {
            if let Some(site) = world.sites.get_mut(index) {
                for (port, address) in member.apps {
                    if site.opened.insert(address) {
                        lock(&site.app.listeners).insert(port, listen(address)?);
                    }
                }
                for (address, entry) in member.doors {
                    if site.opened.insert(address)
                        && let Some(living) = &site.sidecar
                    {
                        living.sidecar.open(bind(address)?, entry);
                    }
                }
                continue;
            }
            let mut opened = BTreeSet::new();
            let mut listeners = BTreeMap::new();
            for (port, address) in member.apps {
                opened.insert(address);
                listeners.insert(port, listen(address)?);
            }
            let mut doors = Vec::new();
            for (address, entry) in member.doors {
                opened.insert(address);
                doors.push((bind(address)?, entry));
            }
            let app = App::begin(listeners, self.pulse.clone());
            let mut site = Site {
                sidecar: None,
                app,
                opened,
            };
            if member.sidecar {
                let report = world.report.clone();
                let (pace, pulse) = (self.pace.clone(), self.pulse.clone());
                let heard = Pulse::default();
                let told = heard.clone();
                let seed = [index as u8 + 1; 32];
                let proxy = move |now| Beating {
                    machine: Inspected::new(Proxy::new(seed, Crypto::production(), now)),
                    pulse,
                    told,
                };
                let sidecar = Sidecar {
                    machine: Box::new(move |now| Checked::new(Paced::new(pace, now, proxy))),
                    inputs: vec![
                        Input::Svid(self.layout.svid(index)),
                        Input::Snapshot(self.layout.snapshot(index)),
                    ],
                    doors,
                    records: Box::new(move |record| drop(report.send((index, record)))),
                };
                site.sidecar = Some(Living {
                    told: sidecar.inputs.len() as u64,
                    heard,
                    sidecar: self.host.start(sidecar)?,
                });
            }
            world.sites.push(site);
        }
        Ok(())
    }

    /// Gives everybody who was there what has changed for them, and lets the others in.
    fn change(&mut self) -> Result<(), String> {
        if let Some(world) = &mut self.world {
            for (index, snapshot) in self.layout.publish(world.sites.len()) {
                world.tell(index, Input::Snapshot(snapshot))?;
            }
        }
        self.meet()
    }

    fn open(&mut self, open: &Open) -> Result<(), String> {
        let tls = match &open.tls {
            None => None,
            Some(tls) => {
                let offer = self.layout.offer(tls);
                let provider = crypto::provider(self.clients.len() as u64);
                let clock = Arc::new(self.clock.clone());
                Some(TlsClient::new(&offer, provider, clock).map_err(|e| e.to_string())?)
            }
        };
        let way = self.layout.way(open)?;
        self.world()?;
        let stream = match way {
            Way::Direct { from, to } => connect(from, to).map_err(|e| (e, to)),
            Way::Captured { member, to } => {
                let from = self.layout.members()[member].address;
                let living = self.world()?.living(member)?;
                pair().map_err(|e| (e, to)).map(|(ours, theirs, port)| {
                    let from = SocketAddr::new(from, port);
                    living.sidecar.capture(theirs, from, to);
                    ours
                })
            }
        };
        let conn = match stream {
            Ok(stream) => Conn::begin(stream, tls, &self.pulse).map_err(|e| e.to_string())?,
            Err((e, _)) if e.kind() == ErrorKind::ConnectionRefused => Conn::refused(),
            Err((e, to)) => return Err(format!("{to}: {e}")),
        };
        self.clients.insert(open.name.clone(), conn);
        Ok(())
    }

    fn act(&mut self, name: &str, act: impl FnOnce(&mut Conn)) -> Result<(), String> {
        if let Some(conn) = self.clients.get_mut(name) {
            act(conn);
            return Ok(());
        }
        let (workload, number) = name.rsplit_once('.').ok_or("no such connection")?;
        let index = self.layout.index(workload)?;
        let nth: usize = number.parse().map_err(|_| "no such connection")?;
        let mut conns = lock(&self.world()?.sites[index].app.conns);
        let found = nth.checked_sub(1).and_then(|n| conns.get_mut(n));
        act(found.ok_or_else(|| format!("`{name}` was not opened"))?);
        Ok(())
    }

    /// Lets `span` pass for the sidecars, and waits until it has.
    fn advance(&mut self, span: Duration) -> Result<(), String> {
        let pace = self.pace.clone().ok_or("this file does not move time")?;
        let end = Instant::now() + self.patience + span;
        let world = self.world()?;
        pace.advance(span);
        for sidecar in world.sidecars() {
            sidecar.tell(Input::Tick);
        }
        while !pace.has_arrived() {
            if Instant::now() >= end {
                return Err("a sidecar does not hear of its deadline".into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// What is new; `tell` makes it old.
    fn news(&mut self, tell: bool) -> News {
        let mut news = News::default();
        let mut add = |name: String, conn: &Conn, of_app: bool| {
            let mut state = lock(&conn.state);
            let seen = Seen {
                opened: of_app && !state.told.opened,
                bytes: state.received[state.told.bytes..].to_vec(),
                ending: state.ending.filter(|_| !state.told.ending),
            };
            if tell {
                state.told = Told {
                    opened: true,
                    bytes: state.received.len(),
                    ending: state.ending.is_some(),
                };
            }
            if seen != Seen::default() {
                news.conns.insert(name, seen);
            }
        };
        for (name, conn) in &self.clients {
            add(name.clone(), conn, false);
        }
        if let Some(world) = &self.world {
            for (member, site) in self.layout.members().iter().zip(&world.sites) {
                for (n, conn) in (1..).zip(lock(&site.app.conns).iter()) {
                    add(format!("{}.{n}", member.name), conn, true);
                }
            }
            self.records.extend(world.records.try_iter());
        }
        for (index, record) in &self.records[self.told_records..] {
            let member = &self.layout.members()[*index].name;
            let line = record_line(member, record, self.layout.names());
            news.records.push(line);
        }
        if tell {
            self.told_records = self.records.len();
        }
        news
    }
}

impl<H: Host> Driver for Sockets<H> {
    fn name(&self) -> &'static str {
        self.host.name()
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
                self.change()
            }
            Command::Delete(yaml) => {
                self.layout.delete(yaml)?;
                self.change()
            }
            Command::Hold(name) => self.layout.hold(name),
            Command::Release(name) => {
                self.world()?;
                for (index, snapshot) in self.layout.release(name)? {
                    self.world()?.tell(index, Input::Snapshot(snapshot))?;
                }
                Ok(())
            }
            Command::Open(open) => self.open(open),
            Command::Send { conn, bytes } => self.act(conn, |conn| conn.send(bytes)),
            Command::Finish(conn) => self.act(conn, |conn| conn.finish()),
            Command::Reset(conn) => self.act(conn, |conn| conn.let_go(true)),
            Command::Close { workload, port } => {
                self.layout.app(workload, *port)?;
                let index = self.layout.index(workload)?;
                lock(&self.world()?.sites[index].app.listeners).remove(port);
                Ok(())
            }
            Command::Drain { workload, grace } => {
                let index = self.layout.proxy(workload)?;
                let drain = Input::Drain { grace: *grace };
                self.world()?.tell(index, drain)
            }
            Command::Silence { workload, port } => {
                self.layout.app(workload, *port)?;
                let index = self.layout.index(workload)?;
                let silenced = self.world()?.sites[index].app.silence(*port);
                silenced.map_err(|e| e.to_string())
            }
            Command::Advance(span) => self.advance(*span),
        }
    }

    fn observe(&mut self, enough: &mut dyn FnMut(&News) -> bool) -> News {
        if let Err(error) = self.world() {
            return News {
                records: vec![error],
                ..News::default()
            };
        }
        let end = Instant::now() + self.patience;
        let (mut since, mut beats) = (None, self.pulse.beats());
        loop {
            if std::mem::replace(&mut beats, self.pulse.beats()) != beats {
                since = None;
            }
            let news = self.news(false);
            let quiet = if news == News::default() {
                QUIET_IF_EMPTY
            } else {
                QUIET
            };
            let now = Instant::now();
            if enough(&news) {
                let begun = *since.get_or_insert(now);
                if now - begun >= quiet {
                    break;
                }
            } else {
                since = None;
            }
            if now >= end {
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.news(true)
    }

    fn end(&mut self) -> (News, Vec<String>) {
        let news = self.news(true);
        let mut left_over = Vec::new();
        for conn in self.clients.values_mut() {
            conn.let_go(true);
        }
        if let Some(world) = self.world.take() {
            let mut sidecars = Vec::new();
            for mut site in world.sites {
                site.app.end();
                sidecars.extend(site.sidecar);
            }
            for living in sidecars {
                left_over.extend(living.sidecar.stop().err());
            }
        }
        (news, left_over)
    }
}
