//! The index never decides: with it and without it every request has one answer, by one rule.
//!
//! Texts are short and of few letters, so that patterns overlap, begin and end each other, and are shared by crowds of rules.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use meshward_core::api::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, Rule, Source,
};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::meta::{Meta, Origin};
use meshward_core::authn::Claims;
use meshward_core::authz::compile::compile;
use meshward_core::authz::{Attributes, Decision, HttpAttributes, Layer, RuleSets, evaluate};
use meshward_core::http::head::Fields;
use meshward_core::rng::{Purpose, Rng};
use serde_json::{Map, Value, json};

/// Small numbers and choices.
struct Chance(Rng);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn of<'t>(&mut self, all: &[&'t str]) -> &'t str {
        all[self.below(all.len() as u64) as usize]
    }

    /// At most four letters of two, in two cases where `cases`.
    fn word(&mut self, cases: bool) -> String {
        let letters: &[&str] = if cases {
            &["a", "b", "A", "B"]
        } else {
            &["a", "b"]
        };
        let len = self.below(5);
        (0..len).map(|_| self.of(letters)).collect()
    }

    fn pattern(&mut self, word: &str) -> String {
        match self.below(8) {
            0 => "*".to_owned(),
            1 | 2 => format!("{word}*"),
            3 | 4 => format!("*{word}"),
            5 => format!("*{word}*"),
            _ if word.is_empty() => "a".to_owned(),
            _ => word.to_owned(),
        }
    }

    /// One to three patterns of what `word` makes, or, seldom, a crowd of them.
    fn patterns(&mut self, word: impl Fn(&mut Self) -> String) -> Vec<String> {
        let count = if self.one_in(12) {
            20
        } else {
            1 + self.below(3)
        };
        (0..count)
            .map(|_| {
                let word = word(self);
                self.pattern(&word)
            })
            .collect()
    }
}

fn origin() -> Origin {
    Origin {
        file: "index.yaml".into(),
        line: 1,
        column: 1,
    }
}

fn principal(chance: &mut Chance) -> String {
    let segments = ["ns", "sa", "a", "b", "ab"];
    match chance.below(4) {
        0 => {
            let count = 1 + chance.below(8);
            let all: Vec<_> = (0..count).map(|_| chance.of(&segments)).collect();
            all.join("/")
        }
        _ => format!(
            "{}/ns/{}/sa/{}",
            chance.of(&["td", "t", "ns"]),
            chance.of(&["a", "b", "ab"]),
            chance.of(&["a", "b", "ab"])
        ),
    }
}

fn path(chance: &mut Chance) -> String {
    let count = chance.below(4);
    let segments: Vec<_> = (0..count).map(|_| chance.word(false)).collect();
    format!("/{}", segments.join("/"))
}

fn block(chance: &mut Chance) -> String {
    let last = chance.below(8);
    match chance.below(6) {
        0 => "0.0.0.0/0".to_owned(),
        1 => format!("10.0.0.{last}/{}", 24 + chance.below(9)),
        2 => format!("::{last}/{}", 120 + chance.below(9)),
        3 => format!("10.{last}.0.0/16"),
        4 => format!("::ffff:10.0.0.{last}"),
        _ => format!("10.0.0.{last}"),
    }
}

fn blocks(chance: &mut Chance) -> Vec<String> {
    let count = 1 + chance.below(3);
    (0..count).map(|_| block(chance)).collect()
}

fn source(chance: &mut Chance) -> Source {
    let mut source = Source::default();
    while source == Source::default() || chance.one_in(3) {
        let namespaces = |chance: &mut Chance| {
            let all = ["a", "b", "ab", "*", "a*", "*b", "a*b", "a/sa", "a/*"];
            let count = 1 + chance.below(2);
            (0..count).map(|_| chance.of(&all).to_owned()).collect()
        };
        let requests = |chance: &mut Chance| {
            chance.patterns(|chance| match chance.below(3) {
                0 => chance.word(false),
                _ => format!("{}/{}", chance.word(false), chance.word(false)),
            })
        };
        match chance.below(10) {
            0 | 1 => source.principals = chance.patterns(principal),
            2 => source.not_principals = chance.patterns(principal),
            3 => source.namespaces = namespaces(chance),
            4 => source.service_accounts = vec![chance.of(&["a/a", "a/b", "b", "ab/ab"]).into()],
            5 => source.trust_domains = vec![chance.of(&["td", "t*", "*d", "*", "ns"]).into()],
            6 => source.ip_blocks = blocks(chance),
            7 => source.not_remote_ip_blocks = blocks(chance),
            8 => source.remote_ip_blocks = blocks(chance),
            _ => source.request_principals = requests(chance),
        }
    }
    source
}

