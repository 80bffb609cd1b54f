//! Who may import whom inside `core/src`, and what no line of it may name.
//!
//! Reads paths that begin with `crate`, `super` or `self` out of the code, comments, strings and tests left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use meshward_tests::source::{code, is_word, rust_files, tokens};

/// What everybody may import: words without behaviour.
const BASE: &[&str] = &["clock", "error", "id", "limits", "link", "pii", "rng"];

/// A top-level module and what it may import besides `BASE` and itself. An entry covers everything below it. A module that
/// does not stand here is an error: a new one has to find its place.
const LAYERS: &[(&str, &[&str])] = &[
    // Imports nothing of ours but each other's plainest.
    ("clock", &[]),
    ("error", &[]),
    ("id", &[]),
    ("limits", &[]),
    ("link", &[]),
    ("pii", &[]),
    ("rng", &[]),
    ("machine", &[]),
    ("path", &[]),
    ("spiffe", &[]),
    ("sync", &[]),
    ("timer", &[]),
    // Data: knows nothing of bytes.
    ("api", &["path", "spiffe"]),
    (
        "snapshot",
        // The kind of a port and its mode are data that `accept` judges by.
        &[
            "accept::Mode",
            "accept::PortKind",
            "api",
            "authn",
            "authz",
            "path",
            "spiffe",
        ],
    ),
    // Converters: know no policy.
    ("http", &["path"]),
    ("tls", &["spiffe"]),
    // Deciders: know no links.
    ("accept", &["api", "http::head", "snapshot", "tls::sniff"]),
    ("authn", &["api", "http::head", "snapshot", "spiffe"]),
    (
        "authz",
        &[
            "api",
            "authn::Claims",
            "http::head",
            "path",
            "snapshot",
            "spiffe",
        ],
    ),
    (
        "decide",
        &[
            "api",
            "authn",
            "authz",
            "http",
            "path",
            "snapshot",
            "spiffe",
            "telemetry",
        ],
    ),
    ("route", &["api", "snapshot"]),
    ("telemetry", &["authz", "decide", "spiffe"]),
    // Machines.
    (
        "proxy",
        &[
            "accept",
            "api",
            "authn",
            "authz",
            "decide",
            "http",
            "machine",
            "path",
            "route",
            "snapshot",
            "spiffe",
            "sync",
            "telemetry",
            "timer",
            "tls",
        ],
    ),
    ("agent", &["control::ca", "machine", "spiffe", "tls"]),
    // Asks the deciders in the place of two proxies, and carries what they say.
    (
        "explain",
        &[
            "accept",
            "api",
            "authn",
            "authz",
            "control",
            "decide",
            "http",
            "path",
            "proxy::forwarded",
            "route",
            "snapshot",
            "telemetry",
            "tls::ChainKind",
            "tls::client_alpn",
        ],
    ),
    // The control side: never sees a proxy.
    (
        "control",
        &[
            "accept::PortKind",
            "api",
            "authn",
            "authz",
            "snapshot",
            "spiffe",
            "tls",
        ],
    ),
];

/// A path that may be named under some files alone, and why.
const FENCES: &[(&str, &[&str], &str)] = &[
    ("rustls", &["tls/"], "rustls ends at tls/"),
    (
        "rcgen",
        &["control/ca.rs", "agent.rs"],
        "rcgen ends at control/ca.rs and agent.rs",
    ),
    (
        "time",
        &["control/ca.rs"],
        "calendar time is for certificates alone",
    ),
    (
        "serde_saphyr",
        &["api/load"],
        "the YAML reader ends at api/load",
    ),
    (
        "granit_parser",
        &["api/load"],
        "the YAML reader ends at api/load",
    ),
    ("std::net::TcpStream", &[], "the core has no sockets"),
    ("std::net::TcpListener", &[], "the core has no sockets"),
    ("std::net::UdpSocket", &[], "the core has no sockets"),
    ("std::time::Instant", &[], "time is an argument"),
    ("std::time::SystemTime", &[], "time is an argument"),
    ("std::collections::HashMap", &[], "its order is not ours"),
    ("std::collections::HashSet", &[], "its order is not ours"),
    ("std::collections::hash_map", &[], "its order is not ours"),
    ("std::env", &[], "configuration is an argument"),
    ("std::fs", &[], "the core reads no files"),
    ("std::io::stdout", &[], "facts are reported, not printed"),
    ("std::process", &[], "the core has no process"),
    ("std::thread", &[], "the core has no threads"),
];

