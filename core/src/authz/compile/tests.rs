use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::api::authorization_policy::Source;
use crate::authz::test_policies::{
    anything, from, methods, namespaces, paths, policy, ports, principals, texts, to, when,
};
use crate::authz::{Attributes, HttpAttributes, evaluate};
use crate::http::head::Fields;

const CLIENT: &str = "cluster.local/ns/stock/sa/client";

fn compiled(policy: &AuthorizationPolicy, layer: Layer) -> RuleSets {
    compile(&[policy], &MeshConfig::default(), layer)
}

fn is_allowed(rules: &RuleSets, principal: &str, port: u16) -> bool {
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let http = HttpAttributes {
        method: "GET",
        path: b"/",
        authority: b"api",
        fields: Fields::listed(&[]),
        claims: None,
    };
    let attributes = Attributes {
        principal: Some(principal),
        source_ip: peer,
        remote_ip: peer,
        destination_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        destination_port: port,
        sni: None,
        http: (rules.layer == Layer::Http).then_some(http),
    };
    evaluate(rules, &attributes, &mut |_| {}, &mut ()).is_allowed()
}

fn conditional() -> api::Rule {
    api::Rule {
        when: when("request.time", &["y"], &[]).when,
        ..from(namespaces(&["stock"]))
    }
}

#[test]
fn an_allow_rule_with_a_field_of_http_is_void_on_tcp() {
    let rules = vec![to(paths(&["/a"])), from(namespaces(&["stock"]))];
    let allow = policy(Action::Allow, "a", rules);
    let rules = compiled(&allow, Layer::Tcp);
    assert!(is_allowed(&rules, CLIENT, 9000), "the other rule survives");
    assert!(!is_allowed(&rules, "td/ns/shop/sa/front", 9000), "S-155");
    assert_eq!(rules.findings(), [], "that is how it is meant");
}

#[test]
fn a_negated_field_of_http_voids_an_allow_rule_on_tcp_as_well() {
    let operation = api::Operation {
        not_hosts: texts(&["a"]),
        ..ports(&["9000"])
    };
    let rules = compiled(&policy(Action::Allow, "a", vec![to(operation)]), Layer::Tcp);
    assert!(!is_allowed(&rules, CLIENT, 9000), "S-155");
}

#[test]
fn a_deny_rule_loses_its_fields_of_http_on_tcp() {
    let deny = policy(Action::Deny, "d", vec![to(methods(&["POST"]))]);
    assert!(!is_allowed(&compiled(&deny, Layer::Tcp), CLIENT, 9000));
    assert!(is_allowed(&compiled(&deny, Layer::Http), CLIENT, 9000));

    let operation = api::Operation {
        ports: texts(&["9000"]),
        ..methods(&["POST"])
    };
    let deny = policy(Action::Deny, "d", vec![to(operation)]);
    let rules = compiled(&deny, Layer::Tcp);
    assert!(!is_allowed(&rules, CLIENT, 9000), "S-156");
    assert!(is_allowed(&rules, CLIENT, 9001));
}

#[test]
fn an_unknown_condition_voids_an_allow_rule_and_is_found() {
    let allow = policy(Action::Allow, "a", vec![conditional()]);
    let rules = compiled(&allow, Layer::Http);
    assert!(!is_allowed(&rules, CLIENT, 80), "S-143");
    let [finding] = rules.findings() else {
        panic!("one finding, not {:?}", rules.findings());
    };
    assert_eq!(finding.rule.as_str(), "ns[shop]-policy[a]-rule[0]");
    assert_eq!(
        finding.problem,
        "`request.time` is no key of a condition, so the rule allows nothing"
    );
}

#[test]
fn a_deny_rule_is_applied_without_an_unknown_condition() {
    let deny = policy(Action::Deny, "d", vec![conditional()]);
    let rules = compiled(&deny, Layer::Http);
    assert!(!is_allowed(&rules, CLIENT, 80));
    assert!(is_allowed(&rules, "td/ns/shop/sa/front", 80));
    assert_eq!(rules.findings().len(), 1);
}

