//! Links and their reuse: pipelining, pools, back-pressure, ends and half ends, draining.

use std::time::Duration;

use super::rig::*;
use crate::accept::{Mode, PortKind};
use crate::limits;
use crate::link::CloseCause;
use crate::proxy::Input;
use crate::telemetry::record::Flags;

fn post(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: catalog\r\ncontent-length: {length}\r\n\r\n")
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending([get("/1"), get("/admin"), get("/2")].concat());
    let app = rig.connect();
    let got = rig.got(app);
    assert!(got.starts_with("GET /1 ") && !got.contains("/2"), "{got}");
    assert_eq!(rig.got(client), "", "the second answer waits for the first");
    rig.send(app, ok("first"));
    let got = rig.got(client);
    let denial = got.find("HTTP/1.1 403").expect("a denial");
    assert!(got.find("first").is_some_and(|at| at < denial), "{got}");
    assert!(rig.got(app).starts_with("GET /2 "));
    rig.send(app, ok("second"));
    assert!(rig.got(client).ends_with("second"));
    assert_eq!(rig.dialled(), None, "one link served both");
}

#[test]
fn an_idle_link_serves_the_next_client() {
    let mut rig = Rig::new(NO_ADMIN);
    let first = rig.client_sending(get("/1"));
    let app = rig.connect();
    rig.send(app, ok("first"));
    let second = rig.client_sending(get("/2"));
    assert_eq!(rig.dialled(), None);
    assert!(rig.got(app).contains("GET /2 "));
    rig.send(app, ok("second"));
    assert!(rig.got(first).ends_with("first"));
    assert!(rig.got(second).ends_with("second"));
}

#[test]
fn a_link_with_surplus_bytes_serves_nobody_else() {
    let mut rig = Rig::new(NO_ADMIN);
    let first = rig.client_sending(get("/1"));
    let app = rig.connect();
    rig.send(app, ok("first") + &ok("poison"));
    assert_eq!(rig.end(app), End::Reset);
    assert!(rig.got(first).ends_with("first"));

    rig.send(first, get("/2"));
    let app = rig.connect();
    rig.send(app, ok("second"));
    rig.send(app, ok("poison"));
    assert_eq!(rig.end(app), End::Reset, "an idle link has nothing to say");
    assert!(rig.got(first).ends_with("second"));
}

#[test]
fn a_link_whose_answer_says_close_serves_nobody_else() {
    for answer in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ] {
        let mut rig = Rig::new(NO_ADMIN);
        let client = rig.client_sending(get("/1"));
        let app = rig.connect();
        rig.send(app, answer);
        let got = rig.got(client);
        assert!(
            got.ends_with("ok") && field(&got, "connection").is_none(),
            "{got}"
        );
        assert_eq!(rig.end(app), End::Finished);
        rig.send(client, get("/2"));
        rig.connect();
    }
}

#[test]
fn an_answer_before_the_end_of_its_request_ends_both_links() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(post("/", 9) + "abc");
    let app = rig.connect();
    rig.send(app, ok("early"));
    let got = rig.got(client);
    assert_eq!(field(&got, "connection"), Some("close"));
    assert!(got.ends_with("early"), "{got}");
    assert_eq!(rig.end(client), End::Finished);
    assert_eq!(rig.end(app), End::Reset);
    rig.send(client, format!("defghi{}", get("/smuggled")));
    assert_eq!(rig.dialled(), None);
    assert_eq!(rig.records().len(), 1);
}

#[test]
fn nothing_is_read_as_a_request_after_a_refused_body() {
    let mut rig = Rig::new(NO_ADMIN);
    let inner = get("/smuggled");
    let client = rig.client_sending(post("/admin", inner.len()) + &inner + &get("/after"));
    assert_eq!(rig.dialled(), None);
    assert_eq!(rig.got(client).matches("HTTP/1.1 ").count(), 1);
    assert_eq!(rig.records().len(), 1);
}

#[test]
fn nothing_after_connection_close_is_a_request() {
    let mut rig = Rig::new(NO_ADMIN);
    let first = "GET /1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let client = rig.client_sending(first.to_owned() + &get("/2"));
    let app = rig.connect();
    rig.send(app, ok("first"));
    let got = rig.got(client);
    assert_eq!(field(&got, "connection"), Some("close"));
    assert_eq!(rig.end(client), End::Finished);
    assert!(!rig.got(app).contains("/2"));
    assert_eq!(rig.dialled(), None);
}

#[test]
fn a_client_that_finished_its_direction_gets_its_answers() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending([get("/1"), get("/admin"), get("/2")].concat());
    rig.finish(client);
    let app = rig.connect();
    rig.send(app, ok("first"));
    rig.send(app, ok("second"));
    let got = rig.got(client);
    assert!(got.contains("first") && got.ends_with("second"), "{got}");
    assert!(got.contains("403 Forbidden"), "{got}");
    assert_eq!(rig.end(client), End::Finished);
    assert_eq!(rig.records().len(), 3);
}

