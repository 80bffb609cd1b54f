//! From documents to objects: takes lists apart, tells kinds, names and repetitions, and hands each resource to its reader.

use std::collections::BTreeMap;

use super::kinds::{Envelope, Reach, Standing, leave_out, not_judged, skip, standing};
use super::reader::{Frame, Report};
use super::yaml::{self, Node, Place, Value};
use super::{TEXT_MAX, read_embedded_mesh_config, read_tree};
use crate::api::authorization_policy::AuthorizationPolicy;
use crate::api::kube::{Deployment, Namespace, Pod, Service, ServiceAccount};
use crate::api::mesh_config::MeshConfig;
use crate::api::meta::{Meta, Origin};
use crate::api::object::{Key, Kind, Object};
use crate::api::peer_authentication::PeerAuthentication;
use crate::api::request_authentication::RequestAuthentication;

/// The object that holds the `meshConfig`.
const MESH_CONFIG_NAME: &str = "istio";
/// Where istiod looks for it.
const MESH_CONFIG_NAMESPACE: &str = "istio-system";

/// What is wanted of the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Istio's resources; Kubernetes' are somebody else's.
    Policies,
    /// All that a mesh is made of.
    Objects,
    /// What these are called.
    Keys,
}

pub(super) struct Loader<'a> {
    goal: Goal,
    default_namespace: &'a str,
    pub(super) objects: Vec<Object>,
    pub(super) keys: Vec<Key>,
    /// Kind, namespace and name of what was read, and where.
    seen: BTreeMap<(String, String, String), Origin>,
    mesh_config_origin: Option<Origin>,
}

/// `apiVersion` and `kind` of the items of a typed list that leave them out, as API servers do.
#[derive(Clone, Copy)]
struct ItemKind<'n> {
    api_version: &'n str,
    kind: &'n str,
}

impl<'a> Loader<'a> {
    pub(super) fn new(goal: Goal, default_namespace: &'a str) -> Self {
        Self {
            goal,
            default_namespace,
            objects: Vec::new(),
            keys: Vec::new(),
            seen: BTreeMap::new(),
            mesh_config_origin: None,
        }
    }

    pub(super) fn text(&mut self, text: &str, report: &mut Report) {
        if text.len() > TEXT_MAX {
            let message = format!("the text has {} bytes, more than {TEXT_MAX}", text.len());
            report.invalid(Place { line: 1, column: 1 }, message, "split it into files");
            return;
        }
        for (lines, document) in yaml::documents(text) {
            report.frame(Frame::Below(lines));
            let (errors, loaded) = (report.errors(), self.objects.len());
            let root = read_tree(document, report);
            let whole = report.errors() == errors;
            if let Some(root) = root {
                self.resource(&root, None, report);
            }
            if !whole {
                self.objects.truncate(loaded);
            }
        }
    }

