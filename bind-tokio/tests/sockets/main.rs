//! The driver against real sockets of 127.0.0.1.

mod alone;
mod common;
mod forward;
mod script;
