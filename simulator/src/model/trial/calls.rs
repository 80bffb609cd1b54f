//! Draws calls that have to do with the policies: what matches a rule, what almost does, and whatever else.

use meshward_core::api::authorization_policy::{Action, AuthorizationPolicy, Condition, Rule};
use meshward_core::api::meta::Meta;
use meshward_core::api::peer_authentication::Mode;
use meshward_core::api::request_authentication::{JwtRule, KeySource};
use serde_json::{Map, Value, json};

use super::super::{Call, Line, Mesh, PortKind, Request, Setting, Workload, jwt, mtls, scope};
use super::policies::identity;
use super::tokens::{Key, Minted, altered};
use super::words::{self, instance, near, text};
use crate::chance::Chance;

/// The call as it is being put together.
struct Draft {
    identity: Option<String>,
    peer: String,
    forwarded: Option<String>,
    reached: String,
    port: u16,
    sni: Option<String>,
    method: String,
    path: String,
    query: Vec<(String, String)>,
    authority: String,
    lines: Vec<Line>,
    /// A token is wanted, with these claims.
    token: bool,
    payload: Map<String, Value>,
}

/// Draws one call to the workload; tokens that it carries are entered in `minted`.
pub fn call(
    chance: &mut Chance,
    mesh: &Mesh,
    workload: &Workload,
    keys: &[Key],
    minted: &mut Minted,
) -> Call {
    let mut draft = base(chance);
    let rules = in_force(mesh, workload);
    if !rules.is_empty() && !chance.one_in(12) {
        let (policy, rule) = chance.pick(&rules);
        satisfy(chance, &mut draft, policy, rule);
    }
    let kind = workload.ports.get(&draft.port).copied();
    let http = match kind.unwrap_or(PortKind::Auto) {
        PortKind::Http => true,
        PortKind::Tcp => false,
        PortKind::Auto => !chance.one_in(3),
    };
    // Most calls come the way that the mode lets them.
    if !chance.one_in(12) {
        match mtls::effective_mode(mesh, workload, draft.port) {
            Mode::Strict if draft.identity.is_none() => draft.identity = Some(identity(chance)),
            Mode::Disable => draft.identity = None,
            Mode::Strict | Mode::Permissive | Mode::Unset => {}
        }
    }
    if draft.identity.is_none() {
        draft.sni = None;
    }
    if http {
        add_token(chance, &mut draft, mesh, workload, keys, minted);
    }
    Call {
        identity: draft.identity.take(),
        peer: parsed(&draft.peer),
        reached: parsed(&draft.reached),
        port: draft.port,
        sni: draft.sni.take(),
        request: http.then(|| request(chance, draft)),
    }
}

fn parsed(address: &str) -> std::net::IpAddr {
    address.parse().expect("drawn from the addresses")
}

fn base(chance: &mut Chance) -> Draft {
    let forwarded = chance.one_in(3).then(|| text(chance, &words::ADDRESSES));
    let mut lines: Vec<Line> = Vec::new();
    for _ in 0..chance.within(0..=2) {
        let name = text(chance, &words::HEADERS);
        lines.push((name, header_value(chance)));
    }
    Draft {
        identity: (!chance.one_in(5)).then(|| identity(chance)),
        peer: text(chance, &words::ADDRESSES),
        forwarded,
        reached: text(chance, &words::PODS),
        port: chance.pick(&words::PORTS),
        sni: Some(text(chance, &words::SERVER_NAMES)),
        method: text(chance, &words::METHODS),
        path: text(chance, &words::PATHS),
        query: Vec::new(),
        authority: text(chance, &words::HOSTS),
        lines,
        token: chance.one_in(2),
        payload: Map::new(),
    }
}

fn header_value(chance: &mut Chance) -> Vec<u8> {
    match chance.within(0..=11) {
        0 => Vec::new(),
        1 => vec![b'a', 0xff, b'n'],
        _ => text(chance, &words::HEADER_VALUES).into_bytes(),
    }
}

fn in_force<'m>(mesh: &'m Mesh, workload: &Workload) -> Vec<(&'m AuthorizationPolicy, &'m Rule)> {
    let applies = |meta: &Meta, selector, targets| {
        scope::applies(
            meta,
            selector,
            targets,
            workload,
            &mesh.config.root_namespace,
        )
    };
    let policies = mesh
        .authorization
        .iter()
        .filter(|policy| applies(&policy.meta, policy.selector.as_ref(), policy.targets));
    policies
        .flat_map(|policy| {
            // What is denied is half of what there is to see.
            let times = if policy.action == Action::Deny { 2 } else { 1 };
            policy
                .rules
                .iter()
                .flat_map(move |rule| std::iter::repeat_n((policy, rule), times))
        })
        .collect()
}

