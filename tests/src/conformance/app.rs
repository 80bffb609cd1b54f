//! The applications of the corpus: echo, https and routes, on every port of their pod.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use meshward_core::accept::{PlainKind, PortKind, first_plain_kind};
use meshward_core::id::LinkId;
use meshward_core::link::{Buf, LinkCommand, LinkEvent};
use meshward_core::tls::{HelloFacts, Sniff, sniff};
use meshward_simulator::crypto::Identity;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::time_provider::TimeProvider;
use rustls::{ServerConfig, ServerConnection};

use super::caller::{Out, READ, send};
use super::checks::Failure;
use super::corpus::{self, Call, Route};
use super::http::{Kind, Message, Reader};

/// Names the application that answered, and which of its requests that was.
pub(super) const ANSWERED_BY: &str = "x-answered-by";

/// An application as a party of a stage.
#[derive(Debug)]
pub(super) struct App {
    /// `ns/name`.
    name: String,
    routes: Vec<Route>,
    default: u16,
    greetings: BTreeMap<u16, String>,
    kinds: BTreeMap<u16, PortKind>,
    /// It speaks TLS, with this certificate.
    tls: Option<Arc<ServerConfig>>,
    /// What it calls by names.
    addresses: BTreeMap<(String, u16), SocketAddr>,
    /// Bytes on ports for TCP are no requests, whatever they look like.
    pub(super) echoes: bool,
    /// How it treats every request.
    pub(super) failure: Option<Failure>,
    conns: BTreeMap<LinkId, Conn>,
    calls: BTreeMap<LinkId, Calling>,
    opened: u32,
    /// In the order of their ends.
    pub(super) requests: Vec<Message>,
    /// What was accepted so far.
    pub(super) accepted: u32,
    /// Bytes that came, of whatever.
    pub(super) heard: usize,
}

/// What an application knows from its beginning.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) name: String,
    pub(super) app: &'a corpus::App,
    /// By port, as it was declared; those that are not here were not.
    pub(super) kinds: BTreeMap<u16, PortKind>,
    /// The certificate that an https application shows.
    pub(super) identity: Option<Identity>,
    pub(super) addresses: BTreeMap<(String, u16), SocketAddr>,
}

#[derive(Debug)]
struct Conn {
    kind: PortKind,
    tls: Option<Box<ServerConnection>>,
    /// Received, and not known what of.
    first: Vec<u8>,
    speech: Speech,
    finished: bool,
}

#[derive(Debug, Default)]
enum Speech {
    #[default]
    Unknown,
    Http {
        reader: Box<Reader>,
        answered: usize,
        /// A request waits for a call.
        busy: bool,
    },
    Echo,
}

/// A request of an application's own, made to answer another one.
#[derive(Debug)]
struct Calling {
    /// Who waits.
    asker: LinkId,
    /// The number of the request that waits.
    request: usize,
    calls: Vec<Call>,
    otherwise: u16,
    then: u16,
    said: bool,
    reader: Reader,
    over: bool,
}

impl App {
    pub(super) fn new(plan: Plan<'_>, clock: Arc<dyn TimeProvider>) -> Result<Self, String> {
        let mut app = Self {
            name: plan.name,
            routes: Vec::new(),
            default: 200,
            greetings: BTreeMap::new(),
            kinds: plan.kinds,
            tls: None,
            addresses: plan.addresses,
            echoes: false,
            failure: None,
            conns: BTreeMap::new(),
            calls: BTreeMap::new(),
            opened: 0,
            requests: Vec::new(),
            accepted: 0,
            heard: 0,
        };
        match plan.app {
            corpus::App::Echo { greetings } => app.greetings.clone_from(greetings),
            corpus::App::Https => {
                let identity = plan
                    .identity
                    .ok_or("an https application has a certificate")?;
                app.tls = Some(server_config(identity, clock)?);
            }
            corpus::App::Routes { routes, default } => {
                app.routes.clone_from(routes);
                app.default = *default;
            }
        }
        Ok(app)
    }

    fn route(&self, target: &str) -> Option<&Route> {
        let path = target.split('?').next().unwrap_or_default();
        self.routes.iter().find(|route| match route.prefix {
            true => path.starts_with(&route.path),
            false => path == route.path,
        })
    }

