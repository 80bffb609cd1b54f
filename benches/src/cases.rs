//! Rules and calls, in no engine's words.

use std::net::{IpAddr, Ipv4Addr};

/// A rule that allows: everything that is given has to hold.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    pub principal: Option<String>,
    pub method: Option<&'static str>,
    /// The path itself, or with a star at its end what it begins with.
    pub path: Option<String>,
    /// The value of `x-user`.
    pub user: Option<String>,
    /// One of the claim `groups`.
    pub group: Option<String>,
    /// Of the peer, in CIDR form.
    pub block: Option<String>,
}

/// A call over mutual TLS with a verified token.
#[derive(Clone, Debug)]
pub struct Call {
    pub principal: String,
    pub method: &'static str,
    pub path: String,
    pub user: String,
    pub groups: Vec<String>,
    pub ip: IpAddr,
}

/// Header lines that every call has besides `x-user`.
pub const HEADERS: [(&str, &str); 8] = [
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate"),
    ("content-type", "application/json"),
    ("user-agent", "okhttp/4.12.0"),
    ("x-request-id", "2f1d6f5e-2c0a-9b1e-8c35-5a2f3d1b7e90"),
    ("x-forwarded-proto", "http"),
    ("x-b3-traceid", "463ac35c9f6413ad48485a3953bb6124"),
    ("x-b3-sampled", "1"),
];

/// A set of rules and the calls that are timed on it.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub rules: Vec<Rule>,
    pub calls: Vec<Call>,
}

/// The shapes, each with `count` rules.
pub fn cases(count: usize) -> Vec<Case> {
    let full = |i: usize| Rule {
        principal: Some(principal(i)),
        method: Some("GET"),
        path: Some(format!("/api/{i}/*")),
        ..Rule::default()
    };
    vec![
        Case {
            calls: vec![call(count - 1)],
            ..case("last matches", count, full)
        },
        Case {
            calls: vec![call(count)],
            ..case("none matches", count, full)
        },
        Case {
            calls: spread(count, |i| Call {
                principal: similar(i),
                ..call(i)
            }),
            ..case("similar principals", count, |i| Rule {
                principal: Some(similar(i)),
                ..Rule::default()
            })
        },
        case("by path", count, |i| Rule {
            path: full(i).path,
            ..Rule::default()
        }),
        case("by principal", count, |i| Rule {
            principal: Some(principal(i)),
            ..Rule::default()
        }),
        case("by header", count, |i| Rule {
            user: Some(format!("user-{i}")),
            ..Rule::default()
        }),
        case("by claim", count, |i| Rule {
            group: Some(format!("group-{i}")),
            ..Rule::default()
        }),
        case("by address", count, |i| Rule {
            block: Some(format!("10.{}.{}.0/24", i / 256, i % 256)),
            ..Rule::default()
        }),
        case("mixed", count, mixed),
    ]
}

fn case(name: &'static str, count: usize, rule: impl Fn(usize) -> Rule) -> Case {
    Case {
        name,
        rules: (0..count).map(rule).collect(),
        calls: spread(count, call),
    }
}

/// Calls for rules at all places, and as many that no rule is for.
fn spread(count: usize, call: impl Fn(usize) -> Call) -> Vec<Call> {
    let hits = (0..8).map(|k| k * (count - 1) / 7);
    let misses = (0..8).map(|k| count + k);
    hits.zip(misses)
        .flat_map(|(hit, miss)| [call(hit), call(miss)])
        .collect()
}

/// The rules of the mixed shape, for compile times too.
pub fn mixed(i: usize) -> Rule {
    let mut rule = Rule {
        method: Some("GET"),
        ..Rule::default()
    };
    match i % 6 {
        0 => rule.principal = Some(principal(i)),
        1 => rule.path = Some(format!("/api/{i}/*")),
        2 => rule.user = Some(format!("user-{i}")),
        3 => rule.group = Some(format!("group-{i}")),
        4 => rule.block = Some(format!("10.{}.{}.0/24", i / 256, i % 256)),
        _ => {
            // Two fields that a hundred rules share each; together they are one rule's.
            let (one, other) = (i / 6 % 100, i / 600);
            rule.user = Some(format!("shared-{one}"));
            rule.path = Some(format!("/shared/{other}"));
        }
    }
    rule
}

fn principal(i: usize) -> String {
    format!("cluster.local/ns/team-{}/sa/service-{i}", i % 50)
}

fn similar(i: usize) -> String {
    format!("cluster.local/ns/production-payments-europe/sa/backend-worker-{i:05}")
}

/// The call that the rule at `i` allows, but for every sixth of the mixed shape: no rule is for both its user and its path.
fn call(i: usize) -> Call {
    Call {
        principal: principal(i),
        method: "GET",
        path: format!("/api/{i}/items"),
        user: format!("user-{i}"),
        groups: vec!["staff".to_owned(), format!("group-{i}")],
        ip: Ipv4Addr::new(10, (i / 256) as u8, (i % 256) as u8, 7).into(),
    }
}
