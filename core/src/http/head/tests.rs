//! Heads that are looked at otherwise than they came.

use super::*;

const LINES: &[(&[u8], &[u8])] = &[
    (b"Host", b"a"),
    (b"X-User", b"forged"),
    (b"x_user", b"forged"),
    (b"x-users", b"kept"),
    (b"cookie", b"c=1"),
    (b"X-USER", b"again"),
];

fn shown(fields: Fields<'_>) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let lines: Vec<String> = fields
        .iter()
        .map(|field| format!("{}: {}", text(field.name), text(field.value)))
        .collect();
    assert_eq!(fields.len(), lines.len());
    assert_eq!(fields.is_empty(), lines.is_empty());
    lines
}

#[test]
fn lines_leave_by_name_and_its_look_alikes() {
    let fields = Fields::listed(LINES);
    let names: Arc<[String]> = ["x-user".to_owned()].into();
    let mut changes = Changes::barring(&names);
    let left = ["Host: a", "x-users: kept", "cookie: c=1"];
    assert_eq!(shown(fields.with(&changes)), left);
    changes.remove("COOKIE");
    assert_eq!(shown(fields.with(&changes)), left[..2]);
    assert_eq!(fields.with(&changes).find(Known::Cookie), None);
    assert_eq!(fields.with(&changes).find(Known::Host), Some(&b"a"[..]));
    assert_eq!(shown(fields).len(), LINES.len(), "the head is as it was");
}

#[test]
fn lines_join_behind_the_others_also_under_a_name_that_left() {
    let names: Arc<[String]> = ["x-user".to_owned()].into();
    let mut changes = Changes::barring(&names);
    changes.add("x-user", b" alice ");
    changes.add("x-user", b"bob");
    let expected = ["x-users: kept", "x-user: alice", "x-user: bob"];
    assert_eq!(shown(Fields::listed(&LINES[1..4]).with(&changes)), expected);
    assert!(format!("{changes:?}").contains("x-user"));
    assert!(!format!("{changes:?}").contains("alice"));
}

#[test]
fn a_value_that_would_end_its_line_does_not_join() {
    for value in [&b"a\r\nb: c"[..], b"a\nb", b"\0", b"a\x7f"] {
        let mut changes = Changes::default();
        changes.add("x", value);
        assert!(changes.is_empty(), "{}", value.escape_ascii());
    }
    let mut changes = Changes::default();
    changes.add("x", "é\ta".as_bytes());
    assert!(!changes.is_empty());
}

#[test]
fn nothing_changes_nothing() {
    let changes = Changes::barring(&Arc::from([]));
    assert!(changes.is_empty());
    assert_eq!(
        shown(Fields::listed(LINES).with(&changes)).len(),
        LINES.len()
    );
}

#[test]
fn a_view_hides_lines_and_shows_one_more_before_what_joins() {
    static VIEW: View = View {
        hides: |field| field.known == Known::Cookie,
        also: Some((b"x-forwarded-proto", b"http")),
    };
    let mut changes = Changes::default();
    changes.remove("x-users");
    changes.add("x-sub", b"alice");
    let fields = Fields::listed(&LINES[3..5]).through(&VIEW);
    assert_eq!(fields.find(Known::Cookie), None);
    assert_eq!(fields.find(Known::XForwardedProto), Some(&b"http"[..]));
    assert_eq!(shown(fields), ["x-users: kept", "x-forwarded-proto: http"]);
    assert_eq!(
        shown(fields.with(&changes)),
        ["x-forwarded-proto: http", "x-sub: alice"]
    );
    changes.remove("x-forwarded-proto");
    assert_eq!(shown(fields.with(&changes)), ["x-sub: alice"]);
}
