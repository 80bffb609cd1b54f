//! `PeerAuthentication` (security.istio.io v1, v1beta1).

use std::collections::BTreeMap;

use super::meta::{Labels, Meta};

/// One policy, as written, after validation (S-170 to S-172).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    pub meta: Meta,
    pub selector: Option<Labels>,
    pub mode: Mode,
    /// By workload port (S-22).
    pub port_level: BTreeMap<u16, Mode>,
}

/// `mtls.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Absent or `UNSET`: as the parent says (S-20).
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}
