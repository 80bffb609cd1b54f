//! Certificates as the corpus describes them, right or wrong in any single respect, and the authorities that sign them.
//!
//! Extensions are written by hand, since a library for making certificates refuses to make bad ones.

use std::collections::BTreeMap;
use std::fmt;

use meshward_core::api::load::yaml::{Node, Value};
use meshward_core::clock::UnixTime;
use meshward_simulator::crypto::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::tree::{Fault, Fields, fault, list, number, text};

/// What a certificate says (CERT of the corpus format).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spec {
    pub(super) uris: Vec<String>,
    pub(super) dns: Vec<String>,
    /// Who signs it. What follows an `@` tells certificates of one authority apart, which sign alike.
    pub(super) ca: String,
    /// Seconds from now.
    pub(super) not_before_in: i64,
    pub(super) not_after_in: i64,
    /// Numbers of the bits of keyUsage (RFC 5280 §4.2.1.3); `None`: no such extension.
    pub(super) key_usage: Option<Vec<u8>>,
    pub(super) key_usage_critical: bool,
    /// The last arc of each purpose below id-kp; `None`: no such extension.
    pub(super) ext_key_usage: Option<Vec<u8>>,
    pub(super) is_ca: bool,
    pub(super) path_len: Option<u8>,
    /// In the order of the certificate.
    pub(super) subject: Vec<(DnType, String)>,
    /// `None`: critical exactly if the subject is empty.
    pub(super) san_critical: Option<bool>,
}

impl Spec {
    /// What FORMAT.md takes for granted: a workload's certificate as S-90 describes it.
    pub(super) fn of(uri: &str) -> Self {
        Self {
            uris: vec![uri.to_owned()],
            ..Self::nameless()
        }
    }

    fn nameless() -> Self {
        Self {
            uris: Vec::new(),
            dns: Vec::new(),
            ca: MESH.to_owned(),
            not_before_in: -120,
            not_after_in: 86_400,
            key_usage: Some(vec![0, 2]),
            key_usage_critical: true,
            ext_key_usage: Some(vec![1, 2]),
            is_ca: false,
            path_len: None,
            subject: Vec::new(),
            san_critical: None,
        }
    }

    pub(super) fn read(node: &Node) -> Result<Self, Fault> {
        let mut fields = Fields::of(node, "a certificate")?;
        let mut spec = Self {
            uris: super::tree::texts(fields.need("uris")?)?,
            dns: fields.texts("dns")?,
            ..Self::nameless()
        };
        if let Some(ca) = fields.take("ca") {
            text(ca)?.clone_into(&mut spec.ca);
        }
        if let Some(seconds) = fields.take("not_before_in") {
            spec.not_before_in = number(seconds)?;
        }
        if let Some(seconds) = fields.take("not_after_in") {
            spec.not_after_in = number(seconds)?;
        }
        if let Some(uses) = fields.take("key_usage") {
            spec.key_usage = words(uses, KEY_USAGES)?;
        }
        if let Some(critical) = fields.flag("key_usage_critical")? {
            spec.key_usage_critical = critical;
        }
        if let Some(purposes) = fields.take("eku") {
            spec.ext_key_usage = words(purposes, PURPOSES)?;
        }
        if let Some(is_ca) = fields.flag("is_ca")? {
            spec.is_ca = is_ca;
        }
        spec.path_len = fields.take("path_len").map(number).transpose()?;
        if let Some(subject) = fields.take("subject") {
            spec.subject = match read_name(text(subject)?) {
                Ok(name) => name,
                Err(message) => return fault(subject, message),
            };
        }
        spec.san_critical = fields.flag("san_critical")?;
        fields.end()?;
        Ok(spec)
    }

