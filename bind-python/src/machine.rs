//! The proxy: three verbs, and the promises that a driver makes, checked.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use meshward_core::accept::Mode;
use meshward_core::clock;
use meshward_core::machine::Machine as _;
use meshward_core::proxy::{self, Input};
use meshward_core::tls::Crypto;
use pyo3::prelude::*;

use crate::MeshwardError;
use crate::action::Action;
use crate::convert::{Address, Deadline, Named, Now};
use crate::event::Event;
use crate::policies::{Policies, workload};
use crate::snapshot::{Inbound, Snapshot};

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
    /// An identity that is not valid now, a snapshot that is not newer than the one before, a clock that runs back and
    /// actions that were not taken are errors; the machine then has not heard of the event.
    fn handle(&mut self, event: Event<'_>, now: Now) -> PyResult<()> {
        let now = self.admit(now)?;
        let input = event.into_input(now)?;
        if let Input::Snapshot(snapshot) = &input {
            if snapshot.version <= self.version {
                return Err(MeshwardError::new_err(format!(
                    "snapshot {} is not newer than {}\n  hint: give each snapshot a greater version",
                    snapshot.version, self.version
                )));
            }
            self.version = snapshot.version;
        }
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
        policies_yaml: &str,
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
        let policies = Policies::new(policies_yaml, namespace, file)?;
        let inbound = Inbound {
            port,
            upstream,
            protocol: Named::parse(protocol)?,
            mode,
            from_: None,
        };
        let workload = workload(namespace, labels)?;
        let mesh = policies.mesh.clone().unwrap_or_default();
        let snapshot = Snapshot::compile(version, workload, mesh, &policies, &[&inbound], &[])?;
        self.version = version;
        self.step(Input::Snapshot(snapshot.0), now);
        Ok(policies.warnings)
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
