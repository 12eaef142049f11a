"""`make demo` shows what is true of its tenant, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.__main__ import MACHINES, NIGHTS, SEED, faults_of
from tap_mde_kbs.simulator import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
Pairs = set[tuple[str, str]]


@dataclass
class Truth:
    """What a reader of the demo should see, from the fleet itself."""

    fleet: Fleet = field(default_factory=lambda: Fleet(MACHINES, SEED))
    known: dict[str, frozenset[str]] = field(default_factory=dict)
    pairs: Pairs = field(default_factory=set)
    unanswered: set[str] = field(default_factory=set)
    nights: list[list[str]] = field(default_factory=list)
    answered: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for night, day in enumerate(NIGHTS, 1):
            self.fleet.pass_days(day - self.fleet.day)
            self._pass_night(night)

    def _pass_night(self, night: int) -> None:
        faults = faults_of(night, self.fleet)
        self.unanswered = {each.machine or "" for each in faults if each.kind == "not_found"}
        listed, missing = set(self.fleet.listed()), self.fleet.missing()
        self.known.update({id_: missing[id_] for id_ in missing.keys() - self.unanswered})
        before = self.pairs
        self.pairs = {(id_, kb) for id_ in listed & self.known.keys() for kb in self.known[id_]}
        gone = before - self.pairs
        left = {pair for pair in gone if pair[0] not in listed}
        self.answered.append((len(missing) - len(self.unanswered), len(listed), len(self.pairs)))
        changes = [
            signed("+", len(self.pairs - before)),
            signed("−", len(gone - left)),  # noqa: RUF001 - a minus sign
            signed("−", len(left)),  # noqa: RUF001 - a minus sign
        ]
        counts = [str(len(listed)), str(len(missing)), f"{len(self.pairs):,}"]
        self.nights.append([str(night), *counts, *(changes if night > 1 else [])])

    def most_missed(self) -> list[tuple[str, int, int]]:
        """KB, CVEs and machines of the ten first."""
        counts = Counter(kb for _, kb in self.pairs)
        cves = {kb: int(str(self.fleet.kb(kb)["cveAddressed"])) for kb in counts}
        order = sorted(counts, key=lambda kb: (-counts[kb], -cves[kb], f"KB{kb}"))
        return [(f"KB{kb}", cves[kb], counts[kb]) for kb in order[:10]]

    def groups(self) -> dict[str, tuple[int, int, str, str]]:
        """Machines, asked, fully patched and mean missing of each group and of all."""
        members: dict[str, set[str]] = {"all": set(self.fleet.listed())}
        for id_ in self.fleet.listed():
            name = self.fleet.machine(id_)["rbacGroupName"] or "(no group)"
            members.setdefault(str(name), set()).add(id_)
        return {name: self._group(ids) for name, ids in members.items()}

    def _group(self, ids: set[str]) -> tuple[int, int, str, str]:
        missing = [len(self.known[id_]) for id_ in ids if id_ in self.known]
        asked = len(ids & self.fleet.missing().keys())
        share = missing.count(0) / len(missing)
        return len(ids), asked, f"{share:.0%}", f"{sum(missing) / len(missing):.1f}"


def signed(sign: str, count: int) -> str:
    """A change as the demo writes it."""
    return f"{sign}{count:,}" if count else "0"


@pytest.fixture(scope="module")
def truth() -> Truth:
    """The tenant of the demo, five nights later."""
    return Truth()


@dataclass(frozen=True)
class Shown:
    """What a run printed, and what it left."""

    status: int
    stdout: str
    stderr: str
    left: list[str]

    def table(self, title: str) -> list[list[str]]:
        """The cells of a table, row by row."""
        _, _, after = self.stdout.partition(f"{title}")
        _, _, body = after.partition("─\n")
        rows, _, _ = body.partition("\n\n")
        return [re.split(r" {2,}", line.strip()) for line in rows.splitlines() if line.strip()]


@contextmanager
def place() -> Iterator[tuple[dict[str, str], Callable[[], list[str]]]]:
    """An environment with a temporary folder of its own, and a way to see what is left there."""
    before = strangers()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL of root's runs as somebody else

        def left() -> list[str]:
            found = [each.name for each in Path(folder).iterdir()]
            found += [process for process in processes() if folder in process]
            return found + [name for name in strangers() if name not in before]

        yield {**os.environ, "TMPDIR": folder, "TAP_MDE_KBS_CLOUD": "dod"}, left


def strangers() -> list[str]:
    """What git sees and does not know, but where people write code meanwhile."""
    return subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard", ".", ":!tests", ":!tap_mde_kbs"],  # noqa: S607 - whichever git there is
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()


def processes() -> list[str]:
    """The command lines of what runs on this machine."""
    return subprocess.run(
        ["ps", "-eo", "args"],  # noqa: S607 - whichever ps there is
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()


@pytest.fixture(scope="module")
def shown() -> Shown:
    """The real thing, once, without a terminal."""
    with place() as (environment, left):
        run = subprocess.run(
            [sys.executable, "-m", "demo", "--no-wait"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        return Shown(run.returncode, run.stdout, run.stderr, left())


def test_it_works_and_leaves_nothing(shown: Shown) -> None:
    """No file, no process, nothing that git sees; without a terminal it ends by itself."""
    assert (shown.status, shown.stderr) == (0, "")
    assert not shown.left
    assert "Ctrl-C" not in shown.stdout


def test_each_night_is_a_line(shown: Shown, truth: Truth) -> None:
    """While it runs: machines answered and listed, and what is missing."""
    lines = re.findall(
        r"^Night \d, .*: (\d+) of (\d+) machines answered, ([\d,]+) updates missing \([\d.]+ s\)$",
        shown.stdout,
        re.MULTILINE,
    )
    numbers = [tuple(int(text.replace(",", "")) for text in line) for line in lines]
    assert numbers == truth.answered


def test_the_updates_missing_on_most_machines(shown: Shown, truth: Truth) -> None:
    """The ten first, with their CVEs and machines."""
    rows = shown.table("Updates missing on most machines")
    assert [(row[0], int(row[3]), int(row[4])) for row in rows] == truth.most_missed()


def test_compliance_by_group(shown: Shown, truth: Truth) -> None:
    """Every group, and all of them."""
    rows = shown.table("Compliance by device group")
    assert {row[0]: (int(row[1]), int(row[2]), row[3].split()[0], row[4]) for row in rows} == truth.groups()


def test_from_night_to_night(shown: Shown, truth: Truth) -> None:
    """Listed, asked, missing, new, installed, left."""
    rows = shown.table("From night to night")
    assert [[row[0], *row[2:]] for row in rows[: len(NIGHTS)]] == truth.nights


def test_machines_nobody_could_ask(shown: Shown, truth: Truth) -> None:
    """Named, with the last night they answered; those not onboarded are counted."""
    rows = shown.table("Machines nobody could ask")
    names = {str(truth.fleet.machine(id_)["computerDnsName"]) for id_ in truth.unanswered}
    assert {row[0] for row in rows if row[-1] == "05 Feb"} == names
    told = re.findall(r"^Not asked \(not onboarded\): (.*)$", shown.stdout, re.MULTILINE)
    assert sum(int(count) for count in re.findall(r"\d+", told[0])) == len(truth.fleet.listed()) - len(
        truth.fleet.missing()
    )


def test_ctrl_c_in_the_middle_leaves_nothing() -> None:
    """Tap, target, database and simulator go with it."""
    with place() as (environment, left):
        with subprocess.Popen(
            [sys.executable, "-m", "demo"],
            cwd=ROOT,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        ) as process:
            assert process.stdout is not None
            assert any(line.startswith("Night 1") for line in process.stdout)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=30)
        assert (process.returncode, stderr) == (130, "")
        assert "all of it is gone" in stdout
        assert not left()
