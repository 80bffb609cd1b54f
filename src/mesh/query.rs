//! What is there: objects and pods as kubectl lists them, logs, and which sidecars are up to date.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use meshward_core::api::meta::{Labels, Meta, Origin};
use meshward_core::api::object::{Key, Kind, Object};
use meshward_core::control::mesh::PodFacts;
use meshward_core::control::store::{NotFoundError, STANDING_NAMESPACES};
use serde_json::{Value, json};

use super::listening;
use super::pods::{Pod, called};
use super::protocol::{Answer, Awaited, Item, List, LogOf, Scope};
use super::resources::{Named, Resource};
use super::selector::Selector;
use super::sources::{Reader, Source, rfc3339};
use super::state::{State, log_path};
use crate::exit::Failure;
use crate::machine;

/// Workers that have not said so yet are asked for so long whether they are up to date.
const SYNC_PATIENCE: Duration = Duration::from_millis(200);
const NONE: &str = "<none>";

/// An object, or what stands for one: pods of Deployments, namespaces and accounts that need no document.
pub(super) struct Entry<'a> {
    pub(super) key: Key,
    pub(super) meta: Cow<'a, Meta>,
    pub(super) object: Option<&'a Object>,
    pub(super) pod: Option<&'a Pod>,
}

impl State {
    /// Everything of a kind, by namespace and name.
    pub(super) fn entries(&self, kind: Kind) -> Vec<Entry<'_>> {
        let mut found = BTreeMap::new();
        let mut add = |entry| add(&mut found, entry);
        if kind == Kind::Pod {
            for pod in self.pods.values() {
                add(self.entry_of_pod(pod));
            }
        } else {
            for object in self.plane.store().objects().filter(|o| o.kind() == kind) {
                add(Entry {
                    key: object.key(),
                    meta: Cow::Borrowed(object.meta()),
                    object: Some(object),
                    pod: None,
                });
            }
        }
        for (namespace, name, created) in self.implied(kind) {
            add(Entry {
                key: Key {
                    kind,
                    namespace: namespace.clone(),
                    name: name.clone(),
                },
                meta: Cow::Owned(meta(namespace, name, created)),
                object: None,
                pod: None,
            });
        }
        found.into_values().collect()
    }

    fn entry_of_pod<'a>(&self, pod: &'a Pod) -> Entry<'a> {
        let facts = &pod.facts;
        let mut meta = meta(
            facts.namespace.clone(),
            facts.name.clone(),
            pod.birth.at.as_secs(),
        );
        meta.labels = facts.labels.clone();
        meta.annotations = facts.annotations.clone();
        meta.origin = facts.origin.clone();
        Entry {
            key: Key {
                kind: Kind::Pod,
                namespace: facts.namespace.clone(),
                name: facts.name.clone(),
            },
            meta: Cow::Owned(meta),
            object: None,
            pod: Some(pod),
        }
    }

    /// Namespace, name and time of what is there without a document.
    fn implied(&self, kind: Kind) -> Vec<(String, String, u64)> {
        let began = self.began.as_secs();
        let standing = STANDING_NAMESPACES.iter();
        match kind {
            Kind::Namespace => standing
                .map(|name| (String::new(), (*name).to_owned(), began))
                .collect(),
            Kind::ServiceAccount => {
                let declared = self.plane.store().namespaces();
                let declared = declared.map(|n| (n.meta.name.clone(), n.meta.created));
                standing
                    .map(|name| ((*name).to_owned(), began))
                    .chain(declared)
                    .collect::<BTreeMap<_, _>>()
                    .into_iter()
                    .map(|(namespace, created)| (namespace, "default".to_owned(), created))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// What `scope` is about, and what it names that is not there.
    pub(super) fn choose(&self, scope: &Scope) -> (Vec<Key>, Vec<Key>) {
        let (mut chosen, mut missing) = (Vec::new(), Vec::new());
        match &scope.named {
            Named::Kinds(kinds) => {
                for kind in kinds {
                    let entries = self.entries(kind.0).into_iter();
                    let entries = entries.filter(|entry| takes(scope, entry));
                    chosen.extend(entries.map(|entry| entry.key));
                }
            }
            Named::Objects(names) => {
                for (kind, name) in names {
                    let key = Key {
                        kind: kind.0,
                        namespace: match &scope.namespace {
                            Some(namespace) if kind.is_namespaced() => namespace.clone(),
                            _ => String::new(),
                        },
                        name: name.clone(),
                    };
                    if self.entries(kind.0).iter().any(|entry| entry.key == key) {
                        if !chosen.contains(&key) {
                            chosen.push(key);
                        }
                    } else {
                        missing.push(key);
                    }
                }
            }
        }
        (chosen, missing)
    }

    pub(super) fn list(&self, scope: &Scope, manifests: bool) -> Answer {
        let (chosen, missing) = self.choose(scope);
        let mut kinds: Vec<Resource> = Vec::new();
        match &scope.named {
            Named::Kinds(named) => kinds.clone_from(named),
            Named::Objects(names) => {
                for (kind, _) in names {
                    if !kinds.contains(kind) {
                        kinds.push(*kind);
                    }
                }
            }
        }
        let chosen: BTreeSet<Key> = chosen.into_iter().collect();
        let unheard = self.unheard_of();
        let mut reader = Reader::default();
        let lists = kinds.into_iter().map(|kind| {
            let entries: Vec<Entry<'_>> = self.entries(kind.0);
            let entries = entries.iter().filter(|entry| chosen.contains(&entry.key));
            List {
                kind,
                items: entries
                    .map(|entry| {
                        let manifest = self.manifest(kind, entry, &mut reader);
                        let (cells, wide) = self.cells(entry, &manifest, &unheard);
                        Item {
                            namespace: entry.key.namespace.clone(),
                            name: entry.key.name.clone(),
                            cells,
                            wide,
                            manifest: manifests.then_some(manifest),
                        }
                    })
                    .collect(),
            }
        });
        let lists = lists.collect();
        let not_found = |key: Key| NotFoundError { keys: vec![key] }.to_string();
        Answer::Listed {
            lists,
            missing: missing.into_iter().map(not_found).collect(),
        }
    }

    /// Addresses at which an app should listen and does not.
    fn unheard_of(&self) -> BTreeSet<SocketAddr> {
        let wanted = self.pods.values().flat_map(Pod::awaited).collect();
        listening::wait(wanted, Duration::ZERO)
            .into_iter()
            .collect()
    }

    fn manifest<'a>(&'a self, kind: Resource, entry: &Entry<'_>, reader: &mut Reader<'a>) -> Value {
        let source = |key: &Key| self.sources.get(key).map(|source| &**source);
        let mut manifest = match entry.pod {
            Some(pod) if pod.facts.owner.is_some() => {
                // The entry borrows the same pod, but for a shorter time.
                let pod = self.pods.get(&pod.facts.key());
                let made_of = pod.and_then(|pod| pod.birth.made_of.as_deref());
                of_template(kind, &entry.meta, made_of, reader)
            }
            _ => reader.manifest(kind, &entry.meta, source(&entry.key)),
        };
        if let Some(pod) = entry.pod {
            set(&mut manifest, "status", "phase", json!("Running"));
            set(&mut manifest, "status", "podIP", json!(pod.facts.address));
        }
        if kind.0 == Kind::Namespace {
            set(&mut manifest, "status", "phase", json!("Active"));
        }
        if kind.0 == Kind::Service {
            let (namespace, name) = (&entry.key.namespace, &entry.key.name);
            let facts = self.plane.mesh().service(namespace, name);
            if let Some(ip) = facts.and_then(|facts| facts.cluster_ip) {
                set(&mut manifest, "spec", "clusterIP", json!(ip));
            }
        }
        manifest
    }

    fn cells(
        &self,
        entry: &Entry<'_>,
        manifest: &Value,
        unheard: &BTreeSet<SocketAddr>,
    ) -> (Vec<String>, Vec<String>) {
        let age = age(machine::now().as_secs(), entry.meta.created);
        let text = |pointer: &str| {
            let value = manifest.pointer(pointer).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        match entry.key.kind {
            Kind::Pod => match entry.pod {
                Some(pod) => pod_cells(pod, age, unheard),
                None => (Vec::new(), Vec::new()),
            },
            Kind::Service => {
                let (namespace, name) = (&entry.key.namespace, &entry.key.name);
                let facts = self.plane.mesh().service(namespace, name);
                let ip = facts.and_then(|facts| facts.cluster_ip);
                let ports = facts.into_iter().flat_map(|facts| &facts.ports);
                let ports = ports.map(|port| format!("{}/TCP", port.port));
                let kind = match text("/spec/type") {
                    kind if kind.is_empty() => "ClusterIP".to_owned(),
                    kind => kind,
                };
                let selector = match entry.object {
                    Some(Object::Service(service)) => listed(&service.selector),
                    _ => NONE.to_owned(),
                };
                let cells = vec![
                    kind,
                    ip.map_or_else(|| "None".to_owned(), |ip| ip.to_string()),
                    NONE.to_owned(),
                    joined(ports),
                    age,
                ];
                (cells, vec![selector])
            }
            Kind::Deployment => {
                let (namespace, name) = (&entry.key.namespace, &entry.key.name);
                let pods = self.pods.values().filter(|pod| {
                    pod.facts.owner.as_ref() == Some(name) && pod.facts.namespace == *namespace
                });
                let ready = pods.filter(|pod| is_ready(pod, unheard)).count();
                let (replicas, selector) = match entry.object {
                    Some(Object::Deployment(d)) => (d.replicas, listed(&d.selector)),
                    _ => (0, NONE.to_owned()),
                };
                let containers = manifest.pointer("/spec/template/spec/containers");
                let containers = containers.and_then(Value::as_array);
                let of = |field: &'static str| {
                    let containers = containers.into_iter().flatten();
                    joined(containers.filter_map(move |c| c.get(field)?.as_str()))
                };
                let cells = vec![
                    format!("{ready}/{replicas}"),
                    self.updated(namespace, name).to_string(),
                    ready.to_string(),
                    age,
                ];
                (cells, vec![of("name"), of("image"), selector])
            }
            Kind::Namespace => (vec!["Active".into(), age], Vec::new()),
            Kind::ServiceAccount => (vec!["0".into(), age], Vec::new()),
            Kind::ConfigMap => {
                let data = manifest.get("data").and_then(Value::as_object);
                let data = data.map_or(0, serde_json::Map::len);
                (vec![data.to_string(), age], Vec::new())
            }
            Kind::PeerAuthentication => (vec![text("/spec/mtls/mode"), age], Vec::new()),
            Kind::RequestAuthentication => (vec![age], Vec::new()),
            Kind::AuthorizationPolicy => (vec![text("/spec/action"), age], Vec::new()),
        }
    }

    /// Pods that `text` names, all of a Deployment.
    fn workload(&self, text: &str, namespace: Option<&str>) -> Result<Vec<&Pod>, Failure> {
        let facts = self
            .plane
            .mesh()
            .find_workload(text, namespace)
            .map_err(|e| Failure::Machine(e.to_string()))?;
        let is_named = text.starts_with("pod") || text.starts_with("po/");
        let name = text.rsplit('/').next().unwrap_or(text);
        let of_deployment = !is_named
            && name != facts.name
            && name != format!("{}.{}", facts.name, facts.namespace);
        let owner = facts.owner.as_ref().filter(|_| of_deployment);
        let pods = self.pods.values().filter(|pod| match owner {
            Some(_) => pod.facts.owner.as_ref() == owner && pod.facts.namespace == facts.namespace,
            None => pod.facts.key() == facts.key(),
        });
        Ok(pods.collect())
    }

    pub(super) fn logs_of(
        &self,
        workload: Option<&str>,
        namespace: Option<&str>,
        selector: &Selector,
        container: Option<&str>,
    ) -> Result<Answer, Failure> {
        let Some(workload) = workload else {
            let namespace = namespace.unwrap_or("default");
            let pods = self.pods.values().filter(|pod| {
                pod.facts.namespace == namespace && selector.selects(&pod.facts.labels)
            });
            let logs: Result<Vec<LogOf>, Failure> =
                pods.map(|pod| self.log_of(pod, container)).collect();
            return logs.map(|logs| Answer::Logs { logs, note: None });
        };
        let pods = self.workload(workload, namespace)?;
        let Some(first) = pods.first() else {
            return Err(Failure::Machine(format!("{workload} does not run")));
        };
        let note = (pods.len() > 1)
            .then(|| format!("Found {} pods, using pod/{}", pods.len(), first.facts.name));
        Ok(Answer::Logs {
            logs: vec![self.log_of(first, container)?],
            note,
        })
    }

    fn log_of(&self, pod: &Pod, container: Option<&str>) -> Result<LogOf, Failure> {
        let facts = &pod.facts;
        let own = || facts.containers.iter().map(|c| c.name.as_str());
        let name = match container {
            None => own().next().unwrap_or("app"),
            Some(name) => name,
        };
        let proxy = pod.sidecar.is_some();
        let path = if name == "istio-proxy" && proxy {
            log_path(self.plane.mesh_config(), &pod.dir)
        } else if name == "app" || own().any(|own| own == name) {
            Some(pod.dir.join("app.log"))
        } else {
            let proxy = proxy.then_some("istio-proxy");
            let names: Vec<&str> = own().chain(["app"]).chain(proxy).collect();
            return Err(Failure::Machine(format!(
                "pod {} has no container `{name}`\n  hint: there are {}",
                called(facts),
                names.join(", ")
            )));
        };
        Ok(LogOf {
            namespace: facts.namespace.clone(),
            pod: facts.name.clone(),
            container: name.to_owned(),
            path,
            uid: pod.birth.uid,
        })
    }

    pub(super) fn synced(
        &mut self,
        workloads: &[String],
        namespace: Option<&str>,
    ) -> Result<Answer, Failure> {
        let mut keys = BTreeSet::new();
        for workload in workloads {
            for pod in self.workload(workload, namespace)? {
                if pod.sidecar.is_none() {
                    return Err(Failure::Machine(format!(
                        "pod {} has no sidecar\n  hint: leave it out",
                        called(&pod.facts)
                    )));
                }
                keys.insert(pod.facts.key());
            }
        }
        if workloads.is_empty() {
            let pods = self.pods.values().filter(|pod| pod.sidecar.is_some());
            let pods = pods.filter(|pod| namespace.is_none_or(|n| n == pod.facts.namespace));
            keys.extend(pods.map(|pod| pod.facts.key()));
        }
        let version = self.plane.version();
        let lags = |pod: &Pod| {
            let sidecar = pod.sidecar.as_ref();
            sidecar.is_some_and(|s| !s.is_synced() || s.sent.version != version)
        };
        if self.pods.values().any(lags) {
            self.settle(SYNC_PATIENCE);
        }
        let pods = keys.iter().filter_map(|key| self.pods.get(key));
        let synced = pods.map(|pod| Awaited {
            namespace: pod.facts.namespace.to_string(),
            name: format!("pod/{}", pod.facts.name),
            has_come: !lags(pod),
        });
        Ok(Answer::Synced(synced.collect()))
    }
}

/// What is declared comes before what is implied.
fn add<'a>(found: &mut BTreeMap<Key, Entry<'a>>, entry: Entry<'a>) {
    found.entry(entry.key.clone()).or_insert(entry);
}

