//! AuthorizationPolicy (S-110 to S-158).
//!
//! Every clause of every rule in force is asked; the decision is made of their outcomes afterwards, so that one can see what
//! it would be if a single clause had come out otherwise.

use std::net::IpAddr;

use meshward_core::api::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, Source,
};
use meshward_core::api::mesh_config::MeshConfig;

use super::jwt::Claims;
use super::{Call, Mesh, Request, Workload, identity, path, scope, template, values};

/// What rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub call: &'a Call,
    /// S-320.
    pub remote: IpAddr,
    pub request: Option<&'a Request>,
    pub claims: Option<&'a Claims>,
}

/// What a filter chain carries, and so how a policy reads there (S-157).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    Http,
    Tcp,
}

/// One field of a rule and whether it is satisfied, negation included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clause {
    /// One of [`FIELDS`].
    pub field: &'static str,
    pub holds: bool,
}

/// A rule of a policy in force, every clause answered.
#[derive(Clone, Debug)]
pub struct RuleTrace {
    pub action: Action,
    pub id: String,
    /// It matches nothing: its policy has no rules (S-112), or it was dropped (S-155).
    pub void: bool,
    pub from: Vec<Vec<Clause>>,
    pub to: Vec<Vec<Clause>>,
    pub when: Vec<Clause>,
}

impl RuleTrace {
    /// S-114.
    pub fn matches(&self) -> bool {
        let any = |list: &[Vec<Clause>]| {
            list.is_empty()
                || list
                    .iter()
                    .any(|clauses| clauses.iter().all(|clause| clause.holds))
        };
        !self.void
            && any(&self.from)
            && any(&self.to)
            && self.when.iter().all(|clause| clause.holds)
    }

    /// Every clause, for whoever turns one round.
    pub fn clauses(&mut self) -> impl Iterator<Item = &mut Clause> {
        let listed = self.from.iter_mut().chain(&mut self.to).flatten();
        listed.chain(&mut self.when)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// By this rule, or because no ALLOW rule matched.
    Denied(Option<String>),
}

/// DENY, then ALLOW (S-110, S-111).
pub fn verdict(rules: &[RuleTrace]) -> Verdict {
    if let Some(id) = first_match(rules, Action::Deny) {
        return Verdict::Denied(Some(id));
    }
    let restricted = rules.iter().any(|rule| rule.action == Action::Allow);
    if !restricted || first_match(rules, Action::Allow).is_some() {
        return Verdict::Allowed;
    }
    Verdict::Denied(None)
}

/// S-162.
pub fn audited(rules: &[RuleTrace]) -> Option<String> {
    first_match(rules, Action::Audit)
}

/// The first match by the bytes of the ids (S-117).
fn first_match(rules: &[RuleTrace], action: Action) -> Option<String> {
    rules
        .iter()
        .filter(|rule| rule.action == action && rule.matches())
        .map(|rule| rule.id.clone())
        .min()
}

/// The rules of all policies in force at the workload (S-1 to S-5), as this traffic has them.
pub fn rules(
    mesh: &Mesh,
    workload: &Workload,
    attributes: &Attributes<'_>,
    traffic: Traffic,
) -> Vec<RuleTrace> {
    let mut out = Vec::new();
    for policy in &mesh.authorization {
        let root = &mesh.config.root_namespace;
        let selector = policy.selector.as_ref();
        if policy.dry_run
            || policy.action == Action::Custom
            || !scope::applies(&policy.meta, selector, policy.targets, workload, root)
        {
            continue;
        }
        for number in 0..policy.rules.len().max(1) {
            out.push(trace(policy, number, &mesh.config, attributes, traffic));
        }
    }
    out
}

fn trace(
    policy: &AuthorizationPolicy,
    number: usize,
    config: &MeshConfig,
    attributes: &Attributes<'_>,
    traffic: Traffic,
) -> RuleTrace {
    let (namespace, name) = (&policy.meta.namespace, &policy.meta.name);
    let mut trace = RuleTrace {
        action: policy.action,
        id: format!("ns[{namespace}]-policy[{name}]-rule[{number}]"),
        void: true,
        from: Vec::new(),
        to: Vec::new(),
        when: Vec::new(),
    };
    let Some(rule) = policy.rules.get(number) else {
        return trace;
    };
    let asking = Asking {
        config,
        namespace,
        attributes,
    };
    trace.from = rule.from.iter().map(|from| asking.source(from)).collect();
    trace.to = rule.to.iter().map(|to| asking.operation(to)).collect();
    trace.when = rule
        .when
        .iter()
        .flat_map(|when| asking.condition(when))
        .collect();
    trace.void = false;
    if traffic == Traffic::Tcp {
        trace.void = policy.action == Action::Allow
            && trace.clauses().any(|clause| is_http_only(clause.field)); // S-155
        for clauses in trace.from.iter_mut().chain(&mut trace.to) {
            clauses.retain(|clause| !is_http_only(clause.field)); // S-156
        }
        trace.when.retain(|clause| !is_http_only(clause.field));
    }
    trace
}

/// Every field of rules, with its not-form.
pub const FIELDS: [&str; 52] = [
    "principals",
    "notPrincipals",
    "requestPrincipals",
    "notRequestPrincipals",
    "namespaces",
    "notNamespaces",
    "serviceAccounts",
    "notServiceAccounts",
    "trustDomains",
    "notTrustDomains",
    "ipBlocks",
    "notIpBlocks",
    "remoteIpBlocks",
    "notRemoteIpBlocks",
    "hosts",
    "notHosts",
    "ports",
    "notPorts",
    "methods",
    "notMethods",
    "paths",
    "notPaths",
    "request.headers",
    "not request.headers",
    "source.ip",
    "not source.ip",
    "remote.ip",
    "not remote.ip",
    "source.namespace",
    "not source.namespace",
    "source.principal",
    "not source.principal",
    "source.serviceAccount",
    "not source.serviceAccount",
    "source.trustDomain",
    "not source.trustDomain",
    "request.auth.principal",
    "not request.auth.principal",
    "request.auth.audiences",
    "not request.auth.audiences",
    "request.auth.presenter",
    "not request.auth.presenter",
    "request.auth.claims",
    "not request.auth.claims",
    "destination.ip",
    "not destination.ip",
    "destination.port",
    "not destination.port",
    "connection.sni",
    "not connection.sni",
    "experimental.envoy.filters",
    "not experimental.envoy.filters",
];

/// What TCP does not have (S-155).
fn is_http_only(field: &str) -> bool {
    let plain = [
        "hosts",
        "notHosts",
        "methods",
        "notMethods",
        "paths",
        "notPaths",
        "requestPrincipals",
        "notRequestPrincipals",
    ];
    plain.contains(&field) || field.starts_with("request.") || field.starts_with("not request.")
}

struct Asking<'a> {
    config: &'a MeshConfig,
    /// The policy's (S-129).
    namespace: &'a str,
    attributes: &'a Attributes<'a>,
}

