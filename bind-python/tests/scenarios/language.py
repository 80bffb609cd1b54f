"""The language of the scenario files; what it means stands in `tests/src/scenario.rs`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class Identity:
    """The parts of a SPIFFE ID, and who says so."""

    trust_domain: str
    namespace: str
    service_account: str
    ca: str

    def uri(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


Protocol: TypeAlias = Literal["http", "tcp", "auto"]


@dataclass(frozen=True)
class Workload:
    """A sidecar, and the application behind each of its ports."""

    name: str
    identity: Identity
    ports: dict[int, Protocol]
    #: What clients take for the identity of this workload (S-58).
    expected: Identity


@dataclass(frozen=True)
class Tls:
    """How a client speaks TLS."""

    identity: Identity | None
    alpn: list[str]
    sni: str | None
    tls12_only: bool


@dataclass(frozen=True)
class Mesh:
    """All objects of a mesh."""

    yaml: str


@dataclass(frozen=True)
class Apply:
    """Policies and meshConfig; in a mesh, any objects."""

    yaml: str


@dataclass(frozen=True)
class Delete:
    """Objects of a mesh, by the YAML that names them."""

    yaml: str


@dataclass(frozen=True)
class Hold:
    """The snapshots of a pod's sidecar are held back."""

    workload: str


@dataclass(frozen=True)
class Release:
    workload: str


@dataclass(frozen=True)
class Open:
    name: str
    #: A workload; in a mesh, whatever leads to an address.
    host: str
    port: int
    #: The workload whose application this client is; its traffic goes through the sidecar.
    via: str | None
    #: The pod that this client is, without its sidecar.
    from_: str | None
    tls: Tls | None


@dataclass(frozen=True)
class Send:
    conn: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Finish:
    conn: str


@dataclass(frozen=True)
class Reset:
    conn: str


@dataclass(frozen=True)
class Close:
    workload: str
    port: int


@dataclass(frozen=True)
class Silence:
    workload: str
    port: int


@dataclass(frozen=True)
class Drain:
    workload: str
    grace_s: float


@dataclass(frozen=True)
class Advance:
    span_ns: int


Command: TypeAlias = (
    Workload
    | Mesh
    | Apply
    | Delete
    | Hold
    | Release
    | Open
    | Send
    | Finish
    | Reset
    | Close
    | Silence
    | Drain
    | Advance
)


@dataclass(frozen=True)
class Block:
    """Commands with the lines in which they stand, and what comes of them."""

    commands: list[tuple[int, Command]]
    #: Of the `----`.
    line: int
    outcome: list[str]


@dataclass(frozen=True)
class Scenario:
    path: Path
    blocks: list[Block]

    def commands(self) -> Iterator[tuple[int, Command]]:
        for block in self.blocks:
            yield from block.commands


class NoScenario(Exception):
    """Something in a file that does not belong there, with its place."""


