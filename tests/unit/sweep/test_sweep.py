"""A sweep asks everybody, knows at every moment where it stands, and deletes nothing on a guess."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_mde_kbs.errors import ApiDownError, NoAnswerError, NotFoundError, Stopped
from tap_mde_kbs.state import SweepBookmark
from tap_mde_kbs.sweep.pool import Threads
from tap_mde_kbs.sweep.sweep import RULES, Listed, Outcome, Sweep, sweeps
from tap_mde_kbs.sweep.verdict import Verdict, believe
from tests.support.virtual import Clock, Desk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HOUR = 3600.0
DAY = 86400.0
KEYS = [
    "version",
    "scope",
    "after",
    "deferred",
    "failed",
    "failed_before",
    "asked_all",
    "complete",
    "answered",
    "answered_last",
    "short_sweeps",
    "source_time",
]


def names(count: int) -> list[str]:
    """So many ids, as long as real ones."""
    return [f"{number:040x}" for number in range(count)]


@dataclass
class Tenant:
    """Machines, how they answer, and what the sweeps of several runs did.

    Attributes:
        machines: Those that are listed.
        answers: What a machine answers, one call after the other, the last one for ever: "ok",
            "404", anything else is the reason for no answer. A machine that is not in it is fine.
        skipped: Machines that are not asked.
        bookmark: As it is stored.
        written: Each run's outcomes, as pairs of machine and kind.
        asked: Each run's calls.
    """

    machines: list[str]
    answers: dict[str, list[str]] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    clock: Clock = field(default_factory=Clock)
    bookmark: SweepBookmark = field(default_factory=SweepBookmark)
    written: list[list[tuple[str, str]]] = field(default_factory=list)
    asked: list[list[str]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)
    size: int = 4

    def ask(self, machine_id: str) -> str:
        """Answer a call."""
        left = self.answers.get(machine_id, ["ok"])
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer == "404":
            raise NotFoundError(answer)
        if answer == "403":
            raise PermissionError(answer)
        if answer != "ok":
            raise NoAnswerError(answer)
        return f"KBs of {machine_id}"

    def sweeps(self, desk: Desk[str], scope: str = "scope", *, believed: bool = True) -> Iterator[Sweep[str]]:
        """What a run has to do."""
        return sweeps(
            self.bookmark,
            [Listed(name, asked=name not in self.skipped) for name in self.machines],
            scope=scope,
            pool=desk,
            now=self.clock.wall,
            sleep=desk.sleep,
            list_believed=believed,
        )

    def run(self, scope: str = "scope", *, believed: bool = True, stop_after: int | None = None) -> list[Verdict]:
        """A run, from the stored state to the stored state; the verdicts of its sweeps.

        Args:
            scope: What is asked for.
            believed: Whether the machine list is.
            stop_after: Killed while it writes this outcome.
        """
        desk = Desk(self.ask, size=self.size)
        written: list[tuple[str, str]] = []
        verdicts: list[Verdict] = []
        self.written.append(written)
        self.asked.append(desk.asked)
        try:
            for sweep in self.sweeps(desk, scope, believed=believed):
                self.modes.append(sweep.mode)
                self.store(sweep.bookmark)
                for outcome in sweep.outcomes():
                    self.store(sweep.bookmark)
                    if len(written) == stop_after:
                        return verdicts
                    written.append((outcome.machine_id, outcome.kind))
                    sweep.written(outcome)
                assert sweep.verdict is not None
                assert sweep.left == 0
                verdicts.append(sweep.verdict)
                self.store(sweep.bookmark)
        finally:
            self.slept = desk.slept
            if "sweep" in locals():
                self.store(sweep.bookmark)
        return verdicts

    def store(self, bookmark: SweepBookmark) -> None:
        """As STATE would be, through JSON."""
        stored = json.dumps(bookmark.to_dict())
        assert len(stored) < 7700
        self.bookmark = SweepBookmark.from_dict(json.loads(stored))
        assert self.bookmark == bookmark

    def kinds(self) -> Counter[str]:
        """How many outcomes of each kind the last run had."""
        return Counter(kind for _, kind in self.written[-1])


# --- the first pass ------------------------------------------------------------------------------


def test_machines_are_asked_and_written_in_id_order_whatever_the_lists_order() -> None:
    """The cursor needs an order; the API's list has none."""
    tenant = Tenant([*reversed(names(30))])
    tenant.run()
    assert tenant.asked[-1] == names(30)
    assert tenant.written[-1] == [(name, "answered") for name in names(30)]


