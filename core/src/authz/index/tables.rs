//! Ordered tables of texts and networks, and the lists of rules that stand behind their entries.

use std::cmp::Ordering;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Index, Search};

/// The rules behind one key, while an index is made.
#[derive(Debug, Default)]
pub(super) struct List {
    /// Positions of rules, ascending.
    pub(super) members: Vec<u32>,
    /// The way to find the right one of many.
    pub(super) nested: Option<Box<Index>>,
}

/// The rules of many keys, in the order of the keys. All positions lie in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Lists {
    members: Vec<u32>,
    // INVARIANT: `ends` ascend and do not exceed the length of `members`; `push` is the only writer.
    ends: Vec<u32>,
    /// Shorter than `ends` where the last keys have none.
    nested: Vec<Option<Box<Index>>>,
}

impl Lists {
    pub(super) fn push(&mut self, list: List) {
        if let Some(nested) = list.nested {
            self.nested.resize_with(self.ends.len(), || None);
            self.nested.push(Some(nested));
        } else {
            self.members.extend(list.members);
        }
        self.ends.push(self.members.len() as u32);
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The rules of the key at `at`.
    pub(super) fn visit<'i, V: FnMut(&'i [u32])>(&'i self, at: usize, search: &mut Search<'_, V>) {
        if let Some(Some(nested)) = self.nested.get(at) {
            nested.search(search);
            return;
        }
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        let members = &self.members[start as usize..self.ends[at] as usize];
        if !members.is_empty() {
            (search.visit)(members);
        }
    }

    pub(super) fn visit_all<'i, V: FnMut(&'i [u32])>(&'i self, search: &mut Search<'_, V>) {
        for at in 0..self.len() {
            self.visit(at, search);
        }
    }
}

/// A value that is searched for.
pub(super) trait Value {
    /// How `text` stands to the value.
    fn order_of(&self, text: &[u8]) -> Ordering;

    fn begins_with(&self, text: &[u8]) -> bool;
}

/// A value that lies in one piece.
#[derive(Clone, Copy)]
pub(super) struct Whole<'v>(pub(super) &'v [u8]);

impl Value for Whole<'_> {
    fn order_of(&self, text: &[u8]) -> Ordering {
        text.cmp(self.0)
    }

    fn begins_with(&self, text: &[u8]) -> bool {
        self.0.starts_with(text)
    }
}

/// A value that comes byte by byte: turned round, put together, or in lower case.
#[derive(Clone)]
pub(super) struct Bytes<I>(pub(super) I);

impl<I: Iterator<Item = u8> + Clone> Value for Bytes<I> {
    fn order_of(&self, text: &[u8]) -> Ordering {
        text.iter().copied().cmp(self.0.clone())
    }

    fn begins_with(&self, text: &[u8]) -> bool {
        let mut value = self.0.clone();
        text.iter().all(|byte| value.next() == Some(*byte))
    }
}

/// Keys of which some begin others, ascending: the rules of each, and the longest other key that begins it.
///
/// The keys that begin a value are then the greatest key that does not exceed it, or those that begin that one.
#[derive(Debug, Default)]
struct Nested {
    lists: Lists,
    parents: Vec<Option<u32>>,
}

impl Nested {
    /// `begins`: whether the key at this position begins the one that is added.
    fn push(&mut self, list: List, begins: impl Fn(usize) -> bool) {
        let last = self.parents.len().checked_sub(1);
        let parent = self.nearest(last, begins);
        self.parents.push(parent.map(|at| at as u32));
        self.lists.push(list);
    }

    /// Of the key at `at` and those that begin it, the longest for which `begins` holds.
    fn nearest(&self, mut at: Option<usize>, begins: impl Fn(usize) -> bool) -> Option<usize> {
        while let Some(key) = at {
            if begins(key) {
                break;
            }
            at = self.parent(key);
        }
        at
    }

    fn parent(&self, at: usize) -> Option<usize> {
        self.parents[at].map(|parent| parent as usize)
    }

    /// Visits the rules of all keys that begin a value, given the greatest that does not exceed it.
    fn visit<'i, V: FnMut(&'i [u32])>(
        &'i self,
        greatest: Option<usize>,
        begins: impl Fn(usize) -> bool,
        search: &mut Search<'_, V>,
    ) {
        let mut at = self.nearest(greatest, begins);
        while let Some(key) = at {
            self.lists.visit(key, search);
            at = self.parent(key);
        }
    }
}

/// Texts that a value must be, and texts that it must begin with, in one table, so that one search finds both.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// All texts, one behind the other.
    texts: Vec<u8>,
    // INVARIANT: `ends` ascend and do not exceed the length of `texts`; `push` is the only writer.
    ends: Vec<usize>,
    exact: Lists,
    prefixes: Nested,
}

