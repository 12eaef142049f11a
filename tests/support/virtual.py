"""Virtual time: a clock that is turned by hand, and a pool that asks machines on it.

One thread, no sleeping: the pool keeps a calendar of what happens when (a call arrives at the
server, an answer comes back) and turns the clock to the next entry.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from mde_simulator.defender.quota import Quota
    from tap_mde_kbs.api.governor import Governor

T = TypeVar("T")

TOKEN_LIFE = 3600.0
"""Seconds that a token lives."""
SIGN_IN = 1.0
"""Seconds that its renewal takes."""
TICK = 1e-6
"""Turned on by this much more than asked for, so that rounding never makes it stand still."""


@dataclass
class Clock:
    """The time.

    Attributes:
        now: Seconds since the test began, which is the truth.
        set_back: Seconds by which someone set the machine's clock back.
    """

    now: float = 0.0
    set_back: float = 0.0

    def __call__(self) -> float:
        """Seconds that never go back."""
        return self.now

    def wall(self) -> float:
        """The epoch seconds the machine's clock shows."""
        return 1_790_000_000 + self.now - self.set_back


@dataclass
class Network(Generic[T]):
    """A pool of callers, the wire, and a server with a quota, on virtual time.

    Args:
        clock: The time.
        governor: Lets the calls out.
        quota: The server's, which judges a call when it arrives.
        ask: Answers a call that the quota admitted, or raises.
        size: How many calls may be in flight.
        latency: Seconds from a call to its answer; asked for each call.
        tokens: Whether tokens expire after an hour: the call that finds out is made again.
    """

    clock: Clock
    governor: Governor
    quota: Quota
    ask: Callable[[str], T]
    size: int = 4
    latency: Callable[[], float] = lambda: 0.2
    tokens: bool = False
    expired: int = 0
    _calendar: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _entries: int = 0
    _queue: deque[str] = field(default_factory=deque)
    _line: deque[str] = field(default_factory=deque)
    _busy: int = 0
    _done: dict[str, Callable[[], T]] = field(default_factory=dict)
    _token_until: float = TOKEN_LIFE

    def submit(self, machine_id: str, *, once: bool = False) -> None:  # noqa: ARG002 - nobody is asked twice here
        """Have a machine asked."""
        self._queue.append(machine_id)

    def result(self, machine_id: str) -> T:
        """Turn the clock until the machine has answered."""
        while machine_id not in self._done:
            self._step()
        return self._done.pop(machine_id)()

    def sleep(self, seconds: float) -> None:
        """Turn the clock; what is under way goes on."""
        over: list[bool] = []
        self.at(self.clock.now + seconds, lambda: over.append(True))
        while not over:
            self._step()

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Enter something in the calendar."""
        self._entries += 1
        heapq.heappush(self._calendar, (when, self._entries, what))

    def list_machines(self) -> None:
        """The calls that a machine list takes: a page, and one more with nothing new."""
        for page in ("page 1", "page 2"):
            self._queue.append(page)
            while page not in self._done:
                self._step()
            del self._done[page]

    def _step(self) -> None:
        """Do what can be done now, or turn the clock to what comes next."""
        while self._busy < self.size and self._queue:
            self._busy += 1
            self._line.append(self._queue.popleft())
        wait = self.governor.delay() if self._line else float("inf")
        if wait <= 0:
            self._send(self._line.popleft())
            return
        turn = self.clock.now + wait + TICK
        if self._calendar and self._calendar[0][0] <= turn:
            when, _, what = heapq.heappop(self._calendar)
            self.clock.now = max(self.clock.now, when)
            what()
        else:
            self.clock.now = turn

    def _send(self, machine_id: str) -> None:
        self.governor.sent()
        way = self.latency() / 2
        self.at(self.clock.now + way, lambda: self._arrive(machine_id, way))

    def _arrive(self, machine_id: str, way: float) -> None:
        retry_after = self.quota.admit()
        expired = self.tokens and self.clock.now > self._token_until
        self.at(self.clock.now + way, lambda: self._answer(machine_id, retry_after, expired=expired))

    def _answer(self, machine_id: str, retry_after: float | None, *, expired: bool) -> None:
        if retry_after is not None:
            self.governor.pause(retry_after)
            self._line.append(machine_id)
        elif expired:
            self.expired += 1
            renewed = self.clock.now + SIGN_IN
            self._token_until = max(self._token_until, renewed + TOKEN_LIFE)
            self.at(renewed, lambda: self._line.append(machine_id))
        else:
            self.governor.succeeded()
            self._busy -= 1
            self._done[machine_id] = self._outcome(machine_id)

    def _outcome(self, machine_id: str) -> Callable[[], T]:
        try:
            answer = self.ask(machine_id)
        except Exception as error:  # noqa: BLE001 - raised in `result`
            return _raiser(error)
        return lambda: answer


@dataclass
class Desk(Generic[T]):
    """The simplest pool: no time at all; a machine is asked when it is submitted.

    Attributes:
        asked: Whom it asked, in that order.
        asked_once: Whom of those in one call, without another try.
        slept: For how long the sweep slept.
        waiting: How many answers were not fetched yet, at most.
    """

    ask: Callable[[str], T]
    size: int = 4
    asked: list[str] = field(default_factory=list)
    asked_once: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    waiting: int = 0
    _done: dict[str, Callable[[], T]] = field(default_factory=dict)

    def submit(self, machine_id: str, *, once: bool = False) -> None:
        """Ask."""
        assert machine_id not in self._done
        self.asked.append(machine_id)
        if once:
            self.asked_once.append(machine_id)
        try:
            answer = self.ask(machine_id)
        except Exception as error:  # noqa: BLE001 - raised in `result`
            self._done[machine_id] = _raiser(error)
        else:
            self._done[machine_id] = lambda: answer
        self.waiting = max(self.waiting, len(self._done))

    def result(self, machine_id: str) -> T:
        """Return the answer, or raise the error."""
        return self._done.pop(machine_id)()

    def sleep(self, seconds: float) -> None:
        """Note it."""
        self.slept.append(seconds)


def _raiser(error: Exception) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail
