//! What becomes of an accepted connection: the matrix of S-25 as a table.
//!
//! (mode, kind of port, first bytes) in, a chain or a reset out. The choice is made once, for the connection (S-26). Whether
//! bytes are a ClientHello is told by `tls::sniff`; what plain bytes are, by [`first_plain_kind`]. This module reads no
//! links and knows no time: a shell that waited long enough asks [`after_silence`].

use crate::limits::HEAD_MAX;

/// The effective peer mode of a port, after inheritance (S-20 to S-23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Strict,
    Permissive,
    Disable,
}

/// What the port was declared as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// `http`, `http2`, `grpc`, …
    Http,
    /// `tcp`, `tls`, `https`, `mongo`, …
    Tcp,
    /// Not declared.
    Auto,
}

/// What the bytes received so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstBytes {
    /// None yet, or the beginning of what may be a ClientHello.
    NeedMore,
    /// Certainly no ClientHello.
    Plain(PlainKind),
    /// A whole ClientHello; make it with [`FirstBytes::tls`].
    Tls {
        /// What the first protocol of Istio's that the client offers stands for, in the client's order.
        first: Option<Carries>,
        /// Whether one of those that stand for HTTP is offered anywhere.
        http: bool,
    },
}

/// What an ALPN name of Istio's says about the bytes inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// `istio-http/1.0`, `istio-http/1.1`, `istio-h2`.
    Http,
    /// `istio`, `istio-peer-exchange`.
    Tcp,
}

/// What plain bytes are, in the eyes of Envoy's HTTP inspector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainKind {
    /// A request line of HTTP/1.1.
    Http11,
    /// A request line of another version, or of HTTP/0.9, which names none.
    Http10,
    /// The connection preface of HTTP/2 (RFC 9113 §3.4).
    Http2Preface,
    /// No request line.
    Other,
    /// So far the beginning of a request line.
    Undecided,
    /// So far the beginning of the preface, and of nothing that HTTP/1 would be told from it by.
    UndecidedPreface,
    /// A beginning of a request line of [`HEAD_MAX`] bytes or more.
    TooLong,
}

/// What to do with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// HTTP in plaintext; the peer has no identity (S-33).
    Http,
    /// Opaque bytes in plaintext.
    Tcp,
    /// Mutual TLS, then HTTP. A client certificate is demanded (S-29 to S-32).
    TerminateHttp,
    /// Mutual TLS, then opaque bytes. A client certificate is demanded.
    TerminateTcp,
    /// TLS that is the app's: its bytes go to the app as they are.
    PassThrough,
    /// No chain: reset, with pending bytes left unread (S-28). Also where the bytes are HTTP/2, which is not spoken: never
    /// read them as HTTP/1.
    Reset,
    /// Nothing can be said yet.
    NeedMore,
}

impl FirstBytes {
    /// From the protocols that a ClientHello offers, in its order. Names are compared byte by byte.
    pub fn tls<'a>(alpn: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut first = None;
        let mut http = false;
        for name in alpn {
            let carries = match name {
                b"istio-http/1.0" | b"istio-http/1.1" | b"istio-h2" => Carries::Http,
                b"istio" | b"istio-peer-exchange" => Carries::Tcp,
                _ => continue,
            };
            http |= carries == Carries::Http;
            first = first.or(Some(carries));
        }
        Self::Tls { first, http }
    }
}

/// The matrix of S-25.
pub fn decide(mode: Mode, kind: PortKind, first: FirstBytes) -> Accept {
    match first {
        FirstBytes::NeedMore => Accept::NeedMore,
        FirstBytes::Plain(plain) => decide_plain(mode, kind, plain),
        FirstBytes::Tls { first, http } => decide_tls(mode, kind, first, http),
    }
}

