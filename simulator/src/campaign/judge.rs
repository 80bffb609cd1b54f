//! What must hold at the end of a run, whatever happened in it.
//!
//! The judge knows the plan and Istio's rules for it, and asks nobody inside: it compares what clients sent and got, what
//! applications got, and what the log says.

use std::collections::BTreeMap;

use meshward_core::api::peer_authentication::Mode;

use super::actors::{Actor, App, Talk};
use super::plan::{
    Caller, ConnPlan, Leave, Plan, Profile, Service, TCP_ID, Version, answer_of, body_of, id_in,
    id_of_target,
};
use super::{Inspected, Outcome, Sim, who};
use crate::http::Message;
use crate::peer::{Conn, Ending};
use crate::world::{Peer, World};

/// What the rules say about one request, over all versions that were in force.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    /// Some order of versions lets it pass; refuses its connection; refuses it by policy.
    passes: bool,
    no_connection: bool,
    denied: bool,
}

impl Fate {
    fn of(plan: &Plan, conn: &ConnPlan, target: Option<&str>) -> Self {
        let mut fate = Self::default();
        let caller = conn.caller;
        let all = || plan.versions_at(conn.at).iter();
        for front in all() {
            for accept in all() {
                for policy in all() {
                    fate.add(caller, target, front, accept, policy);
                }
            }
        }
        fate
    }

    fn add(
        &mut self,
        caller: Caller,
        target: Option<&str>,
        front: &Version,
        accept: &Version,
        policy: &Version,
    ) {
        // (speaks TLS, its certificate is accepted, it is `front`)
        let (tls, accepted, is_front) = match caller {
            Caller::Sidecar => (front.mode != Mode::Disable, !front.expects_other, true),
            Caller::SidecarToImpostor => (front.mode != Mode::Disable, false, false),
            Caller::Plain => (false, true, false),
            Caller::Tls { front } => (true, true, front),
            Caller::Stranger | Caller::Foreigner | Caller::Nameless => (true, false, false),
        };
        let fits = match accept.mode {
            Mode::Strict => tls,
            Mode::Permissive => true,
            Mode::Disable | Mode::Unset => !tls,
        };
        // Without TLS nobody asks the impostor who it is.
        let impostor_unasked = caller == Caller::SidecarToImpostor && !tls;
        if !fits || (tls && !accepted) {
            self.no_connection = true;
        } else if impostor_unasked || policy.permits(tls && is_front, target) {
            self.passes = true;
        } else {
            self.denied = true;
        }
    }

    /// All orders say the same.
    fn is_certain(self) -> bool {
        u8::from(self.passes) + u8::from(self.no_connection) + u8::from(self.denied) == 1
    }
}

/// Every link of a proxy that still does something, and what, though every client has long given up.
pub(super) fn busy<P: Peer>(world: &World<Inspected, P>) -> Vec<String> {
    let mut found = Vec::new();
    for (index, process) in world.processes().iter().enumerate() {
        let proxy = process.machine().proxy();
        let waits = proxy.pending();
        let busy = waits.iter().filter(|line| !line.contains(" a request"));
        found.extend(busy.map(|line| format!("p{index} is not done: {line}")));
    }
    found
}

/// What is left in a world in which nothing should be. `over`: nothing is still to happen.
pub(super) fn left_over<P: Peer>(world: &mut World<Inspected, P>, over: bool) -> Vec<String> {
    let mut found = Vec::new();
    if !over {
        found.push("something is still waiting after hours".to_owned());
    }
    for (index, process) in world.processes().iter().enumerate() {
        let tally = process.tally();
        if tally.links != tally.closed || process.open_links() > 0 {
            found.push(format!(
                "p{index}: {} links began and {} closed",
                tally.links, tally.closed
            ));
        }
        let proxy = process.machine().proxy();
        if proxy.links() > 0 {
            found.push(format!(
                "p{index} holds links: {}",
                proxy.pending().join("; ")
            ));
        }
        if let Some(deadline) = process.machine().proxy_deadline() {
            found.push(format!("p{index} waits for `{}`", deadline.why));
        }
    }
    if world.net().open_streams() > 0 {
        found.push(format!("{} streams are open", world.net().open_streams()));
    }
    found
}

