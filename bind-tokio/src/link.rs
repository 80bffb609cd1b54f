//! One socket, and what a machine asked of it.
//!
//! System calls per message: one read and one write. A read that came back short proves that the socket is empty, and tokio's
//! `poll_read` then clears its readiness, so the next grant waits for the waker without asking the kernel; likewise a short
//! write.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::BufMut;
use meshward_core::link::{Buf, CloseCause, LinkEvent};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::buffers::{Buffers, Chunk};
use crate::limits::WRITEV_MAX;
use crate::sys;

#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    waker: Waker,
    ours: Ours,
    theirs: Theirs,
    /// Bytes that the next `Received` may have; 0: nothing was granted.
    grant: usize,
    out: VecDeque<Chunk>,
    /// Bytes that the kernel took since the last `Sent`.
    taken: usize,
    /// INVARIANT: set only while tokio holds our waker for reading, so that asking again cannot help.
    read_waits: bool,
    /// tokio takes an accepted socket for readable without having looked, which saves a wake-up when the peer speaks first. Set
    /// until we have looked.
    presumed: bool,
    /// As `read_waits`, for writing.
    write_waits: bool,
    /// It stands in the driver's line; kept by the driver.
    pub(crate) queued: bool,
    /// It has something to send since the last input; kept by the driver.
    pub(crate) sending: bool,
}

/// What is left of a link after it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// Its waker, or a command, will say when to serve it again.
    Waits,
    /// Serve it again after the machine has heard what was read: to read on, or to watch.
    Again,
    Over(CloseCause),
}

/// Our direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ours {
    Open,
    /// A FIN follows what is still to be sent.
    Finishing,
    Finished,
    /// A write failed. What the peer said before it hung up, say an early answer, is still read as long as reads are granted.
    Broken(CloseCause),
}

/// The peer's direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theirs {
    /// Nobody has answered yet.
    Connecting,
    Open,
    /// `Eof` was reported.
    Finished,
}

impl Link {
    /// A link that was accepted.
    pub(crate) fn accepted(stream: TcpStream) -> Self {
        Self::new(stream, Theirs::Open)
    }

    /// Starts a connect; `Connected` or `Closed` follows from [`serve`](Self::serve).
    pub(crate) fn connect(to: SocketAddr, from: Option<SocketAddr>) -> Result<Self, CloseCause> {
        start_connect(to, from)
            .map(|stream| Self::new(stream, Theirs::Connecting))
            .map_err(|e| cause_of(&e))
    }

    fn new(stream: TcpStream, theirs: Theirs) -> Self {
        Self {
            stream,
            waker: Waker::noop().clone(),
            ours: Ours::Open,
            theirs,
            grant: 0,
            out: VecDeque::new(),
            taken: 0,
            presumed: theirs == Theirs::Open,
            read_waits: false,
            write_waits: false,
            queued: false,
            sending: false,
        }
    }

    /// Whom to wake when the socket is ready.
    pub(crate) fn set_waker(&mut self, waker: Waker) {
        self.waker = waker;
    }

    /// Its waker was used up: both directions are worth asking again.
    pub(crate) fn woken(&mut self) {
        self.read_waits = false;
        self.write_waits = false;
    }

    /// `true`: serve the link. A waiting link will be woken; a second grant replaces the first.
    pub(crate) fn grant(&mut self, at_most: usize) -> bool {
        self.grant = at_most.max(1);
        !self.read_waits && self.theirs == Theirs::Open
    }

    /// Queues bytes; after `finish` they are dropped, because their place in the stream is gone.
    pub(crate) fn send(&mut self, bytes: Buf, ack: bool, buffers: &mut Buffers) {
        if self.ours != Ours::Open {
            return;
        }
        if self.out.capacity() == 0 {
            self.out = buffers.queue();
        }
        self.out.push_back(Chunk { bytes, ack });
    }

    pub(crate) fn finish(&mut self) {
        if self.ours == Ours::Open {
            self.ours = Ours::Finishing;
        }
    }

