//! Access logs: records become lines on the thread that has them, and files are written by one thread for all.
//!
//! The files of a mesh are rotated here; those of a sidecar by whoever runs it, who then sends SIGHUP.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use meshward_core::api::mesh_config::AccessLogEncoding;
use meshward_core::telemetry::levels::{Levels, Scope};
use meshward_core::telemetry::{Record, accesslog};

use crate::{machine, say};

/// Lines are gathered for so long before they are written.
const GATHER: Duration = Duration::from_millis(50);
/// Bytes of lines that wait for a slow disk; beyond it lines are lost, and counted.
const WAITING_MAX: usize = 16 * 1024 * 1024;

/// Bytes of a file that is rotated. Kubernetes: `containerLogMaxSize` 10Mi.
pub(crate) const FILE_MAX: u64 = 10 * 1024 * 1024;

/// The file before the one at `path`.
pub(crate) fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// A file that is appended to, and replaced by a new one when it has [`FILE_MAX`] bytes; the one before it stays.
#[derive(Debug)]
pub(crate) struct Rolling {
    path: PathBuf,
    file: File,
    max: u64,
}

impl Rolling {
    /// Only its owner may read it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: appended(path)?,
            max: FILE_MAX,
        })
    }

    /// Whole lines stay whole if `bytes` are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.metadata()?.len() >= self.max {
            self.file = rotate(&self.path, &self.file)?;
        }
        self.file.write_all(bytes)
    }
}

fn appended(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

/// Moves `file` away if it is the one at `path`, and opens the one that is there then.
fn rotate(path: &Path, file: &File) -> io::Result<File> {
    if is_at(file, path) {
        fs::rename(path, rotated(path))?;
    }
    appended(path)
}

/// The path leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    let of = |found: fs::Metadata| (found.dev(), found.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => of(open) == of(there),
        _ => false,
    }
}

