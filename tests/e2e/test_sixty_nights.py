"""Sixty nights through the real tap and targets, then the marts: right to the row by what the simulator knows.

A night may be skipped, killed half-way, meet machines that answer 404 or nothing, or read an export; machines come and
leave, fall silent, are excluded, go out of sight and return; updates are installed, and come back. One night everybody
answers with an empty list, one night a device group is not listed, and one night the host's clock is a day ahead. The
advisory feeds are read every night, too. One warehouse has dbt run night by night, the other for the first time after
the last.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
from dataclasses import dataclass, field, fields, replace
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from demo.clock import environment_at
from mde_simulator import Fault, Fleet
from mde_simulator.feeds.feeds import NAMES
from mde_simulator.feeds.public import is_exploited
from tests.support.contract import answers_of
from tests.support.environments import settings_of
from tests.support.pipeline import Interrupt
from tests.support.singer import HURRIED
from tests.transform.advisories import Advisories, Epss, Kev, MsrcCve, MsrcKb, MsrcKbCve
from tests.transform.marts import assert_true
from tests.transform.truth import Check, KbCve, Machine, MissingKb, Sweep, Tenant, Truth
from tests.transform.warehouses import OnDuckDb, OnPostgres, Warehouse, default_deadlines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from demo.postgres import Postgres
    from mde_simulator import Simulator
    from tests.conftest import Programs, StartSimulator
    from tests.e2e.conftest import Connect
    from tests.support.pipeline import Pipeline, Run
    from tests.transform.truth import Pair

pytestmark = pytest.mark.long

NIGHTS = 60
MACHINES = 50
SCHEMA = "mde"
HIDDEN, SHOWN = 20, 33
"""In the nights between, two machines are out of sight: they leave, and return."""

EVENTS = {25: "outage", 41: "group gone", 48: "clock ahead"}
"""What happens in one night each."""

EXPORTS_FROM = 15
BEFORE_NIGHT = timedelta(hours=1.5)
"""So much older than the night is the export that it reads."""

FEEDS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "msrc_kbs": (MsrcKb, ("kb_id", "document_id")),
    "msrc_kb_cves": (MsrcKbCve, ("kb_id", "cve_id", "document_id")),
    "msrc_cves": (MsrcCve, ("id", "document_id")),
    "kev": (Kev, ("cve_id",)),
    "epss": (Epss, ("cve_id",)),
}
"""The row of each of their streams, and its key."""
SCORES = 500
LEAST_SCORE = 0.1
"""What `epss_min` is by default."""

COLUMNS = {
    "computer_dns_name": "computerDnsName",
    "os_platform": "osPlatform",
    "rbac_group_name": "rbacGroupName",
    "risk_score": "riskScore",
    "exposure_level": "exposureLevel",
    "health_status": "healthStatus",
    "onboarding_status": "onboardingStatus",
}


def naive(text: str) -> datetime:
    """A time as warehouses have it: UTC, without saying so."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc).replace(tzinfo=None)


def in_columns(name: str, value: Any) -> Any:
    """A value of a feed's record as warehouses have it."""
    if name == "read_at":
        return naive(value)
    if value is not None and (name.endswith("_on") or name == "document_month"):
        return date.fromisoformat(value)
    return tuple(value) if isinstance(value, list) else value


