//! The evaluator against a second one that reads the semantics literally.
//!
//! The model works on policies as they are written: it compiles nothing, indexes nothing, and turns the patterns that are
//! defined as regular expressions (S-127 to S-130, S-140) into just those. It shares no code with the crate but the types of
//! policies.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use meshward_core::api::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, Rule, Source,
};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::meta::{Meta, Origin};
use meshward_core::authz::compile::compile;
use meshward_core::authz::{
    Attributes, Decision, HttpAttributes, Layer, RuleSets, evaluate, explain,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

/// What is judged, owned.
#[derive(Clone, Debug)]
struct Request {
    principal: Option<String>,
    source_ip: IpAddr,
    remote_ip: IpAddr,
    port: u16,
    method: String,
    path: String,
    authority: String,
}

/// The decision and the AUDIT rule that was heard, in words.
type Outcome = (String, Option<String>);

mod model {
    use super::*;

    pub(super) fn judge(
        policies: &[AuthorizationPolicy],
        mesh: &MeshConfig,
        layer: Layer,
        request: &Request,
    ) -> Outcome {
        let first = |action: Action| {
            let mut matching = BTreeSet::new();
            for policy in policies.iter().filter(|policy| policy.action == action) {
                for (number, rule) in policy.rules.iter().enumerate() {
                    if in_force(policy) && rule_matches(policy, rule, mesh, layer, request) {
                        matching.insert(id(policy, number));
                    }
                }
            }
            matching.pop_first()
        };
        if let Some(id) = first(Action::Custom) {
            return (format!("denied by {id}"), None);
        }
        let audit = first(Action::Audit);
        if let Some(id) = first(Action::Deny) {
            return (format!("denied by {id}"), audit);
        }
        let restricted =
            |policy: &AuthorizationPolicy| policy.action == Action::Allow && in_force(policy);
        if !policies.iter().any(restricted) {
            return ("allowed by none".into(), audit);
        }
        match first(Action::Allow) {
            Some(id) => (format!("allowed by {id}"), audit),
            None => ("denied by none".into(), audit),
        }
    }

    fn in_force(policy: &AuthorizationPolicy) -> bool {
        !policy.dry_run || matches!(policy.action, Action::Audit | Action::Custom)
    }

    fn id(policy: &AuthorizationPolicy, number: usize) -> String {
        let Meta {
            name, namespace, ..
        } = &policy.meta;
        let id = format!("ns[{namespace}]-policy[{name}]-rule[{number}]");
        match (policy.action, &policy.provider) {
            (Action::Custom, Some(provider)) => {
                format!("istio-ext-authz-{provider}-{id}-deny-due-to-bad-CUSTOM-action")
            }
            _ => id,
        }
    }

    /// S-114, with what cannot be judged as in S-155 and S-156.
    fn rule_matches(
        policy: &AuthorizationPolicy,
        rule: &Rule,
        mesh: &MeshConfig,
        layer: Layer,
        request: &Request,
    ) -> bool {
        let mut judged = true;
        let mut from = rule.from.is_empty();
        for source in &rule.from {
            from |= all(
                &source_fields(source, &policy.meta.namespace, mesh, request),
                layer,
                &mut judged,
            );
        }
        let mut to = rule.to.is_empty();
        for operation in &rule.to {
            to |= all(&operation_fields(operation, request), layer, &mut judged);
        }
        judged &= rule.when.is_empty();
        from && to && (judged || policy.action != Action::Allow)
    }

    /// A field: its values, whether it is a not-form, whether TCP has it, and what one value says; `None`: cannot be judged.
    struct Field<'f> {
        values: &'f [String],
        negated: bool,
        on_tcp: bool,
        matches: Box<dyn Fn(&str) -> Option<bool> + 'f>,
    }

    fn all(fields: &[Field<'_>], layer: Layer, judged: &mut bool) -> bool {
        let mut all = true;
        for field in fields.iter().filter(|field| !field.values.is_empty()) {
            let answers: Option<Vec<bool>> = field
                .values
                .iter()
                .map(|value| (field.matches)(value))
                .collect();
            match answers {
                Some(answers) if field.on_tcp || layer == Layer::Http => {
                    all &= answers.contains(&true) != field.negated;
                }
                _ => *judged = false,
            }
        }
        all
    }

    fn source_fields<'f>(
        source: &'f Source,
        policy_namespace: &'f str,
        mesh: &'f MeshConfig,
        request: &'f Request,
    ) -> Vec<Field<'f>> {
        let san = request
            .principal
            .as_ref()
            .map(|principal| format!("spiffe://{principal}"));
        let san = move || san.clone();
        let mut fields: Vec<Field<'f>> = Vec::new();
        let mut field = |values: &'f [String], negated, matches| {
            fields.push(Field {
                values,
                negated,
                on_tcp: true,
                matches,
            });
        };
        for (values, negated) in [(&source.principals, false), (&source.not_principals, true)] {
            let san = san();
            field(
                values,
                negated,
                Box::new(move |value| {
                    let expanded = principals_of(value, mesh);
                    Some(
                        san.as_deref().is_some_and(|san| {
                            expanded.iter().any(|value| is_principal(value, san))
                        }),
                    )
                }),
            );
        }
        for (values, negated) in [(&source.namespaces, false), (&source.not_namespaces, true)] {
            let san = san();
            field(
                values,
                negated,
                Box::new(move |value| {
                    let parts: Vec<String> = value.split('*').map(regex::quote).collect();
                    let pattern = format!(".*/ns/{}/.*", parts.join(".*"));
                    Some(san.as_deref().is_some_and(|san| regex::full(&pattern, san)))
                }),
            );
        }
        for (values, negated) in [
            (&source.service_accounts, false),
            (&source.not_service_accounts, true),
        ] {
            let san = san();
            field(
                values,
                negated,
                Box::new(move |value| {
                    let parts: Vec<&str> = value.split('/').collect();
                    let (namespace, name) = match parts[..] {
                        [name] => (policy_namespace, name),
                        [namespace, name] => (namespace, name),
                        _ => return None,
                    };
                    if namespace.is_empty() || name.is_empty() || value.contains('*') {
                        return None;
                    }
                    let (namespace, name) = (regex::quote(namespace), regex::quote(name));
                    let pattern = format!("spiffe://.+/ns/{namespace}/(.+/|)sa/{name}(/.+)?");
                    Some(san.as_deref().is_some_and(|san| regex::full(&pattern, san)))
                }),
            );
        }
        for (values, negated) in [
            (&source.trust_domains, false),
            (&source.not_trust_domains, true),
        ] {
            let san = san();
            field(
                values,
                negated,
                Box::new(move |value| {
                    let stars = value.matches('*').count();
                    let at_end = value.starts_with('*') || value.ends_with('*');
                    if stars > 1 || (stars == 1 && !at_end) {
                        return None;
                    }
                    let known = known_trust_domains(mesh);
                    let values = if known.contains(&value) {
                        known
                    } else {
                        vec![value]
                    };
                    Some(san.as_deref().is_some_and(|san| {
                        values.iter().any(|value| {
                            let parts: Vec<String> = value.split('*').map(regex::quote).collect();
                            let pattern = format!("spiffe://{}/.*", parts.join("[^/]*"));
                            *value == "*" || regex::full(&pattern, san)
                        })
                    }))
                }),
            );
        }
        for (values, negated, ip) in [
            (&source.ip_blocks, false, request.source_ip),
            (&source.not_ip_blocks, true, request.source_ip),
            (&source.remote_ip_blocks, false, request.remote_ip),
            (&source.not_remote_ip_blocks, true, request.remote_ip),
        ] {
            field(values, negated, Box::new(move |value| in_block(value, ip)));
        }
        for (values, negated) in [
            (&source.request_principals, false),
            (&source.not_request_principals, true),
        ] {
            field(values, negated, Box::new(|_| None));
        }
        fields
    }

    fn operation_fields<'f>(operation: &'f Operation, request: &'f Request) -> Vec<Field<'f>> {
        let is_host = |value: &str| {
            let authority = request.authority.to_ascii_lowercase();
            Some(is_header(&value.to_ascii_lowercase(), &authority))
        };
        let is_method = |value: &str| Some(is_header(value, &request.method));
        let is_path = |value: &str| path_matches(value, &request.path);
        let is_port = |value: &str| {
            let digits = !value.is_empty() && value.chars().all(|c| c.is_ascii_digit());
            let number: u64 = value.parse().ok().filter(|_| digits)?;
            (number <= 65535).then_some(number == u64::from(request.port))
        };
        let field = |values: &'f [String], negated, on_tcp, matches| Field {
            values,
            negated,
            on_tcp,
            matches,
        };
        vec![
            field(&operation.hosts, false, false, Box::new(is_host)),
            field(&operation.not_hosts, true, false, Box::new(is_host)),
            field(&operation.methods, false, false, Box::new(is_method)),
            field(&operation.not_methods, true, false, Box::new(is_method)),
            field(&operation.paths, false, false, Box::new(is_path)),
            field(&operation.not_paths, true, false, Box::new(is_path)),
            field(&operation.ports, false, true, Box::new(is_port)),
            field(&operation.not_ports, true, true, Box::new(is_port)),
        ]
    }

    /// S-127.
    fn is_principal(value: &str, san: &str) -> bool {
        if value == "*" {
            regex::full(".+", san)
        } else if let Some(suffix) = value.strip_prefix('*') {
            regex::full(&format!("spiffe://.*{}", regex::quote(suffix)), san)
        } else if let Some(prefix) = value.strip_suffix('*') {
            san.starts_with(&format!("spiffe://{prefix}"))
        } else {
            san == format!("spiffe://{value}")
        }
    }

    /// S-124.
    fn is_header(value: &str, actual: &str) -> bool {
        value == "*" || is_string(value, actual)
    }

    /// S-123.
    fn is_string(value: &str, actual: &str) -> bool {
        if value == "*" {
            !actual.is_empty()
        } else if let Some(suffix) = value.strip_prefix('*') {
            actual.ends_with(suffix)
        } else if let Some(prefix) = value.strip_suffix('*') {
            actual.starts_with(prefix)
        } else {
            actual == value
        }
    }

    /// S-139 to S-142, S-175.
    fn path_matches(value: &str, path: &str) -> Option<bool> {
        const CHARACTERS: &str = "A-Za-z0-9-._~%!$&'()+,;:@=*";
        if !value.contains(['{', '}']) {
            return Some(is_string(value, path));
        }
        let mut seen_double = false;
        let mut pattern = String::new();
        for segment in value.trim_matches('/').split('/') {
            let operator = ["{*}", "{**}"].contains(&segment);
            let plain = !segment.is_empty()
                && !segment.contains('*')
                && segment.chars().all(|c| regex::in_set(CHARACTERS, c));
            if (operator && seen_double) || (!operator && !plain) {
                return None;
            }
            seen_double |= segment == "{**}";
        }
        for segment in value.split('/') {
            pattern.push('/');
            match segment {
                "{*}" => pattern.push_str(&format!("[{CHARACTERS}]+")),
                "{**}" => pattern.push_str(&format!("[{CHARACTERS}/]*")),
                literal => pattern.push_str(&regex::quote(literal)),
            }
        }
        Some(regex::full(&pattern[1..], path))
    }

    /// S-134.
    fn in_block(value: &str, ip: IpAddr) -> Option<bool> {
        let (address, length) = match value.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<usize>().ok()?)),
            None => (value, None),
        };
        let of = |ip| match ip {
            IpAddr::V4(ip) => bits(&ip.octets()),
            IpAddr::V6(ip) => bits(&ip.octets()),
        };
        let (net, ip) = (of(address.parse().ok()?), of(ip));
        let same_family = net.len() == ip.len();
        let head = net.get(..length.unwrap_or(net.len()))?;
        Some(same_family && ip.starts_with(head))
    }

    fn bits(octets: &[u8]) -> Vec<bool> {
        let octet = |octet: &u8| {
            let octet = *octet;
            (0..8).rev().map(move |bit| octet >> bit & 1 == 1)
        };
        octets.iter().flat_map(octet).collect()
    }

    fn known_trust_domains(mesh: &MeshConfig) -> Vec<&str> {
        let mut known = vec![mesh.trust_domain.as_str()];
        known.extend(mesh.trust_domain_aliases.iter().map(String::as_str));
        known
    }

    /// S-88.
    fn principals_of(value: &str, mesh: &MeshConfig) -> Vec<String> {
        let parts: Vec<&str> = value.split('/').collect();
        let known = known_trust_domains(mesh);
        if parts.len() != 5 || parts[0] == "*" {
            return vec![value.to_owned()];
        }
        let own = parts[0];
        let takes = |known: &&str| is_string(own, known);
        if own != "cluster.local" && !known.iter().any(takes) {
            return vec![value.to_owned()];
        }
        let rest = parts[1..].join("/");
        known
            .iter()
            .map(|known| match own.strip_prefix('*') {
                Some(suffix) if known.ends_with(suffix) => value.to_owned(),
                _ => format!("{known}/{rest}"),
            })
            .collect()
    }
}

