//! Resources as YAML that the loader reads, and requests as a line for a shell.

use meshward_core::api::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, Rule, Source,
};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::meta::{Labels, Meta};
use meshward_core::api::peer_authentication::{Mode, PeerAuthentication};
use meshward_core::api::request_authentication::{JwtRule, KeySource, RequestAuthentication};
use meshward_core::path::Normalization;
use serde_json::{Map, Value, json};

use super::super::{Call, Mesh};

/// All documents of a mesh.
pub fn documents(mesh: &Mesh) -> Vec<Value> {
    let mut out = vec![json!({"meshConfig": config(&mesh.config)})];
    out.extend(mesh.peers.iter().map(peer));
    out.extend(mesh.requests.iter().map(request));
    out.extend(mesh.authorization.iter().map(authorization));
    out
}

/// The documents in block style.
pub fn text(documents: &[Value]) -> String {
    let mut out = String::new();
    for document in documents {
        out.push_str("---\n");
        block(document, 0, &mut out);
    }
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                out.push_str(&format!("{pad}{}:", scalar(key)));
                below(value, indent + 2, out);
            }
        }
        Value::Array(list) => {
            for value in list {
                out.push_str(&format!("{pad}-"));
                below(value, indent + 2, out);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            below(value, indent, out);
        }
    }
}

fn below(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if map.is_empty() => out.push_str(" {}\n"),
        Value::Array(list) if list.is_empty() => out.push_str(" []\n"),
        Value::Array(list) if list.iter().all(Value::is_string) => {
            let texts: Vec<String> = list.iter().map(Value::to_string).collect();
            out.push_str(&format!(" [{}]\n", texts.join(", ")));
        }
        Value::Object(_) | Value::Array(_) => {
            out.push('\n');
            block(value, indent, out);
        }
        Value::String(text) => out.push_str(&format!(" {}\n", scalar(text))),
        Value::Null | Value::Bool(_) | Value::Number(_) => out.push_str(&format!(" {value}\n")),
    }
}

/// Plain where nobody can take it for anything else, else in double quotes.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if plain {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

fn config(config: &MeshConfig) -> Value {
    let normalization = match config.normalization {
        Normalization::None => "NONE",
        Normalization::Base => "BASE",
        Normalization::MergeSlashes => "MERGE_SLASHES",
        Normalization::DecodeAndMergeSlashes => "DECODE_AND_MERGE_SLASHES",
    };
    json!({
        "rootNamespace": config.root_namespace,
        "trustDomain": config.trust_domain,
        "trustDomainAliases": config.trust_domain_aliases,
        "pathNormalization": {"normalization": normalization},
    })
}

fn resource(kind: &str, meta: &Meta, spec: Map<String, Value>) -> Value {
    let mut metadata = json!({"name": meta.name, "namespace": meta.namespace});
    if meta.created > 0 {
        // Ages differ by seconds here: a digit is enough.
        metadata["creationTimestamp"] = format!("1970-01-01T00:00:0{}Z", meta.created).into();
    }
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    })
}

fn put_selector(spec: &mut Map<String, Value>, selector: Option<&Labels>, targets: bool) {
    if let Some(labels) = selector {
        spec.insert("selector".into(), json!({"matchLabels": labels}));
    }
    if targets {
        spec.insert(
            "targetRefs".into(),
            json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}]),
        );
    }
}

fn peer(policy: &PeerAuthentication) -> Value {
    let named = |mode| match mode {
        Mode::Unset => "UNSET",
        Mode::Disable => "DISABLE",
        Mode::Permissive => "PERMISSIVE",
        Mode::Strict => "STRICT",
    };
    let mut spec = Map::new();
    put_selector(&mut spec, policy.selector.as_ref(), false);
    spec.insert("mtls".into(), json!({"mode": named(policy.mode)}));
    if !policy.port_level.is_empty() {
        let ports: Map<String, Value> = policy
            .port_level
            .iter()
            .map(|(port, mode)| (port.to_string(), json!({"mode": named(*mode)})))
            .collect();
        spec.insert("portLevelMtls".into(), ports.into());
    }
    resource("PeerAuthentication", &policy.meta, spec)
}

fn request(policy: &RequestAuthentication) -> Value {
    let mut spec = Map::new();
    put_selector(&mut spec, policy.selector.as_ref(), policy.targets);
    let rules: Vec<Value> = policy.rules.iter().map(jwt_rule).collect();
    if !rules.is_empty() {
        spec.insert("jwtRules".into(), rules.into());
    }
    resource("RequestAuthentication", &policy.meta, spec)
}

