//! This engine: policies of Istio, compiled.

use std::collections::BTreeMap;

use meshward_core::api::authorization_policy::{
    self as api, Action, AuthorizationPolicy, Condition, Operation, Source,
};
use meshward_core::api::load::{Text, validate};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::meta::{Meta, Origin};
use meshward_core::authn::Claims;
use meshward_core::authz::compile::compile;
use meshward_core::authz::{Attributes, HttpAttributes, Layer, RuleSets, evaluate};
use meshward_core::http::head::Fields;

use crate::Decider;
use crate::cases::{Call, Case, HEADERS, Rule};

/// The rules, found by the index or asked one after the other.
#[derive(Debug)]
pub struct Mesh {
    name: &'static str,
    rules: RuleSets,
    calls: Vec<Attributes<'static>>,
}

impl Mesh {
    pub fn indexed(case: &Case) -> Self {
        Self {
            name: "meshward",
            rules: compiled(&policies(&case.rules)),
            calls: case.calls.iter().map(prepared).collect(),
        }
    }

    pub fn scanned(case: &Case) -> Self {
        let Self { rules, calls, .. } = Self::indexed(case);
        Self {
            name: "scan",
            rules: rules.without_index(),
            calls,
        }
    }
}

impl Decider for Mesh {
    fn name(&self) -> &'static str {
        self.name
    }

    fn decide(&mut self, call: usize) -> bool {
        evaluate(&self.rules, &self.calls[call], &mut |_| {}, &mut ()).is_allowed()
    }
}

/// Compiled for one workload.
pub fn compiled(policies: &[AuthorizationPolicy]) -> RuleSets {
    let policies: Vec<_> = policies.iter().collect();
    let rules = compile(&policies, &MeshConfig::default(), Layer::Http);
    assert_eq!(rules.findings(), [], "every rule is compiled as written");
    rules
}

/// One policy for each rule, named so that they are tried in their order.
pub fn policies(rules: &[Rule]) -> Vec<AuthorizationPolicy> {
    let policy = |(number, rule): (usize, &Rule)| AuthorizationPolicy {
        meta: Meta {
            name: format!("p{number:05}"),
            namespace: "shop".to_owned(),
            created: 0,
            annotations: BTreeMap::new(),
            labels: BTreeMap::new(),
            origin: origin(),
        },
        selector: None,
        targets: false,
        action: Action::Allow,
        provider: None,
        rules: vec![rule_of(rule)],
        dry_run: false,
    };
    rules.iter().enumerate().map(policy).collect()
}

fn origin() -> Origin {
    Origin {
        file: "benches.yaml".into(),
        line: 1,
        column: 1,
    }
}

fn rule_of(rule: &Rule) -> api::Rule {
    let list = |text: &Option<String>| Vec::from_iter(text.clone());
    let source = Source {
        principals: list(&rule.principal),
        ip_blocks: list(&rule.block),
        ..Source::default()
    };
    let operation = Operation {
        methods: Vec::from_iter(rule.method.map(str::to_owned)),
        paths: list(&rule.path),
        ..Operation::default()
    };
    let conditions = [
        ("request.headers[x-user]", &rule.user),
        ("request.auth.claims[groups]", &rule.group),
    ];
    api::Rule {
        from: Vec::from_iter((source != Source::default()).then_some(source)),
        to: Vec::from_iter((operation != Operation::default()).then_some(operation)),
        when: conditions
            .into_iter()
            .filter(|(_, value)| value.is_some())
            .map(|(key, value)| Condition {
                key: key.to_owned(),
                values: list(value),
                not_values: Vec::new(),
                origin: origin(),
            })
            .collect(),
        origin: origin(),
    }
}

/// What a request looks like when it is judged. Lives as long as the process.
pub fn prepared(call: &Call) -> Attributes<'static> {
    let call: &'static Call = Box::leak(Box::new(call.clone()));
    let lines = HEADERS
        .into_iter()
        .chain([("x-user", call.user.as_str())])
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let lines: &'static [(&[u8], &[u8])] = lines.collect::<Vec<_>>().leak();
    let payload = serde_json::json!({
        "iss": "https://issuer.example", "sub": "alice", "groups": call.groups,
    });
    let payload = payload.as_object().cloned().unwrap_or_default();
    let delimited = ["permission".to_owned(), "scope".to_owned()];
    let claims: &'static Claims = Box::leak(Box::new(Claims::new(payload, delimited.into())));
    Attributes {
        principal: Some(&call.principal),
        source_ip: call.ip,
        remote_ip: call.ip,
        destination_ip: [10, 200, 0, 1].into(),
        destination_port: 8080,
        sni: Some("outbound_.80_._.api.shop.svc.cluster.local"),
        http: Some(HttpAttributes {
            method: call.method,
            path: call.path.as_bytes(),
            authority: b"api.shop",
            fields: Fields::listed(lines),
            claims: Some(claims),
        }),
    }
}

/// The policies as they are written, a hundred in each file.
pub fn files(rules: &[Rule]) -> Vec<Text> {
    let documents: Vec<String> = policies(rules).iter().map(document).collect();
    let file = |(number, documents): (usize, &[String])| Text {
        name: format!("{number}.yaml").into(),
        text: documents.concat(),
    };
    documents.chunks(100).enumerate().map(file).collect()
}

/// Reads what [`files`] wrote.
pub fn parsed(files: &[Text]) -> Vec<AuthorizationPolicy> {
    let loaded = validate(files, "default");
    let wrong = loaded.findings.iter().find(|finding| finding.is_error());
    assert!(wrong.is_none(), "{wrong:?}");
    loaded.authorization_policies
}

fn document(policy: &AuthorizationPolicy) -> String {
    let rule = &policy.rules[0];
    let mut json = serde_json::Map::new();
    if let Some(source) = rule.from.first() {
        let source = serde_json::json!({
            "principals": source.principals, "ipBlocks": source.ip_blocks,
        });
        json.insert(
            "from".to_owned(),
            serde_json::json!([{ "source": given(source) }]),
        );
    }
    if let Some(operation) = rule.to.first() {
        let operation = serde_json::json!({
            "methods": operation.methods, "paths": operation.paths,
        });
        json.insert(
            "to".to_owned(),
            serde_json::json!([{ "operation": given(operation) }]),
        );
    }
    if let Some(condition) = rule.when.first() {
        let condition = serde_json::json!([{ "key": condition.key, "values": condition.values }]);
        json.insert("when".to_owned(), condition);
    }
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {}\n  namespace: {}\n\
         spec:\n  rules:\n  - {}\n---\n",
        policy.meta.name,
        policy.meta.namespace,
        serde_json::Value::Object(json)
    )
}

/// Without the empty lists, which a policy may not have.
fn given(mut fields: serde_json::Value) -> serde_json::Value {
    if let Some(fields) = fields.as_object_mut() {
        fields.retain(|_, list| list.as_array().is_some_and(|list| !list.is_empty()));
    }
    fields
}
