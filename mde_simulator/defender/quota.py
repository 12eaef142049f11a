"""The quota: may this call be answered? Sliding windows, all of them enforced, and who broke them.

Pure: it knows no HTTP, and takes its clock as an argument, so that it also judges a client on
virtual time. The documented limits are 100 calls a minute and 1,500 an hour
(`get-machines.md`), counted for one application in one tenant.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS, EXPORT_CALLS, EXPORT_PAGES = "calls", "export calls", "export pages"
"""The names of the three quotas: of ordinary calls, and of the two calls for whole exports."""
DOCUMENTED = ((100, 60.0), (1500, 3600.0))
"""How many ordinary calls, in how many seconds."""
EXPORT = ((5, 60.0), (20, 3600.0))
"""The same of calls for an export's files (`get-assessment-software-vulnerabilities.md`)."""
EXPORT_JSON = ((30, 60.0), (1000, 3600.0))
"""The same of calls for an export as pages of JSON."""
ROUNDING = 1e-6
"""Sums of decimals miss a window's end by less than this."""


@dataclass
class Window:
    """One sliding window: any `period` seconds hold at most `limit` calls, the client's and others'."""

    limit: int
    period: float
    calls: deque[tuple[float, bool]] = field(default_factory=deque)
    own: int = 0
    """How many of the calls in the window are the client's, not other users'."""

    def expire(self, now: float) -> None:
        """Forget what is a period old."""
        while self.calls and self.calls[0][0] + self.period <= now + ROUNDING:
            self.own -= self.calls.popleft()[1]

    def wait(self, now: float) -> float:
        """The seconds until there is room for a call; 0 now."""
        if len(self.calls) < self.limit:
            return 0.0
        return self.calls[0][0] + self.period - now

    def count(self, now: float, *, own: bool) -> None:
        """A call was admitted."""
        self.calls.append((now, own))
        self.own += own


class Quota:
    """The judge of a client's pace.

    Args:
        limits: Pairs of calls and seconds; none of them: everything is admitted.
        clock: Seconds, never going back.
        grace: Seconds after a refusal in which calls that were under way by then may still come
            in (several at a time are allowed); they are refused, but are no violation.

    Attributes:
        admitted: Calls that were let through.
        refusals: Calls that were refused, by whomever the windows were filled.
        over: Refusals that the client's own calls caused.
        early: Calls made before an announced Retry-After had ended.
    """

    def __init__(
        self,
        limits: tuple[tuple[int, float], ...] = DOCUMENTED,
        clock: Callable[[], float] = time.monotonic,
        grace: float = 0.1,
    ) -> None:
        if any(limit < 1 or period <= 0 for limit, period in limits):
            msg = "A limit is at least one call in more than no seconds."
            raise ValueError(msg)
        self.limits = limits
        self.grace = grace
        self.admitted = self.refusals = self.over = self.early = 0
        self._clock = clock
        self._windows = [Window(limit, period) for limit, period in limits]
        self._announced_at = self._announced_until = self._closed_until = -math.inf
        self._lock = threading.Lock()

    @property
    def violations(self) -> int:
        """What the client did wrong."""
        return self.over + self.early

    def admit(self) -> float | None:
        """None if the call may pass (it is then counted), else the Retry-After in whole seconds."""
        return self.judge()[0]

    def judge(self) -> tuple[float | None, str | None]:
        """As `admit`, with what the client did wrong by this call: "early", "over" or nothing."""
        with self._lock:
            now = self._clock()
            fault = self._early(now)
            wait = self._wait(now)
            if wait <= 0:
                for window in self._windows:
                    window.count(now, own=True)
                self.admitted += 1
                return None, fault
            self.refusals += 1
            if any(window.own >= window.limit for window in self._windows):
                self.over += 1
                fault = fault or "over"
            announced = float(max(1, math.ceil(wait)))
            self._announce(now, announced)
            return announced, fault

    def close(self, seconds: float) -> None:
        """Refuse everything until the seconds are over: the 429 was announced for another reason."""
        with self._lock:
            now = self._clock()
            self._closed_until = max(self._closed_until, now + seconds)
            self._announce(now, seconds)

    def consume(self, calls: int = 1) -> int:
        """Other users of the application call: as many as there is room for, which is returned."""
        with self._lock:
            now = self._clock()
            for done in range(calls):
                if self._wait(now) > 0:
                    return done
                for window in self._windows:
                    window.count(now, own=False)
            return calls

    def _wait(self, now: float) -> float:
        waits = [self._closed_until - now]
        for window in self._windows:
            window.expire(now)
            waits.append(window.wait(now))
        return max(waits)

    def _early(self, now: float) -> str | None:
        if self._announced_at + self.grace <= now < self._announced_until - ROUNDING:
            self.early += 1
            return "early"
        return None

    def _announce(self, now: float, seconds: float) -> None:
        if now >= self._announced_until:
            self._announced_at = now
        self._announced_until = max(self._announced_until, now + seconds)
