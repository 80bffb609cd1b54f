//! Algorithms of signatures (RFC 7518): which there are, and whether a key made a signature.
//!
//! Cryptography ends here. Knows bytes, not claims, and neither the names nor the order of keys.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ParsedPublicKey,
};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc;

use super::status::Status;

/// How a token may be signed (S-220). There is no `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    Hs256,
    Hs384,
    Hs512,
    /// Ed25519 alone.
    EdDsa,
}

impl Algorithm {
    pub const ALL: [Self; 13] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::EdDsa,
    ];

    /// The `alg` of a header or a key.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this name, which is case-sensitive (RFC 7515 §4.1.1).
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// What a key verifies with, checked and made ready once.
pub(super) enum Material {
    Rsa(DecodingKey),
    P256(DecodingKey),
    P384(DecodingKey),
    P521(ParsedPublicKey),
    Ed25519(DecodingKey),
    Secret(DecodingKey),
}

impl Material {
    /// `n` and `e`: big-endian, without leading zeros; sizes and evenness are the caller's to judge.
    pub(super) fn rsa(n: &[u8], e: &[u8]) -> Self {
        Self::Rsa(DecodingKey::from_rsa_raw_components(n, e))
    }

    /// `point`: uncompressed, its length that of the curve (RFC 5480 §2.2). `None` if it is not on the curve.
    pub(super) fn p256(point: &[u8]) -> Option<Self> {
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()?;
        Some(Self::P256(DecodingKey::from_ec_der(point)))
    }

    /// As [`Material::p256`].
    pub(super) fn p384(point: &[u8]) -> Option<Self> {
        ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).ok()?;
        Some(Self::P384(DecodingKey::from_ec_der(point)))
    }

    /// As [`Material::p256`].
    pub(super) fn p521(point: &[u8]) -> Option<Self> {
        let key = ParsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point).ok()?;
        Some(Self::P521(key))
    }

    pub(super) fn ed25519(key: &[u8; 32]) -> Self {
        Self::Ed25519(DecodingKey::from_ed_der(key))
    }

    pub(super) fn secret(secret: &[u8]) -> Self {
        Self::Secret(DecodingKey::from_secret(secret))
    }

    /// What the key is, in a word.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RSA",
            Self::P256(_) => "P-256",
            Self::P384(_) => "P-384",
            Self::P521(_) => "P-521",
            Self::Ed25519(_) => "Ed25519",
            Self::Secret(_) => "HMAC",
        }
    }

    /// Whether this key made `signature` for `message`, and so by `algorithm`.
    ///
    /// An algorithm of another kind of key, or of another curve (RFC 7518 §3.4), is no error: it does not verify (S-220).
    /// Fails with `Ed25519WrongLength` alone, which ends the search among keys (S-218).
    pub(super) fn verifies(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> Result<bool, Status> {
        use jsonwebtoken::Algorithm as Theirs;
        let (key, theirs) = match (self, algorithm) {
            (Self::Rsa(key), Algorithm::Rs256) => (key, Theirs::RS256),
            (Self::Rsa(key), Algorithm::Rs384) => (key, Theirs::RS384),
            (Self::Rsa(key), Algorithm::Rs512) => (key, Theirs::RS512),
            (Self::Rsa(key), Algorithm::Ps256) => (key, Theirs::PS256),
            (Self::Rsa(key), Algorithm::Ps384) => (key, Theirs::PS384),
            (Self::Rsa(key), Algorithm::Ps512) => (key, Theirs::PS512),
            (Self::P256(key), Algorithm::Es256) => (key, Theirs::ES256),
            (Self::P384(key), Algorithm::Es384) => (key, Theirs::ES384),
            (Self::P521(key), Algorithm::Es512) => {
                return Ok(key.verify_sig(message, signature).is_ok());
            }
            (Self::Secret(key), Algorithm::Hs256) => (key, Theirs::HS256),
            (Self::Secret(key), Algorithm::Hs384) => (key, Theirs::HS384),
            (Self::Secret(key), Algorithm::Hs512) => (key, Theirs::HS512),
            (Self::Ed25519(_), Algorithm::EdDsa) if signature.len() != 64 => {
                return Err(Status::Ed25519WrongLength);
            }
            (Self::Ed25519(key), Algorithm::EdDsa) => (key, Theirs::EdDSA),
            (
                Self::Rsa(_)
                | Self::P256(_)
                | Self::P384(_)
                | Self::P521(_)
                | Self::Ed25519(_)
                | Self::Secret(_),
                _,
            ) => return Ok(false),
        };
        let Ok(verifier) = (aws_lc::DEFAULT_PROVIDER.verifier_factory)(&theirs, key) else {
            return Ok(false);
        };
        Ok(verifier.verify(message, signature).is_ok())
    }
}

#[cfg(test)]
mod tests;
