//! Keys that verify tokens, read from a JWK set (RFC 7517).
//!
//! Each key is judged by itself: one that cannot be used is left out with a reason, and the others stand (S-229).

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::json;
use super::jwa::{Algorithm, Material};
use super::status::Status;
use crate::limits::{JWKS_KEYS_MAX, JWKS_MAX};

/// Base64url as key sets write it: unlike in tokens, padding and stray low bits do no harm, and issuers differ.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bits of an RSA modulus. Shorter ones are within reach of factoring; longer ones cost more than a signature is worth.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Keys that can verify, in the order of the set.
///
/// Not shown by `Debug` but for its size: there may be secrets in it.
pub struct KeySet {
    keys: Vec<Key>,
    left_out: Vec<String>,
    /// Stands for keys that nobody has (S-197): what would match one of them is told apart from what matches none.
    placeholder: bool,
}

/// A key of a set.
pub struct Key {
    kid: String,
    /// As it was written; empty if the key may be used with every algorithm of its kind.
    alg: String,
    material: Material,
}

impl KeySet {
    /// Reads a JWK set. Private members of keys are ignored.
    ///
    /// A set in which no key can be used is `Ok` and empty, so that the reasons remain: every token fails with
    /// `JwksNoValidKey` (S-229). Fails with `JwksBadJson`, also beyond [`JWKS_MAX`] bytes, `JwksNoKeys` or
    /// `JwksKeysNotArray`. Keys beyond the first [`JWKS_KEYS_MAX`] are left out.
    pub fn parse(text: &str) -> Result<Self, Status> {
        if text.len() > JWKS_MAX {
            return Err(Status::JwksBadJson);
        }
        let set = json::object(text.as_bytes()).ok_or(Status::JwksBadJson)?;
        let list = match set.get("keys") {
            None => return Err(Status::JwksNoKeys),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(Status::JwksKeysNotArray),
        };
        let mut keys = Vec::new();
        let mut left_out = Vec::new();
        for (index, jwk) in list.iter().take(JWKS_KEYS_MAX).enumerate() {
            match Key::read(jwk) {
                Ok(key) => keys.push(key),
                Err(reason) => left_out.push(format!("key {}: {reason}", index + 1)),
            }
        }
        if let Some(more) = list
            .len()
            .checked_sub(JWKS_KEYS_MAX)
            .filter(|more| *more > 0)
        {
            left_out.push(format!(
                "{more} keys beyond the first {JWKS_KEYS_MAX}, which are the most that are looked at"
            ));
        }
        Ok(Self {
            keys,
            left_out,
            placeholder: false,
        })
    }

    /// Stands in for keys that were never fetched: fits every token and verifies none, so that they fail with
    /// `VerificationFails` (S-197, S-228).
    pub fn unusable() -> Self {
        Self {
            keys: Vec::new(),
            left_out: Vec::new(),
            placeholder: true,
        }
    }

    /// How many keys can verify.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Why keys cannot be used, each reason with the place of the key in the set, counted from 1. Shows no material.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The first key that made `signature` for `message` (S-221).
    ///
    /// Keys are tried whose `kid` is that of the token, or that lack one, or all if the token has none, and whose `alg`, if
    /// they have one, is the token's. Fails with `NoMatchingKey` if there is none of them, `VerificationFails` if none of
    /// them made it, `Ed25519WrongLength`, and `JwksNoValidKey` of an empty set.
    pub(super) fn find(
        &self,
        kid: &str,
        algorithm: Algorithm,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> Result<&Key, Status> {
        if self.placeholder {
            return Err(Status::VerificationFails);
        }
        if self.keys.is_empty() {
            return Err(Status::JwksNoValidKey);
        }
        let mut failure = Status::NoMatchingKey;
        for key in &self.keys {
            let named = kid.is_empty() || key.kid.is_empty() || key.kid == kid;
            let fits = key.alg.is_empty() || key.alg == algorithm.name();
            if !named || !fits {
                continue;
            }
            if key.material.verifies(algorithm, message, signature)? {
                return Ok(key);
            }
            // Envoy looks at the length before it looks at the algorithm; other keys are tried all the same.
            failure = if key.material.kind() == "Ed25519" && signature.len() != 64 {
                Status::Ed25519WrongLength
            } else {
                Status::VerificationFails
            };
        }
        Err(failure)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} keys)", self.keys.len())
    }
}

impl Key {
    /// The `kid`, if the key has one that is not empty.
    pub fn id(&self) -> Option<&str> {
        (!self.kid.is_empty()).then_some(&*self.kid)
    }

