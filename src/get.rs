//! `meshward get`: what is in a mesh that runs.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use meshward_core::api::object::Kind;
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::{Serializer, Value, json};

use crate::exit::Failure;
use crate::mesh::folder::{Folder, Which};
use crate::mesh::protocol::{self, Answer, Ask, Item, List, Scope};
use crate::mesh::resources::{Named, Resource};
use crate::mesh::selector::Selector;
use crate::mesh::{table, yaml};
use crate::say;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    what: What,
    /// Only objects with these labels: app=web, app!=web, app, !app, app in (a, b).
    #[arg(short = 'l', long, value_name = "LABELS", value_parser = Selector::read)]
    selector: Option<Selector>,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// KIND, or several joined by commas, with names behind it or without; KIND/NAME; or all.
    #[arg(required = true, value_name = "KIND|KIND/NAME")]
    words: Vec<String>,
}

/// In which namespaces.
#[derive(Args, Debug)]
pub(crate) struct What {
    /// In one namespace [default: default]
    #[arg(short, long, value_name = "NS", conflicts_with = "all_namespaces")]
    pub(crate) namespace: Option<String>,
    /// In all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Wide,
    Yaml,
    Json,
    Name,
}

impl What {
    /// `None`: all of them.
    pub(crate) fn namespace(&self) -> Option<String> {
        let namespace = self.namespace.as_deref().unwrap_or("default");
        (!self.all_namespaces).then(|| namespace.to_owned())
    }

    /// What `words` and labels are about.
    pub(crate) fn scope(&self, named: Named, selector: Option<Selector>) -> Result<Scope, Failure> {
        if matches!(named, Named::Objects(_)) {
            if self.all_namespaces {
                return Err(Failure::Usage(
                    "a resource cannot be retrieved by name across all namespaces".into(),
                ));
            }
            if selector.as_ref().is_some_and(|s| !s.is_empty()) {
                return Err(Failure::Usage(
                    "name cannot be provided when a selector is specified".into(),
                ));
            }
        }
        Ok(Scope {
            named,
            namespace: self.namespace(),
            selector: selector.unwrap_or_default(),
        })
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments {
        which,
        what,
        selector,
        output,
        words,
    } = arguments;
    let folder = Folder::of(&which)?;
    let named = Named::read(&words)?;
    let is_one = matches!(&named, Named::Objects(names) if names.len() == 1);
    let scope = what.scope(named, selector)?;
    let namespace = scope.namespace.clone();
    let manifests = matches!(output, Output::Yaml | Output::Json);
    let Answer::Listed { lists, missing } = protocol::ask(&folder, Ask::Get { scope, manifests })?
    else {
        return Err(Failure::Machine("the mesh answers something else".into()));
    };
    let count: usize = lists.iter().map(|list| list.items.len()).sum();
    let is_named = is_one || !missing.is_empty();
    match output {
        Output::Table | Output::Wide if count == 0 && missing.is_empty() => {
            let is_namespaced = lists.iter().any(|list| list.kind.is_namespaced());
            match namespace.filter(|_| is_namespaced) {
                Some(namespace) => {
                    say::err(format_args!("No resources found in {namespace} namespace."))
                }
                None => say::err("No resources found"),
            }
        }
        Output::Table | Output::Wide => {
            let text = tables(&lists, namespace.is_none(), output == Output::Wide);
            if !text.is_empty() {
                say::out(text);
            }
        }
        Output::Name => {
            for List { kind, items } in &lists {
                for item in items {
                    say::out(format_args!("{kind}/{}", item.name));
                }
            }
        }
        Output::Yaml | Output::Json if count == 0 && is_named => {}
        Output::Yaml | Output::Json => {
            let object = whole(lists, is_one);
            say::out(match output {
                Output::Yaml => yaml::written(&object).trim_end_matches('\n').to_owned(),
                _ => pretty(&object)?,
            });
        }
    }
    if missing.is_empty() {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::Server(missing.join("\n")))
    }
}

/// One object by itself, or a list of them.
fn whole(lists: Vec<List>, is_one: bool) -> Value {
    let items = lists.into_iter().flat_map(|list| list.items);
    let mut items: Vec<Value> = items.filter_map(|item| item.manifest).collect();
    match items.pop() {
        Some(only) if is_one => only,
        last => {
            items.extend(last);
            json!({
                "apiVersion": "v1",
                "items": items,
                "kind": "List",
                "metadata": {"resourceVersion": ""},
            })
        }
    }
}

