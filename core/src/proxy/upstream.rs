//! A link that we opened, from `Connect` to `Closed`; the pools of links between two requests.

use std::mem;
use std::net::SocketAddr;

use super::downstream::{Downstream, Stage};
use super::exchange::Right;
use super::http::Failure;
use super::link::{Io, Wire, flush};
use super::world::{PoolId, Protection};
use super::{Action, Proxy, Shared};
use crate::clock::Deadline;
use crate::http::event::Event;
use crate::http::h1::Receiver;
use crate::id::{LinkId, Table};
use crate::limits;
use crate::link::{Buf, CloseCause, LinkCommand, LinkEvent};
use crate::tls::{Session, TlsEvent, TlsFailure};

#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) wire: Wire,
    pub(super) io: Io,
    pub(super) to: SocketAddr,
    pub(super) local: Option<SocketAddr>,
    pub(super) receiver: Receiver,
    /// The answer under way has begun, and whether another may follow it.
    answer: Option<KeepAlive>,
    /// Its bytes are no answer: they flow as they come.
    pub(super) opaque: bool,
    pool: PoolId,
    serial: u64,
    /// [`World::trust`](super::world::World::trust) when its handshake began.
    trust: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The transport is being opened for this downstream link.
    Connecting(LinkId),
    /// The TLS handshake is under way for this downstream link.
    Shaking(LinkId),
    /// Serves this downstream link.
    Serving(LinkId),
    /// Up and without work.
    Idle,
    /// Of no more use; only its `Closed` is awaited.
    Closing,
}

/// The upstream keeps the connection open after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeepAlive(bool);

/// Where a link was opened to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) pool: PoolId,
    pub(super) to: SocketAddr,
}

/// An upstream link to be used.
#[derive(Clone, Copy, Debug)]
pub(super) enum Obtained {
    /// It is up.
    Ready(LinkId),
    /// It is being opened; [`Downstream`] hears of it.
    Opening(LinkId),
}

/// A link of a pool for `downstream`: one that is idle, else a new one. `None`: the pool cannot be reached, for want of
/// an identity. Nobody gets one without a right.
pub(super) fn obtain(
    right: &Right,
    pool: PoolId,
    downstream: LinkId,
    ups: &mut Table<LinkId, Box<Upstream>>,
    shared: &mut Shared,
) -> Option<Obtained> {
    retire_evicted(ups, shared);
    while let Some(id) = shared.world.pool(pool)?.idle.pop() {
        if let Some(u) = ups.get_mut(id).filter(|u| u.state == State::Idle) {
            u.state = State::Serving(downstream);
            shared.timers.set(&mut u.io.timer, id, None);
            return Some(Obtained::Ready(id));
        }
    }
    open(right, pool, downstream, ups, shared).map(Obtained::Opening)
}

/// A new link of a pool for `downstream`.
pub(super) fn open(
    _right: &Right,
    pool: PoolId,
    downstream: LinkId,
    ups: &mut Table<LinkId, Box<Upstream>>,
    shared: &mut Shared,
) -> Option<LinkId> {
    retire_evicted(ups, shared);
    if shared.world.lacks_identity(pool) {
        return None;
    }
    let found = shared.world.pool(pool)?;
    let (to, from, serial) = (found.key.to, found.key.from, found.serial);
    let at = shared.now.at.after(found.connect_timeout);
    let id = ups.insert(Box::new(Upstream {
        wire: Wire::Plain,
        io: Io::new(LinkId(0)),
        to,
        local: None,
        receiver: Receiver::responses(),
        answer: None,
        opaque: false,
        pool,
        serial,
        trust: 0,
        state: State::Connecting(downstream),
    }));
    let u = ups.get_mut(id)?;
    u.io.id = id;
    shared.timers.set(
        &mut u.io.timer,
        id,
        Some(Deadline {
            at,
            why: "upstream connect",
        }),
    );
    shared.stats.upstream_connects += 1;
    shared.world.on_opened(pool);
    let from = from.map(|ip| SocketAddr::new(ip, 0));
    shared
        .actions
        .push_back(Action::Link(id, LinkCommand::Connect { to, from }));
    Some(id)
}

