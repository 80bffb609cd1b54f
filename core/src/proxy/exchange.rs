//! One request and its answer, or one opaque connection: what is known of it from the first byte to its record.

use std::net::SocketAddr;

use super::downstream::Facts;
use super::world::Place;
use super::{Action, Shared};
use crate::clock::{Instant, Now};
use crate::decide::{Greeting, Permit};
use crate::id::LinkId;
use crate::link::Buf;
use crate::telemetry::Record;
use crate::telemetry::record::Flags;

/// How far an exchange has come. Moved by value.
#[derive(Debug)]
pub(super) enum Stage {
    /// An upstream link is being opened; what is to be sent waits here.
    Connecting {
        right: Right,
        upstream: LinkId,
        attempt: u32,
        parked: Buf,
    },
    /// Bytes flow.
    Forwarding { right: Right, upstream: LinkId },
    /// Answered, by the upstream or by ourselves; or refused.
    Answered,
}

/// By what right an upstream link is held.
#[derive(Debug)]
pub(super) enum Right {
    Permit(Permit),
    /// Opaque bytes that were not judged yet: the application may speak, the client may not (S-121).
    Greeting(Greeting),
}

impl Stage {
    pub(super) fn upstream(&self) -> Option<LinkId> {
        match self {
            Self::Connecting { upstream, .. } | Self::Forwarding { upstream, .. } => {
                Some(*upstream)
            }
            Self::Answered => None,
        }
    }
}

/// Facts that every exchange has, whatever its protocol.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) started: Now,
    pub(super) received: u64,
    pub(super) sent: u64,
    /// When the request was handed to the upstream.
    pub(super) forwarded_at: Option<Instant>,
    pub(super) upstream: Option<SocketAddr>,
    pub(super) upstream_local: Option<SocketAddr>,
    /// `None`: nobody wants a record.
    record: Option<Box<Record>>,
}

impl Account {
    pub(super) fn new(facts: &Facts, place: Option<&Place>, now: Now) -> Self {
        let record = place.is_none_or(Place::wants_records).then(|| {
            Box::new(Record {
                listener: place.map_or(u32::MAX, Place::listener),
                start: now.wall,
                upstream_cluster: place.map(|p| p.cluster_name().to_owned()),
                downstream_local: Some(facts.original_dst),
                downstream_remote: Some(facts.peer),
                requested_server_name: facts.sni.clone(),
                peer: facts.certificate.as_ref().map(|c| c.id.as_str().to_owned()),
                ..Record::default()
            })
        });
        Self {
            started: now,
            received: 0,
            sent: 0,
            forwarded_at: None,
            upstream: None,
            upstream_local: None,
            record,
        }
    }

    /// Lets `fill` write into the record, if one is wanted.
    pub(super) fn note(&mut self, fill: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            fill(record);
        }
    }

    pub(super) fn flag(&mut self, flags: Flags) {
        self.note(|r| r.flags = r.flags.with(flags));
    }

    /// The one place where records leave: the end of an exchange.
    pub(super) fn close(self, shared: &mut Shared) {
        let Some(mut record) = self.record else {
            return;
        };
        record.duration_ns =
            u64::try_from(shared.now.at.since(self.started.at).as_nanos()).unwrap_or(u64::MAX);
        record.bytes_received = self.received;
        record.bytes_sent = self.sent;
        record.upstream_host = self.upstream;
        record.upstream_local = self.upstream_local;
        shared.actions.push_back(Action::Report(record));
    }
}
