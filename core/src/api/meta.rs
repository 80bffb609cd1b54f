//! What all resources share: where they stand in a file, their names, their selectors.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::load::grammar;
use super::load::reader::{Fields, Frame, Purpose, Report};
use super::load::yaml::{Node, Place, Value};

/// A place in a file. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    pub file: Arc<str>,
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Where the value of an annotation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValuePlace {
    pub origin: Origin,
    /// Its lines are lines of the file.
    pub literal: bool,
}

impl ValuePlace {
    /// A report for what is read out of the value itself, whose findings have places of the file.
    pub fn report(&self, purpose: Purpose) -> Report {
        let mut report = Report::new(Arc::clone(&self.origin.file), purpose);
        let first = Place {
            line: self.origin.line,
            column: self.origin.column,
        };
        report.frame(if self.literal {
            Frame::Inset(first)
        } else {
            Frame::Point(first)
        });
        report
    }
}

/// `metadata` of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub name: String,
    /// Empty in kinds that live in none.
    pub namespace: String,
    /// Seconds since 1970 of `creationTimestamp`; 0 if absent (S-7).
    pub created: u64,
    pub annotations: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub origin: Origin,
}

/// `selector.matchLabels`: every label must be there with this value (S-2).
pub type Labels = BTreeMap<String, String>;

/// The annotation that makes a policy one that only reports (S-163).
pub const DRY_RUN: &str = "istio.io/dry-run";

impl Meta {
    /// Reads `metadata` of a kind of Istio; `place` is that of the resource.
    ///
    /// What the API server writes there is accepted and dropped. `default_namespace` is for resources that name none.
    pub(super) fn read(
        metadata: Option<&Node>,
        place: Place,
        default_namespace: &str,
        report: &mut Report,
    ) -> Option<Self> {
        let before = report.errors();
        let (within, mut fields) = metadata_fields(metadata, place, report)?;
        let meta = Self::take(
            &mut fields,
            [place, within],
            Some(default_namespace),
            report,
        );
        for ignored in [
            "uid",
            "resourceVersion",
            "generation",
            "generateName",
            "managedFields",
            "ownerReferences",
            "finalizers",
            "selfLink",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ] {
            fields.take(ignored);
        }
        fields.close(report);
        meta.filter(|_| report.errors() == before)
    }

    /// Reads `metadata` of a kind of Kubernetes: fields that nobody here acts on are passed over.
    ///
    /// No `default_namespace`: the kind lives in none.
    pub(super) fn read_lax(
        metadata: Option<&Node>,
        place: Place,
        default_namespace: Option<&str>,
        report: &mut Report,
    ) -> Option<Self> {
        let before = report.errors();
        let (within, mut fields) = metadata_fields(metadata, place, report)?;
        let meta = Self::take(&mut fields, [place, within], default_namespace, report);
        meta.filter(|_| report.errors() == before)
    }

    /// `place` is that of the resource, `within` that of `metadata`.
    fn take(
        fields: &mut Fields<'_>,
        [place, within]: [Place; 2],
        default_namespace: Option<&str>,
        report: &mut Report,
    ) -> Option<Self> {
        let name = read_name(fields, within, report);
        let namespace = match (fields.take_some("namespace"), default_namespace) {
            (_, None) => Some(String::new()),
            (None, Some(default)) => Some(default.to_owned()),
            (Some(node), Some(default)) => read_namespace(node, default, report),
        };
        let created = match fields.take_some("creationTimestamp") {
            None => 0,
            Some(node) => read_time(node, report).unwrap_or(0),
        };
        let labels = fields
            .take_some("labels")
            .map(|node| read_labels(node, "labels", report));
        let annotations = fields
            .take_some("annotations")
            .map(|node| read_annotations(node, report));
        Some(Self {
            name: name?,
            namespace: namespace?,
            created,
            annotations: annotations.unwrap_or_default(),
            labels: labels.unwrap_or_default(),
            origin: report.origin(place),
        })
    }

