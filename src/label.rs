//! `meshward label`: changes labels of resources of a mesh that runs.

use std::process::ExitCode;

use clap::Args;
use meshward_core::api::load::grammar::{is_label_value, is_qualified_name};

use crate::apply::show;
use crate::exit::Failure;
use crate::get::What;
use crate::mesh::folder::{Folder, Which};
use crate::mesh::protocol::{self, Ask};
use crate::mesh::resources::Named;
use crate::mesh::selector::Selector;
use crate::say;

#[derive(Debug, Args)]
#[command(after_help = "\
A label that says whether pods get sidecars (istio-injection of a namespace, sidecar.istio.io/inject of a pod) counts for
pods that are made afterwards: see `meshward rollout restart`.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    what: What,
    /// A label that is there may get another value.
    #[arg(long)]
    overwrite: bool,
    /// Every object of the kinds.
    #[arg(long, conflicts_with = "selector")]
    all: bool,
    /// Every object of the kinds with these labels.
    #[arg(short = 'l', long, value_name = "LABELS", value_parser = Selector::read)]
    selector: Option<Selector>,
    /// KIND NAME… or KIND/NAME…, then KEY=VALUE to set a label and KEY- to take one away.
    #[arg(required = true, value_name = "KIND|KIND/NAME|KEY=VALUE|KEY-")]
    words: Vec<String>,
}

type Change = (String, Option<String>);

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let folder = Folder::of(&arguments.which)?;
    let (words, changes) = changes(&arguments.words).map_err(Failure::Usage)?;
    let named = Named::read(words)?;
    if matches!(named, Named::Kinds(_)) && !arguments.all && arguments.selector.is_none() {
        return Err(Failure::Usage(
            "one or more resources must be specified as <resource> <name> or <resource>/<name>\n  hint: name them, or take --all".into(),
        ));
    }
    let ask = Ask::Label {
        scope: arguments.what.scope(named, arguments.selector)?,
        changes,
        overwrite: arguments.overwrite,
    };
    let answer = protocol::ask(&folder, ask)?;
    if answer.is_empty() {
        say::out("No resources found");
    }
    show(answer)
}

/// The words before the first change, and the changes.
fn changes(words: &[String]) -> Result<(&[String], Vec<Change>), String> {
    let is_change = |word: &String| word.contains('=') || word.ends_with('-');
    let first = words.iter().position(is_change);
    let (names, pairs) = words.split_at(first.unwrap_or(words.len()));
    if pairs.is_empty() {
        return Err("at least one label update is required\n  hint: KEY=VALUE sets a label, KEY- takes it away".into());
    }
    let mut changes: Vec<Change> = Vec::new();
    for word in pairs {
        let (key, value) = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => (key, Some(value)),
            (None, Some(key)) => (key, None),
            (None, None) => {
                return Err(format!(
                    "all resources must be specified before label changes: {word}"
                ));
            }
        };
        if !is_qualified_name(key) {
            return Err(format!(
                "`{key}` is no key of a label\n  hint: use `[domain/]name` of letters, digits, `-`, `_` and `.`, the name at most 63 long"
            ));
        }
        if let Some(value) = value
            && !is_label_value(value)
        {
            return Err(format!(
                "`{value}` is no value of a label\n  hint: use letters, digits, `-`, `_` and `.`, at most 63 of them, none of the signs first or last"
            ));
        }
        if changes.iter().any(|(other, _)| other == key) {
            return Err(format!("`{key}` is changed twice"));
        }
        changes.push((key.to_owned(), value.map(str::to_owned)));
    }
    Ok((names, changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_before_changes() {
        let words = ["ns", "default", "a=b", "x.io/c-", "d="].map(str::to_owned);
        let (names, changes) = changes(&words).unwrap();
        assert_eq!(names, ["ns", "default"]);
        let change = |key: &str, value: Option<&str>| (key.to_owned(), value.map(str::to_owned));
        assert_eq!(
            changes,
            [
                change("a", Some("b")),
                change("x.io/c", None),
                change("d", Some(""))
            ]
        );
        for (words, says) in [
            (&["ns", "default"][..], "at least one label update"),
            (&["ns", "a=b", "default"], "all resources must be"),
            (&["ns", "a", "=b"], "`` is no key"),
            (&["ns", "a", "b=c=d"], "`c=d` is no value"),
            (&["ns", "a", "b=c", "b-"], "`b` is changed twice"),
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let error = super::changes(&words).expect_err("they make no sense");
            assert!(error.starts_with(says), "{error}");
        }
    }
}
