//! The same case with other words: names, ports and values are replaced, everywhere alike, and its checks must come to the
//! same.
//!
//! Words are replaced letter by letter, always by the same letter, so that what was equal, a prefix or a suffix is so
//! still. What has a meaning of its own stays: words of protocols, names of fields, addresses, methods.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use meshward_core::api::load::yaml::{Key, Node, Value};
use serde_json::Value as Json;

use super::cert::Spec;
use super::checks::{AppTls, Check, Given, Request, To, Token, Who};
use super::corpus::{App, Case, Mesh, Service, Workload};

/// How far each letter goes in the alphabet.
const SHIFT: u8 = 7;

/// Words that mean something wherever they stand.
const MEANINGFUL: &[&str] = &[
    "BlackHoleCluster",
    "InboundPassthroughCluster",
    "PassthroughCluster",
    "cluster",
    "default",
    "false",
    "http",
    "https",
    "inbound",
    "istio-system",
    "local",
    "ns",
    "null",
    "outbound",
    "sa",
    "spiffe",
    "svc",
    "true",
];

/// Ports that mean something: what a URL leaves out, and what Istio knows by their numbers.
const PORTS: &[u16] = &[25, 53, 80, 443, 3306, 15001, 15002, 15006, 15008, 27017];

/// Headers whose values are not free.
fn is_free(header: &str) -> bool {
    let header = header.to_ascii_lowercase();
    let fixed = [
        "accept",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "origin",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-client-cert",
        "x-request-id",
    ];
    let begins = [":", "access-control-", "x-envoy-", "grpc-", "sec-"];
    !fixed.contains(&header.as_str()) && !begins.iter().any(|begin| header.starts_with(begin))
}

fn letter(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => b'a' + (byte - b'a' + SHIFT) % 26,
        b'A'..=b'Z' => b'A' + (byte - b'A' + SHIFT) % 26,
        other => other,
    }
}

fn spelt(word: &str) -> String {
    word.chars()
        .map(|c| match u8::try_from(c) {
            Ok(byte) if byte.is_ascii() => char::from(letter(byte)),
            _ => c,
        })
        .collect()
}

fn port(number: u16) -> u16 {
    // Pairs change places, so that no two ports become one.
    let other = match number {
        1..=20_000 => number + 20_000,
        20_001..=40_000 => number - 20_000,
        _ => number,
    };
    match PORTS.contains(&number) || PORTS.contains(&other) {
        true => number,
        false => other,
    }
}

fn port_text(text: &str) -> String {
    match text.parse::<u16>() {
        Ok(number) => port(number).to_string(),
        Err(_) => text.to_owned(),
    }
}

fn is_address(text: &str) -> bool {
    let ip = text.split_once('/').map_or(text, |(ip, _)| ip);
    ip.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// Any text that holds names: those of hosts with their ports, identities, values.
fn words(text: &str) -> String {
    if is_address(text) {
        return text.to_owned();
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(end) = opaque(rest) {
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if end == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (word, after) = rest.split_at(end);
        let begins = |mark: char| out.ends_with(mark);
        let stays = MEANINGFUL.iter().any(|known| {
            *known == word
                // Part of one, before or behind a wildcard.
                || after.starts_with('*') && known.starts_with(word)
                || begins('*') && known.ends_with(word)
        });
        // `host:8000`, `outbound_.8000_._.host`, `inbound|8000||`.
        let is_port = begins(':') && !after.starts_with(':')
            || out.ends_with("_.") && after.starts_with('_')
            || begins('|') && after.starts_with('|');
        match (stays, is_port) {
            (true, _) => out.push_str(word),
            (false, true) => out.push_str(&match word.parse::<u16>() {
                Ok(_) => port_text(word),
                Err(_) => spelt(word),
            }),
            (false, false) => out.push_str(&spelt(word)),
        }
        rest = after;
    }
    out
}

/// How long the part is at the beginning of `text` that stands for something else: `${…}`, `<token>`.
fn opaque(text: &str) -> Option<usize> {
    let close = match text.get(..2) {
        Some("${") => '}',
        _ if text.starts_with('<') => '>',
        _ => return None,
    };
    text.find(close).map(|end| end + 1)
}

/// A path; its query keeps its words. An escaped letter is the other letter, escaped.
fn path(text: &str) -> String {
    let (path, query) = match text.find('?') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let mut out = String::new();
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        out.push_str(&spelt(before));
        let digits = from.get(1..3);
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                let lower = from[1..3].bytes().any(|b| b.is_ascii_lowercase());
                let byte = letter(byte);
                out.push_str(&match lower {
                    true => format!("%{byte:02x}"),
                    false => format!("%{byte:02X}"),
                });
                rest = &from[3..];
            }
            None => {
                out.push('%');
                rest = &from[1..];
            }
        }
    }
    out.push_str(&spelt(rest));
    out.push_str(query);
    out
}

