//! Machines, scripted peers and the streams between them, in virtual time.
//!
//! Whatever is to happen lies in one heap, ordered by (instant, sequence number); nothing else moves the world, so a run
//! is a function of its seed and of what was called. Time jumps from one event to the next.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use meshward_core::clock::{Instant, Now};
use meshward_core::id::LinkId;
use meshward_core::link::{CloseCause, Entry, LinkCommand, LinkEvent};
use meshward_core::machine::{self, Machine};
use meshward_core::proxy::{Action, Input};
use meshward_core::telemetry::Record;

use crate::chance::Chance;
use crate::check::Checked;
use crate::clock::{SharedClock, WallClock};
use crate::net::{End, Heard, Net, NetEvent, Weather};
use crate::trace::Trace;

/// Who takes part: the index of a process or of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Process(usize),
    Peer(usize),
}

/// A scripted client or application. It uses links as a machine does, by the same words and rules.
pub trait Peer {
    /// Something happened to a link of this peer. Commands are pushed on `out`.
    fn on(
        &mut self,
        link: LinkId,
        event: LinkEvent,
        now: Now,
        out: &mut Vec<(LinkId, LinkCommand)>,
    );

    /// When [`Peer::tick`] is wanted.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// `due` has come.
    fn tick(&mut self, _now: Now, _out: &mut Vec<(LinkId, LinkCommand)>) {}
}

/// A record and who reported it when.
#[derive(Clone, Debug)]
pub struct Reported {
    pub process: usize,
    pub at: Instant,
    pub record: Record,
}

#[derive(Debug)]
enum Event {
    Net(NetEvent),
    Tick(Node, Instant),
    Input(usize, Input),
    Clock(usize, WallClock),
}

#[derive(Debug)]
struct Due {
    at: Instant,
    sequence: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
/// The heap pops its greatest: the earliest here.
impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// Odd ids for accepted streams: the lowest slot that is free, with a new generation.
#[derive(Debug, Default)]
struct AcceptedIds {
    generations: Vec<u32>,
    free: Vec<u32>,
}

impl AcceptedIds {
    fn take(&mut self) -> LinkId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.generations.push(0);
            self.generations.len() as u32 - 1
        });
        let generation = &mut self.generations[slot as usize];
        *generation += 1;
        LinkId::accepted(slot, *generation)
    }

    fn give_back(&mut self, id: LinkId) {
        self.free.push(id.slot());
        self.free.sort_unstable_by(|a, b| b.cmp(a));
    }
}

#[derive(Debug)]
struct Place {
    ip: IpAddr,
    ids: AcceptedIds,
    links: BTreeMap<LinkId, End>,
    /// The process that captures what this peer opens, as iptables rules do.
    captured_by: Option<usize>,
    tick_at: Option<Instant>,
    clock: WallClock,
}

/// The whole of it. `M` is what runs in the processes, `P` who talks to them.
#[derive(Debug)]
pub struct World<M, P> {
    now: Instant,
    sequence: u64,
    heap: BinaryHeap<Due>,
    /// How many entries of the heap are not ticks.
    traffic: usize,
    net: Net,
    processes: Vec<Checked<M>>,
    peers: Vec<P>,
    places: BTreeMap<Node, Place>,
    owners: BTreeMap<End, (Node, LinkId)>,
    listeners: BTreeMap<SocketAddr, (Node, Entry)>,
    reports: Vec<Reported>,
    trace: Trace,
    clock: SharedClock,
    events: u64,
}

