use std::sync::Arc;

use super::super::reader::Purpose;
use super::super::yaml;
use super::*;

const TABLE: &str = "\
# comment
Root
  plain_text string
  yes_or_no bool
  small uint32
  signed int32
  big int64
  ratio double
  wait duration
  free struct
  texts repeated string
  by_name map Inner
  mode Mode
  first string oneof choice
  second Inner oneof choice

Inner
  a string

Mode = OFF:0 ON:5
";

fn errors(text: &str) -> Vec<String> {
    let schema = Schema::parse(TABLE).expect("the table is well-formed");
    let node = yaml::parse(text)
        .expect("the text is YAML")
        .root
        .expect("the text is not empty");
    let mut report = Report::new(Arc::from("f"), Purpose::Validate);
    schema.check(&node, "Root", &mut report);
    report
        .into_findings()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_table_that_breaks_its_grammar_is_none() {
    for table in [
        "  field string\n",
        "M\n  field\n",
        "M\n  field Missing\n",
        "M\n  f string oneof\n",
        "M\n  f string of x\n",
        "E = A\n",
        "E = A:b\n",
    ] {
        assert!(Schema::parse(table).is_none(), "{table}");
    }
}

#[test]
fn values_may_be_written_as_protobuf_writes_json() {
    for text in [
        "{plainText: x, plain_text: null}",
        "{small: 7, signed: \"-7\", big: '9007199254740993'}",
        "{ratio: 1.5}",
        "{ratio: \"2\", wait: 1m30s, free: {any: [thing]}}",
        "{texts: [], byName: {x: {a: b}}, by_name: null}",
        "{mode: \"ON\"}",
        "{mode: 5}",
        "{mode: \"OFF\", first: null, second: {}}",
    ] {
        let found = errors(text);
        let twice = text.contains("null") && found.iter().all(|error| error.contains("same field"));
        assert!(found.is_empty() || twice, "{text}: {found:?}");
    }
}

#[test]
fn values_of_another_type_are_errors() {
    for text in [
        "{plainText: 5}",
        "{plainText: true}",
        "{yesOrNo: \"true\"}",
        "{small: -1}",
        "{small: \"-1\"}",
        "{small: 4294967296}",
        "{small: 8000.5}",
        "{small: \"80x\"}",
        "{small: 010}",
        "{small: 0x10}",
        "{small: []}",
        "{ratio: x}",
        "{ratio: .nan}",
        "{wait: 5}",
        "{wait: 5}",
        "{wait: -1s}",
        "{texts: x}",
        "{texts: [1]}",
        "{byName: {x: {b: c}}}",
        "{mode: on_}",
        "{mode: ON}",
        "{mode: 1}",
        "{mode: \"5\"}",
        "{first: x, second: {}}",
        "{plainText: x, plain_text: y}",
        "{unknown: 1}",
        "[]",
    ] {
        assert_eq!(errors(text).len(), 1, "{text}: {:?}", errors(text));
    }
}

#[test]
fn an_error_names_the_place_and_the_likely_field() {
    assert_eq!(
        errors("mode: 5\nplainTxt: x\n"),
        ["f:2:1: unknown field `plainTxt` in `Root`\n  hint: did you mean `plainText`?"]
    );
}

/// S-10: what becomes a whole number on the way from YAML to JSON is one; quotes keep a text as it is.
#[test]
fn numbers_are_whole_by_value_and_texts_by_spelling() {
    for text in [
        "small: 8000.0",
        "small: 8e3",
        "small: '8000'",
        "small: 0",
        "signed: -1.0",
        "small: 4294967295",
        "big: '-1'",
    ] {
        assert_eq!(errors(text), [""; 0], "{text}");
    }
    for text in [
        "small: 8000.5",
        "small: '8000.0'",
        "small: '8e3'",
        "small: '-2'",
        "small: -1",
        "small: -1.0",
        "small: 4294967296",
        "small: 4294967296.0",
        "small: 1e300",
        "small: .inf",
        "small: .nan",
        "small: '080'",
        "small: ''",
        "small: true",
        "big: 1e17",
    ] {
        assert_eq!(errors(text).len(), 1, "{text}");
    }
}
