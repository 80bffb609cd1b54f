//! `meshward walkthrough DIR`: runs the commands of DIR/walkthrough.txt and compares what they print.
//!
//! The form of the file is told in [`script`]. Commands run in a copy of DIR, with this executable first in PATH and
//! `$RUNTIME` set, and whatever they leave running is ended. `REWRITE=1` writes what came out into the file, and is
//! refused where `CI` is set.

mod script;
mod stage;

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use similar::{ChangeTag, TextDiff};

use crate::exit::Failure;
use crate::files;
use script::{Action, Expected, Script};
use stage::{Outcome, Stage, Waiting};

const BOLD: &str = "\u{1b}[1m";
const CYAN: &str = "\u{1b}[36m";
const DIM: &str = "\u{1b}[2m";
const GREEN: &str = "\u{1b}[32m";
const RED: &str = "\u{1b}[31m";
const PLAIN: &str = "\u{1b}[0m";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The folder with walkthrough.txt. Commands run in a copy of it.
    dir: PathBuf,
    /// What $RUNTIME is for the commands.
    #[arg(long, default_value = "auto", value_parser = ["tokio", "uring", "auto"])]
    runtime: String,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    Play::read(&arguments.dir)?.perform(&arguments.runtime, &[])
}

/// A walk-through that was read and can be performed.
pub(crate) struct Play {
    dir: PathBuf,
    path: PathBuf,
    text: String,
    script: Script,
    rewrite: bool,
}

impl Play {
    /// Fails with `Data` if there is none in `dir` or it cannot be read.
    pub(crate) fn read(dir: &Path) -> Result<Self, Failure> {
        read(dir)
    }

    /// Runs it with `runtime` as `$RUNTIME` and `more` variables. `SUCCESS` if everything was as expected.
    pub(crate) fn perform(
        &self,
        runtime: &str,
        more: &[(&str, String)],
    ) -> Result<ExitCode, Failure> {
        perform(self, runtime, more)
    }
}

fn read(dir: &Path) -> Result<Play, Failure> {
    let rewrite = std::env::var_os("REWRITE").is_some_and(|v| v == "1");
    if rewrite && std::env::var_os("CI").is_some_and(|v| !v.is_empty()) {
        return Err(Failure::Usage(
            "REWRITE=1 is refused where CI is set\n  hint: rewrite on your own machine and read the difference".into(),
        ));
    }
    let path = dir.join("walkthrough.txt");
    let text = files::read_text(&path).map_err(|e| Failure::Data(vec![e]))?;
    let script = Script::parse(&text).map_err(|e| {
        Failure::Data(vec![format!(
            "{}:{}:1: {}\n  hint: {}",
            path.display(),
            e.line,
            e.message,
            e.hint
        )])
    })?;
    Ok(Play {
        dir: dir.to_owned(),
        path,
        text,
        script,
        rewrite,
    })
}

fn perform(play: &Play, runtime: &str, more: &[(&str, String)]) -> Result<ExitCode, Failure> {
    let Play {
        dir,
        path,
        text,
        script,
        rewrite,
    } = play;
    let mut stage = Stage::set(dir, runtime, more)?;
    let began = Instant::now();
    let mut tally = Tally::default();
    let mut rewritten = Vec::new();
    for (step, number) in script.steps.iter().zip(1..) {
        show_heading(&step.heading);
        show_command(&step.action.to_string(), number, script.steps.len());
        match &step.action {
            Action::Start { name, command } => stage.start(name, command).map_err(|what| {
                Failure::Machine(format!("{}:{}:1: {what}", path.display(), step.line))
            })?,
            Action::Await { name, text } => match stage.wait_for(name, text, waiting)? {
                Ok(()) => tally.passed += 1,
                // What follows counts on it.
                Err(what) => {
                    tally.failed += 1;
                    let left = script.steps.len() - number;
                    show_failure(
                        path,
                        step.line,
                        &format!("{what}; {left} steps are left out"),
                    );
                    break;
                }
            },
            Action::Run { command, expected } => {
                let outcome = stage.run(command, waiting)?;
                if expected.fits(&outcome.output, outcome.exit) {
                    tally.passed += 1;
                    show_output(&outcome);
                } else if *rewrite {
                    tally.passed += 1;
                    show_output(&outcome);
                    rewritten.push((expected, expected.follow(&outcome.output, outcome.exit)));
                } else {
                    tally.failed += 1;
                    show_failure(path, step.line, "not what was expected");
                    show_difference(expected, &outcome);
                }
            }
        }
    }
    if tally.failed > 0 {
        for (name, printed) in stage.printed() {
            anstream::println!("\n{DIM}last lines of `{name}`:\n{printed}{PLAIN}");
        }
    }
    drop(stage);
    if !rewritten.is_empty() {
        let new = script::rewrite(text, &rewritten);
        files::write(path, new.as_bytes(), 0o644).map_err(Failure::Machine)?;
        anstream::println!(
            "\n{} steps rewritten in {}",
            rewritten.len(),
            path.display()
        );
    }
    let colour = if tally.failed == 0 { GREEN } else { RED };
    anstream::println!(
        "\n{colour}{} passed, {} failed{PLAIN} in {:.1} s, runtime {}",
        tally.passed,
        tally.failed,
        began.elapsed().as_secs_f64(),
        runtime
    );
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Comparisons; what is only started is none.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

fn show_heading(heading: &[String]) {
    if !heading.is_empty() {
        anstream::println!();
    }
    for line in heading {
        let words = format!("# {line}");
        anstream::println!("{BOLD}{}{PLAIN}", words.trim_end());
    }
}

fn show_command(command: &str, number: usize, of: usize) {
    let terminal = std::io::stdout().is_terminal();
    let mut mark = "$";
    for line in command.lines() {
        if terminal && mark == "$" {
            anstream::print!("{DIM}[{number}/{of}]{PLAIN} ");
        }
        anstream::println!("{CYAN}{mark} {line}{PLAIN}");
        mark = ">";
    }
}

/// Says on a terminal that a command is still at work, and takes the words back.
fn waiting(waiting: Waiting) {
    let mut out = std::io::stdout();
    if !out.is_terminal() {
        return;
    }
    let _ = match waiting {
        Waiting::Seconds(seconds) => write!(out, "\r… {seconds} s"),
        Waiting::Over => write!(out, "\r\u{1b}[K"),
    };
    let _ = out.flush();
}

fn show_output(outcome: &Outcome) {
    anstream::print!("{}", script::told(&outcome.output, outcome.exit));
}

fn show_failure(path: &Path, line: usize, what: &str) {
    anstream::println!("{RED}{}:{line}:1: {what}{PLAIN}", path.display());
}

fn show_difference(expected: &Expected, outcome: &Outcome) {
    let wanted = expected.seen_by(&outcome.output);
    let got = script::told(&outcome.output, outcome.exit);
    let mut shown = String::new();
    for change in TextDiff::from_lines(&wanted, &got).iter_all_changes() {
        let (mark, colour) = match change.tag() {
            ChangeTag::Delete => ('-', RED),
            ChangeTag::Insert => ('+', GREEN),
            ChangeTag::Equal => (' ', PLAIN),
        };
        let line = change.value().trim_end_matches('\n').replace('\r', "\\r");
        // A string takes whatever is written to it.
        let _ = writeln!(shown, "{colour}{mark} {line}{PLAIN}");
    }
    anstream::print!("{shown}");
}
