//! What goes wrong around a mesh: names, sockets, files, apps, certificates. Everything is said, nothing is half done.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::meshes::{Mesh, SHOP, STRICT, UP, pod, service, shop};
use crate::place::{Place, Sidecar};
use crate::running::Owned;

fn up(place: &Place, more: &[&str]) -> crate::place::Ran {
    let fixed = ["up", "mesh.yaml", "--runtime", "tokio", "--workers", "1"];
    place.run(&[&fixed, more].concat())
}

#[test]
fn without_a_mesh_its_clients_say_how_to_start_one() {
    let place = Place::new();
    place.write("a.yaml", STRICT);
    for words in [
        &["exec", "sleep", "--", "true"][..],
        &["apply", "-f", "a.yaml"],
        &["delete", "-f", "a.yaml"],
        &["delete", "pod", "web"],
        &["get", "pods"],
        &["label", "ns", "default", "a=b"],
        &["logs", "web"],
        &["logs", "-f", "-l", "app=web"],
        &["rollout", "restart", "deploy/web"],
        &["rollout", "status", "deploy/web"],
        &["wait", "--for=synced", "--all"],
        &["wait", "--for=delete", "pod/web"],
    ] {
        place.run(words).refuses(
            1,
            "error: no mesh named `default` is running\n  hint: meshward up DIR\n",
        );
    }
    place
        .run(&["exec", "--mesh", "other", "sleep", "--", "true"])
        .refuses(
            1,
            "error: no mesh named `other` is running\n  hint: meshward up DIR --mesh other\n",
        );
    place
        .run(&["exec", "--mesh", "../x", "sleep", "--", "true"])
        .refuses(
            64,
            "error: `../x` is no name of a mesh\n  hint: use lower-case letters, digits and `-`, at most 40 of them\n",
        );
}

#[test]
fn two_meshes_run_beside_each_other_in_ranges_of_their_own() {
    let place = Place::new();
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: main, ports: [{containerPort: 8080}]}]\n";
    place.write("mesh.yaml", text);
    let [one, two] = ["127.201.0.0/24", "127.201.1.0/24"];
    let first = Mesh::start(&place, &["--mesh", "one", "--pod-range", one]);
    let lost = place.run(&["up", "mesh.yaml", "--mesh", "two", "--pod-range", one]);
    assert_eq!(lost.code, Some(1));
    assert!(lost.stderr.contains("127.201.0.1:"), "{}", lost.stderr);
    assert!(lost.stderr.contains("--pod-range"), "{}", lost.stderr);
    let second = Mesh::start(&place, &["--mesh", "two", "--pod-range", two]);
    for (mesh, address) in [("one", "127.201.0.1"), ("two", "127.201.1.1")] {
        let ask = [
            "exec",
            "--mesh",
            mesh,
            "pod/web",
            "--",
            "sh",
            "-c",
            "echo $MESHWARD_PROXY",
        ];
        assert_eq!(place.run(&ask).stdout, format!("{address}:15001\n"));
    }
    drop((first, second));
    for (range, why) in [
        ("10.1.0.0/16", "not within 127.0.0.0/8"),
        ("127.0.0.0/16", "belongs to the host"),
        ("127.1", "no IPv4 range"),
    ] {
        let ran = place.run(&["up", "mesh.yaml", "--pod-range", range]);
        assert_eq!(ran.code, Some(64));
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    }
}

#[test]
fn of_two_meshes_of_one_name_the_second_is_told_of_the_first() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let pid = mesh.up.pid();
    up(&place, &[]).refuses(
        1,
        &format!("error: a mesh named `default` is running (pid {pid})\n  hint: end it, or choose another --mesh\n"),
    );
    // The first goes on, also beside one of another name.
    let other = Place::new();
    place.write("mesh.yaml", shop(&other));
    let second = Mesh::start(&place, &["--runtime", "tokio", "--mesh", "second"]);
    assert_eq!(
        mesh.exec("sleep", "echo $MESHWARD_MESH").stdout,
        "default\n"
    );
    drop(second);
}

#[test]
fn what_a_killed_mesh_left_is_taken_over() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let mut mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    mesh.up.signal("KILL");
    mesh.up.ends();
    assert!(place.path("meshward/default.sock").exists());
    place.run(&["exec", "sleep", "--", "true"]).refuses(
        1,
        "error: no mesh named `default` is running\n  hint: meshward up DIR\n",
    );
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    assert_eq!(mesh.exec("sleep", "exit 5").code, Some(5));
}

