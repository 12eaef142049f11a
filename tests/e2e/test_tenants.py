"""Two tenants in one database, in a schema each or in the same tables: a run for one leaves the other's rows alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tap_mde_kbs.simulator import Fleet
from tests import readme
from tests.e2e.pipeline import Pipeline, postgres_loader
from tests.e2e.warehouse import Key, PostgresWarehouse, pairs, true_missing_kbs

if TYPE_CHECKING:
    from pathlib import Path

    from demo.postgres import Postgres
    from tap_mde_kbs.simulator import Simulator
    from tests.conftest import StartSimulator
    from tests.e2e.conftest import Connect

STREAMS = ("machines", "missing_kbs", "missing_kbs_checks")
MACHINES = {"contoso": 40, "fabrikam": 50}


@pytest.fixture
def tenants(simulate: StartSimulator) -> dict[str, Simulator]:
    """Two tenants, by name."""
    return {name: simulate(Fleet(machines, seed=machines)) for name, machines in MACHINES.items()}


def rows(warehouse: PostgresWarehouse, condition: str = "true") -> dict[str, set[str]]:
    """Every row of each table, to the last column."""
    return {
        table: {repr(row) for row in warehouse.query(f"SELECT * FROM {table} WHERE {condition}")}  # noqa: S608 - ours
        for table in STREAMS
    }


def test_with_a_schema_each_a_run_for_one_leaves_the_other_as_it_was(
    tenants: dict[str, Simulator], connect: Connect
) -> None:
    """Six weeks later, with updates installed in both."""
    (ours, our_tables), (theirs, their_tables) = (connect(simulator) for simulator in tenants.values())
    ours.run_whole()
    theirs.run_whole()
    for simulator in tenants.values():
        simulator.fleet.pass_days(42)
    before = rows(our_tables)
    theirs.run_whole()
    assert rows(our_tables) == before
    assert their_tables.deleted()
    ours.run_whole()
    for pipeline, warehouse in ((theirs, their_tables), (ours, our_tables)):
        assert warehouse.missing_kbs() == true_missing_kbs(pipeline.simulator.fleet)
        assert warehouse.missing_now() == pairs(pipeline.simulator.fleet)


def settings(tenant: str, keys: dict[str, list[str]]) -> dict[str, Any]:
    """The README's settings for one set of tables, and perhaps keys of one's own."""
    found: dict[str, Any] = yaml.safe_load(readme.block("stream maps: several tenants").replace("contoso", tenant))
    assert list(found["stream_maps"]) == list(STREAMS)
    for stream, names in keys.items():
        found["stream_maps"][stream]["__key_properties__"] = names
    return found


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {
            "machines": ["tenant", "id"],
            "missing_kbs": ["tenant", "machine_id", "id"],
            "missing_kbs_checks": ["tenant", "machine_id", "sweep"],
        },
    ],
    ids=["keys as they are", "the tenant in every key"],
)
def test_in_one_set_of_tables_each_tenant_is_right_by_its_own_newest(
    tenants: dict[str, Simulator], postgres: Postgres, tmp_path: Path, keys: dict[str, list[str]]
) -> None:
    """Machines left and updates installed in both; the README's query gives both, row by row."""
    warehouse = PostgresWarehouse(postgres, "mde")
    pipelines = {}
    for tenant, simulator in tenants.items():
        (tmp_path / tenant).mkdir()
        loader = postgres_loader(postgres, warehouse.schema)
        pipelines[tenant] = Pipeline(tmp_path / tenant, simulator, loader, config=settings(tenant, keys))

    def assert_true(truth: dict[str, set[Key]]) -> None:
        found: dict[str, set[Key]] = {tenant: set() for tenant in tenants}
        for row in warehouse.query(readme.sql("missing now, several tenants")):
            found[row["tenant"]].add((row["machine_id"], row["id"]))
        assert found == truth

    for pipeline in pipelines.values():
        pipeline.run_whole()
    truth = {tenant: pairs(simulator.fleet) for tenant, simulator in tenants.items()}
    assert_true(truth)
    for tenant, pipeline in reversed(pipelines.items()):
        [other] = tenants.keys() - {tenant}
        before = rows(warehouse, f"tenant = '{other}'")
        assert all(before.values())
        listed = set(pipeline.simulator.fleet.listed())
        pipeline.simulator.fleet.pass_days(42)
        pipeline.run_whole()
        assert rows(warehouse, f"tenant = '{other}'") == before
        assert listed - set(pipeline.simulator.fleet.listed()), "nobody left"
        assert truth[tenant] - pairs(pipeline.simulator.fleet), "nothing was installed"
        truth[tenant] = pairs(pipeline.simulator.fleet)
        assert_true(truth)
    assert warehouse.deleted() == set()
    assert warehouse.missing_now() == truth["contoso"], "the query for one tenant would do"
