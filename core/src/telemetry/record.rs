//! The record of one request, or of one connection.

use std::fmt;
use std::net::SocketAddr;

use crate::clock::UnixTime;

/// One line of the access log (S-326, S-327), as facts. Strings are as they came; the formatter makes them safe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The listener that the connection came in by, so that a shell knows which log it belongs to.
    pub listener: u32,
    pub start: UnixTime,
    /// Nanoseconds from the first byte of the request to the end of the answer.
    pub duration_ns: u64,
    pub method: Option<String>,
    /// The path as received, query included.
    pub path: Option<String>,
    /// `x-envoy-original-path`, which is printed in place of the path where a request has it (S-326).
    pub original_path: Option<String>,
    /// `HTTP/1.1`; `None` for a TCP connection.
    pub protocol: Option<&'static str>,
    /// 0: no HTTP answer.
    pub status: u16,
    pub flags: Flags,
    /// `via_upstream`, `rbac_access_denied_matched_policy[…]` (S-329); spaces are made `_` when it is printed.
    pub details: Option<String>,
    pub termination: Option<String>,
    pub upstream_failure: Option<String>,
    /// Bytes of bodies, or of opaque streams.
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub upstream_service_ms: Option<u64>,
    pub forwarded_for: Option<String>,
    pub user_agent: Option<String>,
    pub request_id: Option<String>,
    pub authority: Option<String>,
    pub upstream_host: Option<SocketAddr>,
    /// `inbound|8080||` (S-330).
    pub upstream_cluster: Option<String>,
    pub upstream_local: Option<SocketAddr>,
    pub downstream_local: Option<SocketAddr>,
    pub downstream_remote: Option<SocketAddr>,
    pub requested_server_name: Option<String>,
    pub route: Option<String>,
    /// The peer's identity, `spiffe://…`; not part of Istio's default text.
    pub peer: Option<String>,
    /// AUDIT policies that matched (S-162); not part of Istio's default text.
    pub audit: Vec<String>,
}

/// Response flags (S-328), a set.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u32);

/// The short names, bit by bit, in the order of Envoy's table, which is the order in a line.
const NAMES: [&str; 30] = [
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC",
    "URX", "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR",
    "UDO",
];

impl Flags {
    pub const NONE: Self = Self(0);
    /// Local service failed its health check.
    pub const LH: Self = Self(1);
    /// No healthy upstream.
    pub const UH: Self = Self(1 << 1);
    /// Upstream request timeout.
    pub const UT: Self = Self(1 << 2);
    /// Local reset.
    pub const LR: Self = Self(1 << 3);
    /// Upstream remote reset.
    pub const UR: Self = Self(1 << 4);
    /// Upstream connection failure.
    pub const UF: Self = Self(1 << 5);
    /// Upstream connection termination.
    pub const UC: Self = Self(1 << 6);
    /// Upstream overflow (circuit breaking).
    pub const UO: Self = Self(1 << 7);
    /// No route, or no filter chain.
    pub const NR: Self = Self(1 << 8);
    /// Delay injected.
    pub const DI: Self = Self(1 << 9);
    /// Fault injected.
    pub const FI: Self = Self(1 << 10);
    /// Rate limited.
    pub const RL: Self = Self(1 << 11);
    /// Denied by the external authorization server.
    pub const UAEX: Self = Self(1 << 12);
    /// Error of the rate limit service.
    pub const RLSE: Self = Self(1 << 13);
    /// Downstream connection termination.
    pub const DC: Self = Self(1 << 14);
    /// Upstream retry limit exceeded.
    pub const URX: Self = Self(1 << 15);
    /// Stream idle timeout.
    pub const SI: Self = Self(1 << 16);
    /// Invalid value of an `x-envoy-…` header.
    pub const IH: Self = Self(1 << 17);
    /// Downstream protocol error.
    pub const DPE: Self = Self(1 << 18);
    /// Upstream stream lived for its maximal duration.
    pub const UMSDR: Self = Self(1 << 19);
    /// Response from a cache.
    pub const RFCF: Self = Self(1 << 20);
    /// No configuration of a filter in time.
    pub const NFCF: Self = Self(1 << 21);
    /// Duration timeout.
    pub const DT: Self = Self(1 << 22);
    /// Upstream protocol error.
    pub const UPE: Self = Self(1 << 23);
    /// No such cluster.
    pub const NC: Self = Self(1 << 24);
    /// Ended for overload.
    pub const OM: Self = Self(1 << 25);
    /// Name could not be resolved.
    pub const DF: Self = Self(1 << 26);
    /// Dropped for overload.
    pub const DO: Self = Self(1 << 27);
    /// Downstream remote reset.
    pub const DR: Self = Self(1 << 28);
    /// Dropped for overload, unconditionally.
    pub const UDO: Self = Self(1 << 29);

    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The short names of the flags that are set, in Envoy's order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let set = move |bit: &usize| self.0 >> bit & 1 == 1;
        (0..NAMES.len())
            .filter(set)
            .filter_map(|bit| NAMES.get(bit).copied())
    }

    /// The set of one flag, by its short name.
    pub fn named(name: &str) -> Option<Self> {
        let bit = NAMES.iter().position(|known| *known == name)?;
        Some(Self(1 << bit))
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_its_name_and_names_come_in_order() {
        // S-328.
        for (flag, name) in [
            (Flags::LH, "LH"),
            (Flags::NR, "NR"),
            (Flags::UAEX, "UAEX"),
            (Flags::DC, "DC"),
            (Flags::URX, "URX"),
            (Flags::DPE, "DPE"),
            (Flags::UPE, "UPE"),
            (Flags::DT, "DT"),
            (Flags::UDO, "UDO"),
        ] {
            assert_eq!(Flags::named(name), Some(flag));
            assert_eq!(flag.names().collect::<Vec<_>>(), [name]);
        }
        let every = "UH UF UO NR URX NC DT DC LH UT LR UR UC DI FI RL UAEX RLSE IH SI DPE UPE UMSDR RFCF NFCF OM DF DO DR UDO";
        let all = every
            .split(' ')
            .map(|name| Flags::named(name).expect("a flag of S-328"))
            .fold(Flags::NONE, Flags::with);
        assert_eq!(all.names().collect::<Vec<_>>(), NAMES);
        assert_eq!(Flags::named("XX"), None);
        let two = Flags::URX.with(Flags::UF);
        assert_eq!(format!("{two:?}"), r#"{"UF", "URX"}"#);
        assert!(two.contains(Flags::UF) && !two.contains(Flags::UC) && !two.is_empty());
    }
}
