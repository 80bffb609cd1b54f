//! Cryptography as it is handed to the core: the primitives, the source of new keys and the wall time that certificates
//! are held against.
//!
//! Knows no clock and no identity. The simulator brings a seeded `Crypto` of its own; everything else of `tls` is the
//! same under both.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite as suite, default_provider, kx_group as group};
use rustls::time_provider::TimeProvider;

use crate::clock::UnixTime;
use crate::pii::Pii;

/// What a machine encrypts, signs and makes keys with.
#[derive(Debug)]
pub struct Crypto {
    pub provider: Arc<CryptoProvider>,
    pub keys: Box<dyn KeySource>,
}

impl Crypto {
    /// aws-lc-rs, which draws its own randomness, with the suites of S-30.
    ///
    /// TLS 1.3 begins with AES-128-GCM, the cheapest suite, as BoringSSL does; TLS 1.2 has the four suites of S-30 in
    /// their order. The server takes the first of X25519, P-256, P-384 and X25519MLKEM768 for which the client sent a
    /// key share: a client that insists on the post-quantum group gets it, one that offers X25519 too gets the handshake
    /// that costs less.
    pub fn production() -> Self {
        let provider = CryptoProvider {
            cipher_suites: vec![
                suite::TLS13_AES_128_GCM_SHA256,
                suite::TLS13_AES_256_GCM_SHA384,
                suite::TLS13_CHACHA20_POLY1305_SHA256,
                suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
                suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            ],
            kx_groups: vec![
                group::X25519,
                group::SECP256R1,
                group::SECP384R1,
                group::X25519MLKEM768,
            ],
            ..default_provider()
        };
        Self {
            provider: Arc::new(provider),
            keys: Box::new(SystemKeys),
        }
    }
}

/// Makes key pairs.
pub trait KeySource: fmt::Debug + Send + Sync {
    /// A new key pair as PKCS#8 DER.
    fn generate(&self, kind: KeyKind) -> Result<Pii<Vec<u8>>, KeyError>;
}

/// The kinds of keys that certificates are asked for with (S-90). Ed25519 is for seeded worlds: its signatures draw no
/// randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    P256,
    Rsa2048,
    Ed25519,
}

/// No key pair could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no key pair could be made")]
pub struct KeyError;

#[derive(Debug)]
struct SystemKeys;

impl KeySource for SystemKeys {
    fn generate(&self, kind: KeyKind) -> Result<Pii<Vec<u8>>, KeyError> {
        let random = SystemRandom::new();
        let der = match kind {
            KeyKind::P256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
                .map(|der| der.as_ref().to_vec()),
            KeyKind::Rsa2048 => aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048)
                .and_then(|pair| AsDer::<Pkcs8V1Der<'_>>::as_der(&pair))
                .map(|der| der.as_ref().to_vec()),
            KeyKind::Ed25519 => {
                Ed25519KeyPair::generate_pkcs8(&random).map(|der| der.as_ref().to_vec())
            }
        };
        der.map(Pii::new).map_err(|_| KeyError)
    }
}

/// The wall time that handshakes hold certificates against: a cell that the machine fills from each input. Copies share
/// the cell.
#[derive(Clone, Debug, Default)]
pub struct WallClock(Arc<AtomicU64>);

impl WallClock {
    pub fn set(&self, now: UnixTime) {
        self.0.store(now.0, Ordering::Relaxed);
    }

    pub fn now(&self) -> UnixTime {
        UnixTime(self.0.load(Ordering::Relaxed))
    }
}

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(rustls::pki_types::UnixTime::since_unix_epoch(
            Duration::from_millis(self.now().0),
        ))
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{CipherSuite, SignatureAlgorithm};

    use super::*;

    #[test]
    fn a_new_key_of_each_kind_can_be_signed_with() {
        let crypto = Crypto::production();
        for (kind, algorithm) in [
            (KeyKind::P256, SignatureAlgorithm::ECDSA),
            (KeyKind::Rsa2048, SignatureAlgorithm::RSA),
            (KeyKind::Ed25519, SignatureAlgorithm::ED25519),
        ] {
            let der = crypto.keys.generate(kind).unwrap().reveal().clone();
            assert_ne!(&der, crypto.keys.generate(kind).unwrap().reveal());
            let key = crypto
                .provider
                .key_provider
                .load_private_key(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)))
                .unwrap();
            assert_eq!(key.algorithm(), algorithm);
        }
    }

    /// S-30, and TLS 1.2 without ChaCha20 and without static RSA.
    #[test]
    fn tls_1_2_has_the_four_suites_of_the_rule_and_no_other() {
        let crypto = Crypto::production();
        let tls12: Vec<CipherSuite> = crypto
            .provider
            .cipher_suites
            .iter()
            .filter(|s| s.tls13().is_none())
            .map(|s| s.suite())
            .collect();
        assert_eq!(
            tls12,
            [
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            ]
        );
        assert_eq!(crypto.provider.cipher_suites.len(), 3 + tls12.len());
    }
}
