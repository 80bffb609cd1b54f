//! The compiled form of one rule, and what it says of a request (S-114, S-115, S-143 to S-153).

use super::attributes::{Attributes, HttpAttributes};
use super::header::{Lines, Name};
use super::id::PolicyId;
use super::listener::{Actual, Comparison, Field, Listener, Part, tell};
use super::matcher::{ServiceAccount, TrustDomain};
use super::sets::{Blocks, Namespaces, RequestPrincipals, Texts};
use super::template::Template;
use crate::authn::Claims;

/// Any of `sources` (or none given), any of `operations` (or none given), and the conditions.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: PolicyId,
    /// Why the rule matches nothing; such a rule has no more to say.
    pub(super) void: Option<String>,
    pub(super) sources: Vec<Alternative>,
    pub(super) operations: Vec<Alternative>,
    /// `when`, which has one alternative; `None`: there are no conditions.
    pub(super) conditions: Option<Alternative>,
}

/// One item of `from` or `to`, or all of `when`: every clause.
#[derive(Debug, Default)]
pub(super) struct Alternative {
    pub(super) clauses: Vec<Clause>,
}

/// One field, or one list of a condition: any of its patterns, or, negated, none of them.
#[derive(Debug)]
pub(super) struct Clause {
    pub(super) patterns: Patterns,
    pub(super) negated: bool,
    /// Of a condition, as written.
    pub(super) key: Option<Box<str>>,
    /// As written, for those who listen.
    pub(super) written: Box<[String]>,
}

#[derive(Debug)]
pub(super) enum Patterns {
    Principals(Texts),
    RequestPrincipals(RequestPrincipals),
    Namespaces(Namespaces),
    ServiceAccounts(Vec<ServiceAccount>),
    TrustDomains(Vec<TrustDomain>),
    IpBlocks(Blocks),
    RemoteIpBlocks(Blocks),
    DestinationIpBlocks(Blocks),
    ServerNames(Texts),
    /// In any case (S-125).
    Hosts(Texts),
    /// The same value in its own case.
    Authorities(Texts),
    /// Ascending.
    Ports(Vec<u16>),
    Methods(Texts),
    Paths(Texts, Vec<Template>),
    Headers(Name, Texts),
    /// With the path of the claim.
    Claims(Box<[String]>, Texts),
    /// Metadata, which nobody writes here (S-153).
    Nothing,
}

impl Rule {
    pub(super) fn matches<L: Listener>(
        &self,
        attributes: &Attributes<'_>,
        listener: &mut L,
    ) -> bool {
        tell!(L, listener.rule(&self.id));
        let matched = if let Some(reason) = &self.void {
            tell!(L, listener.void(reason));
            false
        } else {
            let mut matched = true;
            for (part, alternatives) in self.parts() {
                matched &= any(part, alternatives, attributes, listener);
                if !matched && !L::EVERYTHING {
                    break;
                }
            }
            matched
        };
        tell!(L, listener.outcome(matched));
        matched
    }

    /// What has to hold: of each part one alternative, if it has any.
    pub(super) fn parts(&self) -> [(Part, &[Alternative]); 3] {
        [
            (Part::From, &self.sources),
            (Part::To, &self.operations),
            (Part::When, self.conditions.as_slice()),
        ]
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
        tell!(L, listener.alternative(part));
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
        tell!(
            L,
            listener.comparison(&Comparison {
                field: match self.key {
                    Some(_) => Field::When,
                    None => self.patterns.field(),
                },
                key: self.key.as_deref(),
                negated: self.negated,
                patterns: &self.written,
                actual: self.patterns.actual(attributes),
                matched,
            })
        );
        matched
    }
}

