//! What a command says. Whoever read it may be gone, which is no reason to stop carrying traffic: `println!` would panic.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::OnceLock;

/// The first line that stdout did not take, unless nobody read it any more.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// A line on stdout. That it could not be written is kept for [`lost`].
pub(crate) fn out(text: impl Display) {
    if let Err(e) = writeln!(anstream::stdout(), "{text}")
        && e.kind() != io::ErrorKind::BrokenPipe
    {
        LOST.get_or_init(|| e);
    }
}

/// Why something of what [`out`] was given did not get through; a reader that left early has enough, and is no reason.
pub(crate) fn lost() -> Option<&'static io::Error> {
    LOST.get()
}

/// A line on stderr.
pub(crate) fn err(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}
