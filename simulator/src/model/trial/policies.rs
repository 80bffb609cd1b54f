//! Draws what is applied to a mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meshward_core::api::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, Rule, Source,
};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::meta::{Labels, Meta, Origin};
use meshward_core::api::peer_authentication::{Mode, PeerAuthentication};
use meshward_core::api::request_authentication::{
    ClaimToHeader, HeaderLocation, JwtRule, KeySource, RequestAuthentication,
};
use meshward_core::path::Normalization;
use serde_json::{Value, json};

use super::super::authz::FIELDS;
use super::super::{Mesh, PortKind, Workload};
use super::tokens::{Form, Key};
use super::words::{self, pattern, text};
use crate::chance::Chance;

pub fn origin() -> Origin {
    Origin {
        file: Arc::from("drawn"),
        line: 1,
        column: 1,
    }
}

pub fn mesh(chance: &mut Chance, keys: &[Key]) -> Mesh {
    let mut mesh = Mesh {
        config: config(chance),
        ..Mesh::default()
    };
    let namespaces = 1 + chance.index(words::NAMESPACES.len());
    let namespaces = &words::NAMESPACES[..namespaces];
    let mut taken = BTreeSet::new();
    let mut meta = |chance: &mut Chance, kind: &'static str| loop {
        let mut meta = Meta {
            name: text(chance, &words::POLICIES),
            namespace: text(chance, namespaces),
            created: chance.within(0..=3),
            annotations: BTreeMap::new(),
            labels: BTreeMap::new(),
            origin: origin(),
        };
        if chance.one_in(4) {
            meta.namespace = words::ROOT.into();
        }
        if taken.insert((kind, meta.namespace.clone(), meta.name.clone())) {
            return meta;
        }
    };
    for _ in 0..chance.within(0..=3) {
        let meta = meta(chance, "PeerAuthentication");
        mesh.peers.push(peer(chance, meta));
    }
    if !chance.one_in(3) {
        for _ in 0..chance.within(1..=2) {
            let meta = meta(chance, "RequestAuthentication");
            mesh.requests.push(request(chance, meta, keys));
        }
    }
    for _ in 0..chance.within(1..=2 + 2 * namespaces.len() as u64) {
        let meta = meta(chance, "AuthorizationPolicy");
        mesh.authorization.push(authorization(chance, meta));
    }
    mesh
}

fn config(chance: &mut Chance) -> MeshConfig {
    let mut config = MeshConfig {
        normalization: chance.pick(&[
            Normalization::None,
            Normalization::Base,
            Normalization::Base,
            Normalization::MergeSlashes,
            Normalization::DecodeAndMergeSlashes,
        ]),
        ..MeshConfig::default()
    };
    if chance.one_in(3) {
        config.trust_domain = text(chance, &words::DOMAINS);
    }
    for domain in words::DOMAINS {
        if domain != config.trust_domain && chance.one_in(4) {
            config.trust_domain_aliases.push(domain.into());
        }
    }
    config
}

/// Workloads that the policies may be about, one in each of a few namespaces.
pub fn workloads(chance: &mut Chance) -> Vec<Workload> {
    let count = chance.within(1..=2);
    (0..count)
        .map(|_| {
            let reach = chance.pick(&[1, 2, 4]);
            let ports = words::PORTS
                .iter()
                .map(|port| {
                    let kind = chance.pick(&[
                        PortKind::Http,
                        PortKind::Http,
                        PortKind::Http,
                        PortKind::Http,
                        PortKind::Auto,
                        PortKind::Auto,
                        PortKind::Tcp,
                    ]);
                    (*port, kind)
                })
                .collect();
            Workload {
                namespace: text(chance, &words::NAMESPACES[..reach]),
                labels: labels(chance, 3),
                ports,
            }
        })
        .collect()
}

fn labels(chance: &mut Chance, most: u64) -> Labels {
    (0..chance.within(1..=most))
        .map(|_| {
            let key = text(chance, &["app", "tier"]);
            (key, text(chance, &["web", "db"]))
        })
        .collect()
}

fn selector(chance: &mut Chance) -> Option<Labels> {
    match chance.within(0..=19) {
        0 => Some(Labels::new()),
        1..=6 => Some(labels(chance, 1)),
        _ => None,
    }
}

fn peer(chance: &mut Chance, meta: Meta) -> PeerAuthentication {
    let mode = |chance: &mut Chance| {
        chance.pick(&[
            Mode::Unset,
            Mode::Permissive,
            Mode::Permissive,
            Mode::Permissive,
            Mode::Strict,
            Mode::Disable,
        ])
    };
    let selector = selector(chance);
    let mut port_level = BTreeMap::new();
    if selector.as_ref().is_some_and(|labels| !labels.is_empty()) && chance.one_in(2) {
        port_level.insert(chance.pick(&words::PORTS), mode(chance));
    }
    PeerAuthentication {
        meta,
        selector,
        mode: mode(chance),
        port_level,
    }
}

