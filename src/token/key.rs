//! Keys that sign tokens: made, read from JWK and PEM, shown as JWK.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsBigEndian, AsDer, Curve25519SeedBin, EcPrivateKeyBin, Pkcs8V1Der};
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use aws_lc_rs::{error::Unspecified, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use meshward_core::authn::jwa::Algorithm;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Map, Value};

use super::der;

/// Names of the numbers of an RSA key (RFC 7518 §6.3), in the order of RFC 8017 A.1.2.
const RSA_MEMBERS: [&str; 8] = ["n", "e", "d", "p", "q", "dp", "dq", "qi"];

/// A private key, or a secret.
pub(super) struct SigningKey {
    pub(super) kid: Option<String>,
    /// What the key says that it is for.
    alg: Option<Algorithm>,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(Curve, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Secret(Vec<u8>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// Bytes of a coordinate.
    fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Self::P256 => Algorithm::Es256,
            Self::P384 => Algorithm::Es384,
            Self::P521 => Algorithm::Es512,
        }
    }

    fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            Self::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
        }
    }
}

impl SigningKey {
    /// A new key for `algorithm`; RSA keys have 2048 bits. A key without `kid` gets its thumbprint (RFC 7638), a secret,
    /// which should not have one, 128 random bits.
    pub(super) fn new(algorithm: Algorithm, kid: Option<String>) -> Result<Self, Unspecified> {
        let ec = |curve: Curve| {
            EcdsaKeyPair::generate(curve.signing()).map(|pair| Pair::Ec(curve, pair))
        };
        let secret = |size| random(size).map(Pair::Secret);
        let pair = match algorithm {
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048)?),
            Algorithm::Es256 => ec(Curve::P256)?,
            Algorithm::Es384 => ec(Curve::P384)?,
            Algorithm::Es512 => ec(Curve::P521)?,
            Algorithm::EdDsa => Pair::Ed25519(Ed25519KeyPair::generate()?),
            Algorithm::Hs256 => secret(32)?,
            Algorithm::Hs384 => secret(48)?,
            Algorithm::Hs512 => secret(64)?,
        };
        let mut key = Self {
            kid,
            alg: Some(algorithm),
            pair,
        };
        if key.kid.is_none() {
            key.kid = Some(match key.thumbprint() {
                Some(thumbprint) => thumbprint,
                None => URL_SAFE_NO_PAD.encode(random(16)?),
            });
        }
        Ok(key)
    }

    /// The keys of a JWK, a JWK set, or the first private key of a PEM file (PKCS#8, PKCS#1 or SEC 1).
    pub(super) fn read_all(text: &str) -> Result<Vec<Self>, String> {
        if text.contains("-----BEGIN ") {
            return Ok(vec![Self::from_pem(text)?]);
        }
        jwks(text)?
            .iter()
            .enumerate()
            .map(|(index, jwk)| {
                Self::from_jwk(jwk).map_err(|reason| format!("key {}: {reason}", index + 1))
            })
            .collect()
    }

    fn from_pem(text: &str) -> Result<Self, String> {
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
            "has no private key that can be read: PKCS#8, PKCS#1 or SEC 1, without a passphrase"
        })?;
        let ec = |der: &[u8]| {
            Curve::ALL.into_iter().find_map(|curve| {
                let pair = EcdsaKeyPair::from_private_key_der(curve.signing(), der).ok()?;
                Some(Pair::Ec(curve, pair))
            })
        };
        let pair = match &key {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der())
                .ok()
                .map(Pair::Rsa),
            PrivateKeyDer::Sec1(der) => ec(der.secret_sec1_der()),
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                let rsa = || RsaKeyPair::from_pkcs8(der).ok().map(Pair::Rsa);
                let ed = || Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok();
                rsa()
                    .or_else(|| ec(der))
                    .or_else(|| ed().map(Pair::Ed25519))
            }
            _ => None,
        };
        Ok(Self {
            kid: None,
            alg: None,
            pair: pair.ok_or(
                "is not an RSA key of 2048 bits or more, nor P-256, P-384, P-521 or Ed25519",
            )?,
        })
    }

    fn from_jwk(jwk: &Value) -> Result<Self, String> {
        let jwk = jwk.as_object().ok_or("is not an object")?;
        let pair = match text(jwk, "kty")? {
            "RSA" => rsa(jwk)?,
            "EC" => ec(jwk)?,
            "OKP" => okp(jwk)?,
            "oct" => match bytes(jwk, "k")? {
                secret if secret.is_empty() => return Err("k is empty".to_owned()),
                secret => Pair::Secret(secret),
            },
            other => {
                return Err(format!(
                    "kty `{}` is not RSA, EC, OKP or oct",
                    other.escape_debug()
                ));
            }
        };
        let alg = match optional(jwk, "alg")? {
            None => None,
            Some(alg) => Some(
                Algorithm::named(alg)
                    .ok_or_else(|| format!("alg `{}` does not sign tokens", alg.escape_debug()))?,
            ),
        };
        let key = Self {
            kid: optional(jwk, "kid")?.map(ToOwned::to_owned),
            alg,
            pair,
        };
        match key.alg {
            Some(alg) if !key.can(alg) => {
                Err(format!("alg {} is not one of {}", alg.name(), key.kind()))
            }
            _ => Ok(key),
        }
    }

    /// What the key is, in words.
    pub(super) fn kind(&self) -> String {
        match &self.pair {
            Pair::Rsa(_) => "an RSA key".to_owned(),
            Pair::Ec(curve, _) => format!("a {} key", curve.name()),
            Pair::Ed25519(_) => "an Ed25519 key".to_owned(),
            Pair::Secret(_) => "a shared secret".to_owned(),
        }
    }

    /// What this key signs with unless something else is asked for.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.alg.unwrap_or_else(|| match &self.pair {
            Pair::Rsa(_) => Algorithm::Rs256,
            Pair::Ec(curve, _) => curve.algorithm(),
            Pair::Ed25519(_) => Algorithm::EdDsa,
            Pair::Secret(_) => Algorithm::Hs256,
        })
    }

    /// Whether `algorithm` is one of this kind of key, whatever the key says that it is for.
    pub(super) fn can(&self, algorithm: Algorithm) -> bool {
        match &self.pair {
            Pair::Rsa(_) => rsa_encoding(algorithm).is_some(),
            Pair::Ec(curve, _) => algorithm == curve.algorithm(),
            Pair::Ed25519(_) => algorithm == Algorithm::EdDsa,
            Pair::Secret(_) => hmac_algorithm(algorithm).is_some(),
        }
    }

    /// The signature of `message`. Fails if the key cannot sign by `algorithm`.
    pub(super) fn sign(
        &self,
        algorithm: Algorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, Unspecified> {
        if !self.can(algorithm) {
            return Err(Unspecified);
        }
        match &self.pair {
            Pair::Rsa(pair) => {
                let encoding = rsa_encoding(algorithm).ok_or(Unspecified)?;
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), message, &mut signature)?;
                Ok(signature)
            }
            Pair::Ec(_, pair) => {
                let signature = pair.sign(&SystemRandom::new(), message)?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => Ok(pair.try_sign(message)?.as_ref().to_vec()),
            Pair::Secret(secret) => {
                let hash = hmac_algorithm(algorithm).ok_or(Unspecified)?;
                let key = hmac::Key::new(hash, secret);
                Ok(hmac::sign(&key, message).as_ref().to_vec())
            }
        }
    }

    /// The public half as a JWK; `None` of a secret, which has none.
    pub(super) fn public_jwk(&self) -> Option<Map<String, Value>> {
        let mut jwk = self.public_members()?;
        self.describe(&mut jwk);
        Some(jwk)
    }

    /// The whole key as a JWK.
    pub(super) fn private_jwk(&self) -> Result<Map<String, Value>, Unspecified> {
        let mut jwk = self.public_members().unwrap_or_default();
        match &self.pair {
            Pair::Rsa(pair) => {
                let document: Pkcs8V1Der<'_> = pair.as_der()?;
                let numbers = der::rsa_numbers(document.as_ref()).ok_or(Unspecified)?;
                for (name, number) in RSA_MEMBERS.iter().zip(numbers) {
                    put(&mut jwk, name, &number);
                }
            }
            Pair::Ec(_, pair) => {
                let d: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes()?;
                put(&mut jwk, "d", d.as_ref());
            }
            Pair::Ed25519(pair) => {
                let d: Curve25519SeedBin<'_> = pair.seed()?.as_be_bytes()?;
                put(&mut jwk, "d", d.as_ref());
            }
            Pair::Secret(secret) => {
                jwk.insert("kty".into(), "oct".into());
                put(&mut jwk, "k", secret);
            }
        }
        self.describe(&mut jwk);
        Ok(jwk)
    }

    fn describe(&self, jwk: &mut Map<String, Value>) {
        if let Some(kid) = &self.kid {
            jwk.insert("kid".into(), kid.as_str().into());
        }
        if let Some(alg) = self.alg {
            jwk.insert("alg".into(), alg.name().into());
        }
        jwk.insert("use".into(), "sig".into());
    }

    /// The members that make the public key, and nothing else (RFC 7638 §3.2).
    fn public_members(&self) -> Option<Map<String, Value>> {
        let mut jwk = Map::new();
        let kty = match &self.pair {
            Pair::Rsa(pair) => {
                let key = pair.public_key();
                put(
                    &mut jwk,
                    "n",
                    key.modulus().big_endian_without_leading_zero(),
                );
                put(
                    &mut jwk,
                    "e",
                    key.exponent().big_endian_without_leading_zero(),
                );
                "RSA"
            }
            Pair::Ec(curve, pair) => {
                // Uncompressed: a byte that says so, x and y.
                let (_, point) = pair.public_key().as_ref().split_first()?;
                let (x, y) = point.split_at_checked(curve.size())?;
                jwk.insert("crv".into(), curve.name().into());
                put(&mut jwk, "x", x);
                put(&mut jwk, "y", y);
                "EC"
            }
            Pair::Ed25519(pair) => {
                jwk.insert("crv".into(), "Ed25519".into());
                put(&mut jwk, "x", pair.public_key().as_ref());
                "OKP"
            }
            Pair::Secret(_) => return None,
        };
        jwk.insert("kty".into(), kty.into());
        Some(jwk)
    }

    /// RFC 7638: the hash of the public members in the order of their names.
    fn thumbprint(&self) -> Option<String> {
        let members = self.public_members()?;
        let mut members: Vec<_> = members
            .iter()
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        members.sort();
        let text = format!("{{{}}}", members.join(","));
        Some(URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes())))
    }
}