/// What becomes of a connection of the application to a port that nobody declared: HTTP if it speaks HTTP/1.1, else opaque
/// bytes, its own TLS among them (S-69).
pub fn outbound(first: FirstBytes) -> Accept {
    match first {
        FirstBytes::NeedMore => Accept::NeedMore,
        FirstBytes::Tls { .. } => Accept::Tcp,
        FirstBytes::Plain(plain) => decide_plain(Mode::Disable, PortKind::Auto, plain),
    }
}

fn decide_plain(mode: Mode, kind: PortKind, plain: PlainKind) -> Accept {
    match (mode, kind) {
        (Mode::Strict, _) => Accept::Reset,
        (Mode::Permissive | Mode::Disable, PortKind::Tcp) => Accept::Tcp,
        (Mode::Permissive | Mode::Disable, PortKind::Http) => match plain {
            PlainKind::Http2Preface => Accept::Reset,
            PlainKind::UndecidedPreface => Accept::NeedMore,
            PlainKind::Http11
            | PlainKind::Http10
            | PlainKind::Other
            | PlainKind::Undecided
            | PlainKind::TooLong => Accept::Http,
        },
        (Mode::Permissive | Mode::Disable, PortKind::Auto) => match plain {
            PlainKind::Http11 => Accept::Http,
            PlainKind::Http10 | PlainKind::Other => Accept::Tcp,
            PlainKind::Http2Preface | PlainKind::TooLong => Accept::Reset,
            PlainKind::Undecided | PlainKind::UndecidedPreface => Accept::NeedMore,
        },
    }
}

fn decide_tls(mode: Mode, kind: PortKind, first: Option<Carries>, http: bool) -> Accept {
    match (mode, kind, first) {
        (Mode::Disable, _, _) => Accept::Reset,
        (Mode::Strict, PortKind::Http, _) => Accept::TerminateHttp,
        (Mode::Strict, PortKind::Tcp, _) => Accept::TerminateTcp,
        // The chain for HTTP asks for its names, the one for TCP for none: an HTTP name wins wherever it stands.
        (Mode::Strict, PortKind::Auto, _) if http => Accept::TerminateHttp,
        (Mode::Strict, PortKind::Auto, _) => Accept::TerminateTcp,
        (Mode::Permissive, PortKind::Http, Some(_)) => Accept::TerminateHttp,
        (Mode::Permissive, PortKind::Http, None) => Accept::Reset,
        (Mode::Permissive, PortKind::Tcp, Some(_)) => Accept::TerminateTcp,
        // Here both chains ask for names, and the client's order decides.
        (Mode::Permissive, PortKind::Auto, Some(Carries::Http)) => Accept::TerminateHttp,
        (Mode::Permissive, PortKind::Auto, Some(Carries::Tcp)) => Accept::TerminateTcp,
        (Mode::Permissive, PortKind::Tcp | PortKind::Auto, None) => Accept::PassThrough,
    }
}

/// When `protocolDetectionTimeout` has passed without a decision: the chain for plain bytes that are no HTTP (S-27).
pub fn after_silence(mode: Mode, kind: PortKind) -> Accept {
    decide(mode, kind, FirstBytes::Plain(PlainKind::Other))
}

/// Whether the app may be connected, and its bytes sent, before the client has said anything (S-27): plaintext is the only
/// thing that is served here. The first bytes of the client still go through [`decide`], since TLS is reset.
pub fn app_may_speak_first(mode: Mode, kind: PortKind) -> bool {
    mode == Mode::Disable && kind == PortKind::Tcp
}

