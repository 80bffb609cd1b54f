//! Heads and trailer sections: httparse finds the lines, this module refuses what httparse forgives and what RFC 9112 leaves
//! open to two readings.

use std::mem::MaybeUninit;

use super::target::{self, Target};
use super::{H2_PREFACE, ResponseTo, invalid, invalid_characters, too_large};
use crate::error::Violation;
use crate::http::head::{
    FieldTable, Fields, Framing, Known, RequestHead, ResponseHead, Span, Trailers, Version,
};
use crate::limits::{FIELDS_MAX, HEAD_MAX};

/// The methods of Envoy's HTTP/1 codec, in the order of their names (S-138).
const METHODS: [&str; 34] = [
    "ACL",
    "BIND",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "MSEARCH",
    "NOTIFY",
    "OPTIONS",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "TRACE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

/// How a connection begins that speaks HTTP/2 unasked (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// Field names that one `connection` line may list. Envoy: `MAX_ALLOWED_NOMINATED_HEADERS`.
const NOMINATED_MAX: usize = 10;

/// Reads a request head at the start of `bytes` and tells its length; `None` if its end is not there yet.
///
/// `bytes` must not be empty. A start that no request has is refused at once, whether or not the end is there.
pub(super) fn request<'a>(
    bytes: &'a [u8],
    table: &'a mut FieldTable,
) -> Result<Option<(RequestHead<'a>, usize)>, Violation> {
    if PREFACE.starts_with(bytes) && bytes.len() < PREFACE.len() {
        return Ok(None);
    }
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let status = httparse::ParserConfig::default().parse_request_with_uninit_headers(
        &mut parsed,
        bytes,
        &mut slots,
    );
    let Some(len) = head_len(bytes, status, check_request_start)? else {
        return Ok(None);
    };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(invalid("a malformed request line (RFC 9112 §3)"));
    };
    let line = method.len() + 1 + target.len() + " HTTP/1.1".len();
    if offset(bytes, method.as_bytes()) != 0 || offset(bytes, target.as_bytes()) != method.len() + 1
    {
        return Err(invalid("a malformed request line (RFC 9112 §3)"));
    }
    let facts = read_fields(bytes, line, len, parsed.headers, table)?;
    if METHODS.binary_search(&method).is_err() {
        return Err(invalid("an unknown method (S-138)"));
    }
    if minor == 0 {
        return Err(LOW_VERSION);
    }
    let Target { path, authority } = target::split(method, target.as_bytes())?;
    let fields = Fields::read(bytes, &table.spans);
    let host = match facts.hosts {
        0 => return Err(MISSING_HOST),
        1 => fields.find(Known::Host).unwrap_or_default(),
        _ => return Err(invalid("several host fields (RFC 9112 §3.2)")),
    };
    target::port_of(host)?;
    let framing = facts.framing(Version::Http11)?.unwrap_or(Framing::None);
    if matches!(method, "CONNECT" | "TRACE") && framing != Framing::None {
        return Err(invalid("a body where the method allows none"));
    }
    let has_body = !matches!(framing, Framing::None | Framing::Length(0));
    if facts.expects > 1 || facts.expects == 1 && !facts.expect_continue {
        return Err(EXPECTATION_FAILED);
    }
    Ok(Some((
        RequestHead {
            method,
            target: target.as_bytes(),
            path,
            authority: Some(authority.unwrap_or(host)),
            version: Version::Http11,
            framing,
            keep_alive: !facts.close && method != "CONNECT",
            expect_continue: facts.expect_continue && has_body,
            upgrade: method == "CONNECT" || facts.upgrade_listed && facts.upgrade,
            fields,
        },
        len,
    )))
}

