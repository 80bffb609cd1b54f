//! `meshward token`: keys and tokens for walk-throughs, tests and small meshes, and a look into tokens.
//!
//! A private key goes into the file that is asked for and nowhere else, and comes out of it only as signatures.

mod claims;
mod decode;
mod der;
mod key;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aws_lc_rs::error::Unspecified;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use meshward_core::authn::jwa::Algorithm;
use serde_json::{Map, Value, json};

use crate::exit::Failure;
use crate::{files, machine, say};
use key::SigningKey;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prints the public keys of a file as a JWK set, for `jwks` of a RequestAuthentication; makes a key first with --new.
    Jwks(Jwks),
    /// Prints a signed token.
    Mint(Mint),
    /// Prints what a token says, and with --jwks whether its signature verifies.
    ///
    /// Exits with 65 if nothing of it can be read, and with 1 if it was to verify and does not.
    Decode(decode::Arguments),
}

#[derive(Debug, Args)]
pub(crate) struct Jwks {
    /// The file of private keys: a JWK, a JWK set or PEM; `-`: stdin.
    ///
    /// A new key is added to the JWK set that is there, or makes the file, readable by its owner alone; `-`: the private
    /// key is printed in place of the public one.
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
    /// Makes a key for this algorithm.
    #[arg(long, value_name = "ALGORITHM", value_parser = algorithms())]
    new: Option<String>,
    /// The name of the new key; by default the key's thumbprint.
    #[arg(long, requires = "new")]
    kid: Option<String>,
    /// Prints shared secrets (HS256, HS384, HS512) as well: who verifies with one needs it.
    #[arg(long)]
    secrets: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Mint {
    /// The private key that signs: a JWK, a JWK set or PEM; `-`: stdin.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Which key of a set of several; of a single key, the `kid` that the header says, none if empty.
    #[arg(long)]
    kid: Option<String>,
    /// How the key signs; by default what its `alg` says, or RS256, ES256, ES384, ES512, EdDSA or HS256 by its kind.
    #[arg(long, value_parser = algorithms())]
    algorithm: Option<String>,
    #[command(flatten)]
    claims: claims::Arguments,
}

fn algorithms() -> PossibleValuesParser {
    PossibleValuesParser::new(Algorithm::ALL.map(Algorithm::name))
}

pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Jwks(arguments) => jwks(arguments),
        Command::Mint(arguments) => mint(&arguments),
        Command::Decode(arguments) => decode::run(&arguments),
    }
}

fn jwks(arguments: Jwks) -> Result<ExitCode, Failure> {
    let path = &arguments.keys;
    if let Some(algorithm) = arguments.new.as_deref().and_then(Algorithm::named) {
        let key = SigningKey::new(algorithm, arguments.kid).map_err(no_randomness)?;
        let private = key.private_jwk().map_err(no_randomness)?;
        if is_standard(path) {
            say::out(json!({ "keys": [private] }));
            return Ok(ExitCode::SUCCESS);
        }
        add(path, &key, private)?;
        say::err(format_args!(
            "{}: made {} `{}` for {}",
            path.display(),
            key.kind(),
            key.kid.as_deref().unwrap_or_default(),
            algorithm.name()
        ));
    }
    let mut public = Vec::new();
    for key in read_keys(path)? {
        let jwk = match key.public_jwk() {
            None if arguments.secrets => Some(key.private_jwk().map_err(no_randomness)?),
            public => public,
        };
        match jwk {
            Some(jwk) => public.push(Value::Object(jwk)),
            None => say::err(format_args!(
                "{}: `{}` is a shared secret and is not printed\n  hint: --secrets prints it",
                path.display(),
                key.kid.as_deref().unwrap_or_default()
            )),
        }
    }
    say::out(json!({ "keys": public }));
    Ok(ExitCode::SUCCESS)
}

