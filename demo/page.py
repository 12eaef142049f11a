"""`report.html`: the marts as one page that needs nothing else, for a screen, a phone or paper.

    python -m demo.page --database-url postgresql://user@host/database --output report.html

The template is `templates/report.html.j2`; what is computed is computed in `sql/`, over the marts.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from psycopg.conninfo import make_conninfo

from demo.chart import Days, Values, area, line
from demo.marts import BOOKS, REASONS, SCHEMA, Marts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, datetime

TEMPLATES = Path(__file__).parent / "templates"
TENANT = "Microsoft Defender for Endpoint"
#: What stands where there is no figure, and before a negative one.
NONE, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
#: Rows of a list; the rest is counted.
SHOWN = 8
#: What the newest figures are compared with.
WEEKS_AGO = timedelta(weeks=4)
#: The settings of transform/profiles.yml, by libpq's names for them.
PLACE = {"host": "PG_HOST", "port": "PG_PORT", "user": "PG_USER", "password": "PG_PASSWORD", "dbname": "PG_DATABASE"}
#: Kinds of segments, in the page's order.
KINDS = {
    "group": "Device group",
    "platform": "Platform",
    "tag": "Tag",
    "risk": "Risk score",
    "exposure": "Exposure level",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page of a warehouse."""
    parser = argparse.ArgumentParser(prog="python -m demo.page", description="Write the marts as a page.")
    parser.add_argument("--database-url", default="", help="a PostgreSQL; without it $PG_HOST, $PG_USER, … say which")
    parser.add_argument("--schema", default=os.environ.get("DBT_SCHEMA", SCHEMA), help="of the marts: %(default)s")
    parser.add_argument("--tenant", default=TENANT, help="the line above the title: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="the file: %(default)s")
    options = parser.parse_args(arguments)
    place = {name: os.environ[variable] for name, variable in PLACE.items() if os.environ.get(variable)}
    try:
        with psycopg.connect(options.database_url or make_conninfo(**place)) as connection:
            page = render(Marts(connection, options.schema), options.tenant)
    except psycopg.errors.UndefinedTable:
        return fail(f"No marts in the schema {options.schema}: run dbt build first, or name theirs by --schema.")
    except psycopg.Error as error:
        return fail(str(error).strip())
    options.output.write_text(page, encoding="utf-8")
    return 0


def fail(reason: str) -> int:
    """Say why, and fail."""
    sys.stderr.write(f"{reason}\n")
    return 1


def render(marts: Marts, tenant: str = TENANT) -> str:
    """The page, as HTML."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(
        number=number, share=share, days_of=days_of, length_of=length, day=day, month=month, web=web
    )
    days = marts.rows("days")
    segments = {kind: list(rows) for kind, rows in groupby(marts.rows("segments"), lambda row: row.segment_kind)}
    installs = {kind: list(rows) for kind, rows in groupby(marts.rows("time_to_install"), lambda row: row.segment_kind)}
    gaps = {reason: list(rows) for reason, rows in groupby(marts.rows("gaps"), lambda row: row.reason)}
    updates = marts.rows("updates")
    installing = marts.rows("installs")
    return environment.get_template("report.html.j2").render(
        tenant=tenant,
        headline=marts.row("headline"),
        to_install=marts.row("to_install"),
        installing=installing,
        rule_books=marts.rows("rule_books"),
        books=BOOKS,
        days=days,
        before=next((row for row in reversed(days) if row.day <= days[-1].day - WEEKS_AGO), None),
        weeks=Weeks.of(days, [row.day for row in marts.rows("patch_tuesdays")]) if days else None,
        updates={
            "machines": [row for row in updates if row.by_machines <= SHOWN],
            "cves": sorted((row for row in updates if row.by_cves <= SHOWN), key=lambda row: row.by_cves),
        },
        ageing=marts.rows("ageing"),
        behind=marts.rows("behind"),
        installs=installs,
        segments={kind: (title, segments.get(kind, [])) for kind, title in KINDS.items()},
        gaps=gaps,
        reasons=REASONS,
        shown=SHOWN,
    )


@dataclass(frozen=True)
class Mark:
    """Something at a place, in percent, perhaps with what is to be read there."""

    at: float
    text: str = ""


@dataclass(frozen=True)
class Bar:
    """A day's bar: its left edge, its top, its height."""

    left: float
    top: float
    height: float


@dataclass(frozen=True)
class Curve:
    """A chart of one value: its axis, its path, and where that ends."""

    ticks: list[Mark]
    line: str
    area: str
    end: tuple[float, float]

    @classmethod
    def of(cls, axis: Days, values: Values, points: Sequence[tuple[date, float]], *, shares: bool) -> Curve:
        """The curve through values by day."""
        drawn = [(axis.at(day_), values.at(value)) for day_, value in points]
        ticks = [Mark(values.at(tick), share(tick) if shares else number(tick)) for tick in values.ticks]
        return cls(ticks, line(drawn), area(drawn), drawn[-1] if drawn else (0, 0))


@dataclass(frozen=True)
class Weeks:
    """Three charts over the same days."""

    labels: list[Mark]
    tuesdays: list[Mark]
    patched: Curve
    pairs: Curve
    ticks: list[Mark]
    bar_width: float
    opened: list[Bar]
    installed: list[Bar]

    @classmethod
    def of(cls, rows: Sequence[Any], tuesdays: Sequence[date]) -> Weeks:
        """The charts of `days.sql`."""
        axis = Days([row.day for row in rows])
        # The first answers open all that there was before: that would dwarf every day since.
        changes = rows[1:] if len(rows) > 1 else rows
        values = Values(max(row.opened_pairs for row in changes), -max(row.installed_pairs for row in changes))
        half = axis.bar / 2

        def bar(row: Any, value: int) -> Bar:
            low, high = sorted((values.at(0), values.at(value)))
            return Bar(axis.at(row.day) - half, 100 - high, high - low)

        return cls(
            labels=[Mark(axis.at(day_), f"{day_.day} {day_:%b}") for day_ in axis.labels(tuesdays)],
            tuesdays=[Mark(axis.at(day_)) for day_ in tuesdays],
            patched=Curve.of(
                axis,
                Values(max(row.patched_share or 0 for row in rows), whole=False),
                [(row.day, row.patched_share) for row in rows if row.patched_share is not None],
                shares=True,
            ),
            pairs=Curve.of(
                axis,
                Values(max(row.open_pairs for row in rows)),
                [(row.day, row.open_pairs) for row in rows],
                shares=False,
            ),
            ticks=[Mark(values.at(tick), signed(tick)) for tick in values.ticks],
            bar_width=axis.bar,
            opened=[bar(row, row.opened_pairs) for row in changes],
            installed=[bar(row, -row.installed_pairs) for row in changes],
        )


def number(value: float | None) -> str:
    """A count, or a mean to one decimal."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def signed(value: float) -> str:
    """A change."""
    return f"{'+' if value > 0 else MINUS if value else ''}{number(abs(value))}"


def share(value: float | None) -> str:
    """Percent; not "100%" before it is all, nor "0%" while there is any."""
    if value is None:
        return NONE
    percent = round(float(value) * 100)
    return f"{min(max(percent, 1), 99) if 0 < value < 1 else percent}%"


def days_of(value: float | None) -> str:
    """A number of days."""
    return NONE if value is None else f"{value:.1f}"


def length(value: float | None) -> str:
    """The same with its unit."""
    return NONE if value is None else f"{value:.1f} days"


def day(value: date | datetime | None, now: datetime | None = None) -> str:
    """A date; without its year if it is this one."""
    if value is None:
        return "never"
    return f"{value.day} {value:%b}" if now and value.year == now.year else f"{value.day} {value:%b %Y}"


def month(value: str) -> str:
    """A month, from "2026-01" or a date's text."""
    names = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    year, number_ = str(value).split("-")[:2]
    return f"{names[int(number_) - 1]} {year}"


def web(url: str | None) -> str:
    """A link's target, if it is one: what comes over the wire might be a script."""
    return url if url and url.startswith("https://") else ""


if __name__ == "__main__":
    sys.exit(main())
