"""The quota: when may the next call go out.

The governor counts calls in sliding windows, makes callers wait in turn, and pauses everybody when the server says
so. It must know neither HTTP nor Singer. Its clock is an argument, so ten hours pass in a test in a second.

Decisions:

- A call counts in every window from the moment it goes out, whatever becomes of it: one the server
  refused counts too.
- The server counts a call when it arrives, and calls may overtake each other on the way, so every
  window is `margin` seconds longer here than there.
- Several calls in flight meet the same throttling: a 429 without a readable Retry-After that
  arrives during a pause neither prolongs it nor makes the next one longer.
- A clock that goes back (the default one cannot) counts as one that stood still since last read.
- One governor is one set of limits. An endpoint with limits of its own gets a governor of its own.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from tap_mde_kbs.errors import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 3600.0
"""Seconds: a pause after a 429 is never shorter or longer, whatever the server asks for."""

FIRST_GUESS = 2.0
"""Seconds to wait after a 429 that does not say how long; doubled each time."""

NAP = 1.0
"""Seconds that a waiting caller sleeps at most: a signal handler's `stop` may come just before it does."""


class Governor:
    """Lets calls out as fast as the quota allows, and never faster.

    Thread-safe; `stop` may be called from a signal handler.

    Args:
        limits: The quota: pairs of a number of calls and the seconds in which they may go out. All
            are kept.
        margin: Seconds by which every window is longer here than on the server.
        clock: Seconds on a monotonic clock.

    Raises:
        ValueError: If a limit allows no call, or a window has no length.
    """

    def __init__(
        self,
        limits: Sequence[tuple[int, float]],
        *,
        margin: float = 0.3,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if any(calls < 1 or seconds <= 0 for calls, seconds in limits):
            msg = f"Each limit needs at least one call and a window longer than 0 seconds: {limits}"
            raise ValueError(msg)
        self.calls = 0
        self.throttled = 0
        self.served = 0
        # For each window its length here, and when its last calls went out: as many as the limit
        # allows.
        self._windows = [(seconds + margin, deque[float](maxlen=calls)) for calls, seconds in limits]
        self._clock = clock
        self._read = clock()
        self._lost = 0.0
        self._paused_until = self._read
        self._guess = FIRST_GUESS
        self._stopped = False
        self._line: deque[object] = deque()
        # Re-entrant, as every Condition without a lock of its own: a signal handler runs inside its
        # main thread.
        self._changed = threading.Condition()

    def delay(self) -> float:
        """Seconds until the next call may go out; 0.0 means now."""
        with self._changed:
            now = self._now()
            return max(0.0, self._earliest(self._paused_until) - now)

    @property
    def is_paused(self) -> bool:
        """Whether the server has asked everybody to wait, and that is not over."""
        with self._changed:
            return self._now() < self._paused_until

    def sent(self) -> None:
        """Count a call that goes out now, in every window."""
        with self._changed:
            now = self._now()
            for _, times in self._windows:
                times.append(now)
            self.calls += 1

    def acquire(self) -> None:
        """Wait until it is the caller's turn and the quota allows a call, and count it.

        Callers are served strictly in the order in which they came.

        Raises:
            Stopped: If the governor is stopped, before or while the caller waits.
        """
        place = object()
        with self._changed:
            self._line.append(place)
            try:
                while not self._stopped:
                    wait = self.delay() if self._line[0] is place else NAP
                    if wait <= 0:
                        self.sent()
                        return
                    self._changed.wait(min(wait, NAP))
            finally:
                self._line.remove(place)
                self._changed.notify_all()
        msg = "Stopped while waiting for the quota"
        raise Stopped(msg)

    def pause(self, seconds: float | None) -> None:
        """Make everybody wait: the server answered 429.

        Args:
            seconds: What Retry-After says, clamped to between a second and an hour. None, when it
                is absent or unreadable: two seconds, twice as long after each further one, until a
                call succeeds.
        """
        with self._changed:
            now = self._now()
            self.throttled += 1
            if seconds is None:
                if now < self._paused_until:
                    return
                seconds = self._guess
                self._guess = min(2 * self._guess, LONGEST_PAUSE)
            seconds = min(max(seconds, SHORTEST_PAUSE), LONGEST_PAUSE)
            self._paused_until = max(self._paused_until, now + seconds)

    def succeeded(self) -> None:
        """Tell that the server served a call: the growing wait begins anew."""
        with self._changed:
            self.served += 1
            self._guess = FIRST_GUESS

    def stop(self) -> None:
        """Wake whoever waits: `acquire` raises `Stopped` from now on."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def used(self) -> float:
        """The share of the longest window that is used now, from 0 to 1."""
        with self._changed:
            now = self._now()
            shares = [
                (length, sum(sent > now - length for sent in times) / (times.maxlen or 1))
                for length, times in self._windows
            ]
        return max(shares, default=(0.0, 0.0))[1]

    def seconds_for(self, calls: int) -> float:
        """Estimate the seconds until that many further calls have gone out.

        The windows, what is used of them, and the pause count, not the server's latency. Up to
        three rounds of the slowest window are played through; those beyond follow at its pace.
        """
        with self._changed:
            now = self._now()
            windows = [(length, times.copy()) for length, times in self._windows]
            last = max(now, self._paused_until)
        rounds = 0.0
        if windows and calls:
            length, times = max(windows, key=lambda window: window[0] / (window[1].maxlen or 1))
            size = times.maxlen or 1
            skipped = max(0, calls // size - 2)
            rounds, calls = skipped * length, calls - skipped * size
        for _ in range(calls if windows else 0):
            last = max(last, *(_free(length, times) for length, times in windows))
            for _, times in windows:
                times.append(last)
        return last - now + rounds

    def _earliest(self, when: float) -> float:
        """The first moment, not before `when`, at which every window has room for a call."""
        for length, times in self._windows:
            when = max(when, _free(length, times))
        return when

    def _now(self) -> float:
        """The clock's seconds, never less than the last time."""
        read = self._clock()
        self._lost += max(0.0, self._read - read)
        self._read = read
        return read + self._lost


def retry_after(value: str | None, now: datetime) -> float | None:
    """Read the header Retry-After (RFC 9110, section 10.2.3): seconds, or an HTTP date.

    Args:
        value: The header; None if there is none.
        now: The time, with its zone; best the answer's own Date, so that this machine's clock may
            be wrong.

    Returns:
        Seconds to wait, never negative; None when the header is absent or unreadable.
    """
    value = (value or "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    try:
        return max(0.0, (date - now).total_seconds())
    except OverflowError:
        return None


def _free(length: float, times: deque[float]) -> float:
    """The moment from which a window of that length has room for one call more."""
    return times[0] + length if len(times) == times.maxlen else float("-inf")