fn request(chance: &mut Chance, meta: Meta, keys: &[Key]) -> RequestAuthentication {
    let targets = chance.one_in(20);
    let selective = !targets && chance.one_in(3);
    RequestAuthentication {
        meta,
        selector: if selective { selector(chance) } else { None },
        targets,
        rules: (0..chance.pick(&[0, 1, 1, 1, 1, 2, 2, 2, 2]))
            .map(|_| jwt_rule(chance, keys))
            .collect(),
    }
}

fn jwt_rule(chance: &mut Chance, keys: &[Key]) -> JwtRule {
    let mut rule = JwtRule {
        issuer: text(chance, &words::ISSUERS),
        audiences: Vec::new(),
        keys: KeySource::Inline(key_set(chance, keys)),
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        output_payload_to_header: None,
        output_claims: Vec::new(),
        forward_original_token: chance.one_in(3),
        space_delimited_claims: Vec::new(),
        origin: origin(),
    };
    match chance.within(0..=49) {
        0 => rule.keys = KeySource::Discovery,
        1 | 2 => rule.keys = KeySource::Uri("https://keys.example/jwks".into()),
        3 => {
            rule.keys = KeySource::Uri("https://keys.example/jwks".into());
            rule.issuer.clear();
        }
        4 => rule.keys = KeySource::Inline(json!({"keys": []}).to_string()),
        _ => {}
    }
    if chance.one_in(2) {
        rule.audiences = some(chance, 2, |chance| text(chance, &words::AUDIENCES));
    }
    if chance.one_in(2) {
        if chance.one_in(2) {
            rule.from_headers.push(HeaderLocation {
                name: text(chance, &["x-token", "X-Jwt", "authorization"]),
                prefix: text(chance, &["", "Token ", "Bearer "]),
            });
        }
        if chance.one_in(2) {
            rule.from_params.push(text(chance, &["tok", "jwt"]));
        }
        if chance.one_in(2) {
            rule.from_cookies.push(text(chance, &["session", "jwt"]));
        }
    }
    if chance.one_in(4) {
        rule.output_payload_to_header = Some("x-payload".into());
    }
    for (header, claim) in [
        ("x-user", "sub"),
        ("x-role", "role"),
        ("x-level", "level"),
        ("X-Groups", "groups"),
        ("x-realm", "realm.name"),
    ] {
        if chance.one_in(8) {
            rule.output_claims.push(ClaimToHeader {
                header: header.into(),
                claim: claim.into(),
            });
        }
    }
    if !chance.one_in(5) {
        rule.space_delimited_claims.push("words".into());
    }
    rule
}

fn key_set(chance: &mut Chance, keys: &[Key]) -> String {
    let mut listed: Vec<Value> = Vec::new();
    for key in keys {
        if chance.one_in(2) {
            listed.push(key.jwk(Form {
                kid: !chance.one_in(3),
                algorithm: chance.one_in(3),
            }));
        }
    }
    if listed.is_empty() {
        listed.push(chance_key(chance, keys).jwk(Form::default()));
    }
    if chance.one_in(8) {
        listed.push(json!({"kty": "unheard-of", "kid": "hs-a"}));
    }
    json!({ "keys": listed }).to_string()
}

fn chance_key<'k>(chance: &mut Chance, keys: &'k [Key]) -> &'k Key {
    &keys[chance.index(keys.len() - 1)]
}

/// One to `most` different values.
fn some(
    chance: &mut Chance,
    most: u64,
    mut draw: impl FnMut(&mut Chance) -> String,
) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for _ in 0..chance.within(1..=most) {
        let value = draw(chance);
        if !out.contains(&value) {
            out.push(value);
        }
    }
    out
}

fn authorization(chance: &mut Chance, meta: Meta) -> AuthorizationPolicy {
    let action = chance.pick(&[
        Action::Allow,
        Action::Allow,
        Action::Allow,
        Action::Allow,
        Action::Deny,
        Action::Deny,
        Action::Deny,
        Action::Audit,
    ]);
    let count = match chance.within(0..=19) {
        0 if action != Action::Deny => 0,
        1 => chance.within(11..=13),
        _ => chance.within(1..=3),
    };
    let selector = selector(chance);
    AuthorizationPolicy {
        meta,
        targets: selector.is_none() && chance.one_in(20),
        selector,
        action,
        provider: None,
        rules: (0..count).map(|_| rule(chance)).collect(),
        dry_run: false,
    }
}

