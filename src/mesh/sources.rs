//! What was applied, as it was written: for those who ask to see an object whole, with the fields that nobody here acts on.
//!
//! Only texts are kept, each as long as an object of it is there; a document is read again when it is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshward_core::api::load::Text;
use meshward_core::api::load::yaml::{self, Node, Value as Yaml};
use meshward_core::api::meta::{Labels, Meta, Origin};
use meshward_core::api::object::{Key, Object};
use serde_json::{Map, Number, Value, json};

use super::resources::Resource;

/// Where each object stands. Cloning shares the texts.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    by_key: BTreeMap<Key, Arc<Source>>,
}

/// A resource in a text.
#[derive(Clone, Debug)]
pub(super) struct Source {
    text: Arc<str>,
    line: u32,
    column: u32,
    /// Instead of those that are written there.
    labels: Option<Labels>,
}

impl Sources {
    /// Notes where objects stand that were taken from `texts`.
    pub(super) fn note(&mut self, texts: &[Text], objects: impl Iterator<Item = (Key, Origin)>) {
        let mut kept: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
        for (key, origin) in objects {
            let file = &origin.file;
            if !kept.contains_key(file)
                && let Some(text) = texts.iter().find(|text| text.name == *file)
            {
                kept.insert(Arc::clone(file), text.text.as_str().into());
            }
            if let Some(text) = kept.get(file) {
                let source = Source {
                    text: Arc::clone(text),
                    line: origin.line,
                    column: origin.column,
                    labels: None,
                };
                self.by_key.insert(key, Arc::new(source));
            }
        }
    }

    /// The labels of an object are others than those that were written.
    pub(super) fn relabel(&mut self, key: &Key, labels: &Labels) {
        if let Some(source) = self.by_key.get_mut(key) {
            Arc::make_mut(source).labels = Some(labels.clone());
        }
    }

    pub(super) fn keep(&mut self, is_there: impl Fn(&Key) -> bool) {
        self.by_key.retain(|key, _| is_there(key));
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Source>> {
        self.by_key.get(key)
    }
}

/// Where an object says that it stands.
pub(super) fn place_of(object: &Object) -> (Key, Origin) {
    (object.key(), object.meta().origin.clone())
}

/// Reads sources, each document once.
#[derive(Default)]
pub(super) struct Reader<'a> {
    /// By the address of the text: its documents with the number of lines before each, those read already with their tree.
    texts: BTreeMap<*const u8, Vec<Part<'a>>>,
}

struct Part<'a> {
    lines: u32,
    text: &'a str,
    tree: Option<Option<Node>>,
}

impl<'a> Reader<'a> {
    /// The object as an API server gives it: with its namespace, the time at which it was made, and its labels of today.
    pub(super) fn manifest(
        &mut self,
        kind: Resource,
        meta: &Meta,
        source: Option<&'a Source>,
    ) -> Value {
        let written = source.and_then(|source| Some((self.node(source)?, source)));
        let mut object = match &written {
            Some((node, _)) => as_written(node),
            None => Map::new(),
        };
        let (version, name) = kind.envelope();
        for (field, text) in [("apiVersion", version), ("kind", name)] {
            object.entry(field).or_insert_with(|| text.into());
        }
        let labels = match &written {
            Some((_, source)) => source.labels.as_ref(),
            None => Some(&meta.labels),
        };
        let metadata = object.entry("metadata").or_insert_with(|| json!({}));
        if let Value::Object(metadata) = metadata {
            metadata.insert("name".into(), meta.name.as_str().into());
            if !meta.namespace.is_empty() {
                metadata.insert("namespace".into(), meta.namespace.as_str().into());
            }
            if meta.created > 0 {
                let created = metadata.entry("creationTimestamp");
                created.or_insert_with(|| rfc3339(meta.created).into());
            }
            match labels {
                Some(labels) if labels.is_empty() => {
                    metadata.remove("labels");
                }
                Some(labels) => {
                    metadata.insert("labels".into(), json!(labels));
                }
                None => {}
            }
        }
        Value::Object(object)
    }

    fn node(&mut self, source: &'a Source) -> Option<Node> {
        let parts = self.texts.entry(source.text.as_ptr()).or_insert_with(|| {
            let documents = yaml::documents(&source.text);
            let part = |(lines, text)| Part {
                lines,
                text,
                tree: None,
            };
            documents.into_iter().map(part).collect()
        });
        let at = parts.partition_point(|part| part.lines < source.line);
        let part = parts.get_mut(at.checked_sub(1)?)?;
        let text = part.text;
        let tree = part
            .tree
            .get_or_insert_with(|| yaml::parse(text).ok().and_then(|document| document.root));
        let line = source.line.checked_sub(part.lines)?;
        find(tree.as_ref()?, line, source.column).cloned()
    }
}

