//! Names: what cluster DNS answers, and which workload a user means.

use std::fmt;
use std::net::IpAddr;

use super::mesh::{Mesh, PodFacts, ServiceFacts};

/// The domain of the cluster's DNS; it is not the trust domain.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// So many names are listed where one was not found.
const NEAREST: usize = 5;

/// Why a text names no workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadError {
    NotFound {
        name: String,
        /// Where alone it was looked for.
        namespace: Option<String>,
        /// The most similar first.
        nearest: Vec<String>,
    },
    Ambiguous {
        name: String,
        candidates: Vec<String>,
    },
}

impl Mesh {
    /// The addresses of a service, as a pod of `namespace` gets them: `name`, `name.ns`, `name.ns.svc` and the whole name, in
    /// any case. A dot at the end says that it is whole. A headless service has those of its pods, ascending; `None`: no such
    /// name.
    pub fn resolve(&self, name: &str, namespace: &str) -> Option<Vec<IpAddr>> {
        let name = name.to_ascii_lowercase();
        let service = match name.strip_suffix('.') {
            Some(whole) => self.service_of(whole),
            // The search list of a pod's resolv.conf; the name as it is comes last.
            None => [
                format!("{name}.{namespace}.svc.{CLUSTER_DOMAIN}"),
                format!("{name}.svc.{CLUSTER_DOMAIN}"),
                format!("{name}.{CLUSTER_DOMAIN}"),
                name,
            ]
            .iter()
            .find_map(|whole| self.service_of(whole)),
        }?;
        if let Some(ip) = service.cluster_ip {
            return Some(vec![ip]);
        }
        let mut addresses: Vec<IpAddr> = service
            .pods
            .iter()
            .filter_map(|pod| self.pod(pod))
            .map(|pod| IpAddr::V4(pod.address))
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        Some(addresses)
    }

    fn service_of(&self, whole: &str) -> Option<&ServiceFacts> {
        let rest = whole.strip_suffix(CLUSTER_DOMAIN)?.strip_suffix(".svc.")?;
        let (name, namespace) = rest.split_once('.')?;
        self.service(namespace, name)
    }

    /// The pod that a user means: `NAME`, `pod/NAME`, `deploy/NAME` or `deployment/NAME`, each also with `.NAMESPACE` behind
    /// it. Of a Deployment it is the first pod.
    ///
    /// Without a namespace `default` comes first, and then any other if it is the only one.
    pub fn find_workload(
        &self,
        text: &str,
        namespace: Option<&str>,
    ) -> Result<&PodFacts, WorkloadError> {
        let (form, name) = match text.split_once('/') {
            None => (Form::Any, text),
            Some(("pod" | "pods" | "po", name)) => (Form::Pod, name),
            Some((
                "deploy" | "deployment" | "deployments" | "deployment.apps" | "deployments.apps",
                name,
            )) => (Form::Deployment, name),
            Some(_) => return Err(self.not_found(text, namespace)),
        };
        let spaces = match namespace {
            Some(namespace) => vec![Some(namespace)],
            None => vec![Some("default"), None],
        };
        // A dot may belong to the name of a pod, or part it from its namespace.
        let mut readings: Vec<(&str, Option<&str>)> =
            spaces.into_iter().map(|space| (name, space)).collect();
        if let Some((name, space)) = name.rsplit_once('.')
            && namespace.is_none_or(|namespace| namespace == space)
        {
            readings.push((name, Some(space)));
        }
        for (name, space) in readings {
            let found = self.named(form, name, space);
            match found.as_slice() {
                [] => {}
                [(pod, _)] => return Ok(pod),
                several => {
                    return Err(WorkloadError::Ambiguous {
                        name: text.to_owned(),
                        candidates: several.iter().map(|(_, name)| name.clone()).collect(),
                    });
                }
            }
        }
        Err(self.not_found(text, namespace))
    }