    /// Lets go: RST, unsent bytes lost on both sides.
    pub(crate) fn reset(self) {
        // It fails on sockets that are reset already.
        let _ = self.stream.set_zero_linger();
    }

    /// Does what can be done now. Reads before it writes: what the peer said before it hung up is still heard.
    pub(crate) fn serve(
        &mut self,
        buffers: &mut Buffers,
        mut emit: impl FnMut(LinkEvent),
    ) -> Served {
        if self.theirs == Theirs::Connecting {
            match self.poll_connect() {
                Poll::Pending => return Served::Waits,
                Poll::Ready(Ok(local)) => emit(LinkEvent::Connected { local }),
                Poll::Ready(Err(e)) => return Served::Over(cause_of(&e)),
            }
        }
        let read = match self.receive(buffers, &mut emit) {
            Ok(read) => read,
            Err(e) => return Served::Over(cause_of(&e)),
        };
        match self.transmit(buffers, emit) {
            Some(cause) => Served::Over(cause),
            None if read => Served::Again,
            None => Served::Waits,
        }
    }

    /// Writes what is queued, then the FIN if one was asked for; `Some`: the link is over.
    pub(crate) fn transmit(
        &mut self,
        buffers: &mut Buffers,
        mut emit: impl FnMut(LinkEvent),
    ) -> Option<CloseCause> {
        if self.theirs == Theirs::Connecting {
            return None;
        }
        if let Err(e) = self
            .write(buffers, &mut emit)
            .and_then(|()| self.write_fin())
        {
            self.out.clear();
            buffers.give_back_queue(&mut self.out);
            let cause = cause_of(&e);
            // A reset also makes the socket readable, so waiting for that ends; other failures may come alone.
            if cause != CloseCause::Reset {
                return Some(cause);
            }
            self.ours = Ours::Broken(cause);
        }
        match (self.ours, self.theirs) {
            (Ours::Broken(cause), _) => (self.grant == 0).then_some(cause),
            (Ours::Finished, Theirs::Finished) => Some(CloseCause::Finished),
            _ => None,
        }
    }

    fn poll_connect(&mut self) -> Poll<io::Result<SocketAddr>> {
        let mut cx = Context::from_waker(&self.waker);
        std::task::ready!(self.stream.poll_write_ready(&mut cx))?;
        if let Some(e) = self.stream.take_error()? {
            return Poll::Ready(Err(e));
        }
        self.theirs = Theirs::Open;
        Poll::Ready(self.stream.local_addr())
    }

    /// One read if it was granted; else makes sure that a reset by the peer is heard of. `true`: bytes came.
    fn receive(
        &mut self,
        buffers: &mut Buffers,
        emit: &mut impl FnMut(LinkEvent),
    ) -> io::Result<bool> {
        if self.read_waits || self.theirs != Theirs::Open {
            return Ok(false);
        }
        if self.grant == 0 {
            return self.watch().map(|()| false);
        }
        self.presumed = false;
        let mut cx = Context::from_waker(&self.waker);
        let mut room = buffers.landing().storage().limit(self.grant);
        let read = pin!(self.stream.read_buf(&mut room));
        match read.poll(&mut cx) {
            Poll::Pending => {
                self.read_waits = true;
                Ok(false)
            }
            Poll::Ready(Ok(0)) => {
                self.grant = 0;
                self.theirs = Theirs::Finished;
                // Behind a broken write the end is no FIN that a machine may trust.
                if !matches!(self.ours, Ours::Broken(_)) {
                    emit(LinkEvent::Eof);
                }
                Ok(false)
            }
            Poll::Ready(Ok(_)) => {
                self.grant = 0;
                emit(LinkEvent::Received(buffers.landed()));
                Ok(true)
            }
            Poll::Ready(Err(e)) => Err(e),
        }
    }

