//! Who is answered by whom, and what the record says of it.

use std::time::Duration;

use super::rig::*;
use crate::accept::Mode;
use crate::limits;
use crate::link::CloseCause;
use crate::proxy::Input;
use crate::telemetry::record::Flags;

const REFUSED: &str = "delayed connect error: Connection refused";

#[test]
fn a_denied_request_never_connects() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(get("/x/..//../admin/users?q"));
    assert_eq!(rig.dialled(), None);
    let got = rig.got(client);
    assert!(got.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{got}");
    assert!(got.ends_with("\r\n\r\nRBAC: access denied"), "S-118: {got}");
    let record = rig.record();
    assert_eq!(record.status, 403);
    assert!(record.flags.is_empty(), "S-118");
    assert_eq!(
        record.details.as_deref(),
        Some("rbac_access_denied_matched_policy[ns[default]-policy[no-admin]-rule[0]]")
    );
    assert_eq!(record.path.as_deref(), Some("/admin/users?q"));
}

#[test]
fn nobody_may_means_nobody() {
    let mut rig = Rig::new(NOBODY);
    rig.client_sending(get("/"));
    assert_eq!(rig.dialled(), None);
    let details = rig.record().details;
    assert_eq!(
        details.as_deref(),
        Some("rbac_access_denied_matched_policy[none]")
    );
}

#[test]
fn a_request_that_is_denied_has_its_id_like_any_other() {
    // S-322: it is given before anything decides.
    let mut rig = Rig::new(NOBODY);
    let client = rig.client_sending(get("/"));
    let id = rig.record().request_id.expect("it was given one");
    assert_eq!(id.len(), 36);
    rig.send(
        client,
        "GET / HTTP/1.1\r\nhost: a\r\nx-request-id: mine\r\n\r\n",
    );
    assert_eq!(rig.record().request_id.as_deref(), Some("mine"));
    rig.send(client, "GET / HTTP/1.1\r\nhost: a\r\nx-request-id:\r\n\r\n");
    assert_eq!(rig.record().request_id.map(|id| id.len()), Some(36));
}

#[test]
fn grpc_clients_are_answered_in_their_words() {
    // S-119.
    let request = |path, body| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nContent-Type: application/grpc\r\ncontent-length: {body}\r\n\r\n"
        )
    };
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(request("/admin.Users/Get", 0));
    let got = rig.got(client);
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{got}");
    assert_eq!(field(&got, "content-type"), Some("application/grpc"));
    assert_eq!(field(&got, "grpc-status"), Some("7"));
    assert_eq!(field(&got, "grpc-message"), Some("RBAC: access denied"));
    assert!(got.ends_with("\r\n\r\n"), "{got}");
    let record = rig.record();
    assert_eq!((record.status, record.bytes_sent), (200, 0));
    assert_eq!(
        record.details.as_deref(),
        Some("rbac_access_denied_matched_policy[ns[default]-policy[no-admin]-rule[0]]")
    );

    rig.send(client, request("/pkg.Users/Get", 0));
    for _ in 0..3 {
        rig.refuse();
    }
    assert_eq!(field(&rig.got(client), "grpc-status"), Some("14"));

    rig.send(client, request("/admin.Users/Put", 9));
    let got = rig.got(client);
    assert_eq!(field(&got, "grpc-status"), Some("7"));
    assert_eq!(field(&got, "connection"), Some("close"));
    assert_eq!(rig.end(client), End::Finished);
}

#[test]
fn what_was_judged_is_what_is_forwarded() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(
        "GET http://other:81/a/./%62/../c?x=/../#/admin HTTP/1.1\r\nhost: catalog\r\n\r\n",
    );
    let app = rig.connect();
    let got = rig.got(app);
    assert!(
        got.starts_with("GET /a/c?x=/../ HTTP/1.1\r\nhost: other:81\r\n"),
        "{got}"
    );
    rig.send(app, ok("fine"));
    assert!(rig.got(client).ends_with("\r\n\r\nfine"));
    let record = rig.record();
    assert_eq!(record.path.as_deref(), Some("/a/c?x=/../"));
    assert_eq!(record.authority.as_deref(), Some("other:81"));
}

#[test]
fn an_escaped_nul_is_answered_before_policies_are_asked() {
    let mut rig = Rig::new(NOBODY);
    let client = rig.client_sending(get("/a%00"));
    assert!(rig.got(client).starts_with("HTTP/1.1 400 "));
    let details = rig.record().details;
    assert_eq!(details.as_deref(), Some("path_normalization_failed"));
}

#[test]
fn options_of_the_whole_server_reach_no_application() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(rig.dialled(), None);
    assert!(rig.got(client).starts_with("HTTP/1.1 404 Not Found\r\n"));
    let record = rig.record();
    assert_eq!(record.path.as_deref(), Some("*"));
    assert_eq!(record.details.as_deref(), Some("absolute_path_rejected"));
}

