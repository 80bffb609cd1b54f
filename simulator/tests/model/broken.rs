//! A second evaluator of policies, which can be given one of the mistakes that evaluators make.
//!
//! It exists to be wrong: a trial that does not notice would not notice the core's mistakes either.

use std::cell::Cell;
use std::net::IpAddr;

use meshward_core::api::authorization_policy::{Action, AuthorizationPolicy, Condition, Rule};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_simulator::model::jwt::{self, Claims};
use meshward_simulator::model::mtls::{self, Chain};
use meshward_simulator::model::trial::subject::{Core, Subject};
use meshward_simulator::model::{
    Answer, Call, Mesh, Passed, PortKind, Request, Setting, Workload, identity, path, scope,
    template, values,
};
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// S-111.
    AllowBeforeDeny,
    /// S-112.
    AllowWithoutRulesIsNoPolicy,
    /// S-114.
    OneWhenIsEnough,
    /// S-126.
    NotFormsFalseOnPlainText,
    /// S-123.
    PrefixEndsAtASegment,
    /// S-123.
    SuffixIgnoresCase,
    /// S-136.
    HostWithoutPort,
    /// S-140.
    StarOfTemplateCrossesSlash,
    /// S-139.
    QueryIsOfThePath,
    /// S-145.
    HeaderLinesJoined,
    /// S-147.
    NumbersMatch,
    /// S-148.
    ScopeIsOneText,
    /// S-129.
    AccountInTheWorkloadsNamespace,
    /// S-88.
    AliasesForgotten,
    /// S-131.
    SplitAtTheFirstSlash,
    /// S-117.
    RulesInOrderOfNumbers,
    /// S-155.
    AllowOfHttpAloneOnTcp,
    /// S-3.
    RootSelectorsForRootAlone,
    /// S-134.
    HostBitsOfBlocksCount,
    /// S-219.
    NoSkew,
    /// S-184.
    SlashesMergedAlways,
    /// S-191.
    UnknownIssuerIsNoToken,
    /// S-110.
    PoliciesBeforeTokens,
    /// S-217.
    AudienceIs401,
    /// S-224.
    TokenStays,
}

pub(crate) const BUGS: [Bug; 25] = [
    Bug::AllowBeforeDeny,
    Bug::AllowWithoutRulesIsNoPolicy,
    Bug::OneWhenIsEnough,
    Bug::NotFormsFalseOnPlainText,
    Bug::PrefixEndsAtASegment,
    Bug::SuffixIgnoresCase,
    Bug::HostWithoutPort,
    Bug::StarOfTemplateCrossesSlash,
    Bug::QueryIsOfThePath,
    Bug::HeaderLinesJoined,
    Bug::NumbersMatch,
    Bug::ScopeIsOneText,
    Bug::AccountInTheWorkloadsNamespace,
    Bug::AliasesForgotten,
    Bug::SplitAtTheFirstSlash,
    Bug::RulesInOrderOfNumbers,
    Bug::AllowOfHttpAloneOnTcp,
    Bug::RootSelectorsForRootAlone,
    Bug::HostBitsOfBlocksCount,
    Bug::NoSkew,
    Bug::SlashesMergedAlways,
    Bug::UnknownIssuerIsNoToken,
    Bug::PoliciesBeforeTokens,
    Bug::AudienceIs401,
    Bug::TokenStays,
];

/// The evaluator with its mistake.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) Bug);

impl Subject for Broken {
    /// Keeps nothing: each answer is made anew. What the loader refuses is no mesh to be wrong about.
    fn prepare(&mut self, mesh: &Mesh, workload: &Workload) -> Result<(), String> {
        Core::default().prepare(mesh, workload)
    }

    fn answer(&mut self, mut setting: Setting<'_>, call: &Call) -> (Answer, Option<String>) {
        let Setting { mesh, workload, .. } = setting;
        let mode = mtls::effective_mode(mesh, workload, call.port);
        let kind = workload
            .ports
            .get(&call.port)
            .copied()
            .unwrap_or(PortKind::Auto);
        let http = call.request.is_some();
        let chain = mtls::chain(mode, kind, call.identity.is_some(), http);
        let request = match (chain, &call.request) {
            (Chain::Http, Some(request)) => Some(request),
            (Chain::Tcp, _) => None,
            (Chain::None, _) | (Chain::Http, None) => return (Answer::Reset, None),
        };
        let Some(request) = request else {
            let asked = Asked::new(self.0, setting, call, None, None);
            return asked.concluded(None);
        };
        let Some(mut target) = path::normalise(&request.target, mesh.config.normalization) else {
            return (Answer::BadPath, None);
        };
        if self.0 == Bug::SlashesMergedAlways {
            target = target.replace("//", "/");
        }
        if self.0 == Bug::NoSkew {
            setting.now += 60;
        }
        let authenticated = match jwt::authenticate(setting, call, request, &target) {
            Ok(authenticated) => authenticated,
            Err(refusal) => return self.refused(setting, call, request, &target, refusal),
        };
        let seen = Request {
            target: authenticated.target.clone(),
            lines: authenticated.lines.clone(),
            ..request.clone()
        };
        let claims = authenticated.claims.as_ref();
        let asked = Asked::new(self.0, setting, call, Some(&seen), claims);
        let (target, lines) = if self.0 == Bug::TokenStays && claims.is_some() {
            (&target, &request.lines)
        } else {
            (&seen.target, &seen.lines)
        };
        asked.concluded(Some(Passed::new(target.clone(), lines)))
    }
}

