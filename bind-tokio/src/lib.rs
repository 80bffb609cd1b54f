//! Drives meshward's machines over tokio sockets.
//!
//! One [`Driver`] per shard: one thread, one current-thread runtime, one task. The task owns any number of machines and all
//! their sockets, so no link has a task, a channel or a lock of its own. It decides nothing: what it does to a link was
//! asked for by a machine, or is an error of the operating system.
//!
//! ```text
//!    tokio readiness ──► wakers ──► ready list ─┐
//!    other threads ────► commands ──────────────┤
//!    Sleep ─────────────► ticks ────────────────┤
//!                                               ▼
//!          ┌──────── inputs ◄──────── serve a ready socket
//!          ▼                                    ▲
//!    Machine::handle ──► actions ──► obey: queue bytes, grant reads, connect, reset
//! ```
//!
//! One turn is bounded ([`limits`]), each link gets one read at a time and then goes to the end of the line.

pub mod limits;

mod buffers;
mod clock;
mod driver;
mod link;
mod listen;
mod remote;
mod shard;
mod sys;
mod wake;

pub use clock::Clock;
pub use driver::{Driver, ProxyId, Sink, Stats};
pub use listen::{Destination, bind_listener};
pub use remote::{Command, Remote};
pub use shard::{ShardHandle, spawn_shard};
