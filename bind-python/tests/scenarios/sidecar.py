"""A proxy machine as a node of the network: its shell, without a decision of its own."""

from __future__ import annotations

from collections.abc import Callable

import meshward as mw

from .network import LOOPBACK, Cause, End, Entry, Network


class Sidecar:
    """`address` is from where it calls where the machine does not say otherwise."""

    def __init__(
        self, network: Network, seed: bytes, on_report: Callable[[mw.Report], None], address: str = LOOPBACK
    ) -> None:
        self.network = network
        self.address = address
        self.on_report = on_report
        self.proxy = mw.Proxy(seed, network.now())
        self._ends: dict[mw.LinkId, End] = {}
        self._links: dict[End, mw.LinkId] = {}
        #: Slots that are free, and the generation that each had last.
        self._free: list[int] = []
        self._generations: list[int] = []
        self._tick_at_ns: int | None = None

    def tell(
        self,
        event: mw.Accepted
        | mw.Connected
        | mw.Received
        | mw.Sent
        | mw.Eof
        | mw.Closed
        | mw.Svid
        | mw.Snapshot
        | mw.Drain
        | mw.Tick,
    ) -> None:
        """The loop of every shell: handle, do what is asked for, sleep until the deadline."""
        self.proxy.handle(event, self.network.now())
        while (action := self.proxy.poll_action()) is not None:
            match action:
                case mw.Connect(link, to, from_):
                    assert link not in self._ends, "an id never comes back"
                    leave_from = self.address if from_ is None else from_.rpartition(":")[0]
                    self._know(link, self.network.connect(self, to, leave_from))
                case mw.Read(link, at_most):
                    self._ends[link].read(at_most)
                case mw.Send(link, data, ack):
                    self._ends[link].send(data, ack)
                case mw.Finish(link):
                    self._ends[link].finish()
                case mw.Reset(link):
                    self._ends[link].reset()
                case mw.Report():
                    self.on_report(action)
                case mw.Note():
                    pass
        deadline = self.proxy.poll_timeout()
        # A tick that comes too early is legal, a late one is not.
        if deadline is not None and (self._tick_at_ns is None or deadline.at_ns < self._tick_at_ns):
            self._tick_at_ns = at_ns = max(deadline.at_ns, self.network.now_ns)
            self.network.schedule(at_ns, lambda: self._tick(at_ns), is_deadline=True)

    def _tick(self, at_ns: int) -> None:
        if self._tick_at_ns == at_ns:
            self._tick_at_ns = None
            self.tell(mw.Tick())

    def _know(self, link: mw.LinkId, end: End) -> None:
        self._ends[link] = end
        self._links[end] = link

    def accepted(self, end: End, entry: Entry, peer: str, original_dst: str) -> None:
        if not self._free:
            self._free.append(len(self._generations))
            self._generations.append(0)
        slot = min(self._free)
        self._free.remove(slot)
        self._generations[slot] += 1
        link = mw.LinkId.accepted(slot, self._generations[slot])
        self._know(link, end)
        self.tell(mw.Accepted(link, entry, peer, original_dst))

    def connected(self, end: End, local: str) -> None:
        self.tell(mw.Connected(self._links[end], local))

    def received(self, end: End, data: bytes) -> None:
        self.tell(mw.Received(self._links[end], data))

    def sent(self, end: End, count: int) -> None:
        self.tell(mw.Sent(self._links[end], count))

    def eof(self, end: End) -> None:
        self.tell(mw.Eof(self._links[end]))

    def closed(self, end: End, cause: Cause) -> None:
        link = self._links.pop(end)
        del self._ends[link]
        if link.is_accepted:
            self._free.append(link.slot)
        self.tell(mw.Closed(link, cause))
