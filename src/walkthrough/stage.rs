//! Where the commands of a walk-through run, and their processes.
//!
//! Each command has a process group of its own; whatever is in it is ended when its time is over. What `start` began
//! gets SIGTERM at the end, and SIGKILL if it does not heed it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::exit::Failure;

/// One command may take so long.
const STEP_MAX: Duration = Duration::from_secs(10);
/// Between SIGTERM and SIGKILL of what `start` began; a sidecar drains for 5 s.
const STOP_GRACE: Duration = Duration::from_secs(7);
/// How often a wait looks again.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes of output that are kept of one command.
const OUTPUT_MAX: usize = 1024 * 1024;
/// Lines that are shown of what runs beside, when something failed.
const LAST_LINES: usize = 20;

/// A copy of the folder, so that nothing of it changes, and what runs in it.
pub(super) struct Stage {
    dir: PathBuf,
    environment: BTreeMap<String, String>,
    beside: Vec<Beside>,
    /// Somebody pressed ^C, or wants this process to end.
    interrupted: Arc<AtomicBool>,
}

/// A command that runs beside the rest.
struct Beside {
    name: String,
    child: Child,
    log: PathBuf,
}

/// What a wait that takes longer tells whoever watches.
#[derive(Debug)]
pub(super) enum Waiting {
    Seconds(u64),
    Over,
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// stdout and stderr as they came, ending with a line feed if there is any.
    pub(super) output: String,
    /// 128 and the number, for a signal, as a shell says it.
    pub(super) exit: i32,
}