/// A kind's own; those that are named are chosen by their names.
fn takes(scope: &Scope, entry: &Entry<'_>) -> bool {
    let namespace = &entry.key.namespace;
    let is_of = |wanted: &String| namespace.is_empty() || wanted == namespace;
    scope.namespace.as_ref().is_none_or(is_of) && scope.selector.selects(&entry.meta.labels)
}

fn meta(namespace: String, name: String, created: u64) -> Meta {
    Meta {
        name,
        namespace,
        created,
        annotations: Labels::new(),
        labels: Labels::new(),
        origin: Origin {
            file: "".into(),
            line: 1,
            column: 1,
        },
    }
}

/// A pod as its Deployment wrote it when it was made.
fn of_template<'a>(
    kind: Resource,
    meta: &Meta,
    made_of: Option<&'a Source>,
    reader: &mut Reader<'a>,
) -> Value {
    let deployment = reader.manifest(Resource(Kind::Deployment), meta, made_of);
    let template = deployment.pointer("/spec/template");
    let mut manifest = template.cloned().unwrap_or_else(|| json!({}));
    let (version, name) = kind.envelope();
    for (field, text) in [("apiVersion", version), ("kind", name)] {
        if let Value::Object(object) = &mut manifest {
            object.insert(field.into(), text.into());
        }
    }
    for (field, value) in [
        ("name", json!(meta.name)),
        ("namespace", json!(meta.namespace)),
        ("creationTimestamp", json!(rfc3339(meta.created))),
        ("labels", json!(meta.labels)),
    ] {
        set(&mut manifest, "metadata", field, value);
    }
    manifest
}

