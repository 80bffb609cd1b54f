//! Peers that mean harm: what they send must cost them more than us, and gain them nothing.

use proptest::prelude::*;

use super::world::*;
use crate::link::Buf;
use crate::tls::*;

/// A ClientHello of rustls with one more extension, in one record.
fn hello_and(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut out = Buf::default();
    let mut client = Session::client(&World::new().client(TLS13_ONLY)).unwrap();
    client.start(&mut out).unwrap();
    let mut bytes = out.to_vec();
    let mut at = 5 + 4 + 2 + 32;
    at += 1 + usize::from(bytes[at]);
    at += 2 + usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    at += 1 + usize::from(bytes[at]);
    let extension = [
        &kind.to_be_bytes()[..],
        &(value.len() as u16).to_be_bytes(),
        value,
    ]
    .concat();
    for length in [3, 7, at] {
        let old = u16::from_be_bytes([bytes[length], bytes[length + 1]]);
        let new = old + extension.len() as u16;
        bytes[length..length + 2].copy_from_slice(&new.to_be_bytes());
    }
    bytes.extend(extension);
    bytes
}

fn server_for(hello: &[u8]) -> End {
    let Sniff::Hello(facts) = sniff(hello) else {
        panic!("a ClientHello");
    };
    End::new(Session::server(&World::new().server(), ChainKind::Http, &facts).unwrap())
}

/// A client that announces early data gets it skipped. Records without a byte are none (RFC 8446 §5.2), and would
/// cost rustls another look at all of them each time that one comes.
#[test]
fn empty_records_before_the_end_of_a_handshake_end_it() {
    const EARLY_DATA: u16 = 42;
    let hello = hello_and(EARLY_DATA, &[]);
    let mut server = server_for(&hello);
    server.receive(&hello);
    assert_eq!(server.failure, None);
    assert!(server.take_out().len() > 500, "a whole flight");
    let mut records = 0;
    while server.failure.is_none() && records < 100 {
        server.receive(&[23, 3, 3, 0, 0]);
        records += 1;
    }
    assert_eq!(records, 1);
}

/// Other protocols' records, in the place of each record of ours.
#[test]
fn a_record_that_cannot_be_one_is_never_waited_for() {
    for header in [
        &[24, 3, 3, 0, 9][..],
        &[19, 3, 3, 0, 9],
        &[22, 2, 0, 0, 9],
        &[22, 0xfe, 0xff, 0, 9],
        &[22, 3, 3, 0x48, 1],
        &[20, 3, 3, 0, 0],
        &[22, 3, 3, 0, 0],
        b"HTTP/",
    ] {
        for versions in [TLS12_ONLY, TLS13_ONLY] {
            let world = World::new();
            let mut pair = Pair::new(&world.client(versions), &world.server(), ChainKind::Http);
            header.iter().for_each(|b| pair.client.receive(&[*b]));
            assert!(pair.client.failure.is_some(), "{header:?}");

            let mut pair = Pair::new(&world.client(versions), &world.server(), ChainKind::Http);
            let hello = pair.client.take_out();
            pair.server.receive(&hello);
            assert_eq!(pair.server.failure, None);
            header.iter().for_each(|b| pair.server.receive(&[*b]));
            assert!(pair.server.failure.is_some(), "{header:?}");
        }
    }
}

/// The settings remember the last certificate alone; handshakes that overlap must not get each other's.
#[test]
fn overlapping_handshakes_keep_their_peers_apart() {
    const OTHER: &str = "spiffe://cluster.local/ns/default/sa/other";
    for versions in [TLS12_ONLY, TLS13_ONLY] {
        let world = World::new();
        let server = world.server();
        let mut slow = Pair::new(&world.client(versions), &server, ChainKind::Http);
        let hello = slow.client.take_out();
        slow.server.receive(&hello);
        let flight = slow.server.take_out();
        slow.client.receive(&flight);
        let answer = slow.client.take_out();
        // Certificate and its proof arrive, the last record does not.
        let (most, last) = answer.split_at(answer.len() - 1);
        slow.server.receive(most);

        let other = world.client_of(&world.ca.issue(OTHER), versions);
        let mut quick = Pair::new(&other, &server, ChainKind::Http);
        quick.run(usize::MAX);
        let peer = |end: End| {
            end.established
                .and_then(|e| e.peer)
                .map(|p| p.id.to_string())
        };
        assert_eq!(peer(quick.server).as_deref(), Some(OTHER));

        slow.server.receive(last);
        assert_eq!(peer(slow.server).as_deref(), Some(SLEEP));
    }
}

/// What somebody on the way does to one direction.
#[derive(Clone, Debug)]
enum Tamper {
    Set(prop::sample::Index, u8),
    Drop(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(prop::sample::Index, usize),
}

impl Tamper {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Set(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Self::Drop(at, n) => {
                let at = at.index(bytes.len());
                bytes.drain(at..bytes.len().min(at + n));
            }
            Self::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Repeat(at, n) => {
                let at = at.index(bytes.len());
                let again = bytes[at..bytes.len().min(at + n)].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
}

fn tamper() -> impl Strategy<Value = Tamper> {
    let at = any::<prop::sample::Index>;
    let record = (20u8..24, prop::collection::vec(any::<u8>(), 0..5)).prop_map(|(typ, body)| {
        let length = (body.len() as u16).to_be_bytes();
        [&[typ, 3, 3][..], &length, &body].concat()
    });
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Tamper::Set(at, byte)),
        (at(), 1usize..200).prop_map(|(at, n)| Tamper::Drop(at, n)),
        (at(), record).prop_map(|(at, more)| Tamper::Insert(at, more)),
        (at(), 1usize..200).prop_map(|(at, n)| Tamper::Repeat(at, n)),
    ]
}

thread_local! {
    static WORLD: (World, ServerTls, [ClientTls; 2]) = {
        let world = World::new();
        let server = world.server();
        let clients = [world.client(TLS12_ONLY), world.client(TLS13_ONLY)];
        (world, server, clients)
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whoever changes bytes on the way ends the session at most; nobody believes a byte or a name that was not sent.
    #[test]
    fn nothing_on_the_way_changes_what_the_ends_believe(
        version in 0usize..2,
        turn in 0usize..8,
        tamper in tamper(),
        chunk in prop_oneof![1usize..40, Just(usize::MAX)],
    ) {
        WORLD.with(|(_, server, clients)| {
            let (up_data, down_data) = (noise(300), noise(500));
            let mut pair = Pair::new(&clients[version], server, ChainKind::Http);
            let mut sent = false;
            for n in 0..8 {
                let mut up = pair.client.take_out();
                if n == turn {
                    tamper.apply(&mut up);
                }
                up.chunks(chunk).for_each(|c| pair.server.receive(c));
                let mut down = pair.server.take_out();
                if n + 4 == turn {
                    tamper.apply(&mut down);
                }
                down.chunks(chunk).for_each(|c| pair.client.receive(c));
                let both = pair.client.session.is_established() && pair.server.session.is_established();
                if both && !sent {
                    sent = true;
                    pair.client.send(&up_data);
                    pair.server.send(&down_data);
                }
            }
            prop_assert!(up_data.starts_with(&pair.server.plain));
            prop_assert!(down_data.starts_with(&pair.client.plain));
            prop_assert!(!pair.server.finished && !pair.client.finished);
            for (end, id) in [(pair.server, SLEEP), (pair.client, HTTPBIN)] {
                if let Some(established) = end.established {
                    let peer = established.peer.expect("a peer");
                    prop_assert_eq!(peer.id.as_str(), id);
                }
            }
            Ok(())
        })?;
    }
}
