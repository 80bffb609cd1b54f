//! RequestAuthentications into the JWT filter that istiod makes of them (S-210, S-212).

use meshward_core::api::request_authentication::{JwtRule, KeySource, RequestAuthentication};
use serde_json::{Map, Value, json};

/// A key set of which nobody has the private half, as istiod puts in the place of keys that it could not fetch (S-197).
const NOBODYS_KEYS: &str = include_str!("jwt/nobody.jwks");

/// `None`: no rule applies, so tokens are nothing to this workload.
pub fn filter(policies: &[&RequestAuthentication]) -> Option<Value> {
    let mut rules: Vec<&JwtRule> = policies.iter().flat_map(|policy| &policy.rules).collect();
    rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
    if rules.is_empty() {
        return None;
    }
    let mut providers = Map::new();
    let mut names = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        let name = format!("origins-{number}");
        providers.insert(name.clone(), provider(rule));
        names.push(name);
    }
    let by_name = |name: &String| json!({"providerName": name});
    let missing = json!({"allowMissing": {}});
    let requires = if let [only] = names.as_slice() {
        json!({"requiresAny": {"requirements": [by_name(only), missing]}})
    } else {
        let mut any: Vec<Value> = names.iter().map(by_name).collect();
        let each = names
            .iter()
            .map(|name| json!({"requiresAny": {"requirements": [by_name(name), missing]}}));
        any.push(json!({"requiresAll": {"requirements": each.collect::<Vec<_>>()}}));
        json!({"requiresAny": {"requirements": any}})
    };
    Some(json!({
        "name": "envoy.filters.http.jwt_authn",
        "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": providers,
            "rules": [{"match": {"prefix": "/"}, "requires": requires}],
            "bypassCorsPreflight": true,
        },
    }))
}

fn provider(rule: &JwtRule) -> Value {
    let keys = match &rule.keys {
        KeySource::Inline(text) => text.as_str(),
        KeySource::Uri(_) | KeySource::Discovery => NOBODYS_KEYS,
    };
    let mut delimited = vec!["permission".to_owned(), "scope".to_owned()];
    for claim in &rule.space_delimited_claims {
        if !delimited.contains(claim) {
            delimited.push(claim.clone());
        }
    }
    let mut provider = json!({
        "localJwks": {"inlineString": keys},
        "payloadInMetadata": "payload",
        "normalizePayloadInMetadata": {"spaceDelimitedClaims": delimited},
        "forward": rule.forward_original_token,
    });
    if !rule.issuer.is_empty() {
        provider["issuer"] = rule.issuer.as_str().into();
    }
    if !rule.audiences.is_empty() {
        provider["audiences"] = rule.audiences.clone().into();
    }
    let headers = rule.from_headers.iter().map(|location| {
        let mut header = json!({"name": location.name});
        if !location.prefix.is_empty() {
            header["valuePrefix"] = location.prefix.as_str().into();
        }
        header
    });
    let claims = rule
        .output_claims
        .iter()
        .map(|output| json!({"headerName": output.header, "claimName": output.claim}));
    for (name, list) in [
        ("fromHeaders", headers.collect::<Vec<_>>()),
        ("fromParams", texts(&rule.from_params)),
        ("fromCookies", texts(&rule.from_cookies)),
        ("claimToHeaders", claims.collect()),
    ] {
        if !list.is_empty() {
            provider[name] = list.into();
        }
    }
    if let Some(header) = &rule.output_payload_to_header {
        provider["forwardPayloadHeader"] = header.as_str().into();
    }
    provider
}

fn texts(list: &[String]) -> Vec<Value> {
    list.iter().map(|text| text.as_str().into()).collect()
}
