//! Cryptography from a seed, so that handshakes are equal byte for byte.
//!
//! Everything is the real thing but the dice: randomness and the key-exchange group draw from a seeded generator, keys are
//! Ed25519 (its signatures draw nothing), and the time comes from the world. rustls wants its generators for `'static`, so
//! each provider leaks two small boxes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use meshward_core::clock::UnixTime;
use meshward_core::pii::Pii;
use meshward_core::tls::{Crypto, KeyError, KeyKind, KeySource};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::NamedGroup;
use rustls::crypto::aws_lc_rs::{cipher_suite as suite, default_provider};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
    SupportedKxGroup,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::chance::Chance;

/// A provider whose every draw comes from `seed`. The suites are those of production (S-30).
pub fn provider(seed: u64) -> Arc<CryptoProvider> {
    let random: &'static SeededRandom = Box::leak(Box::new(SeededRandom::new(seed, RANDOM)));
    let group: &'static SeededX25519 = Box::leak(Box::new(SeededX25519(SeededRandom::new(
        seed,
        KEY_EXCHANGE,
    ))));
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ],
        kx_groups: vec![group],
        secure_random: random,
        ..default_provider()
    })
}

/// Everything a machine needs of cryptography, from `seed`.
pub fn crypto(seed: u64) -> Crypto {
    Crypto {
        provider: provider(seed),
        keys: Box::new(SeededKeys(SeededRandom::new(seed, MACHINE_KEYS))),
    }
}

/// The purposes of the draws.
const RANDOM: u64 = 11;
const KEY_EXCHANGE: u64 = 12;
const KEYS: u64 = 13;
const MACHINE_KEYS: u64 = 14;

/// Makes Ed25519 keys whatever is asked for: signatures of the other kinds draw randomness.
#[derive(Debug)]
struct SeededKeys(SeededRandom);

impl KeySource for SeededKeys {
    fn generate(&self, _: KeyKind) -> Result<Pii<Vec<u8>>, KeyError> {
        let mut seed = [0; 32];
        self.0.draw(&mut seed);
        Ok(Pii::new(ed25519_pkcs8(&seed)))
    }
}

/// The generator behind rustls' randomness. `Debug` shows nothing of its state, which is as good as every key it draws.
struct SeededRandom(Mutex<Chance>);

impl SeededRandom {
    fn new(seed: u64, purpose: u64) -> Self {
        Self(Mutex::new(Chance::new(seed, purpose)))
    }

    fn draw(&self, out: &mut [u8]) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill(out);
    }
}

impl fmt::Debug for SeededRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeededRandom")
    }
}

impl SecureRandom for SeededRandom {
    fn fill(&self, buf: &mut [u8]) -> Result<(), GetRandomFailed> {
        self.draw(buf);
        Ok(())
    }
}

#[derive(Debug)]
struct SeededX25519(SeededRandom);

impl SupportedKxGroup for SeededX25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        let mut scalar = [0; 32];
        self.0.draw(&mut scalar);
        let private = PrivateKey::from_private_key(&X25519, &scalar)
            .map_err(|_| rustls::Error::General("no key from a scalar".into()))?;
        let public = private
            .compute_public_key()
            .map_err(|_| rustls::Error::General("no public key".into()))?
            .as_ref()
            .to_vec();
        Ok(Box::new(Exchange { private, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    private: PrivateKey,
    public: Vec<u8>,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, rustls::Error> {
        let invalid = rustls::Error::from(rustls::PeerMisbehaved::InvalidKeyShare);
        let peer = UnparsedPublicKey::new(&X25519, peer);
        agreement::agree(&self.private, peer, invalid, |secret| {
            Ok(SharedSecret::from(secret))
        })
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// A certificate chain and its key.
pub struct Identity {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub chain_pem: String,
    pub key_pem: String,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            chain_pem: self.chain_pem.clone(),
            key_pem: self.key_pem.clone(),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity of {} certificates", self.chain.len())
    }
}

/// Who signs certificates in a world, and the keys it gives out.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_pem: String,
    keys: Chance,
    serial: u64,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ca")
    }
}

impl Ca {
    /// A root of ten years around `now`. Equal seeds give equal roots.
    pub fn new(seed: u64, now: UnixTime) -> Self {
        let mut keys = Chance::new(seed, KEYS);
        let key = key_pair(&mut keys);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, "cluster.local");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(SerialNumber::from(1));
        (params.not_before, params.not_after) = validity(now, -3600, 10 * 365 * 86_400);
        let certificate = params.self_signed(&key).expect("a root can be made");
        Self {
            root: certificate.der().clone(),
            root_pem: certificate.pem(),
            issuer: Issuer::new(params, key),
            keys,
            serial: 1,
        }
    }

    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// A certificate with `uri` as its only name, valid from two minutes before `now` for a day (S-93).
    pub fn issue(&mut self, uri: &str, now: UnixTime) -> Identity {
        self.issue_for(uri, now, -120, 86_400)
    }

    /// A certificate whose validity begins and ends so many seconds from `now`.
    pub fn issue_for(&mut self, uri: &str, now: UnixTime, begins: i64, ends: i64) -> Identity {
        let key = key_pair(&mut self.keys);
        self.serial += 1;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(
            uri.try_into().expect("a name of a certificate is ASCII"),
        )];
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.serial_number = Some(SerialNumber::from(self.serial));
        (params.not_before, params.not_after) = validity(now, begins, ends);
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("a certificate can be made");
        Identity {
            chain: vec![certificate.der().clone()],
            chain_pem: certificate.pem(),
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            key_pem: key.serialize_pem(),
        }
    }
}

fn validity(now: UnixTime, begins: i64, ends: i64) -> (time::OffsetDateTime, time::OffsetDateTime) {
    let at = |offset: i64| {
        let secs = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        time::OffsetDateTime::from_unix_timestamp(secs.saturating_add(offset))
            .expect("a world lies between year 0 and 9999")
    };
    (at(begins), at(ends))
}

/// The PKCS#8 form of an Ed25519 key is a constant in front of its 32 bytes (RFC 8410 §7).
pub fn ed25519_pkcs8(seed: &[u8; 32]) -> Vec<u8> {
    const HEAD: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    [&HEAD[..], &seed[..]].concat()
}

fn key_pair(keys: &mut Chance) -> KeyPair {
    let der = ed25519_pkcs8(&keys.seed());
    KeyPair::try_from(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)))
        .expect("32 bytes are an Ed25519 key")
}
