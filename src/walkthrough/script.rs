//! The form of a walk-through file, and how what it expects is compared.
//!
//! ```text
//! # A heading, of one line or more
//! start app: python3 app.py
//! await app listening
//!
//! # Another heading
//! curl -s http://127.0.0.1:18080/
//! ----
//! hello at {{re:\d\d:\d\d}}
//! exit 1
//! ```
//!
//! A command is one line or more for `sh`; after `----` stands exactly what it prints (stdout and stderr), up to an empty
//! line, then `exit N` if N is not 0 (128 and the number, for a signal). `{{re:…}}` stands for text that varies; alone on
//! a line without a pattern it is an empty line of output. `start NAME: command` runs beside the rest, has `$NAME_pid`
//! and is ended at the end; `await NAME TEXT` waits until it has printed TEXT.
//!
//! Knows no process: texts go in, texts come out.

use std::fmt;

use regex::Regex;

const OPEN: &str = "{{re:";
const CLOSE: &str = "}}";
/// An empty line of output; a bare one ends the step.
const EMPTY: &str = "{{re:}}";
/// A carriage return before the end of a line, which an editor would not keep.
const RETURN: &str = "{{re:\\r}}";

#[derive(Debug)]
pub(super) struct Script {
    pub(super) steps: Vec<Step>,
}

#[derive(Debug)]
pub(super) struct Step {
    /// Where its command stands, from 1.
    pub(super) line: usize,
    pub(super) heading: Vec<String>,
    pub(super) action: Action,
}

#[derive(Debug)]
pub(super) enum Action {
    Run { command: String, expected: Expected },
    Start { name: String, command: String },
    Await { name: String, text: String },
}

/// As it stands in the file.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run { command, .. } => f.write_str(command),
            Self::Start { name, command } => write!(f, "start {name}: {command}"),
            Self::Await { name, text } => write!(f, "await {name} {text}"),
        }
    }
}

/// What a command is to print and how it is to end.
#[derive(Debug)]
pub(super) struct Expected {
    lines: Vec<String>,
    exit: i32,
    whole: Regex,
    /// The lines of the file that hold it, from 0, `exit N` included.
    place: std::ops::Range<usize>,
}

/// A line that has no place in a walk-through.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ParseError {
    pub(super) line: usize,
    pub(super) message: String,
    pub(super) hint: &'static str,
}

impl Script {
    pub(super) fn parse(text: &str) -> Result<Self, ParseError> {
        let lines: Vec<&str> = text.lines().collect();
        let mut steps = Vec::new();
        let mut heading = Vec::new();
        let mut i = 0;
        while let Some(line) = lines.get(i) {
            let number = i + 1;
            if line.trim().is_empty() {
                // Paragraphs of a heading stay apart.
                if heading
                    .last()
                    .is_some_and(|words: &String| !words.is_empty())
                {
                    heading.push(String::new());
                }
                i += 1;
                continue;
            }
            if let Some(words) = line.strip_prefix('#') {
                heading.push(words.trim().to_owned());
                i += 1;
                continue;
            }
            let action = if let Some(rest) = line.strip_prefix("start ") {
                i += 1;
                start(rest, number)?
            } else if let Some(rest) = line.strip_prefix("await ") {
                i += 1;
                wait(rest, number)?
            } else {
                command(&lines, &mut i)?
            };
            while heading.pop_if(|words| words.is_empty()).is_some() {}
            steps.push(Step {
                line: number,
                heading: std::mem::take(&mut heading),
                action,
            });
        }
        if steps.is_empty() {
            return Err(error(
                1,
                "no step",
                "write a command, `----` and its output",
            ));
        }
        Ok(Self { steps })
    }
}

fn error(line: usize, message: impl Into<String>, hint: &'static str) -> ParseError {
    ParseError {
        line,
        message: message.into(),
        hint,
    }
}

fn start(rest: &str, number: usize) -> Result<Action, ParseError> {
    match rest.split_once(':') {
        Some((name, command)) if is_name(name) && !command.trim().is_empty() => Ok(Action::Start {
            name: name.to_owned(),
            command: command.trim().to_owned(),
        }),
        _ => Err(error(
            number,
            "a `start` without name or command",
            "write `start NAME: command`",
        )),
    }
}

fn wait(rest: &str, number: usize) -> Result<Action, ParseError> {
    match rest.split_once(' ') {
        Some((name, text)) if is_name(name) && !text.trim().is_empty() => Ok(Action::Await {
            name: name.to_owned(),
            text: text.trim().to_owned(),
        }),
        _ => Err(error(
            number,
            "an `await` without name or text",
            "write `await NAME TEXT`",
        )),
    }
}

