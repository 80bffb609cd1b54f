//! Runs drawn from seeds: clients of all kinds, applications with manners, faults, and a judge.
//!
//! [`Kind::Pair`] is two sidecars and an impostor, with everything that can happen between them; [`Kind::Mesh`] is a whole
//! mesh from YAML, with services, policies that change, and snapshots that come late ([`whole`]).

pub mod actors;
mod judge;
pub mod plan;
pub mod whole;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meshward_core::accept::PortKind;
use meshward_core::api::peer_authentication::Mode;
use meshward_core::clock::{Deadline, Instant, Now};
use meshward_core::link::Entry;
use meshward_core::machine::Machine;
use meshward_core::proxy::{Action, Input, Proxy};
use rustls::crypto::CryptoProvider;

use crate::chance::Chance;
use crate::clock::{BIRTH, SharedClock, WallClock};
use crate::crypto::{self, Ca, Identity};
use crate::mesh::{Call, Name, Port, Rules, Site, svid};
use crate::net;
use crate::peer::Speaker;
use crate::tls::{Offer, TlsClient};
use crate::trace::{Hash, Trace};
use crate::world::{Node, World};
use actors::{Actor, App, Client, Task};
use plan::{Caller, ConnPlan, Plan, Profile, Service, Version, at};

/// A proxy whose invariants are walked after every input.
#[derive(Debug)]
pub struct Inspected(Proxy);

impl Inspected {
    pub fn new(proxy: Proxy) -> Self {
        Self(proxy)
    }

    pub fn proxy(&self) -> &Proxy {
        &self.0
    }

    /// What it would still wake for.
    pub fn proxy_deadline(&self) -> Option<Deadline> {
        self.0.poll_timeout()
    }
}

impl Machine for Inspected {
    type Input = Input;
    type Action = Action;

    fn handle(&mut self, input: Input, now: Now) {
        self.0.handle(input, now);
        self.0.check();
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.0.poll_action()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.0.poll_timeout()
    }
}

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Pair,
    Mesh,
}

impl Kind {
    /// `pair` or `mesh`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "pair" => Some(Self::Pair),
            "mesh" => Some(Self::Mesh),
            _ => None,
        }
    }

    /// A quarter of all seeds are meshes.
    pub fn of(seed: u64) -> Self {
        if Chance::new(seed, KIND_CHANCE).one_in(4) {
            Self::Mesh
        } else {
            Self::Pair
        }
    }

    /// The plan of `seed` in words.
    pub fn plan(self, seed: u64, profile: Option<Profile>) -> String {
        match self {
            Self::Pair => Plan::draw(seed, profile).to_string(),
            Self::Mesh => whole::plan::Plan::draw(seed, profile).to_string(),
        }
    }

    /// Runs the plan of `seed` to its end.
    pub fn run(self, seed: u64, profile: Option<Profile>, trace: Trace) -> Outcome {
        match self {
            Self::Pair => run(seed, profile, trace),
            Self::Mesh => whole::run(seed, profile, trace),
        }
    }
}

/// The purpose of the draw of [`Kind::of`].
const KIND_CHANCE: u64 = 6;

/// What came of one run.
#[derive(Debug)]
pub struct Outcome {
    pub hash: Hash,
    pub requests: usize,
    pub net: net::Stats,
    pub answered: usize,
    pub denied: usize,
    pub arrived: usize,
    /// What all machines heard and said, a line each, if the trace keeps lines.
    pub lines: Vec<String>,
    /// Every broken promise, in words. Empty is good.
    pub violations: Vec<String>,
}

type Sim = World<Inspected, Speaker<Actor>>;

/// Processes and peers by what they are.
mod who {
    pub(super) const FRONT: usize = 0;
    pub(super) const CATALOG: usize = 1;
    pub(super) const IMPOSTOR: usize = 2;
    pub(super) const SHOP: usize = 0;
    pub(super) const OUTSIDE: usize = 1;
    pub(super) const CATALOG_APP: usize = 2;
    pub(super) const ECHO: usize = 3;
    pub(super) const IMPOSTOR_APP: usize = 4;
}

/// Longer than every timeout that a proxy or a kernel has.
const LONG: Duration = Duration::from_secs(4 * 3600);

/// Longer than the patience of every client and of the kernel: what is still under way then is stuck.
const SETTLED: Duration = Duration::from_secs(20 * 60);

/// The seed of run `number` under `base`, which is a number or any text: no two runs of one base share it, and neighbours
/// have nothing in common.
pub fn seed_of(base: &str, number: u64) -> u64 {
    let base = base.parse().unwrap_or_else(|_| {
        let mut hash = Hash::default();
        hash.write(base.as_bytes());
        hash.low()
    });
    let mut hash = Hash::default();
    hash.write(&u64::to_le_bytes(base));
    hash.write(&number.to_le_bytes());
    hash.low()
}

