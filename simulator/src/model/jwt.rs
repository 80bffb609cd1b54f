//! RequestAuthentication (S-210 to S-234).
//!
//! A token is its text: header and payload are read, and who signed it is told by the oracle.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use meshward_core::api::request_authentication::{HeaderLocation, JwtRule, KeySource};
use serde_json::{Map, Value};

use super::scope::{age, applies};
use super::{Answer, Call, Line, Oracle, Request, Setting, values};

/// The payload that rules see (S-226).
#[derive(Clone, Debug)]
pub struct Claims {
    payload: Map<String, Value>,
    /// Top-level claims whose text is a list of words (S-148).
    delimited: Vec<String>,
}

impl Claims {
    /// `iss` and `sub`, both texts (S-131).
    pub fn principal(&self) -> Option<(&str, &str)> {
        Some((
            self.payload.get("iss")?.as_str()?,
            self.payload.get("sub")?.as_str()?,
        ))
    }

    /// The claim at a path of names, whatever it is.
    pub fn get(&self, names: &[&str]) -> Option<&Value> {
        at(&self.payload, names)
    }

    /// The texts at a path of names: one, those of a list, or the words of one (S-147, S-148).
    pub fn texts(&self, names: &[&str]) -> Vec<String> {
        match self.get(names) {
            Some(Value::String(text)) => {
                let words = names.len() == 1 && self.delimited.iter().any(|name| name == names[0]);
                if words {
                    text.split(' ').map(str::to_owned).collect()
                } else {
                    vec![text.clone()]
                }
            }
            Some(Value::Array(list)) => list
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => {
                Vec::new()
            }
        }
    }
}

fn at<'v>(payload: &'v Map<String, Value>, names: &[&str]) -> Option<&'v Value> {
    let (first, rest) = names.split_first()?;
    rest.iter()
        .try_fold(payload.get(*first)?, |value, name| value.get(*name))
}

/// What a request is after its tokens were looked at.
#[derive(Clone, Debug)]
pub struct Authenticated {
    pub target: String,
    pub lines: Vec<Line>,
    pub claims: Option<Claims>,
}

/// The fields of a rule, and the checks of S-216, one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Turned round, a location finds nothing.
    DefaultLocations,
    FromHeaders,
    FromParams,
    FromCookies,
    /// Whether the value has the prefix.
    Prefix,
    Issuer,
    NotBefore,
    Expiry,
    Audiences,
    /// Whether a key is passed over for its `kid`.
    KeyId,
    /// Whether a key is passed over for its `alg`.
    KeyAlgorithm,
    Signature,
    ForwardOriginalToken,
    /// Turned round, nothing is put out.
    OutputPayload,
    OutputClaims,
    /// Turned round, nothing but `scope` and `permission` is split.
    SpaceDelimited,
}

impl Check {
    pub const ALL: [Self; 16] = [
        Self::DefaultLocations,
        Self::FromHeaders,
        Self::FromParams,
        Self::FromCookies,
        Self::Prefix,
        Self::Issuer,
        Self::NotBefore,
        Self::Expiry,
        Self::Audiences,
        Self::KeyId,
        Self::KeyAlgorithm,
        Self::Signature,
        Self::ForwardOriginalToken,
        Self::OutputPayload,
        Self::OutputClaims,
        Self::SpaceDelimited,
    ];
}

const MISSING: &str = "Jwt is missing";
const UNKNOWN_ISSUER: &str = "Jwt issuer is not configured";
const AUDIENCES: &str = "Audiences in Jwt are not allowed";
const FAILS: &str = "Jwt verification fails";
/// S-219.
const SKEW: u64 = 60;

/// The rules in force, sorted by issuer (S-210); those of one issuer by the age of their policies (S-7).
pub fn rules<'m>(setting: Setting<'m>) -> Vec<&'m JwtRule> {
    let Setting { mesh, workload, .. } = setting;
    let mut policies: Vec<_> = mesh
        .requests
        .iter()
        .filter(|policy| {
            let root = &mesh.config.root_namespace;
            let selector = policy.selector.as_ref();
            applies(&policy.meta, selector, policy.targets, workload, root)
        })
        .collect();
    policies.sort_by_key(|policy| age(&policy.meta));
    let mut rules: Vec<&JwtRule> = policies.iter().flat_map(|policy| &policy.rules).collect();
    rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
    rules
}

