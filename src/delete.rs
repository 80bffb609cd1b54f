//! `meshward delete`: takes resources out of a mesh that runs, all of them or none.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::apply::{read_all, show};
use crate::exit::Failure;
use crate::get::What;
use crate::mesh::folder::{Folder, Which};
use crate::mesh::protocol::{self, Ask};
use crate::mesh::resources::Named;
use crate::mesh::selector::Selector;
use crate::say;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    what: What,
    /// A file, a folder (.yaml, .yml and .json in it and below), or - for stdin; may be repeated.
    #[arg(
        short,
        long,
        value_name = "FILE|DIR|-",
        required_unless_present = "words",
        conflicts_with_all = ["words", "all", "selector", "all_namespaces"]
    )]
    filename: Vec<PathBuf>,
    /// Read folders and what is below them, as is always done; for those used to kubectl.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// What is not there is no error.
    #[arg(long)]
    ignore_not_found: bool,
    /// Every object of the kinds.
    #[arg(long, conflicts_with = "selector")]
    all: bool,
    /// Every object of the kinds with these labels.
    #[arg(short = 'l', long, value_name = "LABELS", value_parser = Selector::read)]
    selector: Option<Selector>,
    /// KIND NAME…, KIND/NAME…, or KIND with --all or -l.
    #[arg(value_name = "KIND|KIND/NAME")]
    words: Vec<String>,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let folder = Folder::of(&arguments.which)?;
    let ignore_not_found = arguments.ignore_not_found;
    let ask = if arguments.words.is_empty() {
        Ask::Delete {
            files: read_all(&arguments.filename)?,
            namespace: arguments.what.namespace().unwrap_or_default(),
            ignore_not_found,
        }
    } else {
        let named = Named::read(&arguments.words)?;
        match (&named, arguments.all, arguments.selector.is_some()) {
            (Named::Kinds(_), false, false) => {
                return Err(Failure::Usage(
                    "resource(s) were provided, but no name was specified\n  hint: name them, or take --all".into(),
                ));
            }
            (Named::Objects(_), true, _) => {
                return Err(Failure::Usage(
                    "--all takes kinds alone, not names of resources".into(),
                ));
            }
            _ => {}
        }
        Ask::DeleteNamed {
            scope: arguments.what.scope(named, arguments.selector)?,
            ignore_not_found,
        }
    };
    let answer = protocol::ask(&folder, ask)?;
    // What was asked for and is not there would be an error, so nothing was asked for.
    if answer.is_empty() && !ignore_not_found {
        say::out("No resources found");
    }
    show(answer)
}
