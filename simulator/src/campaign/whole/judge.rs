//! What must hold at the end of a run of a whole mesh.

use std::collections::BTreeMap;

use meshward_core::clock::Instant;

use super::super::Outcome;
use super::super::judge::left_over;
use super::super::plan::{Profile, RequestPlan, answer_of, id_of_target};
use super::actors::Talk;
use super::plan::{End, Plan, accepts};
use super::{Place, Sim};
use crate::http::Message;

/// A request as its client sent it.
#[derive(Clone, Copy)]
struct Sent<'a> {
    caller: usize,
    service: usize,
    request: &'a RequestPlan,
    began: Instant,
}

pub(super) fn judge(
    plan: &Plan,
    places: &[Place],
    world: &mut Sim,
    over: bool,
    busy: Vec<String>,
) -> Outcome {
    let mut found = busy;
    found.extend(left_over(world, over));
    let net = world.net().stats();
    let world = &*world;
    let mut judge = Judge {
        plan,
        places,
        log: Log::read(world, &mut found),
        sent: BTreeMap::new(),
        complete: BTreeMap::new(),
        outcome: Outcome {
            hash: world.trace().hash(),
            lines: world.trace().lines().to_vec(),
            requests: 0,
            net,
            answered: 0,
            denied: 0,
            arrived: 0,
            violations: found,
        },
    };
    for (caller, speaker) in world.peers().iter().enumerate() {
        for talk in &speaker.script.talks {
            for (request, began) in talk.requests.iter().zip(&talk.began) {
                judge.sent.insert(
                    request.id,
                    Sent {
                        caller,
                        service: talk.service,
                        request,
                        began: *began,
                    },
                );
            }
        }
    }
    for (pod, speaker) in world.peers().iter().enumerate() {
        if speaker.script.is_broken() {
            judge.fault(format!("{} was sent what is no HTTP", places[pod].name));
        }
        for (message, at) in speaker.script.arrivals() {
            judge.arrival(pod, message, at);
        }
    }
    for (caller, speaker) in world.peers().iter().enumerate() {
        for talk in &speaker.script.talks {
            judge.talk(caller, talk);
        }
    }
    judge.outcome
}

/// What each proxy reported of each request, by the side on which it did: a pod that calls itself does on both.
struct Log(BTreeMap<(usize, Side, u64), Vec<u16>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Inbound,
    Outbound,
}

impl Log {
    fn read(world: &Sim, found: &mut Vec<String>) -> Self {
        let mut log: BTreeMap<_, Vec<u16>> = BTreeMap::new();
        for reported in world.reports() {
            let record = &reported.record;
            let Some(id) = record.path.as_deref().and_then(id_of_target) else {
                continue;
            };
            let cluster = record.upstream_cluster.as_deref().unwrap_or_default();
            let side = if cluster.starts_with("inbound|") {
                Side::Inbound
            } else {
                Side::Outbound
            };
            let statuses = log.entry((reported.process, side, id)).or_default();
            statuses.push(record.status);
        }
        for ((process, side, id), statuses) in &log {
            if statuses.len() > 1 {
                found.push(format!(
                    "p{process} reported request {id} as {statuses:?}, {side:?}"
                ));
            }
        }
        Self(log)
    }

    fn statuses(&self, process: usize, side: Side, id: u64) -> &[u16] {
        let statuses = self.0.get(&(process, side, id));
        statuses.map_or(&[], Vec::as_slice)
    }
}

struct Judge<'a> {
    plan: &'a Plan,
    places: &'a [Place],
    log: Log,
    /// By id.
    sent: BTreeMap<u64, Sent<'a>>,
    /// How often a whole request arrived.
    complete: BTreeMap<u64, usize>,
    outcome: Outcome,
}

impl Place {
    /// The versions that the proxy went by at some instant from `begin` to `end`. It never goes back to an older one.
    pub(super) fn in_force(&self, begin: Instant, end: Instant) -> Vec<usize> {
        let at = |instant| {
            let heard = self.hears.iter().enumerate();
            heard
                .filter(|(_, at)| **at <= instant)
                .map(|(v, _)| v)
                .max()
        };
        let mut versions: Vec<usize> = self
            .hears
            .iter()
            .filter(|at| begin < **at && **at <= end)
            .filter_map(|instant| at(*instant))
            .chain(at(begin))
            .collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }
}

