//! Arguments that make no sense end with 64, whatever the reason.

use crate::place::Place;

#[test]
fn wrong_arguments_exit_with_64_and_say_why_on_stderr() {
    let place = Place::new();
    for (arguments, says) in [
        (&[][..], "Usage: meshward <COMMAND>"),
        (&["fly"], "unrecognized subcommand 'fly'"),
        (&["sidecar"], "--config <FILE>"),
        (
            &["sidecar", "--config", "x", "--speed", "9"],
            "unexpected argument '--speed'",
        ),
        (
            &["sidecar", "--config", "x", "--runtime", "fibers"],
            "invalid value 'fibers'",
        ),
        (&["ca", "init"], "<DIR>"),
        (&["ca", "issue", "ca"], "<ID>"),
        (
            &["ca", "init", "ca", "--key", "rsa1024"],
            "invalid value 'rsa1024'",
        ),
        (&["walkthrough"], "<DIR>"),
        (&["up"], "<DIR|FILE>..."),
        (
            &["up", "x", "--workers", "0"],
            "invalid value '0' for '--workers <N>'",
        ),
        (
            &["up", "x", "--svid-ttl", "1s"],
            "--svid-ttl `1s`: certificates last from 2s to 2160h",
        ),
        (
            &["up", "x", "y", "--check"],
            "--check takes one folder, with its walkthrough.txt",
        ),
        (&["exec", "sleep"], "<COMMAND>"),
        (&["apply"], "--filename <FILE|DIR|->"),
        (&["delete"], "--filename <FILE|DIR|->"),
        (&["validate"], "--filename <FILE|DIR|->"),
    ] {
        let ran = place.run(arguments);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(64), ""),
            "{arguments:?}"
        );
        assert!(ran.stderr.contains(says), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let place = Place::new();
    for (arguments, says) in [
        (&["--help"][..], "Usage: meshward <COMMAND>"),
        (&["--version"], "meshward "),
        (&["sidecar", "--help"], "--config <FILE>"),
        (&["ca", "issue", "--help"], "--ttl <TTL>"),
        (&["up", "--help"], "--ca-outage-after <SPAN>"),
        (&["exec", "--help"], "MESHWARD_PROXY"),
    ] {
        let ran = place.run(arguments);
        assert_eq!(
            (ran.code, ran.stderr.as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
        assert!(ran.stdout.contains(says), "{arguments:?}: {}", ran.stdout);
    }
}

#[test]
fn a_walk_through_that_differs_shows_how_and_exits_with_1() {
    let place = Place::new();
    place.write(
        "w/walkthrough.txt",
        "# Greeting\necho hello; exit 3\n----\nhallo\n",
    );
    let ran = place.run(&["walkthrough", "w"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""));
    assert!(
        ran.stdout.starts_with(
            "\n# Greeting\n$ echo hello; exit 3\nw/walkthrough.txt:2:1: not what was expected\n\
             - hallo\n+ hello\n+ exit 3\n\n0 passed, 1 failed"
        ),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_walk_through_runs_beside_awaits_compares_and_leaves_nothing() {
    let place = Place::new();
    place.write(
        "w/walkthrough.txt",
        "start ticker: sh -c 'echo ready; exec sleep 60'\nawait ticker ready\nkill -0 $ticker_pid; pwd; echo $RUNTIME\n----\n{{re:/.*}}\nuring\n",
    );
    let ran = place.run(&["walkthrough", "w", "--runtime", "uring"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (Some(0), ""),
        "{}",
        ran.stdout
    );
    let copy = ran
        .stdout
        .lines()
        .find(|l| l.starts_with('/'))
        .expect("pwd");
    assert!(
        !std::path::Path::new(copy).exists(),
        "{copy} is left behind"
    );
}

#[test]
fn a_walk_through_stops_where_an_await_is_in_vain() {
    let place = Place::new();
    let text = "start app: sh -c 'echo no; exit 4'\nawait app yes\necho never\n----\nnever\n";
    place.write("w/walkthrough.txt", text);
    let ran = place.run(&["walkthrough", "w"]);
    assert_eq!(ran.code, Some(1));
    let failure = "w/walkthrough.txt:2:1: `app` ended, exit 4, and did not print `yes`; 1 steps are left out\n";
    assert!(ran.stdout.contains(failure), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("last lines of `app`:\nno\n"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("\n0 passed, 1 failed"),
        "{}",
        ran.stdout
    );
}

#[test]
fn rewriting_a_walk_through_is_refused_where_ci_is_set() {
    let place = Place::new();
    let text = "echo new\n----\nold\n";
    place.write("w/walkthrough.txt", text);
    let mut command = place.command(&["walkthrough", "w"]);
    let output = command.env("REWRITE", "1").env("CI", "true").output();
    assert_eq!(output.expect("it runs").status.code(), Some(64));
    assert_eq!(place.read("w/walkthrough.txt"), text);
    let mut command = place.command(&["walkthrough", "w"]);
    let output = command.env("REWRITE", "1").output();
    assert_eq!(output.expect("it runs").status.code(), Some(0));
    assert_eq!(place.read("w/walkthrough.txt"), "echo new\n----\nnew\n");
}

#[test]
fn a_broken_walk_through_is_named_by_line() {
    let place = Place::new();
    place.write("w/walkthrough.txt", "echo\n");
    place.run(&["walkthrough", "w"]).refuses(
        65,
        "w/walkthrough.txt:1:1: a command without a line `----` after it\n  hint: write `----` and what the command prints, without an empty line before it\n",
    );
    place.run(&["walkthrough", "nowhere"]).refuses(
        65,
        "nowhere/walkthrough.txt: cannot be read: no such file or directory\n",
    );
}

/// Who keeps what is printed would take a part for the whole, unless the exit code says otherwise.
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let place = Place::new();
    place.write("empty.yaml", "");
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let ran = place
        .command(&["validate", "-f", "empty.yaml"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr)),
        (
            Some(1),
            "error: stdout cannot be written: no space left on device\n".into()
        )
    );
}
