//! Policies as texts: read, and asked what they come to.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshward_core::accept::Mode;
use meshward_core::api::authorization_policy::AuthorizationPolicy;
use meshward_core::api::finding::Finding;
use meshward_core::api::load::{Text, grammar, load_for_enforcement};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::peer_authentication::{self, PeerAuthentication};
use meshward_core::api::request_authentication::RequestAuthentication;
use meshward_core::authn;
use meshward_core::snapshot::mtls::{Modes, effective_modes};
use meshward_core::snapshot::select;
use pyo3::prelude::*;

use crate::MeshwardError;
use crate::convert::Named;

/// Istio's resources from one text of YAML or JSON: AuthorizationPolicy, PeerAuthentication,
/// RequestAuthentication, and the `istio` ConfigMap with its meshConfig. Which workloads they concern is asked for each workload anew, so one `Policies` serves a whole mesh.
///
/// `namespace` is that of resources that name none, `file` what findings call the text. What is not valid is an error, and
/// so is what is valid but not enforced.
#[pyclass(module = "meshward", frozen)]
pub(crate) struct Policies {
    pub(crate) authorization_policies: Arc<Vec<AuthorizationPolicy>>,
    pub(crate) peer_authentications: Arc<Vec<PeerAuthentication>>,
    pub(crate) request_authentications: Arc<Vec<RequestAuthentication>>,
    pub(crate) mesh: Option<MeshConfig>,
    /// What is allowed and probably not meant, with `file:line:column`.
    #[pyo3(get)]
    pub(crate) warnings: Vec<String>,
}

#[pymethods]
impl Policies {
    #[new]
    #[pyo3(signature = (yaml = "", *, namespace = "default", file = "policies.yaml"))]
    pub(crate) fn new(yaml: &str, namespace: &str, file: &str) -> PyResult<Self> {
        check_namespace(namespace)?;
        let text = Text {
            name: file.into(),
            text: yaml.to_owned(),
        };
        let loaded = load_for_enforcement(&[text], namespace)
            .map_err(|refused| MeshwardError::new_err(refused.to_string()))?;
        let tokens = authn::warnings(&loaded.request_authentications);
        let warnings = loaded.findings.iter().chain(&tokens);
        Ok(Self {
            warnings: warnings.map(Finding::to_string).collect(),
            authorization_policies: Arc::new(loaded.authorization_policies),
            peer_authentications: Arc::new(loaded.peer_authentications),
            request_authentications: Arc::new(loaded.request_authentications),
            mesh: loaded.mesh_config,
        })
    }

    /// The mode of mutual TLS that PeerAuthentication gives to `port` of a workload: STRICT, PERMISSIVE or DISABLE (S-20 to
    /// S-23). A client that has to choose between TLS and plain text asks this of the workload that it calls (S-60).
    #[pyo3(signature = (port, *, namespace = "default", labels = None))]
    fn mode(
        &self,
        port: u16,
        namespace: &str,
        labels: Option<BTreeMap<String, String>>,
    ) -> PyResult<Named<Mode>> {
        let workload = workload(namespace, labels)?;
        let default = MeshConfig::default();
        let root = &self.mesh.as_ref().unwrap_or(&default).root_namespace;
        let modes = effective_modes(&workload, &self.peer_authentications, root);
        Ok(mode_of(&modes, port))
    }

    fn __repr__(&self) -> String {
        format!(
            "<Policies with {} AuthorizationPolicies, {} PeerAuthentications, {} RequestAuthentications>",
            self.authorization_policies.len(),
            self.peer_authentications.len(),
            self.request_authentications.len()
        )
    }
}

pub(crate) fn mode_of(modes: &Modes, port: u16) -> Named<Mode> {
    Named(match modes.of(port) {
        peer_authentication::Mode::Disable => Mode::Disable,
        peer_authentication::Mode::Permissive => Mode::Permissive,
        // INVARIANT: effective modes are never unset; if one were, the strictest is the safe one.
        peer_authentication::Mode::Strict | peer_authentication::Mode::Unset => Mode::Strict,
    })
}

/// Whom policies select.
pub(crate) fn workload(
    namespace: &str,
    labels: Option<BTreeMap<String, String>>,
) -> PyResult<select::Workload> {
    check_namespace(namespace)?;
    Ok(select::Workload {
        namespace: namespace.to_owned(),
        labels: labels.unwrap_or_default(),
    })
}

pub(crate) fn check_namespace(namespace: &str) -> PyResult<()> {
    if grammar::is_label(namespace) {
        return Ok(());
    }
    Err(MeshwardError::new_err(format!(
        "`{namespace}` is no namespace"
    )))
}
