//! Which resource applies to which workload (S-1 to S-5, S-7).
//!
//! A policy reaches a sidecar from two namespaces only: the root namespace and the workload's own. Knows nothing of what
//! a policy says.

use std::cmp::Ordering;

use crate::api::authorization_policy::AuthorizationPolicy;
use crate::api::meta::{Labels, Meta};
use crate::api::request_authentication::RequestAuthentication;

/// A pod with a sidecar, as selectors see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub namespace: String,
    pub labels: Labels,
}

/// The policies in force at the sidecar of `workload`, in the order of the slice; no policy outranks another (S-4).
///
/// A policy with any `targetRef` is for gateways and waypoints and is left out (S-5). One of the root namespace reaches
/// every namespace, with or without a selector (S-3). Empty: nothing is restricted (S-9).
pub fn authorization_policies<'p>(
    workload: &Workload,
    policies: &'p [AuthorizationPolicy],
    root_namespace: &str,
) -> Vec<&'p AuthorizationPolicy> {
    let applies = |policy: &&AuthorizationPolicy| {
        !policy.targets
            && reaches(workload, &policy.meta, root_namespace)
            && selects(policy.selector.as_ref(), &workload.labels)
    };
    policies.iter().filter(applies).collect()
}

/// The RequestAuthentications in force at the sidecar of `workload`, oldest first (S-7), selected as AuthorizationPolicies are
/// (S-210).
pub fn request_authentications<'p>(
    workload: &Workload,
    policies: &'p [RequestAuthentication],
    root_namespace: &str,
) -> Vec<&'p RequestAuthentication> {
    let applies = |policy: &&RequestAuthentication| {
        !policy.targets
            && reaches(workload, &policy.meta, root_namespace)
            && selects(policy.selector.as_ref(), &workload.labels)
    };
    let mut found: Vec<_> = policies.iter().filter(applies).collect();
    found.sort_by(|a, b| by_age(&a.meta, &b.meta));
    found
}

/// It is of the workload's own namespace or of the root namespace (S-1).
fn reaches(workload: &Workload, policy: &Meta, root_namespace: &str) -> bool {
    policy.namespace == workload.namespace || policy.namespace == root_namespace
}

/// Whether every label of `selector` stands in `labels` with the same value. No selector, or one without labels, selects
/// everything (S-2).
pub fn selects(selector: Option<&Labels>, labels: &Labels) -> bool {
    selector.is_none_or(|selector| {
        selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    })
}

/// Oldest first; of the same second by name, then by namespace (S-7).
pub fn by_age(a: &Meta, b: &Meta) -> Ordering {
    (a.created, &a.name, &a.namespace).cmp(&(b.created, &b.name, &b.namespace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::authorization_policy::Action;
    use crate::api::meta::Origin;

    fn meta(namespace: &str, name: &str, created: u64) -> Meta {
        Meta {
            name: name.into(),
            namespace: namespace.into(),
            created,
            annotations: Labels::new(),
            labels: Labels::new(),
            origin: Origin {
                file: "test.yaml".into(),
                line: 1,
                column: 1,
            },
        }
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect()
    }

    fn policy(namespace: &str, selector: Option<Labels>) -> AuthorizationPolicy {
        AuthorizationPolicy {
            meta: meta(namespace, "p", 0),
            selector,
            targets: false,
            action: Action::Allow,
            provider: None,
            rules: Vec::new(),
            dry_run: false,
        }
    }

    fn applies(policy: AuthorizationPolicy) -> bool {
        let api = Workload {
            namespace: "shop".into(),
            labels: labels(&[("app", "api"), ("version", "v1")]),
        };
        !authorization_policies(&api, &[policy], "istio-system").is_empty()
    }

    #[test]
    fn policies_come_from_the_root_namespace_and_the_own_one_only() {
        assert!(applies(policy("shop", None)));
        assert!(applies(policy("istio-system", None)));
        assert!(!applies(policy("stock", None)), "S-1");
    }

    #[test]
    fn a_selector_demands_every_one_of_its_labels() {
        let with = |pairs: &[(&str, &str)]| applies(policy("shop", Some(labels(pairs))));
        assert!(with(&[]), "an empty selector selects all (S-2)");
        assert!(with(&[("app", "api")]));
        assert!(with(&[("app", "api"), ("version", "v1")]));
        assert!(!with(&[("app", "api"), ("version", "v2")]));
        assert!(
            !with(&[("app", "api"), ("tier", "")]),
            "absent is not empty"
        );
        assert!(!with(&[("app", "*")]), "no wildcards (S-2)");
    }

    #[test]
    fn a_selector_in_the_root_namespace_reaches_every_namespace() {
        let selector = Some(labels(&[("app", "api")]));
        assert!(applies(policy("istio-system", selector)), "S-3");
        let other = Some(labels(&[("app", "web")]));
        assert!(!applies(policy("istio-system", other)));
    }

    #[test]
    fn a_policy_with_a_target_is_not_for_sidecars() {
        let mut targeted = policy("shop", None);
        targeted.targets = true;
        assert!(!applies(targeted), "S-5");
    }

    #[test]
    fn request_authentications_are_selected_alike_and_come_oldest_first() {
        // S-210, S-7.
        let workload = Workload {
            namespace: "shop".into(),
            labels: labels(&[("app", "api")]),
        };
        let jwt = |namespace: &str, name: &str, created, app: Option<&str>, targets| {
            RequestAuthentication {
                meta: meta(namespace, name, created),
                selector: app.map(|app| labels(&[("app", app)])),
                targets,
                rules: Vec::new(),
            }
        };
        let policies = [
            jwt("shop", "younger", 9, None, false),
            jwt("istio-system", "older", 3, Some("api"), false),
            jwt("shop", "oldest", 1, Some("web"), false),
            jwt("shop", "gateways", 1, None, true),
            jwt("stock", "elsewhere", 1, None, false),
        ];
        let found = request_authentications(&workload, &policies, "istio-system");
        let names: Vec<_> = found
            .iter()
            .map(|policy| policy.meta.name.as_str())
            .collect();
        assert_eq!(names, ["older", "younger"]);
    }

    #[test]
    fn a_workload_of_the_root_namespace_reads_its_policies_once() {
        let gateway = Workload {
            namespace: "istio-system".into(),
            labels: Labels::new(),
        };
        let policies = [policy("istio-system", None)];
        let found = authorization_policies(&gateway, &policies, "istio-system");
        assert_eq!(found.len(), 1, "S-1");
    }

    #[test]
    fn age_counts_first_then_the_name_then_the_namespace() {
        let mut all = [
            meta("b", "x", 5),
            meta("a", "x", 5),
            meta("z", "w", 5),
            meta("z", "z", 4),
        ];
        all.sort_by(by_age);
        let order: Vec<_> = all
            .iter()
            .map(|meta| format!("{}/{}", meta.namespace, meta.name))
            .collect();
        assert_eq!(order, ["z/z", "z/w", "a/x", "b/x"], "S-7");
    }
}