#[test]
fn what_a_token_says_is_of_http() {
    let source = |not: bool| Source {
        request_principals: texts(if not { &[] } else { &["*"] }),
        not_request_principals: texts(if not { &["*"] } else { &[] }),
        ..Source::default()
    };
    let rules = || {
        vec![
            from(source(false)),
            from(source(true)),
            when("request.headers[x]", &[], &["y"]),
            when("request.auth.principal", &["*"], &[]),
            when("request.auth.claims[a]", &[], &["*"]),
        ]
    };
    for rule in rules() {
        let allow = policy(Action::Allow, "a", vec![rule.clone()]);
        let rules = compiled(&allow, Layer::Tcp);
        assert!(!is_allowed(&rules, CLIENT, 80), "{rule:?} (S-155)");
        assert_eq!(rules.findings(), []);
        let deny = policy(Action::Deny, "d", vec![rule.clone()]);
        let rules = compiled(&deny, Layer::Tcp);
        assert!(!is_allowed(&rules, CLIENT, 80), "{rule:?} (S-156)");
    }
}

#[test]
fn conditions_on_the_connection_are_of_tcp_as_well() {
    for (key, value) in [
        ("source.ip", "127.0.0.0/8"),
        ("remote.ip", "127.0.0.1"),
        ("source.namespace", "stock"),
        ("source.principal", "*/sa/client"),
        ("source.serviceAccount", "stock/client"),
        ("source.trustDomain", "cluster.local"),
        ("destination.ip", "127.0.0.1"),
        ("destination.port", "80"),
    ] {
        for layer in [Layer::Http, Layer::Tcp] {
            let allowed = |values: &[&str], not_values: &[&str]| {
                let rule = when(key, values, not_values);
                let rules = compiled(&policy(Action::Allow, "a", vec![rule]), layer);
                assert_eq!(rules.findings(), []);
                is_allowed(&rules, CLIENT, 80)
            };
            assert!(allowed(&[value], &[]), "{key} (S-143)");
            assert!(!allowed(&[], &[value]), "{key}");
            assert!(!allowed(&[value], &[value]), "{key} (S-115)");
        }
    }
}

#[test]
fn a_bad_value_of_a_condition_closes() {
    for (key, value) in [
        ("source.ip", "10.0.0.0/33"),
        ("destination.port", "http"),
        ("source.serviceAccount", "a/b/c"),
        ("source.trustDomain", "a*b"),
    ] {
        for action in [Action::Allow, Action::Deny] {
            let rules = vec![when(key, &[], &[value])];
            let rules = compiled(&policy(action, "p", rules), Layer::Http);
            assert!(!is_allowed(&rules, CLIENT, 80), "{action:?} {key}");
            assert_eq!(rules.findings().len(), 1);
        }
    }
}

#[test]
fn conditions_on_identity_mean_all_aliases() {
    let mesh = MeshConfig {
        trust_domain: "new-td".into(),
        trust_domain_aliases: texts(&["old-td"]),
        ..MeshConfig::default()
    };
    for (key, value) in [
        ("source.principal", "old-td/ns/stock/sa/client"),
        ("source.trustDomain", "old-td"),
    ] {
        let allow = policy(Action::Allow, "a", vec![when(key, &[value], &[])]);
        let rules = compile(&[&allow], &mesh, Layer::Http);
        let allowed = is_allowed(&rules, "new-td/ns/stock/sa/client", 80);
        assert!(allowed, "{key} (S-88, S-130)");
    }
}

