use super::super::addresses::Addresses;
use super::super::testing::{
    NOW, deployment, istio_in_action, labels, meta, namespace, peer_authentication, pod,
    request_authentication, service, service_account,
};
use super::*;
use crate::accept::Mode;
use crate::api::authorization_policy::Action;
use crate::api::kube::ClusterIp;
use crate::api::object::Object;
use crate::api::peer_authentication::Mode as Written;
use crate::api::request_authentication::KeySource;
use crate::route;

struct World {
    distribution: Distribution,
    mesh: Arc<Mesh>,
}

fn world_with(config: MeshConfig, objects: Vec<Object>) -> World {
    let mut store = Store::default();
    store.apply(objects, NOW);
    let (mesh, _) = Mesh::build(&store, &Addresses::default()).unwrap();
    let mesh = Arc::new(mesh);
    World {
        distribution: Distribution::new(7, Arc::clone(&mesh), config, &store).unwrap(),
        mesh,
    }
}

fn world(objects: Vec<Object>) -> World {
    world_with(MeshConfig::default(), objects)
}

fn tutorial(more: Vec<Object>) -> World {
    let mut objects = istio_in_action();
    objects.extend(more);
    world(objects)
}

fn key(namespace: &str, name: &str) -> PodKey {
    PodKey {
        namespace: namespace.into(),
        name: name.into(),
    }
}

impl World {
    /// With an application at 127.0.0.1 behind every port, at the port plus 20000.
    fn snapshot(&mut self, namespace: &str, name: &str) -> Arc<Snapshot> {
        let key = key(namespace, name);
        let pod = self.mesh.pod(&key).unwrap();
        let upstreams = pod
            .ports
            .iter()
            .map(|port| (port.port, ([127, 0, 0, 1], port.port + 20_000).into()))
            .collect();
        let wiring = Wiring {
            upstreams,
            first_listener: 3,
        };
        self.distribution.snapshot(&key, &wiring).unwrap()
    }

    fn outbound(&mut self, namespace: &str, name: &str) -> Arc<Outbound> {
        Arc::clone(&self.snapshot(namespace, name).outbound)
    }
}

/// Each endpoint of a cluster, and whether it is called in TLS.
fn endpoints(outbound: &Outbound, cluster: &str) -> Vec<(String, bool)> {
    let cluster = outbound.clusters.iter().find(|c| c.name == cluster);
    match &cluster.unwrap().endpoints {
        Endpoints::Known(endpoints) => endpoints
            .iter()
            .map(|e| (e.address.to_string(), e.tls.is_some()))
            .collect(),
        Endpoints::OriginalDestination { tls } => vec![("original".into(), tls.is_some())],
    }
}

fn selecting(mut policy: PeerAuthentication, app: &str) -> Object {
    policy.selector = Some(labels(&[("app", app)]));
    Object::PeerAuthentication(policy)
}

fn strict(namespace: &str) -> Object {
    Object::PeerAuthentication(peer_authentication(namespace, "default", Written::Strict))
}

const CATALOG: &str = "outbound|80||catalog.istioinaction.svc.cluster.local";

#[test]
fn a_pods_ways_in_are_its_ports_as_services_declare_them() {
    let mut world = tutorial(vec![strict("istio-system")]);
    let snapshot = world.snapshot("istioinaction", "webapp-0");
    assert_eq!(snapshot.version, 7);
    assert_eq!(snapshot.address, Some([127, 1, 0, 4].into()));
    let [port] = snapshot.inbound.values().collect::<Vec<_>>()[..] else {
        panic!("webapp has one port")
    };
    assert_eq!(port.cluster, "inbound|8080||");
    assert_eq!((port.port, port.listener), (8080, 3));
    assert_eq!((port.kind, port.mode), (PortKind::Http, Mode::Strict));
    assert_eq!(port.upstream.to_string(), "127.0.0.1:28080");
    assert_eq!(port.from, Some([127, 0, 0, 6].into()), "S-330");
    assert!(!port.records);
    let nobody = key("istioinaction", "nobody");
    assert_eq!(
        world
            .distribution
            .snapshot(&nobody, &Wiring::default())
            .unwrap_err(),
        SnapshotError::NoPod(nobody)
    );
}

#[test]
fn a_port_without_an_application_has_no_way_in() {
    let mut world = tutorial(vec![]);
    let webapp = key("istioinaction", "webapp-0");
    let none = world
        .distribution
        .snapshot(&webapp, &Wiring::default())
        .unwrap();
    assert!(none.inbound.is_empty());
    let mut wiring = Wiring::default();
    wiring.upstreams.insert(8080, ([192, 0, 2, 1], 80).into());
    let elsewhere = world.distribution.snapshot(&webapp, &wiring).unwrap();
    assert_eq!(elsewhere.inbound[&8080].from, None);
}

