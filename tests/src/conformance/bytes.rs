//! The kinds that send bytes and look at what becomes of them: `tcp`, `tcp_timeline`, `client_hello`, `sniff`, and
//! `tls_probe`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use meshward_core::accept::{self, Accept, FirstBytes, Mode as Ours, PortKind, first_plain_kind};
use meshward_core::api::peer_authentication::Mode;
use meshward_core::tls::{Sniff, sniff};
use serde_json::{Value as Json, json};

use super::caller::Caller;
use super::checks::{AppTls, BARE, Client, Spoken, Step, To, Who};
use super::client::{End, Journal, Offer, Tls};
use super::http::{Kind, Reader};
use super::scene::{Carried, Opened, Scene};
use super::words::Makers;

/// What was found, by the names of `expect`.
pub(super) type Found = BTreeMap<&'static str, Json>;

/// No beginning of a request, nor of a ClientHello.
const WORDS: &[u8] = b"meshward says hello\n";

fn open(
    scene: &mut Scene,
    from: &Who,
    to: &To,
    tls: Option<&AppTls>,
    makers: &mut Makers,
) -> Result<Opened, String> {
    let opened = scene.open(from, to, tls, Carried::Bytes, makers)?;
    opened.ok_or_else(|| format!("nobody is called `{}`", to.host))
}

/// How many bytes applications have heard.
fn heard(scene: &mut Scene) -> usize {
    let mut sum = 0;
    scene.each_app(|app| sum += app.heard);
    sum
}

pub(super) fn tcp(
    scene: &mut Scene,
    from: &Who,
    to: &To,
    tls: Option<&AppTls>,
    makers: &mut Makers,
) -> Result<Found, String> {
    scene.each_app(|app| app.echoes = true);
    let before = heard(scene);
    let opened = open(scene, from, to, tls, makers)?;
    let party = opened.party;
    scene.caller(party, |caller, out| caller.say(WORDS, out));
    let echoed = |caller: &Caller| {
        let [said, came] = &caller.wire;
        // Of the client's own TLS its ClientHello is echoed, by an application that speaks none.
        let raw = tls.is_some() && !came.is_empty() && said.starts_with(came);
        raw || caller.received == WORDS
    };
    let done = |scene: &mut Scene| {
        scene.caller(party, |caller, _| {
            let echoed = echoed(caller);
            (echoed, caller.is_over())
        })
    };
    scene.wait_until(|scene| {
        let (echoed, over) = done(scene);
        echoed || over
    });
    let (echoed, over) = done(scene);
    let reached = heard(scene) - before;
    scene.caller(party, Caller::finish);
    scene.stage.settle();
    let mut records = scene.take_records(&opened);
    let mut left = Duration::from_secs(1);
    while records.server.is_empty() && scene.has_sidecar(&opened.way) && !left.is_zero() {
        let step = scene.stage.step().min(left);
        left -= step;
        scene.stage.pass(step);
        let more = scene.take_records(&opened);
        records.client.extend(more.client);
        records.server.extend(more.server);
    }
    let result = match (echoed, over, reached) {
        (true, ..) => json!("ok"),
        (false, true, 0) => json!("rejected"),
        (false, true, n) => json!(format!("closed, though {n} bytes reached an application")),
        (false, false, _) => json!("nothing happens"),
    };
    let lines = records.client.iter().chain(&records.server);
    let details = lines
        .filter_map(|record| record.termination.as_ref())
        .next();
    let details = details.map(|details| details.replace(' ', "_"));
    Ok(Found::from([
        ("result", result),
        ("details", details.into()),
    ]))
}

pub(super) fn timeline(
    scene: &mut Scene,
    from: &Who,
    to: &To,
    send: &[Step],
    makers: &mut Makers,
) -> Result<Found, String> {
    scene.each_app(|app| app.echoes = true);
    let before = heard(scene);
    let opened = open(scene, from, to, None, makers)?;
    let party = opened.party;
    scene.stage.settle();
    scene.stage.pass(Duration::from_secs(1));
    let (connected, greeting) = scene.caller(party, |caller, _| {
        let text = String::from_utf8_lossy(&caller.received).into_owned();
        (caller.connected, text)
    });
    let said = go_through(scene, party, send, &mut |_, _| ())?;
    let greeted = greeting.len();
    let done = |scene: &mut Scene| {
        scene.caller(party, |caller, _| {
            let came = caller.received.get(greeted..).unwrap_or_default();
            (!said.is_empty() && came == said, caller.is_over())
        })
    };
    scene.wait_until(|scene| {
        let (echoed, over) = done(scene);
        echoed || over
    });
    let (echoed, over) = done(scene);
    let reached = heard(scene) - before;
    scene.caller(party, Caller::finish);
    scene.stage.settle();
    scene.take_records(&opened);
    let after = match (echoed, over) {
        (true, _) => "echo",
        (false, true) => "closed",
        (false, false) => "silence",
    };
    Ok(Found::from([
        (
            "connect",
            if connected { "accepted" } else { "refused" }.into(),
        ),
        ("before_send", greeting.into()),
        ("after_send", after.into()),
        ("app_bytes", reached.into()),
    ]))
}

