"""The mesh of a scenario: addresses, certificates, snapshots. Where things are is said by `tests/src/layout.rs`."""

from __future__ import annotations

import ssl
from pathlib import Path

import meshward as mw
from meshward.testing import Ca

from .journal import Names
from .language import Identity, Open, Tls, Workload
from .members import Captured, Direct, Impossible, Member
from .network import BIRTH_MS
from .pods import Pods
from .tls import TlsClient
from .workloads import Workloads

#: The one authority that everybody trusts.
MESH = "mesh"


class Layout:
    """Everything about a mesh but what runs in it. `folder` is where keys lie that OpenSSL reads."""

    def __init__(self, folder: Path) -> None:
        #: Those who were there before keep their places.
        self.members: list[Member] = []
        #: Whatever had a name keeps it: records come late.
        self.names = Names()
        self._folder = folder
        self._authorities = {MESH: Ca(unix_ms=BIRTH_MS)}
        self._plan: Workloads | Pods = Workloads()
        #: The version of the last snapshot of each member.
        self._versions: dict[int, int] = {}
        #: Snapshots that wait for their release.
        self._held: dict[int, list[mw.Snapshot]] = {}

    def add(self, workload: Workload) -> None:
        if not isinstance(self._plan, Workloads):
            raise Impossible("a mesh has pods, not workloads")
        self._plan.add(workload)
        self._look()

    def mesh(self, yaml: str) -> None:
        """From here on the file is one about pods."""
        if isinstance(self._plan, Pods) or self._plan:
            raise Impossible("a file describes one mesh")
        self._plan = Pods(yaml)
        self._look()

    def apply(self, yaml: str) -> None:
        """Of workloads: policies, instead of those of before. Of a mesh: any object, as kubectl takes it."""
        self._plan.apply(yaml)
        self._look()

    def delete(self, yaml: str) -> None:
        self._plan.delete(yaml)
        self._look()

    def _look(self) -> None:
        self.members = self._plan.members()
        self._plan.name(self.names)

    def index(self, name: str) -> int:
        for index, member in enumerate(self.members):
            if member.name == name:
                return index
        raise Impossible(f"nobody is called `{name}`")

    def proxy(self, name: str) -> int:
        """A member with a sidecar."""
        index = self.index(name)
        if not self.members[index].sidecar:
            raise Impossible(f"`{name}` has no sidecar")
        return index

    def app(self, name: str, port: int) -> str:
        """Where the application of a member listens."""
        apps = self.members[self.index(name)].apps
        if port not in apps:
            raise Impossible(f"`{name}` has no port {port}")
        return apps[port]

    def way(self, command: Open) -> Direct | Captured:
        if command.via is not None:
            self.proxy(command.via)
        return self._plan.way(command)

    def snapshot(self, index: int) -> mw.Snapshot:
        """What the sidecar of a member decides by from its start."""
        self._versions[index] = self._plan.version
        return self._plan.snapshot(index)

    def publish(self, known: int) -> list[tuple[int, mw.Snapshot]]:
        """What the sidecars of the first `known` members have to hear after a change. What is held waits."""
        out: list[tuple[int, mw.Snapshot]] = []
        for index, member in enumerate(self.members[:known]):
            if not member.sidecar or self._versions[index] == self._plan.version:
                continue
            snapshot = self.snapshot(index)
            if index in self._held:
                self._held[index].append(snapshot)
            else:
                out.append((index, snapshot))
        return out

    def hold(self, name: str) -> None:
        """Snapshots for this sidecar wait from now on."""
        self._held.setdefault(self.proxy(name), [])

    def release(self, name: str) -> list[tuple[int, mw.Snapshot]]:
        """All that waited, oldest first."""
        index = self.proxy(name)
        if index not in self._held:
            raise Impossible(f"nothing is held from `{name}`")
        return [(index, snapshot) for snapshot in self._held.pop(index)]

    def svid(self, index: int) -> mw.Svid:
        """Who the sidecar of a member is; it believes the roots of the mesh."""
        certificate = self._certificate(self._plan.identity(index))
        return mw.Svid(certificate.chain_pem, certificate.key_pem, self._authorities[MESH].bundle_pem)

    def _certificate(self, identity: Identity) -> mw.Svid:
        ca = self._authorities.setdefault(identity.ca, Ca(unix_ms=BIRTH_MS))
        return ca.issue(identity.uri(), foreign=True, unix_ms=BIRTH_MS)

    def client(self, tls: Tls) -> TlsClient:
        """What a client without a sidecar offers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if tls.tls12_only:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        if tls.alpn:
            context.set_alpn_protocols(tls.alpn)
        if tls.identity is not None:
            certificate = self._certificate(tls.identity)
            chain, key = self._folder / "chain.pem", self._folder / "key.pem"
            chain.write_text(certificate.chain_pem)
            key.write_text(certificate.key_pem)
            context.load_cert_chain(chain, key)
        return TlsClient(context, tls.sni)
