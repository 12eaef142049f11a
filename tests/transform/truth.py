"""What each mart has to hold, by the log alone: checks, and what the tap thought of each sweep.

Shares nothing with the SQL, and knows no warehouse. The log may come from anywhere: random fleets, the raw tables, or a
simulated tenant's own history, in which `kb_ids` is what the machine lacked at the moment it answered.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from functools import cached_property
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from tests.transform.advisories import RANKS, Advice, Advisories, Due, rule_books

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Row = dict[str, Any]
Rows = dict[tuple[Any, ...], Row]
Pair = tuple[str, str, str]
"""Tenant, machine and KB."""
Id = tuple[str, str]
"""Tenant and machine."""

DAY = timedelta(days=1)
FIRST_YEAR = 2000
"""What was first seen before is no date."""
KB_COLUMNS = ("name", "url", "cve_addressed")
WORDS: dict[int | None, str] = dict(enumerate(("None", "Low", "Medium", "High", "Critical")))


@dataclass(frozen=True)
class Check:
    """A row of `missing_kbs_checks`."""

    machine_id: str
    sweep: int
    checked_at: datetime
    outcome: str
    kb_ids: frozenset[str] | None = None
    reason: str | None = None
    last_seen: datetime | None = None


@dataclass(frozen=True)
class Sweep:
    """A row of `sweeps`: what the tap thought of one."""

    sweep: int
    source: str | None = "per_machine"
    began_at: datetime | None = None
    ended_at: datetime | None = None
    listing: int | None = None
    listed_at: datetime | None = None
    machines_listed: int | None = None
    machines_asked: int | None = 0
    machines_answered: int | None = 0
    machines_not_found: int | None = 0
    machines_failed: int | None = 0
    machines_skipped: int | None = 0
    machines_not_in_export: int | None = 0
    missing_pairs: int | None = 0
    is_complete: bool | None = False
    is_believed: bool | None = None
    verdict: str | None = None


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
    listing: int | None = None


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
    sweep: int | None = None


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
    deadline_id: str = ""


@dataclass(frozen=True)
class Tenant:
    """The raw tables of one schema.

    `kb_cves` is None where there is no such table, and `sweeps` where an earlier version filled them, which did not
    know the columns that came with that table either.
    """

    machines: Sequence[Machine] = ()
    checks: Sequence[Check] = ()
    missing_kbs: Sequence[MissingKb] = ()
    kb_cves: Sequence[KbCve] | None = None
    sweeps: Sequence[Sweep] | None = None
    name: str = "mde"
    """Of the schema."""
    advisories: Advisories = field(default_factory=Advisories)

    @property
    def now(self) -> datetime | None:
        """The newest check of the newest sweep."""
        newest = max(self.checks, key=lambda check: (check.sweep, check.checked_at), default=None)
        return at(newest)

    @cached_property
    def not_believed(self) -> frozenset[int]:
        """The sweeps of which nothing that is absent is gone."""
        return frozenset(sweep.sweep for sweep in self.sweeps or () if sweep.is_believed is False)

    @cached_property
    def newest_listing(self) -> int | None:
        """The newest that was believed and has arrived whole."""
        return max(
            (
                sweep.listing
                for sweep in self.sweeps or ()
                if sweep.listing is not None
                and sweep.machines_listed is not None
                and sum((machine.listing or -1) >= sweep.listing for machine in self.machines) >= sweep.machines_listed
            ),
            default=None,
        )

    @cached_property
    def has_listings(self) -> bool:
        """Whether the tap that filled it knew of them."""
        listings = [*(machine.listing for machine in self.machines), *(sweep.listing for sweep in self.sweeps or ())]
        return any(listing is not None for listing in listings)

    def has_left(self, machine_id: str, machine: Machine | None) -> bool:
        """Whether a machine is known to be gone."""
        if self.has_listings:
            if machine is None:
                return True
            return self.newest_listing is not None and (machine.listing or -1) < self.newest_listing
        newest_sweep = max((check.sweep for check in self.checks), default=None)
        listed_at = max((machine.listed_at for machine in self.machines), default=None)
        in_sweep = any(check.sweep == newest_sweep for check in self.checks if check.machine_id == machine_id)
        return not in_sweep and (machine is None or machine.listed_at != listed_at)


@dataclass
class Episode:
    """An unbroken run of answers in which a machine lacked a KB."""

    id: Id
    kb_id: str
    first: Check
    last: Check
    not_missed: Check | None
    closing: Check | None = None
    missed_checks: int = 1
    number: int = 1

    @property
    def pair(self) -> Pair:
        """Of which machine and KB it is."""
        return (*self.id, self.kb_id)

    @property
    def key(self) -> tuple[Any, ...]:
        """The grain."""
        return (*self.pair, self.first.checked_at)

    def is_open_after(self, answer: Check) -> bool:
        """Whether the machine lacked it after that answer."""
        return self.first.sweep <= answer.sweep and (self.closing is None or self.closing.sweep > answer.sweep)


@dataclass
class Known:
    """All that is known of one machine."""

    id: Id
    machine: Machine | None
    now: datetime | None
    """Of its tenant."""
    has_left: bool
    not_believed: frozenset[int]
    checks: list[Check] = field(default_factory=list)

    @cached_property
    def answers(self) -> list[Check]:
        """Those with an answer, in the order of their sweeps.

        An export that is loaded again tells of the same moment: of two such answers the believed one counts, then the
        newer one.
        """
        at: dict[datetime, Check] = {}
        for check in sorted(self.checks, key=lambda check: (check.sweep not in self.not_believed, check.sweep)):
            if check.outcome == "answered":
                at[check.checked_at] = check
        return sorted(at.values(), key=lambda check: check.sweep)

    @property
    def last(self) -> Check | None:
        """The newest check."""
        return max(self.checks, key=lambda check: check.sweep, default=None)

    @property
    def last_answered(self) -> Check | None:
        """The newest with an answer."""
        answered = [check for check in self.checks if check.outcome == "answered"]
        return max(answered, key=lambda check: check.sweep, default=None)

    @property
    def is_assessed(self) -> bool:
        """Whether Defender looks at it."""
        return self.last is None or self.last.outcome != "skipped"

    @property
    def recently_seen(self) -> bool:
        """Within seven days of the listing."""
        machine = self.machine
        return bool(machine and machine.last_seen and machine.last_seen >= machine.listed_at - 7 * DAY)

    @property
    def active(self) -> bool:
        """Onboarded, and seen lately."""
        return bool(self.machine and self.machine.onboarding_status in {None, "Onboarded"} and self.recently_seen)

    @cached_property
    def episodes(self) -> list[Episode]:
        """All that it had. What is absent from an answer that is not believed is not gone, what is in it is there."""
        done: list[Episode] = []
        running: dict[str, Episode] = {}
        before: Check | None = None
        for answer in self.answers:
            missing = answer.kb_ids or frozenset()
            is_believed = answer.sweep not in self.not_believed
            for kb_id in [kb_id for kb_id in running if is_believed and kb_id not in missing]:
                running.pop(kb_id).closing = answer
            for kb_id in sorted(missing):
                if kb_id in running:
                    running[kb_id].last = answer
                    running[kb_id].missed_checks += 1
                else:
                    number = 1 + sum(episode.kb_id == kb_id for episode in done)
                    running[kb_id] = Episode(self.id, kb_id, answer, answer, before, number=number)
                    done.append(running[kb_id])
            before = answer if is_believed else before
        return done

    def of_machine(self, column: str) -> Any:
        """A column of `machines`."""
        return getattr(self.machine, column, None)


def days(start: datetime, end: datetime) -> float:
    """A real number of days, however clocks went."""
    return max(0.0, (end - start) / DAY)


def at(check: Check | None) -> datetime | None:
    """When it was, if it was."""
    return None if check is None else check.checked_at


def newness(row: MissingKb) -> tuple[float, datetime]:
    """Of two rows the one with the higher is newer; those of an earlier version have no sweep."""
    sweep = row.sweep or int(row.checked_at.replace(tzinfo=timezone.utc).timestamp())
    return sweep, row.checked_at


class Truth:
    """The marts, a method each: their rows by key, with the columns of the contract."""

    def __init__(
        self,
        tenants: Iterable[Tenant],
        deadlines: Sequence[Deadline],
        first_seen: Mapping[Pair, datetime] | None = None,
        *,
        rule_book: str = "own",
        exposed_tags: Sequence[str] = ("internet-facing",),
    ) -> None:
        """Take `first_seen` where exports told it before the raw table forgot it, and the variables of the project."""
        self.rule_book = rule_book
        self.exposed_tags = exposed_tags
        self.tenants = list(tenants)
        self.deadlines = deadlines
        self.rows = {
            (tenant.name, row.machine_id, row.id): row for tenant in self.tenants for row in tenant.missing_kbs
        }
        told = {pair: row.first_seen_at for pair, row in self.rows.items() if is_plausible(row.first_seen_at)}
        self.first_seen: Mapping[Pair, datetime | None] = told if first_seen is None else first_seen

    @cached_property
    def known(self) -> dict[Id, Known]:
        """The machines by id: those listed once, and those that were ever to be asked."""
        return {known.id: known for tenant in self.tenants for known in _known(tenant)}

    @cached_property
    def episodes(self) -> list[Episode]:
        """All there ever were."""
        return [episode for known in self.known.values() for episode in known.episodes]

    def int_kb_episodes(self) -> Rows:
        return {
            episode.key: {
                "last_missed_at": episode.last.checked_at,
                "installed_by": at(episode.closing),
                "not_missed_at": at(episode.not_missed),
                "missed_checks": episode.missed_checks,
            }
            for episode in self.episodes
        }

    def kb_episodes(self) -> Rows:
        rows = {}
        for episode in self.episodes:
            rows[episode.key] = {
                "last_missed_at": episode.last.checked_at,
                "installed_by": at(episode.closing),
                "not_missed_at": at(episode.not_missed),
                "missed_checks": episode.missed_checks,
                "episode_number": episode.number,
                "status": self._status(episode),
                "deadline_days": self._deadline_days(episode),
                "due_at": self._due_at(episode),
                "cve_addressed": self._cve_addressed(episode),
                "missing_since": self._since(episode),
                "days_missing": self._days_missing(episode),
                "first_missed_at_is_known": episode.not_missed is not None,
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
                "machines_missing": len({e.id for e in episodes if self._status(e) == "open"}),
                "machines_ever": len({e.id for e in episodes}),
                "first_missed_at": min(e.first.checked_at for e in episodes),
                "worst_severity": WORDS.get(self._severity(kb_id)),
                "severe_cves": severe if cves else None,
                "exploited_cves": sum(cve["exploited"] for cve in cves.values()) if cves else None,
                **self.kbs()[(kb_id,)],
                "days_since_release": self._days_since_release(kb_id),
                "superseded_by": self._superseded_by(kb_id),
            }
        return rows

    def _days_since_release(self, kb_id: str) -> float | None:
        released_on = self.advice.released(kb_id)[0]
        now = max(tenant.now for tenant in self.tenants if tenant.now)
        return None if released_on is None else days(datetime.combine(released_on, time()), now)

    def _superseded_by(self, kb_id: str) -> str | None:
        def newness(newer: str) -> tuple[date, str]:
            return self.advice.released(newer)[0] or date.min, newer

        return max(self.advice.replaced_by(kb_id), key=newness, default=None)

    @cached_property
    def advice(self) -> Advice:
        """What is publicly known."""
        exported: dict[str, dict[str, int | None]] = defaultdict(dict)
        for row in (row for tenant in self.tenants for row in tenant.kb_cves or ()):
            ranks = (exported[row.kb_id].get(row.cve_id), RANKS.get(row.severity or ""))
            exported[row.kb_id][row.cve_id] = max((rank for rank in ranks if rank is not None), default=None)
        names = {kb_id: row["name"] for kb_id, row in self._kbs.items()}
        return Advice((tenant.advisories for tenant in self.tenants), names, exported)

    def kbs(self) -> Rows:
        return {
            (kb_id,): {**(facts := self.advice.kb(kb_id)), "severity": WORDS.get(facts["severity"])}
            for kb_id in {episode.kb_id for episode in self.episodes} | self.advice.of_kb.keys()
        }

    def pair_deadlines(self) -> Rows:
        rows: Rows = {}
        for episode in self.episodes:
            for book in ("own", *dict.fromkeys(rule["rule_book"] for rule in rule_books())):
                due = self._due(episode, book)
                if due and self._status(episode) == "open":
                    rows[(*episode.pair, book)] = {
                        "rule_id": due.rule_id,
                        "due_at": due.at,
                        "days_overdue": days(due.at, now) if due.at < (now := self._now(episode)) else None,
                        "forensic_triage": not due.no_forensic_triage,
                        "clock_is_assumed": due.clock_is_assumed,
                    }
        return rows

    def updates_to_install(self) -> Rows:
        rows: Rows = {}
        for id_, known in self.known.items():
            open_ = {e.kb_id: e for e in known.episodes if self._status(e) == "open"}
            for kb_id, closes in self.advice.installs([*open_]).items():
                closed = [open_[each] for each in closes]
                dues = [due for due in map(self._due, closed) if due]
                first = min(dues, key=lambda due: (due.at, due.rule_id), default=None)
                overdue = first is not None and known.now is not None and first.at < known.now
                counts = self.advice.counts(closes)
                rows[(*id_, kb_id)] = {
                    "closes_kbs": len(closes),
                    "closes_kb_ids": " ".join(sorted(closes)),
                    "is_assumed": any(closes.values()),
                    "missing_since": min(map(self._since, closed)),
                    **counts,
                    "severity": WORDS.get(counts["severity"]),
                    "restart_required": self.advice.kb(kb_id)["restart_required"],
                    "released_on": self.advice.released(kb_id)[0],
                    "rule_id": first and first.rule_id,
                    "due_at": first and first.at,
                    "days_overdue": days(first.at, known.now) if overdue and first and known.now else None,
                    "forensic_triage": any(not due.no_forensic_triage for due in dues),
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
        installs = Counter(key[:2] for key in self.updates_to_install())
        for id_, known in self._staying().items():
            missing = [episode for episode in known.episodes if self._status(episode) == "open"]
            counts = bool(known.answers) and known.is_assessed
            rows[id_] = {
                **{column: known.of_machine(column) for column in columns},
                "is_active": known.active,
                "last_checked_at": at(known.last),
                "last_outcome": known.last and known.last.outcome,
                "last_reason": known.last and known.last.reason,
                "last_answered_at": at(known.last_answered),
                "is_known": bool(known.answers),
                "is_assessed": known.is_assessed,
                "missing_kbs": len(missing) if counts else None,
                "missing_cves": sum(self._cve_addressed(e) or 0 for e in missing) if counts else None,
                "overdue_kbs": sum(self._is_overdue(e) for e in missing) if counts else None,
                "oldest_missing_days": max((self._days_missing(e) for e in missing), default=None),
                "is_fully_patched": not missing if counts else None,
                "updates_to_install": installs[id_] if counts else None,
            }
        return rows

    def compliance_by_segment(self) -> Rows:
        members: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for id_, row in self.machine_compliance().items():
            machine = self.known[id_].machine
            if not row["is_active"] or not row["is_assessed"] or not machine:
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
            rows[episode.pair] = {
                "first_missed_at": episode.first.checked_at,
                "due_at": due_at,
                "deadline_days": self._deadline_days(episode),
                "days_missing": self._days_missing(episode),
                "days_overdue": days(due_at, self._now(episode)),
                "first_missed_at_is_known": episode.not_missed is not None,
            }
        return rows

    def time_to_install(self) -> Rows:
        taken: dict[tuple[str, str], list[float]] = defaultdict(list)
        for episode in self.episodes:
            if not episode.closing or not episode.not_missed:
                continue
            took = days(episode.first.checked_at, episode.closing.checked_at)
            group = self.known[episode.id].of_machine("rbac_group_name") or "(none)"
            taken["all", "all"].append(took)
            taken["kb", episode.kb_id].append(took)
            taken["group", group].append(took)
            taken["month", f"{episode.closing.checked_at:%Y-%m}"].append(took)
        return {
            segment: {"installs": len(took), "mean_days": fmean(took), "median_days": median(took)}
            for segment, took in taken.items()
        }

    def compliance_by_day(self) -> Rows:
        checks = [check for known in self.known.values() for check in known.checks]
        return {(day,): self._day(day) for day in {check.checked_at.date() for check in checks}}

    def _day(self, day: date) -> Row:
        asked = answered = patched = 0
        for known in self.known.values():
            today = [check for check in known.checks if check.checked_at.date() == day]
            answers = [check for check in known.answers if check.checked_at.date() == day]
            asked += any(check.outcome != "skipped" for check in today)
            answered += bool(answers)
            patched += bool(answers) and not any(episode.is_open_after(answers[-1]) for episode in known.episodes)
        return {
            "opened_pairs": sum(e.first.checked_at.date() == day for e in self.episodes),
            "installed_pairs": sum(e.closing is not None and e.closing.checked_at.date() == day for e in self.episodes),
            "not_assessed_pairs": sum(
                self._status(e) == "not_assessed" and e.last.checked_at.date() == day for e in self.episodes
            ),
            "open_pairs": sum(self._is_open_at_end_of(e, day) for e in self.episodes),
            "machines_asked": asked,
            "machines_answered": answered,
            "machines_with_nothing_missing": patched,
        }

    def coverage_gaps(self) -> Rows:
        rows = {}
        for id_, known in self._staying().items():
            last = known.last
            if last is None:
                reason = "never_asked"
            elif last.outcome == "skipped":
                # An earlier version skipped nobody else.
                reason = last.reason or "not_onboarded"
            elif last.outcome != "answered":
                reason = last.outcome
            elif not known.recently_seen:
                reason = "quiet"
            else:
                continue
            rows[id_] = {
                "computer_dns_name": known.of_machine("computer_dns_name"),
                "rbac_group_name": known.of_machine("rbac_group_name"),
                "last_seen": known.of_machine("last_seen"),
                "last_checked_at": at(last),
                "last_outcome": last and last.outcome,
                "last_answered_at": at(known.last_answered),
                "reason": reason,
            }
        return rows

    def sweep_log(self) -> Rows:
        rows: Rows = {}
        for tenant in self.tenants:
            since: datetime | None = None
            before: int | None = None
            for sweep in sorted(tenant.sweeps or (), key=lambda sweep: sweep.sweep):
                asked, answered = sweep.machines_asked, sweep.machines_answered
                pairs = sweep.missing_pairs if sweep.is_complete else None
                rows[tenant.name, sweep.sweep] = {
                    **{name: value for name, value in asdict(sweep).items() if name != "sweep"},
                    "coverage_share": answered / asked if asked and answered is not None else None,
                    "hours": 24 * days(sweep.began_at, sweep.ended_at) if sweep.began_at and sweep.ended_at else None,
                    "days_since_previous": days(since, sweep.began_at) if since and sweep.began_at else None,
                    "missing_pairs_change": None if pairs is None or before is None else pairs - before,
                }
                since, before = sweep.began_at, pairs
        return rows

    def _staying(self) -> dict[Id, Known]:
        return {id_: known for id_, known in self.known.items() if not known.has_left}

    def _status(self, episode: Episode) -> str:
        known = self.known[episode.id]
        if episode.closing:
            return "installed"
        if known.has_left:
            return "machine_left"
        return "open" if known.is_assessed else "not_assessed"

    def _now(self, episode: Episode) -> datetime:
        now = self.known[episode.id].now
        assert now is not None
        return now

    def _since(self, episode: Episode) -> datetime:
        since = episode.first.checked_at
        first_seen = self.first_seen.get(episode.pair)
        if episode.not_missed or not first_seen or first_seen > self._now(episode):
            return since
        return min(since, first_seen)

    def _days_missing(self, episode: Episode) -> float:
        if episode.closing:
            until = episode.closing.checked_at
        elif self._status(episode) == "open":
            until = self._now(episode)
        else:
            until = episode.last.checked_at
        return days(self._since(episode), until)

    def _is_open_at_end_of(self, episode: Episode, day: date) -> bool:
        if episode.first.checked_at.date() > day:
            return False
        if episode.closing:
            return episode.closing.checked_at.date() > day
        return self._status(episode) == "open" or episode.last.checked_at.date() >= day

    def _due_at(self, episode: Episode) -> datetime | None:
        due = self._due(episode)
        return due and due.at

    def _is_overdue(self, episode: Episode) -> bool:
        due_at = self._due_at(episode)
        return self._status(episode) == "open" and due_at is not None and due_at < self._now(episode)

    def _deadline_days(self, episode: Episode) -> int | None:
        due = self._due(episode)
        return due and due.days

    def _due(self, episode: Episode, book: str = "") -> Due | None:
        """When it is due by a book, that of the variable by default."""
        book = book or self.rule_book
        missed_at = episode.first.checked_at
        if book != "own":
            tags = self.known[episode.id].of_machine("machine_tags") or ()
            is_exposed = any(tag in self.exposed_tags for tag in tags)
            return self.advice.due(book, episode.kb_id, missed_at, is_exposed=is_exposed)
        dues = (
            Due(missed_at + each.days * DAY, each.days, no_forensic_triage=True, clock_is_assumed=False,
                rule_id=each.deadline_id)
            for each in self.deadlines if self._fits(each, episode)
        )  # fmt: skip
        return min(dues, default=None)

    def _fits(self, deadline: Deadline, episode: Episode) -> bool:
        known = self.known[episode.id]
        severity, cves = self._severity(episode.kb_id), self._cve_addressed(episode)
        if deadline.rbac_group_name not in {None, known.of_machine("rbac_group_name")}:
            return False
        if deadline.machine_tag and deadline.machine_tag not in (known.of_machine("machine_tags") or ()):
            return False
        if deadline.min_severity is None and deadline.min_cve_addressed is None:
            return True
        if severity is not None:
            return deadline.min_severity is not None and severity >= RANKS[deadline.min_severity]
        return None not in {cves, deadline.min_cve_addressed} and (cves or 0) >= (deadline.min_cve_addressed or 0)

    def _cve_addressed(self, episode: Episode) -> int | None:
        row = self.rows.get(episode.pair)
        if row and row.cve_addressed is not None:
            return row.cve_addressed
        of_kb: int | None = self._kb(episode.kb_id)["cve_addressed"]
        return of_kb

    def _kb(self, kb_id: str) -> Row:
        return self._kbs.get(kb_id, dict.fromkeys(KB_COLUMNS))

    @cached_property
    def _kbs(self) -> dict[str, Row]:
        """What the newest answer said of each KB; of several that are equally new the most."""
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
        return self.advice.severity(kb_id)


def _newest(rows: list[MissingKb]) -> Row:
    newest = [row for row in rows if newness(row) == max(map(newness, rows))]
    return {
        column: max((getattr(row, column) for row in newest if getattr(row, column) is not None), default=None)
        for column in KB_COLUMNS
    }


def is_plausible(first_seen_at: datetime | None) -> bool:
    """Whether it can be when something was first seen; what is later than now is looked at where now is known."""
    return first_seen_at is not None and first_seen_at.year >= FIRST_YEAR


def _known(tenant: Tenant) -> Iterable[Known]:
    """A tenant's machines, and which of them have left."""
    machines = {machine.id: machine for machine in tenant.machines}
    checks: dict[str, list[Check]] = defaultdict(list)
    for check in tenant.checks:
        checks[check.machine_id].append(check)
    for id_ in sorted(machines.keys() | checks.keys()):
        machine = machines.get(id_)
        yield Known(
            (tenant.name, id_),
            machine,
            tenant.now,
            tenant.has_left(id_, machine),
            tenant.not_believed,
            checks[id_],
        )


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
