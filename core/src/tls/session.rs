//! One end of one TLS connection: records in, events and records out.
//!
//! First a handshake (rustls, one record at a time), then records (ours). Nothing of the handshake outlives it but the
//! secrets that the next KeyUpdate needs. Knows no links and no time but what the settings carry.

use std::fmt;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CommonState, ProtocolVersion};

use super::TlsVersion;
use super::client::ClientTls;
use super::failure::{TlsError, TlsFailure};
use super::record::{DATA, HEADER, Opened, Records, Secrets};
use super::server::{ChainKind, ServerTls};
use super::sniff::HelloFacts;
use super::verify::{PeerCertificate, Verifier};
use crate::limits::HANDSHAKE_MAX;
use crate::link::Buf;

/// What a session has to tell, in order: one `Established`, any number of `Plain`, at most one `Finished`.
#[derive(Debug)]
pub enum TlsEvent<'a> {
    Established(Established),
    /// Never empty; at most 16 KiB.
    Plain(&'a [u8]),
    /// close_notify: the peer has finished its direction; ours may go on. Bytes after it are ignored (RFC 8446 §6.1).
    /// A link that ends without it has been cut off, which the session does not see.
    Finished,
}

/// The outcome of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// The peer, which proved to own this certificate.
    pub peer: Option<Arc<PeerCertificate>>,
    /// The protocol name that both have in common.
    pub alpn: Option<Vec<u8>>,
    /// What the client asked for, on the server's side.
    pub sni: Option<String>,
    pub version: TlsVersion,
}

/// One end of a TLS connection. A TLS 1.3 client is established before the server has judged its certificate; the
/// verdict, if it is against us, arrives as a failure later (S-97).
pub struct Session {
    stage: Stage,
    /// Received bytes that are not a whole record yet, or part of a handshake. Empty most of the time.
    pending: Vec<u8>,
}

enum Stage {
    /// The hello alone is reason to refuse, and rustls would answer it otherwise or not at all.
    Refused(Refusal),
    Handshake(Box<Handshake>),
    Traffic(Records),
    /// The peer has finished; we may still send.
    HalfClosed(Records),
    Over,
}

#[derive(Clone, Copy)]
enum Refusal {
    /// The client knows no version of ours: S-97 wants 70, where rustls answers what such a hello lacks besides (40).
    TooOld,
    /// The client was talked down from a version that both know (RFC 7507); rustls does not look.
    Fallback,
}

struct Handshake {
    conn: Conn,
    verifier: Arc<Verifier>,
    sni: Option<String>,
    /// Bytes at the front of `pending` that rustls has seen and still needs: a handshake message without its end.
    seen: usize,
}

enum Conn {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// The oldest version that we speak, as on the wire.
const TLS12: u16 = 0x0303;

impl Session {
    /// The terminating end. `hello` is what [`sniff`](super::sniff) read; the bytes themselves still have to be fed.
    pub fn server(
        config: &ServerTls,
        chain: ChainKind,
        hello: &HelloFacts,
    ) -> Result<Self, TlsError> {
        let refusal = match hello.newest {
            1..TLS12 => Some(Refusal::TooOld),
            // TLS 1.3 is always among ours.
            TLS12 if hello.fallback => Some(Refusal::Fallback),
            _ => None,
        };
        if let Some(refusal) = refusal {
            return Ok(Self {
                stage: Stage::Refused(refusal),
                pending: Vec::new(),
            });
        }
        let conn = Conn::Server(config.accept(chain, hello)?);
        Ok(Self::new(
            conn,
            Arc::clone(&config.verifier),
            hello.sni.clone(),
        ))
    }

    /// The originating end. [`start`](Self::start) makes its ClientHello.
    pub fn client(config: &ClientTls) -> Result<Self, TlsError> {
        let conn = Conn::Client(config.connect()?);
        Ok(Self::new(conn, Arc::clone(&config.verifier), None))
    }

    fn new(conn: Conn, verifier: Arc<Verifier>, sni: Option<String>) -> Self {
        Self {
            stage: Stage::Handshake(Box::new(Handshake {
                conn,
                verifier,
                sni,
                seen: 0,
            })),
            pending: Vec::new(),
        }
    }

    /// Appends the ClientHello of a client. A server has nothing to say first.
    pub fn start(&mut self, out: &mut Buf) -> Result<(), TlsFailure> {
        match &mut self.stage {
            Stage::Handshake(handshake) => handshake.advance(&mut [], out).map(|_| ()),
            Stage::Refused(_) | Stage::Traffic(_) | Stage::HalfClosed(_) | Stage::Over => Ok(()),
        }
    }

