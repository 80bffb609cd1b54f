//! The text of records and `x-forwarded-client-cert` against the conformance corpus.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test reads the shared material, which the core itself may not"
)]

mod material;

use meshward_core::clock::UnixTime;
use meshward_core::telemetry::record::{Flags, Record};
use meshward_core::telemetry::{accesslog, xfcc};
use serde_json::{Value, json};

fn text(given: &Value, key: &str) -> Option<String> {
    given[key].as_str().map(str::to_owned)
}

fn record(given: &Value) -> Record {
    let address = |key: &str| text(given, key).map(|a| a.parse().expect("an address"));
    let count = |key: &str| given[key].as_u64().unwrap_or(0);
    let flags = text(given, "response_flags").unwrap_or_else(|| "-".to_owned());
    Record {
        start: unix_time(&text(given, "start_time").expect("a start time")),
        duration_ns: count("duration") * 1_000_000,
        method: text(given, "method"),
        path: text(given, "path"),
        protocol: text(given, "protocol").map(|p| match &*p {
            "HTTP/1.0" => "HTTP/1.0",
            "HTTP/1.1" => "HTTP/1.1",
            "HTTP/2" => "HTTP/2",
            other => panic!("unknown protocol {other}"),
        }),
        status: u16::try_from(count("response_code")).expect("a status"),
        flags: flags
            .split(',')
            .filter(|name| *name != "-")
            .map(|name| Flags::named(name).expect("a flag of S-328"))
            .fold(Flags::NONE, Flags::with),
        details: text(given, "response_code_details"),
        termination: text(given, "connection_termination_details"),
        upstream_failure: text(given, "upstream_transport_failure_reason"),
        bytes_received: count("bytes_received"),
        bytes_sent: count("bytes_sent"),
        upstream_service_ms: text(given, "upstream_service_time")
            .map(|ms| ms.parse().expect("milliseconds")),
        forwarded_for: text(given, "x_forwarded_for"),
        user_agent: text(given, "user_agent"),
        request_id: text(given, "request_id"),
        authority: text(given, "authority"),
        upstream_host: address("upstream_host"),
        upstream_cluster: text(given, "upstream_cluster"),
        upstream_local: address("upstream_local_address"),
        downstream_local: address("downstream_local_address"),
        downstream_remote: address("downstream_remote_address"),
        requested_server_name: text(given, "requested_server_name"),
        route: text(given, "route_name"),
        ..Record::default()
    }
}

/// Reads `2026-01-02T03:04:05.678Z` by asking the printer, bit by bit from the top; texts of this form sort as times do.
fn unix_time(text: &str) -> UnixTime {
    let ms = (0..46).rev().fold(0, |ms, bit| {
        let higher = ms | 1 << bit;
        if UnixTime(higher).to_string().as_str() <= text {
            higher
        } else {
            ms
        }
    });
    assert_eq!(UnixTime(ms).to_string(), text);
    UnixTime(ms)
}

#[test]
fn corpus_records_read_as_istio_prints_them() {
    let Some(checks) = material::checks("access-log", "access_log_line") else {
        return;
    };
    for check in &checks {
        let mut out = Vec::new();
        let given = record(&check["given"]);
        accesslog::format(&given, &mut out);
        let line = String::from_utf8(out).expect("a line is text");
        let expected = check["expect"]["text"].as_str().expect("a text");
        assert_eq!(line.strip_suffix('\n'), Some(expected), "{}", check["id"]);

        let mut out = Vec::new();
        accesslog::format_json(&given, &mut out);
        let line: Value = serde_json::from_slice(&out).expect("a line is JSON");
        for (key, value) in check["given"].as_object().expect("operators by name") {
            assert_eq!(line[key], *value, "{}: {key}", check["id"]);
        }
    }
    println!("{} checks", checks.len());
}

#[test]
fn corpus_policy_names_cannot_break_a_line() {
    let Some(checks) = material::checks("access-log", "details") else {
        return;
    };
    for check in &checks {
        let policy = check["policy_id"].as_str().expect("a name");
        let given = Record {
            details: Some(format!("rbac_access_denied_matched_policy[{policy}]")),
            ..Record::default()
        };
        let mut out = Vec::new();
        accesslog::format(&given, &mut out);
        let line = String::from_utf8(out).expect("a line is text");
        let printed = line.split(' ').nth(6).unwrap_or_default();
        assert_eq!(check["expect"]["details"], printed, "{}", check["id"]);
    }
}

#[test]
fn corpus_client_certificates_are_read() {
    let Some(checks) = material::checks("xfcc", "xfcc_parse") else {
        return;
    };
    for check in &checks {
        let value = check["value"].as_str().expect("a value");
        let parsed = xfcc::parse(value);
        if check["expect"]["error"] == true {
            assert!(parsed.is_err(), "{}", check["id"]);
            continue;
        }
        let elements: Vec<Value> = parsed
            .expect("a value that is right")
            .iter()
            .map(as_corpus)
            .collect();
        assert_eq!(
            check["expect"]["elements"],
            json!(elements),
            "{}",
            check["id"]
        );
    }
    println!("{} checks", checks.len());
}

/// Pairs by key; a key that came more than once has a list.
fn as_corpus(element: &xfcc::Element) -> Value {
    let mut object = json!({});
    for (key, _) in &element.pairs {
        let values: Vec<&str> = element.all(*key).collect();
        object[key.name()] = match &*values {
            [only] => json!(only),
            many => json!(many),
        };
    }
    object
}
