//! Which keys of a set can be used, and which of them are tried.

use aws_lc_rs::hmac;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const MESSAGE: &[u8] = b"message";

/// P-256, P-384 and P-521: RFC 7515 A.3, and RFC 7520 §3.1 for P-521; P-384 is the generator of the curve.
fn point(curve: &str) -> (&'static str, &'static str) {
    match curve {
        "P-256" => (
            "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        ),
        "P-384" => (
            "qofKIr6LBTeOscce8yCtdG4dO2KLp5uYWfdB4IJUKjhVAvJdv1UpbDpUXjhydgq3",
            "NhfeSpYmLG9dnpi_kpLcKfj0Hb0omhR86doxE7XwuMAKYLHOHX6BnXpDHXyQ6g5f",
        ),
        "P-521" => (
            "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
            "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1",
        ),
        other => panic!("no point of {other}"),
    }
}

fn ec(curve: &str) -> Value {
    let (x, y) = point(curve);
    json!({"kty": "EC", "crv": curve, "x": x, "y": y})
}

fn rsa(bytes: usize) -> Value {
    let n = vec![0xff; bytes];
    json!({"kty": "RSA", "n": LENIENT.encode(n), "e": "AQAB"})
}

/// `key` with `name` set, or taken out where `value` is null.
fn with(mut key: Value, name: &str, value: Value) -> Value {
    let members = key.as_object_mut().unwrap();
    if value.is_null() {
        members.remove(name);
    } else {
        members.insert(name.to_owned(), value);
    }
    key
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(&json!({ "keys": keys }).to_string()).unwrap()
}

/// A secret key that made the signature, and one that did not.
fn secrets() -> [Value; 2] {
    ["made", "other"].map(|secret| json!({"kty": "oct", "k": LENIENT.encode(secret)}))
}

fn signature() -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"made");
    hmac::sign(&key, MESSAGE).as_ref().to_vec()
}

fn find(keys: &[Value], kid: &str, algorithm: Algorithm) -> Result<(), Status> {
    set(keys)
        .find(kid, algorithm, MESSAGE, &signature())
        .map(|_| ())
}

#[test]
fn a_set_is_an_object_with_a_list_of_keys() {
    // S-218
    for (text, status) in [
        ("", Status::JwksBadJson),
        ("[]", Status::JwksBadJson),
        ("{\"keys\":[]", Status::JwksBadJson),
        ("{\"keys\":[],\"keys\":[]}", Status::JwksBadJson),
        ("{}", Status::JwksNoKeys),
        ("{\"Keys\":[]}", Status::JwksNoKeys),
        ("{\"keys\":{}}", Status::JwksKeysNotArray),
        ("{\"keys\":null}", Status::JwksKeysNotArray),
    ] {
        assert_eq!(KeySet::parse(text).err(), Some(status), "{text}");
    }
    let long = |length: usize| "{\"keys\":[]}".to_owned() + &" ".repeat(length - 11);
    assert!(KeySet::parse(&long(JWKS_MAX)).is_ok());
    let outcome = KeySet::parse(&long(JWKS_MAX + 1));
    assert_eq!(outcome.err(), Some(Status::JwksBadJson));
}

#[test]
fn keys_of_every_kind_can_be_used() {
    for (key, kind) in [
        (rsa(256), "RSA"),
        (rsa(1024), "RSA"),
        (with(rsa(256), "e", json!("Aw")), "RSA"),
        (with(rsa(256), "alg", json!("PS384")), "RSA"),
        (ec("P-256"), "P-256"),
        (ec("P-384"), "P-384"),
        (ec("P-521"), "P-521"),
        (with(ec("P-256"), "crv", json!(null)), "P-256"),
        (with(ec("P-384"), "alg", json!("ES384")), "P-384"),
        (
            with(with(ec("P-521"), "crv", json!(null)), "alg", json!("ES512")),
            "P-521",
        ),
        (
            json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
            "Ed25519",
        ),
        (json!({"kty": "oct", "k": "YQ", "alg": "HS512"}), "HMAC"),
        // Padded, and with a `kid` and an `alg` that are no texts.
        (
            json!({"kty": "oct", "k": "YQ==", "kid": 1, "alg": 1}),
            "HMAC",
        ),
    ] {
        let set = set(std::slice::from_ref(&key));
        assert_eq!(set.left_out(), [""; 0], "{key}");
        assert_eq!(set.keys()[0].kind(), kind, "{key}");
        assert_eq!(set.keys()[0].id(), None);
    }
}

#[test]
fn a_key_is_called_by_its_kid() {
    let key = |kid| json!({"kty": "oct", "k": "YQ", "kid": kid});
    let set = set(&[key("first"), key(""), key("third")]);
    let ids: Vec<_> = set.keys().iter().map(Key::id).collect();
    assert_eq!(ids, [Some("first"), None, Some("third")]);
}

