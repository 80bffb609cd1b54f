//! What would become of a request, and why: the account of both hops.
//!
//! Nothing is decided here. The doors, the routes, the accept matrix, the path and the rules are asked as the proxies ask
//! them, with a listener that remembers; this module carries the request from one to the next and writes down what each
//! said. Opens no link: that the other end can be connected, and what an application answers, is not known here.

mod account;
mod inbound;
mod outbound;
mod text;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use account::{
    Account, Asked, Authentication, By, Inbound, JwtRule, Log, Miss, Mode, Other, Outbound, Party,
    Protection, RuleAccount, RuleName, Sees, TokenFound, Verdict,
};

use crate::api::meta::Origin;
use crate::clock::UnixTime;
use crate::control::mesh::{Arrival, Mesh, PodFacts};
use crate::control::names::WorkloadError;
use crate::control::plane::{Plane, SnapshotError};
use crate::error::Violation;
use crate::http::event::Event;
use crate::http::h1::Receiver;
use crate::http::head::{FieldTable, RequestHead};
use crate::limits::EXPLAINED_ENDPOINTS_MAX;
use crate::pii::Pii;
use inbound::{Fate, inbound};
use outbound::{Departure, Leaving, depart};

/// A request that somebody thinks of.
#[derive(Clone, Debug)]
pub struct Question {
    /// The workload that asks, as [`Mesh::find_workload`] takes it.
    pub from: String,
    /// Where alone it is looked for.
    pub namespace: Option<String>,
    host: String,
    port: u16,
    method: String,
    path: String,
    headers: Vec<(String, Pii<String>)>,
}

/// Why there is no account.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    #[error("no service or pod `{host}`, as seen from namespace `{namespace}`{}", suggestion(.nearest))]
    Host {
        host: String,
        namespace: String,
        /// Names that exist, the most similar first.
        nearest: Vec<String>,
    },
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// Why a text makes no question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    #[error("`{0}` is no host and no HOST:PORT")]
    Host(String),
    #[error("`{0}` is no method: letters, digits and -._ are")]
    Method(String),
    #[error(
        "the path `{0}` has a blank or a byte outside of ASCII; write it as it is sent, %20 for a blank"
    )]
    Path(String),
    /// The name of the header, or the whole of it where it has none; never its value.
    #[error("`{0}` is no header; write NAME: VALUE")]
    Header(String),
    /// The name of the header; never its value.
    #[error("the value of the header `{0}` has a line break or a NUL; write it on one line")]
    HeaderValue(String),
}

fn suggestion(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!("; nearest: {}", names.join(", "))
    }
}

impl Question {
    /// `to` is `HOST` or `HOST:PORT`; the port is 80 where none is given. `headers` are lines `NAME: VALUE`; one `host`
    /// among them takes the place of the one that `to` makes.
    pub fn new(
        from: &str,
        namespace: Option<&str>,
        to: &str,
        method: &str,
        path: &str,
        headers: &[String],
    ) -> Result<Self, QuestionError> {
        let (host, port) = split_host(to).ok_or_else(|| QuestionError::Host(to.to_owned()))?;
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if method.is_empty() || !method.bytes().all(is_token) {
            return Err(QuestionError::Method(method.to_owned()));
        }
        if path.is_empty() || !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(QuestionError::Path(path.to_owned()));
        }
        let mut lines = Vec::with_capacity(headers.len());
        for line in headers {
            let Some((name, value)) = line.split_once(':') else {
                return Err(QuestionError::Header(line.trim().to_owned()));
            };
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(QuestionError::Header(name.trim().to_owned()));
            }
            if value.contains(['\r', '\n', '\0']) {
                return Err(QuestionError::HeaderValue(name.to_owned()));
            }
            lines.push((name.to_owned(), Pii::new(value.trim().to_owned())));
        }
        Ok(Self {
            from: from.to_owned(),
            namespace: namespace.map(str::to_owned),
            host,
            port,
            method: method.to_owned(),
            path: path.to_owned(),
            headers: lines,
        })
    }

    fn given_host(&self) -> Option<&str> {
        let mut named = self.headers.iter();
        let line = named.find(|(name, _)| name.eq_ignore_ascii_case("host"))?;
        Some(line.1.reveal().as_str())
    }

    /// As curl makes it of a URL: port 80 is not said.
    fn authority(&self) -> String {
        if let Some(host) = self.given_host() {
            return host.to_owned();
        }
        let host = match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            Ok(IpAddr::V4(_)) | Err(_) => self.host.clone(),
        };
        match self.port {
            80 => host,
            port => format!("{host}:{port}"),
        }
    }

    /// The bytes that the client writes.
    fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if self.given_host().is_none() {
            head.push_str(&format!("host: {}\r\n", self.authority()));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {}\r\n", value.reveal()));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// What must not be said back: credentials without the name of their scheme, and what has the form of a token.
    fn secrets(&self) -> Vec<&str> {
        let lines = self.headers.iter().filter_map(|(name, value)| {
            let value = value.reveal().split_whitespace().next_back()?;
            let is_token = value.len() > 8 && value.bytes().filter(|b| *b == b'.').count() == 2;
            let known = ["authorization", "cookie"];
            let is_known = known.iter().any(|known| name.eq_ignore_ascii_case(known));
            (is_known || is_token).then_some(value)
        });
        lines.collect()
    }
}

