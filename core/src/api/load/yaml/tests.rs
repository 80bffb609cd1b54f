use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Node {
    parse(text)
        .expect("the text is YAML")
        .root
        .expect("the text is not empty")
}

fn refused(text: &str) -> Unreadable {
    parse(text).expect_err("the text is no YAML that is read")
}

fn at(line: u32, column: u32) -> Place {
    Place { line, column }
}

fn entry<'n>(node: &'n Node, name: &str) -> (&'n Key, &'n Node) {
    let Value::Map(entries) = &node.value else {
        panic!("{node:?} is no map")
    };
    let (key, node) = entries
        .iter()
        .find(|(key, _)| key.name == name)
        .expect("the key is there");
    (key, node)
}

fn text(text: &str) -> Value {
    Value::Text {
        text: text.to_owned(),
        literal: false,
    }
}

#[test]
fn every_key_and_value_knows_its_place() {
    let node = read("# c\na: 1\nlist:\n- x\n- {b: y}\n");
    assert_eq!(node.place, at(2, 1));
    let (key, list) = entry(&node, "list");
    // A list in block form stands where its first item does.
    assert_eq!((key.place, list.place), (at(3, 1), at(4, 3)));
    let Value::List(items) = &list.value else {
        panic!("{list:?} is no list")
    };
    assert_eq!(items[0].place, at(4, 3));
    let (key, value) = entry(&items[1], "b");
    assert_eq!((key.place, value.place), (at(5, 4), at(5, 7)));
}

#[test]
fn a_fault_is_said_in_plain_characters() {
    assert_eq!(refused("{a: 1").message, "unclosed bracket '{'");
    assert_eq!(visible("\u{1b}[2J 'a' \"b\" \\"), "\\u{1b}[2J 'a' \"b\" \\");
}

#[test]
fn columns_count_characters() {
    let node = read("{é: x, b: y}");
    assert_eq!(entry(&node, "b").1.place, at(1, 11));
}

#[test]
fn plain_scalars_are_what_kubectl_takes_them_for() {
    for (plain, value) in [
        ("true", Value::Bool(true)),
        ("No", Value::Bool(false)),
        ("on", Value::Bool(true)),
        ("y", text("y")),
        ("n", text("n")),
        ("~", Value::Null),
        ("null", Value::Null),
        ("8080", Value::Number("8080".into())),
        ("1.10", Value::Number("1.10".into())),
        ("-1e3", Value::Number("-1e3".into())),
        ("0x1F", Value::Number("0x1F".into())),
        ("010", Value::Number("010".into())),
        ("1_000", Value::Number("1_000".into())),
        (".5", Value::Number(".5".into())),
        (".inf", Value::Number(".inf".into())),
        ("10.0.0.1", text("10.0.0.1")),
        ("2026-01-02T03:04:05Z", text("2026-01-02T03:04:05Z")),
        ("12:30:45", text("12:30:45")),
        ("1e", text("1e")),
        (".", text(".")),
        ("0x", text("0x")),
        ("v1", text("v1")),
    ] {
        assert_eq!(
            entry(&read(&format!("k: {plain}")), "k").1.value,
            value,
            "{plain}"
        );
        assert_eq!(
            entry(&read(&format!("k: '{plain}'")), "k").1.value,
            text(plain),
            "'{plain}'"
        );
    }
}

#[test]
fn tags_hold_only_where_they_change_nothing_or_make_text() {
    assert_eq!(read("!!str 12").value, text("12"));
    assert_eq!(read("! 12").value, text("12"));
    assert_eq!(read("!!int 12").value, Value::Number("12".into()));
    assert_eq!(read("!!map {}").value, Value::Map(Vec::new()));
    for wrong in [
        "!!int x",
        "!!bool \"true\"",
        "!!map []",
        "!mine x",
        "!!binary aGk=",
        "!mine [x]",
    ] {
        assert_eq!(
            refused(wrong).message,
            "the tag does not fit its value",
            "{wrong}"
        );
    }
}

#[test]
fn json_is_read_with_its_tabs_and_escapes() {
    let node = read("{\n\t\"a\": \"x\\/y\\u00e9\",\n\t\"b\": [1, null]\n}");
    assert_eq!(entry(&node, "a").1.value, text("x/yé"));
    assert_eq!(entry(&node, "b").1.place, at(3, 7));
}

#[test]
fn keys_are_names_whatever_they_look_like() {
    let node = read("80: a\ntrue: b\n\"x\": c\n");
    assert_eq!(entry(&node, "80").1.value, text("a"));
    assert_eq!(entry(&node, "true").1.value, text("b"));
    assert_eq!(refused("? [a]\n: b").place, at(1, 3));
    assert_eq!(refused("~: x").message, "a key is missing before `:`");
}

#[test]
fn repeated_keys_are_all_found_and_the_first_counts() {
    let document = parse("a: 1\n80: x\na: 2\n\"80\": y\na: 3\n").expect("the text is YAML");
    let places: Vec<_> = document.repeated.iter().map(|key| key.place.line).collect();
    assert_eq!(places, [3, 4, 5]);
    assert_eq!(
        entry(&document.root.expect("a map"), "a").1.value,
        Value::Number("1".into())
    );
}

