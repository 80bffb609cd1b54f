"""The driver: one `Proxy` per sidecar, clients, applications and the network between them, in virtual time."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

import meshward as mw

from .journal import Names, News, Seen, record_line
from .language import Advance, Apply, Close, Command, Drain, Finish, Open, Reset, Send, Silence, Workload
from .layout import Layout
from .network import Network, Weather
from .peer import Conn, Peer
from .runner import Impossible
from .sidecar import Sidecar

#: Longer than every timeout of a proxy.
LONG_NS = 4 * 3600 * 1_000_000_000
WORKLOADS_MAX = 20


class World:
    """One scenario. Equal seeds cut and delay bytes equally; keys are new each time."""

    def __init__(self, folder: Path, seed: int, weather: Weather) -> None:
        self.layout = Layout(folder)
        self._seed = seed
        self._network = Network(weather, Random(seed))
        self._names = Names()
        #: `None` until something happens: workloads come before that.
        self._sidecars: list[Sidecar] | None = None
        self._apps: list[Peer] = []
        self._client = Peer(self._network)
        self._clients: dict[str, Conn] = {}
        self._records: list[str] = []
        #: How many bytes of a connection were told, and whether its ending was.
        self._told: dict[Conn, tuple[int, bool]] = {}

    def obey(self, command: Command) -> None:
        match command:
            case Workload():
                if self._sidecars is not None:
                    raise Impossible("workloads come before what happens")
                if len(self.layout.workloads) == WORKLOADS_MAX:
                    raise Impossible(f"a scenario has {WORKLOADS_MAX} workloads at most")
                self.layout.workloads.append(command)
            case Apply(yaml):
                self.layout.apply(yaml)
                for index, sidecar in enumerate(self._sidecars or []):
                    sidecar.tell(self.layout.snapshot(index))
            case Open(name, workload, port, via, tls):
                self._begin()
                called = self.layout.index(workload)
                to = self.layout.inbound(called, port)
                if via is not None:
                    to = self.layout.service(self.layout.index(via), called, port)
                client = self.layout.client(tls) if tls is not None else None
                self._clients[name] = self._client.open(to, client)
            case Send(conn, data):
                self._find(conn).send(data)
            case Finish(conn):
                self._find(conn).finish()
            case Reset(conn):
                self._find(conn).reset()
            case Close(workload, port):
                self._begin()
                del self._network.listeners[self.layout.app(self.layout.index(workload), port)]
            case Silence(workload, port):
                self._begin()
                self._network.silent.add(self.layout.app(self.layout.index(workload), port))
            case Drain(workload, grace_s):
                self._begin()[self.layout.index(workload)].tell(mw.Drain(grace_s))
            case Advance(span_ns):
                self._begin()
                self._network.advance(span_ns)

    def observe(self) -> list[str]:
        self._begin()
        self._network.settle()
        return self._news().lines()

    def end(self) -> list[str]:
        sidecars = self._begin()
        late = self._news().lines()
        for peer in [self._client, *self._apps]:
            for conn in peer.conns:
                conn.reset()
        if not self._network.exhaust(LONG_NS):
            late.append("something is still to happen after hours")
        for index, sidecar in enumerate(sidecars):
            late += [f"p{index} still has {pending}" for pending in sidecar.proxy.pending()]
        return late

    def _begin(self) -> list[Sidecar]:
        if self._sidecars is not None:
            return self._sidecars
        self._names = self.layout.names()
        self._sidecars = []
        for index, workload in enumerate(self.layout.workloads):
            seed = hashlib.sha256(f"{self._seed} {index}".encode()).digest()
            sidecar = Sidecar(self._network, seed, lambda report, name=workload.name: self._record(name, report))  # type: ignore[misc]
            sidecar.tell(self.layout.svid(index))
            sidecar.tell(self.layout.snapshot(index))
            app = Peer(self._network)
            self._sidecars.append(sidecar)
            self._apps.append(app)
            for port in workload.ports:
                self._network.listeners[self.layout.inbound(index, port)] = (sidecar, "inbound")
                self._network.listeners[self.layout.app(index, port)] = (app, "inbound")
        for caller, sidecar in enumerate(self._sidecars):
            for index, workload in enumerate(self.layout.workloads):
                for port in workload.ports:
                    service = self.layout.service(caller, index, port)
                    self._network.listeners[service] = (sidecar, "outbound")
        return self._sidecars

    def _record(self, workload: str, report: mw.Report) -> None:
        self._records.append(record_line(workload, report, self._names))

    def _find(self, name: str) -> Conn:
        self._begin()
        if name in self._clients:
            return self._clients[name]
        workload, _, nth = name.rpartition(".")
        conns = self._apps[self.layout.index(workload)].conns
        if not 1 <= int(nth) <= len(conns):
            raise Impossible(f"`{name}` was not opened")
        return conns[int(nth) - 1]

    def _news(self) -> News:
        news = News(records=self._records)
        self._records = []
        places = dict(self._clients)
        for workload, app in zip(self.layout.workloads, self._apps, strict=True):
            places |= {f"{workload.name}.{nth}": conn for nth, conn in enumerate(app.conns, start=1)}
        for name, conn in places.items():
            is_new = conn not in self._told
            bytes_told, ending_told = self._told.get(conn, (0, False))
            seen = Seen(
                opened=is_new and name not in self._clients,
                data=bytes(conn.received[bytes_told:]),
                ending=None if ending_told else conn.ending,
            )
            self._told[conn] = (len(conn.received), conn.ending is not None)
            if seen != Seen():
                news.conns[name] = seen
        return news