#[test]
fn what_is_no_socket_of_ours_is_never_touched() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    fs::create_dir_all(place.path("meshward")).expect("a folder");
    assert_eq!(place.shell("chmod 700 meshward").code, Some(0));
    let socket = place.path("meshward/default.sock");
    place.write("meshward/default.sock", "mine");
    let says = format!(
        "error: {}: is no socket\n  hint: have a look and move it away, or choose another --mesh\n",
        socket.display()
    );
    up(&place, &[]).refuses(1, &says);
    place
        .run(&["exec", "sleep", "--", "true"])
        .refuses(1, &says);
    assert_eq!(place.read("meshward/default.sock"), "mine");
    // A server that is none of ours keeps its socket.
    fs::remove_file(&socket).expect("removed");
    let _server = UnixListener::bind(&socket).expect("a socket");
    up(&place, &[]).refuses(
        1,
        &format!(
            "error: {}: somebody listens there who is no mesh\n  hint: end it, or choose another --mesh\n",
            socket.display()
        ),
    );
    assert!(socket.exists());
    // Nor is a folder used that others may enter.
    assert_eq!(place.shell("chmod 755 meshward").code, Some(0));
    up(&place, &[]).refuses(
        1,
        &format!(
            "error: {}: can be entered by others\n  hint: it must be yours with mode 0700; or set XDG_RUNTIME_DIR to a folder of yours\n",
            place.path("meshward").display()
        ),
    );
}

#[test]
fn a_workload_that_is_not_there_gets_the_nearest_names() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let ran = mesh.exec("slep", "true");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(
        ran.stderr
            .starts_with("error: no workload `slep`; nearest: pod/sleep.default"),
        "{}",
        ran.stderr
    );
    let exec = |words: &[&str]| place.run(&[&["exec"], words, &["--", "true"]].concat());
    exec(&["-c", "istio-proxy", "sleep"]).refuses(
        1,
        "error: pod default/sleep has no container `istio-proxy`: it has no sidecar\n  hint: leave -c out\n",
    );
    exec(&["-c", "man", "web.shop"]).refuses(
        1,
        "error: pod shop/web has no container `man`\n  hint: there are main, app, istio-proxy\n",
    );
    drop(mesh);
}

#[test]
fn nothing_to_apply_or_delete_is_said_as_kubectl_does() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let _mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    place.write("nothing.yaml", "# later\n---\n");
    let nothing = |verb| place.run(&[verb, "-f", "nothing.yaml"]);
    nothing("apply").refuses(1, "error: no objects passed to apply\n");
    let ran = nothing("delete");
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "No resources found\n")
    );
    // What is skipped has been said.
    place.write(
        "nothing.yaml",
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: x}\n",
    );
    let ran = nothing("apply");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""));
    assert!(
        ran.stderr.contains("warning: StatefulSet"),
        "{}",
        ran.stderr
    );
}

#[test]
fn one_bad_document_among_a_hundred_changes_nothing() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let mut documents: Vec<String> = (0..100)
        .map(|n| STRICT.replace("name: default", &format!("name: p{n}")))
        .collect();
    documents[0] = STRICT.to_owned();
    documents[70] = documents[70].replace("STRICT", "STRIKT");
    place.write("many/all.yaml", documents.join("---\n"));
    let ran = place.run(&["apply", "-f", "many"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(65), ""));
    // Each document has 4 lines and one that parts it from the next.
    assert!(
        ran.stderr.starts_with("many/all.yaml:354:21: `STRIKT`"),
        "{}",
        ran.stderr
    );
    let curl = mesh.curl("sleep", "http://web.shop:8080/");
    assert_eq!(curl, ("200".to_owned(), Some(0)));
    place.write("many/all.yaml", STRICT);
    let ran = place.run(&["delete", "-f", "many"]);
    assert!(ran.stderr.contains("NotFound"), "{}", ran.stderr);
}