/// What becomes of the request; `target` is normalised (S-180).
pub fn authenticate(
    setting: Setting<'_>,
    call: &Call,
    request: &Request,
    target: &str,
) -> Result<Authenticated, Answer> {
    let rules = rules(setting);
    let mut out = Authenticated {
        target: target.to_owned(),
        lines: request.lines.clone(),
        claims: None,
    };
    // Copies that the client sent of what we put out are always removed (S-225).
    for rule in &rules {
        for name in output_headers(rule) {
            remove_header(&mut out.lines, name);
        }
    }
    if is_preflight(request) {
        return Ok(out);
    }
    let mut problems = Vec::new();
    for rule in rules {
        match verify_all(setting, rule, &request.lines, target) {
            // The first rule whose tokens verify ends it (S-212).
            Ok(found) => {
                take_effect(setting, rule, &found, &mut out);
                return Ok(out);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.iter().all(|problem| *problem == MISSING) {
        return Ok(out); // S-211
    }
    // The alternative behind all rules, each of them or nothing, fails at the first that does, so that is told last (S-212).
    let told = problems
        .iter()
        .find(|problem| ![MISSING, UNKNOWN_ISSUER].contains(problem))
        .copied()
        .unwrap_or(UNKNOWN_ISSUER);
    Err(refusal(told, call, request, target))
}

/// S-217.
fn refusal(text: &str, call: &Call, request: &Request, target: &str) -> Answer {
    let scheme = if call.identity.is_some() {
        "https"
    } else {
        "http"
    };
    let shown: String = target.chars().take(256).collect();
    let host = &request.authority;
    Answer::Unauthenticated {
        status: if text == AUDIENCES { 403 } else { 401 },
        text: text.to_owned(),
        challenge: format!(r#"Bearer realm="{scheme}://{host}{shown}", error="invalid_token""#),
    }
}

/// S-227.
fn is_preflight(request: &Request) -> bool {
    let has = |name| !values::header(&request.lines, name).is_empty();
    request.method == "OPTIONS" && has("origin") && has("access-control-request-method")
}

/// Where a token was.
#[derive(Clone, Debug)]
enum Place {
    Header(String),
    Param(String),
    Cookie,
}

struct Found {
    token: String,
    place: Place,
    payload: Map<String, Value>,
}

/// All tokens of one rule, in the order of their locations (S-214).
fn verify_all(
    setting: Setting<'_>,
    rule: &JwtRule,
    lines: &[Line],
    target: &str,
) -> Result<Vec<Found>, &'static str> {
    let tokens = locate(setting, rule, lines, target);
    if tokens.is_empty() {
        return Err(MISSING);
    }
    let mut verified = Vec::new();
    for (token, place) in tokens.into_iter().rev() {
        let payload = verify(setting, rule, &token)?;
        verified.push(Found {
            token,
            place,
            payload,
        });
    }
    verified.reverse();
    Ok(verified)
}

/// S-213.
fn locate(
    setting: Setting<'_>,
    rule: &JwtRule,
    lines: &[Line],
    target: &str,
) -> Vec<(String, Place)> {
    let hidden = |check| setting.flipped == Some(check);
    let mut found = Vec::new();
    if rule.from_headers.is_empty() && rule.from_params.is_empty() && rule.from_cookies.is_empty() {
        if hidden(Check::DefaultLocations) {
            return found;
        }
        let authorization = HeaderLocation {
            name: "authorization".into(),
            prefix: "Bearer ".into(),
        };
        in_header(setting, &authorization, lines, &mut found);
        in_param("access_token", target, &mut found);
        return found;
    }
    if !hidden(Check::FromHeaders) {
        for location in &rule.from_headers {
            in_header(setting, location, lines, &mut found);
        }
    }
    if !hidden(Check::FromParams) {
        for name in &rule.from_params {
            in_param(name, target, &mut found);
        }
    }
    if !hidden(Check::FromCookies) {
        for name in &rule.from_cookies {
            found.extend(cookie(lines, name).map(|token| (token, Place::Cookie)));
        }
    }
    found
}

/// Each line is a token of its own; lines of `authorization` were joined before (S-213, S-234).
fn in_header(
    setting: Setting<'_>,
    location: &HeaderLocation,
    lines: &[Line],
    found: &mut Vec<(String, Place)>,
) {
    for value in values::header(lines, &location.name) {
        let value = String::from_utf8_lossy(&value).into_owned();
        let place = Place::Header(location.name.clone());
        if location.prefix.is_empty() {
            found.push((value, place));
            continue;
        }
        let after = value
            .find(&location.prefix)
            .map(|at| at + location.prefix.len());
        let after = match setting.flipped {
            Some(Check::Prefix) => after.is_none().then_some(0),
            _ => after,
        };
        let is_token = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if let Some(rest) = after.map(|after| &value[after..])
            && let Some(start) = rest.find(is_token)
        {
            found.push((rest[start..].to_owned(), place));
        }
    }
}

/// The first value of the parameter.
fn in_param(name: &str, target: &str, found: &mut Vec<(String, Place)>) {
    let Some((_, query)) = target.split_once('?') else {
        return;
    };
    let value = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name);
    if let Some((_, value)) = value {
        found.push((percent_decoded(value), Place::Param(name.to_owned())));
    }
}

fn percent_decoded(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let byte = rest
            .get(at + 1..at + 3)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                out.push(byte.into());
                rest = &rest[at + 3..];
            }
            None => {
                out.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

fn cookie(lines: &[Line], name: &str) -> Option<String> {
    let values = values::header(lines, "cookie");
    values.iter().find_map(|value| {
        String::from_utf8_lossy(value).split(';').find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then(|| value.to_owned())
        })
    })
}

/// One token against one rule, in the order of S-216.
fn verify(
    setting: Setting<'_>,
    rule: &JwtRule,
    token: &str,
) -> Result<Map<String, Value>, &'static str> {
    let turned = |check, holds: bool| holds != (setting.flipped == Some(check));
    let Parts { header, payload } = read(token)?;
    let algorithm = header
        .get("alg")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let number = |name| payload.get(name).and_then(Value::as_u64);
    let audience = match payload.get("aud") {
        None => Vec::new(),
        Some(one) => match one.as_array() {
            Some(list) => list.iter().filter_map(Value::as_str).collect(),
            None => one.as_str().into_iter().collect(),
        },
    };
    let issuer = payload
        .get("iss")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !turned(
        Check::Issuer,
        rule.issuer.is_empty() || rule.issuer == issuer,
    ) {
        return Err(UNKNOWN_ISSUER);
    }
    let begun = number("nbf").is_none_or(|nbf| nbf <= setting.now + SKEW);
    if !turned(Check::NotBefore, begun) {
        return Err("Jwt not yet valid");
    }
    let lasting = number("exp").is_none_or(|exp| setting.now <= exp.saturating_add(SKEW));
    if !turned(Check::Expiry, lasting) {
        return Err("Jwt is expired");
    }
    let meant = audience.iter().any(|audience| {
        rule.audiences
            .iter()
            .any(|expected| bare_audience(audience) == bare_audience(expected))
    });
    if !turned(Check::Audiences, rule.audiences.is_empty() || meant) {
        return Err(AUDIENCES);
    }
    let kid = header
        .get("kid")
        .and_then(Value::as_str)
        .unwrap_or_default();
    signed(setting, rule, token, algorithm, kid)?;
    Ok(payload)
}

