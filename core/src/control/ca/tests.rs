use rcgen::{CustomExtension, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, date_time_ymd};
use webpki::ALL_VERIFICATION_ALGS as ALGORITHMS;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

use super::*;
use crate::spiffe::{TrustBundle, verify_client};

const NOW: UnixTime = UnixTime(1_767_225_600_250);
const API: &str = "spiffe://cluster.local/ns/shop/sa/api";
const SERIAL: [u8; 16] = [0xff; 16];

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

fn authority(kind: KeyKind) -> Authority {
    Authority::new_self_signed(&Crypto::production(), kind, &domain(), NOW, [1; 16]).unwrap()
}

fn id(uri: &str) -> SpiffeId {
    SpiffeId::parse(uri).unwrap()
}

/// A request as `change` leaves it, in DER.
fn csr_of(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    change(&mut params);
    params.serialize_request(key).unwrap().der().to_vec()
}

fn csr() -> Vec<u8> {
    csr_of(&KeyPair::generate().unwrap(), |_| {})
}

fn request(caller: &str, csr: Vec<u8>, validity_s: i64) -> SignRequest {
    SignRequest {
        caller: Some(id(caller)),
        csr,
        validity_s,
    }
}

fn parsed(der: &[u8]) -> X509Certificate<'_> {
    x509_parser::parse_x509_certificate(der).unwrap().1
}

fn refused(authority: &Authority, request: &SignRequest) -> Refusal {
    sign(authority, request, NOW, SERIAL).expect_err("a refusal")
}

/// S-90, S-92
#[test]
fn a_certificate_has_the_shape_that_istiod_gives_it() {
    for kind in [KeyKind::P256, KeyKind::Rsa2048, KeyKind::Ed25519] {
        let authority = authority(kind);
        let chain = sign(&authority, &request(API, csr(), 3600), NOW, SERIAL).unwrap();
        assert_eq!(chain.certificates().len(), 2);
        let (sent, root) = chain.split();
        assert_eq!(root, authority.root());
        let leaf = parsed(&sent[0]);

        assert_eq!(leaf.subject().iter().count(), 0);
        assert_eq!(leaf.issuer().to_string(), "O=cluster.local");
        let san = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(san.critical);
        assert!(matches!(san.value.general_names[..], [GeneralName::URI(uri)] if uri == API));
        let usage = leaf.key_usage().unwrap().unwrap();
        assert!(usage.critical);
        assert_eq!(
            usage.value.flags, 0b101,
            "digitalSignature, keyEncipherment"
        );
        let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.server_auth && purposes.client_auth && purposes.other.is_empty());
        let constraints = leaf.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && !constraints.value.ca);

        let now = i64::try_from(NOW.as_secs()).unwrap();
        assert_eq!(leaf.validity().not_before.timestamp(), now - 120);
        assert_eq!(leaf.validity().not_after.timestamp(), now + 3600);

        // AKI names the root's key.
        let named = leaf
            .extensions()
            .iter()
            .find_map(|e| match e.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(aki) => aki.key_identifier.as_ref(),
                _ => None,
            });
        let root = parsed(root);
        let own = root
            .extensions()
            .iter()
            .find_map(|e| match e.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(ski) => Some(ski),
                _ => None,
            });
        assert!(own.is_some());
        assert_eq!(named, own);

        let bundle = TrustBundle::new([authority.root().clone()]).unwrap();
        let peer = verify_client(sent, &bundle, &[domain()], NOW, ALGORITHMS).unwrap();
        assert_eq!(peer.id, id(API));
    }
}

/// S-90, RFC 5280 §4.1.2.2
#[test]
fn a_serial_is_positive_and_has_128_bits_whatever_was_drawn() {
    let authority = authority(KeyKind::P256);
    for (drawn, first) in [([0xff; 16], 0x7f), ([0; 16], 0x40), ([0x81; 16], 0x41)] {
        let chain = sign(&authority, &request(API, csr(), 0), NOW, drawn).unwrap();
        let serial = parsed(&chain.certificates()[0]).raw_serial().to_vec();
        assert_eq!((serial.len(), serial[0]), (16, first));
        assert_eq!(serial[1..], drawn[1..]);
    }
}

