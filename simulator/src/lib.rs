//! meshward's machines in virtual time, driven from a seed.
//!
//! A [`World`](world::World) holds machines, scripted peers and the byte streams between them. Nothing in it asks a clock,
//! a socket or the operating system for anything: equal seeds give equal runs, down to the bytes of the handshakes, and
//! [`Trace`](trace::Trace) turns a run into one number that two processes can compare.
#![forbid(unsafe_code)]

pub mod campaign;
pub mod chance;
pub mod check;
pub mod clock;
pub mod crypto;
pub mod http;
pub mod mesh;
pub mod model;
pub mod net;
pub mod peer;
pub mod pods;
pub mod tls;
pub mod trace;
pub mod world;
