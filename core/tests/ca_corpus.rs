//! Runs the checks of the shared corpus about the authority and about rotation: `cert_shape`, `ca_sign`, `rotation`,
//! `open_connection`, and the `handshake`s that are about roots.
//!
//! `MESHWARD_SHARED` names the shared folder, `../shared` beside the project by default. Where it is absent the corpus
//! is passed over with one line, unless `CI` is set.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test reads the shared material, which the core itself may not"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use meshward_core::agent::{Draft, renew_at};
use meshward_core::clock::UnixTime;
use meshward_core::control::ca::{Authority, Chain, Refusal, SignRequest, certificates_pem, sign};
use meshward_core::limits::ROOT_LIFETIME;
use meshward_core::link::Buf;
use meshward_core::spiffe::{Leaf, SpiffeId, Svid, TrustDomain};
use meshward_core::tls::{
    ChainKind, ClientTls, Crypto, FailureKind, KeyKind, ServerTls, Session, Sniff, TlsEvent,
    TlsFailure, TlsVersion, WallClock, sniff,
};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::extensions::GeneralName;
use x509_parser::public_key::PublicKey;

const NOW: UnixTime = UnixTime(1_767_225_600_000);
const API: &str = "spiffe://cluster.local/ns/shop/sa/api";

/// Every check of the open corpus, in the order of the files.
fn checks() -> Vec<Value> {
    let root = std::env::var_os("MESHWARD_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let folder = root.join("corpus/open");
    if !folder.is_dir() {
        assert!(
            std::env::var_os("CI").is_none(),
            "no corpus at {}",
            root.display()
        );
        println!("skipped: no corpus at {}", root.display());
        return Vec::new();
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the corpus can be listed")
        .map(|entry| entry.expect("the corpus can be listed").path())
        .collect();
    files.sort();
    let mut checks = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a corpus file can be read");
        let file: Value = serde_saphyr::from_str(&text).expect("a corpus file");
        for case in list(&file["cases"]) {
            checks.extend_from_slice(list(&case["checks"]));
        }
    }
    assert!(!checks.is_empty(), "the corpus has no checks");
    checks
}

#[test]
fn the_corpus_about_the_authority_and_rotation_is_answered_as_it_says() {
    let mut counts = BTreeMap::new();
    let mut wrong = Vec::new();
    let checks = checks();
    for check in &checks {
        let kind = text(&check["kind"]);
        let found = match kind {
            "cert_shape" => cert_shape(check),
            "ca_sign" => ca_sign(check),
            "rotation" => rotation(check),
            "open_connection" => open_connection(check),
            "handshake" if is_about_roots(check) => handshake(check),
            _ => continue,
        };
        *counts.entry(kind).or_insert(0) += 1;
        // A check demands only what it lists.
        for (name, expected) in check["expect"].as_object().expect("expectations") {
            if found[name] != *expected {
                wrong.push(format!(
                    "{}: {name}: {} instead of {expected}",
                    text(&check["id"]),
                    found[name]
                ));
            }
        }
    }
    for (kind, count) in &counts {
        println!("{kind}: {count} compared");
    }
    println!("{} failed", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checks.is_empty() || counts.len() == 5, "{counts:?}");
}

/// S-90
fn cert_shape(check: &Value) -> Value {
    let identity = id(text(&check["issue"]["identity"]));
    let key = text(&check["expect"]["key"]);
    let csr = match key {
        "P-384" => {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384);
            let params = rcgen::CertificateParams::default();
            let csr = params.serialize_request(&key.expect("a key"));
            csr.expect("a request").pem().expect("PEM")
        }
        "P-256" => draft(KeyKind::P256, &identity).csr_pem,
        "RSA-2048" => draft(KeyKind::Rsa2048, &identity).csr_pem,
        other => panic!("key {other}"),
    };
    let authority = authority(identity.trust_domain(), NOW);
    let request = SignRequest {
        caller: Some(identity),
        csr: csr.into_bytes(),
        validity_s: number(&check["issue"]["ttl_s"]),
    };
    let chain = sign(&authority, &request, NOW, [7; 16]).expect("a certificate");
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain.certificates()[0]).expect("X.509");

    let key = match leaf.public_key().parsed().expect("a key") {
        PublicKey::RSA(key) => format!("RSA-{}", key.key_size()),
        PublicKey::EC(point) => format!("P-{}", point.key_size()),
        other => panic!("{other:?}"),
    };
    let san = leaf.subject_alternative_name().expect("one").expect("one");
    let uris: Vec<&str> = san
        .value
        .general_names
        .iter()
        .map(|name| match name {
            GeneralName::URI(uri) => *uri,
            other => panic!("{other:?}"),
        })
        .collect();
    let usage = leaf.key_usage().expect("one").expect("one");
    let bits: Vec<&str> = [
        (usage.value.digital_signature(), "digitalSignature"),
        (usage.value.non_repudiation(), "nonRepudiation"),
        (usage.value.key_encipherment(), "keyEncipherment"),
        (usage.value.data_encipherment(), "dataEncipherment"),
        (usage.value.key_agreement(), "keyAgreement"),
        (usage.value.key_cert_sign(), "keyCertSign"),
        (usage.value.crl_sign(), "cRLSign"),
    ]
    .into_iter()
    .filter_map(|(set, name)| set.then_some(name))
    .collect();
    let purposes = leaf.extended_key_usage().expect("one").expect("one").value;
    let purposes: Vec<&str> = [
        (purposes.any, "anyExtendedKeyUsage"),
        (purposes.server_auth, "serverAuth"),
        (purposes.client_auth, "clientAuth"),
        (purposes.code_signing, "codeSigning"),
    ]
    .into_iter()
    .filter_map(|(set, name)| set.then_some(name))
    .collect();
    let constraints = leaf.basic_constraints().expect("one").expect("one");
    let issued = i64::try_from(NOW.as_secs()).expect("a time");
    json!({
        "key": key,
        "issuer": leaf.issuer().to_string(),
        "subject": leaf.subject().to_string(),
        "san": {"critical": san.critical, "uri": uris},
        "key_usage": {"critical": usage.critical, "bits": bits},
        "ext_key_usage": purposes,
        "basic_constraints": {"critical": constraints.critical, "ca": constraints.value.ca},
        "not_before_s": leaf.validity().not_before.timestamp() - issued,
        "not_after_s": leaf.validity().not_after.timestamp() - issued,
    })
}

