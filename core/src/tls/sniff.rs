//! The first bytes of a connection: is this TLS, and what does its ClientHello ask for (S-25, S-26).
//!
//! Reads, and decides nothing. Keeps nothing: the caller shows all bytes from the first one on each time there are more.

use crate::limits::{CLIENT_HELLO_MAX, HANDSHAKE_MAX};

/// What the first bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sniff {
    /// Everything so far may become a ClientHello.
    NeedMore,
    /// No ClientHello: plaintext, whatever it is (S-26).
    NotTls,
    /// A whole ClientHello.
    Hello(HelloFacts),
    /// Begins as a ClientHello that is larger than [`CLIENT_HELLO_MAX`], or in more than 1024 records. Neither TLS that we
    /// speak nor plaintext.
    Bad,
}

/// What a ClientHello says that matters before a configuration is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HelloFacts {
    /// Protocol names in the client's order.
    pub alpn: Vec<Vec<u8>>,
    /// The host name of SNI, in lower case.
    pub sni: Option<String>,
    /// The newest version that the client offers, as it is written on the wire (0x0304 is TLS 1.3); 0 is unknown.
    pub newest: u16,
    /// TLS_FALLBACK_SCSV: a first try with a newer version failed (RFC 7507).
    pub fallback: bool,
}

/// RFC 7507 §2.
const FALLBACK_SCSV: [u8; 2] = [0x56, 0x00];

/// The names by which Istio's clients make themselves known (S-25).
const ISTIO_ALPN: [&[u8]; 5] = [
    b"istio",
    b"istio-peer-exchange",
    b"istio-http/1.0",
    b"istio-http/1.1",
    b"istio-h2",
];

impl HelloFacts {
    pub fn offers(&self, name: &[u8]) -> bool {
        self.alpn.iter().any(|n| n == name)
    }

    /// A client of the mesh, by the set of S-25.
    pub fn istio_alpn(&self) -> bool {
        ISTIO_ALPN.iter().any(|name| self.offers(name))
    }

    /// A client of the mesh that will speak HTTP: on an AUTO port it gets the HTTP chain, every other one the TCP chain
    /// (S-25).
    pub fn istio_http_alpn(&self) -> bool {
        ISTIO_ALPN
            .iter()
            .filter(|name| name.starts_with(b"istio-h"))
            .any(|name| self.offers(name))
    }
}

const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;
/// Payload of a plaintext record (RFC 8446 §5.1).
const FRAGMENT_MAX: usize = 1 << 14;

/// Records that a ClientHello may come in. All of them are walked again with each byte that arrives, so they must be few;
/// clients use one, and those that hide their SNI from middleboxes a handful.
pub(super) const RECORDS_MAX: usize = 1024;

// The handshake afterwards takes what was found here.
const _: () =
    assert!(CLIENT_HELLO_MAX + RECORDS_MAX * RECORD_HEADER + FRAGMENT_MAX <= HANDSHAKE_MAX);

/// Looks at all bytes received so far.
pub fn sniff(bytes: &[u8]) -> Sniff {
    let mut message = Message::default();
    let mut rest = bytes;
    for n in 1..=RECORDS_MAX {
        // Every byte of a record header must fit as soon as it is there.
        if !matches!(rest, [] | [0x16] | [0x16, 3, ..]) {
            return Sniff::NotTls;
        }
        let Some((header, body)) = rest.split_at_checked(RECORD_HEADER) else {
            return Sniff::NeedMore;
        };
        let length = usize::from(u16_at(header, 3));
        if length == 0 || length > FRAGMENT_MAX {
            return Sniff::NotTls;
        }
        let (fragment, after) = body.split_at(length.min(body.len()));
        message.push(fragment);
        match message.state() {
            State::NotHello => return Sniff::NotTls,
            State::TooLarge => return Sniff::Bad,
            State::Whole(length) => {
                let hello = if n == 1 {
                    parse_message(fragment, length)
                } else {
                    parse_message(&joined(bytes), length)
                };
                return hello.map_or(Sniff::NotTls, Sniff::Hello);
            }
            State::Short if fragment.len() < length => return Sniff::NeedMore,
            State::Short => rest = after,
        }
    }
    Sniff::Bad
}

/// How much there is of a handshake message that comes in fragments; copies no more than its header.
#[derive(Default)]
struct Message {
    header: [u8; HANDSHAKE_HEADER],
    length: usize,
}

