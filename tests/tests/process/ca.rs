//! `meshward ca`: what it makes, and what it refuses to make.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::place::{Place, READER};

#[test]
fn an_authority_and_its_certificate_satisfy_openssl() {
    let place = Place::new();
    for kind in ["p256", "rsa2048"] {
        let ca = format!("ca-{kind}");
        let made = place.run(&["ca", "init", &ca, "--key", kind]);
        assert_eq!(
            made.stdout,
            format!("authority for trust domain cluster.local in {ca}\n")
        );
        let issued = place.run(&["ca", "issue", &ca, READER, "--out", "id", "--key", kind]);
        assert_eq!(issued.stdout, format!("{READER} for 24h in id\n"));
        let verified = place.shell(&format!(
            "openssl verify -x509_strict -purpose sslclient -CAfile {ca}/ca.pem id/cert.pem"
        ));
        assert_eq!(verified.stdout, "id/cert.pem: OK\n", "{}", verified.stderr);
        let shown = place.shell(
            "openssl x509 -in id/cert.pem -noout -subject -ext subjectAltName,keyUsage,basicConstraints",
        );
        // S-90
        assert_eq!(
            shown.stdout,
            format!(
                "subject=\nX509v3 Subject Alternative Name: critical\n    URI:{READER}\nX509v3 Key Usage: critical\n    \
                 Digital Signature, Key Encipherment\nX509v3 Basic Constraints: critical\n    CA:FALSE\n"
            )
        );
        assert_eq!(
            place.read("id/bundle.pem"),
            place.read(&format!("{ca}/ca.pem"))
        );
        for key in [format!("{ca}/ca.key"), "id/key.pem".to_owned()] {
            let mode = fs::metadata(place.path(&key))
                .expect("a key")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
    }
}

#[test]
fn a_time_to_live_counts_from_now_and_ends_with_the_root() {
    let place = Place::new();
    assert_eq!(place.run(&["ca", "init", "ca"]).code, Some(0));
    let ttl = ["ca", "issue", "ca", READER, "--out", "id", "--ttl", "1h30m"];
    assert_eq!(place.run(&ttl).code, Some(0));
    for (seconds, expires) in [
        ("5300", "Certificate will not expire"),
        ("5500", "Certificate will expire"),
    ] {
        let asked = place.shell(&format!(
            "openssl x509 -in id/cert.pem -noout -checkend {seconds}"
        ));
        assert_eq!(asked.stdout.trim_end(), expires, "in {seconds} s");
    }
}

#[test]
fn an_authority_is_never_overwritten() {
    let place = Place::new();
    assert_eq!(place.run(&["ca", "init", "ca"]).code, Some(0));
    let before = place.read("ca/ca.key");
    place.run(&["ca", "init", "ca"]).refuses(
        1,
        "error: ca/ca.pem exists already\n  hint: choose another folder, or remove the old authority yourself\n",
    );
    assert_eq!(place.read("ca/ca.key"), before);
}

#[test]
fn what_may_not_be_issued_exits_with_64_and_writes_nothing() {
    let place = Place::new();
    assert_eq!(place.run(&["ca", "init", "ca"]).code, Some(0));
    for (id, ttl, says) in [
        (
            "spiffe://elsewhere.example/ns/a/sa/b",
            "24h",
            "`spiffe://elsewhere.example/ns/a/sa/b`: this authority speaks for `cluster.local`, not for `elsewhere.example`",
        ),
        ("reader", "24h", "`reader`: the scheme is not spiffe://"),
        (
            "https://cluster.local/a",
            "24h",
            "`https://cluster.local/a`: the scheme is not spiffe://",
        ),
        (
            "spiffe://cluster.local",
            "24h",
            "`spiffe://cluster.local`: names a trust domain, not a workload\n  hint: spiffe://cluster.local/ns/NAMESPACE/sa/ACCOUNT",
        ),
        (
            "spiffe://cluster.local/a/../b",
            "24h",
            "`spiffe://cluster.local/a/../b`: the path has a dot segment",
        ),
        (
            "spiffe://cluster.local/a/",
            "24h",
            "`spiffe://cluster.local/a/`: the path has an empty segment or ends with a slash",
        ),
        (
            READER,
            "0",
            "--ttl `0`: a certificate must last longer than 0 s",
        ),
        (
            READER,
            "0h0m",
            "--ttl `0h0m`: a certificate must last longer than 0 s",
        ),
        (
            READER,
            "-1h",
            "--ttl `-1h`: a certificate must last longer than 0 s",
        ),
        (
            READER,
            "2160h1s",
            "--ttl `2160h1s`: a certificate may last 2160h at most",
        ),
        (
            READER,
            "1d",
            "--ttl `1d`: expected a duration such as 24h, 90m, 30s or 1h30m",
        ),
    ] {
        let ran = place.run(&["ca", "issue", "ca", id, "--out", "id", "--ttl", ttl]);
        ran.refuses(64, &format!("error: {says}\n"));
    }
    assert!(!place.path("id").exists());
    let ran = place.run(&["ca", "init", "other", "--trust-domain", "Not a domain"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(64), ""));
    assert!(!place.path("other").exists());
}

#[test]
fn an_authority_that_is_none_exits_with_65() {
    let place = Place::new();
    let issue = ["ca", "issue", "ca", READER, "--out", "id"];
    place.run(&issue).refuses(
        65,
        "ca/ca.pem: cannot be read: no such file or directory\n  hint: meshward ca init ca\n",
    );
    for name in ["ca", "ca2"] {
        assert_eq!(place.run(&["ca", "init", name]).code, Some(0));
    }
    let (key, pem) = (place.read("ca/ca.key"), place.read("ca/ca.pem"));
    place.write("ca/ca.key", place.read("ca2/ca.key"));
    place
        .run(&issue)
        .refuses(65, "ca/ca.key: is not the key of ca/ca.pem\n");
    place.write("ca/ca.key", "no key");
    let ran = place.run(&issue);
    assert_eq!(ran.code, Some(65));
    assert!(
        ran.stderr.starts_with("ca/ca.key: no PEM key in PKCS#8"),
        "{}",
        ran.stderr
    );
    place.write("ca/ca.key", &key);
    place.write("ca/ca.pem", key);
    let ran = place.run(&issue);
    assert_eq!(ran.code, Some(65));
    assert!(
        ran.stderr.starts_with("ca/ca.pem: no PEM certificate"),
        "{}",
        ran.stderr
    );
    place.write("ca/ca.pem", pem);
    fs::remove_file(place.path("ca/ca.key")).expect("the key is there");
    place.run(&issue).refuses(
        65,
        "ca/ca.key: cannot be read: no such file or directory\n  hint: name the folder of an authority whose files you may read\n",
    );
    assert!(!place.path("id").exists());
}

#[test]
fn a_place_that_cannot_be_written_exits_with_1() {
    let place = Place::new();
    place.write("file", "");
    place
        .run(&["ca", "init", "file/ca"])
        .refuses(1, "error: file/ca: cannot be made: not a directory\n");
}
