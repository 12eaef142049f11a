"""One pass over all machines: order, deferral, cursor, completeness. Knows no HTTP and no Singer.

A sweep asks every listed machine once, in id order, a few at a time, and gives each an outcome. Its
bookmark says at every moment what a later run needs to go on, and may be stored at any time. When
every machine has an outcome, the verdict says whether rows of earlier versions may be deleted.

Decisions, each for the reader of the table (no row is deleted on a guess):

- A 404 is believed only if the last three times of asking all gave a 404. One between errors, or
  after them, is a failure: a single 404 proves nothing.
- What was listed is believed per run, but a sweep may span runs. With a machine list that was not
  believed, a sweep bears a scope of its own (the scope and a `?`): no sweep goes on from one kind
  of list to the other, since the cursor would pass machines that were merely hidden.
- An empty machine list begins no sweep and leaves the bookmark alone.
- A finished sweep is healed only if a machine that had not failed in the sweep before held it back.
  Held back by the shrink guard, it was counted as a short one, and must not be counted twice.
- A sweep held back by the machine list alone does count as a short one, if it was: otherwise a
  fleet that did shrink would need three sweeps instead of two.
- A sweep that failed on too many machines, or on ten in a row, leaves those it could not place to
  the next run: the ten are asked in their turn again, and do not pile up among the deferred.
- "Failed in the sweep before" means the last sweep that finished. One that was dropped on the way
  (scope, age) hands on what it had been handed.
- A sweep in which machines failed and none answered fails the run, even if all had failed before.
- Of two sweeps in one run the last one's verdict is the run's.
- A state that looks odd where the cursor is concerned is no cursor: a new sweep begins.
- A sweep from the future (the clock went back) is gone on with, but neither healed nor left without
  a new one in the same run. Only a sweep that was gone on with is followed by a new one.
- The lists in the bookmark are bounded by their bytes too: with ids longer than some fifty
  characters, "fifty" is a little less.
- A machine that comes back, or appears, before the cursor waits for the next sweep. If it had rows
  they go with this one: it had left.

Versions only grow, and a target deletes what is *older* than the one activated. So when a target's
state lags so far behind that a run resumes a sweep after a later one had begun, the later one's
rows stay.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar

from tap_mde_kbs.state import Bookmark
from tap_mde_kbs.sweep.pool import NotFound, NotInExport, Pool, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

T = TypeVar("T")

Kind = Literal["answered", "not_found", "failed", "skipped", "not_in_export"]
DEFERRED = ("not_found", "failed")
"""What is not believed at once: the machine is asked again."""

Mode = Literal["new", "resumed", "healing"]


class ApiDown(Exception):  # noqa: N818 - as the above
    """So many machines give no answer that asking the others is of no use; the text says so."""


@dataclass(frozen=True)
class Rules:
    """How patient a sweep is.

    Attributes:
        tries: How often a deferred machine is asked again.
        pause: Seconds before each of these times.
        deferred: So many deferred machines are asked again at once, not only at the end.
        failed: More failed machines than this mean that the API is down.
        in_a_row: So many machines without any answer, one after the other, mean it too.
        list_bytes: Bytes that each list of the bookmark may take. There are three, and STATE as a
            whole stays under 8 KB.
        fresh: A sweep that began so many seconds ago is fresh.
        oldest: One that began so many seconds ago is not gone on with.
    """

    tries: int = 3
    pause: float = 3.0
    deferred: int = 50
    failed: int = 50
    in_a_row: int = 10
    list_bytes: int = 2400
    fresh: float = 12 * 3600.0
    oldest: float = 30 * 86400.0


RULES = Rules()


@dataclass(frozen=True, slots=True)
class Listed:
    """A machine of this run's list.

    Attributes:
        id: Its id.
        asked: Whether it is asked; if not, its outcome is `skipped`.
    """

    id: str
    asked: bool


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of a machine in a sweep.

    Attributes:
        machine_id: The machine's id.
        kind: answered, not_found, failed, skipped or not_in_export.
        answer: What asking returned; None unless answered.
        reason: Why there is no answer; None unless failed.
    """

    machine_id: str
    kind: Kind
    answer: T | None = None
    reason: str | None = None


