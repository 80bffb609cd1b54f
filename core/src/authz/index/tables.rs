//! Ordered tables of texts and networks, and the lists of rules that stand behind their entries.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::ops::Range;

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

    /// The head of what follows `common`, which is looked for at byte `from`; where the value has something else there, how
    /// `common` stands to that. `from` does not exceed the length of the value.
    fn head_after(&self, from: usize, common: &[u8]) -> Result<u64, Ordering>;
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

    fn head_after(&self, from: usize, common: &[u8]) -> Result<u64, Ordering> {
        let value = self.0.get(from..).unwrap_or_default();
        let Some(rest) = value.strip_prefix(common) else {
            return Err(common.cmp(value));
        };
        Ok(match rest.first_chunk() {
            Some(head) => u64::from_be_bytes(*head),
            None => head(rest.iter().copied()),
        })
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

    fn head_after(&self, from: usize, common: &[u8]) -> Result<u64, Ordering> {
        let mut value = self.0.clone().skip(from);
        for byte in common {
            match byte.cmp(&value.next().ok_or(Ordering::Greater)?) {
                Ordering::Equal => {}
                order => return Err(order),
            }
        }
        Ok(head(value))
    }
}

/// The first eight bytes as a number, so that the order of two heads that differ is the order of the texts.
fn head(text: impl Iterator<Item = u8>) -> u64 {
    let mut head = [0; 8];
    for (place, byte) in head.iter_mut().zip(text) {
        *place = byte;
    }
    u64::from_be_bytes(head)
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
///
/// A search goes by [`Heads`]; whole texts are compared only at its end.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// All texts, one behind the other.
    texts: Vec<u8>,
    // INVARIANT: `ends` ascend and do not exceed the length of `texts`; `new` is the only writer.
    ends: Vec<usize>,
    /// `None`: there are no texts.
    heads: Option<Heads>,
    exact: Lists,
    prefixes: Nested,
}

impl Begun {
    /// Texts ascending, each once; with the rules that demand the text itself, and those that demand it at the front.
    pub(super) fn new(entries: impl IntoIterator<Item = (Vec<u8>, List, List)>) -> Self {
        let mut begun = Self::default();
        for (text, exact, prefix) in entries {
            let (texts, ends) = (&begun.texts, &begun.ends);
            let begins = |at| text.starts_with(text_at(texts, ends, at));
            begun.prefixes.push(prefix, begins);
            begun.exact.push(exact);
            begun.texts.extend(text);
            begun.ends.push(begun.texts.len());
        }
        let all = 0..begun.ends.len();
        begun.heads = (!all.is_empty()).then(|| Heads::new(&begun, all, 0, LEVELS));
        begun
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
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
        let Some(mut heads) = self.heads.as_ref() else {
            return 0;
        };
        let (mut low, mut high) = loop {
            let common = &self.text(heads.texts.start)[heads.known..heads.common];
            let head = match value.head_after(heads.known, common) {
                Ok(head) => head,
                Err(Ordering::Greater) => return heads.texts.start,
                Err(Ordering::Less | Ordering::Equal) => return heads.texts.end,
            };
            let at = heads.heads.partition_point(|other| *other < head);
            if heads.heads.get(at) != Some(&head) {
                return heads.starts[at];
            }
            match heads.deeper.get(at) {
                Some(Some(deeper)) => heads = deeper,
                Some(None) | None => break (heads.starts[at], heads.starts[at + 1]),
            }
        };
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
        let Some(greatest) = self.rank(value).checked_sub(1) else {
            return;
        };
        if value.order_of(self.text(greatest)).is_eq() {
            self.exact.visit(greatest, search);
        }
        let begins = |at| value.begins_with(self.text(at));
        self.prefixes.visit(Some(greatest), begins, search);
    }
}

/// Texts that begin alike, by the eight bytes behind what they have in common: a trie whose steps are numbers, which lie
/// close together.
#[derive(Debug)]
struct Heads {
    texts: Range<usize>,
    /// So many bytes of a value are known to be those of the texts when it comes here.
    known: usize,
    /// So many bytes at the front are the same in all texts; at least `known`.
    common: usize,
    /// Ascending, each once.
    heads: Vec<u64>,
    // INVARIANT: one more than `heads`; positions of the first text of each head, then the end of `texts`.
    starts: Vec<usize>,
    /// Of heads that many texts have. Empty where no head has.
    deeper: Vec<Option<Box<Self>>>,
}

/// Texts of one head up to which they are compared one with another.
const FEW: usize = 4;
/// So deep are heads looked at, then texts.
const LEVELS: usize = 16;

impl Heads {
    /// `texts`: positions in `begun`, at least one.
    fn new(begun: &Begun, texts: Range<usize>, known: usize, levels: usize) -> Self {
        let first = begun.text(texts.start);
        // What the first and the last of an ascending list begin with, all begin with.
        let pairs = first.iter().zip(begun.text(texts.end - 1));
        let common = pairs.take_while(|(first, last)| first == last).count();
        let mut heads = Vec::new();
        let mut starts = Vec::new();
        for at in texts.clone() {
            let head = head(begun.text(at)[common..].iter().copied());
            if heads.last() != Some(&head) {
                heads.push(head);
                starts.push(at);
            }
        }
        starts.push(texts.end);
        let mut deeper = Vec::new();
        for (at, pair) in starts.windows(2).enumerate() {
            let same = pair[0]..pair[1];
            // Texts that differ by zeros at their end alone have one head for ever.
            if same.len() > FEW && same.len() < texts.len() && levels > 0 {
                deeper.resize_with(at, || None);
                deeper.push(Some(Box::new(Self::new(begun, same, common, levels - 1))));
            }
        }
        Self {
            texts,
            known,
            common,
            heads,
            starts,
            deeper,
        }
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
        if !self.ended.is_empty() {
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
        if !self.ended.is_empty() {
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
