use std::sync::Arc;

use super::*;
use crate::api::load::{Cause, Text, load_for_enforcement, load_mesh_config, validate};

fn text(text: &str) -> Text {
    Text {
        name: Arc::from("mesh.yaml"),
        text: text.to_owned(),
    }
}

fn read(config: &str) -> MeshConfig {
    load_mesh_config(&text(config)).unwrap_or_else(|refused| panic!("{refused}"))
}

fn messages(config: &str) -> Vec<String> {
    let refused = load_mesh_config(&text(config)).expect_err("the configuration is refused");
    refused
        .findings
        .iter()
        .map(|finding| finding.message.clone())
        .collect()
}

#[test]
fn the_table_of_messages_is_closed() {
    assert!(Schema::parse(SCHEMA).is_some());
}

#[test]
fn an_empty_configuration_has_the_defaults_of_istio() {
    assert_eq!(read(""), MeshConfig::default());
    assert_eq!(read("{}"), MeshConfig::default());
    assert_eq!(
        read("trustDomain: null\nrootNamespace: \"\"\n"),
        MeshConfig::default()
    );
}

#[test]
fn every_field_that_is_held_is_read() {
    let config = read(
        "rootNamespace: mesh\ntrust_domain: td.example\ntrustDomainAliases: [old, older]\nconnectTimeout: 1.5s\nprotocolDetectionTimeout: 100ms\n\
         pathNormalization: {normalization: 3}\nmeshMTLS: {minProtocolVersion: TLSV1_3}\nenableAutoMtls: false\naccessLogFile: /dev/stdout\naccessLogFormat: '%PROTOCOL%'\naccessLogEncoding: JSON\n",
    );
    let expected = MeshConfig {
        root_namespace: "mesh".into(),
        trust_domain: "td.example".into(),
        trust_domain_aliases: vec!["old".into(), "older".into()],
        normalization: Normalization::MergeSlashes,
        protocol_detection_timeout_ms: 100,
        enable_auto_mtls: false,
        tls13_only: true,
        connect_timeout_ms: 1_500,
        access_log_file: "/dev/stdout".into(),
        access_log_format: "%PROTOCOL%".into(),
        access_log_encoding: AccessLogEncoding::Json,
    };
    assert_eq!(config, expected);
    for (name, mode) in [
        ("DEFAULT", Normalization::Base),
        ("BASE", Normalization::Base),
        ("NONE", Normalization::None),
        (
            "DECODE_AND_MERGE_SLASHES",
            Normalization::DecodeAndMergeSlashes,
        ),
    ] {
        assert_eq!(
            read(&format!("pathNormalization: {{normalization: {name}}}")).normalization,
            mode
        );
    }
}

#[test]
fn fields_that_do_not_touch_security_are_passed_over() {
    let config = "ingressService: x\nenableTracing: true\ndefaultConfig: {concurrency: 2, proxyMetadata: {A: b}}\nenableAutoMtls: true\n\
                  outboundTrafficPolicy: {mode: ALLOW_ANY}\ninboundTrafficPolicy: {}\nextensionProviders: [{name: otel, opentelemetry: {service: a, port: 1}}]\n";
    assert_eq!(read(config), MeshConfig::default());
}

#[test]
fn what_would_change_security_and_is_not_enforced_refuses_the_load_only() {
    for config in [
        "caCertificates: [{pem: x}]",
        "outboundTrafficPolicy: {mode: REGISTRY_ONLY}",
        "outboundTrafficPolicy: {mode: 0}",
        "outboundTrafficPolicy: {}",
        "inboundTrafficPolicy: {mode: LOCALHOST}",
        "discoverySelectors: [{matchLabels: {a: b}}]",
        "defaultConfig: {gatewayTopology: {numTrustedProxies: 1}}",
        "meshMTLS: {cipherSuites: [x]}",
    ] {
        let found = messages(config);
        assert!(
            matches!(found.as_slice(), [one] if one.ends_with("valid, not enforced yet")),
            "{config}: {found:?}"
        );
        let loaded = validate(&[text(&format!("mesh: {{{config}}}"))], "default");
        assert!(
            loaded.mesh_config.is_some() && loaded.findings.is_empty(),
            "{config}: {:?}",
            loaded.findings
        );
    }
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for config in [
        "trustDomain: UPPER",
        "trustDomainAliases: [\"\"]",
        "rootNamespace: a.b",
        "connectTimeout: 0s",
        "connectTimeout: 10us",
        "protocolDetectionTimeout: 10us",
        "pathNormalization: {normalization: base}",
        "extensionProviders: [{prometheus: {}}]",
        "extensionProviders: [{name: a, prometheus: {}}, {name: a, prometheus: {}}]",
        "trustDomian: a",
    ] {
        assert_eq!(
            messages(config).len(),
            1,
            "{config}: {:?}",
            messages(config)
        );
    }
    let authorizer = messages(
        "extensionProviders: [{name: a, envoyExtAuthzHttp: {port: 65536, statusOnError: x, includeRequestHeadersInCheck: [\"*\"]}}]",
    );
    assert_eq!(authorizer.len(), 4, "{authorizer:?}");
}

#[test]
fn the_config_map_of_istiod_is_read_with_places_in_the_file() {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    trustDomain: td\n    rootNamespace: A\n";
    let refused =
        load_for_enforcement(&[text(map)], "default").expect_err("the namespace is wrong");
    assert!(
        refused
            .to_string()
            .starts_with("mesh.yaml:7:20: `A` is no name"),
        "{refused}"
    );
    let good = map.replace(": A", ": a");
    let loaded = load_for_enforcement(&[text(&good)], "default").expect("it is valid");
    assert_eq!(
        loaded.mesh_config.map(|config| config.trust_domain),
        Some("td".to_owned())
    );
    let quoted = map.replace(
        "|\n    trustDomain: td\n    rootNamespace: A\n",
        "\"trustDomain: td\\nrootNamespace: A\"",
    );
    let refused =
        load_for_enforcement(&[text(&quoted)], "default").expect_err("the namespace is wrong");
    assert!(
        refused.to_string().starts_with("mesh.yaml:5:9: "),
        "{refused}"
    );
}

#[test]
fn a_second_configuration_is_an_error() {
    let loaded = validate(
        &[text("mesh: {}\n---\nmeshConfig: {trustDomain: other}\n")],
        "default",
    );
    assert_eq!(loaded.mesh_config, Some(MeshConfig::default()));
    assert!(
        matches!(loaded.findings.as_slice(), [finding] if finding.cause == Cause::Invalid && finding.origin.line == 3)
    );
}
