//! A certificate authority in memory, for tests.

use std::time::{SystemTime, UNIX_EPOCH};

use meshward_core::pii::Pii;
use meshward_core::spiffe::{SpiffeId, TrustDomain};
use pyo3::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use crate::MeshwardError;
use crate::svid::Svid;

/// How long a root lasts (S-95).
const ROOT_TTL_S: u64 = 10 * 365 * 86_400;
/// Certificates begin so long before they are made (S-90).
const BACKDATE_S: u64 = 120;

/// A certificate authority of one trust domain, for tests: its key is new each time and never leaves it. Certificates have
/// the shape that istiod gives them.
///
/// Times are the system's, unless `unix_ms` says otherwise (milliseconds since 1970-01-01T00:00:00Z).
#[pyclass(module = "meshward.testing", frozen)]
pub(crate) struct Ca {
    trust_domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    not_after_s: u64,
    /// The root's certificate, which verifies what this authority issued.
    #[pyo3(get)]
    bundle_pem: String,
}

#[pymethods]
impl Ca {
    #[new]
    #[pyo3(signature = (trust_domain = "cluster.local", *, unix_ms = None))]
    fn new(trust_domain: &str, unix_ms: Option<u64>) -> PyResult<Self> {
        let trust_domain = TrustDomain::parse(trust_domain)
            .map_err(|e| MeshwardError::new_err(format!("`{trust_domain}`: {e}")))?;
        let now_s = seconds(unix_ms);
        let not_after_s = now_s.saturating_add(ROOT_TTL_S);
        let key = KeyPair::generate().map_err(broken)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, trust_domain.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{}", trust_domain.as_str()))?];
        params.not_before = moment(now_s.saturating_sub(BACKDATE_S))?;
        params.not_after = moment(not_after_s)?;
        let bundle_pem = params.self_signed(&key).map_err(broken)?.pem();
        Ok(Self {
            trust_domain,
            issuer: Issuer::new(params, key),
            not_after_s,
            bundle_pem,
        })
    }

    /// A certificate with a key of its own (P-256) for `spiffe_id`, valid for `ttl_s` seconds, at most as long as the root.
    ///
    /// An identity of another trust domain is an error, unless `foreign` asks for a certificate that nobody should take.
    #[pyo3(signature = (spiffe_id, ttl_s = 86_400, *, foreign = false, unix_ms = None))]
    fn issue(
        &self,
        spiffe_id: &str,
        ttl_s: u64,
        foreign: bool,
        unix_ms: Option<u64>,
    ) -> PyResult<Svid> {
        let id = SpiffeId::parse(spiffe_id)
            .map_err(|e| MeshwardError::new_err(format!("`{spiffe_id}`: {e}")))?;
        if id.path().is_empty() {
            return Err(MeshwardError::new_err(format!(
                "`{spiffe_id}`: names a trust domain, not a workload"
            )));
        }
        if !foreign && id.trust_domain() != self.trust_domain.as_str() {
            return Err(MeshwardError::new_err(format!(
                "`{spiffe_id}`: this authority speaks for `{}`\n  hint: foreign=True makes it nevertheless",
                self.trust_domain.as_str()
            )));
        }
        if ttl_s == 0 {
            return Err(MeshwardError::new_err(
                "a certificate must last longer than 0 s",
            ));
        }
        let now_s = seconds(unix_ms);
        let key = KeyPair::generate().map_err(broken)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(id.as_str())?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.not_before = moment(now_s.saturating_sub(BACKDATE_S))?;
        // Clamped to the signer's end (S-91).
        params.not_after = moment(now_s.saturating_add(ttl_s).min(self.not_after_s))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(broken)?;
        Ok(Svid {
            chain_pem: certificate.pem(),
            key_pem: Pii::new(key.serialize_pem()),
            bundle_pem: self.bundle_pem.clone(),
        })
    }

    fn __repr__(&self) -> String {
        format!("<Ca of {}>", self.trust_domain.as_str())
    }
}

fn seconds(unix_ms: Option<u64>) -> u64 {
    let system = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap_or_default().as_secs()
    };
    unix_ms.map_or_else(system, |ms| ms / 1000)
}

fn moment(unix_s: u64) -> PyResult<OffsetDateTime> {
    i64::try_from(unix_s)
        .ok()
        .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok())
        .ok_or_else(|| MeshwardError::new_err(format!("{unix_s} s after 1970 has no date")))
}

fn uri(text: &str) -> PyResult<SanType> {
    text.try_into().map(SanType::URI).map_err(broken)
}

fn broken(error: rcgen::Error) -> PyErr {
    MeshwardError::new_err(format!("the certificate could not be made: {error}"))
}