/// As much of regular expressions as the semantics use, by sets of ends: slow, and plainly right.
mod regex {
    use std::collections::BTreeSet;

    enum Node {
        One(Box<dyn Fn(char) -> bool>),
        Many(Box<Self>),
        Sequence(Vec<Self>),
        Either(Vec<Self>),
    }

    /// Whether the whole text is an instance of the pattern.
    pub(super) fn full(pattern: &str, text: &str) -> bool {
        let pattern: Vec<char> = pattern.chars().collect();
        let mut at = 0;
        let node = either(&pattern, &mut at);
        assert_eq!(at, pattern.len(), "the pattern is read to its end");
        let text: Vec<char> = text.chars().collect();
        ends(&node, &text, 0).contains(&text.len())
    }

    pub(super) fn quote(literal: &str) -> String {
        let special = |c: char| !c.is_alphanumeric() && c != '/' && c != ':';
        let quote = |c: char| {
            let escape = special(c).then_some('\\');
            escape.into_iter().chain([c])
        };
        literal.chars().flat_map(quote).collect()
    }

    /// Whether the character is in a set written as between brackets.
    pub(super) fn in_set(set: &str, character: char) -> bool {
        let set: Vec<char> = set.chars().collect();
        let mut at = 0;
        while at < set.len() {
            if at + 2 < set.len() && set[at + 1] == '-' && set[at].is_alphanumeric() {
                if (set[at]..=set[at + 2]).contains(&character) {
                    return true;
                }
                at += 3;
            } else {
                if set[at] == character {
                    return true;
                }
                at += 1;
            }
        }
        false
    }