/// S-95
#[test]
fn a_root_lasts_ten_years_and_names_its_trust_domain() {
    let authority = authority(KeyKind::P256);
    let root = parsed(authority.root());
    assert_eq!(root.subject().to_string(), "O=cluster.local");
    assert_eq!(root.issuer().to_string(), "O=cluster.local");
    let now = i64::try_from(NOW.as_secs()).unwrap();
    assert_eq!(root.validity().not_before.timestamp(), now - 120);
    let end = now + 10 * 365 * 86_400;
    assert_eq!(root.validity().not_after.timestamp(), end);
    assert_eq!(authority.not_after().as_secs(), end as u64);
    let usage = root.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert!(TrustBundle::new([authority.root().clone()]).is_ok());
}

#[test]
fn an_authority_survives_its_files() {
    for kind in [KeyKind::P256, KeyKind::Rsa2048, KeyKind::Ed25519] {
        let made = authority(kind);
        let key = made.key_pem();
        let read =
            Authority::from_pem(made.root_pem().as_bytes(), key.reveal().as_bytes()).unwrap();
        assert_eq!(read.root(), made.root());
        assert_eq!(read.trust_domain(), made.trust_domain());
        assert_eq!(read.not_after(), made.not_after());
        let chain = sign(&read, &request(API, csr(), 0), NOW, SERIAL).unwrap();
        let bundle = TrustBundle::new([made.root().clone()]).unwrap();
        let (sent, _) = chain.split();
        assert!(verify_client(sent, &bundle, &[domain()], NOW, ALGORITHMS).is_ok());
        assert_eq!(Chain::from_pem(chain.pem().as_bytes()), Ok(chain));
    }
}

/// S-95
#[test]
fn a_renewed_root_believes_what_was_signed_before_and_is_believed_by_who_knows_the_old_one() {
    for kind in [KeyKind::P256, KeyKind::Rsa2048] {
        let old = authority(kind);
        let later = UnixTime(old.not_after().0 - 60_000);
        let new = old.renewed(later, [2; 16]).unwrap();
        assert_ne!(new.root(), old.root());
        assert_eq!(
            new.not_after().as_secs(),
            later.as_secs() + ROOT_LIFETIME.as_secs()
        );
        for (signer, trusted) in [(&old, &new), (&new, &old)] {
            let chain = sign(signer, &request(API, csr(), 30), later, SERIAL).unwrap();
            let bundle = TrustBundle::new([trusted.root().clone()]).unwrap();
            let (sent, _) = chain.split();
            let peer = verify_client(sent, &bundle, &[domain()], later, ALGORITHMS);
            assert_eq!(peer.map(|leaf| leaf.id), Ok(id(API)));
        }
    }
}

#[test]
fn files_that_make_no_authority_are_told_apart() {
    let made = authority(KeyKind::P256);
    let (root, key) = (made.root_pem(), made.key_pem().reveal().clone());
    let other = authority(KeyKind::P256).key_pem().reveal().clone();
    let leaf = sign(&made, &request(API, csr(), 0), NOW, SERIAL).unwrap();
    let nameless_key = KeyPair::generate().unwrap();
    let mut nameless = CertificateParams::default();
    nameless.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let nameless = nameless.self_signed(&nameless_key).unwrap().pem();
    let fault = |root: &str, key: &str| {
        Authority::from_pem(root.as_bytes(), key.as_bytes()).expect_err("no authority")
    };
    assert!(matches!(fault("", &key), CaError::RootPem(_)));
    assert!(matches!(fault(&root, &root), CaError::KeyPem(_)));
    assert!(matches!(
        fault(&pem_of("CERTIFICATE", b"\x30\x03abc"), &key),
        CaError::Root(_)
    ));
    assert_eq!(
        fault(&root, &pem_of("PRIVATE KEY", b"\x30\x03abc")),
        CaError::KeyUnusable
    );
    assert_eq!(fault(&leaf.pem(), &key), CaError::NotAuthority);
    assert_eq!(fault(&root, &other), CaError::KeyMismatch);
    assert_eq!(
        fault(&nameless, &nameless_key.serialize_pem()),
        CaError::NoTrustDomain
    );
}

