//! Identities against the shared data sets: SPIFFE IDs, X509-SVIDs, path building and name constraints.
//!
//! `MESHWARD_SHARED` names the folder of the sets, `../shared` beside the project by default. Where it is absent the
//! tests say so and pass, unless `CI` is set.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test reads the shared material, which the core itself may not"
)]

#[allow(dead_code, reason = "the unit tests of core use the rest")]
#[path = "../src/spiffe/testing.rs"]
mod testing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use meshward_core::clock::UnixTime;
use meshward_core::spiffe::{
    Leaf, SpiffeId, Svid, SvidFile, TrustBundle, TrustDomain, VerifyError, verify_client,
    verify_server,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName};
use serde_json::Value;
use testing::{Authority, Spec};
use webpki::ALL_VERIFICATION_ALGS as ALGORITHMS;

/// The file's text, or nothing where the shared folder is absent.
fn shared(path: &str) -> Option<String> {
    let root = std::env::var_os("MESHWARD_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    if !root.is_dir() {
        assert!(
            std::env::var_os("CI").is_none(),
            "{} is absent",
            root.display()
        );
        println!("skipped: {} is absent", root.display());
        return None;
    }
    let path = root.join(path);
    Some(std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// The rows of a set; empty where the shared folder is absent.
fn rows(set: &str) -> Vec<Value> {
    let Some(text) = shared(&format!("suites/data/{set}.ndjson")) else {
        return Vec::new();
    };
    let rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row"))
        .collect();
    assert!(!rows.is_empty(), "{set} has no rows");
    rows
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn der(value: &Value) -> CertificateDer<'static> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text(value));
    bytes.expect("base64").into()
}

fn ders(value: &Value) -> Vec<CertificateDer<'static>> {
    list(value).iter().map(der).collect()
}

fn pems(value: &Value) -> Vec<CertificateDer<'static>> {
    list(value)
        .iter()
        .map(|pem| CertificateDer::from_pem_slice(text(pem).as_bytes()).expect("a certificate"))
        .collect()
}

/// Fails with every wrong row at once.
fn settle(set: &str, count: usize, wrong: &[String]) {
    assert!(wrong.is_empty(), "{set}: {}", wrong.join("\n"));
    println!("{set}: {count} compared");
}

/// S-80, which also decides the rows that the standard leaves open: upper case folds, nothing else is forgiven.
#[test]
fn spiffe_ids_are_read_as_the_standard_says() {
    let mut wrong = Vec::new();
    let rows = rows("spiffe_ids");
    for row in &rows {
        let (id, input) = (text(&row["id"]), text(&row["text"]));
        let read = match text(&row["kind"]) {
            "id" => SpiffeId::parse(input)
                .map(|id| (id.trust_domain().to_owned(), id.path().to_owned())),
            "td" => TrustDomain::parse(input).map(|td| (td.to_string(), String::new())),
            kind => panic!("{id}: kind {kind}"),
        };
        let right = match (text(&row["expect"]), &read) {
            ("accept", Ok((td, path))) => {
                row["td"].as_str().is_none_or(|want| want == td)
                    && row["path"].as_str().is_none_or(|want| want == path)
            }
            ("reject", Err(_)) => true,
            ("any", read) => read.is_ok() == input.bytes().any(|b| b.is_ascii_uppercase()),
            _ => false,
        };
        if !right {
            wrong.push(format!("{id}: {input:?} {} {read:?}", row["expect"]));
        }
    }
    settle("spiffe_ids", rows.len(), &wrong);
}

/// S-31, S-81 to S-84, S-97.
#[test]
fn svids_are_judged_as_an_svid_verifier_must() {
    let mut wrong = Vec::new();
    let rows = rows("svids");
    for row in &rows {
        let id = text(&row["id"]);
        let chain = ders(&row["chain_der_b64"]);
        let bundle = TrustBundle::new(ders(&row["roots_der_b64"])).expect("roots");
        let domain = TrustDomain::parse(text(&row["trust_domain"])).expect("a trust domain");
        let at = UnixTime(row["at"].as_u64().expect("a time") * 1000);
        let client = verify_client(&chain, &bundle, &[domain], at, ALGORITHMS);
        if !matches!(
            (text(&row["expect"]), client.is_ok()),
            ("accept", true) | ("reject", false) | ("any", _)
        ) {
            wrong.push(format!("{id}: {client:?}, {}", row["why"]));
        }
        // A server's certificate is held to the same form; only its name is asked for otherwise.
        let leaf = Leaf::parse(&chain[0]);
        let expected = leaf.map_or_else(|_| String::new(), |leaf| leaf.id.to_string());
        let server = verify_server(&chain, &bundle, &[expected], at, ALGORITHMS);
        let foreign = matches!(client, Err(VerifyError::TrustDomain(_)));
        if server.is_ok() != (client.is_ok() || foreign) {
            wrong.push(format!("{id} as a server: {server:?}"));
        }
    }
    settle("svids", rows.len(), &wrong);
}

