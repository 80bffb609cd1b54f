//! The data plane of one workload identity on one shard.
//!
//! Bytes of a downstream link (somebody opened it to us) become requests or stay opaque; each is judged
//! ([`decide`]), and with a `Permit` it goes out on an upstream link (we opened it). The five steps are the
//! same in every role: `Wire` (TLS or nothing), the HTTP converter, the exchange, the converter and the `Wire` of the other
//! side. The roles differ in what decides, not in plumbing.

mod downstream;
mod exchange;
mod http;
mod link;
mod opaque;
mod request;
mod rewrite;
mod said;
mod upstream;
mod world;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::authn::Cache;
use crate::clock::{Deadline, Instant, Now};
use crate::decide;
use crate::http::head::{FieldTable, RequestHead};
use crate::id::{LinkId, Table};
use crate::link::{LinkCommand, LinkEvent};
use crate::machine::Machine;
use crate::rng::{Purpose, Rng};
use crate::snapshot::Snapshot;
use crate::spiffe::Svid;
use crate::telemetry::Record;
use crate::telemetry::levels::{Levels, Scope};
use crate::timer::Timers;
use crate::tls::Crypto;

use downstream::Downstream;
use upstream::Upstream;
use world::World;

/// What a shell tells a [`Proxy`].
#[derive(Debug)]
pub enum Input {
    /// Something happened to a link.
    Link(LinkId, LinkEvent),
    /// A new configuration. What was decided stays; new requests and links see this one.
    Snapshot(Arc<Snapshot>),
    /// A new certificate, key and trust bundle. Links that are open stay; new handshakes use it.
    Svid(Arc<Svid>),
    /// What to say beside the access log, from now on.
    Levels(Levels),
    /// Finish what is open and take no new requests; what is left after `grace` is reset.
    Drain { grace: Duration },
    /// Time went on.
    Tick,
}

/// What a [`Proxy`] tells its shell.
#[derive(Debug)]
pub enum Action {
    /// Do something with a link.
    Link(LinkId, LinkCommand),
    /// A fact for the access log.
    Report(Box<Record>),
    /// For people who look closely: why a link ended before its time (a limit, a failed handshake, a broken protocol), and
    /// with [`Input::Levels`] how decisions came out. Holds no byte of a peer.
    Note(LinkId, Scope, Cow<'static, str>),
}

/// What happened so far. Counters only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Inputs for links that are dead or never were.
    pub stale: u64,
    pub accepted: u64,
    /// TLS handshakes with a peer whose certificate was accepted, as server.
    pub handshakes: u64,
    /// TLS handshakes that failed, as server.
    pub handshake_failures: u64,
    /// Connections that no cell of the accept matrix takes (S-28).
    pub refused: u64,
    pub requests: u64,
    /// Requests and connections that policies refused.
    pub denied: u64,
    /// Messages that broke their protocol.
    pub violations: u64,
    /// Links that a limit ended: a timeout, a size.
    pub limited: u64,
    pub upstream_connects: u64,
    pub upstream_failures: u64,
}

/// Through which door of the workload a link came in. The snapshot says what it means now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Inbound(u16),
    Outbound(SocketAddr),
}

/// The data plane of one workload identity on one shard.
#[derive(Debug)]
pub struct Proxy {
    downstreams: Table<LinkId, Box<Downstream>>,
    upstreams: Table<LinkId, Box<Upstream>>,
    shared: Shared,
}

/// What every link needs.
#[derive(Debug)]
struct Shared {
    world: World,
    timers: Timers,
    actions: VecDeque<Action>,
    /// Scratch of the head that is being read.
    fields: FieldTable,
    /// Scratch of the head that is being written.
    head: Vec<u8>,
    date: rewrite::Date,
    rng: Rng,
    /// Chooses between endpoints.
    balance: Rng,
    /// Tokens that were verified.
    tokens: Cache,
    stats: Stats,
    now: Now,
    levels: Levels,
    /// Draining, until this instant.
    drain: Option<Instant>,
    /// The instant has come: everything was let go of, and only `Closed` is awaited.
    drained: bool,
}

/// The head of a request of the application as it goes out of its sidecar: what [`explain`](crate::explain) carries on.
/// The request id of one that came without is the same every time.
pub(crate) fn forwarded(head: &RequestHead<'_>, path: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rng = Rng::new([0; 32], Purpose::RequestId);
    let passed = rewrite::Passed {
        head,
        path,
        fields: decide::believed(head.lines(), false),
    };
    rewrite::request(passed, &mut rng, &mut bytes);
    bytes
}

impl Shared {
    fn note(&mut self, link: LinkId, what: impl Into<Cow<'static, str>>) {
        let note = Action::Note(link, Scope::Connection, what.into());
        self.actions.push_back(note);
    }
}

