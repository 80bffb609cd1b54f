use rustls::SupportedProtocolVersion;
use rustls::sign::SingleCertAndKey;

use super::world::*;
use crate::tls::*;

const VERSIONS: [(&[&SupportedProtocolVersion], TlsVersion); 2] = [
    (TLS12_ONLY, TlsVersion::Tls12),
    (TLS13_ONLY, TlsVersion::Tls13),
];

#[test]
fn both_ends_know_each_other_after_the_handshake() {
    let world = World::new();
    for (versions, version) in VERSIONS {
        let pair = world.established(versions);

        let server = pair.server.established.unwrap();
        let peer = server.peer.unwrap();
        assert_eq!(peer.id.as_str(), SLEEP);
        assert_eq!(peer.not_after.0, NOW.0 + 3_600_000);
        assert_eq!(server.version, version);
        assert_eq!(server.sni.as_deref(), Some(SNI));
        assert_eq!(server.alpn.as_deref(), Some(&b"http/1.1"[..]));

        let client = pair.client.established.unwrap();
        assert_eq!(client.peer.unwrap().id.as_str(), HTTPBIN);
        assert_eq!(client.version, version);
        assert_eq!(client.sni, None);
        assert_eq!(client.alpn.as_deref(), Some(&b"http/1.1"[..]));
    }
}

#[test]
fn the_fingerprint_is_the_sha_256_of_the_certificate() {
    let world = World::new();
    let svid = world.ca.issue(SLEEP);
    let client = world.client_of(&svid, TLS13_ONLY);
    let mut pair = Pair::new(&client, &world.server(), ChainKind::Http);
    pair.run(usize::MAX);
    let expected = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &svid.chain[0]);
    let peer = pair.server.established.unwrap().peer.unwrap();
    assert_eq!(peer.sha256.as_slice(), expected.as_ref());
}

#[test]
fn links_of_one_peer_share_what_is_known_of_it() {
    let world = World::new();
    let (client, server) = (world.client(TLS13_ONLY), world.server());
    let peer = || {
        let mut pair = Pair::new(&client, &server, ChainKind::Http);
        pair.run(usize::MAX);
        pair.server.established.unwrap().peer.unwrap()
    };
    assert!(std::sync::Arc::ptr_eq(&peer(), &peer()));
}

#[test]
fn a_handshake_cut_anywhere_has_the_same_outcome() {
    let world = World::new();
    let server = world.server();
    for (versions, version) in VERSIONS {
        let client = world.client(versions);
        for chunk in [1, 2, 3, 4, 5, 6, 7, 16, 61, 333, 1000, usize::MAX] {
            let mut pair = Pair::new(&client, &server, ChainKind::Http);
            pair.run(chunk);
            pair.client.send(b"from the client");
            pair.server.send(b"from the server");
            pair.run(chunk);
            assert_eq!(pair.server.plain, b"from the client", "{version:?} {chunk}");
            assert_eq!(pair.client.plain, b"from the server", "{version:?} {chunk}");
            assert_eq!(pair.client.failure, None);
            assert_eq!(pair.server.failure, None);
        }
    }
}

#[test]
fn data_that_comes_with_the_last_handshake_bytes_is_not_lost() {
    let world = World::new();
    let mut pair = Pair::new(&world.client(TLS13_ONLY), &world.server(), ChainKind::Http);
    let hello = pair.client.take_out();
    pair.server.receive(&hello);
    let flight = pair.server.take_out();
    pair.client.receive(&flight);
    pair.client.send(b"GET / HTTP/1.1\r\n");
    pair.client.session.finish(&mut pair.client.out);
    let all = pair.client.take_out();
    pair.server.receive(&all);

    assert!(pair.server.established.is_some());
    assert_eq!(pair.server.plain, b"GET / HTTP/1.1\r\n");
    assert!(pair.server.finished);
}

