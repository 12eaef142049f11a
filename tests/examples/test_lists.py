"""What both examples for many tenants make of a list, of variables, and of how a night ended."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.environments import ROOT

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = {"dagster": ["-c", "import tenants"], "meltano-tenants": ["environments.py"]}
CONTOSO = {"name": "contoso", "tenant_id": "t", "client_id": "c", "secret": "SECRET"}


def run(folder: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env={"PATH": "/usr/bin:/bin", **environ}, capture_output=True, text=True, check=False
    )


def read(folder: Path, example: str, tenants: Any) -> subprocess.CompletedProcess[str]:
    """What an example says to a list."""
    shutil.copytree(ROOT / "examples" / example, folder, dirs_exist_ok=True)
    (folder / "tenants.yaml").write_text(yaml.safe_dump(tenants))
    return run(folder, sys.executable, *EXAMPLES[example])


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({**CONTOSO, "name": "Contoso Ltd"}, "Entry 2 of tenants.yaml (Contoso Ltd): its name is to be of a-z"),
        ({**CONTOSO, "name": 365}, "Entry 2 of tenants.yaml (365): its name is to be of a-z"),
        (CONTOSO, "Entry 2 of tenants.yaml (contoso): there is another one of that name."),
        (
            {"name": "fabrikam", "tenant_id": "t", "client_id": "c", "secrt": "S"},
            "Entry 2 of tenants.yaml (fabrikam): ",
        ),
        ("fabrikam", "Entry 2 of tenants.yaml (None): its name"),
    ],
)
def test_an_entry_that_is_none_is_named(tmp_path: Path, example: str, entry: object, said: str) -> None:
    done = read(tmp_path, example, [CONTOSO, entry])
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_list_is_read(tmp_path: Path, example: str) -> None:
    assert read(tmp_path, example, [CONTOSO, {**CONTOSO, "name": "fabrikam"}]).returncode == 0


def test_a_name_that_the_project_has_taken_is_refused(tmp_path: Path) -> None:
    """Meltano would find one of the two environments."""
    assert "another one of that name" in read(tmp_path, "meltano-tenants", [{**CONTOSO, "name": "prod"}]).stderr


@pytest.mark.parametrize("name", ["TAP_MDE_KBS_TENANT_ID", "TARGET_POSTGRES_DEFAULT_TARGET_SCHEMA", "MDE_SCHEMA"])
@pytest.mark.parametrize("where", ["environment", "export ", ""])
def test_a_variable_that_would_hold_for_every_tenant_ends_the_night(tmp_path: Path, name: str, where: str) -> None:
    """Meltano asks it before a tenant's own settings: all would be loaded as one, and well."""
    shutil.copytree(ROOT / "examples" / "meltano-tenants", tmp_path, dirs_exist_ok=True)
    environ = {name: "one"} if where == "environment" else {}
    if not environ:
        (tmp_path / ".env").write_text(f"OTHER=1\n{where}{name}=one\n")
    done = run(tmp_path, "./night", **environ)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{name} is set")
    assert len(done.stdout.splitlines()) == 1


def test_settings_that_are_no_text_are_json(tmp_path: Path) -> None:
    """As the tap reads variables."""
    settings = {"advisory_feeds": ["kev"], "epss_min": 0.5, "include_excluded": True, "cloud": None, "api_url": "x"}
    assert read(tmp_path, "dagster", [{**CONTOSO, "settings": settings}]).returncode == 0
    told = "import tenants; print(*sorted(tenants.TENANTS['contoso'].tap_settings().items()), sep='\\n')"
    lines = run(tmp_path, sys.executable, "-c", told).stdout
    assert "('TAP_MDE_KBS_ADVISORY_FEEDS', '[\"kev\"]')" in lines
    assert "('TAP_MDE_KBS_INCLUDE_EXCLUDED', 'true')" in lines
    assert "('TAP_MDE_KBS_API_URL', 'x')" in lines
    assert "CLOUD" not in lines


@pytest.mark.parametrize(
    ("tap", "target", "reason", "again"),
    [
        (0, 1, "the warehouse is away", True),
        (-9, 0, "", True),
        (143, 0, "Stopped by SIGTERM.", True),
        (130, 0, "Stopped by SIGINT.", True),
        (1, 0, "CRITICAL | The target closed the pipe. Its own messages say why", True),
        (1, 0, "CRITICAL | AADSTS7000215", False),
    ],
)
def test_what_was_killed_is_tried_again(tmp_path: Path, tap: int, target: int, reason: str, *, again: bool) -> None:
    """What the tap gave up by itself is not."""
    assert read(tmp_path, "dagster", [CONTOSO]).returncode == 0
    told = f"import night; print(night.Ended({tap}, {target}, {reason!r}).is_worth_a_retry)"
    done = run(tmp_path, sys.executable, "-c", told)
    assert done.stdout.strip() == str(again), done.stderr
