//! A whole mesh from YAML: who is in it, where everybody is, and what the proxy of each decides by.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use meshward_core::accept::{Mode, PortKind};
use meshward_core::api::finding::Finding;
use meshward_core::api::load::{Text, load_keys, load_objects};
use meshward_core::clock::{self, UnixTime};
use meshward_core::control::mesh::{PodFacts, PodKey, ServiceFacts};
use meshward_core::control::plane::{Plane, SnapshotError, Wiring};
use meshward_core::control::store::Outcome;
use pyo3::prelude::*;
use pyo3::types::PyMapping;

use crate::MeshwardError;
use crate::convert::{Address, Ip, Named, Now};
use crate::plain::{Show, plain};
use crate::policies::{check_namespace, mode_of};
use crate::snapshot::{Snapshot, listens};

/// What findings call a text that comes without a name.
const FILE: &str = "mesh.yaml";

plain! {
    /// A port at which a pod is reached. `protocol` is http, tcp or auto, as the oldest service that reaches it declares it.
    /// `mode` is what PeerAuthentication makes of it: STRICT, PERMISSIVE or DISABLE (S-20 to S-23); `None` without a
    /// sidecar, where nobody enforces one. `name` is that of the container's port, and may be empty.
    #[derive(Clone)]
    #[pyo3(from_py_object)]
    PodPort {
        port: u16,
        protocol: Named<PortKind>,
        mode: Option<Named<Mode>>,
        name: String,
    }
}

plain! {
    /// One pod as a version of the mesh has it: where it is, and who it is in its certificate (`spiffe://…`). `deployment` is
    /// the one that it is of. Its ports are those of its containers and those at which services reach it, ascending.
    Pod {
        namespace: String,
        name: String,
        address: Ip,
        service_account: String,
        identity: String,
        sidecar: bool,
        deployment: Option<String>,
        labels: BTreeMap<String, String>,
        ports: Vec<PodPort>,
    }
    #[new]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn new(
        namespace: String,
        name: String,
        address: Ip,
        service_account: String,
        identity: String,
        sidecar: bool,
        deployment: Option<String>,
        labels: BTreeMap<String, String>,
        ports: Vec<PodPort>,
    ) -> Self {
        Self {
            namespace,
            name,
            address,
            service_account,
            identity,
            sidecar,
            deployment,
            labels,
            ports,
        }
    }
}

plain! {
    /// A port of a service. `protocol` is http, tcp or auto. `endpoints` are where it leads: pods' addresses
    /// with ports, in the order of the pods' names. `name` may be empty.
    #[derive(Clone)]
    #[pyo3(from_py_object)]
    ServicePort {
        port: u16,
        protocol: Named<PortKind>,
        name: String,
        endpoints: Vec<Address>,
    }
}

plain! {
    /// One service as a version of the mesh has it. `address` is its cluster IP; `None`: headless.
    Service {
        namespace: String,
        name: String,
        address: Option<Ip>,
        ports: Vec<ServicePort>,
    }
}

impl Show for PodPort {
    fn show(&self) -> String {
        self.__repr__()
    }
}

impl Show for ServicePort {
    fn show(&self) -> String {
        self.__repr__()
    }
}

/// One text, or several with their names.
#[derive(FromPyObject)]
enum Texts {
    One(String),
    Several(Vec<(String, String)>),
}

impl Default for Texts {
    fn default() -> Self {
        Self::One(String::new())
    }
}

impl Texts {
    fn into_texts(self) -> Vec<Text> {
        let text = |(name, text): (String, String)| Text {
            name: name.into(),
            text,
        };
        match self {
            Self::One(yaml) => vec![text((FILE.into(), yaml))],
            Self::Several(files) => files.into_iter().map(text).collect(),
        }
    }
}

/// A service mesh described by the YAML that `meshward up` reads, as `kubectl apply` reads it: Namespace, ServiceAccount,
/// Service, Deployment, Pod, PeerAuthentication, AuthorizationPolicy, List, and the ConfigMap `istio`. It runs nothing: a
/// script asks it where everybody is, and what to tell the proxy of each pod.
///
/// `yaml` is one text, or a sequence of `(file, text)`; findings are said with `file:line:column`, a text without a name is
/// `mesh.yaml`. `now` is when objects are made that do not say so themselves, which counts where the older one wins (S-7,
/// S-21). `namespace` is that of objects that name none. Kinds that a mesh has no use for yield one warning each, one error
/// each if `strict`.
#[pyclass(module = "meshward")]
pub(crate) struct Mesh {
    plane: Plane,
    namespace: String,
    strict: bool,
    now: UnixTime,
    /// Of the texts of the last `apply`.
    unread: Vec<Finding>,
}

