//! Whole authentications: rules, tokens, effects, answers.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;
use crate::api::meta::{Labels, Meta, Origin};
use crate::api::request_authentication::{
    ClaimToHeader, HeaderLocation, JwtRule, KeySource, RequestAuthentication,
};
use crate::clock::UnixTime;

mod memory;

/// Seconds since 1970.
const NOW: u64 = 1_800_000_000;

/// A token with this payload, signed with a key that has the name of `issuer`.
fn token(issuer: &str, mut payload: Value) -> String {
    payload["iss"] = issuer.into();
    signed(issuer, &payload)
}

fn signed(key: &str, payload: &Value) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let text = format!(
        "{}.{}",
        encode(r#"{"alg":"HS256"}"#),
        encode(&payload.to_string())
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let signature = hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn keys(name: &str) -> KeySource {
    let key = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(name)});
    KeySource::Inline(json!({"keys": [key]}).to_string())
}

fn rule(issuer: &str) -> JwtRule {
    JwtRule {
        issuer: issuer.into(),
        audiences: Vec::new(),
        keys: keys(issuer),
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        output_payload_to_header: None,
        output_claims: Vec::new(),
        forward_original_token: false,
        space_delimited_claims: Vec::new(),
        origin: Origin {
            file: "jwt.yaml".into(),
            line: 1,
            column: 1,
        },
    }
}

fn in_header(issuer: &str, name: &str) -> JwtRule {
    let location = HeaderLocation {
        name: name.into(),
        prefix: String::new(),
    };
    JwtRule {
        from_headers: vec![location],
        ..rule(issuer)
    }
}

fn policy(rules: Vec<JwtRule>) -> RequestAuthentication {
    RequestAuthentication {
        meta: Meta {
            name: "jwt".into(),
            namespace: "default".into(),
            created: 0,
            annotations: Labels::new(),
            labels: Labels::new(),
            origin: Origin {
                file: "jwt.yaml".into(),
                line: 1,
                column: 1,
            },
        },
        selector: None,
        targets: false,
        rules,
    }
}

fn compiled(rules: &[JwtRule]) -> Rules {
    compile(&[&policy(rules.to_vec())])
}

/// One request after another against the same rules, as one proxy sees them.
struct Desk {
    rules: Rules,
    cache: Cache,
    now: u64,
    heard: Explanation,
}

/// What became of a request.
#[derive(Debug)]
struct Seen {
    result: Result<Authentication, Refusal>,
    path: String,
    /// The lines that go on.
    lines: Vec<String>,
}

impl Desk {
    fn new(rules: &[JwtRule]) -> Self {
        Self {
            rules: compiled(rules),
            cache: Cache::default(),
            now: NOW,
            heard: Explanation::default(),
        }
    }

    fn ask(&mut self, method: &str, path: &str, lines: &[(&str, &str)]) -> Seen {
        let lines: Vec<(&[u8], &[u8])> = lines
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect();
        let fields = Fields::listed(&lines);
        let presented = Presented {
            method,
            path: path.as_bytes(),
            authority: b"api.shop",
            tls: false,
            fields,
        };
        self.heard = Explanation::default();
        let mut result = authenticate(
            &self.rules,
            &presented,
            UnixTime(self.now * 1000),
            &mut self.cache,
            &mut self.heard,
        );
        let mut seen = (String::new(), Vec::new());
        if let Ok(authentication) = &mut result {
            let effects = &mut authentication.effects;
            let left = effects.take_path(path.as_bytes().into());
            seen.0 = String::from_utf8_lossy(&left).into_owned();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            seen.1 = effects
                .fields(fields)
                .iter()
                .map(|field| format!("{}: {}", text(field.name), text(field.value)))
                .collect();
        }
        Seen {
            result,
            path: seen.0,
            lines: seen.1,
        }
    }

    fn get(&mut self, lines: &[(&str, &str)]) -> Seen {
        self.ask("GET", "/", lines)
    }

    fn bearer(&mut self, token: &str) -> Seen {
        self.get(&[("authorization", &format!("Bearer {token}"))])
    }
}

impl Seen {
    fn principal(&self) -> Option<String> {
        let claims = self.result.as_ref().ok()?.claims.as_deref()?;
        let (iss, sub) = claims.principal()?;
        Some(format!("{iss}/{sub}"))
    }

    fn status(&self) -> Result<(), Status> {
        self.result
            .as_ref()
            .map(|_| ())
            .map_err(|refusal| refusal.status)
    }
}

