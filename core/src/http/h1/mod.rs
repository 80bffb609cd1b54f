//! HTTP/1.1, one direction of one connection at a time: [`Receiver`] turns bytes into events, [`encode`] writes messages.
//!
//! Whatever RFC 9112 lets two parsers read differently is refused, never guessed, because a policy judges what this module
//! read and an upstream acts on what it reads itself. Limits are those of [`limits`](crate::limits); time, links and policy
//! are unknown here.

mod chunk;
pub mod encode;
mod parse;
mod target;
#[cfg(test)]
pub(crate) mod tests;

pub use target::path_of;

use std::fmt;

use self::chunk::{Chunks, Piece};
use super::event::{Event, StreamId};
use super::head::{FieldTable, Framing};
use crate::error::Violation;
use crate::limits::{HEAD_MAX, TRAILERS_MAX};

/// `Violation::details` of a connection that speaks HTTP/2 from the start: to be closed, not answered.
pub const H2_PREFACE: &str = "http1.http2_preface";

/// Interim responses (1xx) to one request; beyond it the upstream is taken for broken. Go's net/http: 5.
const INTERIM_MAX: u8 = 16;

/// Which kind of request a response answers; it decides whether a body follows (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseTo {
    Head,
    Connect,
    /// The request asked for an upgrade, so that 101 is an answer.
    Upgrade,
    Other,
}

/// The sender finished its direction where a message may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndOfMessage(pub StreamId);

/// Reads one direction of one connection.
///
/// A message that arrives in one piece is lent from the input; only the beginning of a head or trailer section is kept,
/// each byte of it looked at once until its end is there. After a violation everything is swallowed and nothing said.
pub struct Receiver {
    /// The beginning of a head or of a trailer section.
    held: Vec<u8>,
    at: Position,
}

/// Where the stream stands. Apart from `held`, so that a lent event and the next position can exist together.
#[derive(Debug)]
struct Position {
    state: State,
    /// The message that `state` speaks of, or the last one.
    stream: u64,
    side: Side,
    interim: u8,
    /// After this message another may follow.
    keep_alive: bool,
    /// `held` was lent with the last event and is garbage now.
    lent: bool,
    lead: Lead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Requests,
    Responses(ResponseTo),
}

/// The one empty line that may come before a request (RFC 9112 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lead {
    None,
    Return,
    Through,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    Chunks(Chunks),
    Trailers,
    UntilClose,
    /// All is read but `End` is not said.
    End,
    /// Between messages, until the caller says that the next may come.
    Paused,
    /// Nothing that comes has a meaning.
    Closed,
}

impl Receiver {
    /// Reads requests, beginning with a head.
    pub fn requests() -> Self {
        Self::new(Side::Requests, State::Head)
    }

    /// Reads responses. Nothing may come before [`expect_response`](Self::expect_response).
    pub fn responses() -> Self {
        Self::new(Side::Responses(ResponseTo::Other), State::Paused)
    }

    fn new(side: Side, state: State) -> Self {
        Self {
            held: Vec::new(),
            at: Position {
                state,
                stream: 0,
                side,
                interim: 0,
                keep_alive: true,
                lent: false,
                lead: Lead::None,
            },
        }
    }

