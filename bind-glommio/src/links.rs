//! All links of one driver: their names in each proxy, and what completions and commands do to them.

use std::collections::VecDeque;
use std::io;

use meshward_core::id::{Key, LinkId, Table};
use meshward_core::link::{Buf, LinkCommand, LinkEvent};
use meshward_core::proxy::Input;
use socket2::Socket;

use crate::buffers::Buffers;
use crate::driver::{ProxyId, Stats};
use crate::link::{Events, Link};
use crate::ring::{Op, Parcel, Ring, Who};

#[derive(Default)]
pub(crate) struct Links {
    table: Table<Who, Link>,
    /// By proxy; made with its first link.
    names: Vec<Option<Box<Names>>>,
    /// Fed to machines in this order, before further completions are looked at.
    pub(crate) inputs: VecDeque<(ProxyId, Input)>,
    /// Links that were told to do something by the last input.
    touched: Vec<Who>,
    /// Links that found no buffer; they ask again in the next turn.
    starved: Vec<Who>,
    /// Links that did something since the last [`sweep`](Self::sweep).
    stirred: Vec<Who>,
    /// Links that waited with a large buffer at the last [`sweep`](Self::sweep).
    landing: Vec<(Who, Op)>,
    buffers: Buffers,
    pub(crate) stats: Stats,
    /// Completions of links and connections, to tell traffic from silence.
    pub(crate) traffic: u64,
}

/// The links of one proxy.
#[derive(Default)]
struct Names {
    accepted: Table<Door, Who>,
    opened: Table<LinkId, Who>,
}

/// The ids that a shell gives out: odd ones.
#[derive(Clone, Copy, Debug)]
struct Door(LinkId);

impl Key for Door {
    fn new(slot: u32, generation: u32) -> Self {
        Self(LinkId::accepted(slot, generation))
    }
    fn slot(self) -> u32 {
        self.0.slot()
    }
    fn generation(self) -> u32 {
        self.0.generation()
    }
}

impl Names {
    fn get(&self, id: LinkId) -> Option<Who> {
        if id.is_accepted() {
            self.accepted.get(Door(id)).copied()
        } else {
            self.opened.get(id).copied()
        }
    }

    fn remove(&mut self, id: LinkId) -> Option<Who> {
        if id.is_accepted() {
            self.accepted.remove(Door(id))
        } else {
            self.opened.remove_at(id)
        }
    }
}

impl Links {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn add_proxy(&mut self) {
        self.names.push(None);
    }

    pub(crate) fn remove_proxy(&mut self, proxy: ProxyId) {
        self.names[proxy.0 as usize] = None;
    }

    /// No link of `proxy` is open or being opened.
    pub(crate) fn has_none(&self, proxy: ProxyId) -> bool {
        self.names[proxy.0 as usize]
            .as_ref()
            .is_none_or(|names| names.accepted.is_empty() && names.opened.is_empty())
    }

    fn names(&mut self, proxy: ProxyId) -> &mut Names {
        self.names[proxy.0 as usize].get_or_insert_default()
    }

    /// Closes all sockets as they are. No operation of theirs may be under way.
    pub(crate) fn drop_all(&mut self) {
        self.table = Table::default();
        for names in &mut self.names {
            *names = None;
        }
    }

    pub(crate) fn add_accepted(&mut self, socket: Socket, proxy: ProxyId) -> LinkId {
        // The two tables name each other, so one is filled before the name is known.
        let Door(id) = self.names(proxy).accepted.insert(Who::new(0, 0));
        let who = self.table.insert(Link::accepted(socket, proxy, id));
        if let Some(name) = self.names(proxy).accepted.get_mut(Door(id)) {
            *name = who;
        }
        self.stir(who);
        id
    }

    /// Does what a machine wants. What comes of it waits in `inputs` until the machine is drained.
    pub(crate) fn obey(
        &mut self,
        ring: &mut Ring,
        proxy: ProxyId,
        id: LinkId,
        command: LinkCommand,
    ) {
        if let LinkCommand::Connect { to, from } = command {
            assert!(!id.is_accepted(), "a machine opens even links");
            self.stats.connects += 1;
            match Link::opened(to, from, proxy, id) {
                Ok(link) => {
                    let who = self.table.insert(link);
                    let new = self.names(proxy).opened.insert_at(id, who);
                    assert!(new, "a machine opens each link once");
                    if let Some(link) = self.table.get_mut(who) {
                        link.connect(ring, who, to);
                    }
                }
                Err(cause) => self.link_event(proxy, id, LinkEvent::Closed(cause)),
            }
            return;
        }
        let found = self.names[proxy.0 as usize]
            .as_ref()
            .and_then(|names| names.get(id))
            .and_then(|who| Some((who, self.table.get_mut(who)?)));
        let Some((who, link)) = found.filter(|(_, link)| link.ending.is_none()) else {
            self.stats.stale_commands += 1;
            return;
        };
        match command {
            LinkCommand::Read { at_most } => link.grant(at_most),
            LinkCommand::Send { bytes, ack } => link.send(bytes, ack, &mut self.buffers),
            LinkCommand::Finish => link.finish(),
            LinkCommand::Reset => {
                link.reset(ring);
                self.settle(who);
                return;
            }
            LinkCommand::Connect { .. } => return,
        }
        if !std::mem::replace(&mut link.touched, true) {
            self.touched.push(who);
        }
    }

