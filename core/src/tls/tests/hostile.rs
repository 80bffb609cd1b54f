//! Peers that mean harm: what they send must cost them more than us, and gain them nothing.

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