/// A field and its not-form pull the draft their way: the first mostly, the second half of the time.
fn pull(
    chance: &mut Chance,
    values: &[String],
    not_values: &[String],
    mut set: impl FnMut(&mut Chance, &str, bool),
) {
    if !values.is_empty() && !chance.one_in(10) {
        let value = chance.pick(values);
        let almost = chance.one_in(5);
        set(chance, &value, almost);
    }
    if !not_values.is_empty() && chance.one_in(if values.is_empty() { 2 } else { 4 }) {
        let value = chance.pick(not_values);
        let almost = chance.one_in(5);
        set(chance, &value, almost);
    }
}

fn satisfy(chance: &mut Chance, draft: &mut Draft, policy: &AuthorizationPolicy, rule: &Rule) {
    if !rule.from.is_empty() {
        let source = &rule.from[chance.index(rule.from.len())];
        pull(
            chance,
            &source.principals,
            &source.not_principals,
            |c, v, almost| {
                draft.identity = principal(c, v, almost);
            },
        );
        pull(
            chance,
            &source.namespaces,
            &source.not_namespaces,
            |c, v, almost| {
                let value = like(c, v, &words::NAMESPACES, almost);
                set_part(c, draft, 2, &value);
            },
        );
        pull(
            chance,
            &source.service_accounts,
            &source.not_service_accounts,
            |c, v, almost| account(c, draft, policy, v, almost),
        );
        pull(
            chance,
            &source.trust_domains,
            &source.not_trust_domains,
            |c, v, almost| {
                let value = like(c, v, &words::DOMAINS, almost);
                set_part(c, draft, 0, &value);
            },
        );
        pull(
            chance,
            &source.request_principals,
            &source.not_request_principals,
            |c, v, almost| request_principal(c, draft, v, almost),
        );
        pull(
            chance,
            &source.ip_blocks,
            &source.not_ip_blocks,
            |c, v, _| {
                draft.peer = within(c, v);
            },
        );
        pull(
            chance,
            &source.remote_ip_blocks,
            &source.not_remote_ip_blocks,
            |c, v, _| remote(c, draft, v),
        );
    }
    if !rule.to.is_empty() {
        let operation = &rule.to[chance.index(rule.to.len())];
        pull(
            chance,
            &operation.hosts,
            &operation.not_hosts,
            |c, v, almost| {
                draft.authority = like(c, v, &words::HOSTS, almost);
            },
        );
        pull(chance, &operation.ports, &operation.not_ports, |_, v, _| {
            draft.port = v.parse().unwrap_or(draft.port);
        });
        pull(
            chance,
            &operation.methods,
            &operation.not_methods,
            |c, v, almost| {
                draft.method = like(c, v, &words::METHODS, almost);
            },
        );
        pull(
            chance,
            &operation.paths,
            &operation.not_paths,
            |c, v, almost| {
                let path = if v.contains('{') {
                    filled(c, v)
                } else {
                    instance(c, v, &words::PATHS)
                };
                draft.path = shifted(c, path, almost);
            },
        );
    }
    for condition in &rule.when {
        condition_pull(chance, draft, policy, condition);
    }
}

fn condition_pull(
    chance: &mut Chance,
    draft: &mut Draft,
    policy: &AuthorizationPolicy,
    condition: &Condition,
) {
    let key = condition.key.as_str();
    pull(
        chance,
        &condition.values,
        &condition.not_values,
        |c, v, almost| match key {
            "source.ip" => draft.peer = within(c, v),
            "remote.ip" => remote(c, draft, v),
            "destination.ip" => draft.reached = text(c, &words::PODS),
            "destination.port" => draft.port = v.parse().unwrap_or(draft.port),
            "source.namespace" => {
                let value = like(c, v, &words::NAMESPACES, almost);
                set_part(c, draft, 2, &value);
            }
            "source.principal" => draft.identity = principal(c, v, almost),
            "source.serviceAccount" => account(c, draft, policy, v, almost),
            "source.trustDomain" => {
                let value = like(c, v, &words::DOMAINS, almost);
                set_part(c, draft, 0, &value);
            }
            "connection.sni" => {
                draft.sni = Some(like(c, v, &words::SERVER_NAMES, almost));
            }
            "request.auth.principal" => request_principal(c, draft, v, almost),
            "request.auth.audiences" => {
                let value = like(c, v, &words::AUDIENCES, almost);
                claim(c, draft, &["aud"], value);
            }
            "request.auth.presenter" => {
                let value = like(c, v, &words::PRESENTERS, almost);
                claim(c, draft, &["azp"], value);
            }
            _ => {
                let names = key.split_once('[').map_or("", |(_, names)| names);
                let names = names.trim_end_matches(']');
                if key.starts_with("request.headers") {
                    let value = like(c, v, &words::HEADER_VALUES, almost);
                    header(c, draft, names, value);
                } else if key.starts_with("request.auth.claims") {
                    let path: Vec<&str> = names.split("][").collect();
                    let value = like(c, v, &words::CLAIM_VALUES, almost);
                    claim(c, draft, &path, value);
                }
            }
        },
    );
}

