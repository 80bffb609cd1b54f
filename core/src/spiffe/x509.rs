//! The facts of one certificate and the rules of X509-SVID for it (S-81 to S-84).
//!
//! Looks at one certificate alone: signatures, validity and the way to a root are `verify`'s.

use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::nom::Parser as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::X509Version;

use super::id::{SpiffeId, SpiffeIdError};
use super::subject;
use crate::clock::UnixTime;

/// Bits of the modulus of a leaf's RSA key (NIST SP 800-131A; the least with which a handshake signature is taken).
const RSA_BITS_MIN: usize = 2048;

// Content bytes of object identifiers (RFC 5280, 5480, 8017, 8410).
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 17];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const EXT_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
const EC_PUBLIC_KEY: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
const P256: &[u8] = b"\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x2b\x81\x04\x00\x22";
const P521: &[u8] = b"\x2b\x81\x04\x00\x23";
const ED25519: &[u8] = b"\x2b\x65\x70";
const RSA_ENCRYPTION: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";

/// Why a certificate is no X509-SVID, or none that may sign one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    #[error("no certificate was given")]
    Missing,
    #[error("the certificate is not well-formed DER of X.509 version 3")]
    Malformed,
    #[error("the {0} extension is malformed")]
    Extension(&'static str),
    #[error("the {0} extension appears twice")]
    TwiceExtension(&'static str),
    #[error("the certificate has no URI SAN")]
    NoUri,
    #[error("the certificate has more than one URI SAN")]
    ManyUris,
    #[error("a SAN holds a NUL or a byte outside ASCII")]
    SanText,
    #[error("the URI SAN is not a SPIFFE ID: {0}")]
    SpiffeId(#[from] SpiffeIdError),
    #[error("the SPIFFE ID is not in lower case where it must be")]
    NotCanonical,
    #[error("the SPIFFE ID of a leaf has no path")]
    NoPath,
    #[error("the SPIFFE ID of a signing certificate has a path")]
    SigningPath,
    #[error("the SAN extension is not critical although the subject is empty")]
    SanNotCritical,
    #[error("a certificate authority's certificate is used as a leaf")]
    CaAsLeaf,
    #[error("the certificate is not one of a certificate authority")]
    NotCa,
    #[error("the certificate has no keyUsage")]
    NoKeyUsage,
    #[error("keyUsage is not critical")]
    KeyUsageNotCritical,
    #[error("keyUsage lacks digitalSignature")]
    NoDigitalSignature,
    #[error("keyUsage of a leaf has keyCertSign or cRLSign")]
    LeafSigns,
    #[error("keyUsage of a signing certificate lacks keyCertSign")]
    NoKeyCertSign,
    #[error("extKeyUsage lacks serverAuth or clientAuth")]
    ExtKeyUsage,
    #[error("the key is none of P-256, P-384, P-521, Ed25519 and RSA of at least 2048 bits")]
    Key,
}

/// What is kept of a leaf certificate that fulfils X509-SVID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its only URI SAN; has a path.
    pub id: SpiffeId,
    /// RFC 2253 as Envoy prints it; often empty.
    pub subject: String,
    /// The DNS SANs in their order; ASCII, otherwise unchecked.
    pub dns: Vec<String>,
    /// First moment of validity; 1970 if it lies before.
    pub not_before: UnixTime,
    /// Last second of validity, inclusive (RFC 5280 §4.1.2.5).
    pub not_after: UnixTime,
}

/// What there is to show of any certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// In lower-case hexadecimal digits, without leading zeros.
    pub serial: String,
    pub not_before: UnixTime,
    /// Inclusive.
    pub not_after: UnixTime,
}

impl CertificateFacts {
    /// `None`: it is no certificate.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509CertificateParser::new().parse(der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            serial: certificate.tbs_certificate.serial.to_str_radix(16),
            not_before: wall(validity.not_before.timestamp()),
            not_after: wall(validity.not_after.timestamp()),
        })
    }
}

