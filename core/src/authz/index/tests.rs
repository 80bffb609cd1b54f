use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::api::authorization_policy::{self as api, Action, Operation, Source};
use crate::api::mesh_config::MeshConfig;
use crate::authz::compile::{Layer, compile};
use crate::authz::test_policies::{from, methods, paths, policy, principals, texts, to};
use crate::authz::{HttpAttributes, Listener, PolicyId, evaluate};
use crate::http::head::Fields;

/// Counts the rules that are asked.
#[derive(Default)]
struct Asked(usize);

impl Listener for Asked {
    const EVERYTHING: bool = false;

    fn rule(&mut self, _id: &PolicyId) {
        self.0 += 1;
    }
}

fn asked(rules: Vec<api::Rule>, principal: &str, path: &str) -> usize {
    let policy = policy(Action::Deny, "d", rules);
    let rules = compile(&[&policy], &MeshConfig::default(), Layer::Http);
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let attributes = Attributes {
        principal: Some(principal),
        source_ip: peer,
        remote_ip: peer,
        destination_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        destination_port: 8080,
        sni: None,
        http: Some(HttpAttributes {
            method: "GET",
            path: path.as_bytes(),
            authority: b"API.shop",
            fields: Fields::listed(&[]),
            claims: None,
        }),
    };
    let mut asked = Asked::default();
    evaluate(&rules, &attributes, &mut |_| {}, &mut asked);
    asked.0
}

fn thousand(rule: impl Fn(usize) -> api::Rule) -> Vec<api::Rule> {
    (0..1000).map(rule).collect()
}

#[test]
fn of_a_thousand_rules_for_principals_one_is_asked() {
    let rules = thousand(|i| {
        let mut rule = from(principals(&[&format!("td/ns/a/sa/s{i}")]));
        rule.to = vec![methods(&["POST"])];
        rule
    });
    assert_eq!(asked(rules.clone(), "td/ns/a/sa/s500", "/"), 1);
    assert_eq!(asked(rules, "td/ns/a/sa/other", "/"), 0);
}

#[test]
fn of_a_thousand_rules_for_one_principal_the_path_finds_one() {
    let rules = thousand(|i| {
        let mut rule = from(principals(&["td/ns/a/sa/b"]));
        rule.to = vec![paths(&[&format!("/api/{i}/*")])];
        rule.to[0].methods = texts(&["POST"]);
        rule
    });
    assert_eq!(asked(rules.clone(), "td/ns/a/sa/b", "/api/77/x"), 1);
    assert_eq!(asked(rules, "td/ns/a/sa/b", "/api/77"), 0);
}

#[test]
fn of_a_thousand_rules_for_namespaces_or_accounts_one_is_asked() {
    let post = || methods(&["POST"]);
    let rules = thousand(|i| {
        let source = Source {
            namespaces: texts(&[&format!("n{i}")]),
            ..Source::default()
        };
        let mut rule = from(source);
        rule.to = vec![post()];
        rule
    });
    assert_eq!(asked(rules, "td/ns/n5/sa/b", "/"), 1);
    let rules = thousand(|i| {
        let source = Source {
            service_accounts: texts(&[&format!("n{i}/b")]),
            ..Source::default()
        };
        let mut rule = from(source);
        rule.to = vec![post()];
        rule
    });
    assert_eq!(asked(rules, "td/ns/n5/sa/b", "/"), 1);
}

#[test]
fn of_a_thousand_rules_for_hosts_one_is_asked_in_any_case() {
    let rules = thousand(|i| {
        let host = if i == 3 {
            "aPi.Shop".to_owned()
        } else {
            format!("{i}.shop")
        };
        to(Operation {
            hosts: texts(&[&host]),
            ..methods(&["POST"])
        })
    });
    assert_eq!(asked(rules, "td/ns/a/sa/b", "/"), 1);
}

#[test]
fn of_a_thousand_rules_for_networks_those_around_the_address_are_asked() {
    let rule = |remote: bool, block: &str| {
        let blocks = texts(&[block]);
        let mut rule = from(if remote {
            Source {
                remote_ip_blocks: blocks,
                ..Source::default()
            }
        } else {
            Source {
                ip_blocks: blocks,
                ..Source::default()
            }
        });
        rule.to = vec![methods(&["POST"])];
        rule
    };
    for remote in [false, true] {
        let mut rules = thousand(|i| rule(remote, &format!("10.{}.{}.0/24", i / 256, i % 256)));
        assert_eq!(asked(rules.clone(), "td/ns/a/sa/b", "/"), 0);
        for block in ["127.0.0.1", "127.0.0.0/8", "127.0.0.0/30", "127.0.0.2"] {
            rules.push(rule(remote, block));
        }
        assert_eq!(asked(rules.clone(), "td/ns/a/sa/b", "/"), 3);
        rules.push(from(rule(remote, "0.0.0.0/0").from.remove(0)));
        assert_eq!(asked(rules, "td/ns/a/sa/b", "/"), 4);
    }
}

#[test]
fn every_alternative_of_a_rule_is_found() {
    let mut rule = from(principals(&["td/ns/a/sa/b"]));
    rule.from.push(Source {
        namespaces: texts(&["c"]),
        ..Source::default()
    });
    rule.to = vec![methods(&["POST"])];
    assert_eq!(asked(vec![rule.clone()], "td/ns/a/sa/b", "/"), 1);
    assert_eq!(asked(vec![rule.clone()], "td/ns/c/sa/b", "/"), 1);
    assert_eq!(asked(vec![rule], "td/ns/a/sa/c", "/"), 0);
}

#[test]
fn nested_prefixes_and_exact_paths_are_all_found() {
    let with = |path: &str| {
        let mut rule = to(paths(&[path]));
        rule.to[0].methods = texts(&["POST"]);
        rule
    };
    let rules: Vec<_> = ["/a*", "/a/b*", "/a/b", "/a/b/*", "/a/{*}", "/ab", "/a/c*"]
        .into_iter()
        .map(with)
        .collect();
    for (path, expected) in [
        ("/a/b", 4),
        ("/a/b/c", 4),
        ("/a", 1),
        ("/ab", 2),
        ("/b", 0),
        ("/", 0),
        ("/a/c", 3),
        ("/a/cc/", 3),
    ] {
        assert_eq!(asked(rules.clone(), "td", path), expected, "{path}");
    }
}

#[test]
fn rules_without_a_key_are_always_asked() {
    let rules = vec![
        to(paths(&["*.png"])),
        to(paths(&["/*"])),
        from(principals(&["td/*"])),
    ];
    let mut rules: Vec<api::Rule> = rules;
    for rule in &mut rules {
        for operation in &mut rule.to {
            operation.not_methods = texts(&["GET"]);
        }
    }
    rules[2].from[0].trust_domains = texts(&["other"]);
    assert_eq!(asked(rules, "td/ns/a/sa/b", "/x"), 3);
}

#[test]
fn a_table_finds_what_was_put_in_and_nothing_else() {
    let mut table = Table::default();
    for (at, text) in (0..).zip(["", "a", "aa", "b"]) {
        table.push(text.as_bytes(), vec![at]);
    }
    assert_eq!(table.get(b""), [0]);
    assert_eq!(table.get(b"aa"), [2]);
    assert_eq!(table.get(b"b"), [3]);
    for absent in ["ab", "c", "A"] {
        assert_eq!(table.get(absent.as_bytes()), [0u32; 0], "{absent}");
    }
    assert_eq!(table.get_any_case(b"AA"), [2]);
    assert_eq!(Table::default().get(b""), [0u32; 0]);
}
