//! The loop of one shard.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use meshward_core::clock::Instant;
use meshward_core::id::{Key, LinkId};
use meshward_core::link::{Entry, LinkEvent};
use meshward_core::machine::{Machine, step};
use meshward_core::proxy::{Action, Input};
use meshward_core::sync::Reader;
use meshward_core::telemetry::Record;
use meshward_core::telemetry::levels::Scope;
use socket2::Socket;

use crate::clock::Clock;
use crate::deadlines::{Deadlines, Due, Sleeper};
use crate::limits::{ACCEPT_BACKOFF, BEAT, EVENTS_PER_TURN, QUIET_AFTER};
use crate::links::Links;
use crate::listen::{self, Destination, Listener, is_the_callers};
use crate::remote::{Bell, Command, Remote};
use crate::ring::{Completion, Op, Ring, Who};

/// One machine of one driver, numbered from 0 in the order of [`Driver::add`]. No number is ever given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyId(pub u32);

/// Where facts go. A closure that takes records is one.
pub trait Sink {
    /// A machine reported a record. Called on the shard's thread: buffer, do not block.
    fn record(&mut self, proxy: ProxyId, record: Box<Record>);

    /// A listener stopped accepting for want of descriptors or memory, and will try again; said once until it works again.
    fn listener_failed(&mut self, proxy: ProxyId, listener: SocketAddr, error: &io::Error) {
        let _ = (proxy, listener, error);
    }

    /// A machine said why a link ended before its time, or how it decided.
    fn note(&mut self, proxy: ProxyId, link: LinkId, scope: Scope, what: &str) {
        let _ = (proxy, link, scope, what);
    }

    /// A proxy that was to be removed has let go of its last link, and its machine is gone.
    fn removed(&mut self, proxy: ProxyId) {
        let _ = proxy;
    }
}

impl<F: FnMut(ProxyId, Box<Record>)> Sink for F {
    fn record(&mut self, proxy: ProxyId, record: Box<Record>) {
        self(proxy, record);
    }
}

/// What a driver counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections that came in; one that was gone before it could be looked at is counted, and no machine hears of it.
    pub accepted: u64,
    pub connects: u64,
    /// Times that a listener had to rest.
    pub accept_failures: u64,
    /// Commands for links that were gone already; some are normal, because links end on both sides.
    pub stale_commands: u64,
    /// Times that the task ran.
    pub turns: u64,
    /// Times that published values were looked at.
    pub looks: u64,
}

/// Asks a published value whether there is a newer one; what to tell the machine then.
type Look = Box<dyn FnMut() -> Option<Vec<Input>>>;

/// Owns the machines of one shard and all their sockets.
pub struct Driver<M> {
    clock: Clock,
    sink: Box<dyn Sink>,
    /// By id; a place that is empty was left for good.
    proxies: Vec<Option<Box<Proxy<M>>>>,
    /// Proxies that go when their last link has gone.
    leaving: Vec<ProxyId>,
    followed: Vec<(ProxyId, Look)>,
    listeners: Vec<Option<Listener>>,
    free_listeners: Vec<u32>,
    deadlines: Deadlines,
    /// Listeners that have to be told to accept.
    knocking: Vec<u32>,
    links: Links,
    commands: mpsc::Receiver<Command<M>>,
    remote: mpsc::Sender<Command<M>>,
    bell: Arc<Bell>,
    /// There may be commands.
    rung: bool,
    /// Made before it runs, taken by [`run`](Self::run).
    ring: Option<Ring>,
    pace: Pace,
    ending: Ending,
}

/// How the driver waits.
#[derive(Debug, Default)]
struct Pace {
    /// Which beat runs; `None`: none, there is no traffic.
    beat: Option<Op>,
    /// Number of the beat that runs or ran last.
    beats: u32,
    /// A beat has come since the executor had its turn.
    due: bool,
    /// Beats in a row that saw no traffic.
    silent: u32,
    /// What `Links::traffic` was at the last look.
    seen: u64,
    /// The alarm that is set, and for when.
    alarm: Option<(Op, Instant)>,
    /// Number of the alarm that was set last.
    alarms: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    WhenNoLinkIsLeft,
    Now,
}

/// What is left after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Something waits to be done.
    More,
    /// All that had come was done.
    Idle,
    Over,
}

struct Proxy<M> {
    machine: M,
    due: Due,
    /// Doors that stand open, or close and may still let somebody in.
    doors: u32,
    /// It stands in the driver's list of those that leave.
    leaving: bool,
}

