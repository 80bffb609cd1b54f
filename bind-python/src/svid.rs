//! The identity of a workload.

use std::sync::Arc;

use meshward_core::clock::UnixTime;
use meshward_core::pii::Pii;
use meshward_core::spiffe;
use pyo3::prelude::*;

use crate::MeshwardError;

/// Certificate chain (leaf first), PKCS#8 key and trust bundle, each as PEM. Judged when a machine is told of it, because
/// its validity depends on the time.
#[pyclass(module = "meshward", frozen)]
pub(crate) struct Svid {
    #[pyo3(get)]
    pub(crate) chain_pem: String,
    pub(crate) key_pem: Pii<String>,
    #[pyo3(get)]
    pub(crate) bundle_pem: String,
}

#[pymethods]
impl Svid {
    #[new]
    fn new(chain_pem: String, key_pem: String, bundle_pem: String) -> Self {
        Self {
            chain_pem,
            key_pem: Pii::new(key_pem),
            bundle_pem,
        }
    }

    /// The secret itself; a `repr` does not show it.
    #[getter]
    fn key_pem(&self) -> &str {
        self.key_pem.reveal()
    }

    fn __repr__(&self) -> String {
        format!(
            "Svid(chain_pem=<{} bytes>, key_pem=<hidden>, bundle_pem=<{} bytes>)",
            self.chain_pem.len(),
            self.bundle_pem.len()
        )
    }
}

impl Svid {
    pub(crate) fn load(&self, now: UnixTime) -> PyResult<Arc<spiffe::Svid>> {
        spiffe::Svid::from_pem(
            self.chain_pem.as_bytes(),
            self.key_pem.reveal().as_bytes(),
            self.bundle_pem.as_bytes(),
            now,
        )
        .map(Arc::new)
        .map_err(|e| MeshwardError::new_err(format!("{e}\n  hint: {}", e.hint())))
    }
}
