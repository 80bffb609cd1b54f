//! A proxy under the contract's eyes, and the few words with which it is driven.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meshward_core::accept::{Mode, PortKind};
use meshward_core::api::authorization_policy::AuthorizationPolicy;
use meshward_core::api::load::{Text, load_for_enforcement};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::clock::{Deadline, Instant, Now};
use meshward_core::id::LinkId;
use meshward_core::link::{Buf, CloseCause, Entry, LinkCommand, LinkEvent};
use meshward_core::machine::{Machine, step};
use meshward_core::proxy::{Action, Input, Proxy};
use meshward_core::snapshot::ClientTls;
use meshward_core::snapshot::compile::{InboundSource, OutboundSource, Sources, snapshot};
use meshward_core::snapshot::select::Workload;
use meshward_core::telemetry::Record;
use meshward_simulator::campaign::Inspected;
use meshward_simulator::check::Checked;
use meshward_simulator::clock::{BIRTH, SharedClock};
use meshward_simulator::crypto::{self, Ca, Identity};
use meshward_simulator::mesh::svid;
use meshward_simulator::tls::{Offer, TlsClient};

pub(crate) const PORT: u16 = 8080;

/// What the proxy said about links and for the log.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) commands: Vec<(LinkId, LinkCommand)>,
    pub(crate) records: Vec<Record>,
}

impl Said {
    pub(crate) fn sent_to(&self, link: LinkId) -> Vec<u8> {
        let mut all = Vec::new();
        for (id, command) in &self.commands {
            if let (true, LinkCommand::Send { bytes, .. }) = (*id == link, command) {
                all.extend_from_slice(bytes);
            }
        }
        all
    }

    pub(crate) fn resets(&self, link: LinkId) -> bool {
        let is_reset =
            |(id, c): &(LinkId, LinkCommand)| *id == link && matches!(c, LinkCommand::Reset);
        self.commands.iter().any(is_reset)
    }

    pub(crate) fn finishes(&self, link: LinkId) -> bool {
        let is_fin =
            |(id, c): &(LinkId, LinkCommand)| *id == link && matches!(c, LinkCommand::Finish);
        self.commands.iter().any(is_fin)
    }

    /// The links that were opened, and where to.
    pub(crate) fn connects(&self) -> Vec<(LinkId, SocketAddr)> {
        let connect = |(id, c): &(LinkId, LinkCommand)| match c {
            LinkCommand::Connect { to, .. } => Some((*id, *to)),
            _ => None,
        };
        self.commands.iter().filter_map(connect).collect()
    }
}

/// The mesh of these tests: what the snapshots are made from.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) port: u16,
    pub(crate) kind: PortKind,
    pub(crate) mode: Mode,
}

pub(crate) fn http(mode: Mode) -> Port {
    Port {
        port: PORT,
        kind: PortKind::Http,
        mode,
    }
}

