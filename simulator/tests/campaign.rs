//! Whole runs, drawn from seeds and judged.

use std::path::Path;

use meshward_simulator::campaign::plan::Profile;
use meshward_simulator::campaign::{Kind, Outcome, seed_of};
use meshward_simulator::trace::Trace;

fn judged(kind: Kind, seed: &str, number: u64, profile: Profile) -> Outcome {
    let outcome = kind.run(seed_of(seed, number), Some(profile), Trace::default());
    assert!(
        outcome.violations.is_empty(),
        "{}\nreproduce: cargo run --release -p meshward-simulator -- --seed {seed} --first {number} --runs 1 --profile {} --kind {} --trace",
        outcome.violations.join("\n"),
        format!("{profile:?}").to_lowercase(),
        format!("{kind:?}").to_lowercase(),
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
        let [seed, number, kind, profile, _, ..] = words[..] else {
            panic!("no seed, run, kind, profile and reason: {line}");
        };
        judged(
            Kind::named(kind).unwrap(),
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
            let outcome = judged(Kind::Pair, "sweep", number, profile);
            assert_eq!(
                outcome.hash,
                judged(Kind::Pair, "sweep", number, profile).hash
            );
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
fn whole_meshes_keep_every_promise_and_are_equal_when_repeated() {
    let (mut requests, mut answered, mut denied, mut arrived, mut resets) = (0, 0, 0, 0, 0);
    for profile in [Profile::Calm, Profile::Rough, Profile::Storm] {
        for number in 0..8 {
            let outcome = judged(Kind::Mesh, "meshes", number, profile);
            if number < 2 {
                let again = judged(Kind::Mesh, "meshes", number, profile);
                assert_eq!(outcome.hash, again.hash);
            }
            requests += outcome.requests;
            answered += outcome.answered;
            denied += outcome.denied;
            arrived += outcome.arrived;
            resets += outcome.net.resets;
        }
    }
    println!(
        "whole meshes: {requests} requests, {answered} answered, {denied} denied, {arrived} arrived, {resets} resets"
    );
    assert!(requests > 200 && answered > 150 && denied > 20 && arrived > 100 && resets > 20);
}

#[test]
fn a_part_of_all_runs_is_of_whole_meshes() {
    let runs = (0..200).filter(|number| Kind::of(seed_of("1", *number)) == Kind::Mesh);
    assert!((30..70).contains(&runs.count()));
}

#[test]
fn another_seed_is_another_run() {
    let hash = |base| judged(Kind::Pair, base, 0, Profile::Calm).hash;
    assert_ne!(hash("a"), hash("b"));
}