#[test]
fn a_client_that_finished_inside_a_request_gets_nothing_more() {
    for rest in [
        &get("/2")[..10],
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc",
    ] {
        let mut rig = Rig::new(NO_ADMIN);
        let client = rig.client_sending(get("/1") + rest);
        let app = rig.connect();
        rig.finish(client);
        rig.send(app, ok("first"));
        let got = rig.got(client);
        assert!(got.ends_with("first"), "{got}");
        assert_eq!(rig.end(client), End::Finished);
    }
}

#[test]
fn a_client_that_does_not_read_holds_its_upstream_back() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(get("/"));
    let app = rig.connect();
    rig.stall(client);
    let body = "x".repeat(1 << 20);
    rig.send(app, ok(&body));
    let outstanding = rig.got(client).len();
    let most = limits::UNACKED_MAX + limits::READ_BODY + 1024;
    assert!(
        (limits::UNACKED_MAX..most).contains(&outstanding),
        "{outstanding}"
    );
    assert!(rig.held_back(app) > 0);
    rig.resume(client);
    assert_eq!(rig.held_back(app), 0);
    let got = rig.got(client);
    assert!(
        got.bytes().all(|byte| byte == b'x'),
        "the head is out long since"
    );
    assert!((1 << 20..(1 << 20) + 1024).contains(&(outstanding + got.len())));
    assert_eq!(rig.record().bytes_sent, 1 << 20);
}

#[test]
fn an_upstream_that_does_not_read_holds_its_client_back() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(post("/", 1 << 20));
    let app = rig.connect();
    rig.stall(app);
    rig.send(client, "x".repeat(1 << 20));
    let outstanding = rig.got(app).len();
    let most = limits::UNACKED_MAX + limits::READ_BODY + 1024;
    assert!(
        (limits::UNACKED_MAX..most).contains(&outstanding),
        "{outstanding}"
    );
    assert!(rig.held_back(client) > 0);
    rig.resume(app);
    assert_eq!(rig.held_back(client), 0);
    rig.send(app, ok("done"));
    assert!(rig.got(client).ends_with("done"));
    assert_eq!(rig.record().bytes_received, 1 << 20);
}

#[test]
fn a_body_waits_in_one_buffer_while_the_upstream_is_connected() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(post("/", 1 << 20));
    rig.send(client, "x".repeat(1 << 20));
    assert!(rig.held_back(client) >= (1 << 20) - limits::READ_BODY);
    let app = rig.connect();
    assert_eq!(rig.held_back(client), 0);
    assert!(rig.got(app).ends_with("xxx"));
}

#[test]
fn pipelined_requests_beyond_one_buffer_wait_with_their_client() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(get("/").repeat(10_000));
    let app = rig.connect();
    let taken = get("/").len() * 10_000 - rig.held_back(client);
    assert!(taken <= 2 * limits::READ_HEAD, "{taken}");
    for _ in 0..10_000 {
        rig.send(app, ok(""));
    }
    assert_eq!(rig.records().len(), 10_000);
    assert_eq!(rig.got(client).matches("HTTP/1.1 200 ").count(), 10_000);
}

#[test]
fn denials_that_nobody_reads_are_not_heaped_up() {
    let mut rig = Rig::new(NOBODY);
    let client = rig.client();
    rig.stall(client);
    rig.send(client, get("/").repeat(10_000));
    let outstanding = rig.got(client).len();
    assert!(outstanding < limits::UNACKED_MAX + 1024, "{outstanding}");
    rig.resume(client);
    assert_eq!(rig.records().len(), 10_000);
}

#[test]
fn draining_finishes_what_is_open_and_takes_nothing_new() {
    let mut rig = Rig::new(NO_ADMIN);
    let idle = rig.client_sending(get("/0"));
    let app = rig.connect();
    rig.send(app, ok("zero"));
    let busy = rig.client_sending([get("/1"), get("/2")].concat());
    rig.input(Input::Drain {
        grace: Duration::from_secs(9),
    });
    assert_eq!(rig.end(idle), End::Finished);
    rig.send(app, ok("one"));
    let got = rig.got(busy);
    assert_eq!(field(&got, "connection"), Some("close"));
    assert_eq!(rig.end(busy), End::Finished);
    assert!(!rig.got(app).contains("/2"));
    assert_eq!(rig.end(app), End::Finished, "no pool while draining");
}

#[test]
fn what_outlives_the_grace_is_reset() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(get("/"));
    let app = rig.connect();
    rig.input(Input::Drain {
        grace: Duration::from_secs(9),
    });
    rig.wait(Duration::from_secs(10));
    assert_eq!((rig.end(client), rig.end(app)), (End::Reset, End::Reset));
    assert_eq!(rig.records().len(), 1);
}

#[test]
fn a_try_goes_on_under_a_snapshot_that_leads_to_the_same_place() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(get("/"));
    rig.apply(Mode::Disable, NOBODY);
    rig.refuse();
    let app = rig.connect();
    rig.send(app, ok("decided"));
    assert!(rig.got(client).ends_with("decided"));
}

