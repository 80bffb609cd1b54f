use proptest::prelude::*;

use super::*;

const MODES: [Normalization; 4] = [
    Normalization::None,
    Normalization::Base,
    Normalization::MergeSlashes,
    Normalization::DecodeAndMergeSlashes,
];

fn text(path: &str, mode: Normalization, strip: bool) -> String {
    match normalize(path.as_bytes(), mode, strip) {
        Ok(out) => String::from_utf8(out.into_owned()).expect("targets are ASCII"),
        Err(error) => error.details().to_owned(),
    }
}

fn all(path: &str) -> [String; 4] {
    MODES.map(|mode| text(path, mode, true))
}

#[test]
fn the_expectation_table_of_istio_holds() {
    // S-185; `=` in a column: as sent.
    for (sent, none, base, merge, decode) in [
        ("/app#foo", "/app", "/app", "/app", "/app"),
        ("/app/../admin", "=", "/admin", "/admin", "/admin"),
        ("/app//", "=", "=", "/app/", "/app/"),
        ("/app/%2f", "=", "=", "=", "/app/"),
        ("/app%2f/", "=", "=", "=", "/app/"),
        (
            "/xyz%30..//abc",
            "=",
            "/xyz0..//abc",
            "/xyz0../abc",
            "/xyz0../abc",
        ),
        ("/app/%2E./admin", "=", "/admin", "/admin", "/admin"),
        (r"/app\admin", "=", "/app/admin", "/app/admin", "/app/admin"),
        (
            r"/app/\/\/\admin",
            "=",
            "/app//////admin",
            "/app/admin",
            "/app/admin",
        ),
        ("/%2Fapp%5cadmin%5Cabc", "=", "=", "=", "/app/admin/abc"),
        (
            r"/%5Capp%2f%5c%2F%2e%2e%2fadmin%5c\abc",
            "=",
            "/%5Capp%2f%5c%2F..%2fadmin%5c/abc",
            "/%5Capp%2f%5c%2F..%2fadmin%5c/abc",
            "/app/admin/abc",
        ),
        (
            "/app//../admin",
            "=",
            "/app/admin",
            "/app/admin",
            "/app/admin",
        ),
        ("/app//../../admin", "=", "/admin", "/admin", "/admin"),
        (
            "/%c0%2e%c0%2e/admin",
            "=",
            "/%c0.%c0./admin",
            "/%c0.%c0./admin",
            "/%c0.%c0./admin",
        ),
        ("/%252e%252e/admin", "=", "=", "=", "="),
        ("/.../admin", "=", "=", "=", "="),
        ("/;/admin", "=", "=", "=", "="),
        ("/admin;a=b", "=", "=", "=", "="),
        ("/Admin", "=", "=", "=", "="),
        ("/%c0%ae%c0%ae/admin", "=", "=", "=", "="),
        (
            "/admin%00",
            "=",
            "path_normalization_failed",
            "path_normalization_failed",
            "path_normalization_failed",
        ),
    ] {
        let expected = [none, base, merge, decode].map(|e| if e == "=" { sent } else { e });
        assert_eq!(all(sent), expected, "{sent}");
    }
}

#[test]
fn the_query_stays_as_sent_and_the_fragment_goes() {
    // S-181.
    for (sent, base) in [
        ("/a/../b?c/../d//%2e%00|", "/b?c/../d//%2e%00|"),
        ("/a?b#c", "/a?b"),
        ("/a#b?c", "/a"),
        ("/a/..#/b", "/"),
        ("/a/..?#", "/?"),
        ("/?", "/?"),
        ("/a?b?c", "/a?b?c"),
    ] {
        assert_eq!(text(sent, Normalization::Base, true), base, "{sent}");
    }
    assert_eq!(text("/a/..?x#y", Normalization::None, true), "/a/..?x");
}

#[test]
fn a_stray_percent_sign_never_becomes_an_escape() {
    // S-183.
    for (sent, base) in [
        ("/a%", "/a%"),
        ("/a%zz", "/a%zz"),
        ("/a%2", "/a%2"),
        ("/%2%41", "/%252A"),
        ("/%0%41", "/%250A"),
        ("/%%341", "/%2541"),
        ("/%%34%31", "/%2541"),
        ("/%%30%30", "/%2500"),
        ("/%%34g", "/%4g"),
        ("/%%34/1", "/%4/1"),
        ("/%%7e1", "/%~1"),
        ("/x%/../%41", "/A"),
        ("/x%/../ab%411", "/abA1"),
        ("/%/x/../%411", "/%/A1"),
        ("/%%", "/%%"),
    ] {
        assert_eq!(text(sent, Normalization::Base, true), base, "{sent}");
    }
    for refused in ["/%%0000", "/xyz/.%00../abc", "/a%00/../b"] {
        assert_eq!(
            normalize(refused.as_bytes(), Normalization::Base, true),
            Err(PathError::Nul),
            "{refused}"
        );
    }
}

