//! How other threads reach a driver.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use meshward_core::link::Entry;
use meshward_core::proxy::Input;

use crate::driver::{Driver, ProxyId};
use crate::listen::Destination;
use crate::ring;

/// What another thread may ask of a driver.
#[expect(
    clippy::type_complexity,
    reason = "the closure's type is its documentation"
)]
pub enum Command<M> {
    /// Tells one machine something: a snapshot, an identity.
    Input(ProxyId, Input),
    /// What [`Driver::listen`] does.
    Listen {
        proxy: ProxyId,
        listener: std::net::TcpListener,
        entry: Entry,
        destination: Destination,
    },
    /// Accepts what already waits at the doors of one proxy, then closes them.
    CloseListeners(ProxyId),
    /// Closes all doors, drains all machines, and ends the driver when no link is left.
    Drain { grace: Duration },
    /// Ends the driver now; links are closed as they are.
    Stop,
    /// Anything else, between two turns.
    Run(Box<dyn FnOnce(&mut Driver<M>) + Send>),
}

impl<M> fmt::Debug for Command<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input(..) => "Input",
            Self::Listen { .. } => "Listen",
            Self::CloseListeners(_) => "CloseListeners",
            Self::Drain { .. } => "Drain",
            Self::Stop => "Stop",
            Self::Run(_) => "Run",
        })
    }
}

/// Sends commands to a driver, from any thread.
pub struct Remote<M> {
    pub(crate) commands: mpsc::Sender<Command<M>>,
    pub(crate) bell: Arc<Bell>,
}

impl<M> Clone for Remote<M> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            bell: Arc::clone(&self.bell),
        }
    }
}

impl<M> Remote<M> {
    /// `false`: the driver is gone and the command was dropped.
    pub fn send(&self, command: Command<M>) -> bool {
        let sent = self.commands.send(command).is_ok();
        self.bell.ring();
        sent
    }
}

impl<M> fmt::Debug for Remote<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

/// Wakes a driver that waits in its ring.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// Somebody rang since the driver looked: no need to ring again.
    rung: AtomicBool,
    /// The event descriptor that the driver's ring watches; missing until the driver runs.
    fd: OnceLock<File>,
}

impl Bell {
    /// Says that there is a command. Call it after the command was sent.
    pub(crate) fn ring(&self) {
        // `AcqRel` here and in `look`: either the driver's look comes after this and sees the command, or this comes after the
        // look and so after `install`, and sees the descriptor.
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Some(mut fd) = self.fd.get()
        {
            // It cannot fail: only 2^64 - 2 unread rings would be too many.
            let _ = fd.write(&1u64.to_ne_bytes());
        }
    }

    /// The descriptor to watch. [`look`](Self::look) after this.
    pub(crate) fn install(&self) -> io::Result<RawFd> {
        if let Some(fd) = self.fd.get() {
            return Ok(fd.as_raw_fd());
        }
        let fd = File::from(ring::event_fd()?);
        Ok(self.fd.get_or_init(|| fd).as_raw_fd())
    }

    /// From here on a ring is heard again. Look for commands after this.
    pub(crate) fn look(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }
}