/// S-92: whoever can sign a request cannot choose who it is.
#[test]
fn what_a_request_asks_for_beside_its_key_is_passed_over() {
    let authority = authority(KeyKind::P256);
    let key = KeyPair::generate().unwrap();
    let csr = csr_of(&key, |params| {
        params
            .distinguished_name
            .push(DnType::CommonName, "cluster-admin");
        params.subject_alt_names = vec![
            uri("spiffe://cluster.local/ns/istio-system/sa/admin").unwrap(),
            SanType::DnsName("istiod.istio-system.svc".try_into().unwrap()),
        ];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_after = date_time_ymd(2100, 1, 1);
        params.custom_extensions = vec![CustomExtension::from_oid_content(
            &[1, 3, 6, 1, 4, 1, 99999, 1],
            vec![5, 0],
        )];
    });
    let chain = sign(&authority, &request(API, csr, 60), NOW, SERIAL).unwrap();
    let leaf = parsed(&chain.certificates()[0]);
    assert_eq!(
        leaf.public_key().subject_public_key.data,
        key.public_key_raw()
    );
    assert_eq!(leaf.subject().iter().count(), 0);
    assert!(!leaf.is_ca());
    assert_eq!(Leaf::parse(&chain.certificates()[0]).unwrap().id, id(API));
    let of_ours = sign(&authority, &request(API, self::csr(), 60), NOW, SERIAL).unwrap();
    assert_eq!(
        leaf.extensions().len(),
        parsed(&of_ours.certificates()[0]).extensions().len()
    );
}

/// S-92
#[test]
fn a_caller_is_a_workload_of_the_trust_domain() {
    let authority = authority(KeyKind::P256);
    let mut nobody = request(API, csr(), 0);
    nobody.caller = None;
    assert_eq!(refused(&authority, &nobody), Refusal::Unauthenticated);
    assert_eq!(Refusal::Unauthenticated.grpc(), "UNAUTHENTICATED");

    let foreign = refused(
        &authority,
        &request("spiffe://elsewhere/ns/a/sa/b", csr(), 0),
    );
    assert_eq!(foreign.grpc(), "PERMISSION_DENIED");
    assert_eq!(
        foreign.to_string(),
        "spiffe://elsewhere/ns/a/sa/b is not of trust domain cluster.local, for which the authority speaks"
    );
    let domain = refused(&authority, &request("spiffe://cluster.local", csr(), 0));
    assert_eq!(domain, Refusal::NoWorkload(id("spiffe://cluster.local")));
}

/// S-92, RFC 2986 §4.2
#[test]
fn a_request_must_be_whole_and_signed_with_its_own_key() {
    let authority = authority(KeyKind::P256);
    let good = csr();
    let pem = pem_of("CERTIFICATE REQUEST", &good).into_bytes();
    for taken in [good.clone(), pem.clone()] {
        assert!(sign(&authority, &request(API, taken, 0), NOW, SERIAL).is_ok());
    }
    let mut cases = vec![
        (Vec::new(), CsrError::Malformed),
        (b"garbage".to_vec(), CsrError::Malformed),
        (good[..good.len() - 1].to_vec(), CsrError::Malformed),
        ([good.clone(), vec![0]].concat(), CsrError::Malformed),
        (pem[..pem.len() / 2].to_vec(), CsrError::Malformed),
        (authority.root().to_vec(), CsrError::Malformed),
        (vec![0x30; CSR_MAX + 1], CsrError::TooLarge),
    ];
    // Another key under the same signature, and another signature under the same key.
    let mut swapped = good.clone();
    let key = KeyPair::generate().unwrap();
    let (_, whole) = X509CertificationRequest::from_der(&good).unwrap();
    let old = &whole
        .certification_request_info
        .subject_pki
        .subject_public_key
        .data;
    let at = good.windows(old.len()).position(|w| w == &**old).unwrap();
    swapped[at..at + old.len()].copy_from_slice(key.public_key_raw());
    cases.push((swapped, CsrError::Signature));
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    cases.push((forged, CsrError::Signature));

    for (csr, fault) in cases {
        let refusal = refused(&authority, &request(API, csr, 0));
        assert_eq!(refusal, Refusal::Csr(fault));
        assert_eq!(refusal.grpc(), "INVALID_ARGUMENT");
    }
}

