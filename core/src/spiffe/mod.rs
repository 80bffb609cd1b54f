//! Identities: SPIFFE IDs, trust domains, SVIDs and trust bundles.

/// placeholder
#[derive(Debug)]
pub struct Svid;