def test_a_machine_that_is_listed_twice_is_asked_once() -> None:
    """The same id does come twice in the API's pages."""
    tenant = Tenant(names(3) + names(3))
    tenant.run()
    assert tenant.asked[-1] == names(3)


@pytest.mark.parametrize("size", [1, 4, 9])
def test_no_more_machines_are_asked_ahead_than_calls_may_be_in_flight(size: int) -> None:
    """What was asked and not yet written is asked again after a kill."""
    tenant = Tenant(names(30), size=size)
    desk = Desk(tenant.ask, size=size)
    for sweep in tenant.sweeps(desk):
        for written, outcome in enumerate(sweep.outcomes()):
            assert len(desk.asked) <= written + size
            sweep.written(outcome)
    assert desk.waiting == size


def test_skipped_machines_cost_no_call_and_do_not_slow_down_the_others() -> None:
    """Discovered devices outnumber the fleet: the calls in flight are those of machines asked."""
    tenant = Tenant(names(60), skipped={name for name in names(60) if not name.endswith("0")})
    desk = Desk(tenant.ask)
    (sweep,) = tenant.sweeps(desk)
    assert sweep.left == 4
    first = next(sweep.outcomes())
    assert first == Outcome(names(1)[0], "answered", f"KBs of {names(1)[0]}")
    assert len(desk.asked) == 4
    assert tenant.run()[0].activate
    assert tenant.kinds() == {"answered": 4, "skipped": 56}


def test_the_cursor_moves_only_when_the_machine_has_been_written() -> None:
    """What is stored while a machine's rows are being written does not count that machine."""
    tenant = Tenant(names(5))
    (sweep,) = tenant.sweeps(Desk(tenant.ask))
    stored = []
    for outcome in sweep.outcomes():
        stored.append((sweep.bookmark.after, sweep.bookmark.answered))
        sweep.written(outcome)
        assert sweep.bookmark.after == outcome.machine_id
    assert stored == [*zip([None, *names(4)], range(5), strict=True)]


def test_what_is_neither_a_404_nor_a_missing_answer_ends_the_sweep_with_the_cursor_kept() -> None:
    """A 403, an answer of another shape, the time limit: the next run goes on from there."""
    tenant = Tenant(names(20), {names(20)[7]: ["403", "ok"]})
    with pytest.raises(PermissionError):
        tenant.run()
    assert tenant.bookmark.after == names(20)[6]
    assert not tenant.bookmark.asked_all
    tenant.run()
    assert tenant.asked[-1] == names(20)[7:]
    assert tenant.bookmark.complete


# --- deferred machines ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "kind", "calls"),
    [
        (["404", "ok"], "answered", 2),
        (["404", "404", "404", "ok"], "answered", 4),
        (["404"], "not_found", 4),
        (["502", "ok"], "answered", 2),
        (["502", "502", "502", "ok"], "answered", 4),
        (["502"], "failed", 4),
        (["404", "404", "404", "502"], "failed", 4),
        (["502", "502", "502", "404"], "failed", 4),
        (["404", "404", "502", "404"], "failed", 4),
        (["502", "404", "404", "404"], "not_found", 4),
    ],
)
def test_a_machine_without_an_answer_is_asked_again_up_to_three_times(
    answers: list[str], kind: str, calls: int
) -> None:
    """Only a 404 that comes three times running is believed; all else is unknown."""
    tenant = Tenant(names(5), {names(5)[2]: answers})
    tenant.run()
    assert tenant.written[-1] == [
        *((name, "answered") for name in names(5) if name != names(5)[2]),
        (names(5)[2], kind),
    ]
    assert tenant.asked[-1].count(names(5)[2]) == calls
    assert tenant.slept == [RULES.pause] * (calls - 1)


def test_a_failed_machine_tells_its_reason() -> None:
    """The log names it, and why."""
    tenant = Tenant(names(2), {names(2)[0]: ["502 Bad Gateway"]})
    (sweep,) = tenant.sweeps(Desk(tenant.ask))
    assert [*sweep.outcomes()][-1] == Outcome(names(1)[0], "failed", None, "502 Bad Gateway")


def test_fifty_deferred_machines_are_asked_again_at_once_and_the_rest_at_the_end() -> None:
    """STATE has no room for all of them, and the first has waited for long."""
    ill = names(400)[::5]
    tenant = Tenant(names(400), {name: ["404", "ok"] for name in ill})
    tenant.run()
    assert tenant.slept == [RULES.pause] * 2
    order = [name for name, _ in tenant.written[-1]]
    assert order[196:246] == ill[:50]
    assert order[-30:] == ill[50:]
    assert tenant.bookmark.complete


