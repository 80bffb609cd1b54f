//! Why a session failed, in our words and in Envoy's.

use rustls::{AlertDescription, InvalidMessage, PeerIncompatible};

/// The end of a session. Nothing more can be sent or received by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TlsFailure {
    /// In the form of Envoy's transport failure reason: BoringSSL's number and name where there is one, then our own
    /// words: `TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:…:TLS_error_end` (S-59).
    pub reason: String,
    /// The fatal alert that waits in `out`, where there is one and its number can be told.
    pub alert: Option<u8>,
    pub kind: FailureKind,
}

/// Who is to blame for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The bytes are no TLS at all. A caller that must not answer plaintext (S-28) throws the alert away.
    NotTls,
    /// The peer broke the protocol.
    Protocol,
    /// The two ends have no version, suite or group in common.
    Incompatible,
    /// The peer's certificate was refused (S-31, S-58, S-97).
    PeerCertificate,
    /// The peer has to show a certificate, and did not (S-29).
    NoCertificate,
    /// The peer ended the session with this fatal alert.
    Alert(u8),
    /// We could not go on: keys used up, or nothing random to be had.
    Local,
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub(super) String);

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self(lower_clause(&error.to_string()))
    }
}

impl TlsFailure {
    /// A breach of the protocol that we answer with `alert`.
    pub(super) fn protocol(alert: AlertDescription, what: &str) -> Self {
        let code = match alert {
            AlertDescription::BadRecordMac => Some((130, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC")),
            AlertDescription::UnexpectedMessage => Some((244, "UNEXPECTED_MESSAGE")),
            _ => None,
        };
        Self {
            reason: reason(code, what),
            alert: Some(alert.into()),
            kind: FailureKind::Protocol,
        }
    }

    /// A breach of the protocol in a handshake that rustls does not see, so that nobody can seal an alert for it.
    pub(super) fn unanswered(what: &str) -> Self {
        Self {
            alert: None,
            ..Self::protocol(AlertDescription::UnexpectedMessage, what)
        }
    }

    /// The client knows no version of ours.
    pub(super) fn too_old() -> Self {
        Self {
            reason: reason(
                Some((240, "UNSUPPORTED_PROTOCOL")),
                "the peer offers no version from TLS 1.2 on",
            ),
            alert: Some(AlertDescription::ProtocolVersion.into()),
            kind: FailureKind::Incompatible,
        }
    }

    /// The client came back with an older version than both know (RFC 7507 §3).
    pub(super) fn fallback() -> Self {
        Self {
            reason: reason(
                Some((343, "INAPPROPRIATE_FALLBACK")),
                "the client fell back to a version older than both know",
            ),
            alert: Some(AlertDescription::InappropriateFallback.into()),
            kind: FailureKind::Protocol,
        }
    }

    pub(super) fn local(what: &str) -> Self {
        Self {
            reason: reason(None, what),
            alert: None,
            kind: FailureKind::Local,
        }
    }

    pub(super) fn received(alert: u8) -> Self {
        Self {
            reason: reason(
                Some((1000 + u32::from(alert), &alert_name(alert))),
                "the peer sent a fatal alert",
            ),
            alert: None,
            kind: FailureKind::Alert(alert),
        }
    }

    /// `sent` is what rustls sent on its way out.
    pub(super) fn from_rustls(error: &rustls::Error, sent: &[u8]) -> Self {
        use rustls::Error as E;
        let (code, kind) = match error {
            E::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => (Some((247, "WRONG_VERSION_NUMBER")), FailureKind::NotTls),
            E::InvalidCertificate(_) => (
                Some((125, "CERTIFICATE_VERIFY_FAILED")),
                FailureKind::PeerCertificate,
            ),
            E::NoCertificatesPresented => (
                Some((192, "PEER_DID_NOT_RETURN_A_CERTIFICATE")),
                FailureKind::NoCertificate,
            ),
            E::AlertReceived(alert) => return Self::received(u8::from(*alert)),
            E::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
                (Some((184, "NO_SHARED_CIPHER")), FailureKind::Incompatible)
            }
            E::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired,
            ) => (
                Some((240, "UNSUPPORTED_PROTOCOL")),
                FailureKind::Incompatible,
            ),
            E::PeerIncompatible(_) | E::NoApplicationProtocol => (None, FailureKind::Incompatible),
            E::DecryptError => (
                Some((130, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC")),
                FailureKind::Protocol,
            ),
            E::InappropriateMessage { .. } | E::InappropriateHandshakeMessage { .. } => {
                (Some((244, "UNEXPECTED_MESSAGE")), FailureKind::Protocol)
            }
            E::FailedToGetRandomBytes | E::FailedToGetCurrentTime | E::EncryptError => {
                (None, FailureKind::Local)
            }
            _ => (None, FailureKind::Protocol),
        };
        let words = match error {
            E::InvalidCertificate(rustls::CertificateError::Other(own)) => own.to_string(),
            E::InvalidCertificate(rustls::CertificateError::Expired) => {
                "the certificate has expired".to_owned()
            }
            E::InvalidCertificate(rustls::CertificateError::NotValidYet) => {
                "the certificate is not valid yet".to_owned()
            }
            E::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
                "unable to get local issuer certificate".to_owned()
            }
            other => lower_clause(&other.to_string()),
        };
        Self {
            reason: reason(code, &words),
            alert: alert_in(sent, error),
            kind,
        }
    }
}

/// The number of the alert at the end of `sent`: read where it is not sealed, else known by what it answers.
fn alert_in(sent: &[u8], error: &rustls::Error) -> Option<u8> {
    use rustls::Error as E;
    if sent.is_empty() {
        return None;
    }
    if let [.., 21, 3, _, 0, 2, 2, alert] = sent {
        return Some(*alert);
    }
    let alert = match error {
        E::InvalidCertificate(why) => why.clone().into(),
        E::InvalidMessage(why) => (*why).into(),
        E::NoCertificatesPresented => AlertDescription::CertificateRequired,
        E::DecryptError => AlertDescription::BadRecordMac,
        E::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        E::InappropriateMessage { .. } | E::InappropriateHandshakeMessage { .. } => {
            AlertDescription::UnexpectedMessage
        }
        _ => return None,
    };
    Some(alert.into())
}

/// BoringSSL packs its library (16, SSL) above 24 bits of reason.
const BORINGSSL: u32 = 16 << 24;

fn reason(code: Option<(u32, &str)>, words: &str) -> String {
    match code {
        Some((number, name)) => format!(
            "TLS_error:|{}:SSL routines:OPENSSL_internal:{name}:{words}:TLS_error_end",
            BORINGSSL + number
        ),
        None => format!("TLS_error:|{words}:TLS_error_end"),
    }
}

/// The name under which BoringSSL reports an alert (`ssl/ssl_lib.cc`, `SSL_R_*_ALERT_*`).
fn alert_name(alert: u8) -> String {
    let name = match alert {
        10 => "TLSV1_ALERT_UNEXPECTED_MESSAGE",
        20 => "SSLV3_ALERT_BAD_RECORD_MAC",
        22 => "TLSV1_ALERT_RECORD_OVERFLOW",
        40 => "SSLV3_ALERT_HANDSHAKE_FAILURE",
        42 => "SSLV3_ALERT_BAD_CERTIFICATE",
        43 => "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        44 => "SSLV3_ALERT_CERTIFICATE_REVOKED",
        45 => "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        46 => "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        47 => "SSLV3_ALERT_ILLEGAL_PARAMETER",
        48 => "TLSV1_ALERT_UNKNOWN_CA",
        49 => "TLSV1_ALERT_ACCESS_DENIED",
        50 => "TLSV1_ALERT_DECODE_ERROR",
        51 => "TLSV1_ALERT_DECRYPT_ERROR",
        70 => "TLSV1_ALERT_PROTOCOL_VERSION",
        71 => "TLSV1_ALERT_INSUFFICIENT_SECURITY",
        80 => "TLSV1_ALERT_INTERNAL_ERROR",
        112 => "TLSV1_ALERT_UNRECOGNIZED_NAME",
        116 => "TLSV1_ALERT_CERTIFICATE_REQUIRED",
        120 => "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
        other => return format!("TLSV1_ALERT_{other}"),
    };
    name.to_owned()
}

/// rustls' sentences as clauses of ours: they begin in lower case already, apart from names.
fn lower_clause(text: &str) -> String {
    text.trim_end_matches('.').to_owned()
}
