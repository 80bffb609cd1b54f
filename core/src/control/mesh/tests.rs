use super::super::testing::{
    NOW, deployment, istio_in_action, labels, meta, namespace, pod, service, spec,
};
use super::*;
use crate::api::object::Object;
use PortKind::{Auto, Http, Tcp};

fn build(objects: Vec<Object>) -> Result<Mesh, Vec<Finding>> {
    let mut store = Store::default();
    store.apply(objects, NOW);
    Mesh::build(&store, &Addresses::default()).map(|(mesh, _)| mesh)
}

fn mesh(objects: Vec<Object>) -> Mesh {
    build(objects).unwrap()
}

fn key(namespace: &str, name: &str) -> PodKey {
    PodKey {
        namespace: namespace.into(),
        name: name.into(),
    }
}

fn kinds(mesh: &Mesh, namespace: &str, name: &str) -> Vec<(u16, PortKind)> {
    let pod = mesh.pod(&key(namespace, name)).unwrap();
    pod.ports
        .iter()
        .map(|port| (port.port, port.kind))
        .collect()
}

fn endpoints(mesh: &Mesh, namespace: &str, name: &str) -> Vec<Vec<String>> {
    let service = mesh.service(namespace, name).unwrap();
    let ports = service.ports.iter();
    ports
        .map(|port| {
            port.endpoints
                .iter()
                .map(|e| e.address.to_string())
                .collect()
        })
        .collect()
}

#[test]
fn the_tutorials_mesh_comes_out_of_its_objects() {
    let mesh = mesh(istio_in_action());
    let pods: Vec<_> = mesh
        .pods()
        .map(|pod| {
            let address = pod.address.to_string();
            (pod.name.as_str(), address, pod.sidecar, pod.tls_mode_istio)
        })
        .collect();
    assert_eq!(
        pods,
        [
            ("sleep-0", "127.1.0.1".into(), false, false),
            ("sleep-injected-0", "127.1.0.2".into(), true, true),
            ("catalog-0", "127.1.0.3".into(), true, true),
            ("webapp-0", "127.1.0.4".into(), true, true),
        ]
    );
    let webapp = mesh.service("istioinaction", "webapp").unwrap();
    assert_eq!(webapp.fqdn(), "webapp.istioinaction.svc.cluster.local");
    assert_eq!(webapp.cluster_ip, Some([10, 96, 0, 3].into()));
    assert_eq!(
        endpoints(&mesh, "istioinaction", "webapp"),
        [["127.1.0.4:8080"]]
    );
    assert_eq!(kinds(&mesh, "istioinaction", "webapp-0"), [(8080, Http)]);
    assert_eq!(mesh.warnings(), []);
}

#[test]
fn objects_in_any_order_make_the_same_mesh() {
    let objects = istio_in_action();
    let first = mesh(objects.clone());
    for turn in 1..objects.len() {
        let mut other = objects.clone();
        other.rotate_left(turn);
        assert_eq!(mesh(other.clone()), first);
        other.reverse();
        assert_eq!(mesh(other), first);
    }
}

#[test]
fn a_deployment_has_its_pods_by_number() {
    let mut web = deployment("default", "web", &[("http", 8080)]);
    web.replicas = 3;
    let mesh = mesh(vec![
        Object::Deployment(web),
        Object::Service(service("default", "web", &[("http", 80, 8080)])),
    ]);
    let pods: Vec<_> = mesh.pods().map(|pod| pod.name.as_str()).collect();
    assert_eq!(pods, ["web-0", "web-1", "web-2"]);
    assert_eq!(
        endpoints(&mesh, "default", "web"),
        [["127.1.0.1:8080", "127.1.0.2:8080", "127.1.0.3:8080"]]
    );
}

#[test]
fn two_pods_of_one_name_are_refused() {
    let objects = vec![
        Object::Deployment(deployment("default", "web", &[])),
        Object::Pod(pod("default", "web-0", None)),
    ];
    let findings = build(objects).unwrap_err();
    let [finding] = findings.as_slice() else {
        panic!("{findings:?}")
    };
    assert_eq!(finding.origin.to_string(), "web-0.yaml:1:1");
    assert_eq!(
        finding.message,
        "a second pod `default/web-0`; the first comes from web.yaml:1:1"
    );
}

