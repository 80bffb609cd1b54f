//! The language of `tests/scenarios/*.txt`.
//!
//! A file is a list of blocks. A block is command lines, `----`, the outcome, and a blank line. `#` begins a comment.
//!
//! ```text
//! workload catalog ports=8080:http          a sidecar with an application behind every port
//! workload sleep                            ns=default sa=NAME td=cluster.local ca=mesh are the defaults
//! apply                                     policies as YAML, indented by two spaces; they replace those of before
//!   apiVersion: …
//! open c1 to=catalog:8080                   a client without sidecar, in plaintext
//! open c2 to=catalog:8080 tls sa=sleep      … with mutual TLS; ns= td= ca= sni= alpn=a,b version=1.2 cert=none
//! open c3 to=catalog:8080 via=sleep         the application of `sleep`, through its sidecar
//! send c1                                   bytes: `| ` is a line with CRLF, `+ ` one without line end
//! | GET / HTTP/1.1
//! | host: catalog
//! |
//! send c1 fill=100000                       so many bytes of a pattern
//! finish c1                                 FIN, after close_notify where there is TLS
//! reset c1
//! close catalog 8080                        the application does not listen behind the port any more
//! silence catalog 8080                      … and its host does not even refuse
//! drain catalog 5s
//! advance 15s                               time passes; stands alone, so that all before it was seen
//! ----
//! c1 gets                                   everything new on a connection, however it was cut
//! | HTTP/1.1 200 OK
//! |
//! c1 fin                                    fin, reset, refused, unreachable, timed-out, alert N, not-tls
//! catalog.1 opened                          the first connection that the application of `catalog` accepted
//! record catalog …                          access records, sorted
//! ```
//!
//! A file may describe a whole mesh instead of its `workload`s, in the YAML that `meshward up` reads:
//!
//! ```text
//! mesh                                      any objects, indented by two spaces; pods are the workloads, by their names
//!   apiVersion: …
//! open c1 to=webapp.shop:80 via=sleep-0     the application of the pod `sleep-0`, through its sidecar
//! open c2 to=webapp.shop:80 from=sleep-0    the pod itself, past its sidecar if it has one; also with `tls …`
//! open c3 to=webapp-0:8080                  somebody outside of the mesh
//! apply                                     adds objects and changes them, as `kubectl apply` does: all or none
//! delete                                    takes out those that the YAML names; pods themselves must stay
//! hold webapp-0                             the snapshots that the sidecar of a pod should get are held back …
//! release webapp-0                          … and now delivered, all of them, oldest first
//! ```
//!
//! `to=` is what cluster DNS answers in the namespace of the caller (`default` for somebody outside), its first address;
//! else a pod by its name; else an IP address. Without `via=`, the address of a service leads to its first endpoint. An
//! application listens behind every port that its pod declares or a service targets; ports are 1024 or more. Names of pods
//! are unique in a file, whatever their namespaces. In records pods are `webapp-0:8080`, services `service-webapp.shop:80`,
//! and an application behind its sidecar is `app:8080`. The log is on until the mesh brings a ConfigMap `istio` of its own.
//!
//! In a file that says `advance`, no time passes otherwise. Escapes in `|` and `+` lines: `\\`, `\n`, `\r`, `\t`, `\xNN`.

mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use parse::{ParseError, parse, print_bytes};

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub path: PathBuf,
    pub blocks: Vec<Block>,
}

/// Commands and what came of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub commands: Vec<(usize, Command)>,
    /// Line number of the `----`.
    pub line: usize,
    /// Outcome, line by line, as it stands in the file.
    pub outcome: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Workload(Workload),
    /// All objects of a mesh, as YAML.
    Mesh(String),
    /// Policies and meshConfig, as YAML; in a mesh, any objects.
    Apply(String),
    /// Objects of a mesh, by the YAML that names them.
    Delete(String),
    /// The snapshots of a pod's sidecar are held back.
    Hold(String),
    Release(String),
    Open(Open),
    Send {
        conn: String,
        bytes: Vec<u8>,
    },
    Finish(String),
    Reset(String),
    /// The application of a workload stops listening behind a port.
    Close {
        workload: String,
        port: u16,
    },
    /// Nobody answers connects to the application of a workload.
    Silence {
        workload: String,
        port: u16,
    },
    Drain {
        workload: String,
        grace: Duration,
    },
    Advance(Duration),
}

/// Who somebody is: the parts of a SPIFFE ID, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub trust_domain: String,
    pub namespace: String,
    pub service_account: String,
    pub ca: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

/// A sidecar, and the application behind each of its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub name: String,
    pub identity: Identity,
    pub ports: Vec<(u16, Protocol)>,
    /// What clients take for the service account of this workload, if it is not the true one (S-58).
    pub expected: Option<Identity>,
}

/// What a port is declared to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Tcp,
    Auto,
}

/// A connection that a client opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    pub name: String,
    /// A workload; in a mesh, whatever leads to an address.
    pub host: String,
    pub port: u16,
    /// The workload whose application this client is; its traffic goes through the sidecar.
    pub via: Option<String>,
    /// The pod that this client is, without its sidecar.
    pub from: Option<String>,
    pub tls: Option<Tls>,
}

/// How a client speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub identity: Option<Identity>,
    pub alpn: Vec<String>,
    pub sni: Option<String>,
    pub tls12_only: bool,
}

impl Scenario {
    /// Whether it says how much time passes.
    pub fn moves_time(&self) -> bool {
        let mut commands = self.blocks.iter().flat_map(|b| &b.commands);
        commands.any(|(_, command)| matches!(command, Command::Advance(_)))
    }

    /// The file with other outcomes. `text` is what the file holds now; comments and commands stay as they are.
    pub fn rewrite(text: &str, outcomes: &[Vec<String>]) -> String {
        let mut out = String::new();
        let mut outcomes = outcomes.iter();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            out.push_str(line);
            out.push('\n');
            if line != "----" {
                continue;
            }
            while lines.peek().is_some_and(|l| !l.trim().is_empty()) {
                lines.next();
            }
            for new in outcomes.next().into_iter().flatten() {
                out.push_str(new);
                out.push('\n');
            }
        }
        out
    }

    /// All files of a folder, by name.
    pub fn read_all(folder: &Path) -> Result<Vec<(Self, String)>, ParseError> {
        let fail = |message: String| ParseError {
            path: folder.into(),
            line: 0,
            message,
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|e| fail(e.to_string()))? {
            let path = entry.map_err(|e| fail(e.to_string()))?.path();
            if path.extension().is_some_and(|e| e == "txt") {
                paths.push(path);
            }
        }
        paths.sort();
        paths
            .iter()
            .map(|path| {
                let text = std::fs::read_to_string(path).map_err(|e| ParseError {
                    path: path.clone(),
                    line: 0,
                    message: e.to_string(),
                })?;
                Ok((parse(path, &text)?, text))
            })
            .collect()
    }
}