#[test]
fn files_that_make_no_mesh_are_refused_before_anything_starts() {
    let place = Place::new();
    let ip = place.ip;
    let twice = pod("default", "a", ip, "", &[]) + &pod("default", "b", ip, "", &[]);
    place.write("mesh.yaml", twice);
    let ran = up(&place, &[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(65), ""));
    assert!(ran.stderr.contains(&ip.to_string()), "{}", ran.stderr);
    assert!(ran.stderr.starts_with("mesh.yaml:"), "{}", ran.stderr);
    place.write(
        "mesh.yaml",
        pod("default", "a", ip, "meshward.dev/app: ecko", &[80]),
    );
    let ran = up(&place, &[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(65), ""));
    assert!(ran.stderr.contains("`ecko`"), "{}", ran.stderr);
    place.run(&["up", "nowhere"]).refuses(
        65,
        "nowhere: cannot be read: no such file or directory\n  hint: name a file that is there and can be read\n",
    );
    assert!(!place.path("meshward").exists());
}

#[test]
fn an_address_in_use_ends_the_start_and_says_why() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let [web, ..] = place.ips();
    let _held = TcpListener::bind((web, 8080)).expect("an address of our own");
    up(&place, &[]).refuses(
        1,
        &format!(
            "error: pod shop/web cannot listen on {web}:8080: address already in use\n  hint: another process has it, perhaps a mesh of another name, whose pods get the same addresses: end it, or give this one --pod-range 127.2.0.0/16\n"
        ),
    );
    assert!(!place.path("meshward/default.sock").exists());
}

#[test]
fn too_few_open_files_are_said_with_how_many_are_needed() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let ran = place.shell("ulimit -n 100; $MESHWARD up mesh.yaml --runtime tokio");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(
        ran.stderr.starts_with(
            "error: 3 pods need 154 open files, 100 are allowed\n  hint: raise the hard limit"
        ),
        "{}",
        ran.stderr
    );
}

#[test]
fn pods_for_which_there_are_too_few_open_files_change_nothing() {
    let (place, other) = (Place::new(), Place::new());
    place.write("mesh.yaml", shop(&place));
    // A limit of this shell and of what it becomes.
    let mut limited = Command::new("sh");
    let text = "ulimit -n 160; exec \"$0\" up mesh.yaml --runtime tokio --workers 1";
    limited
        .args(["-c", text])
        .arg(place.command(&[]).get_program());
    limited.current_dir(&place.dir);
    limited.env("XDG_RUNTIME_DIR", &place.dir);
    let mut up = Sidecar::watch(limited);
    up.says(UP);
    let mesh = Mesh { place: &place, up };
    place.write("more.yaml", pod("shop", "more", other.ip, "", &[8080]));
    place.run(&["apply", "-f", "more.yaml"]).refuses(
        1,
        "error: 4 pods need 164 open files, 160 are allowed\n  hint: raise the hard limit (`ulimit -Hn 164` as root, LimitNOFILE= of a service), or start fewer\n",
    );
    assert!(!mesh.folder().join("shop/more").exists());
    assert_eq!(
        mesh.curl("sleep", "http://web.shop:8080/"),
        ("200".to_owned(), Some(0))
    );
    mesh.applies(
        STRICT,
        "peerauthentication.security.istio.io/default created\n",
    );
}

#[test]
fn a_pod_that_runs_keeps_its_address_sidecar_and_app() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let other = Place::new();
    let [web, client, _] = place.ips();
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
                  data: {mesh: \"trustDomain: example.org\"}\n";
    for (text, says) in [
        (
            pod("shop", "web", other.ip, "", &[8080]),
            "pod shop/web runs, and its address cannot change under it",
        ),
        (
            pod("shop", "web", web, "meshward.dev/app: none", &[8080]),
            "pod shop/web runs, and its app cannot change under it",
        ),
        (
            config.to_owned(),
            "the trust domain of a mesh that runs stays `cluster.local`",
        ),
    ] {
        place.write("change.yaml", STRICT.to_owned() + "---\n" + &text);
        let ran = place.run(&["apply", "-f", "change.yaml"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(65), ""), "{says}");
        assert!(ran.stderr.contains(says), "{}", ran.stderr);
    }
    // The STRICT beside each of them was not taken either.
    let curl = mesh.curl("sleep", "http://web.shop:8080/");
    assert_eq!(curl, ("200".to_owned(), Some(0)));
    // Whether it has a sidecar was decided when it was made, as in a cluster.
    let labelled = pod("shop", "client", client, "", &[])
        .replace("labels: {", "labels: {sidecar.istio.io/inject: \"false\", ");
    mesh.applies(&labelled, "pod/client configured\n");
    let ran = mesh.exec("client.shop", "ls $MESHWARD_CERTS");
    assert_eq!(ran.stdout, "cert-chain.pem\nkey.pem\nroot-cert.pem\n");
}

