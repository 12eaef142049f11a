"""How long dbt takes to say what to install: who replaces whom in five years, and the least set of each machine.

    python -m tests.benchmarks.installs --machines 100000

Every machine lacks 25 updates, five of each of five products; which five differs. The feeds know 2,400 updates
of 40 products over 60 months, as many as MSRC's documents of five years; four of five name the one before.
"""

from __future__ import annotations

import argparse
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from tests.benchmarks.history import ARRAYS, build, warehouses
from tests.transform.advisories import Advisories, Epss, Kev, MsrcCve, MsrcKb, MsrcKbCve
from tests.transform.truth import Tenant

if TYPE_CHECKING:
    from tests.transform.warehouses import Warehouse

PRODUCTS, WINDOWS, MONTHS, CVES = 40, 15, 60, 15
"""The first of the products are versions of Windows; each update closes so many CVEs."""
READ_AT = datetime(2026, 1, 1)  # noqa: DTZ001 - UTC, as warehouses keep it
MODELS = ("int_kb_facts", "int_kb_links", "int_kb_replacements", "int_machine_sets", "int_set_installs", "int_installs",
          "updates_to_install", "pair_deadlines")  # fmt: skip
PAIRS = """
    SELECT
        machine,
        CAST(5000000 + product * 100 + {months} - 1 - place * (1 + (machine * (31 + product)) % 7) - machine % 3
            AS VARCHAR) AS kb_id
    FROM (
        SELECT
            machine, place,
            CASE kind WHEN 0 THEN machine % {windows} ELSE {windows} + (kind - 1) * 5 + machine % 5 END AS product
        FROM generate_series(0, {machines} - 1) AS machines (machine)
        CROSS JOIN generate_series(0, 4) AS kinds (kind)
        CROSS JOIN generate_series(0, 4) AS places (place)
    ) AS chosen
"""
CHECKS = """
    INSERT INTO mde.missing_kbs_checks (machine_id, sweep, checked_at, outcome, missing_kbs, missing_kb_ids)
    SELECT 'machine-' || machine, 1767225600, TIMESTAMP '2026-01-01 02:00:00', 'answered', count(*), {array}
    FROM ({pairs}) AS pairs
    GROUP BY machine
"""
MISSING_KBS = """
    INSERT INTO mde.missing_kbs (machine_id, id, name, cve_addressed, checked_at)
    SELECT 'machine-' || machine, kb_id, 'Update ' || kb_id, 15, TIMESTAMP '2026-01-01 02:00:00'
    FROM ({pairs}) AS pairs
"""
MACHINES = """
    INSERT INTO mde.machines (id, onboarding_status, last_seen, listed_at)
    SELECT 'machine-' || machine, 'Onboarded', TIMESTAMP '2026-01-01 00:00:00', TIMESTAMP '2026-01-01 01:00:00'
    FROM generate_series(0, {machines} - 1) AS machines (machine)
"""


def feeds() -> Advisories:
    """Five years of them."""
    months = [date(2021 + number // 12, number % 12 + 1, 1) for number in range(MONTHS)]
    kbs, closing, said = [], [], []
    for number, month in enumerate(months):
        document_id, cves = f"{month:%Y-%b}", [f"CVE-{month.year}-{number * 100 + n}" for n in range(CVES)]
        said += [MsrcCve(cve_id, document_id, READ_AT, severity="Important", exploited=False) for cve_id in cves]
        for product in range(PRODUCTS):
            kb_id = 5_000_000 + product * 100 + number
            name = f"Windows 11 Version {product}" if product < WINDOWS else f"Microsoft Office {product}"
            before = (str(kb_id - 1),) if number and kb_id % 5 else ()
            kbs.append(
                MsrcKb(
                    str(kb_id),
                    document_id,
                    month,
                    READ_AT,
                    cves=CVES,
                    published_on=month + timedelta(days=9),
                    supersedes=before,
                    product_ids=(f"{product}",),
                    products=(name,),
                )
            )
            closing += [MsrcKbCve(str(kb_id), cve_id, document_id, READ_AT) for cve_id in cves]
    known = [row.id for row in said]
    kev = tuple(Kev(cve_id, READ_AT, added_on=months[-1]) for cve_id in known[::10])
    epss = tuple(Epss(cve_id, 0.2, READ_AT) for cve_id in known[::3])
    return Advisories(tuple(kbs), tuple(closing), tuple(said), kev, epss)


def fill(warehouse: Warehouse, machines: int) -> None:
    """Write what the tap would have written."""
    warehouse.load(Tenant(advisories=feeds()))
    pairs = PAIRS.format(machines=machines, months=MONTHS, windows=WINDOWS)

    warehouse.run(
        CHECKS.format(array=ARRAYS[warehouse.name], pairs=pairs),
        MISSING_KBS.format(pairs=pairs),
        MACHINES.format(machines=machines),
    )


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=100_000)
    options = parser.parse_args()
    columns: dict[str, dict[str, float]] = {}
    with warehouses() as both:
        for warehouse in both:
            fill(warehouse, options.machines)
            columns[warehouse.name] = build(warehouse)
            counted = warehouse.query(
                "SELECT count(*) AS installs, sum(closes_kbs) AS closed FROM analytics.updates_to_install"
            )
            print(f"{warehouse.name}: {counted}")  # noqa: T201 - a script
    print(f"| seconds | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")  # noqa: T201 - a script
    for name in (*MODELS, *sorted(set(columns["postgres"]) - set(MODELS), key=lambda name: -columns["postgres"][name])):
        print(f"| {name} | {' | '.join(f'{column[name]:.1f}' for column in columns.values())} |")  # noqa: T201 - a script


if __name__ == "__main__":
    main()