def test_a_storm_of_404s_is_survived_within_the_bounds_of_state() -> None:
    """Every machine answers 404 for good: believed, but nothing is activated."""
    tenant = Tenant(names(300), {name: ["404"] for name in names(300)})
    (verdict,) = tenant.run()
    assert tenant.kinds() == {"not_found": 300}
    assert not verdict.activate
    assert verdict.reason == "No machine answered."


# --- the API is down -----------------------------------------------------------------------------


def test_ten_machines_in_a_row_without_an_answer_end_the_run() -> None:
    """A dead API is noticed after few calls; the next run asks the ten in their turn."""
    tenant = Tenant(names(100), {name: ["503", "ok"] for name in names(100)[20:40]})
    with pytest.raises(ApiDownError, match=r"10 machines in a row gave no answer \(503\)"):
        tenant.run()
    assert len(tenant.asked[-1]) <= 33
    assert tenant.bookmark.after == names(100)[19]
    assert tenant.bookmark.deferred == []
    tenant.answers.clear()
    tenant.run()
    assert tenant.written[-1] == [(name, "answered") for name in names(100)[20:]]


@pytest.mark.parametrize("answer", ["ok", "404"])
def test_an_answer_or_a_404_in_between_shows_that_the_api_lives(answer: str) -> None:
    """Nine, one that answers, nine: no reason to stop."""
    silent = names(19)[:9] + names(19)[10:]
    tenant = Tenant(names(19), {**{name: ["503", "ok"] for name in silent}, names(19)[9]: [answer, "ok"]})
    tenant.run()
    assert tenant.bookmark.complete


def test_skipped_machines_are_no_sign_of_life() -> None:
    """Nobody asked them."""
    tenant = Tenant(
        names(40),
        {name: ["503"] for name in names(40)},
        skipped={name for number, name in enumerate(names(40)) if number % 2},
    )
    with pytest.raises(ApiDownError):
        tenant.run()
    assert tenant.bookmark.after is None


def test_over_fifty_failed_machines_end_the_run_and_are_not_forgotten() -> None:
    """Fifty are kept as failed, the others as deferred; the next run asks all of them."""
    ill = names(600)[::5]
    tenant = Tenant(names(600), {name: ["500"] for name in ill})
    with pytest.raises(ApiDownError, match=r"51 machines gave no answer \(500\)"):
        tenant.run()
    assert len(tenant.bookmark.failed) == 50
    known = {*tenant.bookmark.failed, *tenant.bookmark.deferred}
    assert known == {name for name in ill if name <= (tenant.bookmark.after or "")}
    tenant.answers.clear()
    (verdict,) = tenant.run()
    assert verdict.activate
    assert tenant.bookmark.failed == []
    assert tenant.bookmark.answered == 600


def test_just_fifty_failed_machines_do_not_end_it() -> None:
    """The sweep is finished, not activated, and healed later."""
    ill = names(400)[::8]
    tenant = Tenant(names(400), {name: ["500"] for name in ill})
    (verdict,) = tenant.run()
    assert not verdict.activate
    assert tenant.bookmark.failed == ill


# --- activation ----------------------------------------------------------------------------------


def complete(machines: int, **changes: object) -> Tenant:
    """A tenant whose last sweep was a complete one, a day ago."""
    tenant = Tenant(names(machines))
    assert tenant.run()[0].activate
    tenant.clock.now += DAY
    tenant.bookmark = replace(tenant.bookmark, **changes)  # type: ignore[arg-type]
    return tenant


def test_a_sweep_in_which_everybody_has_an_outcome_is_activated() -> None:
    """With nobody failed, and somebody answered."""
    tenant = Tenant(names(3), {names(3)[1]: ["404"]}, skipped={names(3)[2]})
    (verdict,) = tenant.run()
    assert verdict == Verdict(
        activate=True,
        reason="Every machine has an outcome.",
        fails=False,
        newly_failed=(),
        failed_again=(),
    )
    assert tenant.bookmark.complete
    assert tenant.bookmark.answered_last == 1


