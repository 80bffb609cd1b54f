//! The Kubernetes kinds that a mesh is described by, as far as it reads them.
//!
//! Fields that nobody here acts on are passed over, as their owner is the API server; what is acted on is held to its form.

mod read;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::meta::{Labels, Meta, ValuePlace};

/// A namespace. `meta.namespace` is empty; its labels say whether pods get sidecars.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    pub meta: Meta,
}

/// An identity for pods to name (S-86); that it exists is all it says.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceAccount {
    pub meta: Meta,
}

/// A name for pods, and the ports that it has. None of type ExternalName.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub meta: Meta,
    pub cluster_ip: ClusterIp,
    /// Pods behind it; empty: none (endpoints by hand are not read).
    pub selector: Labels,
    /// TCP ports alone, of different numbers and names.
    pub ports: Vec<ServicePort>,
}

/// `spec.clusterIP`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterIp {
    /// Not given: one is chosen.
    #[default]
    Auto,
    /// `None`: headless (S-62).
    Headless,
    Given(IpAddr),
}

/// One of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its prefix tells the protocol (`http`, `http-alt`, `tcp-db`); empty only in a service of one port.
    pub name: String,
    pub port: u16,
    /// The port itself where none is given.
    pub target: TargetPort,
    /// `appProtocol`, which wins over the name's prefix.
    pub app_protocol: Option<String>,
}

/// `targetPort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    Number(u16),
    /// Of a container's port.
    Name(String),
}

/// A pod of its own, which no Deployment made.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    pub meta: Meta,
    /// Of each of `meta.annotations`.
    pub annotation_places: BTreeMap<String, ValuePlace>,
    pub spec: PodSpec,
    /// `status.podIP`, if it lies in 127.0.0.0/8; never 127.0.0.1, where apps are, nor 127.0.0.6, where sidecars call them from.
    pub ip: Option<Ipv4Addr>,
}

/// What pods of either origin have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSpec {
    /// `default` where the pod names none (S-86).
    pub service_account: String,
    /// At least one, of different names.
    pub containers: Vec<Container>,
    pub host_network: bool,
}

/// One of `spec.containers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    /// TCP ports alone. Two of one number have different names.
    pub ports: Vec<ContainerPort>,
}

/// A port on which the container says it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// May be empty.
    pub name: String,
    pub port: u16,
}

/// So many pods alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    pub meta: Meta,
    /// At most [`REPLICAS_MAX`](crate::limits::REPLICAS_MAX); may be 0.
    pub replicas: u32,
    /// `selector.matchLabels`: some of `labels`.
    pub selector: Labels,
    /// Of each pod.
    pub labels: Labels,
    /// Of each pod.
    pub annotations: BTreeMap<String, String>,
    /// Of each of `annotations`.
    pub annotation_places: BTreeMap<String, ValuePlace>,
    pub spec: PodSpec,
}