#[test]
fn connect_and_upgrades_are_refused() {
    for request in [
        "CONNECT catalog:80 HTTP/1.1\r\nhost: catalog:80\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ] {
        let mut rig = Rig::new(NO_ADMIN);
        let client = rig.client_sending(request);
        assert_eq!(rig.dialled(), None);
        assert!(rig.got(client).starts_with("HTTP/1.1 403 Forbidden\r\n"));
        assert_eq!(rig.end(client), End::Finished);
        assert_eq!(rig.record().details.as_deref(), Some("upgrade_failed"));
    }
}

#[test]
fn a_refused_connection_is_tried_three_times() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(get("/"));
    for _ in 0..3 {
        assert_eq!(rig.got(client), "");
        rig.refuse();
    }
    assert_eq!(rig.dialled(), None);
    let got = rig.got(client);
    assert!(
        got.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{got}"
    );
    assert!(
        got.ends_with("\r\n\r\nupstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote connection failure, transport failure reason: delayed connect error: Connection refused"),
        "S-59: {got}"
    );
    let record = rig.record();
    assert_eq!(record.flags, Flags::UF.with(Flags::URX), "S-66");
    assert_eq!(record.upstream_failure.as_deref(), Some(REFUSED));
    assert_eq!(record.upstream_host, Some(address(APP)), "the last one");
    assert_eq!(record.upstream_local, None);

    // The client may go on.
    rig.send(client, get("/"));
    let app = rig.connect();
    rig.send(app, ok("fine"));
    assert!(rig.got(client).ends_with("fine"));
}

#[test]
fn an_upstream_that_ends_before_its_answer_gives_503_uc() {
    for cause in [None, Some(CloseCause::Reset)] {
        let mut rig = Rig::new(NO_ADMIN);
        let client = rig.client_sending(get("/"));
        let app = rig.connect();
        match cause {
            None => rig.finish(app),
            Some(cause) => rig.close(app, cause),
        }
        assert_eq!(rig.dialled(), None, "S-66: it is not tried again");
        let got = rig.got(client);
        assert!(
            got.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
            "{got}"
        );
        assert!(got.ends_with("\r\n\r\nupstream connect error or disconnect/reset before headers. reset reason: connection termination"), "S-64: {got}");
        let record = rig.record();
        assert_eq!(record.flags, Flags::UC);
        assert_eq!(
            record.details.as_deref(),
            Some("upstream_reset_before_response_started{connection_termination}")
        );
    }
}

#[test]
fn an_answer_that_is_no_http_gives_502() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(get("/"));
    let app = rig.connect();
    rig.send(app, "SSH-2.0-x\r\n");
    assert!(rig.got(client).starts_with("HTTP/1.1 502 Bad Gateway\r\n"));
    assert_eq!(rig.end(app), End::Reset);
    assert_eq!(rig.record().flags, Flags::UPE);
}

#[test]
fn an_answer_cut_short_cuts_the_client_off() {
    for (answer, cut) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", true),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            true,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nwhole", false),
    ] {
        let mut rig = Rig::new(NO_ADMIN);
        let client = rig.client_sending(get("/"));
        let app = rig.connect();
        rig.send(app, answer);
        rig.finish(app);
        let got = rig.got(client);
        let record = rig.record();
        if cut {
            assert_eq!(rig.end(client), End::Reset, "{answer:?}");
            assert_eq!(record.flags, Flags::UC);
            assert_eq!(record.bytes_sent, 4);
        } else {
            assert!(
                got.ends_with("\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n"),
                "{got}"
            );
            assert!(record.flags.is_empty());
        }
    }
}

#[test]
fn violations_are_answered_once_and_end_the_link() {
    for (request, status, body, details) in [
        (
            "GET / HTTP/1.0\r\nhost: a\r\n\r\n",
            426,
            "Upgrade Required",
            "low_version",
        ),
        ("GET / HTTP/1.1\r\n\r\n", 400, "", "missing_host_header"),
        (
            "get / HTTP/1.1\r\nhost: a\r\n\r\n",
            400,
            "Bad Request",
            "http1.codec_error",
        ),
        (
            "GET a HTTP/1.1\r\nhost: a\r\n\r\n",
            400,
            "Bad Request",
            "http1.invalid_url",
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "Bad Request",
            "http1.content_length_and_chunked_not_allowed",
        ),
        (
            "GET / HTTP/1.1\r\nhost: a\r\nx_forwarded_client_cert: By=x\r\n\r\n",
            400,
            "Bad Request",
            "http1.unexpected_underscore",
        ),
        (
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: x-forwarded-for\r\n\r\n",
            400,
            "Bad Request",
            "http1.connection_header_rejected",
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
            501,
            "Not Implemented",
            "http1.invalid_transfer_encoding",
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\nexpect: magic\r\ncontent-length: 1\r\n\r\n",
            417,
            "Expectation Failed",
            "http1.codec_error",
        ),
    ] {
        let mut rig = Rig::new(NO_ADMIN);
        let client = rig.client_sending(format!("{request}{}", get("/smuggled")));
        assert_eq!(rig.dialled(), None, "{request:?}");
        let got = rig.got(client);
        assert!(
            got.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:?}: {got}"
        );
        assert!(
            got.ends_with(&format!("\r\nconnection: close\r\n\r\n{body}")),
            "{got}"
        );
        assert_eq!(rig.end(client), End::Finished);
        let record = rig.record();
        assert_eq!(record.status, status);
        assert_eq!(record.flags, Flags::DPE);
        assert_eq!(record.details.as_deref(), Some(details));
    }
}

