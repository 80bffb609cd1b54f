//! A certificate authority as a function: who asks, with which request, when, under which serial; back comes a chain.
//!
//! Whose name a certificate bears is the caller's authenticated identity, never what the request says (S-92). Holds a
//! root and its key. Knows no clock, no file and no link, and draws no serial: those are arguments. (ECDSA signatures
//! draw inside aws-lc-rs.)

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::FromDer as _;

use crate::clock::UnixTime;
use crate::limits::{
    CERTIFICATE_BACKDATE, CERTIFICATE_LIFETIME, CERTIFICATE_LIFETIME_MAX, CSR_MAX, ROOT_LIFETIME,
};
use crate::pii::Pii;
use crate::spiffe::{Leaf, SpiffeId, SvidError, TrustDomain};
use crate::tls::{Crypto, KeyError, KeyKind};

/// A root certificate, the key that signs below it, and the trust domain for which it speaks.
pub struct Authority {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    trust_domain: TrustDomain,
    not_after: UnixTime,
}

/// Why there is no authority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    #[error("no PEM certificate: {0}")]
    RootPem(String),
    #[error("not a certificate: {0}")]
    Root(String),
    #[error("not the certificate of an authority")]
    NotAuthority,
    #[error("unreadable names: {0}")]
    Names(String),
    #[error("the certificate names no trust domain")]
    NoTrustDomain,
    #[error("no PEM key in PKCS#8: {0}")]
    KeyPem(String),
    #[error("a key that cannot sign")]
    KeyUnusable,
    #[error("the key is not the certificate's")]
    KeyMismatch,
    #[error(transparent)]
    NoKey(#[from] KeyError),
    #[error("the certificate could not be made: {0}")]
    Making(String),
}

impl Authority {
    /// A new root of ten years with a new key of `kind` (S-95): subject and issuer `O=<trust domain>`, the trust domain
    /// as its URI SAN. `serial` is 128 random bits; the two highest are not kept (see [`sign`]).
    pub fn new_self_signed(
        crypto: &Crypto,
        kind: KeyKind,
        domain: &TrustDomain,
        now: UnixTime,
        serial: [u8; 16],
    ) -> Result<Self, CaError> {
        let der = crypto.keys.generate(kind)?;
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(der.reveal().as_slice()))
            .map_err(|_| CaError::KeyUnusable)?;
        Self::self_signed(key, domain, now, serial)
    }

    /// The same authority under a root that begins now: same name, same key, so that certificates signed before lead to
    /// it too (S-95).
    pub fn renewed(&self, now: UnixTime, serial: [u8; 16]) -> Result<Self, CaError> {
        let der = self.issuer.key().serialized_der();
        let key =
            KeyPair::try_from(&PrivatePkcs8KeyDer::from(der)).map_err(|_| CaError::KeyUnusable)?;
        Self::self_signed(key, &self.trust_domain, now, serial)
    }

    fn self_signed(
        key: KeyPair,
        domain: &TrustDomain,
        now: UnixTime,
        serial: [u8; 16],
    ) -> Result<Self, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, domain.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{domain}")).map_err(making)?];
        params.serial_number = Some(shaped(serial));
        let until = later(now, ROOT_LIFETIME);
        let dates = (moment(backdated(now)), moment(until));
        let (Some(not_before), Some(not_after)) = dates else {
            return Err(CaError::Making(format!("{until} is no date for it")));
        };
        (params.not_before, params.not_after) = (not_before, not_after);
        let root = params.self_signed(&key).map_err(making)?.der().clone();
        Self::of(root, key)
    }

    /// An authority from its files: the first certificate of `root`, and its key in PKCS#8. Dates are not looked at.
    pub fn from_pem(root: &[u8], key: &[u8]) -> Result<Self, CaError> {
        let root = CertificateDer::from_pem_slice(root)
            .map_err(|error| CaError::RootPem(error.to_string()))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(key)
            .map_err(|error| CaError::KeyPem(error.to_string()))?;
        let key = KeyPair::try_from(&key).map_err(|_| CaError::KeyUnusable)?;
        Self::of(root, key)
    }

    fn of(root: CertificateDer<'static>, key: KeyPair) -> Result<Self, CaError> {
        let malformed = |error: &dyn fmt::Display| CaError::Root(error.to_string());
        let (rest, certificate) =
            x509_parser::parse_x509_certificate(&root).map_err(|error| malformed(&error))?;
        if !rest.is_empty() {
            return Err(malformed(&"bytes follow it"));
        }
        if !certificate.is_ca() {
            return Err(CaError::NotAuthority);
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| CaError::Names(error.to_string()))?;
        let trust_domain = names
            .into_iter()
            .flat_map(|names| &names.value.general_names)
            .find_map(|name| match name {
                GeneralName::URI(uri) => SpiffeId::parse(uri).ok(),
                _ => None,
            });
        let not_after = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        if *certificate.public_key().subject_public_key.data != *key.public_key_raw() {
            return Err(CaError::KeyMismatch);
        }
        let trust_domain = trust_domain
            .and_then(|id| TrustDomain::parse(id.trust_domain()).ok())
            .ok_or(CaError::NoTrustDomain)?;
        let issuer = Issuer::from_ca_cert_der(&root, key).map_err(making)?;
        Ok(Self {
            issuer,
            trust_domain,
            not_after: UnixTime(not_after.saturating_mul(1000)),
            root,
        })
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Last second of the root's validity, inclusive.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    pub fn root_pem(&self) -> String {
        pem_of("CERTIFICATE", &self.root)
    }

    /// The signing key in PKCS#8.
    pub fn key_pem(&self) -> Pii<String> {
        Pii::new(self.issuer.key().serialize_pem())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("trust_domain", &self.trust_domain)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// What an authority is asked (S-92).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignRequest {
    /// Who asks, as authentication found; `None` where nobody showed who they are.
    pub caller: Option<SpiffeId>,
    /// PKCS#10, PEM or DER. Only its key and its signature are looked at.
    pub csr: Vec<u8>,
    /// Seconds from now for which the certificate is wanted; 0 or less: the authority's default (S-91).
    pub validity_s: i64,
}