def test_one_failed_machine_holds_back_activation_once_but_not_twice() -> None:
    """It may have been ill for a moment; a sick one must not keep installed updates for ever."""
    tenant = complete(200)
    tenant.answers[names(1)[0]] = ["500"]
    (verdict,) = tenant.run()
    assert not verdict.activate
    assert not verdict.fails
    assert verdict.newly_failed == (names(1)[0],)
    assert "1 machines gave no answer that had not failed in the sweep before" in verdict.reason
    tenant.clock.now += DAY
    (verdict,) = tenant.run()
    assert verdict.activate
    assert not verdict.fails
    assert verdict.failed_again == (names(1)[0],)
    assert tenant.bookmark.failed == [names(1)[0]]


def test_another_machine_that_fails_holds_it_back_again() -> None:
    """Two sweeps with a failure each are not two failures of one machine."""
    tenant = complete(200)
    for number in range(3):
        tenant.answers = {names(3)[number]: ["500"]}
        assert not tenant.run()[0].activate
        tenant.clock.now += DAY


@pytest.mark.parametrize(
    ("fleet", "failing", "fails"),
    [
        (20, 1, False),
        (20, 2, True),
        (200, 2, False),
        (200, 3, True),
        (399, 3, False),
        (399, 4, True),
    ],
)
def test_more_than_a_percent_of_new_failures_fail_the_run(fleet: int, failing: int, fails: bool) -> None:
    """Up to a percent, or one machine, what follows in the pipeline runs."""
    tenant = Tenant(names(fleet), {name: ["500"] for name in names(fleet)[:failing]})
    (verdict,) = tenant.run()
    assert verdict.fails == fails
    assert not verdict.activate


def test_machines_that_failed_before_do_not_fail_the_run() -> None:
    """They were told of; a sick one does not stop the pipeline every night."""
    tenant = complete(100)
    tenant.answers = {name: ["500"] for name in names(5)}
    assert tenant.run()[0].fails
    tenant.clock.now += DAY
    (verdict,) = tenant.run()
    assert not verdict.fails
    assert verdict.activate


def test_a_sweep_that_nobody_answers_fails_the_run_however_often() -> None:
    """A fleet of five with a dead API is no success, the second night neither."""
    tenant = complete(5)
    tenant.answers = {name: ["500"] for name in names(5)}
    for _ in range(2):
        (verdict,) = tenant.run()
        assert verdict.fails
        assert not verdict.activate
        tenant.clock.now += DAY


def test_a_sweep_that_asks_nobody_is_no_failure_and_activates_nothing() -> None:
    """A map filter that keeps no machine."""
    tenant = complete(5)
    tenant.skipped = {*names(5)}
    (verdict,) = tenant.run()
    assert not verdict.activate
    assert not verdict.fails
    assert tenant.bookmark.answered_last == 5


def test_a_sweep_that_shrank_is_believed_the_second_time() -> None:
    """A permission that hides machines looks just like machines that went."""
    tenant = complete(100)
    tenant.machines = names(50)
    (verdict,) = tenant.run()
    assert not verdict.activate
    assert not verdict.fails
    assert "Only 50 machines answered, 100 did" in verdict.reason
    assert tenant.bookmark.short_sweeps == 1
    tenant.clock.now += DAY
    (verdict,) = tenant.run()
    assert verdict.activate
    assert (tenant.bookmark.short_sweeps, tenant.bookmark.answered_last) == (0, 50)


def test_a_sweep_held_back_by_failures_is_no_short_one() -> None:
    """Its count says nothing; the one after it is the first short one."""
    tenant = complete(100)
    tenant.machines = names(50)
    tenant.answers = {names(1)[0]: ["500"]}
    assert not tenant.run()[0].activate
    assert tenant.bookmark.short_sweeps == 0
    tenant.clock.now += DAY
    tenant.answers.clear()
    assert not tenant.run()[0].activate
    tenant.clock.now += DAY
    assert tenant.run()[0].activate


def test_short_sweeps_must_follow_each_other() -> None:
    """Short, whole, short: the last is a first one again."""
    tenant = complete(100)
    for fleet, activates in ((50, False), (100, True), (50, False)):
        tenant.machines = names(fleet)
        assert tenant.run()[0].activate == activates
        tenant.clock.now += DAY


def test_without_a_believed_machine_list_nothing_is_activated() -> None:
    """And the same sweep does not go on, nor is healed, under a list that is believed."""
    tenant = complete(100)
    tenant.answers = {names(1)[0]: ["500"]}
    (verdict,) = tenant.run(believed=False)
    assert not verdict.activate
    tenant.answers.clear()
    assert tenant.run()[0].activate
    assert tenant.modes == ["new"] * 3


