//! The driver against real sockets of 127.0.0.1.

mod alone;
mod common;
mod forward;
mod script;

/// What a message through a forwarder costs.
const TURNS_PER_MESSAGE: u64 = 1;