def read_all(folder: Path) -> list[Scenario]:
    """All files of a folder, by name."""
    return [parse(path, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.txt"))]


def parse(path: Path, text: str) -> Scenario:
    """Reads one file. `path` is for errors alone."""
    lines = text.split("\n")
    blocks: list[Block] = []
    commands: list[tuple[int, Command]] = []
    at = 0
    while at < len(lines):
        line, number = lines[at], at + 1
        at += 1
        if line == "----":
            begin = at
            while at < len(lines) and lines[at].strip():
                if lines[at] == "----":
                    raise NoScenario(f"{path}:{at + 1}: a second `----` in one block")
                at += 1
            blocks.append(Block(commands, number, lines[begin:at]))
            commands = []
            continue
        if not line.strip() or line.startswith("#"):
            continue
        begin = at
        while at < len(lines) and lines[at].startswith(("  ", "|", "+")):
            at += 1
        try:
            commands.append((number, _command(line, lines[begin:at])))
            if len(commands) > 1 and any(isinstance(command, Advance) for _, command in commands):
                raise ValueError("`advance` stands alone in its block")
        except ValueError as error:
            raise NoScenario(f"{path}:{number}: {error}") from None
    if commands:
        raise NoScenario(f"{path}:{commands[0][0]}: a block without `----`")
    scenario = Scenario(path, blocks)
    _check_names(scenario)
    return scenario


class _Words:
    """The words of a line: positional ones in order, `key=value` and flags in any."""

    def __init__(self, line: str) -> None:
        self.words = line.split()

    def next(self) -> str:
        if not self.words:
            raise ValueError("a word is missing")
        return self.words.pop(0)

    def option(self, key: str) -> str | None:
        for word in self.words:
            if word.startswith(f"{key}="):
                self.words.remove(word)
                return word[len(key) + 1 :]
        return None

    def flag(self, name: str) -> bool:
        if name not in self.words:
            return False
        self.words.remove(name)
        return True

    def end(self) -> None:
        if self.words:
            raise ValueError(f"`{self.words[0]}` is not understood here")


def _command(line: str, body: list[str]) -> Command:
    words = _Words(line)
    verb = words.next()
    command: Command
    match verb:
        case "mesh" | "apply" | "delete":
            if not all(line.startswith("  ") for line in body):
                raise ValueError("YAML is indented by two spaces")
            words.end()
            yaml = "\n".join(line[2:] for line in body) + "\n"
            return Mesh(yaml) if verb == "mesh" else Apply(yaml) if verb == "apply" else Delete(yaml)
        case "send":
            conn, fill = words.next(), words.option("fill")
            data = _pattern(_number(fill)) if fill is not None else _payload(body)
            if not data:
                raise ValueError("nothing to send")
            words.end()
            return Send(conn, data)
        case "hold":
            command = Hold(words.next())
        case "release":
            command = Release(words.next())
        case "workload":
            command = _workload(words)
        case "open":
            command = _open(words)
        case "finish":
            command = Finish(words.next())
        case "reset":
            command = Reset(words.next())
        case "close":
            command = Close(words.next(), _number(words.next()))
        case "silence":
            command = Silence(words.next(), _number(words.next()))
        case "drain":
            command = Drain(words.next(), _span_ns(words.next()) / 1e9)
        case "advance":
            command = Advance(_span_ns(words.next()))
        case _:
            raise ValueError(f"no command `{verb}`")
    words.end()
    if body:
        raise ValueError(f"`{verb}` takes no lines after it")
    return command


def _workload(words: _Words) -> Workload:
    name = words.next()
    identity = _identity(words, name)
    account = words.option("expected-sa") or identity.service_account
    expected = Identity(identity.trust_domain, identity.namespace, account, identity.ca)
    ports: dict[int, Protocol] = {}
    declared = words.option("ports")
    for port in declared.split(",") if declared else []:
        number, colon, protocol = port.partition(":")
        if not colon:
            raise ValueError(f"`{port}` is not PORT:PROTOCOL")
        match protocol:
            case "http" | "tcp" | "auto":
                ports[_number(number)] = protocol
            case _:
                raise ValueError(f"no protocol `{protocol}`")
    return Workload(name, identity, ports, expected)


def _identity(words: _Words, name: str) -> Identity:
    defaults = {"td": "cluster.local", "ns": "default", "sa": name, "ca": "mesh"}
    return Identity(*(words.option(key) or default for key, default in defaults.items()))


def _open(words: _Words) -> Open:
    name, to = words.next(), words.option("to")
    if to is None:
        raise ValueError("`open` needs to=WORKLOAD:PORT")
    host, colon, port = to.partition(":")
    if not colon:
        raise ValueError(f"`{to}` is not WORKLOAD:PORT")
    via, from_ = words.option("via"), words.option("from")
    if via is not None and from_ is not None:
        raise ValueError("a client is behind a sidecar or past it")
    tls = None
    if words.flag("tls"):
        if via is not None:
            raise ValueError("a client behind a sidecar speaks plaintext")
        certificate, version = words.option("cert"), words.option("version")
        if certificate not in (None, "none"):
            raise ValueError("`cert=` takes `none` alone")
        if version not in (None, "1.2"):
            raise ValueError(f"no TLS version `{version}` to choose")
        identity, alpn = _identity(words, name), words.option("alpn")
        tls = Tls(
            identity if certificate is None else None,
            alpn.split(",") if alpn else [],
            words.option("sni"),
            version == "1.2",
        )
    return Open(name, host, _number(port), via, from_, tls)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"`{text}` is not a number that fits")
    return int(text)


def _span_ns(text: str) -> int:
    for unit, ns in (("ms", 1_000_000), ("s", 1_000_000_000)):
        if text.endswith(unit):
            return _number(text.removesuffix(unit)) * ns
    raise ValueError(f"`{text}` is not a time: 100ms, 5s")


def _pattern(count: int) -> bytes:
    """Bytes that differ from their neighbours, so that a lost or doubled one shows."""
    period = bytes(range(ord("a"), ord("a") + 23))
    return (period * (count // 23 + 1))[:count]


def _payload(body: list[str]) -> bytes:
    data = bytearray()
    for line in body:
        if not line.startswith(("|", "+")):
            raise ValueError("bytes stand in lines that begin with `|` or `+`")
        data += _unescape(line[1:].removeprefix(" "))
        if line.startswith("|"):
            data += b"\r\n"
    return bytes(data)


_ESCAPES = {"\\": b"\\", "n": b"\n", "r": b"\r", "t": b"\t"}


def _unescape(text: str) -> bytes:
    out = bytearray()
    pieces = iter(text)
    for piece in pieces:
        if piece != "\\":
            out += piece.encode()
            continue
        match next(pieces, ""):
            case "x":
                digits = next(pieces, "") + next(pieces, "")
                if len(digits) != 2 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
                    raise ValueError("`\\x` takes two hexadecimal digits")
                out.append(int(digits, 16))
            case letter if letter in _ESCAPES:
                out += _ESCAPES[letter]
            case _:
                raise ValueError("an unknown escape")
    return bytes(out)


def print_bytes(data: bytes) -> list[str]:
    """Bytes as `|` and `+` lines, the inverse of what `parse` reads. A piece without CRLF of more than 1 KiB is told by its
    length and hash."""
    lines = []
    pieces = data.split(b"\r\n")
    for number, piece in enumerate(pieces):
        mark = "|" if number + 1 < len(pieces) else "+"
        if mark == "+" and not piece:
            continue
        if len(piece) > 1024:
            lines.append(f"{mark} ({len(piece)} bytes, fnv {_fnv(piece):032x})")
        else:
            lines.append(f"{mark} {_escape(piece)}".rstrip())
    return lines


def _fnv(data: bytes) -> int:
    """FNV-1a with 128 bits."""
    value = 0x6C62272E07BB014262B821756295C58D
    for byte in data:
        value = ((value ^ byte) * 0x13B + ((value ^ byte) << 88)) & ((1 << 128) - 1)
    return value


def _escape(piece: bytes) -> str:
    named = {ord("\\"): "\\\\", 10: "\\n", 13: "\\r", 9: "\\t"}
    out = [named.get(byte) or (chr(byte) if 0x20 <= byte <= 0x7E else f"\\x{byte:02x}") for byte in piece]
    # A blank at the end of a line would be lost in the file.
    if out and out[-1] == " ":
        out[-1] = "\\x20"
    return "".join(out)


def _check_names(scenario: Scenario) -> None:
    """Names are known before they are used, and connections of clients are named once. Connections of applications are
    named `WORKLOAD.N` when they are accepted, so only the workload can be checked. Who the pods of a mesh are is known
    where its YAML is read."""
    known = _Known()
    for line, command in scenario.commands():
        try:
            known.check(command)
        except ValueError as error:
            raise NoScenario(f"{scenario.path}:{line}: {error}") from None


class _Known:
    def __init__(self) -> None:
        self._is_mesh = False
        self._workloads: dict[str, dict[int, Protocol]] = {}
        self._clients: set[str] = set()

    def check(self, command: Command) -> None:
        match command:
            case Workload(name=name, ports=ports):
                if self._is_mesh:
                    raise ValueError("the pods of a mesh are its workloads")
                if name in self._workloads:
                    raise ValueError(f"a second workload `{name}`")
                self._workloads[name] = ports
            case Mesh():
                if self._is_mesh or self._workloads:
                    raise ValueError("a file describes one mesh, in one way")
                self._is_mesh = True
            case Delete() | Hold() | Release():
                self._need_mesh()
            case Open(name=name, host=host, port=port, via=via, from_=from_):
                if name in self._clients:
                    raise ValueError(f"a second connection `{name}`")
                if "." in name:
                    raise ValueError("a name with a dot is that of an application's")
                self._clients.add(name)
                if from_ is not None:
                    self._need_mesh()
                if via is not None:
                    self._check_workload(via)
                self._check_port(host, port)
            case Close(workload=workload, port=port) | Silence(workload=workload, port=port):
                self._check_port(workload, port)
            case Drain(workload=workload):
                self._check_workload(workload)
            case Send(conn=conn) | Finish(conn=conn) | Reset(conn=conn):
                workload, _, nth = conn.rpartition(".")
                is_app = nth.isdigit() and (workload in self._workloads or (self._is_mesh and workload != ""))
                if conn not in self._clients and not is_app:
                    raise ValueError(f"no connection `{conn}`")
            case Apply() | Advance():
                pass

    def _need_mesh(self) -> None:
        if not self._is_mesh:
            raise ValueError("this is for files that say `mesh`")

    def _check_workload(self, name: str) -> None:
        if not self._is_mesh and name not in self._workloads:
            raise ValueError(f"no workload `{name}`")

    def _check_port(self, name: str, port: int) -> None:
        self._check_workload(name)
        if not self._is_mesh and port not in self._workloads[name]:
            raise ValueError(f"`{name}` does not declare this port")
