//! The records of an established session: opened in place, sealed straight into the output, without an allocation.
//!
//! Takes over from rustls when the handshake is through, with its traffic secrets and sequence numbers, and does what is
//! left of the protocol: alerts, KeyUpdate, refused renegotiation (RFC 8446 §4.6, §5, §6; RFC 5246 §6.2, §7.2). Knows no
//! certificates.

use std::fmt;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{AlertDescription as Alert, ConnectionTrafficSecrets, ExtractedSecrets};

use super::TlsVersion;
use super::failure::TlsFailure;
use crate::limits;
use crate::link::Buf;

pub(super) const HEADER: usize = 5;
const TAG: usize = 16;
/// Plaintext of one record.
const FRAGMENT_MAX: usize = 1 << 14;
/// The part of a TLS 1.2 nonce that travels in each record (RFC 5288 §3).
const EXPLICIT: usize = 8;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
pub(super) const DATA: u8 = 23;

/// The handshake messages that may come after the handshake.
#[derive(Clone, Copy)]
enum Message {
    KeyUpdate,
    Ticket,
    /// HelloRequest or ClientHello of TLS 1.2.
    Renegotiation,
}

/// What opening a record brought.
pub(super) enum Opened<'a> {
    /// Data of the application; may be empty.
    Plain(&'a [u8]),
    /// Something that concerns the protocol alone, and is dealt with.
    Nothing,
    /// close_notify
    Finished,
}

/// Both directions of one established session.
pub(super) struct Records {
    tx: Direction,
    rx: Direction,
    secrets: Secrets,
    /// A handshake message of the peer that waits for its rest.
    partial: Vec<u8>,
    empties: u8,
    warnings: u8,
    messages: u8,
    /// The peer has asked for new keys of ours; they come with our next data (RFC 8446 §4.6.3).
    update_due: bool,
    /// A renegotiation has been refused.
    renegotiated: bool,
    finished: bool,
}

struct Direction {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    seq: u64,
}

/// Where the keys after the next KeyUpdate come from, and which side we are.
pub(super) enum Secrets {
    Tls12 { server: bool },
    Server(Box<KernelConnection<ServerConnectionData>>),
    Client(Box<KernelConnection<ClientConnectionData>>),
}

impl Secrets {
    fn version(&self) -> TlsVersion {
        match self {
            Self::Tls12 { .. } => TlsVersion::Tls12,
            Self::Server(_) | Self::Client(_) => TlsVersion::Tls13,
        }
    }

    fn next(&mut self, ours: bool) -> Result<Direction, TlsFailure> {
        let next = match (self, ours) {
            (Self::Tls12 { .. }, _) => {
                return Err(TlsFailure::local(
                    "the keys of a TLS 1.2 session are used up",
                ));
            }
            (Self::Server(kernel), true) => kernel.update_tx_secret(),
            (Self::Server(kernel), false) => kernel.update_rx_secret(),
            (Self::Client(kernel), true) => kernel.update_tx_secret(),
            (Self::Client(kernel), false) => kernel.update_rx_secret(),
        };
        next.map_err(|_| TlsFailure::local("no new traffic secret could be made"))
            .and_then(Direction::new)
    }
}

impl Direction {
    fn new((seq, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, TlsFailure> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(TlsFailure::local("the suite has no cipher of ours")),
        };
        let unfit = |_| TlsFailure::local("the traffic secret does not fit its cipher");
        let iv = iv.as_ref().try_into().map_err(|_| unfit(()))?;
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| unfit(()))?;
        Ok(Self {
            key: LessSafeKey::new(key),
            iv,
            seq,
        })
    }

    /// RFC 8446 §5.3. TLS 1.2 sends the last eight bytes along; unique there too, which is all that RFC 5288 §3 asks.
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (n, s) in nonce.iter_mut().skip(4).zip(self.seq.to_be_bytes()) {
            *n ^= s;
        }
        nonce
    }
}

fn too_long() -> TlsFailure {
    TlsFailure::protocol(Alert::RecordOverflow, "a record is too long")
}

/// RFC 5246 §6.2.3.3
fn tls12_aad(seq: u64, header: [u8; HEADER], length: usize) -> Aad<[u8; 13]> {
    let [s0, s1, s2, s3, s4, s5, s6, s7] = seq.to_be_bytes();
    let [typ, major, minor, ..] = header;
    let [high, low] = (length as u16).to_be_bytes();
    Aad::from([s0, s1, s2, s3, s4, s5, s6, s7, typ, major, minor, high, low])
}

