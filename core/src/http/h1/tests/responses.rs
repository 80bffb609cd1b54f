//! Responses.

use super::*;

#[test]
fn the_body_of_a_response_follows_from_its_request_and_status() {
    use ResponseTo::{Connect, Head, Other, Upgrade};
    for (to, raw, framing, keep_alive) in [
        (
            Other,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
            Framing::Length(2),
            true,
        ),
        (
            Other,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            Framing::Chunked,
            true,
        ),
        (
            Other,
            "HTTP/1.1 200 OK\r\n\r\nab",
            Framing::UntilClose,
            false,
        ),
        (
            Other,
            "HTTP/1.1 200\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            Framing::Length(0),
            false,
        ),
        (
            Other,
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            Framing::Length(0),
            false,
        ),
        (
            Other,
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
            Framing::Length(0),
            true,
        ),
        (
            Other,
            "HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 0\r\n\r\n",
            Framing::Length(0),
            false,
        ),
        (
            Other,
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            Framing::None,
            true,
        ),
        (
            Other,
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            Framing::None,
            true,
        ),
        (
            Other,
            "HTTP/1.1 404  two  spaces\r\nContent-Length: 0\r\n\r\n",
            Framing::Length(0),
            true,
        ),
        (
            Head,
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            Framing::None,
            true,
        ),
        (
            Head,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing::None,
            true,
        ),
        (
            Upgrade,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nab",
            Framing::UntilClose,
            false,
        ),
        (
            Connect,
            "HTTP/1.1 200 OK\r\n\r\nab",
            Framing::UntilClose,
            false,
        ),
        (
            Connect,
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nab",
            Framing::Length(2),
            true,
        ),
    ] {
        let seen = responses(&[to], raw.as_bytes());
        let Some(Seen::Response {
            framing: f,
            keep_alive: k,
            ..
        }) = seen.first()
        else {
            panic!("{raw:?}: {seen:?}");
        };
        assert_eq!((*f, *k), (framing, keep_alive), "{raw:?}");
        assert_eq!(refusal(&seen), None, "{raw:?}");
        let body = seen.iter().any(|s| *s == Seen::Data(b"ab".to_vec()));
        assert_eq!(body, raw.contains("ab"), "{raw:?}");
        let ended = if framing == Framing::UntilClose {
            Some(1)
        } else {
            None
        };
        assert_eq!(seen.last(), Some(&Seen::Eof(ended)), "{raw:?}");
    }
}

#[test]
fn interim_responses_come_before_the_answer() {
    let seen = responses(
        &[ResponseTo::Other],
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    );
    let statuses: Vec<u16> = seen
        .iter()
        .filter_map(|s| match s {
            Seen::Response { status, .. } => Some(*status),
            _ => None,
        })
        .collect();
    assert_eq!(statuses, [100, 103, 200]);
    assert_eq!(seen[3..], [Seen::End(1), Seen::Eof(None)]);

    let endless = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(usize::from(INTERIM_MAX) + 1);
    assert!(refusal(&responses(&[ResponseTo::Other], endless.as_bytes())).is_some());
}

#[test]
fn a_bad_response_is_refused_with_502() {
    for raw in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\nY: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 \u{1}\r\n\r\n",
        "HTTP/1.1 99 X\r\n\r\n",
        "HTTP/1.1 099 X\r\n\r\n",
        "HTTP/1.1 1000 X\r\n\r\n",
        "HTTP/1.1 abc X\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "hello world\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        let seen = responses(&[ResponseTo::Other], raw.as_bytes());
        assert!(
            matches!(seen[0], Seen::Refused(502, _)),
            "{raw:?}: {seen:?}"
        );
    }
}

#[test]
fn bytes_that_answer_no_request_are_refused() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";
    assert!(matches!(
        responses(&[], ok.as_bytes())[0],
        Seen::Refused(502, _)
    ));
    let seen = responses(&[ResponseTo::Other], format!("{ok}{ok}").as_bytes());
    assert!(matches!(seen[3], Seen::Refused(502, _)), "{seen:?}");
    let seen = responses(&[ResponseTo::Other; 2], format!("{ok}{ok}").as_bytes());
    assert_eq!(refusal(&seen), None, "{seen:?}");
    assert!(matches!(
        responses(&[ResponseTo::Other], b"")[0],
        Seen::Refused(502, _)
    ));
}

#[test]
fn interim_responses_are_counted_for_each_request() {
    let one = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(usize::from(INTERIM_MAX))
        + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let seen = responses(&[ResponseTo::Other; 3], one.repeat(3).as_bytes());
    assert_eq!(refusal(&seen), None);
}

#[test]
fn a_connection_that_closes_answers_no_further_request() {
    let close = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let seen = responses(&[ResponseTo::Other; 2], close.repeat(2).as_bytes());
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(matches!(seen[2], Seen::Refused(502, _)), "{seen:?}");
}
