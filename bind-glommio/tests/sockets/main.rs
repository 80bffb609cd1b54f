//! The driver against real sockets of 127.0.0.1.
//!
//! Both drivers promise the same, so this one passes the tests of the other, word for word: in this test it bears its name.

extern crate meshward_glommio as meshward_tokio;

#[path = "../../../bind-tokio/tests/sockets/alone.rs"]
mod alone;
#[path = "../../../bind-tokio/tests/sockets/common.rs"]
mod common;
#[path = "../../../bind-tokio/tests/sockets/forward.rs"]
mod forward;
#[path = "../../../bind-tokio/tests/sockets/script.rs"]
mod script;
