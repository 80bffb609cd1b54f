//! `meshward rollout`: makes the pods of deployments anew, and waits for them.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use meshward_core::api::object::Kind;

use crate::apply::show;
use crate::ca::span;
use crate::exit::Failure;
use crate::mesh::folder::{Folder, Which};
use crate::mesh::protocol::{self, Answer, Ask, Progress, Scope};
use crate::mesh::resources::{Named, Resource};
use crate::mesh::selector::Selector;
use crate::say;

/// How often the mesh is asked how far it is.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes pods anew, one after the other: each leaves when the next is ready, and what is open may end.
    Restart(Restart),
    /// Waits until all pods of a deployment are new.
    Status(Status),
}

#[derive(Args, Debug)]
pub(crate) struct Restart {
    #[command(flatten)]
    which: Which,
    #[arg(short, long, default_value = "default", value_name = "NS")]
    namespace: String,
    /// Only deployments with these labels.
    #[arg(short = 'l', long, value_name = "LABELS", value_parser = Selector::read)]
    selector: Option<Selector>,
    /// deployment NAME…, deployment/NAME…, or deployment for all of them.
    #[arg(required = true, value_name = "KIND|KIND/NAME")]
    words: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Status {
    #[command(flatten)]
    which: Which,
    #[arg(short, long, default_value = "default", value_name = "NS")]
    namespace: String,
    /// Give up after so long, 0s: never.
    #[arg(long, default_value = "0s", value_name = "SPAN", value_parser = span)]
    timeout: Duration,
    /// false: say how far it is and do not wait.
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    watch: bool,
    /// deployment NAME or deployment/NAME.
    #[arg(required = true, value_name = "KIND|KIND/NAME")]
    words: Vec<String>,
}

pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Restart(arguments) => restart(arguments),
        Command::Status(arguments) => status(&arguments),
    }
}

fn restart(arguments: Restart) -> Result<ExitCode, Failure> {
    let folder = Folder::of(&arguments.which)?;
    let named = Named::read(&arguments.words)?;
    let scope = Scope {
        named,
        namespace: Some(arguments.namespace),
        selector: arguments.selector.unwrap_or_default(),
    };
    let answer = protocol::ask(&folder, Ask::Restart { scope })?;
    if answer.is_empty() {
        say::out("No resources found");
    }
    show(answer)
}

fn status(arguments: &Status) -> Result<ExitCode, Failure> {
    let folder = Folder::of(&arguments.which)?;
    let name = match Named::read(&arguments.words)? {
        Named::Objects(names) if names.len() == 1 => names.into_iter().next(),
        _ => None,
    };
    let Some((kind, name)) = name else {
        return Err(Failure::Usage("rollout status takes one deployment".into()));
    };
    if kind != Resource(Kind::Deployment) {
        return Err(Failure::Server(format!(
            "error: no status viewer has been implemented for {}",
            kind.plural()
        )));
    }
    let end = Instant::now() + arguments.timeout;
    let mut said = String::new();
    loop {
        let ask = Ask::Rollout {
            name: name.clone(),
            namespace: arguments.namespace.clone(),
        };
        let Answer::Rollout(progress) = protocol::ask(&folder, ask)? else {
            return Err(Failure::Machine("the mesh answers something else".into()));
        };
        let Progress {
            replicas,
            updated,
            failed,
        } = progress;
        if let Some(why) = failed {
            let why = why.lines().next().unwrap_or_default();
            return Err(Failure::Server(format!(
                "error: deployment \"{name}\" exceeded its progress deadline\n  hint: {why}"
            )));
        }
        let line = if updated >= replicas {
            format!("deployment \"{name}\" successfully rolled out")
        } else {
            format!(
                "Waiting for deployment \"{name}\" rollout to finish: {updated} out of {replicas} new replicas have been updated..."
            )
        };
        if line != said {
            say::out(&line);
        }
        said = line;
        if updated >= replicas || !arguments.watch {
            return Ok(ExitCode::SUCCESS);
        }
        if !arguments.timeout.is_zero() && Instant::now() >= end {
            return Err(Failure::Server(
                "error: timed out waiting for the condition".into(),
            ));
        }
        thread::sleep(LOOK);
    }
}