pub(super) fn judge(plan: &Plan, world: &mut Sim, over: bool, busy: Vec<String>) -> Outcome {
    let mut found = busy;
    found.extend(left_over(world, over));
    let log = Log::read(world, &mut found);
    let mut seen = Seen::default();
    for message in app(world, who::CATALOG_APP).arrivals() {
        seen.arrival(message, &mut found);
    }
    for message in app(world, who::IMPOSTOR_APP).arrivals() {
        seen.arrival(message, &mut found);
    }
    for peer in [who::CATALOG_APP, who::IMPOSTOR_APP] {
        if app(world, peer).is_broken() {
            found.push("an application was sent what is no HTTP".into());
        }
    }
    for (_, conn) in world.peer(who::ECHO).hands.conns() {
        if let Some(id) = id_in(&conn.received) {
            seen.streams.insert(id, conn.received.clone());
        } else if !conn.received.is_empty() && conn.received[0] != b'#' {
            found.push("a stream begins with what nobody sent".into());
        }
    }
    let mut outcome = Outcome {
        hash: world.trace().hash(),
        lines: world.trace().lines().to_vec(),
        requests: 0,
        net: world.net().stats(),
        answered: 0,
        denied: 0,
        arrived: seen.requests.len() + seen.streams.len(),
        violations: Vec::new(),
    };
    for peer in [who::SHOP, who::OUTSIDE] {
        let speaker = world.peer(peer);
        let Actor::Client(client) = &speaker.script else {
            unreachable!("clients are clients");
        };
        for talk in &client.talks {
            let Some(link) = talk.link else { continue };
            let conn = speaker.hands.conn(link);
            outcome.requests += talk.sent;
            let mut judged = Talked {
                plan,
                talk,
                conn,
                seen: &seen,
                log: &log,
                outcome: &mut outcome,
                found: &mut found,
            };
            match talk.plan.service {
                Service::Http => judged.http(),
                Service::Tcp => judged.tcp(),
            }
        }
    }
    outcome.violations = found;
    outcome
}

fn app(world: &Sim, peer: usize) -> &App {
    match &world.peer(peer).script {
        Actor::App(app) => app,
        Actor::Client(_) | Actor::Echo => unreachable!("applications are applications"),
    }
}

/// How often each process reported each request, and with what.
#[derive(Debug, Default)]
struct Log(BTreeMap<(usize, u64), Vec<u16>>);

impl Log {
    fn read(world: &Sim, found: &mut Vec<String>) -> Self {
        let mut log = Self::default();
        for reported in world.reports() {
            let Some(id) = reported.record.path.as_deref().and_then(id_of_target) else {
                continue;
            };
            let statuses = log.0.entry((reported.process, id)).or_default();
            statuses.push(reported.record.status);
        }
        for ((process, id), statuses) in &log.0 {
            if statuses.len() > 1 {
                found.push(format!("p{process} reported request {id} as {statuses:?}"));
            }
        }
        log
    }

    fn status(&self, process: usize, id: u64) -> Option<u16> {
        self.0.get(&(process, id))?.first().copied()
    }
}

/// What reached the applications.
#[derive(Debug, Default)]
struct Seen {
    requests: BTreeMap<u64, Message>,
    streams: BTreeMap<u64, Vec<u8>>,
}

impl Seen {
    fn arrival(&mut self, message: &Message, found: &mut Vec<String>) {
        let Some(id) = id_of_target(message.target()) else {
            found.push(format!("an application got `{}`", message.start));
            return;
        };
        if let Some(before) = self.requests.get(&id)
            && before.complete
            && message.complete
        {
            found.push(format!("request {id} arrived twice"));
        }
        let whole = message.complete;
        let entry = self.requests.entry(id).or_insert_with(|| message.clone());
        if whole {
            *entry = message.clone();
        }
    }
}

/// One connection of a client and everything that is known about it.
struct Talked<'a> {
    plan: &'a Plan,
    talk: &'a Talk,
    conn: &'a Conn,
    seen: &'a Seen,
    log: &'a Log,
    outcome: &'a mut Outcome,
    found: &'a mut Vec<String>,
}

