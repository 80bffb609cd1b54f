//! SOCKS5 (RFC 1928): no authentication, CONNECT, addresses and names.
//!
//! Every message says how long it is, so reading exactly that much leaves alone what the client sends ahead.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Host, Refusal, Target};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
/// RFC 1928 §5.
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// RFC 1928 §6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Reply {
    Succeeded = 0,
    Failure = 1,
    HostUnreachable = 4,
    Refused = 5,
    Command = 7,
    AddressType = 8,
}

/// Reads greeting and request, and answers the greeting.
pub(super) async fn target(stream: &mut TcpStream) -> io::Result<Option<Target>> {
    let [_, count] = read::<2>(stream).await?;
    let mut methods = vec![0; usize::from(count)];
    stream.read_exact(&mut methods).await?;
    if !methods.contains(&NO_AUTHENTICATION) {
        stream.write_all(&[VERSION, NO_METHOD]).await?;
        return Ok(None);
    }
    stream.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
    match request(stream).await? {
        Ok(target) => Ok(Some(target)),
        Err(reply) => {
            say(stream, reply, unspecified()).await?;
            Ok(None)
        }
    }
}

async fn request(stream: &mut TcpStream) -> io::Result<Result<Target, Reply>> {
    let [version, command, reserved, kind] = read::<4>(stream).await?;
    if version != VERSION || reserved != 0 {
        return Ok(Err(Reply::Failure));
    }
    let host = match kind {
        IPV4 => {
            let address = IpAddr::V4(Ipv4Addr::from(read::<4>(stream).await?));
            Some(Host::Address(address))
        }
        IPV6 => {
            let address = IpAddr::V6(Ipv6Addr::from(read::<16>(stream).await?));
            Some(Host::Address(address.to_canonical()))
        }
        NAME => {
            let [length] = read::<1>(stream).await?;
            let mut name = vec![0; usize::from(length)];
            stream.read_exact(&mut name).await?;
            std::str::from_utf8(&name).ok().and_then(Host::read)
        }
        _ => return Ok(Err(Reply::AddressType)),
    };
    let port = u16::from_be_bytes(read::<2>(stream).await?);
    if command != CONNECT {
        return Ok(Err(Reply::Command));
    }
    Ok(match host {
        Some(host) if port != 0 => Ok(Target { host, port }),
        _ => Err(Reply::Failure),
    })
}

pub(super) async fn accept(stream: &mut TcpStream, bound: SocketAddr) -> io::Result<()> {
    say(stream, Reply::Succeeded, bound).await
}

pub(super) async fn refuse(stream: &mut TcpStream, refusal: &Refusal) -> io::Result<()> {
    let reply = match refusal {
        Refusal::Unknown | Refusal::Unroutable | Refusal::Late => Reply::HostUnreachable,
        Refusal::Refused => Reply::Refused,
        Refusal::Failed(_) => Reply::Failure,
    };
    say(stream, reply, unspecified()).await
}

async fn say(stream: &mut TcpStream, reply: Reply, bound: SocketAddr) -> io::Result<()> {
    let mut message = vec![VERSION, reply as u8, 0];
    match bound.ip() {
        IpAddr::V4(address) => {
            message.push(IPV4);
            message.extend(address.octets());
        }
        IpAddr::V6(address) => {
            message.push(IPV6);
            message.extend(address.octets());
        }
    }
    message.extend(bound.port().to_be_bytes());
    stream.write_all(&message).await
}

fn unspecified() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 0).into()
}

async fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
