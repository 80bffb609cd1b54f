//! Runs the conformance corpus (`meshward-conformance/1`) against this project.
//!
//! A check is run, or skipped with its reason: a feature that it needs and that is lacking, or its kind. What is lacking is
//! never passed by luck, so a check that cannot be set up although its needs are met fails. A case is independent of
//! every other. In the simulator nothing asks a clock, a socket or the network.

mod app;
mod bytes;
mod caller;
pub(crate) mod cert;
mod checks;
mod client;
mod corpus;
mod http;
mod keys;
mod lies;
mod made;
mod pure;
pub mod questions;
mod real;
mod rename;
mod request;
mod scene;
mod stage;
mod town;
mod tree;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use meshward_core::api::load::yaml::Node;
use meshward_core::api::peer_authentication::Mode;
use meshward_core::snapshot::mtls::{EndpointFacts, auto_mtls};
use meshward_simulator::clock::BIRTH;
use serde_json::{Value as Json, json};

use bytes::Found;
use cert::Authorities;
use checks::{Check, Given};
use corpus::Case;
pub use corpus::Unreadable;
use keys::Keys;
use real::Real;
use scene::{Quirks, Scene};
use stage::{Simulated, Stage};
pub(crate) use tree::plain_json;
use words::Makers;

/// Features (FORMAT.md, "Needs") that the kinds which are run have.
pub const FEATURES: &[&str] = &[
    "access-log",
    "analyzer",
    "app-tls",
    "audit",
    "authz",
    "detection-timeout",
    "grpc",
    "jwt",
    "mesh-mtls",
    "outbound",
    "path-normalization",
    "peer-auth",
    "raw-tls",
    "retry",
    "spiffe-validation",
    "tcp",
    "trust-domain",
    "xfcc",
];

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Every `*.yaml` in it and below it, but fixtures.
    pub folder: PathBuf,
    /// `None`: `fixtures.yaml` in the folder, in its parent, or in the shared corpus.
    pub fixtures: Option<PathBuf>,
    pub theme: Option<String>,
    /// Of a case or of a check.
    pub id: Option<String>,
    /// Names, ports and values are others than the files say, everywhere alike.
    pub renamed: bool,
    pub driver: Driver,
    /// Each value that a check expects is also changed by itself, and must not be found then.
    pub doubting: bool,
}

/// What carries the bytes of a mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// Virtual time in one process; equal runs are equal.
    #[default]
    Simulator,
    /// Sidecars over sockets of this host, in its time. What only virtual time shows is skipped with that reason.
    Tokio,
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
    /// How many changed expectations were tried.
    pub doubts: usize,
    /// Those that were found although they are wrong: check and expectation.
    pub believed: Vec<(String, Json)>,
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
    let mut makers = Makers {
        authorities: Authorities::new(match options.driver {
            Driver::Simulator => BIRTH,
            Driver::Tokio => real::wall(),
        }),
        keys: Keys::default(),
    };
    for case in &cases {
        let other = options.renamed.then(|| rename::renamed(case));
        let case = other.as_ref().unwrap_or(case);
        let mut stages = Stages::new(case, options.driver);
        for check in &case.checks {
            let chosen = options
                .id
                .as_ref()
                .is_none_or(|id| *id == case.id || *id == check.id);
            if !chosen {
                continue;
            }
            let doubts = match options.doubting {
                true => lies::of(&check.expect),
                false => Vec::new(),
            };
            let (verdict, believed) = judge(&mut stages, check, &doubts, &mut makers);
            if verdict == Verdict::Passed {
                report.doubts += doubts.len();
            }
            let believed = believed.into_iter();
            report
                .believed
                .extend(believed.map(|lie| (check.id.clone(), lie)));
            report.checks.push(Judged {
                id: check.id.clone(),
                kind: check.kind.clone(),
                rule: check.rule.clone(),
                verdict,
            });
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
        None => [
            folder.join(FIXTURES),
            folder.join("..").join(FIXTURES),
            shared().join("corpus").join(FIXTURES),
        ]
        .into_iter()
        .find(|file| file.is_file())
        .ok_or_else(|| {
            let folder = folder.display();
            Refused::Nothing(format!("no {FIXTURES} in {folder}, above it, or shared"))
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

/// The folder of the shared material: `MESHWARD_SHARED`, or `../shared` beside the project.
pub fn shared() -> PathBuf {
    match env::var_os("MESHWARD_SHARED") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    }
}

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

/// A case, and the scene that its checks share, in their order.
struct Stages<'c> {
    case: &'c Case,
    driver: Driver,
    scene: Option<Result<Scene, String>>,
}

impl<'c> Stages<'c> {
    fn new(case: &'c Case, driver: Driver) -> Self {
        Self {
            case,
            driver,
            scene: None,
        }
    }

    fn stage(&self) -> Box<dyn Stage> {
        match self.driver {
            Driver::Simulator => Box::new(Simulated::new()),
            Driver::Tokio => Box::new(Real::new()),
        }
    }

    /// Why a check of a kind that is run is not run here.
    fn unfit(&self, given: &Given) -> Option<&'static str> {
        const LONG: Duration = Duration::from_secs(2);
        match (self.driver, given) {
            (Driver::Simulator, _) => None,
            (Driver::Tokio, Given::Retry { .. }) => Some("needs counted links"),
            (Driver::Tokio, given) => (given.waits() > LONG).then_some("needs virtual time"),
        }
    }

    fn scene(&mut self, makers: &mut Makers) -> Result<&mut Scene, String> {
        if self.scene.is_none() {
            let scene = Scene::new(self.case, &Quirks::default(), makers, self.stage());
            self.scene = Some(scene);
        }
        match self.scene.as_mut() {
            Some(Ok(scene)) => Ok(scene),
            Some(Err(error)) => Err(error.clone()),
            None => Err("there is no scene".into()),
        }
    }
}

/// Judges a check, and which of `doubts` would pass too.
fn judge(
    stages: &mut Stages<'_>,
    check: &Check,
    doubts: &[Expect],
    makers: &mut Makers,
) -> (Verdict, Vec<Json>) {
    let lacking = lacking(stages.case, check);
    if !lacking.is_empty() {
        let lacking: Vec<&str> = lacking.into_iter().collect();
        let reason = format!("needs {}", lacking.join(", "));
        return (Verdict::Skipped(reason), Vec::new());
    }
    let Some(given) = &check.given else {
        let reason = format!("kind {}", check.kind);
        return (Verdict::Skipped(reason), Vec::new());
    };
    if let Some(reason) = stages.unfit(given) {
        return (Verdict::Skipped(reason.into()), Vec::new());
    }
    let mut believed = doubts.to_vec();
    // Some things are done several times, and all have to come out as they should.
    let mut one = |got: request::Held<'_>| {
        believed.retain(|doubt| got(doubt).is_none());
        got(&check.expect)
    };
    if let Given::Pure(question) = given
        && let Some(kind) = question.unjudged()
    {
        return (Verdict::Skipped(format!("kind {kind}")), Vec::new());
    }
    let got = match given {
        Given::Request(request) => stages
            .scene(makers)
            .and_then(|scene| request::run(scene, request, makers, &mut one)),
        _ => find(stages, given, check, makers)
            .map(|found| one(&|expect: &Expect| compare(expect, &found))),
    };
    let got = match got {
        Ok(None) => {
            let believed = believed.iter().map(words_of).collect();
            return (Verdict::Passed, believed);
        }
        Ok(Some(got)) => got,
        Err(words) => Json::String(words),
    };
    let expected = words_of(&check.expect);
    (Verdict::Failed { expected, got }, Vec::new())
}

