//! Looking at a mesh that runs: who decides by what, and what becomes of a request in it.

use meshward_core::control::mesh::PodFacts;
use serde_json::json;

use super::pods::{Pod, Sidecar, called};
use super::protocol::{Answer, Asked, Part};
use super::state::State;
use super::table::columns;
use crate::exit::Failure;
use crate::explain;

mod config;
mod levels;
mod secrets;

impl State {
    /// By the policies in force. The way out of a namespace is compiled once, so that asking costs proxies nothing.
    pub(super) fn explain(&mut self, asked: &Asked) -> Result<Answer, Failure> {
        let question = explain::question(asked)?;
        let (text, json) = explain::answer(&mut self.plane, &question)?;
        Ok(Answer::Shown { text, json })
    }

    /// A line for each sidecar.
    pub(super) fn proxy_status(&self) -> Answer {
        let sidecars = self.pods.values().filter_map(|pod| {
            let sidecar = pod.sidecar.as_ref()?;
            Some((pod, sidecar))
        });
        let (mut rows, mut json) = (Vec::new(), Vec::new());
        for (pod, sidecar) in sidecars {
            let name = format!("{}.{}", pod.facts.name, pod.facts.namespace);
            let state = if sidecar.is_synced() {
                "SYNCED"
            } else {
                "STALE"
            };
            let in_force = sidecar.in_force.as_ref();
            let identity = sidecar.member.identity.as_ref();
            let until = identity.map(|identity| identity.svid.not_after.to_string());
            let dash = || "-".to_owned();
            rows.push([
                name.clone(),
                state.to_owned(),
                in_force.map_or_else(dash, |c| c.version.to_string()),
                in_force.map_or_else(dash, |c| c.policies.clone()),
                until.clone().unwrap_or_else(dash),
            ]);
            json.push(json!({
                "name": name,
                "status": state,
                "snapshot": in_force.map(|c| c.version),
                "sent": sidecar.sent.version,
                "policies": in_force.map(|c| &c.policies),
                "identity": sidecar.member.id.to_string(),
                "certificateExpires": until,
            }));
        }
        let heading = [
            "NAME",
            "STATUS",
            "SNAPSHOT",
            "POLICIES",
            "CERTIFICATE EXPIRES",
        ];
        Answer::Shown {
            text: columns(heading, &rows),
            json: json.into(),
        }
    }

    /// A part of what the sidecar of a workload is configured with.
    pub(super) fn proxy_config(
        &mut self,
        part: Part,
        workload: &str,
        namespace: Option<&str>,
    ) -> Result<Answer, Failure> {
        let (pod, sidecar) = self.sidecar(workload, namespace)?;
        let (text, json) = match part {
            Part::Secret => secrets::show(sidecar),
            Part::Policy => config::policies(&self.plane, &pod.facts),
            Part::Listener | Part::Route | Part::Cluster => {
                let (key, wiring) = (pod.facts.key(), pod.wiring.clone());
                let snapshot = self.plane.snapshot(&key, &wiring);
                let snapshot = snapshot.map_err(|e| Failure::Machine(e.to_string()))?;
                match part {
                    Part::Listener => config::listeners(&snapshot),
                    Part::Route => config::routes(&snapshot),
                    _ => config::clusters(&snapshot),
                }
            }
        };
        Ok(Answer::Shown { text, json })
    }

    /// The pod that a user means, and its sidecar.
    pub(super) fn sidecar(
        &self,
        workload: &str,
        namespace: Option<&str>,
    ) -> Result<(&Pod, &Sidecar), Failure> {
        let mesh = self.plane.mesh();
        let facts: &PodFacts = mesh
            .find_workload(workload, namespace)
            .map_err(|e| Failure::Machine(e.to_string()))?;
        let pod = self
            .pods
            .get(&facts.key())
            .ok_or_else(|| Failure::Machine(format!("pod {} does not run", called(facts))))?;
        let sidecar = pod.sidecar.as_ref().ok_or_else(|| {
            Failure::Machine(format!("pod {} has no sidecar", called(&pod.facts)))
        })?;
        Ok((pod, sidecar))
    }
}
