"""A sweep asks everybody, knows at every moment where it stands, and takes nothing for gone on a guess.

What the world can do to it, and the rule that holds then (docs of `tap_mde_kbs.sweep`):

- Absence: a machine hidden from the list, a machine without an answer, answers without updates, an empty file. Nothing
  is believed the first time; what fell twice in a row to about the same level is.
- Lateness: a night that ends early, a sweep of many nights, a machine that answers the next night. It goes on, heals.
- Repetition: a machine listed twice, asked twice, a sweep judged twice. It counts once.
- Reorder: a list in another order, answers that overtake each other. The order is that of the ids.
- The clock: ahead, behind, back. It orders nothing; a moment that lies ahead decides nothing.
- Kills: at any outcome, with one bookmark older than the other. A machine is asked again rather than its check lost.
- Lies: 404 for machines that exist, odd answers, refusals of one machine that look as if they were of all.
"""

from __future__ import annotations

import json
import random
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

from tap_mde_kbs.errors import (
    ApiDownError,
    ApiError,
    BadRequestError,
    NoAnswerError,
    NotFoundError,
    NotInExportError,
    ShapeError,
    Stopped,
)
from tap_mde_kbs.state import MOST_NAMED, Counts, SweepBookmark, digest
from tap_mde_kbs.sweep import pool as pool_module
from tap_mde_kbs.sweep.pool import Threads
from tap_mde_kbs.sweep.sweep import RULES, Listed, Outcome, Sweep, sweeps
from tap_mde_kbs.sweep.verdict import MISSING_PAIRS, Tolerance, Verdict, believe, believe_list
from tests.support.virtual import Clock, Desk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HOUR = 3600.0
DAY = 86400.0
ERRORS = {
    "404": NotFoundError,
    "400": BadRequestError,
    "odd": ShapeError,
    "403": ApiError,
    "not in the export": NotInExportError,
    "stop": Stopped,
}
"""What a machine answers, and what a pool raises then; anything else is the reason for no answer."""


def names(count: int) -> list[str]:
    """So many ids, as long as real ones."""
    return [f"{number:040x}" for number in range(count)]


def digests(machine_ids: Iterable[str]) -> list[str]:
    """What STATE calls them."""
    return [digest(machine_id) for machine_id in machine_ids]


@dataclass
class Tenant:
    """Machines, how they answer, and what the sweeps of several runs did.

    Attributes:
        machines: Those that are listed.
        answers: What a machine answers, one call after the other, the last one for ever: "ok", a key of `ERRORS`,
            anything else is the reason for no answer. A machine that is not in it is fine.
        skipped: Machines that are not asked.
        kbs: How many updates a machine lacks.
        empty_files: Of the export.
        bookmark: As it is stored.
        stores_each: Store it after each outcome, as a test of kills needs.
        written: Each run's outcomes, as pairs of machine and kind.
        asked: Each run's calls; the next one likewise, those without another try.
    """

    machines: list[str]
    answers: dict[str, list[str]] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    kbs: int = 3
    empty_files: int = 0
    clock: Clock = field(default_factory=Clock)
    bookmark: SweepBookmark = field(default_factory=SweepBookmark)
    stores_each: bool = True
    written: list[list[tuple[str, str]]] = field(default_factory=list)
    asked: list[list[str]] = field(default_factory=list)
    asked_once: list[list[str]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)
    size: int = 4
    calls_left: int | None = None

    def ask(self, machine_id: str) -> str:
        """Answer a call."""
        if self.calls_left is not None:
            if not self.calls_left:
                raise Stopped
            self.calls_left -= 1
        left = self.answers.get(machine_id, ["ok"])
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer != "ok":
            raise ERRORS.get(answer, NoAnswerError)(answer)
        return f"KBs of {machine_id}"

    def sweeps(self, desk: Desk[str], scope: str = "scope", *, believed: bool = True) -> Iterator[Sweep[str]]:
        """What a run has to do."""
        return sweeps(
            self.bookmark,
            [Listed(name, "silent" if name in self.skipped else None) for name in self.machines],
            scope=scope,
            pool=desk,
            now=self.clock.wall,
            sleep=desk.sleep,
            list_believed=believed,
        )

    def run(
        self,
        scope: str = "scope",
        *,
        believed: bool = True,
        stop_after: int | None = None,
        calls: int | None = None,
    ) -> list[Verdict]:
        """A run, from the stored state to the stored state; the verdicts of its sweeps.

        Args:
            scope: What is asked for.
            believed: Whether the machine list is.
            stop_after: Killed while it writes this outcome.
            calls: The time is over after so many.
        """
        desk = Desk(self.ask, size=self.size)
        written: list[tuple[str, str]] = []
        verdicts: list[Verdict] = []
        self.written.append(written)
        self.asked.append(desk.asked)
        self.asked_once.append(desk.asked_once)
        self.slept = desk.slept
        self.calls_left = calls
        for sweep in self.sweeps(desk, scope, believed=believed):
            self.modes.append(sweep.mode)
            sweep.bookmark.counts.empty_files = self.empty_files
            self.store(sweep.bookmark)
            try:
                for outcome in sweep.outcomes():
                    if self.stores_each:
                        self.store(sweep.bookmark)
                    if len(written) == stop_after:
                        return verdicts
                    written.append((outcome.machine.id, outcome.kind))
                    sweep.written(outcome, rows=self.kbs if outcome.kind == "answered" else 0)
            except Stopped:
                return verdicts
            finally:
                self.store(sweep.bookmark)
            assert sweep.verdict is not None
            assert sweep.left == 0
            verdicts.append(sweep.verdict)
        return verdicts

    def night(self, **changes: object) -> list[Verdict]:
        """A day later."""
        self.clock.now += DAY
        return self.run(**changes)  # type: ignore[arg-type]

    def store(self, bookmark: SweepBookmark) -> None:
        """As STATE would be, through JSON."""
        self.bookmark = SweepBookmark.from_dict(json.loads(json.dumps(bookmark.to_dict())))
        assert self.bookmark == bookmark

    def kinds(self) -> Counter[str]:
        """How many outcomes of each kind the last run had."""
        return Counter(kind for _, kind in self.written[-1])


def complete(machines: int, **changes: object) -> Tenant:
    """A tenant whose last sweep was a complete one, a day ago."""
    tenant = Tenant(names(machines))
    assert tenant.run()[0].activate
    tenant.clock.now += DAY
    tenant.bookmark = replace(tenant.bookmark, **changes)  # type: ignore[arg-type]
    return tenant


