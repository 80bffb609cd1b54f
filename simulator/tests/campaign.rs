//! Whole runs, drawn from seeds and judged.

use std::path::Path;

use meshward_simulator::campaign::plan::Profile;
use meshward_simulator::campaign::{Outcome, run, seed_of};
use meshward_simulator::trace::Trace;

fn judged(seed: &str, number: u64, profile: Profile) -> Outcome {
    let outcome = run(seed_of(seed, number), Some(profile), Trace::default());
    assert!(
        outcome.violations.is_empty(),
        "{}\nreproduce: cargo run --release -p meshward-simulator -- --seed {seed} --first {number} --runs 1 --profile {} --trace",
        outcome.violations.join("\n"),
        format!("{profile:?}").to_lowercase(),
    );
    outcome
}

#[test]
fn what_once_found_something_finds_nothing_now() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let mut runs = 0;
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [seed, number, profile, _, ..] = words[..] else {
            panic!("no seed, run, profile and reason: {line}");
        };
        judged(
            seed,
            number.parse().unwrap(),
            Profile::named(profile).unwrap(),
        );
        runs += 1;
    }
    assert!(runs > 0, "the list is not empty");
}

#[test]
fn runs_of_every_profile_keep_every_promise_and_are_equal_when_repeated() {
    let (mut requests, mut answered, mut denied, mut resets) = (0, 0, 0, 0);
    for profile in [Profile::Calm, Profile::Rough, Profile::Storm] {
        for number in 0..12 {
            let outcome = judged("sweep", number, profile);
            assert_eq!(outcome.hash, judged("sweep", number, profile).hash);
            requests += outcome.requests;
            answered += outcome.answered;
            denied += outcome.denied;
            resets += outcome.net.resets;
        }
    }
    println!(
        "campaign: {requests} requests, {answered} answered, {denied} denied, {resets} resets"
    );
    assert!(requests > 100 && answered > 50 && denied > 5 && resets > 20);
}

#[test]
fn another_seed_is_another_run() {
    let hash = |base| judged(base, 0, Profile::Calm).hash;
    assert_ne!(hash("a"), hash("b"));
}
