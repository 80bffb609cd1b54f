//! What one established session holds in memory, and what a request costs in allocations.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test reads the shared material, which the core itself may not"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use meshward_core::clock::UnixTime;
use meshward_core::link::Buf;
use meshward_core::pii::Pii;
use meshward_core::spiffe::{SpiffeId, Svid, TrustBundle, TrustDomain};
use meshward_core::tls::{
    ChainKind, ClientTls, Crypto, ServerTls, Session, Sniff, TlsEvent, TlsVersion, WallClock, sniff,
};

static HELD: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to `System` with the arguments it came with; the counters touch no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `at` came from `System` with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Resident bytes of the process, the C heap of the cryptography included. `None` where there is no `/proc`.
fn resident() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// Both ends of one link.
struct Pair {
    client: Session,
    server: Session,
}

impl Pair {
    fn new(client: &ClientTls, server: &ServerTls) -> Self {
        let mut client = Session::client(client).unwrap();
        let mut up = Buf::default();
        client.start(&mut up).unwrap();
        let Sniff::Hello(facts) = sniff(&up) else {
            panic!("a ClientHello");
        };
        let mut pair = Self {
            client,
            server: Session::server(server, ChainKind::Http, &facts).unwrap(),
        };
        while !up.is_empty() {
            let mut down = Buf::default();
            pair.server.receive(up, &mut down, &mut |_| {}).unwrap();
            up = Buf::default();
            pair.client.receive(down, &mut up, &mut |_| {}).unwrap();
        }
        assert!(pair.client.is_established() && pair.server.is_established());
        pair
    }
}

fn settings() -> (ClientTls, ServerTls) {
    let (crypto, clock) = (Crypto::production(), WallClock::default());
    clock.set(UnixTime(1_767_323_045_000));
    let key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let root = ca.self_signed(&key).unwrap().der().clone();
    let issuer = rcgen::Issuer::new(ca, key);
    let svid = |id: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![rcgen::SanType::URI(id.try_into().unwrap())];
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            rcgen::ExtendedKeyUsagePurpose::ServerAuth,
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 1, 3);
        Svid {
            id: SpiffeId::parse(id).unwrap(),
            chain: vec![params.signed_by(&key, &issuer).unwrap().der().clone()],
            key: Pii::new(key.serialize_der()),
            bundle: TrustBundle::new([root.clone()]).unwrap(),
            not_before: UnixTime(1_767_225_600_000),
            not_after: UnixTime(1_767_398_400_000),
        }
    };
    let sleep = svid("spiffe://cluster.local/ns/default/sa/sleep");
    let httpbin = svid("spiffe://cluster.local/ns/default/sa/httpbin");
    let accepted = [TrustDomain::parse("cluster.local").unwrap()];
    let least = TlsVersion::Tls12;
    (
        ClientTls::new(&crypto, &clock, &sleep, &[], None, ChainKind::Http).unwrap(),
        ServerTls::new(&crypto, &clock, &httpbin, &accepted, least).unwrap(),
    )
}

/// One test, since the counters are for the whole process.
#[test]
fn an_idle_session_is_small_and_a_request_allocates_nothing() {
    const LINKS: usize = 500;
    let (client, server) = settings();
    let mut links: Vec<Pair> = Vec::with_capacity(2 * LINKS);
    links.extend((0..LINKS).map(|_| Pair::new(&client, &server)));

    let (before, resident_before) = (HELD.load(Ordering::Relaxed), resident());
    links.extend((0..LINKS).map(|_| Pair::new(&client, &server)));
    let held = (HELD.load(Ordering::Relaxed) - before) / LINKS / 2;
    let inline = size_of::<Session>();
    println!("per idle session: {held} bytes on the Rust heap, {inline} inline");
    assert!(held < 2 * 1024, "{held}");
    assert!(inline < 512, "{inline}");
    if let (Some(before), Some(after)) = (resident_before, resident()) {
        let whole = after.saturating_sub(before) / LINKS / 2;
        println!("per idle session: {whole} bytes resident");
        assert!(whole < 6 * 1024, "{whole}");
    }

    let link = links.first_mut().unwrap();
    let (mut up, mut down) = (Buf::with_capacity(4096), Buf::with_capacity(4096));
    let mut input = Buf::with_capacity(4096);
    let mut received = 0;
    link.client.send(&[b'x'; 300], &mut up).unwrap();
    input.extend_from_slice(&up);
    let before = CALLS.load(Ordering::Relaxed);
    link.server
        .receive(input, &mut down, &mut |event| {
            if let TlsEvent::Plain(bytes) = event {
                received += bytes.len();
            }
        })
        .unwrap();
    link.server.send(&[b'y'; 1000], &mut down).unwrap();
    let calls = CALLS.load(Ordering::Relaxed) - before;
    assert_eq!(received, 300);
    assert_eq!(calls, 0, "opening a request and sealing its answer");
}
