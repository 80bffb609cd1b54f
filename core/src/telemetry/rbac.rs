//! The lines about authorization that a proxy writes at level `debug` of its scope `rbac` (S-334).

/// Which rules were asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Those in force.
    Enforced,
    /// Those that are tried out.
    Shadow,
}

/// `policy` is the id of the rule that decided; `None`: no rule matched.
pub fn line(engine: Engine, allowed: bool, policy: Option<&str>) -> String {
    let engine = match engine {
        Engine::Enforced => "enforced",
        Engine::Shadow => "shadow",
    };
    let result = if allowed { "allowed" } else { "denied" };
    let policy = policy.unwrap_or("none");
    format!("{engine} {result}, matched policy {policy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_engine_the_result_and_the_policy() {
        let id = "ns[a]-policy[b]-rule[0]";
        for (engine, allowed, policy, text) in [
            (
                Engine::Enforced,
                true,
                Some(id),
                "enforced allowed, matched policy ns[a]-policy[b]-rule[0]",
            ),
            (
                Engine::Enforced,
                false,
                None,
                "enforced denied, matched policy none",
            ),
            (
                Engine::Shadow,
                true,
                None,
                "shadow allowed, matched policy none",
            ),
            (
                Engine::Shadow,
                false,
                Some(id),
                "shadow denied, matched policy ns[a]-policy[b]-rule[0]",
            ),
        ] {
            assert_eq!(line(engine, allowed, policy), text);
        }
    }
}