pub(crate) fn tcp(mode: Mode) -> Port {
    Port {
        port: PORT,
        kind: PortKind::Tcp,
        mode,
    }
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Sources with inbound ports alone.
pub(crate) fn sources(version: u64, ports: &[Port], policies: &str) -> Sources {
    let text = Text {
        name: "policies".into(),
        text: policies.into(),
    };
    let loaded = load_for_enforcement(&[text], "default").expect("policies of ours are valid");
    let policies: Arc<Vec<AuthorizationPolicy>> = Arc::new(loaded.authorization_policies);
    let inbound = ports.iter().zip(0..).map(|(port, listener)| InboundSource {
        listener,
        port: port.port,
        kind: port.kind,
        mode: Some(port.mode),
        upstream: SocketAddr::new([127, 0, 0, 1].into(), port.port),
        from: None,
        records: true,
        authorization_policies: Arc::clone(&policies),
        peer_authentications: Arc::default(),
        request_authentications: Arc::default(),
    });
    Sources {
        version,
        workload: Workload {
            namespace: "default".into(),
            labels: BTreeMap::from([("app".into(), "catalog".into())]),
        },
        mesh: MeshConfig::default(),
        inbound: inbound.collect(),
        outbound: Vec::new(),
    }
}

/// A destination of the workload's own calls; with `san` under mutual TLS.
pub(crate) fn outbound(
    service: &str,
    upstream: &str,
    kind: PortKind,
    san: Option<&str>,
) -> OutboundSource {
    OutboundSource {
        listener: 9,
        address: address(service),
        kind,
        upstream: address(upstream),
        cluster: "outbound|80||peer".into(),
        tls: san.map(|san| ClientTls {
            sni: "peer.default.svc.cluster.local".into(),
            subject_alt_names: vec![san.into()],
        }),
        records: true,
    }
}

pub(crate) const ALLOW_SLEEP: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: sleep-alone
  namespace: default
spec:
  action: ALLOW
  rules:
  - from:
    - source:
        principals: [\"cluster.local/ns/default/sa/sleep\"]
";

pub(crate) struct Bench {
    machine: Checked<Inspected>,
    pub(crate) ca: Ca,
    pub(crate) now: Now,
    slots: u32,
}

impl Bench {
    pub(crate) fn new(sources: &Sources) -> Self {
        let now = Now {
            at: Instant(0),
            wall: BIRTH,
        };
        let mut ca = Ca::new(1, BIRTH);
        let own = ca.issue("spiffe://cluster.local/ns/default/sa/catalog", BIRTH);
        let proxy = Proxy::new([1; 32], crypto::crypto(1), now);
        let mut bench = Self {
            machine: Checked::new(Inspected::new(proxy)),
            now,
            slots: 0,
            ca,
        };
        let own = svid(&own, &bench.ca, BIRTH);
        bench.hear(Input::Svid(own));
        bench.apply(sources);
        bench
    }

    pub(crate) fn hear(&mut self, input: Input) -> Said {
        let mut said = Said::default();
        step(&mut self.machine, input, self.now, |action| match action {
            Action::Link(id, command) => said.commands.push((id, command)),
            Action::Report(record) => said.records.push(*record),
            Action::Note(..) => {}
        });
        said
    }

    pub(crate) fn apply(&mut self, sources: &Sources) -> Said {
        let snapshot = snapshot(sources).expect("sources of ours compile");
        self.hear(Input::Snapshot(Arc::new(snapshot)))
    }

    pub(crate) fn on(&mut self, link: LinkId, event: LinkEvent) -> Said {
        self.hear(Input::Link(link, event))
    }

    fn accept(&mut self, entry: Entry, to: SocketAddr) -> (LinkId, Said) {
        let link = LinkId::accepted(self.slots, 1);
        self.slots += 1;
        let event = LinkEvent::Accepted {
            entry,
            peer: address("10.0.0.9:40000"),
            original_dst: to,
        };
        let said = self.on(link, event);
        (link, said)
    }

    pub(crate) fn inbound(&mut self) -> (LinkId, Said) {
        self.accept(Entry::Inbound, SocketAddr::new([10, 0, 0, 1].into(), PORT))
    }

    pub(crate) fn outbound(&mut self, to: &str) -> (LinkId, Said) {
        self.accept(Entry::Outbound, address(to))
    }

    pub(crate) fn receive(&mut self, link: LinkId, bytes: &[u8]) -> Said {
        self.on(link, LinkEvent::Received(Buf::from(bytes)))
    }

    pub(crate) fn connected(&mut self, link: LinkId) -> Said {
        let local = address("127.0.0.6:50000");
        self.on(link, LinkEvent::Connected { local })
    }

    pub(crate) fn eof(&mut self, link: LinkId) -> Said {
        self.on(link, LinkEvent::Eof)
    }

    pub(crate) fn closed(&mut self, link: LinkId, cause: CloseCause) -> Said {
        self.on(link, LinkEvent::Closed(cause))
    }

    /// Lets time pass, with a tick at each deadline.
    pub(crate) fn advance(&mut self, span: Duration) -> Said {
        let end = self.now.at.after(span);
        let mut all = Said::default();
        while let Some(due) = self.deadline().filter(|due| due.at <= end) {
            self.set_time(due.at);
            let said = self.hear(Input::Tick);
            all.commands.extend(said.commands);
            all.records.extend(said.records);
        }
        self.set_time(end);
        all
    }

    fn set_time(&mut self, at: Instant) {
        self.now.wall.0 += (at.0 - self.now.at.0) / 1_000_000;
        self.now.at = at;
    }

    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.machine.poll_timeout()
    }

    pub(crate) fn proxy(&self) -> &Proxy {
        self.machine.machine().proxy()
    }

    pub(crate) fn identity(&mut self, service_account: &str) -> Identity {
        let uri = format!("spiffe://cluster.local/ns/default/sa/{service_account}");
        self.ca.issue(&uri, self.now.wall)
    }

    pub(crate) fn tls_client(&mut self, service_account: &str, alpn: &[&[u8]]) -> TlsClient {
        let offer = Offer {
            identity: Some(self.identity(service_account)),
            alpn: alpn.iter().map(|a| a.to_vec()).collect(),
            sni: Some("catalog.default.svc.cluster.local".into()),
            tls12_only: false,
        };
        let clock = SharedClock::default();
        TlsClient::new(&offer, crypto::provider(7), Arc::new(clock)).expect("a client")
    }

    /// Carries bytes between `client` and the accepted `link` until both are quiet; what the client got in plain text.
    pub(crate) fn talk(&mut self, link: LinkId, client: &mut TlsClient) -> (Vec<u8>, Said) {
        let (mut plain, mut all) = (Vec::new(), Said::default());
        loop {
            let wire = client.take_wire();
            if wire.is_empty() {
                return (plain, all);
            }
            for piece in wire.chunks(16 * 1024) {
                let said = self.receive(link, piece);
                client.receive(&said.sent_to(link), &mut plain);
                all.commands.extend(said.commands);
                all.records.extend(said.records);
            }
        }
    }
}
