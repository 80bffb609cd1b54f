//! How much a sidecar writes beside its records, changed while it runs.

use meshward_core::proxy::Input;
use meshward_core::telemetry::levels::{Levels, Scope};
use serde_json::{Map, json};

use crate::exit::Failure;
use crate::mesh::protocol::{Answer, LevelChange};
use crate::mesh::state::{SETTLE_PATIENCE, State};

/// Where a sidecar writes, in the folder of its pod.
const LOG: &str = "istio-proxy.log";

impl State {
    /// The levels of a sidecar, after a change if there is one. What it decides from then on is said at the new ones.
    pub(in crate::mesh) fn levels(
        &mut self,
        workload: &str,
        namespace: Option<&str>,
        change: Option<LevelChange>,
    ) -> Result<Answer, Failure> {
        let (pod, sidecar) = self.sidecar(workload, namespace)?;
        let (key, seat) = (pod.facts.key(), sidecar.seat);
        let name = format!("{}.{}", key.name, key.namespace);
        let levels = match &change {
            None => sidecar.levels,
            Some(LevelChange::Reset) => Levels::default(),
            Some(LevelChange::To(text)) => sidecar
                .levels
                .changed(text)
                .map_err(|e| Failure::Usage(e.to_string()))?,
        };
        if change.is_some() {
            let number = self.shards.log_number(seat);
            let path = pod.dir.join(LOG);
            let writes = Scope::ALL.into_iter().any(|scope| levels.writes(scope));
            let notes = writes.then_some((path.as_path(), levels));
            self.logs
                .set_notes(number, notes)
                .map_err(Failure::Machine)?;
            if let Some(pod) = self.pods.get_mut(&key)
                && let Some(sidecar) = &mut pod.sidecar
            {
                sidecar.levels = levels;
            }
            self.shards.input(seat, Input::Levels(levels));
            self.settle(SETTLE_PATIENCE);
        }
        let scopes: Map<String, serde_json::Value> = Scope::ALL
            .into_iter()
            .map(|scope| (scope.name().to_owned(), levels.of(scope).name().into()))
            .collect();
        Ok(Answer::Shown {
            text: format!("{name}:\nactive loggers:\n{levels}"),
            json: json!({ "name": name, "levels": scopes }),
        })
    }
}
