//! The data plane of one workload identity on one shard.

use std::sync::Arc;
use std::time::Duration;

use crate::id::LinkId;
use crate::link::{LinkCommand, LinkEvent};
use crate::snapshot::Snapshot;
use crate::spiffe::Svid;
use crate::telemetry::Record;

/// What a shell tells a [`Proxy`].
#[derive(Debug)]
pub enum Input {
    /// Something happened to a link.
    Link(LinkId, LinkEvent),
    /// A new configuration. What was decided stays; new requests and links see this one.
    Snapshot(Arc<Snapshot>),
    /// A new certificate, key and trust bundle. Links that are open stay; new handshakes use it.
    Svid(Arc<Svid>),
    /// Finish what is open and take no new requests; what is left after `grace` is reset.
    Drain { grace: Duration },
    /// Time went on.
    Tick,
}

/// What a [`Proxy`] tells its shell.
#[derive(Debug)]
pub enum Action {
    /// Do something with a link.
    Link(LinkId, LinkCommand),
    /// A fact for the log.
    Report(Box<Record>),
}
