"""The schedulers' examples: they parse, name what there is, hold no secret, and do what they say."""

from __future__ import annotations

import configparser
import os
import re
import runpy
import shutil
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tap_mde_kbs.settings import DEFAULTS, SCHEMA
from tests.support.environments import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EXAMPLES = ROOT / "examples"
FILES = sorted(path for path in EXAMPLES.rglob("*") if path.is_file() and path.suffix != ".pyc")
RUN = "meltano --environment=prod run defender"
"""What each of them calls; `tests/e2e/test_meltano.py` runs the job."""


def unit(name: str) -> configparser.ConfigParser:
    """A unit of systemd."""
    read = configparser.ConfigParser(interpolation=None, strict=False)
    read.optionxform = str  # type: ignore[assignment,method-assign] # as its documentation says
    assert read.read(EXAMPLES / "systemd" / name)
    return read


def test_each_file_is_named_in_the_readme() -> None:
    told = (EXAMPLES / "README.md").read_text()
    for path in FILES:
        assert path.name == "README.md" or f"({path.relative_to(EXAMPLES)})" in told or f"({path.parent.name})" in told


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_they_name_only_variables_that_there_are(path: Path) -> None:
    known = {f"TAP_MDE_KBS_{name}".upper() for name in {*DEFAULTS, *SCHEMA["properties"]}}
    project = (ROOT / "meltano.yml").read_text()
    text = path.read_text()
    assert set(re.findall(r"\bTAP_MDE_KBS_[A-Z_]+", text)) <= known
    assert all(f"${name}" in project for name in re.findall(r"\bPG_[A-Z]+", text))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_none_holds_a_secret(path: Path) -> None:
    named = re.findall(r"(?:SECRET|PASSWORD|STATE_BACKEND_URI)\"?[:=] *(\S+)", path.read_text())
    assert all(value[0] in "$…" or re.match(r"(mde|warehouse)\.password", value) for value in named)


def test_the_crontab_runs_at_two_with_the_files_variables_and_prints_what_failed(tmp_path: Path) -> None:
    if not shutil.which("flock"):
        pytest.skip("there is no flock here: install util-linux")
    [line] = [each for each in (EXAMPLES / "crontab").read_text().splitlines() if each[0].isdigit()]
    assert line.startswith("0 2 * * * ")
    command = line.removeprefix("0 2 * * * ")
    assert RUN in command
    settings = tmp_path / "settings"
    settings.write_text("TAP_MDE_KBS_TENANT_ID=theirs\n")
    stub = tmp_path / "meltano"
    stub.write_text('#!/bin/sh\necho "$TAP_MDE_KBS_TENANT_ID: $*"\nexit $STATUS\n')
    stub.chmod(0o755)
    command = command.replace("/srv/tap-mde-kbs", str(tmp_path)).replace("/etc/tap-mde-kbs.env", str(settings))
    printed = []
    for status in ("0", "1"):
        environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "STATUS": status}
        done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=True)  # noqa: S607 - as cron does
        printed.append(done.stdout + done.stderr)
    assert printed == ["", "theirs: --environment=prod run defender\n"]


def test_the_timer_starts_the_service_and_the_service_the_job() -> None:
    service, timer = unit("tap-mde-kbs.service"), unit("tap-mde-kbs.timer")
    assert service["Service"]["ExecStart"].endswith(RUN)
    assert service["Service"]["Type"] == "oneshot"
    assert timer["Timer"]["Persistent"] == "true"
    assert timer["Install"]["WantedBy"] == "timers.target"


def test_the_workflow_ends_a_run_before_github_does_and_pins_what_our_own_pins() -> None:
    text = (EXAMPLES / "github-actions" / "nightly.yml").read_text()
    job = yaml.safe_load(text)["jobs"]["defender"]
    [run] = [step for step in job["steps"] if step.get("run") == RUN]
    assert int(run["env"]["TAP_MDE_KBS_TIME_LIMIT_MINUTES"]) < job["timeout-minutes"] < 360
    ours = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    assert all(step["uses"] in ours for step in job["steps"] if "uses" in step)


def test_the_dag_runs_the_job_with_what_its_connections_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = {
        "mde": SimpleNamespace(login="app", password="s3cret", extra_dejson={"tenant_id": "theirs"}),  # noqa: S106 - made up
        "warehouse": SimpleNamespace(host="db", port=None, schema="mde", login="loader", password="pw"),  # noqa: S106
    }
    options: dict[str, Any] = {}

    def decorator(**given: Any) -> Callable[[Any], Any]:
        options.update(given)
        return lambda function: function

    sdk = ModuleType("airflow.sdk")
    vars(sdk).update(dag=decorator, task=decorator, BaseHook=SimpleNamespace(get_connection=connections.__getitem__))
    for module in (ModuleType("airflow"), sdk):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    calls: list[tuple[list[str], dict[str, Any]]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **given: calls.append((command, given)))
    runpy.run_path(str(EXAMPLES / "airflow" / "tap_mde_kbs_dag.py"))
    [(command, given)] = calls
    assert " ".join(command) == RUN
    assert given["check"]
    environment = given["env"]
    assert [environment[f"TAP_MDE_KBS_{name}"] for name in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET")] == [
        "theirs",
        "app",
        "s3cret",
    ]
    assert {name: value for name, value in environment.items() if name.startswith("PG_")} == {
        "PG_HOST": "db",
        "PG_PORT": "5432",
        "PG_DATABASE": "mde",
        "PG_USER": "loader",
        "PG_PASSWORD": "pw",
    }
    assert (options["catchup"], options["max_active_runs"], options["retries"]) == (False, 1, 3)