impl Talked<'_> {
    fn fault(&mut self, what: String) {
        let (caller, versions) = (self.talk.plan.caller, &self.plan.versions);
        self.found
            .push(format!("{caller:?} under {versions:?}: {what}"));
    }

    /// Nobody leaves early and nothing breaks, so every answer must come.
    fn is_clean(&self) -> bool {
        self.plan.profile != Profile::Storm && self.talk.plan.leave == Leave::AfterAnswers
    }

    fn http(&mut self) {
        let answers = self.talk.reader.messages();
        if self.talk.reader.is_broken() {
            self.fault("the client was sent what is no HTTP".into());
        }
        if answers.len() > self.talk.sent {
            self.fault(format!("{} answers to {}", answers.len(), self.talk.sent));
        }
        // After a refusal with a body under way, the connection may end.
        let mut may_end = false;
        for (i, request) in self.talk.plan.requests.iter().enumerate() {
            let fate = Fate::of(self.plan, &self.talk.plan, Some(&request.target));
            let id = request.id;
            if let Some(arrived) = self.seen.requests.get(&id) {
                if !fate.passes {
                    self.fault(format!(
                        "request {id} {} reached the application",
                        request.target
                    ));
                }
                let intact = if arrived.complete {
                    arrived.body == request.body && !request.cut_short
                } else {
                    request.body.starts_with(&arrived.body)
                };
                if !intact {
                    self.fault(format!("the body of request {id} was changed"));
                }
                if self.log.status(who::CATALOG, id).is_none()
                    && self.log.status(who::IMPOSTOR, id).is_none()
                {
                    self.fault(format!("request {id} passed without a record"));
                }
            }
            match answers.get(i) {
                Some(answer) => self.answer(id, fate, answer),
                None if self.is_clean() && fate.is_certain() && !may_end && !fate.no_connection => {
                    self.fault(format!("request {id} got no answer"));
                }
                None => {}
            }
            may_end |= !fate.passes && !request.body.is_empty();
            may_end |= answers
                .get(i)
                .is_some_and(|a| a.field("connection") == Some("close"));
        }
        let fate = Fate::of(self.plan, &self.talk.plan, None);
        if self.is_clean() && fate.no_connection && fate.is_certain() {
            self.unconnected();
        }
    }

    fn answer(&mut self, id: u64, fate: Fate, answer: &Message) {
        self.outcome.answered += 1;
        let status = answer.status();
        if self.is_clean() && !answer.complete {
            self.fault(format!("the answer to {id} was cut short"));
        }
        match status {
            200 => {
                if answer.field("x-sim-id") != Some(&id.to_string()) {
                    self.fault(format!("request {id} got the answer of another"));
                }
                let body = answer_of(id);
                let intact = if answer.complete {
                    answer.body == body
                } else {
                    body.starts_with(&answer.body)
                };
                if !intact {
                    self.fault(format!("the answer to {id} was changed"));
                }
                if !self.seen.requests.contains_key(&id) {
                    self.fault(format!("request {id} was answered and never arrived"));
                }
            }
            403 => {
                self.outcome.denied += 1;
                if !fate.denied {
                    self.fault(format!("request {id} was refused"));
                }
            }
            503 => {
                let why =
                    self.plan.profile == Profile::Storm || fate.no_connection || !fate.is_certain();
                if !why {
                    self.fault(format!("request {id} got 503"));
                }
            }
            other => self.fault(format!("request {id} got status {other}")),
        }
        let reporter = match self.talk.plan.caller {
            Caller::Sidecar | Caller::SidecarToImpostor => who::FRONT,
            Caller::Plain
            | Caller::Tls { .. }
            | Caller::Stranger
            | Caller::Foreigner
            | Caller::Nameless => who::CATALOG,
        };
        if self.log.status(reporter, id) != Some(status) {
            let said = self.log.status(reporter, id);
            self.fault(format!(
                "request {id} got {status} and the log says {said:?}"
            ));
        }
    }

    fn tcp(&mut self) {
        let request = &self.talk.plan.requests[0];
        let fate = Fate::of(self.plan, &self.talk.plan, None);
        let arrived = self.seen.streams.get(&request.id);
        if let Some(arrived) = arrived {
            if !fate.passes {
                self.fault(format!("stream {} reached the application", request.id));
            }
            if !request.body.starts_with(arrived) {
                self.fault(format!("stream {} was changed", request.id));
            }
        }
        if !request.body.starts_with(&self.conn.received) {
            self.fault(format!("the echo of {} was changed", request.id));
        }
        let clean = self.plan.profile != Profile::Storm;
        if clean && fate.is_certain() && fate.passes {
            let whole = body_of(request.id, request.body.len().max(TCP_ID));
            if self.conn.received != whole {
                let got = self.conn.received.len();
                self.fault(format!("{got} of {} bytes came back", whole.len()));
            }
        }
        if !fate.passes && !self.conn.received.is_empty() {
            self.fault("bytes came back from nowhere".into());
        }
        if clean && fate.no_connection && fate.is_certain() {
            self.unconnected();
        }
    }

    /// A connection that no chain takes ends by a reset (S-28), a wrong certificate by an alert.
    fn unconnected(&mut self) {
        let fine = match self.talk.plan.caller {
            Caller::Plain => self.conn.ending == Some(Ending::Reset),
            Caller::Stranger | Caller::Foreigner | Caller::Nameless => {
                matches!(self.conn.ending, Some(Ending::Alert(_) | Ending::Reset))
            }
            Caller::Tls { .. } => self.conn.ending == Some(Ending::Reset),
            Caller::Sidecar | Caller::SidecarToImpostor => true,
        };
        if !fine {
            self.fault(format!("the connection ended by {:?}", self.conn.ending));
        }
    }
}
