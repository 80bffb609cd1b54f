//! What a script tells a machine.

use std::sync::Arc;
use std::time::Duration;

use meshward_core::clock;
use meshward_core::link::{Buf, CloseCause, Entry, LinkEvent};
use meshward_core::proxy::Input;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use crate::MeshwardError;
use crate::convert::{Address, LinkId, Named};
use crate::plain::plain;
use crate::snapshot::Snapshot;
use crate::svid::Svid;

plain! {
    /// Somebody connected. `peer` is its address, `original_dst` the address that it meant.
    Accepted { link: LinkId, entry: Named<Entry>, peer: Address, original_dst: Address }
}

plain! {
    /// What a `Connect` asked for succeeded; `local` is our end.
    Connected { link: LinkId, local: Address }
}

plain! {
    /// Spends the grant of one `Read`: at least one byte, at most as many as were granted.
    Received { link: LinkId, data: PyBackedBytes }
}

plain! {
    /// So many bytes were taken since the last `Sent`; comes after a `Send` that asked for it.
    Sent { link: LinkId, count: usize }
}

plain! {
    /// The peer finished its direction. Spends the grant as `Received` does.
    Eof { link: LinkId }
}

plain! {
    /// Always the last event of a link, exactly once, whoever caused it.
    Closed { link: LinkId, cause: Named<CloseCause> }
}

plain! {
    /// Finish what is open and take no new requests; what is left after `grace_s` seconds is reset.
    Drain { grace_s: f64 }
}

plain! {
    /// Time went on.
    Tick {}
}

/// Any of the classes above, an identity, or a snapshot.
#[derive(FromPyObject)]
pub(crate) enum Event<'py> {
    Received(Bound<'py, Received>),
    Sent(Bound<'py, Sent>),
    Tick(#[expect(dead_code, reason = "a Tick has no fields")] Bound<'py, Tick>),
    Accepted(Bound<'py, Accepted>),
    Connected(Bound<'py, Connected>),
    Eof(Bound<'py, Eof>),
    Closed(Bound<'py, Closed>),
    Svid(Bound<'py, Svid>),
    Snapshot(Bound<'py, Snapshot>),
    Drain(Bound<'py, Drain>),
}

impl Event<'_> {
    /// `now` is for what has to be valid at this time.
    pub(crate) fn into_input(self, now: clock::Now) -> PyResult<Input> {
        let link = |link: LinkId, event| Ok(Input::Link(link.0, event));
        match self {
            Self::Received(event) => {
                let Received { link: id, data } = event.get();
                if data.is_empty() {
                    return Err(MeshwardError::new_err(
                        "nothing was received\n  hint: the end of the peer's direction is an Eof",
                    ));
                }
                link(*id, LinkEvent::Received(Buf::from(&**data)))
            }
            Self::Sent(event) => {
                let Sent { link: id, count } = event.get();
                link(*id, LinkEvent::Sent(*count))
            }
            Self::Tick(_) => Ok(Input::Tick),
            Self::Accepted(event) => {
                let Accepted {
                    link: id,
                    entry,
                    peer,
                    original_dst,
                } = event.get();
                if !id.0.is_accepted() {
                    return Err(MeshwardError::new_err(format!(
                        "{:?} was opened by the machine\n  hint: name an accepted link with LinkId.accepted",
                        id.0
                    )));
                }
                link(
                    *id,
                    LinkEvent::Accepted {
                        entry: entry.0,
                        peer: peer.0,
                        original_dst: original_dst.0,
                    },
                )
            }
            Self::Connected(event) => {
                let Connected { link: id, local } = event.get();
                link(*id, LinkEvent::Connected { local: local.0 })
            }
            Self::Eof(event) => link(event.get().link, LinkEvent::Eof),
            Self::Closed(event) => {
                let Closed { link: id, cause } = event.get();
                link(*id, LinkEvent::Closed(cause.0))
            }
            Self::Svid(svid) => svid.get().load(now.wall).map(Input::Svid),
            Self::Snapshot(snapshot) => Ok(Input::Snapshot(Arc::clone(&snapshot.get().0))),
            Self::Drain(event) => {
                let grace_s = event.get().grace_s;
                let grace = Duration::try_from_secs_f64(grace_s).map_err(|e| {
                    MeshwardError::new_err(format!("a grace of {grace_s} s cannot be given: {e}"))
                })?;
                Ok(Input::Drain { grace })
            }
        }
    }
}
