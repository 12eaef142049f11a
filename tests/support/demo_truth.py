"""What a reader of the demo should see, from the fleet itself: no SQL, no marts."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from functools import cached_property
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from demo.__main__ import MACHINES, NIGHTS, SEED, expose, faults_of, moment_of
from mde_simulator import Fleet
from mde_simulator.feeds.kev import Catalogue
from mde_simulator.feeds.msrc import Documents
from mde_simulator.feeds.public import is_exploited, needs_forensic_triage
from mde_simulator.fleet.catalogue import WINDOWS
from mde_simulator.fleet.cves import cve

if TYPE_CHECKING:
    from collections.abc import Iterable

DEADLINES = Path(__file__).parents[2] / "transform" / "seeds" / "deadlines.csv"
QUIET = timedelta(days=7)
SEVERITIES = (None, "Low", "Medium", "High", "Critical")
"""From harmless to worst."""


@dataclass(frozen=True)
class Night:
    """One night: when it was, who was listed, who was to be asked, what was answered."""

    moment: datetime
    listed: frozenset[str]
    asked: frozenset[str]
    answers: dict[str, frozenset[str]]


@dataclass(frozen=True)
class Episode:
    """A machine lacks an update from one answer to another; nights are counted from 0."""

    machine_id: str
    kb_id: str
    first: int
    last: int
    installed: int | None
    start_was_seen: bool


class Truth:
    """The tenant of the demo after its last night."""

    def __init__(self) -> None:
        self.fleet = Fleet(MACHINES, SEED)
        expose(self.fleet)
        self.nights: list[Night] = []
        self.groups: dict[str, str] = {}  # of those that left, too
        for number, day in enumerate(NIGHTS, 1):
            self.fleet.pass_days(day - self.fleet.day)
            faults = [each for each in faults_of(number, self.fleet) if each.kind == "not_found"]
            silent = {each.machine for each in faults if each.machine}
            missing, assessed = self.fleet.missing(), frozenset(self.fleet.assessed())
            for id_ in self.fleet.listed():
                self.groups[id_] = str(self.fleet.machine(id_)["rbacGroupName"] or "(none)")
            self.nights.append(
                Night(
                    moment_of(number, self.fleet),
                    frozenset(self.fleet.listed()),
                    assessed,
                    {id_: missing[id_] for id_ in assessed - silent},
                )
            )

    @property
    def now(self) -> Night:
        """The last night."""
        return self.nights[-1]

    @cached_property
    def machines(self) -> dict[str, dict[str, Any]]:
        """The listed machines, as the API shows them."""
        return {id_: self.fleet.machine(id_) for id_ in self.now.listed}

    @cached_property
    def known(self) -> dict[str, frozenset[str]]:
        """The last answer of each machine that is listed, if it ever gave one."""
        answers: dict[str, frozenset[str]] = {}
        for night in self.nights:
            answers.update(night.answers)
        return {id_: kbs for id_, kbs in answers.items() if id_ in self.now.listed}

    @cached_property
    def active(self) -> set[str]:
        """Assessed, and seen within a week."""
        return {id_ for id_ in self.now.asked if not self.is_quiet(id_)}

    def is_quiet(self, machine_id: str) -> bool:
        """Whether a machine was not seen for a week, as far as is known."""
        seen = self.machines[machine_id]["lastSeen"]
        return seen is None or datetime.fromisoformat(f"{seen[:19]}+00:00") < self.now.moment - QUIET

    @cached_property
    def episodes(self) -> list[Episode]:
        """All of them."""
        answers: dict[str, list[tuple[int, frozenset[str]]]] = defaultdict(list)
        for number, night in enumerate(self.nights):
            for id_, kbs in night.answers.items():
                answers[id_].append((number, kbs))
        return [episode for id_, given in answers.items() for episode in _episodes(id_, given)]

    @cached_property
    def open(self) -> list[Episode]:
        """What is missing now."""
        return [each for each in self.episodes if each.installed is None and self.is_assessed(each.machine_id)]

    def is_assessed(self, machine_id: str) -> bool:
        """Whether a machine is listed, and Defender assesses it."""
        return machine_id in self.now.asked

    @cached_property
    def installs(self) -> list[tuple[Episode, float]]:
        """What was installed, with the days that took, where the beginning was seen."""
        return [
            (each, (self.nights[each.installed].moment - self.nights[each.first].moment) / timedelta(days=1))
            for each in self.episodes
            if each.installed is not None and each.start_was_seen
        ]

    def cves(self, kb_id: str) -> int:
        """How many CVEs an update closes."""
        return int(str(self.fleet.kb(kb_id)["cveAddressed"]))

    def deadline(self, kb_id: str) -> timedelta:
        """By the seed, the strictest that fits the severity that MSRC tells, the worst of what the update closes."""
        rows = csv.DictReader(DEADLINES.read_text().splitlines())
        worst = max(SEVERITIES.index(cve(cve_id).severity(0)) for cve_id in self.closes[kb_id])
        return timedelta(
            days=min(int(row["days"]) for row in rows if worst >= SEVERITIES.index(row["min_severity"] or None))
        )

    def overdue(self, episode: Episode) -> timedelta:
        """How long its deadline is past; negative: how long there is left."""
        return self.now.moment - self.nights[episode.first].moment - self.deadline(episode.kb_id)

    @cached_property
    def late(self) -> Counter[str]:
        """How many deadlines each active machine has missed."""
        return Counter(
            each.machine_id for each in self.open if each.machine_id in self.active and self.overdue(each) > timedelta()
        )

    # What is publicly known

    @cached_property
    def documents(self) -> Documents:
        """MSRC's, of the last night."""
        return Documents(self.fleet)

    @cached_property
    def closes(self) -> dict[str, set[str]]:
        """The CVEs that each update closes."""
        found: dict[str, set[str]] = defaultdict(set)
        for fixes in self.documents.fixes().values():
            for fix in fixes:
                found[fix.kb.id].add(fix.cve_id)
        return found

    @cached_property
    def kev(self) -> dict[str, datetime]:
        """When CISA added each CVE."""
        entries = Catalogue(self.fleet, self.documents).entries()
        return {entry.cve_id: datetime.combine(entry.added_on, time(), timezone.utc) for entry in entries}

    def attacked(self, cve_id: str) -> bool:
        """By MSRC's word, or CISA's."""
        return is_exploited(cve_id) or cve_id in self.kev

    @cached_property
    def replaced_by(self) -> dict[str, set[str]]:
        """By update, whatever replaces it: MSRC says so, or it is for the same Windows and of a later month."""
        kbs = self.fleet.updates()
        newer: dict[str, set[str]] = defaultdict(set)
        for kb_id, older in self.documents.predecessors().items():
            for each in older:
                newer[each].add(kb_id)
        for old in kbs:
            for new in kbs:
                is_later = (new.published.year, new.published.month) > (old.published.year, old.published.month)
                if old.product in WINDOWS and new.product == old.product and is_later and not new.is_hotpatch:
                    newer[old.id].add(new.id)
        found: dict[str, set[str]] = {}
        for kb in sorted(kbs, key=lambda kb: (kb.published, kb.id), reverse=True):
            found[kb.id] = newer[kb.id].union(*(found[each] for each in newer[kb.id]))
        return found

    @cached_property
    def to_install(self) -> dict[tuple[str, str], list[Episode]]:
        """By machine and update to install, what that closes there."""
        missing: dict[str, dict[str, Episode]] = defaultdict(dict)
        for each in self.open:
            missing[each.machine_id][each.kb_id] = each
        return {
            (machine_id, kb_id): [each for older, each in kbs.items() if kb_id in {older, *self.replaced_by[older]}]
            for machine_id, kbs in missing.items()
            for kb_id in kbs
            if not self.replaced_by[kb_id] & kbs.keys()
        }

    # What tables say

    def what_to_install(self) -> dict[str, list[int]]:
        """By update: on how many machines, updates closed there at most, CVEs, attacked ones, machines past a date."""
        found: dict[str, list[int]] = {}
        for (_, kb_id), closed in self.to_install.items():
            cves = set().union(*(self.closes[each.kb_id] for each in closed))
            counts = [len(closed), len(cves), sum(map(self.attacked, cves))]
            machines, *highest, late = found.get(kb_id, [0, 0, 0, 0, 0])
            is_late = any(self.overdue(each) > timedelta() for each in closed)
            found[kb_id] = [machines + 1, *map(max, highest, counts), late + is_late]
        return found

    def rule_books(self) -> dict[str, tuple[int, int]]:
        """By rule book, missing updates with a date, and those past it. SSVC is not known in the demo."""
        books: dict[str, list[timedelta | None]] = {"own": [self.overdue(each) for each in self.open]}
        books["bod_26_04"] = [self._overdue_by_bod(each) for each in self.open]
        books["essential_eight"] = [self._overdue_by_essential_eight(each) for each in self.open]
        return {
            book: (
                sum(each is not None for each in late),
                sum(each is not None and each > timedelta() for each in late),
            )
            for book, late in books.items()
        }

    def _is_exposed(self, machine_id: str) -> bool:
        return "internet-facing" in self.machines[machine_id]["machineTags"]

    def _overdue_by_bod(self, episode: Episode) -> timedelta:
        """60 days from detection, in KEV 14 from detection or its adding, exposed and with forensics 3."""
        exposed, first = self._is_exposed(episode.machine_id), self.nights[episode.first].moment
        dues = [first + timedelta(days=60)]
        for cve_id in self.closes[episode.kb_id] & self.kev.keys():
            allowed = timedelta(days=3 if exposed and needs_forensic_triage(cve_id) else 14)
            dues.append(min(first, self.kev[cve_id]) + allowed)
        return self.now.moment - min(dues)

    def _overdue_by_essential_eight(self, episode: Episode) -> timedelta:
        """A month from release; exposed two weeks, or two days where critical or attacked."""
        [kb] = [kb for kb in self.fleet.updates() if kb.id == episode.kb_id]
        released, allowed = datetime.combine(kb.published, time(), timezone.utc), 30
        if self._is_exposed(episode.machine_id):
            closed = self.closes[kb.id]
            is_bad = any(self.attacked(each) or cve(each).severity(0) == "Critical" for each in closed)
            allowed = 2 if is_bad else 14
        return self.now.moment - released - timedelta(days=allowed)

    def days(self) -> dict[str, list[int]]:
        """By day: asked, answered, lack nothing, missing, new, installed."""
        rows = {}
        for number, night in enumerate(self.nights):
            missing = [
                each
                for each in self.episodes
                if each.first <= number
                and (each.installed is None or number < each.installed)
                and (self.is_assessed(each.machine_id) or number <= each.last)
            ]
            rows[f"{night.moment:%Y-%m-%d}"] = [
                len(night.asked),
                len(night.answers),
                sum(not kbs for kbs in night.answers.values()),
                len(missing),
                sum(each.first == number for each in self.episodes),
                sum(each.installed == number for each in self.episodes),
            ]
        return rows

    def updates(self) -> dict[str, tuple[int, int]]:
        """CVEs and machines of each update that is missing."""
        counts = Counter(each.kb_id for each in self.open)
        return {kb_id: (self.cves(kb_id), machines) for kb_id, machines in counts.items()}

    def segments(self, kind: str) -> dict[str, tuple[int, float, int]]:
        """Machines, share of patched ones among those known, and missed deadlines, of active machines."""
        members: dict[str, list[str]] = defaultdict(list)
        for id_ in self.active:
            for segment in self._segments(kind, self.machines[id_]):
                members[segment].append(id_)
        return {segment: self._segment(ids) for segment, ids in members.items()}

    def _segments(self, kind: str, machine: dict[str, Any]) -> list[str]:
        if kind == "all":
            return ["all"]
        if kind == "tag":
            return list(machine["machineTags"])
        name = {"group": "rbacGroupName", "platform": "osPlatform", "risk": "riskScore", "exposure": "exposureLevel"}
        return [machine[name[kind]] or "(none)"]

    def _segment(self, ids: Iterable[str]) -> tuple[int, float, int]:
        known = [self.known[id_] for id_ in ids if id_ in self.known]
        return len(list(ids)), sum(not kbs for kbs in known) / len(known), sum(self.late[id_] for id_ in ids)

    def install_times(self, kind: str) -> dict[str, tuple[int, float, float]]:
        """How many, median and mean days, of all or by month or group."""
        times: dict[str, list[float]] = defaultdict(list)
        for episode, days in self.installs:
            times[self._install_segment(kind, episode)].append(days)
        return {segment: (len(days), median(days), mean(days)) for segment, days in times.items()}

    def _install_segment(self, kind: str, episode: Episode) -> str:
        if kind == "all":
            return "all"
        if kind == "month":
            assert episode.installed is not None
            return f"{self.nights[episode.installed].moment:%Y-%m}"
        return self.groups[episode.machine_id]

    def ageing(self) -> list[int]:
        """Missing updates of active machines: over 30, 8 to 30, up to 7 days late; due in 7, in 30 days, later."""
        days, counts = timedelta(days=1), [0] * 6
        for late in [self.overdue(each) for each in self.open if each.machine_id in self.active]:
            bands = [late > 30 * days, late > 7 * days, late > 0 * days, late >= -7 * days, late >= -30 * days, True]
            counts[bands.index(True)] += 1
        return counts

    def gaps(self) -> Counter[str]:
        """How many machines were not heard of, by reason."""
        reasons: Counter[str] = Counter()
        not_assessed = self.fleet.not_assessed()
        for id_ in self.now.listed:
            if not self.is_assessed(id_):
                reasons[not_assessed[id_]] += 1
            elif id_ not in self.now.answers:
                reasons["not_found"] += 1
            elif self.is_quiet(id_):
                reasons["quiet"] += 1
        return reasons


def _episodes(machine_id: str, answers: list[tuple[int, frozenset[str]]]) -> Iterable[Episode]:
    """The episodes of one machine, from its answers in order."""
    for kb_id in frozenset().union(*(kbs for _, kbs in answers)):
        first = last = before = None
        for number, kbs in answers:
            if kb_id in kbs:
                if first is None:
                    first, seen = number, before is not None
                last = number
            elif first is not None and last is not None:
                yield Episode(machine_id, kb_id, first, last, number, seen)
                first = None
            before = number
        if first is not None and last is not None:
            yield Episode(machine_id, kb_id, first, last, None, seen)
