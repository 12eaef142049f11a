"""`make demo` shows what is true of its tenant, at the terminal and on its page, and leaves nothing behind."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.__main__ import NIGHTS
from demo.marts import BOOKS, REASONS
from demo.page import KINDS
from demo.report import COUNTED
from tests.support.browser import PHONE, browser
from tests.support.demo_truth import Truth
from tests.support.environments import ROOT, git
from tests.support.looks import ON_PAPER, look
from tests.support.page import Report
from tests.support.processes import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("demo")]

DAYS = 0.02
"""A run takes its seconds, so that no length in days is exact."""


@pytest.fixture(scope="module")
def truth() -> Truth:
    """The tenant of the demo after its last night."""
    return Truth()


def flat(rows: Mapping[str, Iterable[str | float]]) -> dict[str, float]:
    """The numbers of a table, each by its row and its place."""
    return {f"{key} {place}": float(cell) for key, row in rows.items() for place, cell in enumerate(row)}


@dataclass(frozen=True)
class Shown:
    """What a run printed, and what it left."""

    status: int
    stdout: str
    stderr: str
    left: list[str]
    page: str

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
            found += [each.command for each in processes() if folder in each.command]
            return found + [name for name in strangers() if name not in before]

        yield {**os.environ, "TMPDIR": folder, "TAP_MDE_KBS_CLOUD": "dod"}, left


def strangers() -> list[str]:
    """What git sees and does not know, but where people write code meanwhile; nothing, where there is no git."""
    return git("ls-files", "--others", "--exclude-standard", ".", ":!tests", ":!tap_mde_kbs").splitlines()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """The real thing, without a terminal; once, whichever worker of pytest comes first."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = folder / "demo.json"
        if not kept.exists():
            kept.write_text(json.dumps(asdict(run_demo(folder / "demo" / "report.html"))))
        return Shown(**json.loads(kept.read_text()))


