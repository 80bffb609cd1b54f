//! One resource or mesh configuration, and whether it is valid.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshward_core::api::load::yaml::{self, Key, Node, Value};
use meshward_core::api::load::{Cause, Text, validate};

use super::super::bytes::Found;
use super::super::tree::{Fault, text};
use super::super::words::Makers;

#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Document {
    text: String,
    /// The kind, if nothing here judges it.
    unjudged: Option<String>,
}

impl Document {
    pub(super) fn read(node: &Node) -> Result<Self, Fault> {
        let text = text(node)?.to_owned();
        let loaded = validate(&[whole(text.clone())], NAMESPACE);
        let unjudged = loaded
            .findings
            .iter()
            .any(|finding| finding.cause == Cause::NotJudged)
            .then(|| kind_of(&text));
        Ok(Self { text, unjudged })
    }

    pub(super) fn unjudged(&self) -> Option<&str> {
        self.unjudged.as_deref()
    }

    pub(super) fn judge(&self, makers: &mut Makers) -> Result<Found, String> {
        let text = substituted(&self.text, makers)?;
        let loaded = validate(&[whole(text)], NAMESPACE);
        let warning = loaded.findings.iter().any(|finding| !finding.is_error());
        Ok(BTreeMap::from([
            ("accepted", (!loaded.has_errors()).into()),
            ("warning", warning.into()),
        ]))
    }
}

/// For resources that name none.
const NAMESPACE: &str = "default";

fn whole(text: String) -> Text {
    Text {
        name: Arc::from("check.yaml"),
        text,
    }
}

fn kind_of(text: &str) -> String {
    let root = yaml::parse(text).ok().and_then(|document| document.root);
    let kind = root.as_ref().and_then(|root| root.field("kind"));
    match kind.map(|kind| &kind.value) {
        Some(Value::Text { text, .. }) => text.clone(),
        _ => "validate".to_owned(),
    }
}

/// The text itself if nothing in it stands for something else, else one that says the same with what stands for it.
fn substituted(text: &str, makers: &mut Makers) -> Result<String, String> {
    if !text.contains("${") {
        return Ok(text.to_owned());
    }
    let mut out = String::new();
    for (_, document) in yaml::documents(text) {
        let document = yaml::parse(document).map_err(|wrong| wrong.message)?;
        if let Some(key) = document.repeated.first() {
            return Err(format!("`{}` stands twice", key.name));
        }
        if let Some(root) = &document.root {
            out.push_str("---\n");
            write(root, makers, &mut out)?;
            out.push('\n');
        }
    }
    Ok(out)
}

/// JSON, which is YAML, but for numbers: they stay as they are spelt.
fn write(node: &Node, makers: &mut Makers, out: &mut String) -> Result<(), String> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(text) => out.push_str(text),
        Value::Text { text, .. } => out.push_str(&quoted(&makers.substitute(text)?)),
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write(item, makers, out)?;
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push('{');
            for (i, (Key { name, .. }, node)) in entries.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                out.push_str(&quoted(name));
                out.push_str(": ");
                write(node, makers, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}