impl Judge<'_> {
    fn fault(&mut self, what: String) {
        self.outcome.violations.push(what);
    }

    /// Something reached an application: it was sent to it, by whom its sidecar says, and under rules that let it.
    fn arrival(&mut self, pod: usize, message: &Message, at: Instant) {
        self.outcome.arrived += 1;
        let place = &self.places[pod];
        let (name, target) = (&place.name, message.target());
        let Some((id, sent)) = id_of_target(target).and_then(|id| Some((id, *self.sent.get(&id)?)))
        else {
            return self.fault(format!("{name} got `{}`, which nobody sent", message.start));
        };
        let (plan, caller) = (self.plan, &self.places[sent.caller].name);
        if sent.request.target != target || plan.service_of(name) != Some(sent.service) {
            self.fault(format!("{name} got {target}, which was for another"));
        }
        let intact = if message.complete {
            message.body == sent.request.body
        } else {
            sent.request.body.starts_with(&message.body)
        };
        if !intact {
            self.fault(format!("the body of request {id} was changed"));
        }
        if message.complete {
            let times = self.complete.entry(id).or_default();
            *times += 1;
            if *times > 1 {
                self.fault(format!("request {id} arrived twice"));
            }
        }
        let Some(process) = place.process else {
            return;
        };
        if self.log.statuses(process, Side::Inbound, id).len() != 1 {
            self.fault(format!("request {id} passed {name} without its one record"));
        }
        let identity = message.field("x-forwarded-client-cert").map(|xfcc| {
            let uri = xfcc.rsplit_once("URI=spiffe://").map_or("", |(_, uri)| uri);
            uri.to_owned()
        });
        if identity.is_some() && identity != plan.identity(caller) {
            self.fault(format!("{caller} came to {name} as {identity:?}"));
        }
        let allowed = place.in_force(sent.began, at).into_iter().any(|version| {
            let rules = &plan.versions[version];
            accepts(rules.mode(sent.service), identity.is_some())
                && rules.permits(sent.service, identity.as_deref(), target)
        });
        if !allowed {
            self.fault(format!(
                "{target} of {caller} reached {name} as {identity:?} against the versions {:?}",
                place.in_force(sent.began, at)
            ));
        }
    }

    fn talk(&mut self, caller: usize, talk: &Talk) {
        self.outcome.requests += talk.began.len();
        let answers = talk.reader.messages();
        if talk.reader.is_broken() || answers.len() > talk.began.len() {
            let name = &self.places[caller].name;
            self.fault(format!("{name} was sent what is no answer"));
        }
        // Nobody leaves early and nothing breaks.
        let clean = self.plan.profile != Profile::Storm && talk.reset_after.is_none();
        // After a refusal with a body under way, or where a side says so, the connection ends.
        let mut may_end = false;
        for (i, request) in talk.requests.iter().enumerate() {
            let ends = match &self.plan.versions[..] {
                [rules] if clean => {
                    let name = &self.places[caller].name;
                    Some(self.plan.ends(rules, name, talk.service, &request.target))
                }
                _ => None,
            };
            match answers.get(i) {
                Some(answer) => self.answer(caller, request, answer, clean, ends.as_deref()),
                None => {
                    let resets = ends.as_ref().is_none_or(|ends| ends.contains(&End::Reset));
                    if clean && !may_end && !resets {
                        self.fault(format!("request {} got no answer", request.id));
                    }
                }
            }
            may_end |= answers.get(i).is_none_or(|answer| {
                answer.field("connection") == Some("close")
                    || (answer.status() != 200 && !request.body.is_empty())
            });
        }
    }

    fn answer(
        &mut self,
        caller: usize,
        request: &RequestPlan,
        answer: &Message,
        clean: bool,
        ends: Option<&[End]>,
    ) {
        self.outcome.answered += 1;
        let (id, status) = (request.id, answer.status());
        if clean && !answer.complete {
            self.fault(format!("the answer to {id} was cut short"));
        }
        let of_app = answer.field("x-sim-id") == Some(&id.to_string());
        let end = match status {
            200 | 500 if of_app => End::Arrives,
            403 => End::Denied,
            503 => End::Unavailable,
            _ => return self.fault(format!("request {id} got status {status}, of whomever")),
        };
        if end == End::Arrives && !self.complete.contains_key(&id) {
            self.fault(format!("request {id} was answered and never arrived"));
        }
        if end == End::Denied {
            self.outcome.denied += 1;
        }
        if status == 200 {
            let body = answer_of(id);
            let intact = if answer.complete {
                answer.body == body
            } else {
                body.starts_with(&answer.body)
            };
            if !intact {
                self.fault(format!("the answer to {id} was changed"));
            }
        }
        if let Some(ends) = ends
            && !ends.contains(&end)
        {
            self.fault(format!("request {id} got {status}, and could get {ends:?}"));
        }
        if let Some(process) = self.places[caller].process {
            let told = self.log.statuses(process, Side::Outbound, id);
            if told != [status] {
                let told = told.to_vec();
                self.fault(format!(
                    "request {id} got {status} and the log says {told:?}"
                ));
            }
        }
    }
}
