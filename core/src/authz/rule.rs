//! The compiled form of one rule, and what it says of a request (S-114, S-115).

use super::attributes::Attributes;
use super::id::PolicyId;
use super::listener::{Actual, Comparison, Field, Listener, Part};
use super::matcher::{Blocks, Namespace, ServiceAccount, Texts, TrustDomain};
use super::template::Template;

/// Any of `sources` (or none given) and any of `operations` (or none given).
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: PolicyId,
    /// Why the rule matches nothing; such a rule has neither sources nor operations.
    pub(super) void: Option<String>,
    pub(super) sources: Vec<Alternative>,
    pub(super) operations: Vec<Alternative>,
}

/// One item of `from` or `to`: all of its clauses.
#[derive(Debug, Default)]
pub(super) struct Alternative {
    pub(super) clauses: Vec<Clause>,
}

/// One field: any of its patterns, or, negated, none of them.
#[derive(Debug)]
pub(super) struct Clause {
    pub(super) patterns: Patterns,
    pub(super) negated: bool,
    /// As written, for those who listen.
    pub(super) written: Box<[String]>,
}

#[derive(Debug)]
pub(super) enum Patterns {
    Principals(Texts),
    Namespaces(Vec<Namespace>),
    ServiceAccounts(Vec<ServiceAccount>),
    TrustDomains(Vec<TrustDomain>),
    IpBlocks(Blocks),
    RemoteIpBlocks(Blocks),
    Hosts(Texts),
    /// Ascending.
    Ports(Vec<u16>),
    Methods(Texts),
    Paths(Texts, Vec<Template>),
}

impl Rule {
    pub(super) fn matches<L: Listener>(
        &self,
        attributes: &Attributes<'_>,
        listener: &mut L,
    ) -> bool {
        listener.rule(&self.id);
        let matched = if let Some(reason) = &self.void {
            listener.void(reason);
            false
        } else {
            let from = any(Part::From, &self.sources, attributes, listener);
            if from || L::EVERYTHING {
                let to = any(Part::To, &self.operations, attributes, listener);
                from && to
            } else {
                false
            }
        };
        listener.outcome(matched);
        matched
    }
}

fn any<L: Listener>(
    part: Part,
    alternatives: &[Alternative],
    attributes: &Attributes<'_>,
    listener: &mut L,
) -> bool {
    let mut matched = alternatives.is_empty();
    for alternative in alternatives {
        listener.alternative(part);
        matched |= alternative.matches(attributes, listener);
        if matched && !L::EVERYTHING {
            break;
        }
    }
    matched
}

impl Alternative {
    fn matches<L: Listener>(&self, attributes: &Attributes<'_>, listener: &mut L) -> bool {
        let mut matched = true;
        for clause in &self.clauses {
            matched &= clause.matches(attributes, listener);
            if !matched && !L::EVERYTHING {
                break;
            }
        }
        matched
    }
}

impl Clause {
    fn matches<L: Listener>(&self, attributes: &Attributes<'_>, listener: &mut L) -> bool {
        let matched = self.patterns.any_matches(attributes) != self.negated;
        listener.comparison(&Comparison {
            field: self.patterns.field(),
            negated: self.negated,
            patterns: &self.written,
            actual: self.patterns.actual(attributes),
            matched,
        });
        matched
    }
}

impl Patterns {
    /// False where the attribute is absent, so that negated forms are true there (S-126).
    fn any_matches(&self, attributes: &Attributes<'_>) -> bool {
        let http = attributes.http.as_ref();
        match self {
            Self::Principals(texts) => attributes
                .principal
                .is_some_and(|principal| texts.matches(principal.as_bytes())),
            Self::Namespaces(namespaces) => attributes
                .principal
                .is_some_and(|principal| namespaces.iter().any(|n| n.matches(principal))),
            Self::ServiceAccounts(accounts) => attributes
                .principal
                .is_some_and(|principal| accounts.iter().any(|a| a.matches(principal))),
            Self::TrustDomains(domains) => attributes
                .principal
                .is_some_and(|principal| domains.iter().any(|d| d.matches(principal))),
            Self::IpBlocks(blocks) => blocks.hold(attributes.source_ip),
            Self::RemoteIpBlocks(blocks) => blocks.hold(attributes.remote_ip),
            Self::Hosts(texts) => http.is_some_and(|http| texts.matches_any_case(http.authority)),
            Self::Ports(ports) => ports.binary_search(&attributes.destination_port).is_ok(),
            Self::Methods(texts) => http.is_some_and(|http| texts.matches(http.method.as_bytes())),
            Self::Paths(texts, templates) => http.is_some_and(|http| {
                texts.matches(http.path)
                    || templates.iter().any(|template| template.matches(http.path))
            }),
        }
    }

    fn actual<'a>(&self, attributes: &Attributes<'a>) -> Actual<'a> {
        let http = attributes.http;
        match self {
            Self::Principals(_)
            | Self::Namespaces(_)
            | Self::ServiceAccounts(_)
            | Self::TrustDomains(_) => attributes
                .principal
                .map_or(Actual::Absent, |text| Actual::Bytes(text.as_bytes())),
            Self::IpBlocks(_) => Actual::Ip(attributes.source_ip),
            Self::RemoteIpBlocks(_) => Actual::Ip(attributes.remote_ip),
            Self::Ports(_) => Actual::Port(attributes.destination_port),
            Self::Hosts(_) => http.map_or(Actual::Absent, |http| Actual::Bytes(http.authority)),
            Self::Methods(_) => {
                http.map_or(Actual::Absent, |http| Actual::Bytes(http.method.as_bytes()))
            }
            Self::Paths(..) => http.map_or(Actual::Absent, |http| Actual::Bytes(http.path)),
        }
    }

    fn field(&self) -> Field {
        match self {
            Self::Principals(_) => Field::Principals,
            Self::Namespaces(_) => Field::Namespaces,
            Self::ServiceAccounts(_) => Field::ServiceAccounts,
            Self::TrustDomains(_) => Field::TrustDomains,
            Self::IpBlocks(_) => Field::IpBlocks,
            Self::RemoteIpBlocks(_) => Field::RemoteIpBlocks,
            Self::Hosts(_) => Field::Hosts,
            Self::Ports(_) => Field::Ports,
            Self::Methods(_) => Field::Methods,
            Self::Paths(..) => Field::Paths,
        }
    }
}