impl Patterns {
    /// False where the attribute is absent, so that negated forms are true there (S-126, S-133, S-144).
    fn any_matches(&self, attributes: &Attributes<'_>) -> bool {
        let http = attributes.http.as_ref();
        let claims = || http.and_then(|http| http.claims);
        match self {
            Self::Principals(texts) => attributes
                .principal
                .is_some_and(|principal| texts.matches(principal.as_bytes())),
            Self::RequestPrincipals(principals) => claims()
                .and_then(Claims::principal)
                .is_some_and(|(issuer, subject)| principals.matches(issuer, subject)),
            Self::Namespaces(namespaces) => attributes
                .principal
                .is_some_and(|principal| namespaces.matches(principal)),
            Self::ServiceAccounts(accounts) => attributes
                .principal
                .is_some_and(|principal| accounts.iter().any(|a| a.matches(principal))),
            Self::TrustDomains(domains) => attributes
                .principal
                .is_some_and(|principal| domains.iter().any(|d| d.matches(principal))),
            Self::IpBlocks(blocks) => blocks.hold(attributes.source_ip),
            Self::RemoteIpBlocks(blocks) => blocks.hold(attributes.remote_ip),
            Self::DestinationIpBlocks(blocks) => blocks.hold(attributes.destination_ip),
            Self::ServerNames(texts) => attributes
                .sni
                .is_some_and(|name| texts.matches(name.as_bytes())),
            Self::Hosts(texts) => http.is_some_and(|http| texts.matches_any_case(http.authority)),
            Self::Authorities(texts) => http.is_some_and(|http| texts.matches(http.authority)),
            Self::Ports(ports) => ports.binary_search(&attributes.destination_port).is_ok(),
            Self::Methods(texts) => http.is_some_and(|http| texts.matches(http.method.as_bytes())),
            Self::Paths(texts, templates) => http.is_some_and(|http| {
                texts.matches(http.path)
                    || templates.iter().any(|template| template.matches(http.path))
            }),
            Self::Headers(name, texts) => http.is_some_and(|http| name.matches(http.fields, texts)),
            Self::Claims(path, texts) => claims()
                .is_some_and(|claims| claims.any(path, |text| texts.matches(text.as_bytes()))),
            Self::Nothing => false,
        }
    }

    fn actual<'a>(&'a self, attributes: &Attributes<'a>) -> Actual<'a> {
        let http = attributes.http;
        let bytes = |bytes: fn(HttpAttributes<'a>) -> &'a [u8]| {
            http.map_or(Actual::Absent, |http| Actual::Bytes(bytes(http)))
        };
        let claims = || http.and_then(|http| http.claims);
        match self {
            Self::Principals(_)
            | Self::Namespaces(_)
            | Self::ServiceAccounts(_)
            | Self::TrustDomains(_) => attributes
                .principal
                .map_or(Actual::Absent, |text| Actual::Bytes(text.as_bytes())),
            Self::RequestPrincipals(_) => claims().map_or(Actual::Absent, Actual::RequestPrincipal),
            Self::IpBlocks(_) => Actual::Ip(attributes.source_ip),
            Self::RemoteIpBlocks(_) => Actual::Ip(attributes.remote_ip),
            Self::DestinationIpBlocks(_) => Actual::Ip(attributes.destination_ip),
            Self::Ports(_) => Actual::Port(attributes.destination_port),
            Self::ServerNames(_) => attributes
                .sni
                .map_or(Actual::Absent, |text| Actual::Bytes(text.as_bytes())),
            Self::Hosts(_) | Self::Authorities(_) => bytes(|http| http.authority),
            Self::Methods(_) => bytes(|http| http.method.as_bytes()),
            Self::Paths(..) => bytes(|http| http.path),
            Self::Headers(name, _) => http.map_or(Actual::Absent, |http| {
                Actual::Lines(Lines::new(name, http.fields))
            }),
            Self::Claims(path, _) => {
                claims().map_or(Actual::Absent, |claims| Actual::Claim(claims, path))
            }
            Self::Nothing => Actual::Absent,
        }
    }

    fn field(&self) -> Field {
        match self {
            Self::Principals(_) => Field::Principals,
            Self::RequestPrincipals(_) => Field::RequestPrincipals,
            Self::Namespaces(_) => Field::Namespaces,
            Self::ServiceAccounts(_) => Field::ServiceAccounts,
            Self::TrustDomains(_) => Field::TrustDomains,
            Self::IpBlocks(_) => Field::IpBlocks,
            Self::RemoteIpBlocks(_) => Field::RemoteIpBlocks,
            Self::Hosts(_) => Field::Hosts,
            Self::Ports(_) => Field::Ports,
            Self::Methods(_) => Field::Methods,
            Self::Paths(..) => Field::Paths,
            Self::DestinationIpBlocks(_)
            | Self::ServerNames(_)
            | Self::Authorities(_)
            | Self::Headers(..)
            | Self::Claims(..)
            | Self::Nothing => Field::When,
        }
    }
}