def fleet(machines: int, **changes: object) -> Tenant:
    """A large one: what is stored is stored at the end of a run."""
    return replace(Tenant(names(machines), stores_each=False), **changes)  # type: ignore[arg-type]


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
    assert first == Outcome(Listed(names(1)[0]), "answered", f"KBs of {names(1)[0]}")
    assert len(desk.asked) == 4
    assert tenant.run()[0].activate
    assert tenant.kinds() == {"answered": 4, "skipped": 56}


def test_a_skipped_machine_tells_why_and_when_it_was_last_seen() -> None:
    """Its check has both."""
    machine = Listed("a", "excluded", "2026-11-01T00:00:00.000000Z")
    (sweep,) = sweeps(SweepBookmark(), [machine], scope="s", pool=Desk(str))
    (outcome,) = sweep.outcomes()
    assert (outcome.machine, outcome.kind, outcome.reason) == (machine, "skipped", "excluded")


def test_the_cursor_moves_only_when_the_machine_has_been_written() -> None:
    """What is stored while a machine's rows are being written does not count that machine."""
    tenant = Tenant(names(5))
    (sweep,) = tenant.sweeps(Desk(tenant.ask))
    stored = []
    for outcome in sweep.outcomes():
        stored.append((sweep.bookmark.after, sweep.bookmark.counts.answered))
        sweep.written(outcome)
        assert sweep.bookmark.after == outcome.machine.id
    assert stored == [*zip([None, *names(4)], range(5), strict=True)]


def test_the_time_limit_keeps_the_cursor() -> None:
    """The next run goes on from there."""
    tenant = Tenant(names(20))
    assert tenant.run(calls=7) == []
    assert tenant.bookmark.after == names(20)[6]
    tenant.run()
    assert tenant.asked[-1] == names(20)[7:]
    assert tenant.bookmark.complete


def test_a_machine_that_is_not_in_the_export_has_that_outcome_at_once() -> None:
    """The export says no more the second time, and it is an outcome like another."""
    tenant = Tenant(names(5), {names(5)[1]: ["not in the export"]})
    (verdict,) = tenant.run()
    assert tenant.kinds() == {"answered": 4, "not_in_export": 1}
    assert verdict.activate
    assert len(tenant.asked[-1]) == 5


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
        (["404", "odd", "404", "404"], "failed", 4),
        (["502", "404", "404", "404"], "not_found", 4),
        (["odd", "ok"], "answered", 2),
        (["400"], "failed", 4),
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


@pytest.mark.parametrize("answer", ["502 Bad Gateway", "odd", "400", "403"])
def test_a_failed_machine_tells_its_reason(answer: str) -> None:
    """The log names it, and why; so does its check."""
    tenant = Tenant(names(2), {names(2)[0]: [answer]})
    (sweep,) = tenant.sweeps(Desk(tenant.ask))
    outcome = [*sweep.outcomes()][-1]
    assert (outcome.machine.id, outcome.kind, outcome.reason) == (names(1)[0], "failed", answer)


def test_fifty_deferred_machines_are_asked_again_at_once_and_the_rest_at_the_end() -> None:
    """STATE has no room for all of them, and the first has waited for long."""
    ill = names(400)[::5]
    tenant = Tenant(names(400), {name: ["404", "ok"] for name in ill})
    tenant.run()
    order = [name for name, _ in tenant.written[-1]]
    assert order[196:246] == ill[:50]
    assert order[-30:] == ill[50:]
    assert tenant.bookmark.complete


def test_a_storm_of_404s_is_survived_and_taken_for_nothing() -> None:
    """Every machine answers 404 for good, where all answered before: exit status 1."""
    tenant = complete(300)
    tenant.answers = {name: ["404"] for name in names(300)}
    (verdict,) = tenant.run()
    assert tenant.kinds() == {"not_found": 300}
    assert (verdict.is_believed, verdict.activate) == (False, False)
    assert verdict.reason == "No machine answered."
    assert "None of the 300 machines asked answered" in verdict.fault


def test_where_nobody_ever_answered_404s_are_no_fault() -> None:
    """A tenant whose machines Defender does not assess; the contract says: where some did before."""
    tenant = Tenant(names(3), {name: ["404"] for name in names(3)})
    (verdict,) = tenant.run()
    assert (verdict.is_believed, verdict.activate, verdict.fault) == (False, False, "")


# --- one odd thing stops nothing -----------------------------------------------------------------


@pytest.mark.parametrize("answer", ["odd", "400", "403", "500", "404"])
@pytest.mark.parametrize("where", [0, 5, 11])
def test_one_odd_machine_of_twelve_for_good_leaves_the_others_fresh(answer: str, where: int) -> None:
    """First night held back, then healed and activated every night; it costs one call a night."""
    odd = names(12)[where]
    tenant = Tenant(names(12), {odd: [answer]})
    (verdict,) = tenant.run()
    assert tenant.kinds() == {"answered": 11, "not_found" if answer == "404" else "failed": 1}
    assert verdict.activate == (answer == "404")
    assert not verdict.fault
    for _ in range(3):
        verdicts = tenant.night()
        assert all(each.activate and not each.fault for each in verdicts)
        assert {name for name, kind in tenant.written[-1] if kind == "answered"} == {*names(12)} - {odd}
    if answer != "404":
        assert tenant.asked[-1].count(odd) == tenant.asked_once[-1].count(odd) == 1


@pytest.mark.parametrize("odd", [range(3), range(4, 8), range(9, 12)])
@pytest.mark.parametrize("answer", ["odd", "400", "403"])
def test_refusals_and_odd_answers_one_after_the_other_stop_nothing(answer: str, odd: range) -> None:
    """A refusal that looks as if it were of all is the machine's own where others answer, also beside its like."""
    tenant = Tenant(names(12), {names(12)[number]: [answer] for number in odd})
    assert tenant.run()[0].is_believed
    assert tenant.kinds() == {"answered": 12 - len(odd), "failed": len(odd)}
    verdicts = tenant.night()
    assert [each.activate for each in verdicts] == [True, True]


def test_a_refusal_of_everybody_ends_the_run_with_the_cursor_kept() -> None:
    """A permission that was taken away in the middle: no machine has failed, and the next run goes on."""
    tenant = Tenant(names(40), {name: ["403"] for name in names(40)[7:]})
    tenant.answers.update({names(40)[6]: ["ok", "403"]})
    with pytest.raises(ApiError, match="403"):
        tenant.run()
    assert tenant.bookmark.after == names(40)[6]
    assert tenant.bookmark.failed == []
    tenant.answers.clear()
    tenant.run()
    assert tenant.asked[-1] == names(40)[7:]


