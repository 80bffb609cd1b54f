//! The kind `request`: what a curl would do, and what came of it.

use std::time::Duration;

use meshward_core::authn::Cache;
use meshward_core::authz::explanation;
use meshward_core::clock::UnixTime;
use meshward_core::decide::{self, Caller, Explanation, inbound_request};
use meshward_core::http::head::Fields;
use meshward_core::telemetry::Record;
use serde_json::{Value as Json, json};

use super::Expect;
use super::app::{ANSWERED_BY, authority};
use super::checks::{Place, Request};
use super::client::Journal;
use super::http::{Kind, Message, Reader, to_latin1};
use super::keys::Made;
use super::scene::{Carried, Opened, Records, Scene};
use super::tree::plain_json;
use super::words::Makers;

/// A request as it goes over the wire.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    authority: String,
    /// With the tokens that it carries.
    path: String,
    fields: Vec<(String, String)>,
    tokens: Vec<Made>,
}

/// What came of one.
#[derive(Debug)]
struct Outcome {
    written: Written,
    answer: Option<Message>,
    /// Which application answered, and the request that it had received.
    upstream: Option<(String, Message)>,
    curl_exit: Option<u8>,
    tls: Journal,
    records: Records,
    opened: Option<Opened>,
}

/// Says what is found of expectations that do not hold.
pub(super) type Held<'a> = &'a dyn Fn(&Expect) -> Option<Json>;

/// How long the log of a connection is waited for after its end.
const LINGERING: Duration = Duration::from_secs(2);

