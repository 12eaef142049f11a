"""What people use instead, beside this tap: which rows are right after a night in which something goes wrong.

    python -m tests.benchmarks.alternatives [--machines 200] [--only quota ...]

Every contestant is a process of its own that talks to the simulator over a socket: a script with a loop, a tap by the
SDK's guide, this tap by machine, this tap by export. Each loads a first night without a fault. Ten days later, with
updates installed, others published and machines gone, comes the night in which something goes wrong, and a day later
one in which nothing does. After both, what the table says is missing is compared with the simulated tenant. What a
table is: the script's file; for a tap a target that is played, with its rows by key, that does as ACTIVATE_VERSION
says. The simulator keeps no quota but in the case of that name. On stdout: tables in Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mde_simulator import Fault, Fleet, Quota, Simulator
from tests.benchmarks.compare import HERE, SCRIPTS, UNLIMITED, wait
from tests.support import reader
from tests.support.singer import Target, half_a_day_passes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from typing import IO

Pairs: TypeAlias = set[tuple[str, str]]
"""Machine and update."""

DAYS = (0, 10, 11)
"""The days of the three nights."""
LATENCY = 0.6
"""Seconds that an answer takes where a run is killed: this tap says every ten seconds where it is."""
EVERY = 7 * 3600.0
"""Between the exports of two nights, in seconds: Microsoft makes one every six hours."""
PATIENCE = 900
"""Seconds after which a run counts as hung."""


@dataclass(frozen=True)
class Case:
    """What goes wrong in the second night.

    Attributes:
        title: What it is, in the table.
        faults: At the calls for machines, and at the list.
        files: What comes nearest to it at an export.
        quota: Whether the documented quota is kept.
        page_size: How many machines a page of the list has.
        kill: Whether the run is killed when half of its calls, or one file, came in; then the third night is the same
            run, started again at once.
    """

    title: str
    faults: tuple[Fault, ...] = ()
    files: tuple[Fault, ...] = ()
    quota: bool = False
    page_size: int = 10_000
    kill: bool = False


@dataclass
class Night:
    """One tenant of one night.

    Attributes:
        simulator: The tenant.
        quota: Whether it keeps one.
        kill: Whether the run is to be killed.
        at_once: Whether no day has passed since the run before.
    """

    simulator: Simulator
    quota: bool
    kill: bool
    at_once: bool


class Contestant(ABC):
    """Somebody who fills a table, night after night."""

    name: str
    asks_machines = True
    """Whether it asks one machine after the other, and not for files."""

    @abstractmethod
    def command(self, folder: Path, night: Night) -> list[str]:
        """What is run; it may put files there."""

    @abstractmethod
    def load(self, written: IO[bytes]) -> None:
        """Take what the command wrote, however far it came."""

    @abstractmethod
    def missing(self) -> Pairs:
        """What a reader of the table takes for missing."""

    def unknown(self) -> set[str]:
        """The machines of which the table itself says that it does not know."""
        return set()


class Script(Contestant):
    """A loop over the machines; its table is the file that it replaces."""

    name = "script"

    def __init__(self) -> None:
        self.text = ""

    def command(self, folder: Path, night: Night) -> list[str]:
        """With the file of the night before."""
        self._path = folder / "missing.csv"
        self._path.write_text(self.text)
        (folder / "config.json").write_text(json.dumps(night.simulator.config))
        return [sys.executable, str(HERE / "loop_script.py"), str(folder / "config.json"), str(self._path)]

    def load(self, written: IO[bytes]) -> None:
        """The file is the table; stdout says nothing."""
        del written
        self.text = self._path.read_text()

    def missing(self) -> Pairs:
        """Its rows."""
        return {(row["machine_id"], row["id"]) for row in csv.DictReader(self.text.splitlines())}


class OrdinaryTap(Contestant):
    """`ordinary_tap.py`, and a target with its rows by key."""

    name = "ordinary tap"

    def __init__(self) -> None:
        self.target = Target()

    def command(self, folder: Path, night: Night) -> list[str]:
        """With the last STATE, if there is one."""
        (folder / "config.json").write_text(json.dumps(self.config(night)))
        command = [*self.executable(), "--config", str(folder / "config.json")]
        if self.target.state:
            (folder / "state.json").write_text(json.dumps(self.target.state))
            command += ["--state", str(folder / "state.json")]
        return command

    def executable(self) -> list[str]:
        """What starts it."""
        return [sys.executable, str(HERE / "ordinary_tap.py")]

    def config(self, night: Night) -> dict[str, Any]:
        """Its settings."""
        return night.simulator.config

    def load(self, written: IO[bytes]) -> None:
        """Every line that is whole."""
        self.target.take(json.loads(line) for line in written if line.endswith(b"\n"))

    def missing(self) -> Pairs:
        """All rows: none says that it is no longer so."""
        return {(machine_id, kb_id) for machine_id, kb_id in self.target.rows.get("missing_kbs", {})}


class ThisTap(OrdinaryTap):
    """This tap by machine, read as docs/questions.md says."""

    name = "this tap"
    source = "per_machine"

    def executable(self) -> list[str]:
        """The installed command."""
        return [str(SCRIPTS / "tap-mde-kbs")]

    def config(self, night: Night) -> dict[str, Any]:
        """Without a quota there is no share of one to keep to."""
        limits = {} if night.quota else UNLIMITED
        return {**super().config(night), **limits, "missing_kbs_source": self.source}

    def command(self, folder: Path, night: Night) -> list[str]:
        """For its STATE, a day has passed since the last night."""
        if self.target.state and not night.at_once:
            half_a_day_passes(self.target.state)
        return super().command(folder, night)

    def missing(self) -> Pairs:
        """What is missing now."""
        return reader.missing_now(self.target)

    def unknown(self) -> set[str]:
        """Those without an answer of the newest sweep, if that is believed: its row and the checks say so."""
        sweeps = {row["sweep"]: row for row in reader.rows(self.target, "sweeps")}
        believed = {sweep for sweep, row in sweeps.items() if row["is_believed"] is not False}
        answered = {
            row["machine_id"]
            for row in reader.rows(self.target, "missing_kbs_checks")
            if row["outcome"] == "answered" and row["sweep"] == max(sweeps) and row["sweep"] in believed
        }
        return {row["id"] for row in reader.rows(self.target, "machines")} - answered


class ThisTapByExport(ThisTap):
    """This tap by export."""

    name = "this tap, by export"
    source = "export"
    asks_machines = False


CONTESTANTS: tuple[Callable[[], Contestant], ...] = (Script, OrdinaryTap, ThisTap, ThisTapByExport)
KBS = "/api/machines/*/getmissingkbs"
CASES: Mapping[str, Case] = {
    "nothing": Case("nothing"),
    "quota": Case("100 calls a minute, as documented", quota=True),
    "sick": Case("a machine that answers 500 for good"),
    "404": Case(
        "404 for one call in 20, for machines that exist",
        (Fault("not_found", path=KBS, chance=0.05),),
        (Fault("export_late"),),
    ),
    "cut": Case(
        "one answer in 20 is cut off",
        (Fault("cut", path=KBS, chance=0.05),),
        (Fault("export_cut", times=1),),
    ),
    "moving": Case("a list in another order on each page", (Fault("moving"),), (Fault("moving"),), page_size=50),
    "empty": Case(
        "an outage: 200 and an empty list for each machine",
        (Fault("empty", path=KBS),),
        (Fault("export_nothing"),),
    ),
    "killed": Case("killed in the middle; then started again at once", kill=True),
}


@dataclass(frozen=True)
class Outcome:
    """How a night went, and what the table says after it.

    Attributes:
        status: The exit status; negative: the signal.
        seconds: How long it ran.
        cpu: Seconds of CPU.
        calls: Of the API, and files.
        lost: Pairs that are missing, and not in the table.
        stale: Pairs in the table that are not missing.
        told: How many of both are of machines of which the table says that it does not know.
        is_as_before: Whether a reader finds the same as before the night.
    """

    status: int
    seconds: float
    cpu: float
    calls: int
    lost: int
    stale: int
    told: int
    is_as_before: bool

    @property
    def wrong(self) -> int:
        """All pairs that are wrong."""
        return self.lost + self.stale

    def __str__(self) -> str:
        """As a cell of the table."""
        said = [f"{count:,} {what}" for count, what in ((self.lost, "lost"), (self.stale, "stale")) if count]
        if self.told:
            said.append("all told" if self.told == self.wrong else f"{self.told:,} told")
        if self.status > 0:
            said.append(f"exit {self.status}")
        return ", ".join(said if self.wrong else ["right", *said])


def fleet_of(machines: int, day: int) -> Fleet:
    """The same tenant on some day: everybody onboarded, so that every contestant has the same to ask."""
    fleet = Fleet(machines, seed=3, discovered=0, excluded=0, silent=0, duplicates=0)
    if day:
        fleet.pass_days(day)
    return fleet


def truth(simulator: Simulator, *, by_export: bool) -> tuple[Pairs, set[str]]:
    """What is missing, and the machines of which Defender knows nothing, so that nobody can be wrong about them.

    An export has its own: an update without a CVE is not in it.
    """
    fleet = simulator.fleet
    missing: Mapping[str, Collection[str]] = simulator.exports.missing() if by_export else fleet.missing()
    pairs = {(machine_id, kb_id) for machine_id in fleet.assessed() for kb_id in missing.get(machine_id, ())}
    return pairs, set(fleet.not_assessed())


def faults_of(case: Case, contestant: Contestant, fleet: Fleet) -> Sequence[Fault]:
    """What strikes this contestant."""
    if not contestant.asks_machines:
        return case.files
    if case is CASES["sick"]:
        missing = fleet.missing()
        worst = max(fleet.assessed(), key=lambda machine_id: (len(missing[machine_id]), machine_id))
        return (Fault("500", path=KBS, machine=worst),)
    return case.faults


@contextlib.contextmanager
def tenant(machines: int, number: int, case: Case, contestant: Contestant, port: int) -> Iterator[Night]:
    """The tenant of a night; what goes wrong goes wrong in the second."""
    wrong, at_once = number == 1, number > 1 and case.kill
    day = number - at_once
    fleet = fleet_of(machines, DAYS[day])
    made_at = time.time() - EVERY * (len(DAYS) - 1 - day)
    with Simulator(
        fleet,
        port=port,
        page_size=case.page_size,
        quota=Quota() if case.quota and wrong else None,
        faults=faults_of(case, contestant, fleet) if wrong else (),
        latency=LATENCY if case.kill and wrong else 0.0,
        export_clock=lambda: made_at,
    ) as simulator:
        yield Night(simulator, quota=case.quota and wrong, kill=case.kill and wrong, at_once=at_once)


def run(contestant: Contestant, night: Night) -> Outcome:
    """Run it once, load what it wrote, and look."""
    simulator = night.simulator
    environment = {"PATH": os.environ.get("PATH", os.defpath), "REQUESTS_CA_BUNDLE": simulator.ca_file}
    by_export, before = not contestant.asks_machines, contestant.missing()
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        folder = Path(name)
        command = contestant.command(folder, night)
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, env={**environment, "HOME": name}, stdout=out, stderr=said)
        ended = threading.Event()
        watcher = threading.Thread(target=_watch, args=(process, ended, night, by_export))
        watcher.start()
        used = wait(process)
        seconds = time.monotonic() - began
        ended.set()
        watcher.join()
        out.seek(0)
        contestant.load(out)
    pairs, nobody_knows = truth(simulator, by_export=by_export)
    found = {pair for pair in contestant.missing() if pair[0] not in nobody_knows}
    told = contestant.unknown()
    return Outcome(
        process.returncode,
        seconds,
        used.cpu,
        simulator.journal.calls + len(simulator.journal.downloads),
        len(pairs - found),
        len(found - pairs),
        sum(machine_id in told for machine_id, _ in pairs ^ found),
        contestant.missing() == before,
    )


def _watch(process: subprocess.Popen[bytes], ended: threading.Event, night: Night, by_export: bool) -> None:
    """Kill it in the middle, if it is to be; or when it hangs."""
    journal, half = night.simulator.journal, len(night.simulator.fleet.listed()) // 2
    until = time.monotonic() + PATIENCE
    while not ended.wait(0.01):
        came = len(journal.downloads) if by_export else sum(entry.machine_id is not None for entry in journal)
        if (night.kill and came >= (1 if by_export else half)) or time.monotonic() > until:
            process.kill()
            return


@dataclass
class Course:
    """What a contestant did in one case: the night in which it went wrong, and the next."""

    wrong: Outcome
    after: Outcome


def compete(machines: int, names: Sequence[str]) -> dict[str, dict[str, Course]]:
    """Everybody, in every case; by case and contestant.

    Raises:
        ValueError: Somebody's table was wrong after the first night, in which nothing was.
    """
    done: dict[str, dict[str, Course]] = {name: {} for name in names}
    with Simulator(fleet_of(1, 0)) as simulator:
        port = simulator.port  # one address for all nights, as a tenant has: this tap begins anew for another
    for make in CONTESTANTS:
        first = make()
        with tenant(machines, 0, CASES["nothing"], first, port) as night:
            outcome = run(first, night)
        if outcome.wrong or outcome.status:
            msg = f"{first.name}, without any fault: {outcome}"
            raise ValueError(msg)
        for name in names:
            contestant, course = copy.deepcopy(first), []
            for number in (1, 2):
                with tenant(machines, number, CASES[name], contestant, port) as night:
                    course.append(run(contestant, night))
            done[name][contestant.name] = Course(*course)
            sys.stderr.write(f"{name}, {contestant.name}: {course[0]}; then {course[1]}\n")
    return done


def tables(done: Mapping[str, Mapping[str, Course]]) -> Iterator[str]:
    """The results in Markdown."""
    contestants = [make().name for make in CONTESTANTS]
    for title, of in (("what goes wrong", "wrong"), ("then, the next night", "after")):
        yield f"| {title} | {' | '.join(contestants)} |"
        yield "|---" * (len(contestants) + 1) + "|"
        for name, courses in done.items():
            outcomes = [getattr(courses[each], of) for each in contestants]
            marks = [" =" if of == "wrong" and each.wrong and each.is_as_before else "" for each in outcomes]
            cells = [f"{each}{mark}" for each, mark in zip(outcomes, marks, strict=True)]
            yield f"| {CASES[name].title} | {' | '.join(cells)} |"
        yield ""
    yield "| | | " + " | ".join(contestants) + " |"
    yield "|---" * 2 + "|---:" * len(contestants) + "|"
    for name, courses in done.items():
        outcomes = [courses[each].wrong for each in contestants]
        if name == "quota":
            yield f"| {CASES[name].title} | seconds | {' | '.join(f'{each.seconds:.1f}' for each in outcomes)} |"
        if name == "nothing":
            floor = outcomes[0].cpu
            ratios = [f"{each.cpu / floor:.1f}" for each in outcomes]
            yield f"| {CASES[name].title} | CPU, times the script's | {' | '.join(ratios)} |"
            yield f"| | calls and files | {' | '.join(f'{each.calls:,}' for each in outcomes)} |"
        if name == "killed":
            again = [f"{courses[each].after.calls:,}" for each in contestants]
            yield f"| {CASES[name].title} | calls and files, started again | {' | '.join(again)} |"
    yield ""
    packages = ", ".join(f"{name} {version(name)}" for name in ("tap-mde-kbs", "singer-sdk", "requests", "duckdb"))
    yield "=: the table is as it was before that night."
    yield f"{packages}, CPython {platform.python_version()}, {os.cpu_count()} cores."


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, and print the tables."""
    parser = argparse.ArgumentParser(description="What people use instead, beside this tap.")
    parser.add_argument("--machines", type=int, default=200, metavar="N")
    parser.add_argument("--only", nargs="+", choices=CASES, default=[*CASES], metavar="CASE", help=", ".join(CASES))
    options = parser.parse_args(arguments)
    fleet = fleet_of(options.machines, 0)
    sys.stderr.write(f"{len(fleet.listed())} machines, {sum(map(len, fleet.missing().values()))} missing updates\n")
    sys.stdout.write("".join(f"{line}\n" for line in tables(compete(options.machines, options.only))))


if __name__ == "__main__":
    main()
