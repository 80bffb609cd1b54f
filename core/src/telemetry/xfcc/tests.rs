use proptest::prelude::*;

use super::*;

const ME: &str = "spiffe://cluster.local/ns/shop/sa/api";
const PEER: &str = "spiffe://cluster.local/ns/stock/sa/client";

fn written(subject: &str, uri: &str, dns: &[&str]) -> String {
    let dns: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
    let mut out = Vec::new();
    element(ME, &[0xa5; 32], subject, uri, &dns, &mut out);
    String::from_utf8(out).expect("the header is ASCII")
}

#[test]
fn an_element_reads_as_the_documentation_shows_it() {
    // S-325.
    let hash = "a5".repeat(32);
    assert_eq!(
        written("", PEER, &[]),
        format!("By={ME};Hash={hash};Subject=\"\";URI={PEER}")
    );
    assert_eq!(
        written("CN=x,O=\"y\"", PEER, &["a.example", "b=c.example"]),
        format!(
            "By={ME};Hash={hash};Subject=\"CN=x,O=\\\"y\\\"\";URI={PEER};DNS=a.example;DNS=\"b=c.example\""
        )
    );
}

#[test]
fn an_element_follows_a_value_that_was_there() {
    let mut out = b"By=a".to_vec();
    element("b", &[0; 32], "", "u", &[], &mut out);
    assert!(out.starts_with(b"By=a,By=b;Hash=0000"));
}

#[test]
fn escapes_of_a_distinguished_name_are_not_escaped_again() {
    for (subject, text) in [
        (r"CN=a\,b", r#""CN=a\,b""#),
        (r#"CN=a\"b"#, r#""CN=a\"b""#),
        (r#"CN=a\\"b"#, r#""CN=a\\\"b""#),
        (r"CN=a\", r#""CN=a\\""#),
        ("CN=a\r\nb\u{e9}", r#""CN=a\0D\0Ab\C3\A9""#),
        ("CN=a\\\nb", r#""CN=a\0Ab""#),
    ] {
        let out = written(subject, PEER, &[]);
        assert!(
            out.contains(&format!(";Subject={text};URI={PEER}")),
            "{out}"
        );
        assert_eq!(parse(&out).map(|elements| elements.len()), Ok(1), "{out}");
    }
}

#[test]
fn keys_are_read_in_any_case_and_blanks_around_elements_are_dropped() {
    let elements = parse(" by=a ;uri=u").expect("a value");
    assert_eq!(
        elements[0].pairs,
        [(Key::By, "a".to_owned()), (Key::Uri, "u".to_owned())]
    );
    let elements = parse("By=a ,\tBy=\"b\" , URI=").expect("a value");
    assert_eq!(elements.len(), 3);
    assert_eq!(elements[1].all(Key::By).collect::<Vec<_>>(), ["b"]);
    assert_eq!(elements[2].all(Key::Uri).collect::<Vec<_>>(), [""]);
}

#[test]
fn what_could_mean_two_things_is_an_error() {
    for (text, error) in [
        ("", XfccError::Pair),
        ("By", XfccError::Pair),
        ("=a", XfccError::Pair),
        ("By=a;", XfccError::Pair),
        ("By=a,", XfccError::Pair),
        (",By=a", XfccError::Pair),
        ("By=a;;URI=b", XfccError::Pair),
        ("Who=a", XfccError::Key),
        ("By =a", XfccError::Key),
        ("By=a=b", XfccError::Unquoted),
        ("By=a\"b\"", XfccError::Unquoted),
        ("By=\"a", XfccError::Quotes),
        ("By=\"a\\\"", XfccError::Quotes),
        ("By=\"a\\", XfccError::Quotes),
        ("By=\"a\"b", XfccError::Quotes),
    ] {
        assert_eq!(parse(text), Err(error), "{text}");
    }
}

proptest! {
    #[test]
    fn a_written_element_has_exactly_its_pairs(subject: String, uri: String, dns: Vec<String>) {
        let mut out = Vec::new();
        element(ME, &[1; 32], &subject, &uri, &dns, &mut out);
        prop_assert!(out.iter().all(|b| matches!(b, b' '..=b'~')));
        let text = String::from_utf8(out).expect("ASCII");
        let elements = parse(&text).expect("what we write, we read");
        let keys: Vec<Key> = elements.iter().flat_map(|e| &e.pairs).map(|(key, _)| *key).collect();
        let mut expected = vec![Key::By, Key::Hash, Key::Subject, Key::Uri];
        expected.extend(dns.iter().map(|_| Key::Dns));
        prop_assert_eq!(elements.len(), 1);
        prop_assert_eq!(keys, expected);
        prop_assert_eq!(elements[0].all(Key::By).next(), Some(ME));
    }

    #[test]
    fn a_value_of_printable_text_comes_back(uri in r#"[!#-\[\]-~"]*"#) {
        let text = written("", &uri, &[]);
        let elements = parse(&text).expect("what we write, we read");
        prop_assert_eq!(elements[0].all(Key::Uri).next(), Some(&*uri));
    }

    #[test]
    fn reading_never_panics(text in r#"[A-Za-z=,;"\\ é]*"#) {
        let _ = parse(&text);
    }
}
