"""Random logs: every mart right to the row, however often dbt ran in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.transform.fleets import RandomTenant, keep_first_seen
from tests.transform.marts import assert_true
from tests.transform.truth import Truth
from tests.transform.warehouses import default_deadlines

if TYPE_CHECKING:
    from datetime import datetime

    from tests.transform.truth import Pair
    from tests.transform.warehouses import Warehouse

TENANTS = 20
STAGES = {"duckdb": 3, "postgres": 2}
"""How many incremental builds; the logic is the same SQL, so that one database has it shown in depth."""
BOOKS = ("bod_26_04", "own", "essential_eight")


def test_marts_are_true_after_every_build_and_after_a_first_build_at_the_end(warehouse: Warehouse) -> None:
    """Incremental builds, one after the whole history, and a full refresh: all the same."""
    fleets = [RandomTenant(number, cves=number % 2 == 0, advisories=number % 3 == 0) for number in range(TENANTS)]
    schemas = [fleet.tenant().name for fleet in fleets]
    kept: dict[Pair, datetime] = {}
    for stage in range(STAGES[warehouse.name]):
        for fleet in fleets:
            fleet.pass_nights((fleet.number + stage) % 7 + 1)
            keep_first_seen(kept, fleet.tenant())
        tenants = [fleet.tenant() for fleet in fleets]
        warehouse.load(*tenants)
        book = BOOKS[stage % len(BOOKS)]
        warehouse.build_models(mde_schema=schemas, rule_book=book)
        assert_true(warehouse, Truth(tenants, default_deadlines(), kept, rule_book=book))
    warehouse.build_models("--full-refresh", mde_schema=schemas, rule_book=book)
    assert_true(warehouse, Truth(tenants, default_deadlines(), kept, rule_book=book))
    warehouse.forget_models()
    warehouse.build_models(mde_schema=schemas, rule_book=book)
    assert_true(warehouse, Truth(tenants, default_deadlines(), rule_book=book))
