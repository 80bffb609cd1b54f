//! The client: one connection for each question, to either side.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Stream};
use socket2::{Domain, Socket, Type};

use meshward_simulator::tls::AnyServer;

use super::envoy::Material;
use super::upstream::{MARK, content_length, end_of_head};
use super::{Answer, Place, Question, Received, What};

const PATIENCE: Duration = Duration::from_secs(10);

/// Fields that either proxy makes anew for every request.
const ANEW: &[&str] = &["x-request-id", "x-envoy-expected-rq-timeout-ms"];
/// Fields of an answer that say why.
const TELLING: &[&str] = &[
    "content-type",
    "grpc-message",
    "grpc-status",
    "www-authenticate",
];

/// The loopback address of the client's family.
fn beside(from: SocketAddr, port: u16) -> SocketAddr {
    match from {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
    }
}

/// Asks at a port of this machine; returns the address that the client had, by which the access log names it. `preface` comes before everything else.
pub fn ask(
    question: &Question,
    place: &Place,
    to: u16,
    preface: &str,
    material: &Material,
) -> io::Result<(SocketAddr, Answer)> {
    let socket = Socket::new(Domain::for_address(question.from), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&question.from.into())?;
    socket.connect_timeout(&beside(question.from, to).into(), PATIENCE)?;
    let mut stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let me = stream.local_addr()?;
    let family = if me.is_ipv4() { "TCP4" } else { "TCP6" };
    let line = format!(
        "{preface}PROXY {family} {} {} {} {}\r\n",
        me.ip(),
        place.address.ip(),
        me.port(),
        place.address.port()
    );
    stream.write_all(line.as_bytes())?;
    let answer = match &question.identity {
        None => converse(&mut stream, &question.what),
        Some(identity) => {
            let mut session = session(question, identity, material)?;
            let answer = converse(&mut Stream::new(&mut session, &mut stream), &question.what);
            session.send_close_notify();
            let _ = session.write_tls(&mut stream);
            answer
        }
    };
    let _ = stream.shutdown(Shutdown::Both);
    Ok((me, answer))
}

fn session(
    question: &Question,
    identity: &str,
    material: &Material,
) -> io::Result<ClientConnection> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let me = material.identity(identity).map_err(io::Error::other)?;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_client_auth_cert(me.chain.clone(), me.key.clone_key())
        .map_err(io::Error::other)?;
    config.alpn_protocols = match question.what {
        What::Request(_) => vec![
            b"istio-http/1.1".to_vec(),
            b"istio".to_vec(),
            b"http/1.1".to_vec(),
        ],
        What::Bytes(_) => vec![b"istio-peer-exchange".to_vec(), b"istio".to_vec()],
    };
    config.enable_sni = question.sni.is_some();
    let name = question
        .sni
        .clone()
        .unwrap_or_else(|| "nobody.invalid".into());
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)
}

fn converse(stream: &mut (impl Read + Write), what: &What) -> Answer {
    match what {
        What::Request(bytes) => {
            // What cannot be sent any more was answered before.
            let _ = stream.write_all(bytes).and_then(|()| stream.flush());
            response(stream, bytes.starts_with(b"HEAD "))
        }
        What::Bytes(bytes) => {
            let sent = stream.write_all(bytes).and_then(|()| stream.flush());
            let mut echo = vec![0; bytes.len()];
            match sent.and_then(|()| stream.read_exact(&mut echo)) {
                Ok(()) => Answer {
                    body: "echo".into(),
                    ..Answer::default()
                },
                Err(_) => Answer::default(),
            }
        }
    }
}

fn response(stream: &mut impl Read, is_head: bool) -> Answer {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    let mut more = |bytes: &mut Vec<u8>| match stream.read(&mut chunk) {
        Ok(count) if count > 0 => {
            bytes.extend_from_slice(&chunk[..count]);
            true
        }
        Ok(_) | Err(_) => false,
    };
    let end = loop {
        if let Some(end) = end_of_head(&bytes) {
            break end;
        }
        if !more(&mut bytes) {
            return Answer::default();
        }
    };
    let head: Vec<u8> = bytes.drain(..end).collect();
    let length = if is_head { 0 } else { content_length(&head) };
    while bytes.len() < length && more(&mut bytes) {}
    let text = latin1(&head);
    let mut lines = text.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .unwrap_or(0);
    let fields: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let body = latin1(&bytes);
    let mut answer = Answer {
        status,
        ..Answer::default()
    };
    if fields.contains_key(MARK) {
        answer.upstream = Some(received(&body));
    } else {
        answer.body = body;
        answer.headers = fields;
        answer
            .headers
            .retain(|name, _| TELLING.contains(&name.as_str()));
    }
    answer
}

fn received(body: &str) -> Received {
    let mut lines = body.lines();
    let line = lines.next().unwrap_or_default().to_owned();
    // Envoy joins the lines of some names, which says the same (RFC 9110 §5.3).
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = name.to_ascii_lowercase();
        let comma = if name == "cookie" { "; " } else { "," };
        if ANEW.contains(&name.as_str()) {
            continue;
        }
        headers
            .entry(name)
            .and_modify(|values| {
                let both = !values.is_empty() && !value.trim().is_empty();
                values.push_str(if both { comma } else { "" });
                values.push_str(value.trim());
            })
            .or_insert_with(|| value.trim().to_owned());
    }
    Received { line, headers }
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
