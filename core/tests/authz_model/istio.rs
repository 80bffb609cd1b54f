//! The crate against what Istio makes of the same policies for Envoy.
//!
//! Istio's tests hold policies beside the Envoy filters that they become. The filters are interpreted here node by node, and
//! each rule must match the same requests as the rule it came from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use meshward_core::api::authorization_policy::{Action, AuthorizationPolicy};
use meshward_core::api::load::{Text, validate};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::authz::Layer;
use meshward_core::authz::compile::compile;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use serde::Deserialize;
use serde_json::Value;

use super::{Request, judge, model, regex};

/// Trust domain and aliases with which Istio's test runs a case; elsewhere `cluster.local` alone.
const TRUST_DOMAINS: &[(&str, &[&str])] = &[
    ("http/simple-policy-td-aliases", &["td1", "cluster.local"]),
    (
        "http/simple-policy-multiple-td-aliases",
        &["td1", "cluster.local", "some-td"],
    ),
    (
        "http/simple-policy-principal-with-wildcard",
        &["td1", "foobar"],
    ),
];

/// Written for an Istio whose hosts were regular expressions with a flag.
const OUTDATED: &str = "http/allow-host-before-111";

#[derive(Deserialize)]
struct Line {
    id: String,
    yaml: String,
}

/// Policies and all filters made of them, by policy id.
#[derive(Default)]
struct Pair {
    policies: Vec<AuthorizationPolicy>,
    enforced: BTreeMap<String, Value>,
}

fn pairs(data: &str) -> BTreeMap<String, Pair> {
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    for line in data.lines() {
        let line: Line = serde_json::from_str(line).expect("a line of the suite");
        let name = line.id.trim_start_matches("authz_builder/");
        let name = name.trim_end_matches(".yaml");
        if let Some(stem) = name.strip_suffix("-in") {
            let text = Text {
                name: name.into(),
                text: line.yaml,
            };
            let loaded = validate(&[text], "default");
            pairs.entry(stem.to_owned()).or_default().policies = loaded.authorization_policies;
        } else {
            let stem = name.replace("/extended-", "/");
            let stem = stem
                .trim_end_matches(char::is_numeric)
                .trim_end_matches("-out");
            let filter: Value = serde_saphyr::from_str(&line.yaml).expect("a filter");
            let policies = filter["typedConfig"]["rules"]["policies"].as_object();
            let enforced = &mut pairs.entry(stem.to_owned()).or_default().enforced;
            enforced.extend(policies.cloned().unwrap_or_default());
        }
    }
    pairs.retain(|name, pair| {
        let custom = pair
            .policies
            .iter()
            .any(|policy| policy.action == Action::Custom);
        name != OUTDATED && !custom && !pair.policies.is_empty()
    });
    pairs
}

fn all(node: &Value, list: &str, request: &Request) -> bool {
    node[list]
        .as_array()
        .expect("a list of nodes")
        .iter()
        .all(|node| holds(node, request))
}

fn any(node: &Value, list: &str, request: &Request) -> bool {
    node[list]
        .as_array()
        .expect("a list of nodes")
        .iter()
        .any(|node| holds(node, request))
}

