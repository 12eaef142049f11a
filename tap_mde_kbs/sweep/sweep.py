"""One pass over all machines: order, deferral, cursor, completeness. Knows no HTTP and no Singer.

A sweep asks every listed machine once, in id order, a few at a time, and gives each an outcome. Its
bookmark says at every moment what a later run needs to go on, and may be stored at any time. When
every machine has an outcome, `verdict` says what is believed, and whether older rows may be deleted.

A sweep always ends, and everybody's turn comes:

- Whoever gives no answer, or an odd one, is asked again a few times, and has failed then. Whoever failed
  in the sweep before is asked once, so that the sick do not eat the quota.
- Machines in a row without any answer wait, with the cursor before them, until another shows that the API
  lives. After ten of them the machine that answered last is asked once more (a few others, if none has
  answered yet): if it gives an answer of any kind, the ten have failed; if not, the API is down, and the next
  run asks them in their turn. So it is where machines are asked again.
- A refusal that seems to be about all calls (of the token, a permission, a redirect) is the machine's own
  if another machine is not refused like that, or if it failed in the sweep before.
- Machines are asked again ten at a time, each until it has an outcome: a run that has time for few of them
  gets on, too. If the time ends while machines in a row gave no answer, they are deferred.
- A sweep that machines which failed held back is healed first thing in the next run: they are asked again,
  and whoever fails again has failed twice and holds nothing back.
- It goes on for as many nights as it needs, and is dropped only when it made no progress for thirty days.

Decisions:

- A 404 is believed only if the last three times of asking all gave a 404. One between errors, or
  after them, is a failure: a single 404 proves nothing.
- A list that is not believed neither ends a sweep nor begins one, but nothing is deleted after a sweep that
  ran over one. A machine that was hidden while the cursor passed it waits for the next sweep.
- An empty machine list begins no sweep and leaves the bookmark alone.
- "Failed in the sweep before" means the last sweep that finished. One that was dropped on the way hands on
  what it had been handed.
- Of two sweeps in one run the last one's verdict is the run's.
- A state that looks odd where the cursor is concerned is no cursor: a new sweep begins.
- A moment in STATE that lies in the future decides nothing: a sweep that began then is gone on with, and
  followed by a new one in the same run.
- A machine that comes back, or appears, before the cursor waits for the next sweep.

Versions only grow, and a target deletes what is *older* than the one activated. So when a target's
state lags so far behind that a run resumes a sweep after a later one had begun, the later one's
rows stay.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

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
from tap_mde_kbs.state import MOST_NAMED, SweepBookmark, digest, moment, seconds_since
from tap_mde_kbs.sweep.verdict import UNBELIEVED, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from tap_mde_kbs.sweep.pool import Pool
    from tap_mde_kbs.sweep.verdict import Verdict

T = TypeVar("T")

Kind = Literal["answered", "not_found", "failed", "skipped", "not_in_export"]
KINDS: tuple[Kind, ...] = ("answered", "not_found", "failed", "skipped", "not_in_export")
"""Every outcome that a machine can have."""

Mode = Literal["new", "resumed", "healing"]

MACHINES_OWN = (BadRequestError, ShapeError)
"""Refusals and odd answers that are about one machine."""


@dataclass(frozen=True)
class Rules:
    """How patient a sweep is.

    Attributes:
        tries: How often a deferred machine is asked again.
        pause: Seconds before each of these times.
        deferred: So many deferred machines are asked again at once, not only at the end.
        in_a_row: After so many machines without any answer, one after the other, the API may be down.
        witnesses: How many others are asked then, where none has answered yet.
        named: How many machines each list of the bookmark names at most.
        fresh: A sweep that began so many seconds ago is fresh: none follows it in the same run.
        idle: One that made no progress for so many seconds is dropped.
    """

    tries: int = 3
    pause: float = 3.0
    deferred: int = 50
    in_a_row: int = 10
    witnesses: int = 5
    named: int = MOST_NAMED
    fresh: float = 12 * 3600.0
    idle: float = 30 * 86400.0


RULES = Rules()


@dataclass(frozen=True, slots=True)
class Listed:
    """A machine of this run's list.

    Attributes:
        id: Its id.
        skip: Why it is not asked: its outcome is `skipped` then; None if it is asked.
        last_seen: When it last reported, as it is listed.
    """

    id: str
    skip: str | None = None
    last_seen: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of a machine in a sweep.

    Attributes:
        machine: The machine.
        kind: answered, not_found, failed, skipped or not_in_export.
        answer: What asking returned; None unless answered.
        reason: Why it failed, or is not asked; else None.
        is_silent: It gave no answer of any kind.
    """

    machine: Listed
    kind: Kind
    answer: T | None = None
    reason: str | None = None
    is_silent: bool = False


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
        machines: Mapping[str, Listed],
        *,
        pool: Pool[T],
        now: Callable[[], float],
        sleep: Callable[[float], None],
        max_shrink_percent: float,
        rules: Rules,
    ) -> None:
        self.mode = mode
        self.bookmark = bookmark
        self.verdict: Verdict | None = None
        self._machines = machines
        self._pool = pool
        self._now = now
        self._sleep = sleep
        self._max_shrink_percent = max_shrink_percent
        self._rules = rules
        self._ahead: Sequence[str] = []
        """Not asked yet, in id order."""
        if not bookmark.asked_all:
            order = sorted(machines)
            self._ahead = order[bisect_right(order, bookmark.after) if bookmark.after else 0 :]
        passed = set(machines).difference(self._ahead)
        ids = {digest(machine_id): machine_id for machine_id in machines}
        known = {each: machine_id for each, machine_id in ids.items() if machine_id in passed}
        # Whoever is still ahead is asked in its turn; whoever is not listed any more is not asked at all.
        bookmark.deferred = [*filter(known.__contains__, dict.fromkeys(bookmark.deferred))]
        bookmark.failed = [*filter(known.__contains__, dict.fromkeys(bookmark.failed))]
        self._failed_before = {ids[each] for each in bookmark.failed_before if each in ids}
        self._failed_earlier = {known[each] for each in bookmark.newly_failed}
        """Failed in an earlier run of this sweep: asked again in this one."""
        self._deferred = [known[each] for each in bookmark.deferred]
        self._held: list[Outcome[T]] = []
        """From the first of those in a row without any answer on; the cursor stays before them."""
        self._silent_again: set[str] = set()
        """Of those that are asked again, who gave no answer, one after the other, until now."""
        self._asked_again: Sequence[str] = ()
        """Those that are asked again just now, not in their turn."""
        self._witness: str | None = None
        """The machine that answered last."""
        self._in_flight: set[str] = set()
        waiting = {*self._ahead, *self._deferred, *self._failed_earlier}
        self.left = sum(machines[machine_id].skip is None for machine_id in waiting)

    @property
    def version(self) -> int:
        """What orders sweeps: the epoch second it began, or one more than the last."""
        return self.bookmark.version

    def outcomes(self) -> Iterator[Outcome[T]]:
        """Ask the machines; their outcomes, in id order but for those that were deferred.

        Whoever takes one writes it and says so (`written`) before taking the next. Giving up in the
        middle is always possible; `verdict` is there at the end.

        Raises:
            ApiDownError: Nobody answers.
            Exception: Whatever the pool raises that is no outcome of one machine.
        """
        yield from self._first_pass()
        self.bookmark.asked_all = True
        yield from self._ask_again()
        self.bookmark.counts.ended_at = self.bookmark.counts.ended_at or moment(self._now())
        self.verdict = judge(self.bookmark, max_shrink_percent=self._max_shrink_percent)

    def written(self, outcome: Outcome[T], *, rows: int = 0, answered_at: str | None = None) -> None:
        """Count an outcome in the bookmark: its rows are out, so that no later run need ask the machine again.

        Args:
            outcome: One of `outcomes`.
            rows: How many rows there were.
            answered_at: The rows' `checked_at`; None where nothing was answered.
        """
        bookmark, machine_id = self.bookmark, outcome.machine.id
        bookmark.source_time = answered_at or bookmark.source_time
        bookmark.progress_at = moment(self._now())
        self.left -= outcome.kind != "skipped"
        self._count(outcome, rows)
        if machine_id in self._asked_again:
            if machine_id in self._deferred:
                self._deferred.remove(machine_id)
                bookmark.deferred.remove(digest(machine_id))
        else:
            bookmark.after = machine_id

    def _count(self, outcome: Outcome[T], rows: int) -> None:
        """Count an outcome; a machine that failed in an earlier run was counted then."""
        bookmark, counts, name = self.bookmark, self.bookmark.counts, digest(outcome.machine.id)
        if name in bookmark.failed:
            bookmark.failed.remove(name)
            counts.failed -= 1
        setattr(counts, outcome.kind, getattr(counts, outcome.kind) + 1)
        counts.pairs += rows
        if outcome.kind != "failed":
            return
        if len(bookmark.failed) < self._rules.named:
            bookmark.failed.append(name)
        else:
            counts.unnamed += 1
        if outcome.machine.id in self._failed_earlier:  # it has failed twice; of the others it is known who failed now
            bookmark.failed_before = [*filter(bookmark.failed.__contains__, bookmark.failed_before), name]

    def _first_pass(self) -> Iterator[Outcome[T]]:
        """Ask everybody in their turn; whoever gives no answer of use, or says 404, is deferred."""
        try:
            for outcome in self._ask(self._ahead):
                yield from self._judged(outcome)
            yield from self._defer_the_silent()
        except Stopped:
            for outcome in takewhile(self._is_silent, self._held):
                self._note_deferred(outcome.machine.id)
            raise

    def _judged(self, outcome: Outcome[T]) -> Iterator[Outcome[T]]:
        """What a machine's first outcome means, for itself and for those that gave no answer before it."""
        has_no_answer = outcome.kind in {"failed", "not_found"}
        if self._is_silent(outcome):
            self._held.append(outcome)
            if sum(map(self._is_silent, self._held)) >= self._rules.in_a_row:
                yield from self._fail_the_silent()
        elif outcome.kind == "skipped" or (has_no_answer and outcome.machine.id in self._failed_before):
            # Neither a sign of life nor of death. Were it written now, it would be counted again after a stop.
            outcome = self._final(outcome, {})
            if self._held:
                self._held.append(outcome)
            else:
                yield outcome
        else:
            yield from self._defer_the_silent()
            if has_no_answer:
                yield from self._defer(outcome.machine.id)
            else:
                yield outcome

    def _is_silent(self, outcome: Outcome[T]) -> bool:
        """It gave no answer of any kind, and did not fail in the sweep before."""
        return outcome.is_silent and outcome.machine.id not in self._failed_before

    def _fail_the_silent(self) -> Iterator[Outcome[T]]:
        """Decide what it means that so many machines in a row gave no answer.

        Raises:
            ApiDownError: The API is down.
        """
        self._check_api({outcome.machine.id for outcome in self._held}, self._held[-1])
        held, self._held = self._held, []
        yield from held

    def _check_api(self, silent: Collection[str], last: Outcome[T]) -> None:
        """Check, after many machines in a row without an answer, that another gives one.

        Raises:
            ApiDownError: The API is down.
        """
        if not self._another_answers(silent, refusals=True):
            msg = f"{self._rules.in_a_row} machines in a row gave no answer ({last.reason})"
            raise ApiDownError(msg)

    def _another_answers(self, but: Collection[str], *, refusals: bool) -> bool:
        """Ask the machine that answered last once more, or a few others where none has: whether one answers.

        Args:
            but: Whom not to ask.
            refusals: Whether a refusal that seems to be about all calls is an answer, too.
        """
        unfit = {*but, *self._asked_again, *self._failed_before}
        for machine_id in [self._witness] if self._witness else self._spread(unfit):
            is_asked = machine_id in self._in_flight
            if not is_asked:
                self._pool.submit(machine_id, once=True)
            try:
                self._pool.result(machine_id)
            except NoAnswerError:
                continue
            except (NotFoundError, *MACHINES_OWN):
                return True
            except ApiError:
                if refusals:
                    return True
            else:
                return True
            finally:
                if is_asked:  # its turn is still to come
                    self._pool.submit(machine_id)
        return False

    def _spread(self, but: Collection[str]) -> Sequence[str]:
        """A few machines from all over the list; of those that are being asked only where there are no others."""
        fit = [each.id for each in self._machines.values() if each.skip is None and each.id not in but]
        others = [machine_id for machine_id in fit if machine_id not in self._in_flight] or fit
        return others[:: max(1, len(others) // self._rules.witnesses)][: self._rules.witnesses]

    def _defer_the_silent(self) -> Iterator[Outcome[T]]:
        held, self._held = self._held, []
        for outcome in held:
            if self._is_silent(outcome):
                yield from self._defer(outcome.machine.id)
            else:
                yield outcome

    def _defer(self, machine_id: str) -> Iterator[Outcome[T]]:
        """Leave a machine for later; once there are many, ask them again at once."""
        self._note_deferred(machine_id)
        if len(self._deferred) >= self._rules.deferred:
            yield from self._ask_again()

    def _note_deferred(self, machine_id: str) -> None:
        self._deferred.append(machine_id)
        self.bookmark.deferred.append(digest(machine_id))
        self.bookmark.after = machine_id

    def _ask_again(self) -> Iterator[Outcome[T]]:
        """Ask the deferred machines, and those that failed in an earlier run, until all have an outcome."""
        waiting = sorted({*self._deferred, *(self._failed_earlier if self.bookmark.asked_all else ())})
        self._asked_again, self._silent_again = waiting, set()
        for start in range(0, len(waiting), self._rules.in_a_row):
            yield from self._ask_a_few_again(waiting[start : start + self._rules.in_a_row])
        self._asked_again = ()

    def _ask_a_few_again(self, waiting: Sequence[str]) -> Iterator[Outcome[T]]:
        """Ask machines until each has an outcome.

        Raises:
            ApiDownError: The API is down.
        """
        reasons: dict[str, str | None] = {}
        for tries_left in reversed(range(self._rules.tries)):
            if not waiting:
                break
            self._sleep(self._rules.pause)
            still_waiting = []
            for outcome in self._ask(waiting):
                self._silent_again = {*self._silent_again, outcome.machine.id} if outcome.is_silent else set()
                if len(self._silent_again) >= self._rules.in_a_row:
                    self._check_api(self._silent_again, outcome)
                    self._silent_again = set()
                if outcome.kind == "failed":
                    reasons[outcome.machine.id] = outcome.reason
                if outcome.kind in {"failed", "not_found"} and tries_left:
                    still_waiting.append(outcome.machine.id)
                else:
                    yield self._final(outcome, reasons)
            waiting = still_waiting

    def _final(self, outcome: Outcome[T], reasons: Mapping[str, str | None]) -> Outcome[T]:
        """The outcome of a machine that was asked as often as it is.

        Args:
            outcome: Of the last time.
            reasons: Why it gave no answer the times before, for those that gave none.
        """
        machine = outcome.machine
        if outcome.kind == "not_found" and (machine.id in reasons or machine.id in self._failed_before):
            return Outcome(machine, "failed", reason=reasons.get(machine.id) or outcome.reason)
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
                if self._machines[machine_id].skip is None:
                    self._pool.submit(machine_id, once=machine_id in self._failed_before)
                    self._in_flight.add(machine_id)
                    in_flight += 1
            if not asked:
                return
            machine = self._machines[asked.popleft()]
            if machine.skip is not None:
                yield Outcome(machine, "skipped", reason=machine.skip)
                continue
            self._in_flight.discard(machine.id)
            yield self._outcome(machine)
            in_flight -= 1

    def _outcome(self, machine: Listed) -> Outcome[T]:
        """Wait for a machine's answer.

        Raises:
            ApiError: It was refused, and so is everybody else.
        """
        try:
            answer = self._pool.result(machine.id)
        except NotFoundError as error:
            return Outcome(machine, "not_found", reason=str(error))
        except NotInExportError:
            return Outcome(machine, "not_in_export")
        except NoAnswerError as error:
            return Outcome(machine, "failed", reason=str(error), is_silent=True)
        except MACHINES_OWN as error:
            return Outcome(machine, "failed", reason=str(error))
        except ApiError as error:
            is_sick = machine.id in self._failed_before
            if not is_sick and not self._another_answers({machine.id}, refusals=False):
                raise
            return Outcome(machine, "failed", reason=str(error))
        self._witness = machine.id
        return Outcome(machine, "answered", answer)


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

    It goes on with a sweep that was broken off, or heals one that failed machines held back, and then
    begins a new one, unless that one is fresh.
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
    machines = {machine.id: machine for machine in listed}
    if not machines:
        return

    def begin(mode: Mode, bookmark: SweepBookmark) -> Sweep[T]:
        bookmark = bookmark.copy() if mode != "new" else _successor(bookmark, scope, now())
        if not list_believed:
            bookmark.scope = scope + UNBELIEVED
        return Sweep(
            mode,
            bookmark,
            machines,
            pool=pool,
            now=now,
            sleep=sleep,
            max_shrink_percent=max_shrink_percent,
            rules=rules,
        )

    first = begin(_mode(bookmark, scope, now(), rules), bookmark)
    yield first
    age = seconds_since(first.bookmark.began_at, now())
    if first.verdict is not None and first.mode != "new" and (age is None or age > rules.fresh):
        yield begin("new", first.bookmark)


def _mode(bookmark: SweepBookmark, scope: str, now: float, rules: Rules) -> Mode:
    """What to do with what the last run left."""
    if not bookmark.version or bookmark.complete or bookmark.scope.removesuffix(UNBELIEVED) != scope:
        return "new"
    if bookmark.finished and bookmark.counts.is_believed:
        return "healing"
    idle = seconds_since(bookmark.progress_at, now)
    return "resumed" if idle is None or idle <= rules.idle else "new"


def _successor(bookmark: SweepBookmark, scope: str, now: float) -> SweepBookmark:
    """The bookmark of a new sweep, after the one given."""
    begun = moment(now)
    version = max(int(now), bookmark.version + 1)
    return replace(bookmark.handed_on(), version=version, scope=scope, began_at=begun, progress_at=begun)
