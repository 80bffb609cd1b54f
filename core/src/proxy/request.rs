//! The beginning of a request: judged by the port that it came in by, given its target, and sent or parked.

use std::mem;
use std::sync::Arc;

use super::downstream::Facts;
use super::exchange::{Account, Exchange, Local, RequestBody, Right, Stage, Upstreams, Words};
use super::http::Life;
use super::link::Io;
use super::upstream::{Obtained, obtain};
use super::world::{Place, PoolId, Target};
use super::{Shared, rewrite, said};
use crate::accept::{Mode, PortKind};
use crate::decide::{self, Caller, Passage, Request, Verdict};
use crate::http::h1::ResponseTo;
use crate::http::head::{Framing, Known, RequestHead};
use crate::http::reply::is_grpc;
use crate::link::Buf;
use crate::rng::Rng;
use crate::route;
use crate::snapshot::Endpoints;
use crate::telemetry::record::{Flags, Record};
use crate::tls::ChainKind;

/// Judges a request and starts what follows. If the link is over then, the exchange is too.
pub(super) fn begin(
    head: &RequestHead<'_>,
    life: Life,
    io: &mut Io,
    facts: &Facts,
    ups: &mut Upstreams,
    shared: &mut Shared,
) -> (Box<Exchange>, Life) {
    shared.stats.requests += 1;
    let place = shared.world.place(facts.route);
    let mut account = Account::new(facts, place.as_ref(), shared.now);
    account.note(|r| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        r.method = Some(head.method.to_owned());
        r.protocol = Some("HTTP/1.1");
        r.authority = head.authority.map(text);
        r.forwarded_for = joined(head, Known::XForwardedFor).map(|v| text(&v));
        r.original_path = head
            .fields()
            .find(|f| f.known == Known::XEnvoyOriginalPath)
            .map(|f| text(f.value));
        r.user_agent = head
            .fields()
            .find(|f| f.known == Known::UserAgent)
            .map(|f| text(f.value));
        r.request_id = head
            .fields()
            .find(|f| f.known == Known::XRequestId)
            .map(|f| text(f.value));
        r.route = Some("default".into());
    });
    let request = match head.framing {
        Framing::Chunked => RequestBody::Chunked,
        Framing::None | Framing::Length(_) | Framing::UntilClose => RequestBody::Sized,
    };
    let to = if head.method == "HEAD" {
        ResponseTo::Head
    } else {
        ResponseTo::Other
    };
    let bodiless = matches!(head.framing, Framing::None | Framing::Length(0));
    let mut x = Box::new(Exchange::new(account, request, to));
    let mut content_types = head
        .fields()
        .filter(|f| f.name.eq_ignore_ascii_case(b"content-type"));
    if content_types.next().is_some_and(|f| is_grpc(f.value)) && content_types.next().is_none() {
        x.words = Words::Grpc;
    }
    let last = life != Life::KeptAlive || !head.keep_alive;
    // A local answer to a request whose body is still to come ends the link: the rest must not be read as a request, nor
    // waited for. Lingering takes what is on its way, so that the client sees the answer.
    let close = last || !bodiless;

    if place.as_ref().is_some_and(|place| !takes(place, facts)) {
        shared.stats.refused += 1;
        shared.note(io.id, "no filter chain takes the connection any more");
        x.account.note(|r| {
            r.path = Some(String::from_utf8_lossy(head.path).into_owned());
            r.flags = Flags::NR;
            r.details = Some("filter_chain_not_found".into());
        });
        io.reset(&mut shared.actions);
        return (x, Life::Over);
    }
    let refusal = match &place {
        None => Some(Local::new(404, "", "route_not_found", Flags::NR)),
        Some(_) if head.upgrade => Some(Local::new(403, "", "upgrade_failed", Flags::NONE)),
        Some(_) => None,
    };
    if let Some(local) = refusal {
        if let Some(place) = &place {
            // Where it would have gone.
            target(place, head, &mut x.account);
        }
        x.account.note(|r| {
            r.path = Some(String::from_utf8_lossy(head.path).into_owned());
            identify(r, &mut shared.rng);
        });
        x.reply(local, true, io, facts, shared);
        return (x, Life::Over);
    }
    let Some(place) = place else {
        return (x, Life::Over);
    };
    let after_reply = if close { Life::Over } else { Life::KeptAlive };
    let own = shared.world.svid.as_deref();
    let certificate = rewrite::client_certificate(head.lines(), facts, own);
    let lines = head.lines().certified(certificate.as_deref());
    let verdict = match &place {
        Place::Inbound(door) => {
            let mut audited = Vec::new();
            let verdict = said::inbound_request(
                &door.port,
                Caller {
                    principal: facts.principal(),
                    peer: facts.peer,
                    reached: facts.original_dst.ip(),
                    sni: facts.sni.as_deref(),
                },
                Request {
                    method: head.method,
                    path: head.path,
                    authority: head.authority.unwrap_or_default(),
                    fields: lines,
                },
                io.id,
                shared,
                &mut |policy| audited.push(policy.to_string()),
            );
            if !audited.is_empty() {
                x.account.note(|r| r.audit = audited);
            }
            verdict
        }
        Place::Outbound(port) => decide::outbound_request(port, head.path),
    };
    let (permit, Passage { path, effects }) = match verdict {
        Verdict::Allow(permit, passage) => (permit, passage),
        Verdict::Deny(denial, path) => {
            shared.stats.denied += 1;
            x.account.note(|r| {
                r.path = Some(String::from_utf8_lossy(&path).into_owned());
                // Envoy looks at the path before it gives an id, and asks for tokens and RBAC after it.
                if matches!(denial.status, 401 | 403) {
                    identify(r, &mut shared.rng);
                }
            });
            x.reply(
                Local {
                    headers: denial.headers,
                    ..Local::new(denial.status, &denial.body, &denial.details, Flags::NONE)
                },
                close,
                io,
                facts,
                shared,
            );
            return (x, after_reply);
        }
    };
    if head.expect_continue && !bodiless {
        io.gather(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    let mut encoded = mem::take(&mut shared.head);
    encoded.clear();
    let lines = decide::believed(lines, facts.certificate.is_some());
    let fields = effects.fields(lines);
    let passed = rewrite::Passed {
        head,
        path: &path,
        fields,
    };
    let fresh_id = rewrite::request(passed, &mut shared.rng, &mut encoded);
    x.account.note(|r| {
        r.path = Some(String::from_utf8_lossy(&path).into_owned());
        if let Some(id) = fresh_id {
            r.request_id = Some(String::from_utf8_lossy(&id).into_owned());
        }
    });
    let right = Right::Permit(permit);
    let target = target(&place, head, &mut x.account);
    let obtained =
        pool(&target, facts, &[], shared).and_then(|pool| obtain(&right, pool, io.id, ups, shared));
    x.target = Some(target);
    match obtained {
        Some(Obtained::Ready(id)) => {
            if let Some(u) = ups.get_mut(id) {
                u.io.gather(&encoded);
                u.receiver.expect_response(x.to);
                x.account.forwarded_at = Some(shared.now.at);
                x.account.upstream = Some(u.to);
                x.account.upstream_local = u.local;
            }
            x.stage = Stage::Forwarding {
                right,
                upstream: id,
            };
        }
        Some(Obtained::Opening(id)) => {
            if let Some(u) = ups.get_mut(id) {
                u.receiver.expect_response(x.to);
            }
            let parked = Buf::from(encoded.as_slice());
            x.stage = Stage::Connecting {
                right,
                upstream: id,
                tried: Vec::new(),
                parked,
            };
        }
        None => {
            let local = Local::new(503, "no healthy upstream", "no_healthy_upstream", Flags::UH);
            x.reply(local, close, io, facts, shared);
            shared.head = encoded;
            return (x, after_reply);
        }
    }
    shared.head = encoded;
    (x, if last { Life::Last } else { Life::KeptAlive })
}

/// An id for a request that is answered here, if it came without one (S-322): nobody gets it, but the log shows it.
fn identify(record: &mut Record, rng: &mut Rng) {
    if record.request_id.as_ref().is_none_or(String::is_empty) {
        record.request_id = Some(String::from_utf8_lossy(&rng.uuid()).into_owned());
    }
}

/// Where a request goes that is allowed to, and what its record says of that.
fn target(place: &Place, head: &RequestHead<'_>, account: &mut Account) -> Target {
    let Place::Outbound(port) = place else {
        return place.target();
    };
    let cluster = route::outbound(port, head.authority);
    account.note(|r| {
        r.upstream_cluster = Some(cluster.name.clone());
        if matches!(cluster.endpoints, Endpoints::OriginalDestination { .. })
            && !port.hosts.is_empty()
            && Arc::ptr_eq(cluster, &port.otherwise)
        {
            r.route = Some("allow_any".into());
        }
    });
    Target::Cluster(Arc::clone(cluster))
}

/// The pool for the next try of a request.
pub(super) fn pool(
    target: &Target,
    facts: &Facts,
    tried: &[PoolId],
    shared: &mut Shared,
) -> Option<PoolId> {
    shared.world.choose(
        target,
        ChainKind::Http,
        facts.original_dst,
        tried,
        &mut shared.balance,
    )
}

/// The port takes links of this kind now. A link may have come in under an earlier snapshot, and its next request must not
/// pass where a new link would be reset (S-25, S-28).
fn takes(place: &Place, facts: &Facts) -> bool {
    match place {
        Place::Inbound(door) => {
            let by_mode = match door.port.mode {
                Mode::Strict => facts.certificate.is_some(),
                Mode::Permissive => true,
                Mode::Disable => facts.certificate.is_none(),
            };
            by_mode && door.port.kind != PortKind::Tcp
        }
        Place::Outbound(port) => port.kind != PortKind::Tcp,
    }
}

/// All values of one field, joined by `,` as Envoy joins them.
fn joined(head: &RequestHead<'_>, known: Known) -> Option<Vec<u8>> {
    let mut all: Option<Vec<u8>> = None;
    for field in head.fields().filter(|f| f.known == known) {
        match &mut all {
            None => all = Some(field.value.to_vec()),
            Some(all) => {
                all.push(b',');
                all.extend_from_slice(field.value);
            }
        }
    }
    all
}
