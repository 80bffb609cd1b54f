//! A sidecar that runs: SIGHUP takes over everything or nothing, SIGTERM lets what is open finish.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use crate::place::{App, Client, Place, SERVER, Sidecar, TLS, until};

/// Every test of this file, over either runtime.
macro_rules! over {
    ($($module:ident: $runtime:literal,)*) => {$(
        mod $module {
            #[test]
            fn sighup_changes_the_policies_under_an_open_connection() {
                super::sighup_changes_the_policies_under_an_open_connection($runtime);
            }
            #[test]
            fn sighup_with_a_mistake_changes_nothing_and_says_so() {
                super::sighup_with_a_mistake_changes_nothing_and_says_so($runtime);
            }
            #[test]
            fn sighup_takes_a_renewed_identity_and_refuses_one_that_does_not_fit() {
                super::sighup_takes_a_renewed_identity_and_refuses_one_that_does_not_fit($runtime);
            }
            #[test]
            fn sighup_opens_a_log_anew_that_was_moved_away() {
                super::sighup_opens_a_log_anew_that_was_moved_away($runtime);
            }
            #[test]
            fn the_mesh_says_where_and_how_listeners_log_that_say_nothing() {
                super::the_mesh_says_where_and_how_listeners_log_that_say_nothing($runtime);
            }
            #[test]
            fn sigterm_lets_an_open_request_finish() {
                super::sigterm_lets_an_open_request_finish($runtime);
            }
            #[test]
            fn sigterm_finishes_idle_connections_and_ends_with_them() {
                super::sigterm_finishes_idle_connections_and_ends_with_them($runtime);
            }
            #[test]
            fn a_request_that_does_not_end_is_cut_when_the_grace_is_over() {
                super::a_request_that_does_not_end_is_cut_when_the_grace_is_over($runtime);
            }
            #[test]
            fn a_sidecar_outlives_whoever_reads_what_it_says() {
                super::a_sidecar_outlives_whoever_reads_what_it_says($runtime);
            }
        }
    )*};
}

over! {
    tokio: "tokio",
    uring: "uring",
}

