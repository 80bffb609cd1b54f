//! No byte of a key leaves the process: not in logs, not in messages about files, not in any encoding.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use crate::place::{App, Place, READER, Ran, SERVER, Sidecar, TLS};

/// Bytes of a key in a row that cannot be chance.
const RUN: usize = 8;

/// The encoding in which `text` holds at least [`RUN`] bytes of `secret` in a row, if it does.
fn leak(text: &[u8], secret: &[u8]) -> Option<&'static str> {
    let holds = |needle: &[u8]| text.windows(needle.len()).any(|w| w == needle);
    for run in secret.windows(RUN) {
        if holds(run) {
            return Some("raw");
        }
        for separator in ["", ":", " "] {
            let hex: Vec<String> = run.iter().map(|b| format!("{b:02x}")).collect();
            let hex = hex.join(separator);
            if holds(hex.as_bytes()) || holds(hex.to_uppercase().as_bytes()) {
                return Some("hex");
            }
        }
        let numbers = format!("{run:?}");
        if holds(numbers.trim_matches(['[', ']']).as_bytes()) {
            return Some("numbers");
        }
    }
    for lead in 0..3 {
        let mut shifted = vec![0; lead];
        shifted.extend_from_slice(secret);
        for engine in [STANDARD, URL_SAFE] {
            let encoded = engine.encode(&shifted);
            // The first four characters may hold the zeros, the last four what fills up.
            let inner = encoded
                .get(4..encoded.len() - 4)
                .expect("a secret of some length");
            if inner.as_bytes().windows(12).any(holds) {
                return Some("base64");
            }
        }
    }
    None
}

/// The secret part of the key in `name`: of an EC key its scalar, of an RSA key everything behind the public numbers.
fn secret(place: &Place, name: &str) -> Vec<u8> {
    let text = place.read(name);
    let body: String = text.lines().filter(|l| !l.starts_with("-----")).collect();
    let der = STANDARD.decode(body).expect("PEM holds base64");
    // ECPrivateKey: version 1, then an OCTET STRING of 32 bytes (RFC 5915 §3).
    let scalar = [2, 1, 1, 4, 32];
    let at = der.windows(scalar.len()).position(|w| w == scalar);
    // RSAPrivateKey: the public exponent 65537, then the private one (RFC 8017 A.1.2).
    let exponent = [2, 3, 1, 0, 1];
    match at {
        Some(at) => der[at + scalar.len()..][..32].to_vec(),
        None => {
            let at = der.windows(exponent.len()).position(|w| w == exponent);
            der[at.expect("an EC or RSA key") + exponent.len() + 4..].to_vec()
        }
    }
}

/// Every file below `dir` but the keys.
fn files(dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.to_string_lossy().into_owned();
        if path.is_dir() {
            files(&path, found);
        } else if !name.ends_with("key.pem") && !name.ends_with("ca.key") {
            found.push((name, fs::read(path).expect("a file")));
        }
    }
}

