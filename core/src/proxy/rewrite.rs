//! Heads on their way through: what is dropped, what is added, what stays as it came.
//!
//! Names go out in lower case, as Envoy sends them. Fields of one hop (RFC 9110 §7.6.1) end here.

use super::Route;
use super::downstream::Facts;
use super::http::server_name;
use crate::clock::UnixTime;
use crate::http::head::{Field, Fields, Framing, Known, RequestHead, ResponseHead, separator};
use crate::http::reply::{imf_fixdate, reason};
use crate::link::Buf;
use crate::rng::Rng;
use crate::spiffe::Svid;
use crate::telemetry::xfcc;

/// A place that bytes are appended to.
pub(super) trait Out {
    fn put(&mut self, bytes: &[u8]);
}

impl Out for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Out for Buf {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// The text of the header `date`, made once a second.
#[derive(Debug, Default)]
pub(super) struct Date {
    second: u64,
    text: String,
}

impl Date {
    pub(super) fn of(&mut self, wall: UnixTime) -> &str {
        if self.second != wall.as_secs() || self.text.is_empty() {
            self.second = wall.as_secs();
            self.text = imf_fixdate(wall);
        }
        &self.text
    }
}

/// A request that was allowed.
#[derive(Clone, Copy)]
pub(super) struct Passed<'a> {
    pub(super) head: &'a RequestHead<'a>,
    /// Normalised (S-180), with its query.
    pub(super) path: &'a [u8],
    /// The lines of the head without what is not believed (S-322 to S-324), after authentication (S-224, S-225).
    pub(super) fields: Fields<'a>,
}

/// The head of a request, as the upstream gets it; the `x-request-id` that it was given if it came without one (S-322).
///
/// Lines that are one value for rules go out as one (S-145).
pub(super) fn request(passed: Passed<'_>, rng: &mut Rng, out: &mut Vec<u8>) -> Option<[u8; 36]> {
    let Passed { head, path, fields } = passed;
    out.put(head.method.as_bytes());
    out.put(b" ");
    out.put(path);
    out.put(b" HTTP/1.1\r\nhost: ");
    out.put(head.authority.unwrap_or_default());
    out.put(b"\r\n");
    let has_joined = fields.has_joined();
    let mut has_id = false;
    for (at, field) in fields.iter().enumerate() {
        if !goes_on(&field, head) {
            continue;
        }
        has_id |= field.known == Known::XRequestId;
        match separator(field.name).filter(|_| has_joined) {
            None => put_field(&field, out),
            Some(separator) => {
                let is_alike = |other: &Field<'_>| {
                    other.name.eq_ignore_ascii_case(field.name) && goes_on(other, head)
                };
                if fields.iter().take(at).any(|before| is_alike(&before)) {
                    continue;
                }
                put_name(&field, out);
                // Empty lines add nothing, as where rules are asked.
                let lines = fields.iter().skip(at).filter(is_alike);
                let lines = lines.filter(|line| !line.value.is_empty());
                for (nth, line) in lines.enumerate() {
                    if nth > 0 {
                        out.put(separator.as_bytes());
                    }
                    out.put(line.value);
                }
                out.put(b"\r\n");
            }
        }
    }
    let fresh_id = (!has_id).then(|| rng.uuid());
    if let Some(id) = &fresh_id {
        out.put(b"x-request-id: ");
        out.put(id);
        out.put(b"\r\n");
    }
    if let Some(value) = fields.find(Known::Xfcc) {
        out.put(b"x-forwarded-client-cert: ");
        out.put(value);
        out.put(b"\r\n");
    }
    match head.framing {
        Framing::Length(n) => {
            out.put(b"content-length: ");
            put_number(n, out);
            out.put(b"\r\n\r\n");
        }
        Framing::Chunked => out.put(b"transfer-encoding: chunked\r\n\r\n"),
        // A method that goes with a body says that there is none (RFC 9110 §8.6); Envoy does it for every other than these.
        Framing::None
            if !matches!(head.method, "GET" | "HEAD" | "DELETE" | "TRACE" | "CONNECT") =>
        {
            out.put(b"content-length: 0\r\n\r\n");
        }
        Framing::None | Framing::UntilClose => out.put(b"\r\n"),
    }
    fresh_id
}

/// Not what is written in a place of its own, and not what belongs to one hop.
fn goes_on(field: &Field<'_>, head: &RequestHead<'_>) -> bool {
    match field.known {
        Known::Host
        | Known::ContentLength
        | Known::TransferEncoding
        | Known::Expect
        | Known::Xfcc => false,
        Known::XRequestId if field.value.is_empty() => false,
        _ => !head.is_hop_by_hop(field),
    }
}

