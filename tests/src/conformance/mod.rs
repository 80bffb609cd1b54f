//! Runs the conformance corpus (`meshward-conformance/1`) against this project.
//!
//! A check is run, or skipped with its reason: a feature that it needs and that is lacking, or its kind. What is lacking is
//! never passed by luck, so a check that cannot be set up although its needs are met fails. A case is independent of
//! every other; nothing here asks a clock, a socket or the network.

mod app;
pub(crate) mod cert;
mod client;
mod corpus;
mod mesh;
mod probe;
mod pure;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use meshward_core::api::load::yaml::Node;
use meshward_core::api::peer_authentication::Mode;
use meshward_core::snapshot::mtls::{EndpointFacts, auto_mtls};
use meshward_simulator::clock::BIRTH;
use serde_json::{Value as Json, json};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use cert::Authorities;
pub use corpus::Unreadable;
use corpus::{Case, Check, Given, Workload};
use mesh::{Rules, Scope};
use probe::{Seen, probe};
pub(crate) use tree::plain_json;

/// Features (FORMAT.md, "Needs") that the kinds which are run have.
pub const FEATURES: &[&str] = &[
    "access-log",
    "analyzer",
    "audit",
    "authz",
    "detection-timeout",
    "mesh-mtls",
    "outbound",
    "path-normalization",
    "peer-auth",
    "raw-tls",
    "spiffe-validation",
    "trust-domain",
    "xfcc",
];

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Every `*.yaml` in it and below it, but fixtures.
    pub folder: PathBuf,
    /// `None`: `fixtures.yaml` in the folder or in its parent.
    pub fixtures: Option<PathBuf>,
    pub theme: Option<String>,
    /// Of a case or of a check.
    pub id: Option<String>,
}

/// Why nothing was run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The options name what is not there.
    #[error("{0}")]
    Nothing(String),
}

/// What became of a check.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Passed,
    Failed {
        expected: Json,
        /// Of the expected fields, what was found; or, in words, why nothing was.
        got: Json,
    },
    /// `kind NAME`, or the lacking features.
    Skipped(String),
}

/// A check and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub id: String,
    pub kind: String,
    pub rule: Vec<String>,
    pub verdict: Verdict,
}

/// What became of all of them, in the order of the files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub checks: Vec<Judged>,
}

impl Report {
    /// Passed, failed, skipped.
    pub fn counts(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        for check in &self.checks {
            counts[match check.verdict {
                Verdict::Passed => 0,
                Verdict::Failed { .. } => 1,
                Verdict::Skipped(_) => 2,
            }] += 1;
        }
        counts
    }

    pub fn to_json(&self) -> Json {
        let [passed, failed, skipped] = self.counts();
        let checks = self.checks.iter().map(|check| {
            let mut row = json!({"id": check.id, "kind": check.kind, "rule": check.rule});
            match &check.verdict {
                Verdict::Passed => row["result"] = "passed".into(),
                Verdict::Failed { expected, got } => {
                    row["result"] = "failed".into();
                    row["expected"] = expected.clone();
                    row["got"] = got.clone();
                }
                Verdict::Skipped(reason) => {
                    row["result"] = "skipped".into();
                    row["reason"] = reason.as_str().into();
                }
            }
            row
        });
        json!({
            "format": "meshward-conformance-report/1",
            "passed": passed,
            "failed": failed,
            "skipped": skipped,
            "checks": checks.collect::<Vec<_>>(),
        })
    }
}

/// A line for each check that did not pass, and the counts in the last one.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let id = &check.id;
            match &check.verdict {
                Verdict::Passed => {}
                Verdict::Failed { expected, got } => {
                    let rule = check.rule.join(", ");
                    writeln!(f, "failed {id}: expected {expected}, got {got} ({rule})")?;
                }
                Verdict::Skipped(reason) => writeln!(f, "skipped {id}: {reason}")?,
            }
        }
        let [passed, failed, skipped] = self.counts();
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Runs what `options` choose.
pub fn run(options: &Options) -> Result<Report, Refused> {
    let cases = read(options)?;
    let mut report = Report::default();
    let mut authorities = Authorities::new(BIRTH);
    for case in &cases {
        for check in &case.checks {
            let chosen = options
                .id
                .as_ref()
                .is_none_or(|id| *id == case.id || *id == check.id);
            if chosen {
                report.checks.push(Judged {
                    id: check.id.clone(),
                    kind: check.kind.clone(),
                    rule: check.rule.clone(),
                    verdict: judge(case, check, &mut authorities),
                });
            }
        }
    }
    if report.checks.is_empty() {
        let wanted = [("theme", &options.theme), ("id", &options.id)];
        let wanted = wanted.iter().filter_map(|(what, value)| {
            let value = value.as_ref()?;
            Some(format!("{what} `{value}`"))
        });
        let wanted: Vec<_> = wanted.collect();
        let folder = options.folder.display();
        return Err(Refused::Nothing(match wanted.is_empty() {
            true => format!("no case in {folder}"),
            false => format!("no check of {} in {folder}", wanted.join(" and ")),
        }));
    }
    Ok(report)
}

