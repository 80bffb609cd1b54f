//! Files that a sidecar refuses: one message for each finding, with its place and what to do, exit 65.

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use crate::place::{Place, READER, SERVER, TLS};

const DISABLE: &str = "  mode: DISABLE\n";

/// `file` as a whole, with and without `--check`.
#[track_caller]
fn refused(place: &Place, file: &str, stderr: &str) {
    place.write("s.yaml", file);
    for arguments in [
        &["sidecar", "--config", "s.yaml"][..],
        &["sidecar", "--config", "s.yaml", "--check"],
    ] {
        place.run(arguments).refuses(65, stderr);
    }
}

#[test]
fn a_file_that_is_right_is_summed_up_by_check() {
    let place = Place::new();
    place.write("s.yaml", place.inbound(DISABLE));
    let ran = place.run(&["sidecar", "--config", "s.yaml", "--check"]);
    assert_eq!(ran.stdout, "s.yaml: 1 listener, 0 policies, 1 worker\n");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_sidecar_file_that_is_wrong_is_refused_with_the_place() {
    let place = Place::new();
    let ip = place.ip;
    refused(
        &place,
        "",
        "s.yaml:1:1: the file is empty\n  hint: see examples/one-sidecar/server.yaml\n",
    );
    refused(
        &place,
        "inbound: []\n",
        "s.yaml:1:1: no listener\n  hint: give `inbound` or `outbound` an item\n",
    );
    refused(
        &place,
        &place.inbound("  mode: DISABLE\n  colour: red\n"),
        "s.yaml:7:3: unknown field `colour` in `inbound`\n  hint: `inbound` has name, address, protocol, upstream, mode, tls, policies, accessLog\n",
    );
    refused(
        &place,
        &place.inbound("  mode: strict\n"),
        "s.yaml:6:9: `strict` is no mode\n  hint: write STRICT, PERMISSIVE or DISABLE, or leave it out so that PeerAuthentication decides\n",
    );
    refused(
        &place,
        &place.inbound(""),
        "s.yaml:2:3: this listener has no `tls`, and its mode is not DISABLE\n  hint: give it `tls`, or say `mode: DISABLE`\n",
    );
    refused(
        &place,
        &format!(
            "workers: 0\n{}",
            place
                .inbound(DISABLE)
                .replace(&format!("{ip}:8443"), "here")
        ),
        "s.yaml:1:10: `workers` is not usable\n  hint: write a whole number from 1 to 256\n\
         s.yaml:4:12: `address` is `here`, which is no address with a port\n  hint: write it as 127.0.0.1:8080 or [::1]:8080\n",
    );
    refused(
        &place,
        &format!(
            "{}{}",
            place.inbound(DISABLE),
            place.inbound(DISABLE).replace("inbound:\n", "")
        ),
        &format!(
            "s.yaml:7:3: `app` listens on {ip}:8443 as `app` does\n  hint: give one of them another address\n"
        ),
    );
    place.run(&["sidecar", "--config", "none.yaml"]).refuses(
        65,
        "none.yaml: cannot be read: no such file or directory\n  hint: name a file that is there and can be read\n",
    );
}

#[test]
fn yaml_that_does_not_parse_is_refused_with_the_place() {
    let place = Place::new();
    for (text, at) in [
        ("inbound: [\n", "s.yaml:1:10: "),
        ("inbound:\n\t- a\n", "s.yaml:2:"),
        ("a: b: c\n", "s.yaml:1:"),
    ] {
        place.write("s.yaml", text);
        let ran = place.run(&["sidecar", "--config", "s.yaml"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(65), ""), "{text:?}");
        assert!(ran.stderr.starts_with(at), "{text:?}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("\n  hint: "),
            "{text:?}: {}",
            ran.stderr
        );
    }
}

#[test]
fn identity_files_that_do_not_fit_are_refused_by_name() {
    let place = Place::new();
    place.issue(SERVER, "id");
    place.issue(READER, "reader");
    for (from, to, says) in [
        (
            "id/key.pem",
            "reader/key.pem",
            "reader/key.pem: the private key does not belong to the leaf certificate\n  hint: give the key for which the certificate was issued",
        ),
        (
            "id/key.pem",
            "id/cert.pem",
            "id/cert.pem: the private key file holds no unencrypted private key\n  hint: give the PEM section PRIVATE KEY, without a passphrase",
        ),
        (
            "id/cert.pem",
            "none.pem",
            "none.pem: cannot be read: no such file or directory\n  hint: name a file that is there and can be read",
        ),
        (
            "id/bundle.pem",
            "id/cert.pem",
            "id/cert.pem: certificate 0 of the trust bundle cannot be a root: the certificate is not one of a certificate authority\n  hint: list root certificates only, not those of workloads",
        ),
    ] {
        let file = place.inbound(&TLS.replace(from, to));
        refused(&place, &file, &format!("s.yaml:7:5: {says}\n"));
    }
}

#[test]
fn an_expired_identity_is_refused() {
    let place = Place::new();
    place.issue(SERVER, "other");
    let issue = ["ca", "issue", "ca", SERVER, "--out", "id", "--ttl", "1s"];
    assert_eq!(place.run(&issue).code, Some(0));
    // Its last second is valid to its end.
    thread::sleep(Duration::from_millis(2100));
    place.write("s.yaml", place.inbound(TLS));
    let ran = place.run(&["sidecar", "--config", "s.yaml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(65), ""));
    assert!(
        ran.stderr
            .starts_with("s.yaml:7:5: id/cert.pem: the certificate has expired at 20")
            && ran.stderr.ends_with("\n  hint: renew the certificate\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn what_the_mesh_says_of_logs_and_is_not_done_is_refused() {
    let place = Place::new();
    let file = format!(
        "mesh:\n  accessLogFormat: \"%PROTOCOL%\"\n{}",
        place.inbound(DISABLE)
    );
    refused(
        &place,
        &file,
        "s.yaml:2:3: `accessLogFormat`: valid, not enforced yet\n  hint: remove it: until it is enforced, nothing that has it is loaded\n",
    );
}

/// A policy with `spec` as it stands from line 4 on.
fn policy(kind: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: a, namespace: default}}\n{spec}"
    )
}

#[test]
fn policies_that_istio_would_refuse_are_refused() {
    let place = Place::new();
    place.issue(SERVER, "id");
    let file = place.inbound(&format!("{TLS}  policies: pol\n"));
    for (text, stderr) in [
        (
            policy("AuthorizationPolicy", "spec: {action: MAYBE}\n"),
            "pol/p.yaml:4:16: `MAYBE` is no action\n  hint: take one of ALLOW, AUDIT, CUSTOM, DENY\n",
        ),
        (
            policy("AuthorizationPolicy", "spec: {action: DENY}\n"),
            "pol/p.yaml:4:7: a policy that denies or asks a provider has no rules\n  hint: add `rules`; `- {}` matches everything\n",
        ),
        (
            policy(
                "AuthorizationPolicy",
                "spec:\n  rules:\n  - to:\n    - operation:\n        path: [/]\n",
            ),
            "pol/p.yaml:8:9: unknown field `path` in `operation`\n  hint: did you mean `paths`?\n",
        ),
        (
            policy("PeerAuthentication", "spec: {mtls: {mode: LOOSE}}\n"),
            "pol/p.yaml:4:21: `LOOSE` is no mode of mutual TLS\n  hint: take one of UNSET, DISABLE, PERMISSIVE, STRICT\n",
        ),
    ] {
        place.write("pol/p.yaml", text);
        refused(&place, &file, stderr);
    }
    place.write(
        "pol/p.yaml",
        policy("PeerAuthentication", "spec: {mtls: {mode: STRICT}}\n"),
    );
    let both = place.inbound(&format!("{TLS}  policies: pol\n  mode: STRICT\n"));
    refused(
        &place,
        &both,
        "s.yaml:2:3: `mode` stands beside a PeerAuthentication in `policies`\n  hint: keep one of the two\n",
    );
    refused(
        &place,
        &file.replace("pol\n", "nowhere\n"),
        "s.yaml:10:13: nowhere: cannot be read: no such file or directory\n  hint: name a folder of YAML files, or a file\n",
    );
}

/// Every token is refused where nobody fetches the keys (S-228), which is no reason to refuse the file.
#[test]
fn keys_that_nobody_fetches_are_a_warning() {
    let place = Place::new();
    place.issue(SERVER, "id");
    place.write("s.yaml", place.inbound(&format!("{TLS}  policies: pol\n")));
    let spec = "spec: {jwtRules: [{issuer: a, jwksUri: \"https://a/keys\"}]}\n";
    place.write("pol/jwt.yaml", policy("RequestAuthentication", spec));
    let ran = place.run(&["sidecar", "--config", "s.yaml", "--check"]);
    assert_eq!(ran.stdout, "s.yaml: 1 listener, 1 policy, 1 worker\n");
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            Some(0),
            "pol/jwt.yaml:4:19: warning: keys are not fetched yet: every token is refused until `https://a/keys` is replaced by `jwks`\n  hint: until it is corrected more is refused, or less is passed on\n"
        )
    );
}

