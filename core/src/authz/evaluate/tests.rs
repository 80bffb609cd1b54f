use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::api::authorization_policy::{AuthorizationPolicy, Rule, Source};
use crate::api::mesh_config::MeshConfig;
use crate::authn::Claims;
use crate::authz::HttpAttributes;
use crate::authz::compile::compile;
use crate::authz::listener::{Actual, Field};
use crate::authz::test_policies::{
    anything, from, methods, namespaces, paths, policy, ports, to, token, when,
};
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

#[test]
fn of_rules_that_are_found_by_other_fields_the_first_is_reported() {
    let rules = vec![to(methods(&["GET"])), from(namespaces(&["stock"]))];
    for rules in [rules.clone(), rules.into_iter().rev().collect()] {
        let deny = [policy(Action::Deny, "d", rules)];
        let request = get(Some(CLIENT), "/");
        assert_eq!(judge(&deny, &request), "denied: [ d 0]]", "S-117");
    }
}

#[test]
fn the_nearest_miss_is_of_an_allow_rule_that_could_match() {
    let mut far = from(namespaces(&["foo"]));
    far.to = vec![methods(&["POST"])];
    let void = when("request.time", &["y"], &[]);
    let policies = [
        policy(Action::Allow, "a", vec![void, far]),
        policy(Action::Deny, "d", vec![to(paths(&["/x"]))]),
    ];
    let rules = rules(&policies);
    let (_, explanation) = explain(&rules, &get(Some(CLIENT), "/"));
    let nearest = explanation.nearest_miss().expect("an ALLOW rule missed");
    assert_eq!(nearest.id.as_str(), "ns[shop]-policy[a]-rule[1]");
    let fields: Vec<_> = nearest.misses().map(|miss| miss.field).collect();
    assert_eq!(fields, [Field::Namespaces, Field::Methods]);
    let (_, explanation) = explain(&rules, &get(Some(CLIENT), "/x"));
    assert_eq!(explanation.nearest_miss(), None, "a DENY rule decided");
}

#[test]
fn an_explanation_goes_on_where_the_answer_is_known() {
    let mut rule = from(namespaces(&["stock"]));
    rule.from.push(namespaces(&["foo"]));
    rule.to = vec![methods(&["POST"])];
    rule.to[0].paths = vec!["/x".into()];
    rule.when = when("destination.port", &["8080"], &[]).when;
    let policies = [policy(Action::Deny, "d", vec![rule, anything()])];
    let (_, explanation) = explain(&rules(&policies), &get(Some(CLIENT), "/"));
    let answers = explanation.rules.iter().map(|rule| {
        let alternatives = rule.alternatives.iter().map(|alternative| {
            let comparisons = alternative.comparisons.iter();
            comparisons.map(|c| c.matched).collect::<Vec<_>>()
        });
        (rule.matched, alternatives.collect::<Vec<_>>())
    });
    assert_eq!(
        answers.collect::<Vec<_>>(),
        [
            (
                false,
                vec![vec![true], vec![false], vec![false, false], vec![true]]
            ),
            (true, vec![]),
        ]
    );
}

#[test]
fn an_explanation_says_what_every_rule_of_every_action_said() {
    let mut custom = policy(Action::Custom, "c", vec![to(ports(&["9"]))]);
    custom.provider = Some("ext".into());
    let policies = [
        policy(Action::Allow, "a", vec![]),
        policy(Action::Deny, "d", vec![to(paths(&["/x"]))]),
        policy(Action::Audit, "u", vec![anything()]),
        custom,
    ];
    let (_, explanation) = explain(&rules(&policies), &get(None, "/"));
    assert_eq!(
        explanation.to_string(),
        "\
denied: rbac_access_denied_matched_policy[none]
CUSTOM istio-ext-authz-ext-ns[shop]-policy[c]-rule[0]-deny-due-to-bad-CUSTOM-action does not match (test.yaml:7:3)
  to
    - ports [9] against 8080
AUDIT ns[shop]-policy[u]-rule[0] matches (test.yaml:7:3)
DENY ns[shop]-policy[d]-rule[0] does not match (test.yaml:7:3)
  to
    - paths [/x] against `/`
ALLOW ns[shop]-policy[a]-rule[0] does not match (test.yaml:1:3)
  the policy has no rules
"
    );
}

