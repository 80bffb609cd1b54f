use std::net::{IpAddr, Ipv4Addr};

use super::tables::{Value, Whole};
use super::*;
use crate::api::authorization_policy::{self as api, Action, Operation, Source};
use crate::api::mesh_config::MeshConfig;
use crate::authz::compile::{Layer, compile};
use crate::authz::test_policies::{
    from, methods, paths, policy, principals, texts, to, token, when,
};
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
    asked_with(rules, principal, path, Fields::listed(&[]), None)
}

fn asked_with(
    rules: Vec<api::Rule>,
    principal: &str,
    path: &str,
    fields: Fields<'_>,
    claims: Option<&Claims>,
) -> usize {
    let policy = policy(Action::Deny, "d", rules);
    let rules = compile(&[&policy], &MeshConfig::default(), Layer::Http);
    let mut asked = Asked::default();
    evaluate(
        &rules,
        &request(principal, path, fields, claims),
        &mut |_| {},
        &mut asked,
    );
    asked.0
}

fn request<'a>(
    principal: &'a str,
    path: &'a str,
    fields: Fields<'a>,
    claims: Option<&'a Claims>,
) -> Attributes<'a> {
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Attributes {
        principal: Some(principal),
        source_ip: peer,
        remote_ip: peer,
        destination_ip: peer,
        destination_port: 8080,
        sni: Some("api.shop"),
        http: Some(HttpAttributes {
            method: "GET",
            path: path.as_bytes(),
            authority: b"API.shop",
            fields,
            claims,
        }),
    }
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
    let mut rules = vec![
        to(paths(&["*"])),
        to(paths(&["/*"])),
        from(Source {
            not_principals: texts(&["x"]),
            ..Source::default()
        }),
        to(Operation {
            hosts: texts(&["a", "*"]),
            ..Operation::default()
        }),
    ];
    for rule in &mut rules {
        let mut operation = rule.to.pop().unwrap_or_default();
        operation.not_methods = texts(&["GET"]);
        rule.to.push(operation);
    }
    assert_eq!(asked(rules, "td/ns/a/sa/b", "/x"), 4);
}

#[test]
fn a_rule_that_is_found_twice_is_asked_once() {
    let mut rule = to(paths(&["/x"]));
    rule.to.push(methods(&["GET"]));
    assert_eq!(asked(vec![rule.clone()], "td/ns/a/sa/b", "/x"), 1);
    assert_eq!(asked(vec![rule], "td/ns/a/sa/b", "/y"), 1);
}

#[test]
fn without_the_index_every_rule_is_asked() {
    let policy = policy(
        Action::Deny,
        "d",
        thousand(|i| from(principals(&[&format!("td/ns/a/sa/s{i}")]))),
    );
    let rules = compile(&[&policy], &MeshConfig::default(), Layer::Http).without_index();
    let mut asked = Asked::default();
    let decision = evaluate(
        &rules,
        &request("td", "/", Fields::listed(&[]), None),
        &mut |_| {},
        &mut asked,
    );
    assert!(decision.is_allowed());
    assert_eq!(asked.0, 1000);
}

#[test]
fn what_every_request_has_is_no_way_to_find_a_rule() {
    let everywhere = |block: &str| Source {
        ip_blocks: texts(&[block]),
        ..Source::default()
    };
    for rule in [
        to(paths(&["/*"])),
        to(paths(&["/{**}"])),
        from(everywhere("0.0.0.0/0")),
        from(everywhere("::/0")),
    ] {
        let mut rules = vec![rule, to(paths(&["/other"])), to(paths(&["/third"]))];
        for rule in &mut rules {
            let mut operation = rule.to.pop().unwrap_or_default();
            operation.methods = texts(&["POST"]);
            rule.to.push(operation);
        }
        assert_eq!(asked(rules, "td", "/"), 0, "the method finds it");
    }
}

/// Rules that match nothing, each with one of these sources.
fn sources(of: impl Fn(usize) -> Source) -> Vec<api::Rule> {
    thousand(|i| api::Rule {
        to: vec![methods(&["POST"])],
        ..from(of(i))
    })
}

