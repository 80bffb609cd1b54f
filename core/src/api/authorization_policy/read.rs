//! Reads and judges an AuthorizationPolicy (S-170 to S-177).

use super::{Action, AuthorizationPolicy, Condition, Operation, Rule, Source};
use crate::api::load::grammar;
use crate::api::load::reader::{Fields, Report, closest};
use crate::api::load::yaml::{Node, Place, Value};
use crate::api::meta::{DRY_RUN, Meta};
use crate::api::scope::Scope;

/// Rules of a policy, and items of the `from` of one, that an API server takes (CRD: `maxItems`). A file may have more: an
/// older mesh has, and here they cost nothing.
const RULES_MAX: usize = 512;
/// Service accounts of one list (S-174).
const SERVICE_ACCOUNTS_MAX: usize = 16;
/// Bytes of one of them (S-174).
const SERVICE_ACCOUNT_LEN_MAX: usize = 320;

const TOO_EARLY: &str = "which is not known yet when the provider is asked";

const ACTIONS: [(&str, Action); 4] = [
    ("ALLOW", Action::Allow),
    ("AUDIT", Action::Audit),
    ("CUSTOM", Action::Custom),
    ("DENY", Action::Deny),
];

impl AuthorizationPolicy {
    /// `place` is that of the resource, `spec` may be absent (S-112). `None` after at least one error.
    pub(in crate::api) fn read(
        meta: Meta,
        spec: Option<&Node>,
        place: Place,
        report: &mut Report,
    ) -> Option<Self> {
        let before = report.errors();
        let mut policy = Self {
            meta,
            selector: None,
            targets: false,
            action: Action::Allow,
            provider: None,
            rules: Vec::new(),
            dry_run: false,
        };
        let mut rules = None;
        if let Some(spec) = spec {
            let mut fields = report.fields(spec, "spec")?;
            let scope = Scope::take(&mut fields, report);
            (policy.selector, policy.targets) = (scope.selector, scope.targets);
            policy.action = take_action(&mut fields, report);
            policy.provider = take_provider(&mut fields, policy.action, spec.place, report);
            rules = fields.take("rules");
            fields.close(report);
        }
        let items = rules
            .and_then(|node| report.list(node, "rules"))
            .unwrap_or_default();
        if let Some(node) = rules.filter(|_| items.len() > RULES_MAX) {
            let message = format!("`rules` has {} items, more than {RULES_MAX}", items.len());
            report.doubtful(
                node.place,
                message,
                "an API server of today refuses it: write a second policy",
            );
        }
        for item in items {
            policy.rules.extend(read_rule(item, policy.action, report));
        }
        if items.is_empty() && matches!(policy.action, Action::Deny | Action::Custom) {
            let place = rules.or(spec).map_or(place, |node| node.place);
            let message = "a policy that denies or asks a provider has no rules";
            report.invalid(place, message, "add `rules`; `- {}` matches everything");
        }
        policy.dry_run = read_dry_run(&policy.meta, policy.action, place, report);
        (report.errors() == before).then_some(policy)
    }
}

fn take_action(fields: &mut Fields<'_>, report: &mut Report) -> Action {
    let Some(node) = fields.take("action") else {
        return Action::Allow;
    };
    let Some(text) = report.text(node, "action") else {
        return Action::Allow;
    };
    if let Some((_, action)) = ACTIONS.iter().find(|(name, _)| *name == text) {
        if *action == Action::Custom {
            report.not_enforced(node.place, "action CUSTOM");
        }
        return *action;
    }
    let names = ACTIONS.map(|(name, _)| name);
    let hint = match closest(text, &names) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("take one of {}", names.join(", ")),
    };
    report.invalid(node.place, format!("`{text}` is no action"), hint);
    Action::Allow
}

fn take_provider(
    fields: &mut Fields<'_>,
    action: Action,
    place: Place,
    report: &mut Report,
) -> Option<String> {
    let provider = fields.take("provider");
    let name = provider.and_then(|node| {
        let mut fields = report.fields(node, "provider")?;
        let name = fields
            .take("name")
            .and_then(|node| report.text(node, "name"));
        fields.close(report);
        name.filter(|name| !name.is_empty())
    });
    match (action, provider) {
        (Action::Custom, _) if name.is_none() => {
            let place = provider.map_or(place, |node| node.place);
            let hint = "add `provider: {name: …}`, one of `extensionProviders` of the mesh";
            report.invalid(place, "action CUSTOM names no provider", hint);
        }
        (Action::Allow | Action::Audit | Action::Deny, Some(node)) => {
            let message = "`provider` stands without action CUSTOM";
            report.invalid(
                node.place,
                message,
                "set `action: CUSTOM` or leave `provider` out",
            );
        }
        _ => {}
    }
    name.map(str::to_owned)
}

