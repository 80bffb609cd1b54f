//! Byte streams as a kernel shows them: latency, bandwidth, segments cut anywhere, finite buffers at both ends, half-close,
//! resets at any point, connects that fail.
//!
//! A stream has two ends. What an end is told to do ([`LinkCommand`]) changes it at once and schedules [`NetEvent`]s; when
//! one comes due, [`Net::handle`] says what the owner of the end hears. Order within one direction is kept, as TCP does.
//! This module knows ends and addresses, no machines and no ids of theirs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use meshward_core::clock::Instant;
use meshward_core::link::{Buf, CloseCause, LinkCommand, LinkEvent};

use crate::chance::Chance;

/// What the network does to streams in one run. Every `one_in` is a chance per try, 0 means never.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Nanoseconds from one end to the other, drawn for each segment.
    pub latency_ns: RangeInclusive<u64>,
    /// Bytes per second and direction; 0: without limit.
    pub bandwidth: u64,
    /// Bytes of a segment, drawn for each.
    pub segment: RangeInclusive<u64>,
    /// Bytes that the kernel takes from a sender ahead of the reader.
    pub send_buffer: usize,
    /// Bytes that the kernel holds for a reader that does not read.
    pub receive_buffer: usize,
    /// Reads that return less than there is.
    pub short_read_one_in: u64,
    /// Segments that are replaced by a reset to both ends.
    pub reset_one_in: u64,
    /// Segments that wait `stall_ns` first.
    pub stall_one_in: u64,
    pub stall_ns: u64,
    /// Bytes that arrived before a reset and were not read yet: lost, or still to be had.
    pub reset_loses_unread: bool,
    pub refuse_one_in: u64,
    pub unreachable_one_in: u64,
    pub connect_timeout_one_in: u64,
}

impl Weather {
    /// Nothing is lost, cut or late beyond a tenth of a millisecond.
    pub fn calm() -> Self {
        Self {
            latency_ns: 100_000..=100_000,
            bandwidth: 0,
            segment: 65_536..=65_536,
            send_buffer: 256 * 1024,
            receive_buffer: 128 * 1024,
            short_read_one_in: 0,
            reset_one_in: 0,
            stall_one_in: 0,
            stall_ns: 0,
            reset_loses_unread: false,
            refuse_one_in: 0,
            unreachable_one_in: 0,
            connect_timeout_one_in: 0,
        }
    }
}

/// How long a connect that nobody answers is tried (Linux: `tcp_syn_retries` 6).
const SYN_TIMEOUT_NS: u64 = 127_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Opener,
    Acceptor,
}

/// One end of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    pub stream: u64,
    pub side: Side,
}

impl End {
    pub fn other(self) -> Self {
        let side = match self.side {
            Side::Opener => Side::Acceptor,
            Side::Acceptor => Side::Opener,
        };
        Self { side, ..self }
    }
}

/// What the network does at a later instant.
#[derive(Debug)]
pub enum NetEvent {
    /// The acceptor hears of the stream.
    Accept(End),
    /// The opener hears that it was accepted.
    Establish(End),
    Segment(End, Vec<u8>),
    Fin(End),
    Rst(End),
    /// A granted read may be answered.
    Deliver(End),
    /// A write may be acknowledged.
    Acknowledge(End),
    Close(End, CloseCause),
}

/// What the owner of an end hears.
#[derive(Debug)]
pub enum Heard {
    /// The owner of the listener gives the end an id and hears `Accepted`.
    Accepted,
    Event(LinkEvent),
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub streams: u64,
    pub segments: u64,
    pub bytes: u64,
    /// Resets that reached an end that was open.
    pub resets: u64,
    pub failed_connects: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Open,
    /// A reset arrived while bytes were unread: they may be read, then the end closes.
    ResetBehind,
    /// Only `Closed` is still to come.
    Dying,
    Closed,
}

