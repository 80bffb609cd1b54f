//! Reads and judges a RequestAuthentication (S-170, S-171, S-178, S-179).

use super::{ClaimToHeader, HeaderLocation, JwtRule, KeySource, RequestAuthentication, jwks};
use crate::api::load::grammar;
use crate::api::load::reader::{Fields, Report};
use crate::api::load::yaml::{Node, Place, Value};
use crate::api::meta::Meta;
use crate::api::scope::Scope;
use crate::limits::{JWKS_LEN_MAX, JWKS_URI_LEN_MAX, JWT_RULES_MAX, SPACE_DELIMITED_CLAIMS_MAX};

const NONEMPTY: &str = "remove it, or give it a name";

impl RequestAuthentication {
    /// `place` is that of the resource; without `spec` or `jwtRules` it does nothing. `None` after at least one error.
    pub(in crate::api) fn read(
        meta: Meta,
        spec: Option<&Node>,
        place: Place,
        report: &mut Report,
    ) -> Option<Self> {
        let before = report.errors();
        meta.refuse_dry_run(place, report);
        let mut policy = Self {
            meta,
            selector: None,
            targets: false,
            rules: Vec::new(),
        };
        if let Some(spec) = spec {
            let mut fields = report.fields(spec, "spec")?;
            let scope = Scope::take(&mut fields, report);
            (policy.selector, policy.targets) = (scope.selector, scope.targets);
            let rules = fields.take("jwtRules");
            fields.close(report);
            if let Some(node) = rules {
                policy.rules = read_rules(node, report);
            }
        }
        (report.errors() == before).then_some(policy)
    }
}

fn read_rules(node: &Node, report: &mut Report) -> Vec<JwtRule> {
    let items = report.list(node, "jwtRules").unwrap_or_default();
    if items.len() > JWT_RULES_MAX {
        let message = format!(
            "`jwtRules` has {} items, more than {JWT_RULES_MAX}",
            items.len()
        );
        report.invalid(node.place, message, "write a second policy");
        return Vec::new();
    }
    items
        .iter()
        .filter_map(|item| read_rule(item, report))
        .collect()
}

fn read_rule(node: &Node, report: &mut Report) -> Option<JwtRule> {
    let mut fields = report.fields(node, "jwtRules")?;
    let issuer_node = fields.take("issuer");
    let issuer = issuer_node.map_or(Some(""), |node| report.text(node, "issuer"));
    let audiences = take_names(&mut fields, "audiences", report);
    let keys = take_keys(&mut fields, node.place, report);
    let from_headers = take_headers(&mut fields, report);
    let from_params = take_names(&mut fields, "fromParams", report);
    let from_cookies = take_names(&mut fields, "fromCookies", report);
    let output_payload_to_header = take_payload_header(&mut fields, report);
    let output_claims = take_output_claims(&mut fields, report);
    let forward_original_token = take_bool(&mut fields, "forwardOriginalToken", report);
    let claims_node = fields.take("spaceDelimitedClaims");
    let space_delimited_claims = read_space_delimited(claims_node, report);
    check_timeout(&mut fields, report);
    fields.close(report);
    let issuer = issuer?;
    if issuer.is_empty() {
        let place = issuer_node.map_or(node.place, |node| node.place);
        if matches!(&keys, Some(KeySource::Inline(_) | KeySource::Discovery)) {
            let message = "a rule has neither `issuer` nor `jwksUri`";
            report.invalid(place, message, "add `issuer`, the `iss` of its tokens");
        } else if issuer_node.is_some() {
            let hint = "leave it out for tokens of any issuer; an API server of today refuses it";
            report.doubtful(place, "`issuer` is empty", hint);
        }
    }
    Some(JwtRule {
        issuer: issuer.to_owned(),
        audiences,
        keys: keys?,
        from_headers,
        from_params,
        from_cookies,
        output_payload_to_header,
        output_claims,
        forward_original_token,
        space_delimited_claims,
        origin: report.origin(node.place),
    })
}

