//! The proxy: three verbs, and the promises that a driver makes, checked.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use meshward_core::accept::{Mode, PortKind};
use meshward_core::api::finding::Finding;
use meshward_core::api::load::{Text, grammar, load_for_enforcement};
use meshward_core::clock;
use meshward_core::machine::Machine as _;
use meshward_core::proxy::{self, Input};
use meshward_core::snapshot::Snapshot;
use meshward_core::snapshot::compile::{self, InboundSource, Sources};
use meshward_core::snapshot::select::Workload;
use meshward_core::tls::Crypto;
use pyo3::prelude::*;

use crate::MeshwardError;
use crate::action::Action;
use crate::convert::{Address, Deadline, Named, Now};
use crate::event::Event;
use crate::plain::Show as _;

/// The data plane of one workload: bytes and time in, bytes and records out. It has no socket and no clock.
///
/// After each `handle` or `configure`, call `poll_action` until it returns `None` and do what it says, in that order; then
/// `poll_timeout` says when a `Tick` is wanted. It refuses all connections until it has an identity and a configuration.
#[pyclass(module = "meshward")]
pub(crate) struct Proxy {
    machine: proxy::Proxy,
    at: clock::Instant,
    /// `poll_action` returned `None` since the last input.
    drained: bool,
    /// Of the last snapshot.
    version: u64,
}

#[pymethods]
impl Proxy {
    /// `seed` feeds what has to be unpredictable outside of cryptography: request ids.
    #[new]
    fn new(seed: [u8; 32], now: Now) -> Self {
        let now = clock::Now::from(now);
        Self {
            machine: proxy::Proxy::new(seed, Crypto::production(), now),
            at: now.at,
            drained: true,
            version: 0,
        }
    }

    /// Tells the machine what happened. Every event is legal at any time; one for a link that is dead is dropped.
    ///
    /// An identity that is not valid now, a clock that runs back and actions that were not taken are errors; the machine
    /// then has not heard of the event.
    fn handle(&mut self, event: Event<'_>, now: Now) -> PyResult<()> {
        let now = self.admit(now)?;
        let input = event.into_input(now)?;
        self.step(input, now);
        Ok(())
    }

    /// Replaces the configuration by one inbound port: its policies (YAML or JSON of Istio's resources), its mode and where
    /// the application listens. Returns warnings.
    ///
    /// `mode` is STRICT, PERMISSIVE, DISABLE, or `None`: then PeerAuthentication decides. `protocol` is http, tcp or auto.
    /// `namespace` and `labels` are the workload's, for selectors; `file` is what findings call the text. What is valid but
    /// not enforced is an error, and so is all that is not valid; then nothing changes.
    #[pyo3(signature = (policies_yaml, mode, port, upstream, protocol = "http", namespace = "default",
                        labels = None, *, now, file = "policies.yaml"))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn configure(
        &mut self,
        policies_yaml: String,
        mode: Option<Named<Mode>>,
        port: NonZeroU16,
        upstream: Address,
        protocol: &str,
        namespace: &str,
        labels: Option<BTreeMap<String, String>>,
        now: Now,
        file: &str,
    ) -> PyResult<Vec<String>> {
        let now = self.admit(now)?;
        let version = self.version + 1;
        let workload = Workload {
            namespace: namespace.to_owned(),
            labels: labels.unwrap_or_default(),
        };
        let door = Door {
            port,
            kind: Named::parse(protocol)?.0,
            mode: mode.map(|mode| mode.0),
            upstream,
        };
        let text = Text {
            name: file.into(),
            text: policies_yaml,
        };
        let (snapshot, warnings) = compile_door(version, workload, door, text)?;
        self.version = version;
        self.step(Input::Snapshot(Arc::new(snapshot)), now);
        Ok(warnings)
    }

    /// The next thing to do; `None` when there is nothing left.
    fn poll_action(&mut self, py: Python<'_>) -> Option<Action> {
        let action = self.machine.poll_action();
        self.drained = action.is_none();
        action.map(|action| Action::new(action, py))
    }

    /// When a `Tick` is wanted at the latest; `None` if nothing waits for time.
    fn poll_timeout(&self) -> Option<Deadline> {
        self.machine.poll_timeout().map(Deadline::from)
    }

    /// What the machine is waiting for, a line for each link.
    fn pending(&self) -> Vec<String> {
        self.machine.pending()
    }

    /// What happened so far. Counters only grow.
    fn stats(&self) -> BTreeMap<&'static str, u64> {
        let proxy::Stats {
            stale,
            accepted,
            handshakes,
            handshake_failures,
            refused,
            requests,
            denied,
            violations,
            limited,
            upstream_connects,
            upstream_failures,
        } = *self.machine.stats();
        BTreeMap::from([
            ("stale", stale),
            ("accepted", accepted),
            ("handshakes", handshakes),
            ("handshake_failures", handshake_failures),
            ("refused", refused),
            ("requests", requests),
            ("denied", denied),
            ("violations", violations),
            ("limited", limited),
            ("upstream_connects", upstream_connects),
            ("upstream_failures", upstream_failures),
        ])
    }

    fn __repr__(&self) -> String {
        format!("<Proxy with {} links>", self.machine.links())
    }
}

