//! Tokens, keys and JSON held against suites that others wrote.
//!
//! * `jwt_attacks`: what Envoy 1.40 (Istio's proxy) made of each token stands beside it. Where we differ, a table says why.
//! * `wycheproof_jws`, `rfc_jose`: signatures alone, the payloads are no claims. Where a key or a signature is judged in
//!   another way than the suite wants, a table says why.
//! * `json_parsing`: what is JSON, for headers, payloads and key sets.
//!
//! A difference that no table names fails a test, and so does a named one that is none.

#![allow(
    clippy::disallowed_methods,
    reason = "a test reads the shared material, which the core itself may not"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use meshward_core::api::meta::{Labels, Meta, Origin};
use meshward_core::api::request_authentication::{JwtRule, KeySource, RequestAuthentication};
use meshward_core::authn::jwk::KeySet;
use meshward_core::authn::jws::Jws;
use meshward_core::authn::status::Status;
use meshward_core::authn::token::{Demand, Token, verify};
use meshward_core::authn::{Cache, Presented, authenticate, compile};
use meshward_core::clock::UnixTime;
use meshward_core::http::head::Fields;
use meshward_core::limits::TOKEN_MAX;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Envoy drops odd bytes of an ECDSA signature, and takes halves of any length: one token could then be written in many
/// ways. RFC 7518 §3.4: two octet strings of the size of the curve.
const LOOSE_ECDSA: &str = "an ECDSA signature has one length";
/// Envoy hashes as the token says and verifies with whatever curve the key has. RFC 7518 §3.4: each algorithm has its curve.
const CURVE: &str = "each ECDSA algorithm has its curve";
/// RFC 7515 §4.1.11: what is critical and not understood is refused. Envoy does not look, so that an extension which narrows
/// what a token means would be passed over.
const CRIT: &str = "a critical header is not understood";
/// Protobuf reads more than JSON. Two readers of one token must not disagree about what it says (RFC 8259).
const LOOSE_JSON: &str = "that is not JSON";
/// Envoy takes padding and stray low bits. RFC 7515 §2: no padding; RFC 4648 §3.5: a token is written in one way only.
const LOOSE_BASE64: &str = "that is not the base64url of a JWS";
/// `use` and `key_ops` are not looked at by Envoy (S-221), and issuers set them carelessly; whoever writes the key set wants
/// the key used.
const USE: &str = "what a key is for is said by its being in the set";
/// RFC 7518 §3.2 wants a secret as long as the hash. Envoy takes any, and the one that it was agreed upon with has it anyway.
const SHORT_SECRET: &str = "the length of a secret is up to those who share it";

/// Rows that Envoy judges otherwise.
const OTHER_THAN_ENVOY: &[(&str, &str)] = &[
    ("alg/ES256/sig_extended", LOOSE_ECDSA),
    ("alg/ES384/sig_extended", LOOSE_ECDSA),
    ("alg/ES512/sig_extended", LOOSE_ECDSA),
    ("ecdsa/leading_zero", LOOSE_ECDSA),
    ("confusion/es256_p384_key", CURVE),
    ("confusion/es384_p256_key", CURVE),
    ("header/crit_unknown", CRIT),
    ("header/crit_b64_false", CRIT),
    ("header/crit_empty", CRIT),
    ("header/crit_string", CRIT),
    ("header/crit_names_registered", CRIT),
    ("header/json_single_quotes", LOOSE_JSON),
    ("header/json_trailing_comma", LOOSE_JSON),
    ("claims/json_trailing_comma", LOOSE_JSON),
    ("claims/json_raw_control", LOOSE_JSON),
    ("shape/padded_sig", LOOSE_BASE64),
    ("shape/noncanonical_trailing_bits", LOOSE_BASE64),
];

/// Rows that the RFCs judge otherwise, and where we do as Envoy does.
const OTHER_THAN_THE_RFCS: &[(&str, &str)] = &[
    (
        "claims/json_deep_100",
        "101 objects and lists within each other are one too many for Envoy as well",
    ),
    ("shape/four_parts", "S-216: an empty section is not counted"),
    (
        "shape/hdr_percent",
        "S-213: a token begins with the first character that one may have",
    ),
    (
        "jwks/ec_crv_missing",
        "Envoy: an EC key that does not say its curve is on P-256",
    ),
];

