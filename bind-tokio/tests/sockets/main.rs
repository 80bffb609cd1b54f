//! The driver against real sockets of 127.0.0.1.

mod common;
mod forward;
