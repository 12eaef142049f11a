"""What a warehouse holds, and what it should hold by the fleet itself."""

from __future__ import annotations

import json
import re
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from tests.support import readme
from tests.support.contract import answers_of, missing_now
from tests.support.singer import clean_environ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from demo.postgres import Postgres
    from mde_simulator import Fleet

Row = dict[str, Any]
Key = tuple[str, str]
KB_COLUMNS = ("name", "products_names", "url", "machine_missed_on", "cve_addressed", "os_build", "first_seen_at")
MOMENTS = ("checked_at", "listed_at", "sweep", "listing")
"""When it was, and in which sweep or listing: no two runs have the same."""
TABLES = ("machines", "missing_kbs", "missing_kbs_checks", "sweeps")


class Warehouse(ABC):
    """The tables that a target loads to."""

    @abstractmethod
    def query(self, sql: str) -> list[Row]:
        """The rows that a query gives."""

    def all(self, table: str) -> list[Row]:
        """Every row, deleted ones too."""
        return self.query(f"SELECT * FROM {table}")  # noqa: S608 - a name of ours

    def live(self, table: str) -> list[Row]:
        """The rows not marked deleted, without the target's own columns."""
        return [
            {column: value for column, value in row.items() if not column.startswith("_sdc_")}
            for row in self.all(table)
            if row.get("_sdc_deleted_at") is None
        ]

    def missing_kbs(self) -> dict[Key, Row]:
        """The live rows by machine and update, without the time."""
        return {(row["machine_id"], row["id"]): without_moments(row) for row in self.live("missing_kbs")}

    def deleted(self) -> set[Key]:
        """Machine and update of the rows marked deleted."""
        return {(row["machine_id"], row["id"]) for row in self.all("missing_kbs") if row["_sdc_deleted_at"]}

    def machines(self) -> dict[str, Row]:
        """The live machines by id, without the time."""
        return {row["id"]: without_moments(row) for row in self.live("machines")}

    def last_checks(self) -> dict[str, Row]:
        """The newest check of each machine that ever had one."""
        order = "ORDER BY machine_id, sweep DESC"
        rows = self.query(f"SELECT DISTINCT ON (machine_id) * FROM missing_kbs_checks {order}")  # noqa: S608 - ours
        return {row["machine_id"]: row for row in rows}

    def outcomes(self) -> dict[str, str]:
        """What became of each machine of the newest sweep."""
        rows = self.query("SELECT * FROM missing_kbs_checks WHERE sweep = (SELECT max(sweep) FROM missing_kbs_checks)")
        return {row["machine_id"]: row["outcome"] for row in rows}

    def newest_sweep(self) -> int:
        """The version of the newest sweep."""
        [row] = self.query("SELECT max(sweep) AS sweep FROM missing_kbs_checks")
        return int(row["sweep"])

    def missing_now(self) -> set[Key]:
        """What is missing by the README's query."""
        return set(self.rows_missing_now())

    def rows_missing_now(self) -> dict[Key, Row]:
        """The rows that it gives, without the time and the target's own columns; one for each machine and update.

        They are also those that a reader finds who knows the contract and no SQL.
        """
        rows = self.query(readme.sql("missing now"))
        by_key = {(row["machine_id"], row["id"]): row for row in rows}
        assert len(by_key) == len(rows)
        read = missing_now({table: self.all(table) for table in TABLES})
        assert {key: _kept(row, by_key[key]) for key, row in read.items() if key in by_key} == by_key
        assert read.keys() == by_key.keys()
        return {key: without_moments(row) for key, row in by_key.items()}

    def table(self) -> dict[str, Any]:
        """All that two ways to the same table have to agree in."""
        checks = {
            machine_id: {name: row[name] for name in ("outcome", "missing_kbs", "missing_kb_ids")}
            for machine_id, row in self.last_checks().items()
        }
        return {"missing_kbs": self.missing_kbs(), "machines": self.machines(), "checks": checks}


@dataclass(frozen=True)
class PostgresWarehouse(Warehouse):
    """One schema of a database that target-postgres loads to."""

    database: Postgres
    schema: str

    def query(self, sql: str) -> list[Row]:
        """The rows that a query gives."""
        options = f"-c search_path={self.schema}"
        with psycopg.connect(self.database.url, options=options, row_factory=dict_row) as connection:
            return connection.execute(sql.encode()).fetchall()


