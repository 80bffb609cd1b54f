//! Decides so many times as its argument says, with nobody listening. `benches/unheard` counts its instructions.

use std::hint::black_box;
use std::process::ExitCode;

use meshward_benches::Decider;
use meshward_benches::cases::cases;
use meshward_benches::mesh::Mesh;

/// Rules of each shape: so few that what surrounds a rule weighs, so many that the index is at work.
const RULES: usize = 30;

fn main() -> ExitCode {
    let passes = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let Some(passes) = passes else {
        eprintln!("how many passes?");
        return ExitCode::from(2);
    };
    let mut engines = Vec::new();
    for case in &cases(RULES) {
        engines.push((Mesh::indexed(case), case.calls.len()));
        engines.push((Mesh::scanned(case), case.calls.len()));
    }
    let (mut decided, mut allowed) = (0u64, 0u64);
    for _ in 0..passes {
        for (engine, calls) in &mut engines {
            for call in 0..*calls {
                decided += 1;
                allowed += u64::from(engine.decide(black_box(call)));
            }
        }
    }
    println!("{allowed} of {decided} allowed");
    ExitCode::SUCCESS
}
