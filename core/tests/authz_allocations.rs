//! A decision allocates nothing, whatever the rules ask for, as long as nobody listens.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

use meshward_core::api::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, Rule, Source,
};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::meta::{Meta, Origin};
use meshward_core::authn::Claims;
use meshward_core::authz::compile::compile;
use meshward_core::authz::{Attributes, HttpAttributes, Layer, RuleSets, evaluate};
use meshward_core::http::head::Fields;

static CALLS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to `System` with the arguments it came with; the counter touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `System` with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn origin() -> Origin {
    Origin {
        file: "allocations.yaml".into(),
        line: 1,
        column: 1,
    }
}

fn one(text: String) -> Vec<String> {
    vec![text]
}

/// Rules that do not match, of every kind of field; the requests have most of the values.
fn rules() -> Vec<Rule> {
    let rule = |from: Vec<Source>, to: Vec<Operation>, when: &[(&str, String)]| Rule {
        from,
        to,
        when: when
            .iter()
            .map(|(key, value)| Condition {
                key: (*key).to_owned(),
                values: one(value.clone()),
                not_values: one(value.clone()),
                origin: origin(),
            })
            .collect(),
        origin: origin(),
    };
    let mut rules = Vec::new();
    for i in 0..40 {
        let sources = [
            Source {
                principals: one(format!("*/sa/s{i}")),
                ..Source::default()
            },
            Source {
                request_principals: one(format!("issuer/s{i}")),
                ..Source::default()
            },
            Source {
                namespaces: one(format!("n{i}*")),
                ..Source::default()
            },
            Source {
                service_accounts: one(format!("n1/s{i}")),
                ..Source::default()
            },
            Source {
                trust_domains: one(format!("*d{i}")),
                ip_blocks: one(format!("10.0.0.{i}/31")),
                not_remote_ip_blocks: one(format!("10.0.0.{i}/31")),
                ..Source::default()
            },
        ];
        let operations = [
            Operation {
                hosts: one(format!("*.{i}.SHOP")),
                ..Operation::default()
            },
            Operation {
                paths: one(format!("/a/{{*}}/{i}/{{**}}")),
                ..Operation::default()
            },
            Operation {
                ports: one("8080".to_owned()),
                methods: one("GET".to_owned()),
                paths: one(format!("/b{i}*")),
                ..Operation::default()
            },
        ];
        for source in sources {
            rules.push(rule(
                vec![source],
                operations.to_vec(),
                &[("request.headers[x]", format!("v{i}"))],
            ));
        }
        for key in [
            "request.headers[cookie]",
            "request.headers[x]",
            "request.headers[host]",
            "request.auth.claims[groups]",
            "request.auth.claims[scope]",
            "request.auth.claims[a][b]",
            "request.auth.principal",
            "connection.sni",
        ] {
            for pattern in ["v{}", "v{}*", "*v{}", "*"] {
                let value = pattern.replace("{}", &i.to_string());
                rules.push(rule(Vec::new(), Vec::new(), &[(key, value)]));
            }
        }
        for key in ["destination.ip", "remote.ip"] {
            let value = format!("10.0.0.{i}");
            rules.push(rule(Vec::new(), Vec::new(), &[(key, value)]));
        }
    }
    rules
}

fn policy(action: Action) -> AuthorizationPolicy {
    AuthorizationPolicy {
        meta: Meta {
            name: format!("{action:?}").to_lowercase(),
            namespace: "shop".to_owned(),
            created: 0,
            annotations: BTreeMap::new(),
            labels: BTreeMap::new(),
            origin: origin(),
        },
        selector: None,
        targets: false,
        action,
        provider: (action == Action::Custom).then(|| "ext".to_owned()),
        rules: rules(),
        dry_run: false,
    }
}

/// The allocations of one decision, and the rules that were reported.
fn allocations(rules: &RuleSets, attributes: &Attributes<'_>) -> usize {
    let before = CALLS.load(Ordering::Relaxed);
    let decision = evaluate(rules, attributes, &mut |_| {}, &mut ());
    let after = CALLS.load(Ordering::Relaxed);
    assert!(!decision.is_allowed(), "no rule matches");
    after - before
}

#[test]
fn a_decision_allocates_nothing() {
    let actions = [Action::Allow, Action::Audit, Action::Custom, Action::Deny];
    let policies = actions.map(policy);
    let policies: Vec<_> = policies.iter().collect();
    let indexed = compile(&policies, &MeshConfig::default(), Layer::Http);
    assert_eq!(indexed.findings(), []);
    let scanned = compile(&policies, &MeshConfig::default(), Layer::Http).without_index();

    let payload = serde_json::json!({
        "iss": "issuer", "sub": "s7", "groups": ["v3", 1, "v4"], "scope": "v5 v6", "a": {"b": "v7"},
    });
    let payload = payload.as_object().expect("an object").clone();
    let claims = Claims::new(payload, ["permission".into(), "scope".into()].into());
    let lines: [(&[u8], &[u8]); 5] = [
        (b"x", b"v1"),
        (b"X", b"v2"),
        (b"cookie", b"v1"),
        (b"cookie", b"v2"),
        (b"upgrade", b"v3"),
    ];
    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));
    let mut decisions = 0;
    for principal in [Some("td1/ns/n1/sa/s7"), Some("td/ns/ns/sa/sa/sa"), None] {
        for path in ["/a/x/7/y", "/b7/x", "/"] {
            for authority in ["a.7.shop", "V7"] {
                let attributes = Attributes {
                    principal,
                    source_ip: ip,
                    remote_ip: ip,
                    destination_ip: ip,
                    destination_port: 8080,
                    sni: Some("v7"),
                    http: Some(HttpAttributes {
                        method: "GET",
                        path: path.as_bytes(),
                        authority: authority.as_bytes(),
                        fields: Fields::listed(&lines),
                        claims: Some(&claims),
                    }),
                };
                assert_eq!(allocations(&indexed, &attributes), 0, "{attributes:?}");
                assert_eq!(allocations(&scanned, &attributes), 0, "{attributes:?}");
                decisions += 1;
            }
        }
    }
    assert_eq!(decisions, 18);
    let before = CALLS.load(Ordering::Relaxed);
    drop(std::hint::black_box(vec![1u8]));
    assert!(
        CALLS.load(Ordering::Relaxed) > before,
        "allocations are counted"
    );
}
