//! A proxy of one workload with scripted clients and applications around it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::accept::{Mode, PortKind};
use crate::api::load::{Text, load_for_enforcement};
use crate::api::mesh_config::MeshConfig;
use crate::clock::{Instant, Now, UnixTime};
use crate::id::LinkId;
use crate::link::{Buf, CloseCause, Entry, LinkCommand, LinkEvent};
use crate::machine::Machine;
use crate::pii::Pii;
use crate::proxy::{Action, Input, Proxy};
use crate::snapshot::compile::{InboundSource, OutboundSource, Sources, snapshot};
use crate::snapshot::select::Workload;
use crate::snapshot::{Outbound, Snapshot};
use crate::spiffe::{SpiffeId, Svid, TrustBundle};
use crate::telemetry::Record;
use crate::telemetry::levels::Scope;
use crate::tls::{ChainKind, ClientTls, Crypto, Session, TlsEvent, WallClock};

/// 2026-01-02T03:04:05Z
const WALL: UnixTime = UnixTime(1_767_323_045_000);
const CLIENT: &str = "10.0.0.9:40000";
const INBOUND: &str = "10.0.0.1:8080";
const OUTBOUND: &str = "10.96.0.7:80";
pub(super) const APP: &str = "127.0.0.1:18080";

/// Nobody may call `/admin`; everything else is open.
pub(super) const NO_ADMIN: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: no-admin
  namespace: default
spec:
  action: DENY
  rules:
  - to:
    - operation:
        paths: ["/admin*"]
"#;

/// Nobody may call anything.
pub(super) const NOBODY: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: nobody
  namespace: default
spec: {}
"#;

/// How the machine ended its direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Open,
    Finished,
    Reset,
}

/// The other end of a link of the machine.
struct Peer {
    /// Bytes that one `Read` bought.
    granted: Option<usize>,
    /// Not delivered yet.
    outbox: VecDeque<u8>,
    /// What it wants delivered after `outbox`.
    eof: bool,
    got: Vec<u8>,
    /// Taken by the kernel, not reported; reported when `asked`.
    taken: usize,
    asked: bool,
    /// It reads what it gets.
    reads: bool,
    end: End,
    /// Its `Closed` was reported.
    gone: bool,
    /// Where the machine wanted it opened to, and from.
    route: Option<(SocketAddr, Option<SocketAddr>)>,
}

pub(super) struct Rig {
    pub(super) proxy: Proxy,
    now: Now,
    peers: BTreeMap<LinkId, Peer>,
    /// Links that the machine wants opened.
    dialled: VecDeque<LinkId>,
    records: Vec<Record>,
    notes: Vec<(Scope, String)>,
    clients: u32,
    version: u64,
    upstream: SocketAddr,
    kind: PortKind,
}

impl Rig {
    /// An HTTP port that takes plain text alone, under policies in YAML.
    pub(super) fn new(policies: &str) -> Self {
        Self::with_mode(Mode::Disable, policies)
    }

    pub(super) fn with_mode(mode: Mode, policies: &str) -> Self {
        let now = Now {
            at: Instant(1),
            wall: WALL,
        };
        let mut rig = Self {
            proxy: Proxy::new([7; 32], Crypto::production(), now),
            now,
            peers: BTreeMap::new(),
            dialled: VecDeque::new(),
            records: Vec::new(),
            notes: Vec::new(),
            clients: 0,
            version: 0,
            upstream: address(APP),
            kind: PortKind::Http,
        };
        rig.apply(mode, policies);
        rig
    }

    /// A new snapshot with one inbound and one outbound port.
    pub(super) fn apply(&mut self, mode: Mode, policies: &str) {
        self.version += 1;
        let text = Text {
            name: "policies.yaml".into(),
            text: policies.to_owned(),
        };
        let loaded = load_for_enforcement(&[text], "default").expect("valid policies");
        let sources = Sources {
            version: self.version,
            workload: Workload {
                namespace: "default".into(),
                labels: Default::default(),
            },
            mesh: MeshConfig::default(),
            inbound: vec![InboundSource {
                listener: 1,
                port: address(INBOUND).port(),
                kind: self.kind,
                mode: Some(mode),
                upstream: self.upstream,
                from: None,
                records: true,
                authorization_policies: Arc::new(loaded.authorization_policies),
                peer_authentications: Arc::default(),
                request_authentications: Arc::new(loaded.request_authentications),
            }],
            outbound: vec![OutboundSource {
                listener: 2,
                address: address(OUTBOUND),
                kind: PortKind::Http,
                upstream: address("10.0.0.2:8080"),
                cluster: "outbound|80||catalog.default.svc.cluster.local".into(),
                tls: None,
                records: true,
            }],
        };
        let snapshot = snapshot(&sources).expect("sources that make a snapshot");
        self.input(Input::Snapshot(Arc::new(snapshot)));
    }

