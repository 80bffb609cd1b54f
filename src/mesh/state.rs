//! The state of a mesh that runs, and every change of it.
//!
//! A change is worked out on a copy of the plane, and every socket that it needs is opened, before anything is taken over;
//! so it happens whole or not at all. Knows no thread: who calls holds the lock.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use meshward_core::agent::Note;
use meshward_core::api::finding::Finding;
use meshward_core::api::load::{Refused, Text, load_keys_and_warnings, load_objects};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::object::Key;
use meshward_core::clock::UnixTime;
use meshward_core::control::mesh::{Mesh, PodFacts, PodKey};
use meshward_core::control::plane::{DeleteError, Plane};
use meshward_core::control::store::Outcome;
use meshward_core::proxy::Input;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::apps::{AppHandle, AppKind, Death};
use super::directory::Directory;
use super::edge::Edge;
use super::folder::Taken;
use super::identities::{Identities, News};
use super::listening;
use super::pods::{Pod, called};
use super::protocol::{Answer, Ask, FileText, Workload};
use super::rollout::{Rollouts, outdated};
use super::running::Event;
use super::shards::{Seat, Shards};
use super::sources::{Sources, place_of};
use crate::exit::Failure;
use crate::logs::Logs;
use crate::{machine, say};

/// What is open may go on for so long when a pod is deleted or the mesh ends. Istio: terminationDrainDuration 5 s.
pub(super) const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// A proxy that has not gone so long after that is not waited for.
pub(super) const DRAIN_MARGIN: Duration = Duration::from_secs(2);
/// Workers take over a change within this, or it is said that one does not.
pub(super) const SETTLE_PATIENCE: Duration = Duration::from_secs(10);
/// Apps of pods that take the place of others are waited for so long.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether anybody still waits for them.
const READY_LOOK: Duration = Duration::from_millis(200);
/// Apps that are started are waited for so long.
const LISTEN_PATIENCE: Duration = Duration::from_secs(3);
/// Open files that a mesh has beside its pods, and some that its first connections need.
const FILES_BASE: usize = 128;

pub(super) struct State {
    pub(super) plane: Plane,
    pub(super) pods: BTreeMap<PodKey, Pod>,
    pub(super) leaving: Vec<Leaving>,
    /// Apps of pods that have left, which are being stopped.
    pub(super) stopping: Vec<JoinHandle<()>>,
    pub(super) identities: Identities,
    pub(super) shards: Arc<Shards>,
    pub(super) logs: Logs,
    pub(super) edge: Arc<Edge>,
    pub(super) directory: Arc<Directory>,
    pub(super) deaths: UnboundedSender<Death>,
    pub(super) taken: Taken,
    /// The worker of the next sidecar.
    pub(super) turn: usize,
    pub(super) ending: bool,
    pub(super) events: Sender<Event>,
    pub(super) sources: Sources,
    pub(super) rollouts: Rollouts,
    /// When the mesh was started.
    pub(super) began: UnixTime,
    /// Of the pod that was made last.
    pub(super) last_uid: u64,
    /// Nobody is to wait any more for pods that are made anew.
    pub(super) enough: Arc<AtomicBool>,
}

/// A pod that was deleted; its app goes when its proxy has, or when its time is over.
pub(super) struct Leaving {
    pod: Pod,
    until: Instant,
}

