//! Drives meshward's machines over io_uring, inside a glommio executor.
//!
//! One [`Driver`] per shard: one thread, one executor, one task, one ring of our own. The task owns any number of machines and
//! all their sockets; glommio gives the thread, its place on a core and the executor. The driver decides nothing: what it does
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
//! The task waits in its ring and nowhere else, so it has the executor for itself until it ends. Letting glommio's reactor
//! have a pass now and then (by a timer, by yielding, by a read) lost the wake-up of this task about once in a million
//! passes under load, and the shard hung. A beat of 8 ms runs while traffic flows; large buffers of links that fell silent
//! are let go of with it.
//!
//! Names and behaviour are those of `meshward-tokio`. Where io_uring cannot be used, [`available`] says why.
#![deny(unsafe_code)]

pub mod limits;

mod available;
mod buffers;
mod clock;
mod deadlines;
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