/// S-81, S-82. The set judges form alone, so each row is loaded within its own validity.
#[test]
fn svid_files_are_judged_by_their_form() {
    let mut wrong = Vec::new();
    let rows = rows("spiffe_svid_pem");
    let key = testing::key();
    let root = Authority::root(&Spec::authority("root"));
    for row in &rows {
        let (id, pem) = (text(&row["id"]), text(&row["pem"]).as_bytes());
        let at = CertificateDer::from_pem_slice(pem)
            .ok()
            .and_then(|der| Leaf::parse(&der).ok())
            .map_or(UnixTime(0), |leaf| leaf.not_before);
        // Files with a key are whole identities; the others lack one, and get as far as a key that is not theirs.
        let own_key = text(&row["pem"]).contains("PRIVATE KEY");
        let other = key.serialize_pem();
        let key = if own_key { pem } else { other.as_bytes() };
        let loaded = Svid::from_pem(pem, key, root_pem(&root).as_bytes(), at);
        let accepted = match &loaded {
            Ok(_) => own_key,
            Err(fault) => !own_key && fault.file() == SvidFile::Key,
        };
        if accepted != (text(&row["expect"]) == "accept") {
            wrong.push(format!("{id}: {:?}", loaded.err()));
        }
    }
    settle("spiffe_svid_pem", rows.len(), &wrong);
}

fn root_pem(root: &Authority) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(&root.cert);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

/// What webpki answers when it is asked as `verify` asks it, with a server name and revocation lists besides.
fn web_pki(row: &Value) -> Result<(), webpki::Error> {
    let leaf = CertificateDer::from_pem_slice(text(&row["peer_certificate"]).as_bytes())
        .expect("a certificate");
    let roots = pems(&row["trusted_certs"]);
    let anchors = roots
        .iter()
        .map(webpki::anchor_from_trusted_cert)
        .collect::<Result<Vec<_>, _>>()?;
    let lists = list(&row["crls"])
        .iter()
        .map(|pem| {
            let der = CertificateRevocationListDer::from_pem_slice(text(pem).as_bytes());
            webpki::OwnedCertRevocationList::from_der(&der.expect("a list")).map(Into::into)
        })
        .collect::<Result<Vec<webpki::CertRevocationList<'_>>, _>>()?;
    let lists: Vec<&webpki::CertRevocationList<'_>> = lists.iter().collect();
    let revocation = webpki::RevocationOptionsBuilder::new(&lists)
        .ok()
        .map(|options| {
            options
                .with_status_policy(webpki::UnknownStatusPolicy::Allow)
                .build()
        });
    let at = row["at"].as_u64().expect("a time");
    let cert = webpki::EndEntityCert::try_from(&leaf)?;
    cert.verify_for_usage(
        ALGORITHMS,
        &anchors,
        &pems(&row["untrusted_intermediates"]),
        rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(at)),
        webpki::KeyUsage::server_auth(),
        revocation,
        None,
    )?;
    match row["expected_peer_name"]["value"].as_str() {
        Some(name) => {
            let name =
                ServerName::try_from(name).map_err(|_| webpki::Error::MalformedDnsIdentifier)?;
            cert.verify_is_valid_for_subject_name(&name)
        }
        None => Ok(()),
    }
}