/// Rules that match nothing, each with one of these conditions.
fn conditions(key: &str, value: impl Fn(usize) -> String) -> Vec<api::Rule> {
    thousand(|i| api::Rule {
        to: vec![methods(&["POST"])],
        ..when(key, &[&value(i)], &[])
    })
}

#[test]
fn of_a_thousand_ends_and_beginnings_those_of_the_value_are_asked() {
    let ends = sources(|i| principals(&[&format!("*/sa/s{i}")]));
    assert_eq!(asked(ends.clone(), "td/ns/a/sa/s77", "/"), 1);
    assert_eq!(asked(ends, "td/ns/a/sa/x", "/"), 0);
    let begins = sources(|i| principals(&[&format!("td/ns/n{i}/*")]));
    assert_eq!(asked(begins, "td/ns/n77/sa/s", "/"), 1);
    let ends = thousand(|i| {
        let mut rule = to(paths(&[&format!("*.{i}.png")]));
        rule.to[0].methods = texts(&["POST"]);
        rule
    });
    assert_eq!(asked(ends, "td", "/a.77.png"), 1);
    for (host, own) in [("*.{}.shop", "*PI.SHOP"), ("{}.*", "aPi.*")] {
        let mut rules = thousand(|i| {
            to(Operation {
                hosts: texts(&[&host.replace("{}", &i.to_string())]),
                ..methods(&["POST"])
            })
        });
        assert_eq!(asked(rules.clone(), "td", "/"), 0, "{host}");
        rules[3].to[0].hosts = texts(&[own]);
        assert_eq!(asked(rules, "td", "/"), 1, "{host}");
    }
}

#[test]
fn of_a_thousand_accounts_of_one_namespace_one_is_asked() {
    let rules = sources(|i| Source {
        service_accounts: texts(&[&format!("a/s{i}")]),
        ..Source::default()
    });
    assert_eq!(asked(rules.clone(), "td/ns/a/sa/s5", "/"), 1);
    assert_eq!(asked(rules.clone(), "td/ns/a/x/sa/s5/y", "/"), 1);
    assert_eq!(asked(rules.clone(), "td/ns/b/sa/s5", "/"), 0);
    let many = format!("td{}/sa/s5", "/ns/a/sa/s6".repeat(20));
    assert_eq!(
        asked(rules.clone(), &many, "/"),
        1000,
        "a made-up principal"
    );
    let sixteen = "td/ns/a/sa/s6/ns/b/sa/x/ns/c/sa/y/ns/d/sa/z";
    assert_eq!(asked(rules.clone(), sixteen, "/"), 1);
    let twenty = format!("{sixteen}/ns/e");
    assert_eq!(asked(rules, &twenty, "/"), 1000);
}

#[test]
fn of_a_thousand_beginnings_of_namespaces_and_of_trust_domains_one_is_asked() {
    let rules = sources(|i| Source {
        namespaces: texts(&[&format!("n{i}-*")]),
        ..Source::default()
    });
    assert_eq!(asked(rules, "td/ns/n5-x/sa/s", "/"), 1);
    let rules = sources(|i| Source {
        trust_domains: texts(&[&format!("td{i}.example")]),
        ..Source::default()
    });
    assert_eq!(asked(rules, "td5.example/ns/a/sa/s", "/"), 1);
}