fn read(options: &Options) -> Result<Vec<Case>, Refused> {
    let folder = &options.folder;
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    let fixtures = match &options.fixtures {
        Some(file) => file.clone(),
        None => [folder.join(FIXTURES), folder.join("..").join(FIXTURES)]
            .into_iter()
            .find(|file| file.is_file())
            .ok_or_else(|| {
                let folder = folder.display();
                Refused::Nothing(format!("no {FIXTURES} in {folder} or in its parent"))
            })?,
    };
    let meshes = corpus::read_fixtures(&fixtures)?;
    let mut ids = BTreeSet::new();
    let mut cases = Vec::new();
    for file in files {
        for case in corpus::read_cases(&file, &meshes)? {
            let checks = case.checks.iter().map(|check| (&check.id, check.line));
            for (id, line) in checks.chain([(&case.id, case.line)]) {
                if !ids.insert(id.clone()) {
                    return Err(Refused::Unreadable(Unreadable {
                        file,
                        line,
                        message: format!("a second `{id}`"),
                    }));
                }
            }
            if options
                .theme
                .as_deref()
                .is_none_or(|theme| *case.theme == *theme)
            {
                cases.push(case);
            }
        }
    }
    Ok(cases)
}

const FIXTURES: &str = "fixtures.yaml";

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Refused> {
    let cannot = |error: std::io::Error| Refused::Nothing(format!("{}: {error}", folder.display()));
    let mut entries = fs::read_dir(folder)
        .map_err(cannot)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(cannot)?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
            && path.file_name().is_none_or(|name| name != FIXTURES)
        {
            files.push(path);
        }
    }
    Ok(())
}

/// The features that a check needs and that are lacking, in the order of their names. What a case plainly needs counts
/// whether or not its lists say so.
fn lacking<'c>(case: &'c Case, check: &'c Check) -> BTreeSet<&'c str> {
    let listed = case.needs.iter().chain(&check.needs).map(String::as_str);
    let mut needs: BTreeSet<&str> = listed.collect();
    if case.legacy {
        needs.insert("legacy");
    }
    if corpus::says_something(case.mesh.mesh_config.get("env")) {
        needs.insert("feature-flags");
    }
    if corpus::says_something(case.mesh.mesh_config.get("caCertificates")) {
        needs.insert("extra-ca");
    }
    if let Some(Given::EffectiveMtls { workload, .. } | Given::TlsProbe { workload, .. }) =
        &check.given
        && case.mesh.by_name.get(workload).is_some_and(|w| w.gateway)
    {
        needs.insert("gateway");
    }
    needs.retain(|need| !FEATURES.contains(need));
    needs
}

fn judge(case: &Case, check: &Check, authorities: &mut Authorities) -> Verdict {
    let lacking = lacking(case, check);
    if !lacking.is_empty() {
        let lacking: Vec<&str> = lacking.into_iter().collect();
        return Verdict::Skipped(format!("needs {}", lacking.join(", ")));
    }
    let Some(given) = &check.given else {
        return Verdict::Skipped(format!("kind {}", check.kind));
    };
    if let Given::Pure(question) = given
        && let Some(kind) = question.unjudged()
    {
        return Verdict::Skipped(format!("kind {kind}"));
    }
    let expected = |name: &str| check.expect.get(name).map(plain_json);
    let found = find(case, given, &expected, authorities);
    let all = check
        .expect
        .iter()
        .map(|(name, node)| (name.clone(), plain_json(node)));
    let expected_all = Json::Object(all.collect());
    match found {
        Err(words) => Verdict::Failed {
            expected: expected_all,
            got: Json::String(words),
        },
        Ok(found) => {
            compare(&check.expect, &found).map_or(Verdict::Passed, |got| Verdict::Failed {
                expected: expected_all,
                got,
            })
        }
    }
}