fn retire_evicted(ups: &mut Table<LinkId, Box<Upstream>>, shared: &mut Shared) {
    for id in shared.world.take_evicted() {
        if let Some(u) = ups.get_mut(id) {
            u.retire_if_idle(shared);
        }
    }
}

impl Proxy {
    pub(super) fn on_upstream(&mut self, id: LinkId, event: LinkEvent) {
        let Some(u) = self.upstreams.get_mut(id) else {
            self.shared.stats.stale += 1;
            return;
        };
        let shared = &mut self.shared;
        match event {
            LinkEvent::Connected { local } => {
                u.local = Some(local);
                if matches!(u.state, State::Connecting(_)) {
                    self.on_transport_up(id);
                }
            }
            LinkEvent::Received(bytes) => {
                u.io.on_received();
                self.on_upstream_bytes(id, bytes);
            }
            LinkEvent::Sent(n) => {
                u.io.on_sent(n);
                u.io.linger_on(shared.now.at, &mut shared.timers);
                if let State::Serving(downstream) = u.state
                    && !u.io.is_full()
                {
                    self.settle_downstream(downstream);
                }
            }
            LinkEvent::Eof => {
                u.io.on_eof();
                self.on_upstream_end(id, false);
            }
            LinkEvent::Closed(cause) => {
                let Some(mut u) = self.upstreams.remove(id) else {
                    return;
                };
                u.forget_pooled(shared);
                shared.world.on_closed(u.pool, u.serial);
                shared.timers.forget(&mut u.io.timer, id);
                self.on_upstream_closed(*u, cause);
            }
            LinkEvent::Accepted { .. } => shared.stats.stale += 1,
        }
    }

    pub(super) fn on_upstream_time(&mut self, id: LinkId) {
        let Some(u) = self.upstreams.get_mut(id) else {
            return;
        };
        let shared = &mut self.shared;
        let Some(_) = shared.timers.fire(&mut u.io.timer, id, shared.now.at) else {
            return;
        };
        match u.state {
            State::Connecting(downstream) | State::Shaking(downstream) => {
                shared.stats.limited += 1;
                shared.note(id, "nobody answered in time");
                u.let_go(shared);
                let failed = u.attempt();
                self.fail_connect(downstream, failed, "connection timeout".into());
            }
            State::Idle => u.retire(shared),
            State::Closing => u.io.reset(&mut shared.actions),
            State::Serving(_) => {}
        }
    }

    fn on_transport_up(&mut self, id: LinkId) {
        let Some(u) = self.upstreams.get_mut(id) else {
            return;
        };
        let State::Connecting(downstream) = u.state else {
            return;
        };
        let shared = &mut self.shared;
        u.trust = shared.world.trust;
        let reason = match shared.world.protection(u.pool, u.serial) {
            Some(Protection::Plain) => return self.on_upstream_ready(id),
            Some(Protection::Tls(tls)) => {
                let mut sealed = Buf::default();
                let session = Session::client(&tls)
                    .map_err(|e| e.to_string())
                    .and_then(|mut s| {
                        s.start(&mut sealed)
                            .map(|()| s)
                            .map_err(|failure| failure.reason)
                    });
                match session {
                    Ok(session) => {
                        u.state = State::Shaking(downstream);
                        u.wire = Wire::Tls(Box::new(session));
                        u.io.put_sealed(sealed);
                        flush(&mut u.wire, &mut u.io, &mut shared.actions);
                        u.io.grant(limits::READ_HEAD, &mut shared.actions);
                        return;
                    }
                    Err(reason) => reason,
                }
            }
            // The pool is gone, or the identity: nothing may be sent to it.
            Some(Protection::NoIdentity) => "no certificate to prove ourselves by".into(),
            Some(Protection::Expired) => "our own certificate has expired".into(),
            None => "the upstream's settings are gone".into(),
        };
        u.let_go(shared);
        let failed = u.attempt();
        self.fail_connect(downstream, failed, reason);
    }

