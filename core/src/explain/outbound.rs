//! The way out of the client: which door, which cluster, which endpoints, and how they are spoken to.

use std::net::SocketAddr;

use super::account::{Log, Outbound, Protection};
use super::inbound::Fate;
use super::{Question, called, place, read};
use crate::accept::{self, Accept, FirstBytes, PortKind, first_plain_kind};
use crate::api::meta::Origin;
use crate::api::peer_authentication::PeerAuthentication;
use crate::control::mesh::{Arrival, PodFacts, ServiceFacts, ServicePortFacts};
use crate::control::plane::{Plane, SnapshotError, Wiring};
use crate::decide::{self, Verdict};
use crate::http::reply::{is_grpc, reason};
use crate::proxy::forwarded;
use crate::route;
use crate::snapshot::mtls::{Plain, deciding, deciding_namespace};
use crate::snapshot::select::Workload;
use crate::snapshot::{ClientTls, Cluster, Endpoints, OutboundPort};
use crate::telemetry::record::Flags;
use crate::tls::ChainKind;

/// The first hop, and what follows from it.
pub(super) struct Leaving {
    pub(super) outbound: Outbound,
    pub(super) departure: Departure,
}

pub(super) enum Departure {
    /// To the first of these, or to another one.
    To {
        ways: Vec<Way>,
        /// The head as the server's side gets it.
        head: Vec<u8>,
        /// The client's sidecar reads it as HTTP. `None`: it has none.
        as_http: Option<bool>,
    },
    /// The client's sidecar answers.
    Answered { status: u16, summary: String },
    /// It resets the connection.
    Reset { summary: String },
    /// The connection is refused before anything is sent.
    Refused { summary: String },
}

/// An endpoint and how it is spoken to.
pub(super) struct Way {
    pub(super) to: SocketAddr,
    /// Mutual TLS, with what its client says.
    pub(super) tls: Option<(ClientTls, ChainKind)>,
}

pub(super) fn depart(
    plane: &mut Plane,
    client: &PodFacts,
    meant: SocketAddr,
    question: &Question,
) -> Result<Leaving, SnapshotError> {
    let mesh = std::sync::Arc::clone(plane.mesh());
    let mut outbound = Outbound {
        meant: meant.to_string(),
        ..Outbound::default()
    };
    let refused = |outbound: Outbound, summary: String| Leaving {
        outbound,
        departure: Departure::Refused { summary },
    };
    let direct = match mesh.arrival(meant) {
        Arrival::Nowhere => return Ok(refused(outbound, "nobody has the address".into())),
        Arrival::NoPort(service) => {
            let ports: Vec<String> = service.ports.iter().map(|p| p.port.to_string()).collect();
            let summary = format!(
                "service {}/{} has no port {}; it has {}",
                service.namespace,
                service.name,
                meant.port(),
                ports.join(", ")
            );
            return Ok(refused(outbound, summary));
        }
        Arrival::There => vec![meant],
        Arrival::Endpoints(service, port) => {
            outbound.service = Some(format!(
                "{}/{}:{}",
                service.namespace, service.name, port.port
            ));
            port.endpoints.iter().map(|e| e.address).collect()
        }
    };
    if client.sidecar {
        return through_sidecar(plane, client, meant, question, outbound);
    }
    let Some(first) = direct.first() else {
        return Ok(refused(outbound, "the service has no endpoint".into()));
    };
    outbound.endpoint = Some(first.to_string());
    outbound.endpoints = direct.len();
    outbound.protection = Some(Protection::plain("the client has no sidecar".into(), None));
    let ways = direct.into_iter().map(|to| Way { to, tls: None });
    Ok(Leaving {
        outbound,
        departure: Departure::To {
            ways: ways.collect(),
            head: question.head(),
            as_http: None,
        },
    })
}

