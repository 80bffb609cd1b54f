//! Helpers of the receiver's tests: feed bytes, note what is told.

use super::*;
use crate::http::head::Field;

mod bodies;
mod heads;
pub(crate) mod model;
mod properties;
mod responses;

/// An event with nothing borrowed. Neighbouring data are one, because how a body is cut is no part of its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Request {
        line: String,
        authority: String,
        framing: Framing,
        /// `close`, `expect`, `upgrade`, as far as they hold.
        flags: String,
        fields: Vec<(String, String)>,
    },
    Response {
        status: u16,
        reason: String,
        framing: Framing,
        keep_alive: bool,
        fields: Vec<(String, String)>,
    },
    Data(Vec<u8>),
    Trailers(Vec<(String, String)>),
    End(u64),
    Eof(Option<u64>),
    Refused(u16, &'static str),
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn pairs<'a>(fields: impl Iterator<Item = Field<'a>>) -> Vec<(String, String)> {
    fields.map(|f| (text(f.name), text(f.value))).collect()
}

fn note(seen: &mut Vec<Seen>, event: &Event<'_>) {
    let new = match event {
        Event::Request(_, head) => {
            let flags = [
                (!head.keep_alive, "close"),
                (head.expect_continue, "expect"),
                (head.upgrade, "upgrade"),
            ];
            Seen::Request {
                line: format!("{} {}", head.method, text(head.path)),
                authority: text(head.authority.unwrap_or_default()),
                framing: head.framing,
                flags: flags
                    .iter()
                    .filter(|f| f.0)
                    .map(|f| f.1)
                    .collect::<Vec<_>>()
                    .join(" "),
                fields: pairs(head.fields()),
            }
        }
        Event::Response(_, head) => Seen::Response {
            status: head.status,
            reason: text(head.reason),
            framing: head.framing,
            keep_alive: head.keep_alive,
            fields: pairs(head.fields()),
        },
        Event::Data(_, data) => {
            assert!(!data.is_empty(), "data is never empty");
            if let Some(Seen::Data(before)) = seen.last_mut() {
                before.extend_from_slice(data);
                return;
            }
            Seen::Data(data.to_vec())
        }
        Event::Trailers(_, trailers) => Seen::Trailers(pairs(trailers.fields())),
        Event::End(id) => Seen::End(id.0),
    };
    seen.push(new);
}

/// Feeds `pieces` as reads of a connection and notes what is told, `eof` last. After each end the receiver is let on;
/// `answers` are the requests that a receiver of responses is told of, one by one.
fn feed(mut receiver: Receiver, pieces: &[&[u8]], answers: &[ResponseTo]) -> Vec<Seen> {
    let mut answers = answers.iter();
    let mut seen = Vec::new();
    let mut table = FieldTable::default();
    if let Some(to) = answers.next() {
        receiver.expect_response(*to);
    }
    for piece in pieces {
        let mut input = *piece;
        loop {
            let ended = match receiver.next(&mut input, &mut table) {
                Ok(Some(event)) => {
                    note(&mut seen, &event);
                    matches!(event, Event::End(_))
                }
                Ok(None) => break,
                Err(fault) => {
                    seen.push(Seen::Refused(fault.status, fault.details));
                    assert!(!receiver.is_idle(), "a refused connection is no good");
                    false
                }
            };
            if ended {
                assert!(receiver.is_idle(), "a message is over");
                match receiver.at.side {
                    Side::Requests => receiver.resume(),
                    Side::Responses(_) => {
                        if let Some(to) = answers.next() {
                            receiver.expect_response(*to);
                        }
                    }
                }
            }
        }
        assert!(
            input.is_empty() || receiver.at.state == State::Paused,
            "everything was taken"
        );
    }
    match receiver.eof() {
        Ok(end) => seen.push(Seen::Eof(end.map(|end| end.0.0))),
        Err(fault) => seen.push(Seen::Refused(fault.status, fault.details)),
    }
    seen
}

fn requests(raw: &[u8]) -> Vec<Seen> {
    feed(Receiver::requests(), &[raw], &[])
}

