//! What a running mesh consists of.

mod apps;
mod certificates;
mod describe;
mod digest;
mod directory;
mod edge;
pub(crate) mod entry;
pub(crate) mod folder;
pub(crate) mod identities;
mod inspect;
mod listening;
mod pods;
pub(crate) mod protocol;
mod relay;
pub(crate) mod running;
mod server;
mod shards;
mod state;
mod table;
