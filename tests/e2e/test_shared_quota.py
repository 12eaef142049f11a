"""One application's quota, which several taps and other programs share: in real time, by the simulator's own count."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from mde_simulator import Quota, Simulator
from tests.simulator.door import Door
from tests.support.contract import answers_of, plain
from tests.support.singer import Target, lacking, run_tap

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartSimulator

pytestmark = pytest.mark.long

PER_MINUTE = 40
"""The quota that is shared."""

TOO_MANY = 429


def test_two_taps_with_half_of_the_quota_each_meet_no_429(simulate: StartSimulator, tmp_path: Path) -> None:
    """Together they have more calls to make than a minute allows, so both have to wait."""
    simulator = simulate(plain(30), quota=Quota(((PER_MINUTE, 60.0),)))
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(2) as both:
        half = {"requests_per_minute": PER_MINUTE // 2}
        runs = [both.submit(run_tap, folder, simulator, config=half, timeout=400) for folder in folders]
    for run in runs:
        messages, target = run.result(), Target()
        assert messages.status == 0, messages.stderr
        target.take(messages.all)
        assert target.missing == lacking(answers_of(simulator.fleet))
    assert sum(entry.is_api for entry in simulator.journal) > PER_MINUTE
    assert TOO_MANY not in {entry.status for entry in simulator.journal}
    assert simulator.violations == []


def test_a_tap_beside_a_program_that_takes_what_it_can_still_ends(tmp_path: Path) -> None:
    """It is refused, waits as long as it is told, takes its share of what comes free, and writes the whole table."""
    fleet = plain(25)
    refused, enough = threading.Event(), threading.Event()
    with Door(Simulator(fleet, quota=Quota(((PER_MINUTE, 60.0),)))) as door:
        door.sign_in()

        def take() -> None:
            """Take all there is, then ask twice a second, whatever the answer is."""
            while not enough.wait(0.5 if refused.is_set() else 0):
                if door.get("/api/machines", top=1).status_code == TOO_MANY:
                    refused.set()

        other = threading.Thread(target=take, daemon=True)
        other.start()
        try:
            assert refused.wait(30)
            quota = {"requests_per_minute": PER_MINUTE}
            messages, target = run_tap(tmp_path, door.simulator, config=quota, timeout=400), Target()
        finally:
            enough.set()
            other.join()
        assert messages.status == 0, messages.stderr
        target.take(messages.all)
        assert target.missing == lacking(answers_of(fleet))
        assert re.search(r"throttled [1-9]\d* times", messages.stderr), messages.stderr
