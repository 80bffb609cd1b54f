use proptest::prelude::*;

use super::*;

const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: p\nspec:\n  rules:\n  - {}\n";
const PEER: &str = "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata: {name: d, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";

fn text(text: &str) -> Text {
    Text {
        name: Arc::from("f.yaml"),
        text: text.to_owned(),
    }
}

fn run(content: &str) -> Loaded {
    validate(&[text(content)], "fallback")
}

fn messages(content: &str) -> Vec<String> {
    run(content)
        .findings
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn resource(api_version: &str, kind: &str) -> String {
    format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{}}\n")
}

#[test]
fn documents_of_all_texts_are_read_in_order() {
    let first = format!("# head\n---\n{POLICY}---\n\n---\n{PEER}...\n");
    let second = POLICY
        .replace("name: p", "name: q, namespace: other")
        .replace(
            "metadata:\n  name: q, namespace: other",
            "metadata: {name: q, namespace: other}",
        );
    let loaded = validate(&[text(&first), text(&second)], "fallback");
    assert_eq!(loaded.findings, []);
    let names: Vec<_> = loaded
        .authorization_policies
        .iter()
        .map(|p| (p.meta.name.as_str(), p.meta.namespace.as_str()))
        .collect();
    assert_eq!(names, [("p", "fallback"), ("q", "other")]);
    assert_eq!(loaded.peer_authentications.len(), 1);
    let origin = &loaded.peer_authentications[0].meta.origin;
    assert_eq!(origin.to_string(), "f.yaml:13:1");
}

#[test]
fn json_and_lists_hold_resources_too() {
    let policy = r#"{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "p"}, "spec": {}}"#;
    for list in [
        policy.to_owned(),
        format!(
            r#"{{"apiVersion": "v1", "kind": "List", "metadata": {{"resourceVersion": ""}}, "items": [{policy}]}}"#
        ),
        format!(
            r#"{{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicyList", "items": [{policy}]}}"#
        ),
    ] {
        let loaded = run(&list);
        assert_eq!(
            (loaded.findings.len(), loaded.authorization_policies.len()),
            (0, 1),
            "{list}"
        );
    }
}

#[test]
fn metadata_is_read_and_what_the_server_wrote_is_dropped() {
    let loaded = run(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: p\n  namespace: shop\n  creationTimestamp: 2026-01-02T03:04:05Z\n  labels: {a: b}\n  annotations: {c.d/e: 'f g'}\n  \
         uid: x\n  resourceVersion: '1'\n  generation: 3\n  managedFields: [{manager: m}]\n  ownerReferences: []\n  finalizers: [f]\nspec: {}\nstatus: {conditions: []}\n",
    );
    assert_eq!(loaded.findings, []);
    let meta = &loaded.peer_authentications[0].meta;
    assert_eq!(
        (meta.created, &meta.labels["a"], &meta.annotations["c.d/e"]),
        (1_767_323_045, &"b".to_owned(), &"f g".to_owned())
    );
    let null = run(&POLICY.replace("name: p", "name: p\n  creationTimestamp: null"));
    assert_eq!(
        (
            null.findings.len(),
            null.authorization_policies[0].meta.created
        ),
        (0, 0)
    );
}

#[test]
fn wrong_metadata_is_reported_field_by_field() {
    let found = messages(&POLICY.replace("name: p", "name: P_\n  namespace: a.b\n  creationTimestamp: today\n  labels: {a: 1, 'b c': 'd e'}\n  annotations: {a: true}\n  nmae: x"));
    assert_eq!(found.len(), 8, "{found:#?}");
    for wrong in ["metadata: {}\n", "metadata: []\n", "metadata: {name: ''}\n"] {
        assert_eq!(
            messages(&POLICY.replace("metadata:\n  name: p\n", wrong)).len(),
            1,
            "{wrong}"
        );
    }
    assert_eq!(
        messages(&POLICY.replace("metadata:\n  name: p\n", "")).len(),
        1
    );
}

#[test]
fn a_resource_has_no_fields_of_its_own() {
    let found = messages(&format!("{POLICY}rules: []\n"));
    assert_eq!(
        found,
        [
            "f.yaml:8:1: unknown field `rules` in `AuthorizationPolicy`\n  hint: `AuthorizationPolicy` has apiVersion, kind, spec, status, metadata"
        ]
    );
}

