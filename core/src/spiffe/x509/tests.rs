use super::*;
use crate::spiffe::testing::{
    Authority, CLIENT_AUTH, CRL_SIGN, DIGITAL_SIGNATURE, KEY_CERT_SIGN, KEY_ENCIPHERMENT, NEW_YEAR,
    SERVER_AUTH, Spec, cn, key, tlv,
};
use proptest::prelude::*;
use rustls_pki_types::CertificateDer;
use std::sync::OnceLock;

const WEB: &str = "spiffe://td/ns/n/sa/web";

fn issued(change: impl FnOnce(&mut Spec)) -> CertificateDer<'static> {
    static ROOT: OnceLock<Authority> = OnceLock::new();
    let mut spec = Spec::leaf(WEB);
    change(&mut spec);
    ROOT.get_or_init(|| Authority::root(&Spec::authority("root")))
        .issue(&spec)
}

fn leaf(change: impl FnOnce(&mut Spec)) -> Result<Leaf, SvidError> {
    Leaf::parse(&issued(change))
}

fn uri(text: &[u8]) -> (u8, Vec<u8>) {
    (6, text.to_vec())
}

#[test]
fn a_right_leaf_gives_its_facts() {
    let leaf = leaf(|spec| {
        spec.subject = vec![cn("w, x")];
        spec.sans.push((2, b"a.example".to_vec()));
        spec.sans.push((7, vec![127, 0, 0, 1]));
        spec.sans.push((2, b"b.example".to_vec()));
    })
    .expect("a right leaf");
    assert_eq!(leaf.id.as_str(), WEB);
    assert_eq!(leaf.subject, r"CN=w\, x");
    assert_eq!(leaf.dns, ["a.example", "b.example"]);
    assert_eq!(leaf.not_before, UnixTime((NEW_YEAR - 120) * 1000));
    assert_eq!(leaf.not_after, UnixTime((NEW_YEAR + 86_400) * 1000));
}

/// S-81, S-83.
#[test]
fn a_leaf_has_exactly_one_uri_san_and_it_is_a_workloads_spiffe_id() {
    type Change = fn(&mut Spec);
    let cases: [(Change, SvidError); 9] = [
        (|s| s.sans.clear(), SvidError::NoUri),
        (
            |s| s.sans = vec![(2, WEB.as_bytes().to_vec())],
            SvidError::NoUri,
        ),
        (
            |s| s.sans = vec![(1, WEB.as_bytes().to_vec())],
            SvidError::NoUri,
        ),
        (|s| s.sans.push(uri(WEB.as_bytes())), SvidError::ManyUris),
        (
            |s| s.sans.push(uri(b"http://example.org/")),
            SvidError::ManyUris,
        ),
        (
            |s| s.sans = vec![uri(b"http://td/ns/n/sa/web")],
            SvidError::SpiffeId(SpiffeIdError::Scheme),
        ),
        (
            |s| s.sans = vec![uri(b"")],
            SvidError::SpiffeId(SpiffeIdError::Scheme),
        ),
        (|s| s.sans = vec![uri(b"spiffe://td")], SvidError::NoPath),
        (
            |s| s.sans = vec![uri(b"spiffe://TD/ns/n/sa/web")],
            SvidError::NotCanonical,
        ),
    ];
    for (change, fault) in cases {
        assert_eq!(leaf(change), Err(fault));
    }
}

/// S-84, CVE-2025-66220.
#[test]
fn nul_and_bytes_outside_ascii_are_refused_in_every_textual_san() {
    for tag in [1, 2, 6] {
        for text in [
            &b"spiffe://td/x\0.evil"[..],
            "spiffe://td/é".as_bytes(),
            b"\xff\xfe",
        ] {
            assert_eq!(
                leaf(|s| s.sans.push((tag, text.to_vec()))),
                Err(SvidError::SanText),
                "tag {tag}"
            );
        }
    }
}

/// S-81.
#[test]
fn key_usage_of_a_leaf_is_critical_signs_handshakes_and_no_certificates() {
    for (bits, critical, verdict) in [
        (Some(DIGITAL_SIGNATURE), true, None),
        (Some(DIGITAL_SIGNATURE | KEY_ENCIPHERMENT), true, None),
        (None, true, Some(SvidError::NoKeyUsage)),
        (
            Some(DIGITAL_SIGNATURE),
            false,
            Some(SvidError::KeyUsageNotCritical),
        ),
        (
            Some(KEY_ENCIPHERMENT),
            true,
            Some(SvidError::NoDigitalSignature),
        ),
        (
            Some(DIGITAL_SIGNATURE | KEY_CERT_SIGN),
            true,
            Some(SvidError::LeafSigns),
        ),
        (
            Some(DIGITAL_SIGNATURE | CRL_SIGN),
            true,
            Some(SvidError::LeafSigns),
        ),
    ] {
        let read = leaf(|s| {
            s.key_usage = bits;
            s.key_usage_critical = critical;
        });
        assert_eq!(read.err(), verdict, "{bits:?} critical {critical}");
    }
}

