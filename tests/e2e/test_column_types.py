"""What type each column arrives as, in every target that is tested: the table in the docs, column by column."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fleet, Simulator
from mde_simulator.feeds.feeds import NAMES
from tests.e2e.test_snowflake import connect as into_snowflake
from tests.support import readme
from tests.support.environments import settings_of
from tests.support.launch import SCRIPTS
from tests.support.pipeline import Loader, postgres_loader
from tests.support.singer import Messages, clean_environ, run_tap
from tests.support.storage import through_parquet
from tests.support.warehouse import PostgresWarehouse, through_duckdb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from demo.postgres import Postgres
    from tests.conftest import Programs
    from tests.support.storage import Storage

pytestmark = pytest.mark.long

Types = dict[str, dict[str, str]]
"""By table and column."""


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Messages:
    """One run with every stream, and a value in every column of machines."""
    fleet = Fleet(machines=30, seed=1, night=21)
    with Simulator(fleet, advisory_feeds=NAMES, epss_rows=2_000) as simulator:
        vm = {"vmId": "v", "cloudProvider": "Azure", "resourceId": "r", "subscriptionId": "s"}
        simulator.fleet.change(simulator.fleet.listed()[0], vmMetadata=vm)
        found = run_tap(tmp_path_factory.mktemp("tap"), simulator, config={"missing_kbs_source": "export"})
    assert found.status == 0, found.stderr
    assert {"kb_cves", "msrc_kbs", "kev", "epss"} <= {message["stream"] for message in found.of("RECORD")}
    return found


def kind_of(schema: Mapping[str, Any]) -> str:
    """What the docs call the type of a property."""
    [kind] = {schema["type"]} if isinstance(schema["type"], str) else {*schema["type"]} - {"null"}
    if kind == "array":
        return f"list of {kind_of(schema['items'])}s"
    if "format" in schema:
        return {"date-time": "time", "date": "day"}[schema["format"]]
    return {"string": "text"}.get(kind, kind)


def by_the_docs(messages: Messages, target: str) -> Types:
    """The type of each column, by the docs."""
    _, _, table = (readme.DOCS / "targets.md").read_text().partition("\n## Types\n")
    rows = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in re.findall(r"^\|.*\|$", table, re.MULTILINE)
    ]
    header, _, *rest = rows
    column = header.index(target)
    type_of = {row[0]: row[column] for row in rest}
    return {
        message["stream"]: {name: type_of[kind_of(prop)] for name, prop in message["schema"]["properties"].items()}
        for message in messages.of("SCHEMA")
    }


def load(messages: Messages, loader: Loader, folder: Path) -> None:
    """Load the messages into a target."""
    (folder / "target.json").write_text(json.dumps(loader.config))
    command = [*(loader.command or [str(SCRIPTS / "target-postgres")]), "--config", str(folder / "target.json")]
    done = subprocess.run(
        command,
        input=messages.stdout,
        cwd=folder,
        env=clean_environ(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def found(rows: Iterable[Mapping[str, Any]]) -> Types:
    """The rows of an information schema, without the target's own columns."""
    types: Types = {}
    for row in rows:
        if not row["column_name"].lower().startswith("_sdc_"):
            types.setdefault(row["table_name"].lower(), {})[row["column_name"].lower()] = row["data_type"]
    return types


IN_SNOWFLAKE = """
    SELECT table_name, column_name, data_type
    FROM information_schema.columns
    WHERE table_schema = 'MDE' AND NOT startswith(column_name, '_SDC_')
"""
IN_POSTGRES = """
    SELECT
        table_name,
        column_name,
        CASE data_type WHEN 'ARRAY' THEN substr(udt_name, 2) || '[]' ELSE data_type END AS data_type
    FROM information_schema.columns
    WHERE table_schema = current_schema
"""


