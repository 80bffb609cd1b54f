//! What a running mesh consists of.

mod apps;
pub(crate) mod entry;
pub(crate) mod folder;
pub(crate) mod protocol;
mod relay;
mod server;
mod shards;
