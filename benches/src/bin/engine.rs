//! What a decision costs, in nanoseconds, beside other engines; and what it costs to compile 10,000 policies.
//!
//! Every engine gets its rules in its own words and its calls prepared, and all must decide alike before any is timed. The
//! engines take turns; of the rounds the median counts. Exits 1 where a bound is missed.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use meshward_benches::Decider;
use meshward_benches::cases::{Case, cases, mixed};
use meshward_benches::cedar::Cedar;
use meshward_benches::mesh::{self, Mesh};
use meshward_benches::rego::{Interpreter, Machine};

const COUNTS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
const ROUNDS: usize = 9;
/// One engine's turn lasts so long, or one pass over the calls.
const TURN: Duration = Duration::from_millis(2);

/// From 10 to 10,000 rules a decision may become so much dearer.
const FLAT: f64 = 3.0;
/// So many times faster than every other engine at 100 rules.
const FASTER: f64 = 10.0;
const COMPILE: Duration = Duration::from_secs(1);

const NAMES: [&str; 5] = ["meshward", "scan", "cedar", "regorus", "regorus vm"];

fn main() -> ExitCode {
    let mut missed = Vec::new();
    println!(
        "ns per decision, median of {ROUNDS} interleaved rounds; in brackets: times meshward\n"
    );
    print!("{:<20}{:>7}", "shape", "rules");
    for name in NAMES {
        print!("{name:>20}");
    }
    println!();
    let mut flat: Vec<(&str, f64)> = Vec::new();
    for count in COUNTS {
        for (at, case) in cases(count).iter().enumerate() {
            let costs = costs(case);
            print_row(case, &costs);
            let own = costs[0].unwrap_or(f64::NAN);
            match count {
                10 => flat.push((case.name, own)),
                10_000 => {
                    let (name, few) = flat[at];
                    flat[at] = (name, own / few);
                }
                100 => {
                    let others = costs[2..].iter().flatten().copied();
                    let times = others.fold(f64::INFINITY, f64::min) / own;
                    if times < FASTER {
                        missed.push(format!("{}: {times:.1} times faster at 100", case.name));
                    }
                }
                _ => {}
            }
        }
        println!();
    }
    println!("10,000 rules against 10:");
    for (name, ratio) in flat {
        println!("  {name:<20}{ratio:>6.2}");
        if ratio > FLAT {
            missed.push(format!(
                "{name}: {ratio:.2} times dearer at 10,000 than at 10"
            ));
        }
    }
    let (parse, compile) = compile_times();
    println!("\n10,000 policies: parsed in {parse:.0?}, compiled in {compile:.0?}");
    if compile > COMPILE {
        missed.push(format!("compiling takes {compile:.0?}"));
    }
    for bound in &missed {
        println!("missed: {bound}");
    }
    ExitCode::from(u8::from(!missed.is_empty()))
}

/// Of each engine, in the order of [`NAMES`]; `None` where it cannot have so many rules.
fn costs(case: &Case) -> [Option<f64>; NAMES.len()] {
    let mut engines: [Option<Box<dyn Decider>>; NAMES.len()] = [
        Some(Box::new(Mesh::indexed(case))),
        Some(Box::new(Mesh::scanned(case))),
        Some(Box::new(Cedar::new(case))),
        Some(Box::new(Interpreter::new(case))),
        Machine::new(case).map(|machine| Box::new(machine) as Box<dyn Decider>),
    ];
    for (engine, name) in engines.iter().zip(NAMES) {
        assert!(engine.as_ref().is_none_or(|engine| engine.name() == name));
    }
    for call in 0..case.calls.len() {
        let answers: Vec<bool> = engines
            .iter_mut()
            .flatten()
            .map(|engine| engine.decide(call))
            .collect();
        let alike = answers.iter().all(|answer| *answer == answers[0]);
        assert!(alike, "{} {:?}: {answers:?}", case.name, case.calls[call]);
    }
    let mut rounds: [Vec<f64>; NAMES.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (engine, costs) in engines.iter_mut().zip(&mut rounds) {
            if let Some(engine) = engine {
                costs.push(turn(engine.as_mut(), case.calls.len()));
            }
        }
    }
    rounds.map(|mut costs| {
        costs.sort_by(f64::total_cmp);
        costs.get(costs.len() / 2).copied()
    })
}

/// Nanoseconds per decision over whole passes.
fn turn(engine: &mut dyn Decider, calls: usize) -> f64 {
    let pass = |engine: &mut dyn Decider, passes: usize| {
        for _ in 0..passes {
            for call in 0..calls {
                black_box(engine.decide(black_box(call)));
            }
        }
    };
    // The first passes warm the caches and tell how many there is time for.
    let mut passes = 1;
    loop {
        let start = Instant::now();
        pass(engine, passes);
        let spent = start.elapsed();
        if spent >= TURN {
            return spent.as_nanos() as f64 / (passes * calls) as f64;
        }
        passes *= 2;
    }
}

fn print_row(case: &Case, costs: &[Option<f64>; NAMES.len()]) {
    print!("{:<20}{:>7}", case.name, case.rules.len());
    let own = costs[0].unwrap_or(f64::NAN);
    for (at, cost) in costs.iter().enumerate() {
        let cell = match cost {
            None => "-".to_owned(),
            Some(cost) if at == 0 => format!("{cost:.0}"),
            Some(cost) => format!("{cost:.0} ({:.1})", cost / own),
        };
        print!("{cell:>20}");
    }
    println!();
}

/// The medians of parsing and of compiling, apart from each other.
fn compile_times() -> (Duration, Duration) {
    let rules: Vec<_> = (0..10_000).map(mixed).collect();
    let files = mesh::files(&rules);
    let (mut parsing, mut compiling) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let start = Instant::now();
        let policies = mesh::parsed(&files);
        parsing.push(start.elapsed());
        assert_eq!(policies.len(), rules.len());
        let start = Instant::now();
        let compiled = black_box(mesh::compiled(&policies));
        compiling.push(start.elapsed());
        assert_eq!(compiled.len(), rules.len());
    }
    parsing.sort();
    compiling.sort();
    (parsing[2], compiling[2])
}
