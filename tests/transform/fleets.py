"""Random logs: small fleets, and what a tap leaves of them in the raw tables, night by night.

Everything that the design allows happens often: nights without a run, runs that are killed and resumed in the next
one, machines asked again in the same sweep, 404s and failures, machines that leave and return, listings that nothing
follows, and exports, which are older than the listing and tell `first_seen_at`.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from tests.transform.truth import Check, KbCve, Machine, MissingKb, Pair, Tenant

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
GROUPS = ("Servers", "Laptops", None)
TAGS = ((), ("VIP",), ("lab", "o'clock"), ("VIP", "VIP", "lab"), None)
RATINGS = ("Low", "Medium", "High", None)
NO_ANSWER = ("failed", "not_found", "skipped")


class RandomTenant:
    """A tenant's raw tables; every id and every day is its own, so that many fit into one warehouse."""

    def __init__(self, number: int, *, cves: bool) -> None:
        """Take a number that decides everything; `cves` makes a table `kb_cves`."""
        self.number = number
        self._dice = random.Random(number)  # noqa: S311 - made-up fleets
        self._now = datetime(2026, 1, 1) + number * 200 * DAY  # noqa: DTZ001 - UTC, as warehouses keep it
        self._ids = [f"{number}-machine{n}" for n in range(self._dice.randrange(1, 7))]
        self._kbs = [f"{number}{n:02}" for n in range(self._dice.randrange(1, 6))]
        self._present = set(self._ids)
        self._lacks: dict[str, set[str]] = {machine: set() for machine in self._ids}
        self._appeared: dict[Pair, datetime] = {}
        self._sweep = 0
        self._unasked: list[str] = []
        self._asked: list[str] = []
        self._machines: dict[str, Machine] = {}
        self._rows: dict[Pair, MissingKb] = {}
        self._checks: dict[tuple[str, int], Check] = {}
        self._cves = self._some_cves() if cves else None
        self._live(self._now)

    def tenant(self) -> Tenant:
        """The raw tables as they are."""
        cves = None if self._cves is None else tuple(self._cves)
        return Tenant(tuple(self._machines.values()), tuple(self._checks.values()), tuple(self._rows.values()), cves)

    def pass_nights(self, nights: int) -> None:
        """So many nights, each with or without a run."""
        for _ in range(nights):
            self._now += DAY + self._dice.randrange(-200, 200) * MINUTE
            self._live(self._now)
            self._dice.choices((self._sweep_machines, self._load_export, self._list, int), (12, 4, 1, 3))[0]()

    def _live(self, now: datetime) -> None:
        """Updates come and go, and so do machines."""
        for machine in self._ids:
            for kb in self._kbs:
                if self._dice.random() < 0.25:
                    self._lacks[machine] ^= {kb}
                    self._appeared[machine, kb] = now - self._dice.randrange(60 * 24 * 40) * MINUTE
            if self._dice.random() < 0.1:
                self._present ^= {machine}

    def _tick(self) -> datetime:
        self._now += self._dice.randrange(1, 400) * MINUTE / 100
        return self._now

    def _list(self) -> None:
        """A listing, now and then cut short."""
        listed_at = self._tick()
        for machine in sorted(self._present):
            if self._dice.random() < 0.05:
                continue
            self._machines[machine] = Machine(
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
            )

    def _begin(self) -> None:
        self._sweep = max(self._sweep + 1, int(self._now.timestamp()))
        self._unasked, self._asked = sorted(self._present), []

    def _sweep_machines(self) -> None:
        """Go on with the sweep, or begin one; perhaps be killed, and ask some machines twice."""
        self._list()
        if not self._unasked:
            self._begin()
        again = [machine for machine in self._asked if self._dice.random() < 0.5]
        self._asked = []
        killed_after = self._dice.choice((0, 1, 2, 3, 99, 99))
        for machine in [*again, *self._unasked][:killed_after]:
            if machine in self._unasked:
                self._unasked.remove(machine)
            self._asked.append(machine)
            answered = self._dice.random() < 0.75
            self._write(machine, self._tick(), "answered" if answered else self._dice.choice(NO_ANSWER))
            if self._dice.random() < 0.2:
                self._live(self._now)
        if self._dice.random() < 0.3:
            self._unasked = []

    def _load_export(self) -> None:
        """An export from before the listing, but after the last check; loaded again under another scope, at times."""
        newest = max((check.checked_at for check in self._checks.values()), default=self._now - DAY)
        generated_at = newest + (self._now - newest) / 2
        self._list()
        for _ in range(self._dice.choice((1, 1, 2))):
            self._begin()
            for machine in self._unasked:
                known = self._dice.random() < 0.8
                self._write(machine, generated_at, "answered" if known else "not_in_export", from_export=True)
            self._unasked, self._asked = [], []

    def _write(self, machine: str, at: datetime, outcome: str, *, from_export: bool = False) -> None:
        lacks = frozenset(self._lacks[machine]) if outcome == "answered" else None
        self._checks[machine, self._sweep] = Check(machine, self._sweep, at, outcome, lacks)
        for kb in sorted(lacks or ()):
            self._rows[machine, kb] = MissingKb(
                machine_id=machine,
                id=kb,
                checked_at=at,
                name=f"Update {kb}",
                url=f"https://contoso.example/{kb}",
                cve_addressed=self._dice.choice((None, 0, 1, 4, 5, 30)),
                first_seen_at=self._appeared.get((machine, kb)) if from_export else None,
            )

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


def keep_first_seen(kept: dict[Pair, datetime], tenant: Tenant) -> None:
    """Add what a warehouse that sees this state learns of when pairs were first seen."""
    for row in tenant.missing_kbs:
        if row.first_seen_at:
            kept[row.machine_id, row.id] = min(kept.get((row.machine_id, row.id), row.first_seen_at), row.first_seen_at)
