//! What becomes of a connection before it is known what it is.

use std::time::Duration;

use meshward_core::accept::{Mode, PortKind};
use meshward_core::snapshot::compile::Sources;

use crate::bench::{Bench, PORT, Port, http, outbound, sources, tcp};

const SECOND: Duration = Duration::from_secs(1);

fn with_detection(ports: &[Port]) -> Bench {
    let mut sources = sources(1, ports, "");
    sources.mesh.protocol_detection_timeout_ms = 1000;
    Bench::new(&sources)
}

const SPOOFED: &[u8] = b"GET / HTTP/1.1\r\nhost: catalog\r\nx-forwarded-client-cert: By=spiffe://cluster.local/ns/a/sa/b\r\n\r\n";

#[test]
fn a_client_that_was_silent_speaks_http_on_an_http_port() {
    for mode in [Mode::Permissive, Mode::Disable] {
        let mut bench = with_detection(&[http(mode)]);
        let (client, _) = bench.inbound();
        let said = bench.advance(2 * SECOND);
        assert_eq!(
            said.connects(),
            [],
            "S-27: nobody is connected for an HTTP port"
        );
        let said = bench.receive(client, SPOOFED);
        let (app, _) = said.connects()[0];
        let said = bench.connected(app);
        let got = String::from_utf8(said.sent_to(app)).unwrap();
        assert!(got.starts_with("GET / HTTP/1.1\r\n"), "{got}");
        assert!(
            !got.contains("sa/b"),
            "a client says no identity for itself: {got}"
        );
    }
}

#[test]
fn a_client_that_was_silent_is_opaque_on_other_ports() {
    for kind in [PortKind::Tcp, PortKind::Auto] {
        let port = Port {
            port: PORT,
            kind,
            mode: Mode::Permissive,
        };
        let mut bench = with_detection(&[port]);
        bench.inbound();
        let said = bench.advance(2 * SECOND);
        assert_eq!(said.connects().len(), 1, "S-27");
    }
}

#[test]
fn a_client_that_was_silent_is_refused_where_tls_is_demanded() {
    // S-27: what counts as plaintext then has no chain there (S-28).
    for port in [http(Mode::Strict), tcp(Mode::Strict)] {
        let mut bench = with_detection(&[port]);
        let (client, _) = bench.inbound();
        let said = bench.advance(2 * SECOND);
        assert_eq!(said.connects(), []);
        assert!(said.resets(client));
        assert_eq!(said.records.len(), 1);
    }
}

#[test]
fn silence_is_not_plaintext_on_a_port_that_became_strict() {
    let mut bench = with_detection(&[tcp(Mode::Permissive)]);
    let (client, _) = bench.inbound();
    bench.apply(&sources(2, &[tcp(Mode::Strict)], ""));
    let said = bench.advance(2 * SECOND);
    assert_eq!(said.connects(), []);
    assert!(said.resets(client), "S-28");
    assert_eq!(said.records.len(), 1);
}

#[test]
fn a_peer_that_drips_its_first_bytes_is_gone_in_time() {
    let auto = Port {
        port: PORT,
        kind: PortKind::Auto,
        mode: Mode::Permissive,
    };
    let mut bench = Bench::new(&sources(1, &[auto], ""));
    let (client, _) = bench.inbound();
    for byte in SPOOFED.iter().take(20).take_while(|b| **b != b'\r') {
        let said = bench.advance(10 * SECOND);
        if said.resets(client) {
            return;
        }
        bench.receive(client, &[*byte]);
    }
    panic!("it was held for minutes");
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[test]
fn http_2_is_closed_with_a_record_wherever_http_is_spoken() {
    let auto = Port {
        port: PORT,
        kind: PortKind::Auto,
        mode: Mode::Permissive,
    };
    for port in [http(Mode::Permissive), http(Mode::Disable), auto] {
        let mut bench = Bench::new(&sources(1, &[port], ""));
        let (client, _) = bench.inbound();
        let said = bench.receive(client, PREFACE);
        assert!(said.resets(client) && said.connects().is_empty());
        assert_eq!(said.records.len(), 1);
    }
    // Behind TLS, where the client offered it and was not answered.
    let mut bench = Bench::new(&sources(1, &[http(Mode::Strict)], ""));
    let (client, _) = bench.inbound();
    let mut tls = bench.tls_client("sleep", &[b"istio-h2", b"istio", b"h2"]);
    bench.talk(client, &mut tls);
    tls.send(PREFACE);
    let (_, said) = bench.talk(client, &mut tls);
    assert!(said.resets(client) || said.finishes(client));
    assert_eq!(said.connects(), []);
    assert_eq!(said.records.len(), 1);
    // From our own application.
    let calling = Sources {
        outbound: vec![outbound(
            "10.96.0.1:80",
            "10.0.0.2:80",
            PortKind::Http,
            None,
        )],
        ..sources(1, &[], "")
    };
    let mut bench = Bench::new(&calling);
    let (client, _) = bench.outbound("10.96.0.1:80");
    let said = bench.receive(client, PREFACE);
    assert!(said.resets(client) || said.finishes(client));
    assert_eq!(said.connects(), []);
    assert_eq!(said.records.len(), 1);
}

#[test]
fn http_2_is_bytes_on_a_tcp_port() {
    let mut bench = Bench::new(&sources(1, &[tcp(Mode::Permissive)], ""));
    let (client, _) = bench.inbound();
    let said = bench.receive(client, PREFACE);
    let (app, _) = said.connects()[0];
    assert_eq!(bench.connected(app).sent_to(app), PREFACE);
}