    /// All workloads of a name, in one namespace or in all, and what to call them.
    fn named(&self, form: Form, name: &str, namespace: Option<&str>) -> Vec<(&PodFacts, String)> {
        let mut found: Vec<(&PodFacts, String)> = Vec::new();
        for (pod, called) in self.workloads() {
            let (kind, own) = called;
            let fits = form == Form::Any || form == kind;
            if fits && own == name && namespace.is_none_or(|n| n == pod.namespace) {
                found.push((pod, display(kind, own, &pod.namespace)));
            }
        }
        found
    }

    /// Every pod by its own name, and the first pod of each Deployment by the Deployment's.
    fn workloads(&self) -> impl Iterator<Item = (&PodFacts, (Form, &str))> {
        self.pods().flat_map(|pod| {
            let deployment = pod.owner.as_deref().filter(|owner| {
                // Pods come in the order of letters, so `web-0` is the first.
                pod.name
                    .strip_prefix(owner)
                    .is_some_and(|rest| rest == "-0")
            });
            let own = (pod, (Form::Pod, pod.name.as_str()));
            deployment
                .map(|name| (pod, (Form::Deployment, name)))
                .into_iter()
                .chain([own])
        })
    }

    fn not_found(&self, text: &str, namespace: Option<&str>) -> WorkloadError {
        let wanted = text.split_once('/').map_or(text, |(_, name)| name);
        let mut near: Vec<(usize, String)> = self
            .workloads()
            .filter(|(pod, _)| pod.owner.is_none() || pod.name.ends_with("-0"))
            .map(|(pod, (kind, name))| {
                let away = namespace.is_some_and(|n| n != pod.namespace);
                let whole = format!("{name}.{}", pod.namespace);
                let edits = distance(wanted, name).min(distance(wanted, &whole));
                // The same name elsewhere is nearer than another name here.
                let edits = 4 * edits + 2 * usize::from(kind == Form::Pod) + usize::from(away);
                (edits, display(kind, name, &pod.namespace))
            })
            .collect();
        near.sort();
        near.truncate(NEAREST);
        WorkloadError::NotFound {
            name: text.to_owned(),
            namespace: namespace.map(str::to_owned),
            nearest: near.into_iter().map(|(_, name)| name).collect(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Any,
    Pod,
    Deployment,
}

fn display(form: Form, name: &str, namespace: &str) -> String {
    match form {
        Form::Deployment => format!("deploy/{name}.{namespace}"),
        Form::Any | Form::Pod => format!("pod/{name}.{namespace}"),
    }
}

/// The most similar of `names` to `wanted`, the best first; a few. Their first labels count as names of their own.
pub fn nearest(wanted: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let mut near: Vec<(usize, String)> = names
        .map(|name| {
            let first = name.split('.').next().unwrap_or_default();
            let edits = distance(wanted, &name).min(distance(wanted, first));
            (edits, name)
        })
        .collect();
    near.sort();
    near.truncate(NEAREST);
    near.into_iter().map(|(_, name)| name).collect()
}

/// Characters to insert, delete or replace to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (a, begin) in from.chars().zip(1..) {
        let mut left = begin;
        let mut next = vec![begin];
        for (b, pair) in to.iter().zip(row.windows(2)) {
            if let &[diagonal, above] = pair {
                left = (diagonal + usize::from(a != *b))
                    .min(above + 1)
                    .min(left + 1);
                next.push(left);
            }
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

impl fmt::Display for WorkloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound {
                name,
                namespace,
                nearest,
            } => {
                write!(f, "no workload `{name}`")?;
                if let Some(namespace) = namespace {
                    write!(f, " in namespace `{namespace}`")?;
                }
                if nearest.is_empty() {
                    return f.write_str("; the mesh has none");
                }
                write!(f, "; nearest: {}", nearest.join(", "))
            }
            Self::Ambiguous { name, candidates } => {
                write!(f, "`{name}` may be any of these: {}", candidates.join(", "))
            }
        }
    }
}

impl std::error::Error for WorkloadError {}

#[cfg(test)]
mod tests;