#[test]
fn a_planted_key_is_found_in_every_encoding() {
    let place = Place::new();
    for kind in ["p256", "rsa2048"] {
        let ca = format!("ca-{kind}");
        place.run(&["ca", "init", &ca]);
        let ran = place.run(&["ca", "issue", &ca, SERVER, "--out", kind, "--key", kind]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let key = secret(&place, &format!("{kind}/key.pem"));
        let part = &key[10..26];
        let around = |middle: &[u8]| [b"some words [".as_slice(), middle, b"] and more"].concat();
        for (form, text) in [
            ("raw", part.to_vec()),
            (
                "hex",
                place
                    .shell(&format!(
                        "openssl pkey -in {kind}/key.pem -noout -text | tr -d '\\n '"
                    ))
                    .stdout
                    .into(),
            ),
            ("numbers", format!("{part:?}").into()),
            ("base64", STANDARD.encode(part).into()),
            ("base64", URL_SAFE.encode(&key[11..31]).into()),
            ("base64", place.read(&format!("{kind}/key.pem")).into()),
        ] {
            assert_eq!(leak(&around(&text), &key), Some(form), "{kind}");
        }
        assert_eq!(
            leak(&place.read(&format!("{kind}/cert.pem")).into_bytes(), &key),
            None
        );
        assert_eq!(leak(b"nothing of it", &key), None);
    }
}

#[test]
fn nothing_that_is_said_or_written_holds_a_byte_of_a_key() {
    let place = Place::new();
    let _app = App::start(&place);
    place.issue(SERVER, "id");
    place.issue(READER, "reader");
    let keys = ["ca/ca.key", "id/key.pem", "reader/key.pem"];
    let good = place.inbound(&format!("{TLS}  policies: pol\n  accessLog: access.log\n"));
    place.write("pol/none.yaml", "");
    place.write("s.yaml", &good);
    let mut said = Vec::new();

    // Traffic, and mistakes in it.
    let mut sidecar = Sidecar::start(&place, "s.yaml", "tokio");
    let reader = "--cert reader/cert.pem --key reader/key.pem";
    for request in [
        format!("curl -sSk {reader} https://$IP:8443/"),
        format!(
            "curl -sSk {reader} -H \"x-forwarded-client-cert: $(cat reader/cert.pem | tr -d '\\n')\" https://$IP:8443/"
        ),
        "curl -sSk https://$IP:8443/".to_owned(),
        "curl -sS http://$IP:8443/".to_owned(),
        format!("curl -sSk {reader} https://$IP:8443/ -H 'transfer-encoding: nonsense'"),
    ] {
        let ran: Ran = place.shell(&request);
        said.push((request, [ran.stdout, ran.stderr].concat()));
    }

    // Key files where other files belong, at a start and at a reload.
    for (from, to) in [
        ("id/cert.pem", "id/key.pem"),
        ("id/bundle.pem", "id/key.pem"),
        ("id/key.pem", "reader/key.pem"),
        ("policies: pol", "policies: id/key.pem"),
        ("access.log", "id/key.pem/log"),
    ] {
        let file = good.replace(from, to);
        place.write("s.yaml", &file);
        sidecar.signal("HUP");
        sidecar.says("not reloaded");
        let ran = place.run(&["sidecar", "--config", "s.yaml"]);
        assert_ne!(ran.code, Some(0), "{file}");
        said.push((file, [ran.stdout, ran.stderr].concat()));
    }
    for arguments in [
        &["sidecar", "--config", "id/key.pem"][..],
        &["sidecar", "--config", "ca/ca.key"],
        &["walkthrough", "id/key.pem"],
        &["ca", "init", "ca"],
        &["ca", "issue", "id", SERVER, "--out", "out"],
    ] {
        let ran = place.run(arguments);
        assert_ne!(ran.code, Some(0), "{arguments:?}");
        said.push((format!("{arguments:?}"), [ran.stdout, ran.stderr].concat()));
    }
    place.write("broken/ca.pem", place.read("ca/ca.key"));
    place.write("broken/ca.key", place.read("ca/ca.pem"));
    let ran = place.run(&["ca", "issue", "broken", SERVER, "--out", "out"]);
    assert_eq!(ran.code, Some(65));
    said.push((
        "swapped authority".into(),
        [ran.stdout, ran.stderr].concat(),
    ));
    fs::remove_dir_all(place.path("broken")).expect("the copies of the keys");

    sidecar.signal("TERM");
    assert_eq!(sidecar.ends().code(), Some(0));
    said.push(("sidecar".into(), sidecar.said.join("\n")));
    let log = place.read("access.log");
    assert!(
        log.contains("\"GET / HTTP/1.1\" 200 "),
        "there was traffic: {log}"
    );

    let mut everything: Vec<(String, Vec<u8>)> = said
        .into_iter()
        .map(|(from, text)| (from, text.into_bytes()))
        .collect();
    files(&place.dir, &mut everything);
    for key in keys {
        let secret = secret(&place, key);
        for (from, text) in &everything {
            assert_eq!(leak(text, &secret), None, "{key} in what came of {from}");
        }
    }
}
