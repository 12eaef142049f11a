"""A program that is forked runs as the installed script does, and no run sees another's."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tap_mde_kbs.patience import Patience
from tests.support.launch import TAP_MDE_KBS, launch
from tests.support.process import started
from tests.support.singer import clean_environ, run_command, run_tap

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartSimulator


TIME = re.compile(r"^\S+ \S+ ", re.MULTILINE)


@pytest.mark.parametrize("options", [("--about", "--format=json"), ("--discover",), ("--no-such-option",)])
def test_a_fork_says_what_the_script_says(tmp_path: Path, options: tuple[str, ...]) -> None:
    """To the letter but for the time, and with the same exit status."""

    def said(*, afresh: bool) -> tuple[int, str, str]:
        done = run_command(tmp_path, *options, afresh=afresh)
        return done.status, done.stdout, TIME.sub("", done.stderr)

    assert said(afresh=False) == said(afresh=True)


def test_each_run_has_an_environment_and_a_folder_of_its_own(tmp_path: Path) -> None:
    """What is odd in one run is not so in the next."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / ".env").write_text("TAP_MDE_KBS_REQUESTS_PER_HOUR=odd\n")
    by_variable = {"TAP_MDE_KBS_MAX_PARALLEL_REQUESTS": "odd"}
    odd = {
        "PARALLEL_REQUESTS": run_command(tmp_path / "other", "--config=ENV", environ=by_variable).stderr,
        "PER_HOUR": run_command(tmp_path / "one", "--config=ENV").stderr,
    }
    for name, said in odd.items():
        assert [other for other in odd if other in said] == [name]


def test_patience_is_that_of_one_run(simulate: StartSimulator, tmp_path: Path) -> None:
    """A run that writes a STATE with each machine is followed by one that writes one in ten seconds."""
    simulator = simulate(30)
    counts = [
        len(run_tap(tmp_path, simulator, patience=each).of("STATE")) for each in (None, Patience(state=0.0), None)
    ]
    assert counts[0] == counts[2] < 10 < counts[1]


def test_a_signal_is_its_own_and_its_status_is_told(simulate: StartSimulator, tmp_path: Path) -> None:
    """In a process group of its own, too; whoever asks, and however often, gets the same status."""
    with started(tmp_path, simulate(40, latency=0.1)) as run:
        run.read_until(asked=1)
        assert run.process.poll() is None
        assert os.getpgid(run.process.pid) == run.process.pid
        with pytest.raises(subprocess.TimeoutExpired):
            run.process.wait(0)
        run.send(signal.SIGKILL)
        run.end()
        assert run.process.wait(1) == run.process.poll() == run.process.returncode == -signal.SIGKILL


def test_no_file_of_another_run_is_open_in_it(tmp_path: Path) -> None:
    """So that a pipe ends when its one writer does."""
    with (tmp_path / "log").open("wb") as log:
        first, second = (
            launch(TAP_MDE_KBS, ["--version"], folder=tmp_path, environ=clean_environ(tmp_path), stderr=log)
            for _ in range(2)
        )
        for process in (second, first):
            assert process.stdout is not None
            with process.stdout:
                assert process.stdout.read().startswith(b"tap-mde-kbs v")
            assert process.wait(60) == 0