    /// Takes received bytes, appends what must be sent to `out` and calls `sink` for each event in order. Plaintext is
    /// lent out of `input` itself.
    ///
    /// After a failure `out` holds the fatal alert, if there is one to send, and the session takes and gives nothing any
    /// more.
    pub fn receive(
        &mut self,
        mut input: Buf,
        out: &mut Buf,
        sink: &mut impl FnMut(TlsEvent<'_>),
    ) -> Result<(), TlsFailure> {
        let mut result = match &mut self.stage {
            Stage::Handshake(_) => {
                self.pending.extend_from_slice(&input);
                drop(input);
                self.handshake(out, sink)
            }
            Stage::Traffic(_) => self.traffic(&mut input, out, sink),
            Stage::Refused(refusal) => {
                let failure = match refusal {
                    Refusal::TooOld => TlsFailure::too_old(),
                    Refusal::Fallback => TlsFailure::fallback(),
                };
                out.extend_from_slice(&[21, 3, 1, 0, 2, 2]);
                out.extend_from_slice(failure.alert.as_slice());
                Err(failure)
            }
            Stage::HalfClosed(_) | Stage::Over => Ok(()),
        };
        if let Err(failure) = &mut result {
            if let (Some(alert), Stage::Traffic(records)) = (failure.alert, &mut self.stage)
                && !records.fatal_alert(alert, out)
            {
                failure.alert = None;
            }
            self.stage = Stage::Over;
            self.pending = Vec::new();
        }
        result
    }

    /// Seals `plaintext` and appends the records to `out`, 16 KiB in each. Fails before the handshake is through, after
    /// [`finish`](Self::finish) and after a failure.
    pub fn send(&mut self, plaintext: &[u8], out: &mut Buf) -> Result<(), TlsFailure> {
        match &mut self.stage {
            Stage::Traffic(records) | Stage::HalfClosed(records) => records.send(plaintext, out),
            Stage::Refused(_) | Stage::Handshake(_) | Stage::Over => Err(TlsFailure::local(
                "nothing can be sent outside of an established session",
            )),
        }
    }

    /// Appends close_notify, once: our direction ends, the peer's may go on. A handshake is dropped without a word.
    pub fn finish(&mut self, out: &mut Buf) {
        match &mut self.stage {
            Stage::Traffic(records) | Stage::HalfClosed(records) => {
                // Without keys for it there is no close_notify; the end of the link has to do.
                let _ = records.finish(out);
            }
            // Nobody waits for the end of data that has not begun.
            Stage::Refused(_) | Stage::Handshake(_) => {
                self.stage = Stage::Over;
                self.pending = Vec::new();
            }
            Stage::Over => {}
        }
    }

    /// Whether data can be sent, as far as the handshake is concerned.
    pub fn is_established(&self) -> bool {
        matches!(self.stage, Stage::Traffic(_) | Stage::HalfClosed(_))
    }

    /// See [`Records::skip_records`].
    #[cfg(test)]
    pub(super) fn skip_records(&mut self, tx: u64, rx: u64) {
        if let Stage::Traffic(records) = &mut self.stage {
            records.skip_records(tx, rx);
        }
    }

    /// Seals a record of any type, as only a peer would that breaks the rules.
    #[cfg(test)]
    pub(super) fn seal_raw(&mut self, typ: u8, plain: &[u8], out: &mut Buf) {
        if let Stage::Traffic(records) = &mut self.stage {
            records.seal(typ, plain, out).expect("a record");
        }
    }

    fn handshake(
        &mut self,
        out: &mut Buf,
        sink: &mut impl FnMut(TlsEvent<'_>),
    ) -> Result<(), TlsFailure> {
        let Stage::Handshake(handshake) = &mut self.stage else {
            return Ok(());
        };
        // Where the bytes begin that rustls still needs; those before are dropped together.
        let mut start = 0;
        while let Some(next) = next_record(&self.pending, start + handshake.seen) {
            let end = match next {
                Next::Record(end) | Next::Impossible(end) => end,
                Next::Empty => {
                    return Err(TlsFailure::unanswered("an empty record in a handshake"));
                }
            };
            if end - start > HANDSHAKE_MAX {
                return Err(TlsFailure::unanswered("a handshake message is too long"));
            }
            let Some(bytes) = self.pending.get_mut(start..end) else {
                return Ok(());
            };
            start += handshake.advance(bytes, out)?;
            handshake.seen = end - start;
            if matches!(next, Next::Impossible(_)) {
                return Err(TlsFailure::unanswered("a record of another protocol"));
            }
            if !handshake.conn.common().is_handshaking() {
                self.pending.drain(..start);
                return self.establish(out, sink);
            }
        }
        self.pending.drain(..start);
        Ok(())
    }

    /// The handshake is through: rustls goes, its secrets stay, and what came after is data.
    fn establish(
        &mut self,
        out: &mut Buf,
        sink: &mut impl FnMut(TlsEvent<'_>),
    ) -> Result<(), TlsFailure> {
        let Stage::Handshake(handshake) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Ok(());
        };
        let (established, records) = handshake.into_records()?;
        sink(TlsEvent::Established(established));
        self.stage = Stage::Traffic(records);
        let mut rest = std::mem::take(&mut self.pending);
        self.traffic(&mut rest, out, sink)
    }

    fn traffic(
        &mut self,
        input: &mut [u8],
        out: &mut Buf,
        sink: &mut impl FnMut(TlsEvent<'_>),
    ) -> Result<(), TlsFailure> {
        let Stage::Traffic(records) = &mut self.stage else {
            return Ok(());
        };
        let mut rest = input;
        if !self.pending.is_empty() {
            let missing = complete(&mut self.pending, rest, records)?;
            rest = rest.get_mut(missing.taken..).unwrap_or_default();
            if !missing.whole {
                return Ok(());
            }
            let finished = event(records.open(&mut self.pending, out)?, sink);
            self.pending.clear();
            if finished {
                self.half_close();
                return Ok(());
            }
        }
        while let Some(header) = header(rest) {
            let length = records.record_len(header)?;
            if length > rest.len() {
                self.pending.reserve_exact(length);
                break;
            }
            let (record, after) = rest.split_at_mut(length);
            if event(records.open(record, out)?, sink) {
                self.half_close();
                return Ok(());
            }
            rest = after;
        }
        if rest.is_empty() {
            self.pending = Vec::new();
        } else {
            self.pending.extend_from_slice(rest);
        }
        Ok(())
    }

    fn half_close(&mut self) {
        self.pending = Vec::new();
        self.stage = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Traffic(records) => Stage::HalfClosed(records),
            other => other,
        };
    }
}

fn event(opened: Opened<'_>, sink: &mut impl FnMut(TlsEvent<'_>)) -> bool {
    match opened {
        Opened::Plain([]) | Opened::Nothing => false,
        Opened::Plain(bytes) => {
            sink(TlsEvent::Plain(bytes));
            false
        }
        Opened::Finished => {
            sink(TlsEvent::Finished);
            true
        }
    }
}

fn header(bytes: &[u8]) -> Option<[u8; HEADER]> {
    bytes.first_chunk().copied()
}

struct Completed {
    taken: usize,
    whole: bool,
}

/// Moves the rest of the record that `pending` begins from `input` to it.
fn complete(
    pending: &mut Vec<u8>,
    input: &[u8],
    records: &Records,
) -> Result<Completed, TlsFailure> {
    let mut taken = 0;
    let mut take = |pending: &mut Vec<u8>, upto: usize| {
        let want = upto.saturating_sub(pending.len());
        let rest = input.get(taken..).unwrap_or_default();
        let bytes = rest.get(..want).unwrap_or(rest);
        pending.extend_from_slice(bytes);
        taken += bytes.len();
    };
    take(pending, HEADER);
    let Some(header) = header(pending) else {
        return Ok(Completed {
            taken,
            whole: false,
        });
    };
    let length = records.record_len(header)?;
    pending.reserve_exact(length.saturating_sub(pending.len()));
    take(pending, length);
    Ok(Completed {
        taken,
        whole: pending.len() == length,
    })
}

/// What comes next in a handshake, and where it ends.
#[derive(Clone, Copy)]
enum Next {
    Record(usize),
    /// A header that cannot be one; rustls has an error for nearly all of them.
    Impossible(usize),
    /// A record of data without a byte, which no version has here. rustls skips it where it skips early data, all of them
    /// again with each, and without an end.
    Empty,
}

/// The record that begins at `at`; `None` while it is not whole.
fn next_record(pending: &[u8], at: usize) -> Option<Next> {
    /// Most of what rustls takes (RFC 5246 §6.2.3).
    const SEALED_MAX: usize = (1 << 14) + 2048;
    let [typ, major, _, high, low] = header(pending.get(at..)?)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let end = at + HEADER + length;
    match (typ, length) {
        (DATA, 0) => Some(Next::Empty),
        (20..=23, 1..=SEALED_MAX) if major == 3 => {
            (end <= pending.len()).then_some(Next::Record(end))
        }
        _ => Some(Next::Impossible(at + HEADER)),
    }
}

impl Conn {
    fn common(&self) -> &CommonState {
        match self {
            Self::Server(conn) => conn,
            Self::Client(conn) => conn,
        }
    }
}

enum Step {
    Again,
    Waits,
}

impl Handshake {
    /// Lets rustls work on `bytes` until it wants more. Returns how many of them it needs no longer.
    fn advance(&mut self, bytes: &mut [u8], out: &mut Buf) -> Result<usize, TlsFailure> {
        let mut used = 0;
        loop {
            let rest = bytes.get_mut(used..).unwrap_or_default();
            let (discard, step) = match &mut self.conn {
                Conn::Server(conn) => {
                    let UnbufferedStatus { discard, state, .. } = conn.process_tls_records(rest);
                    (discard, state.and_then(|state| obey(state, out)))
                }
                Conn::Client(conn) => {
                    let UnbufferedStatus { discard, state, .. } = conn.process_tls_records(rest);
                    (discard, state.and_then(|state| obey(state, out)))
                }
            };
            used += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Waits) => return Ok(used),
                Err(error) => {
                    let before = out.len();
                    self.flush(out);
                    let last_words = out.get(before..).unwrap_or_default();
                    return Err(TlsFailure::from_rustls(&error, last_words));
                }
            }
        }
    }

