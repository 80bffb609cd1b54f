//! What was seen at the edge, and its text.
//!
//! What differs from run to run is named instead of told: addresses, times, request ids, hashes of certificates.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use meshward_core::telemetry::Record;
use meshward_simulator::peer::Ending;

use crate::scenario::print_bytes;

/// What happened on one connection since somebody looked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// An application accepted it.
    pub opened: bool,
    pub bytes: Vec<u8>,
    pub ending: Option<Ending>,
}

/// News of all connections and of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Clients by name; applications' connections by workload and number.
    pub conns: BTreeMap<String, Seen>,
    /// Lines made by [`record_line`], in any order.
    pub records: Vec<String>,
}

impl News {
    /// The outcome of a block: connections by name, then records, sorted.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, seen) in &self.conns {
            if seen.opened {
                lines.push(format!("{name} opened"));
            }
            if !seen.bytes.is_empty() {
                lines.push(format!("{name} gets"));
                let bytes = join_chunks(&seen.bytes);
                lines.extend(print_bytes(&bytes).into_iter().map(|l| mask(&l)));
            }
            if let Some(ending) = seen.ending {
                lines.push(format!("{name} {}", spell(ending)));
            }
        }
        let mut records = self.records.clone();
        records.sort();
        lines.extend(records);
        lines
    }
}

fn spell(ending: Ending) -> String {
    match ending {
        Ending::Fin => "fin".into(),
        Ending::Reset => "reset".into(),
        Ending::Refused => "refused".into(),
        Ending::Unreachable => "unreachable".into(),
        Ending::TimedOut => "timed-out".into(),
        Ending::Alert(n) => format!("alert {n}"),
        Ending::NotTls => "not-tls".into(),
    }
}

/// Names of addresses: of whole ones, and of hosts whose ports come and go.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub sockets: BTreeMap<SocketAddr, String>,
    pub hosts: BTreeMap<IpAddr, String>,
}

impl Names {
    pub fn of(&self, address: SocketAddr) -> String {
        self.sockets
            .get(&address)
            .or_else(|| self.hosts.get(&address.ip()))
            .cloned()
            .unwrap_or_else(|| address.ip().to_string())
    }
}

/// A record as one line: request, status, flags and details as in the log (S-326), then what else is there.
pub fn record_line(workload: &str, record: &Record, names: &Names) -> String {
    let mut line = format!("record {workload}");
    if let Some(method) = &record.method {
        let path = record.path.as_deref().unwrap_or("-");
        let protocol = record.protocol.unwrap_or("-");
        line += &format!(" \"{method} {path} {protocol}\"");
    }
    let details = record.details.as_deref().unwrap_or("-");
    let flags: Vec<&str> = record.flags.names().collect();
    let flags = if flags.is_empty() {
        "-".to_owned()
    } else {
        flags.join(",")
    };
    line += &format!(" {} {flags} {details}", record.status);
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            line += &if value.contains(' ') {
                format!(" {key}={value:?}")
            } else {
                format!(" {key}={value}")
            };
        }
    };
    add("termination", record.termination.clone());
    add("failure", record.upstream_failure.clone());
    add("received", Some(record.bytes_received.to_string()));
    add("sent", Some(record.bytes_sent.to_string()));
    add("authority", record.authority.clone());
    add("sni", record.requested_server_name.clone());
    add("peer", record.peer.clone());
    add("from", record.downstream_remote.map(|a| names.of(a)));
    add("at", record.downstream_local.map(|a| names.of(a)));
    add("to", record.upstream_host.map(|a| names.of(a)));
    add("as", record.upstream_local.map(|a| names.of(a)));
    add("cluster", record.upstream_cluster.clone());
    add("route", record.route.clone());
    for policy in &record.audit {
        add("audit", Some(policy.clone()));
    }
    line
}

