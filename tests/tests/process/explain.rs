//! `meshward explain`: on files, and on a mesh that runs, where curl has to see the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::meshes::{Mesh, STRICT, pod, service, shop};
use crate::place::{App, Place, Ran, until};

const VIEWERS: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
    metadata: {name: viewers, namespace: istioinaction}\nspec:\n  selector: {matchLabels: {app: catalog}}\n  rules:\n\
    \x20 - from:\n    - source: {principals: [cluster.local/ns/istioinaction/sa/webapp]}\n\
    \x20   to:\n    - operation: {methods: [GET]}\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn istio_in_action() -> String {
    root()
        .join("examples/istio-in-action")
        .display()
        .to_string()
}

/// On the files of the example and those of the place.
fn on_files(place: &Place, arguments: &[&str]) -> Ran {
    let example = istio_in_action();
    let fixed = ["explain", "-f", &example, "-f", "policies"];
    place.run(&[&fixed, arguments].concat())
}

fn json(ran: &Ran) -> Value {
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let account = serde_json::from_str(&ran.stdout).expect("JSON");
    let schema = fs::read_to_string(root().join("docs/explain.schema.json")).expect("a schema");
    let schema = serde_json::from_str(&schema).expect("JSON");
    if let Err(message) = conforms(&account, &schema, &schema, "account") {
        panic!("{message}\n{account:#}");
    }
    account
}

/// Holds `value` against a schema, of which every word has to be one that is understood here.
fn conforms(value: &Value, schema: &Value, all: &Value, at: &str) -> Result<(), String> {
    let words = schema
        .as_object()
        .ok_or_else(|| format!("{at}: no schema"))?;
    for (word, argument) in words {
        let fits = match word.as_str() {
            "$schema" | "$defs" | "title" | "description" | "properties" => true,
            "$ref" => {
                let path = argument.as_str().and_then(|path| path.strip_prefix('#'));
                let named = path.and_then(|path| all.pointer(path));
                let named = named.ok_or_else(|| format!("{at}: {argument} leads nowhere"))?;
                return conforms(value, named, all, at);
            }
            "oneOf" => {
                let any = argument.as_array().expect("a list");
                let fitting = any
                    .iter()
                    .filter(|one| conforms(value, one, all, at).is_ok());
                match fitting.count() {
                    1 => true,
                    _ => match any.first() {
                        Some(first) if !value.is_null() => return conforms(value, first, all, at),
                        _ => false,
                    },
                }
            }
            "type" => match argument {
                Value::Array(types) => types.iter().any(|name| is_of(value, name)),
                name => is_of(value, name),
            },
            "enum" => argument.as_array().is_some_and(|any| any.contains(value)),
            "minimum" => value.as_u64() >= argument.as_u64(),
            "maximum" => value.as_u64() <= argument.as_u64(),
            "required" => argument.as_array().is_some_and(|names| {
                names
                    .iter()
                    .all(|n| n.as_str().is_some_and(|n| value.get(n).is_some()))
            }),
            "additionalProperties" => {
                assert_eq!(argument, &Value::Bool(false));
                let known = schema["properties"].as_object().expect("properties");
                for (name, field) in value.as_object().into_iter().flatten() {
                    let place = format!("{at}.{name}");
                    let of = known
                        .get(name)
                        .ok_or_else(|| format!("{place}: not in the schema"))?;
                    conforms(field, of, all, &place)?;
                }
                true
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    conforms(item, argument, all, &format!("{at}[{n}]"))?;
                }
                true
            }
            other => return Err(format!("{at}: `{other}` is not understood here")),
        };
        if !fits {
            return Err(format!("{at}: {value} does not satisfy {word} {argument}"));
        }
    }
    Ok(())
}

fn is_of(value: &Value, name: &Value) -> bool {
    match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64(),
        Some("null") => value.is_null(),
        _ => false,
    }
}

#[test]
fn the_check_of_the_schema_finds_what_is_wrong() {
    let schema = serde_json::json!({
        "type": "object", "additionalProperties": false, "required": ["a"],
        "properties": {"a": {"enum": ["x"]}, "b": {"oneOf": [{"type": "integer", "maximum": 3}, {"type": "null"}]}},
    });
    let holds = |value: Value| conforms(&value, &schema, &schema, "it").is_ok();
    assert!(holds(serde_json::json!({"a": "x", "b": 3})));
    assert!(holds(serde_json::json!({"a": "x", "b": null})));
    for wrong in [
        serde_json::json!({"b": 1}),
        serde_json::json!({"a": "y"}),
        serde_json::json!({"a": "x", "b": 4}),
        serde_json::json!({"a": "x", "b": "3"}),
        serde_json::json!({"a": "x", "c": 1}),
        serde_json::json!([]),
    ] {
        assert!(!holds(wrong.clone()), "{wrong}");
    }
}

