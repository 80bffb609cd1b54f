//! An opaque connection: bytes both ways, half-closes kept apart, judged once (S-121).

use std::mem;

use super::downstream::Facts;
use super::exchange::{Account, Right, Stage};
use super::link::{Io, Wire, write};
use super::upstream::{Attempt, Upstream, open};
use super::world::Place;
use super::{Shared, said};
use crate::accept::PortKind;
use crate::clock::Deadline;
use crate::decide::{self, Caller};
use crate::id::{LinkId, Table};
use crate::limits;
use crate::link::{Buf, CloseCause};
use crate::telemetry::record::Flags;
use crate::tls::{ChainKind, Sniff, sniff};

type Upstreams = Table<LinkId, Box<Upstream>>;

#[derive(Debug)]
pub(super) struct OpaqueSide {
    stage: Stage,
    /// `None` once the record is written.
    account: Option<Account>,
    /// The client's first bytes are held until it is known that they are no ClientHello, which this port refuses (S-25,
    /// DISABLE and TCP). `None`: they were looked at, here or before.
    unseen: Option<Buf>,
    client: Half,
    server: Half,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Open,
    /// Finished by its sender.
    Finished,
    /// And passed on.
    Passed,
}

impl OpaqueSide {
    /// Opens the upstream at once: an application that speaks first is heard before the client is judged (S-121).
    pub(super) fn open(
        io: &mut Io,
        facts: &Facts,
        ups: &mut Upstreams,
        shared: &mut Shared,
    ) -> Self {
        let place = shared.world.place(facts.route);
        let mut account = Account::new(facts, place.as_ref(), shared.now);
        let right = match &place {
            Some(Place::Inbound(door)) => {
                Some(Right::Greeting(decide::inbound_greeting(&door.port)))
            }
            Some(Place::Outbound(port)) => {
                account.note(|r| r.upstream_cluster = Some(port.otherwise.name.clone()));
                Some(Right::Permit(decide::outbound_connection(port)))
            }
            None => None,
        };
        let opened = right.zip(place).and_then(|(right, place)| {
            let pool = shared.world.choose(
                &place.target(),
                ChainKind::Tcp,
                facts.original_dst,
                &[],
                &mut shared.balance,
            )?;
            let upstream = open(&right, pool, io.id, ups, shared)?;
            Some(Stage::Connecting {
                right,
                upstream,
                tried: Vec::new(),
                parked: Buf::default(),
            })
        });
        let stage = opened.unwrap_or_else(|| {
            account.flag(Flags::UH);
            io.reset(&mut shared.actions);
            Stage::Answered
        });
        let mut side = Self {
            stage,
            account: Some(account),
            unseen: None,
            client: Half::Open,
            server: Half::Open,
        };
        if matches!(side.stage, Stage::Answered) {
            side.close(shared);
        }
        side
    }

    /// The client's first bytes were not looked at: the application was to be heard before them (S-27).
    pub(super) fn look_first(&mut self) {
        self.unseen = Some(Buf::default());
    }

    /// The client has not finished its direction.
    pub(super) fn awaits_client(&self) -> bool {
        self.client == Half::Open
    }

    /// The application has not finished its direction.
    pub(super) fn awaits_server(&self) -> bool {
        self.server == Half::Open
    }

