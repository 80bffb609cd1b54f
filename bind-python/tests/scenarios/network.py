"""Byte streams as a kernel shows them, in virtual time: latency, segments cut anywhere, finite buffers at both ends,
half-close, resets, connects that fail.

Whatever is to happen lies in one heap, ordered by instant and sequence; time jumps from one event to the next. A `Node` uses
its end of a stream by the words of the machines (read when granted, send, finish, reset) and hears theirs.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from typing import Literal, Protocol, TypeAlias

import meshward as mw

#: Wall time when every world is born: 2026-01-01T00:00:00Z.
BIRTH_MS = 1_767_225_600_000
#: From where everybody calls who does not say otherwise: what a kernel chooses for loopback.
LOOPBACK = "127.0.0.1"
#: How long a connect that nobody answers is tried (Linux: `tcp_syn_retries` 6).
SYN_TIMEOUT_NS = 127_000_000_000

Entry: TypeAlias = Literal["inbound", "outbound"]
Cause: TypeAlias = Literal["finished", "local", "refused", "reset", "unreachable", "timed_out"]


@dataclass(frozen=True)
class Weather:
    """How streams are cut and delayed; nothing is lost. Ranges are inclusive and drawn from for each segment and read."""

    latency_ns: tuple[int, int] = (100_000, 100_000)
    segment: tuple[int, int] = (65_536, 65_536)
    #: Bytes that the kernel takes from a sender ahead of the reader.
    send_buffer: int = 256 * 1024
    #: Bytes that the kernel holds for a reader that does not read.
    receive_buffer: int = 128 * 1024
    #: Bytes of a read, where there are so many and the reader wants them.
    read: tuple[int, int] = (65_536, 65_536)


class Node(Protocol):
    """Who owns ends of streams."""

    def accepted(self, end: End, entry: Entry, peer: str, original_dst: str) -> None: ...
    def connected(self, end: End, local: str) -> None: ...
    def received(self, end: End, data: bytes) -> None: ...
    def sent(self, end: End, count: int) -> None: ...
    def eof(self, end: End) -> None: ...
    def closed(self, end: End, cause: Cause) -> None: ...


class Stage(Enum):
    CONNECTING = auto()
    OPEN = auto()
    #: A reset arrived while bytes were unread: they may be read, then the end closes.
    RESET_BEHIND = auto()
    #: Only `closed` is still to come.
    DYING = auto()
    CLOSED = auto()


class End:
    """One end of one stream."""

    def __init__(self, network: Network, owner: Node | None, local: str) -> None:
        self.network = network
        #: `None`: of an end that nobody accepts.
        self.owner = owner
        self.local = local
        self.other: End = self
        self.stage = Stage.CONNECTING
        #: What the owner sent and the kernel has not taken; what it took and has not put on the wire.
        self.queue, self.kernel = bytearray(), bytearray()
        self.in_flight = 0
        #: Offsets at which the owner wants to hear `sent`.
        self.marks: list[int] = []
        self.offered = self.taken = self.acknowledged = 0
        self.finishing = self.fin_on_wire = False
        self.last_arrival_ns = 0
        self.arrived = bytearray()
        self.fin_arrived = self.eof_heard = False
        self.granted: int | None = None

    def is_alive(self) -> bool:
        return self.stage in (Stage.CONNECTING, Stage.OPEN, Stage.RESET_BEHIND)

    def read(self, at_most: int) -> None:
        """Grants one `received` or one `eof`."""
        assert self.granted is None, "a grant is spent before the next one"
        if self.is_alive():
            self.granted = at_most
            self.network.at_once(self._deliver)

    def send(self, data: bytes, ack: bool = False) -> None:
        if not self.is_alive():
            return
        if self.stage is Stage.RESET_BEHIND:
            self._die("reset")
            return
        self.queue += data
        self.offered += len(data)
        if ack:
            self.marks.append(self.offered)
        self._pump()

    def finish(self) -> None:
        if self.is_alive():
            self.finishing = True
            self._pump()

    def reset(self) -> None:
        if self.is_alive():
            self._forget_output()
            other = self.other
            if other.owner is not None:
                self._put_on_wire(other._reset_arrives)
            self._die("local")

    def establish(self) -> None:
        """The opener hears that it was accepted."""
        if self.stage is not Stage.CONNECTING or self.owner is None:
            return
        self.stage = Stage.OPEN
        self.network.at_once(self._deliver)
        self._pump()
        self.owner.connected(self, self.local)

    def accept(self, entry: Entry) -> None:
        assert self.owner is not None, "somebody listened"
        self.stage = Stage.OPEN
        self.owner.accepted(self, entry, self.other.local, self.local)

    def close(self, cause: Cause) -> None:
        if self.stage is Stage.CLOSED:
            return
        if cause != "finished":
            self._forget_output()
        self.stage = Stage.CLOSED
        if self.owner is not None:
            self.owner.closed(self, cause)

    def _put_on_wire(self, arrives: Callable[[], None]) -> None:
        """Order within one direction is kept, as TCP does."""
        at_ns = self.network.now_ns + self.network.latency_ns()
        self.last_arrival_ns = max(self.last_arrival_ns, at_ns)
        self.network.schedule(self.last_arrival_ns, arrives)

    def _forget_output(self) -> None:
        self.queue.clear()
        self.kernel.clear()
        self.marks.clear()
        self.in_flight = 0
        self.fin_on_wire = True

    def _die(self, cause: Cause) -> None:
        self.stage = Stage.DYING
        self._forget_output()
        self.arrived.clear()
        self.granted = None
        self.network.at_once(lambda: self.close(cause))

    def _pump(self) -> None:
        """Moves bytes towards the wire, as far as buffers and the reader's window let them."""
        if self.stage in (Stage.CONNECTING, Stage.RESET_BEHIND):
            return
        weather, chance = self.network.weather, self.network.chance
        while True:
            room = max(0, weather.send_buffer - len(self.kernel) - self.in_flight)
            self.taken += min(room, len(self.queue))
            self.kernel += self.queue[:room]
            del self.queue[:room]
            window = max(0, weather.receive_buffer - len(self.other.arrived) - self.in_flight)
            cut = min(len(self.kernel), window, chance.randint(*weather.segment))
            if cut == 0:
                break
            segment = bytes(self.kernel[:cut])
            del self.kernel[:cut]
            self.in_flight += cut
            self._put_on_wire(lambda segment=segment: self.other._segment_arrives(segment))  # type: ignore[misc]
        if self.marks and self.marks[0] <= self.taken:
            self.network.at_once(self._acknowledge)
        if self.finishing and not self.queue and not self.kernel and not self.fin_on_wire:
            self.fin_on_wire = True
            self._put_on_wire(self.other._fin_arrives)
        self._close_if_finished()

    def _acknowledge(self) -> None:
        if not self.is_alive():
            return
        self.marks = [mark for mark in self.marks if mark > self.taken]
        news = self.taken - self.acknowledged
        self.acknowledged = self.taken
        if news > 0 and self.owner is not None:
            self.owner.sent(self, news)

    def _segment_arrives(self, segment: bytes) -> None:
        if self.stage is Stage.OPEN:
            self.arrived += segment
            self.network.at_once(self._deliver)
        self.other.in_flight = max(0, self.other.in_flight - len(segment))
        self.other._pump()

    def _fin_arrives(self) -> None:
        self.fin_arrived = True
        self.network.at_once(self._deliver)

    def _reset_arrives(self) -> None:
        self._forget_output()
        if self.is_alive():
            if self.arrived:
                self.stage = Stage.RESET_BEHIND
                self.network.at_once(self._deliver)
            else:
                self._die("reset")

    def _deliver(self) -> None:
        """Spends the grant, if there is one and something to spend it on."""
        if self.stage not in (Stage.OPEN, Stage.RESET_BEHIND) or self.granted is None or self.owner is None:
            return
        if self.arrived:
            count = min(len(self.arrived), self.granted, self.network.chance.randint(*self.network.weather.read))
            data = bytes(self.arrived[:count])
            del self.arrived[:count]
            self.granted = None
            self.other._pump()
            self.owner.received(self, data)
        elif self.stage is Stage.RESET_BEHIND:
            self._die("reset")
        elif self.fin_arrived and not self.eof_heard:
            self.granted = None
            self.eof_heard = True
            self._close_if_finished()
            self.owner.eof(self)

    def _close_if_finished(self) -> None:
        """A shell lets go of a stream when it has read the peer's end and handed all of its own bytes to the kernel."""
        if self.stage is Stage.OPEN and self.finishing and not self.queue and self.eof_heard:
            self.stage = Stage.DYING
            self.network.at_once(lambda: self.close("finished"))


