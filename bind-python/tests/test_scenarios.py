"""Every file of `tests/scenarios` on machines that Python drives: the fourth driver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest

from scenarios.journal import join_chunks, mask
from scenarios.language import Command, NoScenario, Scenario, Send, parse, print_bytes, read_all
from scenarios.network import Weather
from scenarios.runner import Outcome, run
from scenarios.world import World

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "scenarios"
SCENARIOS = read_all(FOLDER)
COMPARISONS_MIN = 1500
#: Every wrong line of these is driven, of the others one in twenty.
ALWAYS_DRIVEN = {
    "audit.txt",
    "mesh-grows.txt",
    "mesh-slow-delivery.txt",
    "tcp-denied.txt",
    "without-a-certificate.txt",
}


def test_the_files_are_found() -> None:
    assert len(SCENARIOS) >= 40, FOLDER


def drive(scenario: Scenario, folder: Path, seed: int = 1, weather: Weather | None = None) -> Outcome:
    return run(scenario, World(folder, seed, weather or Weather()))


def rough(scenario: Scenario, seed: int) -> Weather:
    """Slow and cut anywhere."""
    chance = Random(seed)
    return Weather(
        latency_ns=(1_000, chance.choice([5_000, 300_000])),
        segment=(1, chance.choice([500, 1000, 1448] if has_large_bodies(scenario) else [1, 11, 1448])),
        read=(1, chance.choice([1448, 65_536])),
        send_buffer=chance.randint(2_000, 100_000),
        receive_buffer=chance.randint(2_000, 100_000),
    )


def byte_by_byte(scenario: Scenario) -> Weather:
    """Large bodies are cut less finely, which would say nothing new and takes long."""
    size = 500 if has_large_bodies(scenario) else 1
    return Weather(segment=(size, size), read=(size, size), send_buffer=2_000, receive_buffer=2_000)


def has_large_bodies(scenario: Scenario) -> bool:
    return any(isinstance(command, Send) and len(command.data) > 10_000 for _, command in scenario.commands())


def report(words: str, outcomes: list[Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    comparisons = sum(outcome.comparisons for outcome in outcomes)
    with capsys.disabled():
        print(f"\nscenarios: python {words} {comparisons} comparisons")
    failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
    assert failures == [], "\n".join(failures)
    assert comparisons > COMPARISONS_MIN


def test_scenarios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report("made", [drive(scenario, tmp_path) for scenario in SCENARIOS], capsys)


def test_outcomes_do_not_depend_on_how_bytes_are_cut_or_on_the_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = [
        drive(scenario, tmp_path, seed, weather)
        for scenario in SCENARIOS
        for seed, weather in [(2, byte_by_byte(scenario)), (3, rough(scenario, 3)), (4, rough(scenario, 4))]
    ]
    report("in pieces made", outcomes, capsys)


@dataclass
class Replayed:
    """Tells what was found once more, so that many expectations are held against it without driving for each."""

    found: list[list[str]]

    def obey(self, command: Command) -> None:
        pass

    def observe(self) -> list[str]:
        return self.found.pop(0)

    def end(self) -> list[str]:
        return []


def mutants_of(scenario: Scenario) -> Iterator[tuple[Scenario, int]]:
    """The scenario with one line of one outcome changed, left out, or added, for every line; and where its block ends."""
    for b, block in enumerate(scenario.blocks):
        for wrong in outcomes_but(block.outcome):
            blocks = [*scenario.blocks[:b], replace(block, outcome=wrong), *scenario.blocks[b + 1 :]]
            yield replace(scenario, blocks=blocks), block.line


def outcomes_but(lines: list[str]) -> Iterator[list[str]]:
    yield [*lines, "c9 reset"]
    for at, line in enumerate(lines):
        yield lines[:at] + lines[at + 1 :]
        yield [*lines[:at], line[:-1] + ("y" if line.endswith("x") else "x"), *lines[at + 1 :]]


def assert_blamed(outcome: Outcome, mutant: Scenario, line: int) -> None:
    """The first failure is that of the block whose `----` stands in `line`."""
    assert (outcome.failure or "none").startswith(f"{mutant.path}:{line}: python: ")


def test_a_wrong_line_turns_python_red(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mutants = driven = 0
    for scenario in SCENARIOS:
        found = drive(scenario, tmp_path).blocks
        for mutant, line in mutants_of(scenario):
            mutants += 1
            assert_blamed(run(mutant, Replayed(list(found))), mutant, line)
            if scenario.path.name in ALWAYS_DRIVEN or mutants % 20 == 0:
                driven += 1
                assert_blamed(drive(mutant, tmp_path), mutant, line)
    with capsys.disabled():
        print(f"\nscenarios: {mutants} mutants were found, {driven} of them by driving Python")
    assert mutants > COMPARISONS_MIN


POD = """mesh
  apiVersion: v1
  kind: Pod
  metadata: {name: a}
  spec: {containers: [{name: a, ports: [{containerPort: 7000}]}]}
