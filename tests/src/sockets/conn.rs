//! Clients and applications over real sockets, a thread for each connection and each application.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use meshward_simulator::peer::Ending;
use meshward_simulator::tls::{TlsClient, TlsEnd};

use super::Pulse;

/// One end of one connection, as its application sees it.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) received: Vec<u8>,
    pub(super) ending: Option<Ending>,
    tls: Option<TlsClient>,
    finished: bool,
    finishing: bool,
    pub(super) told: Told,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    pub(super) opened: bool,
    pub(super) bytes: usize,
    pub(super) ending: bool,
}

/// A connection: its journal, and its socket while somebody holds it.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) state: Arc<Mutex<State>>,
    socket: Option<Arc<TcpStream>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

/// How long a blocked read or accept goes without looking whether it should end.
const BEAT: Duration = Duration::from_millis(5);

impl Conn {
    pub(super) fn begin(
        stream: TcpStream,
        tls: Option<TlsClient>,
        pulse: &Pulse,
    ) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(BEAT))?;
        stream.set_nodelay(true)?;
        let socket = Arc::new(stream);
        let state = Arc::new(Mutex::new(State {
            tls,
            ..State::default()
        }));
        flush(&mut lock(&state), &socket);
        let stop = Arc::new(AtomicBool::new(false));
        let reader = thread::spawn({
            let (state, socket, stop) =
                (Arc::clone(&state), Arc::clone(&socket), Arc::clone(&stop));
            let pulse = pulse.clone();
            move || read(&state, &socket, &stop, &pulse)
        });
        Ok(Self {
            state,
            socket: Some(socket),
            stop,
            reader: Some(reader),
        })
    }

    pub(super) fn refused() -> Self {
        let state = State {
            ending: Some(Ending::Refused),
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            socket: None,
            stop: Arc::default(),
            reader: None,
        }
    }

    pub(super) fn send(&self, bytes: &[u8]) {
        let Some(socket) = &self.socket else { return };
        let mut state = lock(&self.state);
        if state.finished {
            return;
        }
        match &mut state.tls {
            Some(tls) if matches!(tls.end(), None | Some(TlsEnd::Notified)) => {
                tls.send(bytes);
                flush(&mut state, socket);
            }
            // The session failed before the client came to say this.
            Some(_) => {}
            // The reader tells what became of the connection.
            None => drop((&**socket).write_all(bytes)),
        }
    }

    pub(super) fn finish(&self) {
        if let Some(socket) = &self.socket {
            finish(&mut lock(&self.state), socket);
        }
    }

    /// Lets go of the socket: with a reset, or as the system does it.
    pub(super) fn let_go(&mut self, reset: bool) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
        if let Some(socket) = self.socket.take()
            && reset
        {
            drop(socket2::SockRef::from(&*socket).set_linger(Some(Duration::ZERO)));
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn flush(state: &mut State, mut socket: &TcpStream) {
    if let Some(tls) = &mut state.tls {
        drop(socket.write_all(&tls.take_wire()));
    }
}

fn finish(state: &mut State, socket: &TcpStream) {
    if state.finished {
        return;
    }
    if let Some(tls) = &mut state.tls {
        if tls.is_handshaking() && state.ending.is_none() {
            state.finishing = true;
            return;
        }
        tls.finish();
    }
    flush(state, socket);
    state.finished = true;
    drop(socket.shutdown(Shutdown::Write));
}

/// Reads until the end, or until it is told to stop.
fn read(state: &Mutex<State>, mut socket: &TcpStream, stop: &AtomicBool, pulse: &Pulse) {
    let mut buffer = vec![0; 64 * 1024];
    while !stop.load(Ordering::Relaxed) {
        let result = socket.read(&mut buffer);
        let mut state = lock(state);
        let ending = match result {
            Ok(0) => Some(Ending::Fin),
            Ok(n) => {
                pulse.beat();
                take(&mut state, &buffer[..n]);
                flush(&mut state, socket);
                if state.finishing {
                    finish(&mut state, socket);
                }
                None
            }
            Err(e) => match e.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => None,
                _ => Some(Ending::Reset),
            },
        };
        if let Some(ending) = ending {
            state.ending.get_or_insert(ending);
            return;
        }
    }
}

fn take(state: &mut State, wire: &[u8]) {
    let Some(tls) = &mut state.tls else {
        state.received.extend_from_slice(wire);
        return;
    };
    tls.receive(wire, &mut state.received);
    let ending = match tls.end() {
        None => return,
        Some(TlsEnd::Notified) => Ending::Fin,
        Some(TlsEnd::Alert(n)) => Ending::Alert(n),
        Some(TlsEnd::Broken) => Ending::NotTls,
    };
    state.ending.get_or_insert(ending);
}

/// The application of one workload: its listeners, served in turn by one thread, and what they accepted.
#[derive(Debug)]
pub(super) struct App {
    pub(super) listeners: Arc<Mutex<BTreeMap<u16, TcpListener>>>,
    /// What keeps connects from being answered.
    silenced: Vec<(TcpListener, TcpStream)>,
    pub(super) conns: Arc<Mutex<Vec<Conn>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl App {
    pub(super) fn begin(listeners: BTreeMap<u16, TcpListener>, pulse: Pulse) -> Self {
        let listeners = Arc::new(Mutex::new(listeners));
        let (conns, stop): (Arc<Mutex<Vec<Conn>>>, Arc<AtomicBool>) = Default::default();
        let thread = thread::spawn({
            let (listeners, conns, stop) = (
                Arc::clone(&listeners),
                Arc::clone(&conns),
                Arc::clone(&stop),
            );
            move || {
                while !stop.load(Ordering::Relaxed) {
                    for listener in lock(&listeners).values() {
                        while let Ok((stream, _)) = listener.accept() {
                            if let Ok(conn) = Conn::begin(stream, None, &pulse) {
                                lock(&conns).push(conn);
                            }
                        }
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Self {
            listeners,
            silenced: Vec::new(),
            conns,
            stop,
            thread: Some(thread),
        }
    }

    /// Nobody accepts behind `port` any more, and the queue of those who wait is full: Linux drops what else comes.
    pub(super) fn silence(&mut self, port: u16) -> std::io::Result<()> {
        let Some(listener) = lock(&self.listeners).remove(&port) else {
            return Ok(());
        };
        socket2::SockRef::from(&listener).listen(0)?;
        let filler = TcpStream::connect(listener.local_addr()?)?;
        self.silenced.push((listener, filler));
        Ok(())
    }

    pub(super) fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        for conn in lock(&self.conns).iter_mut() {
            conn.let_go(true);
        }
    }
}
