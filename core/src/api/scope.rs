//! `selector`, `targetRef` and `targetRefs`: the part of a policy that says whom it is for, the same in all kinds.

use super::load::reader::{Fields, Report};
use super::load::yaml::{Node, Place};
use super::meta::Labels;

/// Targets of one policy (CRD: `maxItems`).
const TARGETS_MAX: usize = 16;
/// Bytes of the value of a label (CRD: `maxLength`).
const LABEL_VALUE_MAX: usize = 63;

/// Whom a policy is for.
#[derive(Debug)]
pub(super) struct Scope {
    /// `None` or empty: everybody in reach (S-2).
    pub(super) selector: Option<Labels>,
    /// There is a `targetRef` or a non-empty `targetRefs` (S-5).
    pub(super) targets: bool,
}

impl Scope {
    /// Takes the three fields (S-6, S-171).
    pub(super) fn take(fields: &mut Fields<'_>, report: &mut Report) -> Self {
        let selector_node = fields.take("selector");
        let target = fields.take("targetRef");
        let targets = fields.take("targetRefs");
        let selector = selector_node.and_then(|node| read_selector(node, report));
        if let Some(node) = target {
            read_target(node, report);
        }
        let mut listed = false;
        if let Some(node) = targets {
            let items = report.list(node, "targetRefs").unwrap_or_default();
            listed = !items.is_empty();
            if items.len() > TARGETS_MAX {
                let message = format!(
                    "`targetRefs` has {} items, more than {TARGETS_MAX}",
                    items.len()
                );
                report.invalid(node.place, message, "write a second policy");
            }
            for item in items {
                read_target(item, report);
            }
            if items.is_empty() {
                report.doubtful(
                    node.place,
                    "`targetRefs` is empty",
                    "it counts as absent: leave it out",
                );
            }
        }
        let mut given: Vec<Place> = [selector_node, target, targets]
            .iter()
            .flatten()
            .map(|node| node.place)
            .collect();
        given.sort_unstable();
        if let Some(second) = given.get(1) {
            let message = "a policy takes one of `selector`, `targetRef` and `targetRefs`";
            report.invalid(*second, message, "write a policy for each");
        }
        Self {
            selector,
            targets: target.is_some() || listed,
        }
    }
}

/// `selector: {matchLabels: …}` (S-171).
pub(super) fn read_selector(node: &Node, report: &mut Report) -> Option<Labels> {
    let mut fields = report.fields(node, "selector")?;
    let labels_node = fields.take("matchLabels");
    fields.close(report);
    let mut labels = Labels::new();
    for (key, node) in labels_node
        .and_then(|node| report.map(node, "matchLabels"))
        .unwrap_or_default()
    {
        let Some(value) = report.text(node, &key.name) else {
            continue;
        };
        if key.name.is_empty() {
            report.invalid(key.place, "the key of a label is empty", "name the label");
        }
        if key.name.contains('*') || value.contains('*') {
            let message = format!(
                "`{}: {value}` has a `*`, which labels are never matched by",
                key.name
            );
            report.invalid(
                key.place,
                message,
                "write the label out; a label that only has to be there cannot be asked for",
            );
        }
        if value.len() > LABEL_VALUE_MAX {
            let message = format!(
                "the value of `{}` is longer than {LABEL_VALUE_MAX} bytes",
                key.name
            );
            report.invalid(node.place, message, "no workload can carry such a label");
        }
        labels.insert(key.name.clone(), value.to_owned());
    }
    if labels.is_empty() {
        report.doubtful(
            node.place,
            "`selector` has no labels",
            "it selects everything: leave it out, or add `matchLabels`",
        );
    }
    Some(labels)
}

fn read_target(node: &Node, report: &mut Report) {
    let Some(mut fields) = report.fields(node, "targetRef") else {
        return;
    };
    let mut text = |name, report: &mut Report| {
        let node = fields.take(name)?;
        report.text(node, name).map(|text| (node.place, text))
    };
    let group = text("group", report);
    let kind = text("kind", report);
    let name = text("name", report);
    let namespace = text("namespace", report);
    fields.close(report);
    if name.is_none_or(|(_, name)| name.is_empty()) {
        report.invalid(node.place, "`targetRef` has no `name`", "name the target");
    }
    if let Some((place, _)) = namespace.filter(|(_, namespace)| !namespace.is_empty()) {
        let message = "`targetRef` names a `namespace`";
        report.invalid(
            place,
            message,
            "leave it out; a policy reaches targets of its own namespace only",
        );
    }
    let group = group.map_or("", |(_, group)| group);
    let known = matches!(
        (group, kind.map_or("", |(_, kind)| kind)),
        ("" | "core", "Service")
            | ("networking.istio.io", "ServiceEntry")
            | ("gateway.networking.k8s.io", "Gateway" | "GatewayClass")
    );
    if !known {
        let message = "`targetRef` names a group and kind that no policy can be attached to";
        let hint = "take Service of the core group, ServiceEntry of networking.istio.io, or Gateway or GatewayClass of gateway.networking.k8s.io";
        report.invalid(kind.map_or(node.place, |(place, _)| place), message, hint);
    }
}
