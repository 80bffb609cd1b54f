//! SPIFFE IDs and trust domains (S-80, S-86).
//!
//! A value of these types is always canonical: lower-case scheme and trust domain, no dot segments, nothing to
//! decode. Equality, order and prefix tests may therefore work on the bytes.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Scheme and separator; everything after it is the principal of policies (S-87).
const PREFIX: &str = "spiffe://";
/// Bytes of a whole URI (SPIFFE-ID 2.3).
const URI_MAX: usize = 2048;
/// Bytes of a trust domain (SPIFFE-ID 2.1).
const TRUST_DOMAIN_MAX: usize = 255;

/// What is wrong with a text that should be a SPIFFE ID or a trust domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    #[error("the scheme is not spiffe://")]
    Scheme,
    #[error("the trust domain is empty")]
    NoTrustDomain,
    #[error("the trust domain is longer than 255 bytes")]
    TrustDomainTooLong,
    #[error("the trust domain has a character other than a-z, 0-9, dot, dash and underscore")]
    TrustDomainCharacter,
    #[error("the path has an empty segment or ends with a slash")]
    EmptySegment,
    #[error("the path has a dot segment")]
    DotSegment,
    #[error("the path has a character other than letters, digits, dot, dash and underscore")]
    PathCharacter,
    #[error("the id is longer than 2048 bytes")]
    TooLong,
    #[error("namespace and service account must be single path segments")]
    NotOneSegment,
}

/// The name of one root of trust, such as `cluster.local`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Reads a bare name, without scheme or path. Upper-case letters become lower case (S-80).
    pub fn parse(name: &str) -> Result<Self, SpiffeIdError> {
        check_trust_domain(name)?;
        Ok(Self(lower_case(name)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Order and equality are those of the text.
impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A SPIFFE ID in canonical form. Cloning shares the text.
#[derive(Clone)]
pub struct SpiffeId {
    uri: Arc<str>,
    // INVARIANT: `uri[..path_at]` is `PREFIX` and the trust domain, set by `parse` alone.
    path_at: u16,
}

impl SpiffeId {
    /// Reads a URI of the form `spiffe://<trust domain>/<path>` (S-80).
    ///
    /// Scheme and trust domain may come in upper case and become lower case; the path is taken as it is. An absent
    /// path is valid and names the trust domain itself; a lone slash is not. Nothing is percent-decoded.
    pub fn parse(uri: &str) -> Result<Self, SpiffeIdError> {
        let Some((scheme, rest)) = uri.split_at_checked(PREFIX.len()) else {
            return Err(SpiffeIdError::Scheme);
        };
        if !scheme.eq_ignore_ascii_case(PREFIX) {
            return Err(SpiffeIdError::Scheme);
        }
        if uri.len() > URI_MAX {
            return Err(SpiffeIdError::TooLong);
        }
        let (domain, path) = match rest.split_once('/') {
            Some((domain, path)) => (domain, Some(path)),
            None => (rest, None),
        };
        check_trust_domain(domain)?;
        for segment in path.into_iter().flat_map(|path| path.split('/')) {
            check_segment(segment)?;
        }
        let path_at = PREFIX.len() + domain.len();
        let canonical = match uri.split_at(path_at) {
            (head, tail) if head.bytes().any(|b| b.is_ascii_uppercase()) => {
                Arc::from(head.to_ascii_lowercase() + tail)
            }
            _ => Arc::from(uri),
        };
        Ok(Self {
            uri: canonical,
            path_at: u16::try_from(path_at).map_err(|_| SpiffeIdError::TooLong)?,
        })
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The URI without its scheme: how policies and attributes name it (`source.principal`, S-87).
    pub fn principal(&self) -> &str {
        self.uri.get(PREFIX.len()..).unwrap_or_default()
    }

    pub fn trust_domain(&self) -> &str {
        self.uri
            .get(PREFIX.len()..usize::from(self.path_at))
            .unwrap_or_default()
    }

    /// The path with its leading slash; empty for an id that names a trust domain.
    pub fn path(&self) -> &str {
        self.uri
            .get(usize::from(self.path_at)..)
            .unwrap_or_default()
    }

    /// The parts of `spiffe://<td>/ns/<namespace>/sa/<service account>`; nothing for any other form (S-86).
    pub fn istio(&self) -> Option<IstioIdentity<'_>> {
        let mut parts = self.path().split('/');
        let ("", "ns", namespace, "sa", service_account, None) = (
            parts.next()?,
            parts.next()?,
            parts.next()?,
            parts.next()?,
            parts.next()?,
            parts.next(),
        ) else {
            return None;
        };
        Some(IstioIdentity {
            trust_domain: self.trust_domain(),
            namespace,
            service_account,
        })
    }
}

impl PartialEq for SpiffeId {
    fn eq(&self, other: &Self) -> bool {
        self.uri == other.uri
    }
}

impl Eq for SpiffeId {}

impl PartialOrd for SpiffeId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SpiffeId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.uri.cmp(&other.uri)
    }
}

impl std::hash::Hash for SpiffeId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.uri.hash(state);
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.uri, f)
    }
}