def test_a_list_that_is_not_believed_holds_back_even_a_sweep_that_did_not_shrink() -> None:
    """What it does not hold was not asked, and would be deleted."""
    tenant = complete(100)
    (verdict,) = tenant.run(believed=False)
    assert not verdict.activate
    assert not verdict.fails
    assert "list of machines is not believed" in verdict.reason
    assert (tenant.bookmark.short_sweeps, tenant.bookmark.answered_last) == (0, 100)


def test_a_fleet_that_did_shrink_is_believed_on_the_second_night_by_both_guards() -> None:
    """The list's guard holds back the first night's sweep, which counts as short by itself."""
    tenant = complete(100)
    tenant.machines = names(50)
    assert not tenant.run(believed=False)[0].activate
    tenant.clock.now += DAY
    assert tenant.run()[0].activate


def test_a_sweep_begun_under_a_list_not_believed_is_not_gone_on_with() -> None:
    """Its cursor has passed machines that were merely hidden."""
    tenant = complete(100)
    tenant.machines = names(100)[::2]
    tenant.run(believed=False, stop_after=3)
    tenant.machines = names(100)
    (verdict,) = tenant.run()
    assert verdict.activate
    assert tenant.kinds() == {"answered": 100}


@pytest.mark.parametrize(
    ("count", "last", "short_before", "result"),
    [
        (100, None, 0, (True, 0)),
        (100, 100, 0, (True, 0)),
        (95, 100, 0, (True, 0)),
        (94, 100, 0, (False, 1)),
        (94, 100, 1, (True, 0)),
        (95, 100, 1, (True, 0)),
        (2, 3, 0, (True, 0)),
        (1, 3, 0, (False, 1)),
        (0, None, 0, (False, 0)),
        (0, 1, 0, (False, 0)),
        (0, 3, 1, (False, 1)),
    ],
)
def test_the_guard_believes_a_little_less_or_the_second_time(
    count: int, last: int | None, short_before: int, result: tuple[bool, int]
) -> None:
    """Five per cent or one machine at once, more the second time in a row, nothing at all never."""
    assert believe(count, last, short_before, 5) == result


# --- the next run --------------------------------------------------------------------------------


def test_a_killed_sweep_resumes_after_the_last_written_machine() -> None:
    """With the same version; the calls made again are those in flight."""
    tenant = Tenant(names(50))
    tenant.run(stop_after=20)
    version = tenant.bookmark.version
    tenant.clock.now += 60
    (verdict,) = tenant.run()
    assert tenant.written[-1] == [(name, "answered") for name in names(50)[20:]]
    assert tenant.bookmark.version == version
    assert tenant.bookmark.answered == 50
    assert verdict.activate
    assert tenant.modes == ["new", "resumed"]


@pytest.mark.parametrize("stop_after", range(24))
def test_killed_anywhere_and_run_again_is_one_sweep_with_every_outcome(stop_after: int) -> None:
    """Also in the middle of asking deferred machines again."""
    answers = {
        names(20)[3]: ["404", "404", "404", "ok"],
        names(20)[8]: ["404"],
        names(20)[9]: ["500"],
        names(20)[15]: ["500", "404", "ok"],
    }
    tenant = Tenant(names(20), {name: [*them] for name, them in answers.items()})
    tenant.bookmark = SweepBookmark(failed_before=[names(20)[9]])
    tenant.run(stop_after=stop_after)
    if not tenant.bookmark.complete:
        tenant.run()
    assert tenant.bookmark.complete
    assert tenant.bookmark.answered == 18
    assert tenant.bookmark.failed == [names(20)[9]]
    assert {name for run in tenant.written for name, _ in run} == {*names(20)}


def test_machines_that_failed_or_wait_are_asked_again_when_a_sweep_is_resumed() -> None:
    """Those that left the list in between are dropped, new ones ahead of the cursor are asked."""
    tenant = Tenant(names(100))
    tenant.bookmark = SweepBookmark(
        version=int(tenant.clock.wall()) - 60,
        scope="scope",
        after=names(100)[49],
        deferred=[names(100)[3], names(100)[4]],
        failed=[names(100)[7], names(100)[8]],
        answered=46,
    )
    tenant.machines = [name for name in names(102) if name not in (names(100)[4], names(100)[8])]
    (verdict,) = tenant.run()
    assert tenant.asked[-1] == [*names(102)[50:], names(100)[3], names(100)[7]]
    assert verdict.activate
    assert (tenant.bookmark.deferred, tenant.bookmark.failed) == ([], [])


