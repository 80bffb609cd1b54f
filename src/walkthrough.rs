//! `meshward walkthrough DIR`: runs the commands of DIR/walkthrough.txt and compares what they print.
//!
//! The file is a list of steps: lines of a command for `sh`, a line `----`, and exactly what comes out (stdout and stderr),
//! then `exit N` if that is not 0. Steps are parted by empty lines; lines that begin with `#` before a command are shown
//! as headings. `{{re:…}}` stands for text that varies. `start NAME: command` runs beside the rest and is ended at the
//! end, `NAME_pid` is its process; `await NAME TEXT` waits until it has printed TEXT. `REWRITE=1` writes what came out
//! into the file, and is refused where `CI` is set.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use similar::{ChangeTag, TextDiff};

use crate::exit::Failure;
use crate::files;

/// One command may take so long.
const STEP_MAX: Duration = Duration::from_secs(10);
/// Between SIGTERM and SIGKILL of what `start` began.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How often a wait looks again.
const LOOK: Duration = Duration::from_millis(10);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The folder with walkthrough.txt. Commands run in a copy of it.
    dir: PathBuf,
    /// What $RUNTIME is for the commands.
    #[arg(long, default_value = "auto", value_parser = ["tokio", "uring", "auto"])]
    runtime: String,
}

