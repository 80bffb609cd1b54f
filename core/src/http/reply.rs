//! Answers of our own: what a client gets from the proxy itself instead of from an application.

use std::borrow::Cow;

use bytes::BufMut;

use super::h1::{ResponseTo, encode};
use crate::clock::UnixTime;
use crate::error::Violation;

/// An answer that the proxy gives itself (S-331). Made by whoever refused, written in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    pub status: u16,
    pub body: Cow<'static, [u8]>,
    /// Written only beside a body.
    pub content_type: &'static str,
    /// Fields beside `content-length`, `content-type`, `date`, `server` and `connection`. Names are tokens.
    pub headers: Vec<(Cow<'static, str>, Cow<'static, [u8]>)>,
    /// The connection ends after this answer.
    pub close: bool,
}

impl LocalReply {
    /// A `text/plain` answer after which the connection stays open.
    pub fn new(status: u16, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self {
            status,
            body: body.into(),
            content_type: "text/plain",
            headers: Vec::new(),
            close: false,
        }
    }

    /// The answer to a request that broke the rules: what follows it on the connection cannot be trusted either. `None`
    /// where there is nothing to say but goodbye.
    pub fn to_violation(violation: &Violation) -> Option<Self> {
        if violation.status == 0 {
            return None;
        }
        let body: &'static [u8] = match violation.details {
            "missing_host_header" => b"",
            _ => reason(violation.status).as_bytes(),
        };
        Some(Self {
            close: true,
            ..Self::new(violation.status, body)
        })
    }

    /// The same answer in the words of gRPC, whose clients read no body of an error (S-119): 200, and what would come as
    /// trailers stands in the head.
    pub fn into_grpc(self) -> Self {
        let mut headers = self.headers;
        headers.push(("content-type".into(), b"application/grpc"[..].into()));
        headers.push(("grpc-status".into(), grpc_status(self.status).into()));
        if !self.body.is_empty() {
            headers.push(("grpc-message".into(), percent_encoded(&self.body).into()));
        }
        Self {
            headers,
            close: self.close,
            ..Self::new(200, &b""[..])
        }
    }

    /// Writes the whole answer to a request of kind `to`; `server` is the `server` field (S-331), `date` the present.
    pub fn write(&self, out: &mut impl BufMut, to: ResponseTo, server: &str, date: UnixTime) {
        encode::status_line(out, self.status, reason(self.status).as_bytes());
        let bodiless = matches!(self.status, 100..=199 | 204 | 304);
        if !bodiless {
            encode::content_length(out, self.body.len() as u64);
            if !self.body.is_empty() {
                encode::field(out, b"content-type", self.content_type.as_bytes());
            }
        }
        for (name, value) in &self.headers {
            encode::field(out, name.as_bytes(), value);
        }
        encode::field(out, b"date", imf_fixdate(date).as_bytes());
        encode::field(out, b"server", server.as_bytes());
        if self.close {
            encode::field(out, b"connection", b"close");
        }
        encode::end_of_head(out);
        if !bodiless && to != ResponseTo::Head {
            out.put_slice(&self.body);
        }
    }
}

/// Whether a request with this `content-type` speaks gRPC: `application/grpc`, perhaps with `+` and a format.
/// `application/grpc-web` is something else.
pub fn is_grpc(content_type: &[u8]) -> bool {
    matches!(
        content_type.strip_prefix(b"application/grpc"),
        Some([] | [b'+', ..])
    )
}

/// The status code of gRPC for one of HTTP, as the gRPC project maps them (doc/http-grpc-status-mapping.md).
fn grpc_status(status: u16) -> &'static [u8] {
    match status {
        400 => b"13",                   // INTERNAL
        401 => b"16",                   // UNAUTHENTICATED
        403 => b"7",                    // PERMISSION_DENIED
        404 => b"12",                   // UNIMPLEMENTED
        429 | 502 | 503 | 504 => b"14", // UNAVAILABLE
        _ => b"2",                      // UNKNOWN
    }
}

/// A `grpc-message`: printable ASCII as it is, `%` and all else as `%XX` (gRPC over HTTP/2, "Responses").
fn percent_encoded(text: &[u8]) -> Vec<u8> {
    let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble & 15)];
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b'%' | ..b' ' | 0x7f.. => out.extend([b'%', digit(byte >> 4), digit(*byte)]),
            _ => out.push(*byte),
        }
    }
    out
}

