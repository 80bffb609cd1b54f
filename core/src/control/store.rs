//! The objects of a mesh by key, as an API server holds them.
//!
//! Knows what objects are called and when they were made, and nothing of what they say.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::api::authorization_policy::AuthorizationPolicy;
use crate::api::kube::{Deployment, Namespace, Pod, Service};
use crate::api::mesh_config::MeshConfig;
use crate::api::meta::Meta;
use crate::api::object::{Key, Kind, Object};
use crate::api::peer_authentication::PeerAuthentication;
use crate::api::request_authentication::RequestAuthentication;
use crate::clock::UnixTime;

/// Namespaces that are there without a document.
pub const STANDING_NAMESPACES: [&str; 3] = ["default", "istio-system", "kube-system"];
/// Of these, what nobody can delete: Kubernetes refuses it, and here the document goes and its namespace stays as it was.
const UNDELETABLE: [&str; 2] = ["default", "kube-system"];

/// Cloning shares the objects.
#[derive(Clone, Debug, Default)]
pub struct Store {
    objects: BTreeMap<Key, Arc<Object>>,
}

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub key: Key,
    pub change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Created,
    Configured,
    Unchanged,
    Deleted,
}

/// Objects that should be deleted and are not there; one line each, as kubectl prints them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFoundError {
    pub keys: Vec<Key>,
}

impl Store {
    /// Takes objects in, in their order; answers in the same order.
    ///
    /// An object without `creationTimestamp` was made `now`, in whole seconds (S-7). One that is there already keeps the
    /// time at which it was made; where it differs in nothing but its place in a file, it stays as it is.
    pub fn apply(&mut self, objects: Vec<Object>, now: UnixTime) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(objects.len());
        for mut object in objects {
            let key = object.key();
            let former = self.objects.get(&key);
            let meta = object.meta_mut();
            match former {
                Some(former) => meta.created = former.meta().created,
                None if meta.created == 0 => meta.created = now.as_secs(),
                None => {}
            }
            let change = match former {
                None => Change::Created,
                Some(former) if former.says_the_same(&object) => Change::Unchanged,
                Some(_) => Change::Configured,
            };
            if change != Change::Unchanged {
                self.objects.insert(key.clone(), Arc::new(object));
            }
            outcomes.push(Outcome { key, change });
        }
        outcomes
    }

    /// Takes objects out; a namespace takes with it whatever lives in it. All of them have to be there, else none goes.
    pub fn delete(&mut self, keys: &[Key]) -> Result<Vec<Outcome>, NotFoundError> {
        let missing: Vec<Key> = keys
            .iter()
            .filter(|key| !self.objects.contains_key(key))
            .cloned()
            .collect();
        if !missing.is_empty() {
            return Err(NotFoundError { keys: missing });
        }
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(keys.len());
        for key in keys {
            if outcomes.iter().any(|outcome| outcome.key == *key) {
                continue;
            }
            self.objects.remove(key);
            if key.kind == Kind::Namespace && !UNDELETABLE.contains(&key.name.as_str()) {
                self.objects.retain(|other, _| other.namespace != key.name);
            }
            outcomes.push(Outcome {
                key: key.clone(),
                change: Change::Deleted,
            });
        }
        Ok(outcomes)
    }

    pub fn get(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key).map(Arc::as_ref)
    }

    /// Whether a document declares it, or it is there without one.
    pub fn has_namespace(&self, name: &str) -> bool {
        STANDING_NAMESPACES.contains(&name)
            || self
                .objects
                .contains_key(&key(Kind::Namespace, String::new(), name))
    }

    /// `default` is in every namespace.
    pub fn has_service_account(&self, namespace: &str, name: &str) -> bool {
        name == "default"
            || self
                .objects
                .contains_key(&key(Kind::ServiceAccount, namespace.to_owned(), name))
    }

    /// By kind, then by namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values().map(Arc::as_ref)
    }

    pub fn authorization_policies(&self) -> impl Iterator<Item = &AuthorizationPolicy> {
        self.of(Kind::AuthorizationPolicy).filter_map(|o| match o {
            Object::AuthorizationPolicy(policy) => Some(policy),
            _ => None,
        })
    }

    pub fn deployments(&self) -> impl Iterator<Item = &Deployment> {
        self.of(Kind::Deployment).filter_map(|o| match o {
            Object::Deployment(deployment) => Some(deployment),
            _ => None,
        })
    }

    pub fn mesh_configs(&self) -> impl Iterator<Item = (&Meta, &MeshConfig)> {
        self.of(Kind::ConfigMap).filter_map(|o| match o {
            Object::MeshConfig(meta, config) => Some((meta, config)),
            _ => None,
        })
    }

    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.of(Kind::Namespace).filter_map(|o| match o {
            Object::Namespace(namespace) => Some(namespace),
            _ => None,
        })
    }

    pub fn peer_authentications(&self) -> impl Iterator<Item = &PeerAuthentication> {
        self.of(Kind::PeerAuthentication).filter_map(|o| match o {
            Object::PeerAuthentication(policy) => Some(policy),
            _ => None,
        })
    }

    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.of(Kind::Pod).filter_map(|o| match o {
            Object::Pod(pod) => Some(pod),
            _ => None,
        })
    }

    pub fn request_authentications(&self) -> impl Iterator<Item = &RequestAuthentication> {
        self.of(Kind::RequestAuthentication)
            .filter_map(|o| match o {
                Object::RequestAuthentication(policy) => Some(policy),
                _ => None,
            })
    }

    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.of(Kind::Service).filter_map(|o| match o {
            Object::Service(service) => Some(service),
            _ => None,
        })
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects
            .range(key(kind, String::new(), "")..)
            .take_while(move |(key, _)| key.kind == kind)
            .map(|(_, object)| object.as_ref())
    }
}

fn key(kind: Kind, namespace: String, name: &str) -> Key {
    Key {
        kind,
        namespace,
        name: name.to_owned(),
    }
}

/// kubectl's line: `service/webapp created`, `service "webapp" deleted`.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, change } = self;
        match change {
            Change::Created => write!(f, "{key} created"),
            Change::Configured => write!(f, "{key} configured"),
            Change::Unchanged => write!(f, "{key} unchanged"),
            Change::Deleted => write!(f, "{} \"{}\" deleted", key.kind, key.name),
        }
    }
}

impl fmt::Display for NotFoundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, key) in self.keys.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            let kind = plural(key.kind);
            let name = &key.name;
            write!(
                f,
                "Error from server (NotFound): {kind} \"{name}\" not found"
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for NotFoundError {}

/// The resource of a kind in the API's paths.
fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::AuthorizationPolicy => "authorizationpolicies.security.istio.io",
        Kind::ConfigMap => "configmaps",
        Kind::Deployment => "deployments.apps",
        Kind::Namespace => "namespaces",
        Kind::PeerAuthentication => "peerauthentications.security.istio.io",
        Kind::Pod => "pods",
        Kind::RequestAuthentication => "requestauthentications.security.istio.io",
        Kind::Service => "services",
        Kind::ServiceAccount => "serviceaccounts",
    }
}

#[cfg(test)]
mod tests;