fn shifted(chance: &mut Chance, value: String, almost: bool) -> String {
    if almost { near(chance, &value) } else { value }
}

/// What the pattern matches, or almost.
fn like(chance: &mut Chance, pattern: &str, words: &[&str], almost: bool) -> String {
    let value = instance(chance, pattern, words);
    shifted(chance, value, almost)
}

fn principal(chance: &mut Chance, pattern: &str, almost: bool) -> Option<String> {
    let mut value = match pattern.strip_prefix('*') {
        Some("") => identity(chance),
        // In front of `/ns/…` a trust domain is missing, or its beginning.
        Some(end) if end.starts_with('/') => format!("{}{end}", chance.pick(&words::DOMAINS)),
        Some(end) => format!("{}{end}", chance.pick(&["", "old.", "q/ns/shop/sa/"])),
        None => match pattern.strip_suffix('*') {
            Some(start) => format!("{start}{}", chance.pick(&["web", "q", "/ns/shop/sa/web"])),
            None => pattern.to_owned(),
        },
    };
    // Another trust domain under the same rest: an alias perhaps (S-88).
    if chance.one_in(4)
        && let Some((_, rest)) = value.split_once('/')
    {
        value = format!("{}/{rest}", chance.pick(&words::DOMAINS));
    }
    Some(shifted(chance, value, almost)).filter(|value| value.contains('/'))
}

/// Puts a part of the form `<domain>/ns/<namespace>/sa/<account>` in the identity.
fn set_part(chance: &mut Chance, draft: &mut Draft, part: usize, value: &str) {
    let whole = draft.identity.clone().unwrap_or_else(|| identity(chance));
    let mut parts: Vec<&str> = whole.split('/').collect();
    if let Some(old) = parts.get_mut(part) {
        *old = value;
    }
    draft.identity = Some(parts.join("/"));
}

fn account(
    chance: &mut Chance,
    draft: &mut Draft,
    policy: &AuthorizationPolicy,
    value: &str,
    almost: bool,
) {
    let home = policy.meta.namespace.as_str();
    let (namespace, account) = value.split_once('/').unwrap_or((home, value));
    let domain = chance.pick(&words::DOMAINS);
    let account = if chance.one_in(8) {
        account.replace('.', "x") // S-129: a dot is a dot
    } else {
        shifted(chance, account.to_owned(), almost)
    };
    let tail = chance.pick(&["", "", "", "", "/more"]);
    draft.identity = Some(format!("{domain}/ns/{namespace}/sa/{account}{tail}"));
}

fn request_principal(chance: &mut Chance, draft: &mut Draft, pattern: &str, almost: bool) {
    draft.token = true;
    let subject = match pattern.rsplit_once('/') {
        Some((issuer, subject)) => {
            let issuer = instance(chance, issuer, &words::ISSUERS);
            draft.payload.insert("iss".into(), issuer.into());
            subject
        }
        None => pattern,
    };
    let subject = like(chance, subject, &words::SUBJECTS, almost);
    draft.payload.insert("sub".into(), subject.into());
}