#[derive(Debug)]
struct Half {
    stage: Stage,
    local: SocketAddr,

    /// Bytes that the owner sent and the kernel has not taken.
    queue: VecDeque<u8>,
    /// Bytes that the kernel took and has not put on the wire.
    kernel: VecDeque<u8>,
    in_flight: usize,
    /// Offsets at which the owner wants to hear `Sent`.
    marks: VecDeque<u64>,
    sent: u64,
    taken: u64,
    acknowledged: u64,
    finish: bool,
    fin_on_wire: bool,
    free_at: Instant,
    last_arrival: Instant,

    arrived: VecDeque<u8>,
    fin_arrived: bool,
    eof_heard: bool,
    grant: Option<usize>,
}

impl Half {
    fn new(local: SocketAddr, stage: Stage) -> Self {
        Self {
            stage,
            local,
            queue: VecDeque::new(),
            kernel: VecDeque::new(),
            in_flight: 0,
            marks: VecDeque::new(),
            sent: 0,
            taken: 0,
            acknowledged: 0,
            finish: false,
            fin_on_wire: false,
            free_at: Instant(0),
            last_arrival: Instant(0),
            arrived: VecDeque::new(),
            fin_arrived: false,
            eof_heard: false,
            grant: None,
        }
    }

    fn forget_output(&mut self) {
        self.queue.clear();
        self.kernel.clear();
        self.marks.clear();
        self.in_flight = 0;
        self.fin_on_wire = true;
    }

    fn is_alive(&self) -> bool {
        matches!(
            self.stage,
            Stage::Connecting | Stage::Open | Stage::ResetBehind
        )
    }
}

#[derive(Debug)]
struct Stream {
    opener: Half,
    acceptor: Half,
    accepted: bool,
}

impl Stream {
    fn half(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Opener => &mut self.opener,
            Side::Acceptor => &mut self.acceptor,
        }
    }
}

/// All streams of a world.
#[derive(Debug)]
pub struct Net {
    weather: Weather,
    chance: Chance,
    streams: BTreeMap<u64, Stream>,
    unreachable: BTreeSet<SocketAddr>,
    silent: BTreeSet<SocketAddr>,
    next_stream: u64,
    next_port: u16,
    scheduled: Vec<(Instant, NetEvent)>,
    stats: Stats,
}

impl Net {
    pub fn new(weather: Weather, chance: Chance) -> Self {
        Self {
            weather,
            chance,
            streams: BTreeMap::new(),
            unreachable: BTreeSet::new(),
            silent: BTreeSet::new(),
            next_stream: 0,
            next_port: 32_768,
            scheduled: Vec::new(),
            stats: Stats::default(),
        }
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The network behaves like `weather` from now on.
    pub fn change_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// From now on there is no way to `address`.
    pub fn cut_off(&mut self, address: SocketAddr) {
        self.unreachable.insert(address);
    }

    /// From now on nobody answers a connect to `address`, not even to refuse it.
    pub fn silence(&mut self, address: SocketAddr) {
        self.silent.insert(address);
    }

    /// What was scheduled since the last call.
    pub fn take_scheduled(&mut self) -> std::vec::Drain<'_, (Instant, NetEvent)> {
        self.scheduled.drain(..)
    }