#[test]
fn a_pod_whose_address_is_taken_changes_nothing() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let other = Place::new();
    let [free, taken, _] = other.ips();
    let held = TcpListener::bind((taken, 9000)).expect("an address of our own");
    let text =
        pod("shop", "free", free, "", &[9000]) + &pod("shop", "taken", taken, "", &[9000]) + STRICT;
    place.write("change.yaml", &text);
    let ran = place.run(&["apply", "-f", "change.yaml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    let says =
        format!("error: pod shop/taken cannot listen on {taken}:9000: address already in use");
    assert!(ran.stderr.starts_with(&says), "{}", ran.stderr);
    assert!(!mesh.folder().join("shop/free").exists());
    let curl = mesh.curl("sleep", "http://web.shop:8080/");
    assert_eq!(curl, ("200".to_owned(), Some(0)));
    drop(held);
    mesh.applies(
        &text,
        "pod/free created\npod/taken created\npeerauthentication.security.istio.io/default created\n",
    );
}

#[test]
fn a_service_may_open_another_port_of_a_pod_that_runs() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let more = service("shop", "web", 8080).replace(
        "port: 8080}",
        "port: 8080}, {name: http-b, port: 81, targetPort: 8081}",
    );
    mesh.applies(&more, "service/web configured\n");
    for url in ["http://web.shop:8080/", "http://web.shop:81/"] {
        assert_eq!(
            mesh.curl("sleep", url),
            ("200".to_owned(), Some(0)),
            "{url}"
        );
    }
}

#[test]
fn ctrl_c_during_exec_ends_the_command_and_not_the_mesh() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let mut command = place.command(&[
        "exec",
        "sleep",
        "--",
        "sh",
        "-c",
        "echo ready; exec sleep 60",
    ]);
    // A terminal sends the signal to the whole group of what is in front.
    command.process_group(0);
    let mut exec = Sidecar::watch(command);
    exec.says("ready");
    let group = format!("-{}", exec.pid());
    let sent = Command::new("kill").args(["-INT", "--", &group]).status();
    assert!(sent.is_ok_and(|s| s.success()));
    let status = exec.ends();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(2)
    );
    assert_eq!(mesh.exec("sleep", "exit 3").code, Some(3));
}

#[test]
fn apps_that_are_missing_silent_or_dying_are_told_and_the_sidecar_answers() {
    let place = Place::new();
    let [missing, silent, dying] = place.ips();
    let text = [
        SHOP.to_owned(),
        pod(
            "shop",
            "missing",
            missing,
            "meshward.dev/app: none",
            &[8080],
        ),
        pod(
            "shop",
            "silent",
            silent,
            "meshward.dev/command: exec sleep 600",
            &[8080],
        ),
        pod(
            "shop",
            "dying",
            dying,
            "meshward.dev/command: echo last words; exit 3",
            &[8080],
        ),
    ]
    .concat();
    place.write("mesh.yaml", text);
    let mut mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let said = mesh.up.said.join("\n");
    assert!(
        said.contains("warning: the app of shop/silent does not listen on 127.0.0.1:"),
        "{said}"
    );
    // Once at the start, and again with back-off.
    assert!(
        said.contains("app of shop/dying ended (exit status: 3)"),
        "{said}"
    );
    mesh.up.says("app of shop/dying ended (exit status: 3)");
    let log = mesh.folder().join("shop/dying/app.log");
    assert!(
        fs::read_to_string(log)
            .expect("a log")
            .starts_with("last words\n")
    );
    for ip in [missing, silent, dying] {
        // S-66: nobody answers.
        let curl = mesh.curl("missing.shop", &format!("http://{ip}:8080/"));
        assert_eq!(curl, ("503".to_owned(), Some(0)), "{ip}");
    }
}

