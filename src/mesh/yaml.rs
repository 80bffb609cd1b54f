//! Objects as YAML, spelled as kubectl spells it: keys in order, lists at the depth of their key.

use serde_json::Value;

/// A document that ends with a line feed.
pub(crate) fn written(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => entries(value, 0, &mut text),
        Value::Array(list) if !list.is_empty() => items(list, 0, &mut text),
        _ => {
            scalar(value, 0, &mut text);
            text.push('\n');
        }
    }
    text
}

/// The entries of a map, the first one where the text is.
fn entries(value: &Value, depth: usize, text: &mut String) {
    let Value::Object(map) = value else {
        return;
    };
    let mut sorted: Vec<_> = map.iter().collect();
    sorted.sort_by_key(|(key, _)| *key);
    for (n, (key, value)) in sorted.into_iter().enumerate() {
        if n > 0 {
            indent(depth, text);
        }
        string(key, None, text);
        text.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                text.push('\n');
                indent(depth + 1, text);
                entries(value, depth + 1, text);
            }
            Value::Array(list) if !list.is_empty() => {
                text.push('\n');
                indent(depth, text);
                items(list, depth, text);
            }
            _ => {
                text.push(' ');
                scalar(value, depth + 1, text);
                text.push('\n');
            }
        }
    }
}

fn items(list: &[Value], depth: usize, text: &mut String) {
    for (n, value) in list.iter().enumerate() {
        if n > 0 {
            indent(depth, text);
        }
        text.push_str("- ");
        match value {
            Value::Object(map) if !map.is_empty() => entries(value, depth + 1, text),
            Value::Array(list) if !list.is_empty() => items(list, depth + 1, text),
            _ => {
                scalar(value, depth + 1, text);
                text.push('\n');
            }
        }
    }
}

fn scalar(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => text.push_str(&number.to_string()),
        Value::String(value) => string(value, Some(depth), text),
        Value::Array(_) => text.push_str("[]"),
        Value::Object(_) => text.push_str("{}"),
    }
}

/// `depth`: of the lines of a block; `None`: no block can stand here.
fn string(value: &str, depth: Option<usize>, text: &mut String) {
    let is_plain =
        |c: char| !c.is_control() && !matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}');
    let lines_are_plain = value.lines().all(|line| line.chars().all(is_plain));
    let first = value.lines().next().unwrap_or_default();
    let is_block = value.contains('\n')
        && lines_are_plain
        && !value.contains('\r')
        && !first.is_empty()
        && !first.starts_with([' ', '\t']);
    if let Some(depth) = depth
        && is_block
    {
        let body = value.trim_end_matches('\n');
        text.push_str(match value.len() - body.len() {
            0 => "|-",
            1 => "|",
            _ => "|+",
        });
        // The last line's end is the caller's.
        let lines = value.strip_suffix('\n').unwrap_or(value);
        for line in lines.split('\n') {
            text.push('\n');
            if !line.is_empty() {
                indent(depth, text);
                text.push_str(line);
            }
        }
    } else if is_other_type(value) || !value.chars().all(is_plain) {
        double_quoted(value, text);
    } else if needs_quotes(value) {
        text.push('\'');
        text.push_str(&value.replace('\'', "''"));
        text.push('\'');
    } else {
        text.push_str(value);
    }
}

/// As JSON, which is YAML too.
fn double_quoted(value: &str, text: &mut String) {
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

/// Without quotes it would be a boolean, a number, a time or nothing, in YAML 1.1 or 1.2.
fn is_other_type(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let is_word = matches!(
        lower.as_str(),
        "" | "~" | "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "<<" | "="
    );
    let unsigned = value.strip_prefix(['+', '-']).unwrap_or(value);
    let unsigned = unsigned.strip_prefix('.').unwrap_or(unsigned);
    let is_number = unsigned.starts_with(|c: char| c.is_ascii_digit())
        || matches!(lower.trim_start_matches(['+', '-']), ".inf" | ".nan");
    // Versions, addresses and blocks of them are no numbers of any YAML.
    let is_dotted = value.matches('.').count() > 1
        && value
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | '/'));
    is_word || is_number && !is_dotted
}

