//! Signed content in compact form (RFC 7515 §7.1), whatever the content is.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::json;
use super::jwa::Algorithm;
use super::jwk::{Key, KeySet};
use super::status::Status;
use crate::limits::TOKEN_MAX;

/// A header, a payload and a signature, of which the header was read.
///
/// `Debug` shows the algorithm alone.
pub struct Jws<'t> {
    algorithm: Algorithm,
    header: Map<String, Value>,
    payload: &'t [u8],
    /// `None`: not base64url, which is found after what is wrong with a payload (S-216).
    signature: Option<Vec<u8>>,
    /// A section has blanks, padding or stray bits, which Envoy's reader of base64url passes over. Here a token can be
    /// written in one way only, so it verifies with no key; what else is wrong with it is said as Envoy says it.
    is_loose: bool,
    /// Header and payload as they were sent, with one dot between them.
    signed: Cow<'t, [u8]>,
}

const LOOSE: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl<'t> Jws<'t> {
    /// Takes `text` apart and reads the header.
    ///
    /// Empty sections are not counted, so `h..p.s` is read as `h.p.s` (S-216). Base64url is that of RFC 7515 §2: no padding,
    /// no stray bits, so that a token can be written in one way only (Envoy takes more). Fails with `BadFormat`, also beyond
    /// [`TOKEN_MAX`] bytes, `HeaderBadBase64`, `HeaderBadJson`, `HeaderBadAlg`, `AlgNotSupported` or `HeaderBadKid`.
    pub fn parse(text: &'t [u8]) -> Result<Self, Status> {
        if text.len() > TOKEN_MAX {
            return Err(Status::BadFormat);
        }
        let mut sections = text
            .split(|byte| *byte == b'.')
            .filter(|section| !section.is_empty());
        let mut next = || sections.next();
        let (Some(first), Some(payload), Some(last), None) = (next(), next(), next(), next())
        else {
            return Err(Status::BadFormat);
        };
        let header = decode(first).ok_or(Status::HeaderBadBase64)?;
        let header = json::object(&header).ok_or(Status::HeaderBadJson)?;
        let Some(Value::String(alg)) = header.get("alg") else {
            return Err(Status::HeaderBadAlg);
        };
        let algorithm = Algorithm::named(alg).ok_or(Status::AlgNotSupported)?;
        if !header.get("kid").is_none_or(Value::is_string) {
            return Err(Status::HeaderBadKid);
        }
        Ok(Self {
            algorithm,
            header,
            payload,
            signature: decode(last),
            is_loose: ![first, payload, last].into_iter().all(is_canonical),
            signed: signed(text, first, payload),
        })
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub fn header(&self) -> &Map<String, Value> {
        &self.header
    }

    /// The `kid`, if there is one that is not empty.
    pub fn key_id(&self) -> Option<&str> {
        let kid = self.header.get("kid").and_then(Value::as_str)?;
        (!kid.is_empty()).then_some(kid)
    }

    /// The payload as it was sent; it need not be base64url.
    pub(super) fn payload_section(&self) -> &'t [u8] {
        self.payload
    }

    /// The payload, if it is base64url.
    pub fn payload(&self) -> Option<Vec<u8>> {
        decode(self.payload)
    }

    pub(super) fn has_signature(&self) -> bool {
        self.signature.is_some()
    }

    /// The key of `keys` that signed this (S-221).
    ///
    /// A header with `crit` verifies with none: it says that the content means something else to whoever understands it, and
    /// nothing that can stand there is understood here (RFC 7515 §4.1.11; Envoy ignores it). Fails with `SignatureBadBase64`,
    /// `VerificationFails`, `Ed25519WrongLength`, `NoMatchingKey` or `JwksNoValidKey`.
    pub fn signer<'k>(&self, keys: &'k KeySet) -> Result<&'k Key, Status> {
        let signature = self.signature.as_ref().ok_or(Status::SignatureBadBase64)?;
        if self.header.contains_key("crit") {
            return Err(Status::VerificationFails);
        }
        let kid = self.key_id().unwrap_or_default();
        let signer = keys.find(kid, self.algorithm, &self.signed, signature)?;
        if self.is_loose {
            return Err(Status::VerificationFails);
        }
        Ok(signer)
    }
}

