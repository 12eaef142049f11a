"""MSRC's documents: which update closes which CVE, what it replaces, when it came. Makes no call.

Source: Microsoft's CVRF API (`https://api.msrc.microsoft.com/cvrf/v3.0`), as recorded: a text is `{"Value": …}`, what
is null is left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Read = TypeVar("Read")

VENDOR_FIX = 2
"""The type of a remediation that is an update; others are links, workarounds, mitigations."""

IMPACT, SEVERITY = 1, 3
"""The types of a threat that says whether it is exploited, and of one that says how severe it is."""

SEVERITIES = ("None", "Low", "Moderate", "Important", "Critical")
RESTARTS = ("No", "Maybe", "Yes")
"""From best to worst."""

LATE = timedelta(days=3)
"""A revision n.0 so long after a CVE's first publication may have brought the update: its day is not known then."""

TUESDAY = 1
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

_UPDATE = re.compile(r"(?:KB\s*)?([0-9]{6,8})", re.IGNORECASE)
_NUMBER = re.compile(r"(?<!\d)\d{6,8}(?!\d)", re.ASCII)
_BULLETIN = re.compile(r"\bMS\d{2}-\d+", re.IGNORECASE | re.ASCII)
_ID = re.compile(r"(\d{4})-([A-Za-z]{3})(-\w{1,4})?", re.ASCII)
_MAJOR = re.compile(r"\d+\.0+", re.ASCII)
_SAID = re.compile(r"(Publicly Disclosed|Exploited)\s*:\s*(Yes|No)\b", re.IGNORECASE)


class _Text(msgspec.Struct, rename={"value": "Value"}):
    value: str | float | None = None

    @property
    def text(self) -> str:
        """What it says; a number, which nothing has been so far, as its digits."""
        return f"{self.value:.0f}" if isinstance(self.value, float) else (self.value or "")


class _Revision(msgspec.Struct, rename={"number": "Number", "date": "Date"}):
    number: str | float | None = None
    date: str | None = None


class _Remediation(
    msgspec.Struct,
    rename={
        "type": "Type",
        "description": "Description",
        "url": "URL",
        "supersedes": "Supercedence",
        "restart": "RestartRequired",
        "sub_type": "SubType",
        "fixed_build": "FixedBuild",
        "product_ids": "ProductID",
    },
):
    type: int | None = None
    description: _Text | None = None
    url: str | None = None
    supersedes: str | None = None
    restart: _Text | None = None
    sub_type: str | None = None
    fixed_build: str | None = None
    product_ids: list[str] | None = None


class _Threat(msgspec.Struct, rename={"type": "Type", "description": "Description"}):
    type: int | None = None
    description: _Text | None = None


class _Score(msgspec.Struct, rename={"base": "BaseScore", "vector": "Vector"}):
    base: float | None = None
    vector: str | None = None


class _Vulnerability(
    msgspec.Struct,
    rename={
        "cve": "CVE",
        "title": "Title",
        "threats": "Threats",
        "scores": "CVSSScoreSets",
        "remediations": "Remediations",
        "revisions": "RevisionHistory",
    },
):
    cve: str | None = None
    title: _Text | None = None
    threats: list[_Threat] | None = None
    scores: list[_Score] | None = None
    remediations: list[_Remediation] | None = None
    revisions: list[_Revision] | None = None


class _Identification(msgspec.Struct, rename={"id": "ID"}):
    id: _Text


class _Tracking(msgspec.Struct, rename={"identification": "Identification"}):
    identification: _Identification


class _Product(msgspec.Struct, rename={"id": "ProductID", "name": "Value"}):
    id: str | None = None
    name: str | None = None


class _Tree(msgspec.Struct, rename={"products": "FullProductName"}):
    products: list[_Product] | None = None


class _Document(
    msgspec.Struct,
    rename={"tracking": "DocumentTracking", "tree": "ProductTree", "vulnerabilities": "Vulnerability"},
):
    tracking: _Tracking
    tree: _Tree | None = None
    vulnerabilities: list[_Vulnerability] | None = None


class _Listed(msgspec.Struct, rename={"id": "ID", "current": "CurrentReleaseDate", "initial": "InitialReleaseDate"}):
    id: str
    current: str | None = None
    initial: str | None = None


class _Index(msgspec.Struct):
    value: list[_Listed]


_INDEX = msgspec.json.Decoder(_Index)
_DOCUMENT = msgspec.json.Decoder(_Document)