/// S-91, S-92
fn ca_sign(check: &Value) -> Value {
    // A check about lifetimes says nothing of who asks.
    let caller = check.get("caller").map_or(Some(API), Value::as_str);
    let csr = match check.get("csr").map(text) {
        None | Some("valid") => request_for(list(&check["csr_uris"])),
        Some("garbage") => b"-----BEGIN CERTIFICATE REQUEST-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE REQUEST-----\n".to_vec(),
        Some(other) => panic!("csr {other}"),
    };
    let request = SignRequest {
        caller: caller.map(id),
        csr,
        validity_s: check.get("requested_ttl_s").map_or(0, number),
    };
    let born = check.get("signer_remaining_s").map_or(NOW, |left| {
        let lasts = i64::try_from(ROOT_LIFETIME.as_secs()).expect("a span");
        moment(number(left) - lasts)
    });
    let authority = authority("cluster.local", born);
    match sign(&authority, &request, NOW, [7; 16]) {
        Ok(chain) => {
            let (_, root) = chain.split();
            let leaf = Leaf::parse(&chain.certificates()[0]).expect("an SVID");
            let places: Vec<&str> = chain
                .certificates()
                .iter()
                .enumerate()
                .map(|(at, der)| match at {
                    0 => "leaf",
                    _ if der == authority.root() && der == root => "root",
                    _ => "intermediate",
                })
                .collect();
            json!({
                "ttl_s": leaf.not_after.as_secs() - NOW.as_secs(),
                "uris": [leaf.id.as_str()],
                "chain": places,
            })
        }
        Err(refusal) => json!({
            "error": match refusal {
                Refusal::TtlTooLong => "ttl_too_long",
                Refusal::SignerExpired(_) => "signer_expired",
                _ => "other",
            },
            "grpc": refusal.grpc(),
        }),
    }
}

/// S-94
fn rotation(check: &Value) -> Value {
    let float = |name: &str| check[name].as_f64().expect("a number");
    let not_after = moment(number(&check["lifetime_s"]));
    let now = moment(check.get("now_s").map_or(0, number));
    let at = renew_at(NOW, not_after, float("ratio"), float("jitter"), now);
    let ms = at.0 - NOW.0;
    assert_eq!(ms % 1000, 0, "{}: {ms} ms", text(&check["id"]));
    json!({"renew_at_s": ms / 1000})
}