def run_demo(page: Path) -> Shown:
    """Run it to its end."""
    with place() as (environment, left):
        run = subprocess.run(
            [sys.executable, "-m", "demo", "--no-wait", "--page", str(page)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        return Shown(run.returncode, run.stdout, run.stderr, left(), str(page))


@pytest.fixture(scope="module")
def report(shown: Shown) -> Report:
    """Its page, read."""
    return Report.of(Path(shown.page))


def test_it_works_and_leaves_nothing(shown: Shown) -> None:
    """No file, no process, nothing that git sees; without a terminal it ends by itself."""
    assert (shown.status, shown.stderr) == (0, "")
    assert not shown.left
    assert "Ctrl-C" not in shown.stdout


def test_each_night_is_a_line(shown: Shown, truth: Truth) -> None:
    """While it runs: machines answered and asked, and what was missing on them."""
    lines = re.findall(
        r"^Night \d+, .*: (\d+) of (\d+) machines answered, ([\d,]+) updates missing \([\d.]+ s\)$",
        shown.stdout,
        re.MULTILINE,
    )
    numbers = [tuple(int(text.replace(",", "")) for text in line) for line in lines]
    assert numbers == [
        (len(night.answers), len(night.asked), sum(map(len, night.answers.values()))) for night in truth.nights
    ]


def test_what_to_install(shown: Shown, report: Report, truth: Truth) -> None:
    """The page opens with it, the terminal too: by what is attacked, then overdue; and how few installs close all."""
    true = truth.what_to_install()
    order = sorted(true, key=lambda kb: (-true[kb][3], -true[kb][4], -true[kb][0], kb))
    rows = report.tables["what-to-install"]
    assert [*rows] == order[:16]
    assert {kb: [int(rows[kb][place].strip("*")) for place in (1, 2, 3, 4, 8)] for kb in rows} == {
        kb: true[kb] for kb in rows
    }
    assert next(iter(report.tables)) == "what-to-install"
    said = shown.table("What to install")
    assert [(row[0], int(row[2]), int(row[3].strip("*")), int(row[4]), int(row[5])) for row in said] == [
        (f"KB{kb}", *true[kb][:4]) for kb in order[:8]
    ]
    assert int(report.values["installs-needed"]) == len(truth.to_install) < len(truth.open) / 2
    assert int(report.values["pairs-to-close"]) == len(truth.open)


def test_overdue_by_rule_book(shown: Shown, report: Report, truth: Truth) -> None:
    """Our own deadlines, BOD 26-04, the Essential Eight; with the word that a date is not compliance."""
    true = truth.rule_books()
    assert {book: (int(row[0]), int(row[1])) for book, row in report.tables["rule-books"].items()} == true
    assert len({late for _, late in true.values()}) > 1
    said = {row[0]: (int(row[1]), int(row[2])) for row in shown.table("Overdue by rule book")}
    assert said == {BOOKS[book]: counts for book, counts in true.items()}
    assert "A due date is not compliance" in Path(shown.page).read_text(encoding="utf-8")
    assert "a due date is not compliance" in shown.stdout


def test_the_updates_missing_on_most_machines(shown: Shown, report: Report, truth: Truth) -> None:
    """At the terminal and on the page: the first eight, with their CVEs and machines; on the page by CVEs, too."""
    true = truth.updates()
    by_machines = sorted(true.items(), key=lambda item: (-item[1][1], -item[1][0], item[0]))[:8]
    by_cves = sorted(true.items(), key=lambda item: (-item[1][0], -item[1][1], item[0]))[:8]
    rows = shown.table("Updates missing on most machines")
    assert [(row[0], int(row[-3]), int(row[-2])) for row in rows] == [
        (f"KB{kb}", *counts) for kb, counts in by_machines
    ]
    for table, expected in (("machines", by_machines), ("cves", by_cves)):
        cells = report.tables[f"updates-by-{table}"]
        assert [(kb, (int(row[0]), int(row[1]))) for kb, row in cells.items()] == expected


def test_groups_compared(shown: Shown, report: Report, truth: Truth) -> None:
    """Every group, platform, tag, risk and exposure: active machines, the share of patched ones, missed deadlines."""
    for kind in KINDS:
        rows = report.tables[f"segments-{kind}"]
        assert flat(rows) == pytest.approx(flat(truth.segments(kind)))
    said = {row[0]: (int(row[1]), row[2].split()[0], int(row[-1])) for row in shown.table("Compliance by device group")}
    true = truth.segments("group") | truth.segments("all")
    assert said == {name: (machines, f"{share:.0%}", late) for name, (machines, share, late) in true.items()}


def test_from_day_to_day(shown: Shown, report: Report, truth: Truth) -> None:
    """Asked, answered, lack nothing, missing, new, installed: on the page all days, at the terminal the last eight."""
    days = truth.days()
    rows = report.tables["days"]
    assert {day: [int(cell) for cell in row] for day, row in rows.items()} == days
    assert sum(row[4] for row in days.values()) > sum(row[5] for row in days.values()) > 500
    said = [
        [int(re.sub(r"[^\d]", "", cell)) for cell in row[1:]]
        for row in shown.table("Updates missing in the last 8 nights")
    ]
    assert said == [[*row[:2], *row[3:]] for row in list(days.values())[-8:]]


def test_the_figures_at_the_top(report: Report, truth: Truth) -> None:
    """Of active machines."""
    ((machines, share, late),) = truth.segments("all").values()
    standing = {
        "fully patched": sum(not truth.known[id_] for id_ in truth.active & truth.known.keys()),
        "past a deadline": len(truth.late),
        "never answered": len(truth.active - truth.known.keys()),
    }
    standing["behind, within deadlines"] = machines - sum(standing.values())
    assert {label: int(report.keyed.get(label, 0)) for label in standing} == standing
    assert float(report.values["patched-share"]) == pytest.approx(share)
    assert int(report.values["missing-pairs"]) == sum(each.machine_id in truth.active for each in truth.open)
    assert int(report.values["overdue-pairs"]) == late
    assert int(report.values["gap-machines"]) == sum(truth.gaps().values()) - truth.gaps()["not_onboarded"]


def test_what_is_missing_by_deadline(report: Report, truth: Truth) -> None:
    """How late, or how long there is left; and the machines that are furthest behind."""
    ageing = [int(row[0]) for row in report.tables["ageing"].values()]
    assert ageing == truth.ageing()
    assert sum(ageing[:3]) == int(report.values["overdue-pairs"])
    behind = report.tables["behind"]
    assert {id_: (int(row[0]), int(row[1])) for id_, row in behind.items()} == {
        id_: (len(truth.known[id_]), truth.late[id_]) for id_ in behind
    }
    assert [int(row[1]) for row in behind.values()] == sorted(truth.late.values(), reverse=True)[:8]


def test_time_to_install(report: Report, truth: Truth) -> None:
    """Of what was seen missing from its first night: all, by month, by device group."""
    for kind in ("month", "group"):
        rows = report.tables[f"installs-{kind}"]
        assert flat(rows) == pytest.approx(flat(truth.install_times(kind)), abs=DAYS)
    ((_, middle, average),) = truth.install_times("all").values()
    assert float(report.values["median-days"]) == pytest.approx(middle, abs=DAYS)
    assert float(report.values["mean-days"]) == pytest.approx(average, abs=DAYS)


def test_machines_that_were_not_heard_of(shown: Shown, report: Report, truth: Truth) -> None:
    """Counted by reason; those that did not answer are named, with their last answer."""
    gaps = truth.gaps()
    assert {reason: int(row[0]) for reason, row in report.tables["gaps"].items()} == gaps
    unanswered = truth.now.asked - truth.now.answers.keys()
    assert unanswered <= report.tables["silent"].keys()
    rows = shown.table("Machines nobody could ask")
    names = {str(truth.machines[id_]["computerDnsName"]) for id_ in unanswered}
    assert {row[0] for row in rows if row[-1] == f"{truth.nights[-2].moment:%d %b}"} == names
    [told] = re.findall(r"^Besides: (.*)$", shown.stdout, re.MULTILINE)
    assert told == ", ".join(f"{gaps[reason]} {REASONS[reason]}" for reason in sorted(COUNTED & gaps.keys()))


def test_the_page_in_a_browser(shown: Shown) -> None:
    """On a phone and on a desk, light, dark and on paper: whole, readable, and without a complaint."""
    with browser() as page:
        for width in (PHONE, 1200):
            for dark in (False, True):
                page.open(Path(shown.page), width, dark=dark)
                look(page, width, dark=dark)
                assert page.run("[...document.querySelectorAll('.line')].every(path => path.getBBox().width > 90)")
                assert page.run("document.querySelectorAll('.plot rect').length") >= len(NIGHTS) - 1
                page.run("document.querySelector('summary').click()")
                look(page, width, dark=dark)
                assert page.run("document.querySelector('#days').getBoundingClientRect().height") > 400
        page.open(Path(shown.page), 700, dark=True, media="print")
        look(page, 700, dark=False, smallest=ON_PAPER)
        assert page.pdf().startswith(b"%PDF")
        assert {*page.requests} == {Path(shown.page).as_uri()}


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
            stdout, stderr = process.communicate(timeout=120)
        assert (process.returncode, stderr) == (130, "")
        assert "all of it is gone" in stdout
        assert not left()
