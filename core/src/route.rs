//! Where a request of the application goes, by its authority (S-62, S-263).

use std::borrow::Cow;
use std::sync::Arc;

use crate::snapshot::{Cluster, OutboundPort};

/// The cluster that a request with this authority is for. Case and the port do not count; the names are those that Istio
/// gives to a service's virtual host.
pub fn outbound<'p>(port: &'p OutboundPort, authority: Option<&[u8]>) -> &'p Arc<Cluster> {
    authority
        .filter(|_| !port.hosts.is_empty())
        .and_then(host)
        .and_then(|host| port.hosts.get(host.as_ref()))
        .unwrap_or(&port.otherwise)
}

/// The authority without its port, in lower case, an IPv6 address without its brackets. `None`: no name and no address.
fn host(authority: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(authority).ok()?;
    let name = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => text.split_once(':').map_or(text, |(name, _)| name),
    };
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Some(name.to_ascii_lowercase().into())
    } else {
        Some(name.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_name_without_port_and_case() {
        for (authority, name) in [
            ("webapp.shop", "webapp.shop"),
            ("webapp.shop:8080", "webapp.shop"),
            ("WebApp.Shop:", "webapp.shop"),
            ("10.96.0.2:80", "10.96.0.2"),
            ("[2001:DB8::1]:80", "2001:db8::1"),
            ("", ""),
        ] {
            assert_eq!(host(authority.as_bytes()).as_deref(), Some(name));
        }
        assert_eq!(host(b"[::1"), None);
        assert_eq!(host(b"\xff"), None);
    }
}
