//! `meshward proxy-config`: what one sidecar is configured with.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::exit::Failure;
use crate::mesh::folder::{Folder, Which};
use crate::mesh::protocol::{self, Ask, Part};
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
