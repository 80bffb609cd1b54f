//! TLS of a client that believes any server and sends any certificate, and a journal of what it saw: what the server does
//! about that is what is looked at.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use meshward_simulator::crypto::Identity;
use meshward_simulator::tls::AnyServer;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, Error, SignatureScheme, SupportedProtocolVersion};

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::checks::Version;

/// What the client offers.
#[derive(Debug)]
pub(super) struct Offer {
    /// `None`: 1.2 or 1.3, as the server likes.
    pub(super) version: Option<Version>,
    pub(super) alpn: Vec<String>,
    pub(super) identity: Option<Identity>,
    pub(super) sni: Option<String>,
}

/// How the transport ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Fin,
    Reset,
    /// There was no connection.
    Unconnected,
}

/// What the client saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Journal {
    /// The handshake is through on the client's side.
    pub(super) established: bool,
    /// The server sent bytes.
    pub(super) heard: bool,
    /// The fatal alert that came.
    pub(super) alert: Option<u8>,
    /// close_notify came.
    pub(super) notified: bool,
    /// What came was no TLS, or wrong.
    pub(super) broken: bool,
    pub(super) end: Option<End>,
    pub(super) plain: Vec<u8>,
    pub(super) alpn: Option<String>,
    /// The server's certificates, leaf first.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

impl Journal {
    /// The server said that nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.alert.is_some() || self.notified || self.broken || self.end.is_some()
    }

    /// `handshake` of the corpus format, or a word that it does not have.
    pub(super) fn handshake(&self) -> &'static str {
        let over = self.is_over();
        match (self.established, self.end) {
            (true, _) if over => "client_completes",
            (true, _) => "ok",
            (false, Some(End::Unconnected)) => "not connected",
            (false, Some(End::Reset)) if !self.heard => "reset",
            (false, Some(End::Fin)) => "fail",
            (false, _) if self.alert.is_some() || self.notified || self.broken => "fail",
            (false, Some(End::Reset)) => "reset in the middle",
            (false, None) => "no answer",
        }
    }

    /// The exit code of a curl that had asked for `/`; `None`: it would still wait.
    pub(super) fn curl_exit(&self, answered: bool) -> Option<u8> {
        match (self.established, self.end) {
            (_, Some(End::Unconnected)) => Some(7),
            (false, None) if !self.broken && self.alert.is_none() && !self.notified => None,
            (false, _) => Some(35),
            (true, _) if answered => Some(0),
            (true, _) if self.alert.is_some() || self.broken => Some(56),
            (true, Some(End::Reset)) => Some(56),
            (true, Some(End::Fin)) => Some(52),
            (true, None) => self.notified.then_some(52),
        }
    }
}

/// The names in a server's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) uris: Vec<String>,
    pub(super) dns: Vec<String>,
}

impl Journal {
    /// `None`: there was no certificate, or one that is none.
    pub(super) fn names(&self) -> Option<Names> {
        let (_, leaf) = X509Certificate::from_der(self.chain.first()?).ok()?;
        let mut found = Names::default();
        let names = leaf.subject_alternative_name().ok().flatten();
        for name in names.map_or(&[][..], |names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => found.uris.push((*uri).to_owned()),
                GeneralName::DNSName(dns) => found.dns.push((*dns).to_owned()),
                _ => {}
            }
        }
        Some(found)
    }
}

/// The client's side of one session: wire bytes in, wire bytes out.
#[derive(Debug)]
pub(super) struct Tls {
    session: Session,
    pub(super) journal: Journal,
}

#[derive(Debug)]
enum Session {
    Tls(Box<ClientConnection>),
    /// TLS 1.1: a ClientHello, and what was answered.
    Old {
        hello: Vec<u8>,
        answer: Vec<u8>,
    },
}

impl Tls {
    /// Errors are for people: the offer cannot be made.
    pub(super) fn new(offer: Offer, clock: Arc<dyn TimeProvider>) -> Result<Self, String> {
        static ONLY_12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
        static ONLY_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
        let versions = match offer.version {
            Some(Version::Tls11) => {
                return Ok(Self {
                    session: Session::Old {
                        hello: old_hello(&offer),
                        answer: Vec::new(),
                    },
                    journal: Journal::default(),
                });
            }
            Some(Version::Tls12) => ONLY_12,
            Some(Version::Tls13) => ONLY_13,
            None => rustls::DEFAULT_VERSIONS,
        };
        Ok(Self {
            session: Session::Tls(Box::new(connection(offer, versions, clock)?)),
            journal: Journal::default(),
        })
    }

