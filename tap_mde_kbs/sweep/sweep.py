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
- Machines in a row without any answer wait, with the cursor before them, until another shows that the
  API lives. If none does they are asked in their turn again by the next run, and do not pile up among
  the deferred.
- "Failed in the sweep before" means the last sweep that finished. One that was dropped on the way
  (scope, age) hands on what it had been handed.
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
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from tap_mde_kbs.errors import ApiDownError, BadRequestError, NoAnswerError, NotFoundError, NotInExportError
from tap_mde_kbs.state import SweepBookmark
from tap_mde_kbs.sweep.verdict import judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tap_mde_kbs.sweep.pool import Pool
    from tap_mde_kbs.sweep.verdict import Verdict

T = TypeVar("T")

Kind = Literal["answered", "not_found", "failed", "skipped", "not_in_export"]
KINDS: tuple[Kind, ...] = ("answered", "not_found", "failed", "skipped", "not_in_export")
"""Every outcome that a machine can have."""

DEFERRED = ("not_found", "failed")
"""What is not believed at once: the machine is asked again."""

Mode = Literal["new", "resumed", "healing"]


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


class Sweep(Generic[T]):
    """One sweep, or the rest of one.

        for outcome in sweep.outcomes():
            ...  # write it
            sweep.written(outcome)

    Attributes:
        mode: "new", "resumed", or "healing": only machines that failed are asked again.
        bookmark: Where it stands: what was written is behind it, and nothing else.
        left: How many machines are still to be asked.
        verdict: How it ended; None while it has not.
    """

    def __init__(  # noqa: PLR0913 - all but three are keywords, and made by `sweeps` alone
        self,
        mode: Mode,
        bookmark: SweepBookmark,
        machines: Mapping[str, bool],
        *,
        pool: Pool[T],
        sleep: Callable[[float], None],
        list_believed: bool,
        max_shrink_percent: float,
        rules: Rules,
    ) -> None:
        self.mode = mode
        self.bookmark = bookmark
        self.verdict: Verdict | None = None
        self._machines = machines
        self._pool = pool
        self._sleep = sleep
        self._list_believed = list_believed
        self._max_shrink_percent = max_shrink_percent
        self._rules = rules
        bookmark.deferred = [*filter(machines.__contains__, dict.fromkeys(bookmark.deferred))]
        bookmark.failed = [*filter(machines.__contains__, dict.fromkeys(bookmark.failed))]
        self._failed_earlier = [*bookmark.failed]
        """Failed in an earlier run: asked again in this one, and failed until they answer."""
        self._ahead: Sequence[str] = []
        """Not asked yet, in id order."""
        if not bookmark.asked_all:
            order = sorted(machines)
            self._ahead = order[bisect_right(order, bookmark.after) if bookmark.after else 0 :]
        self._silent: list[str] = []
        """Without any answer, one after the other, until now; the cursor stays before them."""
        self._asked_again: Sequence[str] = ()
        """Those that are asked again just now, not in their turn."""
        waiting = {*self._ahead, *bookmark.deferred, *bookmark.failed}
        self.left = sum(machines[machine_id] for machine_id in waiting)

    @property
    def version(self) -> int:
        """The sweep's version: the epoch second it began."""
        return self.bookmark.version

    def outcomes(self) -> Iterator[Outcome[T]]:
        """Ask the machines; their outcomes, in id order but for those that were deferred.

        Whoever takes one writes it and says so (`written`) before taking the next. Giving up in the
        middle is always possible; `verdict` is there at the end.

        Raises:
            ApiDownError: Too many machines give no answer.
            Exception: Whatever the pool raises that is no outcome of one machine.
        """
        yield from self._first_pass()
        self.bookmark.asked_all = True
        yield from self._ask_again()
        self.verdict = judge(
            self.bookmark,
            asked=sum(self._machines.values()),
            list_believed=self._list_believed,
            max_shrink_percent=self._max_shrink_percent,
        )

    def written(self, outcome: Outcome[T], answered_at: str | None = None) -> None:
        """Count an outcome in the bookmark: its rows are out, so that no later run need ask the machine again.

        Args:
            outcome: One of `outcomes`.
            answered_at: The rows' `checked_at`; None where there are none.
        """
        bookmark, machine_id = self.bookmark, outcome.machine_id
        if answered_at:
            bookmark.source_time = max(bookmark.source_time or "", answered_at)
        bookmark.answered += outcome.kind == "answered"
        self.left -= outcome.kind != "skipped"
        if machine_id in self._asked_again:
            bookmark.deferred = [other for other in bookmark.deferred if other != machine_id]
            bookmark.failed = [other for other in bookmark.failed if other != machine_id]
            if outcome.kind == "failed":
                bookmark.failed.append(machine_id)
        elif not self._silent:
            bookmark.after = machine_id

    def _first_pass(self) -> Iterator[Outcome[T]]:
        """Ask everybody in their turn; whoever gives no answer, or says 404, is deferred."""
        for outcome in self._ask(self._ahead):
            if outcome.kind == "skipped":  # no sign of life: it was not asked
                yield outcome
            elif outcome.kind == "failed":
                self._silent.append(outcome.machine_id)
                if len(self._silent) >= self._rules.in_a_row:
                    msg = f"{len(self._silent)} machines in a row gave no answer ({outcome.reason})"
                    raise ApiDownError(msg)
            else:
                yield from self._defer_the_silent()
                if outcome.kind == "not_found":
                    yield from self._defer(outcome.machine_id)
                else:
                    yield outcome
        yield from self._defer_the_silent()

    def _defer_the_silent(self) -> Iterator[Outcome[T]]:
        silent, self._silent = self._silent, []
        for machine_id in silent:
            yield from self._defer(machine_id)

    def _defer(self, machine_id: str) -> Iterator[Outcome[T]]:
        """Leave a machine for later; once there are many, ask them again at once."""
        self.bookmark.deferred.append(machine_id)
        self.bookmark.after = machine_id
        if self._is_full(self.bookmark.deferred, self._rules.deferred):
            yield from self._ask_again()

    def _ask_again(self) -> Iterator[Outcome[T]]:
        """Ask the deferred machines, and those that failed in an earlier run, until all have an outcome."""
        waiting = sorted({*self.bookmark.deferred, *self._failed_earlier})
        self._failed_earlier = []
        self._asked_again = waiting
        reasons: dict[str, str | None] = {}
        for tries_left in reversed(range(self._rules.tries)):
            if not waiting:
                break
            self._sleep(self._rules.pause)
            still_waiting = []
            for outcome in self._ask(waiting):
                if outcome.kind == "failed":
                    reasons[outcome.machine_id] = outcome.reason
                if outcome.kind in DEFERRED and tries_left:
                    still_waiting.append(outcome.machine_id)
                else:
                    yield self._final(outcome, reasons)
            waiting = still_waiting
        self._asked_again = ()

    def _final(self, outcome: Outcome[T], reasons: Mapping[str, str | None]) -> Outcome[T]:
        """The outcome of a machine that was asked again as often as it is.

        Args:
            outcome: Of the last time.
            reasons: Why it gave no answer the times before, for those that gave none.

        Raises:
            ApiDownError: It failed, and too many have.
        """
        machine_id = outcome.machine_id
        if outcome.kind == "not_found" and machine_id in reasons:
            outcome = Outcome(machine_id, "failed", reason=reasons[machine_id])
        if outcome.kind == "failed":
            failed = [*(other for other in self.bookmark.failed if other != machine_id), machine_id]
            if self._is_full(failed, self._rules.failed + 1):
                msg = f"{len(failed)} machines gave no answer ({outcome.reason})"
                raise ApiDownError(msg)
        return outcome

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
        except NotFoundError:
            return Outcome(machine_id, "not_found")
        except NotInExportError:
            return Outcome(machine_id, "not_in_export")
        except (NoAnswerError, BadRequestError) as error:
            return Outcome(machine_id, "failed", reason=str(error))
        return Outcome(machine_id, "answered", answer)

    def _is_full(self, machine_ids: Sequence[str], many: int) -> bool:
        """Whether a list of the bookmark holds that many machines, or as many as fit in STATE."""
        size = sum(_bytes(machine_id) for machine_id in machine_ids)
        return len(machine_ids) >= many or size > self._rules.list_bytes


