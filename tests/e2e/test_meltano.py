"""Meltano in a copy of the checkout, by the README's own commands, into PostgreSQL and through dbt; broken off, too."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import PYTHON
from tests.support.contract import answers_of
from tests.support.environments import environment
from tests.support.meltano_project import (
    MELTANO,
    Meltano,
    Project,
    asked_of,
    commands,
    wait_until_asked,
    wait_until_loaded,
)
from tests.support.warehouse import PostgresWarehouse, pairs, true_machines, true_missing_kbs

if TYPE_CHECKING:
    from pathlib import Path

    from demo.postgres import Postgres
    from mde_simulator import Fleet
    from tests.conftest import StartSimulator

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("meltano")]

NO_STATE = "No state was found, complete import."
BETWEEN_NIGHTS = 9
"""Days: enough for updates to be published and installed, and machines to come and go."""

IN_A_HURRY = {"TAP_MDE_KBS_MAX_PARALLEL_REQUESTS": "32"}
"""For a tenant that is slow only so that a run can be broken off."""


@pytest.fixture(scope="module")
def project(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Installed once; each test has its own tenant, warehouse and states."""
    programs = environment(pytestconfig.cache.mkdir("environments"), [MELTANO], PYTHON)
    return Project.made_in(tmp_path_factory.mktemp("meltano"), programs)


def assert_marts_hold_the_truth(database: Postgres, schema: str, fleet: Fleet) -> None:
    """What is missing where, by machine, by update, and pair by pair."""
    warehouse = PostgresWarehouse(database, schema)
    open_ = warehouse.query("SELECT machine_id, kb_id FROM kb_episodes WHERE status = 'open'")
    assert {(row["machine_id"], row["kb_id"]) for row in open_} == pairs(fleet)
    counted = {row["machine_id"]: row["missing_kbs"] for row in warehouse.all("machine_compliance")}
    assert set(counted) == set(fleet.listed())
    onboarded = answers_of(fleet)
    assert {id_: counted[id_] for id_ in onboarded} == {id_: len(kbs) for id_, kbs in onboarded.items()}
    missed = {row["kb_id"]: row["machines_missing"] for row in warehouse.all("kbs_missing")}
    assert Counter(missed) == Counter(kb_id for _, kb_id in pairs(fleet))


def assert_tables_hold_the_truth(database: Postgres, schema: str, fleet: Fleet) -> None:
    """The rows that are not marked deleted."""
    warehouse = PostgresWarehouse(database, schema)
    assert warehouse.missing_kbs() == true_missing_kbs(fleet)
    assert warehouse.machines() == true_machines(fleet)


def test_nights_as_the_readme_runs_them_leave_the_truth_in_the_marts(
    simulate: StartSimulator, project: Project, postgres: Postgres, tmp_path: Path
) -> None:
    """Both blocks, line by line, each run on another day; settings out of `.env`, for tap, target and dbt."""
    simulator = simulate(40)
    meltano = Meltano.between(project, simulator, postgres, tmp_path)
    in_file = [name for name in meltano.environ if name.startswith(("TAP_MDE_KBS_", "PG_"))]
    dot_env = project.folder / ".env"
    dot_env.write_text("".join(f"{name}='{meltano.environ.pop(name)}'\n" for name in in_file))
    first = {"dev": True, "prod": True}
    try:
        for words in [*commands("meltano"), *commands("meltano every night")]:
            if words[0] == "install":
                continue
            before = len(simulator.journal)
            environment = "prod" if "--environment=prod" in words else "dev"
            is_run = "run" in words
            if is_run:
                simulator.fleet.pass_days(BETWEEN_NIGHTS)
            done = meltano.run(*words)
            assert done.status == 0, done.said
            if is_run:
                assert sorted(asked_of(simulator, before)) == sorted(simulator.fleet.assessed())
                assert (NO_STATE in done.said) is first[environment]
                first[environment] = False
                assert_tables_hold_the_truth(postgres, "mde" if environment == "prod" else "mde_dev", simulator.fleet)
            if any(each.startswith(("dbt-", "defender", "nightly")) for each in words):
                marts = "analytics" if environment == "prod" else "analytics_dev"
                assert_marts_hold_the_truth(postgres, marts, simulator.fleet)
    finally:
        dot_env.unlink()
    assert first == {"dev": False, "prod": False}


