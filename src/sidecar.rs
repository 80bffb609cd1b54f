//! `meshward sidecar`: runs the data plane of one workload from a static file.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use meshward_core::id::LinkId;
use meshward_core::link::Entry;
use meshward_core::proxy::Proxy;
use meshward_core::sync::{Published, Reader};
use meshward_core::telemetry::Record;
use meshward_core::telemetry::levels::Scope;
use meshward_core::tls::Crypto;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{self, Plan, Settings};
use crate::exit::Failure;
use crate::logs::Logs;
use crate::machine::{self, Chosen, Runtime, choose, now, raise_open_files};
use crate::say;

/// What is open may go on for so long after SIGTERM. Istio: terminationDrainDuration 5 s.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// A worker that has not ended so long after that is left behind: whoever asked us to end must not wait for it.
const DRAIN_MARGIN: Duration = Duration::from_secs(3);
/// How often we look whether workers have ended.
const LOOK: Duration = Duration::from_millis(10);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The static file: listeners, identity, policies.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What drives the sockets; auto is io_uring where the machine allows it.
    #[arg(long, value_enum, default_value_t = Runtime::Auto)]
    runtime: Runtime,
    /// debug: say on stderr why links ended before their time.
    #[arg(long, value_enum, default_value_t = LogLevel::Info)]
    log_level: LogLevel,
    /// Read everything, say what is wrong, and stop.
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogLevel {
    Info,
    Debug,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let plan = config::load(&arguments.config, 1, now()).map_err(Failure::Data)?;
    for warning in &plan.warnings {
        say::err(warning);
    }
    if arguments.check {
        say::out(format_args!(
            "{}: {}",
            arguments.config.display(),
            summary(&plan)
        ));
        return Ok(ExitCode::SUCCESS);
    }
    raise_open_files();
    // Signals are taken over before anybody can know our pid from a line we printed.
    let signals = Signals::new([SIGHUP, SIGTERM, SIGINT])
        .map_err(|e| Failure::Machine(format!("signals cannot be taken over: {e}")))?;
    let logs = Logs::open(&plan.logs, plan.encoding).map_err(Failure::Machine)?;
    let listeners = bind(&plan)?;
    match choose(arguments.runtime)? {
        Chosen::Uring => serve::<uring::Uring>(&arguments, plan, listeners, logs, signals),
        Chosen::Tokio => serve::<tokio_shards::Tokio>(&arguments, plan, listeners, logs, signals),
    }
}

/// Threads that drive proxies: the same four verbs over either binding.
trait Shards: Sized {
    const NAME: &'static str;
    type Shard;

    fn start(number: usize, seat: Seat) -> io::Result<Self::Shard>;
    /// Something was published.
    fn wake(shard: &Self::Shard);
    fn drain(shard: &Self::Shard, grace: Duration);
    fn join(shard: Self::Shard) -> io::Result<()>;
    fn has_ended(shard: &Self::Shard) -> bool;
}

/// What one thread starts with.
pub(crate) struct Seat {
    proxies: Vec<SeatProxy>,
    logs: Logs,
    level: LogLevel,
}

/// What a shard says beside its traffic.
struct Ears {
    logs: Logs,
    level: LogLevel,
}

struct SeatProxy {
    settings: Reader<Settings>,
    listeners: Vec<(std::net::TcpListener, Entry)>,
    seed: [u8; 32],
}

/// By worker, by proxy, by listener.
type Listeners = Vec<Vec<Vec<(std::net::TcpListener, Entry)>>>;

fn bind(plan: &Plan) -> Result<Listeners, Failure> {
    // Sockets that share a port would share it with a stranger's process of the same user too: ask alone first.
    for listener in plan.proxies.iter().flat_map(|p| &p.listeners) {
        std::net::TcpListener::bind(listener.address)
            .map_err(|e| cannot_listen(&listener.name, listener.address, &e))?;
    }
    let mut all = Vec::new();
    for _ in 0..plan.workers {
        let mut proxies = Vec::new();
        for proxy in &plan.proxies {
            let mut listeners = Vec::new();
            for listener in &proxy.listeners {
                let socket = meshward_tokio::bind_listener(listener.address, true)
                    .map_err(|e| cannot_listen(&listener.name, listener.address, &e))?;
                listeners.push((socket, listener.entry));
            }
            proxies.push(listeners);
        }
        all.push(proxies);
    }
    Ok(all)
}

fn cannot_listen(name: &str, address: SocketAddr, error: &io::Error) -> Failure {
    let whose = format!("listener `{name}`");
    let in_use = "another process listens there: end it, or choose another address";
    Failure::Machine(machine::cannot_listen(&whose, address, error, in_use))
}