    fn params(&self, now: UnixTime) -> Result<CertificateParams, String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in &self.subject {
            params.distinguished_name.push(kind.clone(), value.as_str());
        }
        params.not_before = at(now, self.not_before_in)?;
        params.not_after = at(now, self.not_after_in)?;
        params.custom_extensions = self.extensions();
        Ok(params)
    }

    fn extensions(&self) -> Vec<CustomExtension> {
        let mut all = Vec::new();
        let mut add = |last_arc: u64, critical, content| {
            let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, last_arc], content);
            extension.set_criticality(critical);
            all.push(extension);
        };
        let mut constraints = Vec::new();
        if self.is_ca {
            constraints.extend(tlv(1, &[0xff]));
        }
        if let Some(len) = self.path_len {
            // INTEGER is signed: 128 and more need a byte before them.
            let digits = if len < 128 { vec![len] } else { vec![0, len] };
            constraints.extend(tlv(2, &digits));
        }
        add(19, true, tlv(0x30, &constraints));
        if let Some(bits) = &self.key_usage {
            add(15, self.key_usage_critical, bit_string(bits));
        }
        if let Some(purposes) = &self.ext_key_usage {
            // id-kp is 1.3.6.1.5.5.7.3.
            let content: Vec<u8> = purposes
                .iter()
                .flat_map(|last| tlv(6, &[0x2b, 6, 1, 5, 5, 7, 3, *last]))
                .collect();
            add(37, false, tlv(0x30, &content));
        }
        let names = |tag: u8, names: &[String]| -> Vec<u8> {
            let each = names.iter().flat_map(|name| tlv(tag, name.as_bytes()));
            each.collect()
        };
        let names = [names(0x86, &self.uris), names(0x82, &self.dns)].concat();
        if !names.is_empty() {
            let critical = self.san_critical.unwrap_or(self.subject.is_empty());
            add(17, critical, tlv(0x30, &names));
        }
        all
    }
}

/// The authority of all workloads.
pub(super) const MESH: &str = "mesh";

const KEY_USAGES: &[(&str, u8)] = &[
    ("digitalSignature", 0),
    ("nonRepudiation", 1),
    ("keyEncipherment", 2),
    ("dataEncipherment", 3),
    ("keyAgreement", 4),
    ("keyCertSign", 5),
    ("cRLSign", 6),
];

const PURPOSES: &[(&str, u8)] = &[("serverAuth", 1), ("clientAuth", 2), ("codeSigning", 3)];

/// What each word of a list stands for; null: the extension is absent.
fn words(node: &Node, known: &[(&str, u8)]) -> Result<Option<Vec<u8>>, Fault> {
    if node.value == Value::Null {
        return Ok(None);
    }
    let word = |node: &Node| {
        let word = text(node)?;
        match known.iter().find(|(name, _)| *name == word) {
            Some((_, number)) => Ok(*number),
            None => fault(node, format!("`{word}` is not known here")),
        }
    };
    list(node)?
        .iter()
        .map(word)
        .collect::<Result<_, _>>()
        .map(Some)
}

/// A name in the form of RFC 4514, whose last part is the first of the certificate.
fn read_name(text: &str) -> Result<Vec<(DnType, String)>, String> {
    let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (kind, value) = rest
            .split_once('=')
            .ok_or_else(|| format!("`{rest}` of a subject has no `=`"))?;
        let mut bytes = Vec::new();
        let mut at = 0;
        let raw = value.as_bytes();
        while let Some(byte) = raw.get(at).filter(|byte| **byte != b',') {
            match (
                *byte,
                raw.get(at + 1..at + 3).and_then(hex),
                raw.get(at + 1),
            ) {
                (b'\\', Some(escaped), _) => {
                    bytes.push(escaped);
                    at += 3;
                }
                (b'\\', None, Some(escaped)) => {
                    bytes.push(*escaped);
                    at += 2;
                }
                (b'+', ..) => return Err("a subject has one value in each part".into()),
                (byte, ..) => {
                    bytes.push(byte);
                    at += 1;
                }
            }
        }
        parts.push((kind.trim().to_ascii_uppercase(), bytes));
        rest = value.get(at + 1..).unwrap_or_default();
    }
    parts.reverse();
    let mut name = Vec::new();
    for (kind, value) in parts {
        let kind = match kind.as_str() {
            "CN" => DnType::CommonName,
            "O" => DnType::OrganizationName,
            "OU" => DnType::OrganizationalUnitName,
            "C" => DnType::CountryName,
            "L" => DnType::LocalityName,
            "ST" => DnType::StateOrProvinceName,
            _ => return Err(format!("a subject with `{kind}` cannot be made")),
        };
        if name.iter().any(|(other, _)| *other == kind) {
            return Err("a subject has one part of each kind".into());
        }
        let value = String::from_utf8(value).map_err(|_| "a subject is no UTF-8".to_owned())?;
        name.push((kind, value));
    }
    Ok(name)
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits
        .bytes()
        .all(|digit| digit.is_ascii_hexdigit())
        .then(|| u8::from_str_radix(digits, 16).ok())?
}

