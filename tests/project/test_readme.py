"""The README: short, and its commands and its query do what it says."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

from mde_simulator import Fleet
from tests.support import readme
from tests.support.pipeline import postgres_loader
from tests.support.singer import TAP, clean_environ, run_tap
from tests.support.warehouse import PostgresWarehouse, pairs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from demo.postgres import Postgres
    from tests.conftest import StartSimulator


def run_commands(text: str, folder: Path, environ: Mapping[str, str] | None = None) -> str:
    """Run a block of bash as a person would, but that it ends at the first failure; what it printed.

    What it leaves running in the background ends with it.
    """
    done = subprocess.run(
        ["bash", "-c", f"set -eu\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n{text}"],  # noqa: S607 - whichever bash there is
        cwd=folder,
        env={**clean_environ(folder), "PATH": f"{TAP.parent}{os.pathsep}{os.environ['PATH']}", **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def warehouse_in(folder: Path, postgres: Postgres) -> PostgresWarehouse:
    """Where the blocks' `target.json`, made here, loads to."""
    (folder / "target.json").write_text(json.dumps(postgres_loader(postgres, "mde").config))
    return PostgresWarehouse(postgres, "mde")


def test_it_is_a_screen_and_a_bit() -> None:
    text = readme.README.read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.encode()) <= 9_000


def test_it_opens_with_the_two_commands() -> None:
    first = readme.blocks()[0]
    assert first.page == readme.README
    commands = [line.partition("#")[0].strip() for line in first.text.splitlines()]
    assert commands == ["make demo", "make test"]


def test_what_is_missing_now_by_its_sql_is_the_truth(
    simulate: StartSimulator, postgres: Postgres, tmp_path: Path
) -> None:
    """The README's own commands, two nights long, with updates installed and machines gone; then the docs' query."""
    simulator, warehouse = simulate(60), warehouse_in(tmp_path, postgres)
    commands = readme.block("bash: every night")
    said = run_commands(commands, tmp_path, simulator.environment)
    assert "permissions" in said
    assert warehouse.missing_now() == pairs(simulator.fleet)
    listed, before = set(simulator.fleet.listed()), pairs(simulator.fleet)
    simulator.fleet.pass_days(20)
    assert listed - set(simulator.fleet.listed())
    assert before - pairs(simulator.fleet)
    run_commands(commands.splitlines()[-1], tmp_path, simulator.environment)
    assert warehouse.missing_now() == pairs(simulator.fleet)
    assert warehouse.deleted(), "the second night did not go on from the first one's STATE"


def test_a_simulated_tenant_is_there_to_build_against(postgres: Postgres, tmp_path: Path) -> None:
    """The block as it stands, with fewer machines and a free port."""
    warehouse = warehouse_in(tmp_path, postgres)
    commands = readme.block("bash: simulator")
    for shown, here in (("--machines 250", "--machines 20"), ("--port 8443", "--port 0")):
        assert shown in commands
        commands = commands.replace(shown, here)
    run_commands(commands, tmp_path)
    assert warehouse.missing_now() == pairs(Fleet(machines=20, seed=1)) != set()


def test_a_certificate_made_by_its_commands_signs_in(simulate: StartSimulator, tmp_path: Path) -> None:
    simulator = simulate(5)
    run_commands(readme.block("bash: certificate"), tmp_path)
    settings = simulator.settings_for("certificate", str(tmp_path / "defender.pem"))
    messages = run_tap(tmp_path, simulator, config={"client_secret": None, **settings})
    assert messages.status == 0, messages.stderr
    assert len(messages.records("machines")) == len(simulator.fleet.listed())
