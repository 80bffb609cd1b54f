//! `meshward ca`: a certificate authority in a folder, for walk-throughs, tests and small meshes.
//!
//! Certificates have the shape that istiod gives them (S-90, S-91). The key of the authority never leaves its folder.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use meshward_core::agent::Draft;
use meshward_core::clock::UnixTime;
use meshward_core::control::ca::{
    Authority, CaError, Refusal, SignRequest, certificates_pem, sign,
};
use meshward_core::limits::CERTIFICATE_LIFETIME_MAX;
use meshward_core::spiffe::{SpiffeId, TrustDomain};
use meshward_core::tls::{Crypto, KeyKind};

use crate::exit::Failure;
use crate::{files, say};

/// DEFAULT_WORKLOAD_CERT_TTL (S-91).
const DEFAULT_TTL: &str = "24h";

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
    let kind = init.key.into();
    let authority =
        Authority::new_self_signed(&Crypto::production(), kind, &domain, now(), serial()?)
            .map_err(|error| Failure::Machine(error.to_string()))?;
    folder(&init.dir)?;
    files::write(&key_path, authority.key_pem().reveal().as_bytes(), 0o600)
        .map_err(Failure::Machine)?;
    files::write(&pem, authority.root_pem().as_bytes(), 0o644).map_err(Failure::Machine)?;
    say::out(format_args!(
        "authority for trust domain {} in {}",
        domain.as_str(),
        init.dir.display()
    ));
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
    if ttl > CERTIFICATE_LIFETIME_MAX {
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
    let foreign = |speaks_for: &str| {
        Failure::Usage(format!(
            "`{}`: this authority speaks for `{speaks_for}`, not for `{}`",
            issue.id,
            id.trust_domain()
        ))
    };
    let authority = Authority::from_pem(&root_pem, &key_pem).map_err(|error| match error {
        CaError::KeyPem(_) | CaError::KeyUnusable => data(&key_path, &error),
        CaError::KeyMismatch => data(
            &key_path,
            &format_args!("is not the key of {}", root_path.display()),
        ),
        CaError::NoTrustDomain => foreign("no trust domain"),
        CaError::RootPem(_) | CaError::Root(_) | CaError::NotAuthority | CaError::Names(_) => {
            data(&root_path, &error)
        }
        CaError::NoKey(_) | CaError::Making(_) => Failure::Machine(error.to_string()),
    })?;
    let draft = Draft::new(&Crypto::production(), issue.key.into(), &id)
        .map_err(|error| Failure::Machine(error.to_string()))?;
    let request = SignRequest {
        caller: Some(id.clone()),
        csr: draft.csr_pem.into_bytes(),
        validity_s: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
    };
    let chain = sign(&authority, &request, now(), serial()?).map_err(|refusal| match refusal {
        Refusal::TrustDomain { trust_domain, .. } => foreign(trust_domain.as_str()),
        Refusal::SignerExpired(at) => data(&root_path, &format_args!("expired at {at}")),
        other => Failure::Machine(other.to_string()),
    })?;
    folder(&issue.out)?;
    let out = |name: &str| issue.out.join(name);
    files::write(&out("key.pem"), draft.key_pem.reveal().as_bytes(), 0o600)
        .map_err(Failure::Machine)?;
    let (sent, _root) = chain.split();
    files::write(&out("cert.pem"), certificates_pem(sent).as_bytes(), 0o644)
        .map_err(Failure::Machine)?;
    files::write(&out("bundle.pem"), &root_pem, 0o644).map_err(Failure::Machine)?;
    say::out(format_args!(
        "{} for {} in {}",
        id.as_str(),
        issue.ttl,
        issue.out.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// 128 random bits (S-90).
fn serial() -> Result<[u8; 16], Failure> {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::Machine("no randomness".into()))?;
    Ok(bytes)
}

fn data(path: &Path, fault: &dyn fmt::Display) -> Failure {
    Failure::Data(vec![format!("{}: {fault}", path.display())])
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

fn now() -> UnixTime {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    UnixTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// `24h`, `90m`, `30s`, `1h30m`, as Go writes durations; whole numbers.
pub(crate) fn span(text: &str) -> Result<Duration, &'static str> {
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
