//! Keys, and tokens whose maker remembers who signed them.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

/// The generator of P-256: the public key of the private key 1.
const GENERATOR: [u8; 64] = [
    0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2,
    0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96,
    0x4f, 0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16,
    0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
];

enum Secret {
    Octets([u8; 32]),
    Edwards(Ed25519KeyPair),
    Curve(EcdsaKeyPair),
    /// Known by its public half alone.
    Unknown,
}

/// A key that tokens are signed with.
pub struct Key {
    pub kid: &'static str,
    secret: Secret,
    jwk: Value,
    /// What the model knows the key by.
    material: String,
    /// The algorithms that it can be used with.
    pub algorithms: &'static [&'static str],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kid)
    }
}

/// How a key is written down in a key set.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form {
    pub kid: bool,
    pub algorithm: bool,
}

/// All keys of a trial: every kind that can sign, and one that only stands about.
pub fn keys() -> Vec<Key> {
    let octets = |kid, fill: u8| {
        let secret = [fill; 32];
        let material = BASE64.encode(secret);
        Key {
            kid,
            jwk: json!({"kty": "oct", "k": material}),
            secret: Secret::Octets(secret),
            material,
            algorithms: &["HS256", "HS384"],
        }
    };
    let edwards = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed of 32 bytes");
    let edwards_x = BASE64.encode(edwards.public_key().as_ref());
    let mut one = [0; 32];
    one[31] = 1;
    let mut point = vec![4];
    point.extend(GENERATOR);
    let curve = EcdsaKeyPair::from_private_key_and_public_key(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        &one,
        &point,
    )
    .expect("1 is a private key of P-256");
    let (x, y) = GENERATOR.split_at(32);
    let (x, y) = (BASE64.encode(x), BASE64.encode(y));
    let modulus = BASE64.encode([0xc5; 256]);
    vec![
        octets("hs-a", 0xa1),
        octets("hs-b", 0xb2),
        Key {
            kid: "ed-a",
            jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": edwards_x}),
            secret: Secret::Edwards(edwards),
            material: edwards_x,
            algorithms: &["EdDSA"],
        },
        Key {
            kid: "ec-a",
            jwk: json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}),
            secret: Secret::Curve(curve),
            material: x,
            algorithms: &["ES256"],
        },
        Key {
            kid: "rsa-a",
            jwk: json!({"kty": "RSA", "n": modulus, "e": "AQAB"}),
            secret: Secret::Unknown,
            material: modulus,
            algorithms: &["RS256"],
        },
    ]
}

impl Key {
    pub fn can_sign(&self) -> bool {
        !matches!(self.secret, Secret::Unknown)
    }

    /// Text that stands in every key set with this key, and in no other.
    pub fn identifying(&self) -> String {
        format!(r#""{}""#, self.material)
    }

    pub fn jwk(&self, form: Form) -> Value {
        let mut jwk = self.jwk.clone();
        if form.kid {
            jwk["kid"] = self.kid.into();
        }
        if form.algorithm {
            jwk["alg"] = self.algorithms[0].into();
        }
        jwk
    }

    fn sign(&self, algorithm: &str, text: &str) -> Vec<u8> {
        match &self.secret {
            Secret::Octets(secret) => {
                let algorithm = if algorithm == "HS384" {
                    hmac::HMAC_SHA384
                } else {
                    hmac::HMAC_SHA256
                };
                let key = hmac::Key::new(algorithm, secret);
                hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
            }
            Secret::Edwards(pair) => pair.sign(text.as_bytes()).as_ref().to_vec(),
            Secret::Curve(pair) => pair
                .sign(&SystemRandom::new(), text.as_bytes())
                .expect("P-256 signs")
                .as_ref()
                .to_vec(),
            Secret::Unknown => vec![0; 256],
        }
    }
}

/// Every token that was signed, and by the material of which key.
#[derive(Clone, Debug)]
pub struct Minted {
    signed: BTreeMap<String, String>,
    now: u64,
}

impl Default for Minted {
    fn default() -> Self {
        Self::at(super::NOW)
    }
}

impl Minted {
    /// Tokens that are shown at `now`, in seconds since 1970.
    pub fn at(now: u64) -> Self {
        Self {
            signed: BTreeMap::new(),
            now,
        }
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    /// Header and payload as they are, signed for `algorithm`.
    pub fn mint(&mut self, key: &Key, algorithm: &str, header: &Value, payload: &str) -> String {
        let text = format!(
            "{}.{}",
            BASE64.encode(header.to_string()),
            BASE64.encode(payload)
        );
        let signature = key.sign(algorithm, &text);
        let token = format!("{text}.{}", BASE64.encode(signature));
        if key.can_sign() && key.algorithms.contains(&algorithm) {
            self.signed.insert(token.clone(), key.material.clone());
        }
        token
    }

    /// The material of the key that signed this very text.
    pub fn signed_by(&self, token: &str) -> Option<String> {
        self.signed.get(token).cloned()
    }
}

/// A payload in place of a token's own, under its old signature.
pub fn altered(token: &str, payload: &str) -> String {
    let mut sections: Vec<String> = token.split('.').map(str::to_owned).collect();
    if let Some(section) = sections.get_mut(1) {
        *section = BASE64.encode(payload);
    }
    sections.join(".")
}
