//! The record of one request, or of one connection.

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    pub const NONE: Self = Self(0);
    /// Downstream connection termination.
    pub const DC: Self = Self(1);
    /// Downstream protocol error.
    pub const DPE: Self = Self(1 << 1);
    /// No route, or no filter chain.
    pub const NR: Self = Self(1 << 2);
    /// Upstream connection termination.
    pub const UC: Self = Self(1 << 3);
    /// Upstream connection failure.
    pub const UF: Self = Self(1 << 4);
    /// Upstream protocol error.
    pub const UPE: Self = Self(1 << 5);
    /// Upstream retry limit exceeded.
    pub const URX: Self = Self(1 << 6);
    /// Upstream remote reset.
    pub const UR: Self = Self(1 << 7);
    /// No healthy upstream.
    pub const UH: Self = Self(1 << 8);
    /// Duration timeout.
    pub const DT: Self = Self(1 << 9);

    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
