//! The static file of `meshward sidecar`: what it says, held to its form, and what becomes of it.
//!
//! Everything that is wrong is said at once, with file, line and column; nothing is taken over by halves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meshward_core::accept::{Mode, PortKind};
use meshward_core::api::load::reader::{Fields, Purpose, Report};
use meshward_core::api::load::yaml::{self, Node, Place};
use meshward_core::api::load::{Loaded, Text, load_for_enforcement};
use meshward_core::api::mesh_config::{AccessLogEncoding, MeshConfig};
use meshward_core::api::meta::Labels;
use meshward_core::authn;
use meshward_core::clock::UnixTime;
use meshward_core::link::Entry;
use meshward_core::proxy::Input;
use meshward_core::snapshot::compile::{InboundSource, OutboundSource, Sources};
use meshward_core::snapshot::select::Workload;
use meshward_core::snapshot::{ClientTls, Snapshot, compile};
use meshward_core::spiffe::{Svid, SvidFile, SvidLoadError};

use crate::files;
use crate::say;

/// Threads that carry traffic, at most.
const WORKERS_MAX: usize = 256;

/// Everything that a sidecar runs by.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) workers: usize,
    /// One proxy on each shard for every identity.
    pub(crate) proxies: Vec<ProxyPlan>,
    /// By the number of the listener: where its records go.
    pub(crate) logs: Vec<Option<PathBuf>>,
    pub(crate) encoding: AccessLogEncoding,
    /// What is worth saying, but stops nothing.
    pub(crate) warnings: Vec<String>,
    /// For the line that is printed: policies in force.
    pub(crate) policies: usize,
}

#[derive(Debug)]
pub(crate) struct ProxyPlan {
    pub(crate) settings: Arc<Settings>,
    pub(crate) listeners: Vec<ListenerPlan>,
    identity: Option<IdentityFiles>,
}

/// What is published to every shard, and again after a reload.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) svid: Option<Arc<Svid>>,
    pub(crate) snapshot: Arc<Snapshot>,
}

impl Settings {
    /// The same in the words of a proxy. The identity comes first: a snapshot that demands TLS finds it there.
    pub(crate) fn inputs(&self) -> Vec<Input> {
        let svid = self.svid.iter().map(|svid| Input::Svid(Arc::clone(svid)));
        let snapshot = Input::Snapshot(Arc::clone(&self.snapshot));
        svid.chain([snapshot]).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenerPlan {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) entry: Entry,
}

/// The files of one identity; listeners that name the same share a proxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct IdentityFiles {
    chain: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
}

impl Plan {
    /// Whether the sockets of `other` are those of this plan, so that one can follow the other without a restart.
    pub(crate) fn same_doors(&self, other: &Self) -> bool {
        let doors = |plan: &Self| -> Vec<_> {
            plan.proxies
                .iter()
                .map(|p| (p.identity.clone(), p.listeners.clone()))
                .collect()
        };
        self.workers == other.workers && doors(self) == doors(other)
    }
}

/// Reads the file and all that it names. `version`: of the snapshots that come of it.
pub(crate) fn load(path: &Path, version: u64, now: UnixTime) -> Result<Plan, Vec<String>> {
    let text = files::read_text(path).map_err(|e| vec![with_hint(e)])?;
    let mut reading = Reading {
        dir: path.parent().map(Path::to_path_buf).unwrap_or_default(),
        report: Report::new(path.display().to_string().into(), Purpose::Enforce),
        broken: Vec::new(),
        log_of_mesh: None,
        now,
        svids: BTreeMap::new(),
        resources: BTreeMap::new(),
    };
    let raw = reading.file(&text);
    let plan = raw.and_then(|raw| reading.plan(raw, version));
    let Reading {
        report, mut broken, ..
    } = reading;
    let (errors, mut warnings): (Vec<_>, Vec<_>) = report
        .into_findings()
        .into_iter()
        .partition(|f| f.is_error());
    let mut messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
    messages.append(&mut broken);
    match plan {
        Some(mut plan) if messages.is_empty() => {
            plan.warnings
                .extend(warnings.drain(..).map(|w| w.to_string()));
            Ok(plan)
        }
        _ if messages.is_empty() => Err(vec![format!("{}: nothing to run", path.display())]),
        _ => Err(messages),
    }
}

/// `message` about a file, with a hint if it has none.
fn with_hint(message: String) -> String {
    if message.contains("\n  hint: ") {
        message
    } else {
        format!("{message}\n  hint: name a file that is there and can be read")
    }
}

