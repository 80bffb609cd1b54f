//! `meshward apply`: changes a mesh that runs, all of it or nothing.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::exit::Failure;
use crate::mesh::folder::{Folder, Which};
use crate::mesh::protocol::{self, Answer, Ask, FileText, REQUEST_MAX};
use crate::{files, say};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    source: Source,
    /// What is skipped with a warning is an error.
    #[arg(long)]
    strict: bool,
}

/// Where resources are.
#[derive(Args, Debug)]
pub(crate) struct Source {
    /// A file, a folder (.yaml, .yml and .json in it and below), or - for stdin; may be repeated.
    #[arg(short, long, required = true, value_name = "FILE|DIR|-")]
    filename: Vec<PathBuf>,
    /// Read folders and what is below them, as is always done; for those used to kubectl.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// For resources that name none.
    #[arg(short, long, default_value = "default", value_name = "NS")]
    pub(crate) namespace: String,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let folder = Folder::of(&arguments.which)?;
    let files = arguments.source.read()?;
    let namespace = arguments.source.namespace;
    let strict = arguments.strict;
    let ask = Ask::Apply {
        files,
        namespace,
        strict,
    };
    let answer = protocol::ask(&folder, ask)?;
    if answer.is_empty() {
        return Err(Failure::Server("error: no objects passed to apply".into()));
    }
    show(answer)
}

/// Prints what was done.
pub(crate) fn show(answer: Answer) -> Result<ExitCode, Failure> {
    let Answer::Done { lines, warnings } = answer else {
        return Err(Failure::Machine("the mesh answers something else".into()));
    };
    for warning in warnings {
        say::err(warning);
    }
    for line in lines {
        say::out(line);
    }
    Ok(ExitCode::SUCCESS)
}

impl Source {
    /// All of it. Fails with a message for each file that cannot be read.
    pub(crate) fn read(&self) -> Result<Vec<FileText>, Failure> {
        read_all(&self.filename)
    }
}

/// The texts of files, of those in folders, and of stdin (`-`), in the order in which they are named.
pub(crate) fn read_all(paths: &[PathBuf]) -> Result<Vec<FileText>, Failure> {
    let mut texts = Vec::new();
    let mut broken = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            match stdin() {
                Ok(text) => texts.push(FileText {
                    name: "stdin".into(),
                    text,
                }),
                Err(message) => broken.push(message),
            }
            continue;
        }
        let found = match files::resources(path) {
            Ok(found) => found,
            Err(message) => {
                broken.push(with_hint(message));
                continue;
            }
        };
        if found.is_empty() {
            broken.push(format!(
                "{}: no .yaml, .yml or .json in it\n  hint: name a file, or the folder that holds them",
                path.display()
            ));
        }
        for file in found {
            match files::read_text(&file) {
                Ok(text) => texts.push(FileText {
                    name: name(&file),
                    text,
                }),
                Err(message) => broken.push(with_hint(message)),
            }
        }
    }
    if broken.is_empty() {
        Ok(texts)
    } else {
        Err(Failure::Data(broken))
    }
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

fn with_hint(message: String) -> String {
    if message.contains("\n  hint: ") {
        message
    } else {
        format!("{message}\n  hint: name a file that is there and can be read")
    }
}

fn stdin() -> Result<String, String> {
    let mut text = String::new();
    std::io::stdin()
        .take(REQUEST_MAX)
        .read_to_string(&mut text)
        .map_err(|e| {
            format!(
                "stdin: cannot be read: {}\n  hint: give YAML or JSON in UTF-8",
                files::words(&e)
            )
        })?;
    Ok(text)
}
