"""A mesh of `workload` lines: every sidecar has one address for the mesh, and one for each of its callers."""

from __future__ import annotations

import meshward as mw

from .journal import Names
from .language import Identity, Open, Workload
from .members import Captured, Direct, Impossible, Member
from .network import LOOPBACK

#: From where sidecars call their application (S-330).
FROM_SIDECAR = "127.0.0.6"
WORKLOADS_MAX = 20


class Workloads:
    def __init__(self) -> None:
        self._workloads: list[Workload] = []
        self._policies = mw.Policies()
        self.version = 1

    def __bool__(self) -> bool:
        return bool(self._workloads)

    def add(self, workload: Workload) -> None:
        if len(self._workloads) == WORKLOADS_MAX:
            raise Impossible(f"a scenario has {WORKLOADS_MAX} workloads at most")
        self._workloads.append(workload)

    def apply(self, yaml: str) -> None:
        """Policies replace those of before; the next snapshots have a new version."""
        try:
            self._policies = mw.Policies(yaml, file="policies")
        except mw.MeshwardError as error:
            raise Impossible(str(error)) from None
        self.version += 1

    def delete(self, yaml: str) -> None:
        raise Impossible("objects are those of a mesh")

    def members(self) -> list[Member]:
        return [
            Member(
                workload.name,
                LOOPBACK,
                sidecar=True,
                inbound=[self._inbound(index, port) for port in workload.ports],
                outbound=[
                    self._service(index, called, port)
                    for called, them in enumerate(self._workloads)
                    for port in them.ports
                ],
                apps={port: self._app(index, port) for port in workload.ports},
            )
            for index, workload in enumerate(self._workloads)
        ]

    def way(self, command: Open) -> Direct | Captured:
        called = self._index(command.host)
        if command.via is None:
            return Direct(self._inbound(called, command.port))
        return Direct(self._service(self._index(command.via), called, command.port))

    def name(self, names: Names) -> None:
        for i, workload in enumerate(self._workloads):
            for port in workload.ports:
                names.sockets[self._inbound(i, port)] = f"{workload.name}:{port}"
                names.sockets[self._app(i, port)] = f"app:{port}"
                for caller in range(len(self._workloads)):
                    names.sockets[self._service(caller, i, port)] = f"service-{workload.name}:{port}"

    def snapshot(self, index: int) -> mw.Snapshot:
        me = self._workloads[index]
        return mw.Snapshot(
            self._policies,
            [
                mw.Inbound(port, self._app(index, port), protocol, from_=FROM_SIDECAR)
                for port, protocol in me.ports.items()
            ],
            [
                self._call(index, i, port)
                for i, them in enumerate(self._workloads)
                if i != index
                for port in them.ports
            ],
            version=self.version,
            namespace=me.identity.namespace,
            labels={"app": me.name},
            trust_domain=me.identity.trust_domain,
        )

    def identity(self, index: int) -> Identity:
        return self._workloads[index].identity

    def _index(self, name: str) -> int:
        return [workload.name for workload in self._workloads].index(name)

    def _inbound(self, workload: int, port: int) -> str:
        """Where the sidecar of a workload listens for the mesh."""
        return f"127.1.0.{1 + workload}:{port}"

    def _app(self, workload: int, port: int) -> str:
        """Where its application listens."""
        return f"127.1.0.{101 + workload}:{port}"

    def _service(self, caller: int, workload: int, port: int) -> str:
        """Where the sidecar of `caller` listens for calls to `workload`."""
        nth = list(self._workloads[workload].ports).index(port)
        return f"127.1.0.{201 + workload}:{10_000 + caller * 100 + nth}"

    def _call(self, caller: int, workload: int, port: int) -> mw.Outbound:
        them = self._workloads[workload]
        host = f"{them.name}.{them.identity.namespace}.svc.cluster.local"
        mode = self._policies.mode(port, namespace=them.identity.namespace, labels={"app": them.name})
        return mw.Outbound(
            self._service(caller, workload, port),
            self._inbound(workload, port),
            f"outbound|{port}||{host}",
            "http" if them.ports[port] == "http" else "tcp",
            # Who takes no TLS is called in plain text (S-60).
            None if mode == "DISABLE" else f"outbound_.{port}_._.{host}",
            None if mode == "DISABLE" else [them.expected.uri()],
        )
