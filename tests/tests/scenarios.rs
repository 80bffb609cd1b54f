//! Every file of `tests/scenarios` on every driver.
//!
//! `REWRITE=1 cargo test -p meshward-tests --test scenarios` puts what the simulator found into the files; refused where
//! `CI` is set.

use std::env;
use std::path::Path;
use std::time::Duration;

use meshward_simulator::chance::Chance;
use meshward_simulator::net::Weather;
use meshward_tests::driver::Driver;
use meshward_tests::glommio::Glommio;
use meshward_tests::runner::{Report, run};
use meshward_tests::scenario::{Scenario, parse};
use meshward_tests::simulated::Simulated;
use meshward_tests::sockets::{Host, Sockets};
use meshward_tests::tokio::Tokio;

fn scenarios() -> Vec<(Scenario, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let all = Scenario::read_all(&folder).unwrap_or_else(|e| panic!("{e}"));
    assert!(all.len() >= 10, "only {} scenarios were found", all.len());
    all
}

fn simulate(scenario: &Scenario, seed: u64, weather: Weather) -> Report {
    run(scenario, &mut Simulated::new(seed, weather))
}

/// Slow and cut anywhere, but nothing is lost: outcomes must not change.
fn rough(seed: u64) -> Weather {
    let mut chance = Chance::new(seed, 201);
    Weather {
        latency_ns: 1_000..=chance.pick(&[5_000, 300_000]),
        segment: 1..=chance.pick(&[1, 11, 1448]),
        send_buffer: chance.within(2_000..=100_000) as usize,
        receive_buffer: chance.within(2_000..=100_000) as usize,
        short_read_one_in: chance.within(0..=3),
        ..Weather::calm()
    }
}

#[test]
fn scenarios_in_the_simulator() {
    let rewrite = env::var_os("REWRITE").is_some();
    assert!(
        !rewrite || env::var_os("CI").is_none(),
        "outcomes are not rewritten where they are judged"
    );
    let (mut comparisons, mut failures) = (0, Vec::new());
    for (scenario, text) in scenarios() {
        let report = simulate(&scenario, 1, Weather::calm());
        if rewrite && report.outcomes.len() == scenario.blocks.len() {
            let new = Scenario::rewrite(&text, &report.outcomes);
            std::fs::write(&scenario.path, new).unwrap();
        }
        comparisons += report.comparisons;
        failures.extend(report.failure);
    }
    println!("scenarios: simulator made {comparisons} comparisons");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn outcomes_do_not_depend_on_how_bytes_are_cut_or_on_the_seed() {
    let (mut comparisons, mut failures) = (0, Vec::new());
    for (scenario, _) in scenarios() {
        for seed in 2..6 {
            let report = simulate(&scenario, seed, rough(seed));
            comparisons += report.comparisons;
            failures.extend(report.failure.map(|f| format!("seed {seed}: {f}")));
        }
    }
    println!("scenarios: simulator in rough weather made {comparisons} comparisons");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn equal_seeds_give_equal_traces() {
    for (scenario, _) in scenarios() {
        let hash = |seed| {
            let mut driver = Simulated::new(seed, rough(3));
            run(&scenario, &mut driver);
            driver.trace().map(|t| t.hash())
        };
        assert_eq!(hash(3), hash(3), "{}", scenario.path.display());
        assert_ne!(hash(3), hash(4), "{}", scenario.path.display());
    }
}

#[test]
fn a_wrong_line_turns_the_simulator_red() {
    let mut mutants = 0;
    for (scenario, _) in scenarios() {
        for mutant in mutants_of(&scenario) {
            mutants += 1;
            let report = simulate(&mutant, 1, Weather::calm());
            assert!(report.failure.is_some(), "{mutant:?}");
        }
    }
    println!("scenarios: {mutants} mutants were found by the simulator");
    assert!(mutants > 100, "only {mutants} mutants");
}

fn on_sockets<H: Host>(host: impl Fn() -> H) {
    let (mut comparisons, mut failures) = (0, Vec::new());
    for (scenario, _) in scenarios() {
        let mut driver = Sockets::new(host(), &scenario, Duration::from_secs(10));
        let report = run(&scenario, &mut driver);
        comparisons += report.comparisons;
        failures.extend(report.failure);
    }
    let name = host().name();
    println!("scenarios: {name} made {comparisons} comparisons");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(comparisons > 100, "{comparisons} comparisons are too few");
}

/// One wrong line per file.
fn wrong_lines_on_sockets<H: Host>(host: impl Fn() -> H) {
    for (scenario, _) in scenarios() {
        let all = mutants_of(&scenario);
        let mutant = &all[all.len() / 2];
        let mut driver = Sockets::new(host(), mutant, Duration::from_millis(500));
        let report = run(mutant, &mut driver);
        assert!(report.failure.is_some(), "{mutant:?}");
    }
}

#[test]
fn scenarios_on_tokio() {
    on_sockets(Tokio::default);
}

#[test]
fn a_wrong_line_turns_tokio_red() {
    wrong_lines_on_sockets(Tokio::default);
}

#[test]
fn scenarios_on_glommio() {
    on_sockets(Glommio::default);
}

#[test]
fn a_wrong_line_turns_glommio_red() {
    wrong_lines_on_sockets(Glommio::default);
}

/// The scenario with one line of one outcome changed, left out, or added; for every line.
fn mutants_of(scenario: &Scenario) -> Vec<Scenario> {
    let mut mutants = Vec::new();
    for (b, block) in scenario.blocks.iter().enumerate() {
        let mut add = |change: &dyn Fn(&mut Vec<String>)| {
            let mut mutant = scenario.clone();
            change(&mut mutant.blocks[b].outcome);
            mutants.push(mutant);
        };
        add(&|lines| lines.push("c9 reset".into()));
        for l in 0..block.outcome.len() {
            add(&|lines| {
                lines.remove(l);
            });
            add(&|lines| {
                let last = lines[l].pop();
                lines[l].push(if last == Some('x') { 'y' } else { 'x' });
            });
        }
    }
    mutants
}

#[test]
fn a_driver_that_cannot_do_something_fails_with_the_line() {
    let text = "workload a ports=80:http\nopen c to=a:80\nsend a.1\n| x\n----\n";
    let scenario = parse(Path::new("x.txt"), text).unwrap();
    let mut driver = Simulated::new(1, Weather::calm());
    assert_eq!(driver.name(), "simulator");
    let report = run(&scenario, &mut driver);
    assert_eq!(
        report.failure.as_deref(),
        Some("x.txt:3: simulator: `a.1` was not opened")
    );
}
