use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use meshward_core::api::load::reader::{Purpose, Report};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::mesh::entry::{self, Endpoint, Resolver, Way};

const PATIENCE: Duration = Duration::from_secs(10);
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("meshward-apps-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    /// What the file holds as soon as it holds a whole line.
    async fn line(&self, name: &str) -> String {
        until_some(|| Some(self.read(name)).filter(|text| text.ends_with('\n'))).await
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn until_some<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            match look() {
                Some(found) => return found,
                None => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap()
}

fn place(dir: &Path, ports: &[(u16, PortKind)]) -> AppPlace {
    let free = free_ports(LOCAL, ports.len()).unwrap();
    let ports = ports
        .iter()
        .zip(free)
        .map(|(&(workload, kind), listen)| AppPort {
            workload,
            kind,
            listen,
        });
    AppPlace {
        pod: "shop/webapp-0".into(),
        ports: ports.collect(),
        proxy: "127.0.0.1:1".parse().unwrap(),
        log: dir.join("app.log"),
        dir: dir.to_owned(),
        environment: vec![("MESHWARD_RUN".into(), dir.into())],
    }
}

fn command(text: &str) -> AppKind {
    AppKind::Command(text.to_owned())
}

fn routes(text: &str) -> AppKind {
    let mut report = Report::new("routes".into(), Purpose::Enforce);
    AppKind::Routes(Arc::new(Routes::read(text, &mut report).unwrap()))
}

/// A zombie counts as gone.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, fields)| !fields.starts_with('Z'))
}

async fn connect(address: SocketAddr) -> TcpStream {
    let connecting = async {
        loop {
            match TcpStream::connect(address).await {
                Ok(stream) => return stream,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, connecting).await.unwrap()
}

/// Sends `bytes`, and nothing more, and reads to the end.
async fn exchange(address: SocketAddr, bytes: &str) -> String {
    let mut stream = connect(address).await;
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

async fn get(address: SocketAddr, path: &str, headers: &str) -> (String, String) {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: webapp\r\nConnection: close\r\n{headers}\r\n");
    let answer = exchange(address, &request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn a_command_knows_its_ports_and_its_entry_and_writes_to_its_log() {
    let folder = Folder::new("environment");
    let place = place(&folder.0, &[(8080, PortKind::Http), (9090, PortKind::Tcp)]);
    let (deaths, _reports) = mpsc::unbounded_channel();
    let text = "echo $HOST $PORT $PORT_8080 $PORT_9090 $ALL_PROXY $https_proxy ${NO_PROXY-unset}; pwd; \
                printf %s\\\\n \"$MESHWARD_RUN\" >&2; exec sleep 60";
    let app = start(command(text), place.clone(), deaths);
    let log =
        until_some(|| Some(folder.read("app.log")).filter(|log| log.lines().count() == 3)).await;
    let (first, second) = (place.ports[0].listen.port(), place.ports[1].listen.port());
    let proxy = "socks5h://127.0.0.1:1";
    let dir = folder.0.display();
    assert_eq!(
        log,
        format!("127.0.0.1 {first} {first} {second} {proxy} {proxy} unset\n{dir}\n{dir}\n")
    );
    app.stop().await;
}

#[test]
fn a_command_knows_nothing_of_a_workload_that_started_its_mesh() {
    let here = place(Path::new("/"), &[]);
    let told = command::environment(&here);
    for name in ["HOST", "PORT", "MESHWARD_CERTS", "NO_PROXY"] {
        assert_eq!(told.get(OsStr::new(name)), Some(&None), "{name}");
    }
    let mut here = place(Path::new("/"), &[(8080, PortKind::Http)]);
    here.environment = vec![("MESHWARD_CERTS".into(), "/certs".into())];
    let told = command::environment(&here);
    for (name, value) in [("HOST", "127.0.0.1"), ("MESHWARD_CERTS", "/certs")] {
        assert_eq!(told[OsStr::new(name)], Some(value.into()), "{name}");
    }
}

#[tokio::test]
async fn each_death_is_reported_once_and_followed_by_a_later_try() {
    let folder = Folder::new("deaths");
    let (sender, mut deaths) = mpsc::unbounded_channel();
    let text = "echo started; case $(grep -c . app.log) in 1) exit 7;; 2) kill -KILL $$;; *) exec sleep 60;; esac";
    let app = start(command(text), place(&folder.0, &[]), sender);
    let log = folder.0.join("app.log");
    for (how, next) in [
        ("exit status: 7", "100ms"),
        ("signal: 9 (SIGKILL)", "200ms"),
    ] {
        let death = tokio::time::timeout(PATIENCE, deaths.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            death.to_string(),
            format!(
                "app of shop/webapp-0 ended ({how}), next try in {next}\n  hint: it writes to {}",
                log.display()
            )
        );
    }
    until_some(|| (folder.read("app.log") == "started\n".repeat(3)).then_some(())).await;
    app.stop().await;
    assert!(
        deaths.try_recv().is_err(),
        "an app that was stopped did not die"
    );
}

#[tokio::test]
async fn a_command_that_is_stopped_may_end_by_itself_and_nothing_of_it_is_left() {
    let folder = Folder::new("stop");
    let (sender, mut deaths) = mpsc::unbounded_channel();
    // The shell waits for a child that needs some time after SIGTERM, and has another that does not listen to it.
    let text = "(trap 'sleep 0.3; echo done >done; exit' TERM; while :; do sleep 0.05; done) & \
                (trap '' TERM; while :; do sleep 0.05; done) & echo $! >deaf; wait";
    let app = start(command(text), place(&folder.0, &[]), sender);
    let deaf = folder.line("deaf").await;
    sleep(Duration::from_millis(100)).await;
    assert!(is_alive(&deaf));
    tokio::time::timeout(PATIENCE, app.stop()).await.unwrap();
    assert_eq!(folder.read("done"), "done\n");
    assert!(!is_alive(&deaf), "killed after the grace");
    assert!(deaths.recv().await.is_none());
}

#[tokio::test]
async fn what_a_dead_command_left_behind_is_killed_before_the_next_try() {
    let folder = Folder::new("left");
    let (sender, mut deaths) = mpsc::unbounded_channel();
    let app = start(
        command("sleep 60 & echo $! >left; exit 3"),
        place(&folder.0, &[]),
        sender,
    );
    let death = deaths.recv().await.unwrap();
    assert!(matches!(death.how, Ended::Process(status) if status.code() == Some(3)));
    assert!(!is_alive(&folder.line("left").await));
    app.stop().await;
}

#[test]
fn a_runtime_that_ends_kills_its_commands() {
    let folder = Folder::new("runtime");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (sender, _deaths) = mpsc::unbounded_channel();
    let left = runtime.block_on(async {
        let place = place(&folder.0, &[]);
        let app = start(
            command("trap '' TERM; sleep 60 & echo $! >left; wait"),
            place,
            sender,
        );
        let left = folder.line("left").await;
        std::mem::forget(app);
        left
    });
    assert!(is_alive(&left));
    drop(runtime);
    let end = Instant::now() + PATIENCE;
    while is_alive(&left) {
        assert!(Instant::now() < end, "killed with the runtime");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The test starts itself as the process that dies: no signal that it could act on.
#[test]
fn a_process_that_is_killed_leaves_no_command_behind() {
    const ROLE: &str = "MESHWARD_TEST_KILLED_IN";
    if let Some(dir) = std::env::var_os(ROLE) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (sender, _deaths) = mpsc::unbounded_channel();
            let place = place(Path::new(&dir), &[]);
            let _app = start(command("sleep 60 & echo $! >left; wait"), place, sender);
            std::future::pending::<()>().await;
        });
    }
    let folder = Folder::new("killed");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut process = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "mesh::apps::tests::a_process_that_is_killed_leaves_no_command_behind",
            ])
            .env(ROLE, &folder.0)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let left = folder.line("left").await;
        assert!(is_alive(&left));
        process.kill().unwrap();
        process.wait().unwrap();
        until_some(|| (!is_alive(&left)).then_some(())).await;
    });
}

#[tokio::test]
async fn an_app_that_cannot_start_says_why() {
    let folder = Folder::new("busy");
    let (sender, mut deaths) = mpsc::unbounded_channel();
    let mut place = place(&folder.0, &[(80, PortKind::Http)]);
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    place.ports[0].listen = held.local_addr().unwrap();
    let app = start(AppKind::Echo, place.clone(), sender.clone());
    let why = deaths.recv().await.unwrap().to_string();
    let expected = format!(
        "app of shop/webapp-0 does not start ({}: address already in use), next try in 100ms",
        place.ports[0].listen
    );
    assert_eq!(why, expected);
    drop(held);
    let (status, _) = get(place.ports[0].listen, "/", "").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    app.stop().await;
    place.log = folder.0.join("nowhere/app.log");
    let app = start(command("true"), place, sender);
    let why = deaths.recv().await.unwrap().to_string();
    assert!(
        why.contains("nowhere/app.log: no such file or directory"),
        "{why}"
    );
    app.stop().await;
}

#[tokio::test]
async fn an_echo_shows_a_request_and_sends_back_bytes() {
    let folder = Folder::new("echo");
    let ports = [
        (80, PortKind::Http),
        (90, PortKind::Tcp),
        (70, PortKind::Auto),
    ];
    let place = place(&folder.0, &ports);
    let [http, tcp, auto] = [0, 1, 2].map(|i: usize| place.ports[i].listen);
    let (sender, _deaths) = mpsc::unbounded_channel();
    let app = start(AppKind::Echo, place, sender);
    let shown = "GET /a?b=c\nhost: webapp\nconnection: close\nx-a: \\xff\n";
    let request = b"GET /a?b=c HTTP/1.1\r\nHost: webapp\r\nConnection: close\r\nX-A: \xff\r\n\r\n";
    for address in [http, auto] {
        let mut stream = connect(address).await;
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{shown}")), "{answer}");
    }
    let posted = exchange(
        http,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    )
    .await;
    assert!(posted.ends_with("\n\n5 bytes\n"), "{posted}");
    for (address, bytes) in [
        (tcp, "GET / HTTP/1.1\r\n\r\n"),
        (auto, "\x16\x03\x01"),
        (auto, "HELLO there"),
        (auto, "PROPFINDER / HTTP/1.1"),
        (auto, "GET"),
    ] {
        assert_eq!(exchange(address, bytes).await, bytes);
    }
    app.stop().await;
    assert!(
        TcpStream::connect(http).await.is_err(),
        "nobody listens any more"
    );
}

/// Knows two names; the one in capitals has nobody behind it.
struct Two {
    catalog: SocketAddr,
}

impl Resolver for Two {
    fn resolve(&self, _: &str, name: &str) -> Vec<IpAddr> {
        match name {
            "catalog.shop" => vec![[10, 96, 0, 1].into()],
            "empty.shop" => vec![[10, 96, 0, 2].into()],
            _ => Vec::new(),
        }
    }

    fn endpoint(&self, meant: SocketAddr) -> Endpoint {
        if meant == SocketAddr::from(([10, 96, 0, 1], 80)) {
            Endpoint::Address(self.catalog)
        } else {
            Endpoint::Refused
        }
    }
}

#[tokio::test]
async fn a_route_calls_others_through_its_entry_and_answers_for_them() {
    let folder = Folder::new("routes");
    let catalog = place(&folder.0, &[(3000, PortKind::Http)]);
    let mut webapp = place(&folder.0, &[(8080, PortKind::Http)]);
    let (sender, _deaths) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    webapp.proxy = listener.local_addr().unwrap();
    let resolver = Arc::new(Two {
        catalog: catalog.ports[0].listen,
    });
    let from = Ipv4Addr::LOCALHOST;
    let entry = entry::serve(
        listener,
        "shop".into(),
        resolver,
        Arc::new(Way::Plain { from }),
    );
    let entry = tokio::spawn(entry);
    let catalog_app = start(AppKind::Echo, catalog.clone(), sender.clone());
    let address = webapp.ports[0].listen;
    let app = routes(
        "- {path: /, body: \"home\\n\"}
- {path: /api, prefix: true, calls: [{host: catalog.shop, path: /items?all}]}
- {path: /both, status: 201, calls: [{host: catalog.shop}, {host: nobody.shop, path: /x}], onCallFailure: 503}
- {path: /empty, calls: [{host: empty.shop, port: 8080}]}
",
    );
    let app = start(app, webapp, sender.clone());
    connect(catalog.ports[0].listen).await;
    assert_eq!(
        get(address, "/", "").await,
        ("HTTP/1.1 200 OK".into(), "home\n".into())
    );
    assert_eq!(
        get(address, "/nowhere?x", "").await,
        ("HTTP/1.1 404 Not Found".into(), "404 /nowhere\n".into())
    );
    let (status, body) = get(address, "/api/catalog", "x-request-id: 7\r\nx-other: 8\r\n").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(
        body,
        "GET /items?all\nhost: catalog.shop\nuser-agent: meshward-app\nx-request-id: 7\n"
    );
    assert_eq!(
        get(address, "/both", "").await,
        (
            "HTTP/1.1 503 Service Unavailable".into(),
            "GET http://nobody.shop/x: no such host\n".into()
        )
    );
    assert_eq!(
        get(address, "/empty", "").await,
        (
            "HTTP/1.1 500 Internal Server Error".into(),
            "GET http://empty.shop:8080/: connection refused\n".into()
        )
    );
    // An answer that is no 200, and no answer at all.
    catalog_app.stop().await;
    let refusing = start(routes("- {default: 403}"), catalog.clone(), sender);
    connect(catalog.ports[0].listen).await;
    assert_eq!(
        get(address, "/api", "").await.1,
        "GET http://catalog.shop/items?all: 403 403 /items\n"
    );
    refusing.stop().await;
    entry.abort();
    let _ = entry.await;
    let (status, body) = get(address, "/api", "").await;
    assert_eq!(status, "HTTP/1.1 500 Internal Server Error");
    assert!(body.ends_with(": connection refused\n"), "{body}");
    app.stop().await;
}

#[tokio::test]
async fn a_call_that_is_reset_says_so() {
    let folder = Folder::new("reset");
    let mut webapp = place(&folder.0, &[(8080, PortKind::Http)]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    webapp.proxy = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(&[5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
            .await
            .unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        let _ = stream.read(&mut request).await.unwrap();
        stream.set_zero_linger().unwrap();
    });
    let address = webapp.ports[0].listen;
    let (sender, _deaths) = mpsc::unbounded_channel();
    let app = start(routes("- {path: /, calls: [{host: a}]}"), webapp, sender);
    assert_eq!(
        get(address, "/", "").await.1,
        "GET http://a/: connection reset by peer\n"
    );
    app.stop().await;
}

#[tokio::test]
async fn nothing_is_started_for_an_upstream_or_for_nobody() {
    let folder = Folder::new("nobody");
    let (sender, mut deaths) = mpsc::unbounded_channel();
    for kind in [
        AppKind::None,
        AppKind::Upstream("127.0.0.1:1".parse().unwrap()),
    ] {
        let place = place(&folder.0, &[(80, PortKind::Http)]);
        let address = place.ports[0].listen;
        let app = start(kind, place, sender.clone());
        tokio::task::yield_now().await;
        assert!(TcpStream::connect(address).await.is_err());
        app.stop().await;
    }
    drop(sender);
    assert!(deaths.recv().await.is_none());
}

#[test]
fn ports_of_apps_are_not_given_out_twice_and_not_by_the_kernel() {
    let mut given = Vec::new();
    for count in [1, 3, 200] {
        given.extend(free_ports(LOCAL, count).unwrap());
    }
    let given: std::collections::BTreeSet<_> = given.into_iter().collect();
    assert_eq!(given.len(), 204);
    let range = app_ports();
    assert!(given.iter().all(|a| range.contains(&a.port())));
    // Somebody who asks for any port gets none of them.
    let taken = TcpListener::bind((LOCAL, 0)).unwrap().local_addr().unwrap();
    assert!(!given.contains(&taken), "{taken}");
}
