//! Reads the Kubernetes kinds, as strictly as the API server where a field counts and not at all where it does not.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::{
    ClusterIp, Container, ContainerPort, Deployment, Namespace, Pod, PodSpec, Service, ServicePort,
    TargetPort,
};
use crate::api::load::grammar;
use crate::api::load::reader::{Fields, Report};
use crate::api::load::yaml::{Node, Place, Value};
use crate::api::meta::{Labels, Meta, annotation_places, read_annotations, read_labels};
use crate::limits::REPLICAS_MAX;

/// What apps listen on, and what sidecars call them from.
const TAKEN: [Ipv4Addr; 2] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 6)];
const LABEL_HINT: &str = "use lower-case letters, digits and `-`, at most 63 of them";

impl Namespace {
    /// `None` after at least one error, here and below.
    pub(in crate::api) fn read(meta: Meta, resource: &Node, report: &mut Report) -> Option<Self> {
        if !grammar::is_label(&meta.name) {
            let message = format!("`{}` is no name of a namespace", meta.name);
            report.invalid(name_place(resource), message, LABEL_HINT);
            return None;
        }
        Some(Self { meta })
    }
}

impl Service {
    /// `None` too after a warning, for a service that leads out of the mesh.
    pub(in crate::api) fn read(meta: Meta, resource: &Node, report: &mut Report) -> Option<Self> {
        let before = report.errors();
        if !grammar::is_rfc1035_label(&meta.name) {
            let message = format!("`{}` is no name of a Service", meta.name);
            let hint = "begin with a lower-case letter and go on with those, digits and `-`, at most 63 of them";
            report.invalid(name_place(resource), message, hint);
        }
        let spec = required_spec(resource, "Service", report)?;
        let mut fields = report.fields(spec, "spec")?;
        let kind = fields.take_some("type");
        let kind_text = match kind {
            Some(node) => report.text(node, "type")?,
            None => "ClusterIP",
        };
        let exposed = match kind_text {
            "ClusterIP" => false,
            "NodePort" | "LoadBalancer" => true,
            "ExternalName" => {
                let message = "a Service of type ExternalName is skipped";
                let hint =
                    "nothing here leads out of the mesh by a second name; call the host itself";
                report.passed_over(resource.place, message, hint);
                return None;
            }
            other => {
                report.invalid(
                    kind.map_or(spec.place, |node| node.place),
                    format!("`{other}` is no type of a Service"),
                    "take one of ClusterIP, NodePort, LoadBalancer, ExternalName",
                );
                false
            }
        };
        let cluster_ip_node = fields.take_some("clusterIP");
        let cluster_ip = match cluster_ip_node {
            Some(node) => read_cluster_ip(node, report).unwrap_or_default(),
            None => ClusterIp::Auto,
        };
        if let (ClusterIp::Headless, true, Some(node)) = (cluster_ip, exposed, cluster_ip_node) {
            let message = format!("a Service of type {kind_text} cannot be headless");
            report.invalid(node.place, message, "leave `type` or `clusterIP` out");
        }
        let selector = match fields.take_some("selector") {
            Some(node) => read_labels(node, "selector", report),
            None => Labels::new(),
        };
        if selector.is_empty() {
            report.doubtful(
                resource.place,
                format!("the Service `{}` selects no pods", meta.name),
                "give it a `selector`; endpoints written by hand are not read",
            );
        }
        let ports_node = fields.take_some("ports");
        let ports = ports_node
            .map(|node| read_service_ports(node, report))
            .unwrap_or_default();
        let none = ports_node
            .is_none_or(|node| matches!(&node.value, Value::List(items) if items.is_empty()));
        if none && cluster_ip != ClusterIp::Headless {
            report.invalid(
                ports_node.map_or(spec.place, |node| node.place),
                "the Service has no ports",
                "add `ports: [{port: …}]`",
            );
        }
        (report.errors() == before).then_some(Self {
            meta,
            cluster_ip,
            selector,
            ports,
        })
    }
}