impl State {
    pub(super) fn answer(&mut self, ask: Ask) -> Answer {
        if self.ending {
            return Answer::Failed("the mesh is ending".into());
        }
        let outcome = match ask {
            Ask::Find {
                workload,
                namespace,
                container,
            } => self.find(&workload, namespace.as_deref(), container.as_deref()),
            Ask::Apply {
                files,
                namespace,
                strict,
            } => self.apply(files, &namespace, strict),
            Ask::Delete {
                files,
                namespace,
                ignore_not_found,
            } => self.delete(files, &namespace, ignore_not_found),
            Ask::Explain(asked) => self.explain(&asked),
            Ask::ProxyStatus => Ok(self.proxy_status()),
            Ask::ProxyConfig {
                what,
                workload,
                namespace,
            } => self.proxy_config(what, &workload, namespace.as_deref()),
            Ask::Levels {
                workload,
                namespace,
                change,
            } => self.levels(&workload, namespace.as_deref(), change),
            Ask::Get { scope, manifests } => Ok(self.list(&scope, manifests)),
            Ask::DeleteNamed {
                scope,
                ignore_not_found,
            } => self.delete_named(&scope, ignore_not_found),
            Ask::Label {
                scope,
                changes,
                overwrite,
            } => self.label(&scope, &changes, overwrite),
            Ask::Restart { scope } => self.restart(&scope),
            Ask::Rollout { name, namespace } => self.progress(&namespace, &name),
            Ask::Logs {
                workload,
                namespace,
                selector,
                container,
            } => self.logs_of(
                workload.as_deref(),
                namespace.as_deref(),
                &selector,
                container.as_deref(),
            ),
            Ask::Synced {
                workloads,
                namespace,
            } => self.synced(&workloads, namespace.as_deref()),
        };
        match outcome {
            Ok(answer) => answer,
            Err(Failure::Data(findings)) => Answer::Data(findings),
            Err(Failure::Server(message)) => Answer::NotFound(message),
            Err(Failure::Usage(message) | Failure::Machine(message)) => Answer::Failed(message),
        }
    }

    fn find(
        &self,
        workload: &str,
        namespace: Option<&str>,
        container: Option<&str>,
    ) -> Result<Answer, Failure> {
        let facts = self
            .plane
            .mesh()
            .find_workload(workload, namespace)
            .map_err(|e| Failure::Machine(e.to_string()))?;
        let pod = self
            .pods
            .get(&facts.key())
            .ok_or_else(|| Failure::Machine(format!("pod {} does not run", called(facts))))?;
        let proxy = match container {
            None | Some("app") => pod.entry(),
            Some("istio-proxy") => pod.bypass().ok_or_else(|| {
                let pod = called(facts);
                Failure::Machine(format!("pod {pod} has no container `istio-proxy`: it has no sidecar\n  hint: leave -c out"))
            })?,
            Some(name) if facts.containers.iter().any(|c| c.name == name) => pod.entry(),
            Some(name) => {
                let own = facts.containers.iter().map(|c| c.name.as_str());
                let proxy = pod.sidecar.as_ref().map(|_| "istio-proxy");
                let names: Vec<&str> = own.chain(["app"]).chain(proxy).collect();
                return Err(Failure::Machine(format!(
                    "pod {} has no container `{name}`\n  hint: there are {}",
                    called(facts),
                    names.join(", ")
                )));
            }
        };
        Ok(Answer::Found(Workload {
            namespace: facts.namespace.clone(),
            pod: facts.name.clone(),
            proxy,
            certs: pod.sidecar.as_ref().map(|s| s.certificates.path()),
            run: self.taken.folder.run(),
        }))
    }

    fn apply(
        &mut self,
        files: Vec<FileText>,
        namespace: &str,
        strict: bool,
    ) -> Result<Answer, Failure> {
        let texts = texts(files);
        let objects = load_objects(&texts, namespace, strict).map_err(data)?;
        let written: Vec<_> = objects.objects.iter().map(place_of).collect();
        let mut next = self.plane.clone();
        let outcomes = next.apply(objects.objects, machine::now()).map_err(data)?;
        let outdated = outdated(&next, &outcomes, &texts)?;
        let mut warnings: Vec<String> = objects.warnings.iter().map(Finding::to_string).collect();
        let former = self.sources.clone();
        self.sources.note(&texts, written.into_iter());
        match self.take(next, &texts) {
            Ok(more) => warnings.extend(more),
            Err(failure) => {
                self.sources = former;
                return Err(failure);
            }
        }
        self.rollouts.begin(outdated);
        Ok(done(&outcomes, warnings))
    }

