use super::super::addresses::Addresses;
use super::super::store::Store;
use super::super::testing::{NOW, deployment, istio_in_action, labels, namespace, pod, service};
use super::*;
use crate::api::kube::ClusterIp;
use crate::api::object::Object;

fn mesh(objects: Vec<Object>) -> Mesh {
    let mut store = Store::default();
    store.apply(objects, NOW);
    Mesh::build(&store, &Addresses::default()).unwrap().0
}

fn tutorial(more: Vec<Object>) -> Mesh {
    let mut objects = istio_in_action();
    objects.extend(more);
    mesh(objects)
}

#[test]
fn a_service_answers_to_the_names_of_cluster_dns() {
    let mesh = tutorial(vec![]);
    let webapp: Option<Vec<IpAddr>> = Some(vec![[10, 96, 0, 3].into()]);
    for name in [
        "webapp",
        "webapp.istioinaction",
        "webapp.istioinaction.svc",
        "webapp.istioinaction.svc.cluster.local",
        "webapp.istioinaction.svc.cluster.local.",
        "WebApp.IstioInAction",
    ] {
        assert_eq!(mesh.resolve(name, "istioinaction"), webapp, "{name}");
        let elsewhere = mesh.resolve(name, "default");
        assert_eq!(elsewhere.is_some(), name != "webapp", "{name}");
    }
    for name in [
        "",
        ".",
        "webapp.",
        "webapp.istioinaction.",
        "webapp.default",
        "webapp.istioinaction.svc.cluster",
        "x.webapp.istioinaction.svc.cluster.local",
        "istioinaction.svc.cluster.local",
        "example.com",
    ] {
        assert_eq!(mesh.resolve(name, "istioinaction"), None, "{name}");
    }
}

#[test]
fn the_own_namespace_is_searched_before_a_namespace_of_the_same_name() {
    let mesh = mesh(vec![
        namespace("svc", None),
        Object::Service(service("svc", "a", &[])),
        Object::Service(service("default", "a", &[])),
    ]);
    assert_eq!(
        mesh.resolve("a.svc", "default"),
        Some(vec![[10, 96, 0, 3].into()])
    );
    assert_eq!(
        mesh.resolve("a", "default"),
        Some(vec![[10, 96, 0, 2].into()])
    );
}

#[test]
fn a_headless_service_resolves_to_its_pods() {
    let mut web = service("default", "web", &[("http", 80, 80)]);
    web.cluster_ip = ClusterIp::Headless;
    web.selector = labels(&[("tier", "front")]);
    let draft = |name: &str, ip| {
        let mut pod = pod("default", name, Some(ip));
        pod.meta.labels = labels(&[("tier", "front")]);
        Object::Pod(pod)
    };
    let mesh = mesh(vec![
        draft("a", [127, 5, 0, 2]),
        draft("b", [127, 5, 0, 1]),
        Object::Service(web),
    ]);
    assert_eq!(
        mesh.resolve("web", "default"),
        Some(vec![[127, 5, 0, 1].into(), [127, 5, 0, 2].into()])
    );
}

fn found(mesh: &Mesh, text: &str, namespace: Option<&str>) -> String {
    match mesh.find_workload(text, namespace) {
        Ok(pod) => format!("{}.{}", pod.name, pod.namespace),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_workload_is_found_by_every_form_of_its_name() {
    let mesh = tutorial(vec![]);
    for (text, namespace, pod) in [
        ("sleep", None, "sleep-0.default"),
        ("sleep-0", None, "sleep-0.default"),
        ("pod/sleep-0", None, "sleep-0.default"),
        ("deploy/sleep", None, "sleep-0.default"),
        ("deployment/sleep", Some("default"), "sleep-0.default"),
        (
            "deploy/webapp.istioinaction",
            None,
            "webapp-0.istioinaction",
        ),
        ("webapp-0.istioinaction", None, "webapp-0.istioinaction"),
        (
            "deploy/webapp",
            Some("istioinaction"),
            "webapp-0.istioinaction",
        ),
        (
            "deploy/webapp.istioinaction",
            Some("istioinaction"),
            "webapp-0.istioinaction",
        ),
        ("deploy/webapp", None, "webapp-0.istioinaction"),
    ] {
        assert_eq!(found(&mesh, text, namespace), pod, "{text}");
    }
}

#[test]
fn an_unknown_workload_lists_the_nearest() {
    let mesh = tutorial(vec![]);
    let text = found(&mesh, "deploy/weapp", None);
    let first = "no workload `deploy/weapp`; nearest: deploy/webapp.istioinaction, pod/webapp-0.istioinaction, ";
    assert!(text.starts_with(first), "{text}");
    assert_eq!(text.split(", ").count(), NEAREST);
    let Err(WorkloadError::NotFound { nearest, .. }) =
        mesh.find_workload("deploy/webapp", Some("default"))
    else {
        panic!("there is none in that namespace")
    };
    assert_eq!(nearest[0], "deploy/webapp.istioinaction");
    // The name says one namespace and the user another.
    let text = found(&mesh, "deploy/webapp.istioinaction", Some("default"));
    let first = "no workload `deploy/webapp.istioinaction` in namespace `default`; nearest: ";
    assert!(text.starts_with(first), "{text}");
    for text in [
        "pod/sleep",
        "deploy/sleep-0",
        "job/sleep",
        "sleep.istioinaction",
        "",
        "/",
    ] {
        assert!(
            found(&mesh, text, None).starts_with("no workload"),
            "{text}"
        );
    }
    assert_eq!(
        found(&Mesh::default(), "x", None),
        "no workload `x`; the mesh has none"
    );
}

#[test]
fn an_ambiguous_workload_lists_what_it_may_be() {
    let mesh = tutorial(vec![
        namespace("shop", None),
        Object::Deployment(deployment("shop", "webapp", &[])),
        Object::Deployment(deployment("shop", "sleep", &[])),
        Object::Pod(pod("default", "sleep-injected", None)),
    ]);
    assert_eq!(
        found(&mesh, "deploy/webapp", None),
        "`deploy/webapp` may be any of these: deploy/webapp.istioinaction, deploy/webapp.shop"
    );
    assert_eq!(found(&mesh, "sleep", None), "sleep-0.default");
    assert_eq!(
        found(&mesh, "sleep-injected", None),
        "`sleep-injected` may be any of these: pod/sleep-injected.default, deploy/sleep-injected.default"
    );
    assert_eq!(
        found(&mesh, "pod/sleep-injected", None),
        "sleep-injected.default"
    );
}

#[test]
fn a_dot_may_belong_to_the_name() {
    let mesh = mesh(vec![
        namespace("b", None),
        Object::Pod(pod("default", "a.b", None)),
        Object::Pod(pod("b", "a", None)),
        Object::Pod(pod("b", "x", None)),
    ]);
    assert_eq!(found(&mesh, "a.b", None), "a.b.default");
    assert_eq!(found(&mesh, "a.b", Some("b")), "a.b");
    assert_eq!(found(&mesh, "x.b", None), "x.b");
}
