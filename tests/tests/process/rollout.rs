//! `rollout`: pods are made anew under load, and nothing is lost.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::meshes::{Mesh, SHOP, pod, service};
use crate::place::{Place, until};

/// Pods `NAME-0` and so on with the label `app: NAME` and port 8080; `more` are annotations of the template.
pub(crate) fn deployment(namespace: &str, name: &str, replicas: u8, more: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata:\n      labels: {{app: {name}}}\n      annotations: {{{more}}}\n    \
         spec:\n      containers: [{{name: main, image: none, ports: [{{containerPort: 8080}}]}}]\n---\n"
    )
}

/// `web` with so many pods, and `client`.
fn web(place: &Place, replicas: u8, more: &str) -> String {
    [
        SHOP.to_owned(),
        deployment("shop", "web", replicas, more),
        service("shop", "web", 8080),
        pod("shop", "client", place.ip, "", &[]),
    ]
    .concat()
}

/// Name, READY and IP of the pods of `web`.
fn pods(place: &Place) -> Vec<[String; 3]> {
    let ran = place.run(&["get", "po", "-n", "shop", "-l", "app=web", "-o", "wide"]);
    let rows = ran.stdout.lines().skip(1).map(|line| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        [cells[0], cells[1], cells[5]].map(str::to_owned)
    });
    rows.collect()
}

/// What curl says of a call of the client, from any thread.
fn call(place: &Place, path: &str) -> (String, Option<i32>) {
    let url = format!("http://web.shop:8080{path}");
    let curl = [
        "curl",
        "-s",
        "-m",
        "10",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        &url,
    ];
    let ran = place.run(&[&["exec", "client.shop", "--"], &curl[..]].concat());
    (ran.stdout, ran.code)
}

/// Every test of this list, over either runtime.
macro_rules! over {
    ($($module:ident: $runtime:literal,)*) => {$(
        mod $module {
            #[test]
            fn pods_are_made_anew_under_load_and_no_request_is_lost() {
                super::pods_are_made_anew_under_load_and_no_request_is_lost($runtime);
            }
        }
    )*};
}

over! {
    tokio: "tokio",
    uring: "uring",
}