#[test]
fn policies_reach_the_pods_that_they_select() {
    let policy = |namespace: &str, selector: Option<&str>| {
        Object::AuthorizationPolicy(AuthorizationPolicy {
            meta: meta(namespace, "deny"),
            selector: selector.map(|app| labels(&[("app", app)])),
            targets: false,
            action: Action::Deny,
            provider: None,
            rules: Vec::new(),
            dry_run: false,
        })
    };
    let rules = |policy: Object| {
        let mut world = tutorial(vec![policy]);
        ["webapp-0", "catalog-0"].map(|name| {
            let snapshot = world.snapshot("istioinaction", name);
            let port = snapshot.inbound.values().next().unwrap();
            (port.http.len(), port.tcp.len())
        })
    };
    assert_eq!(rules(policy("istio-system", None)), [(1, 1), (1, 1)]);
    assert_eq!(
        rules(policy("istioinaction", Some("webapp"))),
        [(1, 1), (0, 0)]
    );
    assert_eq!(
        rules(policy("istio-system", Some("catalog"))),
        [(0, 0), (1, 1)],
        "S-3"
    );
    assert_eq!(rules(policy("default", None)), [(0, 0), (0, 0)], "S-1");
}

#[test]
fn what_is_demanded_of_tokens_reaches_the_pods_that_it_selects() {
    // S-210, S-5, S-9.
    let demands = |namespace: &str, selector: Option<&str>, targets: bool| {
        let mut policy = request_authentication(namespace, "jwt", KeySource::Discovery);
        policy.selector = selector.map(|app| labels(&[("app", app)]));
        policy.targets = targets;
        let mut world = tutorial(vec![Object::RequestAuthentication(policy)]);
        ["webapp-0", "catalog-0"].map(|name| {
            let snapshot = world.snapshot("istioinaction", name);
            let mut ports = snapshot.inbound.values();
            ports.all(|port| !port.authn.is_empty())
        })
    };
    assert_eq!(demands("istio-system", None, false), [true, true]);
    assert_eq!(
        demands("istioinaction", Some("webapp"), false),
        [true, false]
    );
    assert_eq!(
        demands("istio-system", Some("catalog"), false),
        [false, true],
        "S-3"
    );
    assert_eq!(demands("default", None, false), [false, false], "S-1");
    assert_eq!(demands("istioinaction", None, true), [false, false], "S-5");
}

#[test]
fn requests_are_routed_by_the_names_that_the_namespace_knows() {
    let mut world = tutorial(vec![]);
    let whole = [
        "catalog.istioinaction",
        "catalog.istioinaction.svc",
        "catalog.istioinaction.svc.cluster.local",
        "catalog.istioinaction.svc.cluster.local.",
        "10.96.0.2",
    ];
    for (namespace, pod, short) in [
        ("istioinaction", "webapp-0", CATALOG),
        ("default", "sleep-injected-0", PASSTHROUGH),
    ] {
        let outbound = world.outbound(namespace, pod);
        let door = &outbound.ports[&80];
        assert_eq!(door.kind, PortKind::Http);
        let to = |host: &str| route::outbound(door, Some(host.as_bytes())).name.clone();
        for host in whole {
            assert_eq!(to(host), CATALOG, "{host} from {namespace}");
        }
        assert_eq!(to("catalog"), short);
        assert_eq!(to("catalog.default"), PASSTHROUGH);
        assert_eq!(to("catalog.istioinaction."), PASSTHROUGH);
        // Known addresses of pods are no names of services (S-62).
        assert_eq!(to("127.1.0.3"), PASSTHROUGH);
        assert!(outbound.addresses.is_empty());
        let way_out = outbound.passthrough.as_ref().unwrap();
        assert_eq!(way_out.kind, PortKind::Tcp);
        assert_eq!(way_out.otherwise.name, PASSTHROUGH);
        assert_eq!(
            endpoints(&outbound, PASSTHROUGH),
            [("original".into(), false)]
        );
    }
}

#[test]
fn a_clusters_number_is_its_position() {
    let mut world = tutorial(vec![]);
    let outbound = world.outbound("istioinaction", "webapp-0");
    assert_eq!(outbound.clusters.len(), 3);
    for (cluster, at) in outbound.clusters.iter().zip(0..) {
        assert_eq!(cluster.number, at, "{}", cluster.name);
    }
}

