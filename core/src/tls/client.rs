//! Settings of the originating side, made once per upstream TLS setting.

use std::fmt;
use std::sync::Arc;

use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::pki_types::{DnsName, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, SupportedProtocolVersion};

use super::TlsVersion;
use super::failure::TlsError;
use super::provider::{Crypto, WallClock};
use super::server::{ChainKind, certified_key};
use super::verify::{Verifier, Wanted};
use crate::spiffe::Svid;

/// The originating side of Istio mutual TLS: our identity, whom we expect, and what the ClientHello says.
///
/// Nothing is resumed: every session judges its server anew.
pub struct ClientTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    pub(super) verifier: Arc<Verifier>,
}

/// S-63. HTTP/1.1 is the only version of HTTP that is offered.
const HTTP_ALPN: [&[u8]; 3] = [b"istio-http/1.1", b"istio", b"http/1.1"];
const TCP_ALPN: [&[u8]; 2] = [b"istio-peer-exchange", b"istio"];

/// The protocols that a ClientHello of ours offers, in its order (S-63).
pub fn client_alpn(kind: ChainKind) -> &'static [&'static [u8]] {
    match kind {
        ChainKind::Http => &HTTP_ALPN,
        ChainKind::Tcp => &TCP_ALPN,
    }
}

impl ClientTls {
    /// `expected`: the URI SANs of S-58; none lets every server of the mesh pass. `sni`:
    /// `outbound_.8080_._.reviews.default.svc.cluster.local` (S-58); without one the extension is left out.
    pub fn new(
        crypto: &Crypto,
        clock: &WallClock,
        svid: &Svid,
        expected: &[String],
        sni: Option<&str>,
        kind: ChainKind,
    ) -> Result<Self, TlsError> {
        let versions = TlsVersion::Tls12.and_later();
        Self::with_versions(crypto, clock, svid, expected, sni, kind, versions)
    }

    pub(super) fn with_versions(
        crypto: &Crypto,
        clock: &WallClock,
        svid: &Svid,
        expected: &[String],
        sni: Option<&str>,
        kind: ChainKind,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<Self, TlsError> {
        let wanted = Wanted::Servers(expected.to_vec());
        let verifier = Verifier::new(wanted, svid.bundle.clone(), crypto, clock);
        let certified = certified_key(crypto, svid)?;
        let mut config = ClientConfig::builder_with_details(
            Arc::clone(&crypto.provider),
            Arc::new(clock.clone()),
        )
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.resumption = Resumption::disabled();
        config.enable_secret_extraction = true;
        config.enable_sni = sni.is_some();
        config.alpn_protocols = client_alpn(kind).iter().map(|n| n.to_vec()).collect();
        // Without SNI the name is never sent, and our verifier looks at SPIFFE IDs alone.
        let name = DnsName::try_from(sni.unwrap_or("unnamed").to_owned())
            .map_err(|_| TlsError(format!("`{}` is no server name", sni.unwrap_or_default())))?;
        Ok(Self {
            config: Arc::new(config),
            name: ServerName::DnsName(name),
            verifier,
        })
    }

    /// The same settings with another configuration of rustls.
    #[cfg(test)]
    pub(super) fn changed(&self, change: impl FnOnce(&mut ClientConfig)) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        change(&mut config);
        Self {
            config: Arc::new(config),
            name: self.name.clone(),
            verifier: Arc::clone(&self.verifier),
        }
    }

    pub(super) fn connect(&self) -> Result<UnbufferedClientConnection, TlsError> {
        Ok(UnbufferedClientConnection::new(
            Arc::clone(&self.config),
            self.name.clone(),
        )?)
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("name", &self.name)
            .field("verifier", &self.verifier)
            .finish_non_exhaustive()
    }
}
