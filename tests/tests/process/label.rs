//! `label`: changes labels, with the words of kubectl; those that ask for sidecars count for pods that are made afterwards.

use crate::meshes::{Mesh, shop};
use crate::place::Place;
use crate::rollout::deployment;

#[test]
fn labels_are_set_changed_and_taken_away() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let _mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let label = |words: &[&str]| place.run(&[&["label"], words].concat());
    for (words, says) in [
        (&["ns", "shop", "team=a"][..], "namespace/shop labeled\n"),
        (&["ns", "shop", "team=a"], "namespace/shop not labeled\n"),
        (
            &["ns", "shop", "team=b", "--overwrite"],
            "namespace/shop labeled\n",
        ),
        (
            &["ns/shop", "team-", "zone-"],
            "label \"zone\" not found.\nnamespace/shop unlabeled\n",
        ),
        (
            &["po", "--all", "-n", "shop", "x=y"],
            "pod/client labeled\npod/web labeled\n",
        ),
        (
            &["po", "-l", "app=web", "-n", "shop", "x-"],
            "pod/web unlabeled\n",
        ),
        (&["sa", "default", "a="], "serviceaccount/default labeled\n"),
        (&["po", "-l", "app=nobody", "a=b"], "No resources found\n"),
    ] {
        let ran = label(words);
        assert_eq!(
            (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
            (Some(0), says, ""),
            "{words:?}"
        );
    }
    let ran = place.run(&["get", "po", "-n", "shop", "-l", "x=y", "-o", "yaml"]);
    assert!(
        ran.stdout
            .contains("    labels:\n      app: client\n      x: \"y\"\n"),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("app: web"), "{}", ran.stdout);
    label(&["ns", "shop", "istio-injection=disabled"]).refuses(
        1,
        "error: 'istio-injection' already has a value (enabled), and --overwrite is false\n",
    );
    label(&["ns", "shap", "a=b"]).refuses(
        1,
        "Error from server (NotFound): namespaces \"shap\" not found\n",
    );
    for (words, says) in [
        (
            &["ns", "shop"][..],
            "error: at least one label update is required",
        ),
        (
            &["ns", "a=b"],
            "error: one or more resources must be specified",
        ),
        (
            &["ns", "shop", "a=b", "c"],
            "error: all resources must be specified before label changes: c",
        ),
        (
            &["ns", "shop", "a=b c"],
            "error: `b c` is no value of a label",
        ),
        (&["ns", "shop", "-a=b"], "error: unexpected argument"),
        (&["ns", "shop", "a/b/c=d"], "error: "),
    ] {
        let ran = label(words);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(64), ""), "{words:?}");
        assert!(ran.stderr.starts_with(says), "{}", ran.stderr);
    }
}

#[test]
fn a_label_of_a_policy_or_pod_is_in_force_at_once() {
    let place = Place::new();
    let deny = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: deny, namespace: shop}\n\
                spec: {selector: {matchLabels: {closed: \"yes\"}}}\n";
    place.write("mesh.yaml", shop(&place) + deny);
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let status = || mesh.curl("client.shop", "http://web.shop:8080/").0;
    assert_eq!(status(), "200");
    place.run(&["label", "pod/web", "-n", "shop", "closed=yes"]);
    assert_eq!(status(), "403");
    place.run(&["label", "pod/web", "-n", "shop", "closed-"]);
    assert_eq!(status(), "200");
}

#[test]
fn injection_is_decided_anew_when_pods_are_made_anew() {
    let place = Place::new();
    let text = shop(&place) + &deployment("default", "api", 1, "");
    place.write("mesh.yaml", text);
    let range = place.range();
    let mesh = Mesh::start(&place, &["--runtime", "tokio", "--pod-range", &range]);
    let ready = |name: &str| {
        let ran = place.run(&["get", "po", name, "-n", "default"]);
        let row = ran.stdout.lines().nth(1).expect("its row").to_owned();
        row.split_whitespace().nth(1).expect("a cell").to_owned()
    };
    assert_eq!(
        (ready("api-0"), ready("sleep")),
        ("1/1".into(), "1/1".into())
    );
    let ran = place.run(&["label", "namespace", "default", "istio-injection=enabled"]);
    assert_eq!(ran.stdout, "namespace/default labeled\n");
    assert_eq!(ready("api-0"), "1/1", "not before it is made anew");
    let ran = place.run(&["rollout", "restart", "deploy/api"]);
    assert_eq!(ran.stdout, "deployment.apps/api restarted\n");
    let ran = place.run(&["rollout", "status", "deploy/api", "--timeout", "20s"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ready("api-0"), "2/2");
    assert_eq!(ready("sleep"), "1/1", "a pod of its own stays as it is");
    assert_eq!(mesh.exec("deploy/api", "ls $MESHWARD_CERTS").code, Some(0));
    place.run(&["label", "ns", "default", "istio-injection-"]);
    place.run(&["rollout", "restart", "deployment", "api"]);
    place.run(&["rollout", "status", "deployment", "api"]);
    assert_eq!(ready("api-0"), "1/1");
    assert_eq!(
        mesh.exec("deploy/api", "echo ${MESHWARD_CERTS-none}")
            .stdout,
        "none\n"
    );
    assert!(!mesh.folder().join("default/api-0/certs").exists());
}
