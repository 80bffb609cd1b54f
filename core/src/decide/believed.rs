//! What a client says of itself that is not believed (S-322 to S-325). Policies and upstreams see the head without it.

use crate::http::head::{Field, Fields, Known, View};

/// Headers by which a client could steer Envoy itself; no client of a sidecar may (S-323). `x-envoy-` stands before each.
const STEERING: &[&[u8]] = &[
    b"expected-rq-timeout-ms",
    b"force-trace",
    b"hedge-on-per-try-timeout",
    b"ip-tags",
    b"max-retries",
    b"original-url",
    b"retriable-header-names",
    b"retriable-status-codes",
    b"retry-grpc-on",
    b"retry-on",
    b"upstream-alt-stat-name",
    b"upstream-rq-per-try-timeout-ms",
    b"upstream-rq-timeout-alt-response",
    b"upstream-rq-timeout-ms",
];

static PLAIN: View = View {
    hides: hidden_on_plaintext,
    also: None,
};
static PLAIN_HTTP: View = View {
    hides: hidden_on_plaintext,
    also: Some((b"x-forwarded-proto", b"http")),
};
static TLS: View = View {
    hides: hidden_under_tls,
    also: None,
};
static TLS_HTTPS: View = View {
    hides: hidden_under_tls,
    also: Some((b"x-forwarded-proto", b"https")),
};

/// The lines of a head without what its sender may not say, and with `x-forwarded-proto` where it said none (S-322). `tls`:
/// the sender proved who it is.
///
/// A sidecar trusts nobody to be internal, so `x-envoy-internal` goes and does not come back (S-323).
/// `x-forwarded-client-cert` stays under TLS alone, to be appended to (S-325).
pub fn believed(fields: Fields<'_>, tls: bool) -> Fields<'_> {
    let said = fields.whole().find(Known::XForwardedProto).is_some();
    fields.through(match (tls, said) {
        (false, true) => &PLAIN,
        (false, false) => &PLAIN_HTTP,
        (true, true) => &TLS,
        (true, false) => &TLS_HTTPS,
    })
}

fn hidden_on_plaintext(field: &Field<'_>) -> bool {
    field.known == Known::Xfcc || hidden_under_tls(field)
}

fn hidden_under_tls(field: &Field<'_>) -> bool {
    match field.known {
        Known::XEnvoyInternal | Known::XEnvoyPeerMetadata => true,
        Known::XEnvoyOther => {
            let name = field.name.get("x-envoy-".len()..).unwrap_or_default();
            STEERING
                .iter()
                .any(|other| other.eq_ignore_ascii_case(name))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(lines: &[(&str, &str)], tls: bool) -> Vec<String> {
        let lines: Vec<(&[u8], &[u8])> = lines
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = believed(Fields::listed(&lines), tls);
        // Asked twice, it is the same.
        let again = believed(fields, tls);
        assert_eq!(again.len(), fields.len());
        fields
            .iter()
            .map(|field| format!("{}: {}", text(field.name), text(field.value)))
            .collect()
    }

    #[test]
    fn the_scheme_is_kept_or_told() {
        // S-322.
        assert_eq!(shown(&[], false), ["x-forwarded-proto: http"]);
        assert_eq!(shown(&[], true), ["x-forwarded-proto: https"]);
        for value in ["https", "http", ""] {
            let line = ("X-Forwarded-Proto", value);
            assert_eq!(shown(&[line], true), [format!("{}: {value}", line.0)]);
        }
    }

    #[test]
    fn what_steers_a_proxy_or_names_a_peer_is_not_seen() {
        // S-323, S-324.
        let proto = ("x-forwarded-proto", "http");
        let steering = STEERING.iter().map(|name| {
            let name = String::from_utf8_lossy(name);
            format!("X-Envoy-{name}")
        });
        let names = steering.chain(
            [
                "x-envoy-internal",
                "X-ENVOY-PEER-METADATA",
                "x-envoy-peer-metadata-id",
            ]
            .map(str::to_owned),
        );
        for name in names {
            for tls in [false, true] {
                let lines = [(name.as_str(), "1"), proto];
                assert_eq!(shown(&lines, tls), ["x-forwarded-proto: http"], "{name}");
            }
        }
        for name in [
            "x-envoy-decorator-operation",
            "x-envoy-original-path",
            "x-envoy-external-address",
            "x-envoy-retry-on-x",
            "x-forwarded-host",
            "x-forwarded-for",
            "x-request-id",
        ] {
            assert_eq!(shown(&[(name, "1"), proto], false).len(), 2, "{name}");
        }
    }

    #[test]
    fn a_certificate_may_be_told_of_by_whoever_has_one() {
        // S-325.
        let lines = [
            ("x-forwarded-client-cert", "By=x"),
            ("x-forwarded-proto", ""),
        ];
        assert_eq!(shown(&lines, false).len(), 1);
        assert_eq!(shown(&lines, true).len(), 2);
    }
}