impl Deployment {
    pub(in crate::api) fn read(meta: Meta, resource: &Node, report: &mut Report) -> Option<Self> {
        let before = report.errors();
        let spec = required_spec(resource, "Deployment", report)?;
        let mut fields = report.fields(spec, "spec")?;
        let replicas = match fields.take_some("replicas") {
            Some(node) => read_replicas(node, report),
            None => Some(1),
        };
        let selector_node = fields.take_some("selector");
        let Some(template) = fields.take_some("template") else {
            report.invalid(
                spec.place,
                "the Deployment has no `template`",
                "add `template: {metadata: …, spec: …}`, which is what its pods are made from",
            );
            return None;
        };
        let mut template_fields = report.fields(template, "template")?;
        let mut labels = Labels::new();
        let mut annotations = BTreeMap::new();
        let mut places = BTreeMap::new();
        if let Some(node) = template_fields.take_some("metadata") {
            let mut fields = report.fields(node, "metadata")?;
            if let Some(node) = fields.take_some("labels") {
                labels = read_labels(node, "labels", report);
            }
            if let Some(node) = fields.take_some("annotations") {
                annotations = read_annotations(node, report);
                places = annotation_places(node, report);
            }
        }
        let selector = read_selector(selector_node, spec.place, &labels, report);
        let pod = match template_fields.take_some("spec") {
            Some(node) => PodSpec::read(node, report),
            None => no_pod_spec(template.place, report),
        };
        let (Some(replicas), Some(pod), true) = (replicas, pod, report.errors() == before) else {
            return None;
        };
        Some(Self {
            meta,
            replicas,
            selector,
            labels,
            annotations,
            annotation_places: places,
            spec: pod,
        })
    }
}

impl Pod {
    pub(in crate::api) fn read(meta: Meta, resource: &Node, report: &mut Report) -> Option<Self> {
        let before = report.errors();
        let annotations = resource
            .field("metadata")
            .and_then(|node| node.field("annotations"));
        let places = annotations
            .map(|node| annotation_places(node, report))
            .unwrap_or_default();
        let mut fields = report.fields(resource, "Pod")?;
        let spec = match fields.take_some("spec") {
            Some(node) => PodSpec::read(node, report),
            None => no_pod_spec(resource.place, report),
        };
        let mut ip = None;
        if let Some(node) = fields.take_some("status") {
            let mut fields = report.fields(node, "status")?;
            ip = fields
                .take_some("podIP")
                .and_then(|node| read_pod_ip(node, report));
        }
        let spec = spec.filter(|_| report.errors() == before)?;
        Some(Self {
            meta,
            annotation_places: places,
            spec,
            ip,
        })
    }
}

impl PodSpec {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let before = report.errors();
        let mut fields = report.fields(node, "spec")?;
        let current = read_service_account(&mut fields, "serviceAccountName", report);
        let former = read_service_account(&mut fields, "serviceAccount", report);
        let containers = match fields.take_some("containers") {
            Some(node) => read_containers(node, report),
            None => {
                report.invalid(
                    node.place,
                    "the pod has no `containers`",
                    "add `containers: [{name: …}]`",
                );
                Vec::new()
            }
        };
        let host_network = match fields.take_some("hostNetwork") {
            None => false,
            Some(node) => match node.value {
                Value::Bool(value) => value,
                Value::Null
                | Value::Number(_)
                | Value::Text { .. }
                | Value::List(_)
                | Value::Map(_) => report.unfit(node, "hostNetwork", "true or false")?,
            },
        };
        (report.errors() == before).then(|| Self {
            service_account: current.or(former).unwrap_or("default").to_owned(),
            containers,
            host_network,
        })
    }
}

fn name_place(resource: &Node) -> Place {
    resource
        .field("metadata")
        .and_then(|node| node.field("name"))
        .map_or(resource.place, |node| node.place)
}

fn required_spec<'n>(resource: &'n Node, kind: &str, report: &mut Report) -> Option<&'n Node> {
    let spec = resource
        .field("spec")
        .filter(|node| node.value != Value::Null);
    if spec.is_none() {
        report.invalid(
            resource.place,
            format!("the {kind} has no `spec`"),
            "add it; look at the indentation of the next lines",
        );
    }
    spec
}

fn no_pod_spec<T>(place: Place, report: &mut Report) -> Option<T> {
    report.invalid(
        place,
        "the pod has no `spec`",
        "add `spec: {containers: [{name: …}]}`",
    );
    None
}

