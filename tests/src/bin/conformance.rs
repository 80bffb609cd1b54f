//! Runs the conformance corpus: `conformance DIR [--theme T] [--id ID] [--json FILE] [--fixtures FILE]
//! [--driver simulator|tokio] [--rename]`.
//!
//! Exit codes: 0 nothing failed, 1 something did, 64 usage, 65 a file that cannot be read, 74 a report that cannot be
//! written.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use meshward_tests::conformance::{self, Options, Refused, run};

/// Runs the cases of a folder; the last line counts what passed, failed and was skipped.
#[derive(Parser, Debug)]
#[command(name = "conformance", version)]
struct Args {
    /// The folder with the case files.
    dir: PathBuf,
    /// Only the cases of this theme.
    #[arg(long)]
    theme: Option<String>,
    /// Only this case, or this check.
    #[arg(long)]
    id: Option<String>,
    /// Also writes every result to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The meshes; `fixtures.yaml` in DIR or in its parent by default, then that of the shared corpus.
    #[arg(long)]
    fixtures: Option<PathBuf>,
    /// What carries the bytes.
    #[arg(long, value_enum, default_value_t = Driver::Simulator)]
    driver: Driver,
    /// With other names, ports and values than the files say, everywhere alike.
    #[arg(long)]
    rename: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Driver {
    /// Virtual time in one process.
    Simulator,
    /// Sockets of this host, in its time.
    Tokio,
}

const FAILED: u8 = 1;
/// `sysexits.h`.
const USAGE: u8 = 64;
const DATA: u8 = 65;
const IO: u8 = 74;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nobody is left to tell that nothing can be told.
            let _ = error.print();
            return match error.use_stderr() {
                true => ExitCode::from(USAGE),
                false => ExitCode::SUCCESS,
            };
        }
    };
    let options = Options {
        folder: args.dir,
        fixtures: args.fixtures,
        theme: args.theme,
        id: args.id,
        renamed: args.rename,
        driver: match args.driver {
            Driver::Simulator => conformance::Driver::Simulator,
            Driver::Tokio => conformance::Driver::Tokio,
        },
        ..Options::default()
    };
    let report = match run(&options) {
        Ok(report) => report,
        Err(refused) => {
            eprintln!("{refused}");
            return ExitCode::from(match refused {
                Refused::Unreadable(_) => DATA,
                Refused::Nothing(_) => USAGE,
            });
        }
    };
    if let Some(file) = &args.json
        && let Err(error) = fs::write(file, format!("{:#}\n", report.to_json()))
    {
        eprintln!("{}: {error}", file.display());
        return ExitCode::from(IO);
    }
    // A reader that closed the pipe early still gets the exit code.
    let _ = writeln!(io::stdout().lock(), "{report}");
    let [_, failed, _] = report.counts();
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(FAILED),
    }
}