    pub(super) fn on(&mut self, link: LinkId, event: LinkEvent, out: &mut Out) {
        if let LinkEvent::Accepted { original_dst, .. } = event {
            self.accept(link, original_dst.port(), out);
            return;
        }
        if self.calls.contains_key(&link) {
            self.on_call(link, event, out);
            return;
        }
        let Some(conn) = self.conns.get_mut(&link) else {
            return;
        };
        match event {
            LinkEvent::Accepted { .. } | LinkEvent::Connected { .. } | LinkEvent::Sent(_) => {}
            LinkEvent::Received(bytes) => {
                self.heard += bytes.len();
                let bytes = match &self.tls {
                    None => bytes.to_vec(),
                    Some(config) => conn.open(link, &bytes, config, out),
                };
                self.take(link, bytes, out);
                if self.conns.get(&link).is_some_and(|conn| !conn.finished) {
                    out.push((link, READ));
                }
            }
            LinkEvent::Eof => conn.finish(link, out),
            LinkEvent::Closed(_) => {
                self.conns.remove(&link);
            }
        }
    }

    fn accept(&mut self, link: LinkId, port: u16, out: &mut Out) {
        self.accepted += 1;
        let kind = self.kinds.get(&port).copied().unwrap_or(PortKind::Auto);
        let mut conn = Conn {
            kind: match (self.tls.is_some(), kind, self.echoes) {
                (false, PortKind::Tcp, true) => PortKind::Tcp,
                (false, PortKind::Http, _) => PortKind::Http,
                // Told by the bytes.
                _ => PortKind::Auto,
            },
            tls: None,
            first: Vec::new(),
            speech: Speech::Unknown,
            finished: false,
        };
        if let Some(greeting) = self.greetings.get(&port) {
            conn.speech = Speech::Echo;
            conn.send(link, greeting.as_bytes(), out);
        }
        self.conns.insert(link, conn);
        out.push((link, READ));
    }

    /// Takes what came in plaintext.
    fn take(&mut self, link: LinkId, bytes: Vec<u8>, out: &mut Out) {
        let Some(conn) = self.conns.get_mut(&link) else {
            return;
        };
        if bytes.is_empty() || conn.finished {
            return;
        }
        let Some(bytes) = conn.tell(bytes) else {
            return;
        };
        match &mut conn.speech {
            Speech::Unknown => {}
            Speech::Echo => conn.send(link, &bytes, out),
            Speech::Http { reader, .. } => {
                reader.push(&bytes);
                self.work(link, out);
            }
        }
    }

    /// Answers what has arrived, in turn.
    fn work(&mut self, link: LinkId, out: &mut Out) {
        loop {
            let Some(conn) = self.conns.get_mut(&link) else {
                return;
            };
            let Speech::Http {
                reader,
                answered,
                busy,
            } = &mut conn.speech
            else {
                return;
            };
            if *busy || conn.finished {
                return;
            }
            let next = reader.messages().get(*answered).filter(|m| m.complete);
            let Some(request) = next.cloned() else {
                if reader.is_broken() {
                    conn.send(link, &response(400, "", true), out);
                    conn.finish(link, out);
                }
                return;
            };
            *answered += 1;
            let target = request.target().to_owned();
            self.requests.push(request);
            let number = self.requests.len() - 1;
            match self.failure {
                Some(Failure::CloseAfterRequest) => {
                    self.close(link, out);
                    return;
                }
                Some(Failure::Status503) => self.answer(link, number, 503, out),
                Some(Failure::ConnectRefused) | None => match self.route(&target) {
                    Some(route) if !route.calls.is_empty() => {
                        let mut calls = route.calls.clone();
                        calls.reverse();
                        let calling = Calling {
                            asker: link,
                            request: number,
                            calls,
                            otherwise: route.on_call_failure,
                            then: route.status,
                            said: false,
                            reader: Reader::new(Kind::Responses),
                            over: false,
                        };
                        self.call(calling, out);
                    }
                    Some(route) => {
                        let status = route.status;
                        self.answer(link, number, status, out);
                    }
                    None => self.answer(link, number, self.default, out),
                },
            }
        }
    }

    fn set_busy(&mut self, link: LinkId, is: bool) {
        if let Some(Conn {
            speech: Speech::Http { busy, .. },
            ..
        }) = self.conns.get_mut(&link)
        {
            *busy = is;
        }
    }

