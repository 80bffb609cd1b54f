//! The HTTP side of a downstream link: one request at a time, judged, forwarded, answered.

use std::mem;

use super::downstream::Facts;
use super::exchange::{Account, Exchange, Local, RequestBody, Response, Stage, Upstreams};
use super::link::{Io, Wire, write};
use super::request::{begin, pool};
use super::upstream::{Attempt, Obtained, Upstream, obtain};
use super::world::Target;
use super::{Route, Shared, rewrite};
use crate::clock::Deadline;
use crate::error::Violation;
use crate::http::event::Event;
use crate::http::h1::{Receiver, ResponseTo, encode};
use crate::http::head::{Framing, ResponseHead};
use crate::http::reply::LocalReply;
use crate::id::LinkId;
use crate::limits;
use crate::link::Buf;
use crate::telemetry::record::Flags;

#[derive(Debug)]
pub(super) struct HttpSide {
    receiver: Receiver,
    /// Plaintext of later requests, at most one read of it.
    parked: Buf,
    exchange: Option<Box<Exchange>>,
    life: Life,
    client: Client,
    waits: Waits,
}

/// How much longer the link is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    KeptAlive,
    /// The exchange under way is the last one.
    Last,
    /// It was.
    Over,
}

/// The client's direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Speaking,
    Finished,
}

/// What the deadline of the link is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    Unset,
    Idle,
    Head,
    Body,
    Nothing,
}

/// Why an exchange cannot be answered by its upstream.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// No connection, after the last try (S-59, S-66).
    Connect { reason: String },
    /// The connection ended before the answer began (S-64).
    Ended,
    /// The answer broke the protocol.
    Protocol { what: &'static str },
}

