//! One number for a whole run, and the run in words if somebody wants to read it.

use std::fmt;

use meshward_core::clock::Now;
use meshward_core::id::LinkId;
use meshward_core::link::{LinkCommand, LinkEvent};
use meshward_core::proxy::{Action, Input};

/// FNV-1a with 128 bits, over everything it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(u128);

impl Default for Hash {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Hash {
    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte))
                .wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }

    /// The lower half.
    pub fn low(&self) -> u64 {
        self.0 as u64
    }

    fn number(&mut self, n: u64) {
        self.write(&n.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.write(text.as_bytes());
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What all machines of a world heard and said, bytes included.
#[derive(Debug, Default)]
pub struct Trace {
    hash: Hash,
    lines: Lines,
}

/// What becomes of the words.
#[derive(Debug, Default)]
enum Lines {
    #[default]
    Unwritten,
    Kept(Vec<String>),
    Printed,
}

impl Trace {
    /// A trace that also keeps one line for each input and action.
    pub fn with_lines() -> Self {
        Self {
            hash: Hash::default(),
            lines: Lines::Kept(Vec::new()),
        }
    }

    /// A trace that prints each line at once, so that it is there when a machine panics.
    pub fn printed() -> Self {
        Self {
            hash: Hash::default(),
            lines: Lines::Printed,
        }
    }

    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The lines so far; empty unless they are kept.
    pub fn lines(&self) -> &[String] {
        match &self.lines {
            Lines::Kept(lines) => lines,
            Lines::Unwritten | Lines::Printed => &[],
        }
    }

    pub fn input(&mut self, process: usize, input: &Input, now: Now) {
        self.hash.number(process as u64);
        self.hash.number(now.at.0);
        self.hash.number(now.wall.0);
        match input {
            Input::Link(id, event) => {
                self.hash.write(b"L");
                self.hash.number(id.0);
                self.event(event);
            }
            Input::Snapshot(_) => self.hash.write(b"S"),
            Input::Svid(_) => self.hash.write(b"I"),
            Input::Drain { grace } => {
                self.hash.write(b"D");
                self.hash.number(grace.as_nanos() as u64);
            }
            Input::Levels(levels) => {
                self.hash.write(b"L");
                self.hash.text(&levels.to_string());
            }
            Input::Tick => self.hash.write(b"T"),
        }
        if !matches!(self.lines, Lines::Unwritten) {
            let what = match input {
                Input::Link(id, event) => format!("{id:?} {}", spell_event(event)),
                Input::Snapshot(_) => "snapshot".into(),
                Input::Svid(_) => "svid".into(),
                Input::Drain { grace } => format!("drain grace={grace:?}"),
                Input::Levels(_) => "levels".into(),
                Input::Tick => "tick".into(),
            };
            self.line(process, now, '<', &what);
        }
    }

    pub fn action(&mut self, process: usize, action: &Action, now: Now) {
        match action {
            Action::Link(id, command) => {
                self.hash.write(b"l");
                self.hash.number(id.0);
                self.command(command);
            }
            Action::Report(record) => {
                self.hash.write(b"r");
                self.hash.text(&format!("{record:?}"));
            }
            Action::Note(id, scope, what) => {
                self.hash.write(b"n");
                self.hash.number(id.0);
                self.hash.text(scope.name());
                self.hash.text(what);
            }
        }
        if !matches!(self.lines, Lines::Unwritten) {
            let what = match action {
                Action::Link(id, command) => spell_command(*id, command),
                Action::Report(r) => format!(
                    "report {} {:?} {}",
                    r.status,
                    r.flags,
                    r.details.as_deref().unwrap_or("-")
                ),
                Action::Note(id, scope, what) => format!("note {id:?} {}: {what}", scope.name()),
            };
            self.line(process, now, '>', &what);
        }
    }

    fn event(&mut self, event: &LinkEvent) {
        match event {
            LinkEvent::Accepted {
                entry,
                peer,
                original_dst,
            } => self
                .hash
                .text(&format!("accepted {entry:?} {peer} {original_dst}")),
            LinkEvent::Connected { local } => self.hash.text(&format!("connected {local}")),
            LinkEvent::Received(bytes) => {
                self.hash.write(b"r");
                self.hash.number(bytes.len() as u64);
                self.hash.write(bytes);
            }
            LinkEvent::Sent(n) => {
                self.hash.write(b"s");
                self.hash.number(*n as u64);
            }
            LinkEvent::Eof => self.hash.write(b"e"),
            LinkEvent::Closed(cause) => self.hash.text(&format!("closed {cause:?}")),
        }
    }

    fn command(&mut self, command: &LinkCommand) {
        match command {
            LinkCommand::Connect { to, from } => {
                self.hash.text(&format!("connect {to} {from:?}"));
            }
            LinkCommand::Read { at_most } => {
                self.hash.write(b"R");
                self.hash.number(*at_most as u64);
            }
            LinkCommand::Send { bytes, ack } => {
                self.hash.write(if *ack { b"A" } else { b"S" });
                self.hash.number(bytes.len() as u64);
                self.hash.write(bytes);
            }
            LinkCommand::Finish => self.hash.write(b"F"),
            LinkCommand::Reset => self.hash.write(b"X"),
        }
    }

    fn line(&mut self, process: usize, now: Now, arrow: char, what: &str) {
        let (ms, us) = (now.at.0 / 1_000_000, now.at.0 / 1000 % 1000);
        let line = format!("{ms}.{us:03}ms p{process} {arrow} {what}");
        match &mut self.lines {
            Lines::Unwritten => {}
            Lines::Kept(lines) => lines.push(line),
            Lines::Printed => println!("{line}"),
        }
    }
}

fn spell_event(event: &LinkEvent) -> String {
    match event {
        LinkEvent::Accepted {
            entry,
            peer,
            original_dst,
        } => {
            let entry = format!("{entry:?}").to_lowercase();
            format!("accepted {entry} from {peer} to {original_dst}")
        }
        LinkEvent::Connected { local } => format!("connected from {local}"),
        LinkEvent::Received(bytes) => format!("received {} bytes", bytes.len()),
        LinkEvent::Sent(n) => format!("sent {n} bytes"),
        LinkEvent::Eof => "eof".into(),
        LinkEvent::Closed(cause) => format!("closed {cause:?}").to_lowercase(),
    }
}

fn spell_command(id: LinkId, command: &LinkCommand) -> String {
    match command {
        LinkCommand::Connect { to, .. } => format!("{id:?} connect {to}"),
        LinkCommand::Read { at_most } => format!("{id:?} read {at_most}"),
        LinkCommand::Send { bytes, ack } => {
            let ack = if *ack { " ack" } else { "" };
            format!("{id:?} send {} bytes{ack}", bytes.len())
        }
        LinkCommand::Finish => format!("{id:?} finish"),
        LinkCommand::Reset => format!("{id:?} reset"),
    }
}

#[cfg(test)]
mod tests {
    use super::Hash;

    /// Vectors of the FNV reference: the empty string and "a".
    #[test]
    fn the_hash_is_fnv_1a_with_128_bits() {
        let mut hash = Hash::default();
        assert_eq!(hash.to_string(), "6c62272e07bb014262b821756295c58d");
        hash.write(b"a");
        assert_eq!(hash.to_string(), "d228cb696f1a8caf78912b704e4a8964");
    }
}