/// A field with its two forms in `clauses`, unless they are not given (S-115).
fn given(
    clauses: &mut Vec<Clause>,
    names: [&'static str; 2],
    values: &[String],
    not_values: &[String],
    matches: impl Fn(&str) -> bool,
) {
    let any = |list: &[String]| list.iter().any(|value| matches(value));
    if !values.is_empty() {
        clauses.push(Clause {
            field: names[0],
            holds: any(values),
        });
    }
    if !not_values.is_empty() {
        clauses.push(Clause {
            field: names[1],
            holds: !any(not_values),
        });
    }
}

impl Asking<'_> {
    fn identity(&self) -> Option<&str> {
        self.attributes.call.identity.as_deref()
    }

    fn request_principal(&self) -> Option<(&str, &str)> {
        self.attributes.claims.and_then(Claims::principal)
    }

    /// Of TCP there is none: those fields are taken out again.
    fn request(&self, matches: impl Fn(&Request) -> bool) -> bool {
        self.attributes.request.is_some_and(matches)
    }

    fn source(&self, source: &Source) -> Vec<Clause> {
        let mut clauses = Vec::new();
        let out = &mut clauses;
        given(
            out,
            ["principals", "notPrincipals"],
            &source.principals,
            &source.not_principals,
            |v| identity::principal_matches(v, self.identity(), self.config),
        );
        given(
            out,
            ["requestPrincipals", "notRequestPrincipals"],
            &source.request_principals,
            &source.not_request_principals,
            |v| identity::request_principal_matches(v, self.request_principal()),
        );
        given(
            out,
            ["namespaces", "notNamespaces"],
            &source.namespaces,
            &source.not_namespaces,
            |v| identity::namespace_matches(v, self.identity()),
        );
        given(
            out,
            ["serviceAccounts", "notServiceAccounts"],
            &source.service_accounts,
            &source.not_service_accounts,
            |v| identity::service_account_matches(v, self.namespace, self.identity()),
        );
        given(
            out,
            ["trustDomains", "notTrustDomains"],
            &source.trust_domains,
            &source.not_trust_domains,
            |v| identity::trust_domain_matches(v, self.identity(), self.config),
        );
        given(
            out,
            ["ipBlocks", "notIpBlocks"],
            &source.ip_blocks,
            &source.not_ip_blocks,
            |v| values::ip_matches(v, self.attributes.call.peer),
        );
        given(
            out,
            ["remoteIpBlocks", "notRemoteIpBlocks"],
            &source.remote_ip_blocks,
            &source.not_remote_ip_blocks,
            |v| values::ip_matches(v, self.attributes.remote),
        );
        clauses
    }

    fn operation(&self, operation: &Operation) -> Vec<Clause> {
        let mut clauses = Vec::new();
        let out = &mut clauses;
        given(
            out,
            ["hosts", "notHosts"],
            &operation.hosts,
            &operation.not_hosts,
            |v| self.request(|request| values::host_matches(v, &request.authority)), // S-136
        );
        given(
            out,
            ["ports", "notPorts"],
            &operation.ports,
            &operation.not_ports,
            |v| values::port_matches(v, self.attributes.call.port),
        );
        given(
            out,
            ["methods", "notMethods"],
            &operation.methods,
            &operation.not_methods,
            |v| self.request(|request| values::matches_if_present(v, request.method.as_bytes())),
        );
        given(
            out,
            ["paths", "notPaths"],
            &operation.paths,
            &operation.not_paths,
            |v| self.request(|request| path_matches(v, path::without_query(&request.target))),
        );
        clauses
    }

    fn condition(&self, condition: &Condition) -> Vec<Clause> {
        let key = condition.key.as_str();
        let (call, claims) = (self.attributes.call, self.attributes.claims);
        let claim = |names: &[&str], v: &str| {
            claims.is_some_and(|claims| {
                claims
                    .texts(names)
                    .iter()
                    .any(|text| values::matches(v, text.as_bytes()))
            })
        };
        let mut clauses = Vec::new();
        let mut both = |names, matches: &dyn Fn(&str) -> bool| {
            given(
                &mut clauses,
                names,
                &condition.values,
                &condition.not_values,
                matches,
            );
        };
        match key {
            "source.ip" => both(["source.ip", "not source.ip"], &|v| {
                values::ip_matches(v, call.peer)
            }),
            "remote.ip" => both(["remote.ip", "not remote.ip"], &|v| {
                values::ip_matches(v, self.attributes.remote)
            }),
            "destination.ip" => both(["destination.ip", "not destination.ip"], &|v| {
                values::ip_matches(v, call.reached)
            }),
            "destination.port" => both(["destination.port", "not destination.port"], &|v| {
                values::port_matches(v, call.port)
            }),
            "source.namespace" => both(["source.namespace", "not source.namespace"], &|v| {
                identity::namespace_matches(v, self.identity())
            }),
            "source.principal" => both(["source.principal", "not source.principal"], &|v| {
                identity::principal_matches(v, self.identity(), self.config)
            }),
            "source.serviceAccount" => both(
                ["source.serviceAccount", "not source.serviceAccount"],
                &|v| identity::service_account_matches(v, self.namespace, self.identity()),
            ),
            "source.trustDomain" => both(["source.trustDomain", "not source.trustDomain"], &|v| {
                identity::trust_domain_matches(v, self.identity(), self.config)
            }),
            "connection.sni" => both(["connection.sni", "not connection.sni"], &|v| {
                call.sni
                    .as_ref()
                    .is_some_and(|sni| values::matches(v, sni.as_bytes()))
            }),
            "request.auth.principal" => both(
                ["request.auth.principal", "not request.auth.principal"],
                &|v| identity::request_principal_matches(v, self.request_principal()),
            ),
            "request.auth.audiences" => both(
                ["request.auth.audiences", "not request.auth.audiences"],
                &|v| claim(&["aud"], v),
            ),
            "request.auth.presenter" => both(
                ["request.auth.presenter", "not request.auth.presenter"],
                &|v| claim(&["azp"], v),
            ),
            _ => {
                if let Some(names) = bracketed(key, "request.auth.claims") {
                    both(["request.auth.claims", "not request.auth.claims"], &|v| {
                        claim(&names, v)
                    });
                } else if let Some([name]) = bracketed(key, "request.headers").as_deref() {
                    both(["request.headers", "not request.headers"], &|v| {
                        self.request(|request| {
                            values::header(&request.lines, name)
                                .iter()
                                .any(|value| values::matches_if_present(v, value))
                        })
                    });
                } else {
                    // S-153: no filter of ours leaves metadata behind.
                    both(
                        [
                            "experimental.envoy.filters",
                            "not experimental.envoy.filters",
                        ],
                        &|_| false,
                    );
                }
            }
        }
        clauses
    }
}

/// `prefix[a][b]` (S-147, S-149).
fn bracketed<'k>(key: &'k str, prefix: &str) -> Option<Vec<&'k str>> {
    let names = key.strip_prefix(prefix)?.strip_prefix('[')?;
    Some(names.strip_suffix(']')?.split("][").collect())
}

/// S-139 to S-141.
fn path_matches(value: &str, path: &str) -> bool {
    if template::is_template(value) {
        template::matches(value, path)
    } else {
        values::matches(value, path.as_bytes())
    }
}
