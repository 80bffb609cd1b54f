//! What the driver does beyond the promises that both drivers share. Apart from those tests, because it loads the machine.

extern crate meshward_glommio as meshward_tokio;

#[path = "../../../bind-tokio/tests/sockets/common.rs"]
#[expect(dead_code, reason = "the shared tests use the rest")]
mod common;
mod quiet;
