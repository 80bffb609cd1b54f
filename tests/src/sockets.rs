//! Real sockets as a driver: loopback, threads for clients and applications, and a [`Host`] for the sidecars.
//!
//! With a real clock nobody knows when everything has happened, so an outcome is waited for: until it is as it should be and
//! stays so for a moment, or until patience ends. Files that say `advance` live by a [`Pace`]: for their sidecars time passes
//! in `advance` alone, faster than it really does.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
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
use meshward_simulator::peer::Ending;
use meshward_simulator::tls::{TlsClient, TlsEnd};

use crate::driver::Driver;
use crate::journal::{News, Seen, record_line};
use crate::layout::Layout;
use crate::pace::{Pace, Paced};
use crate::scenario::{Command, Open, Scenario};

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

/// One end of one connection, as its application sees it.
#[derive(Debug, Default)]
struct State {
    received: Vec<u8>,
    ending: Option<Ending>,
    tls: Option<TlsClient>,
    finished: bool,
    finishing: bool,
    told: Told,
}

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    opened: bool,
    bytes: usize,
    ending: bool,
}

/// A connection: its journal, and its socket while somebody holds it.
#[derive(Debug)]
struct Conn {
    state: Arc<Mutex<State>>,
    socket: Option<Arc<TcpStream>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

/// How long a blocked read or accept goes without looking whether it should end.
const BEAT: Duration = Duration::from_millis(5);

impl Conn {
    fn begin(stream: TcpStream, tls: Option<TlsClient>, pulse: &Pulse) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(BEAT))?;
        stream.set_nodelay(true)?;
        let socket = Arc::new(stream);
        let state = Arc::new(Mutex::new(State {
            tls,
            ..State::default()
        }));
        flush(&mut lock(&state), &socket);
        let stop = Arc::new(AtomicBool::new(false));
        let reader = thread::spawn({
            let (state, socket, stop) =
                (Arc::clone(&state), Arc::clone(&socket), Arc::clone(&stop));
            let pulse = pulse.clone();
            move || read(&state, &socket, &stop, &pulse)
        });
        Ok(Self {
            state,
            socket: Some(socket),
            stop,
            reader: Some(reader),
        })
    }

    fn refused() -> Self {
        let state = State {
            ending: Some(Ending::Refused),
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            socket: None,
            stop: Arc::default(),
            reader: None,
        }
    }

    fn send(&self, bytes: &[u8]) {
        let Some(socket) = &self.socket else { return };
        let mut state = lock(&self.state);
        if state.finished {
            return;
        }
        match &mut state.tls {
            Some(tls) if matches!(tls.end(), None | Some(TlsEnd::Notified)) => {
                tls.send(bytes);
                flush(&mut state, socket);
            }
            // The session failed before the client came to say this.
            Some(_) => {}
            // The reader tells what became of the connection.
            None => drop((&**socket).write_all(bytes)),
        }
    }

    fn finish(&self) {
        if let Some(socket) = &self.socket {
            finish(&mut lock(&self.state), socket);
        }
    }

    /// Lets go of the socket: with a reset, or as the system does it.
    fn let_go(&mut self, reset: bool) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
        if let Some(socket) = self.socket.take()
            && reset
        {
            drop(socket2::SockRef::from(&*socket).set_linger(Some(Duration::ZERO)));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn flush(state: &mut State, mut socket: &TcpStream) {
    if let Some(tls) = &mut state.tls {
        drop(socket.write_all(&tls.take_wire()));
    }
}

fn finish(state: &mut State, socket: &TcpStream) {
    if state.finished {
        return;
    }
    if let Some(tls) = &mut state.tls {
        if tls.is_handshaking() && state.ending.is_none() {
            state.finishing = true;
            return;
        }
        tls.finish();
    }
    flush(state, socket);
    state.finished = true;
    drop(socket.shutdown(Shutdown::Write));
}

/// Reads until the end, or until it is told to stop.
fn read(state: &Mutex<State>, mut socket: &TcpStream, stop: &AtomicBool, pulse: &Pulse) {
    let mut buffer = vec![0; 64 * 1024];
    while !stop.load(Ordering::Relaxed) {
        let result = socket.read(&mut buffer);
        let mut state = lock(state);
        let ending = match result {
            Ok(0) => Some(Ending::Fin),
            Ok(n) => {
                pulse.beat();
                take(&mut state, &buffer[..n]);
                flush(&mut state, socket);
                if state.finishing {
                    finish(&mut state, socket);
                }
                None
            }
            Err(e) => match e.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => None,
                _ => Some(Ending::Reset),
            },
        };
        if let Some(ending) = ending {
            state.ending.get_or_insert(ending);
            return;
        }
    }
}

