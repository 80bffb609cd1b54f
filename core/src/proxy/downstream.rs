//! A link that somebody opened to us, from accept to `Closed`.

use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;

use super::exchange::Account;
use super::http::HttpSide;
use super::link::{Io, Wire, flush};
use super::opaque::OpaqueSide;
use super::upstream::Upstream;
use super::world::{Place, World};
use super::{Proxy, Route, Shared};
use crate::accept::{self, Accept, FirstBytes, Mode, PortKind};
use crate::clock::Deadline;
use crate::id::{LinkId, Table};
use crate::limits;
use crate::link::{Buf, Entry, LinkEvent};
use crate::snapshot::InboundPort;
use crate::telemetry::record::Flags;
use crate::tls::ChainKind;
use crate::tls::{PeerCertificate, Session, TlsEvent};
use crate::tls::{Sniff, sniff};

/// Why of the deadline after which plain bytes that are no HTTP are assumed (S-27).
const DETECTION: &str = "protocol detection";
/// Why of the deadline of a link that may be silent: no byte has come yet.
const SILENCE: &str = "first bytes";

#[derive(Debug)]
pub(super) struct Downstream {
    pub(super) wire: Wire,
    pub(super) io: Io,
    pub(super) facts: Facts,
    pub(super) stage: Stage,
}

/// What is known of the other end.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) route: Route,
    pub(super) peer: SocketAddr,
    pub(super) original_dst: SocketAddr,
    /// Under mutual TLS, once the handshake is done (S-33).
    pub(super) certificate: Option<Arc<PeerCertificate>>,
    pub(super) sni: Option<String>,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// The first bytes decide (S-25, S-26); they are held here until they do.
    Sniffing(Buf),
    /// The TLS handshake is under way; afterwards the plaintext is read so.
    Shaking(ChainKind),
    Http(HttpSide),
    Opaque(OpaqueSide),
    /// Nothing of it is wanted any more: our direction is finished, the peer's is awaited.
    Lingering,
}

impl Facts {
    /// The peer's SPIFFE URI without its scheme (S-86).
    pub(super) fn principal(&self) -> Option<&str> {
        self.certificate.as_ref().map(|c| c.id.principal())
    }

    /// Whether a connection that was accepted before would still be: by its port's mode, and by the trust domain of the peer
    /// (S-31).
    pub(super) fn still_fit(&self, port: &InboundPort, world: &World) -> bool {
        accept::still_takes(port.mode, self.certificate.is_some())
            && self.certificate.as_ref().is_none_or(|peer| {
                let domains = &world.snapshot.trust_domains;
                domains.iter().any(|d| d.as_str() == peer.id.trust_domain())
            })
    }
}

impl Proxy {
    pub(super) fn on_downstream(&mut self, id: LinkId, event: LinkEvent) {
        if let LinkEvent::Accepted {
            entry,
            peer,
            original_dst,
        } = event
        {
            return self.on_accepted(id, entry, peer, original_dst);
        }
        let Some(d) = self.downstreams.get_mut(id) else {
            self.shared.stats.stale += 1;
            return;
        };
        let (ups, shared) = (&mut self.upstreams, &mut self.shared);
        match event {
            LinkEvent::Received(bytes) => {
                d.io.on_received();
                d.receive(bytes, ups, shared);
                d.settle(ups, shared);
            }
            LinkEvent::Sent(n) => {
                d.io.on_sent(n);
                d.io.linger_on(shared.now.at, &mut shared.timers);
                d.unblock_upstream(ups, shared);
                d.go_on(ups, shared);
                d.settle(ups, shared);
            }
            LinkEvent::Eof => {
                d.io.on_eof();
                d.on_eof(ups, shared);
                d.settle(ups, shared);
            }
            LinkEvent::Closed(_) => {
                if let Some(mut d) = self.downstreams.remove_at(id) {
                    d.abandon(ups, shared);
                    shared.timers.forget(&mut d.io.timer, id);
                }
            }
            LinkEvent::Accepted { .. } | LinkEvent::Connected { .. } => shared.stats.stale += 1,
        }
    }

