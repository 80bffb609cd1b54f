//! One connection of a client: bytes, inside of as many sessions of TLS as it has.

use std::net::SocketAddr;

use meshward_core::id::LinkId;
use meshward_core::link::{Buf, CloseCause, LinkCommand, LinkEvent};

use super::client::{End, Journal, Tls};

/// What a party does with its links.
pub(super) type Out = Vec<(LinkId, LinkCommand)>;

/// As many bytes as anybody reads at once.
pub(super) const READ: LinkCommand = LinkCommand::Read { at_most: 32 * 1024 };

pub(super) fn send(link: LinkId, bytes: impl Into<Buf>, out: &mut Out) {
    let bytes = bytes.into();
    if !bytes.is_empty() {
        out.push((link, LinkCommand::Send { bytes, ack: false }));
    }
}

/// A client with one connection.
#[derive(Debug)]
pub(super) struct Caller {
    link: LinkId,
    /// The outermost first.
    sessions: Vec<Tls>,
    /// Said before there was a connection.
    waiting: Vec<u8>,
    pub(super) connected: bool,
    /// What the server said, without any TLS.
    pub(super) received: Vec<u8>,
    pub(super) end: Option<End>,
    /// What went over the wire, to the server and from it.
    pub(super) wire: [Vec<u8>; 2],
    finished: bool,
}

impl Caller {
    /// `sessions`: the outermost first.
    pub(super) fn new(sessions: Vec<Tls>) -> Self {
        Self {
            link: LinkId::opened(0, 1),
            sessions,
            waiting: Vec::new(),
            connected: false,
            received: Vec::new(),
            end: None,
            wire: Default::default(),
            finished: false,
        }
    }

    pub(super) fn connect(&self, to: SocketAddr, out: &mut Out) {
        let connect = LinkCommand::Connect { to, from: None };
        out.push((self.link, connect));
    }

    pub(super) fn say(&mut self, bytes: &[u8], out: &mut Out) {
        match self.sessions.last_mut() {
            Some(innermost) => innermost.say(bytes),
            None => self.waiting.extend_from_slice(bytes),
        }
        self.flush(out);
    }

    /// Says that nothing more comes.
    pub(super) fn finish(&mut self, out: &mut Out) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        for at in (0..self.sessions.len()).rev() {
            self.sessions[at].finish();
            self.flush(out);
        }
        out.push((self.link, LinkCommand::Finish));
    }

    /// What the innermost session saw; without any, what the connection did.
    pub(super) fn journal(&self) -> Journal {
        let mut journal = match self.sessions.last() {
            Some(session) => session.journal.clone(),
            None => Journal {
                heard: !self.received.is_empty(),
                ..Journal::default()
            },
        };
        journal.end = journal.end.or(self.end);
        journal
    }

    /// Nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.end.is_some() || self.sessions.iter().any(|s| s.journal.is_over())
    }

    /// The exit code of a curl; `None`: it would still wait. Of several sessions the outermost that is not established, or
    /// the innermost, says what came of the handshake.
    pub(super) fn curl_exit(&self, answered: bool) -> Option<u8> {
        if answered {
            return Some(0);
        }
        match (self.end, self.sessions.is_empty()) {
            (Some(End::Unconnected), _) => Some(7),
            (Some(End::Reset), true) => Some(56),
            (Some(End::Fin), true) if self.received.is_empty() => Some(52),
            // A partial file.
            (Some(End::Fin), true) => Some(18),
            (None, true) => None,
            (end, false) => {
                let over = |session: &&Tls| !session.journal.established;
                let session = self
                    .sessions
                    .iter()
                    .find(over)
                    .or_else(|| self.sessions.last())?;
                let mut journal = session.journal.clone();
                journal.end = journal.end.or(end);
                journal.curl_exit(false)
            }
        }
    }

    fn flush(&mut self, out: &mut Out) {
        if !self.connected {
            return;
        }
        let mut bytes = std::mem::take(&mut self.waiting);
        for session in self.sessions.iter_mut().rev() {
            if !bytes.is_empty() {
                session.say(&bytes);
            }
            bytes = session.wire();
        }
        self.wire[0].extend_from_slice(&bytes);
        send(self.link, bytes, out);
    }

    pub(super) fn on(&mut self, event: LinkEvent, out: &mut Out) {
        match event {
            LinkEvent::Accepted { .. } | LinkEvent::Sent(_) => {}
            LinkEvent::Connected { .. } => {
                self.connected = true;
                self.flush(out);
                out.push((self.link, READ));
            }
            LinkEvent::Received(bytes) => {
                let mut bytes = bytes.to_vec();
                self.wire[1].extend_from_slice(&bytes);
                for session in &mut self.sessions {
                    if !bytes.is_empty() {
                        session.hear(&bytes);
                    }
                    bytes = std::mem::take(&mut session.journal.plain);
                }
                self.received.extend_from_slice(&bytes);
                if !self.finished {
                    self.flush(out);
                }
                out.push((self.link, READ));
            }
            LinkEvent::Eof => {
                self.end.get_or_insert(End::Fin);
            }
            LinkEvent::Closed(cause) => {
                let end = match cause {
                    CloseCause::Finished | CloseCause::Local => End::Fin,
                    CloseCause::Reset => End::Reset,
                    CloseCause::Refused | CloseCause::Unreachable | CloseCause::TimedOut => {
                        End::Unconnected
                    }
                };
                self.end.get_or_insert(end);
            }
        }
    }
}