#[test]
fn parameters_of_dot_segments_are_stripped_if_asked() {
    // S-200.
    for (sent, stripped, kept) in [
        ("/..;/admin", "/admin", "/..;/admin"),
        ("/xyz/..;a=b/abc", "/abc", "/xyz/..;a=b/abc"),
        ("/xyz/.;p/abc", "/xyz/abc", "/xyz/.;p/abc"),
        ("/xyz/..;p", "/", "/xyz/..;p"),
        ("/x/%2e%2e;/admin", "/x/..;/admin", "/x/..;/admin"),
        ("/x/.%2e;/admin", "/x/..;/admin", "/x/..;/admin"),
        ("/...;x", "/...;x", "/...;x"),
        ("/admin;a=b", "/admin;a=b", "/admin;a=b"),
        (r"/x\..;/y", "/x/..;/y", "/x/..;/y"),
        (r"/x/..;a\b/y", "/y", "/x/..;a/b/y"),
        ("/a..;/b", "/a..;/b", "/a..;/b"),
        (".;", "/", "/.;"),
    ] {
        assert_eq!(text(sent, Normalization::Base, true), stripped, "{sent}");
        assert_eq!(text(sent, Normalization::Base, false), kept, "{sent}");
        assert_eq!(text(sent, Normalization::None, true), sent, "{sent}");
    }
    assert_eq!(
        text(
            "/x%2f..;p%2fadmin",
            Normalization::DecodeAndMergeSlashes,
            true
        ),
        "/admin"
    );
}

#[test]
fn a_path_of_slashes_alone_keeps_two() {
    // S-184.
    for (sent, merged) in [
        ("/", "/"),
        ("//", "//"),
        ("/////", "//"),
        ("/a//..//", "/a/"),
        ("/a/..//", "//"),
    ] {
        assert_eq!(
            text(sent, Normalization::MergeSlashes, true),
            merged,
            "{sent}"
        );
    }
    assert_eq!(
        text("/%5c", Normalization::DecodeAndMergeSlashes, true),
        "//"
    );
}

#[test]
fn a_missing_slash_is_added() {
    // S-182.
    for (sent, base) in [
        ("", "/"),
        ("?x", "/?x"),
        ("a/b", "/a/b"),
        ("../a", "/a"),
        (r"\a", "/a"),
        ("#f", "/"),
    ] {
        assert_eq!(text(sent, Normalization::Base, true), base, "{sent}");
        assert!(
            !acceptable(sent.as_bytes()),
            "no request line carries {sent}"
        );
    }
}

#[test]
fn bytes_outside_printable_ascii_are_refused_in_every_mode() {
    // S-182.
    for byte in (0..=0x20).chain(0x7f..=0xff) {
        for place in [&b"/a"[..], b"/a?b"] {
            let sent = [place, &[byte], b"c"].concat();
            for mode in MODES {
                assert_eq!(
                    normalize(&sent, mode, true),
                    Err(PathError::Byte),
                    "{byte:#x}"
                );
            }
            assert!(!acceptable(&sent));
        }
    }
}

#[test]
fn exactly_eight_printable_bytes_come_out_escaped() {
    // S-182; `\` is turned, `%` alone is stray, `?` and `#` end the path, dots and slashes are not alone here.
    let mut escaped = String::new();
    for byte in 0x21..0x7f {
        let sent = format!("/a{}b", char::from(byte));
        if text(&sent, Normalization::Base, true) == format!("/a%{byte:02X}b") {
            escaped.push(char::from(byte));
        }
    }
    assert_eq!(escaped, "\"<>^`{|}");
}

#[test]
fn a_normal_path_is_lent() {
    for sent in [
        "/",
        "/index.html",
        "/api/v1/catalog/items;v=2/x.y?limit=10&after=%2f..//",
        "/.well-known/openid-configuration",
        "/a%20b%c3%a9/%25",
        "/a%zz%",
        "/...",
        "/a%2fb",
    ] {
        for mode in [
            Normalization::None,
            Normalization::Base,
            Normalization::MergeSlashes,
        ] {
            let out = normalize(sent.as_bytes(), mode, true);
            assert!(matches!(out, Ok(Cow::Borrowed(_))), "{sent} {mode:?}");
        }
    }
}

