//! One socket, what a machine asked of it, and which operations on it are under way.
//!
//! At most three are: one that receives, one that connects or sends, and a watch that outlives both. A link that ends cancels
//! them, and its socket is closed when the last has completed, so that no operation ever meets another socket.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use meshward_core::id::LinkId;
use meshward_core::link::{Buf, CloseCause, LinkEvent};
use meshward_core::proxy::Input;
use socket2::{Domain, Protocol, Socket, Type};

use crate::buffers::{Buffers, Chunk};
use crate::driver::ProxyId;
use crate::limits::{COPY_BELOW, GATHER_MAX, PROVIDED_SIZE};
use crate::listen::addr_of;
use crate::ring::{self, Haste, Op, Parcel, Ring, Who};

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) proxy: ProxyId,
    pub(crate) id: LinkId,
    socket: Socket,
    ours: Ours,
    theirs: Theirs,
    /// Bytes that the next `Received` may have; 0: nothing was granted.
    grant: usize,
    receiving: Option<Op>,
    /// Connects or sends.
    writing: Option<Op>,
    /// What `writing` does if it sends.
    haste: Haste,
    /// The last send found no room for all it had: the next one waits for it.
    full: bool,
    /// There is likely nothing to receive before the peer has heard from us, or has had time.
    dry: bool,
    watch: Option<Op>,
    out: VecDeque<Chunk>,
    /// Bytes that the kernel took since the last `Sent`.
    taken: usize,
    /// What came last was large, so a large buffer is worth waiting with.
    bulk: bool,
    /// The operation that receives holds a large buffer.
    landing: bool,
    /// A send failed; the link ends when the receive that is under way has.
    unsendable: Option<CloseCause>,
    /// The watch saw an error that a receive may still have to report, after the bytes before it.
    broken: bool,
    /// It ends when no completion is owed any more.
    pub(crate) ending: Option<CloseCause>,
    /// It was told to receive or to send since the last input; kept by the table.
    pub(crate) touched: bool,
    /// It stands in the list of those that may need a watch; kept by the table.
    pub(crate) listed: bool,
}

/// Where the events of one link go.
pub(crate) struct Events<'a> {
    pub(crate) proxy: ProxyId,
    pub(crate) id: LinkId,
    pub(crate) inputs: &'a mut VecDeque<(ProxyId, Input)>,
}

impl Events<'_> {
    pub(crate) fn push(&mut self, event: LinkEvent) {
        let input = Input::Link(self.id, event);
        self.inputs.push_back((self.proxy, input));
    }
}

