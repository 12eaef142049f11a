"""`make demo`: five nights of a simulated tenant, loaded by the real tap, and a report."""

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

from demo import report
from demo.pipeline import PREFIX, SCHEMA, Pipeline, PipelineError
from demo.postgres import PostgresError, postgres
from tap_mde_kbs.simulator import Fault, Fleet, Simulator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demo.postgres import Postgres

MACHINES = 250
SEED = 7
#: Days since the first night; the Patch Tuesdays of January and February 2026 lie between.
NIGHTS = (0, 10, 20, 31, 42)
#: The simulated tenant has no quota; with the real one's, a night would take minutes.
UNHURRIED = {f"{PREFIX}REQUESTS_PER_{period}": "1000000" for period in ("MINUTE", "HOUR")}
EXAMPLE = """\
SELECT computer_dns_name, id, name, cve_addressed
FROM missing_now ORDER BY cve_addressed DESC LIMIT 20;"""


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
    wait = not parser.parse_args(arguments).no_wait and sys.stdin.isatty() and sys.stdout.isatty()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names have letters that not every terminal has
    console = Console(highlight=False)
    try:
        with tempfile.TemporaryDirectory(prefix="tap-mde-kbs-demo-") as folder:
            show(Path(folder), console, wait=wait)
    except (PostgresError, PipelineError) as error:
        Console(stderr=True, highlight=False).print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped; all of it is gone.")
        return 130
    return 0


def show(folder: Path, console: Console, *, wait: bool) -> None:
    """Start it all, load night by night, report, and stop it all again."""
    started = time.monotonic()
    fleet = Fleet(MACHINES, SEED)
    with postgres() as database, Simulator(fleet) as simulator:
        console.print(
            f"[bold]{MACHINES} simulated machines, {len(NIGHTS)} nights, each night:[/] tap-mde-kbs | target-postgres\n"
        )
        pipeline = Pipeline(folder, {**simulator.environment, **UNHURRIED}, database)
        with psycopg.connect(database.url, autocommit=True) as connection:
            for night, day in enumerate(NIGHTS, 1):
                fleet.pass_days(day - fleet.day)
                simulator.faults.clear()
                simulator.faults.add(*faults_of(night, fleet))
                seconds = pipeline.run()
                if night == 1:
                    report.prepare(connection, SCHEMA)
                row = report.add_night(connection, night, fleet.start + timedelta(days=day))
                console.print(
                    f"Night {night}, {row.day:%d %b %Y}: {row.answered} of {row.listed} machines "
                    f"answered, {row.open:,} updates missing [dim]({seconds:.1f} s)[/]"
                )
            console.print()
            report.show(connection, console)
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
    console.print("\nStopped; all of it is gone.")


if __name__ == "__main__":
    sys.exit(main())