    fn on_upstream_ready(&mut self, id: LinkId) {
        let Some(u) = self.upstreams.get_mut(id) else {
            return;
        };
        let (State::Connecting(downstream) | State::Shaking(downstream)) = u.state else {
            return;
        };
        let shared = &mut self.shared;
        shared.timers.set(&mut u.io.timer, id, None);
        u.state = State::Serving(downstream);
        if let Some(d) = self.downstreams.get_mut(downstream) {
            match &mut d.stage {
                Stage::Http(http) => http.on_connected(u, shared),
                Stage::Opaque(opaque) => opaque.on_connected(u, shared),
                Stage::Sniffing(_) | Stage::Shaking(_) | Stage::Lingering => {}
            }
        }
        u.flush(shared);
        u.grant(true, shared);
        self.settle_downstream(downstream);
    }

    fn on_upstream_bytes(&mut self, id: LinkId, bytes: Buf) {
        let Some(u) = self.upstreams.get_mut(id) else {
            return;
        };
        let shared = &mut self.shared;
        match u.state {
            State::Closing => u.io.grant(limits::READ_HEAD, &mut shared.actions),
            // Somebody speaks without having been asked: nothing good can come of such a link.
            State::Idle if matches!(u.wire, Wire::Plain) => u.let_go(shared),
            State::Connecting(_) => {}
            State::Idle | State::Shaking(_) | State::Serving(_) => self.read_upstream(id, bytes),
        }
    }

    /// Opens the wire and hands the plaintext to whom it is for.
    fn read_upstream(&mut self, id: LinkId, bytes: Buf) {
        let Some(u) = self.upstreams.get_mut(id) else {
            return;
        };
        let shared = &mut self.shared;
        let serves = match u.state {
            State::Serving(d) | State::Shaking(d) | State::Connecting(d) => Some(d),
            State::Idle | State::Closing => None,
        };
        let mut d = serves
            .and_then(|d| self.downstreams.get_mut(d))
            .map(|d| &mut **d);
        let Upstream {
            wire,
            io,
            receiver,
            answer,
            ..
        } = &mut **u;
        let mut outcome = Outcome::default();
        let failure: Option<TlsFailure> = match wire {
            Wire::Plain => {
                read_answer(
                    &bytes,
                    receiver,
                    answer,
                    d.as_deref_mut(),
                    shared,
                    &mut outcome,
                );
                None
            }
            Wire::Tls(session) => {
                let mut sealed = io.take_sealed();
                let result = session.receive(bytes, &mut sealed, &mut |event| match event {
                    TlsEvent::Established(_) => outcome.established = true,
                    TlsEvent::Plain(plain) => {
                        read_answer(
                            plain,
                            receiver,
                            answer,
                            d.as_deref_mut(),
                            shared,
                            &mut outcome,
                        );
                    }
                    TlsEvent::Finished => outcome.ended = true,
                });
                io.put_sealed(sealed);
                result.err()
            }
        };
        if let Some(failure) = failure {
            shared.note(id, failure.reason.clone());
            let shaking = matches!(u.state, State::Shaking(_));
            // The alert goes out; then the link is finished.
            u.forget_pooled(shared);
            u.state = State::Closing;
            u.io.drop_plain();
            u.io.finish();
            u.flush(shared);
            u.linger(shared);
            let failed = u.attempt();
            if let Some(downstream) = serves {
                if shaking {
                    self.fail_connect(downstream, failed, failure.reason);
                } else {
                    self.fail_exchange(downstream, Failure::Ended);
                }
            }
            return;
        }
        if outcome.established && matches!(u.state, State::Shaking(_)) {
            self.on_upstream_ready(id);
        }
        self.after_answer(id, serves, outcome);
    }

