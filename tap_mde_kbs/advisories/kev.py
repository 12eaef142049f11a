"""CISA's catalogue of known exploited vulnerabilities. Makes no call.

Source: cisa.gov, `known_exploited_vulnerabilities.json`, and its schema in cisagov/kev-data.
"""

from __future__ import annotations

from datetime import date
from typing import Any, NamedTuple

import msgspec

from tap_mde_kbs import schema

WORDS = {"yes": True, "known": True, "no": False}
"""What is said of a flag; `Unknown` and anything else is not known, which is not false."""


class _Entry(
    msgspec.Struct,
    rename={
        "cve_id": "cveID",
        "vendor": "vendorProject",
        "name": "vulnerabilityName",
        "required_action": "requiredAction",
        "added_on": "dateAdded",
        "due_on": "dueDate",
        "ransomware": "knownRansomwareCampaignUse",
        "forensic_triage": "forensicTriage",
    },
):
    cve_id: str
    vendor: str | None = None
    product: str | None = None
    name: str | None = None
    required_action: str | None = None
    added_on: str | None = None
    due_on: str | None = None
    ransomware: str | None = None
    forensic_triage: str | None = None


class _Catalogue(msgspec.Struct, rename={"released_at": "dateReleased", "entries": "vulnerabilities"}):
    released_at: str
    count: int
    entries: list[_Entry]


_CATALOGUE = msgspec.json.Decoder(_Catalogue)


class Catalogue(NamedTuple):
    """The catalogue; rows lack `read_at` alone."""

    released_at: str
    rows: list[dict[str, Any]]


def catalogue_in(content: bytes) -> Catalogue:
    """The catalogue in a file.

    Raises:
        ValueError: It is none; the text is a clause.
    """
    read = _CATALOGUE.decode(content.removeprefix(b"\xef\xbb\xbf"))
    try:
        released_at = schema.date_time(read.released_at)
    except (ValueError, OverflowError):  # the last hours of the year 9999, in a zone west of here
        released_at = None
    if released_at is None:
        msg = "a catalogue without the time of its release"
        raise ValueError(msg)
    if read.count != len(read.entries):
        msg = f"a catalogue of {len(read.entries)} entries whose count says {read.count}"
        raise ValueError(msg)
    rows: dict[str, dict[str, Any]] = {}
    for entry in read.entries:
        cve_id = entry.cve_id.strip().upper()
        if not cve_id:
            msg = "a catalogue with an entry without a CVE"
            raise ValueError(msg)
        rows.setdefault(  # newest first
            cve_id,
            {
                "cve_id": cve_id,
                "vendor": _text(entry.vendor),
                "product": _text(entry.product),
                "name": _text(entry.name),
                "required_action": _text(entry.required_action),
                "added_on": _day(entry.added_on),
                "due_on": _day(entry.due_on),
                "ransomware": WORDS.get((entry.ransomware or "").strip().lower()),
                "forensic_triage": WORDS.get((entry.forensic_triage or "").strip().lower()),
                "released_at": released_at,
            },
        )
    return Catalogue(released_at, [*rows.values()])


def _text(said: str | None) -> str | None:
    return schema.text(said.strip()) if said and said.strip() else None


def _day(said: str | None) -> str | None:
    try:
        return date.fromisoformat((said or "").strip()[:10]).isoformat()
    except ValueError:
        return None
