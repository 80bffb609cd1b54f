//! Case files and fixtures as typed values, each fault with its file and line.
//!
//! Knows nothing of what a check means.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meshward_core::api::load::yaml::{self, Node, Value};

use super::checks::{Check, address};
use super::tree::{Fault, Fields, fault, list, number, text};

/// A file that cannot be read, or not be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Unreadable {
    pub file: PathBuf,
    /// From 1.
    pub line: u32,
    pub message: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

/// One case, its mesh already changed by `mesh_config` and `mesh_patch`.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) theme: Arc<str>,
    pub(super) id: String,
    pub(super) line: u32,
    pub(super) legacy: bool,
    pub(super) needs: Vec<String>,
    pub(super) mesh: Mesh,
    /// Documents of the case's own resources.
    pub(super) resources: Vec<Node>,
    pub(super) checks: Vec<Check>,
}

#[derive(Clone, Debug)]
pub(super) struct Mesh {
    legacy: bool,
    /// The top level of `meshConfig`, and `env`.
    pub(super) mesh_config: BTreeMap<String, Node>,
    workloads: Vec<Node>,
    pub(super) services: Vec<Service>,
    /// Documents of the fixture's resources.
    pub(super) resources: Vec<Node>,
    pub(super) by_name: BTreeMap<String, Workload>,
    /// Clients outside of the cluster.
    pub(super) external: BTreeMap<String, IpAddr>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Workload {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) ip: IpAddr,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) service_account: String,
    pub(super) sidecar: bool,
    pub(super) gateway: bool,
    /// Of its certificate, where it is not the mesh's.
    pub(super) trust_domain: Option<String>,
    pub(super) app: App,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum App {
    Echo { greetings: BTreeMap<u16, String> },
    Https,
    Routes { routes: Vec<Route>, default: u16 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) path: String,
    pub(super) prefix: bool,
    pub(super) status: u16,
    /// Made before it answers, in turn.
    pub(super) calls: Vec<Call>,
    /// Its answer where one of them got no 200.
    pub(super) on_call_failure: u16,
}

/// `GET path` of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) headless: bool,
    /// Said of who may see it.
    pub(super) export_to: Option<String>,
    pub(super) selector: BTreeMap<String, String>,
    pub(super) ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServicePort {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) target: u16,
}

/// A file and its only document.
fn open(file: &Path) -> Result<Node, Unreadable> {
    let unreadable = |line, message| Unreadable {
        file: file.to_owned(),
        line,
        message,
    };
    let content = fs::read_to_string(file).map_err(|error| unreadable(1, error.to_string()))?;
    let document =
        yaml::parse(&content).map_err(|wrong| unreadable(wrong.place.line, wrong.message))?;
    if let Some(key) = document.repeated.first() {
        let message = format!("`{}` stands twice", key.name);
        return Err(unreadable(key.place.line, message));
    }
    document
        .root
        .ok_or_else(|| unreadable(1, "the file is empty".into()))
}

fn in_file(file: &Path) -> impl Fn(Fault) -> Unreadable + '_ {
    |fault| Unreadable {
        file: file.to_owned(),
        line: fault.line,
        message: fault.message,
    }
}

/// Reads the named meshes of a fixtures file.
pub(super) fn read_fixtures(file: &Path) -> Result<BTreeMap<String, Mesh>, Unreadable> {
    let root = open(file)?;
    let read = || {
        let mut fields = Fields::of(&root, "the file")?;
        format(&mut fields, "meshward-fixtures/1")?;
        let meshes = fields.need("meshes")?;
        fields.end()?;
        let Value::Map(entries) = &meshes.value else {
            return fault(meshes, "the meshes are no map");
        };
        let mesh = |(key, node): &(yaml::Key, Node)| Ok((key.name.clone(), Mesh::read(node)?));
        entries.iter().map(mesh).collect::<Result<_, _>>()
    };
    read().map_err(in_file(file))
}

