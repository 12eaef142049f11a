"""Two nights through target-snowflake into fakesnow, an emulator: tables, MERGE, deletes, the README's query.

Nothing here was run on a real Snowflake; `fake_snowflake.py` says what is played.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fleet
from tests.support.contract import answers_of
from tests.support.environments import ROOT, settings_of
from tests.support.pipeline import Loader, Pipeline
from tests.support.singer import clean_environ
from tests.support.warehouse import AskedWarehouse, pairs, true_missing_kbs

if TYPE_CHECKING:
    from tests.conftest import Programs, StartSimulator

pytestmark = pytest.mark.long

SUPPORT = Path(__file__).parents[1] / "support"
BESIDES = (
    "fakesnow==0.12.1",
    "dbt-core>=1.12",
    "dbt-snowflake>=1.12",
    "snowflake-connector-python<5",  # fakesnow stands in for version 4
    f"--excludes={ROOT / 'transform' / 'excludes.txt'}",
)
"""What shares the target's environment."""

ACCOUNT = {"account": "emulated", "user": "loader", "password": "none", "database": "SECURITY", "warehouse": "LOADING"}


def connect(programs: Programs, folder: Path, **settings: Any) -> tuple[Loader, AskedWarehouse]:
    """target-snowflake as `meltano.yml` has it, into an emulator of the test's own."""
    python = str(programs("target-snowflake", *BESIDES) / "python")
    databases = folder / "databases"
    databases.mkdir()
    command = [python, str(SUPPORT / "fake_snowflake.py"), str(databases)]
    config = {**settings_of("target-snowflake"), **ACCOUNT, **settings}
    return Loader([*command, "load"], config), AskedWarehouse([*command, "query", "MDE"], folder)


@pytest.mark.parametrize("hard_delete", [False, True], ids=["soft delete", "hard delete"])
def test_the_second_night_is_right_in_the_emulator(
    simulate: StartSimulator, programs: Programs, tmp_path: Path, *, hard_delete: bool
) -> None:
    """Six weeks apart; what is gone is marked or deleted, although this target activates before it loads the rest."""
    simulator = simulate(Fleet(30, seed=1))
    fleet = simulator.fleet
    loader, warehouse = connect(programs, tmp_path, hard_delete=hard_delete)
    pipeline = Pipeline(tmp_path, simulator, loader)
    pipeline.run_whole()
    before, listed = pairs(fleet), set(fleet.listed())
    fleet.pass_days(42)
    installed = before - pairs(fleet)
    assert installed
    assert listed - set(fleet.listed())
    pipeline.run_whole()
    assert warehouse.rows_missing_now() == true_missing_kbs(fleet)
    rows = {(row["machine_id"], row["id"]): row["_sdc_deleted_at"] for row in warehouse.all("missing_kbs")}
    assert {key for key, deleted_at in rows.items() if deleted_at is None} == pairs(fleet)
    assert {key for key, deleted_at in rows.items() if deleted_at} == (set() if hard_delete else installed)


def build(programs: Programs, folder: Path) -> None:
    """The first build of the models, without their tests."""
    program = str(SUPPORT / "dbt_on_fakesnow.py")
    project = str(ROOT / "transform")
    options = ["--target=snowflake", "--threads=1", "--exclude-resource-type=test"]
    places = [
        f"--project-dir={project}",
        f"--profiles-dir={project}",
        f"--target-path={folder}",
        f"--log-path={folder}",
    ]
    done = subprocess.run(
        [
            *[str(programs("target-snowflake", *BESIDES) / "python"), program, str(folder / "databases")],
            *["build", *options, *places],
        ],
        env={
            **clean_environ(folder),
            **{f"SNOWFLAKE_{name.upper()}": value for name, value in {**ACCOUNT, "role": "LOADER"}.items()},
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_models_build_on_its_tables(simulate: StartSimulator, programs: Programs, tmp_path: Path) -> None:
    """Names are in capitals, so that the same SQL serves; and fewer installs close all that is missing."""
    loader, warehouse = connect(programs, tmp_path)
    simulator = simulate(Fleet(90, seed=1), advisory_feeds=("msrc", "kev", "epss"), epss_rows=500)
    Pipeline(tmp_path, simulator, loader).run_whole()
    build(programs, tmp_path)
    known = warehouse.query("SELECT * FROM analytics.machine_compliance WHERE is_known")
    assert {row["machine_id"]: row["missing_kbs"] for row in known} == {
        machine_id: len(kbs) for machine_id, kbs in answers_of(simulator.fleet).items()
    }
    installs = warehouse.query("SELECT * FROM analytics.updates_to_install")
    closed = {(row["machine_id"], kb_id) for row in installs for kb_id in row["closes_kb_ids"].split()}
    assert closed == pairs(simulator.fleet)
    assert len(installs) < len(closed)
    assert {row["is_assumed"] for row in installs} == {True, False}
    assert {row["kb_id"]: row["cves"] for row in warehouse.query("SELECT * FROM analytics.kbs WHERE cves > 0")} == {
        kb_id: len(cves) for kb_id, cves in simulator.feeds.closes().items()
    }