/// S-30: `istio-peer-exchange` on TCP chains, `http/1.1` on HTTP chains, and no name where none is common.
#[test]
fn a_mismatch_of_protocol_names_never_fails_a_handshake() {
    let world = World::new();
    let server = world.server();
    for (offered, kind, chosen) in [
        (
            &["istio-peer-exchange", "istio"][..],
            ChainKind::Tcp,
            Some("istio-peer-exchange"),
        ),
        (&["istio-peer-exchange", "istio"], ChainKind::Http, None),
        (
            &["istio-http/1.1", "istio", "http/1.1"],
            ChainKind::Http,
            Some("http/1.1"),
        ),
        (
            &["istio-http/1.1", "istio", "http/1.1"],
            ChainKind::Tcp,
            Some("http/1.1"),
        ),
        (&["h2"], ChainKind::Http, None),
        (&["nonsense"], ChainKind::Tcp, None),
        (&[], ChainKind::Http, None),
    ] {
        for (versions, _) in VERSIONS {
            let client = world.client(versions).changed(|config| {
                config.alpn_protocols = offered.iter().map(|n| n.as_bytes().to_vec()).collect();
            });
            let mut pair = Pair::new(&client, &server, kind);
            pair.run(usize::MAX);
            let alpn = pair.server.established.expect("a handshake").alpn;
            assert_eq!(alpn.as_deref(), chosen.map(str::as_bytes), "{offered:?}");
        }
    }
}

/// Runs a handshake that must fail on the server's side with `alert`.
#[track_caller]
fn server_refuses(client: &ClientTls, server: &ServerTls, alert: u8, kind: FailureKind) -> String {
    let mut pair = Pair::new(client, server, ChainKind::Http);
    pair.run(usize::MAX);
    let failure = pair.server.failure.expect("a refusal");
    assert_eq!(
        (failure.kind, failure.alert),
        (kind, Some(alert)),
        "{failure}"
    );
    assert!(pair.server.established.is_none());
    assert_eq!(
        pair.client.failure.expect("an alert").kind,
        FailureKind::Alert(alert)
    );
    failure.reason
}

