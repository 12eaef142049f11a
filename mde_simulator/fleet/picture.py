"""A picture of the fleet: what vulnerability management knew of each device at one moment.

It does not change when the fleet does. The fleet fills it (`Fleet.picture`); here is only what is in
it. Knows neither records nor files.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from datetime import date

HOURS = timedelta(hours=2)
"""The part of a day in which what is new on it is first seen: before the night's run."""


@dataclass(frozen=True)
class Kb:
    """An update as it is served; `cves` is how many CVEs it addresses."""

    id: str
    name: str | None
    url: str | None
    products: tuple[str, ...]
    cves: int
    published: date


@dataclass(frozen=True)
class Assessed:
    """A device; `missing` are keys of the picture's `kbs`, `arrived` is None for those of the first day.

    Attributes:
        added: Whether a test made it by hand.
        phase: A number from 0 to 1 of its own.
    """

    id: str
    index: int
    added: bool
    phase: float
    name: str | None
    group: str | None
    group_id: int
    platform: str
    version: str
    architecture: str
    onboarded: bool
    arrived: date | None
    missing: tuple[str, ...]

    def first_seen(self, kb: Kb) -> datetime:
        """When the device was first seen without an update (UTC): it came out, or the device came."""
        day = kb.published if self.arrived is None else max(kb.published, self.arrived)
        moment = datetime.combine(day, time()) + HOURS * self.phase
        # Every third one has whole seconds, as Microsoft's example of the JSON response.
        return moment if self.index % 3 else moment.replace(microsecond=0)


@dataclass(frozen=True)
class Content:
    """What is in a picture: devices in the list's order, and every update that one of them misses."""

    now: datetime
    devices: tuple[Assessed, ...]
    kbs: dict[str, Kb]


class Picture:
    """Taken when somebody looks at it, or just before the fleet changes, whichever is first.

    A fleet of 100,000 takes seconds to look at, and most simulators never serve an export.
    """

    def __init__(self, look: Callable[[], Content], lock: threading.RLock) -> None:
        self._look = look
        self._lock = lock
        self._content: Content | None = None

    def take(self) -> Content:
        """What is in it."""
        with self._lock:
            if self._content is None:
                self._content = self._look()
            return self._content
