//! The smallest machine that keeps the contract: it forwards opaque bytes to one address, with half-close, back pressure
//! and resets. A ruler for the world that is independent of the real proxy.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use meshward_core::clock::{Deadline, Now};
use meshward_core::id::LinkId;
use meshward_core::limits;
use meshward_core::link::{CloseCause, LinkCommand, LinkEvent};
use meshward_core::machine::Machine;
use meshward_core::proxy::{Action, Input};

#[derive(Debug)]
struct Side {
    other: LinkId,
    open: bool,
    granted: bool,
    eof: bool,
    unacked: usize,
    closed: bool,
    /// Bytes that wait for this link to open.
    parked: Vec<u8>,
    finish_when_open: bool,
}

#[derive(Debug)]
pub(crate) struct Toy {
    upstream: SocketAddr,
    sides: BTreeMap<LinkId, Side>,
    opened: u32,
    actions: VecDeque<Action>,
}

impl Toy {
    pub(crate) fn new(upstream: SocketAddr) -> Self {
        Self {
            upstream,
            sides: BTreeMap::new(),
            opened: 0,
            actions: VecDeque::new(),
        }
    }

    fn say(&mut self, id: LinkId, command: LinkCommand) {
        self.actions.push_back(Action::Link(id, command));
    }

    /// Reads from `id` while the other side takes bytes.
    fn grant(&mut self, id: LinkId) {
        let Some(side) = self.sides.get(&id) else {
            return;
        };
        let taking = self.sides.get(&side.other).is_some_and(|other| {
            !other.closed && other.parked.is_empty() && other.unacked < limits::UNACKED_MAX
        });
        let side = self.sides.get_mut(&id).expect("looked up above");
        if side.open && !side.granted && !side.eof && !side.closed && taking {
            side.granted = true;
            let at_most = limits::READ_HEAD;
            self.say(id, LinkCommand::Read { at_most });
        }
    }

    fn send(&mut self, id: LinkId, bytes: meshward_core::link::Buf) {
        let Some(side) = self.sides.get_mut(&id).filter(|s| !s.closed) else {
            return;
        };
        if !side.open {
            side.parked.extend_from_slice(&bytes);
            return;
        }
        side.unacked += bytes.len();
        self.say(id, LinkCommand::Send { bytes, ack: true });
    }

    fn on(&mut self, id: LinkId, event: LinkEvent) {
        if let LinkEvent::Accepted { .. } = event {
            let up = LinkId::opened(self.opened, 1);
            self.opened += 1;
            for (me, other, open) in [(id, up, true), (up, id, false)] {
                let side = Side {
                    other,
                    open,
                    granted: false,
                    eof: false,
                    unacked: 0,
                    closed: false,
                    parked: Vec::new(),
                    finish_when_open: false,
                };
                self.sides.insert(me, side);
            }
            let to = self.upstream;
            self.say(up, LinkCommand::Connect { to, from: None });
            self.grant(id);
            return;
        }
        let Some(side) = self.sides.get_mut(&id) else {
            return;
        };
        let other = side.other;
        match event {
            LinkEvent::Accepted { .. } => {}
            LinkEvent::Connected { .. } => {
                side.open = true;
                let parked = std::mem::take(&mut side.parked);
                let finish = side.finish_when_open;
                if !parked.is_empty() {
                    self.send(id, parked.into());
                }
                if finish {
                    self.say(id, LinkCommand::Finish);
                }
            }
            LinkEvent::Received(bytes) => {
                side.granted = false;
                self.send(other, bytes);
            }
            LinkEvent::Sent(n) => side.unacked -= n,
            LinkEvent::Eof => {
                side.granted = false;
                side.eof = true;
                if let Some(o) = self.sides.get_mut(&other).filter(|o| !o.closed) {
                    if o.open {
                        self.say(other, LinkCommand::Finish);
                    } else {
                        o.finish_when_open = true;
                    }
                }
            }
            LinkEvent::Closed(cause) => {
                side.closed = true;
                if let Some(o) = self.sides.get_mut(&other).filter(|o| !o.closed) {
                    if cause != CloseCause::Finished {
                        o.closed = true;
                        self.say(other, LinkCommand::Reset);
                    }
                    // `Closed` of the other side will come.
                } else {
                    self.sides.remove(&other);
                    self.sides.remove(&id);
                }
            }
        }
        self.grant(id);
        self.grant(other);
    }
}

impl Machine for Toy {
    type Input = Input;
    type Action = Action;

    fn handle(&mut self, input: Input, _now: Now) {
        if let Input::Link(id, event) = input {
            self.on(id, event);
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        None
    }
}
