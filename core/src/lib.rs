//! The machines, converters and deciders of meshward.
#![forbid(unsafe_code)]

pub mod clock;
pub mod error;
pub mod id;
pub mod limits;
pub mod link;
pub mod machine;
pub mod pii;
pub mod rng;
pub mod timer;

pub mod accept;
pub mod agent;
pub mod api;
pub mod authn;
pub mod authz;
pub mod control;
pub mod decide;
pub mod explain;
pub mod http;
pub mod path;
pub mod proxy;
pub mod route;
pub mod snapshot;
pub mod spiffe;
pub mod sync;
pub mod telemetry;
pub mod tls;