/// Reads the head of the answer to a request of kind `to`, like [`request`].
pub(super) fn response<'a>(
    bytes: &'a [u8],
    to: ResponseTo,
    table: &'a mut FieldTable,
) -> Result<Option<(ResponseHead<'a>, usize)>, Violation> {
    const STATUS_LINE: Violation = invalid("a malformed status line (RFC 9112 §4)");
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        bytes,
        &mut slots,
    );
    let Some(len) = head_len(bytes, status, check_response_start)? else {
        return Ok(None);
    };
    let (Some(minor), Some(status)) = (parsed.version, parsed.code) else {
        return Err(STATUS_LINE);
    };
    let after_code = "HTTP/1.1 200".len();
    let reason_end = bytes
        .iter()
        .position(|byte| matches!(byte, b'\r' | b'\n'))
        .ok_or(STATUS_LINE)?;
    let reason = match bytes.get(after_code..reason_end) {
        Some([]) => &[],
        Some([b' ', reason @ ..]) => reason,
        _ => return Err(STATUS_LINE),
    };
    if status < 100
        || !reason
            .iter()
            .all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
    {
        return Err(STATUS_LINE);
    }
    let version = match minor {
        0 => Version::Http10,
        _ => Version::Http11,
    };
    let facts = read_fields(bytes, reason_end, len, parsed.headers, table)?;
    let framing = facts.framing(version)?;
    if matches!(status, 100..=199 | 204) && !matches!(framing, None | Some(Framing::Length(0))) {
        return Err(invalid(
            "a body where the status allows none (RFC 9112 §6.3)",
        ));
    }
    let framing = match (status, to) {
        (101, ResponseTo::Upgrade) => Framing::UntilClose,
        (101, _) => return Err(invalid("an upgrade that nobody asked for (RFC 9110 §7.8)")),
        (200..=299, ResponseTo::Connect) => Framing::UntilClose,
        (100..=199 | 204 | 304, _) | (_, ResponseTo::Head) => Framing::None,
        _ => framing.unwrap_or(Framing::UntilClose),
    };
    let persistent = match version {
        Version::Http10 => facts.keep_alive_listed && !facts.close,
        Version::Http11 => !facts.close,
    };
    Ok(Some((
        ResponseHead {
            status,
            reason,
            version,
            framing,
            keep_alive: persistent && framing != Framing::UntilClose,
            fields: Fields::read(bytes, &table.spans),
        },
        len,
    )))
}

/// Reads a trailer section that `bytes` holds exactly, its empty line included.
pub(super) fn trailers<'a>(
    bytes: &'a [u8],
    table: &'a mut FieldTable,
) -> Result<Trailers<'a>, Violation> {
    let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let headers = match httparse::parse_headers(bytes, &mut slots) {
        Ok(httparse::Status::Complete((_, headers))) => headers,
        Ok(httparse::Status::Partial) => return Err(invalid("a malformed trailer section")),
        Err(error) => return Err(blame(error)),
    };
    measure(bytes, 0, bytes.len(), headers, table)?;
    if table.spans.iter().any(|span| {
        span.known.is_guarded() || span.known.is_hop_by_hop() || span.known == Known::Trailer
    }) {
        return Err(invalid(
            "a field that no trailer may hold (RFC 9110 §6.5.1)",
        ));
    }
    Ok(Trailers {
        fields: Fields::read(bytes, &table.spans),
    })
}

/// `tchar` of RFC 9110 §5.6.2.
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

const LOW_VERSION: Violation = Violation {
    what: "http/1.0 (S-25)",
    status: 426,
    details: "low_version",
};
const MISSING_HOST: Violation = Violation {
    what: "no host field (RFC 9112 §3.2)",
    status: 400,
    details: "missing_host_header",
};
const EXPECTATION_FAILED: Violation = Violation {
    what: "an unknown expectation (RFC 9110 §10.1.1)",
    status: 417,
    details: "http1.codec_error",
};

/// What httparse's verdict means for a head at the start of `bytes`: its length, or `None` while it may still come.
fn head_len(
    bytes: &[u8],
    status: httparse::Result<usize>,
    check_start: fn(&[u8]) -> Result<(), Violation>,
) -> Result<Option<usize>, Violation> {
    match status {
        Ok(httparse::Status::Complete(len)) if len > HEAD_MAX => Err(too_large()),
        Ok(httparse::Status::Complete(len)) => Ok(Some(len)),
        Ok(httparse::Status::Partial) => {
            check_start(bytes)?;
            if bytes.len() > HEAD_MAX {
                return Err(too_large());
            }
            Ok(None)
        }
        Err(error) => {
            check_start(bytes)?;
            Err(blame(error))
        }
    }
}

fn blame(error: httparse::Error) -> Violation {
    match error {
        httparse::Error::TooManyHeaders => too_large(),
        httparse::Error::HeaderName => invalid("a malformed field line (RFC 9112 §5)"),
        httparse::Error::HeaderValue => {
            invalid_characters("a byte that no field value may hold (RFC 9110 §5.5)")
        }
        httparse::Error::NewLine => invalid("a malformed line end (RFC 9112 §2.2)"),
        httparse::Error::Status => invalid("a malformed status line (RFC 9112 §4)"),
        httparse::Error::Token => invalid("a malformed start line (RFC 9112 §3)"),
        httparse::Error::Version => invalid("an unknown version (RFC 9112 §2.3)"),
    }
}