    /// Appends what rustls has queued. Shows it no input: after an error it must not look at any again.
    fn flush(&mut self, out: &mut Buf) {
        while self.conn.common().wants_write() {
            let step = match &mut self.conn {
                Conn::Server(conn) => conn
                    .process_tls_records(&mut [])
                    .state
                    .and_then(|state| obey(state, out)),
                Conn::Client(conn) => conn
                    .process_tls_records(&mut [])
                    .state
                    .and_then(|state| obey(state, out)),
            };
            if step.is_err() {
                return;
            }
        }
    }

    fn into_records(self) -> Result<(Established, Records), TlsFailure> {
        let Self {
            conn,
            verifier,
            sni,
            ..
        } = self;
        let common = conn.common();
        let version = match common.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
            Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
            _ => return Err(TlsFailure::local("no version was agreed on")),
        };
        let refused = |error| TlsFailure::from_rustls(&error, &[]);
        let chain: &[CertificateDer<'_>] = common.peer_certificates().unwrap_or_default();
        let established = Established {
            peer: Some(verifier.accepted(chain).map_err(refused)?),
            alpn: common.alpn_protocol().map(<[u8]>::to_vec),
            sni,
            version,
        };
        let (extracted, secrets) = match conn {
            Conn::Server(conn) => {
                let (extracted, kernel) =
                    conn.dangerous_into_kernel_connection().map_err(refused)?;
                (extracted, Secrets::Server(Box::new(kernel)))
            }
            Conn::Client(conn) => {
                let (extracted, kernel) =
                    conn.dangerous_into_kernel_connection().map_err(refused)?;
                (extracted, Secrets::Client(Box::new(kernel)))
            }
        };
        let secrets = match (version, secrets) {
            (TlsVersion::Tls12, secrets) => Secrets::Tls12 {
                server: matches!(secrets, Secrets::Server(_)),
            },
            (TlsVersion::Tls13, secrets) => secrets,
        };
        Ok((established, Records::new(extracted, secrets)?))
    }
}

/// Does what rustls asks for.
fn obey<Data>(state: ConnectionState<'_, '_, Data>, out: &mut Buf) -> Result<Step, rustls::Error> {
    match state {
        ConnectionState::EncodeTlsData(mut data) => {
            let size = match data.encode(&mut []) {
                Err(EncodeError::InsufficientSize(needed)) => needed.required_size,
                Ok(_) | Err(EncodeError::AlreadyEncoded) => 0,
            };
            data.encode(out.grow(size))
                .map_err(|error| rustls::Error::General(error.to_string()))?;
            Ok(Step::Again)
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Step::Again)
        }
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => Ok(Step::Waits),
        _ => Err(rustls::Error::General(
            "the handshake left its path".to_owned(),
        )),
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Refused(_) => "refused",
            Stage::Handshake(_) => "handshake",
            Stage::Traffic(_) => "traffic",
            Stage::HalfClosed(_) => "half closed",
            Stage::Over => "over",
        };
        f.debug_struct("Session")
            .field("stage", &stage)
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}
