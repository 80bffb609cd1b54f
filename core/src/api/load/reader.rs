//! Takes trees apart field by field, strictly, and writes down everything that is wrong.
//!
//! A resource is held to the schema of its kind (S-10, S-170): a number is no text, quoted or not, `null` is no value, and a
//! field that nobody asked for is an error. Every method answers `None` after it has reported why.

use std::sync::Arc;

use super::yaml::{Key, Node, Place, Value};
use crate::api::finding::{Cause, Finding, Severity};
use crate::api::meta::Origin;

/// What to do where a word of a text or an enum was taken for a boolean.
pub const QUOTE_BOOLEAN: &str = "put it in quotes; YAML takes yes, no, on and off for booleans";

/// The findings of one file, and what turns places of one document into places of it.
#[derive(Debug)]
pub struct Report {
    file: Arc<str>,
    frame: Frame,
    purpose: Purpose,
    strict: bool,
    findings: Vec<Finding>,
    not_enforced: Vec<Finding>,
    errors: usize,
}

/// What reading is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Is it valid Istio?
    Validate,
    /// The same, and is all of it enforced here?
    Enforce,
}

/// Where the text that is being read stands within its file.
#[derive(Clone, Copy, Debug)]
pub enum Frame {
    /// Below so many lines.
    Below(u32),
    /// Its first character stands here, its lines below one another.
    Inset(Place),
    /// All of it counts as standing here: a quoted text, whose lines are not those of the file.
    Point(Place),
}

impl Report {
    pub fn new(file: Arc<str>, purpose: Purpose) -> Self {
        Self {
            file,
            frame: Frame::Below(0),
            purpose,
            strict: false,
            findings: Vec::new(),
            not_enforced: Vec::new(),
            errors: 0,
        }
    }

    /// Whether what is passed over is an error.
    pub fn strict(&mut self, strict: bool) {
        self.strict = strict;
    }

    /// Sets the frame for what follows; answers the one before.
    pub fn frame(&mut self, frame: Frame) -> Frame {
        std::mem::replace(&mut self.frame, frame)
    }

    pub fn origin(&self, place: Place) -> Origin {
        let (line, column) = match self.frame {
            Frame::Below(lines) => (place.line.saturating_add(lines), place.column),
            Frame::Inset(first) => (
                place.line.saturating_add(first.line - 1),
                place.column.saturating_add(first.column - 1),
            ),
            Frame::Point(point) => (point.line, point.column),
        };
        Origin {
            file: Arc::clone(&self.file),
            line,
            column,
        }
    }

    /// How many errors there are so far.
    pub fn errors(&self) -> usize {
        self.errors
    }

