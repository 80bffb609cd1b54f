//! A certificate authority, identities of it, and the wire between two ends.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::SupportedProtocolVersion;
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};

use crate::clock::UnixTime;
use crate::link::Buf;
use crate::pii::Pii;
use crate::spiffe::{SpiffeId, Svid, TrustBundle, TrustDomain};
use crate::tls::*;

pub(super) const TLS12_ONLY: &[&SupportedProtocolVersion] = &[&TLS12];
pub(super) const TLS13_ONLY: &[&SupportedProtocolVersion] = &[&TLS13];
/// 2026-01-02T03:04:05Z
pub(super) const NOW: UnixTime = UnixTime(1_767_323_045_000);
pub(super) const SLEEP: &str = "spiffe://cluster.local/ns/default/sa/sleep";
pub(super) const HTTPBIN: &str = "spiffe://cluster.local/ns/default/sa/httpbin";
pub(super) const SNI: &str = "outbound_.8000_._.httpbin.default.svc.cluster.local";

pub(super) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(super) root: CertificateDer<'static>,
}

impl Ca {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            root,
        }
    }

    /// A certificate of the shape of S-90, valid for an hour before and after [`NOW`].
    pub(super) fn issue(&self, id: &str) -> Svid {
        self.issue_between(id, -3600, 3600)
    }

    /// Validity in seconds from [`NOW`].
    pub(super) fn issue_between(&self, id: &str, from: i64, until: i64) -> Svid {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.is_ca = IsCa::ExplicitNoCa;
        let day = rcgen::date_time_ymd(2026, 1, 2);
        let now = day + std::time::Duration::from_secs(3 * 3600 + 4 * 60 + 5);
        let at = |seconds: i64| {
            let span = std::time::Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { now - span } else { now + span }
        };
        (params.not_before, params.not_after) = (at(from), at(until));
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let unix = |seconds: i64| UnixTime(NOW.0.saturating_add_signed(seconds * 1000));
        Svid {
            id: SpiffeId::parse(id).unwrap(),
            chain: vec![cert.der().clone()],
            key: Pii::new(key.serialize_der()),
            bundle: TrustBundle::new([self.root.clone()]).unwrap(),
            not_before: unix(from),
            not_after: unix(until),
        }
    }
}

/// Everything that two ends need.
pub(super) struct World {
    pub(super) crypto: Crypto,
    pub(super) clock: WallClock,
    pub(super) ca: Ca,
}

impl World {
    pub(super) fn new() -> Self {
        let clock = WallClock::default();
        clock.set(NOW);
        Self {
            crypto: Crypto::production(),
            clock,
            ca: Ca::new("cluster.local"),
        }
    }

    pub(super) fn server(&self) -> ServerTls {
        self.server_of(&self.ca.issue(HTTPBIN), TlsVersion::Tls12)
    }

    pub(super) fn server_of(&self, svid: &Svid, least: TlsVersion) -> ServerTls {
        let accepted = [TrustDomain::parse("cluster.local").unwrap()];
        ServerTls::new(&self.crypto, &self.clock, svid, &accepted, least).unwrap()
    }

    pub(super) fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientTls {
        self.client_of(&self.ca.issue(SLEEP), versions)
    }

    pub(super) fn client_of(
        &self,
        svid: &Svid,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientTls {
        self.client_expecting(svid, HTTPBIN, versions)
    }

    pub(super) fn client_expecting(
        &self,
        svid: &Svid,
        san: &str,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientTls {
        let expected = [san.to_owned()];
        let kind = ChainKind::Http;
        let (crypto, clock) = (&self.crypto, &self.clock);
        ClientTls::with_versions(crypto, clock, svid, &expected, Some(SNI), kind, versions).unwrap()
    }

    /// A pair that has shaken hands.
    pub(super) fn established(&self, versions: &[&'static SupportedProtocolVersion]) -> Pair {
        let mut pair = Pair::new(&self.client(versions), &self.server(), ChainKind::Http);
        pair.run(usize::MAX);
        assert!(pair.client.session.is_established() && pair.server.session.is_established());
        pair
    }
}

/// A session of ours, and what came out of it.
#[derive(Debug)]
pub(super) struct End {
    pub(super) session: Session,
    pub(super) out: Buf,
    pub(super) established: Option<Established>,
    pub(super) plain: Vec<u8>,
    pub(super) finished: bool,
    pub(super) failure: Option<TlsFailure>,
}

impl End {
    pub(super) fn new(session: Session) -> Self {
        Self {
            session,
            out: Buf::default(),
            established: None,
            plain: Vec::new(),
            finished: false,
            failure: None,
        }
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        let Self {
            session,
            out,
            established,
            plain,
            finished,
            ..
        } = self;
        let mut sink = |event: TlsEvent<'_>| {
            assert!(!*finished, "no event comes after the end");
            match event {
                TlsEvent::Established(e) => {
                    assert!(plain.is_empty(), "no data comes before the handshake ends");
                    assert_eq!(established.replace(e), None, "only one handshake");
                }
                TlsEvent::Plain(bytes) => {
                    assert!(established.is_some() && !bytes.is_empty());
                    plain.extend_from_slice(bytes);
                }
                TlsEvent::Finished => *finished = true,
            }
        };
        if let Err(failure) = session.receive(Buf::from(bytes), out, &mut sink) {
            assert_eq!(self.failure.replace(failure), None, "only one failure");
        }
    }

    pub(super) fn send(&mut self, plaintext: &[u8]) {
        self.session.send(plaintext, &mut self.out).unwrap();
    }

    pub(super) fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out).to_vec()
    }
}

/// Two sessions of ours and the wire between them.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) client: End,
    pub(super) server: End,
}

impl Pair {
    /// The client has said hello; the server has seen it, and has not been fed yet.
    pub(super) fn new(client: &ClientTls, server: &ServerTls, kind: ChainKind) -> Self {
        let mut client = End::new(Session::client(client).unwrap());
        client.session.start(&mut client.out).unwrap();
        let Sniff::Hello(facts) = sniff(&client.out) else {
            panic!("a ClientHello of ours is one");
        };
        let server = End::new(Session::server(server, kind, &facts).unwrap());
        Self { client, server }
    }

    /// Carries bytes in pieces of at most `chunk` until both are silent.
    pub(super) fn run(&mut self, chunk: usize) {
        loop {
            let (up, down) = (self.client.take_out(), self.server.take_out());
            if up.is_empty() && down.is_empty() {
                return;
            }
            up.chunks(chunk).for_each(|c| self.server.receive(c));
            down.chunks(chunk).for_each(|c| self.client.receive(c));
        }
    }
}

/// Printable noise without a short period.
pub(super) fn noise(n: usize) -> Vec<u8> {
    let mut x = 0x2545_f491_u32;
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            (x >> 24) as u8
        })
        .collect()
}