fn operation(chance: &mut Chance) -> Operation {
    let mut operation = Operation::default();
    while operation == Operation::default() || chance.one_in(3) {
        match chance.below(7) {
            0 => operation.methods = vec![chance.of(&["GET", "POST", "G*", "*T", "*"]).into()],
            1 => operation.hosts = chance.patterns(|chance| chance.word(true)),
            2 => operation.ports = vec![chance.of(&["80", "81", "0"]).into()],
            3 => {
                let templates = [
                    "/{*}",
                    "/a/{*}",
                    "/a/{**}",
                    "/{*}/b",
                    "/{**}/a",
                    "/a/{**}/b",
                ];
                operation.paths = vec![chance.of(&templates).into()];
            }
            4 => operation.not_paths = chance.patterns(path),
            _ => operation.paths = chance.patterns(path),
        }
    }
    operation
}

const HEADERS: [&str; 8] = ["x", "X-Y", "x-z", "accept", "Cookie", "origin", "a", "ab"];

fn condition(chance: &mut Chance) -> Condition {
    let key = match chance.below(9) {
        0..=3 => format!("request.headers[{}]", chance.of(&HEADERS)),
        4 | 5 => {
            let claims = ["c", "c][d", "c][d][e", "scope", "f", "f][d"];
            format!("request.auth.claims[{}]", chance.of(&claims))
        }
        6 => "connection.sni".to_owned(),
        7 => "request.headers[:authority]".to_owned(),
        _ => "request.auth.audiences".to_owned(),
    };
    let mut condition = Condition {
        key,
        values: Vec::new(),
        not_values: Vec::new(),
        origin: origin(),
    };
    let lines = |chance: &mut Chance| match chance.below(4) {
        0 => format!("{},{}", chance.word(false), chance.word(false)),
        _ => chance.word(false),
    };
    if !chance.one_in(4) {
        condition.values = chance.patterns(lines);
    }
    if condition.values.is_empty() || chance.one_in(4) {
        condition.not_values = chance.patterns(lines);
    }
    condition
}

fn rule(chance: &mut Chance) -> Rule {
    let count = |chance: &mut Chance| [0, 0, 1, 1, 2][chance.below(5) as usize];
    let (from, to, when) = (count(chance), count(chance), count(chance));
    Rule {
        from: (0..from).map(|_| source(chance)).collect(),
        to: (0..to).map(|_| operation(chance)).collect(),
        when: (0..when).map(|_| condition(chance)).collect(),
        origin: origin(),
    }
}

/// Rules, of which some are like one before but for one part, so that many share a key.
fn policy(chance: &mut Chance, action: Action) -> AuthorizationPolicy {
    let mut rules: Vec<Rule> = Vec::new();
    for _ in 0..1 + chance.below(120) {
        let mut new = rule(chance);
        if new.from.is_empty() && new.to.is_empty() && new.when.is_empty() {
            continue;
        }
        if let Some(other) = rules.get(chance.below(160) as usize) {
            match chance.below(3) {
                0 => new.from.clone_from(&other.from),
                1 => new.to.clone_from(&other.to),
                _ => new.when.clone_from(&other.when),
            }
        }
        rules.push(new);
    }
    AuthorizationPolicy {
        meta: Meta {
            name: "p".into(),
            namespace: "a".into(),
            created: 0,
            annotations: BTreeMap::new(),
            labels: BTreeMap::new(),
            origin: origin(),
        },
        selector: None,
        targets: false,
        action,
        provider: None,
        rules,
        dry_run: false,
    }
}

fn claims(chance: &mut Chance) -> Claims {
    fn value(chance: &mut Chance, depth: u32) -> Value {
        match chance.below(if depth > 2 { 4 } else { 6 }) {
            0 | 1 => json!(chance.word(false)),
            2 => json!([chance.word(false), 7, chance.word(false)]),
            3 => json!(format!("{} {}", chance.word(false), chance.word(false))),
            _ => Value::Object(object(chance, &["d", "e", "x"], depth + 1)),
        }
    }
    fn object(chance: &mut Chance, names: &[&str], depth: u32) -> Map<String, Value> {
        let mut object = Map::new();
        for name in names {
            if !chance.one_in(3) {
                object.insert((*name).to_owned(), value(chance, depth));
            }
        }
        object
    }
    let mut payload = object(chance, &["c", "scope", "f", "aud", "y", "z"], 0);
    payload.insert("iss".to_owned(), json!(chance.word(false)));
    if !chance.one_in(4) {
        payload.insert("sub".to_owned(), json!(chance.word(false)));
    }
    Claims::new(
        payload,
        ["permission".to_owned(), "scope".to_owned()].into(),
    )
}