impl Stage {
    /// `more`: variables beside those that every command has.
    pub(super) fn set(
        from: &Path,
        runtime: &str,
        more: &[(&str, String)],
    ) -> Result<Self, Failure> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))
                .map_err(|e| Failure::Machine(format!("signals cannot be taken over: {e}")))?;
        }
        let own =
            std::env::current_exe().map_err(|e| Failure::Machine(format!("own path: {e}")))?;
        let own = own.parent().map(Path::to_path_buf).unwrap_or_default();
        let path = std::env::var("PATH").unwrap_or_default();
        let dir = private_folder()
            .map_err(|e| Failure::Machine(format!("no folder for the commands: {e}")))?;
        let mut environment = BTreeMap::from([
            ("PATH".to_owned(), format!("{}:{path}", own.display())),
            ("RUNTIME".to_owned(), runtime.to_owned()),
            ("LC_ALL".to_owned(), "C".to_owned()),
            ("TZ".to_owned(), "UTC".to_owned()),
            ("NO_COLOR".to_owned(), "1".to_owned()),
        ]);
        for (name, value) in more {
            environment.insert((*name).to_owned(), value.clone());
        }
        let stage = Self {
            dir,
            environment,
            beside: Vec::new(),
            interrupted,
        };
        copy(from, &stage.dir)
            .map_err(|e| Failure::Machine(format!("{}: cannot be copied: {e}", from.display())))?;
        Ok(stage)
    }

    /// Runs `command` to its end, which is when it has ended and nobody holds its output any more.
    pub(super) fn run(&mut self, command: &str, waiting: fn(Waiting)) -> Result<Outcome, Failure> {
        let failed = |e: io::Error| Failure::Machine(format!("sh cannot be run: {e}"));
        let (mut reader, writer) = io::pipe().map_err(failed)?;
        let mut shell = self.shell(command);
        shell.stdout(writer.try_clone().map_err(failed)?);
        shell.stderr(writer);
        let mut child = shell.spawn().map_err(failed)?;
        // The parent's ends of the pipe close with the command, so that the reader sees the end.
        drop(shell);
        let output = Arc::new(Mutex::new(Vec::new()));
        let gathered = Arc::clone(&output);
        let reading = thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut piece) {
                let mut output = gathered.lock().unwrap_or_else(PoisonError::into_inner);
                let room = OUTPUT_MAX.saturating_sub(output.len()).min(read);
                output.extend_from_slice(piece.get(..room).unwrap_or_default());
            }
        });
        let mut status = None;
        // Apart from `self`, so that `wait` may borrow both.
        let mut beside = std::mem::take(&mut self.beside);
        let waited = self.wait(waiting, || {
            // What ran beside and has ended is reaped at once, so that a command that waits for its end sees it.
            for beside in &mut beside {
                let _ = beside.child.try_wait();
            }
            status = status.or(child.try_wait().map_err(failed)?);
            Ok((status.is_some() && reading.is_finished()).then_some(()))
        });
        self.beside = beside;
        if !matches!(waited, Ok(Some(()))) {
            // Not reaped yet, or held by a process of its group that outlived it: the id is nobody else's.
            kill(&child, Signal::KILL);
            status = status.or_else(|| child.wait().ok());
        }
        let late = waited?.is_none();
        let output = output.lock().unwrap_or_else(PoisonError::into_inner);
        let mut output = String::from_utf8_lossy(&output).into_owned();
        if !output.is_empty() && !output.ends_with('\n') {
            output.push('\n');
        }
        if late {
            output.push_str(&format!("(ended after {} s)\n", STEP_MAX.as_secs()));
        }
        Ok(Outcome {
            output,
            exit: status.map_or(-1, code),
        })
    }

    pub(super) fn start(&mut self, name: &str, command: &str) -> Result<(), String> {
        let log = self.dir.join(format!("{name}.out"));
        let file = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let again = file.try_clone().map_err(|e| e.to_string())?;
        // A shell that becomes the command lends it its id.
        let simple = !command.contains(['=', ';', '&', '|', '(', '{']);
        let text = if simple {
            format!("exec {command}")
        } else {
            command.to_owned()
        };
        let child = self
            .shell(&text)
            .stdout(file)
            .stderr(again)
            .spawn()
            .map_err(|e| format!("sh cannot be run: {e}"))?;
        self.environment
            .insert(format!("{name}_pid"), child.id().to_string());
        self.beside.push(Beside {
            name: name.to_owned(),
            child,
            log,
        });
        Ok(())
    }

    /// Waits until what was last started as `name` has printed `text`; the inner error says why it never will.
    pub(super) fn wait_for(
        &mut self,
        name: &str,
        text: &str,
        waiting: fn(Waiting),
    ) -> Result<Result<(), String>, Failure> {
        let Some(at) = self.beside.iter().rposition(|b| b.name == name) else {
            return Ok(Err(format!("nothing was started as `{name}`")));
        };
        let mut beside = self.beside.remove(at);
        let waited = self.wait(waiting, || {
            // Asked before the output is read, so that the last words of a process are not missed.
            let over = beside.child.try_wait().ok().flatten();
            let printed = fs::read(&beside.log).unwrap_or_default();
            if String::from_utf8_lossy(&printed).contains(text) {
                return Ok(Some(Ok(())));
            }
            Ok(over.map(|status| Err(format!("`{name}` ended, exit {}", code(status)))))
        });
        self.beside.insert(at, beside);
        Ok(match waited? {
            Some(Ok(())) => Ok(()),
            Some(Err(how)) => Err(format!("{how}, and did not print `{text}`")),
            None => Err(format!(
                "`{name}` did not print `{text}` within {} s",
                STEP_MAX.as_secs()
            )),
        })
    }

    /// What runs beside and the last lines of what each printed.
    pub(super) fn printed(&self) -> Vec<(&str, String)> {
        let last = |beside: &Beside| {
            let printed = fs::read(&beside.log).unwrap_or_default();
            let printed = String::from_utf8_lossy(&printed);
            let lines: Vec<&str> = printed.lines().collect();
            let from = lines.len().saturating_sub(LAST_LINES);
            lines.get(from..).unwrap_or_default().join("\n")
        };
        self.beside
            .iter()
            .map(|beside| (beside.name.as_str(), last(beside)))
            .collect()
    }

    /// Asks `done` again and again; `None` if it has no answer in time. Each whole second is told to `waiting`.
    fn wait<T>(
        &self,
        waiting: fn(Waiting),
        mut done: impl FnMut() -> Result<Option<T>, Failure>,
    ) -> Result<Option<T>, Failure> {
        let began = Instant::now();
        let mut told = 0;
        let answer = loop {
            if let Some(answer) = done()? {
                break Ok(Some(answer));
            }
            if self.interrupted.load(Ordering::Relaxed) {
                break Err(Failure::Machine("interrupted".into()));
            }
            let elapsed = began.elapsed();
            if elapsed >= STEP_MAX {
                break Ok(None);
            }
            if elapsed.as_secs() > told {
                told = elapsed.as_secs();
                waiting(Waiting::Seconds(told));
            }
            thread::sleep(LOOK);
        };
        if told > 0 {
            waiting(Waiting::Over);
        }
        answer
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(command)
            .current_dir(&self.dir)
            .envs(&self.environment)
            .stdin(Stdio::null())
            .process_group(0);
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            shell.env_remove(name).env_remove(name.to_uppercase());
        }
        shell
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for beside in &mut self.beside {
            if matches!(beside.child.try_wait(), Ok(None)) {
                kill(&beside.child, Signal::TERM);
            }
        }
        let end = Instant::now() + STOP_GRACE;
        for beside in &mut self.beside {
            while Instant::now() < end && matches!(beside.child.try_wait(), Ok(None)) {
                thread::sleep(LOOK);
            }
            if matches!(beside.child.try_wait(), Ok(None)) {
                kill(&beside.child, Signal::KILL);
                let _ = beside.child.wait();
            }
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|s| 128 + s))
        .unwrap_or(-1)
}

/// Signals the process group of a child, which has the child's id.
fn kill(child: &Child, signal: Signal) {
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = id {
        // Fails only if nobody is left in it.
        let _ = kill_process_group(group, signal);
    }
}

/// A new folder that nobody else may enter: keys will lie in it.
fn private_folder() -> io::Result<PathBuf> {
    let mut attempt = 0;
    loop {
        let name = format!("meshward-walkthrough-{}-{attempt}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(dir),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && attempt < 100 => attempt += 1,
            Err(e) => return Err(e),
        }
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