#[test]
fn without_rules_tokens_are_not_looked_at() {
    // S-210.
    let mut desk = Desk::new(&[]);
    let seen = desk.bearer("garbage");
    assert_eq!((seen.status(), seen.principal()), (Ok(()), None));
    assert_eq!(seen.lines, ["authorization: Bearer garbage"]);
    assert_eq!(desk.heard.end, End::NoRules);
}

#[test]
fn a_token_is_verified_or_missing_or_refused() {
    // S-211, S-191.
    let mut desk = Desk::new(&[rule("a")]);
    let seen = desk.bearer(&token("a", json!({"sub": "alice"})));
    assert_eq!(seen.principal().as_deref(), Some("a/alice"));
    let seen = desk.get(&[("authorization", "Basic dTpw")]);
    assert_eq!((seen.status(), seen.principal()), (Ok(()), None));
    assert_eq!(seen.lines, ["authorization: Basic dTpw"]);
    for (text, status) in [
        (token("b", json!({})), Status::UnknownIssuer),
        (signed("b", &json!({"iss": "a"})), Status::VerificationFails),
        (token("a", json!({"exp": NOW - 61})), Status::Expired),
        (token("a", json!({"nbf": NOW + 61})), Status::NotYetValid),
        ("a.b".into(), Status::BadFormat),
        (String::new(), Status::BadFormat),
    ] {
        let value = format!("Bearer ={text}");
        let seen = desk.get(&[("authorization", &value)]);
        assert_eq!(seen.status(), Err(status), "{text}");
    }
}

#[test]
fn rules_are_asked_by_issuer_and_the_first_that_verifies_ends_it() {
    // S-210, S-212, S-154.
    let rules = [in_header("b", "x-b"), in_header("a", "x-a")];
    let mut desk = Desk::new(&rules);
    let (a, b) = (
        token("a", json!({"sub": "s"})),
        token("b", json!({"sub": "s"})),
    );
    let seen = desk.get(&[("x-b", &b), ("x-a", &a)]);
    assert_eq!(seen.principal().as_deref(), Some("a/s"));
    assert_eq!(
        seen.lines,
        [format!("x-b: {b}")],
        "the other token is not touched"
    );
    assert_eq!(desk.heard.rules.len(), 1);

    let seen = desk.get(&[("x-b", &b)]);
    assert_eq!(seen.principal().as_deref(), Some("b/s"));
    assert_eq!(desk.heard.rules.len(), 2);
    assert_eq!(desk.heard.rules[0].outcome, Err(Status::Missing));

    // A bad token of another rule is forgiven where one verified, and not otherwise.
    let seen = desk.get(&[("x-a", "bad"), ("x-b", &b)]);
    assert_eq!(seen.principal().as_deref(), Some("b/s"));
    let seen = desk.get(&[("x-b", "bad")]);
    assert_eq!(seen.status(), Err(Status::BadFormat));
}