    /// The streams that are not over.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Opens a stream. `from` is the address to leave from; its port is drawn if it is 0. `listening`: somebody accepts.
    pub fn connect(
        &mut self,
        to: SocketAddr,
        mut from: SocketAddr,
        listening: bool,
        now: Instant,
    ) -> End {
        if from.port() == 0 {
            from.set_port(self.next_port);
            self.next_port = self.next_port.checked_add(1).unwrap_or(32_768);
        }
        let stream = self.next_stream;
        self.next_stream += 1;
        self.stats.streams += 1;
        let (opener, acceptor) = (
            End {
                stream,
                side: Side::Opener,
            },
            End {
                stream,
                side: Side::Acceptor,
            },
        );
        let there = self.later(now);
        let back = self.later(there);
        let failure = if self.unreachable.contains(&to)
            || self.chance.one_in(self.weather.unreachable_one_in)
        {
            Some((back, CloseCause::Unreachable))
        } else if self.silent.contains(&to)
            || self.chance.one_in(self.weather.connect_timeout_one_in)
        {
            let at = Instant(now.0.saturating_add(SYN_TIMEOUT_NS));
            Some((at, CloseCause::TimedOut))
        } else if !listening || self.chance.one_in(self.weather.refuse_one_in) {
            Some((back, CloseCause::Refused))
        } else {
            None
        };
        let mut half = Half::new(from, Stage::Connecting);
        let mut other = Half::new(to, Stage::Connecting);
        half.last_arrival = there;
        other.last_arrival = back;
        if let Some((at, cause)) = failure {
            self.stats.failed_connects += 1;
            other.stage = Stage::Closed;
            self.scheduled.push((at, NetEvent::Close(opener, cause)));
        } else {
            self.scheduled.push((there, NetEvent::Accept(acceptor)));
            self.scheduled.push((back, NetEvent::Establish(opener)));
        }
        let accepted = failure.is_none();
        self.streams.insert(
            stream,
            Stream {
                opener: half,
                acceptor: other,
                accepted,
            },
        );
        opener
    }

    /// The address of the other end.
    pub fn peer_of(&mut self, end: End) -> Option<SocketAddr> {
        let stream = self.streams.get_mut(&end.stream)?;
        Some(stream.half(end.other().side).local)
    }

    /// Does what the owner of `end` wants. `Connect` is [`Net::connect`]'s; commands after the last are dropped.
    pub fn obey(&mut self, end: End, command: LinkCommand, now: Instant) {
        let Some(stream) = self.streams.get_mut(&end.stream) else {
            return;
        };
        let half = stream.half(end.side);
        if !half.is_alive() {
            return;
        }
        match command {
            LinkCommand::Connect { .. } => unreachable!("a stream is connected once"),
            LinkCommand::Read { at_most } => {
                half.grant = Some(at_most);
                self.scheduled.push((now, NetEvent::Deliver(end)));
            }
            LinkCommand::Send { bytes, ack } => {
                if half.stage == Stage::ResetBehind {
                    self.die(end, CloseCause::Reset, now);
                    return;
                }
                half.queue.extend(bytes.iter());
                half.sent += bytes.len() as u64;
                if ack {
                    half.marks.push_back(half.sent);
                }
                self.pump(end, now);
            }
            LinkCommand::Finish => {
                half.finish = true;
                self.pump(end, now);
            }
            LinkCommand::Reset => {
                self.stats.resets += 1;
                self.reset_from(end, now);
                self.die(end, CloseCause::Local, now);
            }
        }
    }

