//! Exit codes, as in sysexits.h, and the failures that lead to them.

use std::fmt;
use std::process::ExitCode;

/// EX_USAGE: the arguments make no sense.
pub(crate) const USAGE: u8 = 64;
/// EX_DATAERR: a file says something that cannot be used.
const DATA: u8 = 65;

/// Why a subcommand stops.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments (exit 64).
    Usage(String),
    /// What files say: a message for each finding (exit 65).
    Data(Vec<String>),
    /// What a mesh answers, in the words of kubectl (exit 1).
    Server(String),
    /// The machine: a port in use, no io_uring, a file that cannot be written (exit 1).
    Machine(String),
}

impl Failure {
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(USAGE),
            Self::Data(_) => ExitCode::from(DATA),
            Self::Machine(_) | Self::Server(_) => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Machine(message) => write!(f, "error: {message}"),
            Self::Server(message) => f.write_str(message),
            Self::Data(messages) => f.write_str(&messages.join("\n")),
        }
    }
}
