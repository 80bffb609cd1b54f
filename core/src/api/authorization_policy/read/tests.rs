use std::sync::Arc;

use super::*;
use crate::api::load::{Cause, Finding, Loaded, Text, load_for_enforcement, validate};

fn policy_text(annotations: &str, spec: &str) -> Text {
    Text {
        name: Arc::from("ap.yaml"),
        text: format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop{annotations}}}\nspec: {spec}\n"
        ),
    }
}

fn load(spec: &str) -> Loaded {
    validate(&[policy_text("", spec)], "default")
}

fn read(spec: &str) -> AuthorizationPolicy {
    let loaded = load(spec);
    assert!(!loaded.has_errors(), "{spec}: {:?}", loaded.findings);
    loaded
        .authorization_policies
        .into_iter()
        .next()
        .expect("the policy is valid")
}

fn assert_refused(spec: &str) {
    let loaded = load(spec);
    let errors: Vec<&Finding> = loaded
        .findings
        .iter()
        .filter(|finding| finding.is_error())
        .collect();
    assert_eq!(errors.len(), 1, "{spec}: {errors:#?}");
    assert!(loaded.authorization_policies.is_empty(), "{spec}");
}

fn source(source: &str) -> String {
    format!("{{rules: [{{from: [{{source: {source}}}]}}]}}")
}

fn operation(operation: &str) -> String {
    format!("{{rules: [{{to: [{{operation: {operation}}}]}}]}}")
}

fn condition(condition: &str) -> String {
    format!("{{rules: [{{when: [{condition}]}}]}}")
}

#[test]
fn every_field_is_read() {
    let policy = read(
        "{selector: {matchLabels: {a: b}}, action: DENY, rules: [{from: [{source: {principals: [a], notPrincipals: [b], requestPrincipals: [c], notRequestPrincipals: [d], \
         namespaces: [e], notNamespaces: [f], trustDomains: [g], notTrustDomains: [h], ipBlocks: [1.1.1.1], notIpBlocks: [2.2.2.2], remoteIpBlocks: [3.3.3.3], notRemoteIpBlocks: [4.4.4.4]}}, \
         {source: {serviceAccounts: [i], notServiceAccounts: [j]}}], to: [{operation: {hosts: [k], notHosts: [l], ports: ['1'], notPorts: ['2'], methods: [m], notMethods: [n], paths: [/o], notPaths: [/p]}}], \
         when: [{key: source.ip, values: [5.5.5.5], notValues: [6.6.6.6]}]}]}",
    );
    let [rule] = policy.rules.as_slice() else {
        panic!("{policy:?} has one rule")
    };
    let one = |text: &str| vec![text.to_owned()];
    let first = Source {
        principals: one("a"),
        not_principals: one("b"),
        request_principals: one("c"),
        not_request_principals: one("d"),
        namespaces: one("e"),
        not_namespaces: one("f"),
        service_accounts: Vec::new(),
        not_service_accounts: Vec::new(),
        trust_domains: one("g"),
        not_trust_domains: one("h"),
        ip_blocks: one("1.1.1.1"),
        not_ip_blocks: one("2.2.2.2"),
        remote_ip_blocks: one("3.3.3.3"),
        not_remote_ip_blocks: one("4.4.4.4"),
    };
    let second = Source {
        service_accounts: one("i"),
        not_service_accounts: one("j"),
        ..Source::default()
    };
    assert_eq!(rule.from, [first, second]);
    let operation = Operation {
        hosts: one("k"),
        not_hosts: one("l"),
        ports: one("1"),
        not_ports: one("2"),
        methods: one("m"),
        not_methods: one("n"),
        paths: one("/o"),
        not_paths: one("/p"),
    };
    assert_eq!(rule.to, [operation]);
    let [condition] = rule.when.as_slice() else {
        panic!("{rule:?} has one condition")
    };
    assert_eq!(
        (
            condition.key.as_str(),
            &condition.values,
            &condition.not_values
        ),
        ("source.ip", &one("5.5.5.5"), &one("6.6.6.6"))
    );
    assert_eq!(
        (policy.action, policy.selector.map(|labels| labels.len())),
        (Action::Deny, Some(1))
    );
}