def test_in_postgres(messages: Messages, postgres: Postgres, tmp_path: Path) -> None:
    load(messages, postgres_loader(postgres, "mde"), tmp_path)
    assert found(PostgresWarehouse(postgres, "mde").query(IN_POSTGRES)) == by_the_docs(messages, "target-postgres")


def test_in_postgres_by_pipelinewise(
    messages: Messages, programs: Programs, postgres: Postgres, tmp_path: Path
) -> None:
    name = "pipelinewise-target-postgres"
    place = {"host": postgres.host, "port": postgres.port, "dbname": postgres.database}
    config = {**settings_of(name), **place, "user": postgres.user, "password": "any"}
    load(messages, Loader([str(programs(name) / "target-postgres")], config), tmp_path)
    assert found(PostgresWarehouse(postgres, "mde").query(IN_POSTGRES)) == by_the_docs(messages, name)


def test_in_duckdb(messages: Messages, programs: Programs, tmp_path: Path) -> None:
    name = "target-duckdb"
    config = settings_of(name, path=str(tmp_path / "mde.duckdb"))
    load(messages, Loader([str(programs(name) / name)], config), tmp_path)
    warehouse = through_duckdb(programs(name) / "python", tmp_path, config["path"], "USE mde")
    columns = warehouse.query("SELECT * FROM information_schema.columns WHERE table_schema = 'mde'")
    assert found(columns) == by_the_docs(messages, name)


def test_in_an_emulated_snowflake(messages: Messages, programs: Programs, tmp_path: Path) -> None:
    loader, warehouse = into_snowflake(programs, tmp_path)
    load(messages, loader, tmp_path)
    assert found(warehouse.query(IN_SNOWFLAKE)) == by_the_docs(messages, "target-snowflake")


def test_in_parquet(messages: Messages, programs: Programs, storage: Storage, tmp_path: Path) -> None:
    """As DuckDB reads it."""
    name = "plinxore-target-s3"
    config = settings_of(name, **storage.settings)
    load(messages, Loader([str(programs(name) / "target-s3")], config), tmp_path)
    warehouse = through_parquet(storage, tmp_path)
    tables = ("machines", "missing_kbs", "missing_kbs_checks", "sweeps")
    described = [
        {**row, "table_name": table, "data_type": re.sub(r"STRUCT\(.*\)", "STRUCT", row["column_type"])}
        for table in tables
        for row in warehouse.query(f"DESCRIBE {table}")
    ]
    expected = by_the_docs(messages, name)
    assert found(described) == {table: expected[table] for table in tables}


def written(folder: Path, read: Callable[[Path], Iterable[Mapping[str, Any]]]) -> Types:
    """The types of the values in the files of a folder; a column that is null in all rows has none."""
    types: Types = {}
    for path in (folder / "output").iterdir():
        columns = types.setdefault(re.split(r"[-.]", path.name)[0], {})
        for row in read(path):
            columns.update({name: type(value).__name__ for name, value in row.items() if value is not None})
    return types


def in_order_of(types: Types, order: Types) -> Types:
    """The types of the columns that have values."""
    return {table: {name: kind for name, kind in order[table].items() if name in types[table]} for table in types}


@pytest.mark.parametrize("name", ["target-jsonl", "target-csv"])
def test_in_files(messages: Messages, programs: Programs, tmp_path: Path, name: str) -> None:
    """As Python reads them."""
    (tmp_path / "output").mkdir()
    load(messages, Loader([str(programs(name) / name)], settings_of(name)), tmp_path)

    def read(path: Path) -> list[Any]:
        text = path.read_text()
        return (
            [json.loads(line) for line in text.splitlines()]
            if "jsonl" in name
            else [*csv.DictReader(text.splitlines())]
        )

    types = written(tmp_path, read)
    expected = by_the_docs(messages, name)
    assert types.keys() == expected.keys()
    assert types == in_order_of(types, expected)
    assert {"id", "is_excluded", "last_seen", "os_build", "machine_tags", "ip_addresses"} <= types["machines"].keys()
