//! `meshward exec`: runs a command as a workload of the mesh.
//!
//! The command runs here, as this user; only its environment says that its connections go through the workload's entry.
//! It takes the place of this process, so that signals and exit codes are its own.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Args;

use crate::exit::Failure;
use crate::files;
use crate::mesh::entry::environment;
use crate::mesh::folder::{Folder, Which};
use crate::mesh::protocol::{self, Answer, Ask, Workload};
use crate::say;

/// As sh: it is there and cannot be run.
const NOT_RUNNABLE: u8 = 126;
/// As sh: there is no such command.
const NOT_FOUND: u8 = 127;

#[derive(Debug, Args)]
#[command(after_help = "\
The command finds the mesh by its environment:
  ALL_PROXY, http_proxy, https_proxy  socks5h://ADDRESS:PORT, which curl and others heed
  MESHWARD_PROXY                      ADDRESS:PORT, as `openssl s_client -proxy` wants it
  MESHWARD_CERTS                      folder with cert-chain.pem, key.pem and root-cert.pem
  MESHWARD_RUN                        folder of the mesh: NAMESPACE/POD/{app,istio-proxy}.log
  MESHWARD_MESH                       name of the mesh

Exit code: that of the command; 126 if it cannot be run, 127 if it is not found.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Namespace of the workload [default: default]
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    /// Container: its own name or `app` goes through the sidecar, `istio-proxy` past it.
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Stdin is the command's, as it always is; for those used to kubectl.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// So is the terminal.
    #[arg(short, long)]
    tty: bool,
    /// NAME, deploy/NAME or pod/NAME, with `.NS` or without
    workload: String,
    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let folder = Folder::of(&arguments.which)?;
    let ask = Ask::Find {
        workload: arguments.workload,
        namespace: arguments.namespace,
        container: arguments.container,
    };
    let Answer::Found(workload) = protocol::ask(&folder, ask)? else {
        return Err(Failure::Machine("the mesh answers something else".into()));
    };
    let (program, rest) = arguments
        .command
        .split_first()
        .ok_or_else(|| Failure::Usage("no command".into()))?;
    let mut command = Command::new(program);
    command.args(rest);
    surround(&mut command, &folder.name, &workload);
    let error = command.exec();
    say::err(format_args!(
        "error: {}: {}",
        program.display(),
        files::words(&error)
    ));
    Ok(ExitCode::from(code(&error)))
}

fn surround(command: &mut Command, mesh: &str, workload: &Workload) {
    for (name, value) in environment(workload.proxy) {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .env("MESHWARD_RUN", &workload.run)
        .env("MESHWARD_MESH", mesh);
    match &workload.certs {
        Some(certs) => command.env("MESHWARD_CERTS", certs),
        None => command.env_remove("MESHWARD_CERTS"),
    };
}

fn code(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound {
        NOT_FOUND
    } else {
        NOT_RUNNABLE
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    /// What `command` was told of its surroundings, in the order of names.
    fn told(command: &Command) -> Vec<(&OsStr, Option<&OsStr>)> {
        command.get_envs().collect()
    }

    fn workload(certs: Option<&str>) -> Workload {
        Workload {
            namespace: "default".into(),
            pod: "sleep-1".into(),
            proxy: ([127, 1, 0, 3], 15001).into(),
            certs: certs.map(Into::into),
            run: "/run/mesh".into(),
        }
    }

    #[test]
    fn a_command_is_told_its_way_and_forgets_every_other() {
        let mut command = Command::new("true");
        surround(&mut command, "m", &workload(Some("/certs")));
        let told: Vec<String> = told(&command)
            .into_iter()
            .map(|(name, value)| {
                let value = value.map_or_else(|| "-".into(), |v| v.display().to_string());
                format!("{}={value}", name.display())
            })
            .collect();
        assert_eq!(
            told,
            [
                "ALL_PROXY=socks5h://127.1.0.3:15001",
                "HTTPS_PROXY=-",
                "HTTP_PROXY=-",
                "MESHWARD_CERTS=/certs",
                "MESHWARD_MESH=m",
                "MESHWARD_PROXY=127.1.0.3:15001",
                "MESHWARD_RUN=/run/mesh",
                "NO_PROXY=-",
                "all_proxy=-",
                "http_proxy=socks5h://127.1.0.3:15001",
                "https_proxy=socks5h://127.1.0.3:15001",
                "no_proxy=-",
            ]
        );
    }

    #[test]
    fn without_a_sidecar_there_are_no_certificates() {
        let mut command = Command::new("true");
        surround(&mut command, "m", &workload(None));
        assert!(told(&command).contains(&(OsStr::new("MESHWARD_CERTS"), None)));
    }
}
