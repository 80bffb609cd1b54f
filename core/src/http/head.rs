//! Heads of messages: start line, fields, and what they say about framing and the connection.
//!
//! A head borrows from the bytes it was read from. Field lines are offsets in a [`FieldTable`] that the caller keeps and
//! lends again, so a head costs no allocation.

mod joined;

use std::fmt;
use std::sync::Arc;

pub use joined::separator;

/// Later minor versions are refused, not read as 1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
}

/// How the end of a body is found (RFC 9112 §6.3). What is written on the other side follows from this value, never from
/// the `content-length` and `transfer-encoding` lines that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body can follow.
    None,
    /// Exactly so many bytes, at most `i64::MAX`.
    Length(u64),
    Chunked,
    /// Until the sender finishes its direction; for 101 and an answered CONNECT, the tunnel.
    UntilClose,
}

/// Fields that mean something to a proxy, told apart once, when a head is read. Names match without regard to ASCII case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Authorization,
    Connection,
    ContentLength,
    Cookie,
    Date,
    Expect,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyConnection,
    Server,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    XEnvoyExternalAddress,
    XEnvoyInternal,
    XEnvoyOriginalPath,
    /// `x-envoy-peer-metadata` and `x-envoy-peer-metadata-id` (S-324).
    XEnvoyPeerMetadata,
    /// Any other name that begins with `x-envoy-` (S-323).
    XEnvoyOther,
    /// `x-forwarded-client-cert` (S-325).
    Xfcc,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XRequestId,
    Other,
}

impl Known {
    /// What `name` stands for.
    pub fn of(name: &[u8]) -> Self {
        let candidates: &[(&str, Self)] = match name.len() {
            2 => &[("te", Self::Te)],
            4 => &[("host", Self::Host), ("date", Self::Date)],
            6 => &[
                ("cookie", Self::Cookie),
                ("server", Self::Server),
                ("expect", Self::Expect),
            ],
            7 => &[("upgrade", Self::Upgrade), ("trailer", Self::Trailer)],
            10 => &[
                ("connection", Self::Connection),
                ("user-agent", Self::UserAgent),
                ("keep-alive", Self::KeepAlive),
            ],
            12 => &[("x-request-id", Self::XRequestId)],
            13 => &[("authorization", Self::Authorization)],
            14 => &[
                ("content-length", Self::ContentLength),
                ("http2-settings", Self::Http2Settings),
            ],
            15 => &[("x-forwarded-for", Self::XForwardedFor)],
            16 => &[
                ("x-forwarded-host", Self::XForwardedHost),
                ("x-envoy-internal", Self::XEnvoyInternal),
                ("proxy-connection", Self::ProxyConnection),
            ],
            17 => &[
                ("transfer-encoding", Self::TransferEncoding),
                ("x-forwarded-proto", Self::XForwardedProto),
            ],
            21 => &[
                ("x-envoy-original-path", Self::XEnvoyOriginalPath),
                ("x-envoy-peer-metadata", Self::XEnvoyPeerMetadata),
            ],
            23 => &[("x-forwarded-client-cert", Self::Xfcc)],
            24 => &[
                ("x-envoy-external-address", Self::XEnvoyExternalAddress),
                ("x-envoy-peer-metadata-id", Self::XEnvoyPeerMetadata),
            ],
            _ => &[],
        };
        for (known, meaning) in candidates {
            if name.eq_ignore_ascii_case(known.as_bytes()) {
                return *meaning;
            }
        }
        match name.get(..8) {
            Some(start) if start.eq_ignore_ascii_case(b"x-envoy-") => Self::XEnvoyOther,
            _ => Self::Other,
        }
    }

    /// Belongs to one hop by its name alone (RFC 9110 §7.6.1), whatever `connection` lists.
    pub fn is_hop_by_hop(self) -> bool {
        match self {
            Self::Connection
            | Self::Http2Settings
            | Self::KeepAlive
            | Self::ProxyConnection
            | Self::Te
            | Self::TransferEncoding
            | Self::Upgrade => true,
            Self::Authorization
            | Self::ContentLength
            | Self::Cookie
            | Self::Date
            | Self::Expect
            | Self::Host
            | Self::Server
            | Self::Trailer
            | Self::UserAgent
            | Self::XEnvoyExternalAddress
            | Self::XEnvoyInternal
            | Self::XEnvoyOriginalPath
            | Self::XEnvoyPeerMetadata
            | Self::XEnvoyOther
            | Self::Xfcc
            | Self::XForwardedFor
            | Self::XForwardedHost
            | Self::XForwardedProto
            | Self::XRequestId
            | Self::Other => false,
        }
    }

