//! Bytes both ways between two connections, as if there were only one.
//!
//! What a client can see of its peer passes: each direction ends by itself, and a reset arrives as a reset (S-28), so that
//! curl ends with the code that it has without us. Looks at no byte.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::Instant;

/// Bytes that are under way in one direction; held only while there are any.
const BUFFER: usize = 16 * 1024;
/// A connection on which nothing moves is ended after it, as by Envoy's tcp_proxy.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(3600);

/// How a relayed connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides said that they are done.
    Finished,
    /// One side was reset, so the other was too.
    Reset,
    /// Nothing moved for too long.
    Idle,
}

/// Relays until both directions have ended, one side is reset, or nothing moved for `idle`.
pub(crate) async fn relay(mut a: TcpStream, mut b: TcpStream, idle: Duration) -> End {
    // Where an option cannot be set the bytes still arrive.
    let _ = a.set_nodelay(true);
    let _ = b.set_nodelay(true);
    let moved = Moved::now();
    let end = {
        let (from_a, to_a) = a.split();
        let (from_b, to_b) = b.split();
        let both =
            async { tokio::try_join!(pump(from_a, to_b, &moved), pump(from_b, to_a, &moved)) };
        tokio::select! {
            ended = both => match ended {
                Ok(_) => End::Finished,
                Err(_) => End::Reset,
            },
            () = nothing_moves(&moved, idle) => End::Idle,
        }
    };
    if end == End::Reset {
        reset(&a);
        reset(&b);
    }
    end
}

/// Lets the close of `stream` be a reset.
fn reset(stream: &TcpStream) {
    // Fails only on a socket that is no more.
    let _ = stream.set_zero_linger();
}

/// One direction to its end. An error means that one of the two connections is broken.
async fn pump(from: ReadHalf<'_>, mut to: WriteHalf<'_>, moved: &Moved) -> io::Result<()> {
    loop {
        tokio::task::coop::consume_budget().await;
        from.readable().await?;
        let mut buffer = Vec::with_capacity(BUFFER);
        match from.try_read_buf(&mut buffer) {
            Ok(0) => break,
            Ok(_) => moved.again(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        }
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let written = to.write(rest).await?;
            rest = rest.get(written..).unwrap_or_default();
            moved.again();
        }
    }
    match to.shutdown().await {
        // The other side has closed both directions already; whether it was reset, its own direction tells.
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
        done => done,
    }
}

/// When bytes were moved last. Shared by both directions, which one task drives.
struct Moved {
    start: Instant,
    last_ms: AtomicU64,
}

impl Moved {
    fn now() -> Self {
        Self {
            start: Instant::now(),
            last_ms: AtomicU64::new(0),
        }
    }

    fn again(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }
}

async fn nothing_moves(moved: &Moved, idle: Duration) {
    loop {
        let end = moved.last() + idle;
        if end <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(end).await;
    }
}

#[cfg(test)]
mod tests;
