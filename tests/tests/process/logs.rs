//! `logs`: what apps and sidecars wrote, and what they write from now on.

use std::fs;

use crate::meshes::{Mesh, SHOP, pod, service};
use crate::place::{Place, Sidecar, until};

/// `web`, whose command counts and then writes on for as long as it runs, and `client`.
fn counting(place: &Place) -> String {
    let [web, client, _] = place.ips();
    let count = "meshward.dev/command: \"for n in 1 2 3; do echo line $n; done; echo oops >&2; printf unended; while sleep 0.1; do echo; echo tick; done\"";
    [
        SHOP.to_owned(),
        pod("shop", "web", web, count, &[8080]),
        service("shop", "web", 8080),
        pod("shop", "client", client, "", &[]),
    ]
    .concat()
}

#[test]
fn logs_of_an_app_and_of_its_sidecar_are_two() {
    let place = Place::new();
    place.write("mesh.yaml", counting(&place));
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let logs = |words: &[&str]| place.run(&[&["logs"], words].concat());
    until("its first lines", || {
        logs(&["web.shop"]).stdout.contains("tick").then_some(())
    });
    let head = "line 1\nline 2\nline 3\noops\nunended\ntick\n";
    for words in [
        &["web.shop"][..],
        &["pod/web", "-n", "shop", "-c", "app"],
        &["web", "-n", "shop", "-c", "main", "--tail", "-1"],
        &["-l", "app=web", "-n", "shop", "--tail", "1000"],
    ] {
        let ran = logs(words);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
        assert!(ran.stdout.starts_with(head), "{words:?}: {}", ran.stdout);
    }
    let ran = logs(&["web.shop", "--tail", "1", "--prefix"]);
    let lines = ["[pod/web/main] \n", "[pod/web/main] tick\n"];
    assert!(lines.contains(&ran.stdout.as_str()), "{}", ran.stdout);
    assert_eq!(logs(&["web.shop", "--tail", "0"]).stdout, "");
    let url = "http://web.shop:8080/in-the-log";
    mesh.curl("client.shop", url);
    until("the access log", || {
        let ran = logs(&["web.shop", "-c", "istio-proxy"]);
        ran.stdout
            .contains("\"GET /in-the-log HTTP/1.1\"")
            .then_some(())
    });
    // Both sidecars have a line of it.
    until("both access logs", || {
        let ran = logs(&["-l", "app", "-n", "shop", "-c", "istio-proxy", "--prefix"]);
        let of = |pod: &str| {
            let begin = format!("[pod/{pod}/istio-proxy] [");
            ran.stdout.lines().any(|line| line.starts_with(&begin))
        };
        (of("web") && of("client")).then_some(())
    });
}

#[test]
fn logs_that_are_not_there_are_said_to_be_so() {
    let place = Place::new();
    place.write(
        "mesh.yaml",
        counting(&place) + &pod("default", "sleep", place.ips()[2], "", &[]),
    );
    let _mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let logs = |words: &[&str]| place.run(&[&["logs"], words].concat());
    // It wrote nothing.
    logs(&["sleep"]).refuses(0, "");
    logs(&["sleep", "-c", "istio-proxy"]).refuses(
        1,
        "error: pod default/sleep has no container `istio-proxy`\n  hint: there are main, app\n",
    );
    logs(&["-l", "app=nobody"]).refuses(0, "No resources found in default namespace.\n");
    let ran = logs(&["slep"]);
    assert!(
        ran.stderr
            .starts_with("error: no workload `slep`; nearest: pod/sleep"),
        "{}",
        ran.stderr
    );
    for words in [
        &[][..],
        &["sleep", "-l", "a=b"],
        &["sleep", "--tail", "x"],
        &["-l", "=b"],
    ] {
        let ran = logs(words);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(64), ""), "{words:?}");
    }
}

#[test]
fn ctrl_c_ends_following_at_once_and_nothing_else() {
    let place = Place::new();
    place.write("mesh.yaml", counting(&place));
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let mut follow = Sidecar::watch(place.command(&["logs", "-f", "web.shop"]));
    follow.says("line 1");
    follow.says("unended");
    follow.says("tick");
    follow.says("tick");
    follow.signal("INT");
    assert_eq!(follow.ends().code(), Some(130), "{:?}", follow.said);
    // A reader that has enough ends it too.
    let ran = place.shell("$MESHWARD logs -f web.shop --tail 0 | head -n 1");
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stderr);
    assert_eq!(mesh.exec("client.shop", "exit 3").code, Some(3));
    let ran = place.run(&["get", "po", "-n", "shop", "-o", "name"]);
    assert_eq!(ran.stdout, "pod/client\npod/web\n");
}

#[test]
fn following_ends_with_the_pod_and_with_the_mesh() {
    let place = Place::new();
    let text = counting(&place);
    place.write("mesh.yaml", &text);
    let mut mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let mut both = Sidecar::watch(place.command(&["logs", "-f", "-l", "app", "-n", "shop"]));
    let mut one = Sidecar::watch(place.command(&["logs", "-f", "web.shop", "--tail", "1"]));
    one.says("tick");
    both.says("tick");
    place.run(&["delete", "pod", "web", "-n", "shop"]);
    assert_eq!(one.ends().code(), Some(0), "{:?}", one.said);
    assert!(both.is_running(), "the client is still there");
    mesh.up.signal("TERM");
    mesh.up.ends();
    assert_eq!(both.ends().code(), Some(0), "{:?}", both.said);
}

#[test]
fn what_an_app_writes_does_not_fill_the_disk() {
    let place = Place::new();
    let [web, ..] = place.ips();
    let loud = "meshward.dev/command: \"yes 'a line of some length' | head -c 45000000; echo; echo last words; exec sleep 600\"";
    place.write(
        "mesh.yaml",
        SHOP.to_owned() + &pod("shop", "web", web, loud, &[]),
    );
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    until("the last words", || {
        let ran = place.run(&["logs", "web.shop", "--tail", "1"]);
        (ran.stdout == "last words\n").then_some(())
    });
    let dir = mesh.folder().join("shop/web");
    let mut sizes: Vec<(String, u64)> = fs::read_dir(&dir)
        .expect("the folder of the pod")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("app.log"))
        .map(|entry| {
            let size = entry.metadata().expect("a file").len();
            (entry.file_name().to_string_lossy().into_owned(), size)
        })
        .collect();
    sizes.sort_unstable();
    let names: Vec<&str> = sizes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["app.log", "app.log.1"]);
    assert!(
        sizes.iter().all(|(_, size)| *size < 11_000_000),
        "{sizes:?}"
    );
}
