//! Policies for unit tests, written in a line.

use std::collections::BTreeMap;

use crate::api::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, Rule, Source,
};
use crate::api::meta::{Meta, Origin};
use crate::authn::Claims;

pub(super) fn origin(line: u32) -> Origin {
    Origin {
        file: "test.yaml".into(),
        line,
        column: 3,
    }
}

pub(super) fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

pub(super) fn policy(action: Action, name: &str, rules: Vec<Rule>) -> AuthorizationPolicy {
    AuthorizationPolicy {
        meta: Meta {
            name: name.into(),
            namespace: "shop".into(),
            created: 0,
            annotations: BTreeMap::new(),
            labels: BTreeMap::new(),
            origin: origin(1),
        },
        selector: None,
        targets: false,
        action,
        provider: None,
        rules,
        dry_run: false,
    }
}

/// The rule `- {}`.
pub(super) fn anything() -> Rule {
    Rule {
        from: Vec::new(),
        to: Vec::new(),
        when: Vec::new(),
        origin: origin(7),
    }
}

pub(super) fn from(source: Source) -> Rule {
    Rule {
        from: vec![source],
        ..anything()
    }
}

pub(super) fn to(operation: Operation) -> Rule {
    Rule {
        to: vec![operation],
        ..anything()
    }
}

pub(super) fn principals(values: &[&str]) -> Source {
    Source {
        principals: texts(values),
        ..Source::default()
    }
}

pub(super) fn namespaces(values: &[&str]) -> Source {
    Source {
        namespaces: texts(values),
        ..Source::default()
    }
}

pub(super) fn methods(values: &[&str]) -> Operation {
    Operation {
        methods: texts(values),
        ..Operation::default()
    }
}

pub(super) fn paths(values: &[&str]) -> Operation {
    Operation {
        paths: texts(values),
        ..Operation::default()
    }
}

pub(super) fn ports(values: &[&str]) -> Operation {
    Operation {
        ports: texts(values),
        ..Operation::default()
    }
}

/// A rule with one condition.
pub(super) fn when(key: &str, values: &[&str], not_values: &[&str]) -> Rule {
    Rule {
        when: vec![Condition {
            key: key.into(),
            values: texts(values),
            not_values: texts(not_values),
            origin: origin(9),
        }],
        ..anything()
    }
}

/// The claims of a token with this payload.
pub(super) fn token(payload: &str) -> Claims {
    let payload = serde_json::from_str(payload).expect("an object");
    let delimited = ["permission".to_owned(), "scope".to_owned()];
    Claims::new(payload, delimited.into())
}
