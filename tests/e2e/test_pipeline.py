"""`tap-mde-kbs | target-postgres` as a scheduler runs it, night after night."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from demo.__main__ import UNHURRIED
from demo.pipeline import SCHEMA, Pipeline, PipelineError
from tests.support.contract import answers_of

if TYPE_CHECKING:
    from pathlib import Path

    from demo.postgres import Postgres
    from mde_simulator import Simulator
    from tests.conftest import StartSimulator

Pairs = set[tuple[str, str]]


def pipeline_of(simulator: Simulator, postgres: Postgres, folder: Path, **environment: str) -> Pipeline:
    """The two commands between these two."""
    return Pipeline(folder, {**simulator.environment, **UNHURRIED, **environment}, postgres)


def pairs(postgres: Postgres, condition: str) -> Pairs:
    """Machines and updates of the rows of missing_kbs that satisfy a condition."""
    query = f"SELECT machine_id, id FROM {SCHEMA}.missing_kbs WHERE {condition}"  # noqa: S608 - our own
    with psycopg.connect(postgres.url) as connection:
        return {(row[0], row[1]) for row in connection.execute(query)}


def truth(simulator: Simulator) -> Pairs:
    """What is missing today."""
    return {(machine_id, kb) for machine_id, kbs in answers_of(simulator.fleet).items() for kb in kbs}


def test_the_table_is_the_truth_after_every_night(simulate: StartSimulator, postgres: Postgres, tmp_path: Path) -> None:
    """What was installed is marked, the state goes from run to run, and a new sweep has a new version."""
    simulator = simulate(60)
    pipeline = pipeline_of(simulator, postgres, tmp_path)
    pipeline.run()
    first, sweep = truth(simulator), sweep_of(pipeline.state)
    assert pairs(postgres, "_sdc_deleted_at IS NULL") == first
    simulator.fleet.pass_days(21)
    pipeline.run()
    second = truth(simulator)
    assert first - second
    assert second - first
    assert pairs(postgres, "_sdc_deleted_at IS NULL") == second
    assert pairs(postgres, "_sdc_deleted_at IS NOT NULL") == first - second
    assert sweep_of(pipeline.state) > sweep


def sweep_of(state: dict[str, Any]) -> int:
    """The version of the sweep in a STATE."""
    return int(state["bookmarks"]["missing_kbs"]["sweep"]["version"])


def test_a_failing_tap_is_named_with_its_reason(simulate: StartSimulator, postgres: Postgres, tmp_path: Path) -> None:
    """The last line that the tap wrote, and its exit status."""
    pipeline = pipeline_of(simulate(3), postgres, tmp_path, TAP_MDE_KBS_API_URL="http://127.0.0.1")
    with pytest.raises(PipelineError, match=r"^tap-mde-kbs ended with status 1: .*https"):
        pipeline.run()


def test_a_failing_target_is_named_before_the_tap_that_lost_it(
    simulate: StartSimulator, postgres: Postgres, tmp_path: Path
) -> None:
    """A tap whose target goes away fails too, but that is not the reason."""
    pipeline = pipeline_of(simulate(3), postgres, tmp_path)
    pipeline.database = type(postgres)(port=1, binaries=postgres.binaries)
    with pytest.raises(PipelineError, match=r"^target-postgres ended with status 1: "):
        pipeline.run()
