//! The loop of one shard.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use glommio::timer::Timer;
use meshward_core::clock::Instant;
use meshward_core::id::Key;
use meshward_core::link::{Entry, LinkEvent};
use meshward_core::machine::{Machine, step};
use meshward_core::proxy::{Action, Input};
use meshward_core::telemetry::Record;
use socket2::Socket;

use crate::clock::Clock;
use crate::limits::{ACCEPT_BACKOFF, BEAT, EVENTS_PER_TURN, QUIET_AFTER};
use crate::links::Links;
use crate::listen::{Destination, Listener, is_the_callers};
use crate::remote::{Bell, Command, Remote};
use crate::ring::{Completion, Op, Ring, Sleeper, Who};

/// One machine of one driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyId(pub u32);

/// Where facts go. A closure that takes records is one.
pub trait Sink {
    /// A machine reported a record. Called on the shard's thread: buffer, do not block.
    fn record(&mut self, proxy: ProxyId, record: Box<Record>);

    /// A listener stopped accepting for want of descriptors or memory, and will try again; said once until it works again.
    fn accept_failed(&mut self, proxy: ProxyId, listener: SocketAddr, error: &io::Error) {
        let _ = (proxy, listener, error);
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
}

/// Owns the machines of one shard and all their sockets.
pub struct Driver<M> {
    clock: Clock,
    sink: Box<dyn Sink>,
    proxies: Vec<Proxy<M>>,
    listeners: Vec<Option<Listener>>,
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
    /// No deadline lies before it.
    due: Option<Instant>,
    pace: Pace,
    ending: Ending,
}

/// How the driver waits.
#[derive(Debug, Default)]
struct Pace {
    /// Which beat runs; `None`: none, the driver sleeps when it has nothing to do.
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
    deadline: Option<Instant>,
}

impl<M: Machine<Input = Input, Action = Action>> Driver<M> {
    pub fn new(clock: Clock, sink: Box<dyn Sink>) -> Self {
        let (remote, commands) = mpsc::channel();
        Self {
            clock,
            sink,
            proxies: Vec::new(),
            listeners: Vec::new(),
            knocking: Vec::new(),
            links: Links::default(),
            commands,
            remote,
            bell: Arc::default(),
            rung: true,
            ring: None,
            due: None,
            pace: Pace::default(),
            ending: Ending::No,
        }
    }

    /// Adds a machine; its deadline counts from here on.
    pub fn add(&mut self, machine: M) -> ProxyId {
        let id = ProxyId(u32::try_from(self.proxies.len()).expect("fewer than 2^32 proxies"));
        let deadline = machine.poll_timeout().map(|d| d.at);
        self.proxies.push(Proxy { machine, deadline });
        self.links.add_proxy();
        self.note_deadline(deadline);
        id
    }

