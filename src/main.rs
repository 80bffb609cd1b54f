//! The executable `meshward`: one file for each subcommand, which reads arguments, calls a library and prints.

mod ca;
mod config;
mod exit;
mod files;
mod logs;
mod mesh;
mod say;
mod sidecar;
mod walkthrough;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Security data plane of a service mesh: SPIFFE mutual TLS and Istio policies.
#[derive(Debug, Parser)]
#[command(version, about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a certificate authority and issues workload certificates.
    #[command(subcommand)]
    Ca(ca::Command),
    /// Runs a sidecar from one static file. SIGHUP reads everything again, SIGTERM drains.
    Sidecar(sidecar::Arguments),
    /// Runs the commands of a walk-through and compares what they print.
    Walkthrough(walkthrough::Arguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(exit::USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let outcome = match arguments.command {
        Command::Ca(command) => ca::run(command),
        Command::Sidecar(arguments) => sidecar::run(arguments),
        Command::Walkthrough(arguments) => walkthrough::run(arguments),
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            say::err(&failure);
            failure.code()
        }
    }
}