/// `name`, `name:80`, `10.0.0.1:80`, `[::1]:80`, `::1`.
fn split_host(to: &str) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = to.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        (host, rest.strip_prefix(':'))
    } else if to.parse::<IpAddr>().is_ok() {
        (to, None)
    } else {
        match to.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (to, None),
        }
    };
    let port = match port {
        None => 80,
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
    };
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    (!host.is_empty() && host.bytes().all(is_name)).then(|| (host.to_owned(), port))
}

/// Answers a question by the state that `plane` holds. Takes it mutably because snapshots are made as they are asked for.
/// `now` is held against the times of tokens.
pub fn explain(
    plane: &mut Plane,
    question: &Question,
    now: UnixTime,
) -> Result<Account, ExplainError> {
    let mesh = Arc::clone(plane.mesh());
    let client = mesh.find_workload(&question.from, question.namespace.as_deref())?;
    let meant = meant(&mesh, question, &client.namespace)?;
    let leaving = depart(plane, client, meant, question)?;
    let Leaving {
        mut outbound,
        departure,
    } = leaving;
    let mut ends = Vec::new();
    if let Departure::To { ways, head, .. } = &departure {
        for way in ways.iter().take(EXPLAINED_ENDPOINTS_MAX) {
            ends.push(inbound(plane, client, way, head, question, now)?);
        }
    }
    let ends: Vec<_> = ends
        .into_iter()
        .map(|(inbound, fate)| {
            let verdict = verdict(&departure, inbound.as_ref(), &fate);
            (inbound, fate, verdict)
        })
        .collect();
    let others = ends.iter().skip(1).filter_map(|(inbound, _, verdict)| {
        let server = inbound.as_ref()?;
        Some(Other {
            pod: server.server.pod.clone(),
            address: server.server.address.clone(),
            status: verdict.status,
            rule: verdict.rule.clone(),
        })
    });
    let others = others.collect();
    let (inbound, verdict) = match ends.into_iter().next() {
        Some((inbound, fate, verdict)) => {
            outbound.log = outbound::log(&departure, &outbound, &fate);
            (inbound, verdict)
        }
        None => (None, verdict(&departure, None, &Fate::Unreached)),
    };
    Ok(Account {
        verdict,
        request: Asked {
            method: question.method.clone(),
            path: question.path.clone(),
            authority: question.authority(),
            headers: question.headers.iter().map(|(n, _)| n.clone()).collect(),
        },
        client: party(plane, client),
        outbound,
        inbound,
        others,
    })
}

/// The address that the client's DNS gives for the host. A client takes the first of several.
fn meant(mesh: &Mesh, question: &Question, namespace: &str) -> Result<SocketAddr, ExplainError> {
    let unknown = || {
        let names = mesh
            .services()
            .map(|service| format!("{}.{}", service.name, service.namespace));
        ExplainError::Host {
            host: question.host.clone(),
            namespace: namespace.to_owned(),
            nearest: crate::control::names::nearest(&question.host, names),
        }
    };
    let ip = match question.host.parse::<IpAddr>() {
        Ok(ip) => {
            let meant = SocketAddr::new(ip, question.port);
            let known = match mesh.arrival(meant) {
                Arrival::Nowhere => false,
                Arrival::There => mesh.pod_at(ip).is_some(),
                Arrival::Endpoints(..) | Arrival::NoPort(_) => true,
            };
            known.then_some(ip).ok_or_else(unknown)?
        }
        Err(_) => {
            let found = mesh.resolve(&question.host, namespace);
            *found
                .as_ref()
                .and_then(|ips| ips.first())
                .ok_or_else(unknown)?
        }
    };
    Ok(SocketAddr::new(ip, question.port))
}

/// What the client sees of what happened.
fn verdict(departure: &Departure, inbound: Option<&Inbound>, fate: &Fate) -> Verdict {
    let rule = inbound.and_then(|inbound| inbound.rules.iter().find(|rule| rule.decided));
    let rule = rule.map(|rule| RuleName {
        id: rule.id.clone(),
        origin: rule.origin.clone(),
    });
    let (status, by, summary) = match departure {
        Departure::Answered { status, summary } => (*status, By::ClientSidecar, summary.clone()),
        Departure::Reset { summary } => (0, By::Nobody, summary.clone()),
        Departure::Refused { summary } => (0, By::Nobody, summary.clone()),
        Departure::To { as_http, .. } => fate.seen(*as_http),
    };
    Verdict {
        status,
        by,
        summary,
        reason: inbound.and_then(|inbound| inbound.reason.clone()),
        rule,
    }
}

fn party(plane: &Plane, pod: &PodFacts) -> Party {
    Party {
        pod: called(pod),
        address: pod.address.to_string(),
        sidecar: pod.sidecar,
        identity: plane
            .identity(&pod.key())
            .filter(|_| pod.sidecar)
            .map(|id| id.to_string()),
    }
}

fn called(pod: &PodFacts) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

/// `file:line`.
fn place(origin: &Origin) -> String {
    format!("{}:{}", origin.file, origin.line)
}

/// Lets `then` see the head that a proxy reads out of `bytes`.
fn read<T>(bytes: &[u8], then: impl FnOnce(&RequestHead<'_>) -> T) -> Result<T, Violation> {
    let mut fields = FieldTable::default();
    let mut rest = bytes;
    match Receiver::requests().next(&mut rest, &mut fields)? {
        Some(Event::Request(_, head)) => Ok(then(&head)),
        _ => Err(Violation {
            what: "no whole head",
            status: 400,
            details: "http1.codec_error",
        }),
    }
}
