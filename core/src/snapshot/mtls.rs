//! Which mode of mutual TLS a workload's ports have (S-20 to S-23).
//!
//! Three levels: the mesh (the root namespace), the namespace, the workload. Of each only the oldest policy counts; what a
//! level leaves unset it inherits from the one above. Gateways are none of this (S-24).
//!
//! The same modes tell a client what to speak where no rule of its own says so ([`auto_mtls`], S-60 to S-62).

use std::collections::BTreeMap;

use super::select::{Workload, by_age, selects};
use crate::api::peer_authentication::{Mode, PeerAuthentication};

/// The modes of all ports of one workload. No mode in it is `Unset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modes {
    // INVARIANT: neither this nor a value of `ports` is `Unset`; `effective_modes` merges before it stores.
    workload: Mode,
    ports: BTreeMap<u16, Mode>,
}

impl Modes {
    /// The mode of a workload port (not a service port, S-22), whether or not a Service exposes it (S-23).
    pub fn of(&self, port: u16) -> Mode {
        self.ports.get(&port).copied().unwrap_or(self.workload)
    }

    /// The mode of every port that has none of its own.
    pub fn workload(&self) -> Mode {
        self.workload
    }

    /// The ports with a mode of their own, ascending. Each builds a chain even without a Service (S-23).
    pub fn ports(&self) -> impl Iterator<Item = (u16, Mode)> + '_ {
        self.ports.iter().map(|(port, mode)| (*port, *mode))
    }
}

/// The modes that `policies` (of any namespace, in any order) give to `workload`; PERMISSIVE where none says anything
/// (S-9).
///
/// A policy of the root namespace with a selector is ignored, also by workloads of that namespace (S-3); so are port
/// entries of policies without a selector (S-22).
pub fn effective_modes(
    workload: &Workload,
    policies: &[PeerAuthentication],
    root_namespace: &str,
) -> Modes {
    let own = oldest(policies, |policy| {
        policy.meta.namespace == workload.namespace
            && policy.meta.namespace != root_namespace
            && is_selective(policy)
            && selects(policy.selector.as_ref(), &workload.labels)
    });

    let namespace = namespace_mode(policies, &workload.namespace, root_namespace);
    let mode = own.map_or(namespace, |policy| inherit(policy.mode, namespace));
    let ports = own.map_or_else(BTreeMap::new, |policy| {
        policy
            .port_level
            .iter()
            .map(|(port, own)| (*port, inherit(*own, mode)))
            .collect()
    });
    Modes {
        workload: mode,
        ports,
    }
}

/// The mode of a namespace, before any workload of it is looked at: its own policy without a selector, else the mesh's, else
/// PERMISSIVE. Never `Unset`.
pub fn namespace_mode(
    policies: &[PeerAuthentication],
    namespace: &str,
    root_namespace: &str,
) -> Mode {
    [root_namespace, namespace]
        .into_iter()
        .filter_map(|namespace| {
            oldest(policies, |policy| {
                policy.meta.namespace == namespace && !is_selective(policy)
            })
        })
        .fold(Mode::Permissive, |parent, policy| {
            inherit(policy.mode, parent)
        })
}

/// What a client knows of one endpoint of a service that it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointFacts {
    /// It has the label `security.istio.io/tlsMode: istio`, which injection sets.
    pub tls_mode_istio: bool,
    /// The mode that PeerAuthentication gives the endpoint for its port.
    pub mode: Mode,
}

impl EndpointFacts {
    fn takes_mtls(&self) -> bool {
        self.tls_mode_istio && self.mode != Mode::Disable
    }
}

/// Which of `endpoints` are spoken to in mutual TLS where no client rule says anything, in their order (S-60 to S-62).
///
/// `mesh_auto` is `enableAutoMtls`; `external`: a service of location MESH_EXTERNAL (S-270). `namespace_mode` is the mode
/// of the service's namespace, after it inherited from the mesh's and before any workload is looked at: DISABLE there
/// outweighs STRICT of a workload (S-61). A headless service has one answer for all: one endpoint in plaintext makes
/// every one so.
pub fn auto_mtls(
    mesh_auto: bool,
    external: bool,
    headless: bool,
    namespace_mode: Mode,
    endpoints: &[EndpointFacts],
) -> Vec<bool> {
    let on = mesh_auto && !external && namespace_mode != Mode::Disable;
    let all = endpoints.iter().all(EndpointFacts::takes_mtls);
    endpoints
        .iter()
        .map(|endpoint| on && endpoint.takes_mtls() && (all || !headless))
        .collect()
}

