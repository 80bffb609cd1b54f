//! The contract of `meshward_core::machine` as asserts around a machine.
//!
//! [`Checked`] is itself a machine: it passes everything through, and panics with a sentence when either side breaks a
//! promise. A broken promise is a bug of ours, whatever a peer did.

use std::collections::BTreeMap;

use meshward_core::clock::{Deadline, Instant, Now};
use meshward_core::id::LinkId;
use meshward_core::limits;
use meshward_core::link::{LinkCommand, LinkEvent};
use meshward_core::machine::Machine;
use meshward_core::proxy::{Action, Input};

/// Bytes that may be sent unheard of: the mark, and one read's worth that was under way when it was reached, sealed in
/// records of 16 KiB at 22 bytes each.
pub const UNACKED_WITH_ONE_BUFFER: usize =
    limits::UNACKED_MAX + limits::READ_BODY + 5 * 22 + limits::HEAD_MAX;

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    open: bool,
    grant: Option<usize>,
    unacked: usize,
    finished: bool,
    reset: bool,
    eof: bool,
}

/// What a machine did over its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub inputs: u64,
    pub actions: u64,
    pub links: u64,
    pub closed: u64,
    pub records: u64,
    /// Most bytes sent on one link without hearing of them.
    pub unacked_max: usize,
}

/// A machine whose every input and action is held against the contract.
#[derive(Debug)]
pub struct Checked<M> {
    machine: M,
    links: BTreeMap<LinkId, Link>,
    /// The newest generation of every slot that was ever given out: 0 for accepted, 1 for opened ones.
    generations: BTreeMap<(bool, u32), u32>,
    drained: bool,
    last: Instant,
    tally: Tally,
}

impl<M: Machine<Input = Input, Action = Action>> Checked<M> {
    pub fn new(machine: M) -> Self {
        Self {
            machine,
            links: BTreeMap::new(),
            generations: BTreeMap::new(),
            drained: true,
            last: Instant(0),
            tally: Tally::default(),
        }
    }

    pub fn machine(&self) -> &M {
        &self.machine
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Links that have not seen `Closed`.
    pub fn open_links(&self) -> usize {
        self.links.len()
    }

    fn hear(&mut self, id: LinkId, event: &LinkEvent) {
        if let LinkEvent::Accepted { .. } = event {
            assert!(id.is_accepted(), "{id:?}: a shell gives out odd ids");
            self.begin(id, true);
            return;
        }
        let link = self
            .links
            .get_mut(&id)
            .unwrap_or_else(|| panic!("{id:?}: an event after Closed, or before the link began"));
        match event {
            LinkEvent::Accepted { .. } => unreachable!("handled above"),
            LinkEvent::Connected { .. } => {
                assert!(!link.open, "{id:?}: connected twice");
                link.open = true;
            }
            LinkEvent::Received(bytes) => {
                let grant = link.grant.take();
                assert!(link.open, "{id:?}: bytes before the link was open");
                assert!(!link.eof, "{id:?}: bytes after Eof");
                assert!(!bytes.is_empty(), "{id:?}: an empty read");
                assert!(
                    grant.is_some_and(|g| bytes.len() <= g),
                    "{id:?}: more than was granted"
                );
            }
            LinkEvent::Eof => {
                assert!(
                    link.grant.take().is_some(),
                    "{id:?}: Eof that nobody asked for"
                );
                assert!(!link.eof, "{id:?}: Eof twice");
                link.eof = true;
            }
            LinkEvent::Sent(n) => {
                assert!(*n > 0, "{id:?}: nothing was sent");
                link.unacked = link
                    .unacked
                    .checked_sub(*n)
                    .unwrap_or_else(|| panic!("{id:?}: more acknowledged than was sent"));
            }
            LinkEvent::Closed(_) => {
                self.tally.closed += 1;
                self.links.remove(&id);
            }
        }
    }

    fn begin(&mut self, id: LinkId, open: bool) {
        self.tally.links += 1;
        let newest = self
            .generations
            .entry((id.is_accepted(), id.slot()))
            .or_default();
        assert!(
            id.generation() > *newest,
            "{id:?}: an id that was used before"
        );
        *newest = id.generation();
        let link = Link {
            open,
            ..Link::default()
        };
        assert!(
            self.links.insert(id, link).is_none(),
            "{id:?}: an id that is in use"
        );
    }

    fn say(&mut self, id: LinkId, command: &LinkCommand) {
        if let LinkCommand::Connect { .. } = command {
            assert!(!id.is_accepted(), "{id:?}: a machine gives out even ids");
            self.begin(id, false);
            return;
        }
        let link = self
            .links
            .get_mut(&id)
            .unwrap_or_else(|| panic!("{id:?}: {command:?} for a link that is dead"));
        assert!(!link.reset, "{id:?}: {command:?} after Reset");
        match command {
            LinkCommand::Connect { .. } => unreachable!("handled above"),
            LinkCommand::Read { at_most } => {
                assert!(*at_most > 0, "{id:?}: a grant of nothing");
                assert!(
                    link.grant.is_none(),
                    "{id:?}: a grant while one is outstanding"
                );
                assert!(!link.eof, "{id:?}: a grant after Eof");
                link.grant = Some(*at_most);
            }
            LinkCommand::Send { bytes, .. } => {
                assert!(!link.finished, "{id:?}: bytes after Finish");
                assert!(!bytes.is_empty(), "{id:?}: an empty write");
                link.unacked += bytes.len();
                assert!(
                    link.unacked <= UNACKED_WITH_ONE_BUFFER,
                    "{id:?}: {} bytes unheard of",
                    link.unacked
                );
                self.tally.unacked_max = self.tally.unacked_max.max(link.unacked);
            }
            LinkCommand::Finish => {
                assert!(!link.finished, "{id:?}: finished twice");
                link.finished = true;
            }
            LinkCommand::Reset => link.reset = true,
        }
    }
}

impl<M: Machine<Input = Input, Action = Action>> Machine for Checked<M> {
    type Input = Input;
    type Action = Action;

    fn handle(&mut self, input: Input, now: Now) {
        assert!(self.drained, "an input before the actions were drained");
        assert!(now.at >= self.last, "time ran backwards");
        self.last = now.at;
        self.drained = false;
        self.tally.inputs += 1;
        if let Input::Link(id, event) = &input {
            self.hear(*id, event);
        }
        self.machine.handle(input, now);
    }

    fn poll_action(&mut self) -> Option<Action> {
        let action = self.machine.poll_action();
        match &action {
            Some(Action::Link(id, command)) => self.say(*id, command),
            Some(Action::Report(_)) => self.tally.records += 1,
            Some(Action::Note(..)) => {}
            None => self.drained = true,
        }
        self.tally.actions += u64::from(action.is_some());
        action
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let deadline = self.machine.poll_timeout();
        if let Some(d) = deadline {
            assert!(
                d.at > self.last,
                "a deadline that is already due: {}",
                d.why
            );
        }
        deadline
    }
}
