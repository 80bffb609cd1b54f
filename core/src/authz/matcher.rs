//! The patterns of policies, one type per kind (S-123 to S-142).
//!
//! No pattern is a regular expression at run time; each takes time linear in the value, whatever the pattern.

use std::net::IpAddr;

use ipnet::IpNet;

use super::template::{BadTemplate, Template};

/// Why a value cannot be compiled. Validation refuses such values before (S-173 to S-175).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    #[error(transparent)]
    Template(#[from] BadTemplate),
    #[error("`{0}` is neither an address nor a CIDR range")]
    IpBlock(String),
    #[error("`{0}` is not a port")]
    Port(String),
    #[error("`{0}` is not a service account, which is `name` or `namespace/name`")]
    ServiceAccount(String),
    #[error("`{0}` has a star elsewhere than at one end")]
    TrustDomain(String),
}

/// Exact, prefix, suffix, or a lone star (S-123, S-124). The leading star is looked at first: `*a*` is the suffix `a*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// `*` of values: at least one byte.
    NonEmpty,
    /// `*` of headers, hosts and methods: anything, the empty value too.
    Present,
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
}

impl Text {
    /// A pattern for principals, paths, claims and server names (S-123).
    pub fn of_value(pattern: &str) -> Self {
        Self::parse(pattern, Self::NonEmpty)
    }

    /// A pattern for hosts, methods and other headers (S-124).
    pub fn of_header(pattern: &str) -> Self {
        Self::parse(pattern, Self::Present)
    }

    fn parse(pattern: &str, star: Self) -> Self {
        if pattern == "*" {
            star
        } else if let Some(suffix) = pattern.strip_prefix('*') {
            Self::Suffix(suffix.as_bytes().into())
        } else if let Some(prefix) = pattern.strip_suffix('*') {
            Self::Prefix(prefix.as_bytes().into())
        } else {
            Self::Exact(pattern.as_bytes().into())
        }
    }

    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::NonEmpty => !value.is_empty(),
            Self::Present => true,
            Self::Exact(text) => value == &**text,
            Self::Prefix(text) => value.starts_with(text),
            Self::Suffix(text) => value.ends_with(text),
        }
    }

    /// As `matches`, with ASCII letters of either case the same (S-125).
    pub fn matches_any_case(&self, value: &[u8]) -> bool {
        match self {
            Self::NonEmpty => !value.is_empty(),
            Self::Present => true,
            Self::Exact(text) => value.eq_ignore_ascii_case(text),
            Self::Prefix(text) => value
                .get(..text.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(text)),
            Self::Suffix(text) => value
                .len()
                .checked_sub(text.len())
                .and_then(|at| value.get(at..))
                .is_some_and(|tail| tail.eq_ignore_ascii_case(text)),
        }
    }
}

/// A path: a template if it has an operator, else a text (S-139, S-140).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    Text(Text),
    Template(Template),
}

impl Path {
    pub fn parse(pattern: &str) -> Result<Self, BadPattern> {
        if Template::is_meant(pattern) {
            Ok(Self::Template(Template::parse(pattern)?))
        } else if pattern.contains(['{', '}']) {
            Err(BadTemplate::Brace.into())
        } else {
            Ok(Self::Text(Text::of_value(pattern)))
        }
    }

    pub fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Text(text) => text.matches(path),
            Self::Template(template) => template.matches(path),
        }
    }
}

/// `namespaces`: the principal has `/ns/<pattern>/` in it, where each star is any text, slashes included (S-128).
///
/// The slashes of `spiffe://` count, so a trust domain named `ns` is taken for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    // The text between the stars; the first with `/ns/` in front, the last with `/` behind.
    first: Box<str>,
    more: Vec<Box<str>>,
}

impl Namespace {
    pub fn parse(pattern: &str) -> Self {
        let whole = format!("/ns/{pattern}/");
        let mut pieces = whole.split('*').map(Box::from);
        Self {
            first: pieces.next().unwrap_or_default(),
            more: pieces.collect(),
        }
    }

