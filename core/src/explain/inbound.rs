//! The way in to the server: what its sidecar makes of the first bytes, and what its rules say.

use super::account::{
    Authentication, By, Inbound, JwtRule, Log, Miss, Mode, RuleAccount, Sees, TokenFound,
};
use super::outbound::{Way, answers_grpc, name_of_policy};
use super::{Question, called, party, place, read};
use crate::accept::{self, Accept, FirstBytes, PortKind, first_plain_kind};
use crate::api::authorization_policy::Action;
use crate::api::peer_authentication::PeerAuthentication;
use crate::authn::status::Status;
use crate::authn::{self, Cache, End};
use crate::authz::explanation::{Explanation, Outcome, RuleTrace};
use crate::clock::UnixTime;
use crate::control::mesh::PodFacts;
use crate::control::plane::{Plane, SnapshotError, Wiring};
use crate::decide::{self, Caller, Request, Verdict};
use crate::http::reply::reason;
use crate::path;
use crate::snapshot::InboundPort;
use crate::snapshot::mtls::deciding;
use crate::snapshot::select::Workload;
use crate::telemetry::record::Flags;
use crate::telemetry::xfcc;
use crate::tls::client_alpn;

/// What became of it at the endpoint.
pub(super) enum Fate {
    /// The application gets it.
    Passes,
    /// The server's sidecar answers.
    Answered { status: u16, words: String },
    /// The connection is ended without a byte, after the TLS handshake if there is one.
    Reset { words: String },
    /// So is it, before the handshake is done.
    NoHandshake { words: String },
    /// Nobody listens.
    Refused { words: String },
    /// It does not come so far.
    Unreached,
}

/// `UF`: the reason is the transport's own words, which are not known here.
const NO_CONNECTION: &str = "upstream_reset_before_response_started{remote_connection_failure}";
const ENDED: &str = "upstream_reset_before_response_started{connection_termination}";

impl Fate {
    /// Status, who answers, and why, as the client sees it. `as_http`: how its sidecar reads it, if it has one.
    pub(super) fn seen(&self, as_http: Option<bool>) -> (u16, By, String) {
        let over_http = as_http == Some(true);
        match self {
            Self::Passes => (200, By::Application, "the application answers".into()),
            Self::Answered { status, words } => (*status, By::ServerSidecar, words.clone()),
            Self::Reset { words } | Self::NoHandshake { words } | Self::Refused { words }
                if over_http =>
            {
                (503, By::ClientSidecar, words.clone())
            }
            Self::Reset { words } | Self::NoHandshake { words } | Self::Refused { words } => {
                (0, By::Nobody, words.clone())
            }
            Self::Unreached => (0, By::Nobody, String::new()),
        }
    }

    /// What the client's sidecar writes (S-64).
    pub(super) fn client_log(&self, as_http: bool) -> Log {
        let no_connection = Flags::UF.with(Flags::URX);
        match (self, as_http) {
            (Self::Passes, true) => Log::new(200, Flags::NONE, "via_upstream"),
            (Self::Answered { status, .. }, true) => Log::new(*status, Flags::NONE, "via_upstream"),
            (Self::Reset { .. }, true) => Log::new(503, Flags::UC, ENDED),
            (Self::NoHandshake { .. } | Self::Refused { .. }, true) => {
                Log::new(503, no_connection, NO_CONNECTION)
            }
            (Self::Reset { .. }, false) => Log::new(0, Flags::UR, ""),
            (Self::NoHandshake { .. } | Self::Refused { .. }, false) => {
                Log::new(0, no_connection, "")
            }
            (Self::Passes | Self::Answered { .. }, false) | (Self::Unreached, _) => {
                Log::new(0, Flags::NONE, "")
            }
        }
    }
}