/// Where records go, by the number that a sidecar gives each listener and a mesh each proxy. Cheap to clone.
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
    /// A place that is empty is free.
    files: Vec<Option<Log>>,
    by_number: Vec<Option<usize>>,
    /// Where what is said beside the records goes, and how much of it; nobody else is here.
    notes: BTreeMap<usize, (usize, Levels)>,
    encoding: AccessLogEncoding,
    /// Files are moved away when they have so many bytes.
    max: Option<u64>,
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

    /// From now on files are rotated when they have [`FILE_MAX`] bytes.
    pub(crate) fn rotate_files(&self) {
        self.shared.lock().max = Some(FILE_MAX);
    }

    /// Opens the files anew, which is how logs are rotated; on failure everything stays. Nobody's notes have a file then.
    pub(crate) fn reopen(
        &self,
        paths: &[Option<PathBuf>],
        encoding: AccessLogEncoding,
    ) -> Result<(), String> {
        let new = opened(paths, encoding)?;
        let mut state = self.shared.flush();
        state.files = new.files;
        state.by_number = new.by_number;
        state.notes.clear();
        state.encoding = new.encoding;
        Ok(())
    }

    /// Gives `number` a file, or none any more. A file is closed when no number has it and its lines are written.
    pub(crate) fn set(&self, number: usize, path: Option<PathBuf>) -> Result<(), String> {
        let mut state = self.shared.lock();
        let at = match &path {
            None => None,
            Some(path) => Some(state.file(path)?),
        };
        if state.by_number.len() <= number {
            state.by_number.resize(number + 1, None);
        }
        if let Some(place) = state.by_number.get_mut(number) {
            *place = at;
        }
        state.close_unused();
        Ok(())
    }

    /// How lines are written from now on.
    pub(crate) fn set_encoding(&self, encoding: AccessLogEncoding) {
        self.shared.lock().encoding = encoding;
    }

    pub(crate) fn write(&self, number: usize, record: &Record) {
        let mut state = self.shared.lock();
        let Some(at) = state.by_number.get(number).copied().flatten() else {
            return;
        };
        let encoding = state.encoding;
        let written = state.append(at, |lines| match encoding {
            AccessLogEncoding::Text => accesslog::format(record, lines),
            AccessLogEncoding::Json => accesslog::format_json(record, lines),
        });
        if written && !std::mem::replace(&mut state.woken, true) {
            drop(state);
            self.shared.something.notify_one();
        }
    }

    /// Lets what `number` says of its scopes at these levels go into that file; `None`: nothing any more.
    pub(crate) fn set_notes(
        &self,
        number: usize,
        notes: Option<(&Path, Levels)>,
    ) -> Result<(), String> {
        let mut state = self.shared.lock();
        match notes {
            Some((path, levels)) => {
                let at = state.file(path)?;
                state.notes.insert(number, (at, levels));
            }
            None => {
                state.notes.remove(&number);
            }
        }
        state.close_unused();
        Ok(())
    }

    /// A line as Istio's proxy writes it, if it is wanted.
    pub(crate) fn note(&self, number: usize, scope: Scope, what: &str) {
        let mut state = self.shared.lock();
        let wanted = state.notes.get(&number).copied();
        let Some((at, _)) = wanted.filter(|(_, levels)| levels.writes(scope)) else {
            return;
        };
        let now = machine::now();
        let line = format!("{now}\tdebug\tenvoy {}\t{what}\n", scope.name());
        if !state.append(at, |lines| lines.extend_from_slice(line.as_bytes())) {
            return;
        }
        if !std::mem::replace(&mut state.woken, true) {
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
    for path in paths {
        let at = match path {
            None => None,
            Some(path) => Some(state.file(path)?),
        };
        state.by_number.push(at);
    }
    Ok(state)
}

impl Log {
    /// Its path leads to it still. What was moved or removed may have lines to take, but no new ones.
    fn is_there(&self) -> bool {
        is_at(&self.file, &self.path)
    }
}

impl State {
    /// The place of the file of that path, which is opened if it is not.
    fn file(&mut self, path: &Path) -> Result<usize, String> {
        let is_it = |log: &Option<Log>| {
            let log = log.as_ref().filter(|log| log.path == path);
            log.is_some_and(Log::is_there)
        };
        if let Some(at) = self.files.iter().position(is_it) {
            return Ok(at);
        }
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
        let log = Some(Log {
            path: path.to_owned(),
            file: Arc::new(file),
            lines: Vec::new(),
            lost: 0,
        });
        match self.files.iter().position(Option::is_none) {
            Some(free) => {
                if let Some(place) = self.files.get_mut(free) {
                    *place = log;
                }
                Ok(free)
            }
            None => {
                self.files.push(log);
                Ok(self.files.len() - 1)
            }
        }
    }

    /// Adds to the lines of the file at that place; `false`: there is none, or no room.
    fn append(&mut self, at: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(Some(log)) = self.files.get_mut(at) else {
            return false;
        };
        if log.lines.len() >= WAITING_MAX {
            log.lost += 1;
            return false;
        }
        write(&mut log.lines);
        true
    }

    /// Closes files that no number has and whose lines are in the writer's hands or written.
    fn close_unused(&mut self) {
        for (at, place) in self.files.iter_mut().enumerate() {
            if place.as_ref().is_some_and(|log| log.lines.is_empty())
                && !self.by_number.contains(&Some(at))
                && self.notes.values().all(|(of, _)| *of != at)
            {
                *place = None;
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves whole lines behind, so the state is good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing waits to be written.
    fn flush(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.writing
            || state
                .files
                .iter()
                .flatten()
                .any(|log| !log.lines.is_empty())
        {
            state.woken = true;
            self.something.notify_one();
            let waited = self.written.wait_timeout(state, Duration::from_secs(1));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    /// The file to write to in the place of `file`, if that has `max` bytes. One that cannot be moved grows on.
    fn rotated(&self, path: &Path, file: Arc<File>, max: u64) -> Arc<File> {
        if file.metadata().is_ok_and(|found| found.len() < max) {
            return file;
        }
        let Ok(new) = rotate(path, &file) else {
            return file;
        };
        let new = Arc::new(new);
        for log in self.lock().files.iter_mut().flatten() {
            if Arc::ptr_eq(&log.file, &file) {
                log.file = Arc::clone(&new);
            }
        }
        new
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
            for log in state.files.iter_mut().flatten() {
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
            state.close_unused();
            let max = state.max;
            drop(state);
            for (path, file, lines, lost) in taken {
                let file = match max {
                    Some(max) => self.rotated(&path, file, max),
                    None => file,
                };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("meshward-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_file_that_is_full_is_moved_away_and_one_before_it_is_kept() {
        let dir = folder("rolling");
        let path = dir.join("app.log");
        let mut rolling = Rolling::open(&path).unwrap();
        rolling.max = 8;
        for n in 0..7 {
            rolling.write(format!("line{n}\n").as_bytes()).unwrap();
        }
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(text(&rotated(&path)), "line4\nline5\n");
        assert_eq!(text(&path), "line6\n");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn access_logs_of_a_mesh_are_rotated_and_lose_nothing() {
        let dir = folder("access");
        let path = dir.join("istio-proxy.log");
        let logs = Logs::open(&[Some(path.clone())], AccessLogEncoding::Text).unwrap();
        logs.shared.lock().max = Some(1);
        for _ in 0..3 {
            logs.write(0, &Record::default());
            drop(logs.shared.flush());
        }
        logs.close();
        let lines = |path: &Path| fs::read_to_string(path).unwrap().lines().count();
        assert_eq!((lines(&path), lines(&rotated(&path))), (1, 1));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn lines_go_to_the_file_that_is_there_and_not_to_one_that_was_removed() {
        let path = std::env::temp_dir().join(format!("meshward-logs-{}", std::process::id()));
        let logs = Logs::open(&[], AccessLogEncoding::Text).unwrap();
        logs.set(0, Some(path.clone())).unwrap();
        // Its line waits to be written, so its file is open still.
        logs.write(0, &Record::default());
        logs.set(0, None).unwrap();
        fs::remove_file(&path).unwrap();
        logs.set(1, Some(path.clone())).unwrap();
        logs.set(2, Some(path.clone())).unwrap();
        logs.write(1, &Record::default());
        logs.write(2, &Record::default());
        logs.close();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        fs::remove_file(&path).unwrap();
    }
}
