"""What a person reads at the end: numbers by SQL (`sql/`) on the loaded database, as tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg.rows import namedtuple_row
from rich import box
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from psycopg import Connection
    from rich.console import Console

SQL = Path(__file__).parent / "sql"
SHARE_BLOCKS = 10


def prepare(connection: Connection[Any], schema: str) -> None:
    """Make the views that the report and people at psql use, in the schema of the streams."""
    # For whoever connects, so that `SELECT … FROM machines` works in psql as it stands here.
    connection.execute(f"ALTER DATABASE {connection.info.dbname} SET search_path = {schema}")
    connection.execute(f"SET search_path = {schema}")
    connection.execute("CREATE TABLE demo_nights (night integer, day date, sweep bigint)")
    connection.execute((SQL / "views.sql").read_text())


def add_night(connection: Connection[Any], night: int, day: date) -> Any:
    """Note that the newest sweep was this night's, and say how the night went."""
    connection.execute("INSERT INTO demo_nights SELECT %s, %s, max(sweep) FROM missing_kbs_checks", (night, day))
    return query(connection, "nights")[-1]


def query(connection: Connection[Any], name: str) -> list[Any]:
    """The rows of one of the SQL files."""
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute((SQL / f"{name}.sql").read_text()).fetchall()


def show(connection: Connection[Any], console: Console) -> None:
    """Print the whole report."""
    for table in (
        most_missed(query(connection, "most_missed")),
        groups(query(connection, "groups")),
        nights(query(connection, "nights")),
        unanswered(query(connection, "unanswered")),
    ):
        console.print(table)
        console.print()
    counts = [f"{row.machines} {row.onboarding_status}" for row in query(connection, "skipped")]
    told = ", ".join(counts) or "none"
    console.print(f"Not asked (not onboarded): {told}\n", style="dim", markup=False)


def most_missed(rows: Iterable[Any]) -> Table:
    """The updates that most machines lack."""
    table = _table("Updates missing on most machines")
    _columns(table, "Update", "Published", "For", right=("CVEs", "Machines", "Missing since"))
    for row in rows:
        name = (row.name or "(no name yet)").removesuffix(" Security Updates")
        table.add_row(
            row.update,
            escape(name),
            escape(row.products),
            _number(row.cves),
            f"[bold]{row.machines}[/]",
            f"{'≤ ' if row.since_is_known is False else ''}{_day(row.missing_since)}",
        )
    return table


def groups(rows: Iterable[Any]) -> Table:
    """How each device group is doing."""
    table = _table("Compliance by device group")
    _columns(table, "Device group", right=("Machines", "Asked"))
    _columns(table, "Fully patched", right=("Mean missing",))
    for row in rows:
        total = row.device_group == "all"
        if total:
            table.add_section()
        table.add_row(
            escape(row.device_group),
            str(row.machines),
            str(row.asked),
            _share(row.patched_share),
            "" if row.mean_missing is None else f"{row.mean_missing:.1f}",
            style="bold" if total else None,
        )
    return table


def nights(rows: Iterable[Any]) -> Table:
    """How it went from night to night."""
    table = _table("From night to night: updates missing, summed over machines")
    _columns(table, "Night", right=("Listed", "Asked", "Missing", "New", "Installed", "Left"))
    table.caption = "Left: missing on machines that were no longer listed."
    for row in rows:
        table.add_row(
            f"{row.night}  {_day(row.day)}",
            str(row.listed),
            str(row.asked),
            f"[bold]{_number(row.open)}[/]",
            _signed("+", row.opened, "yellow"),
            _signed("−", row.installed, "green"),  # noqa: RUF001 - a minus sign
            _signed("−", row.left_with_machine, "dim"),  # noqa: RUF001 - a minus sign
        )
    return table


def unanswered(rows: Iterable[Any]) -> Table:
    """Machines that nobody could ask last night, and why."""
    table = _table("Machines nobody could ask last night")
    _columns(table, "Machine", "Device group", "Why", right=("Last answer",))
    reasons = {"not_found": "404, again and again", "failed": "no answer, again and again"}
    for row in rows:
        why = reasons.get(row.outcome, row.outcome)
        table.add_row(escape(row.machine), escape(row.device_group), why, _day(row.last_answered))
    return table


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold cyan",
        caption_justify="left",
        caption_style="dim",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )


def _columns(table: Table, *left: str, right: tuple[str, ...] = ()) -> None:
    for name in left:
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _signed(sign: str, value: int | None, style: str) -> str:
    return "" if value is None else f"[{style}]{sign}{value:,}[/]" if value else "0"


def _day(value: date | None) -> str:
    return "never" if value is None else f"{value:%d %b}"


def _share(share: float | None) -> str:
    if share is None:
        return "unknown"
    filled = round(share * SHARE_BLOCKS)
    return f"{share:4.0%} [green]{'█' * filled}[/][dim]{'░' * (SHARE_BLOCKS - filled)}[/]"