    /// Only an AuthorizationPolicy can be tried out (S-176).
    pub(super) fn refuse_dry_run(&self, place: Place, report: &mut Report) {
        if self.annotations.contains_key(DRY_RUN) {
            let message =
                format!("annotation `{DRY_RUN}` on a resource that is no AuthorizationPolicy");
            report.invalid(place, message, "leave it out");
        }
    }
}

fn metadata_fields<'n>(
    metadata: Option<&'n Node>,
    place: Place,
    report: &mut Report,
) -> Option<(Place, Fields<'n>)> {
    let Some(node) = metadata else {
        report.invalid(
            place,
            "the resource has no `metadata`",
            "give it `metadata: {name: …}`",
        );
        return None;
    };
    Some((node.place, report.fields(node, "metadata")?))
}

fn read_name(fields: &mut Fields<'_>, place: Place, report: &mut Report) -> Option<String> {
    let Some(node) = fields.take_some("name") else {
        report.invalid(place, "`metadata` has no `name`", "name the resource");
        return None;
    };
    let name = report.text(node, "name")?;
    if !grammar::is_subdomain(name) {
        let message = format!("`{name}` is no name of a resource");
        report.invalid(
            node.place,
            message,
            "use lower-case letters, digits, `-` and `.`, at most 253 of them",
        );
        return None;
    }
    Some(name.to_owned())
}

fn read_namespace(node: &Node, default: &str, report: &mut Report) -> Option<String> {
    let namespace = report.text(node, "namespace")?;
    if namespace.is_empty() {
        return Some(default.to_owned());
    }
    if !grammar::is_label(namespace) {
        let message = format!("`{namespace}` is no name of a namespace");
        report.invalid(
            node.place,
            message,
            "use lower-case letters, digits and `-`, at most 63 of them",
        );
        return None;
    }
    Some(namespace.to_owned())
}

fn read_time(node: &Node, report: &mut Report) -> Option<u64> {
    let text = report.text(node, "creationTimestamp")?;
    let seconds = grammar::rfc3339_seconds(text);
    if seconds.is_none() {
        report.invalid(
            node.place,
            format!("`{text}` is no time"),
            "write it like 2026-01-02T03:04:05Z",
        );
    }
    seconds
}

/// A map of labels; `name` is the field that holds it.
pub(super) fn read_labels(node: &Node, name: &str, report: &mut Report) -> Labels {
    let mut labels = Labels::new();
    for (key, node) in report.map(node, name).unwrap_or_default() {
        let Some(value) = report.text(node, &key.name) else {
            continue;
        };
        if !grammar::is_qualified_name(&key.name) {
            let hint = "use `[domain/]name` of letters, digits, `-`, `_` and `.`, the name at most 63 long";
            report.invalid(
                key.place,
                format!("`{}` is no key of a label", key.name),
                hint,
            );
        }
        if !grammar::is_label_value(value) {
            let hint = "use letters, digits, `-`, `_` and `.`, at most 63 of them, none of the signs first or last";
            report.invalid(
                node.place,
                format!("`{value}` is no value of a label"),
                hint,
            );
        }
        labels.insert(key.name.clone(), value.to_owned());
    }
    labels
}

pub(super) fn read_annotations(node: &Node, report: &mut Report) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    for (key, node) in report.map(node, "annotations").unwrap_or_default() {
        let Some(value) = report.text(node, &key.name) else {
            continue;
        };
        if !grammar::is_qualified_name(&key.name) {
            let hint = "use `[domain/]name` of letters, digits, `-`, `_` and `.`, the name at most 63 long";
            report.invalid(
                key.place,
                format!("`{}` is no key of an annotation", key.name),
                hint,
            );
        }
        annotations.insert(key.name.clone(), value.to_owned());
    }
    annotations
}

/// Where the value of each annotation stands; reports nothing.
pub(super) fn annotation_places(node: &Node, report: &Report) -> BTreeMap<String, ValuePlace> {
    let Value::Map(entries) = &node.value else {
        return BTreeMap::new();
    };
    let place = |node: &Node| ValuePlace {
        origin: report.origin(node.place),
        literal: matches!(node.value, Value::Text { literal: true, .. }),
    };
    entries
        .iter()
        .map(|(key, node)| (key.name.clone(), place(node)))
        .collect()
}