/// Whether a connection that was accepted under another mode may begin something new under `mode`; `terminated`: we hold its
/// TLS. The choice of a chain stands (S-26), but not against the port's mode.
pub fn still_takes(mode: Mode, terminated: bool) -> bool {
    match mode {
        Mode::Strict => terminated,
        Mode::Permissive => true,
        Mode::Disable => !terminated,
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Envoy's HTTP inspector: looks at the first line, or at the preface of HTTP/2.
///
/// `bytes`: all that was received so far, which `tls::sniff` said is no ClientHello. What is not undecided stays so, whatever
/// follows. Says `Other` at the first byte that no request line has there, so that a client with another protocol does not
/// wait for a line feed that it will never send; for the same reason a method has to begin with a capital letter, where
/// Envoy takes any token.
pub fn first_plain_kind(bytes: &[u8]) -> PlainKind {
    if bytes.starts_with(PREFACE) {
        return PlainKind::Http2Preface;
    }
    if PREFACE.starts_with(bytes) {
        return PlainKind::UndecidedPreface;
    }
    let line = bytes
        .split_inclusive(|b| *b == b'\n')
        .next()
        .unwrap_or_default();
    match request_line(line) {
        Line::Part if line.len() >= HEAD_MAX => PlainKind::TooLong,
        Line::Part => PlainKind::Undecided,
        Line::Whole([b'1', b'.', b'1']) => PlainKind::Http11,
        Line::Whole(_) => PlainKind::Http10,
        Line::Wrong => PlainKind::Other,
    }
}

enum Line<'a> {
    /// With its version, which is empty in HTTP/0.9.
    Whole(&'a [u8]),
    Part,
    Wrong,
}

/// method SP target [SP version] CRLF (RFC 9112 §3), with any token for a method, LF alone and runs of blanks as Envoy takes
/// them. No byte after the line feed.
fn request_line(line: &[u8]) -> Line<'_> {
    let is_blank = |b: &u8| matches!(b, b' ' | b'\t');
    let (method, rest) = until(line, is_blank);
    if method.is_empty() || !method.iter().all(is_token) {
        return Line::Wrong;
    }
    if rest.is_empty() {
        return Line::Part;
    }
    let (_, rest) = until(rest, |b| !is_blank(b));
    let (target, rest) = until(rest, |b| is_blank(b) || matches!(b, b'\r' | b'\n'));
    let whole = !rest.is_empty();
    if !target.iter().all(u8::is_ascii_graphic) || !is_target(method, target, whole) {
        return Line::Wrong;
    }
    let (_, rest) = until(rest, |b| !is_blank(b));
    let (version, rest) = until(rest, |b| is_blank(b) || matches!(b, b'\r' | b'\n'));
    let number = match version {
        [b'H', b'T', b'T', b'P', b'/', number @ ..] => number,
        _ if b"HTTP/".starts_with(version) && (version.is_empty() || rest.is_empty()) => b"",
        _ => return Line::Wrong,
    };
    let (_, rest) = until(rest, |b| !is_blank(b));
    let ended = match rest {
        [b'\n'] | [b'\r', b'\n'] => true,
        [] | [b'\r'] => false,
        _ => return Line::Wrong,
    };
    match number {
        [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {}
        [] if !version.is_empty() && ended => return Line::Wrong,
        [] => {}
        [major] | [major, b'.'] if major.is_ascii_digit() && rest.is_empty() => {}
        _ => return Line::Wrong,
    }
    if ended {
        Line::Whole(number)
    } else {
        Line::Part
    }
}

/// Splits before the first byte that `ends`.
fn until(bytes: &[u8], ends: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(ends).unwrap_or(bytes.len()))
}

/// RFC 9110 §5.6.2.
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// A path, `*`, an absolute URI, or anything after CONNECT (RFC 9112 §3.2); `whole`, or the beginning of one.
fn is_target(method: &[u8], target: &[u8], whole: bool) -> bool {
    let (_, rest) = until(target, |b| {
        !(b.is_ascii_alphanumeric() || b"+-.".contains(b))
    });
    match target {
        [] => !whole,
        [b'/' | b'*', ..] => true,
        _ if method == b"CONNECT" => true,
        [first, ..] => {
            let begun = !whole && b"://".starts_with(rest);
            first.is_ascii_alphabetic() && (begun || rest.starts_with(b"://"))
        }
    }
}

#[cfg(test)]
mod tests;
