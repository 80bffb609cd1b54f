//! The shared material: rules, corpus and independent data sets that stand beside the project.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// `MESHWARD_SHARED`, else `../shared` beside the project. `None`, with one line, where it is absent; with `CI` set that is a
/// failure.
///
/// # Panics
///
/// In CI, if it is absent.
pub fn root() -> Option<PathBuf> {
    let root = env::var_os("MESHWARD_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    if root.is_dir() {
        return Some(root);
    }
    let line = format!("{} is absent, so nothing was compared", root.display());
    assert!(env::var_os("CI").is_none(), "{line}");
    println!("{line}");
    None
}

/// The rows of one set of `suites/data`.
///
/// # Panics
///
/// If the set is absent or broken, the material being there.
pub fn rows(set: &str) -> Option<Vec<Value>> {
    let path = root()?.join(format!("suites/data/{set}.ndjson"));
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let rows = text.lines().filter(|line| !line.is_empty()).map(|line| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    });
    Some(rows.collect())
}
