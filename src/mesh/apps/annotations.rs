//! What the `meshward.dev/…` annotations of a pod say, held to their form.

use std::net::SocketAddr;
use std::sync::Arc;

use meshward_core::api::finding::Finding;
use meshward_core::api::load::Text;
use meshward_core::api::load::reader::{Frame, Purpose, Report, closest};
use meshward_core::api::load::yaml::{self, Key, Node, Place, Value};
use meshward_core::api::meta::{Labels, Origin};

use super::{AppKind, Routes};

const PREFIX: &str = "meshward.dev/";
const APP: &str = "meshward.dev/app";
const ROUTES: &str = "meshward.dev/routes";
const COMMAND: &str = "meshward.dev/command";
const UPSTREAM: &str = "meshward.dev/upstream";
const KNOWN: [&str; 4] = [APP, ROUTES, COMMAND, UPSTREAM];
/// Bytes of a command: the kernel takes 128 KiB in one argument.
const COMMAND_MAX: usize = 100 * 1024;

impl AppKind {
    /// Reads the annotations of a pod, or of a deployment's template; everything that is wrong is said at once.
    ///
    /// `origin`: of the resource. With its text among `sources` a finding stands at the annotation, and for routes at the
    /// value, otherwise at the resource. A pod without a word of us is an `echo` if it declares ports.
    pub(crate) fn read(
        annotations: &Labels,
        origin: &Origin,
        sources: &[Text],
        has_ports: bool,
    ) -> Result<Self, Vec<Finding>> {
        let ours = annotations.keys().any(|key| key.starts_with(PREFIX));
        if !ours {
            return Ok(if has_ports { Self::Echo } else { Self::None });
        }
        let mut reading = Reading {
            annotations,
            resource: Resource::find(origin, sources),
            origin,
            report: Report::new(Arc::clone(&origin.file), Purpose::Enforce),
        };
        let kind = reading.kind(has_ports);
        let report = reading.report;
        match kind {
            Some(kind) if report.errors() == 0 => Ok(kind),
            _ => Err(report.into_findings()),
        }
    }
}

struct Reading<'a> {
    annotations: &'a Labels,
    resource: Option<Resource>,
    origin: &'a Origin,
    report: Report,
}