def sweeps(  # noqa: PLR0913 - what it depends on is passed in; all but two are keywords
    bookmark: SweepBookmark,
    listed: Iterable[Listed],
    *,
    scope: str,
    pool: Pool[T],
    now: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    list_believed: bool = True,
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
        list_believed: Whether the machine list passed its own guard.
        max_shrink_percent: How many per cent fewer answers than last time are believed at once.
        rules: How patient the sweep is.
    """
    machines: dict[str, bool] = {}
    for machine in listed:
        machines[machine.id] = machine.asked or machines.get(machine.id, False)
    if not machines:
        return
    if not list_believed:
        scope += "?"

    def begin(mode: Mode, bookmark: SweepBookmark) -> Sweep[T]:
        return Sweep(
            mode,
            replace(bookmark) if mode != "new" else _successor(bookmark, scope, now()),
            machines,
            pool=pool,
            sleep=sleep,
            list_believed=list_believed,
            max_shrink_percent=max_shrink_percent,
            rules=rules,
        )

    first = begin(_mode(bookmark, scope, now(), rules), bookmark)
    yield first
    old = abs(now() - first.version) > rules.fresh
    if first.verdict is not None and first.mode == "resumed" and old:
        yield begin("new", first.bookmark)


def _mode(bookmark: SweepBookmark, scope: str, now: float, rules: Rules) -> Mode:
    """What to do with what the last run left."""
    age = now - bookmark.version
    if not bookmark.version or bookmark.complete or bookmark.scope != scope:
        return "new"
    if not bookmark.finished:
        return "resumed" if age <= rules.oldest else "new"
    return "healing" if bookmark.newly_failed and abs(age) < rules.fresh else "new"


def _successor(bookmark: SweepBookmark, scope: str, now: float) -> SweepBookmark:
    """The bookmark of a new sweep, after the one given."""
    return SweepBookmark(
        version=max(int(now), bookmark.version + 1),
        scope=scope,
        failed_before=[*(bookmark.failed if bookmark.finished else bookmark.failed_before)],
        answered_last=bookmark.answered_last,
        short_sweeps=bookmark.short_sweeps,
        source_time=bookmark.source_time,
    )


def _bytes(machine_id: str) -> int:
    """What an id takes in a list in STATE, its quotes and comma included."""
    return len(json.dumps(machine_id)) + 2