impl Leaf {
    /// Reads a leaf and holds it to S-81, S-83 and S-84.
    ///
    /// The SPIFFE ID must stand in canonical form: other verifiers compare SANs byte by byte (S-31, S-58), and one
    /// certificate must not be two identities. Keys that cannot sign a handshake here are refused. `not_before` and
    /// `not_after` are read, not compared to any clock; signatures are not looked at.
    pub fn parse(der: &[u8]) -> Result<Self, SvidError> {
        let cert = Certificate::read(der)?;
        let subject = &cert.tbs.subject;
        if cert.is_ca()? {
            return Err(SvidError::CaAsLeaf);
        }
        let usage = cert.key_usage()?;
        if usage.key_cert_sign() || usage.crl_sign() {
            return Err(SvidError::LeafSigns);
        }
        if !usage.digital_signature() {
            return Err(SvidError::NoDigitalSignature);
        }
        cert.check_ext_key_usage()?;

        let sans = cert.subject_alt_name.ok_or(SvidError::NoUri)?;
        if !sans.critical && subject.iter().next().is_none() {
            return Err(SvidError::SanNotCritical);
        }
        let mut uri = None;
        let mut dns = Vec::new();
        for name in sans.names() {
            match name? {
                San::Uri(text) if uri.replace(text).is_some() => return Err(SvidError::ManyUris),
                San::Dns(text) => dns.push(text.to_owned()),
                San::Uri(_) | San::Other => {}
            }
        }
        let uri = uri.ok_or(SvidError::NoUri)?;
        let id = SpiffeId::parse(uri)?;
        if id.as_str() != uri {
            return Err(SvidError::NotCanonical);
        }
        if id.path().is_empty() {
            return Err(SvidError::NoPath);
        }
        cert.key_kind()?;

        let validity = &cert.tbs.validity;
        Ok(Self {
            id,
            subject: subject::print(subject),
            dns,
            not_before: wall(validity.not_before.timestamp()),
            not_after: wall(validity.not_after.timestamp()),
        })
    }
}

/// Holds a certificate that signs others to S-82: `cA`, critical keyUsage with keyCertSign, no path in a SPIFFE ID.
///
/// For the intermediates that a peer sends. Path length and name constraints are the chain verifier's.
pub fn check_signing_certificate(der: &[u8]) -> Result<(), SvidError> {
    let cert = Certificate::read(der)?;
    if !cert.is_ca()? {
        return Err(SvidError::NotCa);
    }
    if !cert.key_usage()?.key_cert_sign() {
        return Err(SvidError::NoKeyCertSign);
    }
    cert.check_signing_id()
}

/// Holds a root of our own configuration to what must be true of any signer: `cA`, keyCertSign where keyUsage is
/// present, no path in a SPIFFE ID.
///
/// More lenient than S-82, since everyday roots (`openssl req -x509`) carry no keyUsage. Without this a workload's
/// certificate that ended up in the trust bundle would make that workload an authority.
pub(super) fn check_root(der: &[u8]) -> Result<(), SvidError> {
    let cert = Certificate::read(der)?;
    if !cert.is_ca()? {
        return Err(SvidError::NotCa);
    }
    if let Some(usage) = &cert.key_usage
        && !read_key_usage(usage.value)?.key_cert_sign()
    {
        return Err(SvidError::NoKeyCertSign);
    }
    cert.check_signing_id()
}

/// The kinds of keys with which a handshake may be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    P256,
    P384,
    P521,
    Ed25519,
    Rsa,
}

/// The key of a certificate: its kind and its bit string (an EC point, an Ed25519 key or a DER RSAPublicKey).
pub(super) fn subject_key(der: &[u8]) -> Result<(KeyKind, Vec<u8>), SvidError> {
    let cert = Certificate::read(der)?;
    let bits = cert.tbs.subject_pki.subject_public_key.data.to_vec();
    Ok((cert.key_kind()?, bits))
}

/// A certificate with the extensions that matter here picked out, each at most once.
struct Certificate<'a> {
    tbs: x509_parser::certificate::TbsCertificate<'a>,
    basic_constraints: Option<Extension<'a>>,
    key_usage: Option<Extension<'a>>,
    ext_key_usage: Option<Extension<'a>>,
    subject_alt_name: Option<Extension<'a>>,
}

#[derive(Clone, Copy)]
struct Extension<'a> {
    critical: bool,
    value: &'a [u8],
}

