//! What a converter tells about a byte stream, in the order in which it happened on the wire.
//!
//! Events are lent: they borrow from the input or from the converter, and are gone at the next call.

use std::fmt;

use super::head::{RequestHead, ResponseHead, Trailers};

/// One request and its answer within a connection. HTTP/1 counts messages from 1; an interim answer shares the number of
/// its final one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// A message is `Request` or `Response`, any number of `Data`, at most one `Trailers`, then `End`. An interim answer (1xx
/// other than 101) is a `Response` alone, without `End`.
pub enum Event<'a> {
    Request(StreamId, RequestHead<'a>),
    Response(StreamId, ResponseHead<'a>),
    /// Never empty. Framing is taken off: chunk lines and extensions are gone.
    Data(StreamId, &'a [u8]),
    /// Never to be merged into the head (RFC 9110 §6.5.1); holds no field that a proxy or a policy acts on.
    Trailers(StreamId, Trailers<'a>),
    End(StreamId),
}

/// Bodies may hold secrets: their length alone is shown.
impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(id, head) => f.debug_tuple("Request").field(id).field(head).finish(),
            Self::Response(id, head) => f.debug_tuple("Response").field(id).field(head).finish(),
            Self::Data(id, data) => write!(f, "Data({id:?}, {} bytes)", data.len()),
            Self::Trailers(id, trailers) => {
                f.debug_tuple("Trailers").field(id).field(trailers).finish()
            }
            Self::End(id) => f.debug_tuple("End").field(id).finish(),
        }
    }
}