    pub fn matches(&self, principal: &str) -> bool {
        let at_start = self
            .first
            .strip_prefix('/')
            .and_then(|first| principal.strip_prefix(first));
        let Some(mut rest) = at_start.or_else(|| after(principal, &self.first)) else {
            return false;
        };
        for piece in &self.more {
            match after(rest, piece) {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        true
    }

    /// What the pattern says of the one segment that must follow a segment `ns`.
    pub(super) fn segment(&self) -> Segment<'_> {
        let written = self.first.strip_prefix("/ns/").unwrap_or_default();
        if !self.more.is_empty() {
            // A star crosses slashes, but what stands before the first one begins the segment.
            let begin = written.split('/').next().unwrap_or_default();
            return if begin.len() < written.len() {
                Segment::Is(begin)
            } else {
                Segment::Begins(begin)
            };
        }
        Segment::Is(written.split('/').next().unwrap_or_default())
    }
}

/// What is known of a segment of a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment<'p> {
    Is(&'p str),
    /// Perhaps with nothing.
    Begins(&'p str),
}

/// `serviceAccounts`: `<td…>/ns/<namespace>/[…/]sa/<name>[/…]`, of any trust domain (S-129).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    namespace: Box<str>,
    // `sa/<name>`
    account: Box<str>,
}

impl ServiceAccount {
    /// `pattern` without a namespace means that of the policy.
    pub fn parse(pattern: &str, policy_namespace: &str) -> Result<Self, BadPattern> {
        let (namespace, name) = pattern
            .split_once('/')
            .unwrap_or((policy_namespace, pattern));
        if namespace.is_empty() || name.is_empty() || name.contains('/') || pattern.contains('*') {
            return Err(BadPattern::ServiceAccount(pattern.to_owned()));
        }
        Ok(Self {
            namespace: namespace.into(),
            account: format!("sa/{name}").into(),
        })
    }

    pub fn matches(&self, principal: &str) -> bool {
        // Of several `/ns/<namespace>/` the first will do: what follows a later one also follows it.
        let Some(mut rest) = self.after_namespace(principal) else {
            return false;
        };
        if rest.strip_prefix(&*self.account).is_some_and(ends_name) {
            return true;
        }
        // What stands between the namespace and `/sa/` may not be empty.
        let Some((first, _)) = rest.char_indices().nth(1) else {
            return false;
        };
        rest = &rest[first..];
        while let Some(at) = rest.find(&*self.account) {
            let behind = &rest[at + self.account.len()..];
            if rest[..at].ends_with('/') && ends_name(behind) {
                return true;
            }
            rest = behind;
        }
        false
    }

    fn after_namespace<'p>(&self, principal: &'p str) -> Option<&'p str> {
        let mut at = principal.chars().next().map_or(0, char::len_utf8);
        while let Some(found) = principal[at..].find("/ns/") {
            let rest = &principal[at + found + "/ns/".len()..];
            if let Some(rest) = rest.strip_prefix(&*self.namespace)
                && let Some(rest) = rest.strip_prefix('/')
            {
                return Some(rest);
            }
            // The closing slash may open the next one.
            at += found + "/ns".len();
        }
        None
    }

    /// The segments that must follow a segment `ns` and a segment `sa`.
    pub(super) fn segments(&self) -> (&str, &str) {
        let name = self.account.strip_prefix("sa/").unwrap_or_default();
        (&self.namespace, name)
    }
}

/// The end of a principal, or a slash with something behind it.
fn ends_name(rest: &str) -> bool {
    rest.is_empty() || rest.strip_prefix('/').is_some_and(|more| !more.is_empty())
}

/// `trustDomains`: what stands before the first slash of the principal (S-130).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustDomain(Text);

