//! Where clients, sidecars and applications meet. The parties are the same everywhere; stages differ in what carries their
//! bytes, and whose time passes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use meshward_core::clock::Now;
use meshward_core::id::LinkId;
use meshward_core::link::{Entry, LinkEvent};
use meshward_core::proxy::{Input, Proxy};
use meshward_core::snapshot::Snapshot;
use meshward_core::spiffe::Svid;
use meshward_core::telemetry::Record;
use meshward_simulator::campaign::Inspected;
use meshward_simulator::clock::WallClock;
use meshward_simulator::crypto;
use meshward_simulator::net::Weather;
use meshward_simulator::trace::Trace;
use meshward_simulator::world::{Node, Peer, World};
use rustls::time_provider::TimeProvider;

use super::app::App;
use super::caller::{Caller, Out, READ};

/// Anybody but a sidecar.
#[derive(Debug)]
pub(super) enum Party {
    Caller(Box<Caller>),
    App(Box<App>),
    Ear(Ear),
}

/// Listens, and says nothing.
#[derive(Debug, Default)]
pub(super) struct Ear {
    pub(super) accepted: u32,
    pub(super) heard: Vec<u8>,
}

impl Party {
    pub(super) fn on(&mut self, link: LinkId, event: LinkEvent, out: &mut Out) {
        match self {
            Self::Caller(caller) => caller.on(event, out),
            Self::App(app) => app.on(link, event, out),
            Self::Ear(ear) => match event {
                LinkEvent::Accepted { .. } => {
                    ear.accepted += 1;
                    out.push((link, READ));
                }
                LinkEvent::Received(bytes) => {
                    ear.heard.extend_from_slice(&bytes);
                    out.push((link, READ));
                }
                LinkEvent::Connected { .. }
                | LinkEvent::Sent(_)
                | LinkEvent::Eof
                | LinkEvent::Closed(_) => {}
            },
        }
    }

    pub(super) fn caller(&mut self) -> Option<&mut Caller> {
        match self {
            Self::Caller(caller) => Some(caller),
            Self::App(_) | Self::Ear(_) => None,
        }
    }

    pub(super) fn app(&mut self) -> Option<&mut App> {
        match self {
            Self::App(app) => Some(app),
            Self::Caller(_) | Self::Ear(_) => None,
        }
    }
}

/// Parties and sidecars are known by their numbers, each kind by its own. Errors are for people: what the stage has no
/// place for.
pub(super) trait Stage {
    fn now(&self) -> Now;

    /// What TLS of parties takes for the time.
    fn clock(&self) -> Arc<dyn TimeProvider>;

    /// How long an answer is waited for.
    fn patience(&self) -> Duration;

    /// How long to wait before it is looked again.
    fn step(&self) -> Duration;

    /// How much later something may be seen than it is through.
    fn lag(&self) -> Duration;

    /// `captured`: the sidecar that takes whatever this party opens.
    fn add_party(
        &mut self,
        party: Party,
        ip: IpAddr,
        captured: Option<usize>,
    ) -> Result<usize, String>;

    fn add_sidecar(
        &mut self,
        ip: IpAddr,
        svid: Arc<Svid>,
        snapshot: Arc<Snapshot>,
        doors: &[SocketAddr],
    ) -> Result<usize, String>;

    fn listen(&mut self, party: usize, address: SocketAddr) -> Result<(), String>;

    /// Lets a party do something, or look at it.
    fn act(&mut self, party: usize, act: &mut dyn FnMut(&mut Party, &mut Out));

    /// Lets everything happen that is under way.
    fn settle(&mut self);

    /// Lets time pass, and what is due in it happen.
    fn pass(&mut self, span: Duration);

    /// What sidecars reported since this was asked last.
    fn take_records(&mut self) -> Vec<(usize, Record)>;

    /// How many links a sidecar opened.
    fn connects(&self, sidecar: usize) -> Result<u64, String>;
}

/// Virtual time in a calm world.
#[derive(Debug)]
pub(super) struct Simulated {
    world: World<Inspected, Party>,
    told: usize,
}

impl Simulated {
    pub(super) fn new() -> Self {
        Self {
            world: World::new(SEED, Weather::calm(), Trace::default()),
            told: 0,
        }
    }
}

const SEED: u64 = 1;

impl Peer for Party {
    fn on(&mut self, link: LinkId, event: LinkEvent, _: Now, out: &mut Out) {
        Self::on(self, link, event, out);
    }
}

impl Stage for Simulated {
    fn now(&self) -> Now {
        WallClock::default().read(self.world.now())
    }

    fn clock(&self) -> Arc<dyn TimeProvider> {
        Arc::new(self.world.shared_clock())
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(180)
    }

    fn step(&self) -> Duration {
        Duration::from_millis(250)
    }

    fn lag(&self) -> Duration {
        Duration::ZERO
    }

    fn add_party(
        &mut self,
        party: Party,
        ip: IpAddr,
        captured: Option<usize>,
    ) -> Result<usize, String> {
        let party = self.world.add_peer(party, ip);
        if let Some(sidecar) = captured {
            self.world.capture(party, sidecar);
        }
        Ok(party)
    }

    fn add_sidecar(
        &mut self,
        ip: IpAddr,
        svid: Arc<Svid>,
        snapshot: Arc<Snapshot>,
        doors: &[SocketAddr],
    ) -> Result<usize, String> {
        let clock = WallClock::default();
        let number = self.world.processes().len() as u64 + 1;
        let now = clock.read(self.world.now());
        let crypto = crypto::crypto(SEED ^ number << 40);
        let proxy = Proxy::new([number as u8; 32], crypto, now);
        let process = self.world.add_process(Inspected::new(proxy), ip, clock);
        for input in [Input::Svid(svid), Input::Snapshot(snapshot)] {
            self.world.inject(process, input, Duration::ZERO);
        }
        for door in doors {
            self.world
                .listen(Node::Process(process), *door, Entry::Inbound);
        }
        Ok(process)
    }

    fn listen(&mut self, party: usize, address: SocketAddr) -> Result<(), String> {
        self.world
            .listen(Node::Peer(party), address, Entry::Inbound);
        Ok(())
    }

    fn act(&mut self, party: usize, act: &mut dyn FnMut(&mut Party, &mut Out)) {
        self.world.poke(party, |party, _, out| act(party, out));
    }

    fn settle(&mut self) {
        self.world.settle();
    }

    fn pass(&mut self, span: Duration) {
        self.world.advance(span);
    }

    fn take_records(&mut self) -> Vec<(usize, Record)> {
        let reports = &self.world.reports()[self.told..];
        self.told += reports.len();
        reports
            .iter()
            .map(|reported| (reported.process, reported.record.clone()))
            .collect()
    }

    fn connects(&self, sidecar: usize) -> Result<u64, String> {
        let machine = self.world.process(sidecar).machine();
        Ok(machine.proxy().stats().upstream_connects)
    }
}
