//! `meshward validate`: whether files are valid, without a mesh.
//!
//! Valid is what Istio would admit. What of it `up` and `apply` would refuse because nothing here acts on it is said in a note,
//! and changes no exit code.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use meshward_core::api::load::{Finding, Text, validate_objects};

use crate::apply::Source;
use crate::exit::Failure;
use crate::say;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// What is skipped with a warning is an error.
    #[arg(long)]
    strict: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let files = arguments.source.read()?;
    let texts: Vec<Text> = files
        .into_iter()
        .map(|file| Text {
            name: Arc::from(file.name),
            text: file.text,
        })
        .collect();
    let namespace = &arguments.source.namespace;
    let judged = validate_objects(&texts, namespace, arguments.strict);
    let mut findings = by_file(judged.findings);
    let mut notes = by_file(judged.not_enforced);
    let mut all_valid = true;
    let mut said = BTreeSet::new();
    // A file that is named twice is judged twice and spoken of once.
    for text in texts.iter().filter(|text| said.insert(&text.name)) {
        let findings = findings.remove(&text.name).unwrap_or_default();
        for finding in &findings {
            say::err(finding);
        }
        for note in notes.remove(&text.name).unwrap_or_default() {
            say::err(format_args!("{}: note: {}", note.origin, note.message));
        }
        if findings.iter().any(Finding::is_error) {
            all_valid = false;
        } else {
            say::out(format_args!("\"{}\" is valid", text.name));
        }
    }
    if all_valid {
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(Failure::Data(Vec::new()).code())
    }
}

fn by_file(findings: Vec<Finding>) -> BTreeMap<Arc<str>, Vec<Finding>> {
    let mut files: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for finding in findings {
        let file = Arc::clone(&finding.origin.file);
        files.entry(file).or_default().push(finding);
    }
    files
}
