use std::io::{Read, Write};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::cipher_suite as suite;
use rustls::{ServerConnection, SupportedProtocolVersion};

use super::world::*;
use crate::limits;
use crate::link::Buf;
use crate::tls::*;

const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [TLS12_ONLY, TLS13_ONLY];

#[test]
fn a_mebibyte_crosses_in_both_directions() {
    let world = World::new();
    let data = noise(1 << 20);
    for versions in VERSIONS {
        for chunk in [1000, 16 * 1024, 64 * 1024] {
            let mut pair = world.established(versions);
            pair.client.send(&data);
            pair.server.send(&data);
            pair.run(chunk);
            assert!(pair.server.plain == data && pair.client.plain == data);
        }
    }
}

#[test]
fn records_cut_at_every_byte_give_the_same_data() {
    let world = World::new();
    for versions in VERSIONS {
        let mut pair = world.established(versions);
        pair.client.send(b"some bytes");
        pair.client.send(b"and more");
        let length = pair.client.out.len();
        for cut in 0..=length {
            if cut > 0 {
                pair.client.send(b"some bytes");
                pair.client.send(b"and more");
            }
            let bytes = pair.client.take_out();
            assert_eq!(bytes.len(), length);
            let (head, tail) = bytes.split_at(cut);
            pair.server.receive(head);
            pair.server.receive(tail);
            assert_eq!(pair.server.plain, b"some bytesand more", "cut at {cut}");
            pair.server.plain.clear();
        }
    }
}

/// RFC 8446 §6.1: each direction is closed by itself, and nothing after the end is read.
#[test]
fn after_close_notify_of_one_end_the_other_may_go_on() {
    let world = World::new();
    for versions in VERSIONS {
        let mut pair = world.established(versions);
        pair.client.send(b"question");
        pair.client.session.finish(&mut pair.client.out);
        pair.client.session.finish(&mut pair.client.out);
        pair.client.out.extend_from_slice(b"not a record");
        pair.run(usize::MAX);
        assert_eq!(pair.server.plain, b"question");
        assert!(pair.server.finished && pair.server.failure.is_none());
        assert!(pair.client.session.send(b"x", &mut Buf::default()).is_err());

        pair.server.send(b"answer");
        pair.server.session.finish(&mut pair.server.out);
        pair.run(usize::MAX);
        assert_eq!(pair.client.plain, b"answer");
        assert!(pair.client.finished && pair.client.failure.is_none());
    }
}

#[test]
fn nothing_is_sent_for_nothing() {
    let world = World::new();
    let mut pair = world.established(TLS13_ONLY);
    pair.client.send(b"");
    assert!(pair.client.out.is_empty());
}

#[test]
fn a_truncated_record_is_kept_and_no_event() {
    let world = World::new();
    let mut pair = world.established(TLS13_ONLY);
    pair.client.send(b"cut off");
    let bytes = pair.client.take_out();
    pair.server.receive(&bytes[..bytes.len() - 1]);
    assert!(pair.server.plain.is_empty() && !pair.server.finished);
    assert_eq!(pair.server.failure, None);
}