#[test]
fn a_coordinate_may_have_zeros_before_it_or_lack_them() {
    let (x, y) = point("P-256");
    let x = [&[0, 0], &*LENIENT.decode(x).unwrap()].concat();
    let key = json!({"kty": "EC", "crv": "P-256", "x": LENIENT.encode(x), "y": y});
    assert_eq!(set(&[key]).len(), 1);
    // RFC 7520 §3.1: its x begins with a zero byte.
    let (x, y) = point("P-521");
    let x = &LENIENT.decode(x).unwrap()[1..];
    let key = json!({"kty": "EC", "crv": "P-521", "x": LENIENT.encode(x), "y": y});
    assert_eq!(set(&[key]).len(), 1);
    let n = [0].into_iter().chain([0xff; 256]).collect::<Vec<u8>>();
    assert_eq!(
        set(&[json!({"kty": "RSA", "n": LENIENT.encode(n), "e": "AAEAAQ"})]).len(),
        1
    );
}

#[test]
fn a_key_that_cannot_be_used_is_left_out_with_its_reason() {
    // S-229
    let okp = json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"});
    for (key, reason) in [
        (json!(1), "is not an object"),
        (json!({}), "kty is missing"),
        (json!({"kty": 1}), "kty is not a text"),
        (json!({"kty": "rsa"}), "kty `rsa` is not supported"),
        (
            json!({"kty": "\u{1b}".repeat(40)}),
            "kty `\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}\\u{1b}…` is not supported",
        ),
        (with(rsa(256), "n", json!(null)), "n is missing"),
        (with(rsa(256), "n", json!(1)), "n is not a text"),
        (with(rsa(256), "n", json!("+/+/")), "n is not base64url"),
        (with(rsa(256), "n", json!("")), "n is 0"),
        (with(rsa(256), "n", json!("AAAA")), "n is 0"),
        (with(rsa(256), "e", json!("AQ")), "e is neither 3 nor 65537"),
        (
            with(rsa(256), "e", json!("AQABAQ")),
            "e is neither 3 nor 65537",
        ),
        (
            with(rsa(256), "alg", json!("HS256")),
            "alg `HS256` is not one of an RSA key",
        ),
        (rsa(255), "n has 2040 bits, and 2048 to 8192 are taken"),
        (rsa(1025), "n has 8200 bits, and 2048 to 8192 are taken"),
        (
            with(rsa(256), "n", json!(LENIENT.encode([0x7f; 256]))),
            "n has 2047 bits, and 2048 to 8192 are taken",
        ),
        (
            with(rsa(256), "n", json!(LENIENT.encode([0xfe; 256]))),
            "n is even",
        ),
        (with(ec("P-256"), "y", json!(null)), "y is missing"),
        (
            with(ec("P-256"), "y", json!("AQ")),
            "x and y are not a point of P-256",
        ),
        (
            with(ec("P-384"), "crv", json!("P-256")),
            "x is too long for P-256",
        ),
        (
            with(ec("P-256"), "alg", json!("ES384")),
            "alg ES384 does not go with crv `P-256`",
        ),
        (
            with(ec("P-256"), "alg", json!("RS256")),
            "alg `RS256` is not one of an EC key",
        ),
        (with(ec("P-256"), "crv", json!(1)), "crv is not a text"),
        (
            with(ec("P-256"), "crv", json!("secp256k1")),
            "crv `secp256k1` is not supported",
        ),
        (okp.clone(), "x has not 32 bytes"),
        (
            with(okp.clone(), "crv", json!("X25519")),
            "crv `X25519` is not supported",
        ),
        (
            with(okp, "alg", json!("Ed25519")),
            "alg `Ed25519` is not one of an OKP key",
        ),
        (json!({"kty": "oct", "k": ""}), "k is empty"),
        (
            json!({"kty": "oct", "k": "YQ", "alg": "RS256"}),
            "alg `RS256` is not one of an oct key",
        ),
    ] {
        let good = json!({"kty": "oct", "k": "YQ"});
        let set = set(&[good.clone(), key.clone(), good]);
        assert_eq!(set.left_out(), [format!("key 2: {reason}")], "{key}");
        assert_eq!(set.len(), 2);
    }
}

#[test]
fn keys_beyond_the_limit_are_left_out() {
    let key = json!({"kty": "oct", "k": "YQ"});
    assert_eq!(set(&vec![key.clone(); JWKS_KEYS_MAX]).left_out(), [""; 0]);
    let set = set(&vec![key; JWKS_KEYS_MAX + 2]);
    assert_eq!(set.len(), JWKS_KEYS_MAX);
    assert_eq!(
        set.left_out(),
        ["2 keys beyond the first 100, which are the most that are looked at"]
    );
}