impl<M: Machine<Input = Input, Action = Action>> Driver<M> {
    pub fn new(clock: Clock, sink: Box<dyn Sink>) -> Self {
        let (remote, commands) = mpsc::channel();
        Self {
            clock,
            sink,
            proxies: Vec::new(),
            leaving: Vec::new(),
            followed: Vec::new(),
            listeners: Vec::new(),
            free_listeners: Vec::new(),
            deadlines: Deadlines::default(),
            knocking: Vec::new(),
            links: Links::default(),
            commands,
            remote,
            bell: Arc::default(),
            rung: true,
            ring: None,
            pace: Pace::default(),
            ending: Ending::No,
        }
    }

    /// Adds a machine; its deadline counts from here on.
    pub fn add(&mut self, machine: M) -> ProxyId {
        let id = ProxyId(u32::try_from(self.proxies.len()).expect("fewer than 2^32 proxies"));
        let at = machine.poll_timeout().map(|d| d.at);
        let mut proxy = Box::new(Proxy {
            machine,
            due: Due::default(),
            doors: 0,
            leaving: false,
        });
        self.deadlines.set(&mut proxy.due, Sleeper::Proxy(id), at);
        self.proxies.push(Some(proxy));
        self.links.add_proxy();
        id
    }

    /// Closes the doors of `proxy`, tells it to drain, and drops its machine when its last link is gone, which
    /// [`Sink::removed`] says. Asked once more, it only tells the machine of the other `grace`.
    pub fn remove(&mut self, proxy: ProxyId, grace: Duration) {
        self.close_listeners(proxy);
        if let Some(found) = self.proxy(proxy) {
            if !std::mem::replace(&mut found.leaving, true) {
                self.leaving.push(proxy);
            }
            self.input(proxy, Input::Drain { grace });
        }
    }

    /// Opens a door of `proxy`: what comes in by it is `Accepted` with `entry`. Fails with `NotFound` if `proxy` is not here or
    /// about to go.
    ///
    /// Copies of `listener` share what happens to it: it becomes a blocking one, and when the door closes nobody can accept by
    /// it any more. Shards that share an address have listeners of their own ([`bind_listener`](crate::bind_listener)).
    pub fn listen(
        &mut self,
        proxy: ProxyId,
        listener: std::net::TcpListener,
        entry: Entry,
        destination: Destination,
    ) -> io::Result<()> {
        self.host(proxy)?;
        let listener = Some(Listener::new(proxy, listener, entry, destination)?);
        let slot = if let Some(slot) = self.free_listeners.pop() {
            self.listeners[slot as usize] = listener;
            slot
        } else {
            self.listeners.push(listener);
            u32::try_from(self.listeners.len() - 1).expect("fewer than 2^32 listeners")
        };
        self.host(proxy)?.doors += 1;
        self.knocking.push(slot);
        Ok(())
    }

    /// Makes a link of a connection that somebody else accepted: it is `Accepted` with exactly these addresses. What the peer
    /// has sent and nobody has read comes with the first reads.
    ///
    /// The stream becomes the driver's alone: the mode of its copies changes with it. It is reset, and an error returned, if the
    /// driver drains or if `proxy` is not here or about to go (`NotFound`).
    pub fn adopt(
        &mut self,
        proxy: ProxyId,
        stream: std::net::TcpStream,
        entry: Entry,
        peer: SocketAddr,
        original_dst: SocketAddr,
    ) -> io::Result<()> {
        if let Err(e) = self.host(proxy) {
            listen::refuse(&stream);
            return Err(e);
        }
        let socket = listen::adopted(stream)?;
        self.links.stats.accepted += 1;
        let id = self.links.add_accepted(socket, proxy);
        let event = LinkEvent::Accepted {
            entry,
            peer,
            original_dst,
        };
        self.links.link_event(proxy, id, event);
        Ok(())
    }

    /// Tells a machine something before, or between, its links' events.
    pub fn input(&mut self, proxy: ProxyId, input: Input) {
        self.links.inputs.push_back((proxy, input));
    }