/// `None` if every expected field is as it should be, else what was found of them.
fn compare(expect: &BTreeMap<String, Node>, found: &BTreeMap<&str, Json>) -> Option<Json> {
    let mut right = true;
    let mut got = serde_json::Map::new();
    for (name, node) in expect {
        let want = plain_json(node);
        let value = found.get(name.as_str()).cloned().unwrap_or(Json::Null);
        right &= match (name.as_str(), &want, &value) {
            // Contained in the certificate.
            ("peer_uri_san" | "peer_dns_san", want, Json::Array(names)) => names.contains(want),
            ("handshake", Json::String(want), Json::String(got)) if want == "refused" => {
                got == "fail" || got == "reset"
            }
            (_, want, value) => found.contains_key(name.as_str()) && want == value,
        };
        got.insert(name.clone(), value);
    }
    (!right).then_some(Json::Object(got))
}

/// What is so, by the names of `expect`.
fn find(
    case: &Case,
    given: &Given,
    expected: &dyn Fn(&str) -> Option<Json>,
    authorities: &mut Authorities,
) -> Result<BTreeMap<&'static str, Json>, String> {
    match given {
        Given::Pure(question) => question.answer(authorities, &mut mesh::substitute),
        Given::EffectiveMtls { workload, port } => {
            let workload = workload_of(case, workload)?;
            let rules = Rules::of(case, Scope::Modes, authorities)?;
            let mode = match rules.effective_mode(workload, *port) {
                Mode::Strict => "STRICT",
                Mode::Permissive => "PERMISSIVE",
                Mode::Disable => "DISABLE",
                Mode::Unset => "UNSET",
            };
            Ok(BTreeMap::from([("mode", mode.into())]))
        }
        Given::AutoMtls {
            headless,
            external,
            endpoints,
        } => {
            // There is no policy in these checks (FORMAT.md).
            let mode = Mode::Permissive;
            let facts: Vec<EndpointFacts> = endpoints
                .iter()
                .map(|&tls_mode_istio| EndpointFacts {
                    tls_mode_istio,
                    mode,
                })
                .collect();
            let on = corpus::auto_mtls_is_on(&case.mesh)?;
            let answers = auto_mtls(on, *external, *headless, mode, &facts);
            let words = answers
                .into_iter()
                .map(|mtls| Json::from(if mtls { "mtls" } else { "plaintext" }));
            Ok(BTreeMap::from([("endpoints", words.collect())]))
        }
        Given::TlsProbe {
            workload,
            port,
            client,
        } => {
            let workload = workload_of(case, workload)?;
            let rules = Rules::of(case, Scope::Inbound, authorities)?;
            let wanted = |name: &str| expected(name).is_some();
            let ask = wanted("http_status") || wanted("curl_exit");
            seen(probe(
                case,
                &rules,
                authorities,
                workload,
                *port,
                client,
                ask,
            )?)
        }
    }
}

fn workload_of<'c>(case: &'c Case, name: &str) -> Result<&'c Workload, String> {
    let found = case.mesh.by_name.get(name);
    found.ok_or_else(|| format!("the mesh has no workload `{name}`"))
}

fn seen(seen: Seen) -> Result<BTreeMap<&'static str, Json>, String> {
    let mut found = BTreeMap::from([("handshake", Json::from(seen.handshake))]);
    found.insert("alert", seen.journal.alert.into());
    if seen.journal.established {
        found.insert("alpn", seen.journal.alpn.into());
    }
    found.insert("curl_exit", seen.curl_exit.into());
    found.insert("http_status", seen.http_status.into());
    if let Some(leaf) = seen.journal.chain.first() {
        let (_, leaf) = X509Certificate::from_der(leaf)
            .map_err(|error| format!("the server's certificate is none: {error}"))?;
        let names = leaf.subject_alternative_name().ok().flatten();
        let names = names.map_or(&[][..], |names| &names.value.general_names);
        let all = |name: fn(&GeneralName<'_>) -> Option<Json>| -> Json {
            Json::Array(names.iter().filter_map(name).collect())
        };
        found.insert(
            "peer_uri_san",
            all(|name| match name {
                GeneralName::URI(uri) => Some(Json::from(*uri)),
                _ => None,
            }),
        );
        found.insert(
            "peer_dns_san",
            all(|name| match name {
                GeneralName::DNSName(dns) => Some(Json::from(*dns)),
                _ => None,
            }),
        );
    }
    Ok(found)
}
