//! The contract between a machine and whoever drives it.
//!
//! 1. **One mutator.** `handle` is the only entry that changes meaning; `poll_action` only pops what it queued;
//!    `poll_timeout` looks.
//! 2. **Drain between inputs.** After `handle`, call `poll_action` until `None`, then read `poll_timeout`.
//! 3. **Causal order.** Actions come out of one queue, in the order in which they must happen.
//! 4. **Total.** Every input is legal in every state. A stale id is counted and dropped; ids are never reused.
//! 5. **Time only runs forward** and arrives with every input; after `handle` every remaining deadline lies strictly
//!    after `now.at`. A deadline may be early: a `Tick` with nothing due is legal.
//! 6. **Reads are granted, writes are acknowledged on demand.** One `Read` buys one `Received` or `Eof`; at most
//!    [`limits::UNACKED_MAX`](crate::limits::UNACKED_MAX) bytes per link are sent without hearing that the kernel took
//!    them. Both directions are bounded by constants in [`limits`](crate::limits).
//! 7. **`Closed` is last.** Each link ends with exactly one `Closed`, whoever caused it; after it the id is dead.

use crate::clock::{Deadline, Now};

/// A machine: time it was told, ids it made, queues. Holds no clock, no socket, no thread.
pub trait Machine {
    type Input;
    type Action;

    /// The only mutator. Total: every input is legal in every state.
    fn handle(&mut self, input: Self::Input, now: Now);

    /// Drained to `None` after every `handle`, before the next one.
    fn poll_action(&mut self) -> Option<Self::Action>;

    /// When `handle(Tick)` is wanted at the latest; `None` means nothing waits for time.
    fn poll_timeout(&self) -> Option<Deadline>;
}

/// Everything that a driver does between two waits; the same for simulator, tokio, glommio and Python.
pub fn step<M: Machine>(
    machine: &mut M,
    input: M::Input,
    now: Now,
    mut obey: impl FnMut(M::Action),
) -> Option<Deadline> {
    machine.handle(input, now);
    while let Some(action) = machine.poll_action() {
        obey(action);
    }
    machine.poll_timeout()
}
