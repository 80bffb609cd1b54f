//! Drawn meshes and calls, judged by the model and by somebody else.
//!
//! A run is a number of rounds; each has a generator of its own, a mesh, a workload and some calls, so that a round can be
//! had alone. What decides is counted: a clause of a policy decides a request if the policies' verdict (let through or not) is
//! another one once the outcome of that clause, and of no other, is turned round; a check of tokens, if the answer as a whole
//! is, with what the application sees.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use meshward_core::api::authorization_policy::Action;

use super::authz::{FIELDS, RuleTrace};
use super::{Answer, Call, Setting, Workload, judge, jwt};
use crate::chance::Chance;
use shrink::{Case, shrunk};
use subject::Subject;
use tokens::{Key, Minted};

pub mod calls;
pub mod policies;
pub mod shrink;
pub mod subject;
pub mod tokens;
pub mod words;
pub mod yaml;

/// When all calls are made, in seconds since 1970.
pub const NOW: u64 = 1_800_000_000;
/// Calls of one round.
const CALLS: u64 = 30;
/// A check of tokens that decided so often is not asked about any more: each question is a judgement.
const ENOUGH: u64 = 500;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub seed: u64,
    pub requests: u64,
    pub allowed: u64,
    /// Denied by a rule of a DENY policy.
    pub by_rule: u64,
    /// Denied because no ALLOW rule matched.
    pub by_default: u64,
    /// 401 and 403 for a token.
    pub by_token: u64,
    pub bad_paths: u64,
    pub resets: u64,
    pub audited: u64,
    /// Of bytes that are no request; not among all the others.
    pub connections: u64,
    pub connections_allowed: u64,
    /// How many requests each field decided.
    pub decided: BTreeMap<&'static str, u64>,
    /// How often each check of tokens decided; counting ends at 500.
    pub checks: BTreeMap<jwt::Check, u64>,
    pub difference: Option<Difference>,
}

/// A call that two judge differently, made small.
#[derive(Clone, Debug)]
pub struct Difference {
    pub round: u64,
    pub case: Case,
    pub model: (Answer, Option<String>),
    pub other: Result<(Answer, Option<String>), String>,
}

/// Draws rounds until `requests` requests were judged, or the first difference.
pub fn run(seed: u64, requests: u64, count: bool, subject: &mut impl Subject) -> Report {
    let keys = tokens::keys();
    let mut report = Report {
        seed,
        decided: FIELDS.iter().map(|field| (*field, 0)).collect(),
        checks: jwt::Check::ALL.iter().map(|check| (*check, 0)).collect(),
        ..Report::default()
    };
    for round in 0.. {
        if report.requests >= requests || report.difference.is_some() {
            break;
        }
        one_round(round, &keys, count, subject, &mut report);
    }
    report
}

fn one_round(
    round: u64,
    keys: &[Key],
    count: bool,
    subject: &mut impl Subject,
    report: &mut Report,
) {
    let mut chance = Chance::new(report.seed, round);
    let mesh = policies::mesh(&mut chance, keys);
    for workload in policies::workloads(&mut chance) {
        let mut minted = Minted::default();
        let prepared = subject.prepare(&mesh, &workload);
        for _ in 0..CALLS {
            let call = calls::call(&mut chance, &mesh, &workload, keys, &mut minted);
            let case = |call: &Call| Case {
                mesh: mesh.clone(),
                workload: workload.clone(),
                call: call.clone(),
            };
            let signed_by = |token: &str| minted.signed_by(token);
            let setting = Setting {
                mesh: &mesh,
                workload: &workload,
                signed_by: &signed_by,
                now: NOW,
                flipped: None,
            };
            let mut judgement = judge(setting, &call);
            let expected = (judgement.answer.clone(), judgement.audited.clone());
            if let Err(error) = &prepared {
                report.difference = Some(Difference {
                    round,
                    case: case(&call),
                    model: expected,
                    other: Err(error.clone()),
                });
                return;
            }
            if subject.answer(setting, &call) != expected {
                report.difference = Some(minimal(round, case(&call), &minted, subject));
                return;
            }
            report.add(&call, &expected);
            if count && call.request.is_some() {
                report.add_clauses(&mut judgement.rules);
                report.add_checks(setting, &call, &expected.0);
            }
        }
    }
}

fn minimal(round: u64, case: Case, minted: &Minted, subject: &mut impl Subject) -> Difference {
    let signed_by = |token: &str| minted.signed_by(token);
    let mut both = |case: &Case| {
        let setting = Setting {
            mesh: &case.mesh,
            workload: &case.workload,
            signed_by: &signed_by,
            now: NOW,
            flipped: None,
        };
        let judgement = judge(setting, &case.call);
        let other = subject
            .prepare(&case.mesh, &case.workload)
            .map(|()| subject.answer(setting, &case.call));
        ((judgement.answer, judgement.audited), other)
    };
    let case = shrunk(case, |case| {
        let (model, other) = both(case);
        other.is_ok_and(|other| other != model)
    });
    let (model, other) = both(&case);
    Difference {
        round,
        case,
        model,
        other,
    }
}

