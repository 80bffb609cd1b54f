//! The names by which rules are reported (S-117, S-118).

use std::fmt;
use std::sync::Arc;

use crate::api::meta::{Meta, Origin};

/// `ns[<namespace>]-policy[<name>]-rule[<index>]`, and where the rule stands.
///
/// Ordered by the bytes of the text, which is the order in which rules are tried: `rule[10]` before `rule[2]` (S-117).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyId {
    text: Arc<str>,
    origin: Origin,
}

impl PolicyId {
    /// The id of the rule with this index (from 0) in its policy.
    pub fn new(policy: &Meta, rule: usize, origin: Origin) -> Self {
        let Meta {
            name, namespace, ..
        } = policy;
        Self {
            text: format!("ns[{namespace}]-policy[{name}]-rule[{rule}]").into(),
            origin,
        }
    }

    /// The id under which a rule of a CUSTOM policy denies because its provider cannot be asked (S-160).
    pub(super) fn unanswerable(self, provider: &str) -> Self {
        let Self { text, origin } = self;
        Self {
            text: format!("istio-ext-authz-{provider}-{text}-deny-due-to-bad-CUSTOM-action").into(),
            origin,
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where the rule stands; the policy itself, if that has no rules.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The response code details, or termination details, of a denial by this rule; `None`: no ALLOW rule matched (S-118).
pub fn denial_details(policy: Option<&PolicyId>) -> String {
    details_of(policy.map_or("none", PolicyId::as_str))
}

/// The details of a denial by the rule of this id, blanks as `_` (S-118, S-329).
pub fn details_of(id: &str) -> String {
    let details = format!("rbac_access_denied_matched_policy[{id}]");
    details.replace(|c: char| c.is_ascii_whitespace() || c == '\x0b', "_")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn id(namespace: &str, name: &str, rule: usize) -> PolicyId {
        let origin = Origin {
            file: "test.yaml".into(),
            line: 3,
            column: 1,
        };
        let meta = Meta {
            name: name.into(),
            namespace: namespace.into(),
            created: 0,
            annotations: BTreeMap::new(),
            labels: BTreeMap::new(),
            origin: origin.clone(),
        };
        PolicyId::new(&meta, rule, origin)
    }

    #[test]
    fn ids_are_ordered_by_bytes_not_by_numbers() {
        assert!(id("a", "p", 10) < id("a", "p", 2), "S-117");
        assert!(id("a", "p", 9) < id("b", "p", 0));
        assert!(
            id("a", "p-2", 0) < id("a", "p", 0),
            "`-` sorts before the bracket"
        );
    }

    #[test]
    fn a_denial_names_its_rule_or_none() {
        let policy = id("shop", "deny all", 0);
        assert_eq!(policy.to_string(), "ns[shop]-policy[deny all]-rule[0]");
        assert_eq!(
            denial_details(Some(&policy)),
            "rbac_access_denied_matched_policy[ns[shop]-policy[deny_all]-rule[0]]",
            "S-118"
        );
        assert_eq!(
            denial_details(None),
            "rbac_access_denied_matched_policy[none]"
        );
    }

    #[test]
    fn a_provider_that_cannot_be_asked_denies_under_its_own_name() {
        assert_eq!(
            id("foo", "httpbin-1", 0).unanswerable("default").as_str(),
            "istio-ext-authz-default-ns[foo]-policy[httpbin-1]-rule[0]-deny-due-to-bad-CUSTOM-action",
            "S-160"
        );
    }
}
