//! The loop of one shard.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};

use meshward_core::clock::Instant;
use meshward_core::id::{Key, LinkId, Table};
use meshward_core::link::{CloseCause, Entry, LinkCommand, LinkEvent};
use meshward_core::machine::{Machine, step};
use meshward_core::proxy::{Action, Input};
use meshward_core::sync::Reader;
use meshward_core::telemetry::Record;
use tokio::net::TcpStream;
use tokio::task::coop;
use tokio::time::{Sleep, sleep_until};

use crate::buffers::Buffers;
use crate::clock::Clock;
use crate::limits::{ACCEPT_BACKOFF, ACCEPTS_PER_TURN, EVENTS_PER_TURN, LISTEN_BACKLOG};
use crate::link::{Link, Served};
use crate::listen::{Destination, Listener};
use crate::remote::{Command, Remote};
use crate::wake::{Ready, Token};

/// One machine of one driver.
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

    /// A machine said why a link ended before its time.
    fn note(&mut self, proxy: ProxyId, link: LinkId, what: &str) {
        let _ = (proxy, link, what);
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
}

/// Asks a published value whether there is a newer one; what to tell the machine then.
type Look = Box<dyn FnMut() -> Option<Vec<Input>>>;

/// Owns the machines of one shard and all their sockets.
pub struct Driver<M> {
    clock: Clock,
    sink: Box<dyn Sink>,
    proxies: Vec<Proxy<M>>,
    followed: Vec<(ProxyId, Look)>,
    listeners: Vec<Option<Listener>>,
    work: Work,
    commands: mpsc::Receiver<Command<M>>,
    remote: mpsc::Sender<Command<M>>,
    /// Taken from the ready list; empty between turns.
    woken: Vec<Token>,
    /// What the `Sleep` is set to, or has to be set to.
    armed: Option<Instant>,
    alarm: Alarm,
    ending: Ending,
}