    /// Makes the next call of `calling`, or answers if there is none.
    fn call(&mut self, mut calling: Calling, out: &mut Out) {
        let asker = calling.asker;
        let Some(call) = calling.calls.last() else {
            self.set_busy(asker, false);
            self.answer(asker, calling.request, calling.then, out);
            return;
        };
        let Some(to) = self.addresses.get(&(call.host.clone(), call.port)) else {
            self.set_busy(asker, false);
            self.answer(asker, calling.request, calling.otherwise, out);
            return;
        };
        let link = LinkId::opened(self.opened, 1);
        self.opened += 1;
        out.push((
            link,
            LinkCommand::Connect {
                to: *to,
                from: None,
            },
        ));
        calling.said = false;
        calling.reader = Reader::new(Kind::Responses);
        self.set_busy(asker, true);
        self.calls.insert(link, calling);
    }

    fn on_call(&mut self, link: LinkId, event: LinkEvent, out: &mut Out) {
        let Some(calling) = self.calls.get_mut(&link) else {
            return;
        };
        match event {
            LinkEvent::Accepted { .. } | LinkEvent::Sent(_) => {}
            LinkEvent::Connected { .. } => {
                if let Some(call) = calling.calls.last().filter(|_| !calling.said) {
                    calling.said = true;
                    let host = authority(&call.host, call.port);
                    let path = &call.path;
                    let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
                    send(link, head.into_bytes(), out);
                    out.push((link, READ));
                }
            }
            LinkEvent::Received(bytes) => {
                calling.reader.push(&bytes);
                out.push((link, READ));
            }
            LinkEvent::Eof => calling.reader.end(),
            LinkEvent::Closed(_) => {
                calling.reader.end();
                calling.over = true;
            }
        }
        let answer = calling.reader.answer().filter(|answer| answer.complete);
        let status = answer.map(Message::status);
        if status.is_none() && !calling.over && !calling.reader.is_broken() {
            return;
        }
        if !calling.over {
            out.push((link, LinkCommand::Finish));
        }
        let Some(mut calling) = self.calls.remove(&link) else {
            return;
        };
        let asker = calling.asker;
        if status == Some(200) {
            calling.calls.pop();
            self.call(calling, out);
        } else {
            self.set_busy(asker, false);
            self.answer(asker, calling.request, calling.otherwise, out);
        }
        self.work(asker, out);
    }

    fn answer(&mut self, link: LinkId, number: usize, status: u16, out: &mut Out) {
        let head = self.requests.get(number);
        let with_body = head.is_none_or(|request| request.method() != "HEAD");
        let by = format!("{ANSWERED_BY}: {};{number}\r\n", self.name);
        if let Some(conn) = self.conns.get_mut(&link) {
            conn.send(link, &response(status, &by, with_body), out);
        }
    }

    fn close(&mut self, link: LinkId, out: &mut Out) {
        if let Some(conn) = self.conns.get_mut(&link) {
            conn.finish(link, out);
        }
    }
}

impl Conn {
    /// Takes bytes from the wire, gives what they say inside TLS.
    fn open(
        &mut self,
        link: LinkId,
        wire: &[u8],
        config: &Arc<ServerConfig>,
        out: &mut Out,
    ) -> Vec<u8> {
        if self.finished {
            return Vec::new();
        }
        let mut wire = wire.to_vec();
        if self.tls.is_none() {
            self.first.extend_from_slice(&wire);
            match sniff(&self.first) {
                Sniff::NeedMore => return Vec::new(),
                Sniff::Hello(hello) => self.tls = accept(config, &hello),
                Sniff::NotTls | Sniff::Bad => {}
            }
            if self.tls.is_none() {
                // No ClientHello, or one of a version that nobody speaks any more (70, protocol_version).
                if matches!(sniff(&self.first), Sniff::Hello(_)) {
                    send(link, vec![21, 3, 1, 0, 2, 2, 70], out);
                }
                self.finish(link, out);
                return Vec::new();
            }
            wire = std::mem::take(&mut self.first);
        }
        let mut plain = Vec::new();
        let mut failed = false;
        if let Some(tls) = &mut self.tls {
            let mut rest = wire.as_slice();
            while !rest.is_empty() && !failed {
                failed = tls.read_tls(&mut rest).is_err();
                match tls.process_new_packets() {
                    Ok(state) => {
                        let old = plain.len();
                        plain.resize(old + state.plaintext_bytes_to_read(), 0);
                        failed |= tls.reader().read_exact(&mut plain[old..]).is_err();
                    }
                    Err(_) => failed = true,
                }
            }
        }
        self.flush(link, out);
        if failed {
            self.finish(link, out);
        }
        plain
    }

