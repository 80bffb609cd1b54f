//! The semantics, read literally.

use std::collections::BTreeSet;
use std::net::IpAddr;

use meshward_core::api::authorization_policy::{
    Action, AuthorizationPolicy, Operation, Rule, Source,
};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::meta::Meta;
use meshward_core::authz::Layer;

use super::{Outcome, Request, regex};

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

type OneValue<'f> = dyn Fn(&str) -> Option<bool> + 'f;

/// A field: its values, whether it is a not-form, whether TCP has it, and what one value says; `None`: cannot be judged.
struct Field<'f> {
    values: &'f [String],
    negated: bool,
    on_tcp: bool,
    matches: Box<OneValue<'f>>,
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
                    san.as_deref()
                        .is_some_and(|san| expanded.iter().any(|value| is_principal(value, san))),
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
pub(super) fn in_block(value: &str, ip: IpAddr) -> Option<bool> {
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