/// Refuses a start that cannot become a request line.
pub(super) fn check_request_start(bytes: &[u8]) -> Result<(), Violation> {
    if bytes.starts_with(PREFACE) {
        return Err(Violation {
            what: "the preface of http/2 (RFC 9113 §3.4)",
            status: 0,
            details: H2_PREFACE,
        });
    }
    let end = bytes.iter().take(16).position(|byte| *byte == b' ');
    let plausible = match end.and_then(|end| bytes.get(..end)) {
        Some(method) => METHODS.iter().any(|known| known.as_bytes() == method),
        None => METHODS
            .iter()
            .any(|known| known.as_bytes().starts_with(bytes)),
    };
    if plausible || PREFACE.starts_with(bytes) {
        Ok(())
    } else {
        Err(invalid("an unknown method (S-138)"))
    }
}

/// Refuses a start that cannot become a status line.
pub(super) fn check_response_start(bytes: &[u8]) -> Result<(), Violation> {
    let start = bytes.get(..9).unwrap_or(bytes);
    if b"HTTP/1.1 ".starts_with(start) || b"HTTP/1.0 ".starts_with(start) {
        Ok(())
    } else {
        Err(invalid("an unknown version (RFC 9112 §2.3)"))
    }
}

/// Where `part`, which was borrowed from `bytes`, begins in it.
fn offset(bytes: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr())
}

/// What the field lines of a head say about framing and the connection.
#[derive(Default)]
struct Facts {
    hosts: usize,
    lengths: usize,
    length: u64,
    codings: usize,
    chunked: bool,
    close: bool,
    keep_alive_listed: bool,
    upgrade_listed: bool,
    /// An `upgrade` line names a protocol other than h2c.
    upgrade: bool,
    expects: usize,
    expect_continue: bool,
}

impl Facts {
    /// RFC 9112 §6.3 without its liberties: what has two readings is refused.
    fn framing(&self, version: Version) -> Result<Option<Framing>, Violation> {
        match (self.codings, self.lengths) {
            (0, 0) => Ok(None),
            (0, 1) => Ok(Some(Framing::Length(self.length))),
            (0, _) => Err(invalid("several content-length fields (RFC 9112 §6.3)")),
            (_, 1..) => Err(Violation {
                what: "content-length and transfer-encoding (RFC 9112 §6.1)",
                status: 400,
                details: "http1.content_length_and_chunked_not_allowed",
            }),
            (1, 0) if self.chunked && version == Version::Http11 => Ok(Some(Framing::Chunked)),
            (1, 0) if self.chunked => Err(invalid("transfer-encoding in http/1.0 (RFC 9112 §6.1)")),
            _ => Err(Violation {
                what: "a transfer coding other than chunked alone (RFC 9112 §7)",
                status: 501,
                details: "http1.invalid_transfer_encoding",
            }),
        }
    }
}

/// Measures the field lines and reads the known ones.
fn read_fields(
    bytes: &[u8],
    line: usize,
    len: usize,
    headers: &[httparse::Header<'_>],
    table: &mut FieldTable,
) -> Result<Facts, Violation> {
    let at = end_of_line(bytes, line)?;
    measure(bytes, at, len, headers, table)?;
    let mut facts = Facts::default();
    let mut nominated = 0;
    for (index, header) in headers.iter().enumerate() {
        let known = table
            .spans
            .get(index)
            .map_or(Known::Other, |span| span.known);
        match known {
            Known::Host => facts.hosts += 1,
            Known::ContentLength => {
                facts.lengths += 1;
                facts.length = content_length(header.value)?;
            }
            Known::TransferEncoding => {
                facts.codings += 1;
                facts.chunked = header.value.eq_ignore_ascii_case(b"chunked");
            }
            Known::Connection => {
                for option in list(header.value) {
                    nominated += usize::from(connection(bytes, option, &mut facts, table)?);
                }
                if nominated > NOMINATED_MAX {
                    return Err(CONNECTION_REJECTED);
                }
            }
            Known::Upgrade => {
                facts.upgrade = list(header.value)
                    .all(|protocol| !protocol.is_empty() && !protocol.eq_ignore_ascii_case(b"h2c"));
            }
            Known::Expect => {
                facts.expects += 1;
                facts.expect_continue = header.value.eq_ignore_ascii_case(b"100-continue");
            }
            Known::Authorization
            | Known::Cookie
            | Known::Date
            | Known::Http2Settings
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::Server
            | Known::Te
            | Known::Trailer
            | Known::UserAgent
            | Known::XEnvoyExternalAddress
            | Known::XEnvoyInternal
            | Known::XEnvoyOriginalPath
            | Known::XEnvoyPeerMetadata
            | Known::XEnvoyOther
            | Known::Xfcc
            | Known::XForwardedFor
            | Known::XForwardedHost
            | Known::XForwardedProto
            | Known::XRequestId
            | Known::Other => {}
        }
    }
    Ok(facts)
}

const CONNECTION_REJECTED: Violation = Violation {
    what: "a connection option that may not be stripped (RFC 9110 §7.6.1)",
    status: 400,
    details: "http1.connection_header_rejected",
};

/// Reads one option of a `connection` line. `true` if it is the name of a field of this head.
fn connection(
    bytes: &[u8],
    option: &[u8],
    facts: &mut Facts,
    table: &mut FieldTable,
) -> Result<bool, Violation> {
    if option.is_empty() {
        return Ok(false);
    }
    if option.eq_ignore_ascii_case(b"close") {
        facts.close = true;
        return Ok(false);
    }
    if !option.iter().all(|byte| is_token_byte(*byte)) || Known::of(option).is_guarded() {
        return Err(CONNECTION_REJECTED);
    }
    if option.eq_ignore_ascii_case(b"keep-alive") {
        facts.keep_alive_listed = true;
    } else if option.eq_ignore_ascii_case(b"upgrade") {
        facts.upgrade_listed = true;
    }
    for span in &mut table.spans {
        let at = usize::from(span.name);
        let name = bytes.get(at..at + usize::from(span.name_len));
        if name.is_some_and(|name| name.eq_ignore_ascii_case(option)) {
            span.hop_by_hop = true;
        }
    }
    Ok(true)
}

/// The elements of a comma-separated list, trimmed; empty ones included.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim)
}