impl<M, P> World<M, P>
where
    M: Machine<Input = Input, Action = Action>,
    P: Peer,
{
    pub fn new(seed: u64, weather: Weather, trace: Trace) -> Self {
        Self {
            now: Instant(0),
            sequence: 0,
            heap: BinaryHeap::new(),
            traffic: 0,
            net: Net::new(weather, Chance::new(seed, NET_CHANCE)),
            processes: Vec::new(),
            peers: Vec::new(),
            places: BTreeMap::new(),
            owners: BTreeMap::new(),
            listeners: BTreeMap::new(),
            reports: Vec::new(),
            trace,
            clock: SharedClock::default(),
            events: 0,
        }
    }

    /// Adds a process that runs `machine` and leaves from `ip` unless it says otherwise.
    pub fn add_process(&mut self, machine: M, ip: IpAddr, clock: WallClock) -> usize {
        self.processes.push(Checked::new(machine));
        let index = self.processes.len() - 1;
        self.settle_in(Node::Process(index), ip, clock);
        index
    }

    pub fn add_peer(&mut self, peer: P, ip: IpAddr) -> usize {
        self.peers.push(peer);
        let index = self.peers.len() - 1;
        self.settle_in(Node::Peer(index), ip, WallClock::default());
        index
    }

    fn settle_in(&mut self, node: Node, ip: IpAddr, clock: WallClock) {
        self.places.insert(
            node,
            Place {
                ip,
                ids: AcceptedIds::default(),
                links: BTreeMap::new(),
                captured_by: None,
                tick_at: None,
                clock,
            },
        );
    }

    /// `node` accepts what is opened to `address`; `entry` is what a process is told.
    pub fn listen(&mut self, node: Node, address: SocketAddr, entry: Entry) {
        self.listeners.insert(address, (node, entry));
    }

    /// Nobody accepts at `address` any more; open streams stay.
    pub fn stop_listening(&mut self, address: SocketAddr) {
        self.listeners.remove(&address);
    }

    /// What `peer` opens from now on goes to the outbound entry of `process`.
    pub fn capture(&mut self, peer: usize, process: usize) {
        self.place(Node::Peer(peer)).captured_by = Some(process);
    }

    /// `process` hears `input` after `delay`.
    pub fn inject(&mut self, process: usize, input: Input, delay: Duration) {
        let at = self.now.after(delay);
        self.schedule(at, Event::Input(process, input));
    }

    /// The wall clock of `process` is `clock` after `delay`, whatever it was; timers do not notice.
    pub fn set_clock(&mut self, process: usize, clock: WallClock, delay: Duration) {
        let at = self.now.after(delay);
        self.schedule(at, Event::Clock(process, clock));
    }

    /// Lets a script act on `peer` at this instant.
    pub fn poke<R>(
        &mut self,
        peer: usize,
        act: impl FnOnce(&mut P, Now, &mut Vec<(LinkId, LinkCommand)>) -> R,
    ) -> R {
        let node = Node::Peer(peer);
        let now = self.place(node).clock.read(self.now);
        self.clock.set(now.wall);
        let mut out = Vec::new();
        let answer = act(&mut self.peers[peer], now, &mut out);
        self.obey_peer(peer, out);
        answer
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    /// The wall clock of the peers, for their TLS.
    pub fn shared_clock(&self) -> SharedClock {
        self.clock.clone()
    }

    pub fn process(&self, index: usize) -> &Checked<M> {
        &self.processes[index]
    }

    pub fn processes(&self) -> &[Checked<M>] {
        &self.processes
    }

    pub fn peer(&self, index: usize) -> &P {
        &self.peers[index]
    }

    pub fn peers(&self) -> &[P] {
        &self.peers
    }

    pub fn reports(&self) -> &[Reported] {
        &self.reports
    }

    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    pub fn net(&mut self) -> &mut Net {
        &mut self.net
    }

    /// Lets everything happen that is under way. Ends when only deadlines are left; those that come before are kept.
    /// Panics after `EVENTS_MAX` events: two parties that answer each other for ever at one instant never settle.
    pub fn settle(&mut self) {
        while self.traffic > 0 {
            self.step();
        }
    }

    /// Lets everything happen up to and including the instant `span` from now, which then is now.
    pub fn advance(&mut self, span: Duration) {
        let until = self.now.after(span);
        while self.heap.peek().is_some_and(|due| due.at <= until) {
            self.step();
        }
        self.now = until;
    }

    /// Lets everything happen, deadlines included, until nothing is left or `span` has passed. True if nothing is left.
    pub fn exhaust(&mut self, span: Duration) -> bool {
        let until = self.now.after(span);
        while self.heap.peek().is_some_and(|due| due.at <= until) {
            self.step();
        }
        self.heap.is_empty()
    }

    fn step(&mut self) {
        let Some(due) = self.heap.pop() else { return };
        assert!(due.at >= self.now, "the heap is ordered by time");
        self.now = due.at;
        self.events += 1;
        assert!(self.events < EVENTS_MAX, "a run that does not end");
        match due.event {
            Event::Net(event) => {
                self.traffic -= usize::from(is_traffic(&event));
                let accepted = matches!(event, NetEvent::Accept(_));
                if let Some((end, heard)) = self.net.handle(event, self.now) {
                    debug_assert_eq!(accepted, matches!(heard, Heard::Accepted));
                    self.hear(end, heard);
                }
            }
            Event::Input(process, input) => {
                self.traffic -= 1;
                self.drive(process, input);
            }
            Event::Clock(process, clock) => {
                self.traffic -= 1;
                self.place(Node::Process(process)).clock = clock;
            }
            Event::Tick(node, at) => {
                let place = self.place(node);
                if place.tick_at != Some(at) {
                    return;
                }
                place.tick_at = None;
                match node {
                    Node::Process(index) => self.drive(index, Input::Tick),
                    Node::Peer(index) => self.poke(index, |peer, now, out| peer.tick(now, out)),
                }
            }
        }
        self.collect();
    }

    fn hear(&mut self, end: End, heard: Heard) {
        let Some((node, mut id)) = self.owners.get(&end).copied() else {
            return;
        };
        let event = match heard {
            Heard::Event(event) => event,
            Heard::Accepted => {
                let peer = self.net.peer_of(end).expect("the other end exists");
                let original_dst = self.net.peer_of(end.other()).expect("this end exists");
                let entry = match (node, self.listeners.get(&original_dst)) {
                    (_, Some((owner, entry))) if *owner == node => *entry,
                    _ => Entry::Outbound,
                };
                let place = self.place(node);
                id = place.ids.take();
                place.links.insert(id, end);
                self.owners.insert(end, (node, id));
                LinkEvent::Accepted {
                    entry,
                    peer,
                    original_dst,
                }
            }
        };
        if let LinkEvent::Closed(_) = event {
            self.owners.remove(&end);
            let place = self.place(node);
            place.links.remove(&id);
            if id.is_accepted() {
                place.ids.give_back(id);
            }
        }
        match node {
            Node::Process(index) => self.drive(index, Input::Link(id, event)),
            Node::Peer(index) => self.poke(index, |peer, now, out| peer.on(id, event, now, out)),
        }
    }

    fn drive(&mut self, index: usize, input: Input) {
        let node = Node::Process(index);
        let now = self.place(node).clock.read(self.now);
        self.trace.input(index, &input, now);
        let mut actions = Vec::new();
        let deadline = machine::step(&mut self.processes[index], input, now, |a| actions.push(a));
        for action in actions {
            self.trace.action(index, &action, now);
            match action {
                Action::Link(id, command) => self.obey(node, id, command),
                Action::Report(record) => self.reports.push(Reported {
                    process: index,
                    at: self.now,
                    record: *record,
                }),
                Action::Note(..) => {}
            }
        }
        self.wake_at(node, deadline.map(|d| d.at));
    }

    fn obey_peer(&mut self, index: usize, commands: Vec<(LinkId, LinkCommand)>) {
        let node = Node::Peer(index);
        for (id, command) in commands {
            self.obey(node, id, command);
        }
        let due = self.peers[index].due();
        self.wake_at(node, due.map(|at| at.max(Instant(self.now.0 + 1))));
        self.collect();
    }

    fn obey(&mut self, node: Node, id: LinkId, command: LinkCommand) {
        if let LinkCommand::Connect { to, from } = command {
            self.connect(node, id, to, from);
            return;
        }
        // A peer may speak to a link whose `Closed` it has not looked at yet; a machine may not, which `Checked` sees to.
        if let Some(end) = self.place(node).links.get(&id).copied() {
            self.net.obey(end, command, self.now);
        }
    }

    fn connect(&mut self, node: Node, id: LinkId, to: SocketAddr, from: Option<SocketAddr>) {
        let place = self.place(node);
        let from = from.unwrap_or_else(|| SocketAddr::new(place.ip, 0));
        let target = match place.captured_by {
            Some(process) => Some(Node::Process(process)),
            None => self.listeners.get(&to).map(|(node, _)| *node),
        };
        let end = self.net.connect(to, from, target.is_some(), self.now);
        self.place(node).links.insert(id, end);
        self.owners.insert(end, (node, id));
        if let Some(target) = target {
            // The id of the accepted end is given out when it is accepted.
            let nobody = LinkId(0);
            self.owners.insert(end.other(), (target, nobody));
        }
    }

    fn wake_at(&mut self, node: Node, due: Option<Instant>) {
        let Some(at) = due else { return };
        let place = self.place(node);
        // A tick that comes too early is legal, a late one is not.
        if place.tick_at.is_none_or(|queued| at < queued) {
            place.tick_at = Some(at);
            self.schedule(at, Event::Tick(node, at));
        }
    }

    fn collect(&mut self) {
        let scheduled: Vec<_> = self.net.take_scheduled().collect();
        for (at, event) in scheduled {
            self.schedule(at, Event::Net(event));
        }
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.traffic += usize::from(match &event {
            Event::Net(event) => is_traffic(event),
            Event::Input(..) | Event::Clock(..) => true,
            Event::Tick(..) => false,
        });
        self.sequence += 1;
        self.heap.push(Due {
            at,
            sequence: self.sequence,
            event,
        });
    }

    fn place(&mut self, node: Node) -> &mut Place {
        self.places.get_mut(&node).expect("every node has a place")
    }
}

/// What the system's own patience ends is as far away as a deadline.
fn is_traffic(event: &NetEvent) -> bool {
    !matches!(event, NetEvent::Close(_, CloseCause::TimedOut))
}

/// More than any run of ours needs by a factor of a hundred.
const EVENTS_MAX: u64 = 50_000_000;
/// The purpose of the network's draws.
const NET_CHANCE: u64 = 1;