/// The annotation of S-163; on AUDIT and CUSTOM it is refused (S-176).
fn read_dry_run(meta: &Meta, action: Action, place: Place, report: &mut Report) -> bool {
    let Some(text) = meta.annotations.get(DRY_RUN) else {
        return false;
    };
    let Some(dry_run) = grammar::go_bool(text) else {
        let message = format!("annotation `{DRY_RUN}` is `{text}`, no boolean");
        report.invalid(place, message, "set it to \"true\" or \"false\"");
        return false;
    };
    match action {
        Action::Allow | Action::Deny => {}
        Action::Audit | Action::Custom => {
            let message =
                format!("annotation `{DRY_RUN}` on a policy that neither allows nor denies");
            report.invalid(place, message, "leave it out");
        }
    }
    if dry_run {
        report.not_enforced(place, "annotation `istio.io/dry-run`");
    }
    dry_run
}

fn read_rule(node: &Node, action: Action, report: &mut Report) -> Option<Rule> {
    let mut fields = report.fields(node, "rules")?;
    let mut rule = Rule {
        from: Vec::new(),
        to: Vec::new(),
        when: Vec::new(),
        origin: report.origin(node.place),
    };
    for item in take_items(&mut fields, "from", report) {
        rule.from.extend(read_from(item, action, report));
    }
    for item in take_items(&mut fields, "to", report) {
        rule.to.extend(read_to(item, report));
    }
    for item in take_items(&mut fields, "when", report) {
        rule.when.extend(read_condition(item, action, report));
    }
    fields.close(report);
    if action == Action::Deny && rule.denies_all_tcp() {
        let message = "a DENY rule of HTTP attributes alone denies every TCP connection (S-156)";
        report.doubtful(
            node.place,
            message,
            "give each `operation` of the rule `ports`",
        );
    }
    Some(rule)
}

/// The items of an optional list of a rule. An empty list counts as absent (S-173).
fn take_items<'n>(fields: &mut Fields<'n>, name: &'static str, report: &mut Report) -> &'n [Node] {
    let Some(node) = fields.take(name) else {
        return &[];
    };
    let items = report.list(node, name).unwrap_or_default();
    if items.len() > RULES_MAX {
        let message = format!("`{name}` has {} items, more than {RULES_MAX}", items.len());
        report.doubtful(
            node.place,
            message,
            "an API server of today refuses it: write a second rule",
        );
    }
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        let message = format!("`{name}` is empty, which counts as absent: it restricts nothing");
        report.doubtful(
            node.place,
            message,
            "leave it out, or say what it is to match",
        );
    }
    items
}

fn read_from(node: &Node, action: Action, report: &mut Report) -> Option<Source> {
    let inner = take_only(node, "from", "source", report)?;
    let mut fields = report.fields(inner, "source")?;
    let mut lists = Lists::new(&mut fields, report);
    let source = Source {
        principals: lists.take("principals", None),
        not_principals: lists.take("notPrincipals", None),
        request_principals: lists.take("requestPrincipals", None),
        not_request_principals: lists.take("notRequestPrincipals", None),
        namespaces: lists.take("namespaces", None),
        not_namespaces: lists.take("notNamespaces", None),
        service_accounts: lists.take("serviceAccounts", Some(service_account_fault)),
        not_service_accounts: lists.take("notServiceAccounts", Some(service_account_fault)),
        trust_domains: lists.take("trustDomains", Some(trust_domain_fault)),
        not_trust_domains: lists.take("notTrustDomains", Some(trust_domain_fault)),
        ip_blocks: lists.take("ipBlocks", Some(address_fault)),
        not_ip_blocks: lists.take("notIpBlocks", Some(address_fault)),
        remote_ip_blocks: lists.take("remoteIpBlocks", Some(address_fault)),
        not_remote_ip_blocks: lists.take("notRemoteIpBlocks", Some(address_fault)),
    };
    let given = lists.given;
    fields.close(report);
    if says_nothing(inner, &given) {
        report.invalid(
            inner.place,
            "`source` is empty",
            "say who, or leave `from` out: then anybody",
        );
    }
    check_source(&given, action, report);
    Some(source)
}

