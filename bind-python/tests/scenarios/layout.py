"""The mesh of a scenario: addresses, certificates, snapshots. Where things are is said by `tests/src/layout.rs`."""

from __future__ import annotations

import ssl
from pathlib import Path

import meshward as mw
from meshward.testing import Ca

from .journal import Names
from .language import Identity, Tls, Workload
from .network import BIRTH_MS
from .runner import Impossible
from .tls import TlsClient

#: The one authority that everybody trusts.
MESH = "mesh"
#: From where sidecars call their application (S-330).
FROM_SIDECAR = "127.0.0.6"


class Layout:
    """Everything about a mesh but what runs in it. `folder` is where keys lie that OpenSSL reads."""

    def __init__(self, folder: Path) -> None:
        self.workloads: list[Workload] = []
        self._folder = folder
        self._authorities = {MESH: Ca(unix_ms=BIRTH_MS)}
        self._policies = mw.Policies()
        self._version = 1

    def index(self, name: str) -> int:
        return [workload.name for workload in self.workloads].index(name)

    def apply(self, yaml: str) -> None:
        """Policies replace those of before; the next snapshots have a new version."""
        try:
            self._policies = mw.Policies(yaml, file="policies")
        except mw.MeshwardError as error:
            raise Impossible(str(error)) from None
        self._version += 1

    def inbound(self, workload: int, port: int) -> str:
        """Where the sidecar of a workload listens for the mesh."""
        return f"127.1.0.{1 + workload}:{port}"

    def app(self, workload: int, port: int) -> str:
        """Where its application listens."""
        return f"127.1.0.{101 + workload}:{port}"

    def service(self, caller: int, workload: int, port: int) -> str:
        """Where the sidecar of `caller` listens for calls to `workload`."""
        nth = list(self.workloads[workload].ports).index(port)
        return f"127.1.0.{201 + workload}:{10_000 + caller * 100 + nth}"

    def names(self) -> Names:
        names = Names()
        for i, workload in enumerate(self.workloads):
            for port in workload.ports:
                names.sockets[self.inbound(i, port)] = f"{workload.name}:{port}"
                names.sockets[self.app(i, port)] = f"app:{port}"
                for caller in range(len(self.workloads)):
                    names.sockets[self.service(caller, i, port)] = f"service-{workload.name}:{port}"
        return names

    def snapshot(self, index: int) -> mw.Snapshot:
        """What the sidecar of a workload decides by now."""
        me = self.workloads[index]
        return mw.Snapshot(
            self._policies,
            [
                mw.Inbound(port, self.app(index, port), protocol, from_=FROM_SIDECAR)
                for port, protocol in me.ports.items()
            ],
            [
                self._call(index, i, port)
                for i, them in enumerate(self.workloads)
                if i != index
                for port in them.ports
            ],
            version=self._version,
            namespace=me.identity.namespace,
            labels={"app": me.name},
            trust_domain=me.identity.trust_domain,
        )

    def _call(self, caller: int, workload: int, port: int) -> mw.Outbound:
        them = self.workloads[workload]
        host = f"{them.name}.{them.identity.namespace}.svc.cluster.local"
        mode = self._policies.mode(port, namespace=them.identity.namespace, labels={"app": them.name})
        return mw.Outbound(
            self.service(caller, workload, port),
            self.inbound(workload, port),
            f"outbound|{port}||{host}",
            "http" if them.ports[port] == "http" else "tcp",
            # Who takes no TLS is called in plain text (S-60).
            None if mode == "DISABLE" else f"outbound_.{port}_._.{host}",
            None if mode == "DISABLE" else [them.expected.uri()],
        )

    def svid(self, index: int) -> mw.Svid:
        """Who the sidecar of a workload is; it believes the roots of the mesh."""
        certificate = self._certificate(self.workloads[index].identity)
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