impl Proxy {
    /// The machine asserts what a driver promises; a script gets an exception instead.
    fn admit(&self, now: Now) -> PyResult<clock::Now> {
        let now = clock::Now::from(now);
        if now.at < self.at {
            return Err(MeshwardError::new_err(format!(
                "time ran back from {} ns to {} ns",
                self.at.0, now.at.0
            )));
        }
        if !self.drained {
            return Err(MeshwardError::new_err(
                "actions are left over\n  hint: call poll_action until it returns None",
            ));
        }
        Ok(now)
    }

    fn step(&mut self, input: Input, now: clock::Now) {
        self.at = now.at;
        self.drained = false;
        self.machine.handle(input, now);
    }
}

/// One inbound port.
struct Door {
    port: NonZeroU16,
    kind: PortKind,
    mode: Option<Mode>,
    upstream: Address,
}

fn compile_door(
    version: u64,
    workload: Workload,
    door: Door,
    text: Text,
) -> PyResult<(Snapshot, Vec<String>)> {
    if !grammar::is_label(&workload.namespace) {
        return Err(MeshwardError::new_err(format!(
            "`{}` is no namespace",
            workload.namespace
        )));
    }
    if door.upstream.0.port() == 0 {
        return Err(MeshwardError::new_err(format!(
            "nothing listens on {}",
            door.upstream.show()
        )));
    }
    let loaded = load_for_enforcement(&[text], &workload.namespace)
        .map_err(|refused| MeshwardError::new_err(refused.to_string()))?;
    if let (Some(_), Some(policy)) = (door.mode, loaded.peer_authentications.first()) {
        return Err(MeshwardError::new_err(format!(
            "{}: a mode is given beside this PeerAuthentication\n  hint: keep one of the two",
            policy.meta.origin
        )));
    }
    let warnings = loaded.findings.iter().map(Finding::to_string).collect();
    let sources = Sources {
        version,
        workload,
        mesh: loaded.mesh_config.unwrap_or_default(),
        inbound: vec![InboundSource {
            listener: 0,
            port: door.port.get(),
            kind: door.kind,
            mode: door.mode,
            upstream: door.upstream.0,
            from: None,
            records: true,
            authorization_policies: Arc::new(loaded.authorization_policies),
            peer_authentications: Arc::new(loaded.peer_authentications),
        }],
        outbound: Vec::new(),
    };
    let snapshot =
        compile::snapshot(&sources).map_err(|e| MeshwardError::new_err(e.to_string()))?;
    Ok((snapshot, warnings))
}
