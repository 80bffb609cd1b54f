//! TLS for scripted peers: a rustls session as bytes in, bytes out.
//!
//! A scripted peer proves who it is and does not ask who the other one is: what it accepts is not what is tested. What it
//! saw (certificate, protocol, alert) is there to be looked at.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
    SupportedProtocolVersion,
};

use crate::crypto::Identity;

/// What a scripted TLS client offers.
#[derive(Clone, Debug)]
pub struct Offer {
    pub identity: Option<Identity>,
    pub alpn: Vec<Vec<u8>>,
    pub sni: Option<String>,
    pub tls12_only: bool,
}

/// How the TLS of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsEnd {
    /// The peer sent close_notify.
    Notified,
    /// The peer sent this alert.
    Alert(u8),
    /// What came was no TLS, or wrong.
    Broken,
}

/// The client's side of one session.
#[derive(Debug)]
pub struct TlsClient {
    session: ClientConnection,
    end: Option<TlsEnd>,
}

impl TlsClient {
    pub fn new(
        offer: &Offer,
        provider: Arc<CryptoProvider>,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, Error> {
        static ONLY_12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
        let versions = if offer.tls12_only {
            ONLY_12
        } else {
            rustls::DEFAULT_VERSIONS
        };
        let builder = ClientConfig::builder_with_details(Arc::clone(&provider), clock)
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
        let mut config = match &offer.identity {
            None => builder.with_no_client_auth(),
            Some(me) => builder.with_client_auth_cert(me.chain.clone(), me.key.clone_key())?,
        };
        config.alpn_protocols = offer.alpn.clone();
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_sni = offer.sni.is_some();
        let name = offer.sni.clone().unwrap_or_else(|| "nobody.invalid".into());
        let name = ServerName::try_from(name)
            .map_err(|_| Error::General("the server name is no DNS name".into()))?;
        Ok(Self {
            session: ClientConnection::new(Arc::new(config), name)?,
            end: None,
        })
    }

    /// Takes bytes from the wire, appends the plaintext to `plain`.
    pub fn receive(&mut self, mut wire: &[u8], plain: &mut Vec<u8>) {
        while !wire.is_empty() && self.end.is_none() {
            if self.session.read_tls(&mut wire).is_err() {
                self.end = Some(TlsEnd::Broken);
                return;
            }
            match self.session.process_new_packets() {
                Ok(state) => {
                    let n = state.plaintext_bytes_to_read();
                    let old = plain.len();
                    plain.resize(old + n, 0);
                    if self.session.reader().read_exact(&mut plain[old..]).is_err() {
                        plain.truncate(old);
                    }
                    if state.peer_has_closed() {
                        self.end = Some(TlsEnd::Notified);
                    }
                }
                Err(Error::AlertReceived(alert)) => {
                    self.end = Some(TlsEnd::Alert(u8::from(alert)));
                }
                Err(_) => self.end = Some(TlsEnd::Broken),
            }
        }
    }

    /// Queues plaintext; before the handshake is over it waits for it.
    pub fn send(&mut self, plain: &[u8]) {
        // The buffer has no limit, so that everything is taken.
        self.session.set_buffer_limit(None);
        let taken = self.session.writer().write(plain);
        debug_assert!(taken.is_ok_and(|n| n == plain.len()));
    }

    /// Queues close_notify.
    pub fn finish(&mut self) {
        self.session.send_close_notify();
    }

    /// Takes what is to go on the wire.
    pub fn take_wire(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.session.wants_write() {
            if self.session.write_tls(&mut wire).is_err() {
                break;
            }
        }
        wire
    }

    pub fn end(&self) -> Option<TlsEnd> {
        self.end
    }

    pub fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    pub fn alpn(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    /// The certificates of the server, leaf first.
    pub fn server_chain(&self) -> &[CertificateDer<'static>] {
        self.session.peer_certificates().unwrap_or_default()
    }
}

/// Believes every certificate, but not that somebody has its key: signatures are verified.
#[derive(Debug)]
pub struct AnyServer(pub Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