    fn ends(node: &Node, text: &[char], start: usize) -> BTreeSet<usize> {
        match node {
            Node::One(takes) => {
                let next = text.get(start).filter(|c| takes(**c)).map(|_| start + 1);
                next.into_iter().collect()
            }
            Node::Either(nodes) => nodes
                .iter()
                .flat_map(|node| ends(node, text, start))
                .collect(),
            Node::Sequence(nodes) => nodes.iter().fold(BTreeSet::from([start]), |at, node| {
                at.into_iter().flat_map(|at| ends(node, text, at)).collect()
            }),
            Node::Many(node) => {
                let mut all = BTreeSet::from([start]);
                let mut fresh = vec![start];
                while let Some(at) = fresh.pop() {
                    fresh.extend(
                        ends(node, text, at)
                            .into_iter()
                            .filter(|end| all.insert(*end)),
                    );
                }
                all
            }
        }
    }

    fn either(pattern: &[char], at: &mut usize) -> Node {
        let mut branches = vec![sequence(pattern, at)];
        while pattern.get(*at) == Some(&'|') {
            *at += 1;
            branches.push(sequence(pattern, at));
        }
        Node::Either(branches)
    }

    fn sequence(pattern: &[char], at: &mut usize) -> Node {
        let mut nodes = Vec::new();
        while let Some(next) = pattern.get(*at).filter(|c| !"|)".contains(**c)) {
            *at += 1;
            let start = *at - 1;
            let read = |at: &mut usize| match next {
                '.' => Node::One(Box::new(|c| c != '\n')),
                '\\' => {
                    let literal = pattern[*at];
                    *at += 1;
                    Node::One(Box::new(move |c| c == literal))
                }
                '[' => {
                    let length = pattern[*at..].iter().position(|c| *c == ']');
                    let set: String = pattern[*at..*at + length.expect("a set ends")]
                        .iter()
                        .collect();
                    *at += set.chars().count() + 1;
                    match set.strip_prefix('^').map(str::to_owned) {
                        Some(set) => Node::One(Box::new(move |c| !in_set(&set, c))),
                        None => Node::One(Box::new(move |c| in_set(&set, c))),
                    }
                }
                '(' => {
                    let node = either(pattern, at);
                    *at += 1;
                    node
                }
                literal => {
                    let literal = *literal;
                    Node::One(Box::new(move |c| c == literal))
                }
            };
            let node = read(at);
            let quantifier = pattern.get(*at).copied();
            let again = |at: &mut usize| {
                *at = start + 1;
                let node = read(at);
                *at += 1;
                node
            };
            nodes.push(match quantifier {
                Some('*') => {
                    *at += 1;
                    Node::Many(Box::new(node))
                }
                Some('+') => Node::Sequence(vec![node, Node::Many(Box::new(again(at)))]),
                Some('?') => {
                    *at += 1;
                    Node::Either(vec![node, Node::Sequence(Vec::new())])
                }
                _ => node,
            });
        }
        Node::Sequence(nodes)
    }

