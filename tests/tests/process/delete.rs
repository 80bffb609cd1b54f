//! `delete`: by name and by file, all of it or nothing.

use crate::meshes::{Mesh, STRICT, shop};
use crate::place::Place;
use crate::rollout::deployment;

#[test]
fn objects_go_by_name_in_every_form() {
    let place = Place::new();
    let more = ["a", "b", "c", "d"].map(|name| {
        let text = STRICT.replace("name: default", &format!("name: {name}"));
        text.replace(
            "mtls: {mode: STRICT}",
            &format!("selector: {{matchLabels: {{x: {name}}}}}"),
        ) + "---\n"
    });
    place.write(
        "mesh.yaml",
        shop(&place) + "---\n" + &more.concat() + STRICT,
    );
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let delete = |words: &[&str]| place.run(&[&["delete"], words].concat());
    let kind = "peerauthentication.security.istio.io";
    assert_eq!(mesh.curl("sleep", "http://web.shop:8080/").1, Some(56));
    for (words, says) in [
        (
            &["peerauthentication", "default", "-n", "istio-system"][..],
            format!("{kind} \"default\" deleted\n"),
        ),
        (
            &["pa/a", "-n", "istio-system"],
            format!("{kind} \"a\" deleted\n"),
        ),
        (
            &["pa", "--all", "-n", "shop"],
            "No resources found\n".into(),
        ),
        (&["pa", "nobody", "--ignore-not-found"], String::new()),
        (
            &["pa", "--all", "-n", "istio-system"],
            format!("{kind} \"b\" deleted\n{kind} \"c\" deleted\n{kind} \"d\" deleted\n"),
        ),
        (
            &["po", "-A", "-l", "app=sleep"],
            "pod \"sleep\" deleted\n".into(),
        ),
        (
            &["po/web", "svc/web", "-n", "shop"],
            "pod \"web\" deleted\nservice \"web\" deleted\n".into(),
        ),
        (&["ns", "shop"], "namespace \"shop\" deleted\n".into()),
    ] {
        let ran = delete(words);
        assert_eq!(
            (ran.code, ran.stdout, ran.stderr.as_str()),
            (Some(0), says, ""),
            "{words:?}"
        );
    }
    place
        .run(&["get", "po,svc", "-A"])
        .refuses(0, "No resources found\n");
}

#[test]
fn what_cannot_go_keeps_all_of_it() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let _mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let delete = |words: &[&str]| place.run(&[&["delete"], words].concat());
    delete(&["po", "web", "wep", "-n", "shop"])
        .refuses(1, "Error from server (NotFound): pods \"wep\" not found\n");
    for name in ["default", "kube-system"] {
        let says = format!(
            "Error from server (Forbidden): namespaces \"{name}\" is forbidden: this namespace may not be deleted\n"
        );
        delete(&["ns", "shop", name]).refuses(1, &says);
    }
    for (words, says) in [
        (
            &[][..],
            "error: the following required arguments were not provided:",
        ),
        (
            &["po"],
            "error: resource(s) were provided, but no name was specified",
        ),
        (&["po", "web", "--all"], "error: --all takes kinds alone"),
        (&["po", "web", "-f", "mesh.yaml"], "error: the argument"),
        (&["--all", "-f", "mesh.yaml"], "error: the argument"),
    ] {
        let ran = delete(words);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(64), ""), "{words:?}");
        assert!(ran.stderr.starts_with(says), "{}", ran.stderr);
    }
    let ran = place.run(&["get", "po", "-n", "shop", "-o", "name"]);
    assert_eq!(ran.stdout, "pod/client\npod/web\n");
}

#[test]
fn a_folder_is_deleted_although_it_holds_kinds_that_apply_skips() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let _mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    place.write(
        "more/a.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n---\napiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: x}\n",
    );
    place.write("more/b.yaml", STRICT);
    let warnings = |ran: &crate::place::Ran| ran.stderr.matches("warning: ").count();
    let ran = place.run(&["apply", "-f", "more"]);
    assert_eq!((ran.code, warnings(&ran)), (Some(0), 2), "{}", ran.stderr);
    let ran = place.run(&["delete", "-f", "more"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), warnings(&ran)),
        (
            Some(0),
            "peerauthentication.security.istio.io \"default\" deleted\n",
            2
        )
    );
}

#[test]
fn a_pod_of_a_deployment_that_is_deleted_is_made_anew() {
    let place = Place::new();
    place.write("mesh.yaml", deployment("default", "web", 1, ""));
    let range = place.range();
    let _mesh = Mesh::start(&place, &["--runtime", "tokio", "--pod-range", &range]);
    let address = || {
        let ran = place.run(&["get", "po", "web-0", "-o", "wide"]);
        let row = ran.stdout.lines().nth(1)?.to_owned();
        row.split_whitespace().nth(5).map(str::to_owned)
    };
    let before = address();
    let ran = place.run(&["delete", "pod", "web-0"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "pod \"web-0\" deleted\n")
    );
    place.run(&["rollout", "status", "deploy/web"]);
    let after = address();
    assert!(after.is_some() && after != before, "{after:?}");
}