    fn resource(&mut self, node: &Node, item: Option<ItemKind<'_>>, report: &mut Report) {
        if report.map(node, "a document").is_none() {
            return;
        }
        let (api_version, kind) = (node.field("apiVersion"), node.field("kind"));
        let (version_text, kind_text) = match (api_version, kind, item) {
            (None, None, Some(item)) => (item.api_version, item.kind),
            (None, None, None) => {
                self.bare_mesh_config(node, report);
                return;
            }
            (Some(version), Some(kind), _) => {
                let version = report.text(version, "apiVersion");
                let (Some(version), Some(kind)) = (version, report.text(kind, "kind")) else {
                    return;
                };
                (version, kind)
            }
            (Some(_), None, _) | (None, Some(_), _) => {
                let missing = if kind.is_none() { "kind" } else { "apiVersion" };
                report.invalid(
                    node.place,
                    format!("the resource has no `{missing}`"),
                    "name both `apiVersion` and `kind`",
                );
                return;
            }
        };
        if let Some(item_kind) = kind_text.strip_suffix("List")
            && let Some(items) = node.field("items")
        {
            let item = (!item_kind.is_empty()).then_some(ItemKind {
                api_version: version_text,
                kind: item_kind,
            });
            for node in report.list(items, "items").unwrap_or_default() {
                self.resource(node, item, report);
            }
            return;
        }
        let (group, version) = version_text.split_once('/').unwrap_or(("", version_text));
        let envelope = Envelope {
            group,
            version,
            kind: kind_text,
            place: node.place,
            kind_place: kind.map_or(node.place, |kind| kind.place),
            version_place: api_version.map_or(node.place, |version| version.place),
        };
        let reach = match self.goal {
            Goal::Policies => Reach::Istio,
            Goal::Objects | Goal::Keys => Reach::Mesh,
        };
        let Some(standing) = standing(&envelope, reach, report) else {
            return;
        };
        match (self.goal, standing) {
            (Goal::Keys, Standing::Read(kind)) => self.key(&envelope, kind, node, report),
            (Goal::Keys, Standing::Foreseen) => no_part_of_a_mesh(&envelope, report),
            (_, Standing::Read(Kind::ConfigMap)) => self.config_map(&envelope, node, report),
            (
                _,
                Standing::Read(
                    Kind::AuthorizationPolicy
                    | Kind::PeerAuthentication
                    | Kind::RequestAuthentication,
                )
                | Standing::Foreseen,
            ) => self.of_istio(&envelope, standing, node, report),
            (
                _,
                Standing::Read(
                    kind @ (Kind::Deployment
                    | Kind::Namespace
                    | Kind::Pod
                    | Kind::Service
                    | Kind::ServiceAccount),
                ),
            ) => self.of_kubernetes(&envelope, kind, node, report),
            (_, Standing::Unread(instead)) => leave_out(&envelope, instead, report),
            (_, Standing::Foreign) => skip(&envelope, report),
        }
    }

    fn of_istio(
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
        let object = match standing {
            Standing::Read(Kind::AuthorizationPolicy) => {
                AuthorizationPolicy::read(meta, spec, envelope.place, report)
                    .map(Object::AuthorizationPolicy)
            }
            Standing::Read(Kind::PeerAuthentication) => {
                PeerAuthentication::read(meta, spec, envelope.place, report)
                    .map(Object::PeerAuthentication)
            }
            Standing::Read(Kind::RequestAuthentication) => {
                RequestAuthentication::read(meta, spec, envelope.place, report)
                    .map(Object::RequestAuthentication)
            }
            Standing::Read(_) | Standing::Foreseen | Standing::Unread(_) | Standing::Foreign => {
                meta.refuse_dry_run(envelope.place, report);
                not_judged(envelope, report);
                None
            }
        };
        self.objects
            .extend(object.filter(|_| report.errors() == before));
    }

    fn of_kubernetes(
        &mut self,
        envelope: &Envelope<'_>,
        kind: Kind,
        node: &Node,
        report: &mut Report,
    ) {
        let before = report.errors();
        let Some(meta) = self.meta(envelope, kind, node, report) else {
            return;
        };
        self.note(envelope, &meta, report);
        let object = match kind {
            Kind::Deployment => Deployment::read(meta, node, report).map(Object::Deployment),
            Kind::Namespace => Namespace::read(meta, node, report).map(Object::Namespace),
            Kind::Pod => Pod::read(meta, node, report).map(Object::Pod),
            Kind::Service => Service::read(meta, node, report).map(Object::Service),
            Kind::ServiceAccount => Some(Object::ServiceAccount(ServiceAccount { meta })),
            Kind::AuthorizationPolicy
            | Kind::ConfigMap
            | Kind::PeerAuthentication
            | Kind::RequestAuthentication => None,
        };
        self.objects
            .extend(object.filter(|_| report.errors() == before));
    }

    /// `metadata` of a kind of Kubernetes, or of any kind that is only to be named.
    fn meta(
        &self,
        envelope: &Envelope<'_>,
        kind: Kind,
        node: &Node,
        report: &mut Report,
    ) -> Option<Meta> {
        let default_namespace = (kind != Kind::Namespace).then_some(self.default_namespace);
        Meta::read_lax(
            node.field("metadata"),
            envelope.place,
            default_namespace,
            report,
        )
    }