/// Our direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ours {
    Open,
    /// A FIN follows what is still to be sent.
    Finishing,
    Finished,
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
    pub(crate) fn accepted(socket: Socket, proxy: ProxyId, id: LinkId) -> Self {
        Self::new(socket, proxy, id, Theirs::Open)
    }

    /// A socket that is going to connect; [`connect`](Self::connect) does.
    pub(crate) fn opened(
        to: SocketAddr,
        from: Option<SocketAddr>,
        proxy: ProxyId,
        id: LinkId,
    ) -> Result<Self, CloseCause> {
        open(to, from)
            .map(|socket| Self::new(socket, proxy, id, Theirs::Connecting))
            .map_err(|e| cause_of(&e))
    }

    fn new(socket: Socket, proxy: ProxyId, id: LinkId, theirs: Theirs) -> Self {
        Self {
            proxy,
            id,
            socket,
            ours: Ours::Open,
            theirs,
            grant: 0,
            receiving: None,
            writing: None,
            haste: Haste::Patient,
            full: false,
            dry: theirs == Theirs::Connecting,
            watch: None,
            out: VecDeque::new(),
            taken: 0,
            bulk: false,
            landing: false,
            broken: false,
            unsendable: None,
            ending: None,
            touched: false,
            listed: false,
        }
    }

    pub(crate) fn connect(&mut self, ring: &mut Ring, me: Who, to: SocketAddr) {
        self.writing = Some(ring.connect(self.fd(), to.into(), me));
    }

    /// While a receive is under way another grant changes nothing.
    pub(crate) fn grant(&mut self, at_most: usize) {
        if self.receiving.is_none() {
            self.grant = at_most.max(1);
        }
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
    pub(crate) fn reset(&mut self, ring: &mut Ring) {
        // It fails on sockets that are reset already.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
        self.end(ring, CloseCause::Local);
    }

    /// `true`: no completion is owed, so the socket may be closed.
    pub(crate) fn is_free(&self) -> bool {
        self.receiving.is_none() && self.writing.is_none() && self.watch.is_none()
    }

    /// Starts what was asked for and is not under way: a receive, a send, the FIN.
    pub(crate) fn drive(
        &mut self,
        ring: &mut Ring,
        me: Who,
        buffers: &mut Buffers,
        events: &mut Events<'_>,
    ) {
        if self.ending.is_some() || self.theirs == Theirs::Connecting {
            return;
        }
        self.receive(ring, me, buffers);
        self.write(ring, me, buffers, events);
        if self.ours == Ours::Finishing && self.out.is_empty() && self.writing.is_none() {
            self.ours = Ours::Finished;
            // Both directions done: closing sends the FIN too.
            if self.theirs == Theirs::Open
                && let Err(e) = self.socket.shutdown(Shutdown::Write)
            {
                self.end(ring, cause_of(&e));
                return;
            }
        }
        if self.ours == Ours::Finished && self.theirs == Theirs::Finished {
            self.end(ring, CloseCause::Finished);
        }
    }

    fn receive(&mut self, ring: &mut Ring, me: Who, buffers: &mut Buffers) {
        if self.grant == 0 || self.receiving.is_some() || self.theirs != Theirs::Open {
            return;
        }
        self.landing = self.bulk && self.grant > PROVIDED_SIZE;
        self.receiving = Some(if self.landing {
            ring.receive_into(self.fd(), buffers.large(), self.grant, self.dry, me)
        } else {
            ring.receive(self.fd(), self.grant, self.dry, me)
        });
    }

    fn write(&mut self, ring: &mut Ring, me: Who, buffers: &mut Buffers, events: &mut Events<'_>) {
        if self.writing.is_some() {
            let waits = !self.out.is_empty() || self.ours == Ours::Finishing;
            if waits && self.haste == Haste::Quiet {
                ring.hurry();
            }
            return;
        }
        if self.unsendable.is_some() {
            return;
        }
        self.took(0, buffers, events);
        if self.out.is_empty() {
            buffers.give_back_queue(&mut self.out);
        } else {
            self.haste = self.haste();
            self.writing = Some(ring.send(self.fd(), &mut self.out, self.haste, me));
        }
    }

    /// Quiet, if nobody waits to hear that what is queued is gone: no machine, no FIN and no watch. The usual message is such.
    fn haste(&self) -> Haste {
        let nobody_waits = self.ours == Ours::Open
            && self.receiving.is_some()
            && self.out.len() <= GATHER_MAX
            && self.out.iter().all(|chunk| !chunk.ack);
        if nobody_waits && !self.full {
            Haste::Quiet
        } else {
            Haste::Patient
        }
    }

    /// The kernel took `n` bytes from the front of the queue.
    fn took(&mut self, mut n: usize, buffers: &mut Buffers, events: &mut Events<'_>) {
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
                    events.push(LinkEvent::Sent(self.taken - n));
                    self.taken = n;
                }
            }
        }
    }

    /// A receive completed; `true`: it wants to be started again in the next turn.
    pub(crate) fn received(
        &mut self,
        ring: &mut Ring,
        done: io::Result<()>,
        bytes: Buf,
        dry: bool,
        buffers: &mut Buffers,
        events: &mut Events<'_>,
    ) -> bool {
        self.receiving = None;
        self.dry = dry;
        let bytes = if std::mem::take(&mut self.landing) {
            buffers.landed(bytes)
        } else {
            bytes
        };
        if self.ending.is_some() {
            return false;
        }
        match done {
            Ok(()) if bytes.is_empty() => {
                self.grant = 0;
                self.theirs = Theirs::Finished;
                events.push(LinkEvent::Eof);
                if let Some(cause) = self.unsendable {
                    self.end(ring, cause);
                } else if self.ours == Ours::Finished {
                    self.end(ring, CloseCause::Finished);
                }
            }
            Ok(()) => {
                self.grant = 0;
                self.bulk = bytes.len() >= COPY_BELOW;
                events.push(LinkEvent::Received(bytes));
                if let Some(cause) = self.unsendable {
                    self.end(ring, cause);
                }
            }
            Err(e) if is_passing(&e) => {
                self.bulk = false;
                return true;
            }
            Err(e) => self.end(ring, cause_of(&e)),
        }
        false
    }

    /// A send completed.
    pub(crate) fn sent(
        &mut self,
        ring: &mut Ring,
        sent: io::Result<usize>,
        parcel: Parcel,
        buffers: &mut Buffers,
        events: &mut Events<'_>,
    ) {
        self.writing = None;
        self.full = sent.as_ref().map_or(true, |n| *n < parcel.len());
        ring.unpack(parcel, &mut self.out);
        if self.ending.is_some() {
            return;
        }
        match sent {
            Ok(n) => self.took(n, buffers, events),
            Err(e) if is_passing(&e) => {}
            // What the peer said before it reset is still to be heard, if somebody waits for it: the receive ends too.
            Err(e) if self.receiving.is_some() => {
                self.unsendable = Some(cause_of(&e));
                self.out.clear();
            }
            Err(e) => self.end(ring, cause_of(&e)),
        }
    }

    /// The connect completed.
    pub(crate) fn connected(
        &mut self,
        ring: &mut Ring,
        done: io::Result<()>,
        events: &mut Events<'_>,
    ) {
        self.writing = None;
        if self.ending.is_some() {
            return;
        }
        match done.and_then(|()| addr_of(self.socket.local_addr()?)) {
            Ok(local) => {
                self.theirs = Theirs::Open;
                events.push(LinkEvent::Connected { local });
            }
            Err(e) => self.end(ring, cause_of(&e)),
        }
    }

    /// The watch saw something.
    pub(crate) fn watched(&mut self, ring: &mut Ring, broken: bool, last: bool) {
        if last {
            self.watch = None;
        }
        self.broken |= broken;
        self.look_if_broken(ring);
    }

    /// Watches a link on which nothing else is under way, so that a reset by the peer is heard of.
    pub(crate) fn watch(&mut self, ring: &mut Ring, me: Who) {
        if self.ending.is_none() && self.is_free() && !self.broken {
            self.watch = Some(ring.watch(self.fd(), me));
        }
        self.look_if_broken(ring);
    }

    /// A hang-up without an error is that both directions have finished, which the machine will read.
    fn look_if_broken(&mut self, ring: &mut Ring) {
        if self.broken
            && self.ending.is_none()
            && self.receiving.is_none()
            && let Ok(Some(e)) = self.socket.take_error()
        {
            self.end(ring, cause_of(&e));
        }
    }

    /// The receive that holds a large buffer, if one is under way.
    pub(crate) fn landing(&self) -> Option<Op> {
        self.receiving.filter(|_| self.landing)
    }

    fn end(&mut self, ring: &mut Ring, cause: CloseCause) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(cause);
        self.out.clear();
        for op in [self.receiving, self.writing, self.watch]
            .into_iter()
            .flatten()
        {
            ring.cancel(op);
        }
    }

    fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn open(to: SocketAddr, from: Option<SocketAddr>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(from) = from {
        if from.port() == 0 {
            ring::bind_address_no_port(&socket)?;
        }
        socket.bind(&from.into())?;
    }
    Ok(socket)
}

/// The operation did not come to pass for want of a buffer or because it was called off: it may be started again.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOBUFS | libc::EAGAIN | libc::EINTR | libc::ECANCELED)
    )
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