    fn after_answer(&mut self, id: LinkId, serves: Option<LinkId>, outcome: Outcome) {
        let Some(u) = self.upstreams.get_mut(id) else {
            return;
        };
        let shared = &mut self.shared;
        if let Some(what) = outcome.violation {
            shared.stats.violations += 1;
            shared.note(id, what);
            u.let_go(shared);
            if let Some(downstream) = serves {
                self.fail_exchange(downstream, Failure::Protocol { what });
            }
            return;
        }
        if outcome.done {
            if outcome.reusable && !outcome.surplus && !u.io.has_eof() && shared.drain.is_none() {
                u.pool(shared);
            } else if outcome.whole && !outcome.surplus {
                u.retire(shared);
            } else {
                u.let_go(shared);
            }
        } else if outcome.stray {
            u.let_go(shared);
        }
        if outcome.ended {
            self.on_upstream_end(id, true);
        }
        if let Some(u) = self.upstreams.get_mut(id) {
            let full = serves
                .and_then(|d| self.downstreams.get(d))
                .is_some_and(|d| d.io.is_full());
            u.grant(!full, &mut self.shared);
            flush(&mut u.wire, &mut u.io, &mut self.shared.actions);
        }
        if let Some(downstream) = serves {
            self.settle_downstream(downstream);
        }
    }

    /// The upstream finished its direction; `clean`: by close_notify.
    fn on_upstream_end(&mut self, id: LinkId, clean: bool) {
        let Some(u) = self.upstreams.get_mut(id) else {
            return;
        };
        let shared = &mut self.shared;
        match u.state {
            State::Idle => u.retire(shared),
            State::Closing => {}
            State::Connecting(downstream) | State::Shaking(downstream) => {
                u.let_go(shared);
                let failed = u.attempt();
                let reason = "connection closed during the handshake".into();
                self.fail_connect(downstream, failed, reason);
            }
            State::Serving(downstream) => {
                // Without close_notify the end of a TLS stream proves nothing (RFC 8446 §6.1).
                let whole = clean || matches!(u.wire, Wire::Plain);
                let Some(d) = self.downstreams.get_mut(downstream) else {
                    return u.let_go(shared);
                };
                match &mut d.stage {
                    Stage::Opaque(opaque) if !whole && opaque.awaits_server() => {
                        u.let_go(shared);
                        opaque.upstream_closed(CloseCause::Reset, &mut d.io, shared);
                    }
                    Stage::Opaque(opaque) => opaque.end_of_upstream(&mut d.io),
                    Stage::Http(http) => {
                        let ended = if whole {
                            u.receiver.eof().ok().flatten().is_some()
                        } else {
                            false
                        };
                        if ended {
                            http.on_response_end(&mut d.io, shared);
                            u.retire(shared);
                        } else {
                            u.let_go(shared);
                            http.on_failure(Failure::Ended, &mut d.io, &d.facts, shared);
                        }
                    }
                    Stage::Sniffing(_) | Stage::Shaking(_) | Stage::Lingering => u.let_go(shared),
                }
                self.settle_downstream(downstream);
            }
        }
    }

    fn on_upstream_closed(&mut self, u: Upstream, cause: CloseCause) {
        match u.state {
            State::Idle | State::Closing => {}
            State::Connecting(downstream) | State::Shaking(downstream) => {
                let reason = match cause {
                    CloseCause::Refused => "delayed connect error: Connection refused",
                    CloseCause::TimedOut => "delayed connect error: Connection timed out",
                    CloseCause::Unreachable => "delayed connect error: Network is unreachable",
                    CloseCause::Reset | CloseCause::Local | CloseCause::Finished => {
                        "delayed connect error: Connection reset by peer"
                    }
                };
                self.fail_connect(downstream, u.attempt(), reason.into());
            }
            State::Serving(downstream) => {
                let Some(d) = self.downstreams.get_mut(downstream) else {
                    return;
                };
                if let Stage::Opaque(opaque) = &mut d.stage {
                    opaque.upstream_closed(cause, &mut d.io, &mut self.shared);
                    self.settle_downstream(downstream);
                } else {
                    self.fail_exchange(downstream, Failure::Ended);
                }
            }
        }
    }

