//! Expectations that are wrong in one value, to see that a check looks at it.

use meshward_core::api::load::yaml::{Node, Value};

use super::Expect;

/// `expect` with each of its values changed, one at a time.
pub(super) fn of(expect: &Expect) -> Vec<Expect> {
    let mut all = Vec::new();
    for (name, node) in expect {
        for changed in changes(name, node) {
            let mut lie = expect.clone();
            lie.insert(name.clone(), changed);
            all.push(lie);
        }
    }
    all
}

fn changes(name: &str, node: &Node) -> Vec<Node> {
    let with = |value| Node {
        place: node.place,
        value,
    };
    let text = |text: String| Value::Text {
        text,
        literal: false,
    };
    match &node.value {
        // What must be absent and has another name is absent too.
        _ if name == "not" => Vec::new(),
        // A time that is right within a second.
        Value::Number(number) if name == "after_s" => {
            vec![with(Value::Number(format!("1{number}")))]
        }
        Value::Null => vec![with(text("something".into()))],
        Value::Bool(value) => vec![with(Value::Bool(!value))],
        Value::Number(number) => vec![with(Value::Number(format!("1{number}")))],
        Value::Text { text: words, .. } => vec![with(text(format!("{words}x"))), with(Value::Null)],
        Value::List(items) => {
            let mut more = items.clone();
            more.push(with(text("more".into())));
            vec![with(Value::List(more))]
        }
        Value::Map(entries) => {
            let mut all = Vec::new();
            for (at, (key, node)) in entries.iter().enumerate() {
                for changed in changes(&key.name, node) {
                    let mut entries = entries.clone();
                    entries[at].1 = changed;
                    all.push(with(Value::Map(entries)));
                }
            }
            all
        }
    }
}
