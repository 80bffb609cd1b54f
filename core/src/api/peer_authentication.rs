//! `PeerAuthentication` (security.istio.io v1, v1beta1).

use std::collections::BTreeMap;

use super::load::grammar;
use super::load::reader::Report;
use super::load::yaml::{Node, Place, Value};
use super::meta::{Labels, Meta};
use super::scope::read_selector;

/// One policy, as written, after validation (S-170 to S-172).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    pub meta: Meta,
    pub selector: Option<Labels>,
    pub mode: Mode,
    /// By workload port (S-22).
    pub port_level: BTreeMap<u16, Mode>,
}

/// `mtls.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Absent or `UNSET`: as the parent says (S-20).
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}

const MODES: [(&str, Mode); 4] = [
    ("UNSET", Mode::Unset),
    ("DISABLE", Mode::Disable),
    ("PERMISSIVE", Mode::Permissive),
    ("STRICT", Mode::Strict),
];

impl PeerAuthentication {
    /// `spec` may be absent: then everything is as the parent says. `None` after at least one error.
    pub(super) fn read(
        meta: Meta,
        spec: Option<&Node>,
        place: Place,
        report: &mut Report,
    ) -> Option<Self> {
        let before = report.errors();
        meta.refuse_dry_run(place, report);
        let mut policy = Self {
            meta,
            selector: None,
            mode: Mode::Unset,
            port_level: BTreeMap::new(),
        };
        let Some(spec) = spec else {
            return (report.errors() == before).then_some(policy);
        };
        let mut fields = report.fields(spec, "spec")?;
        policy.selector = fields
            .take("selector")
            .and_then(|node| read_selector(node, report));
        if let Some(node) = fields.take("mtls") {
            policy.mode = read_mutual_tls(node, "mtls", report);
        }
        if let Some(node) = fields.take("portLevelMtls") {
            policy.port_level = read_port_level(node, report);
            if policy.selector.as_ref().is_none_or(Labels::is_empty) {
                let message = "`portLevelMtls` stands in a policy without a selector";
                report.invalid(
                    node.place,
                    message,
                    "add `selector: {matchLabels: …}`; ports are those of a workload",
                );
            }
        }
        fields.close(report);
        (report.errors() == before).then_some(policy)
    }
}

fn read_mutual_tls(node: &Node, name: &str, report: &mut Report) -> Mode {
    let Some(mut fields) = report.fields(node, name) else {
        return Mode::Unset;
    };
    let mode = fields.take("mode");
    fields.close(report);
    let Some((place, text)) =
        mode.and_then(|node| report.text(node, "mode").map(|text| (node.place, text)))
    else {
        return Mode::Unset;
    };
    if let Some((_, mode)) = MODES.iter().find(|(name, _)| *name == text) {
        return *mode;
    }
    let hint = format!("take one of {}", MODES.map(|(name, _)| name).join(", "));
    report.invalid(place, format!("`{text}` is no mode of mutual TLS"), hint);
    Mode::Unset
}

/// Keys are ports of the workload, as text or number (S-10, S-172).
fn read_port_level(node: &Node, report: &mut Report) -> BTreeMap<u16, Mode> {
    let entries = report.map(node, "portLevelMtls").unwrap_or_default();
    if matches!(&node.value, Value::Map(entries) if entries.is_empty()) {
        report.invalid(
            node.place,
            "`portLevelMtls` is empty",
            "leave it out, or name a port",
        );
    }
    let mut ports = BTreeMap::new();
    for (key, node) in entries {
        let mode = read_mutual_tls(node, &key.name, report);
        let port = Some(&key.name)
            .filter(|name| grammar::is_port(name))
            .and_then(|name| name.parse().ok());
        match port.filter(|port| *port != 0) {
            None => {
                let message = format!("`{}` is no port", key.name);
                report.invalid(key.place, message, "write a number from 1 to 65535");
            }
            Some(port) => {
                if ports.insert(port, mode).is_some() {
                    report.invalid(
                        key.place,
                        format!("port {port} occurs twice"),
                        "keep one of them",
                    );
                }
            }
        }
    }
    ports
}

#[cfg(test)]
mod tests;
