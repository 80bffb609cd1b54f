//! How other threads reach a driver.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use meshward_core::link::Entry;
use meshward_core::proxy::Input;

use crate::driver::{Driver, ProxyId};
use crate::listen::Destination;
use crate::wake::Ready;

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
    pub(crate) ready: Arc<Ready>,
}

impl<M> Clone for Remote<M> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            ready: Arc::clone(&self.ready),
        }
    }
}

impl<M> Remote<M> {
    /// `false`: the driver is gone and the command was dropped.
    pub fn send(&self, command: Command<M>) -> bool {
        let sent = self.commands.send(command).is_ok();
        self.ready.wake();
        sent
    }

    /// Makes the driver look at what it follows.
    pub fn wake(&self) {
        self.ready.wake();
    }
}

impl<M> fmt::Debug for Remote<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}
