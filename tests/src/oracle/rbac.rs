//! AuthorizationPolicies into the RBAC filters that istiod makes of them.
//!
//! Written after istiod's output (the set `istio_authz_builder`, which the test below holds it against), not after our own
//! compiler: a mistake made twice would be no oracle. Trust-domain aliases alone are expanded by our function, whose rules have
//! cases of their own.

use meshward_core::api::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, Rule, Source,
};
use meshward_core::authz::trust_domain::{expand_principals, expand_trust_domains};
use serde_json::{Map, Value, json};

/// What the filter chain speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    Http,
    Tcp,
}

/// The filters for the enforced policies of one workload, in their order: AUDIT, DENY, ALLOW. `trust_domains`: the mesh's
/// own, then its aliases.
pub fn filters(
    policies: &[&AuthorizationPolicy],
    trust_domains: &[&str],
    chain: Chain,
) -> Vec<Value> {
    [
        (Action::Audit, "LOG"),
        (Action::Deny, "DENY"),
        (Action::Allow, ""),
    ]
    .into_iter()
    .filter_map(|(action, word)| {
        let of_action: Vec<_> = policies
            .iter()
            .filter(|policy| policy.action == action && !policy.dry_run)
            .collect();
        if of_action.is_empty() {
            return None;
        }
        let mut rules = Map::new();
        for policy in of_action {
            for (id, rule) in translated(policy, trust_domains, chain) {
                rules.insert(id, rule);
            }
        }
        Some(filter(word, rules, chain))
    })
    .collect()
}

fn filter(action: &str, policies: Map<String, Value>, chain: Chain) -> Value {
    let mut rules = json!({});
    if !policies.is_empty() {
        rules["policies"] = policies.into();
    }
    if !action.is_empty() {
        rules["action"] = action.into();
    }
    let (name, kind) = match chain {
        Chain::Http => (
            "envoy.filters.http.rbac",
            "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        ),
        Chain::Tcp => (
            "envoy.filters.network.rbac",
            "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
        ),
    };
    let mut config = json!({
        "@type": kind,
        "rules": rules,
        "shadowRulesStatPrefix": "istio_dry_run_allow_",
    });
    if chain == Chain::Tcp {
        config["statPrefix"] = "tcp.".into();
    }
    json!({"name": name, "typedConfig": config})
}

fn translated(
    policy: &AuthorizationPolicy,
    trust_domains: &[&str],
    chain: Chain,
) -> Vec<(String, Value)> {
    let meta = &policy.meta;
    let id = |number: usize| {
        format!(
            "ns[{}]-policy[{}]-rule[{number}]",
            meta.namespace, meta.name
        )
    };
    if policy.rules.is_empty() {
        let nothing = json!({
            "permissions": [{"notRule": {"any": true}}],
            "principals": [{"notId": {"any": true}}],
        });
        return vec![(id(0), nothing)];
    }
    let mut translation = Translation {
        trust_domains,
        namespace: &meta.namespace,
        chain,
        lacking: false,
    };
    let mut all = Vec::new();
    for (number, rule) in policy.rules.iter().enumerate() {
        translation.lacking = false;
        let value = translation.rule(rule);
        if !(translation.lacking && policy.action == Action::Allow) {
            all.push((id(number), value));
        }
    }
    all
}

struct Translation<'p> {
    trust_domains: &'p [&'p str],
    /// Of the policy.
    namespace: &'p str,
    chain: Chain,
    /// The rule has a field that a TCP chain does not have.
    lacking: bool,
}

/// Which half of an RBAC policy a matcher belongs to, with the words for "or" and "not" there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Permission,
    Principal,
}

impl Half {
    fn or(self, matchers: Vec<Value>) -> Value {
        match self {
            Self::Permission => json!({"orRules": {"rules": matchers}}),
            Self::Principal => json!({"orIds": {"ids": matchers}}),
        }
    }

    fn and(self, mut matchers: Vec<Value>) -> Value {
        if matchers.is_empty() {
            matchers.push(json!({"any": true}));
        }
        match self {
            Self::Permission => json!({"andRules": {"rules": matchers}}),
            Self::Principal => json!({"andIds": {"ids": matchers}}),
        }
    }

    fn not(self, matcher: &Value) -> Value {
        match self {
            Self::Permission => json!({"notRule": matcher}),
            Self::Principal => json!({"notId": matcher}),
        }
    }
}

