//! What a mesh answers, worked out a second time, from the numbered rules alone.
//!
//! Slow and readable: every clause of every rule is asked, nothing is compiled, nothing is shared with the core but the
//! types of the resources as written. It knows no sockets and no cryptography: which key signed a token it is told
//! ([`Oracle`]). CUSTOM and dry-run policies are not judged: nothing here acts on them.
//!
//! One file for each part of the rules; [`trial`] draws meshes and requests and holds the core against these answers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use meshward_core::api::authorization_policy::AuthorizationPolicy;
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::meta::Labels;
use meshward_core::api::peer_authentication::PeerAuthentication;
use meshward_core::api::request_authentication::RequestAuthentication;

pub mod authz;
pub mod identity;
pub mod jwt;
pub mod mtls;
pub mod path;
pub mod scope;
pub mod template;
pub mod trial;
pub mod values;

use authz::{Attributes, RuleTrace, Traffic, Verdict};
use mtls::Chain;

/// All that was applied.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    pub config: MeshConfig,
    pub authorization: Vec<AuthorizationPolicy>,
    pub requests: Vec<RequestAuthentication>,
    pub peers: Vec<PeerAuthentication>,
}

/// A pod with a sidecar.
#[derive(Clone, Debug)]
pub struct Workload {
    pub namespace: String,
    pub labels: Labels,
    /// What its Services say about each port of the pod.
    pub ports: BTreeMap<u16, PortKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    Http,
    Tcp,
    /// Not declared.
    Auto,
}

/// A connection to the workload, and what comes on it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The SPIFFE ID of the client without `spiffe://`; `None`: plain text.
    pub identity: Option<String>,
    pub peer: IpAddr,
    /// The address of the pod.
    pub reached: IpAddr,
    pub port: u16,
    pub sni: Option<String>,
    /// `None`: bytes that are no HTTP.
    pub request: Option<Request>,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// As sent, with query and fragment.
    pub target: String,
    pub authority: String,
    /// Name and value of each line, in order.
    pub lines: Vec<Line>,
}

pub type Line = (String, Vec<u8>);

/// What the caller and the application come to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No filter chain (S-28).
    Reset,
    /// 400 (S-183).
    BadPath,
    /// 401 or 403 (S-217).
    Unauthenticated {
        status: u16,
        text: String,
        challenge: String,
    },
    /// 403 (S-118), or closed without an answer (S-121): by this rule, or because no ALLOW rule matched.
    Denied { rule: Option<String> },
    /// The application gets the connection; the request, if it is one, like this.
    Allowed { passed: Option<Passed> },
}

/// A request as the application gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    pub target: String,
    /// Names in lower case, sorted by name; lines of one name keep their order.
    pub lines: Vec<Line>,
}

impl Passed {
    pub fn new(target: String, lines: &[Line]) -> Self {
        let mut lines: Vec<Line> = lines
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
            .collect();
        lines.sort_by(|a, b| a.0.cmp(&b.0));
        Self { target, lines }
    }
}

/// An answer and how it came about.
#[derive(Clone, Debug)]
pub struct Judgement {
    pub answer: Answer,
    /// The first AUDIT rule that matched (S-162).
    pub audited: Option<String>,
    /// Every rule that was asked; none if the request got that far.
    pub rules: Vec<RuleTrace>,
    /// Whether the policies were asked.
    pub asked: bool,
}

impl Judgement {
    fn early(answer: Answer) -> Self {
        Self {
            answer,
            audited: None,
            rules: Vec::new(),
            asked: false,
        }
    }
}

/// Tells by which key a token was really signed: the key's own material as its JWK has it (`k`, `x` or `n`). `None`: by no
/// key, or altered since.
pub type Oracle<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The circumstances of a judgement.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    pub mesh: &'a Mesh,
    pub workload: &'a Workload,
    pub signed_by: Oracle<'a>,
    /// Seconds since 1970.
    pub now: u64,
    /// A check of tokens whose outcome is turned round, to see whether it decides anything.
    pub flipped: Option<jwt::Check>,
}

impl std::fmt::Debug for Setting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setting")
            .field("workload", &self.workload)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// The whole way in: mode (S-25), path (S-180), tokens (S-210), policies (S-110).
pub fn judge(setting: Setting<'_>, call: &Call) -> Judgement {
    let Setting { mesh, workload, .. } = setting;
    let mode = mtls::effective_mode(mesh, workload, call.port);
    let kind = workload
        .ports
        .get(&call.port)
        .copied()
        .unwrap_or(PortKind::Auto);
    let chain = mtls::chain(mode, kind, call.identity.is_some(), call.request.is_some());
    match (chain, &call.request) {
        (Chain::None, _) => Judgement::early(Answer::Reset),
        (Chain::Http, Some(request)) => judge_request(setting, call, request),
        // Bytes that are no request cannot be answered by policies; the trial sends none there.
        (Chain::Http, None) => Judgement::early(Answer::Reset),
        (Chain::Tcp, _) => {
            let attributes = Attributes {
                call,
                remote: call.peer, // S-135
                request: None,
                claims: None,
            };
            concluded(setting, &attributes, Traffic::Tcp, None)
        }
    }
}

fn judge_request(setting: Setting<'_>, call: &Call, request: &Request) -> Judgement {
    let Some(target) = path::normalise(&request.target, setting.mesh.config.normalization) else {
        return Judgement::early(Answer::BadPath);
    };
    let authenticated = match jwt::authenticate(setting, call, request, &target) {
        Ok(authenticated) => authenticated,
        Err(refusal) => return Judgement::early(refusal),
    };
    // Policies see what the check of tokens made of the request: it stands before them (S-110).
    let seen = Request {
        method: request.method.clone(),
        target: authenticated.target.clone(),
        authority: request.authority.clone(),
        lines: authenticated.lines.clone(),
    };
    let attributes = Attributes {
        call,
        remote: values::original_client(&request.lines, call.peer),
        request: Some(&seen),
        claims: authenticated.claims.as_ref(),
    };
    let passed = Passed::new(authenticated.target.clone(), &authenticated.lines);
    concluded(setting, &attributes, Traffic::Http, Some(passed))
}

fn concluded(
    setting: Setting<'_>,
    attributes: &Attributes<'_>,
    traffic: Traffic,
    passed: Option<Passed>,
) -> Judgement {
    let rules = authz::rules(setting.mesh, setting.workload, attributes, traffic);
    let answer = match authz::verdict(&rules) {
        Verdict::Allowed => Answer::Allowed { passed },
        Verdict::Denied(rule) => Answer::Denied { rule },
    };
    Judgement {
        answer,
        audited: authz::audited(&rules),
        rules,
        asked: true,
    }
}
