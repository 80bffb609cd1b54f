"""A whole mesh in memory: its YAML, the proxies of its pods, and applications that talk to each other through them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from random import Random
from types import MappingProxyType

import pytest

import meshward as mw
from meshward.testing import Ca
from scenarios.network import BIRTH_MS, Network, Weather
from scenarios.peer import Conn, Peer
from scenarios.sidecar import Sidecar

NOW = mw.Now(0, BIRTH_MS)

SHOP = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: sleep, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: webapp, namespace: shop}
---
apiVersion: v1
kind: Service
metadata: {name: webapp, namespace: shop}
spec:
  selector: {app: webapp}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: webapp, namespace: shop}
spec:
  selector: {matchLabels: {app: webapp}}
  template:
    metadata: {labels: {app: webapp}}
    spec:
      serviceAccountName: webapp
      containers: [{name: webapp, ports: [{name: web, containerPort: 8080}, {name: admin, containerPort: 9000}]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: sleep, namespace: shop}
spec:
  selector: {matchLabels: {app: sleep}}
  template:
    metadata: {labels: {app: sleep}}
    spec: {serviceAccountName: sleep, containers: [{name: sleep}]}
---
apiVersion: v1
kind: Service
metadata: {name: legacy}
spec:
  selector: {app: legacy}
  ports: [{name: http, port: 80, targetPort: 7000}]
---
apiVersion: v1
kind: Pod
metadata: {name: legacy, labels: {app: legacy}}
spec: {containers: [{name: legacy}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    accessLogFile: /dev/stdout
"""

#: `sleep` may read and nothing else; nobody else may do anything.
READERS = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  selector: {matchLabels: {app: webapp}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/sleep]}}]
    to: [{operation: {methods: [GET]}}]
"""

MODES = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: webapp, namespace: shop}
spec:
  selector: {matchLabels: {app: webapp}}
  portLevelMtls: {9000: {mode: DISABLE}}
"""


def new_mesh(*more: str) -> mw.Mesh:
    return mw.Mesh("---".join([SHOP, *more]), now=NOW)


