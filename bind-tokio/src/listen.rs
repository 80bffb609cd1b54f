//! Doors: how connections come in.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use meshward_core::link::Entry;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::deadlines::Due;
use crate::driver::ProxyId;
use crate::limits::LISTEN_BACKLOG;

/// What a link that comes in reports as its original destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    /// The address that the peer connected to.
    #[default]
    Local,
    /// The address that it meant before the kernel's NAT sent it here (`SO_ORIGINAL_DST`, S-137); where nothing was
    /// translated, the address that it connected to.
    Redirected,
}

/// A listening socket, non-blocking, with `SO_REUSEADDR` and a backlog of [`LISTEN_BACKLOG`]. IPv6 addresses take IPv6 alone.
///
/// `reuse_port`: several such listeners share the address, and the kernel spreads connections over them; one per shard.
/// Fails as `bind` and `listen` do; an address in use and a port below 1024 are for the caller to explain.
pub fn bind_listener(addr: SocketAddr, reuse_port: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// One door of one proxy.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) proxy: ProxyId,
    pub(crate) entry: Entry,
    /// When to try again after the system ran out of something; not set while it works.
    pub(crate) rest: Due,
    /// The trouble that is going on was reported.
    pub(crate) reported: bool,
    socket: TcpListener,
    /// `None` if it listens on all addresses: then each link is asked.
    local: Option<SocketAddr>,
    destination: Destination,
    waker: Waker,
}

/// A connection that came in.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) original_dst: SocketAddr,
}

impl Listener {
    /// Links inherit `TCP_NODELAY` from `listener` (Linux), so it costs no call per link. Needs a runtime around it.
    pub(crate) fn new(
        proxy: ProxyId,
        listener: std::net::TcpListener,
        entry: Entry,
        destination: Destination,
        waker: Waker,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        SockRef::from(&listener).set_tcp_nodelay(true)?;
        let local = listener.local_addr()?;
        Ok(Self {
            proxy,
            entry,
            rest: Due::default(),
            reported: false,
            socket: TcpListener::from_std(listener)?,
            local: (!local.ip().is_unspecified()).then(|| canonical(local)),
            destination,
            waker,
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next connection; a connection that is gone already is skipped. `Pending`: its waker will say.
    pub(crate) fn accept(&self) -> Poll<io::Result<Caller>> {
        let mut cx = Context::from_waker(&self.waker);
        self.take(|| self.socket.poll_accept(&mut cx))
    }

    /// Asks the kernel and not the runtime, which may not have heard yet of who waits. `Pending`: nobody does.
    pub(crate) fn accept_last(&self) -> Poll<io::Result<Caller>> {
        let socket = match self.socket.as_fd().try_clone_to_owned() {
            Ok(socket) => std::net::TcpListener::from(socket),
            Err(e) => return Poll::Ready(Err(e)),
        };
        self.take(|| match socket.accept() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(e) => Poll::Ready(Err(e)),
            Ok((stream, peer)) => Poll::Ready(
                stream
                    .set_nonblocking(true)
                    .and_then(|()| TcpStream::from_std(stream))
                    .map(|stream| (stream, peer)),
            ),
        })
    }

    fn take(
        &self,
        mut next: impl FnMut() -> Poll<io::Result<(TcpStream, SocketAddr)>>,
    ) -> Poll<io::Result<Caller>> {
        loop {
            let (stream, peer) = match next() {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(accepted)) => accepted,
                Poll::Ready(Err(e)) if is_the_callers(&e) => continue,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
            };
            if let Ok(original_dst) = self.original_dst(&stream) {
                return Poll::Ready(Ok(Caller {
                    stream,
                    peer: canonical(peer),
                    original_dst,
                }));
            }
        }
    }

    fn original_dst(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        let local = match self.local {
            Some(local) => local,
            None => canonical(stream.local_addr()?),
        };
        if self.destination == Destination::Local {
            return Ok(local);
        }
        let socket = SockRef::from(stream);
        let meant = if local.is_ipv4() {
            socket.original_dst_v4()
        } else {
            socket.original_dst_v6()
        };
        Ok(meant
            .ok()
            .and_then(|addr| addr.as_socket())
            .map_or(local, canonical))
    }
}

/// A stream that somebody else accepted, as the driver wants them. Needs a runtime around it.
pub(crate) fn adopted(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    TcpStream::from_std(stream)
}

/// Makes the end of `stream` a reset, so that its peer hears that nobody took it.
pub(crate) fn refuse(stream: &std::net::TcpStream) {
    // It fails on sockets that are reset already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Errors that belong to the connection that would have been accepted, not to the listener (accept(2)).
fn is_the_callers(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::EPERM
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
        )
    )
}

/// An IPv4 address that came over an IPv6 socket is an IPv4 address.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