/// Puts the chunks of every chunked message together, as far as they are whole: a proxy cuts them as the bytes happen to come.
fn join_chunks(bytes: &[u8]) -> Vec<u8> {
    const CHUNKED: &[u8] = b"\r\ntransfer-encoding: chunked\r\n";
    let find = |from: usize, what: &[u8]| {
        let at = bytes
            .get(from..)?
            .windows(what.len())
            .position(|w| w == what)?;
        Some(from + at)
    };
    let mut out = Vec::new();
    let mut told = 0;
    while let Some(body) = find(told, CHUNKED)
        .and_then(|at| find(at + CHUNKED.len() - 2, b"\r\n\r\n"))
        .map(|at| at + 4)
    {
        let Some((joined, end)) = read_chunks(bytes, body) else {
            break;
        };
        out.extend_from_slice(&bytes[told..body]);
        out.extend_from_slice(format!("{:x}\r\n", joined.len()).as_bytes());
        out.extend_from_slice(&joined);
        out.extend_from_slice(b"\r\n");
        told = end;
    }
    out.extend_from_slice(&bytes[told..]);
    out
}

/// The body of the chunks at `at`, and where they end: at the last chunk, or at the end of the bytes.
fn read_chunks(bytes: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    loop {
        let rest = bytes.get(at..)?;
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some((body, at));
        }
        let chunk = rest.get(end + 2..end + 2 + size + 2)?;
        body.extend_from_slice(&chunk[..size]);
        at += end + 2 + size + 2;
        if at == bytes.len() {
            return Some((body, at));
        }
    }
}

/// Puts a name where a value is made anew in every run.
fn mask(line: &str) -> String {
    let Some((name, value)) = line.split_once(": ") else {
        return line.to_owned();
    };
    let masked = match name.trim_start_matches("| ") {
        "x-request-id" if is_uuid(value) => "<uuid>".to_owned(),
        "x-envoy-upstream-service-time" if value.bytes().all(|b| b.is_ascii_digit()) => {
            "<ms>".to_owned()
        }
        "date" => "<date>".to_owned(),
        "x-forwarded-client-cert" => mask_hash(value),
        _ => return line.to_owned(),
    };
    format!("{name}: {masked}")
}

/// `Hash=` and 64 hexadecimal digits (S-325).
fn mask_hash(value: &str) -> String {
    value
        .split(';')
        .map(|part| match part.strip_prefix("Hash=") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                "Hash=<sha256>"
            }
            _ => part,
        })
        .collect::<Vec<_>>()
        .join(";")
}

fn is_uuid(value: &str) -> bool {
    value.len() == 36
        && value.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_anew_is_named_and_what_a_client_says_is_told() {
        let news = News {
            conns: [(
                "c".into(),
                Seen {
                    opened: false,
                    bytes: b"x-request-id: 01234567-89ab-4cde-8f01-23456789abcd\r\nx-request-id: mine\r\n\
                             x-envoy-upstream-service-time: 12\r\n"
                        .to_vec(),
                    ending: Some(Ending::Alert(46)),
                },
            )]
            .into(),
            records: vec!["record b".into(), "record a".into()],
        };
        assert_eq!(
            news.lines(),
            [
                "c gets",
                "| x-request-id: <uuid>",
                "| x-request-id: mine",
                "| x-envoy-upstream-service-time: <ms>",
                "c alert 46",
                "record a",
                "record b",
            ]
        );
    }

    #[test]
    fn chunks_are_joined_and_what_is_no_whole_chunked_message_stays() {
        let head = "A\r\ntransfer-encoding: chunked\r\n\r\n";
        for (text, joined) in [
            (
                format!("{head}1\r\na\r\n2\r\nbc\r\n0\r\n\r\nB"),
                format!("{head}3\r\nabc\r\n0\r\n\r\nB"),
            ),
            (
                format!("{head}1\r\na\r\n2\r\nbc\r\n"),
                format!("{head}3\r\nabc\r\n"),
            ),
            (
                format!("{head}1\r\na\r\n2\r\nb"),
                format!("{head}1\r\na\r\n2\r\nb"),
            ),
            ("1\r\na\r\n".into(), "1\r\na\r\n".into()),
        ] {
            assert_eq!(join_chunks(text.as_bytes()), joined.as_bytes());
        }
    }

    #[test]
    fn the_hash_of_a_certificate_is_named() {
        let hash = "a".repeat(64);
        assert_eq!(
            mask(&format!(
                "| x-forwarded-client-cert: By=b;Hash={hash};URI=u"
            )),
            "| x-forwarded-client-cert: By=b;Hash=<sha256>;URI=u"
        );
        let short = "| x-forwarded-client-cert: By=b;Hash=ab;URI=u";
        assert_eq!(mask(short), short);
    }
}
