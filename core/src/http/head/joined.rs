//! Fields that Envoy keeps in one place: several lines of one of these are one value there.
//!
//! Rules judge that one value, so it is also what goes on. Lines that were judged together and sent one by one would let an
//! application read a value that no rule ever saw.

use std::cmp::Ordering;

/// Names (Envoy's `INLINE_REQ_HEADERS` and `INLINE_REQ_RESP_HEADERS`, and what its filters register), shorter ones first.
const JOINED: [&str; 60] = [
    "te",
    "via",
    "accept",
    "cookie",
    "expect",
    "origin",
    "pragma",
    "referer",
    "upgrade",
    "if-match",
    "if-range",
    "connection",
    "keep-alive",
    "user-agent",
    "content-type",
    "grpc-timeout",
    "proxy-status",
    "x-request-id",
    "authorization",
    "cache-control",
    "if-none-match",
    "authentication",
    "content-length",
    "accept-encoding",
    "x-envoy-ip-tags",
    "x-forwarded-for",
    "proxy-connection",
    "x-envoy-internal",
    "x-envoy-retry-on",
    "x-forwarded-host",
    "x-forwarded-port",
    "if-modified-since",
    "transfer-encoding",
    "x-client-trace-id",
    "x-forwarded-proto",
    "if-unmodified-since",
    "x-envoy-force-trace",
    "x-envoy-max-retries",
    "grpc-accept-encoding",
    "x-envoy-original-url",
    "x-envoy-attempt-count",
    "x-envoy-original-path",
    "x-envoy-retry-grpc-on",
    "x-forwarded-client-cert",
    "x-envoy-external-address",
    "x-envoy-is-timeout-retry",
    "x-envoy-decorator-operation",
    "access-control-request-method",
    "access-control-request-headers",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-downstream-service-node",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-downstream-service-cluster",
    "x-envoy-upstream-stream-duration-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
];

/// What stands between the lines of this name where they are one value; `None`: each line is a value of its own. Case does
/// not count.
pub fn separator(name: &[u8]) -> Option<&'static str> {
    place(name).map(separator_at)
}

/// Where this name stands among those whose lines are one value: below 64.
pub(super) fn place(name: &[u8]) -> Option<usize> {
    JOINED.binary_search_by(|joined| order(joined, name)).ok()
}

fn separator_at(place: usize) -> &'static str {
    match JOINED.get(place) {
        Some(&"cookie") => "; ",
        _ => ",",
    }
}

fn order(joined: &str, name: &[u8]) -> Ordering {
    let by_length = joined.len().cmp(&name.len());
    by_length.then_with(|| {
        let name = name.iter().map(u8::to_ascii_lowercase);
        joined.bytes().cmp(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        assert!(JOINED.len() < 64);
        for name in JOINED {
            let expected = if name == "cookie" { "; " } else { "," };
            assert_eq!(separator(name.as_bytes()), Some(expected), "{name}");
            let upper = name.to_ascii_uppercase();
            assert_eq!(separator(upper.as_bytes()), Some(expected), "{name}");
        }
        for name in [
            "",
            "x",
            "x-role",
            "accept-",
            "accept-language",
            "set-cookie",
        ] {
            assert_eq!(separator(name.as_bytes()), None, "{name}");
        }
    }
}