    fn on_accepted(
        &mut self,
        id: LinkId,
        entry: Entry,
        peer: SocketAddr,
        original_dst: SocketAddr,
    ) {
        let route = match entry {
            Entry::Inbound => Route::Inbound(original_dst.port()),
            Entry::Outbound => Route::Outbound(original_dst),
        };
        let facts = Facts {
            route,
            peer,
            original_dst,
            certificate: None,
            sni: None,
        };
        let d = Downstream {
            wire: Wire::Plain,
            io: Io::new(id),
            facts,
            stage: Stage::Sniffing(Buf::default()),
        };
        if !self.downstreams.insert_at(id, Box::new(d)) {
            self.shared.stats.stale += 1;
            return;
        }
        self.shared.stats.accepted += 1;
        let Some(d) = self.downstreams.get_mut(id) else {
            return;
        };
        if self.shared.drained {
            return d.give_up(&mut self.upstreams, &mut self.shared);
        }
        d.begin(&mut self.upstreams, &mut self.shared);
        d.settle(&mut self.upstreams, &mut self.shared);
    }

    pub(super) fn on_downstream_time(&mut self, id: LinkId) {
        let Some(d) = self.downstreams.get_mut(id) else {
            return;
        };
        let shared = &mut self.shared;
        let Some(due) = shared.timers.fire(&mut d.io.timer, id, shared.now.at) else {
            return;
        };
        d.on_time(due, &mut self.upstreams, shared);
        d.settle(&mut self.upstreams, shared);
    }

    /// A new snapshot: a link that the accept matrix would not take any more ends after what it is doing.
    pub(super) fn recheck(&mut self, id: LinkId) {
        let Some(d) = self.downstreams.get_mut(id) else {
            return;
        };
        let still = match self.shared.world.place(d.facts.route) {
            None => false,
            Some(Place::Outbound(_)) => true,
            Some(Place::Inbound(door)) => d.facts.still_fit(&door.port, &self.shared.world),
        };
        if !still {
            self.drain_one(id);
        }
    }

    /// The link takes no further request; one without a request ends now.
    pub(super) fn drain_one(&mut self, id: LinkId) {
        let Some(d) = self.downstreams.get_mut(id) else {
            return;
        };
        if let Stage::Http(http) = &mut d.stage {
            if http.take_no_more() {
                d.finish();
            }
            d.settle(&mut self.upstreams, &mut self.shared);
        }
    }
}

impl Downstream {
    /// What can be decided without a byte (S-27).
    fn begin(&mut self, ups: &mut Table<LinkId, Box<Upstream>>, shared: &mut Shared) {
        match shared.world.place(self.facts.route) {
            None => self.refuse(shared),
            Some(Place::Outbound(port)) => match port.kind {
                PortKind::Tcp => self.become_opaque(ups, shared),
                PortKind::Http => self.become_http(shared),
                // A server that speaks first is not heard of before the client has said something (S-27).
                PortKind::Auto => {
                    let at = shared.now.at.after(limits::IDLE_TIMEOUT);
                    self.deadline(Some(Deadline { at, why: SILENCE }), shared);
                }
            },
            Some(Place::Inbound(door)) => {
                if accept::app_may_speak_first(door.port.mode, door.port.kind) {
                    self.become_opaque(ups, shared);
                    if let Stage::Opaque(opaque) = &mut self.stage {
                        opaque.look_first();
                    }
                    return;
                }
                // Silence: a port waits for first bytes as long as the mesh says (S-27), by default as long as an idle
                // link may live; one that demands TLS never longer than a handshake may take.
                let (span, why) = match (door.port.mode, door.port.detection_timeout) {
                    (Mode::Strict, Some(timeout)) if timeout < limits::HANDSHAKE_TIMEOUT => {
                        (timeout, DETECTION)
                    }
                    (Mode::Strict, _) => (limits::HANDSHAKE_TIMEOUT, "tls handshake"),
                    (Mode::Permissive | Mode::Disable, Some(timeout)) => (timeout, DETECTION),
                    (Mode::Permissive | Mode::Disable, None) => (limits::IDLE_TIMEOUT, SILENCE),
                };
                self.deadline(
                    Some(Deadline {
                        at: shared.now.at.after(span),
                        why,
                    }),
                    shared,
                );
            }
        }
    }

