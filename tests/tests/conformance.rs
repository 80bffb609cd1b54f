//! The conformance corpus, the shared one and the project's own, and that the runner can fail.
//!
//! `REWRITE=1 cargo test -p meshward-tests --test conformance` writes the list of skipped checks; refused where `CI` is
//! set. `MESHWARD_SHARED` names the folder of the shared material, `../shared` beside the project by default; where it is
//! absent the tests that need it say so and pass, unless `CI` is set.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use meshward_tests::conformance::{self, Options, Refused, Report, Verdict, run};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The open cases of the shared corpus.
fn shared() -> Option<PathBuf> {
    let folder = conformance::shared().join("corpus/open");
    if folder.is_dir() {
        return Some(folder);
    }
    let folder = folder.display();
    assert!(env::var_os("CI").is_none(), "no corpus at {folder}");
    println!("skipped: no corpus at {folder}");
    None
}

fn ran(options: &Options) -> Report {
    run(options).unwrap_or_else(|refused| panic!("{refused}"))
}

fn all_of(folder: &Path) -> Report {
    ran(&Options {
        folder: folder.to_owned(),
        ..Options::default()
    })
}

fn skipped(report: &Report) -> String {
    let mut lines = String::new();
    for check in &report.checks {
        if let Verdict::Skipped(reason) = &check.verdict {
            writeln!(lines, "{}: {reason}", check.id).expect("a text can be written to");
        }
    }
    lines
}

/// A changed expectation that a check still meets was not looked at.
fn assert_nothing_wrong_is_believed(report: &Report) {
    println!(
        "conformance: {} wrong expectations were tried",
        report.doubts
    );
    assert_eq!(report.believed, []);
}

#[test]
fn nothing_of_the_open_corpus_fails_and_no_more_is_skipped_than_is_known() {
    let Some(folder) = shared() else { return };
    let report = ran(&Options {
        folder,
        doubting: true,
        ..Options::default()
    });
    let [passed, failed, left] = report.counts();
    println!("conformance: {passed} passed, {failed} failed, {left} skipped");
    assert_eq!(failed, 0, "{report}");
    assert_nothing_wrong_is_believed(&report);
    assert!(report.doubts >= passed, "only {}", report.doubts);
    let file = here("conformance/skipped.txt");
    let list = skipped(&report);
    if env::var_os("REWRITE").is_some() {
        assert!(
            env::var_os("CI").is_none(),
            "the list is not rewritten where it is judged"
        );
        fs::write(&file, &list).expect("the list can be written");
    }
    let known = fs::read_to_string(&file).unwrap_or_default();
    let new = list.lines().find(|line| !known.lines().any(|k| k == *line));
    let gone = known.lines().find(|line| !list.lines().any(|l| l == *line));
    assert_eq!((new, gone), (None, None), "{}", file.display());
}

#[test]
fn the_open_corpus_comes_to_the_same_in_other_words() {
    let Some(folder) = shared() else { return };
    let report = ran(&Options {
        folder,
        renamed: true,
        ..Options::default()
    });
    let [passed, failed, left] = report.counts();
    println!("conformance: renamed, {passed} passed, {failed} failed, {left} skipped");
    assert_eq!(failed, 0, "{report}");
    assert_eq!(
        skipped(&report),
        read(&here("conformance/skipped.txt")),
        "what is skipped is so by its needs"
    );
}

#[test]
fn the_projects_own_cases_hold() {
    let report = ran(&Options {
        folder: here("conformance/own"),
        doubting: true,
        ..Options::default()
    });
    let [passed, failed, _] = report.counts();
    assert_eq!(failed, 0, "{report}");
    assert!(passed >= 64, "only {passed} checks were run");
    assert_nothing_wrong_is_believed(&report);
    assert_eq!(
        skipped(&report),
        "own-mesh-006/1: needs gateway\nown-mesh-006/2: kind weather\nown-mesh-007/1: needs legacy\n\
         own-mesh-008/1: needs feature-flags\n"
    );
}