/// Why nothing is signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the caller has not shown who it is")]
    Unauthenticated,
    #[error("{caller} is not of trust domain {trust_domain}, for which the authority speaks")]
    TrustDomain {
        caller: SpiffeId,
        trust_domain: TrustDomain,
    },
    #[error("{0} names a trust domain, not a workload")]
    NoWorkload(SpiffeId),
    #[error("the certificate signing request cannot be used: {0}")]
    Csr(CsrError),
    #[error("a certificate may last {}h at most", CERTIFICATE_LIFETIME_MAX.as_secs() / 3600)]
    TtlTooLong,
    #[error("the authority's own certificate expired at {0}")]
    SignerExpired(UnixTime),
    #[error("the certificate could not be made: {0}")]
    Making(String),
    /// Nobody answered; said by whoever carries requests.
    #[error("the authority could not be reached: {0}")]
    Unreachable(String),
}

impl Refusal {
    /// The name of the gRPC status with which the service of S-92 says so.
    pub fn grpc(&self) -> &'static str {
        match self {
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::TrustDomain { .. } | Self::NoWorkload(_) => "PERMISSION_DENIED",
            Self::Csr(_) | Self::TtlTooLong => "INVALID_ARGUMENT",
            Self::SignerExpired(_) | Self::Making(_) => "INTERNAL",
            Self::Unreachable(_) => "UNAVAILABLE",
        }
    }
}

/// What is wrong with a certificate signing request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    #[error("it is larger than {CSR_MAX} bytes")]
    TooLarge,
    #[error("it is not PKCS#10 in PEM or DER")]
    Malformed,
    #[error("it is not signed with its own key")]
    Signature,
    #[error("its key is none of P-256, P-384, Ed25519 and RSA of at least 2048 bits")]
    Key,
}

/// Signs what `request` asks for: an X509-SVID for its caller (S-90 to S-92).
///
/// `serial` is 128 random bits. The two highest are set to 01, so that the number is positive and of 16 bytes whatever
/// was drawn (RFC 5280 §4.1.2.2). The certificate begins two minutes before `now` and ends with the root at the latest.
/// The chain is the leaf and the root. A request is taken only if its key signed it; the names and extensions that it asks
/// for are passed over.
pub fn sign(
    authority: &Authority,
    request: &SignRequest,
    now: UnixTime,
    serial: [u8; 16],
) -> Result<Chain, Refusal> {
    let id = request.caller.as_ref().ok_or(Refusal::Unauthenticated)?;
    if id.trust_domain() != authority.trust_domain.as_str() {
        return Err(Refusal::TrustDomain {
            caller: id.clone(),
            trust_domain: authority.trust_domain.clone(),
        });
    }
    if id.path().is_empty() {
        return Err(Refusal::NoWorkload(id.clone()));
    }
    let key = read_csr(&request.csr).map_err(Refusal::Csr)?;
    let until = later(now, lifetime(request.validity_s)?);
    if authority.not_after <= now {
        return Err(Refusal::SignerExpired(authority.not_after));
    }
    let until = until.min(authority.not_after);

    let making = |error: rcgen::Error| Refusal::Making(error.to_string());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(id.as_str()).map_err(making)?];
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
    params.serial_number = Some(shaped(serial));
    let dates = (moment(backdated(now)), moment(until));
    let (Some(not_before), Some(not_after)) = dates else {
        return Err(Refusal::Making(format!("{until} is no date for it")));
    };
    (params.not_before, params.not_after) = (not_before, not_after);
    let leaf = params.signed_by(&key, &authority.issuer).map_err(making)?;
    let leaf = leaf.der().clone();
    // Nothing leaves that a peer would refuse for its form.
    match Leaf::parse(&leaf) {
        Ok(_) => Ok(Chain(vec![leaf, authority.root.clone()])),
        Err(SvidError::Key) => Err(Refusal::Csr(CsrError::Key)),
        Err(error) => Err(Refusal::Making(error.to_string())),
    }
}