fn serve<S: Shards>(
    arguments: &Arguments,
    mut plan: Plan,
    listeners: Listeners,
    logs: Logs,
    mut signals: Signals,
) -> Result<ExitCode, Failure> {
    let path = arguments.config.as_path();
    let workers = u16::try_from(plan.workers).unwrap_or(u16::MAX);
    let (mut cells, mut readers) = (Vec::new(), Vec::new());
    for proxy in &plan.proxies {
        let (cell, of_cell) = Published::new(Arc::clone(&proxy.settings), workers);
        cells.push(cell);
        readers.push(of_cell.into_iter());
    }
    let mut shards = Vec::new();
    for (number, doors) in listeners.into_iter().enumerate() {
        let proxies = readers
            .iter_mut()
            .zip(doors)
            .filter_map(|(readers, listeners)| Some((readers.next()?, listeners)))
            .map(|(settings, listeners)| {
                let mut seed = [0; 32];
                aws_lc_rs::rand::fill(&mut seed)
                    .map_err(|_| Failure::Machine("no randomness".into()))?;
                Ok(SeatProxy {
                    settings,
                    listeners,
                    seed,
                })
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let shard = S::start(
            number,
            Seat {
                proxies,
                logs: logs.clone(),
                level: arguments.log_level,
            },
        )
        .map_err(|e| Failure::Machine(format!("worker {number} cannot start: {e}")))?;
        shards.push(shard);
    }
    say::out(format_args!(
        "meshward sidecar on {}, pid {}: {}",
        S::NAME,
        std::process::id(),
        summary(&plan)
    ));
    let mut version = 1;
    for signal in signals.forever() {
        match signal {
            SIGHUP => {
                version += 1;
                match config::load(path, version, now()) {
                    Err(messages) => say::err(format_args!(
                        "{}\nnot reloaded, everything stays as it was",
                        messages.join("\n")
                    )),
                    Ok(new) if !plan.same_doors(&new) => say::err(format_args!(
                        "{}: workers, listeners or identity files differ\n  hint: restart to change them\nnot reloaded, everything stays as it was",
                        path.display()
                    )),
                    Ok(new) => match logs.reopen(&new.logs, new.encoding) {
                        Err(message) => say::err(format_args!(
                            "{message}\nnot reloaded, everything stays as it was"
                        )),
                        Ok(()) => {
                            for warning in &new.warnings {
                                say::err(warning);
                            }
                            plan = new;
                            for (cell, proxy) in cells.iter_mut().zip(&plan.proxies) {
                                cell.publish(Arc::clone(&proxy.settings));
                            }
                            for shard in &shards {
                                S::wake(shard);
                            }
                            say::out(format_args!("reloaded: {}", summary(&plan)));
                        }
                    },
                }
            }
            _ => break,
        }
        if shards.iter().any(S::has_ended) {
            break;
        }
    }
    say::out(format_args!(
        "draining, at most {} s",
        DRAIN_GRACE.as_secs()
    ));
    for shard in &shards {
        S::drain(shard, DRAIN_GRACE);
    }
    let last = Instant::now() + DRAIN_GRACE + DRAIN_MARGIN;
    while !shards.iter().all(S::has_ended) && Instant::now() < last {
        thread::sleep(LOOK);
    }
    let mut broken = None;
    for (number, shard) in shards.into_iter().enumerate() {
        if !S::has_ended(&shard) {
            broken = Some(io::Error::other(format!("worker {number} does not end")));
        } else if let Err(e) = S::join(shard) {
            broken = Some(e);
        }
    }
    logs.close();
    match broken {
        None => Ok(ExitCode::SUCCESS),
        Some(e) => Err(Failure::Machine(e.to_string())),
    }
}

fn summary(plan: &Plan) -> String {
    let listeners: usize = plan.proxies.iter().map(|p| p.listeners.len()).sum();
    let count =
        |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    format!(
        "{}, {}, {}",
        count(listeners, "listener", "listeners"),
        count(plan.policies, "policy", "policies"),
        count(plan.workers, "worker", "workers")
    )
}

macro_rules! shards {
    ($module:ident, $name:ident, $binding:ident, $words:literal) => {
        mod $module {
            use super::*;
            use $binding::{
                Clock, Command, Destination, Driver, ProxyId, ShardHandle, Sink, spawn_shard,
            };

            pub(super) struct $name;

            impl Sink for Ears {
                fn record(&mut self, _: ProxyId, record: Box<Record>) {
                    self.logs.write(record.listener as usize, &record);
                }

                fn listener_failed(&mut self, _: ProxyId, listener: SocketAddr, error: &io::Error) {
                    let words = crate::files::words(error);
                    say::err(format_args!(
                        "{listener}: no connections are accepted for now: {words}"
                    ));
                }

                fn note(&mut self, proxy: ProxyId, link: LinkId, _: Scope, what: &str) {
                    if self.level == LogLevel::Debug {
                        say::err(format_args!(
                            "debug: proxy {} link {link:?}: {what}",
                            proxy.0
                        ));
                    }
                }
            }

            impl Shards for $name {
                const NAME: &'static str = $words;
                type Shard = ShardHandle<Proxy>;

                fn start(number: usize, seat: Seat) -> io::Result<Self::Shard> {
                    spawn_shard(format!("worker-{number}"), None, move || {
                        let clock = Clock::start();
                        let (logs, level) = (seat.logs, seat.level);
                        let mut driver = Driver::new(clock, Box::new(Ears { logs, level }));
                        for plan in seat.proxies {
                            let proxy = driver.add(Proxy::new(
                                plan.seed,
                                Crypto::production(),
                                clock.now(),
                            ));
                            driver.follow(proxy, plan.settings, Settings::inputs);
                            for (listener, entry) in plan.listeners {
                                driver.listen(proxy, listener, entry, Destination::Local)?;
                            }
                        }
                        Ok(driver)
                    })
                }

                fn wake(shard: &Self::Shard) {
                    shard.remote().wake();
                }

                fn drain(shard: &Self::Shard, grace: Duration) {
                    shard.send(Command::Drain { grace });
                }

                fn join(shard: Self::Shard) -> io::Result<()> {
                    shard.join().map(|_| ())
                }

                fn has_ended(shard: &Self::Shard) -> bool {
                    shard.is_finished()
                }
            }
        }
    };
}

shards!(tokio_shards, Tokio, meshward_tokio, "tokio");
shards!(uring, Uring, meshward_glommio, "io_uring");
