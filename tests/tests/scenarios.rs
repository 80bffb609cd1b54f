//! Every file of `tests/scenarios` on every driver.
//!
//! `REWRITE=1 cargo test -p meshward-tests --test scenarios` puts what the simulator found into the files; refused where
//! `CI` is set.

use std::env;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use meshward_simulator::chance::Chance;
use meshward_simulator::net::Weather;
use meshward_tests::driver::Driver;
use meshward_tests::glommio::Glommio;
use meshward_tests::journal::News;
use meshward_tests::runner::{Report, run};
use meshward_tests::scenario::{Command, Scenario, parse};
use meshward_tests::simulated::Simulated;
use meshward_tests::sockets::{Host, Sockets};
use meshward_tests::tokio::Tokio;

fn scenarios() -> Vec<(Scenario, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let all = Scenario::read_all(&folder).unwrap_or_else(|e| panic!("{e}"));
    assert!(all.len() >= 25, "only {} scenarios were found", all.len());
    all
}

fn simulate(scenario: &Scenario, seed: u64, weather: Weather) -> Report {
    run(scenario, &mut Simulated::new(seed, weather))
}

/// Slow and cut anywhere, but nothing is lost: outcomes must not change. Large bodies are cut less finely, which would say
/// nothing new and takes long.
fn rough(scenario: &Scenario, seed: u64) -> Weather {
    let mut chance = Chance::new(seed, 201);
    let mut commands = scenario.blocks.iter().flat_map(|b| &b.commands);
    let large =
        commands.any(|(_, c)| matches!(c, Command::Send { bytes, .. } if bytes.len() > 10_000));
    let segments = if large {
        [500, 1000, 1448]
    } else {
        [1, 11, 1448]
    };
    Weather {
        latency_ns: 1_000..=chance.pick(&[5_000, 300_000]),
        segment: 1..=chance.pick(&segments),
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
            let report = simulate(&scenario, seed, rough(&scenario, seed));
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
            let mut driver = Simulated::new(seed, rough(&scenario, 3));
            run(&scenario, &mut driver);
            driver.trace().map(|t| t.hash())
        };
        let one = hash(3);
        assert_eq!(hash(3), one, "{}", scenario.path.display());
        assert_ne!(hash(4), one, "{}", scenario.path.display());
    }
}

/// Tells what was found once more, so that many expectations are held against it without running the world for each.
struct Replayed(Vec<News>);

impl Driver for Replayed {
    fn name(&self) -> &'static str {
        "replayed"
    }

    fn obey(&mut self, _: &Command) -> Result<(), String> {
        Ok(())
    }

    fn observe(&mut self, _: &mut dyn FnMut(&News) -> bool) -> News {
        self.0.remove(0)
    }

    fn end(&mut self) -> (News, Vec<String>) {
        (News::default(), Vec::new())
    }
}

/// A driver that keeps what it observed.
struct Kept<D>(D, Vec<News>);

impl<D: Driver> Driver for Kept<D> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn obey(&mut self, command: &Command) -> Result<(), String> {
        self.0.obey(command)
    }

    fn observe(&mut self, enough: &mut dyn FnMut(&News) -> bool) -> News {
        let news = self.0.observe(enough);
        self.1.push(news.clone());
        news
    }

    fn end(&mut self) -> (News, Vec<String>) {
        self.0.end()
    }
}

#[test]
fn a_wrong_line_turns_the_simulator_red() {
    let (mut mutants, mut lived) = (0, 0);
    for (scenario, _) in scenarios() {
        let mut kept = Kept(Simulated::new(1, Weather::calm()), Vec::new());
        run(&scenario, &mut kept);
        for (mutant, line) in mutants_of(&scenario) {
            mutants += 1;
            let report = run(&mutant, &mut Replayed(kept.1.clone()));
            assert_blamed(&report, &mutant, line);
            if mutants % 20 == 0 {
                lived += 1;
                assert_blamed(&simulate(&mutant, 1, Weather::calm()), &mutant, line);
            }
        }
    }
    println!("scenarios: {mutants} mutants were found, {lived} of them by running the simulator");
    assert!(mutants > 1000, "only {mutants} mutants");
}

fn assert_blamed(report: &Report, mutant: &Scenario, line: usize) {
    let failure = report.failure.as_deref().unwrap_or("none");
    assert!(is_blamed(report, mutant, line), "{mutant:?}\n{failure}");
}

/// Whether the first failure is that of the block whose `----` stands in `line`.
fn is_blamed(report: &Report, mutant: &Scenario, line: usize) -> bool {
    let place = format!("{}:{line}: ", mutant.path.display());
    let failure = report.failure.as_deref();
    failure.is_some_and(|f| f.starts_with(&place))
}

/// Several files at once: over sockets most of the time is spent waiting.
fn side_by_side<T: Send>(act: impl Fn(usize, &Scenario) -> T + Sync) -> Vec<T> {
    let all = scenarios();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let (number, Some((scenario, _))) = {
            let number = next.fetch_add(1, Ordering::Relaxed);
            (number, all.get(number))
        } {
            done.push(act(number, scenario));
        }
        done
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        let results = workers.into_iter().map(|worker| worker.join());
        results
            .flat_map(|r| r.expect("a worker's own words stand above"))
            .collect()
    })
}

fn on_sockets<H: Host>(host: impl Fn() -> H + Sync) {
    let reports = side_by_side(|_, scenario| {
        run(
            scenario,
            &mut Sockets::new(host(), scenario, Duration::from_secs(10)),
        )
    });
    let comparisons: usize = reports.iter().map(|r| r.comparisons).sum();
    println!(
        "scenarios: {} made {comparisons} comparisons",
        host().name()
    );
    let failures: Vec<String> = reports.into_iter().filter_map(|r| r.failure).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(comparisons > 1000, "{comparisons} comparisons are too few");
}

/// One wrong line per file, at another place of each.
fn wrong_lines_on_sockets<H: Host>(host: impl Fn() -> H + Sync) {
    side_by_side(|number, scenario| {
        let mut all = mutants_of(scenario);
        let (mut mutant, line) = all.swap_remove((number + 1) * 7919 % all.len());
        mutant.blocks.retain(|block| block.line <= line);
        // A short patience may be too short for what comes before the wrong line, if the machine is busy.
        let found = [1, 4, 16].into_iter().any(|seconds| {
            let mut driver = Sockets::new(host(), scenario, Duration::from_secs(seconds));
            let report = run(&mutant, &mut driver);
            assert!(report.failure.is_some(), "{mutant:?}");
            is_blamed(&report, &mutant, line)
        });
        assert!(found, "{mutant:?}");
    });
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

/// The scenario with one line of one outcome changed, left out, or added, for every line; and where its block ends.
fn mutants_of(scenario: &Scenario) -> Vec<(Scenario, usize)> {
    let mut mutants = Vec::new();
    for (b, block) in scenario.blocks.iter().enumerate() {
        let mut add = |change: &dyn Fn(&mut Vec<String>)| {
            let mut mutant = scenario.clone();
            change(&mut mutant.blocks[b].outcome);
            mutants.push((mutant, block.line));
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