#[test]
fn security_kinds_are_never_skipped() {
    for (api_version, kind) in [
        ("security.istio.io/v2", "AuthorizationPolicy"),
        ("security.istio.io/v1alpha1", "PeerAuthentication"),
        ("security.istio.io/v1", "AuthorisationPolicy"),
        ("security.istio.io/v1", "Policy"),
        ("v1", "AuthorizationPolicy"),
        ("v1", "authorizationpolicy"),
        ("security.istio.oi/v1", "AuthorizationPolicy"),
        ("example.com/v1", "PeerAuthentication"),
        ("security.istio.io", "PeerAuthentication"),
        ("v1", "MeshPolicy"),
        ("networking.istio.io/v1", "NoSuchKind"),
        ("networking.itsio.io/v1", "Sidecar"),
    ] {
        let loaded = run(&resource(api_version, kind));
        let invalid = loaded
            .findings
            .iter()
            .filter(|finding| finding.cause == Cause::Invalid)
            .count();
        assert_eq!(
            (invalid, loaded.findings.len()),
            (1, 1),
            "{api_version} {kind}: {:?}",
            loaded.findings
        );
    }
}

#[test]
fn kinds_that_are_not_read_yet_are_judged_by_nobody_and_refuse_a_load() {
    for (api_version, kind) in [
        ("networking.istio.io/v1alpha3", "EnvoyFilter"),
        ("networking.istio.io/v1", "DestinationRule"),
        ("gateway.networking.k8s.io/v1", "Gateway"),
        ("telemetry.istio.io/v1", "Telemetry"),
        ("authentication.istio.io/v1alpha1", "MeshPolicy"),
        ("rbac.istio.io/v1alpha1", "ServiceRole"),
    ] {
        let content = resource(api_version, kind);
        assert!(
            matches!(run(&content).findings.as_slice(), [one] if one.cause == Cause::NotJudged && one.is_error()),
            "{kind}"
        );
        let refused = load_for_enforcement(&[text(&content)], "d").expect_err("it is not enforced");
        assert!(
            matches!(refused.findings.as_slice(), [one] if one.cause == Cause::NotEnforced),
            "{kind}: {refused}"
        );
    }
}

#[test]
fn kinds_of_others_are_skipped_with_one_warning_each() {
    let others = [
        "v1/Service",
        "v1/ConfigMap",
        "apps/v1/Deployment",
        "policy/v1/PodDisruptionBudget",
    ];
    let content: Vec<String> = others
        .iter()
        .filter_map(|name| name.rsplit_once('/'))
        .map(|(version, kind)| resource(version, kind))
        .collect();
    let loaded =
        load_for_enforcement(&[text(&content.join("---\n"))], "d").expect("nothing is wrong");
    assert_eq!(loaded.findings.len(), others.len());
    assert_eq!(
        loaded.findings[2].to_string(),
        "f.yaml:11:1: warning: Deployment of `apps/v1` is skipped\n  hint: nothing here reads this kind; move it to a file of its own"
    );
}

#[test]
fn what_is_no_resource_is_an_error() {
    for content in [
        "hello",
        "[]",
        "a: b",
        "kind: X",
        "apiVersion: v1",
        "apiVersion: 1\nkind: Y",
        "mesh: {}\nother: 1",
        "apiVersion: v1\nkind: List\nitems: 1",
        "apiVersion: v1\nkind: List\nitems: [1]",
    ] {
        assert_eq!(
            messages(content).len(),
            1,
            "{content}: {:?}",
            messages(content)
        );
    }
    assert_eq!(run("# nothing\n---\n---\n"), Loaded::default());
}

#[test]
fn one_error_loads_nothing() {
    let bad = POLICY
        .replace("- {}", "- {form: []}")
        .replace("name: p", "name: bad");
    assert!(load_for_enforcement(&[text(POLICY), text(&bad)], "d").is_err());
    let loaded = validate(&[text(POLICY), text(&bad)], "d");
    assert_eq!(loaded.authorization_policies.len(), 1);
}

#[test]
fn a_document_that_cannot_be_read_does_not_hide_its_neighbours() {
    let loaded = run(&format!("a: b: c\n---\n{POLICY}---\n\"\n---\n{PEER}"));
    let places: Vec<_> = loaded
        .findings
        .iter()
        .map(|finding| (finding.origin.line, finding.origin.column))
        .collect();
    assert_eq!(places, [(1, 5), (11, 1)]);
    assert_eq!(
        (
            loaded.authorization_policies.len(),
            loaded.peer_authentications.len()
        ),
        (1, 1)
    );
}