fn pods_are_made_anew_under_load_and_no_request_is_lost(runtime: &str) {
    let place = Place::new();
    place.write("mesh.yaml", web(&place, 2, ""));
    let range = place.range();
    let _mesh = Mesh::start(&place, &["--runtime", runtime, "--pod-range", &range]);
    let before = pods(&place);
    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut lost = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let answer = call(&place, "/");
                sent.fetch_add(1, Ordering::Relaxed);
                if answer != ("200".to_owned(), Some(0)) {
                    lost.push(answer);
                }
            }
            lost
        });
        let ran = place.run(&["rollout", "restart", "deploy/web", "-n", "shop"]);
        assert_eq!(
            (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
            (Some(0), "deployment.apps/web restarted\n", "")
        );
        let ran = place.run(&[
            "rollout",
            "status",
            "deploy/web",
            "-n",
            "shop",
            "--timeout",
            "20s",
        ]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(
            ran.stdout
                .ends_with("deployment \"web\" successfully rolled out\n"),
            "{}",
            ran.stdout
        );
        let enough = sent.load(Ordering::Relaxed) + 5;
        until("some more requests", || {
            (sent.load(Ordering::Relaxed) > enough).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        assert_eq!(load.join().expect("it sends"), []);
    });
    let after = pods(&place);
    assert_eq!(after.len(), 2);
    for ([name, ready, old], [same, now, new]) in before.iter().zip(&after) {
        assert_eq!((name, ready.as_str()), (same, "2/2"));
        assert_eq!(now, "2/2");
        assert_ne!(old, new, "{name} has its address still");
    }
    // Who has gone listens no more.
    let old = &before[0][2];
    until("the end of the old pod", || {
        std::net::TcpStream::connect(format!("{old}:8080"))
            .is_err()
            .then_some(())
    });
}

#[test]
fn an_open_request_ends_with_the_old_pod() {
    let place = Place::new();
    let slow = "meshward.dev/command: \"exec python3 slow.py\"";
    let text = web(&place, 1, slow).replace(
        "exec python3 slow.py",
        "exec python3 $MESHWARD_RUN/../../slow.py",
    );
    place.write("mesh.yaml", text);
    place.write(
        "slow.py",
        "import http.server, os, time\nclass H(http.server.BaseHTTPRequestHandler):\n  def do_GET(self):\n    \
         if self.path == '/slow': open(os.environ['MESHWARD_RUN'] + '/../../began', 'w'); time.sleep(1.5)\n    \
         self.send_response(200); self.end_headers()\n  def log_message(self, *a): pass\n\
         http.server.ThreadingHTTPServer((os.environ['HOST'], int(os.environ['PORT'])), H).serve_forever()\n",
    );
    let range = place.range();
    let _mesh = Mesh::start(&place, &["--runtime", "tokio", "--pod-range", &range]);
    let before = pods(&place);
    thread::scope(|scope| {
        let open = scope.spawn(|| call(&place, "/slow"));
        until("the request", || place.path("began").exists().then_some(()));
        place.run(&["rollout", "restart", "deploy/web", "-n", "shop"]);
        let ran = place.run(&["rollout", "status", "deploy/web", "-n", "shop"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_ne!(pods(&place), before);
        assert_eq!(open.join().expect("it ends"), ("200".to_owned(), Some(0)));
    });
}

#[test]
fn another_template_that_is_applied_makes_new_pods() {
    let place = Place::new();
    place.write("mesh.yaml", web(&place, 2, ""));
    let range = place.range();
    let mesh = Mesh::start(&place, &["--runtime", "tokio", "--pod-range", &range]);
    let status = || mesh.curl("client.shop", "http://web.shop:8080/").0;
    assert_eq!(status(), "200");
    let answers = "meshward.dev/routes: \"- default: 418\"";
    mesh.applies(
        &deployment("shop", "web", 2, answers),
        "deployment.apps/web configured\n",
    );
    let ran = place.run(&[
        "rollout",
        "status",
        "deploy/web",
        "-n",
        "shop",
        "--timeout",
        "20s",
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(status(), "418");
    // A template that makes no pod is refused before anything happens.
    place.write(
        "bad.yaml",
        deployment("shop", "web", 2, "meshward.dev/app: ecko"),
    );
    let ran = place.run(&["apply", "-f", "bad.yaml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(65), ""));
    assert!(ran.stderr.starts_with("bad.yaml:"), "{}", ran.stderr);
    // More of them change nothing of those that are there.
    let before = pods(&place);
    mesh.applies(
        &deployment("shop", "web", 3, answers),
        "deployment.apps/web configured\n",
    );
    assert_eq!(pods(&place)[..2], before);
    assert_eq!(pods(&place).len(), 3);
}

#[test]
fn a_pod_that_does_not_get_ready_takes_nobodys_place() {
    let place = Place::new();
    place.write("mesh.yaml", web(&place, 2, ""));
    let range = place.range();
    let mut mesh = Mesh::start(&place, &["--runtime", "tokio", "--pod-range", &range]);
    let before = pods(&place);
    let silent = "meshward.dev/command: exec sleep 600";
    mesh.applies(
        &deployment("shop", "web", 2, silent),
        "deployment.apps/web configured\n",
    );
    let ran = place.run(&[
        "rollout",
        "status",
        "deploy/web",
        "-n",
        "shop",
        "--timeout",
        "30s",
    ]);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    let says = "error: deployment \"web\" exceeded its progress deadline\n  hint: the app of shop/web-0 does not listen on 127.0.0.1:";
    assert!(ran.stderr.starts_with(says), "{}", ran.stderr);
    mesh.up.says(
        "error: pod shop/web-0 stays as it is: the app of shop/web-0 does not listen on 127.0.0.1:",
    );
    assert_eq!(pods(&place), before);
    assert_eq!(
        mesh.curl("client.shop", "http://web.shop:8080/"),
        ("200".to_owned(), Some(0))
    );
    let certs =
        "openssl verify -CAfile $MESHWARD_CERTS/root-cert.pem $MESHWARD_CERTS/cert-chain.pem";
    assert_eq!(mesh.exec("pod/web-0.shop", certs).code, Some(0));
    let ran = place.run(&["get", "deploy", "web", "-n", "shop"]);
    let row: Vec<&str> = ran
        .stdout
        .lines()
        .nth(1)
        .expect("a row")
        .split_whitespace()
        .collect();
    assert_eq!(row[1..4], ["2/2", "0", "2"]);
    // What was wrong can be put right.
    mesh.applies(
        &deployment("shop", "web", 2, "meshward.dev/app: echo"),
        "deployment.apps/web configured\n",
    );
    let ran = place.run(&[
        "rollout",
        "status",
        "deploy/web",
        "-n",
        "shop",
        "--timeout",
        "20s",
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn a_mesh_that_ends_waits_for_no_pod_that_is_made_anew() {
    let place = Place::new();
    place.write("mesh.yaml", web(&place, 1, ""));
    let range = place.range();
    let mut mesh = Mesh::start(&place, &["--runtime", "tokio", "--pod-range", &range]);
    let silent = "meshward.dev/command: \"touch $MESHWARD_RUN/began; exec sleep 600\"";
    mesh.applies(
        &deployment("shop", "web", 1, silent),
        "deployment.apps/web configured\n",
    );
    let began = mesh.folder().join("began");
    until("the new app", || began.exists().then_some(()));
    let now = std::time::Instant::now();
    mesh.up.signal("INT");
    assert_eq!(mesh.up.ends().code(), Some(0), "{:?}", mesh.up.said);
    assert!(now.elapsed() < std::time::Duration::from_secs(8));
}

#[test]
fn only_deployments_are_rolled_out() {
    let place = Place::new();
    place.write("mesh.yaml", web(&place, 1, ""));
    let range = place.range();
    let _mesh = Mesh::start(&place, &["--runtime", "tokio", "--pod-range", &range]);
    let rollout = |words: &[&str]| place.run(&[&["rollout"], words].concat());
    rollout(&["restart", "pod/client", "-n", "shop"])
        .refuses(1, "error: pods \"client\" restarting is not supported\n");
    for verb in ["restart", "status"] {
        rollout(&[verb, "deploy/nobody", "-n", "shop"]).refuses(
            1,
            "Error from server (NotFound): deployments.apps \"nobody\" not found\n",
        );
        assert_eq!(rollout(&[verb]).code, Some(64));
    }
    rollout(&["status", "svc/web", "-n", "shop"]).refuses(
        1,
        "error: no status viewer has been implemented for services\n",
    );
    rollout(&["status", "deploy", "-n", "shop"])
        .refuses(64, "error: rollout status takes one deployment\n");
    assert_eq!(rollout(&["undo", "deploy/web"]).code, Some(64));
    let ran = rollout(&["restart", "deploy"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "No resources found\n")
    );
    let ran = rollout(&["status", "deploy/web", "-n", "shop", "--watch=false"]);
    assert_eq!(ran.stdout, "deployment \"web\" successfully rolled out\n");
}