    #[test]
    fn the_expressions_of_the_semantics_mean_what_they_say() {
        let account = "spiffe://.+/ns/a/(.+/|)sa/b(/.+)?";
        assert!(full(account, "spiffe://td/ns/a/sa/b"));
        assert!(full(account, "spiffe://td/ns/a/x/sa/b/c"));
        assert!(!full(account, "spiffe://td/ns/a/sa/b/"));
        assert!(!full(account, "spiffe:///ns/a/sa/b"));
        assert!(full("spiffe://bad[^/]*/.*", "spiffe://bad.td/x"));
        assert!(!full("spiffe://bad[^/]*/.*", "spiffe://bad"));
        assert!(full("[a-c./]+", "b./"));
        assert!(!full("[a-c./]+", ""));
        assert!(full(&quote("a[0].*"), "a[0].*"));
        assert!(!full("a\\.b", "axb"));
    }
}

/// What the crate says, by the index, with the scan of a listener checked to say the same.
fn judge(rules: &RuleSets, layer: Layer, request: &Request) -> Outcome {
    let http = HttpAttributes {
        method: &request.method,
        path: request.path.as_bytes(),
        authority: request.authority.as_bytes(),
    };
    let attributes = Attributes {
        principal: request.principal.as_deref(),
        source_ip: request.source_ip,
        remote_ip: request.remote_ip,
        destination_port: request.port,
        http: (layer == Layer::Http).then_some(http),
    };
    let mut audit = None;
    let mut hear = |id: &meshward_core::authz::PolicyId| {
        assert_eq!(audit, None, "one AUDIT rule is heard at most");
        audit = Some(id.to_string());
    };
    let decision = evaluate(rules, &attributes, &mut hear, &mut ());
    let (scanned, explanation) = explain(rules, &attributes);
    assert_eq!(decision, scanned, "indexed and scanned are equal");
    let (verb, policy) = match decision {
        Decision::Allowed { policy } => ("allowed", policy),
        Decision::Denied { policy } => ("denied", policy),
    };
    if let Some(policy) = policy {
        let matched = |rule: &&meshward_core::authz::explanation::RuleTrace| rule.id == *policy;
        let traced = explanation.rules.iter().find(matched);
        assert!(traced.is_some_and(|rule| rule.matched));
    }
    let policy = policy.map_or("none", |policy| policy.as_str());
    (format!("{verb} by {policy}"), audit)
}

