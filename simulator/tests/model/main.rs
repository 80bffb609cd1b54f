//! The core's answers beside those of the reference model, on drawn meshes and requests.
//!
//! `MESHWARD_MODEL=N` sets how many requests; 100,000 in CI, else 20,000. `MESHWARD_MODEL_SEED=N` sets where they are drawn from.

mod broken;

use std::path::Path;

use broken::{BUGS, Broken, Bug};
use meshward_core::path::{Normalization, normalize};
use meshward_simulator::chance::Chance;
use meshward_simulator::model;
use meshward_simulator::model::trial::{self, subject::Core};

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

fn requests() -> u64 {
    let usual = if std::env::var_os("CI").is_some() {
        100_000
    } else {
        20_000
    };
    number("MESHWARD_MODEL").unwrap_or(usual)
}

fn seed() -> u64 {
    number("MESHWARD_MODEL_SEED").unwrap_or(20_260_822)
}

#[test]
fn the_core_answers_as_the_model_does_and_every_field_decides() {
    let wanted = requests();
    let report = trial::run(seed(), wanted, true, &mut Core::default());
    println!("{report}");
    let again = format!(
        "reproduce: cargo run -p meshward-simulator -- model --seed {} --requests {wanted}",
        report.seed
    );
    if let Some(difference) = &report.difference {
        panic!("{difference}\n{again}");
    }
    assert!(report.requests >= wanted);
    let fifth = report.requests / 5;
    assert!(report.allowed >= fifth, "a fifth is allowed; {again}");
    assert!(
        report.by_rule >= fifth,
        "a fifth is denied by a rule; {again}"
    );
    // Of 100,000 requests every field decides 100; of fewer the rarest has less than its share.
    let (field, decided) = report.rarest();
    let least = if wanted >= 100_000 {
        100
    } else {
        wanted / 4000
    };
    assert!(
        decided >= least,
        "{field} decided {decided} requests; {again}"
    );
}

#[test]
fn an_evaluator_without_a_mistake_agrees_with_the_model() {
    let report = trial::run(
        seed(),
        requests().min(10_000),
        false,
        &mut Broken(Bug::None),
    );
    if let Some(difference) = report.difference {
        panic!("{difference}");
    }
}

#[test]
fn every_seeded_mistake_is_found_and_made_small() {
    for bug in BUGS {
        let report = trial::run(seed(), requests(), false, &mut Broken(bug));
        let Some(difference) = report.difference else {
            panic!("{bug:?} was not found in {} requests", report.requests);
        };
        println!("{bug:?} was found after {} requests", report.requests);
        let mesh = &difference.case.mesh;
        let rules: usize = mesh
            .authorization
            .iter()
            .map(|policy| policy.rules.len())
            .sum();
        // It takes eleven rules to see that the tenth does not come after the second.
        let most = if bug == Bug::RulesInOrderOfNumbers {
            13
        } else {
            2
        };
        assert!(
            mesh.authorization.len() <= 2 && rules <= most && mesh.requests.len() <= 1,
            "{bug:?} is not small:\n{difference}"
        );
        assert_ne!(Ok(difference.model), difference.other);
    }
}

#[test]
fn odd_targets_are_normalised_as_in_the_model() {
    let signs = [
        "/", "/", "/", ".", "..", ".;", "..;", "%", "%2", "%2e", "%2E", "%2f", "%2F", "%5c", "%00",
        "%41", "%30", "%25", "%7e", "0", "a", "A", "\\", ";", "{", "^", "[", "|", "?", "#",
        "a/../b",
    ];
    let mut chance = Chance::new(seed(), u64::MAX);
    for _ in 0..requests() {
        let mut target = "/".to_owned();
        for _ in 0..chance.within(1..=9) {
            target.push_str(chance.pick(&signs));
        }
        for mode in [
            Normalization::None,
            Normalization::Base,
            Normalization::MergeSlashes,
            Normalization::DecodeAndMergeSlashes,
        ] {
            let core = normalize(target.as_bytes(), mode, true).ok();
            let core = core.map(|path| String::from_utf8_lossy(&path).into_owned());
            assert_eq!(
                core,
                model::path::normalise(&target, mode),
                "{target} {mode:?}"
            );
        }
    }
}

#[test]
fn the_model_knows_nothing_of_the_core_but_what_resources_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices("meshward_core::") {
            let named = &text[at + "meshward_core::".len()..];
            assert!(
                named.starts_with("api::") || named.starts_with("path::Normalization;"),
                "{} uses {:?}",
                path.display(),
                named.lines().next()
            );
            seen += 1;
        }
    }
    assert!(seen > 5, "the files of the model were read");
}

#[test]
fn a_seed_draws_the_same_twice() {
    let run = |seed| trial::run(seed, 300, true, &mut Core::default()).to_string();
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
