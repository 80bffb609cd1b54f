//! `RequestAuthentication` (security.istio.io v1, v1beta1).

mod jwks;
mod read;

use super::meta::{Labels, Meta, Origin};

/// One policy, as written, after validation (S-170, S-171, S-178).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestAuthentication {
    pub meta: Meta,
    /// `None` or empty: every workload of the scope (S-2).
    pub selector: Option<Labels>,
    /// It has a `targetRef` or `targetRefs`: ignored by sidecars (S-5).
    pub targets: bool,
    /// Empty: does nothing (S-178).
    pub rules: Vec<JwtRule>,
}

/// One issuer, its keys, and where its tokens are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRule {
    /// Empty: any issuer (S-222).
    pub issuer: String,
    /// Empty: all are accepted (S-223).
    pub audiences: Vec<String>,
    pub keys: KeySource,
    /// If any of the three is given, only those are looked at (S-213).
    pub from_headers: Vec<HeaderLocation>,
    pub from_params: Vec<String>,
    pub from_cookies: Vec<String>,
    /// Header that gets the payload (S-225).
    pub output_payload_to_header: Option<String>,
    pub output_claims: Vec<ClaimToHeader>,
    /// Otherwise a token that was verified is taken out of the request (S-224).
    pub forward_original_token: bool,
    /// Claims that are split at spaces besides `scope` and `permission` (S-148).
    pub space_delimited_claims: Vec<String>,
    pub origin: Origin,
}

/// Where the keys of an issuer come from (S-228).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeySource {
    /// `jwks`: the text of a key set.
    Inline(String),
    /// `jwksUri`.
    Uri(String),
    /// Neither: by OpenID discovery at the issuer.
    #[default]
    Discovery,
}

/// One item of `fromHeaders`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderLocation {
    pub name: String,
    /// What stands before the token; may be empty.
    pub prefix: String,
}

/// One item of `outputClaimToHeaders`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimToHeader {
    pub header: String,
    /// Names of nested claims are joined by `.`.
    pub claim: String,
}