impl Proxy {
    /// A proxy without a configuration and an identity: it refuses everything until it has them.
    ///
    /// `seed` feeds what has to be unpredictable outside of cryptography (request ids); the shell draws it.
    pub fn new(seed: [u8; 32], crypto: Crypto, now: Now) -> Self {
        let world = World::new(crypto);
        world.wall.set(now.wall);
        Self {
            downstreams: Table::default(),
            upstreams: Table::default(),
            shared: Shared {
                world,
                timers: Timers::default(),
                actions: VecDeque::new(),
                fields: FieldTable::default(),
                head: Vec::new(),
                date: rewrite::Date::default(),
                rng: Rng::new(seed, Purpose::RequestId),
                balance: Rng::new(seed, Purpose::Balance),
                tokens: Cache::default(),
                stats: Stats::default(),
                now,
                levels: Levels::default(),
                drain: None,
                drained: false,
            },
        }
    }

    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Links that have not seen their `Closed`.
    pub fn links(&self) -> usize {
        self.downstreams.len() + self.upstreams.len()
    }

    /// Upstream links that wait for a request.
    pub fn pooled(&self) -> usize {
        self.shared.world.pools.iter().map(|p| p.idle.len()).sum()
    }

    /// What the machine is waiting for, a line for each link.
    pub fn pending(&self) -> Vec<String> {
        let downstreams = self
            .downstreams
            .iter()
            .map(|(_, _, d)| format!("{:?} {}", d.io.id, d.waits_for()));
        let upstreams = self
            .upstreams
            .iter()
            .map(|(_, _, u)| format!("{:?} {}", u.io.id, u.waits_for()));
        downstreams.chain(upstreams).collect()
    }

    fn on_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        if snapshot.version < self.shared.world.snapshot.version {
            return;
        }
        let rules = snapshot.inbound.values().map(|port| port.authn.as_ref());
        self.shared.tokens.keep(rules);
        let orphans = self.shared.world.set_snapshot(snapshot);
        self.retire(&orphans);
        self.each_downstream(Self::recheck);
    }

    fn on_svid(&mut self, svid: Arc<Svid>) {
        let orphans = self.shared.world.set_svid(svid);
        self.retire(&orphans);
    }

    fn retire(&mut self, pooled: &[LinkId]) {
        for id in pooled {
            if let Some(u) = self.upstreams.get_mut(*id) {
                u.retire_if_idle(&mut self.shared);
            }
        }
    }

    fn on_drain(&mut self, grace: Duration) {
        if self.shared.drained {
            return;
        }
        self.shared.drain = Some(self.shared.now.at.after(grace));
        self.each_downstream(Self::drain_one);
        for id in self.upstream_ids() {
            if let Some(u) = self.upstreams.get_mut(id) {
                u.retire_if_idle(&mut self.shared);
            }
        }
    }

    fn on_time(&mut self) {
        let now = self.shared.now.at;
        if !self.shared.drained && self.shared.drain.is_some_and(|end| end <= now) {
            self.end_drain();
        }
        while let Some(id) = self.shared.timers.pop(now) {
            if id.is_accepted() {
                self.on_downstream_time(id);
            } else {
                self.on_upstream_time(id);
            }
        }
    }

    fn end_drain(&mut self) {
        self.shared.drained = true;
        self.each_downstream(|proxy, id| {
            if let Some(d) = proxy.downstreams.get_mut(id) {
                d.give_up(&mut proxy.upstreams, &mut proxy.shared);
            }
        });
        for id in self.upstream_ids() {
            if let Some(u) = self.upstreams.get_mut(id) {
                u.let_go(&mut self.shared);
            }
        }
    }

    fn each_downstream(&mut self, mut act: impl FnMut(&mut Self, LinkId)) {
        let ids: Vec<LinkId> = self.downstreams.iter().map(|(_, _, d)| d.io.id).collect();
        for id in ids {
            act(self, id);
        }
    }

    fn upstream_ids(&self) -> Vec<LinkId> {
        self.upstreams.iter().map(|(_, _, u)| u.io.id).collect()
    }

    /// Asserts what must hold between inputs. Called with every input in debug builds and by the simulator.
    pub fn check(&self) {
        self.shared.timers.check(self.shared.now.at);
        for (_, _, d) in self.downstreams.iter() {
            d.check(&self.upstreams);
        }
        for (_, _, u) in self.upstreams.iter() {
            u.check(&self.downstreams);
        }
    }
}

impl Machine for Proxy {
    type Input = Input;
    type Action = Action;

    fn handle(&mut self, input: Input, now: Now) {
        assert!(now.at >= self.shared.now.at, "time runs forward");
        assert!(
            self.shared.actions.is_empty(),
            "the driver drains between inputs"
        );
        if now.wall != self.shared.now.wall {
            self.shared.world.wall.set(now.wall);
        }
        self.shared.now = now;
        match input {
            Input::Link(id, event) if id.is_accepted() => self.on_downstream(id, event),
            Input::Link(id, event) => self.on_upstream(id, event),
            Input::Snapshot(snapshot) => self.on_snapshot(snapshot),
            Input::Svid(svid) => self.on_svid(svid),
            Input::Levels(levels) => self.shared.levels = levels,
            Input::Drain { grace } => self.on_drain(grace),
            Input::Tick => {}
        }
        self.on_time();
        if cfg!(debug_assertions) {
            self.check();
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.shared.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let drain = self
            .shared
            .drain
            .filter(|_| !self.shared.drained && self.links() > 0)
            .map(|at| Deadline {
                at,
                why: "drain grace",
            });
        match (self.shared.timers.next(), drain) {
            (Some(a), Some(b)) => Some(if b.at < a.at { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}
