//! `meshConfig`: what of it this project reads.

mod providers;

use crate::path::Normalization;

use super::load::grammar;
use super::load::proto::{Checked, Schema};
use super::load::reader::Report;
use super::load::yaml::{Node, Place};

const SCHEMA: &str = include_str!("mesh_config/schema.txt");

/// Mesh-wide settings; defaults are Istio's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    pub root_namespace: String,
    pub trust_domain: String,
    pub trust_domain_aliases: Vec<String>,
    pub normalization: Normalization,
    /// `protocolDetectionTimeout` in milliseconds; 0: none (S-27).
    pub protocol_detection_timeout_ms: u64,
    /// `enableAutoMtls` (S-60).
    pub enable_auto_mtls: bool,
    /// `meshMTLS.minProtocolVersion` is TLSV1_3 (S-30).
    pub tls13_only: bool,
    /// `connectTimeout` in milliseconds.
    pub connect_timeout_ms: u64,
    /// `accessLogFile`; empty: no log.
    pub access_log_file: String,
    /// `accessLogFormat`; empty: the default of the encoding (S-326, S-327).
    pub access_log_format: String,
    pub access_log_encoding: AccessLogEncoding,
}

/// `accessLogEncoding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogEncoding {
    #[default]
    Text,
    Json,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            root_namespace: "istio-system".into(),
            trust_domain: "cluster.local".into(),
            trust_domain_aliases: Vec::new(),
            normalization: Normalization::Base,
            protocol_detection_timeout_ms: 0,
            enable_auto_mtls: true,
            tls13_only: false,
            connect_timeout_ms: 10_000,
            access_log_file: String::new(),
            access_log_format: String::new(),
            access_log_encoding: AccessLogEncoding::Text,
        }
    }
}

impl MeshConfig {
    /// Reads protobuf JSON (S-10). Every field of Istio's message is held to its type; those that change what is secure and
    /// that nothing here acts on are reported. `None` after at least one error.
    pub fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let before = report.errors();
        let schema = Schema::parse(SCHEMA)?;
        schema.check(node, "MeshConfig", report);
        if report.errors() > before {
            return None;
        }
        let message = Checked::new(&schema, "MeshConfig", node)?;
        let mut config = Self::default();
        config.fill_identity(&message, report);
        config.fill_timeouts(&message, report);
        let text = |name| {
            message
                .text(name)
                .map_or_else(String::new, |(text, _)| text.to_owned())
        };
        config.access_log_file = text("access_log_file");
        config.access_log_format = text("access_log_format");
        if message.choice("access_log_encoding") == Some("JSON") {
            config.access_log_encoding = AccessLogEncoding::Json;
        }
        let path = message.message("path_normalization");
        config.normalization = match path.and_then(|path| path.choice("normalization")) {
            Some("NONE") => Normalization::None,
            Some("MERGE_SLASHES") => Normalization::MergeSlashes,
            Some("DECODE_AND_MERGE_SLASHES") => Normalization::DecodeAndMergeSlashes,
            _ => Normalization::Base,
        };
        config.enable_auto_mtls = message.bool("enable_auto_mtls").unwrap_or(true);
        let tls = message.message("mesh_mTLS");
        config.tls13_only =
            tls.and_then(|tls| tls.choice("min_protocol_version")) == Some("TLSV1_3");
        providers::check(&message, report);
        report_unenforced(&message, report);
        (report.errors() == before).then_some(config)
    }

    fn fill_identity(&mut self, message: &Checked<'_, '_, '_>, report: &mut Report) {
        if let Some((namespace, place)) = message.text("root_namespace") {
            if !grammar::is_label(namespace) {
                let message = format!("`{namespace}` is no name of a namespace");
                report.invalid(
                    place,
                    message,
                    "use lower-case letters, digits and `-`, at most 63 of them",
                );
            }
            namespace.clone_into(&mut self.root_namespace);
        }
        if let Some((domain, place)) = message.text("trust_domain") {
            check_trust_domain(domain, place, report);
            domain.clone_into(&mut self.trust_domain);
        }
        for (domain, place) in message.texts("trust_domain_aliases") {
            check_trust_domain(domain, place, report);
            self.trust_domain_aliases.push(domain.to_owned());
        }
    }

    fn fill_timeouts(&mut self, message: &Checked<'_, '_, '_>, report: &mut Report) {
        if let Some((ms, place)) = message.duration_ms("connect_timeout") {
            if ms == 0 {
                report.invalid(
                    place,
                    "`connectTimeout` is shorter than 1 ms",
                    "leave it out for 10 s",
                );
            }
            self.connect_timeout_ms = ms;
        }
        if let Some((ms, place)) = message.duration_ms("protocol_detection_timeout") {
            let is_zero = |text: &str| !text.bytes().any(|b| (b'1'..=b'9').contains(&b));
            if ms == 0
                && message
                    .text("protocol_detection_timeout")
                    .is_some_and(|(text, _)| !is_zero(text))
            {
                let hint = "write 0s for none";
                report.invalid(
                    place,
                    "`protocolDetectionTimeout` is shorter than 1 ms",
                    hint,
                );
            }
            self.protocol_detection_timeout_ms = ms;
        }
    }
}

