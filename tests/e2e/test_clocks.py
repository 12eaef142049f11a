"""The clock decides nothing: the host's, the services', and moments in STATE that lie anywhere.

Through the real command line at another moment (`demo.clock`), night after night with the state passed on.
"""

from __future__ import annotations

import copy
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from demo.clock import environment_at
from mde_simulator import Fault, Fleet
from tests.support.nights import ManyNights, StartNights, nights

__all__ = ["nights"]

BY_FILE = {"missing_kbs_source": "export"}
NOW = datetime(2026, 1, 5, 2, tzinfo=timezone.utc)
"""When the simulator's fleet begins."""

DAY = timedelta(days=1)


def versions(night: ManyNights) -> list[int]:
    """Those of the sweeps, as they came."""
    return [row["sweep"] for row in night.target.rows["sweeps"].values()]


@pytest.mark.parametrize("off", [1, -40, 400, 20000], ids=lambda days: f"{days} days")
def test_a_host_whose_clock_is_wrong_for_a_night(nights: StartNights, off: int) -> None:
    """Ahead or behind: what is missing now is right that night and each night after, each with exit status 0."""
    night = nights(20)
    for number, moment in enumerate((NOW, NOW + DAY + off * DAY, NOW + 2 * DAY, NOW + 3 * DAY)):
        night.run(environ=environment_at(moment))
        night.assert_true()
        assert night.asked, number
        night.fleet.pass_days(1)
    assert versions(night) == sorted(set(versions(night)))
    assert len(versions(night)) == 4


def test_a_wrong_clock_while_a_machine_fails(nights: StartNights) -> None:
    """The sweep of the day ahead is held back; it is healed the next night, and a new one follows."""
    night = nights(20)
    night.run(environ=environment_at(NOW))
    sick = night.fleet.assessed()[5]
    night.simulator.faults.add(Fault("503", machine=sick))
    night.fleet.pass_days(1)
    night.run(environ=environment_at(NOW + 2 * DAY))
    night.simulator.faults.clear()
    night.fleet.pass_days(5)
    night.run(environ=environment_at(NOW + DAY))
    night.assert_true()


def test_a_sweep_begun_in_the_future_is_gone_on_with(nights: StartNights) -> None:
    """Broken off a year ahead; the next night asks the rest, then everybody anew."""
    night = nights(30)
    night.run(environ=environment_at(NOW))
    night.simulator.faults.add(Fault("503", path="/api/machines/*/getmissingkbs", after=10))
    night.run(environ=environment_at(NOW + 365 * DAY), status=1)
    night.simulator.faults.clear()
    night.fleet.pass_days(20)
    night.run(environ=environment_at(NOW + 20 * DAY))
    night.assert_true()
    night.fleet.pass_days(20)
    night.run(environ=environment_at(NOW + 40 * DAY))
    night.assert_true()


def with_moments(state: Any, moment: str) -> Any:
    """A state, every moment in it replaced."""
    if isinstance(state, dict):
        return {key: with_moments(value, moment) for key, value in state.items()}
    return moment if isinstance(state, str) and state[:2] == "20" and state.endswith("Z") else copy.copy(state)


MOMENTS = (
    "2999-01-01T00:00:00.000000Z",
    f"{datetime.now(timezone.utc) + 20 * DAY:%Y-%m-%dT%H:%M:%S.%fZ}",
    "0001-01-01T00:00:00.000000Z",
    "9999-12-31T23:59:59.999999Z",
    "yesterday",
    "2026-01-05",
    "2026-01-05T02:00:00",
)


@pytest.mark.parametrize(
    ("moment", "source"),
    [*((moment, "per_machine") for moment in MOMENTS), *((moment, "export") for moment in MOMENTS[:2])],
    ids=[*(f"{number}" for number in range(len(MOMENTS))), "export 0", "export 1"],
)
def test_moments_of_state_that_lie_anywhere_decide_nothing(nights: StartNights, moment: str, source: str) -> None:
    night = nights(plain(), {"missing_kbs_source": source})
    night.run()
    night.target.state = with_moments(night.target.state, moment)
    night.fleet.pass_days(20)
    night.simulator.exports.generate()
    night.run()
    night.fleet.pass_days(1)
    night.simulator.exports.generate()
    night.run()
    assert night.missing_now() == night.true_pairs()
    assert len(versions(night)) == 3


@pytest.mark.parametrize("version", [2**31, 2**53])
def test_versions_of_state_that_lie_in_the_future_go_on_growing(nights: StartNights, version: int) -> None:
    night = nights(20)
    night.run()
    for name in ("machines", "missing_kbs", "missing_kbs_checks"):
        stream = night.target.state["bookmarks"][name]
        stream.get("sweep", stream)["version"] = version
    # Of a sweep that no table has there is no row to write again.
    night.target.state["bookmarks"]["missing_kbs"]["sweep"]["counts"]["is_partial"] = True
    night.target.state["bookmarks"]["machines"]["listing"] = version
    for _ in range(2):
        night.time_passes(nights=3)
        night.run()
        night.assert_true()
    assert min(versions(night)[1:]) > version


