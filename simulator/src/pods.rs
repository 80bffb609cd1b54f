//! A whole mesh from the YAML that `meshward up` reads: its pods, where they are, and what the proxy of each decides by.
//!
//! Knows no world: the same mesh is run in virtual time and over real sockets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use meshward_core::api::load::{Text, load_keys, load_objects};
use meshward_core::clock::UnixTime;
use meshward_core::control::mesh::{Mesh, PodKey};
use meshward_core::control::plane::{Plane, Wiring};
use meshward_core::snapshot::Snapshot;

/// Pods lie in `.1` to `.100` of a net of their own, the applications behind sidecars 100 further.
const PODS: u32 = 101;
const TO_APP: u8 = 100;

/// In force until a mesh brings its own: a run without a log shows nothing of what it decided.
const CONFIG: &str = "apiVersion: v1
kind: ConfigMap
metadata:
  name: istio
  namespace: istio-system
data:
  mesh: |
    accessLogFile: /dev/stdout
";

/// One pod, as long as the mesh lives.
#[derive(Clone, Debug)]
pub struct Pod {
    pub key: PodKey,
    pub address: Ipv4Addr,
    pub sidecar: bool,
    /// By its ports: where its application listens. Without a sidecar that is the pod's own address.
    pub apps: BTreeMap<u16, SocketAddr>,
}

impl Pod {
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), port)
    }
}

/// The state of a mesh.
#[derive(Debug)]
pub struct Pods {
    net: [u8; 2],
    now: UnixTime,
    plane: Plane,
    pods: Vec<Pod>,
}

impl Pods {
    /// A mesh without pods; those to come lie in 127.`net`.0/24, so that meshes of one host do not meet.
    pub fn new(net: [u8; 2], now: UnixTime) -> Self {
        let [a, b] = net;
        let mut mesh = Self {
            net,
            now,
            plane: Plane::with_pods_in(Ipv4Addr::new(127, a, b, 0), PODS),
            pods: Vec::new(),
        };
        mesh.apply(CONFIG).expect("a log is a valid wish");
        mesh
    }

    /// Takes objects in, all or none. Pods may come, and may change in what does not make them others; none may go.
    ///
    /// Each change is a second younger than the one before, since the age of policies counts (S-7, S-21).
    pub fn apply(&mut self, yaml: &str) -> Result<(), String> {
        let objects = load_objects(&[text(yaml)], "default", true).map_err(|e| e.to_string())?;
        self.change(|plane, now| {
            let taken = plane.apply(objects.objects, now);
            taken.map(drop).map_err(|e| e.to_string())
        })
    }

    /// Takes out the objects that `yaml` names.
    pub fn delete(&mut self, yaml: &str) -> Result<(), String> {
        let keys = load_keys(&[text(yaml)], "default").map_err(|e| e.to_string())?;
        self.change(|plane, _| {
            let taken = plane.delete(&keys);
            taken.map(drop).map_err(|e| e.to_string())
        })
    }

    fn change(
        &mut self,
        act: impl FnOnce(&mut Plane, UnixTime) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut plane = self.plane.clone();
        let now = UnixTime(self.now.0 + plane.version() * 1_000);
        act(&mut plane, now)?;
        let mut pods = self.pods.clone();
        for pod in &mut pods {
            let name = &pod.key.name;
            let facts = plane.mesh().pod(&pod.key);
            let facts = facts.ok_or_else(|| format!("pod `{name}` is gone"))?;
            if facts.sidecar != pod.sidecar || facts.address != pod.address {
                return Err(format!("pod `{name}` becomes another"));
            }
        }
        for facts in plane.mesh().pods() {
            let key = facts.key();
            let known = pods.iter().position(|pod| pod.key.name == key.name);
            let at = match known {
                Some(at) if pods[at].key == key => at,
                Some(_) => return Err(format!("two pods are called `{}`", key.name)),
                None => {
                    pods.push(Pod {
                        key,
                        address: facts.address,
                        sidecar: facts.sidecar,
                        apps: BTreeMap::new(),
                    });
                    pods.len() - 1
                }
            };
            let pod = &mut pods[at];
            let [.., last] = pod.address.octets();
            let [a, b] = self.net;
            if pod.address.octets() != [127, a, b, last] || last > TO_APP {
                return Err(format!("{} lies outside of the mesh's net", pod.address));
            }
            let behind = if pod.sidecar { TO_APP } else { 0 };
            let app = IpAddr::V4(Ipv4Addr::new(127, a, b, last + behind));
            for port in &facts.ports {
                pod.apps.insert(port.port, SocketAddr::new(app, port.port));
            }
        }
        (self.plane, self.pods) = (plane, pods);
        Ok(())
    }

