//! Istio's resources: one file per kind, fields as Istio spells them.

pub mod authorization_policy;
pub mod finding;
pub mod kube;
pub mod load;
pub mod mesh_config;
pub mod meta;
pub mod object;
pub mod peer_authentication;
mod scope;