impl Reading<'_> {
    fn kind(&mut self, has_ports: bool) -> Option<AppKind> {
        for name in self.annotations.keys() {
            if name.starts_with(PREFIX) && !KNOWN.contains(&name.as_str()) {
                let hint = match closest(name, &KNOWN) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("there are {}", KNOWN.join(", ")),
                };
                self.fault(name, format!("unknown annotation `{name}`"), hint);
            }
        }
        let get = |name: &str| self.annotations.get(name).map(String::as_str);
        let (app, routes, command, upstream) = (get(APP), get(ROUTES), get(COMMAND), get(UPSTREAM));
        let others = [(ROUTES, routes), (COMMAND, command), (UPSTREAM, upstream)];
        let mut said = others
            .iter()
            .filter(|(_, value)| value.is_some())
            .map(|(name, _)| *name);
        let (first, second) = (said.next(), said.next());
        if let (Some(first), Some(second)) = (first, second) {
            let message = format!("`{first}` and `{second}` exclude each other");
            self.fault(second, message, "a pod has one app: keep one of them");
        }
        match (app, first) {
            (None, _) | (Some("routes"), Some(ROUTES)) => {}
            (Some("echo" | "none"), None) => {}
            (Some("routes"), None) => self.fault(
                APP,
                format!("`{APP}: routes` without `{ROUTES}`"),
                "say what it answers",
            ),
            (Some(app @ ("echo" | "none" | "routes")), Some(first)) => {
                let message = format!("`{APP}: {app}` and `{first}` exclude each other");
                self.fault(first, message, "a pod has one app: keep one of them");
            }
            (Some(other), _) => {
                let message = format!("`{other}` is no built-in app");
                self.fault(APP, message, "there are echo, routes and none");
            }
        }
        let routes = routes.map(|text| self.routes(text));
        let command = command.map(|text| self.command(text));
        let upstream = upstream.map(|text| self.upstream(text));
        match (app, routes, command, upstream) {
            (_, Some(routes), ..) => routes.map(|routes| AppKind::Routes(Arc::new(routes))),
            (_, _, Some(command), _) => command.map(AppKind::Command),
            (_, _, _, Some(upstream)) => upstream.map(AppKind::Upstream),
            (Some("none"), ..) => Some(AppKind::None),
            (Some("echo"), ..) if !has_ports => {
                let hint = "declare one under `containers`, or leave the annotation out";
                self.fault(APP, "an `echo` without a port", hint);
                None
            }
            _ => Some(AppKind::Echo),
        }
    }

    /// A fault of the annotation `name`.
    fn fault(&mut self, name: &str, message: impl Into<String>, hint: impl Into<String>) {
        let place = self.enter(name, |key, _| key.place);
        self.report.invalid(place, message, hint);
    }

    /// A fault of what it says.
    fn fault_of_value(&mut self, name: &str, message: impl Into<String>, hint: impl Into<String>) {
        let place = self.enter(name, |_, node| node.place);
        self.report.invalid(place, message, hint);
    }

    /// Sets the frame for a place of the annotation `name`.
    fn enter(&mut self, name: &str, place: fn(&Key, &Node) -> Place) -> Place {
        let found = self.resource.as_ref().and_then(|resource| {
            let (key, node) = resource.annotation(name)?;
            Some((Frame::Below(resource.lines), place(key, node)))
        });
        let at = Place {
            line: self.origin.line,
            column: self.origin.column,
        };
        let (frame, place) = found.unwrap_or((Frame::Point(at), at));
        self.report.frame(frame);
        place
    }

    fn routes(&mut self, text: &str) -> Option<Routes> {
        let place = self.enter(ROUTES, |_, node| node.place);
        let origin = self.report.origin(place);
        let inner = Place {
            line: origin.line,
            column: origin.column,
        };
        let literal = self
            .resource
            .as_ref()
            .and_then(|resource| resource.annotation(ROUTES))
            .is_some_and(|(_, node)| matches!(node.value, Value::Text { literal: true, .. }));
        self.report.frame(if literal {
            Frame::Inset(inner)
        } else {
            Frame::Point(inner)
        });
        Routes::read(text, &mut self.report)
    }

    fn command(&mut self, text: &str) -> Option<String> {
        let fault = if text.trim().is_empty() {
            "there is no command"
        } else if text.contains('\0') {
            "a command with a NUL"
        } else if text.len() > COMMAND_MAX {
            "a command of more than 100 KiB"
        } else {
            return Some(text.to_owned());
        };
        self.fault_of_value(COMMAND, fault, "write what `sh -c` is to run");
        None
    }

    /// A sidecar connects from 127.0.0.6, from where only 127.0.0.0/8 can be reached (decision 14).
    fn upstream(&mut self, text: &str) -> Option<SocketAddr> {
        let literal = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        match literal.parse::<SocketAddr>() {
            Ok(SocketAddr::V4(address)) if address.ip().is_loopback() && address.port() != 0 => {
                Some(address.into())
            }
            parsed => {
                let message = match parsed {
                    Ok(_) => format!("`{text}` is no server that a sidecar can reach"),
                    Err(_) => format!("`{}` is no `host:port`", text.escape_debug()),
                };
                let hint = "name a port of this machine: 127.0.0.1:8080 or localhost:8080";
                self.fault_of_value(UPSTREAM, message, hint);
                None
            }
        }
    }
}

/// The tree of one resource.
struct Resource {
    node: Node,
    /// Of the file, before its document.
    lines: u32,
}

impl Resource {
    fn find(origin: &Origin, sources: &[Text]) -> Option<Self> {
        let source = sources.iter().find(|source| source.name == origin.file)?;
        let documents = yaml::documents(&source.text).into_iter();
        let (lines, text) = documents
            .take_while(|(lines, _)| *lines < origin.line)
            .last()?;
        let place = Place {
            line: origin.line - lines,
            column: origin.column,
        };
        let root = yaml::parse(text).ok()?.root?;
        // A resource is a document or an item of a List.
        if root.place == place {
            return Some(Self { node: root, lines });
        }
        let Value::Map(entries) = root.value else {
            return None;
        };
        let items = entries.into_iter().find(|(key, _)| key.name == "items")?.1;
        let Value::List(items) = items.value else {
            return None;
        };
        let node = items.into_iter().find(|node| node.place == place)?;
        Some(Self { node, lines })
    }

    fn annotation(&self, name: &str) -> Option<(&Key, &Node)> {
        let template = child(&self.node, "spec").and_then(|(_, spec)| child(spec, "template"));
        let pod = template.map_or(&self.node, |(_, template)| template);
        let (_, metadata) = child(pod, "metadata")?;
        let (_, annotations) = child(metadata, "annotations")?;
        child(annotations, name)
    }
}

fn child<'n>(node: &'n Node, name: &str) -> Option<(&'n Key, &'n Node)> {
    let Value::Map(entries) = &node.value else {
        return None;
    };
    let (key, node) = entries.iter().find(|(key, _)| key.name == name)?;
    Some((key, node))
}

#[cfg(test)]
mod tests;
