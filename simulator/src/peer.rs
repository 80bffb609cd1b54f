//! A scripted client or application: connections that are opened, written to and ended from outside, and a journal of
//! what came back.
//!
//! Everything that arrives is read at once unless the script pauses a connection. A [`Script`] may answer by itself; the
//! unit type never does.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use meshward_core::clock::{Instant, Now};
use meshward_core::id::LinkId;
use meshward_core::link::{Buf, CloseCause, LinkCommand, LinkEvent};

use crate::tls::{TlsClient, TlsEnd};
use crate::world::Peer;

/// How a connection ended, as the application sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The other side finished its direction (FIN, or close_notify first).
    Fin,
    Reset,
    Refused,
    Unreachable,
    TimedOut,
    /// A fatal TLS alert.
    Alert(u8),
    /// What came was no TLS.
    NotTls,
}

/// One connection of a scripted peer and its journal.
#[derive(Debug, Default)]
pub struct Conn {
    /// Everything that arrived, in plaintext.
    pub received: Vec<u8>,
    /// The first thing that ended it, if something did.
    pub ending: Option<Ending>,
    pub connected: bool,
    /// `Closed` was heard; nothing can be sent any more.
    pub closed: bool,
    pub accepted_from: Option<SocketAddr>,
    pub tls: Option<Box<TlsClient>>,
    /// Our direction is finished, or the connection is reset.
    pub finished: bool,
    /// We let go of it ourselves.
    pub reset: bool,
    /// Nothing is read until the script resumes.
    pub paused: bool,
    /// How much of `received` a script has dealt with; [`Hands::told`] moves it.
    pub told: usize,
    granted: bool,
    eof: bool,
    /// `finish` was asked for while the handshake was under way.
    finishing: bool,
}

impl Conn {
    fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
    }
}

/// What a peer does by itself.
pub trait Script {
    /// Something changed on `link`: bytes, an ending, a connection. `hands` acts on any connection of the peer.
    fn on_change(&mut self, _link: LinkId, _now: Now, _hands: &mut Hands) {}

    /// When [`Script::tick`] is wanted.
    fn due(&self) -> Option<Instant> {
        None
    }

    fn tick(&mut self, _now: Now, _hands: &mut Hands) {}
}

impl Script for () {}

/// The connections of a peer, and what can be done with them.
#[derive(Debug, Default)]
pub struct Hands {
    conns: BTreeMap<LinkId, Conn>,
    /// In the order in which they began.
    order: Vec<LinkId>,
    opened: u32,
    commands: Vec<(LinkId, LinkCommand)>,
}

/// Bytes of one read of a scripted peer.
const READ: usize = 32 * 1024;

impl Hands {
    pub fn open(
        &mut self,
        to: SocketAddr,
        from: Option<SocketAddr>,
        tls: Option<TlsClient>,
    ) -> LinkId {
        let id = LinkId::opened(self.opened, 1);
        self.opened += 1;
        let conn = Conn {
            tls: tls.map(Box::new),
            ..Conn::default()
        };
        self.begin(id, conn);
        self.commands.push((id, LinkCommand::Connect { to, from }));
        id
    }

    pub fn conn(&self, id: LinkId) -> &Conn {
        &self.conns[&id]
    }

    /// All connections in the order in which they began.
    pub fn conns(&self) -> impl Iterator<Item = (LinkId, &Conn)> {
        self.order.iter().map(|id| (*id, &self.conns[id]))
    }

    pub fn send(&mut self, id: LinkId, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if conn.closed || conn.finished {
            return;
        }
        match &mut conn.tls {
            Some(tls) => tls.send(bytes),
            None => {
                let send = LinkCommand::Send {
                    bytes: Buf::from(bytes),
                    ack: false,
                };
                self.commands.push((id, send));
            }
        }
        self.flush(id);
    }

