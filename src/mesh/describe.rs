//! What a mesh looks like, for people.

use std::collections::BTreeMap;

use meshward_core::api::peer_authentication::Mode;
use meshward_core::control::mesh::{PodFacts, PodKey};
use meshward_core::control::plane::Plane;
use meshward_core::snapshot::mtls::Modes;

use super::apps::AppKind;
use super::folder::Folder;
use super::pods::{Pod, called};
use super::table::columns;

/// Services that are shown as something to call.
const CALLS: usize = 3;

/// The table of the pods, how to reach them, and where things are. `on`: the runtime and the number of its workers.
pub(crate) fn mesh(
    plane: &Plane,
    pods: &BTreeMap<PodKey, Pod>,
    folder: &Folder,
    on: (&str, usize),
) -> String {
    let rows: Vec<[String; 5]> = pods
        .iter()
        .map(|(key, pod)| {
            let identity = pod.sidecar.as_ref().map(|s| s.member.id.to_string());
            let modes = plane.modes(key).filter(|_| pod.sidecar.is_some());
            [
                called(&pod.facts),
                pod.facts.address.to_string(),
                identity.unwrap_or_else(|| "no sidecar".into()),
                modes.map_or_else(|| "-".into(), |m| mtls(m, &pod.facts)),
                listeners(pod),
            ]
        })
        .collect();
    let heading = ["WORKLOAD", "ADDRESS", "IDENTITY", "MTLS", "LISTENERS"];
    let sidecars = pods.values().filter(|p| p.sidecar.is_some()).count();
    let (runtime, workers) = on;
    let mut text = format!(
        "mesh `{}` on {runtime}, pid {}: {}, {}, {}\n\n{}\n",
        folder.name,
        std::process::id(),
        count(pods.len(), "pod"),
        count(sidecars, "sidecar"),
        count(workers, "worker"),
        columns(heading, &rows),
    );
    let calls = calls(plane, pods, &folder.name);
    if !calls.is_empty() {
        text.push_str("\nFrom another terminal:\n");
        for call in calls {
            text.push_str("  ");
            text.push_str(&call);
            text.push('\n');
        }
    }
    text.push_str(&format!(
        "\nLogs and certificates: {}/NAMESPACE/POD\nCtrl-C ends the mesh.",
        folder.run().display()
    ));
    text
}

fn count(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

/// One mode, or one for each port.
fn mtls(modes: &Modes, facts: &PodFacts) -> String {
    let own: Vec<_> = facts
        .ports
        .iter()
        .map(|p| (p.port, word(modes.of(p.port))))
        .collect();
    match own.first() {
        Some((_, first)) if own.iter().any(|(_, mode)| mode != first) => {
            let each = own.iter().map(|(port, mode)| format!("{port}:{mode}"));
            each.collect::<Vec<_>>().join(" ")
        }
        Some((_, first)) => (*first).into(),
        None => word(modes.workload()).into(),
    }
}

/// As PeerAuthentication spells it.
fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Unset => "UNSET",
        Mode::Disable => "DISABLE",
        Mode::Permissive => "PERMISSIVE",
        Mode::Strict => "STRICT",
    }
}

fn listeners(pod: &Pod) -> String {
    let app = match &pod.kind {
        AppKind::Echo => "echo",
        AppKind::Routes(_) => "routes",
        AppKind::Command(_) => "command",
        AppKind::Upstream(_) => "upstream",
        AppKind::None => "nobody",
    };
    let ports = pod
        .facts
        .ports
        .iter()
        .map(|port| match pod.wiring.upstreams.get(&port.port) {
            Some(app) if pod.sidecar.is_some() => format!("{}→{}", port.port, app.port()),
            _ => port.port.to_string(),
        });
    let ports = ports.collect::<Vec<_>>().join(" ");
    if ports.is_empty() {
        "-".into()
    } else {
        format!("{ports} {app}")
    }
}

/// Commands that can be tried, best from a pod that serves nothing and has a sidecar: it reaches others in every mode.
fn calls(plane: &Plane, pods: &BTreeMap<PodKey, Pod>, mesh: &str) -> Vec<String> {
    let serves = |pod: &&Pod| (!pod.facts.ports.is_empty(), pod.sidecar.is_none());
    let Some(client) = pods.values().min_by_key(serves) else {
        return Vec::new();
    };
    let own = match &client.facts.owner {
        Some(owner) => format!("deploy/{owner}"),
        None => format!("pod/{}", client.facts.name),
    };
    let namespace = match client.facts.namespace.as_str() {
        "default" => String::new(),
        other => format!("-n {other} "),
    };
    let mesh = match mesh {
        "default" => String::new(),
        other => format!("--mesh {other} "),
    };
    let services = plane.mesh().services().filter_map(|service| {
        let port = service.ports.iter().find(|p| !p.endpoints.is_empty())?;
        let endpoint = port.endpoints.first()?;
        if endpoint.pod == client.facts.key() {
            return None;
        }
        let suffix = match port.port {
            80 => String::new(),
            other => format!(":{other}"),
        };
        let name = format!("{}.{}", service.name, service.namespace);
        Some(format!(
            "meshward exec {mesh}{namespace}{own} -- curl -s http://{name}{suffix}/"
        ))
    });
    services.take(CALLS).collect()
}