/// The value of `x-forwarded-client-cert` under mutual TLS: what came, and our element behind it; `None`: without mutual TLS
/// there is none (S-325).
///
/// What came is kept as it is, unless our element behind it could be read as a part of it.
pub(super) fn client_certificate(
    fields: Fields<'_>,
    facts: &Facts,
    own: Option<&Svid>,
) -> Option<Vec<u8>> {
    let (Route::Inbound(_), Some(peer), Some(own)) = (facts.route, &facts.certificate, own) else {
        return None;
    };
    let mut value = Vec::with_capacity(256);
    for field in fields
        .iter()
        .filter(|f| f.known == Known::Xfcc && !f.value.is_empty() && ends_its_elements(f.value))
    {
        if !value.is_empty() {
            value.push(b',');
        }
        value.extend_from_slice(field.value);
    }
    xfcc::element(
        own.id.as_str(),
        &peer.sha256,
        &peer.subject,
        peer.id.as_str(),
        &peer.dns,
        &mut value,
    );
    Some(value)
}

/// Whoever reads on after this value begins a new element: there are no quotation marks, or they pair up in the grammar.
/// `\\"` closes a value for some readers and goes on for others.
fn ends_its_elements(value: &[u8]) -> bool {
    !value.contains(&b'"')
        || std::str::from_utf8(value)
            .is_ok_and(|text| !text.contains(r#"\\""#) && xfcc::parse(text).is_ok())
}

/// The head of an answer, as the client gets it.
pub(super) fn response(
    head: &ResponseHead<'_>,
    route: Route,
    chunked: bool,
    service_ms: u64,
    close: bool,
    date: &str,
    out: &mut Buf,
) {
    status_line(head, out);
    let mut has_date = false;
    for field in head.fields() {
        match field.known {
            Known::ContentLength | Known::TransferEncoding => continue,
            Known::Server if matches!(route, Route::Inbound(_)) => continue,
            Known::XEnvoyOther
                if field
                    .name
                    .eq_ignore_ascii_case(b"x-envoy-upstream-service-time") =>
            {
                continue;
            }
            Known::Date => has_date = true,
            _ if head.is_hop_by_hop(&field) => continue,
            _ => {}
        }
        put_field(&field, out);
    }
    if !has_date {
        out.put(b"date: ");
        out.put(date.as_bytes());
        out.put(b"\r\n");
    }
    if matches!(route, Route::Inbound(_)) {
        out.put(b"server: ");
        out.put(server_name(route).as_bytes());
        out.put(b"\r\n");
    }
    out.put(b"x-envoy-upstream-service-time: ");
    put_number(service_ms, out);
    out.put(b"\r\n");
    if close {
        out.put(b"connection: close\r\n");
    }
    if chunked {
        out.put(b"transfer-encoding: chunked\r\n");
    } else if let Framing::Length(length) = head.framing {
        out.put(b"content-length: ");
        put_number(length, out);
        out.put(b"\r\n");
    } else if head.status != 204
        && let Some(length) = head.find(Known::ContentLength)
    {
        // An answer without a body may say how long it would be (RFC 9110 §8.6).
        out.put(b"content-length: ");
        out.put(length);
        out.put(b"\r\n");
    }
    out.put(b"\r\n");
}

/// An interim answer (1xx), passed on.
pub(super) fn interim(head: &ResponseHead<'_>, out: &mut Buf) {
    status_line(head, out);
    for field in head
        .fields()
        .filter(|f| !head.is_hop_by_hop(f) && f.known != Known::ContentLength)
    {
        put_field(&field, out);
    }
    out.put(b"\r\n");
}

fn status_line(head: &ResponseHead<'_>, out: &mut Buf) {
    out.put(b"HTTP/1.1 ");
    put_number(u64::from(head.status), out);
    out.put(b" ");
    // The words are ours, as in Envoy: the upstream's are free text and mean nothing (RFC 9112 §4).
    out.put(reason(head.status).as_bytes());
    out.put(b"\r\n");
}

fn put_field(field: &Field<'_>, out: &mut impl Out) {
    put_name(field, out);
    out.put(field.value);
    out.put(b"\r\n");
}

fn put_name(field: &Field<'_>, out: &mut impl Out) {
    let mut lower = [0u8; 64];
    match lower.get_mut(..field.name.len()) {
        Some(lower) => {
            lower.copy_from_slice(field.name);
            lower.make_ascii_lowercase();
            out.put(lower);
        }
        None => out.put(&field.name.to_ascii_lowercase()),
    }
    out.put(b": ");
}

fn put_number(n: u64, out: &mut impl Out) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = n;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put(&digits[at..]);
}