fn read_cluster_ip(node: &Node, report: &mut Report) -> Option<ClusterIp> {
    let text = report.text(node, "clusterIP")?;
    match text {
        "" => return Some(ClusterIp::Auto),
        "None" => return Some(ClusterIp::Headless),
        _ => {}
    }
    let Ok(address) = text.parse::<IpAddr>() else {
        report.invalid(
            node.place,
            format!("`{text}` is no address of a Service"),
            "write an IP address, or None for a headless service, or leave it out",
        );
        return None;
    };
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        report.invalid(
            node.place,
            format!("`{text}` cannot be the address of a Service"),
            "leave it out, and one of 10.96.0.0/12 is chosen",
        );
        return None;
    }
    Some(ClusterIp::Given(address))
}

fn read_service_ports(node: &Node, report: &mut Report) -> Vec<ServicePort> {
    let items = report.list(node, "ports").unwrap_or_default();
    let mut numbers = BTreeMap::new();
    let mut names = BTreeMap::new();
    let mut ports = Vec::new();
    for item in items {
        let Some(mut fields) = report.fields(item, "ports") else {
            continue;
        };
        let name = read_service_port_name(&mut fields, report);
        let number = fields.take_some("port");
        let protocol = read_protocol(&mut fields, report);
        let target = fields.take_some("targetPort");
        let app_protocol = fields
            .take_some("appProtocol")
            .and_then(|node| read_app_protocol(node, report));
        let Some(number_node) = number else {
            report.invalid(item.place, "the port has no `port`", "give it its number");
            continue;
        };
        let Some(number) = read_port(number_node, "port", report) else {
            continue;
        };
        let target = match target {
            None => Some(TargetPort::Number(number)),
            Some(node) => read_target(node, number, report),
        };
        match name {
            None if items.len() > 1 => report.invalid(
                item.place,
                format!("port {number} of several has no `name`"),
                "name each of them; the first part of the name tells the protocol, as in `http-api`",
            ),
            None => {}
            Some((place, name)) => {
                if let Some(first) = names.insert(name, report.origin(place)) {
                    report.invalid(
                        place,
                        format!("two ports are named `{name}`"),
                        format!("rename one of them; the first is at {first}"),
                    );
                }
            }
        }
        let place = number_node.place;
        let Some(protocol) = protocol else {
            continue;
        };
        if let Some(first) = numbers.insert((protocol.name(), number), report.origin(place)) {
            let message = format!("port {number} occurs twice");
            let hint = format!("remove one of them; the first is at {first}");
            report.invalid(place, message, hint);
        }
        if !protocol.is_carried(place, number, report) {
            continue;
        }
        ports.extend(target.map(|target| ServicePort {
            name: name.map_or_else(String::new, |(_, name)| name.to_owned()),
            port: number,
            target,
            app_protocol,
        }));
    }
    ports
}

fn read_service_port_name<'n>(
    fields: &mut Fields<'n>,
    report: &mut Report,
) -> Option<(Place, &'n str)> {
    let node = fields.take_some("name")?;
    let name = report.text(node, "name")?;
    if name.is_empty() {
        return None;
    }
    if !grammar::is_label(name) {
        report.invalid(
            node.place,
            format!("`{name}` is no name of a port"),
            LABEL_HINT,
        );
    }
    Some((node.place, name))
}

fn read_app_protocol(node: &Node, report: &mut Report) -> Option<String> {
    let text = report.text(node, "appProtocol")?;
    if !grammar::is_qualified_name(text) {
        report.invalid(
            node.place,
            format!("`{text}` is no protocol of an application"),
            "write a name like `http` or `kubernetes.io/h2c`, or leave it out",
        );
        return None;
    }
    Some(text.to_owned())
}

/// `0` and an empty text count as absent, as to the API server.
fn read_target(node: &Node, port: u16, report: &mut Report) -> Option<TargetPort> {
    match &node.value {
        Value::Number(text) if text == "0" => Some(TargetPort::Number(port)),
        Value::Text { text, .. } if text.is_empty() => Some(TargetPort::Number(port)),
        Value::Text { text, .. } if grammar::is_port_name(text) => {
            Some(TargetPort::Name(text.clone()))
        }
        Value::Text { text, .. } => {
            let hint = if text.bytes().all(|b| b.is_ascii_digit()) {
                "take the number out of its quotes"
            } else {
                "use lower-case letters, digits and single `-`, at most 15 of them, at least one a letter"
            };
            let message = format!("`{text}` is no name of a port of a container");
            report.invalid(node.place, message, hint);
            None
        }
        Value::Number(_) => read_port(node, "targetPort", report).map(TargetPort::Number),
        Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => {
            report.unfit(node, "targetPort", "a number or the name of a port")
        }
    }
}

