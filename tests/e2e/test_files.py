"""Files of target-jsonl and target-csv over several runs: what is missing now, from the files alone."""

from __future__ import annotations

import ast
import signal
from typing import TYPE_CHECKING

import pytest
import yaml

from tap_mde_kbs.patience import Patience
from tests.support import readme
from tests.support.environments import settings_of
from tests.support.pipeline import Interrupt, Loader, Pipeline
from tests.support.warehouse import AskedWarehouse, pairs, through_duckdb, true_missing_kbs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.conftest import Programs, StartSimulator
    from tests.support.warehouse import Row

pytestmark = pytest.mark.long

KILL = Interrupt(signal.SIGKILL, calls=30)


def loader(programs: Programs, name: str, **settings: object) -> Loader:
    """A target as `meltano.yml` has it."""
    return Loader([str(programs(name) / name)], {**settings_of(name), **settings})


def files(programs: Programs, folder: Path, views: str) -> AskedWarehouse:
    """The files that a pipeline left in its folder, by the README's views."""
    return through_duckdb(programs("target-duckdb") / "python", folder, ":memory:", views)


def test_of_appended_lines_the_newest_answers_tell_what_is_missing_now(
    simulate: StartSimulator, programs: Programs, tmp_path: Path
) -> None:
    """Six weeks apart, the second sweep killed: this target passes no STATE on then but at its end."""
    simulator = simulate(60, latency=0.04)
    fleet = simulator.fleet
    pipeline = Pipeline(tmp_path, simulator, loader(programs, "target-jsonl"), patience=Patience(state=0.0))
    warehouse = files(programs, tmp_path, readme.sql("jsonl"))
    pipeline.run_whole()
    assert warehouse.rows_missing_now() == true_missing_kbs(fleet)
    before, listed = pairs(fleet), set(fleet.listed())
    fleet.pass_days(42)
    assert before - pairs(fleet)
    assert listed - set(fleet.listed())
    assert pipeline.run(KILL).interrupted
    pipeline.run_whole()
    assert warehouse.rows_missing_now() == true_missing_kbs(fleet)
    assert len(warehouse.all("missing_kbs")) > len(before | pairs(fleet)), "target-jsonl no longer appends"


def from_text(row: Mapping[str, str | None]) -> Row:
    """A row as it was before target-csv wrote it: numbers and, as Python writes them, lists."""
    read = dict.fromkeys(("machine_missed_on", "cve_addressed", "os_build"), int)
    return {
        name: None if value is None else read.get(name, ast.literal_eval if value.startswith("[") else str)(value)
        for name, value in row.items()
    }


def test_csv_files_of_each_run_tell_what_is_missing_now(
    simulate: StartSimulator, programs: Programs, tmp_path: Path
) -> None:
    """Six weeks apart, the second sweep killed and gone on with: its rows are in the files of two runs."""
    simulator = simulate(60, latency=0.04)
    fleet = simulator.fleet
    pipeline = Pipeline(tmp_path, simulator, loader(programs, "target-csv"), patience=Patience(state=0.0))
    warehouse = files(programs, tmp_path, readme.sql("csv"))
    pipeline.run_whole()
    fleet.pass_days(42)
    assert pipeline.run(KILL).passed_on
    assert len(pipeline.run_whole().asked) < len(fleet.assessed())
    assert {key: from_text(row) for key, row in warehouse.rows_missing_now().items()} == true_missing_kbs(fleet)
    assert len(list((tmp_path / "output").iterdir())) == 3 * 4


def test_flattened_csv_has_a_column_for_each_part_of_an_object(
    simulate: StartSimulator, programs: Programs, tmp_path: Path
) -> None:
    """Where some machines are in a cloud and others are not; this target stops at a column that no SCHEMA has."""
    simulator = simulate(30)
    fleet = simulator.fleet
    for number, machine_id in enumerate(fleet.listed()):
        fleet.change(machine_id, vmMetadata={"vmId": f"vm{number}", "cloudProvider": "Azure"} if number % 2 else None)
    config = yaml.safe_load(readme.block("flattening"))
    pipeline = Pipeline(tmp_path, simulator, loader(programs, "target-csv"), config=config)
    pipeline.run_whole()
    warehouse = files(programs, tmp_path, readme.sql("csv"))
    assert warehouse.missing_now() == pairs(fleet)
    assert {row["id"]: row["vm_metadata__vm_id"] for row in warehouse.all("machines")} == {
        machine_id: f"vm{number}" if number % 2 else None for number, machine_id in enumerate(fleet.listed())
    }


def test_csv_files_that_are_overwritten_hold_only_the_last_part_of_a_resumed_sweep(
    simulate: StartSimulator, programs: Programs, tmp_path: Path
) -> None:
    """The target's default; a sweep in one run is whole."""
    simulator = simulate(60, latency=0.04)
    fleet = simulator.fleet
    overwriting = loader(programs, "target-csv", file_naming_scheme="{stream_name}.csv")
    pipeline = Pipeline(tmp_path, simulator, overwriting, patience=Patience(state=0.0))
    warehouse = files(programs, tmp_path, readme.sql("csv").replace("-*", ""))
    assert pipeline.run(KILL).passed_on
    asked = set(pipeline.run_whole().asked)
    assert warehouse.missing_now() == {pair for pair in pairs(fleet) if pair[0] in asked} != pairs(fleet)
    pipeline.run_whole()
    assert warehouse.missing_now() == pairs(fleet)