#[test]
fn an_expired_certificate_closes_the_door_and_says_why() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place) + STRICT);
    let outage = [
        "--runtime",
        "tokio",
        "--svid-ttl",
        "2s",
        "--ca-outage-after",
        "0s",
    ];
    // The authority never answers: nobody has a certificate, and it is said.
    let mut mesh = Mesh::start(&place, &outage);
    let said = mesh.up.said.join("\n");
    assert!(
        said.contains("shop/web: no certificate was issued: the authority could not be reached"),
        "{said}"
    );
    mesh.up.signal("INT");
    assert_eq!(mesh.up.ends().code(), Some(0));
    // It answers at first, and then no more.
    let outage = [
        "--runtime",
        "tokio",
        "--svid-ttl",
        "2s",
        "--ca-outage-after",
        "1s",
        "--log-level",
        "debug",
    ];
    let mut mesh = Mesh::start(&place, &outage);
    let url = "http://web.shop:8080/";
    assert_eq!(mesh.curl("client.shop", url).0, "200");
    mesh.up.says("the certificate expired at");
    // Nobody would believe the server's certificate, so its sidecar takes no handshake.
    let past = ["exec", "-c", "istio-proxy", "client.shop", "--"];
    let curl = ["curl", "-s", "-k", "-m", "10", "https://web.shop:8080/"];
    assert_eq!(place.run(&[&past[..], &curl].concat()).code, Some(35));
    mesh.up.says("our own certificate has expired");
}

#[test]
fn check_plays_the_walk_through_in_a_mesh_of_its_own() {
    let place = Place::new();
    place.write("dir/mesh.yaml", shop(&place));
    let check = ["up", "dir", "--check", "--runtime", "tokio"];
    place.run(&check).refuses(
        65,
        "dir/walkthrough.txt: there is no walk-through\n  hint: name a folder with a walkthrough.txt, or leave --check out\n",
    );
    let script = "# A call\nmeshward exec sleep -- curl -s -o /dev/null -w '%{http_code}\\n' http://web.shop:8080/\n----\n200\n\n\
                  echo $RUNTIME; test -d $MESHWARD_RUN/shop/web\n----\ntokio\n";
    place.write("dir/walkthrough.txt", script);
    let ran = place.run(&check);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (Some(0), ""),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("\n2 passed, 0 failed"),
        "{}",
        ran.stdout
    );
    let left = fs::read_dir(place.path("meshward")).expect("the folder");
    assert_eq!(left.count(), 0);
    place.write("dir/walkthrough.txt", script.replace("200", "404"));
    let ran = place.run(&check);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stdout.contains("\n1 passed, 1 failed"),
        "{}",
        ran.stdout
    );
    let logs = ran
        .stderr
        .strip_prefix("logs of the mesh: ")
        .expect("where the logs are");
    assert!(
        std::path::Path::new(logs.trim())
            .join("shop/web/istio-proxy.log")
            .exists()
    );
}

#[test]
fn a_second_signal_ends_what_is_open_at_once() {
    let place = Place::new();
    let [web, ..] = place.ips();
    let server = TcpListener::bind("127.0.0.1:0").expect("a server");
    let address = server.local_addr().expect("its address");
    let upstream = format!("meshward.dev/upstream: \"{address}\"");
    place.write(
        "mesh.yaml",
        SHOP.to_owned() + &pod("shop", "web", web, &upstream, &[8080]),
    );
    let mut mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    // A request that is never answered.
    let mut client = std::net::TcpStream::connect((web, 8080)).expect("the sidecar listens");
    std::io::Write::write_all(&mut client, b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").expect("sent");
    let _taken = server.accept().expect("the request arrives");
    let began = std::time::Instant::now();
    mesh.up.signal("TERM");
    mesh.up.says("ending");
    mesh.up.signal("TERM");
    assert_eq!(mesh.up.ends().code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert!(mesh.up.said.iter().any(|line| line.contains(UP)));
}

#[test]
fn a_check_whose_reader_is_gone_ends_its_mesh_all_the_same() {
    let place = Place::new();
    place.write("dir/mesh.yaml", shop(&place));
    place.write("dir/walkthrough.txt", "# Words\necho said\n----\nsaid\n");
    let mut command = place.command(&["up", "dir", "--check", "--runtime", "tokio"]);
    let piped = command.stdout(Stdio::piped());
    let mut check = Owned(piped.spawn().expect("it runs"));
    drop(check.0.stdout.take());
    assert_eq!(check.0.wait().expect("its end").code(), Some(0));
    let left = fs::read_dir(place.path("meshward")).expect("the folder");
    assert_eq!(left.count(), 0);
}

#[test]
fn a_mesh_outlives_whoever_reads_what_it_says() {
    let place = Place::new();
    let [web, ..] = place.ips();
    place.write("mesh.yaml", shop(&place) + STRICT);
    let mut command = place.command(&[
        "up",
        "mesh.yaml",
        "--runtime",
        "tokio",
        "--log-level",
        "debug",
    ]);
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Owned(piped.spawn().expect("it runs"));
    let up = &mut child.0;
    let mut lines = BufReader::new(up.stdout.take().expect("a pipe")).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains(UP))));
    let mut stderr = BufReader::new(up.stderr.take().expect("a pipe"));
    // A handshake without a certificate, of which a note is made.
    let handshake =
        format!("openssl s_client -ign_eof -connect {web}:8080 </dev/null 2>&1 | grep -c alert");
    assert_eq!(place.shell(&handshake).stdout, "1\n");
    let mut said = String::new();
    stderr.read_line(&mut said).expect("a note");
    assert!(said.starts_with("debug: "), "{said}");
    drop((lines, stderr));
    for _ in 0..2 {
        assert_eq!(place.shell(&handshake).stdout, "1\n");
    }
    let exec = ["exec", "sleep", "--", "sh", "-c", "exit 5"];
    assert_eq!(place.run(&exec).code, Some(5));
    let term = format!("kill -TERM {}", up.id());
    assert_eq!(place.shell(&term).code, Some(0));
    assert_eq!(up.wait().expect("its end").code(), Some(0));
}