/// `Fri, 02 Jan 2026 03:04:05 GMT` (RFC 9110 §5.6.7). Allocates: a caller that stamps every answer keeps it for a second.
pub fn imf_fixdate(at: UnixTime) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let days = at.as_secs() / 86_400;
    let weekday = WEEKDAYS.iter().cycle().nth((days % 7) as usize);
    // RFC 3339 has the same parts: `2026-01-02T03:04:05.678Z`.
    let text = at.to_string();
    let (date, time) = text.split_once('T').unwrap_or_default();
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next(), parts.next(), parts.next());
    let month = month
        .and_then(|month| month.parse::<usize>().ok())
        .and_then(|month| MONTHS.get(month.wrapping_sub(1)));
    format!(
        "{}, {} {} {} {} GMT",
        weekday.copied().unwrap_or_default(),
        day.unwrap_or_default(),
        month.copied().unwrap_or_default(),
        year.unwrap_or_default(),
        time.get(..8).unwrap_or_default()
    )
}

/// The reason phrase of `status` as Envoy writes it; `Unknown` for what it does not know.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        511 => "Network Authentication Required",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: UnixTime = UnixTime(1_767_323_045_678);

    fn written(reply: &LocalReply, to: ResponseTo) -> String {
        let mut out = Vec::new();
        reply.write(&mut out, to, "istio-envoy", DATE);
        String::from_utf8(out).expect("replies are text here")
    }

    #[test]
    fn a_denial_is_text_with_its_length() {
        let reply = LocalReply::new(403, &b"RBAC: access denied"[..]);
        assert_eq!(
            written(&reply, ResponseTo::Other),
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 19\r\ncontent-type: text/plain\r\n\
             date: Fri, 02 Jan 2026 03:04:05 GMT\r\nserver: istio-envoy\r\n\r\nRBAC: access denied"
        );
    }

    #[test]
    fn the_answer_to_head_has_the_length_and_no_body() {
        let reply = LocalReply::new(403, &b"RBAC: access denied"[..]);
        let text = written(&reply, ResponseTo::Head);
        assert!(text.contains("content-length: 19\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n"), "{text}");
    }

    #[test]
    fn an_empty_body_has_no_type_and_fields_are_kept_in_one_line() {
        let mut reply = LocalReply::new(401, &b""[..]);
        reply
            .headers
            .push(("www-authenticate".into(), (&b"Bearer\r\nx: y"[..]).into()));
        reply.close = true;
        assert_eq!(
            written(&reply, ResponseTo::Other),
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nwww-authenticate: Bearer  x: y\r\n\
             date: Fri, 02 Jan 2026 03:04:05 GMT\r\nserver: istio-envoy\r\nconnection: close\r\n\r\n"
        );
    }

    #[test]
    fn a_denial_in_grpc_is_a_head_alone() {
        // S-119.
        let reply = LocalReply::new(403, &b"RBAC: access denied"[..]).into_grpc();
        assert_eq!(
            written(&reply, ResponseTo::Other),
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ncontent-type: application/grpc\r\ngrpc-status: 7\r\n\
             grpc-message: RBAC: access denied\r\ndate: Fri, 02 Jan 2026 03:04:05 GMT\r\nserver: istio-envoy\r\n\r\n"
        );
        let reply = LocalReply::new(404, &b""[..]).into_grpc();
        assert!(!written(&reply, ResponseTo::Other).contains("grpc-message"));
    }

    #[test]
    fn a_message_of_grpc_is_percent_encoded() {
        let reply = LocalReply::new(503, "100 %\r\nx: y~\u{e9}\u{7f}".as_bytes()).into_grpc();
        let text = written(&reply, ResponseTo::Other);
        assert!(
            text.contains("grpc-message: 100 %25%0D%0Ax: y~%C3%A9%7F\r\n"),
            "{text}"
        );
    }

    #[test]
    fn grpc_is_told_by_its_media_type() {
        for (content_type, yes) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grpc,application/grpc", false),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(content_type.as_bytes()), yes, "{content_type}");
        }
    }

    #[test]
    fn a_violation_is_answered_once_and_closes() {
        let violation = |status, details| Violation {
            what: "a rule",
            status,
            details,
        };
        let reply = LocalReply::to_violation(&violation(426, "low_version"));
        assert_eq!(
            reply,
            Some(LocalReply {
                close: true,
                ..LocalReply::new(426, &b"Upgrade Required"[..])
            })
        );
        let reply = LocalReply::to_violation(&violation(400, "missing_host_header"));
        assert!(reply.is_some_and(|reply| reply.body.is_empty()));
        assert_eq!(
            LocalReply::to_violation(&violation(0, "http1.http2_preface")),
            None
        );
    }

    #[test]
    fn dates_are_in_the_form_of_rfc_9110() {
        for (ms, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400_999, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_102_444_799_999, "Thu, 31 Dec 2099 23:59:59 GMT"),
        ] {
            assert_eq!(imf_fixdate(UnixTime(ms)), text);
        }
    }
}
