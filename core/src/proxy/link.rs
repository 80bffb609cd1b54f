//! One link as the machine sees it: what may be read, what is on its way out, what it waits for.

use std::collections::VecDeque;

use super::Action;
use crate::clock::{Deadline, Instant};
use crate::id::LinkId;
use crate::limits;
use crate::link::{Buf, LinkCommand};
use crate::timer::{Timer, Timers};
use crate::tls::Session;

/// Plaintext of at least this many bytes is sealed where it lies; less is gathered first, so that a head and a small body
/// share a record.
const SEAL_DIRECTLY: usize = 4 * 1024;
/// An acknowledgement is asked for after so many bytes.
const ACK_EVERY: usize = limits::UNACKED_MAX / 2;
/// Why of the deadline of a link that only waits for the peer's end.
const LINGER: &str = "linger";

/// Bytes on the link <-> plaintext.
#[derive(Debug)]
pub(super) enum Wire {
    Plain,
    Tls(Box<Session>),
}

/// How our direction is to end, once everything written has been handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Open,
    /// FIN, after close_notify under TLS, was asked for.
    Finishing,
    /// FIN is out.
    Finished,
    /// RST is out: the link only waits for its `Closed`.
    Reset,
}

/// The flow of one link.
#[derive(Debug)]
pub(super) struct Io {
    pub(super) id: LinkId,
    pub(super) timer: Timer,
    /// A `Read` is outstanding.
    granted: bool,
    /// The peer's direction has ended on the transport.
    eof: bool,
    ending: Ending,
    /// Something could not be sealed: the link must not go on with a hole in its bytes.
    broken: bool,
    /// Bytes sent that were not acknowledged.
    unacked: usize,
    /// Of these, sent since an acknowledgement was last asked for.
    unasked: usize,
    /// Written in this turn, not sealed. Empty between turns.
    plain: Buf,
    /// Written in this turn, ready for the transport. Empty between turns.
    sealed: Buf,
}

impl Io {
    pub(super) fn new(id: LinkId) -> Self {
        Self {
            id,
            timer: Timer::default(),
            granted: false,
            eof: false,
            ending: Ending::Open,
            broken: false,
            unacked: 0,
            unasked: 0,
            plain: Buf::default(),
            sealed: Buf::default(),
        }
    }

    /// Buys one `Received` or `Eof`, unless one is bought already or none can come any more.
    pub(super) fn grant(&mut self, at_most: usize, actions: &mut VecDeque<Action>) {
        if !self.granted && !self.eof && self.ending != Ending::Reset {
            self.granted = true;
            actions.push_back(Action::Link(self.id, LinkCommand::Read { at_most }));
        }
    }

    pub(super) fn on_received(&mut self) {
        self.granted = false;
    }

    pub(super) fn on_eof(&mut self) {
        self.granted = false;
        self.eof = true;
    }

    pub(super) fn on_sent(&mut self, bytes: usize) {
        self.unacked = self.unacked.saturating_sub(bytes);
    }

    /// The peer's direction has ended on the transport.
    pub(super) fn has_eof(&self) -> bool {
        self.eof
    }

    /// Nothing more can be written: an end was asked for.
    pub(super) fn is_ending(&self) -> bool {
        self.ending != Ending::Open
    }

    pub(super) fn is_reset(&self) -> bool {
        self.ending == Ending::Reset
    }

    /// So much is unheard of that whoever feeds this link has to wait.
    pub(super) fn is_full(&self) -> bool {
        self.unacked + self.plain.len() + self.sealed.len() >= limits::UNACKED_MAX
    }

    pub(super) fn is_granted(&self) -> bool {
        self.granted
    }

    /// Gathers plaintext for the end of the turn.
    pub(super) fn gather(&mut self, bytes: &[u8]) {
        if self.ending == Ending::Open {
            self.plain.extend_from_slice(bytes);
        }
    }

    /// Where plaintext is gathered, for encoders.
    pub(super) fn plain(&mut self) -> &mut Buf {
        &mut self.plain
    }

    /// Forgets what was gathered in this turn.
    pub(super) fn drop_plain(&mut self) {
        self.plain = Buf::default();
    }

    /// Lends the place for ready bytes to a TLS endpoint that answers by itself.
    pub(super) fn take_sealed(&mut self) -> Buf {
        std::mem::take(&mut self.sealed)
    }