fn address(chance: &mut Chance) -> IpAddr {
    let last = chance.below(8) as u8;
    match chance.below(3) {
        0 => Ipv6Addr::from([0, 0, 0, 0, 0, 0, 0, u16::from(last)]).into(),
        1 => Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped().into(),
        _ => Ipv4Addr::new(10, chance.below(2) as u8, 0, last).into(),
    }
}

/// A request that was made up.
struct Request {
    lines: Vec<(String, String)>,
    claims: Option<Claims>,
    principal: Option<String>,
    path: String,
    host: String,
    sni: Option<String>,
    addresses: [IpAddr; 3],
    port: u16,
    method: &'static str,
}

impl Request {
    fn new(chance: &mut Chance) -> Self {
        let count = chance.below(7);
        let lines = (0..count).map(|_| {
            let name = chance.of(&HEADERS);
            let name = match chance.below(2) {
                0 => name.to_uppercase(),
                _ => name.to_owned(),
            };
            (name, chance.word(false))
        });
        let lines = lines.collect();
        Self {
            lines,
            claims: (!chance.one_in(3)).then(|| claims(chance)),
            principal: (!chance.one_in(5)).then(|| principal(chance)),
            path: path(chance),
            host: chance.word(true),
            sni: chance.one_in(2).then(|| chance.word(false)),
            addresses: [address(chance), address(chance), address(chance)],
            port: 80 + chance.below(2) as u16,
            method: ["GET", "POST", "PUT"][chance.below(3) as usize],
        }
    }

    fn judge<'r>(&self, rules: &'r RuleSets) -> Decision<'r> {
        let lines: Vec<(&[u8], &[u8])> = self
            .lines
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect();
        let [source_ip, remote_ip, destination_ip] = self.addresses;
        let attributes = Attributes {
            principal: self.principal.as_deref(),
            source_ip,
            remote_ip,
            destination_ip,
            destination_port: self.port,
            sni: self.sni.as_deref(),
            http: Some(HttpAttributes {
                method: self.method,
                path: self.path.as_bytes(),
                authority: self.host.as_bytes(),
                fields: Fields::listed(&lines),
                claims: self.claims.as_ref(),
            }),
        };
        evaluate(rules, &attributes, &mut |_| {}, &mut ())
    }
}

fn compiled(policies: &[&AuthorizationPolicy]) -> RuleSets {
    compile(policies, &MeshConfig::default(), Layer::Http)
}

/// Takes away rules that match half of the requests: those behind them would never be heard of.
fn narrow(policy: &mut AuthorizationPolicy, requests: &[Request]) {
    let alone = policy.clone();
    policy.rules.retain(|rule| {
        let alone = AuthorizationPolicy {
            action: Action::Deny,
            rules: vec![rule.clone()],
            ..alone.clone()
        };
        let rules = compiled(&[&alone]).without_index();
        let sample = requests.iter().take(12);
        let matched = sample.filter(|request| !request.judge(&rules).is_allowed());
        matched.count() < 2
    });
}

#[test]
fn with_the_index_and_without_it_one_rule_decides() {
    let mut chance = Chance(Rng::new([9; 32], Purpose::Balance));
    let mut decided = [0; 4];
    for _ in 0..100 {
        let requests: Vec<_> = (0..100).map(|_| Request::new(&mut chance)).collect();
        let mut policies = [Action::Deny, Action::Allow].map(|action| policy(&mut chance, action));
        policies
            .iter_mut()
            .for_each(|policy| narrow(policy, &requests));
        let policies: Vec<_> = policies.iter().filter(|_| !chance.one_in(4)).collect();
        let (indexed, scanned) = (compiled(&policies), compiled(&policies).without_index());
        for request in &requests {
            let by_scan = request.judge(&scanned);
            assert_eq!(request.judge(&indexed), by_scan);
            let which = match by_scan {
                Decision::Allowed { policy } => usize::from(policy.is_some()),
                Decision::Denied { policy } => 2 + usize::from(policy.is_some()),
            };
            decided[which] += 1;
        }
    }
    println!("allowed, allowed by a rule, denied, denied by a rule: {decided:?}");
    assert!(decided.iter().all(|count| *count > 500), "{decided:?}");
}
