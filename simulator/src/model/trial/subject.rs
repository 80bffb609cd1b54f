//! The core, asked through its public functions alone: text to resources, resources to a snapshot, a snapshot's verdicts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use meshward_core::accept::{self, Accept, FirstBytes, PlainKind};
use meshward_core::api::load::{Text, load_for_enforcement};
use meshward_core::authn::Cache;
use meshward_core::authz::PolicyId;
use meshward_core::clock::UnixTime;
use meshward_core::decide::{self, Caller, Denial, Verdict};
use meshward_core::http::head::Fields;
use meshward_core::snapshot::Snapshot;
use meshward_core::snapshot::compile::{InboundSource, Sources, snapshot};
use meshward_core::snapshot::select;

use super::super::{Answer, Call, Line, Mesh, Passed, PortKind, Setting, Workload};
use super::yaml;

/// Whoever answers calls and is held against the model.
pub trait Subject {
    /// Gets to know a mesh and the workload that is called; an error ends the trial.
    fn prepare(&mut self, mesh: &Mesh, workload: &Workload) -> Result<(), String>;

    /// The answer, and the AUDIT rule that matched.
    fn answer(&mut self, setting: Setting<'_>, call: &Call) -> (Answer, Option<String>);
}

/// The real thing.
#[derive(Debug, Default)]
pub struct Core {
    snapshot: Snapshot,
    cache: Cache,
}

impl Subject for Core {
    fn prepare(&mut self, mesh: &Mesh, workload: &Workload) -> Result<(), String> {
        let documents = yaml::documents(mesh);
        let text = Text {
            name: Arc::from("drawn.yaml"),
            text: yaml::text(&documents),
        };
        let loaded = load_for_enforcement(&[text], "default").map_err(|e| e.to_string())?;
        let read = Mesh {
            config: loaded.mesh_config.unwrap_or_default(),
            authorization: loaded.authorization_policies,
            requests: loaded.request_authentications,
            peers: loaded.peer_authentications,
        };
        if yaml::documents(&read) != documents {
            return Err("the loader read something else than was written".into());
        }
        let authorization_policies = Arc::new(read.authorization);
        let peer_authentications = Arc::new(read.peers);
        let request_authentications = Arc::new(read.requests);
        let inbound = workload
            .ports
            .iter()
            .zip(0..)
            .map(|((port, kind), listener)| InboundSource {
                listener,
                port: *port,
                kind: match kind {
                    PortKind::Http => accept::PortKind::Http,
                    PortKind::Tcp => accept::PortKind::Tcp,
                    PortKind::Auto => accept::PortKind::Auto,
                },
                mode: None,
                upstream: SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
                from: None,
                records: false,
                authorization_policies: Arc::clone(&authorization_policies),
                peer_authentications: Arc::clone(&peer_authentications),
                request_authentications: Arc::clone(&request_authentications),
            })
            .collect();
        self.cache = Cache::default();
        self.snapshot = snapshot(&Sources {
            version: 1,
            workload: select::Workload {
                namespace: workload.namespace.clone(),
                labels: workload.labels.clone(),
            },
            mesh: read.config,
            inbound,
            outbound: Vec::new(),
        })
        .map_err(|e| e.to_string())?;
        Ok(())
    }

    fn answer(&mut self, setting: Setting<'_>, call: &Call) -> (Answer, Option<String>) {
        let Some(port) = self.snapshot.inbound.get(&call.port) else {
            return (Answer::Reset, None);
        };
        let first = match (&call.identity, &call.request) {
            (None, Some(_)) => FirstBytes::Plain(PlainKind::Http11),
            (None, None) => FirstBytes::Plain(PlainKind::Other),
            (Some(_), Some(_)) => {
                FirstBytes::tls([&b"istio-http/1.1"[..], &b"istio"[..], &b"http/1.1"[..]])
            }
            (Some(_), None) => FirstBytes::tls([&b"istio-peer-exchange"[..], &b"istio"[..]]),
        };
        let caller = Caller {
            principal: call.identity.as_deref(),
            peer: SocketAddr::from((call.peer, 40_000)),
            reached: call.reached,
            sni: call.sni.as_deref(),
        };
        let mut audited = None;
        let mut audit = |id: &PolicyId| audited = Some(id.as_str().to_owned());
        let answer = match (accept::decide(port.mode, port.kind, first), &call.request) {
            (Accept::Http | Accept::TerminateHttp, Some(request)) => {
                let lines: Vec<(&[u8], &[u8])> = request
                    .lines
                    .iter()
                    .map(|(name, value)| (name.as_bytes(), value.as_slice()))
                    .collect();
                let fields = Fields::listed(&lines);
                let asked = decide::Request {
                    method: &request.method,
                    path: request.target.as_bytes(),
                    authority: request.authority.as_bytes(),
                    fields,
                };
                let now = UnixTime(setting.now * 1000);
                let cache = &mut self.cache;
                match decide::inbound_request(port, caller, asked, now, cache, &mut audit, &mut ())
                {
                    Verdict::Allow(_, passage) => {
                        let lines: Vec<Line> = passage
                            .effects
                            .fields(fields)
                            .iter()
                            .map(|f| (String::from_utf8_lossy(f.name).into(), f.value.to_vec()))
                            .collect();
                        let target = String::from_utf8_lossy(&passage.path).into_owned();
                        Answer::Allowed {
                            passed: Some(Passed::new(target, &lines)),
                        }
                    }
                    Verdict::Deny(denial, _) => denied(&denial),
                }
            }
            (Accept::Tcp | Accept::TerminateTcp, _) => {
                match decide::inbound_connection(port, caller, &mut audit, &mut ()) {
                    Ok(_) => Answer::Allowed { passed: None },
                    Err(denial) => by_policy(&denial).unwrap_or_else(|| unheard_of(&denial)),
                }
            }
            (Accept::Http | Accept::TerminateHttp, None)
            | (Accept::PassThrough | Accept::Reset | Accept::NeedMore, _) => Answer::Reset,
        };
        (answer, audited)
    }
}

fn denied(denial: &Denial) -> Answer {
    if let ("path_normalization_failed", 400, "") =
        (denial.details.as_str(), denial.status, &*denial.body)
    {
        return Answer::BadPath;
    }
    if denial.status == 403
        && denial.body == "RBAC: access denied"
        && let Some(answer) = by_policy(denial)
    {
        return answer;
    }
    let details = format!(
        "jwt_authn_access_denied{{{}}}",
        denial.body.replace(' ', "_")
    );
    match &denial.headers[..] {
        [("www-authenticate", challenge)] if denial.details == details => Answer::Unauthenticated {
            status: denial.status,
            text: denial.body.clone().into_owned(),
            challenge: String::from_utf8_lossy(challenge).into_owned(),
        },
        _ => unheard_of(denial),
    }
}

/// S-118.
fn by_policy(denial: &Denial) -> Option<Answer> {
    let id = denial
        .details
        .strip_prefix("rbac_access_denied_matched_policy[")?
        .strip_suffix(']')?;
    Some(Answer::Denied {
        rule: (id != "none").then(|| id.to_owned()),
    })
}

/// An answer that no rule knows: it differs from everything that the model says.
fn unheard_of(denial: &Denial) -> Answer {
    Answer::Denied {
        rule: Some(format!("{denial:?}")),
    }
}

/// The peer of a connection that is nobody in particular.
pub const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));
