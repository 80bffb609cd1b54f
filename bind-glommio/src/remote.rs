//! How other threads reach a driver.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use meshward_core::link::Entry;
use meshward_core::proxy::Input;

use crate::driver::{Driver, ProxyId};
use crate::listen::Destination;

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
    /// What [`Driver::adopt`] does.
    Adopt {
        proxy: ProxyId,
        stream: std::net::TcpStream,
        entry: Entry,
        peer: SocketAddr,
        original_dst: SocketAddr,
    },
    /// Accepts what already waits at the doors of one proxy, then closes them.
    CloseListeners(ProxyId),
    /// What [`Driver::remove`] does.
    Remove { proxy: ProxyId, grace: Duration },
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
            Self::Adopt { .. } => "Adopt",
            Self::CloseListeners(_) => "CloseListeners",
            Self::Remove { .. } => "Remove",
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

    /// Makes the driver look at what it follows.
    pub fn wake(&self) {
        self.bell.ring();
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
    /// Missing until the driver runs.
    ends: OnceLock<Ends>,
}

#[derive(Debug)]
struct Ends {
    ring: UnixStream,
    hear: UnixStream,
}

impl Bell {
    /// Says that there is a command. Call it after the command was sent.
    pub(crate) fn ring(&self) {
        // `AcqRel` here and in `look`: either the driver's look comes after this and sees the command, or this comes after the
        // look and so after `open`, and sees the ends.
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Some(ends) = self.ends.get()
        {
            // It fails if it would wait, which is when the driver has not heard thousands of bytes before this one.
            let _ = (&ends.ring).write(&[0]);
        }
    }

    /// The socket to receive from, for as long as this lives. [`look`](Self::look) after this.
    pub(crate) fn open(&self) -> io::Result<RawFd> {
        if let Some(ends) = self.ends.get() {
            return Ok(ends.hear.as_raw_fd());
        }
        let (ring, hear) = UnixStream::pair()?;
        ring.set_nonblocking(true)?;
        let ends = self.ends.get_or_init(|| Ends { ring, hear });
        Ok(ends.hear.as_raw_fd())
    }

    /// From here on a ring is heard again. Look for commands after this.
    pub(crate) fn look(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }
}
