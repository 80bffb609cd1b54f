//! The apps of a mesh's pods: built in, a command, or a server that listens already.
//!
//! An app that dies is reported and started again, each time later, as a kubelet does it. One that never answers or is not
//! there at all is a normal state of a mesh: its sidecar says so to whoever asks (S-66).

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use meshward_core::accept::PortKind;
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

mod annotations;
mod builtin;
mod call;
mod command;
mod output;
mod routes;

pub(crate) use routes::Routes;

/// Before an app that died is started again; doubled for each death in a row.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// One that ran so long had started well.
const RAN_WELL: Duration = Duration::from_secs(10);
/// The first port for apps, and how many there must be of them.
const PORT_FIRST: u16 = 22_000;
const PORTS_MIN: u16 = 1024;
/// The first port that Linux gives to those that ask for any, unless it is told otherwise.
const FIRST_GIVEN: u16 = 32_768;
/// Meshes of neighbouring processes begin so many ports apart.
const PORT_STEP: u32 = 509;

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
    health: Arc<Health>,
}

/// How an app fares.
#[derive(Debug, Default)]
struct Health {
    deaths: AtomicU32,
    is_down: AtomicBool,
}

impl AppHandle {
    /// How often it has ended although nobody asked it to.
    pub(crate) fn deaths(&self) -> u32 {
        self.health.deaths.load(Ordering::Relaxed)
    }

    /// It has ended and is not started again yet.
    pub(crate) fn is_down(&self) -> bool {
        self.health.is_down.load(Ordering::Relaxed)
    }

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
    let health = Arc::new(Health::default());
    let told = Arc::clone(&health);
    AppHandle {
        stop,
        task: tokio::spawn(supervise(kind, place, deaths, stopped, told)),
        health,
    }
}

/// As many free ports of `ip`, none of which this process was given lately.
///
/// Nobody holds them until an app does, so they come from below the range out of which the kernel serves those that ask for
/// any port: a connection that leaves in the meantime does not take one.
pub(crate) fn free_ports(ip: IpAddr, count: usize) -> io::Result<Vec<SocketAddr>> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let range = app_ports();
    let size = u32::from(range.end - range.start);
    // Meshes that are started at the same time begin at different places.
    let begin = std::process::id().wrapping_mul(PORT_STEP);
    let mut free = Vec::with_capacity(count);
    for _ in 0..size {
        if free.len() == count {
            return Ok(free);
        }
        let nth = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % size;
        let port = range.start + u16::try_from(nth).unwrap_or_default();
        let address = SocketAddr::new(ip, port);
        match is_free(address) {
            Ok(()) => free.push(address),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
            Err(e) => return Err(e),
        }
    }
    if free.len() == count {
        return Ok(free);
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Tries a port without listening there, which others could take for an app.
fn is_free(address: SocketAddr) -> io::Result<()> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

/// Ports for apps: as many as there may be, below those that the kernel gives out.
fn app_ports() -> Range<u16> {
    let first_given = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(FIRST_GIVEN);
    let end = if first_given > PORT_FIRST + PORTS_MIN {
        first_given
    } else {
        // There is no room below; any place is as good as another.
        FIRST_GIVEN
    };
    PORT_FIRST..end
}

async fn supervise(
    kind: AppKind,
    place: AppPlace,
    deaths: mpsc::UnboundedSender<Death>,
    mut stopped: oneshot::Receiver<()>,
    health: Arc<Health>,
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
        health.deaths.fetch_add(1, Ordering::Relaxed);
        health.is_down.store(true, Ordering::Relaxed);
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
        health.is_down.store(false, Ordering::Relaxed);
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
