//! `extensionProviders`: those that authorize (S-240 to S-247). The others are held to their types alone.
//!
//! A provider does nothing by itself: policies with the action CUSTOM name it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::api::load::grammar;
use crate::api::load::proto::Checked;
use crate::api::load::reader::Report;
use crate::api::load::yaml::{Place, Value};

type Message<'a, 't, 'n> = Checked<'a, 't, 'n>;

/// Lists of names of headers, each exact or with one star at an end (S-241, S-243, S-244).
const HEADER_LISTS: [(&str, &str); 5] = [
    (
        "include_request_headers_in_check",
        "includeRequestHeadersInCheck",
    ),
    ("include_headers_in_check", "includeHeadersInCheck"),
    ("headers_to_upstream_on_allow", "headersToUpstreamOnAllow"),
    ("headers_to_downstream_on_deny", "headersToDownstreamOnDeny"),
    (
        "headers_to_downstream_on_allow",
        "headersToDownstreamOnAllow",
    ),
];

pub(super) fn check(mesh: &Message<'_, '_, '_>, report: &mut Report) {
    let mut names = BTreeSet::new();
    for provider in mesh.messages("extension_providers") {
        match provider.text("name") {
            None => report.invalid(
                provider.place(),
                "a provider has no `name`",
                "name it; policies refer to it",
            ),
            Some((name, place)) => {
                if !grammar::is_label(name) {
                    let message = format!("`{name}` is no name of a provider");
                    let hint = "use lower-case letters, digits and `-`, at most 63 of them";
                    report.invalid(place, message, hint);
                }
                if !names.insert(name) {
                    let message = format!("a second provider named `{name}`");
                    report.invalid(place, message, "rename one of them");
                }
            }
        }
        for authorizer in ["envoy_ext_authz_http", "envoy_ext_authz_grpc"] {
            if let Some(authorizer) = provider.message(authorizer) {
                check_authorizer(&authorizer, report);
            }
        }
    }
}

fn check_authorizer(authorizer: &Message<'_, '_, '_>, report: &mut Report) {
    match authorizer.text("service") {
        None => report.invalid(
            authorizer.place(),
            "the provider has no `service`",
            "name the host of the authorizer",
        ),
        Some((service, place)) if !is_service(service) => {
            let message = format!("`{service}` is no host of a provider");
            let hint = "write the full name of a service, or `namespace/name`";
            report.invalid(place, message, hint);
        }
        Some(_) => {}
    }
    let port = authorizer.integer("port");
    if !port.is_some_and(|port| (1..=65_535).contains(&port)) {
        let place = authorizer.node("port").map(|node| node.place);
        let place = place.unwrap_or_else(|| authorizer.place());
        let message = "the provider has no port from 1 to 65535";
        report.invalid(place, message, "add `port`");
    }
    if let Some((status, place)) = authorizer.text("status_on_error")
        && !is_status(status)
    {
        let message = format!("`{status}` in `statusOnError` is no status");
        report.invalid(place, message, "write a status of HTTP like \"503\"");
    }
    if let Some((prefix, place)) = authorizer.text("path_prefix")
        && !is_path_prefix(prefix)
    {
        let message = format!("`{prefix}` in `pathPrefix` is no path");
        report.invalid(place, message, "write it like /check");
    }
    check_headers(authorizer, report);
    if let Some(body) = authorizer.message("include_request_body_in_check")
        && body.integer("max_request_bytes").unwrap_or(0) == 0
    {
        let message = "`includeRequestBodyInCheck` takes no byte of a body";
        report.doubtful(body.place(), message, "add `maxRequestBytes`");
    }
}

fn check_headers(authorizer: &Message<'_, '_, '_>, report: &mut Report) {
    for (list, json) in HEADER_LISTS {
        for (pattern, place) in authorizer.texts(list) {
            check_header_pattern(json, pattern, place, report);
        }
    }
    let added = authorizer.node("include_additional_headers_in_check");
    if let Some(Value::Map(entries)) = added.map(|node| &node.value) {
        for (key, _) in entries {
            if !grammar::is_field_name(&key.name) {
                let message = format!(
                    "`{}` in `includeAdditionalHeadersInCheck` is no name of a header",
                    key.name
                );
                report.invalid(key.place, message, "use letters, digits and `-`");
            }
        }
    }
}

fn check_header_pattern(list: &str, pattern: &str, place: Place, report: &mut Report) {
    let name = pattern
        .strip_prefix('*')
        .or_else(|| pattern.strip_suffix('*'))
        .unwrap_or(pattern);
    if name.bytes().all(|b| b == b'*') {
        let message = format!("`{pattern}` in `{list}` stands for no header");
        report.invalid(place, message, "name headers, or write `x-*`");
    } else if !grammar::is_field_name(name) {
        let message = format!("`{pattern}` in `{list}` is no name of a header");
        report.invalid(place, message, "use letters, digits and `-`");
    }
}

/// `host` or `namespace/host`; a host may be an address.
fn is_service(service: &str) -> bool {
    match service.split_once('/') {
        Some((namespace, host)) => grammar::is_label(namespace) && grammar::is_host(host),
        None => grammar::is_host(service) || service.parse::<IpAddr>().is_ok(),
    }
}