/// A rule of a few fields, drawn evenly from all there are.
fn rule(chance: &mut Chance) -> Rule {
    let mut rule = Rule {
        from: Vec::new(),
        to: Vec::new(),
        when: Vec::new(),
        origin: origin(),
    };
    if chance.one_in(60) {
        return rule;
    }
    for _ in 0..chance.pick(&[1, 1, 1, 2, 2, 3]) {
        add_field(chance, &mut rule);
    }
    rule
}

fn add_field(chance: &mut Chance, rule: &mut Rule) {
    // Fields whose values have many forms come more often.
    let field = if chance.one_in(3) {
        chance.pick(&[
            "paths",
            "notPaths",
            "hosts",
            "principals",
            "requestPrincipals",
            "request.headers",
            "request.auth.claims",
            "request.auth.claims",
            "not request.auth.claims",
            "not request.auth.claims",
        ])
    } else {
        chance.pick(&FIELDS)
    };
    match FIELDS.iter().position(|f| *f == field).unwrap_or_default() {
        0..=13 => {
            if rule.from.is_empty() || chance.one_in(5) {
                rule.from.push(Source::default());
            }
            if let Some(source) = rule.from.last_mut() {
                fill_source(chance, source, field);
            }
            // Identities of a mesh cannot be named twice in one source (S-174): the account gives way.
            for source in &mut rule.from {
                let named = !(source.principals.is_empty()
                    && source.not_principals.is_empty()
                    && source.namespaces.is_empty()
                    && source.not_namespaces.is_empty());
                if named {
                    source.service_accounts.clear();
                    source.not_service_accounts.clear();
                }
            }
        }
        14..=21 => {
            if rule.to.is_empty() || chance.one_in(5) {
                rule.to.push(Operation::default());
            }
            if let Some(operation) = rule.to.last_mut() {
                fill_operation(chance, operation, field);
            }
        }
        _ => rule.when.push(condition(chance, field)),
    }
}

/// A SPIFFE ID without its scheme; now and then one that is not of Istio's form.
pub fn identity(chance: &mut Chance) -> String {
    let domain = text(chance, &words::DOMAINS);
    let namespace = text(chance, &words::NAMESPACES);
    let account = text(chance, &words::ACCOUNTS);
    match chance.within(0..=29) {
        0 => format!("{domain}/{namespace}/{account}"),
        1 => format!("{domain}/ns/{namespace}/x/sa/{account}"),
        2 => format!("{domain}/ns/{namespace}/sa/{account}/ns/shop/sa/web"),
        3 => format!("{domain}/region/ns/{namespace}/sa/{account}"),
        _ => format!("{domain}/ns/{namespace}/sa/{account}"),
    }
}

fn principal(chance: &mut Chance) -> String {
    let identity = identity(chance);
    match chance.within(0..=9) {
        0 => format!("spiffe://{identity}"), // S-87
        1 | 2 => match identity.split_once('/') {
            Some((_, rest)) => {
                format!("{}/{rest}", chance.pick(&["*", "*corp.example", "*.local"]))
            }
            None => identity,
        },
        3 => match identity.rsplit_once('/') {
            Some((start, _)) => format!("{start}/*"),
            None => identity,
        },
        _ => pattern(chance, &identity),
    }
}

fn account(chance: &mut Chance) -> String {
    let account = text(chance, &words::ACCOUNTS);
    if chance.one_in(2) {
        format!("{}/{account}", text(chance, &words::NAMESPACES))
    } else {
        account
    }
}

fn namespace(chance: &mut Chance) -> String {
    let word = text(chance, &words::NAMESPACES);
    pattern(chance, &word)
}

fn domain(chance: &mut Chance) -> String {
    let word = text(chance, &words::DOMAINS);
    // A star stands at one end (S-130).
    let domain = pattern(chance, &word);
    let stars = domain.matches('*').count();
    let middle = domain.trim_matches('*').contains('*');
    if stars > 1 || middle { word } else { domain }
}

fn request_principal(chance: &mut Chance) -> String {
    let issuer = text(chance, &words::ISSUERS);
    let subject = text(chance, &words::SUBJECTS);
    match chance.within(0..=9) {
        0 => "*".into(),
        1 => format!("*/{subject}"),
        2 => format!("{issuer}/*"),
        3 => format!("{issuer}/{}*", &subject[..2]),
        4 => pattern(chance, &subject),
        5 => format!("*{}/{subject}", &issuer[issuer.len() - 7..]),
        6 => format!("{}*", &issuer[..8]),
        _ => format!("{issuer}/{subject}"),
    }
}

