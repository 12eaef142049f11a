"""What each mart has to hold, by the log of checks alone; shares nothing with the SQL, and knows no warehouse.

The log may come from anywhere: random fleets, the raw tables, or a simulated tenant's own history, in which `kb_ids` is
what the machine lacked at the moment it answered.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Row = dict[str, Any]
Rows = dict[tuple[Any, ...], Row]
Pair = tuple[str, str]

DAY = timedelta(days=1)
RANKS = {"None": 0, "Low": 1, "Medium": 2, "High": 3, "Critical": 4}
KB_COLUMNS = ("name", "url", "cve_addressed")
WORDS: dict[int | None, str] = {rank: word for word, rank in RANKS.items()}


@dataclass(frozen=True)
class Check:
    """A row of `missing_kbs_checks`."""

    machine_id: str
    sweep: int
    checked_at: datetime
    outcome: str
    kb_ids: frozenset[str] | None = None


@dataclass(frozen=True)
class Machine:
    """A row of `machines`, as far as marts look at it."""

    id: str
    listed_at: datetime
    last_seen: datetime | None = None
    onboarding_status: str | None = "Onboarded"
    computer_dns_name: str | None = None
    os_platform: str | None = None
    rbac_group_name: str | None = None
    risk_score: str | None = None
    exposure_level: str | None = None
    health_status: str | None = None
    machine_tags: tuple[str, ...] | None = ()


@dataclass(frozen=True)
class MissingKb:
    """A row of `missing_kbs`, as far as marts look at it."""

    machine_id: str
    id: str
    checked_at: datetime
    name: str | None = None
    url: str | None = None
    cve_addressed: int | None = None
    first_seen_at: datetime | None = None


@dataclass(frozen=True)
class KbCve:
    """A row of `kb_cves`."""

    kb_id: str
    cve_id: str
    severity: str | None = None
    cvss_score: float | None = None
    exploitability_level: str | None = None


@dataclass(frozen=True)
class Deadline:
    """A row of the seed."""

    days: int
    min_cve_addressed: int | None = None
    min_severity: str | None = None
    rbac_group_name: str | None = None
    machine_tag: str | None = None


@dataclass(frozen=True)
class Tenant:
    """The raw tables of one schema; `kb_cves` is None where there is no such table."""

    machines: Sequence[Machine] = ()
    checks: Sequence[Check] = ()
    missing_kbs: Sequence[MissingKb] = ()
    kb_cves: Sequence[KbCve] | None = None


@dataclass
class Episode:
    """An unbroken run of answers in which a machine lacked a KB."""

    machine_id: str
    kb_id: str
    first_missed_at: datetime
    last_missed_at: datetime
    not_missed_at: datetime | None
    installed_by: datetime | None = None
    missed_checks: int = 1
    number: int = 1


@dataclass
class Known:
    """All that is known of one machine."""

    machine: Machine | None
    now: datetime | None
    """The newest check of its tenant."""
    has_left: bool
    checks: list[Check] = field(default_factory=list)

    @cached_property
    def answers(self) -> list[Check]:
        """Those with an answer, in order; of two at one moment the later sweep's."""
        at = {
            check.checked_at: check
            for check in sorted(self.checks, key=lambda check: (check.checked_at, check.sweep))
            if check.outcome == "answered"
        }
        return list(at.values())

    @property
    def last(self) -> Check | None:
        """The newest check."""
        return max(self.checks, key=lambda check: (check.checked_at, check.sweep), default=None)

    @property
    def recently_seen(self) -> bool:
        """Within seven days of the listing."""
        machine = self.machine
        return bool(machine and machine.last_seen and machine.last_seen >= machine.listed_at - 7 * DAY)

    @property
    def active(self) -> bool:
        """Onboarded, and seen lately."""
        return bool(self.machine and self.machine.onboarding_status in {None, "Onboarded"} and self.recently_seen)

    def of_machine(self, column: str) -> Any:
        """A column of `machines`."""
        return getattr(self.machine, column, None)


def episodes_of(answers: Iterable[Check]) -> list[Episode]:
    """The episodes of one machine, by its answers in order."""
    done: list[Episode] = []
    running: dict[str, Episode] = {}
    before: datetime | None = None
    for answer in answers:
        missing = answer.kb_ids or frozenset()
        for kb_id in [*running]:
            if kb_id not in missing:
                running.pop(kb_id).installed_by = answer.checked_at
        for kb_id in sorted(missing):
            if kb_id in running:
                running[kb_id].last_missed_at = answer.checked_at
                running[kb_id].missed_checks += 1
            else:
                number = 1 + sum(episode.kb_id == kb_id for episode in done)
                running[kb_id] = Episode(answer.machine_id, kb_id, answer.checked_at, answer.checked_at, before)
                running[kb_id].number = number
                done.append(running[kb_id])
        before = answer.checked_at
    return done