/// One that Envoy can answer with (`envoy.type.v3.StatusCode`).
fn is_status(text: &str) -> bool {
    let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
    digits
        && text.parse().is_ok_and(|status: u16| {
            matches!(status,
                100 | 102..=104 | 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=418 | 421..=426 | 428 | 429
                | 431 | 451 | 500..=508 | 510 | 511)
        })
}

fn is_path_prefix(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::api::load::{Cause, Loaded, Text, load_for_enforcement, validate};

    fn text(providers: &str) -> Text {
        Text {
            name: Arc::from("mesh.yaml"),
            text: format!("mesh: {{extensionProviders: {providers}}}\n"),
        }
    }

    fn load(providers: &str) -> Loaded {
        validate(&[text(providers)], "default")
    }

    /// `{…}` of an HTTP provider, besides service and port.
    fn http(fields: &str) -> String {
        format!("[{{name: a, envoyExtAuthzHttp: {{service: a.b.svc, port: 80{fields}}}}}]")
    }

    #[test]
    fn providers_that_istio_takes_are_valid_and_loaded() {
        for providers in [
            &http(""),
            &http(", port: '80'").replace("port: 80, ", ""),
            &http(", timeout: 0.5s, failOpen: true, statusOnError: '503', pathPrefix: /check"),
            &http(
                ", includeRequestHeadersInCheck: [x-a, x-*, '*-b'], includeAdditionalHeadersInCheck: {x-c: d}",
            ),
            &http(
                ", includeRequestBodyInCheck: {maxRequestBytes: '10', allowPartialMessage: true}",
            ),
            &http(
                ", headersToUpstreamOnAllow: [a], headersToDownstreamOnDeny: [b], headers_to_downstream_on_allow: [c]",
            ),
            "[{name: a, envoyExtAuthzGrpc: {service: ns/a.b.svc.cluster.local, port: \"9000\"}}]",
            "[{name: a, envoyExtAuthzGrpc: {service: 10.0.0.1, port: 1}}, {name: b, envoyExtAuthzHttp: {service: A.example, port: 65535}}]",
            "[{name: otel, opentelemetry: {service: a, port: 1}}, {name: p, prometheus: {}}]",
            "null",
            "[]",
        ] {
            let loaded = load(providers);
            assert_eq!(loaded.findings, [], "{providers}");
            assert!(loaded.mesh_config.is_some());
            assert!(
                load_for_enforcement(&[text(providers)], "default").is_ok(),
                "{providers}"
            );
        }
    }

    #[test]
    fn each_thing_that_is_wrong_is_one_error() {
        let grpc = |fields: &str| format!("[{{name: a, envoyExtAuthzGrpc: {{{fields}}}}}]");
        for providers in [
            "[{prometheus: {}}]".to_owned(),
            "[{name: '', prometheus: {}}]".to_owned(),
            "[{name: Upper, prometheus: {}}]".to_owned(),
            "[{name: a.b, prometheus: {}}]".to_owned(),
            format!("[{{name: {}, prometheus: {{}}}}]", "a".repeat(64)),
            "[{name: a, prometheus: {}}, {name: a, prometheus: {}}]".to_owned(),
            "[{name: a, prometheus: {}, envoyExtAuthzGrpc: {service: a, port: 1}}]".to_owned(),
            grpc("port: 80"),
            grpc("service: '', port: 80"),
            grpc("service: 'a b', port: 80"),
            grpc("service: '*.a', port: 80"),
            grpc("service: 'a:80', port: 80"),
            grpc("service: a/b/c, port: 80"),
            grpc("service: a"),
            grpc("service: a, port: 0"),
            grpc("service: a, port: 65536"),
            grpc("service: a, port: '80x'"),
            grpc("service: a, port: 80.5"),
            grpc("service: a, port: -1"),
            grpc("service: a, port: 80, failOpen: 'true'"),
            grpc("service: a, port: 80, timeout: 5"),
            grpc("service: a, port: 80, timeout: fast"),
            grpc("service: a, port: 80, statusOnError: 503"),
            grpc("service: a, port: 80, pathPrefix: /a"),
            http(", statusOnError: '99'"),
            http(", statusOnError: '600'"),
            http(", statusOnError: 'ok'"),
            http(", pathPrefix: check"),
            http(", includeRequestHeadersInCheck: ['*']"),
            http(", includeHeadersInCheck: ['*']"),
            http(", includeHeadersInCheck: ['']"),
            http(", includeHeadersInCheck: [1]"),
            http(", headersToUpstreamOnAllow: ['a b']"),
            http(", headersToDownstreamOnDeny: ['**']"),
            http(", includeAdditionalHeadersInCheck: {'a b': c}"),
            http(", includeAdditionalHeadersInCheck: {a: 1}"),
            http(", includeRequestBodyInCheck: {maxRequestBytes: -2}"),
        ] {
            let loaded = load(&providers);
            assert!(
                matches!(loaded.findings.as_slice(), [one] if one.cause == Cause::Invalid),
                "{providers}: {:?}",
                loaded.findings
            );
            assert_eq!(loaded.mesh_config, None);
        }
    }

    #[test]
    fn a_body_without_a_size_is_doubtful() {
        let loaded = load(&http(", includeRequestBodyInCheck: {}"));
        assert!(matches!(loaded.findings.as_slice(), [one] if !one.is_error()));
    }
}
