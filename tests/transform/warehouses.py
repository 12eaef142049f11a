"""PostgreSQL and DuckDB with raw tables as the Singer targets create them, and dbt on them."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import warnings
from abc import ABC, abstractmethod
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from unittest import mock

import duckdb
import psycopg
from dbt.adapters.duckdb.connections import DuckDBConnectionManager
from dbt.cli.main import dbtRunner, dbtRunnerResult
from psycopg.rows import dict_row

from tap_mde_kbs.schema import (
    EPSS,
    KB_CVES,
    KEV,
    MACHINES,
    MISSING_KBS,
    MISSING_KBS_CHECKS,
    MSRC_CVES,
    MSRC_KB_CVES,
    MSRC_KBS,
    SWEEPS,
)
from tests.transform.truth import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from demo.postgres import Postgres
    from tests.transform.truth import Tenant

PROJECT = Path(__file__).parents[2] / "transform"
MADE = ("analytics", "analytics_intermediate", "analytics_staging")
"""The schemas of the models."""
MAY_WARN = ("newest_sweep_covers_the_fleet", "warn")
"""Random machines often do not answer."""
Tables = dict[str, list[dict[str, Any]]]


def default_deadlines() -> list[Deadline]:
    """The seed's."""
    with (PROJECT / "seeds" / "deadlines.csv").open(newline="") as seed:
        rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(seed)]
    return [
        Deadline(
            days=int(row["days"] or 0),
            min_cve_addressed=int(row["min_cve_addressed"]) if row["min_cve_addressed"] else None,
            min_severity=row["min_severity"],
            rbac_group_name=row["rbac_group_name"],
            machine_tag=row["machine_tag"],
            deadline_id=str(row["deadline_id"]),
        )
        for row in rows
    ]


def kinds(schema: Mapping[str, Any]) -> dict[str, str]:
    """The kind of each column of a stream: what decides its type in a warehouse."""
    return {name: _kind(prop) for name, prop in schema["properties"].items()}


def _kind(prop: Mapping[str, Any]) -> str:
    if "format" in prop:
        return str(prop["format"])
    (kind,) = {*([prop["type"]] if isinstance(prop["type"], str) else prop["type"])} - {"null"}
    return "array of objects" if kind == "array" and "object" in prop["items"]["type"] else str(kind)


COLUMNS = {
    "machines": kinds(MACHINES.schema),
    "missing_kbs": kinds(MISSING_KBS.schema),
    "missing_kbs_checks": kinds(MISSING_KBS_CHECKS.schema),
    "kb_cves": kinds(KB_CVES.schema),
    "sweeps": kinds(SWEEPS.schema),
    "msrc_kbs": kinds(MSRC_KBS.schema),
    "msrc_kb_cves": kinds(MSRC_KB_CVES.schema),
    "msrc_cves": kinds(MSRC_CVES.schema),
    "kev": kinds(KEV.schema),
    "epss": kinds(EPSS.schema),
    "ssvc": dict.fromkeys(("cve_id", "automatable", "technical_impact"), "string"),
}
CAME_WITH_SWEEPS = {
    "machines": {"listing"},
    "missing_kbs": {"sweep"},
    "missing_kbs_checks": {"reason", "last_seen"},
    "kb_cves": {"checked_at"},
}
"""The columns that no warehouse has which an earlier version filled."""
EARLIER = {
    table: {name: kind for name, kind in COLUMNS[table].items() if name not in later}
    for table, later in CAME_WITH_SWEEPS.items()
}