class Verdict(NamedTuple):
    """How a finished sweep ended.

    Attributes:
        activate: Rows of earlier versions may be deleted.
        reason: Why, or why not: a sentence.
        fails: The run's exit status is to be 1.
        newly_failed: Machines that failed now and not in the sweep before.
        failed_again: Machines that failed in both.
    """

    activate: bool
    reason: str
    fails: bool
    newly_failed: tuple[str, ...]
    failed_again: tuple[str, ...]


class Sweep(Generic[T]):
    """One sweep, or the rest of one.

    Attributes:
        mode: "new", "resumed", or "healing": only machines that failed are asked again.
        bookmark: Where it stands. Valid whenever the caller has control.
        left: How many machines are still to be asked.
        verdict: How it ended; None while it has not.
    """

    def __init__(  # noqa: PLR0913 - all but three are keywords, and made by `sweeps` alone
        self,
        mode: Mode,
        bookmark: Bookmark,
        machines: Mapping[str, bool],
        *,
        pool: Pool[T],
        sleep: Callable[[float], None],
        listing_believed: bool,
        max_shrink_percent: float,
        rules: Rules,
    ) -> None:
        self.mode = mode
        self.bookmark = bookmark
        self.verdict: Verdict | None = None
        self._machines = machines
        self._pool = pool
        self._sleep = sleep
        self._listing_believed = listing_believed
        self._max_shrink_percent = max_shrink_percent
        self._rules = rules
        bookmark.deferred = [*filter(machines.__contains__, dict.fromkeys(bookmark.deferred))]
        bookmark.failed = [*filter(machines.__contains__, dict.fromkeys(bookmark.failed))]
        # Failed in an earlier run: asked again in this one, and failed until they answer.
        self._carried = [*bookmark.failed]
        self._ahead: Sequence[str] = []
        if not bookmark.asked_all:
            order = sorted(machines)
            self._ahead = order[bisect_right(order, bookmark.after) if bookmark.after else 0 :]
        waiting = {*self._ahead, *bookmark.deferred, *bookmark.failed}
        self.left = sum(machines[machine_id] for machine_id in waiting)

    @property
    def version(self) -> int:
        """The sweep's version: the epoch second it began."""
        return self.bookmark.version

    def outcomes(self) -> Iterator[Outcome[T]]:
        """Ask the machines; their outcomes, in id order but for those that were deferred.

        The bookmark counts an outcome when the next one is asked for, so only after the caller has
        written it. Giving up in the middle is always possible; `verdict` is there at the end.

        Raises:
            ApiDown: If too many machines give no answer.
            Exception: Whatever the pool raises besides `NotFound` and `Unavailable`.
        """
        yield from self._first_pass()
        self.bookmark.asked_all = True
        yield from self._ask_again()
        self.verdict = self._judge()

    def _first_pass(self) -> Iterator[Outcome[T]]:
        bookmark, rules = self.bookmark, self._rules
        silent: list[str] = []  # without any answer, one after the other
        before_silence = bookmark.after
        for outcome in self._ask(self._ahead):
            machine_id = outcome.machine_id
            deferred = outcome.kind in DEFERRED
            if deferred:
                bookmark.deferred.append(machine_id)
            else:
                yield outcome
                self._count(outcome)
            bookmark.after = machine_id
            if outcome.kind == "failed":
                silent.append(machine_id)
            elif outcome.kind != "skipped":
                silent = []
            if len(silent) >= rules.in_a_row:
                bookmark.after = before_silence
                bookmark.deferred = [other for other in bookmark.deferred if other not in silent]
                msg = f"{len(silent)} machines in a row gave no answer ({outcome.reason})"
                raise ApiDown(msg)
            if deferred and self._full(bookmark.deferred, rules.deferred):
                yield from self._ask_again()
                silent = []
            if not silent:
                before_silence = bookmark.after

    def _ask_again(self) -> Iterator[Outcome[T]]:
        """Ask the deferred machines, and those that failed in an earlier run, until all settle."""
        waiting = sorted({*self.bookmark.deferred, *self._carried})
        self._carried = []
        reasons: dict[str, str | None] = {}
        for tries_left in reversed(range(self._rules.tries)):
            if not waiting:
                return
            self._sleep(self._rules.pause)
            unsettled = []
            for outcome in self._ask(waiting):
                if outcome.kind == "failed":
                    reasons[outcome.machine_id] = outcome.reason
                if outcome.kind not in DEFERRED or not tries_left:
                    yield from self._settle(outcome, reasons)
                else:
                    unsettled.append(outcome.machine_id)
            waiting = unsettled

    def _settle(self, outcome: Outcome[T], reasons: Mapping[str, str | None]) -> Iterator[Outcome[T]]:
        """Give a machine that was asked again its outcome."""
        bookmark, machine_id = self.bookmark, outcome.machine_id
        if outcome.kind == "not_found" and machine_id in reasons:
            outcome = Outcome(machine_id, "failed", reason=reasons[machine_id])
        failed = [other for other in bookmark.failed if other != machine_id]
        if outcome.kind == "failed":
            if self._full([*failed, machine_id], self._rules.failed + 1):
                msg = f"{len(failed) + 1} machines gave no answer ({outcome.reason})"
                raise ApiDown(msg)
            failed.append(machine_id)
        yield outcome
        self._count(outcome)
        bookmark.failed = failed
        bookmark.deferred = [other for other in bookmark.deferred if other != machine_id]

    def _count(self, outcome: Outcome[T]) -> None:
        self.bookmark.answered += outcome.kind == "answered"
        self.left -= outcome.kind != "skipped"

    def _ask(self, machine_ids: Iterable[str]) -> Iterator[Outcome[T]]:
        """What came of asking once, in the order given.

        Never more machines than the pool has room for are asked and not yet passed on, since they
        are asked again after a kill. (When deferred machines take their turn in the middle of the
        first pass, those asked ahead of them come on top.)
        """
        todo = iter(machine_ids)
        asked: deque[str] = deque()
        in_flight = 0
        while True:
            while in_flight < self._pool.size and (machine_id := next(todo, None)) is not None:
                asked.append(machine_id)
                if self._machines[machine_id]:
                    self._pool.submit(machine_id)
                    in_flight += 1
            if not asked:
                return
            machine_id = asked.popleft()
            if not self._machines[machine_id]:
                yield Outcome(machine_id, "skipped")
                continue
            yield self._outcome(machine_id)
            in_flight -= 1

    def _outcome(self, machine_id: str) -> Outcome[T]:
        try:
            answer = self._pool.result(machine_id)
        except NotFound:
            return Outcome(machine_id, "not_found")
        except NotInExport:
            return Outcome(machine_id, "not_in_export")
        except Unavailable as error:
            return Outcome(machine_id, "failed", reason=str(error))
        return Outcome(machine_id, "answered", answer)

    def _full(self, machine_ids: Sequence[str], many: int) -> bool:
        """Whether a list of the bookmark holds that many machines, or as many as fit in STATE."""
        size = sum(_bytes(machine_id) for machine_id in machine_ids)
        return len(machine_ids) >= many or size > self._rules.list_bytes

    def _judge(self) -> Verdict:
        bookmark = self.bookmark
        activate, reason = self._may_activate()
        if activate:
            bookmark.complete = True
            bookmark.answered_last = bookmark.answered
        new = bookmark.newly_failed
        asked = sum(self._machines.values())
        return Verdict(
            activate=activate,
            reason=reason,
            fails=len(new) > max(1, asked / 100) or bool(bookmark.failed and not bookmark.answered),
            newly_failed=tuple(new),
            failed_again=tuple(other for other in bookmark.failed if other not in new),
        )

    def _may_activate(self) -> tuple[bool, str]:
        """Whether rows of earlier versions may be deleted, and why. Counts short sweeps."""
        bookmark = self.bookmark
        answered, last = bookmark.answered, bookmark.answered_last
        if not answered:
            return False, "No machine answered."
        if new := bookmark.newly_failed:
            return False, (f"{len(new)} machines gave no answer that had not failed in the sweep before.")
        if not self._listing_believed:
            bookmark.short_sweeps = int(_is_short(answered, last, self._max_shrink_percent))
            return False, "The list of machines is not believed yet: it is too short."
        believed, bookmark.short_sweeps = believe(answered, last, bookmark.short_sweeps, self._max_shrink_percent)
        if not believed:
            return False, (
                f"Only {answered} machines answered, {last} did in the last complete sweep: "
                "that is believed if the next sweep ends so too."
            )
        if bookmark.failed:
            return True, (
                "Every machine has an outcome, but for "
                f"{len(bookmark.failed)} that gave no answer in the sweep before either."
            )
        return True, "Every machine has an outcome."


