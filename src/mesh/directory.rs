//! What entries know of names and addresses: always those of the mesh as it is now.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use meshward_core::control::mesh::Mesh;

use super::entry::{Endpoint, Resolver};

/// 10.96.0.0/12, where services get their addresses (decision 27).
fn is_service_address(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10 && v4.octets()[1] & 0xf0 == 96)
}

pub(crate) struct Directory {
    mesh: RwLock<Arc<Mesh>>,
    turn: AtomicUsize,
}

impl Directory {
    pub(crate) fn new(mesh: Arc<Mesh>) -> Self {
        Self {
            mesh: RwLock::new(mesh),
            turn: AtomicUsize::new(0),
        }
    }

    pub(crate) fn set(&self, mesh: Arc<Mesh>) {
        *self.mesh.write().unwrap_or_else(PoisonError::into_inner) = mesh;
    }

    fn mesh(&self) -> Arc<Mesh> {
        Arc::clone(&self.mesh.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Resolver for Directory {
    fn resolve(&self, namespace: &str, name: &str) -> Vec<IpAddr> {
        self.mesh().resolve(name, namespace).unwrap_or_default()
    }

    /// As kube-proxy does it: the endpoints of a service take turns, and what is no service address stays as it is.
    fn endpoint(&self, meant: SocketAddr) -> Endpoint {
        let mesh = self.mesh();
        let of_service = mesh
            .services()
            .find(|service| service.cluster_ip == Some(meant.ip()));
        match of_service {
            None if is_service_address(meant.ip()) => Endpoint::Unroutable,
            None => Endpoint::Address(meant),
            Some(service) => {
                let Some(port) = service.ports.iter().find(|p| p.port == meant.port()) else {
                    return Endpoint::NoPort;
                };
                let endpoints = &port.endpoints;
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                let chosen = turn.checked_rem(endpoints.len());
                match chosen.and_then(|at| endpoints.get(at)) {
                    Some(endpoint) => Endpoint::Address(endpoint.address),
                    None => Endpoint::Refused,
                }
            }
        }
    }
}