#[test]
fn what_a_killed_check_left_goes_with_the_next_start() {
    let place = Place::new();
    place.write("dir/mesh.yaml", shop(&place));
    place.write("dir/walkthrough.txt", "kill -KILL $PPID\n----\n");
    let check = place.run(&["up", "dir", "--check", "--runtime", "tokio"]);
    assert_eq!(check.code, None, "{}", check.stderr);
    let folder = place.path("meshward");
    let names = || {
        let entries = fs::read_dir(&folder).expect("the folder");
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        entries.map(name).collect::<Vec<_>>()
    };
    assert_eq!(names().len(), 3, "{:?}", names());
    // Not a mesh's: stays.
    place.write("meshward/check-0x/file", "");
    place.write("dir/walkthrough.txt", "true\n----\n");
    let check = place.run(&["up", "dir", "--check", "--runtime", "tokio"]);
    assert_eq!(check.code, Some(0), "{}", check.stderr);
    assert_eq!(names(), ["check-0x"]);
}

#[test]
fn the_app_of_a_pod_that_was_deleted_does_not_outlive_the_mesh() {
    let (place, other) = (Place::new(), Place::new());
    place.write("mesh.yaml", shop(&place));
    let mut mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let pid = place.path("pid");
    let command = format!(
        "meshward.dev/command: \"trap : TERM; echo $$ > {}; while :; do sleep 1; done\"",
        pid.display()
    );
    let text = pod("default", "app", other.ip, &command, &[]);
    mesh.applies(&text, "pod/app created\n");
    let pid = crate::place::until("the app", || {
        fs::read_to_string(&pid)
            .ok()
            .filter(|pid| pid.ends_with('\n'))
    });
    mesh.deletes(&text, "pod \"app\" deleted\n");
    mesh.up.signal("TERM");
    assert_eq!(mesh.up.ends().code(), Some(0));
    let lives = format!("kill -0 {}", pid.trim());
    assert_ne!(place.shell(&lives).code, Some(0), "it outlived its mesh");
}

#[test]
fn the_socket_of_a_folder_that_others_may_enter_is_not_trusted() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    place.write("a.yaml", STRICT);
    let _mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let folder = place.path("meshward");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("the mode");
    let refused = format!(
        "error: {}: can be entered by others\n  hint: it must be yours with mode 0700; or set XDG_RUNTIME_DIR to a folder of yours\n",
        folder.display()
    );
    for words in [
        &["exec", "sleep", "--", "true"][..],
        &["apply", "-f", "a.yaml"],
    ] {
        place.run(words).refuses(1, &refused);
    }
    fs::rename(&folder, place.path("elsewhere")).expect("moved");
    std::os::unix::fs::symlink("elsewhere", &folder).expect("a link");
    let ran = place.run(&["exec", "sleep", "--", "true"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains(": is no folder\n"), "{}", ran.stderr);
}
