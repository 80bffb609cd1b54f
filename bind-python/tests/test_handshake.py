"""The proxy machine against OpenSSL, in memory: Python's `ssl` is the client, the test is network and application."""

from __future__ import annotations

import ssl
import time
from collections import deque
from pathlib import Path

import pytest

import meshward as mw
from meshward.testing import Ca

CLIENT = "spiffe://cluster.local/ns/default/sa/client"
SERVER = "spiffe://cluster.local/ns/default/sa/server"
DOWNSTREAM = mw.LinkId.accepted(0)

DENY_ALL_FROM_CLIENT = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed, namespace: default}
spec:
  action: DENY
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]
"""


class Client:
    """OpenSSL with its socket replaced by two buffers."""

    def __init__(self, ca: Ca, folder: Path, identity: mw.Svid | None, newest: ssl.TLSVersion) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # The server is named by a SPIFFE ID, not by a host name.
        context.check_hostname = False
        context.maximum_version = newest
        context.load_verify_locations(cadata=ca.bundle_pem)
        # What Istio's client offers for HTTP/1.1 (S-63).
        context.set_alpn_protocols(["istio-http/1.1", "istio", "http/1.1"])
        if identity is not None:
            chain, key = folder / "chain.pem", folder / "key.pem"
            chain.write_text(identity.chain_pem)
            key.write_text(identity.key_pem)
            context.load_cert_chain(chain, key)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)


class Network:
    """One client, one proxy, and whatever the proxy asks for, written down."""

    def __init__(self, ca: Ca, client: Client, policies: str = "") -> None:
        self.client = client
        self.at_ns = 0
        self.granted: dict[mw.LinkId, int] = {}
        self.connects: list[mw.Connect] = []
        self.upstream_received = b""
        self.ends: list[mw.Finish | mw.Reset] = []
        self.reports: list[mw.Report] = []
        self.acknowledge: deque[mw.Sent] = deque()
        self.proxy = mw.Proxy(bytes(32), self.now())
        self.tell(ca.issue(SERVER))
        assert self.proxy.configure(policies, "STRICT", 8080, "127.0.0.1:9000", now=self.now()) == []
        self.obey()
        self.tell(mw.Accepted(DOWNSTREAM, "inbound", "10.0.0.9:40000", "10.0.0.1:8080"))

    def now(self) -> mw.Now:
        self.at_ns += 1_000_000
        return mw.Now(at_ns=self.at_ns, unix_ms=time.time_ns() // 1_000_000)

    def tell(self, event: mw.Accepted | mw.Connected | mw.Received | mw.Sent | mw.Svid) -> None:
        self.proxy.handle(event, self.now())
        self.obey()
        while self.acknowledge:
            self.proxy.handle(self.acknowledge.popleft(), self.now())
            self.obey()

    def obey(self) -> None:
        while (action := self.proxy.poll_action()) is not None:
            match action:
                case mw.Read(link, at_most):
                    assert link not in self.granted, "a grant is spent before the next one"
                    self.granted[link] = at_most
                case mw.Send(link, data, ack):
                    if link == DOWNSTREAM:
                        self.client.incoming.write(data)
                    else:
                        self.upstream_received += data
                    if ack:
                        self.acknowledge.append(mw.Sent(link, len(data)))
                case mw.Connect():
                    self.connects.append(action)
                case mw.Finish() | mw.Reset():
                    self.ends.append(action)
                case mw.Report():
                    self.reports.append(action)

    def deliver(self, link: mw.LinkId, data: bytes) -> None:
        """Carries bytes to the proxy, as many at a time as it grants."""
        while data:
            at_most = self.granted.pop(link)
            self.tell(mw.Received(link, data[:at_most]))
            data = data[at_most:]

    def flush(self) -> bool:
        """Carries what the client has written; whether there was anything."""
        data = self.client.outgoing.read()
        self.deliver(DOWNSTREAM, data)
        return bool(data)

    def handshake(self) -> None:
        while True:
            try:
                self.client.tls.do_handshake()
            except ssl.SSLWantReadError:
                assert self.flush() and self.client.incoming.pending, "the handshake makes progress"
            else:
                self.flush()
                return

    def request(self, head: bytes) -> None:
        self.client.tls.write(head)
        self.flush()


@pytest.fixture(scope="module")
def ca() -> Ca:
    return Ca()


def test_a_request_with_mutual_tls_reaches_the_application_and_its_answer_the_client(ca: Ca, tmp_path: Path) -> None:
    client = Client(ca, tmp_path, ca.issue(CLIENT), ssl.TLSVersion.TLSv1_3)
    network = Network(ca, client)
    network.handshake()
    assert client.tls.version() == "TLSv1.3"
    assert client.tls.selected_alpn_protocol() == "http/1.1"
    certificate = client.tls.getpeercert()
    assert certificate is not None and certificate["subjectAltName"] == (("URI", SERVER),)
    assert network.connects == [], "nobody is called before there is a request"

    network.request(b"GET / HTTP/1.1\r\nHost: server.default\r\n\r\n")
    [connect] = network.connects
    assert connect == mw.Connect(connect.link, "127.0.0.1:9000", None)
    assert not connect.link.is_accepted
    assert network.upstream_received == b"", "nothing is sent on a link that is not open"

    network.tell(mw.Connected(connect.link, "127.0.0.1:50000"))
    head = network.upstream_received.lower()
    assert head.startswith(b"get / http/1.1\r\n") and head.endswith(b"\r\n\r\n")
    assert b"\r\nhost: server.default\r\n" in head
    assert f";uri={CLIENT}".encode() in head, "the application learns who called (S-325)"

    network.deliver(connect.link, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    answer = client.tls.read(4096)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\nhello")

    [report] = network.reports
    assert (report.method, report.path, report.status) == ("GET", "/", 200)
    assert (report.details, report.flags) == ("via_upstream", [])
    assert (report.peer, report.bytes_sent) == (CLIENT, 5)
    assert report.upstream_host == "127.0.0.1:9000"
    assert report.upstream_local == "127.0.0.1:50000"
    assert report.upstream_cluster == "inbound|8080||"
    assert '"GET / HTTP/1.1" 200 - via_upstream' in report.line()
    assert network.ends == [], "both links are kept alive"


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
def test_a_client_without_a_certificate_is_told_that_one_is_required(
    ca: Ca, tmp_path: Path, newest: ssl.TLSVersion
) -> None:
    client = Client(ca, tmp_path, None, newest)
    network = Network(ca, client)
    # A client of TLS 1.3 has finished its handshake before the server judges it (S-97).
    with pytest.raises(ssl.SSLError) as alert:
        network.handshake()
        client.tls.read(1)
    assert alert.value.reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED", "S-29, RFC 8446 §4.4.2.4"
    assert network.connects == []
    assert [end.link for end in network.ends] == [DOWNSTREAM]
    stats = network.proxy.stats()
    assert (stats["handshakes"], stats["handshake_failures"]) == (0, 1)


def test_a_denied_request_gets_403_names_its_policy_and_never_connects(ca: Ca, tmp_path: Path) -> None:
    client = Client(ca, tmp_path, ca.issue(CLIENT), ssl.TLSVersion.TLSv1_3)
    network = Network(ca, client, DENY_ALL_FROM_CLIENT)
    network.handshake()
    network.request(b"GET /private HTTP/1.1\r\nHost: server.default\r\n\r\n")
    answer = client.tls.read(4096)
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert answer.endswith(b"\r\n\r\nRBAC: access denied")
    assert network.connects == []
    [report] = network.reports
    assert (report.status, report.path, report.peer) == (403, "/private", CLIENT)
    assert report.details == "rbac_access_denied_matched_policy[ns[default]-policy[closed]-rule[0]]", "S-329"
    assert network.proxy.stats()["denied"] == 1