#[test]
fn a_key_is_tried_if_neither_kid_nor_alg_says_otherwise() {
    // S-221
    let [made, other] = secrets();
    let named = |key: &Value, kid: &str| with(key.clone(), "kid", json!(kid));
    let fails = Err(Status::VerificationFails);
    let none = Err(Status::NoMatchingKey);
    for (keys, kid, outcome) in [
        (vec![made.clone()], "", Ok(())),
        (vec![made.clone()], "k", Ok(())),
        (vec![other.clone()], "", fails),
        (vec![named(&made, "k")], "", Ok(())),
        (vec![named(&made, "k")], "k", Ok(())),
        (vec![named(&made, "k")], "K", none),
        (vec![named(&made, "")], "k", Ok(())),
        (vec![named(&other, "k"), named(&made, "k")], "k", Ok(())),
        (vec![named(&made, "j"), named(&other, "k")], "k", fails),
        (vec![with(made.clone(), "alg", json!("HS256"))], "", Ok(())),
        (vec![with(made, "alg", json!("HS384"))], "", none),
        // Of another kind, but not skipped.
        (vec![rsa(256)], "", fails),
        (vec![with(rsa(256), "alg", json!("RS256"))], "", none),
    ] {
        assert_eq!(
            find(&keys, kid, Algorithm::Hs256),
            outcome,
            "{keys:?} {kid}"
        );
    }
}

#[test]
fn a_key_verifies_with_every_algorithm_of_its_kind_alone() {
    // S-220: the signature is right for one of them.
    let [made, _] = secrets();
    for algorithm in Algorithm::ALL {
        let outcome = find(std::slice::from_ref(&made), "", algorithm);
        let expected = if algorithm == Algorithm::Hs256 {
            Ok(())
        } else {
            Err(Status::VerificationFails)
        };
        assert_eq!(outcome, expected, "{algorithm:?}");
    }
}

#[test]
fn the_length_of_an_ed25519_signature_ends_the_search() {
    let [made, _] = secrets();
    let ed =
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let keys = [ed, made];
    assert_eq!(
        find(&keys, "", Algorithm::EdDsa),
        Err(Status::Ed25519WrongLength)
    );
    assert_eq!(find(&keys, "", Algorithm::Hs256), Ok(()));
}

#[test]
fn an_empty_set_and_a_placeholder_verify_nothing() {
    // S-197, S-229
    assert_eq!(find(&[], "", Algorithm::Hs256), Err(Status::JwksNoValidKey));
    let placeholder = KeySet::unusable();
    assert!(placeholder.is_empty());
    let outcome = placeholder.find("k", Algorithm::Rs256, MESSAGE, &signature());
    assert_eq!(outcome.err(), Some(Status::VerificationFails));
}

#[test]
fn nothing_of_a_key_is_shown() {
    let keys = set(&[json!({"kty": "oct", "k": "YQ", "kid": "a"}), rsa(256)]);
    assert_eq!(format!("{keys:?}"), "KeySet(2 keys)");
    assert_eq!(
        format!("{:?}", keys.keys()),
        r#"[Key(HMAC "a"), Key(RSA "")]"#
    );
}

proptest! {
    #[test]
    fn any_text_has_an_outcome(text in ".{0,200}") {
        let _ = KeySet::parse(&text);
    }

    #[test]
    fn any_members_have_an_outcome(
        kty in "RSA|EC|OKP|oct|x",
        crv in "P-256|P-384|P-521|Ed25519|x",
        n in "[A-Za-z0-9_=-]{0,90}",
        e in "AQAB|Aw|[A-Za-z0-9_-]{0,4}",
        x in "[A-Za-z0-9_=-]{0,90}",
    ) {
        let key = json!({"kty": kty, "crv": crv, "n": n, "e": e, "x": x, "y": x, "k": x});
        let set = set(&[key]);
        prop_assert_eq!(set.len() + set.left_out().len(), 1);
    }

    #[test]
    fn the_order_and_the_number_of_keys_do_not_matter(
        order in Just(vec![0, 0, 1, 1, 2, 3]).prop_shuffle(),
    ) {
        let [made, other] = secrets();
        let all = [made, other, rsa(256), ec("P-256")];
        let keys: Vec<_> = order.iter().map(|index: &usize| all[*index].clone()).collect();
        prop_assert_eq!(find(&keys, "k", Algorithm::Hs256), Ok(()));
        let without: Vec<_> = keys.into_iter().filter(|key| *key != all[0]).collect();
        prop_assert_eq!(find(&without, "k", Algorithm::Hs256), Err(Status::VerificationFails));
    }
}

#[test]
fn a_set_may_be_shared_between_threads() {
    fn is_shared<T: Send + Sync>(_: &T) {}
    is_shared(&KeySet::unusable());
}