#[test]
fn of_a_thousand_values_of_a_header_those_of_each_line_are_asked() {
    let rules = conditions("request.headers[X-User]", |i| format!("u{i}"));
    let fields: [(&[u8], &[u8]); 3] = [(b"x-other", b"u3"), (b"x-user", b"u4"), (b"X-USER", b"u5")];
    let asked = |rules: &[api::Rule], fields: &[(&[u8], &[u8])]| {
        asked_with(rules.to_vec(), "td", "/", Fields::listed(fields), None)
    };
    assert_eq!(asked(&rules, &fields), 2, "S-145");
    assert_eq!(asked(&rules, &fields[..1]), 0);
    let names: Vec<_> = (0..1000).map(|i| format!("x-{i}")).collect();
    let rules = thousand(|i| when(&format!("request.headers[{}]", names[i]), &["v"], &[]));
    assert_eq!(asked(&rules, &[(b"X-77", b"other"), (b"x-78", b"w")]), 0);
    assert_eq!(asked(&rules, &[(b"X-77", b"v")]), 1);

    let rules = conditions("request.headers[cookie]", |i| format!("a={i}; b; c"));
    let cookies: [(&[u8], &[u8]); 4] = [
        (b"x", b"y"),
        (b"cookie", b"a=7"),
        (b"Cookie", b"b"),
        (b"cookie", b"c"),
    ];
    assert_eq!(asked(&rules, &cookies), 1, "one value, looked up once");
    assert_eq!(asked(&rules, &cookies[1..]), 1);
    assert_eq!(asked(&rules, &cookies[..3]), 0);
}

#[test]
fn of_a_thousand_values_of_a_claim_those_in_the_token_are_asked() {
    let claims = token(
        r#"{"iss": "i", "sub": "s7", "groups": ["g3", 4, "g5"], "a": {"b": "c6", "n7": "x"}}"#,
    );
    let asked =
        |rules: Vec<api::Rule>| asked_with(rules, "td", "/", Fields::listed(&[]), Some(&claims));
    let groups = "request.auth.claims[groups]";
    assert_eq!(asked(conditions(groups, |i| format!("g{i}"))), 2);
    let nested = "request.auth.claims[a][b]";
    assert_eq!(asked(conditions(nested, |i| format!("c{i}"))), 1);
    assert_eq!(
        asked(conditions("request.auth.principal", |i| format!("i/s{i}"))),
        1
    );
    assert_eq!(
        asked(conditions("request.auth.principal", |i| format!("*/s{i}"))),
        1
    );
    assert_eq!(
        asked(conditions("request.auth.principal", |i| format!("i{i}/*"))),
        0
    );
    let names =
        |value: &str| thousand(|i| when(&format!("request.auth.claims[a][n{i}]"), &[value], &[]));
    assert_eq!(asked(names("x")), 1);
    assert_eq!(asked(names("y")), 0);
}

#[test]
fn of_a_thousand_conditions_on_the_connection_those_that_hold_are_asked() {
    for (key, value) in [
        ("connection.sni", "{}.shop"),
        ("destination.port", "{}"),
        ("destination.ip", "127.0.0.1"),
    ] {
        let mut rules = conditions(key, |i| match key {
            "destination.ip" => format!("10.0.{}.{}", i / 256, i % 256),
            _ => value.replace("{}", &i.to_string()),
        });
        assert_eq!(asked(rules.clone(), "td", "/"), 0, "{key}");
        let own = match key {
            "connection.sni" => "api.shop",
            "destination.port" => "8080",
            _ => value,
        };
        rules[4].when[0].values = texts(&[own]);
        assert_eq!(asked(rules, "td", "/"), 1, "{key}");
    }
    let rules = conditions("experimental.envoy.filters.a[b]", |i| i.to_string());
    assert_eq!(asked(rules, "td", "/"), 0, "S-153");
}

#[test]
fn of_a_thousand_rules_that_share_each_field_the_fields_together_find_one() {
    let rules = thousand(|i| {
        let mut rule = from(principals(&[&format!("td/ns/a/sa/s{}", i % 32)]));
        rule.to = vec![paths(&[&format!("/api/{}/*", i / 32)])];
        rule.to[0].methods = texts(&["POST"]);
        rule
    });
    assert_eq!(asked(rules.clone(), "td/ns/a/sa/s3", "/api/7/x"), 1);
    assert_eq!(asked(rules, "td/ns/a/sa/s3", "/x"), 0);
    let rules = thousand(|i| {
        let mut rule = from(principals(&[&format!("td/ns/a/sa/s{}", i % 10)]));
        rule.from.push(principals(&["td/ns/a/sa/all"]));
        rule.to = vec![paths(&[&format!("/{}", i / 10 % 10)])];
        rule.to[0].methods = texts(&["POST"]);
        rule.when = when("request.headers[x]", &[&format!("v{}", i / 100)], &[]).when;
        rule
    });
    let fields: [(&[u8], &[u8]); 1] = [(b"x", b"v5")];
    for (principal, expected) in [("s3", 1), ("all", 10), ("none", 0)] {
        let principal = format!("td/ns/a/sa/{principal}");
        let asked = asked_with(
            rules.clone(),
            &principal,
            "/4",
            Fields::listed(&fields),
            None,
        );
        assert_eq!(asked, expected, "{principal}");
    }
}