    /// Carries framing, routing, identity or trust: a `connection` line may not strip it, a trailer may not bring it, and
    /// no look-alike may come near it.
    pub fn is_guarded(self) -> bool {
        match self {
            Self::Authorization
            | Self::ContentLength
            | Self::Cookie
            | Self::Expect
            | Self::Host
            | Self::TransferEncoding
            | Self::XEnvoyExternalAddress
            | Self::XEnvoyInternal
            | Self::XEnvoyOriginalPath
            | Self::XEnvoyPeerMetadata
            | Self::XEnvoyOther
            | Self::Xfcc
            | Self::XForwardedFor
            | Self::XForwardedHost
            | Self::XForwardedProto
            | Self::XRequestId => true,
            Self::Connection
            | Self::Date
            | Self::Http2Settings
            | Self::KeepAlive
            | Self::ProxyConnection
            | Self::Server
            | Self::Te
            | Self::Trailer
            | Self::Upgrade
            | Self::UserAgent
            | Self::Other => false,
        }
    }
}

/// One field line.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    /// As received, letter case included; a token (RFC 9110 §5.6.2).
    pub name: &'a [u8],
    /// Without the white space around it (S-202). Bytes 0x80 to 0xff are possible, control bytes other than HTAB are not.
    pub value: &'a [u8],
    pub known: Known,
    /// Ends here: by its name, or because `connection` lists it (RFC 9110 §7.6.1).
    pub hop_by_hop: bool,
}

impl<'a> Field<'a> {
    /// A line of our own, which goes on.
    fn made(name: &'a [u8], value: &'a [u8]) -> Self {
        Self {
            name,
            value,
            known: Known::of(name),
            hop_by_hop: false,
        }
    }
}

/// Values may be tokens or cookies: their length alone is shown.
impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} bytes",
            self.name.escape_ascii(),
            self.value.len()
        )
    }
}

/// Where one field line lies in its head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) name: u16,
    pub(super) name_len: u16,
    pub(super) value: u16,
    pub(super) value_len: u16,
    pub(super) known: Known,
    pub(super) hop_by_hop: bool,
}

/// Scratch for the field lines of the head that is being looked at. One per machine is enough; it keeps its room.
#[derive(Debug, Default)]
pub struct FieldTable {
    pub(super) spans: Vec<Span>,
}

/// Lines that leave a head and lines that join it. They are kept beside the head, which is never copied for them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Names that always leave. Shared by all requests of one configuration.
    barred: Option<Arc<[String]>>,
    removed: Vec<String>,
    added: Vec<(String, Vec<u8>)>,
}

impl Changes {
    /// All lines of these names leave, and of names that differ from them in `_` for `-` alone: some applications read
    /// both as one.
    pub fn barring(names: &Arc<[String]>) -> Self {
        Self {
            barred: (!names.is_empty()).then(|| Arc::clone(names)),
            ..Self::default()
        }
    }

    /// All lines of this name leave, as with [`barring`](Self::barring).
    pub fn remove(&mut self, name: &str) {
        self.removed.push(name.to_owned());
    }

    /// A line joins, behind all others. `name` is a token of none of the fields that belong to one hop or say something
    /// of framing. White space around the value is cut off; a value with a control byte is none, and nothing joins (RFC
    /// 9110 §5.5).
    pub fn add(&mut self, name: &str, value: &[u8]) {
        let is_control = |byte: &u8| matches!(byte, 0..=8 | 10..=31 | 127);
        if !value.iter().any(is_control) {
            let value = value.trim_ascii().to_vec();
            self.added.push((name.to_owned(), value));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.barred.is_none() && self.removed.is_empty() && self.added.is_empty()
    }

    fn removes(&self, name: &[u8]) -> bool {
        let mut names = self.barred.iter().flat_map(|names| names.iter());
        names.any(|other| is_alike(name, other.as_bytes()))
            || self
                .removed
                .iter()
                .any(|other| is_alike(name, other.as_bytes()))
    }
}

/// Values may be claims: names alone are shown.
impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let added: Vec<&str> = self.added.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Changes")
            .field("barred", &self.barred)
            .field("removed", &self.removed)
            .field("added", &added)
            .finish()
    }
}

/// The same name without regard to ASCII case, `_` read as `-`.
fn is_alike(a: &[u8], b: &[u8]) -> bool {
    let plain = |byte: &u8| match byte {
        b'_' => b'-',
        other => other.to_ascii_lowercase(),
    };
    a.len() == b.len() && a.iter().map(plain).eq(b.iter().map(plain))
}