fn trim(value: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let start = value.iter().position(is_text).unwrap_or(value.len());
    let end = value.iter().rposition(is_text).map_or(start, |at| at + 1);
    value.get(start..end).unwrap_or_default()
}

/// 1 to 19 digits, at most `i64::MAX`: what every upstream reads alike.
fn content_length(value: &[u8]) -> Result<u64, Violation> {
    const MALFORMED: Violation = invalid("a malformed content-length (RFC 9110 §8.6)");
    if !matches!(value.len(), 1..=19) || !value.iter().all(u8::is_ascii_digit) {
        return Err(MALFORMED);
    }
    let number = value
        .iter()
        .fold(0u64, |n, digit| n * 10 + u64::from(digit - b'0'));
    if number > i64::MAX as u64 {
        return Err(MALFORMED);
    }
    Ok(number)
}

/// The position after the CRLF at `at`.
fn end_of_line(bytes: &[u8], at: usize) -> Result<usize, Violation> {
    match bytes.get(at..at + 2) {
        Some(b"\r\n") => Ok(at + 2),
        _ => Err(invalid(
            "a line that does not end with CRLF (RFC 9112 §2.2)",
        )),
    }
}

/// Fills `table` with the places of `headers`, and checks that from `at` to `len` there is nothing but `name:`, value,
/// white space and CRLF for each of them, and one more CRLF.
fn measure(
    bytes: &[u8],
    mut at: usize,
    len: usize,
    headers: &[httparse::Header<'_>],
    table: &mut FieldTable,
) -> Result<(), Violation> {
    const WHAT: Violation = invalid("a malformed field line (RFC 9112 §5)");
    table.spans.clear();
    for header in headers {
        let name = header.name.as_bytes();
        let value = offset(bytes, header.value);
        if name.is_empty() || offset(bytes, name) != at || bytes.get(at + name.len()) != Some(&b':')
        {
            return Err(WHAT);
        }
        let short = |n: usize| u16::try_from(n).map_err(|_| too_large());
        let known = Known::of(name);
        if matches!(known, Known::Other | Known::XEnvoyOther) && imitates_guarded(name) {
            return Err(Violation {
                what: "a name that some upstreams read as another",
                status: 400,
                details: "http1.unexpected_underscore",
            });
        }
        table.spans.push(Span {
            name: short(at)?,
            name_len: short(name.len())?,
            value: short(value)?,
            value_len: short(header.value.len())?,
            known,
            hop_by_hop: known.is_hop_by_hop(),
        });
        let mut end = value + header.value.len();
        while matches!(bytes.get(end), Some(b' ' | b'\t')) {
            end += 1;
        }
        at = end_of_line(bytes, end)?;
    }
    if end_of_line(bytes, at)? == len {
        Ok(())
    } else {
        Err(WHAT)
    }
}

/// Whether `name` becomes a guarded one for an upstream that reads `_` as `-` (CGI, WSGI, PHP): a way around the framing
/// and around the stripping of identity fields.
fn imitates_guarded(name: &[u8]) -> bool {
    if !name.contains(&b'_') {
        return false;
    }
    let mut plain = [0; 32];
    let len = name.len().min(plain.len());
    for (to, from) in plain.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    plain
        .get(..len)
        .is_some_and(|plain| Known::of(plain).is_guarded())
}
