//! `meshward wait`: until sidecars are up to date, or resources are ready or gone.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use meshward_core::api::object::Kind;

use crate::ca::span;
use crate::exit::Failure;
use crate::get::What;
use crate::mesh::folder::{Folder, Which};
use crate::mesh::protocol::{self, Answer, Ask, Awaited, Scope};
use crate::mesh::resources::{Named, Resource};
use crate::mesh::selector::Selector;
use crate::say;

/// How often the mesh is asked.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Args, Debug)]
#[command(after_help = "\
synced               every sidecar decides by the newest state of the mesh
delete               it is not there any more
condition=Ready      the app of a pod listens
condition=Available  the apps of all pods of a deployment listen")]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    what: What,
    /// synced, delete, condition=Ready or condition=Available.
    #[arg(long = "for", value_name = "WHAT", value_parser = Condition::read)]
    condition: Condition,
    /// Give up after so long.
    #[arg(long, default_value = "30s", value_name = "SPAN", value_parser = span)]
    timeout: Duration,
    /// All sidecars of the mesh, or of the namespace; with a kind all of its objects.
    #[arg(long)]
    all: bool,
    /// With synced a workload, as exec takes it; else KIND NAME… or KIND/NAME….
    #[arg(value_name = "WORKLOAD|KIND/NAME")]
    words: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Synced,
    Gone,
    Ready,
    Available,
}

impl Condition {
    fn read(text: &str) -> Result<Self, &'static str> {
        match text.to_ascii_lowercase().as_str() {
            "synced" => Ok(Self::Synced),
            "delete" => Ok(Self::Gone),
            "condition=ready" | "condition=ready=true" => Ok(Self::Ready),
            "condition=available" | "condition=available=true" => Ok(Self::Available),
            _ => Err("take synced, delete, condition=Ready or condition=Available"),
        }
    }
}

type State = Vec<Awaited>;

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let folder = Folder::of(&arguments.which)?;
    let look: Box<dyn Fn() -> Result<State, Failure>> = match arguments.condition {
        Condition::Synced => {
            if arguments.words.is_empty() != arguments.all {
                return Err(Failure::Usage("name workloads, or take --all".into()));
            }
            let words = arguments.words;
            let namespace = arguments.what.namespace;
            Box::new(move || synced(&folder, &words, namespace.as_deref()))
        }
        condition => {
            let named = Named::read(&arguments.words)?;
            if matches!(named, Named::Kinds(_)) != arguments.all {
                return Err(Failure::Usage(
                    "resource(s) were provided, but no name was specified\n  hint: name them, or take --all".into(),
                ));
            }
            let scope = arguments.what.scope(named, None)?;
            if condition == Condition::Gone {
                let names = self::named(&folder, &scope)?;
                Box::new(move || gone(&folder, &scope, &names))
            } else {
                Box::new(move || ready(&folder, &scope, condition))
            }
        }
    };
    until(&*look, arguments.timeout)
}

/// Says of each when it has come, and gives up on the rest.
fn until(
    look: &dyn Fn() -> Result<State, Failure>,
    timeout: Duration,
) -> Result<ExitCode, Failure> {
    let end = Instant::now() + timeout;
    let mut said: Vec<(String, String)> = Vec::new();
    loop {
        let state = look()?;
        if state.is_empty() {
            return Err(Failure::Server("error: no matching resources found".into()));
        }
        let mut missing = Vec::new();
        for awaited in state {
            let plural = plural(&awaited.name);
            let key = (awaited.namespace, awaited.name);
            if said.contains(&key) {
                continue;
            }
            if awaited.has_come {
                say::out(format_args!("{} condition met", key.1));
                said.push(key);
            } else {
                missing.push(format!(
                    "error: timed out waiting for the condition on {plural}"
                ));
            }
        }
        if missing.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= end {
            return Err(Failure::Server(missing.join("\n")));
        }
        thread::sleep(LOOK);
    }
}

/// `pods/web` of `pod/web`.
fn plural(name: &str) -> String {
    let parts = name.split_once('/');
    match parts.and_then(|(kind, name)| Some((Resource::named(kind)?, name))) {
        Some((kind, name)) => format!("{}/{name}", kind.plural()),
        None => name.to_owned(),
    }
}

