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
