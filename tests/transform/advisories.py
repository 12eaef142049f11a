"""What is publicly known of updates, and what follows from it, by the rows of the feeds. Knows no warehouse."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DAY = timedelta(days=1)
RANKS = {"None": 0, "Low": 1, "Medium": 2, "Moderate": 2, "High": 3, "Important": 3, "Critical": 4}
RESTARTS = ("No", "Maybe", "Yes")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip
RULE_BOOKS = Path(__file__).parents[2] / "transform" / "seeds" / "rule_books.csv"


@dataclass(frozen=True)
class MsrcKb:
    """A row of `msrc_kbs`."""

    kb_id: str
    document_id: str
    document_month: date
    read_at: datetime
    cves: int = 0
    published_on: date | None = None
    supersedes: tuple[str, ...] = ()
    sub_types: tuple[str, ...] = ("Security Update",)
    product_ids: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    restart_required: str | None = None


@dataclass(frozen=True)
class MsrcKbCve:
    """A row of `msrc_kb_cves`."""

    kb_id: str
    cve_id: str
    document_id: str
    read_at: datetime


@dataclass(frozen=True)
class MsrcCve:
    """A row of `msrc_cves`."""

    id: str
    document_id: str
    read_at: datetime
    severity: str | None = None
    exploited: bool | None = None
    publicly_disclosed: bool | None = None


@dataclass(frozen=True)
class Kev:
    """A row of `kev`."""

    cve_id: str
    read_at: datetime
    added_on: date | None = None
    due_on: date | None = None
    ransomware: bool | None = None
    forensic_triage: bool | None = None


@dataclass(frozen=True)
class Epss:
    """A row of `epss`."""

    cve_id: str
    epss: float
    read_at: datetime


@dataclass(frozen=True)
class Ssvc:
    """A row of the table `ssvc`, which people fill."""

    cve_id: str
    automatable: str | None
    technical_impact: str | None


@dataclass(frozen=True)
class Advisories:
    """The raw tables of the feeds in one schema; None where there is no such table."""

    msrc_kbs: tuple[MsrcKb, ...] | None = None
    msrc_kb_cves: tuple[MsrcKbCve, ...] | None = None
    msrc_cves: tuple[MsrcCve, ...] | None = None
    kev: tuple[Kev, ...] | None = None
    epss: tuple[Epss, ...] | None = None
    ssvc: tuple[Ssvc, ...] | None = None


@dataclass(frozen=True)
class Cve:
    """All that is known of a CVE; of one that nobody names, nothing."""

    severity: int | None = None
    in_kev: bool | None = None
    attacked: bool | None = None
    automatable: bool | None = None
    impact: str | None = None
    assessed: bool | None = None
    forensic: bool | None = None
    added_on: date | None = None


class Due(NamedTuple):
    """When an update is due, and by which rule; the least one wins."""

    at: datetime
    days: int
    no_forensic_triage: bool
    clock_is_assumed: bool
    rule_id: str


Row = TypeVar("Row", MsrcKb, MsrcKbCve, MsrcCve)


class Advice:
    """What the feeds of all tenants say together, with what the exports know.

    Args:
        feeds: Of each tenant.
        names: Defender's title of each update that was missing.
        exported: The severities of each update's CVEs, by the exports.
    """

    def __init__(
        self,
        feeds: Iterable[Advisories],
        names: Mapping[str, str | None],
        exported: Mapping[str, Mapping[str, int | None]],
    ) -> None:
        tenants = list(feeds)
        self.names = names
        self.exported = exported
        self.rows = _newest_of_documents([row for tenant in tenants for row in tenant.msrc_kbs or ()])
        self.closing = _newest_of_documents([row for tenant in tenants for row in tenant.msrc_kb_cves or ()])
        self.said = _newest_of_documents([row for tenant in tenants for row in tenant.msrc_cves or ()])
        kev = [row for tenant in tenants for row in tenant.kev or ()]
        epss = [row for tenant in tenants for row in tenant.epss or ()]
        self.kev = {row.cve_id: row for row in kev if row.read_at == max(each.read_at for each in kev)}
        self.epss = {row.cve_id: row.epss for row in epss if row.read_at == max(each.read_at for each in epss)}
        self.ssvc = [row for tenant in tenants for row in tenant.ssvc or ()]
        self.of_kb: dict[str, list[MsrcKb]] = defaultdict(list)
        for row in self.rows:
            self.of_kb[row.kb_id].append(row)

    def msrc_cves(self, kb_id: str) -> set[str]:
        """What MSRC says that it closes."""
        return {row.cve_id for row in self.closing if row.kb_id == kb_id and row.cve_id.startswith("CVE-")}

    def cves(self, kb_id: str) -> set[str] | None:
        """What it closes, as far as anybody knows; None where nobody does."""
        if kb_id in self.of_kb:
            found = self.msrc_cves(kb_id)
            return found if found or not max(row.cves for row in self.of_kb[kb_id]) else None
        return {cve for cve in self.exported.get(kb_id, {}) if cve.startswith("CVE-")} or None

    def cve(self, cve_id: str) -> Cve:
        """What is known of a CVE."""
        exported = [ranks[cve_id] for ranks in self.exported.values() if ranks.get(cve_id) is not None]
        kev, ssvc = self.kev.get(cve_id), [row for row in self.ssvc if row.cve_id.upper() == cve_id]
        said = {row.automatable.lower() for row in ssvc if row.automatable}
        automatable = "yes" in said if said else None
        impact = max((row.technical_impact.lower() for row in ssvc if row.technical_impact), default=None)
        return Cve(
            severity=max((rank for rank in exported if rank is not None), default=self._msrc_severity({cve_id})),
            in_kev=kev is not None if self.kev else None,
            attacked=kev is not None or any(row.exploited for row in self.said if row.id == cve_id),
            automatable=automatable,
            impact=impact,
            assessed=automatable is not None and impact is not None,
            forensic=bool(kev and kev.forensic_triage),
            added_on=kev.added_on if kev else None,
        )

    def _msrc_severity(self, cves: set[str]) -> int | None:
        ranks = [RANKS[row.severity] for row in self.said if row.id in cves and row.severity in RANKS]
        return max(ranks, default=None)

    def severity(self, kb_id: str) -> int | None:
        """The export's where it knows the update, else MSRC's."""
        ranks = self.exported.get(kb_id, {}) if kb_id in self.names else {}
        exported = [rank for rank in ranks.values() if rank is not None]
        return max(exported, default=self._msrc_severity(self.cves(kb_id) or set()))

    def released(self, kb_id: str) -> tuple[date | None, bool | None]:
        """When it came, and whether that is a day that MSRC tells."""
        rows = self.of_kb.get(kb_id)
        if rows:
            home = max(rows, key=lambda row: (row.cves, row.document_month, row.document_id))
            return home.published_on or _second_tuesday(home.document_month), home.published_on is not None
        words = (self.names.get(kb_id) or "").split(" ")
        if len(words) > 1 and words[0] in MONTHS and words[1].isdecimal():
            return _second_tuesday(date(int(words[1]), MONTHS.index(words[0]) + 1, 1)), False
        return None, None

    def kb(self, kb_id: str) -> dict[str, Any]:
        """The columns of `kbs`, with the severity as a number."""
        released_on, is_exact = self.released(kb_id)
        restarts = [row.restart_required for row in self.of_kb.get(kb_id, ()) if row.restart_required]
        cves = self.cves(kb_id) or set()
        dues = [row.due_on for row in map(self.kev.get, cves) if row and row.due_on]
        return {
            "released_on": released_on,
            "released_on_is_exact": is_exact,
            **self.counts([kb_id]),
            "ransomware_cves": self._count([kb_id], lambda row: bool(row and row.ransomware)),
            "disclosed_cves": (
                len({row.id for row in self.said if row.publicly_disclosed and row.id in cves})
                if kb_id in self.of_kb and self.cves(kb_id) is not None
                else None
            ),
            "kev_due_on": min(dues, default=None),
            "restart_required": max(restarts, key=RESTARTS.index, default=None),
        }

    def counts(self, kb_ids: Iterable[str]) -> dict[str, Any]:
        """What several updates close together: null where nothing is known of any."""
        kb_ids = list(kb_ids)
        in_msrc = [kb_id for kb_id in kb_ids if kb_id in self.of_kb and self.cves(kb_id) is not None]
        known = [kb_id for kb_id in kb_ids if self.cves(kb_id) is not None]
        cves = set().union(*(self.cves(kb_id) or set() for kb_id in known))
        can_tell = any(self.kev or kb_id in self.of_kb for kb_id in known)
        severities = [rank for rank in map(self.severity, kb_ids) if rank is not None]
        return {
            "cves": len(set().union(*(self.msrc_cves(kb_id) for kb_id in in_msrc))) if in_msrc else None,
            "severity": max(severities, default=None),
            "attacked_cves": sum(bool(self.cve(cve).attacked) for cve in cves) if can_tell else None,
            "kev_cves": self._count(kb_ids, lambda row: row is not None),
            "max_epss": max((self.epss[cve] for cve in cves if cve in self.epss), default=None),
        }

    def _count(self, kb_ids: Iterable[str], counts: Any) -> int | None:
        known = [cves for cves in map(self.cves, kb_ids) if cves is not None]
        return sum(counts(self.kev.get(cve)) for cve in set().union(*known)) if known and self.kev else None

    # What replaces what

    @cached_property
    def _links(self) -> dict[str, dict[str, bool]]:
        """By the older update, the newer ones, and whether Microsoft says so."""
        links: dict[str, dict[str, bool]] = defaultdict(dict)
        for row in self.rows:
            for older in row.supersedes:
                links[older][row.kb_id] = True
        for older in self.of_kb:
            for newer in self.of_kb:
                if self._is_assumed_to_replace(newer, older):
                    links[older].setdefault(newer, False)
        return links

    def _kinds(self, kb_id: str) -> set[str]:
        return {kind.replace(" ", "").lower() for row in self.of_kb[kb_id] for kind in row.sub_types}

    def _is_hotpatch(self, kb_id: str) -> bool:
        return any("hotpatch" in kind for kind in self._kinds(kb_id))

    def _is_partial(self, kb_id: str) -> bool:
        parts = ("standalone", "servicing", "setupdu", "securityonly")
        return any(part in kind for kind in self._kinds(kb_id) for part in parts)

    def _is_cumulative(self, kb_id: str) -> bool:
        whole = {"securityupdate", "cumulativeupdate"} & self._kinds(kb_id)
        return bool(whole) and not self._is_hotpatch(kb_id) and not self._is_partial(kb_id)

    def _products(self, kb_id: str) -> set[str]:
        return {product for row in self.of_kb[kb_id] for product in row.product_ids}

    @cached_property
    def _windows(self) -> set[str]:
        """The ids that are never named without a Windows of today."""
        named: dict[str, list[bool]] = defaultdict(list)
        for row in self.rows:
            for product_id in row.product_ids:
                named[product_id].append(any(map(_is_windows, row.products)))
        return {product_id for product_id, with_windows in named.items() if all(with_windows)}

    def _is_assumed_to_replace(self, newer: str, older: str) -> bool:
        shared = self._products(newer) & self._products(older) & self._windows
        months = [day.replace(day=1) for day in (self.released(newer)[0], self.released(older)[0]) if day]
        replaceable = self._is_cumulative(older) or (self._is_hotpatch(older) and not self._is_partial(older))
        return bool(shared) and months[0] > months[1] and self._is_cumulative(newer) and replaceable

    def _reached(self, kb_id: str, *, microsoft: bool) -> set[str]:
        """Whatever replaces an update, step by step."""
        found: set[str] = set()
        steps = [kb_id]
        while steps:
            for newer, is_microsofts in self._links.get(steps.pop(), {}).items():
                if newer not in found and (is_microsofts or not microsoft):
                    found.add(newer)
                    steps.append(newer)
        return found

    def replaced_by(self, kb_id: str) -> dict[str, bool]:
        """What replaces an update, but not the other way round, and whether that is assumed."""
        microsofts = self._reached(kb_id, microsoft=True)
        return {
            newer: newer not in microsofts
            for newer in self._reached(kb_id, microsoft=False)
            if kb_id not in self._reached(newer, microsoft=False)
        }

    def installs(self, open_kbs: Sequence[str]) -> dict[str, dict[str, bool]]:
        """Of what is open on a machine what to install, with what each closes, and whether that is assumed."""
        replaced = {kb_id: {n: a for n, a in self.replaced_by(kb_id).items() if n in open_kbs} for kb_id in open_kbs}
        return {
            kb_id: {kb_id: False} | {older: newer[kb_id] for older, newer in replaced.items() if kb_id in newer}
            for kb_id in open_kbs
            if not replaced[kb_id]
        }

    # When it is due

    def due(self, book: str, kb_id: str, first_missed_at: datetime, *, is_exposed: bool) -> Due | None:
        """When an update is due on a machine by a book of the seed."""
        cves = self.cves(kb_id)
        facts = [Cve()] if cves is None else [self.cve(cve) for cve in sorted(cves)]
        released_on = self.released(kb_id)[0]
        dues = []
        for rule in (rule for rule in rule_books() if rule["rule_book"] == book):
            for cve in facts:
                if not _fits(rule, cve, is_exposed=is_exposed):
                    continue
                starts = [first_missed_at]
                if rule["clock"] == "release" and released_on:
                    starts = [_midnight(released_on)]
                elif rule["clock"] == "detected_or_kev" and cve.added_on:
                    starts.append(_midnight(cve.added_on))
                days = int(rule["days"])
                is_assumed = rule["clock"] == "release" and not released_on
                triage = rule["forensic_triage"] == "true"
                dues.append(Due(min(starts) + days * DAY, days, not triage, is_assumed, rule["rule_id"]))
        return min(dues, default=None)


def rule_books() -> list[dict[str, str]]:
    """The seed's rules."""
    with RULE_BOOKS.open(newline="") as seed:
        return list(csv.DictReader(seed))