/// Deciders see no link and no clock but an argument.
const DECIDERS: &[&str] = &["accept", "authn", "authz", "decide"];

#[test]
fn every_module_of_core_imports_what_its_layer_may() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/src");
    let mut files = rust_files(&root);
    files.retain(|f| !is_test(f.strip_prefix(&root).unwrap()));
    assert!(files.len() > 15, "only {} files were found", files.len());
    let mut findings = Vec::new();
    let mut paths = 0;
    for file in &files {
        let name = file
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let text = fs::read_to_string(file).unwrap();
        paths += paths_of(&name, &code(&text)).len();
        findings.extend(judge(&name, &text));
    }
    println!("layers: {} files, {paths} paths", files.len());
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn a_planted_violation_is_found() {
    for (file, text, expected) in [
        ("http/h1.rs", "use crate::snapshot::Snapshot;", "snapshot"),
        ("http/h1.rs", "use crate::{clock::Now, proxy};", "proxy"),
        (
            "http/h1.rs",
            "fn f() { crate::decide::request(); }",
            "decide",
        ),
        (
            "authz/evaluate.rs",
            "use super::super::tls::Session;",
            "tls",
        ),
        ("authz.rs", "use super::proxy;", "proxy"),
        ("authz/mod.rs", "use crate::id::LinkId;", "links"),
        ("accept.rs", "use crate::http::h1::Connection;", "http::h1"),
        (
            "proxy/inbound.rs",
            "use rustls::ServerConfig;",
            "rustls ends",
        ),
        (
            "proxy.rs",
            "type C = rustls::ClientConnection;",
            "rustls ends",
        ),
        (
            "control/store.rs",
            "use rcgen::CertificateParams;",
            "rcgen ends",
        ),
        (
            "tls/server.rs",
            "fn f() { rcgen::KeyPair::generate(); }",
            "rcgen ends",
        ),
        ("clock.rs", "use time::OffsetDateTime;", "calendar"),
        ("control/mod.rs", "use crate::proxy::Proxy;", "proxy"),
        ("agent.rs", "use crate::control::plane;", "control::plane"),
        ("api/meta.rs", "use serde_saphyr as yaml;", "YAML"),
        (
            "timer.rs",
            "use std::time::{Duration, Instant};",
            "argument",
        ),
        (
            "rng.rs",
            "use std::collections::{BTreeMap, HashMap as M};",
            "order",
        ),
        (
            "link.rs",
            "fn f() { std::net::TcpStream::connect(x); }",
            "sockets",
        ),
        ("link.rs", "use std::{fmt, env::var};", "argument"),
        ("newcomer.rs", "", "no layer"),
    ] {
        let findings = judge(file, text);
        assert!(
            findings.iter().any(|f| f.contains(expected)),
            "{file}: {text}: {findings:?}"
        );
    }
}

#[test]
fn what_only_looks_like_a_violation_is_none() {
    for (file, text) in [
        (
            "http/h1.rs",
            "// use crate::proxy;\n/* crate::proxy */ /// [`crate::proxy`]\nfn f() {}",
        ),
        (
            "http/h1.rs",
            "const X: &str = \"crate::proxy\"; const Y: &str = r#\"rustls::\"#;",
        ),
        (
            "http/h1.rs",
            "#[cfg(test)]\nmod tests { use crate::proxy::{A, B}; fn f() { {} } }\nfn g() {}",
        ),
        (
            "http/h1.rs",
            "#[cfg(all(test, not(loom)))]\nmod tests { use crate::proxy::A; }",
        ),
        ("spiffe/x509.rs", "use rustls_pki_types::CertificateDer;"),
        (
            "control/ca.rs",
            "use rcgen::Issuer; use time::OffsetDateTime;",
        ),
        (
            "agent.rs",
            "use crate::control::ca::Chain; use rcgen::KeyPair;",
        ),
        (
            "timer.rs",
            "use crate::clock::Instant; use std::time::Duration;",
        ),
        (
            "authz/mod.rs",
            "use self::matcher::Matcher; use super::snapshot::Snapshot;",
        ),
        ("http/mod.rs", "fn f<'a>(x: &'a [u8]) -> char { '\"' }"),
    ] {
        assert_eq!(judge(file, text), Vec::<String>::new(), "{file}: {text}");
    }
}