impl Begun {
    /// `text` must be greater than all before it.
    pub(super) fn push(&mut self, text: &[u8], exact: List, prefix: List) {
        let texts = &self.texts;
        let ends = &self.ends;
        self.prefixes
            .push(prefix, |at| text.starts_with(text_at(texts, ends, at)));
        self.exact.push(exact);
        self.texts.extend_from_slice(text);
        self.ends.push(self.texts.len());
    }

    pub(super) fn visit_all<'i, V: FnMut(&'i [u32])>(&'i self, search: &mut Search<'_, V>) {
        self.exact.visit_all(search);
        self.prefixes.lists.visit_all(search);
    }

    fn text(&self, at: usize) -> &[u8] {
        text_at(&self.texts, &self.ends, at)
    }

    /// How many texts do not exceed the value.
    fn rank(&self, value: &impl Value) -> usize {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if value.order_of(self.text(middle)).is_le() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    pub(super) fn visit<'i, V: FnMut(&'i [u32])>(
        &'i self,
        value: &impl Value,
        search: &mut Search<'_, V>,
    ) {
        let greatest = self.rank(value).checked_sub(1);
        if let Some(at) = greatest
            && value.order_of(self.text(at)).is_eq()
        {
            self.exact.visit(at, search);
        }
        let begins = |at| value.begins_with(self.text(at));
        self.prefixes.visit(greatest, begins, search);
    }
}

fn text_at<'t>(texts: &'t [u8], ends: &[usize], at: usize) -> &'t [u8] {
    let start = at.checked_sub(1).map_or(0, |before| ends[before]);
    &texts[start..ends[at]]
}

/// What rules demand of one text.
#[derive(Debug, Default)]
pub(super) struct Texts {
    pub(super) begun: Begun,
    /// Turned round, so that suffixes are prefixes.
    pub(super) ended: Begun,
    /// Of rules that demand only that it is there.
    pub(super) any: Lists,
}

impl Texts {
    pub(super) fn visit<'i, V: FnMut(&'i [u32])>(
        &'i self,
        value: &[u8],
        search: &mut Search<'_, V>,
    ) {
        self.begun.visit(&Whole(value), search);
        if !self.ended.ends.is_empty() {
            self.ended
                .visit(&Bytes(value.iter().rev().copied()), search);
        }
        self.any.visit_all(search);
    }

    /// For texts that were lowered before they were filed.
    pub(super) fn visit_any_case<'i, V: FnMut(&'i [u32])>(
        &'i self,
        value: &[u8],
        search: &mut Search<'_, V>,
    ) {
        let value = value.iter().map(u8::to_ascii_lowercase);
        self.begun.visit(&Bytes(value.clone()), search);
        if !self.ended.ends.is_empty() {
            self.ended.visit(&Bytes(value.rev()), search);
        }
        self.any.visit_all(search);
    }

    /// For a value that can only be read forwards: rules that demand a suffix are all visited.
    pub(super) fn visit_forwards<'i, V: FnMut(&'i [u32])>(
        &'i self,
        value: impl Iterator<Item = u8> + Clone,
        search: &mut Search<'_, V>,
    ) {
        self.begun.visit(&Bytes(value), search);
        self.ended.prefixes.lists.visit_all(search);
        self.any.visit_all(search);
    }
}

/// Networks, ascending, so that a wider one stands before those in it.
#[derive(Debug, Default)]
pub(super) struct Networks {
    blocks: Vec<IpNet>,
    nested: Nested,
}

impl Networks {
    /// `block` must be greater than all before it.
    pub(super) fn push(&mut self, block: IpNet, list: List) {
        self.nested
            .push(list, |at| self.blocks[at].contains(&block));
        self.blocks.push(block);
    }

    pub(super) fn visit<'i, V: FnMut(&'i [u32])>(&'i self, ip: IpAddr, search: &mut Search<'_, V>) {
        if self.blocks.is_empty() {
            return;
        }
        let address = IpNet::from(ip);
        let behind = self.blocks.partition_point(|block| *block <= address);
        let begins = |at: usize| self.blocks[at].contains(&ip);
        self.nested.visit(behind.checked_sub(1), begins, search);
    }
}

/// Ports, ascending.
#[derive(Debug, Default)]
pub(super) struct Ports {
    ports: Vec<u16>,
    lists: Lists,
}

impl Ports {
    /// `port` must be greater than all before it.
    pub(super) fn push(&mut self, port: u16, list: List) {
        self.ports.push(port);
        self.lists.push(list);
    }

    pub(super) fn visit<'i, V: FnMut(&'i [u32])>(&'i self, port: u16, search: &mut Search<'_, V>) {
        if let Ok(at) = self.ports.binary_search(&port) {
            self.lists.visit(at, search);
        }
    }
}

/// The segments of a principal that follow a segment `key`.
pub(super) fn segments<'p>(
    principal: &'p str,
    key: &'static str,
) -> impl Iterator<Item = &'p str> + Clone {
    let keys = principal.split('/');
    let values = principal.split('/').skip(1);
    keys.zip(values)
        .filter(move |(segment, _)| *segment == key)
        .map(|(_, value)| value)
}
