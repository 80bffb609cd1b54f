//! What a rule demands of a request, as keys to file it under.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::authz::header::Name;
use crate::authz::matcher::{self, Segment, Text};
use crate::authz::rule::{Alternative, Clause, Patterns, Rule};
use crate::authz::sets::{Blocks, Texts};

/// A value that a request must have for a rule filed under it to match. In order of worth, best first: of two fields that
/// equally many rules share, the earlier one is taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key<'r> {
    Text(Form, Slot<'r>, Cow<'r, [u8]>),
    Block(Side, IpNet),
    Port(u16),
    /// It is there.
    Any(Slot<'r>),
}

/// How the value of a slot must stand to a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    Exact,
    Prefix,
    /// The text is turned round.
    Suffix,
}

/// Where a value is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot<'r> {
    Principal,
    /// `ns/sa` of the principal.
    Account,
    /// `iss/sub` of the token.
    RequestPrincipal,
    Path,
    Claim(&'r [String]),
    Header(&'r Name),
    Subject,
    ServerName,
    /// In lower case.
    Host,
    Authority,
    /// A segment after a segment `ns` of the principal.
    Namespace,
    Issuer,
    Method,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Source,
    Remote,
    Destination,
}

/// The ways in which one rule can be filed.
#[derive(Debug)]
pub(super) struct Offer<'r> {
    /// For each part of the rule that can be looked up, its alternatives, and for each of these its clauses.
    parts: Vec<Vec<Vec<Keys<'r>>>>,
}

/// Of which the request must have one.
type Keys<'r> = Vec<Key<'r>>;

impl<'r> Offer<'r> {
    /// `above`: keys that the request is known to have, so that clauses with one of them find out nothing more. Fields with
    /// more values than `limit` are left out.
    pub(super) fn new(rule: &'r Rule, above: &[Key<'r>], limit: usize) -> Self {
        let parts = rule.parts().into_iter().filter_map(|(_, alternatives)| {
            if alternatives.is_empty() || alternatives.len() > limit {
                return None;
            }
            // Every alternative may match by itself, so each has to be found by a key of its own.
            let mut room = limit;
            alternatives
                .iter()
                .map(|alternative| {
                    let clauses = clauses(alternative, above, room);
                    let most = clauses.iter().map(Vec::len).max()?;
                    room = room.saturating_sub(most);
                    Some(clauses)
                })
                .collect()
        });
        Self {
            parts: parts.collect(),
        }
    }

    /// All keys, each once.
    pub(super) fn keys(&self) -> Keys<'r> {
        let clauses = self.parts.iter().flatten().flatten();
        let mut keys: Vec<_> = clauses.flatten().cloned().collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The keys of the part of the rule that is shared least, each once; `None` if no part demands anything.
    pub(super) fn best(self, shared: &BTreeMap<Key<'r>, u32>) -> Option<Keys<'r>> {
        let ways = self.parts.into_iter().map(|alternatives| {
            let mut cost = 0;
            let mut keys = Vec::new();
            for clauses in alternatives {
                let ways = clauses
                    .into_iter()
                    .map(|keys| (crowding(&keys, shared), keys));
                if let Some((way_cost, way_keys)) = ways.min() {
                    cost = cost.max(way_cost);
                    keys.extend(way_keys);
                }
            }
            keys.sort_unstable();
            keys.dedup();
            (cost, keys)
        });
        ways.min().map(|(_, keys)| keys)
    }
}

/// How many rules share the most crowded of these keys.
fn crowding(keys: &[Key<'_>], shared: &BTreeMap<Key<'_>, u32>) -> u32 {
    let counts = keys.iter().filter_map(|key| shared.get(key));
    counts.copied().max().unwrap_or(0)
}

fn clauses<'r>(alternative: &'r Alternative, above: &[Key<'r>], room: usize) -> Vec<Keys<'r>> {
    let fits = |clause: &&Clause| !clause.negated && clause.patterns.len() <= room;
    let clauses = alternative.clauses.iter().filter(fits);
    clauses
        .filter_map(|clause| clause.patterns.keys())
        .filter(|keys| !keys.iter().any(|key| above.contains(key)))
        .collect()
}

impl Patterns {
    fn len(&self) -> usize {
        match self {
            Self::Principals(texts)
            | Self::Hosts(texts)
            | Self::Authorities(texts)
            | Self::Methods(texts)
            | Self::ServerNames(texts)
            | Self::Headers(_, texts)
            | Self::Claims(_, texts) => texts.len(),
            Self::Paths(texts, templates) => texts.len() + templates.len(),
            Self::RequestPrincipals(principals) => principals.len(),
            Self::Namespaces(namespaces) => namespaces.len(),
            Self::ServiceAccounts(accounts) => accounts.len(),
            Self::TrustDomains(domains) => domains.len(),
            Self::Ports(ports) => ports.len(),
            Self::IpBlocks(blocks)
            | Self::RemoteIpBlocks(blocks)
            | Self::DestinationIpBlocks(blocks) => blocks.as_slice().len(),
            Self::Nothing => 0,
        }
    }

    /// Values of which the request must have one for a pattern to match; `None` if there are no such values.
    fn keys(&self) -> Option<Keys<'_>> {
        match self {
            Self::Principals(texts) => of_texts(Slot::Principal, texts),
            Self::ServerNames(texts) => of_texts(Slot::ServerName, texts),
            Self::Headers(name, texts) => of_texts(Slot::Header(name), texts),
            Self::Claims(path, texts) => of_texts(Slot::Claim(path), texts),
            Self::Hosts(texts) => of_texts(Slot::Host, texts),
            Self::Authorities(texts) => of_texts(Slot::Authority, texts),
            Self::Methods(texts) => of_texts(Slot::Method, texts),
            Self::Ports(ports) => Some(ports.iter().map(|port| Key::Port(*port)).collect()),
            Self::RequestPrincipals(principals) => {
                let exact = principals.exact();
                let exact = exact
                    .map(|(issuer, subject)| together(Slot::RequestPrincipal, issuer, subject));
                let more = principals.more().iter().map(of_request_principal);
                Some(exact.chain(more).collect())
            }
            Self::Namespaces(namespaces) => Some(namespaces.segments().map(of_segment).collect()),
            Self::ServiceAccounts(accounts) => {
                let keys = accounts.iter().map(|account| {
                    let (namespace, name) = account.segments();
                    together(Slot::Account, namespace.as_bytes(), name.as_bytes())
                });
                Some(keys.collect())
            }
            Self::TrustDomains(domains) => Some(domains.iter().map(of_trust_domain).collect()),
            Self::Paths(texts, templates) => {
                let templates = templates.iter().map(|template| template.literal_prefix());
                let templates = templates.map(|prefix| text(Form::Prefix, Slot::Path, prefix));
                let mut keys = of_texts(Slot::Path, texts)?;
                keys.extend(templates);
                // Every path has the first slash; to look for it finds nothing out.
                let narrows = |key: &Key<'_>| match key {
                    Key::Text(Form::Prefix, _, prefix) => prefix.len() > 1,
                    Key::Text(..) | Key::Block(..) | Key::Port(_) | Key::Any(_) => true,
                };
                keys.iter().all(narrows).then_some(keys)
            }
            Self::IpBlocks(blocks) => of_blocks(Side::Source, blocks),
            Self::RemoteIpBlocks(blocks) => of_blocks(Side::Remote, blocks),
            Self::DestinationIpBlocks(blocks) => of_blocks(Side::Destination, blocks),
            // Nothing has it, so the rule need not be found.
            Self::Nothing => Some(Vec::new()),
        }
    }
}