    fn delete(
        &mut self,
        files: Vec<FileText>,
        namespace: &str,
        ignore_not_found: bool,
    ) -> Result<Answer, Failure> {
        let (mut keys, passed_over) =
            load_keys_and_warnings(&texts(files), namespace).map_err(data)?;
        if ignore_not_found {
            keys.retain(|key| self.plane.store().get(key).is_some());
        }
        let (outcomes, more) = self.delete_keys(&keys)?;
        let mut warnings: Vec<String> = passed_over.iter().map(Finding::to_string).collect();
        warnings.extend(more);
        Ok(done(&outcomes, warnings))
    }

    /// Takes objects out, and with them what was written of them; what is worth saying of it.
    pub(super) fn delete_keys(
        &mut self,
        keys: &[Key],
    ) -> Result<(Vec<Outcome>, Vec<String>), Failure> {
        let mut next = self.plane.clone();
        let outcomes = next.delete(keys).map_err(|e| match e {
            DeleteError::NotFound(e) => Failure::Server(e.to_string()),
            DeleteError::Refused(refused) => data(refused),
        })?;
        let warnings = self.take(next, &[])?;
        let store = self.plane.store();
        self.sources.keep(|key| store.get(key).is_some());
        Ok((outcomes, warnings))
    }

    /// Takes over what `next` asks for, all of it or nothing; what is worth saying of it.
    pub(super) fn take(&mut self, next: Plane, texts: &[Text]) -> Result<Vec<String>, Failure> {
        if next.version() == self.plane.version() {
            return Ok(Vec::new());
        }
        let known: Vec<String> = self
            .plane
            .warnings()
            .iter()
            .map(Finding::to_string)
            .collect();
        let mut warnings: Vec<String> = next.warnings().iter().map(Finding::to_string).collect();
        warnings.retain(|warning| !known.contains(warning));
        let kinds = kinds(&next, texts).map_err(Failure::Data)?;
        warnings.extend(self.adopt(next, &kinds, &[])?);
        Ok(warnings)
    }

    /// The same for a plane whose pods are known to run `kinds`. `renewed`: pods that are made anew beside those that run;
    /// these leave when the new ones are ready, and stay as they are if one of them is not.
    pub(super) fn adopt(
        &mut self,
        mut next: Plane,
        kinds: &BTreeMap<PodKey, AppKind>,
        renewed: &[PodKey],
    ) -> Result<Vec<String>, Failure> {
        let mesh = Arc::clone(next.mesh());
        let refusals = self.refusals(&next, kinds, renewed);
        if !refusals.is_empty() {
            return Err(Failure::Data(refusals));
        }
        need_files(&mesh)?;
        let change = match self.prepare(&mut next, &mesh, kinds, renewed) {
            Ok(change) => change,
            Err(failure) => {
                self.undo(&mesh);
                return Err(failure);
            }
        };
        let config = next.mesh_config().clone();
        let logs_change = self.plane.mesh_config() != &config;
        let mut warnings = Vec::new();
        let told = |e| Failure::Machine(format!("a worker cannot be told of the change: {e}"));
        let begun = self.begin_all(change.new, &config, &mut warnings);
        let begun = begun.map_err(told)?;
        if !renewed.is_empty() {
            let silent = self.unready(&begun);
            if !silent.is_empty() {
                for pod in begun {
                    self.discard(pod);
                }
                return Err(Failure::Machine(silent.join("\n")));
            }
        }
        self.plane = next;
        self.directory.set(mesh);
        let mut awaited = Vec::new();
        let mut leaving = Vec::new();
        for pod in begun {
            let key = pod.facts.key();
            awaited.push(key.clone());
            leaving.extend(self.pods.insert(key, pod));
        }
        let changed = self.change(change.changed, change.snapshots);
        awaited.extend(changed.map_err(told)?);
        if logs_change {
            self.logs.set_encoding(config.access_log_encoding);
            for pod in self.pods.values() {
                warnings.extend(self.set_log(&config, pod).err());
            }
        }
        // Nobody is led any more to those who leave.
        let mut settled = self.settle(SETTLE_PATIENCE);
        leaving.extend(change.gone.iter().filter_map(|key| self.pods.remove(key)));
        if !leaving.is_empty() {
            for pod in leaving {
                self.leave(pod);
            }
            settled &= self.settle(SETTLE_PATIENCE);
        }
        if !settled {
            let seconds = SETTLE_PATIENCE.as_secs();
            warnings.push(format!(
                "a worker has not taken over the change in {seconds} s"
            ));
        }
        let awaited = awaited.iter().filter_map(|key| self.pods.get(key));
        let silent = unheard(awaited, LISTEN_PATIENCE).into_iter();
        warnings.extend(silent.map(|silent| format!("warning: {silent}")));
        // The keeper is there as long as this is asked.
        let _ = self.events.send(Event::Changed);
        Ok(warnings)
    }