/// The resource at that place: the document, or an item of a list in it.
fn find(node: &Node, line: u32, column: u32) -> Option<&Node> {
    if let Some(items) = node.field("items")
        && let Yaml::List(items) = &items.value
        && let Some(item) = items.iter().find_map(|item| find(item, line, column))
    {
        return Some(item);
    }
    ((node.place.line, node.place.column) == (line, column)).then_some(node)
}

/// A document that is a `meshConfig` and nothing else stands for a ConfigMap.
fn as_written(node: &Node) -> Map<String, Value> {
    let Value::Object(object) = json(node) else {
        return Map::new();
    };
    let is_resource = object.contains_key("metadata");
    match object.values().next() {
        Some(config) if !is_resource && object.len() == 1 => {
            let mesh = crate::mesh::yaml::written(config);
            let mut map = Map::new();
            map.insert("data".into(), json!({ "mesh": mesh }));
            map
        }
        _ => object,
    }
}

fn json(node: &Node) -> Value {
    match &node.value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(*value),
        Yaml::Number(text) => number(text),
        Yaml::Text { text, .. } => Value::String(text.clone()),
        Yaml::List(items) => Value::Array(items.iter().map(json).collect()),
        Yaml::Map(entries) => {
            let entries = entries.iter();
            Value::Object(
                entries
                    .map(|(key, node)| (key.name.clone(), json(node)))
                    .collect(),
            )
        }
    }
}

/// As YAML 1.1 reads it; what JSON has no number for stays text.
fn number(text: &str) -> Value {
    let digits = text.replace('_', "");
    let (negative, unsigned) = match digits.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let based = [("0x", 16), ("0o", 8), ("0b", 2), ("0", 8)];
    let based = based.iter().find_map(|(prefix, radix)| {
        u64::from_str_radix(unsigned.strip_prefix(prefix)?, *radix).ok()
    });
    let whole = based.or_else(|| unsigned.parse().ok());
    let signed = |whole: u64| match negative {
        true => i64::try_from(whole).ok().map(|n| Number::from(-n)),
        false => Some(Number::from(whole)),
    };
    let float = || digits.parse().ok().and_then(Number::from_f64);
    let number = whole.and_then(signed).or_else(float);
    number.map_or_else(|| text.into(), Value::Number)
}

/// `2026-01-02T03:04:05Z`; seconds since 1970.
pub(super) fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": civil_from_days.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use meshward_core::api::load::load_objects;

    use super::*;

    fn manifests(text: &str) -> Vec<Value> {
        let text = Text {
            name: "a.yaml".into(),
            text: text.into(),
        };
        let objects = load_objects(std::slice::from_ref(&text), "shop", false).unwrap();
        let mut sources = Sources::default();
        let named = objects.objects.iter().map(place_of);
        sources.note(&[text], named);
        let mut reader = Reader::default();
        objects
            .objects
            .iter()
            .map(|object| {
                let source = sources.get(&object.key()).map(|source| &**source);
                reader.manifest(Resource(object.kind()), object.meta(), source)
            })
            .collect()
    }

    #[test]
    fn what_was_written_comes_back_whole() {
        let text = "# first\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n\
            apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  labels: {a: 'yes'}\nspec:\n  type: ClusterIP\n  selector: {app: web}\n  sessionAffinity: None\n  ports:\n  - {name: http, port: 80}\n";
        assert_eq!(
            manifests(text),
            [
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
                json!({"apiVersion": "v1", "kind": "Service",
                    "metadata": {"name": "web", "namespace": "shop", "labels": {"a": "yes"}},
                    "spec": {"type": "ClusterIP", "selector": {"app": "web"}, "sessionAffinity": "None",
                        "ports": [{"name": "http", "port": 80}]}}),
            ]
        );
    }

    #[test]
    fn items_of_lists_and_a_bare_configuration_are_found() {
        let list = "{apiVersion: v1, kind: ServiceAccountList, items: [{metadata: {name: a}}, {metadata: {name: b, labels: {x: y}}}]}\n";
        let found = manifests(list);
        assert_eq!(found[1]["metadata"]["labels"]["x"], "y");
        assert_eq!(found[0]["kind"], "ServiceAccount");
        let found = manifests("mesh: {accessLogFile: /dev/stdout}\n");
        assert_eq!(
            found,
            [json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "istio", "namespace": "istio-system"},
                "data": {"mesh": "accessLogFile: /dev/stdout\n"}})]
        );
    }

    #[test]
    fn numbers_are_those_of_yaml() {
        for (text, value) in [
            ("80", json!(80)),
            ("-3", json!(-3)),
            ("0x1f", json!(31)),
            ("010", json!(8)),
            ("1_000", json!(1000)),
            ("1.50", json!(1.5)),
            ("0", json!(0)),
            (".inf", json!(".inf")),
        ] {
            assert_eq!(number(text), value, "{text}");
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (1_772_323_200, "2026-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
