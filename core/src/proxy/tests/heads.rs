//! What of a head reaches the other side.

use super::rig::*;
use crate::accept::Mode;
use crate::proxy::Input;
use std::sync::Arc;

const SLEEP: &str = "spiffe://cluster.local/ns/default/sa/sleep";
const CATALOG: &str = "spiffe://cluster.local/ns/default/sa/catalog";

/// The head that the application gets for these field lines.
fn forwarded(lines: &str) -> String {
    let mut rig = Rig::new(NO_ADMIN);
    rig.client_sending(format!("GET / HTTP/1.1\r\nhost: catalog\r\n{lines}\r\n"));
    let app = rig.connect();
    rig.got(app)
}

/// The head that the client gets for this one of the application.
fn answered(head: &str) -> String {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(get("/"));
    let app = rig.connect();
    rig.send(app, head);
    rig.got(client)
}

#[test]
fn hop_by_hop_fields_end_here() {
    let got = forwarded(
        "Connection: keep-alive, X-One\r\nx-one: 1\r\nX-Two: 2\r\nconnection: x-two\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\nX-Stays: \u{e9}\r\n",
    );
    for gone in [
        "connection",
        "x-one",
        "x-two",
        "keep-alive",
        "te",
        "upgrade",
        "http2-settings",
        "proxy-connection",
    ] {
        assert_eq!(field(&got, gone), None, "{gone}");
    }
    assert!(field(&got, "x-stays").is_some());
}

#[test]
fn what_a_client_says_of_itself_in_plain_text_is_not_believed() {
    // S-323 to S-325.
    let got = forwarded(
        "X-Forwarded-Client-Cert: By=x\r\nx-forwarded-CLIENT-cert: By=y\r\nX-Envoy-Internal: true\r\n\
         x-envoy-peer-metadata: a\r\nX-ENVOY-PEER-METADATA-ID: b\r\nx-envoy-retry-on: 5xx\r\nx-envoy-Force-Trace: true\r\n\
         x-envoy-decorator-operation: kept\r\nx-forwarded-proto: https\r\n",
    );
    for gone in [
        "x-forwarded-client-cert",
        "x-envoy-internal",
        "x-envoy-peer-metadata",
        "x-envoy-peer-metadata-id",
        "x-envoy-retry-on",
        "x-envoy-force-trace",
    ] {
        assert_eq!(field(&got, gone), None, "{gone}");
    }
    assert_eq!(field(&got, "x-envoy-decorator-operation"), Some("kept"));
    assert_eq!(field(&got, "x-forwarded-proto"), Some("https"), "S-322");
}

#[test]
fn an_application_cannot_claim_a_certificate_through_its_own_sidecar() {
    let mut rig = Rig::new(NO_ADMIN);
    let caller = rig.caller();
    rig.send(
        caller,
        "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-client-cert: By=x\r\n\r\n",
    );
    let peer = rig.connect();
    assert_eq!(
        field(&rig.got(peer), "x-forwarded-client-cert"),
        None,
        "S-325"
    );
}

#[test]
fn what_is_missing_is_added() {
    let got = forwarded("");
    assert_eq!(field(&got, "x-forwarded-proto"), Some("http"), "S-322");
    assert_eq!(field(&got, "x-request-id").map(str::len), Some(36));
    let got = forwarded("x-request-id: mine\r\n");
    assert_eq!(field(&got, "x-request-id"), Some("mine"));
    let got = forwarded("x-request-id:\r\n");
    assert_eq!(field(&got, "x-request-id").map(str::len), Some(36));
}

#[test]
fn lines_that_rules_judge_as_one_value_go_on_as_one() {
    // S-145: what was judged is `a,b`, so no application may find `b`.
    let got = forwarded(
        "Origin: a\r\nx-role: user\r\nCookie: a=1\r\norigin: b\r\nX-Role: admin\r\ncookie: b=2\r\nX-Request-Id:\r\n\
         x-request-id: 7\r\nx-request-id: 8\r\naccept: c\r\n",
    );
    for line in [
        "origin: a,b",
        "x-role: user",
        "cookie: a=1; b=2",
        "x-role: admin",
        "x-request-id: 7,8",
        "accept: c",
    ] {
        assert!(got.contains(&format!("\r\n{line}\r\n")), "{line}: {got}");
    }
    assert_eq!(got.lines().count(), 10, "{got}");
}

