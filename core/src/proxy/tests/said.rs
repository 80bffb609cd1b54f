//! What is said of decisions, and when.

use super::rig::*;
use crate::accept::{Mode, PortKind};
use crate::proxy::Input;
use crate::telemetry::levels::{Levels, Scope};

fn levels(text: &str) -> Input {
    Input::Levels(Levels::default().changed(text).expect("levels"))
}

#[test]
fn decisions_are_said_from_the_moment_that_a_level_asks_for_it() {
    let mut rig = Rig::new(NO_ADMIN);
    let client = rig.client_sending(get("/admin"));
    assert_eq!(rig.notes(Scope::Rbac), [""; 0], "nobody listens");
    rig.input(levels("rbac:debug"));
    rig.send(client, get("/admin"));
    assert_eq!(
        rig.notes(Scope::Rbac),
        ["enforced denied, matched policy ns[default]-policy[no-admin]-rule[0]"],
        "S-334"
    );
    rig.send(client, get("/"));
    assert_eq!(
        rig.notes(Scope::Rbac),
        ["enforced allowed, matched policy none"]
    );
    rig.input(levels("rbac:info"));
    rig.client_sending(get("/admin"));
    assert_eq!(rig.notes(Scope::Rbac), [""; 0]);
}

#[test]
fn the_text_names_the_rule_that_allows_or_none() {
    let allow = NO_ADMIN
        .replace("DENY", "ALLOW")
        .replace("no-admin", "admin");
    let mut rig = Rig::new(&allow);
    rig.input(levels("debug"));
    let client = rig.client_sending(get("/"));
    rig.send(client, get("/admin"));
    assert_eq!(
        rig.notes(Scope::Rbac),
        [
            "enforced denied, matched policy none",
            "enforced allowed, matched policy ns[default]-policy[admin]-rule[0]"
        ]
    );
    let mut rig = Rig::new("");
    rig.input(levels("debug"));
    rig.client_sending(get("/"));
    assert_eq!(rig.notes(Scope::Rbac), [""; 0], "nothing was judged");
}

#[test]
fn a_connection_without_http_is_said_once() {
    let mut rig = Rig::new(NOBODY);
    rig.declare(PortKind::Tcp);
    rig.apply(Mode::Disable, NOBODY);
    rig.input(levels("rbac:debug"));
    let client = rig.client();
    rig.send(client, "bytes");
    assert_eq!(
        rig.notes(Scope::Rbac),
        ["enforced denied, matched policy none"],
        "S-121"
    );
}

#[test]
fn what_became_of_a_token_is_said_without_it() {
    let rule = r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: book, namespace: default}
spec:
  jwtRules:
  - issuer: issuer
    jwks: '{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}'
"#;
    let mut rig = Rig::new(rule);
    rig.input(levels("jwt:debug"));
    rig.client_sending(get("/"));
    assert_eq!(
        rig.notes(Scope::Jwt),
        ["Jwt authentication completed with: OK"]
    );
    let token = "GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer a.b.c\r\n\r\n";
    rig.connect();
    rig.client_sending(token);
    let said = rig.notes(Scope::Jwt);
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("Jwt authentication completed with: Jwt "));
    assert!(!said[0].contains("a.b.c"));
}