    /// Finishes our direction after what was sent, with close_notify first where there is TLS. Waits for the handshake, since
    /// nothing can be sent before.
    pub fn finish(&mut self, id: LinkId) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if conn.closed || conn.finished {
            return;
        }
        if let Some(tls) = &mut conn.tls {
            if tls.is_handshaking() && conn.ending.is_none() {
                conn.finishing = true;
                return;
            }
            tls.finish();
        }
        self.flush(id);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.finished = true;
            self.commands.push((id, LinkCommand::Finish));
        }
    }

    pub fn reset(&mut self, id: LinkId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && !conn.closed
            && !conn.reset
        {
            conn.finished = true;
            conn.reset = true;
            self.commands.push((id, LinkCommand::Reset));
        }
    }

    pub fn pause(&mut self, id: LinkId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.paused = true;
        }
    }

    pub fn resume(&mut self, id: LinkId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.paused = false;
            self.grant(id);
        }
    }

    /// Everything that was received so far has been dealt with.
    pub fn told(&mut self, id: LinkId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.told = conn.received.len();
        }
    }

    fn begin(&mut self, id: LinkId, conn: Conn) {
        self.conns.insert(id, conn);
        self.order.push(id);
    }

    fn grant(&mut self, id: LinkId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.connected
            && !conn.granted
            && !conn.eof
            && !conn.closed
            && !conn.reset
            && !conn.paused
        {
            conn.granted = true;
            self.commands
                .push((id, LinkCommand::Read { at_most: READ }));
        }
    }

    fn flush(&mut self, id: LinkId) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let Some(tls) = conn.tls.as_mut().filter(|_| conn.connected) else {
            return;
        };
        let wire = tls.take_wire();
        if !wire.is_empty() && !conn.closed && !conn.finished {
            let bytes = Buf::from(wire);
            self.commands
                .push((id, LinkCommand::Send { bytes, ack: false }));
        }
    }

    fn on(&mut self, id: LinkId, event: LinkEvent) {
        if let LinkEvent::Accepted { peer, .. } = event {
            let conn = Conn {
                connected: true,
                accepted_from: Some(peer),
                ..Conn::default()
            };
            self.begin(id, conn);
            self.grant(id);
            return;
        }
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        match event {
            LinkEvent::Accepted { .. } | LinkEvent::Sent(_) => {}
            LinkEvent::Connected { .. } => conn.connected = true,
            LinkEvent::Received(bytes) => {
                conn.granted = false;
                match &mut conn.tls {
                    None => conn.received.extend_from_slice(&bytes),
                    Some(tls) => {
                        tls.receive(&bytes, &mut conn.received);
                        match tls.end() {
                            None => {}
                            Some(TlsEnd::Notified) => conn.end(Ending::Fin),
                            Some(TlsEnd::Alert(n)) => conn.end(Ending::Alert(n)),
                            Some(TlsEnd::Broken) => conn.end(Ending::NotTls),
                        }
                    }
                }
            }
            LinkEvent::Eof => {
                conn.granted = false;
                conn.eof = true;
                conn.end(Ending::Fin);
            }
            LinkEvent::Closed(cause) => {
                conn.closed = true;
                match cause {
                    CloseCause::Finished | CloseCause::Local => {}
                    CloseCause::Refused => conn.end(Ending::Refused),
                    CloseCause::Reset => conn.end(Ending::Reset),
                    CloseCause::Unreachable => conn.end(Ending::Unreachable),
                    CloseCause::TimedOut => conn.end(Ending::TimedOut),
                }
            }
        }
        self.flush(id);
        if self.conns.get(&id).is_some_and(|c| c.finishing) {
            self.finish(id);
        }
        self.grant(id);
    }
}

/// A peer: its connections and its script.
#[derive(Debug, Default)]
pub struct Speaker<S> {
    pub hands: Hands,
    pub script: S,
}

impl<S> Speaker<S> {
    pub fn new(script: S) -> Self {
        Self {
            hands: Hands::default(),
            script,
        }
    }

    /// Acts from outside: `world.poke(peer, |p, _, out| p.act(out, |hands| hands.open(…)))`.
    pub fn act<R>(
        &mut self,
        out: &mut Vec<(LinkId, LinkCommand)>,
        act: impl FnOnce(&mut Hands) -> R,
    ) -> R {
        let answer = act(&mut self.hands);
        out.append(&mut self.hands.commands);
        answer
    }
}

impl<S: Script> Peer for Speaker<S> {
    fn on(
        &mut self,
        link: LinkId,
        event: LinkEvent,
        now: Now,
        out: &mut Vec<(LinkId, LinkCommand)>,
    ) {
        self.hands.on(link, event);
        self.script.on_change(link, now, &mut self.hands);
        out.append(&mut self.hands.commands);
    }

    fn due(&self) -> Option<Instant> {
        self.script.due()
    }

    fn tick(&mut self, now: Now, out: &mut Vec<(LinkId, LinkCommand)>) {
        self.script.tick(now, &mut self.hands);
        out.append(&mut self.hands.commands);
    }
}