/// One of `jwks`, `jwksUri` and its older spelling, or none of them.
fn take_keys(fields: &mut Fields<'_>, place: Place, report: &mut Report) -> Option<KeySource> {
    let inline = fields.take("jwks");
    let uris = [
        ("jwksUri", fields.take("jwksUri")),
        ("jwks_uri", fields.take("jwks_uri")),
    ];
    let given = usize::from(inline.is_some()) + uris.iter().flat_map(|(_, node)| node).count();
    if given > 1 {
        let message = "a rule has more than one of `jwks`, `jwksUri` and `jwks_uri`";
        report.invalid(place, message, "keep the one where the keys are");
    }
    let mut source = KeySource::Discovery;
    let mut whole = true;
    for (name, node) in uris {
        let Some(node) = node else { continue };
        match report.text(node, name) {
            Some("") => {
                let hint = "leave it out: the keys are then asked for at the issuer";
                report.doubtful(node.place, format!("`{name}` is empty"), hint);
            }
            Some(uri) => {
                check_uri(name, uri, node.place, report);
                source = KeySource::Uri(uri.to_owned());
            }
            None => whole = false,
        }
    }
    if let Some(node) = inline {
        match report.text(node, "jwks") {
            Some("") => {
                let hint = "leave it out: the keys are then asked for at the issuer";
                report.doubtful(node.place, "`jwks` is empty", hint);
            }
            Some(text) => {
                check_jwks(text, node.place, report);
                source = KeySource::Inline(text.to_owned());
            }
            None => whole = false,
        }
    }
    whole.then_some(source)
}

fn check_uri(name: &str, uri: &str, place: Place, report: &mut Report) {
    if uri.len() > JWKS_URI_LEN_MAX {
        let message = format!(
            "`{name}` has {} bytes, more than {JWKS_URI_LEN_MAX}",
            uri.len()
        );
        report.invalid(place, message, "an address of keys is shorter");
    } else if !grammar::is_http_uri(uri) {
        let message = format!("`{uri}` in `{name}` is no address of HTTP");
        report.invalid(
            place,
            message,
            "write it like https://example.com/jwks.json",
        );
    }
}

fn check_jwks(text: &str, place: Place, report: &mut Report) {
    if text.len() > JWKS_LEN_MAX {
        let message = format!("`jwks` has {} bytes, more than {JWKS_LEN_MAX}", text.len());
        report.invalid(place, message, "leave out the keys that sign no tokens");
        return;
    }
    let judged = match jwks::judge(text) {
        Ok(judged) => judged,
        Err(what) => {
            let hint = "write a JSON Web Key Set: {\"keys\": [{\"kty\": …}]}";
            report.invalid(place, format!("`jwks` {what}"), hint);
            return;
        }
    };
    for what in judged.unusable {
        let hint = "it is passed over: leave it out, or copy it whole";
        report.doubtful(place, format!("in `jwks`, {what}"), hint);
    }
    for what in judged.secret {
        let hint = "whoever reads this policy can sign tokens: write the public part alone";
        report.doubtful(place, format!("in `jwks`, {what}"), hint);
    }
    if judged.alone {
        let hint = "write {\"keys\": [ … ]} around it; every token is refused as it stands";
        report.doubtful(place, "`jwks` is a key and no set of keys", hint);
    } else if judged.usable == 0 {
        let hint = "every token is refused: add the keys of the issuer";
        report.doubtful(place, "`jwks` has no key that verifies tokens", hint);
    }
}

/// A list of texts of which none may be empty.
fn take_names(fields: &mut Fields<'_>, name: &'static str, report: &mut Report) -> Vec<String> {
    fields
        .take(name)
        .map_or_else(Vec::new, |node| read_names(node, name, report))
}

fn read_names(node: &Node, name: &str, report: &mut Report) -> Vec<String> {
    let texts = report.texts(node, name);
    for (place, text) in &texts {
        if text.is_empty() {
            report.invalid(*place, format!("`{name}` has an empty value"), NONEMPTY);
        }
    }
    texts.into_iter().map(|(_, text)| text.to_owned()).collect()
}

fn read_space_delimited(node: Option<&Node>, report: &mut Report) -> Vec<String> {
    const NAME: &str = "spaceDelimitedClaims";
    let Some(node) = node else {
        return Vec::new();
    };
    let claims = read_names(node, NAME, report);
    if claims.len() > SPACE_DELIMITED_CLAIMS_MAX {
        let message = format!(
            "`{NAME}` has {} items, more than {SPACE_DELIMITED_CLAIMS_MAX}",
            claims.len()
        );
        report.invalid(node.place, message, "name the claims that policies ask for");
    }
    claims
}

