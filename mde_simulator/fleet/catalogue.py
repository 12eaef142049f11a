"""The catalogue: which security updates Microsoft publishes, when, and for which products.

Made from a seed, month by month, as far as somebody asks. Knows nothing of machines.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from mde_simulator.dice import dice

Record = dict[str, object]

TUESDAY = 1
"""Patch Tuesday is the second Tuesday of the month."""
HISTORY = 180
"""How many days of updates lie before the first day."""
OUT_OF_BAND = 0.3
"""The share of months with an update out of band, and of updates with `osBuild` as text."""
BUILD_AS_TEXT = 0.1

WINDOWS = {
    "windows_10": 19045,
    "windows_11": 26100,
    "windows_server_2016": 14393,
    "windows_server_2019": 17763,
    "windows_server_2022": 20348,
    "windows_server_2025": 26100,
}
"""Windows as it is called in `productsNames`, with its build."""
SOFTWARE = {"office": 0.95, ".net_framework": 0.5, "sql_server": 0.2, "exchange_server": 0.2}
"""What else of Microsoft's a Windows machine may have; a month brings an update with this chance."""
HOTPATCHED = "windows_server_2025"
ENROLLED = f"{HOTPATCHED} hotpatch"
"""What is offered hotpatches, and what a device that takes them has besides."""
BASELINES = (1, 4, 7, 10)
"""The months with a cumulative update for those, too, which restarts; the others have a hotpatch, which does not."""
CATALOGUE_URL = "https://catalog.update.microsoft.com/v7/site/Search.aspx?q=KB"


def patch_tuesday(year: int, month: int) -> date:
    """The second Tuesday of a month."""
    first = date(year, month, 1)
    return first + timedelta(days=(TUESDAY - first.weekday()) % 7 + 7)


@dataclass(frozen=True)
class Update:
    """One KB: `id` is its number without "KB", `published` a day of the fleet's calendar.

    Attributes:
        is_out_of_band: Whether it came on another day than Patch Tuesday.
        is_hotpatch: Whether it is for devices that take hotpatches alone.
        has_hotpatch: Whether such devices take a hotpatch instead of it.
    """

    id: str
    published: int
    products: tuple[str, ...]
    cves: int
    name: str | None
    url: str | None
    os_build: int | str | None
    phase: float
    is_out_of_band: bool = False
    is_hotpatch: bool = False
    has_hotpatch: bool = False

    @property
    def product(self) -> str:
        """The product that a machine must have to need this update."""
        return self.products[0]

    def fits(self, software: frozenset[str]) -> bool:
        """Whether a machine with this software needs it."""
        is_enrolled = ENROLLED in software
        return self.product in software and (
            is_enrolled if self.is_hotpatch else not (is_enrolled and self.has_hotpatch)
        )

    def row(self, missed_on: int) -> Record:
        """The update as `getmissingkbs` serves it; `missed_on` is a count of machines."""
        return {
            "id": self.id,
            "name": self.name,
            "osBuild": self.os_build,
            "productsNames": list(self.products),
            "url": self.url,
            "machineMissedOn": missed_on,
            "cveAddressed": self.cves,
        }


@dataclass
class Catalogue:
    """All updates, oldest first, grown as time passes."""

    seed: int
    start: date
    _updates: list[Update] = field(default_factory=list)
    _applicable: dict[tuple[frozenset[str], int], tuple[Update, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = self.start - timedelta(days=HISTORY)
        self._next = (first.year, first.month)

    def published(self, day: int) -> list[Update]:
        """What is published up to and with `day`."""
        until = self.start + timedelta(days=day)
        while self._next <= (until.year, until.month):
            year, month = self._next
            self._updates += self._month(year, month)
            self._next = (year + month // 12, month % 12 + 1)
        return [update for update in self._updates if update.published <= day]

    def applicable(self, software: frozenset[str], day: int) -> tuple[Update, ...]:
        """What a machine with this software may miss on `day`."""
        key = (software, day)
        if key not in self._applicable:
            found = [update for update in self.published(day) if update.fits(software)]
            self._applicable[key] = tuple(found)
        return self._applicable[key]

    def _month(self, year: int, month: int) -> list[Update]:
        dates = dice(self.seed, "month", year, month)
        tuesday = (patch_tuesday(year, month) - self.start).days
        updates = [
            self._update(year, month, position, tuesday, product)
            for position, product in enumerate((*WINDOWS, *SOFTWARE))
            if dates.random() < SOFTWARE.get(product, 1)
        ]
        if dates.random() < OUT_OF_BAND:
            product = dates.choice(list(WINDOWS))
            late = self._update(year, month, len(WINDOWS) + len(SOFTWARE), tuesday + 9, product)
            # The catalogue is slow with these: no name and no link yet.
            updates.append(replace(late, name=None, url=None, os_build=None, is_out_of_band=True))
        if month in BASELINES:
            return updates
        hotpatch = self._update(year, month, len(WINDOWS) + len(SOFTWARE) + 1, tuesday, HOTPATCHED)
        return [
            *(replace(each, has_hotpatch=each.product == HOTPATCHED and not each.is_out_of_band) for each in updates),
            replace(hotpatch, is_hotpatch=True),
        ]

    def _update(self, year: int, month: int, position: int, day: int, product: str) -> Update:
        draw = dice(self.seed, "update", year, month, position)
        number = 5_030_000 + (year * 12 + month - 2023 * 12) * 300 + position * 20
        number += draw.randrange(20)
        build: int | str | None = WINDOWS.get(product)
        if build is not None and draw.random() < BUILD_AS_TEXT:
            build = f"10.0.{build}.{draw.randrange(1000, 7000)}"
        products = (product, "edge") if build is not None and draw.random() < 1 / 2 else (product,)
        return Update(
            id=str(number),
            published=day,
            products=products,
            cves=draw.randrange(20, 110) if product in WINDOWS else draw.randrange(1, 16),
            name=f"{date(year, month, 1):%B %Y} Security Updates",
            url=f"{CATALOGUE_URL}{number}",
            os_build=build,
            phase=draw.random(),
        )
