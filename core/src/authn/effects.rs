//! What a verified token does to its request (S-224, S-225).

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::locate::{Place, without_parameter};
use super::rules::Rule;
use super::{Claims, Rules};
use crate::http::head::{Changes, Fields};

/// What rules and upstreams see of a request differently from how it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    changes: Changes,
    /// Path and query without the tokens of the query; `None`: as they were.
    path: Option<Vec<u8>>,
}

impl Effects {
    /// The lines of the request, after the effects.
    pub fn fields<'a>(&'a self, fields: Fields<'a>) -> Fields<'a> {
        fields.with(&self.changes)
    }

    /// Path and query, after the effects. Asked once.
    pub(crate) fn take_path<'a>(&mut self, path: Cow<'a, [u8]>) -> Cow<'a, [u8]> {
        self.path.take().map_or(path, Cow::Owned)
    }

    /// Of a request without a token: what a client says in the place of a token is not passed on (S-225).
    pub(super) fn without_token(rules: &Rules) -> Self {
        Self {
            changes: Changes::barring(rules.outputs()),
            path: None,
        }
    }

    /// Takes a token out of where it was found; a cookie stays (S-224).
    pub(super) fn take(&mut self, place: Place<'_>, path: &[u8]) {
        match place {
            Place::Header(name) => self.changes.remove(name),
            Place::Param(name) => {
                let path = self.path.as_deref().unwrap_or(path);
                self.path = Some(without_parameter(path, name));
            }
            Place::Cookie(_) => {}
        }
    }

    /// Writes what the token says into the headers that the rule names.
    pub(super) fn put(&mut self, rule: &Rule, payload: &str, claims: &Arc<Claims>) {
        if let Some(header) = &rule.payload_header {
            self.changes.add(header, payload.as_bytes());
        }
        for output in &rule.claim_headers {
            let path: Vec<&str> = output.claim.split('.').collect();
            if let Some(text) = claims.get(&path).and_then(text) {
                self.changes.add(&output.header, text.as_bytes());
            }
        }
    }
}

/// The text of a claim; `None`: nothing is written.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then(|| text.clone()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Number(number) => Some(match number.as_f64() {
            // Whole numbers have no fraction, however they were written.
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e18 => {
                format!("{float:.0}")
            }
            _ => number.to_string(),
        }),
        Value::Array(_) | Value::Object(_) => Some(STANDARD.encode(value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_becomes_text_by_its_type() {
        // S-225.
        for (value, expected) in [
            (json!("alice"), Some("alice")),
            (json!(""), None),
            (json!(null), None),
            (json!(true), Some("true")),
            (json!(false), Some("false")),
            (json!(42), Some("42")),
            (json!(-7), Some("-7")),
            (json!(3.0), Some("3")),
            (json!(3.25), Some("3.25")),
            (json!(-1e3), Some("-1000")),
            (json!(9_007_199_254_740_993_u64), Some("9007199254740993")),
            (json!(u64::MAX), Some("18446744073709551615")),
            (json!(1e17), Some("100000000000000000")),
            (json!(1e18), Some("1e+18")),
            (json!(["a", "b"]), Some("WyJhIiwiYiJd")),
            (json!([]), Some("W10=")),
            (json!({"k": "v"}), Some("eyJrIjoidiJ9")),
        ] {
            assert_eq!(text(&value).as_deref(), expected, "{value}");
        }
    }
}
