"""Two targets by other makers, night after night, killed in between: what is missing now is right all the same.

Neither acts on ACTIVATE_VERSION. One updates rows by their keys, the other appends files of Parquet.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tap_mde_kbs.patience import Patience
from tests.support.environments import settings_of
from tests.support.pipeline import Interrupt, Loader, Pipeline
from tests.support.storage import through_parquet
from tests.support.warehouse import (
    PostgresWarehouse,
    Row,
    Warehouse,
    assert_right_so_far,
    pairs,
    true_missing_kbs,
)

if TYPE_CHECKING:
    from pathlib import Path

    from demo.postgres import Postgres
    from tests.conftest import Programs, StartSimulator
    from tests.support.storage import Storage

pytestmark = pytest.mark.long

ROWS = 60
"""Of a table, in a batch: as many as there are machines, few enough for the target to pass STATE on in mid-run."""
KILLS = (Interrupt(signal.SIGKILL, "target", progress=True), Interrupt(signal.SIGKILL, "both", calls=15))


def assert_right_through_kills(pipeline: Pipeline, warehouse: Warehouse, as_loaded: Any = lambda rows: rows) -> None:
    """A night, and six weeks later one that is killed twice and gone on with.

    Args:
        pipeline: into empty tables.
        warehouse: those tables.
        as_loaded: what becomes of the fleet's rows in this target.
    """
    simulator = pipeline.simulator
    fleet = simulator.fleet
    pipeline.run_whole()
    assert warehouse.rows_missing_now() == as_loaded(true_missing_kbs(fleet))
    before, listed = pairs(fleet), set(fleet.listed())
    fleet.pass_days(42)
    assert before - pairs(fleet)
    assert listed - set(fleet.listed())
    simulator.tenant.latency = 0.6  # a busy target takes long to pass a STATE on
    for kill in KILLS:
        assert pipeline.run(kill).interrupted
        assert_right_so_far(warehouse, before, fleet)
    simulator.tenant.latency = 0.0
    assert len(pipeline.run_whole().asked) < len(fleet.assessed())
    assert warehouse.rows_missing_now() == as_loaded(true_missing_kbs(fleet))
    assert {check["outcome"] for check in warehouse.last_checks().values()} <= {"answered", "skipped"}


def without_empty_text(rows: dict[tuple[str, str], Row]) -> dict[tuple[str, str], Row]:
    """Rows in which an empty text is null, as pipelinewise-target-postgres makes it."""
    return {key: {name: None if value == "" else value for name, value in row.items()} for key, row in rows.items()}


def test_pipelinewise_updates_by_key_and_what_is_missing_now_is_right(
    simulate: StartSimulator, programs: Programs, postgres: Postgres, tmp_path: Path
) -> None:
    name = "pipelinewise-target-postgres"
    place = {"host": postgres.host, "port": postgres.port, "dbname": postgres.database}
    config = {**settings_of(name), **place, "user": postgres.user, "password": "any", "batch_size_rows": ROWS}
    loader = Loader([str(programs(name) / "target-postgres")], config)
    pipeline = Pipeline(tmp_path, simulate(60, latency=0.03), loader, patience=Patience(state=0.1))
    warehouse = PostgresWarehouse(postgres, "mde")
    assert_right_through_kills(pipeline, warehouse, without_empty_text)


def test_parquet_appends_and_what_is_missing_now_is_right(
    simulate: StartSimulator, programs: Programs, storage: Storage, tmp_path: Path
) -> None:
    name = "plinxore-target-s3"
    config = settings_of(name, **storage.settings, max_batch_age=1 / 600)  # minutes: a tenth of a second
    loader = Loader([str(programs(name) / "target-s3")], config)
    pipeline = Pipeline(tmp_path, simulate(60, latency=0.03), loader, patience=Patience(state=0.1))
    warehouse = through_parquet(storage, tmp_path)
    assert_right_through_kills(pipeline, warehouse)