pub(super) fn inbound(
    plane: &mut Plane,
    client: &PodFacts,
    way: &Way,
    head: &[u8],
    question: &Question,
    now: UnixTime,
) -> Result<(Option<Inbound>, Fate), SnapshotError> {
    let mesh = std::sync::Arc::clone(plane.mesh());
    let Some(server) = mesh.pod_at(way.to.ip()) else {
        let words = format!("nobody of this mesh has the address {}", way.to.ip());
        return Ok((None, Fate::Refused { words }));
    };
    let number = way.to.port();
    let mut account = Inbound {
        server: party(plane, server),
        port: number,
        protocol: None,
        mode: None,
        accepts: None,
        sees: None,
        authentication: None,
        reason: None,
        rules: Vec::new(),
        log: None,
    };
    if server.ports.iter().all(|port| port.port != number) {
        let words = format!("{} does not listen on port {number}", called(server));
        return Ok((Some(account), Fate::Refused { words }));
    }
    if !server.sidecar {
        let fate = match way.tls {
            None => Fate::Passes,
            Some(_) => Fate::NoHandshake {
                words: format!("{} has no sidecar to take mutual TLS", called(server)),
            },
        };
        return Ok((Some(account), fate));
    }
    let wiring = Wiring {
        upstreams: server
            .ports
            .iter()
            .map(|port| (port.port, ([127, 0, 0, 1], port.port).into()))
            .collect(),
        first_listener: 0,
    };
    let snapshot = plane.snapshot(&server.key(), &wiring)?;
    let Some(port) = snapshot.inbound.get(&number) else {
        let words = format!("the sidecar of {} has no port {number}", called(server));
        return Ok((Some(account), Fate::Refused { words }));
    };
    account.protocol = Some(match port.kind {
        PortKind::Http => "http",
        PortKind::Tcp => "tcp",
        PortKind::Auto => "auto",
    });
    let mode = mode_of(plane, server, port);
    let first = match &way.tls {
        Some((_, kind)) => FirstBytes::tls(client_alpn(*kind).iter().copied()),
        None => FirstBytes::Plain(first_plain_kind(head)),
    };
    let accepted = accept::decide(port.mode, port.kind, first);
    account.accepts = Some(match accepted {
        Accept::Http => "plaintext, read as HTTP",
        Accept::Tcp => "plaintext, as opaque bytes",
        Accept::TerminateHttp => "mutual TLS, read as HTTP",
        Accept::TerminateTcp => "mutual TLS, as opaque bytes",
        Accept::PassThrough => "TLS of the application's own",
        Accept::Reset | Accept::NeedMore => "no filter chain takes it",
    });
    let identity = client_identity(plane, client, way);
    let caller = Caller {
        principal: identity.as_deref(),
        peer: (client.address, 0).into(),
        reached: way.to.ip(),
        sni: way.tls.as_ref().map(|(tls, _)| tls.sni.as_str()),
    };
    account.sees = Some(Sees {
        principal: identity.clone(),
        source_ip: client.address.to_string(),
        sni: caller.sni.map(str::to_owned),
        path: None,
    });
    let fate = match accepted {
        Accept::Http | Accept::TerminateHttp => {
            let certificate = told_certificate(plane, server, caller);
            let context = (question, now, certificate.as_deref());
            by_request(port, caller, head, context, &mut account)
        }
        Accept::Tcp | Accept::TerminateTcp | Accept::PassThrough => {
            by_connection(port, caller, question, &mut account)
        }
        Accept::Reset | Accept::NeedMore => {
            account.log = Some(Log::new(0, Flags::NR, "filter_chain_not_found"));
            let (what, who) = match way.tls {
                None => ("plaintext", "the client has no identity to show"),
                Some(_) => ("mutual TLS", "the client was not told"),
            };
            account.reason = Some(format!(
                "port {number} is {} by {}, and {who}",
                mode.mode, mode.reason
            ));
            let words = format!("the server's sidecar resets the connection: it takes no {what}");
            match way.tls {
                None => Fate::Reset { words },
                Some(_) => Fate::NoHandshake { words },
            }
        }
    };
    account.mode = Some(mode);
    Ok((Some(account), fate))
}

/// Without `spiffe://`, as rules write it; `None` on plaintext (S-126).
fn client_identity(plane: &Plane, client: &PodFacts, way: &Way) -> Option<String> {
    way.tls.as_ref()?;
    let id = plane.identity(&client.key())?;
    Some(id.principal().to_owned())
}

