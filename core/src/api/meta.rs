//! What all resources share: where they stand in a file, their names, their selectors.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A place in a file. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    pub file: Arc<str>,
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// `metadata` of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub name: String,
    pub namespace: String,
    /// Seconds since 1970 of `creationTimestamp`; 0 if absent (S-7).
    pub created: u64,
    pub annotations: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub origin: Origin,
}

/// `selector.matchLabels`: every label must be there with this value (S-2).
pub type Labels = BTreeMap<String, String>;
