//! `meshward logs`: what an app or its sidecar wrote.
//!
//! The files are read here; the mesh only says where they are, and whether the pod that writes them is still there.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use signal_hook::consts::SIGINT;
use signal_hook::flag::register_conditional_shutdown;

use crate::exit::Failure;
use crate::files;
use crate::logs::rotated;
use crate::mesh::folder::{Folder, Which};
use crate::mesh::protocol::{self, Answer, Ask, LogOf};
use crate::mesh::selector::Selector;
use crate::say;

/// How often files are looked at that are followed.
const LOOK: Duration = Duration::from_millis(100);
/// How often the mesh is asked whether pods are still there.
const ASK: Duration = Duration::from_secs(1);
/// What pods wrote last is in their files so long after they have gone.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// As a shell says it of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;
/// Lines of each pod where a selector says which, as kubectl.
const SELECTED_LINES: usize = 10;

#[derive(Args, Debug)]
#[command(after_help = "\
Sidecars write their access log where meshConfig says accessLogFile: /dev/stdout, and nothing otherwise. Of what a
command writes to stdout and stderr, and of an access log, the last two files of 10 MiB are kept.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Namespace of the workload [default: default]
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    /// All pods of the namespace with these labels.
    #[arg(
        short = 'l',
        long,
        value_name = "LABELS",
        value_parser = Selector::read,
        required_unless_present = "workload",
        conflicts_with = "workload"
    )]
    selector: Option<Selector>,
    /// app, one of the pod's own, or istio-proxy for its sidecar [default: the pod's first]
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Stay, and show what is written from now on.
    #[arg(short, long)]
    follow: bool,
    /// So many of the last lines, -1: all [default: all, with -l 10]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Say before each line which pod and container it is of.
    #[arg(long)]
    prefix: bool,
    /// NAME, deploy/NAME or pod/NAME, with `.NS` or without
    workload: Option<String>,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    // Nothing is held that a sudden end could harm.
    let at_once = Arc::new(AtomicBool::new(true));
    register_conditional_shutdown(SIGINT, INTERRUPTED, at_once)
        .map_err(|e| Failure::Machine(format!("signals cannot be taken over: {e}")))?;
    let folder = Folder::of(&arguments.which)?;
    let (logs, note) = whose(&folder, &arguments)?;
    if let Some(note) = note {
        say::err(note);
    }
    if logs.is_empty() {
        let namespace = arguments.namespace.as_deref().unwrap_or("default");
        say::err(format_args!("No resources found in {namespace} namespace."));
        return Ok(ExitCode::SUCCESS);
    }
    let lines = match (arguments.tail, &arguments.selector) {
        (Some(lines), _) => usize::try_from(lines).ok(),
        (None, Some(_)) => Some(SELECTED_LINES),
        (None, None) => None,
    };
    let mut out = io::stdout().lock();
    let shown = show(&logs, lines, &folder, &arguments, &mut out);
    match shown {
        // Whoever read it has enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(e) => Err(Failure::Machine(format!(
            "the log cannot be shown: {}",
            files::words(&e)
        ))),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

fn whose(folder: &Folder, arguments: &Arguments) -> Result<(Vec<LogOf>, Option<String>), Failure> {
    let ask = Ask::Logs {
        workload: arguments.workload.clone(),
        namespace: arguments.namespace.clone(),
        selector: arguments.selector.clone().unwrap_or_default(),
        container: arguments.container.clone(),
    };
    match protocol::ask(folder, ask)? {
        Answer::Logs { logs, note } => Ok((logs, note)),
        _ => Err(Failure::Machine("the mesh answers something else".into())),
    }
}

fn show(
    logs: &[LogOf],
    lines: Option<usize>,
    folder: &Folder,
    arguments: &Arguments,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut streams: Vec<Stream<'_>> = logs
        .iter()
        .map(|log| Stream::of(log, arguments.prefix))
        .collect();
    for stream in &mut streams {
        stream.begin(lines, out)?;
        if !arguments.follow {
            stream.end(out)?;
        }
    }
    out.flush()?;
    if !arguments.follow {
        return Ok(());
    }
    let mut asked = Instant::now();
    while !streams.is_empty() {
        thread::sleep(LOOK);
        for stream in &mut streams {
            stream.go_on(out)?;
        }
        if asked.elapsed() >= ASK {
            // Who answers nothing has ended, and its pods with it.
            let there = whose(folder, arguments).map(|(logs, _)| logs);
            let there = there.unwrap_or_default();
            let is_there = |stream: &Stream<'_>| there.iter().any(|l| l.uid == stream.log.uid);
            if !streams.iter().all(is_there) {
                thread::sleep(LAST_WORDS);
            }
            for stream in streams.iter_mut().filter(|stream| !is_there(stream)) {
                stream.go_on(out)?;
                stream.end(out)?;
            }
            streams.retain(is_there);
            asked = Instant::now();
        }
        out.flush()?;
    }
    Ok(())
}

