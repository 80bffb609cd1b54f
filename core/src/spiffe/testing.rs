//! Certificates for tests, right or wrong in any single respect. Extensions are written by hand, since a library for
//! making certificates refuses to make bad ones.

use std::time::Duration;

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, Issuer, KeyPair, date_time_ymd,
};
use rustls_pki_types::CertificateDer;

/// 2026-01-01T00:00:00Z in seconds, around which the certificates here are valid.
pub(crate) const NEW_YEAR: u64 = 1_767_225_600;

pub(crate) const DIGITAL_SIGNATURE: u16 = 0x8000;
pub(crate) const KEY_ENCIPHERMENT: u16 = 0x2000;
pub(crate) const KEY_CERT_SIGN: u16 = 0x0400;
pub(crate) const CRL_SIGN: u16 = 0x0200;

pub(crate) const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
pub(crate) const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

/// What a certificate says. Starts from a right one; tests change a field.
#[derive(Clone)]
pub(crate) struct Spec {
    /// Tag number and content of each general name: 1 email, 2 DNS, 6 URI.
    pub(crate) sans: Vec<(u8, Vec<u8>)>,
    /// `None`: critical exactly if the subject is empty.
    pub(crate) san_critical: Option<bool>,
    pub(crate) subject: Vec<(DnType, String)>,
    /// `None`: no basicConstraints.
    pub(crate) is_ca: Option<bool>,
    pub(crate) path_len: Option<u8>,
    pub(crate) key_usage: Option<u16>,
    pub(crate) key_usage_critical: bool,
    pub(crate) ext_key_usage: Option<Vec<&'static [u8]>>,
    /// Seconds relative to `NEW_YEAR`.
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    /// Further extensions: arcs, critical, content.
    pub(crate) more: Vec<(&'static [u64], bool, Vec<u8>)>,
}

impl Spec {
    /// A workload's certificate as istiod issues it (S-90).
    pub(crate) fn leaf(uri: &str) -> Self {
        Self {
            sans: vec![(6, uri.as_bytes().to_vec())],
            san_critical: None,
            subject: Vec::new(),
            is_ca: Some(false),
            path_len: None,
            key_usage: Some(DIGITAL_SIGNATURE | KEY_ENCIPHERMENT),
            key_usage_critical: true,
            ext_key_usage: Some(vec![SERVER_AUTH, CLIENT_AUTH]),
            not_before: -120,
            not_after: 86_400,
            more: Vec::new(),
        }
    }

    /// A certificate authority's.
    pub(crate) fn authority(name: &str) -> Self {
        Self {
            sans: Vec::new(),
            subject: vec![cn(name)],
            is_ca: Some(true),
            key_usage: Some(KEY_CERT_SIGN | CRL_SIGN),
            ext_key_usage: None,
            not_before: -86_400,
            not_after: 30 * 86_400,
            ..Self::leaf("")
        }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in &self.subject {
            params.distinguished_name.push(kind.clone(), value.as_str());
        }
        let at = |seconds: i64| {
            let base = date_time_ymd(2026, 1, 1);
            let span = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 {
                base - span
            } else {
                base + span
            }
        };
        params.not_before = at(self.not_before);
        params.not_after = at(self.not_after);
        params.custom_extensions = self.extensions();
        params
    }

    fn extensions(&self) -> Vec<CustomExtension> {
        let mut all = Vec::new();
        let mut add = |arcs: &[u64], critical, content| {
            let mut extension = CustomExtension::from_oid_content(arcs, content);
            extension.set_criticality(critical);
            all.push(extension);
        };
        if let Some(is_ca) = self.is_ca {
            let mut content = Vec::new();
            if is_ca {
                content.extend(tlv(1, &[0xff]));
            }
            if let Some(len) = self.path_len {
                content.extend(tlv(2, &[len]));
            }
            add(&[2, 5, 29, 19], true, tlv(0x30, &content));
        }
        if let Some(bits) = self.key_usage {
            let [high, low] = bits.to_be_bytes();
            let content = if low == 0 {
                tlv(3, &[high.trailing_zeros().min(7) as u8, high])
            } else {
                tlv(3, &[low.trailing_zeros() as u8, high, low])
            };
            add(&[2, 5, 29, 15], self.key_usage_critical, content);
        }
        if let Some(purposes) = &self.ext_key_usage {
            let content: Vec<u8> = purposes.iter().flat_map(|oid| tlv(6, oid)).collect();
            add(&[2, 5, 29, 37], false, tlv(0x30, &content));
        }
        if !self.sans.is_empty() {
            let content: Vec<u8> = self
                .sans
                .iter()
                .flat_map(|(tag, name)| tlv(0x80 | tag, name))
                .collect();
            let critical = self.san_critical.unwrap_or(self.subject.is_empty());
            add(&[2, 5, 29, 17], critical, tlv(0x30, &content));
        }
        for (arcs, critical, content) in &self.more {
            add(arcs, *critical, content.clone());
        }
        all
    }
}

/// A certificate with the key that signs below it.
pub(crate) struct Authority {
    pub(crate) cert: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A self-signed root.
    pub(crate) fn root(spec: &Spec) -> Self {
        let key = key();
        let params = spec.params();
        let cert = params.self_signed(&key).expect("a root").der().clone();
        Self {
            cert,
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn sub(&self, spec: &Spec) -> Self {
        let key = key();
        let params = spec.params();
        let cert = params.signed_by(&key, &self.issuer);
        Self {
            cert: cert.expect("an intermediate").der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn issue(&self, spec: &Spec) -> CertificateDer<'static> {
        self.issue_for(spec, &key())
    }

    pub(crate) fn issue_for(&self, spec: &Spec, key: &KeyPair) -> CertificateDer<'static> {
        let cert = spec.params().signed_by(key, &self.issuer);
        cert.expect("a certificate").der().clone()
    }
}

pub(crate) fn cn(name: &str) -> (DnType, String) {
    (DnType::CommonName, name.to_owned())
}

pub(crate) fn key() -> KeyPair {
    KeyPair::generate().expect("a P-256 key")
}

/// One DER element of up to 64 KiB.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).expect("a short element");
    let [high, low] = len.to_be_bytes();
    let head = match (high, low) {
        (0, 0..0x80) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, content.to_vec()].concat()
}
