use std::sync::Arc;

use super::*;
use crate::api::load::{Loaded, Text, load_for_enforcement, validate};

const KEYS: &str = r#"'{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}'"#;

fn text(spec: &str) -> Text {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: r, namespace: shop}}\nspec: {spec}\n"
    );
    let name = Arc::from("ra.yaml");
    Text { name, text }
}

fn load(spec: &str) -> Loaded {
    validate(&[text(spec)], "default")
}

/// `{…}` of a rule, besides its issuer.
fn rule(fields: &str) -> String {
    format!("{{jwtRules: [{{issuer: a, {fields}}}]}}")
}

fn accepted(spec: &str) -> RequestAuthentication {
    let loaded = load(spec);
    assert_eq!(loaded.findings, [], "{spec}");
    let policy = loaded.request_authentications.into_iter().next();
    policy.expect("the policy is valid")
}

/// The one finding, with its column in `spec`.
fn finding(spec: &str) -> (bool, String) {
    let loaded = load(spec);
    let [finding] = loaded.findings.as_slice() else {
        panic!("{spec}: {:?}", loaded.findings)
    };
    assert_eq!(
        loaded.request_authentications.len(),
        usize::from(!finding.is_error())
    );
    (finding.is_error(), finding.message.clone())
}

fn refused(spec: &str) -> String {
    let (is_error, message) = finding(spec);
    assert!(is_error, "{spec}: {message}");
    message
}

fn warned(spec: &str) -> String {
    let (is_error, message) = finding(spec);
    assert!(!is_error, "{spec}: {message}");
    message
}

#[test]
fn every_field_is_read() {
    let spec = format!(
        "
  selector:
    matchLabels: {{app: api}}
  jwtRules:
  - issuer: https://issuer.example
    audiences: [one, two]
    jwks: {KEYS}
    fromHeaders:
    - name: x-token
      prefix: 'Token '
    - name: x-bare
    fromParams: [token]
    fromCookies: [session]
    outputPayloadToHeader: x-payload
    outputClaimToHeaders:
    - {{header: x-sub, claim: sub}}
    - {{header: X_Role, claim: realm.role}}
    forwardOriginalToken: true
    timeout: 5s
    spaceDelimitedClaims: [custom]
  - {{issuer: b, jwksUri: 'https://b.example:8443/jwks'}}
  - {{jwks_uri: 'HTTP://b.example/jwks'}}
  - {{issuer: c}}"
    );
    let policy = accepted(&spec);
    let Some(selector) = &policy.selector else {
        panic!("it has a selector")
    };
    assert_eq!(selector.get("app").map(String::as_str), Some("api"));
    assert!(!policy.targets);
    let [first, second, third, fourth] = policy.rules.as_slice() else {
        panic!("it has four rules: {policy:?}")
    };
    assert_eq!(first.issuer, "https://issuer.example");
    assert_eq!(first.audiences, ["one", "two"]);
    assert_eq!(first.keys, KeySource::Inline(KEYS.replace('\'', "")));
    let header = |name: &str, prefix: &str| HeaderLocation {
        name: name.to_owned(),
        prefix: prefix.to_owned(),
    };
    assert_eq!(
        first.from_headers,
        [header("x-token", "Token "), header("x-bare", "")]
    );
    assert_eq!(first.from_params, ["token"]);
    assert_eq!(first.from_cookies, ["session"]);
    assert_eq!(first.output_payload_to_header.as_deref(), Some("x-payload"));
    let claim = |header: &str, claim: &str| ClaimToHeader {
        header: header.to_owned(),
        claim: claim.to_owned(),
    };
    assert_eq!(
        first.output_claims,
        [claim("x-sub", "sub"), claim("X_Role", "realm.role")]
    );
    assert!(first.forward_original_token);
    assert_eq!(first.space_delimited_claims, ["custom"]);
    assert_eq!((first.origin.line, first.origin.column), (8, 5));
    let uri = |uri: &str| KeySource::Uri(uri.to_owned());
    assert_eq!(second.keys, uri("https://b.example:8443/jwks"));
    assert_eq!(
        (third.issuer.as_str(), &third.keys),
        ("", &uri("HTTP://b.example/jwks"))
    );
    assert_eq!(fourth.keys, KeySource::Discovery);
    assert!(!fourth.forward_original_token);
}