/// S-81.
#[test]
fn key_purposes_are_absent_or_both() {
    for (purposes, verdict) in [
        (None, None),
        (Some(vec![CLIENT_AUTH, SERVER_AUTH]), None),
        (Some(vec![SERVER_AUTH]), Some(SvidError::ExtKeyUsage)),
        (Some(vec![CLIENT_AUTH]), Some(SvidError::ExtKeyUsage)),
        (Some(vec![]), Some(SvidError::ExtKeyUsage)),
    ] {
        let shown = format!("{purposes:?}");
        assert_eq!(
            leaf(|s| s.ext_key_usage = purposes).err(),
            verdict,
            "{shown}"
        );
    }
}

/// S-81.
#[test]
fn a_leaf_is_not_an_authority() {
    assert_eq!(leaf(|s| s.is_ca = Some(true)), Err(SvidError::CaAsLeaf));
    assert!(leaf(|s| s.is_ca = None).is_ok());
}

/// S-81.
#[test]
fn the_san_is_critical_if_the_subject_is_empty() {
    assert_eq!(
        leaf(|s| s.san_critical = Some(false)),
        Err(SvidError::SanNotCritical)
    );
    assert!(
        leaf(|s| {
            s.san_critical = Some(false);
            s.subject = vec![cn("w")];
        })
        .is_ok()
    );
}

#[test]
fn an_extension_that_appears_twice_is_refused() {
    let read = leaf(|s| {
        let content = tlv(0x30, &tlv(0x86, b"spiffe://td/other"));
        s.more.push((&[2, 5, 29, 17], true, content));
    });
    assert_eq!(read, Err(SvidError::TwiceExtension("subjectAltName")));
}

