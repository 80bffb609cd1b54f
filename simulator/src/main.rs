//! `meshward-simulator --seed N --runs M`: runs drawn from a seed, judged, and one number for all of them.

use std::process::exit;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use meshward_simulator::campaign::plan::{Plan, Profile};
use meshward_simulator::campaign::{Outcome, run, seed_of};
use meshward_simulator::trace::{Hash, Trace};

#[derive(Debug, Parser)]
#[command(about = "Runs meshward's machines in virtual time, from a seed")]
struct Args {
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
    /// Print the plan and what every machine hears and says
    #[arg(long)]
    trace: bool,
}

fn profile(text: &str) -> Result<Profile, String> {
    Profile::named(text).ok_or_else(|| "calm, rough or storm".into())
}

/// The run that is under way, for whoever panics.
static CURRENT: AtomicU64 = AtomicU64::new(0);

fn main() {
    let args = Args::parse();
    let reproduce = {
        let (seed, profile) = (args.seed.clone(), args.profile);
        move || {
            let profile = profile.map_or_else(String::new, |p| {
                format!(" --profile {}", format!("{p:?}").to_lowercase())
            });
            let run = CURRENT.load(Ordering::Relaxed);
            eprintln!(
                "reproduce: cargo run --release -p meshward-simulator -- --seed {seed} --first {run} --runs 1{profile} --trace"
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
        let trace = if args.trace {
            println!("{}", Plan::draw(seed, args.profile));
            Trace::printed()
        } else {
            Trace::default()
        };
        let outcome = run(seed, args.profile, trace);
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
    println!("{} runs, hash {hash}", args.runs);
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
