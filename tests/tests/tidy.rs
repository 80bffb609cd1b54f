//! What holds of every file, whatever stands in it: length, no tabs, no `unsafe` where it has no business, rules that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use meshward_tests::source::{rust_files, tokens, without_words};

/// Longer files have a second concept in them.
const LINES_MAX: usize = 1000;

/// Crates that never need `unsafe`. A test of the core that counts allocations does, and is a crate of its own.
const SAFE: &[&str] = &["core", "simulator", "tests"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Path from the root and text of every Rust file of some folders.
fn texts(folders: &[&str]) -> Vec<(String, String)> {
    let files = folders.iter().flat_map(|f| rust_files(&root().join(f)));
    files
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap();
            (name.to_owned(), text)
        })
        .collect()
}

fn assert_none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn no_file_of_core_is_too_long() {
    let texts = texts(&["core/src"]);
    assert!(texts.len() > 50, "only {} files were found", texts.len());
    let long = texts.iter().filter_map(|(name, text)| {
        let lines = text.lines().count();
        (lines > LINES_MAX).then(|| format!("{name} has {lines} lines, {LINES_MAX} are allowed"))
    });
    assert_none(long.collect());
}

#[test]
fn no_file_has_tabs_or_blanks_at_the_end_of_a_line() {
    let all = [
        "src",
        "core",
        "bind-tokio",
        "bind-glommio",
        "bind-python",
        "simulator",
        "tests",
    ];
    let mut findings = Vec::new();
    for (name, text) in texts(&all) {
        for (line, number) in text.lines().zip(1..) {
            if line.contains('\t') || line.ends_with(' ') {
                findings.push(format!("{name}:{number}: a tab, or a blank at the end"));
            }
        }
    }
    assert_none(findings);
}

#[test]
fn unsafe_does_not_occur_where_it_is_forbidden() {
    let mut findings = Vec::new();
    for (name, text) in texts(&["core/src", "simulator", "tests"]) {
        if uses_unsafe(&text) {
            findings.push(format!("{name} uses `unsafe`"));
        }
    }
    for folder in SAFE {
        let name = format!("{folder}/src/lib.rs");
        let text = fs::read_to_string(root().join(&name)).unwrap();
        if !forbids_unsafe(&text) {
            findings.push(format!("{name} does not say #![forbid(unsafe_code)]"));
        }
    }
    assert_none(findings);
}

fn uses_unsafe(text: &str) -> bool {
    tokens(&without_words(text)).contains(&"unsafe")
}

fn forbids_unsafe(text: &str) -> bool {
    let code = without_words(text);
    code.lines()
        .any(|line| line.trim() == "#![forbid(unsafe_code)]")
}

#[test]
fn planted_untidiness_is_found() {
    assert!(uses_unsafe("fn f() { unsafe { g() } }"));
    assert!(uses_unsafe("#[cfg(test)]\nmod tests { unsafe fn f() {} }"));
    assert!(!uses_unsafe(
        "// unsafe\nconst X: &str = \"unsafe\";\n#![forbid(unsafe_code)]"
    ));
    assert!(forbids_unsafe("//! x\n#![forbid(unsafe_code)]\nmod a;"));
    assert!(!forbids_unsafe(
        "// #![forbid(unsafe_code)]\n#![deny(unsafe_code)]"
    ));
    assert_eq!(
        rules_in("S-1, (S-20 to S-22), TLS-12, S-x, XS-3 `S-4`."),
        ["S-1", "S-20", "S-22", "S-4"]
    );
}

/// A typing error in a citation would send a reader to a rule that says something else, or nothing.
#[test]
fn every_rule_that_is_cited_exists() {
    let shared =
        env::var_os("MESHWARD_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    let path = shared.join("semantics/semantics.md");
    let Ok(semantics) = fs::read_to_string(&path) else {
        assert!(
            env::var_os("CI").is_none(),
            "{} is not there",
            path.display()
        );
        println!("tidy: skipped, {} is not there", path.display());
        return;
    };
    let known: BTreeSet<&str> = semantics
        .lines()
        .filter_map(|line| line.strip_prefix("- **")?.split_once("**"))
        .map(|(id, _)| id)
        .collect();
    assert!(known.len() > 200, "only {} rules were found", known.len());
    let mut texts = texts(&[
        "src",
        "core",
        "bind-tokio",
        "bind-glommio",
        "simulator",
        "tests/src",
    ]);
    for entry in fs::read_dir(root().join("tests/scenarios")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        texts.push((name, fs::read_to_string(&path).unwrap()));
    }
    let mut cited: BTreeMap<String, String> = BTreeMap::new();
    for (name, text) in &texts {
        for rule in rules_in(text) {
            cited.entry(rule).or_insert_with(|| name.clone());
        }
    }
    println!("tidy: {} rules are cited", cited.len());
    let unknown = cited
        .iter()
        .filter(|(rule, _)| !known.contains(rule.as_str()));
    assert_none(
        unknown
            .map(|(rule, name)| format!("{name}: there is no {rule}"))
            .collect(),
    );
}

/// `S-n` as a word of its own.
fn rules_in(text: &str) -> Vec<String> {
    text.match_indices("S-")
        .filter(|(at, _)| {
            let before = text[..*at].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && c != '-')
        })
        .filter_map(|(at, _)| {
            let rest = &text[at + 2..];
            let end = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            (end > 0).then(|| format!("S-{}", &rest[..end]))
        })
        .collect()
}
