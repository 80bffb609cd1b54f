//! The Kubernetes kinds that a mesh is described by, as far as it reads them.
//!
//! Fields that nobody here acts on are passed over, as their owner is the API server; what is acted on is held to its form.

use std::net::{IpAddr, Ipv4Addr};

use super::meta::{Labels, Meta};

/// A namespace. `meta.namespace` is empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    pub meta: Meta,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServiceAccount {
    pub meta: Meta,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub meta: Meta,
    pub cluster_ip: ClusterIp,
    /// Pods behind it; empty: none (endpoints by hand are not read).
    pub selector: Labels,
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its prefix tells the protocol (`http`, `http-alt`, `tcp-db`); empty only in a service of one port.
    pub name: String,
    pub port: u16,
    pub target: TargetPort,
    /// `appProtocol`, which wins over the name's prefix.
    pub app_protocol: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    Number(u16),
    /// Of a container's port.
    Name(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    pub meta: Meta,
    pub spec: PodSpec,
    /// `status.podIP`, if it lies in 127.0.0.0/8.
    pub ip: Option<Ipv4Addr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSpec {
    /// `default` where the pod names none (S-86).
    pub service_account: String,
    pub containers: Vec<Container>,
    pub host_network: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    /// TCP ports alone.
    pub ports: Vec<ContainerPort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// May be empty.
    pub name: String,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    pub meta: Meta,
    pub replicas: u32,
    pub selector: Labels,
    /// Of each pod.
    pub labels: Labels,
    pub annotations: Labels,
    pub spec: PodSpec,
}