/// Without quotes it would be no YAML, or more than one text.
fn needs_quotes(value: &str) -> bool {
    let begins = value.starts_with([
        '!', '&', '*', '?', '|', '>', '@', '`', '"', '\'', '%', '#', '{', '}', '[', ']', ',', ':',
        ' ',
    ]);
    let is_item =
        value == "-" || value.starts_with("- ") || value.starts_with("---") || value == "...";
    begins || is_item || value.ends_with([' ', ':']) || value.contains(": ") || value.contains(" #")
}

fn indent(depth: usize, text: &mut String) {
    for _ in 0..depth {
        text.push_str("  ");
    }
}

#[cfg(test)]
mod tests {
    use meshward_core::api::load::yaml::{self, Value as Yaml};
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_read_as_kubectl_prints_them() {
        let object = json!({
            "kind": "Service", "apiVersion": "v1",
            "metadata": {"name": "web", "labels": {}, "annotations": {"a/b": "true"}},
            "spec": {"ports": [{"port": 80, "name": "http"}, {"port": 81}], "list": [["a", "b"], []],
                "text": "one\n\n  two\n", "none": null, "ip": "10.0.0.1", "version": "1.10"},
        });
        assert_eq!(
            written(&object),
            "apiVersion: v1\nkind: Service\nmetadata:\n  annotations:\n    a/b: \"true\"\n  labels: {}\n  name: web\n\
             spec:\n  ip: 10.0.0.1\n  list:\n  - - a\n    - b\n  - []\n  none: null\n  ports:\n  - name: http\n    port: 80\n  - port: 81\n  \
             text: |\n    one\n\n      two\n  version: \"1.10\"\n"
        );
    }

    #[test]
    fn every_text_comes_back_as_it_was() {
        for text in [
            "",
            " a",
            "a ",
            "a: b",
            "a:",
            ": a",
            "a #b",
            "#a",
            "-",
            "- a",
            "-a",
            "--- a",
            "...",
            "null",
            "~",
            "Yes",
            "n",
            "NULL",
            "1",
            "-1",
            "+1",
            "1.5",
            ".5",
            "-.5",
            ".inf",
            "-.INF",
            ".nan",
            "0x1f",
            "1e3",
            "1_0",
            "2026-01-02",
            "12:30",
            "10.0.0.0/8",
            "a\nb",
            "a\nb\n",
            "a\nb\n\n",
            "\na",
            " a\nb",
            "a\n b\n",
            "a\r\nb",
            "tab\there",
            "quote's",
            "\"q\"",
            "back\\slash",
            "*",
            "/api/*",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a`",
            "{a}",
            "[a]",
            ",a",
            "?",
            "? a",
            "|",
            ">",
            "=",
            "<<",
            "ünï",
            "\u{1f980}",
            "\u{85}",
            "\u{2028}x",
            "\u{feff}",
            "\u{0}",
            "\u{7f}",
            "a\n\n",
            "x\n# y\n",
            "key: |\n  v\n",
        ] {
            let document = written(&json!({ "k": text, "l": [text] }));
            let tree = yaml::parse(&document).unwrap_or_else(|e| panic!("{document:?}: {e:?}"));
            let root = tree.root.expect("a map");
            let node = root.field("k").expect("its entry");
            let Yaml::Text { text: read, .. } = &node.value else {
                panic!("{text:?} became {node:?}");
            };
            assert_eq!(read, text, "{document}");
            let Some(Yaml::List(items)) = root.field("l").map(|node| &node.value) else {
                panic!("{document}");
            };
            assert!(
                matches!(&items[0].value, Yaml::Text { text: read, .. } if read == text),
                "{document}"
            );
        }
    }
}