/// How many rules are asked of those for one principal: so many that demand nothing else that can be looked up, and so many
/// that demand a path, which more rules demand than that principal.
fn asked_of_a_crowd(without_path: usize, with_path: usize) -> usize {
    let not_get = |path: &[&str]| Operation {
        paths: texts(path),
        not_methods: texts(&["GET"]),
        ..Operation::default()
    };
    let rule = |principal: &str, path: &[&str]| api::Rule {
        to: vec![not_get(path)],
        ..from(principals(&[principal]))
    };
    let mut rules = vec![rule("td/crowd", &[]); without_path];
    for i in 0..with_path {
        let path = format!("/{i}");
        rules.push(rule("td/crowd", &[&path]));
        rules.extend((0..20).map(|other| rule(&format!("td/{i}/{other}"), &[&path])));
    }
    asked(rules, "td/crowd", "/1")
}

#[test]
fn a_crowd_is_told_apart_where_that_leaves_half_of_it() {
    assert_eq!(asked_of_a_crowd(0, CROWD - 1), CROWD - 1, "no crowd");
    assert_eq!(asked_of_a_crowd(0, CROWD), 1);
    assert_eq!(asked_of_a_crowd(CROWD / 2, CROWD / 2), CROWD / 2 + 1);
    assert_eq!(asked_of_a_crowd(CROWD / 2 + 1, CROWD / 2 - 1), CROWD);
}

/// How many rules of a crowd are asked, if each has so many texts and templates in each item of `to`, all of them its own
/// but the first, which more rules demand than the principal.
fn asked_of_a_crowd_with(items: &[(usize, usize)]) -> usize {
    let rule = |principal: &str, to| api::Rule {
        to,
        ..from(principals(&[principal]))
    };
    let mut rules = Vec::new();
    for i in 0..CROWD {
        let item = |(nth, (of_texts, of_templates)): (usize, &(usize, usize))| Operation {
            paths: (0..*of_texts)
                .map(|at| format!("/{i}/{nth}/{at}"))
                .chain((0..*of_templates).map(|at| format!("/{i}/{nth}/{at}/{{*}}")))
                .collect(),
            not_methods: texts(&["GET"]),
            ..Operation::default()
        };
        rules.push(rule(
            "td/crowd",
            items.iter().enumerate().map(item).collect(),
        ));
        let first = [format!("/{i}/0/0")];
        let other = Operation {
            paths: first.to_vec(),
            ..Operation::default()
        };
        rules.extend((0..20).map(|at| rule(&format!("td/{i}/{at}"), vec![other.clone()])));
    }
    asked(rules, "td/crowd", "/1/0/0")
}

#[test]
fn inside_a_crowd_long_lists_find_nothing() {
    for (items, is_found) in [
        (&[(INNER_KEYS, 0)][..], true),
        (&[(INNER_KEYS + 1, 0)], false),
        (&[(INNER_KEYS / 2, INNER_KEYS / 2)], true),
        (&[(INNER_KEYS / 2, INNER_KEYS / 2 + 1)], false),
        (&[(INNER_KEYS / 2, 0), (INNER_KEYS / 2, 0)], true),
        (&[(INNER_KEYS / 2, 0), (INNER_KEYS / 2 + 1, 0)], false),
        (&[(1, 0); INNER_KEYS], true),
        (&[(1, 0); INNER_KEYS + 1], false),
    ] {
        let expected = if is_found { 1 } else { CROWD };
        assert_eq!(asked_of_a_crowd_with(items), expected, "{items:?}");
    }
}

