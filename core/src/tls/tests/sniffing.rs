use proptest::prelude::*;

use super::world::*;
use crate::limits::CLIENT_HELLO_MAX;
use crate::link::Buf;
use crate::tls::*;

/// A ClientHello of rustls: one record.
fn hello() -> Vec<u8> {
    let mut out = Buf::default();
    let mut client = Session::client(&World::new().client(TLS13_ONLY)).unwrap();
    client.start(&mut out).unwrap();
    out.to_vec()
}

/// The same handshake bytes in records of `size` bytes.
fn refragmented(hello: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for fragment in hello[5..].chunks(size) {
        out.extend_from_slice(&[22, 3, 1]);
        out.extend_from_slice(&(fragment.len() as u16).to_be_bytes());
        out.extend_from_slice(fragment);
    }
    out
}

/// A ClientHello with these extensions, in one record.
fn hello_with(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, value)| [&kind.to_be_bytes()[..], &vector16(value)].concat())
        .collect();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &[0, 2, 0x13, 1],
        &[1, 0],
        &vector16(&list),
    ]
    .concat();
    record(&[&[1, 0][..], &vector16(&body)].concat())
}

fn record(payload: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &vector16(payload)].concat()
}

fn vector16(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    vector16(&[&[0][..], &vector16(name)].concat())
}

fn facts(bytes: &[u8]) -> HelloFacts {
    match sniff(bytes) {
        Sniff::Hello(facts) => facts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_of_the_mesh_is_recognised_by_its_names() {
    let facts = facts(&hello());
    assert_eq!(facts.sni.as_deref(), Some(SNI));
    assert_eq!(facts.alpn, [&b"istio-http/1.1"[..], b"istio", b"http/1.1"]);
    assert!(facts.istio_alpn() && facts.istio_http_alpn());
    assert!(facts.offers(b"http/1.1") && !facts.offers(b"h2"));
}

/// S-25
#[test]
fn each_istio_name_counts_and_no_other() {
    for (name, istio, http) in [
        ("istio", true, false),
        ("istio-peer-exchange", true, false),
        ("istio-http/1.0", true, true),
        ("istio-http/1.1", true, true),
        ("istio-h2", true, true),
        ("h2", false, false),
        ("http/1.1", false, false),
        ("istio-", false, false),
        ("ISTIO", false, false),
    ] {
        let mut alpn = vec![name.len() as u8];
        alpn.extend_from_slice(name.as_bytes());
        let facts = facts(&hello_with(&[(16, &vector16(&alpn))]));
        assert_eq!(
            (facts.istio_alpn(), facts.istio_http_alpn()),
            (istio, http),
            "{name}"
        );
    }
}

#[test]
fn a_hello_without_extensions_says_nothing() {
    let body = [&[3, 1][..], &[7; 32], &[0], &[0, 2, 0, 47], &[1, 0]].concat();
    let bare = record(&[&[1, 0][..], &vector16(&body)].concat());
    let expected = HelloFacts {
        newest: 0x0301,
        ..HelloFacts::default()
    };
    assert_eq!(facts(&bare), expected);
}

#[test]
fn a_fallback_is_told() {
    let suites = |list: &[u8]| {
        let body = [&[3, 3][..], &[7; 32], &[0], &vector16(list), &[1, 0]].concat();
        record(&[&[1, 0][..], &vector16(&body)].concat())
    };
    assert!(facts(&suites(&[0xc0, 0x2f, 0x56, 0x00])).fallback);
    assert!(
        !facts(&suites(&[0xc0, 0x56, 0x00, 0x2f])).fallback,
        "not at a suite's place"
    );
}

#[test]
fn the_newest_version_is_told_and_grease_is_not_a_version() {
    assert_eq!(facts(&hello()).newest, 0x0304);
    for (list, newest) in [
        (&[6, 0x7a, 0x7a, 3, 2, 3, 1][..], 0x0302),
        (&[4, 3, 3, 0xfa, 0xfa], 0x0303),
        (&[2, 0x0a, 0x0a], 0),
    ] {
        assert_eq!(facts(&hello_with(&[(43, list)])).newest, newest);
    }
    assert_eq!(sniff(&hello_with(&[(43, &[3, 3, 4, 3])])), Sniff::NotTls);
}

#[test]
fn a_hello_is_put_together_from_records_of_any_size() {
    let hello = hello();
    let whole = facts(&hello);
    for size in 1..hello.len() - 5 {
        let pieces = refragmented(&hello, size);
        assert_eq!(facts(&pieces), whole, "records of {size} bytes");
    }
}

/// S-26, S-27: nothing is decided before the last byte, and everything with it.
#[test]
fn every_prefix_of_a_hello_waits_for_more() {
    let hello = hello();
    for bytes in [hello.clone(), refragmented(&hello, 9)] {
        for n in 0..bytes.len() {
            assert_eq!(sniff(&bytes[..n]), Sniff::NeedMore, "after {n} bytes");
        }
        assert!(matches!(sniff(&bytes), Sniff::Hello(_)));
        let more = [&bytes[..], b"and then"].concat();
        assert!(matches!(sniff(&more), Sniff::Hello(_)));
    }
}

/// S-26: first byte 0x16, then a parsable ClientHello; anything else is plaintext.
#[test]
fn what_is_no_hello_is_plaintext_as_soon_as_it_shows() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PRI * HTTP/2.0\r\n",
        b"\x16\x02",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x10\xde\xad\xbe\xef",
        b"\x16\x03\x01\x00\x04\x02",
        b"\x16\x03\x01\x00\x02\x01\x00\x15",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x80\x2e\x01\x00\x02",
    ] {
        assert_eq!(sniff(bytes), Sniff::NotTls, "{bytes:?}");
    }
}

