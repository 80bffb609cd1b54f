//! `RequestAuthentication` compiled: what is demanded of tokens at one workload.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

use super::jwk::KeySet;
use super::locate::Locations;
use super::status::Status;
use super::token::Demand;
use crate::api::finding::{self, Cause, Severity};
use crate::api::meta::Origin;
use crate::api::request_authentication::{
    ClaimToHeader, JwtRule, KeySource, RequestAuthentication,
};
use crate::http::head::Known;

/// Claims that are lists of words in every rule (S-148).
const DELIMITED: [&str; 2] = ["scope", "permission"];

/// A SHA-256.
pub(super) type Digest = [u8; 32];

/// Everything that is demanded of tokens at one workload. `Default`: nothing, tokens are not looked at (S-210).
#[derive(Debug, Default)]
pub struct Rules {
    /// Ascending by issuer.
    rules: Vec<Rule>,
    /// Headers that say what a token said, so that a client may not (S-225). Lower case.
    outputs: Arc<[String]>,
    findings: Vec<Finding>,
}

/// Something of a rule that does not do what was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub origin: Origin,
    /// One clause, without the place.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.problem)
    }
}

impl Rules {
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    pub(super) fn outputs(&self) -> &Arc<[String]> {
        &self.outputs
    }

    /// What verified tokens are remembered under, rule by rule.
    pub(super) fn identities(&self) -> impl Iterator<Item = Digest> {
        self.rules.iter().map(|rule| rule.identity)
    }
}

/// What of these policies does not do what was meant, as loading would say it.
pub fn warnings<'p>(
    policies: impl IntoIterator<Item = &'p RequestAuthentication>,
) -> Vec<finding::Finding> {
    let policies: Vec<_> = policies.into_iter().collect();
    let findings = compile(&policies).findings;
    let warning = |found: Finding| finding::Finding {
        origin: found.origin,
        severity: Severity::Warning,
        cause: Cause::Doubtful,
        message: found.problem,
        hint: Some("until it is corrected more is refused, or less is passed on".into()),
    };
    findings.into_iter().map(warning).collect()
}

/// One `jwtRules` item.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) issuer: String,
    audiences: Vec<String>,
    keys: KeySet,
    pub(super) locations: Locations,
    /// Lower case.
    pub(super) payload_header: Option<String>,
    /// Headers in lower case.
    pub(super) claim_headers: Vec<ClaimToHeader>,
    pub(super) forward: bool,
    pub(super) delimited: Arc<[String]>,
    pub(super) origin: Origin,
    /// Digest of everything that decides whether a token verifies and what is then known of it. Other keys, another digest.
    pub(super) identity: Digest,
}

impl Rule {
    pub(super) fn demand(&self) -> Demand<'_> {
        Demand {
            issuer: &self.issuer,
            audiences: &self.audiences,
            keys: &self.keys,
        }
    }
}

/// Compiles policies that are in force at one workload, oldest first: all their rules, by issuer; of one issuer in the
/// order of the policies and within them (S-210). Rules whose keys cannot be used refuse every token (S-228, S-229).
pub fn compile(policies: &[&RequestAuthentication]) -> Rules {
    let mut findings = Vec::new();
    let mut rules: Vec<Rule> = policies
        .iter()
        .flat_map(|policy| &policy.rules)
        .map(|rule| compile_rule(rule, &mut findings))
        .collect();
    rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
    let mut outputs: Vec<String> = Vec::new();
    for rule in &rules {
        let claims = rule.claim_headers.iter().map(|claim| &claim.header);
        for name in rule.payload_header.iter().chain(claims) {
            if !outputs.contains(name) {
                outputs.push(name.clone());
            }
        }
    }
    Rules {
        rules,
        outputs: outputs.into(),
        findings,
    }
}

fn compile_rule(rule: &JwtRule, findings: &mut Vec<Finding>) -> Rule {
    let mut find = |problem: String| {
        findings.push(Finding {
            origin: rule.origin.clone(),
            problem,
        });
    };
    let keys = keys(rule, &mut find);
    let mut output = |name: &str| {
        let writable = is_writable(name);
        if !writable {
            find(format!("`{name}` is no header that a claim can be put in"));
        }
        writable.then(|| name.to_ascii_lowercase())
    };
    let payload_header = rule.output_payload_to_header.as_deref();
    let payload_header = payload_header.and_then(&mut output);
    let claim_headers = rule.output_claims.iter().filter_map(|claim| {
        Some(ClaimToHeader {
            header: output(&claim.header)?,
            claim: claim.claim.clone(),
        })
    });
    let claim_headers = claim_headers.collect();
    let identity = identity(rule, payload_header.is_some());
    let own = rule.space_delimited_claims.iter().map(String::as_str);
    let delimited = DELIMITED.into_iter().chain(own).map(str::to_owned);
    Rule {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        keys,
        locations: Locations::of(rule),
        payload_header,
        claim_headers,
        forward: rule.forward_original_token,
        delimited: delimited.collect(),
        origin: rule.origin.clone(),
        identity,
    }
}

/// The keys of a rule, and what is to be said of them.
fn keys(rule: &JwtRule, find: &mut impl FnMut(String)) -> KeySet {
    let text = match &rule.keys {
        KeySource::Inline(text) => text,
        KeySource::Uri(uri) => {
            find(format!(
                "keys are not fetched yet: every token is refused until `{uri}` is replaced by `jwks`"
            ));
            return KeySet::unusable();
        }
        KeySource::Discovery => {
            find(format!(
                "keys are not fetched yet: every token of `{}` is refused until its keys stand in `jwks`",
                rule.issuer
            ));
            return KeySet::unusable();
        }
    };
    match KeySet::parse(text) {
        Ok(keys) => {
            for reason in keys.left_out() {
                find(format!("a key of `jwks` is left out: {reason}"));
            }
            if keys.is_empty() {
                // Refuses every token in these words (S-229).
                let status = Status::JwksNoValidKey;
                find(format!("`jwks` verifies nothing: {status}"));
            }
            keys
        }
        Err(status) => {
            find(format!("`jwks` verifies nothing: {status}"));
            KeySet::unusable()
        }
    }
}

/// A header that framing, routing, identity or trust hang on is written by the proxy alone.
fn is_writable(name: &str) -> bool {
    let known = Known::of(name.as_bytes());
    !known.is_hop_by_hop()
        && !matches!(
            known,
            Known::ContentLength
                | Known::Expect
                | Known::Host
                | Known::Trailer
                | Known::XEnvoyInternal
                | Known::XEnvoyPeerMetadata
                | Known::Xfcc
        )
}

fn identity(rule: &JwtRule, passes_payload: bool) -> Digest {
    let mut context = Context::new(&SHA256);
    let mut put = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    put(rule.issuer.as_bytes());
    match &rule.keys {
        KeySource::Inline(text) => put(text.as_bytes()),
        KeySource::Uri(_) | KeySource::Discovery => put(b""),
    }
    for list in [&rule.audiences, &rule.space_delimited_claims] {
        put(&(list.len() as u64).to_be_bytes());
        list.iter().for_each(|text| put(text.as_bytes()));
    }
    put(&[u8::from(passes_payload)]);
    let digest = context.finish();
    // INVARIANT: a SHA-256 has 32 bytes.
    digest.as_ref().try_into().unwrap_or_default()
}