const PRINCIPALS: &[&str] = &[
    "td1/ns/a/sa/x",
    "td2/ns/b/sa/y",
    "cluster.local/ns/a/sa/x",
    "td1/ns/b/sa/x",
    "td9/ns/a/sa/x",
    "ns/a/sa/x",
    "td1/ns/a/b/sa/x",
    "td1/ns/ns/sa/sa/sa",
];
const PRINCIPAL_PATTERNS: &[&str] = &[
    "td1/ns/a/sa/x",
    "td2/ns/b/sa/y",
    "cluster.local/ns/a/sa/x",
    "td9/ns/a/sa/x",
    "*1/ns/a/sa/x",
    "td*/ns/a/sa/x",
    "*/ns/a/sa/x",
    "td1/*",
    "*x",
    "*/sa/y",
    "*",
    "**",
    "*/ns/a/*",
    "spiffe://td1/ns/a/sa/x",
];
const NAMESPACE_PATTERNS: &[&str] = &[
    "a", "b", "*", "a*", "*b", "a*x", "ns", "**", "a/b", "a.b", "",
];
const ACCOUNT_PATTERNS: &[&str] = &["x", "a/x", "b/y", "ns/sa", "b/x", "a/*", "a/b/x", "sa"];
const TRUST_DOMAIN_PATTERNS: &[&str] = &["td1", "td2", "td9", "*", "td*", "*1", "ns", "*d*"];
const BLOCKS: &[&str] = &[
    "10.0.0.1",
    "10.0.0.3/31",
    "10.0.0.0/8",
    "0.0.0.0/0",
    "::/0",
    "::1",
    "::ffff:10.0.0.1",
    "10.0.0.0/33",
];
const IPS: &[&str] = &[
    "10.0.0.1",
    "10.0.0.2",
    "192.0.2.1",
    "::1",
    "::ffff:10.0.0.1",
];
const HOST_PATTERNS: &[&str] = &["a.com", "A.com", "*.com", "b*", "*", "a.com:*", "*.COM:80"];
const HOSTS: &[&str] = &["a.com", "A.COM", "a.com:80", "b.com", "", "b"];
const PORT_PATTERNS: &[&str] = &["80", "8080", "080", "65536", "+80"];
const METHOD_PATTERNS: &[&str] = &["GET", "get", "*", "G*", "*T", "POST"];
const METHODS: &[&str] = &["GET", "POST", "get", "PUT"];
const PATH_PATTERNS: &[&str] = &[
    "/",
    "/a",
    "/b",
    "/a/b",
    "/a*",
    "/a/*",
    "/a/b*",
    "*b",
    "*",
    "/*",
    "/a/{*}",
    "/a/{**}",
    "/{*}/b",
    "/a/{**}/b",
    "/{**}",
    "/{*}",
    "/a/{*}/",
    "/{x}",
    "/a//{*}",
    "/*/b",
];