    /// Waits for pods that are to take the place of others; says which do not listen.
    fn unready(&self, pods: &[Pod]) -> Vec<String> {
        let end = Instant::now() + READY_PATIENCE;
        loop {
            let silent = unheard(pods.iter(), READY_LOOK);
            let enough = self.enough.load(Ordering::Relaxed);
            if silent.is_empty() || enough || Instant::now() >= end {
                return silent;
            }
        }
    }

    /// Waits until sidecars decide by what they were told, and notes which do. `false`: some do not within `patience`.
    pub(super) fn settle(&mut self, patience: Duration) -> bool {
        let settled = self.shards.settle(patience);
        for sidecar in self.pods.values_mut().filter_map(|p| p.sidecar.as_mut()) {
            if settled.get(sidecar.seat.worker) == Some(&true) && !sidecar.is_synced() {
                sidecar.in_force = Some(sidecar.sent.clone());
            }
        }
        settled.iter().all(|settled| *settled)
    }

    /// What cannot be changed under pods that run.
    fn refusals(
        &self,
        next: &Plane,
        kinds: &BTreeMap<PodKey, AppKind>,
        renewed: &[PodKey],
    ) -> Vec<String> {
        let mut refusals = Vec::new();
        let domain = self.identities.trust_domain();
        if next.mesh_config().trust_domain != domain {
            refusals.push(format!(
                "the trust domain of a mesh that runs stays `{domain}`\n  hint: end the mesh and start it with the other one"
            ));
        }
        for facts in next.mesh().pods() {
            let key = facts.key();
            let Some(pod) = self.pods.get(&key).filter(|_| !renewed.contains(&key)) else {
                continue;
            };
            let old = &pod.facts;
            let what = if old.address != facts.address {
                "its address"
            } else if old.sidecar != facts.sidecar {
                "whether it has a sidecar"
            } else if old.service_account != facts.service_account {
                "its service account"
            } else if kinds.get(&key).is_some_and(|kind| *kind != pod.kind) {
                "its app"
            } else {
                continue;
            };
            refusals.push(format!(
                "{}: pod {} runs, and {what} cannot change under it\n  hint: delete it, then apply it again",
                facts.origin,
                called(facts)
            ));
        }
        refusals
    }

    /// Takes away the folders of pods that came to nothing.
    fn undo(&self, mesh: &Mesh) {
        for facts in mesh.pods() {
            let leaves = |l: &Leaving| l.pod.facts.key() == facts.key();
            if !self.pods.contains_key(&facts.key()) && !self.leaving.iter().any(leaves) {
                let namespace = self.taken.folder.run().join(&facts.namespace);
                let _ = std::fs::remove_dir_all(namespace.join(&facts.name));
            }
        }
    }

