//! Handshakes from a seed: equal byte for byte, and real ones.

use std::io::{Read, Write};
use std::sync::Arc;

use meshward_simulator::clock::{BIRTH, SharedClock};
use meshward_simulator::crypto::{Ca, provider};
use meshward_simulator::tls::{Offer, TlsClient, TlsEnd};
use meshward_simulator::trace::Hash;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

const ME: &str = "spiffe://cluster.local/ns/default/sa/sleep";

/// Runs one mutual handshake and one message each way. Returns a hash of the wire, what the server read, and how the
/// client's TLS ended.
fn handshake(seed: u64, with_identity: bool, tls12_only: bool) -> (Hash, Vec<u8>, Option<TlsEnd>) {
    let mut ca = Ca::new(seed, BIRTH);
    let (client, server) = (
        ca.issue(ME, BIRTH),
        ca.issue("spiffe://cluster.local/ns/default/sa/app", BIRTH),
    );
    let mut roots = RootCertStore::empty();
    roots.add(ca.root().clone()).unwrap();
    let provide = provider(seed);
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provide))
            .build()
            .unwrap();
    let clock = Arc::new(SharedClock::default());
    let mut config = ServerConfig::builder_with_details(Arc::clone(&provide), clock.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(server.chain.clone(), server.key.clone_key())
        .unwrap();
    config.send_tls13_tickets = 0;
    let mut there = ServerConnection::new(Arc::new(config)).unwrap();
    let offer = Offer {
        identity: with_identity.then_some(client),
        alpn: vec![b"istio".to_vec()],
        sni: None,
        tls12_only,
    };
    let mut here = TlsClient::new(&offer, provide, clock).unwrap();
    here.send(b"ping");

    let (mut hash, mut answer, mut asked, mut said) = (Hash::default(), vec![], vec![], false);
    for _ in 0..10 {
        let out = here.take_wire();
        hash.write(&out);
        let mut rest = &out[..];
        while !rest.is_empty() && there.read_tls(&mut rest).is_ok_and(|n| n > 0) {
            if there.process_new_packets().is_err() {
                break;
            }
            let mut buf = [0; 100];
            while let Ok(n) = there.reader().read(&mut buf) {
                if n == 0 {
                    break;
                }
                asked.extend_from_slice(&buf[..n]);
            }
        }
        if !asked.is_empty() && !said {
            said = true;
            there.writer().write_all(b"pong").unwrap();
        }
        let mut back = Vec::new();
        while there.wants_write() {
            there.write_tls(&mut back).unwrap();
        }
        hash.write(&back);
        here.receive(&back, &mut answer);
    }
    if with_identity {
        assert_eq!(answer, b"pong");
        assert_eq!(here.server_chain(), server.chain);
    }
    (hash, asked, here.end())
}

#[test]
fn equal_seeds_give_equal_bytes_and_another_seed_others() {
    for tls12_only in [false, true] {
        let (hash, asked, end) = handshake(1, true, tls12_only);
        assert_eq!(asked, b"ping");
        assert_eq!(end, None);
        assert_eq!(hash, handshake(1, true, tls12_only).0);
        assert_ne!(hash, handshake(2, true, tls12_only).0);
    }
}

#[test]
fn a_client_without_a_certificate_is_told_so_by_an_alert() {
    let (_, asked, end) = handshake(1, false, false);
    assert_eq!(asked, b"");
    assert_eq!(end, Some(TlsEnd::Alert(116)));
}
