//! Asks a real Envoy the same questions as our sidecar: those of the conformance corpus, and drawn ones.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use meshward_tests::conformance::Options;
use meshward_tests::conformance::questions::{Asked, questions};
use meshward_tests::oracle::compare::compare;
use meshward_tests::oracle::envoy::Material;
use meshward_tests::oracle::{Question, drawn};
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
    /// So many drawn questions besides.
    #[arg(long, value_name = "N", default_value_t = 0)]
    drawn: usize,
    /// What they are drawn by.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The corpus; by default the shared one.
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
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
    let shared = || shared::root().map(|shared| shared.join("corpus/open"));
    let Some(folder) = arguments.corpus.clone().or_else(shared) else {
        return Ok(ExitCode::SUCCESS);
    };
    let options = Options {
        folder,
        theme: arguments.theme.clone(),
        id: arguments.id.clone(),
        ..Options::default()
    };
    let now = Clock::start().now().wall;
    let Asked {
        mut places,
        mut questions,
        passed_over,
    } = questions(&options, now).map_err(|error| error.to_string())?;
    for (id, reason) in &passed_over {
        println!("passed over {id}: {reason}");
    }
    let of_corpus = questions.len();
    let (more, drawn) = drawn::questions(arguments.seed, arguments.drawn, now);
    let first = places.len();
    places.extend(more);
    questions.extend(drawn.into_iter().map(|question| Question {
        place: first + question.place,
        ..question
    }));
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
    let (meant, differences): (Vec<_>, Vec<_>) = differences
        .iter()
        .partition(|difference| difference.reason.is_some());
    for difference in meant {
        let id = &difference.question.id;
        println!("different {id}: {}", difference.reason.unwrap_or_default());
    }
    for difference in &differences {
        let question = &difference.question;
        println!(
            "wrong {}, place {}, from {}, {}: {}\n  ours  {}\n  envoy {}",
            question.id,
            question.place,
            question.from.ip(),
            question.identity.as_deref().unwrap_or("in plain text"),
            question.what,
            difference.ours,
            difference.envoy
        );
    }
    println!(
        "{} places; {of_corpus} questions of the corpus, {} drawn by seed {}, {} passed over\n{} passed, {} failed",
        places.len(),
        questions.len() - of_corpus,
        arguments.seed,
        passed_over.len(),
        questions.len() - differences.len(),
        differences.len()
    );
    Ok(ExitCode::from(u8::from(!differences.is_empty())))
}