class Running:
    """A mesh whose proxies and applications run in memory. An application answers every request with 200 at once."""

    def __init__(self, *more: str) -> None:
        self.mesh = new_mesh(*more)
        self.network = Network(Weather(), Random(1))
        self.reports: list[mw.Report] = []
        #: The last request as an application saw it.
        self.seen = b""
        #: By the names of pods.
        self.apps: dict[str, Peer] = {}
        self.sidecars: dict[str, Sidecar] = {}
        self._client = Peer(self.network)
        self._ca = Ca(self.mesh.trust_domain, unix_ms=BIRTH_MS)
        for nth, pod in enumerate(self.mesh.pods):
            app = self.apps[pod.name] = Peer(self.network)
            for port in pod.ports:
                # Behind a sidecar an application listens where nobody else reaches it.
                place = f"127.2.0.{nth}" if pod.sidecar else pod.address
                self.network.listeners[f"{place}:{port.port}"] = (app, "inbound")
            if not pod.sidecar:
                continue
            seed = hashlib.sha256(pod.name.encode()).digest()
            sidecar = Sidecar(self.network, seed, self.reports.append, pod.address)
            self.sidecars[pod.name] = sidecar
            for port in pod.ports:
                self.network.listeners[f"{pod.address}:{port.port}"] = (sidecar, "inbound")
            sidecar.tell(self._ca.issue(pod.identity, unix_ms=BIRTH_MS))
            sidecar.tell(self.mesh.snapshot(pod, self._upstreams(nth, pod)))

    def _upstreams(self, nth: int, pod: mw.Pod) -> dict[int, str]:
        return {port.port: f"127.2.0.{nth}:{port.port}" for port in pod.ports}

    def apply(self, yaml: str) -> list[str]:
        lines = self.mesh.apply(yaml)
        for nth, pod in enumerate(self.mesh.pods):
            if pod.sidecar:
                self.sidecars[pod.name].tell(self.mesh.snapshot(pod, self._upstreams(nth, pod)))
        return lines

    def call(self, caller: str, host: str, request: str) -> Conn:
        """The application of `caller` asks `host`, a name of cluster DNS, through its sidecar if it has one."""
        pod = self.mesh.find(caller)
        addresses = self.mesh.resolve(host, pod.namespace)
        assert addresses is not None
        to = f"{addresses[0]}:80"
        sidecar = self.sidecars.get(pod.name)
        if sidecar is None:
            [to] = next(s for s in self.mesh.services if s.address == addresses[0]).ports[0].endpoints
        conn = self._client.open(to, None, pod.address, sidecar)
        self.ask(conn, host, request)
        return conn

    def ask(self, conn: Conn, host: str, request: str) -> None:
        conn.send(f"{request} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        self.network.settle()
        for app in self.apps.values():
            for served in app.conns:
                if served.received.endswith(b"\r\n\r\n"):
                    self.seen = bytes(served.received)
                    served.received.clear()
                    served.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        self.network.settle()

    def take_reports(self) -> list[mw.Report]:
        reports, self.reports[:] = list(self.reports), []
        return reports


def status(conn: Conn) -> str:
    answer = conn.received.decode()
    conn.received.clear()
    return answer.partition("\r\n")[0]


def test_may_sleep_post_to_admin() -> None:
    mesh = Running(READERS)
    assert status(mesh.call("sleep", "webapp", "GET /admin")) == "HTTP/1.1 200 OK"
    mesh.take_reports()
    assert status(mesh.call("sleep", "webapp", "POST /admin")) == "HTTP/1.1 403 Forbidden"
    [denied] = [report for report in mesh.take_reports() if report.upstream_cluster == "inbound|8080||"]
    assert (denied.status, denied.peer) == (403, "spiffe://cluster.local/ns/shop/sa/sleep")
    assert denied.details == "rbac_access_denied_matched_policy[none]"


def test_two_sidecars_speak_mutual_tls_unasked() -> None:
    """Auto mTLS (S-60)."""
    mesh = Running()
    assert status(mesh.call("sleep", "webapp", "GET /")) == "HTTP/1.1 200 OK"
    [inbound] = [report for report in mesh.take_reports() if report.peer is not None]
    assert inbound.peer == mesh.mesh.find("sleep.shop").identity
    assert inbound.requested_server_name == "outbound_.80_._.webapp.shop.svc.cluster.local"
    assert b"URI=spiffe://cluster.local/ns/shop/sa/sleep" in mesh.seen


def test_a_pod_without_a_sidecar_is_called_in_plain_text_and_calls_so() -> None:
    mesh = Running()
    assert status(mesh.call("sleep", "legacy.default", "GET /")) == "HTTP/1.1 200 OK"
    assert mesh.seen.startswith(b"GET / HTTP/1.1\r\n"), "nobody decrypted it on the way (S-60)"
    assert status(mesh.call("legacy", "webapp.shop", "GET /")) == "HTTP/1.1 200 OK"
    strict = Running(MODES)
    conn = strict.call("legacy", "webapp.shop", "GET /")
    assert (status(conn), conn.ending) == ("", "reset"), "S-28"
    assert status(strict.call("sleep", "webapp", "GET /")) == "HTTP/1.1 200 OK"


def test_a_change_of_policy_is_in_force_on_connections_that_are_open() -> None:
    mesh = Running()
    conn = mesh.call("sleep", "webapp", "POST /admin")
    assert status(conn) == "HTTP/1.1 200 OK"
    assert mesh.apply(READERS) == ["authorizationpolicy.security.istio.io/readers created"]
    mesh.ask(conn, "webapp", "POST /admin")
    assert status(conn) == "HTTP/1.1 403 Forbidden"
    mesh.ask(conn, "webapp", "GET /admin")
    assert status(conn) == "HTTP/1.1 200 OK"


def test_pods_tell_who_and_where_they_are() -> None:
    mesh = new_mesh(MODES)
    assert [(pod.namespace, pod.name, pod.sidecar) for pod in mesh.pods] == [
        ("default", "legacy", False),
        ("shop", "sleep-0", True),
        ("shop", "webapp-0", True),
    ]
    assert mesh.find("deploy/webapp", "shop") == mw.Pod(
        namespace="shop",
        name="webapp-0",
        address="127.1.0.3",
        service_account="webapp",
        identity="spiffe://cluster.local/ns/shop/sa/webapp",
        sidecar=True,
        deployment="webapp",
        labels=mesh.find("webapp").labels,
        ports=[
            mw.PodPort(8080, "http", "STRICT", "web"),
            mw.PodPort(9000, "auto", "DISABLE", "admin"),
        ],
    )
    assert mesh.find("webapp").labels["app"] == "webapp"
    [port] = mesh.find("legacy").ports
    assert (port.protocol, port.mode) == ("http", None), "nobody enforces a mode there"


def test_services_tell_where_they_lead() -> None:
    [legacy, webapp] = new_mesh().services
    assert webapp == mw.Service(
        "shop", "webapp", webapp.address, [mw.ServicePort(80, "http", "http", ["127.1.0.3:8080"])]
    )
    assert legacy.address != webapp.address is not None
    headless = new_mesh(
        "\napiVersion: v1\nkind: Service\nmetadata: {name: all, namespace: shop}\n"
        "spec: {clusterIP: None, selector: {app: webapp}, ports: [{port: 8080}]}\n"
    )
    [every] = [service for service in headless.services if service.name == "all"]
    assert every.address is None
    assert headless.resolve("all.shop") == ["127.1.0.3"]


def test_names_are_resolved_as_a_pod_of_the_namespace_would() -> None:
    mesh = new_mesh()
    [_, webapp] = mesh.services
    for name in ["webapp.shop", "webapp.shop.svc", "WebApp.shop.svc.cluster.local."]:
        assert mesh.resolve(name) == [webapp.address], name
    assert mesh.resolve("webapp", "shop") == [webapp.address]
    assert mesh.resolve("webapp") is None
    assert mesh.resolve("legacy", "shop") is None


def test_objects_come_and_go_with_the_lines_of_kubectl() -> None:
    mesh = mw.Mesh(now=NOW)
    assert (mesh.version, mesh.pods, mesh.services) == (1, [], [])
    assert mesh.apply(SHOP)[:3] == [
        "namespace/shop created",
        "serviceaccount/sleep created",
        "serviceaccount/webapp created",
    ]
    assert mesh.version == 2
    assert set(line.rpartition(" ")[2] for line in mesh.apply(SHOP)) == {"unchanged"}
    assert mesh.version == 2, "nothing changed"
    strict = MODES.partition("---")[0]
    assert mesh.apply(strict) == ["peerauthentication.security.istio.io/default created"]
    assert mesh.find("webapp").ports[0].mode == "STRICT"
    relaxed = strict.replace("STRICT", "PERMISSIVE")
    assert mesh.apply(relaxed) == ["peerauthentication.security.istio.io/default configured"]
    assert mesh.find("webapp").ports[0].mode == "PERMISSIVE"
    assert mesh.delete(strict) == ['peerauthentication.security.istio.io "default" deleted']
    assert mesh.delete([("pods", "apiVersion: v1\nkind: Pod\nmetadata: {name: legacy}\n")]) == ['pod "legacy" deleted']
    assert [pod.name for pod in mesh.pods] == ["sleep-0", "webapp-0"]


def test_the_older_policy_wins_by_the_time_of_the_script() -> None:
    """Of two PeerAuthentications for a namespace the older one counts (S-21), else the first by name."""

    def mode(first_at: int, second_at: int) -> str | None:
        mesh = new_mesh()
        for name, mode, at_s in [("a", "DISABLE", first_at), ("b", "STRICT", second_at)]:
            mesh.apply(
                f"apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
                f"metadata: {{name: {name}, namespace: shop}}\nspec: {{mtls: {{mode: {mode}}}}}\n",
                now=mw.Now(0, BIRTH_MS + at_s * 1000),
            )
        return mesh.find("webapp").ports[0].mode

    assert mode(1, 2) == "DISABLE"
    assert mode(2, 1) == "STRICT"


def test_what_is_wrong_in_any_file_is_said_with_its_place_and_changes_nothing() -> None:
    mesh = new_mesh()
    files = [
        ("good.yaml", READERS),
        ("bad.yaml", "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: x}\nspec: {mtls: 1}\n"),
        ("worse.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: Not_A_Name}\n"),
    ]
    with pytest.raises(mw.MeshwardError, match=r"(?s)^bad\.yaml:4:\d+: .*\nworse\.yaml:3:\d+: "):
        mesh.apply(files)
    assert mesh.version == 2
    assert mesh.apply(READERS) == ["authorizationpolicy.security.istio.io/readers created"], "it was not there"
    with pytest.raises(mw.MeshwardError, match=r"^mesh\.yaml:\d+:\d+: .*nowhere"):
        mesh.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: nowhere}\nspec: {containers: [{name: a}]}\n")
    with pytest.raises(mw.MeshwardError, match="NotFound.*not found"):
        mesh.delete(READERS + "---\napiVersion: v1\nkind: Pod\nmetadata: {name: nobody}\n")
    assert mesh.version == 3, "it is all or none"