    /// Waits for the peer without reading. While bytes lie unread tokio will not wake us again, so then a reset is found by the
    /// next read or write at the latest.
    fn watch(&mut self) -> io::Result<()> {
        let mut cx = Context::from_waker(&self.waker);
        if self.stream.poll_read_ready(&mut cx)?.is_pending() {
            self.read_waits = true;
            return Ok(());
        }
        if std::mem::take(&mut self.presumed) {
            let mut byte = [0];
            let peek = self.stream.poll_peek(&mut cx, &mut ReadBuf::new(&mut byte));
            self.read_waits = peek.is_pending();
            return match peek {
                Poll::Ready(Err(e)) => Err(e),
                Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
            };
        }
        let error = pin!(self.stream.ready(Interest::ERROR));
        match error.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(ready)) if ready.is_error() => {
                self.stream.take_error()?.map_or(Ok(()), Err)
            }
            Poll::Ready(Err(e)) => Err(e),
            _ => Ok(()),
        }
    }

    fn write(&mut self, buffers: &mut Buffers, emit: &mut impl FnMut(LinkEvent)) -> io::Result<()> {
        self.took(0, buffers, emit);
        while !self.out.is_empty() && !self.write_waits {
            let mut cx = Context::from_waker(&self.waker);
            match poll_write(&mut self.stream, &mut cx, &self.out) {
                Poll::Pending => self.write_waits = true,
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => self.took(n, buffers, emit),
                Poll::Ready(Err(e)) => return Err(e),
            }
        }
        buffers.give_back_queue(&mut self.out);
        Ok(())
    }

    /// The kernel took `n` bytes from the front of the queue.
    fn took(&mut self, mut n: usize, buffers: &mut Buffers, emit: &mut impl FnMut(LinkEvent)) {
        self.taken += n;
        while let Some(chunk) = self.out.front_mut() {
            if chunk.bytes.len() > n {
                chunk.bytes.advance(n);
                return;
            }
            n -= chunk.bytes.len();
            if let Some(chunk) = self.out.pop_front() {
                buffers.give_back(chunk.bytes);
                if chunk.ack {
                    // What went out behind this chunk belongs to the next `Sent`.
                    emit(LinkEvent::Sent(self.taken - n));
                    self.taken = n;
                }
            }
        }
    }

    fn write_fin(&mut self) -> io::Result<()> {
        if self.ours == Ours::Finishing && self.out.is_empty() {
            self.ours = Ours::Finished;
            // Both directions done: closing sends the FIN too.
            if self.theirs == Theirs::Open {
                SockRef::from(&self.stream).shutdown(Shutdown::Write)?;
            }
        }
        Ok(())
    }
}

fn poll_write(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    out: &VecDeque<Chunk>,
) -> Poll<io::Result<usize>> {
    if let (1, Some(chunk)) = (out.len(), out.front()) {
        return Pin::new(stream).poll_write(cx, &chunk.bytes);
    }
    let mut slices = [IoSlice::new(&[]); WRITEV_MAX];
    let (mut used, mut wanted) = (0, 0);
    for (slice, chunk) in slices.iter_mut().zip(out) {
        *slice = IoSlice::new(&chunk.bytes);
        used += 1;
        wanted += chunk.bytes.len();
    }
    let written = Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..used]);
    if let Poll::Ready(Ok(n)) = written
        && n < wanted
    {
        // tokio clears its readiness after a short `write`, and not after a short `writev`; this does it.
        let _ = stream.try_io(Interest::WRITABLE, || {
            Err::<(), _>(io::ErrorKind::WouldBlock.into())
        });
    }
    written
}

fn start_connect(to: SocketAddr, from: Option<SocketAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(from) = from {
        if from.port() == 0 {
            sys::bind_address_no_port(&socket)?;
        }
        socket.bind(&from.into())?;
    }
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(e) => return Err(e),
    }
    TcpStream::from_std(socket.into())
}

fn cause_of(error: &io::Error) -> CloseCause {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => CloseCause::Refused,
        Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED | libc::ENOTCONN) => {
            CloseCause::Reset
        }
        Some(libc::ETIMEDOUT) => CloseCause::TimedOut,
        _ => CloseCause::Unreachable,
    }
}
