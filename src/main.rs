//! The executable `meshward`: one file for each subcommand, which reads arguments, calls a library and prints.

mod apply;
mod ca;
mod config;
mod delete;
mod exec;
mod exit;
mod files;
mod logs;
mod machine;
mod mesh;
mod say;
mod sidecar;
mod token;
mod up;
mod validate;
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
    /// Changes a mesh that runs: Kubernetes and Istio YAML, as `kubectl apply -R -f`.
    Apply(apply::Arguments),
    /// Makes a certificate authority and issues workload certificates.
    #[command(subcommand)]
    Ca(ca::Command),
    /// Takes resources out of a mesh that runs, as `kubectl delete -R -f`.
    Delete(delete::Arguments),
    /// Runs a command as a workload of a mesh that runs.
    Exec(exec::Arguments),
    /// Runs a sidecar from one static file. SIGHUP reads everything again, SIGTERM drains.
    Sidecar(sidecar::Arguments),
    /// Makes keys and JSON Web Tokens, and reads tokens.
    #[command(subcommand)]
    Token(token::Command),
    /// Starts a mesh on this machine from Kubernetes and Istio YAML. Stays until Ctrl-C.
    Up(up::Arguments),
    /// Says whether Kubernetes and Istio YAML is valid, without a mesh, as `istioctl validate -f`.
    Validate(validate::Arguments),
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
        Command::Apply(arguments) => apply::run(arguments),
        Command::Ca(command) => ca::run(command),
        Command::Delete(arguments) => delete::run(arguments),
        Command::Exec(arguments) => exec::run(arguments),
        Command::Sidecar(arguments) => sidecar::run(arguments),
        Command::Token(command) => token::run(command),
        Command::Up(arguments) => up::run(arguments),
        Command::Validate(arguments) => validate::run(arguments),
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