impl Broken {
    fn refused(
        &self,
        setting: Setting<'_>,
        call: &Call,
        request: &Request,
        target: &str,
        mut refusal: Answer,
    ) -> (Answer, Option<String>) {
        let Answer::Unauthenticated { status, text, .. } = &mut refusal else {
            return (refusal, None);
        };
        let asked = Asked::new(self.0, setting, call, Some(request), None);
        let passed = Passed::new(target.to_owned(), &request.lines);
        match self.0 {
            Bug::UnknownIssuerIsNoToken if text == "Jwt issuer is not configured" => {
                asked.concluded(Some(passed))
            }
            Bug::PoliciesBeforeTokens => match asked.concluded(Some(passed)) {
                denied @ (Answer::Denied { .. }, _) => denied,
                (_, audited) => (refusal, audited),
            },
            Bug::AudienceIs401 => {
                *status = 401;
                (refusal, None)
            }
            _ => (refusal, None),
        }
    }
}

struct Asked<'a> {
    bug: Bug,
    mesh: &'a Mesh,
    workload: &'a Workload,
    config: MeshConfig,
    call: &'a Call,
    remote: IpAddr,
    request: Option<&'a Request>,
    claims: Option<&'a Claims>,
}

impl<'a> Asked<'a> {
    fn new(
        bug: Bug,
        setting: Setting<'a>,
        call: &'a Call,
        request: Option<&'a Request>,
        claims: Option<&'a Claims>,
    ) -> Self {
        let mut config = setting.mesh.config.clone();
        if bug == Bug::AliasesForgotten {
            config.trust_domain_aliases.clear();
        }
        Self {
            bug,
            mesh: setting.mesh,
            workload: setting.workload,
            config,
            call,
            remote: request.map_or(call.peer, |request| {
                values::original_client(&request.lines, call.peer)
            }),
            request,
            claims,
        }
    }