fn at(now: UnixTime, seconds: i64) -> Result<time::OffsetDateTime, String> {
    i64::try_from(now.as_secs())
        .ok()
        .and_then(|now| now.checked_add(seconds))
        .and_then(|at| time::OffsetDateTime::from_unix_timestamp(at).ok())
        .ok_or_else(|| format!("{seconds} s from now is no date"))
}

/// The bits with these numbers, without trailing zeros (X.690 §11.2.2).
fn bit_string(numbers: &[u8]) -> Vec<u8> {
    let bits = numbers.iter().fold(0_u8, |bits, n| bits | (0x80 >> n));
    if bits == 0 {
        return tlv(3, &[0]);
    }
    tlv(3, &[bits.trailing_zeros() as u8, bits])
}

/// One DER element.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut out = vec![tag];
    if len < 0x80 {
        out.push(len as u8);
    } else {
        let digits: Vec<u8> = len
            .to_be_bytes()
            .into_iter()
            .skip_while(|b| *b == 0)
            .collect();
        out.push(0x80 | digits.len() as u8);
        out.extend(digits);
    }
    out.extend_from_slice(content);
    out
}

/// The authorities of a run, each made when it is first named.
pub(super) struct Authorities {
    now: UnixTime,
    by_name: BTreeMap<String, Authority>,
    /// Certificates of the mesh that are as S-90 describes them.
    usual: BTreeMap<String, Identity>,
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.by_name.keys()).finish()
    }
}

impl Authorities {
    pub(super) fn new(now: UnixTime) -> Self {
        Self {
            now,
            by_name: BTreeMap::new(),
            usual: BTreeMap::new(),
        }
    }

    /// The certificate of an authority, in PEM.
    pub(super) fn root_pem(&mut self, name: &str) -> Result<&str, String> {
        Ok(&self.authority(name)?.root_pem)
    }

    /// The certificate of a workload as S-90 describes it, always the same one.
    pub(super) fn issue_once(&mut self, uri: &str) -> Result<Identity, String> {
        if let Some(identity) = self.usual.get(uri) {
            return Ok(identity.clone());
        }
        let identity = self.issue(&Spec::of(uri))?;
        self.usual.insert(uri.to_owned(), identity.clone());
        Ok(identity)
    }

    /// A certificate with a new P-256 key.
    pub(super) fn issue(&mut self, spec: &Spec) -> Result<Identity, String> {
        let params = spec.params(self.now)?;
        let issuer = &self.authority(&spec.ca)?.issuer;
        let key = KeyPair::generate().map_err(cannot)?;
        let certificate = params.signed_by(&key, issuer).map_err(cannot)?;
        Ok(Identity {
            chain: vec![certificate.der().clone()],
            chain_pem: certificate.pem(),
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            key_pem: key.serialize_pem(),
        })
    }

    fn authority(&mut self, name: &str) -> Result<&Authority, String> {
        let name = name.split_once('@').map_or(name, |(name, _)| name);
        if !self.by_name.contains_key(name) {
            let authority = Authority::new(name, self.now)?;
            self.by_name.insert(name.to_owned(), authority);
        }
        self.by_name
            .get(name)
            .ok_or_else(|| format!("no authority `{name}`"))
    }
}