/// What is valid for Istio and would not be acted on here stops a sidecar: security is never skipped with a warning.
#[test]
fn what_is_not_enforced_yet_is_refused() {
    let place = Place::new();
    place.issue(SERVER, "id");
    let file = place.inbound(&format!("{TLS}  policies: pol\n"));
    let ap = |spec: &str| policy("AuthorizationPolicy", spec);
    for (text, at, what) in [
        (
            ap("spec: {action: CUSTOM, provider: {name: x}, rules: [{}]}\n"),
            "4:16",
            "action CUSTOM",
        ),
        (
            ap("spec: {rules: [{}]}\n").replace(
                "metadata: {",
                "metadata: {annotations: {istio.io/dry-run: \"true\"}, ",
            ),
            "1:1",
            "annotation `istio.io/dry-run`",
        ),
    ] {
        place.write("pol/p.yaml", &text);
        place.write("s.yaml", &file);
        let ran = place.run(&["sidecar", "--config", "s.yaml"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(65), ""), "{text}");
        assert_eq!(
            ran.stderr,
            format!(
                "pol/p.yaml:{at}: {what}: valid, not enforced yet\n  hint: remove it: until it is enforced, nothing that has it is loaded\n"
            )
        );
    }
    for kind in [
        "DestinationRule",
        "Sidecar",
        "Gateway",
        "VirtualService",
        "ServiceEntry",
    ] {
        let text =
            policy(kind, "spec: {host: x}\n").replace("security.istio.io", "networking.istio.io");
        place.write("pol/p.yaml", text);
        refused(
            &place,
            &file,
            &format!(
                "pol/p.yaml:1:1: kind {kind}: valid, not enforced yet\n  hint: remove it: until it is enforced, nothing that has it is loaded\n"
            ),
        );
    }
}

