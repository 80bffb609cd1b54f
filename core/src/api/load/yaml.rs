//! YAML and JSON text as trees whose every value knows its place.
//!
//! Scalars are resolved as `kubectl` resolves them (YAML 1.1: `no` and `on` are booleans), because a file that means
//! one thing here and another in a cluster is worse than one that is refused. Numbers keep their spelling. Built on the
//! parser of serde-saphyr, below its serde layer: that layer keeps the place of a value only by recursion, at 35 KiB of
//! stack a level. Nothing here recurses over the input; trees are at most [`DEPTH_MAX`] deep, whatever uses them.

use std::collections::BTreeMap;

use serde_saphyr::granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, Tag};

/// Bytes of one document: what the Kubernetes API server takes in one request.
pub const DOCUMENT_MAX: usize = 3 * 1024 * 1024;
/// Levels of lists and maps in one another; a policy has 8, the schema of a custom resource about 50.
pub const DEPTH_MAX: usize = 64;
/// Values of one document, those that aliases repeat counted each time.
pub const VALUES_MAX: usize = 250_000;
/// Bytes of text of one document, that which aliases repeat counted each time.
pub const TEXT_BYTES_MAX: usize = 2 * DOCUMENT_MAX;

/// Line and column within one document, from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: u32,
    pub column: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

impl Node {
    /// The value of the entry `name`; `None` too if this is no map.
    pub fn field(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries
                .iter()
                .find(|(key, _)| key.name == name)
                .map(|(_, node)| node),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Text { .. }
            | Value::List(_) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    /// As written: `8080`, `1.10`, `0x1f`.
    Number(String),
    Text {
        text: String,
        /// Written as a block with `|`, so that its lines are lines of the file.
        literal: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// The name of an entry of a map, whatever YAML type it was written as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub place: Place,
    pub name: String,
}

/// One document of a text.
#[derive(Debug, PartialEq)]
pub struct Document {
    /// `None`: nothing but comments.
    pub root: Option<Node>,
    /// Keys that their map has already; the first one counts.
    pub repeated: Vec<Key>,
}

/// Why a text is no YAML, or more of it than anybody needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub place: Place,
    pub message: String,
    pub hint: Option<&'static str>,
}

/// Cuts a text at its `---` and `...` lines; yields each document with the number of lines before it.
///
/// Neither line can occur inside a document, not even in quotes (YAML 1.2 §9.1.2), so a document that cannot be read does
/// not take its neighbours with it.
pub fn documents(text: &str) -> Vec<(u32, &str)> {
    let mut found = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let (mut opened, mut filled) = (false, false);
    let (mut at, mut line_number) = (0, 0_u32);
    for line in text.split_inclusive('\n') {
        let (marker, rest) = line.split_at_checked(3).unwrap_or((line, ""));
        let is_marker = rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']);
        let trimmed = line.trim_start_matches('\u{feff}').trim();
        if is_marker && marker == "---" {
            if opened || filled {
                found.push((start_line, text.get(start..at).unwrap_or_default()));
                (start, start_line) = (at, line_number);
            }
            (opened, filled) = (true, false);
        } else if is_marker && marker == "..." {
            let end = at + line.len();
            if opened || filled {
                found.push((start_line, text.get(start..end).unwrap_or_default()));
            }
            (start, start_line) = (end, line_number + 1);
            (opened, filled) = (false, false);
        } else if !trimmed.is_empty() && !trimmed.starts_with('#') && !trimmed.starts_with('%') {
            filled = true;
        }
        at += line.len();
        line_number = line_number.saturating_add(1);
    }
    if opened || filled {
        found.push((start_line, text.get(start..).unwrap_or_default()));
    }
    found
}

/// Reads one document.
pub fn parse(text: &str) -> Result<Document, Unreadable> {
    if text.len() > DOCUMENT_MAX {
        return Err(Unreadable {
            place: Place { line: 1, column: 1 },
            message: format!(
                "the document has {} bytes, more than {DOCUMENT_MAX}",
                text.len()
            ),
            hint: Some("split it with `---` lines"),
        });
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options()) {
        let (event, span) = event.map_err(|error| Unreadable {
            place: place(error.marker().line(), error.marker().col()),
            message: match error.kind() {
                ErrorKind::RecursionLimitExceeded => too_deep(),
                kind => visible(&kind.to_string()),
            },
            hint: None,
        })?;
        builder.take(event, place(span.start.line(), span.start.col()))?;
    }
    Ok(Document {
        root: builder.root,
        repeated: builder.repeated,
    })
}

/// Text of a file, or with some of it within, without what a terminal would obey.
fn visible(text: &str) -> String {
    let shown = text.chars().flat_map(|c| {
        let plain = matches!(c, '\'' | '"' | '\\');
        let escaped = (!plain).then(|| c.escape_debug());
        plain
            .then_some(c)
            .into_iter()
            .chain(escaped.into_iter().flatten())
    });
    shown.collect()
}

fn options() -> Options {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = DEPTH_MAX + 1;
    options.block_nesting_limit = DEPTH_MAX + 1;
    options
}

fn place(line: usize, column: usize) -> Place {
    let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place {
        line: clamp(line.max(1)),
        column: clamp(column.saturating_add(1)),
    }
}

#[derive(Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Open>,
    // Alone among the fields it can grow beyond the text: `spend` bounds it.
    anchors: BTreeMap<usize, Node>,
    repeated: Vec<Key>,
    values: usize,
    bytes: usize,
    documents: usize,
}

