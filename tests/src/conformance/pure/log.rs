//! The values of a log's operators as a record.

use std::net::SocketAddr;

use meshward_core::api::load::yaml::{Node, Value};
use meshward_core::clock::UnixTime;
use meshward_core::telemetry::Record;
use meshward_core::telemetry::record::Flags;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::tree::{Fault, Fields, fault, number, text};

/// Reads `given`; what is null or missing is absent.
pub(super) fn read_record(node: &Node) -> Result<Record, Fault> {
    let mut values = Values(Fields::of(node, "the values")?);
    let record = Record {
        start: values.read("start_time", read_time)?.unwrap_or_default(),
        duration_ns: values.count("duration")?.saturating_mul(1_000_000),
        method: values.text("method")?,
        path: values.text("path")?,
        original_path: values.text("x_envoy_original_path")?,
        protocol: values.read("protocol", read_protocol)?,
        status: values.read("response_code", number)?.unwrap_or(0),
        flags: values
            .read("response_flags", read_flags)?
            .unwrap_or(Flags::NONE),
        details: values.text("response_code_details")?,
        termination: values.text("connection_termination_details")?,
        upstream_failure: values.text("upstream_transport_failure_reason")?,
        bytes_received: values.count("bytes_received")?,
        bytes_sent: values.count("bytes_sent")?,
        upstream_service_ms: values.read("upstream_service_time", read_millis)?,
        forwarded_for: values.text("x_forwarded_for")?,
        user_agent: values.text("user_agent")?,
        request_id: values.text("request_id")?,
        authority: values.text("authority")?,
        upstream_host: values.read("upstream_host", read_address)?,
        upstream_cluster: values.text("upstream_cluster")?,
        upstream_local: values.read("upstream_local_address", read_address)?,
        downstream_local: values.read("downstream_local_address", read_address)?,
        downstream_remote: values.read("downstream_remote_address", read_address)?,
        requested_server_name: values.text("requested_server_name")?,
        route: values.text("route_name")?,
        ..Record::default()
    };
    values.0.end()?;
    Ok(record)
}

struct Values<'n>(Fields<'n>);

impl Values<'_> {
    fn read<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Node) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        let given = self.0.take(name).filter(|node| node.value != Value::Null);
        given.map(read).transpose()
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        self.read(name, |node| text(node).map(str::to_owned))
    }

    fn count(&mut self, name: &str) -> Result<u64, Fault> {
        Ok(self.read(name, number)?.unwrap_or(0))
    }
}

fn read_time(node: &Node) -> Result<UnixTime, Fault> {
    let millis = OffsetDateTime::parse(text(node)?, &Rfc3339)
        .ok()
        .and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok());
    match millis {
        Some(millis) => Ok(UnixTime(millis)),
        None => fault(node, "this is no time"),
    }
}

fn read_protocol(node: &Node) -> Result<&'static str, Fault> {
    let protocols = ["HTTP/1.0", "HTTP/1.1", "HTTP/2"];
    let name = text(node)?;
    match protocols.into_iter().find(|known| *known == name) {
        Some(protocol) => Ok(protocol),
        None => fault(node, format!("`{name}` is no protocol")),
    }
}

/// Short names with commas, or `-`.
fn read_flags(node: &Node) -> Result<Flags, Fault> {
    let names = text(node)?;
    if names == "-" {
        return Ok(Flags::NONE);
    }
    let mut all = Flags::NONE;
    for name in names.split(',') {
        match Flags::named(name) {
            Some(flag) => all = all.with(flag),
            None => return fault(node, format!("`{name}` is no flag")),
        }
    }
    Ok(all)
}

/// A header's text.
fn read_millis(node: &Node) -> Result<u64, Fault> {
    text(node)?
        .parse()
        .or_else(|_| fault(node, "this is no number of milliseconds"))
}

fn read_address(node: &Node) -> Result<SocketAddr, Fault> {
    text(node)?
        .parse()
        .or_else(|_| fault(node, "this is no address with a port"))
}