/// A way to look at a head in which some lines are not seen.
#[derive(Debug)]
pub struct View {
    pub hides: fn(&Field<'_>) -> bool,
    /// Name and value of a line that is seen behind all others.
    pub also: Option<(&'static [u8], &'static [u8])>,
}

/// The field lines of a head or a trailer section, in their order.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    lines: Lines<'a>,
    /// `None`: everything is seen.
    view: Option<&'static View>,
    /// `None`: as they came.
    changes: Option<&'a Changes>,
    /// The `x-forwarded-client-cert` that stands in place of those that came; `None`: they stand.
    certificate: Option<&'a [u8]>,
}

#[derive(Clone, Copy)]
enum Lines<'a> {
    /// Where they lie in the bytes of a head.
    Read { bytes: &'a [u8], spans: &'a [Span] },
    /// Name and value, of a head that was never bytes.
    Listed(&'a [(&'a [u8], &'a [u8])]),
}

impl<'a> Fields<'a> {
    pub(super) fn read(bytes: &'a [u8], spans: &'a [Span]) -> Self {
        Self {
            lines: Lines::Read { bytes, spans },
            view: None,
            changes: None,
            certificate: None,
        }
    }

    /// Of names and values that did not come as bytes. Names are tokens; values have no white space around them (S-202).
    pub fn listed(lines: &'a [(&'a [u8], &'a [u8])]) -> Self {
        Self {
            lines: Lines::Listed(lines),
            view: None,
            changes: None,
            certificate: None,
        }
    }

    /// The same lines, seen through no view.
    pub fn whole(self) -> Self {
        Self { view: None, ..self }
    }

    /// The same lines, seen through `view` and no other.
    pub fn through(self, view: &'static View) -> Self {
        Self {
            view: Some(view),
            ..self
        }
    }

    /// The same lines after `changes`, in place of those that were made to them before.
    pub fn with(self, changes: &'a Changes) -> Self {
        Self {
            changes: (!changes.is_empty()).then_some(changes),
            ..self
        }
    }

    /// The same lines with one `x-forwarded-client-cert` in place of those that came (S-325); `None`: as they came.
    pub fn certified(self, value: Option<&'a [u8]>) -> Self {
        Self {
            certificate: value,
            ..self
        }
    }

    pub fn iter(self) -> impl DoubleEndedIterator<Item = Field<'a>> + Clone + use<'a> {
        let Self {
            lines,
            view,
            changes,
            certificate,
        } = self;
        let replaced = move |field: &Field<'_>| certificate.is_some() && field.known == Known::Xfcc;
        let own = (0..lines.len())
            .filter_map(move |at| lines.get(at))
            .filter(move |field| view.is_none_or(|view| !(view.hides)(field)) && !replaced(field));
        let also = view.and_then(|view| view.also);
        let also = also.map(|(name, value)| Field::made(name, value));
        let certificate = certificate.map(|value| Field::made(b"x-forwarded-client-cert", value));
        let kept = own
            .chain(also)
            .chain(certificate)
            .filter(move |field| changes.is_none_or(|changes| !changes.removes(field.name)));
        let added = changes.map_or(&[][..], |changes| &changes.added);
        let added = added.iter();
        kept.chain(added.map(|(name, value)| Field::made(name.as_bytes(), value)))
    }

    pub fn len(self) -> usize {
        match (self.view, self.changes, self.certificate) {
            (None, None, None) => self.lines.len(),
            _ => self.iter().count(),
        }
    }

    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }

    /// Whether several lines that go on are one value (see [`separator`]).
    pub fn has_joined(self) -> bool {
        let mut seen = 0u64;
        self.iter().filter(|field| !field.hop_by_hop).any(|field| {
            let Some(place) = joined::place(field.name) else {
                return false;
            };
            let again = seen & (1 << place) != 0;
            seen |= 1 << place;
            again
        })
    }

    /// The value of the first line of `known`.
    pub fn find(self, known: Known) -> Option<&'a [u8]> {
        let field = match (self.lines, self.view, self.changes, self.certificate) {
            (Lines::Read { spans, .. }, None, None, None) => self
                .lines
                .get(spans.iter().position(|span| span.known == known)?),
            _ => self.iter().find(|field| field.known == known),
        };
        field.map(|field| field.value)
    }
}

impl<'a> Lines<'a> {
    fn len(self) -> usize {
        match self {
            Self::Read { spans, .. } => spans.len(),
            Self::Listed(lines) => lines.len(),
        }
    }

    fn get(self, at: usize) -> Option<Field<'a>> {
        match self {
            Self::Read { bytes, spans } => {
                let span = spans.get(at)?;
                let part = |at: u16, len: u16| {
                    // INVARIANT: spans were measured in `bytes` by `h1::parse`.
                    let at = usize::from(at);
                    bytes.get(at..at + usize::from(len)).unwrap_or_default()
                };
                Some(Field {
                    name: part(span.name, span.name_len),
                    value: part(span.value, span.value_len),
                    known: span.known,
                    hop_by_hop: span.hop_by_hop,
                })
            }
            Self::Listed(lines) => {
                let (name, value) = *lines.get(at)?;
                let known = Known::of(name);
                Some(Field {
                    name,
                    value,
                    known,
                    hop_by_hop: known.is_hop_by_hop(),
                })
            }
        }
    }
}

