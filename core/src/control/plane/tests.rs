use std::net::{IpAddr, Ipv4Addr};

use super::super::testing::{
    NOW, deployment, istio_in_action, key, meta, namespace, peer_authentication, pod,
    request_authentication, service, service_account,
};
use super::*;
use crate::accept::PortKind;
use crate::api::authorization_policy::{Action, AuthorizationPolicy, Operation, Rule};
use crate::api::load::{Text, load_objects};
use crate::api::object::Kind;
use crate::api::peer_authentication::Mode;
use crate::api::request_authentication::KeySource;
use crate::snapshot::Endpoints;

fn plane(objects: Vec<Object>) -> Plane {
    let mut plane = Plane::new();
    plane.apply(objects, NOW).unwrap();
    plane
}

fn pod_key(namespace: &str, name: &str) -> PodKey {
    PodKey {
        namespace: namespace.into(),
        name: name.into(),
    }
}

fn webapp() -> PodKey {
    pod_key("istioinaction", "webapp-0")
}

fn refusals(plane: &mut Plane, objects: Vec<Object>) -> Vec<String> {
    let refused = plane.apply(objects, NOW).unwrap_err();
    refused.findings.iter().map(ToString::to_string).collect()
}

fn config(namespace: &str, config: MeshConfig) -> Object {
    Object::MeshConfig(meta(namespace, "istio"), config)
}

fn strict() -> Object {
    Object::PeerAuthentication(peer_authentication("istio-system", "default", Mode::Strict))
}

#[test]
fn a_change_is_a_version_and_what_changes_nothing_is_none() {
    let mut plane = Plane::new();
    assert_eq!(plane.version(), 1);
    assert_eq!(plane.apply(vec![], NOW), Ok(vec![]));
    assert_eq!(plane.version(), 1);
    plane.apply(istio_in_action(), NOW).unwrap();
    assert_eq!(plane.version(), 2);
    let mesh = Arc::clone(plane.mesh());
    let outcomes = plane.apply(istio_in_action(), NOW).unwrap();
    assert!(outcomes.iter().all(|o| o.change == Change::Unchanged));
    assert_eq!(plane.version(), 2);
    assert!(Arc::ptr_eq(plane.mesh(), &mesh));
    plane.apply(vec![strict()], NOW).unwrap();
    assert_eq!(plane.version(), 3);
    let wiring = Wiring::default();
    assert_eq!(plane.snapshot(&webapp(), &wiring).unwrap().version, 3);
    let keys = [key(Kind::PeerAuthentication, "istio-system", "default")];
    let outcomes = plane.delete(&keys).unwrap();
    assert_eq!(outcomes.len(), 1);
    assert_eq!(plane.version(), 4);
    assert_eq!(plane.mesh().as_ref(), mesh.as_ref());
}

#[test]
fn a_policy_is_in_force_when_it_was_taken_and_until_it_is_deleted() {
    let mut plane = plane(istio_in_action());
    let mut wiring = Wiring::default();
    wiring.upstreams.insert(8080, ([127, 0, 0, 1], 9000).into());
    let mode = |plane: &mut Plane| {
        let snapshot = plane.snapshot(&webapp(), &wiring).unwrap();
        let shown = plane.modes(&webapp()).unwrap().of(8080);
        (snapshot.inbound[&8080].mode, shown)
    };
    use crate::accept::Mode as Accepted;
    assert_eq!(mode(&mut plane), (Accepted::Permissive, Mode::Permissive));
    plane.apply(vec![strict()], NOW).unwrap();
    assert_eq!(mode(&mut plane), (Accepted::Strict, Mode::Strict));
    let keys = [key(Kind::PeerAuthentication, "istio-system", "default")];
    plane.delete(&keys).unwrap();
    assert_eq!(
        mode(&mut plane),
        (Accepted::Permissive, Mode::Permissive),
        "S-9"
    );
}