fn fill_source(chance: &mut Chance, source: &mut Source, field: &str) {
    let values = |chance: &mut Chance, draw: fn(&mut Chance) -> String| some(chance, 3, draw);
    let block = |chance: &mut Chance| text(chance, &words::BLOCKS);
    match field {
        "principals" => source.principals = values(chance, principal),
        "notPrincipals" => source.not_principals = values(chance, principal),
        "requestPrincipals" => source.request_principals = values(chance, request_principal),
        "notRequestPrincipals" => {
            source.not_request_principals = values(chance, request_principal);
        }
        "namespaces" => source.namespaces = values(chance, namespace),
        "notNamespaces" => source.not_namespaces = values(chance, namespace),
        "serviceAccounts" => source.service_accounts = values(chance, account),
        "notServiceAccounts" => source.not_service_accounts = values(chance, account),
        "trustDomains" => source.trust_domains = values(chance, domain),
        "notTrustDomains" => source.not_trust_domains = values(chance, domain),
        "ipBlocks" => source.ip_blocks = values(chance, block),
        "notIpBlocks" => source.not_ip_blocks = values(chance, block),
        "remoteIpBlocks" => source.remote_ip_blocks = values(chance, block),
        _ => source.not_remote_ip_blocks = values(chance, block),
    }
    // An account that had to give way may have been all there was.
    if *source == Source::default() {
        source.namespaces.push("*".into());
    }
}

fn host(chance: &mut Chance) -> String {
    let word = text(chance, &words::HOSTS);
    pattern(chance, &word)
}

fn port(chance: &mut Chance) -> String {
    chance.pick(&words::PORTS).to_string()
}

fn method(chance: &mut Chance) -> String {
    let word = text(chance, &words::METHODS);
    pattern(chance, &word)
}

fn path(chance: &mut Chance) -> String {
    if chance.one_in(3) {
        return text(chance, &words::TEMPLATES);
    }
    let word = text(chance, &words::PATHS);
    pattern(chance, &word)
}

fn fill_operation(chance: &mut Chance, operation: &mut Operation, field: &str) {
    let values = |chance: &mut Chance, draw: fn(&mut Chance) -> String| some(chance, 2, draw);
    match field {
        "hosts" => operation.hosts = values(chance, host),
        "notHosts" => operation.not_hosts = values(chance, host),
        "ports" => operation.ports = values(chance, port),
        "notPorts" => operation.not_ports = values(chance, port),
        "methods" => operation.methods = values(chance, method),
        "notMethods" => operation.not_methods = values(chance, method),
        "paths" => operation.paths = values(chance, path),
        _ => operation.not_paths = values(chance, path),
    }
}

fn condition(chance: &mut Chance, field: &str) -> Condition {
    let (negated, name) = match field.strip_prefix("not ") {
        Some(name) => (true, name),
        None => (false, field),
    };
    let key = match name {
        "request.headers" => format!("request.headers[{}]", chance.pick(&words::HEADERS)),
        "request.auth.claims" => {
            let path = if chance.one_in(2) {
                &["words"]
            } else {
                chance.pick(&words::CLAIMS)
            };
            format!("request.auth.claims[{}]", path.join("]["))
        }
        "experimental.envoy.filters" => "experimental.envoy.filters.network.sni[key]".into(),
        _ => name.to_owned(),
    };
    let values = |chance: &mut Chance| some(chance, 2, |chance| value(chance, name));
    let mut condition = Condition {
        key,
        values: Vec::new(),
        not_values: Vec::new(),
        origin: origin(),
    };
    let both = chance.one_in(6);
    if !negated || both {
        condition.values = values(chance);
    }
    if negated || both {
        condition.not_values = values(chance);
    }
    condition
}

fn value(chance: &mut Chance, key: &str) -> String {
    let of = |chance: &mut Chance, words: &[&str]| {
        let word = text(chance, words);
        pattern(chance, &word)
    };
    match key {
        "source.ip" | "remote.ip" | "destination.ip" => text(chance, &words::BLOCKS),
        "destination.port" => port(chance),
        "source.namespace" => namespace(chance),
        "source.principal" => principal(chance),
        "source.serviceAccount" => account(chance),
        "source.trustDomain" => domain(chance),
        "connection.sni" => of(chance, &words::SERVER_NAMES),
        "request.auth.principal" => request_principal(chance),
        "request.auth.audiences" => of(chance, &words::AUDIENCES),
        "request.auth.presenter" => of(chance, &words::PRESENTERS),
        "request.auth.claims" => of(chance, &words::CLAIM_VALUES),
        "request.headers" => of(chance, &words::HEADER_VALUES),
        _ => "[value]".into(),
    }
}
