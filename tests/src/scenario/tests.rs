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
        (
            "workload a\nmesh\n  kind: X\n----\n",
            "x.txt:2: a file describes one mesh, in one way",
        ),
        (
            "mesh\n  kind: X\nworkload a\n----\n",
            "x.txt:3: the pods of a mesh are its workloads",
        ),
        (
            "workload a ports=80:http\nopen c to=a:80 from=a\n----\n",
            "x.txt:2: this is for files that say `mesh`",
        ),
        (
            "workload a\nhold a\n----\n",
            "x.txt:2: this is for files that say `mesh`",
        ),
        (
            "mesh\n  kind: X\nopen c to=b:80 via=a-0 from=b-0\n----\n",
            "x.txt:3: a client is behind a sidecar or past it",
        ),
    ] {
        assert_eq!(read(text), Err(expected.to_owned()), "{text}");
    }
}

#[test]
fn a_mesh_is_yaml_and_its_pods_are_known_where_it_is_read() {
    let scenario = read(
        "mesh\n  kind: X\n----\n\nhold a-0\ndelete\n  kind: Y\nopen c to=b.shop:80 via=a-0\nopen d to=b-0:9 from=a-0\n\
         send b-0.1\n+ x\nrelease a-0\n----\n",
    )
    .unwrap();
    assert_eq!(
        scenario.blocks[0].commands,
        [(1, Command::Mesh("kind: X\n".into()))]
    );
    let [
        (5, Command::Hold(held)),
        (6, Command::Delete(yaml)),
        (8, Command::Open(via)),
        (9, Command::Open(past)),
        (10, Command::Send { .. }),
        (12, Command::Release(released)),
    ] = &scenario.blocks[1].commands[..]
    else {
        panic!("{:?}", scenario.blocks[1]);
    };
    assert_eq!((held.as_str(), released.as_str()), ("a-0", "a-0"));
    assert_eq!(yaml, "kind: Y\n");
    assert_eq!((via.host.as_str(), via.port), ("b.shop", 80));
    assert_eq!(
        (via.via.as_deref(), past.from.as_deref()),
        (Some("a-0"), Some("a-0"))
    );
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