/// Whether the policies let it through, without a word about which of them.
fn lets_through(rules: &[RuleTrace]) -> bool {
    let matched = |action| {
        rules
            .iter()
            .any(|rule| rule.action == action && rule.matches())
    };
    let restricted = rules.iter().any(|rule| rule.action == Action::Allow);
    !matched(Action::Deny) && (!restricted || matched(Action::Allow))
}

impl Report {
    fn add(&mut self, call: &Call, (answer, audited): &(Answer, Option<String>)) {
        if call.request.is_none() {
            self.connections += 1;
            self.connections_allowed += u64::from(matches!(answer, Answer::Allowed { .. }));
            return;
        }
        self.requests += 1;
        self.audited += u64::from(audited.is_some());
        *match answer {
            Answer::Reset => &mut self.resets,
            Answer::BadPath => &mut self.bad_paths,
            Answer::Unauthenticated { .. } => &mut self.by_token,
            Answer::Denied { rule: Some(_) } => &mut self.by_rule,
            Answer::Denied { rule: None } => &mut self.by_default,
            Answer::Allowed { .. } => &mut self.allowed,
        } += 1;
    }

    fn add_clauses(&mut self, rules: &mut [RuleTrace]) {
        let before = lets_through(rules);
        let mut decisive = BTreeSet::new();
        for number in 0..rules.len() {
            for at in 0..rules[number].clauses().count() {
                let turn = |rules: &mut [RuleTrace]| {
                    rules[number].clauses().nth(at).map(|clause| {
                        clause.holds = !clause.holds;
                        clause.field
                    })
                };
                let Some(field) = turn(rules) else {
                    continue;
                };
                if lets_through(rules) != before {
                    decisive.insert(field);
                }
                turn(rules);
            }
        }
        for field in decisive {
            *self.decided.entry(field).or_default() += 1;
        }
    }

    fn add_checks(&mut self, setting: Setting<'_>, call: &Call, answer: &Answer) {
        let unconcerned = matches!(answer, Answer::Reset | Answer::BadPath);
        if unconcerned || jwt::rules(setting).is_empty() {
            return;
        }
        for (check, count) in &mut self.checks {
            if *count >= ENOUGH {
                continue;
            }
            let flipped = Setting {
                flipped: Some(*check),
                ..setting
            };
            *count += u64::from(judge(flipped, call).answer != *answer);
        }
    }

    /// The rarest of all fields and checks, and how often it decided.
    pub fn rarest(&self) -> (String, u64) {
        let fields = self
            .decided
            .iter()
            .map(|(field, n)| (field.to_string(), *n));
        let checks = self
            .checks
            .iter()
            .map(|(check, n)| (format!("{check:?}"), *n));
        fields
            .chain(checks)
            .min_by_key(|(_, n)| *n)
            .unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |n: u64| n as f64 * 100.0 / self.requests.max(1) as f64;
        let Self {
            seed,
            requests,
            connections,
            connections_allowed,
            ..
        } = self;
        writeln!(f, "seed {seed}: {requests} requests")?;
        for (what, n) in [
            ("allowed", self.allowed),
            ("denied by a rule", self.by_rule),
            ("denied by default", self.by_default),
            ("refused for a token", self.by_token),
            ("refused for the path", self.bad_paths),
            ("reset for the mode", self.resets),
            ("audited", self.audited),
        ] {
            writeln!(f, "{n:>8}  {:>4.1} %  {what}", share(n))?;
        }
        writeln!(
            f,
            "besides, {connections} connections, {connections_allowed} allowed"
        )?;
        writeln!(f, "requests that a field decided:")?;
        for (field, n) in &self.decided {
            writeln!(f, "{n:>8}  {field}")?;
        }
        writeln!(
            f,
            "requests that a check of tokens decided, counted to {ENOUGH}:"
        )?;
        for (check, n) in &self.checks {
            writeln!(f, "{n:>8}  {check:?}")?;
        }
        match &self.difference {
            Some(difference) => write!(f, "{difference}"),
            None => write!(f, "no difference"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case {
            mesh,
            workload,
            call,
        } = &self.case;
        writeln!(f, "a difference, in round {}:", self.round)?;
        f.write_str(&yaml::text(&yaml::documents(mesh)))?;
        let Workload {
            namespace,
            labels,
            ports,
        } = workload;
        writeln!(
            f,
            "# workload in {namespace}, labels {labels:?}, ports {ports:?}"
        )?;
        writeln!(f, "{}", yaml::shell_line(call))?;
        writeln!(f, "model: {:?}", self.model)?;
        match &self.other {
            Ok(answer) => write!(f, "other: {answer:?}"),
            Err(error) => write!(f, "other: {error}"),
        }
    }
}
