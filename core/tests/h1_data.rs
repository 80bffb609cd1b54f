//! The HTTP/1.1 corpora of gunicorn, llhttp and http-desync-guardian against the receiver.
//!
//! Judged as the black-box suite judges a corpus row: a row to be refused fails if a whole request comes out of it; any row
//! fails if what would be forwarded is read differently by a second, strict reader. Rows without `host` are run once more
//! with one, so that they are refused for their own reason. Rows that a server may accept and we refuse are no failures
//! there; they are listed all the same.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test reads the shared material, which the core itself may not"
)]

use std::path::PathBuf;

use base64::Engine as _;
use meshward_core::http::event::Event;
use meshward_core::http::h1::{Receiver, ResponseTo, encode};
use meshward_core::http::head::{FieldTable, Framing, Known};

#[path = "../src/http/h1/tests/model.rs"]
mod model;

/// Rows to be refused out of which a request comes, each with its reason. None is an ambiguity.
const ACCEPTED: &[(&str, &str)] = &[(
    "gunicorn/invalid/017",
    "a field line of 8,199 bytes: beyond gunicorn's limit, within ours",
)];

/// Rows that may be accepted and are refused, each with its reason.
const REFUSED: &[(&str, &str)] = &[
    ("gunicorn/valid/019", HTTP10),
    ("gunicorn/valid/022", HTTP10),
    ("gunicorn/valid/025", CODING),
    ("gunicorn/valid/027", HTTP10),
    ("gunicorn/valid/031", METHOD),
    ("gunicorn/valid/040", UNDERSCORE),
    (
        "gunicorn/valid/rfc9112_smuggle_te_identity_chunked_01",
        CODING,
    ),
    ("llhttp/request/content-length/9", HTTP10),
    ("llhttp/request/method/2", HTTP10),
    ("llhttp/request/method/4", HTTP10),
    ("llhttp/request/method/12", PROTOCOL),
    ("llhttp/request/method/13", PROTOCOL),
    ("llhttp/request/method/14", PROTOCOL),
    ("llhttp/request/sample/10", HTTP09),
    ("llhttp/request/transfer-encoding/20", CODING),
    ("llhttp/request/transfer-encoding/21", CODING),
    ("llhttp/request/uri/9", HTTP10),
    ("llhttp/response/connection/10", BODY_OF_101),
    ("llhttp/response/connection/11", BODY_OF_101),
    ("llhttp/response/connection/17", EMPTY_LINE),
    ("llhttp/response/sample/3", PROTOCOL),
    ("llhttp/response/sample/17", HTTP09),
    ("llhttp/response/sample/19", EMPTY_LINE),
    ("llhttp/response/transfer-encoding/2", CODING),
    ("llhttp/response/transfer-encoding/3", CODING),
    ("llhttp/response/transfer-encoding/4", CODING),
    ("desync/more-compliant-tests/5", CODING),
    ("desync/more-compliant-tests/8", CODING),
    ("desync/more-compliant-tests/9", CODING),
    ("desync/rfc-compliant/10", CODING),
];

const HTTP10: &str = "HTTP/1.0 requests are answered 426 (S-25)";
const HTTP09: &str = "HTTP/0.9";
const CODING: &str = "a transfer coding other than chunked alone is answered 501 (RFC 9112 §6.1)";
const METHOD: &str = "a method that Envoy does not know either (S-138)";
const UNDERSCORE: &str = "`Content_Length` is `Content-Length` to some upstreams";
const PROTOCOL: &str = "RTSP or ICE";
const BODY_OF_101: &str = "a 1xx answer has no body (RFC 9112 §6.3)";
const EMPTY_LINE: &str = "empty lines come before requests only (RFC 9112 §2.2)";

/// One line of a corpus.
struct Row {
    id: String,
    raw: Vec<u8>,
    expect: String,
    is_response: bool,
    /// A head without its body: the head alone is judged.
    head_only: bool,
}

/// The corpora, or `None` where the shared material is not there, which only continuous integration takes amiss.
fn rows() -> Option<Vec<Row>> {
    let shared = std::env::var_os("MESHWARD_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let data = shared.join("suites/data");
    if !data.is_dir() {
        assert!(
            std::env::var_os("CI").is_none(),
            "no corpora in {}",
            data.display()
        );
        println!("skipped: no corpora in {}", data.display());
        return None;
    }
    let mut rows = Vec::new();
    for corpus in ["gunicorn", "llhttp", "desync_guardian"] {
        let path = data.join(corpus).with_extension("ndjson");
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).expect("a corpus line is JSON");
            let word = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            // Rows about a setting of gunicorn or a lenient mode of llhttp say nothing about strict servers.
            let has_settings = row["settings"].as_array().is_some_and(|s| !s.is_empty());
            if has_settings || word("expect") == "lenient-only" {
                continue;
            }
            rows.push(Row {
                id: word("id"),
                raw: base64::prelude::BASE64_STANDARD
                    .decode(word("raw_b64"))
                    .expect("raw_b64 is base64"),
                expect: word("expect"),
                is_response: word("kind") == "response",
                head_only: row["head_only"].as_bool().unwrap_or_default(),
            });
        }
    }
    Some(rows)
}

/// What came of one row.
#[derive(Debug, Default)]
struct Outcome {
    heads: usize,
    messages: usize,
    refused: Option<&'static str>,
    ambiguity: Option<String>,
}

