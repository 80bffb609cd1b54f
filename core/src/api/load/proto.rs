//! Holds trees to protobuf messages as protobuf's JSON form writes them (S-10).
//!
//! Other than a resource, such a tree may put whole numbers in quotes, name enums by number, spell fields in two ways and say
//! `null` for absent. The messages come from a table in text form, whose grammar its own head explains.

use std::collections::BTreeMap;

use super::grammar;
use super::reader::{QUOTE_BOOLEAN, Report, closest};
use super::yaml::{Key, Node, Place, Value};

/// Messages and enums by name.
#[derive(Debug)]
pub struct Schema<'t> {
    types: BTreeMap<&'t str, Type<'t>>,
}

#[derive(Debug)]
enum Type<'t> {
    Message(Vec<Field<'t>>),
    Enum(Vec<(&'t str, i64)>),
}

#[derive(Debug)]
struct Field<'t> {
    /// As in the proto.
    name: &'t str,
    /// In lowerCamelCase.
    json: String,
    many: Many,
    kind: &'t str,
    /// At most one field of a group may be set.
    group: Option<&'t str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Many {
    One,
    Repeated,
    Map,
}

impl<'t> Schema<'t> {
    /// `None` if the table breaks its own grammar or names a type that it does not have.
    pub fn parse(table: &'t str) -> Option<Self> {
        let mut types = BTreeMap::new();
        let mut current = None;
        for line in table.lines() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            if let Some(field) = line.strip_prefix("  ") {
                let Some(Type::Message(fields)) = types.get_mut(current?) else {
                    return None;
                };
                fields.push(parse_field(field)?);
            } else if let Some((name, values)) = line.split_once(" = ") {
                let values = values.split(' ').map(|value| {
                    let (name, number) = value.split_once(':')?;
                    Some((name, number.parse().ok()?))
                });
                types.insert(name, Type::Enum(values.collect::<Option<_>>()?));
            } else {
                current = Some(line);
                types.insert(line, Type::Message(Vec::new()));
            }
        }
        let schema = Self { types };
        schema.is_closed().then_some(schema)
    }

    fn is_closed(&self) -> bool {
        self.types.values().all(|kind| match kind {
            Type::Enum(_) => true,
            Type::Message(fields) => fields
                .iter()
                .all(|field| is_scalar(field.kind) || self.types.contains_key(field.kind)),
        })
    }

    /// Reports everything in `node` that is not the message `name`.
    pub fn check(&self, node: &Node, name: &str, report: &mut Report) {
        let Some(Type::Message(fields)) = self.types.get(name) else {
            return;
        };
        let short = name.rsplit_once('.').map_or(name, |(_, short)| short);
        let mut set: BTreeMap<&str, &Key> = BTreeMap::new();
        let mut groups: BTreeMap<&str, &Key> = BTreeMap::new();
        for (key, value) in report.map(node, short).unwrap_or_default() {
            let Some(field) = fields
                .iter()
                .find(|field| field.json == key.name || field.name == key.name)
            else {
                let known: Vec<&str> = fields.iter().map(|field| field.json.as_str()).collect();
                let hint = match closest(&key.name, &known) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("see `{short}` in Istio's reference"),
                };
                report.invalid(
                    key.place,
                    format!("unknown field `{}` in `{short}`", key.name),
                    hint,
                );
                continue;
            };
            if let Some(first) = set.insert(field.name, key) {
                let message = format!("`{}` and `{}` are the same field", first.name, key.name);
                report.invalid(key.place, message, "keep one of them");
            }
            if value.value == Value::Null {
                continue;
            }
            if let Some(first) = field.group.and_then(|group| groups.insert(group, key)) {
                let message = format!("`{}` stands beside `{}`", key.name, first.name);
                report.invalid(key.place, message, "only one of the two may be set");
            }
            self.check_field(field, value, report);
        }
    }

    fn check_field(&self, field: &Field<'_>, node: &Node, report: &mut Report) {
        match field.many {
            Many::One => self.check_value(&field.json, field.kind, node, report),
            Many::Repeated => {
                for item in report.list(node, &field.json).unwrap_or_default() {
                    self.check_value(&field.json, field.kind, item, report);
                }
            }
            Many::Map => {
                for (key, value) in report.map(node, &field.json).unwrap_or_default() {
                    self.check_value(&key.name, field.kind, value, report);
                }
            }
        }
    }

    fn check_value(&self, name: &str, kind: &str, node: &Node, report: &mut Report) {
        match self.types.get(kind) {
            Some(Type::Message(_)) => return self.check(node, kind, report),
            Some(Type::Enum(values)) => return check_enum(name, values, node, report),
            None => {}
        }
        match kind {
            "string" => {
                report.text(node, name);
            }
            "bool" if !matches!(node.value, Value::Bool(_)) => {
                report.unfit::<()>(node, name, "true or false");
            }
            "int32" => check_integer(name, node, i32::MIN.into(), i32::MAX.into(), report),
            "uint32" => check_integer(name, node, 0, u32::MAX.into(), report),
            "int64" => check_integer(name, node, i64::MIN.into(), i64::MAX.into(), report),
            "uint64" => check_integer(name, node, 0, u64::MAX.into(), report),
            "double"
                if !number_text(node)
                    .is_some_and(|text| text.parse::<f64>().is_ok_and(f64::is_finite)) =>
            {
                report.unfit::<()>(node, name, "a number");
            }
            "duration" => {
                if let Some(text) = report.text(node, name) {
                    check_duration(name, text, node.place, report);
                }
            }
            _ => {}
        }
    }
}

