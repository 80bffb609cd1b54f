//! A stage of real sockets: sidecars by tokio, each a shard of its own; the parties by one loop that is run when somebody
//! waits.
//!
//! Pods keep the addresses that their case says, since policies look at them. On the way to the system every address becomes
//! one of this stage's own net, and back: a name for each machine and a port that was free.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant as StdInstant, SystemTime};

use meshward_core::clock::{Deadline, Instant, Now, UnixTime};
use meshward_core::id::LinkId;
use meshward_core::link::{Buf, CloseCause, Entry, LinkCommand, LinkEvent};
use meshward_core::machine::Machine;
use meshward_core::proxy::{Action, Input, Proxy};
use meshward_core::snapshot::Snapshot;
use meshward_core::spiffe::Svid;
use meshward_core::telemetry::Record;
use meshward_core::tls::Crypto;
use meshward_simulator::campaign::Inspected;
use meshward_simulator::check::Checked;
use meshward_tokio::{Clock, Command, Destination, Driver, ProxyId, ShardHandle, spawn_shard};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

use super::stage::{Party, Stage};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nothing happens for so long: it has settled. What takes longer is waited for by who wants it.
const QUIET: Duration = Duration::from_millis(4);
const NAP: Duration = Duration::from_micros(200);

/// The only proxy of each driver.
const PROXY: ProxyId = ProxyId(0);

/// Which address stands for which.
#[derive(Debug)]
struct Atlas {
    net: [u8; 2],
    ours: BTreeMap<IpAddr, IpAddr>,
    theirs: BTreeMap<IpAddr, IpAddr>,
    /// Where somebody listens.
    doors: BTreeMap<SocketAddr, SocketAddr>,
    signs: BTreeMap<SocketAddr, SocketAddr>,
}

impl Atlas {
    /// The address of this host that stands for one of the case.
    fn ours(&mut self, ip: IpAddr) -> IpAddr {
        if let Some(ours) = self.ours.get(&ip) {
            return *ours;
        }
        let [second, third] = self.net;
        let number = self.ours.len() as u8 + 1;
        let ours = IpAddr::V4(Ipv4Addr::new(127, second, third, number));
        self.ours.insert(ip, ours);
        self.theirs.insert(ours, ip);
        ours
    }

    /// The address of the case that one of this host stands for.
    fn theirs(&self, address: SocketAddr) -> SocketAddr {
        if let Some(sign) = self.signs.get(&address) {
            return *sign;
        }
        match self.theirs.get(&address.ip()) {
            Some(ip) => SocketAddr::new(*ip, address.port()),
            None => address,
        }
    }

    fn listen(&mut self, address: SocketAddr) -> Result<TcpListener, String> {
        let at = SocketAddr::new(self.ours(address.ip()), 0);
        let listener = TcpListener::bind(at).map_err(|e| format!("{at}: {e}"))?;
        let at = listener.local_addr().map_err(|e| e.to_string())?;
        self.doors.insert(address, at);
        self.signs.insert(at, address);
        Ok(listener)
    }

    /// Where to connect instead; where nobody listens it is a port at which nobody does.
    fn door(&mut self, address: SocketAddr) -> SocketAddr {
        const NOBODY: u16 = 1;
        match self.doors.get(&address) {
            Some(door) => *door,
            None => SocketAddr::new(self.ours(address.ip()), NOBODY),
        }
    }
}

type Shared = Arc<Mutex<Atlas>>;

fn lock(atlas: &Shared) -> MutexGuard<'_, Atlas> {
    atlas.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A machine that knows the addresses of the case, on a driver that knows those of the host.
#[derive(Debug)]
struct Translated<M> {
    machine: M,
    atlas: Shared,
}

impl<M: Machine<Input = Input, Action = Action>> Machine for Translated<M> {
    type Input = Input;
    type Action = Action;

