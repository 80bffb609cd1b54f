//! The one thread that carries the entries and apps of all pods.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What is left when the thread ends has so long to notice.
const LEAVE_MAX: Duration = Duration::from_millis(200);

pub(crate) struct Edge {
    handle: Handle,
    /// Dropping it ends the thread, and with it whatever runs there.
    _stop: oneshot::Sender<()>,
}

impl Edge {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name("edge".into()).spawn(move || {
            // Ends when `stop` is dropped, too.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_timeout(LEAVE_MAX);
        })?;
        Ok(Self {
            handle,
            _stop: stop,
        })
    }

    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.handle.spawn(task)
    }

    /// Runs `what` within the runtime, where sockets and tasks can be made.
    pub(crate) fn enter<T>(&self, what: impl FnOnce() -> T) -> T {
        let _within = self.handle.enter();
        what()
    }

    /// What `task` comes to, waited for on another thread; `None` if that takes longer than `patience`.
    pub(crate) fn wait<F>(&self, task: F, patience: Duration) -> Option<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (done, outcome) = mpsc::sync_channel(1);
        self.handle.spawn(async move {
            // Who waited may have lost patience.
            let _ = done.send(task.await);
        });
        outcome.recv_timeout(patience).ok()
    }
}
