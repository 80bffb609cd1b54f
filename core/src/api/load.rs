//! Reads YAML into typed resources, with findings.
//!
//! The way in for every file that holds Istio's resources: text to trees ([`yaml`]), trees to types ([`reader`] and a `read`
//! beside each type), all that is wrong at once. Opens no files; a caller brings texts and says what they are called.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::authorization_policy::AuthorizationPolicy;
pub use super::finding::{Cause, Finding, Severity};
use super::mesh_config::MeshConfig;
use super::meta::{Meta, Origin};
use super::peer_authentication::PeerAuthentication;
use reader::{Frame, Purpose, Report, closest};
use yaml::{Node, Place, Value};

pub mod grammar;
pub mod proto;
pub mod reader;
pub mod yaml;

/// Bytes of one text; what is larger is no configuration.
pub const TEXT_MAX: usize = 16 * 1024 * 1024;

/// One file as its reader found it.
#[derive(Clone, Debug)]
pub struct Text {
    /// How findings call it.
    pub name: Arc<str>,
    /// YAML or JSON, any number of documents.
    pub text: String,
}

/// What texts hold. Resources with an error of their own are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    pub authorization_policies: Vec<AuthorizationPolicy>,
    pub peer_authentications: Vec<PeerAuthentication>,
    /// From a `mesh:` or `meshConfig:` document, or the ConfigMap `istio`; `None`: Istio's defaults.
    pub mesh_config: Option<MeshConfig>,
    /// In the order of the texts and of their lines.
    pub findings: Vec<Finding>,
}

impl Loaded {
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(Finding::is_error)
    }

    fn counts(&self) -> [usize; 2] {
        [
            self.authorization_policies.len(),
            self.peer_authentications.len(),
        ]
    }

    fn truncate(&mut self, [authorization_policies, peer_authentications]: [usize; 2]) {
        self.authorization_policies.truncate(authorization_policies);
        self.peer_authentications.truncate(peer_authentications);
    }
}

/// Why nothing was loaded: every finding, warnings too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub findings: Vec<Finding>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, finding) in self.findings.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

/// Whether texts are valid Istio (S-170 to S-179), enforced here or not.
///
/// Kinds without rules to judge them by yield errors with [`Cause::NotJudged`].
pub fn validate(texts: &[Text], default_namespace: &str) -> Loaded {
    load(texts, default_namespace, Purpose::Validate)
}

/// Reads texts to act on them: everything they say is valid and enforced, or nothing is loaded.
///
/// A policy that is left out would let through what it forbids, so one error refuses all of them.
pub fn load_for_enforcement(texts: &[Text], default_namespace: &str) -> Result<Loaded, Refused> {
    let loaded = load(texts, default_namespace, Purpose::Enforce);
    if loaded.has_errors() {
        let findings = loaded.findings;
        return Err(Refused { findings });
    }
    Ok(loaded)
}

/// Reads one text that is a `meshConfig` and nothing else, to act on it.
pub fn load_mesh_config(text: &Text) -> Result<MeshConfig, Refused> {
    let mut report = Report::new(Arc::clone(&text.name), Purpose::Enforce);
    let config = read_embedded_mesh_config(&text.text, &mut report);
    match config {
        Some(config) if report.errors() == 0 => Ok(config),
        _ => Err(Refused {
            findings: report.into_findings(),
        }),
    }
}

fn load(texts: &[Text], default_namespace: &str, purpose: Purpose) -> Loaded {
    let mut loader = Loader {
        default_namespace,
        loaded: Loaded::default(),
        seen: BTreeMap::new(),
        mesh_config_origin: None,
    };
    for text in texts {
        let mut report = Report::new(Arc::clone(&text.name), purpose);
        loader.text(&text.text, &mut report);
        loader.loaded.findings.extend(report.into_findings());
    }
    loader.loaded
}

/// What is known of a kind by its group and name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Read,
    /// No rules to judge it by, and nothing acts on it.
    Foreseen,
}

/// A group, its versions, and its kinds.
type Group = (
    &'static str,
    &'static [&'static str],
    &'static [(&'static str, Standing)],
);

