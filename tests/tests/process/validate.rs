//! `meshward validate`: findings with their places, a line for each file that is valid, exit codes.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::place::Place;

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

#[test]
fn files_that_are_valid_are_named_and_exit_with_0() {
    let place = Place::new();
    place.write("pol/a.yaml", policy("a", "{rules: [{}]}"));
    place.write(
        "pol/below/b.yml",
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: b}\nspec:\n  jwtRules:\n  - issuer: i\n    jwks: |\n      {\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AQAB\"}]}\n",
    );
    place.write(
        "pol/c.json",
        "{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"c\"}}",
    );
    let ran = place.run(&["validate", "-f", "pol"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (
            Some(0),
            "\"pol/a.yaml\" is valid\n\"pol/below/b.yml\" is valid\n\"pol/c.json\" is valid\n",
            ""
        )
    );
}

#[test]
fn every_error_is_said_with_its_place_and_the_exit_code_is_65() {
    let place = Place::new();
    place.write(
        "bad.yaml",
        policy(
            "a",
            "{action: DENNY, rules: [{to: [{operation: {ports: ['x'], path: [/a]}}]}]}",
        ),
    );
    place.write("good.yaml", policy("b", "{rules: [{}]}"));
    let ran = place.run(&["validate", "-f", "bad.yaml", "-f", "good.yaml"]);
    assert_eq!(ran.code, Some(65));
    assert_eq!(ran.stdout, "\"good.yaml\" is valid\n");
    assert_eq!(
        ran.stderr,
        "bad.yaml:4:16: `DENNY` is no action\n  hint: did you mean `DENY`?\n\
         bad.yaml:4:58: `x` in `ports` is no port\n  hint: write a number from 0 to 65535\n\
         bad.yaml:4:64: unknown field `path` in `operation`\n  hint: did you mean `paths`?\n"
    );
}

/// S-176: dry-run is valid on DENY, S-173: so is CUSTOM with its provider.
#[test]
fn what_is_valid_and_not_enforced_is_noted() {
    let place = Place::new();
    let dry_run = policy(
        "b",
        "{action: DENY, rules: [{from: [{source: {principals: [a]}}]}]}",
    )
    .replace(
        "{name: b}",
        "{name: b, annotations: {istio.io/dry-run: 'true'}}",
    );
    let custom = policy("a", "{action: CUSTOM, provider: {name: x}, rules: [{}]}");
    place.write("x.yaml", format!("{custom}---\n{dry_run}"));
    let ran = place.run(&["validate", "-f", "x.yaml"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "\"x.yaml\" is valid\n")
    );
    assert_eq!(
        ran.stderr,
        "x.yaml:4:16: note: action CUSTOM: valid, not enforced yet\n\
         x.yaml:6:1: note: annotation `istio.io/dry-run`: valid, not enforced yet\n"
    );
}

#[test]
fn warnings_and_what_is_skipped_leave_a_file_valid_unless_strict() {
    let place = Place::new();
    place.write("w.yaml", policy("a", "{selector: {}, rules: [{}]}"));
    place.write(
        "s.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n",
    );
    let arguments = ["validate", "-f", "w.yaml", "-f", "s.yaml", "--strict"];
    let ran = place.run(&arguments[..5]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stdout, "\"w.yaml\" is valid\n\"s.yaml\" is valid\n");
    assert!(
        ran.stderr
            .starts_with("w.yaml:4:18: warning: `selector` has no labels\n"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr
            .contains("s.yaml:1:1: warning: Secret of `v1` is skipped\n"),
        "{}",
        ran.stderr
    );
    let ran = place.run(&arguments);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(65), "\"w.yaml\" is valid\n")
    );
}

#[test]
fn a_policy_that_comes_twice_is_one_error_with_both_places() {
    let place = Place::new();
    place.write("a.yaml", policy("a", "{rules: [{}]}"));
    place.write(
        "b.yaml",
        policy(
            "a",
            "{action: DENY, rules: [{from: [{source: {principals: [b]}}]}]}",
        ),
    );
    let ran = place.run(&["validate", "-f", ".", "-n", "shop"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(65), "\"./a.yaml\" is valid\n")
    );
    assert_eq!(
        ran.stderr,
        "./b.yaml:1:1: AuthorizationPolicy `shop/a` is here twice\n  hint: the first is at ./a.yaml:1:1\n"
    );
}

