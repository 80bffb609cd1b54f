//! Access logs: records become lines on the thread that has them, and files are written by one thread for all.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use meshward_core::api::mesh_config::AccessLogEncoding;
use meshward_core::telemetry::{Record, accesslog};

use crate::say;

/// Lines are gathered for so long before they are written.
const GATHER: Duration = Duration::from_millis(50);
/// Bytes of lines that wait for a slow disk; beyond it lines are lost, and counted.
const WAITING_MAX: usize = 16 * 1024 * 1024;

/// Where records go, by listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    something: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Log>,
    by_listener: Vec<Option<usize>>,
    encoding: AccessLogEncoding,
    /// The writer was woken and has not looked yet.
    woken: bool,
    /// The writer has lines in its hands.
    writing: bool,
    closing: bool,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: Arc<File>,
    lines: Vec<u8>,
    lost: u64,
}

impl Logs {
    /// Opens every file, for appending. Several listeners may share one.
    pub(crate) fn open(
        paths: &[Option<PathBuf>],
        encoding: AccessLogEncoding,
    ) -> Result<Self, String> {
        let shared = Arc::new(Shared {
            state: Mutex::new(opened(paths, encoding)?),
            something: Condvar::new(),
            written: Condvar::new(),
        });
        let logs = Self {
            shared: Arc::clone(&shared),
        };
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || shared.write_for_ever())
            .map_err(|e| format!("the log's thread cannot start: {e}"))?;
        Ok(logs)
    }

    /// Opens the files anew, which is how logs are rotated; on failure everything stays.
    pub(crate) fn reopen(
        &self,
        paths: &[Option<PathBuf>],
        encoding: AccessLogEncoding,
    ) -> Result<(), String> {
        let new = opened(paths, encoding)?;
        let mut state = self.shared.flush();
        state.files = new.files;
        state.by_listener = new.by_listener;
        state.encoding = new.encoding;
        Ok(())
    }

    pub(crate) fn write(&self, record: &Record) {
        let mut state = self.shared.lock();
        let Some(at) = state
            .by_listener
            .get(record.listener as usize)
            .copied()
            .flatten()
        else {
            return;
        };
        let (woken, encoding) = (state.woken, state.encoding);
        let Some(log) = state.files.get_mut(at) else {
            return;
        };
        if log.lines.len() >= WAITING_MAX {
            log.lost += 1;
            return;
        }
        match encoding {
            AccessLogEncoding::Text => accesslog::format(record, &mut log.lines),
            AccessLogEncoding::Json => accesslog::format_json(record, &mut log.lines),
        }
        if !woken {
            state.woken = true;
            drop(state);
            self.shared.something.notify_one();
        }
    }

    /// Writes what waits, and returns when it is written.
    pub(crate) fn close(&self) {
        self.shared.lock().closing = true;
        drop(self.shared.flush());
    }
}

fn opened(paths: &[Option<PathBuf>], encoding: AccessLogEncoding) -> Result<State, String> {
    let mut state = State {
        encoding,
        ..State::default()
    };
    let mut known: BTreeMap<&Path, usize> = BTreeMap::new();
    for path in paths {
        let Some(path) = path else {
            state.by_listener.push(None);
            continue;
        };
        let at = match known.get(path.as_path()) {
            Some(at) => *at,
            None => {
                let file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(path)
                    .map_err(|e| {
                        let words = crate::files::words(&e);
                        format!(
                            "{}: cannot be opened for the access log: {words}",
                            path.display()
                        )
                    })?;
                let log = Log {
                    path: path.clone(),
                    file: Arc::new(file),
                    lines: Vec::new(),
                    lost: 0,
                };
                state.files.push(log);
                known.insert(path, state.files.len() - 1);
                state.files.len() - 1
            }
        };
        state.by_listener.push(Some(at));
    }
    Ok(state)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves whole lines behind, so the state is good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing waits to be written.
    fn flush(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.writing || state.files.iter().any(|log| !log.lines.is_empty()) {
            state.woken = true;
            self.something.notify_one();
            let waited = self.written.wait_timeout(state, Duration::from_secs(1));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    fn write_for_ever(&self) {
        loop {
            let mut state = self.lock();
            while !state.woken {
                state = self
                    .something
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if !state.closing {
                drop(state);
                thread::sleep(GATHER);
                state = self.lock();
            }
            state.woken = false;
            state.writing = true;
            let mut taken = Vec::new();
            for log in &mut state.files {
                if !log.lines.is_empty() {
                    let lost = std::mem::take(&mut log.lost);
                    taken.push((
                        log.path.clone(),
                        Arc::clone(&log.file),
                        std::mem::take(&mut log.lines),
                        lost,
                    ));
                }
            }
            drop(state);
            for (path, file, lines, lost) in taken {
                if let Err(e) = (&*file).write_all(&lines) {
                    say::err(format_args!(
                        "{}: the access log cannot be written: {}",
                        path.display(),
                        crate::files::words(&e)
                    ));
                }
                if lost > 0 {
                    say::err(format_args!(
                        "{}: {lost} lines were lost, the disk was too slow",
                        path.display()
                    ));
                }
            }
            self.lock().writing = false;
            self.written.notify_all();
        }
    }
}