/// A request with these header lines and this token, over mutual TLS with this server name.
fn spoken<'a>(
    fields: &'a [(&'a [u8], &'a [u8])],
    claims: Option<&'a Claims>,
    sni: Option<&'a str>,
) -> Attributes<'a> {
    let plain = get(Some(CLIENT), "/");
    Attributes {
        sni,
        http: plain.http.map(|http| HttpAttributes {
            fields: Fields::listed(fields),
            claims,
            ..http
        }),
        ..plain
    }
}

fn is_denied(rule: &Rule, attributes: &Attributes<'_>) -> bool {
    let decision = judge(&[policy(Action::Deny, "d", vec![rule.clone()])], attributes);
    decision.starts_with("denied")
}

#[test]
fn to_deny_whoever_speaks_for_nobody_demands_a_token() {
    let rule = from(Source {
        not_request_principals: vec!["*".into()],
        ..Source::default()
    });
    assert!(is_denied(&rule, &spoken(&[], None, None)), "S-133");
    let alice = token(r#"{"iss": "i", "sub": "alice"}"#);
    assert!(!is_denied(&rule, &spoken(&[], Some(&alice), None)));
    for payload in [
        r#"{"iss": "i"}"#,
        r#"{"iss": "i", "sub": 7}"#,
        r#"{"sub": "s"}"#,
    ] {
        let nobody = token(payload);
        let denied = is_denied(&rule, &spoken(&[], Some(&nobody), None));
        assert!(denied, "{payload} (S-131)");
    }
    let rule = from(Source {
        request_principals: vec!["i/alice".into()],
        ..Source::default()
    });
    assert!(is_denied(&rule, &spoken(&[], Some(&alice), None)));
    assert!(!is_denied(&rule, &spoken(&[], None, None)));
}

#[test]
fn a_claim_matches_by_its_texts_alone() {
    let claims = token(
        r#"{"role": "admin", "groups": ["a", 1, "b"], "n": 5, "o": {"p": "q"}, "e": "", "l": [],
            "scope": "read write", "other": "read write", "aud": ["x", "y"], "azp": "z", "a.b": "c"}"#,
    );
    let holds = |key: &str, value: &str| {
        let request = spoken(&[], Some(&claims), None);
        let positive = is_denied(&when(key, &[value], &[]), &request);
        let negative = is_denied(&when(key, &[], &[value]), &request);
        assert_ne!(positive, negative, "{key} {value}");
        positive
    };
    for (key, value, expected) in [
        ("request.auth.claims[role]", "admin", true),
        ("request.auth.claims[role]", "adm*", true),
        ("request.auth.claims[role]", "Admin", false),
        ("request.auth.claims[groups]", "b", true),
        ("request.auth.claims[groups]", "1", false),
        ("request.auth.claims[n]", "5", false),
        ("request.auth.claims[n]", "*", false),
        ("request.auth.claims[o]", "*", false),
        ("request.auth.claims[o][p]", "q", true),
        ("request.auth.claims[role][p]", "*", false),
        ("request.auth.claims[e]", "*", false),
        ("request.auth.claims[l]", "*", false),
        ("request.auth.claims[none]", "*", false),
        ("request.auth.claims[scope]", "read", true),
        ("request.auth.claims[scope]", "read write", false),
        ("request.auth.claims[other]", "read write", true),
        ("request.auth.claims[other]", "read", false),
        ("request.auth.claims[a.b]", "c", true),
        ("request.auth.audiences", "y", true),
        ("request.auth.presenter", "z", true),
    ] {
        assert_eq!(
            holds(key, value),
            expected,
            "{key} {value} (S-147 to S-150)"
        );
    }
}

#[test]
fn without_an_attribute_values_are_false_and_not_values_true() {
    let request = Attributes {
        principal: None,
        ..spoken(&[], None, None)
    };
    for key in [
        "request.headers[x]",
        "request.auth.claims[a]",
        "request.auth.principal",
        "request.auth.audiences",
        "source.principal",
        "source.namespace",
        "connection.sni",
        "experimental.envoy.filters.a[b]",
    ] {
        assert!(!is_denied(&when(key, &["*"], &[]), &request), "{key}");
        assert!(is_denied(&when(key, &[], &["*"]), &request), "{key}");
    }
}