    /// In the order in which they came, and by namespace and name among those that came together.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    pub fn mesh(&self) -> &Mesh {
        self.plane.mesh()
    }

    pub fn find(&self, name: &str) -> Option<usize> {
        self.pods.iter().position(|pod| pod.key.name == name)
    }

    pub fn version(&self) -> u64 {
        self.plane.version()
    }

    /// What the proxy of a pod decides by from now on.
    pub fn snapshot(&mut self, pod: usize) -> Arc<Snapshot> {
        let Pod { key, apps, .. } = &self.pods[pod];
        let wiring = Wiring {
            upstreams: apps.clone(),
            first_listener: 0,
        };
        let snapshot = self.plane.snapshot(key, &wiring);
        snapshot.expect("every pod of a mesh has a snapshot")
    }

    /// The SPIFFE ID of a pod.
    pub fn identity(&self, pod: usize) -> String {
        let id = self.plane.identity(&self.pods[pod].key);
        id.expect("every pod of a mesh has an identity")
            .as_str()
            .to_owned()
    }

    /// The address that an application in `namespace` means by `host`: cluster DNS is asked first, the first answer counts;
    /// what it does not know is the name of a pod, or an address.
    pub fn resolve(&self, host: &str, namespace: &str) -> Option<IpAddr> {
        if let Some(addresses) = self.mesh().resolve(host, namespace) {
            return addresses.first().copied();
        }
        match self.find(host) {
            Some(pod) => Some(IpAddr::V4(self.pods[pod].address)),
            None => host.parse().ok(),
        }
    }

    /// Where a connection to `address` comes out that no sidecar takes: at the first endpoint behind a service's address, as
    /// kube-proxy would have it. `None`: nobody is there.
    pub fn translate(&self, address: SocketAddr) -> Option<SocketAddr> {
        let mut services = self.mesh().services();
        let Some(service) = services.find(|s| s.cluster_ip == Some(address.ip())) else {
            return Some(address);
        };
        let port = service.ports.iter().find(|p| p.port == address.port())?;
        port.endpoints.first().map(|endpoint| endpoint.address)
    }
}

fn text(yaml: &str) -> Text {
    Text {
        name: "mesh".into(),
        text: yaml.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::BIRTH;

    const MESH: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio-injection: enabled}}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop},
 spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-0, namespace: shop, labels: {app: web}},
 spec: {containers: [{name: main}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: sleep}, spec: {containers: [{name: main, ports: [{containerPort: 7000}]}]}}
";

    fn mesh() -> Pods {
        let mut mesh = Pods::new([9, 3], BIRTH);
        mesh.apply(MESH).unwrap();
        mesh
    }

    #[test]
    fn pods_have_addresses_and_applications_where_they_belong() {
        let mesh = mesh();
        let told: Vec<String> = mesh
            .pods()
            .iter()
            .map(|pod| format!("{} {} {:?}", pod.key.name, pod.address, pod.apps))
            .collect();
        assert_eq!(
            told,
            [
                "sleep 127.9.3.1 {7000: 127.9.3.1:7000}",
                "web-0 127.9.3.2 {8080: 127.9.3.102:8080}"
            ]
        );
    }

    #[test]
    fn names_lead_to_services_then_to_pods_then_to_addresses() {
        let mesh = mesh();
        let vip = mesh.mesh().service("shop", "web").unwrap().cluster_ip;
        assert_eq!(mesh.resolve("web", "shop"), vip);
        assert_eq!(mesh.resolve("web", "default"), None);
        assert_eq!(mesh.resolve("web.shop", "default"), vip);
        let web: IpAddr = "127.9.3.2".parse().unwrap();
        assert_eq!(mesh.resolve("web-0", "default"), Some(web));
        assert_eq!(mesh.resolve("127.9.3.2", "default"), Some(web));
        let at = |port| mesh.translate(SocketAddr::new(vip.unwrap(), port));
        assert_eq!(at(80), Some(SocketAddr::new(web, 8080)));
        assert_eq!(at(81), None);
        let as_it_is = SocketAddr::new(web, 81);
        assert_eq!(mesh.translate(as_it_is), Some(as_it_is));
    }

    #[test]
    fn what_makes_another_mesh_is_refused_and_changes_nothing() {
        let mut mesh = mesh();
        let version = mesh.version();
        let gone = "{apiVersion: v1, kind: Pod, metadata: {name: sleep}}";
        assert_eq!(mesh.delete(gone), Err("pod `sleep` is gone".into()));
        let same = "{apiVersion: v1, kind: Pod, metadata: {name: web-0}, spec: {containers: [{name: main}]}}";
        assert_eq!(
            mesh.apply(same),
            Err("two pods are called `web-0`".to_owned())
        );
        let flipped = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}";
        assert_eq!(
            mesh.apply(flipped),
            Err("pod `web-0` becomes another".to_owned())
        );
        assert!(mesh.apply("{kind: Nonsense}").is_err());
        assert_eq!(mesh.version(), version);
    }
}
