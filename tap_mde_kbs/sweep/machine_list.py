"""The machine list: every machine out of pages that shift, and which of them there is any use in asking. Knows no HTTP.

What the API does (learn.microsoft.com, "List machines API"; MicrosoftDocs/microsoft-365-docs#8316, #8489,
firezone#14768, #14856): with `$top` it gives no next link, with `$filter` one that never ends; a page may
hold fewer than asked; machines that leave during the walk shift the rest into pages already read; the same
machine may come twice. So the walk counts by itself: pages overlap, a machine met before is no news, and a
page without news is the end: at once if it holds no more than the overlap, else at the second in a row
(a short page may hold nothing but doubles; a server that ignores `$skip` gives the same page for ever).

Decisions:

- A page that does not begin with a machine met before leaves a gap that more departures than the overlap
  have made; the walk then steps back, each time twice as far, until the pages meet.
- The next page is asked for as soon as a page is there, in a thread: it is on its way while this one is written.
- Where the overlap of two pages is not the same on both, the list moved, and machines may have slipped
  through: it is to be walked again.
- Defender drops what it knows of a machine that has been silent for 30 days, or that people excluded. An
  empty answer of theirs would read as "everything installed", so they are not asked. Silence is measured
  against the newest report in the list itself, so that no clock but Defender's decides.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from tap_mde_kbs.sweep.pool import Threads
from tap_mde_kbs.sweep.sweep import Listed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

LARGEST_OVERLAP = 200
ONBOARDED = (None, "Onboarded")
"""The values of `onboarding_status` that count as onboarded; absent is not known to be otherwise."""

DAY = timedelta(days=1)


def overlap(length: int) -> int:
    """How many machines of a page of this length are read again with the next one."""
    return min(LARGEST_OVERLAP, max(1, length // 10)) if length > 1 else 0


class Walk:
    """A walk over the list, from its beginning to its end.

    Args:
        page_at: The entries from that position on, at most as many as the API gives; empty past the end.
        idle: Called now and then while a page is waited for, in the waiting thread.

    Attributes:
        moved: The list moved meanwhile: machines may have slipped through.
    """

    def __init__(self, page_at: Callable[[int], list[dict[str, Any]]], idle: Callable[[], None] = lambda: None) -> None:
        self._page_at = page_at
        self._idle = idle
        self.moved = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Every entry that has an id, in the order of the list; some come twice."""
        met: set[str] = set()  # on pages that reach from the list's beginning to here without a gap
        position = shared = back = pages_without_news = 0
        before: list[str] = []
        is_end = False
        with Threads(lambda at, _: self._page_at(int(at)), 1, self._idle) as pages:
            pages.submit(str(position))
            while not is_end:
                page = pages.result(str(position))
                ids = [_id(entry) for entry in page]
                if shared and position and not (ids and ids[0] in met):
                    back *= 2
                    position = max(0, position - back)
                else:
                    self.moved = self.moved or ids[:shared] != before[len(before) - shared :]
                    pages_without_news = pages_without_news + 1 if met.issuperset(ids) else 0
                    is_end = pages_without_news > 1 or (pages_without_news == 1 and len(ids) <= shared)
                    met.update(ids)
                    before, shared = ids, overlap(len(ids))
                    back = shared
                    position = max(position + 1, position + len(ids) - shared)
                if not is_end:
                    pages.submit(str(position))
                yield from (entry for _, entry in entries_with_ids(page))


class Assessed(NamedTuple):
    """Which machines Defender assesses, as the settings have it.

    Attributes:
        include_not_onboarded: Ask the devices that were only discovered, too.
        include_excluded: Ask the machines that people excluded from vulnerability management, too.
        silent_after_days: Do not ask a machine that has been silent for longer; 0: ask everybody.
    """

    include_not_onboarded: bool
    include_excluded: bool
    silent_after_days: float

    def listed(self, machines: Collection[Mapping[str, Any]], now: datetime) -> list[Listed]:
        """The machines, each with the reason why it is not asked, if there is one.

        Args:
            machines: Their rows, or as much of them as `kept`.
            now: The host's time: a report of over a day later is of a clock that is wrong, and is no measure.
        """
        reports = [report for machine in machines if (report := _moment(machine["last_seen"]))]
        newest = max((report for report in reports if report <= now + DAY), default=None)
        return [Listed(machine["id"], self._skip(machine, newest), machine["last_seen"]) for machine in machines]

    def _skip(self, machine: Mapping[str, Any], newest: datetime | None) -> str | None:
        if not self.include_not_onboarded and machine["onboarding_status"] not in ONBOARDED:
            return "not_onboarded"
        if not self.include_excluded and machine["is_excluded"]:
            return "excluded"
        report = _moment(machine["last_seen"])
        if not self.silent_after_days or newest is None or report is None:
            return None
        return "silent" if newest - report > timedelta(days=self.silent_after_days) else None


def entries_with_ids(page: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of a page that have an id, each with it; one without it can't be asked for."""
    return ((machine_id, entry) for entry in page if (machine_id := _id(entry)))


def kept(machine: Mapping[str, Any]) -> dict[str, Any]:
    """What of a machine's row decides whether it is asked."""
    return {name: machine[name] for name in ("id", "onboarding_status", "is_excluded", "last_seen")}


def _id(entry: Mapping[str, Any]) -> str:
    """An entry's id; empty if it has none."""
    value = entry.get("id")
    is_id = isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip(" .")
    return str(value) if is_id else ""


def _moment(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value.replace("Z", "+00:00")) if value else None