    pub fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    /// Takes what is valid and not enforced, which findings do not have where reading is for validation.
    pub fn take_not_enforced(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.not_enforced)
    }

    pub fn add(
        &mut self,
        place: Place,
        severity: Severity,
        cause: Cause,
        message: String,
        hint: Option<String>,
    ) {
        self.errors += usize::from(severity == Severity::Error);
        self.findings.push(Finding {
            origin: self.origin(place),
            severity,
            cause,
            message,
            hint,
        });
    }

    /// Istio would refuse it.
    pub fn invalid(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.add(
            place,
            Severity::Error,
            Cause::Invalid,
            message.into(),
            Some(hint.into()),
        );
    }

    pub fn doubtful(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.add(
            place,
            Severity::Warning,
            Cause::Doubtful,
            message.into(),
            Some(hint.into()),
        );
    }

    /// Read as if it were not there, which takes nothing from anybody's protection.
    pub fn passed_over(
        &mut self,
        place: Place,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let severity = if self.strict {
            Severity::Error
        } else {
            Severity::Warning
        };
        self.add(
            place,
            severity,
            Cause::Doubtful,
            message.into(),
            Some(hint.into()),
        );
    }

    /// Valid, but nothing here acts on it: an error if it is to be enforced, else said apart from what the file has wrong.
    pub fn not_enforced(&mut self, place: Place, what: &str) {
        let finding = Finding {
            origin: self.origin(place),
            severity: Severity::Error,
            cause: Cause::NotEnforced,
            message: format!("{what}: valid, not enforced yet"),
            hint: Some("remove it: until it is enforced, nothing that has it is loaded".to_owned()),
        };
        match self.purpose {
            Purpose::Enforce => {
                self.errors += 1;
                self.findings.push(finding);
            }
            Purpose::Validate => self.not_enforced.push(finding),
        }
    }

    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// `name` is the field that holds `node`, for the message.
    pub fn text<'n>(&mut self, node: &'n Node, name: &str) -> Option<&'n str> {
        match &node.value {
            Value::Text { text, .. } => Some(text),
            Value::Number(text) => {
                let message = format!("`{name}` holds the number `{text}` where text is expected");
                self.invalid(node.place, message, format!("put it in quotes: \"{text}\""));
                None
            }
            Value::Bool(_) => {
                let message = format!("`{name}` holds a boolean where text is expected");
                self.invalid(node.place, message, QUOTE_BOOLEAN);
                None
            }
            Value::Null | Value::List(_) | Value::Map(_) => self.unfit(node, name, "text"),
        }
    }

    pub fn list<'n>(&mut self, node: &'n Node, name: &str) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) => Some(items),
            _ => self.unfit(node, name, "a list"),
        }
    }

    /// Every text of a list with its place; those that are none are left out, after their report.
    pub fn texts<'n>(&mut self, node: &'n Node, name: &str) -> Vec<(Place, &'n str)> {
        let items = self.list(node, name).unwrap_or_default();
        items
            .iter()
            .filter_map(|item| self.text(item, name).map(|text| (item.place, text)))
            .collect()
    }

    pub fn map<'n>(&mut self, node: &'n Node, name: &str) -> Option<&'n [(Key, Node)]> {
        match &node.value {
            Value::Map(entries) => Some(entries),
            _ => self.unfit(node, name, "a map"),
        }
    }

    /// A map whose fields are known by name.
    pub fn fields<'n>(&mut self, node: &'n Node, name: &str) -> Option<Fields<'n>> {
        let entries = self.map(node, name)?;
        Some(Fields {
            name: name.to_owned(),
            entries: entries
                .iter()
                .map(|(key, node)| Some((key, node)))
                .collect(),
            known: Vec::new(),
        })
    }

    /// Reports that `node` is not what `expected` says.
    pub fn unfit<T>(&mut self, node: &Node, name: &str, expected: &str) -> Option<T> {
        let found = match &node.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Text { .. } => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        };
        let hint = match &node.value {
            Value::Null => {
                "give it a value or leave the field out; look at the indentation of the next lines"
                    .to_owned()
            }
            _ => format!("write {expected} here"),
        };
        self.invalid(
            node.place,
            format!("`{name}` holds {found} where {expected} is expected"),
            hint,
        );
        None
    }
}

/// The entries of a map that nobody has taken yet.
#[derive(Debug)]
pub struct Fields<'n> {
    name: String,
    entries: Vec<Option<(&'n Key, &'n Node)>>,
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    pub fn take(&mut self, name: &'static str) -> Option<&'n Node> {
        self.known.push(name);
        let entry = self
            .entries
            .iter_mut()
            .find(|entry| entry.is_some_and(|(key, _)| key.name == name))?;
        entry.take().map(|(_, node)| node)
    }

    /// As `take`; `null` counts as absent, as in the fields that Kubernetes itself decodes.
    pub fn take_some(&mut self, name: &'static str) -> Option<&'n Node> {
        self.take(name).filter(|node| node.value != Value::Null)
    }

    /// Reports every field that was not asked for.
    pub fn close(self, report: &mut Report) {
        for (key, _) in self.entries.iter().flatten() {
            let hint = match closest(&key.name, &self.known) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("`{}` has {}", self.name, self.known.join(", ")),
            };
            report.invalid(
                key.place,
                format!("unknown field `{}` in `{}`", key.name, self.name),
                hint,
            );
        }
    }
}

/// The one of `known` that a writer of `word` most likely meant.
pub fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_lowercase();
    let reach = 1 + word.len() / 5;
    let distance = |name: &&&str| edits(&word, &name.to_lowercase(), reach);
    let best = known
        .iter()
        .filter(|name| distance(name).is_some())
        .min_by_key(distance)?;
    Some(best)
}

/// Characters to insert, delete or replace to get from one word to the other, if at most `reach`.
fn edits(from: &str, to: &str, reach: usize) -> Option<usize> {
    if from.len().abs_diff(to.len()) > reach {
        return None;
    }
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut next = vec![i + 1];
        for ((j, b), pair) in to.bytes().enumerate().zip(row.windows(2)) {
            let (&[diagonal, above], Some(&left)) = (pair, next.get(j)) else {
                return None;
            };
            next.push(
                (diagonal + usize::from(a != b))
                    .min(above + 1)
                    .min(left + 1),
            );
        }
        row = next;
    }
    row.last().copied().filter(|edits| *edits <= reach)
}