    /// The inbound port leads elsewhere from the next snapshot on.
    pub(super) fn move_app(&mut self, to: &str) {
        self.upstream = address(to);
    }

    /// The inbound port is declared as this from the next snapshot on.
    pub(super) fn declare(&mut self, kind: PortKind) {
        self.kind = kind;
    }

    /// A snapshot without any port.
    pub(super) fn apply_nothing(&mut self) {
        self.version += 1;
        self.input(Input::Snapshot(Arc::new(Snapshot {
            version: self.version,
            ..Snapshot::default()
        })));
    }

    pub(super) fn client(&mut self) -> LinkId {
        self.accept(Entry::Inbound, INBOUND)
    }

    /// The application calls somebody.
    pub(super) fn caller(&mut self) -> LinkId {
        self.calls(OUTBOUND)
    }

    /// The application calls this address.
    pub(super) fn calls(&mut self, address: &str) -> LinkId {
        self.accept(Entry::Outbound, address)
    }

    /// A snapshot without inbound ports, of a workload with this address.
    pub(super) fn route(&mut self, from: &str, outbound: Arc<Outbound>) {
        self.version += 1;
        self.input(Input::Snapshot(Arc::new(Snapshot {
            version: self.version,
            address: Some(from.parse().expect("an address")),
            outbound,
            ..Snapshot::default()
        })));
    }

    /// Where the machine wanted a link opened to, and from.
    pub(super) fn way(&self, id: LinkId) -> (String, String) {
        let (to, from) = self
            .peers
            .get(&id)
            .and_then(|peer| peer.route)
            .expect("a link of the machine's");
        (
            to.to_string(),
            from.map_or_else(String::new, |from| from.to_string()),
        )
    }

    fn accept(&mut self, entry: Entry, to: &str) -> LinkId {
        self.clients += 1;
        let id = LinkId::accepted(self.clients, 1);
        self.peers.insert(id, Peer::new());
        let event = LinkEvent::Accepted {
            entry,
            peer: address(CLIENT),
            original_dst: address(to),
        };
        self.event(id, event);
        id
    }

    /// A client that has sent this.
    pub(super) fn client_sending(&mut self, bytes: impl AsRef<[u8]>) -> LinkId {
        let id = self.client();
        self.send(id, bytes);
        id
    }

    /// The link that the machine wants opened next, if any.
    pub(super) fn dialled(&mut self) -> Option<LinkId> {
        self.dialled.pop_front()
    }

    /// Opens the link that the machine wants.
    pub(super) fn connect(&mut self) -> LinkId {
        let id = self.dialled().expect("a link is wanted");
        self.connected(id);
        id
    }

    pub(super) fn connected(&mut self, id: LinkId) {
        let local = address("127.0.0.6:50000");
        self.event(id, LinkEvent::Connected { local });
    }

    pub(super) fn refuse(&mut self) {
        let id = self.dialled().expect("a link is wanted");
        self.close(id, CloseCause::Refused);
    }

    /// The peer of `id` sends; what was granted arrives at once, the rest when it is.
    pub(super) fn send(&mut self, id: LinkId, bytes: impl AsRef<[u8]>) {
        let peer = self.peers.get_mut(&id).expect("a link that is there");
        peer.outbox.extend(bytes.as_ref());
        self.run();
    }

    /// The peer of `id` finishes its direction.
    pub(super) fn finish(&mut self, id: LinkId) {
        self.peers.get_mut(&id).expect("a link that is there").eof = true;
        self.run();
    }

    /// The link is gone.
    pub(super) fn close(&mut self, id: LinkId, cause: CloseCause) {
        let peer = self.peers.get_mut(&id).expect("a link that was there");
        peer.gone = true;
        self.event(id, LinkEvent::Closed(cause));
        self.run();
    }

    /// The peer of `id` takes nothing from now on.
    pub(super) fn stall(&mut self, id: LinkId) {
        self.peers.get_mut(&id).expect("a link that is there").reads = false;
    }

    /// The peer of `id` takes what lies there and goes on.
    pub(super) fn resume(&mut self, id: LinkId) {
        self.peers.get_mut(&id).expect("a link that is there").reads = true;
        self.run();
    }