fn parse_field(line: &str) -> Option<Field<'_>> {
    let mut words = line.split(' ').peekable();
    let name = words.next()?;
    let many = match *words.peek()? {
        "repeated" => Many::Repeated,
        "map" => Many::Map,
        _ => Many::One,
    };
    if many != Many::One {
        words.next();
    }
    let kind = words.next()?;
    let group = match words.next() {
        None => None,
        Some("oneof") => Some(words.next()?),
        Some(_) => return None,
    };
    words.next().is_none().then(|| Field {
        name,
        json: json_name(name),
        many,
        kind,
        group,
    })
}

/// `trust_domain` as `trustDomain`.
fn json_name(name: &str) -> String {
    let mut json = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else {
            json.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    json
}

fn is_scalar(kind: &str) -> bool {
    matches!(
        kind,
        "string"
            | "bool"
            | "int32"
            | "uint32"
            | "int64"
            | "uint64"
            | "double"
            | "duration"
            | "struct"
    )
}

fn number_text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Number(text) | Value::Text { text, .. } => Some(text),
        _ => None,
    }
}

fn check_integer(name: &str, node: &Node, min: i128, max: i128, report: &mut Report) {
    let Some(text) = number_text(node) else {
        report.unfit::<()>(node, name, "a whole number");
        return;
    };
    if !integer(node).is_some_and(|number| (min..=max).contains(&number)) {
        let message = format!("`{name}` holds `{text}`, no whole number from {min} to {max}");
        report.invalid(node.place, message, "write it in digits");
    }
}

/// A number may be spelt with a point as long as it is whole: on its way to protobuf YAML becomes JSON, which writes 80.0 as
/// 80. Text is taken as it stands.
fn integer(node: &Node) -> Option<i128> {
    /// Up to here every whole number is a double.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match &node.value {
        Value::Text { text, .. } => whole_number(text),
        Value::Number(text) => whole_number(text).or_else(|| {
            let number: f64 = text.parse().ok()?;
            let pointed = text.contains(['.', 'e', 'E']);
            let whole = pointed && number.fract() == 0.0 && number.abs() <= EXACT;
            whole.then_some(number as i128)
        }),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
    }
}

/// In the digits of JSON: no `+`, no leading zeros.
fn whole_number(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = digits == "0" || !digits.starts_with('0');
    let is_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if canonical && is_digits {
        text.parse().ok()
    } else {
        None
    }
}

fn check_duration(name: &str, text: &str, place: Place, report: &mut Report) {
    if grammar::go_duration_ms(text).is_none() {
        report.invalid(
            place,
            format!("`{name}` holds `{text}`, no duration"),
            "write it like 10s or 500ms",
        );
    }
}

