use super::super::matcher::ip_block;
use super::*;

#[test]
fn a_set_of_blocks_holds_what_one_of_them_holds() {
    let patterns = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.1", "192.0.2.3", "::1"];
    let blocks: Vec<_> = patterns
        .iter()
        .map(|pattern| ip_block(pattern).expect("a block"))
        .collect();
    let set = Blocks::new(&blocks);
    for (ip, held) in [
        ("9.255.255.255", false),
        ("10.0.0.0", true),
        ("10.1.2.3", true),
        ("10.255.255.255", true),
        ("11.0.0.0", false),
        ("192.0.2.1", true),
        ("192.0.2.2", false),
        ("192.0.2.3", true),
        ("::1", true),
        ("::", false),
        ("::ffff:10.0.0.1", false),
    ] {
        assert_eq!(set.hold(ip.parse().expect("an address")), held, "{ip}");
    }
    let listed: Vec<_> = set.as_slice().iter().map(IpNet::to_string).collect();
    let disjoint = ["10.0.0.0/8", "192.0.2.1/32", "192.0.2.3/32", "::1/128"];
    assert_eq!(listed, disjoint);
    assert!(!Blocks::new(&[]).hold(IpAddr::from([0, 0, 0, 0])));
}

#[test]
fn a_set_of_texts_takes_what_one_of_them_takes() {
    let patterns = ["b.com", "A.com", "c.com", "d*", "*.E"];
    let texts = || patterns.iter().map(|pattern| Text::of_header(pattern));
    let set = Texts::new(texts());
    let any_case = Texts::in_any_case(texts());
    for (value, taken, taken_in_any_case) in [
        ("b.com", true, true),
        ("A.com", true, true),
        ("a.COM", false, true),
        ("a.co", false, false),
        ("d", true, true),
        ("DX", false, true),
        ("x.e", false, true),
        ("", false, false),
    ] {
        assert_eq!(set.matches(value.as_bytes()), taken, "{value}");
        let any_case = any_case.matches_any_case(value.as_bytes());
        assert_eq!(any_case, taken_in_any_case, "{value}");
    }
}

#[test]
fn a_value_in_pieces_is_taken_like_one_in_one_piece() {
    let patterns = ["b", "a", "c*", "*d", "*efg"];
    let set = Texts::new(patterns.map(Text::of_header));
    for value in [
        "", "a", "ab", "b", "c", "cx", "d", "xd", "xdx", "fg", "xefg",
    ] {
        let whole = set.matches(value.as_bytes());
        assert_eq!(set.matches_forwards(value.bytes()), whole, "{value}");
    }
    for (pattern, value, taken) in [("*", "", false), ("*", "a", true)] {
        let set = Texts::new([Text::of_value(pattern)]);
        assert_eq!(set.matches_forwards(value.bytes()), taken);
    }
}

#[test]
fn of_many_beginnings_and_ends_the_right_one_is_found() {
    let patterns = ["a*", "ab*", "abc/*", "b/*", "*.x", "*y.x", "*/z", "c", "*Q"];
    let plain = Texts::new(patterns.map(Text::of_value));
    let any_case = Texts::in_any_case(patterns.map(Text::of_value));
    assert_eq!(plain.len(), 6, "`ab*`, `abc/*` and `*y.x` say nothing more");
    for value in [
        "", "a", "ab", "abc/d", "b", "b/", "b/x", "c", "cc", "q.x", "qy.x", "yx", "/z", "z", "B/",
        "A", "q", "Q", "xQ", "B.X",
    ] {
        let one_by_one = |fold: bool| {
            patterns.iter().any(|pattern| {
                let text = Text::of_value(pattern);
                match fold {
                    false => text.matches(value.as_bytes()),
                    true => text.matches_any_case(value.as_bytes()),
                }
            })
        };
        assert_eq!(
            plain.matches(value.as_bytes()),
            one_by_one(false),
            "{value}"
        );
        assert_eq!(
            plain.matches_forwards(value.bytes()),
            one_by_one(false),
            "{value}"
        );
        assert_eq!(
            any_case.matches_any_case(value.as_bytes()),
            one_by_one(true),
            "{value}"
        );
    }
}