/// Sends it as often as it says, until `judge` finds something wrong with an answer: it asks for what is found of
/// expectations if they do not hold. Errors are for people: what cannot be set up.
pub(super) fn run(
    scene: &mut Scene,
    request: &Request,
    makers: &mut Makers,
    judge: &mut dyn FnMut(Held<'_>) -> Option<Json>,
) -> Result<Option<Json>, String> {
    if let Some(field) = request.beyond.first() {
        return Err(format!("nothing acts on `{field}` here"));
    }
    if !matches!(request.http.as_str(), "1.1" | "1.0") {
        return Err(format!("HTTP/{} is not spoken here", request.http));
    }
    scene.each_app(|app| app.echoes = false);
    scene.stage.pass(request.wait);
    for _ in 0..request.repeat.max(1) {
        let outcome = once(scene, request, makers)?;
        if let Some(got) = judge(&|expect: &Expect| compare(scene, expect, &outcome)) {
            return Ok(Some(got));
        }
    }
    Ok(None)
}

/// `now`: of the clock by which tokens expire.
pub(super) fn write(
    now: UnixTime,
    request: &Request,
    makers: &mut Makers,
) -> Result<Written, String> {
    let host = request.authority.clone();
    let authority = host.unwrap_or_else(|| authority(&request.to.host, request.to.port));
    let mut path = request.path.clone();
    let mut fields = request.headers.clone();
    let mut cookies = Vec::new();
    let mut tokens = Vec::new();
    for placed in &request.jwt {
        let token = makers.keys.token(&placed.token, now)?;
        let value = [placed.prefix.as_str(), &token.text].concat();
        match &placed.place {
            Place::Authorization => fields.push(("authorization".into(), value)),
            Place::Header(name) => fields.push((name.clone(), value)),
            Place::Param(name) => {
                let mark = if path.contains('?') { '&' } else { '?' };
                path = format!("{path}{mark}{name}={value}");
            }
            Place::Cookie(name) => cookies.push(format!("{name}={value}")),
        }
        tokens.push(token);
    }
    if !cookies.is_empty() {
        fields.push(("cookie".into(), cookies.join("; ")));
    }
    // What a curl adds by itself.
    for (name, value) in [("user-agent", "curl/8.5.0"), ("accept", "*/*")] {
        let is_own = |(own, _): &(String, String)| own.eq_ignore_ascii_case(name);
        if !fields.iter().any(is_own) {
            fields.push((name.into(), value.into()));
        }
    }
    let Request { method, http, .. } = request;
    let mut bytes = format!("{method} {path} HTTP/{http}\r\nhost: {authority}\r\n").into_bytes();
    for (name, value) in &fields {
        let line = to_latin1(&format!("{name}: {value}\r\n"))
            .ok_or_else(|| format!("the header `{name}` holds what is no Latin-1"))?;
        bytes.extend(line);
    }
    bytes.extend_from_slice(b"\r\n");
    Ok(Written {
        bytes,
        authority,
        path,
        fields,
        tokens,
    })
}

fn once(scene: &mut Scene, request: &Request, makers: &mut Makers) -> Result<Outcome, String> {
    let written = write(scene.stage.now().wall, request, makers)?;
    let tls = request.tls.as_ref();
    let opened = scene.open(&request.from, &request.to, tls, Carried::Http, makers)?;
    let Some(opened) = opened else {
        return Ok(Outcome {
            written,
            answer: None,
            upstream: None,
            // Could not resolve host.
            curl_exit: Some(6),
            tls: Journal::default(),
            records: Records::default(),
            opened: None,
        });
    };
    let party = opened.party;
    scene.caller(party, |caller, out| caller.say(&written.bytes, out));
    let kind = match request.method.as_str() {
        "HEAD" => Kind::ResponsesToHead,
        _ => Kind::Responses,
    };
    let read = |scene: &mut Scene| {
        scene.caller(party, |caller, _| {
            let mut reader = Reader::new(kind);
            reader.push(&caller.received);
            if caller.is_over() {
                reader.end();
            }
            let answer = reader.answer().filter(|answer| answer.complete).cloned();
            (answer, caller.is_over(), reader.is_broken())
        })
    };
    scene.wait_until(|scene| {
        let (answer, over, broken) = read(scene);
        answer.is_some() || over || broken
    });
    let (answer, ..) = read(scene);
    let (curl_exit, tls) = scene.caller(party, |caller, out| {
        let seen = (caller.curl_exit(answer.is_some()), caller.journal());
        caller.finish(out);
        seen
    });
    scene.stage.settle();
    let mut records = scene.take_records(&opened);
    let of_server = scene.has_sidecar(&opened.way);
    let is_told = |records: &Records| {
        let of_client = opened.sidecar.is_none() || !records.client.is_empty();
        of_client && (!of_server || !records.server.is_empty())
    };
    // Some are written when a connection that lingers is given up.
    let mut left = LINGERING;
    while !is_told(&records) && !left.is_zero() {
        let step = scene.stage.step().min(left);
        left -= step;
        scene.stage.pass(step);
        let more = scene.take_records(&opened);
        records.client.extend(more.client);
        records.server.extend(more.server);
    }
    let by = answer.as_ref().and_then(|answer| answer.field(ANSWERED_BY));
    let upstream = by.and_then(|by| {
        let (name, number) = by.rsplit_once(';')?;
        let number: usize = number.parse().ok()?;
        let request = scene.app_of(name, |app| app.requests.get(number).cloned())??;
        Some((name.to_owned(), request))
    });
    Ok(Outcome {
        written,
        answer,
        upstream,
        curl_exit,
        tls,
        records,
        opened: Some(opened),
    })
}

/// The line of the proxy that produced the answer: of those on the way, the first that did not pass on what another said.
fn producer(records: &Records) -> Option<&Record> {
    let on_the_way = || records.client.iter().chain(&records.server);
    let passes_on = |record: &&Record| {
        record
            .details
            .as_deref()
            .is_none_or(|details| details == "via_upstream")
    };
    let own = on_the_way().find(|record| !passes_on(record));
    own.or_else(|| on_the_way().last())
}

fn compare(scene: &Scene, expect: &Expect, outcome: &Outcome) -> Option<Json> {
    let mut got = serde_json::Map::new();
    let mut right = true;
    for (name, node) in expect {
        let want = plain_json(node);
        let (fits, found) = expectation(scene, name, &want, outcome);
        right &= fits;
        got.insert(name.clone(), found);
    }
    (!right).then(|| {
        // What went wrong is seldom in what was asked for alone.
        if let Some(record) = producer(&outcome.records) {
            let details = record.details.as_deref().or(record.termination.as_deref());
            got.entry("details").or_insert_with(|| details.into());
        }
        let exit = outcome.curl_exit;
        got.entry("curl_exit").or_insert_with(|| exit.into());
        Json::Object(got)
    })
}

fn same(want: &Json, found: Json) -> (bool, Json) {
    (*want == found, found)
}

/// Whether an expectation holds, and what was found.
fn expectation(scene: &Scene, name: &str, want: &Json, outcome: &Outcome) -> (bool, Json) {
    let answer = outcome.answer.as_ref();
    let field = |name: &str| answer.and_then(|answer| answer.field(name));
    let record = producer(&outcome.records);
    match name {
        "status" => match answer {
            Some(answer) => same(want, answer.status().into()),
            None => same(want, "000".into()),
        },
        "http_status" => same(want, answer.map(Message::status).into()),
        "curl_exit" => same(want, outcome.curl_exit.into()),
        "body" => {
            let body = answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
            same(want, body.into())
        }
        "body_bytes" => same(want, answer.map(|answer| answer.body.len()).into()),
        "flags" => {
            let names: Vec<&str> =
                record.map_or(Vec::new(), |record| record.flags.names().collect());
            let wanted = want.as_str().unwrap_or_default().split(',');
            let fits = wanted.into_iter().all(|flag| names.contains(&flag));
            (fits, names.join(",").into())
        }
        "details" => {
            let details = record.and_then(|record| record.details.as_ref());
            same(
                want,
                details.map(|details| details.replace(' ', "_")).into(),
            )
        }
        "policy" => same(want, policy(scene, outcome).into()),
        "upstream_cluster" => {
            let own = outcome.records.client.first();
            let cluster = own.and_then(|record| record.upstream_cluster.clone());
            same(want, cluster.into())
        }
        "mtls" => {
            let server = outcome.records.server.first();
            let way = outcome.opened.as_ref().map(|opened| &opened.way);
            let is = match (server, way.is_some_and(|way| scene.has_sidecar(way))) {
                (Some(record), _) => Some(record.peer.is_some()),
                (None, false) => Some(false),
                (None, true) => None,
            };
            same(want, is.into())
        }
        "grpc_status" => {
            let status = field("grpc-status").and_then(|status| status.parse::<u8>().ok());
            same(want, status.into())
        }
        "grpc_message" => same(
            want,
            field("grpc-message").map(|text| unescaped(&text)).into(),
        ),
        "response_headers" => headers(want, outcome, &field),
        "not" => absent(want, &field),
        "upstream" => upstream(want, outcome),
        "tls" => tls(want, &outcome.tls),
        // What only features say that are lacking.
        _ => (false, Json::Null),
    }
}

/// `%41` as `A` (gRPC over HTTP2, Status-Message).
fn unescaped(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &after[2..];
            }
            (other, _) => {
                out.push(*other);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn headers(want: &Json, outcome: &Outcome, field: &dyn Fn(&str) -> Option<String>) -> (bool, Json) {
    let mut fits = true;
    let mut found = serde_json::Map::new();
    for (name, want) in want.as_object().into_iter().flatten() {
        let value = field(&name.to_ascii_lowercase());
        fits &= match (want.as_str(), &value) {
            (None, None) => want.is_null(),
            (Some(want), Some(value)) => holds(want, value, &outcome.written),
            (None, Some(_)) | (Some(_), None) => false,
        };
        found.insert(name.clone(), value.into());
    }
    (fits, Json::Object(found))
}

fn absent(want: &Json, field: &dyn Fn(&str) -> Option<String>) -> (bool, Json) {
    let mut there = serde_json::Map::new();
    let names = want["response_headers"].as_array();
    for name in names.into_iter().flatten().filter_map(Json::as_str) {
        if let Some(value) = field(&name.to_ascii_lowercase()) {
            there.insert(name.to_owned(), value.into());
        }
    }
    let known = want
        .as_object()
        .is_some_and(|want| want.keys().all(|key| key == "response_headers"));
    (
        known && there.is_empty(),
        json!({ "response_headers": there }),
    )
}

fn upstream(want: &Json, outcome: &Outcome) -> (bool, Json) {
    let Some((workload, request)) = &outcome.upstream else {
        return (false, Json::Null);
    };
    let mut fits = true;
    let mut found = serde_json::Map::new();
    for (name, want) in want.as_object().into_iter().flatten() {
        let (one, value) = match name.as_str() {
            "workload" => same(want, workload.as_str().into()),
            "method" => same(want, request.method().into()),
            "path" => same(want, request.target().into()),
            "authority" => same(want, request.field("host").into()),
            "headers" => headers(want, outcome, &|name| request.field(name)),
            _ => (false, Json::Null),
        };
        fits &= one;
        found.insert(name.clone(), value);
    }
    (fits, Json::Object(found))
}

fn tls(want: &Json, journal: &Journal) -> (bool, Json) {
    let names = journal.names().unwrap_or_default();
    let mut fits = true;
    let mut found = serde_json::Map::new();
    for (name, want) in want.as_object().into_iter().flatten() {
        let (one, value) = match name.as_str() {
            "alpn" => same(want, journal.alpn.clone().into()),
            "peer_uri_san" => contained(want, names.uris.clone()),
            "peer_dns_san" => contained(want, names.dns.clone()),
            _ => (false, Json::Null),
        };
        fits &= one && journal.established;
        found.insert(name.clone(), value);
    }
    (fits, Json::Object(found))
}

fn contained(want: &Json, names: Vec<String>) -> (bool, Json) {
    let fits = names
        .iter()
        .any(|name| Some(name.as_str()) == want.as_str());
    (fits, names.into())
}

/// The rule that decided, `none` if none did: the one that refused, as the log says; or else what the server's sidecar
/// decides about the request by what it has in force.
fn policy(scene: &Scene, outcome: &Outcome) -> Option<String> {
    let details = producer(&outcome.records)?.details.as_deref()?;
    if let Some(id) = details.strip_prefix("rbac_access_denied_matched_policy[") {
        return id.strip_suffix(']').map(str::to_owned);
    }
    let record = outcome.records.server.first()?;
    let (reached, peer) = (record.downstream_local?, record.downstream_remote?);
    let port = scene
        .snapshot_at(reached.ip())?
        .inbound
        .get(&reached.port())?;
    let lines: Vec<(&[u8], Vec<u8>)> = outcome
        .written
        .fields
        .iter()
        .filter_map(|(name, value)| Some((name.as_bytes(), to_latin1(value)?)))
        .collect();
    let lines: Vec<(&[u8], &[u8])> = lines
        .iter()
        .map(|(name, value)| (*name, value.as_slice()))
        .collect();
    let mut explanation = Explanation::default();
    let verdict = inbound_request(
        port,
        Caller {
            principal: record
                .peer
                .as_deref()
                .and_then(|peer| peer.strip_prefix("spiffe://")),
            peer,
            reached: reached.ip(),
            sni: record.requested_server_name.as_deref(),
        },
        decide::Request {
            method: record.method.as_deref()?,
            path: outcome.written.path.as_bytes(),
            authority: outcome.written.authority.as_bytes(),
            fields: Fields::listed(&lines),
        },
        scene.stage.now().wall,
        &mut Cache::default(),
        &mut |_| {},
        &mut explanation,
    );
    drop(verdict);
    match explanation.authz.outcome {
        explanation::Outcome::Allowed(policy) | explanation::Outcome::Denied(policy) => {
            Some(policy.map_or_else(|| "none".to_owned(), |policy| policy.to_string()))
        }
        explanation::Outcome::Undecided => None,
    }
}

const HOLDERS: [&str; 4] = ["<token>", "<payload>", "<sha256>", "<uuid>"];

/// Whether a header value is as it should be; placeholders stand for what they say (FORMAT.md).
fn holds(want: &str, value: &str, written: &Written) -> bool {
    let next = HOLDERS
        .iter()
        .filter_map(|holder| Some((want.find(holder)?, *holder)))
        .min();
    let Some((at, holder)) = next else {
        return want == value;
    };
    let Some(value) = value.strip_prefix(&want[..at]) else {
        return false;
    };
    let want = &want[at + holder.len()..];
    let rest_after = |text: &str| {
        value
            .strip_prefix(text)
            .is_some_and(|rest| holds(want, rest, written))
    };
    match holder {
        "<token>" => written.tokens.iter().any(|token| rest_after(&token.text)),
        "<payload>" => written
            .tokens
            .iter()
            .any(|token| rest_after(token.payload())),
        "<sha256>" => value.get(..64).is_some_and(|digits| {
            let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            digits.bytes().all(hex) && rest_after(digits)
        }),
        _ => value.get(..36).is_some_and(|uuid| {
            let groups: Vec<usize> = uuid.split('-').map(str::len).collect();
            let hex = uuid.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
            let sent = written.fields.iter().any(|(_, value)| value.contains(uuid))
                || written.path.contains(uuid);
            hex && groups == [8, 4, 4, 4, 12] && !sent && rest_after(uuid)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_stand_for_what_they_say() {
        let sent = "00112233-4455-6677-8899-aabbccddeeff";
        let written = Written {
            bytes: Vec::new(),
            authority: String::new(),
            path: "/".into(),
            fields: vec![("x".into(), sent.into())],
            tokens: vec![Made {
                text: "aa.bb.cc".into(),
            }],
        };
        let other = sent.replace("00", "11");
        let hash = "0a".repeat(32);
        for (want, value, fits) in [
            ("a", "a", true),
            ("a", "b", false),
            ("Bearer <token>", "Bearer aa.bb.cc", true),
            ("Bearer <token>", "aa.bb.cc", false),
            ("<token>", "aa.bb.cd", false),
            ("<payload>", "bb", true),
            ("Hash=<sha256>;x", &format!("Hash={hash};x"), true),
            ("<sha256>", &hash.to_uppercase(), false),
            ("<sha256>", &hash[1..], false),
            ("<uuid>", &other, true),
            ("<uuid>", sent, false),
            ("<uuid>", &other.replace('-', "0"), false),
            ("<none>", "<none>", true),
        ] {
            assert_eq!(holds(want, value, &written), fits, "{want} {value}");
        }
    }

    #[test]
    fn messages_of_grpc_are_unescaped() {
        assert_eq!(unescaped("RBAC: a%25b%2"), "RBAC: a%b%2");
        assert_eq!(unescaped("%C3%A9"), "\u{e9}");
    }
}