    /// Nothing can be carried any more in either direction.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Answered)
            || (self.client == Half::Passed && self.server == Half::Passed)
    }

    pub(super) fn upstream(&self) -> Option<LinkId> {
        self.stage.upstream()
    }

    fn close(&mut self, shared: &mut Shared) {
        if let Some(account) = self.account.take() {
            account.close(shared);
        }
    }

    /// Bytes of the client. False: the link is refused.
    pub(super) fn take_from_downstream(
        &mut self,
        bytes: &[u8],
        io: &mut Io,
        facts: &Facts,
        ups: &mut Upstreams,
        shared: &mut Shared,
    ) -> bool {
        let first;
        let bytes = match self.unseen.take() {
            None => bytes,
            Some(mut held) => {
                held.extend_from_slice(bytes);
                match sniff(&held) {
                    Sniff::NeedMore => {
                        self.unseen = Some(held);
                        return true;
                    }
                    Sniff::Hello(_) | Sniff::Bad => {
                        self.no_chain(io, ups, shared);
                        return false;
                    }
                    Sniff::NotTls => {
                        first = held;
                        &first
                    }
                }
            }
        };
        self.pass(bytes, io, facts, ups, shared)
    }

    /// The client ended: what was held is no ClientHello, and an end is something that it says, so it is judged like bytes.
    /// False: the link is refused.
    pub(super) fn take_end(
        &mut self,
        io: &mut Io,
        facts: &Facts,
        ups: &mut Upstreams,
        shared: &mut Shared,
    ) -> bool {
        match self.unseen.take() {
            Some(held) if !held.is_empty() => self.pass(&held, io, facts, ups, shared),
            Some(_) | None => self.judge(io, facts, ups, shared),
        }
    }

    /// Bytes of the client on their way to the application, judged before the first of them.
    fn pass(
        &mut self,
        bytes: &[u8],
        io: &mut Io,
        facts: &Facts,
        ups: &mut Upstreams,
        shared: &mut Shared,
    ) -> bool {
        if !self.judge(io, facts, ups, shared) {
            return false;
        }
        if let Some(account) = &mut self.account {
            account.received += bytes.len() as u64;
        }
        match &mut self.stage {
            Stage::Connecting { parked, .. } => parked.extend_from_slice(bytes),
            Stage::Forwarding { upstream, .. } => {
                if let Some(u) = ups.get_mut(*upstream) {
                    write(&mut u.wire, &mut u.io, bytes);
                }
            }
            Stage::Answered => {}
        }
        true
    }

    /// Turns the right to listen into the right to speak, or ends both links without a byte (S-121).
    fn judge(
        &mut self,
        io: &mut Io,
        facts: &Facts,
        ups: &mut Upstreams,
        shared: &mut Shared,
    ) -> bool {
        let (Stage::Connecting { right, .. } | Stage::Forwarding { right, .. }) = &mut self.stage
        else {
            return true;
        };
        if matches!(right, Right::Permit(_)) {
            return true;
        }
        let door = match shared.world.place(facts.route) {
            Some(Place::Inbound(door))
                if facts.still_fit(&door.port, &shared.world)
                    && door.port.kind != PortKind::Http =>
            {
                door
            }
            // The port is another one since the connection was accepted.
            _ => {
                self.no_chain(io, ups, shared);
                return false;
            }
        };
        let mut audited = Vec::new();
        let caller = Caller {
            principal: facts.principal(),
            peer: facts.peer,
            reached: facts.original_dst.ip(),
            sni: facts.sni.as_deref(),
        };
        let verdict = said::inbound_connection(&door.port, caller, io.id, shared, &mut |policy| {
            audited.push(policy.to_string())
        });
        if !audited.is_empty()
            && let Some(account) = &mut self.account
        {
            account.note(|r| r.audit = audited);
        }
        match verdict {
            Ok(permit) => {
                *right = Right::Permit(permit);
                true
            }
            Err(denial) => {
                self.refuse(denial.details, io, ups, shared);
                false
            }
        }
    }

    /// No filter chain takes the connection (S-28).
    fn no_chain(&mut self, io: &mut Io, ups: &mut Upstreams, shared: &mut Shared) {
        shared.stats.refused += 1;
        shared.note(io.id, "no filter chain takes the connection");
        if let Some(u) = self.stage.upstream().and_then(|id| ups.get_mut(id)) {
            u.let_go(shared);
        }
        self.stage = Stage::Answered;
        if let Some(account) = &mut self.account {
            account.note(|r| {
                r.flags = Flags::NR;
                r.details = Some("filter_chain_not_found".into());
                r.upstream_cluster = None;
            });
        }
        self.close(shared);
        io.reset(&mut shared.actions);
    }

    fn refuse(&mut self, details: String, io: &mut Io, ups: &mut Upstreams, shared: &mut Shared) {
        shared.stats.denied += 1;
        if let Some(u) = self.stage.upstream().and_then(|id| ups.get_mut(id)) {
            if let Some(account) = &mut self.account {
                account.upstream = Some(u.to);
                account.upstream_local = u.local;
            }
            u.let_go(shared);
        }
        if let Some(account) = &mut self.account {
            account.note(|r| r.termination = Some(details));
        }
        self.stage = Stage::Answered;
        self.close(shared);
        io.reset(&mut shared.actions);
    }

    pub(super) fn take_from_upstream(&mut self, bytes: &[u8], wire: &mut Wire, io: &mut Io) {
        if let Some(account) = &mut self.account {
            account.sent += bytes.len() as u64;
        }
        write(wire, io, bytes);
    }

    pub(super) fn end_of_downstream(&mut self, ups: &mut Upstreams, shared: &mut Shared) {
        if self.client == Half::Open {
            self.client = Half::Finished;
        }
        self.pass_end(ups, shared);
    }

    /// Passes the client's end on, once its bytes have somewhere to go.
    fn pass_end(&mut self, ups: &mut Upstreams, shared: &mut Shared) {
        if self.client != Half::Finished {
            return;
        }
        if let Stage::Forwarding { upstream, .. } = &self.stage
            && let Some(u) = ups.get_mut(*upstream)
        {
            self.client = Half::Passed;
            u.finish(shared);
        }
    }

    pub(super) fn end_of_upstream(&mut self, io: &mut Io) {
        if self.server == Half::Open {
            self.server = Half::Passed;
            io.finish();
        }
    }

    pub(super) fn on_connected(&mut self, u: &mut Upstream, shared: &mut Shared) {
        u.opaque = true;
        self.stage = match mem::replace(&mut self.stage, Stage::Answered) {
            Stage::Connecting {
                right,
                upstream,
                parked,
                ..
            } => {
                write(&mut u.wire, &mut u.io, &parked);
                if let Some(account) = &mut self.account {
                    account.forwarded_at = Some(shared.now.at);
                    account.upstream = Some(u.to);
                    account.upstream_local = u.local;
                }
                Stage::Forwarding { right, upstream }
            }
            other => other,
        };
        if self.client == Half::Finished {
            self.client = Half::Passed;
            u.finish(shared);
        }
    }

    /// An opaque connection is not tried twice.
    pub(super) fn on_connect_failed(
        &mut self,
        failed: Attempt,
        reason: String,
        io: &mut Io,
        shared: &mut Shared,
    ) {
        shared.stats.upstream_failures += 1;
        shared.note(io.id, reason.clone());
        self.stage = Stage::Answered;
        if let Some(account) = &mut self.account {
            account.upstream = Some(failed.to);
            account.note(|r| {
                r.flags = r.flags.with(Flags::UF).with(Flags::URX);
                r.upstream_failure = Some(reason);
            });
        }
        self.close(shared);
        io.reset(&mut shared.actions);
    }

    pub(super) fn upstream_closed(&mut self, cause: CloseCause, io: &mut Io, shared: &mut Shared) {
        self.stage = Stage::Answered;
        if cause != CloseCause::Finished {
            if let Some(account) = &mut self.account {
                account.flag(Flags::UR);
            }
            io.reset(&mut shared.actions);
        } else if self.server == Half::Open {
            self.server = Half::Passed;
            io.finish();
        }
        self.close(shared);
    }

    pub(super) fn abandon(mut self, ups: &mut Upstreams, shared: &mut Shared) {
        let through = self.client == Half::Passed && self.server == Half::Passed;
        if let Some(u) = self.stage.upstream().and_then(|id| ups.get_mut(id)) {
            if through {
                u.retire(shared);
            } else {
                u.let_go(shared);
            }
        }
        if !through && let Some(account) = &mut self.account {
            account.flag(Flags::DC);
        }
        self.close(shared);
    }

    /// The end of a turn: what was written to the upstream goes out.
    pub(super) fn settle(&mut self, _: &mut Io, ups: &mut Upstreams, shared: &mut Shared) {
        if let Some(u) = self.stage.upstream().and_then(|id| ups.get_mut(id)) {
            u.flush(shared);
        }
    }

    pub(super) fn grant(&mut self, io: &mut Io, ups: &Upstreams, shared: &mut Shared) {
        if self.is_over() {
            io.linger(shared.now.at, &mut shared.timers);
        } else {
            let due = Deadline {
                at: shared.now.at.after(limits::IDLE_TIMEOUT),
                why: "opaque bytes",
            };
            shared.timers.set(&mut io.timer, io.id, Some(due));
        }
        if self.client != Half::Open {
            // Only the end of the transport can still come; it is wanted, so that the link can be closed.
            io.grant(limits::READ_HEAD, &mut shared.actions);
            return;
        }
        let one_more = matches!(&self.stage, Stage::Connecting { parked, .. } if parked.is_empty());
        if one_more || self.held_back(ups).is_none() {
            io.grant(limits::READ_BODY, &mut shared.actions);
        }
    }

    /// Why the client is not read, in words; `None`: it is.
    pub(super) fn held_back(&self, ups: &Upstreams) -> Option<&'static str> {
        match &self.stage {
            Stage::Connecting { .. } => Some("the upstream is being connected"),
            Stage::Forwarding { upstream, .. } => ups
                .get(*upstream)
                .filter(|u| u.io.is_full())
                .map(|_| "the upstream has to take what it got"),
            Stage::Answered => None,
        }
    }

    pub(super) fn waits_for(&self) -> String {
        match &self.stage {
            Stage::Connecting { upstream, .. } => format!("connection {upstream:?}"),
            Stage::Forwarding { upstream, .. } => {
                format!("opaque bytes of either side, upstream {upstream:?}")
            }
            Stage::Answered => "the end of an opaque connection".to_owned(),
        }
    }
}