def tables_of(tenant: Tenant) -> Tables:
    """The raw tables' rows, those of a table that does not exist left out."""
    tables: Tables = {
        "machines": [asdict(machine) for machine in tenant.machines],
        "missing_kbs": [asdict(row) for row in tenant.missing_kbs],
        "missing_kbs_checks": [
            {
                **{name: value for name, value in asdict(check).items() if name != "kb_ids"},
                "missing_kbs": None if check.kb_ids is None else len(check.kb_ids),
                "missing_kb_ids": None if check.kb_ids is None else sorted(check.kb_ids),
            }
            for check in tenant.checks
        ],
    }
    for each in fields(tenant.advisories):
        rows = getattr(tenant.advisories, each.name)
        if rows is not None:
            tables[each.name] = [asdict(row) for row in rows]
    if tenant.kb_cves is not None:
        tables["kb_cves"] = [asdict(row) for row in tenant.kb_cves]
    if tenant.sweeps is not None:
        return {**tables, "sweeps": [asdict(row) for row in tenant.sweeps]}
    return {
        table: [{name: row[name] for name in row if name in EARLIER.get(table, row)} for row in rows]
        for table, rows in tables.items()
    }


class Writer(Protocol):
    """A transaction that fills raw tables."""

    def execute(self, statement: str) -> None:
        """A statement without rows."""

    def insert(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Rows with the same columns, perhaps none."""


@dataclass
class PostgresWriter:
    """By COPY."""

    connection: psycopg.Connection[Any]

    def execute(self, statement: str) -> None:
        self.connection.execute(statement.encode())

    def insert(self, table: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            copy = f"COPY {table} ({', '.join(rows[0])}) FROM STDIN"
            with self.connection.cursor().copy(copy.encode()) as into:
                for row in rows:
                    into.write_row([list(value) if isinstance(value, tuple) else value for value in row.values()])


@dataclass
class DuckDbWriter:
    """Row by row; arrays are JSON."""

    connection: duckdb.DuckDBPyConnection

    def execute(self, statement: str) -> None:
        self.connection.execute(statement)

    def insert(self, table: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            into = f"INSERT INTO {table} ({', '.join(rows[0])}) VALUES ({marks})"  # noqa: S608 - names of ours
            self.connection.executemany(into, [[_as_json(value) for value in row.values()] for row in rows])


def _as_json(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (tuple, list)) else value


@dataclass
class Warehouse(ABC):
    """A warehouse of one test."""

    folder: Path
    """Where dbt leaves what it makes."""
    types: Mapping[str, str] = field(init=False)
    name: str = field(init=False)

    @property
    @abstractmethod
    def environment(self) -> dict[str, str]:
        """What profiles.yml reads."""

    @abstractmethod
    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows that a query gives."""

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Writer]:
        """One transaction."""

    @abstractmethod
    def clear(self) -> None:
        """Leave nothing of a test before."""

    def run(self, *statements: str) -> None:
        """Statements without rows, all or none."""
        with self._writing() as write:
            for statement in statements:
                write.execute(statement)

    def forget_models(self) -> None:
        """Leave nothing that dbt made."""
        self.run(*(f"DROP SCHEMA {schema} CASCADE" for schema in MADE))

    def load(self, *tenants: Tenant) -> None:
        """Make the raw tables of each anew, as they are after a run."""
        with self._writing() as write:
            for tenant in tenants:
                write.execute(f"CREATE SCHEMA IF NOT EXISTS {tenant.name}")
                for table, rows in tables_of(tenant).items():
                    name = f"{tenant.name}.{table}"
                    for statement in self._create(name, table, is_earlier=tenant.sweeps is None):
                        write.execute(statement)
                    write.execute(f"DELETE FROM {name}")  # noqa: S608 - names of ours
                    write.insert(name, rows)

    def _create(self, name: str, table: str, *, is_earlier: bool) -> list[str]:
        """A table as the target makes it, which later adds what columns are new."""
        known = EARLIER.get(table, COLUMNS[table]) if is_earlier else COLUMNS[table]
        columns = ", ".join(f"{column} {self.types[kind]}" for column, kind in known.items())
        new = {} if is_earlier else {column: COLUMNS[table][column] for column in CAME_WITH_SWEEPS.get(table, ())}
        return [
            f"CREATE TABLE IF NOT EXISTS {name} ({columns})",
            *(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS {column} {self.types[new[column]]}" for column in new),
        ]

    def dbt(self, *arguments: str, project: Path = PROJECT, **variables: Any) -> dbtRunnerResult:
        """Run dbt in this process; whatever it meant to say is in the result."""
        options = [
            f"--project-dir={project}",
            f"--profiles-dir={PROJECT}",
            f"--target={self.name}",
            f"--vars={json.dumps(variables)}",
        ]
        # dbt parses a project anew when its variables differ from the last time in the same folder.
        target = hashlib.sha256(repr((project, variables)).encode()).hexdigest()[:8]
        environment = {
            **self.environment,
            "DBT_SCHEMA": MADE[0],
            "DBT_TARGET_PATH": str(self.folder / "target" / target),
            "DBT_LOG_PATH": str(self.folder / "logs"),
        }
        with mock.patch.dict(os.environ, environment), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # dbt's and its dependencies' own
            return dbtRunner().invoke(["--quiet", "--no-use-colors", *arguments, *options])

    def build(self, *arguments: str, **options: Any) -> None:
        """Run `dbt build`, its tests included; everything has to pass."""
        self._assert_passes("build", *arguments, **options)

    def build_models(self, *arguments: str, **options: Any) -> None:
        """Run `dbt build` without any tests."""
        self._assert_passes("build", "--exclude-resource-type=test", *arguments, **options)

    def _assert_passes(self, *arguments: str, **options: Any) -> None:
        done = self.dbt(*arguments, **options)
        failed = [
            f"{result.node.name}: {result.status} {result.message}"
            for result in getattr(done.result, "results", [])
            if result.status not in {"success", "pass", "no-op"} and (result.node.name, result.status) != MAY_WARN
        ]
        assert not failed, "\n".join(failed)
        assert done.success, done.exception


@dataclass
class OnPostgres(Warehouse):
    """As target-postgres 0.8.1 loads it."""

    database: Postgres
    name = "postgres"
    types = {  # noqa: RUF012 - a constant
        "string": "text",
        "integer": "bigint",
        "number": "double precision",
        "boolean": "boolean",
        "date-time": "timestamp",
        "date": "date",
        "array": "text[]",
        "array of objects": "jsonb[]",
        "object": "jsonb",
    }

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PG_HOST": self.database.host,
            "PG_PORT": str(self.database.port),
            "PG_USER": self.database.user,
            "PG_DATABASE": self.database.database,
        }

    def clear(self) -> None:
        with self._writing() as write:
            for row in self.query(
                "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema|public)'"
            ):
                write.execute(f"DROP SCHEMA {row['nspname']} CASCADE")

    def query(self, sql: str) -> list[dict[str, Any]]:
        with psycopg.connect(self.database.url, row_factory=dict_row) as connection:
            return connection.execute(sql.encode()).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[Writer]:
        with psycopg.connect(self.database.url) as connection:
            yield PostgresWriter(connection)


@dataclass
class OnDuckDb(Warehouse):
    """As target-duckdb 0.8.0 loads it: arrays and objects are JSON."""

    name = "duckdb"
    types = {  # noqa: RUF012 - a constant
        "string": "varchar",
        "integer": "hugeint",
        "number": "double",
        "boolean": "boolean",
        "date-time": "timestamp",
        "date": "date",
        "array": "json",
        "array of objects": "json",
        "object": "json",
    }

    @property
    def file(self) -> Path:
        """The database."""
        return self.folder / "warehouse.duckdb"

    @property
    def environment(self) -> dict[str, str]:
        return {"DUCKDB_PATH": str(self.file)}

    def clear(self) -> None:
        # dbt keeps its own as long as the process.
        DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call] # dbt-duckdb has no types there
        self.file.unlink(missing_ok=True)

    def query(self, sql: str) -> list[dict[str, Any]]:
        with closing(duckdb.connect(str(self.file))) as connection:
            found = connection.execute(sql)
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    @contextmanager
    def _writing(self) -> Iterator[Writer]:
        with closing(duckdb.connect(str(self.file))) as connection:
            connection.begin()
            yield DuckDbWriter(connection)
            connection.commit()