/// The file as it is written.
struct Raw {
    workers: usize,
    namespace: Option<String>,
    labels: Labels,
    mesh: Option<MeshConfig>,
    inbound: Vec<RawInbound>,
    outbound: Vec<RawOutbound>,
    place: Place,
}

struct RawInbound {
    place: Place,
    name: String,
    address: SocketAddr,
    kind: PortKind,
    mode: Option<Mode>,
    identity: Option<(IdentityFiles, Place)>,
    upstream: SocketAddr,
    policies: Option<(PathBuf, Place)>,
    access_log: Option<PathBuf>,
}

struct RawOutbound {
    place: Place,
    name: String,
    address: SocketAddr,
    kind: PortKind,
    upstream: SocketAddr,
    tls: Option<(IdentityFiles, Place, ClientTls)>,
    access_log: Option<PathBuf>,
}

struct Reading {
    dir: PathBuf,
    report: Report,
    /// Messages that have a place of their own.
    broken: Vec<String>,
    /// meshConfig.accessLogFile, for listeners that say nothing.
    log_of_mesh: Option<PathBuf>,
    now: UnixTime,
    svids: BTreeMap<IdentityFiles, Option<Arc<Svid>>>,
    resources: BTreeMap<PathBuf, Option<Arc<Loaded>>>,
}

impl Reading {
    fn file(&mut self, text: &str) -> Option<Raw> {
        let document = match yaml::parse(text) {
            Ok(document) => document,
            Err(e) => {
                self.report
                    .invalid(e.place, e.message, e.hint.unwrap_or("mend the YAML here"));
                return None;
            }
        };
        for key in &document.repeated {
            let message = format!("`{}` stands here a second time", key.name);
            self.report.invalid(key.place, message, "keep one of them");
        }
        let top = Place { line: 1, column: 1 };
        let Some(root) = document.root else {
            self.report.invalid(
                top,
                "the file is empty",
                "see examples/one-sidecar/server.yaml",
            );
            return None;
        };
        let before = self.report.errors();
        let mut fields = self.report.fields(&root, "sidecar")?;
        let workers = fields
            .take("workers")
            .and_then(|n| self.number(n, "workers", 1..=WORKERS_MAX))
            .unwrap_or(1);
        let (mut namespace, mut labels) = (None, Labels::new());
        if let Some(node) = fields.take("workload")
            && let Some(mut workload) = self.report.fields(node, "workload")
        {
            namespace = workload
                .take("namespace")
                .and_then(|n| self.text(n, "namespace"));
            if let Some(entries) = workload
                .take("labels")
                .and_then(|n| self.report.map(n, "labels"))
            {
                for (key, value) in entries {
                    if let Some(text) = self.report.text(value, "labels") {
                        labels.insert(key.name.clone(), text.to_owned());
                    }
                }
            }
            workload.close(&mut self.report);
        }
        let mesh = fields.take("mesh").and_then(|node| self.mesh(node));
        let mut inbound = Vec::new();
        for node in self.list(&mut fields, "inbound") {
            inbound.extend(self.inbound(node));
        }
        let mut outbound = Vec::new();
        for node in self.list(&mut fields, "outbound") {
            outbound.extend(self.outbound(node));
        }
        fields.close(&mut self.report);
        if inbound.is_empty() && outbound.is_empty() && self.report.errors() == before {
            self.report.invalid(
                root.place,
                "no listener",
                "give `inbound` or `outbound` an item",
            );
        }
        (self.report.errors() == before).then_some(Raw {
            workers,
            namespace,
            labels,
            mesh,
            inbound,
            outbound,
            place: root.place,
        })
    }

    fn mesh(&mut self, node: &Node) -> Option<MeshConfig> {
        let mesh = MeshConfig::read(node, &mut self.report)?;
        if !mesh.access_log_format.is_empty() {
            self.report.not_enforced(node.place, "`accessLogFormat`");
        }
        if !mesh.access_log_file.is_empty() {
            self.log_of_mesh = Some(self.dir.join(&mesh.access_log_file));
        }
        Some(mesh)
    }

    fn list<'n>(&mut self, fields: &mut Fields<'n>, name: &'static str) -> &'n [Node] {
        fields
            .take(name)
            .and_then(|node| self.report.list(node, name))
            .unwrap_or_default()
    }

