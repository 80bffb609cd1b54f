//! Settings of the terminating side, made once per identity and bundle.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::TlsVersion;
use super::failure::TlsError;
use super::provider::{Crypto, WallClock};
use super::sniff::HelloFacts;
use super::verify::{Verifier, Wanted};
use crate::spiffe::{Svid, TrustDomain};

/// What stands behind the TLS of a port (S-25).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChainKind {
    Http,
    Tcp,
}

/// The terminating side: one identity, one bundle, the accepted trust domains, a least version.
///
/// A client certificate is mandatory. There are no tickets, no session storage and no early data: every session judges
/// its peer anew.
pub struct ServerTls {
    http: Arc<ServerConfig>,
    tcp: Arc<ServerConfig>,
    /// For clients that offer names, but none of ours.
    nameless: Arc<ServerConfig>,
    pub(super) verifier: Arc<Verifier>,
}

/// S-30 without HTTP/2.
const HTTP_ALPN: [&[u8]; 1] = [b"http/1.1"];
const TCP_ALPN: [&[u8]; 2] = [b"istio-peer-exchange", b"http/1.1"];

impl ServerTls {
    /// `accepted`: the trust domains of S-31; none accepts nobody. Fails where the key does not belong to the
    /// certificate, or is of a kind that the provider does not know.
    pub fn new(
        crypto: &Crypto,
        clock: &WallClock,
        svid: &Svid,
        accepted: &[TrustDomain],
        least: TlsVersion,
    ) -> Result<Self, TlsError> {
        let wanted = Wanted::Clients(accepted.to_vec());
        let verifier = Verifier::new(wanted, svid.bundle.clone(), crypto, clock);
        let certified = certified_key(crypto, svid)?;
        let mut config = ServerConfig::builder_with_details(
            Arc::clone(&crypto.provider),
            Arc::new(clock.clone()),
        )
        .with_protocol_versions(least.and_later())?
        .with_client_cert_verifier(Arc::clone(&verifier) as _)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.ignore_client_order = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.enable_secret_extraction = true;
        let named = |names: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = names.iter().map(|n| n.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            http: named(&HTTP_ALPN),
            tcp: named(&TCP_ALPN),
            nameless: named(&[]),
            verifier,
        })
    }

    /// What rustls is told for an HTTP chain.
    #[cfg(test)]
    pub(super) fn http_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.http)
    }

    /// A mismatch of protocol names must never fail a handshake (S-30), which rustls would do.
    pub(super) fn accept(
        &self,
        kind: ChainKind,
        hello: &HelloFacts,
    ) -> Result<UnbufferedServerConnection, TlsError> {
        let named = match kind {
            ChainKind::Http => &self.http,
            ChainKind::Tcp => &self.tcp,
        };
        let common = named.alpn_protocols.iter().any(|name| hello.offers(name));
        let config = if common { named } else { &self.nameless };
        Ok(UnbufferedServerConnection::new(Arc::clone(config))?)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("verifier", &self.verifier)
            .finish_non_exhaustive()
    }
}

/// The key of `svid`, loaded, and checked to belong to its certificate.
pub(super) fn certified_key(crypto: &Crypto, svid: &Svid) -> Result<Arc<CertifiedKey>, TlsError> {
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.key.reveal().clone()));
    let chain = svid.chain.clone();
    Ok(Arc::new(CertifiedKey::from_der(
        chain,
        der,
        &crypto.provider,
    )?))
}