#[test]
fn one_look_is_enough_for_most_paths_in_normal_form() {
    let look = |sent: &str, mode| {
        let scanned = scan(sent.as_bytes(), mode).expect("printable bytes");
        (scanned.end, scanned.normal)
    };
    for sent in [
        "/",
        "/a/b.c/.d/x..y/z.",
        "/x;/y;.",
        "/.~/.-/.a",
        "/a%20b%c3%a9/%25%3b",
        "/a?b//../.%41%2f%00|",
        "/a?/./#b",
        "/a/b#/../",
    ] {
        let end = sent.find('#').unwrap_or(sent.len());
        for mode in MODES {
            assert_eq!(look(sent, mode), (end, true), "{sent} {mode:?}");
        }
    }
    for sent in [
        "/...", "/..c", "/.;", "/.%", "/a|b", "a/b", "/%41", "/%0", "/%00",
    ] {
        for mode in MODES {
            let unchanged = mode == Normalization::None;
            assert_eq!(look(sent, mode), (sent.len(), unchanged), "{sent} {mode:?}");
        }
    }
    assert_eq!(look("/a//b", Normalization::Base), (5, true));
    assert_eq!(look("/a//b", Normalization::MergeSlashes), (5, false));
}

#[test]
fn escapes_of_slashes_are_in_normal_form_unless_they_are_to_be_decoded() {
    for sent in ["/a%2fb", "/a%5Cb"] {
        for mode in MODES {
            let scanned = scan(sent.as_bytes(), mode).expect("printable bytes");
            let kept = mode != Normalization::DecodeAndMergeSlashes;
            assert_eq!(scanned.normal, kept, "{sent} {mode:?} (S-181)");
        }
    }
}

#[test]
fn a_request_line_carries_what_begins_with_a_slash_and_is_printable() {
    for target in ["/", "/a?b#c", "/~!\"<>%zz"] {
        assert!(acceptable(target.as_bytes()), "{target} (S-182)");
    }
    for target in ["*", "a/", "http://h/", "/a b"] {
        assert!(!acceptable(target.as_bytes()), "{target} (S-182)");
    }
}

#[test]
fn the_path_ends_at_the_query() {
    for (path, before) in [
        ("/a?b", "/a"),
        ("/a", "/a"),
        ("/a#b?c", "/a"),
        ("?", ""),
        ("", ""),
    ] {
        assert_eq!(without_query(path.as_bytes()), before.as_bytes());
    }
}

/// The same rules, segment by segment and without regard to speed.
mod model {
    use super::*;

    pub(super) fn normalize(target: &[u8], mode: Normalization, strip: bool) -> Option<Vec<u8>> {
        let target = target.split(|b| *b == b'#').next().unwrap_or_default();
        if target.iter().any(|b| !(0x21..0x7f).contains(b)) {
            return None;
        }
        if mode == Normalization::None {
            return Some(target.to_vec());
        }
        let target = String::from_utf8(target.to_vec()).ok()?;
        let (path, query) = match target.find('?') {
            Some(at) => target.split_at(at),
            None => (&*target, ""),
        };
        let mut path = path.to_owned();
        if mode == Normalization::DecodeAndMergeSlashes {
            path = ["%2f", "%2F"].iter().fold(path, |p, e| p.replace(e, "\0"));
            path = ["%5c", "%5C"].iter().fold(path, |p, e| p.replace(e, "\\"));
            path = path.replace('\0', "/");
        }
        if strip {
            let bare = |segment: &str| match segment {
                s if s.starts_with("..;") => "..".to_owned(),
                s if s.starts_with(".;") => ".".to_owned(),
                s => s.to_owned(),
            };
            path = path.split('/').map(bare).collect::<Vec<_>>().join("/");
        }
        path = path.replace('\\', "/");
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
        if path.contains("%00") {
            return None;
        }
        let mut kept: Vec<String> = Vec::new();
        let mut segments = path.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let last = segments.peek().is_none();
            match segment.replace("%2e", ".").replace("%2E", ".").as_str() {
                "." => kept.extend(last.then(String::new)),
                ".." => {
                    kept.pop();
                    kept.extend(last.then(String::new));
                }
                _ => kept.push(escapes(segment)),
            }
        }
        let merge = mode != Normalization::Base;
        let joined = if !merge || kept.len() < 2 {
            format!("/{}", kept.join("/"))
        } else {
            let names: Vec<&str> = kept
                .iter()
                .map(String::as_str)
                .filter(|s| !s.is_empty())
                .collect();
            let end = if kept.last().is_some_and(String::is_empty) {
                "/"
            } else {
                ""
            };
            format!("/{}{end}", names.join("/"))
        };
        Some(format!("{joined}{query}").into_bytes())
    }

    enum Token {
        Raw(char),
        Decoded(char),
        Kept(String),
        Stray,
    }

    fn escapes(segment: &str) -> String {
        let mut tokens = Vec::new();
        let mut rest = segment;
        while let Some(first) = rest.chars().next() {
            let value = rest.get(1..3).filter(|_| first == '%').and_then(|digits| {
                let plain = digits.chars().all(|c| c.is_ascii_hexdigit());
                plain
                    .then(|| u8::from_str_radix(digits, 16).ok())
                    .flatten()
                    .map(char::from)
            });
            let (token, length) = match value {
                Some(c) if c.is_ascii_alphanumeric() || "-._~".contains(c) => {
                    (Token::Decoded(c), 3)
                }
                Some(_) => (Token::Kept(rest[..3].to_owned()), 3),
                None if first == '%' => (Token::Stray, 1),
                None => (Token::Raw(first), 1),
            };
            tokens.push(token);
            rest = &rest[length..];
        }
        let digit = |at: usize| match tokens.get(at) {
            Some(Token::Raw(c) | Token::Decoded(c)) => c.is_ascii_hexdigit(),
            _ => false,
        };
        let mut out = String::new();
        for (at, token) in tokens.iter().enumerate() {
            match token {
                Token::Raw(c) if "\"<>^`{|}".contains(*c) => {
                    out += &format!("%{:02X}", u32::from(*c))
                }
                Token::Raw(c) | Token::Decoded(c) => out.push(*c),
                Token::Kept(escape) => out += escape,
                Token::Stray if digit(at + 1) && digit(at + 2) => out += "%25",
                Token::Stray => out.push('%'),
            }
        }
        out
    }
}