fn values(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        6 => Just(Vec::new()),
        3 => vec(select(of).prop_map(str::to_owned), 1..3),
    ]
}

fn rarely(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        12 => Just(Vec::new()),
        1 => vec(select(of).prop_map(str::to_owned), 1..3),
    ]
}

fn source() -> impl Strategy<Value = Source> {
    let identity = (
        values(PRINCIPAL_PATTERNS),
        rarely(PRINCIPAL_PATTERNS),
        values(NAMESPACE_PATTERNS),
        rarely(NAMESPACE_PATTERNS),
        rarely(ACCOUNT_PATTERNS),
        rarely(ACCOUNT_PATTERNS),
        rarely(TRUST_DOMAIN_PATTERNS),
        rarely(TRUST_DOMAIN_PATTERNS),
    );
    let addresses = (
        rarely(BLOCKS),
        rarely(BLOCKS),
        rarely(BLOCKS),
        rarely(BLOCKS),
    );
    let jwt = (rarely(&["*"]), rarely(&["i/s"]));
    (identity, addresses, jwt).prop_map(|(identity, addresses, jwt)| Source {
        principals: identity.0,
        not_principals: identity.1,
        namespaces: identity.2,
        not_namespaces: identity.3,
        service_accounts: identity.4,
        not_service_accounts: identity.5,
        trust_domains: identity.6,
        not_trust_domains: identity.7,
        ip_blocks: addresses.0,
        not_ip_blocks: addresses.1,
        remote_ip_blocks: addresses.2,
        not_remote_ip_blocks: addresses.3,
        request_principals: jwt.0,
        not_request_principals: jwt.1,
    })
}

