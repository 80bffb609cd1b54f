//! The applications of the corpus, on one port each: echo, https and routes.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use meshward_core::accept::{PlainKind, PortKind, first_plain_kind};
use meshward_core::id::LinkId;
use meshward_core::link::{Buf, LinkCommand, LinkEvent};
use meshward_core::tls::{HelloFacts, Sniff, sniff};
use meshward_simulator::crypto::Identity;
use meshward_simulator::http::Reader;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::time_provider::TimeProvider;
use rustls::{ServerConfig, ServerConnection};

use super::corpus::{self, Route};

/// How an application answers the requests that it reads.
#[derive(Debug)]
struct Answers {
    routes: Vec<Route>,
    default: u16,
}

impl Answers {
    fn route(&self, path: &str) -> Option<&Route> {
        let path = path.split('?').next().unwrap_or_default();
        self.routes.iter().find(|route| match route.prefix {
            true => path.starts_with(&route.path),
            false => path == route.path,
        })
    }

    fn status(&self, path: &str) -> u16 {
        self.route(path).map_or(self.default, |route| route.status)
    }
}

/// An application as a peer of a world.
#[derive(Debug)]
pub(super) struct App {
    kind: PortKind,
    answers: Answers,
    greeting: Option<String>,
    /// It speaks TLS, with this certificate.
    tls: Option<Arc<ServerConfig>>,
    conns: BTreeMap<LinkId, Conn>,
}

#[derive(Debug, Default)]
struct Conn {
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
    },
    Echo,
}

const READ: LinkCommand = LinkCommand::Read { at_most: 32 * 1024 };