#[pymethods]
impl Mesh {
    /// Applies `yaml` to a mesh without objects, with Istio's defaults.
    #[new]
    #[pyo3(signature = (yaml = Texts::default(), *, now, namespace = "default", strict = false),
           text_signature = "(yaml='', *, now, namespace='default', strict=False)")]
    fn new(yaml: Texts, now: Now, namespace: &str, strict: bool) -> PyResult<Self> {
        check_namespace(namespace)?;
        let mut mesh = Self {
            plane: Plane::new(),
            namespace: namespace.to_owned(),
            strict,
            now: clock::Now::from(now).wall,
            unread: Vec::new(),
        };
        mesh.apply(yaml, None)?;
        Ok(mesh)
    }

    /// Takes objects in, all or none; answers with kubectl's lines in their order, `service/catalog created`. `now` is `None`
    /// for the time of the call before.
    ///
    /// On an error nothing has changed. Snapshots of before stay as they are: ask for new ones when `version` has grown.
    #[pyo3(signature = (yaml, *, now = None))]
    fn apply(&mut self, yaml: Texts, now: Option<Now>) -> PyResult<Vec<String>> {
        let now = now.map_or(self.now, |now| clock::Now::from(now).wall);
        let read =
            load_objects(&yaml.into_texts(), &self.namespace, self.strict).map_err(unusable)?;
        let outcomes = self.plane.apply(read.objects, now).map_err(unusable)?;
        self.now = now;
        self.unread = read.warnings;
        Ok(lines(&outcomes))
    }

    /// Takes out the objects that `yaml` names, all or none, a namespace with whatever lives in it; answers with kubectl's
    /// lines. Of each document `apiVersion`, `kind` and `metadata` alone count. What is not there is an error.
    fn delete(&mut self, yaml: Texts) -> PyResult<Vec<String>> {
        let keys = load_keys(&yaml.into_texts(), &self.namespace).map_err(unusable)?;
        let outcomes = self.plane.delete(&keys).map_err(unusable)?;
        Ok(lines(&outcomes))
    }

    /// Every pod, by namespace and name.
    #[getter]
    fn pods(&self) -> PyResult<Vec<Pod>> {
        let mesh = Arc::clone(self.plane.mesh());
        mesh.pods().map(|facts| self.pod(facts)).collect()
    }

    /// Every service, by namespace and name.
    #[getter]
    fn services(&self) -> Vec<Service> {
        self.plane.mesh().services().map(service).collect()
    }

    /// Grows with every change of an object; snapshots bear it.
    #[getter]
    fn version(&self) -> u64 {
        self.plane.version()
    }

    /// Whose certificates the mesh believes: `trustDomain` of its meshConfig.
    #[getter]
    fn trust_domain(&self) -> &str {
        &self.plane.mesh_config().trust_domain
    }

    /// What the texts of the last `apply` said in vain, and what of the objects hardly does what was meant, with
    /// `file:line:column`.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        let findings = self.unread.iter().chain(self.plane.warnings());
        findings.map(Finding::to_string).collect()
    }

    /// The addresses that cluster DNS gives a pod of `namespace` for `name`: `catalog`, `catalog.shop`, `catalog.shop.svc` or
    /// `catalog.shop.svc.cluster.local`, in any case. A headless service has those of its pods. `None`: no such name.
    #[pyo3(signature = (name, namespace = "default"))]
    fn resolve(&self, name: &str, namespace: &str) -> Option<Vec<Ip>> {
        let addresses = self.plane.mesh().resolve(name, namespace)?;
        Some(addresses.into_iter().map(Ip).collect())
    }

    /// The pod that a user means by `sleep`, `pod/sleep`, `deploy/sleep`, each also with `.NAMESPACE` behind it; of a
    /// Deployment the first. Without a `namespace`, `default` comes first, then any other if it is the only one.
    ///
    /// Nobody of that name is an error that lists the nearest ones, several are one that lists them.
    #[pyo3(signature = (workload, namespace = None))]
    fn find(&self, workload: &str, namespace: Option<&str>) -> PyResult<Pod> {
        let mesh = Arc::clone(self.plane.mesh());
        let facts = mesh.find_workload(workload, namespace).map_err(unusable)?;
        self.pod(facts)
    }

    /// What the proxy of `pod` decides by from now on. `upstreams` says by port where its application listens
    /// (`127.0.0.1:9000`); a port that is not among them takes no connections.
    ///
    /// A pod that is gone or has no sidecar is an error, and so is a port that the pod does not have. All listeners are 0 in
    /// reports.
    fn snapshot(
        &mut self,
        pod: &Bound<'_, Pod>,
        upstreams: &Bound<'_, PyMapping>,
    ) -> PyResult<Snapshot> {
        let pod = pod.get();
        let upstreams: BTreeMap<u16, Address> = upstreams
            .items()?
            .iter()
            .map(|item| item.extract())
            .collect::<PyResult<_>>()?;
        let key = PodKey {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
        };
        if let Some(facts) = self.plane.mesh().pod(&key) {
            check_wiring(facts, &upstreams)?;
        }
        let wiring = Wiring {
            upstreams: upstreams.into_iter().map(|(p, to)| (p, to.0)).collect(),
            first_listener: 0,
        };
        self.plane
            .snapshot(&key, &wiring)
            .map(Snapshot)
            .map_err(unusable)
    }

    fn __repr__(&self) -> String {
        let mesh = self.plane.mesh();
        format!(
            "<Mesh of {} pods and {} services, version {}>",
            mesh.pods().count(),
            mesh.services().count(),
            self.plane.version()
        )
    }
}