fn claim(chance: &mut Chance, draft: &mut Draft, path: &[&str], text: String) {
    draft.token = true;
    let number = text.parse::<u64>().ok();
    let worded = matches!(path, ["words" | "scope" | "permission"]);
    let value: Value = match chance.within(0..=9) {
        _ if number.is_some() && chance.one_in(2) => json!(number),
        _ if worded && !chance.one_in(4) => json!(format!("first {text} last")),
        0 | 1 => json!([7, text, true]),
        2 => json!(["other", text]),
        3 if path != ["aud"] => json!(format!("first {text}")),
        4 if path != ["aud"] => {
            chance.pick(&[json!(7), json!(true), json!({"q": text}), json!(null)])
        }
        _ => text.into(),
    };
    let [first, rest @ ..] = path else {
        return;
    };
    let value = rest
        .iter()
        .rev()
        .fold(value, |value, name| json!({ *name: value }));
    draft.payload.insert((*first).to_owned(), value);
}

fn header(chance: &mut Chance, draft: &mut Draft, name: &str, value: String) {
    if chance.one_in(2) {
        draft
            .lines
            .retain(|(line, _)| !line.eq_ignore_ascii_case(name));
    }
    let name = match chance.within(0..=2) {
        0 => name.to_ascii_lowercase(),
        1 => name.to_ascii_uppercase(),
        _ => name.to_owned(),
    };
    let at = chance.index(draft.lines.len() + 1);
    draft.lines.insert(at, (name, value.into_bytes()));
}

fn within(chance: &mut Chance, block: &str) -> String {
    let address = block.split('/').next().unwrap_or(block);
    if chance.one_in(2) {
        address.to_owned()
    } else {
        text(chance, &words::ADDRESSES)
    }
}

fn remote(chance: &mut Chance, draft: &mut Draft, block: &str) {
    let address = within(chance, block);
    if chance.one_in(3) {
        draft.peer = address;
        draft.forwarded = None;
    } else {
        let before = chance.pick(&["", "1.2.3.4, ", "10.0.0.1,"]);
        draft.forwarded = Some(format!("{before}{address}"));
    }
}

/// A path that a template matches, or nearly.
fn filled(chance: &mut Chance, template: &str) -> String {
    let rest = chance.pick(&["", "x", "v1/users", "a/", "/", "[x]"]);
    let segment = chance.pick(&["x", "v1", "users", "a%20b", "a^b", "*", "", "x/y"]);
    template.replace("{**}", rest).replace("{*}", segment)
}

fn request(chance: &mut Chance, mut draft: Draft) -> Request {
    let mut target = draft.path.clone();
    if !target.starts_with('/') {
        target.insert(0, '/');
    }
    target.retain(|c| c.is_ascii_graphic() && !"?#".contains(c));
    if chance.one_in(3) {
        target = dressed(chance, &target);
    }
    // Anything else is 400 before there is a request (S-182).
    if !target.starts_with('/') {
        target.insert(0, '/');
    }
    if chance.one_in(6) {
        draft.query.insert(0, ("a".into(), "/../%2f//".into()));
    }
    if !draft.query.is_empty() {
        let pairs: Vec<String> = draft
            .query
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        target = format!("{target}?{}", pairs.join("&"));
    }
    if chance.one_in(20) {
        target.push_str("#part");
    }
    if let Some(value) = draft.forwarded {
        if chance.one_in(8) {
            let first = text(chance, &words::ADDRESSES);
            let line = ("x-forwarded-for".into(), first.into_bytes());
            draft.lines.push(line);
        }
        draft
            .lines
            .push(("X-Forwarded-For".into(), value.into_bytes()));
    }
    if draft.method == "OPTIONS" && chance.one_in(2) {
        draft
            .lines
            .push(("Origin".into(), b"https://shop.example".to_vec()));
        if chance.one_in(2) {
            let line = ("Access-Control-Request-Method".into(), b"POST".to_vec());
            draft.lines.push(line);
        }
    }
    Request {
        method: draft.method,
        target,
        authority: draft.authority,
        lines: draft.lines,
    }
}

/// The path with something in it that normalisation has an opinion about.
fn dressed(chance: &mut Chance, path: &str) -> String {
    let slashes: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
    let at = chance.pick(&slashes);
    let (before, after) = path.split_at(at);
    let rest = &after[1..];
    match chance.within(0..=18) {
        0 => format!("{before}//{rest}"),
        18 => format!("//{}", path.trim_start_matches('/')),
        1 => format!("{before}/./{rest}"),
        2 => format!("{before}/q/../{rest}"),
        3 => format!("{before}/%2e/{rest}"),
        4 => format!("{before}/q/%2E./{rest}"),
        5 => format!("{before}%2f{rest}"),
        6 => format!("{before}/%5c{rest}"),
        7 => format!("{before}\\{rest}"),
        8 => format!("{before}/q/..;p/{rest}"),
        9 => format!("{before}/.;p=1/{rest}"),
        10 => format!("{path}/"),
        11 => format!("{path}%00"),
        12 => format!("{path}/%2%41"),
        13 => format!(
            "{path}{}",
            chance.pick(&["^", "|", "{", "\"", "[", "%7c", "%zz", "%"])
        ),
        14 => format!("{path}{}", chance.pick(&["/..", "/.", "/../..", "//.."])),
        15 => path.replacen('a', "%61", 1),
        16 => path.replacen("%7e", "~", 1),
        _ => format!("{before}/...{after}"),
    }
}

