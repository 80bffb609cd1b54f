use std::collections::BTreeMap;

use meshward_core::api::load::yaml::{self, Node};
use meshward_core::api::load::{Text, validate};

use super::*;
use crate::conformance::plain_json;
use crate::shared;

/// Trust domains of istiod's own tests, where they are not `cluster.local` alone (builder_test.go).
const TRUST_DOMAINS: &[(&str, &[&str])] = &[
    ("simple-policy-td-aliases", &["td1", "cluster.local"]),
    (
        "simple-policy-multiple-td-aliases",
        &["td1", "cluster.local", "some-td"],
    ),
    ("simple-policy-principal-with-wildcard", &["td1", "foobar"]),
    (
        "td-aliases-source-principal",
        &["new-td", "old-td", "some-trustdomain"],
    ),
];

/// `and`, `or` and lists of matchers say the same in any order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(sorted).collect();
            items.sort_by_key(Value::to_string);
            items.into()
        }
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), sorted(value)))
            .collect::<Map<_, _>>()
            .into(),
        plain => plain.clone(),
    }
}

#[test]
fn policies_become_the_filters_that_istiod_makes() {
    let Some(rows) = shared::rows("istio_authz_builder") else {
        return;
    };
    let files: BTreeMap<&str, &str> = rows
        .iter()
        .map(|row| (row["id"].as_str().unwrap(), row["yaml"].as_str().unwrap()))
        .collect();
    let mut compared = 0;
    for (id, input) in &files {
        let Some(name) = id.strip_suffix("-in.yaml") else {
            continue;
        };
        let (_, short) = name.rsplit_once('/').unwrap();
        // Not translated: an external authorizer, shadow rules, the hosts of proxies before 1.11.
        if ["custom-", "dry-run-", "allow-host-before"]
            .iter()
            .any(|start| short.starts_with(start))
        {
            continue;
        }
        let chain = if name.contains("/tcp/") {
            Chain::Tcp
        } else {
            Chain::Http
        };
        let text = Text {
            name: (*id).into(),
            text: (*input).to_owned(),
        };
        let loaded = validate(&[text], "default");
        let policies: Vec<_> = loaded.authorization_policies.iter().collect();
        let trust_domains = TRUST_DOMAINS
            .iter()
            .find(|(name, _)| *name == short)
            .map_or(&["cluster.local"][..], |(_, domains)| domains);
        let ours: Vec<Value> = filters(&policies, trust_domains, chain)
            .iter()
            .map(sorted)
            .collect();
        let theirs: Vec<Value> = ["-out.yaml", "-out1.yaml", "-out2.yaml"]
            .iter()
            .filter_map(|end| files.get(format!("{name}{end}").as_str()))
            .flat_map(|text| yaml::documents(text))
            .filter_map(|(_, text)| yaml::parse(text).unwrap().root)
            .map(|node: Node| sorted(&plain_json(&node)))
            .collect();
        if theirs.is_empty() {
            continue;
        }
        let show = |all: &[Value]| {
            all.iter()
                .map(|value| serde_json::to_string_pretty(value).unwrap())
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert_eq!(show(&ours), show(&theirs), "{id}");
        compared += 1;
    }
    assert!(compared >= 15, "{compared} pairs were compared");
}
