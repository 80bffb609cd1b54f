"""Who takes part in a scenario, and how connections to them begin."""

from __future__ import annotations

from dataclasses import dataclass


class Impossible(Exception):
    """What a command asks for cannot be done."""


@dataclass(frozen=True)
class Member:
    """An application, and the sidecar beside it if it has one."""

    name: str
    #: From where it calls.
    address: str
    sidecar: bool
    #: Where its sidecar takes connections of others, and those of its own application.
    inbound: list[str]
    outbound: list[str]
    #: Where its application listens, by the port at which others reach it.
    apps: dict[int, str]


@dataclass(frozen=True)
class Direct:
    to: str
    #: `None`: somebody outside of the mesh.
    from_: str | None = None


@dataclass(frozen=True)
class Captured:
    """The sidecar of a member takes what its application sends to `to`, whatever that is."""

    member: int
    to: str