    fn fail_connect(&mut self, downstream: LinkId, failed: Attempt, reason: String) {
        let Some(d) = self.downstreams.get_mut(downstream) else {
            return;
        };
        match &mut d.stage {
            Stage::Http(http) => {
                http.on_connect_failed(
                    failed,
                    reason,
                    &mut d.io,
                    &d.facts,
                    &mut self.upstreams,
                    &mut self.shared,
                );
            }
            Stage::Opaque(opaque) => {
                opaque.on_connect_failed(failed, reason, &mut d.io, &mut self.shared);
            }
            Stage::Sniffing(_) | Stage::Shaking(_) | Stage::Lingering => {}
        }
        self.settle_downstream(downstream);
    }

    fn fail_exchange(&mut self, downstream: LinkId, failure: Failure) {
        let Some(d) = self.downstreams.get_mut(downstream) else {
            return;
        };
        match &mut d.stage {
            Stage::Http(http) => http.on_failure(failure, &mut d.io, &d.facts, &mut self.shared),
            Stage::Opaque(opaque) => {
                opaque.upstream_closed(CloseCause::Reset, &mut d.io, &mut self.shared)
            }
            Stage::Sniffing(_) | Stage::Shaking(_) | Stage::Lingering => {}
        }
        self.settle_downstream(downstream);
    }

    fn settle_downstream(&mut self, downstream: LinkId) {
        if let Some(d) = self.downstreams.get_mut(downstream) {
            d.go_on(&mut self.upstreams, &mut self.shared);
            d.settle(&mut self.upstreams, &mut self.shared);
        }
    }
}

/// What one read of an upstream brought.
#[derive(Debug, Default)]
struct Outcome {
    established: bool,
    /// close_notify.
    ended: bool,
    /// The answer is complete.
    done: bool,
    /// So is the request that it answers.
    whole: bool,
    /// The link may serve another request.
    reusable: bool,
    /// There were bytes behind the answer.
    surplus: bool,
    /// Bytes came for nobody.
    stray: bool,
    violation: Option<&'static str>,
}

fn read_answer(
    bytes: &[u8],
    receiver: &mut Receiver,
    answer: &mut Option<KeepAlive>,
    d: Option<&mut Downstream>,
    shared: &mut Shared,
    outcome: &mut Outcome,
) {
    if outcome.done || outcome.violation.is_some() {
        outcome.surplus |= !bytes.is_empty();
        return;
    }
    let Some(d) = d else {
        outcome.stray = true;
        return;
    };
    let Downstream {
        wire,
        io,
        facts,
        stage,
    } = d;
    let http = match stage {
        // An answer cannot be one before the question is out (TLS lets a server speak with its handshake).
        Stage::Http(http) if http.is_connecting() => {
            outcome.violation = Some("an answer before its request");
            return;
        }
        Stage::Http(http) => http,
        Stage::Opaque(opaque) => {
            opaque.take_from_upstream(bytes, wire, io);
            return;
        }
        Stage::Sniffing(_) | Stage::Shaking(_) | Stage::Lingering => {
            outcome.stray = true;
            return;
        }
    };
    let mut fields = mem::take(&mut shared.fields);
    let mut rest = bytes;
    loop {
        match receiver.next(&mut rest, &mut fields) {
            Ok(Some(Event::Response(_, head))) => {
                if !head.is_interim() {
                    *answer = Some(KeepAlive(head.keep_alive));
                }
                http.on_response(&head, io, facts, shared);
            }
            Ok(Some(Event::Data(_, data))) => http.on_response_data(data, wire, io),
            Ok(Some(Event::End(_))) => {
                outcome.done = true;
                let whole = http.on_response_end(io, shared);
                outcome.whole = whole;
                outcome.reusable = whole && answer.take() == Some(KeepAlive(true));
                outcome.surplus = !rest.is_empty();
                break;
            }
            Ok(Some(Event::Trailers(..) | Event::Request(..))) => {}
            Ok(None) => break,
            Err(violation) => {
                outcome.violation = Some(violation.what);
                break;
            }
        }
    }
    shared.fields = fields;
}

impl Upstream {
    fn attempt(&self) -> Attempt {
        Attempt {
            pool: self.pool,
            to: self.to,
        }
    }

