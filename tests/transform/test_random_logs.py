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
STAGES = {"duckdb": 4, "postgres": 2}
"""How many incremental builds; the logic is the same SQL, so that one database has it shown in depth."""


def test_marts_are_true_after_every_build_and_after_a_first_build_at_the_end(warehouse: Warehouse) -> None:
    """Incremental builds, one after the whole history, and a full refresh: all the same."""
    fleets = [RandomTenant(number, cves=number % 2 == 0) for number in range(TENANTS)]
    variables = {"mde_schema": [fleet.tenant().name for fleet in fleets]}
    kept: dict[Pair, datetime] = {}
    for stage in range(STAGES[warehouse.name]):
        for fleet in fleets:
            fleet.pass_nights((fleet.number + stage) % 7 + 1)
            keep_first_seen(kept, fleet.tenant())
        tenants = [fleet.tenant() for fleet in fleets]
        warehouse.load(*tenants)
        warehouse.build_models(**variables)
        assert_true(warehouse, Truth(tenants, default_deadlines(), kept))
    warehouse.build_models("--full-refresh", **variables)
    assert_true(warehouse, Truth(tenants, default_deadlines(), kept))
    warehouse.forget_models()
    warehouse.build_models(**variables)
    assert_true(warehouse, Truth(tenants, default_deadlines()))
