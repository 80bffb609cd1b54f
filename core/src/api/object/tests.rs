use super::*;
use crate::api::load::{Text, load_objects};

const MESH: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n\
---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web, namespace: shop}\n\
---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n\
---\napiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop, annotations: {a: b}}\nspec: {containers: [{name: app}]}\n\
---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}, annotations: {a: b}}, spec: {containers: [{name: app}]}}}\n\
---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\n\
---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: {rules: [{to: [{operation: {ports: ['80']}}]}]}\n\
---\nmesh: {trustDomain: td}\n";

fn objects(name: &str, text: &str) -> Vec<Object> {
    let text = Text {
        name: Arc::from(name),
        text: text.to_owned(),
    };
    load_objects(&[text], "default", true)
        .expect("it is valid")
        .objects
}

#[test]
fn keys_read_as_kubectl_prints_them() {
    let keys: Vec<String> = objects("f", MESH)
        .iter()
        .map(|object| object.key().to_string())
        .collect();
    assert_eq!(
        keys,
        [
            "namespace/shop",
            "serviceaccount/web",
            "service/web",
            "pod/web",
            "deployment.apps/web",
            "peerauthentication.security.istio.io/p",
            "authorizationpolicy.security.istio.io/p",
            "configmap/istio",
        ]
    );
}

#[test]
fn objects_say_the_same_wherever_and_whenever_they_are_written() {
    let first = objects("f", MESH);
    let dated = MESH.replace(
        "metadata: {",
        "metadata: {creationTimestamp: 2026-01-02T03:04:05Z, ",
    );
    let second = objects("g", &format!("# moved\n\n{dated}"));
    assert_eq!(first.len(), 8);
    for (a, b) in first.iter().zip(&second) {
        assert_ne!(a, b);
        assert!(a.says_the_same(b), "{}", a.key());
    }
}

#[test]
fn objects_that_differ_in_a_field_do_not_say_the_same() {
    let first = objects("f", MESH);
    for (was, is) in [
        (
            "kind: Namespace\nmetadata: {",
            "kind: Namespace\nmetadata: {labels: {istio-injection: enabled}, ",
        ),
        ("port: 80", "port: 81"),
        ("annotations: {a: b}}\nspec", "annotations: {a: c}}\nspec"),
        ("annotations: {a: b}}, spec", "annotations: {a: c}}, spec"),
        ("ports: ['80']", "ports: ['81']"),
        ("trustDomain: td", "trustDomain: other"),
        (
            "kind: PeerAuthentication\n",
            "kind: PeerAuthentication\nspec: {mtls: {mode: STRICT}}\n",
        ),
    ] {
        let changed = MESH.replace(was, is);
        assert_ne!(changed, MESH, "{was}");
        let second = objects("f", &changed);
        let differing = first
            .iter()
            .zip(&second)
            .filter(|(a, b)| !a.says_the_same(b))
            .count();
        assert_eq!(differing, 1, "{was}");
    }
}