#[test]
fn framing_is_written_anew() {
    for (framing, body, sent) in [
        ("Content-Length: 3", "abc", "content-length: 3\r\n\r\nabc"),
        ("Content-Length: 003", "abc", "content-length: 3\r\n\r\nabc"),
        ("Content-Length: 0", "", "content-length: 0\r\n\r\n"),
        (
            "Transfer-Encoding: Chunked",
            "3;x=\"\"\r\nabc\r\n0;y\r\nx-t: 1\r\n\r\n",
            "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
    ] {
        let mut rig = Rig::new(NO_ADMIN);
        rig.client_sending(format!(
            "POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\nx: y\r\n\r\n{body}"
        ));
        let app = rig.connect();
        let got = rig.got(app);
        assert!(got.ends_with(&format!("\r\n{sent}")), "{framing}: {got}");
    }
}

#[test]
fn lines_that_are_judged_as_one_go_out_as_one() {
    // S-145.
    for (lines, joined) in [
        ("Accept: a\r\nx: y\r\naccept: b\r\n", "a,b"),
        ("Accept: a\r\naccept:\r\naccept: b\r\n", "a,b"),
        ("Accept:\r\naccept: b\r\n", "b"),
        ("Accept:\r\naccept:\r\n", ""),
    ] {
        let got = forwarded(lines);
        assert_eq!(field(&got, "accept"), Some(joined), "{got}");
        assert_eq!(got.matches("\r\naccept:").count(), 1, "{got}");
    }
}

#[test]
fn a_method_that_goes_with_a_body_says_that_there_is_none() {
    for (method, says) in [
        ("POST", true),
        ("PUT", true),
        ("PATCH", true),
        ("OPTIONS", true),
        ("PURGE", true),
        ("GET", false),
        ("HEAD", false),
        ("DELETE", false),
        ("TRACE", false),
    ] {
        let mut rig = Rig::new(NO_ADMIN);
        rig.client_sending(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n"));
        let app = rig.connect();
        let got = rig.got(app);
        let length = field(&got, "content-length");
        assert_eq!(length, says.then_some("0"), "{method}: {got}");
    }
}

#[test]
fn an_answer_has_one_framing() {
    let got = answered("HTTP/1.1 200 OK\r\nContent-Length: 02\r\n\r\nok");
    assert!(got.ends_with("\r\ncontent-length: 2\r\n\r\nok"), "{got}");
    let got = answered(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n2;e\r\nok\r\n0\r\nx: y\r\n\r\n",
    );
    assert!(
        got.ends_with("\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        "{got}"
    );
    let got = answered("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(
        (
            field(&got, "content-length"),
            field(&got, "transfer-encoding")
        ),
        (None, None)
    );
    let got = answered("HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n");
    assert_eq!(field(&got, "content-length"), Some("7"));
    for broken in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n",
        "HTTP/1.1 200 OK\nx: a\n\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
    ] {
        assert!(answered(broken).starts_with("HTTP/1.1 502 "), "{broken:?}");
    }
}

#[test]
fn the_answer_to_head_has_no_body() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n");
    let app = rig.connect();
    rig.send(app, "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n");
    let got = rig.got(client);
    assert!(got.ends_with("\r\ncontent-length: 7\r\n\r\n"), "{got}");
    rig.send(client, "HEAD /admin HTTP/1.1\r\nhost: a\r\n\r\n");
    let got = rig.got(client);
    assert!(
        got.contains("content-length: 19\r\n") && got.ends_with("\r\n\r\n"),
        "{got}"
    );
    rig.send(client, get("/"));
    rig.send(app, ok("next"));
    assert!(rig.got(client).ends_with("next"), "the link goes on");
}

#[test]
fn the_reason_is_ours() {
    let got = answered("HTTP/1.1 299 Whatever it says\r\ncontent-length: 0\r\n\r\n");
    assert!(got.starts_with("HTTP/1.1 299 Unknown\r\n"), "{got}");
}

fn secured() -> (Rig, Ca) {
    secured_by(NO_ADMIN)
}

fn secured_by(policies: &str) -> (Rig, Ca) {
    let ca = Ca::new();
    let mut rig = Rig::with_mode(Mode::Strict, policies);
    rig.input(Input::Svid(Arc::new(ca.issue(CATALOG))));
    (rig, ca)
}

#[test]
fn a_client_certificate_is_appended_to_what_came() {
    let (mut rig, ca) = secured();
    let svid = ca.issue(SLEEP);
    let mut client = TlsClient::new(&mut rig, &svid, CATALOG);
    let came = "By=spiffe://a/b;Hash=00;Subject=\"CN=\\\"x\";URI=spiffe://c/d";
    client.send(
        &mut rig,
        format!("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-client-cert: {came}\r\n\r\n"),
    );
    let app = rig.connect();
    let got = rig.got(app);
    assert_eq!(field(&got, "x-forwarded-proto"), Some("https"));
    let xfcc = field(&got, "x-forwarded-client-cert").expect("ours");
    let ours = xfcc.strip_prefix(came).expect("what came stands first");
    assert!(
        ours.starts_with(&format!(",By={CATALOG};Hash=")),
        "S-325: {xfcc}"
    );
    assert!(
        ours.ends_with(&format!(";Subject=\"\";URI={SLEEP}")),
        "{xfcc}"
    );
    rig.send(app, ok("fine"));
    assert!(client.got(&mut rig).ends_with("fine"));
    assert_eq!(rig.record().peer.as_deref(), Some(SLEEP));
}

#[test]
fn rules_see_the_certificate_that_the_application_is_told_of() {
    // S-325: a client may write elements, but ours is the last.
    let allow = |uri: &str| {
        let condition =
            format!("{{key: 'request.headers[x-forwarded-client-cert]', values: ['*;URI={uri}']}}");
        let meta = "metadata: {name: told, namespace: default}";
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n{meta}\nspec: {{rules: [{{when: [{condition}]}}]}}\n"
        )
    };
    let admin = "spiffe://cluster.local/ns/default/sa/admin";
    for (told, passes) in [(admin, false), (SLEEP, true)] {
        let (mut rig, ca) = secured_by(&allow(told));
        let svid = ca.issue(SLEEP);
        let mut client = TlsClient::new(&mut rig, &svid, CATALOG);
        client.send(
            &mut rig,
            format!(
                "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-client-cert: By=x;URI={admin}\r\n\r\n"
            ),
        );
        assert_eq!(rig.dialled().is_some(), passes, "{told}");
    }
}