#[test]
fn a_head_beyond_its_limit_gets_431() {
    let mut rig = Rig::new(NO_ADMIN);
    let big = "a".repeat(limits::HEAD_MAX);
    let client = rig.client_sending(format!("GET / HTTP/1.1\r\nhost: a\r\nx: {big}\r\n\r\n"));
    let got = rig.got(client);
    assert!(got.starts_with("HTTP/1.1 431 "), "{got}");
    let many = "x: y\r\n".repeat(limits::FIELDS_MAX);
    let client = rig.client_sending(format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"));
    assert!(rig.got(client).starts_with("HTTP/1.1 431 "));
    for record in rig.records() {
        assert_eq!(record.details.as_deref(), Some("request_headers_too_large"));
    }
}

#[test]
fn a_body_that_breaks_its_framing_never_ends_at_the_upstream() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    );
    let app = rig.connect();
    assert!(rig.got(app).ends_with("\r\n\r\n3\r\nabc\r\n"));
    rig.send(client, "0x\r\n\r\n");
    assert_eq!(rig.got(app), "");
    assert_eq!(rig.end(app), End::Reset);
    assert!(rig.got(client).starts_with("HTTP/1.1 400 "));
    let record = rig.record();
    assert_eq!(record.flags, Flags::DPE);
    assert_eq!(record.bytes_received, 3);
}

#[test]
fn a_client_that_leaves_takes_its_upstream_along() {
    for whole in [true, false] {
        let mut rig = Rig::new(NO_ADMIN);
        let client = rig.client_sending(if whole {
            get("/")
        } else {
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc".to_owned()
        });
        let app = rig.connect();
        rig.close(client, CloseCause::Reset);
        assert_eq!(rig.end(app), End::Reset);
        let record = rig.record();
        assert_eq!(record.flags, Flags::DC);
        assert_eq!(
            record.details.as_deref(),
            Some("downstream_remote_disconnect")
        );
        assert_eq!(record.status, 0);
    }
}

#[test]
fn a_slow_head_gets_408_and_a_slow_body_too() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending("GET / HTTP/1.1\r\nhost: a\r\n");
    for _ in 0..7 {
        rig.wait(limits::HEAD_TIMEOUT / 10);
        rig.send(client, "x: y\r\n");
    }
    rig.wait(limits::HEAD_TIMEOUT / 10 * 3 + Duration::from_millis(1));
    assert!(rig.got(client).starts_with("HTTP/1.1 408 "));
    assert_eq!(rig.end(client), End::Finished);
    assert_eq!(rig.record().status, 408);

    let client = rig.client_sending("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc");
    let app = rig.connect();
    rig.wait(limits::BODY_TIMEOUT + Duration::from_secs(1));
    assert!(rig.got(client).starts_with("HTTP/1.1 408 "));
    assert_eq!(rig.end(app), End::Reset);
    assert_eq!(rig.record().flags, Flags::SI);
}

#[test]
fn a_slow_answer_is_waited_for() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(get("/"));
    let app = rig.connect();
    rig.wait(Duration::from_secs(7 * 24 * 3600));
    rig.send(app, ok("late"));
    assert!(rig.got(client).ends_with("late"));
}

#[test]
fn a_port_that_is_gone_answers_404() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(&get("/")[..20]);
    rig.apply_nothing();
    rig.send(client, &get("/")[20..]);
    assert!(rig.got(client).starts_with("HTTP/1.1 404 "));
    assert_eq!(rig.end(client), End::Finished);
    let record = rig.record();
    assert_eq!(record.flags, Flags::NR);
    assert_eq!(record.details.as_deref(), Some("route_not_found"));
}

#[test]
fn every_request_has_one_record() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending([get("/1"), get("/admin"), get("/2"), get("/3")].concat());
    let app = rig.connect();
    rig.send(app, ok("1"));
    rig.send(app, ok("2"));
    rig.input(Input::Drain {
        grace: Duration::from_secs(9),
    });
    rig.close(client, CloseCause::Reset);
    rig.wait(Duration::from_secs(10));
    let records = rig.records();
    let of: Vec<(&str, u16)> = records
        .iter()
        .map(|r| (r.path.as_deref().unwrap_or_default(), r.status))
        .collect();
    assert_eq!(of, [("/1", 200), ("/admin", 403), ("/2", 200), ("/3", 0)]);
}

#[test]
fn a_request_is_judged_by_the_snapshot_of_its_head() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(get("/one"));
    let app = rig.connect();
    assert!(rig.got(app).starts_with("GET /one "));
    rig.apply(Mode::Disable, NOBODY);
    rig.send(app, ok("one"));
    assert!(rig.got(client).ends_with("one"), "what was decided stays");
    rig.send(client, get("/two"));
    assert!(rig.got(client).starts_with("HTTP/1.1 403 "));
    assert_eq!(rig.dialled(), None);
    assert_eq!(rig.got(app), "");
}
