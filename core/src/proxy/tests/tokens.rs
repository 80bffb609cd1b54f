//! Requests with tokens, byte by byte.

use super::rig::*;
use crate::accept::Mode;
use crate::limits;

const JWT: &str = r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata:
  name: jwt
  namespace: default
spec:
  jwtRules:
  - issuer: "https://issuer.example"
    jwks: '{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"J8m_YtvEeHNjcpHiWAiVnuK706HUxKaw2V4IBIz5Q1s","y":"aPnaahgNxLkcWSkTNmuzJIGI-UL-vjCQaH2piBobwEM"}]}'
    outputClaimToHeaders:
    - header: x-sub
      claim: sub
"#;
/// Of alice, for ever.
const ALICE: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2UiLCJvIjp7InAiOlsidiJdfSwibiI6NDIsInNjb3BlIjoicmVhZCB3cml0ZSJ9.UhCeJYu0tteqyeQyQKhFXFAd7mlHp8XF5NyUvRoxqIooyTmssu1KjPhdG-OdYofRXQFJtxgIAbWwk1RUdQnyoA";
/// Of alice, until 2000.
const EXPIRED: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2UiLCJleHAiOjk0NjY4NDgwMH0.5T5U3PRDGuQ-_sWlUNdtfC19XwgVHRq2mEr90PbeQEmHk7xho4i5uQJHlw6_V8_6yHFsBdPyreM2_9LYWyRcpw";

fn bearer(method: &str, token: &str, more: &str) -> String {
    format!("{method} /a?b HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n{more}\r\n")
}

#[test]
fn a_bad_token_is_answered_and_nothing_reaches_the_application() {
    // S-217.
    let mut rig = Rig::new(JWT);
    let client = rig.client_sending(bearer("GET", EXPIRED, ""));
    assert_eq!(
        rig.got(client),
        "HTTP/1.1 401 Unauthorized\r\ncontent-length: 14\r\ncontent-type: text/plain\r\n\
         www-authenticate: Bearer realm=\"http://a/a?b\", error=\"invalid_token\"\r\n\
         date: Fri, 02 Jan 2026 03:04:05 GMT\r\nserver: istio-envoy\r\n\r\nJwt is expired"
    );
    assert_eq!(rig.dialled(), None);
    assert_eq!(rig.proxy.stats().denied, 1);
    let record = rig.record();
    assert_eq!((record.status, record.bytes_sent), (401, 14));
    assert!(record.flags.is_empty());
    let details = "jwt_authn_access_denied{Jwt_is_expired}";
    assert_eq!(record.details.as_deref(), Some(details));
    let id = record.request_id.expect("S-322: it was given one");
    assert_eq!(id.len(), 36);

    // The answer to HEAD has no body, and the connection goes on.
    rig.send(client, bearer("HEAD", EXPIRED, ""));
    let got = rig.got(client);
    assert!(got.starts_with("HTTP/1.1 401 "), "{got}");
    assert!(got.ends_with("\r\n\r\n"), "{got}");
    rig.send(client, bearer("GET", ALICE, ""));
    rig.connect();
}

#[test]
fn a_body_behind_a_bad_token_ends_the_connection() {
    let mut rig = Rig::new(JWT);
    let more = "content-length: 5\r\n";
    let client = rig.client_sending(bearer("POST", EXPIRED, more));
    let got = rig.got(client);
    assert_eq!(field(&got, "connection"), Some("close"));
    rig.send(client, "GET /");
    assert_eq!(rig.got(client), "");
    assert_eq!(rig.dialled(), None);
}

