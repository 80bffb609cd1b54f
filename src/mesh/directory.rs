//! What entries know of names and addresses: always those of the mesh as it is now.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use meshward_core::control::mesh::{Arrival, Mesh};

use super::entry::{Endpoint, Resolver};

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
        match self.mesh().arrival(meant) {
            Arrival::There => Endpoint::Address(meant),
            Arrival::Nowhere => Endpoint::Unroutable,
            Arrival::NoPort(_) => Endpoint::NoPort,
            Arrival::Endpoints(_, port) => {
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
