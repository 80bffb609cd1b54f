//! How links end.

use std::time::Duration;

use meshward_core::accept::Mode;
use meshward_core::link::{CloseCause, LinkEvent};
use meshward_core::proxy::Input;
use meshward_simulator::tls::TlsEnd;

use crate::bench::{Bench, http, sources, tcp};

const SECOND: Duration = Duration::from_secs(1);
const HTTP_ALPN: &[&[u8]] = &[b"istio-http/1.1", b"istio", b"http/1.1"];

#[test]
fn a_slow_client_gets_the_whole_of_its_last_answer() {
    let mut bench = Bench::new(&sources(1, &[http(Mode::Disable)], ""));
    let (client, _) = bench.inbound();
    let said = bench.receive(
        client,
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    );
    let (app, _) = said.connects()[0];
    bench.connected(app);
    let body = vec![b'x'; 60_000];
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n".to_vec();
    answer.extend_from_slice(&body);
    let mut finished = false;
    for piece in answer.chunks(16 * 1024) {
        finished |= bench.receive(app, piece).finishes(client);
    }
    assert!(finished, "our end follows the answer");
    // The client takes what it is sent, slowly.
    for _ in 0..3 {
        let said = bench.advance(10 * SECOND);
        assert!(!said.resets(client), "what it was sent would be lost");
        bench.on(client, LinkEvent::Sent(10_000));
    }
    // It takes no more, and never ends.
    let said = bench.advance(60 * SECOND);
    assert!(said.resets(client));
    bench.closed(client, CloseCause::Local);
}

#[test]
fn a_peer_of_a_trust_domain_that_was_dropped_begins_nothing_new() {
    let mut bench = Bench::new(&sources(1, &[http(Mode::Strict)], ""));
    let (client, _) = bench.inbound();
    let mut tls = bench.tls_client("sleep", HTTP_ALPN);
    let (_, said) = bench.talk(client, &mut tls);
    assert!(!said.finishes(client));
    let mut moved = sources(2, &[http(Mode::Strict)], "");
    moved.mesh.trust_domain = "elsewhere.example".into();
    assert!(bench.apply(&moved).finishes(client), "S-31");
}

#[test]
fn the_alert_for_a_broken_record_is_sent_though_an_answer_was_on_its_way() {
    let mut bench = Bench::new(&sources(1, &[http(Mode::Strict)], ""));
    let (client, _) = bench.inbound();
    let mut tls = bench.tls_client("sleep", HTTP_ALPN);
    bench.talk(client, &mut tls);
    tls.send(b"GET /%00 HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut wire = tls.take_wire();
    wire.extend_from_slice(&[23, 3, 3, 0, 20]);
    wire.extend_from_slice(&[0; 20]);
    let said = bench.receive(client, &wire);
    tls.receive(&said.sent_to(client), &mut Vec::new());
    assert_eq!(tls.end(), Some(TlsEnd::Alert(20)), "bad_record_mac");
    assert!(said.finishes(client));
}

#[test]
fn after_the_grace_of_a_drain_nothing_is_done_twice() {
    let mut bench = Bench::new(&sources(1, &[tcp(Mode::Disable)], ""));
    let links: Vec<_> = (0..3).map(|_| bench.inbound().0).collect();
    bench.hear(Input::Drain { grace: SECOND });
    let said = bench.advance(2 * SECOND);
    assert!(links.iter().all(|link| said.resets(*link)));
    // Some hear of it late; who comes now is let go at once, and nobody is connected for it.
    bench.closed(links[0], CloseCause::Local);
    let (late, said) = bench.inbound();
    assert!(said.resets(late));
    assert_eq!(said.connects(), []);
    assert!(bench.deadline().is_none_or(|d| d.why != "drain grace"));
}
