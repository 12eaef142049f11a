"""The three feeds of a fleet, and the truth about them. Knows no HTTP."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from mde_simulator.feeds.epss import Scores
from mde_simulator.feeds.kev import Catalogue
from mde_simulator.feeds.msrc import Documents
from mde_simulator.feeds.public import is_exploited

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

    from mde_simulator.fleet.fleet import Fleet

NAMES = ("msrc", "kev", "epss")
PATHS = {
    "msrc": "/cvrf/v3.0",
    "kev": "/sites/default/files/feeds/known_exploited_vulnerabilities.json",
    "epss": "/epss_scores-current.csv.gz",
}
"""Where each is on its host."""


class Feeds:
    """What the feeds say on the fleet's day.

    Args:
        fleet: Whose updates they are about.
        epss_rows: How many scores a file has at least.

    Attributes:
        url: Where the hosts are; known when they listen.
    """

    def __init__(self, fleet: Fleet, epss_rows: int) -> None:
        self.url = ""
        self.fleet = fleet
        self.documents = Documents(fleet)
        self.kev = Catalogue(fleet, self.documents)
        self.epss = Scores(fleet, self.documents, epss_rows)
        self._kept: dict[tuple[object, ...], bytes | None] = {}
        self._lock = threading.Lock()

    @property
    def urls(self) -> dict[str, str]:
        """The URL of each feed."""
        return {name: f"{self.url}{path}" for name, path in PATHS.items()}

    # As they are served; written once for each version of the fleet

    def index(self) -> bytes:
        """MSRC's list of documents."""
        return self._written("index", lambda: _json(self.documents.index())) or b""

    def document(self, document_id: str) -> bytes | None:
        """One of MSRC's documents; None if there is none of that id."""
        return self._written(f"document {document_id}", lambda: self._document(document_id))

    def _document(self, document_id: str) -> bytes | None:
        found = self.documents.document(document_id)
        return None if found is None else _json(found)

    def catalogue(self) -> bytes:
        """CISA's."""
        return self._written("kev", lambda: _json(self.kev.file())) or b""

    def scores(self, day: date) -> bytes:
        """FIRST's, of a day."""
        return self._written(f"epss {day}", lambda: self.epss.file(day)) or b""

    def _written(self, what: str, write: Callable[[], bytes | None]) -> bytes | None:
        key = (what, self.fleet.version)
        with self._lock:
            if key not in self._kept:
                self._kept = {kept: body for kept, body in self._kept.items() if kept[1] == self.fleet.version}
                self._kept[key] = write()
            return self._kept[key]

    # The truth today

    def kb_documents(self) -> dict[tuple[str, str], set[str]]:
        """By update and document, the CVEs that it closes there."""
        found: dict[tuple[str, str], set[str]] = {}
        for document_id, fixes in self.documents.fixes().items():
            for fix in fixes:
                found.setdefault((fix.kb.id, document_id), set()).add(fix.cve_id)
        return found

    def closes(self) -> dict[str, set[str]]:
        """By update, all CVEs that it closes."""
        found: dict[str, set[str]] = {}
        for (kb_id, _), closed in self.kb_documents().items():
            found.setdefault(kb_id, set()).update(closed)
        return found

    def supersedes(self) -> dict[str, tuple[str, ...]]:
        """By update, those that MSRC says it replaces."""
        return self.documents.predecessors()

    def known_exploited(self) -> dict[str, date]:
        """By CVE in KEV, the day on which CISA added it."""
        return {entry.cve_id: entry.added_on for entry in self.kev.entries()}

    def attacked(self) -> set[str]:
        """The CVEs of updates that MSRC says are exploited, or that are in KEV."""
        known = set().union(*self.closes().values())
        return {cve_id for cve_id in known if is_exploited(cve_id)} | (known & self.known_exploited().keys())

    def score_date(self) -> date:
        """Of which day the newest scores are."""
        return self.epss.today()

    def today_scores(self) -> dict[str, float]:
        """The newest scores, by CVE."""
        return self.epss.scores(self.score_date())


def _json(payload: Any) -> bytes:
    return json.dumps(payload, ensure_ascii=False).encode()