#[test]
fn malformed_extensions_are_refused() {
    let malformed: [(&'static [u64], Vec<u8>, SvidError); 5] = [
        (
            &[2, 5, 29, 17],
            tlv(0x30, &tlv(0xa6, b"spiffe://td/x")),
            SvidError::Extension("subjectAltName"),
        ),
        (
            &[2, 5, 29, 17],
            tlv(0x30, &tlv(0x06, b"spiffe://td/x")),
            SvidError::Extension("subjectAltName"),
        ),
        (
            &[2, 5, 29, 17],
            [tlv(0x30, &tlv(0x86, WEB.as_bytes())), vec![0]].concat(),
            SvidError::Extension("subjectAltName"),
        ),
        (
            &[2, 5, 29, 17],
            tlv(0x31, &tlv(0x86, WEB.as_bytes())),
            SvidError::Extension("subjectAltName"),
        ),
        (
            &[2, 5, 29, 17],
            tlv(0x30, &[0x86, 0x7f, b's']),
            SvidError::Extension("subjectAltName"),
        ),
    ];
    for (arcs, content, fault) in malformed {
        let read = leaf(|s| {
            s.sans.clear();
            s.more.push((arcs, true, content));
        });
        assert_eq!(read, Err(fault));
    }
}

/// X.690 §8.1.2, §10.1: one name has one encoding, or two readers of a certificate may see two names.
#[test]
fn names_and_purposes_are_read_as_der_alone() {
    let id = b"spiffe://td/x";
    let length = id.len() as u8;
    for name in [
        [&[0x9f, 6, length][..], id].concat(),
        [&[0x86, 0x81, length][..], id].concat(),
        [&[0x86, 0x82, 0, length][..], id].concat(),
        [&[0x86, 0x84, 0, 0, 0, length][..], id].concat(),
        [&[0x86, 0x80][..], id, &[0, 0]].concat(),
        tlv(0x89, id),
    ] {
        let read = leaf(|s| {
            s.sans = vec![(6, b"spiffe://td/x".to_vec())];
            let sans = std::mem::take(&mut s.sans);
            let good = tlv(0x86, &sans[0].1);
            let second = if name[0] == 0x89 { good } else { Vec::new() };
            let content = tlv(0x30, &[second, name.clone()].concat());
            s.more.push((&[2, 5, 29, 17], true, content));
        });
        assert_eq!(
            read,
            Err(SvidError::Extension("subjectAltName")),
            "{name:x?}"
        );
    }
    let long = |content: &[u8]| [&[0x30, 0x81, content.len() as u8][..], content].concat();
    let read = leaf(|s| {
        s.sans.clear();
        s.more.push((&[2, 5, 29, 17], true, long(&tlv(0x86, id))));
    });
    assert_eq!(read, Err(SvidError::Extension("subjectAltName")));
    let read = leaf(|s| {
        s.ext_key_usage = None;
        let both = [tlv(6, SERVER_AUTH), tlv(6, CLIENT_AUTH)].concat();
        s.more.push((&[2, 5, 29, 37], false, long(&both)));
    });
    assert_eq!(read, Err(SvidError::Extension("extKeyUsage")));
    for usage in [
        &[3, 0x81, 2, 7, 0x80][..],
        &[3, 2, 8, 0x80],
        &[3, 2, 0xff, 0x80],
        &[3, 2, 7, 0x81],
        &[3, 1, 0],
        &[3, 0],
        &[0x23, 2, 7, 0x80],
    ] {
        let read = leaf(|s| {
            s.key_usage = None;
            s.more.push((&[2, 5, 29, 15], true, usage.to_vec()));
        });
        assert_eq!(read, Err(SvidError::Extension("keyUsage")), "{usage:x?}");
    }
    let leaf_with = |ca: &[u8]| {
        leaf(|s| {
            s.is_ca = None;
            s.more.push((&[2, 5, 29, 19], true, ca.to_vec()));
        })
    };
    for ca in [
        &[0x30, 3, 1, 1, 1][..],
        &[0x30, 0x81, 0],
        &[0x30, 4, 1, 2, 0, 0],
        &[0x30, 6, 1, 1, 0, 1, 1, 0xff],
        &[0x30, 2, 5, 0],
    ] {
        let fault = SvidError::Extension("basicConstraints");
        assert_eq!(leaf_with(ca), Err(fault), "{ca:x?}");
    }
    assert!(leaf_with(&[0x30, 3, 1, 1, 0]).is_ok());
}

/// S-82.
#[test]
fn a_signing_certificate_is_an_authoritys_with_a_critical_right_to_sign() {
    let signer = |change: fn(&mut Spec)| {
        check_signing_certificate(&issued(|spec| {
            *spec = Spec::authority("int");
            change(spec);
        }))
    };
    assert_eq!(signer(|_| {}), Ok(()));
    assert_eq!(signer(|s| s.sans = vec![uri(b"spiffe://td")]), Ok(()));
    assert_eq!(signer(|s| s.sans = vec![uri(b"https://td/x")]), Ok(()));
    assert_eq!(
        signer(|s| s.sans = vec![uri(b"spiffe://td/x")]),
        Err(SvidError::SigningPath)
    );
    assert_eq!(
        signer(|s| s.sans = vec![uri(b"spiffe://a"), uri(b"spiffe://b")]),
        Err(SvidError::ManyUris)
    );
    assert_eq!(signer(|s| s.is_ca = Some(false)), Err(SvidError::NotCa));
    assert_eq!(signer(|s| s.is_ca = None), Err(SvidError::NotCa));
    assert_eq!(
        signer(|s| s.key_usage = Some(DIGITAL_SIGNATURE)),
        Err(SvidError::NoKeyCertSign)
    );
    assert_eq!(signer(|s| s.key_usage = None), Err(SvidError::NoKeyUsage));
    assert_eq!(
        signer(|s| s.key_usage_critical = false),
        Err(SvidError::KeyUsageNotCritical)
    );
}

#[test]
fn a_root_needs_no_key_usage_but_must_be_an_authority() {
    let root = |change: fn(&mut Spec)| {
        let mut spec = Spec::authority("root");
        change(&mut spec);
        check_root(&Authority::root(&spec).cert)
    };
    assert_eq!(root(|_| {}), Ok(()));
    assert_eq!(root(|s| s.key_usage = None), Ok(()));
    assert_eq!(root(|s| s.key_usage_critical = false), Ok(()));
    assert_eq!(
        root(|s| s.key_usage = Some(DIGITAL_SIGNATURE)),
        Err(SvidError::NoKeyCertSign)
    );
    assert_eq!(root(|s| s.is_ca = None), Err(SvidError::NotCa));
}

#[test]
fn what_follows_a_certificate_is_refused() {
    let mut der = issued(|_| {}).to_vec();
    der.push(0);
    assert_eq!(Leaf::parse(&der), Err(SvidError::Malformed));
    assert_eq!(Leaf::parse(&[]), Err(SvidError::Malformed));
}

proptest! {
    /// Nothing that a peer sends as its certificate may end the process.
    #[test]
    fn changed_bytes_of_a_certificate_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        static DER: OnceLock<CertificateDer<'static>> = OnceLock::new();
        let mut der = DER.get_or_init(|| {
            issued(|spec| {
                spec.subject = vec![cn("w")];
                spec.sans.push((2, b"a.example".to_vec()));
            })
        }).to_vec();
        for (at, byte) in changes {
            let at = at.index(der.len());
            der[at] = byte;
        }
        if let Some(cut) = cut {
            der.truncate(cut.index(der.len()));
        }
        let _ = Leaf::parse(&der);
        let _ = check_signing_certificate(&der);
        let _ = check_root(&der);
        let _ = subject_key(&der);
    }
}

#[test]
fn the_key_of_a_certificate_is_read_as_it_was_made() {
    let key = key();
    let root = Authority::root(&Spec::authority("root"));
    let cert = root.issue_for(&Spec::leaf(WEB), &key);
    assert_eq!(
        subject_key(&cert),
        Ok((KeyKind::P256, key.public_key_raw().to_vec()))
    );
}
