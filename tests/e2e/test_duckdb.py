"""Nights through target-duckdb, which never deletes: the README's query tells what is missing all the same."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tap_mde_kbs.patience import Patience
from tests.support.contract import answers_of
from tests.support.environments import settings_of
from tests.support.pipeline import Interrupt, Loader, Pipeline
from tests.support.warehouse import (
    AskedWarehouse,
    assert_right_so_far,
    pairs,
    through_duckdb,
    true_machines,
    true_missing_kbs,
)

if TYPE_CHECKING:
    from pathlib import Path

    from mde_simulator import Fleet
    from tests.conftest import Programs, StartSimulator

pytestmark = pytest.mark.long

ROWS = 90
"""Of a table, in a batch: more than there are machines, few enough for the target to pass STATE on in mid-run."""


@pytest.fixture
def loader(programs: Programs, tmp_path: Path) -> Loader:
    """target-duckdb as `meltano.yml` has it, but into a database of the test's own, and in batches that are small."""
    settings = {**settings_of("target-duckdb"), "path": str(tmp_path / "mde.duckdb"), "batch_size_rows": ROWS}
    return Loader([str(programs("target-duckdb") / "target-duckdb")], settings)


@pytest.fixture
def warehouse(programs: Programs, loader: Loader, tmp_path: Path) -> AskedWarehouse:
    """What that database holds."""
    before = f"USE {loader.config['default_target_schema']}"
    return through_duckdb(programs("target-duckdb") / "python", tmp_path, loader.config["path"], before)


def assert_true(warehouse: AskedWarehouse, fleet: Fleet) -> None:
    """What is missing now, the newest listing and the checks are as the fleet is today."""
    assert warehouse.rows_missing_now() == true_missing_kbs(fleet)
    left = warehouse.machines().keys() - set(fleet.listed())
    assert {machine_id: row for machine_id, row in warehouse.machines().items() if machine_id not in left} == {
        # The target makes null of an empty text.
        machine_id: {column: None if value == "" else value for column, value in row.items()}
        for machine_id, row in true_machines(fleet).items()
    }
    newest = "SELECT id FROM machines WHERE listed_at = (SELECT max(listed_at) FROM machines)"
    assert {row["id"] for row in warehouse.query(newest)} == set(fleet.listed())
    missing = answers_of(fleet)
    assert warehouse.outcomes() == {
        machine_id: "answered" if machine_id in missing else "skipped" for machine_id in fleet.listed()
    }
    for machine_id, check in warehouse.last_checks().items():
        assert machine_id not in missing or set(check["missing_kb_ids"]) == missing[machine_id]


def test_nothing_is_deleted_and_what_is_missing_now_is_right_all_the_same(
    simulate: StartSimulator, loader: Loader, warehouse: AskedWarehouse, tmp_path: Path
) -> None:
    """Updates installed and rolled back, machines that left, a sweep killed twice and gone on with."""
    simulator = simulate(80, page_size=50, latency=0.06)
    fleet = simulator.fleet
    pipeline = Pipeline(tmp_path, simulator, loader, patience=Patience(state=0.1))
    pipeline.run_whole()
    assert_true(warehouse, fleet)
    before, listed_before = pairs(fleet), set(fleet.listed())

    fleet.pass_days(42)
    installed, left = before - pairs(fleet), listed_before - set(fleet.listed())
    assert installed
    assert left
    simulator.tenant.latency = 0.5  # a busy target takes long to pass a STATE on
    for interrupt in (Interrupt(signal.SIGKILL, "both", progress=True), Interrupt(signal.SIGKILL, "tap", calls=15)):
        assert pipeline.run(interrupt).interrupted
        assert_right_so_far(warehouse, before, fleet)
    simulator.tenant.latency = 0.0
    assert len(pipeline.run_whole().asked) < len(fleet.assessed())
    assert_true(warehouse, fleet)
    assert len(warehouse.query("SELECT DISTINCT sweep FROM missing_kbs_checks")) == 2
    assert set(warehouse.missing_kbs()) == before | pairs(fleet), "target-duckdb has learnt to delete"

    came_back = min(pair for pair in installed if pair[0] not in left)
    fleet.uninstall(*came_back)
    pipeline.run_whole()
    assert_true(warehouse, fleet)
    assert came_back in warehouse.missing_now()