/// Reads the cases of a file.
pub(super) fn read_cases(
    file: &Path,
    meshes: &BTreeMap<String, Mesh>,
) -> Result<Vec<Case>, Unreadable> {
    let root = open(file)?;
    let read = || {
        let mut fields = Fields::of(&root, "the file")?;
        format(&mut fields, "meshward-conformance/1")?;
        let theme = Arc::from(fields.text("theme")?);
        fields.text("set")?;
        let cases = list(fields.need("cases")?)?;
        fields.end()?;
        cases
            .iter()
            .map(|node| Case::read(node, &theme, meshes))
            .collect::<Result<Vec<_>, _>>()
    };
    read().map_err(in_file(file))
}

fn format(fields: &mut Fields<'_>, known: &str) -> Result<(), Fault> {
    let node = fields.need("format")?;
    let format = text(node)?;
    if format == known {
        return Ok(());
    }
    fault(node, format!("the format is `{format}`, not `{known}`"))
}

impl Case {
    fn read(node: &Node, theme: &Arc<str>, meshes: &BTreeMap<String, Mesh>) -> Result<Self, Fault> {
        let mut fields = Fields::of(node, "a case")?;
        let id = fields.text("id")?.to_owned();
        for words in ["title", "origin", "note"] {
            fields.take(words);
        }
        let name = fields.need("mesh")?;
        let Some(mesh) = meshes.get(text(name)?) else {
            return fault(name, "the fixtures have no such mesh");
        };
        let mut mesh = mesh.clone();
        if let Some(config) = fields.take("mesh_config") {
            mesh.mesh_config.extend(top_level(config)?);
        }
        if let Some(patches) = fields.take("mesh_patch") {
            mesh.patch(list(patches)?)?;
        }
        let legacy = fields.take("profile").map_or(Ok(mesh.legacy), is_legacy)?;
        let case = Self {
            theme: Arc::clone(theme),
            id,
            line: node.place.line,
            legacy,
            needs: fields.texts("needs")?,
            mesh,
            resources: fields.take("resources").map_or(Ok(Vec::new()), documents)?,
            checks: list(fields.need("checks")?)?
                .iter()
                .map(Check::read)
                .collect::<Result<_, _>>()?,
        };
        fields.end()?;
        for check in &case.checks {
            check.fit(&case)?;
        }
        Ok(case)
    }

    /// A case without checks: a mesh, resources and fields of `meshConfig`, all but the last in YAML.
    pub(super) fn made(
        mesh: &str,
        resources: &str,
        config: &[(&str, String)],
    ) -> Result<Self, String> {
        let root = |text: &str| {
            let document = yaml::parse(text).map_err(|wrong| wrong.message)?;
            document.root.ok_or_else(|| "there is nothing".to_owned())
        };
        let mut mesh = Mesh::read(&root(mesh)?).map_err(|fault| fault.message)?;
        for (name, value) in config {
            mesh.mesh_config.insert((*name).to_owned(), root(value)?);
        }
        let mut documents = Vec::new();
        if !resources.is_empty() {
            documents.push(root(resources)?);
        }
        Ok(Self {
            theme: Arc::from(""),
            id: "made".into(),
            line: 1,
            legacy: false,
            needs: Vec::new(),
            mesh,
            resources: documents,
            checks: Vec::new(),
        })
    }

    /// Every document in force, and whether it is the fixture's.
    pub(super) fn documents(&self) -> impl Iterator<Item = (bool, &Node)> {
        let of_fixture = self.mesh.resources.iter().map(|document| (true, document));
        of_fixture.chain(self.resources.iter().map(|document| (false, document)))
    }
}

