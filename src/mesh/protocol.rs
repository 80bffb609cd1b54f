//! What passes over the control socket: one request and one response for each connection, as JSON.
//!
//! The client writes its request and finishes its direction; the server answers and closes. Both say the version they
//! speak first, and neither reads more than the limits.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::resources::{Named, Resource};
use super::selector::Selector;
use crate::exit::Failure;
use crate::files;

/// Grows when an older peer could misunderstand.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a request: files of a whole mesh.
pub(crate) const REQUEST_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a response: a line for each object and for each finding.
const RESPONSE_MAX: u64 = 64 * 1024 * 1024;
/// The peer may pause for so long while it sends or takes.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(10);
/// An answer may take so long: pods are started before an `apply` is answered.
const ANSWER_MAX: Duration = Duration::from_secs(120);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) version: u32,
    pub(crate) ask: Ask,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// Where a workload is and how it reaches others.
    Find {
        workload: String,
        namespace: Option<String>,
        container: Option<String>,
    },
    Apply {
        files: Vec<FileText>,
        namespace: String,
        strict: bool,
    },
    Delete {
        files: Vec<FileText>,
        namespace: String,
        ignore_not_found: bool,
    },
    /// What would become of a request.
    Explain(Asked),
    /// Which sidecars decide by what.
    ProxyStatus,
    /// What one sidecar is configured with.
    ProxyConfig {
        what: Part,
        workload: String,
        namespace: Option<String>,
    },
    /// How much a sidecar writes of its scopes, after a change if there is one.
    Levels {
        workload: String,
        namespace: Option<String>,
        change: Option<LevelChange>,
    },
    Get {
        scope: Scope,
        /// Whole objects, too.
        manifests: bool,
    },
    DeleteNamed {
        scope: Scope,
        ignore_not_found: bool,
    },
    Label {
        scope: Scope,
        /// By key; `None`: it is taken away.
        changes: Vec<(String, Option<String>)>,
        overwrite: bool,
    },
    /// Makes the pods of Deployments anew, one after the other.
    Restart { scope: Scope },
    /// How far that is.
    Rollout { name: String, namespace: String },
    /// Where a workload's log is, or those of all pods that the selector takes.
    Logs {
        workload: Option<String>,
        namespace: Option<String>,
        selector: Selector,
        container: Option<String>,
    },
    /// Which sidecars decide by what they were told last; no `workloads`: of all of the namespace, or of the mesh.
    Synced {
        workloads: Vec<String>,
        namespace: Option<String>,
    },
}

/// A part of a sidecar's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    Listener,
    Route,
    Cluster,
    Secret,
    Policy,
}

/// A change of levels.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LevelChange {
    /// As istioctl takes it: `rbac:debug,jwt:off`.
    To(String),
    /// Back to where they were.
    Reset,
}

/// A request that somebody thinks of. Its headers may hold credentials.
#[derive(Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) from: String,
    pub(crate) namespace: Option<String>,
    pub(crate) to: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<String>,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked")
            .field("from", &self.from)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

/// Which objects a command is about.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Scope {
    pub(crate) named: Named,
    /// `None`: all of them.
    pub(crate) namespace: Option<String>,
    pub(crate) selector: Selector,
}

/// A file as the client read it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FileText {
    pub(crate) name: String,
    pub(crate) text: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Response {
    pub(crate) version: u32,
    pub(crate) answer: Answer,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Found(Workload),
    /// What was asked about, for people and for programs.
    Shown {
        text: String,
        json: serde_json::Value,
    },
    /// Done. `lines` as kubectl prints them, `warnings` for stderr.
    Done {
        lines: Vec<String>,
        warnings: Vec<String>,
    },
    /// By kind, in the order of the question.
    Listed {
        lists: Vec<List>,
        /// What was named and is not there, in the words of kubectl.
        missing: Vec<String>,
    },
    Rollout(Progress),
    Logs {
        logs: Vec<LogOf>,
        /// For stderr.
        note: Option<String>,
    },
    Synced(Vec<Awaited>),
    /// What the files say cannot be used; nothing changed.
    Data(Vec<String>),
    /// Some of it is not there, in the words of kubectl; nothing changed.
    NotFound(String),
    /// It cannot be done; nothing changed.
    Failed(String),
}

impl Answer {
    /// It was asked for nothing, and there is nothing to say.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Done { lines, warnings } if lines.is_empty() && warnings.is_empty())
    }
}

/// Objects of one kind.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct List {
    pub(crate) kind: Resource,
    pub(crate) items: Vec<Item>,
}

/// Something that is waited for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Awaited {
    /// Empty for kinds that live in none.
    pub(crate) namespace: String,
    /// `pod/NAME`
    pub(crate) name: String,
    pub(crate) has_come: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Item {
    /// Empty for kinds that live in none.
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// What the columns after the name hold.
    pub(crate) cells: Vec<String>,
    /// What those hold that stand in wide tables alone.
    pub(crate) wide: Vec<String>,
    /// Only if it was asked for.
    pub(crate) manifest: Option<serde_json::Value>,
}

/// How far a Deployment is with new pods.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) replicas: usize,
    pub(crate) updated: usize,
    /// Why it does not go on.
    pub(crate) failed: Option<String>,
}

/// The log of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogOf {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    /// `None`: nothing is written. It may not be there yet.
    pub(crate) path: Option<PathBuf>,
    /// Which pod of that name; never given to another one.
    pub(crate) uid: u64,
}

