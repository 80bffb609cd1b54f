//! Bodies, trailers and tunnels of requests.

use super::*;
use crate::limits::CHUNK_LINE_MAX;

#[test]
fn trailers_are_told_apart_from_the_head() {
    let seen = requests(&post(CHUNKED, "5;x=y\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"));
    assert_eq!(
        seen[1..],
        [
            Seen::Data(b"hello".to_vec()),
            Seen::Trailers(vec![("X-Sum".to_owned(), "1".to_owned())]),
            Seen::End(1),
            Seen::Eof(None),
        ]
    );
}

#[test]
fn a_trailer_section_is_as_strict_as_a_head() {
    for section in [
        "Content-Length: 5\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n",
        "Host: evil\r\n\r\n",
        "Authorization: Bearer x\r\n\r\n",
        "X-Forwarded-Client-Cert: URI=spiffe://a\r\n\r\n",
        "x_forwarded_for: 1\r\n\r\n",
        "Connection: close\r\n\r\n",
        "Trailer: x\r\n\r\n",
        "bad name: x\r\n\r\n",
        "A : b\r\n\r\n",
        "A: b\r\n c\r\n\r\n",
        "A: b\nB: c\r\n\r\n",
        "A: b\r\n\n",
        "\n",
        "GET /x HTTP/1.1\r\nHost: h\r\n\r\n",
        "A: \0\r\n\r\n",
    ] {
        let seen = requests(&post(CHUNKED, &format!("0\r\n{section}")));
        assert!(
            matches!(seen[1], Seen::Refused(400, _)),
            "{section:?}: {seen:?}"
        );
    }
    let huge = format!("0\r\nA: {}\r\n\r\n", "a".repeat(TRAILERS_MAX));
    let seen = requests(&post(CHUNKED, &huge));
    assert_eq!(refusal(&seen), Some((431, "request_headers_too_large")));
}

#[test]
fn a_truncated_message_is_no_message() {
    for raw in [
        b"GET /a HTTP/1.1\r\nHo".to_vec(),
        post("Content-Length: 2\r\n", "a"),
        post(CHUNKED, "5\r\nhel"),
        post(CHUNKED, "5\r\nhello\r\n"),
        post(CHUNKED, "0\r\n"),
        post(CHUNKED, "0\r\nA: b\r\n"),
    ] {
        let seen = requests(&raw);
        assert!(
            matches!(seen.last(), Some(Seen::Refused(400, _))),
            "{seen:?}"
        );
        assert!(!seen.iter().any(|s| matches!(s, Seen::End(_))), "{seen:?}");
    }
}

#[test]
fn a_granted_upgrade_makes_the_rest_data() {
    let raw = [
        get("Connection: upgrade\r\nUpgrade: x\r\n"),
        b"opaque".to_vec(),
    ]
    .concat();
    let mut receiver = Receiver::requests();
    let mut table = FieldTable::default();
    let mut input = raw.as_slice();
    while let Ok(Some(_)) = receiver.next(&mut input, &mut table) {}
    receiver.tunnel();
    let event = receiver.next(&mut input, &mut table);
    assert!(
        matches!(event, Ok(Some(Event::Data(StreamId(1), b"opaque")))),
        "{event:?}"
    );
    assert_eq!(receiver.eof(), Ok(Some(EndOfMessage(StreamId(1)))));
}

#[test]
fn a_chunk_line_beyond_its_limit_is_refused_however_it_is_cut() {
    let raw = post(
        CHUNKED,
        &format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(CHUNK_LINE_MAX)),
    );
    let drips: Vec<&[u8]> = raw.chunks(1).collect();
    assert!(refusal(&feed(Receiver::requests(), &drips, &[])).is_some());
}
