//! The state of a mesh: its objects, what they come to, and what proxies get of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::addresses::Addresses;
use super::distribute::Distribution;
pub use super::distribute::{SnapshotError, Wiring};
pub use super::mesh::PodKey;
use super::mesh::{Mesh, PodFacts, ServiceFacts, ServicePortFacts, Standing};
use super::store::{Change, NotFoundError, Outcome, Store};
use super::{doubt, refusal};
use crate::api::finding::Finding;
use crate::api::load::Refused;
use crate::api::mesh_config::MeshConfig;
use crate::api::meta::Origin;
use crate::api::object::{Key, Kind, Object};
use crate::authn;
use crate::authz::Layer;
use crate::authz::compile::compile;
use crate::clock::UnixTime;
use crate::snapshot::Snapshot;
use crate::snapshot::compile::CompileError;
use crate::snapshot::mtls::{Modes, Plain};
use crate::spiffe::{SpiffeId, TrustDomain, istio_identity};

/// Where istiod reads its configuration, whatever the root namespace is called.
const CONFIG_NAMESPACE: &str = "istio-system";

/// Holds one version of a mesh. A change is taken whole, or the version before stays.
#[derive(Clone, Debug)]
pub struct Plane {
    store: Store,
    addresses: Addresses,
    mesh: Arc<Mesh>,
    config: MeshConfig,
    warnings: Vec<Finding>,
    version: u64,
    distribution: Distribution,
    /// Pods stay as they were made.
    keeps_pods: bool,
}

/// Why a deletion changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteError {
    #[error(transparent)]
    NotFound(#[from] NotFoundError),
    /// What is left makes no mesh.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Default for Plane {
    fn default() -> Self {
        Self::new()
    }
}

impl Plane {
    /// A mesh without objects, with Istio's defaults. Its version is 1.
    pub fn new() -> Self {
        let config = MeshConfig::default();
        Self {
            store: Store::default(),
            addresses: Addresses::default(),
            mesh: Arc::default(),
            distribution: Distribution::empty(1, config.clone()),
            config,
            warnings: Vec::new(),
            version: 1,
            keeps_pods: false,
        }
    }

    /// From now on pods stay as they were made until they are [renewed](Self::renew), as in a cluster: what becomes of the
    /// template of their Deployment, or of labels that ask for a sidecar, is for those that are made then.
    pub fn keep_pods(&mut self) {
        self.keeps_pods = true;
    }

    /// Makes pods of Deployments anew: of today's template, with a sidecar if today's labels say so, at another address
    /// than before. Others, and what is no pod, are left alone. On an error nothing has changed.
    pub fn renew(&mut self, pods: &[PodKey]) -> Result<(), Refused> {
        let is_owned = |key: &&PodKey| self.mesh.pod(key).is_some_and(|pod| pod.owner.is_some());
        let pods: Vec<PodKey> = pods.iter().filter(is_owned).cloned().collect();
        let mut addresses = self.addresses.clone();
        for PodKey { namespace, name } in &pods {
            addresses = addresses.without_pod(&(namespace.clone(), name.clone()));
        }
        self.adopt(self.store.clone(), &addresses, &pods)
    }

    /// Whether a pod of a Deployment is of another template than the Deployment has now.
    pub fn is_outdated(&self, pod: &PodFacts) -> bool {
        let Some(owner) = &pod.owner else {
            return false;
        };
        let key = Key {
            kind: Kind::Deployment,
            namespace: pod.namespace.clone(),
            name: owner.clone(),
        };
        let Some(Object::Deployment(now)) = self.store.get(&key) else {
            return false;
        };
        (&now.labels, &now.annotations) != (&pod.labels, &pod.annotations)
            || now.spec.service_account != pod.service_account
            || now.spec.containers != pod.containers
    }

    /// As [`new`](Self::new), with pods in the `size` addresses from `first`: for meshes that share one host.
    pub fn with_pods_in(first: Ipv4Addr, size: u32) -> Self {
        Self {
            addresses: Addresses::with_pods_in(first, size),
            ..Self::new()
        }
    }

