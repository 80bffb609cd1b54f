//! `meshward-simulator --seed N --runs M`: runs drawn from a seed, judged, and one number for all of them.
//!
//! `meshward-simulator model --seed N --requests M`: answers of the core beside those of the reference model.

use std::process::exit;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Parser, Subcommand};
use meshward_simulator::campaign::plan::Profile;
use meshward_simulator::campaign::{Kind, Outcome, seed_of};
use meshward_simulator::model::trial::{self, subject::Core};
use meshward_simulator::trace::{Hash, Trace};

#[derive(Debug, Parser)]
#[command(
    about = "Runs meshward's machines in virtual time, from a seed",
    args_conflicts_with_subcommands = true
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// A number, or any text: a commit hash is a good seed
    #[arg(long, default_value = "1")]
    seed: String,
    /// How many runs
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// The number of the first run
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Which faults exist; drawn per run if absent
    #[arg(long, value_parser = profile)]
    profile: Option<Profile>,
    /// `pair`: two sidecars; `mesh`: a whole mesh; drawn per run if absent
    #[arg(long, value_parser = kind)]
    kind: Option<Kind>,
    /// Print the plan and what every machine hears and says
    #[arg(long)]
    trace: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Holds the core against the reference model, on drawn meshes and requests
    Model {
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many requests at least
        #[arg(long, default_value_t = 100_000)]
        requests: u64,
    },
}

fn profile(text: &str) -> Result<Profile, String> {
    Profile::named(text).ok_or_else(|| "calm, rough or storm".into())
}

fn kind(text: &str) -> Result<Kind, String> {
    Kind::named(text).ok_or_else(|| "pair or mesh".into())
}

/// The run that is under way, for whoever panics.
static CURRENT: AtomicU64 = AtomicU64::new(0);

fn main() {
    let args = Args::parse();
    if let Some(Command::Model { seed, requests }) = args.command {
        let report = trial::run(seed, requests, true, &mut Core::default());
        println!("{report}");
        exit(report.difference.is_some().into());
    }
    let reproduce = {
        let (seed, profile, kind) = (args.seed.clone(), args.profile, args.kind);
        move || {
            let option = |name: &str, value: Option<String>| {
                value.map_or_else(String::new, |v| format!(" --{name} {}", v.to_lowercase()))
            };
            let profile = option("profile", profile.map(|p| format!("{p:?}")));
            let kind = option("kind", kind.map(|k| format!("{k:?}")));
            let run = CURRENT.load(Ordering::Relaxed);
            eprintln!(
                "reproduce: cargo run --release -p meshward-simulator -- --seed {seed} --first {run} --runs 1{profile}{kind} --trace"
            );
        }
    };
    let on_panic = reproduce.clone();
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("{panic}");
        on_panic();
        exit(1);
    }));

    let (mut hash, mut sum) = (Hash::default(), Sum::default());
    for number in args.first..args.first.saturating_add(args.runs) {
        CURRENT.store(number, Ordering::Relaxed);
        let seed = seed_of(&args.seed, number);
        let kind = args.kind.unwrap_or_else(|| Kind::of(seed));
        let trace = if args.trace {
            println!("run {number}, {kind:?}, {}", kind.plan(seed, args.profile));
            Trace::printed()
        } else {
            Trace::default()
        };
        let outcome = kind.run(seed, args.profile, trace);
        sum.meshes += u64::from(kind == Kind::Mesh);
        if !outcome.violations.is_empty() {
            for violation in &outcome.violations {
                eprintln!("run {number}: {violation}");
            }
            reproduce();
            exit(1);
        }
        hash.write(outcome.hash.to_string().as_bytes());
        sum.add(&outcome);
    }
    println!(
        "requests {}, answered {}, denied {}, arrived {}, resets {}, segments {}, streams {}",
        sum.requests, sum.answered, sum.denied, sum.arrived, sum.resets, sum.segments, sum.streams
    );
    println!(
        "{} runs, {} of whole meshes, hash {hash}",
        args.runs, sum.meshes
    );
}

#[derive(Debug, Default)]
struct Sum {
    requests: usize,
    answered: usize,
    denied: usize,
    arrived: usize,
    resets: u64,
    segments: u64,
    streams: u64,
    meshes: u64,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.requests += outcome.requests;
        self.answered += outcome.answered;
        self.denied += outcome.denied;
        self.arrived += outcome.arrived;
        self.resets += outcome.net.resets;
        self.segments += outcome.net.segments;
        self.streams += outcome.net.streams;
    }
}
