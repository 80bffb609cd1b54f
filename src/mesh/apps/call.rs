//! A call that an app makes to another service, through the entry of its own pod.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{HOST, HeaderMap, HeaderName, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::files::words;

/// For the whole call.
const CALL_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const BODY_MAX: usize = 64 * 1024;

/// What an app has to hand on so that the requests of one trace stay together (Istio, "Distributed tracing").
const HANDED_ON: [&str; 13] = [
    "x-request-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "traceparent",
    "tracestate",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "x-datadog-trace-id",
    "grpc-trace-bin",
];

/// Whom a route asks before it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// A name of cluster DNS, at most 253 bytes.
    pub(super) host: String,
    pub(super) port: u16,
    /// With its `/`, and the query.
    pub(super) path: String,
}

impl Call {
    /// As a client writes it: 80 is understood.
    fn authority(&self) -> String {
        match self.port {
            80 => self.host.clone(),
            port => format!("{}:{port}", self.host),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GET http://{}{}", self.authority(), self.path)
    }
}

/// The body of a 200. Anything else is an error that says what came.
///
/// `headers` are those of the request that made the call necessary.
pub(super) async fn get(
    proxy: SocketAddr,
    call: &Call,
    headers: &HeaderMap,
) -> Result<String, String> {
    match timeout(CALL_MAX, exchange(proxy, call, headers)).await {
        Ok(Ok((StatusCode::OK, body))) => Ok(body),
        Ok(Ok((status, body))) => Err(format!("{} {}", status.as_str(), body.trim_end())
            .trim_end()
            .to_owned()),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(format!("no answer within {} s", CALL_MAX.as_secs())),
    }
}

async fn exchange(
    proxy: SocketAddr,
    call: &Call,
    headers: &HeaderMap,
) -> Result<(StatusCode, String), String> {
    let stream = enter(proxy, call).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| cause(&e))?;
    let mut request = Request::get(&call.path)
        .header(HOST, call.authority())
        .header(USER_AGENT, "meshward-app");
    for name in HANDED_ON.map(HeaderName::from_static) {
        for value in headers.get_all(&name) {
            request = request.header(&name, value);
        }
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|e| cause(&e))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), BODY_MAX).collect().await;
        let body = body.map_err(|e| e.to_string())?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    // The connection has no word of its own: what breaks it breaks the answer too.
    let driven = async {
        let _ = connection.await;
        std::future::pending::<std::convert::Infallible>().await
    };
    tokio::select! {
        answer = answer => answer,
        never = driven => match never {},
    }
}

/// A connection to the service by SOCKS5, by name (RFC 1928).
async fn enter(proxy: SocketAddr, call: &Call) -> Result<TcpStream, String> {
    let lost = |e: io::Error| format!("entry {proxy}: {}", words(&e));
    let mut stream = TcpStream::connect(proxy).await.map_err(lost)?;
    let length = u8::try_from(call.host.len()).map_err(|_| "the name is too long".to_owned())?;
    let mut request = vec![5, 1, 0, 5, 1, 0, 3, length];
    request.extend(call.host.as_bytes());
    request.extend(call.port.to_be_bytes());
    stream.write_all(&request).await.map_err(lost)?;
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).await.map_err(lost)?;
    let rest = match answer {
        [5, 0, 5, 0, 0, 1] => 4 + 2,
        [5, 0, 5, 0, 0, 4] => 16 + 2,
        [5, 0, 5, 4, ..] => return Err("no such host".into()),
        [5, 0, 5, 5, ..] => return Err("connection refused".into()),
        [5, 0, 5, code, ..] => return Err(format!("entry {proxy}: reply {code}")),
        _ => return Err(format!("entry {proxy}: no SOCKS5")),
    };
    let mut bound = vec![0; rest];
    stream.read_exact(&mut bound).await.map_err(lost)?;
    Ok(stream)
}

/// The innermost reason, which is the one that says something.
fn cause(error: &hyper::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    match inner.downcast_ref::<io::Error>() {
        Some(error) => words(error),
        None => inner.to_string(),
    }
}
