//! The roots that are believed, and for which trust domains (S-82, S-96).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use super::id::TrustDomain;
use super::x509::{self, SvidError};

/// Why a certificate cannot be a root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("the trust bundle is not well-formed PEM")]
    Pem,
    #[error("the trust bundle holds no certificate")]
    Empty,
    /// `index` counts the bundle's certificates from 0.
    #[error("certificate {index} of the trust bundle cannot be a root: {fault}")]
    Root { index: usize, fault: SvidError },
}

/// Roots, prepared once so that a handshake parses none of them. Cloning shares them.
///
/// An empty bundle believes nobody.
#[derive(Clone, Default)]
pub struct TrustBundle {
    inner: Arc<Inner>,
}

#[derive(Clone, Default)]
struct Inner {
    roots: Vec<CertificateDer<'static>>,
    /// Believed for every trust domain.
    everywhere: Vec<TrustAnchor<'static>>,
    // INVARIANT: each list holds `everywhere` too, so that one slice answers a handshake. Kept by `add`.
    limited: BTreeMap<TrustDomain, Vec<TrustAnchor<'static>>>,
}

impl TrustBundle {
    /// Roots that are believed for every trust domain, like Istio's mesh root.
    ///
    /// A root must be a certificate authority's (`cA`, keyCertSign where keyUsage is present) and its SPIFFE ID, if
    /// any, have no path; its validity is not looked at (RFC 5280 §6.1.1: an anchor is a name and a key).
    pub fn new(
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        let mut bundle = Self::default();
        for root in roots {
            bundle.add(root, &[])?;
        }
        Ok(bundle)
    }

    /// The certificates of a PEM file, believed for every trust domain. Sections of other kinds are passed over.
    pub fn from_pem(pem: &[u8]) -> Result<Self, BundleError> {
        let roots = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| BundleError::Pem)?;
        if roots.is_empty() {
            return Err(BundleError::Empty);
        }
        Self::new(roots)
    }

    /// Adds a root that is believed for `domains` only, or for every trust domain if there are none
    /// (`caCertificates[].trustDomains`, S-96).
    pub fn add(
        &mut self,
        root: CertificateDer<'static>,
        domains: &[TrustDomain],
    ) -> Result<(), BundleError> {
        let refused = |fault| BundleError::Root {
            index: self.inner.roots.len(),
            fault,
        };
        x509::check_root(&root).map_err(refused)?;
        let anchor = webpki::anchor_from_trusted_cert(&root)
            .map_err(|_| refused(SvidError::Malformed))?
            .to_owned();

        let inner = Arc::make_mut(&mut self.inner);
        if domains.is_empty() {
            for anchors in inner.limited.values_mut() {
                anchors.push(anchor.clone());
            }
            inner.everywhere.push(anchor);
        } else {
            for domain in domains {
                inner
                    .limited
                    .entry(domain.clone())
                    .or_insert_with(|| inner.everywhere.clone())
                    .push(anchor.clone());
            }
        }
        inner.roots.push(root);
        Ok(())
    }

    /// The roots as they were given, in their order.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.inner.roots
    }

    /// The anchors for a leaf of `domain` (S-82).
    pub(super) fn anchors(&self, domain: &str) -> &[TrustAnchor<'static>] {
        self.inner
            .limited
            .get(domain)
            .unwrap_or(&self.inner.everywhere)
    }

    /// Whether some root, whatever its domains, has this subject (content bytes of the name's SEQUENCE).
    pub(super) fn names(&self, subject: &[u8]) -> bool {
        self.inner
            .everywhere
            .iter()
            .chain(self.inner.limited.values().flatten())
            .any(|anchor| anchor.subject.as_ref() == subject)
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle")
            .field("roots", &self.inner.roots.len())
            .field("limited", &self.inner.limited.keys())
            .finish_non_exhaustive()
    }
}

/// Bundles are equal if they believe the same roots for the same trust domains, listed in the same order.
impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
            || (self.inner.roots == other.inner.roots
                && self.inner.everywhere == other.inner.everywhere
                && self.inner.limited == other.inner.limited)
    }
}

impl Eq for TrustBundle {}
