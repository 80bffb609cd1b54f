"""Runs a scenario with a driver and compares outcomes."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Protocol

from .language import Command, Scenario
from .members import Impossible


class Driver(Protocol):
    """A world in which the commands of a scenario can happen."""

    def obey(self, command: Command) -> None:
        """Lets one command happen. An `Impossible` is the scenario's fault, never an outcome."""

    def observe(self) -> list[str]:
        """Lets everything happen that is under way, and tells what is new since the last call."""

    def end(self) -> list[str]:
        """Ends everything and tells what is new, and what is left over although it should not be."""


@dataclass
class Outcome:
    """What came of one file."""

    #: Lines that were compared: of the outcomes as they are and as they should be.
    comparisons: int = 0
    #: What happened in each block.
    blocks: list[list[str]] = field(default_factory=list)
    #: The first thing that went otherwise, with its place.
    failure: str | None = None


def run(scenario: Scenario, driver: Driver) -> Outcome:
    """Runs all blocks, also after one that went otherwise."""
    outcome = Outcome()
    for block in scenario.blocks:
        for line, command in block.commands:
            try:
                driver.obey(command)
            except Impossible as error:
                outcome.failure = outcome.failure or f"{scenario.path}:{line}: python: {error}"
                return outcome
        found = driver.observe()
        outcome.blocks.append(found)
        outcome.comparisons += max(len(found), len(block.outcome))
        if found != block.outcome and outcome.failure is None:
            outcome.failure = _difference(f"{scenario.path}:{block.line}: python", block.outcome, found)
    late = driver.end()
    if late and outcome.failure is None:
        outcome.failure = _difference(f"{scenario.path}: python: at the end", [], late)
    return outcome


def _difference(place: str, expected: list[str], found: list[str]) -> str:
    lines = difflib.unified_diff(expected, found, lineterm="")
    return "\n".join([f"{place}: - expected, + found", *lines])