def test_a_refusal_of_everybody_at_the_beginning_ends_the_run_after_a_few_calls() -> None:
    """Nobody has answered yet: a few others are asked, and refused, too."""
    tenant = Tenant(names(40), {name: ["403"] for name in names(40)})
    with pytest.raises(ApiError, match="403"):
        tenant.run()
    assert len(tenant.asked[-1]) <= tenant.size + RULES.witnesses
    assert tenant.bookmark.after is None


def test_a_sick_machine_that_is_refused_is_its_own_matter_without_a_witness() -> None:
    """It failed in the sweep before: one call, and none for another."""
    tenant = complete(60, failed=digests(names(60)[3:6]))
    tenant.answers = {name: ["403"] for name in names(60)[3:6]}
    assert tenant.run()[0].activate
    assert len(tenant.asked[-1]) == 60


def test_sixty_sick_of_twelve_thousand_leave_the_rest_fresh_every_night() -> None:
    """Side by side, at the beginning of the list, and all over it; none of them costs more than a call a night."""
    machines = names(12_000)
    sick = {*machines[:25], *machines[6_000:6_015], *machines[11_999:0:-600]}
    tenant = fleet(12_000, answers={name: ["500"] for name in sick})
    assert len(sick) == 60
    for night in range(4):
        verdicts = tenant.night()
        assert [each.activate for each in verdicts] == (
            [False] if not night else [True, True] if night == 1 else [True]
        )
        assert not any(each.fault for each in verdicts)
        assert {name for name, kind in tenant.written[-1] if kind == "answered"} == {*machines} - sick
    assert len(tenant.asked[-1]) == 12_000


def test_sixty_sick_for_forty_nights_are_no_news() -> None:
    """The same shares, a tenth of the size."""
    sick = {*names(1_200)[:3], *names(1_200)[600:603]}
    tenant = fleet(1_200, answers={name: ["500"] for name in sick})
    for night in range(40):
        verdicts = tenant.night()
        assert verdicts[-1].activate == (night > 0)
        assert not verdicts[-1].fault
        assert tenant.kinds()["answered"] == 1_194


def test_two_hundred_sick_for_good_in_twenty_thousand_leave_the_rest_activated() -> None:
    """One in a hundred, which STATE can name."""
    sick = names(20_000)[::100]
    tenant = fleet(20_000, answers={name: ["500"] for name in sick})
    (verdict,) = tenant.run()
    assert (verdict.is_believed, verdict.activate, verdict.fault) == (True, False, "")
    assert [(each.activate, each.fault) for each in tenant.night()] == [(True, ""), (True, "")]
    assert [(each.activate, each.fault) for each in tenant.night()] == [(True, "")]
    assert len(tenant.asked[-1]) == 20_000


def test_four_that_fail_each_night_and_never_the_same_are_healed_first_thing_the_next() -> None:
    """Each sweep is activated a night late; the one of the night is believed."""
    chance = random.Random(7)  # noqa: S311 - no secret
    tenant = fleet(2_000)
    unlucky = chance.sample(names(2_000), 48)
    for night in range(0, 48, 4):
        tenant.answers = {name: ["500"] for name in unlucky[night : night + 4]}
        verdicts = tenant.night()
        if night:
            assert tenant.asked[-1][:4] == sorted(unlucky[night - 4 : night])
            assert verdicts[0].activate
        assert (verdicts[-1].is_believed, verdicts[-1].activate, verdicts[-1].fault) == (True, False, "")