def test_the_run_after_a_kill_of_the_tap_goes_on_where_the_state_says(
    simulate: StartSimulator, project: Project, postgres: Postgres, tmp_path: Path
) -> None:
    """Kill -9: the target loads what it has and passes the last STATE on; nobody before its cursor is asked again."""
    simulator = simulate(80, latency=1)
    meltano = Meltano.between(project, simulator, postgres, tmp_path)
    run = ["--environment=prod", "run", "tap-mde-kbs", "target-postgres"]
    with meltano.start(*run) as running:
        wait_until_asked(simulator, running, 8, seconds=11)  # the tap writes a STATE every ten seconds
        os.kill(running.child("tap-mde-kbs"), signal.SIGKILL)
        killed = running.end()
    assert killed.status == 1
    assert "Extractor failed" in killed.said
    cursor = meltano.sweep("prod")["after"]
    before = len(simulator.journal)
    resumed = meltano.run(*run, **IN_A_HURRY)
    assert resumed.status == 0, resumed.said
    onboarded = simulator.fleet.assessed()
    asked = asked_of(simulator, before)
    assert 0 < len(asked) < len(onboarded)
    assert sorted(asked) == sorted(each for each in onboarded if each > cursor)
    assert_tables_hold_the_truth(postgres, "mde", simulator.fleet)


def test_the_run_after_a_sigterm_to_meltano_starts_over_and_is_right(
    simulate: StartSimulator, project: Project, postgres: Postgres, tmp_path: Path
) -> None:
    """It ends tap and target, whose rows stay, and stores no STATE."""
    simulator = simulate(120, latency=1)
    meltano = Meltano.between(project, simulator, postgres, tmp_path)
    run = ["--environment=prod", "run", "tap-mde-kbs", "target-postgres"]
    with meltano.start(*run) as running:
        wait_until_asked(simulator, running, 1)
        wait_until_loaded(postgres, running)
        wait_until_asked(simulator, running, len(asked_of(simulator)) + 8)
        stopped = running.end_by_sigterm()
    assert stopped.status == 128 + signal.SIGTERM, stopped.said
    assert PostgresWarehouse(postgres, "mde").machines() == true_machines(simulator.fleet)
    assert meltano.sweep("prod") == {}
    before = len(simulator.journal)
    done = meltano.run(*run, **IN_A_HURRY)
    assert done.status == 0, done.said
    assert sorted(asked_of(simulator, before)) == sorted(simulator.fleet.assessed())
    assert_tables_hold_the_truth(postgres, "mde", simulator.fleet)


CASES: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "a wrong secret": ({}, {"TAP_MDE_KBS_CLIENT_SECRET": "not-the-secret"}, "AADSTS7000215"),
    "no Machine.Read.All": ({"roles": ["Software.Read.All"]}, {}, "lacks the permission Machine.Read.All"),
    "no Software.Read.All": ({"roles": ["Machine.Read.All"]}, {}, "lacks the permission Software.Read.All"),
}


@pytest.mark.parametrize("case", CASES)
def test_config_test_says_why_it_fails_in_its_last_words(
    simulate: StartSimulator, project: Project, postgres: Postgres, tmp_path: Path, case: str
) -> None:
    options, environ, reason = CASES[case]
    meltano = Meltano.between(project, simulate(20, **options), postgres, tmp_path)
    done = meltano.run("config", "test", "tap-mde-kbs", **environ)
    assert done.status != 0
    assert reason in done.said
    assert "not-the-secret" not in done.said


@pytest.mark.parametrize("case", CASES)
def test_the_doctor_speaks_through_invoke(
    simulate: StartSimulator, project: Project, postgres: Postgres, tmp_path: Path, case: str
) -> None:
    options, environ, reason = CASES[case]
    meltano = Meltano.between(project, simulate(20, **options), postgres, tmp_path)
    done = meltano.run("invoke", "tap-mde-kbs", "--test", **environ)
    assert done.status != 0
    assert "✗" in done.stdout
    assert reason in done.said