/// What wraps the signed part may be written in more than one way; what it covers may not change.
#[test]
fn no_cut_of_a_request_is_taken_and_no_bit_of_its_signed_part_may_change() {
    let authority = authority(KeyKind::Ed25519);
    let key = KeyPair::generate().unwrap();
    let good = csr_of(&key, |_| {});
    let (_, whole) = X509CertificationRequest::from_der(&good).unwrap();
    let signed = whole.certification_request_info.raw;
    let begin = good.windows(signed.len()).position(|w| w == signed);
    let signed = begin.unwrap()..begin.unwrap() + signed.len();
    for end in 0..good.len() {
        let refusal = refused(&authority, &request(API, good[..end].to_vec(), 0));
        assert!(matches!(refusal, Refusal::Csr(_)), "{end}: {refusal}");
    }
    for at in 0..good.len() {
        let mut bent = good.clone();
        bent[at] ^= 0x15;
        let Ok(chain) = sign(&authority, &request(API, bent, 0), NOW, SERIAL) else {
            continue;
        };
        assert!(!signed.contains(&at), "byte {at} of {signed:?}");
        let leaf = parsed(&chain.certificates()[0]);
        assert_eq!(
            leaf.public_key().subject_public_key.data,
            key.public_key_raw()
        );
    }
}

/// S-83: what a peer would refuse is not signed.
#[test]
fn keys_that_cannot_sign_a_handshake_are_refused() {
    let authority = authority(KeyKind::P256);
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let csr = csr_of(&KeyPair::generate_for(algorithm).unwrap(), |_| {});
        assert!(sign(&authority, &request(API, csr, 0), NOW, SERIAL).is_ok());
    }
    // `openssl req -new` with RSA keys.
    let refused_ones: [&[u8]; 3] = [
        include_bytes!("../../../tests/material/csr/rsa1024-sha256.pem"),
        include_bytes!("../../../tests/material/csr/rsa1024-sha1.pem"),
        include_bytes!("../../../tests/material/csr/rsa2048-sha1.pem"),
    ];
    for csr in refused_ones {
        let refusal = refused(&authority, &request(API, csr.to_vec(), 0));
        assert_eq!(refusal, Refusal::Csr(CsrError::Signature));
    }
    let csr = include_bytes!("../../../tests/material/csr/rsa2048-sha256.pem").to_vec();
    assert!(sign(&authority, &request(API, csr, 0), NOW, SERIAL).is_ok());
}

/// S-91
#[test]
fn a_lifetime_is_defaulted_bounded_and_ends_with_the_signer() {
    let authority = authority(KeyKind::P256);
    let at = |now: UnixTime, ttl| -> Result<u64, Refusal> {
        let chain = sign(&authority, &request(API, csr(), ttl), now, SERIAL)?;
        let not_after = Leaf::parse(&chain.certificates()[0]).unwrap().not_after;
        Ok(not_after.as_secs() - now.as_secs())
    };
    assert_eq!(at(NOW, 0), Ok(86_400));
    assert_eq!(at(NOW, -1), Ok(86_400));
    assert_eq!(at(NOW, i64::MIN), Ok(86_400));
    assert_eq!(at(NOW, 1), Ok(1));
    assert_eq!(at(NOW, 2160 * 3600), Ok(2160 * 3600));
    assert_eq!(at(NOW, 2160 * 3600 + 1), Err(Refusal::TtlTooLong));
    assert_eq!(at(NOW, i64::MAX), Err(Refusal::TtlTooLong));
    assert_eq!(
        Refusal::TtlTooLong.to_string(),
        "a certificate may last 2160h at most"
    );

    let end = authority.not_after();
    assert_eq!(at(UnixTime(end.0 - 600_000), 86_400), Ok(600));
    for past in [end, UnixTime(end.0 + 1000)] {
        assert_eq!(at(past, 60), Err(Refusal::SignerExpired(end)));
    }
}

#[test]
fn a_date_that_no_certificate_can_say_is_an_error() {
    let far = UnixTime(u64::MAX);
    let made =
        Authority::new_self_signed(&Crypto::production(), KeyKind::P256, &domain(), far, SERIAL);
    assert!(matches!(made, Err(CaError::Making(_))));
}

#[test]
fn an_authority_shows_nothing_of_its_key() {
    let authority = authority(KeyKind::P256);
    let shown = format!("{authority:?}");
    assert!(
        shown.starts_with("Authority { trust_domain: \"cluster.local\""),
        "{shown}"
    );
    assert!(!shown.contains("PRIVATE"), "{shown}");
    assert_eq!(format!("{:?}", authority.key_pem()), "[hidden]");
}
