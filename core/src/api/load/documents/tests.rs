use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::api::load::{
    Cause, Finding, Objects, Refused, Text, load_keys, load_keys_and_warnings, load_objects,
};

const BOOKINFO: &str = include_str!("bookinfo.yaml");
const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n";

fn text(text: &str) -> Text {
    Text {
        name: Arc::from("f"),
        text: text.to_owned(),
    }
}

fn load(content: &str) -> Result<Objects, Refused> {
    load_objects(&[text(content)], "default", false)
}

fn keys(content: &str) -> Result<Vec<Key>, Refused> {
    load_keys(&[text(content)], "default")
}

fn names(keys: &[Key]) -> Vec<String> {
    keys.iter()
        .map(|key| format!("{} {key}", key.namespace))
        .collect()
}

fn resource(api_version: &str, kind: &str) -> String {
    format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{}}\n")
}

#[test]
fn files_as_they_are_commonly_written_load_without_a_warning() {
    let loaded = load_objects(&[text(BOOKINFO)], "default", true).expect("it is valid");
    assert_eq!(loaded.warnings, []);
    let found: Vec<Key> = loaded.objects.iter().map(Object::key).collect();
    assert_eq!(
        names(&found),
        [
            " namespace/bookinfo",
            "bookinfo service/details",
            "bookinfo serviceaccount/bookinfo-details",
            "bookinfo deployment.apps/details-v1",
            "bookinfo service/productpage",
            "bookinfo serviceaccount/bookinfo-productpage",
            "bookinfo deployment.apps/productpage-v1",
            "default serviceaccount/sleep",
            "default service/sleep",
            "default deployment.apps/sleep",
            "default serviceaccount/httpbin",
            "default service/httpbin",
            "default deployment.apps/httpbin",
            "bookinfo pod/debug",
            "istio-system peerauthentication.security.istio.io/default",
            "bookinfo authorizationpolicy.security.istio.io/details-viewer",
            "istio-system configmap/istio",
        ]
    );
    assert_eq!(keys(BOOKINFO), Ok(found));
    assert!(matches!(
        loaded.objects.last(),
        Some(Object::MeshConfig(meta, config)) if config.access_log_file == "/dev/stdout" && meta.labels.len() == 2
    ));
}