def test_a_machine_that_appears_behind_the_cursor_waits_for_the_next_sweep() -> None:
    """A sweep goes through the list once."""
    tenant = Tenant(names(20)[1:])
    tenant.run(stop_after=10)
    tenant.machines = names(20)
    tenant.run()
    assert names(1)[0] not in tenant.asked[-1]
    tenant.run()
    assert names(1)[0] in tenant.asked[-1]


def test_another_scope_begins_a_new_sweep_and_keeps_what_the_guards_know() -> None:
    """A cursor used under another filter would call machines checked that nobody asked."""
    tenant = complete(50, failed=[names(1)[0]], short_sweeps=1)
    tenant.run(stop_after=20)
    first = tenant.bookmark
    tenant.run(scope="another", stop_after=0)
    assert tenant.modes[-2:] == ["new", "new"]
    assert tenant.bookmark.version == first.version + 1
    assert tenant.bookmark.after is None
    assert tenant.bookmark.answered == 0
    assert tenant.bookmark.answered_last == 50
    assert tenant.bookmark.short_sweeps == 1
    assert tenant.bookmark.failed_before == [names(1)[0]]


@pytest.mark.parametrize(("days", "modes"), [(29, ["resumed", "new"]), (31, ["new"])])
def test_a_sweep_over_thirty_days_old_is_dropped(days: float, modes: list[str]) -> None:
    """Its first rows are a month old."""
    tenant = Tenant(names(20))
    tenant.run(stop_after=10)
    tenant.clock.now += days * DAY
    tenant.run()
    assert tenant.modes[1:] == modes


def test_a_finished_sweep_is_healed_with_a_few_calls() -> None:
    """A retry minutes later asks those that failed, and no one else."""
    tenant = Tenant(names(300), {name: ["500"] for name in names(2)})
    assert not tenant.run()[0].activate
    version = tenant.bookmark.version
    tenant.clock.now += 11.9 * HOUR
    tenant.answers.clear()
    (verdict,) = tenant.run()
    assert verdict.activate
    assert tenant.asked[-1] == names(2)
    assert tenant.bookmark.version == version
    assert tenant.bookmark.answered == tenant.bookmark.answered_last == 300


def test_a_machine_that_still_fails_when_healed_has_not_failed_twice() -> None:
    """It is the same sweep."""
    tenant = Tenant(names(300), {names(1)[0]: ["500"]})
    for mode in ("new", "healing", "healing"):
        assert not tenant.run()[0].activate
        assert tenant.modes[-1] == mode
        tenant.clock.now += HOUR


def test_a_failed_machine_that_left_does_not_keep_its_sweep_from_being_healed() -> None:
    """There is nobody left to ask."""
    tenant = Tenant(names(300), {names(1)[0]: ["500"]})
    tenant.run()
    tenant.machines = names(300)[1:]
    (verdict,) = tenant.run()
    assert verdict.activate
    assert tenant.asked[-1] == []


def test_a_stale_sweep_is_not_healed_but_followed_by_a_new_one() -> None:
    """Data are fresh every night."""
    tenant = Tenant(names(30), {names(1)[0]: ["500"]})
    tenant.run()
    tenant.clock.now += 12.1 * HOUR
    tenant.run()
    assert tenant.modes == ["new", "new"]
    assert tenant.bookmark.failed_before == [names(1)[0]]


def test_a_short_sweep_is_not_judged_twice() -> None:
    """A machine that failed before gives no occasion to call one short sweep two."""
    tenant = complete(100)
    tenant.bookmark = replace(tenant.bookmark, failed=[names(1)[0]])
    tenant.answers = {names(1)[0]: ["500"]}
    tenant.machines = names(50)
    assert not tenant.run()[0].activate
    assert tenant.bookmark.short_sweeps == 1
    tenant.clock.now += 60
    assert tenant.run()[0].activate
    assert tenant.modes[-1] == "new"


@pytest.mark.parametrize(("hours", "modes"), [(11, ["resumed"]), (13, ["resumed", "new"])])
def test_an_old_sweep_that_is_finished_is_followed_by_a_new_one_in_the_same_run(hours: float, modes: list[str]) -> None:
    """What the first part of it brought is from the night before."""
    tenant = Tenant(names(30))
    tenant.run(stop_after=10)
    tenant.clock.now += hours * HOUR
    verdicts = tenant.run()
    assert tenant.modes[1:] == modes
    assert all(verdict.activate for verdict in verdicts)
    assert len(tenant.asked[-1]) == 20 + (30 if len(modes) == 2 else 0)
    assert tenant.bookmark.complete