    fn receive(&mut self, bytes: Buf, ups: &mut Table<LinkId, Box<Upstream>>, shared: &mut Shared) {
        match &mut self.stage {
            Stage::Sniffing(held) => {
                let mut held = mem::take(held);
                if held.is_empty() {
                    held = bytes;
                } else {
                    held.extend_from_slice(&bytes);
                }
                self.sniff(held, ups, shared);
            }
            Stage::Lingering => {}
            Stage::Shaking(_) | Stage::Http(_) | Stage::Opaque(_) => {
                self.open_wire(bytes, ups, shared)
            }
        }
    }

    fn sniff(&mut self, held: Buf, ups: &mut Table<LinkId, Box<Upstream>>, shared: &mut Shared) {
        let Some(place) = shared.world.place(self.facts.route) else {
            return self.refuse(shared);
        };
        let sniffed = sniff(&held);
        if matches!(sniffed, Sniff::Bad) {
            // Begins as a ClientHello and is none that anybody sends: neither TLS nor plaintext.
            shared.stats.limited += 1;
            return self.refuse(shared);
        }
        let first = match &sniffed {
            Sniff::NeedMore => FirstBytes::NeedMore,
            Sniff::Hello(hello) => FirstBytes::tls(hello.alpn.iter().map(Vec::as_slice)),
            Sniff::NotTls | Sniff::Bad => FirstBytes::Plain(accept::first_plain_kind(&held)),
        };
        let accepted = match &place {
            Place::Inbound(door) => accept::decide(door.port.mode, door.port.kind, first),
            Place::Outbound(_) => accept::outbound(first),
        };
        match accepted {
            Accept::NeedMore => {
                if held.len() >= limits::CLIENT_HELLO_MAX {
                    shared.stats.limited += 1;
                    return self.refuse(shared);
                }
                if self.io.timer.due().is_none_or(|due| due.why == SILENCE) {
                    let at = shared.now.at.after(limits::HANDSHAKE_TIMEOUT);
                    let why = "rest of the first bytes";
                    self.deadline(Some(Deadline { at, why }), shared);
                }
                self.stage = Stage::Sniffing(held);
            }
            Accept::Http => {
                self.become_http(shared);
                self.open_wire(held, ups, shared);
            }
            Accept::Tcp | Accept::PassThrough => {
                self.become_opaque(ups, shared);
                self.open_wire(held, ups, shared);
            }
            chosen @ (Accept::TerminateHttp | Accept::TerminateTcp) => {
                let chain = if chosen == Accept::TerminateHttp {
                    ChainKind::Http
                } else {
                    ChainKind::Tcp
                };
                let Sniff::Hello(hello) = sniffed else {
                    return self.refuse(shared);
                };
                if shared.world.is_expired(shared.now.wall) {
                    shared.note(self.io.id, "our own certificate has expired");
                }
                let session = shared
                    .world
                    .server(shared.now.wall)
                    .and_then(|tls| Session::server(tls, chain, &hello).ok());
                let Some(session) = session else {
                    return self.refuse(shared);
                };
                self.facts.sni = hello.sni;
                self.wire = Wire::Tls(Box::new(session));
                self.stage = Stage::Shaking(chain);
                let at = shared.now.at.after(limits::HANDSHAKE_TIMEOUT);
                self.deadline(
                    Some(Deadline {
                        at,
                        why: "tls handshake",
                    }),
                    shared,
                );
                self.open_wire(held, ups, shared);
            }
            Accept::Reset => self.refuse(shared),
        }
    }

