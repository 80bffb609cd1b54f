//! Several patterns of one kind, asked in time that hardly grows with their number.

use std::cmp::Ordering;
use std::net::IpAddr;

use ipnet::IpNet;

use super::matcher::{Namespace, RequestPrincipal, Segment, Text};

/// Any of several texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Texts {
    /// The lone star, if it is among them.
    star: Option<Star>,
    // INVARIANT: each list ascends, and of `prefixes` and `suffixes` none begins another, so the only one that can begin a
    // value is the last that does not exceed it.
    exact: Vec<Box<[u8]>>,
    prefixes: Vec<Box<[u8]>>,
    /// Turned round.
    suffixes: Vec<Box<[u8]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Star {
    NonEmpty,
    Present,
}

impl Texts {
    pub(super) fn new(texts: impl IntoIterator<Item = Text>) -> Self {
        let mut star = None;
        let (mut exact, mut prefixes, mut suffixes) = (Vec::new(), Vec::new(), Vec::new());
        for text in texts {
            match text {
                Text::NonEmpty => star = star.max(Some(Star::NonEmpty)),
                Text::Present => star = star.max(Some(Star::Present)),
                Text::Exact(text) => exact.push(text),
                Text::Prefix(text) => prefixes.push(text),
                Text::Suffix(mut text) => {
                    text.reverse();
                    suffixes.push(text);
                }
            }
        }
        exact.sort_unstable();
        exact.dedup();
        Self {
            star,
            exact,
            prefixes: shortest(prefixes),
            suffixes: shortest(suffixes),
        }
    }

    /// For values in which case does not count; ask such a set with `matches_any_case` only.
    pub(super) fn in_any_case(texts: impl IntoIterator<Item = Text>) -> Self {
        let lower = |text: Box<[u8]>| text.to_ascii_lowercase().into();
        Self::new(texts.into_iter().map(|text| match text {
            Text::Exact(text) => Text::Exact(lower(text)),
            Text::Prefix(text) => Text::Prefix(lower(text)),
            Text::Suffix(text) => Text::Suffix(lower(text)),
            Text::NonEmpty | Text::Present => text,
        }))
    }

    pub(super) fn matches(&self, value: &[u8]) -> bool {
        if self.star.is_some_and(|star| star.takes(value.is_empty())) {
            return true;
        }
        self.exact
            .binary_search_by(|text| (**text).cmp(value))
            .is_ok()
            || last_up_to(&self.prefixes, |prefix| prefix.cmp(value))
                .is_some_and(|prefix| value.starts_with(prefix))
            || self.ends(value.iter().rev().copied())
    }

    pub(super) fn matches_any_case(&self, value: &[u8]) -> bool {
        let value = value.iter().map(u8::to_ascii_lowercase);
        self.begins(value.clone()) || self.ends(value.rev())
    }

    /// As `matches`, for a value that can only be read forwards.
    pub(super) fn matches_forwards(&self, value: impl Iterator<Item = u8> + Clone) -> bool {
        self.begins(value.clone()) || {
            let len = value.clone().count();
            self.suffixes.iter().any(|suffix| {
                len.checked_sub(suffix.len())
                    .is_some_and(|at| value.clone().skip(at).eq(suffix.iter().rev().copied()))
            })
        }
    }

    /// Whether the value is one of the exact texts, begins with a prefix, or is what the star takes.
    fn begins(&self, value: impl Iterator<Item = u8> + Clone) -> bool {
        let order = |text: &[u8]| text.iter().copied().cmp(value.clone());
        self.star
            .is_some_and(|star| star.takes(value.clone().next().is_none()))
            || self.exact.binary_search_by(|text| order(text)).is_ok()
            || last_up_to(&self.prefixes, order)
                .is_some_and(|prefix| begins_with(value.clone(), prefix))
    }

    /// `value` turned round.
    fn ends(&self, value: impl Iterator<Item = u8> + Clone) -> bool {
        let order = |text: &[u8]| text.iter().copied().cmp(value.clone());
        last_up_to(&self.suffixes, order).is_some_and(|suffix| begins_with(value.clone(), suffix))
    }

    pub(super) fn len(&self) -> usize {
        let lists = [&self.exact, &self.prefixes, &self.suffixes];
        lists.map(Vec::len).iter().sum::<usize>() + usize::from(self.star.is_some())
    }

    /// Whether a lone star is among them.
    pub(super) fn has_star(&self) -> bool {
        self.star.is_some()
    }

    pub(super) fn exact(&self) -> impl Iterator<Item = &[u8]> {
        self.exact.iter().map(|text| &**text)
    }

    pub(super) fn prefixes(&self) -> impl Iterator<Item = &[u8]> {
        self.prefixes.iter().map(|text| &**text)
    }

    /// Turned round.
    pub(super) fn suffixes(&self) -> impl Iterator<Item = &[u8]> {
        self.suffixes.iter().map(|text| &**text)
    }
}

impl Star {
    fn takes(self, is_empty: bool) -> bool {
        match self {
            Self::NonEmpty => !is_empty,
            Self::Present => true,
        }
    }
}

/// Those that no other one begins, ascending.
fn shortest(mut texts: Vec<Box<[u8]>>) -> Vec<Box<[u8]>> {
    texts.sort_unstable();
    texts.dedup_by(|text, before| text.starts_with(before));
    texts
}

