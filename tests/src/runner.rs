//! Runs a scenario with a driver and compares outcomes.

use similar::TextDiff;

use crate::driver::Driver;
use crate::scenario::Scenario;

/// What came of one file.
#[derive(Debug)]
pub struct Report {
    /// Lines that were compared: of the outcomes as they are and as they should be.
    pub comparisons: usize,
    /// What happened in each block.
    pub outcomes: Vec<Vec<String>>,
    /// The first thing that went otherwise, with its place. Empty: all as it should be.
    pub failure: Option<String>,
}

/// Runs all blocks, also after one that went otherwise.
pub fn run(scenario: &Scenario, driver: &mut dyn Driver) -> Report {
    let mut report = Report {
        comparisons: 0,
        outcomes: Vec::new(),
        failure: None,
    };
    let path = scenario.path.display();
    for block in &scenario.blocks {
        for (line, command) in &block.commands {
            if let Err(error) = driver.obey(command) {
                let failure = format!("{path}:{line}: {}: {error}", driver.name());
                report.failure.get_or_insert(failure);
                return report;
            }
        }
        let news = driver.observe(&mut |news| news.lines() == block.outcome);
        let lines = news.lines();
        report.comparisons += lines.len().max(block.outcome.len());
        if lines != block.outcome {
            let failure = difference(
                &format!("{path}:{}: {}", block.line, driver.name()),
                &block.outcome,
                &lines,
            );
            report.failure.get_or_insert(failure);
        }
        report.outcomes.push(lines);
    }
    let (late, left_over) = driver.end();
    let late: Vec<String> = late.lines().into_iter().chain(left_over).collect();
    if !late.is_empty() {
        let failure = difference(
            &format!("{path}: {}: at the end", driver.name()),
            &[],
            &late,
        );
        report.failure.get_or_insert(failure);
    }
    report
}

fn difference(place: &str, expected: &[String], found: &[String]) -> String {
    let (expected, found) = (expected.join("\n") + "\n", found.join("\n") + "\n");
    let diff = TextDiff::from_lines(&expected, &found);
    format!("{place}: - expected, + found\n{}", diff.unified_diff())
}
