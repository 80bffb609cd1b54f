//! Which resource applies to which workload (S-1 to S-9).

use meshward_core::api::meta::{Labels, Meta};

use super::Workload;

/// Every label of the selector is there with the same value; no selector or an empty one selects everything (S-2).
pub fn selects(selector: Option<&Labels>, workload: &Workload) -> bool {
    match selector {
        None => true,
        Some(labels) => labels
            .iter()
            .all(|(key, value)| workload.labels.get(key) == Some(value)),
    }
}

/// Whether an AuthorizationPolicy or RequestAuthentication is in force: of the root namespace or the workload's own (S-1),
/// selecting it (S-2, S-3), and without targets, which sidecars ignore (S-5).
pub fn applies(
    meta: &Meta,
    selector: Option<&Labels>,
    targets: bool,
    workload: &Workload,
    root: &str,
) -> bool {
    let near = meta.namespace == root || meta.namespace == workload.namespace;
    near && !targets && selects(selector, workload)
}

/// What is compared to find the oldest (S-7).
pub fn age(meta: &Meta) -> (u64, &str, &str) {
    (meta.created, &meta.name, &meta.namespace)
}
