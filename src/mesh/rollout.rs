//! New pods for old ones, one after the other: each takes its place when it is ready, and nothing is lost on the way.

use std::collections::{BTreeMap, BTreeSet};

use meshward_core::api::load::Text;
use meshward_core::api::object::{Key, Kind};
use meshward_core::control::mesh::{PodFacts, PodKey};
use meshward_core::control::plane::Plane;
use meshward_core::control::store::{Change, NotFoundError, Outcome};

use super::protocol::{Answer, Progress, Scope};
use super::running::Event;
use super::state::{State, data, kinds};
use crate::exit::Failure;
use crate::say;

/// What is to be done, by Deployment.
#[derive(Debug, Default)]
pub(super) struct Rollouts {
    by_deployment: BTreeMap<PodKey, Rollout>,
}

#[derive(Debug, Default)]
struct Rollout {
    /// Pods that are of former times.
    todo: BTreeSet<PodKey>,
    /// Why it does not go on.
    failed: Option<String>,
}

impl Rollouts {
    /// Pods that are to be made anew, each with the name of its Deployment. One that has failed begins again.
    pub(super) fn begin(&mut self, pods: Vec<(String, PodKey)>) {
        for (deployment, pod) in pods {
            let key = PodKey {
                namespace: pod.namespace.clone(),
                name: deployment,
            };
            let rollout = self.by_deployment.entry(key).or_default();
            rollout.todo.insert(pod);
            rollout.failed = None;
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.next().is_some()
    }

    fn next(&self) -> Option<(PodKey, PodKey)> {
        self.by_deployment
            .iter()
            .filter(|(_, rollout)| rollout.failed.is_none())
            .find_map(|(key, rollout)| Some((key.clone(), rollout.todo.first()?.clone())))
    }

    fn done(&mut self, deployment: &PodKey, pod: &PodKey) {
        if let Some(rollout) = self.by_deployment.get_mut(deployment) {
            rollout.todo.remove(pod);
            if rollout.todo.is_empty() {
                self.by_deployment.remove(deployment);
            }
        }
    }

    fn fail(&mut self, deployment: &PodKey, why: String) {
        if let Some(rollout) = self.by_deployment.get_mut(deployment) {
            rollout.failed = Some(why);
        }
    }
}

/// Pods of Deployments that were configured to another template, with the names of these. An error is one of the template.
pub(super) fn outdated(
    plane: &Plane,
    outcomes: &[Outcome],
    texts: &[Text],
) -> Result<Vec<(String, PodKey)>, Failure> {
    let configured: BTreeSet<(&str, &str)> = outcomes
        .iter()
        .filter(|o| o.key.kind == Kind::Deployment && o.change == Change::Configured)
        .map(|o| (o.key.namespace.as_str(), o.key.name.as_str()))
        .collect();
    let is_of = |pod: &&PodFacts| {
        let owner = pod.owner.as_deref();
        owner.is_some_and(|owner| configured.contains(&(pod.namespace.as_str(), owner)))
    };
    let pods: Vec<(String, PodKey)> = plane
        .mesh()
        .pods()
        .filter(is_of)
        .filter(|pod| plane.is_outdated(pod))
        .filter_map(|pod| Some((pod.owner.clone()?, pod.key())))
        .collect();
    if !pods.is_empty() {
        let keys: Vec<PodKey> = pods.iter().map(|(_, key)| key.clone()).collect();
        let mut trial = plane.clone();
        trial.renew(&keys).map_err(data)?;
        kinds(&trial, texts).map_err(Failure::Data)?;
    }
    Ok(pods)
}

impl State {
    /// One step: a pod that is made anew, or a Deployment that is given up.
    pub(super) fn roll(&mut self) {
        if self.ending {
            return;
        }
        let Some((deployment, pod)) = self.rollouts.next() else {
            return;
        };
        let is_there = |pod: &&super::pods::Pod| pod.facts.owner.as_ref() == Some(&deployment.name);
        if self.pods.get(&pod).filter(is_there).is_none() {
            self.rollouts.done(&deployment, &pod);
            return;
        }
        match self.renew(&pod) {
            Ok(warnings) => {
                for warning in warnings {
                    say::err(warning);
                }
                self.rollouts.done(&deployment, &pod);
            }
            Err(failure) => {
                let PodKey { namespace, name } = &pod;
                let why = match failure {
                    Failure::Data(findings) => findings.join("\n"),
                    Failure::Usage(why) | Failure::Server(why) | Failure::Machine(why) => why,
                };
                say::err(format_args!(
                    "error: pod {namespace}/{name} stays as it is: {why}"
                ));
                self.rollouts.fail(&deployment, why);
            }
        }
    }

    fn renew(&mut self, pod: &PodKey) -> Result<Vec<String>, Failure> {
        let renewed = std::slice::from_ref(pod);
        let mut next = self.plane.clone();
        next.renew(renewed).map_err(data)?;
        let kinds = kinds(&next, &[]).map_err(Failure::Data)?;
        self.adopt(next, &kinds, renewed)
    }

    pub(super) fn restart(&mut self, scope: &Scope) -> Result<Answer, Failure> {
        let (keys, missing) = self.choose(scope);
        if !missing.is_empty() {
            return Err(Failure::Server(NotFoundError { keys: missing }.to_string()));
        }
        if let Some(key) = keys.iter().find(|key| key.kind != Kind::Deployment) {
            let kind = super::resources::Resource(key.kind).plural();
            return Err(Failure::Server(format!(
                "error: {kind} \"{}\" restarting is not supported",
                key.name
            )));
        }
        for key in &keys {
            let pods = self.plane.mesh().pods();
            let pods = pods.filter(|pod| {
                pod.owner.as_ref() == Some(&key.name) && pod.namespace == key.namespace
            });
            let pods = pods.map(|pod| (key.name.clone(), pod.key())).collect();
            self.rollouts.begin(pods);
        }
        // The keeper is there as long as this is asked.
        let _ = self.events.send(Event::Changed);
        Ok(Answer::Done {
            lines: keys.iter().map(|key| format!("{key} restarted")).collect(),
            warnings: Vec::new(),
        })
    }

    pub(super) fn progress(&self, namespace: &str, name: &str) -> Result<Answer, Failure> {
        let key = Key {
            kind: Kind::Deployment,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        if self.plane.store().get(&key).is_none() {
            return Err(Failure::Server(
                NotFoundError { keys: vec![key] }.to_string(),
            ));
        }
        let pods = self.pods.values().filter(|pod| {
            pod.facts.owner.as_deref() == Some(name) && pod.facts.namespace == namespace
        });
        let replicas = pods.count();
        let deployment = PodKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let rollout = self.rollouts.by_deployment.get(&deployment);
        let todo = rollout.map_or(0, |rollout| rollout.todo.len());
        Ok(Answer::Rollout(Progress {
            replicas,
            updated: replicas.saturating_sub(todo),
            failed: rollout.and_then(|rollout| rollout.failed.clone()),
        }))
    }

    /// Pods of the Deployment of that name that are of its template, and not to be made anew.
    pub(super) fn updated(&self, namespace: &str, name: &str) -> usize {
        match self.progress(namespace, name) {
            Ok(Answer::Rollout(progress)) => progress.updated,
            _ => 0,
        }
    }
}