#[test]
fn of_several_failures_the_first_one_that_says_something_is_told() {
    // S-212: neither Missing nor UnknownIssuer if there is another.
    let rules = ["a", "b", "c"].map(|issuer| in_header(issuer, &format!("x-{issuer}")));
    let mut desk = Desk::new(&rules);
    let expired = |issuer| token(issuer, json!({"exp": 1}));
    let other = token("z", json!({}));
    for (a, b, c, status) in [
        (Some("bad"), None, None, Status::BadFormat),
        (Some(&*other), None, None, Status::UnknownIssuer),
        (None, None, Some(&*other), Status::UnknownIssuer),
        (Some("bad"), Some(&*other), None, Status::BadFormat),
        (Some(&*other), Some("bad"), Some(&*other), Status::BadFormat),
        (
            Some("bad"),
            Some(&*expired("b")),
            Some(&*other),
            Status::BadFormat,
        ),
        (
            Some(&*other),
            Some(&*expired("b")),
            Some("bad"),
            Status::Expired,
        ),
        (Some(&*expired("a")), None, Some("bad"), Status::Expired),
    ] {
        let lines: Vec<(&str, &str)> = [("x-a", a), ("x-b", b), ("x-c", c)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        assert_eq!(desk.get(&lines).status(), Err(status), "{lines:?}");
        assert_eq!(desk.heard.end, End::Refused(status));
    }
}

#[test]
fn rules_of_one_issuer_keep_the_order_of_policies() {
    let first = policy(vec![in_header("a", "x-1")]);
    let second = policy(vec![in_header("", "x-0"), in_header("a", "x-2")]);
    let mut desk = Desk::new(&[]);
    desk.rules = compile(&[&first, &second]);
    let bad = [("x-0", "."), ("x-1", "."), ("x-2", ".")];
    assert!(desk.get(&bad).result.is_err());
    let places: Vec<_> = desk
        .heard
        .rules
        .iter()
        .map(|rule| rule.tokens[0].place.as_str())
        .collect();
    assert_eq!(places, ["header `x-0`", "header `x-1`", "header `x-2`"]);
}

#[test]
fn all_tokens_of_one_rule_must_verify_and_the_header_speaks_last() {
    // S-214.
    let mut desk = Desk::new(&[rule("a")]);
    let (one, two) = (
        token("a", json!({"sub": "header"})),
        token("a", json!({"sub": "query"})),
    );
    let bearer = format!("Bearer {one}");
    let path = format!("/p?access_token={two}");
    let seen = desk.ask("GET", &path, &[("authorization", &bearer)]);
    assert_eq!(seen.principal().as_deref(), Some("a/header"));
    assert_eq!((seen.path.as_str(), seen.lines.len()), ("/p", 0));
    let seen = desk.ask("GET", "/p?access_token=bad", &[("authorization", &bearer)]);
    assert_eq!(seen.status(), Err(Status::BadFormat));
    let seen = desk.ask("GET", &path, &[("authorization", "Bearer bad")]);
    assert_eq!(seen.status(), Err(Status::BadFormat));
    // The last place is looked at first, and what fails there ends it.
    let seen = desk.ask(
        "GET",
        &format!("/p?access_token={}", token("z", json!({}))),
        &[("authorization", "Bearer bad")],
    );
    assert_eq!(seen.status(), Err(Status::UnknownIssuer));
}

#[test]
fn a_token_of_another_issuer_in_a_place_of_ones_own_is_refused() {
    // S-215.
    let rules = [rule("a"), in_header("b", "x-b")];
    let mut desk = Desk::new(&rules);
    let b = token("b", json!({"sub": "s"}));
    assert_eq!(desk.bearer(&b).status(), Err(Status::UnknownIssuer));
    let seen = desk.get(&[("x-b", &b)]);
    assert_eq!(seen.principal().as_deref(), Some("b/s"));
}

#[test]
fn a_verified_token_leaves_the_request_unless_it_is_to_be_forwarded() {
    // S-224.
    let t = token("a", json!({"sub": "s"}));
    let bearer = format!("Bearer {t}");
    let query = format!("/p?x=1&access_token={t}&y=2");
    let cookie = format!("session={t}; theme=dark");
    let lines = [
        ("Authorization", bearer.as_str()),
        ("x-keep", "yes"),
        ("cookie", cookie.as_str()),
    ];
    let mut all = rule("a");
    all.from_headers = vec![HeaderLocation {
        name: "authorization".into(),
        prefix: "Bearer ".into(),
    }];
    all.from_params = vec!["access_token".into()];
    all.from_cookies = vec!["session".into()];

    let seen = Desk::new(std::slice::from_ref(&all)).ask("GET", &query, &lines);
    assert_eq!(seen.path, "/p?x=1&y=2");
    assert_eq!(
        seen.lines,
        ["x-keep: yes".to_owned(), format!("cookie: {cookie}")]
    );

    all.forward_original_token = true;
    let seen = Desk::new(&[all]).ask("GET", &query, &lines);
    assert_eq!((seen.path, seen.lines.len()), (query, 3));
}

#[test]
fn payload_and_claims_go_into_headers_and_copies_of_the_client_do_not() {
    // S-225, S-324.
    let claim = |header: &str, claim: &str| ClaimToHeader {
        header: header.into(),
        claim: claim.into(),
    };
    let mut outputs = rule("a");
    outputs.output_payload_to_header = Some("X-Payload".into());
    outputs.output_claims = vec![
        claim("x-Sub", "sub"),
        claim("x-deep", "o.p"),
        claim("x-absent", "nothing"),
        claim("x-line", "line"),
    ];
    // What another rule writes is removed too, though it is not asked.
    let mut other = rule("b");
    other.output_claims = vec![claim("x-other", "sub")];
    let rules = [outputs, other];
    let mut desk = Desk::new(&rules);

    let t = token(
        "a",
        json!({"sub": "alice", "o": {"p": ["v"]}, "line": "a\r\nx-admin: yes"}),
    );
    let forged = [
        ("x-sub", "admin"),
        ("X_SUB", "admin"),
        ("x-payload", "forged"),
        ("X-Other", "admin"),
        ("x-absent", "admin"),
        ("x-kept", "yes"),
    ];
    let bearer = format!("Bearer {t}");
    let lines = [&forged[..], &[("authorization", bearer.as_str())]].concat();
    let payload = t.split('.').nth(1).expect("a payload");
    let expected = [
        "x-kept: yes".to_owned(),
        format!("x-payload: {payload}"),
        "x-sub: alice".to_owned(),
        "x-deep: WyJ2Il0=".to_owned(),
    ];
    assert_eq!(desk.get(&lines).lines, expected);
    assert_eq!(
        desk.get(&lines).lines,
        expected,
        "remembered, it is the same"
    );
    assert_eq!(desk.get(&forged).lines, ["x-kept: yes"], "without a token");
}

#[test]
fn headers_that_framing_or_trust_hang_on_are_never_written() {
    for name in [
        "Host",
        "content-length",
        "transfer-encoding",
        "te",
        "trailer",
        "connection",
        "keep-alive",
        "proxy-connection",
        "Upgrade",
        "http2-settings",
        "expect",
        "x-envoy-internal",
        "x-envoy-peer-metadata",
        "x-envoy-peer-metadata-id",
        "x-forwarded-client-cert",
    ] {
        let mut outputs = rule("a");
        outputs.output_payload_to_header = Some(name.into());
        let rules = compiled(&[outputs]);
        assert!(
            rules.findings()[0].problem.contains(name),
            "{:?}",
            rules.findings()
        );
        let mut desk = Desk::new(&[]);
        desk.rules = rules;
        let seen = desk.bearer(&token("a", json!({"sub": "s"})));
        assert_eq!(
            (seen.principal(), seen.lines.len()),
            (Some("a/s".into()), 0)
        );
    }
}

#[test]
fn a_preflight_is_asked_for_nothing() {
    // S-227.
    let mut outputs = rule("a");
    outputs.output_payload_to_header = Some("x-payload".into());
    let mut desk = Desk::new(&[outputs]);
    let origin = ("Origin", "https://shop");
    let asks = ("access-control-request-method", "GET");
    let bad = ("authorization", "Bearer bad");
    let seen = desk.ask("OPTIONS", "/", &[origin, asks, bad, ("x-payload", "x")]);
    assert_eq!((seen.status(), seen.principal()), (Ok(()), None));
    assert!(!seen.lines.iter().any(|line| line.starts_with("x-payload")));
    assert_eq!(desk.heard.end, End::Preflight);
    for (method, lines) in [
        ("GET", [origin, asks, bad]),
        ("OPTIONS", [origin, bad, bad]),
        ("OPTIONS", [asks, bad, bad]),
        ("OPTIONS", [("origin", ""), asks, bad]),
    ] {
        let seen = desk.ask(method, "/", &lines);
        assert_eq!(seen.status(), Err(Status::BadFormat), "{method} {lines:?}");
    }
}

#[test]
fn keys_that_are_not_there_refuse_every_token_and_say_so() {
    // S-197, S-228, S-229.
    let none = "Jwks doesn't have any valid public key";
    let garbage = r#"{"keys":[{"kty":"RSA","n":"!","e":"AQAB"}]}"#;
    for (keys, problem, status) in [
        (
            KeySource::Uri("https://a/jwks".into()),
            "https://a/jwks",
            Status::VerificationFails,
        ),
        (
            KeySource::Discovery,
            "not fetched",
            Status::VerificationFails,
        ),
        (
            KeySource::Inline("{".into()),
            "Jwks is an invalid JSON",
            Status::VerificationFails,
        ),
        (
            KeySource::Inline(r#"{"keys":[]}"#.into()),
            none,
            Status::JwksNoValidKey,
        ),
        (
            KeySource::Inline(garbage.into()),
            none,
            Status::JwksNoValidKey,
        ),
    ] {
        let source = keys.clone();
        let mut desk = Desk::new(&[JwtRule { keys, ..rule("a") }]);
        let findings = desk.rules.findings();
        assert!(
            findings.iter().any(|one| one.problem.contains(problem)),
            "{findings:?}"
        );
        let seen = desk.bearer(&token("a", json!({"sub": "s"})));
        assert_eq!(seen.status(), Err(status), "{source:?}");
        assert_eq!(desk.get(&[]).status(), Ok(()), "no token, no refusal");
    }
    assert_eq!(compiled(&[rule("a")]).findings(), []);
}

#[test]
fn an_empty_issuer_takes_every_issuer() {
    // S-222.
    let mut desk = Desk::new(&[JwtRule {
        keys: keys("a"),
        ..rule("")
    }]);
    let t = signed("a", &json!({"iss": "whoever", "sub": "s"}));
    for _ in 0..2 {
        assert_eq!(desk.bearer(&t).principal().as_deref(), Some("whoever/s"));
    }
    // Nor does it matter that a rule with an issuer verified it before.
    let mut desk = Desk::new(&[
        JwtRule {
            keys: keys("a"),
            ..in_header("", "x-0")
        },
        in_header("a", "x-a"),
    ]);
    let t = token("a", json!({"sub": "s"}));
    for name in ["x-a", "x-0"] {
        assert_eq!(desk.get(&[(name, &t)]).principal().as_deref(), Some("a/s"));
    }
    let mut desk = Desk::new(&[JwtRule {
        keys: keys("a"),
        ..rule("")
    }]);
    let nameless = signed("a", &json!({"sub": "s"}));
    let seen = desk.bearer(&nameless);
    assert_eq!((seen.status(), seen.principal()), (Ok(()), None), "S-226");
}

#[test]
fn a_refusal_says_where_and_what() {
    // S-217.
    let mut desk = Desk::new(&[JwtRule {
        audiences: vec!["x".into()],
        ..rule("a")
    }]);
    let refusal = |desk: &mut Desk, path: &str, lines: &[(&str, &str)]| {
        let seen = desk.ask("GET", path, lines);
        let refusal = seen.result.expect_err("it is refused");
        assert_eq!(
            format!("{refusal:?}"),
            format!("Refusal({:?})", refusal.status)
        );
        let challenge = String::from_utf8(refusal.challenge()).unwrap();
        (refusal.details(), refusal.status.http_status(), challenge)
    };
    let bad = ("authorization", "Bearer bad");
    assert_eq!(
        refusal(&mut desk, "/a/b?x=1", &[bad]),
        (
            "jwt_authn_access_denied{Jwt_is_not_in_the_form_of_Header.Payload.Signature_with_two_dots_and_3_sections}"
                .to_owned(),
            401,
            r#"Bearer realm="http://api.shop/a/b?x=1", error="invalid_token""#.to_owned()
        )
    );
    let other = format!("Bearer {}", token("a", json!({"aud": "y"})));
    assert_eq!(
        refusal(&mut desk, "/", &[("authorization", &other)]),
        (
            "jwt_authn_access_denied{Audiences_in_Jwt_are_not_allowed}".to_owned(),
            403,
            r#"Bearer realm="http://api.shop/", error="invalid_token""#.to_owned()
        )
    );
    let realm = |desk: &mut Desk, path: &str, lines: &[(&str, &str)]| {
        let (.., challenge) = refusal(desk, path, &[lines, &[bad]].concat());
        let rest = challenge.strip_prefix("Bearer realm=\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let long = format!("/{}", "a".repeat(300));
    assert_eq!(
        realm(&mut desk, &long, &[]).len(),
        "http://api.shop".len() + 256
    );
    for (line, expected) in [
        (("x-forwarded-proto", "https"), "https://api.shop/p"),
        (("x-forwarded-proto", "a b"), "http://api.shop/p"),
        (
            ("x-envoy-original-path", "/seen?y"),
            "http://api.shop/seen?y",
        ),
    ] {
        assert_eq!(realm(&mut desk, "/p", &[line]), expected);
    }
}

#[test]
fn nothing_that_is_printed_holds_a_token() {
    let mut outputs = rule("a");
    outputs.output_payload_to_header = Some("x-payload".into());
    let mut desk = Desk::new(&[outputs]);
    let t = token("a", json!({"sub": "alice"}));
    let seen = desk.bearer(&t);
    let shown = format!(
        "{:?} {:?} {:?} {}",
        seen.result, desk.cache, desk.heard, desk.heard
    );
    let refused = desk.ask("GET", "/?access_token=secret", &[]);
    let shown = format!("{shown} {:?} {}", refused.result, desk.heard);
    for secret in t.split('.').chain(["secret", "alice"]) {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(shown.contains("query parameter `access_token`"), "{shown}");
}

#[test]
fn an_explanation_is_a_tree_of_rules_and_tokens() {
    let mut desk = Desk::new(&[rule("a"), in_header("b", "x-b"), in_header("c", "x-c")]);
    let b = token("b", json!({"sub": "s"}));
    let bearer = format!("Bearer {b}");
    let lines = [("authorization", bearer.as_str()), ("x-b", b.as_str())];
    let tree = "a token was verified
issuer `a`: Jwt issuer is not configured (jwt.yaml:1:1)
  query parameter `access_token`: Jwt issuer is not configured
issuer `b`: verified (jwt.yaml:1:1)
  header `x-b`: verified
";
    // The last token is looked at first, and what fails there ends the rule (S-214).
    let path = format!("/?access_token={b}");
    desk.ask("GET", &path, &lines);
    assert_eq!(desk.heard.to_string(), tree);
    desk.get(&[("x-b", "bad")]);
    let tree = "refused: Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections
issuer `a`: Jwt is missing (jwt.yaml:1:1)
issuer `b`: Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections (jwt.yaml:1:1)
  header `x-b`: Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections
issuer `c`: Jwt is missing (jwt.yaml:1:1)
";
    assert_eq!(desk.heard.to_string(), tree);
    desk.rules = Rules::default();
    desk.get(&[]);
    let none = "no RequestAuthentication is in force\n";
    assert_eq!(desk.heard.to_string(), none);
    for (end, text) in [
        (End::Preflight, "a preflight is not asked for a token"),
        (End::NoToken, "no token, no request identity"),
    ] {
        assert_eq!(end.to_string(), text);
    }
}

#[test]
fn an_explanation_that_hears_a_token_before_a_rule_takes_no_note_of_it() {
    let mut heard = Explanation::default();
    heard.token(Place::Cookie("c"), Ok(()));
    heard.outcome(Ok(()));
    assert_eq!(heard, Explanation::default());
}

#[test]
fn a_finding_says_where_and_what_and_loading_warns_of_it() {
    // S-228.
    let mut doubtful = rule("a");
    doubtful.keys = KeySource::Discovery;
    let policies = [policy(vec![rule("b")]), policy(vec![doubtful])];
    let rules = compile(&[&policies[0], &policies[1]]);
    let shown: Vec<String> = rules.findings().iter().map(ToString::to_string).collect();
    let problem =
        "keys are not fetched yet: every token of `a` is refused until its keys stand in `jwks`";
    assert_eq!(shown, [format!("jwt.yaml:1:1: {problem}")]);
    let warned = warnings(&policies);
    assert_eq!(warned.len(), 1);
    assert_eq!(warned[0].message, problem);
    assert_eq!(warned[0].severity, crate::api::finding::Severity::Warning);
    assert!(warnings(&policies[..1]).is_empty());
}

#[test]
fn each_key_that_is_left_out_is_told_though_others_verify() {
    // S-229.
    let KeySource::Inline(text) = keys("a") else {
        panic!("keys are written in place");
    };
    let text = text.replace("[{", r#"[{"kty":"oct","k":""},{"#);
    let mut desk = Desk::new(&[JwtRule {
        keys: KeySource::Inline(text),
        ..rule("a")
    }]);
    let problems: Vec<&str> = desk
        .rules
        .findings()
        .iter()
        .map(|finding| finding.problem.as_str())
        .collect();
    assert_eq!(problems, ["a key of `jwks` is left out: key 1: k is empty"]);
    let t = token("a", json!({"sub": "s"}));
    assert_eq!(desk.bearer(&t).principal().as_deref(), Some("a/s"));
}

#[test]
fn the_realm_says_the_scheme_that_the_link_has() {
    // S-217.
    let rules = compiled(&[rule("a")]);
    for (tls, realm) in [(true, "https://api.shop/p"), (false, "http://api.shop/p")] {
        let presented = Presented {
            method: "GET",
            path: b"/p",
            authority: b"api.shop",
            tls,
            fields: Fields::listed(&[(b"authorization", b"Bearer bad")]),
        };
        let now = UnixTime(NOW * 1000);
        let outcome = authenticate(&rules, &presented, now, &mut Cache::default(), &mut ());
        let refusal = outcome.expect_err("it is refused");
        assert_eq!(String::from_utf8_lossy(&refusal.realm), realm);
    }
    let missing = Refusal {
        status: Status::Missing,
        realm: b"http://a/".to_vec(),
    };
    assert_eq!(missing.challenge(), b"Bearer realm=\"http://a/\"");
}