impl Records {
    pub(super) fn new(extracted: ExtractedSecrets, secrets: Secrets) -> Result<Self, TlsFailure> {
        let (_, ours) = &extracted.tx;
        // Its records carry no nonce in TLS 1.2 (RFC 7905 §2); ours would carry a part of the IV.
        if secrets.version() == TlsVersion::Tls12
            && matches!(ours, ConnectionTrafficSecrets::Chacha20Poly1305 { .. })
        {
            return Err(TlsFailure::local("the suite has no cipher of ours"));
        }
        Ok(Self {
            tx: Direction::new(extracted.tx)?,
            rx: Direction::new(extracted.rx)?,
            secrets,
            partial: Vec::new(),
            empties: 0,
            warnings: 0,
            messages: 0,
            update_due: false,
            renegotiated: false,
            finished: false,
        })
    }

    /// Bytes of the whole record that begins with `header`. Fails as soon as the header cannot be one of this session.
    pub(super) fn record_len(&self, header: [u8; HEADER]) -> Result<usize, TlsFailure> {
        let [typ, major, _, high, low] = header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (known, overhead, least) = match self.secrets.version() {
            TlsVersion::Tls13 => (typ == DATA, 256, 1 + TAG),
            TlsVersion::Tls12 => (
                matches!(typ, ALERT | HANDSHAKE | DATA),
                2048,
                EXPLICIT + TAG,
            ),
        };
        if !known || major != 3 {
            return Err(TlsFailure::protocol(
                Alert::UnexpectedMessage,
                "a record of a type that has no place after the handshake",
            ));
        }
        if length > FRAGMENT_MAX + overhead {
            return Err(too_long());
        }
        if length < least {
            return Err(TlsFailure::protocol(
                Alert::BadRecordMac,
                "a record is too short to be sealed",
            ));
        }
        Ok(HEADER + length)
    }