#[test]
fn the_verdict_and_what_came_nearest_are_read_from_files() {
    let place = Place::new();
    place.write("policies/viewers.yaml", VIEWERS);
    place.write("policies/strict.yaml", STRICT);
    let ran = on_files(
        &place,
        &[
            "--from",
            "deploy/webapp.istioinaction",
            "--to",
            "catalog",
            "DELETE",
            "/items/1",
        ],
    );
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = ran.stdout.lines().map(str::trim).collect();
    assert_eq!(lines[0], "403  RBAC: access denied");
    for line in [
        "because     ALLOW policies are in force and no rule of theirs matches; nearest: ns[istioinaction]-policy[viewers]-rule[0] at policies/viewers.yaml:7",
        "methods [GET] against `DELETE`",
        "mode        STRICT by PeerAuthentication istio-system/default  policies/strict.yaml:1",
        "log         403 - rbac_access_denied_matched_policy[none] inbound|3000||",
    ] {
        assert!(lines.contains(&line), "no `{line}` in\n{}", ran.stdout);
    }
}

#[test]
fn every_account_follows_the_published_schema() {
    let place = Place::new();
    place.write("policies/viewers.yaml", VIEWERS);
    place.write("policies/strict.yaml", STRICT);
    for (from, to, method, path, status, by) in [
        (
            "sleep",
            "catalog.istioinaction",
            "GET",
            "/items",
            0,
            "nobody",
        ),
        (
            "sleep-injected",
            "catalog.istioinaction",
            "GET",
            "/items",
            403,
            "server-sidecar",
        ),
        (
            "webapp.istioinaction",
            "catalog",
            "GET",
            "/items",
            200,
            "application",
        ),
        (
            "webapp.istioinaction",
            "catalog:81",
            "GET",
            "/items",
            0,
            "nobody",
        ),
        (
            "webapp.istioinaction",
            "docs:443",
            "GET",
            "/",
            200,
            "application",
        ),
        (
            "webapp.istioinaction",
            "docs-on-the-way:443",
            "GET",
            "/",
            0,
            "nobody",
        ),
        (
            "webapp.istioinaction",
            "catalog",
            "OPTIONS",
            "*",
            404,
            "client-sidecar",
        ),
        (
            "sleep-injected",
            "webapp.istioinaction",
            "GET",
            "/%00",
            400,
            "client-sidecar",
        ),
    ] {
        let account = json(&on_files(
            &place,
            &["--from", from, "--to", to, "-o", "json", method, path],
        ));
        let verdict = &account["verdict"];
        let got = (verdict["status"].as_u64(), verdict["by"].as_str());
        assert_eq!(got, (Some(status), Some(by)), "{from} to {to}: {account:#}");
    }
}

#[test]
fn another_status_than_the_expected_one_is_a_failure() {
    let place = Place::new();
    place.write("policies/strict.yaml", STRICT);
    let ask = |expected| {
        let words = [
            "--from",
            "sleep",
            "--to",
            "webapp.istioinaction",
            "GET",
            "/",
            "--expect",
            expected,
        ];
        on_files(&place, &words)
    };
    assert_eq!(ask("000").code, Some(0));
    let ran = ask("200");
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        ran.stderr,
        "error: 200 was expected, the answer would be 000\n"
    );
    assert!(
        ran.stdout.starts_with("000  "),
        "the account is printed all the same"
    );
    assert_eq!(ask("2000").code, Some(64));
}

#[test]
fn a_question_that_cannot_be_asked_says_why() {
    let place = Place::new();
    place.write("policies/strict.yaml", STRICT);
    let refuses = |arguments: &[&str], code: i32, stderr: &str| {
        on_files(&place, arguments).refuses(code, stderr);
    };
    let ran = on_files(
        &place,
        &[
            "--from",
            "deploy/webap.istioinaction",
            "--to",
            "catalog",
            "GET",
            "/",
        ],
    );
    let nearest =
        "error: no workload `deploy/webap.istioinaction`; nearest: deploy/webapp.istioinaction, ";
    assert!(ran.stderr.starts_with(nearest), "{}", ran.stderr);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(65), ""));
    refuses(
        &["--from", "sleep", "--to", "catalog", "GET", "/"],
        65,
        "error: no service or pod `catalog`, as seen from namespace `default`; nearest: catalog.istioinaction, \
         webapp.istioinaction, docs.istioinaction, docs-on-the-way.istioinaction\n",
    );
    refuses(
        &[
            "--from",
            "sleep",
            "--to",
            "webapp.istioinaction",
            "GET",
            "/",
            "-H",
            "x y: hidden",
        ],
        64,
        "error: `x y` is no header; write NAME: VALUE\n",
    );
    let ran = place.run(&[
        "explain",
        "--from",
        "a",
        "--to",
        "b",
        "GET",
        "/",
        "-f",
        "none.yaml",
    ]);
    assert_eq!(ran.code, Some(65));
    let ran = place.run(&["explain", "--from", "a", "--to", "b", "GET", "/"]);
    assert_eq!(ran.code, Some(1), "no mesh runs: {}", ran.stderr);
}