/// The last of ascending texts that does not exceed a value; `order`: how a text stands to it.
fn last_up_to(texts: &[Box<[u8]>], order: impl Fn(&[u8]) -> Ordering) -> Option<&[u8]> {
    let behind = texts.partition_point(|text| order(text).is_le());
    let last = behind.checked_sub(1).and_then(|at| texts.get(at));
    last.map(|text| &**text)
}

fn begins_with(mut value: impl Iterator<Item = u8>, text: &[u8]) -> bool {
    text.iter().all(|byte| value.next() == Some(*byte))
}

/// The order of two texts of which the first is in lower case and the case of the second does not count.
pub(super) fn compare_any_case(lowered: &[u8], text: &[u8]) -> Ordering {
    let text = text.iter().map(u8::to_ascii_lowercase);
    lowered.iter().copied().cmp(text)
}

/// Any of several namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Namespaces {
    /// Those that are one segment, ascending.
    exact: Vec<Box<str>>,
    more: Vec<Namespace>,
}

impl Namespaces {
    pub(super) fn new(patterns: &[String]) -> Self {
        let (exact, more): (Vec<&String>, Vec<_>) = patterns
            .iter()
            .partition(|pattern| !pattern.contains(['*', '/']));
        let mut exact: Vec<Box<str>> = exact.into_iter().map(|text| text.as_str().into()).collect();
        exact.sort_unstable();
        exact.dedup();
        Self {
            exact,
            more: more
                .into_iter()
                .map(|text| Namespace::parse(text))
                .collect(),
        }
    }

    pub(super) fn matches(&self, principal: &str) -> bool {
        if self.more.iter().any(|pattern| pattern.matches(principal)) {
            return true;
        }
        // The last segment has no slash behind it, which the pattern asks for.
        let Some((segments, _)) = principal.rsplit_once('/') else {
            return false;
        };
        !self.exact.is_empty()
            && segments_after(segments, "ns").any(|segment| {
                let found = self.exact.binary_search_by(|text| (**text).cmp(segment));
                found.is_ok()
            })
    }

    pub(super) fn len(&self) -> usize {
        self.exact.len() + self.more.len()
    }

    /// What each pattern says of the segment that must follow a segment `ns`.
    pub(super) fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let exact = self.exact.iter().map(|text| Segment::Is(text));
        exact.chain(self.more.iter().map(Namespace::segment))
    }
}

/// The segments of a principal that follow a segment `key`.
pub(super) fn segments_after<'p>(
    principal: &'p str,
    key: &'static str,
) -> impl Iterator<Item = &'p str> + Clone {
    let keys = principal.split('/');
    let values = principal.split('/').skip(1);
    keys.zip(values)
        .filter(move |(segment, _)| *segment == key)
        .map(|(_, value)| value)
}

/// Any of several request principals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestPrincipals {
    /// Issuers and subjects without a star, ascending.
    exact: Vec<Pair>,
    more: Vec<RequestPrincipal>,
}

/// An issuer and a subject.
type Pair = (Box<[u8]>, Box<[u8]>);

impl RequestPrincipals {
    pub(super) fn new(patterns: &[String]) -> Self {
        let (mut exact, mut more) = (Vec::new(), Vec::new());
        for pattern in patterns {
            let pattern = RequestPrincipal::parse(pattern);
            match pattern.parts() {
                (Text::Exact(issuer), Text::Exact(subject)) => {
                    exact.push((issuer.clone(), subject.clone()));
                }
                _ => more.push(pattern),
            }
        }
        exact.sort_unstable();
        exact.dedup();
        Self { exact, more }
    }

    pub(super) fn matches(&self, issuer: &str, subject: &str) -> bool {
        let value = (issuer.as_bytes(), subject.as_bytes());
        let order = |(issuer, subject): &Pair| (&**issuer, &**subject).cmp(&value);
        self.exact.binary_search_by(order).is_ok()
            || self
                .more
                .iter()
                .any(|pattern| pattern.matches(Some(issuer), Some(subject)))
    }

    pub(super) fn len(&self) -> usize {
        self.exact.len() + self.more.len()
    }

    /// Issuers and subjects without a star.
    pub(super) fn exact(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let parts = self.exact.iter();
        parts.map(|(issuer, subject)| (&**issuer, &**subject))
    }

    /// Those with a star.
    pub(super) fn more(&self) -> &[RequestPrincipal] {
        &self.more
    }
}

/// Any of several blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    // INVARIANT: ascending and disjoint, so the only one that can hold an address is the last that does not exceed it.
    blocks: Vec<IpNet>,
}

impl Blocks {
    pub(super) fn new(blocks: &[IpNet]) -> Self {
        let mut blocks = IpNet::aggregate(&blocks.to_vec());
        blocks.sort_unstable();
        Self { blocks }
    }

    pub(super) fn hold(&self, ip: IpAddr) -> bool {
        let address = IpNet::from(ip);
        let behind = self.blocks.partition_point(|block| *block <= address);
        let last = behind.checked_sub(1).and_then(|at| self.blocks.get(at));
        last.is_some_and(|block| block.contains(&ip))
    }

    pub(super) fn as_slice(&self) -> &[IpNet] {
        &self.blocks
    }
}

#[cfg(test)]
mod tests;
