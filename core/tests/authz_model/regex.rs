//! As much of regular expressions as the semantics use, by sets of ends: slow, and plainly right.

use std::collections::BTreeSet;

enum Node {
    One(Box<dyn Fn(char) -> bool>),
    Many(Box<Self>),
    Sequence(Vec<Self>),
    Either(Vec<Self>),
}

/// Whether the whole text is an instance of the pattern.
pub(super) fn full(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let mut at = 0;
    let node = either(&pattern, &mut at);
    assert_eq!(at, pattern.len(), "the pattern is read to its end");
    let text: Vec<char> = text.chars().collect();
    ends(&node, &text, 0).contains(&text.len())
}

pub(super) fn quote(literal: &str) -> String {
    let special = |c: char| !c.is_alphanumeric() && c != '/' && c != ':';
    let quote = |c: char| {
        let escape = special(c).then_some('\\');
        escape.into_iter().chain([c])
    };
    literal.chars().flat_map(quote).collect()
}

/// Whether the character is in a set written as between brackets.
pub(super) fn in_set(set: &str, character: char) -> bool {
    let set: Vec<char> = set.chars().collect();
    let mut at = 0;
    while at < set.len() {
        if at + 2 < set.len() && set[at + 1] == '-' && set[at].is_alphanumeric() {
            if (set[at]..=set[at + 2]).contains(&character) {
                return true;
            }
            at += 3;
        } else {
            if set[at] == character {
                return true;
            }
            at += 1;
        }
    }
    false
}

fn ends(node: &Node, text: &[char], start: usize) -> BTreeSet<usize> {
    match node {
        Node::One(takes) => {
            let next = text.get(start).filter(|c| takes(**c)).map(|_| start + 1);
            next.into_iter().collect()
        }
        Node::Either(nodes) => nodes
            .iter()
            .flat_map(|node| ends(node, text, start))
            .collect(),
        Node::Sequence(nodes) => nodes.iter().fold(BTreeSet::from([start]), |at, node| {
            at.into_iter().flat_map(|at| ends(node, text, at)).collect()
        }),
        Node::Many(node) => {
            let mut all = BTreeSet::from([start]);
            let mut fresh = vec![start];
            while let Some(at) = fresh.pop() {
                fresh.extend(
                    ends(node, text, at)
                        .into_iter()
                        .filter(|end| all.insert(*end)),
                );
            }
            all
        }
    }
}

fn either(pattern: &[char], at: &mut usize) -> Node {
    let mut branches = vec![sequence(pattern, at)];
    while pattern.get(*at) == Some(&'|') {
        *at += 1;
        branches.push(sequence(pattern, at));
    }
    Node::Either(branches)
}

fn sequence(pattern: &[char], at: &mut usize) -> Node {
    let mut nodes = Vec::new();
    while let Some(next) = pattern.get(*at).filter(|c| !"|)".contains(**c)) {
        *at += 1;
        let start = *at - 1;
        let read = |at: &mut usize| match next {
            '.' => Node::One(Box::new(|c| c != '\n')),
            '\\' => {
                let literal = pattern[*at];
                *at += 1;
                Node::One(Box::new(move |c| c == literal))
            }
            '[' => {
                let length = pattern[*at..].iter().position(|c| *c == ']');
                let set: String = pattern[*at..*at + length.expect("a set ends")]
                    .iter()
                    .collect();
                *at += set.chars().count() + 1;
                match set.strip_prefix('^').map(str::to_owned) {
                    Some(set) => Node::One(Box::new(move |c| !in_set(&set, c))),
                    None => Node::One(Box::new(move |c| in_set(&set, c))),
                }
            }
            '(' => {
                let node = either(pattern, at);
                *at += 1;
                node
            }
            literal => {
                let literal = *literal;
                Node::One(Box::new(move |c| c == literal))
            }
        };
        let node = read(at);
        let quantifier = pattern.get(*at).copied();
        let again = |at: &mut usize| {
            *at = start + 1;
            let node = read(at);
            *at += 1;
            node
        };
        nodes.push(match quantifier {
            Some('*') => {
                *at += 1;
                Node::Many(Box::new(node))
            }
            Some('+') => Node::Sequence(vec![node, Node::Many(Box::new(again(at)))]),
            Some('?') => {
                *at += 1;
                Node::Either(vec![node, Node::Sequence(Vec::new())])
            }
            _ => node,
        });
    }
    Node::Sequence(nodes)
}

#[test]
fn the_expressions_of_the_semantics_mean_what_they_say() {
    let account = "spiffe://.+/ns/a/(.+/|)sa/b(/.+)?";
    assert!(full(account, "spiffe://td/ns/a/sa/b"));
    assert!(full(account, "spiffe://td/ns/a/x/sa/b/c"));
    assert!(!full(account, "spiffe://td/ns/a/sa/b/"));
    assert!(!full(account, "spiffe:///ns/a/sa/b"));
    assert!(full("spiffe://bad[^/]*/.*", "spiffe://bad.td/x"));
    assert!(!full("spiffe://bad[^/]*/.*", "spiffe://bad"));
    assert!(full("[a-c./]+", "b./"));
    assert!(!full("[a-c./]+", ""));
    assert!(full(&quote("a[0].*"), "a[0].*"));
    assert!(!full("a\\.b", "axb"));
}