fn responses(to: &[ResponseTo], raw: &[u8]) -> Vec<Seen> {
    feed(Receiver::responses(), &[raw], to)
}

/// The one refusal, or `None` where everything was taken.
fn refusal(seen: &[Seen]) -> Option<(u16, &'static str)> {
    seen.iter().find_map(|seen| match seen {
        Seen::Refused(status, details) => Some((*status, *details)),
        _ => None,
    })
}

fn get(extra: &str) -> Vec<u8> {
    format!("GET /a HTTP/1.1\r\nHost: h\r\n{extra}\r\n").into_bytes()
}

fn post(extra: &str, body: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: h\r\n{extra}\r\n{body}").into_bytes()
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

#[test]
fn the_same_bytes_cut_anywhere_tell_the_same() {
    let requests = [
        b"\r\n".to_vec(),
        get("X-A: b\r\nX-C:\r\n"),
        post("Content-Length: 5\r\n", "hello"),
        post(
            CHUNKED,
            "3;a=\"b;\"\r\nhel\r\n2\r\nlo\r\n0\r\nX-T: v\r\n\r\n",
        ),
        post(CHUNKED, "0\r\n\r\n"),
        b"GET http://[::1]:80/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_vec(),
        get(""),
    ]
    .concat();
    let whole = feed(Receiver::requests(), &[&requests], &[]);
    assert_eq!(
        whole.iter().filter(|s| matches!(s, Seen::End(_))).count(),
        5
    );
    assert_eq!(refusal(&whole), None);
    for at in 0..=requests.len() {
        let (first, second) = requests.split_at(at);
        assert_eq!(
            feed(Receiver::requests(), &[first, second], &[]),
            whole,
            "at {at}"
        );
    }
    for size in [1, 2, 3, 7] {
        let drips: Vec<&[u8]> = requests.chunks(size).collect();
        assert_eq!(feed(Receiver::requests(), &drips, &[]), whole, "by {size}");
    }

    let responses = [
        &b"HTTP/1.1 100 Continue\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: v\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    ]
    .concat();
    let to = [ResponseTo::Other; 4];
    let whole = feed(Receiver::responses(), &[&responses], &to);
    assert_eq!(refusal(&whole), None);
    for at in 0..=responses.len() {
        let (first, second) = responses.split_at(at);
        assert_eq!(
            feed(Receiver::responses(), &[first, second], &to),
            whole,
            "at {at}"
        );
    }
    let drips: Vec<&[u8]> = responses.chunks(1).collect();
    assert_eq!(feed(Receiver::responses(), &drips, &to), whole);
}

#[test]
fn nothing_that_may_be_secret_is_shown() {
    let raw = get("Authorization: Bearer s3cret\r\nCookie: s3cret\r\n");
    let raw = text(&raw)
        .replace("/a", "/?access_token=s3cret")
        .replace("\\r\\n", "\r\n");
    let mut receiver = Receiver::requests();
    let mut table = FieldTable::default();
    let event = receiver
        .next(&mut raw.as_bytes(), &mut table)
        .expect("valid")
        .expect("whole");
    let shown = format!("{event:?}");
    assert!(
        shown.contains("GET") && !shown.contains("s3cret"),
        "{shown}"
    );
    let Event::Request(_, head) = event else {
        panic!("a request");
    };
    let shown = format!("{:?}", head.fields().collect::<Vec<_>>());
    assert!(
        shown.contains("Authorization") && !shown.contains("s3cret"),
        "{shown}"
    );
    assert!(!format!("{:?}", Event::Data(StreamId(1), b"s3cret")).contains("s3cret"));
}

#[test]
fn a_held_head_is_not_shown() {
    let mut receiver = Receiver::requests();
    let mut table = FieldTable::default();
    let mut input = &b"GET / HTTP/1.1\r\nCookie: zzz"[..];
    assert!(
        receiver
            .next(&mut input, &mut table)
            .is_ok_and(|e| e.is_none())
    );
    let shown = format!("{receiver:?}");
    assert!(
        !shown.contains("122, 122, 122") && !shown.contains("zzz"),
        "{shown}"
    );
}
