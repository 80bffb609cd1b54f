//! The built-in apps, as servers: `echo` and `routes`.
//!
//! HTTP is hyper's, so that keep-alive, chunks, `Expect` and half-closed clients are dealt with as a real app does it.

use std::convert::Infallible;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use meshward_core::accept::PortKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::call;
use super::routes::{Answer, Routes};
use super::{AppPlace, Ended};
use crate::files::words;

/// Connections of one port; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 1024;
/// Before the next accept, where the process has run out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A connection that says nothing for so long is closed. Longer than a sidecar keeps an idle one, so that it is not closed
/// under a request.
const IDLE_MAX: Duration = Duration::from_secs(2 * 3600);
/// On a port of no declared kind: how long the first bytes may be too few to tell.
const UNDECIDED_MAX: Duration = Duration::from_secs(1);
const UNDECIDED_LOOK: Duration = Duration::from_millis(20);
/// The longest method of RFC 9110 §9.1.
const METHOD_MAX: usize = "CONNECT".len();
const BUFFER: usize = 16 * 1024;

/// Serves on every port, `echo` if there are no `routes`. Comes back only if it cannot listen.
pub(super) async fn serve(routes: Option<&Arc<Routes>>, place: &AppPlace) -> Ended {
    let app = Arc::new(App {
        routes: routes.cloned(),
        proxy: place.proxy,
    });
    let mut ports = JoinSet::new();
    for port in &place.ports {
        match TcpListener::bind(port.listen).await {
            Ok(listener) => ports.spawn(accept(listener, port.kind, Arc::clone(&app))),
            Err(e) => return Ended::NotStarted(format!("{}: {}", port.listen, words(&e))),
        };
    }
    match ports.join_next().await {
        Some(Err(e)) => Ended::NotStarted(e.to_string()),
        Some(Ok(never)) => match never {},
        None => std::future::pending().await,
    }
}

async fn accept(listener: TcpListener, kind: PortKind, app: Arc<App>) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let app = Arc::clone(&app);
                    connections.spawn(async move {
                        // A client that goes away is its own matter.
                        let _ = app.carry(stream, kind).await;
                    });
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

struct App {
    routes: Option<Arc<Routes>>,
    proxy: SocketAddr,
}

impl App {
    async fn carry(self: Arc<Self>, stream: TcpStream, kind: PortKind) -> io::Result<()> {
        // Where the option cannot be set the bytes still arrive.
        let _ = stream.set_nodelay(true);
        let http = match kind {
            _ if self.routes.is_some() => true,
            PortKind::Http => true,
            PortKind::Tcp => false,
            PortKind::Auto => is_http(&stream).await?,
        };
        if !http {
            return send_back(stream).await;
        }
        let service = service_fn(|request| {
            let app = Arc::clone(&self);
            async move { app.answer(request).await }
        });
        http1::Builder::new()
            .half_close(true)
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .await
            .map_err(io::Error::other)
    }

    /// An error is one of the request's body, and ends the connection.
    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (head, mut body) = request.into_parts();
        let mut length = 0;
        while !body.is_end_stream() {
            match body.frame().await {
                Some(frame) => length += frame?.data_ref().map_or(0, Bytes::len),
                None => break,
            }
        }
        let (status, text) = match &self.routes {
            None => (StatusCode::OK, show(&head, length)),
            Some(routes) => self.route(routes.answer(head.uri.path()), &head).await,
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, plain);
        Ok(response)
    }

    /// The calls of a route one after another, then its answer; the first that fails ends them.
    async fn route(
        &self,
        answer: Answer<'_>,
        head: &hyper::http::request::Parts,
    ) -> (StatusCode, String) {
        let mut gathered = String::new();
        for call in answer.calls {
            match call::get(self.proxy, call, &head.headers).await {
                Ok(body) => gathered.push_str(&body),
                Err(why) => return (answer.on_call_failure, format!("{call}: {why}\n")),
            }
        }
        let text = match answer.body {
            Some(body) => body.to_owned(),
            None if gathered.is_empty() => {
                format!("{} {}\n", answer.status.as_str(), head.uri.path())
            }
            None => gathered,
        };
        (answer.status, text)
    }
}

/// What an `echo` was asked, as it came.
fn show(head: &hyper::http::request::Parts, body: usize) -> String {
    let target = head
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    let mut text = format!("{} {target}\n", head.method);
    for (name, value) in &head.headers {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}: {}", value.as_bytes().escape_ascii());
    }
    if body > 0 {
        let _ = writeln!(text, "\n{body} bytes");
    }
    text
}

/// Whether the first bytes are a request of HTTP/1: a method in capitals, a space, and the begin of a target.
async fn is_http(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; METHOD_MAX + 2];
    let decided = async {
        loop {
            let seen = stream.peek(&mut first).await?;
            let seen = first.get(..seen).unwrap_or_default();
            if seen.is_empty() {
                return io::Result::Ok(false);
            }
            let method = seen.iter().take_while(|b| b.is_ascii_uppercase()).count();
            match (seen.get(method), seen.get(method + 1)) {
                (None | Some(b' '), None) if method <= METHOD_MAX => sleep(UNDECIDED_LOOK).await,
                (Some(b' '), Some(b'/' | b'*' | b'h')) => return Ok(method > 0),
                _ => return Ok(false),
            }
        }
    };
    timeout(UNDECIDED_MAX, decided).await.unwrap_or(Ok(false))
}

async fn send_back(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = timeout(IDLE_MAX, stream.read(&mut buffer)).await??;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return stream.shutdown().await;
        };
        stream.write_all(bytes).await?;
    }
}