/// Runs the plan of `seed` for two sidecars to its end.
pub fn run(seed: u64, profile: Option<Profile>, trace: Trace) -> Outcome {
    let plan = Plan::draw(seed, profile);
    let mut world: Sim = World::new(seed, plan.weather.clone(), trace);
    let cast = Cast::new(seed, world.shared_clock());
    populate(&mut world, &plan, &cast);
    world.exhaust(SETTLED);
    let busy = judge::busy(&world);
    let over = world.exhaust(LONG);
    judge::judge(&plan, &mut world, over, busy)
}

/// Everybody's certificates.
struct Cast {
    seed: u64,
    mesh: Ca,
    front: Identity,
    catalog: Identity,
    impostor: Identity,
    other: Identity,
    /// Of front, catalog and impostor, for later.
    renewed: [Identity; 3],
    foreigner: Identity,
    stranger: Identity,
    provider: Arc<CryptoProvider>,
    clock: SharedClock,
}

fn name(trust_domain: &str, service_account: &str) -> Name {
    Name {
        trust_domain: trust_domain.into(),
        namespace: "default".into(),
        service_account: service_account.into(),
    }
}

impl Cast {
    fn new(seed: u64, clock: SharedClock) -> Self {
        let mut mesh = Ca::new(seed, BIRTH);
        let mut elsewhere = Ca::new(!seed, BIRTH);
        let mut issue = |sa| mesh.issue(&name("cluster.local", sa).uri(), BIRTH);
        Self {
            seed,
            front: issue("front"),
            catalog: issue("catalog"),
            impostor: issue("impostor"),
            other: issue("other"),
            foreigner: mesh.issue(&name("elsewhere.example", "front").uri(), BIRTH),
            renewed: ["front", "catalog", "impostor"]
                .map(|sa| mesh.issue(&name("cluster.local", sa).uri(), BIRTH)),
            stranger: elsewhere.issue(&name("cluster.local", "front").uri(), BIRTH),
            mesh,
            provider: crypto::provider(seed ^ 0x5eed),
            clock,
        }
    }

    fn offer(&self, conn: &ConnPlan) -> Option<TlsClient> {
        let identity = match conn.caller {
            Caller::Sidecar | Caller::SidecarToImpostor | Caller::Plain => return None,
            Caller::Tls { front: true } => Some(self.front.clone()),
            Caller::Tls { front: false } => Some(self.other.clone()),
            Caller::Stranger => Some(self.stranger.clone()),
            Caller::Foreigner => Some(self.foreigner.clone()),
            Caller::Nameless => None,
        };
        let alpn: &[&[u8]] = match conn.service {
            Service::Http => &[b"istio-http/1.1", b"istio", b"http/1.1"],
            Service::Tcp => &[b"istio-peer-exchange", b"istio"],
        };
        let offer = Offer {
            identity,
            alpn: alpn.iter().map(|a| a.to_vec()).collect(),
            sni: Some("outbound_.80_._.catalog.default.svc.cluster.local".into()),
            tls12_only: conn.requests.len().is_multiple_of(2),
        };
        let client = TlsClient::new(
            &offer,
            Arc::clone(&self.provider),
            Arc::new(self.clock.clone()),
        );
        Some(client.expect("an offer of ours can be made"))
    }
}

