//! Is this chain of certificates a peer that we believe?
//!
//! The path to a root is webpki's; what makes a certificate an X509-SVID is `x509`'s; this module puts the two in
//! the order in which failures must show (S-97): a peer of an unknown authority is told so whatever else is wrong
//! with it, then come the dates, then the certificate's form, then whose name it bears.

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor};
use std::time::Duration;
use webpki::{EndEntityCert, Error, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage};

use super::bundle::TrustBundle;
use super::id::{SpiffeId, TrustDomain};
use super::x509::{Leaf, SvidError, check_signing_certificate};
use crate::clock::UnixTime;

/// Certificates in a peer's chain, leaf included. Path building tries orders of same-named intermediates, so its
/// work grows as a factorial of their number, before anything is known of the peer; real chains have two to four.
pub const CHAIN_MAX: usize = 6;
/// Times that a refused chain is looked at again to name the fault.
const EXPLAIN_MAX: usize = 3;

/// Why a peer's chain is refused. The TLS alert that each calls for (S-97) is given in brackets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// \[45 certificate_expired\]
    #[error("the certificate or one of its issuers has expired")]
    Expired,
    /// \[45 certificate_expired: S-97 has one number for both\]
    #[error("the certificate or one of its issuers is not valid yet")]
    NotYetValid,
    /// No root of the bundle signed the chain, or a signature in it is false. \[48 unknown_ca\]
    #[error("the chain does not lead to a trusted root")]
    UnknownIssuer,
    /// The leaf is no X509-SVID, or an intermediate on its path may not sign one. \[46 certificate_unknown\]
    #[error(transparent)]
    BadSvid(#[from] SvidError),
    /// \[46 certificate_unknown\]
    #[error("the trust domain of {0} is not accepted")]
    TrustDomain(SpiffeId),
    /// \[46 certificate_unknown\]
    #[error("the server is {0}, which is none of the expected identities")]
    SubjectAltName(SpiffeId),
    /// The peer sent more than `CHAIN_MAX` certificates. \[46 certificate_unknown\]
    #[error("the chain has more than {CHAIN_MAX} certificates")]
    ChainTooLong,
    /// The path breaks another rule of RFC 5280: name constraints, path length, a critical extension.
    /// \[46 certificate_unknown\]
    #[error("the chain breaks a rule of X.509: {0}")]
    Chain(Error),
}

/// Judges a client's `chain`, leaf first (S-31, S-81 to S-84, S-97).
///
/// The leaf's trust domain must be one of `accepted`; an empty list accepts nobody. `algorithms` are those that may
/// sign certificates. Intermediates may come in any order, and unused ones are not looked at.
pub fn verify_client(
    chain: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    accepted: &[TrustDomain],
    now: UnixTime,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> Result<Leaf, VerifyError> {
    let usage = KeyUsage::client_auth();
    let leaf = verify(chain, bundle, usage, now, algorithms)?;
    if accepted
        .iter()
        .any(|domain| domain.as_str() == leaf.id.trust_domain())
    {
        Ok(leaf)
    } else {
        Err(VerifyError::TrustDomain(leaf.id))
    }
}

/// Judges a server's `chain`, leaf first (S-58, S-81 to S-84, S-97).
///
/// The leaf's URI SAN must equal one of `expected` byte by byte; an empty list asks for none.
pub fn verify_server(
    chain: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    expected: &[String],
    now: UnixTime,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> Result<Leaf, VerifyError> {
    let usage = KeyUsage::server_auth();
    let leaf = verify(chain, bundle, usage, now, algorithms)?;
    if expected.is_empty() || expected.iter().any(|san| san == leaf.id.as_str()) {
        Ok(leaf)
    } else {
        Err(VerifyError::SubjectAltName(leaf.id))
    }
}

fn verify(
    chain: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    usage: KeyUsage,
    now: UnixTime,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> Result<Leaf, VerifyError> {
    let (leaf_der, intermediates) = chain.split_first().ok_or(SvidError::Missing)?;
    if chain.len() > CHAIN_MAX {
        return Err(VerifyError::ChainTooLong);
    }
    let leaf = Leaf::parse(leaf_der);
    let cert = match (EndEntityCert::try_from(leaf_der), &leaf) {
        (Ok(cert), _) => cert,
        (Err(_), Err(fault)) => return Err((*fault).into()),
        (Err(error), Ok(_)) => return Err(VerifyError::Chain(error)),
    };
    // Of a leaf without an ID only the reason for its refusal is still open; the unlimited roots decide that.
    let domain = leaf.as_ref().map_or("", |leaf| leaf.id.trust_domain());
    let path = Path {
        cert: &cert,
        intermediates,
        anchors: bundle.anchors(domain),
        algorithms,
    };
    let now = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_millis(now.0));
    if let Err(error) = path.check(now, usage) {
        return Err(path.explain(error, now, usage, leaf.err(), bundle));
    }
    Ok(leaf?)
}

/// What webpki needs for one verdict, apart from when and for what.
struct Path<'a> {
    cert: &'a EndEntityCert<'a>,
    intermediates: &'a [CertificateDer<'a>],
    anchors: &'a [TrustAnchor<'static>],
    algorithms: &'a [&'a dyn SignatureVerificationAlgorithm],
}