def plain() -> Fleet:
    """A fleet of which every machine is assessed."""
    return Fleet(20, seed=3, discovered=0, excluded=0, silent=0)


@pytest.mark.parametrize(
    ("ahead", "source"),
    [(-86_400, "per_machine"), (-3600, "export"), (3600, "per_machine"), (86_400, "export"), (3_456_000, "export")],
)
def test_services_whose_clock_is_not_the_hosts(nights: StartNights, ahead: int, source: str) -> None:
    night = nights(plain(), {"missing_kbs_source": source}, clock=lambda: time.time() + ahead)
    night.run(status=0)
    assert night.missing_now() == night.true_pairs()
    night.fleet.pass_days(3)
    night.simulator.exports.generate()
    night.time_passes()
    night.run(status=0)
    assert night.missing_now() == night.true_pairs()


def test_exports_whose_clock_goes_back(nights: StartNights) -> None:
    """The next one says that it is older: it is another one, so it is loaded, and counts as newer."""
    told = [time.time() + 5 * 86_400]
    night = nights(plain(), BY_FILE, export_clock=lambda: told[0])
    night.run()
    told[0] = time.time()
    night.fleet.pass_days(20)
    night.simulator.exports.start(night.folder)
    night.run(status=0)
    assert night.missing_now() == night.true_pairs()


@pytest.mark.parametrize(("days", "status"), [(0.5, 0), (2, 0), (3.5, 1), (40, 1)])
def test_no_newer_export_comes(nights: StartNights, days: float, status: int) -> None:
    """Nothing to do, exit status 0; after three days 1. Nothing is gone."""
    made = time.time() - days * 86_400
    night = nights(plain(), BY_FILE, export_clock=lambda: made)
    night.run()
    before = night.missing_now()
    night.run(status=status)
    assert night.missing_now() == before


def test_an_update_first_seen_in_the_year_1_was_seen_nobody_knows_when(nights: StartNights) -> None:
    night = nights(plain(), BY_FILE)
    night.simulator.faults.add(Fault("export_no_first_seen"))
    night.run()
    assert night.missing_now() == night.true_pairs()
    assert {row["first_seen_at"] for row in night.target.rows["missing_kbs"].values()} == {None}


@pytest.mark.parametrize(
    ("date", "form"),
    [("", "seconds"), ("", "date"), ("Mon, 01 Jan 0001 00:00:00 GMT", "date"), ("yesterday", "seconds")],
)
def test_a_date_of_the_server_that_is_none_beside_retry_after(nights: StartNights, date: str, form: str) -> None:
    night = nights(10, {"max_parallel_requests": 1})
    night.simulator.faults.add(
        Fault("wrong_date", path="/api/*") if not date else Fault("slow", path="/api/*", seconds=0, date=date),
        Fault("throttled", times=1, after=3, seconds=1, retry_after=form, date=date or "Fri, 31 Dec 9999 23:59:59 GMT"),
    )
    night.run(status=0)
    night.assert_true()


@pytest.mark.parametrize("minutes", [1e12, 1e300, -1])
def test_a_time_limit_that_no_clock_can_tell_is_refused_as_a_setting(nights: StartNights, minutes: float) -> None:
    night = nights(5)
    messages = night.run(status=1, config={"time_limit_minutes": minutes})
    assert "time_limit_minutes" in messages.last_line


def test_a_device_whose_clock_is_wrong_makes_nobody_silent(nights: StartNights) -> None:
    """Its last report lies 70 years ahead: it is no measure, and it is asked."""
    night = nights(plain())
    night.fleet.change(night.fleet.listed()[4], lastSeen="2099-01-01T00:00:00Z")
    night.run()
    assert set(night.asked) == set(night.fleet.listed())
    assert night.reasons == {}


@pytest.mark.parametrize("value", [None, "", "0001-01-01T00:00:00Z", "yesterday", 5, "9999-12-31T23:59:59.9999999Z"])
def test_machines_that_do_not_say_when_they_last_reported_are_asked(nights: StartNights, value: object) -> None:
    """All of them, or one."""
    night = nights(plain())
    first, *others = night.fleet.listed()
    night.fleet.change(first, lastSeen=value)
    night.run()
    assert first in night.asked
    for machine_id in others:
        night.fleet.change(machine_id, lastSeen=value)
    night.time_passes()
    night.run()
    assert set(night.asked) == {first, *others}


def test_a_host_far_behind_makes_nobody_silent(nights: StartNights) -> None:
    """Every report lies in its future: there is no measure, and everybody is asked, as without the setting."""
    night = nights(plain())
    night.fleet.pass_days(5)
    night.fleet.silence(*night.fleet.listed()[:3])
    night.fleet.pass_days(10)
    night.run(environ=environment_at(NOW - 3000 * DAY))
    assert set(night.asked) == set(night.fleet.listed())


def test_two_runs_in_the_same_second(nights: StartNights) -> None:
    """Versions grow all the same, and the newer counts."""
    night = nights(6)
    for _ in range(3):
        night.run(environ=environment_at(NOW))
        night.fleet.pass_days(7)
    assert versions(night) == sorted(set(versions(night)))
    night.run(environ=environment_at(NOW))
    night.assert_true()
