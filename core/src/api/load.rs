//! Reads YAML into typed resources, with findings.
//!
//! The way in for every file that holds resources: text to trees ([`yaml`]), trees to types ([`reader`] and a `read` beside
//! each type), all that is wrong at once. Opens no files; a caller brings texts and says what they are called.

use std::fmt;
use std::sync::Arc;

use super::authorization_policy::AuthorizationPolicy;
pub use super::finding::{Cause, Finding, Severity};
use super::mesh_config::MeshConfig;
use super::object::{Key, Object};
use super::peer_authentication::PeerAuthentication;
use super::request_authentication::RequestAuthentication;
use documents::{Goal, Loader};
use reader::{Purpose, Report};
use yaml::{Node, Value};

mod documents;
pub mod grammar;
mod kinds;
pub mod proto;
pub mod reader;
pub mod yaml;

/// Bytes of one text; what is larger is no configuration.
pub const TEXT_MAX: usize = 16 * 1024 * 1024;

/// One file as its reader found it.
#[derive(Clone, Debug)]
pub struct Text {
    /// How findings call it.
    pub name: Arc<str>,
    /// YAML or JSON, any number of documents.
    pub text: String,
}

/// What texts hold. Resources with an error of their own are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    pub authorization_policies: Vec<AuthorizationPolicy>,
    pub peer_authentications: Vec<PeerAuthentication>,
    pub request_authentications: Vec<RequestAuthentication>,
    /// From a `mesh:` or `meshConfig:` document, or the ConfigMap `istio`; `None`: Istio's defaults.
    pub mesh_config: Option<MeshConfig>,
    /// In the order of the texts and of their lines.
    pub findings: Vec<Finding>,
}

impl Loaded {
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(Finding::is_error)
    }

    fn push(&mut self, object: Object) {
        match object {
            Object::AuthorizationPolicy(policy) => self.authorization_policies.push(policy),
            Object::PeerAuthentication(policy) => self.peer_authentications.push(policy),
            Object::RequestAuthentication(policy) => self.request_authentications.push(policy),
            Object::MeshConfig(_, config) => self.mesh_config = Some(config),
            Object::Deployment(_)
            | Object::Namespace(_)
            | Object::Pod(_)
            | Object::Service(_)
            | Object::ServiceAccount(_) => {}
        }
    }
}

/// The objects of a mesh as texts describe them, in the order of the texts and of their lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// No two of one key.
    pub objects: Vec<Object>,
    /// What was passed over, and what is accepted but doubtful.
    pub warnings: Vec<Finding>,
}

/// Why nothing was loaded: every finding, warnings too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub findings: Vec<Finding>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, finding) in self.findings.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

/// Whether texts are valid Istio (S-170 to S-179), enforced here or not.
///
/// Kinds without rules to judge them by yield errors with [`Cause::NotJudged`].
pub fn validate(texts: &[Text], default_namespace: &str) -> Loaded {
    load(texts, default_namespace, Purpose::Validate)
}

/// Reads texts to act on them: everything they say is valid and enforced, or nothing is loaded.
///
/// A policy that is left out would let through what it forbids, so one error refuses all of them.
pub fn load_for_enforcement(texts: &[Text], default_namespace: &str) -> Result<Loaded, Refused> {
    let loaded = load(texts, default_namespace, Purpose::Enforce);
    if loaded.has_errors() {
        let findings = loaded.findings;
        return Err(Refused { findings });
    }
    Ok(loaded)
}

/// Reads one text that is a `meshConfig` and nothing else, to act on it.
pub fn load_mesh_config(text: &Text) -> Result<MeshConfig, Refused> {
    let mut report = Report::new(Arc::clone(&text.name), Purpose::Enforce);
    let config = read_embedded_mesh_config(&text.text, &mut report);
    match config {
        Some(config) if report.errors() == 0 => Ok(config),
        _ => Err(Refused {
            findings: report.into_findings(),
        }),
    }
}