/// S-223.
fn bare_audience(text: &str) -> &str {
    let text = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text);
    text.strip_suffix('/').unwrap_or(text)
}

/// The key loop (S-220, S-221, S-228, S-229).
fn signed(
    setting: Setting<'_>,
    rule: &JwtRule,
    token: &str,
    algorithm: &str,
    kid: &str,
) -> Result<(), &'static str> {
    let keys = match &rule.keys {
        KeySource::Inline(text) => usable_keys(text),
        KeySource::Uri(_) | KeySource::Discovery => return Err(FAILS),
    };
    if keys.is_empty() {
        return Err("Jwks doesn't have any valid public key");
    }
    let text = |key: &Value, name: &str| key.get(name).and_then(Value::as_str).map(str::to_owned);
    let turned = |check, holds: bool| holds != (setting.flipped == Some(check));
    let mut tried = false;
    let mut told = FAILS;
    for key in keys {
        let other_kid = text(&key, "kid")
            .is_some_and(|named| !named.is_empty() && !kid.is_empty() && named != kid);
        let other_algorithm = text(&key, "alg").is_some_and(|named| named != algorithm);
        if turned(Check::KeyId, other_kid) || turned(Check::KeyAlgorithm, other_algorithm) {
            continue;
        }
        tried = true;
        let by_this = signer(setting.signed_by, token).is_some_and(|signer| {
            ["k", "x", "n"]
                .iter()
                .any(|name| text(&key, name).as_deref() == Some(&signer))
        });
        let fits = text(&key, "kty").as_deref() == Some(key_type(algorithm));
        let signature = token.rsplit('.').find(|section| !section.is_empty());
        let length = signature.and_then(loosely_decoded).map(|bytes| bytes.len());
        let is_short = text(&key, "kty").as_deref() == Some("OKP") && length != Some(64);
        if is_short && fits {
            return Err(WRONG_LENGTH);
        }
        told = if is_short { WRONG_LENGTH } else { FAILS };
        if turned(Check::Signature, fits && by_this) {
            return Ok(());
        }
    }
    Err(if tried {
        told
    } else {
        "Jwks doesn't have key to match kid or alg from Jwt"
    })
}

