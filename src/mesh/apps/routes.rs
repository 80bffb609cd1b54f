//! The built-in app `routes`: which path answers what.
//!
//! ```yaml
//! - path: /api/catalog
//!   prefix: true
//!   calls:
//!   - {host: catalog.istioinaction, path: /items}
//!   onCallFailure: 500
//! - path: /healthz
//!   status: 204
//! - default: 404
//! ```

use std::collections::BTreeMap;

use hyper::StatusCode;
use hyper::http::uri::PathAndQuery;
use meshward_core::api::load::grammar;
use meshward_core::api::load::reader::{Fields, Report};
use meshward_core::api::load::yaml::{self, Node, Place, Value};

use super::call::Call;

const STATUS: &str = "a status from 200 to 599";
const DEFAULT: &str = "default";

#[derive(Debug, PartialEq)]
pub(crate) struct Routes {
    exact: BTreeMap<String, Route>,
    /// Longest first.
    prefixes: Vec<(String, Route)>,
    default: StatusCode,
}

#[derive(Debug, PartialEq)]
struct Route {
    status: StatusCode,
    body: Option<String>,
    calls: Vec<Call>,
    on_call_failure: StatusCode,
}

/// What to do for a path.
#[derive(Debug)]
pub(super) struct Answer<'r> {
    pub(super) status: StatusCode,
    pub(super) body: Option<&'r str>,
    /// To be made first, in this order.
    pub(super) calls: &'r [Call],
    /// The status if one of them does not end with 200.
    pub(super) on_call_failure: StatusCode,
}

