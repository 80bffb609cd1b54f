//! `wait`: until sidecars are up to date, or resources are ready or gone.

use crate::meshes::{Mesh, STRICT, pod, shop};
use crate::place::Place;

#[test]
fn sidecars_have_what_was_applied_when_they_are_synced() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let wait = |words: &[&str]| place.run(&[&["wait", "--for=synced"], words].concat());
    mesh.applies(
        STRICT,
        "peerauthentication.security.istio.io/default created\n",
    );
    for (words, says) in [
        (
            &["--all"][..],
            "pod/client condition met\npod/web condition met\n",
        ),
        (
            &["--all", "-n", "shop"],
            "pod/client condition met\npod/web condition met\n",
        ),
        (&["web.shop"], "pod/web condition met\n"),
        (
            &["pod/web", "client", "-n", "shop", "--timeout", "0s"],
            "pod/web condition met\npod/client condition met\n",
        ),
    ] {
        let ran = wait(words);
        let mut lines: Vec<&str> = ran.stdout.lines().collect();
        let mut expected: Vec<&str> = says.lines().collect();
        lines.sort_unstable();
        expected.sort_unstable();
        assert_eq!(
            (ran.code, lines, ran.stderr.as_str()),
            (Some(0), expected, ""),
            "{words:?}"
        );
    }
    wait(&["--all", "-n", "default"]).refuses(1, "error: no matching resources found\n");
    wait(&["sleep"]).refuses(
        1,
        "error: pod default/sleep has no sidecar\n  hint: leave it out\n",
    );
    let ran = wait(&["wep"]);
    assert!(
        ran.stderr
            .starts_with("error: no workload `wep`; nearest: "),
        "{}",
        ran.stderr
    );
    for words in [&[][..], &["web", "--all"]] {
        wait(words).refuses(64, "error: name workloads, or take --all\n");
    }
}

#[test]
fn pods_are_waited_for_until_they_are_ready_or_gone() {
    let place = Place::new();
    let slow = "meshward.dev/command: \"sleep 4; exec python3 -m http.server $PORT --bind $HOST\"";
    let [a, b, _] = place.ips();
    place.write(
        "mesh.yaml",
        pod("default", "slow", a, slow, &[8080]) + &pod("default", "none", b, "", &[]),
    );
    let _mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let wait = |words: &[&str]| place.run(&[&["wait"], words].concat());
    wait(&["--for=condition=Ready", "pod/slow", "--timeout", "0s"]).refuses(
        1,
        "error: timed out waiting for the condition on pods/slow\n",
    );
    let ran = wait(&["--for=condition=Ready", "po", "--all"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(
        ran.stdout.ends_with("pod/slow condition met\n"),
        "{}",
        ran.stdout
    );
    wait(&["--for", "delete", "pod/none", "--timeout", "0s"]).refuses(
        1,
        "error: timed out waiting for the condition on pods/none\n",
    );
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&["--for=delete", "pod", "none", "other"]));
        std::thread::sleep(std::time::Duration::from_millis(300));
        place.run(&["delete", "pod", "none"]);
        let ran = waiting.join().expect("it waits");
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(0), "pod/other condition met\npod/none condition met\n")
        );
    });
    wait(&["--for=condition=Ready", "pod/none"])
        .refuses(1, "Error from server (NotFound): pods \"none\" not found\n");
    for (words, says) in [
        (
            &["--for=condition=Ready", "svc/a"][..],
            "error: services have no such condition",
        ),
        (
            &["--for=condition=Ready", "po"],
            "error: resource(s) were provided, but no name was specified",
        ),
        (
            &["--for=rain", "po/a"],
            "error: invalid value 'rain' for '--for <WHAT>'",
        ),
        (
            &["--for=delete", "po/a", "--timeout", "1d"],
            "error: invalid value '1d' for '--timeout <SPAN>'",
        ),
        (
            &["po/a"],
            "error: the following required arguments were not provided:",
        ),
    ] {
        let ran = wait(words);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(64), ""), "{words:?}");
        assert!(ran.stderr.starts_with(says), "{}", ran.stderr);
    }
}
