//! `proxy-status` and `proxy-config`: what a mesh that runs says of its sidecars.

use std::fs;

use serde_json::Value;

use crate::meshes::{Mesh, STRICT, shop};
use crate::place::{Place, Ran, until};

const DENY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
    metadata: {name: no-x, namespace: shop}\n\
    spec: {action: DENY, selector: {matchLabels: {app: web}}, rules: [{to: [{operation: {paths: [/x], ports: [\"8080\"]}}]}]}\n";

#[track_caller]
fn fine(ran: Ran) -> String {
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    ran.stdout
}

/// The cells of each line below the heading.
fn cells(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().skip(1);
    let cell = |text: &str| !text.is_empty();
    lines
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .filter(|c| cell(c))
                .collect()
        })
        .collect()
}

#[test]
fn each_sidecar_shows_the_snapshot_and_the_policies_in_force() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let status = || fine(place.run(&["proxy-status"]));
    let before = status();
    assert!(before.starts_with("NAME "), "{before}");
    let rows = cells(&before);
    let [client, web] = rows.as_slice() else {
        panic!("two sidecars: {before}");
    };
    assert_eq!((client[0], web[0]), ("client.shop", "web.shop"));
    assert_eq!((client[1], client[3]), ("SYNCED", web[3]));
    mesh.applies(DENY, "authorizationpolicy.security.istio.io/no-x created\n");
    let after = status();
    let rows = cells(&after);
    assert_eq!(rows[0][3], client[3], "it is none of client's policies");
    assert_ne!(rows[1][3], web[3]);
    assert!(
        rows.iter()
            .all(|row| row[1] == "SYNCED" && row[2] != client[2])
    );
    let json: Value = serde_json::from_str(&fine(place.run(&["ps", "-o", "json"]))).expect("JSON");
    assert_eq!(json[1]["policies"], rows[1][3]);
    assert_eq!(json[1]["certificateExpires"], rows[1][4]);
}

#[test]
fn listeners_routes_clusters_and_policies_are_those_in_force() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place) + "---\n" + DENY);
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let [web, ..] = place.ips();
    let (web, config) = (web.to_string(), |words: &[&str]| {
        fine(place.run(&[&["proxy-config"], words].concat()))
    });
    let listeners = config(&["listener", "web.shop"]);
    let inbound = |table: &str| -> Vec<String> {
        let rows = cells(table).into_iter();
        let rows = rows.filter(|row| row[0] == web);
        rows.map(|row| format!("{}: {}", row[2], row[3])).collect()
    };
    let plain = "Trans: raw_buffer: Cluster: inbound|8080|| (HTTP)".to_owned();
    assert!(inbound(&listeners).contains(&plain), "{listeners}");
    assert!(listeners.contains("0.0.0.0"), "{listeners}");
    mesh.applies(
        STRICT,
        "peerauthentication.security.istio.io/default created\n",
    );
    let strict = config(&["listeners", "web", "-n", "shop"]);
    assert_eq!(
        inbound(&strict),
        ["Trans: tls: Cluster: inbound|8080|| (HTTP in mutual TLS)"],
        "S-25"
    );
    let routes = config(&["routes", "pod/client.shop"]);
    let own = "web.shop.svc.cluster.local:8080";
    assert!(
        cells(&routes).iter().any(|row| row[..2] == ["8080", own]),
        "{routes}"
    );
    let clusters: Value =
        serde_json::from_str(&config(&["cluster", "client.shop", "-o", "json"])).expect("JSON");
    let sni = &clusters[0]["endpoints"][0]["sni"];
    assert_eq!(sni, "outbound_.8080_._.web.shop.svc.cluster.local");
    assert_eq!(
        cells(&config(&["policy", "web.shop"])),
        [["DENY", "no-x.shop", "1", "mesh.yaml:49"]]
    );
    assert_eq!(cells(&config(&["policy", "client.shop"])), [[""; 0]; 0]);
    let ran = place.run(&["pc", "l", "sleep"]);
    ran.refuses(1, "error: pod default/sleep has no sidecar\n");
}

#[test]
fn secrets_are_shown_without_a_key() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let table = fine(place.run(&["pc", "secret", "web.shop"]));
    let rows = cells(&table);
    assert_eq!(rows[0][..4], ["default", "Cert Chain", "ACTIVE", "true"]);
    assert_eq!(rows[1][..4], ["ROOTCA", "CA", "ACTIVE", "true"]);
    let chain = mesh.folder().join("shop/web/certs/cert-chain.pem");
    let serial = place.shell(&format!(
        "openssl x509 -noout -serial -in {}",
        chain.display()
    ));
    let serial = serial.stdout.trim().replace("serial=", "").to_lowercase();
    assert_eq!(serial.trim_start_matches('0'), rows[0][4]);
    let key = fs::read_to_string(chain.with_file_name("key.pem")).expect("a key");
    let line = key.lines().nth(1).expect("base64");
    for output in ["table", "json"] {
        let shown = fine(place.run(&["pc", "secret", "web.shop", "-o", output]));
        assert!(
            !shown.contains(line) && !shown.contains("PRIVATE"),
            "{shown}"
        );
    }
}

/// Every test of this list, over either runtime.
macro_rules! over {
    ($($module:ident: $runtime:literal,)*) => {$(
        mod $module {
            #[test]
            fn levels_change_while_a_sidecar_runs() {
                super::levels_change_while_a_sidecar_runs($runtime);
            }
        }
    )*};
}

over! {
    tokio: "tokio",
    uring: "uring",
}

fn levels_change_while_a_sidecar_runs(runtime: &str) {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place) + "---\n" + DENY);
    let mesh = Mesh::start(&place, &["--runtime", runtime]);
    let log = |words: &[&str]| place.run(&[&["proxy-config", "log", "web.shop"], words].concat());
    let quiet =
        "web.shop:\nactive loggers:\n  connection: warning\n  jwt: warning\n  rbac: warning\n";
    assert_eq!(fine(log(&[])), quiet);
    let denied = || mesh.curl("client.shop", "http://web.shop:8080/x");
    let text =
        "\tdebug\tenvoy rbac\tenforced denied, matched policy ns[shop]-policy[no-x]-rule[0]\n";
    let path = mesh.folder().join("shop/web/istio-proxy.log");
    let said = |times: usize| {
        until("lines of the log", || {
            let log = fs::read_to_string(&path).ok()?;
            let records = log.matches("rbac_access_denied").count();
            (records >= times).then(|| log.matches(text).count())
        })
    };
    denied();
    assert_eq!(said(1), 0);
    let loud = fine(log(&["--level", "rbac:debug,jwt:debug"]));
    assert!(loud.ends_with("  jwt: debug\n  rbac: debug\n"), "{loud}");
    denied();
    assert_eq!(said(2), 1, "S-334");
    mesh.curl("client.shop", "http://web.shop:8080/y");
    until("the one that passes", || {
        let log = fs::read_to_string(&path).ok()?;
        log.contains("enforced allowed, matched policy none")
            .then_some(())
    });
    assert_eq!(fine(log(&["--reset"])), quiet);
    denied();
    assert_eq!(said(3), 1);
    let ran = log(&["--level", "http:debug"]);
    ran.refuses(
        64,
        "error: there is no scope `http`; scopes are connection, jwt and rbac\n",
    );
    let other = fine(place.run(&["pc", "log", "client.shop"]));
    assert!(other.contains("rbac: warning"), "one sidecar is meant");
}