/// A node of Envoy's `Permission` or `Principal`.
fn holds(node: &Value, request: &Request) -> bool {
    let (kind, node) = node
        .as_object()
        .and_then(|node| node.iter().next())
        .expect("a node");
    match kind.as_str() {
        "any" => node == true,
        "andRules" => all(node, "rules", request),
        "orRules" => any(node, "rules", request),
        "andIds" => all(node, "ids", request),
        "orIds" => any(node, "ids", request),
        "notRule" | "notId" => !holds(node, request),
        "destinationPort" => node == request.port,
        "directRemoteIp" => in_range(node, request.source_ip),
        "remoteIp" => in_range(node, request.remote_ip),
        "authenticated" => request.principal.as_ref().is_some_and(|principal| {
            text(&node["principalName"], &format!("spiffe://{principal}"))
        }),
        "header" if node["name"] == ":method" => header(node, &request.method),
        "header" if node["name"] == ":authority" => header(node, &request.authority),
        "header" => request.headers.iter().any(|(name, value)| {
            let own = node["name"].as_str().expect("a name");
            name.eq_ignore_ascii_case(own) && header(node, value)
        }),
        "destinationIp" => in_range(node, request.destination_ip),
        "requestedServerName" => request
            .server_name
            .as_ref()
            .is_some_and(|server_name| text(node, server_name)),
        // No other filter writes metadata here.
        "metadata" if node["filter"] == "envoy.filters.http.jwt_authn" => {
            let path = node["path"].as_array().expect("a path");
            let keys: Vec<&str> = path
                .iter()
                .filter_map(|step| step["key"].as_str())
                .collect();
            assert_eq!(keys[0], "payload");
            let Some(payload) = request.token.clone().map(Value::Object) else {
                return false;
            };
            let mut keys = keys[1..].iter();
            let value = keys.try_fold(&payload, |value, key| value.as_object()?.get(*key));
            value.is_some_and(|value| metadata(&node["value"], value))
        }
        "metadata" => false,
        "urlPath" => text(&node["path"], &request.path),
        "uriTemplate" => {
            let template = node["typedConfig"]["pathTemplate"]
                .as_str()
                .expect("a template");
            let segments: Vec<String> = template
                .split('/')
                .map(|segment| match segment {
                    "*" => "[A-Za-z0-9-._~%!$&'()+,;:@=*]+".to_owned(),
                    "**" => "[A-Za-z0-9-._~%!$&'()+,;:@=*/]*".to_owned(),
                    literal => regex::quote(literal),
                })
                .collect();
            regex::full(&segments.join("/"), &request.path)
        }
        other => panic!("a node of kind {other}"),
    }
}

/// Envoy's `ValueMatcher`.
fn metadata(matcher: &Value, value: &Value) -> bool {
    let (kind, matcher) = matcher
        .as_object()
        .and_then(|matcher| matcher.iter().next())
        .expect("a matcher of values");
    match kind.as_str() {
        "stringMatch" => value.as_str().is_some_and(|value| text(matcher, value)),
        "listMatch" => value
            .as_array()
            .is_some_and(|list| list.iter().any(|value| metadata(&matcher["oneOf"], value))),
        "orMatch" => {
            let matchers = matcher["valueMatchers"].as_array().expect("matchers");
            matchers.iter().any(|matcher| metadata(matcher, value))
        }
        other => panic!("a matcher of kind {other}"),
    }
}

fn header(node: &Value, value: &str) -> bool {
    node["presentMatch"] == true || text(&node["stringMatch"], value)
}

/// Envoy's `StringMatcher`.
fn text(matcher: &Value, value: &str) -> bool {
    let fold = |text: &str| match matcher["ignoreCase"] == true {
        true => text.to_ascii_lowercase(),
        false => text.to_owned(),
    };
    let value = fold(value);
    let form = |name: &str| matcher[name].as_str().map(fold);
    if let Some(exact) = form("exact") {
        value == exact
    } else if let Some(prefix) = form("prefix") {
        value.starts_with(&prefix)
    } else if let Some(suffix) = form("suffix") {
        value.ends_with(&suffix)
    } else {
        let pattern = matcher["safeRegex"]["regex"]
            .as_str()
            .expect("a matcher of text");
        regex::full(pattern, &value)
    }
}

fn in_range(node: &Value, ip: IpAddr) -> bool {
    let (prefix, length) = (node["addressPrefix"].as_str(), &node["prefixLen"]);
    let block = format!("{}/{length}", prefix.expect("an address"));
    model::in_block(&block, ip).expect("a range")
}