/// All lists are empty. A map with an unknown field says something, if not what was meant.
fn says_nothing(node: &Node, given: &[Given]) -> bool {
    let has_unknown = matches!(&node.value, Value::Map(entries) if entries.len() > given.len());
    !has_unknown && given.iter().all(|(_, _, len)| *len == 0)
}

/// What fields of one source forbid one another, and what an action forbids.
fn check_source(given: &[Given], action: Action, report: &mut Report) {
    let beside = ["principals", "notPrincipals", "namespaces", "notNamespaces"];
    let has_others = given.iter().any(|(name, ..)| beside.contains(name));
    for (name, place, len) in given {
        let by_account = matches!(*name, "serviceAccounts" | "notServiceAccounts");
        if by_account && has_others {
            let message = format!("`{name}` stands beside principals or namespaces");
            report.invalid(*place, message, "say it in one of the three ways (S-174)");
        }
        if by_account && *len > SERVICE_ACCOUNTS_MAX {
            let message = format!("`{name}` has {len} items, more than {SERVICE_ACCOUNTS_MAX}");
            report.invalid(*place, message, "write a second item of `from`");
        }
        let by_address = matches!(
            *name,
            "ipBlocks" | "notIpBlocks" | "remoteIpBlocks" | "notRemoteIpBlocks"
        );
        if action == Action::Custom && !by_address && *len > 0 {
            let message = format!("a CUSTOM rule asks for `{name}`, {TOO_EARLY}");
            let hint = "take `ipBlocks` or `remoteIpBlocks`, or leave it to the provider (S-159)";
            report.invalid(*place, message, hint);
        }
    }
}

fn read_to(node: &Node, report: &mut Report) -> Option<Operation> {
    let inner = take_only(node, "to", "operation", report)?;
    let mut fields = report.fields(inner, "operation")?;
    let mut lists = Lists::new(&mut fields, report);
    let operation = Operation {
        hosts: lists.take("hosts", None),
        not_hosts: lists.take("notHosts", None),
        ports: lists.take("ports", Some(port_fault)),
        not_ports: lists.take("notPorts", Some(port_fault)),
        methods: lists.take("methods", None),
        not_methods: lists.take("notMethods", None),
        paths: lists.take("paths", Some(path_fault)),
        not_paths: lists.take("notPaths", Some(path_fault)),
    };
    let given = lists.given;
    fields.close(report);
    if says_nothing(inner, &given) {
        report.invalid(
            inner.place,
            "`operation` is empty",
            "say what, or leave `to` out: then anything",
        );
    }
    Some(operation)
}

/// The one field that an item of `from` or `to` has.
fn take_only<'n>(
    node: &'n Node,
    list: &str,
    name: &'static str,
    report: &mut Report,
) -> Option<&'n Node> {
    let mut fields = report.fields(node, list)?;
    let inner = fields.take(name);
    fields.close(report);
    if inner.is_none() {
        let message = format!("an item of `{list}` has no `{name}`");
        report.invalid(node.place, message, format!("write `- {name}: {{…}}`"));
    }
    inner
}

/// A complaint about one value: what it is not, and what to write.
type Fault = (&'static str, &'static str);

/// A list that was there: its name, its place, its length.
type Given = (&'static str, Place, usize);

/// Takes lists of texts, and keeps which of them were there.
struct Lists<'f, 'n, 'r> {
    fields: &'f mut Fields<'n>,
    report: &'r mut Report,
    given: Vec<Given>,
}

impl<'f, 'n, 'r> Lists<'f, 'n, 'r> {
    fn new(fields: &'f mut Fields<'n>, report: &'r mut Report) -> Self {
        Self {
            fields,
            report,
            given: Vec::new(),
        }
    }

    fn take(
        &mut self,
        name: &'static str,
        fault: Option<fn(&str) -> Option<Fault>>,
    ) -> Vec<String> {
        let Some(node) = self.fields.take(name) else {
            return Vec::new();
        };
        let texts = self.report.texts(node, name);
        let len = match &node.value {
            Value::List(items) => items.len(),
            _ => 1,
        };
        self.given.push((name, node.place, len));
        check_values(name, &texts, fault, self.report);
        texts.into_iter().map(|(_, text)| text.to_owned()).collect()
    }
}