    /// Bytes that the peer of `id` wants to send and that the machine has not bought.
    pub(super) fn held_back(&self, id: LinkId) -> usize {
        self.peers.get(&id).map_or(0, |peer| peer.outbox.len())
    }

    /// What the peer of `id` got since it was last asked.
    pub(super) fn got(&mut self, id: LinkId) -> String {
        let peer = self.peers.get_mut(&id).expect("a link that was there");
        let got = std::mem::take(&mut peer.got);
        got.iter().copied().map(char::from).collect()
    }

    pub(super) fn is_gone(&self, id: LinkId) -> bool {
        self.peers.get(&id).is_none_or(|peer| peer.gone)
    }

    /// Every link is gone.
    pub(super) fn close_all(&mut self) {
        let gone = |(id, peer): (&LinkId, &Peer)| (!peer.gone).then_some(*id);
        while let Some(id) = self.peers.iter().find_map(gone) {
            self.close(id, CloseCause::Reset);
        }
    }

    /// Every link that the machine opened and that is not gone.
    pub(super) fn upstreams(&self) -> Vec<LinkId> {
        let peers = self.peers.iter();
        let open = peers.filter(|(id, peer)| !id.is_accepted() && !peer.gone);
        open.map(|(id, _)| *id).collect()
    }

    pub(super) fn end(&self, id: LinkId) -> End {
        self.peers.get(&id).map_or(End::Reset, |peer| peer.end)
    }

    pub(super) fn records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// What was said of a scope since the last question.
    pub(super) fn notes(&mut self, scope: Scope) -> Vec<String> {
        let notes = std::mem::take(&mut self.notes).into_iter();
        let notes = notes.filter(|(of, _)| *of == scope);
        notes.map(|(_, what)| what).collect()
    }

    /// The only record since the last question.
    pub(super) fn record(&mut self) -> Record {
        let mut records = self.records();
        assert_eq!(records.len(), 1, "{records:?}");
        records.remove(0)
    }

    /// Time goes on, with a tick at each deadline.
    pub(super) fn wait(&mut self, span: Duration) {
        let until = self.now.at.after(span);
        while let Some(due) = self.proxy.poll_timeout().filter(|due| due.at <= until) {
            self.now.at = due.at;
            self.input(Input::Tick);
        }
        self.now.at = until;
        self.input(Input::Tick);
    }

    /// The wall clock goes on by this, and no other.
    pub(super) fn wall_on(&mut self, span: Duration) {
        self.now.wall.0 += u64::try_from(span.as_millis()).expect("a short time");
        self.input(Input::Tick);
    }

    fn event(&mut self, id: LinkId, event: LinkEvent) {
        self.input(Input::Link(id, event));
    }

    pub(super) fn input(&mut self, input: Input) {
        self.proxy.handle(input, self.now);
        while let Some(action) = self.proxy.poll_action() {
            self.obey(action);
        }
        self.run();
    }

    fn obey(&mut self, action: Action) {
        let (id, command) = match action {
            Action::Report(record) => return self.records.push(*record),
            Action::Note(_, scope, what) => return self.notes.push((scope, what.into_owned())),
            Action::Link(id, command) => (id, command),
        };
        if let LinkCommand::Connect { to, from } = command {
            let route = Some((to, from));
            self.peers.insert(
                id,
                Peer {
                    route,
                    ..Peer::new()
                },
            );
            self.dialled.push_back(id);
            return;
        }
        let peer = self.peers.get_mut(&id).expect("a link that is there");
        assert_ne!(peer.end, End::Reset, "nothing follows a reset");
        match command {
            LinkCommand::Connect { .. } => {}
            LinkCommand::Read { at_most } => {
                assert_eq!(peer.granted.replace(at_most), None, "one read at a time");
            }
            LinkCommand::Send { bytes, ack } => {
                assert_eq!(peer.end, End::Open, "nothing is sent after the end");
                peer.got.extend_from_slice(&bytes);
                peer.taken += bytes.len();
                peer.asked |= ack;
            }
            LinkCommand::Finish => peer.end = End::Finished,
            LinkCommand::Reset => {
                peer.end = End::Reset;
                peer.eof = false;
                peer.outbox.clear();
            }
        }
    }

