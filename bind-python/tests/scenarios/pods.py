"""A whole mesh from the YAML that `meshward up` reads; the same rules as in `simulator/src/pods.rs`."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address

import meshward as mw

from .journal import Names
from .language import Identity, Open
from .members import Captured, Direct, Impossible, Member
from .network import BIRTH_MS

#: Pods lie in `127.1.0.1` to `.100`, the applications behind sidecars 100 further.
NET = "127.1.0."
TO_APP = 100

#: In force until a mesh brings its own: a run without a log shows nothing of what it decided.
CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: istio
  namespace: istio-system
data:
  mesh: |
    accessLogFile: /dev/stdout
"""


@dataclass
class _Place:
    """One pod, as long as the mesh lives."""

    pod: mw.Pod
    #: By every port that it ever had: where its application listens. Without a sidecar that is the pod's own address.
    apps: dict[int, str] = field(default_factory=dict)


class Pods:
    def __init__(self, yaml: str) -> None:
        self.mesh = mw.Mesh(CONFIG, now=mw.Now(0, BIRTH_MS), strict=True)
        #: In the order in which they came.
        self._places: dict[str, _Place] = {}
        self.apply(yaml)

    @property
    def version(self) -> int:
        return self.mesh.version

    def apply(self, yaml: str) -> None:
        """Takes objects in, all or none. Each change is a second younger than the one before, since the age of policies
        counts (S-7, S-21)."""
        now = mw.Now(0, BIRTH_MS + self.version * 1_000)
        try:
            self.mesh.apply([("mesh", yaml)], now=now)
        except mw.MeshwardError as error:
            raise Impossible(str(error)) from None
        self._look()

    def delete(self, yaml: str) -> None:
        try:
            self.mesh.delete([("mesh", yaml)])
        except mw.MeshwardError as error:
            raise Impossible(str(error)) from None
        self._look()

    def _look(self) -> None:
        """Pods may come, and may change in what does not make them others; none may go."""
        pods = self.mesh.pods
        for place in self._places.values():
            name = place.pod.name
            now = [pod for pod in pods if (pod.namespace, pod.name) == (place.pod.namespace, name)]
            if not now:
                raise Impossible(f"pod `{name}` is gone")
            if (now[0].sidecar, now[0].address) != (place.pod.sidecar, place.pod.address):
                raise Impossible(f"pod `{name}` becomes another")
        for pod in pods:
            place = self._places.setdefault(pod.name, _Place(pod))
            if place.pod.namespace != pod.namespace:
                raise Impossible(f"two pods are called `{pod.name}`")
            last = int(pod.address.rpartition(".")[2])
            if not pod.address.startswith(NET) or last > TO_APP:
                raise Impossible(f"{pod.address} lies outside of the mesh's net")
            place.pod = pod
            app = f"{NET}{last + TO_APP}" if pod.sidecar else pod.address
            place.apps |= {port.port: f"{app}:{port.port}" for port in pod.ports}

    def members(self) -> list[Member]:
        return [
            Member(
                place.pod.name,
                place.pod.address,
                sidecar=place.pod.sidecar,
                inbound=[f"{place.pod.address}:{port}" for port in place.apps if place.pod.sidecar],
                outbound=[],
                apps=dict(place.apps),
            )
            for place in self._places.values()
        ]

    def way(self, command: Open) -> Direct | Captured:
        name = command.via or command.from_
        caller = self._find(name) if name is not None else None
        namespace = caller.pod.namespace if caller is not None else "default"
        ip = self._resolve(command.host, namespace)
        if ip is None:
            raise Impossible(f"`{command.host}` is unknown in namespace `{namespace}`")
        to = f"{ip}:{command.port}"
        if command.via is not None:
            return Captured(list(self._places).index(command.via), to)
        through = self._translate(ip, command.port)
        if through is None:
            raise Impossible(f"nobody is behind {command.host}:{command.port}")
        return Direct(through, caller.pod.address if caller is not None else None)

    def _find(self, name: str) -> _Place:
        if name not in self._places:
            raise Impossible(f"nobody is called `{name}`")
        return self._places[name]

    def _resolve(self, host: str, namespace: str) -> str | None:
        """Cluster DNS is asked first, the first answer counts; what it does not know is the name of a pod, or an address."""
        addresses = self.mesh.resolve(host, namespace)
        if addresses is not None:
            return addresses[0] if addresses else None
        if host in self._places:
            return self._places[host].pod.address
        try:
            return str(ip_address(host))
        except ValueError:
            return None

    def _translate(self, ip: str, port: int) -> str | None:
        """Where a connection comes out that no sidecar takes: at the first endpoint behind a service's address, as
        kube-proxy would have it. `None`: nobody is there."""
        for service in self.mesh.services:
            if service.address == ip:
                endpoints = [endpoint for own in service.ports if own.port == port for endpoint in own.endpoints]
                return endpoints[0] if endpoints else None
        return f"{ip}:{port}"

    def name(self, names: Names) -> None:
        """Pods by their names, with the ports that they declare; services by `service-NAME.NAMESPACE`."""
        for name, place in self._places.items():
            names.hosts[place.pod.address] = name
            for port, app in place.apps.items():
                if place.pod.sidecar:
                    names.sockets[app] = f"app:{port}"
                names.sockets[f"{place.pod.address}:{port}"] = f"{name}:{port}"
        for service in self.mesh.services:
            if service.address is not None:
                name = f"service-{service.name}.{service.namespace}"
                names.hosts[service.address] = name
                for own in service.ports:
                    names.sockets[f"{service.address}:{own.port}"] = f"{name}:{own.port}"

    def snapshot(self, index: int) -> mw.Snapshot:
        place = list(self._places.values())[index]
        ports = {port.port for port in place.pod.ports}
        return self.mesh.snapshot(place.pod, {port: app for port, app in place.apps.items() if port in ports})

    def identity(self, index: int) -> Identity:
        pod = list(self._places.values())[index].pod
        return Identity(self.mesh.trust_domain, pod.namespace, pod.service_account, "mesh")