    /// S-27: who said nothing that decides in time is taken for plain text that is no HTTP, by the port as it is now.
    fn after_silence(
        &mut self,
        held: Buf,
        ups: &mut Table<LinkId, Box<Upstream>>,
        shared: &mut Shared,
    ) {
        let Some(Place::Inbound(door)) = shared.world.place(self.facts.route) else {
            return self.refuse(shared);
        };
        match accept::after_silence(door.port.mode, door.port.kind) {
            Accept::Http => self.become_http(shared),
            Accept::Tcp | Accept::PassThrough => self.become_opaque(ups, shared),
            Accept::TerminateHttp | Accept::TerminateTcp | Accept::NeedMore | Accept::Reset => {
                return self.refuse(shared);
            }
        }
        if !held.is_empty() {
            self.open_wire(held, ups, shared);
        }
    }

    /// Bytes of the transport become plaintext, and plaintext finds its reader.
    fn open_wire(
        &mut self,
        bytes: Buf,
        ups: &mut Table<LinkId, Box<Upstream>>,
        shared: &mut Shared,
    ) {
        let Self {
            wire,
            io,
            facts,
            stage,
        } = self;
        match wire {
            Wire::Plain => read_plaintext(&bytes, io, facts, stage, ups, shared),
            Wire::Tls(session) => {
                let mut sealed = io.take_sealed();
                let result = session.receive(bytes, &mut sealed, &mut |event| match event {
                    TlsEvent::Established(established) => {
                        facts.certificate = established.peer;
                        shared.stats.handshakes += 1;
                        shared.timers.set(&mut io.timer, io.id, None);
                        *stage = match stage {
                            Stage::Shaking(ChainKind::Tcp) => {
                                Stage::Opaque(OpaqueSide::open(io, facts, ups, shared))
                            }
                            _ => Stage::Http(HttpSide::new(shared)),
                        };
                    }
                    TlsEvent::Plain(plain) => read_plaintext(plain, io, facts, stage, ups, shared),
                    TlsEvent::Finished => end_plaintext(io, facts, stage, ups, shared),
                });
                io.put_sealed(sealed);
                if let Err(failure) = result {
                    shared.note(self.io.id, failure.reason);
                    shared.stats.handshake_failures +=
                        u64::from(matches!(stage, Stage::Shaking(_)));
                    // The alert is on its way out; nothing of the peer is read any more, and nothing else can be sealed.
                    self.io.drop_plain();
                    self.abandon(ups, shared);
                    self.finish();
                }
            }
        }
    }

    fn become_http(&mut self, shared: &mut Shared) {
        self.stage = Stage::Http(HttpSide::new(shared));
    }

    fn become_opaque(&mut self, ups: &mut Table<LinkId, Box<Upstream>>, shared: &mut Shared) {
        self.deadline(None, shared);
        let side = OpaqueSide::open(&mut self.io, &self.facts, ups, shared);
        self.stage = Stage::Opaque(side);
    }

    /// No filter chain takes the connection: reset it, so that nothing of ours is seen, and say so (S-28).
    fn refuse(&mut self, shared: &mut Shared) {
        shared.stats.refused += 1;
        shared.note(self.io.id, "no filter chain takes the connection");
        let place = shared.world.place(self.facts.route);
        let mut account = Account::new(&self.facts, place.as_ref(), shared.now);
        account.note(|r| {
            r.flags = Flags::NR;
            r.details = Some("filter_chain_not_found".into());
            r.upstream_cluster = None;
        });
        account.close(shared);
        self.stage = Stage::Lingering;
        self.io.reset(&mut shared.actions);
    }

