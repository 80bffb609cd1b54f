//! Finds the rules that could match, without asking the others.
//!
//! Each rule is filed under values of which the request must have one: those of the field that fewest rules share with it.
//! Where many rules still share a value, they have an index of their own, by what else they demand. A rule that demands no
//! such value is always asked. What is found is a superset of what matches: the index never decides.

mod keys;
mod tables;

use std::collections::BTreeMap;
use std::net::IpAddr;

use self::keys::{Form, Key, Offer, Side, Slot};
use self::tables::{Begun, Bytes, List, Lists, Networks, Ports, Texts};
use super::attributes::{Attributes, HttpAttributes};
use super::header::{Name, is_seen};
use super::rule::Rule;
use super::sets::segments_after;
use crate::authn::Claims;

/// So many rules behind one key are worth an index of their own.
const CROWD: usize = 8;
/// Indexes in indexes: the fields of a rule that are looked up one after the other.
const DEPTH: usize = 3;
/// Keys that one rule may be filed under in an inner index. A rule is in the inner index of each of its outer keys, so
/// without a bound a long list would be filed as often as it is long.
const INNER_KEYS: usize = 16;
/// Pairs of a namespace and a name that are looked up for one principal. All but made-up principals have one pair; where
/// there are more, every rule for a service account is asked.
const PAIRS: usize = 16;

/// The rules of one engine, or those behind one key, by what they demand.
#[derive(Debug, Default)]
pub(super) struct Index {
    texts: Vec<(Attribute, Texts)>,
    /// Ascending by name.
    headers: Vec<(Name, Texts)>,
    claims: ClaimNode,
    ports: Ports,
    source_blocks: Networks,
    remote_blocks: Networks,
    destination_blocks: Networks,
    /// Rules that demand nothing that can be looked up.
    rest: Vec<u32>,
}

/// A text that every request has once at most.
#[derive(Clone, Copy, Debug)]
enum Attribute {
    Principal,
    /// Of the principal: what follows a segment `ns`.
    Namespace,
    /// Of the principal: what follows a segment `ns`, a slash, and what follows a segment `sa`.
    Account,
    /// Of the token: `iss`, a slash, and `sub`.
    RequestPrincipal,
    Issuer,
    Subject,
    Path,
    Host,
    Authority,
    ServerName,
    Method,
}

/// The claims that rules ask for, as they lie in a token.
#[derive(Debug, Default)]
struct ClaimNode {
    /// From the top of the token.
    path: Vec<String>,
    texts: Option<Texts>,
    /// Ascending by name.
    children: Vec<(Box<str>, Self)>,
}

/// A search under way.
pub(super) struct Search<'s, V> {
    attributes: &'s Attributes<'s>,
    visit: V,
}

impl Index {
    /// `rules` in the order in which they are tried.
    pub(super) fn new(rules: &[Rule]) -> Self {
        let members: Vec<u32> = (0..).zip(rules).map(|(at, _)| at).collect();
        Self::of(rules, members, &mut Vec::new())
    }

    /// An index by which every rule is asked.
    pub(super) fn of_everything(rules: &[Rule]) -> Self {
        Self {
            rest: (0..).zip(rules).map(|(at, _)| at).collect(),
            ..Self::default()
        }
    }

    /// Of the rules at `members`, for requests that have each of the keys `above`.
    fn of<'r>(rules: &'r [Rule], members: Vec<u32>, above: &mut Vec<Key<'r>>) -> Self {
        let limit = if above.is_empty() {
            usize::MAX
        } else {
            INNER_KEYS
        };
        let mut offers: Vec<(u32, Offer<'r>)> = Vec::with_capacity(members.len());
        let mut shared: BTreeMap<Key<'r>, u32> = BTreeMap::new();
        for at in members {
            let rule = &rules[at as usize];
            if rule.void.is_some() {
                continue;
            }
            let offer = Offer::new(rule, above, limit);
            for key in offer.keys() {
                *shared.entry(key).or_default() += 1;
            }
            offers.push((at, offer));
        }

        let mut index = Self::default();
        let mut filed: BTreeMap<Key<'r>, List> = BTreeMap::new();
        for (at, offer) in offers {
            match offer.best(&shared) {
                None => index.rest.push(at),
                Some(keys) => {
                    for key in keys {
                        filed.entry(key).or_default().members.push(at);
                    }
                }
            }
        }
        if above.len() + 1 < DEPTH {
            for (key, list) in &mut filed {
                if list.members.len() < CROWD {
                    continue;
                }
                above.push(key.clone());
                let nested = Self::of(rules, list.members.clone(), above);
                above.pop();
                if nested.rest.len() * 2 <= list.members.len() {
                    list.nested = Some(Box::new(nested));
                }
            }
        }
        index.file(filed);
        index
    }