/// Does what the steps say; returns all bytes that were sent. `look` is asked whenever something may have happened.
fn go_through(
    scene: &mut Scene,
    party: usize,
    steps: &[Step],
    look: &mut dyn FnMut(&mut Scene, &[u8]),
) -> Result<Vec<u8>, String> {
    const PIECE: Duration = Duration::from_millis(100);
    const APART: Duration = Duration::from_millis(10);
    let mut said = Vec::new();
    for step in steps {
        let mut say = |scene: &mut Scene, bytes: &[u8]| {
            said.extend_from_slice(bytes);
            scene.caller(party, |caller, out| caller.say(bytes, out));
            scene.stage.settle();
            look(scene, &said);
        };
        match step {
            Step::Bytes(bytes) => say(scene, bytes),
            Step::Hello { alpn, sni, split } => {
                let offer = Offer {
                    version: None,
                    alpn: alpn.clone(),
                    identity: None,
                    sni: sni.clone(),
                };
                let hello = Tls::new(offer, scene.stage.clock())?.wire();
                let (single, rest) = hello.split_at((*split).min(hello.len()));
                for byte in single {
                    say(scene, &[*byte]);
                    scene.stage.pass(APART);
                }
                say(scene, rest);
            }
            Step::Wait(span) => {
                let mut left = *span;
                while !left.is_zero() {
                    scene.stage.pass(PIECE.min(left));
                    left = left.saturating_sub(PIECE);
                    scene.stage.settle();
                    look(scene, &said);
                }
            }
        }
    }
    Ok(said)
}

/// The scene has an ear where the server is.
pub(super) fn client_hello(
    scene: &mut Scene,
    from: &Who,
    to: &To,
    http: Spoken,
    makers: &mut Makers,
) -> Result<Found, String> {
    let opened = open(scene, from, to, None, makers)?;
    if opened.sidecar.is_none() {
        return Err("the client has no sidecar".into());
    }
    let words = match http {
        Spoken::Bytes => WORDS.to_vec(),
        Spoken::Http1 => {
            let host = super::app::authority(&to.host, to.port);
            format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").into_bytes()
        }
        Spoken::Http2 => return Err("HTTP/2 is not spoken here".into()),
    };
    scene.caller(opened.party, |caller, out| caller.say(&words, out));
    let hello = |scene: &mut Scene| match scene.ear(|ear| sniff(&ear.heard)) {
        Sniff::Hello(hello) => Some(hello),
        Sniff::NeedMore | Sniff::NotTls | Sniff::Bad => None,
    };
    scene.wait_until(|scene| hello(scene).is_some());
    let hello = hello(scene).ok_or("the server hears no ClientHello")?;
    let alpn = hello.alpn.iter();
    let alpn: Vec<Json> = alpn
        .map(|name| String::from_utf8_lossy(name).into())
        .collect();
    Ok(Found::from([
        ("alpn", alpn.into()),
        ("sni", hello.sni.into()),
    ]))
}

/// What a port does with bytes: seen from outside, at the client and at the application, which is an ear. Where nothing is
/// to be seen yet because whatever is spoken is incomplete, the table of S-25 says what the port takes it for.
pub(super) fn port(
    scene: &mut Scene,
    at: SocketAddr,
    (mode, kind): (Mode, PortKind),
    timeout: Duration,
    send: &[Step],
) -> Result<Found, String> {
    let party = scene.call(Caller::new(Vec::new()), BARE, None, at)?;
    scene.stage.settle();
    let begun = scene.stage.now().at;
    let mut seen = None;
    let mut look = |scene: &mut Scene, said: &[u8]| {
        if seen.is_none() {
            let after = scene.stage.now().at.since(begun);
            seen = decision(scene, party, said).map(|what| (what, after));
        }
    };
    look(scene, &[]);
    let said = go_through(scene, party, send, &mut look)?;
    let mut left = scene.stage.lag();
    while seen.is_none() && !left.is_zero() {
        let step = scene.stage.step().min(left);
        left -= step;
        scene.stage.pass(step);
        if let Some(what) = decision(scene, party, &said) {
            seen = Some((what, scene.stage.now().at.since(begun)));
        }
    }
    let by_table = || {
        let mode = match mode {
            Mode::Strict => Ours::Strict,
            Mode::Permissive | Mode::Unset => Ours::Permissive,
            Mode::Disable => Ours::Disable,
        };
        let first = match sniff(&said) {
            Sniff::NeedMore => FirstBytes::NeedMore,
            Sniff::Hello(hello) => FirstBytes::tls(hello.alpn.iter().map(Vec::as_slice)),
            Sniff::NotTls | Sniff::Bad => FirstBytes::Plain(first_plain_kind(&said)),
        };
        let waited = !timeout.is_zero() && scene.stage.now().at.since(begun) >= timeout;
        match (
            accept::decide(mode, kind, first),
            accept::after_silence(mode, kind),
        ) {
            (Accept::Http, _) => json!({"as": "http"}),
            (Accept::NeedMore, Accept::Http) if waited => {
                json!({"as": "http", "after_s": timeout.as_secs_f64()})
            }
            _ => json!({"as": "pending"}),
        }
    };
    let decision = match seen {
        None => by_table(),
        Some((what, after)) => json!({"as": what, "after_s": after.as_secs_f64()}),
    };
    Ok(Found::from([("decision", decision)]))
}