/// What a check expects, by name.
type Expect = BTreeMap<String, Node>;

fn words_of(expect: &Expect) -> Json {
    let fields = expect.iter();
    let fields = fields.map(|(name, node)| (name.clone(), plain_json(node)));
    Json::Object(fields.collect())
}

/// `None` if every expected field is as it should be, else what was found of them.
fn compare(expect: &Expect, found: &Found) -> Option<Json> {
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
            ("decision", want, value) => bytes::decision_fits(want, value),
            ("elements", want, value) => pure::elements_fit(want, value),
            (_, want, value) => found.contains_key(name.as_str()) && want == value,
        };
        got.insert(name.clone(), value);
    }
    (!right).then_some(Json::Object(got))
}

/// What is so, by the names of `expect`.
fn find(
    stages: &mut Stages<'_>,
    given: &Given,
    check: &Check,
    makers: &mut Makers,
) -> Result<Found, String> {
    match given {
        Given::EffectiveMtls { workload, port } => {
            let mode = stages.scene(makers)?.mode(workload, *port);
            let mode = mode.ok_or_else(|| format!("the mesh has no workload `{workload}`"))?;
            let mode = match mode {
                Mode::Strict => "STRICT",
                Mode::Permissive => "PERMISSIVE",
                Mode::Disable => "DISABLE",
                Mode::Unset => "UNSET",
            };
            Ok(Found::from([("mode", mode.into())]))
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
            let on = stages.scene(makers)?.is_auto_mtls_on();
            let answers = auto_mtls(on, *external, *headless, mode, &facts);
            let words = answers
                .into_iter()
                .map(|mtls| Json::from(if mtls { "mtls" } else { "plaintext" }));
            Ok(Found::from([("endpoints", words.collect())]))
        }
        Given::TlsProbe {
            workload,
            port,
            client,
        } => {
            let asked = ["http_status", "curl_exit"];
            let ask = asked.iter().any(|name| check.expect.contains_key(*name));
            let scene = stages.scene(makers)?;
            bytes::probe(scene, workload, *port, client, ask, makers)
        }
        Given::Request(_) => Err("a request is judged as a whole".into()),
        Given::Pure(question) => question.answer(makers),
        Given::Tcp { from, to, tls } => {
            bytes::tcp(stages.scene(makers)?, from, to, tls.as_ref(), makers)
        }
        Given::Timeline { from, to, send } => {
            bytes::timeline(stages.scene(makers)?, from, to, send, makers)
        }
        Given::ClientHello { from, to, http } => {
            let quirks = Quirks {
                ear: Some((from.clone(), to.clone())),
                ..Quirks::default()
            };
            let stage = stages.stage();
            let mut scene = Scene::new(stages.case, &quirks, makers, stage)?;
            bytes::client_hello(&mut scene, from, to, *http, makers)
        }
        Given::Sniff {
            mode,
            kind,
            timeout,
            send,
        } => made::sniff((*mode, *kind), *timeout, send, makers, stages.stage()),
        Given::Retry { outbound, failure } => {
            made::retry(*outbound, *failure, makers, stages.stage())
        }
    }
}