/// Values may be tokens or cookies: how many there are is shown.
impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fields", self.len())
    }
}

/// A request as far as its empty line.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    /// One of the registered methods that Envoy knows, in capitals (S-138).
    pub method: &'a str,
    /// The request target as sent: origin, absolute, authority (CONNECT alone) or `*` (OPTIONS alone). Bytes 0x21 to 0x7e.
    pub target: &'a [u8],
    /// Path and query: the target, or what follows the authority of an absolute target. `*` for `OPTIONS *`, empty for
    /// CONNECT, else it begins with `/`.
    pub path: &'a [u8],
    /// The authority of the target, which replaces `host` (RFC 9112 §3.2.2), else the value of `host`; port and letter case
    /// exactly as sent (S-136). Never empty.
    pub authority: Option<&'a [u8]>,
    pub version: Version,
    pub framing: Framing,
    /// The client would send another request on this connection. Never after CONNECT, whose client may have begun to
    /// speak something else before it was refused.
    pub keep_alive: bool,
    /// The client waits for a 100 before it sends the body. Never set without a body.
    pub expect_continue: bool,
    /// CONNECT, or `connection: upgrade` with a protocol other than h2c. Where it is not set, or not granted, the request
    /// is an ordinary one and its `upgrade` line is hop-by-hop.
    pub upgrade: bool,
    pub(super) fields: Fields<'a>,
}

impl<'a> RequestHead<'a> {
    /// All field lines in their order, hop-by-hop ones included.
    pub fn fields(&self) -> impl Iterator<Item = Field<'a>> + Clone + use<'a> {
        self.fields.iter()
    }

    /// The same, to be asked more than once.
    pub fn lines(&self) -> Fields<'a> {
        self.fields
    }

    /// The value of the first line of `known`.
    pub fn find(&self, known: Known) -> Option<&'a [u8]> {
        self.fields.find(known)
    }

    /// Whether `field` is not to be forwarded (RFC 9110 §7.6.1).
    pub fn is_hop_by_hop(&self, field: &Field<'_>) -> bool {
        field.hop_by_hop
    }
}

/// The target may carry a token in its query, so it is not shown.
impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("target_bytes", &self.target.len())
            .field("version", &self.version)
            .field("framing", &self.framing)
            .field("keep_alive", &self.keep_alive)
            .field("fields", &self.fields.len())
            .finish_non_exhaustive()
    }
}

/// A response as far as its empty line.
#[derive(Clone, Copy)]
pub struct ResponseHead<'a> {
    /// 100 to 999.
    pub status: u16,
    /// May be empty. Bytes as in a field value.
    pub reason: &'a [u8],
    pub version: Version,
    /// `None` for the answer to HEAD and for 1xx, 204 and 304, whatever `content-length` says there.
    pub framing: Framing,
    /// The connection can carry another request after this answer.
    pub keep_alive: bool,
    pub(super) fields: Fields<'a>,
}

impl<'a> ResponseHead<'a> {
    /// All field lines in their order, hop-by-hop ones included.
    pub fn fields(&self) -> impl Iterator<Item = Field<'a>> + Clone + use<'a> {
        self.fields.iter()
    }

    /// The value of the first line of `known`.
    pub fn find(&self, known: Known) -> Option<&'a [u8]> {
        self.fields.find(known)
    }

    /// Whether `field` is not to be forwarded (RFC 9110 §7.6.1).
    pub fn is_hop_by_hop(&self, field: &Field<'_>) -> bool {
        field.hop_by_hop
    }

    /// 1xx other than 101: the answer proper is still to come.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

impl fmt::Debug for ResponseHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.status)
            .field("version", &self.version)
            .field("framing", &self.framing)
            .field("keep_alive", &self.keep_alive)
            .field("fields", &self.fields.len())
            .finish_non_exhaustive()
    }
}

/// The fields after the last chunk.
#[derive(Clone, Copy)]
pub struct Trailers<'a> {
    pub(super) fields: Fields<'a>,
}

impl<'a> Trailers<'a> {
    /// All field lines in their order; none is [guarded](Known::is_guarded) or hop-by-hop.
    pub fn fields(&self) -> impl Iterator<Item = Field<'a>> + Clone + use<'a> {
        self.fields.iter()
    }
}

impl fmt::Debug for Trailers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} trailers", self.fields.len())
    }
}

#[cfg(test)]
mod tests;
