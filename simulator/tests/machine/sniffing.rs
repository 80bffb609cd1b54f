//! What becomes of a connection before it is known what it is.

use std::time::Duration;

use meshward_core::accept::{Mode, PortKind};

use crate::bench::{Bench, PORT, Port, http, sources, tcp};

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