fn take(state: &mut State, wire: &[u8]) {
    let Some(tls) = &mut state.tls else {
        state.received.extend_from_slice(wire);
        return;
    };
    tls.receive(wire, &mut state.received);
    let ending = match tls.end() {
        None => return,
        Some(TlsEnd::Notified) => Ending::Fin,
        Some(TlsEnd::Alert(n)) => Ending::Alert(n),
        Some(TlsEnd::Broken) => Ending::NotTls,
    };
    state.ending.get_or_insert(ending);
}

/// The application of one workload: its listeners, served in turn by one thread, and what they accepted.
#[derive(Debug)]
struct App {
    listeners: Arc<Mutex<BTreeMap<u16, TcpListener>>>,
    /// What keeps connects from being answered.
    silenced: Vec<(TcpListener, TcpStream)>,
    conns: Arc<Mutex<Vec<Conn>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl App {
    fn begin(listeners: BTreeMap<u16, TcpListener>, pulse: Pulse) -> Self {
        let listeners = Arc::new(Mutex::new(listeners));
        let (conns, stop): (Arc<Mutex<Vec<Conn>>>, Arc<AtomicBool>) = Default::default();
        let thread = thread::spawn({
            let (listeners, conns, stop) = (
                Arc::clone(&listeners),
                Arc::clone(&conns),
                Arc::clone(&stop),
            );
            move || {
                while !stop.load(Ordering::Relaxed) {
                    for listener in lock(&listeners).values() {
                        while let Ok((stream, _)) = listener.accept() {
                            if let Ok(conn) = Conn::begin(stream, None, &pulse) {
                                lock(&conns).push(conn);
                            }
                        }
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Self {
            listeners,
            silenced: Vec::new(),
            conns,
            stop,
            thread: Some(thread),
        }
    }

    /// Nobody accepts behind `port` any more, and the queue of those who wait is full: Linux drops what else comes.
    fn silence(&mut self, port: u16) -> std::io::Result<()> {
        let Some(listener) = lock(&self.listeners).remove(&port) else {
            return Ok(());
        };
        socket2::SockRef::from(&listener).listen(0)?;
        let filler = TcpStream::connect(listener.local_addr()?)?;
        self.silenced.push((listener, filler));
        Ok(())
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        for conn in lock(&self.conns).iter_mut() {
            conn.let_go(true);
        }
    }
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
    sidecars: Vec<Box<dyn Running>>,
    /// How much each sidecar was told, and how much it has heard of it.
    told: Vec<(u64, Pulse)>,
    apps: Vec<App>,
    records: mpsc::Receiver<(usize, Record)>,
}

impl World {
    /// Returns when the sidecar has heard it, so that what the scenario does next comes after it.
    fn tell(&mut self, sidecar: usize, input: Input) -> Result<(), String> {
        let (told, heard) = &mut self.told[sidecar];
        *told += 1;
        self.sidecars[sidecar].tell(input);
        let heard = wait_until(|| heard.beats() >= *told);
        heard.ok_or_else(|| "a sidecar does not hear what it is told".into())
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("apps", &self.apps)
            .finish_non_exhaustive()
    }
}

/// An outcome has to stay as it is for so long, while nothing happens anywhere; one that is empty longer, since it begins as
/// it should be.
const QUIET: Duration = Duration::from_millis(15);
const QUIET_IF_EMPTY: Duration = Duration::from_millis(120);

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
            let world = self.begin()?;
            self.world = Some(world);
        }
        Ok(self.world.as_mut().expect("it has begun"))
    }

    fn begin(&mut self) -> Result<World, String> {
        let bind =
            |address: SocketAddr| TcpListener::bind(address).map_err(|e| format!("{address}: {e}"));
        let (sender, records) = mpsc::channel();
        let mut world = World {
            sidecars: Vec::new(),
            told: Vec::new(),
            apps: Vec::new(),
            records,
        };
        let count = self.layout.workloads().len();
        for index in 0..count {
            let ports: Vec<u16> = {
                let me = &self.layout.workloads()[index];
                me.ports.iter().map(|(port, _)| *port).collect()
            };
            let mut listeners = BTreeMap::new();
            let mut doors = Vec::new();
            for port in ports {
                let listener = bind(self.layout.app(index, port))?;
                listener.set_nonblocking(true).map_err(|e| e.to_string())?;
                listeners.insert(port, listener);
                doors.push((bind(self.layout.inbound(index, port))?, Entry::Inbound));
            }
            for other in (0..count).filter(|other| *other != index) {
                for (port, _) in &self.layout.workloads()[other].ports {
                    let door = bind(self.layout.service(index, other, *port))?;
                    doors.push((door, Entry::Outbound));
                }
            }
            world.apps.push(App::begin(listeners, self.pulse.clone()));
            let sender = sender.clone();
            let (pace, pulse) = (self.pace.clone(), self.pulse.clone());
            let heard = Pulse::default();
            let told = heard.clone();
            let proxy = move |now| Beating {
                machine: Inspected::new(Proxy::new(
                    [index as u8 + 1; 32],
                    Crypto::production(),
                    now,
                )),
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
                records: Box::new(move |record| drop(sender.send((index, record)))),
            };
            world.told.push((sidecar.inputs.len() as u64, heard));
            world.sidecars.push(self.host.start(sidecar)?);
        }
        Ok(world)
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
        let tls = match &open.tls {
            None => None,
            Some(tls) => {
                let offer = self.layout.offer(tls);
                let provider = crypto::provider(self.clients.len() as u64);
                let clock = Arc::new(self.clock.clone());
                Some(TlsClient::new(&offer, provider, clock).map_err(|e| e.to_string())?)
            }
        };
        self.world()?;
        let conn = match TcpStream::connect(to) {
            Ok(stream) => Conn::begin(stream, tls, &self.pulse).map_err(|e| e.to_string())?,
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => Conn::refused(),
            Err(e) => return Err(format!("{to}: {e}")),
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
        let index = self.layout.index(workload);
        let nth: usize = number.parse().map_err(|_| "no such connection")?;
        let mut conns = lock(&self.world()?.apps[index].conns);
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
        for sidecar in &world.sidecars {
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
        let names = self.layout.names();
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
            for (workload, app) in self.layout.workloads().iter().zip(&world.apps) {
                for (n, conn) in (1..).zip(lock(&app.conns).iter()) {
                    add(format!("{}.{n}", workload.name), conn, true);
                }
            }
            self.records.extend(world.records.try_iter());
        }
        for (index, record) in &self.records[self.told_records..] {
            let workload = &self.layout.workloads()[*index].name;
            news.records.push(record_line(workload, record, &names));
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
            Command::Apply(yaml) => {
                self.layout.apply(yaml)?;
                if let Some(world) = &mut self.world {
                    for index in 0..world.sidecars.len() {
                        world.tell(index, Input::Snapshot(self.layout.snapshot(index)))?;
                    }
                }
                Ok(())
            }
            Command::Open(open) => self.open(open),
            Command::Send { conn, bytes } => self.act(conn, |conn| conn.send(bytes)),
            Command::Finish(conn) => self.act(conn, |conn| conn.finish()),
            Command::Reset(conn) => self.act(conn, |conn| conn.let_go(true)),
            Command::Close { workload, port } => {
                let index = self.layout.index(workload);
                lock(&self.world()?.apps[index].listeners).remove(port);
                Ok(())
            }
            Command::Drain { workload, grace } => {
                let index = self.layout.index(workload);
                let drain = Input::Drain { grace: *grace };
                self.world()?.tell(index, drain)
            }
            Command::Silence { workload, port } => {
                let index = self.layout.index(workload);
                let silenced = self.world()?.apps[index].silence(*port);
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
            for mut app in world.apps {
                app.end();
            }
            for sidecar in world.sidecars {
                left_over.extend(sidecar.stop().err());
            }
        }
        (news, left_over)
    }
}