/// What the sidecar of `server` tells of the client's certificate (S-325), which was never made: its hash is zeros.
fn told_certificate(plane: &Plane, server: &PodFacts, caller: Caller<'_>) -> Option<Vec<u8>> {
    let uri = format!("spiffe://{}", caller.principal?);
    let own = plane.identity(&server.key())?;
    let mut value = Vec::new();
    xfcc::element(own.as_str(), &[0; 32], "", &uri, &[], &mut value);
    Some(value)
}

fn mode_of(plane: &Plane, server: &PodFacts, port: &InboundPort) -> Mode {
    let workload = Workload {
        namespace: server.namespace.clone(),
        labels: server.labels.clone(),
    };
    let policies: Vec<PeerAuthentication> = plane.store().peer_authentications().cloned().collect();
    let root = &plane.mesh_config().root_namespace;
    let by = deciding(&workload, &policies, root, port.port);
    let at_port = by.is_some_and(|by| by.port_level.contains_key(&port.port));
    let reason = by.map_or_else(
        || "default, as no PeerAuthentication says anything".to_owned(),
        |by| {
            let entry = if at_port { ", portLevelMtls" } else { "" };
            format!("{}{entry}", name_of_policy(by))
        },
    );
    Mode {
        mode: match port.mode {
            accept::Mode::Strict => "STRICT",
            accept::Mode::Permissive => "PERMISSIVE",
            accept::Mode::Disable => "DISABLE",
        },
        reason,
        origin: by.map(|by| place(&by.meta.origin)),
    }
}

fn by_request(
    port: &InboundPort,
    caller: Caller<'_>,
    head: &[u8],
    (question, now, certificate): (&Question, UnixTime, Option<&[u8]>),
    account: &mut Inbound,
) -> Fate {
    let judged = read(head, |head| {
        if head.upgrade {
            let words = "the sidecar takes no upgrade";
            return (403, words.to_owned(), "upgrade_failed".to_owned(), None);
        }
        let mut audited = Vec::new();
        let mut heard = decide::Explanation::default();
        let verdict = decide::inbound_request(
            port,
            caller,
            Request {
                method: head.method,
                path: head.path,
                authority: head.authority.unwrap_or_default(),
                fields: head.lines().certified(certificate),
            },
            now,
            &mut Cache::default(),
            &mut |policy| audited.push(policy.to_string()),
            &mut heard,
        );
        let (denial, path) = match verdict {
            Verdict::Allow(_, passage) => (None, passage.path),
            Verdict::Deny(denial, path) => (Some(denial), path),
        };
        if let Some(sees) = &mut account.sees {
            let path = path::without_query(&path);
            sees.path = Some(path.escape_ascii().to_string());
        }
        hear(account, &heard.authz, question);
        hear_tokens(account, &heard.authn);
        let grpc = answers_grpc(head);
        let (status, words, details) = match denial {
            None => (0, String::new(), String::new()),
            Some(denial) => {
                let words = match denial.body.as_ref() {
                    "" => reason(denial.status).to_owned(),
                    body => body.to_owned(),
                };
                let (status, words) = if grpc {
                    (200, format!("{words}, as gRPC says it (S-119)"))
                } else {
                    (denial.status, words)
                };
                (status, words, denial.details)
            }
        };
        (status, words, details, Some(audited))
    });
    let (status, words, details, audited) = match judged {
        Ok(judged) => judged,
        Err(violation) => {
            let log = Log::new(violation.status, Flags::DPE, violation.details);
            account.log = Some(log);
            let words = format!("{}: {}", reason(violation.status), violation.what);
            return match violation.status {
                0 => Fate::Reset { words },
                status => Fate::Answered { status, words },
            };
        }
    };
    let (status_shown, details) = match status {
        0 => (200, "via_upstream".to_owned()),
        status => (status, details),
    };
    account.log = Some(Log {
        cluster: Some(port.cluster.clone()),
        audit: audited.unwrap_or_default(),
        ..Log::new(status_shown, Flags::NONE, &details)
    });
    match status {
        0 => Fate::Passes,
        status => Fate::Answered { status, words },
    }
}

