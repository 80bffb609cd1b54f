//! The loop of one shard.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use meshward_core::clock::Instant;
use meshward_core::id::{Key, LinkId, Table};
use meshward_core::link::{CloseCause, Entry, LinkCommand, LinkEvent};
use meshward_core::machine::{Machine, step};
use meshward_core::proxy::{Action, Input};
use meshward_core::sync::Reader;
use meshward_core::telemetry::Record;
use meshward_core::telemetry::levels::Scope;
use tokio::net::TcpStream;
use tokio::task::coop;
use tokio::time::{Sleep, sleep_until};

use crate::buffers::Buffers;
use crate::clock::Clock;
use crate::deadlines::{Deadlines, Due, Sleeper};
use crate::limits::{ACCEPT_BACKOFF, ACCEPTS_PER_TURN, EVENTS_PER_TURN, LISTEN_BACKLOG};
use crate::link::{Link, Served};
use crate::listen::{self, Caller, Destination, Listener};
use crate::remote::{Command, Remote};
use crate::wake::{Ready, Token};

/// One machine of one driver, numbered from 0 in the order of [`Driver::add`]. No number is ever given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyId(pub u32);

/// Where facts go. A closure that takes records is one.
pub trait Sink {
    /// A machine reported a record. Called on the shard's thread: buffer, do not block.
    fn record(&mut self, proxy: ProxyId, record: Box<Record>);

    /// A listener rests for want of descriptors or memory, said once until it works again; or it could not be added.
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
    work: Work,
    commands: mpsc::Receiver<Command<M>>,
    remote: mpsc::Sender<Command<M>>,
    /// Taken from the ready list; empty between turns.
    woken: Vec<Token>,
    /// There may be commands, or something new in what is followed.
    rung: bool,
    /// What the `Sleep` is set to; `None`: it rang.
    armed: Option<Instant>,
    ending: Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    WhenNoLinkIsLeft,
    Now,
}

struct Proxy<M> {
    machine: M,
    links: Links,
    due: Due,
    /// It stands in the driver's list of those that leave.
    leaving: bool,
}

/// The links of one proxy.
#[derive(Default)]
struct Links {
    accepted: Table<Door, Box<Link>>,
    opened: Table<LinkId, Box<Link>>,
}

/// What waits to be done, and what it is done with.
struct Work {
    /// Fed to machines in this order, before anything is read.
    inputs: VecDeque<(ProxyId, Input)>,
    /// Sockets to serve, each once.
    queue: VecDeque<Token>,
    /// Links that got something to send from the last input.
    sending: Vec<LinkId>,
    buffers: Buffers,
    ready: Arc<Ready>,
    /// Links of all proxies.
    open: usize,
    stats: Stats,
}

/// The ids that a shell gives out: odd ones.
#[derive(Clone, Copy, Debug)]
struct Door(LinkId);

