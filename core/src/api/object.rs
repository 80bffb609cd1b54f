//! One resource of any kind that a mesh is made of.

use std::fmt;
use std::sync::Arc;

use super::authorization_policy::AuthorizationPolicy;
use super::kube::{Deployment, Namespace, Pod, Service, ServiceAccount};
use super::mesh_config::MeshConfig;
use super::meta::{Meta, Origin};
use super::peer_authentication::PeerAuthentication;
use super::request_authentication::RequestAuthentication;

#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    AuthorizationPolicy(AuthorizationPolicy),
    Deployment(Deployment),
    /// The ConfigMap `istio`, of which `data.mesh` counts.
    MeshConfig(Meta, MeshConfig),
    Namespace(Namespace),
    PeerAuthentication(PeerAuthentication),
    Pod(Pod),
    RequestAuthentication(RequestAuthentication),
    Service(Service),
    ServiceAccount(ServiceAccount),
}

/// The kinds of [`Object`], in the words of their API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    AuthorizationPolicy,
    ConfigMap,
    Deployment,
    Namespace,
    PeerAuthentication,
    Pod,
    RequestAuthentication,
    Service,
    ServiceAccount,
}

/// What an object is called. No two objects of a mesh share a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    /// Empty for kinds that live in none.
    pub namespace: String,
    pub name: String,
}

impl Object {
    pub fn meta(&self) -> &Meta {
        match self {
            Self::AuthorizationPolicy(o) => &o.meta,
            Self::Deployment(o) => &o.meta,
            Self::MeshConfig(meta, _) => meta,
            Self::Namespace(o) => &o.meta,
            Self::PeerAuthentication(o) => &o.meta,
            Self::Pod(o) => &o.meta,
            Self::RequestAuthentication(o) => &o.meta,
            Self::Service(o) => &o.meta,
            Self::ServiceAccount(o) => &o.meta,
        }
    }

    pub fn meta_mut(&mut self) -> &mut Meta {
        match self {
            Self::AuthorizationPolicy(o) => &mut o.meta,
            Self::Deployment(o) => &mut o.meta,
            Self::MeshConfig(meta, _) => meta,
            Self::Namespace(o) => &mut o.meta,
            Self::PeerAuthentication(o) => &mut o.meta,
            Self::Pod(o) => &mut o.meta,
            Self::RequestAuthentication(o) => &mut o.meta,
            Self::Service(o) => &mut o.meta,
            Self::ServiceAccount(o) => &mut o.meta,
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
            Self::Deployment(_) => Kind::Deployment,
            Self::MeshConfig(..) => Kind::ConfigMap,
            Self::Namespace(_) => Kind::Namespace,
            Self::PeerAuthentication(_) => Kind::PeerAuthentication,
            Self::Pod(_) => Kind::Pod,
            Self::RequestAuthentication(_) => Kind::RequestAuthentication,
            Self::Service(_) => Kind::Service,
            Self::ServiceAccount(_) => Kind::ServiceAccount,
        }
    }

    /// Whether both say the same, wherever they are written and whenever they were created.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.without_places() == other.without_places()
    }

    fn without_places(&self) -> Self {
        let nowhere = Origin {
            file: Arc::from(""),
            line: 0,
            column: 0,
        };
        let mut object = self.clone();
        let meta = match &mut object {
            Self::AuthorizationPolicy(o) => {
                for rule in &mut o.rules {
                    rule.origin = nowhere.clone();
                    for condition in &mut rule.when {
                        condition.origin = nowhere.clone();
                    }
                }
                &mut o.meta
            }
            Self::Deployment(o) => {
                o.annotation_places.clear();
                &mut o.meta
            }
            Self::Pod(o) => {
                o.annotation_places.clear();
                &mut o.meta
            }
            Self::RequestAuthentication(o) => {
                for rule in &mut o.rules {
                    rule.origin = nowhere.clone();
                }
                &mut o.meta
            }
            Self::MeshConfig(meta, _) => meta,
            Self::Namespace(o) => &mut o.meta,
            Self::PeerAuthentication(o) => &mut o.meta,
            Self::Service(o) => &mut o.meta,
            Self::ServiceAccount(o) => &mut o.meta,
        };
        meta.origin = nowhere;
        meta.created = 0;
        object
    }

    pub fn key(&self) -> Key {
        let meta = self.meta();
        Key {
            kind: self.kind(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
        }
    }
}

/// As kubectl prints it: `peerauthentication.security.istio.io/default`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// In lower case with its group: `deployment.apps`, `service`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AuthorizationPolicy => "authorizationpolicy.security.istio.io",
            Self::ConfigMap => "configmap",
            Self::Deployment => "deployment.apps",
            Self::Namespace => "namespace",
            Self::PeerAuthentication => "peerauthentication.security.istio.io",
            Self::Pod => "pod",
            Self::RequestAuthentication => "requestauthentication.security.istio.io",
            Self::Service => "service",
            Self::ServiceAccount => "serviceaccount",
        })
    }
}

#[cfg(test)]
mod tests;
