use meshward_core::api::load::yaml;
use meshward_simulator::clock::BIRTH;

use super::super::keys::Keys;
use super::*;

/// What a check of this kind answers.
fn ask(kind: &str, given: &str) -> Json {
    let document = yaml::parse(given).expect("YAML");
    let root = document.root.expect("a check");
    let mut fields = Fields::of(&root, "a check").expect("a map");
    let question = Question::read(kind, &mut fields).expect("a check of this kind");
    fields.end().expect("nothing is left");
    let question = question.expect("a kind that is run");
    let found = question.answer(&mut Makers {
        authorities: Authorities::new(BIRTH),
        keys: Keys::default(),
    });
    let found = found.expect("an answer");
    for name in found.keys() {
        assert!(question.expectations().contains(name), "{kind}: {name}");
    }
    json!(found)
}

/// The answer's only field.
fn only(kind: &str, given: &str) -> Json {
    match ask(kind, given) {
        Json::Object(found) if found.len() == 1 => found.into_iter().next().expect("a field").1,
        more => panic!("{given}: {more}"),
    }
}

#[test]
fn every_kind_of_pattern_is_asked() {
    for (words, matches) in [
        ("as: string, pattern: 'a*', value: ab", true),
        ("as: header, pattern: '*', value: ''", true),
        ("as: string, pattern: '*', value: ''", false),
        ("as: host, pattern: A.example, value: a.EXAMPLE", true),
        ("as: path, pattern: '/a/{*}', value: '/a/b?c'", true),
        (
            "as: principal, pattern: 'td/*', value: 'spiffe://td/ns/a/sa/b'",
            true,
        ),
        ("as: principal, pattern: '*', value: null", false),
        (
            "as: namespace, pattern: a, value: 'spiffe://td/ns/a/sa/b'",
            true,
        ),
        (
            "as: service_account, pattern: b, value: 'spiffe://td/ns/a/sa/b', policy_namespace: a",
            true,
        ),
        (
            "as: service_account, pattern: b, value: 'spiffe://td/ns/a/sa/b', policy_namespace: c",
            false,
        ),
        (
            "as: trust_domain, pattern: td, value: 'spiffe://td/ns/a/sa/b'",
            true,
        ),
    ] {
        assert_eq!(
            only("string_match", &format!("{{{words}}}")),
            matches,
            "{words}"
        );
    }
}

#[test]
fn request_principals_are_asked_of_claims_that_are_texts() {
    let ask = |pattern: &str, claims: &str| {
        only(
            "request_principal",
            &format!("{{pattern: '{pattern}', claims: {claims}}}"),
        )
    };
    assert_eq!(ask("i/s", "{iss: i, sub: s}"), true);
    assert_eq!(ask("*", "{iss: i, sub: s}"), true);
    for claims in [
        "{iss: i}",
        "{sub: s}",
        "{iss: i, sub: 7}",
        "{iss: i, sub: [s]}",
    ] {
        assert_eq!(ask("*", claims), false, "{claims}");
    }
}

#[test]
fn targets_are_refused_or_normalised() {
    let ask =
        |mode: &str, path: &str| ask("normalize", &format!("{{mode: {mode}, path: '{path}'}}"));
    assert_eq!(ask("NONE", "/a/../b#c"), json!({"path": "/a/../b"}));
    assert_eq!(ask("BASE", "/a/../b"), json!({"path": "/b"}));
    assert_eq!(ask("BASE", "http://h/a/../p"), json!({"path": "/p"}));
    assert_eq!(ask("MERGE_SLASHES", "/a//b"), json!({"path": "/a/b"}));
    assert_eq!(
        ask("DECODE_AND_MERGE_SLASHES", "/a%2fb"),
        json!({"path": "/a/b"})
    );
    for refused in ["a", "*", "", "/a b", "/ä"] {
        assert_eq!(ask("NONE", refused), json!({"status": 400}), "{refused}");
    }
    assert_eq!(ask("BASE", "/a%00"), json!({"status": 400}));
}

#[test]
fn identities_are_read_and_built() {
    let read = |uri: &str| ask("istio_identity", &format!("{{uri: '{uri}'}}"));
    assert_eq!(
        read("spiffe://td/ns/a/sa/b"),
        json!({
            "trust_domain": "td",
            "namespace": "a",
            "service_account": "b",
            "principal": "td/ns/a/sa/b",
        })
    );
    for wrong in [
        "spiffe://td/ns/a/sa/b/c",
        "spiffe://td/a",
        "https://td/ns/a/sa/b",
        "",
    ] {
        assert_eq!(read(wrong), json!({"error": true}), "{wrong}");
    }
    let build = |rest: &str| {
        ask(
            "istio_identity_build",
            &format!("{{trust_domain: td@x, namespace: a{rest}}}"),
        )
    };
    assert_eq!(
        build(", service_account: b"),
        json!({"id": "spiffe://td.x/ns/a/sa/b"})
    );
    assert_eq!(build(""), json!({"id": "spiffe://td.x/ns/a/sa/default"}));
    assert_eq!(build(", service_account: ''"), json!({"error": true}));
    let long = |td: u32, path: u32| {
        ask("spiffe_id", &format!("{{td_len: {td}, path_len: {path}}}"))["valid"].clone()
    };
    assert_eq!((long(255, 1), long(256, 1)), (json!(true), json!(false)));
    assert_eq!(
        ask("spiffe_id", "uri: 'SPIFFE://TD/A'"),
        json!({"valid": true, "canonical": "spiffe://td/A"})
    );
}

