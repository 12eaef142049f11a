"""target-snowflake into an emulator, and questions to that: a program for an environment that has both.

    python fake_snowflake.py FOLDER load --config FILE < MESSAGES
    python fake_snowflake.py FOLDER query SCHEMA < STATEMENT

The emulator keeps its databases in the folder. It knows neither PUT nor a SELECT from a stage, so the lines of a batch
come into a table by INSERT; what the target makes of them, and all else that it does, is its own SQL.
"""

# mypy: disable-error-code="import-not-found,import-untyped,misc"

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import fakesnow
import snowflake.connector
from snowflake.connector.constants import FIELD_ID_TO_NAME
from sqlalchemy import text
from target_snowflake.connector import SnowflakeConnector
from target_snowflake.sinks import SnowflakeSink
from target_snowflake.target import TargetSnowflake

DATABASE = "SECURITY"


class Connector(SnowflakeConnector):
    """The target's, but for the stage."""

    staged: dict[str, list[str]]

    def put_batches_to_stage(self, sync_id: str, files: list[str]) -> None:
        """Keep the lines of a batch."""
        documents = [gzip.decompress(Path(urlparse(file).path).read_bytes()).decode() for file in files]
        self.staged = {sync_id: [line for document in documents for line in document.strip().split("\n")]}

    def merge_from_stage(self, *, sync_id: str, file_format: str, full_table_name: Any, **options: Any) -> int:
        """Run the target's MERGE in two steps, its SELECT over the lines and its MERGE over that."""
        statement, _ = self._get_merge_from_stage_statement(
            sync_id=sync_id, file_format=file_format, full_table_name=full_table_name, **options
        )
        merge, _, rest = str(statement).partition(" using (select ")
        select, _, condition = rest.partition(") s on ")
        stage = f"'@~/target-snowflake/{sync_id}'(file_format => {file_format})"
        assert stage in select
        select = select.replace(stage, "staged").replace("$1:", "line:").replace("SEQ8()", "position")
        lines = self.staged[sync_id]
        values = ", ".join(f"(:n{number}, :l{number})" for number in range(len(lines)))
        parameters = {f"n{number}": number for number in range(len(lines))} | {
            f"l{number}": line for number, line in enumerate(lines)
        }
        with self._connect() as connection, connection.begin():
            # The emulator makes tables of its own for a MERGE, without saying where.
            connection.execute(text(f"use schema {DATABASE}.{full_table_name.schema}"))
            connection.execute(text("create or replace table staged (position integer, line variant)"))
            connection.execute(
                text(f"insert into staged select column1, parse_json(column2) from values {values}"),  # noqa: S608 - ours
                parameters,
            )
            for sql in (
                f"create or replace table selected as select {select}",
                f"{merge} using selected s on {condition}",
                "drop table staged",
                "drop table selected",
            ):
                connection.execute(text(sql.replace(":", r"\:")))
        return len(lines)

    def remove_staged_files(self, sync_id: str) -> None:
        """Forget them."""
        del self.staged[sync_id]


class Sink(SnowflakeSink):
    """The target's, with that connector."""

    connector_class = Connector


class Target(TargetSnowflake):
    """The target with that sink; one table after the other, since the emulator takes one statement at a time."""

    default_sink_class = Sink
    max_parallelism = 1


def query(schema: str) -> None:
    """Columns, types and rows as JSON; dates and times as text."""
    with snowflake.connector.connect(database=DATABASE, schema=schema) as connection, connection.cursor() as cursor:
        cursor.execute(sys.stdin.read())
        columns = {column.name: FIELD_ID_TO_NAME[column.type_code] for column in cursor.description}
        answer = {"columns": list(columns), "types": list(columns.values()), "rows": cursor.fetchall()}
        json.dump(answer, sys.stdout, default=str)


if __name__ == "__main__":
    _, folder, command, *sys.argv[1:] = sys.argv
    with fakesnow.patch(db_path=folder, nop_regexes=["^create or replace file format", "^drop file format"]):
        if command == "load":
            Target.cli()
        else:
            query(sys.argv[1])