/// Feeds `bytes` to an established server of each version; it must fail with `alert`, and the client must understand it.
#[track_caller]
fn server_answers(bytes: &[u8], versions: &[&'static SupportedProtocolVersion], alert: u8) {
    let mut pair = World::new().established(versions);
    pair.server.receive(bytes);
    let failure = pair.server.failure.as_ref().expect("a failure");
    assert_eq!(failure.alert, Some(alert), "{failure}");
    assert_eq!(failure.kind, FailureKind::Protocol);
    pair.run(usize::MAX);
    assert_eq!(
        pair.client.failure.expect("an alert").kind,
        FailureKind::Alert(alert)
    );
}

#[test]
fn broken_records_get_the_alert_of_their_fault() {
    let sealed = |length: u16| {
        let [high, low] = length.to_be_bytes();
        let mut record = vec![0x17, 3, 3, high, low];
        record.extend(noise(usize::from(length)));
        record
    };
    for versions in VERSIONS {
        server_answers(&sealed(64), versions, 20);
        server_answers(&sealed(3), versions, 20);
        server_answers(&[0x17, 3, 3, 0xff, 0xff], versions, 22);
        server_answers(b"GET / HTTP/1.1\r\n", versions, 10);
        server_answers(&[0x14, 3, 3, 0, 1, 1], versions, 10);
        server_answers(&[0x17, 2, 0, 0, 64], versions, 10);
    }
    server_answers(&[0x17, 3, 3, 0x41, 0x01], TLS13_ONLY, 22);
    server_answers(&[0x15, 3, 3, 0, 2, 2, 40], TLS13_ONLY, 10);
}

#[test]
fn a_record_that_was_changed_or_repeated_is_refused() {
    let world = World::new();
    for versions in VERSIONS {
        let mut pair = world.established(versions);
        pair.client.send(b"once");
        let bytes = pair.client.take_out();
        pair.server.receive(&bytes);
        pair.server.receive(&bytes);
        assert_eq!(pair.server.failure.unwrap().alert, Some(20));
        assert_eq!(pair.server.plain, b"once");

        let mut pair = world.established(versions);
        pair.client.send(b"bent");
        let mut bytes = pair.client.take_out();
        *bytes.last_mut().unwrap() ^= 1;
        pair.server.receive(&bytes);
        assert_eq!(pair.server.failure.unwrap().alert, Some(20));
    }
}

/// RFC 8446 §5.5: new keys come before the old ones are used up. TLS 1.2 has none to come.
#[test]
fn keys_are_replaced_before_they_are_used_up() {
    let world = World::new();
    let mut pair = world.established(TLS13_ONLY);
    let almost = limits::RECORDS_PER_KEY - 2;
    pair.client.session.skip_records(almost, 0);
    pair.server.session.skip_records(0, almost);
    for text in ["one", "two", "three"] {
        pair.client.send(text.as_bytes());
        pair.run(usize::MAX);
    }
    assert_eq!(pair.server.failure, None);
    assert_eq!(pair.server.plain, b"onetwothree");
    assert!(format!("{:?}", pair.client.session).contains("traffic"));

    let mut pair = world.established(TLS12_ONLY);
    pair.client.session.skip_records(limits::RECORDS_PER_KEY, 0);
    let failure = pair.client.session.send(b"x", &mut pair.client.out);
    assert_eq!(failure.unwrap_err().kind, FailureKind::Local);
}

/// A server of rustls' own record layer, with the settings of ours.
struct Oracle {
    conn: ServerConnection,
    plain: Vec<u8>,
}

impl Oracle {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), rustls::Error> {
        while !bytes.is_empty() {
            self.conn.read_tls(&mut bytes).unwrap();
            self.conn.process_new_packets()?;
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = self.conn.reader().read(&mut chunk) {
                self.plain.extend_from_slice(&chunk[..n]);
            }
        }
        Ok(())
    }

    fn take_out(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.conn.wants_write() {
            self.conn.write_tls(&mut out).unwrap();
        }
        out
    }
}

/// A client of ours that has shaken hands with rustls' server.
fn with_oracle(client: &ClientTls, server: &ServerTls) -> (End, Oracle) {
    let mut client = End::new(Session::client(client).unwrap());
    client.session.start(&mut client.out).unwrap();
    let mut oracle = Oracle {
        conn: ServerConnection::new(server.http_config()).unwrap(),
        plain: Vec::new(),
    };
    exchange(&mut client, &mut oracle);
    assert!(client.session.is_established() && !oracle.conn.is_handshaking());
    (client, oracle)
}

fn exchange(client: &mut End, oracle: &mut Oracle) {
    loop {
        let (up, down) = (client.take_out(), oracle.take_out());
        if up.is_empty() && down.is_empty() {
            return;
        }
        oracle.feed(&up).unwrap();
        client.receive(&down);
        assert_eq!(client.failure, None);
    }
}

