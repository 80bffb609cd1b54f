//! Path normalisation against what Envoy 1.40 was seen to do.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test reads the shared material, which the core itself may not"
)]

mod material;

use meshward_core::path::{self, Normalization};
use serde_json::Value;

const MODES: [(&str, Normalization); 4] = [
    ("NONE", Normalization::None),
    ("BASE", Normalization::Base),
    ("MERGE_SLASHES", Normalization::MergeSlashes),
    (
        "DECODE_AND_MERGE_SLASHES",
        Normalization::DecodeAndMergeSlashes,
    ),
];

/// The path that reaches the upstream, or the status, as a request with this target would have it.
fn served(target: &[u8], mode: Normalization) -> Value {
    // RFC 9112 §3.2.2: scheme and authority of the absolute form are read from the request line.
    let origin = target.strip_prefix(b"http://").map_or(target, |rest| {
        rest.iter()
            .position(|b| *b == b'/')
            .map_or(&b"/"[..], |at| &rest[at..])
    });
    if !path::acceptable(origin) {
        return 400.into();
    }
    match path::normalize(origin, mode, true) {
        Ok(out) => String::from_utf8_lossy(&out).into_owned().into(),
        Err(_) => 400.into(),
    }
}

#[test]
fn measured_paths_come_out_the_same_in_every_mode() {
    let Some(text) = material::text("suites/data/istio_paths.ndjson") else {
        return;
    };
    let (mut rows, mut fragments) = (0, 0);
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("a row is JSON");
        let sent: Vec<u8> = row["raw_target"]
            .as_str()
            .expect("a target")
            .chars()
            .map(|c| u8::try_from(u32::from(c)).expect("latin-1"))
            .collect();
        for (name, mode) in MODES {
            if let Some(cut) = sent.iter().position(|b| *b == b'#') {
                // Measured with Envoy's own default, which answers 400. Istio cuts the fragment off (S-181).
                assert_eq!(row[name], 400, "{line}");
                assert_eq!(served(&sent, mode), served(&sent[..cut], mode), "{line}");
                fragments += 1;
            } else {
                assert_eq!(served(&sent, mode), row[name], "{name}: {line}");
                // The rows have DENY rules on `/admin` and on the prefix; a refused request reaches neither.
                if let Some(path) = served(&sent, mode).as_str() {
                    let path = path::without_query(path.as_bytes());
                    assert_eq!(
                        row["deny_exact_admin"][name],
                        path == b"/admin",
                        "{name}: {line}"
                    );
                    assert_eq!(
                        row["deny_prefix_admin"][name],
                        path.starts_with(b"/admin"),
                        "{name}: {line}"
                    );
                }
            }
        }
        rows += 1;
    }
    println!("{rows} targets in 4 modes, {fragments} outcomes by S-181 instead of the measurement");
    assert!(rows > 0 && fragments < rows);
}
