//! What a running mesh consists of.

pub(crate) mod folder;
pub(crate) mod protocol;
mod server;
mod shards;