/// The keys of a JWK set, or the one JWK that stands alone.
pub(super) fn jwks(text: &str) -> Result<Vec<Value>, String> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| format!("is neither a JWK, a JWK set nor PEM: {error}"))?;
    match value {
        Value::Object(mut set) if set.contains_key("keys") => match set.remove("keys") {
            Some(Value::Array(keys)) => Ok(keys),
            _ => Err("`keys` is not a list".to_owned()),
        },
        Value::Object(jwk) if jwk.contains_key("kty") => Ok(vec![Value::Object(jwk)]),
        _ => Err("is neither a JWK, a JWK set nor PEM: it has neither `keys` nor `kty`".to_owned()),
    }
}

fn rsa(jwk: &Map<String, Value>) -> Result<Pair, String> {
    let numbers = RSA_MEMBERS
        .iter()
        .map(|name| bytes(jwk, name))
        .collect::<Result<Vec<_>, _>>()?;
    let pair = RsaKeyPair::from_der(&der::rsa_private_key(&numbers))
        .map_err(|_| "is not an RSA key of 2048 bits or more whose numbers belong together")?;
    Ok(Pair::Rsa(pair))
}

fn ec(jwk: &Map<String, Value>) -> Result<Pair, String> {
    let name = text(jwk, "crv")?;
    let curve = Curve::ALL
        .into_iter()
        .find(|curve| curve.name() == name)
        .ok_or_else(|| format!("crv `{}` is not P-256, P-384 or P-521", name.escape_debug()))?;
    let number = |name| {
        let bytes = bytes(jwk, name)?;
        let bytes = der::without_zeros(&bytes);
        let zeros = usize::checked_sub(curve.size(), bytes.len())
            .ok_or_else(|| format!("{name} is too long for {}", curve.name()))?;
        Ok::<_, String>([&vec![0; zeros], bytes].concat())
    };
    let point = [vec![4], number("x")?, number("y")?].concat();
    let pair =
        EcdsaKeyPair::from_private_key_and_public_key(curve.signing(), &number("d")?, &point)
            .map_err(|_| "d, x and y do not belong together")?;
    Ok(Pair::Ec(curve, pair))
}

