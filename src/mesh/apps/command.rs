//! An app that is a command of the user's: a process group of its own, which does not outlive the mesh.
//!
//! The group is led by a watcher, a shell that waits for the end of a pipe whose other end we hold. While it is there the
//! group's number belongs to nobody else, so that signals never reach a stranger; and if we die in whatever way, the kernel
//! closes the pipe and the watcher ends the group. `PR_SET_PDEATHSIG` would reach the command's shell alone, not what it
//! started, and needs code between `fork` and `exec`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::output::Output;
use super::{AppPlace, Ended};
use crate::files::words;
use crate::mesh::entry;

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(3);
/// For what was killed to be gone, its ports with it.
const KILLED_MAX: Duration = Duration::from_secs(1);
/// How often a group that is to end is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// `read` ends with the pipe. What it then sends reaches itself too.
const WATCHER: &str = "trap '' TERM INT HUP; read -r _; kill -TERM 0; sleep 3; kill -KILL 0";

/// Runs the command to its end, or until `stopped`, then `None`. What it left behind in its group is killed in either case.
pub(super) async fn run(
    text: &str,
    place: &AppPlace,
    stopped: &mut oneshot::Receiver<()>,
) -> Option<Ended> {
    let no_log = |e: io::Error| format!("{}: {}", place.log.display(), words(&e));
    let begun = Output::begin(&place.log).map_err(no_log);
    let (output, writer) = match begun {
        Ok(begun) => begun,
        Err(e) => return Some(Ended::NotStarted(e)),
    };
    let mut group = match Group::start(text, place, writer) {
        Ok(group) => group,
        Err(e) => return Some(Ended::NotStarted(e)),
    };
    let ended = match super::until(stopped, group.ended()).await {
        Some(Ok(status)) => Some(Ended::Process(status)),
        Some(Err(e)) => Some(Ended::NotStarted(words(&e))),
        None => {
            group.end().await;
            None
        }
    };
    output.end().await;
    ended
}

/// What a command has in its environment beside our own, and what it has not (`None`): our own may be that of a workload of
/// another mesh, or of an app.
pub(super) fn environment(place: &AppPlace) -> BTreeMap<OsString, Option<OsString>> {
    let unset = ["HOST", "PORT", "MESHWARD_CERTS"].map(|name| (name.into(), None));
    let mut environment = BTreeMap::from(unset);
    for (name, value) in entry::environment(place.proxy) {
        environment.insert(name.into(), value.map(OsString::from));
    }
    let mut set = |name: OsString, value: OsString| environment.insert(name, Some(value));
    if let Some(first) = place.ports.first() {
        set("HOST".into(), first.listen.ip().to_string().into());
        set("PORT".into(), first.listen.port().to_string().into());
    }
    for port in &place.ports {
        let name = format!("PORT_{}", port.workload);
        set(name.into(), port.listen.port().to_string().into());
    }
    for (name, value) in &place.environment {
        set(name.clone(), value.clone());
    }
    environment
}

/// A running command. Dropped, it is killed.
struct Group {
    // Reaped after the last signal and no earlier: until then the numbers stay theirs.
    watcher: Child,
    shell: Child,
    /// Readable as soon as the shell has ended.
    over: AsyncFd<OwnedFd>,
    id: Pid,
}

impl Group {
    /// What the command writes goes to `output`.
    fn start(text: &str, place: &AppPlace, output: PipeWriter) -> Result<Self, String> {
        let again = output
            .try_clone()
            .map_err(|e| format!("a pipe: {}", words(&e)))?;
        let no_shell = |e: io::Error| format!("sh: {}", words(&e));
        let mut watcher = Command::new("sh")
            .args(["-c", WATCHER])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(no_shell)?;
        let started = Self::command(text, place, watcher.id())
            .and_then(|mut command| command.stdout(output).stderr(again).spawn())
            .map_err(no_shell);
        let shell = match started {
            Ok(shell) => shell,
            Err(e) => {
                let _ = watcher.kill();
                let _ = watcher.wait();
                return Err(e);
            }
        };
        let over = pid(&shell)
            .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::NONBLOCK)?))
            .and_then(watch);
        match (over, pid(&watcher)) {
            (Ok(over), Ok(id)) => Ok(Self {
                watcher,
                shell,
                over,
                id,
            }),
            (Err(e), _) | (_, Err(e)) => {
                for mut child in [shell, watcher] {
                    let _ = child.kill();
                    let _ = child.wait();
                }
                Err(format!("the process cannot be watched: {}", words(&e)))
            }
        }
    }

    fn command(text: &str, place: &AppPlace, group: u32) -> io::Result<Command> {
        let group = i32::try_from(group).map_err(io::Error::other)?;
        let mut command = Command::new("sh");
        command
            .args(["-c", text])
            .stdin(Stdio::null())
            .current_dir(&place.dir)
            .process_group(group);
        for (name, value) in environment(place) {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Ok(command)
    }

    /// How the shell ended; whatever it left is killed.
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        let _ = self.over.readable().await?;
        self.kill_all().await;
        self.shell.wait()
    }

    /// SIGTERM, some time to heed it, SIGKILL.
    async fn end(self) {
        self.kill(Signal::TERM);
        self.fades(GRACE).await;
        self.kill_all().await;
    }

    /// SIGKILL, and the moment that it takes.
    async fn kill_all(&self) {
        self.kill(Signal::KILL);
        self.fades(KILLED_MAX).await;
    }

    /// Waits until nobody is alive, at most so long.
    async fn fades(&self, at_most: Duration) {
        let end = Instant::now() + at_most;
        while Instant::now() < end && self.is_alive() {
            sleep(LOOK).await;
        }
    }

    /// Whether anybody but the watcher is in the group and not yet a zombie. Where that cannot be told, the shell counts.
    fn is_alive(&self) -> bool {
        let group = self.id.as_raw_nonzero().to_string();
        let watcher = self.watcher.id().to_string();
        let Ok(processes) = fs::read_dir("/proc") else {
            return true;
        };
        processes.flatten().any(|entry| {
            let name = entry.file_name();
            let number = name
                .to_str()
                .is_some_and(|n| n.as_bytes().iter().all(u8::is_ascii_digit));
            if !number || name == *watcher {
                return false;
            }
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // proc_pid_stat(5): `pid (comm) state ppid pgrp …`, where comm may hold anything.
            let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
            let mut fields = fields.unwrap_or_default().split(' ');
            let (state, pgrp) = (fields.next(), fields.nth(1));
            pgrp == Some(group.as_str()) && !matches!(state, Some("Z" | "X"))
        })
    }

    fn kill(&self, signal: Signal) {
        // The watcher, alive or not yet reaped, keeps the number.
        let _ = kill_process_group(self.id, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill(Signal::KILL);
        let _ = self.shell.wait();
        let _ = self.watcher.wait();
    }
}

fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and the same descriptor until it is dropped, which is with the `AsyncFd`: nothing takes
    // it out or puts another in its place.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(watched?)
}

fn pid(child: &Child) -> io::Result<Pid> {
    let raw = i32::try_from(child.id()).map_err(io::Error::other)?;
    Pid::from_raw(raw).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