fn add_token(
    chance: &mut Chance,
    draft: &mut Draft,
    mesh: &Mesh,
    workload: &Workload,
    keys: &[Key],
    minted: &mut Minted,
) {
    let rules = jwt::rules(Setting {
        mesh,
        workload,
        signed_by: &|_| None,
        now: minted.now(),
        flipped: None,
    });
    if !draft.token && !chance.one_in(6) {
        return;
    }
    let issuer = draft
        .payload
        .get("iss")
        .and_then(Value::as_str)
        .map(str::to_owned);
    // The issuer that a policy asks for, if there is a rule for it.
    let wanted = rules
        .iter()
        .find(|rule| Some(&rule.issuer) == issuer.as_ref());
    let rule = match wanted {
        Some(rule) => Some(*rule),
        None if rules.is_empty() => None,
        None => Some(chance.pick(&rules)),
    };
    let token = token(chance, draft, rule, keys, minted);
    place(chance, draft, rule, &token);
    if chance.one_in(12) {
        let other = (!rules.is_empty()).then(|| chance.pick(&rules));
        if rule.is_none_or(|rule| other.is_none_or(|other| !std::ptr::eq(rule, other))) {
            let token = self::token(chance, draft, other, keys, minted);
            place(chance, draft, other, &token);
        }
    }
    // What the client would like us to have put out.
    if chance.one_in(8) {
        let name = chance.pick(&["x-payload", "X-User", "x-role"]);
        draft.lines.push((name.to_owned(), b"admin".to_vec()));
    }
}

fn place(chance: &mut Chance, draft: &mut Draft, rule: Option<&JwtRule>, token: &str) {
    let mut places: Vec<(u8, String, String)> = Vec::new();
    if let Some(rule) = rule {
        for location in &rule.from_headers {
            places.push((0, location.name.clone(), location.prefix.clone()));
        }
        places.extend(
            rule.from_params
                .iter()
                .map(|name| (1, name.clone(), String::new())),
        );
        places.extend(
            rule.from_cookies
                .iter()
                .map(|name| (2, name.clone(), String::new())),
        );
    }
    if places.is_empty() || chance.one_in(15) {
        places = vec![
            (0, "Authorization".into(), "Bearer ".into()),
            (0, "Authorization".into(), "Bearer ".into()),
            (1, "access_token".into(), String::new()),
        ];
    }
    let (kind, name, prefix) = chance.pick(&places);
    match kind {
        0 => {
            let value = match chance.within(0..=19) {
                0 if !prefix.is_empty() => format!("{}{token}", prefix.to_lowercase()),
                1 if !prefix.is_empty() => format!("Basic eDp5, {prefix}{token}"),
                2 if !prefix.is_empty() => format!("{prefix}{token} and more"),
                3 if !prefix.is_empty() => token.to_owned(),
                4 => format!("{prefix}{token}x"),
                5 if !prefix.is_empty() => "Basic eDp5".to_owned(),
                _ => format!("{prefix}{token}"),
            };
            let again = chance
                .one_in(25)
                .then(|| (name.clone(), value.clone().into_bytes()));
            draft.lines.push((name, value.into_bytes()));
            draft.lines.extend(again);
        }
        1 => {
            let known = draft.query.iter().any(|(given, _)| *given == name);
            if !known {
                let value = if chance.one_in(6) {
                    token.replace('.', "%2E")
                } else {
                    token.to_owned()
                };
                draft.query.push((name, value));
            }
        }
        _ => {
            let value = format!("a=b; {name}={token}; c=d");
            draft.lines.push(("Cookie".into(), value.into_bytes()));
        }
    }
}

