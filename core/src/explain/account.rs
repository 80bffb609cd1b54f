//! The account: what each hop saw and said. Data alone; `docs/explain.schema.json` describes its JSON.

use serde::Serialize;

/// A request on its way, both hops of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    pub verdict: Verdict,
    pub request: Asked,
    pub client: Party,
    pub outbound: Outbound,
    /// `None`: it does not come so far, or nobody is there.
    pub inbound: Option<Inbound>,
    /// The same request at the other endpoints of the service.
    pub others: Vec<Other>,
}

/// What the client gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// 200 where the application answers, whatever it may say; 0 where there is no HTTP answer (curl: `000`).
    pub status: u16,
    pub by: By,
    /// One clause.
    pub summary: String,
    /// Why, where a policy or a mode is the reason.
    pub reason: Option<String>,
    /// The rule that decided.
    pub rule: Option<RuleName>,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    Application,
    ServerSidecar,
    ClientSidecar,
    /// The connection is reset or refused.
    Nobody,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleName {
    pub id: String,
    /// `file:line`.
    pub origin: String,
}

/// The request as it was asked about. Of headers the names alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub authority: String,
    pub headers: Vec<String>,
}

/// A pod at one end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// `namespace/name`.
    pub pod: String,
    pub address: String,
    pub sidecar: bool,
    /// What its certificate says; `None` without a sidecar.
    pub identity: Option<String>,
}

/// From the client to an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outbound {
    /// The address that the client connects to.
    pub meant: String,
    /// `namespace/name:port` of the service that has it.
    pub service: Option<String>,
    /// Which listener of the client's sidecar takes it.
    pub door: Option<String>,
    /// Normalised (S-180).
    pub path: Option<String>,
    pub cluster: Option<String>,
    pub endpoint: Option<String>,
    /// How many there are to choose from.
    pub endpoints: usize,
    pub protection: Option<Protection>,
    /// What the client's sidecar writes of it.
    pub log: Option<Log>,
}

/// What is done to the bytes between the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Protection {
    pub mutual_tls: bool,
    pub reason: String,
    /// `file:line` of the policy that is the reason.
    pub origin: Option<String>,
    pub sni: Option<String>,
    /// Who may answer (S-58).
    pub expects: Vec<String>,
}

/// At the endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inbound {
    pub server: Party,
    /// The workload port.
    pub port: u16,
    /// `http`, `tcp`, or `auto` where it is not declared.
    pub protocol: Option<&'static str>,
    pub mode: Option<Mode>,
    /// What the accept matrix says (S-25).
    pub accepts: Option<&'static str>,
    pub sees: Option<Sees>,
    /// What became of tokens; `None`: it is not read as HTTP, or no RequestAuthentication is in force.
    pub authentication: Option<Authentication>,
    /// One clause, where a policy or a mode is the reason for the outcome.
    pub reason: Option<String>,
    /// Every rule that was asked, in the order of asking: AUDIT, DENY, ALLOW.
    pub rules: Vec<RuleAccount>,
    pub log: Option<Log>,
}

/// The mode of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mode {
    pub mode: &'static str,
    pub reason: String,
    /// `file:line`.
    pub origin: Option<String>,
}

/// What the server's sidecar knows of the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sees {
    /// As `principals` are written, without `spiffe://`.
    pub principal: Option<String>,
    pub source_ip: String,
    pub sni: Option<String>,
    /// Normalised, without the query: what `paths` are held against. `None`: it is not read as HTTP.
    pub path: Option<String>,
}

/// What RequestAuthentication made of the request (S-210 to S-212).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Authentication {
    /// One clause.
    pub outcome: String,
    /// In the order in which they were asked.
    pub rules: Vec<JwtRule>,
}

/// One rule of a RequestAuthentication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JwtRule {
    pub issuer: String,
    /// `file:line`.
    pub origin: String,
    /// `verified`, or the text of the refusal (S-218).
    pub outcome: &'static str,
    pub tokens: Vec<TokenFound>,
}

/// Where a token was found, and what became of it. Never the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenFound {
    pub place: String,
    pub outcome: &'static str,
}

/// One rule and what it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleAccount {
    pub action: &'static str,
    pub id: String,
    /// `file:line`.
    pub origin: String,
    pub matched: bool,
    pub decided: bool,
    /// Why it cannot match anything.
    pub void: Option<String>,
    /// What stood in the way, of the alternative that came nearest.
    pub misses: Vec<Miss>,
}

/// One field that is not satisfied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Miss {
    pub field: String,
    pub patterns: Vec<String>,
    pub actual: String,
}

/// What stands in an access log (S-326).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    pub status: u16,
    /// `-`, `NR`, `UF,URX`.
    pub flags: String,
    pub details: Option<String>,
    pub termination: Option<String>,
    pub cluster: Option<String>,
    /// AUDIT rules that matched.
    pub audit: Vec<String>,
}

/// Another endpoint of the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Other {
    pub pod: String,
    pub address: String,
    pub status: u16,
    pub rule: Option<RuleName>,
}

impl Log {
    pub(super) fn new(status: u16, flags: crate::telemetry::record::Flags, details: &str) -> Self {
        let names: Vec<&str> = flags.names().collect();
        Self {
            status,
            flags: if names.is_empty() {
                "-".to_owned()
            } else {
                names.join(",")
            },
            details: (!details.is_empty()).then(|| details.to_owned()),
            termination: None,
            cluster: None,
            audit: Vec::new(),
        }
    }
}