/// One step of the file.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Run {
        line: usize,
        heading: Vec<String>,
        command: String,
        expected: Expected,
    },
    Start {
        line: usize,
        heading: Vec<String>,
        name: String,
        command: String,
    },
    Await {
        line: usize,
        name: String,
        text: String,
    },
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    output: String,
    exit: i32,
    /// Where the output stands in the file, for rewriting: from this line, so many lines.
    at: usize,
    lines: usize,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let path = arguments.dir.join("walkthrough.txt");
    let text = files::read_text(&path).map_err(Failure::Machine)?;
    let rewrite = std::env::var_os("REWRITE").is_some_and(|v| v == "1");
    if rewrite && std::env::var_os("CI").is_some_and(|v| !v.is_empty()) {
        return Err(Failure::Usage(
            "REWRITE=1 is refused where CI is set".into(),
        ));
    }
    let steps = parse(&text).map_err(|(line, what)| {
        Failure::Data(vec![format!("{}:{line}:1: {what}", path.display())])
    })?;
    let mut stage = Stage::set(&arguments.dir, &arguments.runtime)?;
    let began = Instant::now();
    let (mut failed, mut ran) = (0, 0);
    let mut replaced: Vec<(usize, usize, String)> = Vec::new();
    for step in &steps {
        match step {
            Step::Run {
                line,
                heading,
                command,
                expected,
            } => {
                show_heading(heading);
                show_command(command);
                ran += 1;
                let (output, exit) = stage.run(command)?;
                if matches(&expected.output, &output) && exit == Some(expected.exit) {
                    show_output(&output, exit);
                } else if rewrite {
                    show_output(&output, exit);
                    replaced.push((expected.at, expected.lines, with_exit(&output, exit)));
                } else {
                    failed += 1;
                    show_difference(&path, *line, expected, &output, exit);
                }
            }
            Step::Start {
                line,
                heading,
                name,
                command,
            } => {
                show_heading(heading);
                show_command(&format!("start {name}: {command}"));
                stage
                    .start(name, command)
                    .map_err(|e| at(&path, *line, e))?;
            }
            Step::Await { line, name, text } => {
                show_command(&format!("await {name} {text}"));
                ran += 1;
                if let Err(what) = stage.wait_for(name, text) {
                    failed += 1;
                    anstream::println!("\u{1b}[31m{}:{line}:1: {what}\u{1b}[0m", path.display());
                }
            }
        }
    }
    if !replaced.is_empty() {
        files::write(&path, replace(&text, &replaced).as_bytes(), 0o644)
            .map_err(Failure::Machine)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    anstream::println!(
        "\n{} passed, {failed} failed in {seconds:.1} s ({})",
        ran - failed,
        arguments.runtime
    );
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn at(path: &Path, line: usize, what: String) -> Failure {
    Failure::Machine(format!("{}:{line}:1: {what}", path.display()))
}

/// A wrong line of the file, and what is wrong with it.
type ParseError = (usize, String);

fn parse(text: &str) -> Result<Vec<Step>, ParseError> {
    let lines: Vec<&str> = text.lines().collect();
    let mut steps = Vec::new();
    let mut heading = Vec::new();
    let mut i = 0;
    while let Some(line) = lines.get(i) {
        let number = i + 1;
        if line.trim().is_empty() {
            i += 1;
        } else if let Some(words) = line.strip_prefix('#') {
            heading.push(words.trim().to_owned());
            i += 1;
        } else if let Some(rest) = line.strip_prefix("start ") {
            let (name, command) = rest
                .split_once(':')
                .filter(|(name, command)| is_name(name) && !command.trim().is_empty())
                .ok_or_else(|| (number, "expected `start NAME: command`".to_owned()))?;
            let (name, command) = (name.to_owned(), command.trim().to_owned());
            steps.push(Step::Start {
                line: number,
                heading: std::mem::take(&mut heading),
                name,
                command,
            });
            i += 1;
        } else if let Some(rest) = line.strip_prefix("await ") {
            let (name, text) = rest
                .split_once(' ')
                .filter(|(name, _)| is_name(name))
                .ok_or_else(|| (number, "expected `await NAME TEXT`".to_owned()))?;
            steps.push(Step::Await {
                line: number,
                name: name.to_owned(),
                text: text.to_owned(),
            });
            i += 1;
        } else {
            let from = i;
            while lines.get(i).is_some_and(|l| *l != "----") {
                i += 1;
            }
            if i >= lines.len() {
                return Err((
                    number,
                    "a command without a line `----` after it".to_owned(),
                ));
            }
            let command = lines.get(from..i).unwrap_or_default().join("\n");
            i += 1;
            let first = i;
            while lines.get(i).is_some_and(|l| !l.is_empty()) {
                i += 1;
            }
            let mut output = lines.get(first..i).unwrap_or_default().to_vec();
            let exit = output
                .last()
                .and_then(|l| l.strip_prefix("exit "))
                .map(str::parse::<i32>);
            let exit = match exit {
                None => 0,
                Some(Ok(code)) => {
                    output.pop();
                    code
                }
                Some(Err(_)) => return Err((i, "expected `exit N`".to_owned())),
            };
            let output: String = output.iter().flat_map(|l| [l, "\n"]).collect();
            let expected = Expected {
                output,
                exit,
                at: first,
                lines: i - first,
            };
            steps.push(Step::Run {
                line: number,
                heading: std::mem::take(&mut heading),
                command,
                expected,
            });
        }
    }
    Ok(steps)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether `output` is what was expected, text between `{{re:` and `}}` being a pattern.
fn matches(expected: &str, output: &str) -> bool {
    if !expected.contains("{{re:") {
        return expected == output;
    }
    let mut pattern = String::from("(?s)\\A");
    let mut rest = expected;
    while let Some((before, after)) = rest.split_once("{{re:") {
        pattern.push_str(&regex::escape(before));
        let Some((inner, after)) = after.split_once("}}") else {
            return false;
        };
        pattern.push_str(&format!("(?:{inner})"));
        rest = after;
    }
    pattern.push_str(&regex::escape(rest));
    pattern.push_str("\\z");
    regex::Regex::new(&pattern).is_ok_and(|p| p.is_match(output))
}

fn with_exit(output: &str, exit: Option<i32>) -> String {
    let mut text = output.to_owned();
    match exit {
        Some(0) => {}
        Some(code) => text.push_str(&format!("exit {code}\n")),
        None => text.push_str("exit -1\n"),
    }
    text
}

fn replace(text: &str, replaced: &[(usize, usize, String)]) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::new();
    let mut i = 0;
    for (at, count, with) in replaced {
        for line in lines.get(i..*at).unwrap_or_default() {
            out.push_str(line);
            out.push('\n');
        }
        out.push_str(with);
        i = at + count;
    }
    for line in lines.get(i..).unwrap_or_default() {
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// Where commands run: a copy of the folder, so that nothing of it changes.
struct Stage {
    dir: PathBuf,
    environment: BTreeMap<String, String>,
    beside: Vec<Beside>,
}

/// A command that runs beside the rest.
struct Beside {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Stage {
    fn set(from: &Path, runtime: &str) -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("meshward-walkthrough-{}", std::process::id()));
        copy(from, &dir)
            .map_err(|e| Failure::Machine(format!("{}: cannot be copied: {e}", from.display())))?;
        let own =
            std::env::current_exe().map_err(|e| Failure::Machine(format!("own path: {e}")))?;
        let own = own.parent().map(Path::to_path_buf).unwrap_or_default();
        let path = std::env::var("PATH").unwrap_or_default();
        let environment = BTreeMap::from([
            ("PATH".to_owned(), format!("{}:{path}", own.display())),
            ("RUNTIME".to_owned(), runtime.to_owned()),
            ("LC_ALL".to_owned(), "C".to_owned()),
            ("NO_COLOR".to_owned(), "1".to_owned()),
        ]);
        Ok(Self {
            dir,
            environment,
            beside: Vec::new(),
        })
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(command)
            .current_dir(&self.dir)
            .envs(&self.environment)
            .stdin(Stdio::null());
        for proxy in [
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "no_proxy",
            "NO_PROXY",
        ] {
            shell.env_remove(proxy);
        }
        // A group of its own, so that whatever it leaves behind can be ended with it.
        shell.process_group(0);
        shell
    }

    fn run(&self, command: &str) -> Result<(String, Option<i32>), Failure> {
        let (mut reader, writer) =
            std::io::pipe().map_err(|e| Failure::Machine(format!("pipe: {e}")))?;
        let again = writer
            .try_clone()
            .map_err(|e| Failure::Machine(format!("pipe: {e}")))?;
        let mut shell = self.shell(command);
        shell.stdout(writer).stderr(again);
        let mut child = shell
            .spawn()
            .map_err(|e| Failure::Machine(format!("sh cannot be run: {e}")))?;
        // The parent's ends of the pipe close with the command, so that the reader sees the end.
        drop(shell);
        let reading = thread::spawn(move || {
            let mut output = Vec::new();
            let _ = reader.read_to_end(&mut output);
            output
        });
        let end = Instant::now() + STEP_MAX;
        let (status, late) = loop {
            match child.try_wait() {
                Ok(Some(status)) => break (Some(status), false),
                Ok(None) if Instant::now() < end => thread::sleep(LOOK),
                Ok(None) | Err(_) => {
                    kill(&child, "KILL");
                    let _ = child.wait();
                    break (None, true);
                }
            }
        };
        let output = reading.join().unwrap_or_default();
        let mut text = String::from_utf8_lossy(&output).into_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        if late {
            text.push_str(&format!("(ended after {} s)\n", STEP_MAX.as_secs()));
        }
        Ok((text, status.and_then(|s| s.code())))
    }

    fn start(&mut self, name: &str, command: &str) -> Result<(), String> {
        let log = self.dir.join(format!("{name}.out"));
        let file = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let again = file.try_clone().map_err(|e| e.to_string())?;
        let mut shell = self.shell(&format!("exec {command}"));
        let child = shell
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

    fn wait_for(&mut self, name: &str, text: &str) -> Result<(), String> {
        let beside = self
            .beside
            .iter_mut()
            .rfind(|b| b.name == name)
            .ok_or_else(|| format!("nothing was started as `{name}`"))?;
        let end = Instant::now() + STEP_MAX;
        loop {
            let printed = fs::read(&beside.log).unwrap_or_default();
            let printed = String::from_utf8_lossy(&printed);
            if printed.contains(text) {
                return Ok(());
            }
            let over = beside.child.try_wait().ok().flatten();
            if over.is_some() || Instant::now() >= end {
                let how = over.map_or("still runs".to_owned(), |status| {
                    format!("ended with {status}")
                });
                return Err(format!(
                    "`{name}` did not print `{text}` ({how}); it printed:\n{printed}"
                ));
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for beside in &self.beside {
            kill(&beside.child, "TERM");
        }
        let end = Instant::now() + STOP_GRACE;
        for beside in &mut self.beside {
            while Instant::now() < end && matches!(beside.child.try_wait(), Ok(None)) {
                thread::sleep(LOOK);
            }
            if matches!(beside.child.try_wait(), Ok(None)) {
                kill(&beside.child, "KILL");
                let _ = beside.child.wait();
            }
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Signals the group of a child that we started and have not reaped, so its id is its own.
fn kill(child: &Child, signal: &str) {
    let _ = Command::new("kill")
        .arg(format!("-{signal}"))
        .arg("--")
        .arg(format!("-{}", child.id()))
        .status();
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn show_heading(heading: &[String]) {
    for line in heading {
        anstream::println!("\n\u{1b}[1m# {line}\u{1b}[0m");
    }
}

fn show_command(command: &str) {
    let mut mark = "$";
    for line in command.lines() {
        anstream::println!("\u{1b}[36m{mark} {line}\u{1b}[0m");
        mark = ">";
    }
    if std::io::stdout().is_terminal() {
        let _ = std::io::stdout().flush();
    }
}

fn show_output(output: &str, exit: Option<i32>) {
    anstream::print!("{output}");
    if exit != Some(0) {
        anstream::println!(
            "exit {}",
            exit.map_or("-1".to_owned(), |code| code.to_string())
        );
    }
}

fn show_difference(path: &Path, line: usize, expected: &Expected, output: &str, exit: Option<i32>) {
    anstream::println!(
        "\u{1b}[31m{}:{line}:1: not what was expected\u{1b}[0m",
        path.display()
    );
    let wanted = with_exit(&expected.output, Some(expected.exit));
    let got = with_exit(output, exit);
    for change in TextDiff::from_lines(&wanted, &got).iter_all_changes() {
        let (mark, colour) = match change.tag() {
            ChangeTag::Delete => ("-", "31"),
            ChangeTag::Insert => ("+", "32"),
            ChangeTag::Equal => (" ", "0"),
        };
        anstream::print!("\u{1b}[{colour}m{mark} {change}\u{1b}[0m");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_steps_with_what_they_print() {
        let text = "# One\nstart app: python3 app.py\nawait app ready\n\ncurl x\n----\nhello\nexit 56\n\necho\n----\n\n";
        let steps = parse(text).unwrap();
        assert_eq!(steps.len(), 4);
        let Step::Run {
            line,
            command,
            expected,
            ..
        } = &steps[2]
        else {
            panic!("{steps:?}")
        };
        assert_eq!(
            (
                *line,
                command.as_str(),
                expected.output.as_str(),
                expected.exit
            ),
            (5, "curl x", "hello\n", 56)
        );
        let Step::Run { expected, .. } = &steps[3] else {
            panic!("{steps:?}")
        };
        assert_eq!((expected.output.as_str(), expected.exit), ("", 0));
    }

    #[test]
    fn a_wrong_file_says_where() {
        assert_eq!(parse("\ncurl x\n").unwrap_err().0, 2);
        assert_eq!(parse("start app\n").unwrap_err().0, 1);
        assert_eq!(parse("curl\n----\nexit x\n").unwrap_err().0, 3);
    }

    #[test]
    fn what_varies_is_a_pattern_and_nothing_else_is() {
        assert!(matches("a.b\n", "a.b\n"));
        assert!(!matches("a.b\n", "axb\n"));
        assert!(matches("[{{re:\\d+}}] ok\n", "[12] ok\n"));
        assert!(!matches("[{{re:\\d+}}] ok\n", "[12] ok\nmore\n"));
        assert!(
            !matches("{{re:[}}", "["),
            "a broken pattern matches nothing"
        );
    }

    #[test]
    fn rewriting_keeps_everything_but_the_output() {
        let text = "# t\na\n----\nold\nexit 1\n\nb\n----\nkeep\n";
        let new = replace(text, &[(3, 2, "new\n".to_owned())]);
        assert_eq!(new, "# t\na\n----\nnew\n\nb\n----\nkeep\n");
    }
}
