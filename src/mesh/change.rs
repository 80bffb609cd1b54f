//! A change of a mesh that runs: worked out whole, with every socket open that it needs, before any of it is taken over.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use meshward_core::agent::Identity;
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::object::{Key, Kind};
use meshward_core::control::mesh::{Mesh, PodFacts, PodKey};
use meshward_core::control::plane::Plane;
use meshward_core::proxy::Input;
use meshward_core::snapshot::Snapshot;
use meshward_core::telemetry::levels::Levels;

use super::apps::AppKind;
use super::certificates::Certificates;
use super::digest::{Policies, policy_digest};
use super::identities::{Member, random};
use super::pods::{Birth, Configured, Doors, Ground, Pod, Prepared, Sidecar, called};
use super::state::{State, log_path, tell};
use crate::exit::Failure;
use crate::machine;

/// Identities whose making shows progress on a terminal.
const PROGRESS_FROM: usize = 16;

/// A pod that is about to run, and who it is.
pub(super) struct New {
    prepared: Prepared,
    sidecar: Option<NewSidecar>,
}

struct NewSidecar {
    member: Member,
    identity: Option<Arc<Identity>>,
    certificates: Certificates,
    snapshot: Arc<Snapshot>,
    configured: Configured,
}

/// A change that can be taken over.
pub(super) struct Plan {
    pub(super) new: Vec<New>,
    /// Pods that run and get doors, labels or kinds of ports.
    pub(super) changed: Vec<(PodKey, PodFacts, Doors)>,
    /// For pods that run.
    pub(super) snapshots: BTreeMap<PodKey, (Arc<Snapshot>, Configured)>,
    pub(super) gone: Vec<PodKey>,
}

