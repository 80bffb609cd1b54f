//! Hearing how an authentication comes about, and remembering it.

use std::fmt;

use super::locate::Place;
use super::status::Status;
use crate::api::meta::Origin;

/// Hears an authentication, in its order: rule, tokens, outcome, end. Never hears a token.
///
/// `()` hears nothing and costs nothing.
pub trait Listener {
    /// This rule is asked now. `issuer` may be empty (S-222).
    fn rule(&mut self, _issuer: &str, _origin: &Origin) {}

    /// A token was found in a place of the rule that was asked last, and verified or not.
    fn token(&mut self, _place: Place<'_>, _verified: Result<(), Status>) {}

    /// What the rule that was asked last came to; `Status::Missing`: there is no token in its places.
    fn outcome(&mut self, _verified: Result<(), Status>) {}

    /// No rule is asked any more.
    fn ended(&mut self, _end: End) {}
}

impl Listener for () {}

/// What ends an authentication (S-212).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// There are no rules: tokens are not looked at (S-210).
    #[default]
    NoRules,
    /// A question of a browser, which brings no token (S-227).
    Preflight,
    /// No rule found a token (S-211).
    NoToken,
    /// The tokens of the rule that was asked last were verified.
    Verified,
    Refused(Status),
}

/// An authentication, remembered. `Display` writes it as an indented tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// In the order in which they were asked.
    pub rules: Vec<RuleTrace>,
    pub end: End,
}

/// One rule and what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleTrace {
    pub issuer: String,
    pub origin: Origin,
    /// In the order in which they were looked at, from the back (S-214).
    pub tokens: Vec<TokenTrace>,
    /// `Status::Missing`: there is no token in its places.
    pub outcome: Result<(), Status>,
}

/// A token that was found, without the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenTrace {
    /// As it is printed: `header` and its name in backticks.
    pub place: String,
    pub verified: Result<(), Status>,
}

impl Listener for Explanation {
    fn rule(&mut self, issuer: &str, origin: &Origin) {
        self.rules.push(RuleTrace {
            issuer: issuer.to_owned(),
            origin: origin.clone(),
            tokens: Vec::new(),
            outcome: Err(Status::Missing),
        });
    }

    fn token(&mut self, place: Place<'_>, verified: Result<(), Status>) {
        if let Some(rule) = self.rules.last_mut() {
            rule.tokens.push(TokenTrace {
                place: place.to_string(),
                verified,
            });
        }
    }

    fn outcome(&mut self, verified: Result<(), Status>) {
        if let Some(rule) = self.rules.last_mut() {
            rule.outcome = verified;
        }
    }

    fn ended(&mut self, end: End) {
        self.end = end;
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRules => f.write_str("no RequestAuthentication is in force"),
            Self::Preflight => f.write_str("a preflight is not asked for a token"),
            Self::NoToken => f.write_str("no token, no request identity"),
            Self::Verified => f.write_str("a token was verified"),
            Self::Refused(status) => write!(f, "refused: {status}"),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.end)?;
        for rule in &self.rules {
            let words = words(rule.outcome);
            writeln!(f, "issuer `{}`: {words} ({})", rule.issuer, rule.origin)?;
            for token in &rule.tokens {
                writeln!(f, "  {}: {}", token.place, self::words(token.verified))?;
            }
        }
        Ok(())
    }
}

fn words(verified: Result<(), Status>) -> &'static str {
    match verified {
        Ok(()) => "verified",
        Err(status) => status.text(),
    }
}