#[test]
fn lists_and_json_are_read_as_kubectl_reads_them() {
    let service = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}"#;
    let nameless = service.replace(r#""apiVersion": "v1", "kind": "Service", "#, "");
    for list in [
        service.to_owned(),
        format!(r#"{{"apiVersion": "v1", "kind": "List", "items": [{service}]}}"#),
        format!(
            r#"{{"apiVersion": "v1", "kind": "ServiceList", "metadata": {{}}, "items": [{service}]}}"#
        ),
        format!(r#"{{"apiVersion": "v1", "kind": "ServiceList", "items": [{nameless}]}}"#),
        format!(
            r#"{{"apiVersion": "v1", "kind": "List", "items": [{{"apiVersion": "v1", "kind": "ServiceList", "items": [{nameless}]}}]}}"#
        ),
        format!("{service}\n---\n"),
    ] {
        let loaded = load(&list).unwrap_or_else(|refused| panic!("{list}: {refused}"));
        assert_eq!(
            (loaded.objects.len(), loaded.warnings.len()),
            (1, 0),
            "{list}"
        );
        assert_eq!(keys(&list), Ok(vec![loaded.objects[0].key()]), "{list}");
    }
    let refused = load(&format!(
        r#"{{"apiVersion": "v1", "kind": "List", "items": [{nameless}]}}"#
    ))
    .expect_err("nobody says what the item is");
    assert_eq!(refused.findings.len(), 1, "{refused}");
    let refused = load("apiVersion: v1\nkind: List\n").expect_err("it has no items");
    assert_eq!(refused.findings.len(), 1, "{refused}");
}

#[test]
fn kinds_of_others_are_skipped_with_one_warning_each() {
    let others = [
        ("v1", "Secret"),
        ("v1", "ConfigMap"),
        ("v1", "ConfigMap"),
        ("v1", "PersistentVolumeClaim"),
        ("networking.k8s.io/v1", "Ingress"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("rbac.authorization.k8s.io/v1", "Role"),
        ("policy/v1", "PodDisruptionBudget"),
        ("serving.knative.dev/v1", "Service"),
        ("install.example.com/v1", "Deployment"),
    ];
    let content: Vec<String> = others
        .iter()
        .enumerate()
        .map(|(i, (version, kind))| {
            resource(version, kind).replace("name: x", &format!("name: x{i}"))
        })
        .collect();
    let content = content.join("---\n");
    let loaded = load(&content).expect("nothing is wrong");
    assert_eq!(
        (loaded.objects.len(), loaded.warnings.len()),
        (0, others.len())
    );
    assert_eq!(
        loaded.warnings[4].to_string(),
        "f:21:1: warning: Ingress of `networking.k8s.io/v1` is skipped\n  hint: nothing here reads this kind; move it to a file of its own"
    );
    let refused = load_objects(&[text(&content)], "default", true).expect_err("it is strict");
    assert!(refused.findings.iter().all(Finding::is_error));
    assert_eq!(refused.findings.len(), others.len());
}

#[test]
fn workloads_that_are_not_run_are_said_to_be_missing() {
    for (version, kind) in [
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("extensions/v1beta1", "DaemonSet"),
        ("v1", "ReplicationController"),
        ("batch/v1", "Job"),
        ("batch/v1beta1", "CronJob"),
    ] {
        let loaded = load(&resource(version, kind)).expect("nothing is wrong");
        let expected = format!(
            "f:1:1: warning: {kind} of `{version}` is not read: its pods are missing from the mesh"
        );
        assert!(
            matches!(loaded.warnings.as_slice(), [one] if one.to_string().starts_with(&expected)),
            "{:?}",
            loaded.warnings
        );
        assert!(load_objects(&[text(&resource(version, kind))], "default", true).is_err());
    }
    for (version, kind) in [
        ("v1", "Endpoints"),
        ("discovery.k8s.io/v1", "EndpointSlice"),
    ] {
        let loaded = load(&resource(version, kind)).expect("nothing is wrong");
        assert!(
            matches!(loaded.warnings.as_slice(), [one] if one.message.contains("no other endpoints")),
            "{kind}"
        );
    }
}

#[test]
fn a_slip_in_the_kind_or_its_version_is_never_skipped() {
    for (version, kind, expected) in [
        (
            "v1",
            "Deployment",
            "f:1:13: `v1` is no `apiVersion` of `Deployment`\n  hint: write `apiVersion: apps/v1`",
        ),
        (
            "extensions/v1beta1",
            "Deployment",
            "f:1:13: `extensions/v1beta1` is no `apiVersion` of `Deployment`\n  hint: write `apiVersion: apps/v1`",
        ),
        (
            "apps/v1",
            "Service",
            "f:1:13: `apps/v1` is no `apiVersion` of `Service`\n  hint: write `apiVersion: v1`",
        ),
        (
            "v2",
            "Pod",
            "f:1:13: `v2` is no `apiVersion` of `Pod`\n  hint: write `apiVersion: v1`",
        ),
        (
            "v1",
            "Servcie",
            "f:2:7: `v1` has no kind `Servcie`\n  hint: did you mean `Service`?",
        ),
        (
            "v1",
            "pod",
            "f:2:7: `v1` has no kind `pod`\n  hint: did you mean `Pod`?",
        ),
        (
            "apps/v1",
            "Deploymnet",
            "f:2:7: `apps/v1` has no kind `Deploymnet`\n  hint: did you mean `Deployment`?",
        ),
        (
            "v1",
            "Widget",
            "f:2:7: `v1` has no kind `Widget`\n  hint: look at",
        ),
        (
            "v1",
            "PeerAuthentication",
            "f:1:13: `v1` is no `apiVersion` of `PeerAuthentication`",
        ),
        (
            "security.istio.io/v1",
            "PeerAuthn",
            "f:2:7: `security.istio.io` has no kind `PeerAuthn`",
        ),
    ] {
        for refused in [
            load(&resource(version, kind)).err(),
            keys(&resource(version, kind)).err(),
        ] {
            let refused = refused.expect("it is wrong");
            assert_eq!(refused.findings.len(), 1, "{refused}");
            assert!(refused.to_string().starts_with(expected), "{refused}");
        }
    }
}

#[test]
fn what_is_valid_and_not_enforced_refuses_everything() {
    for (version, kind) in [
        ("networking.istio.io/v1", "DestinationRule"),
        ("networking.istio.io/v1", "VirtualService"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ] {
        let refused = load(&format!("{SERVICE}---\n{}", resource(version, kind)))
            .expect_err("it is not enforced");
        assert!(
            matches!(refused.findings.as_slice(), [one] if one.cause == Cause::NotEnforced && one.origin.line == 6),
            "{refused}"
        );
    }
}

#[test]
fn one_bad_document_of_a_hundred_refuses_all_with_every_finding() {
    let mut documents: Vec<String> = (0..100)
        .map(|i| SERVICE.replace("name: web", &format!("name: web-{i}")))
        .collect();
    assert_eq!(
        load(&documents.join("---\n")).map(|loaded| loaded.objects.len()),
        Ok(100)
    );
    documents[40] = documents[40].replace("port: 80", "port: 0, protocol: tcp");
    documents.push(resource("v1", "Secret"));
    let refused = load(&documents.join("---\n")).expect_err("one is bad");
    let lines: Vec<(u32, bool)> = refused
        .findings
        .iter()
        .map(|finding| (finding.origin.line, finding.is_error()))
        .collect();
    assert_eq!(lines, [(204, true), (204, true), (501, false)], "{refused}");
}

#[test]
fn two_objects_of_one_key_are_an_error_across_texts() {
    let other = Text {
        name: Arc::from("g"),
        text: SERVICE.replace("name: web", "name: web, namespace: default"),
    };
    let texts = [text(SERVICE), other];
    let expected = "g:1:1: Service `default/web` is here twice\n  hint: the first is at f:1:1";
    for refused in [
        load_objects(&texts, "default", false).err(),
        load_keys(&texts, "default").err(),
    ] {
        assert_eq!(refused.expect("it is here twice").to_string(), expected);
    }
    assert_eq!(
        load_objects(&texts, "other", false).map(|loaded| loaded.objects.len()),
        Ok(2)
    );
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    let refused = load(&format!("{namespace}---\n{namespace}")).expect_err("it is here twice");
    assert_eq!(
        refused.to_string(),
        "f:5:1: Namespace `a` is here twice\n  hint: the first is at f:1:1"
    );
}

#[test]
fn mesh_config_comes_bare_or_in_its_config_map_but_once() {
    let bare = "# head\n---\nmesh: {trustDomain: td}\n";
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: mesh, creationTimestamp: 2026-01-02T03:04:05Z}\ndata: {mesh: 'trustDomain: td'}\n";
    for (content, expected, created) in [
        (bare, ("istio-system", "istio"), 0),
        (map, ("mesh", "istio"), 1_767_323_045),
    ] {
        let loaded = load(content).expect("it is valid");
        let [Object::MeshConfig(meta, config)] = loaded.objects.as_slice() else {
            panic!("{:?}", loaded.objects);
        };
        assert_eq!((meta.namespace.as_str(), meta.name.as_str()), expected);
        assert_eq!(
            (config.trust_domain.as_str(), meta.created),
            ("td", created)
        );
        assert_eq!(keys(content), Ok(vec![loaded.objects[0].key()]));
    }
    let refused = load(&format!("{bare}---\n{map}")).expect_err("there are two");
    assert!(
        refused
            .to_string()
            .starts_with("f:8:14: a second `meshConfig`\n  hint: the first is at f:3:1"),
        "{refused}"
    );
    let refused = keys(&format!("{map}---\n{bare}")).expect_err("there are two");
    assert!(
        refused
            .to_string()
            .starts_with("f:8:1: a second `meshConfig`\n  hint: the first is at f:1:1"),
        "{refused}"
    );
    let refused = load(&map.replace("trustDomain", "trustdomain")).expect_err("it is wrong");
    assert_eq!(refused.findings.len(), 1, "{refused}");
    let other = map.replace("name: istio", "name: istio-1-20");
    assert_eq!(
        load(&other).map(|loaded| (loaded.objects.len(), loaded.warnings.len())),
        Ok((0, 1))
    );
}

#[test]
fn keys_need_nothing_but_names() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
        ---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, unheard: of}\nspec: 5\n\
        ---\napiVersion: security.istio.io/v1beta1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {rules: nonsense}\n\
        ---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    let found = keys(text).expect("nothing but names counts");
    assert_eq!(
        names(&found),
        [
            "shop service/web",
            "default deployment.apps/web",
            "default authorizationpolicy.security.istio.io/p",
            " namespace/shop",
        ]
    );
}

#[test]
fn keys_of_kinds_that_nothing_here_acts_on_are_passed_over_and_those_of_istio_refused() {
    for (version, kind) in [
        ("v1", "Secret"),
        ("v1", "ConfigMap"),
        ("apps/v1", "StatefulSet"),
        ("example.com/v1", "Widget"),
    ] {
        let texts = [text(&format!("{SERVICE}---\n{}", resource(version, kind)))];
        let (found, warnings) =
            load_keys_and_warnings(&texts, "default").expect("it is passed over");
        assert_eq!(names(&found), ["default service/web"]);
        let loaded = load_objects(&texts, "default", false).expect("here too");
        assert_eq!(warnings, loaded.warnings);
        let expected = format!("f:6:1: warning: {kind} of `{version}` is ");
        assert!(
            warnings[0].to_string().starts_with(&expected),
            "{warnings:?}"
        );
    }
    let gateway = resource("networking.istio.io/v1", "Gateway");
    let refused = keys(&format!("{SERVICE}---\n{gateway}")).expect_err("no mesh holds it");
    let expected = "f:6:1: Gateway of `networking.istio.io/v1` is no part of a mesh\n  hint: ";
    assert!(refused.to_string().starts_with(expected), "{refused}");
    assert_eq!(refused.findings.len(), 1, "{refused}");
    for nameless in [
        "apiVersion: v1\nkind: Pod\n",
        "apiVersion: v1\nkind: Pod\nmetadata: {}\n",
        "a: b\n",
        "- 1\n",
    ] {
        assert_eq!(
            keys(nameless).map_err(|refused| refused.findings.len()),
            Err(1),
            "{nameless}"
        );
    }
}

#[test]
fn the_api_server_s_own_fields_of_metadata_are_passed_over_in_its_kinds_alone() {
    let unknown = "metadata: {clusterName: a, name: web";
    assert!(load(&SERVICE.replace("metadata: {name: web", unknown)).is_ok());
    let policy =
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: web}\n";
    assert!(load(policy).is_ok());
    assert!(load(&policy.replace("metadata: {name: web", unknown)).is_err());
}

