//! An evaluation, remembered: every rule that was asked, every comparison, and the nearest miss.

use std::fmt;

use super::evaluate::Decision;
use super::id::{PolicyId, denial_details};
use super::listener::{Comparison, Field, Listener, Part};
use crate::api::authorization_policy::Action;

/// The whole of one evaluation, owned. `Display` writes it as an indented tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    pub outcome: Outcome,
    /// In the order in which they were asked.
    pub rules: Vec<RuleTrace>,
    engine: Action,
}

/// The decision, without borrowing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    Allowed(Option<PolicyId>),
    Denied(Option<PolicyId>),
    /// The evaluation did not come to its end.
    #[default]
    Undecided,
}

/// One rule and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleTrace {
    pub action: Action,
    pub id: PolicyId,
    pub matched: bool,
    /// Why the rule cannot match anything.
    pub void: Option<String>,
    pub alternatives: Vec<AlternativeTrace>,
}

/// One item of `from` or `to`, or all of `when`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlternativeTrace {
    pub part: Part,
    pub comparisons: Vec<ComparisonTrace>,
}

/// One field of a policy and the value it was held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparisonTrace {
    pub field: Field,
    /// The key of a condition.
    pub key: Option<String>,
    pub negated: bool,
    pub patterns: Vec<String>,
    /// As it is printed.
    pub actual: String,
    pub matched: bool,
}

impl Explanation {
    /// Where nothing allowed it: the ALLOW rule with the fewest fields in the way, the first of several.
    pub fn nearest_miss(&self) -> Option<&RuleTrace> {
        if self.outcome != Outcome::Denied(None) {
            return None;
        }
        self.rules
            .iter()
            .filter(|rule| rule.action == Action::Allow && rule.void.is_none())
            .min_by_key(|rule| rule.misses().count())
    }
}

impl RuleTrace {
    /// The comparisons that stood in the way: of each part those of the alternative with the fewest.
    pub fn misses(&self) -> impl Iterator<Item = &ComparisonTrace> {
        [Part::From, Part::To, Part::When]
            .into_iter()
            .flat_map(|part| {
                self.alternatives
                    .iter()
                    .filter(move |alternative| alternative.part == part)
                    .map(AlternativeTrace::misses)
                    .min_by_key(Vec::len)
                    .unwrap_or_default()
            })
    }
}

impl AlternativeTrace {
    fn misses(&self) -> Vec<&ComparisonTrace> {
        let comparisons = self.comparisons.iter();
        comparisons
            .filter(|comparison| !comparison.matched)
            .collect()
    }
}

impl Listener for Explanation {
    const EVERYTHING: bool = true;

    fn engine(&mut self, action: Action) {
        self.engine = action;
    }

    fn rule(&mut self, id: &PolicyId) {
        self.rules.push(RuleTrace {
            action: self.engine,
            id: id.clone(),
            matched: false,
            void: None,
            alternatives: Vec::new(),
        });
    }

    fn void(&mut self, reason: &str) {
        if let Some(rule) = self.rules.last_mut() {
            rule.void = Some(reason.to_owned());
        }
    }

    fn alternative(&mut self, part: Part) {
        if let Some(rule) = self.rules.last_mut() {
            rule.alternatives.push(AlternativeTrace {
                part,
                comparisons: Vec::new(),
            });
        }
    }

    fn comparison(&mut self, comparison: &Comparison<'_>) {
        let rule = self.rules.last_mut();
        if let Some(alternative) = rule.and_then(|rule| rule.alternatives.last_mut()) {
            alternative.comparisons.push(ComparisonTrace {
                field: comparison.field,
                key: comparison.key.map(str::to_owned),
                negated: comparison.negated,
                patterns: comparison.patterns.to_vec(),
                actual: comparison.actual.to_string(),
                matched: comparison.matched,
            });
        }
    }

    fn outcome(&mut self, matched: bool) {
        if let Some(rule) = self.rules.last_mut() {
            rule.matched = matched;
        }
    }

    fn decision(&mut self, decision: &Decision<'_>) {
        self.outcome = match decision {
            Decision::Allowed { policy } => Outcome::Allowed(policy.cloned()),
            Decision::Denied { policy } => Outcome::Denied(policy.cloned()),
        };
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.outcome)?;
        for rule in &self.rules {
            write!(f, "{rule}")?;
        }
        if let Some(rule) = self.nearest_miss() {
            writeln!(f, "nearest: {} at {}", rule.id, rule.id.origin())?;
            for miss in rule.misses() {
                writeln!(f, "  {miss}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(Some(policy)) => write!(f, "allowed by {policy}"),
            Self::Allowed(None) => f.write_str("allowed: no ALLOW policy is in force"),
            Self::Denied(policy) => write!(f, "denied: {}", denial_details(policy.as_ref())),
            Self::Undecided => f.write_str("undecided"),
        }
    }
}

impl fmt::Display for RuleTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Action::Allow => "ALLOW",
            Action::Audit => "AUDIT",
            Action::Custom => "CUSTOM",
            Action::Deny => "DENY",
        };
        let answer = if self.matched {
            "matches"
        } else {
            "does not match"
        };
        writeln!(f, "{action} {} {answer} ({})", self.id, self.id.origin())?;
        if let Some(reason) = &self.void {
            writeln!(f, "  {reason}")?;
        }
        for alternative in &self.alternatives {
            let part = match alternative.part {
                Part::From => "from",
                Part::To => "to",
                Part::When => "when",
            };
            writeln!(f, "  {part}")?;
            for comparison in &alternative.comparisons {
                writeln!(f, "    {comparison}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ComparisonTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.matched { '+' } else { '-' };
        let field = self.field.name(self.negated);
        let patterns = self.patterns.join(", ");
        write!(f, "{sign} ")?;
        if let Some(key) = &self.key {
            write!(f, "{key} ")?;
        }
        write!(f, "{field} [{patterns}] against {}", self.actual)
    }
}
