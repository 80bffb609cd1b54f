//! Mutual TLS at the door of a workload (S-20 to S-25).

use meshward_core::api::meta::Labels;
use meshward_core::api::peer_authentication::{Mode, PeerAuthentication};

use super::scope::{age, selects};
use super::{Mesh, PortKind, Workload};

/// Port, workload, namespace, mesh, PERMISSIVE: the first that says something (S-20).
pub fn effective_mode(mesh: &Mesh, workload: &Workload, port: u16) -> Mode {
    let root = mesh.config.root_namespace.as_str();
    let selective = |policy: &PeerAuthentication| {
        policy
            .selector
            .as_ref()
            .is_some_and(|labels: &Labels| !labels.is_empty())
    };
    let of_workload = oldest(mesh, |policy| {
        // A root-namespace policy with a selector is ignored (S-3).
        selective(policy)
            && policy.meta.namespace != root
            && policy.meta.namespace == workload.namespace
            && selects(policy.selector.as_ref(), workload)
    });
    let of_namespace = oldest(mesh, |policy| {
        !selective(policy)
            && policy.meta.namespace == workload.namespace
            && policy.meta.namespace != root
    });
    let of_mesh = oldest(mesh, |policy| {
        !selective(policy) && policy.meta.namespace == root
    });
    let levels = [
        of_workload.and_then(|policy| policy.port_level.get(&port).copied()), // S-22
        of_workload.map(|policy| policy.mode),
        of_namespace.map(|policy| policy.mode),
        of_mesh.map(|policy| policy.mode),
    ];
    levels
        .into_iter()
        .flatten()
        .find(|mode| *mode != Mode::Unset)
        .unwrap_or(Mode::Permissive)
}

/// Of each level the oldest policy alone counts (S-21).
fn oldest(
    mesh: &Mesh,
    of_level: impl Fn(&PeerAuthentication) -> bool,
) -> Option<&PeerAuthentication> {
    mesh.peers
        .iter()
        .filter(|policy| of_level(policy))
        .min_by_key(|policy| age(&policy.meta))
}

/// Where a connection ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Nowhere: it is reset (S-28).
    None,
    Http,
    Tcp,
}

/// The matrix of S-25 for plain text and for TLS as sidecars speak it, whose ALPN says truly what is inside (S-63).
pub fn chain(mode: Mode, kind: PortKind, tls: bool, http: bool) -> Chain {
    let refused = match mode {
        Mode::Strict => !tls,
        Mode::Disable => tls,
        Mode::Permissive | Mode::Unset => false,
    };
    match kind {
        _ if refused => Chain::None,
        PortKind::Http => Chain::Http,
        PortKind::Tcp => Chain::Tcp,
        PortKind::Auto if http => Chain::Http,
        PortKind::Auto => Chain::Tcp,
    }
}