fn decision(scene: &mut Scene, party: usize, said: &[u8]) -> Option<&'static str> {
    let (came, end) = scene.caller(party, |caller, _| (caller.wire[1].clone(), caller.end));
    let (accepted, heard) = scene.ear(|ear| (ear.accepted, ear.heard.clone()));
    let is_hello = |bytes: &[u8]| matches!(sniff(bytes), Sniff::Hello(_));
    match (came.as_slice(), heard.as_slice(), end) {
        // A handshake, or an alert.
        ([22 | 21, ..], ..) => Some("tls_terminate"),
        ([_, ..], ..) => Some("http"),
        (_, [_, ..], _) if !said.starts_with(&heard) => Some("http"),
        (_, [_, ..], _) if is_hello(said) => Some("tls_passthrough"),
        (_, [_, ..], _) => Some("tcp"),
        (_, [], Some(End::Reset)) => Some("reset"),
        (_, [], Some(End::Fin)) => Some("closed"),
        (_, [], Some(End::Unconnected)) => Some("not connected"),
        (_, [], None) => (accepted > 0).then_some("tcp"),
    }
}

/// `decision` of a check against what was found.
pub(super) fn decision_fits(want: &Json, found: &Json) -> bool {
    let at = |json: &Json| json["after_s"].as_f64();
    let in_time = match (at(want), at(found)) {
        (None, _) => true,
        (Some(want), Some(found)) => (want - found).abs() <= 1.0,
        (Some(_), None) => false,
    };
    want["as"] == found["as"] && in_time
}

/// One handshake by itself; `ask`: a request follows.
pub(super) fn probe(
    scene: &mut Scene,
    workload: &str,
    port: u16,
    client: &Client,
    ask: bool,
    makers: &mut Makers,
) -> Result<Found, String> {
    const WAIT: Duration = Duration::from_secs(1);
    let pod = scene.pods().iter().find(|pod| pod.name == workload);
    let pod = pod.ok_or_else(|| format!("`{workload}` is no workload that is run here"))?;
    let address = SocketAddr::new(pod.ip, port);
    let identity = client.cert.as_ref();
    let identity = identity.map(|spec| makers.authorities.issue(spec));
    let offer = Offer {
        version: Some(client.version),
        alpn: client.alpn.clone(),
        identity: identity.transpose()?,
        sni: client.sni.clone(),
    };
    let session = Tls::new(offer, scene.stage.clock())?;
    let party = scene.call(Caller::new(vec![session]), BARE, None, address)?;
    let journal = |scene: &mut Scene| scene.caller(party, |caller, _| caller.journal());
    scene.wait_until(|scene| journal(scene).handshake() != "no answer");
    scene.stage.pass(WAIT);
    let seen = journal(scene);
    let mut status = None;
    if ask && seen.handshake() == "ok" {
        let host = client.sni.clone().unwrap_or_else(|| address.to_string());
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\naccept: */*\r\n\r\n");
        scene.caller(party, |caller, out| caller.say(request.as_bytes(), out));
        let answer = |scene: &mut Scene| {
            scene.caller(party, |caller, _| {
                let mut reader = Reader::new(Kind::Responses);
                reader.push(&caller.received);
                (reader.answer().map(|m| m.status()), caller.is_over())
            })
        };
        scene.wait_until(|scene| {
            let (status, over) = answer(scene);
            status.is_some() || over
        });
        status = answer(scene).0;
    }
    let exit = scene.caller(party, |caller, out| {
        let exit = caller.curl_exit(status.is_some());
        caller.finish(out);
        exit
    });
    scene.stage.settle();
    let mut found = of_handshake(&seen);
    found.insert("curl_exit", exit.into());
    found.insert("http_status", status.into());
    Ok(found)
}

fn of_handshake(seen: &Journal) -> Found {
    let mut found = Found::from([("handshake", seen.handshake().into())]);
    found.insert("alert", seen.alert.into());
    if seen.established {
        found.insert("alpn", seen.alpn.clone().into());
    }
    if let Some(names) = seen.names() {
        found.insert("peer_uri_san", names.uris.into());
        found.insert("peer_dns_san", names.dns.into());
    }
    found
}
