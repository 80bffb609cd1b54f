//! What a running mesh consists of.

mod apps;
mod certificates;
mod change;
mod describe;
mod digest;
mod directory;
mod edge;
mod edit;
pub(crate) mod entry;
pub(crate) mod folder;
pub(crate) mod identities;
mod inspect;
mod listening;
mod pods;
pub(crate) mod protocol;
mod query;
mod relay;
pub(crate) mod resources;
mod rollout;
pub(crate) mod running;
pub(crate) mod selector;
mod server;
mod shards;
mod sources;
mod state;
pub(crate) mod table;
pub(crate) mod yaml;