/// Reads a command and its output from line `*i` on, which moves behind them.
fn command(lines: &[&str], i: &mut usize) -> Result<Action, ParseError> {
    let from = *i;
    while lines.get(*i).is_some_and(|l| *l != "----" && !l.is_empty()) {
        *i += 1;
    }
    if lines.get(*i).is_none_or(|l| l.is_empty()) {
        return Err(error(
            from + 1,
            "a command without a line `----` after it",
            "write `----` and what the command prints, without an empty line before it",
        ));
    }
    let command = lines.get(from..*i).unwrap_or_default().join("\n");
    *i += 1;
    let first = *i;
    while lines.get(*i).is_some_and(|l| !l.is_empty()) {
        *i += 1;
    }
    let place = first..*i;
    let mut output: Vec<String> = lines
        .get(place.clone())
        .unwrap_or_default()
        .iter()
        .map(|l| (*l).to_owned())
        .collect();
    let exit = match output.last().and_then(|l| l.strip_prefix("exit ")) {
        None => 0,
        Some(code) => {
            let code = code
                .parse()
                .map_err(|_| error(*i, format!("`{code}` is no exit code"), "write `exit N`"))?;
            output.pop();
            code
        }
    };
    for (line, number) in output.iter().zip(first + 1..) {
        pattern_of(line)
            .map_err(|message| error(number, message, "write a pattern as {{re:\\d+}}"))?;
    }
    let text: String = output.iter().flat_map(|l| [l.as_str(), "\n"]).collect();
    let whole = pattern_of(&text)
        .map_err(|message| error(first + 1, message, "write a pattern as {{re:\\d+}}"))?;
    Ok(Action::Run {
        command,
        expected: Expected {
            lines: output,
            exit,
            whole,
            place,
        },
    })
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The pattern of a text in which `{{re:…}}` varies. A pattern ends at the first `}}` that leaves a valid one, so that
/// `{{re:\d{2}}}` is what it looks like.
fn pattern_of(text: &str) -> Result<Regex, String> {
    let mut pattern = String::from("\\A");
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        pattern.push_str(&regex::escape(before));
        let end = after
            .char_indices()
            .map(|(at, _)| at)
            .filter(|at| after.get(*at..).is_some_and(|a| a.starts_with(CLOSE)))
            .find(|at| after.get(..*at).is_some_and(|p| Regex::new(p).is_ok()))
            .ok_or("a pattern that does not end, or is none")?;
        let (inner, after) = after.split_at(end);
        pattern.push_str(&format!("(?:{inner})"));
        rest = after.get(CLOSE.len()..).unwrap_or_default();
    }
    pattern.push_str(&regex::escape(rest));
    pattern.push_str("\\z");
    Regex::new(&pattern).map_err(|_| "a pattern that is too large".to_owned())
}

impl Expected {
    pub(super) fn fits(&self, output: &str, exit: i32) -> bool {
        self.exit == exit && self.whole.is_match(output)
    }

    /// What was expected, with the lines of `output` in place of patterns that fit them: what is left to differ.
    pub(super) fn seen_by(&self, output: &str) -> String {
        let mut text = String::new();
        let mut rest: Vec<&str> = output.split_terminator('\n').collect();
        for line in &self.lines {
            let found = fitting(line, &rest);
            match found.and_then(|at| rest.get(at).map(|l| (at, *l))) {
                Some((at, found)) => {
                    text.push_str(found);
                    rest.drain(..=at);
                }
                None => text.push_str(line),
            }
            text.push('\n');
        }
        ending(&mut text, self.exit);
        text
    }

    /// `output` in the form of a file, with the patterns that fit its lines in their place.
    pub(super) fn follow(&self, output: &str, exit: i32) -> String {
        let mut kept: &[String] = &self.lines;
        let mut text = String::new();
        for line in output.split_terminator('\n') {
            let found = kept
                .iter()
                .position(|k| pattern_of(k).is_ok_and(|p| p.is_match(line)));
            match found.and_then(|at| kept.split_at_checked(at)) {
                Some((_, [pattern, after @ ..])) => {
                    text.push_str(pattern);
                    kept = after;
                }
                _ if line.is_empty() => text.push_str(EMPTY),
                _ => match line.strip_suffix('\r') {
                    Some(line) => text.extend([line, RETURN]),
                    None => text.push_str(line),
                },
            }
            text.push('\n');
        }
        ending(&mut text, exit);
        text
    }
}

/// The first of `lines` that `expected` fits.
fn fitting(expected: &str, lines: &[&str]) -> Option<usize> {
    let pattern = pattern_of(expected).ok()?;
    lines.iter().position(|line| pattern.is_match(line))
}

/// Output and exit code as a reader sees them.
pub(super) fn told(output: &str, exit: i32) -> String {
    let mut text = output.to_owned();
    ending(&mut text, exit);
    text
}

/// `exit N` where a reader could not know it: 0 is said only behind a line that looks like another code.
fn ending(text: &mut String, exit: i32) {
    let looks = text
        .lines()
        .next_back()
        .is_some_and(|l| l.starts_with("exit "));
    if exit != 0 || looks {
        text.push_str(&format!("exit {exit}\n"));
    }
}

/// `text` with other outputs; `outputs` in the order of the file.
pub(super) fn rewrite(text: &str, outputs: &[(&Expected, String)]) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut new = String::new();
    let copy = |new: &mut String, range: std::ops::Range<usize>| {
        for line in lines.get(range).unwrap_or_default() {
            new.push_str(line);
            new.push('\n');
        }
    };
    let mut i = 0;
    for (expected, output) in outputs {
        copy(&mut new, i..expected.place.start);
        new.push_str(output);
        i = expected.place.end;
    }
    copy(&mut new, i..lines.len());
    new
}

#[cfg(test)]
mod tests;