impl HttpSide {
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            receiver: Receiver::requests(),
            parked: Buf::default(),
            exchange: None,
            life: if shared.drain.is_some() {
                Life::Last
            } else {
                Life::KeptAlive
            },
            client: Client::Speaking,
            waits: Waits::Unset,
        }
    }

    pub(super) fn upstream(&self) -> Option<LinkId> {
        self.exchange.as_ref().and_then(|x| x.stage.upstream())
    }

    /// The request waits for its upstream.
    pub(super) fn is_connecting(&self) -> bool {
        self.exchange.as_ref().is_some_and(|x| x.is_connecting())
    }

    /// The link is to be finished.
    pub(super) fn is_over(&self) -> bool {
        self.life == Life::Over
    }

    /// After the exchange under way, if any, the link ends; true if there is none.
    pub(super) fn take_no_more(&mut self) -> bool {
        let idle = self.exchange.is_none() && self.receiver.is_idle() && self.parked.is_empty();
        self.life = if idle { Life::Over } else { Life::Last };
        idle
    }

    /// A further request has to wait for the answer to the one under way.
    fn is_busy(&self) -> bool {
        self.exchange
            .as_ref()
            .is_some_and(|x| x.request == RequestBody::Done)
    }

    /// Plaintext of the client.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        io: &mut Io,
        facts: &Facts,
        ups: &mut Upstreams,
        shared: &mut Shared,
    ) {
        if self.parked.is_empty() {
            let taken = self.take(bytes, io, facts, ups, shared);
            if let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
                self.parked.extend_from_slice(rest);
            }
        } else {
            self.parked.extend_from_slice(bytes);
        }
    }

    /// Goes on with what was parked, as far as it goes.
    fn read_parked(
        &mut self,
        io: &mut Io,
        facts: &Facts,
        ups: &mut Upstreams,
        shared: &mut Shared,
    ) {
        while !self.parked.is_empty() && !self.is_busy() && !io.is_full() {
            let mut parked = mem::take(&mut self.parked);
            let taken = self.take(&parked, io, facts, ups, shared);
            parked.advance(taken);
            self.parked = parked;
            if taken == 0 {
                break;
            }
        }
    }

    /// Reads requests until bytes or permission to go on run out; the number of bytes taken.
    fn take(
        &mut self,
        bytes: &[u8],
        io: &mut Io,
        facts: &Facts,
        ups: &mut Upstreams,
        shared: &mut Shared,
    ) -> usize {
        let mut fields = mem::take(&mut shared.fields);
        let mut rest = bytes;
        while !self.is_busy() && self.life != Life::Over && !io.is_full() {
            let Self {
                receiver,
                exchange,
                life,
                ..
            } = self;
            let event = match receiver.next(&mut rest, &mut fields) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(violation) => {
                    self.on_violation(violation, io, facts, ups, shared);
                    break;
                }
            };
            match event {
                Event::Request(_, head) => {
                    let (started, then) = begin(&head, *life, io, facts, ups, shared);
                    *life = then;
                    if then == Life::Over {
                        started.account.close(shared);
                    } else {
                        *exchange = Some(started);
                    }
                }
                Event::Data(_, data) => {
                    if let Some(x) = exchange {
                        x.forward(data, ups);
                    }
                }
                Event::End(_) => {
                    if let Some(x) = exchange {
                        x.end_of_request(ups);
                        if x.response == Response::Done {
                            self.complete(shared);
                        }
                    }
                }
                // Neither enables trailers by default in Envoy: they end here.
                Event::Trailers(..) | Event::Response(..) => {}
            }
        }
        shared.fields = fields;
        let taken = if self.life == Life::Over {
            bytes.len()
        } else {
            bytes.len() - rest.len()
        };
        if let Some(u) = self.upstream().and_then(|id| ups.get_mut(id)) {
            u.flush(shared);
        }
        taken
    }

    fn on_violation(
        &mut self,
        violation: Violation,
        io: &mut Io,
        facts: &Facts,
        ups: &mut Upstreams,
        shared: &mut Shared,
    ) {
        shared.stats.violations += 1;
        shared.note(io.id, violation.what);
        let mut x = match self.exchange.take() {
            // In the middle of a request: its upstream must not take what it has for the whole.
            Some(mut x) => {
                x.drop_upstream(ups, shared);
                x
            }
            None => {
                let place = shared.world.place(facts.route);
                Box::new(Exchange::new(
                    Account::new(facts, place.as_ref(), shared.now),
                    RequestBody::Sized,
                    ResponseTo::Other,
                ))
            }
        };
        self.life = Life::Over;
        match LocalReply::to_violation(&violation) {
            Some(answer) if x.response == Response::Awaited => {
                let local = Local {
                    status: violation.status,
                    body: &answer.body,
                    details: violation.details.to_owned(),
                    flags: Flags::DPE,
                    headers: Vec::new(),
                };
                x.reply(local, true, io, facts, shared);
            }
            answer => {
                x.account.flag(Flags::DPE);
                x.account
                    .note(|r| r.details = Some(violation.details.to_owned()));
                // What stands before it was answered and may arrive; an answer that is under way is cut short.
                if answer.is_some() {
                    io.reset(&mut shared.actions);
                }
            }
        }
        x.account.close(shared);
    }

    /// The exchange under way is through: write its record and be ready for the next.
    fn complete(&mut self, shared: &mut Shared) {
        let Some(x) = self.exchange.take() else {
            return;
        };
        x.account.close(shared);
        if self.life == Life::KeptAlive {
            self.receiver.resume();
            self.waits = Waits::Unset;
        } else {
            self.life = Life::Over;
        }
    }

    /// The client's direction ended. False: the link is of no more use.
    pub(super) fn on_end(&mut self, _: &Facts, ups: &mut Upstreams, shared: &mut Shared) -> bool {
        match &self.exchange {
            // What is here already is answered all the same.
            Some(x) if x.request == RequestBody::Done => {
                self.client = Client::Finished;
                true
            }
            Some(_) => {
                self.cut_off(ups, shared);
                false
            }
            None if !self.parked.is_empty() => {
                self.client = Client::Finished;
                true
            }
            None => false,
        }
    }

    pub(super) fn abandon(mut self, ups: &mut Upstreams, shared: &mut Shared) {
        self.cut_off(ups, shared);
    }

    /// The client left its exchange.
    fn cut_off(&mut self, ups: &mut Upstreams, shared: &mut Shared) {
        if let Some(mut x) = self.exchange.take() {
            x.drop_upstream(ups, shared);
            if x.response != Response::Done {
                x.account.flag(Flags::DC);
                x.account
                    .note(|r| r.details = Some("downstream_remote_disconnect".into()));
            }
            x.account.close(shared);
        }
        self.life = Life::Over;
    }

    pub(super) fn on_time(
        &mut self,
        io: &mut Io,
        facts: &Facts,
        ups: &mut Upstreams,
        shared: &mut Shared,
    ) {
        match self.waits {
            Waits::Head => {
                let place = shared.world.place(facts.route);
                let account = Account::new(facts, place.as_ref(), shared.now);
                let mut x = Exchange::new(account, RequestBody::Sized, ResponseTo::Other);
                x.reply(
                    Local::new(408, "", "request_header_timeout", Flags::NONE),
                    true,
                    io,
                    facts,
                    shared,
                );
                x.account.close(shared);
                self.life = Life::Over;
            }
            Waits::Body => {
                self.life = Life::Over;
                let Some(mut x) = self.exchange.take() else {
                    return;
                };
                x.drop_upstream(ups, shared);
                if x.response == Response::Awaited {
                    let local = Local::new(408, "stream timeout", "stream_idle_timeout", Flags::SI);
                    x.reply(local, true, io, facts, shared);
                } else {
                    x.account.flag(Flags::SI);
                    x.account
                        .note(|r| r.details = Some("stream_idle_timeout".into()));
                    io.reset(&mut shared.actions);
                }
                x.account.close(shared);
            }
            Waits::Idle | Waits::Unset | Waits::Nothing => self.life = Life::Over,
        }
    }

    /// The end of a turn: reads what was parked, buys the next bytes, sets the clock.
    pub(super) fn settle(&mut self, io: &mut Io, ups: &Upstreams, shared: &mut Shared) {
        if self.held_back_from(io, ups).is_none() {
            let body = self.exchange.is_some() && !self.is_busy();
            io.grant(
                if body {
                    limits::READ_BODY
                } else {
                    limits::READ_HEAD
                },
                &mut shared.actions,
            );
        }
        let waits = match &self.exchange {
            None if self.receiver.is_idle() => Waits::Idle,
            None => Waits::Head,
            Some(x) if x.request != RequestBody::Done && io.is_granted() => Waits::Body,
            Some(_) => Waits::Nothing,
        };
        if waits != self.waits || waits == Waits::Body {
            self.waits = waits;
            let due = match waits {
                Waits::Idle => Some((limits::IDLE_TIMEOUT, "next request")),
                Waits::Head => Some((limits::HEAD_TIMEOUT, "request head")),
                Waits::Body
                    if self
                        .exchange
                        .as_ref()
                        .is_some_and(|x| x.request == RequestBody::Chunked) =>
                {
                    Some((limits::STREAM_TIMEOUT, "request body"))
                }
                Waits::Body => Some((limits::BODY_TIMEOUT, "request body")),
                Waits::Nothing | Waits::Unset => None,
            };
            let due = due.map(|(span, why)| Deadline {
                at: shared.now.at.after(span),
                why,
            });
            shared.timers.set(&mut io.timer, io.id, due);
        }
    }

    /// Whether there is something to go on with that is already here.
    pub(super) fn go_on(
        &mut self,
        io: &mut Io,
        facts: &Facts,
        ups: &mut Upstreams,
        shared: &mut Shared,
    ) {
        if self.life == Life::Over {
            return;
        }
        self.read_parked(io, facts, ups, shared);
        let waits_for_room = io.is_full() && !self.parked.is_empty();
        if self.client == Client::Finished && self.exchange.is_none() && !waits_for_room {
            self.life = Life::Over;
        }
    }

    /// Why the client is not read, in words; `None`: it is.
    pub(super) fn held_back(&self, ups: &Upstreams) -> Option<&'static str> {
        if !self.parked.is_empty() {
            return Some("a request waits for the answer to the one before it");
        }
        match &self.exchange.as_ref()?.stage {
            Stage::Connecting { .. } => Some("the upstream is being connected"),
            Stage::Forwarding { upstream, .. } => ups
                .get(*upstream)
                .filter(|u| u.io.is_full())
                .map(|_| "the upstream has to take what it got"),
            Stage::Answered => None,
        }
    }

    fn held_back_from(&self, io: &Io, ups: &Upstreams) -> Option<&'static str> {
        if io.is_full() {
            return Some("the client has to take what it got");
        }
        match &self.exchange {
            // One read stays granted while the upstream is connected, so that a client that leaves is noticed.
            Some(x) if self.parked.is_empty() && !x.has_parked_body() && x.is_connecting() => None,
            _ => self.held_back(ups),
        }
    }

    pub(super) fn waits_for(&self) -> String {
        match &self.exchange {
            None => "a request".to_owned(),
            Some(x) => match &x.stage {
                Stage::Connecting {
                    upstream, tried, ..
                } => format!("connection {upstream:?}, try {}", tried.len() + 1),
                Stage::Forwarding { upstream, .. } => {
                    format!("1 exchange forwarding on {upstream:?}")
                }
                Stage::Answered => "the rest of a request that was answered".to_owned(),
            },
        }
    }

    // What the upstream side reports.

    /// The upstream link is up: what waited for it goes out.
    pub(super) fn on_connected(&mut self, u: &mut Upstream, shared: &mut Shared) {
        let Some(x) = &mut self.exchange else { return };
        x.stage = match mem::replace(&mut x.stage, Stage::Answered) {
            Stage::Connecting {
                right,
                upstream,
                parked,
                ..
            } => {
                write(&mut u.wire, &mut u.io, &parked);
                x.account.forwarded_at = Some(shared.now.at);
                x.account.upstream = Some(u.to);
                x.account.upstream_local = u.local;
                Stage::Forwarding { right, upstream }
            }
            other => other,
        };
    }

    /// One try to connect came to nothing: another follows, or the answer that there is none (S-66).
    pub(super) fn on_connect_failed(
        &mut self,
        failed: Attempt,
        reason: String,
        io: &mut Io,
        facts: &Facts,
        ups: &mut Upstreams,
        shared: &mut Shared,
    ) {
        let Some(x) = &mut self.exchange else { return };
        let Stage::Connecting {
            right,
            mut tried,
            parked,
            ..
        } = mem::replace(&mut x.stage, Stage::Answered)
        else {
            return;
        };
        tried.push(failed.pool);
        x.account.upstream = Some(failed.to);
        // A snapshot that came meanwhile may lead elsewhere, where other rules hold: the permit does not reach there.
        let again = match &x.target {
            Some(Target::Application(of, serial)) => shared
                .world
                .place(facts.route)
                .is_some_and(|place| place.leads_to(*of, *serial)),
            Some(Target::Cluster(_)) => true,
            None => false,
        };
        let again = again && tried.len() < limits::ATTEMPTS_MAX as usize;
        let obtained = x
            .target
            .as_ref()
            .filter(|_| again)
            .and_then(|target| pool(target, facts, &tried, shared))
            .and_then(|pool| obtain(&right, pool, io.id, ups, shared));
        match obtained {
            Some(Obtained::Ready(id)) => {
                x.stage = Stage::Connecting {
                    right,
                    upstream: id,
                    tried,
                    parked,
                };
                if let Some(u) = ups.get_mut(id) {
                    u.receiver.expect_response(x.to);
                    self.on_connected(u, shared);
                    u.flush(shared);
                }
                return;
            }
            Some(Obtained::Opening(id)) => {
                if let Some(u) = ups.get_mut(id) {
                    u.receiver.expect_response(x.to);
                }
                x.stage = Stage::Connecting {
                    right,
                    upstream: id,
                    tried,
                    parked,
                };
                return;
            }
            None => {}
        }
        self.on_failure(Failure::Connect { reason }, io, facts, shared);
    }

    /// The upstream cannot answer: we do (S-59, S-64), or cut the answer short where it has begun.
    pub(super) fn on_failure(
        &mut self,
        failure: Failure,
        io: &mut Io,
        facts: &Facts,
        shared: &mut Shared,
    ) {
        let Some(x) = &mut self.exchange else { return };
        x.stage = Stage::Answered;
        shared.stats.upstream_failures += 1;
        if x.response != Response::Awaited {
            x.account.note(|r| {
                r.flags = r.flags.with(match failure {
                    Failure::Protocol { .. } => Flags::UPE,
                    Failure::Connect { .. } | Failure::Ended => Flags::UC,
                });
                r.details =
                    Some("upstream_reset_after_response_started{connection_termination}".into());
            });
            if let Some(x) = self.exchange.take() {
                x.account.close(shared);
            }
            self.life = Life::Over;
            io.reset(&mut shared.actions);
            return;
        }
        const PREFIX: &str = "upstream connect error or disconnect/reset before headers. ";
        let (status, flags, body, details) = match failure {
            Failure::Connect { reason } => {
                x.account
                    .note(|r| r.upstream_failure = Some(reason.clone()));
                (
                    503,
                    Flags::UF.with(Flags::URX),
                    format!(
                        "{PREFIX}retried and the latest reset reason: remote connection failure, transport failure reason: {reason}"
                    ),
                    format!(
                        "upstream_reset_before_response_started{{remote_connection_failure|{reason}}}"
                    ),
                )
            }
            Failure::Ended => (
                503,
                Flags::UC,
                format!("{PREFIX}reset reason: connection termination"),
                "upstream_reset_before_response_started{connection_termination}".to_owned(),
            ),
            Failure::Protocol { what } => (
                502,
                Flags::UPE,
                format!("{PREFIX}reset reason: protocol error"),
                format!("upstream_reset_before_response_started{{protocol_error|{what}}}"),
            ),
        };
        let close = x.request != RequestBody::Done || self.life != Life::KeptAlive;
        x.reply(
            Local::new(status, &body, &details, flags),
            close,
            io,
            facts,
            shared,
        );
        if close {
            self.life = Life::Last;
        }
        if x.request == RequestBody::Done {
            self.complete(shared);
        } else {
            self.life = Life::Over;
            if let Some(x) = self.exchange.take() {
                x.account.close(shared);
            }
        }
    }

    /// The head of an answer.
    pub(super) fn on_response(
        &mut self,
        head: &ResponseHead<'_>,
        io: &mut Io,
        facts: &Facts,
        shared: &mut Shared,
    ) {
        let Some(x) = &mut self.exchange else { return };
        if head.status < 200 {
            rewrite::interim(head, io.plain());
            return;
        }
        let bodiless = x.to == ResponseTo::Head || head.status == 204 || head.status == 304;
        x.response = match head.framing {
            Framing::Chunked | Framing::UntilClose if !bodiless => Response::Chunked,
            _ => Response::Sized,
        };
        let ms = x
            .account
            .forwarded_at
            .map_or(0, |at| shared.now.at.since(at).as_millis() as u64);
        x.account.note(|r| {
            r.status = head.status;
            r.details = Some("via_upstream".into());
            r.upstream_service_ms = Some(ms);
        });
        // An answer that overtakes its request ends the connection: what the client still sends cannot be told apart.
        let close = self.life != Life::KeptAlive || x.request != RequestBody::Done;
        if close {
            self.life = Life::Last;
        }
        let chunked = x.response == Response::Chunked;
        rewrite::response(
            head,
            facts.route,
            chunked,
            ms,
            close,
            shared.date.of(shared.now.wall),
            io.plain(),
        );
    }

    /// A piece of the body of an answer.
    pub(super) fn on_response_data(&mut self, data: &[u8], wire: &mut Wire, io: &mut Io) {
        let Some(x) = &mut self.exchange else { return };
        x.account.sent += data.len() as u64;
        match x.response {
            Response::Chunked => {
                encode::chunk_start(io.plain().storage(), data.len() as u64);
                write(wire, io, data);
                io.gather(b"\r\n");
            }
            Response::Sized => write(wire, io, data),
            Response::Awaited | Response::Done => {}
        }
    }

    /// The end of an answer. True: the upstream link may serve somebody else.
    pub(super) fn on_response_end(&mut self, io: &mut Io, shared: &mut Shared) -> bool {
        let Some(x) = &mut self.exchange else {
            return false;
        };
        if x.response == Response::Chunked {
            io.gather(b"0\r\n\r\n");
        }
        x.response = Response::Done;
        x.stage = Stage::Answered;
        let whole = x.request == RequestBody::Done;
        if whole {
            self.complete(shared);
        } else {
            self.life = Life::Over;
            if let Some(x) = self.exchange.take() {
                x.account.close(shared);
            }
        }
        whole
    }
}

/// Who answers, in the header `server` (S-331).
pub(super) fn server_name(route: Route) -> &'static str {
    match route {
        Route::Inbound(_) => "istio-envoy",
        Route::Outbound(_) => "envoy",
    }
}