def test_more_failures_than_state_can_name_end_the_sweep_without_activation() -> None:
    """It says so, with exit status 1; everybody else has been asked, and is asked again the next night."""
    sick = names(3_000)[:: 3_000 // (MOST_NAMED + 50)]
    tenant = fleet(3_000, answers={name: ["500"] for name in sick})
    for _ in range(2):
        (verdict,) = tenant.night()
        assert not verdict.activate
        assert f"more than STATE can name ({MOST_NAMED})" in verdict.reason
        assert f"more than STATE can name ({MOST_NAMED})" in verdict.fault
        assert tenant.kinds() == {"answered": 3_000 - len(sick), "failed": len(sick)}
        assert tenant.bookmark.counts.failed == len(sick)
        assert len(tenant.bookmark.failed) == MOST_NAMED


# --- the API is down -----------------------------------------------------------------------------


def test_ten_machines_in_a_row_without_an_answer_end_the_run_if_the_last_that_answered_is_silent_too() -> None:
    """A dead API is noticed after few calls; the next run asks the ten in their turn."""
    tenant = Tenant(names(100), {name: ["503", "ok"] for name in names(100)[20:40]})
    tenant.answers[names(100)[19]] = ["ok", "503", "ok"]
    with pytest.raises(ApiDownError, match=r"10 machines in a row gave no answer \(503\)"):
        tenant.run()
    assert len(tenant.asked[-1]) <= 34
    assert tenant.asked_once[-1] == [names(100)[19]]
    assert tenant.bookmark.after == names(100)[19]
    assert tenant.bookmark.deferred == []
    tenant.answers.clear()
    tenant.run()
    assert tenant.written[-1] == [(name, "answered") for name in names(100)[20:]]


@pytest.mark.parametrize("first", [0, 20, 90])
@pytest.mark.parametrize("witness", ["ok", "404", "403", "odd"])
def test_ten_in_a_row_have_failed_if_the_witness_gives_any_answer(first: int, witness: str) -> None:
    """At the very beginning of the list others are asked; a refusal is an answer here."""
    sick = names(100)[first : first + 10]
    tenant = Tenant(names(100), {name: ["503"] for name in sick})
    if first:
        tenant.answers[names(100)[first - 1]] = ["ok", witness, "ok"]
    else:
        tenant.answers.update({name: [witness, "ok"] for name in names(100)[14:]})
    (verdict,) = tenant.run()
    assert tenant.kinds() == {"answered": 90, "failed": 10}
    assert [name for name, kind in tenant.written[-1] if kind == "failed"] == sick
    assert all(tenant.asked[-1].count(name) == 1 for name in sick)
    assert not verdict.activate
    assert [each.activate for each in tenant.night()] == [True, True]


def test_where_nobody_answers_from_the_beginning_the_run_ends() -> None:
    """A few others were asked before it was believed."""
    tenant = Tenant(names(100), {name: ["503"] for name in names(100)})
    with pytest.raises(ApiDownError):
        tenant.run()
    assert len(tenant.asked[-1]) <= 10 + tenant.size + RULES.witnesses
    assert tenant.bookmark.after is None


@pytest.mark.parametrize("answer", ["ok", "404", "odd", "400", "403"])
def test_an_answer_or_a_refusal_in_between_shows_that_the_api_lives(answer: str) -> None:
    """Nine, one that answers, nine: no reason to stop, and all are asked again."""
    silent = names(19)[:9] + names(19)[10:]
    tenant = Tenant(names(19), {**{name: ["503", "ok"] for name in silent}, names(19)[9]: [answer, "ok"]})
    tenant.run()
    assert tenant.kinds() == {"answered": 19}
    assert tenant.bookmark.complete


def test_skipped_machines_are_no_sign_of_life() -> None:
    """Nobody asked them."""
    skipped = {name for number, name in enumerate(names(40)) if number % 2}
    tenant = Tenant(names(40), {name: ["503"] for name in names(40)}, skipped=skipped)
    with pytest.raises(ApiDownError):
        tenant.run()
    assert tenant.bookmark.after is None


def test_whoever_failed_before_is_no_sign_of_death() -> None:
    """Thirty sick ones in a row, ended by nine others: the API is not down."""
    sick = names(60)[10:40]
    tenant = complete(60, failed=digests(sick))
    tenant.answers = {name: ["503"] for name in sick}
    tenant.answers.update({name: ["503", "ok"] for name in names(60)[40:49]})
    (verdict,) = tenant.run()
    assert tenant.kinds() == {"answered": 30, "failed": 30}
    assert all(tenant.asked[-1].count(name) == 1 for name in sick)
    assert {*sick} <= {*tenant.asked_once[-1]}
    assert not verdict.fault


def test_what_was_passed_over_while_the_api_was_down_is_counted_once() -> None:
    """Skipped and sick machines between those without an answer: the counts are those of one pass."""
    skipped, sick = {*names(60)[1::3]}, names(60)[2::3]
    tenant = complete(60, failed=digests(sick))
    tenant.skipped = skipped
    for _ in range(3):
        tenant.answers = {name: ["503"] for name in names(60)}
        with pytest.raises(ApiDownError):
            tenant.run()
        assert tenant.bookmark.counts.outcomes == 0
    tenant.answers = {name: ["503"] for name in sick}
    tenant.run()
    counts = tenant.bookmark.counts
    assert (counts.answered, counts.failed, counts.skipped) == (20, 20, 20)
    assert tenant.written[-1] == sorted(tenant.written[-1])


def test_an_api_that_goes_down_while_machines_are_asked_again_fails_none_of_them() -> None:
    """Fifty wait, and nobody answers any more: they still wait in the next run."""
    waiting = names(200)[::4]
    tenant = Tenant(names(200), {name: ["404", "503"] for name in waiting})
    tenant.answers.update({name: ["ok", "503"] for name in names(200) if name not in waiting})
    with pytest.raises(ApiDownError):
        tenant.run()
    assert tenant.bookmark.deferred == digests(waiting)
    assert tenant.bookmark.counts.failed == 0
    tenant.answers.clear()
    (verdict,) = tenant.run()
    assert verdict.activate
    assert tenant.bookmark.counts.answered == 200


def test_an_api_that_is_down_when_machines_are_healed_does_not_fail_them_twice() -> None:
    """Their rows would be deleted; ten in a row are asked, then others, and the run ends."""
    ill = names(100)[:40:2]
    tenant = Tenant(names(100), {name: ["503"] for name in ill})
    tenant.run()
    tenant.answers = {name: ["503"] for name in names(100)}
    with pytest.raises(ApiDownError):
        tenant.night()
    assert tenant.bookmark.newly_failed == digests(ill)
    assert not tenant.bookmark.complete
    tenant.answers.clear()
    assert [each.activate for each in tenant.night()] == [True, True]


def test_the_sweep_ends_however_many_failed() -> None:
    """Every other machine: there is an answer in between."""
    ill = names(400)[::2]
    tenant = Tenant(names(400), {name: ["500"] for name in ill})
    (verdict,) = tenant.run()
    assert tenant.kinds() == {"answered": 200, "failed": 200}
    assert not verdict.activate
    assert "200 machines gave no answer that had given one before" in verdict.fault


# --- what is believed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "last", "short", "believed", "level"),
    [
        (100, None, None, True, None),
        (100, 100, None, True, None),
        (130, 100, None, True, None),
        (95, 100, None, True, None),
        (94, 100, None, False, 94),
        (94, 100, 94, True, 94),
        (90, 100, 94, True, 90),
        (94, 100, 90, True, 94),
        (3, 100, 90, False, 3),
        (90, 100, 3, False, 90),
        (95, 100, 50, True, None),
        (2, 3, None, True, None),
        (1, 3, None, False, 1),
        (0, None, None, False, None),
        (0, 1, None, False, None),
        (0, 3, 1, False, None),
        (0, 3, 0, False, None),
    ],
)
def test_a_list_is_believed_if_it_is_a_little_shorter_or_the_second_at_that_level(
    count: int, last: int | None, short: int | None, believed: bool, level: int | None
) -> None:
    """Five per cent or one machine at once; nothing at all never, and it is no level either."""
    judged = believe_list(count, last, short, 5)
    assert judged.is_believed == believed
    assert judged.short == level


@pytest.mark.parametrize(
    ("counts", "believed"),
    [
        ([100, 90, 3], [1, 0, 0]),
        ([100, 90, 3, 3], [1, 0, 0, 1]),
        ([100, 90, 90], [1, 0, 1]),
        ([100, 50, 100, 50, 100, 50], [1, 0, 1, 0, 1, 0]),
        ([100, 50, 70, 50, 70], [1, 0, 0, 0, 0]),
        ([100, 50, 0, 50, 50], [1, 0, 0, 0, 1]),
        ([100, 0, 0, 1, 1], [1, 0, 0, 0, 1]),
        ([100, 0, 0, 0, 100], [1, 0, 0, 0, 1]),
        ([100, 96, 92, 88, 84], [1, 1, 1, 1, 1]),
        ([100, 50, 50, 100], [1, 0, 1, 1]),
    ],
)
def test_lists_that_flap_are_believed_only_at_a_level_that_came_twice_in_a_row(
    counts: list[int], believed: list[int]
) -> None:
    """An empty list between two short ones ends the row: absence is not evidence, so the strict reading holds."""
    last, short, found = None, None, []
    for count in counts:
        judged = believe_list(count, last, short, 5)
        short = judged.short
        found.append(int(judged.is_believed))
        if judged.is_believed:
            last, short = count, None
    assert found == believed