fn synced(folder: &Folder, words: &[String], namespace: Option<&str>) -> Result<State, Failure> {
    let ask = Ask::Synced {
        workloads: words.to_vec(),
        namespace: namespace.map(str::to_owned),
    };
    match protocol::ask(folder, ask)? {
        Answer::Synced(pods) => Ok(pods),
        _ => Err(Failure::Machine("the mesh answers something else".into())),
    }
}

/// An object that is there.
struct Found {
    kind: Resource,
    namespace: String,
    name: String,
    /// The first cell of its table.
    cell: String,
}

/// What is there of `scope`, and what it names that is not, in the words of kubectl.
fn there(folder: &Folder, scope: &Scope) -> Result<(Vec<Found>, Vec<String>), Failure> {
    let ask = Ask::Get {
        scope: Scope {
            named: scope.named.clone(),
            namespace: scope.namespace.clone(),
            selector: Selector::default(),
        },
        manifests: false,
    };
    let Answer::Listed { lists, missing } = protocol::ask(folder, ask)? else {
        return Err(Failure::Machine("the mesh answers something else".into()));
    };
    let found = lists.into_iter().flat_map(|list| {
        let kind = list.kind;
        list.items.into_iter().map(move |item| Found {
            kind,
            namespace: item.namespace,
            name: item.name,
            cell: item.cells.into_iter().next().unwrap_or_default(),
        })
    });
    Ok((found.collect(), missing))
}

/// What goes: kind, namespace and name. No namespace: that of the scope, if the kind has any.
type Going = (Resource, Option<String>, String);

/// What is named, or of the kinds what is there now.
fn named(folder: &Folder, scope: &Scope) -> Result<Vec<Going>, Failure> {
    match &scope.named {
        Named::Objects(names) => {
            let names = names.iter().cloned();
            Ok(names.map(|(kind, name)| (kind, None, name)).collect())
        }
        Named::Kinds(_) => {
            let (found, _) = there(folder, scope)?;
            let found = found.into_iter();
            Ok(found.map(|f| (f.kind, Some(f.namespace), f.name)).collect())
        }
    }
}

fn gone(folder: &Folder, scope: &Scope, names: &[Going]) -> Result<State, Failure> {
    let (found, _) = there(folder, scope)?;
    let is_there = |(kind, namespace, name): &Going| {
        found.iter().any(|f| {
            (f.kind, &f.name) == (*kind, name)
                && namespace.as_ref().is_none_or(|n| *n == f.namespace)
        })
    };
    let state = names.iter().map(|going| {
        let (kind, namespace, name) = going;
        Awaited {
            namespace: namespace.clone().unwrap_or_default(),
            name: format!("{kind}/{name}"),
            has_come: !is_there(going),
        }
    });
    Ok(state.collect())
}

fn ready(folder: &Folder, scope: &Scope, condition: Condition) -> Result<State, Failure> {
    let fits = match condition {
        Condition::Available => Kind::Deployment,
        _ => Kind::Pod,
    };
    let mut kinds = match &scope.named {
        Named::Kinds(kinds) => kinds.clone(),
        Named::Objects(names) => names.iter().map(|(kind, _)| *kind).collect(),
    };
    kinds.retain(|kind| kind.0 != fits);
    if let Some(kind) = kinds.first() {
        return Err(Failure::Usage(format!(
            "{} have no such condition\n  hint: pods are Ready, deployments Available",
            kind.plural()
        )));
    }
    let (found, missing) = there(folder, scope)?;
    if !missing.is_empty() {
        return Err(Failure::Server(missing.join("\n")));
    }
    let is_ready = |cell: &str| cell.split_once('/').is_some_and(|(a, b)| a == b);
    let state = found.into_iter().map(|found| Awaited {
        namespace: found.namespace,
        name: format!("{}/{}", found.kind, found.name),
        has_come: is_ready(&found.cell),
    });
    Ok(state.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_the_same_name_in_two_namespaces_are_both_waited_for() {
        let late = |has_come| {
            let awaited = |namespace: &str, has_come| Awaited {
                namespace: namespace.into(),
                name: "pod/sleep-0".into(),
                has_come,
            };
            until(
                &|| Ok(vec![awaited("default", true), awaited("test", has_come)]),
                Duration::ZERO,
            )
        };
        assert!(late(true).is_ok());
        let Err(Failure::Server(says)) = late(false) else {
            panic!("one of two is enough");
        };
        assert_eq!(
            says,
            "error: timed out waiting for the condition on pods/sleep-0"
        );
    }
}