impl Mesh {
    fn pod(&self, facts: &PodFacts) -> PyResult<Pod> {
        let key = facts.key();
        let (identity, modes) = self
            .plane
            .identity(&key)
            .zip(self.plane.modes(&key))
            .ok_or_else(|| unusable(SnapshotError::NoPod(key.clone())))?;
        let ports = facts.ports.iter().map(|port| PodPort {
            port: port.port,
            protocol: Named(port.kind),
            mode: facts.sidecar.then(|| mode_of(modes, port.port)),
            name: port.name.clone(),
        });
        Ok(Pod {
            address: Ip(IpAddr::V4(facts.address)),
            service_account: facts.service_account.clone(),
            identity: identity.as_str().to_owned(),
            sidecar: facts.sidecar,
            deployment: facts.owner.clone(),
            labels: facts.labels.clone(),
            ports: ports.collect(),
            namespace: key.namespace,
            name: key.name,
        })
    }
}

fn service(facts: &ServiceFacts) -> Service {
    let ports = facts.ports.iter().map(|port| ServicePort {
        port: port.port,
        protocol: Named(port.kind),
        name: port.name.clone(),
        endpoints: port.endpoints.iter().map(|e| Address(e.address)).collect(),
    });
    Service {
        namespace: facts.namespace.clone(),
        name: facts.name.clone(),
        address: facts.cluster_ip.map(Ip),
        ports: ports.collect(),
    }
}

fn check_wiring(facts: &PodFacts, upstreams: &BTreeMap<u16, Address>) -> PyResult<()> {
    let pod = format!("`{}/{}`", facts.namespace, facts.name);
    if !facts.sidecar {
        return Err(MeshwardError::new_err(format!(
            "{pod} has no sidecar\n  hint: label its namespace with istio-injection: enabled"
        )));
    }
    for (port, to) in upstreams {
        if !facts.ports.iter().any(|own| own.port == *port) {
            let own: Vec<String> = facts.ports.iter().map(|own| own.port.to_string()).collect();
            return Err(MeshwardError::new_err(format!(
                "{pod} has no port {port}\n  hint: its ports are [{}]",
                own.join(", ")
            )));
        }
        listens(*to)?;
    }
    Ok(())
}

fn unusable(error: impl std::error::Error) -> PyErr {
    MeshwardError::new_err(error.to_string())
}

fn lines(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().map(Outcome::to_string).collect()
}
