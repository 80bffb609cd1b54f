//! The way into the mesh for a command that runs as a workload: SOCKS5 and HTTP CONNECT (decisions 13 and 28).
//!
//! Each pod has two entries, one for its app and one that bypasses its sidecar (S-36). The first byte tells the protocol. A
//! client names whom it means; what becomes of its connection is the entry's [`Way`]: the pod's sidecar takes it as traffic
//! that was captured, or it is connected plainly, from the pod's address, as in a pod without a sidecar. Not a byte behind
//! the handshake is read here before that is settled. Knows no mesh: names and addresses are a [`Resolver`]'s matter.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use meshward_tokio::bind_address_no_port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::relay::{self, relay};

mod connect;
mod socks;

/// From the first byte to the end of the handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// For all addresses of one name together.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// Connections that one entry carries; further ones wait in the kernel. What a sidecar has taken counts no more.
const CONNECTIONS_MAX: usize = 1024;
/// Before the next accept, where the process has run out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What a client that was refused may still send before it is cut off.
const DRAIN_BYTES_MAX: usize = 64 * 1024;
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// RFC 1035 §2.3.4, without the dot at the end.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// What the pods of a mesh know of names and addresses.
pub(crate) trait Resolver: Send + Sync {
    /// The addresses of a name as cluster DNS gives them to a pod of `namespace`, in any case and with or without the dot at
    /// the end; empty: there is no such name.
    fn resolve(&self, namespace: &str, name: &str) -> Vec<IpAddr>;

    /// Where a connection to `meant` arrives when no sidecar leads it: what kube-proxy does.
    fn endpoint(&self, meant: SocketAddr) -> Endpoint;
}

/// See [`Resolver::endpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Address(SocketAddr),
    /// A service that has nobody behind this port.
    Refused,
    /// A service without this port. Nobody has its address, so whoever goes on connecting leaves the machine.
    NoPort,
    /// An address of nobody.
    Unroutable,
}

/// Takes a connection: the stream (non-blocking), the client's end as the mesh is to see it, and whom the client means.
/// Must not block.
pub(crate) type HandOver = Box<dyn Fn(std::net::TcpStream, SocketAddr, SocketAddr) + Send + Sync>;

/// What becomes of a connection that came in.
pub(crate) enum Way {
    /// Handed to the pod's sidecar. As in a pod, where the sidecar takes whatever leaves, the client's connect succeeds at
    /// once; but what only the kernel could carry on to an address of services is refused.
    Sidecar(HandOver),
    /// Connected from this address, before the client gets its answer, and relayed.
    Plain { from: Ipv4Addr },
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sidecar(_) => f.write_str("Sidecar"),
            Self::Plain { from } => f.debug_struct("Plain").field("from", from).finish(),
        }
    }
}

/// The variables that lead a command through the entry at `entry`, and those that would lead it past it (`None`: to be
/// unset).
pub(crate) fn environment(entry: SocketAddr) -> Vec<(&'static str, Option<String>)> {
    let url = format!("socks5h://{entry}");
    let set = ["ALL_PROXY", "http_proxy", "https_proxy"].map(|name| (name, Some(url.clone())));
    let unset = [
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "no_proxy",
    ];
    set.into_iter()
        .chain([("MESHWARD_PROXY", Some(entry.to_string()))])
        .chain(unset.map(|name| (name, None)))
        .collect()
}

