//! Hearing how a decision comes about.

use std::fmt;
use std::net::IpAddr;

use super::evaluate::Decision;
use super::id::PolicyId;
use crate::api::authorization_policy::Action;

/// Hears an evaluation, in its order: engine, rule, alternative, comparisons, outcome.
///
/// `()` hears nothing and costs nothing. A listener cannot change a decision, only what is looked at: see `EVERYTHING`.
pub trait Listener {
    /// Have every rule of every engine asked and every field compared, also where the answer is known already.
    const EVERYTHING: bool;

    /// The rules of this action are asked now.
    fn engine(&mut self, _action: Action) {}

    /// This rule is asked now.
    fn rule(&mut self, _id: &PolicyId) {}

    /// The rule matches nothing, for this reason.
    fn void(&mut self, _reason: &str) {}

    /// One of the alternatives of `from` or of `to` is asked now.
    fn alternative(&mut self, _part: Part) {}

    fn comparison(&mut self, _comparison: &Comparison<'_>) {}

    /// The answer of the rule that was asked last.
    fn outcome(&mut self, _matched: bool) {}

    fn decision(&mut self, _decision: &Decision<'_>) {}
}

impl Listener for () {
    const EVERYTHING: bool = false;
}

/// A half of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    From,
    To,
}

/// One field of a policy held against one attribute.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    pub field: Field,
    /// It is the `not…` form.
    pub negated: bool,
    /// As written, trust-domain aliases not yet expanded.
    pub patterns: &'a [String],
    pub actual: Actual<'a>,
    /// Whether the field as a whole is satisfied, negation included.
    pub matched: bool,
}

/// A field of a source or of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    Principals,
    Namespaces,
    ServiceAccounts,
    TrustDomains,
    IpBlocks,
    RemoteIpBlocks,
    Hosts,
    Ports,
    Methods,
    Paths,
}

impl Field {
    /// As Istio spells it.
    pub fn name(self, negated: bool) -> &'static str {
        match (self, negated) {
            (Self::Principals, false) => "principals",
            (Self::Principals, true) => "notPrincipals",
            (Self::Namespaces, false) => "namespaces",
            (Self::Namespaces, true) => "notNamespaces",
            (Self::ServiceAccounts, false) => "serviceAccounts",
            (Self::ServiceAccounts, true) => "notServiceAccounts",
            (Self::TrustDomains, false) => "trustDomains",
            (Self::TrustDomains, true) => "notTrustDomains",
            (Self::IpBlocks, false) => "ipBlocks",
            (Self::IpBlocks, true) => "notIpBlocks",
            (Self::RemoteIpBlocks, false) => "remoteIpBlocks",
            (Self::RemoteIpBlocks, true) => "notRemoteIpBlocks",
            (Self::Hosts, false) => "hosts",
            (Self::Hosts, true) => "notHosts",
            (Self::Ports, false) => "ports",
            (Self::Ports, true) => "notPorts",
            (Self::Methods, false) => "methods",
            (Self::Methods, true) => "notMethods",
            (Self::Paths, false) => "paths",
            (Self::Paths, true) => "notPaths",
        }
    }
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actual<'a> {
    Bytes(&'a [u8]),
    Ip(IpAddr),
    Port(u16),
    /// There is none: no peer certificate, or not HTTP.
    Absent,
}

impl fmt::Display for Actual<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "`{}`", bytes.escape_ascii()),
            Self::Ip(ip) => ip.fmt(f),
            Self::Port(port) => port.fmt(f),
            Self::Absent => f.write_str("absent"),
        }
    }
}
