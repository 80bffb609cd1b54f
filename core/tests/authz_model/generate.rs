//! Policies and requests of small alphabets, so that matches happen.

use std::collections::BTreeMap;

use meshward_core::api::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, Rule, Source,
};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::meta::{Meta, Origin};
use meshward_core::authz::Layer;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value};

use super::Request;

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
const REQUEST_PRINCIPAL_PATTERNS: &[&str] = &[
    "*", "i/s", "*/s", "*i/s", "i/*", "i/s*", "*s", "i*", "i", "u/i/s", "u/i/*", "*/i/s", "*/*",
    "*i/s*", "i*/s", "**", "/*", "i/",
];
/// Keys of conditions with the patterns for them.
const CONDITIONS: &[(&str, &[&str])] = &[
    ("source.ip", BLOCKS),
    ("remote.ip", BLOCKS),
    ("destination.ip", BLOCKS),
    ("destination.port", PORT_PATTERNS),
    ("source.principal", PRINCIPAL_PATTERNS),
    ("source.namespace", NAMESPACE_PATTERNS),
    ("source.serviceAccount", ACCOUNT_PATTERNS),
    ("source.trustDomain", TRUST_DOMAIN_PATTERNS),
    ("request.auth.principal", REQUEST_PRINCIPAL_PATTERNS),
    ("request.auth.audiences", WORD_PATTERNS),
    ("request.auth.presenter", WORD_PATTERNS),
    ("request.auth.claims[iss]", &["i", "*i", "u*", "*"]),
    ("request.auth.claims[scope]", WORD_PATTERNS),
    ("request.auth.claims[a]", WORD_PATTERNS),
    ("request.auth.claims[a][b]", WORD_PATTERNS),
    ("request.auth.claims[a][b][c]", WORD_PATTERNS),
    ("request.auth.claims[a]b]", WORD_PATTERNS),
    ("request.auth.claims[a.b]", WORD_PATTERNS),
    ("request.headers[x-a]", WORD_PATTERNS),
    ("request.headers[X-B]", WORD_PATTERNS),
    ("request.headers[accept]", WORD_PATTERNS),
    ("request.headers[cookie]", WORD_PATTERNS),
    ("request.headers[keep-alive]", WORD_PATTERNS),
    ("request.headers[:method]", METHOD_PATTERNS),
    ("request.headers[:authority]", HOST_PATTERNS),
    ("request.headers[host]", HOST_PATTERNS),
    ("connection.sni", HOST_PATTERNS),
    ("experimental.envoy.filters.f[k]", WORD_PATTERNS),
    ("request.time", WORD_PATTERNS),
];
/// For headers and claims.
const WORD_PATTERNS: &[&str] = &["u", "v", "u*", "*v", "*", "u,v", "u; v", "u v", "**", "uv"];
const WORDS: &[&str] = &["u", "v", "uv", "vu", "", "*", "u v", "u,v"];
const HEADERS: &[&str] = &["x-a", "X-A", "x-b", "accept", "Cookie", "keep-alive", "x-c"];
const BLOCKS: &[&str] = &[
    "10.0.0.1",
    "10.0.0.3/31",
    "10.0.0.0/24",
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
    let jwt = (
        rarely(REQUEST_PRINCIPAL_PATTERNS),
        rarely(REQUEST_PRINCIPAL_PATTERNS),
    );
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

fn condition() -> impl Strategy<Value = Condition> {
    let of = |(key, patterns): (&'static str, &'static [&'static str])| {
        let values = || vec(select(patterns).prop_map(str::to_owned), 0..3);
        (values(), values()).prop_map(move |(values, not_values)| Condition {
            key: key.to_owned(),
            values,
            not_values,
            origin: origin(),
        })
    };
    let of = select(CONDITIONS).prop_flat_map(of);
    of.prop_filter("a condition has values", |condition| {
        !condition.values.is_empty() || !condition.not_values.is_empty()
    })
}

pub(super) fn rule() -> impl Strategy<Value = Rule> {
    (
        prop_oneof![1 => Just(Vec::new()), 2 => vec(source(), 1..3)],
        prop_oneof![1 => Just(Vec::new()), 2 => vec(operation(), 1..3)],
        prop_oneof![3 => Just(Vec::new()), 1 => vec(condition(), 1..3)],
    )
        .prop_map(|(from, to, when)| Rule {
            from,
            to,
            when,
            origin: origin(),
        })
}

/// A rule that demands much, so that most of many do not match.
pub(super) fn narrow_rule() -> impl Strategy<Value = Rule> {
    let to = (select(METHODS), "/[ab/]{1,4}\\*?").prop_map(|(method, path)| Operation {
        methods: vec![method.to_owned()],
        paths: vec![path],
        ..Operation::default()
    });
    let from = (
        vec(select(PRINCIPALS).prop_map(str::to_owned), 0..3),
        rarely(&["a", "b"]),
        rarely(&["x", "b/y"]),
        rarely(BLOCKS),
        rarely(BLOCKS),
    );
    let from = from.prop_map(|fields| Source {
        principals: fields.0,
        namespaces: fields.1,
        service_accounts: fields.2,
        ip_blocks: fields.3,
        remote_ip_blocks: fields.4,
        ..Source::default()
    });
    (vec(from, 1..3), vec(to, 1..2)).prop_map(|(from, to)| Rule {
        from,
        to,
        when: Vec::new(),
        origin: origin(),
    })
}

/// A rule that demands something of a header, a claim or the connection, and of the path.
pub(super) fn conditional_rule() -> impl Strategy<Value = Rule> {
    let to = (select(METHODS), "/[ab/]{0,2}\\*?").prop_map(|(method, path)| Operation {
        methods: vec![method.to_owned()],
        paths: vec![path],
        ..Operation::default()
    });
    let from = rarely(REQUEST_PRINCIPAL_PATTERNS).prop_map(|request_principals| Source {
        request_principals,
        ..Source::default()
    });
    let given = |source: &Source| !source.request_principals.is_empty();
    let from = from.prop_map(move |source| Vec::from_iter(Some(source).filter(given)));
    (from, vec(to, 0..2), vec(condition(), 1..3)).prop_map(|(from, to, when)| Rule {
        from,
        to,
        when,
        origin: origin(),
    })
}

pub(super) fn policies(
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

pub(super) fn request() -> impl Strategy<Value = Request> {
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
    let header = (select(HEADERS), word()).prop_map(|(name, value)| (name.to_owned(), value));
    let connection = (
        principal,
        ip(),
        ip(),
        ip(),
        select(&[80, 8080, 9000][..]),
        prop::option::of(select(HOSTS).prop_map(str::to_owned)),
    );
    (
        connection,
        select(METHODS),
        path,
        select(HOSTS),
        vec(header, 0..4),
        prop::option::weighted(0.8, token()),
    )
        .prop_map(
            |(connection, method, path, authority, headers, token)| Request {
                principal: connection.0,
                source_ip: connection.1,
                remote_ip: connection.2,
                destination_ip: connection.3,
                port: connection.4,
                server_name: connection.5,
                method: method.to_owned(),
                path,
                authority: authority.to_owned(),
                headers,
                token,
            },
        )
}

fn word() -> impl Strategy<Value = String> {
    select(WORDS).prop_map(str::to_owned)
}

fn token() -> impl Strategy<Value = Map<String, Value>> {
    let claim = prop_oneof![
        4 => word().prop_map(Value::from),
        2 => vec(word(), 0..3).prop_map(Value::from),
        1 => Just(serde_json::json!([1, null, "u"])),
        1 => Just(Value::from(1)),
        1 => Just(Value::Null),
        2 => word().prop_map(|word| serde_json::json!({"b": word})),
        1 => word().prop_map(|word| serde_json::json!({"b": {"c": word}})),
    ];
    let text = |of: &'static [&'static str]| {
        prop_oneof![
            8 => select(of).prop_map(|text| Some(Value::from(text))),
            1 => Just(None),
            1 => Just(Some(Value::from(1))),
        ]
    };
    let names = &["aud", "azp", "scope", "a", "a]b", "a.b"][..];
    let claims = vec((select(names), claim), 0..5);
    (
        text(&["i", "u/i", "xi", ""]),
        text(&["s", "sx", "xs", "*", ""]),
        claims,
    )
        .prop_map(|(issuer, subject, claims)| {
            let own = [("iss", issuer), ("sub", subject)];
            let own = own
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)));
            let all = own.chain(claims);
            all.map(|(name, value)| (name.to_owned(), value)).collect()
        })
}

const TRUST_DOMAINS: &[&[&str]] = &[
    &["cluster.local"],
    &["td1"],
    &["td1", "td2"],
    &["td2", "other", "td1"],
];

pub(super) fn mesh() -> impl Strategy<Value = MeshConfig> {
    select(TRUST_DOMAINS).prop_map(|domains| MeshConfig {
        trust_domain: domains[0].to_owned(),
        trust_domain_aliases: domains[1..].iter().map(|td| (*td).to_owned()).collect(),
        ..MeshConfig::default()
    })
}

pub(super) fn layer() -> impl Strategy<Value = Layer> {
    prop_oneof![3 => Just(Layer::Http), 1 => Just(Layer::Tcp)]
}
