//! Listeners, routes, clusters and policies of a sidecar, in the columns of istioctl.
//!
//! What an inbound port takes is asked of the accept matrix, so that what is shown is what is done.

use std::sync::Arc;

use meshward_core::accept::{self, Accept, FirstBytes, PlainKind, PortKind};
use meshward_core::api::authorization_policy::{Action, AuthorizationPolicy};
use meshward_core::control::mesh::PodFacts;
use meshward_core::control::plane::Plane;
use meshward_core::snapshot::select::{Workload, authorization_policies};
use meshward_core::snapshot::{Cluster, Endpoints, InboundPort, OutboundPort, Snapshot};
use serde_json::{Value, json};

use crate::mesh::table::columns;

/// Domains of a route that the table has room for.
const DOMAINS: usize = 2;

/// Where calls of the application enter (S-330).
const ENTRY: u16 = 15001;

pub(super) fn listeners(snapshot: &Snapshot) -> (String, Value) {
    let mut rows = Vec::new();
    let outbound = &snapshot.outbound;
    for (address, door) in &outbound.addresses {
        out(&address.ip().to_string(), address.port(), door, &mut rows);
    }
    for (port, door) in &outbound.ports {
        out("0.0.0.0", *port, door, &mut rows);
    }
    if let Some(door) = &outbound.passthrough {
        out("0.0.0.0", ENTRY, door, &mut rows);
    }
    let own = snapshot.address.map(|ip| ip.to_string());
    let own = own.unwrap_or_else(|| "0.0.0.0".to_owned());
    for port in snapshot.inbound.values() {
        for (matched, destination) in chains(port) {
            let number = port.port.to_string();
            rows.push([own.clone(), number, matched.to_owned(), destination]);
        }
    }
    let list: Vec<Value> = rows
        .iter()
        .map(|[address, port, matched, destination]| {
            json!({
                "address": address,
                "port": port.parse::<u16>().ok(),
                "match": matched,
                "destination": destination,
            })
        })
        .collect();
    let heading = ["ADDRESSES", "PORT", "MATCH", "DESTINATION"];
    (columns(heading, &rows), list.into())
}

fn out(address: &str, port: u16, door: &OutboundPort, rows: &mut Vec<[String; 4]>) {
    let row = |matched: &str, destination: String| {
        [
            address.to_owned(),
            port.to_string(),
            matched.to_owned(),
            destination,
        ]
    };
    let cluster = destination(&door.otherwise);
    let http = if door.hosts.is_empty() {
        cluster.clone()
    } else {
        format!("Route: {port}")
    };
    match door.kind {
        PortKind::Http => rows.push(row("ALL", http)),
        PortKind::Tcp => rows.push(row("ALL", cluster)),
        PortKind::Auto => {
            rows.push(row("Trans: raw_buffer; App: http/1.1", http));
            rows.push(row("ALL", cluster));
        }
    }
}

fn destination(cluster: &Cluster) -> String {
    if cluster.name.contains('|') {
        format!("Cluster: {}", cluster.name)
    } else {
        cluster.name.clone()
    }
}