def test_a_sweep_that_takes_days_is_not_followed_by_another_in_the_same_run() -> None:
    """100,000 machines take 66 hours; then the run is over."""
    tenant = Tenant(names(30))
    seen = 0
    for sweep in tenant.sweeps(Desk(tenant.ask)):
        seen += 1
        for outcome in sweep.outcomes():
            tenant.clock.now += 3 * HOUR
            sweep.written(outcome)
    assert seen == 1


def test_a_sweep_given_up_half_way_is_the_last_of_its_run() -> None:
    """The caller that stops reading outcomes does not want another sweep."""
    tenant = Tenant(names(30))
    tenant.run(stop_after=10)
    tenant.clock.now += DAY
    work = tenant.sweeps(Desk(tenant.ask))
    assert next(next(work).outcomes()).machine_id == names(30)[10]
    assert next(work, None) is None


def test_an_empty_machine_list_begins_nothing() -> None:
    """The state stays as it is."""
    tenant = Tenant(names(30))
    tenant.run(stop_after=10)
    before = tenant.bookmark
    tenant.machines = []
    assert tenant.run() == []
    assert tenant.bookmark == before


def test_versions_grow_even_if_the_clock_goes_back() -> None:
    """A lower version would have its rows deleted by the one before."""
    tenant = complete(5)
    before = tenant.bookmark.version
    tenant.clock.set_back = 400 * DAY
    tenant.run()
    assert tenant.bookmark.version == before + 1
    tenant.run(scope="another", stop_after=2)
    tenant.run(scope="another")
    assert tenant.modes[-2:] == ["resumed", "new"]
    assert tenant.bookmark.version == before + 3


# --- the state -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "held"), [(40, 50), (54, 41), (60, 37)])
def test_the_bookmark_stays_within_state_whatever_the_fleet(length: int, held: int) -> None:
    """Every machine is ill, in the worst way for the lists, night after night, with long ids."""
    fleet = [name.rjust(length, "f") for name in names(600)]
    ill = fleet[::2]
    tenant = Tenant(fleet, {name: ["500"] for name in ill})
    tenant.bookmark = SweepBookmark(failed_before=fleet[1 : 2 * held : 2])
    largest = 0
    for _ in range(4):
        with pytest.raises(ApiDownError):
            tenant.run()
        largest = max(largest, len(json.dumps(tenant.bookmark.to_dict())))
        assert held - 1 <= len(tenant.bookmark.failed) <= held
    assert 6_000 < largest < 7_700


def test_every_state_has_every_key() -> None:
    """A merge keeps a key that is left out, so nothing is ever said by leaving one out."""
    assert [*SweepBookmark().to_dict()] == KEYS
    assert [*SweepBookmark.from_dict({"version": 7}).to_dict()] == KEYS


def test_what_was_stored_does_not_change_with_the_sweep() -> None:
    """The writer of STATE may hold it back."""
    bookmark = SweepBookmark(deferred=["a"], failed=["b"], failed_before=["c"])
    stored = bookmark.to_dict()
    for ids in (bookmark.deferred, bookmark.failed, bookmark.failed_before):
        ids.append("d")
    assert (stored["deferred"], stored["failed"], stored["failed_before"]) == (["a"], ["b"], ["c"])


def test_the_bookmark_given_is_not_changed() -> None:
    """A run may be dry."""
    tenant = Tenant(names(20))
    tenant.run(stop_after=10)
    tenant.bookmark.deferred = ["gone"]
    before = tenant.bookmark.to_dict()
    bookmark = tenant.bookmark
    tenant.run()
    assert bookmark.to_dict() == before


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(), json_values) | json_values)
def test_a_sweep_can_begin_from_any_state_whatever(state: object) -> None:
    """Older versions, other taps, hand-written states: whatever it is, everybody gets asked."""
    tenant = Tenant(names(3), bookmark=SweepBookmark.from_dict(state))
    assert [*tenant.bookmark.to_dict()] == KEYS
    tenant.run()
    assert {*tenant.asked[-1]} == {*names(3)}


