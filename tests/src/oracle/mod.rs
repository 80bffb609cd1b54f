//! A real Envoy, asked the same questions as our proxy.
//!
//! Policies are translated as istiod translates them; every request goes to Envoy and to a sidecar of ours, over real
//! sockets, and what the client and the access log get to see must be the same.

pub mod rbac;