/// Whether the `Sleep` is set right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alarm {
    Set,
    /// Something wants to be woken earlier: at `armed`.
    Earlier,
    /// It rang: look for the next deadline everywhere.
    Rang,
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
    deadline: Option<Instant>,
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
            followed: Vec::new(),
            listeners: Vec::new(),
            work: Work {
                inputs: VecDeque::new(),
                queue: VecDeque::new(),
                sending: Vec::new(),
                buffers: Buffers::default(),
                ready: Arc::new(Ready::default()),
                stats: Stats::default(),
            },
            commands,
            remote,
            woken: Vec::new(),
            armed: None,
            alarm: Alarm::Rang,
            ending: Ending::No,
        }
    }

    /// Adds a machine; its deadline counts from here on.
    pub fn add(&mut self, machine: M) -> ProxyId {
        let id = ProxyId(u32::try_from(self.proxies.len()).expect("fewer than 2^32 proxies"));
        let deadline = machine.poll_timeout().map(|d| d.at);
        self.proxies.push(Proxy {
            machine,
            links: Links::default(),
            deadline,
        });
        self.note_deadline(deadline);
        id
    }

    /// Opens a door of `proxy`: what comes in by it is `Accepted` with `entry`. Must be called within the driver's runtime, as
    /// `setup` of [`spawn_shard`](crate::spawn_shard) is. Panics if `proxy` is not of this driver.
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
        let free = self.listeners.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.listeners.len());
        let token = Token::Listener(u32::try_from(slot).expect("fewer than 2^32 listeners"));
        let waker = self.work.ready.waker(token);
        let listener = Listener::new(proxy, listener, entry, destination, waker)?;
        if free.is_none() {
            self.listeners.push(None);
        }
        self.listeners[slot] = Some(listener);
        self.work.queue.push_back(token);
        Ok(())
    }

    /// Tells a machine something before, or between, its links' events.
    pub fn input(&mut self, proxy: ProxyId, input: Input) {
        self.work.inputs.push_back((proxy, input));
    }

    /// Looks at a published value once a turn, and tells `proxy` what came in the words of `inputs`. Who publishes calls
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
        self.proxies.iter().map(|p| p.links.len()).sum()
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
        self.take_commands();
        self.look_at_published();
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
        self.work.ready.take(cx.waker(), &mut woken);
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

    fn look_at_published(&mut self) {
        for (proxy, look) in &mut self.followed {
            for input in look().into_iter().flatten() {
                self.work.inputs.push_back((*proxy, input));
            }
        }
    }

    /// Gives machines whose time has come their `Tick`.
    fn ring(&mut self, sleep: &Sleep) {
        let Some(armed) = self.armed else { return };
        let now = self.clock.now().at;
        if now < armed && !(self.alarm == Alarm::Set && sleep.is_elapsed()) {
            return;
        }
        self.alarm = Alarm::Rang;
        for (proxy, i) in self.proxies.iter().zip(0..) {
            if proxy.deadline.is_some_and(|at| at <= now) {
                self.work.inputs.push_back((ProxyId(i), Input::Tick));
            }
        }
        for (listener, i) in self.listeners.iter_mut().zip(0..) {
            if let Some(listener) = listener
                && listener.retry.is_some_and(|at| at <= now)
            {
                listener.retry = None;
                self.work.queue.push_back(Token::Listener(i));
            }
        }
    }

    /// Sets the `Sleep`; `false`: it is due already.
    fn arm(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> bool {
        if self.alarm == Alarm::Set {
            return true;
        }
        if self.alarm == Alarm::Rang {
            let machines = self.proxies.iter().filter_map(|p| p.deadline);
            let retries = self.listeners.iter().flatten().filter_map(|l| l.retry);
            self.armed = machines.chain(retries).min();
        }
        self.alarm = Alarm::Set;
        let Some(at) = self.armed else { return true };
        sleep.as_mut().reset(self.clock.to_tokio(at));
        sleep.poll(cx).is_pending()
    }

    fn note_deadline(&mut self, deadline: Option<Instant>) {
        if let Some(at) = deadline
            && self.armed.is_none_or(|armed| at < armed)
        {
            self.armed = Some(at);
            if self.alarm == Alarm::Set {
                self.alarm = Alarm::Earlier;
            }
        }
    }

    fn is_over(&self, idle: bool) -> bool {
        match self.ending {
            Ending::No => false,
            Ending::WhenNoLinkIsLeft => idle && self.links() == 0,
            Ending::Now => true,
        }
    }

    /// One input, all its actions, and the bytes that they send.
    fn feed(&mut self, proxy: ProxyId, input: Input) {
        let Some(Proxy {
            machine,
            links,
            deadline,
        }) = self.proxies.get_mut(proxy.0 as usize)
        else {
            return;
        };
        let (work, sink) = (&mut self.work, &mut self.sink);
        let next = step(machine, input, self.clock.now(), |action| match action {
            Action::Link(id, command) => links.obey(proxy, id, command, work),
            Action::Report(record) => sink.record(proxy, record),
            Action::Note(link, what) => sink.note(proxy, link, &what),
        });
        links.transmit(proxy, work);
        *deadline = next.map(|d| d.at);
        let next = *deadline;
        self.note_deadline(next);
    }

    fn serve(&mut self, token: Token) {
        match token {
            Token::Link(proxy, id) => {
                if let Some(slot) = self.proxies.get_mut(proxy.0 as usize) {
                    slot.links.serve(proxy, id, &mut self.work);
                }
            }
            Token::Listener(i) => {
                if self.accept(i as usize, ACCEPTS_PER_TURN) {
                    self.work.queue.push_back(token);
                }
            }
        }
    }

    /// Takes at most `limit` connections; `true`: there may be more.
    fn accept(&mut self, index: usize, limit: usize) -> bool {
        let Some(Some(listener)) = self.listeners.get_mut(index) else {
            return false;
        };
        let (proxy, entry) = (listener.proxy, listener.entry);
        let Some(slot) = self.proxies.get_mut(proxy.0 as usize) else {
            return false;
        };
        if listener.retry.is_some() {
            return false;
        }
        for _ in 0..limit {
            let caller = match listener.accept() {
                Poll::Pending => return false,
                Poll::Ready(Ok(caller)) => caller,
                Poll::Ready(Err(e)) => {
                    self.work.stats.accept_failures += 1;
                    let retry = self.clock.now().at.after(ACCEPT_BACKOFF);
                    listener.retry = Some(retry);
                    if !std::mem::replace(&mut listener.reported, true)
                        && let Ok(local) = listener.local_addr()
                    {
                        self.sink.listener_failed(proxy, local, &e);
                    }
                    self.note_deadline(Some(retry));
                    return false;
                }
            };
            listener.reported = false;
            self.work.stats.accepted += 1;
            let id = slot
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

    /// What waits in a backlog has a connection as far as its peer knows, so it is taken in before the door closes.
    fn close_listeners(&mut self, which: impl Fn(&Listener) -> bool) {
        for i in 0..self.listeners.len() {
            if self.listeners[i].as_ref().is_some_and(&which) {
                self.accept(i, LISTEN_BACKLOG as usize);
                self.listeners[i] = None;
            }
        }
    }

    fn link(&mut self, proxy: ProxyId, id: LinkId) -> Option<&mut Link> {
        self.proxies.get_mut(proxy.0 as usize)?.links.get_mut(id)
    }
}

impl Links {
    fn len(&self) -> usize {
        self.accepted.len() + self.opened.len()
    }

    fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        if id.is_accepted() {
            self.accepted.get_mut(Door(id)).map(|link| &mut **link)
        } else {
            self.opened.get_mut(id).map(|link| &mut **link)
        }
    }

    fn remove(&mut self, id: LinkId) -> Option<Box<Link>> {
        if id.is_accepted() {
            self.accepted.remove(Door(id))
        } else {
            self.opened.remove_at(id)
        }
    }

    fn add_accepted(&mut self, stream: TcpStream, proxy: ProxyId, work: &mut Work) -> LinkId {
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
                if let Some(link) = self.remove(id) {
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
        self.remove(id);
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
            .field("proxies", &self.proxies.len())
            .field("ending", &self.ending)
            .field("stats", &self.work.stats)
            .finish_non_exhaustive()
    }
}