impl Key for Door {
    fn new(slot: u32, generation: u32) -> Self {
        Self(LinkId::accepted(slot, generation))
    }
    fn slot(self) -> u32 {
        self.0.slot()
    }
    fn generation(self) -> u32 {
        self.0.generation()
    }
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
            work: Work {
                inputs: VecDeque::new(),
                queue: VecDeque::new(),
                sending: Vec::new(),
                buffers: Buffers::default(),
                ready: Arc::new(Ready::default()),
                open: 0,
                stats: Stats::default(),
            },
            commands,
            remote,
            woken: Vec::new(),
            rung: true,
            armed: None,
            ending: Ending::No,
        }
    }

    /// Adds a machine; its deadline counts from here on.
    pub fn add(&mut self, machine: M) -> ProxyId {
        let id = ProxyId(u32::try_from(self.proxies.len()).expect("fewer than 2^32 proxies"));
        let at = machine.poll_timeout().map(|d| d.at);
        let mut proxy = Box::new(Proxy {
            machine,
            links: Links::default(),
            due: Due::default(),
            leaving: false,
        });
        self.deadlines.set(&mut proxy.due, Sleeper::Proxy(id), at);
        self.proxies.push(Some(proxy));
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

    /// Opens a door of `proxy`: what comes in by it is `Accepted` with `entry`. Must be called within the driver's runtime, as
    /// `setup` of [`spawn_shard`](crate::spawn_shard) is. Fails with `NotFound` if `proxy` is not here or about to go.
    pub fn listen(
        &mut self,
        proxy: ProxyId,
        listener: std::net::TcpListener,
        entry: Entry,
        destination: Destination,
    ) -> io::Result<()> {
        self.host(proxy)?;
        let free = self.free_listeners.last().copied();
        let slot = free.map_or(self.listeners.len(), |slot| slot as usize);
        let token = Token::Listener(u32::try_from(slot).expect("fewer than 2^32 listeners"));
        let waker = self.work.ready.waker(token);
        let listener = Listener::new(proxy, listener, entry, destination, waker)?;
        if self.free_listeners.pop().is_none() {
            self.listeners.push(None);
        }
        self.listeners[slot] = Some(listener);
        self.work.queue.push_back(token);
        Ok(())
    }

    /// Makes a link of a connection that somebody else accepted: it is `Accepted` with exactly these addresses. What the peer
    /// has sent and nobody has read comes with the first reads. Must be called within the driver's runtime.
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
        let stream = listen::adopted(stream)?;
        let Some(Some(host)) = self.proxies.get_mut(proxy.0 as usize) else {
            return Ok(());
        };
        self.work.stats.accepted += 1;
        let id = host.links.add_accepted(stream, proxy, &mut self.work);
        let event = LinkEvent::Accepted {
            entry,
            peer,
            original_dst,
        };
        self.work.link_event(proxy, id, event);
        Ok(())
    }

    /// Tells a machine something before, or between, its links' events.
    pub fn input(&mut self, proxy: ProxyId, input: Input) {
        self.work.inputs.push_back((proxy, input));
    }

    /// Looks at a published value whenever somebody rang, and tells `proxy` what came in the words of `inputs`. Who publishes
    /// calls [`Remote::wake`].
    pub fn follow<T: 'static>(
        &mut self,
        proxy: ProxyId,
        mut reader: Reader<T>,
        inputs: fn(&T) -> Vec<Input>,
    ) {
        let look = move || reader.changed().map(|value| inputs(&value));
        self.followed.push((proxy, Box::new(look)));
    }

    /// A sender of commands.
    pub fn remote(&self) -> Remote<M> {
        Remote {
            commands: self.remote.clone(),
            ready: Arc::clone(&self.work.ready),
        }
    }

    pub fn stats(&self) -> Stats {
        self.work.stats
    }

    /// Links that are open or being opened, of all proxies.
    pub fn links(&self) -> usize {
        self.work.open
    }

    /// Machines that are here, those that are about to go included.
    pub fn proxies(&self) -> usize {
        self.proxies.iter().flatten().count()
    }

    /// Runs until [`Command::Stop`], or until [`Command::Drain`] is done. Whoever awaits it must be on a current-thread runtime
    /// with I/O and time.
    pub async fn run(&mut self) {
        let mut sleep = pin!(sleep_until(tokio::time::Instant::now()));
        // Fairness is ours: a turn is bounded, and a socket that tokio holds back would only be asked again.
        coop::unconstrained(poll_fn(|cx| self.turn(cx, sleep.as_mut()))).await;
    }

    fn turn(&mut self, cx: &mut Context<'_>, sleep: Pin<&mut Sleep>) -> Poll<()> {
        self.work.stats.turns += 1;
        self.clock.refresh();
        self.take_woken(cx);
        if std::mem::take(&mut self.rung) {
            self.take_commands();
            self.look_at_published();
        }
        self.ring(&sleep);
        let mut idle = false;
        for _ in 0..EVENTS_PER_TURN {
            if let Some((proxy, input)) = self.work.inputs.pop_front() {
                self.feed(proxy, input);
            } else if let Some(token) = self.work.queue.pop_front() {
                self.serve(token);
            } else {
                idle = true;
                break;
            }
        }
        self.bury();
        if self.is_over(idle) {
            return Poll::Ready(());
        }
        if !self.arm(cx, sleep) || !idle {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn take_woken(&mut self, cx: &Context<'_>) {
        let mut woken = std::mem::take(&mut self.woken);
        self.rung |= self.work.ready.take(cx.waker(), &mut woken);
        for token in woken.drain(..) {
            match token {
                Token::Listener(_) => self.work.queue.push_back(token),
                Token::Link(proxy, id) => {
                    if let Some(link) = self.link(proxy, id) {
                        link.woken();
                        let queued = std::mem::replace(&mut link.queued, true);
                        if !queued {
                            self.work.queue.push_back(token);
                        }
                    }
                }
            }
        }
        self.woken = woken;
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
                self.work.inputs.push_back((ProxyId(id), drain));
            }
        }
        self.ending = Ending::WhenNoLinkIsLeft;
    }

    fn look_at_published(&mut self) {
        self.work.stats.looks += 1;
        for (proxy, look) in &mut self.followed {
            for input in look().into_iter().flatten() {
                self.work.inputs.push_back((*proxy, input));
            }
        }
    }

    /// Gives machines whose time has come their `Tick`.
    fn ring(&mut self, sleep: &Sleep) {
        let now = self.clock.now().at;
        if sleep.is_elapsed() || self.armed.is_some_and(|armed| armed <= now) {
            self.armed = None;
        }
        while let Some(sleeper) = self.deadlines.pop(now) {
            match sleeper {
                Sleeper::Proxy(id) => {
                    if let Some(Some(proxy)) = self.proxies.get_mut(id.0 as usize)
                        && self.deadlines.wake(&mut proxy.due, sleeper, now)
                    {
                        self.work.inputs.push_back((id, Input::Tick));
                    }
                }
                Sleeper::Listener(slot) => {
                    if let Some(Some(listener)) = self.listeners.get_mut(slot as usize)
                        && self.deadlines.wake(&mut listener.rest, sleeper, now)
                    {
                        self.work.queue.push_back(Token::Listener(slot));
                    }
                }
            }
        }
    }

    /// Sets the `Sleep`; `false`: it is due already.
    fn arm(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> bool {
        let Some(at) = self.deadlines.first() else {
            return true;
        };
        if self.armed.is_some_and(|armed| armed <= at) {
            return true;
        }
        self.armed = Some(at);
        sleep.as_mut().reset(self.clock.to_tokio(at));
        sleep.poll(cx).is_pending()
    }

    /// Drops machines that were to go and have nothing more to hear.
    fn bury(&mut self) {
        if self.leaving.is_empty() || !self.work.inputs.is_empty() {
            return;
        }
        let mut leaving = std::mem::take(&mut self.leaving);
        leaving.retain(|id| {
            let place = &mut self.proxies[id.0 as usize];
            let Some(mut proxy) = place.take_if(|p| p.links.is_empty()) else {
                return true;
            };
            self.deadlines.forget(&mut proxy.due, Sleeper::Proxy(*id));
            self.followed.retain(|(of, _)| of != id);
            self.sink.removed(*id);
            false
        });
        self.leaving = leaving;
    }

    fn is_over(&self, idle: bool) -> bool {
        match self.ending {
            Ending::No => false,
            Ending::WhenNoLinkIsLeft => idle && self.work.open == 0,
            Ending::Now => true,
        }
    }

    /// One input, all its actions, and the bytes that they send.
    fn feed(&mut self, proxy: ProxyId, input: Input) {
        let Some(Some(host)) = self.proxies.get_mut(proxy.0 as usize) else {
            return;
        };
        let Proxy {
            machine,
            links,
            due,
            ..
        } = &mut **host;
        let (work, sink) = (&mut self.work, &mut self.sink);
        let next = step(machine, input, self.clock.now(), |action| match action {
            Action::Link(id, command) => links.obey(proxy, id, command, work),
            Action::Report(record) => sink.record(proxy, record),
            Action::Note(link, scope, what) => sink.note(proxy, link, scope, &what),
        });
        links.transmit(proxy, work);
        let at = next.map(|d| d.at);
        self.deadlines.set(due, Sleeper::Proxy(proxy), at);
    }

    fn serve(&mut self, token: Token) {
        match token {
            Token::Link(proxy, id) => {
                if let Some(Some(host)) = self.proxies.get_mut(proxy.0 as usize) {
                    host.links.serve(proxy, id, &mut self.work);
                }
            }
            Token::Listener(i) => {
                if self.accept(i as usize, ACCEPTS_PER_TURN, Listener::accept) {
                    self.work.queue.push_back(token);
                }
            }
        }
    }

    /// Takes at most `limit` connections; `true`: there may be more.
    fn accept(
        &mut self,
        index: usize,
        limit: usize,
        accept: impl Fn(&Listener) -> Poll<io::Result<Caller>>,
    ) -> bool {
        let Some(Some(listener)) = self.listeners.get_mut(index) else {
            return false;
        };
        let (proxy, entry) = (listener.proxy, listener.entry);
        let Some(Some(host)) = self.proxies.get_mut(proxy.0 as usize) else {
            return false;
        };
        if listener.rest.is_set() {
            return false;
        }
        for _ in 0..limit {
            let caller = match accept(listener) {
                Poll::Pending => return false,
                Poll::Ready(Ok(caller)) => caller,
                Poll::Ready(Err(e)) => {
                    self.work.stats.accept_failures += 1;
                    let retry = self.clock.now().at.after(ACCEPT_BACKOFF);
                    let sleeper = Sleeper::Listener(index as u32);
                    self.deadlines.set(&mut listener.rest, sleeper, Some(retry));
                    if !std::mem::replace(&mut listener.reported, true)
                        && let Ok(local) = listener.local_addr()
                    {
                        self.sink.listener_failed(proxy, local, &e);
                    }
                    return false;
                }
            };
            listener.reported = false;
            self.work.stats.accepted += 1;
            let id = host
                .links
                .add_accepted(caller.stream, proxy, &mut self.work);
            let event = LinkEvent::Accepted {
                entry,
                peer: caller.peer,
                original_dst: caller.original_dst,
            };
            self.work.link_event(proxy, id, event);
        }
        true
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
        self.accept(slot, LISTEN_BACKLOG as usize, Listener::accept_last);
        if let Some(mut listener) = self.listeners[slot].take() {
            let name = slot as u32;
            self.deadlines
                .forget(&mut listener.rest, Sleeper::Listener(name));
            self.free_listeners.push(name);
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

    fn link(&mut self, proxy: ProxyId, id: LinkId) -> Option<&mut Link> {
        self.proxy(proxy)?.links.get_mut(id)
    }
}

impl Links {
    fn is_empty(&self) -> bool {
        self.accepted.is_empty() && self.opened.is_empty()
    }

    fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        if id.is_accepted() {
            self.accepted.get_mut(Door(id)).map(|link| &mut **link)
        } else {
            self.opened.get_mut(id).map(|link| &mut **link)
        }
    }

    fn remove(&mut self, id: LinkId, work: &mut Work) -> Option<Box<Link>> {
        let link = if id.is_accepted() {
            self.accepted.remove(Door(id))
        } else {
            self.opened.remove_at(id)
        };
        work.open -= usize::from(link.is_some());
        link
    }

    fn add_accepted(&mut self, stream: TcpStream, proxy: ProxyId, work: &mut Work) -> LinkId {
        work.open += 1;
        let Door(id) = self.accepted.insert(Box::new(Link::accepted(stream)));
        if let Some(link) = self.get_mut(id) {
            link.set_waker(work.ready.waker(Token::Link(proxy, id)));
            link.queued = true;
            work.queue.push_back(Token::Link(proxy, id));
        }
        id
    }

    fn add_opened(&mut self, mut link: Link, proxy: ProxyId, id: LinkId, work: &mut Work) {
        link.set_waker(work.ready.waker(Token::Link(proxy, id)));
        link.queued = true;
        let new = self.opened.insert_at(id, Box::new(link));
        assert!(new, "a machine opens each link once");
        work.open += 1;
        work.queue.push_back(Token::Link(proxy, id));
    }

    /// Does what a machine wants. What comes of it waits in `work` until the machine is drained.
    fn obey(&mut self, proxy: ProxyId, id: LinkId, command: LinkCommand, work: &mut Work) {
        if let LinkCommand::Connect { to, from } = command {
            assert!(!id.is_accepted(), "a machine opens even links");
            work.stats.connects += 1;
            match Link::connect(to, from) {
                Ok(link) => self.add_opened(link, proxy, id, work),
                Err(cause) => work.link_event(proxy, id, LinkEvent::Closed(cause)),
            }
            return;
        }
        let Some(link) = self.get_mut(id) else {
            work.stats.stale_commands += 1;
            return;
        };
        match command {
            LinkCommand::Read { at_most } => {
                if link.grant(at_most) && !link.queued {
                    link.queued = true;
                    work.queue.push_back(Token::Link(proxy, id));
                }
                return;
            }
            LinkCommand::Send { bytes, ack } => link.send(bytes, ack, &mut work.buffers),
            LinkCommand::Finish => link.finish(),
            LinkCommand::Reset => {
                if let Some(link) = self.remove(id, work) {
                    link.reset();
                    work.link_event(proxy, id, LinkEvent::Closed(CloseCause::Local));
                }
                return;
            }
            LinkCommand::Connect { .. } => return,
        }
        if !link.sending {
            link.sending = true;
            work.sending.push(id);
        }
    }

    /// Writes what the last input gave to send.
    fn transmit(&mut self, proxy: ProxyId, work: &mut Work) {
        let mut sending = std::mem::take(&mut work.sending);
        for id in sending.drain(..) {
            let Some(link) = self.get_mut(id) else {
                continue;
            };
            link.sending = false;
            let inputs = &mut work.inputs;
            let over = link.transmit(&mut work.buffers, |event| {
                inputs.push_back((proxy, Input::Link(id, event)));
            });
            if let Some(cause) = over {
                self.end(proxy, id, cause, work);
            }
        }
        work.sending = sending;
    }

    fn serve(&mut self, proxy: ProxyId, id: LinkId, work: &mut Work) {
        let Some(link) = self.get_mut(id) else { return };
        link.queued = false;
        let inputs = &mut work.inputs;
        let served = link.serve(&mut work.buffers, |event| {
            inputs.push_back((proxy, Input::Link(id, event)));
        });
        match served {
            Served::Waits => {}
            Served::Again => {
                link.queued = true;
                work.queue.push_back(Token::Link(proxy, id));
            }
            Served::Over(cause) => self.end(proxy, id, cause, work),
        }
    }

    fn end(&mut self, proxy: ProxyId, id: LinkId, cause: CloseCause, work: &mut Work) {
        self.remove(id, work);
        work.link_event(proxy, id, LinkEvent::Closed(cause));
    }
}

impl Work {
    fn link_event(&mut self, proxy: ProxyId, id: LinkId, event: LinkEvent) {
        self.inputs.push_back((proxy, Input::Link(id, event)));
    }
}

impl<M> fmt::Debug for Driver<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("proxies", &self.proxies.iter().flatten().count())
            .field("ending", &self.ending)
            .field("stats", &self.work.stats)
            .finish_non_exhaustive()
    }
}
