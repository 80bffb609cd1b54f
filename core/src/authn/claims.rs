//! The payload of a verified token, as rules see it.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

/// What a verified token says. Not shown by `Debug`: claims are somebody's data.
#[derive(Clone, PartialEq)]
pub struct Claims {
    payload: Map<String, Value>,
    /// Top-level text claims that are lists of words (S-148).
    delimited: Arc<[String]>,
}

impl Claims {
    /// `delimited`: names of top-level claims whose text is split at spaces, `scope` and `permission` among them (S-148).
    pub fn new(payload: Map<String, Value>, delimited: Arc<[String]>) -> Self {
        Self { payload, delimited }
    }

    /// The whole payload, nothing split.
    pub fn payload(&self) -> &Map<String, Value> {
        &self.payload
    }

    /// The claim at `path`, through objects alone; `None` where there is none. An empty path names nothing.
    pub fn get<S: AsRef<str>>(&self, path: &[S]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        let top = self.payload.get(first.as_ref())?;
        rest.iter()
            .try_fold(top, |value, name| value.as_object()?.get(name.as_ref()))
    }

    /// Whether `is_match` holds for the text at `path`, for one of its words if it is a list of words (S-148), or for a text
    /// in the list there. Numbers, booleans, objects and null never match (S-147).
    pub fn any<S: AsRef<str>>(&self, path: &[S], mut is_match: impl FnMut(&str) -> bool) -> bool {
        match self.get(path) {
            Some(Value::String(text)) => match path {
                [name] if self.is_delimited(name.as_ref()) => text
                    .split(' ')
                    .filter(|word| !word.is_empty())
                    .any(is_match),
                _ => is_match(text),
            },
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).any(is_match),
            Some(_) | None => false,
        }
    }

    /// `iss` and `sub`, if both are texts: together the request principal (S-226).
    pub fn principal(&self) -> Option<(&str, &str)> {
        let text = |name| self.payload.get(name).and_then(Value::as_str);
        Some((text("iss")?, text("sub")?))
    }

    fn is_delimited(&self, name: &str) -> bool {
        self.delimited.iter().any(|delimited| delimited == name)
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} claims", self.payload.len())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(payload: &Value) -> Claims {
        let payload = payload.as_object().expect("an object").clone();
        Claims::new(payload, Arc::new(["scope".to_owned(), "perms".to_owned()]))
    }

    #[test]
    fn texts_match_whole_or_word_by_word_and_lists_by_one_of_their_texts() {
        // S-147, S-148.
        let claims = claims(&json!({
            "role": "admin user",
            "scope": " read  write",
            "perms": ["a b", 1, "c"],
            "number": 1,
            "yes": true,
            "nothing": null,
            "o": {"scope": "x y", "list": ["z"], "deep": {"k": "v"}},
        }));
        for (path, text, matches) in [
            (&["role"][..], "admin user", true),
            (&["role"], "admin", false),
            (&["scope"], "read", true),
            (&["scope"], "write", true),
            (&["scope"], " read  write", false),
            (&["scope"], "", false),
            (&["perms"], "a b", true),
            (&["perms"], "c", true),
            (&["perms"], "a", false),
            (&["perms"], "1", false),
            (&["number"], "1", false),
            (&["yes"], "true", false),
            (&["nothing"], "null", false),
            // Only a claim of the first level is split.
            (&["o", "scope"], "x y", true),
            (&["o", "scope"], "x", false),
            (&["o", "list"], "z", true),
            (&["o", "deep", "k"], "v", true),
            (&["o", "deep"], "v", false),
            (&["o", "k"], "v", false),
            (&["o.deep.k"], "v", false),
            (&["role", "admin user"], "admin user", false),
            (&[], "v", false),
        ] {
            let outcome = claims.any(path, |other| other == text);
            assert_eq!(outcome, matches, "{path:?} {text:?}");
        }
    }

    #[test]
    fn a_claim_is_found_through_objects_alone() {
        // S-147, S-149.
        let payload = json!({"a": {"b": {"c": 1}}, "a.b": 2, "l": [{"b": 3}, 4]});
        let claims = claims(&payload);
        for (path, value) in [
            (&["a"][..], Some(&payload["a"])),
            (&["a", "b", "c"], Some(&payload["a"]["b"]["c"])),
            (&["a.b"], Some(&payload["a.b"])),
            (&["a", "c"], None),
            (&["a", "b", "c", "d"], None),
            (&["l", "b"], None),
            (&["l", "1"], None),
            (&[], None),
        ] {
            assert_eq!(claims.get(path), value, "{path:?}");
        }
    }

    #[test]
    fn a_principal_takes_an_issuer_and_a_subject_that_are_texts() {
        // S-226.
        for (payload, principal) in [
            (json!({"iss": "i", "sub": "s"}), Some(("i", "s"))),
            (json!({"iss": "", "sub": ""}), Some(("", ""))),
            (json!({"iss": "i"}), None),
            (json!({"sub": "s"}), None),
            (json!({"iss": "i", "sub": 1}), None),
            (json!({"iss": ["i"], "sub": "s"}), None),
        ] {
            assert_eq!(claims(&payload).principal(), principal, "{payload}");
        }
    }

    #[test]
    fn claims_are_counted_and_not_shown() {
        let shown = format!("{:?}", claims(&json!({"sub": "alice", "iss": "i"})));
        assert_eq!(shown, "2 claims");
    }
}