const DENY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: deny, namespace: default}\n\
                    spec:\n  action: DENY\n  rules:\n  - to:\n    - operation: {paths: [/secret], ports: [\"8443\"]}\n";

/// Plain text with the policies in `pol` and the log `access.log`.
fn plain(place: &Place) -> String {
    place.write("pol/none.yaml", "");
    place.inbound("  mode: DISABLE\n  policies: pol\n  accessLog: access.log\n")
}

fn sighup_changes_the_policies_under_an_open_connection(runtime: &str) {
    let place = Place::new();
    let _app = App::start(&place);
    place.write("s.yaml", plain(&place));
    let mut sidecar = Sidecar::start(&place, "s.yaml", runtime);
    let mut client = Client::connect(&place);
    assert_eq!(client.get("/secret"), Some(200));
    place.write("pol/deny.yaml", DENY);
    sidecar.signal("HUP");
    sidecar.says("reloaded: 1 listener, 1 policy, 1 worker");
    until("the new policy", || {
        (client.get("/secret")? == 403).then_some(())
    });
    assert_eq!(client.get("/"), Some(200));
}

fn sighup_with_a_mistake_changes_nothing_and_says_so(runtime: &str) {
    let place = Place::new();
    let _app = App::start(&place);
    let file = plain(&place);
    place.write("s.yaml", &file);
    place.write("pol/deny.yaml", DENY);
    let mut sidecar = Sidecar::start(&place, "s.yaml", runtime);
    let mut client = Client::connect(&place);
    assert_eq!(client.get("/secret"), Some(403));
    // Of two policies one is wrong: the right one is not taken over alone.
    let other = DENY
        .replace("name: deny", "name: other")
        .replace("/secret", "/");
    for (name, text, says) in [
        (
            "pol/deny.yaml",
            DENY.replace("DENY", "MAYBE"),
            "pol/deny.yaml:5:11: `MAYBE` is no action",
        ),
        ("pol/deny.yaml", "kind: [\n".to_owned(), "pol/deny.yaml:1:"),
        (
            "s.yaml",
            file.replace("mode:", "moode:"),
            "s.yaml:6:3: unknown field `moode` in `inbound`",
        ),
        ("s.yaml", String::new(), "s.yaml:1:1: the file is empty"),
        (
            "s.yaml",
            file.replace("8443", "9443"),
            "s.yaml: workers, listeners or identity files differ",
        ),
        (
            "s.yaml",
            format!("workers: 2\n{file}"),
            "s.yaml: workers, listeners or identity files differ",
        ),
        (
            "s.yaml",
            file.replace("access.log", "no/folder/log"),
            "no/folder/log: cannot be opened for the access log",
        ),
    ] {
        let before = place.read(name);
        place.write(name, text);
        place.write("pol/other.yaml", &other);
        sidecar.signal("HUP");
        sidecar.says(says);
        sidecar.says("not reloaded, everything stays as it was");
        assert_eq!(
            (client.get("/secret"), client.get("/")),
            (Some(403), Some(200)),
            "{says}"
        );
        assert_eq!(Client::connect(&place).get("/secret"), Some(403), "{says}");
        place.write(name, before);
    }
    sidecar.signal("HUP");
    sidecar.says("reloaded: 1 listener, 2 policies, 1 worker");
    until("the right files", || {
        (client.get("/")? == 403).then_some(())
    });
}

fn sighup_takes_a_renewed_identity_and_refuses_one_that_does_not_fit(runtime: &str) {
    let place = Place::new();
    place.issue(SERVER, "id");
    place.write("s.yaml", place.inbound(&format!("{TLS}  mode: STRICT\n")));
    let mut sidecar = Sidecar::start(&place, "s.yaml", runtime);
    let served = || {
        let text = "openssl s_client -connect $IP:8443 </dev/null 2>/dev/null | openssl x509 -noout -serial";
        place.shell(text).stdout
    };
    let in_file = || {
        place
            .shell("openssl x509 -in id/cert.pem -noout -serial")
            .stdout
    };
    let first = in_file();
    assert_eq!(served(), first);
    let key = place.read("id/key.pem");
    place.issue(SERVER, "id");
    let renewed = place.read("id/key.pem");
    place.write("id/key.pem", key);
    sidecar.signal("HUP");
    sidecar.says("id/key.pem: the private key does not belong to the leaf certificate");
    sidecar.says("not reloaded, everything stays as it was");
    assert_eq!(served(), first);
    place.write("id/key.pem", renewed);
    sidecar.signal("HUP");
    sidecar.says("reloaded: 1 listener, 0 policies, 1 worker");
    let second = in_file();
    assert_ne!(second, first);
    until("the renewed certificate", || {
        (served() == second).then_some(())
    });
}

fn sighup_opens_a_log_anew_that_was_moved_away(runtime: &str) {
    let place = Place::new();
    let _app = App::start(&place);
    place.write("s.yaml", plain(&place));
    let mut sidecar = Sidecar::start(&place, "s.yaml", runtime);
    let mut client = Client::connect(&place);
    assert_eq!(client.get("/before"), Some(200));
    fs::rename(place.path("access.log"), place.path("access.log.1")).expect("a log");
    assert_eq!(client.get("/moved"), Some(200));
    sidecar.signal("HUP");
    sidecar.says("reloaded: ");
    assert_eq!(client.get("/after"), Some(200));
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends().code(), Some(0));
    let paths = |name: &str| -> Vec<String> {
        let log = place.read(name);
        log.lines()
            .filter_map(|l| Some(l.split(' ').nth(2)?.to_owned()))
            .collect()
    };
    assert_eq!(paths("access.log.1"), ["/before", "/moved"]);
    assert_eq!(paths("access.log"), ["/after"]);
}

fn the_mesh_says_where_and_how_listeners_log_that_say_nothing(runtime: &str) {
    let place = Place::new();
    let _app = App::start(&place);
    let mesh = "mesh: {accessLogFile: mesh.log, accessLogEncoding: JSON}\n";
    place.write(
        "s.yaml",
        mesh.to_owned() + &place.inbound("  mode: DISABLE\n"),
    );
    let mut sidecar = Sidecar::start(&place, "s.yaml", runtime);
    assert_eq!(Client::connect(&place).get("/hello"), Some(200));
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends().code(), Some(0));
    let log = place.read("mesh.log");
    assert!(
        log.starts_with("{\"start_time\":") && log.contains("\"path\":\"/hello\""),
        "{log}"
    );
    assert_eq!(log.lines().count(), 1);
}