/// Rows at the edge of Envoy's clock, which could not be measured: S-219 says whether they are accepted.
const NOT_MEASURED: &[(&str, bool)] = &[
    ("claims/exp_now-61", false),
    ("claims/exp_now-59", true),
    ("claims/nbf_now+59", true),
];

/// Rows of Wycheproof that we judge otherwise.
const OTHER_THAN_WYCHEPROOF: &[(&str, &str)] = &[
    (
        "wycheproof/json_web_signature_test/259",
        "S-216: a token without a payload has two sections",
    ),
    (
        "wycheproof/json_web_signature_test/264",
        "S-216: a token without a payload has two sections",
    ),
    (
        "wycheproof/json_web_signature_test/268",
        "S-216: a token without a payload has two sections",
    ),
    (
        "wycheproof/json_web_signature_test/272",
        "S-216: a token without a payload has two sections",
    ),
    ("wycheproof/json_web_signature_test/353", USE),
    ("wycheproof/json_web_signature_test/354", USE),
    ("wycheproof/json_web_signature_test/355", USE),
    (
        "wycheproof/json_web_key_test/7",
        "a modulus that can be factored is not looked for, neither by Envoy",
    ),
    ("wycheproof/json_web_key_test/10", SHORT_SECRET),
    ("wycheproof/json_web_key_test/12", SHORT_SECRET),
    ("wycheproof/json_web_key_test/21", USE),
];

/// Rows that RFC 8259 demands to be read, and are not.
const JSON_NOT_READ: &[(&str, &str)] = &[
    (
        "json/y_object_duplicated_key",
        "a name that stands twice is refused, as by Envoy (RFC 7519 §4)",
    ),
    (
        "json/y_object_duplicated_key_and_value",
        "a name that stands twice is refused, as by Envoy (RFC 7519 §4)",
    ),
];

/// Rows that RFC 8259 leaves open, and are read. The others of them are not.
const JSON_OPEN_AND_READ: &[(&str, &str)] = &[
    ("json/i_number_double_huge_neg_exp", "it is 0"),
    ("json/i_number_too_big_neg_int", "an f64 holds it"),
];

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Accept,
    Reject,
    Any,
    #[serde(rename = "not measured")]
    NotMeasured,
}

#[derive(Deserialize)]
struct Attack {
    id: String,
    token: String,
    jwks: String,
    issuer: String,
    audiences: Vec<String>,
    /// Seconds since 1970.
    at: u64,
    expect: Expected,
    peers: BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
struct Signature {
    id: String,
    jwk: Value,
    jws: String,
    expect: Expected,
    /// Every library disagrees with the vector.
    disputed: Option<Value>,
}

#[derive(Deserialize)]
struct Document {
    id: String,
    b64: String,
    expect: Expected,
}

/// Differences found, held against those that a table names.
struct Differences {
    named: BTreeMap<&'static str, &'static str>,
    wrong: Vec<String>,
    rows: usize,
}

impl Differences {
    fn new(named: &[(&'static str, &'static str)]) -> Self {
        Self {
            named: named.iter().copied().collect(),
            wrong: Vec::new(),
            rows: 0,
        }
    }

    fn row(&mut self, id: &str, expected: bool, got: Result<(), String>) {
        self.rows += 1;
        let named = self.named.remove(id).is_some();
        if named == (got.is_ok() == expected) {
            let got = got.map_or_else(
                |reason| format!("refused: {reason}"),
                |()| "accepted".into(),
            );
            let is = if named {
                "named, but none"
            } else {
                "not named"
            };
            self.wrong.push(format!("{id}: {is}: {got}"));
        }
    }

