//! Drives meshward's machines over io_uring, inside a glommio executor.
//!
//! One [`Driver`] per shard: one thread, one executor, one task, one ring of our own. The task owns any number of machines and
//! all their sockets; glommio stays the executor for whatever else the thread does. The driver decides nothing: what it does
//! to a link was asked for by a machine, or is an error of the operating system.
//!
//! ```text
//!    kernel ──► completions ──┐            ┌──► submissions ──► kernel
//!    other threads ► bell ────┤            │      one system call per turn
//!    beat, alarm ──► ticks ───┤            │
//!                             ▼            │
//!                   Machine::handle ──► actions: receive, send, connect, reset
//! ```
//!
//! While traffic flows the task blocks in its ring, and a beat of 8 ms lets the executor look after its other tasks. After a
//! while without traffic the beat stops and the task sleeps as any other, until its ring, a deadline or a command wakes it.
//!
//! Names and behaviour are those of `meshward-tokio`. Where io_uring cannot be used, [`available`] says why.
#![deny(unsafe_code)]

pub mod limits;

mod available;
mod buffers;
mod clock;
mod driver;
mod link;
mod links;
mod listen;
mod remote;
#[allow(
    unsafe_code,
    reason = "the kernel reads and writes memory on its own time"
)]
mod ring;
mod shard;

pub use available::{Unavailable, available};
pub use clock::Clock;
pub use driver::{Driver, ProxyId, Sink, Stats};
pub use listen::{Destination, bind_listener};
pub use remote::{Command, Remote};
pub use shard::{ShardHandle, spawn_shard};