    /// Finds out what is spoken; gives the bytes once that is known.
    fn tell(&mut self, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        let Speech::Unknown = self.speech else {
            return Some(bytes);
        };
        self.first.append(&mut bytes);
        let http = match (self.kind, first_plain_kind(&self.first)) {
            (PortKind::Http, _) => true,
            (PortKind::Tcp, _) => false,
            (PortKind::Auto, PlainKind::Undecided | PlainKind::UndecidedPreface) => return None,
            (PortKind::Auto, PlainKind::Http11 | PlainKind::Http10) => true,
            (PortKind::Auto, PlainKind::Http2Preface | PlainKind::Other | PlainKind::TooLong) => {
                false
            }
        };
        self.speech = match http {
            true => Speech::Http {
                reader: Box::new(Reader::new(Kind::Requests)),
                answered: 0,
                busy: false,
            },
            false => Speech::Echo,
        };
        Some(std::mem::take(&mut self.first))
    }

    fn send(&mut self, link: LinkId, plain: &[u8], out: &mut Out) {
        if plain.is_empty() || self.finished {
            return;
        }
        match &mut self.tls {
            None => send(link, Buf::from(plain), out),
            Some(tls) => {
                tls.set_buffer_limit(None);
                let taken = tls.writer().write_all(plain);
                debug_assert!(taken.is_ok(), "a buffer without a limit takes everything");
                self.flush(link, out);
            }
        }
    }

    fn flush(&mut self, link: LinkId, out: &mut Out) {
        let Some(tls) = self.tls.as_mut().filter(|_| !self.finished) else {
            return;
        };
        let mut wire = Vec::new();
        while tls.wants_write() {
            if tls.write_tls(&mut wire).is_err() {
                break;
            }
        }
        send(link, wire, out);
    }

    fn finish(&mut self, link: LinkId, out: &mut Out) {
        if self.finished {
            return;
        }
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.flush(link, out);
        self.finished = true;
        out.push((link, LinkCommand::Finish));
    }
}

/// The authority of a request by name (FORMAT.md).
pub(super) fn authority(host: &str, port: u16) -> String {
    match port {
        80 => host.to_owned(),
        _ => format!("{host}:{port}"),
    }
}

fn response(status: u16, fields: &str, with_body: bool) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} Answer\r\n{fields}");
    // These have no body, and say no length (RFC 9110 §8.6, §15.4.5).
    if status < 200 || matches!(status, 204 | 304) {
        return [head, "\r\n".into()].concat().into_bytes();
    }
    let mut body = format!("{status}\n");
    let length = format!("content-length: {}\r\n\r\n", body.len());
    if !with_body {
        body.clear();
    }
    [head, length, body].concat().into_bytes()
}

fn server_config(
    identity: Identity,
    clock: Arc<dyn TimeProvider>,
) -> Result<Arc<ServerConfig>, String> {
    let cannot = |error: rustls::Error| format!("the application cannot speak TLS: {error}");
    ServerConfig::builder_with_details(Arc::new(default_provider()), clock)
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .map_err(cannot)?
        .with_no_client_auth()
        .with_single_cert(identity.chain, identity.key)
        .map(Arc::new)
        .map_err(cannot)
}

/// `None`: no version in common. A name in common is not asked for.
fn accept(config: &Arc<ServerConfig>, hello: &HelloFacts) -> Option<Box<ServerConnection>> {
    const TLS12: u16 = 0x0303;
    const NAME: &[u8] = b"http/1.1";
    if hello.newest < TLS12 {
        return None;
    }
    let mut config = ServerConfig::clone(config);
    if hello.offers(NAME) {
        config.alpn_protocols = vec![NAME.to_vec()];
    }
    ServerConnection::new(Arc::new(config)).ok().map(Box::new)
}
