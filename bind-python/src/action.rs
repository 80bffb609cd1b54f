//! What a machine wants done.

use meshward_core::link::LinkCommand;
use meshward_core::proxy;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::convert::{Address, LinkId};
use crate::plain::plain;
use crate::report::Report;

plain! {
    /// Open this link to `to`, leaving from the address `from_` where that is not `None`. `Connected` or `Closed` follows.
    Connect { link: LinkId, to: Address, from_: Option<Address> }
}

plain! {
    /// Grants one `Received` of at most so many bytes, or one `Eof`. Nothing is read that was not asked for.
    Read { link: LinkId, at_most: usize }
}

plain! {
    /// Send these bytes. `ack`: answer with `Sent` when everything up to here was taken.
    Send { link: LinkId, data: PyBackedBytes, ack: bool }
}

plain! {
    /// Finish our direction after everything sent so far. When the peer has finished too, the link is `Closed`.
    Finish { link: LinkId }
}

plain! {
    /// Let go of the link now, both directions, unsent bytes lost. `Closed` will still come.
    Reset { link: LinkId }
}

plain! {
    /// Why this link ended before its time, in words.
    Note { link: LinkId, what: String }
}

/// Any of the classes above, or a report.
#[derive(IntoPyObject)]
pub(crate) enum Action {
    Connect(Connect),
    Read(Read),
    Send(Send),
    Finish(Finish),
    Reset(Reset),
    Report(Report),
    Note(Note),
}

impl Action {
    pub(crate) fn new(action: proxy::Action, py: Python<'_>) -> Self {
        let (id, command) = match action {
            proxy::Action::Report(record) => return Self::Report(Report(record)),
            proxy::Action::Note(id, _, what) => {
                let (link, what) = (LinkId(id), what.into_owned());
                return Self::Note(Note { link, what });
            }
            proxy::Action::Link(id, command) => (id, command),
        };
        let link = LinkId(id);
        match command {
            LinkCommand::Connect { to, from } => Self::Connect(Connect {
                link,
                to: Address(to),
                from_: from.map(Address),
            }),
            LinkCommand::Read { at_most } => Self::Read(Read { link, at_most }),
            LinkCommand::Send { bytes, ack } => Self::Send(Send {
                link,
                data: PyBytes::new(py, &bytes).into(),
                ack,
            }),
            LinkCommand::Finish => Self::Finish(Finish { link }),
            LinkCommand::Reset => Self::Reset(Reset { link }),
        }
    }
}
