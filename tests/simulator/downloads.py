"""A plain client of the exports: it downloads, reads whole files, and derives by the documented rule."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .door import Door

EXPORT, JSON = "/api/machines/SoftwareVulnerabilitiesExport", "/api/machines/SoftwareVulnerabilitiesByMachine"
SEVERITIES = (None, "Low", "Medium", "High", "Critical")

NEVER = datetime.max.replace(tzinfo=timezone.utc)
Row = dict[str, Any]


def download(door: Door, link: str, method: str = "GET", **headers: str) -> requests.Response:
    """Ask the storage host, without the token; the body is in `content` as it came."""
    with requests.Session() as session:
        session.trust_env = False
        session.verify = door.simulator.ca_file
        answer = session.request(method, link, headers=headers, timeout=10, allow_redirects=False, stream=True)
        answer._content = answer.raw.read(decode_content=False)  # noqa: SLF001 - `content` would inflate it
        return answer


def links(door: Door, **params: Any) -> list[str]:
    """The links of the export's list."""
    answer = door.session.get(f"{door.simulator.url}{EXPORT}", params=params, timeout=10)
    answer.raise_for_status()
    found: list[str] = answer.json()["exportFiles"]
    return found


def rows_of(answer: requests.Response) -> list[Row]:
    """The records of a file, one a line."""
    assert answer.status_code == 200
    return [json.loads(line) for line in gzip.decompress(answer.content).splitlines()]


def files(door: Door) -> list[list[Row]]:
    """The records of each of the export's files."""
    return [rows_of(download(door, link)) for link in links(door)]


def rows(door: Door) -> list[Row]:
    """All records of the export's files."""
    return [row for file in files(door) for row in file]


@dataclass
class Pair:
    """What the records say of a device and a KB."""

    cves: set[str] = field(default_factory=set)
    products: set[str] = field(default_factory=set)
    first_seen: datetime = NEVER
    names: set[tuple[str | None, str | None]] = field(default_factory=set)


def moment(text: str) -> datetime:
    """A timestamp of an export; the seventh decimal is always 0."""
    form = "%Y-%m-%d %H:%M:%S.%f0" if "." in text else "%Y-%m-%d %H:%M:%S"
    return datetime.strptime(text, form).replace(tzinfo=timezone.utc)


def closing(found: Iterable[Row]) -> list[Row]:
    """The records that say that a device misses a KB, names in lower case."""
    lower = [{name.lower(): value for name, value in row.items()} for row in found]
    needed = ("deviceid", "cveid", "recommendedsecurityupdateid")
    return [row for row in lower if all(row.get(key) for key in needed) and row["softwarevendor"] == "microsoft"]


def pairs(found: Iterable[Row]) -> dict[tuple[str, str], Pair]:
    """By device and KB."""
    made: dict[tuple[str, str], Pair] = defaultdict(Pair)
    for row in closing(found):
        pair = made[row["deviceid"], row["recommendedsecurityupdateid"]]
        pair.cves.add(row["cveid"])
        pair.products.add(row["softwarename"])
        pair.first_seen = min(pair.first_seen, moment(row["firstseentimestamp"]))
        pair.names.add((row.get("recommendedsecurityupdate"), row.get("recommendedsecurityupdateurl")))
    return dict(made)


def missed_on(found: Iterable[Row]) -> Counter[str]:
    """Devices by KB."""
    return Counter(kb_id for _, kb_id in pairs(found))


def worst(found: Iterable[Row]) -> dict[tuple[str, str], tuple[str | None, float | None, str]]:
    """By KB and CVE, how bad it is."""
    made: dict[tuple[str, str], tuple[str | None, float | None, str]] = {}
    for row in closing(found):
        key = row["recommendedsecurityupdateid"], row["cveid"]
        severity = row.get("vulnerabilityseveritylevel")
        before = made[key][0] if key in made else None
        if SEVERITIES.index(before) > SEVERITIES.index(severity):
            severity = before
        made[key] = (severity, row.get("cvssscore"), row["exploitabilitylevel"])
    return made