#[test]
fn an_alias_stands_for_its_anchor_at_its_own_place() {
    let node = read("a: &x [1, 2]\nb: *x\n");
    let (_, first) = entry(&node, "a");
    let (_, second) = entry(&node, "b");
    assert_eq!((&second.value, second.place), (&first.value, at(2, 4)));
    assert_eq!(
        refused("a: &x [*x]").message,
        "the alias stands inside the value that it repeats"
    );
    assert_eq!(refused("a: *unknown").place, at(1, 4));
}

#[test]
fn merged_keys_yield_to_those_of_the_map_and_to_earlier_sources() {
    let node = read("a: &a {k: 1, z: 1}\nb: &b {k: 2, y: 2}\nc:\n  <<: [*a, *b]\n  z: 3\n");
    let (_, merged) = entry(&node, "c");
    let value = |name| entry(merged, name).1.value.clone();
    assert_eq!(value("k"), Value::Number("1".into()));
    assert_eq!(value("y"), Value::Number("2".into()));
    assert_eq!(value("z"), Value::Number("3".into()));
    assert_eq!(
        refused("a:\n  <<: 1\n").message,
        "`<<` takes a map or a list of maps"
    );
    assert_eq!(
        entry(&read("'<<': 1"), "<<").1.value,
        Value::Number("1".into())
    );
}

#[test]
fn documents_are_cut_at_their_markers_alone() {
    let text = "# head\n%YAML 1.2\n---\na: |\n  ---\n  x\n--- # c\n---\nb: '--- '\n...\nc: ----\n";
    let found = documents(text);
    let lines: Vec<_> = found.iter().map(|(lines, _)| *lines).collect();
    assert_eq!(lines, [0, 6, 7, 10]);
    let roots: Vec<_> = found
        .iter()
        .map(|(_, text)| parse(text).expect("YAML").root)
        .collect();
    assert_eq!(
        roots.iter().map(Option::is_some).collect::<Vec<_>>(),
        [true, true, true, true]
    );
    assert_eq!(
        roots[1].as_ref().map(|node| &node.value),
        Some(&Value::Null)
    );
    assert!(documents("# nothing\n\n").is_empty());
    assert_eq!(documents("a: 1").len(), 1);
}

#[test]
fn what_is_no_yaml_says_where() {
    for (wrong, place) in [
        ("a:\n\t- b", at(2, 2)),
        ("a: b: c", at(1, 5)),
        ("- a\nb: c", at(2, 1)),
        ("\"a: b", at(1, 1)),
        ("@a", at(1, 1)),
        ("a: \u{1}", at(1, 4)),
        ("{\"a\": 1} {\"b\": 2}", at(1, 10)),
    ] {
        assert_eq!(refused(wrong).place, place, "{wrong:?}");
    }
}

#[test]
fn nesting_ends_at_its_limit_in_every_form() {
    let level = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&level(DEPTH_MAX)).is_ok());
    assert!(parse(&level(DEPTH_MAX + 1)).is_err());
    let blocks: String = (0..10_000).fold(String::new(), |text, i| {
        text + &" ".repeat(i % 100) + "a:\n"
    });
    assert!(parse(&blocks).is_err());
    for text in [
        "[".repeat(10_000),
        "{a: ".repeat(10_000),
        "- ".repeat(10_000) + "x",
    ] {
        assert_eq!(
            refused(&text).message,
            format!("lists and maps are nested deeper than {DEPTH_MAX} levels")
        );
    }
    let stairs: String = (0..1_000).map(|i| " ".repeat(i) + "a:\n").collect();
    assert_eq!(
        refused(&stairs).place.line,
        u32::try_from(DEPTH_MAX + 1).expect("it is small")
    );
    let under_alias = format!(
        "a: &a {}\nb: {}*a{}\n",
        level(40),
        "[".repeat(40),
        "]".repeat(40)
    );
    assert_eq!(refused(&under_alias).place.line, 2);
}

#[test]
fn aliases_cannot_multiply_what_was_sent() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..12 {
        let inner = vec![format!("*a{}", i - 1); 9].join(",");
        bomb += &format!("a{i}: &a{i} [{inner}]\n");
    }
    assert!(
        refused(&bomb)
            .message
            .starts_with("the document has more than")
    );
    let long = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(1 << 20),
        vec!["*a"; 100].join(",")
    );
    assert_eq!(refused(&long).place.line, 2);
}

#[test]
fn a_document_beyond_the_limit_is_not_even_scanned() {
    let large = "a: b\n".repeat(DOCUMENT_MAX / 5 + 1);
    assert_eq!(refused(&large).place, at(1, 1));
}

const VALID: &str = "a: &x {b: [1, 'two', \"th\\u0072ee\"], c: ~}\nd: *x\n<<: *x\ne: |\n  text\n  more\nf: >-\n  folded\n? g\n: !!str 1\n";

proptest! {
    #[test]
    fn cut_and_damaged_text_never_panics(
        cut in 0..=VALID.len(),
        changes in proptest::collection::vec((0..VALID.len(), any::<u8>()), 0..6),
    ) {
        let mut bytes = VALID.as_bytes().to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(cut);
        let text = String::from_utf8_lossy(&bytes);
        for (_, document) in documents(&text) {
            let _ = parse(document);
        }
    }

    #[test]
    fn any_text_at_all_never_panics(text in "[-\\[\\]{}:,?&*!|>'\"%@`# \n\ta-c0-9~<.]{0,80}") {
        let total: usize = documents(&text).iter().map(|(_, document)| document.len()).sum();
        prop_assert!(total <= text.len());
        for (_, document) in documents(&text) {
            let _ = parse(document);
        }
    }
}