    fn on_eof(&mut self, ups: &mut Table<LinkId, Box<Upstream>>, shared: &mut Shared) {
        let Self {
            wire,
            io,
            facts,
            stage,
        } = self;
        match stage {
            Stage::Sniffing(_) | Stage::Shaking(_) => {
                shared.stats.handshake_failures += u64::from(matches!(stage, Stage::Shaking(_)));
                shared.note(io.id, "ended before its first request");
                self.finish();
            }
            // Without close_notify the end of a TLS stream proves nothing (RFC 8446 §6.1): the application must not take what
            // it has for the whole.
            Stage::Opaque(opaque) if matches!(wire, Wire::Tls(_)) && opaque.awaits_client() => {
                self.give_up(ups, shared);
            }
            Stage::Http(_) | Stage::Opaque(_) => end_plaintext(io, facts, stage, ups, shared),
            Stage::Lingering => {}
        }
    }

    fn on_time(
        &mut self,
        due: Deadline,
        ups: &mut Table<LinkId, Box<Upstream>>,
        shared: &mut Shared,
    ) {
        if !matches!(self.stage, Stage::Lingering) {
            shared.note(self.io.id, format!("nothing came in time: {}", due.why));
        }
        match &mut self.stage {
            Stage::Sniffing(held) if due.why == DETECTION => {
                let held = mem::take(held);
                self.after_silence(held, ups, shared);
            }
            Stage::Sniffing(_) | Stage::Shaking(_) | Stage::Lingering => {
                shared.stats.limited += u64::from(!matches!(self.stage, Stage::Lingering));
                self.io.reset(&mut shared.actions);
            }
            Stage::Http(http) => {
                shared.stats.limited += 1;
                http.on_time(&mut self.io, &self.facts, ups, shared);
            }
            Stage::Opaque(opaque) => {
                shared.stats.limited += u64::from(!opaque.is_over());
                self.give_up(ups, shared);
            }
        }
    }

    /// Ends our direction in order.
    pub(super) fn finish(&mut self) {
        self.stage = Stage::Lingering;
        self.io.finish();
    }

    /// Ends the link at once, whatever it is doing.
    pub(super) fn give_up(&mut self, ups: &mut Table<LinkId, Box<Upstream>>, shared: &mut Shared) {
        self.abandon(ups, shared);
        self.stage = Stage::Lingering;
        self.io.reset(&mut shared.actions);
    }

    /// The link can do nothing more for its exchange: let go of the upstream and write the record.
    fn abandon(&mut self, ups: &mut Table<LinkId, Box<Upstream>>, shared: &mut Shared) {
        match mem::replace(&mut self.stage, Stage::Lingering) {
            Stage::Http(http) => http.abandon(ups, shared),
            Stage::Opaque(opaque) => opaque.abandon(ups, shared),
            Stage::Sniffing(_) | Stage::Shaking(_) | Stage::Lingering => {}
        }
    }

    /// The peer took bytes: whoever was held back by that may be read again.
    fn unblock_upstream(&mut self, ups: &mut Table<LinkId, Box<Upstream>>, shared: &mut Shared) {
        if self.io.is_full() {
            return;
        }
        if let Some(u) = self.upstream().and_then(|id| ups.get_mut(id)) {
            u.grant(true, shared);
        }
    }

    /// The upstream link of the exchange under way.
    pub(super) fn upstream(&self) -> Option<LinkId> {
        match &self.stage {
            Stage::Http(http) => http.upstream(),
            Stage::Opaque(opaque) => opaque.upstream(),
            Stage::Sniffing(_) | Stage::Shaking(_) | Stage::Lingering => None,
        }
    }

    pub(super) fn deadline(&mut self, due: Option<Deadline>, shared: &mut Shared) {
        shared.timers.set(&mut self.io.timer, self.io.id, due);
    }