    /// The next event. Takes what it read off the front of `input`; `None` means that more bytes are needed, or that the
    /// receiver is paused (then nothing was taken).
    ///
    /// Fails once; after that every byte is swallowed. Call again until `None`, also with empty input: an `End` may wait.
    pub fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
        fields: &'s mut FieldTable,
    ) -> Result<Option<Event<'s>>, Violation> {
        if self.at.lent {
            self.held = Vec::new();
            self.at.lent = false;
        }
        let stream = StreamId(self.at.stream);
        // An early return leaves `Closed` behind.
        match std::mem::replace(&mut self.at.state, State::Closed) {
            State::Closed => {
                *input = &[];
                Ok(None)
            }
            State::Paused => {
                if !input.is_empty() && self.at.side != Side::Requests {
                    *input = &[];
                    return Err(self.at.blame(invalid("bytes that answer no request")));
                }
                self.at.state = State::Paused;
                Ok(None)
            }
            State::Head => self.head(input, fields),
            State::Length(left) => {
                let data = take(input, left);
                let left = left - data.len() as u64;
                self.at.state = if left == 0 {
                    State::End
                } else {
                    State::Length(left)
                };
                Ok((!data.is_empty()).then_some(Event::Data(stream, data)))
            }
            State::UntilClose => {
                let data = take(input, u64::MAX);
                self.at.state = State::UntilClose;
                Ok((!data.is_empty()).then_some(Event::Data(stream, data)))
            }
            State::Chunks(mut chunks) => {
                let piece = chunks.next(input).map_err(|fault| self.at.blame(fault))?;
                match piece {
                    Piece::Data(data) => {
                        self.at.state = State::Chunks(chunks);
                        Ok(Some(Event::Data(stream, data)))
                    }
                    Piece::NeedsMore => {
                        self.at.state = State::Chunks(chunks);
                        Ok(None)
                    }
                    Piece::Last => self.trailers(input, fields),
                }
            }
            State::Trailers => self.trailers(input, fields),
            State::End => {
                self.at.state = State::Paused;
                Ok(Some(Event::End(stream)))
            }
        }
    }

    /// Lets the next request come, after the answer to the last one is under way. Without keep-alive none will: the rest
    /// of the stream is swallowed.
    pub fn resume(&mut self) {
        if self.at.state == State::Paused {
            self.at.state = if self.at.keep_alive {
                State::Head
            } else {
                State::Closed
            };
        }
    }

    /// Says which request the next response answers. Only between messages; the connection must be fit for another.
    pub fn expect_response(&mut self, to: ResponseTo) {
        assert!(
            matches!(self.at.state, State::Paused | State::Closed),
            "one request at a time is sent on an HTTP/1 connection"
        );
        self.at.side = Side::Responses(to);
        self.at.interim = 0;
        if self.at.state == State::Paused && self.at.keep_alive {
            self.at.stream += 1;
            self.at.state = State::Head;
        }
    }

    /// Makes everything that follows the request that just ended `Data` of it, until the client finishes: its upgrade or
    /// CONNECT was granted.
    pub fn tunnel(&mut self) {
        if self.at.state == State::Paused {
            self.at.state = State::UntilClose;
        }
    }

    /// The sender finished its direction. `None` between messages; a violation within one whose end is known to be
    /// further on.
    pub fn eof(&mut self) -> Result<Option<EndOfMessage>, Violation> {
        let nothing_held = self.at.lent || self.held.is_empty();
        match std::mem::replace(&mut self.at.state, State::Closed) {
            State::UntilClose | State::End => Ok(Some(EndOfMessage(StreamId(self.at.stream)))),
            State::Paused | State::Closed => Ok(None),
            State::Head if nothing_held && self.at.side == Side::Requests => Ok(None),
            State::Head | State::Length(_) | State::Chunks(_) | State::Trailers => {
                Err(self.at.blame(invalid("a truncated message (RFC 9112 §8)")))
            }
        }
    }

    /// Between messages, with no byte of a next one.
    pub fn is_idle(&self) -> bool {
        let nothing_held = self.at.lent || self.held.is_empty();
        match self.at.state {
            State::Head => nothing_held && self.at.side == Side::Requests,
            State::Paused => true,
            State::Length(_)
            | State::Chunks(_)
            | State::Trailers
            | State::UntilClose
            | State::End
            | State::Closed => false,
        }
    }

    fn head<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
        fields: &'s mut FieldTable,
    ) -> Result<Option<Event<'s>>, Violation> {
        if self.at.side == Side::Requests && self.held.is_empty() {
            self.at.skip_empty_line(input)?;
        }
        if input.is_empty() {
            self.at.state = State::Head;
            return Ok(None);
        }
        if self.held.is_empty() {
            let bytes = *input;
            match self.at.side {
                Side::Requests => {
                    if let Some((head, len)) = parse::request(bytes, fields)? {
                        *input = bytes.get(len..).unwrap_or_default();
                        return Ok(Some(self.at.requested(head)));
                    }
                }
                Side::Responses(to) => {
                    let parsed = parse::response(bytes, to, fields);
                    if let Some((head, len)) = parsed.map_err(|fault| self.at.blame(fault))? {
                        *input = bytes.get(len..).unwrap_or_default();
                        return self.at.responded(head).map(Some);
                    }
                }
            }
            self.hold(input);
            self.at.state = State::Head;
            return Ok(None);
        }

        let end = section_end(&self.held, input).map_err(|fault| self.at.blame(fault))?;
        let len = end.unwrap_or(input.len());
        if self.held.len() + len > HEAD_MAX {
            return Err(self.at.blame(too_large()));
        }
        let (more, rest) = input.split_at(len);
        self.held.extend_from_slice(more);
        *input = rest;
        if end.is_none() {
            let start = match self.at.side {
                Side::Requests => parse::check_request_start(&self.held),
                Side::Responses(_) => parse::check_response_start(&self.held),
            };
            start.map_err(|fault| self.at.blame(fault))?;
            self.at.state = State::Head;
            return Ok(None);
        }
        self.at.lent = true;
        match self.at.side {
            Side::Requests => match parse::request(&self.held, fields)? {
                Some((head, len)) if len == self.held.len() => Ok(Some(self.at.requested(head))),
                _ => Err(invalid("a malformed head")),
            },
            Side::Responses(to) => {
                let parsed = parse::response(&self.held, to, fields);
                match parsed.map_err(|fault| self.at.blame(fault))? {
                    Some((head, len)) if len == self.held.len() => {
                        self.at.responded(head).map(Some)
                    }
                    _ => Err(self.at.blame(invalid("a malformed head"))),
                }
            }
        }
    }

    fn trailers<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
        fields: &'s mut FieldTable,
    ) -> Result<Option<Event<'s>>, Violation> {
        let stream = StreamId(self.at.stream);
        let end = section_end(&self.held, input).map_err(|fault| self.at.blame(fault))?;
        let len = end.unwrap_or(input.len());
        if self.held.len() + len > TRAILERS_MAX {
            return Err(self.at.blame(too_large()));
        }
        let (more, rest) = input.split_at(len);
        *input = rest;
        if end.is_none() {
            self.held.extend_from_slice(more);
            self.at.state = State::Trailers;
            return Ok(None);
        }
        let section = if self.held.is_empty() {
            more
        } else {
            self.held.extend_from_slice(more);
            self.at.lent = true;
            &self.held
        };
        if section == b"\r\n" {
            self.at.state = State::Paused;
            return Ok(Some(Event::End(stream)));
        }
        let trailers = parse::trailers(section, fields).map_err(|fault| self.at.blame(fault))?;
        self.at.state = State::End;
        Ok(Some(Event::Trailers(stream, trailers)))
    }

    /// Keeps the rest of the input.
    fn hold(&mut self, input: &mut &[u8]) {
        self.held.extend_from_slice(input);
        *input = &[];
    }
}

