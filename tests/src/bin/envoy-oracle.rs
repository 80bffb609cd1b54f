//! Asks a real Envoy the same questions as our sidecar: those of the conformance corpus, and drawn ones.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use meshward_tests::conformance::Options;
use meshward_tests::conformance::questions::{Asked, questions};
use meshward_tests::oracle::compare::compare;
use meshward_tests::oracle::envoy::Material;
use meshward_tests::{oracle, shared};
use meshward_tokio::Clock;

/// Asks Envoy and a sidecar of ours the same, and compares what clients, applications and logs see.
#[derive(Debug, Parser)]
struct Arguments {
    /// The executable of Envoy.
    #[arg(long, value_name = "FILE")]
    envoy: PathBuf,
    /// Where configurations and logs are written.
    #[arg(long, value_name = "FOLDER", default_value = "target/envoy-oracle")]
    folder: PathBuf,
    /// Of the corpus, one theme.
    #[arg(long)]
    theme: Option<String>,
    /// Of the corpus, one case or check.
    #[arg(long)]
    id: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    oracle::namespace::enter().map_err(|error| format!("no network namespace: {error}"))?;
    let Some(shared) = shared::root() else {
        return Ok(ExitCode::SUCCESS);
    };
    let options = Options {
        folder: shared.join("corpus/open"),
        theme: arguments.theme.clone(),
        id: arguments.id.clone(),
        ..Options::default()
    };
    let now = Clock::start().now().wall;
    let Asked {
        places,
        questions,
        passed_over,
    } = questions(&options, now).map_err(|error| error.to_string())?;
    for (id, reason) in &passed_over {
        println!("passed over {id}: {reason}");
    }
    let material = Material::new(now)?;
    let _ = std::fs::remove_dir_all(&arguments.folder);
    let differences = compare(
        &arguments.envoy,
        &arguments.folder,
        &places,
        &questions,
        &material,
        &|_| {},
    )?;
    for difference in &differences {
        println!(
            "different {}\n  ours  {}\n  envoy {}",
            difference.id, difference.ours, difference.envoy
        );
    }
    println!(
        "{} places, {} passed over\n{} passed, {} failed",
        places.len(),
        passed_over.len(),
        questions.len() - differences.len(),
        differences.len()
    );
    Ok(ExitCode::from(u8::from(!differences.is_empty())))
}