@pytest.mark.parametrize(
    ("count", "last", "short", "believed"),
    [
        (100, None, None, True),
        (50, 100, None, True),
        (49, 100, None, False),
        (20, 40, None, True),
        (19, 40, None, False),
        (0, 20, None, True),
        (0, 21, None, False),
        (0, 21, 0, True),
        (90, 300, 30, True),
        (30, 300, 90, False),
        (70, 300, 90, True),
    ],
)
def test_missing_updates_may_fall_by_half_or_by_twenty_or_the_second_time(
    count: int, last: int | None, short: int | None, believed: bool
) -> None:
    """The second time not lower than the first by more than that; higher is no trouble."""
    assert believe(count, last, short, MISSING_PAIRS, both_ways=False).is_believed == believed


@given(
    count=st.integers(0, 300),
    last=st.none() | st.integers(0, 300),
    short=st.none() | st.integers(0, 300),
    percent=st.floats(0, 100),
)
def test_whatever_is_no_lower_is_believed_and_nothing_is_lower_than_nothing(
    count: int, last: int | None, short: int | None, percent: float
) -> None:
    """The same numbers give the same verdict, for any settings."""
    judged = believe(count, last, short, Tolerance(percent))
    if last is None or count >= last - 1:
        assert judged == (True, None)
    elif judged.is_believed and judged.short is not None:
        assert short is not None


def test_a_sweep_in_which_everybody_has_an_outcome_is_activated() -> None:
    """With nobody failed, and somebody answered."""
    tenant = Tenant(names(3), {names(3)[1]: ["404"]}, skipped={names(3)[2]})
    (verdict,) = tenant.run()
    assert verdict == Verdict(is_believed=True, activate=True, reason="Every machine has an outcome.", fault="")
    assert tenant.bookmark.complete
    assert tenant.bookmark.answered_last == 2
    assert tenant.bookmark.pairs_last == 3


def test_an_empty_night_of_everybody_is_not_believed_the_first_time() -> None:
    """Lists without updates for all machines: nothing is taken for installed until it comes again."""
    tenant = complete(100)
    tenant.kbs = 0
    (verdict,) = tenant.run()
    assert (verdict.is_believed, verdict.activate, verdict.fault) == (False, False, "")
    assert "Only 0 updates are missing, 300 were before" in verdict.reason
    assert tenant.bookmark.complete
    (verdict,) = tenant.night()
    assert (verdict.is_believed, verdict.activate) == (True, True)


def test_one_empty_night_of_many_is_forgotten() -> None:
    """Empty, whole, empty: the last is a first one again."""
    tenant = complete(100)
    for kbs, believed in ((0, False), (3, True), (0, False), (3, True), (1, False), (0, False), (0, True)):
        tenant.kbs = kbs
        assert tenant.night()[-1].is_believed == believed, kbs


def test_a_sweep_that_shrank_is_believed_the_second_time() -> None:
    """A permission that hides machines looks just like machines that went."""
    tenant = complete(100)
    tenant.machines = names(50)
    (verdict,) = tenant.run()
    assert (verdict.is_believed, verdict.activate, verdict.fault) == (False, False, "")
    assert "Only 50 machines answered or were skipped, 100 before" in verdict.reason
    assert tenant.bookmark.answered_short == 50
    (verdict,) = tenant.night()
    assert verdict.activate
    assert replace(tenant.bookmark, answered_short=None, answered_last=50) == tenant.bookmark


def test_machines_that_fall_silent_are_not_fewer() -> None:
    """They are skipped: an outcome that says what is known."""
    tenant = complete(100)
    tenant.skipped = {*names(50)}
    (verdict,) = tenant.run()
    assert verdict.is_believed
    assert verdict.activate
    assert tenant.bookmark.answered_last == 100


def test_a_second_short_sweep_at_another_level_is_held_back_again() -> None:
    """As the machine list is: 100, 50, 30, 30."""
    tenant = complete(100)
    for count, believed in ((50, False), (30, False), (60, False), (60, True)):
        tenant.machines = names(count)
        assert tenant.night()[-1].is_believed == believed, count
    assert tenant.bookmark.answered_last == 60


def test_a_sweep_that_nobody_answers_ends_a_row_of_short_ones() -> None:
    """Short, dead, short: the last is a first one again."""
    tenant = complete(100)
    tenant.machines = names(50)
    assert not tenant.run()[0].is_believed
    tenant.answers = {name: ["404"] for name in names(100)}
    assert not tenant.night()[0].is_believed
    tenant.answers.clear()
    assert not tenant.night()[0].is_believed
    assert tenant.night()[0].is_believed


def test_a_sweep_that_asks_nobody_is_no_failure_and_activates_nothing() -> None:
    """A map filter that keeps no machine of those that report."""
    tenant = complete(5)
    tenant.skipped = {*names(5)}
    (verdict,) = tenant.run()
    assert not verdict.activate
    assert not verdict.fault


def test_a_sweep_over_a_list_that_is_not_believed_activates_nothing() -> None:
    """What it does not hold was not asked, and would be deleted; its answers are as good as any."""
    tenant = complete(100)
    (verdict,) = tenant.run(believed=False)
    assert (verdict.is_believed, verdict.activate, verdict.fault) == (True, False, "")
    assert "too short to be believed" in verdict.reason
    assert tenant.bookmark.complete


def test_a_list_that_is_not_believed_neither_ends_a_sweep_nor_begins_one() -> None:
    """It goes on under both kinds of lists, and then nothing is activated; the one after it is."""
    tenant = complete(100)
    tenant.run(stop_after=20)
    tenant.clock.now += HOUR
    tenant.run(stop_after=20, believed=False)
    tenant.clock.now += HOUR
    (verdict,) = tenant.run()
    assert tenant.modes[-3:] == ["new", "resumed", "resumed"]
    assert (verdict.is_believed, verdict.activate) == (True, False)
    assert tenant.night()[0].activate


def test_a_sweep_whose_failures_are_healed_under_a_list_not_believed_activates_nothing() -> None:
    """The machine that failed is hidden now: it has not left."""
    tenant = Tenant(names(100), {names(1)[0]: ["500"]})
    tenant.run()
    tenant.machines = names(100)[50:]
    verdicts = tenant.night(believed=False)
    assert not any(each.activate for each in verdicts)


def test_a_fleet_that_did_shrink_is_believed_on_the_second_night_by_both_guards() -> None:
    """The list's guard holds back the first night's sweep, which counts as short by itself."""
    tenant = complete(100)
    tenant.machines = names(50)
    assert not tenant.run(believed=False)[0].activate
    assert tenant.night()[0].activate


