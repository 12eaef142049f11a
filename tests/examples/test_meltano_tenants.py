"""Twenty tenants with Meltano alone, as `examples/meltano-tenants` has it: nineteen fresh, and the other one named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.conftest import PYTHON
from tests.support.environments import ROOT, environment
from tests.support.meltano_project import MELTANO, Project
from tests.support.provider import BROKEN, REASON, SECONDS, TENANTS, Provider

if TYPE_CHECKING:
    from pathlib import Path

    from demo.postgres import Postgres
    from tests.conftest import StartSimulator

pytestmark = pytest.mark.long

EXAMPLE = ROOT / "examples" / "meltano-tenants"
AT_ONCE = 3


@pytest.fixture
def provider(simulate: StartSimulator, postgres: Postgres, tmp_path: Path) -> Provider:
    return Provider(simulate, postgres, tmp_path)


@pytest.fixture
def project(provider: Provider, pytestconfig: pytest.Config, tmp_path: Path) -> Project:
    """As the README sets it up: a copy of the checkout, with the example's files and a list of tenants in it."""
    if not shutil.which("flock"):
        pytest.skip("there is no flock here: install util-linux")
    programs = environment(pytestconfig.cache.mkdir("environments"), [MELTANO], PYTHON)
    made = Project.made_in(tmp_path, programs)
    for path in EXAMPLE.iterdir():
        shutil.copy(path, made.folder)
    (made.folder / "tenants.yaml").write_text(yaml.safe_dump(provider.listed))
    with (made.folder / "meltano.yml").open("a") as file:
        file.write("include_paths: [tenants.meltano.yml]\n")
    subprocess.run([sys.executable, "environments.py"], cwd=made.folder, check=True)
    return made


def test_nineteen_of_twenty_tenants_are_fresh_and_the_other_is_named(provider: Provider, project: Project) -> None:
    environ = provider.environ
    states = provider.folder / "states"
    with provider.one_tap_is_killed():
        done = subprocess.run(
            ["./night"],
            cwd=project.folder,
            env={
                **environ,
                "PATH": f"{project.programs}:{environ['PATH']}",
                "MELTANO_STATE_BACKEND_URI": states.as_uri(),
                "MELTANO_CLI_DISABLE_VERSION_CHECK": "true",
                "MELTANO_HUB_URL": "https://127.0.0.1:9",
                "NO_COLOR": "1",
                "AT_ONCE": str(AT_ONCE),
                "PAUSES": "1",
            },
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert done.returncode == 1
    [named] = done.stdout.splitlines()
    assert named.startswith(f"{BROKEN}: ")
    assert REASON in named
    assert done.stderr == ""
    assert provider.most_at_once() <= AT_ONCE
    provider.assert_it_was_a_bad_night()
    provider.assert_nineteen_are_true("analytics")
    assert {path.name.partition(":")[0] for path in states.iterdir()} == {*TENANTS}
    kept = [path for path in (project.folder / ".meltano" / "tenants").rglob("*") if path.is_file()]
    written = [*kept, project.folder / "marts.log", *(project.folder.glob("tenants.*"))]
    assert len(kept) > len(TENANTS)
    provider.assert_no_secret_in("\n".join(path.read_text(errors="replace") for path in written))