#[test]
fn interim_answers_are_passed_on_and_do_not_count() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(get("/"));
    let app = rig.connect();
    rig.send(
        app,
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nconnection: x\r\nx: y\r\n\r\n",
    );
    assert_eq!(
        rig.got(client),
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    );
    rig.send(app, ok("fine"));
    assert!(rig.got(client).ends_with("fine"));
    assert_eq!(rig.record().status, 200);

    rig.send(client, get("/"));
    rig.send(app, "HTTP/1.1 101 Switching Protocols\r\n\r\n");
    assert!(rig.got(client).starts_with("HTTP/1.1 502 "), "nobody asked");
    assert_eq!(rig.end(app), End::Reset);
}

#[test]
fn a_plain_link_is_not_served_once_its_port_demands_tls() {
    let mut rig = Rig::new(NO_ADMIN);
    let idle = rig.client_sending(get("/admin"));
    let begun = rig.client_sending(&get("/")[..9]);
    let busy = rig.client_sending([get("/1"), get("/2")].concat());
    let app = rig.connect();
    rig.apply(Mode::Strict, NO_ADMIN);
    assert_eq!(rig.end(idle), End::Finished);
    rig.send(begun, &get("/")[9..]);
    assert_eq!(rig.got(begun), "", "S-28");
    assert_eq!(rig.end(begun), End::Reset);
    rig.send(app, ok("one"));
    assert!(rig.got(busy).ends_with("one"), "what was decided stays");
    assert_eq!(rig.end(busy), End::Finished);
    assert_eq!(rig.dialled(), None);
}

#[test]
fn a_denied_body_is_not_read_to_its_end() {
    let mut rig = Rig::new(NOBODY);
    let client = rig.client_sending(post("/", 1 << 40) + "abc");
    let got = rig.got(client);
    assert!(got.starts_with("HTTP/1.1 403 "), "{got}");
    assert_eq!(field(&got, "connection"), Some("close"));
    assert_eq!(rig.end(client), End::Finished);
    assert_eq!(rig.record().status, 403);
    rig.send(client, [b'x'; 100]);
    rig.wait(limits::BODY_TIMEOUT + limits::LINGER_TIMEOUT);
    assert_eq!(rig.end(client), End::Reset);
}

#[test]
fn the_client_that_expects_100_gets_it_from_us_if_it_may_go_on() {
    let request = |path| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
        )
    };
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(request("/"));
    assert_eq!(rig.got(client), "HTTP/1.1 100 Continue\r\n\r\n");
    rig.send(client, "abc");
    let app = rig.connect();
    let got = rig.got(app);
    assert!(
        got.ends_with("\r\n\r\nabc") && field(&got, "expect").is_none(),
        "{got}"
    );

    let client = rig.client_sending(request("/admin"));
    assert!(rig.got(client).starts_with("HTTP/1.1 403 "));
    assert_eq!(rig.end(client), End::Finished);
}

#[test]
fn a_link_that_was_told_to_close_takes_no_further_request() {
    // RFC 9112 §9.6.
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(post("/", 6) + "abc");
    let app = rig.connect();
    rig.send(app, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nea");
    assert_eq!(field(&rig.got(client), "connection"), Some("close"));
    rig.send(client, format!("def{}", get("/next")));
    rig.send(app, "rly");
    assert_eq!(rig.got(client), "rly");
    assert_eq!(rig.end(client), End::Finished);
    assert!(!rig.got(app).contains("/next"));
    assert_eq!(rig.dialled(), None);
}

#[test]
fn a_try_after_the_application_moved_does_not_follow_it() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(get("/"));
    let first = rig.dialled().expect("a link is wanted");
    rig.move_app("127.0.0.1:18081");
    rig.apply(Mode::Disable, NOBODY);
    rig.close(first, CloseCause::Refused);
    assert_eq!(rig.dialled(), None, "nobody judged it for that place");
    assert!(rig.got(client).starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_connection_that_speaks_http2_later_on_is_closed() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(get("/admin") + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let got = rig.got(client);
    assert!(got.starts_with("HTTP/1.1 403 "), "{got}");
    assert_eq!(got.matches("HTTP/1.1").count(), 1);
    assert_eq!(rig.end(client), End::Finished);
    let details: Vec<_> = rig.records().into_iter().map(|r| r.details).collect();
    assert_eq!(details.len(), 2);
    assert_eq!(details[1].as_deref(), Some("http1.http2_preface"));
}

#[test]
fn a_link_that_was_read_as_http_ends_once_its_port_is_tcp() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(get("/admin"));
    assert!(rig.got(client).starts_with("HTTP/1.1 403 "));
    rig.declare(PortKind::Tcp);
    rig.apply(Mode::Disable, NO_ADMIN);
    rig.send(client, get("/"));
    assert_eq!(rig.dialled(), None);
    assert_eq!(rig.got(client), "");
    assert_eq!(rig.end(client), End::Reset);
}

#[test]
fn a_stalled_upload_whose_answer_has_begun_says_so_in_its_record() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(post("/", 9) + "abc");
    let app = rig.connect();
    rig.send(app, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nea");
    rig.wait(limits::BODY_TIMEOUT + Duration::from_secs(1));
    assert_eq!((rig.end(client), rig.end(app)), (End::Reset, End::Reset));
    assert_eq!(rig.record().flags, Flags::SI);
}