/// `protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// Warns of a port that no mesh carries.
    fn is_carried(self, place: Place, port: u16, report: &mut Report) -> bool {
        if self != Self::Tcp {
            let message = format!("port {port} is skipped, as its protocol is {}", self.name());
            report.passed_over(
                place,
                message,
                "a mesh carries TCP alone; leave the port out",
            );
        }
        self == Self::Tcp
    }
}

fn read_protocol(fields: &mut Fields<'_>, report: &mut Report) -> Option<Protocol> {
    let Some(node) = fields.take_some("protocol") else {
        return Some(Protocol::Tcp);
    };
    match report.text(node, "protocol")? {
        "" | "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        other => {
            report.invalid(
                node.place,
                format!("`{other}` is no protocol of a port"),
                "take TCP, UDP or SCTP; what runs over TCP is told by the port's name or `appProtocol`",
            );
            None
        }
    }
}

fn read_port(node: &Node, name: &str, report: &mut Report) -> Option<u16> {
    let number = read_integer(node, name, report)?;
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    if port.is_none() {
        report.invalid(
            node.place,
            format!("`{name}` holds {number}, which is no port"),
            "write a number from 1 to 65535",
        );
    }
    port
}

fn read_replicas(node: &Node, report: &mut Report) -> Option<u32> {
    let number = read_integer(node, "replicas", report)?;
    let replicas = u32::try_from(number)
        .ok()
        .filter(|replicas| *replicas <= REPLICAS_MAX);
    if replicas.is_none() {
        report.invalid(
            node.place,
            format!("`replicas` holds {number}"),
            format!("write a number from 0 to {REPLICAS_MAX}"),
        );
    }
    replicas
}

/// A number in decimal digits alone: other spellings differ from one reader of YAML to the next.
fn read_integer(node: &Node, name: &str, report: &mut Report) -> Option<i64> {
    match &node.value {
        Value::Number(text) => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let plain = digits.bytes().all(|b| b.is_ascii_digit())
                && (digits == "0" || !digits.starts_with('0'));
            let number = Some(text).filter(|_| plain).and_then(|t| t.parse().ok());
            if number.is_none() {
                report.invalid(
                    node.place,
                    format!("`{name}` holds `{text}` where a whole number is expected"),
                    "write it in decimal digits, without a leading zero",
                );
            }
            number
        }
        Value::Text { text, .. } if text.parse::<i64>().is_ok() => {
            report.invalid(
                node.place,
                format!("`{name}` holds text where a number is expected"),
                format!("take it out of its quotes: {text}"),
            );
            None
        }
        Value::Text { .. } | Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => {
            report.unfit(node, name, "a number")
        }
    }
}

/// `selector` of a Deployment, which has to select the pods that it makes.
fn read_selector(
    node: Option<&Node>,
    place: Place,
    labels: &Labels,
    report: &mut Report,
) -> Labels {
    let Some(node) = node else {
        report.invalid(
            place,
            "the Deployment has no `selector`",
            "add `selector: {matchLabels: …}` with labels of the template",
        );
        return Labels::new();
    };
    let Some(mut fields) = report.fields(node, "selector") else {
        return Labels::new();
    };
    let match_labels = fields.take_some("matchLabels");
    // Expressions could only narrow what the template's own labels settle.
    let expressions = fields
        .take_some("matchExpressions")
        .is_some_and(|node| !matches!(&node.value, Value::List(items) if items.is_empty()));
    let selector = match_labels
        .map(|node| read_labels(node, "matchLabels", report))
        .unwrap_or_default();
    if selector.is_empty() && !expressions {
        report.invalid(
            node.place,
            "the `selector` has no labels",
            "add `matchLabels` with labels of the template",
        );
    }
    for (key, value) in &selector {
        if labels.get(key) != Some(value) {
            let place = match_labels
                .and_then(|node| node.field(key))
                .map_or(node.place, |node| node.place);
            report.invalid(
                place,
                format!("the selector asks for `{key}: {value}`, which the template's pods lack"),
                "write the same labels in `template.metadata.labels`",
            );
        }
    }
    selector
}

fn read_service_account<'n>(
    fields: &mut Fields<'n>,
    name: &'static str,
    report: &mut Report,
) -> Option<&'n str> {
    let node = fields.take_some(name)?;
    let text = report.text(node, name).filter(|text| !text.is_empty())?;
    if !grammar::is_subdomain(text) {
        report.invalid(
            node.place,
            format!("`{text}` is no name of a ServiceAccount"),
            "use lower-case letters, digits, `-` and `.`, at most 253 of them",
        );
    }
    Some(text)
}