class Network:
    """All streams, who listens where, and the time."""

    def __init__(self, weather: Weather, chance: Random) -> None:
        self.weather = weather
        self.chance = chance
        self.now_ns = 0
        self.listeners: dict[str, tuple[Node, Entry]] = {}
        self.silent: set[str] = set()
        self._heap: list[tuple[int, int, bool, Callable[[], None]]] = []
        self._sequence = 0
        #: How many entries of the heap are no deadlines.
        self._traffic = 0
        self._next_port = 32_768

    def now(self) -> mw.Now:
        return mw.Now(at_ns=self.now_ns, unix_ms=BIRTH_MS + self.now_ns // 1_000_000)

    def latency_ns(self) -> int:
        return self.chance.randint(*self.weather.latency_ns)

    def schedule(self, at_ns: int, happens: Callable[[], None], *, is_deadline: bool = False) -> None:
        self._sequence += 1
        self._traffic += not is_deadline
        heapq.heappush(self._heap, (at_ns, self._sequence, is_deadline, happens))

    def at_once(self, happens: Callable[[], None]) -> None:
        self.schedule(self.now_ns, happens)

    def connect(self, opener: Node, to: str, leave_from: str, taken_by: Node | None = None) -> End:
        """Opens a stream from the address `leave_from`; a port is drawn. `taken_by`: who accepts whatever its application
        sends, wherever it is meant to go."""
        end = End(self, opener, f"{leave_from}:{self._next_port}")
        self._next_port = self._next_port + 1 if self._next_port < 65_535 else 32_768
        is_silent = taken_by is None and to in self.silent
        listener, entry = (None, None) if is_silent else self.listeners.get(to, (None, None))
        if taken_by is not None:
            listener, entry = taken_by, "outbound"
        other = End(self, listener, to)
        end.other, other.other = other, end
        there_ns = self.now_ns + self.latency_ns()
        back_ns = there_ns + self.latency_ns()
        end.last_arrival_ns, other.last_arrival_ns = there_ns, back_ns
        if is_silent:
            # The system's own patience is as far away as a deadline.
            timeout_ns = self.now_ns + SYN_TIMEOUT_NS
            self.schedule(timeout_ns, lambda: end.close("timed_out"), is_deadline=True)
        elif entry is None:
            self.schedule(back_ns, lambda: end.close("refused"))
        else:
            self.schedule(there_ns, lambda: other.accept(entry))
            self.schedule(back_ns, end.establish)
        return end

    def settle(self) -> None:
        """Lets everything happen that is under way; ends when only deadlines are left, and keeps those that come before."""
        while self._traffic > 0:
            self._step()

    def advance(self, span_ns: int) -> None:
        """Lets everything happen up to and including the instant `span_ns` from now, which then is now."""
        until_ns = self.now_ns + span_ns
        self._run_until(until_ns)
        self.now_ns = until_ns

    def exhaust(self, span_ns: int) -> bool:
        """Lets everything happen, deadlines included, for `span_ns` at most; whether nothing is left."""
        self._run_until(self.now_ns + span_ns)
        return not self._heap

    def _run_until(self, until_ns: int) -> None:
        while self._heap and self._heap[0][0] <= until_ns:
            self._step()

    def _step(self) -> None:
        at_ns, _, is_deadline, happens = heapq.heappop(self._heap)
        assert at_ns >= self.now_ns, "the heap is ordered by time"
        self.now_ns = at_ns
        self._traffic -= not is_deadline
        happens()
