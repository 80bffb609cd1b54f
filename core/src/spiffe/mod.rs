//! Identities: SPIFFE IDs, the facts of certificates, and whom to believe.
//!
//! Everything here is data and pure functions over bytes; time and signature algorithms are arguments. Knows no
//! session and no policy: `tls` asks for a verdict about a chain, `authz` compares the resulting id.

mod bundle;
mod document;
mod id;
mod subject;
mod svid;
mod verify;
mod x509;

#[cfg(test)]
mod testing;

pub use bundle::{BundleError, TrustBundle};
pub use document::DocumentError;
pub use id::{IstioIdentity, SpiffeId, SpiffeIdError, TrustDomain, istio_identity};
pub use svid::{Svid, SvidFile, SvidLoadError};
pub use verify::{CHAIN_MAX, VerifyError, verify_client, verify_server};
pub use x509::{Leaf, SvidError, check_signing_certificate};