    /// Delivers until nothing can be delivered.
    fn run(&mut self) {
        let ids: Vec<LinkId> = self.peers.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.gone) else {
                continue;
            };
            if peer.asked && peer.reads && peer.end != End::Reset {
                peer.asked = false;
                let taken = std::mem::take(&mut peer.taken);
                return self.event(id, LinkEvent::Sent(taken));
            }
            if !peer.outbox.is_empty()
                && let Some(at_most) = peer.granted.take()
            {
                let n = peer.outbox.len().min(at_most);
                let bytes: Vec<u8> = peer.outbox.drain(..n).collect();
                return self.event(id, LinkEvent::Received(Buf::from(bytes)));
            }
            if peer.eof && peer.outbox.is_empty() && peer.granted.take().is_some() {
                peer.eof = false;
                return self.event(id, LinkEvent::Eof);
            }
        }
    }
}

impl Peer {
    fn new() -> Self {
        Self {
            granted: None,
            outbox: VecDeque::new(),
            eof: false,
            got: Vec::new(),
            taken: 0,
            asked: false,
            reads: true,
            end: End::Open,
            gone: false,
            route: None,
        }
    }
}

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A request without a body.
pub(super) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: catalog\r\n\r\n")
}

/// An answer with a body of a known length.
pub(super) fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// The value of a field that stands there once.
pub(super) fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let head = message.split("\r\n\r\n").next().unwrap_or_default();
    let mut lines = head
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .filter(|(other, _)| *other == name);
    let found = lines.next().map(|(_, value)| value);
    assert_eq!(lines.next(), None, "one line of {name}");
    found
}

/// A certificate authority for both ends.
pub(super) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    bundle: TrustBundle,
}

impl Ca {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).expect("a root").der().clone();
        Self {
            issuer: Issuer::new(params, key),
            bundle: TrustBundle::new([root]).expect("a bundle"),
        }
    }

    /// A certificate of the shape of S-90 for an hour around [`WALL`].
    pub(super) fn issue(&self, id: &str) -> Svid {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("a URI"))];
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.is_ca = IsCa::ExplicitNoCa;
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 1, 3);
        let leaf = params.signed_by(&key, &self.issuer).expect("a leaf");
        Svid {
            id: SpiffeId::parse(id).expect("an identity"),
            chain: vec![leaf.der().clone()],
            key: Pii::new(key.serialize_der()),
            bundle: self.bundle.clone(),
            not_before: UnixTime(1_767_225_600_000),
            not_after: UnixTime(1_767_398_400_000),
        }
    }
}

/// A client that speaks TLS over a link.
pub(super) struct TlsClient {
    pub(super) link: LinkId,
    session: Session,
}

impl TlsClient {
    /// Shakes hands; `rig` has an identity already.
    pub(super) fn new(rig: &mut Rig, svid: &Svid, server: &str) -> Self {
        let clock = WallClock::default();
        clock.set(WALL);
        let (sans, sni) = ([server.to_owned()], Some("catalog"));
        let crypto = Crypto::production();
        let tls = ClientTls::new(&crypto, &clock, svid, &sans, sni, ChainKind::Http);
        let session = Session::client(&tls.expect("settings")).expect("a session");
        let link = rig.client();
        let mut client = Self { link, session };
        let mut out = Buf::default();
        client.session.start(&mut out).expect("a hello");
        rig.send(link, &*out);
        assert_eq!(client.got(rig), "");
        assert!(client.session.is_established());
        client
    }

    pub(super) fn send(&mut self, rig: &mut Rig, plaintext: impl AsRef<[u8]>) {
        let mut out = Buf::default();
        let sealed = self.session.send(plaintext.as_ref(), &mut out);
        sealed.expect("an open session");
        rig.send(self.link, &*out);
    }

    /// Sends plaintext and close_notify in one piece.
    pub(super) fn send_and_finish(&mut self, rig: &mut Rig, plaintext: impl AsRef<[u8]>) {
        let mut out = Buf::default();
        let sealed = self.session.send(plaintext.as_ref(), &mut out);
        sealed.expect("an open session");
        self.session.finish(&mut out);
        rig.send(self.link, &*out);
    }

    /// The plaintext that came since it was last asked.
    pub(super) fn got(&mut self, rig: &mut Rig) -> String {
        let peer = rig.peers.get_mut(&self.link).expect("a link that is there");
        let bytes = Buf::from(std::mem::take(&mut peer.got));
        let (mut out, mut plain) = (Buf::default(), String::new());
        let result = self.session.receive(bytes, &mut out, &mut |event| {
            if let TlsEvent::Plain(bytes) = event {
                plain.extend(bytes.iter().copied().map(char::from));
            }
        });
        result.expect("a sound stream");
        rig.send(self.link, &*out);
        plain
    }
}