@dataclass(frozen=True)
class AskedWarehouse(Warehouse):
    """Tables that a program of another environment is asked about.

    Args:
        command: The program: a statement on its stdin, columns, types and rows as JSON on its stdout.
        folder: Where it runs.
        before: Statements that come before each query.
    """

    command: Sequence[str]
    folder: Path
    before: str = ""

    def query(self, sql: str) -> list[Row]:
        """The rows that a query gives; Snowflake's names are in capitals."""
        done = subprocess.run(
            self.command,
            input=self.before + sql,
            cwd=self.folder,
            env=clean_environ(self.folder),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        read = [READERS.get(kind, lambda value: value) for kind in answer["types"]]
        return [
            {
                column.lower(): None if value is None else convert(value)
                for column, convert, value in zip(answer["columns"], read, row, strict=True)
            }
            for row in answer["rows"]
        ]


def through_duckdb(python: Path, folder: Path, database: str, before: str) -> AskedWarehouse:
    """A database file of DuckDB, or with ":memory:" whatever the statements before open.

    Args:
        python: of an environment that has DuckDB.
        folder: where it runs.
        database: the file.
        before: statements that come before each query.
    """
    program = str(Path(__file__).with_name("duckdb_rows.py"))
    return AskedWarehouse([str(python), program, database], folder, f"{before};\n")


READERS: dict[str, Callable[[Any], Any]] = {
    "JSON": json.loads,
    "VARIANT": json.loads,
    "TIMESTAMP": datetime.fromisoformat,
    "TIMESTAMP_NTZ": datetime.fromisoformat,
}
"""What DuckDB and Snowflake give as text."""


def _kept(row: Mapping[str, Any], like: Mapping[str, Any]) -> Row:
    """A row with the columns of another."""
    return {column: row[column] for column in like}


def without_moments(row: Mapping[str, Any]) -> Row:
    """A row without the columns that are times of the run, and without the target's own."""
    return {column: value for column, value in row.items() if column not in MOMENTS and not column.startswith("_sdc_")}


def pairs(fleet: Fleet) -> set[Key]:
    """Machine and update of everything missing today."""
    return {(machine_id, kb_id) for machine_id, kbs in answers_of(fleet).items() for kb_id in kbs}


def assert_right_so_far(warehouse: Warehouse, before: set[Key], fleet: Fleet) -> None:
    """In the middle of a sweep: machines answered by now are as today, others as they were, or left, or silent.

    Args:
        warehouse: the tables.
        before: what was missing in the sweep before, in which all were answered.
        fleet: as it is today.
    """
    outcomes = warehouse.outcomes()
    answered = {machine_id for machine_id, outcome in outcomes.items() if outcome == "answered"}
    assert 0 < len(answered) < len(fleet.assessed()), "not in the middle"
    waiting = {machine_id for machine_id in fleet.listed() if outcomes.get(machine_id) not in {"answered", "skipped"}}
    expected = {pair for pair in pairs(fleet) if pair[0] in answered} | {pair for pair in before if pair[0] in waiting}
    found = warehouse.missing_now()
    assert expected <= found
    # A kill may come between the last machine's rows and its check.
    assert found - expected <= pairs(fleet)
    assert len({machine_id for machine_id, _ in found - expected}) <= 1


def true_missing_kbs(fleet: Fleet, machines: Iterable[str] | None = None) -> dict[Key, Row]:
    """The rows of `missing_kbs` as they should be today, of all machines that are assessed or of some."""
    truth: dict[Key, Row] = {}
    for machine_id in fleet.assessed() if machines is None else machines:
        for kb in fleet.missing_kbs(machine_id):
            row = {snake_case(name): value for name, value in kb.items()} | {"first_seen_at": None}
            if isinstance(row["os_build"], str):  # "10.0.19045.4412": a whole version, with the build in it
                row["os_build"] = int(row["os_build"].split(".")[2])
            kb_id = str(row["id"])
            truth[machine_id, kb_id] = {
                "machine_id": machine_id,
                "id": kb_id,
                **{name: row[name] for name in KB_COLUMNS},
            }
    return truth


def true_machines(fleet: Fleet) -> dict[str, Row]:
    """The rows of `machines` as they should be today."""
    return {machine_id: _true_machine(fleet.machine(machine_id)) for machine_id in fleet.listed()}


def _true_machine(record: Mapping[str, Any]) -> Row:
    row = {
        snake_case(name): _snake_case(value) for name, value in record.items() if name not in {"version", "unheardOf"}
    }
    row["os_release"] = record["version"]
    for name in ("first_seen", "last_seen"):
        row[name] = row[name] and _moment(row[name])
    row["rbac_group_id"] = None if row["rbac_group_id"] is None else int(row["rbac_group_id"])
    return row


def snake_case(name: str) -> str:
    """The column for a name of the API's: by hand, not as the tap does it."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _snake_case(value: Any) -> Any:
    if isinstance(value, dict):
        return {snake_case(name): _snake_case(inner) for name, inner in value.items()}
    return [_snake_case(item) for item in value] if isinstance(value, list) else value


def _moment(text: str) -> datetime:
    """UTC, as a `timestamp`; of seven decimals PostgreSQL keeps six."""
    whole, _, decimals = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{decimals[:6]:0<6}" if decimals else whole)