/// Why `Path::check` said no.
enum Refusal {
    Path(Error),
    Signer(SvidError),
}

impl Path<'_> {
    fn check(
        &self,
        at: rustls_pki_types::UnixTime,
        usage: impl ExtendedKeyUsageValidator,
    ) -> Result<(), Refusal> {
        let path = self
            .cert
            .verify_for_usage(
                self.algorithms,
                self.anchors,
                self.intermediates,
                at,
                usage,
                None,
                None,
            )
            .map_err(Refusal::Path)?;
        // webpki takes cA for the right to sign and does not look at keyUsage.
        for signer in path.intermediate_certificates() {
            check_signing_certificate(&signer.der()).map_err(Refusal::Signer)?;
        }
        Ok(())
    }

    /// Names the failure. Never an acceptance: whatever is tried here only chooses among errors.
    ///
    /// webpki looks at dates and key purposes of a certificate before it looks for its issuer, so behind such an
    /// error the issuer may be unknown as well; asking again for a moment and a purpose that suit tells.
    fn explain(
        &self,
        refusal: Refusal,
        now: rustls_pki_types::UnixTime,
        usage: KeyUsage,
        leaf: Option<SvidError>,
        bundle: &TrustBundle,
    ) -> VerifyError {
        let first = match refusal {
            Refusal::Path(error) => error,
            Refusal::Signer(fault) => return fault.into(),
        };
        let verdict = name_error(&first, leaf);
        let mut error = first;
        let (mut at, mut purpose) = (now, Purpose::Of(usage));
        for _ in 0..EXPLAIN_MAX {
            match error {
                Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => {
                    return VerifyError::UnknownIssuer;
                }
                Error::CertExpired { not_after, .. } => at = not_after,
                Error::CertNotValidYet { not_before, .. } => at = not_before,
                Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => {
                    purpose = Purpose::Any;
                }
                _ if self.is_foreign(bundle) => return VerifyError::UnknownIssuer,
                _ => break,
            }
            error = match self.check(at, &purpose) {
                Err(Refusal::Path(error)) => error,
                Ok(()) | Err(Refusal::Signer(_)) => break,
            };
        }
        verdict
    }

    /// Whether no certificate of the chain even claims to be issued by a root of the bundle.
    fn is_foreign(&self, bundle: &TrustBundle) -> bool {
        !bundle.names(self.cert.issuer())
            && !self.intermediates.iter().any(|der| {
                EndEntityCert::try_from(der).is_ok_and(|cert| bundle.names(cert.issuer()))
            })
    }
}

fn name_error(error: &Error, leaf: Option<SvidError>) -> VerifyError {
    match error {
        Error::CertExpired { .. } => VerifyError::Expired,
        Error::CertNotValidYet { .. } => VerifyError::NotYetValid,
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => VerifyError::UnknownIssuer,
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => {
            leaf.unwrap_or(SvidError::ExtKeyUsage).into()
        }
        _ => match leaf {
            Some(fault) => fault.into(),
            None => VerifyError::Chain(error.clone()),
        },
    }
}

enum Purpose {
    Of(KeyUsage),
    Any,
}

impl ExtendedKeyUsageValidator for Purpose {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        match self {
            Self::Of(usage) => usage.validate(purposes),
            Self::Any => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
