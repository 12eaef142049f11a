"""FIRST's exploit prediction scores of a day, as the file has them. Knows no HTTP."""

from __future__ import annotations

import gzip
from datetime import date, timedelta
from typing import TYPE_CHECKING

from mde_simulator.feeds.public import score

if TYPE_CHECKING:
    from mde_simulator.feeds.msrc import Documents
    from mde_simulator.fleet.fleet import Fleet

MODEL = "v2026.06.15"
FAST = 1


class Scores:
    """The scores as they are on the fleet's day.

    Args:
        fleet: Whose updates' CVEs are scored.
        documents: MSRC's, which have these.
        rows: How many scores a file has at least, filled up with other CVEs; there are 345,000 in the real one.
    """

    def __init__(self, fleet: Fleet, documents: Documents, rows: int) -> None:
        self._fleet = fleet
        self._documents = documents
        self._rows = rows

    def today(self) -> date:
        """Of which day the newest file is."""
        return self._fleet.start + timedelta(days=self._fleet.day)

    def scores(self, day: date) -> dict[str, float]:
        """By CVE."""
        known = self._documents.published((day - self._fleet.start).days) if day >= self._fleet.start else {}
        others = (f"CVE-2019-{10_000 + number}" for number in range(max(0, self._rows - len(known))))
        return {cve_id: score(cve_id, day) for cve_id in (*known, *others)}

    def text(self, day: date, columns: str = "cve,epss,percentile") -> str:
        """The file's lines but for the one about the model."""
        found = self.scores(day)
        ranks = {each: rank for rank, each in enumerate(sorted(found.values()), 1)}
        has_percentiles = "percentile" in columns
        lines = [
            f"{cve_id},{value:.5f}" + (f",{ranks[value] / len(found):.5f}" if has_percentiles else "")
            for cve_id, value in found.items()
        ]
        return "\n".join([columns, *lines, ""])

    def head(self, day: date) -> str:
        """The line about the model."""
        return f"#model_version:{MODEL},score_date:{day}T12:55:00Z\n"

    def file(self, day: date) -> bytes:
        """The file."""
        return packed(self.head(day) + self.text(day))


def packed(text: str) -> bytes:
    """As gzip."""
    return gzip.compress(text.encode(), FAST, mtime=0)