#[test]
fn a_good_token_says_who_and_goes_no_further() {
    // S-224, S-225.
    let mut rig = Rig::new(JWT);
    let client = rig.client_sending(bearer("GET", ALICE, "x-request-id: 1\r\nX-Sub: admin\r\n"));
    let app = rig.connect();
    let expected = "GET /a?b HTTP/1.1\r\nhost: a\r\nx-request-id: 1\r\nx-forwarded-proto: http\r\nx-sub: alice\r\n\r\n";
    assert_eq!(rig.got(app), expected);
    rig.send(app, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert!(rig.got(client).starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(rig.record().path.as_deref(), Some("/a?b"));

    // By the query; the record has the path as the application got it.
    let path = format!("/a?access_token={ALICE}&b");
    rig.send(
        client,
        format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-request-id: 1\r\n\r\n"),
    );
    assert_eq!(rig.got(app), expected);
    rig.send(app, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(rig.record().path.as_deref(), Some("/a?b"));
}

#[test]
fn without_a_token_nobody_is_anybody() {
    // S-211, S-225.
    let mut rig = Rig::new(JWT);
    rig.client_sending("GET / HTTP/1.1\r\nhost: a\r\nx-request-id: 1\r\nx-sub: admin\r\n\r\n");
    let app = rig.connect();
    assert_eq!(
        rig.got(app),
        "GET / HTTP/1.1\r\nhost: a\r\nx-request-id: 1\r\nx-forwarded-proto: http\r\n\r\n"
    );
}

#[test]
fn a_token_is_asked_for_before_policies_and_after_the_path() {
    // S-110, S-232.
    let mut rig = Rig::new(&format!("{JWT}---{NOBODY}"));
    let client = rig.client_sending(bearer("GET", EXPIRED, ""));
    assert!(rig.got(client).starts_with("HTTP/1.1 401 "));
    rig.send(client, bearer("GET", ALICE, ""));
    assert!(rig.got(client).starts_with("HTTP/1.1 403 "));
    rig.send(client, bearer("GET", EXPIRED, "").replace("/a?b", "/%00"));
    assert!(rig.got(client).starts_with("HTTP/1.1 400 "));
    assert_eq!(rig.dialled(), None);
}

#[test]
fn what_an_application_calls_is_not_asked_for_a_token() {
    // S-122, S-231.
    let mut rig = Rig::new(JWT);
    let caller = rig.caller();
    rig.send(caller, bearer("GET", EXPIRED, ""));
    let peer = rig.connect();
    let got = rig.got(peer);
    let expected = format!("Bearer {EXPIRED}");
    assert_eq!(field(&got, "authorization"), Some(expected.as_str()));
}

#[test]
fn a_token_is_forgotten_when_its_rule_goes() {
    let mut rig = Rig::new(JWT);
    let client = rig.client_sending(bearer("GET", ALICE, ""));
    let app = rig.connect();
    rig.send(app, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    rig.got(client);
    assert_eq!(rig.proxy.shared.tokens.len(), 1);
    rig.apply(Mode::Disable, JWT);
    assert_eq!(rig.proxy.shared.tokens.len(), 1, "nothing changed");
    rig.apply(
        Mode::Disable,
        &JWT.replace("\"kid\":\"k\"", "\"kid\":\"other\""),
    );
    assert!(rig.proxy.shared.tokens.is_empty());
    rig.send(client, bearer("GET", ALICE, ""));
    let got = rig.got(client);
    assert!(
        got.ends_with("Jwks doesn't have key to match kid or alg from Jwt"),
        "{got}"
    );
}

#[test]
fn a_line_of_one_hop_holds_no_token() {
    // RFC 9110 §7.6.1: the application does not get it, so nobody is who it says.
    let by_header = JWT.replace("    jwks:", "    fromHeaders: [{name: x-jwt}]\n    jwks:");
    let mut rig = Rig::new(&by_header);
    rig.client_sending(format!(
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: x-jwt\r\nx-jwt: {ALICE}\r\n\r\n"
    ));
    let app = rig.connect();
    assert_eq!(field(&rig.got(app), "x-sub"), None);
    // Nor is a question of a browser asked in such lines.
    let client = rig.client_sending(format!(
        "OPTIONS / HTTP/1.1\r\nhost: a\r\nconnection: origin\r\norigin: o\r\naccess-control-request-method: GET\r\nx-jwt: {EXPIRED}\r\n\r\n"
    ));
    assert!(rig.got(client).starts_with("HTTP/1.1 401 "));
}

#[test]
fn one_token_in_many_forms_does_not_buy_as_many_signatures() {
    let by_header = JWT.replace("    jwks:", "    fromHeaders: [{name: x-jwt}]\n    jwks:");
    let dots = |count: usize| {
        let lines = (1..=count).map(|n| {
            let (signed, signature) = ALICE.rsplit_once('.').expect("a token");
            format!("x-jwt: {signed}{}{signature}\r\n", ".".repeat(n))
        });
        let lines: String = lines.collect();
        format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}\r\n")
    };
    let mut rig = Rig::new(&by_header);
    let client = rig.client_sending(dots(limits::TOKENS_MAX + 1));
    assert!(rig.got(client).starts_with("HTTP/1.1 401 "));
    assert!(rig.proxy.shared.tokens.is_empty());
    rig.send(client, dots(limits::TOKENS_MAX));
    let app = rig.connect();
    assert_eq!(field(&rig.got(app), "x-sub"), Some("alice"));
}
