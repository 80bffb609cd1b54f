//! Hearing how a decision comes about.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use serde_json::Value;

use super::evaluate::Decision;
use super::header::Lines;
use super::id::PolicyId;
use crate::api::authorization_policy::Action;
use crate::authn::Claims;

/// Hears an evaluation, in its order: engine, rule, alternative, comparisons, outcome.
///
/// `()` hears nothing and costs nothing. A listener cannot change a decision, only what is looked at: see `EVERYTHING`.
pub trait Listener {
    /// Have every rule of every engine asked and every field compared, also where the answer is known already.
    const EVERYTHING: bool;

    /// It is spoken to. Where it is not, nothing is made ready for it either.
    const HEARS: bool = true;

    /// The rules of this action are asked now.
    fn engine(&mut self, _action: Action) {}

    /// This rule is asked now.
    fn rule(&mut self, _id: &PolicyId) {}

    /// The rule matches nothing, for this reason.
    fn void(&mut self, _reason: &str) {}

    /// One of the alternatives of a part is asked now.
    fn alternative(&mut self, _part: Part) {}

    fn comparison(&mut self, _comparison: &Comparison<'_>) {}

    /// The answer of the rule that was asked last.
    fn outcome(&mut self, _matched: bool) {}

    fn decision(&mut self, _decision: &Decision<'_>) {}
}

impl Listener for () {
    const EVERYTHING: bool = false;
    const HEARS: bool = false;
}

/// Speaks to a listener of this type, if it hears. A build with `--cfg unheard` has none of this: it shows what the calls
/// cost where nobody listens.
macro_rules! tell {
    ($type:ident, $listener:ident.$what:ident($($heard:expr),*)) => {
        if cfg!(not(unheard)) && $type::HEARS {
            $listener.$what($($heard),*);
        }
    };
}
pub(super) use tell;

/// A part of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    From,
    To,
    /// It has one alternative: every condition.
    When,
}

/// One field of a policy held against one attribute.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    pub field: Field,
    /// The key of a condition; `None` for the fields of `from` and `to`.
    pub key: Option<&'a str>,
    /// It is the `not…` form.
    pub negated: bool,
    /// As written, trust-domain aliases not yet expanded.
    pub patterns: &'a [String],
    pub actual: Actual<'a>,
    /// Whether the field as a whole is satisfied, negation included.
    pub matched: bool,
}

/// A field of a source or of an operation, or a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    Principals,
    RequestPrincipals,
    Namespaces,
    ServiceAccounts,
    TrustDomains,
    IpBlocks,
    RemoteIpBlocks,
    Hosts,
    Ports,
    Methods,
    Paths,
    /// `values` or `notValues` of a condition.
    When,
}

impl Field {
    /// As Istio spells it.
    pub fn name(self, negated: bool) -> &'static str {
        match (self, negated) {
            (Self::Principals, false) => "principals",
            (Self::Principals, true) => "notPrincipals",
            (Self::RequestPrincipals, false) => "requestPrincipals",
            (Self::RequestPrincipals, true) => "notRequestPrincipals",
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
            (Self::When, false) => "values",
            (Self::When, true) => "notValues",
        }
    }
}

/// The value of an attribute. `Display` looks it up, so that to name it costs nothing.
///
/// Credentials among header lines are shown by their length; `Debug` shows no header line and no claim at all.
#[derive(Clone, Copy, Debug)]
pub enum Actual<'a> {
    Bytes(&'a [u8]),
    Ip(IpAddr),
    Port(u16),
    /// The lines of one header, perhaps none.
    Lines(Lines<'a>),
    /// `iss` and `sub`, where both are texts.
    RequestPrincipal(&'a Claims),
    /// The claim at this path, where there is one.
    Claim(&'a Claims, &'a [String]),
    /// There is none: no peer certificate, no verified token, no server name, or not HTTP.
    Absent,
}

impl fmt::Display for Actual<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "`{}`", bytes.escape_ascii()),
            Self::Ip(ip) => ip.fmt(f),
            Self::Port(port) => port.fmt(f),
            Self::Lines(lines) => lines.fmt(f),
            Self::RequestPrincipal(claims) => match claims.principal() {
                Some((issuer, subject)) => {
                    write!(f, "`{}/{}`", Visible(issuer), Visible(subject))
                }
                None => f.write_str("absent"),
            },
            Self::Claim(claims, path) => match claims.get(path) {
                Some(Value::String(text)) => write!(f, "`{}`", Visible(text)),
                Some(Value::Object(_)) => f.write_str("an object"),
                Some(value) => write!(f, "`{}`", Visible(&value.to_string())),
                None => f.write_str("absent"),
            },
            Self::Absent => f.write_str("absent"),
        }
    }
}

/// A text on one line of a terminal, whatever is in it.
struct Visible<'a>(&'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            if char.is_control() {
                write!(f, "{}", char.escape_debug())?;
            } else {
                f.write_char(char)?;
            }
        }
        Ok(())
    }
}
