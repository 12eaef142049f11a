"""Exit status 0 means that the table is as current as the API allows; else 1, with the reason in the last line.

What looks like an empty tenant, a run that refreshed nothing, a STATE that is not the last one.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from mde_simulator import Fault
from tests.support import reader
from tests.support.contract import plain
from tests.support.nights import ManyNights, StartNights, nights

__all__ = ["nights"]

KBS, LIST = "/api/machines/*/getmissingkbs", "/api/machines"
SOURCES = ("per_machine", "export", "export_json")


# What looks like an empty tenant


@pytest.mark.parametrize("source", SOURCES)
def test_a_list_that_is_empty_where_it_was_not(nights: StartNights, source: str) -> None:
    """Exit status 1, every time; nothing is gone, and all is well when it is back."""
    night = nights(plain(), {"missing_kbs_source": source})
    night.run()
    before = night.missing_now()
    ids = night.fleet.listed()
    night.fleet.hide(ids)
    for _ in range(3):
        night.time_passes()
        night.simulator.exports.generate()
        messages = night.run(status=1)
        assert str(len(ids)) in messages.last_line
        assert night.missing_now() == before
    night.fleet.show(ids)
    night.simulator.exports.generate()
    night.time_passes()
    night.run()
    assert night.missing_now() == night.true_pairs()


def test_a_tenant_that_is_empty_is_no_failure(nights: StartNights) -> None:
    """Its list is a 404, as documented."""
    night = nights(0)
    night.run(status=0)
    night.run(status=0)
    assert reader.rows(night.target, "machines") == []


@pytest.mark.parametrize("text", ["", "<html><body>404 Not Found</body></html>", '{"message": "no route"}'])
@pytest.mark.parametrize("first", [True, False], ids=["first night", "later"])
def test_a_404_without_the_apis_own_error_is_no_empty_list(nights: StartNights, text: str, *, first: bool) -> None:
    night = nights(plain())
    if not first:
        night.run()
    before = night.missing_now()
    night.simulator.faults.add(Fault("bare_404", path=LIST, text=text))
    night.run(status=1)
    assert night.missing_now() == before


@pytest.mark.parametrize("tail", ["/api", "/api/", "/api/v1.0"])
def test_an_address_with_a_path_behind_it_is_no_empty_tenant(nights: StartNights, tail: str) -> None:
    """Put right, or refused: never taken for a tenant without machines."""
    night = nights(plain())
    messages = night.run(status=None, config={"api_url": night.simulator.url + tail})
    if messages.status == 0:
        assert night.missing_now() == night.true_pairs()
    else:
        assert (messages.status, "api_url" in messages.last_line) == (1, True)


@pytest.mark.parametrize("kind", ["not_found", "bare_404"])
def test_every_machine_answers_404(nights: StartNights, kind: str) -> None:
    """Where some answered before: exit status 1, every time; nothing is gone."""
    night = nights(plain())
    night.run()
    before = night.missing_now()
    night.simulator.faults.add(Fault(kind, path=KBS))
    for _ in range(3):
        night.time_passes()
        night.run(status=1)
        assert night.missing_now() == before
    night.simulator.faults.clear()
    night.time_passes(nights=1)
    night.run()
    night.assert_true()


@pytest.mark.parametrize("first", [True, False], ids=["first night", "later"])
def test_an_export_that_lists_no_files(nights: StartNights, *, first: bool) -> None:
    night = nights(plain(), {"missing_kbs_source": "export"})
    if not first:
        night.run()
    before = night.missing_now()
    night.simulator.faults.add(Fault("export_no_files"))
    night.simulator.exports.generate()
    night.run(status=1)
    assert night.missing_now() == before
    night.simulator.faults.clear()
    night.simulator.exports.generate()
    night.run(status=0)
    assert night.missing_now() == night.true_pairs()


@pytest.mark.parametrize("source", SOURCES[1:])
def test_an_export_of_nobody(nights: StartNights, source: str) -> None:
    """Not one record: no machine is in it, where all were before."""
    night = nights(plain(), {"missing_kbs_source": source})
    night.run()
    before = night.missing_now()
    ids = night.fleet.listed()
    night.fleet.exclude(*ids)
    night.simulator.exports.generate().content  # noqa: B018 - taken now
    night.fleet.include(*ids)
    night.time_passes()
    night.run(status=1)
    assert night.missing_now() == before


@pytest.mark.parametrize("share", [1, 2])
def test_how_many_may_fail_anew(nights: StartNights, share: int) -> None:
    """One in a hundred, exit status 0; two, 1: both held back for a night."""
    night = nights(plain(110))
    night.run()
    sick = sorted(night.fleet.assessed())[10 : 10 + 40 * share : 40]
    night.simulator.faults.add(*(Fault("503", machine=machine_id) for machine_id in sick))
    night.time_passes()
    night.run(status=share - 1)
    night.time_passes()
    night.run(status=0)
    night.assert_true(but=sick)


# A STATE that is not the last one


def states(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every STATE of a run, one by one."""
    return [copy.deepcopy(message["value"]) for message in messages if message["type"] == "STATE"]


@pytest.mark.parametrize("lag", [1, 3, 10, 30])
def test_a_state_that_lags_behind_costs_calls_and_no_truth(nights: StartNights, lag: int) -> None:
    """The target has loaded all, and passed on a STATE from before; versions only grow all the same."""
    night = nights(plain(30))
    told: list[dict[str, Any]] = []
    for _ in range(2):
        told += states(night.run(patience=night.eager).all)
        night.time_passes(nights=10)
    night.target.state = told[-min(lag + 1, len(told))]
    night.time_passes()
    night.run()
    night.time_passes()
    night.run()
    night.assert_true()


def test_a_state_whose_checks_lag_behind_loses_no_check(nights: StartNights) -> None:
    """The target flushed the updates and passed on their bookmark, and lost the checks after an older one."""
    night = nights(plain(30))
    messages = night.run(patience=night.eager)
    told = states(messages.all)
    for place in range(0, len(told), 4):
        other = nights_from(night, messages.all, told[place], told[-1])
        other.run()
        assert set(other.outcomes) == set(night.fleet.listed()), place
        other.assert_true()


def nights_from(night: ManyNights, messages: list[dict[str, Any]], old: dict[str, Any], new: dict[str, Any]) -> Any:
    """A target that has all rows but the checks that came after an older STATE."""
    other = ManyNights(night.folder, night.simulator)
    is_old = True
    for message in messages:
        if is_old or message.get("stream") != "missing_kbs_checks":
            other.target.take([message])
            other.kept.take([message] if message["type"] != "ACTIVATE_VERSION" else [])
        is_old = is_old and not (message["type"] == "STATE" and message["value"] == old)
    other.target.state = copy.deepcopy(new)
    other.target.state["bookmarks"]["missing_kbs_checks"] = old["bookmarks"]["missing_kbs_checks"]
    return other


def test_a_night_that_is_loaded_twice_is_the_same_night(nights: StartNights) -> None:
    night = nights(plain())
    night.run()
    night.time_passes(nights=10)
    messages = night.run()
    night.take(messages.all)
    night.assert_true()


def test_a_state_that_was_lost_deletes_nothing_that_is_there(nights: StartNights) -> None:
    """The tables are full, and the tap knows nothing of it: the first night is believed; it is the truth."""
    night = nights(plain())
    night.run()
    night.target.state = {}
    night.fleet.pass_days(10)
    messages = night.run()
    assert messages.of("ACTIVATE_VERSION", "missing_kbs")
    night.assert_true()