def days(start: datetime, end: datetime) -> float:
    """A real number of days."""
    return (end - start) / DAY


class Truth:
    """The marts, a method each: their rows by key, with the columns of the contract."""

    def __init__(
        self,
        tenants: Iterable[Tenant],
        deadlines: Sequence[Deadline],
        first_seen: Mapping[Pair, datetime] | None = None,
    ) -> None:
        """Take `first_seen` where exports told it before the raw table forgot it."""
        self.tenants = list(tenants)
        self.deadlines = deadlines
        self.rows = {(row.machine_id, row.id): row for tenant in self.tenants for row in tenant.missing_kbs}
        told = {pair: row.first_seen_at for pair, row in self.rows.items() if row.first_seen_at}
        self.first_seen = told if first_seen is None else first_seen

    @cached_property
    def known(self) -> dict[str, Known]:
        """The machines by id: those listed once, and those that were ever to be asked."""
        return {machine_id: known for tenant in self.tenants for machine_id, known in _known(tenant).items()}

    @cached_property
    def episodes(self) -> list[Episode]:
        """All there ever were."""
        return [episode for episodes in self._episodes_by_machine.values() for episode in episodes]

    @cached_property
    def _episodes_by_machine(self) -> dict[str, list[Episode]]:
        return {machine_id: episodes_of(known.answers) for machine_id, known in self.known.items()}

    def int_kb_episodes(self) -> Rows:
        columns = ("last_missed_at", "installed_by", "not_missed_at", "missed_checks")
        return {
            (episode.machine_id, episode.kb_id, episode.first_missed_at): {
                column: getattr(episode, column) for column in columns
            }
            for episode in self.episodes
        }

    def kb_episodes(self) -> Rows:
        rows = {}
        for episode in self.episodes:
            deadline_days = self._deadline_days(episode)
            due_at = self._due_at(episode)
            rows[(episode.machine_id, episode.kb_id, episode.first_missed_at)] = {
                "last_missed_at": episode.last_missed_at,
                "installed_by": episode.installed_by,
                "not_missed_at": episode.not_missed_at,
                "missed_checks": episode.missed_checks,
                "episode_number": episode.number,
                "status": self._status(episode),
                "deadline_days": deadline_days,
                "due_at": due_at,
                "cve_addressed": self._cve_addressed(episode),
                "days_missing": self._days_missing(episode),
                "first_missed_at_is_known": episode.not_missed_at is not None,
                "came_back": episode.number > 1,
                "worst_severity": WORDS.get(self._severity(episode.kb_id)),
            }
        return rows

    def kbs_missing(self) -> Rows:
        rows: Rows = {}
        by_kb: dict[str, list[Episode]] = defaultdict(list)
        for episode in self.episodes:
            by_kb[episode.kb_id].append(episode)
        for kb_id, episodes in by_kb.items():
            cves = self._cves(kb_id)
            severe = sum(cve["rank"] >= RANKS["High"] for cve in cves.values())
            rows[(kb_id,)] = {
                **self._kb(kb_id),
                "machines_missing": len({e.machine_id for e in episodes if self._status(e) == "open"}),
                "machines_ever": len({e.machine_id for e in episodes}),
                "first_missed_at": min(e.first_missed_at for e in episodes),
                "worst_severity": WORDS.get(self._severity(kb_id)),
                "severe_cves": severe if cves else None,
                "exploited_cves": sum(cve["exploited"] for cve in cves.values()) if cves else None,
            }
        return rows

    def machine_compliance(self) -> Rows:
        columns = (
            "computer_dns_name",
            "os_platform",
            "rbac_group_name",
            "risk_score",
            "exposure_level",
            "health_status",
            "onboarding_status",
            "last_seen",
        )
        rows = {}
        for machine_id, known in self._staying().items():
            missing = self._open(machine_id)
            is_known = bool(known.answers)
            rows[(machine_id,)] = {
                **{column: known.of_machine(column) for column in columns},
                "is_active": known.active,
                "last_checked_at": known.last and known.last.checked_at,
                "last_outcome": known.last and known.last.outcome,
                "last_answered_at": known.answers[-1].checked_at if is_known else None,
                "is_known": is_known,
                "missing_kbs": len(missing) if is_known else None,
                "missing_cves": sum(self._cve_addressed(e) or 0 for e in missing) if is_known else None,
                "overdue_kbs": sum(self._is_overdue(e) for e in missing) if is_known else None,
                "oldest_missing_days": max((self._days_missing(e) for e in missing), default=None),
                "is_fully_patched": not missing if is_known else None,
            }
        return rows

    def compliance_by_segment(self) -> Rows:
        members: dict[tuple[str, str], list[Row]] = defaultdict(list)
        compliance = self.machine_compliance()
        for (machine_id,), row in compliance.items():
            machine = self.known[machine_id].machine
            if not row["is_active"] or not machine:
                continue
            members["all", "all"].append(row)
            members["platform", machine.os_platform or "(none)"].append(row)
            members["group", machine.rbac_group_name or "(none)"].append(row)
            members["risk", machine.risk_score or "(none)"].append(row)
            members["exposure", machine.exposure_level or "(none)"].append(row)
            for tag in set(machine.machine_tags or ()):
                members["tag", tag].append(row)
        return {segment: _compliance(rows) for segment, rows in members.items()}

    def overdue_pairs(self) -> Rows:
        rows: Rows = {}
        for episode in self.episodes:
            due_at = self._due_at(episode)
            if not self._is_overdue(episode) or due_at is None:
                continue
            rows[(episode.machine_id, episode.kb_id)] = {
                "first_missed_at": episode.first_missed_at,
                "due_at": due_at,
                "deadline_days": self._deadline_days(episode),
                "days_missing": self._days_missing(episode),
                "days_overdue": days(due_at, self._now(episode)),
                "first_missed_at_is_known": episode.not_missed_at is not None,
            }
        return rows

    def time_to_install(self) -> Rows:
        taken: dict[tuple[str, str], list[float]] = defaultdict(list)
        for episode in self.episodes:
            if not episode.installed_by or not episode.not_missed_at:
                continue
            took = days(episode.first_missed_at, episode.installed_by)
            group = self.known[episode.machine_id].of_machine("rbac_group_name") or "(none)"
            taken["all", "all"].append(took)
            taken["kb", episode.kb_id].append(took)
            taken["group", group].append(took)
            taken["month", f"{episode.installed_by:%Y-%m}"].append(took)
        return {
            segment: {"installs": len(took), "mean_days": fmean(took), "median_days": median(took)}
            for segment, took in taken.items()
        }

    def compliance_by_day(self) -> Rows:
        checks = [check for known in self.known.values() for check in known.checks]
        return {(day,): self._day(day) for day in {check.checked_at.date() for check in checks}}

    def _day(self, day: date) -> Row:
        today = {
            machine_id: [check for check in known.checks if check.checked_at.date() == day]
            for machine_id, known in self.known.items()
        }
        last_answers = [
            answers[-1]
            for known in self.known.values()
            if (answers := [answer for answer in known.answers if answer.checked_at.date() == day])
        ]
        return {
            "opened_pairs": sum(e.first_missed_at.date() == day for e in self.episodes),
            "installed_pairs": sum(e.installed_by is not None and e.installed_by.date() == day for e in self.episodes),
            "open_pairs": sum(self._is_open_at_end_of(e, day) for e in self.episodes),
            "machines_asked": sum(any(c.outcome != "skipped" for c in checks) for checks in today.values()),
            "machines_answered": len(last_answers),
            "machines_with_nothing_missing": sum(not answer.kb_ids for answer in last_answers),
        }

    def coverage_gaps(self) -> Rows:
        rows = {}
        for machine_id, known in self._staying().items():
            last = known.last
            if last is None:
                reason = "never_asked"
            elif last.outcome != "answered":
                reason = last.outcome
            elif not known.recently_seen:
                reason = "quiet"
            else:
                continue
            rows[(machine_id,)] = {
                "computer_dns_name": known.of_machine("computer_dns_name"),
                "rbac_group_name": known.of_machine("rbac_group_name"),
                "last_seen": known.of_machine("last_seen"),
                "last_checked_at": last and last.checked_at,
                "last_outcome": last and last.outcome,
                "last_answered_at": known.answers[-1].checked_at if known.answers else None,
                "reason": reason,
            }
        return rows

    def _staying(self) -> dict[str, Known]:
        return {machine_id: known for machine_id, known in self.known.items() if not known.has_left}

    def _open(self, machine_id: str) -> list[Episode]:
        return [episode for episode in self._episodes_by_machine[machine_id] if self._status(episode) == "open"]

    def _status(self, episode: Episode) -> str:
        if episode.installed_by:
            return "installed"
        return "machine_left" if self.known[episode.machine_id].has_left else "open"

    def _now(self, episode: Episode) -> datetime:
        now = self.known[episode.machine_id].now
        assert now is not None
        return now

    def _days_missing(self, episode: Episode) -> float:
        since = episode.first_missed_at
        if episode.not_missed_at is None:
            since = min(since, self.first_seen.get((episode.machine_id, episode.kb_id), since))
        if episode.installed_by:
            return days(since, episode.installed_by)
        left = self.known[episode.machine_id].has_left
        return days(since, episode.last_missed_at if left else self._now(episode))

    def _is_open_at_end_of(self, episode: Episode, day: date) -> bool:
        if episode.first_missed_at.date() > day:
            return False
        if episode.installed_by:
            return episode.installed_by.date() > day
        return not self.known[episode.machine_id].has_left or episode.last_missed_at.date() >= day

    def _due_at(self, episode: Episode) -> datetime | None:
        allowed = self._deadline_days(episode)
        return None if allowed is None else episode.first_missed_at + allowed * DAY

    def _is_overdue(self, episode: Episode) -> bool:
        due_at = self._due_at(episode)
        return self._status(episode) == "open" and due_at is not None and due_at < self._now(episode)

    def _deadline_days(self, episode: Episode) -> int | None:
        known = self.known[episode.machine_id]
        severity, cves = self._severity(episode.kb_id), self._cve_addressed(episode)

        def fits(deadline: Deadline) -> bool:
            if deadline.rbac_group_name not in {None, known.of_machine("rbac_group_name")}:
                return False
            if deadline.machine_tag and deadline.machine_tag not in (known.of_machine("machine_tags") or ()):
                return False
            if deadline.min_severity is None and deadline.min_cve_addressed is None:
                return True
            if severity is not None:
                return deadline.min_severity is not None and severity >= RANKS[deadline.min_severity]
            return None not in {cves, deadline.min_cve_addressed} and (cves or 0) >= (deadline.min_cve_addressed or 0)

        return min((deadline.days for deadline in self.deadlines if fits(deadline)), default=None)

    def _cve_addressed(self, episode: Episode) -> int | None:
        row = self.rows.get((episode.machine_id, episode.kb_id))
        if row and row.cve_addressed is not None:
            return row.cve_addressed
        of_kb: int | None = self._kb(episode.kb_id)["cve_addressed"]
        return of_kb

    def _kb(self, kb_id: str) -> Row:
        return self._kbs.get(kb_id, dict.fromkeys(KB_COLUMNS))

    @cached_property
    def _kbs(self) -> dict[str, Row]:
        """What the newest answer said of each KB; of several at one moment the most."""
        rows: dict[str, list[MissingKb]] = defaultdict(list)
        for row in self.rows.values():
            rows[row.id].append(row)
        return {kb_id: _newest(said) for kb_id, said in rows.items()}

    def _cves(self, kb_id: str) -> dict[str, Row]:
        return self._all_cves.get(kb_id, {})

    @cached_property
    def _all_cves(self) -> dict[str, dict[str, Row]]:
        """The CVEs that each KB closes, at their worst where tenants differ."""
        all_cves: dict[str, dict[str, Row]] = defaultdict(dict)
        for row in (row for tenant in self.tenants for row in tenant.kb_cves or ()):
            worst = all_cves[row.kb_id].setdefault(row.cve_id, {"rank": -1, "exploited": False})
            worst["rank"] = max(worst["rank"], RANKS.get(row.severity or "", -1))
            worst["exploited"] |= row.exploitability_level not in {None, "NoExploit"}
        return {kb_id: cves for kb_id, cves in all_cves.items() if kb_id in self._kbs}

    def _severity(self, kb_id: str) -> int | None:
        worst = max((cve["rank"] for cve in self._cves(kb_id).values()), default=-1)
        return None if worst < 0 else worst