#[test]
fn one_bad_object_of_a_hundred_changes_nothing() {
    let mut plane = plane(istio_in_action());
    let (mesh, version) = (Arc::clone(plane.mesh()), plane.version());
    let mut objects: Vec<Object> = (0..99)
        .map(|i| Object::Pod(pod("default", &format!("p{i}"), None)))
        .collect();
    objects.push(Object::Pod(pod("nowhere", "bad", None)));
    assert_eq!(
        refusals(&mut plane, objects),
        [
            "bad.yaml:1:1: namespaces \"nowhere\" not found\n  hint: add a document of kind Namespace named `nowhere`"
        ]
    );
    let clash = vec![
        strict(),
        Object::Pod(pod("istioinaction", "webapp-0", None)),
    ];
    assert!(refusals(&mut plane, clash)[0].contains("a second pod"));
    assert_eq!(plane.version(), version);
    assert!(Arc::ptr_eq(plane.mesh(), &mesh));
    assert_eq!(plane.store().pods().count(), 0);
    assert_eq!(plane.store().peer_authentications().count(), 0);
}

#[test]
fn what_an_object_names_may_come_in_any_order() {
    let mut objects = istio_in_action();
    objects.reverse();
    let reversed = plane(objects);
    assert_eq!(reversed.mesh(), plane(istio_in_action()).mesh());
}

#[test]
fn a_missing_service_account_is_refused_when_a_pod_comes() {
    let mut plane = plane(istio_in_action());
    let lost = Object::Deployment(deployment("default", "lost", &[]));
    assert_eq!(
        refusals(&mut plane, vec![lost]),
        [
            "lost.yaml:1:1: serviceaccounts \"lost\" not found in `default`\n  hint: add a document of kind ServiceAccount named `lost`"
        ]
    );
    // Those that are there already run on without it.
    let keys = [key(Kind::ServiceAccount, "istioinaction", "webapp")];
    plane.delete(&keys).unwrap();
    plane.apply(vec![strict()], NOW).unwrap();
    assert!(plane.mesh().pod(&webapp()).is_some());
    let mut other = deployment("istioinaction", "webapp", &[]);
    other.replicas = 2;
    assert_eq!(
        refusals(&mut plane, vec![Object::Deployment(other)]).len(),
        1
    );
}

#[test]
fn standing_namespaces_need_no_document() {
    let objects = ["default", "istio-system", "kube-system"]
        .map(|namespace| Object::Pod(pod(namespace, "p", None)));
    assert_eq!(plane(objects.to_vec()).mesh().pods().count(), 3);
}

#[test]
fn a_namespace_goes_with_its_pods() {
    let mut plane = plane(istio_in_action());
    let outcomes = plane
        .delete(&[key(Kind::Namespace, "", "istioinaction")])
        .unwrap();
    assert_eq!(
        outcomes[0].to_string(),
        "namespace \"istioinaction\" deleted"
    );
    assert_eq!(plane.mesh().pods().count(), 2);
    assert_eq!(plane.mesh().services().count(), 0);
    let error = plane
        .delete(&[key(Kind::Service, "istioinaction", "webapp")])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Error from server (NotFound): services \"webapp\" not found"
    );
}