#[test]
fn a_policy_without_rules_matches_nothing_and_an_empty_rule_everything() {
    for spec in ["{}", "{rules: []}", "{action: AUDIT}"] {
        assert_eq!(read(spec).rules, [], "{spec}");
    }
    let policy = read("{rules: [{}]}");
    assert!(
        matches!(policy.rules.as_slice(), [rule] if rule.from.is_empty() && rule.to.is_empty() && rule.when.is_empty())
    );
}

#[test]
fn null_never_counts_as_absent() {
    for spec in [
        "",
        "{rules: }",
        "{rules: [null]}",
        "{rules: [{from: }]}",
        "{rules: [{when: null}]}",
        "{selector: , rules: [{}]}",
    ] {
        assert_refused(spec);
    }
}

#[test]
fn an_empty_list_counts_as_absent_with_a_warning() {
    let loaded = load("{rules: [{from: [], to: [{operation: {methods: [GET]}}]}]}");
    assert_eq!((loaded.findings.len(), loaded.has_errors()), (1, false));
}

#[test]
fn actions_and_providers_fit_together() {
    for spec in [
        "{action: DENY}",
        "{action: DENY, rules: []}",
        "{action: CUSTOM, provider: {name: x}}",
        "{action: CUSTOM, rules: [{}]}",
        "{action: CUSTOM, provider: {name: ''}, rules: [{}]}",
        "{action: CUSTOM, provider: {}, rules: [{}]}",
        "{action: ALLOW, provider: {name: x}}",
        "{action: deny, rules: [{}]}",
        "{action: LOG, rules: [{}]}",
    ] {
        assert_refused(spec);
    }
    assert_eq!(
        read("{action: CUSTOM, provider: {name: x}, rules: [{}]}")
            .provider
            .as_deref(),
        Some("x")
    );
}

#[test]
fn sources_and_operations_say_something() {
    for spec in [
        source("{}"),
        source("{principals: []}"),
        operation("{}"),
        "{rules: [{from: [{}]}]}".into(),
        "{rules: [{to: [{}]}]}".into(),
        "{rules: [{from: [{source: {principals: [a]}, to: []}]}]}".into(),
        source("{principals: ['']}"),
        source("{principals: a}"),
        source("{principals: [1]}"),
        source("{hosts: [a]}"),
        operation("{methods: ['']}"),
        operation("{ports: [8080]}"),
        operation("{ports: ['65536']}"),
        operation("{notPorts: [http]}"),
        operation("{paths: ['/{id}']}"),
        operation("{notPaths: ['/a{*}']}"),
        source("{ipBlocks: [10.0.0.0/33]}"),
        source("{notRemoteIpBlocks: [foo]}"),
    ] {
        assert_refused(&spec);
    }
}

#[test]
fn service_accounts_follow_s_174() {
    let many = |n: usize| vec!["a"; n].join(",");
    for list in [
        "[a]",
        "[ns/a]",
        &format!("[{}]", many(16)),
        &format!("[{}]", "x".repeat(320)),
    ] {
        read(&source(&format!("{{serviceAccounts: {list}}}")));
    }
    for list in [
        "['*']",
        "[a/b/c]",
        "[/a]",
        "[a/]",
        "['']",
        &format!("[{}]", many(17)),
        &format!("[{}]", "x".repeat(321)),
    ] {
        assert_refused(&source(&format!("{{serviceAccounts: {list}}}")));
        assert_refused(&source(&format!("{{notServiceAccounts: {list}}}")));
    }
    for other in ["principals", "notPrincipals", "namespaces", "notNamespaces"] {
        assert_refused(&source(&format!("{{serviceAccounts: [a], {other}: [b]}}")));
        assert_refused(&source(&format!(
            "{{notServiceAccounts: [a], {other}: [b]}}"
        )));
    }
}

#[test]
fn trust_domains_have_a_star_at_one_end_at_most() {
    for domain in ["td", "*", "td*", "'*td'"] {
        read(&source(&format!(
            "{{trustDomains: ['{}']}}",
            domain.trim_matches('\'')
        )));
    }
    for domain in ["t*d", "*td*", "**", "a/b", ""] {
        assert_refused(&source(&format!("{{trustDomains: ['{domain}']}}")));
    }
}

