//! What a sidecar says. Whoever read it may be gone, which is no reason to stop carrying traffic: `println!` would panic.

use std::fmt::Display;
use std::io::Write;

/// A line on stdout.
pub(crate) fn out(text: impl Display) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// A line on stderr.
pub(crate) fn err(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}
