//! Messages written as HTTP/1.1. Pure functions that append; nothing is remembered between them.
//!
//! The caller writes a start line, fields, one framing field that follows from what it will send, and [`end_of_head`].

use bytes::BufMut;

use crate::http::head::Version;

/// `target` must be free of white space and control bytes, as [`RequestHead`](crate::http::head::RequestHead) gives it.
pub fn request_line(out: &mut impl BufMut, method: &str, target: &[u8]) {
    out.put_slice(method.as_bytes());
    out.put_u8(b' ');
    out.put_slice(target);
    out.put_slice(b" HTTP/1.1\r\n");
}

/// Always speaks HTTP/1.1, whatever the upstream spoke (RFC 9110 §2.5).
pub fn status_line(out: &mut impl BufMut, status: u16, reason: &[u8]) {
    out.put_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.put_u8(b' ');
    value(out, reason);
    out.put_slice(b"\r\n");
}

/// One field line. Bytes of `content` that would end the line or the message become spaces (RFC 9110 §5.5).
///
/// `name` must be a token.
pub fn field(out: &mut impl BufMut, name: &[u8], content: &[u8]) {
    debug_assert!(
        !name.is_empty() && name.iter().all(|byte| super::parse::is_token_byte(*byte)),
        "a field name is a token"
    );
    out.put_slice(name);
    out.put_slice(b": ");
    value(out, content);
    out.put_slice(b"\r\n");
}

/// `content-length`.
pub fn content_length(out: &mut impl BufMut, length: u64) {
    out.put_slice(b"content-length: ");
    decimal(out, length);
    out.put_slice(b"\r\n");
}

/// `transfer-encoding: chunked`.
pub fn chunked(out: &mut impl BufMut) {
    out.put_slice(b"transfer-encoding: chunked\r\n");
}

/// The empty line.
pub fn end_of_head(out: &mut impl BufMut) {
    out.put_slice(b"\r\n");
}

/// The line before `length` bytes of data; [`chunk_end`] follows them. Nothing for a length of 0, which would end the body.
pub fn chunk_start(out: &mut impl BufMut, length: u64) {
    if length == 0 {
        return;
    }
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut rest = length;
    while rest > 0
        && let Some(slot) = at.checked_sub(1).and_then(|at| digits.get_mut(at))
    {
        *slot = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
        at -= 1;
    }
    out.put_slice(digits.get(at..).unwrap_or_default());
    out.put_slice(b"\r\n");
}

/// What follows the data of a chunk.
pub fn chunk_end(out: &mut impl BufMut) {
    out.put_slice(b"\r\n");
}

/// A whole chunk; nothing if `data` is empty.
pub fn chunk(out: &mut impl BufMut, data: &[u8]) {
    if !data.is_empty() {
        chunk_start(out, data.len() as u64);
        out.put_slice(data);
        chunk_end(out);
    }
}

/// The last chunk, the trailer section and the end of the message.
pub fn last_chunk<'a>(
    out: &mut impl BufMut,
    trailers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) {
    out.put_slice(b"0\r\n");
    for (name, content) in trailers {
        field(out, name, content);
    }
    out.put_slice(b"\r\n");
}

/// `HTTP/1.0` or `HTTP/1.1`, for records.
pub fn version_name(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
    }
}

fn value(out: &mut impl BufMut, mut content: &[u8]) {
    while let Some(at) = content
        .iter()
        .position(|byte| matches!(byte, b'\r' | b'\n' | 0))
    {
        let (clean, rest) = content.split_at(at);
        out.put_slice(clean);
        out.put_u8(b' ');
        content = rest.get(1..).unwrap_or_default();
    }
    out.put_slice(content);
}

fn decimal(out: &mut impl BufMut, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    while let Some(slot) = at.checked_sub(1).and_then(|at| digits.get_mut(at)) {
        *slot = b'0' + (rest % 10) as u8;
        rest /= 10;
        at -= 1;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(digits.get(at..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_without_padding() {
        let mut out = Vec::new();
        for length in [0, 1, 10, 255, u64::MAX] {
            content_length(&mut out, length);
        }
        assert_eq!(
            String::from_utf8_lossy(&out),
            "content-length: 0\r\ncontent-length: 1\r\ncontent-length: 10\r\ncontent-length: 255\r\n\
             content-length: 18446744073709551615\r\n"
        );
        let mut out = Vec::new();
        for length in [0, 1, 15, 16, 255, 4096, u64::MAX] {
            chunk_start(&mut out, length);
        }
        assert_eq!(out, b"1\r\nf\r\n10\r\nff\r\n1000\r\nffffffffffffffff\r\n");
    }

    #[test]
    fn a_chunk_is_never_empty() {
        let mut out = Vec::new();
        chunk(&mut out, b"");
        chunk(&mut out, b"hello");
        last_chunk(&mut out, [(&b"x-t"[..], &b"v"[..])]);
        assert_eq!(out, b"5\r\nhello\r\n0\r\nx-t: v\r\n\r\n");
    }

    #[test]
    fn no_value_ends_its_line() {
        let mut out = Vec::new();
        field(&mut out, b"a", b"\r\nx: y\0z\n");
        status_line(&mut out, 200, b"O\rK");
        assert_eq!(out, b"a:   x: y z \r\nHTTP/1.1 200 O K\r\n");
    }

    #[test]
    fn writing_goes_to_any_buffer() {
        let mut out = bytes::BytesMut::new();
        request_line(&mut out, "GET", b"/a?b");
        field(&mut out, b"host", b"h");
        chunked(&mut out);
        end_of_head(&mut out);
        assert_eq!(
            &out[..],
            b"GET /a?b HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
        );
    }
}
