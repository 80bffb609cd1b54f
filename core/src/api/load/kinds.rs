//! Which kinds of resources there are, by group and version, and what each of them is to us.
//!
//! Istio's groups are known whole, so that nothing of them is skipped for a slip of the pen. Of Kubernetes'
//! own the core group and `apps` are: kubectl too knows no other kind in them. Any other group is somebody else's.

use super::reader::{Purpose, Report, closest};
use super::yaml::Place;
use super::{Cause, Severity};
use crate::api::object::Kind;

/// What a resource says of itself before it is read.
pub(super) struct Envelope<'n> {
    pub(super) group: &'n str,
    pub(super) version: &'n str,
    pub(super) kind: &'n str,
    pub(super) place: Place,
    pub(super) kind_place: Place,
    pub(super) version_place: Place,
}

/// What a kind is to us.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Read(Kind),
    /// Of Istio: no rules to judge it by, and nothing acts on it.
    Foreseen,
    /// Of Kubernetes: a cluster would get workloads or endpoints from it, a mesh here does not.
    Unread(Instead),
    /// It has nothing to do with a mesh.
    Foreign,
}

/// What does the work of a kind that is not read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Instead {
    Deployment,
    Selector,
}

/// Whose kinds count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Istio's, and the ConfigMap of its `meshConfig`.
    Istio,
    /// All that a mesh is made of.
    Mesh,
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
            (
                "AuthorizationPolicy",
                Standing::Read(Kind::AuthorizationPolicy),
            ),
            (
                "PeerAuthentication",
                Standing::Read(Kind::PeerAuthentication),
            ),
            (
                "RequestAuthentication",
                Standing::Read(Kind::RequestAuthentication),
            ),
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

/// Kinds of Kubernetes with their `apiVersion`.
const KUBERNETES: &[(&str, &str, Standing)] = &[
    ("v1", "ConfigMap", Standing::Read(Kind::ConfigMap)),
    ("v1", "Namespace", Standing::Read(Kind::Namespace)),
    ("v1", "Pod", Standing::Read(Kind::Pod)),
    ("v1", "Service", Standing::Read(Kind::Service)),
    ("v1", "ServiceAccount", Standing::Read(Kind::ServiceAccount)),
    ("apps/v1", "Deployment", Standing::Read(Kind::Deployment)),
    ("v1", "Endpoints", Standing::Unread(Instead::Selector)),
    (
        "v1",
        "ReplicationController",
        Standing::Unread(Instead::Deployment),
    ),
    (
        "apps/v1",
        "DaemonSet",
        Standing::Unread(Instead::Deployment),
    ),
    (
        "apps/v1",
        "ReplicaSet",
        Standing::Unread(Instead::Deployment),
    ),
    (
        "apps/v1",
        "StatefulSet",
        Standing::Unread(Instead::Deployment),
    ),
    ("batch/v1", "CronJob", Standing::Unread(Instead::Deployment)),
    ("batch/v1", "Job", Standing::Unread(Instead::Deployment)),
    (
        "discovery.k8s.io/v1",
        "EndpointSlice",
        Standing::Unread(Instead::Selector),
    ),
    ("v1", "Binding", Standing::Foreign),
    ("v1", "ComponentStatus", Standing::Foreign),
    ("v1", "Event", Standing::Foreign),
    ("v1", "LimitRange", Standing::Foreign),
    ("v1", "Node", Standing::Foreign),
    ("v1", "PersistentVolume", Standing::Foreign),
    ("v1", "PersistentVolumeClaim", Standing::Foreign),
    ("v1", "PodTemplate", Standing::Foreign),
    ("v1", "ResourceQuota", Standing::Foreign),
    ("v1", "Secret", Standing::Foreign),
    ("apps/v1", "ControllerRevision", Standing::Foreign),
];

/// `None`: the kind or its version is reported as wrong.
pub(super) fn standing(
    envelope: &Envelope<'_>,
    reach: Reach,
    report: &mut Report,
) -> Option<Standing> {
    let Some((group, versions, kinds)) = GROUPS.iter().find(|(group, ..)| *group == envelope.group)
    else {
        if !elsewhere(envelope, report) {
            return None;
        }
        return match reach {
            Reach::Mesh => of_kubernetes(envelope, report),
            Reach::Istio if envelope.api_version() == "v1" && envelope.kind == "ConfigMap" => {
                Some(Standing::Read(Kind::ConfigMap))
            }
            Reach::Istio => Some(Standing::Foreign),
        };
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
    Some(*standing)
}

/// A kind outside Istio's groups, which are dotted, as are those of all custom resources.
fn of_kubernetes(envelope: &Envelope<'_>, report: &mut Report) -> Option<Standing> {
    if envelope.group.contains('.') && !envelope.group.ends_with(".k8s.io") {
        return Some(Standing::Foreign);
    }
    let api_version = envelope.api_version();
    let row = KUBERNETES
        .iter()
        .find(|(_, kind, _)| *kind == envelope.kind);
    if let Some((expected, _, standing)) = row {
        if matches!(standing, Standing::Read(_)) && *expected != api_version {
            let message = format!("`{api_version}` is no `apiVersion` of `{}`", envelope.kind);
            report.invalid(
                envelope.version_place,
                message,
                format!("write `apiVersion: {expected}`"),
            );
            return None;
        }
        return Some(*standing);
    }
    if !matches!(envelope.group, "" | "apps") {
        return Some(Standing::Foreign);
    }
    let names: Vec<&str> = KUBERNETES.iter().map(|(_, kind, _)| *kind).collect();
    let hint = match closest(envelope.kind, &names) {
        Some(kind) => format!("did you mean `{kind}`?"),
        None => "look at `apiVersion`: custom kinds have a group with a dot".to_owned(),
    };
    let message = format!("`{api_version}` has no kind `{}`", envelope.kind);
    report.invalid(envelope.kind_place, message, hint);
    None
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
    pub(super) fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

/// Passes over what a mesh has no use for.
pub(super) fn skip(envelope: &Envelope<'_>, report: &mut Report) {
    let message = format!(
        "{} of `{}` is skipped",
        envelope.kind,
        envelope.api_version()
    );
    report.passed_over(
        envelope.place,
        message,
        "nothing here reads this kind; move it to a file of its own",
    );
}

/// Passes over what a mesh lacks then.
pub(super) fn leave_out(envelope: &Envelope<'_>, instead: Instead, report: &mut Report) {
    let (lacking, hint) = match instead {
        Instead::Deployment => (
            "its pods are missing from the mesh",
            "describe them by a Deployment or as Pods",
        ),
        Instead::Selector => (
            "a service has the pods that it selects and no other endpoints",
            "leave it out, and give the Service a `selector`",
        ),
    };
    let message = format!(
        "{} of `{}` is not read: {lacking}",
        envelope.kind,
        envelope.api_version()
    );
    report.passed_over(envelope.place, message, hint);
}

pub(super) fn not_judged(envelope: &Envelope<'_>, report: &mut Report) {
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