    fn key(&mut self, envelope: &Envelope<'_>, kind: Kind, node: &Node, report: &mut Report) {
        let Some(meta) = self.meta(envelope, kind, node, report) else {
            return;
        };
        if kind == Kind::ConfigMap {
            if meta.name == MESH_CONFIG_NAME {
                self.set_mesh_config(meta, Some(MeshConfig::default()), envelope.place, report);
            } else {
                skip(envelope, report);
            }
            return;
        }
        self.note(envelope, &meta, report);
        self.keys.push(Key {
            kind,
            namespace: meta.namespace,
            name: meta.name,
        });
    }

    /// Two resources of one name are one too many: which of them counts would depend on who reads them.
    fn note(&mut self, envelope: &Envelope<'_>, meta: &Meta, report: &mut Report) {
        let kind = format!("{}/{}", envelope.group, envelope.kind);
        let key = (kind, meta.namespace.clone(), meta.name.clone());
        if let Some(first) = self.seen.get(&key) {
            let name = if meta.namespace.is_empty() {
                meta.name.clone()
            } else {
                format!("{}/{}", meta.namespace, meta.name)
            };
            let message = format!("{} `{name}` is here twice", envelope.kind);
            report.invalid(envelope.place, message, format!("the first is at {first}"));
        } else {
            self.seen.insert(key, meta.origin.clone());
        }
    }

    /// A document `mesh: {…}` or `meshConfig: {…}`: as if the ConfigMap that istiod reads were there.
    fn bare_mesh_config(&mut self, node: &Node, report: &mut Report) {
        let Value::Map(entries) = &node.value else {
            return;
        };
        if let [(key, config)] = entries.as_slice()
            && matches!(key.name.as_str(), "mesh" | "meshConfig")
        {
            let meta = Meta {
                name: MESH_CONFIG_NAME.to_owned(),
                namespace: MESH_CONFIG_NAMESPACE.to_owned(),
                created: 0,
                annotations: BTreeMap::new(),
                labels: BTreeMap::new(),
                origin: report.origin(node.place),
            };
            let config = match self.goal {
                Goal::Keys => Some(MeshConfig::default()),
                Goal::Policies | Goal::Objects => MeshConfig::read(config, report),
            };
            self.set_mesh_config(meta, config, key.place, report);
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
    fn config_map(&mut self, envelope: &Envelope<'_>, node: &Node, report: &mut Report) {
        let name = node.field("metadata").and_then(|node| node.field("name"));
        let is_mesh = name.is_some_and(
            |name| matches!(&name.value, Value::Text { text, .. } if text == MESH_CONFIG_NAME),
        );
        let Some(config) = node
            .field("data")
            .and_then(|node| node.field("mesh"))
            .filter(|_| is_mesh)
        else {
            skip(envelope, report);
            return;
        };
        let meta = self.meta(envelope, Kind::ConfigMap, node, report);
        let (Some(meta), Some(text)) = (meta, report.text(config, "mesh")) else {
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
        self.set_mesh_config(meta, read, config.place, report);
    }

    fn set_mesh_config(
        &mut self,
        meta: Meta,
        config: Option<MeshConfig>,
        place: Place,
        report: &mut Report,
    ) {
        if let Some(first) = &self.mesh_config_origin {
            report.invalid(
                place,
                "a second `meshConfig`",
                format!("the first is at {first}"),
            );
            return;
        }
        self.mesh_config_origin = Some(report.origin(place));
        if let Some(config) = config {
            let object = Object::MeshConfig(meta, config);
            match self.goal {
                Goal::Keys => self.keys.push(object.key()),
                Goal::Policies | Goal::Objects => self.objects.push(object),
            }
        }
    }
}

fn no_part_of_a_mesh(envelope: &Envelope<'_>, report: &mut Report) {
    let message = format!(
        "{} of `{}` is no part of a mesh",
        envelope.kind,
        envelope.api_version()
    );
    let hint = "a mesh holds AuthorizationPolicy, Deployment, Namespace, PeerAuthentication, Pod, RequestAuthentication, Service, ServiceAccount and the ConfigMap `istio`";
    report.invalid(envelope.place, message, hint);
}

#[cfg(test)]
mod tests;