#[test]
fn the_configuration_of_the_mesh_is_one_of_its_objects() {
    let read = MeshConfig {
        root_namespace: "root".into(),
        trust_domain: "td.example".into(),
        ..MeshConfig::default()
    };
    let mut plane = plane(istio_in_action());
    assert_eq!(
        plane.identity(&webapp()).unwrap().as_str(),
        "spiffe://cluster.local/ns/istioinaction/sa/webapp"
    );
    let elsewhere = config("default", read.clone());
    plane.apply(vec![elsewhere], NOW).unwrap();
    assert_eq!(plane.mesh_config(), &MeshConfig::default());
    assert_eq!(plane.warnings().len(), 1);
    let root = Object::PeerAuthentication(peer_authentication("root", "mesh", Mode::Strict));
    plane
        .apply(
            vec![config("istio-system", read), namespace("root", None), root],
            NOW,
        )
        .unwrap();
    assert_eq!(
        plane.identity(&webapp()).unwrap().as_str(),
        "spiffe://td.example/ns/istioinaction/sa/webapp"
    );
    assert_eq!(plane.modes(&webapp()).unwrap().of(1), Mode::Strict);
    let bad = MeshConfig {
        trust_domain_aliases: vec!["a/b".into()],
        ..MeshConfig::default()
    };
    assert_eq!(
        refusals(&mut plane, vec![config("istio-system", bad)]),
        ["istio.yaml:1:1: `a/b` is no trust domain\n  hint: correct `meshConfig`"]
    );
    plane
        .delete(&[key(Kind::ConfigMap, "istio-system", "istio")])
        .unwrap();
    assert_eq!(plane.mesh_config(), &MeshConfig::default());
    assert_eq!(plane.modes(&webapp()).unwrap().of(1), Mode::Permissive);
}

#[test]
fn a_rule_that_cannot_be_compiled_is_said() {
    let origin = meta("default", "odd").origin;
    let operation = Operation {
        ports: vec!["none".into()],
        ..Operation::default()
    };
    let policy = AuthorizationPolicy {
        meta: meta("default", "odd"),
        selector: None,
        targets: false,
        action: Action::Allow,
        provider: None,
        rules: vec![Rule {
            from: Vec::new(),
            to: vec![operation],
            when: Vec::new(),
            origin,
        }],
        dry_run: false,
    };
    let plane = plane(vec![Object::AuthorizationPolicy(policy)]);
    let [warning] = plane.warnings() else {
        panic!("{:?}", plane.warnings())
    };
    assert!(!warning.is_error());
    assert!(
        warning
            .message
            .starts_with("ns[default]-policy[odd]-rule[0]: "),
        "{warning}"
    );
}

#[test]
fn keys_that_nobody_fetches_are_a_warning() {
    // S-228.
    let uri = KeySource::Uri("https://issuer.example/keys".into());
    let policy = request_authentication("default", "jwt", uri);
    let mut plane = plane(vec![Object::RequestAuthentication(policy)]);
    let warnings: Vec<_> = plane.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "jwt.yaml:1:1: warning: keys are not fetched yet: every token is refused until `https://issuer.example/keys` is replaced by `jwks`\n  hint: until it is corrected more is refused, or less is passed on"
        ]
    );
    let keys = [key(Kind::RequestAuthentication, "default", "jwt")];
    plane.delete(&keys).unwrap();
    assert_eq!(plane.warnings(), []);
}

#[test]
fn pods_of_new_and_old_versions_keep_their_addresses() {
    let mut plane = plane(istio_in_action());
    let address = |plane: &Plane| plane.mesh().pod(&webapp()).unwrap().address;
    let before = address(&plane);
    plane
        .apply(
            vec![
                service_account("default", "a"),
                Object::Deployment(deployment("default", "a", &[])),
                Object::Service(service("default", "a", &[("http", 80, 8080)])),
            ],
            NOW,
        )
        .unwrap();
    assert_eq!(address(&plane), before);
    plane
        .delete(&[key(Kind::Deployment, "default", "a")])
        .unwrap();
    assert_eq!(address(&plane), before);
    let snapshot = plane.snapshot(&webapp(), &Wiring::default()).unwrap();
    let cluster = &snapshot.outbound.ports[&80].hosts["a.default"];
    assert!(matches!(&cluster.endpoints, Endpoints::Known(none) if none.is_empty()));
}

