//! One request and its answer, or one opaque connection: what is known of it from the first byte to its record.

use std::net::SocketAddr;

use super::downstream::Facts;
use super::http::server_name;
use super::link::{Io, write};
use super::upstream::Upstream;
use super::world::{Place, PoolId, Target};
use super::{Action, Shared};
use crate::clock::{Instant, Now};
use crate::decide::{Greeting, Permit};
use crate::http::h1::{ResponseTo, encode};
use crate::http::reply::LocalReply;
use crate::id::{LinkId, Table};
use crate::link::Buf;
use crate::telemetry::Record;
use crate::telemetry::record::Flags;

pub(super) type Upstreams = Table<LinkId, Box<Upstream>>;

/// How far an exchange has come. Moved by value.
#[derive(Debug)]
pub(super) enum Stage {
    /// An upstream link is being opened; what is to be sent waits here.
    Connecting {
        right: Right,
        upstream: LinkId,
        /// Where it was tried before.
        tried: Vec<PoolId>,
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

/// One request and its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) stage: Stage,
    pub(super) account: Account,
    pub(super) request: RequestBody,
    pub(super) response: Response,
    pub(super) to: ResponseTo,
    pub(super) words: Words,
    /// Where the request was allowed to go.
    pub(super) target: Option<Target>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestBody {
    Sized,
    Chunked,
    Done,
}

/// What the client understands if we answer ourselves (S-119).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    Http,
    Grpc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response {
    Awaited,
    Sized,
    Chunked,
    Done,
}

/// An answer of our own.
pub(super) struct Local<'a> {
    pub(super) status: u16,
    pub(super) body: &'a [u8],
    pub(super) details: String,
    pub(super) flags: Flags,
    pub(super) headers: Vec<(&'static str, Vec<u8>)>,
}

impl<'a> Local<'a> {
    pub(super) fn new(status: u16, body: &'a str, details: &str, flags: Flags) -> Self {
        Self {
            status,
            body: body.as_bytes(),
            details: details.to_owned(),
            flags,
            headers: Vec::new(),
        }
    }
}

impl Exchange {
    pub(super) fn new(account: Account, request: RequestBody, to: ResponseTo) -> Self {
        Self {
            stage: Stage::Answered,
            account,
            request,
            response: Response::Awaited,
            to,
            words: Words::Http,
            target: None,
        }
    }

    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.stage, Stage::Connecting { .. })
    }

    pub(super) fn has_parked_body(&self) -> bool {
        self.account.received > 0
    }

    /// Bytes of the request's body, on to the upstream.
    pub(super) fn forward(&mut self, data: &[u8], ups: &mut Upstreams) {
        self.account.received += data.len() as u64;
        let chunked = self.request == RequestBody::Chunked;
        match &mut self.stage {
            Stage::Connecting { parked, .. } => {
                if chunked {
                    encode::chunk_start(parked.storage(), data.len() as u64);
                }
                parked.extend_from_slice(data);
                if chunked {
                    parked.extend_from_slice(b"\r\n");
                }
            }
            Stage::Forwarding { upstream, .. } => {
                let Some(u) = ups.get_mut(*upstream) else {
                    return;
                };
                if chunked {
                    encode::chunk_start(u.io.plain().storage(), data.len() as u64);
                }
                write(&mut u.wire, &mut u.io, data);
                if chunked {
                    u.io.gather(b"\r\n");
                }
            }
            Stage::Answered => {}
        }
    }

    pub(super) fn end_of_request(&mut self, ups: &mut Upstreams) {
        if self.request == RequestBody::Chunked {
            match &mut self.stage {
                Stage::Connecting { parked, .. } => parked.extend_from_slice(b"0\r\n\r\n"),
                Stage::Forwarding { upstream, .. } => {
                    if let Some(u) = ups.get_mut(*upstream) {
                        u.io.gather(b"0\r\n\r\n");
                    }
                }
                Stage::Answered => {}
            }
        }
        self.request = RequestBody::Done;
    }

    /// The upstream link was in the middle of something: nobody else may use it.
    pub(super) fn drop_upstream(&mut self, ups: &mut Upstreams, shared: &mut Shared) {
        if let Some(u) = self.stage.upstream().and_then(|id| ups.get_mut(id)) {
            u.let_go(shared);
        }
        self.stage = Stage::Answered;
    }

    pub(super) fn reply(
        &mut self,
        local: Local<'_>,
        close: bool,
        io: &mut Io,
        facts: &Facts,
        shared: &mut Shared,
    ) {
        self.response = Response::Done;
        self.stage = Stage::Answered;
        let headers = local.headers.into_iter();
        let plain = LocalReply {
            headers: headers
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            close,
            ..LocalReply::new(local.status, local.body.to_vec())
        };
        let reply = match self.words {
            Words::Http => plain,
            Words::Grpc => plain.into_grpc(),
        };
        if self.to != ResponseTo::Head {
            self.account.sent += reply.body.len() as u64;
        }
        reply.write(
            io.plain().storage(),
            self.to,
            server_name(facts.route),
            shared.now.wall,
        );
        self.account.note(|r| {
            r.status = reply.status;
            r.flags = r.flags.with(local.flags);
            r.details = Some(local.details);
        });
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
                upstream_cluster: place.and_then(Place::cluster_name).map(str::to_owned),
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