    /// Takes objects in, as `kubectl apply` does; answers in their order. On an error nothing has changed, and every
    /// finding is said, warnings too.
    ///
    /// Their order does not matter. A namespace and a service account that an object names have to be there, or come along.
    pub fn apply(&mut self, objects: Vec<Object>, now: UnixTime) -> Result<Vec<Outcome>, Refused> {
        let mut store = self.store.clone();
        let outcomes = store.apply(objects, now);
        let changed = |outcome: &&Outcome| outcome.change != Change::Unchanged;
        let findings: Vec<Finding> = outcomes
            .iter()
            .filter(changed)
            .filter_map(|outcome| store.get(&outcome.key))
            .filter_map(|object| admit(object, &store))
            .collect();
        if !findings.is_empty() {
            return Err(refused(findings));
        }
        if outcomes.iter().any(|outcome| changed(&outcome)) {
            self.adopt(store, &self.addresses.clone(), &[])?;
        }
        Ok(outcomes)
    }

    /// Takes objects out, as `kubectl delete` does; a namespace goes with all that lives in it. On an error nothing has
    /// changed.
    pub fn delete(&mut self, keys: &[Key]) -> Result<Vec<Outcome>, DeleteError> {
        let mut store = self.store.clone();
        let outcomes = store.delete(keys)?;
        if !outcomes.is_empty() {
            self.adopt(store, &self.addresses.clone(), &[])?;
        }
        Ok(outcomes)
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn mesh(&self) -> &Arc<Mesh> {
        &self.mesh
    }

    /// From the ConfigMap `istio` of the namespace `istio-system`.
    pub fn mesh_config(&self) -> &MeshConfig {
        &self.config
    }

    /// Grows with every change of an object, also one that no proxy sees anything of.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What of the objects hardly does what was meant, in the order of files and lines.
    pub fn warnings(&self) -> &[Finding] {
        &self.warnings
    }

    /// What the proxy of `pod` decides by from now on.
    pub fn snapshot(
        &mut self,
        pod: &PodKey,
        wiring: &Wiring,
    ) -> Result<Arc<Snapshot>, SnapshotError> {
        self.distribution.snapshot(pod, wiring)
    }

    /// The modes of a pod's ports (S-20 to S-23); `None`: no such pod.
    pub fn modes(&self, pod: &PodKey) -> Option<&Modes> {
        self.distribution.modes(pod)
    }

    /// The endpoints of a service's port, and why clients with a sidecar speak plaintext to each; `None`: mutual TLS.
    pub fn auto_mtls(
        &self,
        service: &ServiceFacts,
        port: &ServicePortFacts,
    ) -> Vec<(SocketAddr, Option<Plain>)> {
        self.distribution.auto_mtls(service, port)
    }

    /// Who a pod is in its certificate (S-86), sidecar or not; `None`: no such pod.
    pub fn identity(&self, pod: &PodKey) -> Option<SpiffeId> {
        let pod = self.mesh.pod(pod)?;
        let domain = &self.config.trust_domain;
        istio_identity(domain, &pod.namespace, Some(&pod.service_account)).ok()
    }

    /// `renewed`: pods that are made anew although they are kept else.
    fn adopt(
        &mut self,
        store: Store,
        addresses: &Addresses,
        renewed: &[PodKey],
    ) -> Result<(), Refused> {
        let standing = Standing {
            mesh: self.keeps_pods.then_some(&*self.mesh),
            but: renewed,
        };
        let built = Mesh::build_beside(&store, addresses, &standing);
        let (mesh, addresses) = built.map_err(refused)?;
        let mut warnings = mesh.warnings().to_vec();
        let mut config = (MeshConfig::default(), None);
        for (meta, read) in store.mesh_configs() {
            if meta.namespace == CONFIG_NAMESPACE {
                config = (read.clone(), Some(&meta.origin));
            } else {
                let message = format!(
                    "the ConfigMap `istio` of namespace `{}` configures nothing",
                    meta.namespace
                );
                let hint = format!("put it into `{CONFIG_NAMESPACE}`");
                warnings.push(doubt(&meta.origin, message, hint));
            }
        }
        let (config, origin) = config;
        check_config(&config, origin)?;
        check_identities(&mesh, &config)?;
        warnings.extend(rule_warnings(&store, &config));
        warnings.sort_by(|a, b| a.origin.cmp(&b.origin));
        let version = self.version + 1;
        let mesh = Arc::new(mesh);
        let distribution = Distribution::new(version, Arc::clone(&mesh), config.clone(), &store)
            .map_err(|error| config_refused(error, origin))?;
        *self = Self {
            store,
            addresses,
            mesh,
            config,
            warnings,
            version,
            distribution,
            keeps_pods: self.keeps_pods,
        };
        Ok(())
    }
}

fn refused(mut findings: Vec<Finding>) -> Refused {
    findings.sort_by(|a, b| a.origin.cmp(&b.origin));
    Refused { findings }
}

/// What an API server asks of an object when it comes or changes: that what it names is there.
fn admit(object: &Object, store: &Store) -> Option<Finding> {
    let meta = object.meta();
    let namespace = &meta.namespace;
    if !namespace.is_empty() && !store.has_namespace(namespace) {
        let message = format!("namespaces \"{namespace}\" not found");
        let hint = format!("add a document of kind Namespace named `{namespace}`");
        return Some(refusal(&meta.origin, message, hint));
    }
    let account = match object {
        Object::Deployment(deployment) => &deployment.spec.service_account,
        Object::Pod(pod) => &pod.spec.service_account,
        _ => return None,
    };
    (!store.has_service_account(namespace, account)).then(|| {
        let message = format!("serviceaccounts \"{account}\" not found in `{namespace}`");
        let hint = format!("add a document of kind ServiceAccount named `{account}`");
        refusal(&meta.origin, message, hint)
    })
}

fn check_config(config: &MeshConfig, origin: Option<&Origin>) -> Result<(), Refused> {
    for domain in std::iter::once(&config.trust_domain).chain(&config.trust_domain_aliases) {
        if TrustDomain::parse(domain).is_err() {
            let error = CompileError::TrustDomain(domain.clone());
            return Err(config_refused(error, origin));
        }
    }
    Ok(())
}

fn config_refused(error: CompileError, origin: Option<&Origin>) -> Refused {
    let nowhere = Origin {
        file: "meshConfig".into(),
        line: 1,
        column: 1,
    };
    let origin = origin.unwrap_or(&nowhere);
    refused(vec![refusal(
        origin,
        error.to_string(),
        "correct `meshConfig`",
    )])
}

/// Every pod can be given a certificate.
fn check_identities(mesh: &Mesh, config: &MeshConfig) -> Result<(), Refused> {
    let findings: Vec<Finding> = mesh
        .pods()
        .filter_map(|pod| {
            let account = &pod.service_account;
            let id = istio_identity(&config.trust_domain, &pod.namespace, Some(account));
            let error = id.err()?;
            let message = format!("service account `{account}` makes no identity: {error}");
            Some(refusal(&pod.origin, message, "rename the service account"))
        })
        .collect();
    if findings.is_empty() {
        Ok(())
    } else {
        Err(refused(findings))
    }
}

/// Rules that are stricter than they were written, because something of them could not be compiled.
fn rule_warnings(store: &Store, config: &MeshConfig) -> Vec<Finding> {
    let mut warnings = Vec::new();
    for policy in store.authorization_policies() {
        for finding in compile(&[policy], config, Layer::Http).findings() {
            let message = format!("{}: {}", finding.rule, finding.problem);
            let hint = "until it is corrected the rule denies more, or allows less";
            warnings.push(doubt(finding.rule.origin(), message, hint));
        }
    }
    warnings.extend(authn::warnings(store.request_authentications()));
    warnings
}

#[cfg(test)]
mod tests;