#[test]
fn of_two_stars_the_wider_one_counts() {
    let both = Texts::new([Text::Present, Text::NonEmpty]);
    assert!(both.matches(b"") && both.matches_any_case(b""));
    assert_eq!(both.len(), 1);
}

#[test]
fn a_set_of_namespaces_takes_what_one_of_them_takes() {
    let patterns = ["b", "a", "x/y", "c*", "ns", ""].map(str::to_owned);
    let set = Namespaces::new(&patterns);
    for principal in [
        "td/ns/a/sa/x",
        "td/ns/b/sa/x",
        "td/ns/a",
        "td/ns/a/",
        "ns/a/x",
        "ns/a",
        "td/ns/x/y/z",
        "td/ns/x/z",
        "td/ns/cc/sa",
        "td/ns/ns/x",
        "td/ns/ns",
        "td/ns//x",
        "td/ns/",
        "td/xns/a/x",
        "a",
        "",
    ] {
        let one_by_one = patterns
            .iter()
            .any(|pattern| Namespace::parse(pattern).matches(principal));
        assert_eq!(set.matches(principal), one_by_one, "{principal}");
    }
}

#[test]
fn a_set_of_request_principals_takes_what_one_of_them_takes() {
    let patterns = ["i/s", "i/t", "u/i/s", "*x", "j/*", "a"].map(str::to_owned);
    let set = RequestPrincipals::new(&patterns);
    for (issuer, subject) in [
        ("i", "s"),
        ("i", "t"),
        ("i", "u"),
        ("u/i", "s"),
        ("u", "i/s"),
        ("k", "xx"),
        ("j", "s"),
        ("j", ""),
        ("a", ""),
        ("", "s"),
    ] {
        let one_by_one = patterns
            .iter()
            .any(|pattern| RequestPrincipal::parse(pattern).matches(Some(issuer), Some(subject)));
        assert_eq!(
            set.matches(issuer, subject),
            one_by_one,
            "{issuer}/{subject}"
        );
    }
}

#[test]
fn a_set_of_texts_tells_what_it_has_for_each_form() {
    let set = Texts::new(["b", "a", "c*", "*de", "a"].map(Text::of_value));
    let list = |texts: Vec<&[u8]>| texts.join(&b' ');
    assert_eq!(list(set.exact().collect()), b"a b");
    assert_eq!(list(set.prefixes().collect()), b"c");
    assert_eq!(list(set.suffixes().collect()), b"ed", "turned round");
    assert_eq!((set.len(), set.has_star()), (4, false));
    for star in [Text::of_value("*"), Text::of_header("*")] {
        let set = Texts::new([star, Text::of_value("a")]);
        assert_eq!((set.len(), set.has_star()), (2, true));
    }
}

#[test]
fn a_set_of_namespaces_tells_a_segment_for_each_pattern() {
    let set = Namespaces::new(&["b", "a", "c*", "d/e", "a", "f"].map(str::to_owned));
    let segments: Vec<_> = set.segments().collect();
    use Segment::{Begins, Is};
    let expected = [Is("a"), Is("b"), Is("f"), Begins("c"), Is("d")];
    assert_eq!(segments, expected);
    assert_eq!(set.len(), 5);
    assert_eq!(Namespaces::new(&[]).len(), 0);
}

#[test]
fn segments_are_those_behind_the_key() {
    let values = |principal: &'static str| segments_after(principal, "ns").collect::<Vec<_>>();
    assert_eq!(values("td/ns/a/sa/b/ns/c"), ["a", "c"]);
    assert_eq!(values("ns/ns/a"), ["ns", "a"]);
    assert_eq!(values("td/xns/a/ns"), [""; 0]);
}

#[test]
fn a_set_of_request_principals_tells_those_with_and_without_a_star() {
    let set = RequestPrincipals::new(&["i/s", "h/s", "*x", "i/s"].map(str::to_owned));
    let exact: Vec<_> = set.exact().collect();
    assert_eq!(
        exact,
        [(&b"h"[..], &b"s"[..]), (&b"i"[..], &b"s"[..])],
        "S-131"
    );
    assert_eq!(set.more(), [RequestPrincipal::parse("*x")]);
    assert_eq!(set.len(), 3);
}