/// Carries every connection that `listener` takes, for as long as it is polled; what is dropped with it ends.
///
/// `namespace` is the pod's, for short names.
pub(crate) async fn serve(
    listener: TcpListener,
    namespace: String,
    resolver: Arc<dyn Resolver>,
    way: Arc<Way>,
) {
    let entry = Arc::new(Entry {
        namespace,
        resolver,
        way,
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, client)) => {
                    let entry = Arc::clone(&entry);
                    connections.spawn(async move {
                        // Whatever fails here fails between a client and its entry; the client sees it.
                        let _ = entry.carry(stream, client).await;
                    });
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

struct Entry {
    namespace: String,
    resolver: Arc<dyn Resolver>,
    way: Arc<Way>,
}

/// Whom a client means.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    Name(String),
}

impl Host {
    /// An address literal, or a name that DNS can hold (RFC 1035 §2.3.4, with `_`, which services use).
    fn read(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            (1..=LABEL_MAX).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        (name.len() <= NAME_MAX && name.split('.').all(is_label))
            .then(|| Self::Name(text.to_owned()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Why a client is not let through.
#[derive(Debug)]
enum Refusal {
    /// A name that nobody has.
    Unknown,
    /// An address that nobody has.
    Unroutable,
    Refused,
    Late,
    Failed(io::Error),
}

impl Refusal {
    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unroutable,
            io::ErrorKind::TimedOut => Self::Late,
            _ => Self::Failed(error),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("no service or pod of this mesh has that name"),
            Self::Unroutable => f.write_str("no service or pod of this mesh has that address"),
            Self::Refused => f.write_str("connection refused"),
            Self::Late => write!(f, "no answer within {} s", CONNECT_MAX.as_secs()),
            Self::Failed(error) => f.write_str(&crate::files::words(error)),
        }
    }
}

/// How a client speaks to its entry.
#[derive(Clone, Copy, Debug)]
enum Protocol {
    Socks,
    Http,
}

impl Protocol {
    /// Reads the handshake up to its end and no further. `None`: it was refused, and the client told so.
    async fn target(self, stream: &mut TcpStream) -> io::Result<Option<Target>> {
        match self {
            Self::Socks => socks::target(stream).await,
            Self::Http => connect::target(stream).await,
        }
    }

    /// `bound`: the end that the peer of the client sees.
    async fn accept(self, stream: &mut TcpStream, bound: SocketAddr) -> io::Result<()> {
        match self {
            Self::Socks => socks::accept(stream, bound).await,
            Self::Http => connect::accept(stream).await,
        }
    }

    async fn refuse(
        self,
        stream: &mut TcpStream,
        target: &Target,
        refusal: &Refusal,
    ) -> io::Result<()> {
        match self {
            Self::Socks => socks::refuse(stream, refusal).await,
            Self::Http => connect::refuse(stream, target, refusal).await,
        }
    }
}

impl Entry {
    async fn carry(&self, mut stream: TcpStream, client: SocketAddr) -> io::Result<()> {
        let pod = stream.local_addr()?.ip();
        let handshake = async {
            let mut first = [0];
            if stream.peek(&mut first).await? == 0 {
                return Ok(None);
            }
            let protocol = match first {
                [5] => Protocol::Socks,
                [b'A'..=b'Z'] => Protocol::Http,
                _ => return Ok(None),
            };
            let target = protocol.target(&mut stream).await?;
            io::Result::Ok(target.map(|target| (protocol, target)))
        };
        let Some((protocol, target)) = timeout(HANDSHAKE_MAX, handshake).await?? else {
            drain(stream).await;
            return Ok(());
        };
        let refusal = match (&*self.way, self.addresses(&target)) {
            (Way::Sidecar(hand_over), Ok(addresses)) => {
                // A client takes the first address that it is given.
                let Some(&meant) = addresses.first() else {
                    return Ok(());
                };
                match self.resolver.endpoint(meant) {
                    Endpoint::NoPort => Refusal::Refused,
                    Endpoint::Unroutable => Refusal::Unroutable,
                    // A service without endpoints is the sidecar's matter (503, `UH`).
                    Endpoint::Address(_) | Endpoint::Refused => {
                        let client = SocketAddr::new(pod, client.port());
                        timeout(HANDSHAKE_MAX, protocol.accept(&mut stream, client)).await??;
                        hand_over(stream.into_std()?, client, meant);
                        return Ok(());
                    }
                }
            }
            (Way::Plain { from }, Ok(addresses)) => match self.reach(*from, addresses).await {
                Ok(peer) => {
                    let bound = peer.local_addr()?;
                    timeout(HANDSHAKE_MAX, protocol.accept(&mut stream, bound)).await??;
                    relay(stream, peer, relay::IDLE_MAX).await;
                    return Ok(());
                }
                Err(refusal) => refusal,
            },
            (_, Err(refusal)) => refusal,
        };
        timeout(
            HANDSHAKE_MAX,
            protocol.refuse(&mut stream, &target, &refusal),
        )
        .await??;
        drain(stream).await;
        Ok(())
    }

    /// At least one.
    fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, Refusal> {
        let found = match &target.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => self.resolver.resolve(&self.namespace, name),
        };
        if found.is_empty() {
            return Err(Refusal::Unknown);
        }
        let found = found.into_iter().take(ADDRESSES_MAX);
        Ok(found
            .map(|address| SocketAddr::new(address, target.port))
            .collect())
    }

    /// Connects to the first of `addresses` that takes it; otherwise says what the last one did.
    async fn reach(
        &self,
        from: Ipv4Addr,
        addresses: Vec<SocketAddr>,
    ) -> Result<TcpStream, Refusal> {
        let attempts = async {
            let mut refusal = Refusal::Unknown;
            for meant in addresses {
                refusal = match self.resolver.endpoint(meant) {
                    Endpoint::Refused | Endpoint::NoPort => Refusal::Refused,
                    Endpoint::Unroutable => Refusal::Unroutable,
                    Endpoint::Address(address) => match dial(from, address).await {
                        Ok(peer) => return Ok(peer),
                        Err(error) => Refusal::of(error),
                    },
                };
            }
            Err(refusal)
        };
        timeout(CONNECT_MAX, attempts)
            .await
            .unwrap_or(Err(Refusal::Late))
    }
}

pub(super) async fn dial(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    if to.is_ipv6() {
        return Err(io::ErrorKind::NetworkUnreachable.into());
    }
    let socket = TcpSocket::new_v4()?;
    bind_address_no_port(&socket)?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// Ends a connection in such a way that its last words arrive: what lies unread at a close becomes a reset, which overtakes
/// them.
async fn drain(mut stream: TcpStream) {
    let rest = async {
        stream.shutdown().await?;
        let mut piece = [0; 1024];
        let mut taken = 0;
        while taken < DRAIN_BYTES_MAX {
            match stream.read(&mut piece).await? {
                0 => break,
                read => taken += read,
            }
        }
        io::Result::Ok(())
    };
    let _ = timeout(DRAIN_MAX, rest).await;
}

#[cfg(test)]
mod tests;
