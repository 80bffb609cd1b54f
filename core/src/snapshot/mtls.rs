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
    let own = own_policy(workload, policies, root_namespace);
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
        .filter_map(|namespace| shared_policy(policies, namespace))
        .fold(Mode::Permissive, |parent, policy| {
            inherit(policy.mode, parent)
        })
}

/// The policy that gives a port of `workload` its mode; `None`: nothing says anything, so it is PERMISSIVE (S-9).
pub fn deciding<'p>(
    workload: &Workload,
    policies: &'p [PeerAuthentication],
    root_namespace: &str,
    port: u16,
) -> Option<&'p PeerAuthentication> {
    let says = |policy: &&PeerAuthentication| {
        let of_port = policy.port_level.get(&port).copied();
        inherit(of_port.unwrap_or(Mode::Unset), policy.mode) != Mode::Unset
    };
    own_policy(workload, policies, root_namespace)
        .filter(says)
        .or_else(|| deciding_namespace(policies, &workload.namespace, root_namespace))
}

/// The policy that gives a namespace its mode, as [`namespace_mode`] reads it; `None`: there is none.
pub fn deciding_namespace<'p>(
    policies: &'p [PeerAuthentication],
    namespace: &str,
    root_namespace: &str,
) -> Option<&'p PeerAuthentication> {
    [namespace, root_namespace]
        .into_iter()
        .filter_map(|namespace| shared_policy(policies, namespace))
        .find(|policy| policy.mode != Mode::Unset)
}

/// Of those that select the workload in its namespace, the one that counts.
fn own_policy<'p>(
    workload: &Workload,
    policies: &'p [PeerAuthentication],
    root_namespace: &str,
) -> Option<&'p PeerAuthentication> {
    oldest(policies, |policy| {
        policy.meta.namespace == workload.namespace
            && policy.meta.namespace != root_namespace
            && is_selective(policy)
            && selects(policy.selector.as_ref(), &workload.labels)
    })
}

/// Of those of a namespace without a selector, the one that counts.
fn shared_policy<'p>(
    policies: &'p [PeerAuthentication],
    namespace: &str,
) -> Option<&'p PeerAuthentication> {
    oldest(policies, |policy| {
        policy.meta.namespace == namespace && !is_selective(policy)
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
    fn plain(&self) -> Option<Plain> {
        if !self.tls_mode_istio {
            Some(Plain::NoTlsMode)
        } else if self.mode == Mode::Disable {
            Some(Plain::Disabled)
        } else {
            None
        }
    }
}

/// Why an endpoint is spoken to in plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// `enableAutoMtls` is off.
    Off,
    External,
    /// The mode of the service's namespace is DISABLE (S-61).
    NamespaceDisabled,
    /// The endpoint lacks the label `security.istio.io/tlsMode: istio`: it has no sidecar.
    NoTlsMode,
    /// PeerAuthentication disables mutual TLS at the endpoint's port.
    Disabled,
    /// The service is headless, and another endpoint takes none.
    Other,
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
    let plain = plain(mesh_auto, external, headless, namespace_mode, endpoints);
    plain.iter().map(Option::is_none).collect()
}

/// The same, with why an endpoint is spoken to in plaintext; `None`: it is not.
pub fn plain(
    mesh_auto: bool,
    external: bool,
    headless: bool,
    namespace_mode: Mode,
    endpoints: &[EndpointFacts],
) -> Vec<Option<Plain>> {
    let for_all = match (mesh_auto, external, namespace_mode) {
        (false, ..) => Some(Plain::Off),
        (true, true, _) => Some(Plain::External),
        (true, false, Mode::Disable) => Some(Plain::NamespaceDisabled),
        (true, false, Mode::Unset | Mode::Permissive | Mode::Strict) => None,
    };
    let one = headless && endpoints.iter().any(|endpoint| endpoint.plain().is_some());
    endpoints
        .iter()
        .map(|endpoint| {
            for_all
                .or_else(|| endpoint.plain())
                .or_else(|| one.then_some(Plain::Other))
        })
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
            plain(true, false, false, Permissive, &endpoints),
            [None, None, Some(Plain::Disabled), Some(Plain::NoTlsMode)],
            "S-60"
        );
    }

    #[test]
    fn one_endpoint_in_plaintext_makes_a_headless_service_so() {
        let with = |last| {
            let endpoints = [endpoint(true, Permissive), last];
            plain(true, false, true, Strict, &endpoints)
        };
        assert_eq!(with(endpoint(true, Strict)), [None, None], "S-62");
        let other = Some(Plain::Other);
        assert_eq!(
            with(endpoint(false, Permissive)),
            [other, Some(Plain::NoTlsMode)]
        );
        assert_eq!(
            with(endpoint(true, Disable)),
            [other, Some(Plain::Disabled)]
        );
        assert_eq!(plain(true, false, true, Strict, &[]), []);
    }

    #[test]
    fn the_mesh_the_namespace_and_the_location_switch_it_off_for_all() {
        let endpoints = [endpoint(true, Strict)];
        let with = |auto, external, namespace| plain(auto, external, false, namespace, &endpoints);
        assert_eq!(with(true, false, Unset), [None]);
        assert_eq!(with(false, false, Permissive), [Some(Plain::Off)], "S-60");
        assert_eq!(
            with(true, true, Permissive),
            [Some(Plain::External)],
            "S-270"
        );
        let disabled = [Some(Plain::NamespaceDisabled)];
        assert_eq!(with(true, false, Disable), disabled, "S-61");
    }

    #[test]
    fn the_policy_that_decides_is_the_one_whose_mode_a_port_has() {
        let web = Workload {
            namespace: "shop".into(),
            labels: Labels::from([("app".into(), "api".into())]),
        };
        let all = [Unset, Disable, Permissive, Strict];
        for (mesh, shared, own, port) in all
            .iter()
            .flat_map(|mesh| all.iter().map(move |shared| (mesh, shared)))
            .flat_map(|(mesh, shared)| all.iter().map(move |own| (mesh, shared, own)))
            .flat_map(|(mesh, shared, own)| all.iter().map(move |p| (mesh, shared, own, p)))
        {
            let policies: Vec<_> = [
                draft("istio-system", "mesh", *mesh),
                draft("shop", "ns", *shared),
                draft("shop", "own", *own).selecting("api").port(80, *port),
            ]
            .into_iter()
            .map(|draft| draft.0)
            .collect();
            let modes = effective_modes(&web, &policies, "istio-system");
            for number in [80, 81] {
                let says = deciding(&web, &policies, "istio-system", number);
                let mode = says.map_or(Permissive, |policy| {
                    let of_port = policy.port_level.get(&number).copied();
                    inherit(of_port.unwrap_or(Unset), policy.mode)
                });
                assert_eq!(mode, modes.of(number), "{policies:?}");
            }
        }
    }
}
