"""How long dbt takes over the history of a large fleet: the first build, and that of one more night.

    python -m tests.benchmarks.history --machines 10000 --kbs 25 --nights 60

The history is made by the warehouses themselves, straight into the raw tables: every machine lacks so many updates each
night, an update stays for ten to fifty nights, then it is installed and another one is missing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from demo.postgres import postgres
from tests.transform.truth import Tenant
from tests.transform.warehouses import OnDuckDb, OnPostgres, Warehouse

if TYPE_CHECKING:
    from collections.abc import Iterator

PAIRS = """
    SELECT
        machine, night,
        CAST(
            5000000 + slot * 100 + (night + machine * 7 + slot * 13) / (10 + (machine * 31 + slot * 17) % 41) AS VARCHAR
        ) AS kb_id,
        TIMESTAMP '2026-01-01 02:00:00' + night * INTERVAL '1 day' + machine * INTERVAL '1 second' AS checked_at
    FROM generate_series(0, {machines} - 1) AS machines (machine)
    CROSS JOIN generate_series({first_night}, {last_night}) AS nights (night)
    CROSS JOIN generate_series(0, {kbs} - 1) AS slots (slot)
"""
"""The same in PostgreSQL and DuckDB but for the array. A sweep takes a second a machine; its nights begin at two."""
CHECKS = """
    INSERT INTO mde.missing_kbs_checks (machine_id, sweep, checked_at, outcome, missing_kbs, missing_kb_ids)
    SELECT 'machine-' || machine, 1767225600 + night * 86400, checked_at, 'answered', count(*), {array}
    FROM ({pairs}) AS pairs
    GROUP BY machine, night, checked_at
"""
SWEEPS = """
    INSERT INTO mde.sweeps (
        sweep, source, began_at, ended_at, listing, listed_at, machines_listed, machines_asked, machines_answered,
        missing_pairs, is_complete, is_believed, verdict
    )
    SELECT
        1767225600 + night * 86400, 'per_machine', began_at, began_at + {machines} * INTERVAL '1 second',
        1767225600 + night * 86400, began_at, {machines}, {machines}, {machines}, {machines} * {kbs}, true, true,
        'believed'
    FROM (
        SELECT night, TIMESTAMP '2026-01-01 01:00:00' + night * INTERVAL '1 day' AS began_at
        FROM generate_series({first_night}, {last_night}) AS nights (night)
    ) AS sweeps
"""
FORGET = "DELETE FROM mde.missing_kbs; DELETE FROM mde.machines"
MISSING_KBS = """
    INSERT INTO mde.missing_kbs (machine_id, id, name, cve_addressed, checked_at, sweep)
    SELECT
        'machine-' || machine, kb_id, 'Update ' || kb_id, CAST(kb_id AS INTEGER) % 40, max(checked_at),
        1767225600 + max(night) * 86400
    FROM ({pairs}) AS pairs
    GROUP BY machine, kb_id
"""
MACHINES = """
    INSERT INTO mde.machines (id, computer_dns_name, rbac_group_name, onboarding_status, last_seen, listed_at, listing)
    SELECT
        'machine-' || machine, 'machine-' || machine || '.contoso.example', 'Group ' || machine % 20, 'Onboarded',
        TIMESTAMP '2026-01-01 00:00:00' + {last_night} * INTERVAL '1 day',
        TIMESTAMP '2026-01-01 01:00:00' + {last_night} * INTERVAL '1 day',
        1767225600 + {last_night} * 86400
    FROM generate_series(0, {machines} - 1) AS machines (machine)
"""
ARRAYS = {"postgres": "array_agg(kb_id)", "duckdb": "to_json(list(kb_id))"}
DIVISION = {"postgres": "/", "duckdb": "//"}
"""PostgreSQL divides integers to integers, DuckDB does not."""


@contextmanager
def warehouses() -> Iterator[list[Warehouse]]:
    """One of each, empty."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other, postgres() as database:
        yield [OnPostgres(Path(one), database), OnDuckDb(Path(other))]


def add_nights(warehouse: Warehouse, first: int, last: int, machines: int, kbs: int) -> None:
    """Write what the tap would have written in these nights."""

    def pairs(first_night: int) -> str:
        filled = PAIRS.format(machines=machines, kbs=kbs, first_night=first_night, last_night=last)
        return filled.replace(") / (", f") {DIVISION[warehouse.name]} (")

    warehouse.run(
        CHECKS.format(array=ARRAYS[warehouse.name], pairs=pairs(first)),
        SWEEPS.format(machines=machines, kbs=kbs, first_night=first, last_night=last),
        *FORGET.split(";"),
        MISSING_KBS.format(pairs=pairs(1)),
        MACHINES.format(machines=machines, last_night=last),
    )


def build(warehouse: Warehouse) -> dict[str, float]:
    """Seconds of each model, and of all of dbt."""
    began = time.perf_counter()
    done = warehouse.dbt("build", "--exclude-resource-type=test")
    whole = time.perf_counter() - began
    assert done.success, done.exception
    seconds = {result.node.name: result.execution_time for result in getattr(done.result, "results", [])}
    return {**seconds, "dbt in all": whole}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=10_000)
    parser.add_argument("--kbs", type=int, default=25)
    parser.add_argument("--nights", type=int, default=60)
    options = parser.parse_args()
    columns: dict[str, dict[str, float]] = {}
    with warehouses() as both:
        for warehouse in both:
            warehouse.load(Tenant(sweeps=[]))
            add_nights(warehouse, 1, options.nights - 1, options.machines, options.kbs)
            columns[f"{warehouse.name}, first"] = build(warehouse)
            add_nights(warehouse, options.nights, options.nights, options.machines, options.kbs)
            columns[f"{warehouse.name}, last night"] = build(warehouse)
            (counted,) = warehouse.query("SELECT count(*) AS episodes FROM analytics.kb_episodes")
            print(f"{warehouse.name}: {counted['episodes']:,} episodes")  # noqa: T201 - a script
    print(f"| seconds | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")  # noqa: T201 - a script
    slowest = next(iter(columns.values()))
    for name in sorted(slowest, key=lambda name: slowest[name]):
        print(f"| {name} | {' | '.join(f'{column[name]:.1f}' for column in columns.values())} |")  # noqa: T201 - a script


if __name__ == "__main__":
    main()