#[test]
fn our_records_and_those_of_rustls_agree_in_every_suite() {
    let world = World::new();
    let server = world.server();
    let data = noise(100_000);
    for (versions, suite) in [
        (TLS13_ONLY, suite::TLS13_AES_128_GCM_SHA256),
        (TLS13_ONLY, suite::TLS13_AES_256_GCM_SHA384),
        (TLS13_ONLY, suite::TLS13_CHACHA20_POLY1305_SHA256),
        (TLS12_ONLY, suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        (TLS12_ONLY, suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ] {
        let mut crypto = Crypto::production();
        Arc::make_mut(&mut crypto.provider).cipher_suites = vec![suite];
        let svid = world.ca.issue(SLEEP);
        let expected = [HTTPBIN.to_owned()];
        let client = ClientTls::with_versions(
            &crypto,
            &world.clock,
            &svid,
            &expected,
            Some(SNI),
            ChainKind::Http,
            versions,
        )
        .unwrap();
        let (mut client, mut oracle) = with_oracle(&client, &server);
        for part in data.chunks(33_333) {
            client.send(part);
            oracle.conn.writer().write_all(part).unwrap();
            exchange(&mut client, &mut oracle);
        }
        assert!(oracle.plain == data && client.plain == data, "{suite:?}");

        oracle.conn.send_close_notify();
        client.session.finish(&mut client.out);
        exchange(&mut client, &mut oracle);
        assert!(client.finished);
    }
}

/// RFC 8446 §4.6.3
#[test]
fn a_key_update_is_obeyed_and_answered_with_our_next_data() {
    let world = World::new();
    let (mut client, mut oracle) = with_oracle(&world.client(TLS13_ONLY), &world.server());
    for round in 0..100 {
        oracle.conn.refresh_traffic_keys().unwrap();
        oracle.conn.writer().write_all(b"down").unwrap();
        exchange(&mut client, &mut oracle);
        client.send(b"up");
        exchange(&mut client, &mut oracle);
        assert_eq!(client.plain.len(), 4 * (round + 1));
        assert_eq!(oracle.plain.len(), 2 * (round + 1));
    }
}

#[test]
fn a_flood_of_key_updates_ends_the_session() {
    let world = World::new();
    let (mut client, mut oracle) = with_oracle(&world.client(TLS13_ONLY), &world.server());
    let mut updates = 0;
    while client.failure.is_none() {
        oracle.conn.refresh_traffic_keys().unwrap();
        let bytes = oracle.take_out();
        client.receive(&bytes);
        updates += 1;
    }
    assert_eq!(updates, usize::from(limits::POST_HANDSHAKE_MAX) + 1);
    let failure = client.failure.unwrap();
    assert_eq!(failure.alert, Some(10), "{failure}");
    assert!(client.out.len() < 100, "no answer to each of them");
}

/// Tickets that come unasked are read and forgotten: nothing is resumed.
#[test]
fn a_session_ticket_is_passed_over() {
    let world = World::new();
    let mut config = rustls::ServerConfig::clone(&world.server().http_config());
    config.send_tls13_tickets = 3;
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
    let client = world.client(TLS13_ONLY);
    let mut client = End::new(Session::client(&client).unwrap());
    client.session.start(&mut client.out).unwrap();
    let mut oracle = Oracle {
        conn: ServerConnection::new(Arc::new(config)).unwrap(),
        plain: Vec::new(),
    };
    exchange(&mut client, &mut oracle);
    oracle.conn.writer().write_all(b"data").unwrap();
    exchange(&mut client, &mut oracle);
    assert_eq!(client.plain, b"data");
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// A client seals these records; the server must fail with `alert` at the last of them, and not before.
#[track_caller]
fn server_refuses(
    versions: &[&'static SupportedProtocolVersion],
    records: &[(u8, &[u8])],
    alert: u8,
) {
    let mut pair = World::new().established(versions);
    for (typ, plain) in records {
        assert_eq!(pair.server.failure, None);
        let out = &mut pair.client.out;
        pair.client.session.seal_raw(*typ, plain, out);
        let bytes = pair.client.take_out();
        pair.server.receive(&bytes);
    }
    let failure = pair.server.failure.expect("a failure");
    assert_eq!(failure.alert, Some(alert), "{failure}");
    assert!(pair.server.plain.is_empty());
}

#[test]
fn handshake_records_after_the_handshake_are_held_to_their_rules() {
    let update = |asked: u8| [24, 0, 0, 1, asked];
    for (records, alert) in [
        (&[(HANDSHAKE, &b""[..])][..], 10),
        (&[(HANDSHAKE, &update(2))], 47),
        (&[(HANDSHAKE, &[24, 0, 0, 2, 0, 0])], 50),
        // A ticket, a certificate request, a ClientHello: not from a client of TLS 1.3.
        (&[(HANDSHAKE, &[4, 0, 0, 0])], 10),
        (&[(HANDSHAKE, &[13, 0, 0, 0])], 10),
        (&[(HANDSHAKE, &[1, 0, 0, 0])], 10),
        // Keys change in the middle of a record.
        (&[(HANDSHAKE, &[24, 0, 0, 1, 0, 24])], 10),
        // Data inside a message (RFC 8446 §5.1).
        (&[(HANDSHAKE, &[24, 0, 0]), (DATA, b"x")], 10),
        (&[(HANDSHAKE, &[24, 0xff, 0, 0])], 50),
        (&[(25, b"x")], 10),
        (&[(0, b"")], 10),
    ] {
        server_refuses(TLS13_ONLY, records, alert);
    }
}

#[test]
fn a_key_update_in_pieces_is_put_together() {
    let mut pair = World::new().established(TLS13_ONLY);
    for piece in KEY_UPDATE.chunks(2) {
        let out = &mut pair.client.out;
        pair.client.session.seal_raw(HANDSHAKE, piece, out);
    }
    pair.run(7);
    assert_eq!(pair.server.failure, None);
    // The client of this test has not changed its keys.
    pair.client.send(b"under the old keys");
    pair.run(usize::MAX);
    assert_eq!(pair.server.failure.unwrap().alert, Some(20));
}

#[test]
fn alerts_of_the_peer_end_the_session_and_warnings_do_not() {
    for (versions, alert, outcome) in [
        (TLS12_ONLY, &[2, 46][..], Some(FailureKind::Alert(46))),
        (TLS13_ONLY, &[2, 46], Some(FailureKind::Alert(46))),
        (TLS12_ONLY, &[1, 46], None),
        // TLS 1.3 ignores the level (RFC 8446 §6).
        (TLS13_ONLY, &[1, 46], Some(FailureKind::Alert(46))),
        (TLS13_ONLY, &[1, 90], None),
        (TLS13_ONLY, &[2], Some(FailureKind::Protocol)),
        (TLS12_ONLY, &[2, 46, 0], Some(FailureKind::Protocol)),
    ] {
        let mut pair = World::new().established(versions);
        let out = &mut pair.client.out;
        pair.client.session.seal_raw(ALERT, alert, out);
        let bytes = pair.client.take_out();
        pair.server.receive(&bytes);
        let failure = pair.server.failure.as_ref();
        assert_eq!(failure.map(|f| f.kind), outcome, "{alert:?}");
        if let Some(FailureKind::Alert(_)) = outcome {
            assert!(
                failure
                    .unwrap()
                    .reason
                    .contains("SSLV3_ALERT_CERTIFICATE_UNKNOWN")
            );
            assert!(pair.server.out.is_empty(), "an alert is not answered");
        }
    }
}

#[test]
fn floods_without_data_end_the_session() {
    let world = World::new();
    for (versions, typ, plain, allowed) in [
        (TLS12_ONLY, DATA, &b""[..], limits::EMPTY_RECORDS_MAX),
        (TLS13_ONLY, DATA, b"", limits::EMPTY_RECORDS_MAX),
        (TLS12_ONLY, ALERT, &[1, 46], limits::WARNINGS_MAX),
        (TLS13_ONLY, ALERT, &[1, 90], limits::WARNINGS_MAX),
    ] {
        let mut pair = world.established(versions);
        let mut count = 0;
        while pair.server.failure.is_none() {
            let out = &mut pair.client.out;
            pair.client.session.seal_raw(typ, plain, out);
            let bytes = pair.client.take_out();
            pair.server.receive(&bytes);
            count += 1;
        }
        assert_eq!(count, usize::from(allowed) + 1);
    }
}

/// RFC 5246 §7.2.2: a warning, and data goes on; who insists is thrown out, however much data comes between.
#[test]
fn renegotiation_is_refused_once_and_then_fatal() {
    let mut pair = World::new().established(TLS12_ONLY);
    let ask = |pair: &mut Pair| {
        let out = &mut pair.client.out;
        pair.client
            .session
            .seal_raw(HANDSHAKE, &[1, 0, 0, 2, 3, 3], out);
    };
    ask(&mut pair);
    pair.client.send(b"data");
    pair.run(usize::MAX);
    assert_eq!(pair.server.plain, b"data");
    assert_eq!(pair.client.failure, None, "no_renegotiation is a warning");

    ask(&mut pair);
    pair.run(usize::MAX);
    assert_eq!(pair.server.failure.unwrap().alert, Some(10));
}

#[test]
fn nothing_is_kept_of_whole_records() {
    let world = World::new();
    let mut pair = world.established(TLS13_ONLY);
    assert!(format!("{:?}", pair.server.session).contains("pending: 0"));
    pair.client.send(&noise(50_000));
    pair.run(1000);
    assert!(format!("{:?}", pair.server.session).contains("pending: 0"));
}

/// RFC 8446 §5.4: padding counts, so nobody is made to strip more of it than data could have been.
#[test]
fn a_padded_record_is_no_larger_than_a_full_one() {
    const FULL: usize = 1 << 14;
    let padded = |padding: usize| {
        let mut pair = World::new().established(TLS13_ONLY);
        // The type byte that `seal_raw` appends is padding too: data, its type, zeros, and a last zero.
        let plain = [&b"x"[..], &[DATA], &vec![0; padding]].concat();
        let out = &mut pair.client.out;
        pair.client.session.seal_raw(0, &plain, out);
        let bytes = pair.client.take_out();
        pair.server.receive(&bytes);
        (pair.server.plain, pair.server.failure.and_then(|f| f.alert))
    };
    assert_eq!(padded(FULL - 2), (b"x".to_vec(), None));
    assert_eq!(padded(FULL - 1), (Vec::new(), Some(22)));
}

/// What will be refused is refused at its header, and what is passed over may come in records of one byte.
#[test]
fn a_message_after_the_handshake_is_judged_by_its_header() {
    for (versions, header, alert) in [
        (TLS13_ONLY, [4, 1, 0, 0], 10),
        (TLS13_ONLY, [1, 1, 0, 0], 10),
        (TLS13_ONLY, [24, 0, 0, 2], 50),
        (TLS12_ONLY, [20, 0, 0, 12], 10),
        (TLS12_ONLY, [24, 0, 0, 1], 10),
    ] {
        server_refuses(versions, &[(HANDSHAKE, &header)], alert);
    }

    let mut pair = World::new().established(TLS13_ONLY);
    let ticket = [&[4, 1, 0, 0][..], &vec![7; 1 << 16]].concat();
    for byte in ticket.chunks(1) {
        let out = &mut pair.server.out;
        pair.server.session.seal_raw(HANDSHAKE, byte, out);
    }
    pair.server.send(b"after it");
    pair.run(usize::MAX);
    assert_eq!(pair.client.failure, None);
    assert_eq!(pair.client.plain, b"after it");
}

/// RFC 8446 §6.1: close_notify is the last that we send, whatever the peer still does.
#[test]
fn nothing_follows_our_close_notify() {
    for (versions, typ, plain) in [
        (TLS12_ONLY, HANDSHAKE, &[1, 0, 0, 2, 3, 3][..]),
        (TLS12_ONLY, HANDSHAKE, b""),
        (TLS13_ONLY, HANDSHAKE, b""),
        (TLS13_ONLY, HANDSHAKE, &[24, 0, 0, 1, 1]),
    ] {
        let mut pair = World::new().established(versions);
        pair.server.session.finish(&mut pair.server.out);
        assert!(!pair.server.take_out().is_empty());
        let out = &mut pair.client.out;
        pair.client.session.seal_raw(typ, plain, out);
        let bytes = pair.client.take_out();
        pair.server.receive(&bytes);
        assert!(pair.server.out.is_empty(), "{plain:?}");
    }
}

/// TLS 1.2 seals with ChaCha20 in another form (RFC 7905 §2: no nonce in the record), which nothing here speaks.
#[test]
fn a_suite_whose_records_have_another_form_is_never_sealed_with() {
    let mut world = World::new();
    Arc::make_mut(&mut world.crypto.provider).cipher_suites =
        vec![suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256];
    let mut pair = Pair::new(&world.client(TLS12_ONLY), &world.server(), ChainKind::Http);
    pair.run(usize::MAX);
    for end in [pair.client, pair.server] {
        assert_eq!(end.failure.map(|f| f.kind), Some(FailureKind::Local));
        assert!(!end.session.is_established() && end.established.is_none());
    }
}
