//! `meshward proxy-status`: for each sidecar what it decides by.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::exit::Failure;
use crate::mesh::folder::{Folder, Which};
use crate::mesh::protocol::{self, Ask};
use crate::say;

#[derive(Debug, Args)]
#[command(after_help = "\
STATUS is SYNCED where the sidecar decides by the newest snapshot, STALE where it has not taken it over yet.
Sidecars with the same POLICIES decide by policies that say the same.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// How something is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    #[value(alias = "short")]
    Table,
    Json,
}

impl Output {
    pub(crate) fn show(self, (text, json): (String, serde_json::Value)) {
        match self {
            Self::Table => say::out(text),
            Self::Json => say::out(format_args!("{json:#}")),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let folder = Folder::of(&arguments.which)?;
    let shown = protocol::look(&folder, Ask::ProxyStatus)?;
    arguments.output.show(shown);
    Ok(ExitCode::SUCCESS)
}
