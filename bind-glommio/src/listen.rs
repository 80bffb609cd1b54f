//! Doors: how connections come in.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use meshward_core::link::Entry;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

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

/// A listening socket with `SO_REUSEADDR` and a backlog of [`LISTEN_BACKLOG`]. IPv6 addresses take IPv6 alone.
///
/// `reuse_port`: several such listeners share the address, and the kernel spreads connections over them; one per shard.
/// Fails as `bind` and `listen` do; an address in use and a port below 1024 are for the caller to explain.
pub fn bind_listener(addr: SocketAddr, reuse_port: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
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
    /// Its operation is under way.
    pub(crate) accepting: bool,
    /// It takes nobody any more and waits for its last completion.
    pub(crate) closing: bool,
    /// When to try again after the system ran out of something; not set while it works.
    pub(crate) rest: Due,
    /// The trouble that is going on was reported.
    pub(crate) reported: bool,
    socket: Socket,
    /// `None` if it listens on all addresses: then each link is asked.
    local: Option<SocketAddr>,
    destination: Destination,
}

/// A connection that came in.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) socket: Socket,
    pub(crate) peer: SocketAddr,
    pub(crate) original_dst: SocketAddr,
}

impl Listener {
    /// Links inherit `TCP_NODELAY` from `listener` (Linux), so it costs no call per link.
    pub(crate) fn new(
        proxy: ProxyId,
        listener: std::net::TcpListener,
        entry: Entry,
        destination: Destination,
    ) -> io::Result<Self> {
        let socket = Socket::from(listener);
        // The ring waits by itself, and gives up at once on a socket that must not wait.
        socket.set_nonblocking(false)?;
        socket.set_tcp_nodelay(true)?;
        let local = addr_of(socket.local_addr()?)?;
        Ok(Self {
            proxy,
            entry,
            accepting: false,
            closing: false,
            rest: Due::default(),
            reported: false,
            socket,
            local: (!local.ip().is_unspecified()).then_some(local),
            destination,
        })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        addr_of(self.socket.local_addr()?)
    }

    /// What is to be known of a connection. Fails if it is gone already.
    pub(crate) fn meet(&self, socket: Socket) -> io::Result<Caller> {
        // An accept that goes on has one place for the addresses of all, so each connection is asked.
        let peer = addr_of(socket.peer_addr()?)?;
        let original_dst = self.original_dst(&socket)?;
        Ok(Caller {
            socket,
            peer,
            original_dst,
        })
    }

    /// Takes those who wait, then nobody any more: an accept under way fails, and a new peer is refused.
    pub(crate) fn close(&mut self) -> Vec<Socket> {
        self.closing = true;
        let mut waiting = Vec::new();
        if self.socket.set_nonblocking(true).is_ok() {
            while waiting.len() < LISTEN_BACKLOG as usize {
                match self.socket.accept() {
                    Ok((socket, _)) => waiting.push(socket),
                    Err(e) if is_the_callers(&e) => {}
                    Err(_) => break,
                }
            }
        }
        // It fails if nobody listens there, which is what is wanted.
        let _ = self.socket.shutdown(Shutdown::Read);
        waiting
    }

    fn original_dst(&self, socket: &Socket) -> io::Result<SocketAddr> {
        let local = match self.local {
            Some(local) => local,
            None => addr_of(socket.local_addr()?)?,
        };
        if self.destination == Destination::Local {
            return Ok(local);
        }
        let meant = if local.is_ipv4() {
            socket.original_dst_v4()
        } else {
            socket.original_dst_v6()
        };
        Ok(meant.and_then(addr_of).unwrap_or(local))
    }
}

/// A stream that somebody else accepted, as the driver wants them: the ring waits by itself, and gives up at once on a socket
/// that must not wait.
pub(crate) fn adopted(stream: std::net::TcpStream) -> io::Result<Socket> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    Ok(stream.into())
}

/// Makes the end of `stream` a reset, so that its peer hears that nobody took it.
pub(crate) fn refuse(stream: &std::net::TcpStream) {
    // It fails on sockets that are reset already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Errors that belong to the connection that would have been accepted, not to the listener (accept(2)).
pub(crate) fn is_the_callers(error: &io::Error) -> bool {
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
pub(crate) fn addr_of(addr: socket2::SockAddr) -> io::Result<SocketAddr> {
    let addr = addr
        .as_socket()
        .ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
    Ok(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
}