/// S-178: an empty list of rules does nothing and is accepted.
#[test]
fn a_policy_without_rules_is_accepted() {
    for spec in ["{}", "{jwtRules: []}", "{selector: {matchLabels: {a: b}}}"] {
        assert_eq!(accepted(spec).rules, [], "{spec}");
    }
}

#[test]
fn keys_in_a_block_of_their_own_are_read() {
    let policy = accepted(
        "\n  jwtRules:\n  - issuer: a\n    jwks: |\n      {\"keys\": [\n        {\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"x\": \"AQAB\"}\n      ]}",
    );
    let KeySource::Inline(text) = &policy.rules[0].keys else {
        panic!("{policy:?}")
    };
    assert!(text.starts_with("{\"keys\": [\n"), "{text}");
}

/// S-5, S-6, S-171.
#[test]
fn targets_are_noted_and_stand_alone() {
    let target = "{kind: Gateway, group: gateway.networking.k8s.io, name: gw}";
    assert!(accepted(&format!("{{targetRef: {target}}}")).targets);
    assert!(accepted(&format!("{{targetRefs: [{target}]}}")).targets);
    for spec in [
        format!("{{targetRef: {target}, selector: {{matchLabels: {{a: b}}}}}}"),
        format!("{{targetRef: {target}, targetRefs: [{target}]}}"),
        format!("{{targetRefs: [{}]}}", [target; 17].join(", ")),
        "{targetRef: {kind: Gateway, group: gateway.networking.k8s.io}}".to_owned(),
        "{targetRef: {kind: Service, name: a, namespace: b}}".to_owned(),
        "{targetRef: {kind: Deployment, group: apps, name: a}}".to_owned(),
        "{selector: {matchLabels: {'': a}}}".to_owned(),
        "{selector: {matchLabels: {a: 'b*'}}}".to_owned(),
    ] {
        refused(&spec);
    }
    warned("{selector: {}}");
}

/// S-178.
#[test]
fn what_istio_refuses_in_a_rule_is_refused() {
    for fields in [
        "audiences: ['']",
        "audiences: [a, '']",
        "audiences: a",
        "audiences: [1]",
        "jwksUri: ftp://x/y",
        "jwksUri: x.example/y",
        "jwksUri: 'file:///keys'",
        "jwks_uri: 'ldap://x'",
        "jwksUri: 'https://x:port/y'",
        "jwksUri: \"https://x/\\ty\"",
        "jwksUri: 7",
        "jwks: garbage",
        "jwks: '{'",
        "jwks: '[]'",
        "jwks: '{}'",
        "jwks: '{\"keys\":1}'",
        "jwks: '{\"keys\":[{}]}'",
        "jwks: {keys: []}",
        "jwksUri: 'https://x/y', jwks_uri: 'https://x/y'",
        "fromHeaders: [{}]",
        "fromHeaders: [{name: ''}]",
        "fromHeaders: [{prefix: x}]",
        "fromHeaders: [{name: a, value: b}]",
        "fromHeaders: [a]",
        "fromHeaders: [{name: a, prefix: 1}]",
        "fromParams: ['']",
        "fromParams: [a, '']",
        "fromCookies: ['']",
        "outputClaimToHeaders: [{header: '', claim: b}]",
        "outputClaimToHeaders: [{header: a, claim: ''}]",
        "outputClaimToHeaders: [{header: a}]",
        "outputClaimToHeaders: [{claim: a}]",
        "outputClaimToHeaders: [{header: 'a b', claim: a}]",
        "outputClaimToHeaders: [{header: 'a.b', claim: a}]",
        "outputClaimToHeaders: [{header: 'x-ä', claim: a}]",
        "outputClaimToHeaders: [{header: ':path', claim: a}]",
        "outputPayloadToHeader: \"a\\nb\"",
        "forwardOriginalToken: 'true'",
        "forwardOriginalToken: 1",
        "timeout: 5",
        "timeout: five",
        "timeout: 0s",
        "timeout: -1s",
        "timeout: 100us",
        "timeout: 1500us",
        "timeout: ''",
        "spaceDelimitedClaims: ['']",
        "presence: REQUIRED",
        "required: true",
        "jwksURI: 'https://x'",
    ] {
        refused(&rule(fields));
    }
    let both = format!("jwks: {KEYS}, jwksUri: 'https://x/y'");
    assert_eq!(
        refused(&rule(&both)),
        "a rule has more than one of `jwks`, `jwksUri` and `jwks_uri`"
    );
    for spec in ["{jwtRules: [{}]}", "{jwtRules: [null]}", "{jwtRules: {}}"] {
        refused(spec);
    }
    refused(&format!("{{jwtRules: [{{jwks: {KEYS}}}]}}"));
    refused(&format!("{{jwtRules: [{{issuer: '', jwks: {KEYS}}}]}}"));
    refused("{jwtRules: [{issuer: ''}]}");
    refused("{jwtRules: [{issuer: 1}]}");
}