/// What is held may be secret: its length alone is shown.
impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("held_bytes", &self.held.len())
            .field("at", &self.at)
            .finish()
    }
}

impl Position {
    /// The violation as the side that reads it answers it: a client gets 400 and the like for its own fault, 502 for an
    /// upstream's.
    fn blame(&self, violation: Violation) -> Violation {
        match self.side {
            Side::Requests => violation,
            Side::Responses(_) => Violation {
                status: 502,
                ..violation
            },
        }
    }

    fn skip_empty_line(&mut self, input: &mut &[u8]) -> Result<(), Violation> {
        const WHAT: Violation = invalid("a malformed line before a request (RFC 9112 §2.2)");
        loop {
            let Some((first, rest)) = input.split_first() else {
                return Ok(());
            };
            self.lead = match (self.lead, first) {
                (Lead::None, b'\r') => Lead::Return,
                (Lead::Return, b'\n') => Lead::Through,
                (Lead::None | Lead::Through, byte) if !matches!(byte, b'\r' | b'\n') => {
                    return Ok(());
                }
                (Lead::None | Lead::Return | Lead::Through, _) => return Err(WHAT),
            };
            *input = rest;
        }
    }

    fn requested<'a>(&mut self, head: super::head::RequestHead<'a>) -> Event<'a> {
        self.stream += 1;
        self.lead = Lead::None;
        self.keep_alive = head.keep_alive;
        self.state = State::of(head.framing);
        Event::Request(StreamId(self.stream), head)
    }

    fn responded<'a>(
        &mut self,
        head: super::head::ResponseHead<'a>,
    ) -> Result<Event<'a>, Violation> {
        if head.is_interim() {
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(self.blame(invalid("too many interim responses")));
            }
            self.state = State::Head;
        } else {
            self.keep_alive = head.keep_alive;
            self.state = State::of(head.framing);
        }
        Ok(Event::Response(StreamId(self.stream), head))
    }
}

impl State {
    /// How a message goes on after its head.
    fn of(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::End,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunks(Chunks::new()),
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

/// Takes up to `most` bytes off `input`.
fn take<'i>(input: &mut &'i [u8], most: u64) -> &'i [u8] {
    let len = usize::try_from(most).map_or(input.len(), |most| most.min(input.len()));
    let (data, rest) = input.split_at(len);
    *input = rest;
    data
}

/// Looks for the empty line that ends a head or trailer section begun by `held`: the number of bytes of `input` up to and
/// with it. Refuses line feeds without a carriage return before them.
fn section_end(held: &[u8], input: &[u8]) -> Result<Option<usize>, Violation> {
    let before = |at: usize, back: usize| match at.checked_sub(back) {
        Some(at) => input.get(at),
        None => held
            .len()
            .checked_sub(back - at)
            .and_then(|at| held.get(at)),
    };
    for (at, byte) in input.iter().enumerate() {
        if *byte != b'\n' {
            continue;
        }
        if before(at, 1) != Some(&b'\r') {
            return Err(invalid(
                "a line that does not end with CRLF (RFC 9112 §2.2)",
            ));
        }
        if matches!(before(at, 2), None | Some(b'\n')) {
            return Ok(Some(at + 1));
        }
    }
    Ok(None)
}

const fn invalid(what: &'static str) -> Violation {
    Violation {
        what,
        status: 400,
        details: "http1.codec_error",
    }
}

const fn invalid_characters(what: &'static str) -> Violation {
    Violation {
        what,
        status: 400,
        details: "http1.invalid_characters",
    }
}

const fn invalid_url(what: &'static str) -> Violation {
    Violation {
        what,
        status: 400,
        details: "http1.invalid_url",
    }
}

const fn too_large() -> Violation {
    Violation {
        what: "a head beyond its limits",
        status: 431,
        details: "request_headers_too_large",
    }
}
