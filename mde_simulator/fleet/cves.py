"""Vulnerabilities: the CVEs that an update closes and how bad they are, and those of other vendors.

Made from names alone, so that they are the same everywhere. The values are those of Microsoft's page
`get-assessment-software-vulnerabilities.md`. Knows neither devices nor how a record is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING
from zlib import crc32

from mde_simulator.fleet.catalogue import CATALOGUE_URL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mde_simulator.fleet.catalogue import Record
    from mde_simulator.fleet.picture import Kb

SEVERITIES = (None, "Low", "Medium", "High", "Critical")
"""From harmless to worst; None: not rated."""
EXPLOITABILITY = ("NoExploit", "ExploitIsPublic", "ExploitIsVerified", "ExploitIsInKit")
SCORES = ((0, 0), (1, 39), (40, 69), (70, 89), (90, 100))
"""CVSS scores from and to, for each severity."""
VIEWS = 4
"""How many severities one CVE may have on different devices: it depends on the threat landscape, says Microsoft."""
OTHERS = (
    ("chrome", "google", "119.0.6045.{0}", "Upgrade to 120.0.{0}"),
    ("firefox", "mozilla", "118.0.{0}", "mfsa2023-{0}"),
    ("acrobat_reader_dc", "adobe", "23.6.{0}.0", "APSB23-{0}"),
    ("jre", "oracle", "8.0.{0}", "cpuoct2023"),
    # Nothing keeps another vendor's number from looking like a KB.
    ("teamviewer", "teamviewer", "15.47.{0}", "50300{0:02d}"),
    ("openssl", "openssl", "3.0.{0}", None),
    ("7-zip", "7-zip", "22.{0}", "Upgrade to 23.01"),
)
"""Name, vendor, versions of other vendors' software, and how it calls the update to take."""
WITHOUT_CVE = 9
"""One record in 9 of other vendors' software has no CVE."""


@dataclass(frozen=True)
class Cve:
    """One CVE; `level` is a place in `SEVERITIES`."""

    id: str
    level: int
    score: float | None
    exploitability: str
    disputed: bool

    def severity(self, view: int) -> str | None:
        """How bad it is as the devices of a view have it, from 0 to `VIEWS`."""
        return SEVERITIES[self._level(view)]

    def worst(self, views: Iterable[int]) -> str | None:
        """How bad it is for the worst of several views."""
        return SEVERITIES[max(self._level(view) for view in views)]

    def _level(self, view: int) -> int:
        shift = {1: 1, 2: -1}.get(view, 0) if self.disputed else 0
        return min(max(self.level + shift, 0), len(SEVERITIES) - 1)


@cache
def cve(id_: str) -> Cve:
    """The facts of a CVE follow from its id."""
    draw = crc32(id_.encode())
    level = (0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4)[draw % 12]
    first, last = SCORES[level]
    return Cve(
        id=id_,
        level=level,
        score=(first + (draw >> 8) % (last - first + 1)) / 10 if level else None,
        exploitability=EXPLOITABILITY[(0, 0, 0, 0, 0, 1, 1, 2, 3)[(draw >> 4) % 9]],
        disputed=(draw >> 16) % 3 == 0,
    )


@cache
def cves(kb: Kb) -> tuple[Cve, ...]:
    """What an update closes. Updates of a month share CVEs, as products share code, but for those out of band."""
    first = 10_000 + kb.published.month * 1_000 + 500 * kb.is_out_of_band
    return tuple(cve(f"CVE-{kb.published.year}-{first + number}") for number in range(kb.cves))


def rating(found: Cve, view: int) -> Record:
    """The fields of a record that say how bad a CVE is."""
    return {
        "cveId": found.id,
        "cvssScore": found.score,
        "vulnerabilitySeverityLevel": found.severity(view),
        "exploitabilityLevel": found.exploitability,
    }


def of_kb(kb: Kb, product: str, view: int) -> list[Record]:
    """One record for each CVE that a product lacks an update for, but for what is the device's."""
    version = f"10.0.{20_000 + crc32(product.encode()) % 9_000}.{kb.published:%y%m}"
    title = f"{kb.published:%B %Y} Security Updates"
    return [
        {
            "softwareVendor": "microsoft",
            "softwareName": product,
            "softwareVersion": version,
            **rating(found, view),
            "recommendedSecurityUpdate": kb.name,
            "recommendedSecurityUpdateId": kb.id,
            "recommendedSecurityUpdateUrl": kb.url,
            "recommendationReference": f"va-_-microsoft-_-{product}",
            "securityUpdateAvailable": True,
            "cveBatchTitle": title,
            "cveBatchUrl": f"https://msrc.microsoft.com/update-guide/releaseNote/{kb.published:%Y-%b}",
            "cveMitigationStatus": None,
        }
        for found in cves(kb)
    ]


def of_others(number: int) -> Record:
    """A record of another vendor's software; any number has one of its own."""
    name, vendor, version, update = OTHERS[number % len(OTHERS)]
    found = cve(f"CVE-2023-{40_000 + number}")
    without = number % WITHOUT_CVE == WITHOUT_CVE - 1
    return {
        "softwareVendor": vendor,
        "softwareName": name,
        "softwareVersion": version.format(number % 60),
        **({"cveId": None, "exploitabilityLevel": "NoExploit"} if without else rating(found, 0)),
        "recommendedSecurityUpdate": None if update is None else f"{name} security update",
        "recommendedSecurityUpdateId": None if update is None else update.format(number % 60),
        "recommendedSecurityUpdateUrl": None,
        "recommendationReference": f"va-_-{vendor}-_-{name}",
        "securityUpdateAvailable": update is not None,
        "endOfSupportStatus": "Upcoming EOS version" if name == "jre" else None,
        "endOfSupportDate": "2026-12-31" if name == "jre" else None,
    }


def odd() -> list[Record]:
    """Microsoft's records that say nothing about a missing update: without a KB, a CVE, or both."""
    plain: Record = {"softwareVendor": "microsoft", "recommendationReference": "va-_-microsoft-_-onedrive",
                     "softwareName": "onedrive", "softwareVersion": "20.245.1206.2"}  # fmt: skip
    kb: Record = {"recommendedSecurityUpdate": "May 2019 Security Updates", "recommendedSecurityUpdateId": "4494441",
                  "recommendedSecurityUpdateUrl": f"{CATALOGUE_URL}4494441"}  # fmt: skip
    return [
        plain | rating(cve("CVE-2022-21999"), 0) | {"securityUpdateAvailable": False},
        plain | kb | {"cveId": None, "exploitabilityLevel": "NoExploit", "securityUpdateAvailable": True},
        plain | {"cveId": None, "exploitabilityLevel": "NoExploit", "securityUpdateAvailable": True},
    ]