    fn file(&mut self, filed: BTreeMap<Key<'_>, List>) {
        let mut drafts: BTreeMap<Slot<'_>, Draft> = BTreeMap::new();
        for (key, list) in filed {
            match key {
                Key::Text(Form::Exact, slot, text) => {
                    let begun = &mut drafts.entry(slot).or_default().begun;
                    begun.entry(text.into_owned()).or_default().0 = list;
                }
                Key::Text(Form::Prefix, slot, text) => {
                    let begun = &mut drafts.entry(slot).or_default().begun;
                    begun.entry(text.into_owned()).or_default().1 = list;
                }
                Key::Text(Form::Suffix, slot, text) => {
                    let ended = &mut drafts.entry(slot).or_default().ended;
                    ended.insert(text.into_owned(), list);
                }
                Key::Any(slot) => drafts.entry(slot).or_default().any.push(list),
                Key::Port(port) => self.ports.push(port, list),
                Key::Block(Side::Source, block) => self.source_blocks.push(block, list),
                Key::Block(Side::Remote, block) => self.remote_blocks.push(block, list),
                Key::Block(Side::Destination, block) => {
                    self.destination_blocks.push(block, list);
                }
            }
        }
        for (slot, draft) in drafts {
            let texts = draft.finish();
            let attribute = match slot {
                Slot::Header(name) => {
                    self.headers.push((name.clone(), texts));
                    continue;
                }
                Slot::Claim(path) => {
                    self.claims.insert(path, texts);
                    continue;
                }
                Slot::Principal => Attribute::Principal,
                Slot::Namespace => Attribute::Namespace,
                Slot::Account => Attribute::Account,
                Slot::RequestPrincipal => Attribute::RequestPrincipal,
                Slot::Issuer => Attribute::Issuer,
                Slot::Subject => Attribute::Subject,
                Slot::Path => Attribute::Path,
                Slot::Host => Attribute::Host,
                Slot::Authority => Attribute::Authority,
                Slot::ServerName => Attribute::ServerName,
                Slot::Method => Attribute::Method,
            };
            self.texts.push((attribute, texts));
        }
    }

    /// Gives `visit` lists of rules that hold, taken together, every rule that matches these attributes. A list ascends; a
    /// rule may stand in more than one.
    pub(super) fn candidates<'i>(
        &'i self,
        attributes: &Attributes<'_>,
        visit: impl FnMut(&'i [u32]),
    ) {
        self.search(&mut Search { attributes, visit });
    }

    fn search<'i, V: FnMut(&'i [u32])>(&'i self, search: &mut Search<'_, V>) {
        let attributes = search.attributes;
        for (attribute, texts) in &self.texts {
            attribute.visit(texts, search);
        }
        if let Some(http) = &attributes.http {
            self.search_headers(http, search);
            if let Some(claims) = http.claims {
                self.claims.search(claims, claims.payload(), search);
            }
        }
        self.source_blocks.visit(attributes.source_ip, search);
        self.remote_blocks.visit(attributes.remote_ip, search);
        let destination: IpAddr = attributes.destination_ip;
        self.destination_blocks.visit(destination, search);
        self.ports.visit(attributes.destination_port, search);
        if !self.rest.is_empty() {
            (search.visit)(&self.rest);
        }
    }

    fn search_headers<'i, V: FnMut(&'i [u32])>(
        &'i self,
        http: &HttpAttributes<'_>,
        search: &mut Search<'_, V>,
    ) {
        if self.headers.is_empty() {
            return;
        }
        let fields = http.fields;
        for (at, field) in fields.iter().enumerate() {
            let found = self
                .headers
                .binary_search_by(|(name, _)| name.order_of(field.name));
            let Some((name, texts)) = found.ok().and_then(|at| self.headers.get(at)) else {
                continue;
            };
            if !is_seen(&field, fields) {
                continue;
            }
            match name.joined(fields) {
                None => texts.visit(field.value, search),
                // The lines are one value, which is looked up at the first of them.
                Some(whole) => {
                    let mut before = fields.iter().take(at);
                    if !before.any(|line| name.is_name_of(&line) && is_seen(&line, fields)) {
                        texts.visit_forwards(whole, search);
                    }
                }
            }
        }
    }
}