    fn handle(&mut self, mut input: Input, now: Now) {
        if let Input::Link(_, event) = &mut input {
            let atlas = lock(&self.atlas);
            match event {
                LinkEvent::Accepted {
                    peer, original_dst, ..
                } => {
                    *peer = atlas.theirs(*peer);
                    *original_dst = atlas.theirs(*original_dst);
                }
                LinkEvent::Connected { local } => *local = atlas.theirs(*local),
                LinkEvent::Received(_)
                | LinkEvent::Sent(_)
                | LinkEvent::Eof
                | LinkEvent::Closed(_) => {}
            }
        }
        self.machine.handle(input, now);
    }

    fn poll_action(&mut self) -> Option<Action> {
        let mut action = self.machine.poll_action();
        if let Some(Action::Link(_, LinkCommand::Connect { to, from })) = &mut action {
            let mut atlas = lock(&self.atlas);
            *to = atlas.door(*to);
            if let Some(from) = from {
                from.set_ip(atlas.ours(from.ip()));
            }
        }
        action
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.machine.poll_timeout()
    }
}

type Sidecar = Checked<Translated<Inspected>>;

pub(super) struct Real {
    atlas: Shared,
    begun: StdInstant,
    shards: Vec<ShardHandle<Sidecar>>,
    places: Vec<Place>,
    report: mpsc::Sender<(usize, Record)>,
    records: mpsc::Receiver<(usize, Record)>,
    /// Since something happened.
    busy: StdInstant,
}

/// A party and its sockets.
struct Place {
    party: Party,
    ip: IpAddr,
    captured: Option<usize>,
    listeners: Vec<(TcpListener, SocketAddr)>,
    conns: BTreeMap<LinkId, Conn>,
    accepted: u32,
}

struct Conn {
    /// `None`: there never was one, or it was let go of.
    stream: Option<TcpStream>,
    out: VecDeque<u8>,
    grant: Option<usize>,
    finish: bool,
    finished: bool,
    eof: bool,
    /// Heard before anything else.
    first: Option<LinkEvent>,
    cause: Option<CloseCause>,
}

impl Conn {
    fn new(stream: Option<TcpStream>, first: LinkEvent, cause: Option<CloseCause>) -> Self {
        Self {
            stream,
            out: VecDeque::new(),
            grant: None,
            finish: false,
            finished: false,
            eof: false,
            first: Some(first),
            cause,
        }
    }