fn path_pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => select(PATH_PATTERNS).prop_map(str::to_owned),
        1 => "/[ab/]{0,4}\\*?",
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    (
        rarely(HOST_PATTERNS),
        rarely(HOST_PATTERNS),
        rarely(PORT_PATTERNS),
        rarely(PORT_PATTERNS),
        values(METHOD_PATTERNS),
        rarely(METHOD_PATTERNS),
        prop_oneof![2 => Just(Vec::new()), 3 => vec(path_pattern(), 1..3)],
        prop_oneof![8 => Just(Vec::new()), 1 => vec(path_pattern(), 1..3)],
    )
        .prop_map(|fields| Operation {
            hosts: fields.0,
            not_hosts: fields.1,
            ports: fields.2,
            not_ports: fields.3,
            methods: fields.4,
            not_methods: fields.5,
            paths: fields.6,
            not_paths: fields.7,
        })
}

fn origin() -> Origin {
    Origin {
        file: "model.yaml".into(),
        line: 1,
        column: 1,
    }
}

fn rule() -> impl Strategy<Value = Rule> {
    let condition = Condition {
        key: "destination.port".into(),
        values: vec!["80".into()],
        not_values: Vec::new(),
        origin: origin(),
    };
    (
        prop_oneof![1 => Just(Vec::new()), 2 => vec(source(), 1..3)],
        prop_oneof![1 => Just(Vec::new()), 2 => vec(operation(), 1..3)],
        prop_oneof![15 => Just(Vec::new()), 1 => Just(vec![condition])],
    )
        .prop_map(|(from, to, when)| Rule {
            from,
            to,
            when,
            origin: origin(),
        })
}

/// A rule that demands much, so that most of many do not match.
fn narrow_rule() -> impl Strategy<Value = Rule> {
    let to = (select(METHODS), "/[ab/]{1,4}\\*?").prop_map(|(method, path)| Operation {
        methods: vec![method.to_owned()],
        paths: vec![path],
        ..Operation::default()
    });
    let from = (
        vec(select(PRINCIPALS).prop_map(str::to_owned), 0..3),
        rarely(&["a", "b"]),
        rarely(&["x", "b/y"]),
    );
    let from = from.prop_map(|(principals, namespaces, service_accounts)| Source {
        principals,
        namespaces,
        service_accounts,
        ..Source::default()
    });
    (vec(from, 1..3), vec(to, 1..2)).prop_map(|(from, to)| Rule {
        from,
        to,
        when: Vec::new(),
        origin: origin(),
    })
}

fn policies(
    rules: impl Strategy<Value = Vec<Rule>>,
) -> impl Strategy<Value = Vec<AuthorizationPolicy>> {
    let action = prop_oneof![
        5 => Just(Action::Allow),
        3 => Just(Action::Deny),
        1 => Just(Action::Audit),
        1 => Just(Action::Custom),
    ];
    let namespace = select(&["a", "istio-system"][..]);
    let dry_run = prop::bool::weighted(0.1);
    vec((action, namespace, rules, dry_run), 0..4).prop_map(|drafts| {
        let policy = |(number, (action, namespace, rules, dry_run))| AuthorizationPolicy {
            meta: Meta {
                name: format!("p{number}"),
                namespace: str::to_owned(namespace),
                created: 0,
                annotations: BTreeMap::new(),
                labels: BTreeMap::new(),
                origin: origin(),
            },
            selector: None,
            targets: false,
            action,
            provider: (action == Action::Custom).then(|| "ext".to_owned()),
            rules,
            dry_run,
        };
        drafts.into_iter().enumerate().map(policy).collect()
    })
}