/// S-29; in TLS 1.2 the number of the alert is free.
#[test]
fn a_client_without_certificate_gets_certificate_required() {
    let world = World::new();
    for (versions, _) in VERSIONS {
        let client = world.client(versions).changed(|config| {
            config.client_auth_cert_resolver = std::sync::Arc::new(NoCertificate);
        });
        let reason = server_refuses(&client, &world.server(), 116, FailureKind::NoCertificate);
        assert!(
            reason.contains("PEER_DID_NOT_RETURN_A_CERTIFICATE"),
            "{reason}"
        );
    }
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<std::sync::Arc<rustls::sign::CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

/// S-31, S-97.
#[test]
fn a_refused_client_certificate_gets_the_alert_of_its_fault() {
    let world = World::new();
    let stranger = Ca::new("elsewhere");
    let server = world.server();
    let mut unknown = stranger.issue(SLEEP);
    unknown.bundle = world.ca.issue(SLEEP).bundle;
    for (versions, _) in VERSIONS {
        for (svid, alert) in [
            (world.ca.issue_between(SLEEP, -7200, -1), 45),
            (world.ca.issue_between(SLEEP, 60, 7200), 45),
            (unknown.clone(), 48),
            (
                world.ca.issue("spiffe://other.domain/ns/default/sa/sleep"),
                46,
            ),
        ] {
            let client = world.client_of(&svid, versions);
            let reason = server_refuses(&client, &server, alert, FailureKind::PeerCertificate);
            assert!(
                reason.starts_with(
                    "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:"
                ),
                "{reason}"
            );
        }
    }
}

/// Each handshake is held against the clock of its own moment.
#[test]
fn a_certificate_that_was_accepted_is_refused_once_it_has_expired() {
    let world = World::new();
    let (client, server) = (world.client(TLS13_ONLY), world.server());
    let mut pair = Pair::new(&client, &server, ChainKind::Http);
    pair.run(usize::MAX);
    assert!(pair.server.established.is_some());

    // The server lives on, the client's hour is over.
    let old = world.ca.issue_between(SLEEP, -7200, 600);
    let client = world.client_of(&old, TLS13_ONLY);
    let mut pair = Pair::new(&client, &server, ChainKind::Http);
    pair.run(usize::MAX);
    assert!(pair.server.established.is_some());
    world.clock.set(crate::clock::UnixTime(NOW.0 + 601_000));
    server_refuses(&client, &server, 45, FailureKind::PeerCertificate);
}

/// S-58, S-59, S-97.
#[test]
fn a_client_refuses_a_server_that_is_not_the_expected_one() {
    let world = World::new();
    let server = world.server();
    for (versions, _) in VERSIONS {
        let svid = world.ca.issue(SLEEP);
        let client = world.client_expecting(&svid, SLEEP, versions);
        let mut pair = Pair::new(&client, &server, ChainKind::Http);
        pair.run(usize::MAX);
        let failure = pair.client.failure.expect("a refusal");
        assert_eq!(failure.kind, FailureKind::PeerCertificate);
        assert_eq!(failure.alert, Some(46));
        assert!(failure.reason.contains("CERTIFICATE_VERIFY_FAILED"));
        assert!(pair.client.established.is_none());
        assert_eq!(
            pair.server.failure.expect("an alert").kind,
            FailureKind::Alert(46)
        );
    }
}

/// S-97
#[test]
fn a_client_that_is_too_old_gets_protocol_version() {
    let world = World::new();
    let server = world.server_of(&world.ca.issue(HTTPBIN), TlsVersion::Tls13);
    let client = world.client(TLS12_ONLY);
    let reason = server_refuses(&client, &server, 70, FailureKind::Incompatible);
    assert!(reason.contains("UNSUPPORTED_PROTOCOL"), "{reason}");
}

/// S-97, for a ClientHello of TLS 1.1, which lacks more than the version.
#[test]
fn a_client_older_than_every_version_of_ours_gets_protocol_version() {
    let facts = HelloFacts {
        newest: 0x0302,
        ..HelloFacts::default()
    };
    let session = Session::server(&World::new().server(), ChainKind::Http, &facts).unwrap();
    let mut server = End::new(session);
    server.receive(b"any bytes");
    let failure = server.failure.clone().unwrap();
    assert_eq!(failure.kind, FailureKind::Incompatible);
    assert_eq!(failure.alert, Some(70));
    assert_eq!(server.take_out(), [21, 3, 1, 0, 2, 2, 70]);
}

/// RFC 7507: a client that was talked down from TLS 1.3 is told so.
#[test]
fn a_client_that_fell_back_from_a_version_of_ours_gets_inappropriate_fallback() {
    let facts = HelloFacts {
        newest: 0x0303,
        fallback: true,
        ..HelloFacts::default()
    };
    let session = Session::server(&World::new().server(), ChainKind::Http, &facts).unwrap();
    let mut server = End::new(session);
    server.receive(b"any bytes");
    assert_eq!(server.failure.clone().unwrap().alert, Some(86));
    assert_eq!(server.take_out(), [21, 3, 1, 0, 2, 2, 86]);
}

#[test]
fn a_client_that_does_not_own_its_certificate_is_refused() {
    let world = World::new();
    for (versions, _) in VERSIONS {
        let (mine, other) = (world.ca.issue(SLEEP), world.ca.issue(SLEEP));
        let key = world
            .crypto
            .provider
            .key_provider
            .load_private_key(rustls::pki_types::PrivateKeyDer::Pkcs8(
                other.key.reveal().clone().into(),
            ))
            .unwrap();
        let stolen = rustls::sign::CertifiedKey::new(mine.chain.clone(), key);
        let client = world.client_of(&mine, versions).changed(|config| {
            config.client_auth_cert_resolver = std::sync::Arc::new(SingleCertAndKey::from(stolen));
        });
        server_refuses(&client, &world.server(), 51, FailureKind::PeerCertificate);
    }
}

#[test]
fn a_key_that_does_not_belong_to_its_certificate_is_no_setting() {
    let world = World::new();
    let mut svid = world.ca.issue(HTTPBIN);
    svid.key = world.ca.issue(HTTPBIN).key;
    let error = ServerTls::new(&world.crypto, &world.clock, &svid, &[], TlsVersion::Tls12);
    assert!(error.is_err());
}

/// S-28: the caller sees that it was no TLS, and can reset instead of answering.
#[test]
fn plain_http_into_a_server_is_told_apart_from_broken_tls() {
    let world = World::new();
    let facts = HelloFacts::default();
    let session = Session::server(&world.server(), ChainKind::Http, &facts).unwrap();
    let mut server = End::new(session);
    server.receive(b"GET / HTTP/1.1\r\nHost: httpbin\r\n\r\n");
    let failure = server.failure.clone().unwrap();
    assert_eq!(failure.kind, FailureKind::NotTls);
    assert!(failure.reason.contains("WRONG_VERSION_NUMBER"), "{failure}");
    assert_eq!(server.take_out().len(), 7);
}

/// S-64: the application's server answers a ClientHello with HTTP.
#[test]
fn plain_http_out_of_a_server_is_a_wrong_version_number() {
    let world = World::new();
    let mut pair = Pair::new(&world.client(TLS13_ONLY), &world.server(), ChainKind::Http);
    pair.client.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let failure = pair.client.failure.unwrap();
    assert!(failure.reason.contains("WRONG_VERSION_NUMBER"), "{failure}");
}

#[test]
fn garbage_after_a_whole_hello_fails_once_and_silences_the_session() {
    let world = World::new();
    for (versions, _) in VERSIONS {
        let mut pair = Pair::new(&world.client(versions), &world.server(), ChainKind::Http);
        let hello = pair.client.take_out();
        pair.server.receive(&hello);
        pair.server.take_out();
        pair.server.receive(&[0x17; 100]);
        assert!(pair.server.failure.is_some());
        pair.server.receive(&[0x17; 100]);
        let mut out = crate::link::Buf::default();
        assert!(pair.server.session.send(b"x", &mut out).is_err());
        assert!(out.is_empty());
    }
}

#[test]
fn a_handshake_that_never_ends_is_cut_off() {
    let world = World::new();
    let facts = HelloFacts::default();
    // Small pieces of a ClientHello of 60 KiB, one byte in each record.
    let session = Session::server(&world.server(), ChainKind::Http, &facts).unwrap();
    let mut server = End::new(session);
    let mut fed = 0;
    server.receive(&[22, 3, 1, 0, 4, 1, 0, 0xea, 0x60]);
    while server.failure.is_none() && fed < 1 << 20 {
        server.receive(&[22, 3, 1, 0, 1, 0].repeat(100));
        fed += 600;
    }
    assert!(fed <= crate::limits::HANDSHAKE_MAX + 600, "{fed}");

    // A message that announces 16 MiB.
    let session = Session::server(&world.server(), ChainKind::Http, &facts).unwrap();
    let mut server = End::new(session);
    server.receive(&[22, 3, 1, 0, 5, 1, 0xff, 0xff, 0xff, 0]);
    assert!(server.failure.is_some());
}

#[test]
fn a_client_without_sni_sends_none() {
    let world = World::new();
    let svid = world.ca.issue(SLEEP);
    let (crypto, clock) = (&world.crypto, &world.clock);
    let client = ClientTls::new(crypto, clock, &svid, &[], None, ChainKind::Tcp).unwrap();
    let mut pair = Pair::new(&client, &world.server(), ChainKind::Tcp);
    pair.run(usize::MAX);
    let established = pair.server.established.unwrap();
    assert_eq!(established.sni, None);
    assert_eq!(
        established.alpn.as_deref(),
        Some(&b"istio-peer-exchange"[..])
    );
}
