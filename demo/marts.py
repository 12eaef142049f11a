"""The marts, as report and page read them: one query of `sql/` for each question, numbers by name.

Knows no output: `report.py` writes for the terminal, `page.py` for the browser.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg.rows import namedtuple_row

if TYPE_CHECKING:
    from psycopg import Connection

SQL = Path(__file__).parent / "sql"
#: Where dbt puts the marts, unless DBT_SCHEMA says otherwise.
SCHEMA = "analytics"
#: Why a machine is in `coverage_gaps`, in words.
REASONS = {
    "never_asked": "never asked yet",
    "not_onboarded": "not onboarded",
    "excluded": "excluded from vulnerability management",
    "silent": "silent for a month or more",
    "not_found": "404, again and again",
    "failed": "no answer, again and again",
    "not_in_export": "not in the export",
    "quiet": "quiet for a week or more",
}
#: Rule books, in words; another one is called as it is.
BOOKS = {
    "own": "Our own deadlines",
    "bod_26_04": "CISA BOD 26-04",
    "essential_eight": "Essential Eight",
}


@dataclass(frozen=True)
class Marts:
    """The marts of one warehouse.

    Args:
        connection: To the PostgreSQL that holds them.
        schema: Theirs.
    """

    connection: Connection[Any]
    schema: str = SCHEMA

    def rows(self, name: str) -> list[Any]:
        """The rows that a query of `sql/` gives."""
        with self.connection.cursor(row_factory=namedtuple_row) as cursor:
            cursor.execute("SELECT set_config('search_path', %s, false)", (self.schema,))
            return cursor.execute((SQL / f"{name}.sql").read_bytes()).fetchall()

    def row(self, name: str) -> Any:
        """The one row that it gives."""
        (row,) = self.rows(name)
        return row
