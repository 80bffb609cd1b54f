//! Policies into rule sets (S-112, S-113, S-143 to S-163).

use super::condition::Key;
use super::evaluate::Engine;
use super::id::PolicyId;
use super::matcher::{self, BadPattern, Path, ServiceAccount, Text, TrustDomain};
use super::rule::{Alternative, Clause, Patterns, Rule};
use super::sets::{Blocks, Namespaces, RequestPrincipals, Texts};
use super::trust_domain::{expand_principals, expand_trust_domains};
use crate::api::authorization_policy::{self as api, Action, AuthorizationPolicy};
use crate::api::mesh_config::MeshConfig;

/// What the filter chain speaks (S-157).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    Http,
    Tcp,
}

/// The rules in force at one workload for one layer. Immutable.
#[derive(Debug)]
pub struct RuleSets {
    pub(super) layer: Layer,
    /// CUSTOM rules whose provider cannot be asked: they deny what they match (S-160).
    pub(super) custom: Engine,
    pub(super) audit: Engine,
    pub(super) deny: Engine,
    /// `Some`: an enforced ALLOW policy applies, so what matches none of its rules is denied, even if there are none
    /// (S-112).
    pub(super) allow: Option<Engine>,
    findings: Vec<Finding>,
}

impl RuleSets {
    /// What could not be compiled, in the order of the policies. Such rules are stricter than they were written.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The same rules, of which each is asked in its turn: what the index is measured and checked against.
    pub fn without_index(mut self) -> Self {
        let engines = [&mut self.custom, &mut self.audit, &mut self.deny];
        engines
            .into_iter()
            .chain(&mut self.allow)
            .for_each(Engine::forget_index);
        self
    }

    /// How many rules there are, those that match nothing included.
    pub fn len(&self) -> usize {
        let allow = self.allow.as_ref().map_or(0, Engine::len);
        self.custom.len() + self.audit.len() + self.deny.len() + allow
    }

    /// Whether there are no rules; an ALLOW policy without rules still denies.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A rule that is not enforced as it is written, but closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub rule: PolicyId,
    /// One clause in lower case.
    pub problem: String,
}

/// Compiles the policies that apply to a workload (see `snapshot::select`), in any order.
///
/// A dry-run ALLOW or DENY policy is not enforced (S-163). On `Layer::Tcp` an ALLOW rule with a field of HTTP matches
/// nothing (S-155); any other rule loses that field (S-156). What cannot be compiled is treated the same way on either
/// layer, and is a finding.
pub fn compile(policies: &[&AuthorizationPolicy], mesh: &MeshConfig, layer: Layer) -> RuleSets {
    let mut compiler = Compiler {
        layer,
        trust_domains: trust_domains(mesh),
        findings: Vec::new(),
    };
    let (mut custom, mut audit, mut deny) = (Vec::new(), Vec::new(), Vec::new());
    let mut allow: Option<Vec<Rule>> = None;
    for policy in policies {
        match policy.action {
            Action::Allow | Action::Deny if policy.dry_run => {}
            Action::Allow => allow
                .get_or_insert_default()
                .extend(compiler.policy(policy)),
            Action::Deny => deny.extend(compiler.policy(policy)),
            Action::Audit => audit.extend(compiler.policy(policy)),
            Action::Custom => custom.extend(compiler.policy(policy)),
        }
    }
    RuleSets {
        layer,
        custom: Engine::new(custom),
        audit: Engine::new(audit),
        deny: Engine::new(deny),
        allow: allow.map(Engine::new),
        findings: compiler.findings,
    }
}

fn trust_domains(mesh: &MeshConfig) -> Vec<&str> {
    std::iter::once(&mesh.trust_domain)
        .chain(&mesh.trust_domain_aliases)
        .map(String::as_str)
        .collect()
}

struct Compiler<'m> {
    layer: Layer,
    trust_domains: Vec<&'m str>,
    findings: Vec<Finding>,
}