const FILE: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
      annotations: {meshward.dev/app: echo}
    spec:
      containers:
      - {name: web, image: web, ports: [{name: main, containerPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: main}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec: {rules: [{to: [{operation: {paths: [/api*]}}]}]}
"#;

fn read(text: &str) -> Vec<Object> {
    let text = Text {
        name: "shop.yaml".into(),
        text: text.into(),
    };
    load_objects(&[text], "default", false).unwrap().objects
}

#[test]
fn a_file_becomes_a_mesh_and_its_lines_are_no_change() {
    let mut plane = plane(read(FILE));
    assert_eq!(plane.warnings(), []);
    let pods: Vec<_> = plane
        .mesh()
        .pods()
        .map(|pod| (pod.name.as_str(), pod.sidecar))
        .collect();
    assert_eq!(pods, [("web-0", true), ("web-1", true)]);
    assert_eq!(
        plane.mesh().resolve("web.shop", "default"),
        Some(vec![[10, 96, 0, 2].into()])
    );
    let mut wiring = Wiring::default();
    wiring.upstreams.insert(8080, ([127, 0, 0, 1], 9000).into());
    let snapshot = plane.snapshot(&pod_key("shop", "web-1"), &wiring).unwrap();
    assert_eq!(snapshot.inbound[&8080].kind, PortKind::Http);
    assert_eq!(snapshot.inbound[&8080].http.len(), 1);
    let moved = read(&format!("# moved\n{FILE}"));
    let outcomes = plane.apply(moved, NOW).unwrap();
    assert!(
        outcomes.iter().all(|o| o.change == Change::Unchanged),
        "{outcomes:?}"
    );
}

#[test]
fn pods_that_are_kept_stay_as_they_were_made_until_they_are_renewed() {
    let mut plane = plane(read(FILE));
    plane.keep_pods();
    let facts = |plane: &Plane, name: &str| {
        let pod = plane.mesh().pod(&pod_key("shop", name)).unwrap();
        (
            pod.sidecar,
            pod.service_account.clone(),
            pod.address,
            plane.is_outdated(pod),
        )
    };
    let [first, second] = ["web-0", "web-1"].map(|name| facts(&plane, name));
    assert!(!first.3);
    let changed = FILE
        .replace("istio-injection: enabled", "istio-injection: disabled")
        .replace("containers:", "serviceAccountName: web\n      containers:")
        + "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web, namespace: shop}\n";
    plane.apply(read(&changed), NOW).unwrap();
    let kept = |(sidecar, account, address, _): &(bool, String, Ipv4Addr, bool)| {
        (*sidecar, account.clone(), *address, true)
    };
    assert_eq!(facts(&plane, "web-0"), kept(&first));
    plane.renew(&[pod_key("shop", "web-1")]).unwrap();
    assert_eq!(facts(&plane, "web-0"), kept(&first));
    let (sidecar, account, address, outdated) = facts(&plane, "web-1");
    assert_eq!((sidecar, account.as_str(), outdated), (false, "web", false));
    assert_ne!(address, second.2);
    assert_ne!(address, first.2);
    // The service leads to the new place at once.
    let service = plane.mesh().service("shop", "web").unwrap();
    let endpoints = service.ports[0].endpoints.iter();
    let at: Vec<_> = endpoints.map(|e| e.address.ip()).collect();
    assert_eq!(at, [IpAddr::V4(first.2), IpAddr::V4(address)]);
}

#[test]
fn a_pod_of_its_own_is_never_renewed_and_keeps_its_sidecar() {
    let mut plane = plane(vec![
        namespace("shop", None),
        Object::Pod(pod("shop", "web", None)),
    ]);
    plane.keep_pods();
    let before = plane.mesh().pod(&pod_key("shop", "web")).unwrap().clone();
    let mut labelled = pod("shop", "web", None);
    let inject = ("sidecar.istio.io/inject".to_owned(), "true".to_owned());
    labelled.meta.labels.extend([inject]);
    plane.apply(vec![Object::Pod(labelled)], NOW).unwrap();
    plane
        .renew(&[pod_key("shop", "web"), pod_key("shop", "nobody")])
        .unwrap();
    let after = plane.mesh().pod(&pod_key("shop", "web")).unwrap();
    assert_ne!(after.labels, before.labels);
    assert_eq!(
        (after.sidecar, after.address),
        (before.sidecar, before.address)
    );
}
