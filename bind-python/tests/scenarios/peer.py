"""Clients and applications: connections that are opened, written to and ended from outside, and what came back.

Everything that arrives is read at once.
"""

from __future__ import annotations

from .network import LOOPBACK, Cause, End, Entry, Network, Node
from .tls import TlsClient

#: Bytes of one read.
READ = 32 * 1024

_ENDINGS: dict[Cause, str] = {
    "refused": "refused",
    "reset": "reset",
    "unreachable": "unreachable",
    "timed_out": "timed-out",
}


class Conn:
    """One connection, as its application sees it."""

    def __init__(self, end: End, tls: TlsClient | None = None, *, connected: bool) -> None:
        self.received = bytearray()
        #: The first thing that ended it, spelled as in the files.
        self.ending: str | None = None
        self._end = end
        self._tls = tls
        self._connected = connected
        #: Our direction is finished, or the connection is reset or closed.
        self._finished = False
        self._closed = False
        #: `finish` was asked for while the handshake was under way.
        self._finishing = False

    def send(self, data: bytes) -> None:
        if self._finished:
            return
        if self._tls is None:
            self._end.send(data)
        else:
            self._tls.send(data)
            self._flush()

    def finish(self) -> None:
        """Finishes our direction after what was sent, with close_notify first where there is TLS. That waits for the
        handshake, since nothing can be sent before."""
        if self._finished:
            return
        if self._tls is not None:
            if self._tls.is_handshaking and self.ending is None:
                self._finishing = True
                return
            self._tls.finish()
            self._flush()
        self._finished = True
        self._end.finish()

    def reset(self) -> None:
        if not self._closed:
            self._finished = self._closed = True
            self._end.reset()

    def hear_connected(self) -> None:
        self._connected = True
        self._go_on()

    def hear(self, data: bytes) -> None:
        if self._tls is None:
            self.received += data
        else:
            self.received += self._tls.receive(data)
            self.ending = self.ending or self._tls.ending
        self._go_on()

    def hear_eof(self) -> None:
        self.ending = self.ending or "fin"
        self._flush()

    def hear_closed(self, cause: Cause) -> None:
        self._finished = self._closed = True
        self.ending = self.ending or _ENDINGS.get(cause)

    def _go_on(self) -> None:
        self._flush()
        if self._finishing:
            self.finish()
        self._end.read(READ)

    def _flush(self) -> None:
        if self._tls is not None and self._connected:
            wire = self._tls.take_wire()
            if wire and not self._finished:
                self._end.send(wire)


class Peer:
    """All connections of one client or application, in the order in which they began."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.conns: list[Conn] = []
        self._by_end: dict[End, Conn] = {}

    def open(
        self, to: str, tls: TlsClient | None, leave_from: str = LOOPBACK, taken_by: Node | None = None
    ) -> Conn:
        end = self.network.connect(self, to, leave_from, taken_by)
        return self._begin(end, Conn(end, tls, connected=False))

    def _begin(self, end: End, conn: Conn) -> Conn:
        self.conns.append(conn)
        self._by_end[end] = conn
        return conn

    def accepted(self, end: End, entry: Entry, peer: str, original_dst: str) -> None:
        self._begin(end, Conn(end, connected=True)).hear_connected()

    def connected(self, end: End, local: str) -> None:
        self._by_end[end].hear_connected()

    def received(self, end: End, data: bytes) -> None:
        self._by_end[end].hear(data)

    def sent(self, end: End, count: int) -> None:
        raise AssertionError("nobody asked for it")

    def eof(self, end: End) -> None:
        self._by_end[end].hear_eof()

    def closed(self, end: End, cause: Cause) -> None:
        self._by_end[end].hear_closed(cause)
