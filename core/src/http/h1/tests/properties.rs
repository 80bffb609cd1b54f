//! Random messages and random damage, forwarded and read again by the second reader.

use proptest::prelude::*;

use super::*;
use crate::http::head::Known;

/// What a proxy sends on for `raw`, and the events it did so for. Messages that did not end are left out.
fn forward(raw: &[u8], cut: usize) -> (Vec<u8>, Vec<model::Read>) {
    let mut receiver = Receiver::requests();
    let mut table = FieldTable::default();
    let (mut sent, mut whole, mut told) = (Vec::new(), Vec::new(), Vec::new());
    let mut current: Option<(model::Read, Framing)> = None;
    let (first, second) = raw.split_at(cut.min(raw.len()));
    for piece in [first, second] {
        let mut input = piece;
        while let Ok(Some(event)) = receiver.next(&mut input, &mut table) {
            match event {
                Event::Request(_, head) => {
                    let mut read = model::Read {
                        method: head.method.into(),
                        target: if head.path.is_empty() {
                            head.target
                        } else {
                            head.path
                        }
                        .to_vec(),
                        host: head.authority.unwrap_or_default().to_vec(),
                        fields: Vec::new(),
                        body: Vec::new(),
                    };
                    sent.clear();
                    encode::request_line(&mut sent, head.method, &read.target);
                    encode::field(&mut sent, b"host", &read.host);
                    for field in head.fields() {
                        if !matches!(field.known, Known::Host | Known::ContentLength)
                            && !field.hop_by_hop
                        {
                            encode::field(&mut sent, field.name, field.value);
                            read.fields
                                .push((field.name.to_ascii_lowercase(), field.value.to_vec()));
                        }
                    }
                    match head.framing {
                        Framing::Length(length) => encode::content_length(&mut sent, length),
                        Framing::Chunked => encode::chunked(&mut sent),
                        Framing::None | Framing::UntilClose => {}
                    }
                    encode::end_of_head(&mut sent);
                    current = Some((read, head.framing));
                }
                Event::Data(_, data) => {
                    let (read, framing) = current.as_mut().expect("data after a head");
                    read.body.extend_from_slice(data);
                    match framing {
                        Framing::Chunked => encode::chunk(&mut sent, data),
                        _ => sent.extend_from_slice(data),
                    }
                }
                Event::Trailers(..) => {}
                Event::End(_) => {
                    let (read, framing) = current.take().expect("an end after a head");
                    if framing == Framing::Chunked {
                        encode::last_chunk(&mut sent, []);
                    }
                    told.push(read);
                    whole.append(&mut sent);
                    receiver.resume();
                }
                Event::Response(..) => panic!("a response among requests"),
            }
        }
    }
    (whole, told)
}

/// Valid requests, with their bytes.
fn arb_request() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        Just(None),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|body| Some((false, body))),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|body| Some((true, body))),
    ];
    (
        prop::sample::select(vec!["GET", "POST", "PUT", "DELETE", "OPTIONS"]),
        "/[!-~]{0,20}",
        prop::collection::vec(
            (
                "[A-Z][a-z]{0,8}-[!#$a-z0-9]{1,8}",
                "[ \t]{0,2}([!-~]([ -~]{0,20}[!-~])?)?[ \t]{0,2}",
            ),
            0..6,
        ),
        body,
    )
        .prop_map(|(method, target, fields, body)| {
            let mut raw = format!("{method} {target} HTTP/1.1\r\nHost: h.example:80\r\n");
            for (name, value) in fields {
                // `Z-` keeps generated names off the known ones.
                raw += &format!("Z-{name}:{value}\r\n");
            }
            let mut raw = raw.into_bytes();
            match body {
                None => raw.extend_from_slice(b"\r\n"),
                Some((false, body)) => {
                    raw.extend_from_slice(
                        format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes(),
                    );
                    raw.extend_from_slice(&body);
                }
                Some((true, body)) => {
                    raw.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                    for part in body.chunks(7) {
                        raw.extend_from_slice(format!("{:x};e=\"v\"\r\n", part.len()).as_bytes());
                        raw.extend_from_slice(part);
                        raw.extend_from_slice(b"\r\n");
                    }
                    raw.extend_from_slice(b"0\r\nX-T: v\r\n\r\n");
                }
            }
            raw
        })
}

/// Bytes and words that parsers have stumbled over.
const CRUMBS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "\"",
    "\\",
    "\u{b}",
    "\u{c}",
    "\u{7f}",
    "\u{a0}",
    "0",
    "1",
    "f",
    "-",
    "+",
    "0x",
    "_",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Host: evil\r\n",
    "Connection: close\r\n",
    "Connection: content-length\r\n",
    "Expect: 100-continue\r\n",
    "\r\n\r\n",
    "0\r\n\r\n",
    "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "http://evil/",
    "content_length: 9\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn what_is_forwarded_reads_as_it_was_told(all in prop::collection::vec(arb_request(), 1..4), cut in 0usize..400) {
        let raw = all.concat();
        let (sent, told) = forward(&raw, cut);
        prop_assert_eq!(told.len(), all.len(), "{}", text(&raw));
        prop_assert_eq!(model::read_all(&sent), Ok((told, 0)));
    }

    #[test]
    fn no_mutation_makes_a_message_that_is_read_in_two_ways(
        all in prop::collection::vec(arb_request(), 1..3),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..3, prop::sample::select(CRUMBS)), 1..5),
        cut in 0usize..400,
    ) {
        let mut raw = all.concat();
        for (at, remove, crumb) in edits {
            let at = at.index(raw.len() + 1);
            let end = (at + remove).min(raw.len());
            raw.splice(at..end, crumb.bytes());
        }
        let (sent, told) = forward(&raw, cut);
        let again = forward(&raw, raw.len());
        prop_assert_eq!(&again.1, &told, "cut at {} of {}", cut, text(&raw));
        prop_assert_eq!(model::read_all(&sent), Ok((told, 0)), "{}", text(&raw));
    }

    #[test]
    fn no_bytes_make_it_panic(
        raw in prop::collection::vec(prop_oneof![any::<u8>().prop_map(|b| vec![b]), prop::sample::select(CRUMBS).prop_map(|c| c.as_bytes().to_vec())], 0..60),
        to in prop::sample::select(vec![ResponseTo::Head, ResponseTo::Connect, ResponseTo::Upgrade, ResponseTo::Other]),
        cut in 0usize..200,
    ) {
        let raw = raw.concat();
        for start in [&b""[..], b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"] {
            let raw = [start, &raw].concat();
            let (first, second) = raw.split_at(cut.min(raw.len()));
            feed(Receiver::requests(), &[first, second], &[]);
        }
        for start in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"] {
            let raw = [start, &raw].concat();
            let (first, second) = raw.split_at(cut.min(raw.len()));
            feed(Receiver::responses(), &[first, second], &[to, to]);
        }
    }
}
