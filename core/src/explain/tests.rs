//! Accounts of meshes that are written down here.

use std::sync::Arc;

use super::*;
use crate::api::load::{Text, load_objects};
use crate::clock::UnixTime;

const NOW: UnixTime = UnixTime(1_767_323_045_678);

/// `web` with a sidecar at port 8080 behind service `web`, `client` with a sidecar; `sleep` in `default` without one.
const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: main, image: none, ports: [{containerPort: 8080}]}]}
status: {podIP: 127.3.0.1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {containers: [{name: main, image: none}]}
status: {podIP: 127.3.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: sleep, namespace: default}
spec: {containers: [{name: main, image: none}]}
status: {podIP: 127.3.0.3}
";

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
";

/// Only GETs of `client`, by a rule in line 7.
const ALLOW: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: viewers, namespace: shop}
spec:
  rules:
  - from:
    - source: {principals: [cluster.local/ns/shop/sa/default]}
    to:
    - operation: {methods: [GET]}
";

// Published in "Istio in Action", chapter 9.
const BOOK_KEYS: &str = r#"{ "keys":[ {"e":"AQAB","kid":"CU-ADJJEbH9bXl0tpsQWYuo4EwlkxFUHbeJ4ckkakCM","kty":"RSA","n":"zl9VRDbmVvyXNdyoGJ5uhuTSRA2653KHEi3XqITfJISvedYHVNGoZZxUCoiSEumxqrPY_Du7IMKzmT4bAuPnEalbY8rafuJNXnxVmqjTrQovPIerkGW5h59iUXIz6vCznO7F61RvJsUEyw5X291-3Z3r-9RcQD9sYy7-8fTNmcXcdG_nNgYCnduZUJ3vFVhmQCwHFG1idwni8PJo9NH6aTZ3mN730S6Y1g_lJfObju7lwYWT8j2Sjrwt6EES55oGimkZHzktKjDYjRx1rN4dJ5PR5zhlQ4kORWg1PtllWy1s5TSpOUv84OPjEohEoOWH0-g238zIOYA83gozgbJfmQ"}]}"#;
const BOOK_USER: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IkNVLUFESkpFYkg5YlhsMHRwc1FXWXVvNEV3bGt4RlVIYmVKNGNra2FrQ00iLCJ0eXAiOiJKV1QifQ.eyJleHAiOjQ3NDUxNDUwMzgsImdyb3VwIjoidXNlciIsImlhdCI6MTU5MTU0NTAzOCwiaXNzIjoiYXV0aEBpc3Rpb2luYWN0aW9uLmlvIiwic3ViIjoiOWI3OTJiNTYtN2RmYS00ZTRiLWE4M2YtZTIwNjc5MTE1ZDc5In0.jNDoRx7SNm8b1xMmPaOEMVgwdnTmXJwD5jjCH9wcGsLisbZGcR6chkirWy1BVzYEQDTf8pDJpY2C3H-aXN3IlAcQ1UqVe5lShIjCMIFTthat3OuNgu-a91csGz6qtQITxsOpMcBinlTYRsUOICcD7UZcLugxK4bpOECohHoEhuASHzlH-FYESDB-JYrxmwXj4xoZ_jIsdpuqz_VYhWp8e0phDNJbB6AHOI3m7OHCsGNcw9Z0cks1cJrgB8JNjRApr9XTNBoEC564PX2ZdzciI9BHoOFAKx4mWWEqW08LDMSZIN5Ui9ppwReSV2ncQOazdStS65T43bZJwgJiIocSCg";
const BOOK_OTHER_ISSUER: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IkNVLUFESkpFYkg5YlhsMHRwc1FXWXVvNEV3bGt4RlVIYmVKNGNra2FrQ00iLCJ0eXAiOiJKV1QifQ.eyJleHAiOjQ3NDUxNTE1NDgsImdyb3VwIjoidXNlciIsImlhdCI6MTU5MTU1MTU0OCwiaXNzIjoib2xkLWF1dGhAaXN0aW9pbmFjdGlvbi5pbyIsInN1YiI6Ijc5ZDc1MDZjLWI2MTctNDZkMS1iYzFmLWY1MTFiNWQzMGFiMCJ9.eUEbrJ3Gr4F5eViMlLsIGcD6UIId6tH6u5vLN_IzPnwpSSp6vy6knVgC1GHsWPWwnEhcPHz1TlQz8E3O6F7oVyNhMTJyniaXtVyByvgAVCbeaOYVRnm1aSWwjFt5IfJJcbk21BWbPfE12Hfbo03sRq1hI1iEcn4nbtoh8tjj_G4r8gwiKVlkA3g5bFkwiSEmZQe2cumzgdtNu4XzU5ghl6cdFyzYD5x3750uy_bfduaQokCVymQq3P-dUPnz7_5-ZOj-3SRb3yHbmvlAnyQgTgIlQc3J-anGnsqec33lhVh5RdNuxKj9J14a-ub9ysjzUvcXh1expDqNxR33BaQnpQ";