#[test]
fn code_behind_a_test_module_is_still_read() {
    for text in [
        "#[cfg(test)]\nmod tests;\nuse crate::proxy::Proxy;",
        "#[cfg(not(test))]\nuse crate::proxy::Proxy;",
        "#[cfg(loom)]\nuse crate::proxy::Proxy;",
    ] {
        assert_eq!(judge("http/mod.rs", text).len(), 1, "{text}");
    }
}

/// Tests may import what they like.
fn is_test(path: &Path) -> bool {
    path.iter()
        .any(|part| part == "tests" || part == "tests.rs" || part == "testing.rs")
}

/// What is wrong with the file `name` (relative to `core/src`).
fn judge(name: &str, text: &str) -> Vec<String> {
    let top = name.split(['/', '.']).next().unwrap_or_default();
    if top == "lib" {
        return Vec::new();
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(module, _)| *module == top) else {
        return vec![format!("{name}: `{top}` has no layer")];
    };
    let mut findings = BTreeSet::new();
    for path in paths_of(name, &code(text)) {
        for (fenced, within, why) in FENCES {
            if is_under(&path, fenced) && !within.iter().any(|w| name.starts_with(w)) {
                findings.insert(format!("{name}: {path}: {why}"));
            }
        }
        let Some(ours) = path.strip_prefix("crate::") else {
            continue;
        };
        if is_under(ours, "id::LinkId") && DECIDERS.contains(&top) {
            findings.insert(format!("{name}: {path}: deciders know no links"));
        }
        let fine = is_under(ours, top)
            || BASE.iter().any(|a| is_under(ours, a))
            || allowed.iter().any(|a| is_under(ours, a));
        if !fine {
            findings.insert(format!("{name}: {path} lies outside its layer"));
        }
    }
    findings.into_iter().collect()
}

fn is_under(path: &str, root: &str) -> bool {
    path.strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// All paths of at least two parts, groups spelled out, `super` and `self` resolved to `crate`.
fn paths_of(name: &str, code: &str) -> Vec<String> {
    let mut here: Vec<&str> = name.trim_end_matches(".rs").split('/').collect();
    if here.last() == Some(&"mod") {
        here.pop();
    }
    let mut paths = Vec::new();
    let tokens = tokens(code);
    let mut i = 0;
    while i < tokens.len() {
        let begins = is_word(tokens[i])
            && (i == 0 || tokens[i - 1] != "::")
            && (tokens.get(i + 1) == Some(&"::") || (i > 0 && tokens[i - 1] == "use"));
        if begins {
            tree(&tokens, &mut i, &mut Vec::new(), &mut paths);
        } else {
            i += 1;
        }
    }
    paths
        .into_iter()
        .map(|path| resolve(&here, &path))
        .collect()
}

/// Reads one path or group at `i` and leaves `i` behind it.
fn tree<'a>(
    tokens: &[&'a str],
    i: &mut usize,
    prefix: &mut Vec<&'a str>,
    out: &mut Vec<Vec<&'a str>>,
) {
    let depth = prefix.len();
    loop {
        match tokens.get(*i) {
            Some(&"{") => {
                *i += 1;
                while tokens.get(*i).is_some_and(|t| *t != "}") {
                    tree(tokens, i, prefix, out);
                    while tokens.get(*i).is_some_and(|t| *t != "," && *t != "}") {
                        *i += 1;
                    }
                    if tokens.get(*i) == Some(&",") {
                        *i += 1;
                    }
                }
                *i += 1;
                prefix.truncate(depth);
                return;
            }
            Some(word) if is_word(word) => {
                prefix.push(word);
                *i += 1;
            }
            _ => {
                *i += 1;
            }
        }
        if tokens.get(*i) == Some(&"::")
            && tokens
                .get(*i + 1)
                .is_some_and(|t| is_word(t) || *t == "{" || *t == "*")
        {
            *i += 1;
        } else {
            out.push(prefix.clone());
            prefix.truncate(depth);
            return;
        }
    }
}

fn resolve(here: &[&str], path: &[&str]) -> String {
    let mut at: Vec<&str> = vec!["crate"];
    let mut rest = path;
    match path.first() {
        Some(&"self") => {
            at.extend(here);
            rest = &rest[1..];
        }
        Some(&"super") => {
            at.extend(here);
            while rest.first() == Some(&"super") {
                at.pop();
                rest = &rest[1..];
            }
        }
        _ => at.clear(),
    }
    at.extend(rest.iter().filter(|part| **part != "self"));
    at.join("::")
}
