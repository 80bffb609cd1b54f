use super::super::matcher::Text;
use super::*;

type Line = (&'static [u8], &'static [u8]);

fn matches(name: &str, pattern: &str, lines: &[Line]) -> bool {
    let texts = Texts::new([Text::of_header(pattern)]);
    Name::new(name).matches(Fields::listed(lines), &texts)
}

#[test]
fn names_are_compared_in_any_case_and_values_are_not() {
    let lines: &[Line] = &[(b"X-Role", b"admin")];
    assert!(matches("x-rOLE", "admin", lines), "S-144");
    assert!(!matches("x-role", "Admin", lines));
    assert!(!matches("x-roles", "admin", lines));
}

#[test]
fn a_star_takes_a_header_without_a_value_and_none_a_missing_one() {
    assert!(matches("x", "*", &[(b"x", b"")]), "S-124");
    assert!(!matches("x", "*", &[(b"y", b"")]), "S-144");
}

#[test]
fn names_are_ordered_by_length_and_then_by_their_bytes() {
    let names = ["b", "C", "aa", "x-user", "x-uses"].map(Name::new);
    assert!(names.is_sorted());
    for pair in names.windows(2) {
        assert_eq!(pair[1].partial_cmp(&pair[0]), Some(Ordering::Greater));
    }
    assert_eq!(Name::new("X-User").order_of(b"x-uSER"), Ordering::Equal);
}

#[test]
fn lines_of_one_name_are_looked_at_one_by_one() {
    let lines: &[Line] = &[(b"x-role", b"user"), (b"x-role", b"admin")];
    for pattern in ["user", "admin", "ad*", "*er"] {
        assert!(matches("x-role", pattern, lines), "{pattern} (S-145)");
    }
    assert!(!matches("x-role", "user,admin", lines));
    let one: &[Line] = &[(b"x-role", b"user,admin")];
    assert!(!matches("x-role", "admin", one), "a list is one text");
}

#[test]
fn what_envoy_keeps_in_one_place_is_one_value() {
    let accept: &[Line] = &[(b"accept", b"a"), (b"x", b"y"), (b"Accept", b"b")];
    for pattern in ["a,b", "a,*", "*,b", "*", "a*"] {
        assert!(matches("accept", pattern, accept), "{pattern} (S-145)");
    }
    for pattern in ["a", "b", "b*", "*a", "a,b,*", "*a,a,b"] {
        assert!(!matches("accept", pattern, accept), "{pattern}");
    }
    let cookies: &[Line] = &[(b"cookie", b"a=1"), (b"cookie", b"b=2")];
    assert!(matches("cookie", "a=1; b=2", cookies));
    assert!(!matches("cookie", "a=1,b=2", cookies));
}

#[test]
fn lines_of_one_hop_are_not_there_unless_they_upgrade() {
    let plain: &[Line] = &[
        (b"keep-alive", b"5"),
        (b"upgrade", b"x"),
        (b"te", b"trailers"),
    ];
    for name in ["keep-alive", "upgrade", "te"] {
        assert!(!matches(name, "*", plain), "{name}");
    }
    let upgrade: &[Line] = &[
        (b"connection", b"keep-alive, Upgrade"),
        (b"upgrade", b"websocket"),
        (b"keep-alive", b"5"),
    ];
    assert!(matches("upgrade", "websocket", upgrade));
    assert!(matches("connection", "*Upgrade", upgrade));
    assert!(!matches("keep-alive", "*", upgrade));
}

fn printed(name: &str, lines: &[Line]) -> String {
    Lines::new(&Name::new(name), Fields::listed(lines)).to_string()
}

#[test]
fn lines_are_printed_and_credentials_are_not() {
    let lines: &[Line] = &[
        (b"x", b"a\xff"),
        (b"x", b"b"),
        (b"authorization", b"Bearer secret"),
        (b"cookie", b"session=1"),
        (b"x-jwt", b"eyJhbGciOiJub25lIn0.e30.c2ln"),
        (b"x-version", b"1.2.3"),
        (b"x-word", b"eyJ"),
        (b"accept", b"a"),
        (b"accept", b"b"),
    ];
    for (name, expected) in [
        ("x", "`a\\xff` and `b`"),
        ("authorization", "13 bytes"),
        ("cookie", "9 bytes"),
        ("x-jwt", "28 bytes"),
        ("x-version", "`1.2.3`"),
        ("x-word", "`eyJ`"),
        ("accept", "`a`,`b`"),
        ("y", "absent"),
    ] {
        assert_eq!(printed(name, lines), expected);
    }
    let shown = format!("{:?}", Lines::new(&Name::new("x"), Fields::listed(lines)));
    assert_eq!(shown, "2 lines of x");
}