/// S-80.
fn check_trust_domain(domain: &str, place: Place, report: &mut Report) {
    let fits =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(fits) {
        let message = format!("`{domain}` is no trust domain");
        report.invalid(
            place,
            message,
            "use lower-case letters, digits, `.`, `-` and `_`, at most 255 of them",
        );
    }
}

/// What would change who may do what if anything acted on it.
fn report_unenforced(message: &Checked<'_, '_, '_>, report: &mut Report) {
    let mut refuse = |node: Option<&Node>, what: &str| {
        if let Some(node) = node {
            report.not_enforced(node.place, &format!("`{what}`"));
        }
    };
    refuse(message.node("ca_certificates"), "caCertificates");
    refuse(message.node("discovery_selectors"), "discoverySelectors");
    refuse(message.node("tls_defaults"), "tlsDefaults");
    let switched = |name, value| {
        message
            .node(name)
            .filter(|_| message.bool(name) == Some(value))
    };
    refuse(
        switched("verify_certificate_at_client", false),
        "verifyCertificateAtClient",
    );
    if let Some(policy) = message.message("outbound_traffic_policy") {
        // The zero value, of an empty message too, is REGISTRY_ONLY.
        let other = policy.choice("mode") != Some("ALLOW_ANY") || policy.node("tls").is_some();
        refuse(
            message.node("outbound_traffic_policy").filter(|_| other),
            "outboundTrafficPolicy",
        );
    }
    if let Some(policy) = message.message("inbound_traffic_policy") {
        let other = policy
            .choice("mode")
            .is_some_and(|mode| mode != "PASSTHROUGH");
        refuse(
            message.node("inbound_traffic_policy").filter(|_| other),
            "inboundTrafficPolicy",
        );
    }
    if let Some(tls) = message.message("mesh_mTLS") {
        refuse(tls.node("cipher_suites"), "meshMTLS.cipherSuites");
        refuse(tls.node("ecdh_curves"), "meshMTLS.ecdhCurves");
    }
    if let Some(config) = message.message("default_config") {
        refuse(
            config.node("gateway_topology"),
            "defaultConfig.gatewayTopology",
        );
        refuse(config.node("proxy_headers"), "defaultConfig.proxyHeaders");
        refuse(
            config.node("connection_settings"),
            "defaultConfig.connectionSettings",
        );
        refuse(
            config.node("ca_certificates_pem"),
            "defaultConfig.caCertificatesPem",
        );
        refuse(
            config.node("private_key_provider"),
            "defaultConfig.privateKeyProvider",
        );
    }
}

#[cfg(test)]
mod tests;
