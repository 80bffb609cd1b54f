//! The threads that carry the proxies of a mesh, over either binding.
//!
//! Each pod's proxy lives on one worker, so that an idle pod costs one machine however many workers there are.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use meshward_core::id::LinkId;
use meshward_core::link::Entry;
use meshward_core::proxy::{Input, Proxy};
use meshward_core::telemetry::Record;
use meshward_core::telemetry::levels::Scope;
use meshward_core::tls::Crypto;

use crate::logs::Logs;
use crate::machine::Chosen;
use crate::say;

/// A proxy of a mesh: its worker, and its number there. Never given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seat {
    pub(crate) worker: usize,
    proxy: u32,
}

/// One thread with its driver.
trait Worker: Send + Sync {
    /// A new machine, which is told `inputs`.
    fn add(&self, seed: [u8; 32], inputs: Vec<Input>) -> io::Result<u32>;
    fn listen(&self, proxy: u32, listeners: Vec<TcpListener>) -> io::Result<()>;
    fn input(&self, proxy: u32, input: Input);
    fn adopt(&self, proxy: u32, stream: TcpStream, peer: SocketAddr, meant: SocketAddr);
    fn remove(&self, proxy: u32, grace: Duration);
    /// Answers when what was asked before has been taken over.
    fn settled(&self) -> Receiver<()>;
    fn drain(&self, grace: Duration);
    /// Ends now; links are closed as they are.
    fn stop(&self);
    fn has_ended(&self) -> bool;
}

/// All workers of a mesh.
pub(crate) struct Shards {
    workers: Vec<Box<dyn Worker>>,
    runtime: &'static str,
}

/// What a worker says beside its traffic.
struct Ears {
    worker: usize,
    workers: usize,
    logs: Logs,
    notes: bool,
    removed: Sender<Seat>,
}

impl Ears {
    fn record(&self, proxy: u32, record: &Record) {
        let worker = self.worker;
        let number = log_number(Seat { worker, proxy }, self.workers);
        self.logs.write(number, record);
    }

    fn note(&self, proxy: u32, link: LinkId, scope: Scope, what: &str) {
        let worker = self.worker;
        let number = log_number(Seat { worker, proxy }, self.workers);
        self.logs.note(number, scope, what);
        if self.notes && scope == Scope::Connection {
            say::err(format_args!(
                "debug: worker {worker} proxy {proxy} link {link:?}: {what}"
            ));
        }
    }

    fn removed(&self, proxy: u32) {
        let worker = self.worker;
        // Nobody listens any more when the mesh ends.
        let _ = self.removed.send(Seat { worker, proxy });
    }
}

fn listener_failed(listener: SocketAddr, error: &io::Error) {
    let words = crate::files::words(error);
    say::err(format_args!(
        "{listener}: no connections are accepted for now: {words}"
    ));
}

fn log_number(seat: Seat, workers: usize) -> usize {
    (seat.proxy as usize) * workers + seat.worker
}

impl Shards {
    /// Starts `count` workers. `notes`: say why links end before their time. Proxies that have gone are told to `removed`.
    pub(crate) fn start(
        chosen: Chosen,
        count: usize,
        logs: &Logs,
        notes: bool,
        removed: &Sender<Seat>,
    ) -> io::Result<Self> {
        let mut workers = Vec::new();
        for worker in 0..count {
            let ears = Ears {
                worker,
                workers: count,
                logs: logs.clone(),
                notes,
                removed: removed.clone(),
            };
            workers.push(match chosen {
                Chosen::Tokio => over_tokio::start(ears)?,
                Chosen::Uring => over_uring::start(ears)?,
            });
        }
        let runtime = match chosen {
            Chosen::Tokio => over_tokio::NAME,
            Chosen::Uring => over_uring::NAME,
        };
        Ok(Self { workers, runtime })
    }

    pub(crate) fn runtime(&self) -> &'static str {
        self.runtime
    }

    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    /// The number by which [`Logs`] knows the records of that proxy.
    pub(crate) fn log_number(&self, seat: Seat) -> usize {
        log_number(seat, self.workers.len())
    }

    /// A new proxy on `worker`, which is told `inputs`.
    pub(crate) fn add(
        &self,
        worker: usize,
        seed: [u8; 32],
        inputs: Vec<Input>,
    ) -> io::Result<Seat> {
        let proxy = self.worker(worker)?.add(seed, inputs)?;
        Ok(Seat { worker, proxy })
    }

    /// Inbound doors; each connection means the address that it came to.
    pub(crate) fn listen(&self, seat: Seat, listeners: Vec<TcpListener>) -> io::Result<()> {
        self.worker(seat.worker)?.listen(seat.proxy, listeners)
    }

    pub(crate) fn input(&self, seat: Seat, input: Input) {
        if let Ok(worker) = self.worker(seat.worker) {
            worker.input(seat.proxy, input);
        }
    }

    /// A connection of the workload's own, to `meant`.
    pub(crate) fn adopt(&self, seat: Seat, stream: TcpStream, peer: SocketAddr, meant: SocketAddr) {
        if let Ok(worker) = self.worker(seat.worker) {
            worker.adopt(seat.proxy, stream, peer, meant);
        }
    }

    /// Closes the proxy's doors; what is open may go on for `grace`.
    pub(crate) fn remove(&self, seat: Seat, grace: Duration) {
        if let Ok(worker) = self.worker(seat.worker) {
            worker.remove(seat.proxy, grace);
        }
    }

    /// Waits until every worker has taken over what it was told before; which of them have, within `patience`.
    pub(crate) fn settle(&self, patience: Duration) -> Vec<bool> {
        let answers: Vec<_> = self.workers.iter().map(|w| w.settled()).collect();
        let end = std::time::Instant::now() + patience;
        let settled = answers.iter().map(|answer| {
            let left = end.saturating_duration_since(std::time::Instant::now());
            answer.recv_timeout(left).is_ok()
        });
        settled.collect()
    }

    pub(crate) fn drain(&self, grace: Duration) {
        for worker in &self.workers {
            worker.drain(grace);
        }
    }

    pub(crate) fn have_ended(&self) -> bool {
        self.workers.iter().all(|w| w.has_ended())
    }

    pub(crate) fn stop(&self) {
        for worker in &self.workers {
            worker.stop();
        }
    }

    /// A worker that has ended although nobody asked it to, or because all were asked.
    pub(crate) fn ended(&self) -> Option<usize> {
        self.workers.iter().position(|w| w.has_ended())
    }

    fn worker(&self, number: usize) -> io::Result<&dyn Worker> {
        let gone = || io::Error::other(format!("there is no worker {number}"));
        self.workers.get(number).map(|w| &**w).ok_or_else(gone)
    }
}

