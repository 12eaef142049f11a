"""What a person reads at the terminal: the marts as tables."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from demo.marts import BOOKS, REASONS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from rich.console import Console

    from demo.marts import Marts

SHARE_BLOCKS = 10
#: Rows of a table.
SHOWN = 8


COUNTED = {"not_onboarded", "excluded", "silent", "quiet"}
"""Reasons of which only the number is told: nobody is to look after the machines tomorrow."""


def show(marts: Marts, console: Console) -> None:
    """Print the whole report."""
    gaps = marts.rows("gaps")
    for table in (
        to_install(marts.rows("installs")[:SHOWN]),
        rule_books(marts.rows("rule_books")),
        most_missed(row for row in marts.rows("updates") if row.by_machines <= SHOWN),
        groups(row for row in marts.rows("segments") if row.segment_kind in {"group", "all"}),
        nights(marts.rows("days")[-SHOWN:]),
        unanswered(row for row in gaps if row.reason not in COUNTED),
    ):
        console.print(table)
        console.print()
    others = Counter(row.reason for row in gaps if row.reason in COUNTED)
    told = ", ".join(f"{count} {REASONS[reason]}" for reason, count in sorted(others.items())) or "none"
    console.print(f"Besides: {told}\n", style="dim", markup=False, soft_wrap=True)


def to_install(rows: Iterable[Any]) -> Table:
    """What to install first, and by when."""
    table = _table("What to install")
    _columns(table, "Update", right=("Released", "Machines", "Closes", "CVEs", "Attacked"))
    _columns(table, "Restart", right=("Due",))
    for row in rows:
        table.add_row(
            f"KB{escape(row.kb_id)}",
            "" if row.released_on is None else f"{'' if row.released_on_is_exact else '≈ '}{_day(row.released_on)}",
            f"[bold]{row.machines}[/]",
            f"{row.closes_kbs}{'*' if row.is_assumed else ''}",
            _number(row.cves),
            f"[red]{row.attacked_cves}[/]" if row.attacked_cves else _number(row.attacked_cves),
            row.restart_required or "",
            "" if row.due_at is None else f"[red]{_day(row.due_at)}[/]" if row.overdue_machines else _day(row.due_at),
        )
    return table


def rule_books(rows: Iterable[Any]) -> Table:
    """What each rule book calls overdue."""
    table = _table("Overdue by rule book; a due date is not compliance")
    _columns(table, "Rule book", right=("Missing with a date", "Overdue", "On machines"))
    for row in rows:
        name = BOOKS.get(row.rule_book, row.rule_book)
        table.add_row(escape(name), _number(row.due_pairs), _number(row.overdue_pairs), _number(row.overdue_machines))
    return table


def most_missed(rows: Iterable[Any]) -> Table:
    """The updates that most machines lack."""
    table = _table("Updates missing on most machines")
    _columns(table, "Update", "Published", right=("CVEs", "Machines", "Missing since"))
    for row in rows:
        name = (row.name or "(no name yet)").removesuffix(" Security Updates")
        table.add_row(
            f"KB{escape(row.kb_id)}",
            escape(name),
            _number(row.cve_addressed),
            f"[bold]{row.machines_missing}[/]",
            f"{'' if row.since_is_known else '≤ '}{_day(row.first_missed_at)}",
        )
    return table


def groups(rows: Iterable[Any]) -> Table:
    """How each device group is doing."""
    table = _table("Compliance by device group, of active machines")
    _columns(table, "Device group", right=("Machines",))
    _columns(table, "Fully patched", right=("Mean missing", "Overdue"))
    for row in sorted(rows, key=lambda row: row.segment_kind == "all"):
        total = row.segment_kind == "all"
        if total:
            table.add_section()
        table.add_row(
            escape(row.segment),
            str(row.machines),
            _share(row.patched_share),
            "" if row.mean_missing is None else f"{row.mean_missing:.1f}",
            _number(row.overdue_pairs),
            style="bold" if total else None,
        )
    return table


def nights(rows: Iterable[Any]) -> Table:
    """How it went from night to night."""
    table = _table(f"Updates missing in the last {SHOWN} nights")
    _columns(table, "Night", right=("Asked", "Answered", "Missing", "New", "Installed"))
    for row in rows:
        table.add_row(
            _day(row.day),
            str(row.machines_asked),
            str(row.machines_answered),
            f"[bold]{_number(row.open_pairs)}[/]",
            _signed("+", row.opened_pairs, "yellow"),
            _signed("\N{MINUS SIGN}", row.installed_pairs, "green"),
        )
    return table


def unanswered(rows: Iterable[Any]) -> Table:
    """Machines that nobody could ask last night, and why."""
    table = _table("Machines nobody could ask last night")
    _columns(table, "Machine", "Device group", "Why", right=("Answered",))
    for row in rows:
        table.add_row(escape(row.machine), escape(row.device_group), REASONS[row.reason], _day(row.last_answered_at))
    return table


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold cyan",
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


def _signed(sign: str, value: int, style: str) -> str:
    return f"[{style}]{sign}{value:,}[/]" if value else "0"


def _day(value: date | None) -> str:
    return "never" if value is None else f"{value:%d %b}"


def _share(share: float | None) -> str:
    if share is None:
        return "unknown"
    filled = round(share * SHARE_BLOCKS)
    return f"{share:4.0%} [green]{'█' * filled}[/][dim]{'░' * (SHARE_BLOCKS - filled)}[/]"