impl Compiler<'_> {
    fn policy(&mut self, policy: &AuthorizationPolicy) -> Vec<Rule> {
        if policy.rules.is_empty() {
            let id = PolicyId::new(&policy.meta, 0, policy.meta.origin.clone());
            let reason = "the policy has no rules".to_owned();
            return vec![void(named(policy, id), reason)];
        }
        policy
            .rules
            .iter()
            .enumerate()
            .map(|(number, rule)| {
                let id = PolicyId::new(&policy.meta, number, rule.origin.clone());
                self.rule(policy, named(policy, id), rule)
            })
            .collect()
    }

    fn rule(&mut self, policy: &AuthorizationPolicy, id: PolicyId, rule: &api::Rule) -> Rule {
        let mut draft = Draft {
            layer: self.layer,
            clauses: Vec::new(),
            key: None,
            of_http: None,
            problems: Vec::new(),
        };
        let sources = rule
            .from
            .iter()
            .map(|source| draft.source(source, &policy.meta.namespace, &self.trust_domains))
            .collect();
        let operations = rule
            .to
            .iter()
            .map(|operation| draft.operation(operation))
            .collect();
        for condition in &rule.when {
            draft.condition(condition, &policy.meta.namespace, &self.trust_domains);
        }
        let conditions = (!rule.when.is_empty()).then(|| draft.alternative());

        let Draft {
            of_http, problems, ..
        } = draft;
        let is_allow = policy.action == Action::Allow;
        let consequence = if is_allow {
            "the rule allows nothing"
        } else {
            "the rule is applied without it"
        };
        self.findings.extend(problems.iter().map(|problem| Finding {
            rule: id.clone(),
            problem: format!("{problem}, so {consequence}"),
        }));
        let reason = problems.into_iter().next().or_else(|| {
            of_http.map(|field| format!("`{field}` is of HTTP and this is a TCP connection"))
        });
        match reason {
            Some(reason) if is_allow => void(id, reason),
            Some(_) | None => Rule {
                id,
                void: None,
                sources,
                operations,
                conditions,
            },
        }
    }
}

fn void(id: PolicyId, reason: String) -> Rule {
    Rule {
        id,
        void: Some(reason),
        sources: Vec::new(),
        operations: Vec::new(),
        conditions: None,
    }
}

/// CUSTOM rules are compiled as those of a provider that cannot be asked (S-160).
fn named(policy: &AuthorizationPolicy, id: PolicyId) -> PolicyId {
    match policy.action {
        Action::Custom => id.unanswerable(policy.provider.as_deref().unwrap_or_default()),
        Action::Allow | Action::Audit | Action::Deny => id,
    }
}

/// The clauses of the alternative that is being compiled, and what is wrong with the rule so far.
struct Draft {
    layer: Layer,
    clauses: Vec<Clause>,
    /// Of the condition that is being compiled.
    key: Option<Box<str>>,
    /// A field that this layer does not have.
    of_http: Option<String>,
    problems: Vec<String>,
}

impl Draft {
    fn source(
        &mut self,
        source: &api::Source,
        policy_namespace: &str,
        trust_domains: &[&str],
    ) -> Alternative {
        let both = |positive, negative| [(positive, false), (negative, true)];
        for (written, negated) in both(&source.principals, &source.not_principals) {
            self.field(written, negated, |written| {
                Ok(principals(trust_domains, written))
            });
        }
        for (written, negated) in both(&source.namespaces, &source.not_namespaces) {
            self.field(written, negated, |written| Ok(namespaces(written)));
        }
        for (written, negated) in both(&source.service_accounts, &source.not_service_accounts) {
            self.field(written, negated, |written| {
                service_accounts(policy_namespace, written)
            });
        }
        for (written, negated) in both(&source.trust_domains, &source.not_trust_domains) {
            self.field(written, negated, |written| {
                of_trust_domains(trust_domains, written)
            });
        }
        for (written, negated) in both(&source.ip_blocks, &source.not_ip_blocks) {
            self.field(written, negated, |written| {
                ip_blocks(written).map(Patterns::IpBlocks)
            });
        }
        for (written, negated) in both(&source.remote_ip_blocks, &source.not_remote_ip_blocks) {
            self.field(written, negated, |written| {
                ip_blocks(written).map(Patterns::RemoteIpBlocks)
            });
        }
        for (written, negated) in both(&source.request_principals, &source.not_request_principals) {
            self.http_field(written, negated, "requestPrincipals", |written| {
                Ok(request_principals(written))
            });
        }
        self.alternative()
    }

    fn operation(&mut self, operation: &api::Operation) -> Alternative {
        let both = |positive, negative| [(positive, false), (negative, true)];
        for (written, negated) in both(&operation.ports, &operation.not_ports) {
            self.field(written, negated, ports);
        }
        for (written, negated) in both(&operation.methods, &operation.not_methods) {
            self.http_field(written, negated, "methods", |written| {
                Ok(Patterns::Methods(Texts::new(header_texts(written))))
            });
        }
        for (written, negated) in both(&operation.hosts, &operation.not_hosts) {
            self.http_field(written, negated, "hosts", |written| {
                Ok(Patterns::Hosts(Texts::in_any_case(header_texts(written))))
            });
        }
        for (written, negated) in both(&operation.paths, &operation.not_paths) {
            self.http_field(written, negated, "paths", paths);
        }
        self.alternative()
    }

