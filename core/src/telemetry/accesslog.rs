//! The text of a record: Istio's default line and its JSON form (S-326 to S-330).
//!
//! One record, one line, whatever a peer sent. Control bytes come out as `_`, and so does everything that could end a field
//! before its time: `"` in the quoted fields, blanks in the others. (Envoy prints a `"` as it came, so that a client can
//! make up fields of a line; JSON keeps such values exactly.)

use std::io::Write as _;
use std::net::SocketAddr;

use super::record::{Flags, Record};

/// Appends the line of Istio's default text format with its line feed (S-326).
pub fn format(record: &Record, out: &mut Vec<u8>) {
    out.reserve(512);
    out.push(b'[');
    start_time(record, out);
    out.extend_from_slice(b"] \"");
    in_quotes(record.method.as_deref(), out);
    out.push(b' ');
    in_quotes(path(record), out);
    out.push(b' ');
    out.extend_from_slice(record.protocol.unwrap_or("-").as_bytes());
    out.extend_from_slice(b"\" ");
    number(u64::from(record.status), out);
    out.push(b' ');
    flags(record.flags, out);
    out.push(b' ');
    bare(record.details.as_deref(), out);
    out.push(b' ');
    bare(record.termination.as_deref(), out);
    out.extend_from_slice(b" \"");
    bare(record.upstream_failure.as_deref(), out);
    out.extend_from_slice(b"\" ");
    number(record.bytes_received, out);
    out.push(b' ');
    number(record.bytes_sent, out);
    out.push(b' ');
    number(record.duration_ns / 1_000_000, out);
    out.push(b' ');
    match record.upstream_service_ms {
        Some(ms) => number(ms, out),
        None => out.push(b'-'),
    }
    for text in [
        &record.forwarded_for,
        &record.user_agent,
        &record.request_id,
        &record.authority,
    ] {
        out.extend_from_slice(b" \"");
        in_quotes(text.as_deref(), out);
        out.push(b'"');
    }
    out.extend_from_slice(b" \"");
    address(record.upstream_host, out);
    out.extend_from_slice(b"\" ");
    bare(record.upstream_cluster.as_deref(), out);
    for end in [
        record.upstream_local,
        record.downstream_local,
        record.downstream_remote,
    ] {
        out.push(b' ');
        address(end, out);
    }
    for text in [&record.requested_server_name, &record.route] {
        out.push(b' ');
        bare(text.as_deref(), out);
    }
    out.push(b'\n');
}

