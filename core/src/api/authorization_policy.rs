//! `AuthorizationPolicy` (security.istio.io v1, v1beta1).

mod read;

use super::meta::{Labels, Meta, Origin};

/// One policy, as written, after validation (S-170 to S-177).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    pub meta: Meta,
    /// `None` or empty: every workload of the scope (S-2).
    pub selector: Option<Labels>,
    /// It has a `targetRef` or `targetRefs`: ignored by sidecars (S-5).
    pub targets: bool,
    pub action: Action,
    /// `provider.name` of CUSTOM.
    pub provider: Option<String>,
    /// Empty: matches nothing (S-112).
    pub rules: Vec<Rule>,
    /// The annotation `istio.io/dry-run` is true (S-163).
    pub dry_run: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    #[default]
    Allow,
    Audit,
    Custom,
    Deny,
}

/// Any `from` (or none given) and any `to` (or none given) and every `when` (S-114).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub from: Vec<Source>,
    pub to: Vec<Operation>,
    pub when: Vec<Condition>,
    pub origin: Origin,
}

/// All given fields and-ed, values of one field or-ed (S-115). Empty: not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    pub principals: Vec<String>,
    pub not_principals: Vec<String>,
    pub request_principals: Vec<String>,
    pub not_request_principals: Vec<String>,
    pub namespaces: Vec<String>,
    pub not_namespaces: Vec<String>,
    pub service_accounts: Vec<String>,
    pub not_service_accounts: Vec<String>,
    pub trust_domains: Vec<String>,
    pub not_trust_domains: Vec<String>,
    pub ip_blocks: Vec<String>,
    pub not_ip_blocks: Vec<String>,
    pub remote_ip_blocks: Vec<String>,
    pub not_remote_ip_blocks: Vec<String>,
}

/// All given fields and-ed, values of one field or-ed (S-115). Empty: not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    pub hosts: Vec<String>,
    pub not_hosts: Vec<String>,
    pub ports: Vec<String>,
    pub not_ports: Vec<String>,
    pub methods: Vec<String>,
    pub not_methods: Vec<String>,
    pub paths: Vec<String>,
    pub not_paths: Vec<String>,
}

/// One item of `when` (S-143).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub key: String,
    pub values: Vec<String>,
    pub not_values: Vec<String>,
    pub origin: Origin,
}