fn set(manifest: &mut Value, part: &str, field: &str, value: Value) {
    if let Value::Object(object) = manifest {
        let part = object.entry(part).or_insert_with(|| json!({}));
        if let Value::Object(part) = part {
            part.insert(field.to_owned(), value);
        }
    }
}

fn is_ready(pod: &Pod, unheard: &BTreeSet<SocketAddr>) -> bool {
    !pod.is_down()
        && !pod
            .awaited()
            .iter()
            .any(|address| unheard.contains(address))
}

fn pod_cells(pod: &Pod, age: String, unheard: &BTreeSet<SocketAddr>) -> (Vec<String>, Vec<String>) {
    let facts: &PodFacts = &pod.facts;
    let proxy = usize::from(pod.sidecar.is_some());
    let containers = facts.containers.len();
    let ready = if is_ready(pod, unheard) {
        containers
    } else {
        0
    };
    let status = if pod.is_down() {
        "CrashLoopBackOff"
    } else {
        "Running"
    };
    let cells = vec![
        format!("{}/{}", ready + proxy, containers + proxy),
        status.to_owned(),
        pod.deaths().to_string(),
        age,
    ];
    let in_force = pod.sidecar.as_ref().and_then(|s| s.in_force.as_ref());
    let policies = in_force.map_or_else(|| NONE.to_owned(), |c| c.policies.clone());
    let wide = vec![
        facts.address.to_string(),
        host(),
        NONE.to_owned(),
        NONE.to_owned(),
        policies,
    ];
    (cells, wide)
}

fn host() -> String {
    match fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) => name.trim().to_owned(),
        Err(_) => NONE.to_owned(),
    }
}

fn listed(labels: &Labels) -> String {
    joined(labels.iter().map(|(key, value)| format!("{key}={value}")))
}

fn joined(parts: impl Iterator<Item = impl Into<String>>) -> String {
    let parts: Vec<String> = parts.map(Into::into).collect();
    if parts.is_empty() {
        NONE.to_owned()
    } else {
        parts.join(",")
    }
}

/// As kubectl writes it: two units at most, the smaller one only while it matters.
fn age(now: u64, created: u64) -> String {
    if created == 0 {
        return "<unknown>".into();
    }
    let seconds = now.saturating_sub(created);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / (24 * 365));
    let with = |large: u64, unit: char, small: u64, smaller: char| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{smaller}"),
    };
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => with(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => with(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => with(years, 'y', days % 365, 'd'),
        _ => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_of_kubectl() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(age(seconds + 1, 1), text);
        }
        assert_eq!(age(5, 9), "0s");
        assert_eq!(age(5, 0), "<unknown>");
    }
}