    /// Hands over what was written.
    pub(super) fn flush(&mut self, shared: &mut Shared) {
        flush(&mut self.wire, &mut self.io, &mut shared.actions);
    }

    /// Buys the next bytes, if whoever they are for can take them.
    pub(super) fn grant(&mut self, wanted: bool, shared: &mut Shared) {
        match self.state {
            State::Serving(_) if wanted => {
                let size = if self.answer.is_some() || self.opaque {
                    limits::READ_BODY
                } else {
                    limits::READ_HEAD
                };
                self.io.grant(size, &mut shared.actions);
            }
            State::Shaking(_) | State::Idle | State::Closing => {
                self.io.grant(limits::READ_HEAD, &mut shared.actions)
            }
            State::Serving(_) | State::Connecting(_) => {}
        }
    }

    /// Ready for another request.
    fn pool(&mut self, shared: &mut Shared) {
        let id = self.io.id;
        let at = shared.now.at.after(limits::POOL_IDLE);
        let (serial, trust, trust_now) = (self.serial, self.trust, shared.world.trust);
        let room = shared
            .world
            .pool(self.pool)
            .filter(|c| c.keeps(serial, trust, trust_now));
        if let Some(pool) = room {
            pool.idle.push(id);
            self.state = State::Idle;
            shared
                .timers
                .set(&mut self.io.timer, id, Some(Deadline { at, why: "pooled" }));
        } else {
            self.retire(shared);
        }
    }

    /// Ends an idle link in order.
    pub(super) fn retire(&mut self, shared: &mut Shared) {
        self.forget_pooled(shared);
        self.state = State::Closing;
        self.io.finish();
        self.flush(shared);
        self.linger(shared);
    }

    pub(super) fn retire_if_idle(&mut self, shared: &mut Shared) {
        if self.state == State::Idle {
            self.retire(shared);
        }
    }

    /// Ends a link that is in the middle of something.
    pub(super) fn let_go(&mut self, shared: &mut Shared) {
        self.forget_pooled(shared);
        self.state = State::Closing;
        self.io.reset(&mut shared.actions);
    }

    fn forget_pooled(&mut self, shared: &mut Shared) {
        if self.state == State::Idle
            && let Some(pool) = shared.world.pool(self.pool)
        {
            pool.idle.retain(|id| *id != self.io.id);
        }
    }

    fn linger(&mut self, shared: &mut Shared) {
        self.io.linger(shared.now.at, &mut shared.timers);
        self.io.grant(limits::READ_HEAD, &mut shared.actions);
    }

    /// The downstream link that is served.
    pub(super) fn serves(&self) -> Option<LinkId> {
        match self.state {
            State::Connecting(d) | State::Shaking(d) | State::Serving(d) => Some(d),
            State::Idle | State::Closing => None,
        }
    }

    /// The half of an opaque connection ends in order.
    pub(super) fn finish(&mut self, shared: &mut Shared) {
        self.io.finish();
        self.flush(shared);
    }

    pub(super) fn waits_for(&self) -> String {
        match self.state {
            State::Connecting(d) => format!("connection to {} for {d:?}", self.to),
            State::Shaking(d) => format!("tls handshake with {} for {d:?}", self.to),
            State::Serving(d) => format!("{} for {d:?}", self.to),
            State::Idle => "a request".to_owned(),
            State::Closing => "the peer's end".to_owned(),
        }
    }

    pub(super) fn check(&self, downstreams: &Table<LinkId, Box<Downstream>>) {
        if let Some(d) = self.serves() {
            let uses = downstreams.get(d).and_then(|d| d.upstream());
            assert_eq!(
                uses,
                Some(self.io.id),
                "{:?} serves a link that uses it",
                self.io.id
            );
        }
        if self.io.is_reset() || self.io.has_eof() || matches!(self.state, State::Connecting(_)) {
            return;
        }
        let full = self
            .serves()
            .and_then(|d| downstreams.get(d))
            .is_some_and(|d| d.io.is_full());
        assert!(
            self.io.is_granted() || full,
            "{:?} is read, has ended or is held back by its peer: {}",
            self.io.id,
            self.waits_for()
        );
    }
}
