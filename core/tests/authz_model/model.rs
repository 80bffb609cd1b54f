//! The semantics, read literally.

use std::collections::BTreeSet;
use std::net::IpAddr;

use meshward_core::api::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, Rule, Source,
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
    let mut when = true;
    for condition in &rule.when {
        match condition_fields(condition, &policy.meta.namespace, mesh, request) {
            Some(fields) => when &= all(&fields, layer, &mut judged),
            None => judged = false,
        }
    }
    from && to && when && (judged || policy.action != Action::Allow)
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
        fields.push(Field {
            values,
            negated,
            on_tcp: false,
            matches: Box::new(|value| Some(is_request_principal(value, request))),
        });
    }
    fields
}

/// S-143; `None`: there is no such key. Keys that are fields of a source by another name are judged as those.
fn condition_fields<'f>(
    condition: &'f Condition,
    policy_namespace: &'f str,
    mesh: &'f MeshConfig,
    request: &'f Request,
) -> Option<Vec<Field<'f>>> {
    let index = condition.key.find('[').map(|at| &condition.key[at..]);
    let name = condition.key.split('[').next()?;
    let on_tcp = !name.starts_with("request.");
    let matches = move |value: &str| {
        Some(match name {
            "source.ip" => in_block(value, request.source_ip)?,
            "remote.ip" => in_block(value, request.remote_ip)?,
            "destination.ip" => in_block(value, request.destination_ip)?,
            "destination.port" => is_port(value, request.port)?,
            "connection.sni" => request
                .server_name
                .as_ref()
                .is_some_and(|server_name| is_string(value, server_name)),
            "request.auth.principal" => is_request_principal(value, request),
            "request.auth.audiences" => is_claim(value, &["aud"], request),
            "request.auth.presenter" => is_claim(value, &["azp"], request),
            "request.auth.claims" => {
                let inside = index?.strip_prefix('[')?.strip_suffix(']')?;
                let path: Vec<&str> = inside.split("][").collect();
                let broken = path.iter().any(|name| name.contains(['[', ']']));
                is_claim(
                    value,
                    if broken {
                        std::slice::from_ref(&inside)
                    } else {
                        &path
                    },
                    request,
                )
            }
            "request.headers" => {
                let header = index?.strip_prefix('[')?.strip_suffix(']')?;
                header_values(header, request)
                    .iter()
                    .any(|actual| is_header(value, actual))
            }
            "source.principal"
            | "source.namespace"
            | "source.serviceAccount"
            | "source.trustDomain" => {
                let mut source = Source::default();
                let field = match name {
                    "source.principal" => &mut source.principals,
                    "source.namespace" => &mut source.namespaces,
                    "source.serviceAccount" => &mut source.service_accounts,
                    _ => &mut source.trust_domains,
                };
                field.push(value.to_owned());
                let mut judged = true;
                let fields = source_fields(&source, policy_namespace, mesh, request);
                let holds = all(&fields, Layer::Tcp, &mut judged);
                judged.then_some(holds)?
            }
            _ if name.starts_with("experimental.envoy.filters.") => false,
            _ => return None,
        })
    };
    let known = [
        "source.ip",
        "remote.ip",
        "destination.ip",
        "destination.port",
        "connection.sni",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
        "request.auth.claims",
        "request.headers",
        "source.principal",
        "source.namespace",
        "source.serviceAccount",
        "source.trustDomain",
        "experimental.envoy.filters.f",
    ];
    known.contains(&name).then(|| {
        let field = |values: &'f [String], negated| Field {
            values,
            negated,
            on_tcp,
            matches: Box::new(matches),
        };
        vec![
            field(&condition.values, false),
            field(&condition.not_values, true),
        ]
    })
}

/// S-131: `iss` and `sub` as two expressions.
fn is_request_principal(value: &str, request: &Request) -> bool {
    let claim = |name: &str| {
        let token = request.token.as_ref()?;
        token.get(name)?.as_str().map(str::to_owned)
    };
    let (Some(issuer), Some(subject)) = (claim("iss"), claim("sub")) else {
        return false;
    };
    let quote = regex::quote;
    let parts = value.rsplit_once('/');
    let (for_issuer, for_subject) = if value == "*" {
        (".+".to_owned(), ".+".to_owned())
    } else if let Some(end) = value.strip_prefix('*') {
        match parts {
            Some(("*", subject)) => (".+".to_owned(), quote(subject)),
            Some((issuer, subject)) => (format!(".*{}", quote(&issuer[1..])), quote(subject)),
            None => (".+".to_owned(), format!(".*{}", quote(end))),
        }
    } else if let Some(begin) = value.strip_suffix('*') {
        match parts {
            Some((issuer, "*")) => (quote(issuer), ".+".to_owned()),
            Some((issuer, subject)) => {
                let begin = subject.trim_end_matches('*');
                assert_eq!(begin.len() + 1, subject.len(), "one star in the alphabet");
                (quote(issuer), format!("{}.*", quote(begin)))
            }
            None => (format!("{}.*", quote(begin)), ".+".to_owned()),
        }
    } else {
        let (issuer, subject) = parts.unwrap_or((value, ""));
        (quote(issuer), quote(subject))
    };
    regex::full(&for_issuer, &issuer) && regex::full(&for_subject, &subject)
}

/// S-147, S-148.
fn is_claim(value: &str, path: &[&str], request: &Request) -> bool {
    let Some(token) = &request.token else {
        return false;
    };
    let mut at = serde_json::Value::Object(token.clone());
    for name in path {
        match at.get(name) {
            Some(inner) if at.is_object() => at = inner.clone(),
            _ => return false,
        }
    }
    let texts: Vec<String> = match &at {
        serde_json::Value::String(text) if *path == ["scope"] || *path == ["permission"] => {
            text.split_ascii_whitespace().map(str::to_owned).collect()
        }
        serde_json::Value::String(text) => vec![text.clone()],
        serde_json::Value::Array(list) => {
            let texts = list.iter().filter_map(|value| value.as_str());
            texts.map(str::to_owned).collect()
        }
        _ => Vec::new(),
    };
    texts.iter().any(|text| is_string(value, text))
}

/// S-144, S-145: the values that a header has.
fn header_values(name: &str, request: &Request) -> Vec<String> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        ":method" => return vec![request.method.clone()],
        ":authority" | "host" => return vec![request.authority.clone()],
        _ => {}
    }
    let lines = request.headers.iter();
    let own = lines.filter(|(own, _)| own.to_ascii_lowercase() == name);
    let values: Vec<String> = own.map(|(_, value)| value.clone()).collect();
    match name.as_str() {
        _ if values.is_empty() => values,
        "cookie" => vec![values.join("; ")],
        "accept" | "authorization" => vec![values.join(",")],
        "keep-alive" => Vec::new(),
        _ => values,
    }
}

fn is_port(value: &str, port: u16) -> Option<bool> {
    let digits = !value.is_empty() && value.chars().all(|c| c.is_ascii_digit());
    let number: u64 = value.parse().ok().filter(|_| digits)?;
    (number <= 65535).then_some(number == u64::from(port))
}

fn operation_fields<'f>(operation: &'f Operation, request: &'f Request) -> Vec<Field<'f>> {
    let is_host = |value: &str| {
        let authority = request.authority.to_ascii_lowercase();
        Some(is_header(&value.to_ascii_lowercase(), &authority))
    };
    let is_method = |value: &str| Some(is_header(value, &request.method));
    let is_path = |value: &str| path_matches(value, &request.path);
    let is_port = |value: &str| is_port(value, request.port);
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