/// Sections that are empty do not count (S-216), neither for the oracle.
fn signer(oracle: Oracle<'_>, token: &str) -> Option<String> {
    oracle(&sections(token).join("."))
}

fn sections(token: &str) -> Vec<&str> {
    token.split('.').filter(|s| !s.is_empty()).collect()
}

/// S-220.
fn key_type(algorithm: &str) -> &'static str {
    match algorithm.get(..2) {
        Some("RS" | "PS") => "RSA",
        Some("ES") => "EC",
        Some("HS") => "oct",
        _ => "OKP",
    }
}

/// Keys with their material; the others are ignored (S-229).
fn usable_keys(text: &str) -> Vec<Value> {
    let set: Value = serde_json::from_str(text).unwrap_or_default();
    let keys = set.get("keys").and_then(Value::as_array).cloned();
    keys.unwrap_or_default()
        .into_iter()
        .filter(|key| {
            let has = |name: &str| key.get(name).is_some_and(Value::is_string);
            match key.get("kty").and_then(Value::as_str) {
                Some("RSA") => has("n") && has("e"),
                Some("EC") => has("x") && has("y"),
                Some("oct") => has("k"),
                Some("OKP") => has("x"),
                _ => false,
            }
        })
        .collect()
}

struct Parts {
    header: Map<String, Value>,
    payload: Map<String, Value>,
}

/// Header and payload, or why there are none (S-216, S-218).
fn read(token: &str) -> Result<Parts, &'static str> {
    let parts = sections(token);
    let [header, payload, signature] = parts[..] else {
        return Err(
            "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        );
    };
    let header = loosely_decoded(header).ok_or("Jwt header is an invalid Base64url encoded")?;
    let header: Map<String, Value> =
        serde_json::from_slice(&header).map_err(|_| "Jwt header is an invalid JSON")?;
    let Some(Value::String(algorithm)) = header.get("alg") else {
        return Err("Jwt header [alg] field is required and must be a string");
    };
    let known = [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256",
        "HS384", "HS512", "EdDSA",
    ];
    if !known.contains(&algorithm.as_str()) {
        return Err("Jwt header [alg] is not supported");
    }
    if header.get("kid").is_some_and(|kid| !kid.is_string()) {
        return Err("Jwt header [kid] field is not a string");
    }
    let payload = loosely_decoded(payload).ok_or("Jwt payload is an invalid Base64url encoded")?;
    let payload: Map<String, Value> =
        serde_json::from_slice(&payload).map_err(|_| "Jwt payload is an invalid JSON")?;
    let other_than_text = |name: &str| payload.get(name).is_some_and(|value| !value.is_string());
    if other_than_text("iss") {
        return Err("Jwt payload [iss] field is not a string");
    }
    if other_than_text("sub") {
        return Err("Jwt payload [sub] field is not a string");
    }
    let times = [
        (
            "iat",
            "Jwt payload [iat] field is not an integer",
            "Jwt payload [iat] field is not a positive 64 bit integer",
        ),
        (
            "nbf",
            "Jwt payload [nbf] field is not an integer",
            "Jwt payload [nbf] field is not a positive 64 bit integer",
        ),
        (
            "exp",
            "Jwt payload [exp] field is not an integer",
            "Jwt payload [exp] field is not a positive 64 bit integer",
        ),
    ];
    for (name, other, negative) in times {
        match payload.get(name) {
            None => {}
            Some(Value::Number(number)) if number.is_u64() => {}
            Some(Value::Number(_)) => return Err(negative),
            Some(_) => return Err(other),
        }
    }
    if other_than_text("jti") {
        return Err("Jwt payload [jti] field is not a string");
    }
    let is_audience = |value: &Value| match value.as_array() {
        Some(list) => list.iter().all(Value::is_string),
        None => value.is_string(),
    };
    if payload.get("aud").is_some_and(|value| !is_audience(value)) {
        return Err("Jwt payload [aud] field is not a string or string list");
    }
    if loosely_decoded(signature).is_none() {
        return Err("Jwt signature is an invalid Base64url encoded");
    }
    Ok(Parts { header, payload })
}

