//! The apps of a mesh's pods: built in, a command, or a server that listens already.
//!
//! An app that dies is reported and started again, each time later, as a kubelet does it. One that never answers or is not
//! there at all is a normal state of a mesh: its sidecar says so to whoever asks (S-66).

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use meshward_core::accept::PortKind;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

mod annotations;
mod builtin;
mod call;
mod command;
mod routes;

pub(crate) use routes::Routes;

/// Before an app that died is started again; doubled for each death in a row.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// One that ran so long had started well.
const RAN_WELL: Duration = Duration::from_secs(10);

/// What a pod's annotations say of its app.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AppKind {
    /// Shows what it is asked (HTTP), or sends back what it gets (TCP).
    Echo,
    /// Answers by path, and asks others before.
    Routes(Arc<Routes>),
    /// For `sh -c`.
    Command(String),
    /// A server that somebody else runs.
    Upstream(SocketAddr),
    /// Nobody listens.
    None,
}

/// One port of an app.
#[derive(Clone, Debug)]
pub(crate) struct AppPort {
    /// As the pod declares it.
    pub(crate) workload: u16,
    pub(crate) kind: PortKind,
    /// Where the app is to listen: beside a sidecar some port of 127.0.0.1, without one the pod's own address.
    pub(crate) listen: SocketAddr,
}

/// Where an app runs.
#[derive(Clone, Debug)]
pub(crate) struct AppPlace {
    /// `namespace/pod`, for reports.
    pub(crate) pod: String,
    /// In the pod's order. PORT is the first.
    pub(crate) ports: Vec<AppPort>,
    /// The pod's entry for its app.
    pub(crate) proxy: SocketAddr,
    /// Gets what a command prints.
    pub(crate) log: PathBuf,
    /// Where a command runs.
    pub(crate) dir: PathBuf,
    /// What a command has in its environment beside the process's own and HOST, PORT and the proxy variables.
    pub(crate) environment: Vec<(OsString, OsString)>,
}

/// An app that runs, or is about to run again.
///
/// Dropping it asks the app to end and does not wait; if the runtime ends first, the app is killed.
#[derive(Debug)]
pub(crate) struct AppHandle {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl AppHandle {
    /// Ends the app and waits until nothing of it is left: a command has some seconds to heed SIGTERM.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        // Fails only if the task panicked, and then nothing runs any more.
        let _ = self.task.await;
    }
}

/// Told once for each end of an app that nobody asked to end.
#[derive(Debug)]
pub(crate) struct Death {
    /// `namespace/pod`.
    pub(crate) pod: String,
    pub(crate) how: Ended,
    /// From now.
    pub(crate) next_try: Duration,
    /// Where its last words stand, if it had any.
    pub(crate) log: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) enum Ended {
    /// A process ended, even well: an app serves until it is stopped.
    Process(ExitStatus),
    /// It could not be started.
    NotStarted(String),
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pod, how, next_try, ..
        } = self;
        match how {
            Ended::Process(status) => write!(f, "app of {pod} ended ({status})")?,
            Ended::NotStarted(why) => write!(f, "app of {pod} does not start ({why})")?,
        }
        write!(f, ", next try in {next_try:?}")?;
        match &self.log {
            Some(log) => write!(f, "\n  hint: it writes to {}", log.display()),
            None => Ok(()),
        }
    }
}

/// Starts an app in the runtime of the caller.
pub(crate) fn start(
    kind: AppKind,
    place: AppPlace,
    deaths: mpsc::UnboundedSender<Death>,
) -> AppHandle {
    let (stop, stopped) = oneshot::channel();
    AppHandle {
        stop,
        task: tokio::spawn(supervise(kind, place, deaths, stopped)),
    }
}

/// As many free ports of `ip`, no two alike. Nobody holds them: a server that is started at once finds its own free, as good
/// as certainly, because the kernel gives away ports of its range at random.
pub(crate) fn free_ports(ip: IpAddr, count: usize) -> io::Result<Vec<SocketAddr>> {
    // All of them held until the last is found.
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((ip, 0)))
        .collect::<io::Result<_>>()?;
    held.iter().map(TcpListener::local_addr).collect()
}

async fn supervise(
    kind: AppKind,
    place: AppPlace,
    deaths: mpsc::UnboundedSender<Death>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut back_off = BACK_OFF_MIN;
    loop {
        let began = Instant::now();
        let ended = match &kind {
            AppKind::Command(text) => command::run(text, &place, &mut stopped).await,
            AppKind::Echo => until(&mut stopped, builtin::serve(None, &place)).await,
            AppKind::Routes(routes) => {
                until(&mut stopped, builtin::serve(Some(routes), &place)).await
            }
            AppKind::Upstream(_) | AppKind::None => {
                let _ = (&mut stopped).await;
                return;
            }
        };
        let Some(how) = ended else { return };
        if began.elapsed() >= RAN_WELL {
            back_off = BACK_OFF_MIN;
        }
        let log = matches!(kind, AppKind::Command(_)).then(|| place.log.clone());
        // Fails only if nobody listens any more.
        let _ = deaths.send(Death {
            pod: place.pod.clone(),
            how,
            next_try: back_off,
            log,
        });
        if until(&mut stopped, sleep(back_off)).await.is_none() {
            return;
        }
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}

/// What `work` comes to; `None` if it is to stop before.
async fn until<T>(stopped: &mut oneshot::Receiver<()>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        _ = stopped => None,
    }
}

#[cfg(test)]
mod tests;
