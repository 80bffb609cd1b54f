//! The peer's certificate: from rustls' question to the verdict of `spiffe`, and back as the right alert.
//!
//! Judges nothing itself. Every handshake is judged anew; only the parsed form of the last certificate is kept.

use std::sync::{Arc, RwLock};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{self, CertificateDer, ServerName};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use super::provider::{Crypto, WallClock};
use crate::clock::UnixTime;
use crate::spiffe::{
    Leaf, SpiffeId, TrustBundle, TrustDomain, VerifyError, verify_client, verify_server,
};

/// What is known of a peer from the certificate that it proved to own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    pub id: SpiffeId,
    /// In the form of RFC 2253, as Envoy prints it; often empty.
    pub subject: String,
    /// DNS names.
    pub dns: Vec<String>,
    /// SHA-256 of the DER, for `x-forwarded-client-cert`.
    pub sha256: [u8; 32],
    pub not_after: UnixTime,
}

impl PeerCertificate {
    fn new(leaf: Leaf, der: &CertificateDer<'_>) -> Self {
        let digest = digest(&SHA256, der);
        Self {
            id: leaf.id,
            subject: leaf.subject,
            dns: leaf.dns,
            sha256: digest.as_ref().try_into().unwrap_or_default(),
            not_after: leaf.not_after,
        }
    }
}

/// Whom a verifier is for, and whom it lets pass.
#[derive(Debug)]
pub(super) enum Wanted {
    /// Clients of these trust domains (S-31).
    Clients(Vec<TrustDomain>),
    /// Servers with one of these URI SANs; any, if there are none (S-58).
    Servers(Vec<String>),
}

/// The verifier of both sides.
#[derive(Debug)]
pub(super) struct Verifier {
    wanted: Wanted,
    bundle: TrustBundle,
    algorithms: WebPkiSupportedAlgorithms,
    clock: WallClock,
    /// The last certificate that was accepted. A session takes its peer from here, so that no certificate is parsed
    /// twice, and links of the same peer share one entry. Nobody waits for it: whoever finds it in use goes without.
    last: RwLock<Option<(CertificateDer<'static>, Arc<PeerCertificate>)>>,
}

impl Verifier {
    pub(super) fn new(
        wanted: Wanted,
        bundle: TrustBundle,
        crypto: &Crypto,
        clock: &WallClock,
    ) -> Arc<Self> {
        Arc::new(Self {
            wanted,
            bundle,
            algorithms: crypto.provider.signature_verification_algorithms,
            clock: clock.clone(),
            last: RwLock::new(None),
        })
    }

    /// Judges `chain`, leaf first, and remembers the leaf as the last one.
    fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<Arc<PeerCertificate>, Error> {
        let der = chain.first().ok_or(Error::NoCertificatesPresented)?;
        let (now, algorithms) = (self.clock.now(), self.algorithms.all);
        let leaf = match &self.wanted {
            Wanted::Clients(domains) => {
                verify_client(chain, &self.bundle, domains, now, algorithms)
            }
            Wanted::Servers(sans) => verify_server(chain, &self.bundle, sans, now, algorithms),
        }
        .map_err(alert)?;
        if let Some(peer) = self.remembered(der) {
            return Ok(peer);
        }
        let peer = Arc::new(PeerCertificate::new(leaf, der));
        if let Ok(mut last) = self.last.try_write() {
            *last = Some((der.clone().into_owned(), Arc::clone(&peer)));
        }
        Ok(peer)
    }

    /// What is known of exactly this certificate; no verdict.
    fn remembered(&self, der: &CertificateDer<'_>) -> Option<Arc<PeerCertificate>> {
        let last = self.last.try_read().ok()?;
        let (seen, peer) = last.as_ref()?;
        (seen == der).then(|| Arc::clone(peer))
    }

    /// The peer behind a chain that the handshake step before this call accepted. Where settings are shared between
    /// threads, another handshake may have come in between; then the chain is judged once more.
    pub(super) fn accepted(
        &self,
        chain: &[CertificateDer<'_>],
    ) -> Result<Arc<PeerCertificate>, Error> {
        if let Some(peer) = chain.first().and_then(|der| self.remembered(der)) {
            return Ok(peer);
        }
        self.verify(chain)
    }

    fn tls12(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn tls13(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }
}

/// The form in which rustls sends the alert of S-97: 45 for the dates, 48 for the issuer, 46 for everything else.
fn alert(refusal: VerifyError) -> Error {
    Error::InvalidCertificate(match refusal {
        VerifyError::Expired => CertificateError::Expired,
        VerifyError::NotYetValid => CertificateError::NotValidYet,
        VerifyError::UnknownIssuer => CertificateError::UnknownIssuer,
        VerifyError::BadSvid(_)
        | VerifyError::TrustDomain(_)
        | VerifyError::SubjectAltName(_)
        | VerifyError::ChainTooLong
        | VerifyError::Chain(_) => CertificateError::Other(OtherError(Arc::new(refusal))),
    })
}

fn whole<'a>(
    leaf: &'a CertificateDer<'_>,
    rest: &'a [CertificateDer<'_>],
) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf)
        .chain(rest)
        .map(|der| CertificateDer::from(der.as_ref()))
        .collect()
}

impl ClientCertVerifier for Verifier {
    /// No hints: a workload has one identity, and a list of names would cost bytes in every handshake.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: pki_types::UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(&whole(end_entity, intermediates))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: pki_types::UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(&whole(end_entity, intermediates))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