    fn inbound(&mut self, node: &Node) -> Option<RawInbound> {
        let mut fields = self.report.fields(node, "inbound")?;
        let name = self
            .required(&mut fields, node, "name")
            .and_then(|n| self.text(n, "name"));
        let address = self
            .required(&mut fields, node, "address")
            .and_then(|n| self.address(n, "address"));
        let kind = self
            .required(&mut fields, node, "protocol")
            .and_then(|n| self.kind(n, true));
        let upstream = self
            .required(&mut fields, node, "upstream")
            .and_then(|n| self.address(n, "upstream"));
        let mode = fields.take("mode").map(|n| self.mode(n));
        let identity = fields.take("tls").map(|n| {
            let mut tls = self.report.fields(n, "tls")?;
            let files = self.identity(&mut tls, n);
            tls.close(&mut self.report);
            files.map(|files| (files, n.place))
        });
        let policies = fields.take("policies").and_then(|n| {
            let text = self.report.text(n, "policies")?;
            (text != "none").then(|| (self.dir.join(text), n.place))
        });
        let access_log = match fields.take("accessLog") {
            Some(node) => self.log(node),
            None => self.log_of_mesh.clone(),
        };
        fields.close(&mut self.report);
        Some(RawInbound {
            place: node.place,
            name: name?,
            address: address?,
            kind: kind?,
            mode: match mode {
                None => None,
                Some(mode) => Some(mode?),
            },
            identity: match identity {
                None => None,
                Some(identity) => Some(identity?),
            },
            upstream: upstream?,
            policies,
            access_log,
        })
    }

    fn outbound(&mut self, node: &Node) -> Option<RawOutbound> {
        let mut fields = self.report.fields(node, "outbound")?;
        let name = self
            .required(&mut fields, node, "name")
            .and_then(|n| self.text(n, "name"));
        let address = self
            .required(&mut fields, node, "address")
            .and_then(|n| self.address(n, "address"));
        let kind = self
            .required(&mut fields, node, "protocol")
            .and_then(|n| self.kind(n, false));
        let upstream = self
            .required(&mut fields, node, "upstream")
            .and_then(|n| self.address(n, "upstream"));
        let tls = fields.take("tls").map(|n| {
            let mut tls = self.report.fields(n, "tls")?;
            let files = self.identity(&mut tls, n);
            let sni = self
                .required(&mut tls, n, "sni")
                .and_then(|n| self.text(n, "sni"));
            let mut subject_alt_names = Vec::new();
            if let Some(sans) = tls.take("subjectAltNames") {
                for (_, text) in self.report.texts(sans, "subjectAltNames") {
                    subject_alt_names.push(text.to_owned());
                }
            }
            tls.close(&mut self.report);
            Some((
                files?,
                n.place,
                ClientTls {
                    sni: sni?,
                    subject_alt_names,
                },
            ))
        });
        let access_log = match fields.take("accessLog") {
            Some(node) => self.log(node),
            None => self.log_of_mesh.clone(),
        };
        fields.close(&mut self.report);
        Some(RawOutbound {
            place: node.place,
            name: name?,
            address: address?,
            kind: kind?,
            upstream: upstream?,
            tls: match tls {
                None => None,
                Some(tls) => Some(tls?),
            },
            access_log,
        })
    }