@pytest.mark.parametrize(
    ("key", "odd"),
    [
        ("after", 5),
        ("deferred", None),
        ("deferred", [1]),
        ("failed", "ab"),
        ("answered", -1),
        ("answered", True),
        ("asked_all", None),
        ("complete", 0),
        ("scope", None),
    ],
)
def test_an_odd_cursor_is_no_cursor_but_the_rest_is_kept(key: str, odd: object) -> None:
    """Otherwise machines nobody asked could pass for checked."""
    whole = SweepBookmark(version=9, scope="s", after="m", answered=3, answered_last=8, failed_before=["x"]).to_dict()
    kept = SweepBookmark(version=9, answered_last=8, failed_before=["x"])
    assert SweepBookmark.from_dict({**whole, key: odd}) == kept
    assert SweepBookmark.from_dict({name: whole[name] for name in whole if name != key}) == kept


def test_the_newest_rows_time_survives_a_new_sweep() -> None:
    """`source_time` tells a later export whether it is news."""
    tenant = complete(3, source_time="2026-11-24T00:00:00Z")
    tenant.run()
    assert tenant.bookmark.source_time == "2026-11-24T00:00:00Z"


# --- threads -------------------------------------------------------------------------------------


def read(pool: Threads[str], ids: Iterable[str]) -> list[str]:
    """The answers, or the errors' names, in that order."""
    answers = []
    for machine_id in ids:
        try:
            answers.append(pool.result(machine_id))
        except (NotFoundError, NoAnswerError) as error:
            answers.append(type(error).__name__)
    return answers


def test_threads_ask_as_many_at_a_time_as_they_are_and_answer_in_any_order() -> None:
    """And raise in the caller's thread what asking raised."""
    together = threading.Barrier(3)
    tenant = Tenant(names(6), {names(6)[1]: ["404"], names(6)[4]: ["502"]})

    def ask(machine_id: str) -> str:
        together.wait(timeout=30)
        return tenant.ask(machine_id)

    with Threads(ask, 3) as pool:
        for name in names(6):
            pool.submit(name)
        assert read(pool, reversed(names(6))) == [
            f"KBs of {names(6)[5]}",
            "NoAnswerError",
            f"KBs of {names(6)[3]}",
            f"KBs of {names(6)[2]}",
            "NotFoundError",
            f"KBs of {names(6)[0]}",
        ]


def test_a_real_sweep_over_threads_is_the_same_as_any() -> None:
    """The last answers may come first; the order of what is written does not change."""
    machines = names(40)
    tenant = Tenant(machines, {machines[5]: ["404", "ok"], machines[6]: ["404"]})

    def ask(machine_id: str) -> str:
        time.sleep(0.001 * (int(machine_id, 16) % 4))
        return tenant.ask(machine_id)

    with Threads(ask, 4) as pool:
        (sweep,) = sweeps(
            SweepBookmark(),
            [Listed(name, asked=True) for name in machines],
            scope="s",
            pool=pool,
            sleep=lambda _: None,
        )
        written = []
        for outcome in sweep.outcomes():
            written.append(outcome.machine_id)
            sweep.written(outcome)
    late = machines[5:7]
    assert written == [name for name in machines if name not in late] + late
    assert sweep.verdict is not None
    assert sweep.verdict.activate


def test_closing_wakes_whoever_waits_and_ends_the_threads() -> None:
    """An interrupt must not wait for an answer that takes a minute."""
    free = threading.Event()
    pool = Threads(lambda machine_id: str(free.wait(30)) + machine_id, 2)
    for name in names(5):
        pool.submit(name)
    timer = threading.Timer(0.05, pool.close, kwargs={"timeout": 0.0})
    timer.start()
    with pytest.raises(Stopped):
        pool.result(names(1)[0])
    timer.join()
    free.set()
    pool.close(timeout=30)
    assert not [thread for thread in threading.enumerate() if thread.name == "ask"]
    with pytest.raises(Stopped):
        pool.result(names(5)[4])


def test_a_call_that_hangs_does_not_keep_the_process_alive() -> None:
    """The socket's own timeout may be an hour: the run ends without it."""
    program = textwrap.dedent(
        """
        import threading
        from tap_mde_kbs.sweep.pool import Threads
        with Threads(lambda _: threading.Event().wait(), 2) as pool:
            pool.submit("a")
        print("done", flush=True)
        """
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "done\n"
    assert ended.stderr == ""


def test_no_thread_is_started_for_a_run_that_asks_nobody() -> None:
    """And closing it is no trouble."""
    before = threading.active_count()
    with Threads(str, 4):
        assert threading.active_count() == before