def test_more_empty_files_than_the_last_time_are_not_believed_the_first_time() -> None:
    """Also of the very first export; a real one is empty again the next time."""
    tenant = complete(100)
    for number, (files, believed) in enumerate(((1, 0), (1, 1), (2, 0), (1, 1), (0, 1), (1, 0), (2, 0), (2, 1))):
        tenant.empty_files = files
        (verdict,) = tenant.night(scope=f"export {number}")
        assert verdict.is_believed == bool(believed), number
    tenant = Tenant(names(100), empty_files=1)
    assert not tenant.run()[0].is_believed


def test_an_export_that_was_not_read_to_its_end_is_none_to_compare_with() -> None:
    """Its empty file was never judged."""
    tenant = complete(100)
    tenant.empty_files = 1
    tenant.run("export 1", stop_after=30)
    assert not tenant.night(scope="export 2")[0].is_believed
    assert tenant.night(scope="export 3")[0].is_believed


# --- who failed ----------------------------------------------------------------------------------


def test_one_failed_machine_holds_back_activation_once_but_not_twice() -> None:
    """It may have been ill for a moment; a sick one must not keep installed updates for ever."""
    tenant = complete(200)
    tenant.answers[names(1)[0]] = ["500"]
    (verdict,) = tenant.run()
    assert (verdict.is_believed, verdict.activate, verdict.fault) == (True, False, "")
    assert "1 machines gave no answer that had not failed before" in verdict.reason
    healed, new = tenant.night()
    assert tenant.modes[-2:] == ["healing", "new"]
    assert healed.activate
    assert new.activate
    assert not healed.fault
    assert "but for 1 that gave no answer before either" in new.reason
    assert tenant.bookmark.failed == digests(names(1))


@pytest.mark.parametrize(
    ("machines", "failing", "fails"),
    [(20, 1, False), (20, 2, True), (200, 2, False), (200, 3, True), (399, 3, False), (399, 4, True)],
)
def test_more_than_a_percent_of_new_failures_fail_the_run(machines: int, failing: int, fails: bool) -> None:
    """Up to a percent, or one machine, what follows in the pipeline runs."""
    tenant = Tenant(names(machines), {name: ["500"] for name in names(machines)[:failing]})
    (verdict,) = tenant.run()
    assert bool(verdict.fault) == fails
    assert not verdict.activate


def test_machines_that_failed_before_do_not_fail_the_run() -> None:
    """They were told of; a sick one does not stop the pipeline every night."""
    tenant = complete(100)
    tenant.answers = {name: ["500"] for name in names(5)}
    assert tenant.run()[0].fault
    for _ in range(2):
        assert all(each.activate and not each.fault for each in tenant.night())


def test_so_many_failures_that_the_sweep_is_short_are_not_believed_the_first_night() -> None:
    """Those that answered are as true as ever; what is absent may be of a bad night. The second night they hold."""
    tenant = complete(100)
    tenant.answers = {name: ["500"] for name in names(100)[::5]}
    (verdict,) = tenant.run()
    assert (verdict.is_believed, verdict.activate) == (False, False)
    assert verdict.fault
    (verdict,) = tenant.night()
    assert (verdict.is_believed, verdict.activate, verdict.fault) == (True, True, "")


def test_a_sweep_that_nobody_answers_fails_the_run_however_often() -> None:
    """A fleet of five with a dead API is no success, the second night neither."""
    tenant = complete(5)
    tenant.answers = {name: ["500"] for name in names(5)}
    for _ in range(3):
        verdicts = tenant.night()
        assert verdicts[-1].fault
        assert not any(each.activate or each.is_believed for each in verdicts)


@pytest.mark.parametrize("days", [0.01, 0.4, 1, 29, 31, 400])
def test_a_sweep_held_back_by_failures_is_healed_first_however_old(days: float) -> None:
    """And a new one begins, unless it began under twelve hours ago."""
    tenant = Tenant(names(300), {name: ["500"] for name in names(300)[7:9]})
    assert not tenant.run()[0].activate
    version = tenant.bookmark.version
    tenant.clock.now += days * DAY
    tenant.answers.clear()
    verdicts = tenant.run()
    assert all(each.activate for each in verdicts)
    assert tenant.asked[-1][:2] == names(300)[7:9]
    if days < 0.5:
        assert tenant.modes == ["new", "healing"]
        assert len(tenant.asked[-1]) == 2
        assert tenant.bookmark.version == version
        assert (tenant.bookmark.counts.answered, tenant.bookmark.counts.failed) == (300, 0)
        assert (tenant.bookmark.answered_last, tenant.bookmark.pairs_last) == (300, 900)
    else:
        assert tenant.modes == ["new", "healing", "new"]
        assert len(tenant.asked[-1]) == 302


def test_whoever_fails_again_when_healed_has_failed_twice() -> None:
    """The rest is activated; in the next sweep it is asked once."""
    tenant = Tenant(names(300), {names(1)[0]: ["500"], names(2)[1]: ["500", "500", "500", "500", "ok"]})
    assert not tenant.run()[0].activate
    tenant.clock.now += HOUR
    (verdict,) = tenant.run()
    assert verdict.activate
    assert tenant.bookmark.failed == tenant.bookmark.failed_before == digests(names(1))
    assert tenant.bookmark.counts.failed == 1
    tenant.night()
    assert tenant.asked[-1].count(names(1)[0]) == 1


def test_healing_gets_on_in_runs_that_have_time_for_few_calls() -> None:
    """Forty sick machines, sixty calls a run: nobody waits for ever behind them."""
    sick = names(1_000)[:400:10]
    tenant = Tenant(names(1_000), {name: ["500"] for name in sick}, stores_each=False)
    for _ in range(60):
        tenant.clock.now += HOUR
        if any(each.activate for each in tenant.run(calls=60)):
            return
    pytest.fail("never activated")


def test_a_failed_machine_that_left_does_not_keep_its_sweep_from_being_healed() -> None:
    """There is nobody left to ask."""
    tenant = Tenant(names(300), {names(1)[0]: ["500"]})
    tenant.run()
    tenant.machines = names(300)[1:]
    (verdict,) = tenant.run()
    assert verdict.activate
    assert tenant.asked[-1] == []


def test_a_sweep_that_is_not_believed_is_not_healed_and_never_judged_twice() -> None:
    """A machine that failed as well gives no occasion to call one short sweep two."""
    tenant = complete(100)
    tenant.answers = {names(1)[0]: ["500"]}
    tenant.machines = names(50)
    assert not tenant.run()[0].is_believed
    assert tenant.bookmark.answered_short == 49
    tenant.clock.now += 60
    assert tenant.run()[0].activate
    assert tenant.modes[-1] == "new"


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
    assert tenant.bookmark.counts.answered == 50
    assert tenant.bookmark.counts.pairs == 150
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
    tenant = Tenant(names(20), {name: [*them] for name, them in answers.items()}, skipped={names(20)[16]})
    tenant.bookmark = SweepBookmark(failed_before=digests([names(20)[9]]))
    tenant.run(stop_after=stop_after)
    if not tenant.bookmark.complete:
        tenant.run()
    assert tenant.bookmark.complete
    counts = tenant.bookmark.counts
    assert (counts.answered, counts.not_found, counts.failed, counts.skipped) == (17, 1, 1, 1)
    assert tenant.bookmark.failed == digests([names(20)[9]])
    assert {name for run in tenant.written for name, _ in run} == {*names(20)}