def test_what_a_mesh_has_no_use_for_is_a_warning_or_an_error() -> None:
    other = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
    mesh = mw.Mesh([("other.yaml", other)], now=NOW)
    [warning] = mesh.warnings
    assert warning.startswith("other.yaml:") and "Secret" in warning
    mesh.apply(SHOP)
    assert mesh.warnings == [], "those texts are forgotten"
    with pytest.raises(mw.MeshwardError, match=r"^mesh\.yaml:.*Secret"):
        mw.Mesh(other, now=NOW, strict=True)


def test_a_snapshot_is_that_of_the_version() -> None:
    mesh = new_mesh()
    webapp = mesh.find("webapp")
    first = mesh.snapshot(webapp, MappingProxyType({8080: "127.0.0.1:9000"}))
    mesh.apply(READERS)
    second = mesh.snapshot(webapp, {})
    assert (first.version, second.version) == (2, 3) == (mesh.version - 1, mesh.version)


def test_another_trust_domain_is_in_the_identities() -> None:
    mesh = new_mesh()
    mesh.apply(SHOP.replace("accessLogFile: /dev/stdout", "trustDomain: shop.example"))
    assert mesh.trust_domain == "shop.example"
    assert mesh.find("webapp").identity == "spiffe://shop.example/ns/shop/sa/webapp"


