"""What becomes publicly known of each CVE, and when: made from its id alone, so that it is the same everywhere.

MSRC, CISA and FIRST each tell a part of it.
"""

from __future__ import annotations

from datetime import date, timedelta
from zlib import crc32

DAY = timedelta(days=1)
FRIDAY = 4
"""KEV grows on weekdays."""


def draw(what: str, name: str, sides: int) -> int:
    """A number from 0 to below `sides` that follows from a name; another one for each purpose."""
    return crc32(f"{what}/{name}".encode()) % sides


def is_exploited(cve_id: str) -> bool:
    """Whether MSRC says that it was attacked when it came out."""
    return draw("exploited", cve_id, 40) == 0


def is_disclosed(cve_id: str) -> bool:
    """Whether MSRC says that it was publicly known before."""
    return draw("disclosed", cve_id, 30) == 0


def known_exploited_on(cve_id: str, published: date) -> date | None:
    """The day on which CISA adds it to KEV, a weekday; None: never."""
    if draw("kev", cve_id, 3) == 0 if is_exploited(cve_id) else draw("kev", cve_id, 90):
        return None
    day = published + (0 if is_exploited(cve_id) else 2 + draw("added", cve_id, 60)) * DAY
    return day if day.weekday() <= FRIDAY else day + (7 - day.weekday()) * DAY


def is_used_by_ransomware(cve_id: str) -> bool:
    """Whether CISA knows of it."""
    return draw("ransomware", cve_id, 5) == 0


def needs_forensic_triage(cve_id: str) -> bool:
    """Whether CISA asks for it."""
    return draw("triage", cve_id, 4) == 0


def score(cve_id: str, day: date) -> float:
    """FIRST's score on a day: one in twenty is 0.1 or more, and it moves a little from day to day."""
    share = draw("epss", cve_id, 10_000) / 10_000
    moved = share + (draw(f"epss {day}", cve_id, 21) - 10) / 1_000
    chance = min(max(moved, 0.0), 1.0) ** 40 * 0.9 + 0.0002
    return round(min(chance + (0.5 if is_exploited(cve_id) else 0.0), 0.99999), 5)