def test_machines_that_failed_or_wait_are_asked_again_when_a_sweep_is_resumed() -> None:
    """Those that left the list in between are dropped, new ones ahead of the cursor are asked."""
    tenant = Tenant(names(100))
    tenant.bookmark = SweepBookmark(
        version=int(tenant.clock.wall()) - 60,
        scope="scope",
        began_at="2026-09-21T00:00:00Z",
        after=names(100)[49],
        deferred=digests([names(100)[3], names(100)[4]]),
        failed=digests([names(100)[7], names(100)[8]]),
        counts=Counts(answered=46, failed=2, pairs=138),
    )
    tenant.machines = [name for name in names(102) if name not in (names(100)[4], names(100)[8])]
    verdict, *_ = tenant.run()
    assert tenant.asked[-1][:54] == [*names(102)[50:], names(100)[3], names(100)[7]]
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
    tenant = complete(50, failed=digests(names(1)), answered_short=40, pairs_short=9)
    tenant.run(stop_after=20)
    first = tenant.bookmark
    tenant.run(scope="another", stop_after=0)
    assert tenant.modes[-2:] == ["new", "new"]
    bookmark = tenant.bookmark
    assert bookmark.version == first.version + 1
    assert bookmark.after is None
    assert bookmark.counts.answered == 0
    assert (bookmark.answered_last, bookmark.answered_short) == (50, 40)
    assert (bookmark.pairs_last, bookmark.pairs_short) == (150, 9)
    assert bookmark.failed_before == digests(names(1))


@pytest.mark.parametrize(("days", "modes"), [(29, ["resumed", "new"]), (31, ["new"])])
def test_a_sweep_without_progress_for_thirty_days_is_dropped(days: float, modes: list[str]) -> None:
    """Its first rows are a month old, and nobody works on it."""
    tenant = Tenant(names(20))
    tenant.run(stop_after=10)
    tenant.clock.now += days * DAY
    tenant.run()
    assert tenant.modes[1:] == modes


def test_a_fleet_that_takes_weeks_is_asked_to_its_end_again_and_again() -> None:
    """50,000 machines at 1,500 a night take 34 nights; here a fiftieth, for 120 nights: three sweeps of everybody."""
    tenant = fleet(1_000)
    asked: Counter[str] = Counter()
    activated = 0
    for _ in range(120):
        activated += sum(each.activate for each in tenant.night(calls=30))
        asked.update(name for name, _ in tenant.written[-1])
    assert {*asked} == {*names(1_000)}
    assert min(asked.values()) >= 3
    assert activated == 3
    assert max(asked.values()) - min(asked.values()) <= 1


def test_sick_machines_of_a_fleet_that_takes_weeks_starve_nobody() -> None:
    """Thirty sick ones side by side, which eat a night's calls."""
    tenant = fleet(600, answers={name: ["500"] for name in names(600)[200:230]})
    asked: Counter[str] = Counter()
    for _ in range(40):
        tenant.night(calls=45)
        asked.update(name for name, _ in tenant.written[-1])
    assert min(asked[name] for name in names(600)) >= 2


def test_silent_machines_at_the_end_of_every_run_stop_nothing() -> None:
    """They wait, and the others have their turn, also where a run has time for forty calls."""
    tenant = fleet(200, answers={name: ["500"] for name in names(200)[33:63]})
    for _ in range(60):
        tenant.clock.now += HOUR
        if tenant.run(calls=40):
            return
    pytest.fail(f"stuck at {tenant.bookmark.after}")


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
    assert next(next(work).outcomes()).machine.id == names(30)[10]
    assert next(work, None) is None


def test_an_empty_machine_list_begins_nothing() -> None:
    """The state stays as it is."""
    tenant = Tenant(names(30))
    tenant.run(stop_after=10)
    before = tenant.bookmark
    tenant.machines = []
    assert tenant.run() == []
    assert tenant.bookmark == before


# --- the clock -----------------------------------------------------------------------------------


def test_versions_grow_even_if_the_clock_goes_back() -> None:
    """A lower version would have its rows deleted by the one before."""
    tenant = complete(5)
    before = tenant.bookmark.version
    tenant.clock.set_back = 400 * DAY
    tenant.run()
    assert tenant.bookmark.version == before + 1
    tenant.run(scope="another", stop_after=2)
    tenant.run(scope="another")
    assert tenant.modes[-2:] == ["new", "resumed"]
    assert tenant.bookmark.version == before + 2


@pytest.mark.parametrize("ahead", [DAY, 20 * 365 * DAY])
def test_a_clock_that_was_ahead_for_a_night_decides_nothing(ahead: float) -> None:
    """What began in the future is gone on with, and followed by a new one in the same run, each night."""
    tenant = complete(20)
    tenant.clock.set_back = -ahead
    tenant.run(stop_after=7)
    version = tenant.bookmark.version
    tenant.clock.set_back = 0.0
    assert [each.activate for each in tenant.run()] == [True, True]
    assert tenant.modes[-2:] == ["resumed", "new"]
    assert tenant.asked[-1] == names(20)[7:] + names(20)
    assert tenant.bookmark.version == version + 1
    tenant.night()
    assert tenant.bookmark.version == version + 2


def test_progress_in_the_future_drops_nothing_and_keeps_nothing_for_ever() -> None:
    """Gone on with; the progress of this run then has its own time, by which it may be dropped."""
    tenant = Tenant(names(20))
    tenant.run(stop_after=5)
    tenant.clock.set_back = 400 * DAY
    tenant.run(stop_after=5)
    assert tenant.modes[-1] == "resumed"
    tenant.clock.now += 31 * DAY
    tenant.run()
    assert tenant.modes[-1] == "new"


def test_the_last_rows_time_is_kept_whatever_was_later_before() -> None:
    """`source_time` tells whether an export is another than the last one loaded, not whether it is later."""
    tenant = complete(3)
    for made_at in ("2026-11-24T06:00:00Z", "2026-11-24T00:00:00Z"):
        (sweep,) = tenant.sweeps(Desk(tenant.ask), made_at)
        for outcome in sweep.outcomes():
            sweep.written(outcome, rows=3, answered_at=made_at)
        tenant.store(sweep.bookmark)
        assert tenant.bookmark.source_time == made_at
    tenant.run()
    assert tenant.bookmark.source_time == "2026-11-24T00:00:00Z"