impl Translation<'_> {
    fn rule(&mut self, rule: &Rule) -> Value {
        let (mut permissions, mut principals) = (Vec::new(), Vec::new());
        for condition in &rule.when {
            self.condition(condition, &mut permissions, &mut principals);
        }
        let with = |mut own: Vec<Value>, when: &[Value], half: Half| {
            own.extend_from_slice(when);
            half.and(own)
        };
        let operations: Vec<Value> = if rule.to.is_empty() {
            vec![with(Vec::new(), &permissions, Half::Permission)]
        } else {
            let each = rule
                .to
                .iter()
                .map(|operation| with(self.operation(operation), &permissions, Half::Permission));
            each.collect()
        };
        let sources: Vec<Value> = if rule.from.is_empty() {
            vec![with(Vec::new(), &principals, Half::Principal)]
        } else {
            let each = rule
                .from
                .iter()
                .map(|source| with(self.source(source), &principals, Half::Principal));
            each.collect()
        };
        json!({"permissions": operations, "principals": sources})
    }

    fn source(&mut self, source: &Source) -> Vec<Value> {
        let mut out = Vec::new();
        let half = Half::Principal;
        self.either(
            half,
            &source.principals,
            &source.not_principals,
            &mut out,
            |t, v| {
                let expanded = expand_principals(t.trust_domains, v);
                expanded.iter().map(|v| principal(v)).collect()
            },
        );
        self.http_only(
            half,
            &source.request_principals,
            &source.not_request_principals,
            &mut out,
            |_, v| v.iter().map(|v| request_principal(v)).collect(),
        );
        self.either(
            half,
            &source.namespaces,
            &source.not_namespaces,
            &mut out,
            |_, v| v.iter().map(|v| namespace(v)).collect(),
        );
        self.either(
            half,
            &source.service_accounts,
            &source.not_service_accounts,
            &mut out,
            |t, v| v.iter().map(|v| service_account(v, t.namespace)).collect(),
        );
        self.either(
            half,
            &source.trust_domains,
            &source.not_trust_domains,
            &mut out,
            |t, v| {
                let expanded = expand_trust_domains(t.trust_domains, v);
                expanded.iter().map(|v| trust_domain(v)).collect()
            },
        );
        self.either(
            half,
            &source.remote_ip_blocks,
            &source.not_remote_ip_blocks,
            &mut out,
            |_, v| v.iter().map(|v| json!({"remoteIp": cidr(v)})).collect(),
        );
        self.either(
            half,
            &source.ip_blocks,
            &source.not_ip_blocks,
            &mut out,
            |_, v| {
                v.iter()
                    .map(|v| json!({"directRemoteIp": cidr(v)}))
                    .collect()
            },
        );
        out
    }

    fn operation(&mut self, operation: &Operation) -> Vec<Value> {
        let mut out = Vec::new();
        let half = Half::Permission;
        self.http_only(
            half,
            &operation.hosts,
            &operation.not_hosts,
            &mut out,
            |_, v| v.iter().map(|v| host(v)).collect(),
        );
        self.http_only(
            half,
            &operation.methods,
            &operation.not_methods,
            &mut out,
            |_, v| v.iter().map(|v| header(":method", v)).collect(),
        );
        self.http_only(
            half,
            &operation.paths,
            &operation.not_paths,
            &mut out,
            |_, v| v.iter().map(|v| path(v)).collect(),
        );
        self.either(
            half,
            &operation.ports,
            &operation.not_ports,
            &mut out,
            |_, v| v.iter().map(|v| port(v)).collect(),
        );
        out
    }

    fn condition(
        &mut self,
        condition: &Condition,
        permissions: &mut Vec<Value>,
        principals: &mut Vec<Value>,
    ) {
        let (yes, no) = (&condition.values, &condition.not_values);
        let (name, inside) = condition
            .key
            .split_once('[')
            .map_or((condition.key.as_str(), ""), |(name, rest)| (name, rest));
        let inside = inside.strip_suffix(']').unwrap_or(inside);
        let (id, op) = (Half::Principal, Half::Permission);
        match name {
            "request.headers" => self.http_only(id, yes, no, principals, |_, v| {
                v.iter().map(|v| header(inside, v)).collect()
            }),
            "source.ip" => self.either(id, yes, no, principals, |_, v| {
                v.iter()
                    .map(|v| json!({"directRemoteIp": cidr(v)}))
                    .collect()
            }),
            "remote.ip" => self.either(id, yes, no, principals, |_, v| {
                v.iter().map(|v| json!({"remoteIp": cidr(v)})).collect()
            }),
            "source.namespace" => self.either(id, yes, no, principals, |_, v| {
                v.iter().map(|v| namespace(v)).collect()
            }),
            "source.principal" => self.either(id, yes, no, principals, |t, v| {
                let expanded = expand_principals(t.trust_domains, v);
                expanded.iter().map(|v| principal(v)).collect()
            }),
            "source.serviceAccount" => self.either(id, yes, no, principals, |t, v| {
                v.iter().map(|v| service_account(v, t.namespace)).collect()
            }),
            "source.trustDomain" => self.either(id, yes, no, principals, |t, v| {
                let expanded = expand_trust_domains(t.trust_domains, v);
                expanded.iter().map(|v| trust_domain(v)).collect()
            }),
            "request.auth.principal" => self.http_only(id, yes, no, principals, |_, v| {
                v.iter().map(|v| request_principal(v)).collect()
            }),
            "request.auth.audiences" => self.claims(&["aud"], yes, no, principals),
            "request.auth.presenter" => self.claims(&["azp"], yes, no, principals),
            "request.auth.claims" => {
                let names: Vec<&str> = inside.split("][").collect();
                let whole = names.iter().any(|name| name.contains(['[', ']']));
                let names = if whole { vec![inside] } else { names };
                self.claims(&names, yes, no, principals);
            }
            "destination.ip" => self.either(op, yes, no, permissions, |_, v| {
                v.iter()
                    .map(|v| json!({"destinationIp": cidr(v)}))
                    .collect()
            }),
            "destination.port" => self.either(op, yes, no, permissions, |_, v| {
                v.iter().map(|v| port(v)).collect()
            }),
            "connection.sni" => self.either(op, yes, no, permissions, |_, v| {
                let sni = v.iter().map(|v| json!({"requestedServerName": text(v)}));
                sni.collect()
            }),
            filter => {
                let filter = filter.strip_prefix("experimental.").unwrap_or(filter);
                for (values, negated) in [(yes, false), (no, true)] {
                    if values.is_empty() {
                        continue;
                    }
                    let value = any_of(values, |v| match v.strip_prefix('[') {
                        Some(list) => {
                            let inner = list.strip_suffix(']').unwrap_or(list);
                            json!({"listMatch": {"oneOf": {"stringMatch": text(inner)}}})
                        }
                        None => json!({"stringMatch": text(v)}),
                    });
                    let matcher = metadata(filter, &[inside], &value);
                    permissions.push(if negated { op.not(&matcher) } else { matcher });
                }
            }
        }
    }

    /// A claim is held against the values as a text and as a list of texts.
    fn claims(&mut self, names: &[&str], yes: &[String], no: &[String], out: &mut Vec<Value>) {
        let path: Vec<&str> = std::iter::once("payload")
            .chain(names.iter().copied())
            .collect();
        for (values, negated) in [(yes, false), (no, true)] {
            if values.is_empty() || !self.has_http() {
                continue;
            }
            let texts = any_of(values, |v| json!({"stringMatch": text(v)}));
            let value = json!({"orMatch": {"valueMatchers": [
                {"listMatch": {"oneOf": texts}},
                texts,
            ]}});
            let matcher = metadata("envoy.filters.http.jwt_authn", &path, &value);
            out.push(if negated {
                Half::Principal.not(&matcher)
            } else {
                matcher
            });
        }
    }

    fn http_only(
        &mut self,
        half: Half,
        yes: &[String],
        no: &[String],
        out: &mut Vec<Value>,
        make: impl Fn(&Self, &[String]) -> Vec<Value>,
    ) {
        if !(yes.is_empty() && no.is_empty()) && self.has_http() {
            self.either(half, yes, no, out, make);
        }
    }

    fn has_http(&mut self) -> bool {
        self.lacking |= self.chain == Chain::Tcp;
        self.chain == Chain::Http
    }

    fn either(
        &self,
        half: Half,
        yes: &[String],
        no: &[String],
        out: &mut Vec<Value>,
        make: impl Fn(&Self, &[String]) -> Vec<Value>,
    ) {
        if !yes.is_empty() {
            out.push(half.or(make(self, yes)));
        }
        if !no.is_empty() {
            out.push(half.not(&half.or(make(self, no))));
        }
    }
}