fn inherit(own: Mode, parent: Mode) -> Mode {
    match own {
        Mode::Unset => parent,
        Mode::Disable | Mode::Permissive | Mode::Strict => own,
    }
}

fn is_selective(policy: &PeerAuthentication) -> bool {
    policy
        .selector
        .as_ref()
        .is_some_and(|selector| !selector.is_empty())
}

fn oldest(
    policies: &[PeerAuthentication],
    at_level: impl Fn(&PeerAuthentication) -> bool,
) -> Option<&PeerAuthentication> {
    policies
        .iter()
        .filter(|policy| at_level(policy))
        .min_by(|a, b| by_age(&a.meta, &b.meta))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::meta::{Labels, Meta, Origin};
    use Mode::{Disable, Permissive, Strict, Unset};

    struct Draft(PeerAuthentication);

    impl Draft {
        fn selecting(mut self, app: &str) -> Self {
            self.0.selector = Some(Labels::from([("app".into(), app.into())]));
            self
        }

        fn port(mut self, port: u16, mode: Mode) -> Self {
            self.0.port_level.insert(port, mode);
            self
        }

        fn created(mut self, second: u64) -> Self {
            self.0.meta.created = second;
            self
        }
    }

    fn draft(namespace: &str, name: &str, mode: Mode) -> Draft {
        Draft(PeerAuthentication {
            meta: Meta {
                name: name.into(),
                namespace: namespace.into(),
                created: 0,
                annotations: BTreeMap::new(),
                labels: BTreeMap::new(),
                origin: Origin {
                    file: "test.yaml".into(),
                    line: 1,
                    column: 1,
                },
            },
            selector: None,
            mode,
            port_level: BTreeMap::new(),
        })
    }

    fn modes_in(namespace: &str, drafts: Vec<Draft>) -> Modes {
        let api = Workload {
            namespace: namespace.into(),
            labels: Labels::from([("app".into(), "api".into())]),
        };
        let policies: Vec<_> = drafts.into_iter().map(|draft| draft.0).collect();
        effective_modes(&api, &policies, "istio-system")
    }

    fn modes(drafts: Vec<Draft>) -> Modes {
        modes_in("shop", drafts)
    }

    #[test]
    fn without_a_policy_every_port_is_permissive() {
        assert_eq!(modes(vec![]).of(8080), Permissive, "S-9");
        assert_eq!(
            modes(vec![draft("stock", "p", Strict)]).of(8080),
            Permissive
        );
    }

    #[test]
    fn the_narrowest_level_that_says_something_wins() {
        let mesh = || draft("istio-system", "mesh", Strict);
        let own = || draft("shop", "own", Permissive).selecting("api");
        assert_eq!(modes(vec![mesh()]).of(1), Strict);
        let namespace = draft("shop", "ns", Disable);
        assert_eq!(modes(vec![mesh(), namespace]).of(1), Disable);
        let namespace = draft("shop", "ns", Disable);
        assert_eq!(modes(vec![own(), mesh(), namespace]).of(1), Permissive);
        let unset = || draft("shop", "ns", Unset);
        let other = draft("shop", "own", Unset).selecting("api");
        assert_eq!(
            modes(vec![mesh(), unset(), other]).of(1),
            Strict,
            "UNSET inherits"
        );
    }

    #[test]
    fn unset_for_the_mesh_is_permissive() {
        assert_eq!(
            modes(vec![draft("istio-system", "mesh", Unset)]).of(1),
            Permissive
        );
    }

    #[test]
    fn a_port_entry_counts_for_its_workload_port_only() {
        let own = draft("shop", "own", Strict)
            .selecting("api")
            .port(8080, Disable)
            .port(9090, Unset);
        let modes = modes(vec![own]);
        assert_eq!(modes.of(8080), Disable, "S-22");
        assert_eq!(modes.of(9090), Strict, "UNSET inherits the workload's mode");
        assert_eq!(modes.of(80), Strict);
        assert_eq!(
            modes.ports().collect::<Vec<_>>(),
            [(8080, Disable), (9090, Strict)]
        );
    }

    #[test]
    fn port_entries_without_a_selector_have_no_effect() {
        let mut namespace = draft("shop", "ns", Strict).port(8080, Disable);
        assert_eq!(modes(vec![namespace]).of(8080), Strict, "S-22");
        namespace = draft("shop", "ns", Strict).port(8080, Disable);
        namespace.0.selector = Some(Labels::new());
        assert_eq!(modes(vec![namespace]).of(8080), Strict);
    }

    #[test]
    fn of_one_level_only_the_oldest_counts_and_its_ports() {
        let young = draft("shop", "a", Disable)
            .selecting("api")
            .port(8080, Permissive)
            .created(7);
        let old = draft("shop", "b", Strict).selecting("api").created(6);
        let modes = modes(vec![young, old]);
        assert_eq!(modes.of(8080), Strict, "S-21");
        assert_eq!(modes.of(1), Strict);
    }

    #[test]
    fn a_selector_in_the_root_namespace_has_no_effect() {
        let root = || draft("istio-system", "x", Strict).selecting("api");
        assert_eq!(modes(vec![root()]).of(1), Permissive, "S-3");
        assert_eq!(modes_in("istio-system", vec![root()]).of(1), Permissive);
    }

    #[test]
    fn a_younger_policy_for_other_workloads_does_not_interfere() {
        let other = draft("shop", "a", Disable).selecting("web");
        let own = draft("shop", "b", Strict).selecting("api");
        assert_eq!(modes(vec![other, own]).of(1), Strict);
    }

    #[test]
    fn the_mode_of_a_namespace_knows_no_workload() {
        let of = |drafts: Vec<Draft>, namespace| {
            let policies: Vec<_> = drafts.into_iter().map(|draft| draft.0).collect();
            namespace_mode(&policies, namespace, "istio-system")
        };
        let mesh = || draft("istio-system", "mesh", Strict);
        assert_eq!(of(vec![], "shop"), Permissive);
        assert_eq!(of(vec![mesh()], "shop"), Strict);
        assert_eq!(of(vec![mesh()], "istio-system"), Strict);
        let own = || draft("shop", "ns", Disable);
        assert_eq!(of(vec![mesh(), own()], "shop"), Disable);
        assert_eq!(of(vec![mesh(), own()], "stock"), Strict);
        let unset = draft("shop", "ns", Unset);
        assert_eq!(of(vec![mesh(), unset], "shop"), Strict);
        let workload = draft("shop", "own", Disable).selecting("api");
        assert_eq!(of(vec![mesh(), workload], "shop"), Strict);
    }

    fn endpoint(tls_mode_istio: bool, mode: Mode) -> EndpointFacts {
        EndpointFacts {
            tls_mode_istio,
            mode,
        }
    }

    #[test]
    fn each_endpoint_with_a_sidecar_that_takes_tls_gets_it() {
        let endpoints = [
            endpoint(true, Strict),
            endpoint(true, Permissive),
            endpoint(true, Disable),
            endpoint(false, Permissive),
        ];
        assert_eq!(
            auto_mtls(true, false, false, Permissive, &endpoints),
            [true, true, false, false],
            "S-60"
        );
    }

    #[test]
    fn one_endpoint_in_plaintext_makes_a_headless_service_so() {
        let with = |last| {
            let endpoints = [endpoint(true, Permissive), last];
            auto_mtls(true, false, true, Strict, &endpoints)
        };
        assert_eq!(with(endpoint(true, Strict)), [true, true], "S-62");
        assert_eq!(with(endpoint(false, Permissive)), [false, false]);
        assert_eq!(with(endpoint(true, Disable)), [false, false]);
        assert_eq!(auto_mtls(true, false, true, Strict, &[]), [false; 0]);
    }

    #[test]
    fn the_mesh_the_namespace_and_the_location_switch_it_off_for_all() {
        let endpoints = [endpoint(true, Strict)];
        let with =
            |auto, external, namespace| auto_mtls(auto, external, false, namespace, &endpoints);
        assert_eq!(with(true, false, Unset), [true]);
        assert_eq!(with(false, false, Permissive), [false], "S-60");
        assert_eq!(with(true, true, Permissive), [false], "S-270");
        assert_eq!(with(true, false, Disable), [false], "S-61");
    }
}