fn okp(jwk: &Map<String, Value>) -> Result<Pair, String> {
    let name = text(jwk, "crv")?;
    if name != "Ed25519" {
        return Err(format!("crv `{}` is not Ed25519", name.escape_debug()));
    }
    let pair = Ed25519KeyPair::from_seed_and_public_key(&bytes(jwk, "d")?, &bytes(jwk, "x")?)
        .map_err(|_| "d and x do not belong together")?;
    Ok(Pair::Ed25519(pair))
}

fn rsa_encoding(algorithm: Algorithm) -> Option<&'static dyn RsaEncoding> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_SHA512,
        Algorithm::Ps256 => &RSA_PSS_SHA256,
        Algorithm::Ps384 => &RSA_PSS_SHA384,
        Algorithm::Ps512 => &RSA_PSS_SHA512,
        Algorithm::Es256
        | Algorithm::Es384
        | Algorithm::Es512
        | Algorithm::Hs256
        | Algorithm::Hs384
        | Algorithm::Hs512
        | Algorithm::EdDsa => return None,
    })
}

fn hmac_algorithm(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::Hs256 => Some(hmac::HMAC_SHA256),
        Algorithm::Hs384 => Some(hmac::HMAC_SHA384),
        Algorithm::Hs512 => Some(hmac::HMAC_SHA512),
        Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512
        | Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512
        | Algorithm::Es256
        | Algorithm::Es384
        | Algorithm::Es512
        | Algorithm::EdDsa => None,
    }
}

fn random(size: usize) -> Result<Vec<u8>, Unspecified> {
    let mut bytes = vec![0; size];
    rand::fill(&mut bytes)?;
    Ok(bytes)
}

fn put(jwk: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    jwk.insert(name.to_owned(), URL_SAFE_NO_PAD.encode(bytes).into());
}

fn optional<'j>(jwk: &'j Map<String, Value>, name: &str) -> Result<Option<&'j str>, String> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name} is not a text")),
    }
}

fn text<'j>(jwk: &'j Map<String, Value>, name: &str) -> Result<&'j str, String> {
    match (optional(jwk, name)?, name) {
        (Some(text), _) => Ok(text),
        (None, "d" | "p" | "q" | "dp" | "dq" | "qi") => Err(format!(
            "{name} is missing: the key is public, or only half of a private one"
        )),
        (None, _) => Err(format!("{name} is missing")),
    }
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD
        .decode(text(jwk, name)?.trim_end_matches('='))
        .map_err(|_| format!("{name} is not base64url"))
}

#[cfg(test)]
mod tests;
