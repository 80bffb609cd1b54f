//! HTTP CONNECT (RFC 9110 §9.3.6) over HTTP/1, for clients that have no SOCKS: `openssl s_client -proxy`.

use std::io;

use httparse::{EMPTY_HEADER, Request, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Host, Refusal, Target};

/// Bytes of a request's head.
const HEAD_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;

/// A request that is answered with a status of its own.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    status: &'static str,
    why: String,
}

fn bad(why: impl Into<String>) -> Fault {
    Fault {
        status: "400 Bad Request",
        why: why.into(),
    }
}

/// Reads the head; what follows it stays in the socket.
pub(super) async fn target(stream: &mut TcpStream) -> io::Result<Option<Target>> {
    let fault = match head(stream).await? {
        Ok(head) => match judge(&head) {
            Ok(target) => return Ok(Some(target)),
            Err(fault) => fault,
        },
        Err(fault) => fault,
    };
    say(stream, fault.status, &fault.why).await?;
    Ok(None)
}

/// The bytes up to and with the empty line.
///
/// Looks before it reads: what was seen is taken up to the end of the head, or all of it if the end has not come.
async fn head(stream: &mut TcpStream) -> io::Result<Result<Vec<u8>, Fault>> {
    let mut head = Vec::new();
    let mut seen = vec![0; HEAD_MAX];
    loop {
        let old = head.len();
        let peeked = stream.peek(&mut seen).await?;
        if peeked == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(seen.get(..peeked).unwrap_or_default());
        // The end may have begun in what was taken before.
        let from = old.saturating_sub(3);
        let end = head
            .windows(4)
            .skip(from)
            .position(|bytes| bytes == b"\r\n\r\n")
            .map(|at| from + at + 4);
        head.truncate(end.unwrap_or(head.len()));
        let taken = seen.get_mut(..head.len() - old).unwrap_or_default();
        stream.read_exact(taken).await?;
        if head.len() > HEAD_MAX {
            return Ok(Err(Fault {
                status: "431 Request Header Fields Too Large",
                why: format!("the head of the request has more than {HEAD_MAX} bytes"),
            }));
        }
        // RFC 9112 §2.2 lets a server be lenient here; a client that needs it does not exist.
        let lone = head.iter().enumerate().any(|(i, b)| {
            *b == b'\n' && i.checked_sub(1).and_then(|i| head.get(i)) != Some(&b'\r')
        });
        if lone {
            return Ok(Err(bad("a line ends without a carriage return")));
        }
        if end.is_some() {
            return Ok(Ok(head));
        }
    }
}

fn judge(head: &[u8]) -> Result<Target, Fault> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) => return Err(bad("no whole head of an HTTP request")),
        Err(error) => return Err(bad(format!("no HTTP request: {error}"))),
    }
    let (method, path) = (
        request.method.unwrap_or_default(),
        request.path.unwrap_or_default(),
    );
    if method != "CONNECT" {
        return Err(Fault {
            status: "405 Method Not Allowed",
            why: format!(
                "this is the entry of a pod, no HTTP proxy for {method}\n  hint: use it as socks5h://, or by CONNECT (curl --proxytunnel)"
            ),
        });
    }
    let named = |name: &str| {
        let found = request.headers.iter();
        found
            .filter(|header| header.name.eq_ignore_ascii_case(name))
            .count()
    };
    // RFC 9112 §3.2. In HTTP/1.0 there is no Host.
    if named("host") > 1 || (named("host") == 0 && request.version == Some(1)) {
        return Err(bad("a request has one Host"));
    }
    // RFC 9110 §9.3.6: no content, so whatever follows belongs to the tunnel.
    if named("content-length") + named("transfer-encoding") > 0 {
        return Err(bad("a CONNECT request has no content"));
    }
    authority(path).ok_or_else(|| bad(format!("`{}` is no host:port", path.escape_debug())))
}

/// `host:port`, both there (RFC 9112 §3.2.3).
fn authority(text: &str) -> Option<Target> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => {
            let address: std::net::Ipv6Addr = rest.strip_suffix(']')?.parse().ok()?;
            Host::Address(std::net::IpAddr::V6(address).to_canonical())
        }
        None if host.contains(':') => return None,
        None => Host::read(host)?,
    };
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port != 0)?;
    Some(Target { host, port })
}

/// RFC 9110 §9.3.6: a 2xx has neither content nor a length.
pub(super) async fn accept(stream: &mut TcpStream) -> io::Result<()> {
    stream
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await
}

pub(super) async fn refuse(
    stream: &mut TcpStream,
    target: &Target,
    refusal: &Refusal,
) -> io::Result<()> {
    let status = match refusal {
        Refusal::Late => "504 Gateway Timeout",
        Refusal::Unknown | Refusal::Unroutable | Refusal::Refused | Refusal::Failed(_) => {
            "502 Bad Gateway"
        }
    };
    say(stream, status, &format!("{target}: {refusal}")).await
}

async fn say(stream: &mut TcpStream, status: &str, why: &str) -> io::Result<()> {
    let allow = if status.starts_with("405") {
        "allow: CONNECT\r\n"
    } else {
        ""
    };
    let length = why.len() + 1;
    let answer = format!(
        "HTTP/1.1 {status}\r\n{allow}content-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{why}\n"
    );
    stream.write_all(answer.as_bytes()).await
}

#[cfg(test)]
mod tests;
