"""What a reader of the demo should see, from the fleet itself: no SQL, no marts."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from demo.__main__ import MACHINES, NIGHTS, SEED, faults_of, moment_of
from mde_simulator import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterable

DEADLINES = Path(__file__).parents[2] / "transform" / "seeds" / "deadlines.csv"
QUIET = timedelta(days=7)


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
        """By the seed, the strictest that fits; severities are not known in the demo."""
        rows = csv.DictReader(DEADLINES.read_text().splitlines())
        return timedelta(
            days=min(int(row["days"]) for row in rows if self.cves(kb_id) >= int(row["min_cve_addressed"] or 0))
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

    # What tables say

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
