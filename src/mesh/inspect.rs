//! Looking at a mesh that runs: what becomes of a request in it.

use super::protocol::{Answer, Asked};
use super::state::State;
use crate::exit::Failure;
use crate::explain;

impl State {
    /// By the policies in force. The way out of a namespace is compiled once, so that asking costs proxies nothing.
    pub(super) fn explain(&mut self, asked: &Asked) -> Result<Answer, Failure> {
        let question = explain::question(asked)?;
        let (text, account) = explain::answer(&mut self.plane, &question)?;
        Ok(Answer::Explained { text, account })
    }
}