/// What a workload identity of Istio says (S-86).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IstioIdentity<'a> {
    pub trust_domain: &'a str,
    pub namespace: &'a str,
    pub service_account: &'a str,
}

/// The id that Istio gives a workload (S-86).
///
/// `@` in the trust domain becomes a dot; an absent service account is `default`, an empty one an error.
///
/// Istio: pkg/spiffe, genSpiffeURI.
pub fn istio_identity(
    trust_domain: &str,
    namespace: &str,
    service_account: Option<&str>,
) -> Result<SpiffeId, SpiffeIdError> {
    let service_account = service_account.unwrap_or("default");
    if namespace.contains('/') || service_account.contains('/') {
        return Err(SpiffeIdError::NotOneSegment);
    }
    let trust_domain = trust_domain.replace('@', ".");
    check_trust_domain(&trust_domain)?;
    SpiffeId::parse(&format!(
        "{PREFIX}{trust_domain}/ns/{namespace}/sa/{service_account}"
    ))
}

fn check_trust_domain(name: &str) -> Result<(), SpiffeIdError> {
    if name.is_empty() {
        return Err(SpiffeIdError::NoTrustDomain);
    }
    if name.len() > TRUST_DOMAIN_MAX {
        return Err(SpiffeIdError::TrustDomainTooLong);
    }
    if name.bytes().all(is_id_byte) {
        Ok(())
    } else {
        Err(SpiffeIdError::TrustDomainCharacter)
    }
}

fn check_segment(segment: &str) -> Result<(), SpiffeIdError> {
    match segment {
        "" => Err(SpiffeIdError::EmptySegment),
        "." | ".." => Err(SpiffeIdError::DotSegment),
        _ if segment.bytes().all(is_id_byte) => Ok(()),
        _ => Err(SpiffeIdError::PathCharacter),
    }
}

/// The alphabet of both parts; the trust domain folds its upper case.
fn is_id_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')
}

