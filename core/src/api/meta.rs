//! What all resources share: where they stand in a file, their names, their selectors.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::load::grammar;
use super::load::reader::{Fields, Report};
use super::load::yaml::{Node, Place};

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

/// `metadata` of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub name: String,
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
    /// Reads `metadata`; `place` is that of the resource.
    ///
    /// What the API server writes there is accepted and dropped. `default_namespace` is for resources that name none.
    pub(super) fn read(
        metadata: Option<&Node>,
        place: Place,
        default_namespace: &str,
        report: &mut Report,
    ) -> Option<Self> {
        let Some(node) = metadata else {
            report.invalid(
                place,
                "the resource has no `metadata`",
                "give it `metadata: {name: …}`",
            );
            return None;
        };
        let before = report.errors();
        let mut fields = report.fields(node, "metadata")?;
        let name = read_name(&mut fields, node.place, report);
        let namespace = match fields.take_some("namespace") {
            None => Some(default_namespace.to_owned()),
            Some(node) => read_namespace(node, default_namespace, report),
        };
        let created = match fields.take_some("creationTimestamp") {
            None => 0,
            Some(node) => read_time(node, report).unwrap_or(0),
        };
        let labels = fields
            .take_some("labels")
            .map(|node| read_labels(node, report));
        let annotations = fields
            .take_some("annotations")
            .map(|node| read_annotations(node, report));
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
        let (Some(name), Some(namespace), true) = (name, namespace, report.errors() == before)
        else {
            return None;
        };
        Some(Self {
            name,
            namespace,
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

fn read_labels(node: &Node, report: &mut Report) -> Labels {
    let mut labels = Labels::new();
    for (key, node) in report.map(node, "labels").unwrap_or_default() {
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

fn read_annotations(node: &Node, report: &mut Report) -> BTreeMap<String, String> {
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