    /// Queues data, until the handshake is over if it is not.
    pub(super) fn say(&mut self, plain: &[u8]) {
        if let Session::Tls(session) = &mut self.session {
            session.set_buffer_limit(None);
            let taken = session.writer().write_all(plain);
            debug_assert!(taken.is_ok(), "a buffer without a limit takes everything");
        }
    }

    /// Queues close_notify.
    pub(super) fn finish(&mut self) {
        if let Session::Tls(session) = &mut self.session {
            session.send_close_notify();
        }
    }

    /// What is to go out.
    pub(super) fn wire(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        match &mut self.session {
            Session::Old { hello, .. } => wire.append(hello),
            Session::Tls(session) => {
                while session.wants_write() {
                    if session.write_tls(&mut wire).is_err() {
                        break;
                    }
                }
            }
        }
        wire
    }

    /// Takes what came; what it says is in the journal.
    pub(super) fn hear(&mut self, wire: &[u8]) {
        self.journal.heard = true;
        match &mut self.session {
            Session::Tls(session) => hear(session, wire, &mut self.journal),
            Session::Old { answer, .. } => {
                answer.extend_from_slice(wire);
                hear_old(answer, &mut self.journal);
            }
        }
    }
}

fn connection(
    offer: Offer,
    versions: &[&'static SupportedProtocolVersion],
    clock: Arc<dyn TimeProvider>,
) -> Result<ClientConnection, String> {
    let cannot = |error: Error| format!("the client cannot be made: {error}");
    let provider = Arc::new(default_provider());
    let builder = ClientConfig::builder_with_details(Arc::clone(&provider), clock)
        .with_protocol_versions(versions)
        .map_err(cannot)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(Arc::clone(&provider))));
    let mut config = match offer.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = provider
                .key_provider
                .load_private_key(identity.key)
                .map_err(cannot)?;
            let certified = CertifiedKey::new(identity.chain, key);
            builder.with_client_cert_resolver(Arc::new(AsGiven(Arc::new(certified))))
        }
    };
    config.alpn_protocols = offer.alpn.into_iter().map(String::into_bytes).collect();
    config.resumption = Resumption::disabled();
    config.enable_sni = offer.sni.is_some();
    let name = offer.sni.unwrap_or_else(|| "nobody.invalid".into());
    let server = ServerName::try_from(name).map_err(|error| error.to_string())?;
    ClientConnection::new(Arc::new(config), server).map_err(cannot)
}

fn hear(session: &mut ClientConnection, mut wire: &[u8], journal: &mut Journal) {
    while !wire.is_empty() && journal.alert.is_none() && !journal.broken && !journal.notified {
        if session.read_tls(&mut wire).is_err() {
            journal.broken = true;
            return;
        }
        let state = session.process_new_packets();
        match state {
            Ok(state) => {
                let old = journal.plain.len();
                journal
                    .plain
                    .resize(old + state.plaintext_bytes_to_read(), 0);
                if session
                    .reader()
                    .read_exact(&mut journal.plain[old..])
                    .is_err()
                {
                    journal.plain.truncate(old);
                }
                journal.notified = state.peer_has_closed();
            }
            Err(Error::AlertReceived(alert)) => journal.alert = Some(u8::from(alert)),
            Err(_) => journal.broken = true,
        }
        if !session.is_handshaking() && !journal.established {
            journal.established = true;
            let alpn = session.alpn_protocol();
            journal.alpn = alpn.map(|name| String::from_utf8_lossy(name).into_owned());
            journal.chain = session.peer_certificates().unwrap_or_default().to_vec();
        }
    }
}

/// Reads the answer to a ClientHello of TLS 1.1. A server may say one thing: a fatal alert.
fn hear_old(answer: &[u8], journal: &mut Journal) {
    const FATAL: u8 = 2;
    match answer {
        [21, 3, _, 0, 2, FATAL, alert, ..] => journal.alert = Some(*alert),
        [21, 3, _, 0, 2, _, 0, ..] => journal.notified = true,
        [_, _, _, high, low, rest @ ..] => {
            // Warnings, a ServerHello: TLS 1.1 is not spoken here, so that a server which does is never taken for one
            // that refuses.
            journal.broken |= rest.len() >= usize::from(u16::from_be_bytes([*high, *low]))
                && !matches!(answer, [22, 3, ..]);
        }
        _ => {}
    }
}