fn read_containers(node: &Node, report: &mut Report) -> Vec<Container> {
    let items = report.list(node, "containers").unwrap_or_default();
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        report.invalid(
            node.place,
            "the pod has no `containers`",
            "add one with a `name`",
        );
    }
    let mut names = BTreeMap::new();
    let mut containers = Vec::new();
    for item in items {
        let Some(mut fields) = report.fields(item, "containers") else {
            continue;
        };
        let name = fields.take_some("name");
        let ports = fields
            .take_some("ports")
            .map(|node| read_container_ports(node, report))
            .unwrap_or_default();
        let Some(node) = name else {
            report.invalid(item.place, "the container has no `name`", "name it");
            continue;
        };
        let Some(name) = report.text(node, "name") else {
            continue;
        };
        if !grammar::is_label(name) {
            let message = format!("`{name}` is no name of a container");
            report.invalid(node.place, message, LABEL_HINT);
        }
        if let Some(first) = names.insert(name, report.origin(node.place)) {
            report.invalid(
                node.place,
                format!("two containers are named `{name}`"),
                format!("rename one of them; the first is at {first}"),
            );
        }
        containers.push(Container {
            name: name.to_owned(),
            ports,
        });
    }
    containers
}

fn read_container_ports(node: &Node, report: &mut Report) -> Vec<ContainerPort> {
    let mut names = BTreeMap::new();
    let mut seen = BTreeMap::new();
    let mut ports = Vec::new();
    for item in report.list(node, "ports").unwrap_or_default() {
        let Some(mut fields) = report.fields(item, "ports") else {
            continue;
        };
        let name = read_container_port_name(&mut fields, report);
        let number = fields.take_some("containerPort");
        let protocol = read_protocol(&mut fields, report);
        let Some(number_node) = number else {
            report.invalid(
                item.place,
                "the port has no `containerPort`",
                "give it its number",
            );
            continue;
        };
        let Some(number) = read_port(number_node, "containerPort", report) else {
            continue;
        };
        if let Some((place, name)) = name
            && let Some(first) = names.insert(name, report.origin(place))
        {
            report.invalid(
                place,
                format!("two ports of the container are named `{name}`"),
                format!("rename one of them; the first is at {first}"),
            );
        }
        let place = number_node.place;
        if !protocol.is_some_and(|protocol| protocol.is_carried(place, number, report)) {
            continue;
        }
        let name = name.map_or("", |(_, name)| name);
        if let Some(first) = seen.insert((number, name), report.origin(place)) {
            let hint = format!("remove one of them; the first is at {first}");
            report.doubtful(place, format!("port {number} is here twice"), hint);
            continue;
        }
        ports.push(ContainerPort {
            name: name.to_owned(),
            port: number,
        });
    }
    ports
}

fn read_container_port_name<'n>(
    fields: &mut Fields<'n>,
    report: &mut Report,
) -> Option<(Place, &'n str)> {
    let node = fields.take_some("name")?;
    let name = report.text(node, "name").filter(|name| !name.is_empty())?;
    if !grammar::is_port_name(name) {
        let hint = "use lower-case letters, digits and single `-`, at most 15 of them, at least one a letter";
        let message = format!("`{name}` is no name of a port of a container");
        report.invalid(node.place, message, hint);
    }
    Some((node.place, name))
}

/// Addresses of a cluster are of no use here, so a pod out of one gets another.
fn read_pod_ip(node: &Node, report: &mut Report) -> Option<Ipv4Addr> {
    let text = report.text(node, "podIP").filter(|text| !text.is_empty())?;
    let address = match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address,
        Ok(IpAddr::V6(_)) => return None,
        Err(_) => {
            let message = format!("`{text}` is no address of a pod");
            report.invalid(node.place, message, "write an IP address, or leave it out");
            return None;
        }
    };
    if TAKEN.contains(&address) {
        report.invalid(
            node.place,
            format!("`{text}` cannot be the address of a pod: apps listen there or are called from there"),
            "take another one of 127.0.0.0/8, or leave it out",
        );
        return None;
    }
    Some(address).filter(Ipv4Addr::is_loopback)
}

#[cfg(test)]
mod tests;