fn sigterm_lets_an_open_request_finish(runtime: &str) {
    let place = Place::new();
    let app = App::start(&place);
    place.write("s.yaml", plain(&place));
    let mut sidecar = Sidecar::start(&place, "s.yaml", runtime);
    let mut client = Client::connect(&place);
    client.send("/slow");
    app.has_slow();
    sidecar.signal("TERM");
    sidecar.says("draining, at most 5 s");
    until("the end of listening", || {
        TcpStream::connect((place.ip, 8443)).is_err().then_some(())
    });
    assert!(sidecar.is_running(), "it waits for the open request");
    app.release();
    assert_eq!(client.status(), Some(200));
    assert_eq!(sidecar.ends().code(), Some(0));
    assert!(
        place
            .read("access.log")
            .contains("\"GET /slow HTTP/1.1\" 200 "),
        "its line is written"
    );
}

fn sigterm_finishes_idle_connections_and_ends_with_them(runtime: &str) {
    let place = Place::new();
    let _app = App::start(&place);
    place.write("s.yaml", plain(&place));
    for signal in ["TERM", "INT"] {
        let mut sidecar = Sidecar::start(&place, "s.yaml", runtime);
        let mut client = Client::connect(&place);
        assert_eq!(client.get("/"), Some(200));
        sidecar.signal(signal);
        assert_eq!(client.status(), None, "{signal}: its end, and no answer");
        drop(client);
        assert_eq!(sidecar.ends().code(), Some(0), "{signal}");
    }
}

fn a_request_that_does_not_end_is_cut_when_the_grace_is_over(runtime: &str) {
    let place = Place::new();
    let app = App::start(&place);
    place.write("s.yaml", plain(&place));
    let mut sidecar = Sidecar::start(&place, "s.yaml", runtime);
    let mut client = Client::connect(&place);
    client.send("/slow");
    app.has_slow();
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends().code(), Some(0));
    assert_ne!(client.status(), Some(200));
    app.release();
}

/// A process that a failing test does not leave behind.
pub(crate) struct Owned(pub(crate) Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_sidecar_outlives_whoever_reads_what_it_says(runtime: &str) {
    let place = Place::new();
    let _app = App::start(&place);
    let file = plain(&place);
    place.write("s.yaml", &file);
    let mut command = place.command(&["sidecar", "--config", "s.yaml", "--runtime", runtime]);
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Owned(piped.spawn().expect("it can be run"));
    let mut first = String::new();
    let mut out = BufReader::new(child.0.stdout.take().expect("stdout is a pipe"));
    out.read_line(&mut first).expect("its first line");
    drop((out, child.0.stderr.take()));
    let signal = |name: &str| {
        let kill = format!("kill -{name} {}", child.0.id());
        assert_eq!(place.shell(&kill).code, Some(0));
    };
    place.write("s.yaml", "nothing: good\n");
    signal("HUP");
    place.write("s.yaml", &file);
    place.write("pol/deny.yaml", DENY);
    signal("HUP");
    until("the new policy", || {
        (Client::connect(&place).get("/secret")? == 403).then_some(())
    });
    signal("TERM");
    assert_eq!(child.0.wait().expect("its end").code(), Some(0));
}