    /// Lets `event` happen. The answer is for the owner of the end that the event names.
    pub fn handle(&mut self, event: NetEvent, now: Instant) -> Option<(End, Heard)> {
        let end = match &event {
            NetEvent::Accept(end)
            | NetEvent::Establish(end)
            | NetEvent::Segment(end, _)
            | NetEvent::Fin(end)
            | NetEvent::Rst(end)
            | NetEvent::Deliver(end)
            | NetEvent::Acknowledge(end)
            | NetEvent::Close(end, _) => *end,
        };
        let stream = self.streams.get_mut(&end.stream)?;
        let half = stream.half(end.side);
        let heard = match event {
            NetEvent::Accept(_) => {
                half.stage = Stage::Open;
                Some(Heard::Accepted)
            }
            NetEvent::Establish(_) => {
                if half.stage != Stage::Connecting {
                    return None;
                }
                half.stage = Stage::Open;
                let local = half.local;
                self.scheduled.push((now, NetEvent::Deliver(end)));
                self.pump(end, now);
                Some(Heard::Event(LinkEvent::Connected { local }))
            }
            NetEvent::Segment(_, bytes) => {
                if half.stage == Stage::Open {
                    half.arrived.extend(&bytes);
                    self.scheduled.push((now, NetEvent::Deliver(end)));
                }
                let from = stream.half(end.other().side);
                from.in_flight = from.in_flight.saturating_sub(bytes.len());
                self.pump(end.other(), now);
                None
            }
            NetEvent::Fin(_) => {
                half.fin_arrived = true;
                self.scheduled.push((now, NetEvent::Deliver(end)));
                None
            }
            NetEvent::Rst(_) => {
                half.forget_output();
                if half.is_alive() {
                    self.stats.resets += 1;
                    if half.arrived.is_empty() || self.weather.reset_loses_unread {
                        self.die(end, CloseCause::Reset, now);
                    } else {
                        half.stage = Stage::ResetBehind;
                        self.scheduled.push((now, NetEvent::Deliver(end)));
                    }
                }
                self.sweep(end.stream);
                None
            }
            NetEvent::Deliver(_) => self.deliver(end, now).map(Heard::Event),
            NetEvent::Acknowledge(_) => {
                if !half.is_alive() {
                    return None;
                }
                while half.marks.front().is_some_and(|m| *m <= half.taken) {
                    half.marks.pop_front();
                }
                let news = half.taken - half.acknowledged;
                half.acknowledged = half.taken;
                (news > 0).then_some(Heard::Event(LinkEvent::Sent(news as usize)))
            }
            NetEvent::Close(_, cause) => {
                if half.stage == Stage::Closed {
                    return None;
                }
                if cause != CloseCause::Finished {
                    half.forget_output();
                }
                half.stage = Stage::Closed;
                self.sweep(end.stream);
                Some(Heard::Event(LinkEvent::Closed(cause)))
            }
        };
        heard.map(|h| (end, h))
    }

    /// Spends the grant of `end`, if it has one and there is something to spend it on.
    fn deliver(&mut self, end: End, now: Instant) -> Option<LinkEvent> {
        let half = self.streams.get_mut(&end.stream)?.half(end.side);
        if !matches!(half.stage, Stage::Open | Stage::ResetBehind) {
            return None;
        }
        let grant = half.grant?;
        if !half.arrived.is_empty() {
            let mut n = half.arrived.len().min(grant);
            if self.chance.one_in(self.weather.short_read_one_in) {
                n = self.chance.within(1..=n as u64) as usize;
            }
            half.grant = None;
            let bytes: Vec<u8> = half.arrived.drain(..n).collect();
            self.pump(end.other(), now);
            return Some(LinkEvent::Received(Buf::from(bytes)));
        }
        if half.stage == Stage::ResetBehind {
            self.die(end, CloseCause::Reset, now);
            return None;
        }
        if half.fin_arrived && !half.eof_heard {
            half.grant = None;
            half.eof_heard = true;
            self.close_if_finished(end, now);
            return Some(LinkEvent::Eof);
        }
        None
    }

