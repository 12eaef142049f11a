"""A tenant's night: tap into target, STATE and exit status kept in the warehouse. Knows no Dagster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psycopg
from psycopg.types.json import Jsonb
from tenants import TENANTS, Tenant

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = "CREATE SCHEMA IF NOT EXISTS provider"
TABLE = """
CREATE TABLE IF NOT EXISTS provider.tenant_runs (
    tenant text PRIMARY KEY, state jsonb, tap_status integer, target_status integer, reason text, ended_at timestamptz
)
"""
BEGUN = """
INSERT INTO provider.tenant_runs (tenant, reason) VALUES (%s, 'it has not ended')
ON CONFLICT (tenant) DO UPDATE SET tap_status = NULL, target_status = NULL, reason = excluded.reason
RETURNING state
"""
LOADED = "UPDATE provider.tenant_runs SET state = %s WHERE tenant = %s"
ENDED = """
UPDATE provider.tenant_runs SET tap_status = %s, target_status = %s, reason = %s, ended_at = now() WHERE tenant = %s
"""
STOPPED = {128 + signal.SIGINT, 128 + signal.SIGTERM}
"""How a tap ends that was told to."""


@dataclass(frozen=True)
class Ended:
    """How a night ended.

    Attributes:
        tap_status: 0: the tables are as current as the API allows. Below 0: the signal that killed it.
        target_status: 0: what the tap wrote is loaded.
        reason: The last line of the one that failed.
    """

    tap_status: int
    target_status: int
    reason: str

    @property
    def is_well(self) -> bool:
        """Whether both ended with 0."""
        return self.tap_status == self.target_status == 0

    @property
    def is_worth_a_retry(self) -> bool:
        """Whether the same again may end otherwise: the warehouse was away, or one of the two was killed.

        With an exit status of its own the tap has tried again whatever may pass, and says what somebody has to do; but
        for a target that went before it, which a signal may make it do with exit status 0.
        """
        was_left = self.tap_status == 1 and "closed the pipe" in self.reason
        return self.target_status != 0 or self.tap_status < 0 or self.tap_status in STOPPED or was_left


class LastLine(threading.Thread):
    """Passes on to our own stderr what a program says, and keeps the last line."""

    def __init__(self, said: IO[str]) -> None:
        """Begin to read."""
        super().__init__(daemon=True)
        self._said = said
        self.text = ""
        self.start()

    def run(self) -> None:
        """Read to the end."""
        for line in self._said:
            sys.stderr.write(line)
            self.text = line.strip() or self.text


def warehouse() -> psycopg.Connection:
    """A connection to the warehouse, where the variables say that dbt reads, too."""
    connection = psycopg.connect(
        host=os.environ["PG_HOST"],
        port=os.environ["PG_PORT"],
        user=os.environ["PG_USER"],
        password=os.environ["PG_PASSWORD"],
        dbname=os.environ["PG_DATABASE"],
        autocommit=True,
    )
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(1)")  # several runs may come to create it at once
        connection.execute(SCHEMA)
        connection.execute(TABLE)
    return connection


def load(tenant: Tenant) -> Ended:
    """Load a tenant's tables, and go on from the STATE that the warehouse has of it."""
    with warehouse() as connection, tempfile.TemporaryDirectory() as folder:
        [[state]] = connection.execute(BEGUN, [tenant.name])
        file = Path(folder, f"{tenant.name}.json")
        file.write_text(json.dumps(state))
        ended = _run(tenant, file, connection)
        connection.execute(ENDED, [ended.tap_status, ended.target_status, ended.reason, tenant.name])
    return ended


def _run(tenant: Tenant, state: Path, connection: psycopg.Connection) -> Ended:
    """Run tap and target, and keep each STATE that the target has loaded all before."""
    with (
        subprocess.Popen(
            ["tap-mde-kbs", "--config=ENV", "--state", str(state)],
            env=_environment(tenant.tap_settings()),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as tap,
        subprocess.Popen(
            ["target-postgres", "--config=ENV"],
            env=_environment(_target_settings(tenant)),
            stdin=tap.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as target,
    ):
        tap.stdout.close()  # so that the tap hears of it when the target ends
        said = {"tap": LastLine(tap.stderr), "target": LastLine(target.stderr)}
        try:
            for line in target.stdout:
                connection.execute(LOADED, [Jsonb(json.loads(line)), tenant.name])
        except BaseException:  # above all the run's own end, asked for by Dagster
            tap.terminate()
            raise
    for each in said.values():
        each.join()
    # A tap whose target has gone ends, too: then the target is the one to look at.
    who = "target" if target.returncode else "tap"
    return Ended(tap.returncode, target.returncode, said[who].text if tap.returncode or target.returncode else "")


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """What a program finds in its environment: its settings, and nobody else's secret."""
    secrets = {each.secret for each in TENANTS.values()} | {"PG_PASSWORD"}
    return {name: value for name, value in os.environ.items() if name not in secrets} | dict(settings)


def _target_settings(tenant: Tenant) -> dict[str, str]:
    names = ("HOST", "PORT", "USER", "PASSWORD", "DATABASE")
    place = {f"TARGET_POSTGRES_{name}": os.environ[f"PG_{name}"] for name in names}
    return {**place, "TARGET_POSTGRES_DEFAULT_TARGET_SCHEMA": tenant.name}