/// S-94: rotation cuts no connection, and neither does the end of a certificate.
fn open_connection(check: &Value) -> Value {
    let at = |name: &str| moment(number(&check[name]));
    let (crypto, clock) = (Crypto::production(), WallClock::default());
    let authority = authority("cluster.local", NOW);
    let bundle = authority.root_pem();
    let until = number(&check["cert_not_after_s"]);
    let svid = |now| svid(&issue(&authority, API, until, now), &bundle, now);

    clock.set(NOW);
    let old = svid(NOW);
    let (client, server) = settings(&crypto, &clock, &old, &old);
    let mut pair = Pair::open(&client, &server);
    pair.expect_open();

    clock.set(at("renewed_at_s"));
    let new = svid(at("renewed_at_s"));
    let (client, server) = settings(&crypto, &clock, &new, &new);
    Pair::open(&client, &server).expect_open();

    clock.set(at("used_at_s"));
    json!({"usable": pair.carries(b"still here")})
}

/// A client of one CA before a server that trusts others; nothing else is out of the ordinary.
fn is_about_roots(check: &Value) -> bool {
    let cert = check["client_cert"].as_object().expect("a certificate");
    cert.keys().all(|field| ["uris", "ca"].contains(&&**field))
        && list(&check["client_cert"]["uris"]).len() == 1
        && list(&check["needs"]).iter().any(|need| need == "ca")
}

/// S-95
fn handshake(check: &Value) -> Value {
    let mut authorities: BTreeMap<String, Authority> = BTreeMap::new();
    let mut of = |name: &str| {
        let (base, second) = match name.split_once('@') {
            Some((base, "2")) => (base, true),
            Some(_) => panic!("{name}"),
            None => (name, false),
        };
        let first = authorities
            .entry(base.to_owned())
            .or_insert_with(|| authority("cluster.local", NOW));
        if second {
            first.renewed(NOW, [2; 16]).expect("a root")
        } else {
            let key = first.key_pem();
            Authority::from_pem(first.root_pem().as_bytes(), key.reveal().as_bytes())
                .expect("an authority")
        }
    };
    let cert = &check["client_cert"];
    let signer = of(cert["ca"].as_str().unwrap_or("mesh"));
    let uri = text(&list(&cert["uris"])[0]);
    let trusted: String = list(&check["server_trusts"])
        .iter()
        .map(|name| of(text(name)).root_pem())
        .collect();
    let servers = of("mesh");
    let client = svid(&issue(&signer, uri, 3600, NOW), &servers.root_pem(), NOW);
    let server = svid(&issue(&servers, API, 3600, NOW), &trusted, NOW);

    let (crypto, clock) = (Crypto::production(), WallClock::default());
    clock.set(NOW);
    let (client, server) = settings(&crypto, &clock, &client, &server);
    let pair = Pair::open(&client, &server);
    json!({"ok": pair.is_open()})
}

/// S-97: whichever end shows it. Neither end looks at the end of its own certificate here; the peer does.
#[test]
fn an_expired_identity_is_answered_with_certificate_expired_whichever_end_shows_it() {
    let (crypto, clock) = (Crypto::production(), WallClock::default());
    let authority = authority("cluster.local", NOW);
    let bundle = authority.root_pem();
    let short = svid(&issue(&authority, API, 60, NOW), &bundle, NOW);
    let long = svid(&issue(&authority, API, 3600, NOW), &bundle, NOW);
    for (second, expired) in [(60, false), (61, true)] {
        clock.set(moment(second));
        assert_eq!(short.is_expired(moment(second)), expired);
        assert!(!long.is_expired(moment(second)));

        let (client, server) = settings(&crypto, &clock, &short, &long);
        let client_shows = Pair::open(&client, &server);
        let (client, server) = settings(&crypto, &clock, &long, &short);
        let server_shows = Pair::open(&client, &server);
        if !expired {
            client_shows.expect_open();
            server_shows.expect_open();
            continue;
        }
        for (judge, told) in [
            (client_shows.server.failure, client_shows.client.failure),
            (server_shows.client.failure, server_shows.server.failure),
        ] {
            let judge = judge.expect("a refusal");
            assert_eq!(judge.kind, FailureKind::PeerCertificate);
            assert_eq!(judge.alert, Some(45));
            assert!(judge.reason.contains("the certificate has expired"));
            assert_eq!(told.expect("an alert").kind, FailureKind::Alert(45));
        }
    }
}

/// A certificate with its key.
struct Issued {
    chain: Chain,
    draft: Draft,
}

fn authority(domain: &str, now: UnixTime) -> Authority {
    let domain = TrustDomain::parse(domain).expect("a trust domain");
    Authority::new_self_signed(&Crypto::production(), KeyKind::P256, &domain, now, [1; 16])
        .expect("an authority")
}