/// A list or map whose end has not come.
struct Open {
    place: Place,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        key: Option<(Key, bool)>,
    },
}

struct Entry {
    key: Key,
    /// The key is a plain `<<`: its value is poured into the map.
    merge: bool,
    node: Node,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), Unreadable> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return fail(place, "a second document begins without a `---` line");
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.spend(place, 1, text.len())?;
                self.scalar(&text, style, anchor, tag.as_deref(), place)
            }
            Event::SequenceStart(_, anchor, tag) => self.open(
                place,
                anchor,
                tag.as_deref(),
                "seq",
                Content::List(Vec::new()),
            ),
            Event::MappingStart(_, anchor, tag) => {
                let content = Content::Map {
                    entries: Vec::new(),
                    key: None,
                };
                self.open(place, anchor, tag.as_deref(), "map", content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => self.alias(id, place),
            // The rest says nothing about values. The enum grows with features of the parser that are off here.
            _ => Ok(()),
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        place: Place,
    ) -> Result<(), Unreadable> {
        let plain = style == ScalarStyle::Plain;
        let text_value = || Value::Text {
            text: text.to_owned(),
            literal: style == ScalarStyle::Literal,
        };
        let resolved = if plain { resolve(text) } else { text_value() };
        let value = match tag.map(core_tag) {
            None => resolved,
            Some(Some("" | "str")) => text_value(),
            Some(Some("null")) if resolved == Value::Null => resolved,
            Some(Some("bool")) if matches!(resolved, Value::Bool(_)) => resolved,
            Some(Some("int" | "float")) if matches!(resolved, Value::Number(_)) => resolved,
            Some(_) => return fail(place, "the tag does not fit its value"),
        };
        if self.expects_key() {
            if value == Value::Null {
                return fail(place, "a key is missing before `:`");
            }
            let merge = plain && tag.is_none() && text == "<<";
            if anchor != 0 {
                let node = Node { place, value };
                self.anchors.insert(anchor, node);
            }
            return self.key(text.to_owned(), merge, place);
        }
        self.put(Node { place, value }, anchor)
    }

    fn open(
        &mut self,
        place: Place,
        anchor: usize,
        tag: Option<&Tag>,
        expected: &str,
        content: Content,
    ) -> Result<(), Unreadable> {
        self.spend(place, 1, 0)?;
        if self.expects_key() {
            return fail(place, "a list or map stands where a key is expected");
        }
        if tag.is_some_and(
            |tag| !matches!(core_tag(tag), Some(name) if name.is_empty() || name == expected),
        ) {
            return fail(place, "the tag does not fit its value");
        }
        if self.open.len() >= DEPTH_MAX {
            return fail(place, &too_deep());
        }
        self.open.push(Open {
            place,
            anchor,
            content,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Unreadable> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, .. } => Value::Map(self.merge(entries)?),
        };
        let place = open.place;
        self.put(Node { place, value }, open.anchor)
    }

    fn alias(&mut self, id: usize, place: Place) -> Result<(), Unreadable> {
        let Some(original) = self.anchors.get(&id) else {
            return fail(place, "the alias stands inside the value that it repeats");
        };
        let (values, bytes, depth) = weigh(original);
        if self.open.len() + depth > DEPTH_MAX {
            return fail(place, &too_deep());
        }
        self.spend(place, values, bytes)?;
        let Some(original) = self.anchors.get(&id) else {
            return Ok(());
        };
        let value = original.value.clone();
        if self.expects_key() {
            return match value {
                Value::Text { text, .. } | Value::Number(text) => self.key(text, false, place),
                _ => fail(
                    place,
                    "the alias stands where a key is expected, but repeats none",
                ),
            };
        }
        self.put(Node { place, value }, 0)
    }

    fn expects_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Open {
                content: Content::Map { key: None, .. },
                ..
            })
        )
    }

    fn key(&mut self, name: String, merge: bool, place: Place) -> Result<(), Unreadable> {
        if let Some(Open {
            content: Content::Map { key, .. },
            ..
        }) = self.open.last_mut()
        {
            *key = Some((Key { place, name }, merge));
        }
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Unreadable> {
        if anchor != 0 {
            let (values, bytes, _) = weigh(&node);
            self.spend(node.place, values, bytes)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, key }) => {
                if let Some((key, merge)) = key.take() {
                    entries.push(Entry { key, merge, node });
                }
            }
        }
        Ok(())
    }

    /// Takes out repeated keys and pours in what `<<` names; what the map says itself wins, then the earlier source.
    fn merge(&mut self, entries: Vec<Entry>) -> Result<Vec<(Key, Node)>, Unreadable> {
        let mut poured = Vec::new();
        let mut own = Vec::with_capacity(entries.len());
        for Entry { key, merge, node } in entries {
            if !merge {
                own.push((key, node));
                continue;
            }
            let sources = match node.value {
                Value::List(items) => items,
                value => vec![Node {
                    place: node.place,
                    value,
                }],
            };
            for source in sources {
                match source.value {
                    Value::Map(entries) => poured.extend(entries),
                    _ => return fail(source.place, "`<<` takes a map or a list of maps"),
                }
            }
        }
        let (mut own, repeated) = first_of_each_name(own);
        self.repeated.extend(repeated);
        if !poured.is_empty() {
            own.extend(poured);
            (own, _) = first_of_each_name(own);
        }
        Ok(own)
    }

    fn spend(&mut self, place: Place, values: usize, bytes: usize) -> Result<(), Unreadable> {
        self.values = self.values.saturating_add(values);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.values > VALUES_MAX || self.bytes > TEXT_BYTES_MAX {
            return Err(Unreadable {
                place,
                message: format!(
                    "the document has more than {VALUES_MAX} values or {TEXT_BYTES_MAX} bytes of text"
                ),
                hint: Some("split it with `---` lines; what aliases repeat counts each time"),
            });
        }
        Ok(())
    }
}

