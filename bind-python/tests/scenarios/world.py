"""The driver: one `Proxy` per sidecar, clients, applications and the network between them, in virtual time."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

import meshward as mw

from .journal import News, Seen, record_line
from .language import (
    Advance,
    Apply,
    Close,
    Command,
    Delete,
    Drain,
    Finish,
    Hold,
    Mesh,
    Open,
    Release,
    Reset,
    Send,
    Silence,
    Workload,
)
from .layout import Layout
from .members import Captured, Impossible
from .network import LOOPBACK, Entry, Network, Node, Weather
from .peer import Conn, Peer
from .sidecar import Sidecar

#: Longer than every timeout of a proxy.
LONG_NS = 4 * 3600 * 1_000_000_000


class World:
    """One scenario. Equal seeds cut and delay bytes equally; keys are new each time."""

    def __init__(self, folder: Path, seed: int, weather: Weather) -> None:
        self.layout = Layout(folder)
        self._seed = seed
        self._network = Network(weather, Random(seed))
        self._has_begun = False
        #: By member of the layout; `None`: it has no sidecar.
        self._sidecars: list[Sidecar | None] = []
        self._apps: list[Peer] = []
        self._client = Peer(self._network)
        self._clients: dict[str, Conn] = {}
        self._records: list[str] = []
        #: How many bytes of a connection were told, and whether its ending was.
        self._told: dict[Conn, tuple[int, bool]] = {}
        #: Every address at which somebody listened.
        self._opened: set[str] = set()

    def obey(self, command: Command) -> None:
        match command:
            case Workload():
                if self._has_begun:
                    raise Impossible("workloads come before what happens")
                self.layout.add(command)
            case Mesh(yaml):
                if self._has_begun:
                    raise Impossible("a mesh comes before what happens")
                self.layout.mesh(yaml)
            case Apply(yaml):
                self.layout.apply(yaml)
                self._change()
            case Delete(yaml):
                self.layout.delete(yaml)
                self._change()
            case Hold(name):
                self.layout.hold(name)
            case Release(name):
                self._begin()
                for index, snapshot in self.layout.release(name):
                    self._sidecar(index).tell(snapshot)
            case Open():
                self._begin()
                self._open(command)
            case Send(conn, data):
                self._find(conn).send(data)
            case Finish(conn):
                self._find(conn).finish()
            case Reset(conn):
                self._find(conn).reset()
            case Close(workload, port):
                self._begin()
                self._network.listeners.pop(self.layout.app(workload, port), None)
            case Silence(workload, port):
                self._begin()
                self._network.silent.add(self.layout.app(workload, port))
            case Drain(workload, grace_s):
                self._begin()
                self._sidecar(self.layout.proxy(workload)).tell(mw.Drain(grace_s))
            case Advance(span_ns):
                self._begin()
                self._network.advance(span_ns)

    def observe(self) -> list[str]:
        self._begin()
        self._network.settle()
        return self._news().lines()

    def end(self) -> list[str]:
        self._begin()
        late = self._news().lines()
        for peer in [self._client, *self._apps]:
            for conn in peer.conns:
                conn.reset()
        if not self._network.exhaust(LONG_NS):
            late.append("something is still to happen after hours")
        for member, sidecar in zip(self.layout.members, self._sidecars, strict=True):
            if sidecar is not None:
                late += [f"{member.name} still has {pending}" for pending in sidecar.proxy.pending()]
        return late

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._meet()

    def _meet(self) -> None:
        """Lets in those of the layout who are not there yet, and opens whatever doors are new."""
        for index, member in enumerate(self.layout.members):
            if index == len(self._sidecars):
                self._sidecars.append(self._new_sidecar(index) if member.sidecar else None)
                self._apps.append(Peer(self._network))
            sidecar = self._sidecars[index]
            if sidecar is not None:
                self._listen(member.inbound, sidecar, "inbound")
                self._listen(member.outbound, sidecar, "outbound")
            self._listen(list(member.apps.values()), self._apps[index], "inbound")

    def _listen(self, addresses: list[str], node: Node, entry: Entry) -> None:
        for address in addresses:
            if address not in self._opened:
                self._opened.add(address)
                self._network.listeners[address] = (node, entry)

    def _new_sidecar(self, index: int) -> Sidecar:
        member = self.layout.members[index]
        seed = hashlib.sha256(f"{self._seed} {index}".encode()).digest()
        sidecar = Sidecar(
            self._network, seed, lambda report: self._record(member.name, report), member.address
        )
        sidecar.tell(self.layout.svid(index))
        sidecar.tell(self.layout.snapshot(index))
        return sidecar

    def _change(self) -> None:
        """Gives everybody who was there what has changed for them, and lets the others in."""
        if not self._has_begun:
            return
        for index, snapshot in self.layout.publish(len(self._sidecars)):
            self._sidecar(index).tell(snapshot)
        self._meet()

    def _sidecar(self, index: int) -> Sidecar:
        sidecar = self._sidecars[index]
        assert sidecar is not None, "the layout says who has one"
        return sidecar

    def _open(self, command: Open) -> None:
        tls = self.layout.client(command.tls) if command.tls is not None else None
        way = self.layout.way(command)
        if isinstance(way, Captured):
            member = self.layout.members[way.member]
            conn = self._client.open(way.to, tls, member.address, self._sidecar(way.member))
        else:
            conn = self._client.open(way.to, tls, way.from_ or LOOPBACK)
        self._clients[command.name] = conn

    def _record(self, workload: str, report: mw.Report) -> None:
        self._records.append(record_line(workload, report, self.layout.names))

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
        for member, app in zip(self.layout.members, self._apps, strict=True):
            places |= {f"{member.name}.{nth}": conn for nth, conn in enumerate(app.conns, start=1)}
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