/// Rows of x509_limbo that webpki accepts although the suite refuses them, by the reason why we live with it. What an
/// SVID must be is checked beside webpki, so the faults of leaves do not get through: see the test below.
const LENIENT: [(&str, &[&str]); 5] = [
    (
        "the leaf is no SVID, and what is lenient here is the reading of a web server's name or key",
        &[
            "rfc5280::leaf-ku-keycertsign",
            "rfc5280::nc::not-allowed-in-ee-critical",
            "rfc5280::san::underscore-dns",
            "webpki::cn::ipv4-hex-mismatch",
            "webpki::cn::ipv6-non-rfc5952-mismatch",
            "webpki::cn::ipv6-uncompressed-mismatch",
            "webpki::cn::ipv6-uppercase-mismatch",
            "webpki::cn::not-in-san",
            "webpki::cn::punycode-not-in-san",
            "webpki::cn::utf8-vs-punycode-mismatch",
            "webpki::eku::ee-anyeku",
            "webpki::forbidden-dsa-leaf",
            "webpki::forbidden-p192-leaf",
            "webpki::forbidden-rsa-key-not-divisible-by-8-in-leaf",
            "webpki::forbidden-weak-rsa-in-leaf",
            "webpki::san::public-suffix-multi-label-wildcard-san",
            "webpki::san::public-suffix-private-namespace-wildcard-san",
        ],
    ),
    (
        "a hint for path building, which is done by names and signatures",
        &[
            "rfc5280::aki::critical-aki",
            "rfc5280::aki::cross-signed-root-missing-aki",
            "rfc5280::aki::intermediate-missing-aki",
            "rfc5280::aki::leaf-missing-aki",
            "rfc5280::ski::critical-ski",
            "webpki::aki::root-with-aki-all-fields",
            "webpki::aki::root-with-aki-authoritycertissuer",
            "webpki::aki::root-with-aki-missing-keyidentifier",
        ],
    ),
    (
        "a root is a name and a key (RFC 5280 §6.1.1); a bundle refuses one without basicConstraints",
        &[
            "rfc5280::ca-empty-subject",
            "rfc5280::nc::invalid-dnsname-leading-period",
            "rfc5280::root-missing-basic-constraints",
            "webpki::eku::root-has-eku",
            "webpki::forbidden-rsa-not-divisible-by-8-in-root",
        ],
    ),
    (
        "certificate policies are not processed; Istio issues none",
        &["rfc5280::pc::ica-noncritical-pc"],
    ),
    (
        "revocation lists are not used",
        &["crl::crlnumber-missing", "crl::issuer-missing-crlsign"],
    ),
];

/// The verifier leaves paths to webpki; this holds our use of it to what the suite measured of it.
#[test]
fn x509_limbo_is_answered_as_webpki_was_measured() {
    let known: BTreeMap<&str, &str> = LENIENT
        .iter()
        .flat_map(|(reason, ids)| ids.iter().map(move |id| (*id, *reason)))
        .collect();
    let mut wrong = Vec::new();
    let mut lenient = 0;
    let mut count = 0;
    let rows = rows("x509_limbo");
    for row in &rows {
        let id = text(&row["id"]);
        let peer = text(&row["peers"]["rustls-webpki"]);
        if peer == "SKIP" {
            println!("{id}: not asked of webpki (email names, depth limits)");
            continue;
        }
        count += 1;
        let answer = web_pki(row);
        if answer.is_ok() != (peer == "SUCCESS") {
            wrong.push(format!("{id}: {answer:?}, measured {peer}"));
        }
        let is_lenient = answer.is_ok() && text(&row["expected_result"]) == "FAILURE";
        lenient += usize::from(is_lenient);
        if is_lenient != known.contains_key(id) {
            wrong.push(format!("{id}: lenient {is_lenient}, listed otherwise"));
        }
    }
    if !rows.is_empty() && lenient != known.len() {
        wrong.push(format!("{lenient} lenient rows, {} listed", known.len()));
    }
    for (id, reason) in &known {
        println!("accepted: {id}: {reason}");
    }
    settle("x509_limbo", count, &wrong);
}

/// S-81: certificates of web servers are no identities, however well their chain verifies.
#[test]
fn no_web_servers_certificate_passes_for_an_svid() {
    let mut wrong = Vec::new();
    let rows = [rows("x509_limbo"), rows("bettertls")].concat();
    for row in &rows {
        let mut chain = pems(&Value::from(vec![row["peer_certificate"].clone()]));
        chain.extend(pems(&row["untrusted_intermediates"]));
        let at = UnixTime(row["at"].as_u64().expect("a time") * 1000);
        let Ok(bundle) = TrustBundle::new(pems(&row["trusted_certs"])) else {
            continue;
        };
        if let Ok(leaf) = verify_server(&chain, &bundle, &[], at, ALGORITHMS) {
            wrong.push(format!("{}: {leaf:?}", row["id"]));
        }
    }
    settle("web servers as SVIDs", rows.len(), &wrong);
}

/// Paths through several authorities and name constraints.
#[test]
fn bettertls_is_scored_in_full() {
    let mut wrong = Vec::new();
    let rows = rows("bettertls");
    for row in &rows {
        let answer = web_pki(row);
        if answer.is_ok() != (text(&row["expected_result"]) == "SUCCESS") {
            wrong.push(format!("{}: {answer:?} soft {}", row["id"], row["soft"]));
        }
    }
    settle("bettertls", rows.len(), &wrong);
}