    /// Opens a door of `proxy`: what comes in by it is `Accepted` with `entry`.
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
        assert!(
            (proxy.0 as usize) < self.proxies.len(),
            "a door belongs to a proxy of its driver"
        );
        let listener = Listener::new(proxy, listener, entry, destination)?;
        let free = self.listeners.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.listeners.len());
        if free.is_none() {
            self.listeners.push(None);
        }
        self.listeners[slot] = Some(listener);
        self.knocking
            .push(u32::try_from(slot).expect("fewer than 2^32 listeners"));
        Ok(())
    }

    /// Tells a machine something before, or between, its links' events.
    pub fn input(&mut self, proxy: ProxyId, input: Input) {
        self.links.inputs.push_back((proxy, input));
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
        let sleeper = ring.sleeper()?;
        ring.bell(self.bell.open()?);
        let done = self.drive(&mut ring, &sleeper).await;
        drop(ring);
        self.links.drop_all();
        self.listeners.clear();
        sleeper.close().await?;
        done
    }

    async fn drive(&mut self, ring: &mut Ring, sleeper: &Sleeper) -> io::Result<()> {
        loop {
            let turn = self.turn(ring);
            if turn == Turn::Over {
                return Ok(());
            }
            self.pace(ring);
            if std::mem::take(&mut self.pace.due) {
                ring.turn(false)?;
                let_others_run().await;
            } else if turn == Turn::More {
                ring.turn(false)?;
            } else if self.pace.beat.is_some() {
                ring.turn(true)?;
            } else {
                self.sleep(ring, sleeper).await?;
            }
        }
    }

    fn turn(&mut self, ring: &mut Ring) -> Turn {
        self.links.stats.turns += 1;
        self.clock.refresh();
        if std::mem::take(&mut self.rung) {
            self.bell.look();
            self.take_commands();
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

    /// Sleeps as a task of the executor until something completes.
    async fn sleep(&mut self, ring: &mut Ring, sleeper: &Sleeper) -> io::Result<()> {
        self.set_alarm(ring);
        ring.turn(false)?;
        if ring.may_sleep() {
            sleeper.sleep().await?;
        }
        ring.is_awake();
        ring.turn(false)
    }

    /// Sees to it that the ring wakes us at the deadline; an alarm that is set for earlier will do.
    fn set_alarm(&mut self, ring: &mut Ring) {
        let Some(due) = self.due else { return };
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
            Completion::Received { link, done, bytes } => {
                self.links.received(ring, link, done, bytes)
            }
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
                        self.sink.accept_failed(proxy, local, &e);
                    }
                }
                Command::CloseListeners(proxy) => self.close_listeners(|l| l.proxy == proxy),
                Command::Drain { grace } => {
                    self.close_listeners(|_| true);
                    for proxy in 0..self.proxies.len() {
                        self.input(ProxyId(proxy as u32), Input::Drain { grace });
                    }
                    self.ending = Ending::WhenNoLinkIsLeft;
                }
                Command::Stop => self.ending = Ending::Now,
                Command::Run(run) => run(self),
            }
        }
    }

    /// Gives machines whose time has come their `Tick`.
    fn tick(&mut self) {
        let Some(due) = self.due else { return };
        let now = self.clock.now().at;
        if now < due {
            return;
        }
        for (proxy, i) in self.proxies.iter_mut().zip(0..) {
            if proxy.deadline.take_if(|at| *at <= now).is_some() {
                self.links.inputs.push_back((ProxyId(i), Input::Tick));
            }
        }
        for (listener, i) in self.listeners.iter_mut().zip(0..) {
            if let Some(listener) = listener
                && listener.retry.take_if(|at| *at <= now).is_some()
            {
                self.knocking.push(i);
            }
        }
        let machines = self.proxies.iter().filter_map(|p| p.deadline);
        let retries = self.listeners.iter().flatten().filter_map(|l| l.retry);
        self.due = machines.chain(retries).min();
    }

    fn note_deadline(&mut self, deadline: Option<Instant>) {
        if let Some(at) = deadline
            && self.due.is_none_or(|due| at < due)
        {
            self.due = Some(at);
        }
    }

    fn is_over(&self, idle: bool) -> bool {
        match self.ending {
            Ending::No => false,
            Ending::WhenNoLinkIsLeft => {
                idle && self.links() == 0 && self.listeners.iter().all(Option::is_none)
            }
            Ending::Now => true,
        }
    }

    /// One input, all its actions, and the operations that they start.
    fn feed(&mut self, ring: &mut Ring, proxy: ProxyId, input: Input) {
        let Some(Proxy { machine, deadline }) = self.proxies.get_mut(proxy.0 as usize) else {
            return;
        };
        let (links, sink) = (&mut self.links, &mut self.sink);
        let next = step(machine, input, self.clock.now(), |action| match action {
            Action::Link(id, command) => links.obey(ring, proxy, id, command),
            Action::Report(record) => sink.record(proxy, record),
        });
        links.drive_touched(ring);
        *deadline = next.map(|d| d.at);
        let next = *deadline;
        self.note_deadline(next);
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
                self.listeners[i] = None;
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
        listener.retry = Some(retry);
        self.links.stats.accept_failures += 1;
        if !std::mem::replace(&mut listener.reported, true)
            && let Ok(local) = listener.local_addr()
        {
            self.sink.accept_failed(listener.proxy, local, &e);
        }
        self.note_deadline(Some(retry));
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
        if let Some(id) = self.links.add_accepted(caller.socket, proxy) {
            let event = LinkEvent::Accepted {
                entry,
                peer: caller.peer,
                original_dst: caller.original_dst,
            };
            self.links.link_event(proxy, id, event);
        }
    }

    /// What waits in a backlog has a connection as far as its peer knows, so it is taken in before the door closes.
    fn close_listeners(&mut self, which: impl Fn(&Listener) -> bool) {
        for i in 0..self.listeners.len() {
            let Some(listener) = self.listeners[i].as_mut() else {
                continue;
            };
            if listener.closing || !which(listener) {
                continue;
            }
            let waiting = listener.close();
            let accepting = listener.accepting;
            for socket in waiting {
                self.admit(i, socket);
            }
            if !accepting {
                self.listeners[i] = None;
            }
        }
    }
}

/// A pass of the executor: its other tasks, its timers and its own rings.
async fn let_others_run() {
    let executor = glommio::executor();
    if executor.need_preempt() {
        executor.yield_task_queue_now().await;
    } else {
        Timer::new(Duration::from_micros(1)).await;
    }
}

impl<M> fmt::Debug for Driver<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("proxies", &self.proxies.len())
            .field("ending", &self.ending)
            .field("stats", &self.links.stats)
            .finish_non_exhaustive()
    }
}