    /// Starts what the last input asked for.
    pub(crate) fn drive_touched(&mut self, ring: &mut Ring) {
        let mut touched = std::mem::take(&mut self.touched);
        for who in touched.drain(..) {
            if let Some(link) = self.table.get_mut(who) {
                link.touched = false;
            }
            self.drive(ring, who);
        }
        self.touched = touched;
    }

    /// Asks again for links that found no buffer.
    pub(crate) fn drive_starved(&mut self, ring: &mut Ring) {
        for who in std::mem::take(&mut self.starved) {
            self.drive(ring, who);
        }
    }

    pub(crate) fn is_starved(&self) -> bool {
        !self.starved.is_empty()
    }

    /// Looks after links that were busy. Those with nothing under way get a watch, so that a reset by the peer is heard of;
    /// those that have waited with a large buffer since the last sweep go on waiting without.
    pub(crate) fn sweep(&mut self, ring: &mut Ring) {
        for (who, op) in std::mem::take(&mut self.landing) {
            if self.table.get(who).and_then(Link::landing) == Some(op) {
                ring.cancel(op);
            }
        }
        let mut stirred = std::mem::take(&mut self.stirred);
        for who in stirred.drain(..) {
            if let Some(link) = self.table.get_mut(who) {
                link.listed = false;
                link.watch(ring, who);
                self.landing.extend(link.landing().map(|op| (who, op)));
            }
            self.settle(who);
        }
        self.stirred = stirred;
    }

    pub(crate) fn received(
        &mut self,
        ring: &mut Ring,
        who: Who,
        done: io::Result<()>,
        bytes: Buf,
        dry: bool,
    ) {
        let again = self.with(who, |link, buffers, events| {
            link.received(ring, done, bytes, dry, buffers, events)
        });
        if again == Some(true) {
            self.starved.push(who);
        }
    }

    pub(crate) fn sent(
        &mut self,
        ring: &mut Ring,
        who: Who,
        sent: io::Result<usize>,
        parcel: Parcel,
    ) {
        self.with(who, |link, buffers, events| {
            link.sent(ring, sent, parcel, buffers, events);
            link.drive(ring, who, buffers, events);
        });
    }

    pub(crate) fn connected(&mut self, ring: &mut Ring, who: Who, done: io::Result<()>) {
        self.with(who, |link, buffers, events| {
            link.connected(ring, done, events);
            link.drive(ring, who, buffers, events);
        });
    }

    pub(crate) fn watched(&mut self, ring: &mut Ring, who: Who, broken: bool, last: bool) {
        self.with(who, |link, _, _| link.watched(ring, broken, last));
    }

    fn drive(&mut self, ring: &mut Ring, who: Who) {
        let Some(link) = self.table.get_mut(who) else {
            return;
        };
        let mut events = Events {
            proxy: link.proxy,
            id: link.id,
            inputs: &mut self.inputs,
        };
        link.drive(ring, who, &mut self.buffers, &mut events);
        self.settle(who);
    }

    /// What every completion of a link does beside its own business.
    fn with<T>(
        &mut self,
        who: Who,
        does: impl FnOnce(&mut Link, &mut Buffers, &mut Events<'_>) -> T,
    ) -> Option<T> {
        let link = self.table.get_mut(who)?;
        self.traffic += 1;
        let mut events = Events {
            proxy: link.proxy,
            id: link.id,
            inputs: &mut self.inputs,
        };
        let done = does(link, &mut self.buffers, &mut events);
        self.stir(who);
        self.settle(who);
        Some(done)
    }

    fn stir(&mut self, who: Who) {
        if let Some(link) = self.table.get_mut(who)
            && !std::mem::replace(&mut link.listed, true)
        {
            self.stirred.push(who);
        }
    }

    /// Closes the link if it has ended and owes nothing.
    fn settle(&mut self, who: Who) {
        let Some(link) = self.table.get(who) else {
            return;
        };
        let Some(cause) = link.ending.filter(|_| link.is_free()) else {
            return;
        };
        let (proxy, id) = (link.proxy, link.id);
        self.table.remove(who);
        self.names(proxy).remove(id);
        self.link_event(proxy, id, LinkEvent::Closed(cause));
    }

    pub(crate) fn link_event(&mut self, proxy: ProxyId, id: LinkId, event: LinkEvent) {
        self.inputs.push_back((proxy, Input::Link(id, event)));
    }
}

#[cfg(test)]
mod tests;
