"""One application's quota, which several taps and other programs share: in real time, by the simulator's own count."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests

from mde_simulator import Fleet, Quota, Simulator
from tests.simulator.door import SCOPE
from tests.support.contract import answers_of
from tests.support.singer import Target, lacking, run_tap

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartSimulator

pytestmark = pytest.mark.long

PER_MINUTE = 40
"""The quota that is shared."""

TOO_MANY = 429


def plain(machines: int) -> Fleet:
    """A tenant all of whose machines are asked."""
    return Fleet(machines, seed=1, discovered=0, excluded=0, silent=0, duplicates=0)


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
    with Simulator(fleet, quota=Quota(((PER_MINUTE, 60.0),))) as simulator:

        def take() -> None:
            """Take all there is, then ask twice a second, whatever the answer is."""
            with requests.Session() as session:
                session.verify = simulator.ca_file
                session.trust_env = False
                config = simulator.config
                form = {
                    "grant_type": "client_credentials",
                    "scope": SCOPE,
                    "client_id": config["client_id"],
                    "client_secret": config["client_secret"],
                }
                signed_in = session.post(f"{simulator.url}/{config['tenant_id']}/oauth2/v2.0/token", form, timeout=10)
                bearer = {"Authorization": f"Bearer {signed_in.json()['access_token']}"}
                while not enough.wait(0.5 if refused.is_set() else 0):
                    answer = session.get(f"{simulator.url}/api/machines?$top=1", headers=bearer, timeout=10)
                    if answer.status_code == TOO_MANY:
                        refused.set()

        other = threading.Thread(target=take, daemon=True)
        other.start()
        try:
            assert refused.wait(30)
            quota = {"requests_per_minute": PER_MINUTE}
            messages, target = run_tap(tmp_path, simulator, config=quota, timeout=400), Target()
        finally:
            enough.set()
            other.join()
        assert messages.status == 0, messages.stderr
        target.take(messages.all)
        assert target.missing == lacking(answers_of(fleet))
        assert re.search(r"throttled [1-9]\d* times", messages.stderr), messages.stderr