/// Puts `key` behind the keys of the set in `path`.
fn add(path: &Path, key: &SigningKey, jwk: Map<String, Value>) -> Result<(), Failure> {
    let mut keys = Vec::new();
    if path.exists() {
        let text = files::read_text(path).map_err(|e| Failure::Data(vec![e]))?;
        let hint = "a key is added to a JWK set; choose another file";
        keys = key::jwks(&text).map_err(|fault| data(path, &format!("{fault}\n  hint: {hint}")))?;
    }
    if let Some(kid) = &key.kid
        && keys.iter().any(|other| other["kid"] == kid.as_str())
    {
        return Err(data(
            path,
            &format!(
                "there is a key `{kid}` already\n  hint: choose another --kid, or another file"
            ),
        ));
    }
    keys.push(Value::Object(jwk));
    let text = format!("{:#}\n", json!({ "keys": keys }));
    files::write(path, text.as_bytes(), 0o600).map_err(Failure::Machine)
}

fn mint(arguments: &Mint) -> Result<ExitCode, Failure> {
    let claims = arguments
        .claims
        .read(machine::now())
        .map_err(Failure::Usage)?;
    let keys = read_keys(&arguments.key)?;
    let key = choose(&arguments.key, &keys, arguments.kid.as_deref())?;
    let asked = arguments.algorithm.as_deref().and_then(Algorithm::named);
    let algorithm = asked.unwrap_or_else(|| key.algorithm());
    if !key.can(algorithm) {
        return Err(Failure::Usage(format!(
            "--algorithm {}: {} has {}, which signs otherwise",
            algorithm.name(),
            arguments.key.display(),
            key.kind()
        )));
    }
    let mut header = json!({"alg": algorithm.name(), "typ": "JWT"});
    let kid = arguments.kid.as_deref().or(key.kid.as_deref());
    if let Some(kid) = kid.filter(|kid| !kid.is_empty()) {
        header["kid"] = kid.into();
    }
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(Value::Object(claims).to_string())
    );
    let signature = key
        .sign(algorithm, signed.as_bytes())
        .map_err(|_| data(&arguments.key, "the key does not sign"))?;
    say::out(format_args!(
        "{signed}.{}",
        URL_SAFE_NO_PAD.encode(signature)
    ));
    Ok(ExitCode::SUCCESS)
}

/// The one key, or the one that is called `kid`.
fn choose<'k>(
    path: &Path,
    keys: &'k [SigningKey],
    kid: Option<&str>,
) -> Result<&'k SigningKey, Failure> {
    match keys {
        [] => Err(data(
            path,
            &format!(
                "has no key\n  hint: meshward token jwks --new ES256 --keys {}",
                path.display()
            ),
        )),
        [key] => Ok(key),
        keys => {
            let known: Vec<_> = keys.iter().filter_map(|key| key.kid.as_deref()).collect();
            let known = known.join("`, `").escape_debug().to_string();
            let Some(kid) = kid else {
                return Err(Failure::Usage(format!(
                    "{} has {} keys\n  hint: choose one with --kid: `{known}`",
                    path.display(),
                    keys.len()
                )));
            };
            keys.iter()
                .find(|key| key.kid.as_deref() == Some(kid))
                .ok_or_else(|| {
                    Failure::Usage(format!(
                        "--kid `{kid}`: {} has no such key\n  hint: it has `{known}`",
                        path.display()
                    ))
                })
        }
    }
}

fn read_keys(path: &Path) -> Result<Vec<SigningKey>, Failure> {
    let text = read(path).map_err(|fault| {
        let hint = format!("meshward token jwks --new ES256 --keys {}", path.display());
        Failure::Data(vec![if is_standard(path) || path.exists() {
            fault
        } else {
            format!("{fault}\n  hint: {hint}")
        }])
    })?;
    SigningKey::read_all(&text).map_err(|fault| data(path, &fault))
}

/// A file, or stdin if it is called `-`.
fn read(path: &Path) -> Result<String, String> {
    if !is_standard(path) {
        return files::read_text(path);
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|e| format!("stdin cannot be read: {}", files::words(&e)))?;
    Ok(text)
}

fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

fn data(path: &Path, fault: &str) -> Failure {
    Failure::Data(vec![format!("{}: {fault}", path.display())])
}

fn no_randomness(_: Unspecified) -> Failure {
    Failure::Machine("the key cannot be made".to_owned())
}