impl fmt::Debug for Jws<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jws({})", self.algorithm.name())
    }
}

/// Whether a section is written in the one way of RFC 7515 §2.
fn is_canonical(section: &[u8]) -> bool {
    URL_SAFE_NO_PAD.decode(section).is_ok()
}

fn decode(section: &[u8]) -> Option<Vec<u8>> {
    if let Ok(bytes) = URL_SAFE_NO_PAD.decode(section) {
        return Some(bytes);
    }
    let is_blank = u8::is_ascii_whitespace;
    let dense: Vec<u8> = section
        .iter()
        .copied()
        .filter(|byte| !is_blank(byte))
        .collect();
    LOOSE.decode(dense).ok()
}

/// Header and payload with one dot between them, which is how they stand in `text` unless it has empty sections.
fn signed<'t>(text: &'t [u8], header: &[u8], payload: &[u8]) -> Cow<'t, [u8]> {
    let length = header.len() + 1 + payload.len();
    match text.get(..length) {
        Some(begin)
            if begin.starts_with(header)
                && begin.get(header.len()) == Some(&b'.')
                && begin.ends_with(payload) =>
        {
            Cow::Borrowed(begin)
        }
        _ => Cow::Owned([header, b".", payload].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_in_loose_base64_verifies_with_no_key() {
        // RFC 7515 A.1.
        const KEY: &str = r#"{"keys":[{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}]}"#;
        const SIGNED: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let keys = KeySet::parse(KEY).expect("a key set");
        for (signature, outcome) in [
            ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", Ok("HMAC")),
            (
                "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXl",
                Err(Status::VerificationFails),
            ),
            (
                "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk=",
                Err(Status::VerificationFails),
            ),
            (
                "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjX k",
                Err(Status::VerificationFails),
            ),
            (
                "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk and",
                Err(Status::VerificationFails),
            ),
            (
                "dBjftJeZ4CVP+mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
                Err(Status::SignatureBadBase64),
            ),
            (
                "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXkA!",
                Err(Status::SignatureBadBase64),
            ),
            ("dBjft", Err(Status::SignatureBadBase64)),
        ] {
            let text = format!("{SIGNED}.{signature}");
            let jws = Jws::parse(text.as_bytes()).expect("a token in form");
            let signer = jws.signer(&keys).map(Key::kind);
            assert_eq!(signer, outcome, "{signature}");
        }
    }

    #[test]
    fn what_was_signed_is_copied_only_if_dots_stand_beside_dots() {
        for (text, is_copied) in [
            ("eyJhbGciOiJIUzI1NiJ9.p.AA", false),
            ("eyJhbGciOiJIUzI1NiJ9.p.AA.", false),
            ("eyJhbGciOiJIUzI1NiJ9.p..AA", false),
            ("eyJhbGciOiJIUzI1NiJ9..p.AA", true),
            (".eyJhbGciOiJIUzI1NiJ9.p.AA", true),
        ] {
            let jws = Jws::parse(text.as_bytes()).unwrap();
            assert_eq!(*jws.signed, *b"eyJhbGciOiJIUzI1NiJ9.p", "{text}");
            assert_eq!(matches!(jws.signed, Cow::Owned(_)), is_copied, "{text}");
            assert_eq!(format!("{jws:?}"), "Jws(HS256)");
            assert_eq!((jws.key_id(), jws.payload()), (None, None));
        }
    }

    #[test]
    fn a_kid_that_is_empty_is_none() {
        for (header, kid) in [
            (r#"{"alg":"HS256","kid":""}"#, None),
            (r#"{"alg":"HS256","kid":"k"}"#, Some("k")),
        ] {
            let text = format!("{}.AA.AA", URL_SAFE_NO_PAD.encode(header));
            let jws = Jws::parse(text.as_bytes()).unwrap();
            assert_eq!(jws.key_id(), kid);
            assert_eq!(jws.payload(), Some(vec![0]));
        }
    }
}
