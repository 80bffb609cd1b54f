//! Decisions that are said aloud, where the levels of their scopes ask for it (S-334).
//!
//! Where nobody listens they are made without a listener, and cost what they cost.

use super::{Action, Shared};
use crate::authn::{self, End};
use crate::authz::{self, Decision, PolicyId};
use crate::decide::{self, Caller, Denial, Permit, Request, Verdict};
use crate::id::LinkId;
use crate::snapshot::InboundPort;
use crate::telemetry::levels::Scope;

/// [`decide::inbound_request`], heard by the scopes `jwt` and `rbac`.
pub(super) fn inbound_request<'a>(
    port: &InboundPort,
    caller: Caller<'_>,
    request: Request<'a>,
    link: LinkId,
    shared: &mut Shared,
    audit: &mut impl FnMut(&PolicyId),
) -> Verdict<'a> {
    let (now, levels) = (shared.now.wall, shared.levels);
    let tokens = &mut shared.tokens;
    if !levels.writes(Scope::Jwt) && !levels.writes(Scope::Rbac) {
        return decide::inbound_request(port, caller, request, now, tokens, audit, &mut ());
    }
    let mut heard = Heard::default();
    let verdict = decide::inbound_request(port, caller, request, now, tokens, audit, &mut heard);
    if let Some(end) = heard.end.filter(|end| *end != End::NoRules) {
        let outcome = match end {
            End::NoRules | End::Preflight | End::NoToken | End::Verified => "OK",
            End::Refused(status) => status.text(),
        };
        let text = format!("Jwt authentication completed with: {outcome}");
        shared.say(link, Scope::Jwt, text);
    }
    shared.say_decision(link, heard.decision, !port.http.is_empty());
    verdict
}

/// [`decide::inbound_connection`], heard by the scope `rbac`.
pub(super) fn inbound_connection(
    port: &InboundPort,
    caller: Caller<'_>,
    link: LinkId,
    shared: &mut Shared,
    audit: &mut impl FnMut(&PolicyId),
) -> Result<Permit, Denial> {
    if !shared.levels.writes(Scope::Rbac) {
        return decide::inbound_connection(port, caller, audit, &mut ());
    }
    let mut heard = Heard::default();
    let verdict = decide::inbound_connection(port, caller, audit, &mut heard);
    shared.say_decision(link, heard.decision, !port.tcp.is_empty());
    verdict
}

impl Shared {
    fn say(&mut self, link: LinkId, scope: Scope, text: String) {
        if self.levels.writes(scope) {
            let note = Action::Note(link, scope, text.into());
            self.actions.push_back(note);
        }
    }

    /// `rules`: there are some; without any, a request that passes was not judged.
    fn say_decision(&mut self, link: LinkId, decision: Option<Said>, rules: bool) {
        let (answer, policy) = match decision {
            Some(Said::Allowed(None)) if !rules => return,
            Some(Said::Allowed(policy)) => ("allowed", policy),
            Some(Said::Denied(policy)) => ("denied", policy),
            None => return,
        };
        let policy = policy.as_ref().map_or("none", PolicyId::as_str);
        let text = format!("enforced {answer}, matched policy {policy}");
        self.say(link, Scope::Rbac, text);
    }
}

/// A decision, without borrowing.
#[derive(Debug)]
enum Said {
    Allowed(Option<PolicyId>),
    Denied(Option<PolicyId>),
}

/// Hears the ends alone.
#[derive(Debug, Default)]
struct Heard {
    end: Option<End>,
    decision: Option<Said>,
}

impl authn::Listener for Heard {
    fn ended(&mut self, end: End) {
        self.end = Some(end);
    }
}

impl authz::Listener for Heard {
    const EVERYTHING: bool = false;

    fn decision(&mut self, decision: &Decision<'_>) {
        self.decision = Some(match decision {
            Decision::Allowed { policy } => Said::Allowed(policy.cloned()),
            Decision::Denied { policy } => Said::Denied(policy.cloned()),
        });
    }
}
