//! Machines and helpers for tests over real sockets.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use meshward_core::clock::{Deadline, Instant, Now};
use meshward_core::id::{Key, LinkId};
use meshward_core::limits::{READ_BODY, UNACKED_MAX};
use meshward_core::link::{Buf, CloseCause, Entry, LinkCommand, LinkEvent};
use meshward_core::machine::Machine;
use meshward_core::proxy::{Action, Input};
use meshward_tokio::{
    Clock, Command, Destination, Driver, ProxyId, ShardHandle, Stats, bind_listener, spawn_shard,
};

pub(crate) const SOON: Duration = Duration::from_secs(4);

/// Copies bytes both ways between each accepted link and one that it opens to `to`.
///
/// A side is read only while the other has nothing unacknowledged, so it holds at most one read per direction.
pub(crate) struct Forwarder {
    pub(crate) to: SocketAddr,
    pub(crate) from: Option<SocketAddr>,
    pub(crate) peers: BTreeMap<LinkId, LinkId>,
    half_closed: BTreeMap<LinkId, ()>,
    slots: Vec<u32>,
    free: Vec<u32>,
    actions: VecDeque<Action>,
    draining: Option<Instant>,
}

impl Forwarder {
    pub(crate) fn new(to: SocketAddr) -> Self {
        Self {
            to,
            from: None,
            peers: BTreeMap::new(),
            half_closed: BTreeMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            actions: VecDeque::new(),
            draining: None,
        }
    }

    fn open(&mut self) -> LinkId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(0);
            u32::try_from(self.slots.len() - 1).unwrap()
        });
        self.slots[slot as usize] += 1;
        LinkId::opened(slot, self.slots[slot as usize])
    }

    fn act(&mut self, id: LinkId, command: LinkCommand) {
        self.actions.push_back(Action::Link(id, command));
    }

    fn read(&mut self, id: LinkId) {
        self.act(id, LinkCommand::Read { at_most: READ_BODY });
    }

    fn link(&mut self, id: LinkId, event: LinkEvent) {
        let peer = self.peers.get(&id).copied();
        match (event, peer) {
            (LinkEvent::Accepted { .. }, _) => {
                let up = self.open();
                self.peers.insert(id, up);
                self.peers.insert(up, id);
                let (to, from) = (self.to, self.from);
                self.act(up, LinkCommand::Connect { to, from });
            }
            (LinkEvent::Connected { .. }, Some(down)) => {
                self.read(id);
                self.read(down);
            }
            (LinkEvent::Received(bytes), Some(peer)) => {
                assert!(!bytes.is_empty() && bytes.len() <= READ_BODY.min(UNACKED_MAX));
                self.act(peer, LinkCommand::Send { bytes, ack: true });
            }
            (LinkEvent::Sent(n), Some(peer)) => {
                assert!(n > 0);
                self.read(peer);
            }
            (LinkEvent::Eof, Some(peer)) => {
                self.half_closed.insert(id, ());
                self.act(peer, LinkCommand::Finish);
            }
            (LinkEvent::Closed(cause), peer) => {
                if !id.is_accepted() {
                    self.free.push(Key::slot(id));
                }
                self.peers.remove(&id);
                self.half_closed.remove(&id);
                if let Some(peer) = peer
                    && cause != CloseCause::Finished
                    && self.peers.contains_key(&peer)
                {
                    self.act(peer, LinkCommand::Reset);
                }
            }
            // The other side is gone, and this one was told to go.
            (_, None) => {}
        }
    }
}

impl Machine for Forwarder {
    type Input = Input;
    type Action = Action;

    fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Link(id, event) => self.link(id, event),
            Input::Drain { grace } => self.draining = Some(now.at.after(grace)),
            Input::Tick | Input::Snapshot(_) | Input::Svid(_) | Input::Levels(_) => {}
        }
        if self.draining.is_some_and(|at| at <= now.at) {
            self.draining = None;
            for id in self.peers.keys().copied().collect::<Vec<_>>() {
                self.act(id, LinkCommand::Reset);
            }
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.draining.map(|at| Deadline { at, why: "drain" })
    }
}

/// Says what it heard, and does what it is told after each.
pub(crate) struct Scripted {
    heard: Sender<(Input, Now)>,
    script: Script,
    actions: VecDeque<Action>,
    deadline: Option<Instant>,
}

pub(crate) type Script = Box<dyn FnMut(&Input, Now, &mut Wishes) + Send>;

/// What a script wants.
#[derive(Default)]
pub(crate) struct Wishes {
    pub(crate) actions: Vec<(LinkId, LinkCommand)>,
    pub(crate) deadline: Option<Instant>,
}

