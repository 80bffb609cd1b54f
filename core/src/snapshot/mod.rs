//! What one workload has to know, typed and compiled.

/// placeholder
#[derive(Debug)]
pub struct Snapshot;