fn check_enum(name: &str, values: &[(&str, i64)], node: &Node, report: &mut Report) {
    if enum_value(values, node).is_some() {
        return;
    }
    let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    match number_text(node) {
        None if matches!(node.value, Value::Bool(_)) => {
            let message = format!("`{name}` holds a boolean where the name of a value is expected");
            report.invalid(node.place, message, QUOTE_BOOLEAN);
        }
        None => {
            report.unfit::<()>(node, name, "the name of a value");
        }
        Some(text) => {
            let hint = match closest(text, &names) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("take one of {}", names.join(", ")),
            };
            report.invalid(
                node.place,
                format!("`{text}` is no value of `{name}`"),
                hint,
            );
        }
    }
}

fn enum_value<'v>(values: &[(&'v str, i64)], node: &Node) -> Option<&'v str> {
    let found = match &node.value {
        Value::Number(text) => {
            let number = whole_number(text)?;
            values
                .iter()
                .find(|(_, value)| i128::from(*value) == number)
        }
        Value::Text { text, .. } => values.iter().find(|(name, _)| name == text),
        _ => None,
    };
    found.map(|(name, _)| *name)
}

/// Reads the fields of a message that `Schema::check` found nothing wrong with.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a, 't, 'n> {
    schema: &'a Schema<'t>,
    name: &'t str,
    node: &'n Node,
}

impl<'a, 't, 'n> Checked<'a, 't, 'n> {
    /// `None` if the schema has no such message.
    pub fn new(schema: &'a Schema<'t>, name: &'t str, node: &'n Node) -> Option<Self> {
        schema
            .types
            .contains_key(name)
            .then_some(Self { schema, name, node })
    }

    fn find(&self, name: &str) -> Option<(&'a Field<'t>, &'n Node)> {
        let Some(Type::Message(fields)) = self.schema.types.get(self.name) else {
            return None;
        };
        let field = fields.iter().find(|field| field.name == name)?;
        let Value::Map(entries) = &self.node.value else {
            return None;
        };
        let (_, node) = entries
            .iter()
            .find(|(key, _)| key.name == field.name || key.name == field.json)?;
        (node.value != Value::Null).then_some((field, node))
    }

    /// The value of a field by its proto name.
    pub fn node(&self, name: &str) -> Option<&'n Node> {
        self.find(name).map(|(_, node)| node)
    }

    /// Protobuf knows no difference between an absent text and an empty one.
    pub fn text(&self, name: &str) -> Option<(&'n str, Place)> {
        match self.find(name)?.1 {
            Node {
                value: Value::Text { text, .. },
                place,
            } if !text.is_empty() => Some((text, *place)),
            _ => None,
        }
    }

    pub fn bool(&self, name: &str) -> Option<bool> {
        match self.find(name)?.1.value {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub fn integer(&self, name: &str) -> Option<i128> {
        integer(self.find(name)?.1)
    }

    /// The name of the value of an enum.
    pub fn choice(&self, name: &str) -> Option<&'t str> {
        let (field, node) = self.find(name)?;
        match self.schema.types.get(field.kind) {
            Some(Type::Enum(values)) => enum_value(values, node),
            _ => None,
        }
    }

    pub fn duration_ms(&self, name: &str) -> Option<(u64, Place)> {
        let (text, place) = self.text(name)?;
        grammar::go_duration_ms(text).map(|ms| (ms, place))
    }

    pub fn message(&self, name: &str) -> Option<Self> {
        let (field, node) = self.find(name)?;
        Self::new(self.schema, field.kind, node)
    }

    pub fn messages(&self, name: &str) -> Vec<Self> {
        let Some((field, node)) = self.find(name) else {
            return Vec::new();
        };
        let Value::List(items) = &node.value else {
            return Vec::new();
        };
        items
            .iter()
            .filter_map(|item| Self::new(self.schema, field.kind, item))
            .collect()
    }

    pub fn texts(&self, name: &str) -> Vec<(&'n str, Place)> {
        let Some(Value::List(items)) = self.node(name).map(|node| &node.value) else {
            return Vec::new();
        };
        let texts = items.iter().filter_map(|item| match &item.value {
            Value::Text { text, .. } => Some((text.as_str(), item.place)),
            _ => None,
        });
        texts.collect()
    }

    /// Where the message itself stands.
    pub fn place(&self) -> Place {
        self.node.place
    }
}

#[cfg(test)]
mod tests;
