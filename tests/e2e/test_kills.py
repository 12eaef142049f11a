"""Ten kills through targets that flush their streams apart, and pass on the bookmarks of those alone: no check is lost.

Where `flush_all_streams` is off, a table is loaded when so many of its own rows have come, and STATE is passed on with
the bookmarks of the tables that were loaded.
"""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from mde_simulator import Fleet
from tap_mde_kbs.patience import Patience
from tests.support.contract import answers_of
from tests.support.environments import environment, settings_of
from tests.support.pipeline import Interrupt, Loader, Pipeline
from tests.support.warehouse import PostgresWarehouse, Warehouse, through_duckdb, true_missing_kbs

if TYPE_CHECKING:
    from pathlib import Path

    from demo.postgres import Postgres
    from tests.conftest import Programs, StartSimulator

pytestmark = pytest.mark.long

PIPELINEWISE = ["pipelinewise-target-postgres==2.1.2"]
ROWS = 20
"""Of a table, in a batch: the streams are flushed at different times, some of them often."""
KILLS = 10


@dataclass
class Apart:
    """A target that flushes its streams apart, and what it has loaded."""

    loader: Loader
    warehouse: Warehouse


def duckdb(programs: Programs, folder: Path) -> Apart:
    """target-duckdb as `meltano.yml` has it, but for its flushing, and into a database of the test's own."""
    own = {"path": str(folder / "mde.duckdb"), "batch_size_rows": ROWS, "flush_all_streams": False}
    settings = {**settings_of("target-duckdb"), **own}
    found = programs("target-duckdb")
    before = f"USE {settings['default_target_schema']}"
    return Apart(
        Loader([str(found / "target-duckdb")], settings),
        through_duckdb(found / "python", folder, settings["path"], before),
    )


def pipelinewise(postgres: Postgres, environments: Path) -> Apart:
    """PipelineWise's target-postgres, into a schema of the test's own."""
    settings = {
        "host": postgres.host,
        "port": postgres.port,
        "user": postgres.user,
        "password": "unused",
        "dbname": postgres.database,
        "default_target_schema": "mde",
        "batch_size_rows": ROWS,
        "flush_all_streams": False,
    }
    found = environment(environments, PIPELINEWISE, "3.11")
    return Apart(Loader([str(found / "target-postgres")], settings), PostgresWarehouse(postgres, "mde"))


@pytest.fixture(params=["target-duckdb", "pipelinewise-target-postgres"])
def apart(request: pytest.FixtureRequest, tmp_path: Path) -> Apart:
    """Each of these targets."""
    if request.param == "target-duckdb":
        return duckdb(request.getfixturevalue("programs"), tmp_path)
    environments = request.config.cache.mkdir("environments")
    return pipelinewise(request.getfixturevalue("postgres"), environments)


@pytest.mark.parametrize("seed", [1, 2])
def test_ten_kills_lose_no_check(simulate: StartSimulator, tmp_path: Path, apart: Apart, seed: int) -> None:
    """Of the tap, of the target, of both, 42 days after a whole night; resumed each time, to the truth."""
    simulator = simulate(Fleet(420, seed=seed))
    fleet = simulator.fleet
    pipeline = Pipeline(tmp_path, simulator, apart.loader, patience=Patience(state=0.05))
    pipeline.run_whole()
    assert apart.warehouse.rows_missing_now() == true_missing_kbs(fleet)

    fleet.pass_days(42)
    simulator.tenant.latency = 0.2
    draw = random.Random(seed)  # noqa: S311 - moments, nothing secret
    states = set()
    for number in range(KILLS):
        whom = ("both", "target", "tap")[number % 3]
        interrupt = Interrupt(signal.SIGKILL, whom, calls=draw.randrange(8, 45), delay=draw.uniform(0, 0.3))
        done = pipeline.run(interrupt)
        bookmarks = pipeline.state["bookmarks"]
        after = bookmarks["missing_kbs"]["sweep"]["after"], bookmarks["missing_kbs_checks"]["after"]
        print(f"{interrupt}: {len(done.asked)} machines asked, {len(done.passed_on)} STATEs, {after}")  # noqa: T201
        assert done.interrupted, done.log
        states.add(after)
    simulator.tenant.latency = 0.0
    pipeline.run_whole()

    assert any(of_kbs != of_checks for of_kbs, of_checks in states), "the target flushed all its streams at once"
    missing = answers_of(fleet)
    assert apart.warehouse.outcomes() == {
        machine_id: "answered" if machine_id in missing else "skipped" for machine_id in fleet.listed()
    }
    checks = apart.warehouse.last_checks()
    assert {machine_id: frozenset(checks[machine_id]["missing_kb_ids"]) for machine_id in missing} == missing
    assert apart.warehouse.rows_missing_now() == true_missing_kbs(fleet)
