//! What a running mesh consists of.

mod apps;
mod entry;
mod relay;
