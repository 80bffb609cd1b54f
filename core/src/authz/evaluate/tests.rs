use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::api::authorization_policy::{AuthorizationPolicy, Source};
use crate::api::mesh_config::MeshConfig;
use crate::authz::HttpAttributes;
use crate::authz::compile::compile;
use crate::authz::test_policies::{anything, from, methods, namespaces, paths, policy, to};
use crate::http::head::Fields;

const CLIENT: &str = "cluster.local/ns/stock/sa/client";
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 10));

fn get<'a>(principal: Option<&'a str>, path: &'a str) -> Attributes<'a> {
    Attributes {
        principal,
        source_ip: PEER,
        remote_ip: PEER,
        destination_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        destination_port: 8080,
        sni: None,
        http: Some(HttpAttributes {
            method: "GET",
            path: path.as_bytes(),
            authority: b"api.shop",
            fields: Fields::listed(&[]),
            claims: None,
        }),
    }
}

fn rules(policies: &[AuthorizationPolicy]) -> RuleSets {
    let policies: Vec<_> = policies.iter().collect();
    compile(&policies, &MeshConfig::default(), Layer::Http)
}

/// The decision in words, the same with and without a listener.
fn judge(policies: &[AuthorizationPolicy], attributes: &Attributes<'_>) -> String {
    let rules = rules(policies);
    let decision = evaluate(&rules, attributes, &mut |_| {}, &mut ());
    let (explained, explanation) = explain(&rules, attributes);
    assert_eq!(decision, explained, "a listener changes nothing");
    let outcome = explanation.outcome.to_string();
    let ids = ["ns[shop]-policy[", "]-rule["];
    ids.iter()
        .fold(outcome, |text, part| text.replace(part, " "))
        .replace("rbac_access_denied_matched_policy", "")
}

#[test]
fn without_policies_everything_is_allowed() {
    assert_eq!(
        judge(&[], &get(None, "/")),
        "allowed: no ALLOW policy is in force",
        "S-9"
    );
}

#[test]
fn a_deny_is_final_whatever_allows() {
    let policies = [
        policy(Action::Allow, "a", vec![anything()]),
        policy(Action::Deny, "d", vec![to(paths(&["/admin*"]))]),
    ];
    assert_eq!(
        judge(&policies, &get(None, "/admin")),
        "denied: [ d 0]]",
        "S-111"
    );
    assert_eq!(judge(&policies, &get(None, "/")), "allowed by  a 0]");
}

#[test]
fn an_allow_policy_without_rules_denies_everything() {
    let nothing = policy(Action::Allow, "a", vec![]);
    assert_eq!(
        judge(&[nothing], &get(None, "/")),
        "denied: [none]",
        "S-112"
    );
}

#[test]
fn an_allow_of_another_policy_is_enough() {
    let policies = [
        policy(Action::Allow, "a", vec![]),
        policy(Action::Allow, "b", vec![from(namespaces(&["stock"]))]),
    ];
    let request = get(Some(CLIENT), "/");
    assert_eq!(judge(&policies, &request), "allowed by  b 0]", "S-116");
}

#[test]
fn a_dry_run_policy_is_not_in_force() {
    for action in [Action::Allow, Action::Deny] {
        let mut shadow = policy(action, "s", vec![to(paths(&["/x"]))]);
        shadow.dry_run = true;
        let decision = judge(&[shadow], &get(None, "/x"));
        assert_eq!(decision, "allowed: no ALLOW policy is in force", "S-163");
    }
}

#[test]
fn the_reported_rule_is_the_first_by_bytes() {
    let mut rules = vec![to(paths(&["/other"])); 11];
    rules[2] = to(methods(&["GET"]));
    rules[10] = to(paths(&["/a*"]));
    let policies = [policy(Action::Deny, "d", rules)];
    assert_eq!(
        judge(&policies, &get(None, "/ab")),
        "denied: [ d 10]]",
        "S-117"
    );
    assert_eq!(judge(&policies, &get(None, "/b")), "denied: [ d 2]]");
}

#[test]
fn identity_fields_are_false_on_plaintext_and_their_negations_true() {
    let not_foo = Source {
        not_namespaces: vec!["foo".into()],
        ..Source::default()
    };
    let allow = [policy(Action::Allow, "a", vec![from(not_foo.clone())])];
    assert_eq!(judge(&allow, &get(None, "/")), "allowed by  a 0]", "S-126");
    let deny = [policy(Action::Deny, "d", vec![from(namespaces(&["*"]))])];
    assert!(judge(&deny, &get(None, "/")).starts_with("allowed"));
    assert_eq!(judge(&deny, &get(Some(CLIENT), "/")), "denied: [ d 0]]");
}

