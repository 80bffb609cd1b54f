//! The shared test material: where it is, and how a file of it is read.

use std::path::PathBuf;

/// The text of a file of the shared material.
///
/// `MESHWARD_SHARED`, else `../shared` beside the project. `None`, with one line, where the material is absent; with `CI` set
/// that is a failure.
#[expect(
    clippy::disallowed_methods,
    reason = "tests read files; the crate does not"
)]
pub(crate) fn text(file: &str) -> Option<String> {
    let root = std::env::var_os("MESHWARD_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let path = root.join(file);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) => {
            let line = format!("skipped: {}: {error}", path.display());
            assert!(std::env::var_os("CI").is_none(), "{line}");
            println!("{line}");
            None
        }
    }
}

/// The checks of one kind in a corpus file, each as JSON.
pub(crate) fn checks(theme: &str, kind: &str) -> Option<Vec<serde_json::Value>> {
    #[derive(serde::Deserialize)]
    struct File {
        cases: Vec<Case>,
    }
    #[derive(serde::Deserialize)]
    struct Case {
        checks: Vec<serde_json::Value>,
    }
    let text = text(&format!("corpus/open/{theme}.yaml"))?;
    let file: File = serde_saphyr::from_str(&text).expect("a corpus file parses");
    let all = file.cases.into_iter().flat_map(|case| case.checks);
    let found: Vec<_> = all.filter(|check| check["kind"] == kind).collect();
    assert!(!found.is_empty(), "{theme} has checks of kind {kind}");
    Some(found)
}