proptest! {
    #[test]
    fn damaged_meshes_never_panic_and_keys_are_those_of_the_objects(
        from in 0..BOOKINFO.len(),
        len in 0..1000usize,
        changes in proptest::collection::vec((0..BOOKINFO.len(), any::<u8>()), 0..8),
    ) {
        let mut bytes = BOOKINFO.as_bytes().to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        let bytes = bytes.get(from..(from + len).min(bytes.len())).unwrap_or(&bytes);
        let damaged = text(&String::from_utf8_lossy(bytes));
        let keys = load_keys(std::slice::from_ref(&damaged), "default");
        if let Ok(loaded) = load_objects(&[damaged], "default", true) {
            let expected: Vec<Key> = loaded.objects.iter().map(Object::key).collect();
            prop_assert_eq!(keys, Ok(expected));
        }
    }

    #[test]
    fn a_document_without_a_line_never_panics(line in 0..BOOKINFO.lines().count()) {
        let lines = BOOKINFO.lines().enumerate();
        let kept: Vec<&str> = lines.filter(|(i, _)| *i != line).map(|(_, text)| text).collect();
        let kept = text(&kept.join("\n"));
        let lax = load_objects(std::slice::from_ref(&kept), "default", false);
        let strict = load_objects(&[kept], "default", true);
        prop_assert!(lax.is_ok() || strict.is_err(), "strict takes nothing that is refused otherwise");
    }
}