fn draft(kind: KeyKind, id: &SpiffeId) -> Draft {
    Draft::new(&Crypto::production(), kind, id).expect("a request")
}

/// A request that names `uris`.
fn request_for(uris: &[Value]) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = uris
        .iter()
        .map(|uri| rcgen::SanType::URI(text(uri).try_into().expect("a URI")))
        .collect();
    let csr = params.serialize_request(&key).expect("a request");
    csr.pem().expect("PEM").into_bytes()
}

fn issue(authority: &Authority, uri: &str, ttl_s: i64, now: UnixTime) -> Issued {
    let id = id(uri);
    let draft = draft(KeyKind::P256, &id);
    let request = SignRequest {
        caller: Some(id),
        csr: draft.csr_pem.clone().into_bytes(),
        validity_s: ttl_s,
    };
    Issued {
        chain: sign(authority, &request, now, [7; 16]).expect("a certificate"),
        draft,
    }
}

fn svid(issued: &Issued, bundle: &str, now: UnixTime) -> Svid {
    let (sent, _): (&[CertificateDer<'static>], _) = issued.chain.split();
    Svid::from_pem(
        certificates_pem(sent).as_bytes(),
        issued.draft.key_pem.reveal().as_bytes(),
        bundle.as_bytes(),
        now,
    )
    .expect("an identity")
}

fn settings(
    crypto: &Crypto,
    clock: &WallClock,
    client: &Svid,
    server: &Svid,
) -> (ClientTls, ServerTls) {
    let accepted = [TrustDomain::parse("cluster.local").expect("a trust domain")];
    let least = TlsVersion::Tls12;
    (
        ClientTls::new(crypto, clock, client, &[], None, ChainKind::Http).expect("settings"),
        ServerTls::new(crypto, clock, server, &accepted, least).expect("settings"),
    )
}

/// One end of a link.
struct End {
    session: Session,
    failure: Option<TlsFailure>,
    data: Vec<u8>,
}

impl End {
    fn new(session: Session) -> Self {
        Self {
            session,
            failure: None,
            data: Vec::new(),
        }
    }

    /// Takes what the other end sent, and gives its own answer.
    fn take(&mut self, input: Buf) -> Buf {
        let mut out = Buf::default();
        let data = &mut self.data;
        let result = self.session.receive(input, &mut out, &mut |event| {
            if let TlsEvent::Plain(bytes) = event {
                data.extend_from_slice(bytes);
            }
        });
        self.failure = self.failure.take().or_else(|| result.err());
        out
    }
}

/// Both ends of one link.
struct Pair {
    client: End,
    server: End,
}

impl Pair {
    /// As far as the handshake goes.
    fn open(client: &ClientTls, server: &ServerTls) -> Self {
        let mut client = Session::client(client).expect("a session");
        let mut up = Buf::default();
        client.start(&mut up).expect("a ClientHello");
        let Sniff::Hello(facts) = sniff(&up) else {
            panic!("no ClientHello");
        };
        let server = Session::server(server, ChainKind::Http, &facts).expect("a session");
        let mut pair = Self {
            client: End::new(client),
            server: End::new(server),
        };
        pair.run(up);
        pair
    }

    fn run(&mut self, mut up: Buf) {
        while !up.is_empty() {
            let down = self.server.take(up);
            up = self.client.take(down);
        }
    }

    fn is_open(&self) -> bool {
        [&self.client, &self.server]
            .iter()
            .all(|end| end.failure.is_none() && end.session.is_established())
    }

    fn expect_open(&self) {
        let failures = (&self.client.failure, &self.server.failure);
        assert!(self.is_open(), "{failures:?}");
    }

    /// Whether `text` arrives in both directions.
    fn carries(&mut self, text: &[u8]) -> bool {
        let (mut up, mut down) = (Buf::default(), Buf::default());
        let sent = self.client.session.send(text, &mut up).is_ok()
            && self.server.session.send(text, &mut down).is_ok();
        self.run(up);
        let _ = self.client.take(down);
        sent && self.is_open() && self.client.data == text && self.server.data == text
    }
}

fn id(uri: &str) -> SpiffeId {
    SpiffeId::parse(uri).expect("a SPIFFE ID")
}

fn moment(seconds: i64) -> UnixTime {
    UnixTime(NOW.0.saturating_add_signed(seconds * 1000))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn number(value: &Value) -> i64 {
    value.as_i64().expect("a number")
}
