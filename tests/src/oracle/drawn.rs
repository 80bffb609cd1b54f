//! Drawn meshes and calls, those that the reference model is held against, as questions.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use meshward_core::accept::{Mode, PortKind};
use meshward_core::api::peer_authentication;
use meshward_core::clock::UnixTime;
use meshward_core::snapshot::mtls::effective_modes;
use meshward_core::snapshot::select;
use meshward_simulator::chance::Chance;
use meshward_simulator::model::trial::tokens::{Minted, keys};
use meshward_simulator::model::trial::{calls, policies};
use rustls::pki_types::ServerName;

use meshward_simulator::model::{self, Call, Mesh, Workload};

use super::{Place, Question, What};

/// Calls to each workload that is drawn.
const CALLS: usize = 60;

/// `count` questions of `seed` and their places. Tokens are made for `now`.
pub fn questions(seed: u64, count: usize, now: UnixTime) -> (Vec<Place>, Vec<Question>) {
    let keys = keys();
    let (mut places, mut questions) = (Vec::new(), Vec::new());
    for round in 0.. {
        let mut chance = Chance::new(seed, round);
        let mesh = policies::mesh(&mut chance, &keys);
        for workload in policies::workloads(&mut chance) {
            let mut minted = Minted::at(now.as_secs());
            let mut known: BTreeMap<SocketAddr, Option<usize>> = BTreeMap::new();
            for number in 0..CALLS {
                let call = calls::call(&mut chance, &mesh, &workload, &keys, &mut minted);
                let Some(kind) = workload.ports.get(&call.port) else {
                    continue;
                };
                let address = SocketAddr::new(call.reached, call.port);
                let at = *known.entry(address).or_insert_with(|| {
                    let place = place(&mesh, &workload, address, *kind);
                    (!place.is_unservable()).then(|| {
                        places.push(place);
                        places.len() - 1
                    })
                });
                let id = format!("seed {seed}, round {round}, call {number}");
                if let Some(question) = at.and_then(|at| question(id, at, &call, &minted)) {
                    questions.push(question);
                }
                if questions.len() == count {
                    return (places, questions);
                }
            }
        }
    }
    (places, questions)
}

fn place(mesh: &Mesh, workload: &Workload, address: SocketAddr, kind: model::PortKind) -> Place {
    let of = select::Workload {
        namespace: workload.namespace.clone(),
        labels: workload.labels.clone(),
    };
    let root = &mesh.config.root_namespace;
    let mode = match effective_modes(&of, &mesh.peers, root).of(address.port()) {
        peer_authentication::Mode::Disable => Mode::Disable,
        peer_authentication::Mode::Strict => Mode::Strict,
        peer_authentication::Mode::Permissive | peer_authentication::Mode::Unset => {
            Mode::Permissive
        }
    };
    Place {
        address,
        kind: match kind {
            model::PortKind::Http => PortKind::Http,
            model::PortKind::Tcp => PortKind::Tcp,
            model::PortKind::Auto => PortKind::Auto,
        },
        mode,
        identity: format!(
            "spiffe://{}/ns/{}/sa/drawn",
            mesh.config.trust_domain, of.namespace
        ),
        workload: of,
        mesh: mesh.config.clone(),
        authorization: mesh.authorization.clone(),
        authentication: mesh.requests.clone(),
    }
}

/// Whether something that looks like a token is none that was signed as it stands.
fn forged(what: &What, minted: &Minted) -> bool {
    let What::Request(bytes) = what else {
        return false;
    };
    let text = String::from_utf8_lossy(bytes).replace("%2E", ".");
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let mut tokens = text
        .split(|c| !is_part(c))
        .filter(|word| word.starts_with("eyJ"));
    tokens.any(|token| minted.signed_by(token).is_none())
}

/// `None`: a call that no socket can make.
fn question(id: String, place: usize, call: &Call, minted: &Minted) -> Option<Question> {
    // Linux has no connection from an IPv4 address that is written as one of IPv6; PROXY protocol does not mix the two.
    let mapped = matches!(call.peer, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
    if mapped || call.peer.is_ipv4() != call.reached.is_ipv4() {
        return None;
    }
    let sayable = |name: &String| {
        matches!(
            ServerName::try_from(name.as_str()),
            Ok(ServerName::DnsName(_))
        )
    };
    if !call.sni.as_ref().is_none_or(sayable) {
        return None;
    }
    let what = match &call.request {
        None => What::Bytes(b"hello there\n".to_vec()),
        Some(request) => {
            let mut bytes = format!(
                "{} {} HTTP/1.1\r\nHost: {}\r\n",
                request.method, request.target, request.authority
            )
            .into_bytes();
            for (name, value) in &request.lines {
                bytes.extend_from_slice(name.as_bytes());
                bytes.extend_from_slice(b": ");
                bytes.extend_from_slice(value);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"\r\n");
            What::Request(bytes)
        }
    };
    Some(Question {
        id,
        place,
        from: SocketAddr::new(call.peer, 0),
        identity: call.identity.as_ref().map(|id| format!("spiffe://{id}")),
        sni: call.identity.as_ref().and_then(|_| call.sni.clone()),
        forged: forged(&what, minted),
        what,
    })
}