#[test]
fn every_error_is_said_at_once() {
    let mut many = deployment("default", "many", &[]);
    many.replicas = u32::MAX;
    let objects = vec![
        Object::Deployment(many),
        Object::Pod(pod("default", "a", Some([127, 7, 0, 1]))),
        Object::Pod(pod("default", "b", Some([127, 7, 0, 1]))),
        Object::Pod(pod("default", "c", Some([127, 0, 0, 1]))),
        Object::Deployment(deployment("default", "entry", &[("x", 15001)])),
    ];
    let findings = build(objects).unwrap_err();
    let places: Vec<_> = findings.iter().map(|f| f.origin.to_string()).collect();
    // Without addresses nothing is said of ports.
    assert_eq!(places, ["b.yaml:1:1", "c.yaml:1:1", "many.yaml:1:1"]);
    let entry = Object::Deployment(deployment("default", "entry", &[("x", 15002)]));
    let findings = build(vec![entry]).unwrap_err();
    assert_eq!(findings[0].origin.to_string(), "entry.yaml:1:1");
}

#[test]
fn a_port_speaks_what_its_protocol_or_its_name_says() {
    let kind = |name: &str, protocol: Option<&str>, port| {
        kind_of(&ServicePort {
            name: name.into(),
            port,
            target: TargetPort::Number(1),
            app_protocol: protocol.map(Into::into),
        })
    };
    for name in [
        "http",
        "HTTP",
        "http-web",
        "http2",
        "grpc",
        "grpc-x",
        "grpc-web",
        "grpc-web-x",
    ] {
        assert_eq!(kind(name, None, 1), Http, "{name}");
    }
    for name in [
        "tcp", "tcp-db", "https", "https-x", "tls", "mongo", "mysql", "redis", "udp",
    ] {
        assert_eq!(kind(name, None, 1), Tcp, "{name}");
    }
    for name in ["", "web", "httpx", "web-http", "mongodb", "grpcweb"] {
        assert_eq!(kind(name, None, 1), Auto, "{name}");
    }
    assert_eq!(kind("tcp", Some("http"), 1), Http, "appProtocol wins");
    assert_eq!(kind("http", Some("tcp"), 1), Tcp);
    assert_eq!(kind("tcp", Some("kubernetes.io/h2c"), 1), Http);
    assert_eq!(kind("http", Some("kubernetes.io/wss"), 1), Tcp);
    assert_eq!(kind("http", Some("example.com/own"), 1), Auto);
    assert_eq!(kind("", None, 3306), Tcp, "the server speaks first");
    assert_eq!(kind("http", None, 3306), Http);
}

#[test]
fn a_named_target_port_is_looked_up_in_each_pod() {
    let mut service = service("default", "web", &[("http", 80, 0)]);
    service.selector = labels(&[("tier", "front")]);
    service.ports[0].target = TargetPort::Name("web".into());
    let draft = |name: &str, ports: &[(&str, u16)]| {
        let mut pod = pod("default", name, None);
        pod.meta.labels = labels(&[("tier", "front"), ("app", name)]);
        pod.spec = spec("default", ports);
        Object::Pod(pod)
    };
    let mesh = mesh(vec![
        draft("a", &[("web", 8080)]),
        draft("b", &[("admin", 1), ("web", 9090)]),
        draft("c", &[("other", 8080)]),
        Object::Service(service),
    ]);
    assert_eq!(
        endpoints(&mesh, "default", "web"),
        [["127.1.0.1:8080", "127.1.0.2:9090"]]
    );
    assert_eq!(mesh.service("default", "web").unwrap().pods.len(), 3);
    assert_eq!(kinds(&mesh, "default", "b"), [(1, Auto), (9090, Http)]);
    assert_eq!(kinds(&mesh, "default", "c"), [(8080, Auto)], "S-23");
}