fn request() -> impl Strategy<Value = Request> {
    let principal = prop_oneof![
        1 => Just(None),
        4 => select(PRINCIPALS).prop_map(|principal| Some(principal.to_owned())),
        2 => vec(select(&["td1", "ns", "sa", "a", "b", "x"][..]), 2..9)
            .prop_map(|segments| Some(segments.join("/"))),
    ];
    let ip = || select(IPS).prop_map(|ip| ip.parse().expect("an address"));
    let path = prop_oneof![
        1 => select(&["/", "/a", "/a/b", "/a/", "/a/x/b", "/b", "/*/b"][..]).prop_map(str::to_owned),
        1 => "/[ab/\\[*.]{0,5}",
    ];
    (
        principal,
        ip(),
        ip(),
        select(&[80, 8080, 9000][..]),
        select(METHODS),
        path,
        select(HOSTS),
    )
        .prop_map(|fields| Request {
            principal: fields.0,
            source_ip: fields.1,
            remote_ip: fields.2,
            port: fields.3,
            method: fields.4.to_owned(),
            path: fields.5,
            authority: fields.6.to_owned(),
        })
}

const TRUST_DOMAINS: &[&[&str]] = &[
    &["cluster.local"],
    &["td1"],
    &["td1", "td2"],
    &["td2", "other", "td1"],
];

fn mesh() -> impl Strategy<Value = MeshConfig> {
    select(TRUST_DOMAINS).prop_map(|domains| MeshConfig {
        trust_domain: domains[0].to_owned(),
        trust_domain_aliases: domains[1..].iter().map(|td| (*td).to_owned()).collect(),
        ..MeshConfig::default()
    })
}

fn layer() -> impl Strategy<Value = Layer> {
    prop_oneof![3 => Just(Layer::Http), 1 => Just(Layer::Tcp)]
}

/// Holds the crate against the model for `cases` generated meshes; each kind of decision must have come up.
fn compare(cases: u32, rules: impl Strategy<Value = Vec<Rule>>) {
    let seen: RefCell<BTreeMap<&str, u32>> = RefCell::default();
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let strategy = (policies(rules), mesh(), layer(), vec(request(), 1..8));
    let outcome = TestRunner::new(config).run(&strategy, |(policies, mesh, layer, requests)| {
        let borrowed: Vec<_> = policies.iter().collect();
        let rules = compile(&borrowed, &mesh, layer);
        for request in &requests {
            let expected = model::judge(&policies, &mesh, layer, request);
            prop_assert_eq!(&judge(&rules, layer, request), &expected, "{:?}", request);
            let (decision, audit) = &expected;
            let kind = match decision.as_str() {
                "allowed by none" => "nothing in force",
                "denied by none" => "nothing allows",
                text if text.contains("ext-authz") => "custom denies",
                text if text.starts_with("allowed") => "a rule allows",
                _ => "a rule denies",
            };
            let mut seen = seen.borrow_mut();
            *seen.entry(kind).or_default() += 1;
            if audit.is_some() {
                *seen.entry("a rule audits").or_default() += 1;
            }
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let seen = seen.into_inner();
    println!("{seen:?}");
    assert_eq!(seen.len(), 6, "every kind of decision comes up: {seen:?}");
    assert!(seen.values().all(|count| *count > cases / 50), "{seen:?}");
}

#[test]
fn decisions_and_policy_ids_are_those_of_the_model() {
    compare(
        4096,
        prop_oneof![4 => vec(rule(), 0..4), 1 => vec(rule(), 10..13)],
    );
}

#[test]
fn many_rules_are_decided_as_by_the_model() {
    compare(192, vec(narrow_rule(), 0..60));
}