#[test]
fn a_client_knows_the_server_by_its_service_account() {
    let config = MeshConfig {
        trust_domain: "td.example".into(),
        trust_domain_aliases: vec!["cluster.local".into(), "td.example".into()],
        access_log_file: "/dev/stdout".into(),
        connect_timeout_ms: 1_500,
        ..MeshConfig::default()
    };
    let mut other = deployment("istioinaction", "catalog-v2", &[("http", 3000)]);
    other.labels = labels(&[("app", "catalog")]);
    other.spec.service_account = "another".into();
    let mut objects = istio_in_action();
    objects.push(Object::Deployment(other));
    let mut world = world_with(config, objects);
    let snapshot = world.snapshot("istioinaction", "webapp-0");
    assert!(snapshot.inbound[&8080].records);
    let outbound = &snapshot.outbound;
    assert!(outbound.ports[&80].records);
    let cluster = outbound
        .clusters
        .iter()
        .find(|c| c.name == CATALOG)
        .unwrap();
    assert_eq!(cluster.connect_timeout, Duration::from_millis(1_500));
    let Endpoints::Known(endpoints) = &cluster.endpoints else {
        panic!("it has an address")
    };
    let tls: Vec<_> = endpoints.iter().filter_map(|e| e.tls.as_ref()).collect();
    let [one, two] = tls[..] else {
        panic!("catalog has two pods: {endpoints:?}")
    };
    assert!(Arc::ptr_eq(one, two));
    assert_eq!(
        one.sni,
        "outbound_.80_._.catalog.istioinaction.svc.cluster.local"
    );
    assert_eq!(
        one.subject_alt_names,
        [
            "spiffe://cluster.local/ns/istioinaction/sa/another",
            "spiffe://cluster.local/ns/istioinaction/sa/catalog",
            "spiffe://td.example/ns/istioinaction/sa/another",
            "spiffe://td.example/ns/istioinaction/sa/catalog",
        ],
        "S-58"
    );
}

#[test]
fn each_endpoint_is_called_as_it_takes_it() {
    let plain = {
        let mut pod = pod("istioinaction", "bare", Some([127, 9, 0, 1]));
        pod.meta.labels = labels(&[("app", "catalog"), ("sidecar.istio.io/inject", "false")]);
        Object::Pod(pod)
    };
    let ways = |policies: Vec<Object>, config: MeshConfig| {
        let mut objects = istio_in_action();
        objects.push(plain.clone());
        objects.extend(policies);
        let mut world = world_with(config, objects);
        let outbound = world.outbound("default", "sleep-injected-0");
        let ways = endpoints(&outbound, CATALOG);
        let [(_, bare), (_, injected)] = ways[..] else {
            panic!("{ways:?}")
        };
        assert!(!bare, "a pod without sidecar takes no mTLS");
        injected
    };
    let usual = MeshConfig::default;
    let namespace_of =
        |mode| Object::PeerAuthentication(peer_authentication("istioinaction", "ns", mode));
    let own = |mode| selecting(peer_authentication("istioinaction", "own", mode), "catalog");
    assert!(ways(vec![], usual()), "S-60");
    assert!(ways(vec![strict("istio-system")], usual()));
    assert!(!ways(vec![own(Written::Disable)], usual()));
    assert!(
        !ways(vec![strict("istio-system"), own(Written::Disable)], usual()),
        "S-61"
    );
    assert!(
        !ways(
            vec![namespace_of(Written::Disable), own(Written::Strict)],
            usual()
        ),
        "S-61"
    );
    assert!(ways(
        vec![Object::PeerAuthentication(peer_authentication(
            "default",
            "ns",
            Written::Disable
        ))],
        usual()
    ));
    let mut port = peer_authentication("istioinaction", "own", Written::Strict);
    port.port_level.insert(3000, Written::Disable);
    assert!(
        !ways(vec![selecting(port.clone(), "catalog")], usual()),
        "S-60: the endpoint's port"
    );
    port.port_level = [(80, Written::Disable)].into();
    assert!(
        ways(vec![selecting(port, "catalog")], usual()),
        "not the service's port"
    );
    let off = MeshConfig {
        enable_auto_mtls: false,
        ..usual()
    };
    assert!(!ways(vec![], off));
}

#[test]
fn ports_that_are_not_http_have_a_door_at_their_address() {
    let two = service(
        "istioinaction",
        "db",
        &[("tcp", 5432, 5432), ("", 80, 9000)],
    );
    let mut world = tutorial(vec![
        Object::Service(two),
        Object::Deployment(deployment("istioinaction", "db", &[("", 5432)])),
    ]);
    let outbound = world.outbound("default", "sleep-injected-0");
    let doors: Vec<_> = outbound
        .addresses
        .iter()
        .map(|(address, door)| {
            assert!(door.hosts.is_empty());
            let name = door.otherwise.name.as_str();
            (address.to_string(), door.kind, name)
        })
        .collect();
    assert_eq!(
        doors,
        [
            (
                "10.96.0.3:80".into(),
                PortKind::Auto,
                "outbound|80||db.istioinaction.svc.cluster.local"
            ),
            (
                "10.96.0.3:5432".into(),
                PortKind::Tcp,
                "outbound|5432||db.istioinaction.svc.cluster.local"
            ),
        ]
    );
    let hosts: Vec<_> = outbound.ports[&80].hosts.keys().collect();
    assert!(
        hosts.iter().all(|host| !host.starts_with("db")),
        "{hosts:?}"
    );
    assert_eq!(
        endpoints(&outbound, "outbound|80||db.istioinaction.svc.cluster.local"),
        [("127.1.0.4:9000".into(), true)],
        "a number of a targetPort needs no declaration"
    );
}