const GROUPS: &[Group] = &[
    (
        "security.istio.io",
        &["v1", "v1beta1"],
        &[
            ("AuthorizationPolicy", Standing::Read),
            ("PeerAuthentication", Standing::Read),
            ("RequestAuthentication", Standing::Foreseen),
        ],
    ),
    (
        "networking.istio.io",
        &["v1", "v1beta1", "v1alpha3"],
        &[
            ("DestinationRule", Standing::Foreseen),
            ("EnvoyFilter", Standing::Foreseen),
            ("Gateway", Standing::Foreseen),
            ("ProxyConfig", Standing::Foreseen),
            ("ServiceEntry", Standing::Foreseen),
            ("Sidecar", Standing::Foreseen),
            ("VirtualService", Standing::Foreseen),
            ("WorkloadEntry", Standing::Foreseen),
            ("WorkloadGroup", Standing::Foreseen),
        ],
    ),
    (
        "telemetry.istio.io",
        &["v1", "v1alpha1"],
        &[("Telemetry", Standing::Foreseen)],
    ),
    (
        "extensions.istio.io",
        &["v1alpha1"],
        &[("WasmPlugin", Standing::Foreseen)],
    ),
    (
        "authentication.istio.io",
        &["v1alpha1"],
        &[
            ("MeshPolicy", Standing::Foreseen),
            ("Policy", Standing::Foreseen),
        ],
    ),
    (
        "rbac.istio.io",
        &["v1alpha1"],
        &[
            ("AuthorizationPolicy", Standing::Foreseen),
            ("ClusterRbacConfig", Standing::Foreseen),
            ("RbacConfig", Standing::Foreseen),
            ("ServiceRole", Standing::Foreseen),
            ("ServiceRoleBinding", Standing::Foreseen),
        ],
    ),
    (
        "gateway.networking.k8s.io",
        &["v1", "v1beta1", "v1alpha3", "v1alpha2"],
        &[
            ("BackendTLSPolicy", Standing::Foreseen),
            ("GRPCRoute", Standing::Foreseen),
            ("Gateway", Standing::Foreseen),
            ("GatewayClass", Standing::Foreseen),
            ("HTTPRoute", Standing::Foreseen),
            ("ReferenceGrant", Standing::Foreseen),
            ("TCPRoute", Standing::Foreseen),
            ("TLSRoute", Standing::Foreseen),
            ("UDPRoute", Standing::Foreseen),
        ],
    ),
];

struct Loader<'a> {
    default_namespace: &'a str,
    loaded: Loaded,
    /// Kind, namespace and name of what was read, and where.
    seen: BTreeMap<(String, String, String), Origin>,
    mesh_config_origin: Option<Origin>,
}

/// The fields that every resource has.
struct Envelope<'n> {
    group: &'n str,
    version: &'n str,
    kind: &'n str,
    place: Place,
    kind_place: Place,
    version_place: Place,
}