/// What a port takes, and where it goes; what it resets is left out.
fn chains(port: &InboundPort) -> Vec<(&'static str, String)> {
    let tls = |names: &[&'static [u8]]| FirstBytes::tls(names.iter().copied());
    let tls = [
        (
            "Trans: tls; App: istio-http/1.0,istio-http/1.1,istio-h2",
            tls(&[b"istio-http/1.1"]),
        ),
        (
            "Trans: tls; App: istio,istio-peer-exchange",
            tls(&[b"istio"]),
        ),
        ("Trans: tls", tls(&[])),
    ];
    let plain = [
        (
            "Trans: raw_buffer; App: http/1.1",
            FirstBytes::Plain(PlainKind::Http11),
        ),
        ("Trans: raw_buffer", FirstBytes::Plain(PlainKind::Other)),
    ];
    let mut chains = Vec::new();
    for cases in [&tls[..], &plain] {
        let taken: Vec<(&str, Accept)> = cases
            .iter()
            .map(|(name, first)| (*name, accept::decide(port.mode, port.kind, *first)))
            .collect();
        // Where all are taken alike, one line says it: the last names the least.
        let alike = taken.windows(2).all(|pair| match pair {
            [(_, one), (_, other)] => one == other,
            _ => true,
        });
        let shown = if alike { taken.len() - 1 } else { 0 };
        for (name, accepted) in taken.get(shown..).unwrap_or_default() {
            let how = match accepted {
                Accept::Http => "HTTP",
                Accept::Tcp => "TCP",
                Accept::TerminateHttp => "HTTP in mutual TLS",
                Accept::TerminateTcp => "TCP in mutual TLS",
                Accept::PassThrough => "TLS of the app",
                Accept::Reset | Accept::NeedMore => continue,
            };
            chains.push((*name, format!("Cluster: {} ({how})", port.cluster)));
        }
    }
    chains
}

pub(super) fn routes(snapshot: &Snapshot) -> (String, Value) {
    let (mut rows, mut list) = (Vec::new(), Vec::new());
    let mut add = |name: String, host: String, domains: Vec<&str>, cluster: &str| {
        rows.push([
            name.clone(),
            host.clone(),
            few(&domains),
            "/*".to_owned(),
            String::new(),
        ]);
        list.push(json!({
            "name": name,
            "virtualHost": host,
            "domains": domains,
            "match": "/*",
            "cluster": cluster,
        }));
    };
    for (port, door) in &snapshot.outbound.ports {
        let mut clusters: Vec<&Arc<Cluster>> = Vec::new();
        for cluster in door.hosts.values() {
            if clusters.iter().all(|known| !Arc::ptr_eq(known, cluster)) {
                clusters.push(cluster);
            }
        }
        clusters.sort_by_key(|cluster| &cluster.name);
        for cluster in clusters {
            let mut domains: Vec<&str> = door
                .hosts
                .iter()
                .filter(|(_, of)| Arc::ptr_eq(of, cluster))
                .map(|(host, _)| host.as_str())
                .collect();
            domains.sort_by_key(|domain| domain.len());
            let fqdn = cluster.name.rsplit('|').next().unwrap_or_default();
            let host = format!("{fqdn}:{port}");
            add(port.to_string(), host, domains, &cluster.name);
        }
        let otherwise = &door.otherwise.name;
        add(port.to_string(), "allow_any".into(), vec!["*"], otherwise);
    }
    for port in snapshot.inbound.values() {
        if port.kind != PortKind::Tcp {
            let host = format!("inbound|http|{}", port.port);
            add(port.cluster.clone(), host, vec!["*"], &port.cluster);
        }
    }
    let heading = ["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"];
    (columns(heading, &rows), list.into())
}

fn few(domains: &[&str]) -> String {
    let first = domains.iter().take(DOMAINS).copied();
    let shown = first.collect::<Vec<_>>().join(", ");
    match domains.len().checked_sub(DOMAINS) {
        Some(more @ 1..) => format!("{shown} + {more} more..."),
        Some(0) | None => shown,
    }
}

pub(super) fn clusters(snapshot: &Snapshot) -> (String, Value) {
    let (mut rows, mut list) = (Vec::new(), Vec::new());
    for cluster in &snapshot.outbound.clusters {
        let mut parts = cluster.name.split('|');
        let (_, port, subset) = (parts.next(), parts.next(), parts.next());
        let fqdn = parts.next().unwrap_or(&cluster.name);
        let (kind, endpoints) = match &cluster.endpoints {
            Endpoints::Known(endpoints) => ("EDS", endpoints.as_slice()),
            Endpoints::OriginalDestination { .. } => ("ORIGINAL_DST", &[][..]),
        };
        let dash = |text: Option<&str>| match text {
            None | Some("") => "-".to_owned(),
            Some(text) => text.to_owned(),
        };
        let direction = if port.is_some() { "outbound" } else { "-" };
        rows.push([
            fqdn.to_owned(),
            dash(port),
            dash(subset),
            direction.to_owned(),
            kind.to_owned(),
            String::new(),
        ]);
        let of_all = match &cluster.endpoints {
            Endpoints::OriginalDestination { tls } => tls.as_ref(),
            Endpoints::Known(_) => None,
        };
        let endpoints = endpoints.iter().map(|endpoint| {
            json!({
                "address": endpoint.address.to_string(),
                "sni": endpoint.tls.as_ref().map(|tls| &tls.sni),
                "expects": endpoint.tls.as_ref().map(|tls| &tls.subject_alt_names),
            })
        });
        list.push(json!({
            "name": cluster.name,
            "type": kind,
            "direction": "outbound",
            "sni": of_all.map(|tls| &tls.sni),
            "endpoints": endpoints.collect::<Vec<_>>(),
        }));
    }
    for port in snapshot.inbound.values() {
        rows.push([
            String::new(),
            port.port.to_string(),
            "-".to_owned(),
            "inbound".to_owned(),
            "ORIGINAL_DST".to_owned(),
            String::new(),
        ]);
        list.push(json!({
            "name": port.cluster,
            "type": "ORIGINAL_DST",
            "direction": "inbound",
            "endpoints": [{"address": port.upstream.to_string()}],
        }));
    }
    let heading = [
        "SERVICE FQDN",
        "PORT",
        "SUBSET",
        "DIRECTION",
        "TYPE",
        "DESTINATION RULE",
    ];
    (columns(heading, &rows), list.into())
}

/// The policies that count at the workload, in the order in which they are asked (S-110), as `istioctl x authz check` shows
/// them.
pub(super) fn policies(plane: &Plane, pod: &PodFacts) -> (String, Value) {
    let all: Vec<AuthorizationPolicy> = plane.store().authorization_policies().cloned().collect();
    let workload = Workload {
        namespace: pod.namespace.clone(),
        labels: pod.labels.clone(),
    };
    let root = &plane.mesh_config().root_namespace;
    let mut found = authorization_policies(&workload, &all, root);
    let rank = |action: Action| match action {
        Action::Custom => (0, "CUSTOM"),
        Action::Audit => (1, "AUDIT"),
        Action::Deny => (2, "DENY"),
        Action::Allow => (3, "ALLOW"),
    };
    found.sort_by_key(|policy| {
        let meta = &policy.meta;
        (rank(policy.action).0, &meta.namespace, &meta.name)
    });
    let (mut rows, mut list) = (Vec::new(), Vec::new());
    for policy in found {
        let (action, meta) = (rank(policy.action).1, &policy.meta);
        let name = format!("{}.{}", meta.name, meta.namespace);
        let origin = format!("{}:{}", meta.origin.file, meta.origin.line);
        rows.push([
            action.to_owned(),
            name,
            policy.rules.len().to_string(),
            origin.clone(),
        ]);
        list.push(json!({
            "action": action,
            "name": meta.name,
            "namespace": meta.namespace,
            "rules": policy.rules.len(),
            "origin": origin,
        }));
    }
    let heading = ["ACTION", "AuthorizationPolicy", "RULES", "ORIGIN"];
    (columns(heading, &rows), list.into())
}