enum State {
    Short,
    NotHello,
    TooLarge,
    /// With a body of so many bytes.
    Whole(usize),
}

impl Message {
    fn push(&mut self, fragment: &[u8]) {
        let header = self.header.iter_mut().skip(self.length);
        header.zip(fragment).for_each(|(to, from)| *to = *from);
        self.length += fragment.len();
    }

    fn state(&self) -> State {
        let [typ, a, b, c] = self.header;
        if self.length == 0 {
            return State::Short;
        }
        if typ != 1 {
            return State::NotHello;
        }
        let Some(there) = self.length.checked_sub(HANDSHAKE_HEADER) else {
            return State::Short;
        };
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if length > CLIENT_HELLO_MAX {
            State::TooLarge
        } else if there < length {
            State::Short
        } else {
            State::Whole(length)
        }
    }
}

/// The payloads of all records in `bytes`.
fn joined(bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((header, body)) = rest.split_at_checked(RECORD_HEADER) {
        let length = usize::from(u16_at(header, 3));
        let (fragment, after) = body.split_at(length.min(body.len()));
        message.extend_from_slice(fragment);
        rest = after;
    }
    message
}

fn parse_message(message: &[u8], length: usize) -> Option<HelloFacts> {
    let body = message.get(HANDSHAKE_HEADER..)?;
    parse_hello(body.get(..length)?)
}

/// RFC 8446 §4.1.2, RFC 5246 §7.4.1.2. `None` where the form is broken; what the values mean is the handshake's business.
fn parse_hello(body: &[u8]) -> Option<HelloFacts> {
    let mut at = Reader(body);
    let legacy_version = at.u16()?;
    at.take(32)?;
    let session = at.vector8()?;
    let suites = at.vector16()?;
    let compressions = at.vector8()?;
    if legacy_version >> 8 != 3
        || session.len() > 32
        || suites.is_empty()
        || !suites.len().is_multiple_of(2)
        || compressions.is_empty()
    {
        return None;
    }
    let mut facts = HelloFacts {
        newest: legacy_version,
        fallback: suites.chunks_exact(2).any(|suite| suite == FALLBACK_SCSV),
        ..HelloFacts::default()
    };
    if at.0.is_empty() {
        return Some(facts);
    }
    let mut extensions = Reader(at.vector16()?);
    if !at.0.is_empty() {
        return None;
    }
    let (mut seen_alpn, mut seen_sni) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let value = extensions.vector16()?;
        match kind {
            0 if !std::mem::replace(&mut seen_sni, true) => facts.sni = Some(parse_sni(value)?),
            16 if !std::mem::replace(&mut seen_alpn, true) => facts.alpn = parse_alpn(value)?,
            0 | 16 => return None,
            43 => facts.newest = parse_versions(value)?,
            _ => {}
        }
    }
    Some(facts)
}

/// RFC 6066 §3: one name of type host_name.
fn parse_sni(value: &[u8]) -> Option<String> {
    let mut at = Reader(value);
    let mut list = Reader(at.vector16()?);
    let kind = list.take(1)?;
    let name = list.vector16()?;
    let whole = at.0.is_empty() && list.0.is_empty();
    let printable = !name.is_empty() && name.len() <= 255 && name.iter().all(u8::is_ascii_graphic);
    if kind != [0] || !whole || !printable {
        return None;
    }
    Some(String::from_utf8_lossy(name).to_ascii_lowercase())
}

/// RFC 7301 §3.1.
fn parse_alpn(value: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut at = Reader(value);
    let mut list = Reader(at.vector16()?);
    if !at.0.is_empty() || list.0.is_empty() {
        return None;
    }
    let mut names = Vec::new();
    while !list.0.is_empty() {
        let name = list.vector8()?;
        if name.is_empty() {
            return None;
        }
        names.push(name.to_vec());
    }
    Some(names)
}

/// RFC 8446 §4.2.1. Values that are no version of TLS are there to be skipped (RFC 8701).
fn parse_versions(value: &[u8]) -> Option<u16> {
    let mut at = Reader(value);
    let mut list = Reader(at.vector8()?);
    let mut newest = 0;
    while !list.0.is_empty() {
        let version = list.u16()?;
        if version >> 8 == 3 {
            newest = newest.max(version);
        }
    }
    at.0.is_empty().then_some(newest)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => 0,
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16_at(b, 0))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let n = *self.take(1)?.first()?;
        self.take(usize::from(n))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let n = self.u16()?;
        self.take(usize::from(n))
    }
}