    fn fail(&mut self, error: &io::Error) {
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            self.cause.get_or_insert(CloseCause::Reset);
        }
    }

    /// What happened next, if something did.
    fn step(&mut self) -> Option<LinkEvent> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if self.cause.is_none() {
            if let Some(event) = self.read() {
                return Some(event);
            }
            self.write();
            if self.eof && self.finished {
                self.cause = Some(CloseCause::Finished);
            }
        }
        let cause = self.cause?;
        self.stream = None;
        Some(LinkEvent::Closed(cause))
    }

    fn read(&mut self) -> Option<LinkEvent> {
        let at_most = self.grant.filter(|_| !self.eof)?;
        let stream = self.stream.as_mut()?;
        let mut bytes = vec![0; at_most];
        match stream.read(&mut bytes) {
            Ok(0) => {
                self.eof = true;
                self.grant = None;
                Some(LinkEvent::Eof)
            }
            Ok(n) => {
                self.grant = None;
                bytes.truncate(n);
                Some(LinkEvent::Received(Buf::from(bytes)))
            }
            Err(error) => {
                self.fail(&error);
                None
            }
        }
    }

    fn write(&mut self) {
        while !self.out.is_empty() {
            let Some(stream) = self.stream.as_mut() else {
                return;
            };
            let (front, _) = self.out.as_slices();
            match stream.write(front) {
                Ok(n) => {
                    self.out.drain(..n);
                }
                Err(error) => {
                    // What came before the reset is still to be read.
                    if self.grant.is_none() || self.eof {
                        self.fail(&error);
                    }
                    return;
                }
            }
        }
        if self.finish && !self.finished {
            self.finished = true;
            if let Some(stream) = &self.stream {
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
    }
}

impl Real {
    pub(super) fn new() -> Self {
        static STAGES: AtomicU32 = AtomicU32::new(0);
        // Stages of one process differ in the third byte, processes in the second.
        let stage = STAGES.fetch_add(1, Ordering::Relaxed);
        let net = [
            10 + ((std::process::id() + stage / 250) % 180) as u8,
            (stage % 250) as u8,
        ];
        let (report, records) = mpsc::channel();
        Self {
            atlas: Arc::new(Mutex::new(Atlas {
                net,
                ours: BTreeMap::new(),
                theirs: BTreeMap::new(),
                doors: BTreeMap::new(),
                signs: BTreeMap::new(),
            })),
            begun: StdInstant::now(),
            shards: Vec::new(),
            places: Vec::new(),
            report,
            records,
            busy: StdInstant::now(),
        }
    }

    fn obey(&mut self, party: usize, commands: Vec<(LinkId, LinkCommand)>) {
        for (link, command) in commands {
            self.busy = StdInstant::now();
            if let LinkCommand::Connect { to, .. } = command {
                let conn = self.connect(party, to);
                self.places[party].conns.insert(link, conn);
                continue;
            }
            let Some(conn) = self.places[party].conns.get_mut(&link) else {
                continue;
            };
            match command {
                LinkCommand::Connect { .. } => {}
                LinkCommand::Read { at_most } => conn.grant = Some(at_most),
                LinkCommand::Send { bytes, .. } => conn.out.extend(bytes.iter()),
                LinkCommand::Finish => conn.finish = true,
                LinkCommand::Reset => {
                    conn.stream = None;
                    conn.cause = Some(CloseCause::Local);
                }
            }
        }
    }

    fn connect(&self, party: usize, to: SocketAddr) -> Conn {
        let place = &self.places[party];
        let connected = match place.captured {
            None => {
                let mut atlas = lock(&self.atlas);
                let (from, to) = (atlas.ours(place.ip), atlas.door(to));
                connect(from, to)
            }
            Some(sidecar) => pair().map(|(ours, theirs, port)| {
                let _ = self.shards[sidecar].send(Command::Adopt {
                    proxy: PROXY,
                    stream: theirs,
                    entry: Entry::Outbound,
                    peer: SocketAddr::new(place.ip, port),
                    original_dst: to,
                });
                ours
            }),
        };
        match connected {
            Ok(stream) => {
                let local = SocketAddr::new(place.ip, 0);
                Conn::new(Some(stream), LinkEvent::Connected { local }, None)
            }
            Err(error) => {
                let cause = match error.kind() {
                    ErrorKind::ConnectionRefused => CloseCause::Refused,
                    _ => CloseCause::Unreachable,
                };
                Conn::new(None, LinkEvent::Closed(cause), Some(cause))
            }
        }
    }

    /// Whether something happened.
    fn turn(&mut self) -> bool {
        let mut happened = false;
        for party in 0..self.places.len() {
            let place = &mut self.places[party];
            for at in 0..place.listeners.len() {
                let (listener, address) = &place.listeners[at];
                while let Ok((stream, peer)) = listener.accept() {
                    let _ = stream.set_nonblocking(true);
                    let event = LinkEvent::Accepted {
                        entry: Entry::Inbound,
                        peer: lock(&self.atlas).theirs(peer),
                        original_dst: *address,
                    };
                    let link = LinkId::accepted(place.accepted, 1);
                    place.accepted += 1;
                    place
                        .conns
                        .insert(link, Conn::new(Some(stream), event, None));
                }
            }
            let links: Vec<LinkId> = self.places[party].conns.keys().copied().collect();
            for link in links {
                loop {
                    let place = &mut self.places[party];
                    let event = place.conns.get_mut(&link).and_then(Conn::step);
                    let Some(event) = event else { break };
                    happened = true;
                    if matches!(event, LinkEvent::Closed(_)) {
                        place.conns.remove(&link);
                    }
                    let mut out = Vec::new();
                    place.party.on(link, event, &mut out);
                    self.obey(party, out);
                }
            }
        }
        if happened {
            self.busy = StdInstant::now();
        }
        happened
    }
}

fn connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect(&to.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Both ends of a connection, and the port of the first.
fn pair() -> io::Result<(TcpStream, TcpStream, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let port = ours.local_addr()?.port();
    loop {
        let (theirs, from) = listener.accept()?;
        if from.port() == port {
            ours.set_nonblocking(true)?;
            return Ok((ours, theirs, port));
        }
    }
}

/// What the wall clock of the system shows.
pub(super) fn wall() -> UnixTime {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    UnixTime(u64::try_from(since.as_millis()).unwrap_or_default())
}

impl Stage for Real {
    fn now(&self) -> Now {
        let since = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or_default();
        Now {
            at: Instant(since),
            wall: wall(),
        }
    }

    fn clock(&self) -> Arc<dyn TimeProvider> {
        Arc::new(DefaultTimeProvider)
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn step(&self) -> Duration {
        Duration::from_millis(10)
    }

    fn lag(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn add_party(
        &mut self,
        party: Party,
        ip: IpAddr,
        captured: Option<usize>,
    ) -> Result<usize, String> {
        self.places.push(Place {
            party,
            ip,
            captured,
            listeners: Vec::new(),
            conns: BTreeMap::new(),
            accepted: 0,
        });
        Ok(self.places.len() - 1)
    }

    fn add_sidecar(
        &mut self,
        ip: IpAddr,
        svid: Arc<Svid>,
        snapshot: Arc<Snapshot>,
        doors: &[SocketAddr],
    ) -> Result<usize, String> {
        let number = self.shards.len();
        let doors = doors
            .iter()
            .map(|door| lock(&self.atlas).listen(*door))
            .collect::<Result<Vec<_>, _>>()?;
        let (atlas, report) = (Arc::clone(&self.atlas), self.report.clone());
        let shard = spawn_shard(format!("sidecar {ip}"), None, move || {
            let clock = Clock::start();
            let proxy = Proxy::new([number as u8 + 1; 32], Crypto::production(), clock.now());
            let machine = Checked::new(Translated {
                machine: Inspected::new(proxy),
                atlas,
            });
            let sink = move |_, record: Box<Record>| drop(report.send((number, *record)));
            let mut driver = Driver::new(clock, Box::new(sink));
            let proxy = driver.add(machine);
            for input in [Input::Svid(svid), Input::Snapshot(snapshot)] {
                driver.input(proxy, input);
            }
            for door in doors {
                driver.listen(proxy, door, Entry::Inbound, Destination::Local)?;
            }
            Ok(driver)
        });
        self.shards.push(shard.map_err(|error| error.to_string())?);
        Ok(number)
    }

    fn listen(&mut self, party: usize, address: SocketAddr) -> Result<(), String> {
        let listener = lock(&self.atlas).listen(address)?;
        let unblocked = listener.set_nonblocking(true);
        unblocked.map_err(|error| error.to_string())?;
        self.places[party].listeners.push((listener, address));
        Ok(())
    }

    fn act(
        &mut self,
        party: usize,
        act: &mut dyn FnMut(&mut Party, &mut Vec<(LinkId, LinkCommand)>),
    ) {
        let mut out = Vec::new();
        act(&mut self.places[party].party, &mut out);
        self.obey(party, out);
    }

    fn settle(&mut self) {
        let end = StdInstant::now() + PATIENCE;
        while self.busy.elapsed() < QUIET && StdInstant::now() < end {
            if !self.turn() {
                thread::sleep(NAP);
            }
        }
    }

    fn pass(&mut self, span: Duration) {
        let end = StdInstant::now() + span;
        while StdInstant::now() < end {
            if !self.turn() {
                thread::sleep(NAP);
            }
        }
    }

    fn take_records(&mut self) -> Vec<(usize, Record)> {
        self.records.try_iter().collect()
    }

    fn connects(&self, _: usize) -> Result<u64, String> {
        Err("links are not counted over sockets".into())
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for shard in &self.shards {
            shard.send(Command::Stop);
        }
        for shard in self.shards.drain(..) {
            let ended = shard.join();
            if let (Err(error), false) = (ended, thread::panicking()) {
                panic!("a sidecar ended by itself: {error}");
            }
        }
    }
}

impl fmt::Debug for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Real")
            .field("shards", &self.shards.len())
            .field("places", &self.places.len())
            .finish_non_exhaustive()
    }
}