    /// Moves bytes of `end` towards the wire, as far as buffers and the reader's window let them.
    fn pump(&mut self, end: End, now: Instant) {
        let Some(stream) = self.streams.get_mut(&end.stream) else {
            return;
        };
        let reader = stream.half(end.other().side);
        let unread = reader.arrived.len();
        let half = stream.half(end.side);
        if half.stage == Stage::Connecting || half.stage == Stage::ResetBehind {
            return;
        }
        let mut window = self
            .weather
            .receive_buffer
            .saturating_sub(unread + half.in_flight);
        loop {
            let held = half.kernel.len() + half.in_flight;
            let room = self
                .weather
                .send_buffer
                .saturating_sub(held)
                .min(half.queue.len());
            half.kernel.extend(half.queue.drain(..room));
            half.taken += room as u64;
            let ready = half.kernel.len().min(window);
            if ready == 0 {
                break;
            }
            let cut = self.chance.within(self.weather.segment.clone());
            let n = ready.min(usize::try_from(cut).unwrap_or(usize::MAX));
            let bytes: Vec<u8> = half.kernel.drain(..n).collect();
            window -= n;
            half.in_flight += n;

            let mut leaves = now.max(half.free_at);
            if self.chance.one_in(self.weather.stall_one_in) {
                leaves = Instant(leaves.0 + self.weather.stall_ns);
            }
            if let Some(ns) = (n as u64 * 1_000_000_000).checked_div(self.weather.bandwidth) {
                leaves = Instant(leaves.0 + ns);
            }
            half.free_at = leaves;
            let latency = self.chance.within(self.weather.latency_ns.clone());
            half.last_arrival = half.last_arrival.max(Instant(leaves.0 + latency));
            self.stats.segments += 1;
            self.stats.bytes += n as u64;
            if self.chance.one_in(self.weather.reset_one_in) {
                let at = half.last_arrival;
                self.scheduled.push((at, NetEvent::Rst(end)));
                self.scheduled.push((at, NetEvent::Rst(end.other())));
            } else {
                let segment = NetEvent::Segment(end.other(), bytes);
                self.scheduled.push((half.last_arrival, segment));
            }
        }
        if half.marks.front().is_some_and(|m| *m <= half.taken) {
            self.scheduled.push((now, NetEvent::Acknowledge(end)));
        }
        if half.finish && half.queue.is_empty() && half.kernel.is_empty() && !half.fin_on_wire {
            half.fin_on_wire = true;
            let latency = self.chance.within(self.weather.latency_ns.clone());
            half.last_arrival = half.last_arrival.max(Instant(now.0 + latency));
            let fin = NetEvent::Fin(end.other());
            self.scheduled.push((half.last_arrival, fin));
        }
        self.close_if_finished(end, now);
        self.sweep(end.stream);
    }

    /// The shell lets go of a stream when it has read the peer's end and handed all of its own bytes to the kernel.
    fn close_if_finished(&mut self, end: End, now: Instant) {
        let Some(stream) = self.streams.get_mut(&end.stream) else {
            return;
        };
        let half = stream.half(end.side);
        if half.stage == Stage::Open && half.finish && half.queue.is_empty() && half.eof_heard {
            half.stage = Stage::Dying;
            self.scheduled
                .push((now, NetEvent::Close(end, CloseCause::Finished)));
        }
    }

    /// Tells the other end of `end` that the stream is gone.
    fn reset_from(&mut self, end: End, now: Instant) {
        let at = self.later(now);
        let Some(stream) = self.streams.get_mut(&end.stream) else {
            return;
        };
        let half = stream.half(end.side);
        half.forget_output();
        half.last_arrival = half.last_arrival.max(at);
        let at = half.last_arrival;
        if stream.accepted {
            self.scheduled.push((at, NetEvent::Rst(end.other())));
        }
    }

    fn die(&mut self, end: End, cause: CloseCause, now: Instant) {
        let Some(stream) = self.streams.get_mut(&end.stream) else {
            return;
        };
        let half = stream.half(end.side);
        half.stage = Stage::Dying;
        half.forget_output();
        half.arrived.clear();
        half.grant = None;
        self.scheduled.push((now, NetEvent::Close(end, cause)));
    }

    /// Forgets a stream that both ends have let go of.
    fn sweep(&mut self, id: u64) {
        let over = self.streams.get(&id).is_some_and(|s| {
            [&s.opener, &s.acceptor].iter().all(|h| {
                h.stage == Stage::Closed && h.kernel.is_empty() && (h.fin_on_wire || !h.finish)
            })
        });
        if over {
            self.streams.remove(&id);
        }
    }

    fn later(&mut self, now: Instant) -> Instant {
        Instant(now.0 + self.chance.within(self.weather.latency_ns.clone()))
    }
}