    /// Closes the doors of a pod; what is open may go on for a while. Its certificates go unless another pod of its name
    /// has taken them over.
    fn leave(&mut self, mut pod: Pod) {
        pod.close();
        let mut wait = Duration::ZERO;
        if let Some(sidecar) = &pod.sidecar {
            let successor = self.pods.get(&pod.facts.key());
            if successor.is_none_or(|pod| pod.sidecar.is_none()) {
                sidecar.certificates.remove();
            }
            self.shards.remove(sidecar.seat, DRAIN_GRACE);
            wait = DRAIN_GRACE + DRAIN_MARGIN;
        }
        let until = Instant::now() + wait;
        self.leaving.push(Leaving { pod, until });
    }

    /// Takes a pod away to which nothing leads yet; the one whose place it was to take stays.
    fn discard(&mut self, mut pod: Pod) {
        pod.close();
        if let Some(sidecar) = &pod.sidecar {
            let former = self.pods.get(&pod.facts.key());
            match former.and_then(|pod| pod.sidecar.as_ref()) {
                Some(former) => former.certificates.restore(&sidecar.certificates),
                None => sidecar.certificates.remove(),
            }
            self.shards.remove(sidecar.seat, Duration::ZERO);
        }
        self.bury(pod);
    }

    fn set_log(&self, config: &MeshConfig, pod: &Pod) -> Result<(), String> {
        match &pod.sidecar {
            None => Ok(()),
            Some(sidecar) => {
                let number = self.shards.log_number(sidecar.seat);
                self.logs.set(number, log_path(config, &pod.dir))
            }
        }
    }

    /// How long until something is due.
    pub(super) fn due(&self) -> Duration {
        if self.rollouts.is_under_way() {
            return Duration::ZERO;
        }
        let sidecars = self.pods.values().filter_map(|pod| pod.sidecar.as_ref());
        let agents = sidecars.filter_map(|s| self.identities.due(&s.member));
        let now = Instant::now();
        let leaving = self
            .leaving
            .iter()
            .map(|l| l.until.saturating_duration_since(now));
        agents.chain(leaving).min().unwrap_or(Duration::MAX)
    }

    /// Does what is due.
    pub(super) fn tick(&mut self) {
        for pod in self.pods.values_mut() {
            let Some(sidecar) = &mut pod.sidecar else {
                continue;
            };
            if self.identities.due(&sidecar.member) != Some(Duration::ZERO) {
                continue;
            }
            let news = self.identities.tick(&mut sidecar.member);
            tell(&pod.facts, &news);
            if let Some(identity) = news.identity {
                self.shards
                    .input(sidecar.seat, Input::Svid(Arc::clone(&identity.svid)));
                if let Err(message) = sidecar.certificates.write(&identity) {
                    say::err(message);
                }
            }
        }
        let now = Instant::now();
        while let Some(at) = self.leaving.iter().position(|l| l.until <= now) {
            let leaving = self.leaving.swap_remove(at);
            self.bury(leaving.pod);
        }
        self.roll();
    }

    /// A proxy has gone.
    pub(super) fn let_go(&mut self, seat: Seat) {
        let of_seat = |l: &Leaving| l.pod.sidecar.as_ref().is_some_and(|s| s.seat == seat);
        if let Some(at) = self.leaving.iter().position(of_seat) {
            let leaving = self.leaving.swap_remove(at);
            self.bury(leaving.pod);
        }
    }

    fn bury(&mut self, mut pod: Pod) {
        if let Some(app) = pod.take_app() {
            self.stopping.retain(|app| !app.is_finished());
            self.stopping.push(self.edge.spawn(app.stop()));
        }
        if let Some(sidecar) = &pod.sidecar {
            // Takes no file, so it cannot fail.
            let number = self.shards.log_number(sidecar.seat);
            let _ = self.logs.set(number, None);
            let _ = self.logs.set_notes(number, None);
        }
        // A pod of the same name may run already.
        if !self.pods.contains_key(&pod.facts.key()) {
            let _ = std::fs::remove_dir_all(&pod.dir);
        }
    }