fn through_sidecar(
    plane: &mut Plane,
    client: &PodFacts,
    meant: SocketAddr,
    question: &Question,
    mut outbound: Outbound,
) -> Result<Leaving, SnapshotError> {
    let snapshot = plane.snapshot(&client.key(), &Wiring::default())?;
    let answered = |mut outbound: Outbound, status: u16, details: &str, flags, summary: &str| {
        let log = Log {
            cluster: outbound.cluster.clone(),
            ..Log::new(status, flags, details)
        };
        outbound.log = Some(log);
        let summary = summary.to_owned();
        let departure = match status {
            0 => Departure::Reset { summary },
            _ => Departure::Answered { status, summary },
        };
        Leaving {
            outbound,
            departure,
        }
    };
    let Some(door) = snapshot.outbound.door(meant) else {
        let summary = "no listener of the client's sidecar takes the call";
        let flags = Flags::NR;
        return Ok(answered(
            outbound,
            0,
            "filter_chain_not_found",
            flags,
            summary,
        ));
    };
    outbound.door = Some(name_of(door, &snapshot.outbound, meant));
    let head = question.head();
    let as_http = match door.kind {
        PortKind::Http => true,
        PortKind::Tcp => false,
        PortKind::Auto => {
            let first = FirstBytes::Plain(first_plain_kind(&head));
            accept::outbound(first) == Accept::Http
        }
    };
    let (cluster, head) = if as_http {
        let routed = read(&head, |head| {
            let cluster = route::outbound(door, head.authority).clone();
            if head.upgrade {
                return Err((403, "upgrade_failed".to_owned(), cluster, None));
            }
            match decide::outbound_request(door, head.path) {
                Verdict::Allow(_, passage) => {
                    let bytes = forwarded(head, &passage.path);
                    Ok((cluster, bytes, passage.path.into_owned()))
                }
                Verdict::Deny(denial, path) => {
                    let grpc = answers_grpc(head);
                    let status = if grpc { 200 } else { denial.status };
                    Err((status, denial.details, cluster, Some(path.into_owned())))
                }
            }
        });
        match routed {
            Err(violation) => {
                let words = format!("{}: {}", reason(violation.status), violation.what);
                let (status, details) = (violation.status, violation.details);
                return Ok(answered(outbound, status, details, Flags::DPE, &words));
            }
            Ok(Err((status, details, cluster, path))) => {
                outbound.path = path.map(|path| path.escape_ascii().to_string());
                outbound.cluster = Some(cluster.name.clone());
                let summary = format!("the client's sidecar does not send it: {details}");
                return Ok(answered(outbound, status, &details, Flags::NONE, &summary));
            }
            Ok(Ok((cluster, bytes, path))) => {
                outbound.path = Some(path.escape_ascii().to_string());
                (cluster, bytes)
            }
        }
    } else {
        let _ = decide::outbound_connection(door);
        (door.otherwise.clone(), head)
    };
    outbound.cluster = Some(cluster.name.clone());
    let kind = if as_http {
        ChainKind::Http
    } else {
        ChainKind::Tcp
    };
    let ways = ways(&cluster, meant, kind);
    let Some(first) = ways.first() else {
        let (flags, details) = (Flags::UH, "no_healthy_upstream");
        return Ok(if as_http {
            let words = "no healthy upstream: the service has no endpoint";
            answered(outbound, 503, details, flags, words)
        } else {
            answered(outbound, 0, "", flags, "the service has no endpoint")
        });
    };
    outbound.endpoint = Some(first.to.to_string());
    outbound.endpoints = ways.len();
    outbound.protection = Some(protection(plane, &cluster, first));
    Ok(Leaving {
        outbound,
        departure: Departure::To {
            ways,
            head,
            as_http: Some(as_http),
        },
    })
}

/// Whether the head asks for answers in the words of gRPC (S-119).
pub(super) fn answers_grpc(head: &crate::http::head::RequestHead<'_>) -> bool {
    let mut types = head
        .fields()
        .filter(|f| f.name.eq_ignore_ascii_case(b"content-type"));
    types.next().is_some_and(|f| is_grpc(f.value)) && types.next().is_none()
}

fn name_of(door: &OutboundPort, all: &crate::snapshot::Outbound, meant: SocketAddr) -> String {
    let is = |other: Option<&std::sync::Arc<OutboundPort>>| {
        other.is_some_and(|other| std::ptr::eq(other.as_ref(), door))
    };
    let kind = match door.kind {
        PortKind::Http => "HTTP",
        PortKind::Tcp => "TCP",
        PortKind::Auto => "HTTP or TCP",
    };
    if is(all.addresses.get(&meant)) {
        format!("{meant} {kind}")
    } else if is(all.ports.get(&meant.port())) {
        format!("0.0.0.0:{} {kind}", meant.port())
    } else {
        "passthrough, for what no service covers".to_owned()
    }
}

