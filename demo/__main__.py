"""`make demo`: weeks of a simulated tenant, loaded by the real tap, the marts by dbt, and a report."""

from __future__ import annotations

import argparse
import contextlib
import io
import signal
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from rich.console import Console

from demo import marts, page, report, transform
from demo.pipeline import PREFIX, SCHEMA, Pipeline, PipelineError
from demo.postgres import PostgresError, postgres
from mde_simulator import Fault, Fleet, Simulator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from demo.postgres import Postgres

MACHINES = 250
SEED = 7
#: Days since the first night. 8, 36 and 64 are the Patch Tuesdays of January to March 2026: most happens just after.
NIGHTS = (0, 4, 8, 12, 22, 29, 36, 40, 50, 57, 64, 68)
#: The simulated tenant has no quota; with the real one's, a night would take minutes.
UNHURRIED = {f"{PREFIX}REQUESTS_PER_{period}": "1000000" for period in ("MINUTE", "HOUR")}
#: Where the page is put; git ignores it, and `make clean` removes it.
PAGE = Path(__file__).parents[1] / ".demo" / "report.html"
TENANT = "Simulated tenant"
#: The advisory feeds that are read after each night's sweep, and how many scores EPSS has.
FEEDS, SCORES = ("msrc", "kev", "epss"), 5_000
EXAMPLE = """\
SELECT computer_dns_name, missing_kbs, updates_to_install, overdue_kbs
FROM machine_compliance ORDER BY overdue_kbs DESC NULLS LAST LIMIT 20;"""
NIGHT = """\
SELECT
    count(*) FILTER (WHERE outcome <> 'skipped') AS asked,
    count(*) FILTER (WHERE outcome = 'answered') AS answered,
    sum(missing_kbs) AS missing
FROM missing_kbs_checks
WHERE sweep = (SELECT max(sweep) FROM missing_kbs_checks)"""


def faults_of(night: int, fleet: Fleet) -> list[Fault]:
    """What goes wrong in a night, counted from 1: a little now and then, as with the real API."""
    machines = fleet.onboarded()
    return {
        2: [Fault("throttled", times=1)],
        len(NIGHTS): [Fault("not_found", machine=machines[number]) for number in (40, 120)],
    }.get(night, [])


def main(arguments: Sequence[str] | None = None) -> int:
    """Show it; the exit status says whether it worked."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--no-wait", action="store_true", help="end at once after the report")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to put the page: %(default)s")
    options = parser.parse_args(arguments)
    wait = not options.no_wait and sys.stdin.isatty() and sys.stdout.isatty()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names have letters that not every terminal has
    console = Console(highlight=False)
    try:
        with tempfile.TemporaryDirectory(prefix="tap-mde-kbs-demo-") as folder:
            show(Path(folder), options.page.resolve(), console, wait=wait)
    except (PostgresError, PipelineError) as error:
        Console(stderr=True, highlight=False).print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped; all of it is gone.")
        return 130
    return 0


def expose(fleet: Fleet) -> None:
    """Some servers can be reached from the internet: people say so by a tag, which rule books ask for."""
    servers = [id_ for id_ in fleet.onboarded() if "Server" in str(fleet.machine(id_)["osPlatform"])]
    for id_ in servers[::4]:
        fleet.change(id_, machineTags=["internet-facing"])


def moment_of(night: int, fleet: Fleet) -> datetime:
    """When a night's run begins: a little later each time, so that no deadline ends in the middle of a run."""
    return fleet.now + timedelta(minutes=5 * night)


def show(folder: Path, page_file: Path, console: Console, *, wait: bool) -> None:
    """Start it all, load night by night, report, and stop it all again."""
    started = time.monotonic()
    fleet = Fleet(MACHINES, SEED)
    expose(fleet)
    with postgres() as database, Simulator(fleet, advisory_feeds=FEEDS, epss_rows=SCORES) as simulator:
        console.print(
            f"[bold]{MACHINES} simulated machines, {len(NIGHTS)} nights in ten weeks, each night:[/]"
            " tap-mde-kbs | target-postgres\n"
        )
        pipeline = Pipeline(folder, {**simulator.environment, **UNHURRIED}, database)
        with psycopg.connect(database.url, autocommit=True) as connection:
            # For whoever connects, so that `SELECT … FROM machines` works in psql as it stands here.
            place = f"search_path = {marts.SCHEMA}, {SCHEMA}"
            connection.execute(f"ALTER DATABASE {database.database} SET {place}".encode())
            connection.execute(f"SET {place}".encode())
            for night, day in enumerate(NIGHTS, 1):
                fleet.pass_days(day - fleet.day)
                simulator.faults.clear()
                simulator.faults.add(*faults_of(night, fleet))
                seconds = pipeline.run(moment_of(night, fleet))
                asked, answered, missing = connection.execute(NIGHT).fetchone() or (0, 0, 0)
                console.print(
                    f"Night {night}, {fleet.now:%d %b %Y}: {answered} of {asked} machines "
                    f"answered, {missing:,} updates missing [dim]({seconds:.1f} s)[/]",
                    soft_wrap=True,
                )
            seconds = transform.build(database, folder)
            console.print(f"dbt build: the marts, in the schema {marts.SCHEMA} [dim]({seconds:.1f} s)[/]\n")
            answers = marts.Marts(connection)
            report.show(answers, console)
            page_file.parent.mkdir(parents=True, exist_ok=True)
            page_file.write_text(page.render(answers, TENANT), encoding="utf-8")
        console.print(f"The same and more as a page: [bold]{page_file.as_uri()}[/]", soft_wrap=True)
        console.print(f"[dim]{time.monotonic() - started:.0f} seconds in all.[/]")
        if wait:
            wait_for_people(database, console)


def wait_for_people(database: Postgres, console: Console) -> None:
    """Leave the database to them until Ctrl-C."""
    opened = database.psql_command or f"any PostgreSQL client at {database.url}"
    console.print(f"\nGo on with SQL, in another terminal:\n\n  [bold]{opened}[/]\n")
    console.print(EXAMPLE, soft_wrap=True)
    console.print("\nCtrl-C to stop and clean up.", style="bold")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    console.print("\nStopped; all of it is gone but the page.")


if __name__ == "__main__":
    sys.exit(main())