    /// Nobody comes in any more; gives the apps, to be stopped, and those that are being stopped.
    pub(super) fn close(&mut self) -> (Vec<AppHandle>, Vec<JoinHandle<()>>) {
        self.ending = true;
        self.taken.close_socket();
        let leaving = self.leaving.iter_mut().map(|l| &mut l.pod);
        let mut apps = Vec::new();
        for pod in self.pods.values_mut().chain(leaving) {
            pod.close();
            apps.extend(pod.take_app());
        }
        (apps, std::mem::take(&mut self.stopping))
    }

    /// Takes away what must not outlive the mesh.
    pub(super) fn forget(&mut self) {
        self.logs.close();
        for pod in self.pods.values() {
            if let Some(sidecar) = &pod.sidecar {
                sidecar.certificates.remove();
            }
        }
        self.taken.release();
    }
}

/// Waits for the apps of these pods to listen; says which do not.
fn unheard<'a>(pods: impl Iterator<Item = &'a Pod> + Clone, patience: Duration) -> Vec<String> {
    let wanted = pods.clone().flat_map(Pod::awaited).collect();
    let missing = listening::wait(wanted, patience);
    let silent = pods.filter_map(|pod| {
        let address = pod.awaited().into_iter().find(|a| missing.contains(a))?;
        Some(format!(
            "the app of {} does not listen on {address} yet\n  hint: it writes to {}",
            called(&pod.facts),
            pod.dir.join("app.log").display()
        ))
    });
    silent.collect()
}

pub(super) fn done(outcomes: &[Outcome], warnings: Vec<String>) -> Answer {
    Answer::Done {
        lines: outcomes.iter().map(Outcome::to_string).collect(),
        warnings,
    }
}

/// Why a workload has no new certificate. That it got one is no news.
pub(super) fn tell(facts: &PodFacts, news: &News) {
    for note in &news.notes {
        if !matches!(note, Note::Issued { .. }) {
            say::err(format_args!("{}: {note}", called(facts)));
        }
    }
}

pub(crate) fn texts(files: Vec<FileText>) -> Vec<Text> {
    let text = |file: FileText| Text {
        name: file.name.into(),
        text: file.text,
    };
    files.into_iter().map(text).collect()
}

pub(crate) fn data(refused: Refused) -> Failure {
    Failure::Data(refused.findings.iter().map(Finding::to_string).collect())
}

/// What each pod runs. `texts`: of what was said just now, so that findings stand at their place.
pub(super) fn kinds(
    plane: &Plane,
    texts: &[Text],
) -> Result<BTreeMap<PodKey, AppKind>, Vec<String>> {
    let mut kinds = BTreeMap::new();
    let mut findings: Vec<String> = Vec::new();
    for pod in plane.mesh().pods() {
        match AppKind::read(&pod.annotations, &pod.origin, texts, !pod.ports.is_empty()) {
            Ok(kind) => {
                kinds.insert(pod.key(), kind);
            }
            Err(found) => {
                // The pods of one Deployment are wrong in the same way.
                for finding in found.iter().map(Finding::to_string) {
                    if !findings.contains(&finding) {
                        findings.push(finding);
                    }
                }
            }
        }
    }
    if findings.is_empty() {
        Ok(kinds)
    } else {
        Err(findings)
    }
}

/// Where the records of a pod's sidecar go: Istio writes to a path inside each container, here it is the file of that name
/// in the pod's folder. `None`: nowhere.
pub(super) fn log_path(config: &MeshConfig, dir: &Path) -> Option<PathBuf> {
    match config.access_log_file.as_str() {
        "" => None,
        "/dev/stdout" | "/dev/stderr" => Some(dir.join("istio-proxy.log")),
        other => Path::new(other).file_name().map(|name| dir.join(name)),
    }
}

/// Each pod has its listeners, its app's, its entries and its log; the first connections need some, too.
pub(super) fn need_files(mesh: &Mesh) -> Result<(), Failure> {
    let (mut count, mut needed) = (0, FILES_BASE);
    for pod in mesh.pods() {
        count += 1;
        needed += 2 * pod.ports.len() + 8;
    }
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    machine::need_open_files(needed, &format!("{count} pods"))
}
