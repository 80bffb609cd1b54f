//! What is read once, and what is remembered from one request to the next.

use super::*;

#[test]
fn a_place_that_many_rules_look_at_is_read_once() {
    // A request must not cost more for each rule (S-210).
    let rules = compiled(&[rule("a"), rule("b"), in_header("c", "x-jwt")]);
    let again = b"h.p.s".to_vec();
    let lines: [(&[u8], &[u8]); 5] = [
        (b"authorization", b"Basic dTpw"),
        (b"authorization", b"Bearer h.p.s"),
        (b"x-jwt", b"h.p.s"),
        (b"x-jwt", b"h.p.t"),
        (b"x-jwt", &again),
    ];
    let places = |path: &str, lines: &[(&[u8], &[u8])]| {
        let presented = Presented {
            method: "GET",
            path: path.as_bytes(),
            authority: b"api.shop",
            tls: false,
            fields: Fields::listed(lines),
        };
        let Sightings { texts, places } = Sightings::of(&rules, &presented);
        let texts: Vec<_> = texts
            .iter()
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .collect();
        let found: Vec<_> = places.iter().map(|seen| (seen.rule, seen.text)).collect();
        (texts, found)
    };
    // Decoded and put together, it is still one text.
    let (texts, found) = places("/?access_token=h%2ep.q", &lines);
    assert_eq!(texts, ["h.p.s", "h.p.q", "h.p.s", "h.p.t", "h.p.s"]);
    assert_eq!(
        found,
        [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (2, 3), (2, 4)]
    );
    // As it came, likewise.
    let (texts, found) = places("/?access_token=h.p.q", &lines[1..4]);
    assert_eq!(texts, ["h.p.s", "h.p.q", "h.p.s", "h.p.t"]);
    assert_eq!(found, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (2, 3)]);
}

#[test]
fn what_was_verified_is_remembered_under_its_rule_alone() {
    let mut desk = Desk::new(&[rule("a"), rule("b")]);
    let b = token("b", json!({"sub": "s"}));
    for _ in 0..3 {
        assert_eq!(desk.bearer(&b).principal().as_deref(), Some("b/s"));
        assert_eq!(desk.heard.rules[0].outcome, Err(Status::UnknownIssuer));
        assert_eq!(desk.cache.len(), 1);
    }
    // The same rules with another key: what the former one verified is not believed.
    desk.rules = compiled(&[JwtRule {
        keys: keys("another"),
        ..rule("b")
    }]);
    assert_eq!(desk.bearer(&b).status(), Err(Status::VerificationFails));
    // Another audience is another rule too.
    desk.rules = compiled(&[JwtRule {
        audiences: vec!["x".into()],
        ..rule("b")
    }]);
    assert_eq!(desk.bearer(&b).status(), Err(Status::AudienceNotAllowed));
    desk.cache.keep([&compiled(&[rule("b")])].into_iter());
    assert_eq!(desk.cache.len(), 1);
    assert!(!desk.cache.is_empty());
    desk.cache.keep([&desk.rules].into_iter());
    assert_eq!((desk.cache.len(), desk.cache.is_empty()), (0, true));
}

#[test]
fn a_remembered_token_ends_when_it_says_so() {
    // S-219.
    let mut desk = Desk::new(&[rule("a")]);
    let t = token("a", json!({"sub": "s", "nbf": NOW, "exp": NOW + 100}));
    assert_eq!(desk.bearer(&t).status(), Ok(()));
    for (now, expected) in [
        (NOW - 60, Ok(())),
        (NOW - 61, Err(Status::NotYetValid)),
        (NOW + 160, Ok(())),
        (NOW + 161, Err(Status::Expired)),
        (NOW + 160, Ok(())),
    ] {
        desk.now = now;
        assert_eq!(desk.bearer(&t).status(), expected, "{}", now - NOW + 61);
    }
}

#[test]
fn a_payload_is_passed_on_however_its_token_was_verified_before() {
    // S-225: a rule whose header cannot be written remembers no payload.
    let mut unwritable = in_header("a", "x-1");
    unwritable.output_payload_to_header = Some("host".into());
    let mut writable = in_header("a", "x-2");
    writable.output_payload_to_header = Some("x-payload".into());
    let mut desk = Desk::new(&[unwritable, writable]);
    let t = token("a", json!({"sub": "s"}));
    assert_eq!(desk.get(&[("x-1", &t)]).lines, [""; 0]);
    let payload = t.split('.').nth(1).expect("a payload");
    let seen = desk.get(&[("x-2", &t)]);
    assert_eq!(seen.lines, [format!("x-payload: {payload}")]);
}

#[test]
fn words_of_a_claim_are_split_where_a_rule_says_so() {
    // S-148: and what was verified under a rule that does not say so is another memory.
    let mut own = rule("a");
    own.space_delimited_claims = vec!["roles".into()];
    let t = token(
        "a",
        json!({"scope": "r w", "permission": "p q", "roles": "x y"}),
    );
    let mut desk = Desk::new(&[]);
    for (rule, is_split) in [(rule("a"), false), (own, true)] {
        desk.rules = compiled(&[rule]);
        let claims = desk.bearer(&t).result.expect("it verifies").claims;
        let claims = claims.expect("there are claims");
        assert!(claims.any(&["scope"], |word| word == "w"));
        assert!(claims.any(&["permission"], |word| word == "q"));
        assert_eq!(claims.any(&["roles"], |word| word == "y"), is_split);
    }
    assert_eq!(desk.cache.len(), 2);
}

#[test]
fn rules_are_remembered_apart_if_they_could_judge_apart() {
    let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    let inline = |text: &str| KeySource::Inline(text.into());
    let with_payload = |header: &str| JwtRule {
        output_payload_to_header: Some(header.into()),
        ..rule("a")
    };
    let with_lists = |audiences, delimited| JwtRule {
        audiences: texts(audiences),
        space_delimited_claims: texts(delimited),
        ..rule("a")
    };
    // Also where all their texts in a row are the same.
    let apart = [
        rule("a"),
        JwtRule {
            keys: keys("a"),
            ..rule("b")
        },
        JwtRule {
            keys: keys("b"),
            ..rule("a")
        },
        JwtRule {
            keys: inline("x"),
            ..rule("ax")
        },
        JwtRule {
            keys: inline("xx"),
            ..rule("a")
        },
        with_payload("x-payload"),
        with_lists(&["x"], &[]),
        with_lists(&[], &["x"]),
        with_lists(&["x", "y"], &[]),
        with_lists(&["x"], &["y"]),
        with_lists(&["xy"], &[]),
        with_lists(&["y", "x"], &[]),
    ];
    let identity = |rule: &JwtRule| {
        let rules = compiled(std::slice::from_ref(rule));
        rules.identities().next().expect("a rule")
    };
    let all: std::collections::BTreeSet<Digest> = apart.iter().map(identity).collect();
    assert_eq!(all.len(), apart.len());
    // Where a token stands and what becomes of it afterwards is not remembered.
    let mut forwards = in_header("a", "x-jwt");
    forwards.forward_original_token = true;
    for (one, other) in [
        (rule("a"), forwards),
        (rule("a"), with_payload("host")),
        (with_payload("x-payload"), with_payload("x-other")),
    ] {
        assert_eq!(identity(&one), identity(&other));
    }
}
