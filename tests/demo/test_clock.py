"""Simulated time: what a run writes has the moment it was given, and everything else goes on as ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from demo.clock import environment_at
from mde_simulator import Fault, Fleet
from tests.support.process import started
from tests.support.singer import Target, run_tap

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartSimulator
    from tests.support.singer import Messages

MOMENT = datetime(2026, 1, 5, 2, tzinfo=timezone.utc)
LONG = timedelta(minutes=10)
"""No run of a test takes longer, so that what is dated later was not dated by the moment."""


def moments(run: Messages) -> set[datetime]:
    """Every time that the tap took from its clock."""
    texts = {record["listed_at"] for record in run.records("machines")}
    for stream in ("missing_kbs", "missing_kbs_checks"):
        texts |= {record["checked_at"] for record in run.records(stream)}
    return {datetime.fromisoformat(text.replace("Z", "+00:00")) for text in texts} | {
        datetime.fromtimestamp(run.sweep["version"], timezone.utc)
    }


def test_what_a_run_writes_has_the_moment(simulate: StartSimulator, tmp_path: Path) -> None:
    """Versions, `checked_at` and `listed_at`, of one night and of the night three weeks later."""
    simulator = simulate(Fleet(30, seed=2))
    state = None
    for night in (MOMENT, MOMENT + timedelta(days=21)):
        run = run_tap(tmp_path, simulator, state=state, environ=environment_at(night))
        assert run.status == 0, run.stderr
        assert all(night.replace(microsecond=0) <= moment < night + LONG for moment in moments(run))
        assert min(moments(run)) < max(moments(run))  # it ticks
        state = run.state
    assert len([entry for entry in simulator.journal if entry.is_token_request]) == 2


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_waits_are_as_long_as_ever(simulate: StartSimulator, tmp_path: Path, form: str) -> None:
    """Retry-After, by number or by the server's date, is obeyed: the simulator would note a call before it."""
    simulator = simulate(6, faults=[Fault("throttled", times=2, seconds=2, retry_after=form)])
    run = run_tap(tmp_path, simulator, environ=environment_at(MOMENT))
    assert run.status == 0, run.stderr
    assert [entry.status for entry in simulator.journal if entry.is_api].count(429) == 2
    assert max(moments(run)) - min(moments(run)) < LONG


def test_tokens_are_renewed_when_they_end(simulate: StartSimulator, tmp_path: Path) -> None:
    """Their life is counted on the same moved clock."""
    simulator = simulate(20, token_life=2, latency=0.3)
    run = run_tap(tmp_path, simulator, environ=environment_at(MOMENT), config={"max_parallel_requests": 1})
    assert run.status == 0, run.stderr
    assert len([entry for entry in simulator.journal if entry.is_token_request]) > 2
    assert not [entry for entry in simulator.journal if entry.status == 401]


def test_a_signal_ends_it_and_the_next_moment_goes_on(simulate: StartSimulator, tmp_path: Path) -> None:
    """An hour later the same sweep is finished, its second half with that hour's times."""
    simulator = simulate(40, latency=0.03)
    target = Target()
    with started(tmp_path, simulator, environ=environment_at(MOMENT)) as run:
        run.read_until(asked=12)
        run.send(signal.SIGTERM)
        run.end()
    assert run.process.returncode == 143, run.stderr
    target.take(run.messages())
    version = target.state["bookmarks"]["missing_kbs"]["sweep"]["version"]
    later = MOMENT + timedelta(hours=1)
    rest = run_tap(tmp_path, simulator, state=target.state, environ=environment_at(later))
    assert rest.status == 0, rest.stderr
    assert rest.sweep["version"] == version
    checked = {record["checked_at"] for record in rest.records("missing_kbs_checks")}
    assert checked
    assert min(checked) >= f"{later:%Y-%m-%dT%H}"


def test_the_sitecustomize_that_it_hides_runs_as_well(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep = lambda seconds: None\n")
    shown = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time(), time.sleep.__name__)"],
        env={**os.environ, **environment_at(MOMENT, str(tmp_path))},
        capture_output=True,
        text=True,
        check=True,
    )
    moment, sleep = shown.stdout.split()
    assert MOMENT.timestamp() <= float(moment) < (MOMENT + LONG).timestamp()
    assert sleep == "<lambda>"


def test_a_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        environment_at(MOMENT.replace(tzinfo=None))