/// Each principal of the lists leads to an index of its own; were the lists gone through again for each, this would not end.
#[test]
fn rules_that_share_long_lists_are_told_apart_by_what_else_they_demand() {
    let everybody: Vec<_> = (0..1000).map(|i| format!("td/ns/a/sa/s{i}")).collect();
    let rules: Vec<_> = (0..12)
        .map(|i| {
            let mut rule = from(Source {
                principals: everybody.clone(),
                ..Source::default()
            });
            rule.from
                .push(principals(&["td/ns/a/sa/one", "td/ns/a/sa/other"]));
            rule.to = vec![methods(&["POST"]), methods(&["PUT"])];
            rule.when = when("request.headers[x]", &[&format!("v{i}")], &[]).when;
            rule
        })
        .collect();
    let fields: [(&[u8], &[u8]); 1] = [(b"x", b"v5")];
    let fields = Fields::listed(&fields);
    assert_eq!(
        asked_with(rules.clone(), "td/ns/a/sa/s9", "/", fields, None),
        1
    );
    let rules = rules.into_iter().map(|rule| api::Rule {
        when: when("request.headers[x]", &["v5"], &[]).when,
        ..rule
    });
    assert_eq!(
        asked_with(rules.collect(), "td/ns/a/sa/s9", "/", fields, None),
        0
    );
}

/// Which of the texts are found, as beginnings or as themselves.
fn found(texts: &[&str], value: &impl Value) -> Vec<u32> {
    let list = |at| List {
        members: vec![at],
        nested: None,
    };
    let entries = (0..).zip(texts);
    let begun =
        Begun::new(entries.map(|(at, text)| (text.as_bytes().to_vec(), list(at), list(at + 1000))));
    let attributes = Attributes {
        principal: None,
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        remote_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        destination_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        destination_port: 80,
        sni: None,
        http: None,
    };
    let mut found = Vec::new();
    let mut search = Search {
        attributes: &attributes,
        visit: |list: &[u32]| found.extend(list),
    };
    begun.visit(value, &mut search);
    found.sort_unstable();
    found
}

#[test]
fn a_table_finds_what_the_value_is_and_what_begins_it() {
    let texts = ["", "a", "aa", "ab", "b"];
    for (value, expected) in [
        ("", &[0, 1000][..]),
        ("a", &[1, 1000, 1001]),
        ("aa", &[2, 1000, 1001, 1002]),
        ("aaa", &[1000, 1001, 1002]),
        ("ac", &[1000, 1001]),
        ("c", &[1000]),
        ("A", &[1000]),
    ] {
        assert_eq!(found(&texts, &Whole(value.as_bytes())), expected, "{value}");
        assert_eq!(found(&texts, &Bytes(value.bytes())), expected, "{value}");
    }
    assert_eq!(found(&[], &Whole(b"a")), [0u32; 0]);
}

#[test]
fn a_table_of_long_texts_with_much_in_common_is_searched_like_any_other() {
    let texts = [
        "common/abcdefgh",
        "common/abcdefgh\0",
        "common/abcdefghi",
        "common/abcdefghij",
        "common/abd",
        "common/b",
    ];
    for value in texts {
        for end in ["", "\0", "a", "h", "i", "z"] {
            let value = format!("{value}{end}");
            let mut expected: Vec<u32> = Vec::new();
            for (at, text) in (0..).zip(texts) {
                expected.extend((text == value).then_some(at));
                expected.extend(value.starts_with(text).then_some(at + 1000));
            }
            expected.sort_unstable();
            assert_eq!(
                found(&texts, &Whole(value.as_bytes())),
                expected,
                "{value:?}"
            );
            assert_eq!(found(&texts, &Bytes(value.bytes())), expected, "{value:?}");
        }
    }
    for value in [
        "",
        "common",
        "common/",
        "commom/z",
        "common/abc",
        "commoo",
        "z",
    ] {
        assert_eq!(
            found(&texts, &Whole(value.as_bytes())),
            [0u32; 0],
            "{value}"
        );
        assert_eq!(found(&texts, &Bytes(value.bytes())), [0u32; 0], "{value}");
    }
}