fn jwt_rule(rule: &JwtRule) -> Value {
    let mut out = Map::new();
    if !rule.issuer.is_empty() {
        out.insert("issuer".into(), json!(rule.issuer));
    }
    put_list(&mut out, "audiences", &rule.audiences);
    match &rule.keys {
        KeySource::Inline(text) => out.insert("jwks".into(), json!(text)),
        KeySource::Uri(uri) => out.insert("jwksUri".into(), json!(uri)),
        KeySource::Discovery => None,
    };
    let headers: Vec<Value> = rule
        .from_headers
        .iter()
        .map(|location| match location.prefix.as_str() {
            "" => json!({"name": location.name}),
            prefix => json!({"name": location.name, "prefix": prefix}),
        })
        .collect();
    if !headers.is_empty() {
        out.insert("fromHeaders".into(), headers.into());
    }
    put_list(&mut out, "fromParams", &rule.from_params);
    put_list(&mut out, "fromCookies", &rule.from_cookies);
    if let Some(name) = &rule.output_payload_to_header {
        out.insert("outputPayloadToHeader".into(), json!(name));
    }
    let claims: Vec<Value> = rule
        .output_claims
        .iter()
        .map(|output| json!({"header": output.header, "claim": output.claim}))
        .collect();
    if !claims.is_empty() {
        out.insert("outputClaimToHeaders".into(), claims.into());
    }
    if rule.forward_original_token {
        out.insert("forwardOriginalToken".into(), json!(true));
    }
    put_list(
        &mut out,
        "spaceDelimitedClaims",
        &rule.space_delimited_claims,
    );
    out.into()
}

fn put_list(out: &mut Map<String, Value>, name: &str, list: &[String]) {
    if !list.is_empty() {
        out.insert(name.into(), json!(list));
    }
}

fn authorization(policy: &AuthorizationPolicy) -> Value {
    let mut spec = Map::new();
    put_selector(&mut spec, policy.selector.as_ref(), policy.targets);
    let action = match policy.action {
        Action::Allow => "ALLOW",
        Action::Audit => "AUDIT",
        Action::Custom => "CUSTOM",
        Action::Deny => "DENY",
    };
    spec.insert("action".into(), json!(action));
    let rules: Vec<Value> = policy.rules.iter().map(rule).collect();
    if !rules.is_empty() {
        spec.insert("rules".into(), rules.into());
    }
    resource("AuthorizationPolicy", &policy.meta, spec)
}

fn rule(rule: &Rule) -> Value {
    let mut out = Map::new();
    let from: Vec<Value> = rule
        .from
        .iter()
        .map(|s| json!({"source": source(s)}))
        .collect();
    let to: Vec<Value> = rule
        .to
        .iter()
        .map(|o| json!({"operation": operation(o)}))
        .collect();
    let when: Vec<Value> = rule.when.iter().map(condition).collect();
    for (name, list) in [("from", from), ("to", to), ("when", when)] {
        if !list.is_empty() {
            out.insert(name.into(), list.into());
        }
    }
    out.into()
}

fn source(source: &Source) -> Value {
    let mut out = Map::new();
    for (name, list) in [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ] {
        put_list(&mut out, name, list);
    }
    out.into()
}

fn operation(operation: &Operation) -> Value {
    let mut out = Map::new();
    for (name, list) in [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("ports", &operation.ports),
        ("notPorts", &operation.not_ports),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ] {
        put_list(&mut out, name, list);
    }
    out.into()
}

fn condition(condition: &Condition) -> Value {
    let mut out = Map::new();
    out.insert("key".into(), json!(condition.key));
    put_list(&mut out, "values", &condition.values);
    put_list(&mut out, "notValues", &condition.not_values);
    out.into()
}

/// The call as one would make it by hand, with what curl cannot say in a comment.
pub fn shell_line(call: &Call) -> String {
    let identity = call.identity.as_deref().unwrap_or("plain text");
    let sni = call.sni.as_deref().unwrap_or("no server name");
    let about = format!(
        "# from {} as {identity} to {} port {}, {sni}",
        call.peer, call.reached, call.port
    );
    let Some(request) = &call.request else {
        return format!(
            "{about}\nprintf 'bytes' | nc {} {}",
            call.reached, call.port
        );
    };
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut line = format!(
        "{about}\ncurl -X {} --request-target {} -H {}",
        request.method,
        quoted(&request.target),
        quoted(&format!("Host: {}", request.authority)),
    );
    for (name, value) in &request.lines {
        let value = value.escape_ascii();
        line.push_str(&format!(" -H {}", quoted(&format!("{name}: {value}"))));
    }
    format!("{line} http://{}:{}", call.reached, call.port)
}