#[test]
fn every_condition_has_to_hold_and_so_have_both_lists_of_one() {
    let fields: &[(&[u8], &[u8])] = &[(b"x-foo", b"foo1"), (b"x-bar", b"b")];
    let request = spoken(fields, None, Some("outbound_.80_._.api.shop"));
    let foo = "request.headers[x-foo]";
    assert!(is_denied(&when(foo, &["foo*"], &["*2"]), &request));
    assert!(
        !is_denied(&when(foo, &["foo*"], &["*1"]), &request),
        "S-115"
    );
    let mut both = when(foo, &["foo*"], &[]);
    both.when
        .extend(when("connection.sni", &["*.api.shop"], &[]).when);
    assert!(is_denied(&both, &request), "S-152");
    both.when
        .extend(when("request.headers[:method]", &["POST"], &[]).when);
    assert!(!is_denied(&both, &request), "S-114");
}

#[test]
fn the_request_line_is_among_the_headers() {
    let request = spoken(&[], None, None);
    for (name, value) in [
        (":method", "GET"),
        (":authority", "api.shop"),
        ("host", "api*"),
    ] {
        let key = format!("request.headers[{name}]");
        assert!(is_denied(&when(&key, &[value], &[]), &request), "{name}");
        let upper = value.to_lowercase().replace('a', "A").replace("get", "Get");
        assert!(
            !is_denied(&when(&key, &[&upper], &[]), &request),
            "{name} (S-144)"
        );
    }
}

#[test]
fn an_explanation_names_conditions_and_hides_credentials() {
    let mut rule = when("request.headers[Authorization]", &["x"], &["y"]);
    for (key, value) in [
        ("request.auth.claims[groups]", "admin"),
        ("request.auth.principal", "i/bob"),
        ("request.headers[x-role]", "admin"),
        ("connection.sni", "a"),
    ] {
        rule.when.extend(when(key, &[value], &[]).when);
    }
    let policies = [policy(Action::Allow, "a", vec![rule])];
    let rules = rules(&policies);
    let claims = token(r#"{"iss": "i", "sub": "alice", "groups": ["user", "dev"]}"#);
    let fields: &[(&[u8], &[u8])] = &[
        (b"authorization", b"Bearer secret"),
        (b"x-role", b"user"),
        (b"x-role", b"dev"),
    ];
    let (_, explanation) = explain(&rules, &spoken(fields, Some(&claims), None));
    let misses = "\
- request.headers[Authorization] values [x] against 13 bytes
+ request.headers[Authorization] notValues [y] against 13 bytes
- request.auth.claims[groups] values [admin] against `[\"user\",\"dev\"]`
- request.auth.principal values [i/bob] against `i/alice`
- request.headers[x-role] values [admin] against `user` and `dev`
- connection.sni values [a] against absent
";
    let indented = |text: &str, by: &str| -> String {
        text.lines().map(|line| format!("{by}{line}\n")).collect()
    };
    let text = explanation.to_string();
    assert!(
        text.contains(&format!("  when\n{}", indented(misses, "    "))),
        "{text}"
    );
    let missed: String = misses
        .lines()
        .filter(|line| line.starts_with('-'))
        .fold(String::new(), |text, line| text + line + "\n");
    assert!(text.ends_with(&indented(&missed, "  ")), "{text}");
    let comparison = &explanation.rules[0].alternatives[0].comparisons[0];
    let key = "request.headers[Authorization]";
    assert_eq!(
        (comparison.field, comparison.key.as_deref()),
        (Field::When, Some(key))
    );
}

#[test]
fn what_a_token_says_stays_on_its_line() {
    let text = "a\u{1b}[2J\n\u{9b}é`";
    let payload = serde_json::json!({"iss": "i", "sub": text, "list": [text]});
    let serde_json::Value::Object(payload) = payload else {
        unreachable!("an object");
    };
    let claims = Claims::new(payload, [].into());
    for actual in [
        Actual::RequestPrincipal(&claims),
        Actual::Claim(&claims, &["sub".to_owned()]),
        Actual::Claim(&claims, &["list".to_owned()]),
    ] {
        let shown = actual.to_string();
        assert!(!shown.contains(char::is_control), "{shown:?}");
        assert!(shown.contains('é'), "{shown:?}");
    }
}
