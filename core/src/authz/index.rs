//! Finds the rules that could match, without asking the others.
//!
//! Each rule is filed under values of which the request must have one: those of the field that fewest rules share with it.
//! A rule that demands no such value is always asked. What is found is a superset of what matches: the index never decides.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::attributes::Attributes;
use super::matcher::{Text, Texts, compare_any_case};
use super::rule::{Alternative, Clause, Patterns, Rule};

/// The rules of one engine by what they demand. Lists hold positions of rules, ascending.
#[derive(Debug, Default)]
pub(super) struct Index {
    principals: Table,
    namespaces: Table,
    hosts: Table,
    methods: Table,
    ports: Vec<(u16, Vec<u32>)>,
    paths: Paths,
    source_blocks: Networks,
    remote_blocks: Networks,
    /// Rules that demand nothing that can be looked up.
    rest: Vec<u32>,
}

/// A value that a request must have for a rule filed under it to match. In order of worth, best first: of two fields that
/// equally many rules share, the earlier one is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'r> {
    Principal(&'r [u8]),
    Path(&'r [u8]),
    PathPrefix(&'r [u8]),
    /// A segment after a segment `ns` of the principal.
    Namespace(&'r str),
    /// In lower case.
    Host(&'r [u8]),
    SourceBlock(IpNet),
    RemoteBlock(IpNet),
    Port(u16),
    Method(&'r [u8]),
}

impl Index {
    /// `rules` in the order in which they are tried.
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut shared: BTreeMap<Key<'_>, u32> = BTreeMap::new();
        for rule in rules {
            let mut keys: Vec<_> = rule
                .alternatives()
                .flat_map(|alternative| &alternative.clauses)
                .filter_map(Clause::keys)
                .flatten()
                .collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                *shared.entry(key).or_default() += 1;
            }
        }

        let mut index = Self::default();
        let mut filed: BTreeMap<Key<'_>, Vec<u32>> = BTreeMap::new();
        for (position, rule) in (0..).zip(rules) {
            match best_keys(rule, &shared) {
                _ if rule.void.is_some() => {}
                None => index.rest.push(position),
                Some(keys) => {
                    for key in keys {
                        let list = filed.entry(key).or_default();
                        if list.last() != Some(&position) {
                            list.push(position);
                        }
                    }
                }
            }
        }
        index.file(filed);
        index
    }

    fn file(&mut self, filed: BTreeMap<Key<'_>, Vec<u32>>) {
        let mut paths: BTreeMap<&[u8], PathLists> = BTreeMap::new();
        for (key, list) in filed {
            match key {
                Key::Principal(text) => self.principals.push(text, list),
                Key::Namespace(text) => self.namespaces.push(text.as_bytes(), list),
                Key::Host(text) => self.hosts.push(text, list),
                Key::Method(text) => self.methods.push(text, list),
                Key::Port(port) => self.ports.push((port, list)),
                Key::Path(text) => paths.entry(text).or_default().exact = list,
                Key::PathPrefix(text) => paths.entry(text).or_default().prefix = list,
                Key::SourceBlock(block) => self.source_blocks.push(block, list),
                Key::RemoteBlock(block) => self.remote_blocks.push(block, list),
            }
        }
        for (text, lists) in paths {
            self.paths.push(text, lists);
        }
    }

    /// Gives `visit` lists of rules that hold, taken together, every rule that matches these attributes. A rule may stand
    /// in more than one.
    pub(super) fn candidates<'i>(
        &'i self,
        attributes: &Attributes<'_>,
        mut visit: impl FnMut(&'i [u32]),
    ) {
        if let Some(principal) = attributes.principal {
            if !self.principals.is_empty() {
                visit(self.principals.get(principal.as_bytes()));
            }
            if !self.namespaces.is_empty() {
                let mut segments = principal.split('/');
                let mut segment = segments.next();
                while let Some(key) = segment {
                    segment = segments.next();
                    if let ("ns", Some(namespace)) = (key, segment) {
                        visit(self.namespaces.get(namespace.as_bytes()));
                    }
                }
            }
        }
        if let Some(http) = &attributes.http {
            self.paths.candidates(http.path, &mut visit);
            if !self.hosts.is_empty() {
                visit(self.hosts.get_any_case(http.authority));
            }
            if !self.methods.is_empty() {
                visit(self.methods.get(http.method.as_bytes()));
            }
        }
        self.source_blocks
            .candidates(attributes.source_ip, &mut visit);
        self.remote_blocks
            .candidates(attributes.remote_ip, &mut visit);
        let port = attributes.destination_port;
        if let Ok(at) = self.ports.binary_search_by_key(&port, |(port, _)| *port) {
            visit(&self.ports[at].1);
        }
        visit(&self.rest);
    }
}

impl Rule {
    fn alternatives(&self) -> impl Iterator<Item = &Alternative> {
        self.sources.iter().chain(&self.operations)
    }
}

/// The keys of the half of the rule that is shared least; `None` if neither half demands anything.
fn best_keys<'r>(rule: &'r Rule, shared: &BTreeMap<Key<'r>, u32>) -> Option<Vec<Key<'r>>> {
    [&rule.sources, &rule.operations]
        .into_iter()
        .filter(|alternatives| !alternatives.is_empty())
        .filter_map(|alternatives| {
            // Every alternative may match by itself, so each has to be found by a key of its own.
            let mut cost = 0;
            let mut keys = Vec::new();
            for alternative in alternatives {
                let (alternative_cost, alternative_keys) = alternative
                    .clauses
                    .iter()
                    .filter_map(Clause::keys)
                    .map(|keys| (crowding(&keys, shared), keys))
                    .min()?;
                cost = cost.max(alternative_cost);
                keys.extend(alternative_keys);
            }
            keys.sort_unstable();
            keys.dedup();
            Some((cost, keys))
        })
        .min()
        .map(|(_, keys)| keys)
}

/// How many rules share the most crowded of these keys.
fn crowding(keys: &[Key<'_>], shared: &BTreeMap<Key<'_>, u32>) -> u32 {
    let counts = keys.iter().filter_map(|key| shared.get(key));
    counts.copied().max().unwrap_or(0)
}

impl Clause {
    /// Values of which the request must have one for this clause to hold; `None` if there are no such values.
    fn keys(&self) -> Option<Vec<Key<'_>>> {
        if self.negated {
            return None;
        }
        match &self.patterns {
            Patterns::Principals(texts) => exact(texts, Key::Principal),
            Patterns::Hosts(texts) => exact(texts, Key::Host),
            Patterns::Methods(texts) => exact(texts, Key::Method),
            Patterns::Ports(ports) => Some(ports.iter().map(|port| Key::Port(*port)).collect()),
            Patterns::Namespaces(namespaces) => namespaces
                .iter()
                .map(|namespace| namespace.segment().map(Key::Namespace))
                .collect(),
            Patterns::ServiceAccounts(accounts) => Some(
                accounts
                    .iter()
                    .map(|account| Key::Namespace(account.segment()))
                    .collect(),
            ),
            Patterns::Paths(texts, templates) => {
                let (exact, more) = texts.parts();
                let exact = exact.iter().map(|text| Some(Key::Path(text)));
                let more = more.iter().map(|text| match text {
                    Text::Prefix(prefix) => prefix_key(prefix),
                    Text::NonEmpty | Text::Present | Text::Exact(_) | Text::Suffix(_) => None,
                });
                let templates = templates.iter();
                let templates = templates.map(|template| prefix_key(template.literal_prefix()));
                exact.chain(more).chain(templates).collect()
            }
            Patterns::IpBlocks(blocks) => networks(blocks.as_slice(), Key::SourceBlock),
            Patterns::RemoteIpBlocks(blocks) => networks(blocks.as_slice(), Key::RemoteBlock),
            Patterns::TrustDomains(_) => None,
        }
    }
}

fn exact<'r>(texts: &'r Texts, key: fn(&'r [u8]) -> Key<'r>) -> Option<Vec<Key<'r>>> {
    let (exact, more) = texts.parts();
    let keys = exact.iter().map(|text| key(text));
    more.is_empty().then(|| keys.collect())
}

/// Every path has the first slash; to look for it finds nothing out.
fn prefix_key(prefix: &[u8]) -> Option<Key<'_>> {
    (prefix.len() > 1).then_some(Key::PathPrefix(prefix))
}

fn networks<'r>(blocks: &[IpNet], key: fn(IpNet) -> Key<'r>) -> Option<Vec<Key<'r>>> {
    let keys = blocks.iter().map(|block| {
        let narrows = block.prefix_len() > 0;
        narrows.then(|| key(*block))
    });
    keys.collect()
}