@dataclass
class History:
    """What the simulator knows of each night, and what is to be in the raw tables for it."""

    simulator: Simulator
    missing: dict[Any, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    """What each machine answered: by date and sweep of a night, and by the time of an export."""
    tonight: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """What each answers tonight."""
    sweeps: dict[int, Sweep] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    rows: dict[tuple[str, str], MissingKb] = field(default_factory=dict)
    first_seen: dict[tuple[str, str], datetime] = field(default_factory=dict)
    told_first_seen: dict[Pair, datetime] = field(default_factory=dict)
    """What exports ever said, as a model of its own keeps it; the raw table forgets."""
    cves: dict[tuple[str, str], KbCve] = field(default_factory=dict)
    feeds: dict[str, dict[tuple[str, ...], Any]] = field(default_factory=lambda: {stream: {} for stream in FEEDS})
    """What a run read, by stream and key; at the end it has to be what the simulator publishes."""
    whole: dict[int, dict[str, str]] = field(default_factory=dict)
    """Of each sweep that the run of one night began and finished: every machine's outcome."""

    def listing(self, rows: Iterable[dict[str, Any]]) -> None:
        """The machines are listed; what they are, the fleet knows."""
        fleet = self.simulator.fleet
        for row in rows:
            machine_id, record = row["id"], fleet.machine(row["id"])
            last_seen = record["lastSeen"]
            self.machines[machine_id] = Machine(
                id=machine_id,
                listed_at=naive(row["listed_at"]),
                listing=row["listing"],
                last_seen=naive(str(last_seen)[:26].rstrip("Z") + "Z") if last_seen else None,
                machine_tags=tuple(record["machineTags"] or ()),  # type: ignore[arg-type] # a list of texts
                **{column: record[name] for column, name in COLUMNS.items()},  # type: ignore[arg-type] # all texts
            )

    def night(self) -> None:
        """Each machine can be asked."""
        self.tonight = answers_of(self.simulator.fleet)

    def export(self, at: datetime) -> None:
        """A snapshot is made, and the night's run reads it."""
        exports = self.simulator.exports
        exports.generate(at)
        found = exports.missing()
        self.missing[at.replace(tzinfo=None)] = {device: frozenset(kbs) for device, kbs in found.items()}
        self.first_seen = {
            (device, kb_id): of_kb.first_seen.astimezone(timezone.utc).replace(tzinfo=None)
            for device, kbs in found.items()
            for kb_id, of_kb in kbs.items()
        }
        for pair, (severity, score, level) in exports.kb_cves().items():
            self.cves[pair] = KbCve(*pair, severity, score, level)

    def take(self, run: Run, failing: dict[str, str]) -> None:
        """What a run wrote has to be what the simulator knows."""
        listed = [*records(run, "machines")]
        self.listing(listed)
        for row in records(run, "sweeps"):
            moments = {name: row[name] and naive(row[name]) for name in ("began_at", "ended_at", "listed_at")}
            self.sweeps[row["sweep"]] = Sweep(**{**row, **moments})
        for check in records(run, "missing_kbs_checks"):
            checked_at = naive(check["checked_at"])
            self.missing.setdefault((checked_at.date(), check["sweep"]), self.tonight)
            if check["sweep"] in self.whole:  # healed: asked again in the night after
                self.whole[check["sweep"]] |= self.outcomes(failing, [check["machine_id"]])
            if check["outcome"] == "answered":
                answer = self.answer(check["machine_id"], check["sweep"], checked_at)
                assert frozenset(check["missing_kb_ids"]) == answer
        for row in records(run, "missing_kbs"):
            pair = (row["machine_id"], row["id"])
            of_kb = self.simulator.fleet.kb(row["id"])
            first_seen = self.first_seen[pair] if naive(row["checked_at"]) in self.missing else None
            self.rows[pair] = MissingKb(
                *pair,
                naive(row["checked_at"]),
                of_kb["name"],  # type: ignore[arg-type] # a text or none
                of_kb["url"],  # type: ignore[arg-type] # as above
                of_kb["cveAddressed"],  # type: ignore[arg-type] # a number
                first_seen,
                row["sweep"],
            )
            if first_seen:
                told = (SCHEMA, *pair)
                self.told_first_seen[told] = min(first_seen, self.told_first_seen.get(told, first_seen))
        for stream, (kind, key) in FEEDS.items():
            for record in records(run, stream):
                row = kind(**{each.name: in_columns(each.name, record[each.name]) for each in fields(kind)})
                self.feeds[stream][tuple(record[name] for name in key)] = row
        last = [message["value"] for message in run.messages if message["type"] == "STATE"][-1]
        sweep = last["bookmarks"]["missing_kbs"]["sweep"]
        # A run that went on with another night's sweep then began this one.
        if sweep["version"] >= self.simulator.fleet.now.timestamp() and sweep["asked_all"] and not sweep["deferred"]:
            self.whole[sweep["version"]] = self.outcomes(failing, {row["id"] for row in listed})

    def answer(self, machine_id: str, sweep: int, checked_at: datetime) -> frozenset[str]:
        """What a machine answered, or lacked when the export was made."""
        return self.missing.get(checked_at, self.missing.get((checked_at.date(), sweep), {}))[machine_id]

    def outcomes(self, failing: dict[str, str], listed: Iterable[str]) -> dict[str, str]:
        """What becomes of each machine that is listed now."""
        fleet = self.simulator.fleet
        onboarded = set(fleet.assessed())
        return {
            machine_id: failing.get(machine_id, "answered") if machine_id in onboarded else "skipped"
            for machine_id in listed
        }

    def tenant(self, checks: Iterable[Check]) -> Tenant:
        """The raw tables by what the simulator knows, with the checks that a warehouse has."""
        return Tenant(
            [*self.machines.values()],
            [*checks],
            [*self.rows.values()],
            [*self.cves.values()],
            [*self.sweeps.values()],
            advisories=Advisories(**{stream: tuple(rows.values()) for stream, rows in self.feeds.items()}),
        )

    def assert_feeds_are_true(self) -> None:
        """All that was read in sixty nights is what is published after them."""
        assert all(self.feeds.values())
        public, kbs = self.simulator.feeds, self.feeds["msrc_kbs"].values()
        closes = {(kb_id, cve_id) for kb_id, cves in public.closes().items() for cve_id in cves}
        assert {(row.kb_id, row.cve_id) for row in self.feeds["msrc_kb_cves"].values()} >= closes
        assert {row.kb_id: {*row.supersedes} for row in kbs if row.kb_id in public.supersedes()} == {
            kb_id: {*kb_ids} for kb_id, kb_ids in public.supersedes().items()
        }
        exploited = {row.id for row in self.feeds["msrc_cves"].values() if row.exploited}
        assert exploited == {cve_id for _, cve_id in closes if is_exploited(cve_id)}
        assert {row.cve_id: row.added_on for row in self.feeds["kev"].values()} == public.known_exploited()
        newest = max(row.read_at for row in self.feeds["epss"].values())
        scores = {row.cve_id: row.epss for row in self.feeds["epss"].values() if row.read_at == newest}
        assert scores == {cve_id: score for cve_id, score in public.today_scores().items() if score >= LEAST_SCORE}

    def checks(self, warehouse: Warehouse) -> list[Check]:
        """The checks that a warehouse has, each with what the simulator says that the machine lacked then.

        Those of a sweep that one run began and finished are all there, with the outcome that they must have.
        """
        found = warehouse.query(
            "SELECT machine_id, sweep, checked_at, outcome, reason, last_seen "  # noqa: S608 - ours
            f"FROM {SCHEMA}.missing_kbs_checks"
        )
        by_sweep: dict[int, dict[str, str]] = {}
        for row in found:
            by_sweep.setdefault(row["sweep"], {})[row["machine_id"]] = row["outcome"]
        assert {sweep: by_sweep[sweep] for sweep in self.whole} == self.whole
        return [
            Check(
                row["machine_id"],
                row["sweep"],
                row["checked_at"],
                row["outcome"],
                self.answer(row["machine_id"], row["sweep"], row["checked_at"])
                if row["outcome"] == "answered"
                else None,
                row["reason"],
                row["last_seen"],
            )
            for row in found
        ]


def records(run: Run, stream: str) -> Iterable[dict[str, Any]]:
    """The records of a stream that a run wrote."""
    return (
        message["record"] for message in run.messages if message["type"] == "RECORD" and message["stream"] == stream
    )


class Nights:
    """What happens, night by night, by the dice."""

    def __init__(self, pipeline: Pipeline, history: History) -> None:
        self.pipeline = pipeline
        self.history = history
        self.simulator = history.simulator
        self.fleet = history.simulator.fleet
        self.output = bytearray()
        self.kinds: dict[str, int] = dict.fromkeys(("skipped", "killed", "export", "failing", "resumed"), 0)
        self._dice = random.Random(60)  # noqa: S311 - a play
        self._installed: list[tuple[str, str]] = []

    def pass_one(self) -> bool:
        """Let a night pass; whether an export was read."""
        self.fleet.pass_days(1)
        self._change()
        kind = self._dice.choices(("plain", "skipped", "killed", "failing", "export"), (10, 2, 3, 4, 2))[0]
        if kind == "export" and self.fleet.day < EXPORTS_FROM:
            kind = "plain"
        if self.fleet.day == NIGHTS:
            kind = "plain"
        kind = EVENTS.get(self.fleet.day, kind)
        if kind in self.kinds:
            self.kinds[kind] += 1
        if kind != "skipped":
            self._run(kind)
        return kind == "export"

    def _change(self) -> None:
        """An update is installed by hand, or rolled back; two machines go out of sight, and return."""
        fleet, dice = self.fleet, self._dice
        lacking = sorted((machine_id, min(kbs)) for machine_id, kbs in answers_of(fleet).items() if kbs)
        if fleet.day % 3 == 0:
            self._installed.append(dice.choice(lacking))
            fleet.install(*self._installed[-1])
        if fleet.day % 7 == 0 and self._installed and fleet.is_listed(self._installed[0][0]):
            fleet.uninstall(*self._installed.pop(0))
        out_of_sight = fleet.onboarded(0)[5:7]
        if fleet.day == HIDDEN:
            fleet.hide(out_of_sight)
        if fleet.day == SHOWN:
            fleet.show(out_of_sight)

    def _run(self, kind: str) -> None:
        moment = self.fleet.now
        failing: dict[str, str] = {}
        self.history.night()
        self.simulator.faults.clear()
        self.simulator.tenant.latency = 0.0
        source, interrupt = "per_machine", None
        if kind == "failing":
            some = self._dice.sample(self.fleet.assessed(), 2)
            failing = {some[0]: "not_found", some[1]: "failed"}
            self.simulator.faults.add(Fault("not_found", machine=some[0]), Fault("503", machine=some[1]))
        elif kind == "killed":
            self.simulator.tenant.latency = 0.1  # so that the kill does not come too late
            interrupt = Interrupt(signal.SIGKILL, "tap", calls=self._dice.randrange(5, 35))
        elif kind == "export":
            source = "export"
            self.history.export(moment - BEFORE_NIGHT)
            devices = self.simulator.exports.devices()
            failing = dict.fromkeys(set(self.fleet.assessed()) - devices, "not_in_export")
        elif kind == "outage":
            self.simulator.faults.add(Fault("empty"))
            self.history.tonight = dict.fromkeys(self.history.tonight, frozenset())
        elif kind == "group gone":
            self.simulator.faults.add(Fault("group_gone"))
        elif kind == "clock ahead":
            moment += timedelta(days=1)
        before = (self.pipeline.state.get("bookmarks") or {}).get("missing_kbs", {}).get("sweep", {})
        self.pipeline.config = {"missing_kbs_source": source}
        self.pipeline.environ = environment_at(moment)
        run = self.pipeline.run(interrupt)
        assert run.target_status == 0, run.target_log
        assert run.status == (-signal.SIGKILL if run.interrupted else 0), run.log
        self.output += run.output[: run.output.rfind(b"\n") + 1]
        self.history.take(run, failing)
        sweeps = {check["sweep"] for check in records(run, "missing_kbs_checks")}
        self.kinds["resumed"] += before.get("version") in sweeps
        if kind in {"outage", "group gone"}:
            newest = self.history.sweeps[max(sweeps)]
            assert newest.is_believed is False, newest


def test_every_mart_is_right_to_the_row(
    simulate: StartSimulator,
    connect: Connect,
    postgres: Postgres,
    programs: Programs,
    tmp_path: Path,
) -> None:
    """On PostgreSQL with dbt now and then, on DuckDB with dbt after the last night; a full rebuild gives the same."""
    fleet = Fleet(MACHINES, seed=3)

    def before_night() -> float:
        return (fleet.now - BEFORE_NIGHT).timestamp()

    simulator = simulate(fleet, export_clock=before_night, advisory_feeds=NAMES, epss_rows=SCORES)
    pipeline, _ = connect(simulator, {"default_target_schema": SCHEMA}, patience=replace(HURRIED, state=0.1))
    history = History(simulator)
    nights = Nights(pipeline, history)
    on_postgres = OnPostgres(tmp_path, postgres)
    for night in range(1, NIGHTS + 1):
        exported = nights.pass_one()
        if exported or night in {4, 30, 31, NIGHTS}:
            on_postgres.build_models()
    assert min(nights.kinds.values()) >= 3, nights.kinds
    history.assert_feeds_are_true()
    told = Truth([history.tenant(history.checks(on_postgres))], default_deadlines(), history.told_first_seen)
    assert_true(on_postgres, told)
    on_postgres.build_models("--full-refresh")
    assert_true(on_postgres, told)

    on_duckdb = OnDuckDb(tmp_path)
    load(programs, on_duckdb, bytes(nights.output), tmp_path)
    on_duckdb.build_models()
    tenant = history.tenant(history.checks(on_duckdb))
    machines = [replace(machine, computer_dns_name=machine.computer_dns_name or None) for machine in tenant.machines]
    assert_true(on_duckdb, Truth([replace(tenant, machines=machines)], default_deadlines()))


def load(programs: Programs, warehouse: OnDuckDb, messages: bytes, folder: Path) -> None:
    """Load what the tap wrote in all nights through target-duckdb."""
    settings = {**settings_of("target-duckdb"), "path": str(warehouse.file), "default_target_schema": SCHEMA}
    (folder / "target.json").write_text(json.dumps(settings))
    command = [str(programs("target-duckdb") / "target-duckdb"), "--config", str(folder / "target.json")]
    done = subprocess.run(command, input=messages, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:].decode()