/// What `exec` has to know.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Workload {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    /// SOCKS5 and CONNECT.
    pub(crate) proxy: SocketAddr,
    /// `None`: no sidecar.
    pub(crate) certs: Option<PathBuf>,
    pub(crate) run: PathBuf,
}

/// Asks the mesh that runs.
pub(crate) fn ask(folder: &Folder, ask: Ask) -> Result<Answer, Failure> {
    let mut stream = folder.connect()?;
    let lost = |e: io::Error| {
        Failure::Machine(format!(
            "the mesh `{}` does not answer: {}",
            folder.name,
            files::words(&e)
        ))
    };
    stream
        .set_write_timeout(Some(PAUSE_MAX))
        .and_then(|()| stream.set_read_timeout(Some(ANSWER_MAX)))
        .map_err(lost)?;
    let request = Request {
        version: VERSION,
        ask,
    };
    // A server that does not want all of it answers and closes; what it says counts.
    let sent =
        write(&mut stream, &request, REQUEST_MAX).and_then(|()| stream.shutdown(Shutdown::Write));
    if let Err(e) = &sent
        && e.kind() == io::ErrorKind::InvalidInput
    {
        return Err(Failure::Data(vec![e.to_string()]));
    }
    let response: Response = read(&mut stream, RESPONSE_MAX).map_err(lost)?;
    if response.version != VERSION {
        return Err(Failure::Machine(format!(
            "the mesh `{}` speaks version {} of the control protocol, this executable {VERSION}\n  hint: start the mesh with this executable",
            folder.name, response.version
        )));
    }
    match response.answer {
        Answer::Data(findings) => Err(Failure::Data(findings)),
        Answer::NotFound(message) => Err(Failure::Server(message)),
        Answer::Failed(message) => Err(Failure::Machine(message)),
        answer => Ok(answer),
    }
}

/// Asks about something that is shown: its text and its JSON.
pub(crate) fn look(folder: &Folder, about: Ask) -> Result<(String, serde_json::Value), Failure> {
    match ask(folder, about)? {
        Answer::Shown { text, json } => Ok((text, json)),
        _ => Err(Failure::Machine("the mesh answers something else".into())),
    }
}

/// Fails with `InvalidInput` if `message` takes more than `limit` bytes.
pub(crate) fn write(to: &mut impl Write, message: &impl Serialize, limit: u64) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} bytes at once, {limit} are allowed", bytes.len()),
        ));
    }
    to.write_all(&bytes)
}

/// Reads to the end. Fails with `InvalidData` on more than `limit` bytes and on what is no message.
pub(crate) fn read<T: DeserializeOwned>(from: &mut impl Read, limit: u64) -> io::Result<T> {
    let mut bytes = Vec::new();
    from.by_ref().take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("more than {limit} bytes"),
        ));
    }
    serde_json::from_slice(&bytes)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("no message: {e}")))
}

/// Reads a request of any version that can say which it is.
pub(crate) fn version_of(stream: &mut UnixStream) -> io::Result<Result<Request, u32>> {
    #[derive(Deserialize)]
    struct Spoken {
        version: u32,
    }
    let value: serde_json::Value = read(stream, REQUEST_MAX)?;
    let no_request =
        |e: serde_json::Error| io::Error::new(io::ErrorKind::InvalidData, e.to_string());
    let spoken = Spoken::deserialize(&value).map_err(no_request)?;
    if spoken.version != VERSION {
        return Ok(Err(spoken.version));
    }
    serde_json::from_value(value).map(Ok).map_err(no_request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        UnixStream::pair().expect("a pair of sockets")
    }

    #[test]
    fn a_request_arrives_as_it_was_sent() {
        let (mut client, mut server) = pair();
        let ask = Ask::Delete {
            files: vec![FileText {
                name: "a.yaml".into(),
                text: "kind: Pod\n\u{1F980}".into(),
            }],
            namespace: "default".into(),
            ignore_not_found: true,
        };
        let request = Request {
            version: VERSION,
            ask,
        };
        write(&mut client, &request, REQUEST_MAX).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let got = version_of(&mut server).unwrap().unwrap();
        assert_eq!(format!("{got:?}"), format!("{request:?}"));
    }

    #[test]
    fn a_request_of_another_version_is_told_apart_from_rubbish() {
        for (text, version) in [
            (r#"{"version":7,"ask":{"fly":{}}}"#, Some(7)),
            (r#"{"ask":{}}"#, None),
            ("GET / HTTP/1.1\r\n\r\n", None),
            ("", None),
            (r#"{"version":1,"ask":{"fly":{}}}"#, None),
        ] {
            let (mut client, mut server) = pair();
            client.write_all(text.as_bytes()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let got = version_of(&mut server).ok().and_then(Result::err);
            assert_eq!(got, version, "{text}");
        }
    }

    #[test]
    fn nobody_reads_or_writes_more_than_the_limit() {
        let long = "x".repeat(100);
        let error = read::<String>(&mut format!("\"{long}\"").as_bytes(), 101).unwrap_err();
        assert_eq!(error.to_string(), "more than 101 bytes");
        assert_eq!(
            read::<String>(&mut format!("\"{long}\"").as_bytes(), 102).unwrap(),
            long
        );
        let error = write(&mut Vec::new(), &long, 101).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
