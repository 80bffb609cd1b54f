use super::*;
use crate::spiffe::testing::{Authority, NEW_YEAR, Spec, key};
use base64::Engine as _;
use rcgen::KeyPair;

const WEB: &str = "spiffe://td/ns/n/sa/web";
const NOW: UnixTime = UnixTime(NEW_YEAR * 1000);

fn pem(label: &str, der: &[u8]) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

struct Files {
    chain: String,
    key: String,
    bundle: String,
}

impl Files {
    fn new(spec: &Spec, key: &KeyPair) -> Self {
        let root = Authority::root(&Spec::authority("root"));
        let int = root.sub(&Spec::authority("int"));
        let leaf = int.issue_for(spec, key);
        Self {
            chain: pem("CERTIFICATE", &leaf) + &pem("CERTIFICATE", &int.cert),
            key: pem("PRIVATE KEY", key.serialized_der()),
            bundle: pem("CERTIFICATE", &root.cert),
        }
    }

    fn right() -> Self {
        Self::new(&Spec::leaf(WEB), &key())
    }

    fn load(&self) -> Result<Svid, SvidLoadError> {
        Svid::from_pem(
            self.chain.as_bytes(),
            self.key.as_bytes(),
            self.bundle.as_bytes(),
            NOW,
        )
    }

    fn fault(&self) -> SvidLoadError {
        self.load().expect_err("a fault")
    }
}

#[test]
fn three_right_files_are_an_identity() {
    let svid = Files::right().load().expect("an identity");
    assert_eq!(svid.id.as_str(), WEB);
    assert_eq!(svid.chain.len(), 2);
    assert_eq!(svid.bundle.roots().len(), 1);
    assert_eq!(svid.not_after, UnixTime((NEW_YEAR + 86_400) * 1000));
}

#[test]
fn every_supported_kind_of_key_is_matched_with_its_certificate() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let (ours, other) = (
            KeyPair::generate_for(algorithm).expect("a key"),
            KeyPair::generate_for(algorithm).expect("a key"),
        );
        let mut files = Files::new(&Spec::leaf(WEB), &ours);
        assert!(files.load().is_ok(), "{algorithm:?}");
        files.key = pem("PRIVATE KEY", other.serialized_der());
        assert_eq!(files.fault(), SvidLoadError::KeyMismatch, "{algorithm:?}");
    }
}

#[test]
fn a_key_of_another_kind_than_the_certificates_is_refused() {
    let mut files = Files::right();
    let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    files.key = pem("PRIVATE KEY", other.serialized_der());
    assert_eq!(files.fault(), SvidLoadError::KeyUnusable);
}

#[test]
fn each_fault_names_its_file() {
    type Change = fn(&mut Files);
    let cases: [(Change, SvidLoadError, SvidFile); 11] = [
        (
            |f| f.chain.clear(),
            SvidLoadError::NoCertificate(SvidFile::Chain),
            SvidFile::Chain,
        ),
        (
            |f| f.chain.truncate(100),
            SvidLoadError::Pem(SvidFile::Chain),
            SvidFile::Chain,
        ),
        (
            |f| f.chain = pem("CERTIFICATE", b"nothing"),
            SvidLoadError::Leaf(SvidError::Malformed),
            SvidFile::Chain,
        ),
        (
            |f| f.chain = f.bundle.clone(),
            SvidLoadError::Leaf(SvidError::CaAsLeaf),
            SvidFile::Chain,
        ),
        (
            |f| f.chain += &f.bundle.repeat(CHAIN_MAX),
            SvidLoadError::ChainTooLong,
            SvidFile::Chain,
        ),
        (|f| f.key.clear(), SvidLoadError::NoKey, SvidFile::Key),
        (
            |f| f.key.truncate(60),
            SvidLoadError::Pem(SvidFile::Key),
            SvidFile::Key,
        ),
        (
            |f| f.key = pem("EC PRIVATE KEY", b"x"),
            SvidLoadError::KeyForm("EC (SEC 1)"),
            SvidFile::Key,
        ),
        (
            |f| f.key = pem("PRIVATE KEY", b"x"),
            SvidLoadError::KeyUnusable,
            SvidFile::Key,
        ),
        (
            |f| f.bundle.clear(),
            SvidLoadError::Bundle(BundleError::Empty),
            SvidFile::Bundle,
        ),
        (
            |f| f.bundle = f.chain.clone(),
            SvidLoadError::Bundle(BundleError::Root {
                index: 0,
                fault: SvidError::NotCa,
            }),
            SvidFile::Bundle,
        ),
    ];
    for (change, fault, file) in cases {
        let mut files = Files::right();
        change(&mut files);
        let found = files.fault();
        assert_eq!((&found, found.file()), (&fault, file));
        assert!(!found.hint().is_empty());
    }
}

#[test]
fn a_certificate_outside_its_validity_is_refused_at_load() {
    let load = |before, after| {
        let mut spec = Spec::leaf(WEB);
        (spec.not_before, spec.not_after) = (before, after);
        Files::new(&spec, &key()).load().err()
    };
    assert_eq!(load(0, 0), None);
    assert_eq!(
        load(-10, -1),
        Some(SvidLoadError::Expired(UnixTime((NEW_YEAR - 1) * 1000)))
    );
    assert_eq!(
        load(1, 10),
        Some(SvidLoadError::NotYetValid(UnixTime((NEW_YEAR + 1) * 1000)))
    );
}

/// S-82.
#[test]
fn a_chain_may_end_with_a_root_of_the_bundle_but_not_with_another_leaf() {
    let mut spec = Spec::authority("root");
    spec.key_usage = None;
    let root = Authority::root(&spec);
    let key = key();
    let leaf = root.issue_for(&Spec::leaf(WEB), &key);
    let mut files = Files {
        chain: pem("CERTIFICATE", &leaf) + &pem("CERTIFICATE", &root.cert),
        key: pem("PRIVATE KEY", key.serialized_der()),
        bundle: pem("CERTIFICATE", &root.cert),
    };
    assert!(files.load().is_ok());
    files.chain = pem("CERTIFICATE", &leaf) + &pem("CERTIFICATE", &leaf);
    assert_eq!(
        files.fault(),
        SvidLoadError::Signer {
            index: 1,
            fault: SvidError::NotCa
        }
    );
}

#[test]
fn key_and_chain_may_share_a_file() {
    let mut files = Files::right();
    files.chain = files.key.clone() + &files.chain;
    files.key = files.chain.clone();
    assert!(files.load().is_ok());
}

#[test]
fn the_key_is_not_printed() {
    let files = Files::right();
    let svid = files.load().expect("an identity");
    let shown = format!("{svid:?}");
    assert!(shown.contains("[hidden]"), "{shown}");
    let bytes = format!("{:?}", svid.key.reveal());
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])));
}