#[test]
fn a_hello_whose_form_is_broken_is_plaintext() {
    let names = |list: &[u8]| vector16(list);
    let none = Vec::new();
    for (what, bytes) in [
        ("an empty name", hello_with(&[(16, &names(&[0]))])),
        (
            "a name that is cut off",
            hello_with(&[(16, &names(&[3, b'h']))]),
        ),
        ("no names", hello_with(&[(16, &names(&none))])),
        ("an empty server name", hello_with(&[(0, &sni(b""))])),
        ("a server name with NUL", hello_with(&[(0, &sni(b"a\0b"))])),
        ("a long server name", hello_with(&[(0, &sni(&[b'a'; 256]))])),
        (
            "two server names",
            hello_with(&[(0, &sni(b"a")), (0, &sni(b"b"))]),
        ),
        ("no body", record(&[1, 0, 0, 0])),
    ] {
        assert_eq!(sniff(&bytes), Sniff::NotTls, "{what}");
    }
    // One byte too many behind the extensions.
    let mut long = hello_with(&[]);
    long.push(0);
    let n = long.len();
    long[4] += 1;
    long[8] += 1;
    assert_eq!(sniff(&long), Sniff::NotTls, "{n} bytes");
}

#[test]
fn a_server_name_is_told_in_lower_case() {
    let facts = facts(&hello_with(&[(0, &sni(b"Shop.Example"))]));
    assert_eq!(facts.sni.as_deref(), Some("shop.example"));
}

#[test]
fn a_hello_that_is_too_large_is_refused_at_its_header() {
    let length = (CLIENT_HELLO_MAX + 1) as u32;
    let [_, a, b, c] = length.to_be_bytes();
    assert_eq!(sniff(&[22, 3, 1, 0x40, 0, 1, a, b]), Sniff::NeedMore);
    assert_eq!(sniff(&[22, 3, 1, 0x40, 0, 1, a, b, c]), Sniff::Bad);

    // As large as allowed, but spread over so many records that their headers weigh more than it does.
    let thin = [22, 3, 1, 0, 1, 1].into_iter();
    let wire: Vec<u8> = thin
        .chain([22, 3, 1, 0, 3, 0, 0xff, 0xff])
        .chain([22, 3, 1, 0, 1, 0].repeat(65_000))
        .collect();
    assert_eq!(sniff(&wire), Sniff::Bad);
}

/// All bytes are shown again with each that comes, so a walk over many records would be a walk for each byte.
#[test]
fn a_hello_in_too_many_records_is_not_walked_through_for_ever() {
    let records = |n: usize| {
        let body = [22, 3, 1, 0, 1, 0].repeat(n - 1);
        [&[22, 3, 1, 0, 4, 1, 0, 0xff, 0][..], &body].concat()
    };
    assert_eq!(sniff(&records(1023)), Sniff::NeedMore);
    assert_eq!(sniff(&records(1024)), Sniff::Bad);
}

proptest! {
    /// A verdict, once given, holds for everything that follows, and the session that gets the bytes survives them too.
    #[test]
    fn no_bytes_confuse_it(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        size in 1usize..700,
        tail in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let base = SEED.with(Clone::clone);
        let mut bytes = refragmented(&base, size);
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend(tail);
        let mut verdict = Sniff::NeedMore;
        for n in 0..=bytes.len() {
            let next = sniff(&bytes[..n]);
            if verdict != Sniff::NeedMore {
                prop_assert_eq!(&next, &verdict);
            }
            verdict = next;
        }
        if let Sniff::Hello(facts) = verdict {
            let session = SERVER.with(|s| Session::server(s, ChainKind::Http, &facts)).unwrap();
            End::new(session).receive(&bytes);
        }
    }

    #[test]
    fn noise_is_never_a_hello(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(!matches!(sniff(&bytes), Sniff::Hello(_)));
    }
}

/// What rustls reads in a ClientHello: protocol names and server name. `None`: it refuses, or waits.
fn rustls_reads(mut bytes: &[u8]) -> Option<(Vec<Vec<u8>>, Option<String>, bool)> {
    let mut acceptor = rustls::server::Acceptor::default();
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            let hello = accepted.client_hello();
            let alpn = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec);
            let fallback = rustls::CipherSuite::Unknown(0x5600);
            return Some((
                alpn.collect(),
                hello.server_name().map(str::to_owned),
                hello.cipher_suites().contains(&fallback),
            ));
        }
    }
    None
}