/// Targets in which nearly every byte matters.
fn crafted() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "/", "/", "/", ".", "..", "%2e", "%2E", "%2f", "%2F", "%5c", "%5C", "\\", "%", "%", "2",
        "4", "1", "0", "f", "5c", "%41", "%34", "%31", "%30", "%66", "%25", "%20", "%7e", "%3b",
        ";", "..;", ".;", "a", "b", "?", "#", "|", "\"", "[", "~", "%00", "%c0", "%zz",
    ]);
    (any::<bool>(), prop::collection::vec(pieces, 0..14)).prop_map(|(slash, pieces)| {
        let front = if slash { "/" } else { "" };
        format!("{front}{}", pieces.concat()).into_bytes()
    })
}

fn modes() -> impl Strategy<Value = Normalization> {
    prop::sample::select(MODES.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rewriter_agrees_with_the_model(path in crafted(), mode in modes(), strip: bool) {
        let out = normalize(&path, mode, strip).ok().map(Cow::into_owned);
        prop_assert_eq!(out, model::normalize(&path, mode, strip), "{}", String::from_utf8_lossy(&path));
    }

    #[test]
    fn any_bytes_agree_with_the_model(path: Vec<u8>, mode in modes(), strip: bool) {
        let out = normalize(&path, mode, strip).ok().map(Cow::into_owned);
        prop_assert_eq!(out, model::normalize(&path, mode, strip));
    }

    #[test]
    fn a_normal_form_is_a_fixed_point_and_lent(path in crafted(), mode in modes()) {
        if let Ok(once) = normalize(&path, mode, false) {
            let twice = normalize(&once, mode, false).expect("a normal form is a target");
            prop_assert!(matches!(twice, Cow::Borrowed(_)), "{:?}", String::from_utf8_lossy(&once));
            prop_assert_eq!(&*twice, &*once);
        }
    }

    #[test]
    fn a_normal_form_has_no_dot_segments(path in crafted(), strip: bool) {
        for mode in [Normalization::Base, Normalization::MergeSlashes, Normalization::DecodeAndMergeSlashes] {
            let Ok(out) = normalize(&path, mode, strip) else { continue };
            let before = String::from_utf8_lossy(without_query(&out)).into_owned();
            prop_assert!(before.starts_with('/'));
            prop_assert!(before.split('/').all(|s| s != "." && s != ".."), "{}", before);
            prop_assert!(mode == Normalization::Base || before == "//" || !before.contains("//"), "{}", before);
        }
    }

    #[test]
    fn what_is_owned_was_changed(path in crafted(), mode in modes(), strip: bool) {
        if let Ok(Cow::Owned(out)) = normalize(&path, mode, strip) {
            prop_assert_ne!(out, path);
        }
    }
}
