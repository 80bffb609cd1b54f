//! The evaluator against a second one that reads the semantics literally.
//!
//! The model works on policies as they are written: it compiles nothing, indexes nothing, and turns the patterns that are
//! defined as regular expressions (S-127 to S-130, S-140) into just those. It shares no code with the crate but the types of
//! policies.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test reads the shared material, which the core itself may not"
)]

mod generate;
mod istio;
mod model;
mod regex;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use meshward_core::api::authorization_policy::Rule;
use meshward_core::authn::Claims;
use meshward_core::authz::compile::compile;
use meshward_core::authz::explanation::RuleTrace;
use meshward_core::authz::{
    Attributes, Decision, HttpAttributes, Layer, PolicyId, RuleSets, evaluate, explain,
};
use meshward_core::http::head::Fields;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value};

use generate::{conditional_rule, layer, mesh, narrow_rule, policies, request, rule};

/// What is judged, owned.
#[derive(Clone, Debug)]
struct Request {
    principal: Option<String>,
    source_ip: IpAddr,
    remote_ip: IpAddr,
    destination_ip: IpAddr,
    port: u16,
    server_name: Option<String>,
    method: String,
    path: String,
    authority: String,
    headers: Vec<(String, String)>,
    /// The payload of a verified token.
    token: Option<Map<String, Value>>,
}

/// The decision and the AUDIT rule that was heard, in words.
type Outcome = (String, Option<String>);

/// What the crate says, by the index, with the scan of a listener checked to say the same.
fn judge(rules: &RuleSets, layer: Layer, request: &Request) -> Outcome {
    let lines: Vec<(&[u8], &[u8])> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    let delimited = ["permission".to_owned(), "scope".to_owned()];
    let claims = request
        .token
        .as_ref()
        .map(|payload| Claims::new(payload.clone(), delimited.into()));
    let http = HttpAttributes {
        method: &request.method,
        path: request.path.as_bytes(),
        authority: request.authority.as_bytes(),
        fields: Fields::listed(&lines),
        claims: claims.as_ref(),
    };
    let attributes = Attributes {
        principal: request.principal.as_deref(),
        source_ip: request.source_ip,
        remote_ip: request.remote_ip,
        destination_ip: request.destination_ip,
        destination_port: request.port,
        sni: request.server_name.as_deref(),
        http: (layer == Layer::Http).then_some(http),
    };
    let mut audit = None;
    let mut hear = |id: &PolicyId| {
        assert_eq!(audit, None, "one AUDIT rule is heard at most");
        audit = Some(id.to_string());
    };
    let decision = evaluate(rules, &attributes, &mut hear, &mut ());
    let (scanned, explanation) = explain(rules, &attributes);
    assert_eq!(decision, scanned, "indexed and scanned are equal");
    let (verb, policy) = match decision {
        Decision::Allowed { policy } => ("allowed", policy),
        Decision::Denied { policy } => ("denied", policy),
    };
    if let Some(policy) = policy {
        let matched = |rule: &&RuleTrace| rule.id == *policy;
        let traced = explanation.rules.iter().find(matched);
        assert!(traced.is_some_and(|rule| rule.matched));
    }
    let policy = policy.map_or("none", |policy| policy.as_str());
    (format!("{verb} by {policy}"), audit)
}

/// Holds the crate against the model for `cases` generated meshes; each kind of decision must have come up.
fn compare(cases: u32, rules: impl Strategy<Value = Vec<Rule>>) {
    let seen: RefCell<BTreeMap<&str, u32>> = RefCell::default();
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let strategy = (policies(rules), mesh(), layer(), vec(request(), 1..8));
    let outcome = TestRunner::new(config).run(&strategy, |(policies, mesh, layer, requests)| {
        let borrowed: Vec<_> = policies.iter().collect();
        let rules = compile(&borrowed, &mesh, layer);
        for request in &requests {
            let expected = model::judge(&policies, &mesh, layer, request);
            prop_assert_eq!(&judge(&rules, layer, request), &expected, "{:?}", request);
            let (decision, audit) = &expected;
            let kind = match decision.as_str() {
                "allowed by none" => "nothing in force",
                "denied by none" => "nothing allows",
                text if text.contains("ext-authz") => "custom denies",
                text if text.starts_with("allowed") => "a rule allows",
                _ => "a rule denies",
            };
            let mut seen = seen.borrow_mut();
            *seen.entry(kind).or_default() += 1;
            if audit.is_some() {
                *seen.entry("a rule audits").or_default() += 1;
            }
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let seen = seen.into_inner();
    println!("{seen:?}");
    assert_eq!(seen.len(), 6, "every kind of decision comes up: {seen:?}");
    assert!(seen.values().all(|count| *count > cases / 50), "{seen:?}");
}

#[test]
fn decisions_and_policy_ids_are_those_of_the_model() {
    compare(
        4096,
        prop_oneof![4 => vec(rule(), 0..4), 1 => vec(rule(), 10..13)],
    );
}

#[test]
fn many_rules_are_decided_as_by_the_model() {
    compare(192, vec(narrow_rule(), 0..60));
}

#[test]
fn many_rules_with_conditions_are_decided_as_by_the_model() {
    compare(192, vec(conditional_rule(), 0..60));
}