/// One reader chooses the chain, another shakes hands: whoever makes them disagree is on a chain that was not meant for
/// it. Server names are told as they were sent, as Envoy does it, where rustls passes over an address and a last dot.
#[track_caller]
fn both_readers_agree(bytes: &[u8]) -> bool {
    let Sniff::Hello(facts) = sniff(bytes) else {
        return false;
    };
    let Some((alpn, sni, fallback)) = rustls_reads(bytes) else {
        return false;
    };
    assert_eq!(facts.alpn, alpn, "{bytes:?}");
    assert_eq!(facts.fallback, fallback, "{bytes:?}");
    let address = |name: &String| name.parse::<std::net::IpAddr>().is_ok();
    let named = facts.sni.filter(|name| !address(name));
    let undotted = named.map(|name| name.strip_suffix('.').unwrap_or(&name).to_owned());
    assert_eq!(undotted, sni, "{bytes:?}");
    true
}

fn server_name() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        "[a-cA-C._*-]{0,6}[.]?".prop_map(String::into_bytes),
        Just(b"10.0.0.1".to_vec()),
        Just(b"::1".to_vec()),
        Just("\u{fc}.example".as_bytes().to_vec()),
        Just(b"a\0b".to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    let entry = (prop_oneof![9 => Just(0u8), 1 => any::<u8>()], name)
        .prop_map(|(kind, name)| [&[kind][..], &vector16(&name)].concat());
    prop_oneof![
        9 => entry.clone().prop_map(|entry| vector16(&entry)),
        1 => (entry.clone(), entry).prop_map(|(a, b)| vector16(&[a, b].concat())),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ]
}

fn protocol_names() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        Just(b"istio".to_vec()),
        Just(b"istio-http/1.1".to_vec()),
        Just(b"h2".to_vec()),
        Just(vec![0x1a, 0x1a]),
        prop::collection::vec(any::<u8>(), 0..4),
    ]
    .prop_map(|name| [&[name.len() as u8][..], &name].concat());
    prop_oneof![
        9 => prop::collection::vec(name, 0..4).prop_map(|names| vector16(&names.concat())),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ]
}

fn extension() -> impl Strategy<Value = (u16, Vec<u8>)> {
    prop_oneof![
        4 => server_name().prop_map(|value| (0, value)),
        4 => protocol_names().prop_map(|value| (16, value)),
        1 => prop::collection::vec(any::<u8>(), 0..6).prop_map(|value| (43, value)),
        1 => Just((43, vec![2, 3, 4])),
        1 => Just((43, vec![4, 0x7a, 0x7a, 3, 3])),
        1 => Just((0x3a3a, vec![0])),
        1 => Just((0xff01, vec![0])),
        1 => Just((23, vec![])),
        1 => (any::<u16>(), prop::collection::vec(any::<u8>(), 0..6)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whoever_reads_a_hello_reads_the_same_or_refuses_it(
        mut extensions in prop::collection::vec(extension(), 0..5),
        at in any::<prop::sample::Index>(),
        size in prop_oneof![1usize..20, 20usize..400],
        minor in 0u8..6,
        extra in prop_oneof![9 => Just(vec![]), 1 => prop::collection::vec(any::<u8>(), 1..3)],
        tail in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        // rustls asks for this one before anything is read.
        extensions.insert(at.index(extensions.len() + 1), (13, vec![0, 2, 4, 3]));
        let list: Vec<(u16, &[u8])> =
            extensions.iter().map(|(kind, value)| (*kind, value.as_slice())).collect();
        let mut hello = hello_with(&list);
        // Bytes after the message, in its record or behind it.
        hello.extend(extra);
        let mut bytes = refragmented(&hello, size);
        bytes.extend(tail);
        let mut at = 0;
        while let Some(record) = bytes.get_mut(at..).filter(|r| r.len() > 5 && r[0] == 22) {
            record[2] = minor;
            at += 5 + usize::from(u16::from_be_bytes([record[3], record[4]]));
        }
        both_readers_agree(&bytes);
    }

    #[test]
    fn both_readers_of_a_changed_hello_agree(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        size in prop_oneof![1usize..20, 20usize..400],
    ) {
        let mut hello = SEED.with(Clone::clone);
        for (at, byte) in edits {
            let at = at.index(hello.len());
            hello[at] = byte;
        }
        both_readers_agree(&refragmented(&hello, size));
    }
}

/// The two properties above would hold for a reader that never reads.
#[test]
fn both_readers_read_an_ordinary_hello() {
    assert!(both_readers_agree(&hello()));
    assert!(both_readers_agree(&refragmented(&hello(), 7)));
    let algorithms: (u16, &[u8]) = (13, &[0, 2, 4, 3]);
    for name in [&b"Shop.Example"[..], b"outbound_.80_._.a.b", b"10.0.0.1"] {
        assert!(both_readers_agree(&hello_with(&[
            algorithms,
            (0, &sni(name))
        ])));
    }
    assert!(!both_readers_agree(&hello_with(&[algorithms, algorithms])));
}

thread_local! {
    static SEED: Vec<u8> = hello();
    static SERVER: ServerTls = World::new().server();
}