/// Texts, ascending, each with its rules. All texts lie in one piece of memory.
#[derive(Debug, Default)]
struct Table {
    texts: Vec<u8>,
    // INVARIANT: `end` ascends and does not exceed the length of `texts`; `push` is the only writer.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    end: usize,
    list: Vec<u32>,
}

impl Table {
    /// `text` must be greater than all before it.
    fn push(&mut self, text: &[u8], list: Vec<u32>) {
        self.texts.extend_from_slice(text);
        self.entries.push(Entry {
            end: self.texts.len(),
            list,
        });
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn text(&self, at: usize) -> &[u8] {
        let start = at
            .checked_sub(1)
            .map_or(0, |before| self.entries[before].end);
        &self.texts[start..self.entries[at].end]
    }

    /// How many texts `is_before` holds for; it must hold for the first ones only.
    fn partition(&self, is_before: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (0, self.entries.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(self.text(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn get(&self, text: &[u8]) -> &[u32] {
        let at = self.partition(|other| other < text);
        if at < self.entries.len() && self.text(at) == text {
            &self.entries[at].list
        } else {
            &[]
        }
    }

    /// As `get`, for texts that were lowered before they were filed.
    fn get_any_case(&self, text: &[u8]) -> &[u32] {
        let at = self.partition(|other| compare_any_case(other, text).is_lt());
        if at < self.entries.len() && self.text(at).eq_ignore_ascii_case(text) {
            &self.entries[at].list
        } else {
            &[]
        }
    }
}

/// Keys of which some begin others, ascending: the rules of each, and the longest other key that begins it.
///
/// The keys that begin a value are then the greatest key that does not exceed it, or those that begin that one.
#[derive(Debug, Default)]
struct Nested {
    lists: Vec<Vec<u32>>,
    parents: Vec<Option<usize>>,
}

impl Nested {
    /// `begins`: whether the key at this position begins the one that is added.
    fn push(&mut self, list: Vec<u32>, begins: impl Fn(usize) -> bool) {
        let last = self.parents.len().checked_sub(1);
        self.parents.push(self.nearest(last, begins));
        self.lists.push(list);
    }

    /// Of the key at `at` and those that begin it, the longest for which `begins` holds.
    fn nearest(&self, mut at: Option<usize>, begins: impl Fn(usize) -> bool) -> Option<usize> {
        while let Some(key) = at {
            if begins(key) {
                break;
            }
            at = self.parents[key];
        }
        at
    }

    /// Visits the rules of all keys that begin a value, given the greatest that does not exceed it.
    fn candidates<'i>(
        &'i self,
        greatest: Option<usize>,
        begins: impl Fn(usize) -> bool,
        visit: &mut impl FnMut(&'i [u32]),
    ) {
        let mut at = self.nearest(greatest, begins);
        while let Some(key) = at {
            visit(&self.lists[key]);
            at = self.parents[key];
        }
    }
}

/// Exact paths and prefixes in one table, so that one search finds both.
#[derive(Debug, Default)]
struct Paths {
    /// With the rules that demand exactly the text.
    texts: Table,
    /// With the rules for which it is a prefix.
    prefixes: Nested,
}

#[derive(Debug, Default)]
struct PathLists {
    exact: Vec<u32>,
    prefix: Vec<u32>,
}

impl Paths {
    /// `text` must be greater than all before it.
    fn push(&mut self, text: &[u8], PathLists { exact, prefix }: PathLists) {
        self.prefixes
            .push(prefix, |at| text.starts_with(self.texts.text(at)));
        self.texts.push(text, exact);
    }

    fn candidates<'i>(&'i self, path: &[u8], visit: &mut impl FnMut(&'i [u32])) {
        let greatest = self.texts.partition(|other| other <= path).checked_sub(1);
        if let Some(at) = greatest
            && self.texts.text(at) == path
        {
            visit(&self.texts.entries[at].list);
        }
        let begins = |at| path.starts_with(self.texts.text(at));
        self.prefixes.candidates(greatest, begins, visit);
    }
}

/// Networks, ascending, so that a wider one stands before those in it.
#[derive(Debug, Default)]
struct Networks {
    blocks: Vec<IpNet>,
    nested: Nested,
}

impl Networks {
    /// `block` must be greater than all before it.
    fn push(&mut self, block: IpNet, list: Vec<u32>) {
        self.nested
            .push(list, |at| self.blocks[at].contains(&block));
        self.blocks.push(block);
    }

    fn candidates<'i>(&'i self, ip: IpAddr, visit: &mut impl FnMut(&'i [u32])) {
        let address = IpNet::from(ip);
        let behind = self.blocks.partition_point(|block| *block <= address);
        let begins = |at: usize| self.blocks[at].contains(&ip);
        self.nested.candidates(behind.checked_sub(1), begins, visit);
    }
}

#[cfg(test)]
mod tests;
