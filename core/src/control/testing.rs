//! Objects for tests, short to write.

use std::collections::BTreeMap;

use std::sync::Arc;

use crate::api::kube::{
    ClusterIp, Container, ContainerPort, Deployment, Namespace, Pod, PodSpec, Service,
    ServiceAccount, ServicePort, TargetPort,
};
use crate::api::meta::{Labels, Meta, Origin};
use crate::api::object::{Key, Kind, Object};
use crate::api::peer_authentication::{Mode, PeerAuthentication};
use crate::api::request_authentication::{JwtRule, KeySource, RequestAuthentication};
use crate::clock::UnixTime;

pub(super) const NOW: UnixTime = UnixTime(1_767_323_045_678);

pub(super) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

/// Stands at line 1 of a file that is called like it.
pub(super) fn meta(namespace: &str, name: &str) -> Meta {
    Meta {
        name: name.into(),
        namespace: namespace.into(),
        created: 0,
        annotations: Labels::new(),
        labels: Labels::new(),
        origin: Origin {
            file: Arc::from(format!("{name}.yaml")),
            line: 1,
            column: 1,
        },
    }
}

pub(super) fn key(kind: Kind, namespace: &str, name: &str) -> Key {
    Key {
        kind,
        namespace: namespace.into(),
        name: name.into(),
    }
}

pub(super) fn namespace(name: &str, injection: Option<&str>) -> Object {
    let mut meta = meta("", name);
    if let Some(injection) = injection {
        meta.labels = labels(&[("istio-injection", injection)]);
    }
    Object::Namespace(Namespace { meta })
}

pub(super) fn service_account(namespace: &str, name: &str) -> Object {
    Object::ServiceAccount(ServiceAccount {
        meta: meta(namespace, name),
    })
}

pub(super) fn spec(service_account: &str, ports: &[(&str, u16)]) -> PodSpec {
    PodSpec {
        service_account: service_account.into(),
        containers: vec![Container {
            name: "main".into(),
            ports: ports
                .iter()
                .map(|(name, port)| ContainerPort {
                    name: (*name).into(),
                    port: *port,
                })
                .collect(),
        }],
        host_network: false,
    }
}

/// Of one replica, with the label `app: NAME`, under a service account of its own name.
pub(super) fn deployment(namespace: &str, name: &str, ports: &[(&str, u16)]) -> Deployment {
    Deployment {
        meta: meta(namespace, name),
        replicas: 1,
        selector: labels(&[("app", name)]),
        labels: labels(&[("app", name)]),
        annotations: Labels::new(),
        annotation_places: BTreeMap::new(),
        spec: spec(name, ports),
    }
}

/// With the label `app: NAME`, under `default`.
pub(super) fn pod(namespace: &str, name: &str, ip: Option<[u8; 4]>) -> Pod {
    let mut meta = meta(namespace, name);
    meta.labels = labels(&[("app", name)]);
    Pod {
        meta,
        spec: spec("default", &[]),
        annotation_places: BTreeMap::new(),
        ip: ip.map(Into::into),
    }
}

/// Of the pods with the label `app: NAME`.
pub(super) fn service(namespace: &str, name: &str, ports: &[(&str, u16, u16)]) -> Service {
    Service {
        meta: meta(namespace, name),
        cluster_ip: ClusterIp::Auto,
        selector: labels(&[("app", name)]),
        ports: ports
            .iter()
            .map(|(name, port, target)| ServicePort {
                name: (*name).into(),
                port: *port,
                target: TargetPort::Number(*target),
                app_protocol: None,
            })
            .collect(),
    }
}

pub(super) fn peer_authentication(namespace: &str, name: &str, mode: Mode) -> PeerAuthentication {
    PeerAuthentication {
        meta: meta(namespace, name),
        selector: None,
        mode,
        port_level: [].into(),
    }
}

/// One rule, for every workload of its scope.
pub(super) fn request_authentication(
    namespace: &str,
    name: &str,
    keys: KeySource,
) -> RequestAuthentication {
    let meta = meta(namespace, name);
    let rule = JwtRule {
        issuer: "https://issuer.example".into(),
        audiences: Vec::new(),
        keys,
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        output_payload_to_header: None,
        output_claims: Vec::new(),
        forward_original_token: false,
        space_delimited_claims: Vec::new(),
        origin: meta.origin.clone(),
    };
    RequestAuthentication {
        meta,
        selector: None,
        targets: false,
        rules: vec![rule],
    }
}

/// webapp calls catalog, both injected; sleep in `default` is not, sleep-injected is.
pub(super) fn istio_in_action() -> Vec<Object> {
    let mut injected = deployment("default", "sleep-injected", &[]);
    injected
        .labels
        .extend(labels(&[("sidecar.istio.io/inject", "true")]));
    vec![
        namespace("istioinaction", Some("enabled")),
        service_account("istioinaction", "webapp"),
        service_account("istioinaction", "catalog"),
        Object::Deployment(deployment("istioinaction", "webapp", &[("http", 8080)])),
        Object::Deployment(deployment("istioinaction", "catalog", &[("http", 3000)])),
        Object::Service(service("istioinaction", "webapp", &[("http", 80, 8080)])),
        Object::Service(service("istioinaction", "catalog", &[("http", 80, 3000)])),
        service_account("default", "sleep"),
        service_account("default", "sleep-injected"),
        Object::Deployment(deployment("default", "sleep", &[])),
        Object::Deployment(injected),
    ]
}
