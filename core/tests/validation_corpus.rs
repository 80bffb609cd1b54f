//! Loads every resource that the shared corpus and Istio's own tests apply.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test reads the shared material, which the core itself may not"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meshward_core::api::load::yaml::{self, Node, Value};
use meshward_core::api::load::{Cause, Loaded, Text, validate};

/// The shared folder; `None`, after a line that says so, where it is absent and may be.
fn shared() -> Option<PathBuf> {
    let root = std::env::var_os("MESHWARD_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    if root.join("corpus/open").is_dir() {
        return Some(root);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "no corpus at {}",
        root.display()
    );
    println!("skipped: no corpus at {}", root.display());
    None
}

fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    match &node.value {
        Value::Map(entries) => entries
            .iter()
            .find(|(key, _)| key.name == name)
            .map(|(_, node)| node),
        _ => None,
    }
}

fn text<'n>(node: &'n Node, name: &str) -> Option<&'n str> {
    match &field(node, name)?.value {
        Value::Text { text, .. } => Some(text),
        _ => None,
    }
}

fn items<'n>(node: &'n Node, name: &str) -> &'n [Node] {
    match field(node, name).map(|node| &node.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

/// A tree as JSON, which is YAML.
fn to_json(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(text) => text.clone(),
        Value::Text { text, .. } => serde_json::to_string(text).expect("text is JSON"),
        Value::List(items) => format!(
            "[{}]",
            items.iter().map(to_json).collect::<Vec<_>>().join(", ")
        ),
        Value::Map(entries) => {
            let entry = |(key, node): &(yaml::Key, Node)| {
                format!(
                    "{}: {}",
                    serde_json::to_string(&key.name).expect("text is JSON"),
                    to_json(node)
                )
            };
            format!(
                "{{{}}}",
                entries.iter().map(entry).collect::<Vec<_>>().join(", ")
            )
        }
    }
}

/// The cases of every file of the corpus, as trees.
fn cases(root: &Path) -> Vec<Node> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root.join("corpus/open"))
        .expect("the corpus can be listed")
        .map(|entry| entry.expect("the corpus can be listed").path())
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let content = std::fs::read_to_string(&file).expect("a corpus file can be read");
        let document =
            yaml::parse(&content).unwrap_or_else(|error| panic!("{}: {error:?}", file.display()));
        assert_eq!(document.repeated, [], "{}: keys are unique", file.display());
        cases.extend(items(&document.root.expect("a corpus file is not empty"), "cases").to_vec());
    }
    cases
}

fn run(name: &str, text: &str) -> Loaded {
    let text = Text {
        name: Arc::from(name),
        text: without_placeholders(text),
    };
    validate(&[text], "default")
}

/// The text with an empty key set for each `${JWKS:…}` and an address for each `${JWKSURI:…}`.
fn without_placeholders(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${JWKS") {
        let (before, from) = rest.split_at(at);
        let end = from.find('}').expect("a placeholder is closed") + 1;
        let (placeholder, after) = from.split_at(end);
        out.push_str(before);
        out.push_str(match before.chars().next_back() {
            _ if placeholder.starts_with("${JWKSURI:") => "http://keys.example/",
            Some('"') => "{\\\"keys\\\":[]}",
            Some('\'') => "{\"keys\":[]}",
            _ => "'{\"keys\":[]}'",
        });
        rest = after;
    }
    out.push_str(rest);
    out
}

fn put(out: &mut String, line: impl std::fmt::Display) {
    writeln!(out, "{line}").expect("a string can be written to");
}

/// What the corpus applies past admission, to show what a proxy makes of it. Here loading is the admission.
const REFUSED_AT_ADMISSION: [(&str, &str); 1] = [(
    "dry-run-015",
    "S-165: a dry-run annotation that is no boolean",
)];

#[test]
fn every_resource_and_mesh_configuration_that_the_corpus_applies_is_valid() {
    let Some(root) = shared() else { return };
    let (mut resources, mut configs, mut wrong) = (0, 0, String::new());
    for case in cases(&root) {
        let id = text(&case, "id").expect("a case has an id");
        let mut loads = Vec::new();
        if let Some(text) = text(&case, "resources") {
            loads.push(run(id, text));
        }
        if let Some(
            config @ Node {
                value: Value::Map(entries),
                ..
            },
        ) = field(&case, "mesh_config")
        {
            // `env` is not Istio's: it sets up the harness.
            let entries = entries
                .iter()
                .filter(|(key, _)| key.name != "env")
                .cloned()
                .collect();
            let config = Node {
                place: config.place,
                value: Value::Map(entries),
            };
            loads.push(run(id, &format!("mesh: {}", to_json(&config))));
        }
        for loaded in loads {
            resources += loaded.authorization_policies.len()
                + loaded.peer_authentications.len()
                + loaded.request_authentications.len();
            configs += usize::from(loaded.mesh_config.is_some());
            let mut invalid = loaded
                .findings
                .iter()
                .filter(|finding| finding.cause == Cause::Invalid)
                .peekable();
            if let Some((_, reason)) = REFUSED_AT_ADMISSION
                .iter()
                .find(|(refused, _)| *refused == id)
            {
                assert!(
                    invalid.next().is_some(),
                    "{id} was accepted, against {reason}"
                );
            }
            invalid.for_each(|finding| put(&mut wrong, finding));
        }
    }
    println!("{resources} policies and {configs} mesh configurations are valid");
    assert!(
        resources >= 290 && configs >= 20,
        "only {resources} policies and {configs} configurations"
    );
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn the_policies_of_istios_own_tests_load() {
    let Some(root) = shared() else { return };
    let file = root.join("suites/data/istio_authz_builder.ndjson");
    let lines = std::fs::read_to_string(file).expect("the suite can be read");
    let (mut policies, mut wrong) = (0, String::new());
    for line in lines.lines() {
        let case: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
        let id = case["id"].as_str().expect("a case has an id");
        if !id.ends_with("-in.yaml") {
            continue;
        }
        let loaded = run(id, case["yaml"].as_str().expect("a case has yaml"));
        policies += loaded.authorization_policies.len();
        let errors = loaded.findings.iter().filter(|finding| finding.is_error());
        errors.for_each(|finding| put(&mut wrong, finding));
    }
    println!("{policies} policies load");
    assert!(policies >= 40, "only {policies} policies");
    assert!(wrong.is_empty(), "\n{wrong}");
}