    fn required<'n>(
        &mut self,
        fields: &mut Fields<'n>,
        of: &Node,
        name: &'static str,
    ) -> Option<&'n Node> {
        let found = fields.take(name);
        if found.is_none() {
            self.report.invalid(
                of.place,
                format!("`{name}` is missing"),
                format!("add `{name}: …` to this item"),
            );
        }
        found
    }

    fn identity(&mut self, tls: &mut Fields<'_>, of: &Node) -> Option<IdentityFiles> {
        let chain = self
            .required(tls, of, "certificateChain")
            .and_then(|n| self.path(n, "certificateChain"));
        let key = self
            .required(tls, of, "privateKey")
            .and_then(|n| self.path(n, "privateKey"));
        let bundle = self
            .required(tls, of, "trustBundle")
            .and_then(|n| self.path(n, "trustBundle"));
        Some(IdentityFiles {
            chain: chain?,
            key: key?,
            bundle: bundle?,
        })
    }

    fn path(&mut self, node: &Node, name: &str) -> Option<PathBuf> {
        self.report.text(node, name).map(|text| self.dir.join(text))
    }

    fn text(&mut self, node: &Node, name: &str) -> Option<String> {
        let text = self.report.text(node, name)?;
        if text.is_empty() {
            self.report
                .invalid(node.place, format!("`{name}` is empty"), "write a name");
            return None;
        }
        Some(text.to_owned())
    }

    fn address(&mut self, node: &Node, name: &str) -> Option<SocketAddr> {
        let text = self.report.text(node, name)?;
        let parsed = text.parse::<SocketAddr>().ok().filter(|a| a.port() != 0);
        if parsed.is_none() {
            let message = format!("`{name}` is `{text}`, which is no address with a port");
            self.report.invalid(
                node.place,
                message,
                "write it as 127.0.0.1:8080 or [::1]:8080",
            );
        }
        parsed
    }

    fn kind(&mut self, node: &Node, auto: bool) -> Option<PortKind> {
        match self.report.text(node, "protocol")? {
            "http" => Some(PortKind::Http),
            "tcp" => Some(PortKind::Tcp),
            "auto" if auto => Some(PortKind::Auto),
            other => {
                let hint = if auto {
                    "write http, tcp or auto"
                } else {
                    "write http or tcp"
                };
                self.report
                    .invalid(node.place, format!("`{other}` is no protocol"), hint);
                None
            }
        }
    }

    fn mode(&mut self, node: &Node) -> Option<Mode> {
        match self.report.text(node, "mode")? {
            "STRICT" => Some(Mode::Strict),
            "PERMISSIVE" => Some(Mode::Permissive),
            "DISABLE" => Some(Mode::Disable),
            other => {
                self.report.invalid(
                    node.place,
                    format!("`{other}` is no mode"),
                    "write STRICT, PERMISSIVE or DISABLE, or leave it out so that PeerAuthentication decides",
                );
                None
            }
        }
    }

    /// `off`, which YAML 1.1 takes for a boolean, or a path.
    fn log(&mut self, node: &Node) -> Option<PathBuf> {
        match &node.value {
            yaml::Value::Bool(false) => None,
            _ => self
                .report
                .text(node, "accessLog")
                .filter(|text| *text != "off")
                .map(|text| self.dir.join(text)),
        }
    }

    fn number(
        &mut self,
        node: &Node,
        name: &str,
        range: std::ops::RangeInclusive<usize>,
    ) -> Option<usize> {
        let parsed = match &node.value {
            yaml::Value::Number(text) => text.parse().ok().filter(|n| range.contains(n)),
            _ => None,
        };
        if parsed.is_none() {
            let hint = format!(
                "write a whole number from {} to {}",
                range.start(),
                range.end()
            );
            self.report
                .invalid(node.place, format!("`{name}` is not usable"), hint);
        }
        parsed
    }

    fn plan(&mut self, raw: Raw, version: u64) -> Option<Plan> {
        let mut logs = Vec::new();
        let mut groups: BTreeMap<Option<IdentityFiles>, Group> = BTreeMap::new();
        let mut order = Vec::new();
        let mut policies = 0;
        let identities: Vec<_> = raw
            .inbound
            .iter()
            .filter_map(|l| l.identity.as_ref().map(|(files, _)| files.clone()))
            .chain(
                raw.outbound
                    .iter()
                    .filter_map(|l| l.tls.as_ref().map(|(files, ..)| files.clone())),
            )
            .collect();
        self.distinct(&raw);
        // A listener without TLS belongs to the workload all the same: to its identity, if the file has just one.
        let only = identities
            .first()
            .filter(|first| identities.iter().all(|i| i == *first))
            .cloned();
        let namespace = raw.namespace.clone();
        for listener in &raw.inbound {
            let files = listener
                .identity
                .as_ref()
                .map(|(files, _)| files.clone())
                .or_else(|| only.clone());
            let svid = match &files {
                Some(files) => self.svid(
                    files,
                    listener
                        .identity
                        .as_ref()
                        .map_or(listener.place, |(_, p)| *p),
                ),
                None => None,
            };
            let ns = namespace
                .clone()
                .unwrap_or_else(|| namespace_of(svid.as_deref()));
            let resources = match &listener.policies {
                Some((dir, place)) => self.resources(dir, *place, &ns),
                None => Some(Arc::default()),
            };
            let Some(resources) = resources else { continue };
            if listener.mode.is_some() && !resources.peer_authentications.is_empty() {
                self.report.invalid(
                    listener.place,
                    "`mode` stands beside a PeerAuthentication in `policies`",
                    "keep one of the two",
                );
            }
            policies += resources.authorization_policies.len()
                + resources.peer_authentications.len()
                + resources.request_authentications.len();
            let group = group(&mut groups, &mut order, files, svid);
            group.listeners.push(ListenerPlan {
                name: listener.name.clone(),
                address: listener.address,
                entry: Entry::Inbound,
            });
            group.needs_tls.push((
                listener.address.port(),
                listener.identity.is_some(),
                listener.place,
            ));
            group.inbound.push(InboundSource {
                listener: u32::try_from(logs.len()).unwrap_or(u32::MAX),
                port: listener.address.port(),
                kind: listener.kind,
                mode: listener.mode,
                upstream: listener.upstream,
                from: None,
                records: listener.access_log.is_some(),
                authorization_policies: Arc::new(resources.authorization_policies.clone()),
                peer_authentications: Arc::new(resources.peer_authentications.clone()),
                request_authentications: Arc::new(resources.request_authentications.clone()),
            });
            logs.push(listener.access_log.clone());
        }
        for listener in &raw.outbound {
            let files = listener
                .tls
                .as_ref()
                .map(|(files, ..)| files.clone())
                .or_else(|| only.clone());
            let svid = match &files {
                Some(files) => self.svid(
                    files,
                    listener
                        .tls
                        .as_ref()
                        .map_or(listener.place, |(_, place, _)| *place),
                ),
                None => None,
            };
            let host = listener
                .tls
                .as_ref()
                .map_or("", |(_, _, tls)| tls.sni.as_str());
            let group = group(&mut groups, &mut order, files, svid);
            group.listeners.push(ListenerPlan {
                name: listener.name.clone(),
                address: listener.address,
                entry: Entry::Outbound,
            });
            group.outbound.push(OutboundSource {
                listener: u32::try_from(logs.len()).unwrap_or(u32::MAX),
                address: listener.address,
                kind: listener.kind,
                upstream: listener.upstream,
                cluster: format!("outbound|{}||{host}", listener.upstream.port()),
                tls: listener.tls.as_ref().map(|(_, _, tls)| tls.clone()),
                records: listener.access_log.is_some(),
            });
            logs.push(listener.access_log.clone());
        }
        if self.report.errors() > 0 || !self.broken.is_empty() {
            return None;
        }
        let mut proxies = Vec::new();
        for files in order {
            let Some(group) = groups.remove(&files) else {
                continue;
            };
            proxies.push(self.proxy(files, group, &raw, version)?);
        }
        Some(Plan {
            workers: raw.workers,
            proxies,
            logs,
            encoding: raw
                .mesh
                .map_or_else(AccessLogEncoding::default, |mesh| mesh.access_log_encoding),
            warnings: Vec::new(),
            policies,
        })
    }

    fn proxy(
        &mut self,
        files: Option<IdentityFiles>,
        group: Group,
        raw: &Raw,
        version: u64,
    ) -> Option<ProxyPlan> {
        let mesh = raw.mesh.clone().unwrap_or_else(|| MeshConfig {
            // Without a mesh configuration the workload's own certificate says which trust domain is meant.
            trust_domain: group.svid.as_ref().map_or_else(
                || MeshConfig::default().trust_domain,
                |svid| svid.id.trust_domain().to_owned(),
            ),
            ..MeshConfig::default()
        });
        let namespace = raw
            .namespace
            .clone()
            .unwrap_or_else(|| namespace_of(group.svid.as_deref()));
        let sources = Sources {
            version,
            workload: Workload {
                namespace,
                labels: raw.labels.clone(),
            },
            mesh,
            inbound: group.inbound,
            outbound: group.outbound,
        };
        let snapshot = match compile::snapshot(&sources) {
            Ok(snapshot) => Arc::new(snapshot),
            Err(e) => {
                self.report
                    .invalid(raw.place, e.to_string(), "mend this in the file");
                return None;
            }
        };
        for (port, has_tls, place) in group.needs_tls {
            let mode = snapshot.inbound.get(&port).map(|p| p.mode);
            if !has_tls && mode != Some(Mode::Disable) {
                self.report.invalid(
                    place,
                    "this listener has no `tls`, and its mode is not DISABLE",
                    "give it `tls`, or say `mode: DISABLE`",
                );
            }
        }
        Some(ProxyPlan {
            settings: Arc::new(Settings {
                svid: group.svid,
                snapshot,
            }),
            listeners: group.listeners,
            identity: files,
        })
    }

    /// No two listeners may have one address.
    fn distinct(&mut self, raw: &Raw) {
        let inbound = raw.inbound.iter().map(|l| (l.address, &l.name, l.place));
        let outbound = raw.outbound.iter().map(|l| (l.address, &l.name, l.place));
        let mut known: BTreeMap<SocketAddr, &str> = BTreeMap::new();
        for (address, name, place) in inbound.chain(outbound) {
            if let Some(other) = known.insert(address, name) {
                self.report.invalid(
                    place,
                    format!("`{name}` listens on {address} as `{other}` does"),
                    "give one of them another address",
                );
            }
        }
    }

    fn svid(&mut self, files: &IdentityFiles, place: Place) -> Option<Arc<Svid>> {
        if let Some(known) = self.svids.get(files) {
            return known.clone();
        }
        let read = |path: &Path| files::read(path);
        let loaded = match (read(&files.chain), read(&files.key), read(&files.bundle)) {
            (Ok(chain), Ok(key), Ok(bundle)) => {
                match Svid::from_pem(&chain, &key, &bundle, self.now) {
                    Ok(svid) => Some(Arc::new(svid)),
                    Err(e) => {
                        self.identity_fault(files, &e, place);
                        None
                    }
                }
            }
            (chain, key, bundle) => {
                for fault in [chain.err(), key.err(), bundle.err()].into_iter().flatten() {
                    self.report
                        .invalid(place, fault, "name a file that is there and can be read");
                }
                None
            }
        };
        self.svids.insert(files.clone(), loaded.clone());
        loaded
    }

    fn identity_fault(&mut self, files: &IdentityFiles, fault: &SvidLoadError, place: Place) {
        let path = match fault.file() {
            SvidFile::Chain => &files.chain,
            SvidFile::Key => &files.key,
            SvidFile::Bundle => &files.bundle,
        };
        self.report
            .invalid(place, format!("{}: {fault}", path.display()), fault.hint());
    }

    fn resources(&mut self, dir: &Path, place: Place, namespace: &str) -> Option<Arc<Loaded>> {
        if let Some(known) = self.resources.get(dir) {
            return known.clone();
        }
        let loaded = self.read_resources(dir, place, namespace);
        self.resources.insert(dir.to_owned(), loaded.clone());
        loaded
    }

    fn read_resources(&mut self, dir: &Path, place: Place, namespace: &str) -> Option<Arc<Loaded>> {
        let paths = match files::resources(dir) {
            Ok(paths) => paths,
            Err(e) => {
                self.report
                    .invalid(place, e, "name a folder of YAML files, or a file");
                return None;
            }
        };
        let mut texts = Vec::new();
        for path in paths {
            match files::read_text(&path) {
                Ok(text) => texts.push(Text {
                    name: path.display().to_string().into(),
                    text,
                }),
                Err(e) => self.broken.push(e),
            }
        }
        match load_for_enforcement(&texts, namespace) {
            Ok(loaded) => {
                self.broken.extend(loaded.mesh_config.is_some().then(|| {
                    format!(
                        "{}: meshConfig belongs under `mesh` of the sidecar's file",
                        dir.display()
                    )
                }));
                let tokens = authn::warnings(&loaded.request_authentications);
                for finding in loaded.findings.iter().chain(&tokens) {
                    say::err(finding);
                }
                Some(Arc::new(loaded))
            }
            Err(refused) => {
                self.broken
                    .extend(refused.findings.iter().map(ToString::to_string));
                None
            }
        }
    }
}

/// What shares one identity.
#[derive(Default)]
struct Group {
    svid: Option<Arc<Svid>>,
    listeners: Vec<ListenerPlan>,
    inbound: Vec<InboundSource>,
    outbound: Vec<OutboundSource>,
    /// Inbound ports, whether they have TLS files of their own, and where they stand.
    needs_tls: Vec<(u16, bool, Place)>,
}

fn group<'g>(
    groups: &'g mut BTreeMap<Option<IdentityFiles>, Group>,
    order: &mut Vec<Option<IdentityFiles>>,
    files: Option<IdentityFiles>,
    svid: Option<Arc<Svid>>,
) -> &'g mut Group {
    if !groups.contains_key(&files) {
        order.push(files.clone());
    }
    groups.entry(files).or_insert_with(|| Group {
        svid,
        ..Group::default()
    })
}

fn namespace_of(svid: Option<&Svid>) -> String {
    svid.and_then(|svid| svid.id.istio())
        .map_or_else(|| "default".to_owned(), |id| id.namespace.to_owned())
}