#[test]
fn conditions_have_a_known_key_and_fitting_values() {
    for key in [
        "request.headers[x-a]",
        "source.namespace",
        "source.principal",
        "source.serviceAccount",
        "source.trustDomain",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
        "request.auth.claims[a]",
        "request.auth.claims[a][b]",
        "request.auth.claims[a]b]",
        "connection.sni",
        "experimental.envoy.filters.a.b[c]",
    ] {
        read(&condition(&format!("{{key: '{key}', values: [x]}}")));
    }
    for key in [
        "request.headers",
        "request.headers[]",
        "request.headers[a",
        "request.headersX[a]",
        "request.auth.claims",
        "request.auth.claims[a][",
        "source.ip[a]",
        "connection.sni[a]",
        "destination.labels[a]",
        "destination.name",
        "destination.namespace",
        "destination.user",
        "request.time",
        "experimental.envoy.filters.[k]",
        "Source.ip",
        "[a]",
    ] {
        assert_refused(&condition(&format!("{{key: '{key}', values: [x]}}")));
    }
    for key in ["source.ip", "remote.ip", "destination.ip"] {
        read(&condition(&format!(
            "{{key: {key}, notValues: [10.0.0.0/8]}}"
        )));
        assert_refused(&condition(&format!("{{key: {key}, values: [x]}}")));
        assert_refused(&condition(&format!(
            "{{key: {key}, values: [1.1.1.1], notValues: [x]}}"
        )));
    }
    read(&condition("{key: destination.port, values: ['80']}"));
    assert_refused(&condition("{key: destination.port, values: [x]}"));
    for incomplete in [
        "{values: [x]}",
        "{key: '', values: [x]}",
        "{key: source.ip}",
        "{key: source.ip, values: []}",
        "{key: source.principal, values: ['']}",
    ] {
        assert_refused(&condition(incomplete));
    }
}

#[test]
fn a_provider_is_asked_before_identity_and_token_are_known() {
    let custom = |rule: &str| format!("{{action: CUSTOM, provider: {{name: x}}, rules: [{rule}]}}");
    for list in [
        "principals",
        "notNamespaces",
        "requestPrincipals",
        "serviceAccounts",
        "trustDomains",
    ] {
        assert_refused(&custom(&format!("{{from: [{{source: {{{list}: [a]}}}}]}}")));
    }
    for key in [
        "source.namespace",
        "source.principal",
        "source.serviceAccount",
        "source.trustDomain",
        "request.auth.claims[a]",
        "request.auth.principal",
    ] {
        assert_refused(&custom(&format!(
            "{{when: [{{key: '{key}', values: [b]}}]}}"
        )));
    }
    read(&custom(
        "{from: [{source: {ipBlocks: [10.0.0.1]}}], to: [{operation: {paths: [/a]}}], when: [{key: 'request.headers[a]', values: [b]}]}",
    ));
}

#[test]
fn targets_and_selectors_exclude_one_another() {
    let gateway = "{group: gateway.networking.k8s.io, kind: Gateway, name: g}";
    for spec in [
        format!("{{targetRef: {gateway}}}"),
        format!("{{targetRefs: [{gateway}, {{kind: Service, name: s, group: ''}}]}}"),
    ] {
        assert!(read(&spec).targets, "{spec}");
    }
    for spec in [
        format!("{{selector: {{matchLabels: {{a: b}}}}, targetRef: {gateway}}}"),
        format!("{{targetRef: {gateway}, targetRefs: [{gateway}]}}"),
        format!("{{targetRefs: [{}]}}", vec![gateway; 17].join(", ")),
        "{targetRefs: [{kind: Deployment, group: apps, name: g}]}".into(),
        "{targetRefs: [{kind: Gateway, group: networking.istio.io, name: g}]}".into(),
        "{targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io}]}".into(),
        "{targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: g, namespace: n}]}"
            .into(),
        "{selector: {matchLabels: {a: 'b*'}}}".into(),
        "{selector: {matchLabels: {'a*': b}}}".into(),
        "{selector: {matchLabels: {'': b}}}".into(),
        "{selector: {matchLabels: {a: 1}}}".into(),
        "{selector: {labels: {a: b}}, rules: [{}]}".into(),
    ] {
        assert_refused(&spec);
    }
}

