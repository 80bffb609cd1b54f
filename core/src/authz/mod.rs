//! Who may do what: authorization policies, compiled and evaluated (S-110 to S-163).
//!
//! [`compile`](compile::compile) turns the policies of one workload into [`RuleSets`], once per layer; [`evaluate()`]
//! answers one request or connection. Both are pure: no links, no clock, no TLS. There is one evaluator; who wants to know
//! why gives it a [`Listener`], and [`explain`] is the one that remembers everything.
//!
//! Rules are found by what they demand (identity, path, host, port, method), so that a request pays for the rules that
//! could match it and not for the ones that exist. What cannot be compiled closes: an ALLOW rule matches nothing, any
//! other rule is applied without the field, and a [`Finding`] says so.

pub mod attributes;
pub mod compile;
mod condition;
pub mod evaluate;
pub mod explanation;
mod header;
pub mod id;
mod index;
pub mod listener;
pub mod matcher;
pub mod pattern;
mod rule;
mod sets;
pub mod template;
#[cfg(test)]
mod test_policies;
pub mod trust_domain;

pub use attributes::{Attributes, HttpAttributes};
pub use compile::{Finding, Layer, RuleSets};
pub use evaluate::{Decision, evaluate, explain};
pub use explanation::Explanation;
pub use id::PolicyId;
pub use listener::Listener;