/// As many as the simulator runs, but for what needs its time or its count of links.
#[test]
fn the_projects_own_cases_hold_over_sockets() {
    let report = ran(&Options {
        folder: here("conformance/own"),
        driver: conformance::Driver::Tokio,
        ..Options::default()
    });
    let [passed, failed, _] = report.counts();
    assert_eq!(failed, 0, "{report}");
    assert!(passed >= 58, "only {passed} checks were run");
    let mut known = String::new();
    for (reason, ids) in [
        ("needs gateway", &["own-mesh-006/1"][..]),
        ("kind weather", &["own-mesh-006/2"]),
        ("needs legacy", &["own-mesh-007/1"]),
        ("needs feature-flags", &["own-mesh-008/1"]),
        (
            "needs virtual time",
            &[
                "own-requests-002/5",
                "own-requests-004/5",
                "own-requests-004/8",
                "own-requests-004/9",
            ],
        ),
        (
            "needs counted links",
            &["own-requests-004/6", "own-requests-004/7"],
        ),
    ] {
        for id in ids {
            writeln!(known, "{id}: {reason}").expect("a text can be written to");
        }
    }
    assert_eq!(skipped(&report), known);
}

/// A folder for a test's own copy of a corpus.
fn copy_of(corpus: &Path, name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let cases = root.join("cases");
    fs::create_dir_all(&cases).expect("a folder can be made");
    for old in fs::read_dir(&cases).expect("the folder can be listed") {
        fs::remove_file(old.expect("an entry").path()).expect("a file can be removed");
    }
    let fixtures = corpus.join("../fixtures.yaml");
    fs::write(root.join("fixtures.yaml"), read(&fixtures)).expect("a file can be written");
    for file in yaml_files(corpus) {
        let name = file.file_name().expect("a file has a name");
        fs::write(cases.join(name), read(&file)).expect("a file can be written");
    }
    cases
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder can be listed");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Puts `text` in the place of the own cases; says what is refused.
fn refusal(name: &str, from: &str, to: &str) -> String {
    let own = here("conformance/own");
    let cases = copy_of(&own, name);
    let file = cases.join("mesh.yaml");
    let text = read(&file);
    assert!(text.contains(from), "`{from}` is there");
    fs::write(&file, text.replacen(from, to, 1)).expect("a file can be written");
    let options = Options {
        folder: cases,
        ..Options::default()
    };
    match run(&options) {
        Err(Refused::Unreadable(why)) => {
            let name = why.file.file_name().map(|name| name.to_string_lossy());
            let name = name.unwrap_or_default();
            format!("{name}:{}: {}", why.line, why.message)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_case_that_cannot_be_understood_is_named_with_its_line() {
    let of = |from, to| refusal("conformance-refused", from, to);
    assert_eq!(
        of("meshward-conformance/1", "meshward-conformance/2"),
        "mesh.yaml:1: the format is `meshward-conformance/2`, not `meshward-conformance/1`"
    );
    assert_eq!(
        of("  mesh: harbour", "  mesh: harbor"),
        "mesh.yaml:7: the fixtures have no such mesh"
    );
    assert_eq!(
        of("expect: {mode: PERMISSIVE}", "expect: {}"),
        "mesh.yaml:15: the check expects nothing"
    );
    assert_eq!(
        of("expect: {mode: PERMISSIVE}", "expect: {mod: PERMISSIVE}"),
        "mesh.yaml:15: nothing of this kind is called `mod`"
    );
    assert_eq!(
        of("tls: '1.2'", "tls: '1.0'"),
        "mesh.yaml:20: `1.0` is no version of TLS"
    );
    assert_eq!(
        of("id: own-mesh-001/2", "id: own-mesh-001/1"),
        "mesh.yaml:17: a second `own-mesh-001/1`"
    );
    assert_eq!(
        of("workload: quay/crane\n", "workload: quay/crate\n"),
        "mesh.yaml:10: the mesh has no workload `quay/crate`"
    );
    let metadata = "metadata: {name: all, namespace: istio-system}";
    let own = read(&here("conformance/own/mesh.yaml"));
    let mut lines = own.lines().zip(1..);
    let (_, line) = lines
        .find(|(line, _)| line.contains(metadata))
        .expect("the policy stands there");
    assert_eq!(
        of(metadata, "metadata: {name: all, name: all}"),
        format!("mesh.yaml:{line}: `name` stands twice")
    );
}

/// What a case needs, and nothing enforces, fails rather than pass by luck.
#[test]
fn what_cannot_be_put_in_force_fails() {
    let cases = copy_of(&here("conformance/own"), "conformance-unenforced");
    let file = cases.join("mesh.yaml");
    let text = read(&file);
    let policy = "apiVersion: security.istio.io/v1\n    kind: PeerAuthentication\n    metadata: {name: all, namespace: istio-system}";
    for other in [
        policy
            .replace("security.istio.io", "networking.istio.io")
            .replace("PeerAuthentication", "DestinationRule"),
        policy.replace("name: all", "name: 'a b'"),
    ] {
        assert!(text.contains(policy));
        fs::write(&file, text.replace(policy, &other)).expect("a file can be written");
        let report = all_of(&cases);
        for check in &report.checks {
            let of_case = check.id.starts_with("own-mesh-003/");
            let failed = matches!(check.verdict, Verdict::Failed { .. });
            assert_eq!(failed, of_case, "{check:?}");
        }
    }
}

fn executable(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_conformance"))
        .args(args)
        .output()
        .expect("the executable can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn the_executable_says_what_became_of_the_checks() {
    let own = here("conformance/own").display().to_string();
    let (code, out, _) = executable(&[&own, "--id", "own-mesh-006"]);
    assert_eq!(
        (code, out.as_str()),
        (
            Some(0),
            "skipped own-mesh-006/1: needs gateway\nskipped own-mesh-006/2: kind weather\n\
             0 passed, 0 failed, 2 skipped\n"
        )
    );

    let cases = copy_of(&here("conformance/own"), "conformance-executable");
    let file = cases.join("mesh.yaml");
    let wrong = read(&file).replacen("mode: PERMISSIVE}", "mode: STRICT}", 1);
    fs::write(&file, &wrong).expect("a file can be written");
    let json = cases.join("../report.json").display().to_string();
    let folder = cases.display().to_string();
    let args = [&folder, "--theme", "own-mesh", "--id", "own-mesh-001/1"];
    let (code, out, _) = executable(&[&args[..], &["--json", &json]].concat());
    assert_eq!(
        (code, out.as_str()),
        (
            Some(1),
            "failed own-mesh-001/1: expected {\"mode\":\"STRICT\"}, got {\"mode\":\"PERMISSIVE\"} (S-20)\n\
             0 passed, 1 failed, 0 skipped\n"
        )
    );
    let report: serde_json::Value = serde_json::from_str(&read(Path::new(&json))).expect("JSON");
    assert_eq!(report["failed"], 1);
    assert_eq!(report["checks"][0]["got"]["mode"], "PERMISSIVE");

    fs::write(&file, wrong.replacen("cases:", "cases: [", 1)).expect("a file can be written");
    let (code, _, err) = executable(&[&folder]);
    assert_eq!(code, Some(65), "{err}");
    assert!(err.contains("mesh.yaml:"), "{err}");
}

#[test]
fn the_executable_refuses_what_it_is_not_for() {
    let own = here("conformance/own").display().to_string();
    for wrong in [
        &[][..],
        &["--colour", &own],
        &[&own, "--id", "own-mesh-099"],
        &[&own, "--theme", "nothing"],
        &["no-such-folder"],
    ] {
        let (code, out, err) = executable(wrong);
        assert_eq!(code, Some(64), "{wrong:?}: {out}{err}");
    }
    let (code, _, err) = executable(&[&own, "--fixtures", "no-such-file"]);
    assert_eq!(code, Some(65));
    assert!(err.starts_with("no-such-file:1: "), "{err}");
    assert_eq!(executable(&["--help"]).0, Some(0));
}
