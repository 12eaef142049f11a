"""Two tenants in one database, in a schema each or in the same tables: a run for one leaves the other's rows alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mde_simulator import Fleet
from tests.support import readme
from tests.support.pipeline import Pipeline, postgres_loader
from tests.support.warehouse import Key, PostgresWarehouse, pairs, true_missing_kbs

if TYPE_CHECKING:
    from pathlib import Path

    from demo.postgres import Postgres
    from mde_simulator import Simulator
    from tests.conftest import StartSimulator
    from tests.e2e.conftest import Connect

STREAMS = ("machines", "missing_kbs", "missing_kbs_checks", "sweeps")
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


@pytest.fixture
def warehouse(postgres: Postgres) -> PostgresWarehouse:
    """One set of tables."""
    return PostgresWarehouse(postgres, "mde")


def pipelines_of(
    tenants: dict[str, Simulator], warehouse: PostgresWarehouse, folder: Path, **config: Any
) -> dict[str, Pipeline]:
    """A pipeline for each tenant into the same tables, with the README's settings; each has a state of its own."""
    pipelines = {}
    for tenant, simulator in tenants.items():
        (folder / tenant).mkdir()
        settings = yaml.safe_load(readme.block("stream maps: several tenants").replace("contoso", tenant))
        loader = postgres_loader(warehouse.database, warehouse.schema)
        pipelines[tenant] = Pipeline(folder / tenant, simulator, loader, config={**settings, **config})
    return pipelines


def test_in_one_set_of_tables_each_tenant_is_right_by_its_own_newest(
    tenants: dict[str, Simulator], warehouse: PostgresWarehouse, tmp_path: Path
) -> None:
    """Machines left and updates installed in both; a run for one leaves the other's rows alone to the last column."""
    pipelines = pipelines_of(tenants, warehouse, tmp_path)

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
    rows_of_one = {(row["machine_id"], row["id"]) for row in warehouse.query(readme.sql("missing now"))}
    assert rows_of_one != truth["contoso"] | truth["fabrikam"], "the query for one tenant would do"


def test_in_one_set_of_tables_each_tenant_has_its_own_kb_cves(
    simulate: StartSimulator, warehouse: PostgresWarehouse, tmp_path: Path
) -> None:
    """From exports that name the same KBs and CVEs, under keys that name the tenant."""
    twins = {name: simulate(Fleet(20, seed=1)) for name in MACHINES}
    ours, theirs = pipelines_of(twins, warehouse, tmp_path, missing_kbs_source="export").values()
    query = "SELECT * FROM kb_cves WHERE tenant = 'contoso' ORDER BY kb_id, cve_id"
    ours.run_whole()
    before = warehouse.query(query)
    theirs.run_whole()
    assert warehouse.query(query) == before != []
    assert len(warehouse.all("kb_cves")) == 2 * len(before)