#[test]
fn one_bad_value_spoils_its_field() {
    let bad = || to(paths(&["/a", "/{id}"]));
    let deny = compiled(&policy(Action::Deny, "d", vec![bad()]), Layer::Http);
    assert!(!is_allowed(&deny, CLIENT, 80), "the field is dropped");
    let allow = compiled(
        &policy(Action::Allow, "a", vec![to(paths(&["/", "/{id}"]))]),
        Layer::Http,
    );
    assert!(!is_allowed(&allow, CLIENT, 80), "the rule is void");
    for source in [
        Source {
            ip_blocks: texts(&["10.0.0.0/33"]),
            ..Source::default()
        },
        Source {
            not_remote_ip_blocks: texts(&["x"]),
            ..Source::default()
        },
        Source {
            service_accounts: texts(&["a/b/c"]),
            ..Source::default()
        },
        Source {
            trust_domains: texts(&["a*b"]),
            ..Source::default()
        },
    ] {
        let rules = compiled(&policy(Action::Deny, "d", vec![from(source)]), Layer::Http);
        assert!(!is_allowed(&rules, CLIENT, 80));
        assert_eq!(rules.findings().len(), 1);
    }
}

#[test]
fn principals_and_their_negations_mean_all_aliases() {
    let mesh = MeshConfig {
        trust_domain: "new-td".into(),
        trust_domain_aliases: texts(&["old-td"]),
        ..MeshConfig::default()
    };
    let allow = policy(
        Action::Allow,
        "a",
        vec![from(principals(&["old-td/ns/stock/sa/client"]))],
    );
    let rules = compile(&[&allow], &mesh, Layer::Http);
    assert!(is_allowed(&rules, "new-td/ns/stock/sa/client", 80), "S-89");
    let not = Source {
        not_principals: texts(&["new-td/ns/stock/sa/client"]),
        ..Source::default()
    };
    let deny = policy(Action::Deny, "d", vec![from(not)]);
    let rules = compile(&[&deny], &mesh, Layer::Http);
    assert!(is_allowed(&rules, "old-td/ns/stock/sa/client", 80), "S-88");
    assert!(!is_allowed(&rules, "old-td/ns/stock/sa/other", 80));
}

#[test]
fn a_service_account_belongs_to_the_namespace_of_its_policy() {
    let source = Source {
        service_accounts: texts(&["client"]),
        ..Source::default()
    };
    let allow = policy(Action::Allow, "a", vec![from(source)]);
    let rules = compiled(&allow, Layer::Http);
    assert!(is_allowed(&rules, "td/ns/shop/sa/client", 80), "S-129");
    assert!(!is_allowed(&rules, CLIENT, 80));
}

#[test]
fn an_empty_rule_matches_everything() {
    for (action, allowed) in [
        (Action::Allow, true),
        (Action::Deny, false),
        (Action::Audit, true),
    ] {
        for layer in [Layer::Http, Layer::Tcp] {
            let rules = compiled(&policy(action, "p", vec![anything()]), layer);
            assert_eq!(is_allowed(&rules, CLIENT, 80), allowed, "S-113");
        }
    }
}

#[test]
fn rules_in_force_are_counted_and_those_without_a_policy_are_none() {
    let mesh = MeshConfig::default();
    assert!(compile(&[], &mesh, Layer::Http).is_empty());
    let actions = [Action::Allow, Action::Audit, Action::Custom, Action::Deny];
    for action in actions {
        let mut one = policy(action, "p", vec![]);
        let rules = compiled(&one, Layer::Http);
        assert_eq!(rules.len(), 1, "the rule that matches nothing (S-112)");
        assert!(!rules.is_empty());
        one.dry_run = true;
        let is_enforced = matches!(action, Action::Audit | Action::Custom);
        let rules = compiled(&one, Layer::Http);
        assert_eq!(rules.is_empty(), !is_enforced, "{action:?} (S-163)");
    }
    let policies: Vec<_> = (2..)
        .zip(actions)
        .map(|(count, action)| policy(action, "p", vec![anything(); count]))
        .collect();
    let policies: Vec<_> = policies.iter().collect();
    assert_eq!(compile(&policies, &mesh, Layer::Tcp).len(), 2 + 3 + 4 + 5);
}