/// Tokens of the book's issuer, whom nobody needs, and GETs alone for its users.
fn tokens() -> String {
    format!(
        "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: book, namespace: shop}}
spec:
  jwtRules:
  - issuer: auth@istioinaction.io
    jwks: '{BOOK_KEYS}'
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: users, namespace: shop}}
spec:
  rules:
  - to:
    - operation: {{methods: [GET]}}
    from:
    - source: {{requestPrincipals: [auth@istioinaction.io/*]}}
    when:
    - {{key: 'request.auth.claims[group]', values: [user]}}
"
    )
}

fn with_token(method: &str, token: Option<&str>) -> Account {
    let line = token.map(|token| format!("authorization: Bearer {token}"));
    let headers = line.as_slice();
    let question = Question::new("client", None, "web", method, "/", headers);
    let question = question.expect("a question");
    explain(&mut plane(&[SHOP, &tokens()]), &question, NOW).expect("an account")
}

fn plane(texts: &[&str]) -> Plane {
    let texts: Vec<Text> = ["shop.yaml", "a.yaml", "b.yaml", "c.yaml"]
        .iter()
        .zip(texts)
        .map(|(name, text)| Text {
            name: Arc::from(*name),
            text: (*text).to_owned(),
        })
        .collect();
    let objects = load_objects(&texts, "default", true).expect("objects");
    let mut plane = Plane::new();
    plane.apply(objects.objects, NOW).expect("a mesh");
    plane
}

fn question(from: &str, to: &str, method: &str, path: &str) -> Question {
    Question::new(from, None, to, method, path, &[]).expect("a question")
}

fn asked(plane: &mut Plane, from: &str, to: &str, method: &str, path: &str) -> Account {
    explain(plane, &question(from, to, method, path), NOW).expect("an account")
}

/// Status, flags and details as the client's sidecar would log them.
fn client_log(account: &Account) -> (u16, &str, &str) {
    let log = account.outbound.log.as_ref().expect("a log");
    let details = log.details.as_deref().unwrap_or_default();
    (log.status, &log.flags, details)
}

fn server(account: &Account) -> &Inbound {
    account.inbound.as_ref().expect("it arrives")
}

fn server_log(account: &Account) -> &Log {
    server(account).log.as_ref().expect("a log")
}

#[test]
fn plaintext_to_a_strict_port_is_reset_and_the_policy_named() {
    let mut plane = plane(&[SHOP, STRICT]);
    let account = asked(&mut plane, "sleep", "web.shop", "GET", "/");
    assert_eq!(
        (account.verdict.status, account.verdict.by),
        (0, By::Nobody)
    );
    let mode = server(&account).mode.as_ref().expect("a mode");
    assert_eq!(mode.mode, "STRICT");
    assert_eq!(mode.reason, "PeerAuthentication istio-system/default");
    assert_eq!(mode.origin.as_deref(), Some("a.yaml:2"));
    let log = server_log(&account);
    assert_eq!(log.flags, "NR", "S-28");
    assert_eq!(log.details.as_deref(), Some("filter_chain_not_found"));
    assert_eq!(account.outbound.log, None, "there is no sidecar to log it");
}

#[test]
fn rules_see_what_both_sidecars_add_to_a_head() {
    // S-322, S-325.
    let deny = |key: &str, value: &str| {
        format!(
            "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: told, namespace: shop}}
spec: {{action: DENY, rules: [{{when: [{{key: 'request.headers[{key}]', values: ['{value}']}}]}}]}}
"
        )
    };
    let client = "*;URI=spiffe://cluster.local/ns/shop/sa/default";
    for (key, value, status) in [
        ("x-forwarded-proto", "http", 403),
        ("x-forwarded-proto", "https", 200),
        ("x-forwarded-client-cert", client, 403),
        ("x-forwarded-client-cert", "*;URI=x", 200),
    ] {
        let mut plane = plane(&[SHOP, STRICT, &deny(key, value)]);
        let lines = ["x-forwarded-client-cert: By=x;URI=x".to_owned()];
        let question = Question::new("client", None, "web", "GET", "/", &lines);
        let question = question.expect("a question");
        let account = explain(&mut plane, &question, NOW).expect("an account");
        assert_eq!(account.verdict.status, status, "{key} {value}");
    }
}

#[test]
fn a_client_with_a_sidecar_arrives_in_mutual_tls() {
    let mut plane = plane(&[SHOP, STRICT]);
    for host in [
        "web",
        "WEB.shop",
        "web.shop.svc",
        "web.shop.svc.cluster.local",
        "web.shop.svc.cluster.local.",
    ] {
        let account = asked(&mut plane, "client", host, "GET", "/a/../b?q");
        assert_eq!(account.verdict.status, 200, "{host}");
        assert_eq!(account.verdict.by, By::Application);
        let protection = account.outbound.protection.as_ref().expect("a protection");
        assert!(protection.mutual_tls);
        let sni = "outbound_.80_._.web.shop.svc.cluster.local";
        assert_eq!(protection.sni.as_deref(), Some(sni));
        let sees = server(&account).sees.as_ref().expect("it is judged");
        let id = "cluster.local/ns/shop/sa/default";
        assert_eq!(sees.principal.as_deref(), Some(id));
        assert_eq!(sees.source_ip, "127.3.0.2");
        assert_eq!(sees.path.as_deref(), Some("/b"), "S-180");
        assert_eq!(client_log(&account), (200, "-", "via_upstream"));
    }
}

#[test]
fn default_deny_says_what_the_nearest_rule_misses() {
    let mut plane = plane(&[SHOP, ALLOW]);
    let account = asked(&mut plane, "client", "web", "POST", "/");
    assert_eq!(account.verdict.status, 403);
    assert_eq!(account.verdict.by, By::ServerSidecar);
    assert_eq!(account.verdict.rule, None, "no rule decided");
    let reason = account.verdict.reason.as_deref().unwrap_or_default();
    assert!(
        reason.ends_with("nearest: ns[shop]-policy[viewers]-rule[0] at a.yaml:7"),
        "{reason}"
    );
    let [rule] = server(&account).rules.as_slice() else {
        panic!("one rule was asked");
    };
    assert_eq!(
        (rule.action, rule.matched, rule.decided),
        ("ALLOW", false, false)
    );
    let misses: Vec<_> = rule
        .misses
        .iter()
        .map(|m| (&*m.field, &*m.actual))
        .collect();
    assert_eq!(misses, [("methods", "`POST`")]);
    let details = "rbac_access_denied_matched_policy[none]";
    assert_eq!(
        server_log(&account).details.as_deref(),
        Some(details),
        "S-118"
    );
    assert_eq!(client_log(&account), (403, "-", "via_upstream"));
}

#[test]
fn the_rule_that_decides_is_named_with_its_line() {
    let deny = ALLOW
        .replace("viewers", "no-get")
        .replace("spec:", "spec:\n  action: DENY");
    let mut plane = plane(&[SHOP, ALLOW, &deny]);
    let account = asked(&mut plane, "client", "web", "GET", "/");
    assert_eq!(account.verdict.status, 403, "S-111");
    let rule = account.verdict.rule.as_ref().expect("a rule");
    assert_eq!(rule.id, "ns[shop]-policy[no-get]-rule[0]");
    assert_eq!(rule.origin, "b.yaml:8");
    let mut other = self::plane(&[SHOP, ALLOW]);
    let account = asked(&mut other, "client", "web", "GET", "/");
    assert_eq!(account.verdict.status, 200);
    let rule = account.verdict.rule.as_ref().expect("a rule");
    assert_eq!(rule.id, "ns[shop]-policy[viewers]-rule[0]");
}

#[test]
fn a_negated_identity_matches_plaintext() {
    let deny = ALLOW
        .replace("spec:", "spec:\n  action: DENY")
        .replace("principals", "notPrincipals");
    let mut plane = plane(&[SHOP, &deny]);
    let account = asked(&mut plane, "sleep", "web.shop", "GET", "/");
    assert_eq!(account.verdict.status, 403, "S-126");
    let sees = server(&account).sees.as_ref().expect("it is judged");
    assert_eq!(sees.principal, None);
    let account = asked(&mut plane, "client", "web", "GET", "/");
    assert_eq!(account.verdict.status, 200);
}

#[test]
fn what_nobody_listens_on_is_refused() {
    let mut plane = plane(&[SHOP]);
    let account = asked(&mut plane, "client", "web:81", "GET", "/");
    assert_eq!(account.verdict.status, 0);
    assert_eq!(
        account.verdict.summary,
        "service shop/web has no port 81; it has 80"
    );
    assert_eq!(account.inbound, None);
    let account = asked(&mut plane, "sleep", "127.3.0.1:81", "GET", "/");
    assert_eq!(account.verdict.status, 0);
    assert_eq!(
        account.verdict.summary,
        "shop/web does not listen on port 81"
    );
}

#[test]
fn a_service_without_endpoints_is_503_with_a_sidecar_and_refused_without() {
    let shop = SHOP.replace("selector: {app: web}", "selector: {app: nobody}");
    let mut plane = plane(&[&shop]);
    let account = asked(&mut plane, "client", "web", "GET", "/");
    assert_eq!(account.verdict.status, 503);
    assert_eq!(account.verdict.by, By::ClientSidecar);
    assert_eq!(client_log(&account), (503, "UH", "no_healthy_upstream"));
    let account = asked(&mut plane, "sleep", "web.shop", "GET", "/");
    assert_eq!(
        (account.verdict.status, account.verdict.by),
        (0, By::Nobody)
    );
}

#[test]
fn why_a_client_with_a_sidecar_speaks_plaintext_is_said() {
    let port = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  mtls: {mode: STRICT}
  portLevelMtls: {8080: {mode: DISABLE}}
";
    let plain = |texts: &[&str]| {
        let account = asked(&mut plane(texts), "client", "web", "GET", "/");
        let protection = account.outbound.protection.expect("a protection");
        assert!(!protection.mutual_tls);
        (account.verdict.status, protection.reason, protection.origin)
    };
    let (status, reason, origin) = plain(&[SHOP, port]);
    assert_eq!(status, 200);
    assert_eq!(
        reason,
        "mode DISABLE of PeerAuthentication shop/web at port 8080"
    );
    assert_eq!(origin.as_deref(), Some("a.yaml:2"));
    // S-61: the namespace switches it off for all, and the workload demands it.
    let namespace = STRICT
        .replace("istio-system", "shop")
        .replace("STRICT", "DISABLE");
    let own = port.replace("  portLevelMtls: {8080: {mode: DISABLE}}\n", "");
    let (status, reason, origin) = plain(&[SHOP, &namespace, &own]);
    assert_eq!(status, 503);
    assert_eq!(
        reason,
        "mode DISABLE of PeerAuthentication shop/default for namespace shop"
    );
    assert_eq!(origin.as_deref(), Some("a.yaml:2"));
    let bare = SHOP.replace(
        "labels: {app: web}}",
        "labels: {app: web, sidecar.istio.io/inject: \"false\"}}",
    );
    let (status, reason, origin) = plain(&[&bare]);
    assert_eq!((status, origin), (200, None));
    assert_eq!(reason, "shop/web has no sidecar");
    let off = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: \"enableAutoMtls: false\"}
";
    let (status, reason, _) = plain(&[SHOP, off]);
    assert_eq!(status, 200);
    assert_eq!(reason, "enableAutoMtls of the mesh is off");
}

#[test]
fn plaintext_of_a_sidecar_that_is_reset_is_503_of_its_own() {
    let off = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: \"enableAutoMtls: false\"}
";
    let mut plane = plane(&[SHOP, STRICT, off]);
    let account = asked(&mut plane, "client", "web", "GET", "/");
    assert_eq!(account.verdict.status, 503);
    assert_eq!(account.verdict.by, By::ClientSidecar);
    let details = "upstream_reset_before_response_started{connection_termination}";
    assert_eq!(client_log(&account), (503, "UC", details), "S-64");
}

#[test]
fn mutual_tls_to_a_pod_that_only_claims_a_sidecar_comes_to_nothing() {
    let claims = SHOP.replace(
        "labels: {app: web}}",
        "labels: {app: web, sidecar.istio.io/inject: \"false\", security.istio.io/tlsMode: istio}}",
    );
    let account = asked(&mut plane(&[&claims]), "client", "web", "GET", "/");
    assert_eq!(account.verdict.status, 503);
    let (status, flags, _) = client_log(&account);
    assert_eq!((status, flags), (503, "UF,URX"), "S-64");
}

#[test]
fn a_pod_that_is_called_by_its_address_is_called_in_plaintext() {
    let mut plane = plane(&[SHOP, STRICT]);
    // No HTTP service has port 8080, so the call leaves as opaque bytes (S-62).
    let account = asked(&mut plane, "client", "127.3.0.1:8080", "GET", "/");
    assert_eq!(
        (account.verdict.status, account.verdict.by),
        (0, By::Nobody)
    );
    assert_eq!(
        account.outbound.cluster.as_deref(),
        Some("PassthroughCluster")
    );
    assert_eq!(client_log(&account), (0, "UR", ""));
    let http = SHOP.replace("port: 80,", "port: 8080,");
    let account = asked(
        &mut self::plane(&[&http, STRICT]),
        "client",
        "127.3.0.1:8080",
        "GET",
        "/",
    );
    assert_eq!(account.verdict.status, 503, "S-62");
    assert_eq!(client_log(&account).1, "UC");
}

#[test]
fn a_port_that_is_not_http_is_judged_as_a_connection() {
    let tcp = SHOP.replace("name: http,", "name: tcp,");
    let deny = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: shop}
spec: {action: DENY, rules: [{from: [{source: {namespaces: [shop]}}]}]}
";
    let account = asked(&mut plane(&[&tcp, deny]), "client", "web", "GET", "/");
    assert_eq!(
        (account.verdict.status, account.verdict.by),
        (0, By::Nobody)
    );
    let log = server_log(&account);
    let details = "rbac_access_denied_matched_policy[ns[shop]-policy[nobody]-rule[0]]";
    assert_eq!(log.termination.as_deref(), Some(details), "S-121");
    assert_eq!(server(&account).protocol, Some("tcp"));
    let account = asked(&mut plane(&[&tcp]), "client", "web", "GET", "/");
    assert_eq!(account.verdict.status, 200);
}

#[test]
fn the_path_is_judged_before_the_rules() {
    let mut plane = plane(&[SHOP, ALLOW]);
    let account = asked(&mut plane, "sleep", "web.shop", "OPTIONS", "*");
    assert_eq!(account.verdict.status, 404);
    let log = server_log(&account);
    assert_eq!(log.details.as_deref(), Some("absolute_path_rejected"));
    assert_eq!(server(&account).rules, []);
    // With a sidecar it does not leave the client.
    let account = asked(&mut plane, "client", "web.shop", "GET", "/%00");
    assert_eq!(account.verdict.status, 400, "S-183");
    assert_eq!(account.verdict.by, By::ClientSidecar);
    assert_eq!(account.inbound, None);
}

#[test]
fn a_head_that_breaks_the_protocol_gets_the_answer_of_the_parser() {
    let mut plane = plane(&[SHOP]);
    let headers = [
        "content-length: 1".to_owned(),
        "transfer-encoding: chunked".to_owned(),
    ];
    for from in ["sleep", "client"] {
        let question = Question::new(from, None, "web.shop", "POST", "/", &headers);
        let account = explain(&mut plane, &question.expect("a question"), NOW).expect("an account");
        assert_eq!(account.verdict.status, 400, "{from}");
    }
}

#[test]
fn a_denial_speaks_grpc_to_who_speaks_it() {
    let mut plane = plane(&[SHOP, ALLOW]);
    let headers = ["content-type: application/grpc+proto".to_owned()];
    let question = Question::new("client", None, "web", "POST", "/a.B/C", &headers);
    let account = explain(&mut plane, &question.expect("a question"), NOW).expect("an account");
    assert_eq!(
        (account.verdict.status, account.verdict.by),
        (200, By::ServerSidecar),
        "S-119"
    );
}

#[test]
fn endpoints_that_answer_otherwise_are_listed() {
    let second = "
apiVersion: v1
kind: Pod
metadata: {name: web-2, namespace: shop, labels: {app: web, version: two}}
spec: {containers: [{name: main, image: none, ports: [{containerPort: 8080}]}]}
status: {podIP: 127.3.0.4}
";
    let deny = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: two, namespace: shop}
spec: {action: DENY, selector: {matchLabels: {version: two}}, rules: [{}]}
";
    let mut plane = plane(&[SHOP, second, deny]);
    for client in ["client", "sleep"] {
        let account = asked(&mut plane, client, "web.shop", "GET", "/");
        assert_eq!(
            (account.verdict.status, account.outbound.endpoints),
            (200, 2)
        );
        let [other] = account.others.as_slice() else {
            panic!("there is one other endpoint");
        };
        assert_eq!((&*other.pod, other.status), ("shop/web-2", 403));
        let rule = other.rule.as_ref().expect("a rule");
        assert_eq!(rule.id, "ns[shop]-policy[two]-rule[0]");
    }
}

#[test]
fn an_audit_rule_is_told_and_decides_nothing() {
    let audit = ALLOW.replace("spec:", "spec:\n  action: AUDIT");
    let account = asked(&mut plane(&[SHOP, &audit]), "client", "web", "GET", "/");
    assert_eq!(account.verdict.status, 200);
    let [rule] = server(&account).rules.as_slice() else {
        panic!("one rule was asked");
    };
    assert_eq!(
        (rule.action, rule.matched, rule.decided),
        ("AUDIT", true, false)
    );
    assert_eq!(
        server_log(&account).audit,
        ["ns[shop]-policy[viewers]-rule[0]"],
        "S-162"
    );
}

#[test]
fn what_became_of_a_token_is_said_and_the_token_is_not() {
    let account = with_token("GET", Some(BOOK_USER));
    assert_eq!(account.verdict.status, 200, "{account}");
    let authentication = server(&account).authentication.as_ref().expect("rules");
    assert_eq!(authentication.outcome, "a token was verified");
    let [rule] = authentication.rules.as_slice() else {
        panic!("one rule was asked");
    };
    assert_eq!(
        (&*rule.issuer, rule.outcome),
        ("auth@istioinaction.io", "verified")
    );
    assert_eq!(rule.origin, "a.yaml:7");
    assert_eq!(rule.tokens[0].place, "header `authorization`");
    assert!(!account.to_string().contains(&BOOK_USER[..20]));

    let account = with_token("GET", Some(BOOK_OTHER_ISSUER));
    assert_eq!(account.verdict.status, 401);
    assert_eq!(account.verdict.by, By::ServerSidecar);
    assert_eq!(
        account.verdict.summary, "Jwt issuer is not configured",
        "S-218"
    );
    let details = "jwt_authn_access_denied{Jwt_issuer_is_not_configured}";
    assert_eq!(server_log(&account).details.as_deref(), Some(details));
    assert_eq!(server(&account).rules, [], "S-110: policies are not asked");
}

#[test]
fn request_identities_and_claims_are_misses_like_others() {
    let misses = |account: &Account| -> Vec<String> {
        let rules = server(account).rules.iter();
        rules
            .flat_map(|rule| rule.misses.iter().map(|miss| miss.field.clone()))
            .collect()
    };
    let account = with_token("GET", None);
    assert_eq!(account.verdict.status, 403);
    assert_eq!(
        misses(&account),
        ["requestPrincipals", "request.auth.claims[group] values"]
    );
    let account = with_token("POST", Some(BOOK_USER));
    assert_eq!(account.verdict.status, 403);
    assert_eq!(misses(&account), ["methods"]);
}

#[test]
fn a_condition_on_a_credential_does_not_say_it() {
    let condition = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: one, namespace: shop}
spec: {rules: [{when: [{key: 'request.headers[authorization]', values: [other]}]}]}
";
    let headers = ["Authorization: Basic c2VjcmV0".to_owned()];
    let question = Question::new("client", None, "web", "GET", "/", &headers).expect("a question");
    let account = explain(&mut plane(&[SHOP, condition]), &question, NOW).expect("an account");
    let miss = &server(&account).rules[0].misses[0];
    assert_eq!(miss.field, "request.headers[authorization] values");
    assert!(!account.to_string().contains("c2VjcmV0"), "{account}");
}

#[test]
fn credentials_are_never_said_back() {
    let headers = [
        "Authorization: Bearer eyJhbGciOi.secret".to_owned(),
        "cookie: session=secret".to_owned(),
    ];
    let question = Question::new("client", None, "web", "GET", "/", &headers).expect("a question");
    assert!(!format!("{question:?}").contains("secret"));
    let account = explain(&mut plane(&[SHOP, ALLOW]), &question, NOW).expect("an account");
    let json = serde_json::to_string(&account).expect("JSON");
    for text in [account.to_string(), json, format!("{account:?}")] {
        assert!(!text.contains("secret"), "{text}");
        assert!(text.contains("Authorization"), "its name is said");
    }
}

#[test]
fn whom_nobody_knows_is_not_asked_about() {
    let mut plane = plane(&[SHOP]);
    let error = |plane: &mut Plane, from, to| {
        let error = explain(plane, &question(from, to, "GET", "/"), NOW).expect_err("an error");
        error.to_string()
    };
    assert_eq!(
        error(&mut plane, "cleint", "web"),
        "no workload `cleint`; nearest: pod/client.shop, pod/sleep.default, pod/web.shop"
    );
    assert_eq!(
        error(&mut plane, "sleep", "web"),
        "no service or pod `web`, as seen from namespace `default`; nearest: web.shop"
    );
    for address in ["10.111.0.1", "127.3.0.9", "::1"] {
        let text = error(&mut plane, "client", address);
        assert!(text.starts_with("no service or pod `"), "{text}");
    }
}

#[test]
fn what_is_no_question_is_not_asked() {
    let ask = |to: &str, method: &str, path: &str, header: &str| {
        let headers = [header.to_owned()];
        Question::new("client", None, to, method, path, &headers).map(drop)
    };
    use QuestionError::*;
    assert_eq!(ask("web:80", "GET", "/", "a: b"), Ok(()));
    assert_eq!(ask("[::1]:80", "GET", "/", "a:b"), Ok(()));
    for to in [
        "",
        ":80",
        "web:",
        "web:0",
        "web:65536",
        "we b",
        "web:80:80",
        "[::1",
    ] {
        assert_eq!(ask(to, "GET", "/", "a:b"), Err(Host(to.into())), "{to}");
    }
    for method in ["", "GE T", "GET\r\n"] {
        assert_eq!(ask("web", method, "/", "a:b"), Err(Method(method.into())));
    }
    for path in ["", "/a b", "/\u{e9}", "/\r\nx: y"] {
        assert_eq!(ask("web", "GET", path, "a:b"), Err(Path(path.into())));
    }
    for (header, said) in [
        ("no-colon", "no-colon"),
        (": value", ""),
        ("a b: secret", "a b"),
    ] {
        assert_eq!(ask("web", "GET", "/", header), Err(Header(said.into())));
    }
    for header in ["a: secret\r\nb: c", "a: sec\nret", "a: sec\0ret"] {
        let refused = Err(HeaderValue("a".into()));
        assert_eq!(ask("web", "GET", "/", header), refused);
    }
}

#[test]
fn the_text_says_the_verdict_first() {
    let account = asked(
        &mut plane(&[SHOP, ALLOW]),
        "client",
        "web",
        "POST",
        "/items",
    );
    let text = account.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    assert_eq!(lines[0], "403  RBAC: access denied");
    assert_eq!(lines[1], "  answered    by the sidecar of shop/web");
    assert!(
        text.contains("\n                methods [GET] against `POST`\n"),
        "{text}"
    );
    assert!(
        text.ends_with(
            "  log         403 - rbac_access_denied_matched_policy[none] inbound|8080||"
        ),
        "{text}"
    );
}