    /// Opens one whole record, whose length [`record_len`](Self::record_len) has judged.
    pub(super) fn open<'a>(
        &mut self,
        record: &'a mut [u8],
        out: &mut Buf,
    ) -> Result<Opened<'a>, TlsFailure> {
        let (typ, plain) = self.decrypt(record)?;
        if plain.len() > FRAGMENT_MAX {
            return Err(too_long());
        }
        if typ != HANDSHAKE && !self.partial.is_empty() {
            return Err(TlsFailure::protocol(
                Alert::UnexpectedMessage,
                "another record inside a handshake message",
            ));
        }
        match typ {
            DATA => self.data(plain),
            ALERT => self.alert(plain),
            HANDSHAKE => self.handshake(plain, out).map(|()| Opened::Nothing),
            _ => Err(TlsFailure::protocol(
                Alert::UnexpectedMessage,
                "a record of a type that has no place after the handshake",
            )),
        }
    }

    /// The type and the plaintext of a record.
    fn decrypt<'a>(&mut self, record: &'a mut [u8]) -> Result<(u8, &'a mut [u8]), TlsFailure> {
        let broken = || TlsFailure::protocol(Alert::BadRecordMac, "a record could not be opened");
        let rx = &mut self.rx;
        let (header, body) = record.split_at_mut_checked(HEADER).ok_or_else(broken)?;
        let header: [u8; HEADER] = (&*header).try_into().map_err(|_| broken())?;
        let mut nonce = rx.nonce();
        if self.secrets.version() == TlsVersion::Tls12 {
            let (explicit, sealed) = body.split_at_mut_checked(EXPLICIT).ok_or_else(broken)?;
            nonce[4..].copy_from_slice(explicit);
            let length = sealed.len().checked_sub(TAG).ok_or_else(broken)?;
            let aad = tls12_aad(rx.seq, header, length);
            let plain = rx
                .key
                .open_in_place(Nonce::assume_unique_for_key(nonce), aad, sealed)
                .map_err(|_| broken())?;
            rx.seq += 1;
            return Ok((header[0], plain));
        }
        let plain = rx
            .key
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(header), body)
            .map_err(|_| broken())?;
        rx.seq += 1;
        // RFC 8446 §5.4: padding counts, and the type is the last byte that is none.
        if plain.len() > FRAGMENT_MAX + 1 {
            return Err(too_long());
        }
        let end = plain.iter().rposition(|b| *b != 0).ok_or_else(|| {
            TlsFailure::protocol(Alert::UnexpectedMessage, "a record without a type")
        })?;
        let (plain, typ) = plain.split_at_mut(end);
        Ok((typ.first().copied().unwrap_or_default(), plain))
    }

    fn data<'a>(&mut self, plain: &'a [u8]) -> Result<Opened<'a>, TlsFailure> {
        if plain.is_empty() {
            self.empties += 1;
            if self.empties > limits::EMPTY_RECORDS_MAX {
                return Err(TlsFailure::protocol(
                    Alert::UnexpectedMessage,
                    "too many empty records",
                ));
            }
        } else {
            self.empties = 0;
            self.messages = 0;
        }
        Ok(Opened::Plain(plain))
    }

    fn alert(&mut self, body: &[u8]) -> Result<Opened<'static>, TlsFailure> {
        const WARNING: u8 = 1;
        let &[level, alert] = body else {
            return Err(TlsFailure::protocol(
                Alert::DecodeError,
                "an alert that is not two bytes long",
            ));
        };
        // TLS 1.3 ignores levels: apart from these two every alert is fatal (RFC 8446 §6).
        let fatal = match self.secrets.version() {
            TlsVersion::Tls13 => alert != u8::from(Alert::UserCanceled),
            TlsVersion::Tls12 => level != WARNING,
        };
        if alert == u8::from(Alert::CloseNotify) {
            return Ok(Opened::Finished);
        }
        if fatal {
            return Err(TlsFailure::received(alert));
        }
        self.warnings += 1;
        if self.warnings > limits::WARNINGS_MAX {
            return Err(TlsFailure::protocol(
                Alert::UnexpectedMessage,
                "too many warning alerts",
            ));
        }
        Ok(Opened::Nothing)
    }

    /// Takes a fragment, and every message that is whole with it.
    fn handshake(&mut self, fragment: &[u8], out: &mut Buf) -> Result<(), TlsFailure> {
        if fragment.is_empty() {
            return Err(TlsFailure::protocol(
                Alert::UnexpectedMessage,
                "an empty handshake record (RFC 8446 §5.1)",
            ));
        }
        let mut joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(fragment);
        let mut rest = joined.as_slice();
        while let [typ, a, b, c, after @ ..] = rest {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            let message = self.expect(*typ, length)?;
            let Some((body, next)) = after.split_at_checked(length) else {
                break;
            };
            self.message(message, body, next.is_empty(), out)?;
            rest = next;
        }
        // A message in many small records is not copied with each of them.
        self.partial = if rest.len() == joined.len() {
            joined
        } else {
            rest.to_vec()
        };
        Ok(())
    }

    /// What a message is, by its header: none is waited for that has no place here.
    fn expect(&self, typ: u8, length: usize) -> Result<Message, TlsFailure> {
        const HELLO_REQUEST: u8 = 0;
        const CLIENT_HELLO: u8 = 1;
        const NEW_SESSION_TICKET: u8 = 4;
        const KEY_UPDATE: u8 = 24;
        let (message, least, most) = match (&self.secrets, typ) {
            (Secrets::Server(_) | Secrets::Client(_), KEY_UPDATE) => (Message::KeyUpdate, 1, 1),
            (Secrets::Client(_), NEW_SESSION_TICKET) => (Message::Ticket, 0, limits::HANDSHAKE_MAX),
            (Secrets::Tls12 { server: true }, CLIENT_HELLO) => {
                (Message::Renegotiation, 0, limits::CLIENT_HELLO_MAX)
            }
            (Secrets::Tls12 { server: false }, HELLO_REQUEST) => (Message::Renegotiation, 0, 0),
            _ => {
                return Err(TlsFailure::protocol(
                    Alert::UnexpectedMessage,
                    "a handshake message that has no place after the handshake",
                ));
            }
        };
        if (least..=most).contains(&length) {
            Ok(message)
        } else {
            Err(TlsFailure::protocol(
                Alert::DecodeError,
                "a handshake message of a wrong length",
            ))
        }
    }

    fn message(
        &mut self,
        message: Message,
        body: &[u8],
        ends_record: bool,
        out: &mut Buf,
    ) -> Result<(), TlsFailure> {
        self.messages += 1;
        if self.messages > limits::POST_HANDSHAKE_MAX {
            return Err(TlsFailure::protocol(
                Alert::UnexpectedMessage,
                "too many handshake messages without data",
            ));
        }
        match message {
            Message::KeyUpdate => self.key_update(body, ends_record),
            // Nothing is resumed, so nobody needs a ticket.
            Message::Ticket => Ok(()),
            Message::Renegotiation => self.refuse_renegotiation(out),
        }
    }

    /// RFC 8446 §4.6.3
    fn key_update(&mut self, body: &[u8], ends_record: bool) -> Result<(), TlsFailure> {
        if !ends_record {
            return Err(TlsFailure::protocol(
                Alert::UnexpectedMessage,
                "handshake bytes under keys that have been replaced",
            ));
        }
        match body {
            [0] => {}
            [1] => self.update_due = true,
            _ => {
                return Err(TlsFailure::protocol(
                    Alert::IllegalParameter,
                    "a KeyUpdate that asks for neither",
                ));
            }
        }
        self.rx = self.secrets.next(false)?;
        Ok(())
    }

    /// TLS 1.2: the first attempt gets a warning (RFC 5246 §7.2.2, no_renegotiation), the second is the last.
    fn refuse_renegotiation(&mut self, out: &mut Buf) -> Result<(), TlsFailure> {
        if std::mem::replace(&mut self.renegotiated, true) {
            return Err(TlsFailure::protocol(
                Alert::UnexpectedMessage,
                "renegotiation was asked for again",
            ));
        }
        if self.finished {
            return Ok(());
        }
        self.seal(ALERT, &[1, Alert::NoRenegotiation.into()], out)
    }

    /// Seals application data; nothing is sent for nothing.
    pub(super) fn send(&mut self, plaintext: &[u8], out: &mut Buf) -> Result<(), TlsFailure> {
        if self.finished {
            return Err(TlsFailure::local("our direction is finished already"));
        }
        let records = plaintext.len().div_ceil(FRAGMENT_MAX);
        out.storage()
            .reserve(plaintext.len() + records * (HEADER + EXPLICIT + TAG));
        for fragment in plaintext.chunks(FRAGMENT_MAX) {
            if self.update_due || self.tx.seq >= limits::RECORDS_PER_KEY - 1 {
                self.update_keys(out)?;
            }
            self.seal(DATA, fragment, out)?;
        }
        Ok(())
    }

    /// Announces new keys of ours and takes them (RFC 8446 §4.6.3, §5.5).
    fn update_keys(&mut self, out: &mut Buf) -> Result<(), TlsFailure> {
        const UPDATE_NOT_REQUESTED: [u8; 5] = [24, 0, 0, 1, 0];
        let next = self.secrets.next(true)?;
        self.seal(HANDSHAKE, &UPDATE_NOT_REQUESTED, out)?;
        self.tx = next;
        self.update_due = false;
        Ok(())
    }

    /// close_notify, once.
    pub(super) fn finish(&mut self, out: &mut Buf) -> Result<(), TlsFailure> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        self.seal(ALERT, &[1, Alert::CloseNotify.into()], out)
    }

    /// Whether the alert is on its way; nothing follows a close_notify (RFC 8446 §6.1).
    pub(super) fn fatal_alert(&mut self, alert: u8, out: &mut Buf) -> bool {
        let open = !std::mem::replace(&mut self.finished, true);
        open && self.seal(ALERT, &[2, alert], out).is_ok()
    }

    /// Appends one record.
    pub(super) fn seal(&mut self, typ: u8, plain: &[u8], out: &mut Buf) -> Result<(), TlsFailure> {
        let tx = &mut self.tx;
        let nonce = tx.nonce();
        let storage = out.storage();
        let before = storage.len();
        let tag = match self.secrets.version() {
            TlsVersion::Tls13 => {
                let [high, low] = ((plain.len() + 1 + TAG) as u16).to_be_bytes();
                let header = [DATA, 3, 3, high, low];
                storage.extend_from_slice(&header);
                let start = storage.len();
                storage.extend_from_slice(plain);
                storage.extend_from_slice(&[typ]);
                let (_, body) = storage.split_at_mut(start);
                tx.key.seal_in_place_separate_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(header),
                    body,
                )
            }
            TlsVersion::Tls12 => {
                let [high, low] = ((EXPLICIT + plain.len() + TAG) as u16).to_be_bytes();
                let header = [typ, 3, 3, high, low];
                storage.extend_from_slice(&header);
                storage.extend_from_slice(&nonce[NONCE_LEN - EXPLICIT..]);
                let start = storage.len();
                storage.extend_from_slice(plain);
                let (_, body) = storage.split_at_mut(start);
                tx.key.seal_in_place_separate_tag(
                    Nonce::assume_unique_for_key(nonce),
                    tls12_aad(tx.seq, header, plain.len()),
                    body,
                )
            }
        };
        let Ok(tag) = tag else {
            // Plaintext must not stay where sealed bytes are sent from.
            storage.truncate(before);
            return Err(TlsFailure::local("a record could not be sealed"));
        };
        storage.extend_from_slice(tag.as_ref());
        tx.seq += 1;
        Ok(())
    }

    /// Moves the sequence numbers of both directions, as so many records would have.
    #[cfg(test)]
    pub(super) fn skip_records(&mut self, tx: u64, rx: u64) {
        self.tx.seq += tx;
        self.rx.seq += rx;
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("version", &self.secrets.version())
            .field("sent", &self.tx.seq)
            .field("received", &self.rx.seq)
            .finish_non_exhaustive()
    }
}
