//! Request targets and authorities (RFC 9112 §3.2).

use super::{invalid, invalid_url};
use crate::error::Violation;

/// A request target taken apart.
pub(super) struct Target<'a> {
    pub(super) path: &'a [u8],
    /// The authority of an absolute or authority target.
    pub(super) authority: Option<&'a [u8]>,
}

/// Takes `target` apart. Everything that is not one of the four forms, used with its own method, is refused (S-182).
pub(super) fn split<'a>(method: &str, target: &'a [u8]) -> Result<Target<'a>, Violation> {
    if !target.iter().all(|byte| matches!(byte, 0x21..=0x7e)) {
        return Err(invalid_url("a byte that no target may hold (S-182)"));
    }
    if method == "CONNECT" {
        return match port_of(target)? {
            Some(_) => Ok(Target {
                path: &[],
                authority: Some(target),
            }),
            None => Err(invalid_url("connect without a port (RFC 9112 §3.2.3)")),
        };
    }
    match target {
        [b'/', ..] => Ok(Target {
            path: target,
            authority: None,
        }),
        b"*" if method == "OPTIONS" => Ok(Target {
            path: target,
            authority: None,
        }),
        _ => absolute(target),
    }
}

/// The path, query included, that the target of a request of `method` names: the target itself, or what an absolute one has
/// behind its authority.
///
/// Fails as the request line would (RFC 9112 §3.2, S-182). Empty for CONNECT, `*` for `OPTIONS *`.
pub fn path_of<'a>(method: &str, target: &'a [u8]) -> Result<&'a [u8], Violation> {
    split(method, target).map(|target| target.path)
}

fn absolute(target: &[u8]) -> Result<Target<'_>, Violation> {
    let rest = ["http://", "https://"]
        .into_iter()
        .find_map(|scheme| {
            let (start, rest) = target.split_at_checked(scheme.len())?;
            start
                .eq_ignore_ascii_case(scheme.as_bytes())
                .then_some(rest)
        })
        .ok_or_else(|| invalid_url("a target of no known form (RFC 9112 §3.2, S-182)"))?;
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    port_of(authority)?;
    match path {
        [] => Ok(Target {
            path: b"/",
            authority: Some(authority),
        }),
        [b'/', ..] => Ok(Target {
            path,
            authority: Some(authority),
        }),
        _ => Err(invalid_url("an absolute target without a path")),
    }
}

/// Checks `authority` and tells its port digits: `host[:port]`, where the host is a name or an IP literal.
///
/// Stricter than RFC 3986: no user, no `,` (two values glued together look like it), no percent-encoding (an upstream may
/// decode what a policy compared), no empty host, no empty port.
pub(super) fn port_of(authority: &[u8]) -> Result<Option<&[u8]>, Violation> {
    const WHAT: Violation = invalid("a malformed host (RFC 9110 §7.2)");
    let after_host = match authority {
        [b'[', rest @ ..] => {
            let end = rest.iter().position(|byte| *byte == b']').ok_or(WHAT)?;
            let (literal, after) = rest.split_at(end);
            let is_ip = std::str::from_utf8(literal)
                .is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
            if !is_ip {
                return Err(WHAT);
            }
            after.get(1..).unwrap_or_default()
        }
        _ => {
            let end = authority
                .iter()
                .position(|byte| *byte == b':')
                .unwrap_or(authority.len());
            let (name, after) = authority.split_at(end);
            if name.is_empty() || !name.iter().all(|byte| is_name_byte(*byte)) {
                return Err(WHAT);
            }
            after
        }
    };
    match after_host {
        [] => Ok(None),
        [b':', port @ ..] if matches!(port.len(), 1..=5) && port.iter().all(u8::is_ascii_digit) => {
            let number = port
                .iter()
                .fold(0u32, |n, digit| n * 10 + u32::from(digit - b'0'));
            if number > u32::from(u16::MAX) {
                return Err(WHAT);
            }
            Ok(Some(port))
        }
        _ => Err(WHAT),
    }
}

/// `unreserved` and `sub-delims` of RFC 3986 without the comma.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b';'
                | b'='
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_target_gives_its_authority_and_its_path() {
        for (target, authority, path) in [
            ("http://a/b", "a", "/b"),
            ("HTTP://a/b", "a", "/b"),
            ("https://a:8443/b?c", "a:8443", "/b?c"),
            ("http://[::1]:80/", "[::1]:80", "/"),
            ("http://a", "a", "/"),
            ("http://h/a/../p", "h", "/a/../p"),
        ] {
            let split = split("GET", target.as_bytes()).expect(target);
            assert_eq!(split.authority, Some(authority.as_bytes()), "{target}");
            assert_eq!(split.path, path.as_bytes(), "{target}");
        }
    }

    #[test]
    fn the_path_of_a_target_is_what_its_form_says() {
        for (method, target, path) in [
            ("GET", "/a/../b?c", "/a/../b?c"),
            ("GET", "http://h/a", "/a"),
            ("OPTIONS", "*", "*"),
            ("CONNECT", "a:80", ""),
        ] {
            assert_eq!(
                path_of(method, target.as_bytes()),
                Ok(path.as_bytes()),
                "{target}"
            );
        }
        for target in ["a", "*", "", "/a b", "/\u{e9}", "/a\x7f"] {
            assert!(path_of("GET", target.as_bytes()).is_err(), "{target}");
        }
    }

    #[test]
    fn a_target_of_no_form_is_refused() {
        for (method, target) in [
            ("GET", "*"),
            ("GET", "a"),
            ("GET", "a:80"),
            ("GET", "\\a"),
            ("GET", "http:/a"),
            ("GET", "http:a/b"),
            ("GET", "http://"),
            ("GET", "http:///b"),
            ("GET", "http://a?b"),
            ("GET", "http://u@a/b"),
            ("GET", "http://a\\b/c"),
            ("GET", "ftp://a/b"),
            ("OPTIONS", "**"),
            ("CONNECT", "/a"),
            ("CONNECT", "a"),
            ("CONNECT", "a:"),
            ("CONNECT", "http://a:80/"),
        ] {
            assert!(
                split(method, target.as_bytes()).is_err(),
                "{method} {target}"
            );
        }
        for byte in (0..=0x20).chain(0x7f..=0xff) {
            assert!(split("GET", &[b'/', byte]).is_err(), "{byte:#x}");
        }
    }

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        for good in [
            "a",
            "A.b-c_d",
            "a:0",
            "a:65535",
            "10.0.0.1:80",
            "[::1]",
            "[::ffff:1.2.3.4]:1",
            "0.0.0.0=5000",
        ] {
            assert!(port_of(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:",
            "a:65536",
            "a:000080",
            "a:8x",
            "a:80:80",
            "a@b",
            "a/b",
            "a b",
            "a,b",
            "a\tb",
            "a\0b",
            "%61",
            "::1",
            "[::1",
            "[]",
            "[a]",
            "[::1]a",
            "[::1%25lo]",
            "a]",
            "a?b",
            "a#b",
            "a\\b",
            "\u{e9}",
        ] {
            assert!(port_of(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