fn populate(world: &mut Sim, plan: &Plan, cast: &Cast) {
    let identities = [&cast.front, &cast.catalog, &cast.impostor];
    let ips = [at::FRONT, at::CATALOG_HTTP.ip(), at::IMPOSTOR.ip()];
    let mut seeds = Chance::new(cast.seed, 4);
    for (index, (identity, ip)) in identities.into_iter().zip(ips).enumerate() {
        let clock = WallClock::skewed(plan.skew_ms[index]);
        let crypto = crypto::crypto(cast.seed ^ (index as u64 + 1) << 32);
        let proxy = Proxy::new(seeds.seed(), crypto, clock.read(Instant(0)));
        world.add_process(Inspected::new(proxy), ip, clock);
        let first = svid(identity, &cast.mesh, BIRTH);
        world.inject(index, Input::Svid(first), Duration::ZERO);
        for (version, rules) in (1..).zip(&plan.versions) {
            let snapshot = sites(rules)[index].snapshot(
                &Rules::read(&rules.rules()).expect("policies of ours are valid"),
                version,
            );
            let delay = match version {
                1 => Duration::ZERO,
                _ => plan.change_at[index],
            };
            world.inject(index, Input::Snapshot(snapshot), delay);
        }
        if let Some(delay) = plan.renew_at[index] {
            let renewed = svid(&cast.renewed[index], &cast.mesh, BIRTH);
            world.inject(index, Input::Svid(renewed), delay);
        }
        if let Some((process, delay, skew)) = plan.clock_jump
            && process == index
        {
            world.set_clock(index, WallClock::skewed(skew), delay);
        }
        if let Some(delay) = plan.drain_at {
            let grace = Duration::from_secs(5);
            world.inject(index, Input::Drain { grace }, delay);
        }
    }
    let of_sidecar =
        |c: &&ConnPlan| matches!(c.caller, Caller::Sidecar | Caller::SidecarToImpostor);
    let tasks = |conns: Vec<&ConnPlan>| {
        let task = |c: &ConnPlan| Task {
            plan: c.clone(),
            to: target(c),
            tls: cast.offer(c),
        };
        Actor::Client(Client::new(conns.into_iter().map(task).collect()))
    };
    let shop = tasks(plan.conns.iter().filter(of_sidecar).collect());
    let outside = tasks(plan.conns.iter().filter(|c| !of_sidecar(c)).collect());
    let app = || Actor::App(App::new(cast.seed, plan.manners));
    for (actor, ip) in [
        (shop, at::FRONT),
        (outside, at::OUTSIDE),
        (app(), at::CATALOG_APP.ip()),
        (Actor::Echo, at::ECHO_APP.ip()),
        (app(), at::IMPOSTOR_APP.ip()),
    ] {
        world.add_peer(Speaker::new(actor), ip);
    }
    // Clients have something to do before anybody speaks to them.
    for peer in [who::SHOP, who::OUTSIDE] {
        world.poke(peer, |_, _, _| ());
    }
    for (address, node, entry) in [
        (at::SERVICE_HTTP, Node::Process(who::FRONT), Entry::Outbound),
        (at::SERVICE_TCP, Node::Process(who::FRONT), Entry::Outbound),
        (
            at::SERVICE_IMPOSTOR,
            Node::Process(who::FRONT),
            Entry::Outbound,
        ),
        (
            at::CATALOG_HTTP,
            Node::Process(who::CATALOG),
            Entry::Inbound,
        ),
        (at::CATALOG_TCP, Node::Process(who::CATALOG), Entry::Inbound),
        (at::IMPOSTOR, Node::Process(who::IMPOSTOR), Entry::Inbound),
        (
            at::CATALOG_APP,
            Node::Peer(who::CATALOG_APP),
            Entry::Inbound,
        ),
        (at::ECHO_APP, Node::Peer(who::ECHO), Entry::Inbound),
        (
            at::IMPOSTOR_APP,
            Node::Peer(who::IMPOSTOR_APP),
            Entry::Inbound,
        ),
    ] {
        world.listen(node, address, entry);
    }
}

fn target(conn: &ConnPlan) -> SocketAddr {
    match (conn.caller, conn.service) {
        (Caller::SidecarToImpostor, _) => at::SERVICE_IMPOSTOR,
        (Caller::Sidecar, Service::Http) => at::SERVICE_HTTP,
        (Caller::Sidecar, Service::Tcp) => at::SERVICE_TCP,
        (_, Service::Http) => at::CATALOG_HTTP,
        (_, Service::Tcp) => at::CATALOG_TCP,
    }
}

/// front, catalog and impostor.
fn sites(rules: &Version) -> [Site; 3] {
    let expected = if rules.expects_other {
        "other"
    } else {
        "catalog"
    };
    let san = name("cluster.local", expected).uri();
    let call = |service: SocketAddr, host: &str, upstream, kind| {
        let port = service.port();
        Call {
            service,
            cluster: format!("outbound|{port}||{host}.default.svc.cluster.local"),
            kind,
            upstream,
            tls: (rules.mode != Mode::Disable).then(|| {
                let sni = format!("outbound_.{port}_._.{host}.default.svc.cluster.local");
                (sni, san.clone())
            }),
        }
    };
    let port = |port, kind, app| Port { port, kind, app };
    let site = |label: &str, ip, ports, calls| Site {
        label: label.into(),
        name: name("cluster.local", label),
        ip,
        ports,
        calls,
    };
    [
        site(
            "front",
            at::FRONT,
            vec![],
            vec![
                call(
                    at::SERVICE_HTTP,
                    "catalog",
                    at::CATALOG_HTTP,
                    PortKind::Http,
                ),
                call(at::SERVICE_TCP, "catalog", at::CATALOG_TCP, PortKind::Tcp),
                call(at::SERVICE_IMPOSTOR, "other", at::IMPOSTOR, PortKind::Http),
            ],
        ),
        site(
            "catalog",
            at::CATALOG_HTTP.ip(),
            vec![
                port(8080, PortKind::Http, at::CATALOG_APP),
                port(9000, PortKind::Tcp, at::ECHO_APP),
            ],
            vec![],
        ),
        site(
            "impostor",
            at::IMPOSTOR.ip(),
            vec![port(8080, PortKind::Http, at::IMPOSTOR_APP)],
            vec![],
        ),
    ]
}
