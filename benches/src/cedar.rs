//! Cedar: one `permit` for each rule, the identity in its scope, everything else in its condition.

use std::str::FromStr;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityId, EntityTypeName, EntityUid, PolicySet,
    Request,
};

use crate::Decider;
use crate::cases::{Call, Case, HEADERS, Rule};

#[derive(Debug)]
pub struct Cedar {
    authorizer: Authorizer,
    policies: PolicySet,
    entities: Entities,
    calls: Vec<Request>,
}

impl Cedar {
    pub fn new(case: &Case) -> Self {
        let text: String = case.rules.iter().map(permit).collect();
        Self {
            authorizer: Authorizer::new(),
            policies: PolicySet::from_str(&text).expect("policies of Cedar"),
            entities: Entities::empty(),
            calls: case.calls.iter().map(request).collect(),
        }
    }
}

impl Decider for Cedar {
    fn name(&self) -> &'static str {
        "cedar"
    }

    fn decide(&mut self, call: usize) -> bool {
        let response =
            self.authorizer
                .is_authorized(&self.calls[call], &self.policies, &self.entities);
        response.decision() == Decision::Allow
    }
}

fn permit(rule: &Rule) -> String {
    let mut scope = ["principal", "action", "resource"].map(str::to_owned);
    let mut conditions = Vec::new();
    if let Some(principal) = &rule.principal {
        scope[0] += &format!(" == Service::\"{principal}\"");
    }
    if let Some(method) = rule.method {
        scope[1] += &format!(" == Action::\"{method}\"");
    }
    match &rule.path {
        Some(path) if path.ends_with('*') => {
            conditions.push(format!("context.path like \"{path}\""));
        }
        Some(path) => scope[2] += &format!(" == Path::\"{path}\""),
        None => {}
    }
    if let Some(user) = &rule.user {
        let header = "context.headers";
        conditions.push(format!(
            "{header} has \"x-user\" && {header}[\"x-user\"] == \"{user}\""
        ));
    }
    if let Some(group) = &rule.group {
        conditions.push(format!("context.claims.groups.contains(\"{group}\")"));
    }
    if let Some(block) = &rule.block {
        conditions.push(format!("context.ip.isInRange(ip(\"{block}\"))"));
    }
    let scope = scope.join(", ");
    if conditions.is_empty() {
        format!("permit({scope});\n")
    } else {
        format!("permit({scope}) when {{ {} }};\n", conditions.join(" && "))
    }
}

fn request(call: &Call) -> Request {
    let entity = |kind: &str, id: &str| {
        let kind = EntityTypeName::from_str(kind).expect("a name of a type");
        EntityUid::from_type_name_and_id(kind, EntityId::new(id))
    };
    let headers = HEADERS.into_iter().chain([("x-user", call.user.as_str())]);
    let context = serde_json::json!({
        "path": call.path,
        "headers": headers.collect::<std::collections::BTreeMap<_, _>>(),
        "claims": { "iss": "https://issuer.example", "sub": "alice", "groups": call.groups },
        "ip": { "__extn": { "fn": "ip", "arg": call.ip.to_string() } },
    });
    let context = Context::from_json_value(context, None).expect("a context of Cedar");
    Request::new(
        entity("Service", &call.principal),
        entity("Action", call.method),
        entity("Path", &call.path),
        context,
        None,
    )
    .expect("a request of Cedar")
}