/// A token for the rule, mostly a good one.
fn token(
    chance: &mut Chance,
    draft: &Draft,
    rule: Option<&JwtRule>,
    keys: &[Key],
    minted: &mut Minted,
) -> String {
    let now = minted.now();
    let mut payload = draft.payload.clone();
    let mut put = |name: &str, value: Value| {
        payload.entry(name.to_owned()).or_insert(value);
    };
    let issuer = rule.map_or_else(|| text(chance, &words::ISSUERS), |rule| rule.issuer.clone());
    put("iss", issuer.into());
    put("sub", text(chance, &words::SUBJECTS).into());
    put("exp", json!(now + 3600));
    for path in [["scope"], ["groups"], ["role"]] {
        if chance.one_in(3) {
            put(path[0], text(chance, &words::CLAIM_VALUES).into());
        }
    }
    put("level", json!(7));
    if chance.one_in(2) {
        let both = [0; 2].map(|_| text(chance, &words::CLAIM_VALUES));
        put("words", both.join(" ").into());
    }
    if let Some(rule) = rule
        && !rule.audiences.is_empty()
        && !chance.one_in(8)
    {
        let audience = chance.pick(&rule.audiences);
        let audience = match chance.within(0..=3) {
            0 => json!(format!("https://{audience}")),
            1 => json!(["other", audience]),
            _ => json!(audience),
        };
        if !payload.contains_key("aud") || chance.one_in(2) {
            payload.insert("aud".into(), audience);
        }
    }
    let listed: Vec<&Key> = keys
        .iter()
        .filter(|key| key.can_sign())
        .filter(|key| {
            rule.is_none_or(|rule| match &rule.keys {
                KeySource::Inline(set) => set.contains(&key.identifying()),
                KeySource::Uri(_) | KeySource::Discovery => true,
            })
        })
        .collect();
    let mut key = if listed.is_empty() {
        &keys[0]
    } else {
        chance.pick(&listed)
    };
    let mut header = Map::new();
    header.insert("alg".into(), chance.pick(key.algorithms).into());
    if chance.one_in(2) {
        header.insert("kid".into(), key.kid.into());
    }
    match chance.within(0..=74) {
        0 => drop(payload.insert("exp".into(), json!(now - 60))),
        1 | 2 => drop(payload.insert("exp".into(), json!(now - 61))),
        3 => drop(payload.insert("nbf".into(), json!(now + 60))),
        4 | 5 => drop(payload.insert("nbf".into(), json!(now + 61))),
        6 => drop(payload.insert("iss".into(), "https://nobody.example".into())),
        7 => drop(payload.remove("sub")),
        8 => drop(payload.remove("iss")),
        9 => drop(payload.insert("iss".into(), json!(7))),
        10 => drop(payload.insert("sub".into(), json!(["alice"]))),
        11 => drop(payload.insert("exp".into(), json!("soon"))),
        12 => drop(payload.insert("nbf".into(), json!(-1))),
        13 => drop(payload.insert("aud".into(), json!(7))),
        14 => drop(header.insert("kid".into(), "another".into())),
        15 => drop(header.insert("kid".into(), json!(7))),
        16 => drop(header.insert("alg".into(), "none".into())),
        17 => drop(header.remove("alg")),
        18 | 19 => {
            key = &keys[chance.index(keys.len())];
            header.insert("alg".into(), key.algorithms[0].into());
        }
        20 => {
            // Signed by one, said to be by another kind.
            header.insert(
                "alg".into(),
                text(chance, &["RS256", "HS256", "ES256"]).into(),
            );
        }
        21 => drop(payload.remove("exp")),
        22 => drop(payload.insert("jti".into(), json!(1))),
        23 => drop(payload.insert("aud".into(), "elsewhere".into())),
        _ => {}
    }
    // For an algorithm that is not the key's the signature is of one that is, and good for nothing.
    let said = header.get("alg").and_then(Value::as_str);
    let algorithm = said
        .and_then(|said| key.algorithms.iter().find(|algorithm| **algorithm == said))
        .copied();
    let token = minted.mint(
        key,
        algorithm.unwrap_or_default(),
        &Value::Object(header),
        &Value::Object(payload.clone()).to_string(),
    );
    match chance.within(0..=59) {
        0 => {
            payload.insert("sub".into(), "root".into());
            altered(&token, &Value::Object(payload).to_string())
        }
        1 => token
            .rsplit_once('.')
            .map_or(String::new(), |(start, _)| format!("{start}.")),
        2 => token.replacen('.', "..", 1),
        3 => altered(&token, "{not json"),
        4 => format!("!{token}"),
        5 => "abc.def".to_owned(),
        6 => format!("{token}.more"),
        _ => token,
    }
}
