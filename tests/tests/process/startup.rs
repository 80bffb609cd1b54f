//! How commands begin and end: strange files, terminals that go away, readers that do.

use std::process::Stdio;

use crate::meshes::{Mesh, UP, shop};
use crate::place::{Place, Sidecar};
use crate::running::Owned;

#[test]
fn a_pipe_in_a_folder_is_refused_and_one_that_is_named_is_read() {
    let place = Place::new();
    place.write("mesh/a.yaml", shop(&place));
    assert_eq!(place.shell("mkfifo mesh/b.yaml").code, Some(0));
    place.run(&["up", "mesh", "--runtime", "tokio"]).refuses(
        65,
        "mesh/b.yaml: is no file\n  hint: move it away: reading it might never end\n",
    );
    assert_eq!(
        place.shell("rm mesh/b.yaml; cp mesh/a.yaml mesh.yaml").code,
        Some(0)
    );
    let _mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    let text = "cat mesh.yaml | $MESHWARD apply -f /dev/stdin | grep -c unchanged";
    assert_eq!(place.shell(text).stdout, "6\n");
}

#[test]
fn a_mesh_outlives_its_terminal_under_nohup_and_ends_with_it_otherwise() {
    let place = Place::new();
    place.write("mesh.yaml", shop(&place));
    let mut shell = place.command(&[]);
    shell = {
        let mut nohup = std::process::Command::new("nohup");
        nohup.arg(shell.get_program());
        nohup
            .args(["up", "mesh.yaml", "--runtime", "tokio", "--workers", "1"])
            .current_dir(&place.dir)
            .env_remove("MESHWARD_MESH")
            .env("XDG_RUNTIME_DIR", &place.dir)
            .stdin(Stdio::null());
        nohup
    };
    let mut up = Sidecar::watch(shell);
    up.says(UP);
    up.signal("HUP");
    let ran = place.run(&["get", "po", "sleep", "-o", "name"]);
    assert_eq!(ran.stdout, "pod/sleep\n");
    assert!(up.is_running());
    up.signal("TERM");
    assert_eq!(up.ends().code(), Some(0));
    let mut mesh = Mesh::start(&place, &["--runtime", "tokio"]);
    mesh.up.signal("HUP");
    assert_eq!(mesh.up.ends().code(), Some(0));
}

#[test]
fn an_authority_is_made_although_nobody_reads_that_it_was() {
    let place = Place::new();
    for words in [
        &["ca", "init", "ca"][..],
        &["ca", "issue", "ca", crate::place::SERVER, "--out", "id"],
    ] {
        let mut command = place.command(words);
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Owned(piped.spawn().expect("it can be run"));
        drop(child.0.stdout.take());
        assert_eq!(
            child.0.wait().expect("its end").code(),
            Some(0),
            "{words:?}"
        );
    }
    assert!(place.path("id/cert.pem").exists());
}
