//! Who the original client of a request is, from `x-forwarded-for` and the place of a proxy (S-320).

use std::net::IpAddr;

/// Where a proxy stands, as far as it decides whom to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the edge, behind so many proxies of our own (`gatewayTopology.numTrustedProxies`).
    Edge { trusted_proxies: u32 },
    /// Beside a workload: the proxy before it is believed.
    Sidecar,
}

/// The address of the original client (`remote.ip`).
///
/// `forwarded_for` has the values of the `x-forwarded-for` lines as they came, in their order; they count as one list. An edge
/// takes the entry that the outermost of its trusted proxies wrote, a sidecar the last one; where there is none, or it is no
/// address, `peer` is the client.
pub fn original_client<'a>(
    place: Place,
    peer: IpAddr,
    forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> IpAddr {
    let from_right = match place {
        Place::Edge { trusted_proxies: 0 } => return peer,
        Place::Edge { trusted_proxies } => usize::try_from(trusted_proxies - 1),
        Place::Sidecar => Ok(0),
    };
    let entries = forwarded_for
        .rev()
        .flat_map(|line| line.rsplit(|byte| *byte == b','));
    from_right
        .ok()
        .and_then(|nth| entries.into_iter().nth(nth))
        .and_then(|entry| std::str::from_utf8(entry).ok())
        .and_then(|entry| entry.trim_matches([' ', '\t']).parse().ok())
        .unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "203.0.113.7";

    fn client(place: Place, lines: &[&str]) -> String {
        let peer = PEER.parse().expect("an address");
        let lines = lines.iter().map(|line| line.as_bytes());
        original_client(place, peer, lines).to_string()
    }

    fn edge(trusted_proxies: u32) -> Place {
        Place::Edge { trusted_proxies }
    }

    #[test]
    fn an_edge_without_trusted_proxies_believes_nobody() {
        for lines in [&[][..], &["1.1.1.1"], &["1.1.1.1, 2.2.2.2"]] {
            assert_eq!(client(edge(0), lines), PEER);
        }
    }

    #[test]
    fn an_edge_counts_its_trusted_proxies_from_the_right() {
        let list = &["1.1.1.1, 2.2.2.2,3.3.3.3"];
        assert_eq!(client(edge(1), list), "3.3.3.3");
        assert_eq!(client(edge(2), list), "2.2.2.2");
        assert_eq!(client(edge(3), list), "1.1.1.1");
        for beyond in [4, 5, u32::MAX] {
            assert_eq!(client(edge(beyond), list), PEER);
        }
    }

    #[test]
    fn a_sidecar_takes_the_last_entry() {
        assert_eq!(client(Place::Sidecar, &[]), PEER);
        assert_eq!(client(Place::Sidecar, &["1.1.1.1"]), "1.1.1.1");
        assert_eq!(client(Place::Sidecar, &["1.1.1.1, 2.2.2.2"]), "2.2.2.2");
        assert_eq!(client(Place::Sidecar, &["2001:db8::1"]), "2001:db8::1");
    }

    #[test]
    fn lines_count_as_one_list() {
        let lines = &["1.1.1.1, 2.2.2.2", "3.3.3.3"];
        assert_eq!(client(Place::Sidecar, lines), "3.3.3.3");
        assert_eq!(client(edge(2), lines), "2.2.2.2");
        assert_eq!(client(edge(3), lines), "1.1.1.1");
    }

    #[test]
    fn an_entry_that_is_no_address_makes_the_peer_the_client() {
        for entry in [
            "",
            "not-an-ip",
            "1.1.1.1:80",
            "[::1]",
            "1.1.1",
            "01.1.1.1",
            "1.1.1.1 2.2.2.2",
        ] {
            assert_eq!(client(Place::Sidecar, &[entry]), PEER, "{entry}");
            let list = format!("9.9.9.9,{entry}");
            assert_eq!(client(edge(1), &[&list]), PEER, "{entry}");
            assert_eq!(client(edge(2), &[&list]), "9.9.9.9", "{entry}");
        }
    }
}
