//! Maps of a YAML tree, read field by field, with the line of what is wrong.
//!
//! Strict: what nobody took is a fault, so that a misspelt field is not a check that demands less.

use meshward_core::api::load::yaml::{Node, Value};
use serde_json::Value as Json;

/// What is wrong in a file, and in which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: u32,
    pub(super) message: String,
}

pub(super) fn fault<T>(node: &Node, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault {
        line: node.place.line,
        message: message.into(),
    })
}

/// The entries of a map that were not taken yet.
#[derive(Debug)]
pub(super) struct Fields<'n> {
    node: &'n Node,
    what: &'n str,
    rest: Vec<(&'n str, &'n Node)>,
}

impl<'n> Fields<'n> {
    /// `what` names the map in faults.
    pub(super) fn of(node: &'n Node, what: &'n str) -> Result<Self, Fault> {
        let Value::Map(entries) = &node.value else {
            return fault(node, format!("{what} is no map"));
        };
        let rest = entries
            .iter()
            .map(|(key, node)| (key.name.as_str(), node))
            .collect();
        Ok(Self { node, what, rest })
    }

    pub(super) fn take(&mut self, name: &str) -> Option<&'n Node> {
        let at = self.rest.iter().position(|(key, _)| *key == name)?;
        Some(self.rest.remove(at).1)
    }

    pub(super) fn need(&mut self, name: &str) -> Result<&'n Node, Fault> {
        match self.take(name) {
            Some(node) => Ok(node),
            None => fault(self.node, format!("{} has no `{name}`", self.what)),
        }
    }

    /// A field that is a text, and there.
    pub(super) fn text(&mut self, name: &str) -> Result<&'n str, Fault> {
        text(self.need(name)?)
    }

    pub(super) fn port(&mut self, name: &str) -> Result<u16, Fault> {
        number(self.need(name)?)
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Fault> {
        self.take(name).map(flag).transpose()
    }

    /// A list of texts; absent: empty.
    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, Fault> {
        self.take(name).map_or(Ok(Vec::new()), texts)
    }

    /// Faults what was not taken.
    pub(super) fn end(self) -> Result<(), Fault> {
        match self.rest.first() {
            None => Ok(()),
            Some((key, node)) => fault(node, format!("{} has an unknown `{key}`", self.what)),
        }
    }
}

/// A text; numbers count as written (`1.3`).
pub(super) fn text(node: &Node) -> Result<&str, Fault> {
    match &node.value {
        Value::Text { text, .. } | Value::Number(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => {
            fault(node, "this is no text")
        }
    }
}

pub(super) fn number<N: std::str::FromStr>(node: &Node) -> Result<N, Fault> {
    match &node.value {
        Value::Number(text) => text
            .parse()
            .or_else(|_| fault(node, format!("`{text}` is no number that can stand here"))),
        Value::Null | Value::Bool(_) | Value::Text { .. } | Value::List(_) | Value::Map(_) => {
            fault(node, "this is no number")
        }
    }
}

pub(super) fn flag(node: &Node) -> Result<bool, Fault> {
    match node.value {
        Value::Bool(value) => Ok(value),
        _ => fault(node, "this is neither true nor false"),
    }
}

pub(super) fn list(node: &Node) -> Result<&[Node], Fault> {
    match &node.value {
        Value::List(items) => Ok(items),
        _ => fault(node, "this is no list"),
    }
}

pub(super) fn texts(node: &Node) -> Result<Vec<String>, Fault> {
    list(node)?
        .iter()
        .map(|item| text(item).map(str::to_owned))
        .collect()
}

/// The tree as JSON. `text` turns each text into what stands for it.
pub(super) fn json(
    node: &Node,
    replace: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Json, String> {
    Ok(match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Number(text) => serde_json::from_str(text)
            .ok()
            .filter(Json::is_number)
            .unwrap_or_else(|| Json::String(text.clone())),
        Value::Text { text, .. } => Json::String(replace(text)?),
        Value::List(items) => Json::Array(
            items
                .iter()
                .map(|item| json(item, replace))
                .collect::<Result<_, _>>()?,
        ),
        Value::Map(entries) => Json::Object(
            entries
                .iter()
                .map(|(key, node)| Ok((key.name.clone(), json(node, replace)?)))
                .collect::<Result<_, String>>()?,
        ),
    })
}

/// The tree as JSON, word by word.
pub(crate) fn plain_json(node: &Node) -> Json {
    json(node, &|text| Ok(text.to_owned())).unwrap_or(Json::Null)
}

#[cfg(test)]
mod tests {
    use meshward_core::api::load::yaml;

    use super::*;

    fn tree(text: &str) -> Node {
        let document = yaml::parse(text).expect("YAML");
        document.root.expect("a value")
    }

    #[test]
    fn what_nobody_takes_is_a_fault_with_its_line() {
        let node = tree("port: 80\nprot: 81\n");
        let mut fields = Fields::of(&node, "a probe").expect("a map");
        assert_eq!(fields.port("port"), Ok(80));
        let fault = fields.end().expect_err("`prot` is left");
        assert_eq!(fault.line, 2);
        assert_eq!(fault.message, "a probe has an unknown `prot`");
    }

    #[test]
    fn a_number_that_does_not_fit_is_a_fault() {
        let node = tree("port: 65536\n");
        let mut fields = Fields::of(&node, "a probe").expect("a map");
        assert_eq!(fields.port("port").map_err(|f| f.line), Err(1));
        assert!(fields.port("port").is_err(), "it was taken");
    }

    #[test]
    fn a_tree_is_the_same_in_json() {
        let node = tree("{a: [1, 1.5, x], b: null, c: 'true', d: no}");
        let same = serde_json::json!({"a": [1, 1.5, "x"], "b": null, "c": "true", "d": false});
        assert_eq!(plain_json(&node), same);
        let shout = json(&node, &|text| Ok(text.to_uppercase())).expect("JSON");
        assert_eq!(shout["a"][2], "X");
        assert!(json(&node, &|_| Err("no".into())).is_err());
    }
}