fn check_values(
    name: &str,
    values: &[(Place, &str)],
    fault: Option<fn(&str) -> Option<Fault>>,
    report: &mut Report,
) {
    for (place, value) in values {
        if value.is_empty() {
            report.invalid(
                *place,
                format!("`{name}` has an empty value"),
                "remove it, or say what it is to match",
            );
        } else if let Some((what, hint)) = fault.and_then(|fault| fault(value)) {
            report.invalid(*place, format!("`{value}` in `{name}` {what}"), hint);
        }
    }
}

fn port_fault(value: &str) -> Option<Fault> {
    let fault = ("is no port", "write a number from 0 to 65535");
    (!grammar::is_port(value)).then_some(fault)
}

fn address_fault(value: &str) -> Option<Fault> {
    let fault = (
        "is no address",
        "write an IP address or a block like 10.0.0.0/8",
    );
    (!grammar::is_address_block(value)).then_some(fault)
}

fn path_fault(value: &str) -> Option<Fault> {
    grammar::path_fault(value).map(|rule| ("is no path template", rule))
}

/// S-174.
fn service_account_fault(value: &str) -> Option<Fault> {
    let parts = value.split('/');
    if value.contains('*') {
        return Some((
            "has a wildcard",
            "write the account out; for patterns take `principals`",
        ));
    }
    if value.len() > SERVICE_ACCOUNT_LEN_MAX {
        return Some(("is too long", "no more than 320 bytes"));
    }
    let fault = ("is no service account", "write `name` or `namespace/name`");
    (parts.clone().count() > 2 || parts.clone().any(str::is_empty)).then_some(fault)
}

/// S-130. A condition on `source.trustDomain` is held to the stars alone, as Istio does.
fn trust_domain_fault(value: &str) -> Option<Fault> {
    if value.contains('/') {
        return Some(("has a slash", "name the trust domain alone"));
    }
    trust_domain_pattern_fault(value)
}

fn trust_domain_pattern_fault(value: &str) -> Option<Fault> {
    let inner = value
        .strip_prefix('*')
        .or_else(|| value.strip_suffix('*'))
        .unwrap_or(value);
    let fault = ("has a star inside", "one star may stand first or last");
    inner.contains('*').then_some(fault)
}

fn read_condition(node: &Node, action: Action, report: &mut Report) -> Option<Condition> {
    let mut fields = report.fields(node, "when")?;
    let key_node = fields.take("key");
    let values_node = fields.take("values");
    let not_values_node = fields.take("notValues");
    fields.close(report);
    let values = values_node.map_or_else(Vec::new, |node| report.texts(node, "values"));
    let not_values = not_values_node.map_or_else(Vec::new, |node| report.texts(node, "notValues"));
    let key = key_node.and_then(|node| report.text(node, "key"));
    if key_node.is_none() || key.is_some_and(str::is_empty) {
        report.invalid(
            node.place,
            "a condition has no `key`",
            "add `key`, for example `source.ip`",
        );
        return None;
    }
    if values.is_empty() && not_values.is_empty() {
        report.invalid(
            node.place,
            "a condition has neither `values` nor `notValues`",
            "add one of them",
        );
    }
    let (key, key_place) = (key?, key_node.map_or(node.place, |node| node.place));
    match Attribute::of(key) {
        Err(hint) => report.invalid(key_place, format!("`{key}` is no key of a condition"), hint),
        Ok(attribute) => {
            check_values("values", &values, attribute.fault(), report);
            check_values("notValues", &not_values, attribute.fault(), report);
            let len = values.len().max(not_values.len());
            if attribute == Attribute::ServiceAccount && len > SERVICE_ACCOUNTS_MAX {
                let message = format!("`{key}` has {len} values, more than {SERVICE_ACCOUNTS_MAX}");
                report.invalid(key_place, message, "write a second rule");
            }
            if action == Action::Custom && attribute.comes_late() {
                let message = format!("a CUSTOM rule asks for `{key}`, {TOO_EARLY}");
                report.invalid(key_place, message, "leave it to the provider (S-159)");
            }
        }
    }
    let owned =
        |texts: Vec<(Place, &str)>| texts.into_iter().map(|(_, text)| text.to_owned()).collect();
    Some(Condition {
        key: key.to_owned(),
        values: owned(values),
        not_values: owned(not_values),
        origin: report.origin(node.place),
    })
}

