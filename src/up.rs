//! `meshward up`: a mesh on this machine, from Kubernetes and Istio YAML.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::Ipv4Net;
use meshward_core::tls::KeyKind;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::apply::read_all;
use crate::ca::span;
use crate::exit::Failure;
use crate::machine::{self, Runtime};
use crate::mesh::folder::{CHECK, Folder, Which};
use crate::mesh::identities::Issuing;
use crate::mesh::running::{Design, Ending, Running, Start};
use crate::say;
use crate::walkthrough::Play;

#[derive(Debug, Args)]
#[command(after_help = "\
Reads Namespace, ServiceAccount, Service, Deployment, Pod, List, ConfigMap `istio`, PeerAuthentication,
RequestAuthentication and AuthorizationPolicy. Every pod gets an address of 127.0.0.0/8 and its app; pods that injection
rules say so of get a sidecar. What a pod runs is said by annotations of its template:
  meshward.dev/app: echo|routes|none   the built-in apps; echo where ports are declared and nothing else is said
  meshward.dev/routes                  what the routes app answers
  meshward.dev/command                 a command, with HOST, PORT and the proxy variables in its environment
  meshward.dev/upstream                HOST:PORT of a server that listens already

With accessLogFile: /dev/stdout in meshConfig each sidecar writes NAMESPACE/POD/istio-proxy.log in the mesh's folder,
with another path the file of that name there.

Ctrl-C or SIGTERM ends the mesh, a second one at once.")]
pub(crate) struct Arguments {
    /// Files, and folders with all .yaml, .yml and .json in them and below.
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    which: Which,
    /// What drives the sockets; auto is io_uring where the machine allows it.
    #[arg(long, value_enum, default_value_t = Runtime::Auto)]
    runtime: Runtime,
    /// Threads that carry traffic [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    workers: Option<u8>,
    /// The kind of keys of the authority and of workloads.
    #[arg(long, value_enum, default_value_t = Key::P256)]
    key: Key,
    /// Addresses of pods that do not say one themselves; two meshes at the same time need two ranges [default: 127.1.0.0/16,
    /// with --check some other]
    #[arg(long, value_name = "CIDR", value_parser = pod_range)]
    pod_range: Option<Ipv4Net>,
    /// How long certificates last; they are renewed when half of it has passed.
    #[arg(long, default_value = "24h", value_name = "SPAN")]
    svid_ttl: String,
    /// Rehearse an outage: the authority signs nothing any more after so long.
    #[arg(long, value_name = "SPAN")]
    ca_outage_after: Option<String>,
    /// What is skipped with a warning is an error.
    #[arg(long)]
    strict: bool,
    /// debug: say on stderr why links ended before their time.
    #[arg(long, value_enum, default_value_t = LogLevel::Info)]
    log_level: LogLevel,
    /// Start the mesh under a name of its own, run DIR/walkthrough.txt in it, and end it.
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogLevel {
    Info,
    Debug,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Key {
    P256,
    Rsa2048,
}

/// The second bytes of the ranges that checks have their pods in.
const CHECK_FIRST: u8 = 100;
const CHECK_RANGES: u8 = 100;
/// A certificate that lasts shorter could not be renewed in time (S-94).
const SVID_TTL_MIN: Duration = Duration::from_secs(2);
/// MAX_WORKLOAD_CERT_TTL (S-91).
const SVID_TTL_MAX: Duration = Duration::from_secs(2160 * 3600);

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let play = match arguments.check {
        false => None,
        true => Some(play(&arguments.paths)?),
    };
    let mut which = arguments.which.clone();
    if play.is_some() {
        which.name = format!("{CHECK}{}", std::process::id());
    }
    let start = Start {
        issuing: issuing(&arguments)?,
        chosen: machine::choose(arguments.runtime)?,
        workers: arguments.workers.map_or_else(processors, usize::from),
        notes: arguments.log_level == LogLevel::Debug,
    };
    let texts = read_all(&arguments.paths)?;
    // A check goes beside whatever runs.
    let second = if play.is_some() {
        CHECK_FIRST + (std::process::id() % u32::from(CHECK_RANGES)) as u8
    } else {
        1
    };
    let own = Ipv4Net::new_assert(Ipv4Addr::new(127, second, 0, 0), 16);
    let pods = arguments.pod_range.unwrap_or(own);
    let design = Design::read(texts, arguments.strict, pods)?;
    let folder = Folder::of(&which)?;
    // Signals are taken over before anybody can know our pid from a line we printed.
    // One that was ignored before stays so, as nohup wants it.
    let hangup = (!machine::ignores_hangup()).then_some(SIGHUP);
    let signals = Signals::new([SIGINT, SIGTERM].into_iter().chain(hangup))
        .map_err(|e| Failure::Machine(format!("signals cannot be taken over: {e}")))?;
    machine::raise_open_files();
    let (ending, ended) = mpsc::channel();
    let run = folder.run();
    let (taken, socket) = folder.take()?;
    let running = Running::start(&start, design, taken, socket, ending.clone())?;
    watch(signals, ending)?;
    match play {
        None => stay(running, &ended),
        Some(play) => {
            let outcome = play.perform(start.chosen.argument(), &running.surroundings());
            let end = running.end(|| has_signal(&ended));
            let code = outcome?;
            if code == ExitCode::SUCCESS {
                // Nobody asks for logs of what went well.
                let _ = std::fs::remove_dir_all(&run);
            } else {
                say::err(format_args!("logs of the mesh: {}", run.display()));
            }
            end.map(|()| code)
        }
    }
}

/// Of loopback, which every machine has, and away from the host's own addresses.
fn pod_range(text: &str) -> Result<Ipv4Net, String> {
    let range: Ipv4Net = text
        .parse()
        .map_err(|_| "no IPv4 range, like 127.2.0.0/16")?;
    let [loopback, host] = [
        Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
        Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 24),
    ];
    if !loopback.contains(&range) {
        return Err("not within 127.0.0.0/8".into());
    }
    if range.contains(&host) || host.contains(&range) {
        return Err("127.0.0.0/24 belongs to the host".into());
    }
    Ok(range.trunc())
}