/// Reads all that a mesh is made of, as `kubectl apply -f` reads it: everything is valid and enforced, or nothing is loaded.
///
/// Kubernetes' own kinds are read for the fields that matter here; Istio's are as in [`load_for_enforcement`]. What a mesh has
/// no use for, and kinds of workloads that are not run here, yield one warning each; `strict`: one error each.
/// `default_namespace` is for resources that name none.
pub fn load_objects(
    texts: &[Text],
    default_namespace: &str,
    strict: bool,
) -> Result<Objects, Refused> {
    let mut loader = Loader::new(Goal::Objects, default_namespace);
    let warnings = run(&mut loader, texts, Purpose::Enforce, strict);
    refuse_errors(&warnings)?;
    Ok(Objects {
        objects: loader.objects,
        warnings,
    })
}

/// What is to be said about texts whose validity is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Valid is what has no error among them.
    pub findings: Vec<Finding>,
    /// What is valid, and would refuse a load because nothing here acts on it.
    pub not_enforced: Vec<Finding>,
}

/// Judges all that a mesh is made of, read as [`load_objects`] reads it.
///
/// Kinds without rules to judge them by yield errors with [`Cause::NotJudged`].
pub fn validate_objects(texts: &[Text], default_namespace: &str, strict: bool) -> Judged {
    let mut loader = Loader::new(Goal::Objects, default_namespace);
    let mut judged = Judged::default();
    for text in texts {
        let mut report = Report::new(Arc::clone(&text.name), Purpose::Validate);
        report.strict(strict);
        loader.text(&text.text, &mut report);
        judged.not_enforced.extend(report.take_not_enforced());
        judged.findings.extend(report.into_findings());
    }
    judged
}

/// Reads which objects texts name, for their removal: `apiVersion`, `kind` and `metadata` alone count.
///
/// What [`load_objects`] passes over is passed over here too; any other kind that no mesh holds is an error, as are two of
/// one key.
pub fn load_keys(texts: &[Text], default_namespace: &str) -> Result<Vec<Key>, Refused> {
    load_keys_and_warnings(texts, default_namespace).map(|(keys, _)| keys)
}

/// As [`load_keys`], with a warning for each resource that was passed over.
pub fn load_keys_and_warnings(
    texts: &[Text],
    default_namespace: &str,
) -> Result<(Vec<Key>, Vec<Finding>), Refused> {
    let mut loader = Loader::new(Goal::Keys, default_namespace);
    let findings = run(&mut loader, texts, Purpose::Enforce, false);
    refuse_errors(&findings)?;
    Ok((loader.keys, findings))
}

fn load(texts: &[Text], default_namespace: &str, purpose: Purpose) -> Loaded {
    let mut loader = Loader::new(Goal::Policies, default_namespace);
    let mut loaded = Loaded {
        findings: run(&mut loader, texts, purpose, false),
        ..Loaded::default()
    };
    for object in loader.objects {
        loaded.push(object);
    }
    loaded
}

fn run(loader: &mut Loader<'_>, texts: &[Text], purpose: Purpose, strict: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for text in texts {
        let mut report = Report::new(Arc::clone(&text.name), purpose);
        report.strict(strict);
        loader.text(&text.text, &mut report);
        findings.extend(report.into_findings());
    }
    findings
}

fn refuse_errors(findings: &[Finding]) -> Result<(), Refused> {
    if findings.iter().any(Finding::is_error) {
        let findings = findings.to_vec();
        return Err(Refused { findings });
    }
    Ok(())
}

/// The tree of one document, its repeated keys reported; `None` if there is none or it cannot be read.
pub fn read_tree(text: &str, report: &mut Report) -> Option<Node> {
    match yaml::parse(text) {
        Err(error) => {
            report.add(
                error.place,
                Severity::Error,
                Cause::Invalid,
                error.message,
                error.hint.map(str::to_owned),
            );
            None
        }
        Ok(document) => {
            for key in &document.repeated {
                let message = format!("`{}` occurs twice in one map", key.name);
                report.invalid(key.place, message, "keep one of them");
            }
            document.root.filter(|root| root.value != Value::Null)
        }
    }
}

/// An empty text is a `meshConfig` without fields.
fn read_embedded_mesh_config(text: &str, report: &mut Report) -> Option<MeshConfig> {
    let before = report.errors();
    match read_tree(text, report) {
        Some(root) => MeshConfig::read(&root, report),
        None => (report.errors() == before).then(MeshConfig::default),
    }
}

#[cfg(test)]
mod tests;