/// Requests made of the words of the policies: as they are, and a little beside.
fn requests(policies: &[AuthorizationPolicy]) -> impl Strategy<Value = Request> + use<> {
    let near = |patterns: BTreeSet<&String>| -> Vec<String> {
        let variants = patterns.into_iter().flat_map(|pattern| {
            let bare = pattern.replace('*', "");
            [
                pattern
                    .replace("{**}", "u/v")
                    .replace("{*}", "u")
                    .replace('*', "zz"),
                format!("{bare}x"),
                format!("x{bare}"),
                bare,
            ]
        });
        variants.chain([String::new()]).collect()
    };
    let rules = || policies.iter().flat_map(|policy| &policy.rules);
    let sources = || rules().flat_map(|rule| &rule.from);
    let operations = || rules().flat_map(|rule| &rule.to);

    let conditions = |key: &str| -> BTreeSet<&String> {
        let own = rules().flat_map(|rule| &rule.when);
        own.filter(|condition| condition.key.starts_with(key))
            .flat_map(|condition| condition.values.iter().chain(&condition.not_values))
            .collect()
    };

    let mut principals = near(
        sources()
            .flat_map(|s| s.principals.iter().chain(&s.not_principals))
            .chain(conditions("source.principal"))
            .collect(),
    );
    for namespace in near(
        sources()
            .flat_map(|s| s.namespaces.iter().chain(&s.not_namespaces))
            .chain(conditions("source.namespace"))
            .collect(),
    ) {
        principals.push(format!("td/ns/{namespace}/sa/x"));
        let accounts = principals.clone();
        principals.extend(accounts.iter().filter_map(|principal| {
            let (_, account) = principal.split_once("/sa/")?;
            Some(format!("td1/ns/{namespace}/sa/{account}"))
        }));
        principals.sort();
        principals.dedup();
    }
    for account in sources().flat_map(|s| s.service_accounts.iter().chain(&s.not_service_accounts))
    {
        let account = account.replace('/', "/sa/");
        principals.extend([
            format!("td/ns/{account}"),
            format!("td/ns/foo/sa/{account}/x"),
        ]);
    }
    for domain in near(
        sources()
            .flat_map(|s| s.trust_domains.iter().chain(&s.not_trust_domains))
            .collect(),
    ) {
        principals.push(format!("{domain}/ns/a/sa/b"));
    }
    // No identity is empty (S-80).
    principals.retain(|principal| !principal.is_empty());
    let mut ports: Vec<u16> = operations()
        .flat_map(|o| o.ports.iter().chain(&o.not_ports))
        .chain(conditions("destination.port"))
        .filter_map(|port| port.parse().ok())
        .collect();
    ports.push(1);
    let addresses: BTreeSet<&String> = sources()
        .flat_map(|s| {
            s.ip_blocks
                .iter()
                .chain(&s.not_ip_blocks)
                .chain(&s.remote_ip_blocks)
                .chain(&s.not_remote_ip_blocks)
        })
        .chain(
            ["source.ip", "remote.ip", "destination.ip"]
                .into_iter()
                .flat_map(conditions),
        )
        .collect();
    let mut ips: Vec<IpAddr> = addresses
        .iter()
        .filter_map(|block| block.split('/').next()?.parse().ok())
        .collect();
    ips.push(IpAddr::from([127, 0, 0, 1]));
    let words = near(
        [
            "request.auth.audiences",
            "request.auth.presenter",
            "request.auth.claims",
        ]
        .into_iter()
        .chain(["request.headers", "connection.sni"])
        .flat_map(conditions)
        .collect(),
    );
    let speakers = near(
        sources()
            .flat_map(|s| s.request_principals.iter().chain(&s.not_request_principals))
            .chain(conditions("request.auth.principal"))
            .collect(),
    );
    let methods = near(
        operations()
            .flat_map(|o| o.methods.iter().chain(&o.not_methods))
            .collect(),
    );
    let hosts = near(
        operations()
            .flat_map(|o| o.hosts.iter().chain(&o.not_hosts))
            .collect(),
    );
    let paths = near(
        operations()
            .flat_map(|o| o.paths.iter().chain(&o.not_paths))
            .collect(),
    );
    let speaker = select(speakers).prop_map(|speaker| {
        let (issuer, subject) = speaker.rsplit_once('/').unwrap_or((&speaker, ""));
        [("iss", issuer), ("sub", subject)].map(|(name, value)| (name.to_owned(), value.into()))
    });
    let word = select(words.clone());
    let token = (speaker, word.clone(), vec(word, 0..3)).prop_map(|(speaker, word, list)| {
        let claims = [
            ("aud", list.into()),
            ("azp", word.as_str().into()),
            ("nested1", serde_json::json!({ "nested2": word })),
        ];
        let claims = claims.map(|(name, value)| (name.to_owned(), value));
        speaker.into_iter().chain(claims).collect()
    });
    let headers: Vec<String> = rules()
        .flat_map(|rule| &rule.when)
        .filter_map(|condition| condition.key.strip_prefix("request.headers["))
        .map(|name| name.trim_end_matches(']').to_owned())
        .filter(|name| !name.starts_with(':'))
        .chain(["x-other".to_owned()])
        .collect();
    let connection = (
        prop::option::weighted(0.9, select(principals)),
        select(ips.clone()),
        select(ips.clone()),
        select(ips),
        select(ports),
        prop::option::of(select(words.clone())),
    );
    (
        connection,
        select(methods),
        select(paths),
        select(hosts),
        vec((select(headers), select(words)), 0..3),
        prop::option::weighted(0.9, token),
    )
        .prop_map(
            |(connection, method, path, authority, headers, token)| Request {
                principal: connection.0,
                source_ip: connection.1,
                remote_ip: connection.2,
                destination_ip: connection.3,
                port: connection.4,
                server_name: connection.5,
                method,
                path,
                authority,
                headers,
                token,
            },
        )
}