fn text<'r>(form: Form, slot: Slot<'r>, text: &'r [u8]) -> Key<'r> {
    Key::Text(form, slot, Cow::Borrowed(text))
}

/// `None`: one of the texts asks for no more than every request of HTTP has.
fn of_texts<'r>(slot: Slot<'r>, texts: &'r Texts) -> Option<Keys<'r>> {
    let always = [Slot::Path, Slot::Host, Slot::Authority, Slot::Method].contains(&slot);
    if texts.has_star() && always {
        return None;
    }
    let exact = texts.exact().map(|exact| text(Form::Exact, slot, exact));
    let prefixes = texts
        .prefixes()
        .map(|prefix| text(Form::Prefix, slot, prefix));
    let suffixes = texts
        .suffixes()
        .map(|suffix| text(Form::Suffix, slot, suffix));
    let star = texts.has_star().then_some(Key::Any(slot));
    Some(exact.chain(prefixes).chain(suffixes).chain(star).collect())
}

fn of_text<'r>(slot: Slot<'r>, pattern: &'r Text) -> Key<'r> {
    match pattern {
        Text::NonEmpty | Text::Present => Key::Any(slot),
        Text::Exact(exact) => text(Form::Exact, slot, exact),
        Text::Prefix(prefix) => text(Form::Prefix, slot, prefix),
        Text::Suffix(suffix) => {
            let reversed = suffix.iter().rev().copied().collect();
            Key::Text(Form::Suffix, slot, Cow::Owned(reversed))
        }
    }
}

/// Of one with a star.
fn of_request_principal(pattern: &matcher::RequestPrincipal) -> Key<'_> {
    match pattern.parts() {
        (Text::NonEmpty | Text::Present, Text::NonEmpty | Text::Present) => {
            Key::Any(Slot::RequestPrincipal)
        }
        (issuer, Text::NonEmpty | Text::Present) => of_text(Slot::Issuer, issuer),
        (Text::Exact(issuer), _) => text(Form::Exact, Slot::Issuer, issuer),
        (_, subject) => of_text(Slot::Subject, subject),
    }
}

fn of_segment(segment: Segment<'_>) -> Key<'_> {
    match segment {
        Segment::Is(name) => text(Form::Exact, Slot::Namespace, name.as_bytes()),
        Segment::Begins("") => Key::Any(Slot::Namespace),
        Segment::Begins(begin) => text(Form::Prefix, Slot::Namespace, begin.as_bytes()),
    }
}

/// A trust domain stands at the front of the principal.
fn of_trust_domain(pattern: &matcher::TrustDomain) -> Key<'_> {
    match pattern.text() {
        Text::Exact(domain) | Text::Prefix(domain) => text(Form::Prefix, Slot::Principal, domain),
        Text::NonEmpty | Text::Present | Text::Suffix(_) => Key::Any(Slot::Principal),
    }
}

fn together<'r>(slot: Slot<'r>, first: &[u8], second: &[u8]) -> Key<'r> {
    let whole = [first, b"/", second].concat();
    Key::Text(Form::Exact, slot, Cow::Owned(whole))
}

/// `None`: one of the blocks holds every address of its family.
fn of_blocks<'r>(side: Side, blocks: &Blocks) -> Option<Keys<'r>> {
    let blocks = blocks.as_slice();
    let narrow = blocks.iter().all(|block| block.prefix_len() > 0);
    narrow.then(|| {
        let keys = blocks.iter().map(|block| Key::Block(side, *block));
        keys.collect()
    })
}
