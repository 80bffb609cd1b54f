//! What is taken for a token, place by place.

use super::*;
use crate::api::meta::Origin;
use crate::api::request_authentication::KeySource;

fn rule(headers: &[(&str, &str)], params: &[&str], cookies: &[&str]) -> JwtRule {
    let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    let location = |(name, prefix): &(&str, &str)| HeaderLocation {
        name: (*name).into(),
        prefix: (*prefix).into(),
    };
    JwtRule {
        issuer: "i".into(),
        audiences: Vec::new(),
        keys: KeySource::Discovery,
        from_headers: headers.iter().map(location).collect(),
        from_params: own(params),
        from_cookies: own(cookies),
        output_payload_to_header: None,
        output_claims: Vec::new(),
        forward_original_token: false,
        space_delimited_claims: Vec::new(),
        origin: Origin {
            file: "jwt.yaml".into(),
            line: 1,
            column: 1,
        },
    }
}

/// The tokens of a request, each with its place.
fn found(rule: &JwtRule, path: &str, lines: &[(&str, &str)]) -> Vec<String> {
    let lines: Vec<(&[u8], &[u8])> = lines
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    let mut all = Vec::new();
    Locations::of(rule).find(
        Fields::listed(&lines),
        path.as_bytes(),
        &mut |place, token| {
            all.push(format!("{place}: {}", String::from_utf8_lossy(&token)));
        },
    );
    all
}

/// The token of an `authorization` line.
fn bearer(value: &str) -> Option<String> {
    let all = found(
        &rule(&[], &[], &[]),
        "/",
        &[("Authorization", value), ("x", "Bearer y")],
    );
    assert!(all.len() <= 1, "{all:?}");
    let only = all.into_iter().next()?;
    Some(only.strip_prefix("header `authorization`: ")?.to_owned())
}

#[test]
fn a_prefix_counts_wherever_it_stands_and_case_counts() {
    // S-213.
    for (value, token) in [
        ("Bearer a.b.c", Some("a.b.c")),
        ("Bearer   a.b.c", Some("a.b.c")),
        ("Bearer \"a.b.c\"", Some("a.b.c\"")),
        ("X Bearer a.b.c", Some("a.b.c")),
        ("Bearer a.b.c, more", Some("a.b.c, more")),
        ("Bearer Bearer a.b.c", Some("Bearer a.b.c")),
        ("Bearer =", Some("")),
        ("bearer a.b.c", None),
        ("BEARER a.b.c", None),
        ("Basic a.b.c", None),
        ("Bearera.b.c", None),
        ("Bearer", None),
        ("", None),
    ] {
        assert_eq!(bearer(value).as_deref(), token, "{value:?}");
    }
}

#[test]
fn without_locations_there_are_the_bearer_and_the_parameter() {
    let default = rule(&[], &[], &[]);
    assert_eq!(
        found(
            &default,
            "/p?access_token=q&access_token=r",
            &[("authorization", "Bearer h"), ("cookie", "access_token=c")]
        ),
        [
            "header `authorization`: h",
            "query parameter `access_token`: q"
        ]
    );
}

#[test]
fn locations_of_ones_own_replace_the_usual_ones() {
    // S-213, S-215.
    for own in [
        rule(&[("x-jwt", "")], &[], &[]),
        rule(&[], &["token"], &[]),
        rule(&[], &[], &["token"]),
    ] {
        let usual = [("authorization", "Bearer h")];
        assert_eq!(found(&own, "/?access_token=q", &usual), [""; 0]);
    }
    let all = rule(
        &[("X-Jwt", ""), ("x-jwt", ""), ("x-auth", "Value ")],
        &["t", "s"],
        &["c"],
    );
    let lines = [
        ("x-JWT", "one"),
        ("cookie", "a=b; c=four"),
        ("x-jwt", "two"),
        ("x-auth", "Value three"),
    ];
    assert_eq!(
        found(&all, "/?s=x&t=y", &lines),
        [
            "header `x-auth`: three",
            "header `x-jwt`: one",
            "header `x-jwt`: two",
            "query parameter `s`: x",
            "query parameter `t`: y",
            "cookie `c`: four",
        ],
        "each line of a repeated header is a token of its own"
    );
}

