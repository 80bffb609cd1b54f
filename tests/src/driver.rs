//! What runs a scenario.

use crate::journal::News;
use crate::scenario::Command;

/// A world in which the commands of a scenario can happen.
pub trait Driver {
    /// `simulator`, `tokio`, `glommio`.
    fn name(&self) -> &'static str;

    /// Lets one command happen. An error is the scenario's fault or the world's, never an outcome.
    fn obey(&mut self, command: &Command) -> Result<(), String>;

    /// Waits until everything that is under way has happened, and tells what is new since the last call. With a real clock
    /// nobody knows when that is: the driver may return as soon as `enough` is content, and must after its patience.
    fn observe(&mut self, enough: &mut dyn FnMut(&News) -> bool) -> News;

    /// Ends everything and tells what is new, and what is left over although it should not be.
    fn end(&mut self) -> (News, Vec<String>);
}