impl Loader<'_> {
    fn text(&mut self, text: &str, report: &mut Report) {
        if text.len() > TEXT_MAX {
            let message = format!("the text has {} bytes, more than {TEXT_MAX}", text.len());
            report.invalid(Place { line: 1, column: 1 }, message, "split it into files");
            return;
        }
        for (lines, document) in yaml::documents(text) {
            report.frame(Frame::Below(lines));
            let (errors, loaded) = (report.errors(), self.loaded.counts());
            let root = read_tree(document, report);
            let whole = report.errors() == errors;
            if let Some(root) = root {
                self.resource(&root, report);
            }
            if !whole {
                self.loaded.truncate(loaded);
            }
        }
    }

    fn resource(&mut self, node: &Node, report: &mut Report) {
        let Some(entries) = report.map(node, "a document") else {
            return;
        };
        let find = |name: &str| {
            entries
                .iter()
                .find(|(key, _)| key.name == name)
                .map(|(_, node)| node)
        };
        let (api_version, kind) = (find("apiVersion"), find("kind"));
        if api_version.is_none() && kind.is_none() {
            self.bare_mesh_config(node, report);
            return;
        }
        let (Some(api_version), Some(kind)) = (api_version, kind) else {
            let missing = if kind.is_none() { "kind" } else { "apiVersion" };
            report.invalid(
                node.place,
                format!("the resource has no `{missing}`"),
                "name both `apiVersion` and `kind`",
            );
            return;
        };
        let version_text = report.text(api_version, "apiVersion");
        let (Some(version_text), Some(kind_text)) = (version_text, report.text(kind, "kind"))
        else {
            return;
        };
        let (group, version) = version_text.split_once('/').unwrap_or(("", version_text));
        let envelope = Envelope {
            group,
            version,
            kind: kind_text,
            place: node.place,
            kind_place: kind.place,
            version_place: api_version.place,
        };
        if let Some(items) = find("items").filter(|_| kind_text.ends_with("List")) {
            for item in report.list(items, "items").unwrap_or_default() {
                self.resource(item, report);
            }
            return;
        }
        match standing(&envelope, report) {
            Some(Some(standing)) => self.known(&envelope, standing, node, report),
            Some(None) if group.is_empty() && kind_text == "ConfigMap" => {
                self.config_map(node, &envelope, report)
            }
            Some(None) => skip(&envelope, report),
            None => {}
        }
    }

    fn known(
        &mut self,
        envelope: &Envelope<'_>,
        standing: Standing,
        node: &Node,
        report: &mut Report,
    ) {
        let Some(mut fields) = report.fields(node, envelope.kind) else {
            return;
        };
        for checked in ["apiVersion", "kind"] {
            fields.take(checked);
        }
        let spec = fields.take("spec");
        // What a controller wrote there is no wish of the author.
        fields.take("status");
        let meta = Meta::read(
            fields.take("metadata"),
            envelope.place,
            self.default_namespace,
            report,
        );
        let before = report.errors();
        fields.close(report);
        let Some(meta) = meta else {
            return;
        };
        self.note(envelope, &meta, report);
        match (standing, envelope.kind) {
            (Standing::Read, "AuthorizationPolicy") => {
                let policy = AuthorizationPolicy::read(meta, spec, envelope.place, report);
                self.loaded
                    .authorization_policies
                    .extend(policy.filter(|_| report.errors() == before));
            }
            (Standing::Read, "PeerAuthentication") => {
                let policy = PeerAuthentication::read(meta, spec, envelope.place, report);
                self.loaded
                    .peer_authentications
                    .extend(policy.filter(|_| report.errors() == before));
            }
            _ => {
                meta.refuse_dry_run(envelope.place, report);
                not_judged(envelope, report);
            }
        }
    }

    /// Two resources of one name are one too many: which of them counts would depend on who reads them.
    fn note(&mut self, envelope: &Envelope<'_>, meta: &Meta, report: &mut Report) {
        let kind = format!("{}/{}", envelope.group, envelope.kind);
        let key = (kind, meta.namespace.clone(), meta.name.clone());
        if let Some(first) = self.seen.get(&key) {
            let message = format!(
                "{} `{}/{}` is here twice",
                envelope.kind, meta.namespace, meta.name
            );
            report.invalid(envelope.place, message, format!("the first is at {first}"));
        } else {
            self.seen.insert(key, meta.origin.clone());
        }
    }

    /// A document `mesh: {…}` or `meshConfig: {…}`.
    fn bare_mesh_config(&mut self, node: &Node, report: &mut Report) {
        let Value::Map(entries) = &node.value else {
            return;
        };
        if let [(key, config)] = entries.as_slice()
            && matches!(key.name.as_str(), "mesh" | "meshConfig")
        {
            let config = MeshConfig::read(config, report);
            self.set_mesh_config(config, key.place, report);
            return;
        }
        let hint = "a resource names both; a `meshConfig` stands alone under the key `mesh`";
        report.invalid(
            node.place,
            "the document has neither `apiVersion` nor `kind`",
            hint,
        );
    }

    /// The ConfigMap that istiod reads its `meshConfig` from; others are nothing to us.
    fn config_map(&mut self, node: &Node, envelope: &Envelope<'_>, report: &mut Report) {
        let name = field(node, "metadata").and_then(|node| field(node, "name"));
        let is_mesh = name
            .is_some_and(|name| matches!(&name.value, Value::Text { text, .. } if text == "istio"));
        let Some(config) = field(node, "data")
            .and_then(|node| field(node, "mesh"))
            .filter(|_| is_mesh)
        else {
            skip(envelope, report);
            return;
        };
        let Some(text) = report.text(config, "mesh") else {
            return;
        };
        let origin = report.origin(config.place);
        let inner = Place {
            line: origin.line,
            column: origin.column,
        };
        let is_literal = matches!(config.value, Value::Text { literal: true, .. });
        let outer = report.frame(if is_literal {
            Frame::Inset(inner)
        } else {
            Frame::Point(inner)
        });
        let read = read_embedded_mesh_config(text, report);
        report.frame(outer);
        self.set_mesh_config(read, config.place, report);
    }

    fn set_mesh_config(&mut self, config: Option<MeshConfig>, place: Place, report: &mut Report) {
        if let Some(first) = &self.mesh_config_origin {
            report.invalid(
                place,
                "a second `meshConfig`",
                format!("the first is at {first}"),
            );
            return;
        }
        self.mesh_config_origin = Some(report.origin(place));
        self.loaded.mesh_config = config;
    }
}

/// The tree of one document; `None` if there is none or it cannot be read.
fn read_tree(text: &str, report: &mut Report) -> Option<Node> {
    match yaml::parse(text) {
        Err(error) => {
            report.add(
                error.place,
                Severity::Error,
                Cause::Invalid,
                error.message,
                error.hint.map(str::to_owned),
            );
            None
        }
        Ok(document) => {
            for key in &document.repeated {
                let message = format!("`{}` occurs twice in one map", key.name);
                report.invalid(key.place, message, "keep one of them");
            }
            document.root.filter(|root| root.value != Value::Null)
        }
    }
}