#[test]
fn what_istio_accepts_in_a_rule_is_accepted() {
    for fields in [
        "audiences: []",
        "jwksUri: 'http://x'",
        "jwksUri: 'https://[::1]:8443/y?z#f'",
        "timeout: 1ms",
        "timeout: 1h2m3.5s",
        "fromHeaders: []",
        "fromHeaders: [{name: x-a, prefix: ''}]",
        "outputPayloadToHeader: ''",
        "forwardOriginalToken: false",
    ] {
        accepted(&rule(fields));
    }
    accepted("{jwtRules: [{jwksUri: 'https://x/y'}]}");
}

/// S-179, S-229.
#[test]
fn doubtful_keys_are_warned_of_and_named() {
    let jwks = |text: &str| rule(&format!("jwks: '{text}'"));
    assert_eq!(
        warned(&jwks(r#"{"keys":[]}"#)),
        "`jwks` has no key that verifies tokens"
    );
    let private = r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQAB","kid":"k"}]}"#;
    assert_eq!(
        warned(&jwks(private)),
        "in `jwks`, key 1 (`k`) has its private part"
    );
    let garbage = r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"RSA","kid":"bad"}]}"#;
    assert_eq!(
        warned(&jwks(garbage)),
        "in `jwks`, key 2 (`bad`) has no `n`"
    );
    assert_eq!(
        warned(&jwks(r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#)),
        "`jwks` is a key and no set of keys"
    );
    warned("{jwtRules: [{issuer: '', jwksUri: 'https://x/y'}]}");
    warned(&rule("jwks: ''"));
    warned(&rule("fromHeaders: [{name: 'a b'}]"));
}

#[test]
fn limits_are_named() {
    let rules = "{issuer: a}, ".repeat(JWT_RULES_MAX);
    accepted(&format!("{{jwtRules: [{rules}]}}"));
    let found = refused(&format!("{{jwtRules: [{rules}{{issuer: a}}]}}"));
    assert_eq!(found, "`jwtRules` has 4097 items, more than 4096");
    let long = format!("jwks: '{{\"keys\":[]{}}}'", " ".repeat(JWKS_LEN_MAX));
    assert!(refused(&rule(&long)).ends_with("more than 1048576"));
    let long = format!("jwksUri: 'https://x/{}'", "a".repeat(JWKS_URI_LEN_MAX));
    assert!(refused(&rule(&long)).ends_with("more than 2048"));
    let claims = format!("spaceDelimitedClaims: [{}]", ["a"; 65].join(","));
    assert_eq!(
        refused(&rule(&claims)),
        "`spaceDelimitedClaims` has 65 items, more than 64"
    );
}

#[test]
fn a_policy_is_loaded_to_be_enforced() {
    let loaded = load_for_enforcement(&[text(&rule(&format!("jwks: {KEYS}")))], "default");
    assert_eq!(
        loaded.map(|loaded| loaded.request_authentications.len()),
        Ok(1)
    );
    assert!(load_for_enforcement(&[text(&rule("jwks: x"))], "default").is_err());
}
