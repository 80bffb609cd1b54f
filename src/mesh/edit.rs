//! Changes by name: `delete KIND NAME` and `label`.

use meshward_core::api::kube::{Namespace, ServiceAccount};
use meshward_core::api::meta::Labels;
use meshward_core::api::object::{Key, Kind, Object};
use meshward_core::control::mesh::PodKey;
use meshward_core::control::store::NotFoundError;

use super::protocol::{Answer, Scope};
use super::state::{State, data};
use crate::exit::Failure;
use crate::machine;

impl State {
    /// All of them go, or none. A pod of a Deployment is made anew.
    pub(super) fn delete_named(
        &mut self,
        scope: &Scope,
        ignore_not_found: bool,
    ) -> Result<Answer, Failure> {
        let (keys, missing) = self.choose(scope);
        if !missing.is_empty() && !ignore_not_found {
            return Err(Failure::Server(NotFoundError { keys: missing }.to_string()));
        }
        let store = self.plane.store();
        let (mut stored, mut renewed) = (Vec::new(), Vec::new());
        for key in &keys {
            let pod = PodKey {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
            };
            let owner = self.pods.get(&pod).and_then(|pod| pod.facts.owner.clone());
            match (key.kind, owner) {
                (Kind::Pod, Some(owner)) => renewed.push((owner, pod)),
                (Kind::Namespace, _) if store.get(key).is_none() || is_undeletable(&key.name) => {
                    return Err(Failure::Server(format!(
                        "Error from server (Forbidden): namespaces \"{}\" is forbidden: this namespace may not be deleted",
                        key.name
                    )));
                }
                // An account that needs no document is there again at once.
                _ if store.get(key).is_none() => {}
                _ => stored.push(key.clone()),
            }
        }
        let (_, warnings) = self.delete_keys(&stored)?;
        self.rollouts.begin(renewed);
        let deleted = |key: &Key| format!("{} \"{}\" deleted", key.kind, key.name);
        Ok(Answer::Done {
            lines: keys.iter().map(deleted).collect(),
            warnings,
        })
    }

    pub(super) fn label(
        &mut self,
        scope: &Scope,
        changes: &[(String, Option<String>)],
        overwrite: bool,
    ) -> Result<Answer, Failure> {
        let (keys, missing) = self.choose(scope);
        if !missing.is_empty() {
            return Err(Failure::Server(NotFoundError { keys: missing }.to_string()));
        }
        let (mut lines, mut objects, mut labelled) = (Vec::new(), Vec::new(), Vec::new());
        for key in &keys {
            let mut object = self.labelled_object(key)?;
            let labels = &mut object.meta_mut().labels;
            let before = labels.clone();
            lines.extend(relabel(labels, changes, overwrite)?);
            lines.push(format!("{key} {}", what_became(&before, labels, overwrite)));
            if *labels != before {
                labelled.push((key.clone(), labels.clone()));
                objects.push(object);
            }
        }
        let mut next = self.plane.clone();
        next.apply(objects, machine::now()).map_err(data)?;
        let warnings = self.take(next, &[])?;
        for (key, labels) in labelled {
            self.sources.relabel(&key, &labels);
        }
        Ok(Answer::Done { lines, warnings })
    }

    fn labelled_object(&self, key: &Key) -> Result<Object, Failure> {
        if let Some(object) = self.plane.store().get(key) {
            return Ok(object.clone());
        }
        let entries = self.entries(key.kind);
        let implied = entries.iter().find(|entry| entry.key == *key);
        let meta = implied.map(|entry| entry.meta.clone().into_owned());
        match (key.kind, meta) {
            (Kind::Namespace, Some(meta)) => Ok(Object::Namespace(Namespace { meta })),
            (Kind::ServiceAccount, Some(meta)) => {
                Ok(Object::ServiceAccount(ServiceAccount { meta }))
            }
            _ => Err(Failure::Server(format!(
                "error: {key} belongs to a deployment\n  hint: change the template of the deployment and apply it"
            ))),
        }
    }
}

fn is_undeletable(namespace: &str) -> bool {
    matches!(namespace, "default" | "kube-system")
}

/// Changes labels; what is worth a line of its own.
fn relabel(
    labels: &mut Labels,
    changes: &[(String, Option<String>)],
    overwrite: bool,
) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for (key, value) in changes {
        match (value, labels.get(key)) {
            (Some(value), Some(old)) if !overwrite && value != old => {
                return Err(Failure::Server(format!(
                    "error: '{key}' already has a value ({old}), and --overwrite is false"
                )));
            }
            (Some(value), _) => {
                labels.insert(key.clone(), value.clone());
            }
            (None, Some(_)) => {
                labels.remove(key);
            }
            (None, None) => lines.push(format!("label \"{key}\" not found.")),
        }
    }
    Ok(lines)
}

/// kubectl: `updateDataChangeMsg`.
fn what_became(before: &Labels, after: &Labels, overwrite: bool) -> &'static str {
    if before == after {
        "not labeled"
    } else if !overwrite && after.len() < before.len() {
        "unlabeled"
    } else {
        "labeled"
    }
}