def sweeps(  # noqa: PLR0913 - what it depends on is passed in; all but two are keywords
    bookmark: Bookmark,
    listed: Iterable[Listed],
    *,
    scope: str,
    pool: Pool[T],
    now: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    listing_believed: bool = True,
    max_shrink_percent: float = 5,
    rules: Rules = RULES,
) -> Iterator[Sweep[T]]:
    """What this run has to do: one sweep or two, none if no machine is listed.

    It goes on with a sweep that was broken off; heals a finished one, if machines failed in it and
    it is fresh; or begins a new one, also after one it went on with and that is not fresh any more.
    A sweep whose outcomes the caller does not exhaust is the last.

    Args:
        bookmark: Where the last run stopped. Not changed; the sweep's own is a copy.
        listed: The machines of this run's list, in any order.
        scope: What is asked for; not empty. Another one begins a new sweep.
        pool: Asks the machines.
        now: The epoch seconds.
        sleep: Waits so many seconds; may raise to end the sweep.
        listing_believed: Whether the machine list passed its own guard.
        max_shrink_percent: How many per cent fewer answers than last time are believed at once.
        rules: How patient the sweep is.
    """
    machines: dict[str, bool] = {}
    for machine in listed:
        machines[machine.id] = machine.asked or machines.get(machine.id, False)
    if not machines:
        return
    if not listing_believed:
        scope += "?"

    def begin(mode: Mode, bookmark: Bookmark) -> Sweep[T]:
        return Sweep(
            mode,
            replace(bookmark) if mode != "new" else _successor(bookmark, scope, now()),
            machines,
            pool=pool,
            sleep=sleep,
            listing_believed=listing_believed,
            max_shrink_percent=max_shrink_percent,
            rules=rules,
        )

    first = begin(_mode(bookmark, scope, now(), rules), bookmark)
    yield first
    old = abs(now() - first.version) > rules.fresh
    if first.verdict is not None and first.mode == "resumed" and old:
        yield begin("new", first.bookmark)