_BOM = b"\xef\xbb\xbf"
"""What Windows puts in front of a file that somebody saved for `msrc_url`."""

LONGEST_MOMENT = 28
"""Characters of the index's date that are compared: a line of STATE is no longer than it may be."""


class Document(NamedTuple):
    """What a document says of updates; rows lack `read_at` alone, and come in one order."""

    kbs: list[dict[str, Any]]
    kb_cves: list[dict[str, Any]]
    cves: list[dict[str, Any]]

    @property
    def digest(self) -> str:
        """Eight hex digits that differ when the rows do."""
        return hashlib.sha256(json.dumps([*self]).encode()).hexdigest()[:8]


def index_in(content: bytes) -> dict[str, str]:
    """The documents of the index that are of a month, and when each was released last, as the index says.

    Raises:
        ValueError: It is no index; also msgspec's own errors, which are ValueErrors.
    """
    listed = {each.id: _moment(each.current) for each in _decoded(_INDEX, content).value if month_of(each.id)}
    if not listed:
        msg = "an index without a month"
        raise ValueError(msg)
    return listed


def document_in(content: bytes, document_id: str) -> Document:
    """What a document says of updates.

    Args:
        content: The document as JSON.
        document_id: The one that was asked for.

    Raises:
        ValueError: It is no document, or another one; the text is a clause.
    """
    document = _decoded(_DOCUMENT, content)
    found = document.tracking.identification.id.text.strip()
    if found.casefold() != document_id.casefold():
        msg = f"another document than {document_id}"
        raise ValueError(msg)
    if document.vulnerabilities is None:
        msg = "a document without vulnerabilities"
        raise ValueError(msg)
    products = {each.id: each.name for each in (document.tree.products if document.tree else None) or []}
    fixes: dict[str, list[_Remediation]] = defaultdict(list)
    closes: dict[str, set[str]] = defaultdict(set)
    cves: dict[str, list[_Vulnerability]] = defaultdict(list)
    for vulnerability in document.vulnerabilities:
        cve = (vulnerability.cve or "").strip().upper()
        for remediation in vulnerability.remediations or ():
            if cve and (kb_id := _update_in(remediation)):
                fixes[kb_id].append(remediation)
                closes[kb_id].add(cve)
        if cve:
            cves[cve].append(vulnerability)
    histories = {cve: _History.of(entries) for cve, entries in cves.items()}
    closed = sorted(set().union(*closes.values()))
    return Document(
        [
            _kb(kb_id, document_id, fixes[kb_id], products, [histories[cve] for cve in closes[kb_id] if is_cve(cve)])
            for kb_id in sorted(fixes)
        ],
        [
            {"kb_id": kb_id, "cve_id": cve, "document_id": document_id}
            for kb_id in sorted(closes)
            for cve in sorted(closes[kb_id])
        ],
        [_cve(cve, document_id, cves[cve], histories[cve]) for cve in closed if is_cve(cve)],
    )


def _decoded(decoder: msgspec.json.Decoder[Read], content: bytes) -> Read:
    return decoder.decode(content.removeprefix(_BOM))


def _moment(said: str | None) -> str:
    """A date of the index as a word of STATE: it is compared, never read."""
    return "".join((said or "").split())[:LONGEST_MOMENT] or "-"


def is_cve(name: str) -> bool:
    """Whether it is a CVE, and no advisory."""
    return name.upper().startswith("CVE-")


def month_of(document_id: str) -> date | None:
    """The first day of a document's month: of `2026-Jun`, `2018-FEB`, `2017-May-B`; None where it names none."""
    found = _ID.fullmatch(document_id)
    if not found or found.group(2).lower() not in MONTHS or not int(found.group(1)) >= 1:
        return None
    return date(int(found.group(1)), MONTHS.index(found.group(2).lower()) + 1, 1)


def id_of(month: date) -> str:
    """The usual id of a month's document."""
    return f"{month.year}-{MONTHS[month.month - 1].capitalize()}"


def patch_tuesday(month: date) -> date:
    """The second Tuesday of a month."""
    return month + timedelta(days=(TUESDAY - month.weekday()) % 7 + 7)


def _update_in(remediation: _Remediation) -> str | None:
    """The number of the update that a remediation is; None if it is none."""
    said = remediation.description.text if remediation.description else ""
    found = _UPDATE.fullmatch(said.strip()) if remediation.type == VENDOR_FIX else None
    return found.group(1) if found else None