    pub(super) fn put_sealed(&mut self, sealed: Buf) {
        self.sealed = sealed;
    }

    /// Asks for the end of our direction after everything written.
    pub(super) fn finish(&mut self) {
        if self.ending == Ending::Open {
            self.ending = Ending::Finishing;
        }
    }

    /// Lets go of the link now; what was written in this turn is lost.
    pub(super) fn reset(&mut self, actions: &mut VecDeque<Action>) {
        if self.ending != Ending::Reset {
            self.ending = Ending::Reset;
            self.plain = Buf::default();
            self.sealed = Buf::default();
            actions.push_back(Action::Link(self.id, LinkCommand::Reset));
        }
    }

    /// Waits for the peer's end, which is all that can still come, and not for ever: a reset follows, and takes with it what
    /// the peer has not got, in the kernel too. So a peer that may still be taking bytes of ours has as long as one that
    /// owes us bytes.
    pub(super) fn linger(&mut self, now: Instant, timers: &mut Timers) {
        if !self.lingers() {
            let span = if self.unacked > 0 {
                limits::BODY_TIMEOUT
            } else {
                limits::LINGER_TIMEOUT
            };
            self.set_linger(now.after(span), timers);
        }
    }

    pub(super) fn lingers(&self) -> bool {
        self.timer.due().is_some_and(|due| due.why == LINGER)
    }

    /// The kernel took bytes: the peer is slow, not gone.
    pub(super) fn linger_on(&mut self, now: Instant, timers: &mut Timers) {
        if self.lingers() {
            self.set_linger(now.after(limits::BODY_TIMEOUT), timers);
        }
    }

    fn set_linger(&mut self, at: Instant, timers: &mut Timers) {
        let due = Deadline { at, why: LINGER };
        timers.set(&mut self.timer, self.id, Some(due));
    }

    fn send(&mut self, bytes: Buf, actions: &mut VecDeque<Action>) {
        self.unacked += bytes.len();
        self.unasked += bytes.len();
        let ack = self.unasked >= ACK_EVERY || self.ending == Ending::Finishing;
        if ack {
            self.unasked = 0;
        }
        actions.push_back(Action::Link(self.id, LinkCommand::Send { bytes, ack }));
    }
}

/// Writes plaintext; large pieces are sealed at once.
pub(super) fn write(wire: &mut Wire, io: &mut Io, bytes: &[u8]) {
    if io.ending != Ending::Open {
        return;
    }
    match wire {
        Wire::Tls(session) if bytes.len() >= SEAL_DIRECTLY => {
            let gathered = std::mem::take(&mut io.plain);
            if !gathered.is_empty() {
                io.broken |= session.send(&gathered, &mut io.sealed).is_err();
            }
            io.broken |= session.send(bytes, &mut io.sealed).is_err();
        }
        Wire::Tls(_) | Wire::Plain => io.plain.extend_from_slice(bytes),
    }
}

/// Hands over what was written in this turn, and the end of our direction if it was asked for.
pub(super) fn flush(wire: &mut Wire, io: &mut Io, actions: &mut VecDeque<Action>) {
    match io.ending {
        Ending::Open | Ending::Finishing => {}
        // What a TLS endpoint says by itself behind our end, say an alert, has no place in the stream any more.
        Ending::Finished => {
            io.plain = Buf::default();
            io.sealed = Buf::default();
            return;
        }
        Ending::Reset => return,
    }
    match wire {
        Wire::Plain => {
            let plain = std::mem::take(&mut io.plain);
            if !plain.is_empty() {
                io.send(plain, actions);
            }
        }
        Wire::Tls(session) => {
            let plain = std::mem::take(&mut io.plain);
            if !plain.is_empty() {
                io.broken |= session.send(&plain, &mut io.sealed).is_err();
            }
            if io.broken {
                return io.reset(actions);
            }
            if io.ending == Ending::Finishing {
                session.finish(&mut io.sealed);
            }
            let sealed = std::mem::take(&mut io.sealed);
            if !sealed.is_empty() {
                io.send(sealed, actions);
            }
        }
    }
    if io.ending == Ending::Finishing {
        io.ending = Ending::Finished;
        actions.push_back(Action::Link(io.id, LinkCommand::Finish));
    }
}