#[test]
fn a_token_is_never_printed_back() {
    let place = Place::new();
    place.write("policies/viewers.yaml", VIEWERS);
    place.write("token", "eyJhbGciOiJub25lIn0.c2VjcmV0.c2ln\n");
    for (token, output) in [
        ("eyJhbGciOiJub25lIn0.c2VjcmV0.c2ln", "text"),
        ("@token", "json"),
    ] {
        let words = [
            "--from",
            "sleep",
            "--to",
            "webapp.istioinaction",
            "GET",
            "/",
        ];
        let more = ["--token", token, "-o", output];
        let ran = on_files(&place, &[&words[..], &more].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(ran.stdout.contains("authorization"), "{}", ran.stdout);
        assert!(!ran.stdout.contains("c2VjcmV0"), "{}", ran.stdout);
    }
    let words = [
        "--from",
        "sleep",
        "--to",
        "webapp.istioinaction",
        "GET",
        "/",
    ];
    let ran = on_files(&place, &[&words[..], &["--token", "@nothing"]].concat());
    assert_eq!(ran.code, Some(65), "{}", ran.stderr);
}

/// Policies of one step, and what each of the calls comes to.
const STEPS: &[(&str, &str)] = &[
    ("no policy", ""),
    ("STRICT", STRICT),
    (
        "ALLOW, so that the rest is denied",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: one, namespace: shop}\n\
         spec: {rules: [{from: [{source: {namespaces: [shop]}}], to: [{operation: {methods: [GET], paths: [\"/open*\"]}}]}]}\n",
    ),
    (
        "DENY of everybody else than shop, who is anybody on plaintext",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: one, namespace: shop}\n\
         spec: {action: DENY, rules: [{from: [{source: {notNamespaces: [shop]}}]}]}\n",
    ),
    (
        "a port of the service in the place of the workload's",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: one, namespace: shop}\n\
         spec: {rules: [{to: [{operation: {ports: [\"80\"]}}]}]}\n",
    ),
    (
        "one workload disables what the mesh demands",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: istio-system}\n\
         spec: {mtls: {mode: STRICT}}\n---\n\
         apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: web, namespace: shop}\n\
         spec: {selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}}\n",
    ),
    (
        "a header decides",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: one, namespace: shop}\n\
         spec: {action: DENY, rules: [{to: [{operation: {hosts: [\"web.shop:*\"]}}]}]}\n",
    ),
];

#[test]
fn curl_sees_in_a_mesh_that_runs_what_explain_says_of_it() {
    let place = Place::new();
    let other = Place::new();
    let _app = App::start(&other);
    let upstream = format!("meshward.dev/upstream: \"{}:8080\"", other.ip);
    let text = shop(&place)
        + &pod("shop", "raw", other.ip, &upstream, &[9000])
        + &service("shop", "raw", 9000).replace("name: http", "name: tcp");
    place.write("mesh.yaml", &text);
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let [web, ..] = place.ips();
    let by_address = format!("{web}:8080");
    let mut compared = 0;
    let mut statuses = BTreeSet::new();
    for (step, policy) in STEPS {
        place.write("step.yaml", policy);
        if !policy.is_empty() {
            let ran = place.run(&["apply", "-f", "step.yaml"]);
            assert_eq!(ran.code, Some(0), "{step}: {}", ran.stderr);
        }
        for from in ["client.shop", "sleep"] {
            for (to, method, path) in [
                ("web.shop:8080", "GET", "/open/x"),
                ("web.shop:8080", "POST", "/open/x"),
                ("web.shop:8080", "GET", "/closed"),
                ("WEB.shop.svc.cluster.local:8080", "GET", "/open"),
                ("raw.shop:9000", "GET", "/open"),
                (&by_address, "GET", "/open"),
            ] {
                let ran = place.run(&[
                    "explain", "--from", from, "--to", to, "-o", "json", method, path,
                ]);
                let account = json(&ran);
                let said = account["verdict"]["status"].as_u64().expect("a status");
                let curl = format!(
                    "curl -s -o /dev/null -w '%{{http_code}}' -X {method} 'http://{to}{path}'"
                );
                let seen = mesh.exec(from, &curl).stdout;
                assert_eq!(
                    seen,
                    format!("{said:03}"),
                    "{step}: {from} {method} {to}{path}: {account:#}"
                );
                // S-118, S-329: the server's sidecar has written what the account says of it.
                if let Some(details) = account["inbound"]["log"]["details"].as_str() {
                    let log = mesh.folder().join("shop/web/istio-proxy.log");
                    until("the details in the log", || {
                        let text = fs::read_to_string(&log).ok()?;
                        text.contains(details).then_some(())
                    });
                }
                statuses.insert(said);
                compared += 1;
            }
        }
        if !policy.is_empty() {
            let ran = place.run(&["delete", "-f", "step.yaml"]);
            assert_eq!(ran.code, Some(0), "{step}: {}", ran.stderr);
        }
    }
    assert_eq!(compared, STEPS.len() * 12);
    assert_eq!(Vec::from_iter(statuses), [0, 200, 403, 503]);
}

#[test]
fn a_mesh_that_runs_answers_for_what_is_in_force() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let ask = |expected: &str| {
        let words = [
            "explain",
            "--from",
            "sleep",
            "--to",
            "web.shop:8080",
            "GET",
            "/",
        ];
        place.run(&[&words[..], &["--expect", expected]].concat())
    };
    assert_eq!(ask("200").code, Some(0));
    mesh.applies(
        STRICT,
        "peerauthentication.security.istio.io/default created\n",
    );
    let ran = ask("000");
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    assert!(
        ran.stdout
            .contains("PeerAuthentication istio-system/default  change.yaml:1")
    );
    let ran = place.run(&["explain", "--from", "slep", "--to", "web.shop", "GET", "/"]);
    ran.refuses(
        65,
        "error: no workload `slep`; nearest: pod/sleep.default, pod/web.shop, pod/client.shop\n",
    );
}

#[test]
fn tokens_come_out_as_curl_sees_them() {
    let place = Place::new();
    let made = place.run(&[
        "token",
        "jwks",
        "--new",
        "ES256",
        "--kid",
        "one",
        "--keys",
        "keys.json",
    ]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let jwks = made.stdout.trim();
    let policies = format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: us, namespace: shop}}\n\
         spec: {{selector: {{matchLabels: {{app: web}}}}, jwtRules: [{{issuer: us, jwks: '{jwks}'}}]}}\n---\n\
         apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: admins, namespace: shop}}\n\
         spec:\n  selector: {{matchLabels: {{app: web}}}}\n  rules:\n  - to: [{{operation: {{methods: [GET]}}}}]\n\
         \x20 - from: [{{source: {{requestPrincipals: [us/*]}}}}]\n    when: [{{key: 'request.auth.claims[group]', values: [admin]}}]\n"
    );
    place.write("mesh.yaml", shop(&place) + &policies);
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let mint = |issuer: &str, group: &str| {
        let group = format!("group={group}");
        let words = [
            "token",
            "mint",
            "--key",
            "keys.json",
            "--issuer",
            issuer,
            "--subject",
            "a",
            "--claim",
            &group,
        ];
        let ran = place.run(&words);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.stdout.trim().to_owned()
    };
    let mut statuses = BTreeSet::new();
    for token in [
        None,
        Some(mint("us", "user")),
        Some(mint("us", "admin")),
        Some(mint("them", "admin")),
        Some("no.token".to_owned()),
    ] {
        for method in ["GET", "POST"] {
            let mut words = vec![
                "explain",
                "--from",
                "client.shop",
                "--to",
                "web.shop:8080",
                "-o",
                "json",
                method,
                "/",
            ];
            let mut curl = format!(
                "curl -s -o /dev/null -w '%{{http_code}}' -X {method} http://web.shop:8080/"
            );
            if let Some(token) = &token {
                words.extend(["--token", token]);
                curl.push_str(&format!(" -H 'Authorization: Bearer {token}'"));
            }
            let account = json(&place.run(&words));
            let said = account["verdict"]["status"].as_u64().expect("a status");
            assert_eq!(
                mesh.exec("client.shop", &curl).stdout,
                said.to_string(),
                "{account:#}"
            );
            statuses.insert(said);
        }
    }
    assert_eq!(Vec::from_iter(statuses), [200, 401, 403]);
}