    fn condition(
        &mut self,
        condition: &api::Condition,
        policy_namespace: &str,
        trust_domains: &[&str],
    ) {
        let Some(key) = Key::parse(&condition.key) else {
            let problem = format!("`{}` is no key of a condition", condition.key);
            self.problems.push(problem);
            return;
        };
        if key.is_of_http() && !self.has_http(&condition.key) {
            return;
        }
        self.key = Some(condition.key.as_str().into());
        for (written, negated) in [(&condition.values, false), (&condition.not_values, true)] {
            self.field(written, negated, |written| {
                let values = || Texts::new(written.iter().map(|text| Text::of_value(text)));
                let headers = || Texts::new(header_texts(written));
                Ok(match &key {
                    Key::SourceIp => Patterns::IpBlocks(ip_blocks(written)?),
                    Key::RemoteIp => Patterns::RemoteIpBlocks(ip_blocks(written)?),
                    Key::SourceNamespace => namespaces(written),
                    Key::SourcePrincipal => principals(trust_domains, written),
                    Key::SourceServiceAccount => service_accounts(policy_namespace, written)?,
                    Key::SourceTrustDomain => of_trust_domains(trust_domains, written)?,
                    Key::RequestPrincipal => request_principals(written),
                    Key::Claim(path) => Patterns::Claims(path.clone(), values()),
                    Key::Header(name) => Patterns::Headers(name.clone(), headers()),
                    Key::Method => Patterns::Methods(headers()),
                    Key::Authority => Patterns::Authorities(headers()),
                    Key::DestinationIp => Patterns::DestinationIpBlocks(ip_blocks(written)?),
                    Key::DestinationPort => ports(written)?,
                    Key::ServerName => Patterns::ServerNames(values()),
                    Key::Metadata => Patterns::Nothing,
                })
            });
        }
        self.key = None;
    }

    fn http_field(
        &mut self,
        written: &[String],
        negated: bool,
        name: &'static str,
        parse: impl FnOnce(&[String]) -> Result<Patterns, BadPattern>,
    ) {
        if !written.is_empty() && self.has_http(name) {
            self.field(written, negated, parse);
        }
    }

    /// Adds a clause for a field that is given. One bad value spoils the whole field: without it an `or` would be narrower,
    /// and a DENY must not be.
    fn field(
        &mut self,
        written: &[String],
        negated: bool,
        parse: impl FnOnce(&[String]) -> Result<Patterns, BadPattern>,
    ) {
        if written.is_empty() {
            return;
        }
        match parse(written) {
            Ok(patterns) => self.clauses.push(Clause {
                patterns,
                negated,
                key: self.key.clone(),
                written: written.into(),
            }),
            Err(bad) => self.problems.push(bad.to_string()),
        }
    }

    fn has_http(&mut self, field: &str) -> bool {
        match self.layer {
            Layer::Http => true,
            Layer::Tcp => {
                self.of_http.get_or_insert_with(|| field.to_owned());
                false
            }
        }
    }

    fn alternative(&mut self) -> Alternative {
        Alternative {
            clauses: std::mem::take(&mut self.clauses),
        }
    }
}

fn principals(trust_domains: &[&str], written: &[String]) -> Patterns {
    let texts = expand_principals(trust_domains, written);
    let texts = texts.iter().map(|text| Text::of_value(text));
    Patterns::Principals(Texts::new(texts))
}

fn request_principals(written: &[String]) -> Patterns {
    Patterns::RequestPrincipals(RequestPrincipals::new(written))
}

fn namespaces(written: &[String]) -> Patterns {
    Patterns::Namespaces(Namespaces::new(written))
}

fn service_accounts(policy_namespace: &str, written: &[String]) -> Result<Patterns, BadPattern> {
    let parse = |text: &str| ServiceAccount::parse(text, policy_namespace);
    each(written, parse).map(Patterns::ServiceAccounts)
}

fn of_trust_domains(trust_domains: &[&str], written: &[String]) -> Result<Patterns, BadPattern> {
    let written = expand_trust_domains(trust_domains, written);
    each(&written, TrustDomain::parse).map(Patterns::TrustDomains)
}

fn ports(written: &[String]) -> Result<Patterns, BadPattern> {
    let mut ports = each(written, matcher::port)?;
    ports.sort_unstable();
    Ok(Patterns::Ports(ports))
}

fn header_texts(written: &[String]) -> impl Iterator<Item = Text> {
    written.iter().map(|text| Text::of_header(text))
}

fn ip_blocks(written: &[String]) -> Result<Blocks, BadPattern> {
    each(written, matcher::ip_block).map(|blocks| Blocks::new(&blocks))
}

fn paths(written: &[String]) -> Result<Patterns, BadPattern> {
    let (mut texts, mut templates) = (Vec::new(), Vec::new());
    for path in each(written, Path::parse)? {
        match path {
            Path::Text(text) => texts.push(text),
            Path::Template(template) => templates.push(template),
        }
    }
    Ok(Patterns::Paths(Texts::new(texts), templates))
}

fn each<T>(
    written: &[String],
    parse: impl Fn(&str) -> Result<T, BadPattern>,
) -> Result<Vec<T>, BadPattern> {
    written.iter().map(|text| parse(text)).collect()
}

#[cfg(test)]
mod tests;
