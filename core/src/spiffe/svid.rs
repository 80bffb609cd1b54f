//! Our own identity, as it is read from files.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::bundle::{BundleError, TrustBundle};
use super::id::SpiffeId;
use super::verify::CHAIN_MAX;
use super::x509::{self, KeyKind, Leaf, SvidError, check_signing_certificate};
use crate::clock::UnixTime;
use crate::pii::Pii;

/// Certificate chain, key and roots of one workload.
#[derive(Clone)]
pub struct Svid {
    pub id: SpiffeId,
    /// Leaf first, as it is sent.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8 DER; belongs to the leaf.
    pub key: Pii<Vec<u8>>,
    pub bundle: TrustBundle,
    pub not_before: UnixTime,
    /// Last second of the leaf's validity, inclusive.
    pub not_after: UnixTime,
}

/// The three files of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SvidFile {
    Chain,
    Key,
    Bundle,
}

impl fmt::Display for SvidFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chain => "certificate chain",
            Self::Key => "private key",
            Self::Bundle => "trust bundle",
        })
    }
}

/// Why an identity cannot be used. `file` says where, `hint` what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvidLoadError {
    #[error("the {0} is not well-formed PEM")]
    Pem(SvidFile),
    #[error("the {0} holds no certificate")]
    NoCertificate(SvidFile),
    #[error("the leaf certificate is no X509-SVID: {0}")]
    Leaf(SvidError),
    /// `index` counts the chain from 0, the leaf.
    #[error("certificate {index} of the chain may not sign the one before: {fault}")]
    Signer { index: usize, fault: SvidError },
    #[error("the chain has more than {CHAIN_MAX} certificates")]
    ChainTooLong,
    #[error("the certificate has expired at {0}")]
    Expired(UnixTime),
    #[error("the certificate is not valid before {0}")]
    NotYetValid(UnixTime),
    #[error("the private key file holds no unencrypted private key")]
    NoKey,
    #[error("the private key is in the old {0} form and not in PKCS#8")]
    KeyForm(&'static str),
    #[error("the private key is not a usable key of the leaf certificate's kind")]
    KeyUnusable,
    #[error("the private key does not belong to the leaf certificate")]
    KeyMismatch,
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl SvidLoadError {
    /// The file at fault.
    pub fn file(&self) -> SvidFile {
        match self {
            Self::Pem(file) | Self::NoCertificate(file) => *file,
            Self::Leaf(_)
            | Self::Signer { .. }
            | Self::ChainTooLong
            | Self::Expired(_)
            | Self::NotYetValid(_) => SvidFile::Chain,
            Self::NoKey | Self::KeyForm(_) | Self::KeyUnusable | Self::KeyMismatch => SvidFile::Key,
            Self::Bundle(_) => SvidFile::Bundle,
        }
    }

    /// One line that says what to do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Pem(_) => "check that the file is complete and begins with -----BEGIN",
            Self::NoCertificate(_) => "give the PEM of the leaf, then of its intermediates",
            Self::Leaf(_) => {
                "ask the authority for a certificate with one spiffe:// URI SAN, critical keyUsage digitalSignature \
                 and extKeyUsage serverAuth and clientAuth"
            }
            Self::Signer { .. } | Self::ChainTooLong => {
                "list only the authority's intermediates after the leaf"
            }
            Self::Expired(_) => "renew the certificate",
            Self::NotYetValid(_) => "check the clock, or wait until the certificate is valid",
            Self::NoKey => "give the PEM section PRIVATE KEY, without a passphrase",
            Self::KeyForm(_) => "convert it: openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW",
            Self::KeyUnusable => {
                "use a P-256, P-384, P-521, Ed25519 or RSA key of at least 2048 bits"
            }
            Self::KeyMismatch => "give the key for which the certificate was issued",
            Self::Bundle(BundleError::Pem | BundleError::Empty) => {
                "give the PEM of the authorities' root certificates"
            }
            Self::Bundle(BundleError::Root { .. }) => {
                "list root certificates only, not those of workloads"
            }
        }
    }
}

