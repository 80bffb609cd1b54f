//! The account for people: the verdict first.

use std::fmt;

use super::account::{Account, By, Inbound, JwtRule, Log, Outbound, RuleAccount};

/// Width of the names at the left.
const NAMES: usize = 10;

/// Lines `name  value` below a heading.
struct Lines<'f, 'a> {
    f: &'f mut fmt::Formatter<'a>,
}

impl Lines<'_, '_> {
    fn heading(&mut self, text: &str) -> fmt::Result {
        write!(self.f, "\n{text}")
    }

    fn line(&mut self, name: &str, value: impl fmt::Display) -> fmt::Result {
        write!(self.f, "\n  {name:NAMES$}  {value}")
    }

    fn more(&mut self, name: &str, value: Option<impl fmt::Display>) -> fmt::Result {
        match value {
            Some(value) => self.line(name, value),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = &self.verdict;
        write!(f, "{:03}  {}", verdict.status, verdict.summary)?;
        let mut lines = Lines { f };
        let by = match (verdict.by, &self.inbound) {
            (By::Application, Some(inbound)) => format!("the app of {}", inbound.server.pod),
            (By::Application, None) => "the app".to_owned(),
            (By::ServerSidecar, Some(inbound)) => format!("the sidecar of {}", inbound.server.pod),
            (By::ServerSidecar, None) => "the server's sidecar".to_owned(),
            (By::ClientSidecar, _) => format!("the sidecar of {}", self.client.pod),
            (By::Nobody, _) => "nobody: no HTTP answer comes".to_owned(),
        };
        lines.line("answered", format_args!("by {by}"))?;
        lines.more("because", verdict.reason.as_ref())?;
        if let Some(rule) = &verdict.rule {
            lines.line("rule", format_args!("{}  {}", rule.id, rule.origin))?;
        }
        lines.heading("request")?;
        let request = &self.request;
        lines.line(&request.method, format_args!("{}", request.path))?;
        lines.line("host", &request.authority)?;
        if !request.headers.is_empty() {
            lines.line("headers", request.headers.join(", "))?;
        }
        self.outbound(&self.outbound, &mut lines)?;
        if let Some(inbound) = &self.inbound {
            show_inbound(inbound, &mut lines)?;
        }
        for (at, other) in self.others.iter().enumerate() {
            if at == 0 {
                lines.heading("at the other endpoints")?;
            }
            let rule = other.rule.as_ref().map_or("", |rule| &rule.id);
            let text = format!(
                "{:03}  {} {}  {rule}",
                other.status, other.pod, other.address
            );
            lines.line("", text.trim_end())?;
        }
        Ok(())
    }
}

impl Account {
    fn outbound(&self, outbound: &Outbound, lines: &mut Lines<'_, '_>) -> fmt::Result {
        lines.heading("outbound")?;
        let client = &self.client;
        let sidecar = match &client.identity {
            Some(identity) => identity.as_str(),
            None if client.sidecar => "sidecar",
            None => "no sidecar",
        };
        let from = format!("{} at {}, {sidecar}", client.pod, client.address);
        lines.line("client", from)?;
        match &outbound.service {
            Some(service) => {
                lines.line(
                    "meant",
                    format_args!("{}, service {service}", outbound.meant),
                )?;
            }
            None => lines.line("meant", &outbound.meant)?,
        }
        lines.more("listener", outbound.door.as_ref())?;
        lines.more("path", outbound.path.as_ref())?;
        lines.more("cluster", outbound.cluster.as_ref())?;
        if let Some(endpoint) = &outbound.endpoint {
            match outbound.endpoints {
                0 | 1 => lines.line("endpoint", endpoint)?,
                n => lines.line("endpoint", format_args!("{endpoint}, one of {n}"))?,
            }
        }
        if let Some(protection) = &outbound.protection {
            let how = if protection.mutual_tls {
                "mutual TLS"
            } else {
                "plaintext"
            };
            let origin = at(protection.origin.as_deref());
            lines.line(
                "speaks",
                format_args!("{how}: {}{origin}", protection.reason),
            )?;
            lines.more("sni", protection.sni.as_ref())?;
            if !protection.expects.is_empty() {
                lines.line("expects", protection.expects.join(", "))?;
            }
        }
        lines.more("log", outbound.log.as_ref())
    }
}

fn show_inbound(inbound: &Inbound, lines: &mut Lines<'_, '_>) -> fmt::Result {
    lines.heading("inbound")?;
    let server = &inbound.server;
    let who = match &server.identity {
        Some(identity) => identity.as_str(),
        None if server.sidecar => "sidecar",
        None => "no sidecar: no policy applies",
    };
    let text = format!("{} at {}, {who}", server.pod, server.address);
    lines.line("server", text)?;
    let protocol = match inbound.protocol {
        Some("auto") => ", protocol not declared".to_owned(),
        Some(protocol) => format!(", {protocol}"),
        None => String::new(),
    };
    lines.line("port", format_args!("{}{protocol}", inbound.port))?;
    if let Some(mode) = &inbound.mode {
        let origin = at(mode.origin.as_deref());
        let text = format!("{} by {}{origin}", mode.mode, mode.reason);
        lines.line("mode", text)?;
    }
    lines.more("accepts", inbound.accepts)?;
    if let Some(sees) = &inbound.sees {
        let principal = sees.principal.as_deref().unwrap_or("no identity");
        let text = format!("{principal}, source {}", sees.source_ip);
        lines.line("sees", text)?;
        lines.more("path", sees.path.as_ref())?;
    }
    if let Some(authentication) = &inbound.authentication {
        lines.line("tokens", &authentication.outcome)?;
        for rule in &authentication.rules {
            let JwtRule {
                issuer,
                origin,
                outcome,
                tokens,
            } = rule;
            lines.line(
                "JWT",
                format_args!("issuer `{issuer}`: {outcome}  {origin}"),
            )?;
            for token in tokens {
                lines.line("", format_args!("  {}: {}", token.place, token.outcome))?;
            }
        }
    }
    for rule in &inbound.rules {
        lines.line(rule.action, rule)?;
    }
    lines.more("log", inbound.log.as_ref())
}

fn at(origin: Option<&str>) -> String {
    origin.map_or_else(String::new, |origin| format!("  {origin}"))
}

impl fmt::Display for RuleAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = match (self.decided, self.matched) {
            (true, _) => "matches and decides",
            (false, true) => "matches",
            (false, false) => "does not match",
        };
        write!(f, "{} {answer}  {}", self.id, self.origin)?;
        if let Some(void) = &self.void {
            write!(f, "\n  {:NAMES$}    {void}", "")?;
        }
        for miss in &self.misses {
            let patterns = miss.patterns.join(", ");
            let (field, actual) = (&miss.field, &miss.actual);
            write!(
                f,
                "\n  {:NAMES$}    {field} [{patterns}] against {actual}",
                ""
            )?;
        }
        Ok(())
    }
}

/// Status, flags, details, cluster, as they stand in a line of the access log.
impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        write!(
            f,
            "{} {} {}",
            self.status,
            self.flags,
            or_dash(&self.details)
        )?;
        if let Some(termination) = &self.termination {
            write!(f, " {termination}")?;
        }
        if let Some(cluster) = &self.cluster {
            write!(f, " {cluster}")?;
        }
        for policy in &self.audit {
            write!(f, " audit={policy}")?;
        }
        Ok(())
    }
}