#[test]
fn headless_services_go_where_the_call_was_meant_to() {
    let headless = |name: &str, kind: &str, created| {
        let mut service = service("istioinaction", name, &[(kind, 7000, 7000)]);
        service.cluster_ip = ClusterIp::Headless;
        service.selector = labels(&[("app", "catalog")]);
        service.meta.created = created;
        Object::Service(service)
    };
    let mut world = tutorial(vec![
        headless("young", "tcp", 8),
        headless("old", "tcp", 7),
        headless("web", "http", 9),
    ]);
    let outbound = world.outbound("istioinaction", "webapp-0");
    let [(address, door)] = outbound.addresses.iter().collect::<Vec<_>>()[..] else {
        panic!("one pod, one door")
    };
    assert_eq!(address.to_string(), "127.1.0.3:7000");
    assert_eq!(
        door.otherwise.name,
        "outbound|7000||old.istioinaction.svc.cluster.local"
    );
    let door = &outbound.ports[&7000];
    let web = route::outbound(door, Some(b"web"));
    assert_eq!(
        web.name,
        "outbound|7000||web.istioinaction.svc.cluster.local"
    );
    assert_eq!(endpoints(&outbound, &web.name), [("original".into(), true)]);

    let bare = {
        let mut pod = pod("istioinaction", "bare", None);
        pod.meta.labels = labels(&[("app", "catalog"), ("sidecar.istio.io/inject", "false")]);
        Object::Pod(pod)
    };
    let mut world = tutorial(vec![headless("web", "http", 9), bare]);
    let outbound = world.outbound("istioinaction", "webapp-0");
    let name = "outbound|7000||web.istioinaction.svc.cluster.local";
    assert_eq!(
        endpoints(&outbound, name),
        [("original".into(), false)],
        "S-62"
    );
}

#[test]
fn two_hundred_pods_and_services_share_what_they_have_in_common() {
    const EACH: usize = 100;
    let mut objects = Vec::new();
    for space in ["a", "b"] {
        objects.push(namespace(space, Some("enabled")));
        objects.push(strict(space));
        for i in 0..EACH {
            let name = format!("app{i:03}");
            objects.push(service_account(space, &name));
            objects.push(Object::Deployment(deployment(
                space,
                &name,
                &[("http", 8080)],
            )));
            let ports = [("http", 80, 8080), ("tcp", 81, 8081)];
            objects.push(Object::Service(service(space, &name, &ports)));
        }
    }
    let mut world = world(objects);
    let pods: Vec<PodKey> = world.mesh.pods().map(PodFacts::key).collect();
    assert_eq!(pods.len(), 2 * EACH);
    let (mut outbounds, mut clusters, mut doors) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut tls = BTreeSet::new();
    for pod in &pods {
        let outbound = world.outbound(&pod.namespace, &pod.name);
        if !outbounds.insert(Arc::as_ptr(&outbound)) {
            continue;
        }
        for cluster in &outbound.clusters {
            clusters.insert(Arc::as_ptr(cluster));
            if let Endpoints::Known(endpoints) = &cluster.endpoints {
                assert_eq!(endpoints.len(), 1);
                tls.extend(
                    endpoints
                        .iter()
                        .filter_map(|e| e.tls.as_ref().map(Arc::as_ptr)),
                );
            }
        }
        doors.extend(outbound.addresses.values().map(Arc::as_ptr));
        doors.extend(outbound.ports.values().map(Arc::as_ptr));
        doors.extend(outbound.passthrough.iter().map(Arc::as_ptr));
        assert_eq!(outbound.ports[&80].hosts.len(), 2 * EACH * 5 + EACH);
        assert!(outbound.ports.len() == 1 && outbound.addresses.len() == 2 * EACH);
    }
    assert_eq!(outbounds.len(), 2, "one for each namespace");
    assert_eq!(clusters.len(), 2 * (2 * EACH) + 1);
    assert_eq!(tls.len(), 2 * (2 * EACH));
    assert_eq!(doors.len(), 2 * EACH + 2 + 1);
}