impl App {
    /// `identity` is the certificate that an https application shows. `kind` is what the port was declared as.
    pub(super) fn new(
        app: &corpus::App,
        port: u16,
        kind: PortKind,
        identity: &Identity,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, String> {
        let ok = Answers {
            routes: Vec::new(),
            default: 200,
        };
        let (answers, greeting, tls) = match app {
            corpus::App::Echo { greetings } => (ok, greetings.get(&port).cloned(), None),
            corpus::App::Https => (ok, None, Some(server_config(identity, clock)?)),
            corpus::App::Routes { routes, default } => {
                let answers = Answers {
                    routes: routes.clone(),
                    default: *default,
                };
                (answers, None, None)
            }
        };
        // Inside its TLS, or where it answers by path, it is told by the bytes.
        let told = tls.is_some() || matches!(app, corpus::App::Routes { .. });
        Ok(Self {
            kind: if told { PortKind::Auto } else { kind },
            answers,
            greeting,
            tls,
            conns: BTreeMap::new(),
        })
    }

    /// Whether it would call others before it answers a request for `path`.
    pub(super) fn calls_others(app: &corpus::App, path: &str) -> bool {
        match app {
            corpus::App::Echo { .. } | corpus::App::Https => false,
            corpus::App::Routes { routes, default } => Answers {
                routes: routes.clone(),
                default: *default,
            }
            .route(path)
            .is_some_and(|route| route.calls),
        }
    }

    pub(super) fn on(
        &mut self,
        link: LinkId,
        event: LinkEvent,
        out: &mut Vec<(LinkId, LinkCommand)>,
    ) {
        if let LinkEvent::Accepted { .. } = event {
            let mut conn = Conn::default();
            if let Some(greeting) = &self.greeting {
                conn.speech = Speech::Echo;
                conn.send(link, greeting.as_bytes(), out);
            }
            self.conns.insert(link, conn);
            out.push((link, READ));
            return;
        }
        let Some(conn) = self.conns.get_mut(&link) else {
            return;
        };
        match event {
            LinkEvent::Accepted { .. } | LinkEvent::Connected { .. } | LinkEvent::Sent(_) => {}
            LinkEvent::Received(bytes) => {
                match &self.tls {
                    None => conn.take(link, &bytes, self.kind, &self.answers, out),
                    Some(config) => {
                        let plain = conn.open(link, &bytes, config, out);
                        conn.take(link, &plain, self.kind, &self.answers, out);
                        conn.flush(link, out);
                    }
                }
                if !conn.finished {
                    out.push((link, READ));
                }
            }
            LinkEvent::Eof => conn.finish(link, out),
            LinkEvent::Closed(_) => {
                self.conns.remove(&link);
            }
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
        out: &mut Vec<(LinkId, LinkCommand)>,
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
                    let bytes = Buf::from(vec![21, 3, 1, 0, 2, 2, 70]);
                    out.push((link, LinkCommand::Send { bytes, ack: false }));
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

    fn take(
        &mut self,
        link: LinkId,
        plain: &[u8],
        kind: PortKind,
        answers: &Answers,
        out: &mut Vec<(LinkId, LinkCommand)>,
    ) {
        if plain.is_empty() || self.finished {
            return;
        }
        let mut bytes = plain.to_vec();
        if let Speech::Unknown = self.speech {
            self.first.append(&mut bytes);
            let http = match (kind, first_plain_kind(&self.first)) {
                (PortKind::Http, _) => true,
                (PortKind::Tcp, _) => false,
                (PortKind::Auto, PlainKind::Undecided | PlainKind::UndecidedPreface) => return,
                (PortKind::Auto, PlainKind::Http11 | PlainKind::Http10) => true,
                (
                    PortKind::Auto,
                    PlainKind::Http2Preface | PlainKind::Other | PlainKind::TooLong,
                ) => false,
            };
            self.speech = match http {
                true => Speech::Http {
                    reader: Box::new(Reader::of_requests()),
                    answered: 0,
                },
                false => Speech::Echo,
            };
            bytes = std::mem::take(&mut self.first);
        }
        let mut reply = Vec::new();
        let mut wrong = false;
        match &mut self.speech {
            Speech::Unknown => {}
            Speech::Echo => reply = bytes,
            Speech::Http { reader, answered } => {
                reader.push(&bytes);
                let complete = reader.messages().iter().filter(|m| m.complete);
                for request in complete.skip(*answered) {
                    *answered += 1;
                    let status = answers.status(request.target());
                    reply.extend(response(status));
                }
                wrong = reader.is_broken();
                if wrong {
                    reply.extend(response(400));
                }
            }
        }
        self.send(link, &reply, out);
        if wrong {
            self.finish(link, out);
        }
    }

    fn send(&mut self, link: LinkId, plain: &[u8], out: &mut Vec<(LinkId, LinkCommand)>) {
        if plain.is_empty() || self.finished {
            return;
        }
        match &mut self.tls {
            None => {
                let bytes = Buf::from(plain);
                out.push((link, LinkCommand::Send { bytes, ack: false }));
            }
            Some(tls) => {
                tls.set_buffer_limit(None);
                let taken = tls.writer().write_all(plain);
                debug_assert!(taken.is_ok(), "a buffer without a limit takes everything");
                self.flush(link, out);
            }
        }
    }

    fn flush(&mut self, link: LinkId, out: &mut Vec<(LinkId, LinkCommand)>) {
        let Some(tls) = self.tls.as_mut().filter(|_| !self.finished) else {
            return;
        };
        let mut wire = Vec::new();
        while tls.wants_write() {
            if tls.write_tls(&mut wire).is_err() {
                break;
            }
        }
        if !wire.is_empty() {
            let bytes = Buf::from(wire);
            out.push((link, LinkCommand::Send { bytes, ack: false }));
        }
    }

    fn finish(&mut self, link: LinkId, out: &mut Vec<(LinkId, LinkCommand)>) {
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

fn response(status: u16) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} Answer\r\n");
    // These have no body, and say no length (RFC 9110 §8.6, §15.4.5).
    if status < 200 || matches!(status, 204 | 304) {
        return [head, "\r\n".into()].concat().into_bytes();
    }
    let body = format!("{status}\n");
    let length = format!("content-length: {}\r\n\r\n", body.len());
    [head, length, body].concat().into_bytes()
}

fn server_config(
    identity: &Identity,
    clock: Arc<dyn TimeProvider>,
) -> Result<Arc<ServerConfig>, String> {
    let cannot = |error: rustls::Error| format!("the application cannot speak TLS: {error}");
    ServerConfig::builder_with_details(Arc::new(default_provider()), clock)
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .map_err(cannot)?
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
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
