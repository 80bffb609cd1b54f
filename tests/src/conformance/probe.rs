//! One handshake in a world of its own: a client, the sidecar if there is one, and the application behind it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use meshward_core::accept::PortKind;
use meshward_core::clock::{Instant, Now};
use meshward_core::id::LinkId;
use meshward_core::link::{Entry, LinkCommand, LinkEvent};
use meshward_core::proxy::{Input, Proxy};
use meshward_core::spiffe::Svid;
use meshward_core::tls::Crypto;
use meshward_simulator::campaign::Inspected;
use meshward_simulator::clock::{BIRTH, WallClock};
use meshward_simulator::http::Reader;
use meshward_simulator::net::Weather;
use meshward_simulator::trace::Trace;
use meshward_simulator::world::{Node, Peer, World};

use super::app::App;
use super::cert::{Authorities, MESH, Spec};
use super::client::{Client, Journal, Offer};
use super::corpus::{self, Case, Workload};
use super::mesh::{Rules, app_address, port_kinds};

/// What a probe saw.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) handshake: &'static str,
    pub(super) journal: Journal,
    /// Status of the answer to `GET /`, where it was asked and answered.
    pub(super) http_status: Option<u16>,
    pub(super) curl_exit: Option<u8>,
}

/// How long the probe waits after the handshake (FORMAT.md).
const WAIT: Duration = Duration::from_secs(1);
/// How long it waits for anything else.
const PATIENCE: Duration = Duration::from_secs(10);
/// A bare client (FORMAT.md).
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));

/// Errors are for people: what of the check cannot be set up. `ask`: a request follows the handshake.
pub(super) fn probe(
    case: &Case,
    rules: &Rules,
    authorities: &mut Authorities,
    workload: &Workload,
    port: u16,
    client: &corpus::Client,
    ask: bool,
) -> Result<Seen, String> {
    if ask && App::calls_others(&workload.app, "/") {
        return Err(
            "the application calls others before it answers, which nothing does here".into(),
        );
    }
    let mut world = World::new(1, Weather::calm(), Trace::default());
    let clock = || Arc::new(world.shared_clock());
    let (client_clock, app_clock) = (clock(), clock());
    let address = SocketAddr::new(workload.ip, port);
    let identity = client
        .cert
        .as_ref()
        .map(|spec| authorities.issue(spec))
        .transpose()?;
    let offer = Offer {
        version: client.version,
        alpn: client.alpn.clone(),
        identity,
        sni: client.sni.clone(),
    };
    let prober = Client::new(offer, client_clock)?;
    let prober = world.add_peer(Party::Client(prober), CLIENT);

    let kind = port_kinds(&case.mesh, workload).get(&port).copied();
    let shown = authorities.issue(&Spec {
        uris: Vec::new(),
        dns: vec![format!("{}.{}", workload.name, workload.namespace)],
        ca: "public".into(),
        ..Spec::of("")
    })?;
    let app = App::new(
        &workload.app,
        port,
        kind.unwrap_or(PortKind::Auto),
        &shown,
        app_clock,
    )?;
    let app = Node::Peer(world.add_peer(Party::App(app), workload.ip));
    if workload.sidecar {
        let clock = WallClock::default();
        let proxy = Proxy::new([7; 32], Crypto::production(), clock.read(Instant(0)));
        let process = world.add_process(Inspected::new(proxy), workload.ip, clock);
        let svid = svid_of(workload, rules, authorities)?;
        world.inject(process, Input::Svid(svid), Duration::ZERO);
        let snapshot = rules.snapshot(&case.mesh, workload, port)?;
        world.inject(process, Input::Snapshot(snapshot), Duration::ZERO);
        world.settle();
        world.listen(Node::Process(process), address, Entry::Inbound);
        world.listen(app, app_address(port), Entry::Inbound);
    } else {
        world.listen(app, address, Entry::Inbound);
    }

    act(&mut world, prober, |client, out| {
        client.connect(address, out)
    });
    world.settle();
    if journal(&world, prober).handshake() == "no answer" {
        world.advance(PATIENCE);
    }
    world.advance(WAIT);
    let seen = journal(&world, prober).clone();
    let handshake = seen.handshake();
    let mut http_status = None;
    if ask && handshake == "ok" {
        let before = seen.plain.len();
        let host = client.sni.clone().unwrap_or_else(|| address.to_string());
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\naccept: */*\r\n\r\n");
        act(&mut world, prober, |client, out| {
            client.send(request.as_bytes(), out);
        });
        world.settle();
        world.advance(PATIENCE);
        let plain = &journal(&world, prober).plain;
        let mut reader = Reader::of_responses();
        reader.push(plain.get(before..).unwrap_or_default());
        let answers = reader.messages().iter().map(|answer| answer.status());
        http_status = answers.into_iter().find(|status| *status >= 200);
    }
    let after = journal(&world, prober);
    Ok(Seen {
        handshake,
        curl_exit: after.curl_exit(http_status.is_some()),
        http_status,
        journal: seen,
    })
}

fn svid_of(
    workload: &Workload,
    rules: &Rules,
    authorities: &mut Authorities,
) -> Result<Arc<Svid>, String> {
    let domain = match &workload.trust_domain {
        Some(own) => own,
        None => rules.trust_domain(),
    };
    let uri = format!(
        "spiffe://{domain}/ns/{}/sa/{}",
        workload.namespace, workload.service_account
    );
    let identity = authorities.issue(&Spec::of(&uri))?;
    let svid = Svid::from_pem(
        identity.chain_pem.as_bytes(),
        identity.key_pem.as_bytes(),
        authorities.root_pem(MESH)?.as_bytes(),
        BIRTH,
    );
    svid.map(Arc::new).map_err(|error| error.to_string())
}

type Probing = World<Inspected, Party>;

fn act(
    world: &mut Probing,
    client: usize,
    act: impl FnOnce(&mut Client, &mut Vec<(LinkId, LinkCommand)>),
) {
    world.poke(client, |party, _, out| {
        if let Party::Client(client) = party {
            act(client, out);
        }
    });
}

fn journal(world: &Probing, client: usize) -> &Journal {
    match world.peer(client) {
        Party::Client(client) => &client.journal,
        Party::App(_) => unreachable!("the client came first"),
    }
}

#[derive(Debug)]
enum Party {
    Client(Client),
    App(App),
}

impl Peer for Party {
    fn on(&mut self, link: LinkId, event: LinkEvent, _: Now, out: &mut Vec<(LinkId, LinkCommand)>) {
        match self {
            Self::Client(client) => client.on(event, out),
            Self::App(app) => app.on(link, event, out),
        }
    }
}
