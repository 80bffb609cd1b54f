//! What the machine offers: what drives sockets, how many files may be open, what time it is.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::time::SystemTime;

use clap::ValueEnum;
use meshward_core::clock::UnixTime;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::exit::Failure;
use crate::{files, say};

/// What the user wants to drive the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    Auto,
    Tokio,
    Uring,
}

/// What drives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chosen {
    Tokio,
    Uring,
}

impl Chosen {
    /// As `--runtime` takes it.
    pub(crate) fn argument(self) -> &'static str {
        match self {
            Self::Tokio => "tokio",
            Self::Uring => "uring",
        }
    }
}

/// Says on stderr if `Auto` had to be tokio.
pub(crate) fn choose(wanted: Runtime) -> Result<Chosen, Failure> {
    match (wanted, meshward_glommio::available()) {
        (Runtime::Tokio, _) => Ok(Chosen::Tokio),
        (Runtime::Uring | Runtime::Auto, Ok(())) => Ok(Chosen::Uring),
        (Runtime::Uring, Err(why)) => Err(Failure::Machine(format!(
            "io_uring cannot be used: {why}\n  hint: --runtime tokio, or --runtime auto"
        ))),
        (Runtime::Auto, Err(why)) => {
            say::err(format_args!(
                "io_uring cannot be used ({why}); running on tokio"
            ));
            Ok(Chosen::Tokio)
        }
    }
}

/// The soft limit of open files becomes the hard one: a sidecar has two for each connection.
pub(crate) fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(e) = setrlimit(Resource::Nofile, limit) {
            say::err(format_args!("the limit of open files stays as it is: {e}"));
        }
    }
}

/// Fails if fewer than `needed` files may be open, after [`raise_open_files`].
pub(crate) fn need_open_files(needed: u64, for_what: &str) -> Result<(), Failure> {
    match getrlimit(Resource::Nofile).current {
        Some(allowed) if allowed < needed => Err(Failure::Machine(format!(
            "{for_what} need {needed} open files, {allowed} are allowed\n  hint: raise the hard limit (`ulimit -Hn {needed}` as root, LimitNOFILE= of a service), or start fewer"
        ))),
        _ => Ok(()),
    }
}

/// Why nobody can listen on `address`, and what to do about it. `whose`: what it is for, as in "listener `app`"; `in_use`:
/// what to do if somebody listens there.
pub(crate) fn cannot_listen(
    whose: &str,
    address: SocketAddr,
    error: &io::Error,
    in_use: &str,
) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => in_use,
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one"
        }
        io::ErrorKind::AddrNotAvailable => "the machine has no such address",
        _ => "choose another address",
    };
    format!(
        "{whose} cannot listen on {address}: {}\n  hint: {hint}",
        files::words(error)
    )
}

/// Whether SIGHUP is ignored, as it is under nohup.
pub(crate) fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored(&status) & 1 != 0
}

/// The signals that a process ignores, the first one in the lowest bit (proc_pid_status(5)).
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

pub(crate) fn now() -> UnixTime {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    UnixTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