#[test]
fn dry_run_takes_a_boolean_and_a_policy_that_decides() {
    let load = |value: &str, spec: &str| {
        let annotations = format!(", annotations: {{istio.io/dry-run: \"{value}\"}}");
        validate(&[policy_text(&annotations, spec)], "default")
    };
    for (value, dry_run) in [
        ("true", true),
        ("T", true),
        ("1", true),
        ("false", false),
        ("0", false),
    ] {
        let loaded = load(value, "{action: DENY, rules: [{}]}");
        assert_eq!(loaded.findings, [], "{value}");
        assert_eq!(
            loaded
                .authorization_policies
                .first()
                .map(|policy| policy.dry_run),
            Some(dry_run)
        );
    }
    for (value, spec) in [
        ("maybe", "{}"),
        ("", "{}"),
        ("true", "{action: AUDIT}"),
        (
            "false",
            "{action: CUSTOM, provider: {name: x}, rules: [{}]}",
        ),
    ] {
        assert!(load(value, spec).has_errors(), "{value} {spec}");
    }
}

#[test]
fn a_deny_rule_of_http_attributes_alone_warns() {
    let warns = |rule: &str| {
        let loaded = load(&format!("{{action: DENY, rules: [{rule}]}}"));
        assert!(!loaded.has_errors(), "{rule}: {:?}", loaded.findings);
        !loaded.findings.is_empty()
    };
    for rule in [
        "{to: [{operation: {methods: [TRACE]}}]}",
        "{from: [{source: {requestPrincipals: ['*']}}]}",
        "{from: [{source: {notRequestPrincipals: ['*']}}], to: [{operation: {paths: [/a]}}]}",
        "{when: [{key: 'request.headers[a]', values: [b]}]}",
        "{to: [{operation: {ports: ['80']}}, {operation: {methods: [GET]}}]}",
    ] {
        assert!(warns(rule), "{rule}");
    }
    for rule in [
        "{}",
        "{to: [{operation: {methods: [TRACE], ports: ['8080']}}]}",
        "{from: [{source: {principals: [a]}}], to: [{operation: {methods: [GET]}}]}",
        "{to: [{operation: {methods: [GET]}}], when: [{key: source.ip, values: [1.1.1.1]}]}",
    ] {
        assert!(!warns(rule), "{rule}");
    }
}

#[test]
fn what_is_not_enforced_refuses_a_load_at_its_place() {
    for (spec, at) in [
        (
            "{action: CUSTOM, provider: {name: x}, rules: [{}]}",
            "CUSTOM",
        ),
        (
            "{provider: {name: x}, action: CUSTOM, rules: [{}]}",
            "CUSTOM",
        ),
    ] {
        let column = "spec: ".len() + spec.find(at).expect("it is there") + 1;
        let place = (4, u32::try_from(column).expect("it is small"));
        let refused = load_for_enforcement(&[policy_text("", spec)], "default")
            .expect_err("it is not enforced");
        let [finding] = refused.findings.as_slice() else {
            panic!("{spec}: {refused}")
        };
        assert_eq!(finding.cause, Cause::NotEnforced, "{spec}");
        assert_eq!(
            (finding.origin.line, finding.origin.column),
            place,
            "{spec}"
        );
        assert!(
            finding.message.ends_with("valid, not enforced yet"),
            "{finding}"
        );
    }
    for spec in [
        &source("{principals: [a]}"),
        &source("{requestPrincipals: [a], notRequestPrincipals: [b]}"),
        "{rules: [{when: [{key: 'request.auth.claims[a]', values: [b]}]}]}",
    ] {
        let loaded = load_for_enforcement(&[policy_text("", spec)], "default");
        assert_eq!(
            loaded.map(|loaded| loaded.authorization_policies.len()),
            Ok(1),
            "{spec}"
        );
    }
}

#[test]
fn all_errors_come_at_once_in_the_order_of_reading() {
    let text = "{action: DENNY, rules: [{to: [{operation: {ports: ['x', '70000'], path: [/a]}}]}]}";
    let found: Vec<String> = load(text)
        .findings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        found,
        [
            "ap.yaml:4:16: `DENNY` is no action\n  hint: did you mean `DENY`?",
            "ap.yaml:4:58: `x` in `ports` is no port\n  hint: write a number from 0 to 65535",
            "ap.yaml:4:63: `70000` in `ports` is no port\n  hint: write a number from 0 to 65535",
            "ap.yaml:4:73: unknown field `path` in `operation`\n  hint: did you mean `paths`?",
        ]
    );
}
