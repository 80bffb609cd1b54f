//! `meshward delete`: takes resources out of a mesh that runs, all of them or none.

use std::process::ExitCode;

use clap::Args;

use crate::apply::{Source, show};
use crate::exit::Failure;
use crate::mesh::folder::{Folder, Which};
use crate::mesh::protocol::{self, Ask};
use crate::say;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    source: Source,
    /// What is not there is no error.
    #[arg(long)]
    ignore_not_found: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let folder = Folder::of(&arguments.which)?;
    let files = arguments.source.read()?;
    let namespace = arguments.source.namespace;
    let ignore_not_found = arguments.ignore_not_found;
    let ask = Ask::Delete {
        files,
        namespace,
        ignore_not_found,
    };
    let answer = protocol::ask(&folder, ask)?;
    // What was asked for and is not there would be an error, so the files hold nothing.
    if answer.is_empty() && !arguments.ignore_not_found {
        say::out("No resources found");
    }
    show(answer)
}
