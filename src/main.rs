//! The executable `meshward`: one file for each subcommand, which reads arguments, calls a library and prints.

mod apply;
mod ca;
mod config;
mod delete;
mod exec;
mod exit;
mod explain;
mod files;
mod get;
mod label;
mod logs;
mod logs_command;
mod machine;
mod mesh;
mod proxy_config;
mod proxy_status;
mod rollout;
mod say;
mod sidecar;
mod token;
mod up;
mod validate;
mod wait;
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
    /// Takes resources out of a mesh that runs, by name or by file, as `kubectl delete`.
    Delete(delete::Arguments),
    /// Runs a command as a workload of a mesh that runs.
    Exec(exec::Arguments),
    /// Says what would become of a request, and why: in a mesh that runs, or in one that files describe.
    Explain(explain::Arguments),
    /// Shows what is in a mesh that runs, as `kubectl get`.
    Get(get::Arguments),
    /// Changes labels of resources of a mesh that runs, as `kubectl label`.
    Label(label::Arguments),
    /// Shows what an app or its sidecar wrote, as `kubectl logs`.
    Logs(logs_command::Arguments),
    /// Shows what one sidecar of a mesh that runs is configured with, as istioctl does.
    #[command(alias = "pc")]
    ProxyConfig(proxy_config::Arguments),
    /// Shows for each sidecar of a mesh that runs what it decides by, as istioctl does.
    #[command(alias = "ps")]
    ProxyStatus(proxy_status::Arguments),
    /// Makes the pods of deployments anew, as `kubectl rollout`.
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// Runs a sidecar from one static file. SIGHUP reads everything again, SIGTERM drains.
    Sidecar(sidecar::Arguments),
    /// Makes keys and JSON Web Tokens, and reads tokens.
    #[command(subcommand)]
    Token(token::Command),
    /// Starts a mesh on this machine from Kubernetes and Istio YAML. Stays until Ctrl-C.
    Up(up::Arguments),
    /// Says whether Kubernetes and Istio YAML is valid, without a mesh, as `istioctl validate -f`.
    Validate(validate::Arguments),
    /// Waits until sidecars are up to date, or resources are ready or gone, as `kubectl wait`.
    Wait(wait::Arguments),
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
        Command::Explain(arguments) => explain::run(arguments),
        Command::Get(arguments) => get::run(arguments),
        Command::Label(arguments) => label::run(arguments),
        Command::Logs(arguments) => logs_command::run(arguments),
        Command::ProxyConfig(arguments) => proxy_config::run(arguments),
        Command::ProxyStatus(arguments) => proxy_status::run(&arguments),
        Command::Rollout(command) => rollout::run(command),
        Command::Sidecar(arguments) => sidecar::run(arguments),
        Command::Token(command) => token::run(command),
        Command::Up(arguments) => up::run(arguments),
        Command::Validate(arguments) => validate::run(arguments),
        Command::Wait(arguments) => wait::run(arguments),
        Command::Walkthrough(arguments) => walkthrough::run(arguments),
    };
    match outcome {
        Ok(code) => said(code),
        Err(failure) => {
            say::err(&failure);
            failure.code()
        }
    }
}

/// The code, unless what was said got lost: who keeps the output would take a part for the whole.
fn said(code: ExitCode) -> ExitCode {
    let Some(e) = say::lost() else {
        return code;
    };
    say::err(format_args!(
        "error: stdout cannot be written: {}",
        files::words(e)
    ));
    if code == ExitCode::SUCCESS {
        ExitCode::FAILURE
    } else {
        code
    }
}