fn lower_case(name: &str) -> Arc<str> {
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Arc::from(name.to_ascii_lowercase())
    } else {
        Arc::from(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// S-80: 255 bytes of trust domain, 2048 bytes in all.
    #[test]
    fn an_id_may_be_as_long_as_the_standard_says_and_no_longer() {
        let uri = |domain, path| format!("spiffe://{}/{}", "a".repeat(domain), "b".repeat(path));
        assert!(SpiffeId::parse(&uri(255, 1)).is_ok());
        assert_eq!(
            SpiffeId::parse(&uri(256, 1)),
            Err(SpiffeIdError::TrustDomainTooLong)
        );
        assert!(SpiffeId::parse(&uri(11, 2027)).is_ok());
        assert_eq!(SpiffeId::parse(&uri(11, 2028)), Err(SpiffeIdError::TooLong));
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_canonical_and_made_of_its_parts(
            text in "(?i:spiffe)://[a-zA-Z.%:é_-]{0,6}(/[a-zA-Z.%_é-]{0,3}){0,6}",
        ) {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.as_str(), format!("spiffe://{}{}", id.trust_domain(), id.path()));
                prop_assert_eq!(id.principal(), format!("{}{}", id.trust_domain(), id.path()));
                prop_assert!(text.eq_ignore_ascii_case(id.as_str()));
                prop_assert!(text.ends_with(id.path()));
                let again = SpiffeId::parse(id.as_str());
                prop_assert_eq!(again.as_ref(), Ok(&id));
                if let Some(parts) = id.istio() {
                    let built = istio_identity(
                        parts.trust_domain, parts.namespace, Some(parts.service_account),
                    );
                    prop_assert_eq!(built.as_ref(), Ok(&id));
                }
            }
        }
    }

    #[test]
    fn an_id_gives_its_parts() {
        let id = SpiffeId::parse("spiffe://cluster.local/ns/default/sa/sleep").unwrap();
        assert_eq!(id.as_str(), "spiffe://cluster.local/ns/default/sa/sleep");
        assert_eq!(id.principal(), "cluster.local/ns/default/sa/sleep");
        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.path(), "/ns/default/sa/sleep");
        assert_eq!(
            id.istio(),
            Some(IstioIdentity {
                trust_domain: "cluster.local",
                namespace: "default",
                service_account: "sleep",
            })
        );
    }

    /// S-80.
    #[test]
    fn scheme_and_trust_domain_fold_to_lower_case_and_the_path_does_not() {
        let id = SpiffeId::parse("SPIFFE://Cluster.LOCAL/Ns/A").unwrap();
        assert_eq!(id.as_str(), "spiffe://cluster.local/Ns/A");
        assert_eq!(id, SpiffeId::parse("spiffe://cluster.local/Ns/A").unwrap());
        assert_ne!(id, SpiffeId::parse("spiffe://cluster.local/ns/a").unwrap());
        assert_eq!(TrustDomain::parse("TD").unwrap().as_str(), "td");
    }

    /// S-80.
    #[test]
    fn an_id_without_path_names_its_trust_domain() {
        let id = SpiffeId::parse("spiffe://td").unwrap();
        assert_eq!((id.trust_domain(), id.path()), ("td", ""));
        assert_eq!(id.istio(), None);
        assert_eq!(
            SpiffeId::parse("spiffe://td/"),
            Err(SpiffeIdError::EmptySegment)
        );
    }

    /// S-86.
    #[test]
    fn only_the_five_part_form_is_an_istio_identity() {
        for (uri, is) in [
            ("spiffe://td/ns/n/sa/s", true),
            ("spiffe://td/ns/n/sa/s/x", false),
            ("spiffe://td/ns/n/sa", false),
            ("spiffe://td/ns/n", false),
            ("spiffe://td/NS/n/sa/s", false),
            ("spiffe://td/ns/n/SA/s", false),
            ("spiffe://td/x/ns/n/sa/s", false),
        ] {
            assert_eq!(SpiffeId::parse(uri).unwrap().istio().is_some(), is, "{uri}");
        }
    }

    /// S-86.
    #[test]
    fn an_istio_identity_is_built_from_single_segments() {
        let build = |td, ns, sa| istio_identity(td, ns, sa).map(|id| id.to_string());
        assert_eq!(
            build("td", "n", Some("s")).as_deref(),
            Ok("spiffe://td/ns/n/sa/s")
        );
        assert_eq!(
            build("a@b.c", "n", None).as_deref(),
            Ok("spiffe://a.b.c/ns/n/sa/default")
        );
        assert_eq!(build("td", "", Some("s")), Err(SpiffeIdError::EmptySegment));
        assert_eq!(build("td", "n", Some("")), Err(SpiffeIdError::EmptySegment));
        assert_eq!(
            build("td", "n/sa/root", Some("s")),
            Err(SpiffeIdError::NotOneSegment)
        );
        assert_eq!(
            build("td/ns/x", "n", Some("s")),
            Err(SpiffeIdError::TrustDomainCharacter)
        );
    }

    #[test]
    fn a_text_that_ends_inside_a_character_of_the_scheme_is_refused() {
        assert_eq!(SpiffeId::parse("spiffe:/é/x"), Err(SpiffeIdError::Scheme));
    }
}