/// One log, as far as it was read.
struct Stream<'a> {
    log: &'a LogOf,
    prefix: String,
    file: Option<File>,
    /// The beginning of a line whose end was not written yet.
    rest: Vec<u8>,
}

impl<'a> Stream<'a> {
    fn of(log: &'a LogOf, with_prefix: bool) -> Self {
        let prefix = match with_prefix {
            true => format!("[pod/{}/{}] ", log.pod, log.container),
            false => String::new(),
        };
        Self {
            log,
            prefix,
            file: None,
            rest: Vec::new(),
        }
    }

    fn path(&self) -> Option<&'a Path> {
        self.log.path.as_deref()
    }

    /// What is there already, or its last `lines`.
    fn begin(&mut self, lines: Option<usize>, out: &mut impl Write) -> io::Result<()> {
        let Some(path) = self.path() else {
            return Ok(());
        };
        let mut text = fs::read(rotated(path)).unwrap_or_default();
        self.file = File::open(path).ok();
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut text)?;
        }
        let from = lines.map_or(0, |lines| last_lines(&text, lines));
        self.take(text.get(from..).unwrap_or_default(), out)
    }

    /// What was written since, in the file that is open and in the one that took its place.
    fn go_on(&mut self, out: &mut impl Write) -> io::Result<()> {
        let Some(path) = self.path() else {
            return Ok(());
        };
        loop {
            let new = match (&self.file, fs::metadata(path)) {
                (_, Err(_)) => None,
                (Some(file), Ok(there)) => {
                    let open = file.metadata()?;
                    ((open.dev(), open.ino()) != (there.dev(), there.ino()))
                        .then(|| File::open(path))
                }
                (None, Ok(_)) => Some(File::open(path)),
            };
            // Looked at before this is read: nobody writes any more to what was replaced then.
            let mut text = Vec::new();
            if let Some(file) = &mut self.file {
                file.read_to_end(&mut text)?;
            }
            self.take(&text, out)?;
            match new {
                Some(Ok(file)) => self.file = Some(file),
                Some(Err(_)) | None => return Ok(()),
            }
        }
    }

    /// Whole lines are shown at once.
    fn take(&mut self, text: &[u8], out: &mut impl Write) -> io::Result<()> {
        self.rest.extend_from_slice(text);
        let whole = self.rest.iter().rposition(|b| *b == b'\n');
        let whole = whole.map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        if self.prefix.is_empty() {
            return out.write_all(&lines);
        }
        for line in lines.split_inclusive(|b| *b == b'\n') {
            out.write_all(self.prefix.as_bytes())?;
            out.write_all(line)?;
        }
        Ok(())
    }

    /// Shows what has no end of line, too.
    fn end(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        out.write_all(self.prefix.as_bytes())?;
        self.rest.push(b'\n');
        out.write_all(&std::mem::take(&mut self.rest))
    }
}

/// Where the last so many lines begin.
fn last_lines(text: &[u8], lines: usize) -> usize {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    if lines == 0 {
        return text.len();
    }
    let ends = body.iter().enumerate().rev().filter(|(_, b)| **b == b'\n');
    ends.map(|(at, _)| at + 1).nth(lines - 1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        for (text, lines, last) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 5, "a\nb\n"),
            ("a\nb\n", 0, ""),
            ("\n\n", 1, "\n"),
            ("", 3, ""),
        ] {
            assert_eq!(
                &text[last_lines(text.as_bytes(), lines)..],
                last,
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_log_is_followed_through_rotations() {
        let dir = std::env::temp_dir().join(format!("meshward-follow-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("app.log");
        let log = LogOf {
            namespace: "shop".into(),
            pod: "web".into(),
            container: "app".into(),
            path: Some(path.clone()),
            uid: 1,
        };
        let mut out = Vec::new();
        let mut stream = Stream::of(&log, true);
        stream.begin(Some(1), &mut out).unwrap();
        stream.go_on(&mut out).unwrap();
        fs::write(&path, "one\ntw").unwrap();
        stream.go_on(&mut out).unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"o\nthree\n").unwrap();
        fs::rename(&path, rotated(&path)).unwrap();
        fs::write(&path, "four\nfive").unwrap();
        stream.go_on(&mut out).unwrap();
        stream.end(&mut out).unwrap();
        let mut again = Stream::of(&log, false);
        let mut whole = Vec::new();
        again.begin(None, &mut whole).unwrap();
        again.end(&mut whole).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let expected = ["one", "two", "three", "four", "five"];
        assert_eq!(lines, expected.map(|line| format!("[pod/web/app] {line}")));
        assert_eq!(whole, b"one\ntwo\nthree\nfour\nfive\n");
    }
}
