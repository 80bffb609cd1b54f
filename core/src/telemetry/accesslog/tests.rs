use proptest::prelude::*;

use super::*;
use crate::clock::UnixTime;

fn line(record: &Record) -> String {
    let mut out = Vec::new();
    format(record, &mut out);
    String::from_utf8(out).expect("a record is text")
}

fn json_line(record: &Record) -> serde_json::Value {
    let mut out = Vec::new();
    format_json(record, &mut out);
    assert_eq!(out.last(), Some(&b'\n'));
    assert!(!out[..out.len() - 1].contains(&b'\n'));
    serde_json::from_slice(&out).expect("a line is one JSON value")
}

fn request() -> Record {
    Record {
        start: UnixTime(1_767_323_045_678),
        duration_ns: 4_999_999,
        method: Some("GET".to_owned()),
        path: Some("/ip?x=1".to_owned()),
        protocol: Some("HTTP/1.1"),
        status: 503,
        flags: Flags::URX.with(Flags::UF),
        details: Some("upstream_reset_before_response_started{connection failure}".to_owned()),
        upstream_failure: Some("delayed connect error: 111".to_owned()),
        bytes_received: u64::MAX,
        bytes_sent: 91,
        upstream_service_ms: Some(0),
        forwarded_for: Some("10.1.2.10".to_owned()),
        user_agent: Some(String::new()),
        upstream_host: "[2001:db8::1]:8080".parse().ok(),
        upstream_cluster: Some("inbound|8080||".to_owned()),
        downstream_local: "10.1.1.20:8080".parse().ok(),
        downstream_remote: "10.1.2.10:50000".parse().ok(),
        route: Some("default".to_owned()),
        ..Record::default()
    }
}

#[test]
fn a_request_is_one_line_of_the_default_format() {
    // S-326, S-327, S-329.
    assert_eq!(
        line(&request()),
        "[2026-01-02T03:04:05.678Z] \"GET /ip?x=1 HTTP/1.1\" 503 UF,URX \
         upstream_reset_before_response_started{connection_failure} - \"delayed_connect_error:_111\" \
         18446744073709551615 91 4 0 \"10.1.2.10\" \"\" \"-\" \"-\" \"[2001:db8::1]:8080\" inbound|8080|| - \
         10.1.1.20:8080 10.1.2.10:50000 - default\n"
    );
}

#[test]
fn the_original_path_is_printed_in_place_of_the_path() {
    // S-326.
    let record = Record {
        original_path: Some("/before?y".to_owned()),
        ..request()
    };
    assert!(line(&record).contains("] \"GET /before?y HTTP/1.1\" "));
    assert_eq!(json_line(&record)["path"], "/before?y");
}

#[test]
fn a_connection_without_a_chain_is_one_line_of_blanks() {
    // S-28.
    let record = Record {
        flags: Flags::NR,
        details: Some("filter_chain_not_found".to_owned()),
        downstream_local: "10.1.1.20:8080".parse().ok(),
        downstream_remote: "10.1.2.10:50000".parse().ok(),
        ..Record::default()
    };
    assert_eq!(
        line(&record),
        "[1970-01-01T00:00:00.000Z] \"- - -\" 0 NR filter_chain_not_found - \"-\" 0 0 0 - \"-\" \"-\" \"-\" \"-\" \"-\" - - \
         10.1.1.20:8080 10.1.2.10:50000 - -\n"
    );
}

#[test]
fn a_peer_cannot_end_a_field_or_a_line() {
    let record = Record {
        user_agent: Some("a\" \"b\r\nc\x7f\té".to_owned()),
        requested_server_name: Some("x y\"\nz".to_owned()),
        ..request()
    };
    let text = line(&record);
    assert!(text.contains(" \"a_ _b__c__é\" "), "{text}");
    assert!(text.ends_with(" x_y__z default\n"), "{text}");

    let json = json_line(&record);
    assert_eq!(json["user_agent"], "a\" \"b\r\nc\x7f\té");
    assert_eq!(json["requested_server_name"], "x y\"\nz");
}

#[test]
fn json_has_the_same_operators_as_typed_values() {
    // S-327.
    let expected = serde_json::json!({
        "start_time": "2026-01-02T03:04:05.678Z",
        "method": "GET",
        "path": "/ip?x=1",
        "protocol": "HTTP/1.1",
        "response_code": 503,
        "response_flags": "UF,URX",
        "response_code_details": "upstream_reset_before_response_started{connection_failure}",
        "connection_termination_details": null,
        "upstream_transport_failure_reason": "delayed_connect_error:_111",
        "bytes_received": u64::MAX,
        "bytes_sent": 91,
        "duration": 4,
        "upstream_service_time": "0",
        "x_forwarded_for": "10.1.2.10",
        "user_agent": "",
        "request_id": null,
        "authority": null,
        "upstream_host": "[2001:db8::1]:8080",
        "upstream_cluster": "inbound|8080||",
        "upstream_local_address": null,
        "downstream_local_address": "10.1.1.20:8080",
        "downstream_remote_address": "10.1.2.10:50000",
        "requested_server_name": null,
        "route_name": "default",
    });
    assert_eq!(json_line(&request()), expected);
    assert_eq!(json_line(&Record::default())["response_flags"], "-");
}

proptest! {
    #[test]
    fn numbers_read_as_they_are(value: u64) {
        let mut out = Vec::new();
        number(value, &mut out);
        prop_assert_eq!(String::from_utf8(out), Ok(value.to_string()));
    }

    #[test]
    fn addresses_read_as_they_are(end: SocketAddr) {
        let mut out = Vec::new();
        address(Some(end), &mut out);
        prop_assert_eq!(String::from_utf8(out), Ok(end.to_string()));
    }

    #[test]
    fn any_record_is_one_line_with_all_its_fields(agent: String, path: String, name: String, details: String) {
        let record = Record {
            path: Some(path.replace(' ', "")),
            user_agent: Some(agent.clone()),
            requested_server_name: Some(name),
            details: Some(details),
            ..Record::default()
        };
        let text = line(&record);
        prop_assert_eq!(text.find('\n'), Some(text.len() - 1));
        // 15 fields stand bare, 7 in quotation marks.
        let outside: String = text.split('"').step_by(2).collect();
        prop_assert_eq!(text.matches('"').count(), 14);
        prop_assert_eq!(outside.split_ascii_whitespace().count(), 15, "{}", text);
        let json = json_line(&record);
        prop_assert_eq!(json["user_agent"].as_str(), Some(&*agent));
    }
}
