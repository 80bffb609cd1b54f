//! The driver against real sockets of 127.0.0.1.
//!
//! Both drivers promise the same, so this one passes the tests of the other, word for word: in this test it bears its name.

extern crate meshward_glommio as meshward_tokio;

#[path = "../../../bind-tokio/tests/sockets/adopt.rs"]
mod adopt;
#[path = "../../../bind-tokio/tests/sockets/alone.rs"]
mod alone;
#[path = "../../../bind-tokio/tests/sockets/common.rs"]
mod common;
#[path = "../../../bind-tokio/tests/sockets/forward.rs"]
mod forward;
#[path = "../../../bind-tokio/tests/sockets/leave.rs"]
mod leave;
#[path = "../../../bind-tokio/tests/sockets/many.rs"]
mod many;
#[path = "../../../bind-tokio/tests/sockets/script.rs"]
mod script;

/// What a message through a forwarder costs: it asks for every acknowledgement, and a send that is to be acknowledged
/// completes in a turn of its own.
const TURNS_PER_MESSAGE: u64 = 2;
