//! What reading a file says about it.

use std::fmt;

use super::meta::Origin;

/// One remark about one place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub origin: Origin,
    pub severity: Severity,
    pub cause: Cause,
    /// One lower-case clause; what the file says stands in backticks.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A file with one `Error` is not used at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Warning,
    Error,
}

/// Who is to act on a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The author: Istio would refuse it too (S-170 to S-178).
    Invalid,
    /// The author: accepted, but it hardly does what was meant (S-179), or it is skipped.
    Doubtful,
    /// This project: no rules to judge this kind of resource by.
    NotJudged,
    /// This project: valid, but nothing here would act on it.
    NotEnforced,
}

impl Finding {
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// `file:line:column: message`, and the hint on a line of its own.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}