# --- the bookmark --------------------------------------------------------------------------------


def test_the_bookmark_given_is_not_changed() -> None:
    """A run may be dry."""
    tenant = Tenant(names(20))
    tenant.run(stop_after=10)
    tenant.bookmark.deferred = digests(["gone"])
    before = tenant.bookmark.to_dict()
    bookmark = tenant.bookmark
    tenant.run()
    assert bookmark.to_dict() == before


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
KEYS = [*SweepBookmark().to_dict()]
COUNTS = [*SweepBookmark().to_dict()["counts"]]


@given(
    st.dictionaries(
        st.sampled_from(KEYS) | st.text(),
        json_values | st.dictionaries(st.sampled_from(COUNTS), json_values),
    )
    | json_values
)
def test_a_sweep_can_begin_from_any_state_whatever(state: object) -> None:
    """Older versions, other taps, hand-written states: whatever it is, everybody gets asked."""
    tenant = Tenant(names(3), bookmark=SweepBookmark.from_dict(state))
    assert [*tenant.bookmark.to_dict()] == KEYS
    tenant.run()
    assert {*tenant.asked[-1]} == {*names(3)}


def test_the_newest_rows_time_survives_a_new_sweep() -> None:
    """`source_time` tells a later export whether it is news."""
    tenant = complete(3, source_time="2026-11-24T00:00:00Z")
    tenant.run()
    assert tenant.bookmark.source_time == "2026-11-24T00:00:00Z"


# --- a state of the version before ---------------------------------------------------------------


def old(tenant: Tenant, **changes: object) -> SweepBookmark:
    """As the version before wrote it."""
    began = int(tenant.clock.wall()) - 3_600
    state = {
        "version": began,
        "scope": "scope",
        "after": None,
        "deferred": [],
        "failed": [],
        "failed_before": [],
        "asked_all": False,
        "complete": False,
        "answered": 0,
        "answered_last": None,
        "short_sweeps": 0,
        "source_time": None,
    }
    return SweepBookmark.from_dict(json.loads(json.dumps({**state, **changes})))


def test_a_state_of_the_version_before_is_gone_on_with() -> None:
    """Its ids, its counts, its version; the sick are asked once, the deferred and the failed again."""
    tenant = Tenant(names(100))
    ids = names(100)
    tenant.answers = {ids[60]: ["500"], ids[9]: ["500"]}
    tenant.bookmark = old(
        tenant,
        after=ids[49],
        deferred=[ids[3]],
        failed=[ids[7], ids[9]],
        failed_before=[ids[9], ids[60]],
        answered=47,
        answered_last=100,
    )
    version = tenant.bookmark.version
    (verdict,) = tenant.run()
    assert tenant.modes == ["resumed"]
    assert tenant.bookmark.version == version
    assert tenant.asked[-1] == [*ids[50:], ids[3], ids[7]]
    assert tenant.bookmark.counts.answered == 98
    assert (verdict.is_believed, verdict.activate) == (True, True)
    assert tenant.bookmark.pairs_last is None


def test_a_finished_sweep_of_the_version_before_is_healed() -> None:
    """With a few calls."""
    tenant = Tenant(names(100))
    tenant.bookmark = old(tenant, after=names(100)[99], failed=names(2), asked_all=True, answered=98, answered_last=100)
    (verdict,) = tenant.run()
    assert tenant.asked[-1] == names(2)
    assert verdict.activate


def test_a_complete_sweep_of_the_version_before_is_followed_by_a_new_one() -> None:
    """Judged by what the last one counted."""
    tenant = Tenant(names(50))
    tenant.bookmark = old(
        tenant, after=names(100)[99], asked_all=True, complete=True, answered=100, answered_last=100, failed=names(1)
    )
    version = tenant.bookmark.version
    (verdict,) = tenant.run()
    assert tenant.modes == ["new"]
    assert tenant.bookmark.version > version
    assert not verdict.is_believed
    assert tenant.bookmark.failed_before == digests(names(1))


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

    def ask(machine_id: str, _once: bool) -> str:
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


def test_answers_that_come_quickly_are_asked_for_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """More would compete with it for the interpreter."""
    monkeypatch.setattr(pool_module, "QUICK", 60)
    with Threads(lambda _machine_id, _once: threading.get_ident(), 4) as pool:
        for name in names(20):
            pool.submit(name)
        assert len({pool.result(name) for name in names(20)}) == 1


def test_a_real_sweep_over_threads_is_the_same_as_any() -> None:
    """The last answers may come first; the order of what is written does not change."""
    machines = names(40)
    tenant = Tenant(machines, {machines[5]: ["404", "ok"], machines[6]: ["404"]})

    def ask(machine_id: str, _once: bool) -> str:
        time.sleep(0.001 * (int(machine_id, 16) % 4))
        return tenant.ask(machine_id)

    with Threads(ask, 4) as pool:
        (sweep,) = sweeps(
            SweepBookmark(),
            [Listed(name) for name in machines],
            scope="s",
            pool=pool,
            sleep=lambda _: None,
        )
        written = []
        for outcome in sweep.outcomes():
            written.append(outcome.machine.id)
            sweep.written(outcome)
    late = machines[5:7]
    assert written == [name for name in machines if name not in late] + late
    assert sweep.verdict is not None
    assert sweep.verdict.activate


def test_closing_wakes_whoever_waits_and_ends_the_threads() -> None:
    """An interrupt must not wait for an answer that takes a minute."""
    free = threading.Event()
    pool = Threads(lambda machine_id, _once: str(free.wait(30)) + machine_id, 2)
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
        with Threads(lambda _machine_id, _once: threading.Event().wait(), 2) as pool:
            pool.submit("a")
        print("done", flush=True)
        """
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "done\n"
    assert ended.stderr == ""


def test_who_is_asked_once_is_told_so() -> None:
    """The sick are not worth a second call."""
    with Threads(lambda machine_id, once: f"{machine_id} {once}", 2) as pool:
        pool.submit("a", once=True)
        pool.submit("b")
        assert [pool.result("a"), pool.result("b")] == ["a True", "b False"]


def test_no_thread_is_started_for_a_run_that_asks_nobody() -> None:
    """And closing it is no trouble."""
    before = threading.active_count()
    with Threads(lambda machine_id, _once: machine_id, 4):
        assert threading.active_count() == before
