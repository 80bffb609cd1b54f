//! Opaque connections: who may speak when, and how they end.

use std::time::Duration;

use meshward_core::accept::Mode;
use meshward_core::link::{CloseCause, LinkCommand};
use meshward_core::telemetry::record::Flags;

use crate::bench::{ALLOW_SLEEP, Bench, sources, tcp};

const TCP_ALPN: &[&[u8]] = &[b"istio-peer-exchange", b"istio"];

#[test]
fn what_was_not_judged_yet_is_refused_by_a_port_that_became_strict() {
    let mut bench = Bench::new(&sources(1, &[tcp(Mode::Disable)], ""));
    let (client, said) = bench.inbound();
    let (app, _) = said.connects()[0];
    bench.connected(app);
    bench.apply(&sources(2, &[tcp(Mode::Strict)], ""));
    let said = bench.receive(client, b"hello");
    assert!(said.resets(client) && said.resets(app));
    assert_eq!(said.sent_to(app), b"");
    assert_eq!(said.records.len(), 1);
    assert_eq!(said.records[0].flags, Flags::NR, "S-28");
}

#[test]
fn a_client_that_only_finishes_is_judged_too() {
    let mut bench = Bench::new(&sources(1, &[tcp(Mode::Disable)], ALLOW_SLEEP));
    let (client, said) = bench.inbound();
    let (app, _) = said.connects()[0];
    bench.connected(app);
    let said = bench.eof(client);
    assert!(
        !said.finishes(app),
        "the application hears nothing of it (S-121)"
    );
    assert!(said.resets(client) && said.resets(app));
    assert_eq!(said.records.len(), 1);
}

#[test]
fn bytes_that_are_no_tls_behind_our_end_are_answered_by_nothing() {
    let mut bench = Bench::new(&sources(1, &[tcp(Mode::Strict)], ""));
    let (client, _) = bench.inbound();
    let mut tls = bench.tls_client("sleep", TCP_ALPN);
    let (_, said) = bench.talk(client, &mut tls);
    let (app, _) = said.connects()[0];
    bench.connected(app);
    // The application ends first; the client may go on, and breaks the rules.
    let said = bench.eof(app);
    assert!(said.finishes(client));
    let said = bench.receive(
        client,
        &[
            23, 3, 3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
    );
    assert_eq!(said.sent_to(client), b"");
    assert!(said.resets(app));
}

#[test]
fn a_connection_that_both_sides_ended_is_not_kept_for_a_missing_fin() {
    let mut bench = Bench::new(&sources(1, &[tcp(Mode::Strict)], ""));
    let (client, _) = bench.inbound();
    let mut tls = bench.tls_client("sleep", TCP_ALPN);
    tls.send(b"ping");
    let (_, said) = bench.talk(client, &mut tls);
    let (app, _) = said.connects()[0];
    bench.connected(app);
    // close_notify, and never a FIN behind it.
    tls.finish();
    let (_, said) = bench.talk(client, &mut tls);
    assert!(said.finishes(app));
    let said = bench.eof(app);
    assert!(said.finishes(client));
    let said = bench.closed(app, CloseCause::Finished);
    assert_eq!(said.records[0].flags, Flags::NONE);
    let said = bench.advance(Duration::from_secs(60));
    assert!(said.resets(client), "{:?}", bench.proxy().pending());
}

#[test]
fn bulk_of_the_application_is_read_in_large_pieces() {
    let mut bench = Bench::new(&sources(1, &[tcp(Mode::Disable)], ""));
    let (client, said) = bench.inbound();
    let (app, _) = said.connects()[0];
    bench.connected(app);
    bench.receive(client, b"more");
    let said = bench.receive(app, b"bytes");
    let grants: Vec<_> = said
        .commands
        .iter()
        .filter_map(|(id, c)| match c {
            LinkCommand::Read { at_most } if *id == app => Some(*at_most),
            _ => None,
        })
        .collect();
    assert_eq!(grants, [64 * 1024]);
}

#[test]
fn a_tls_stream_that_is_cut_off_does_not_look_finished() {
    let mut bench = Bench::new(&sources(1, &[tcp(Mode::Strict)], ""));
    let (client, _) = bench.inbound();
    let mut tls = bench.tls_client("sleep", TCP_ALPN);
    tls.send(b"half of it");
    let (_, said) = bench.talk(client, &mut tls);
    let (app, _) = said.connects()[0];
    let said = bench.connected(app);
    assert_eq!(said.sent_to(app), b"half of it");
    // A FIN that anybody on the way can make, and no close_notify (RFC 8446 §6.1).
    let said = bench.eof(client);
    assert!(
        !said.finishes(app),
        "the application would take it for the whole"
    );
    assert!(said.resets(app));
}
