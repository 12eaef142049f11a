"""Ask DuckDB: a program for an environment that has it, of the version that the target loads with.

    python duckdb_rows.py DATABASE < STATEMENTS

Writes columns, types and rows of the last statement as JSON; dates and times as text.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import sys

import duckdb


def main(database: str) -> None:
    """All of stdin."""
    with duckdb.connect(database) as connection:
        *before, last = connection.extract_statements(sys.stdin.read())
        for statement in before:
            connection.execute(statement)
        relation = connection.sql(last.query)
        answer = {"columns": relation.columns, "types": [str(each) for each in relation.types]}
        json.dump({**answer, "rows": relation.fetchall()}, sys.stdout, default=str)


if __name__ == "__main__":
    main(sys.argv[1])