/// One matcher, or any of several.
fn any_of(values: &[String], make: impl Fn(&str) -> Value) -> Value {
    match values {
        [one] => make(one),
        several => {
            let matchers: Vec<Value> = several.iter().map(|v| make(v)).collect();
            json!({"orMatch": {"valueMatchers": matchers}})
        }
    }
}

fn metadata(filter: &str, path: &[&str], value: &Value) -> Value {
    let path: Vec<Value> = path.iter().map(|key| json!({"key": key})).collect();
    json!({"metadata": {"filter": filter, "path": path, "value": value}})
}

/// A StringMatcher.
fn text(pattern: &str) -> Value {
    if pattern == "*" {
        json!({"safeRegex": {"regex": ".+"}})
    } else if let Some(suffix) = pattern.strip_prefix('*') {
        json!({"suffix": suffix})
    } else if let Some(prefix) = pattern.strip_suffix('*') {
        json!({"prefix": prefix})
    } else {
        json!({"exact": pattern})
    }
}

fn header(name: &str, pattern: &str) -> Value {
    if pattern == "*" {
        json!({"header": {"name": name, "presentMatch": true}})
    } else {
        json!({"header": {"name": name, "stringMatch": text(pattern)}})
    }
}

fn host(pattern: &str) -> Value {
    let mut matcher = header(":authority", pattern);
    if pattern != "*" {
        matcher["header"]["stringMatch"]["ignoreCase"] = true.into();
    }
    matcher
}