impl Attribute {
    fn visit<'i, V: FnMut(&'i [u32])>(self, texts: &'i Texts, search: &mut Search<'_, V>) {
        let attributes = search.attributes;
        let http = attributes.http.as_ref();
        match self {
            Self::Principal => {
                if let Some(principal) = attributes.principal {
                    texts.visit(principal.as_bytes(), search);
                }
            }
            Self::Namespace => {
                for namespace in attributes.principal.into_iter().flat_map(namespaces) {
                    texts.visit(namespace.as_bytes(), search);
                }
            }
            Self::Account => {
                let Some(principal) = attributes.principal else {
                    return;
                };
                let names = segments_after(principal, "sa");
                if namespaces(principal).count() * names.clone().count() > PAIRS {
                    texts.begun.visit_all(search);
                    return;
                }
                for namespace in namespaces(principal) {
                    for name in names.clone() {
                        let whole = put_together(namespace, name);
                        texts.begun.visit(&Bytes(whole), search);
                    }
                }
            }
            Self::RequestPrincipal => {
                if let Some((issuer, subject)) = principal_of(http) {
                    let whole = put_together(issuer, subject);
                    texts.begun.visit(&Bytes(whole), search);
                    texts.any.visit_all(search);
                }
            }
            Self::Issuer => {
                if let Some((issuer, _)) = principal_of(http) {
                    texts.visit(issuer.as_bytes(), search);
                }
            }
            Self::Subject => {
                if let Some((_, subject)) = principal_of(http) {
                    texts.visit(subject.as_bytes(), search);
                }
            }
            Self::Path => {
                if let Some(http) = http {
                    texts.visit(http.path, search);
                }
            }
            Self::Host => {
                if let Some(http) = http {
                    texts.visit_any_case(http.authority, search);
                }
            }
            Self::Authority => {
                if let Some(http) = http {
                    texts.visit(http.authority, search);
                }
            }
            Self::ServerName => {
                if let Some(name) = attributes.sni {
                    texts.visit(name.as_bytes(), search);
                }
            }
            Self::Method => {
                if let Some(http) = http {
                    texts.visit(http.method.as_bytes(), search);
                }
            }
        }
    }
}

fn namespaces(principal: &str) -> impl Iterator<Item = &str> + Clone {
    segments_after(principal, "ns")
}

fn principal_of<'a>(http: Option<&HttpAttributes<'a>>) -> Option<(&'a str, &'a str)> {
    http?.claims?.principal()
}

/// Two texts with a slash between them.
fn put_together<'t>(first: &'t str, second: &'t str) -> impl Iterator<Item = u8> + Clone + use<'t> {
    first.bytes().chain([b'/']).chain(second.bytes())
}

impl ClaimNode {
    /// Paths must come in ascending order, each once.
    fn insert(&mut self, path: &[String], texts: Texts) {
        let mut node = self;
        for (depth, name) in path.iter().enumerate() {
            if node.children.last().is_none_or(|(last, _)| **last != *name) {
                let child = Self {
                    path: path[..=depth].to_vec(),
                    ..Self::default()
                };
                node.children.push((name.as_str().into(), child));
            }
            let at = node.children.len() - 1;
            node = &mut node.children[at].1;
        }
        node.texts = Some(texts);
    }

    /// `object`: the one that this node stands for in the token.
    fn search<'i, V: FnMut(&'i [u32])>(
        &'i self,
        claims: &Claims,
        object: &serde_json::Map<String, serde_json::Value>,
        search: &mut Search<'_, V>,
    ) {
        if self.children.len() <= object.len() {
            for (name, child) in &self.children {
                if let Some(value) = object.get(&**name) {
                    child.found(claims, value, search);
                }
            }
        } else {
            for (name, value) in object {
                let found = self.children.binary_search_by(|(own, _)| (**own).cmp(name));
                if let Some((_, child)) = found.ok().and_then(|at| self.children.get(at)) {
                    child.found(claims, value, search);
                }
            }
        }
    }

    fn found<'i, V: FnMut(&'i [u32])>(
        &'i self,
        claims: &Claims,
        value: &serde_json::Value,
        search: &mut Search<'_, V>,
    ) {
        if let Some(texts) = &self.texts {
            claims.any(&self.path, |text| {
                texts.visit(text.as_bytes(), search);
                false
            });
        }
        if let (false, Some(object)) = (self.children.is_empty(), value.as_object()) {
            self.search(claims, object, search);
        }
    }
}

/// The lists of one text, while an index is made.
#[derive(Default)]
struct Draft {
    /// Those of rules that demand the text itself, and those of rules that demand it at the front.
    begun: BTreeMap<Vec<u8>, (List, List)>,
    ended: BTreeMap<Vec<u8>, List>,
    any: Lists,
}

impl Draft {
    fn finish(self) -> Texts {
        let begun = self.begun.into_iter();
        let ended = self.ended.into_iter();
        Texts {
            begun: Begun::new(begun.map(|(text, (exact, prefix))| (text, exact, prefix))),
            ended: Begun::new(ended.map(|(text, list)| (text, List::default(), list))),
            any: self.any,
        }
    }
}

#[cfg(test)]
mod tests;
