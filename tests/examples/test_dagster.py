"""Twenty tenants on Dagster, as `examples/dagster` has it: nineteen fresh, and the other one named."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.conftest import PYTHON
from tests.support.environments import ROOT, environment
from tests.support.launch import SCRIPTS
from tests.support.provider import BROKEN, REASON, SECONDS, TENANTS, Provider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from demo.postgres import Postgres
    from tests.conftest import StartSimulator

pytestmark = pytest.mark.long

EXAMPLE = ROOT / "examples" / "dagster"
REQUIREMENTS = ["dagster==1.13.29", "psycopg[binary]>=3.2", "pyyaml>=6"]
WAITS = ROOT / "tests" / "support" / "dagster_runs.py"
AT_ONCE = 3
"""Instead of the ten of `dagster.yaml`: there are twenty tenants only, and two cores."""


@dataclass(frozen=True)
class Dagster:
    """The example in a folder of its own, with other tenants in its list."""

    folder: Path
    programs: Path
    environ: dict[str, str]

    def run(self, *command: str | Path) -> str:
        """What a program of Dagster's environment prints."""
        done = subprocess.run(
            [self.programs / command[0], *command[1:]],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.said()
        return done.stdout

    def ended(self, job: str, runs: int) -> dict[str, Any]:
        """How so many runs of a job ended, once they have."""
        answer: dict[str, Any] = json.loads(self.run("python", WAITS, job, str(runs), str(SECONDS - 20)))
        return answer

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """What starts the runs."""
        with (self.folder / "daemon.log").open("w") as log:
            process = subprocess.Popen(
                [self.programs / "dagster-daemon", "run"],
                cwd=self.folder,
                env=self.environ,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            finally:
                process.kill()
                process.wait()

    def said(self) -> str:
        """All that the daemon and the runs have said."""
        home = self.folder / "home"
        logs = [self.folder / "daemon.log", *home.rglob("*.err"), *home.rglob("*.out")]
        return "\n".join(each.read_text() for each in logs)


@pytest.fixture
def provider(simulate: StartSimulator, postgres: Postgres, tmp_path: Path) -> Provider:
    return Provider(simulate, postgres, tmp_path)


@pytest.fixture
def dagster(provider: Provider, pytestconfig: pytest.Config, tmp_path: Path) -> Dagster:
    """As the README sets it up."""
    programs = environment(pytestconfig.cache.mkdir("environments"), REQUIREMENTS, PYTHON)
    folder = tmp_path / "dagster"
    shutil.copytree(EXAMPLE, folder)
    (folder / "tenants.yaml").write_text(yaml.safe_dump(provider.listed))
    home = folder / "home"
    home.mkdir()
    configuration = (EXAMPLE / "dagster.yaml").read_text()
    assert configuration.count("limit: 10\n") == 1
    (home / "dagster.yaml").write_text(configuration.replace("limit: 10\n", f"limit: {AT_ONCE}\n"))
    environ = provider.environ
    return Dagster(
        folder,
        programs,
        {
            **environ,
            "PATH": f"{SCRIPTS}:{environ['PATH']}",
            "DAGSTER_HOME": str(home),
            "DBT_PROJECT_DIR": str(ROOT / "transform"),
            "DBT_TARGET_PATH": str(tmp_path / "target"),
            "DBT_LOG_PATH": str(tmp_path / "logs"),
        },
    )


def test_nineteen_of_twenty_tenants_are_fresh_and_the_other_is_named(provider: Provider, dagster: Dagster) -> None:
    asked_for = "import definitions; print(*(each.partition_key for each in definitions.nightly()))"
    assert dagster.run("python", "-c", asked_for).split() == [*TENANTS]
    # Before the daemon starts: two that make the tables of Dagster's storage at the same time get in each other's way.
    dagster.run("dagster", "job", "backfill", "--job", "load_tenant", "--all", "all", "--noprompt")
    with dagster.daemon():
        with provider.one_tap_is_killed():
            nights = dagster.ended("load_tenant", len(TENANTS))["runs"]
        dagster.run("dagster", "job", "launch", "--job", "build_marts")
        marts = dagster.ended("build_marts", 1)
    assert nights == {name: "FAILURE" if name == BROKEN else "SUCCESS" for name in TENANTS}
    assert provider.most_at_once() <= AT_ONCE
    provider.assert_it_was_a_bad_night()
    assert [*marts["runs"].values()] == ["SUCCESS"]
    provider.assert_nineteen_are_true("analytics")
    fresh, well = (marts["checks"][name] for name in ("every_tenant_is_fresh", "every_tap_ended_well"))
    assert [(each["passed"], [*each["tenants"]]) for each in (fresh, well)] == [(False, [BROKEN])] * 2
    assert REASON in well["description"]
    provider.assert_no_secret_in(dagster.said())