    #[track_caller]
    fn end(self, what: &str) {
        println!("{what}: {} rows", self.rows);
        let absent: Vec<_> = self.named.keys().collect();
        assert!(absent.is_empty(), "{what}: no such rows: {absent:?}");
        assert!(
            self.wrong.is_empty(),
            "{what}: {} of {} rows:\n{}",
            self.wrong.len(),
            self.rows,
            self.wrong.join("\n")
        );
    }
}

/// What is taken from `Authorization: Bearer TEXT` (S-213): white space around a value is the protocol's, and a token begins
/// with the first character that one may have. Two rows are about this and nothing else.
fn found(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
        .trim_start_matches(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
}

/// One rule, one token in the place where it is looked for.
fn judge(row: &Attack) -> Result<(), Status> {
    let keys = KeySet::parse(&row.jwks)?;
    let token = Token::parse(found(&row.token).as_bytes())?;
    let demand = Demand {
        issuer: &row.issuer,
        audiences: &row.audiences,
        keys: &keys,
    };
    verify(&token, &demand, UnixTime(row.at * 1000))
}

#[test]
fn attacks_end_as_they_do_at_envoy() {
    let Some(rows) = read::<Attack>("jwt_attacks") else {
        return;
    };
    let mut differences = Differences::new(OTHER_THAN_ENVOY);
    for row in &rows {
        let envoy = match row.peers["envoy-1.40"] {
            Expected::Accept => true,
            Expected::Reject => false,
            Expected::NotMeasured | Expected::Any => {
                let measured = NOT_MEASURED.iter().find(|(id, _)| *id == row.id);
                measured.unwrap_or_else(|| panic!("{}", row.id)).1
            }
        };
        differences.row(&row.id, envoy, judge(row).map_err(|s| s.to_string()));
    }
    differences.end("Envoy");
}

#[test]
fn attacks_end_as_the_rfcs_want_it() {
    let Some(rows) = read::<Attack>("jwt_attacks") else {
        return;
    };
    let mut differences = Differences::new(OTHER_THAN_THE_RFCS);
    for row in &rows {
        let expected = match row.expect {
            Expected::Accept => true,
            Expected::Reject => false,
            Expected::Any | Expected::NotMeasured => continue,
        };
        differences.row(&row.id, expected, judge(row).map_err(|s| s.to_string()));
    }
    differences.end("RFCs");
}

/// A policy with one rule, which the row's token has to satisfy.
fn policy(row: &Attack) -> RequestAuthentication {
    let origin = Origin {
        file: "jwt_attacks".into(),
        line: 1,
        column: 1,
    };
    let rule = JwtRule {
        issuer: row.issuer.clone(),
        audiences: row.audiences.clone(),
        keys: KeySource::Inline(row.jwks.clone()),
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        output_payload_to_header: None,
        output_claims: Vec::new(),
        forward_original_token: false,
        space_delimited_claims: Vec::new(),
        origin: origin.clone(),
    };
    RequestAuthentication {
        meta: Meta {
            name: "jwt".into(),
            namespace: "default".into(),
            created: 0,
            annotations: Labels::new(),
            labels: Labels::new(),
            origin,
        },
        selector: None,
        targets: false,
        rules: vec![rule],
    }
}

/// The whole way of a request: found, verified, remembered. It ends as the token alone does, the second time as the first;
/// and nobody passes as somebody by a token that was refused.
#[test]
fn attacks_end_in_a_request_as_they_end_alone() {
    let Some(rows) = read::<Attack>("jwt_attacks") else {
        return;
    };
    // One cache for all: what one row leaves there is of no use to another.
    let mut cache = Cache::default();
    for row in &rows {
        let rules = compile(&[&policy(row)]);
        let value = format!("Bearer {}", row.token.trim_matches([' ', '\t']));
        let lines: [(&[u8], &[u8]); 1] = [(b"authorization", value.as_bytes())];
        let request = Presented {
            method: "GET",
            path: b"/",
            authority: b"a",
            tls: false,
            fields: Fields::listed(&lines),
        };
        let alone = judge(row);
        let usable = KeySet::parse(&row.jwks).is_ok_and(|keys| !keys.is_empty());
        for time in 1..=2 {
            let now = UnixTime(row.at * 1000);
            let end = authenticate(&rules, &request, now, &mut cache, &mut ());
            match (&alone, end) {
                (Ok(()), Ok(end)) => assert!(end.claims.is_some(), "{} {time}", row.id),
                (Err(status), Err(refusal)) if usable => {
                    assert_eq!(refusal.status, *status, "{} {time}", row.id);
                }
                (Err(_), Err(_)) => {}
                (alone, end) => panic!("{} {time}: {alone:?} alone, then {end:?}", row.id),
            }
        }
    }
    assert!(rows.len() >= 273, "only {} rows", rows.len());
    assert!(!cache.is_empty());
}

#[test]
fn signatures_are_those_of_wycheproof() {
    signatures("wycheproof_jws", OTHER_THAN_WYCHEPROOF);
}

#[test]
fn signatures_are_those_of_the_rfcs() {
    signatures("rfc_jose", &[]);
}

fn signatures(set: &str, named: &[(&'static str, &'static str)]) {
    let Some(rows) = read::<Signature>(set) else {
        return;
    };
    let mut differences = Differences::new(named);
    for row in rows.iter().filter(|row| row.disputed.is_none()) {
        let keys = if row.jwk.get("keys").is_some() {
            row.jwk.to_string()
        } else {
            format!("{{\"keys\":[{}]}}", row.jwk)
        };
        let keys = KeySet::parse(&keys).unwrap_or_else(|status| panic!("{}: {status}", row.id));
        let outcome = Jws::parse(row.jws.as_bytes()).and_then(|jws| {
            jws.payload().ok_or(Status::PayloadBadBase64)?;
            jws.signer(&keys).map(|_| ())
        });
        let outcome = outcome.map_err(|status| format!("{status} {:?}", keys.left_out()));
        differences.row(&row.id, row.expect == Expected::Accept, outcome);
    }
    differences.end(set);
}

/// The document as a member of a header, a payload and a key set.
fn reads(document: &[u8]) -> Result<(), String> {
    let within = |begin: &str| [begin.as_bytes(), document, b"}"].concat();
    let token = |header: &[u8], payload: &[u8]| {
        let text = format!(
            "{}.{}.AAAA",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload)
        );
        Token::parse(text.as_bytes()).map(|_| ())
    };
    let plain = br#"{"alg":"HS256"}"#;
    let header = token(&within("{\"alg\":\"HS256\",\"x\":"), b"{}");
    let payload = token(plain, &within("{\"x\":"));
    let keys = String::from_utf8(within("{\"keys\":[],\"x\":"))
        .map_err(|_| Status::JwksBadJson)
        .and_then(|text| KeySet::parse(&text).map(|_| ()));
    match (header, payload, keys) {
        (Ok(()), Ok(()), Ok(())) => Ok(()),
        (Err(Status::HeaderBadJson), Err(Status::PayloadBadJson), Err(Status::JwksBadJson)) => {
            Err("no JSON".to_owned())
        }
        (Err(Status::BadFormat), Err(Status::BadFormat), Err(Status::JwksBadJson))
            if document.len() * 4 / 3 > TOKEN_MAX =>
        {
            Err("longer than a token may be".to_owned())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn json_is_what_rfc_8259_says() {
    let Some(rows) = read::<Document>("json_parsing") else {
        return;
    };
    let open: BTreeMap<_, _> = JSON_OPEN_AND_READ.iter().copied().collect();
    let mut differences = Differences::new(JSON_NOT_READ);
    let mut seen = 0;
    for row in &rows {
        let document = STANDARD.decode(&row.b64).expect("base64");
        let expected = match row.expect {
            Expected::Accept => true,
            Expected::Reject => false,
            Expected::Any | Expected::NotMeasured => open.contains_key(&*row.id),
        };
        seen += usize::from(open.contains_key(&*row.id));
        differences.row(&row.id, expected, reads(&document));
    }
    assert_eq!(seen, open.len(), "every row of the table is there");
    differences.end("json_parsing");
}

/// A set of the shared folder; `None`, after a line that says so, where it is absent and may be.
fn read<T: DeserializeOwned>(set: &str) -> Option<Vec<T>> {
    let root = std::env::var_os("MESHWARD_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let path = root.join(format!("suites/data/{set}.ndjson"));
    let Ok(text) = std::fs::read_to_string(&path) else {
        assert!(std::env::var_os("CI").is_none(), "no {}", path.display());
        println!("skipped: no {}", path.display());
        return None;
    };
    let rows: Vec<T> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{set}: {e}: {line}")))
        .collect();
    assert!(!rows.is_empty(), "{set} has rows");
    Some(rows)
}