def believe(count: int, last: int | None, short_before: int, max_shrink_percent: float) -> tuple[bool, int]:
    """The shrink guard: may what is missing from a count be taken for gone?

    Args:
        count: How many there are now.
        last: How many there were when last believed; None before any.
        short_before: How many counts in a row, before this one, were not believed.
        max_shrink_percent: So many per cent less, or one less, is believed at once.

    Returns:
        Whether it is believed, and how many counts in a row, with this one, were not. A second one
        in a row that is too short is believed; none at all never is, and does not count.
    """
    if not count:
        return False, short_before
    if short_before or not _is_short(count, last, max_shrink_percent):
        return True, 0
    return False, 1


def _mode(bookmark: Bookmark, scope: str, now: float, rules: Rules) -> Mode:
    """What to do with what the last run left."""
    age = now - bookmark.version
    if not bookmark.version or bookmark.complete or bookmark.scope != scope:
        return "new"
    if not bookmark.finished:
        return "resumed" if age <= rules.oldest else "new"
    return "healing" if bookmark.newly_failed and abs(age) < rules.fresh else "new"


def _successor(bookmark: Bookmark, scope: str, now: float) -> Bookmark:
    """The bookmark of a new sweep, after the one given."""
    return Bookmark(
        version=max(int(now), bookmark.version + 1),
        scope=scope,
        failed_before=[*(bookmark.failed if bookmark.finished else bookmark.failed_before)],
        answered_last=bookmark.answered_last,
        short_sweeps=bookmark.short_sweeps,
        source_time=bookmark.source_time,
    )


def _is_short(count: int, last: int | None, max_shrink_percent: float) -> bool:
    """Whether there are fewer than last time, by more than allowed and more than one."""
    gone = (last or 0) - count
    return gone > 1 and gone * 100 > max_shrink_percent * (last or 0)


def _bytes(machine_id: str) -> int:
    """What an id takes in a list in STATE, its quotes and comma included."""
    return len(json.dumps(machine_id)) + 2