impl Routes {
    /// The route of exactly this path, else that of its longest prefix, else the default.
    pub(super) fn answer(&self, path: &str) -> Answer<'_> {
        let longest = || {
            let mut prefixes = self.prefixes.iter();
            prefixes
                .find(|(prefix, _)| path.starts_with(prefix))
                .map(|(_, route)| route)
        };
        match self.exact.get(path).or_else(longest) {
            Some(route) => Answer {
                status: route.status,
                body: route.body.as_deref(),
                calls: &route.calls,
                on_call_failure: route.on_call_failure,
            },
            None => Answer {
                status: self.default,
                body: None,
                calls: &[],
                on_call_failure: StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }

    /// Reads the list; everything wrong goes to `report`, whose frame is that of `text`.
    pub(super) fn read(text: &str, report: &mut Report) -> Option<Self> {
        let before = report.errors();
        let document = match yaml::parse(text) {
            Ok(document) => document,
            Err(e) => {
                let hint = e.hint.unwrap_or("mend the YAML here");
                report.invalid(e.place, e.message, hint);
                return None;
            }
        };
        for key in &document.repeated {
            let message = format!("`{}` stands here a second time", key.name);
            report.invalid(key.place, message, "keep one of them");
        }
        let Some(root) = document.root else {
            let top = Place { line: 1, column: 1 };
            report.invalid(
                top,
                "there is no route",
                "write a list of `{path: /…, status: 200}`",
            );
            return None;
        };
        let mut reading = Reading {
            routes: Self {
                exact: BTreeMap::new(),
                prefixes: Vec::new(),
                default: StatusCode::NOT_FOUND,
            },
            has_default: false,
        };
        for node in report.list(&root, "routes")? {
            reading.item(node, report);
        }
        let mut routes = reading.routes;
        routes
            .prefixes
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        (report.errors() == before).then_some(routes)
    }
}

struct Reading {
    routes: Routes,
    has_default: bool,
}

impl Reading {
    fn item(&mut self, node: &Node, report: &mut Report) {
        let is_default = matches!(&node.value, Value::Map(entries) if entries.iter().any(|(key, _)| key.name == DEFAULT));
        let Some(mut fields) = report.fields(node, "route") else {
            return;
        };
        if is_default {
            let status = fields
                .take(DEFAULT)
                .and_then(|node| status(node, DEFAULT, report));
            fields.close(report);
            if std::mem::replace(&mut self.has_default, true) {
                report.invalid(node.place, "a second `default`", "keep one of them");
            }
            self.routes.default = status.unwrap_or(self.routes.default);
            return;
        }
        let path = read_path(&mut fields, node.place, report);
        let prefix = fields
            .take("prefix")
            .is_some_and(|node| boolean(node, "prefix", report));
        let route = Route {
            status: optional_status(&mut fields, "status", StatusCode::OK, report),
            body: fields
                .take("body")
                .and_then(|node| report.text(node, "body"))
                .map(str::to_owned),
            calls: calls(&mut fields, report),
            on_call_failure: optional_status(
                &mut fields,
                "onCallFailure",
                StatusCode::INTERNAL_SERVER_ERROR,
                report,
            ),
        };
        fields.close(report);
        let Some(path) = path else { return };
        let taken = if prefix {
            let taken = self.routes.prefixes.iter().any(|(known, _)| *known == path);
            self.routes.prefixes.push((path.clone(), route));
            taken
        } else {
            self.routes.exact.insert(path.clone(), route).is_some()
        };
        if taken {
            let message = format!("a second route for `{path}`");
            report.invalid(node.place, message, "keep one of them");
        }
    }
}

fn read_path(fields: &mut Fields<'_>, place: Place, report: &mut Report) -> Option<String> {
    let Some(node) = fields.take("path") else {
        report.invalid(
            place,
            "a route without `path`",
            "give it `path: /…`, or write `default: 404`",
        );
        return None;
    };
    let path = path(node, report)?;
    if path.contains('?') {
        report.invalid(
            node.place,
            format!("`{path}` has a query"),
            "leave it out: a route is found by its path",
        );
        return None;
    }
    Some(path)
}

fn path(node: &Node, report: &mut Report) -> Option<String> {
    let text = report.text(node, "path")?;
    let fits = text.starts_with('/') && !text.contains('#') && PathAndQuery::try_from(text).is_ok();
    if !fits {
        report.invalid(
            node.place,
            format!("`{}` is no path", text.escape_debug()),
            "write it as a client sends it: `/`, then letters, digits, signs, and %-codes",
        );
    }
    fits.then(|| text.to_owned())
}

fn calls(fields: &mut Fields<'_>, report: &mut Report) -> Vec<Call> {
    let Some(list) = fields
        .take("calls")
        .and_then(|node| report.list(node, "calls"))
    else {
        return Vec::new();
    };
    list.iter().filter_map(|node| call(node, report)).collect()
}

fn call(node: &Node, report: &mut Report) -> Option<Call> {
    let mut fields = report.fields(node, "calls")?;
    let host = match fields.take("host") {
        Some(node) => host(node, report),
        None => {
            report.invalid(
                node.place,
                "a call without `host`",
                "name a service, such as `catalog.istioinaction`",
            );
            None
        }
    };
    let port = match fields.take("port") {
        Some(node) => port(node, report),
        None => Some(80),
    };
    let path = match fields.take("path") {
        Some(node) => path(node, report),
        None => Some("/".to_owned()),
    };
    fields.close(report);
    Some(Call {
        host: host?,
        port: port?,
        path: path?,
    })
}

fn host(node: &Node, report: &mut Report) -> Option<String> {
    let text = report.text(node, "host")?;
    if !grammar::is_subdomain(text) {
        report.invalid(
            node.place,
            format!("`{}` is no name of a service", text.escape_debug()),
            "write it as in a URL, without scheme and port: `catalog.istioinaction`",
        );
        return None;
    }
    Some(text.to_owned())
}

fn port(node: &Node, report: &mut Report) -> Option<u16> {
    match &node.value {
        Value::Number(text) if let Ok(port @ 1..) = text.parse() => Some(port),
        _ => report.unfit(node, "port", "a port from 1 to 65535"),
    }
}

fn boolean(node: &Node, name: &str, report: &mut Report) -> bool {
    match node.value {
        Value::Bool(value) => value,
        _ => report
            .unfit(node, name, "true or false")
            .unwrap_or_default(),
    }
}

fn optional_status(
    fields: &mut Fields<'_>,
    name: &'static str,
    absent: StatusCode,
    report: &mut Report,
) -> StatusCode {
    let found = fields
        .take(name)
        .and_then(|node| status(node, name, report));
    found.unwrap_or(absent)
}

/// No 1xx: it would be no answer.
fn status(node: &Node, name: &str, report: &mut Report) -> Option<StatusCode> {
    match &node.value {
        Value::Number(text) if let Ok(code @ 200..600) = text.parse::<u16>() => {
            StatusCode::from_u16(code).ok()
        }
        _ => report.unfit(node, name, STATUS),
    }
}

#[cfg(test)]
mod tests;