    /// `RSA`, `P-256`, `P-384`, `P-521`, `Ed25519` or `HMAC`.
    pub fn kind(&self) -> &'static str {
        self.material.kind()
    }

    /// Reads one key as Envoy does: `use` and `key_ops` say nothing here, and a `kid` or `alg` that is no text is none.
    fn read(jwk: &Value) -> Result<Self, String> {
        let Value::Object(jwk) = jwk else {
            return Err("is not an object".to_owned());
        };
        let optional = |name| jwk.get(name).and_then(Value::as_str).unwrap_or_default();
        let alg = optional("alg");
        let material = match text(jwk, "kty")? {
            "RSA" => rsa(jwk, alg)?,
            "EC" => ec(jwk, alg)?,
            "OKP" => okp(jwk, alg)?,
            "oct" => secret(jwk, alg)?,
            other => return Err(format!("kty {} is not supported", shown(other))),
        };
        Ok(Self {
            kid: optional("kid").to_owned(),
            alg: alg.to_owned(),
            material,
        })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} {:?})", self.kind(), self.kid)
    }
}

fn rsa(jwk: &Map<String, Value>, alg: &str) -> Result<Material, String> {
    if !(alg.is_empty() || alg.starts_with("RS") || alg.starts_with("PS")) {
        return Err(wrong_alg(alg, "an RSA key"));
    }
    let (n, e) = (integer(jwk, "n")?, integer(jwk, "e")?);
    // As BoringSSL: larger exponents only slow the verifier down, 1 verifies everything.
    if !matches!(*e, [3] | [1, 0, 1]) {
        return Err("e is neither 3 nor 65537".to_owned());
    }
    let (Some(first), Some(last)) = (n.first(), n.last()) else {
        return Err("n is 0".to_owned());
    };
    let bits = n.len() * 8 - usize::try_from(first.leading_zeros()).unwrap_or_default();
    if !RSA_BITS.contains(&bits) {
        return Err(format!(
            "n has {bits} bits, and {} to {} are taken",
            RSA_BITS.start(),
            RSA_BITS.end()
        ));
    }
    if last % 2 == 0 {
        return Err("n is even".to_owned());
    }
    Ok(Material::rsa(&n, &e))
}

fn ec(jwk: &Map<String, Value>, alg: &str) -> Result<Material, String> {
    let of_alg = match alg {
        "" => None,
        "ES256" => Some("P-256"),
        "ES384" => Some("P-384"),
        "ES512" => Some("P-521"),
        other => return Err(wrong_alg(other, "an EC key")),
    };
    let curve = match (jwk.get("crv"), of_alg) {
        // Envoy fills in a curve that is not said; RFC 7518 §6.2.1.1 demands it.
        (None, of_alg) => of_alg.unwrap_or("P-256"),
        (Some(Value::String(curve)), None) => curve,
        (Some(Value::String(curve)), Some(of_alg)) if curve == of_alg => curve,
        (Some(Value::String(curve)), Some(_)) => {
            return Err(format!("alg {alg} does not go with crv {}", shown(curve)));
        }
        (Some(_), _) => return Err("crv is not a text".to_owned()),
    };
    let size = match curve {
        "P-256" => 32,
        "P-384" => 48,
        "P-521" => 66,
        other => return Err(format!("crv {} is not supported", shown(other))),
    };
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = integer(jwk, name)?;
        let zeros = usize::checked_sub(size, coordinate.len())
            .ok_or_else(|| format!("{name} is too long for {curve}"))?;
        point.resize(point.len() + zeros, 0);
        point.extend(coordinate);
    }
    let material = match curve {
        "P-256" => Material::p256(&point),
        "P-384" => Material::p384(&point),
        _ => Material::p521(&point),
    };
    material.ok_or_else(|| format!("x and y are not a point of {curve}"))
}

fn okp(jwk: &Map<String, Value>, alg: &str) -> Result<Material, String> {
    if !(alg.is_empty() || alg == "EdDSA") {
        return Err(wrong_alg(alg, "an OKP key"));
    }
    let curve = text(jwk, "crv")?;
    if curve != "Ed25519" {
        return Err(format!("crv {} is not supported", shown(curve)));
    }
    match bytes(jwk, "x")?.as_slice().try_into() {
        Ok(key) => Ok(Material::ed25519(key)),
        Err(_) => Err("x has not 32 bytes".to_owned()),
    }
}

fn secret(jwk: &Map<String, Value>, alg: &str) -> Result<Material, String> {
    if !matches!(alg, "" | "HS256" | "HS384" | "HS512") {
        return Err(wrong_alg(alg, "an oct key"));
    }
    let secret = bytes(jwk, "k")?;
    if secret.is_empty() {
        return Err("k is empty".to_owned());
    }
    Ok(Material::secret(&secret))
}

fn text<'j>(jwk: &'j Map<String, Value>, name: &str) -> Result<&'j str, String> {
    match jwk.get(name) {
        None => Err(format!("{name} is missing")),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("{name} is not a text")),
    }
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let text = text(jwk, name)?;
    LENIENT
        .decode(text)
        .map_err(|_| format!("{name} is not base64url"))
}

/// A number, big-endian, without leading zeros.
fn integer(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let mut bytes = bytes(jwk, name)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.drain(..zeros);
    Ok(bytes)
}

fn wrong_alg(alg: &str, kind: &str) -> String {
    format!("alg {} is not one of {kind}", shown(alg))
}

/// Somebody's text, short and on one line.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(32).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", short.escape_debug())
}

#[cfg(test)]
mod tests;