impl Mesh {
    fn read(node: &Node) -> Result<Self, Fault> {
        let mut fields = Fields::of(node, "a mesh")?;
        for unused in ["about", "authorizers"] {
            fields.take(unused);
        }
        let outside = fields.take("external").map_or(Ok(&[][..]), list)?;
        let client = |node| {
            let mut fields = Fields::of(node, "a client")?;
            let client = (
                fields.text("name")?.to_owned(),
                address(fields.need("ip")?)?,
            );
            fields.end()?;
            Ok(client)
        };
        let services = fields.take("services").map_or(Ok(&[][..]), list)?;
        let mut mesh = Self {
            legacy: fields.take("profile").map_or(Ok(false), is_legacy)?,
            mesh_config: fields
                .take("mesh_config")
                .map_or(Ok(BTreeMap::new()), top_level)?,
            workloads: list(fields.need("workloads")?)?.to_vec(),
            services: services
                .iter()
                .map(Service::read)
                .collect::<Result<_, _>>()?,
            resources: fields.take("resources").map_or(Ok(Vec::new()), documents)?,
            by_name: BTreeMap::new(),
            external: outside.iter().map(client).collect::<Result<_, _>>()?,
        };
        fields.end()?;
        mesh.settle()?;
        Ok(mesh)
    }

    /// Lays each patch over the workload of its name, or adds it.
    fn patch(&mut self, patches: &[Node]) -> Result<(), Fault> {
        for patch in patches {
            let Value::Map(changes) = &patch.value else {
                return fault(patch, "a patch is no map");
            };
            let name = Workload::full_name(patch)?;
            let mut found = None;
            for workload in &mut self.workloads {
                if Workload::full_name(workload)? == name {
                    found = Some(workload);
                    break;
                }
            }
            let Some(Node {
                value: Value::Map(entries),
                place,
            }) = found
            else {
                self.workloads.push(patch.clone());
                continue;
            };
            // Faults of what comes out stand where the patch does.
            *place = patch.place;
            for (key, node) in changes {
                entries.retain(|(old, _)| old.name != key.name);
                entries.push((key.clone(), node.clone()));
            }
        }
        self.settle()
    }

    fn settle(&mut self) -> Result<(), Fault> {
        self.by_name.clear();
        for node in &self.workloads {
            let workload = Workload::read(node)?;
            let name = format!("{}/{}", workload.namespace, workload.name);
            if self.by_name.insert(name, workload).is_some() {
                return fault(node, "a second workload of this name");
            }
        }
        Ok(())
    }
}

impl Workload {
    fn full_name(node: &Node) -> Result<String, Fault> {
        let mut fields = Fields::of(node, "a workload")?;
        Ok(format!("{}/{}", fields.text("ns")?, fields.text("name")?))
    }

    fn read(node: &Node) -> Result<Self, Fault> {
        let mut fields = Fields::of(node, "a workload")?;
        for unused in ["service", "gateway_ports"] {
            fields.take(unused);
        }
        let ip = fields.need("ip")?;
        let workload = Self {
            namespace: fields.text("ns")?.to_owned(),
            name: fields.text("name")?.to_owned(),
            ip: address(ip)?,
            labels: labels(fields.need("labels")?)?,
            service_account: fields.text("sa")?.to_owned(),
            sidecar: fields.flag("sidecar")?.unwrap_or(false),
            gateway: match fields.take("role") {
                None => false,
                Some(role) if text(role)? == "gateway" => true,
                Some(role) => return fault(role, "this is no role"),
            },
            trust_domain: fields
                .take("trustDomain")
                .map(|domain| text(domain).map(str::to_owned))
                .transpose()?,
            app: fields.take("app").map_or(
                Ok(App::Echo {
                    greetings: BTreeMap::new(),
                }),
                App::read,
            )?,
        };
        fields.end()?;
        Ok(workload)
    }
}

impl App {
    fn read(node: &Node) -> Result<Self, Fault> {
        let mut fields = Fields::of(node, "an app")?;
        let kind = fields.need("kind")?;
        let app = match text(kind)? {
            "echo" => {
                let greetings = fields.take("greetings").map_or(Ok(&[][..]), list)?;
                let greeting = |node| {
                    let mut fields = Fields::of(node, "a greeting")?;
                    let greeting = (fields.port("port")?, fields.text("text")?.to_owned());
                    fields.end()?;
                    Ok(greeting)
                };
                Self::Echo {
                    greetings: greetings.iter().map(greeting).collect::<Result<_, _>>()?,
                }
            }
            "https" => Self::Https,
            "routes" => Self::Routes {
                routes: list(fields.need("routes")?)?
                    .iter()
                    .map(Route::read)
                    .collect::<Result<_, _>>()?,
                default: number(fields.need("default")?)?,
            },
            other => return fault(kind, format!("`{other}` is no kind of app")),
        };
        fields.end()?;
        Ok(app)
    }
}

