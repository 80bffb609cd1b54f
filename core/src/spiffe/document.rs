//! Bundle documents: the roots of one trust domain as its federation endpoint serves them (S-85).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use super::{BundleError, TrustBundle, TrustDomain};

/// `use` of the entries that hold a root for X509-SVIDs.
const X509_SVID: &str = "x509-svid";
/// The `kty` of keys that certificates can have (RFC 7518 §6.1, RFC 8037 §2).
const KEY_TYPES: [&str; 3] = ["EC", "OKP", "RSA"];

/// Why a text is no bundle document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    #[error("the bundle document is no JSON Web Key Set with certificates in base64")]
    Malformed,
    #[error(transparent)]
    Root(#[from] BundleError),
}

impl TrustBundle {
    /// The roots for X509-SVIDs of a bundle document, believed for `domain` alone.
    ///
    /// Entries for other uses and of unknown types are passed over, as are those without a certificate; of several
    /// certificates of one entry the first counts. Without entries nobody is believed. A certificate that cannot be a root
    /// fails all of it.
    pub fn from_document(json: &str, domain: &TrustDomain) -> Result<Self, DocumentError> {
        let document: Value = serde_json::from_str(json).map_err(|_| DocumentError::Malformed)?;
        let document = document.as_object().ok_or(DocumentError::Malformed)?;
        let keys = match document.get("keys") {
            None | Some(Value::Null) => &[][..],
            Some(Value::Array(keys)) => keys,
            Some(_) => return Err(DocumentError::Malformed),
        };
        let mut bundle = Self::default();
        for key in keys {
            let member = |name: &str| key.get(name).and_then(Value::as_str).unwrap_or_default();
            if member("use") != X509_SVID || !KEY_TYPES.contains(&member("kty")) {
                continue;
            }
            let Some(certificate) = key.get("x5c").and_then(|chain| chain.get(0)) else {
                continue;
            };
            let der = certificate
                .as_str()
                .and_then(|text| STANDARD.decode(text).ok())
                .ok_or(DocumentError::Malformed)?;
            bundle.add(CertificateDer::from(der), std::slice::from_ref(domain))?;
        }
        Ok(bundle)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{Authority, Spec};
    use super::*;

    fn root(name: &str) -> String {
        STANDARD.encode(&Authority::root(&Spec::authority(name)).cert)
    }

    fn read(keys: &Value) -> Result<TrustBundle, DocumentError> {
        let document = json!({"keys": keys, "spiffe_sequence": 1});
        TrustBundle::from_document(&document.to_string(), &domain())
    }

    fn domain() -> TrustDomain {
        TrustDomain::parse("partner.example").expect("a trust domain")
    }

    #[test]
    fn roots_are_believed_for_their_own_trust_domain_alone() {
        let key = json!({"use": X509_SVID, "kty": "EC", "x5c": [root("a"), root("b")]});
        let bundle = read(&json!([key])).expect("a bundle");
        assert_eq!(bundle.roots().len(), 1, "the first certificate of an entry");
        assert_eq!(bundle.anchors("partner.example").len(), 1);
        assert_eq!(bundle.anchors("cluster.local").len(), 0);
    }

    #[test]
    fn entries_of_no_use_here_are_passed_over() {
        let a = root("a");
        let keys = json!([
            {"use": "jwt-svid", "kty": "EC", "x5c": [a]},
            {"use": "x509-SVID", "kty": "EC", "x5c": [a]},
            {"kty": "EC", "x5c": [a]},
            {"use": X509_SVID, "kty": "oct", "x5c": [a]},
            {"use": X509_SVID, "x5c": [a]},
            {"use": X509_SVID, "kty": "RSA", "x5c": []},
            {"use": X509_SVID, "kty": "RSA"},
            {"use": X509_SVID, "kty": "RSA", "x5c": a},
            7,
        ]);
        assert_eq!(read(&keys), Ok(TrustBundle::default()));
    }

    #[test]
    fn a_document_without_keys_believes_nobody() {
        for text in ["{}", "{\"keys\":[]}", "{\"keys\":null}"] {
            let bundle = TrustBundle::from_document(text, &domain());
            assert_eq!(bundle, Ok(TrustBundle::default()), "{text}");
        }
    }

    #[test]
    fn what_is_no_document_and_what_is_no_root_fails() {
        for text in ["", "[]", "7", "{\"keys\":{}}", "{\"keys\":[]"] {
            let read = TrustBundle::from_document(text, &domain());
            assert_eq!(read, Err(DocumentError::Malformed), "{text}");
        }
        for x5c in [json!(["*"]), json!([7]), json!([""]), json!(["AAAA"])] {
            let keys = json!([{"use": X509_SVID, "kty": "EC", "x5c": x5c}]);
            assert!(read(&keys).is_err(), "{keys}");
        }
    }
}