fn ways(cluster: &Cluster, meant: SocketAddr, kind: ChainKind) -> Vec<Way> {
    let way = |to, tls: Option<&std::sync::Arc<ClientTls>>| Way {
        to,
        tls: tls.map(|tls| (ClientTls::clone(tls), kind)),
    };
    match &cluster.endpoints {
        Endpoints::Known(endpoints) => endpoints
            .iter()
            .map(|endpoint| way(endpoint.address, endpoint.tls.as_ref()))
            .collect(),
        Endpoints::OriginalDestination { tls } => vec![way(meant, tls.as_ref())],
    }
}

impl Protection {
    fn plain(reason: String, origin: Option<&Origin>) -> Self {
        Self {
            mutual_tls: false,
            reason,
            origin: origin.map(place),
            sni: None,
            expects: Vec::new(),
        }
    }
}

/// How a client with a sidecar speaks to an endpoint, and why.
fn protection(plane: &Plane, cluster: &Cluster, way: &Way) -> Protection {
    let mesh = plane.mesh();
    let of = mesh.services().find_map(|service| {
        let ports = service.ports.iter();
        let named = |port: &&ServicePortFacts| {
            cluster.name == format!("outbound|{}||{}", port.port, service.fqdn())
        };
        ports.clone().find(named).map(|port| (service, port))
    });
    let Some((service, port)) = of else {
        let reason = "no service covers the address: the call goes on as it is";
        return Protection::plain(reason.into(), None);
    };
    if let Some((tls, _)) = &way.tls {
        return Protection {
            mutual_tls: true,
            reason: "the endpoint has a sidecar, and its port takes it (auto mTLS)".into(),
            origin: None,
            sni: Some(tls.sni.clone()),
            expects: tls.subject_alt_names.clone(),
        };
    }
    let endpoints = plane.auto_mtls(service, port);
    let mut fits = endpoints.iter().filter(|(address, _)| *address == way.to);
    let plain = fits.next().and_then(|(_, plain)| *plain);
    let (reason, origin) = plain_because(plane, service, way.to, plain.unwrap_or(Plain::Other));
    Protection::plain(reason, origin.as_ref())
}

fn plain_because(
    plane: &Plane,
    service: &ServiceFacts,
    to: SocketAddr,
    plain: Plain,
) -> (String, Option<Origin>) {
    let root = &plane.mesh_config().root_namespace;
    let policies: Vec<PeerAuthentication> = plane.store().peer_authentications().cloned().collect();
    let pod = plane.mesh().pod_at(to.ip());
    match plain {
        Plain::Off => ("enableAutoMtls of the mesh is off".into(), None),
        Plain::External => ("the service is outside of the mesh".into(), None),
        Plain::NamespaceDisabled => {
            let by = deciding_namespace(&policies, &service.namespace, root);
            let of = by.map_or_else(String::new, |by| format!(" of {}", name_of_policy(by)));
            let reason = format!("mode DISABLE{of} for namespace {}", service.namespace);
            (reason, by.map(|by| by.meta.origin.clone()))
        }
        Plain::NoTlsMode => {
            let who = pod.map_or_else(|| to.to_string(), called);
            (format!("{who} has no sidecar"), None)
        }
        Plain::Disabled => {
            let by = pod.and_then(|pod| {
                let workload = Workload {
                    namespace: pod.namespace.clone(),
                    labels: pod.labels.clone(),
                };
                deciding(&workload, &policies, root, to.port())
            });
            let of = by.map_or_else(String::new, |by| format!(" of {}", name_of_policy(by)));
            let reason = format!("mode DISABLE{of} at port {}", to.port());
            (reason, by.map(|by| by.meta.origin.clone()))
        }
        Plain::Other => (
            "another endpoint of the headless service takes no mutual TLS".into(),
            None,
        ),
    }
}

pub(super) fn name_of_policy(policy: &PeerAuthentication) -> String {
    let meta = &policy.meta;
    format!("PeerAuthentication {}/{}", meta.namespace, meta.name)
}

/// What the client's sidecar writes of a call that left.
pub(super) fn log(departure: &Departure, outbound: &Outbound, fate: &Fate) -> Option<Log> {
    let Departure::To { as_http, .. } = departure else {
        return outbound.log.clone();
    };
    let log = fate.client_log((*as_http)?);
    Some(Log {
        cluster: outbound.cluster.clone(),
        ..log
    })
}