#[test]
fn certificates_and_bundles_are_judged() {
    assert_eq!(only("x509_svid", "cert: {uris: ['spiffe://td/a']}"), true);
    assert_eq!(only("x509_svid", "cert: {uris: ['spiffe://td']}"), false);
    let signs =
        "cert: {uris: [], is_ca: true, key_usage: [keyCertSign], eku: null, subject: 'O=x'}";
    assert_eq!(only("x509_ca", signs), true);
    assert_eq!(only("x509_svid", signs), false);
    let keys = "keys: [{use: x509-svid, kty: EC, x5c: 2}, {use: x509-svid, kty: RSA, x5c: 1}, {use: jwt-svid, kty: EC}]";
    assert_eq!(only("bundle", keys), 2);
    assert_eq!(only("bundle", "keys: []"), 0);
}

#[test]
fn clients_are_found_behind_proxies() {
    let ask = |role: &str, proxies: u32, xff: &str| {
        only(
            "remote_ip",
            &format!(
                "{{role: {role}, num_trusted_proxies: {proxies}, peer: 10.0.0.1, xff: '{xff}'}}"
            ),
        )
    };
    assert_eq!(ask("gateway", 0, "1.1.1.1"), "10.0.0.1");
    assert_eq!(ask("gateway", 2, "1.1.1.1, 2.2.2.2"), "1.1.1.1");
    assert_eq!(ask("sidecar", 0, "1.1.1.1, 2.2.2.2"), "2.2.2.2");
    assert_eq!(ask("sidecar", 0, ""), "10.0.0.1");
}

#[test]
fn lines_are_written() {
    assert_eq!(
        only(
            "rbac_log_line",
            "{engine: enforced, result: denied, policy: null}"
        ),
        "enforced denied, matched policy none"
    );
    let rbac = "{engine: shadow, result: allowed, policy: none}";
    assert_eq!(
        only("rbac_log_line", rbac),
        "shadow allowed, matched policy none"
    );
    assert_eq!(
        only("details", "policy_id: a b"),
        "rbac_access_denied_matched_policy[a_b]"
    );
    let line = "given: {start_time: '2026-01-02T03:04:05.678Z', response_code: 0, response_flags: 'UF,URX', \
                duration: 7, method: null, upstream_host: '10.0.0.1:80'}";
    assert_eq!(
        only("access_log_line", line),
        "[2026-01-02T03:04:05.678Z] \"- - -\" 0 UF,URX - - \"-\" 0 0 7 - \"-\" \"-\" \"-\" \"-\" \"10.0.0.1:80\" - - - - - -"
    );
}

#[test]
fn client_certificates_are_told_apart() {
    assert_eq!(
        only("xfcc_parse", "value: 'By=a;URI=b;URI=c,Hash=d'"),
        json!([{"By": "a", "URI": ["b", "c"]}, {"Hash": "d"}])
    );
    assert_eq!(ask("xfcc_parse", "value: 'By'"), json!({"error": true}));
    let one = json!([{"DNS": "d"}]);
    assert!(elements_fit(&json!([{"DNS": ["d"]}]), &one) && elements_fit(&one, &one));
    assert!(!elements_fit(&json!([{"DNS": ["d", "d"]}]), &one));
    assert!(!elements_fit(&json!({"DNS": "d"}), &one));
}

#[test]
fn principals_are_written_out_for_aliases() {
    assert_eq!(
        only(
            "expand_principals",
            "{trust_domains: [b, a], principals: [a/ns/x/sa/y]}"
        ),
        json!(["b/ns/x/sa/y", "a/ns/x/sa/y"])
    );
}

#[test]
fn resources_are_judged_with_what_stands_in_them() {
    let judge = |spec: &str| {
        let yaml = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a}}\nspec: {spec}\n"
        );
        ask("validate", &format!("yaml: {}", Json::from(yaml)))
    };
    let [good, bad, doubtful] = [
        "{rules: [{}]}",
        "{rules: [{form: []}]}",
        "{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}",
    ];
    assert_eq!(judge(good), json!({"accepted": true, "warning": false}));
    assert_eq!(judge(bad), json!({"accepted": false, "warning": false}));
    assert_eq!(judge(doubtful), json!({"accepted": true, "warning": true}));
    let port = |port: &str| {
        judge(&format!(
            "{{rules: [{{to: [{{operation: {{hosts: ['${{JWKS:}}'], ports: [{port}]}}}}]}}]}}"
        ))
    };
    assert_eq!(port("'80'"), json!({"accepted": true, "warning": false}));
    assert_eq!(
        port("80"),
        json!({"accepted": false, "warning": false}),
        "a number stays one"
    );
}

#[test]
fn a_kind_that_nothing_judges_is_named() {
    let yaml =
        "yaml: \"apiVersion: networking.istio.io/v1\\nkind: Gateway\\nmetadata: {name: a}\\n\"";
    let document = yaml::parse(yaml).expect("YAML");
    let root = document.root.expect("a check");
    let mut fields = Fields::of(&root, "a check").expect("a map");
    let question = Question::read("validate", &mut fields).expect("a check");
    assert_eq!(
        question.as_ref().and_then(Question::unjudged),
        Some("Gateway")
    );
}
