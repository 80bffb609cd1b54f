"""What was seen at the edge, and its text; the same rules as in `tests/src/journal.rs`.

What differs from run to run is named instead of told: addresses, times, request ids, hashes of certificates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import meshward as mw

from .language import print_bytes


@dataclass
class Seen:
    """What happened on one connection since somebody looked last. `ending` is spelled as in the files."""

    opened: bool = False
    data: bytes = b""
    ending: str | None = None


@dataclass
class News:
    """Clients by name, applications' connections by workload and number; records in any order."""

    conns: dict[str, Seen] = field(default_factory=dict)
    records: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The outcome of a block: connections by name, then records, sorted."""
        lines: list[str] = []
        for name, seen in sorted(self.conns.items()):
            if seen.opened:
                lines.append(f"{name} opened")
            if seen.data:
                lines.append(f"{name} gets")
                lines += map(mask, print_bytes(join_chunks(seen.data)))
            if seen.ending is not None:
                lines.append(f"{name} {seen.ending}")
        return lines + sorted(self.records)


@dataclass
class Names:
    """Names of addresses: of whole ones, and of hosts whose ports come and go. What has none is told without its port."""

    sockets: dict[str, str] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)

    def of(self, address: str | None) -> str | None:
        if address is None:
            return None
        host = address.rpartition(":")[0]
        return self.sockets.get(address) or self.hosts.get(host) or host


def record_line(workload: str, report: mw.Report, names: Names) -> str:
    """A record as one line: request, status, flags and details as in the log (S-326), then what else is there."""
    words = [f"record {workload}"]
    if report.method is not None:
        words.append(f'"{report.method} {_or_dash(report.path)} {_or_dash(report.protocol)}"')
    words += [str(report.status), ",".join(report.flags) or "-", _or_dash(report.details)]
    rest = {
        "termination": report.termination,
        "failure": report.upstream_failure,
        "received": str(report.bytes_received),
        "sent": str(report.bytes_sent),
        "authority": report.authority,
        "sni": report.requested_server_name,
        "peer": report.peer,
        "from": names.of(report.downstream_remote),
        "at": names.of(report.downstream_local),
        "to": names.of(report.upstream_host),
        "as": names.of(report.upstream_local),
        "cluster": report.upstream_cluster,
        "route": report.route,
    }
    fields = [(key, value) for key, value in rest.items() if value is not None]
    fields += [("audit", policy) for policy in report.audit]
    words += [f"{key}={_quoted(value)}" for key, value in fields]
    return " ".join(words)


def _or_dash(text: str | None) -> str:
    return "-" if text is None else text


def _quoted(value: str) -> str:
    if " " not in value:
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


_CHUNKED = b"\r\ntransfer-encoding: chunked\r\n"


def join_chunks(data: bytes) -> bytes:
    """Puts the chunks of every chunked message together, as far as they are whole: a proxy cuts them as the bytes happen to
    come."""
    out, told = b"", 0
    while (at := data.find(_CHUNKED, told)) >= 0:
        head = data.find(b"\r\n\r\n", at + len(_CHUNKED) - 2)
        chunks = _read_chunks(data, head + 4) if head >= 0 else None
        if chunks is None:
            break
        body, end = chunks
        out += data[told : head + 4] + f"{len(body):x}\r\n".encode() + body + b"\r\n"
        told = end
    return out + data[told:]


def _read_chunks(data: bytes, at: int) -> tuple[bytes, int] | None:
    """The body of the chunks at `at`, and where they end: at the last chunk, or at the end of the bytes."""
    body = b""
    while True:
        size = re.compile(rb"\+?([0-9a-fA-F]+)\r\n").match(data, at)
        if size is None:
            return None
        length, begin = int(size[1], 16), size.end()
        if length == 0:
            return body, at
        at = begin + length + 2
        if at > len(data):
            return None
        body += data[begin : begin + length]
        if at == len(data):
            return body, at


_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HASH = re.compile(r"Hash=[0-9a-fA-F]{64}")


def mask(line: str) -> str:
    """Puts a name where a value is made anew in every run."""
    name, colon, value = line.partition(": ")
    if not colon:
        return line
    match name.removeprefix("| "):
        case "x-request-id" if _UUID.fullmatch(value):
            value = "<uuid>"
        case "x-envoy-upstream-service-time" if re.fullmatch("[0-9]*", value):
            value = "<ms>"
        case "date":
            value = "<date>"
        case "x-forwarded-client-cert":
            parts = value.split(";")
            value = ";".join("Hash=<sha256>" if _HASH.fullmatch(part) else part for part in parts)
    return f"{name}: {value}"