fn by_connection(
    port: &InboundPort,
    caller: Caller<'_>,
    question: &Question,
    account: &mut Inbound,
) -> Fate {
    let mut audited = Vec::new();
    let mut heard = Explanation::default();
    let verdict = decide::inbound_connection(
        port,
        caller,
        &mut |policy| audited.push(policy.to_string()),
        &mut heard,
    );
    hear(account, &heard, question);
    let denial = verdict.err();
    account.log = Some(Log {
        cluster: Some(port.cluster.clone()),
        audit: audited,
        termination: denial.as_ref().map(|denial| denial.details.clone()),
        ..Log::new(0, Flags::NONE, "")
    });
    match denial {
        None => Fate::Passes,
        Some(_) => Fate::Reset {
            words: "the server's sidecar closes the connection: access denied".into(),
        },
    }
}

/// Takes over what the rules said.
fn hear(account: &mut Inbound, heard: &Explanation, question: &Question) {
    let secrets = question.secrets();
    let decided = match &heard.outcome {
        Outcome::Allowed(policy) | Outcome::Denied(policy) => policy.as_ref(),
        Outcome::Undecided => None,
    };
    let asked = heard.rules.iter();
    account.rules = asked
        .map(|rule| RuleAccount {
            action: match rule.action {
                Action::Allow => "ALLOW",
                Action::Audit => "AUDIT",
                Action::Custom => "CUSTOM",
                Action::Deny => "DENY",
            },
            id: rule.id.to_string(),
            origin: place(rule.id.origin()),
            matched: rule.matched,
            decided: decided == Some(&rule.id),
            void: rule.void.clone(),
            misses: misses(rule, &secrets),
        })
        .collect();
    account.reason = match &heard.outcome {
        Outcome::Allowed(Some(_)) => Some("an ALLOW rule matches".into()),
        Outcome::Allowed(None) => Some("no ALLOW policy is in force".into()),
        Outcome::Denied(Some(_)) => Some("a DENY rule matches".into()),
        Outcome::Denied(None) => Some(match heard.nearest_miss() {
            Some(rule) => format!(
                "ALLOW policies are in force and no rule of theirs matches; nearest: {} at {}",
                rule.id,
                place(rule.id.origin())
            ),
            None => "ALLOW policies are in force and no rule of theirs matches".into(),
        }),
        Outcome::Undecided => None,
    };
}

/// Takes over what became of tokens.
fn hear_tokens(account: &mut Inbound, heard: &authn::Explanation) {
    if heard.end == End::NoRules {
        return;
    }
    let words = |verified: Result<(), Status>| match verified {
        Ok(()) => "verified",
        Err(status) => status.text(),
    };
    let rules = heard.rules.iter().map(|rule| JwtRule {
        issuer: rule.issuer.clone(),
        origin: place(&rule.origin),
        outcome: words(rule.outcome),
        tokens: rule
            .tokens
            .iter()
            .map(|token| TokenFound {
                place: token.place.clone(),
                outcome: words(token.verified),
            })
            .collect(),
    });
    if let End::Refused(status) = heard.end {
        account.reason = Some(format!(
            "RequestAuthentication refuses it: {}",
            status.text()
        ));
    }
    account.authentication = Some(Authentication {
        outcome: heard.end.to_string(),
        rules: rules.collect(),
    });
}

fn misses(rule: &RuleTrace, secrets: &[&str]) -> Vec<Miss> {
    if rule.matched {
        return Vec::new();
    }
    rule.misses()
        .map(|miss| Miss {
            field: match &miss.key {
                Some(key) => format!("{key} {}", miss.field.name(miss.negated)),
                None => miss.field.name(miss.negated).to_owned(),
            },
            patterns: miss.patterns.clone(),
            actual: secrets.iter().fold(miss.actual.clone(), |actual, secret| {
                actual.replace(secret, "[hidden]")
            }),
        })
        .collect()
}