def _newest(rows: list[MissingKb]) -> Row:
    newest = [row for row in rows if row.checked_at == max(each.checked_at for each in rows)]
    return {
        column: max((getattr(row, column) for row in newest if getattr(row, column) is not None), default=None)
        for column in KB_COLUMNS
    }


def _known(tenant: Tenant) -> dict[str, Known]:
    """A tenant's machines, and which of them have left."""
    listing = max((machine.listed_at for machine in tenant.machines), default=None)
    sweep = max((check.sweep for check in tenant.checks), default=None)
    now = max((check.checked_at for check in tenant.checks), default=None)
    machines = {machine.id: machine for machine in tenant.machines}
    checks: dict[str, list[Check]] = defaultdict(list)
    for check in tenant.checks:
        checks[check.machine_id].append(check)
    known = {}
    for machine_id in sorted(machines.keys() | checks.keys()):
        machine = machines.get(machine_id)
        listed = machine is not None and machine.listed_at == listing
        in_sweep = any(check.sweep == sweep for check in checks[machine_id])
        known[machine_id] = Known(machine, now, not listed and not in_sweep, checks[machine_id])
    return known


def _compliance(rows: list[Row]) -> Row:
    """Of some machines together."""
    known = [row for row in rows if row["is_known"]]
    patched = sum(row["is_fully_patched"] for row in known)
    return {
        "machines": len(rows),
        "known_machines": len(known),
        "patched_machines": patched,
        "patched_share": patched / len(known) if known else None,
        "missing_pairs": sum(row["missing_kbs"] for row in known),
        "missing_cves": sum(row["missing_cves"] for row in known),
        "overdue_pairs": sum(row["overdue_kbs"] for row in known),
    }
