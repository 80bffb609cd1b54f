//! The named keys of the corpus, the JWKS that show them, and tokens signed with them.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaEncoding,
    RsaKeyPair,
};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use meshward_core::clock::UnixTime;
use serde_json::{Value, json};

use super::checks::{Tamper, Token};

/// The keys of a run, each made when it is first named.
#[derive(Default)]
pub(super) struct Keys(BTreeMap<String, Key>);

enum Key {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Secret([u8; 32]),
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// A token as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) text: String,
}

impl Made {
    /// The segment in the middle.
    pub(super) fn payload(&self) -> &str {
        self.text.split('.').nth(1).unwrap_or_default()
    }
}

impl Keys {
    fn key(&mut self, name: &str) -> Result<&Key, String> {
        if !self.0.contains_key(name) {
            let key = Key::new(name)?;
            self.0.insert(name.to_owned(), key);
        }
        self.0.get(name).ok_or_else(|| format!("no key `{name}`"))
    }

    /// `k1,k2!nokid!alg=RS256` as a JWKS; nothing: one without keys.
    pub(super) fn jwks(&mut self, names: &str) -> Result<String, String> {
        let mut keys = Vec::new();
        for one in names.split(',').filter(|one| !one.is_empty()) {
            let mut words = one.split('!');
            let name = words.next().unwrap_or_default();
            let mut jwk = self.key(name)?.public();
            jwk["kid"] = name.into();
            for option in words {
                match option.split_once('=') {
                    None if option == "nokid" => {
                        jwk.as_object_mut().map(|jwk| jwk.remove("kid"));
                    }
                    Some(("alg", alg)) => jwk["alg"] = alg.into(),
                    _ => return Err(format!("`!{option}` is no option of a key")),
                }
            }
            keys.push(jwk);
        }
        Ok(json!({ "keys": keys }).to_string())
    }

    /// The token, for a world in which it is `now`.
    pub(super) fn token(&mut self, token: &Token, now: UnixTime) -> Result<Made, String> {
        let text = match token {
            Token::Raw(text) => text.clone(),
            Token::Parts {
                header,
                payload,
                key,
            } => {
                let alg = serde_json::from_str::<Value>(header).ok();
                let alg = alg.and_then(|header| header["alg"].as_str().map(str::to_owned));
                self.signed(header, payload, key, alg.as_deref().unwrap_or_default())?
            }
            Token::Made {
                key,
                claims,
                alg,
                kid,
                exp_in,
                nbf_in,
                tamper,
            } => {
                let mut header = json!({"alg": alg, "typ": "JWT"});
                if !kid.is_empty() {
                    header["kid"] = kid.as_str().into();
                }
                let mut claims = claims.clone();
                let at = |seconds: i64| now.as_secs().saturating_add_signed(seconds);
                for (name, offset) in [("exp", exp_in), ("nbf", nbf_in)] {
                    if let Some(seconds) = offset {
                        claims.entry(name).or_insert_with(|| at(*seconds).into());
                    }
                }
                let payload = Value::Object(claims.clone()).to_string();
                let text = self.signed(&header.to_string(), &payload, key, alg)?;
                match tamper {
                    None => text,
                    Some(Tamper::Signature) => tampered_signature(&text)?,
                    Some(Tamper::Payload) => {
                        claims.insert("tampered".into(), true.into());
                        let payload = encode(Value::Object(claims).to_string().as_bytes());
                        let parts: Vec<&str> = text.split('.').collect();
                        [parts[0], &payload, parts[2]].join(".")
                    }
                }
            }
        };
        Ok(Made { text })
    }

    fn signed(
        &mut self,
        header: &str,
        payload: &str,
        key: &str,
        alg: &str,
    ) -> Result<String, String> {
        let message = [encode(header.as_bytes()), encode(payload.as_bytes())].join(".");
        let signature = self.key(key)?.sign(message.as_bytes(), alg)?;
        Ok([message, encode(&signature)].join("."))
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn tampered_signature(token: &str) -> Result<String, String> {
    let (message, signature) = token.rsplit_once('.').unwrap_or((token, ""));
    let mut signature = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|error| error.to_string())?;
    if let Some(byte) = signature.first_mut() {
        *byte ^= 1;
    }
    Ok([message, &encode(&signature)].join("."))
}

impl Key {
    /// `rsa-a`, `ec-b`, …: the first word says what it is.
    fn new(name: &str) -> Result<Self, String> {
        let failed = |_| format!("key `{name}` cannot be made");
        match name.split('-').next() {
            Some("rsa") => RsaKeyPair::generate(KeySize::Rsa2048)
                .map(|key| Self::Rsa(Box::new(key)))
                .map_err(failed),
            Some("ec") => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
                .map(Self::Ec)
                .map_err(failed),
            Some("ed") => Ed25519KeyPair::generate().map(Self::Ed).map_err(failed),
            Some("hs") => {
                let mut secret = [0; 32];
                rand::fill(&mut secret).map_err(failed)?;
                Ok(Self::Secret(secret))
            }
            _ => Err(format!("`{name}` is no key")),
        }
    }

    /// As a JWK (RFC 7518 §6, RFC 8037 §2), without `kid` and `alg`.
    fn public(&self) -> Value {
        match self {
            Self::Rsa(key) => {
                let key = key.public_key();
                json!({
                    "kty": "RSA",
                    "n": encode(key.modulus().big_endian_without_leading_zero()),
                    "e": encode(key.exponent().big_endian_without_leading_zero()),
                })
            }
            Self::Ec(key) => {
                // 4, and two coordinates of 32 bytes (SEC 1 §2.3.3).
                let point = key.public_key().as_ref();
                let (x, y) = point.get(1..).unwrap_or_default().split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)})
            }
            Self::Ed(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key().as_ref())})
            }
            Self::Secret(secret) => json!({"kty": "oct", "k": encode(secret)}),
        }
    }

    /// Signs as `alg` says, as far as the key can; an algorithm of another kind of key gets the signature that somebody
    /// would try who has this key alone.
    fn sign(&self, message: &[u8], alg: &str) -> Result<Vec<u8>, String> {
        let hmac = |secret: &[u8]| {
            let algorithm = match alg {
                "HS384" => hmac::HMAC_SHA384,
                "HS512" => hmac::HMAC_SHA512,
                _ => hmac::HMAC_SHA256,
            };
            let key = hmac::Key::new(algorithm, secret);
            hmac::sign(&key, message).as_ref().to_vec()
        };
        if alg == "none" {
            return Ok(b"no signature".to_vec());
        }
        let failed = |_| "the key does not sign".to_owned();
        match self {
            Self::Secret(secret) => Ok(hmac(secret)),
            // The public key as a secret.
            _ if alg.starts_with("HS") => Ok(hmac(self.public().to_string().as_bytes())),
            Self::Rsa(key) => {
                let encoding: &'static dyn RsaEncoding = match alg {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &SystemRandom::new(), message, &mut signature)
                    .map_err(failed)?;
                Ok(signature)
            }
            Self::Ec(key) => key
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(failed),
            Self::Ed(key) => Ok(key.sign(message).as_ref().to_vec()),
        }
    }
}