"""


def test_what_cannot_be_done_is_told_with_its_line(tmp_path: Path) -> None:
    for text, words in [
        ("workload a ports=80:http\nopen c to=a:80\nsend a.1\n| x\n----\n", "x.txt:3: python: `a.1` was not opened"),
        ("workload a ports=80:http\nopen c to=a:80\nworkload b\n----\n", "x.txt:3: python: workloads come before"),
        ("workload a\napply\n  kind: X\n----\n", "x.txt:2: python: policies:1:1: "),
        ("mesh\n  kind: X\n----\n", "x.txt:1: python: mesh:1:1: "),
        (f"{POD}open c to=b:80\n----\n", "x.txt:6: python: `b` is unknown in namespace `default`"),
        (f"{POD}open c to=a:7000 via=a\n----\n", "x.txt:6: python: `a` has no sidecar"),
        (f"{POD}open c to=a:7000 from=b\n----\n", "x.txt:6: python: nobody is called `b`"),
        (f"{POD}close a 7001\n----\n", "x.txt:6: python: `a` has no port 7001"),
        (f"{POD}hold a\n----\n", "x.txt:6: python: `a` has no sidecar"),
        (f"{POD}delete\n  {{apiVersion: v1, kind: Pod, metadata: {{name: a}}}}\n----\n", "x.txt:6: python: pod `a` is gone"),
    ]:
        failure = drive(parse(Path("x.txt"), text), tmp_path).failure
        assert failure is not None and failure.startswith(words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("open c to=a:80\n----\n", "x.txt:1: no workload `a`"),
        ("workload a ports=80:http\nopen c to=a:81\n----\n", "x.txt:2: `a` does not declare this port"),
        ("workload a\n", "x.txt:1: a block without `----`"),
        ("workload a\nfly\n----\n", "x.txt:2: no command `fly`"),
        ("workload a colour=red\n----\n", "x.txt:1: `colour=red` is not understood here"),
        ("\nsend c\n| x\n----\n", "x.txt:2: no connection `c`"),
        ("workload a\nsend a.1\n----\n", "x.txt:2: nothing to send"),
        ("workload a\nfinish a.1\n| x\n----\n", "x.txt:2: `finish` takes no lines after it"),
        ("advance 3\n----\n", "x.txt:1: `3` is not a time: 100ms, 5s"),
        ("----\na\n----\n", "x.txt:3: a second `----` in one block"),
        ("workload a\nmesh\n  kind: X\n----\n", "x.txt:2: a file describes one mesh, in one way"),
        ("mesh\n  kind: X\nworkload a\n----\n", "x.txt:3: the pods of a mesh are its workloads"),
        ("mesh\nkind: X\n----\n", "x.txt:2: no command `kind:`"),
        ("workload a\nhold a\n----\n", "x.txt:2: this is for files that say `mesh`"),
        ("workload a ports=80:http\nopen c to=a:80 from=a\n----\n", "x.txt:2: this is for files that say `mesh`"),
        ("mesh\n  kind: X\nopen c to=b:80 via=a from=b\n----\n", "x.txt:3: a client is behind a sidecar or past it"),
        ("mesh\n  kind: X\nsend c\n| x\n----\n", "x.txt:3: no connection `c`"),
        (
            "workload a ports=80:http\nclose a 80\nadvance 3s\n----\n",
            "x.txt:3: `advance` stands alone in its block",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(text: str, words: str) -> None:
    with pytest.raises(NoScenario) as error:
        parse(Path("x.txt"), text)
    assert str(error.value) == words


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nx: y\r\n\r\nbody",
        b"\x00\\ \t\n\xff ",
        b"ends with a line \r\n",
        b"\r\n\r\n",
    ],
)
def test_printed_bytes_are_read_back_as_they_were(data: bytes) -> None:
    lines = "\n".join(print_bytes(data))
    [block] = parse(Path("x.txt"), f"workload a\nsend a.1\n{lines}\n----\n").blocks
    assert block.commands[1] == (2, Send("a.1", data))


CHUNKED = b"A\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "joined"),
    [
        (CHUNKED + b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\nB", CHUNKED + b"3\r\nabc\r\n0\r\n\r\nB"),
        (CHUNKED + b"1\r\na\r\n2\r\nbc\r\n", CHUNKED + b"3\r\nabc\r\n"),
        (CHUNKED + b"1\r\na\r\n2\r\nb", CHUNKED + b"1\r\na\r\n2\r\nb"),
        (b"1\r\na\r\n", b"1\r\na\r\n"),
    ],
)
def test_chunks_are_joined_and_what_is_no_whole_chunked_message_stays(data: bytes, joined: bytes) -> None:
    assert join_chunks(data) == joined


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("| x-request-id: 01234567-89ab-4cde-8f01-23456789abcd", "| x-request-id: <uuid>"),
        ("| x-request-id: mine", "| x-request-id: mine"),
        ("| x-envoy-upstream-service-time: 12", "| x-envoy-upstream-service-time: <ms>"),
        (f"| x-forwarded-client-cert: By=b;Hash={'a' * 64};URI=u", "| x-forwarded-client-cert: By=b;Hash=<sha256>;URI=u"),
        ("| x-forwarded-client-cert: By=b;Hash=ab;URI=u", "| x-forwarded-client-cert: By=b;Hash=ab;URI=u"),
    ],
)
def test_what_is_made_anew_is_named_and_what_a_client_says_is_told(line: str, masked: str) -> None:
    assert mask(line) == masked
