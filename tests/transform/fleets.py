"""Random logs: small fleets, and what a tap leaves of them in the raw tables, night by night.

Everything that the world can do to the marts happens often:

- absence: empty lists for everybody, exports with an empty file, machine lists cut short, machines that fall silent,
  are excluded, leave and return, rows that a target deletes, a warehouse that an earlier version filled, for good or at
  first;
- lateness: a verdict, the checks of a sweep or half a machine list come only after dbt ran;
- repetition: machines asked again in the same sweep, an export loaded again under another scope, or after a sweep of
  machines;
- reorder: a whole sweep comes after the next one;
- the clock: a night that is a day or a month ahead or behind, in checks, listings and sweeps' versions;
- kills: a sweep that goes on in the next run, and one that never ends;
- lies: a verdict that turns once those who failed were asked again, dates of the year 1 and of tomorrow.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from tests.transform.advisories import Advisories, Epss, Kev, MsrcCve, MsrcKb, MsrcKbCve, Ssvc
from tests.transform.truth import Check, KbCve, Machine, MissingKb, Sweep, Tenant, is_plausible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.transform.truth import Pair

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
GROUPS = ("Servers", "Laptops", None)
TAGS = ((), ("VIP",), ("internet-facing", "o'clock"), ("VIP", "VIP", "lab"), None)
RATINGS = ("Low", "Medium", "High", None)
NO_ANSWER = ("failed", "not_found", "skipped")
REASONS = {"skipped": ("not_onboarded", "excluded", "silent"), "failed": ("HTTP 500, again and again", None)}
YEAR_1 = datetime(1, 1, 1)  # noqa: DTZ001 - as warehouses keep it
AHEAD = (DAY, -DAY, 30 * DAY, -30 * DAY)
"""By how much a clock may be wrong for a night."""


class RandomTenant:
    """A tenant's raw tables; every day is its own, while machines and KBs have ids that other tenants have too."""

    def __init__(self, number: int, *, cves: bool, advisories: bool = False) -> None:
        """Take a number that decides everything; `cves` makes a table `kb_cves`, `advisories` those of feeds."""
        self.number = number
        self._dice = random.Random(number)  # noqa: S311 - made-up fleets
        self._now = datetime(2026, 1, 1) + number * 200 * DAY  # noqa: DTZ001 - UTC, as warehouses keep it
        self._clock_error = timedelta()
        self._ids = [f"machine{n}" for n in range(self._dice.randrange(1, 7))]
        self._kbs = [f"{number % 7}{n:02}" for n in range(self._dice.randrange(1, 6))]
        self._present = set(self._ids)
        self._silent: set[str] = set()
        self._lacks: dict[str, set[str]] = {machine: set() for machine in self._ids}
        self._appeared: dict[tuple[str, str], datetime] = {}
        self._sweep = 0
        self._unasked: list[str] = []
        self._asked: list[str] = []
        self._machines: dict[str, Machine] = {}
        self._rows: dict[tuple[str, str], MissingKb] = {}
        self._checks: dict[tuple[str, int], Check] = {}
        self._cves = self._some_cves() if cves else None
        self._nights_before_upgrade = {0: 4, 1: 99}.get(number % 6, 0)
        self._deletes = number % 4 == 3
        self._sweeps: dict[int, Sweep] = {}
        self._listing = 0
        self._believed = Sweep(0)
        """In the columns of the listing."""
        self._came_late: list[Check | Machine | Sweep] = []
        self._export: tuple[datetime, Mapping[str, frozenset[str]]] | None = None
        self._advisories = random_advisories(number, self._now) if advisories else Advisories()
        self._live(self._now)

    def tenant(self) -> Tenant:
        """The raw tables as they are."""
        return Tenant(
            tuple(self._machines.values()),
            tuple(self._checks.values()),
            tuple(self._rows.values()),
            None if self._cves is None else tuple(self._cves),
            None if self._is_early else tuple(self._sweeps.values()),
            f"tenant_{self.number}",
            self._advisories,
        )

    @property
    def _is_early(self) -> bool:
        return self._nights_before_upgrade > 0

    def pass_nights(self, nights: int) -> None:
        """So many nights, each with or without a run."""
        for _ in range(nights):
            self._nights_before_upgrade -= 1
            self._now += DAY + self._dice.randrange(-200, 200) * MINUTE
            self._clock_error = self._dice.choice(AHEAD) if self._dice.random() < 0.15 else timedelta()
            self._live(self._now)
            if self._dice.random() < 0.6:
                self._arrive()
            self._dice.choices((self._sweep_machines, self._load_export, self._list, int), (12, 4, 1, 3))[0]()
            if self._dice.random() < 0.12:
                self._hold_up()

    def _live(self, now: datetime) -> None:
        """Updates come and go, and so do machines."""
        for machine in self._ids:
            for kb in self._kbs:
                if self._dice.random() < 0.25:
                    self._lacks[machine] ^= {kb}
                    self._appeared[machine, kb] = now - self._dice.randrange(60 * 24 * 40) * MINUTE
            if self._dice.random() < 0.1:
                self._present ^= {machine}
            if self._dice.random() < 0.1:
                self._silent ^= {machine}

    def _tick(self) -> datetime:
        self._now += self._dice.randrange(1, 400) * MINUTE / 100
        return self._now + self._clock_error

    def _arrive(self) -> None:
        """What was held up comes; what is newer is there already, and stays."""
        for row in self._came_late:
            if isinstance(row, Check):
                self._checks.setdefault((row.machine_id, row.sweep), row)
            elif isinstance(row, Machine):
                there = self._machines.get(row.id)
                if there is None or (there.listing or 0) < (row.listing or 0):
                    self._machines[row.id] = row
            else:
                self._sweeps[row.sweep] = row
        self._came_late = []

    def _hold_up(self) -> None:
        """The newest sweep's checks are on their way still."""
        newest = max((sweep for _, sweep in self._checks), default=0)
        for key in [key for key in self._checks if key[1] == newest]:
            self._came_late.append(self._checks.pop(key))

    def _list(self) -> None:
        """A listing, now and then cut short, and then not believed; half of its rows may come late."""
        listed_at = self._tick()
        self._listing = max(self._listing + 1, int(listed_at.timestamp()))
        listed = [machine for machine in sorted(self._present) if self._dice.random() > 0.05]
        whole = len(listed) >= len(self._believed_ids()) or self._dice.random() < 0.3
        for machine in listed:
            row = Machine(
                id=machine,
                listed_at=listed_at,
                last_seen=self._dice.choice((listed_at - 7 * DAY, listed_at - MINUTE, listed_at - 30 * DAY, None)),
                onboarding_status=self._dice.choice(("Onboarded", "Onboarded", "CanBeOnboarded", None)),
                computer_dns_name=f"{machine}.contoso.example",
                os_platform=self._dice.choice(("Windows11", "Ubuntu", None)),
                rbac_group_name=(group := self._dice.choice(GROUPS)) and f"{group} {self.number}",
                risk_score=self._dice.choice(RATINGS),
                exposure_level=self._dice.choice(RATINGS),
                health_status="Active",
                machine_tags=self._dice.choice(TAGS),
                listing=None if self._is_early else self._listing,
            )
            if self._dice.random() < 0.05 and not self._is_early:
                self._came_late.append(row)
            else:
                self._machines[machine] = row
        if whole:
            self._believed = Sweep(0, listing=self._listing, listed_at=listed_at, machines_listed=len(listed))
            if self._deletes and not self._is_early:
                gone = [id_ for id_ in self._machines if id_ not in listed]
                for id_ in gone:
                    del self._machines[id_]

    def _believed_ids(self) -> list[str]:
        return [
            id_ for id_, machine in self._machines.items() if (machine.listing or 0) >= (self._believed.listing or 0)
        ]

    def _begin(self) -> None:
        self._sweep = max(self._sweep + 1, int((self._now + self._clock_error).timestamp()))
        self._unasked, self._asked = sorted(self._present), []

    def _sweep_machines(self) -> None:
        """Go on with the sweep, or begin one; perhaps be killed, and ask some machines twice."""
        self._list()
        if not self._unasked:
            self._begin()
        again = [machine for machine in self._asked if self._dice.random() < 0.5]
        self._asked = []
        is_outage = self._dice.random() < 0.2
        killed_after = self._dice.choice((0, 1, 2, 3, 99, 99))
        for machine in [*again, *self._unasked][:killed_after]:
            if machine in self._unasked:
                self._unasked.remove(machine)
            self._asked.append(machine)
            if machine in self._silent:
                self._write(machine, self._tick(), "skipped", frozenset())
            elif self._dice.random() < 0.75:
                self._write(machine, self._tick(), "answered", self._answer(machine, is_outage=is_outage))
            else:
                self._write(machine, self._tick(), self._dice.choice(NO_ANSWER), frozenset())
            if self._dice.random() < 0.2:
                self._live(self._now)
        self._judge(is_believed=not is_outage)
        if self._dice.random() < 0.3:
            self._unasked = []

    def _answer(self, machine: str, *, is_outage: bool) -> frozenset[str]:
        """What it lacks; in an outage nothing, or some of it."""
        lacks = frozenset(self._lacks[machine])
        return lacks if not is_outage or self._dice.random() < 0.2 else frozenset(sorted(lacks)[1:])

    def _load_export(self) -> None:
        """An export from before the listing, but after the last check; at times loaded again, even much later."""
        newest = max((check.checked_at for check in self._checks.values()), default=self._now - DAY)
        is_short = self._dice.random() < 0.2
        if self._export is None or self._dice.random() < 0.8:
            lacks = {machine: self._answer(machine, is_outage=is_short) for machine in self._ids}
            self._export = newest + abs(self._now - newest) / 2, lacks
        generated_at, lacks_then = self._export
        self._list()
        for _ in range(self._dice.choice((1, 1, 2))):
            self._begin()
            for machine in self._unasked:
                known = self._dice.random() < 0.8
                outcome = "answered" if known else "not_in_export"
                self._write(machine, generated_at, outcome, lacks_then[machine], from_export=True)
            self._unasked, self._asked = [], []
            self._judge(is_believed=not is_short)

    def _write(
        self, machine: str, at: datetime, outcome: str, named: frozenset[str], *, from_export: bool = False
    ) -> None:
        lacks = named if outcome == "answered" else None
        reason = None if self._is_early else self._dice.choice(REASONS.get(outcome, (None,)))
        self._checks[machine, self._sweep] = Check(machine, self._sweep, at, outcome, lacks, reason)
        for kb in sorted(lacks or ()):
            seen = self._appeared.get((machine, kb))
            self._rows[machine, kb] = MissingKb(
                machine_id=machine,
                id=kb,
                checked_at=at,
                name=f"Update {kb}",
                url=f"https://contoso.example/{kb}",
                cve_addressed=self._dice.choice((None, 0, 1, 4, 5, 30)),
                first_seen_at=self._dice.choice((seen, seen, YEAR_1, at + 3 * DAY)) if from_export else None,
                sweep=None if self._is_early else self._sweep,
            )

    def _judge(self, *, is_believed: bool) -> None:
        """Write the sweep's row: before its end without a verdict, then with one, which may come late or turn."""
        if self._is_early:
            return
        of_sweep = [check for check in self._checks.values() if check.sweep == self._sweep]
        is_complete = not self._unasked

        def count(*outcomes: str) -> int:
            return sum(check.outcome in outcomes for check in of_sweep)

        began = Sweep(
            self._sweep,
            source="per_machine",
            began_at=self._now + self._clock_error - self._dice.randrange(100) * MINUTE,
            listing=self._believed.listing,
            listed_at=self._believed.listed_at,
            machines_listed=self._believed.machines_listed,
            machines_asked=len(of_sweep) - count("skipped"),
            machines_answered=count("answered"),
            machines_not_found=count("not_found"),
            machines_failed=count("failed"),
            machines_skipped=count("skipped"),
            machines_not_in_export=count("not_in_export"),
            missing_pairs=sum(len(check.kb_ids or ()) for check in of_sweep),
        )
        self._sweeps[self._sweep] = began
        if is_complete:
            ended = replace(began, ended_at=self._tick(), is_complete=True, is_believed=is_believed, verdict="because")
            turned = replace(ended, is_believed=not is_believed)
            now, later = self._dice.choice(((ended, None), (ended, None), (began, ended), (turned, ended)))
            self._sweeps[self._sweep] = now
            self._came_late += [later] if later else []

    def _some_cves(self) -> list[KbCve]:
        return [
            KbCve(
                kb_id=kb,
                cve_id=f"CVE-2026-{number}",
                severity=self._dice.choice(("None", "Low", "Medium", "High", "Critical", None)),
                cvss_score=self._dice.choice((None, 5.4, 9.8)),
                exploitability_level=self._dice.choice(("NoExploit", "ExploitIsInKit", None)),
            )
            for kb in self._kbs
            for number in range(self._dice.randrange(3))
        ]