impl TrustDomain {
    pub fn parse(pattern: &str) -> Result<Self, BadPattern> {
        let text = Text::of_header(pattern);
        let (Text::Exact(literal) | Text::Prefix(literal) | Text::Suffix(literal)) = &text else {
            return Ok(Self(text));
        };
        if literal.contains(&b'*') {
            return Err(BadPattern::TrustDomain(pattern.to_owned()));
        }
        Ok(Self(text))
    }

    pub(super) fn text(&self) -> &Text {
        &self.0
    }

    pub fn matches(&self, principal: &str) -> bool {
        match principal.split_once('/') {
            Some((trust_domain, _)) => self.0.matches(trust_domain.as_bytes()),
            None => matches!(self.0, Text::Present),
        }
    }
}

/// `requestPrincipals`: what `iss` and `sub` of the verified token have to be (S-131).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPrincipal {
    issuer: Text,
    subject: Text,
}

impl RequestPrincipal {
    /// Split at the last slash, since an issuer may be a URL. Of the stars at the ends of the whole pattern only one counts,
    /// the front one first: without a slash it frees the issuer and leaves a suffix of the subject (S-132).
    pub fn parse(pattern: &str) -> Self {
        let exact = |text: &str| Text::Exact(text.as_bytes().into());
        let prefix = |text: &str| match text {
            "" => Text::NonEmpty,
            text => Text::Prefix(text.as_bytes().into()),
        };
        let suffix = |text: &str| match text {
            "" => Text::NonEmpty,
            text => Text::Suffix(text.as_bytes().into()),
        };
        let (issuer, subject) = if let Some(rest) = pattern.strip_prefix('*') {
            match rest.rsplit_once('/') {
                Some((issuer, subject)) => (suffix(issuer), exact(subject)),
                None => (Text::NonEmpty, suffix(rest)),
            }
        } else if let Some(rest) = pattern.strip_suffix('*') {
            match rest.rsplit_once('/') {
                Some((issuer, subject)) => (exact(issuer), prefix(subject)),
                None => (prefix(rest), Text::NonEmpty),
            }
        } else {
            let (issuer, subject) = pattern.rsplit_once('/').unwrap_or((pattern, ""));
            (exact(issuer), exact(subject))
        };
        Self { issuer, subject }
    }

    /// `None`: there is no token, or its claim is no text; then nothing matches (S-133).
    pub fn matches(&self, issuer: Option<&str>, subject: Option<&str>) -> bool {
        let takes = |text: &Text, value: Option<&str>| {
            value.is_some_and(|value| text.matches(value.as_bytes()))
        };
        takes(&self.issuer, issuer) && takes(&self.subject, subject)
    }

    /// The issuer and the subject.
    pub(super) fn parts(&self) -> (&Text, &Text) {
        (&self.issuer, &self.subject)
    }
}

/// An address or a CIDR range, whose host bits do not count (S-134). IPv4 in IPv6 is another address than IPv4.
pub fn ip_block(pattern: &str) -> Result<IpNet, BadPattern> {
    let parsed = if pattern.contains('/') {
        pattern.parse::<IpNet>().ok()
    } else {
        pattern.parse::<IpAddr>().ok().map(IpNet::from)
    };
    parsed
        .map(|net| net.trunc())
        .ok_or_else(|| BadPattern::IpBlock(pattern.to_owned()))
}

/// A decimal number up to 65535; 0 never matches a connection (S-137).
pub fn port(pattern: &str) -> Result<u16, BadPattern> {
    let is_decimal = pattern.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = is_decimal.then(|| pattern.parse().ok()).flatten();
    parsed.ok_or_else(|| BadPattern::Port(pattern.to_owned()))
}

/// What of `text` follows the first `piece`.
fn after<'t>(text: &'t str, piece: &str) -> Option<&'t str> {
    text.find(piece).map(|at| &text[at + piece.len()..])
}

#[cfg(test)]
mod tests;
