//! `meshConfig`: what of it this project reads.

use crate::path::Normalization;

/// Mesh-wide settings; defaults are Istio's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    pub root_namespace: String,
    pub trust_domain: String,
    pub trust_domain_aliases: Vec<String>,
    pub normalization: Normalization,
    /// `protocolDetectionTimeout` in milliseconds; 0: none (S-27).
    pub protocol_detection_timeout_ms: u64,
    /// `meshMTLS.minProtocolVersion` is TLSV1_3 (S-30).
    pub tls13_only: bool,
    /// `connectTimeout` in milliseconds.
    pub connect_timeout_ms: u64,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            root_namespace: "istio-system".into(),
            trust_domain: "cluster.local".into(),
            trust_domain_aliases: Vec::new(),
            normalization: Normalization::Base,
            protocol_detection_timeout_ms: 0,
            tls13_only: false,
            connect_timeout_ms: 10_000,
        }
    }
}
