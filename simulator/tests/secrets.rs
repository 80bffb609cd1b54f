//! No byte of a key stands in a recorded run, in any encoding.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meshward_simulator::campaign::plan::Profile;
use meshward_simulator::campaign::{run, seed_of};
use meshward_simulator::clock::BIRTH;
use meshward_simulator::crypto::Ca;
use meshward_simulator::trace::Trace;

/// Bytes of a key in a row that cannot be chance.
const RUN: usize = 8;

/// The encoding in which `text` holds part of `secret`, if it does.
fn leak(text: &str, secret: &[u8]) -> Option<&'static str> {
    for run in secret.windows(RUN) {
        let hex: String = run.iter().map(|b| format!("{b:02x}")).collect();
        if text.to_lowercase().contains(&hex) {
            return Some("hex");
        }
        if text.contains(format!("{run:?}").trim_matches(['[', ']'])) {
            return Some("numbers");
        }
        if text.as_bytes().windows(RUN).any(|w| w == run) {
            return Some("raw");
        }
    }
    for lead in 0..3 {
        let shifted = [&vec![0; lead][..], secret].concat();
        let encoded = STANDARD.encode(shifted);
        let inner = &encoded.as_bytes()[4..encoded.len() - 4];
        let found = |piece| text.as_bytes().windows(12).any(|w| w == piece);
        if inner.windows(12).any(found) {
            return Some("base64");
        }
    }
    None
}

#[test]
fn a_recorded_run_holds_no_byte_of_a_key() {
    let seed = seed_of("secrets", 1);
    // The first keys that the run's authority gives out: those of its sidecars.
    let mut ca = Ca::new(seed, BIRTH);
    let keys: Vec<Vec<u8>> = ["front", "catalog", "impostor", "other"]
        .map(|sa| ca.issue(&format!("spiffe://cluster.local/ns/default/sa/{sa}"), BIRTH))
        .iter()
        .map(|identity| identity.key.secret_der().to_vec())
        .collect();
    let outcome = run(seed, Some(Profile::Calm), Trace::with_lines());
    let text = outcome.lines.join("\n");
    assert!(
        text.contains("svid") || text.contains("Svid"),
        "the run holds identities"
    );
    for key in &keys {
        // The last 32 bytes of an Ed25519 key in PKCS#8 are the secret (RFC 8410 §7).
        let secret = &key[key.len() - 32..];
        assert_eq!(leak(&text, secret), None);
    }

    let secret = &keys[0][keys[0].len() - 32..];
    let hex: String = secret.iter().map(|b| format!("{b:02X}")).collect();
    for (planted, encoding) in [
        (hex, "hex"),
        (format!("{secret:?}"), "numbers"),
        (STANDARD.encode(&keys[0]), "base64"),
    ] {
        assert_eq!(leak(&format!("{text}\n{planted}"), secret), Some(encoding));
    }
}