#[test]
fn what_nothing_judges_and_what_cannot_be_read_is_not_called_valid() {
    let place = Place::new();
    place.write(
        "d.yaml",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\n",
    );
    let ran = place.run(&["validate", "-f", "d.yaml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(65), ""));
    assert!(
        ran.stderr.starts_with(
            "d.yaml:1:1: DestinationRule of `networking.istio.io/v1` cannot be judged yet\n"
        ),
        "{}",
        ran.stderr
    );
    let ran = place.run(&["validate", "-f", "none.yaml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(65), ""));
    assert!(
        ran.stderr
            .starts_with("none.yaml: cannot be read: no such file or directory\n"),
        "{}",
        ran.stderr
    );
    place.write("broken.yaml", "a: b: c\n");
    let ran = place.run(&["validate", "-f", "broken.yaml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(65), ""));
    assert!(
        ran.stderr.starts_with("broken.yaml:1:5: "),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_mesh_configuration_is_judged_as_protobuf_json() {
    let place = Place::new();
    let judge = |text: &str| {
        place.write("m.yaml", text);
        place.run(&["validate", "-f", "m.yaml"])
    };
    let ran = judge(
        "mesh: {extensionProviders: [{name: a, envoyExtAuthzHttp: {service: a.b, port: \"8000\"}}]}\n",
    );
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (Some(0), "\"m.yaml\" is valid\n", "")
    );
    let ran = judge("mesh: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}\n");
    assert_eq!(ran.code, Some(0));
    assert_eq!(
        ran.stderr,
        "m.yaml:1:31: note: `outboundTrafficPolicy`: valid, not enforced yet\n"
    );
    let ran = judge("mesh: {trustDomian: a}\n");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(65), ""));
}

#[test]
fn a_hundred_thousand_objects_are_judged_within_a_minute() {
    let place = Place::new();
    let mut text = String::new();
    for i in 0..50_000 {
        writeln!(
            text,
            "---\n{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: a{i}}}}}\n---\n\
             {{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: p{i}}}, spec: {{mtls: {{mode: STRICT}}}}}}"
        )
        .expect("a text can be written to");
    }
    place.write("many.yaml", text);
    let start = Instant::now();
    let ran = place.run(&["validate", "-f", "many.yaml"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_text_or_document_beyond_its_limit_is_one_error_that_names_it() {
    let place = Place::new();
    for (text, says) in [
        (
            format!("a: {}\n", "b".repeat(4 * 1024 * 1024)),
            "big.yaml:1:1: the document has 4194308 bytes, more than 3145728\n",
        ),
        (
            "---\n# nothing\n".repeat(1_300_000),
            "big.yaml:1:1: the text has 18200000 bytes, more than 16777216\n",
        ),
        (
            policy("a", &format!("{}{}", "[".repeat(5000), "]".repeat(5000))),
            "nested deeper than 64 levels\n",
        ),
    ] {
        place.write("big.yaml", text);
        let ran = place.run(&["validate", "-f", "big.yaml"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(65), ""));
        assert!(ran.stderr.contains(says), "{}", ran.stderr);
        let errors = ran
            .stderr
            .lines()
            .filter(|line| line.starts_with("big.yaml:"));
        assert_eq!(errors.count(), 1, "{}", ran.stderr);
    }
}

#[test]
fn a_policy_of_a_megabyte_is_judged() {
    let place = Place::new();
    let mut spec = "{rules: [{from: [{source: {principals: [a".to_owned();
    for i in 0..40_000 {
        write!(spec, ", cluster.local/ns/a/sa/b{i}").expect("a text can be written to");
    }
    spec.push_str("]}}]}]}");
    assert!(spec.len() > 1024 * 1024);
    place.write("big.yaml", policy("a", &spec));
    let ran = place.run(&["validate", "-f", "big.yaml"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(ran.stdout, "\"big.yaml\" is valid\n");
}

/// S-178, S-229: garbage keys are named and passed over, and a set of nothing else is said to refuse every token.
#[test]
fn keys_of_garbage_are_warnings_that_name_them() {
    let place = Place::new();
    let jwks = |keys: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: r}}\nspec: {{jwtRules: [{{issuer: i, jwks: '{keys}'}}]}}\n"
        )
    };
    place.write(
        "r.yaml",
        jwks(r#"{"keys":[{"kty":"RSA","n":"!","e":"AQAB","kid":"k"},{"kty":"?"}]}"#),
    );
    let ran = place.run(&["validate", "-f", "r.yaml"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "\"r.yaml\" is valid\n")
    );
    let lines: Vec<&str> = ran.stderr.lines().step_by(2).collect();
    assert_eq!(
        lines,
        [
            "r.yaml:4:37: warning: in `jwks`, key 1 (`k`) has a `n` that is no base64url",
            "r.yaml:4:37: warning: in `jwks`, key 2 is of the type `?`, which verifies no token",
            "r.yaml:4:37: warning: `jwks` has no key that verifies tokens",
        ]
    );
    place.write("r.yaml", jwks("garbage"));
    let ran = place.run(&["validate", "-f", "r.yaml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(65), ""));
}