    /// The end of every turn that touched the link: hands over what was written, buys the next bytes, sets the clock.
    pub(super) fn settle(&mut self, ups: &mut Table<LinkId, Box<Upstream>>, shared: &mut Shared) {
        if let Stage::Http(http) = &self.stage
            && http.is_over()
        {
            self.finish();
        }
        if let Stage::Opaque(opaque) = &mut self.stage {
            opaque.settle(&mut self.io, ups, shared);
        }
        let ending = self.io.is_ending();
        flush(&mut self.wire, &mut self.io, &mut shared.actions);
        if self.io.is_reset() {
            return;
        }
        match &mut self.stage {
            Stage::Sniffing(_) | Stage::Shaking(_) => {
                self.io.grant(limits::READ_HEAD, &mut shared.actions)
            }
            Stage::Lingering => {
                if ending {
                    self.io.linger(shared.now.at, &mut shared.timers);
                }
                self.io.grant(limits::READ_BODY, &mut shared.actions);
            }
            Stage::Http(http) => http.settle(&mut self.io, ups, shared),
            Stage::Opaque(opaque) => opaque.grant(&mut self.io, ups, shared),
        }
    }

    /// After an answer: goes on with requests that are already here.
    pub(super) fn go_on(&mut self, ups: &mut Table<LinkId, Box<Upstream>>, shared: &mut Shared) {
        if let Stage::Http(http) = &mut self.stage {
            http.go_on(&mut self.io, &self.facts, ups, shared);
        }
    }

    /// In words, for people who ask what a proxy is doing.
    pub(super) fn waits_for(&self) -> String {
        let what = match &self.stage {
            Stage::Sniffing(held) => format!("first bytes, {} held", held.len()),
            Stage::Shaking(_) => "tls handshake".to_owned(),
            Stage::Http(http) => http.waits_for(),
            Stage::Opaque(opaque) => opaque.waits_for(),
            Stage::Lingering => "the peer's end".to_owned(),
        };
        match self.io.timer.due() {
            Some(due) => format!("{what} (deadline: {})", due.why),
            None => what,
        }
    }

    pub(super) fn check(&self, ups: &Table<LinkId, Box<Upstream>>) {
        // A plaintext link has no identity (S-33).
        assert!(
            matches!(self.wire, Wire::Tls(_)) || self.facts.certificate.is_none(),
            "identity comes from TLS alone"
        );
        if let Some(u) = self.upstream().and_then(|id| ups.get(id)) {
            let serves = u.serves();
            assert_eq!(serves, Some(self.io.id), "{:?} serves who uses it", u.io.id);
        }
        if self.io.is_reset() || self.io.has_eof() {
            return;
        }
        let held_back = match &self.stage {
            Stage::Http(http) => http.held_back(ups),
            Stage::Opaque(opaque) => opaque.held_back(ups),
            Stage::Sniffing(_) | Stage::Shaking(_) | Stage::Lingering => None,
        };
        assert!(
            self.io.is_granted() || self.io.is_full() || held_back.is_some(),
            "{:?} is read, has ended or is held back by a named reason: {}",
            self.io.id,
            self.waits_for()
        );
    }
}

fn read_plaintext(
    bytes: &[u8],
    io: &mut Io,
    facts: &Facts,
    stage: &mut Stage,
    ups: &mut Table<LinkId, Box<Upstream>>,
    shared: &mut Shared,
) {
    match stage {
        Stage::Http(http) => http.read(bytes, io, facts, ups, shared),
        Stage::Opaque(opaque) => {
            if !opaque.take_from_downstream(bytes, io, facts, ups, shared) {
                *stage = Stage::Lingering;
            }
        }
        Stage::Sniffing(_) | Stage::Shaking(_) | Stage::Lingering => {}
    }
}

/// The peer's direction ended: FIN in plain text, close_notify or FIN under TLS.
fn end_plaintext(
    io: &mut Io,
    facts: &Facts,
    stage: &mut Stage,
    ups: &mut Table<LinkId, Box<Upstream>>,
    shared: &mut Shared,
) {
    match stage {
        Stage::Http(http) => {
            if !http.on_end(facts, ups, shared) {
                *stage = Stage::Lingering;
                io.finish();
            }
        }
        Stage::Opaque(opaque) => {
            if opaque.take_end(io, facts, ups, shared) {
                opaque.end_of_downstream(ups, shared);
            } else {
                *stage = Stage::Lingering;
            }
        }
        Stage::Sniffing(_) | Stage::Shaking(_) | Stage::Lingering => {}
    }
}
