use std::path::Path;

use super::{Command, Protocol, Scenario, parse, print_bytes};

fn read(text: &str) -> Result<Scenario, String> {
    parse(Path::new("x.txt"), text).map_err(|e| e.to_string())
}

#[test]
fn a_file_is_blocks_of_commands_and_outcome() {
    let scenario = read(
        "# why\nworkload a ports=80:http,9:tcp ns=n\napply\n  kind: X\n  spec:\n    y: 1\n----\n\n\
         open c to=a:80 tls sa=s alpn=istio,h2 version=1.2\nsend c\n| GET\n|\n+ a\\x00b\n----\nc fin\n",
    )
    .unwrap();
    assert_eq!(scenario.blocks.len(), 2);
    let [(2, Command::Workload(w)), (3, Command::Apply(yaml))] = &scenario.blocks[0].commands[..]
    else {
        panic!("{:?}", scenario.blocks[0]);
    };
    assert_eq!(w.ports, [(80, Protocol::Http), (9, Protocol::Tcp)]);
    assert_eq!(w.identity.to_string(), "spiffe://cluster.local/ns/n/sa/a");
    assert_eq!(yaml, "kind: X\nspec:\n  y: 1\n");
    let [(_, Command::Open(open)), (_, Command::Send { bytes, .. })] =
        &scenario.blocks[1].commands[..]
    else {
        panic!("{:?}", scenario.blocks[1]);
    };
    let tls = open.tls.as_ref().unwrap();
    assert!(tls.tls12_only);
    assert_eq!(tls.alpn, ["istio", "h2"]);
    assert_eq!(bytes, b"GET\r\n\r\na\0b");
    assert_eq!(scenario.blocks[1].outcome, ["c fin"]);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (text, expected) in [
        ("open c to=a:80\n----\n", "x.txt:1: no workload `a`"),
        (
            "workload a ports=80:http\nopen c to=a:81\n----\n",
            "x.txt:2: `a` does not declare this port",
        ),
        ("workload a\n", "x.txt:1: a block without `----`"),
        ("workload a\nfly\n----\n", "x.txt:2: no command `fly`"),
        (
            "workload a colour=red\n----\n",
            "x.txt:1: `colour=red` is not understood here",
        ),
        ("\nsend c\n| x\n----\n", "x.txt:2: no connection `c`"),
        ("workload a\nsend a.1\n----\n", "x.txt:2: nothing to send"),
        (
            "workload a\nfinish a.1\n| x\n----\n",
            "x.txt:2: `finish` takes no lines after it",
        ),
        ("advance 3\n----\n", "x.txt:1: `3` is not a time: 100ms, 5s"),
        ("----\na\n----\n", "x.txt:3: a second `----` in one block"),
        (
            "workload a ports=80:http\nclose a 80\nadvance 3s\n----\n",
            "x.txt:3: `advance` stands alone in its block",
        ),
    ] {
        assert_eq!(read(text), Err(expected.to_owned()), "{text}");
    }
}

#[test]
fn time_is_moved_by_files_that_say_so() {
    for (text, moves) in [
        ("workload a\n----\n", false),
        ("workload a\n----\n\nadvance 3s\n----\n", true),
    ] {
        assert_eq!(read(text).map(|s| s.moves_time()), Ok(moves), "{text}");
    }
}

#[test]
fn printed_bytes_are_read_back_as_they_were() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\nx: y\r\n\r\nbody"[..],
        b"\x00\\ \t\n\xff ",
        b"ends with a line \r\n",
        b"\r\n\r\n",
    ] {
        let lines = print_bytes(bytes);
        let text = format!("workload a\nsend a.1\n{}\n----\n", lines.join("\n"));
        let scenario = read(&text).unwrap();
        let (_, Command::Send { bytes: again, .. }) = &scenario.blocks[0].commands[1] else {
            panic!("{scenario:?}");
        };
        assert_eq!(again, bytes);
    }
}

#[test]
fn a_rewritten_file_changes_its_outcomes_alone() {
    let text = "# a\nadvance 1s\n----\nold\nold\n\n# b\nadvance 2s\n----\n";
    let new = Scenario::rewrite(text, &[vec!["new".into()], vec!["more".into()]]);
    assert_eq!(
        new,
        "# a\nadvance 1s\n----\nnew\n\n# b\nadvance 2s\n----\nmore\n"
    );
}
