//! The server's end of the control socket.
//!
//! Each connection has a thread for one request. Whoever connects must be of our user; the folder and the socket let
//! nobody else in, and the kernel is asked too.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::protocol::{self, Answer, Ask, PAUSE_MAX, REQUEST_MAX, Response, VERSION};
use crate::say;

/// Connections that are served at once; more are closed.
const SERVED_MAX: usize = 64;
/// Pause after an `accept` that failed.
const REST: Duration = Duration::from_millis(100);

/// Serves for ever, on a thread of its own. `answer` is called by several threads at once.
pub(crate) fn serve(
    listener: UnixListener,
    answer: impl Fn(Ask) -> Answer + Send + Sync + 'static,
) -> io::Result<()> {
    let answer = Arc::new(answer);
    let served = Arc::new(AtomicUsize::new(0));
    thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            loop {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(REST);
                    continue;
                };
                if !is_ours(&stream) || served.load(Ordering::Relaxed) >= SERVED_MAX {
                    continue;
                }
                served.fetch_add(1, Ordering::Relaxed);
                let (answer, done) = (Arc::clone(&answer), Arc::clone(&served));
                let serving = thread::Builder::new()
                    .name("request".into())
                    .spawn(move || {
                        serve_one(stream, &*answer);
                        done.fetch_sub(1, Ordering::Relaxed);
                    });
                if serving.is_err() {
                    served.fetch_sub(1, Ordering::Relaxed);
                }
            }
        })
        .map(drop)
}

fn is_ours(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid == rustix::process::getuid())
}

fn serve_one(mut stream: UnixStream, answer: &impl Fn(Ask) -> Answer) {
    let limited = stream
        .set_read_timeout(Some(PAUSE_MAX))
        .and_then(|()| stream.set_write_timeout(Some(PAUSE_MAX)));
    if limited.is_err() {
        return;
    }
    let answer = match protocol::version_of(&mut stream) {
        Ok(Ok(request)) => answer(request.ask),
        Ok(Err(version)) => Answer::Failed(format!(
            "the mesh speaks version {VERSION} of the control protocol, not {version}"
        )),
        Err(e) => Answer::Failed(format!("the request cannot be read: {e}")),
    };
    let response = Response {
        version: VERSION,
        answer,
    };
    if let Err(e) = protocol::write(&mut stream, &response, REQUEST_MAX) {
        say::err(format_args!("an answer was not taken: {e}"));
    }
}
