//! `get`: what is in a mesh, in kubectl's tables and whole.

use crate::meshes::{Mesh, STRICT, service, shop};
use crate::place::{Place, Ran};

/// A policy of the namespace `shop` with fields that only a reader of the whole object sees.
const POLICY: &str = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
    metadata:\n  name: readers\n  namespace: shop\n  annotations: {note: \"true\"}\nspec:\n  action: DENY\n  rules:\n  - to:\n    - operation: {paths: [/secret*], methods: [GET], ports: [\"8080\"]}\n";

fn mesh_text(place: &Place) -> String {
    shop(place) + STRICT + POLICY
}

/// Ages at the end of lines are as of one moment.
pub(crate) fn aged(text: &str) -> String {
    let lines = text.lines().map(|line| match line.rsplit_once(' ') {
        Some((before, age)) if is_age(age) => format!("{before} 0s\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

fn is_age(text: &str) -> bool {
    let digits = text.strip_suffix('s').unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

#[track_caller]
fn shows(ran: &Ran, stdout: &str) {
    assert_eq!(
        (ran.code, aged(&ran.stdout), ran.stderr.as_str()),
        (Some(0), stdout.to_owned(), "")
    );
}

#[test]
fn tables_have_the_columns_of_kubectl() {
    let place = Place::new();
    place.write("mesh.yaml", mesh_text(&place));
    let _mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let get = |words: &[&str]| place.run(&[&["get"], words].concat());
    shows(
        &get(&["po", "-n", "shop"]),
        "NAME     READY   STATUS    RESTARTS   AGE\n\
         client   2/2     Running   0          0s\n\
         web      2/2     Running   0          0s\n",
    );
    shows(
        &get(&["pods", "-A", "-l", "app in (web, sleep)"]),
        "NAMESPACE   NAME    READY   STATUS    RESTARTS   AGE\n\
         default     sleep   1/1     Running   0          0s\n\
         shop        web     2/2     Running   0          0s\n",
    );
    let ran = get(&["svc", "web", "-n", "shop"]);
    let ip = ran.stdout.split_whitespace().nth(8).expect("an address");
    let ip = ip.to_owned();
    shows(
        &ran,
        &format!(
            "NAME   TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)    AGE\n\
             web    ClusterIP   {ip}    <none>        8080/TCP   0s\n"
        ),
    );
    shows(
        &get(&["pa", "-A"]),
        "NAMESPACE      NAME      MODE     AGE\n\
         istio-system   default   STRICT   0s\n",
    );
    shows(
        &get(&["all,authorizationpolicies.security.istio.io", "-n", "shop"]),
        &format!(
            "NAME         READY   STATUS    RESTARTS   AGE\n\
             pod/client   2/2     Running   0          0s\n\
             pod/web      2/2     Running   0          0s\n\n\
             NAME          TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)    AGE\n\
             service/web   ClusterIP   {ip}    <none>        8080/TCP   0s\n\n\
             NAME                                            ACTION   AGE\n\
             authorizationpolicy.security.istio.io/readers   DENY     0s\n"
        ),
    );
    shows(
        &get(&["ns"]),
        "NAME           STATUS   AGE\n\
         default        Active   0s\n\
         istio-system   Active   0s\n\
         kube-system    Active   0s\n\
         shop           Active   0s\n",
    );
    shows(
        &get(&["sa", "-n", "shop"]),
        "NAME      SECRETS   AGE\ndefault   0         0s\n",
    );
    shows(
        &get(&["cm", "-n", "istio-system"]),
        "NAME    DATA   AGE\nistio   1      0s\n",
    );
    shows(
        &get(&["po/web", "svc/web", "-n", "shop", "-o", "name"]),
        "pod/web\nservice/web\n",
    );
}

#[test]
fn wide_tables_say_where_pods_are_and_which_policies_they_have() {
    let place = Place::new();
    place.write("mesh.yaml", mesh_text(&place));
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let [web, client, sleep] = place.ips();
    let policies = || {
        let ran = place.run(&["get", "po", "-A", "-o", "wide"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let mut lines = ran.stdout.lines();
        let heading = lines.next().expect("a heading");
        assert!(heading.ends_with("READINESS GATES   POLICIES"), "{heading}");
        let rows: Vec<Vec<String>> = lines
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect();
        let addresses: Vec<&str> = rows.iter().map(|row| row[6].as_str()).collect();
        assert_eq!(addresses, [sleep, client, web].map(|ip| ip.to_string()));
        rows.into_iter()
            .map(|mut row| row.pop().expect("its policies"))
            .collect::<Vec<String>>()
    };
    let before = policies();
    assert_eq!(before[0], "<none>", "no sidecar");
    assert_eq!(before[1], before[2], "the same policies");
    assert_eq!(before[1].len(), 12);
    let only_web = POLICY
        .replace("readers", "web")
        .replace("action:", "selector: {matchLabels: {app: web}}\n  action:");
    mesh.applies(
        &only_web,
        "authorizationpolicy.security.istio.io/web created\n",
    );
    let after = policies();
    assert_eq!(after[1], before[1], "it is not for the client");
    assert_ne!(after[2], before[2]);
    mesh.deletes(
        &only_web,
        "authorizationpolicy.security.istio.io \"web\" deleted\n",
    );
    assert_eq!(policies(), before, "an equal set has an equal digest");
}

#[test]
fn objects_come_back_as_they_were_written() {
    let place = Place::new();
    place.write("mesh.yaml", mesh_text(&place));
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let ran = place.run(&["get", "ap", "readers", "-n", "shop", "-o", "yaml"]);
    let lines: Vec<&str> = ran
        .stdout
        .lines()
        .filter(|line| !line.contains("creationTimestamp: \"2"))
        .collect();
    assert_eq!(
        lines.join("\n"),
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  annotations:\n    note: \"true\"\n  \
         name: readers\n  namespace: shop\nspec:\n  action: DENY\n  rules:\n  - to:\n    - operation:\n        methods:\n        - GET\n        paths:\n        - /secret*\n        ports:\n        - \"8080\""
    );
    assert_eq!(lines.len() + 1, ran.stdout.lines().count());
    // What is shown can be applied.
    mesh.applies(
        &ran.stdout,
        "authorizationpolicy.security.istio.io/readers unchanged\n",
    );
    let ran = place.run(&["get", "po,svc", "-n", "shop", "-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(list["kind"], "List");
    let items = list["items"].as_array().expect("items").iter();
    let kinds: Vec<_> = items.map(|item| item["kind"].clone()).collect();
    assert_eq!(kinds, ["Pod", "Pod", "Service"]);
    let [_, client, _] = place.ips();
    assert_eq!(list["items"][0]["spec"]["containers"][0]["image"], "none");
    assert_eq!(list["items"][0]["status"]["podIP"], client.to_string());
    let changed = service("shop", "web", 8080).replace(
        "spec: {",
        "spec: {sessionAffinity: None, externalTrafficPolicy: Local, ",
    );
    // Nothing here acts on them.
    mesh.applies(&changed, "service/web unchanged\n");
    let ran = place.run(&["get", "svc/web", "-n", "shop", "-o", "yaml"]);
    assert!(
        ran.stdout.contains("externalTrafficPolicy: Local"),
        "{}",
        ran.stdout
    );
    place
        .run(&["get", "ra", "-A", "-o", "yaml"])
        .stdout
        .lines()
        .zip([
            "apiVersion: v1",
            "items: []",
            "kind: List",
            "metadata:",
            "  resourceVersion: \"\"",
        ])
        .for_each(|(line, expected)| assert_eq!(line, expected));
}

#[test]
fn what_is_not_there_is_said_as_kubectl_does() {
    let place = Place::new();
    place.write("mesh.yaml", mesh_text(&place));
    let _mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let get = |words: &[&str]| place.run(&[&["get"], words].concat());
    get(&["ra"]).refuses(0, "No resources found in default namespace.\n");
    get(&["ra", "-A"]).refuses(0, "No resources found\n");
    get(&["po", "-n", "nowhere"]).refuses(0, "No resources found in nowhere namespace.\n");
    get(&["ns", "-l", "a=b"]).refuses(0, "No resources found\n");
    get(&["widgets"]).refuses(
        1,
        "error: the server doesn't have a resource type \"widgets\"\n",
    );
    get(&["pa", "default", "-n", "shop"]).refuses(
        1,
        "Error from server (NotFound): peerauthentications.security.istio.io \"default\" not found\n",
    );
    let ran = get(&["po", "web", "wep", "-n", "shop"]);
    assert_eq!(
        (ran.code, aged(&ran.stdout).as_str(), ran.stderr.as_str()),
        (
            Some(1),
            "NAME   READY   STATUS    RESTARTS   AGE\nweb    2/2     Running   0          0s\n",
            "Error from server (NotFound): pods \"wep\" not found\n"
        )
    );
    for (words, says) in [
        (
            &["po", "web", "-A"][..],
            "error: a resource cannot be retrieved by name across all namespaces",
        ),
        (
            &["po", "web", "-l", "a=b"],
            "error: name cannot be provided when a selector is specified",
        ),
        (
            &["po/web", "x"],
            "error: there is no need to specify a resource type",
        ),
        (
            &["po", "-l", "a in b"],
            "error: invalid value 'a in b' for '--selector <LABELS>'",
        ),
        (
            &["po", "-o", "xml"],
            "error: invalid value 'xml' for '--output <OUTPUT>'",
        ),
        (
            &[],
            "error: the following required arguments were not provided:",
        ),
        (
            &["po", "-A", "-n", "shop"],
            "error: the argument '--all-namespaces' cannot be used with",
        ),
    ] {
        let ran = get(words);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(64), ""), "{words:?}");
        assert!(ran.stderr.starts_with(says), "{}", ran.stderr);
    }
}

#[test]
fn an_app_that_dies_is_not_ready_and_counted() {
    let place = Place::new();
    let dying = crate::meshes::pod(
        "default",
        "dying",
        place.ip,
        "meshward.dev/command: exit 3",
        &[8080],
    );
    place.write("mesh.yaml", dying);
    let _mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    crate::place::until("a restart", || {
        let ran = place.run(&["get", "po"]);
        let row: Vec<&str> = ran.stdout.lines().nth(1)?.split_whitespace().collect();
        (row[1] == "0/1" && row[2] == "CrashLoopBackOff" && row[3] != "0").then_some(())
    });
}