fn path(pattern: &str) -> Value {
    if pattern.contains("{*}") || pattern.contains("{**}") {
        let template = pattern.replace("{**}", "**").replace("{*}", "*");
        json!({"uriTemplate": {"name": "uri-template", "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
            "pathTemplate": template,
        }}})
    } else {
        json!({"urlPath": {"path": text(pattern)}})
    }
}

fn port(number: &str) -> Value {
    json!({"destinationPort": number.parse::<u32>().unwrap_or_default()})
}

fn cidr(block: &str) -> Value {
    let (address, length) = block.split_once('/').unwrap_or((block, ""));
    let bits = if address.contains(':') { 128 } else { 32 };
    let length = length.parse::<u32>().unwrap_or(bits);
    json!({"addressPrefix": address, "prefixLen": length})
}

fn authenticated(matcher: &Value) -> Value {
    json!({"authenticated": {"principalName": matcher}})
}

fn pattern_of(regex: &str) -> Value {
    json!({"safeRegex": {"regex": regex}})
}

fn principal(pattern: &str) -> Value {
    if pattern == "*" {
        authenticated(&pattern_of(".+"))
    } else if let Some(suffix) = pattern.strip_prefix('*') {
        authenticated(&pattern_of(&format!("spiffe://.*{}", quoted(suffix))))
    } else {
        authenticated(&text(&format!("spiffe://{pattern}")))
    }
}

fn namespace(pattern: &str) -> Value {
    let pattern = quoted(pattern).replace("\\*", ".*");
    authenticated(&pattern_of(&format!(".*/ns/{pattern}/.*")))
}

fn service_account(pattern: &str, policy_namespace: &str) -> Value {
    let (namespace, name) = pattern
        .split_once('/')
        .unwrap_or((policy_namespace, pattern));
    authenticated(&pattern_of(&format!(
        "spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?",
        quoted(namespace),
        quoted(name)
    )))
}

fn trust_domain(pattern: &str) -> Value {
    if pattern == "*" {
        authenticated(&pattern_of("spiffe://.*"))
    } else if pattern.contains('*') {
        let domain = quoted(pattern).replace("\\*", "[^/]*");
        authenticated(&pattern_of(&format!("spiffe://{domain}/.*")))
    } else {
        authenticated(&json!({"prefix": format!("spiffe://{pattern}/")}))
    }
}

/// `iss` and `sub`, split at the last slash.
fn request_principal(pattern: &str) -> Value {
    let (issuer, subject) = if let Some((issuer, subject)) = pattern.rsplit_once('/') {
        (text(issuer), text(subject))
    } else if pattern == "*" {
        (text("*"), text("*"))
    } else if pattern.starts_with('*') {
        (text("*"), text(pattern))
    } else if pattern.ends_with('*') {
        (text(pattern), text("*"))
    } else {
        (text(pattern), json!({"exact": ""}))
    };
    let claim = |name, value: Value| {
        metadata(
            "envoy.filters.http.jwt_authn",
            &["payload", name],
            &json!({"stringMatch": value}),
        )
    };
    Half::Principal.and(vec![claim("iss", issuer), claim("sub", subject)])
}

/// As Go's `regexp.QuoteMeta`.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests;