/// S-91. Above the greatest lifetime is an error, never clamped.
fn lifetime(validity_s: i64) -> Result<Duration, Refusal> {
    match u64::try_from(validity_s) {
        Err(_) | Ok(0) => Ok(CERTIFICATE_LIFETIME),
        Ok(seconds) => Some(Duration::from_secs(seconds))
            .filter(|wanted| *wanted <= CERTIFICATE_LIFETIME_MAX)
            .ok_or(Refusal::TtlTooLong),
    }
}

/// The key for which a request asks, proved to be the asker's (RFC 2986 §4.2).
fn read_csr(csr: &[u8]) -> Result<SubjectPublicKeyInfo, CsrError> {
    if csr.len() > CSR_MAX {
        return Err(CsrError::TooLarge);
    }
    let der = match csr.first() {
        Some(0x30) => CertificateSigningRequestDer::from(csr),
        _ => CertificateSigningRequestDer::from_pem_slice(csr).map_err(|_| CsrError::Malformed)?,
    };
    let (rest, request) =
        X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let algorithm = &request.signature_algorithm.algorithm;
    if [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(algorithm) {
        return Err(CsrError::Signature);
    }
    request
        .verify_signature()
        .map_err(|_| CsrError::Signature)?;
    let key = request.certification_request_info.subject_pki.raw;
    SubjectPublicKeyInfo::from_der(key).map_err(|_| CsrError::Key)
}

/// What an authority answers: the leaf first, the root last (S-92).
#[derive(Clone, PartialEq, Eq)]
// INVARIANT: at least two certificates. Kept by `sign` and `from_pem`.
pub struct Chain(Vec<CertificateDer<'static>>);

/// Why an answer is no chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("the chain is not well-formed PEM: {0}")]
    Pem(String),
    #[error("the chain has no root behind its leaf")]
    NoRoot,
}

impl Chain {
    /// The `cert_chain` of an authority elsewhere, its texts one after the other.
    pub fn from_pem(text: &[u8]) -> Result<Self, ChainError> {
        let chain = CertificateDer::pem_slice_iter(text)
            .collect::<Result<Vec<_>, pem::Error>>()
            .map_err(|error| ChainError::Pem(error.to_string()))?;
        if chain.len() < 2 {
            return Err(ChainError::NoRoot);
        }
        Ok(Self(chain))
    }

    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }

    /// What a workload sends: everything but the root, which its peer has (RFC 8446 §4.4.2), and the root.
    pub fn split(&self) -> (&[CertificateDer<'static>], &CertificateDer<'static>) {
        let (root, sent) = self.0.split_last().expect("a chain has a leaf and a root");
        (sent, root)
    }

    /// All certificates, leaf first.
    pub fn pem(&self) -> String {
        certificates_pem(&self.0)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain of {} certificates", self.0.len())
    }
}

/// Certificates one after the other, as a file holds them.
pub fn certificates_pem<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> String {
    certificates
        .into_iter()
        .map(|der| pem_of("CERTIFICATE", der))
        .collect()
}

/// RFC 7468 §2: lines of 64 characters.
fn pem_of(label: &str, der: &[u8]) -> String {
    // 48 bytes are 64 characters.
    let lines: String = der
        .chunks(48)
        .map(|line| base64::engine::general_purpose::STANDARD.encode(line) + "\n")
        .collect();
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
}

fn shaped(mut serial: [u8; 16]) -> SerialNumber {
    serial[0] = serial[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&serial)
}

fn uri(text: &str) -> Result<SanType, rcgen::Error> {
    text.try_into().map(SanType::URI)
}

fn making(error: rcgen::Error) -> CaError {
    CaError::Making(error.to_string())
}

fn later(now: UnixTime, span: Duration) -> UnixTime {
    let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    UnixTime(now.0.saturating_add(ms))
}

fn backdated(now: UnixTime) -> UnixTime {
    let ms = u64::try_from(CERTIFICATE_BACKDATE.as_millis()).unwrap_or(u64::MAX);
    UnixTime(now.0.saturating_sub(ms))
}

/// The second of `at`; nothing for a year that a certificate cannot say (after 9999).
fn moment(at: UnixTime) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(at.as_secs()).ok()?).ok()
}

#[cfg(test)]
mod tests;
