//! The client's identity against the fields of a source (S-86 to S-89, S-126 to S-130).
//!
//! An identity is the SPIFFE ID without its scheme. Without one no positive form matches (S-126).

use meshward_core::api::mesh_config::MeshConfig;

use super::values::matches;

/// S-127, after the aliases of S-88.
pub fn principal_matches(pattern: &str, identity: Option<&str>, config: &MeshConfig) -> bool {
    let Some(identity) = identity else {
        return false;
    };
    // `spiffe://` stands in front of both, or is what a leading star begins after: it makes no difference.
    with_aliases(pattern, config)
        .iter()
        .any(|pattern| matches(pattern, identity.as_bytes()))
}

/// A principal of five parts in a known trust domain is good for all of them (S-88).
pub fn with_aliases(pattern: &str, config: &MeshConfig) -> Vec<String> {
    let parts: Vec<&str> = pattern.split('/').collect();
    let [domain, _, _, _, _] = parts[..] else {
        return vec![pattern.to_owned()];
    };
    if domain == "*" {
        return vec![pattern.to_owned()];
    }
    let known: Vec<&String> = std::iter::once(&config.trust_domain)
        .chain(&config.trust_domain_aliases)
        .collect();
    let covers = |known: &str| match domain.strip_prefix('*') {
        Some(end) => known.ends_with(end),
        None => known == domain,
    };
    if domain != "cluster.local" && !known.iter().any(|known| covers(known)) {
        return vec![pattern.to_owned()];
    }
    let rest = &pattern[domain.len()..];
    known
        .into_iter()
        .map(|known| {
            if covers(known) {
                pattern.to_owned()
            } else {
                format!("{known}{rest}")
            }
        })
        .collect()
}

/// Full match of `.*/ns/<v>/.*`, where each star of `v` is `.*` (S-128).
pub fn namespace_matches(pattern: &str, identity: Option<&str>) -> bool {
    identity.is_some_and(|identity| {
        let uri = format!("spiffe://{identity}");
        stars_match(format!("*/ns/{pattern}/*").as_bytes(), uri.as_bytes())
    })
}

/// Each star stands for anything, also for nothing.
fn stars_match(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((b'*', after)), None) => stars_match(after, text),
        (Some((b'*', after)), Some((_, shorter))) => {
            stars_match(after, text) || stars_match(pattern, shorter)
        }
        (Some(_), None) => false,
        (Some((byte, pattern)), Some((first, text))) => byte == first && stars_match(pattern, text),
    }
}

/// Full match of `spiffe://.+/ns/<ns>/(.+/|)sa/<sa>(/.+)?`; `namespace` is the policy's, for values without one (S-129).
pub fn service_account_matches(pattern: &str, namespace: &str, identity: Option<&str>) -> bool {
    let (namespace, account) = pattern.split_once('/').unwrap_or((namespace, pattern));
    let Some(identity) = identity else {
        return false;
    };
    let middle = format!("/ns/{namespace}/");
    let end = format!("sa/{account}");
    identity.match_indices(&middle).any(|(at, _)| {
        let after = &identity[at + middle.len()..];
        at > 0
            && after.match_indices(&end).any(|(at, _)| {
                let (before, behind) = (&after[..at], &after[at + end.len()..]);
                let before = before.is_empty() || before.len() > 1 && before.ends_with('/');
                before && (behind.is_empty() || behind.len() > 1 && behind.starts_with('/'))
            })
    })
}

/// S-130; a known trust domain stands for all of them (S-88).
pub fn trust_domain_matches(pattern: &str, identity: Option<&str>, config: &MeshConfig) -> bool {
    let Some((domain, _)) = identity.and_then(|identity| identity.split_once('/')) else {
        return false;
    };
    let known = || std::iter::once(&config.trust_domain).chain(&config.trust_domain_aliases);
    if known().any(|known| known == pattern) {
        return known().any(|known| known == domain);
    }
    pattern == "*" || matches(pattern, domain.as_bytes())
}

/// `iss` and `sub` of a token against a pattern that is split at its last slash (S-131, S-132).
pub fn request_principal_matches(pattern: &str, principal: Option<(&str, &str)>) -> bool {
    let Some((iss, sub)) = principal else {
        return false; // S-133
    };
    if pattern == "*" {
        return !iss.is_empty() && !sub.is_empty();
    }
    match pattern.rsplit_once('/') {
        Some((issuer, subject)) => {
            if let Some(end) = issuer.strip_prefix('*') {
                // A star in front is looked at first: one at the end is a letter then.
                iss.ends_with(end) && sub == subject
            } else if subject == "*" {
                iss == issuer
            } else if let Some(start) = subject.strip_suffix('*') {
                iss == issuer && sub.starts_with(start)
            } else {
                iss == issuer && sub == subject
            }
        }
        None => match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
            (Some(end), _) => sub.ends_with(end),
            (None, Some(start)) => iss.starts_with(start),
            (None, None) => iss == pattern && sub.is_empty(),
        },
    }
}