    fn concluded(&self, passed: Option<Passed>) -> (Answer, Option<String>) {
        let mut matched: Vec<(Action, usize, String)> = Vec::new();
        let mut restricted = false;
        for policy in &self.mesh.authorization {
            let root = &self.config.root_namespace;
            let (selector, targets) = (policy.selector.as_ref(), policy.targets);
            if !scope::applies(&policy.meta, selector, targets, self.workload, root) {
                continue;
            }
            let elsewhere = policy.meta.namespace != self.workload.namespace;
            if self.bug == Bug::RootSelectorsForRootAlone && selector.is_some() && elsewhere {
                continue;
            }
            let counts = !policy.rules.is_empty() || self.bug != Bug::AllowWithoutRulesIsNoPolicy;
            restricted |= policy.action == Action::Allow && counts;
            for (number, rule) in policy.rules.iter().enumerate() {
                if self.matches(policy, rule) {
                    let (namespace, name) = (&policy.meta.namespace, &policy.meta.name);
                    let id = format!("ns[{namespace}]-policy[{name}]-rule[{number}]");
                    matched.push((policy.action, number, id));
                }
            }
        }
        matched.sort_by(|a, b| {
            let start = |id: &'_ str| {
                id.rsplit_once("-rule")
                    .map_or(String::new(), |(s, _)| s.into())
            };
            if self.bug == Bug::RulesInOrderOfNumbers {
                (start(&a.2), a.1).cmp(&(start(&b.2), b.1))
            } else {
                a.2.cmp(&b.2)
            }
        });
        let first = |action| {
            let of_action = matched.iter().find(|(of, ..)| *of == action);
            of_action.map(|(.., id)| id.clone())
        };
        let (allow, mut deny) = (first(Action::Allow), first(Action::Deny));
        if self.bug == Bug::AllowBeforeDeny && allow.is_some() {
            deny = None;
        }
        let answer = if deny.is_some() {
            Answer::Denied { rule: deny }
        } else if restricted && allow.is_none() {
            Answer::Denied { rule: None }
        } else {
            Answer::Allowed { passed }
        };
        (answer, first(Action::Audit))
    }

    fn matches(&self, policy: &AuthorizationPolicy, rule: &Rule) -> bool {
        // Of a field that TCP does not have: nothing of an ALLOW rule is left, and no word of another.
        let void = Cell::new(false);
        let both = |list: &[String], not: &[String], matches: &dyn Fn(&str) -> bool| {
            let any = |list: &[String]| list.iter().any(|value| matches(value));
            (list.is_empty() || any(list)) && !any(not)
        };
        let of_http = |list: &[String], not: &[String], matches: &dyn Fn(&str) -> bool| {
            if list.is_empty() && not.is_empty() {
                return true;
            }
            if self.request.is_some() {
                return both(list, not, matches);
            }
            if policy.action == Action::Allow && self.bug != Bug::AllowOfHttpAloneOnTcp {
                void.set(true);
            }
            true
        };
        let of_identity = |list: &[String], not: &[String], matches: &dyn Fn(&str) -> bool| {
            let spoiled = self.bug == Bug::NotFormsFalseOnPlainText
                && self.call.identity.is_none()
                && !not.is_empty();
            !spoiled && both(list, not, matches)
        };
        let home = self.home(policy);
        let from: Vec<bool> = rule
            .from
            .iter()
            .map(|s| {
                let all = [
                    of_identity(&s.principals, &s.not_principals, &|v| self.principal(v)),
                    of_identity(&s.namespaces, &s.not_namespaces, &|v| self.namespace(v)),
                    of_identity(&s.service_accounts, &s.not_service_accounts, &|v| {
                        self.account(v, home)
                    }),
                    of_identity(&s.trust_domains, &s.not_trust_domains, &|v| self.domain(v)),
                    both(&s.ip_blocks, &s.not_ip_blocks, &|v| {
                        self.ip(v, self.call.peer)
                    }),
                    both(&s.remote_ip_blocks, &s.not_remote_ip_blocks, &|v| {
                        self.ip(v, self.remote)
                    }),
                    of_http(&s.request_principals, &s.not_request_principals, &|v| {
                        self.request_principal(v)
                    }),
                ];
                all.iter().all(|holds| *holds)
            })
            .collect();
        let to: Vec<bool> = rule
            .to
            .iter()
            .map(|o| {
                let all = [
                    of_http(&o.hosts, &o.not_hosts, &|v| self.host(v)),
                    both(&o.ports, &o.not_ports, &|v| {
                        values::port_matches(v, self.call.port)
                    }),
                    of_http(&o.methods, &o.not_methods, &|v| {
                        let method = self.request.map_or("", |request| &request.method);
                        values::matches_if_present(v, method.as_bytes())
                    }),
                    of_http(&o.paths, &o.not_paths, &|v| self.path(v)),
                ];
                all.iter().all(|holds| *holds)
            })
            .collect();
        let when: Vec<bool> = rule
            .when
            .iter()
            .map(|c| {
                let Condition {
                    key,
                    values,
                    not_values,
                    ..
                } = c;
                let matches = |v: &str| self.condition(key, v, home);
                if key.starts_with("request.") {
                    of_http(values, not_values, &matches)
                } else if ["source.principal", "source.namespace"].contains(&key.as_str())
                    || ["source.serviceAccount", "source.trustDomain"].contains(&key.as_str())
                {
                    of_identity(values, not_values, &matches)
                } else {
                    both(values, not_values, &matches)
                }
            })
            .collect();
        let any = |list: &[bool]| list.is_empty() || list.contains(&true);
        let when = if self.bug == Bug::OneWhenIsEnough {
            any(&when)
        } else {
            !when.contains(&false)
        };
        !void.get() && any(&from) && any(&to) && when
    }

    fn home<'h>(&'h self, policy: &'h AuthorizationPolicy) -> &'h str {
        if self.bug == Bug::AccountInTheWorkloadsNamespace {
            &self.workload.namespace
        } else {
            &policy.meta.namespace
        }
    }

    fn principal(&self, value: &str) -> bool {
        identity::principal_matches(value, self.call.identity.as_deref(), &self.config)
    }

    fn namespace(&self, value: &str) -> bool {
        identity::namespace_matches(value, self.call.identity.as_deref())
    }

    fn account(&self, value: &str, home: &str) -> bool {
        identity::service_account_matches(value, home, self.call.identity.as_deref())
    }

    fn domain(&self, value: &str) -> bool {
        identity::trust_domain_matches(value, self.call.identity.as_deref(), &self.config)
    }

    fn ip(&self, block: &str, ip: IpAddr) -> bool {
        if self.bug == Bug::HostBitsOfBlocksCount
            && let Some((address, bits)) = block.split_once('/')
        {
            let masked = address.ends_with(".0") || address.ends_with("::");
            return (masked || bits == "32") && values::ip_matches(block, ip);
        }
        values::ip_matches(block, ip)
    }

    fn request_principal(&self, value: &str) -> bool {
        let principal = self.claims.and_then(Claims::principal);
        if self.bug == Bug::SplitAtTheFirstSlash
            && let (Some((issuer, subject)), Some((iss, sub))) = (value.split_once('/'), principal)
            && !value.contains('*')
        {
            return iss == issuer && sub == subject;
        }
        identity::request_principal_matches(value, principal)
    }

    fn host(&self, value: &str) -> bool {
        let mut authority = self.request.map_or("", |request| &request.authority);
        if self.bug == Bug::HostWithoutPort {
            authority = authority.split(':').next().unwrap_or_default();
        }
        values::host_matches(value, authority)
    }

    fn path(&self, value: &str) -> bool {
        let target = self.request.map_or("", |request| &request.target);
        let path = if self.bug == Bug::QueryIsOfThePath {
            target
        } else {
            path::without_query(target)
        };
        if template::is_template(value) {
            let wider = value.replace("{*}", "{**}");
            return match self.bug {
                Bug::StarOfTemplateCrossesSlash => template::matches(&wider, path),
                _ => template::matches(value, path),
            };
        }
        match (value.strip_prefix('*'), value.strip_suffix('*')) {
            (None, Some(start)) if self.bug == Bug::PrefixEndsAtASegment => {
                path.strip_prefix(start).is_some_and(|rest| {
                    rest.is_empty() || rest.starts_with('/') || start.ends_with('/')
                })
            }
            _ => self.text(value, path.as_bytes()),
        }
    }

    fn text(&self, value: &str, text: &[u8]) -> bool {
        match value.strip_prefix('*') {
            Some(end) if self.bug == Bug::SuffixIgnoresCase && !end.is_empty() => text
                .to_ascii_lowercase()
                .ends_with(end.to_ascii_lowercase().as_bytes()),
            _ => values::matches(value, text),
        }
    }

    fn condition(&self, key: &str, value: &str, home: &str) -> bool {
        let names: Vec<&str> = key
            .split_once('[')
            .map_or("", |(_, names)| names)
            .trim_end_matches(']')
            .split("][")
            .collect();
        match key {
            "source.ip" => self.ip(value, self.call.peer),
            "remote.ip" => self.ip(value, self.remote),
            "destination.ip" => self.ip(value, self.call.reached),
            "destination.port" => values::port_matches(value, self.call.port),
            "source.namespace" => self.namespace(value),
            "source.principal" => self.principal(value),
            "source.serviceAccount" => self.account(value, home),
            "source.trustDomain" => self.domain(value),
            "connection.sni" => self
                .call
                .sni
                .as_ref()
                .is_some_and(|sni| values::matches(value, sni.as_bytes())),
            "request.auth.principal" => self.request_principal(value),
            "request.auth.audiences" => self.claim(&["aud"], value),
            "request.auth.presenter" => self.claim(&["azp"], value),
            _ if key.starts_with("request.auth.claims") => self.claim(&names, value),
            _ if key.starts_with("request.headers") => self.header(names[0], value),
            _ => false,
        }
    }

    fn claim(&self, names: &[&str], value: &str) -> bool {
        let Some(claims) = self.claims else {
            return false;
        };
        let mut texts = claims.texts(names);
        match claims.get(names) {
            Some(Value::Number(number)) if self.bug == Bug::NumbersMatch => {
                texts.push(number.to_string());
            }
            Some(Value::String(text)) if self.bug == Bug::ScopeIsOneText => {
                texts = vec![text.clone()];
            }
            _ => {}
        }
        texts.iter().any(|text| self.text(value, text.as_bytes()))
    }

    fn header(&self, name: &str, value: &str) -> bool {
        let lines = self.request.map_or(&[][..], |request| &request.lines);
        let mut found = values::header(lines, name);
        if self.bug == Bug::HeaderLinesJoined && found.len() > 1 {
            found = vec![found.join(&b","[..])];
        }
        found
            .iter()
            .any(|line| values::matches_if_present(value, line) || self.text(value, line))
    }
}