impl Authority {
    fn new(name: &str, now: UnixTime) -> Result<Self, String> {
        let key = KeyPair::generate().map_err(cannot)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (at(now, -YEAR)?, at(now, 10 * YEAR)?);
        let root_pem = params.self_signed(&key).map_err(cannot)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            root_pem,
        })
    }
}

const YEAR: i64 = 365 * 86_400;

fn cannot(error: rcgen::Error) -> String {
    format!("the certificate cannot be made: {error}")
}

#[cfg(test)]
mod tests {
    use meshward_core::api::load::yaml;
    use meshward_core::spiffe::{Leaf, TrustBundle, TrustDomain, verify_client};
    use meshward_simulator::clock::BIRTH;

    use super::*;

    fn spec(text: &str) -> Result<Spec, Fault> {
        let document = yaml::parse(text).expect("YAML");
        Spec::read(&document.root.expect("a certificate"))
    }

    fn issue(text: &str) -> (Identity, TrustBundle) {
        let mut authorities = Authorities::new(BIRTH);
        let spec = spec(text).expect("a certificate of the format");
        let identity = authorities.issue(&spec).expect("a certificate");
        let root = authorities.root_pem(MESH).expect("a root");
        let bundle = TrustBundle::from_pem(root.as_bytes()).expect("a bundle");
        (identity, bundle)
    }

    #[test]
    fn a_certificate_of_the_defaults_is_one_of_the_mesh() {
        let uri = "spiffe://cluster.local/ns/shop/sa/api";
        let (identity, bundle) = issue(&format!("uris: ['{uri}']"));
        let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
        let algorithms = rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .all;
        let leaf = verify_client(&identity.chain, &bundle, &[domain], BIRTH, algorithms)
            .expect("a peer of the mesh");
        assert_eq!(leaf.id.to_string(), uri);
        assert_eq!(leaf.not_after.as_secs(), BIRTH.as_secs() + 86_400);
    }

    #[test]
    fn every_field_makes_the_certificate_say_something_else() {
        let uri = "uris: ['spiffe://cluster.local/ns/a/sa/b']";
        let wrong = [
            "uris: []",
            "uris: ['spiffe://x/ns/a/sa/b', 'spiffe://x/ns/a/sa/c']",
            &format!("{{{uri}, key_usage: null}}"),
            &format!("{{{uri}, key_usage: []}}"),
            &format!("{{{uri}, key_usage: [digitalSignature, keyCertSign]}}"),
            &format!("{{{uri}, eku: [codeSigning]}}"),
            &format!("{{{uri}, is_ca: true}}"),
        ];
        for text in wrong {
            let (identity, _) = issue(text);
            assert!(Leaf::parse(&identity.chain[0]).is_err(), "{text}");
        }
        let right = [
            &format!("{{{uri}, subject: 'CN=a\\, b,O=c', ca: other@2, dns: [x.example]}}"),
            &format!("{{{uri}, not_before_in: 600, not_after_in: 4200}}"),
        ];
        for text in right {
            let (identity, _) = issue(text);
            assert!(Leaf::parse(&identity.chain[0]).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_subject_is_read_from_its_end() {
        let name = read_name("CN=a\\, b\\2B,O=c").expect("a name");
        assert_eq!(
            name,
            [
                (DnType::OrganizationName, "c".to_owned()),
                (DnType::CommonName, "a, b+".to_owned())
            ]
        );
        assert_eq!(read_name(""), Ok(Vec::new()));
        for wrong in ["CN", "XX=a", "CN=a,CN=b", "CN=a+O=b"] {
            assert!(read_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn misspelt_fields_and_words_are_faults() {
        for wrong in [
            "uris: x",
            "{}",
            "{uris: [], eku: [webAuth]}",
            "{uris: [], caa: mesh}",
        ] {
            assert!(spec(wrong).is_err(), "{wrong}");
        }
    }
}