fn has_signal(ended: &mpsc::Receiver<Ending>) -> bool {
    ended.try_iter().any(|e| matches!(e, Ending::Signal))
}

/// The walk-through of the one folder that is named.
fn play(paths: &[PathBuf]) -> Result<Play, Failure> {
    let [dir] = paths else {
        return Err(Failure::Usage(
            "--check takes one folder, with its walkthrough.txt".into(),
        ));
    };
    let path = dir.join("walkthrough.txt");
    if !path.is_file() {
        return Err(Failure::Data(vec![format!(
            "{}: there is no walk-through\n  hint: name a folder with a walkthrough.txt, or leave --check out",
            path.display()
        )]));
    }
    Play::read(Path::new(dir))
}

fn issuing(arguments: &Arguments) -> Result<Issuing, Failure> {
    let read = |name: &str, text: &str| {
        span(text).map_err(|e| Failure::Usage(format!("{name} `{text}`: {e}")))
    };
    let ttl = read("--svid-ttl", &arguments.svid_ttl)?;
    if !(SVID_TTL_MIN..=SVID_TTL_MAX).contains(&ttl) {
        return Err(Failure::Usage(format!(
            "--svid-ttl `{}`: certificates last from 2s to 2160h",
            arguments.svid_ttl
        )));
    }
    let answers_for = match &arguments.ca_outage_after {
        None => None,
        Some(text) => Some(read("--ca-outage-after", text)?),
    };
    let key = match arguments.key {
        Key::P256 => KeyKind::P256,
        Key::Rsa2048 => KeyKind::Rsa2048,
    };
    Ok(Issuing {
        key,
        ttl,
        answers_for,
    })
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Tells of signals for as long as the process lives.
fn watch(mut signals: Signals, ending: mpsc::Sender<Ending>) -> Result<(), Failure> {
    let watching = move || {
        for _ in signals.forever() {
            // The mesh may have ended by itself.
            let _ = ending.send(Ending::Signal);
        }
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(watching)
        .map(drop)
        .map_err(|e| Failure::Machine(format!("a thread cannot start: {e}")))
}

/// Until somebody wants the mesh to end, or something of it that cannot be missed has.
fn stay(running: Running, ended: &mpsc::Receiver<Ending>) -> Result<ExitCode, Failure> {
    say::out(running.describe());
    let why = ended.recv().unwrap_or(Ending::Signal);
    say::out("ending");
    running.end(|| has_signal(ended))?;
    match why {
        Ending::Signal => Ok(ExitCode::SUCCESS),
        Ending::Broken(what) => Err(Failure::Machine(what)),
    }
}