PRODUCTS = {
    "11": "Windows 11 Version 24H2 for x64-based Systems",
    "19": "Windows Server 2019",
    "12": "Windows Server 2012 R2",
    "48": "Microsoft .NET Framework 4.8 on Windows Server 2019",
    "16": "Microsoft Office 2016 (64-bit edition)",
}
KINDS = (
    "Security Update", "Security Update", "Cumulative Update", "Security Hotpatch Update", "SecurityHotpatchUpdate",
    "Standalone Security Update", "ServicingStackUpdate", "Monthly Rollup", "Security Only",
)  # fmt: skip
MONTHS = (date(2025, 10, 1), date(2025, 11, 1), date(2025, 12, 1), date(2026, 1, 1))


def random_advisories(number: int, now: datetime) -> Advisories:
    """What feeds say of the updates of every tenant; two readings of some documents, and of KEV and EPSS.

    Updates replace each other at random, in circles, too, and are for any products. One tenant in five lacks a feed.
    """
    dice = random.Random(f"advisories {number}")  # noqa: S311 - made-up feeds
    kbs = [f"{tenant}{n:02}" for tenant in range(8) for n in range(6)]
    cves = [f"CVE-2026-{n}" for n in range(12)] + ["ADV260001"]
    rows, closing, said = [], [], []
    for month, reading in ((month, reading) for month in MONTHS for reading in range(dice.randrange(1, 3))):
        document_id, read_at = f"{month:%Y-%b}", now + reading * DAY + number * MINUTE
        for kb_id in dice.sample(kbs, 20):
            closed = dice.sample(cves, dice.randrange(4))
            ids = dice.sample([*PRODUCTS], dice.choice((1, 1, 1, 2, 3)))
            closing += [MsrcKbCve(kb_id, cve_id, document_id, read_at) for cve_id in closed]
            rows.append(
                MsrcKb(
                    kb_id,
                    document_id,
                    month,
                    read_at,
                    cves=sum(cve_id.startswith("CVE") for cve_id in closed),
                    published_on=dice.choice((None, month + 12 * DAY, month + 24 * DAY)),
                    supersedes=tuple(dice.sample(kbs, dice.choice((0, 0, 0, 1, 1, 2)))),
                    sub_types=tuple(dice.sample(KINDS, dice.choice((0, 1, 1, 1, 2)))),
                    product_ids=tuple(sorted(ids)),
                    products=tuple(sorted(PRODUCTS[id_] for id_ in ids)),
                    restart_required=dice.choice((None, "Yes", "Maybe", "No")),
                )
            )
        said += [
            MsrcCve(
                cve_id,
                document_id,
                read_at,
                severity=dice.choice((None, "None", "Low", "Moderate", "Important", "Critical")),
                exploited=dice.choice((None, False, False, True)),
                publicly_disclosed=dice.choice((None, False, True)),
            )
            for cve_id in dice.sample(cves, 9)
        ]
    readings = [now + number * MINUTE, now + DAY + number * MINUTE]
    kev = tuple(
        Kev(
            cve_id,
            read_at,
            added_on=now.date() - dice.randrange(300) * DAY,
            due_on=dice.choice((None, now.date())),
            ransomware=dice.choice((None, True)),
            forensic_triage=dice.choice((None, False, True)),
        )
        for read_at in readings
        for cve_id in dice.sample(cves[:-1], 4)
    )
    epss = tuple(Epss(cve_id, dice.random(), read_at) for read_at in readings for cve_id in dice.sample(cves, 6))
    ssvc = tuple(Ssvc(cve_id, dice.choice(("yes", "No", None)), dice.choice(("Total", "partial", None)))
                 for cve_id in dice.sample(cves, 8))  # fmt: skip
    whole = Advisories(tuple(rows), tuple(closing), tuple(said), kev, epss, ssvc)
    lacking: dict[str, None] = dict.fromkeys(dice.choice(FEEDS)) if number % 5 == 0 else {}
    return replace(whole, **lacking)


FEEDS: tuple[tuple[str, ...], ...] = (("msrc_kbs", "msrc_kb_cves", "msrc_cves"), ("kev",), ("epss", "ssvc"))
"""Their tables."""


def keep_first_seen(kept: dict[Pair, datetime], tenant: Tenant) -> None:
    """Add what a warehouse that sees this state learns of when pairs were first seen."""
    for row in tenant.missing_kbs:
        pair = (tenant.name, row.machine_id, row.id)
        if row.first_seen_at and is_plausible(row.first_seen_at):
            kept[pair] = min(kept.get(pair, row.first_seen_at), row.first_seen_at)
