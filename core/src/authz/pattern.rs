//! One pattern against one value, as the field of a policy that holds the pattern compares them (S-123 to S-142).
//!
//! What [`evaluate`](super::evaluate()) does with compiled rules, for a single pattern, and for identities in the form of a
//! certificate: URIs with their scheme, of any scheme.

use super::matcher::{BadPattern, Namespace, Path, ServiceAccount, Text, TrustDomain};
use crate::path::without_query;

const SCHEME: &str = "spiffe://";

/// What a pattern is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Claims, server names and the like: `*` takes any value but the empty one (S-123).
    String,
    /// A header or method: `*` takes any value (S-124).
    Header,
    /// `hosts`: as a header, in any case (S-125).
    Host,
    /// `paths`, templates too; query and fragment of the value do not count (S-139, S-140).
    Path,
    /// `principals`, against the URI of a certificate (S-127).
    Principal,
    /// `namespaces`, against such a URI (S-128).
    Namespace,
    /// `serviceAccounts`, against such a URI (S-129).
    ServiceAccount,
    /// `trustDomains`, against such a URI (S-130).
    TrustDomain,
}

/// Whether `pattern` takes `value`, which is `None` where a request has none: that matches no pattern (S-126).
///
/// A service account without a namespace is one of `policy_namespace`; nothing else looks at it.
pub fn matches(
    field: Field,
    pattern: &str,
    value: Option<&str>,
    policy_namespace: &str,
) -> Result<bool, BadPattern> {
    let of_identity = |matches: &dyn Fn(&str) -> bool| {
        value
            .and_then(|uri| uri.strip_prefix(SCHEME))
            .is_some_and(matches)
    };
    let of_bytes = |matches: &dyn Fn(&[u8]) -> bool| value.is_some_and(|v| matches(v.as_bytes()));
    Ok(match field {
        Field::String => {
            let text = Text::of_value(pattern);
            of_bytes(&|value| text.matches(value))
        }
        Field::Header => {
            let text = Text::of_header(pattern);
            of_bytes(&|value| text.matches(value))
        }
        Field::Host => {
            let text = Text::of_header(pattern);
            of_bytes(&|value| text.matches_any_case(value))
        }
        Field::Path => {
            let path = Path::parse(pattern)?;
            of_bytes(&|value| path.matches(without_query(value)))
        }
        // Every form but the lone star begins with the scheme.
        Field::Principal if pattern == "*" => value.is_some_and(|uri| !uri.is_empty()),
        Field::Principal => {
            let text = Text::of_value(pattern);
            of_identity(&|principal| text.matches(principal.as_bytes()))
        }
        Field::Namespace => {
            let namespace = Namespace::parse(pattern);
            value.is_some_and(|uri| namespace.matches(uri.strip_prefix(SCHEME).unwrap_or(uri)))
        }
        Field::ServiceAccount => {
            let account = ServiceAccount::parse(pattern, policy_namespace)?;
            of_identity(&|principal| account.matches(principal))
        }
        Field::TrustDomain => {
            let domain = TrustDomain::parse(pattern)?;
            of_identity(&|principal| domain.matches(principal))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(field: Field, pattern: &str, value: impl Into<Option<&'static str>>) -> bool {
        matches(field, pattern, value.into(), "shop").expect("a pattern")
    }

    const ID: &str = "spiffe://td.example/ns/stock/sa/client";

    #[test]
    fn nothing_takes_an_absent_value() {
        for field in [
            Field::String,
            Field::Header,
            Field::Host,
            Field::Path,
            Field::Principal,
            Field::Namespace,
            Field::TrustDomain,
        ] {
            assert!(!takes(field, "*", None), "{field:?}");
        }
        assert!(!takes(Field::ServiceAccount, "client", None));
    }

    #[test]
    fn a_lone_star_takes_the_empty_value_of_headers_and_hosts_only() {
        assert!(takes(Field::Header, "*", "") && takes(Field::Host, "*", ""));
        assert!(!takes(Field::String, "*", "") && !takes(Field::Principal, "*", ""));
        assert!(!takes(Field::Path, "*", ""));
    }

    #[test]
    fn case_counts_everywhere_but_in_hosts() {
        assert!(takes(Field::Host, "*.Example.com", "A.example.COM"));
        for (field, pattern, value) in [
            (Field::String, "Abc", "abc"),
            (Field::Header, "a*", "Abc"),
            (Field::Path, "/a", "/A"),
            (Field::Principal, "TD.example/ns/stock/sa/client", ID),
            (Field::Namespace, "Stock", ID),
            (Field::TrustDomain, "TD.example", ID),
        ] {
            assert!(!takes(field, pattern, value), "{field:?} {pattern}");
        }
    }

    #[test]
    fn the_query_of_a_path_does_not_count() {
        for pattern in ["/a/b", "/a/{*}", "/a/*", "*/b"] {
            assert!(takes(Field::Path, pattern, "/a/b?c=/d#e"), "{pattern}");
        }
        assert!(matches(Field::Path, "/a{*}", Some("/a"), "").is_err());
    }

    /// S-127: `*x` is `spiffe://.*x`, `x*` and `x` have the scheme in front.
    #[test]
    fn identities_of_other_schemes_match_the_lone_star_alone() {
        let web = "https://web.example/ns/stock/sa/client";
        assert!(takes(Field::Principal, "*", web));
        for pattern in ["*client", "https*", "web.example*", "https://web.example*"] {
            assert!(!takes(Field::Principal, pattern, web), "{pattern}");
        }
        assert!(
            takes(Field::Namespace, "stock", web),
            "S-128 asks for no scheme"
        );
        assert!(!takes(Field::ServiceAccount, "stock/client", web));
        assert!(!takes(Field::TrustDomain, "*", web));
        assert!(!takes(Field::Principal, "spiffe://td.example*", ID), "S-87");
    }

    #[test]
    fn trust_domains_end_at_the_first_slash() {
        for pattern in [
            "*",
            "td.example",
            "td.*",
            "*.example",
            "td.example*",
            "*td.example",
        ] {
            assert!(takes(Field::TrustDomain, pattern, ID), "{pattern}");
        }
        for pattern in ["td", "example", "*client", "td.example/ns*", "ns"] {
            assert!(!takes(Field::TrustDomain, pattern, ID), "{pattern}");
        }
    }
}