def gone() -> object:
    mesh = new_mesh()
    pod = mesh.find("webapp")
    mesh.delete("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: webapp, namespace: shop}\n")
    return mesh.snapshot(pod, {})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: new_mesh().find("webap"), "no workload `webap`; nearest: deploy/webapp.shop"),
        (lambda: mw.Mesh(now=NOW).find("a"), "no workload `a`; the mesh has none"),
        (lambda: mw.Mesh(now=NOW, namespace="A_B"), "`A_B` is no namespace"),
        (lambda: mw.Mesh("kind: X", now=NOW), r"^mesh\.yaml:1:1: "),
        (gone, "there is no pod `shop/webapp-0`"),
        (lambda: new_mesh().snapshot(new_mesh().find("legacy"), {}), "`default/legacy` has no sidecar"),
        (lambda: new_mesh().snapshot(new_mesh().find("webapp"), {81: "127.0.0.1:1"}), "`shop/webapp-0` has no port 81"),
        (lambda: new_mesh().snapshot(new_mesh().find("webapp"), {8080: "127.0.0.1:0"}), "nothing listens on"),
        (lambda: new_mesh().snapshot(new_mesh().find("webapp"), {8080: "here"}), "`here` is no address"),
    ],
)
def test_what_no_mesh_has_is_refused_in_words(make: Callable[[], object], words: str) -> None:
    with pytest.raises(mw.MeshwardError, match=words):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: mw.Mesh(),  # type: ignore[call-arg]
        lambda: mw.Mesh(b"kind: X", now=NOW),  # type: ignore[arg-type]
        lambda: new_mesh().snapshot(new_mesh().find("webapp"), [(8080, "127.0.0.1:1")]),  # type: ignore[arg-type]
        lambda: new_mesh().snapshot(new_mesh().find("webapp"), {"8080": "127.0.0.1:1"}),  # type: ignore[dict-item]
    ],
)
def test_what_has_the_wrong_type_is_a_type_error(make: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        make()


def test_a_mesh_prints_what_it_is() -> None:
    mesh = new_mesh()
    assert repr(mesh) == "<Mesh of 3 pods and 2 services, version 2>"
    assert repr(mesh.find("legacy")) == (
        'Pod(namespace="default", name="legacy", address=\'127.1.0.1\', service_account="default", '
        'identity="spiffe://cluster.local/ns/default/sa/default", sidecar=False, deployment=None, '
        'labels={"app": "legacy"}, ports=[PodPort(port=7000, protocol=\'http\', mode=None, name="")])'
    )
