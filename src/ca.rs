//! `meshward ca`: a certificate authority in a folder, for walk-throughs, tests and small meshes.
//!
//! Certificates have the shape that istiod gives them (S-90, S-91). The key of the authority never leaves its folder.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use meshward_core::clock::UnixTime;
use meshward_core::spiffe::{SpiffeId, TrustDomain};
use meshward_core::tls::{Crypto, KeyKind};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use crate::exit::Failure;
use crate::files;

/// How long a self-signed root lasts (S-95).
const ROOT_TTL: Duration = Duration::from_secs(10 * 365 * 86_400);
/// DEFAULT_WORKLOAD_CERT_TTL (S-91).
const DEFAULT_TTL: &str = "24h";
/// MAX_WORKLOAD_CERT_TTL (S-91).
const MAX_TTL: Duration = Duration::from_secs(2160 * 3600);
/// Certificates begin so long before they are made, for clocks that are behind (S-90).
const BACKDATE: Duration = Duration::from_secs(120);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes a root: DIR/ca.pem and DIR/ca.key.
    Init(Init),
    /// Issues a certificate for a SPIFFE ID: cert.pem, key.pem and bundle.pem.
    Issue(Issue),
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Where ca.pem and ca.key go.
    dir: PathBuf,
    /// The trust domain for which this authority may speak.
    #[arg(long, default_value = "cluster.local", value_name = "D")]
    trust_domain: String,
    /// The kind of the root's key.
    #[arg(long, value_enum, default_value_t = Key::P256)]
    key: Key,
}

#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// Where ca.pem and ca.key are.
    dir: PathBuf,
    /// Whose certificate: spiffe://cluster.local/ns/default/sa/server
    id: String,
    /// Where cert.pem, key.pem (PKCS#8) and bundle.pem go.
    #[arg(long, value_name = "DIR2")]
    out: PathBuf,
    /// How long it lasts: 24h, 90m, 30s, 1h30m.
    #[arg(long, default_value = DEFAULT_TTL, allow_hyphen_values = true)]
    ttl: String,
    /// The kind of the workload's key.
    #[arg(long, value_enum, default_value_t = Key::P256)]
    key: Key,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Key {
    P256,
    Rsa2048,
}

impl From<Key> for KeyKind {
    fn from(key: Key) -> Self {
        match key {
            Key::P256 => Self::P256,
            Key::Rsa2048 => Self::Rsa2048,
        }
    }
}

pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Init(init) => self::init(&init),
        Command::Issue(issue) => self::issue(&issue),
    }
}

fn init(init: &Init) -> Result<ExitCode, Failure> {
    let domain = TrustDomain::parse(&init.trust_domain)
        .map_err(|e| Failure::Usage(format!("--trust-domain `{}`: {e}", init.trust_domain)))?;
    let (pem, key_path) = (init.dir.join("ca.pem"), init.dir.join("ca.key"));
    for path in [&pem, &key_path] {
        if path.exists() {
            return Err(Failure::Machine(format!(
                "{} exists already\n  hint: choose another folder, or remove the old authority yourself",
                path.display()
            )));
        }
    }
    let (key, key_der) = new_key(init.key)?;
    let now = now();
    let mut params = CertificateParams::default();
    params.distinguished_name = organisation(domain.as_str());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri(&format!("spiffe://{}", domain.as_str()))?];
    params.serial_number = Some(serial()?);
    params.not_before = moment(now.0.saturating_sub(BACKDATE.as_millis() as u64));
    params.not_after = moment(now.0 + ROOT_TTL.as_millis() as u64);
    let certificate = params.self_signed(&key).map_err(broken)?;
    folder(&init.dir)?;
    files::write(&key_path, pem_of("PRIVATE KEY", &key_der).as_bytes(), 0o600)
        .map_err(Failure::Machine)?;
    files::write(&pem, certificate.pem().as_bytes(), 0o644).map_err(Failure::Machine)?;
    println!(
        "authority for trust domain {} in {}",
        domain.as_str(),
        init.dir.display()
    );
    Ok(ExitCode::SUCCESS)
}