impl Wishes {
    pub(crate) fn read(&mut self, id: LinkId, at_most: usize) {
        self.actions.push((id, LinkCommand::Read { at_most }));
    }

    pub(crate) fn send(&mut self, id: LinkId, bytes: &[u8], ack: bool) {
        let bytes = Buf::from(bytes);
        self.actions.push((id, LinkCommand::Send { bytes, ack }));
    }

    pub(crate) fn finish(&mut self, id: LinkId) {
        self.actions.push((id, LinkCommand::Finish));
    }

    pub(crate) fn reset(&mut self, id: LinkId) {
        self.actions.push((id, LinkCommand::Reset));
    }

    pub(crate) fn connect(&mut self, id: LinkId, to: SocketAddr) {
        let from = None;
        self.actions.push((id, LinkCommand::Connect { to, from }));
    }
}

impl Scripted {
    pub(crate) fn new(
        script: impl FnMut(&Input, Now, &mut Wishes) + Send + 'static,
    ) -> (Self, Receiver<(Input, Now)>) {
        let (heard, hear) = channel();
        let machine = Self {
            heard,
            script: Box::new(script),
            actions: VecDeque::new(),
            deadline: None,
        };
        (machine, hear)
    }
}

impl Machine for Scripted {
    type Input = Input;
    type Action = Action;

    fn handle(&mut self, input: Input, now: Now) {
        assert!(self.actions.is_empty(), "drained before the next input");
        let mut wishes = Wishes::default();
        (self.script)(&input, now, &mut wishes);
        self.deadline = wishes.deadline;
        self.actions
            .extend(wishes.actions.into_iter().map(|(i, c)| Action::Link(i, c)));
        // The test may have heard enough.
        let _ = self.heard.send((input, now));
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.deadline.map(|at| Deadline { at, why: "script" })
    }
}

/// A shard with one machine behind one listener.
pub(crate) struct Shard<M> {
    pub(crate) handle: ShardHandle<M>,
    pub(crate) addr: SocketAddr,
}

impl<M: Machine<Input = Input, Action = Action> + 'static> Shard<M> {
    pub(crate) fn start(machine: impl FnOnce() -> M + Send + 'static) -> Self {
        let listener = bind_listener(local(), false).unwrap();
        let addr = listener.local_addr().unwrap();
        let handle = spawn_shard("shard", None, move || {
            let mut driver = Driver::new(Clock::start(), Box::new(|_, _| {}));
            let proxy = driver.add(machine());
            driver.listen(proxy, listener, Entry::Inbound, Destination::Local)?;
            Ok(driver)
        })
        .unwrap();
        Self { handle, addr }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.addr)
    }

    /// Runs `ask` on the shard and returns its answer.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Driver<M>) -> T + Send + 'static,
    ) -> T {
        let (answer, answered) = channel();
        let run = Box::new(move |driver: &mut Driver<M>| answer.send(ask(driver)).unwrap());
        assert!(self.handle.send(Command::Run(run)));
        answered.recv_timeout(SOON).unwrap()
    }

    /// Ends it once its links are gone, which must be soon.
    pub(crate) fn drain(self) -> Stats {
        self.handle.send(Command::Drain { grace: SOON });
        join(self.handle)
    }
}

pub(crate) fn join<M>(handle: ShardHandle<M>) -> Stats {
    wait_until("the shard ends", || handle.is_finished());
    handle.join().unwrap()
}

/// Polls `done`, for what has no event that a test could wait for.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + SOON;
    while !done() {
        assert!(std::time::Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream
}

/// A listener of a test, and the thread that serves each of its connections with `serve`.
pub(crate) fn upstream(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind(local()).unwrap();
    let addr = listener.local_addr().unwrap();
    let serve = std::sync::Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.unwrap(), serve.clone());
            stream.set_read_timeout(Some(SOON)).unwrap();
            std::thread::spawn(move || serve(stream));
        }
    });
    addr
}

/// Sends everything back, half-close included.
pub(crate) fn echo(stream: TcpStream) {
    // The client may reset.
    let _ = io::copy(&mut &stream, &mut &stream);
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

/// Closes with RST.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// The next event of a link, whoever's it is; ticks are passed over.
pub(crate) fn next(hear: &Receiver<(Input, Now)>) -> (LinkId, LinkEvent) {
    loop {
        if let (Input::Link(id, event), _) = hear.recv_timeout(SOON).unwrap() {
            return (id, event);
        }
    }
}

pub(crate) const FIRST: ProxyId = ProxyId(0);
