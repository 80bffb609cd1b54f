//! A shard: a thread of its own for one driver.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::mpsc;
use std::thread;

use meshward_core::machine::Machine;
use meshward_core::proxy::{Action, Input};

use crate::driver::{Driver, Stats};
use crate::remote::{Command, Remote};
use crate::sys;

/// A shard that runs.
pub struct ShardHandle<M> {
    remote: Remote<M>,
    thread: thread::JoinHandle<Stats>,
}

/// Starts a thread called `name`, on `core` alone if one is given, that runs the driver which `setup` makes.
///
/// `setup` runs on the new thread, within its runtime, so machines and sinks need not be `Send`. Returns when it is done, with
/// its error if it failed.
pub fn spawn_shard<M, F>(
    name: impl Into<String>,
    core: Option<usize>,
    setup: F,
) -> io::Result<ShardHandle<M>>
where
    M: Machine<Input = Input, Action = Action> + 'static,
    F: FnOnce() -> io::Result<Driver<M>> + Send + 'static,
{
    let (started, start) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name(name.into()).spawn(move || {
        let begun = begin(core).and_then(|runtime| {
            let driver = runtime.block_on(async { setup() })?;
            Ok((runtime, driver))
        });
        // INVARIANT: the spawner waits for exactly one message, so sending cannot fail while it lives.
        match begun {
            Ok((runtime, mut driver)) => {
                let _ = started.send(Ok(driver.remote()));
                runtime.block_on(driver.run());
                driver.stats()
            }
            Err(e) => {
                let _ = started.send(Err(e));
                Stats::default()
            }
        }
    })?;
    match start.recv() {
        Ok(Ok(remote)) => Ok(ShardHandle { remote, thread }),
        Ok(Err(e)) => Err(e),
        Err(mpsc::RecvError) => Err(panic_of(thread.join().err())),
    }
}

fn begin(core: Option<usize>) -> io::Result<tokio::runtime::Runtime> {
    if let Some(core) = core {
        sys::pin_to_core(core)?;
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

impl<M> ShardHandle<M> {
    /// `false`: the shard has ended and the command was dropped.
    pub fn send(&self, command: Command<M>) -> bool {
        self.remote.send(command)
    }

    /// A sender of commands that outlives this handle.
    pub fn remote(&self) -> Remote<M> {
        self.remote.clone()
    }

    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the shard ends: after [`Command::Stop`], or after [`Command::Drain`] when no link is left. Fails with the
    /// words of the panic if it panicked.
    pub fn join(self) -> io::Result<Stats> {
        self.thread.join().map_err(|panic| panic_of(Some(panic)))
    }
}

impl<M> fmt::Debug for ShardHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardHandle")
            .field("thread", &self.thread.thread().name())
            .finish_non_exhaustive()
    }
}

fn panic_of(panic: Option<Box<dyn Any + Send>>) -> io::Error {
    let words = panic.as_ref().and_then(|p| {
        p.downcast_ref::<&str>()
            .copied()
            .or_else(|| p.downcast_ref::<String>().map(String::as_str))
    });
    io::Error::other(format!("shard panicked: {}", words.unwrap_or("no message")))
}