#[test]
fn fields_of_one_source_are_anded_and_so_are_a_field_and_its_negation() {
    let source = Source {
        not_principals: vec![CLIENT.into()],
        ..namespaces(&["stock"])
    };
    let allow = [policy(Action::Allow, "a", vec![from(source)])];
    let other = "cluster.local/ns/stock/sa/other";
    assert!(judge(&allow, &get(Some(other), "/")).starts_with("allowed"));
    assert_eq!(
        judge(&allow, &get(Some(CLIENT), "/")),
        "denied: [none]",
        "S-115"
    );
}

#[test]
fn from_and_to_are_anded_and_their_items_ored() {
    let mut rule = from(namespaces(&["foo"]));
    rule.from.push(namespaces(&["stock"]));
    rule.to = vec![methods(&["POST"]), paths(&["/x"])];
    let allow = [policy(Action::Allow, "a", vec![rule])];
    assert_eq!(
        judge(&allow, &get(Some(CLIENT), "/x")),
        "allowed by  a 0]",
        "S-114"
    );
    assert_eq!(judge(&allow, &get(Some(CLIENT), "/y")), "denied: [none]");
    assert_eq!(judge(&allow, &get(None, "/x")), "denied: [none]");
}

#[test]
fn an_audit_rule_is_heard_and_changes_nothing() {
    let policies = [
        policy(Action::Audit, "b", vec![anything()]),
        policy(Action::Audit, "a", vec![anything()]),
    ];
    let rules = rules(&policies);
    let mut heard = Vec::new();
    let decision = evaluate(
        &rules,
        &get(None, "/"),
        &mut |id| heard.push(id.to_string()),
        &mut (),
    );
    assert_eq!(decision, Decision::Allowed { policy: None }, "S-162");
    assert_eq!(heard, ["ns[shop]-policy[a]-rule[0]"]);
}

#[test]
fn an_audit_rule_hears_of_what_a_deny_stops() {
    let policies = [
        policy(Action::Audit, "a", vec![anything()]),
        policy(Action::Deny, "d", vec![anything()]),
    ];
    let rules = rules(&policies);
    let mut heard = 0;
    let decision = evaluate(&rules, &get(None, "/"), &mut |_| heard += 1, &mut ());
    assert!(!decision.is_allowed());
    assert_eq!(heard, 1, "AUDIT comes before DENY (S-110)");
}

#[test]
fn a_custom_policy_denies_what_it_would_ask_about() {
    let mut custom = policy(Action::Custom, "c", vec![to(paths(&["/admin"]))]);
    custom.provider = Some("ext".into());
    let rules = rules(&[custom]);
    let decision = evaluate(&rules, &get(None, "/admin"), &mut |_| {}, &mut ());
    assert_eq!(
        decision.denial_details().as_deref(),
        Some(
            "rbac_access_denied_matched_policy[istio-ext-authz-ext-ns[shop]-policy[c]-rule[0]\
             -deny-due-to-bad-CUSTOM-action]"
        ),
        "S-160"
    );
    let other = evaluate(&rules, &get(None, "/"), &mut |_| {}, &mut ());
    assert!(other.is_allowed());
}

#[test]
fn rules_for_http_deny_what_is_not_http() {
    let not_get = crate::api::authorization_policy::Operation {
        not_methods: vec!["GET".into()],
        ..Default::default()
    };
    let rules = rules(&[policy(Action::Allow, "a", vec![to(not_get)])]);
    let connection = Attributes {
        http: None,
        ..get(None, "/")
    };
    let decision = evaluate(&rules, &connection, &mut |_| {}, &mut ());
    assert_eq!(decision, Decision::Denied { policy: None });
}

#[test]
fn an_explanation_shows_every_comparison_and_the_nearest_miss() {
    let mut far = from(namespaces(&["foo", "bar"]));
    far.to = vec![methods(&["POST"])];
    let mut near = from(namespaces(&["stock"]));
    near.to = vec![methods(&["GET"]), paths(&["/y"])];
    near.to[0].paths = vec!["/x".into()];
    let policies = [policy(Action::Allow, "a", vec![far, near])];
    let rules = rules(&policies);
    let (decision, explanation) = explain(&rules, &get(Some(CLIENT), "/z"));
    assert_eq!(decision, Decision::Denied { policy: None });
    assert_eq!(
        explanation.to_string(),
        "\
denied: rbac_access_denied_matched_policy[none]
ALLOW ns[shop]-policy[a]-rule[0] does not match (test.yaml:7:3)
  from
    - namespaces [foo, bar] against `cluster.local/ns/stock/sa/client`
  to
    - methods [POST] against `GET`
ALLOW ns[shop]-policy[a]-rule[1] does not match (test.yaml:7:3)
  from
    + namespaces [stock] against `cluster.local/ns/stock/sa/client`
  to
    + methods [GET] against `GET`
    - paths [/x] against `/z`
  to
    - paths [/y] against `/z`
nearest: ns[shop]-policy[a]-rule[1] at test.yaml:7:3
  - paths [/x] against `/z`
"
    );
}
