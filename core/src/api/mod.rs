//! The resources of a mesh: one file per kind of Istio and one for those of Kubernetes, fields as they spell them.

pub mod authorization_policy;
pub mod finding;
pub mod kube;
pub mod load;
pub mod mesh_config;
pub mod meta;
pub mod object;
pub mod peer_authentication;
pub mod request_authentication;
mod scope;