impl<'a> Certificate<'a> {
    fn read(der: &'a [u8]) -> Result<Self, SvidError> {
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let (rest, cert): (_, X509Certificate<'a>) =
            parser.parse(der).map_err(|_| SvidError::Malformed)?;
        if !rest.is_empty() || cert.version() != X509Version::V3 {
            return Err(SvidError::Malformed);
        }
        let mut read = Self {
            tbs: cert.tbs_certificate,
            basic_constraints: None,
            key_usage: None,
            ext_key_usage: None,
            subject_alt_name: None,
        };
        for extension in read.tbs.extensions() {
            let (slot, name) = match extension.oid.as_bytes() {
                BASIC_CONSTRAINTS => (&mut read.basic_constraints, "basicConstraints"),
                KEY_USAGE => (&mut read.key_usage, "keyUsage"),
                EXT_KEY_USAGE => (&mut read.ext_key_usage, "extKeyUsage"),
                SUBJECT_ALT_NAME => (&mut read.subject_alt_name, "subjectAltName"),
                _ => continue,
            };
            let value = Extension {
                critical: extension.critical,
                value: extension.value,
            };
            if slot.replace(value).is_some() {
                return Err(SvidError::TwiceExtension(name));
            }
        }
        Ok(read)
    }

    fn is_ca(&self) -> Result<bool, SvidError> {
        let Some(extension) = &self.basic_constraints else {
            return Ok(false);
        };
        read_is_ca(extension.value).ok_or(SvidError::Extension("basicConstraints"))
    }

    fn key_usage(&self) -> Result<KeyUsage, SvidError> {
        let extension = self.key_usage.ok_or(SvidError::NoKeyUsage)?;
        if !extension.critical {
            return Err(SvidError::KeyUsageNotCritical);
        }
        read_key_usage(extension.value)
    }

    fn check_ext_key_usage(&self) -> Result<(), SvidError> {
        let Some(extension) = &self.ext_key_usage else {
            return Ok(());
        };
        let malformed = SvidError::Extension("extKeyUsage");
        let mut rest = whole(der::SEQUENCE, extension.value).ok_or(malformed)?;
        let (mut server, mut client) = (false, false);
        while !rest.is_empty() {
            let (tag, purpose, after) = element(rest).ok_or(malformed)?;
            if tag != der::OID {
                return Err(malformed);
            }
            server |= purpose == SERVER_AUTH;
            client |= purpose == CLIENT_AUTH;
            rest = after;
        }
        if server && client {
            Ok(())
        } else {
            Err(SvidError::ExtKeyUsage)
        }
    }

    /// URIs of other schemes are left alone here: a signer need not have an ID.
    fn check_signing_id(&self) -> Result<(), SvidError> {
        let Some(sans) = self.subject_alt_name else {
            return Ok(());
        };
        let mut seen = false;
        for name in sans.names() {
            let San::Uri(uri) = name? else { continue };
            let scheme = uri.split(':').next().unwrap_or_default();
            if !scheme.eq_ignore_ascii_case("spiffe") {
                continue;
            }
            if std::mem::replace(&mut seen, true) {
                return Err(SvidError::ManyUris);
            }
            if !SpiffeId::parse(uri)?.path().is_empty() {
                return Err(SvidError::SigningPath);
            }
        }
        Ok(())
    }

    fn key_kind(&self) -> Result<KeyKind, SvidError> {
        let spki = &self.tbs.subject_pki;
        let curve = spki.algorithm.parameters.as_ref();
        let curve = curve.filter(|any| any.tag() == Tag::Oid);
        match (
            spki.algorithm.algorithm.as_bytes(),
            curve.map(|any| any.data),
        ) {
            (EC_PUBLIC_KEY, Some(P256)) => Ok(KeyKind::P256),
            (EC_PUBLIC_KEY, Some(P384)) => Ok(KeyKind::P384),
            (EC_PUBLIC_KEY, Some(P521)) => Ok(KeyKind::P521),
            (ED25519, None) => Ok(KeyKind::Ed25519),
            (RSA_ENCRYPTION, None) => match spki.parsed() {
                Ok(PublicKey::RSA(key)) if key.key_size() >= RSA_BITS_MIN => Ok(KeyKind::Rsa),
                _ => Err(SvidError::Key),
            },
            _ => Err(SvidError::Key),
        }
    }
}

/// One general name of RFC 5280 §4.2.1.6.
enum San<'a> {
    Uri(&'a str),
    Dns(&'a str),
    Other,
}

impl<'a> Extension<'a> {
    fn names(self) -> impl Iterator<Item = Result<San<'a>, SvidError>> {
        let malformed = SvidError::Extension("subjectAltName");
        let mut rest = whole(der::SEQUENCE, self.value).ok_or(malformed);
        std::iter::from_fn(move || match rest {
            Ok([]) => None,
            Ok(bytes) => Some(match element(bytes) {
                Some((tag, content, after)) => {
                    rest = Ok(after);
                    read_name(tag, content)
                }
                None => {
                    rest = Ok(&[]);
                    Err(malformed)
                }
            }),
            Err(error) => {
                rest = Ok(&[]);
                Some(Err(error))
            }
        })
    }
}

/// rfc822Name, dNSName and URI are IA5String: ASCII, and a NUL has no business in any of them (S-84).
fn read_name(tag: u8, content: &[u8]) -> Result<San<'_>, SvidError> {
    match tag {
        0x81 | 0x82 | 0x86 => {}
        // otherName, x400Address, directoryName, ediPartyName, iPAddress, registeredID
        0xa0 | 0xa3 | 0xa4 | 0xa5 | 0x87 | 0x88 => return Ok(San::Other),
        _ => return Err(SvidError::Extension("subjectAltName")),
    }
    let text = std::str::from_utf8(content).map_err(|_| SvidError::SanText)?;
    if !text.is_ascii() || text.contains('\0') {
        return Err(SvidError::SanText);
    }
    Ok(match tag {
        0x86 => San::Uri(text),
        0x82 => San::Dns(text),
        _ => San::Other,
    })
}

