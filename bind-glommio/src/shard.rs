//! A shard: a thread of its own for one executor with one driver.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::mpsc;
use std::thread;

use glommio::{BuilderErrorKind, GlommioError, LocalExecutor, LocalExecutorBuilder, Placement};
use meshward_core::machine::Machine;
use meshward_core::proxy::{Action, Input};

use crate::driver::{Driver, Stats};
use crate::limits::{IO_MEMORY, PREEMPT};
use crate::remote::{Command, Remote};

/// A shard that runs.
pub struct ShardHandle<M> {
    remote: Remote<M>,
    thread: thread::JoinHandle<io::Result<Stats>>,
}

/// Starts a thread called `name`, on `core` alone if one is given, that runs the driver which `setup` makes.
///
/// `setup` runs on the new thread, within its executor, so machines and sinks need not be `Send`. Returns when it is done, with
/// its error if it failed, or with what keeps io_uring from being used ([`available`](crate::available) says it in words).
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
        // INVARIANT: the spawner waits for exactly one message, so sending cannot fail while it lives.
        let executor = match executor(core) {
            Ok(executor) => executor,
            Err(e) => {
                let _ = started.send(Err(e));
                return Ok(Stats::default());
            }
        };
        executor.run(async {
            let begun = setup().and_then(|mut driver| {
                driver.open()?;
                Ok(driver)
            });
            match begun {
                Ok(mut driver) => {
                    let _ = started.send(Ok(driver.remote()));
                    driver.run().await?;
                    Ok(driver.stats())
                }
                Err(e) => {
                    let _ = started.send(Err(e));
                    Ok(Stats::default())
                }
            }
        })
    })?;
    match start.recv() {
        Ok(Ok(remote)) => Ok(ShardHandle { remote, thread }),
        Ok(Err(e)) => Err(e),
        Err(mpsc::RecvError) => Err(panic_of(thread.join().err())),
    }
}

fn executor(core: Option<usize>) -> io::Result<LocalExecutor> {
    let placement = core.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .io_memory(IO_MEMORY)
        .preempt_timer(PREEMPT)
        .make()
        .map_err(|e| match e {
            GlommioError::BuilderError(BuilderErrorKind::NonExistentCpus { cpu }) => {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("there is no core {cpu}"),
                )
            }
            e => e.into(),
        })
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
    /// words of the panic if it panicked, or with the error of its ring.
    pub fn join(self) -> io::Result<Stats> {
        self.thread.join().map_err(|panic| panic_of(Some(panic)))?
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