/// What a condition asks about (S-143).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attribute {
    Address,
    Port,
    Identity,
    ServiceAccount,
    TrustDomain,
    Token,
    Header,
    Other,
}

impl Attribute {
    /// Fails with what to do instead.
    fn of(key: &str) -> Result<Self, String> {
        const KEYS: [&str; 15] = [
            "request.headers[name]",
            "source.ip",
            "remote.ip",
            "source.namespace",
            "source.principal",
            "source.serviceAccount",
            "source.trustDomain",
            "request.auth.principal",
            "request.auth.audiences",
            "request.auth.presenter",
            "request.auth.claims[name]",
            "destination.ip",
            "destination.port",
            "connection.sni",
            "experimental.envoy.filters.filter[key]",
        ];
        let (name, index) = match key.split_once('[') {
            Some((name, rest)) => (
                name,
                rest.strip_suffix(']').filter(|index| !index.is_empty()),
            ),
            None => (key, None),
        };
        let indexed = key.contains('[');
        let filter = name.strip_prefix("experimental.envoy.filters.");
        match (name, indexed) {
            ("source.ip" | "remote.ip" | "destination.ip", false) => Ok(Self::Address),
            ("destination.port", false) => Ok(Self::Port),
            ("source.namespace" | "source.principal", false) => Ok(Self::Identity),
            ("source.serviceAccount", false) => Ok(Self::ServiceAccount),
            ("source.trustDomain", false) => Ok(Self::TrustDomain),
            (
                "request.auth.principal" | "request.auth.audiences" | "request.auth.presenter",
                false,
            ) => Ok(Self::Token),
            ("connection.sni", false) => Ok(Self::Other),
            ("request.headers", true) if index.is_some() => Ok(Self::Header),
            ("request.auth.claims", true) if index.is_some() => Ok(Self::Token),
            (_, true) if index.is_some() && filter.is_some_and(|filter| !filter.is_empty()) => {
                Ok(Self::Other)
            }
            ("request.headers" | "request.auth.claims", _) => {
                Err(format!("write `{name}[…]` with a name inside"))
            }
            ("destination.labels", _) => Err("select workloads with `selector`".to_owned()),
            ("destination.namespace", _) => {
                Err("the policy holds for its own namespace: `metadata.namespace`".to_owned())
            }
            ("destination.name" | "destination.user", _) => {
                Err("only the older API has it; take `selector`".to_owned())
            }
            _ => Err(match closest(key, &KEYS) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("take one of {}", KEYS.join(", ")),
            }),
        }
    }

    fn fault(self) -> Option<fn(&str) -> Option<Fault>> {
        match self {
            Self::Address => Some(address_fault),
            Self::Port => Some(port_fault),
            Self::ServiceAccount => Some(service_account_fault),
            Self::TrustDomain => Some(trust_domain_pattern_fault),
            Self::Identity | Self::Token | Self::Header | Self::Other => None,
        }
    }

    /// Known only after the provider of a CUSTOM policy was asked (S-110, S-159).
    fn comes_late(self) -> bool {
        match self {
            Self::Identity | Self::ServiceAccount | Self::TrustDomain | Self::Token => true,
            Self::Address | Self::Port | Self::Header | Self::Other => false,
        }
    }
}

impl Rule {
    /// Nothing is left of it when the fields that only HTTP has are taken away, and it had some (S-156, S-179).
    fn denies_all_tcp(&self) -> bool {
        let source_is_http = |source: &Source| {
            let request = Source {
                request_principals: source.request_principals.clone(),
                not_request_principals: source.not_request_principals.clone(),
                ..Source::default()
            };
            *source == request
        };
        let operation_is_http =
            |operation: &Operation| operation.ports.is_empty() && operation.not_ports.is_empty();
        let condition_is_http = |condition: &Condition| {
            matches!(
                Attribute::of(&condition.key),
                Ok(Attribute::Header | Attribute::Token)
            )
        };
        let empty = self.from.is_empty() && self.to.is_empty() && self.when.is_empty();
        !empty
            && (self.from.is_empty() || self.from.iter().any(source_is_http))
            && (self.to.is_empty() || self.to.iter().any(operation_is_http))
            && self.when.iter().all(condition_is_http)
    }
}

#[cfg(test)]
mod tests;