/// RFC 8446 §6.1: close_notify ends one direction, and what came before it is still to be answered.
#[test]
fn what_came_with_the_end_of_a_tls_client_is_answered() {
    let (mut rig, ca) = secured();
    let svid = ca.issue(SLEEP);
    let mut client = TlsClient::new(&mut rig, &svid, CATALOG);
    client.send_and_finish(&mut rig, get("/1") + &get("/admin") + &get("/2"));
    let app = rig.connect();
    rig.send(app, ok("first"));
    rig.send(app, ok("second"));
    let got = client.got(&mut rig);
    assert!(got.contains("first") && got.ends_with("second"), "{got}");
    assert!(got.contains("403 Forbidden"), "{got}");
    assert_eq!(rig.end(client.link), End::Finished);
    assert_eq!(rig.records().len(), 3);
}

#[test]
fn a_claim_that_would_swallow_the_true_element_is_dropped() {
    for came in [
        "By=x;URI=spiffe://c/admin;Subject=\"",
        "By=x;Subject=\"\\\"",
        "By=x;Subject=\"\\\\\"",
        "URI=\"spiffe://c/admin",
        "\"",
        "Subject=\"a\" \"",
    ] {
        let (mut rig, ca) = secured();
        let svid = ca.issue(SLEEP);
        let mut client = TlsClient::new(&mut rig, &svid, CATALOG);
        client.send(
            &mut rig,
            format!("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-client-cert: By=one\r\nx-forwarded-client-cert: {came}\r\n\r\n"),
        );
        let app = rig.connect();
        let got = rig.got(app);
        let xfcc = field(&got, "x-forwarded-client-cert").expect("ours");
        assert!(
            xfcc.starts_with(&format!("By=one,By={CATALOG};")),
            "{came}: {xfcc}"
        );
    }
}