/// Appends the line of `accessLogEncoding: JSON` with its line feed: the same operators, keys in the order of S-327.
///
/// Counts are numbers, what is absent is `null`; flags are text, `"-"` if there are none.
pub fn format_json(record: &Record, out: &mut Vec<u8>) {
    out.reserve(1024);
    out.extend_from_slice(b"{\"start_time\":\"");
    start_time(record, out);
    out.push(b'"');
    json("method", record.method.as_deref(), out);
    json("path", path(record), out);
    json("protocol", record.protocol, out);
    json_number("response_code", u64::from(record.status), out);
    key("response_flags", out);
    out.push(b'"');
    flags(record.flags, out);
    out.push(b'"');
    json_bare("response_code_details", record.details.as_deref(), out);
    json_bare(
        "connection_termination_details",
        record.termination.as_deref(),
        out,
    );
    json_bare(
        "upstream_transport_failure_reason",
        record.upstream_failure.as_deref(),
        out,
    );
    json_number("bytes_received", record.bytes_received, out);
    json_number("bytes_sent", record.bytes_sent, out);
    json_number("duration", record.duration_ns / 1_000_000, out);
    key("upstream_service_time", out);
    match record.upstream_service_ms {
        Some(ms) => {
            out.push(b'"');
            number(ms, out);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
    json("x_forwarded_for", record.forwarded_for.as_deref(), out);
    json("user_agent", record.user_agent.as_deref(), out);
    json("request_id", record.request_id.as_deref(), out);
    json("authority", record.authority.as_deref(), out);
    json_address("upstream_host", record.upstream_host, out);
    json("upstream_cluster", record.upstream_cluster.as_deref(), out);
    json_address("upstream_local_address", record.upstream_local, out);
    json_address("downstream_local_address", record.downstream_local, out);
    json_address("downstream_remote_address", record.downstream_remote, out);
    json(
        "requested_server_name",
        record.requested_server_name.as_deref(),
        out,
    );
    json("route_name", record.route.as_deref(), out);
    out.extend_from_slice(b"}\n");
}

/// `%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%`.
fn path(record: &Record) -> Option<&str> {
    record.original_path.as_deref().or(record.path.as_deref())
}

/// RFC 3339 with milliseconds (S-327).
fn start_time(record: &Record, out: &mut Vec<u8>) {
    write!(out, "{}", record.start).expect("a vector takes every write");
}

/// A value between quotation marks that the caller sets. An empty header stays empty, as in Envoy.
fn in_quotes(text: Option<&str>, out: &mut Vec<u8>) {
    safe(
        text.unwrap_or("-"),
        |byte| byte == b'"' || byte.is_ascii_control(),
        out,
    );
}

/// A value that ends at the next blank. Nothing to say is `-`.
fn bare(text: Option<&str>, out: &mut Vec<u8>) {
    let text = text.filter(|text| !text.is_empty()).unwrap_or("-");
    safe(text, blurs, out);
}

/// Would end a bare value, or the line, or a quoted value.
fn blurs(byte: u8) -> bool {
    byte <= b' ' || byte == b'"' || byte == 0x7f
}

fn safe(text: &str, replaced: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    let from = out.len();
    out.extend_from_slice(text.as_bytes());
    for byte in out.iter_mut().skip(from) {
        if replaced(*byte) {
            *byte = b'_';
        }
    }
}

fn number(value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut rest = value;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// Short names with commas, or `-`.
fn flags(set: Flags, out: &mut Vec<u8>) {
    if set.is_empty() {
        out.push(b'-');
        return;
    }
    for (nth, name) in set.names().enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name.as_bytes());
    }
}

/// `ip:port`, or `-`.
fn address(end: Option<SocketAddr>, out: &mut Vec<u8>) {
    match end {
        None => out.push(b'-'),
        Some(SocketAddr::V4(end)) => {
            let [a, b, c, d] = end.ip().octets();
            number(u64::from(a), out);
            for octet in [b, c, d] {
                out.push(b'.');
                number(u64::from(octet), out);
            }
            out.push(b':');
            number(u64::from(end.port()), out);
        }
        Some(end @ SocketAddr::V6(_)) => write!(out, "{end}").expect("a vector takes every write"),
    }
}

fn key(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn json(name: &str, text: Option<&str>, out: &mut Vec<u8>) {
    key(name, out);
    let Some(text) = text else {
        out.extend_from_slice(b"null");
        return;
    };
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            // RFC 8259 §7; DEL may stand, but not in a log that people look at.
            0..=0x1f | 0x7f => write!(out, "\\u{byte:04x}").expect("a vector takes every write"),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// As [`bare`]: blanks become `_` and an empty value is absent (S-329).
fn json_bare(name: &str, text: Option<&str>, out: &mut Vec<u8>) {
    key(name, out);
    match text.filter(|text| !text.is_empty()) {
        None => out.extend_from_slice(b"null"),
        Some(text) => {
            out.push(b'"');
            safe(text, |byte| blurs(byte) || byte == b'\\', out);
            out.push(b'"');
        }
    }
}

fn json_number(name: &str, value: u64, out: &mut Vec<u8>) {
    key(name, out);
    number(value, out);
}

fn json_address(name: &str, end: Option<SocketAddr>, out: &mut Vec<u8>) {
    key(name, out);
    match end {
        None => out.extend_from_slice(b"null"),
        Some(_) => {
            out.push(b'"');
            address(end, out);
            out.push(b'"');
        }
    }
}

#[cfg(test)]
mod tests;
