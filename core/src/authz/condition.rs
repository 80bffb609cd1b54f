//! The keys of `when` (S-143).

use super::header::Name;

/// What a condition asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    SourceIp,
    RemoteIp,
    SourceNamespace,
    SourcePrincipal,
    SourceServiceAccount,
    SourceTrustDomain,
    RequestPrincipal,
    /// Its path in the token.
    Claim(Box<[String]>),
    Header(Name),
    Method,
    /// The authority as sent, case included.
    Authority,
    DestinationIp,
    DestinationPort,
    ServerName,
    /// Metadata of an Envoy filter. There are no such filters here, so nobody writes any (S-153).
    Metadata,
}

impl Key {
    /// `None`: there is no such key.
    pub(super) fn parse(key: &str) -> Option<Self> {
        Some(match key {
            "source.ip" => Self::SourceIp,
            "remote.ip" => Self::RemoteIp,
            "source.namespace" => Self::SourceNamespace,
            "source.principal" => Self::SourcePrincipal,
            "source.serviceAccount" => Self::SourceServiceAccount,
            "source.trustDomain" => Self::SourceTrustDomain,
            "request.auth.principal" => Self::RequestPrincipal,
            "request.auth.audiences" => Self::claim("aud"),
            "request.auth.presenter" => Self::claim("azp"),
            "destination.ip" => Self::DestinationIp,
            "destination.port" => Self::DestinationPort,
            "connection.sni" => Self::ServerName,
            _ => {
                let (name, _) = key.split_once('[')?;
                let index = &key[name.len()..];
                match name {
                    "request.headers" => Self::header(in_brackets(index)?)?,
                    "request.auth.claims" => Self::Claim(path(index)?),
                    _ => {
                        let filter = name.strip_prefix("experimental.envoy.filters.")?;
                        in_brackets(index).filter(|_| !filter.is_empty())?;
                        Self::Metadata
                    }
                }
            }
        })
    }

    fn claim(name: &str) -> Self {
        Self::Claim([name.to_owned()].into())
    }

    /// Envoy has the request line among the headers, and knows `host` as `:authority`. Of the rest of the request line the
    /// rules are not told, so that such a name is no key.
    fn header(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            ":method" => Some(Self::Method),
            ":authority" | "host" => Some(Self::Authority),
            pseudo if pseudo.starts_with(':') => None,
            name => Some(Self::Header(Name::new(name))),
        }
    }

    /// Only HTTP has it (S-155).
    pub(super) fn is_of_http(&self) -> bool {
        match self {
            Self::RequestPrincipal
            | Self::Claim(_)
            | Self::Header(_)
            | Self::Method
            | Self::Authority => true,
            Self::SourceIp
            | Self::RemoteIp
            | Self::SourceNamespace
            | Self::SourcePrincipal
            | Self::SourceServiceAccount
            | Self::SourceTrustDomain
            | Self::DestinationIp
            | Self::DestinationPort
            | Self::ServerName
            | Self::Metadata => false,
        }
    }
}

fn in_brackets(index: &str) -> Option<&str> {
    let inside = index.strip_prefix('[')?.strip_suffix(']')?;
    (!inside.is_empty()).then_some(inside)
}

/// `[a][b]` as a path; what is not of that form is one name, with the brackets inside (S-149).
fn path(index: &str) -> Option<Box<[String]>> {
    let whole = in_brackets(index)?;
    let names: Vec<_> = whole.split("][").map(str::to_owned).collect();
    if names.iter().any(|name| name.contains(['[', ']'])) {
        return Some([whole.to_owned()].into());
    }
    Some(names.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(names: &[&str]) -> Option<Key> {
        let names = names.iter().map(|name| (*name).to_owned());
        Some(Key::Claim(names.collect()))
    }

    #[test]
    fn every_name_is_a_key_of_its_own_and_some_are_of_http() {
        use Key::*;
        for (key, expected, is_of_http) in [
            ("source.ip", SourceIp, false),
            ("remote.ip", RemoteIp, false),
            ("source.namespace", SourceNamespace, false),
            ("source.principal", SourcePrincipal, false),
            ("source.serviceAccount", SourceServiceAccount, false),
            ("source.trustDomain", SourceTrustDomain, false),
            ("request.auth.principal", RequestPrincipal, true),
            ("request.auth.audiences", Key::claim("aud"), true),
            ("request.auth.claims[a]", Key::claim("a"), true),
            ("request.headers[x]", Header(Name::new("x")), true),
            ("request.headers[:method]", Method, true),
            ("request.headers[:authority]", Authority, true),
            ("destination.ip", DestinationIp, false),
            ("destination.port", DestinationPort, false),
            ("connection.sni", ServerName, false),
            ("experimental.envoy.filters.a[b]", Metadata, false),
        ] {
            assert_eq!(expected.is_of_http(), is_of_http, "{key} (S-155)");
            assert_eq!(Key::parse(key), Some(expected), "{key} (S-143)");
        }
    }

    #[test]
    fn brackets_lead_into_a_token() {
        for (key, names) in [
            ("request.auth.claims[iss]", &["iss"][..]),
            ("request.auth.claims[a][b]", &["a", "b"]),
            ("request.auth.claims[a][]", &["a", ""]),
            ("request.auth.claims[a.b]", &["a.b"]),
            ("request.auth.audiences", &["aud"]),
            ("request.auth.presenter", &["azp"]),
        ] {
            assert_eq!(Key::parse(key), claim(names), "{key} (S-147, S-150)");
        }
    }

    #[test]
    fn brackets_that_do_not_pair_are_part_of_one_name() {
        for (key, name) in [
            ("request.auth.claims[a]b]", "a]b"),
            ("request.auth.claims[a[b]", "a[b"),
            ("request.auth.claims[a]x[b]", "a]x[b"),
            ("request.auth.claims[[a]]", "[a]"),
        ] {
            assert_eq!(Key::parse(key), claim(&[name]), "{key} (S-149)");
        }
        assert_eq!(Key::parse("request.auth.claims[a]["), None);
    }

    #[test]
    fn names_of_headers_are_in_any_case_and_the_request_line_is_among_them() {
        let header = Some(Key::Header(Name::new("x-token")));
        assert_eq!(Key::parse("request.headers[X-Token]"), header, "S-144");
        assert_eq!(Key::parse("request.headers[:method]"), Some(Key::Method));
        for name in [":authority", "Host"] {
            let key = Key::parse(&format!("request.headers[{name}]"));
            assert_eq!(key, Some(Key::Authority), "{name}");
        }
    }

    #[test]
    fn what_is_no_key_is_none() {
        for key in [
            "",
            "request.headers",
            "request.headers[]",
            "request.headers[a",
            "request.headers[:path]",
            "request.auth.claims",
            "request.auth.claims[]",
            "request.time",
            "source.ip[a]",
            "experimental.envoy.filters.",
            "experimental.envoy.filters.[a]",
            "experimental.envoy.filters.http.x",
            "destination.labels[a]",
        ] {
            assert_eq!(Key::parse(key), None, "{key} (S-143)");
        }
        let metadata = Key::parse("experimental.envoy.filters.http.x[a]");
        assert_eq!(metadata, Some(Key::Metadata));
    }
}