impl Svid {
    /// Reads the PEM of a certificate chain (leaf first), a PKCS#8 key and a trust bundle.
    ///
    /// The leaf must be an X509-SVID that is valid at `now`, the key its key, each further certificate one that may
    /// sign (S-82) or a root of the bundle. Whether the chain leads to the bundle is not asked: while roots are
    /// exchanged it may not (S-95). Sections of other kinds are passed over, so that key and chain may share a file.
    pub fn from_pem(
        chain: &[u8],
        key: &[u8],
        bundle: &[u8],
        now: UnixTime,
    ) -> Result<Self, SvidLoadError> {
        let bundle = TrustBundle::from_pem(bundle)?;
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| SvidLoadError::Pem(SvidFile::Chain))?;
        let (leaf_der, signers) = chain
            .split_first()
            .ok_or(SvidLoadError::NoCertificate(SvidFile::Chain))?;
        if chain.len() > CHAIN_MAX {
            return Err(SvidLoadError::ChainTooLong);
        }
        let leaf = Leaf::parse(leaf_der).map_err(SvidLoadError::Leaf)?;
        for (at, signer) in signers.iter().enumerate() {
            if !bundle.roots().contains(signer) {
                check_signing_certificate(signer).map_err(|fault| SvidLoadError::Signer {
                    index: at + 1,
                    fault,
                })?;
            }
        }
        if now < leaf.not_before {
            return Err(SvidLoadError::NotYetValid(leaf.not_before));
        }
        if now.as_secs() > leaf.not_after.as_secs() {
            return Err(SvidLoadError::Expired(leaf.not_after));
        }
        let key = read_key(key)?;
        let (kind, public) = x509::subject_key(leaf_der).map_err(SvidLoadError::Leaf)?;
        if public_key(key.reveal(), kind).ok_or(SvidLoadError::KeyUnusable)? != public {
            return Err(SvidLoadError::KeyMismatch);
        }
        Ok(Self {
            id: leaf.id,
            chain,
            key,
            bundle,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        })
    }

    /// Whether the leaf's last second has passed. Its peers answer it with alert 45 then (S-97).
    pub fn is_expired(&self, now: UnixTime) -> bool {
        now.as_secs() > self.not_after.as_secs()
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("chain", &self.chain.len())
            .field("key", &self.key)
            .field("bundle", &self.bundle)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish()
    }
}

fn read_key(pem: &[u8]) -> Result<Pii<Vec<u8>>, SvidLoadError> {
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(PrivateKeyDer::Pkcs8(key)) => Ok(Pii::new(key.secret_pkcs8_der().to_vec())),
        Ok(PrivateKeyDer::Pkcs1(_)) => Err(SvidLoadError::KeyForm("RSA (PKCS#1)")),
        Ok(PrivateKeyDer::Sec1(_)) => Err(SvidLoadError::KeyForm("EC (SEC 1)")),
        Ok(_) | Err(rustls_pki_types::pem::Error::NoItemsFound) => Err(SvidLoadError::NoKey),
        Err(_) => Err(SvidLoadError::Pem(SvidFile::Key)),
    }
}

/// The public half of a PKCS#8 key, in the form in which a certificate has it.
fn public_key(pkcs8: &[u8], kind: KeyKind) -> Option<Vec<u8>> {
    let ec = |algorithm| {
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).ok()?;
        Some(pair.public_key().as_ref().to_vec())
    };
    match kind {
        KeyKind::P256 => ec(&ECDSA_P256_SHA256_ASN1_SIGNING),
        KeyKind::P384 => ec(&ECDSA_P384_SHA384_ASN1_SIGNING),
        KeyKind::P521 => ec(&ECDSA_P521_SHA512_ASN1_SIGNING),
        KeyKind::Rsa => {
            let pair = RsaKeyPair::from_pkcs8(pkcs8).ok()?;
            Some(pair.public_key().as_ref().to_vec())
        }
        KeyKind::Ed25519 => {
            let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
            Some(pair.public_key().as_ref().to_vec())
        }
    }
}

#[cfg(test)]
mod tests;
