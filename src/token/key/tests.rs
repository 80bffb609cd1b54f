//! Keys that sign, and the core that verifies what they signed.

use meshward_core::authn::jwk::KeySet;
use meshward_core::authn::jws::Jws;
use serde_json::json;

use super::*;

/// Signed by `key`, and whether its public half verifies it.
fn verifies(key: &SigningKey, algorithm: Algorithm) -> bool {
    let jwk = key
        .public_jwk()
        .unwrap_or_else(|| key.private_jwk().unwrap());
    let keys = KeySet::parse(&json!({ "keys": [jwk] }).to_string()).unwrap();
    assert_eq!(keys.left_out(), [""; 0]);
    let header = json!({"alg": algorithm.name(), "kid": key.kid}).to_string();
    let signed = format!("{}.e30", URL_SAFE_NO_PAD.encode(header));
    let signature = key.sign(algorithm, signed.as_bytes()).unwrap();
    let text = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    Jws::parse(text.as_bytes()).unwrap().signer(&keys).is_ok()
}

#[test]
fn a_new_key_of_every_algorithm_signs_as_itself_and_as_it_is_written() {
    for algorithm in Algorithm::ALL {
        let key = SigningKey::new(algorithm, None).unwrap();
        assert_eq!(key.algorithm(), algorithm);
        assert!(verifies(&key, algorithm), "{algorithm:?}");
        let private = Value::Object(key.private_jwk().unwrap());
        let read = SigningKey::read_all(&private.to_string()).ok().unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(Value::Object(read[0].private_jwk().unwrap()), private);
        assert!(verifies(&read[0], algorithm), "{algorithm:?}");
    }
}

#[test]
fn a_public_key_says_nothing_private() {
    for algorithm in [
        Algorithm::Rs256,
        Algorithm::Es512,
        Algorithm::EdDsa,
        Algorithm::Hs384,
    ] {
        let key = SigningKey::new(algorithm, Some("k".into())).unwrap();
        let Some(public) = key.public_jwk() else {
            assert_eq!(algorithm, Algorithm::Hs384);
            continue;
        };
        for name in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert_eq!(public.get(name), None, "{algorithm:?} {name}");
        }
        let set = json!({ "keys": [public] }).to_string();
        let refused = SigningKey::read_all(&set).err().unwrap();
        assert_eq!(
            refused,
            "key 1: d is missing: the key is public, or only half of a private one"
        );
    }
}

#[test]
fn a_key_signs_by_the_algorithms_of_its_kind_alone() {
    let key = SigningKey::new(Algorithm::Rs256, None).unwrap();
    for algorithm in Algorithm::ALL {
        let fits = matches!(&algorithm.name()[..2], "RS" | "PS");
        assert_eq!(key.can(algorithm), fits);
        assert_eq!(key.sign(algorithm, b"").is_ok(), fits);
    }
}

#[test]
fn a_thumbprint_is_that_of_rfc_7638() {
    // RFC 8037 A.2, A.3
    let jwk = json!({
        "kty": "OKP", "crv": "Ed25519",
        "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    });
    let key = SigningKey::from_jwk(&jwk).ok().unwrap();
    assert_eq!(
        key.thumbprint().unwrap(),
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    );
}

#[test]
fn what_is_no_key_is_refused_with_a_reason() {
    let ed = SigningKey::new(Algorithm::EdDsa, None).unwrap();
    let ed = |name: &str, value: Value| {
        let mut jwk = ed.private_jwk().unwrap();
        jwk.insert(name.to_owned(), value);
        Value::Object(jwk).to_string()
    };
    for (text, reason) in [
        ("x".to_owned(), "is neither a JWK, a JWK set nor PEM: "),
        ("{}".into(), "it has neither `keys` nor `kty`"),
        (json!({"keys": {}}).to_string(), "`keys` is not a list"),
        (json!({"keys": [1]}).to_string(), "key 1: is not an object"),
        (
            json!({"kty": "x"}).to_string(),
            "kty `x` is not RSA, EC, OKP or oct",
        ),
        (json!({"kty": "oct", "k": ""}).to_string(), "k is empty"),
        (
            ed("alg", json!("RS256")),
            "alg RS256 is not one of an Ed25519 key",
        ),
        (
            ed("alg", json!("RSA-OAEP")),
            "alg `RSA-OAEP` does not sign tokens",
        ),
        (ed("kid", json!(1)), "kid is not a text"),
        (ed("d", json!("AAAA")), "d and x do not belong together"),
        (ed("d", json!("+")), "d is not base64url"),
        (ed("crv", json!("X25519")), "crv `X25519` is not Ed25519"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
            "has no private key that can be read",
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".into(),
            "is not an RSA key of 2048 bits or more, nor P-256",
        ),
    ] {
        let refused = SigningKey::read_all(&text).err().unwrap();
        assert!(refused.contains(reason), "{text}: {refused}");
    }
}