/// An empty text is a `meshConfig` without fields.
fn read_embedded_mesh_config(text: &str, report: &mut Report) -> Option<MeshConfig> {
    let before = report.errors();
    match read_tree(text, report) {
        Some(root) => MeshConfig::read(&root, report),
        None => (report.errors() == before).then(MeshConfig::default),
    }
}

fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    match &node.value {
        Value::Map(entries) => entries
            .iter()
            .find(|(key, _)| key.name == name)
            .map(|(_, node)| node),
        _ => None,
    }
}

/// What a kind is to us: `Some(None)`: nothing; `None`: it is reported as wrong.
fn standing(envelope: &Envelope<'_>, report: &mut Report) -> Option<Option<Standing>> {
    let Some((group, versions, kinds)) = GROUPS.iter().find(|(group, ..)| *group == envelope.group)
    else {
        return elsewhere(envelope, report).then_some(None);
    };
    let Some((_, standing)) = kinds.iter().find(|(kind, _)| *kind == envelope.kind) else {
        let names: Vec<&str> = kinds.iter().map(|(kind, _)| *kind).collect();
        let hint = match closest(envelope.kind, &names) {
            Some(kind) => format!("did you mean `{kind}`?"),
            None => format!("`{group}` has {}", names.join(", ")),
        };
        let message = format!("`{group}` has no kind `{}`", envelope.kind);
        report.invalid(envelope.kind_place, message, hint);
        return None;
    };
    if !versions.contains(&envelope.version) {
        let message = format!("`{group}` has no version `{}`", envelope.version);
        report.invalid(
            envelope.version_place,
            message,
            format!("take one of {}", versions.join(", ")),
        );
        return None;
    }
    Some(Some(*standing))
}

/// A group that is none of ours: whether its resource can be skipped. One that looks like ours cannot.
fn elsewhere(envelope: &Envelope<'_>, report: &mut Report) -> bool {
    let group = envelope.group;
    let groups: Vec<&str> = GROUPS.iter().map(|(group, ..)| *group).collect();
    let security_kind = GROUPS
        .iter()
        .filter(|(group, ..)| {
            matches!(
                *group,
                "security.istio.io" | "rbac.istio.io" | "authentication.istio.io"
            )
        })
        .find(|(_, _, kinds)| {
            kinds
                .iter()
                .any(|(kind, _)| kind.eq_ignore_ascii_case(envelope.kind))
        });
    let mistaken = if group.is_empty() {
        None
    } else {
        closest(group, &groups)
    };
    let known = match (security_kind, mistaken) {
        (Some((group, ..)), _)
            if *group == "security.istio.io" || group_is_istio(envelope.group) =>
        {
            Some(*group)
        }
        (_, Some(group)) => Some(group),
        _ => None,
    };
    let Some(known) = known else {
        return true;
    };
    let message = format!(
        "`{}` is no `apiVersion` of `{}`",
        envelope.api_version(),
        envelope.kind
    );
    let versions = GROUPS
        .iter()
        .find(|(group, ..)| *group == known)
        .map_or("", |(_, versions, _)| {
            versions.first().copied().unwrap_or_default()
        });
    report.invalid(
        envelope.version_place,
        message,
        format!("did you mean `{known}/{versions}`?"),
    );
    false
}

fn group_is_istio(group: &str) -> bool {
    group.is_empty() || group == "istio.io" || group.ends_with(".istio.io")
}

impl Envelope<'_> {
    fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

fn skip(envelope: &Envelope<'_>, report: &mut Report) {
    let message = format!(
        "{} of `{}` is skipped",
        envelope.kind,
        envelope.api_version()
    );
    report.doubtful(
        envelope.place,
        message,
        "nothing here reads this kind; move it to a file of its own",
    );
}

fn not_judged(envelope: &Envelope<'_>, report: &mut Report) {
    match report.purpose() {
        Purpose::Enforce => report.not_enforced(envelope.place, &format!("kind {}", envelope.kind)),
        Purpose::Validate => {
            let message = format!(
                "{} of `{}` cannot be judged yet",
                envelope.kind,
                envelope.api_version()
            );
            let hint = "only `apiVersion`, `kind` and `metadata` were looked at".to_owned();
            report.add(
                envelope.place,
                Severity::Error,
                Cause::NotJudged,
                message,
                Some(hint),
            );
        }
    }
}

#[cfg(test)]
mod tests;