#[test]
fn a_header_without_a_prefix_is_a_token_as_a_whole() {
    let own = rule(&[("x-jwt", "")], &[], &[]);
    assert_eq!(
        found(&own, "/", &[("x-jwt", "Bearer a b")]),
        ["header `x-jwt`: Bearer a b"]
    );
    assert_eq!(found(&own, "/", &[("x-jwt", "")]), ["header `x-jwt`: "]);
}

#[test]
fn two_authorization_lines_are_read_as_one() {
    // S-234.
    let default = rule(&[], &[], &[]);
    let two = |a, b| {
        found(
            &default,
            "/",
            &[("authorization", a), ("x", "y"), ("Authorization", b)],
        )
    };
    assert_eq!(
        two("Bearer a.b.c", "Bearer d.e.f"),
        ["header `authorization`: a.b.c,Bearer d.e.f"]
    );
    assert_eq!(
        two("Basic dTpw", "Bearer d.e.f"),
        ["header `authorization`: d.e.f"]
    );
    assert_eq!(two("Basic dTpw", "Digest x"), [""; 0]);
    // An empty line adds nothing.
    let alone = ["header `authorization`: a.b.c"];
    assert_eq!(two("", "Bearer a.b.c"), alone);
    assert_eq!(two("Bearer a.b.c", ""), alone);
}

#[test]
fn parameters_are_decoded_and_the_first_counts() {
    let own = rule(&[], &["a b"], &[]);
    for (path, token) in [
        ("/?a%20b=1", Some("1")),
        ("/?a+b=x%2Ey%2ez", Some("x.y.z")),
        ("/?a%20b=1%2&a%20b=2", Some("1%2")),
        ("/?x=y&a+b=%zz%4", Some("%zz%4")),
        ("/?a+b", Some("")),
        ("/?a+b=a=b", Some("a=b")),
        ("/?A+b=1", None),
        ("/a+b=1", None),
        ("/?", None),
    ] {
        let token = token.map(|token| format!("query parameter `a b`: {token}"));
        assert_eq!(found(&own, path, &[]), Vec::from_iter(token), "{path}");
    }
}

#[test]
fn a_parameter_is_cut_out_and_the_others_stay_as_they_are() {
    // S-224.
    for (path, left) in [
        ("/a?access_token=x", "/a"),
        ("/a?x=1&access_token=t&y=2", "/a?x=1&y=2"),
        ("/a?access_token=t&x=%41+b", "/a?x=%41+b"),
        ("/a?x&access_token=t&access_token=u", "/a?x"),
        ("/a?acc%65ss_token=t&&", "/a?&"),
        ("/a?access_tokens=t", "/a?access_tokens=t"),
        ("/a", "/a"),
        ("/access_token=t", "/access_token=t"),
    ] {
        let cut = without_parameter(path.as_bytes(), "access_token");
        assert_eq!(cut, left.as_bytes(), "{path}");
    }
}

#[test]
fn a_cookie_is_told_by_its_whole_name() {
    let own = rule(&[], &[], &["c"]);
    for (value, token) in [
        ("c=1", Some("1")),
        ("ac=0; c=1; c=2", Some("1")),
        ("a=b;c=1", Some("1")),
        ("c=\"a.b\"", Some("a.b")),
        ("c=\"", Some("\"")),
        ("c=", Some("")),
        ("c", None),
        ("C=1", None),
        ("cc=1", None),
        ("", None),
    ] {
        let token = token.map(|token| format!("cookie `c`: {token}"));
        let lines = [("cookie", value)];
        assert_eq!(found(&own, "/", &lines), Vec::from_iter(token), "{value}");
    }
    let lines = [("cookie", "a=b"), ("x", "c=9"), ("cookie", "c=1")];
    assert_eq!(found(&own, "/", &lines), ["cookie `c`: 1"]);
}