fn issue(issue: &Issue) -> Result<ExitCode, Failure> {
    let ttl =
        span(&issue.ttl).map_err(|e| Failure::Usage(format!("--ttl `{}`: {e}", issue.ttl)))?;
    if ttl.is_zero() {
        return Err(Failure::Usage(format!(
            "--ttl `{}`: a certificate must last longer than 0 s",
            issue.ttl
        )));
    }
    if ttl > MAX_TTL {
        return Err(Failure::Usage(format!(
            "--ttl `{}`: a certificate may last 2160h at most",
            issue.ttl
        )));
    }
    let id =
        SpiffeId::parse(&issue.id).map_err(|e| Failure::Usage(format!("`{}`: {e}", issue.id)))?;
    if id.path().is_empty() {
        return Err(Failure::Usage(format!(
            "`{}`: names a trust domain, not a workload\n  hint: {}/ns/NAMESPACE/sa/ACCOUNT",
            issue.id, issue.id
        )));
    }
    let root_path = issue.dir.join("ca.pem");
    let key_path = issue.dir.join("ca.key");
    let root_pem = files::read(&root_path).map_err(|e| no_authority(&e, &issue.dir))?;
    let key_pem = files::read(&key_path).map_err(|e| no_authority(&e, &issue.dir))?;
    let root = CertificateDer::from_pem_slice(&root_pem).map_err(|e| {
        Failure::Data(vec![format!(
            "{}: no PEM certificate: {e}",
            root_path.display()
        )])
    })?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&key_pem).map_err(|e| {
        Failure::Data(vec![format!(
            "{}: no PEM key in PKCS#8: {e}",
            key_path.display()
        )])
    })?;
    let signer = KeyPair::try_from(&key).map_err(|_| {
        Failure::Data(vec![format!(
            "{}: a key that cannot sign",
            key_path.display()
        )])
    })?;
    let authority = Authority::of(&root)
        .map_err(|e| Failure::Data(vec![format!("{}: {e}", root_path.display())]))?;
    if authority.public_key != signer.public_key_raw() {
        return Err(Failure::Data(vec![format!(
            "{}: is not the key of {}",
            key_path.display(),
            root_path.display()
        )]));
    }
    if authority.trust_domain.as_deref() != Some(id.trust_domain()) {
        return Err(Failure::Usage(format!(
            "`{}`: this authority speaks for `{}`, not for `{}`",
            issue.id,
            authority
                .trust_domain
                .as_deref()
                .unwrap_or("no trust domain"),
            id.trust_domain()
        )));
    }
    let now = now();
    if authority.not_after <= now {
        return Err(Failure::Data(vec![format!(
            "{}: expired at {}",
            root_path.display(),
            authority.not_after
        )]));
    }
    let (key, key_der) = new_key(issue.key)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(id.as_str())?];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    params.not_before = moment(now.0.saturating_sub(BACKDATE.as_millis() as u64));
    // Clamped to the signer's end (S-91).
    params.not_after = moment((now.0 + ttl.as_millis() as u64).min(authority.not_after.0));
    let issuer = Issuer::from_ca_cert_der(&root, signer).map_err(broken)?;
    let certificate = params.signed_by(&key, &issuer).map_err(broken)?;
    folder(&issue.out)?;
    let out = |name: &str| issue.out.join(name);
    files::write(
        &out("key.pem"),
        pem_of("PRIVATE KEY", &key_der).as_bytes(),
        0o600,
    )
    .map_err(Failure::Machine)?;
    files::write(&out("cert.pem"), certificate.pem().as_bytes(), 0o644)
        .map_err(Failure::Machine)?;
    files::write(&out("bundle.pem"), &root_pem, 0o644).map_err(Failure::Machine)?;
    println!(
        "{} for {} in {}",
        id.as_str(),
        issue.ttl,
        issue.out.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// What the root's certificate says.
struct Authority {
    trust_domain: Option<String>,
    not_after: UnixTime,
    public_key: Vec<u8>,
}

impl Authority {
    fn of(root: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, certificate) = x509_parser::parse_x509_certificate(root)
            .map_err(|e| format!("not a certificate: {e}"))?;
        if !certificate.is_ca() {
            return Err("not the certificate of an authority".into());
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|e| format!("unreadable names: {e}"))?;
        let trust_domain = names
            .into_iter()
            .flat_map(|names| &names.value.general_names)
            .find_map(|name| match name {
                x509_parser::extensions::GeneralName::URI(uri) => SpiffeId::parse(uri)
                    .ok()
                    .map(|id| id.trust_domain().to_owned()),
                _ => None,
            });
        let not_after = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self {
            trust_domain,
            not_after: UnixTime(not_after * 1000),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
        })
    }
}

fn new_key(kind: Key) -> Result<(KeyPair, Vec<u8>), Failure> {
    let made = Crypto::production().keys.generate(kind.into());
    let der = made
        .map_err(|e| Failure::Machine(format!("no key could be made: {e}")))?
        .reveal()
        .clone();
    let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(der.as_slice())).map_err(broken)?;
    Ok((key, der))
}

/// A random serial of 128 bits (S-90), positive (RFC 5280 §4.1.2.2).
fn serial() -> Result<SerialNumber, Failure> {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::Machine("no randomness".into()))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn organisation(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, name);
    subject
}

fn uri(text: &str) -> Result<SanType, Failure> {
    text.try_into().map(SanType::URI).map_err(broken)
}

fn broken(error: rcgen::Error) -> Failure {
    Failure::Machine(format!("the certificate could not be made: {error}"))
}

fn no_authority(message: &str, dir: &Path) -> Failure {
    let hint = if dir.join("ca.pem").exists() {
        "name the folder of an authority whose files you may read".to_owned()
    } else {
        format!("meshward ca init {}", dir.display())
    };
    Failure::Data(vec![format!("{message}\n  hint: {hint}")])
}

fn folder(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).map_err(|e| {
        Failure::Machine(format!(
            "{}: cannot be made: {}",
            dir.display(),
            files::words(&e)
        ))
    })
}

fn pem_of(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

fn now() -> UnixTime {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    UnixTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn moment(unix_ms: u64) -> OffsetDateTime {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// `24h`, `90m`, `30s`, `1h30m`, as Go writes durations; whole numbers.
fn span(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "expected a duration such as 24h, 90m, 30s or 1h30m";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.starts_with('-') {
        return Err("a certificate must last longer than 0 s");
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest
            .get(..digits)
            .and_then(|n| n.parse().ok())
            .ok_or(FORM)?;
        rest = rest.get(digits..).ok_or(FORM)?;
        let (unit, len) = match rest.as_bytes() {
            [b'h', ..] => (3600, 1),
            [b'm', b's', ..] => return Err(FORM),
            [b'm', ..] => (60, 1),
            [b's', ..] => (1, 1),
            _ => return Err(FORM),
        };
        rest = rest.get(len..).ok_or(FORM)?;
        let seconds = number.checked_mul(unit).ok_or("too long")?;
        total = total
            .checked_add(Duration::from_secs(seconds))
            .ok_or("too long")?;
    }
    if text.is_empty() {
        Err(FORM)
    } else {
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_writes_them() {
        for (text, seconds) in [
            ("24h", 86_400),
            ("90m", 5400),
            ("30s", 30),
            ("1h30m", 5400),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "24",
            "h",
            "1d",
            "-1h",
            "1.5h",
            "99999999999999999999h",
            "10ms",
        ] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
