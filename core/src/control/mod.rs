//! The control side of a mesh: from the objects that describe it to what each of its proxies decides by.
//!
//! [`store`] holds the objects, [`mesh`] is what they come to, [`distribute`] compiles that for one proxy at a time, and
//! [`plane`] keeps the three together, so that a change is taken whole or not at all; [`ca`] signs for whoever proved who it
//! is. Pure and deterministic: knows no link and no clock; whoever carries its words does.

pub mod addresses;
pub mod ca;
pub mod distribute;
pub mod inject;
pub mod mesh;
pub mod names;
pub mod plane;
pub mod store;

#[cfg(test)]
mod testing;

use crate::api::finding::{Cause, Finding, Severity};
use crate::api::meta::Origin;

/// The author has to change something before anything is taken.
fn refusal(origin: &Origin, message: String, hint: impl Into<String>) -> Finding {
    Finding {
        origin: origin.clone(),
        severity: Severity::Error,
        cause: Cause::Invalid,
        message,
        hint: Some(hint.into()),
    }
}

/// Taken, but it hardly does what was meant.
fn doubt(origin: &Origin, message: String, hint: impl Into<String>) -> Finding {
    Finding {
        severity: Severity::Warning,
        cause: Cause::Doubtful,
        ..refusal(origin, message, hint)
    }
}
