//! The record of a request or a connection.

use meshward_core::telemetry::{Record, accesslog};
use pyo3::prelude::*;

use crate::convert::Address;

/// One line of the access log, as facts. Texts are as the peer sent them; `line()` makes them safe.
#[pyclass(module = "meshward", frozen, eq)]
#[derive(PartialEq)]
pub(crate) struct Report(pub(crate) Box<Record>);

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr;)*) => {
        #[pymethods]
        impl Report {
            $($(#[$doc])* #[getter] fn $name(&self) -> $type {
                let value: fn(&Record) -> $type = $value;
                value(&self.0)
            })*

            /// Istio's default text of this record, without the line feed.
            fn line(&self) -> String {
                let mut line = Vec::new();
                accesslog::format(&self.0, &mut line);
                String::from_utf8_lossy(&line).trim_end().to_owned()
            }

            fn __repr__(&self) -> String {
                format!("<Report {}>", self.line())
            }
        }
    };
}

getters! {
    /// Position of the listener: of inbound ports as a snapshot lists them, then of outbound ones.
    listener: u32 = |r| r.listener;
    /// Milliseconds since 1970-01-01T00:00:00Z.
    start_unix_ms: u64 = |r| r.start.0;
    /// From the first byte of the request to the end of the answer.
    duration_ns: u64 = |r| r.duration_ns;
    method: Option<&str> = |r| r.method.as_deref();
    /// The path as received, query included.
    path: Option<&str> = |r| r.path.as_deref();
    /// `HTTP/1.1`; `None` for a connection.
    protocol: Option<&str> = |r| r.protocol;
    /// 0: no HTTP answer.
    status: u16 = |r| r.status;
    /// Envoy's short names.
    flags: Vec<&'static str> = |r| r.flags.names().collect();
    /// `via_upstream`, `rbac_access_denied_matched_policy[…]` with the policy's id.
    details: Option<&str> = |r| r.details.as_deref();
    termination: Option<&str> = |r| r.termination.as_deref();
    upstream_failure: Option<&str> = |r| r.upstream_failure.as_deref();
    /// Bytes of bodies, or of opaque streams.
    bytes_received: u64 = |r| r.bytes_received;
    bytes_sent: u64 = |r| r.bytes_sent;
    upstream_service_ms: Option<u64> = |r| r.upstream_service_ms;
    forwarded_for: Option<&str> = |r| r.forwarded_for.as_deref();
    user_agent: Option<&str> = |r| r.user_agent.as_deref();
    request_id: Option<&str> = |r| r.request_id.as_deref();
    authority: Option<&str> = |r| r.authority.as_deref();
    upstream_host: Option<Address> = |r| r.upstream_host.map(Address);
    upstream_cluster: Option<&str> = |r| r.upstream_cluster.as_deref();
    upstream_local: Option<Address> = |r| r.upstream_local.map(Address);
    downstream_local: Option<Address> = |r| r.downstream_local.map(Address);
    downstream_remote: Option<Address> = |r| r.downstream_remote.map(Address);
    requested_server_name: Option<&str> = |r| r.requested_server_name.as_deref();
    route: Option<&str> = |r| r.route.as_deref();
    /// The peer's identity, `spiffe://…`.
    peer: Option<&str> = |r| r.peer.as_deref();
    /// Ids of the AUDIT policies that matched.
    audit: Vec<&str> = |r| r.audit.iter().map(String::as_str).collect();
}