/// The bits of RFC 5280 §4.2.1.3, the first one highest.
#[derive(Clone, Copy)]
struct KeyUsage(u8);

impl KeyUsage {
    fn digital_signature(self) -> bool {
        self.0 & 0x80 != 0
    }

    fn key_cert_sign(self) -> bool {
        self.0 & 0x04 != 0
    }

    fn crl_sign(self) -> bool {
        self.0 & 0x02 != 0
    }
}

fn read_key_usage(value: &[u8]) -> Result<KeyUsage, SvidError> {
    let malformed = SvidError::Extension("keyUsage");
    let Some([unused, bits @ ..]) = whole(der::BIT_STRING, value) else {
        return Err(malformed);
    };
    let padding = 1_u8.checked_shl((*unused).into()).ok_or(malformed)? - 1;
    let last = bits.last().ok_or(malformed)?;
    if last & padding != 0 {
        return Err(malformed);
    }
    Ok(KeyUsage(bits.first().copied().unwrap_or_default()))
}

/// `cA` of RFC 5280 §4.2.1.9. A FALSE that is spelled out is common; the path length is the chain verifier's.
fn read_is_ca(value: &[u8]) -> Option<bool> {
    let mut rest = whole(der::SEQUENCE, value)?;
    let mut is_ca = false;
    if let Some((der::BOOLEAN, content, after)) = element(rest) {
        is_ca = match content {
            [0xff] => true,
            [0] => false,
            _ => return None,
        };
        rest = after;
    }
    let path_length = rest.is_empty() || whole(der::INTEGER, rest).is_some();
    path_length.then_some(is_ca)
}

/// Identifiers of X.690.
mod der {
    pub(super) const BOOLEAN: u8 = 1;
    pub(super) const INTEGER: u8 = 2;
    pub(super) const BIT_STRING: u8 = 3;
    pub(super) const OID: u8 = 6;
    pub(super) const SEQUENCE: u8 = 0x30;
}

/// The first element: identifier, content, and what follows. Strict DER (X.690 §10.1), where x509-parser takes lengths and
/// tags in longer forms than they need: whoever reads a name must read the same one.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = bytes.split_first_chunk()?;
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length = digits.iter().fold(0, |n, d| n << 8 | usize::from(*d));
            if length < 0x80 || digits.first() == Some(&0) {
                return None;
            }
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The content of an element that fills its input.
fn whole(tag: u8, bytes: &[u8]) -> Option<&[u8]> {
    match element(bytes)? {
        (found, content, []) if found == tag => Some(content),
        _ => None,
    }
}

fn wall(seconds: i64) -> UnixTime {
    UnixTime(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

#[cfg(test)]
mod tests;