def _fits(rule: Mapping[str, str], cve: Cve, *, is_exposed: bool) -> bool:
    if rule["min_severity"] and (cve.severity is None or cve.severity < RANKS[rule["min_severity"]]):
        return False
    asked = {
        "in_kev": cve.in_kev,
        "is_exploited": cve.attacked,
        "is_exposed": is_exposed,
        "is_automatable": cve.automatable,
        "is_assessed": cve.assessed,
        "kev_forensic": cve.forensic,
    }
    if rule["technical_impact"] and rule["technical_impact"] != cve.impact:
        return False
    return all(value is (rule[name] == "true") for name, value in asked.items() if rule[name])


def _is_windows(product: str) -> bool:
    words = product.lower().replace(",", "").split()
    if words[:2] in (["windows", "10"], ["windows", "11"]):
        return True
    if words[:2] != ["windows", "server"]:
        return False
    return words[2] == "version" or int(words[2]) >= 2016


def _newest_of_documents(rows: list[Row]) -> list[Row]:
    """Those of the newest reading of each document; tenants may have read the same."""
    newest: dict[str, datetime] = {}
    for row in rows:
        newest[row.document_id] = max(row.read_at, newest.get(row.document_id, row.read_at))
    found: list[Row] = []
    for row in rows:
        if row.read_at == newest[row.document_id] and row not in found:
            found.append(row)
    return found


def _second_tuesday(month: date) -> date:
    return [day for n in range(14) if (day := month.replace(day=1) + n * DAY).weekday() == 1][1]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time())
