//! `meshward explain`: what would become of a request, and why.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use meshward_core::api::load::load_objects;
use meshward_core::control::plane::Plane;
use meshward_core::explain::{Account, ExplainError, Question, explain};

use crate::exit::Failure;
use crate::mesh::folder::{Folder, Which};
use crate::mesh::protocol::{self, Ask, Asked};
use crate::mesh::running::{data, texts};
use crate::{apply, files, machine, say};

#[derive(Debug, Args)]
#[command(after_help = "\
Without -f the mesh that runs is asked, about the state in force.

STATUS is 200 where the application answers, and 000 where no HTTP answer comes.
Exit code: 0 whatever the verdict, 1 if it is not what --expect says.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Who asks: NAME, deploy/NAME or pod/NAME, with `.NS` or without
    #[arg(long, value_name = "WORKLOAD")]
    from: String,
    /// Who is asked: a service by any of its names, or an address
    #[arg(long, value_name = "HOST[:PORT]")]
    to: String,
    /// GET, POST, …
    method: String,
    /// As it is sent, query included
    path: String,
    /// A header of the request; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// A token for `Authorization: Bearer`, or @ and the file that holds it; - is stdin.
    #[arg(long, value_name = "TEXT|@FILE")]
    token: Option<Token>,
    /// Files of a mesh, in place of one that runs: as `meshward up` takes them; may be repeated.
    #[arg(short, long, value_name = "FILE|DIR|-")]
    filename: Vec<PathBuf>,
    /// Namespace of the workload [default: default]
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    /// Fail if the status is another one.
    #[arg(long, value_name = "STATUS", value_parser = status)]
    expect: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// The argument of `--token`; never shown.
#[derive(Clone)]
struct Token(String);

impl From<&str> for Token {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[hidden]")
    }
}

impl Token {
    fn read(&self) -> Result<String, Failure> {
        let text = match self.0.strip_prefix('@') {
            None => self.0.clone(),
            Some("-") => {
                let mut text = String::new();
                std::io::Read::read_to_string(&mut std::io::stdin(), &mut text)
                    .map_err(|e| Failure::Data(vec![format!("stdin: {}", files::words(&e))]))?;
                text
            }
            Some(path) => {
                files::read_text(path.as_ref()).map_err(|message| Failure::Data(vec![message]))?
            }
        };
        Ok(text.trim().to_owned())
    }
}

fn status(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(status) if text.len() == 3 && (status == 0 || (100..600).contains(&status)) => {
            Ok(status)
        }
        _ => Err("a status has three digits; 000 stands for no answer".into()),
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let mut headers = arguments.headers;
    if let Some(token) = &arguments.token {
        headers.push(format!("authorization: Bearer {}", token.read()?));
    }
    let asked = Asked {
        from: arguments.from,
        namespace: arguments.namespace,
        to: arguments.to,
        method: arguments.method,
        path: arguments.path,
        headers,
    };
    let question = question(&asked)?;
    let (text, account) = if arguments.filename.is_empty() {
        let folder = Folder::of(&arguments.which)?;
        protocol::look(&folder, Ask::Explain(asked))?
    } else {
        let mut plane = plane(&arguments.filename)?;
        answer(&mut plane, &question)?
    };
    match arguments.output {
        Output::Text => say::out(text),
        Output::Json => say::out(format_args!("{account:#}")),
    }
    let got = account["verdict"]["status"].as_u64().unwrap_or_default();
    match arguments.expect {
        Some(expected) if u64::from(expected) != got => {
            say::err(format_args!(
                "error: {expected:03} was expected, the answer would be {got:03}"
            ));
            Ok(ExitCode::FAILURE)
        }
        Some(_) | None => Ok(ExitCode::SUCCESS),
    }
}

/// The mesh that files describe. Warnings go to stderr.
fn plane(paths: &[PathBuf]) -> Result<Plane, Failure> {
    let texts = texts(apply::read_all(paths)?);
    let objects = load_objects(&texts, "default", false).map_err(data)?;
    let mut plane = Plane::new();
    plane.apply(objects.objects, machine::now()).map_err(data)?;
    for warning in objects.warnings.iter().chain(plane.warnings()) {
        say::err(warning);
    }
    Ok(plane)
}

/// Fails with the words of whoever asked.
pub(crate) fn question(asked: &Asked) -> Result<Question, Failure> {
    let namespace = asked.namespace.as_deref();
    let Asked {
        from,
        to,
        method,
        path,
        headers,
        ..
    } = asked;
    Question::new(from, namespace, to, method, path, headers)
        .map_err(|e| Failure::Usage(e.to_string()))
}

/// The account, for people and as JSON.
pub(crate) fn answer(
    plane: &mut Plane,
    question: &Question,
) -> Result<(String, serde_json::Value), Failure> {
    let account: Account = explain(plane, question, machine::now()).map_err(|e| match e {
        ExplainError::Workload(_) | ExplainError::Host { .. } => {
            Failure::Data(vec![format!("error: {e}")])
        }
        ExplainError::Snapshot(_) => Failure::Machine(e.to_string()),
    })?;
    let json = serde_json::to_value(&account)
        .map_err(|e| Failure::Machine(format!("the account makes no JSON: {e}")))?;
    Ok((account.to_string(), json))
}
