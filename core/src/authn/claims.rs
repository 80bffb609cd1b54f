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