#[test]
fn an_address_that_cannot_be_had_exits_with_1() {
    let place = Place::new();
    place.write("s.yaml", place.inbound(DISABLE));
    let taken = TcpListener::bind((place.ip, 8443)).expect("an address of our own");
    let run = || place.run(&["sidecar", "--config", "s.yaml", "--runtime", "tokio"]);
    run().refuses(
        1,
        &format!(
            "error: listener `app` cannot listen on {}:8443: address already in use\n  hint: another process listens there: end it, or choose another address\n",
            place.ip
        ),
    );
    drop(taken);
    place.write(
        "s.yaml",
        place
            .inbound(DISABLE)
            .replace(&format!("address: {}", place.ip), "address: 192.0.2.1"),
    );
    run().refuses(
        1,
        "error: listener `app` cannot listen on 192.0.2.1:8443: cannot assign requested address\n  hint: the machine has no such address\n",
    );
    place.write(
        "s.yaml",
        place.inbound("  mode: DISABLE\n  accessLog: no/such/folder/log\n"),
    );
    run().refuses(
        1,
        "error: no/such/folder/log: cannot be opened for the access log: no such file or directory\n",
    );
}

/// Runs what follows it with io_uring_setup(2) forbidden, as many containers do.
const NO_IO_URING: &str = r#"
import ctypes, os, struct, sys
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
program = Program(len(rules), ctypes.addressof(code))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn without_io_uring_its_runtime_exits_with_1_and_auto_runs_on_tokio() {
    let place = Place::new();
    place.write("s.yaml", place.inbound(DISABLE));
    place.write("no_io_uring.py", NO_IO_URING);
    let run = |runtime: &str| {
        let meshward = crate::place::meshward().display();
        place.shell(&format!(
            "timeout 3 python3 no_io_uring.py {meshward} sidecar --config s.yaml --runtime {runtime}"
        ))
    };
    let ran = run("uring");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    let why = "a seccomp filter forbids io_uring, as many containers do";
    assert_eq!(
        ran.stderr,
        format!(
            "error: io_uring cannot be used: {why}\n  hint: --runtime tokio, or --runtime auto\n"
        )
    );
    let ran = run("auto");
    assert!(
        ran.stdout.starts_with("meshward sidecar on tokio, "),
        "{}",
        ran.stdout
    );
    assert_eq!(
        ran.stderr,
        format!("io_uring cannot be used ({why}); running on tokio\n")
    );
}