fn run_requests(raw: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut receiver = Receiver::requests();
    let mut table = FieldTable::default();
    let (mut sent, mut message, mut told) = (Vec::new(), Vec::new(), Vec::new());
    let mut current: Option<(model::Read, Framing)> = None;
    let mut upgrade = false;
    let mut input = raw;
    loop {
        match receiver.next(&mut input, &mut table) {
            Ok(Some(Event::Request(_, head))) => {
                outcome.heads += 1;
                upgrade = head.upgrade;
                let target = if head.path.is_empty() {
                    head.target
                } else {
                    head.path
                };
                let host = head.authority.unwrap_or_default();
                let mut fields = Vec::new();
                message.clear();
                encode::request_line(&mut message, head.method, target);
                encode::field(&mut message, b"host", host);
                for field in head.fields() {
                    if head.is_hop_by_hop(&field)
                        || matches!(field.known, Known::Host | Known::ContentLength)
                    {
                        continue;
                    }
                    encode::field(&mut message, field.name, field.value);
                    fields.push((field.name.to_ascii_lowercase(), field.value.to_vec()));
                }
                match head.framing {
                    Framing::Length(length) => encode::content_length(&mut message, length),
                    Framing::Chunked => encode::chunked(&mut message),
                    Framing::None | Framing::UntilClose => {}
                }
                encode::end_of_head(&mut message);
                let read = model::Read {
                    method: head.method.into(),
                    target: target.to_vec(),
                    host: host.to_vec(),
                    fields,
                    body: Vec::new(),
                };
                current = Some((read, head.framing));
            }
            Ok(Some(Event::Data(_, data))) => {
                let (read, framing) = current.as_mut().expect("data follow a head");
                read.body.extend_from_slice(data);
                if *framing == Framing::Chunked {
                    encode::chunk(&mut message, data);
                } else {
                    message.extend_from_slice(data);
                }
            }
            Ok(Some(Event::Trailers(..) | Event::Response(..))) => {}
            Ok(Some(Event::End(_))) => {
                let (read, framing) = current.take().expect("an end follows a head");
                if framing == Framing::Chunked {
                    encode::last_chunk(&mut message, []);
                }
                told.push(read);
                sent.append(&mut message);
                // Granted: what follows is not HTTP.
                if upgrade {
                    break;
                }
                receiver.resume();
            }
            Ok(None) => break,
            Err(fault) => {
                outcome.refused = Some(fault.what);
                break;
            }
        }
    }
    outcome.messages = told.len();
    let read = model::read_all(&sent);
    if read != Ok((told, 0)) {
        outcome.ambiguity = Some(format!("forwarded and read as {read:?}"));
    }
    outcome
}

fn run_responses(raw: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut receiver = Receiver::responses();
    let mut table = FieldTable::default();
    // Fixtures that switch protocols answer a request that asked for it.
    let to = if raw.starts_with(b"HTTP/1.1 101") {
        ResponseTo::Upgrade
    } else {
        ResponseTo::Other
    };
    receiver.expect_response(to);
    let mut input = raw;
    loop {
        let ended = match receiver.next(&mut input, &mut table) {
            Ok(Some(event)) => matches!(event, Event::End(_)),
            Ok(None) => break,
            Err(fault) => {
                outcome.refused = Some(fault.what);
                break;
            }
        };
        if ended {
            outcome.messages += 1;
            receiver.expect_response(ResponseTo::Other);
        }
    }
    if outcome.refused.is_none() && matches!(receiver.eof(), Ok(Some(_))) {
        outcome.messages += 1;
    }
    outcome
}

/// `raw` with a `host` line in each of its heads, if it has none.
fn with_host(raw: &[u8]) -> Option<Vec<u8>> {
    const LINE_END: &[u8] = b" HTTP/1.1\r\n";
    let lower = raw.to_ascii_lowercase();
    if lower.windows(6).any(|w| w == b"\nhost:") {
        return None;
    }
    let mut out = Vec::new();
    let mut rest = raw;
    while let Some(at) = rest.windows(LINE_END.len()).position(|w| w == LINE_END) {
        let (line, after) = rest.split_at(at + LINE_END.len());
        out.extend_from_slice(line);
        out.extend_from_slice(b"Host: h\r\n");
        rest = after;
    }
    out.extend_from_slice(rest);
    Some(out)
}

#[test]
fn the_corpora_are_refused_or_have_one_meaning() {
    let Some(rows) = rows() else {
        return;
    };
    let (mut accepted, mut refused, mut ambiguous) = (Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let outcomes = if row.is_response {
            vec![run_responses(&row.raw)]
        } else {
            let mut outcomes = vec![run_requests(&row.raw)];
            outcomes.extend(with_host(&row.raw).map(|raw| run_requests(&raw)));
            outcomes
        };
        let last = outcomes.last().expect("each row was run");
        for outcome in &outcomes {
            if let Some(how) = &outcome.ambiguity {
                ambiguous.push(format!("{}: {how}", row.id));
            }
        }
        let came_out = |outcome: &Outcome| {
            if row.is_response {
                outcome.messages > 0 && outcome.refused.is_none()
            } else if row.head_only {
                outcome.heads > 0
            } else {
                outcome.messages > 0
            }
        };
        match row.expect.as_str() {
            "reject" if outcomes.iter().any(came_out) => accepted.push(row.id.as_str()),
            "accept" => {
                if let Some(what) = last.refused {
                    refused.push((row.id.as_str(), what));
                }
            }
            _ => {}
        }
    }
    println!(
        "{} rows: {} accepted, {} refused",
        rows.len(),
        accepted.len(),
        refused.len()
    );
    assert!(ambiguous.is_empty(), "{ambiguous:#?}");
    assert!(ACCEPTED.len() <= 13, "at most 13 failures");
    assert_eq!(
        accepted,
        ACCEPTED.iter().map(|(id, _)| *id).collect::<Vec<_>>()
    );
    let listed: Vec<_> = REFUSED.iter().map(|(id, _)| *id).collect();
    let found: Vec<_> = refused.iter().map(|(id, _)| *id).collect();
    assert_eq!(found, listed, "{refused:#?}");
}
