//! The decision (S-110, S-111).

use super::attributes::Attributes;
use super::compile::{Layer, RuleSets};
use super::explanation::Explanation;
use super::id::{PolicyId, denial_details};
use super::index::Index;
use super::listener::{Listener, tell};
use super::rule::Rule;
use crate::api::authorization_policy::Action;

/// What the policies say of one request or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'r> {
    Allowed {
        /// The ALLOW rule that matched; `None` where no ALLOW policy is in force.
        policy: Option<&'r PolicyId>,
    },
    Denied {
        /// The rule that matched; `None` where an ALLOW policy is in force and none of its like matched.
        policy: Option<&'r PolicyId>,
    },
}

impl Decision<'_> {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }

    /// The response code details of a denial (S-118).
    pub fn denial_details(&self) -> Option<String> {
        match self {
            Self::Allowed { .. } => None,
            Self::Denied { policy } => Some(denial_details(*policy)),
        }
    }
}

/// Judges by CUSTOM, then AUDIT, then DENY, then ALLOW (S-110); a DENY is final (S-111).
///
/// Of several rules that match, the one whose id comes first is reported (S-117). `audit` hears the first AUDIT rule that
/// matches, if the evaluation comes so far (S-162). Rules for HTTP that are asked about a connection without HTTP deny:
/// they cannot know.
///
/// Allocates nothing, unless the listener does.
pub fn evaluate<'r, L: Listener>(
    rules: &'r RuleSets,
    attributes: &Attributes<'_>,
    audit: &mut impl FnMut(&PolicyId),
    listener: &mut L,
) -> Decision<'r> {
    let decision = decide(rules, attributes, audit, listener);
    tell!(L, listener.decision(&decision));
    decision
}

fn decide<'r, L: Listener>(
    rules: &'r RuleSets,
    attributes: &Attributes<'_>,
    audit: &mut impl FnMut(&PolicyId),
    listener: &mut L,
) -> Decision<'r> {
    if rules.layer == Layer::Http && attributes.http.is_none() {
        return Decision::Denied { policy: None };
    }
    tell!(L, listener.engine(Action::Custom));
    if let Some(policy) = rules.custom.first_match(attributes, listener) {
        return Decision::Denied {
            policy: Some(policy),
        };
    }
    tell!(L, listener.engine(Action::Audit));
    if let Some(policy) = rules.audit.first_match(attributes, listener) {
        audit(policy);
    }
    tell!(L, listener.engine(Action::Deny));
    if let Some(policy) = rules.deny.first_match(attributes, listener) {
        return Decision::Denied {
            policy: Some(policy),
        };
    }
    let Some(allow) = &rules.allow else {
        return Decision::Allowed { policy: None };
    };
    tell!(L, listener.engine(Action::Allow));
    match allow.first_match(attributes, listener) {
        Some(policy) => Decision::Allowed {
            policy: Some(policy),
        },
        None => Decision::Denied { policy: None },
    }
}

/// The same decision, with every rule asked on the way to it and every field compared.
pub fn explain<'r>(
    rules: &'r RuleSets,
    attributes: &Attributes<'_>,
) -> (Decision<'r>, Explanation) {
    let mut explanation = Explanation::default();
    let decision = evaluate(rules, attributes, &mut |_| {}, &mut explanation);
    (decision, explanation)
}

/// The rules of one action, in the order in which they are tried, and the way to find them.
#[derive(Debug, Default)]
pub(super) struct Engine {
    // INVARIANT: ascending by id; `index` holds positions in it.
    rules: Vec<Rule>,
    index: Index,
}

impl Engine {
    pub(super) fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        let index = Index::new(&rules);
        Self { rules, index }
    }

    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }

    /// Asks every rule from now on.
    pub(super) fn forget_index(&mut self) {
        self.index = Index::of_everything(&self.rules);
    }

    fn first_match<L: Listener>(
        &self,
        attributes: &Attributes<'_>,
        listener: &mut L,
    ) -> Option<&PolicyId> {
        let mut first: Option<usize> = None;
        if L::EVERYTHING {
            for (at, rule) in self.rules.iter().enumerate() {
                if rule.matches(attributes, listener) {
                    first = first.or(Some(at));
                }
            }
        } else if !self.rules.is_empty() {
            self.index.candidates(attributes, |list| {
                // Lists ascend: behind a match, or behind the best of another list, nothing better follows.
                let found = list
                    .iter()
                    .map(|at| *at as usize)
                    .take_while(|at| first.is_none_or(|first| *at < first))
                    .find(|at| self.rules[*at].matches(attributes, listener));
                first = found.or(first);
            });
        }
        first.map(|at| &self.rules[at].id)
    }
}

#[cfg(test)]
mod tests;
