//! Judges the text of a key set before anybody makes keys of it (S-178, S-179, S-229).
//!
//! A set that is JSON and says of each key what type it has is accepted. What no token could be verified with is named, not
//! refused: RFC 7517 §5 has readers pass over such keys. Nothing here is cryptography, and no message repeats key material.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

type Members = Map<String, Value>;

/// What is doubtful about a text that is accepted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    /// One clause for each key that verifies nothing, with its number and `kid`.
    pub(super) unusable: Vec<String>,
    /// One clause for each key that can sign as well as verify.
    pub(super) secret: Vec<String>,
    /// How many keys can verify.
    pub(super) usable: usize,
    /// A key of its own instead of a set: JSON as Istio reads it, but a proxy takes sets only.
    pub(super) alone: bool,
}

/// Fails with what is wrong where `text` is neither a key set nor a key.
pub(super) fn judge(text: &str) -> Result<Judged, String> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| format!("is no JSON at line {} of it", error.line()))?;
    let Value::Object(root) = value else {
        return Err("is no JSON object".to_owned());
    };
    let mut judged = Judged::default();
    match root.get("keys") {
        None if root.contains_key("kty") => {
            judged.alone = true;
            judged.key(&root, &describe(&root, None))?;
        }
        None => return Err("has no `keys`".to_owned()),
        Some(Value::Array(keys)) => {
            for (key, number) in keys.iter().zip(1..) {
                let Value::Object(key) = key else {
                    return Err(format!("has a key {number} that is no JSON object"));
                };
                judged.key(key, &describe(key, Some(number)))?;
            }
        }
        Some(_) => return Err("has `keys` that are no list".to_owned()),
    }
    Ok(judged)
}

fn describe(key: &Members, number: Option<usize>) -> String {
    let name = number.map_or_else(|| "the key".to_owned(), |number| format!("key {number}"));
    match key.get("kid") {
        Some(Value::String(kid)) => format!("{name} (`{kid}`)"),
        _ => name,
    }
}

impl Judged {
    fn key(&mut self, key: &Members, name: &str) -> Result<(), String> {
        let Some(Value::String(kind)) = key.get("kty") else {
            return Err(format!("has no text `kty` in {name}"));
        };
        match unusable(key, kind) {
            Some(why) => self.unusable.push(format!("{name} {why}")),
            None => self.usable += 1,
        }
        if kind == "oct" {
            self.secret
                .push(format!("{name} is a secret shared with the issuer"));
        } else if key.contains_key("d") {
            self.secret.push(format!("{name} has its private part"));
        }
        Ok(())
    }
}

/// Why no token can be verified with a key (RFC 7518 §6, RFC 8037 §2).
fn unusable(key: &Members, kind: &str) -> Option<String> {
    let (curves, members): (&[&str], &[&str]) = match kind {
        "RSA" => (&[], &["n", "e"]),
        "EC" => (&["P-256", "P-384", "P-521"], &["x", "y"]),
        "OKP" => (&["Ed25519"], &["x"]),
        "oct" => (&[], &["k"]),
        _ => return Some(format!("is of the type `{kind}`, which verifies no token")),
    };
    if !curves.is_empty() {
        match key.get("crv") {
            Some(Value::String(curve)) if curves.contains(&curve.as_str()) => {}
            Some(Value::String(curve)) => {
                return Some(format!(
                    "is on the curve `{curve}`, which verifies no token"
                ));
            }
            _ => return Some("has no `crv`".to_owned()),
        }
    }
    members.iter().find_map(|name| match key.get(*name) {
        Some(Value::String(text)) if is_material(text) => None,
        Some(_) => Some(format!("has a `{name}` that is no base64url")),
        None => Some(format!("has no `{name}`")),
    })
}

fn is_material(text: &str) -> bool {
    URL_SAFE_NO_PAD
        .decode(text.trim_end_matches('='))
        .is_ok_and(|bytes| !bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unusable(text: &str) -> Vec<String> {
        judge(text).expect("it is a key set").unusable
    }

    #[test]
    fn sets_and_single_keys_are_told_from_other_texts() {
        for text in [
            "",
            " ",
            "no json",
            "[]",
            "\"x\"",
            "null",
            "{}",
            "{\"keys\":{}}",
            "{\"keys\":null}",
            "{\"keys\":[1]}",
            "{\"keys\":[[]]}",
            "{\"keys\":[{}]}",
            "{\"keys\":[{\"kty\":1}]}",
            "{\"keys\":[]} x",
            "{\"kid\":\"a\"}",
            "{\"keys\":[]",
        ] {
            assert!(judge(text).is_err(), "{text}");
        }
        assert_eq!(judge("{\"keys\":[]}"), Ok(Judged::default()));
        let alone = judge("{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}").expect("a key");
        assert!(alone.alone);
        assert_eq!(alone.usable, 1);
    }

    #[test]
    fn a_key_that_verifies_nothing_is_named_with_its_reason() {
        let set = r#"{"keys":[
            {"kty":"RSA","n":"AQAB","e":"AQAB","kid":"good"},
            {"kty":"RSA","e":"AQAB","kid":"a"},
            {"kty":"RSA","n":"!","e":"AQAB"},
            {"kty":"RSA","n":1,"e":"AQAB"},
            {"kty":"EC","crv":"P-192","x":"AQAB","y":"AQAB"},
            {"kty":"EC","x":"AQAB","y":"AQAB"},
            {"kty":"OKP","crv":"X25519","x":"AQAB"},
            {"kty":"rsa","n":"AQAB","e":"AQAB"},
            {"kty":"oct","k":""}]}"#;
        assert_eq!(
            unusable(set),
            [
                "key 2 (`a`) has no `n`",
                "key 3 has a `n` that is no base64url",
                "key 4 has a `n` that is no base64url",
                "key 5 is on the curve `P-192`, which verifies no token",
                "key 6 has no `crv`",
                "key 7 is on the curve `X25519`, which verifies no token",
                "key 8 is of the type `rsa`, which verifies no token",
                "key 9 has a `k` that is no base64url",
            ]
        );
        assert_eq!(judge(set).map(|judged| judged.usable), Ok(1));
    }

    #[test]
    fn keys_that_can_sign_are_named_without_their_material() {
        let judged = judge(
            r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","d":"c2VjcmV0","kid":"r"},
                {"kty":"EC","crv":"P-256","x":"AQAB","y":"AQAB","d":"c2VjcmV0"},
                {"kty":"oct","k":"c2VjcmV0"},{"kty":"OKP","crv":"Ed25519","x":"AQAB"}]}"#,
        )
        .expect("it is a key set");
        assert_eq!(
            judged.secret,
            [
                "key 1 (`r`) has its private part",
                "key 2 has its private part",
                "key 3 is a secret shared with the issuer",
            ]
        );
        assert_eq!(judged.usable, 4);
        assert!(!format!("{judged:?}").contains("c2VjcmV0"));
    }

    #[test]
    fn a_text_that_nests_without_end_is_refused() {
        let deep = format!("{{\"keys\":{}", "[".repeat(100_000));
        assert!(judge(&deep).is_err());
    }
}