/// Ids of policies, `ns[shop]-policy[p]-rule[0]`, wherever they stand in a text.
fn policies(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(open) = rest.find("ns[").map(|at| at + 3) {
        let Some((namespace, after)) = rest[open..].split_once(']') else {
            break;
        };
        out.push_str(&rest[..open]);
        out.push_str(&words(namespace));
        out.push(']');
        rest = after;
        if let Some(after) = rest.strip_prefix("-policy[")
            && let Some((name, after)) = after.split_once(']')
        {
            out.push_str("-policy[");
            out.push_str(&words(name));
            out.push(']');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// The value of a header that an application receives or a client sends.
fn header(name: &str, value: &str) -> String {
    if !is_free(name) {
        return value.to_owned();
    }
    // A claim that is no text arrives as its JSON, in base64.
    for engine in [&URL_SAFE_NO_PAD, &STANDARD_NO_PAD] {
        let json = engine.decode(value.trim_end_matches('=')).ok();
        let json = json.and_then(|json| serde_json::from_slice::<Json>(&json).ok());
        if let Some(claim) = json.filter(|json| json.is_array() || json.is_object()) {
            let padding = value.len() - value.trim_end_matches('=').len();
            return engine.encode(claim_of(&claim).to_string()) + &"=".repeat(padding);
        }
    }
    words(value)
}

fn claim_of(claim: &Json) -> Json {
    match claim {
        Json::String(text) => words(text).into(),
        Json::Array(items) => items.iter().map(claim_of).collect(),
        Json::Object(fields) => {
            let fields = fields.iter();
            Json::Object(
                fields
                    .map(|(key, value)| (key.clone(), claim_of(value)))
                    .collect(),
            )
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => claim.clone(),
    }
}

/// `realm="http://host/path"` of a challenge.
fn challenge(value: &str) -> String {
    let Some((before, rest)) = value.split_once("realm=\"") else {
        return value.to_owned();
    };
    let Some((url, after)) = rest.split_once('"') else {
        return value.to_owned();
    };
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let at = rest.find('/').unwrap_or(rest.len());
    let (host, target) = rest.split_at(at);
    let url = format!("{scheme}://{}{}", words(host), path(target));
    format!("{before}realm=\"{url}\"{after}")
}

fn map_text(node: &Node, change: &dyn Fn(&str) -> String) -> Node {
    let value = match &node.value {
        Value::Text { text, literal } => Value::Text {
            text: change(text),
            literal: *literal,
        },
        Value::List(items) => {
            Value::List(items.iter().map(|item| map_text(item, change)).collect())
        }
        Value::Map(entries) => Value::Map(
            entries
                .iter()
                .map(|(key, node)| (key.clone(), map_text(node, change)))
                .collect(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => node.value.clone(),
    };
    Node {
        place: node.place,
        value,
    }
}

/// The fields of a map, each changed by what its name says.
fn map_fields(node: &Node, change: &dyn Fn(&Key, &Node) -> (Key, Node)) -> Node {
    let value = match &node.value {
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, node)| change(key, node));
            Value::Map(entries.collect())
        }
        Value::List(items) => {
            Value::List(items.iter().map(|item| map_fields(item, change)).collect())
        }
        other => other.clone(),
    };
    Node {
        place: node.place,
        value,
    }
}

/// Labels: keys of Kubernetes' and Istio's own keep their values.
fn labels(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let renamed = labels.iter().map(|(key, value)| match key.contains('/') {
        true => (key.clone(), value.clone()),
        false => (key.clone(), words(value)),
    });
    renamed.collect()
}

/// A document of Istio's: policies, in what they say about names and values.
fn resource(node: &Node) -> Node {
    map_fields(node, &|key, node| {
        let node = match key.name.as_str() {
            "metadata" => map_fields(node, &|key, node| {
                let is_name = matches!(key.name.as_str(), "name" | "namespace");
                let change = |text: &str| match is_name {
                    true => words(text),
                    false => text.to_owned(),
                };
                (key.clone(), map_text(node, &change))
            }),
            "spec" => spec(node),
            _ => node.clone(),
        };
        (key.clone(), node)
    })
}

fn spec(node: &Node) -> Node {
    if let Value::List(items) = &node.value {
        return Node {
            place: node.place,
            value: Value::List(items.iter().map(spec).collect()),
        };
    }
    // A condition's values are what its key says.
    if let Some(key) = node
        .field("key")
        .and_then(|key| super::tree::text(key).ok())
    {
        let change = |text: &str| match key {
            "destination.port" => port_text(text),
            _ => match key.strip_prefix("request.headers[") {
                Some(name) => header(name.trim_end_matches(']'), text),
                None => words(text),
            },
        };
        return map_fields(node, &|field, node| {
            let node = match field.name.as_str() {
                "values" | "notValues" => map_text(node, &change),
                _ => node.clone(),
            };
            (field.clone(), node)
        });
    }
    map_fields(node, &|key, node| {
        let node = match key.name.as_str() {
            "matchLabels" => map_fields(node, &|key, node| {
                let free = !key.name.contains('/');
                let change = |text: &str| match free {
                    true => words(text),
                    false => text.to_owned(),
                };
                (key.clone(), map_text(node, &change))
            }),
            "ports" | "notPorts" => map_text(node, &port_text),
            "paths" | "notPaths" => map_text(node, &path),
            "portLevelMtls" => map_fields(node, &|key, node| {
                let mut key = key.clone();
                key.name = port_text(&key.name);
                (key, node.clone())
            }),
            "principals"
            | "notPrincipals"
            | "requestPrincipals"
            | "notRequestPrincipals"
            | "namespaces"
            | "notNamespaces"
            | "serviceAccounts"
            | "notServiceAccounts"
            | "hosts"
            | "notHosts"
            | "issuer"
            | "audiences" => map_text(node, &words),
            _ => spec(node),
        };
        (key.clone(), node)
    })
}

fn mesh_config(name: &str, node: &Node) -> Node {
    match name {
        "trustDomain" | "trustDomainAliases" | "rootNamespace" => map_text(node, &words),
        _ => node.clone(),
    }
}

fn workload(workload: &Workload) -> Workload {
    Workload {
        namespace: words(&workload.namespace),
        name: words(&workload.name),
        labels: labels(&workload.labels),
        service_account: words(&workload.service_account),
        trust_domain: workload.trust_domain.as_deref().map(words),
        app: match &workload.app {
            App::Echo { greetings } => App::Echo {
                greetings: greetings
                    .iter()
                    .map(|(number, text)| (port(*number), text.clone()))
                    .collect(),
            },
            App::Https => App::Https,
            App::Routes { routes, default } => {
                let mut routes = routes.clone();
                for route in &mut routes {
                    route.path = path(&route.path);
                    for call in &mut route.calls {
                        call.host = words(&call.host);
                        call.port = port(call.port);
                        call.path = path(&call.path);
                    }
                }
                App::Routes {
                    routes,
                    default: *default,
                }
            }
        },
        ..workload.clone()
    }
}

fn mesh(mesh: &Mesh) -> Mesh {
    let mut mesh = mesh.clone();
    let workloads = std::mem::take(&mut mesh.by_name);
    mesh.by_name = workloads
        .iter()
        .map(|(name, one)| (words(name), workload(one)))
        .collect();
    for service in &mut mesh.services {
        let Service {
            namespace,
            name,
            selector,
            ports,
            ..
        } = service;
        *namespace = words(namespace);
        *name = words(name);
        *selector = labels(selector);
        for one in ports {
            one.port = port(one.port);
            one.target = port(one.target);
        }
    }
    let external = std::mem::take(&mut mesh.external);
    mesh.external = external
        .into_iter()
        .map(|(name, ip)| (words(&name), ip))
        .collect();
    for (name, node) in &mut mesh.mesh_config {
        *node = mesh_config(name, node);
    }
    mesh.resources = mesh.resources.iter().map(resource).collect();
    mesh
}

fn who(who: &Who) -> Who {
    match who {
        Who::Named(name) => Who::Named(words(name)),
        Who::Bare { identity, ip } => Who::Bare {
            identity: identity.as_deref().map(words),
            ip: *ip,
        },
    }
}

fn to(to: &To) -> To {
    To {
        host: words(&to.host),
        port: port(to.port),
        ..to.clone()
    }
}

fn certificate(spec: &Spec) -> Spec {
    Spec {
        uris: spec.uris.iter().map(|uri| words(uri)).collect(),
        dns: spec.dns.iter().map(|name| words(name)).collect(),
        ..spec.clone()
    }
}

fn app_tls(tls: &AppTls) -> AppTls {
    AppTls {
        cert: tls.cert.as_ref().map(certificate),
        sni: tls.sni.as_deref().map(words),
        ..tls.clone()
    }
}

fn token(token: &Token) -> Token {
    let mut token = token.clone();
    if let Token::Made { claims, .. } = &mut token {
        for claim in claims.values_mut() {
            *claim = claim_of(claim);
        }
    }
    if let Token::Parts { payload, .. } = &mut token
        && let Ok(claims) = serde_json::from_str::<Json>(payload)
    {
        *payload = claim_of(&claims).to_string();
    }
    token
}

fn request(old: &Request) -> Request {
    let mut new = old.clone();
    new.from = who(&old.from);
    new.to = to(&old.to);
    new.path = path(&old.path);
    for (name, value) in &mut new.headers {
        *value = header(name, value);
    }
    for placed in &mut new.jwt {
        placed.token = token(&placed.token);
    }
    new.authority = old.authority.as_deref().map(words);
    new.tls = old.tls.as_ref().map(app_tls);
    new
}

fn given(given: &Given) -> Given {
    let mut given = given.clone();
    match &mut given {
        Given::EffectiveMtls {
            workload,
            port: number,
        } => {
            *workload = words(workload);
            *number = port(*number);
        }
        Given::TlsProbe {
            workload,
            port: number,
            client,
        } => {
            *workload = words(workload);
            *number = port(*number);
            client.cert = client.cert.as_ref().map(certificate);
            client.sni = client.sni.as_deref().map(words);
        }
        Given::Request(old) => **old = request(old),
        Given::Tcp {
            from,
            to: target,
            tls,
        } => {
            *from = who(from);
            *target = to(target);
            *tls = tls.as_ref().map(app_tls);
        }
        Given::Timeline {
            from, to: target, ..
        }
        | Given::ClientHello {
            from, to: target, ..
        } => {
            *from = who(from);
            *target = to(target);
        }
        // About words themselves, or without any.
        Given::AutoMtls { .. } | Given::Sniff { .. } | Given::Retry { .. } | Given::Pure(_) => {}
    }
    given
}

/// What a check expects, of the field `name`.
fn expected(name: &str, node: &Node) -> Node {
    match name {
        "details" | "policy" => map_text(node, &policies),
        "upstream_cluster" | "sni" | "peer_dns_san" | "peer_uri_san" | "tls" => {
            map_fields_or_text(node)
        }
        "response_headers" => map_text(node, &challenge),
        "upstream" => map_fields(node, &|key, node| {
            let node = match key.name.as_str() {
                "workload" | "authority" => map_text(node, &words),
                "path" => map_text(node, &path),
                "headers" => map_fields(node, &|key, node| {
                    let change = |text: &str| match key.name.to_ascii_lowercase().as_str() {
                        // Identities, of whoever passed it on.
                        "x-forwarded-client-cert" => identities(text),
                        name => header(name, text),
                    };
                    (key.clone(), map_text(node, &change))
                }),
                _ => node.clone(),
            };
            (key.clone(), node)
        }),
        _ => node.clone(),
    }
}

fn map_fields_or_text(node: &Node) -> Node {
    match &node.value {
        Value::Map(_) => map_fields(node, &|key, node| {
            let node = match key.name.as_str() {
                "alpn" => node.clone(),
                _ => map_text(node, &words),
            };
            (key.clone(), node)
        }),
        _ => map_text(node, &words),
    }
}

/// The SPIFFE IDs in a text.
fn identities(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("spiffe://") {
        let (before, from) = rest.split_at(at);
        let end = from.find([';', ',', '"']).unwrap_or(from.len());
        out.push_str(before);
        out.push_str(&words(&from[..end]));
        rest = &from[end..];
    }
    out.push_str(rest);
    out
}

/// The case in other words.
pub(super) fn renamed(case: &Case) -> Case {
    let mut new = case.clone();
    new.mesh = mesh(&case.mesh);
    new.resources = case.resources.iter().map(resource).collect();
    for check in &mut new.checks {
        let Check {
            given: old, expect, ..
        } = check;
        *old = old.as_ref().map(given);
        if !matches!(old, None | Some(Given::Pure(_))) {
            for (name, node) in expect {
                *node = expected(name, node);
            }
        }
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelt_anew_and_what_means_something_stays() {
        for (old, new) in [
            ("shop/api", "zovw/hwp"),
            (
                "api.shop.svc.cluster.local:8090",
                "hwp.zovw.svc.cluster.local:28090",
            ),
            (
                "spiffe://cluster.local/ns/shop/sa/api",
                "spiffe://cluster.local/ns/zovw/sa/hwp",
            ),
            ("*/sa/front", "*/sa/myvua"),
            ("istio-sys*", "istio-sys*"),
            ("*ock", "*vjr"),
            ("clust*", "clust*"),
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("2001:db8::1", "2001:db8::1"),
            ("outbound_.9000_._.api.shop", "outbound_.29000_._.hwp.zovw"),
            ("outbound|80||api.shop", "outbound|80||hwp.zovw"),
            ("${JWKS:rsa-a} x", "${JWKS:rsa-a} e"),
            ("Bearer <token>", "Ilhyly <token>"),
        ] {
            assert_eq!(words(old), new);
        }
        assert_eq!(path("/a%62c/{*}?a=b"), "/h%69j/{*}?a=b");
        assert_eq!(
            policies("rbac_access_denied_matched_policy[ns[shop]-policy[p]-rule[0]]"),
            "rbac_access_denied_matched_policy[ns[zovw]-policy[w]-rule[0]]"
        );
        assert_eq!(
            policies("rbac_access_denied_matched_policy[none]"),
            "rbac_access_denied_matched_policy[none]"
        );
        assert_eq!(
            challenge("Bearer realm=\"http://api.shop/a?x=1\", error=\"invalid_token\""),
            "Bearer realm=\"http://hwp.zovw/h?x=1\", error=\"invalid_token\""
        );
        assert_eq!(
            header("x-l", "WyJhIiwiYiJd"),
            URL_SAFE_NO_PAD.encode(r#"["h","i"]"#)
        );
        assert_eq!(header("Content-Type", "text/plain"), "text/plain");
    }

    #[test]
    fn no_two_ports_become_one() {
        let mut ports: Vec<u16> = (1..=u16::MAX).map(port).collect();
        ports.sort_unstable();
        let before = ports.len();
        ports.dedup();
        assert_eq!(ports.len(), before);
        assert_eq!((port(80), port(8080), port(28080)), (80, 28080, 8080));
    }
}