fn fail<T>(place: Place, message: &str) -> Result<T, Unreadable> {
    Err(Unreadable {
        place,
        message: message.to_owned(),
        hint: None,
    })
}

fn too_deep() -> String {
    format!("lists and maps are nested deeper than {DEPTH_MAX} levels")
}

/// The entries without those whose name came before, and the keys of these.
fn first_of_each_name(entries: Vec<(Key, Node)>) -> (Vec<(Key, Node)>, Vec<Key>) {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|&i| entries.get(i).map(|(key, _)| key.name.as_str()));
    let name = |i: usize| entries.get(i).map(|(key, _)| &key.name);
    let mut late: Vec<usize> = order
        .windows(2)
        .filter_map(|pair| match pair {
            &[a, b] if name(a) == name(b) => Some(b),
            _ => None,
        })
        .collect();
    if late.is_empty() {
        return (entries, Vec::new());
    }
    late.sort_unstable();
    let mut late = late.into_iter().peekable();
    let (mut first, mut repeated) = (Vec::new(), Vec::new());
    for (i, (key, node)) in entries.into_iter().enumerate() {
        if late.next_if_eq(&i).is_some() {
            repeated.push(key);
        } else {
            first.push((key, node));
        }
    }
    (first, repeated)
}

/// Values, bytes of text and levels of a tree.
fn weigh(node: &Node) -> (usize, usize, usize) {
    let add = |sum: (usize, usize, usize), node: &Node| {
        let (values, bytes, depth) = weigh(node);
        (sum.0 + values, sum.1 + bytes, sum.2.max(depth + 1))
    };
    match &node.value {
        Value::Null | Value::Bool(_) => (1, 0, 0),
        Value::Number(text) | Value::Text { text, .. } => (1, text.len(), 0),
        Value::List(items) => items.iter().fold((1, 0, 1), add),
        Value::Map(entries) => entries.iter().fold((1, 0, 1), |sum, (key, node)| {
            let (values, bytes, depth) = add(sum, node);
            (values, bytes + key.name.len(), depth)
        }),
    }
}

/// The name of a tag of YAML's own, empty for `!`; `None` for anybody else's.
fn core_tag(tag: &Tag) -> Option<&str> {
    if tag.handle() == "!" && tag.suffix().is_empty()
        || tag.handle().is_empty() && tag.suffix() == "!"
    {
        return Some("");
    }
    tag.core_suffix()
}

/// The value of a plain scalar.
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text {
            text: text.to_owned(),
            literal: false,
        },
    }
}

/// Whether any of YAML 1.1 and 1.2 takes a plain scalar for a number. Sexagesimals are text, as for `kubectl`.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let based = |prefix: &str, radix: u32| {
        unsigned.strip_prefix(prefix).is_some_and(|digits| {
            digits.chars().any(|c| c.is_digit(radix))
                && digits.chars().all(|c| c.is_digit(radix) || c == '_')
        })
    };
    if based("0x", 16) || based("0o", 8) || based("0b", 2) {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (
            mantissa,
            Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)),
        ),
        None => (unsigned, None),
    };
    let is_digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if exponent.is_some_and(|exponent| !is_digits(exponent)) {
        return false;
    }
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{part}");
    let starts = whole.starts_with(|c: char| c.is_ascii_digit())
        || whole.is_empty() && part.starts_with(|c: char| c.is_ascii_digit());
    starts && is_digits(&digits.replace('_', ""))
}

#[cfg(test)]
mod tests;
