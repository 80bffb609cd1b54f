//! `meshward proxy-config`: what one sidecar is configured with.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use meshward_core::telemetry::levels::Levels;

use crate::exit::Failure;
use crate::mesh::folder::{Folder, Which};
use crate::mesh::protocol::{self, Ask, LevelChange, Part};
use crate::proxy_status::Output;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Where connections come in, by their first bytes, and where they go.
    #[command(visible_aliases = ["listeners", "l"])]
    Listener(Whose),
    /// Where requests go, by their authority.
    #[command(visible_aliases = ["routes", "r"])]
    Route(Whose),
    /// Destinations; -o json shows their endpoints and how each is spoken to.
    #[command(visible_aliases = ["clusters", "c"])]
    Cluster(Whose),
    /// Certificates and roots; never a key.
    #[command(visible_aliases = ["secrets", "s"])]
    Secret(Whose),
    /// Access policies that count, in the order in which they are asked.
    #[command(visible_aliases = ["policies", "p"])]
    Policy(Whose),
    /// How much a sidecar writes to its istio-proxy.log beside its records, and changes it while it runs.
    #[command(visible_alias = "o")]
    Log(Log),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Scopes: connection (why links end before their time), jwt, rbac (which policy decided). All they write has the level
debug. Levels: trace, debug, info, warning, error, critical, off; warning until they are changed.")]
struct Log {
    #[command(flatten)]
    whose: Whose,
    /// For one scope or several, or one level for all
    #[arg(long, value_name = "[SCOPE:]LEVEL,…")]
    level: Option<String>,
    /// Back to the levels with which a sidecar starts
    #[arg(short, long, conflicts_with = "level")]
    reset: bool,
}

/// Whose sidecar.
#[derive(Debug, Args)]
struct Whose {
    #[command(flatten)]
    which: Which,
    /// Namespace of the workload [default: default]
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// NAME, deploy/NAME or pod/NAME, with `.NS` or without
    workload: String,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let (what, whose) = match arguments.what {
        What::Listener(whose) => (Part::Listener, whose),
        What::Route(whose) => (Part::Route, whose),
        What::Cluster(whose) => (Part::Cluster, whose),
        What::Secret(whose) => (Part::Secret, whose),
        What::Policy(whose) => (Part::Policy, whose),
        What::Log(log) => return run_log(log),
    };
    let folder = Folder::of(&whose.which)?;
    let ask = Ask::ProxyConfig {
        what,
        workload: whose.workload,
        namespace: whose.namespace,
    };
    whose.output.show(protocol::look(&folder, ask)?);
    Ok(ExitCode::SUCCESS)
}

fn run_log(log: Log) -> Result<ExitCode, Failure> {
    let change = match (log.level, log.reset) {
        (Some(text), _) => {
            let tried = Levels::default().changed(&text);
            tried.map_err(|e| Failure::Usage(e.to_string()))?;
            Some(LevelChange::To(text))
        }
        (None, true) => Some(LevelChange::Reset),
        (None, false) => None,
    };
    let whose = log.whose;
    let folder = Folder::of(&whose.which)?;
    let ask = Ask::Levels {
        workload: whose.workload,
        namespace: whose.namespace,
        change,
    };
    whose.output.show(protocol::look(&folder, ask)?);
    Ok(ExitCode::SUCCESS)
}
