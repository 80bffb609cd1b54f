//! Rego by regorus: one `allow` for each rule, by the interpreter and by the bytecode machine.

use std::num::NonZeroUsize;

use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::vm::RegoVM;
use regorus::{Engine, PolicyLengthConfig, Value};

use crate::Decider;
use crate::cases::{Call, Case, HEADERS, Rule};

const QUERY: &str = "data.mesh.allow";

/// The interpreter, which keeps what it prepared for the first call.
#[derive(Debug)]
pub struct Interpreter {
    engine: Engine,
    calls: Vec<Value>,
}

impl Interpreter {
    pub fn new(case: &Case) -> Self {
        Self {
            engine: engine(case),
            calls: inputs(case),
        }
    }
}

impl Decider for Interpreter {
    fn name(&self) -> &'static str {
        "regorus"
    }

    fn decide(&mut self, call: usize) -> bool {
        self.engine.set_input(self.calls[call].clone());
        let value = self.engine.eval_rule(QUERY.to_owned());
        value.expect("a decision of regorus") == Value::from(true)
    }
}

/// The bytecode machine.
pub struct Machine {
    machine: RegoVM,
    calls: Vec<Value>,
}

impl Machine {
    /// `None`: the rules are too many for the machine.
    pub fn new(case: &Case) -> Option<Self> {
        let compiled = engine(case).compile_with_entrypoint(&QUERY.into()).ok()?;
        let program = Compiler::compile_from_policy(&compiled, &[QUERY]).ok()?;
        let mut machine = RegoVM::new();
        machine.set_max_instructions(usize::MAX);
        machine.load_program(program);
        let mut machine = Self {
            machine,
            calls: inputs(case),
        };
        machine.answer(0)?;
        Some(machine)
    }

    fn answer(&mut self, call: usize) -> Option<bool> {
        self.machine.set_input(self.calls[call].clone());
        let value = self.machine.execute_entry_point_by_name(QUERY).ok()?;
        Some(value == Value::from(true))
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

impl Decider for Machine {
    fn name(&self) -> &'static str {
        "regorus vm"
    }

    fn decide(&mut self, call: usize) -> bool {
        self.answer(call).expect("a decision of regorus")
    }
}

fn engine(case: &Case) -> Engine {
    let rules: String = case.rules.iter().map(allow).collect();
    let text = format!("package mesh\n\ndefault allow := false\n\n{rules}");
    let mut engine = Engine::new();
    engine.set_policy_length_config(PolicyLengthConfig {
        max_file_bytes: NonZeroUsize::MAX,
        max_lines: NonZeroUsize::MAX,
        ..PolicyLengthConfig::default()
    });
    engine
        .add_policy("mesh.rego".to_owned(), text)
        .expect("a policy in Rego");
    engine
}

fn allow(rule: &Rule) -> String {
    let mut conditions = Vec::new();
    if let Some(principal) = &rule.principal {
        conditions.push(format!("input.principal == \"{principal}\""));
    }
    if let Some(method) = rule.method {
        conditions.push(format!("input.method == \"{method}\""));
    }
    if let Some(path) = &rule.path {
        conditions.push(match path.strip_suffix('*') {
            Some(prefix) => format!("startswith(input.path, \"{prefix}\")"),
            None => format!("input.path == \"{path}\""),
        });
    }
    if let Some(user) = &rule.user {
        conditions.push(format!("input.headers[\"x-user\"] == \"{user}\""));
    }
    if let Some(group) = &rule.group {
        conditions.push(format!("\"{group}\" in input.claims.groups"));
    }
    if let Some(block) = &rule.block {
        conditions.push(format!("net.cidr_contains(\"{block}\", input.ip)"));
    }
    format!("allow if {{\n  {}\n}}\n\n", conditions.join("\n  "))
}

fn inputs(case: &Case) -> Vec<Value> {
    case.calls.iter().map(input).collect()
}

fn input(call: &Call) -> Value {
    let headers = HEADERS.into_iter().chain([("x-user", call.user.as_str())]);
    let input = serde_json::json!({
        "principal": call.principal,
        "method": call.method,
        "path": call.path,
        "headers": headers.collect::<std::collections::BTreeMap<_, _>>(),
        "claims": { "iss": "https://issuer.example", "sub": "alice", "groups": call.groups },
        "ip": call.ip.to_string(),
    });
    Value::from_json_str(&input.to_string()).expect("an input in JSON")
}