#[test]
fn a_service_selects_by_all_labels_within_its_namespace() {
    let draft = |namespace: &str, name: &str, pairs: &[(&str, &str)]| {
        let mut pod = pod(namespace, name, None);
        pod.meta.labels = labels(pairs);
        Object::Pod(pod)
    };
    let of = |pairs: &[(&str, &str)]| {
        let mut service = service("default", "s", &[("tcp", 80, 80)]);
        service.selector = labels(pairs);
        let mesh = mesh(vec![
            namespace("shop", None),
            draft("default", "a", &[("app", "a"), ("v", "1")]),
            draft("default", "b", &[("app", "a"), ("v", "2")]),
            draft("shop", "c", &[("app", "a"), ("v", "1")]),
            Object::Service(service),
        ]);
        let service = mesh.service("default", "s").unwrap();
        service
            .pods
            .iter()
            .map(|pod| pod.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(of(&[("app", "a")]), ["a", "b"]);
    assert_eq!(of(&[("app", "a"), ("v", "1")]), ["a"]);
    assert_eq!(of(&[("app", "a"), ("v", "3")]), [""; 0]);
    assert_eq!(of(&[]), [""; 0], "no selector: endpoints by hand");
}

#[test]
fn of_services_that_disagree_about_a_port_the_oldest_counts() {
    let made = |name: &str, kind: &str, created| {
        let mut service = service("default", name, &[(kind, 80, 8080)]);
        service.selector = labels(&[("app", "web")]);
        service.meta.created = created;
        Object::Service(service)
    };
    let web = Object::Deployment(deployment("default", "web", &[("", 8080)]));
    let mesh = mesh(vec![web, made("a", "http", 7), made("b", "tcp", 6)]);
    assert_eq!(kinds(&mesh, "default", "web-0"), [(8080, Tcp)]);
    let [warning] = mesh.warnings() else {
        panic!("{:?}", mesh.warnings())
    };
    assert!(!warning.is_error());
    assert_eq!(warning.origin.to_string(), "a.yaml:1:1");
    assert!(
        warning
            .message
            .contains("service `default/b` at b.yaml:1:1")
    );
}

#[test]
fn headless_services_have_no_address_and_their_endpoints() {
    let mut web = service("default", "web", &[("tcp", 80, 80)]);
    web.cluster_ip = ClusterIp::Headless;
    let mesh = mesh(vec![
        Object::Pod(pod("default", "web", Some([127, 5, 0, 1]))),
        Object::Service(web),
    ]);
    assert_eq!(mesh.service("default", "web").unwrap().cluster_ip, None);
    assert_eq!(endpoints(&mesh, "default", "web"), [["127.5.0.1:80"]]);
}

#[test]
fn a_pod_may_say_itself_how_it_is_called() {
    let with = |mode: Option<&str>, injected: &str| {
        let mut pod = pod("default", "p", None);
        pod.meta.labels = labels(&[("sidecar.istio.io/inject", injected)]);
        if let Some(mode) = mode {
            pod.meta.labels.insert(TLS_MODE.into(), mode.into());
        }
        let mesh = mesh(vec![Object::Pod(pod)]);
        mesh.pod(&key("default", "p")).unwrap().tls_mode_istio
    };
    assert!(with(None, "true"), "S-60");
    assert!(!with(None, "false"));
    assert!(with(Some("istio"), "false"));
    assert!(!with(Some("disabled"), "true"));
}

#[test]
fn what_injection_does_not_understand_is_said_once() {
    let mut web = deployment("default", "web", &[]);
    web.replicas = 5;
    web.annotations = labels(&[("sidecar.istio.io/inject", "true")]);
    let odd = namespace("shop", Some("enable"));
    let mesh = mesh(vec![Object::Deployment(web), odd]);
    let places: Vec<_> = mesh
        .warnings()
        .iter()
        .map(|w| w.origin.to_string())
        .collect();
    assert_eq!(places, ["shop.yaml:1:1", "web.yaml:1:1"]);
}

#[test]
fn addresses_outlive_a_change() {
    let mut store = Store::default();
    store.apply(istio_in_action(), NOW);
    let (before, addresses) = Mesh::build(&store, &Addresses::default()).unwrap();
    store.apply(vec![Object::Pod(pod("default", "a", None))], NOW);
    let (after, _) = Mesh::build(&store, &addresses).unwrap();
    for pod in before.pods() {
        assert_eq!(after.pod(&pod.key()).unwrap().address, pod.address);
    }
    let new = after.pod(&key("default", "a")).unwrap();
    assert_eq!(new.address.to_string(), "127.1.0.5");
    assert_eq!(new.origin, meta("default", "a").origin);
}
