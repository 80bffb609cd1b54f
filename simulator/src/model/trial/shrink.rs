//! Makes a difference small: whatever can go without the difference going is taken away.

use meshward_core::api::authorization_policy::{Operation, Source};

use super::super::{Call, Mesh, Workload};
use super::subject::NOBODY;

/// A mesh, a workload and a call to it.
#[derive(Clone, Debug)]
pub struct Case {
    pub mesh: Mesh,
    pub workload: Workload,
    pub call: Call,
}

/// The smallest case found that still `differs`, one thing less at a time.
pub fn shrunk(mut case: Case, mut differs: impl FnMut(&Case) -> bool) -> Case {
    while let Some(smaller) = candidates(&case).into_iter().find(|c| differs(c)) {
        case = smaller;
    }
    case
}

/// Every case with one thing less. Big things first.
fn candidates(case: &Case) -> Vec<Case> {
    let mut out = Vec::new();
    let mut with = |change: &dyn Fn(&mut Case)| {
        let mut smaller = case.clone();
        change(&mut smaller);
        out.push(smaller);
    };
    for at in 0..case.mesh.authorization.len() {
        with(&|c| drop(c.mesh.authorization.remove(at)));
    }
    for at in 0..case.mesh.requests.len() {
        with(&|c| drop(c.mesh.requests.remove(at)));
    }
    for at in 0..case.mesh.peers.len() {
        with(&|c| drop(c.mesh.peers.remove(at)));
    }
    for (p, policy) in case.mesh.authorization.iter().enumerate() {
        for r in 0..policy.rules.len() {
            if policy.rules.len() > 1 {
                with(&|c| drop(c.mesh.authorization[p].rules.remove(r)));
            }
        }
        if policy.selector.is_some() {
            with(&|c| c.mesh.authorization[p].selector = None);
        }
        for (r, rule) in policy.rules.iter().enumerate() {
            for i in 0..rule.from.len() {
                with(&|c| drop(c.mesh.authorization[p].rules[r].from.remove(i)));
            }
            for i in 0..rule.to.len() {
                with(&|c| drop(c.mesh.authorization[p].rules[r].to.remove(i)));
            }
            for i in 0..rule.when.len() {
                with(&|c| drop(c.mesh.authorization[p].rules[r].when.remove(i)));
            }
            for i in 0..rule.from.len() {
                for f in 0..SOURCE {
                    fewer(
                        &mut with,
                        source(&mut rule.from[i].clone())[f].len(),
                        &|c, change| {
                            change(source(&mut c.mesh.authorization[p].rules[r].from[i])[f]);
                        },
                    );
                }
            }
            for i in 0..rule.to.len() {
                for f in 0..OPERATION {
                    fewer(
                        &mut with,
                        operation(&mut rule.to[i].clone())[f].len(),
                        &|c, change| {
                            change(operation(&mut c.mesh.authorization[p].rules[r].to[i])[f]);
                        },
                    );
                }
            }
            for (i, when) in rule.when.iter().enumerate() {
                fewer(&mut with, when.values.len(), &|c, change| {
                    change(&mut c.mesh.authorization[p].rules[r].when[i].values);
                });
                fewer(&mut with, when.not_values.len(), &|c, change| {
                    change(&mut c.mesh.authorization[p].rules[r].when[i].not_values);
                });
            }
        }
    }
    for (p, policy) in case.mesh.requests.iter().enumerate() {
        if policy.selector.is_some() {
            with(&|c| c.mesh.requests[p].selector = None);
        }
        for r in 0..policy.rules.len() {
            with(&|c| drop(c.mesh.requests[p].rules.remove(r)));
            with(&|c| c.mesh.requests[p].rules[r].audiences.clear());
            with(&|c| c.mesh.requests[p].rules[r].from_headers.clear());
            with(&|c| c.mesh.requests[p].rules[r].from_params.clear());
            with(&|c| c.mesh.requests[p].rules[r].from_cookies.clear());
            with(&|c| c.mesh.requests[p].rules[r].output_payload_to_header = None);
            for i in 0..policy.rules[r].output_claims.len() {
                with(&|c| drop(c.mesh.requests[p].rules[r].output_claims.remove(i)));
            }
            with(&|c| c.mesh.requests[p].rules[r].space_delimited_claims.clear());
            with(&|c| c.mesh.requests[p].rules[r].forward_original_token = false);
        }
    }
    with(&|c| c.mesh.config.trust_domain_aliases.clear());
    with(&|c| c.mesh.config.normalization = Default::default());
    with(&|c| c.call.identity = None);
    with(&|c| c.call.sni = None);
    with(&|c| c.call.peer = NOBODY);
    if let Some(request) = &case.call.request {
        let change = |out: &mut With<'_>, target: &str| {
            let target = target.to_owned();
            out(&|c| {
                if let Some(request) = &mut c.call.request {
                    request.target.clone_from(&target);
                }
            });
        };
        for at in 0..request.lines.len() {
            with(&|c| {
                if let Some(request) = &mut c.call.request {
                    request.lines.remove(at);
                }
            });
        }
        change(&mut with, "/");
        for sign in ['#', '?'] {
            if let Some((path, _)) = request.target.split_once(sign) {
                change(&mut with, path);
            }
        }
        with(&|c| {
            if let Some(request) = &mut c.call.request {
                request.method = "GET".into();
            }
        });
    }
    // Only what is smaller, or the search would not end.
    out.retain(|smaller| format!("{smaller:?}") != format!("{case:?}"));
    out
}

/// Takes a list of a case, to change it.
type Lists<'l> = dyn Fn(&mut Case, &dyn Fn(&mut Vec<String>)) + 'l;
/// Enters the case that a change makes.
type With<'w> = dyn FnMut(&dyn Fn(&mut Case)) + 'w;

/// The field away, and each of its values away.
fn fewer(with: &mut With<'_>, len: usize, at: &Lists<'_>) {
    if len == 0 {
        return;
    }
    with(&|c| at(c, &Vec::clear));
    for value in 0..len {
        if len > 1 {
            with(&|c| at(c, &|list| drop(list.remove(value))));
        }
    }
}

const SOURCE: usize = 14;
const OPERATION: usize = 8;

fn source(source: &mut Source) -> [&mut Vec<String>; SOURCE] {
    [
        &mut source.principals,
        &mut source.not_principals,
        &mut source.request_principals,
        &mut source.not_request_principals,
        &mut source.namespaces,
        &mut source.not_namespaces,
        &mut source.service_accounts,
        &mut source.not_service_accounts,
        &mut source.trust_domains,
        &mut source.not_trust_domains,
        &mut source.ip_blocks,
        &mut source.not_ip_blocks,
        &mut source.remote_ip_blocks,
        &mut source.not_remote_ip_blocks,
    ]
}

fn operation(operation: &mut Operation) -> [&mut Vec<String>; OPERATION] {
    [
        &mut operation.hosts,
        &mut operation.not_hosts,
        &mut operation.ports,
        &mut operation.not_ports,
        &mut operation.methods,
        &mut operation.not_methods,
        &mut operation.paths,
        &mut operation.not_paths,
    ]
}
