"""CISA's catalogue of known exploited vulnerabilities, as the file has it. Knows no HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from mde_simulator.feeds.public import DAY, draw, is_used_by_ransomware, known_exploited_on, needs_forensic_triage

if TYPE_CHECKING:
    from mde_simulator.feeds.msrc import Documents
    from mde_simulator.fleet.fleet import Fleet

OTHERS = 120
"""Entries of other vendors' software; three of four are of theirs."""
VENDORS = ("Google", "Apple", "Cisco", "Adobe", "Fortinet")
RELEASED = time(17, 46, 43, 601_900)
"""US hours."""


@dataclass(frozen=True)
class Entry:
    """One entry."""

    cve_id: str
    vendor: str
    added_on: date

    @property
    def is_ransomware(self) -> bool:
        """Whether CISA knows of it."""
        return is_used_by_ransomware(self.cve_id)

    @property
    def needs_triage(self) -> bool:
        """Whether CISA asks for forensic triage."""
        return needs_forensic_triage(self.cve_id)

    @property
    def due_on(self) -> date:
        """CISA's own date."""
        return self.added_on + (3 if self.needs_triage else 21) * DAY


class Catalogue:
    """The catalogue as it is on the fleet's day."""

    def __init__(self, fleet: Fleet, documents: Documents) -> None:
        self._fleet = fleet
        self._documents = documents

    def entries(self, day: int | None = None) -> list[Entry]:
        """Newest first."""
        today = self._fleet.start + timedelta(days=self._fleet.day if day is None else day)
        found = [
            Entry(cve_id, "Microsoft", added_on)
            for cve_id, published in self._documents.published(day).items()
            if (added_on := known_exploited_on(cve_id, published)) and added_on <= today
        ]
        for number in range(OTHERS):
            cve_id = f"CVE-{2020 + number % 5}-{30_000 + number}"
            added_on = self._fleet.start - (30 + draw("added", cve_id, 900)) * DAY
            found.append(Entry(cve_id, VENDORS[number % len(VENDORS)], added_on))
        return sorted(found, key=lambda entry: (entry.added_on, entry.cve_id), reverse=True)

    def released(self, day: int | None = None) -> datetime:
        """When it was released last (UTC): on the day of its newest entry."""
        return datetime.combine(self.entries(day)[0].added_on, RELEASED)

    def file(self, day: int | None = None) -> dict[str, Any]:
        """The file."""
        entries, released = self.entries(day), self.released(day)
        said, known = {True: "Yes", False: "No"}, {True: "Known", False: "Unknown"}
        return {
            "title": "CISA Catalog of Known Exploited Vulnerabilities",
            "catalogVersion": f"{released:%Y.%m.%d}",
            "dateReleased": f"{released:%Y-%m-%dT%H:%M:%S}.{released.microsecond // 100:04d}Z",
            "count": len(entries),
            "vulnerabilities": [
                {
                    "cveID": entry.cve_id,
                    "vendorProject": entry.vendor,
                    "product": "Windows" if entry.vendor == "Microsoft" else "Multiple Products",
                    "vulnerabilityName": f"{entry.vendor} privilege escalation vulnerability",
                    "dateAdded": f"{entry.added_on}",
                    "shortDescription": "It allows an attacker to elevate privileges.",
                    "requiredAction": "Apply mitigations per vendor instructions, or stop using the product.",
                    "dueDate": f"{entry.due_on}",
                    "knownRansomwareCampaignUse": known[entry.is_ransomware],
                    "notes": f"https://nvd.nist.gov/vuln/detail/{entry.cve_id}",
                    "cwes": [] if draw("cwe", entry.cve_id, 5) == 0 else ["CWE-269"],
                    "forensicTriage": said[entry.needs_triage],
                }
                for entry in entries
            ],
        }