/// With four blanks a level, as kubectl.
fn pretty(object: &Value) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let mut to = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    "));
    let written = object.serialize(&mut to).map_err(|e| e.to_string());
    let text = written.and_then(|()| String::from_utf8(bytes).map_err(|e| e.to_string()));
    text.map_err(Failure::Machine)
}

/// A table for each kind that has objects.
fn tables(lists: &[List], all_namespaces: bool, wide: bool) -> String {
    let filled: Vec<&List> = lists.iter().filter(|list| !list.items.is_empty()).collect();
    let with_kind = filled.len() > 1;
    let tables = filled.iter().map(|list| {
        let List { kind, items } = list;
        let with_namespace = all_namespaces && kind.is_namespaced();
        let (columns, more) = columns(*kind);
        let namespace = with_namespace.then_some("NAMESPACE");
        let heading = namespace
            .into_iter()
            .chain(["NAME"])
            .chain(columns.iter().copied());
        let heading = heading.chain(more.iter().copied().filter(|_| wide));
        let heading: Vec<String> = heading.map(str::to_owned).collect();
        let row = |item: &Item| {
            let name = match with_kind {
                true => format!("{kind}/{}", item.name),
                false => item.name.clone(),
            };
            let namespace = with_namespace.then(|| item.namespace.clone());
            let cells = namespace
                .into_iter()
                .chain([name])
                .chain(item.cells.iter().cloned());
            let more = item.wide.iter().filter(|_| wide).cloned();
            cells.chain(more).collect()
        };
        let mut rows = vec![heading];
        rows.extend(items.iter().map(row));
        table::spread(&rows)
    });
    tables.collect::<Vec<_>>().join("\n\n")
}

/// After the name, and those of wide tables.
fn columns(kind: Resource) -> (&'static [&'static str], &'static [&'static str]) {
    match kind.0 {
        Kind::Pod => (
            &["READY", "STATUS", "RESTARTS", "AGE"],
            &[
                "IP",
                "NODE",
                "NOMINATED NODE",
                "READINESS GATES",
                "POLICIES",
            ],
        ),
        Kind::Service => (
            &["TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"],
            &["SELECTOR"],
        ),
        Kind::Deployment => (
            &["READY", "UP-TO-DATE", "AVAILABLE", "AGE"],
            &["CONTAINERS", "IMAGES", "SELECTOR"],
        ),
        Kind::Namespace => (&["STATUS", "AGE"], &[]),
        Kind::ServiceAccount => (&["SECRETS", "AGE"], &[]),
        Kind::ConfigMap => (&["DATA", "AGE"], &[]),
        Kind::PeerAuthentication => (&["MODE", "AGE"], &[]),
        Kind::RequestAuthentication => (&["AGE"], &[]),
        Kind::AuthorizationPolicy => (&["ACTION", "AGE"], &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(kind: Kind, names: &[(&str, &str)]) -> List {
        let item = |(namespace, name): &(&str, &str)| Item {
            namespace: (*namespace).into(),
            name: (*name).into(),
            cells: vec!["STRICT".into(), "5s".into()],
            wide: Vec::new(),
            manifest: Some(json!({ "name": name })),
        };
        List {
            kind: Resource(kind),
            items: names.iter().map(item).collect(),
        }
    }

    #[test]
    fn tables_of_several_kinds_say_which() {
        let one = list(Kind::PeerAuthentication, &[("shop", "default")]);
        assert_eq!(
            tables(&[one], false, false),
            "NAME      MODE     AGE\ndefault   STRICT   5s"
        );
        let lists = [
            list(Kind::PeerAuthentication, &[("shop", "default")]),
            list(Kind::Pod, &[]),
            list(Kind::Namespace, &[("", "shop")]),
        ];
        assert_eq!(
            tables(&lists, true, false),
            "NAMESPACE   NAME                                         MODE     AGE\n\
             shop        peerauthentication.security.istio.io/default   STRICT   5s\n\n\
             NAME             STATUS   AGE\nnamespace/shop   STRICT   5s"
                .replace(
                    "NAME                                         MODE",
                    "NAME                                           MODE"
                )
        );
    }

    #[test]
    fn one_named_object_stands_by_itself() {
        let one = || vec![list(Kind::Pod, &[("shop", "a")])];
        assert_eq!(whole(one(), true), json!({"name": "a"}));
        assert_eq!(whole(one(), false)["items"], json!([{"name": "a"}]));
        assert_eq!(
            pretty(&whole(Vec::new(), false)).unwrap(),
            "{\n    \"apiVersion\": \"v1\",\n    \"items\": [],\n    \"kind\": \"List\",\n    \"metadata\": {\n        \"resourceVersion\": \"\"\n    }\n}"
        );
    }
}
