//! The authorization engine beside others: the same rules and the same calls, each in the words of its engine.
//!
//! `cargo run --release -p meshward-benches --bin engine` prints what a decision costs; `benches/unheard` counts what a
//! listener costs that hears nothing.

pub mod cases;
pub mod cedar;
pub mod mesh;
pub mod rego;

/// An engine with its rules and calls, everything prepared that can be prepared once.
pub trait Decider {
    fn name(&self) -> &'static str;

    /// Whether the call at this position is allowed.
    fn decide(&mut self, call: usize) -> bool;
}