class _History(NamedTuple):
    """When a CVE was published and revised."""

    first: date | None
    last: date | None
    was_revised_late: bool

    @classmethod
    def of(cls, entries: Iterable[_Vulnerability]) -> _History:
        """The history of all entries of a CVE in a document."""
        revisions = [
            (day, str(revision.number or "").strip())
            for entry in entries
            for revision in entry.revisions or ()
            if (day := _day(revision.date))
        ]
        if not revisions:
            return cls(None, None, was_revised_late=False)
        first = min(day for day, _ in revisions)
        late = any(day - first > LATE and _MAJOR.fullmatch(number) for day, number in revisions)
        return cls(first, max(day for day, _ in revisions) if len(revisions) > 1 else None, late)


def _kb(
    kb_id: str,
    document_id: str,
    fixes: Sequence[_Remediation],
    products: Mapping[str | None, str | None],
    histories: Sequence[_History],
) -> dict[str, Any]:
    month = month_of(document_id)
    ids = sorted({each for fix in fixes for each in fix.product_ids or ()})
    urls = Counter(url for fix in fixes if (url := (fix.url or "").strip()).startswith(("https://", "http://")))
    return {
        "kb_id": kb_id,
        "document_id": document_id,
        "document_month": month.isoformat() if month else None,
        "cves": len(histories),
        "published_on": _published_on(histories, month),
        "supersedes": sorted({each for fix in fixes for each in _numbers(fix.supersedes)} - {kb_id}),
        "sub_types": _texts(fix.sub_type for fix in fixes),
        "product_ids": ids,
        "products": _texts(products.get(each) for each in ids),
        "fixed_builds": _texts(fix.fixed_build for fix in fixes),
        "restart_required": _worst((fix.restart.text for fix in fixes if fix.restart), RESTARTS),
        "url": min(urls, key=lambda url: (-urls[url], url), default=None),
    }


def _published_on(histories: Sequence[_History], month: date | None) -> str | None:
    """The day that an update came: Patch Tuesday, or that of most of its CVEs; None where each was revised later."""
    days = Counter(history.first for history in histories if history.first and not history.was_revised_late)
    if month and days[patch_tuesday(month)]:
        return patch_tuesday(month).isoformat()
    found = min((day for day in days if day and days[day]), key=lambda day: (-days[day], day), default=None)
    return found.isoformat() if found else None


def _cve(cve: str, document_id: str, entries: Sequence[_Vulnerability], history: _History) -> dict[str, Any]:
    threats = [
        (threat.type, threat.description.text)
        for entry in entries
        for threat in entry.threats or ()
        if threat.description
    ]
    said = [found for kind, text in threats if kind == IMPACT for found in _SAID.findall(text)]
    scores = [(score.base, score.vector) for entry in entries for score in entry.scores or () if score.base is not None]
    score, vector = max(scores, key=lambda pair: (pair[0], pair[1] or ""), default=(None, None))
    return {
        "id": cve,
        "title": next((text for entry in entries if entry.title and (text := entry.title.text.strip())), None),
        "severity": _worst((text for kind, text in threats if kind == SEVERITY), SEVERITIES),
        "exploited": _yes(said, "exploited"),
        "publicly_disclosed": _yes(said, "publicly disclosed"),
        "cvss_score": score,
        "cvss_vector": vector,
        "published_on": history.first.isoformat() if history.first else None,
        "revised_on": history.last.isoformat() if history.last else None,
        "document_id": document_id,
    }


def _yes(said: Iterable[tuple[str, str]], what: str) -> bool | None:
    answers = {answer.lower() for name, answer in said if name.lower() == what}
    return "yes" in answers if answers else None


def _worst(said: Iterable[str | None], scale: Sequence[str]) -> str | None:
    ranks = {name.lower(): rank for rank, name in enumerate(scale)}
    worst = max((ranks[text] for each in said if (text := (each or "").strip().lower()) in ranks), default=None)
    return None if worst is None else scale[worst]


def _texts(said: Iterable[str | None]) -> list[str]:
    return sorted({text for each in said if (text := " ".join((each or "").split()))})


def _numbers(text: str | None) -> Iterator[str]:
    """The numbers of updates in a text; those of bulletins are none."""
    yield from _NUMBER.findall(_BULLETIN.sub(" ", text or ""))


def _day(text: str | None) -> date | None:
    """The day of a moment, which is UTC with or without its zone; None where it stands for none."""
    try:
        day = date.fromisoformat((text or "").strip()[:10])
    except ValueError:
        return None
    return day if day.year > 1 else None