impl State {
    /// Opens every socket and makes every identity and snapshot that `next` needs. What was opened closes on failure.
    pub(super) fn prepare(
        &mut self,
        next: &mut Plane,
        mesh: &Mesh,
        kinds: &BTreeMap<PodKey, AppKind>,
        renewed: &[PodKey],
    ) -> Result<Plan, Failure> {
        let mut change = Plan {
            new: Vec::new(),
            changed: Vec::new(),
            snapshots: BTreeMap::new(),
            gone: Vec::new(),
        };
        for facts in mesh.pods() {
            let key = facts.key();
            let kind = kinds.get(&key).cloned().unwrap_or(AppKind::None);
            if let Some(pod) = self.pods.get(&key).filter(|_| !renewed.contains(&key)) {
                if pod.facts != *facts {
                    let doors = Doors::open(facts, &pod.missing(facts), &pod.kind)?;
                    change.changed.push((key, facts.clone(), doors));
                }
            } else {
                let prepared = Prepared::new(facts, kind, &self.taken)?;
                change.new.push(New {
                    prepared,
                    sidecar: None,
                });
            }
        }
        let snapshot = |e: &dyn std::fmt::Display| Failure::Data(vec![e.to_string()]);
        let policies = Policies::new(next.store(), next.mesh_config());
        let version = next.version();
        let configured = |facts: &PodFacts| Configured {
            version,
            policies: policy_digest(&policies, facts),
        };
        for (key, pod) in &self.pods {
            let Some(facts) = mesh.pod(key) else {
                change.gone.push(key.clone());
                continue;
            };
            if !facts.sidecar || renewed.contains(key) {
                continue;
            }
            let mut wiring = pod.wiring.clone();
            let doors = change.changed.iter().find(|(changed, ..)| changed == key);
            wiring.upstreams.extend(
                doors
                    .map(|(.., doors)| doors.upstreams())
                    .into_iter()
                    .flatten(),
            );
            let made = next.snapshot(key, &wiring).map_err(|e| snapshot(&e))?;
            change
                .snapshots
                .insert(key.clone(), (made, configured(facts)));
        }
        let sidecars = change.new.iter().filter(|n| n.prepared.facts.sidecar);
        let progress = progress(sidecars.count());
        for new in &mut change.new {
            if !new.prepared.facts.sidecar {
                continue;
            }
            let key = new.prepared.facts.key();
            let made = next.snapshot(&key, &new.prepared.wiring());
            let made = made.map_err(|e| snapshot(&e))?;
            let made = (made, configured(&new.prepared.facts));
            new.sidecar = Some(self.identify(next, &key, &new.prepared, made)?);
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(change)
    }

    fn identify(
        &mut self,
        next: &Plane,
        key: &PodKey,
        prepared: &Prepared,
        (snapshot, configured): (Arc<Snapshot>, Configured),
    ) -> Result<NewSidecar, Failure> {
        let nobody =
            || Failure::Machine(format!("pod {} has no identity", called(&prepared.facts)));
        let id = next.identity(key).ok_or_else(nobody)?;
        let (member, news) = self.identities.begin(id)?;
        tell(&prepared.facts, &news);
        Ok(NewSidecar {
            member,
            identity: news.identity,
            certificates: match self.pods.get(key).and_then(|pod| pod.sidecar.as_ref()) {
                Some(former) => former.certificates.continued(),
                None => prepared.certificates(),
            },
            snapshot,
            configured,
        })
    }

    pub(super) fn begin_all(
        &mut self,
        new: Vec<New>,
        config: &MeshConfig,
        warnings: &mut Vec<String>,
    ) -> io::Result<Vec<Pod>> {
        let begun = new.into_iter().map(|new| self.begin(new, config, warnings));
        begun.collect()
    }

    /// Takes over what becomes of pods that run; gives those whose apps were started again by it.
    pub(super) fn change(
        &mut self,
        changed: Vec<(PodKey, PodFacts, Doors)>,
        snapshots: BTreeMap<PodKey, (Arc<Snapshot>, Configured)>,
    ) -> io::Result<Vec<PodKey>> {
        let mut started = Vec::new();
        for (key, facts, doors) in changed {
            let ground = Ground {
                edge: &self.edge,
                shards: &self.shards,
                directory: &self.directory,
                deaths: &self.deaths,
                taken: &self.taken,
            };
            if let Some(pod) = self.pods.get_mut(&key) {
                pod.change(&facts, doors, &ground)?;
                started.push(key);
            }
        }
        for (key, (snapshot, configured)) in snapshots {
            if let Some(pod) = self.pods.get_mut(&key)
                && let Some(sidecar) = &mut pod.sidecar
            {
                sidecar.sent = configured;
                self.shards.input(sidecar.seat, Input::Snapshot(snapshot));
            }
        }
        Ok(started)
    }

    fn begin(
        &mut self,
        new: New,
        config: &MeshConfig,
        warnings: &mut Vec<String>,
    ) -> io::Result<Pod> {
        let sidecar = match new.sidecar {
            None => None,
            Some(mut sidecar) => {
                let seed = random().map_err(|e| io::Error::other(e.to_string()))?;
                let identity = sidecar.identity.as_ref();
                // The identity comes first: a snapshot that demands TLS finds it there.
                let inputs = identity
                    .map(|identity| Input::Svid(Arc::clone(&identity.svid)))
                    .into_iter()
                    .chain([Input::Snapshot(sidecar.snapshot)])
                    .collect();
                let worker = self.turn % self.shards.len().max(1);
                self.turn += 1;
                let seat = self.shards.add(worker, seed, inputs)?;
                if let Some(identity) = identity {
                    warnings.extend(sidecar.certificates.write(identity).err());
                }
                Some(Sidecar {
                    seat,
                    member: sidecar.member,
                    certificates: sidecar.certificates,
                    sent: sidecar.configured,
                    in_force: None,
                    levels: Levels::default(),
                })
            }
        };
        self.last_uid += 1;
        let facts = &new.prepared.facts;
        let deployment = facts.owner.as_ref().map(|owner| Key {
            kind: Kind::Deployment,
            namespace: facts.namespace.clone(),
            name: owner.clone(),
        });
        let birth = Birth {
            uid: self.last_uid,
            at: machine::now(),
            made_of: deployment.and_then(|key| self.sources.get(&key).cloned()),
        };
        if let Some(sidecar) = &sidecar {
            let path = log_path(config, new.prepared.dir());
            let number = self.shards.log_number(sidecar.seat);
            warnings.extend(self.logs.set(number, path).err());
        }
        let ground = Ground {
            edge: &self.edge,
            shards: &self.shards,
            directory: &self.directory,
            deaths: &self.deaths,
            taken: &self.taken,
        };
        new.prepared.run(sidecar, birth, &ground)
    }
}

fn progress(steps: usize) -> ProgressBar {
    if steps < PROGRESS_FROM || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(u64::try_from(steps).unwrap_or(u64::MAX));
    let style = ProgressStyle::with_template("issuing identities {bar:30} {pos}/{len}");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
