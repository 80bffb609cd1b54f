//! The accept decision against the `sniff` checks of the conformance corpus, as far as plain bytes and ALPN names decide.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test reads the shared material, which the core itself may not"
)]

mod material;

use meshward_core::accept::{self, Accept, FirstBytes, Mode, PortKind};
use serde_json::Value;

/// What the bytes sent and the seconds waited lead to. Bytes that are given as such are no ClientHello.
fn play(check: &Value, mode: Mode, kind: PortKind) -> Accept {
    let timeout = check["detection_timeout_s"].as_u64().unwrap_or(0);
    let (mut plain, mut waited) = (Vec::new(), 0);
    for step in check["send"].as_array().expect("steps") {
        let first = if let Some(text) = step["text"].as_str() {
            plain.extend_from_slice(text.as_bytes());
            FirstBytes::Plain(accept::first_plain_kind(&plain))
        } else if let Some(hex) = step["hex"].as_str() {
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
            plain.extend((0..hex.len()).step_by(2).map(byte));
            FirstBytes::Plain(accept::first_plain_kind(&plain))
        } else if let Some(hello) = step["client_hello"].as_object() {
            let names = hello
                .get("alpn")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            FirstBytes::tls(
                names
                    .iter()
                    .map(|name| name.as_str().unwrap_or_default().as_bytes()),
            )
        } else {
            waited += step["wait_s"].as_u64().expect("seconds");
            FirstBytes::NeedMore
        };
        match accept::decide(mode, kind, first) {
            Accept::NeedMore if timeout > 0 && waited >= timeout => {
                return accept::after_silence(mode, kind);
            }
            Accept::NeedMore => {}
            decided => return decided,
        }
    }
    Accept::NeedMore
}

/// The checks of one kind in a corpus file, each as JSON.
fn checks(theme: &str, kind: &str) -> Option<Vec<Value>> {
    #[derive(serde::Deserialize)]
    struct File {
        cases: Vec<Case>,
    }
    #[derive(serde::Deserialize)]
    struct Case {
        checks: Vec<Value>,
    }
    let text = material::text(&format!("corpus/open/{theme}.yaml"))?;
    let file: File = serde_saphyr::from_str(&text).expect("a corpus file parses");
    let all = file.cases.into_iter().flat_map(|case| case.checks);
    let found: Vec<_> = all.filter(|check| check["kind"] == kind).collect();
    assert!(!found.is_empty(), "{theme} has checks of kind {kind}");
    Some(found)
}

#[test]
fn corpus_connections_go_where_they_belong() {
    let Some(checks) = checks("inbound-matrix", "sniff") else {
        return;
    };
    let (mut played, mut skipped) = (0, 0);
    for check in &checks {
        let needs = check["needs"].as_array().cloned().unwrap_or_default();
        if needs.iter().any(|need| need == "http2") {
            println!("skipped {}: http2", check["id"]);
            skipped += 1;
            continue;
        }
        let mode = match check["port"]["mode"].as_str() {
            Some("STRICT") => Mode::Strict,
            Some("PERMISSIVE") => Mode::Permissive,
            Some("DISABLE") => Mode::Disable,
            other => panic!("unknown mode {other:?}"),
        };
        let kind = match check["port"]["kind"].as_str() {
            Some("HTTP") => PortKind::Http,
            Some("TCP") => PortKind::Tcp,
            Some("AUTO") => PortKind::Auto,
            other => panic!("unknown kind {other:?}"),
        };
        let outcome = match play(check, mode, kind) {
            Accept::Http => "http",
            Accept::Tcp => "tcp",
            Accept::TerminateHttp | Accept::TerminateTcp => "tls_terminate",
            Accept::PassThrough => "tls_passthrough",
            Accept::Reset => "reset",
            Accept::NeedMore => "pending",
        };
        assert_eq!(
            check["expect"]["decision"]["as"], outcome,
            "{}",
            check["id"]
        );
        played += 1;
    }
    println!("{played} checks, {skipped} skipped");
    assert!(played > 0);
}