impl Route {
    fn read(node: &Node) -> Result<Self, Fault> {
        let mut fields = Fields::of(node, "a route")?;
        let call = |node| {
            let mut fields = Fields::of(node, "a call")?;
            let call = Call {
                host: fields.text("host")?.to_owned(),
                port: fields.port("port")?,
                path: fields.text("path")?.to_owned(),
            };
            fields.end()?;
            Ok(call)
        };
        let calls = fields.take("calls").map_or(Ok(&[][..]), list)?;
        let route = Self {
            path: fields.text("path")?.to_owned(),
            prefix: fields.flag("prefix")?.unwrap_or(false),
            status: number(fields.need("status")?)?,
            calls: calls.iter().map(call).collect::<Result<_, _>>()?,
            on_call_failure: fields.take("on_call_failure").map_or(Ok(500), number)?,
        };
        fields.end()?;
        Ok(route)
    }
}

impl Service {
    fn read(node: &Node) -> Result<Self, Fault> {
        let mut fields = Fields::of(node, "a service")?;
        let port = |node| {
            let mut fields = Fields::of(node, "a port")?;
            let port = ServicePort {
                name: fields.text("name")?.to_owned(),
                port: fields.port("port")?,
                target: fields.port("targetPort")?,
            };
            fields.end()?;
            Ok(port)
        };
        let service = Self {
            namespace: fields.text("ns")?.to_owned(),
            name: fields.text("name")?.to_owned(),
            headless: fields.flag("headless")?.unwrap_or(false),
            export_to: fields
                .take("exportTo")
                .map(|node| text(node).map(str::to_owned))
                .transpose()?,
            selector: labels(fields.need("selector")?)?,
            ports: list(fields.need("ports")?)?
                .iter()
                .map(port)
                .collect::<Result<_, _>>()?,
        };
        fields.end()?;
        Ok(service)
    }
}

fn is_legacy(node: &Node) -> Result<bool, Fault> {
    match text(node)? {
        "modern" => Ok(false),
        "legacy-1.1" => Ok(true),
        other => fault(node, format!("`{other}` is no profile")),
    }
}

fn labels(node: &Node) -> Result<BTreeMap<String, String>, Fault> {
    top_level(node)?
        .into_iter()
        .map(|(name, node)| Ok((name, text(&node)?.to_owned())))
        .collect()
}

pub(super) fn top_level(node: &Node) -> Result<BTreeMap<String, Node>, Fault> {
    let Value::Map(entries) = &node.value else {
        return fault(node, "this is no map");
    };
    let entries = entries.iter();
    Ok(entries
        .map(|(key, node)| (key.name.clone(), node.clone()))
        .collect())
}

/// The documents of YAML inside of YAML.
fn documents(node: &Node) -> Result<Vec<Node>, Fault> {
    let content = text(node)?;
    let literal = matches!(node.value, Value::Text { literal: true, .. });
    let mut found = Vec::new();
    for (before, document) in yaml::documents(content) {
        let line = |inner: u32| match literal {
            // A block stands where its first line does.
            true => (node.place.line + before + inner).saturating_sub(1),
            false => node.place.line,
        };
        let document = yaml::parse(document).map_err(|wrong| Fault {
            line: line(wrong.place.line),
            message: wrong.message,
        })?;
        if let Some(key) = document.repeated.first() {
            return Err(Fault {
                line: line(key.place.line),
                message: format!("`{}` stands twice", key.name),
            });
        }
        found.extend(document.root);
    }
    Ok(found)
}

/// Whether `env` or another map of `meshConfig` says something.
pub(super) fn says_something(node: Option<&Node>) -> bool {
    node.is_some_and(|node| match &node.value {
        Value::Null => false,
        Value::Map(entries) => !entries.is_empty(),
        Value::List(items) => !items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Text { .. } => true,
    })
}
