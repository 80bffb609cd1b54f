//! The driver against real sockets of 127.0.0.1.

mod adopt;
mod alone;
mod common;
mod forward;
mod leave;
mod many;
mod script;

/// What a message through a forwarder costs.
const TURNS_PER_MESSAGE: u64 = 1;