    /// Looks at a published value whenever somebody rang, and tells `proxy` what came in the words of `inputs`. Who publishes calls
    /// [`Remote::wake`].
    pub fn follow<T: 'static>(
        &mut self,
        proxy: ProxyId,
        mut reader: Reader<T>,
        inputs: fn(&T) -> Vec<Input>,
    ) {
        let look = move || reader.changed().map(|value| inputs(&value));
        self.followed.push((proxy, Box::new(look)));
    }

    fn look_at_published(&mut self) {
        self.links.stats.looks += 1;
        for (proxy, look) in &mut self.followed {
            for input in look().into_iter().flatten() {
                self.links.inputs.push_back((*proxy, input));
            }
        }
    }

    /// A sender of commands.
    pub fn remote(&self) -> Remote<M> {
        Remote {
            commands: self.remote.clone(),
            bell: Arc::clone(&self.bell),
        }
    }

    pub fn stats(&self) -> Stats {
        self.links.stats
    }

    /// Links that are open or being opened, of all proxies.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Machines that are here, those that are about to go included.
    pub fn proxies(&self) -> usize {
        self.proxies.iter().flatten().count()
    }

    /// Makes the ring, on the thread that will run the driver.
    pub(crate) fn open(&mut self) -> io::Result<()> {
        self.ring = Some(Ring::new()?);
        Ok(())
    }

    /// Runs until [`Command::Stop`], or until [`Command::Drain`] is done. Whoever awaits it must be in a glommio executor, and
    /// must do so to the end.
    ///
    /// Fails if a ring cannot be made, or if the kernel refuses to go on with it.
    pub async fn run(&mut self) -> io::Result<()> {
        let mut ring = self.ring.take().map_or_else(Ring::new, Ok)?;
        ring.bell(self.bell.open()?);
        let done = self.drive(&mut ring);
        drop(ring);
        self.links.drop_all();
        self.listeners.clear();
        done
    }

    fn drive(&mut self, ring: &mut Ring) -> io::Result<()> {
        loop {
            let turn = self.turn(ring);
            if turn == Turn::Over {
                return Ok(());
            }
            self.pace(ring);
            let beat_is_due = std::mem::take(&mut self.pace.due);
            let may_wait = turn == Turn::Idle && !beat_is_due;
            if may_wait && self.pace.beat.is_none() {
                self.set_alarm(ring);
            }
            ring.turn(may_wait)?;
        }
    }

    fn turn(&mut self, ring: &mut Ring) -> Turn {
        self.links.stats.turns += 1;
        self.clock.refresh();
        if std::mem::take(&mut self.rung) {
            self.bell.look();
            self.take_commands();
            self.look_at_published();
        }
        self.tick();
        self.knock(ring);
        self.links.drive_starved(ring);
        let mut idle = false;
        for _ in 0..EVENTS_PER_TURN {
            if let Some((proxy, input)) = self.links.inputs.pop_front() {
                self.feed(ring, proxy, input);
            } else if let Some(completion) = ring.next() {
                self.complete(ring, completion);
            } else {
                idle = true;
                break;
            }
        }
        self.bury();
        if self.is_over(idle) {
            Turn::Over
        } else if idle && !self.rung && !self.links.is_starved() && self.knocking.is_empty() {
            Turn::Idle
        } else {
            Turn::More
        }
    }

    /// Starts and stops the beat.
    fn pace(&mut self, ring: &mut Ring) {
        let traffic = self.links.traffic != self.pace.seen;
        if let Some(beat) = self.pace.beat {
            if !self.pace.due {
                return;
            }
            self.links.sweep(ring);
            self.pace.silent = if traffic { 0 } else { self.pace.silent + 1 };
            if self.pace.silent >= QUIET_AFTER {
                ring.cancel(beat);
                self.pace.beat = None;
            }
        } else if traffic {
            self.start_beat(ring);
        }
        self.pace.seen = self.links.traffic;
    }

    fn start_beat(&mut self, ring: &mut Ring) {
        self.pace.silent = 0;
        self.pace.beats = self.pace.beats.wrapping_add(1);
        self.pace.beat = Some(ring.beat(BEAT, self.pace.beats));
    }

    /// Sees to it that the ring wakes us at the deadline; an alarm that is set for earlier will do.
    fn set_alarm(&mut self, ring: &mut Ring) {
        let Some(due) = self.deadlines.first() else {
            return;
        };
        if let Some((alarm, at)) = self.pace.alarm {
            if at <= due {
                return;
            }
            ring.cancel(alarm);
        }
        self.pace.alarms = self.pace.alarms.wrapping_add(1);
        let span = due.since(self.clock.now().at);
        self.pace.alarm = Some((ring.alarm(span, self.pace.alarms), due));
    }

    fn complete(&mut self, ring: &mut Ring, completion: Completion) {
        match completion {
            Completion::Received {
                link,
                done,
                bytes,
                dry,
            } => self.links.received(ring, link, done, bytes, dry),
            Completion::Sent { link, sent, parcel } => self.links.sent(ring, link, sent, parcel),
            Completion::Connected { link, done } => self.links.connected(ring, link, done),
            Completion::Watched { link, broken, last } => {
                self.links.watched(ring, link, broken, last);
            }
            Completion::Accepted {
                listener,
                socket,
                last,
            } => self.accepted(listener, socket, last),
            Completion::Beat { number, last } => {
                if number == self.pace.beats {
                    self.pace.due = true;
                    if last && self.pace.beat.is_some() {
                        self.start_beat(ring);
                    }
                }
            }
            Completion::Alarm { number, rang } => {
                if rang && number == self.pace.alarms {
                    self.pace.alarm = None;
                }
            }
            Completion::Bell => {
                self.rung = true;
                if let Ok(bell) = self.bell.open() {
                    ring.bell(bell);
                }
            }
        }
    }

    fn take_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Input(proxy, input) => self.input(proxy, input),
                Command::Listen {
                    proxy,
                    listener,
                    entry,
                    destination,
                } => {
                    let local = listener.local_addr();
                    if let Err(e) = self.listen(proxy, listener, entry, destination)
                        && let Ok(local) = local
                    {
                        self.sink.listener_failed(proxy, local, &e);
                    }
                }
                Command::Adopt {
                    proxy,
                    stream,
                    entry,
                    peer,
                    original_dst,
                } => {
                    // The peer is told: its connection was reset.
                    let _ = self.adopt(proxy, stream, entry, peer, original_dst);
                }
                Command::CloseListeners(proxy) => self.close_listeners(proxy),
                Command::Remove { proxy, grace } => self.remove(proxy, grace),
                Command::Drain { grace } => self.drain(grace),
                Command::Stop => self.ending = Ending::Now,
                Command::Run(run) => run(self),
            }
        }
    }

    fn drain(&mut self, grace: Duration) {
        for slot in 0..self.listeners.len() {
            self.close_listener(slot);
        }
        for (proxy, id) in self.proxies.iter().zip(0..) {
            if proxy.is_some() {
                let drain = Input::Drain { grace };
                self.links.inputs.push_back((ProxyId(id), drain));
            }
        }
        self.ending = Ending::WhenNoLinkIsLeft;
    }

    /// Gives machines whose time has come their `Tick`.
    fn tick(&mut self) {
        let now = self.clock.now().at;
        while let Some(sleeper) = self.deadlines.pop(now) {
            match sleeper {
                Sleeper::Proxy(id) => {
                    if let Some(Some(proxy)) = self.proxies.get_mut(id.0 as usize)
                        && self.deadlines.wake(&mut proxy.due, sleeper, now)
                    {
                        self.links.inputs.push_back((id, Input::Tick));
                    }
                }
                Sleeper::Listener(slot) => {
                    if let Some(Some(listener)) = self.listeners.get_mut(slot as usize)
                        && self.deadlines.wake(&mut listener.rest, sleeper, now)
                    {
                        self.knocking.push(slot);
                    }
                }
            }
        }
    }

    /// Drops machines that were to go and have nothing more to hear.
    fn bury(&mut self) {
        if self.leaving.is_empty() || !self.links.inputs.is_empty() {
            return;
        }
        let mut leaving = std::mem::take(&mut self.leaving);
        leaving.retain(|id| {
            let place = &mut self.proxies[id.0 as usize];
            let is_done = |p: &mut Box<Proxy<M>>| p.doors == 0 && self.links.has_none(*id);
            let Some(mut proxy) = place.take_if(is_done) else {
                return true;
            };
            self.deadlines.forget(&mut proxy.due, Sleeper::Proxy(*id));
            self.links.remove_proxy(*id);
            self.followed.retain(|(of, _)| of != id);
            self.sink.removed(*id);
            false
        });
        self.leaving = leaving;
    }

    fn is_over(&self, idle: bool) -> bool {
        match self.ending {
            Ending::No => false,
            Ending::WhenNoLinkIsLeft => {
                idle && self.links() == 0 && self.free_listeners.len() == self.listeners.len()
            }
            Ending::Now => true,
        }
    }

    /// One input, all its actions, and the operations that they start.
    fn feed(&mut self, ring: &mut Ring, proxy: ProxyId, input: Input) {
        let Some(Some(host)) = self.proxies.get_mut(proxy.0 as usize) else {
            return;
        };
        let Proxy { machine, due, .. } = &mut **host;
        let (links, sink) = (&mut self.links, &mut self.sink);
        let next = step(machine, input, self.clock.now(), |action| match action {
            Action::Link(id, command) => links.obey(ring, proxy, id, command),
            Action::Report(record) => sink.record(proxy, record),
            Action::Note(link, scope, what) => sink.note(proxy, link, scope, &what),
        });
        links.drive_touched(ring);
        let at = next.map(|d| d.at);
        self.deadlines.set(due, Sleeper::Proxy(proxy), at);
    }

    /// Tells listeners to accept.
    fn knock(&mut self, ring: &mut Ring) {
        for i in std::mem::take(&mut self.knocking) {
            if let Some(Some(listener)) = self.listeners.get_mut(i as usize)
                && !listener.accepting
                && !listener.closing
            {
                listener.accepting = true;
                ring.accept(listener.fd(), Who::new(i, 0));
            }
        }
    }

    fn accepted(&mut self, who: Who, socket: io::Result<OwnedFd>, last: bool) {
        self.links.traffic += 1;
        let i = Key::slot(who) as usize;
        let Some(Some(listener)) = self.listeners.get_mut(i) else {
            return;
        };
        if last {
            listener.accepting = false;
        }
        let failure = match socket {
            Ok(socket) => {
                listener.reported = false;
                self.admit(i, socket.into());
                None
            }
            Err(e) => Some(e).filter(|e| !is_the_callers(e)),
        };
        let Some(Some(listener)) = self.listeners.get_mut(i) else {
            return;
        };
        if listener.closing {
            if last {
                self.drop_listener(i);
            }
            return;
        }
        let Some(e) = failure else {
            if last {
                self.knocking.push(i as u32);
            }
            return;
        };
        let retry = self.clock.now().at.after(ACCEPT_BACKOFF);
        let sleeper = Sleeper::Listener(i as u32);
        self.deadlines.set(&mut listener.rest, sleeper, Some(retry));
        self.links.stats.accept_failures += 1;
        if !std::mem::replace(&mut listener.reported, true)
            && let Ok(local) = listener.local_addr()
        {
            self.sink.listener_failed(listener.proxy, local, &e);
        }
    }

    /// Makes a link of a connection that came in by listener `i`.
    fn admit(&mut self, i: usize, socket: Socket) {
        self.links.stats.accepted += 1;
        let Some(Some(listener)) = self.listeners.get(i) else {
            return;
        };
        let (proxy, entry) = (listener.proxy, listener.entry);
        let Ok(caller) = listener.meet(socket) else {
            return;
        };
        let id = self.links.add_accepted(caller.socket, proxy);
        let event = LinkEvent::Accepted {
            entry,
            peer: caller.peer,
            original_dst: caller.original_dst,
        };
        self.links.link_event(proxy, id, event);
    }

    fn close_listeners(&mut self, proxy: ProxyId) {
        for slot in 0..self.listeners.len() {
            let listener = self.listeners[slot].as_ref();
            if listener.is_some_and(|l| l.proxy == proxy) {
                self.close_listener(slot);
            }
        }
    }

    /// What waits in a backlog has a connection as far as its peer knows, so it is taken in before the door closes.
    fn close_listener(&mut self, slot: usize) {
        let Some(listener) = self.listeners[slot].as_mut().filter(|l| !l.closing) else {
            return;
        };
        let waiting = listener.close();
        let accepting = listener.accepting;
        for socket in waiting {
            self.admit(slot, socket);
        }
        if !accepting {
            self.drop_listener(slot);
        }
    }

    fn drop_listener(&mut self, slot: usize) {
        let Some(mut listener) = self.listeners[slot].take() else {
            return;
        };
        let name = slot as u32;
        self.deadlines
            .forget(&mut listener.rest, Sleeper::Listener(name));
        self.free_listeners.push(name);
        if let Some(proxy) = self.proxy(listener.proxy) {
            proxy.doors -= 1;
        }
    }

    fn proxy(&mut self, id: ProxyId) -> Option<&mut Proxy<M>> {
        self.proxies.get_mut(id.0 as usize)?.as_deref_mut()
    }

    /// A proxy that may still get doors and links.
    fn host(&mut self, id: ProxyId) -> io::Result<&mut Proxy<M>> {
        if self.ending != Ending::No {
            return Err(io::Error::other("the driver drains"));
        }
        self.proxy(id)
            .filter(|proxy| !proxy.leaving)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such proxy"))
    }
}

impl<M> fmt::Debug for Driver<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("proxies", &self.proxies.iter().flatten().count())
            .field("ending", &self.ending)
            .field("stats", &self.links.stats)
            .finish_non_exhaustive()
    }
}