#[test]
fn a_name_that_comes_twice_is_an_error() {
    let found = messages(&format!("{POLICY}---\n{POLICY}"));
    assert_eq!(
        found,
        [
            "f.yaml:9:1: AuthorizationPolicy `fallback/p` is here twice\n  hint: the first is at f.yaml:1:1"
        ]
    );
    assert_eq!(
        messages(&format!(
            "{POLICY}---\n{}",
            POLICY.replace("name: p", "name: p\n  namespace: b")
        )),
        [""; 0]
    );
}

#[test]
fn a_key_that_comes_twice_is_an_error_and_its_resource_is_left_out() {
    let loaded = run(&format!("{POLICY}spec: {{}}\n"));
    assert_eq!(
        loaded
            .findings
            .iter()
            .map(|f| f.origin.line)
            .collect::<Vec<_>>(),
        [8]
    );
    assert_eq!(loaded.authorization_policies, []);
}

#[test]
fn dry_run_belongs_to_authorization_policies() {
    for kind in ["PeerAuthentication", "RequestAuthentication"] {
        let content = resource("security.istio.io/v1", kind).replace(
            "name: x",
            "name: x, annotations: {istio.io/dry-run: 'false'}",
        );
        assert_eq!(
            run(&content)
                .findings
                .iter()
                .filter(|f| f.cause == Cause::Invalid)
                .count(),
            1,
            "{kind}"
        );
    }
}

#[test]
fn hostile_texts_yield_one_finding_each() {
    for hostile in [
        "x".repeat(10 << 20),
        "- ".repeat(5 << 20),
        "[".repeat(10_000),
        "a: {".repeat(10_000),
        "\t".repeat(1000) + "a",
        format!("{POLICY}\t- x"),
        "a".repeat(TEXT_MAX + 1),
        "? ".repeat(10_000),
        "&a ".repeat(10_000),
        "\0".to_owned(),
        "\u{feff}\u{feff}: \u{2028}".to_owned(),
    ] {
        let loaded = run(&hostile);
        let begin = hostile.get(..20).unwrap_or(&hostile);
        assert_eq!(loaded.findings.len(), 1, "{begin:?}: {:?}", loaded.findings);
        assert!(
            loaded.has_errors() && loaded.findings[0].origin.line >= 1,
            "{begin:?}"
        );
    }
}

#[test]
fn a_byte_order_mark_and_windows_lines_change_nothing() {
    let loaded = run(&format!("\u{feff}{}", POLICY.replace('\n', "\r\n")));
    assert_eq!(
        (loaded.findings.len(), loaded.authorization_policies.len()),
        (0, 1)
    );
}

const VALID: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop, annotations: {istio.io/dry-run: 'true'}, creationTimestamp: 2026-01-02T03:04:05Z}\nspec:\n  \
selector: {matchLabels: {app: a}}\n  action: DENY\n  rules:\n  - from: [{source: {serviceAccounts: [a/b]}}]\n    to: [{operation: {ports: ['80'], paths: ['/a/{*}']}}]\n    when: [{key: 'request.auth.claims[a]', values: [x]}]\n\
---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\nspec: {selector: {matchLabels: {a: b}}, portLevelMtls: {80: {mode: STRICT}}}\n\
---\nmesh: {trustDomain: td, connectTimeout: 10s, extensionProviders: [{name: a, envoyExtAuthzHttp: {service: s, port: '80'}}]}\n";

#[test]
fn the_text_that_is_damaged_below_is_valid() {
    let loaded = run(VALID);
    assert_eq!(loaded.findings, []);
    assert_eq!(
        (
            loaded.authorization_policies.len(),
            loaded.peer_authentications.len()
        ),
        (1, 1)
    );
}

proptest! {
    #[test]
    fn damaged_resources_never_panic(
        from in 0..VALID.len(),
        cut in 0..=VALID.len(),
        changes in proptest::collection::vec((0..VALID.len(), any::<u8>()), 0..8),
    ) {
        let mut bytes = VALID.as_bytes().to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        let bytes = bytes.get(from..cut).unwrap_or(&bytes);
        let damaged = text(&String::from_utf8_lossy(bytes));
        let valid = validate(std::slice::from_ref(&damaged), "d");
        let enforced = load_for_enforcement(&[damaged], "d");
        prop_assert!(!valid.has_errors() || enforced.is_err(), "what is invalid is never loaded");
    }

    #[test]
    fn swapped_words_never_panic(from in 0..VALID.len(), len in 0usize..40, to in 0..VALID.len()) {
        let piece = VALID.get(from..(from + len).min(VALID.len())).unwrap_or_default();
        let mut swapped = VALID.to_owned();
        swapped.insert_str(to, piece);
        let _ = validate(&[text(&swapped)], "d");
    }
}