/// An ordinary ClientHello of TLS 1.1 (RFC 4346 §7.4.1.2).
fn old_hello(offer: &Offer) -> Vec<u8> {
    const SUITES: [u16; 6] = [0xc00a, 0xc014, 0xc009, 0xc013, 0x0035, 0x002f];
    let sized = |content: &[u8]| -> Vec<u8> {
        let length = (content.len() as u16).to_be_bytes();
        [&length[..], content].concat()
    };
    let extension = |number: u16, content: &[u8]| -> Vec<u8> {
        [&number.to_be_bytes()[..], &sized(content)].concat()
    };
    let mut extensions = Vec::new();
    if let Some(sni) = &offer.sni {
        let name = [&[0][..], &sized(sni.as_bytes())].concat();
        extensions.extend(extension(0, &sized(&name)));
    }
    extensions.extend(extension(10, &sized(&[0, 23, 0, 24])));
    extensions.extend(extension(11, &[1, 0]));
    if !offer.alpn.is_empty() {
        let names = offer.alpn.iter().flat_map(|name| {
            let length = [name.len() as u8];
            [&length[..], name.as_bytes()].concat()
        });
        extensions.extend(extension(16, &sized(&names.collect::<Vec<u8>>())));
    }
    let suites: Vec<u8> = SUITES
        .iter()
        .flat_map(|suite| suite.to_be_bytes())
        .collect();
    let body = [
        &[3, 2][..],
        &[0x5a; 32],
        &[0],
        &sized(&suites),
        &[1, 0],
        &sized(&extensions),
    ]
    .concat();
    let message = [&[1, 0][..], &sized(&body)].concat();
    [&[22, 3, 1][..], &sized(&message)].concat()
}

/// Sends one chain, whatever the server asks for and however odd it is.
#[derive(Debug)]
struct AsGiven(Arc<CertifiedKey>);

impl ResolvesClientCert for AsGiven {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use meshward_core::tls::{Sniff, sniff};

    use super::*;

    #[test]
    fn the_hello_of_tls_1_1_is_one() {
        let hello = old_hello(&Offer {
            version: Some(Version::Tls11),
            alpn: vec!["istio".into(), "h2".into()],
            identity: None,
            sni: Some("a.example".into()),
        });
        let Sniff::Hello(facts) = sniff(&hello) else {
            panic!("{:?}", sniff(&hello));
        };
        assert_eq!(facts.newest, 0x0302);
        assert_eq!(facts.alpn, [b"istio".to_vec(), b"h2".to_vec()]);
        assert_eq!(facts.sni.as_deref(), Some("a.example"));
    }

    #[test]
    fn what_was_seen_has_one_name() {
        let seen = Journal::default();
        let with = |change: fn(&mut Journal)| {
            let mut seen = seen.clone();
            change(&mut seen);
            (seen.handshake(), seen.curl_exit(false))
        };
        assert_eq!(with(|_| {}), ("no answer", None));
        assert_eq!(with(|j| j.established = true), ("ok", None));
        let reset = |j: &mut Journal| j.end = Some(End::Reset);
        assert_eq!(with(reset), ("reset", Some(35)));
        let later = |j: &mut Journal| (j.heard, j.end) = (true, Some(End::Reset));
        assert_eq!(with(later), ("reset in the middle", Some(35)));
        assert_eq!(with(|j| j.end = Some(End::Fin)), ("fail", Some(35)));
        let alert = |j: &mut Journal| (j.alert, j.end) = (Some(70), Some(End::Reset));
        assert_eq!(
            with(|j| (j.heard, j.alert) = (true, Some(70))),
            ("fail", Some(35))
        );
        let both = |j: &mut Journal| (j.established, j.alert) = (true, Some(116));
        assert_eq!(with(both), ("client_completes", Some(56)));
        let ended = |j: &mut Journal| (j.established, j.end) = (true, Some(End::Fin));
        assert_eq!(with(ended), ("client_completes", Some(52)));
        let nobody = |j: &mut Journal| j.end = Some(End::Unconnected);
        assert_eq!(with(nobody), ("not connected", Some(7)));
        let mut heard = seen.clone();
        heard.heard = true;
        alert(&mut heard);
        assert_eq!(heard.handshake(), "fail", "the alert came first");
    }

    #[test]
    fn of_tls_1_1_a_fatal_alert_alone_is_a_refusal() {
        let heard = |bytes: &[u8]| {
            let mut journal = Journal::default();
            hear_old(bytes, &mut journal);
            journal
        };
        assert_eq!(heard(&[21, 3, 1, 0, 2, 2, 70]).alert, Some(70));
        assert_eq!(heard(&[21, 3, 1, 0]), Journal::default());
        assert!(heard(&[21, 3, 1, 0, 2, 1, 0]).notified);
        assert!(heard(b"HTTP/1.1 400 Bad Request\r\n").handshake() != "ok");
        let server_hello = [22, 3, 2, 0, 1, 2];
        assert_eq!(heard(&server_hello).handshake(), "no answer");
    }
}