#[test]
fn every_rule_matches_what_the_filter_of_istio_matches() {
    let root = std::env::var_os("MESHWARD_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let Ok(data) = std::fs::read_to_string(root.join("suites/data/istio_authz_builder.ndjson"))
    else {
        assert!(
            std::env::var_os("CI").is_none(),
            "no suite at {}",
            root.display()
        );
        println!("skipped: no suite at {}", root.display());
        return;
    };
    let (mut compared, mut matched) = (0, 0);
    for (name, pair) in pairs(&data) {
        let mut mesh = MeshConfig::default();
        if let Some((_, domains)) = TRUST_DOMAINS.iter().find(|(stem, _)| *stem == name) {
            mesh.trust_domain = domains[0].to_owned();
            mesh.trust_domain_aliases = domains[1..].iter().map(|td| (*td).to_owned()).collect();
        }
        let layer = if name.starts_with("tcp/") {
            Layer::Tcp
        } else {
            Layer::Http
        };
        for policy in &pair.policies {
            for number in 0..policy.rules.len().max(1) {
                let rule = policy.rules.get(number);
                compared += 1;
                let single = AuthorizationPolicy {
                    rules: rule.into_iter().cloned().collect(),
                    ..policy.clone()
                };
                let id = format!(
                    "ns[{}]-policy[{}]-rule[{number}]",
                    policy.meta.namespace, policy.meta.name
                );
                let filter = pair.enforced.get(&id);
                let mut runner = TestRunner::new(ProptestConfig {
                    failure_persistence: None,
                    ..ProptestConfig::with_cases(300)
                });
                let hits = std::cell::Cell::new(0);
                let outcome = runner.run(&requests(std::slice::from_ref(&single)), |request| {
                    let rules = compile(&[&single], &mesh, layer);
                    let (decision, audit) = judge(&rules, layer, &request);
                    let ours = decision.contains("ns[") || audit.is_some();
                    let theirs = filter.is_some_and(|filter| {
                        any(filter, "permissions", &request) && any(filter, "principals", &request)
                    });
                    hits.set(hits.get() + usize::from(theirs));
                    prop_assert_eq!(ours, theirs, "{} {}", name, id);
                    Ok(())
                });
                if let Err(failure) = outcome {
                    panic!("{failure}");
                }
                matched += usize::from(hits.get() > 0);
            }
        }
    }
    println!("{compared} rules compared, {matched} of them seen to match");
    assert!(
        matched * 2 > compared,
        "requests are near enough: {matched} of {compared}"
    );
}
