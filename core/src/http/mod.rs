//! HTTP as events: converters between bytes and messages, and the words that both sides share.
//!
//! [`head`] and [`event`] are one vocabulary for every version of HTTP; [`h1`] reads and writes HTTP/1.1; [`reply`] is an
//! answer of our own, [`forwarded`] tells clients from proxies. Nothing here knows time, links or policy.

pub mod event;
pub mod forwarded;
pub mod h1;
pub mod head;
pub mod reply;