fn take_headers(fields: &mut Fields<'_>, report: &mut Report) -> Vec<HeaderLocation> {
    let items = fields
        .take("fromHeaders")
        .and_then(|node| report.list(node, "fromHeaders"))
        .unwrap_or_default();
    let mut headers = Vec::new();
    for item in items {
        let Some(mut fields) = report.fields(item, "fromHeaders") else {
            continue;
        };
        let name_node = fields.take("name");
        let name = name_node.map_or(Some(""), |node| report.text(node, "name"));
        let prefix = fields
            .take("prefix")
            .map_or(Some(""), |node| report.text(node, "prefix"));
        fields.close(report);
        let (Some(name), Some(prefix)) = (name, prefix) else {
            continue;
        };
        let place = name_node.map_or(item.place, |node| node.place);
        if name.is_empty() {
            let message = "an item of `fromHeaders` has no `name`";
            report.invalid(place, message, "name the header that has the token");
        } else if !grammar::is_field_name(name) {
            let message = format!("`{name}` in `fromHeaders` is no name of a header");
            report.doubtful(place, message, "no request has such a header");
        }
        headers.push(HeaderLocation {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
        });
    }
    headers
}

fn take_payload_header(fields: &mut Fields<'_>, report: &mut Report) -> Option<String> {
    let node = fields.take("outputPayloadToHeader")?;
    let name = report
        .text(node, "outputPayloadToHeader")
        .filter(|name| !name.is_empty())?;
    if !grammar::is_field_name(name) {
        let message = format!("`{name}` in `outputPayloadToHeader` is no name of a header");
        let hint = "use letters, digits, `-` and `_`";
        report.invalid(node.place, message, hint);
    }
    Some(name.to_owned())
}

fn take_output_claims(fields: &mut Fields<'_>, report: &mut Report) -> Vec<ClaimToHeader> {
    const NAME: &str = "outputClaimToHeaders";
    let items = fields
        .take(NAME)
        .and_then(|node| report.list(node, NAME))
        .unwrap_or_default();
    let mut outputs = Vec::new();
    for item in items {
        let Some(mut fields) = report.fields(item, NAME) else {
            continue;
        };
        let mut take = |name| {
            let node = fields.take(name);
            let text = node.and_then(|node| report.text(node, name));
            let is_text = node.is_none() || text.is_some();
            if is_text && text.is_none_or(str::is_empty) {
                let place = node.map_or(item.place, |node| node.place);
                let message = format!("an item of `{NAME}` has no `{name}`");
                report.invalid(place, message, "write `- {header: …, claim: …}`");
            }
            text.map(|text| (text, node.map_or(item.place, |node| node.place)))
        };
        let (header, claim) = (take("header"), take("claim"));
        fields.close(report);
        let (Some((header, place)), Some((claim, _))) = (header, claim) else {
            continue;
        };
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if !header.bytes().all(fits) {
            let message = format!("`{header}` in `{NAME}` is no name of a header");
            report.invalid(place, message, "use letters, digits, `-` and `_`");
        }
        outputs.push(ClaimToHeader {
            header: header.to_owned(),
            claim: claim.to_owned(),
        });
    }
    outputs
}

fn take_bool(fields: &mut Fields<'_>, name: &'static str, report: &mut Report) -> bool {
    let Some(node) = fields.take(name) else {
        return false;
    };
    match node.value {
        Value::Bool(value) => value,
        _ => report.unfit(node, name, "true or false").unwrap_or(false),
    }
}

/// How long a fetch of keys may take: judged, and of no effect on keys that are not fetched.
fn check_timeout(fields: &mut Fields<'_>, report: &mut Report) {
    let Some(node) = fields.take("timeout") else {
        return;
    };
    let Some(text) = report.text(node, "timeout") else {
        return;
    };
    if matches!(grammar::go_duration_whole_ms(text), None | Some(0)) {
        let message = format!("`timeout` holds `{text}`, no duration of whole milliseconds");
        report.invalid(node.place, message, "write it like 5s or 500ms");
    }
}

#[cfg(test)]
mod tests;