fn gone<T>(_: T) -> io::Error {
    io::Error::other("the worker has ended")
}

macro_rules! over {
    ($module:ident, $binding:ident, $words:literal) => {
        mod $module {
            use super::*;
            use $binding::{
                Clock, Command, Destination, Driver, ProxyId, ShardHandle, Sink, spawn_shard,
            };

            pub(super) const NAME: &str = $words;

            impl Sink for Ears {
                fn record(&mut self, proxy: ProxyId, record: Box<Record>) {
                    Ears::record(self, proxy.0, &record);
                }
                fn listener_failed(&mut self, _: ProxyId, listener: SocketAddr, e: &io::Error) {
                    super::listener_failed(listener, e);
                }
                fn note(&mut self, proxy: ProxyId, link: LinkId, scope: Scope, what: &str) {
                    Ears::note(self, proxy.0, link, scope, what);
                }
                fn removed(&mut self, proxy: ProxyId) {
                    Ears::removed(self, proxy.0);
                }
            }

            struct Thread {
                handle: ShardHandle<Proxy>,
                clock: Clock,
            }

            pub(super) fn start(ears: Ears) -> io::Result<Box<dyn Worker>> {
                let clock = Clock::start();
                let name = format!("worker-{}", ears.worker);
                let handle =
                    spawn_shard(name, None, move || Ok(Driver::new(clock, Box::new(ears))))?;
                Ok(Box::new(Thread { handle, clock }))
            }

            impl Thread {
                /// Runs `what` on the worker's thread.
                fn run<T: Send + 'static>(
                    &self,
                    what: impl FnOnce(&mut Driver<Proxy>) -> T + Send + 'static,
                ) -> Receiver<T> {
                    let (done, answer) = mpsc::sync_channel(1);
                    self.handle.send(Command::Run(Box::new(move |driver| {
                        // Who asked may have stopped waiting.
                        let _ = done.send(what(driver));
                    })));
                    answer
                }
            }

            impl Worker for Thread {
                fn add(&self, seed: [u8; 32], inputs: Vec<Input>) -> io::Result<u32> {
                    let clock = self.clock;
                    let added = self.run(move |driver| {
                        let machine = Proxy::new(seed, Crypto::production(), clock.now());
                        let proxy = driver.add(machine);
                        for input in inputs {
                            driver.input(proxy, input);
                        }
                        proxy.0
                    });
                    added.recv().map_err(gone)
                }

                fn listen(&self, proxy: u32, listeners: Vec<TcpListener>) -> io::Result<()> {
                    let listening = self.run(move |driver| {
                        for listener in listeners {
                            let (id, here) = (ProxyId(proxy), Destination::Local);
                            driver.listen(id, listener, Entry::Inbound, here)?;
                        }
                        Ok(())
                    });
                    listening.recv().map_err(gone)?
                }

                fn input(&self, proxy: u32, input: Input) {
                    self.handle.send(Command::Input(ProxyId(proxy), input));
                }

                fn adopt(
                    &self,
                    proxy: u32,
                    stream: TcpStream,
                    peer: SocketAddr,
                    original_dst: SocketAddr,
                ) {
                    self.handle.send(Command::Adopt {
                        proxy: ProxyId(proxy),
                        stream,
                        entry: Entry::Outbound,
                        peer,
                        original_dst,
                    });
                }

                fn remove(&self, proxy: u32, grace: Duration) {
                    let proxy = ProxyId(proxy);
                    self.handle.send(Command::Remove { proxy, grace });
                }

                fn settled(&self) -> Receiver<()> {
                    self.run(|_| ())
                }

                fn drain(&self, grace: Duration) {
                    self.handle.send(Command::Drain { grace });
                }

                fn stop(&self) {
                    self.handle.send(Command::Stop);
                }

                fn has_ended(&self) -> bool {
                    self.handle.is_finished()
                }
            }
        }
    };
}

over!(over_tokio, meshward_tokio, "tokio");
over!(over_uring, meshward_glommio, "io_uring");
