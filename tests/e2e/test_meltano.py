"""Meltano's own commands against a good tenant, a wrong secret, and each missing permission."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.environments import ROOT, uv
from tests.singer import TAP

if TYPE_CHECKING:
    from pathlib import Path

    from tap_mde_kbs.simulator import Simulator
    from tests.conftest import StartSimulator

pytestmark = pytest.mark.meltano

MELTANO = ["run", "--isolated", "--no-project", "--with", "meltano==4.4.1", "meltano"]


def meltano(folder: Path, simulator: Simulator, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Meltano in a project with the repository's own plugin, its executable the installed one."""
    project = yaml.safe_load((ROOT / "meltano.yml").read_text())
    [extractor] = project["plugins"]["extractors"]
    del extractor["pip_url"]
    extractor["executable"] = str(TAP)
    project["plugins"] = {"extractors": [extractor]}
    (folder / "meltano.yml").write_text(yaml.safe_dump(project))
    return subprocess.run(
        [uv(), *MELTANO, *words],
        cwd=folder,
        # The machine's own, for uv: where its index and its authorities are.
        env={
            **os.environ,
            "MELTANO_SEND_ANONYMOUS_USAGE_STATS": "false",
            "NO_COLOR": "1",
            **simulator.environment,
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


CASES: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "a good tenant": ({}, {}, ""),
    "a wrong secret": ({}, {"TAP_MDE_KBS_CLIENT_SECRET": "not-the-secret"}, "AADSTS7000215"),
    "no Machine.Read.All": ({"roles": ["Software.Read.All"]}, {}, "lacks the permission Machine.Read.All"),
    "no Software.Read.All": ({"roles": ["Machine.Read.All"]}, {}, "lacks the permission Software.Read.All"),
}


@pytest.mark.parametrize("case", CASES)
def test_config_test_passes_or_says_why_in_its_last_words(simulate: StartSimulator, tmp_path: Path, case: str) -> None:
    options, environ, reason = CASES[case]
    done = meltano(tmp_path, simulate(20, **options), "config", "test", "tap-mde-kbs", **environ)
    said = done.stdout + done.stderr
    assert (done.returncode == 0) is (not reason), said
    assert reason in said
    assert "not-the-secret" not in said


@pytest.mark.parametrize("case", CASES)
def test_the_doctor_speaks_through_invoke(simulate: StartSimulator, tmp_path: Path, case: str) -> None:
    options, environ, reason = CASES[case]
    done = meltano(tmp_path, simulate(20, **options), "invoke", "tap-mde-kbs", "--test", **environ)
    said = done.stdout + done.stderr
    assert (done.returncode == 0) is (not reason), said
    assert ("✗" in done.stdout) is bool(reason)
    assert reason in said
