//! What one workload has to know, typed and compiled.

pub mod mtls;
pub mod select;

/// placeholder
#[derive(Debug)]
pub struct Snapshot;