const WRONG_LENGTH: &str = "Jwt ED25519 signature is wrong length";

/// Envoy's reader of base64url passes over blanks, padding and stray bits.
fn loosely_decoded(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let dense: String = text.split_ascii_whitespace().collect();
    GeneralPurpose::new(&URL_SAFE, config).decode(dense).ok()
}

fn output_headers(rule: &JwtRule) -> impl Iterator<Item = &str> {
    let claims = rule.output_claims.iter().map(|out| out.header.as_str());
    rule.output_payload_to_header
        .as_deref()
        .into_iter()
        .chain(claims)
}

fn remove_header(lines: &mut Vec<Line>, name: &str) {
    lines.retain(|(line, _)| !line.eq_ignore_ascii_case(name));
}

/// S-224 to S-226.
fn take_effect(setting: Setting<'_>, rule: &JwtRule, found: &[Found], out: &mut Authenticated) {
    let turned = |check, holds: bool| holds != (setting.flipped == Some(check));
    if !turned(Check::ForwardOriginalToken, rule.forward_original_token) {
        for token in found {
            match &token.place {
                Place::Header(name) => remove_header(&mut out.lines, name),
                Place::Param(name) => out.target = without_param(&out.target, name),
                Place::Cookie => {}
            }
        }
    }
    // The first in the order of locations was verified last (S-214).
    let Some(first) = found.first() else {
        return;
    };
    if let Some(name) = &rule.output_payload_to_header
        && setting.flipped != Some(Check::OutputPayload)
    {
        let payload = sections(&first.token)[1];
        out.lines.push((name.clone(), payload.as_bytes().to_vec()));
    }
    if setting.flipped != Some(Check::OutputClaims) {
        for output in &rule.output_claims {
            let names: Vec<&str> = output.claim.split('.').collect();
            if let Some(text) = claim_text(at(&first.payload, &names)) {
                out.lines.push((output.header.clone(), text.into_bytes()));
            }
        }
    }
    let mut delimited = vec!["scope".to_owned(), "permission".to_owned()];
    if setting.flipped != Some(Check::SpaceDelimited) {
        delimited.extend(rule.space_delimited_claims.iter().cloned());
    }
    out.claims = Some(Claims {
        payload: first.payload.clone(),
        delimited,
    });
}

/// S-225.
fn claim_text(value: Option<&Value>) -> Option<String> {
    let text = match value? {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(is) => is.to_string(),
        list @ (Value::Array(_) | Value::Object(_)) => BASE64_STANDARD.encode(list.to_string()),
    };
    (!text.is_empty()).then_some(text)
}

fn without_param(target: &str, name: &str) -> String {
    let Some((path, query)) = target.split_once('?') else {
        return target.to_owned();
    };
    let left: Vec<&str> = query
        .split('&')
        .filter(|pair| pair.split('=').next() != Some(name))
        .collect();
    if left.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", left.join("&"))
    }
}
