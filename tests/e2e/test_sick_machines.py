"""One machine that is sick, or answers oddly: it is `failed`, with the reason, and holds nobody up.

All through the real command line and a socket, night after night with the state passed on, hurried.
"""

from __future__ import annotations

from typing import Any

import pytest

from mde_simulator import Fault, Fleet
from tests.support.nights import ManyNights, StartNights, nights

KBS = "/api/machines/*/getmissingkbs"
ALONE = {"max_parallel_requests": 1}


__all__ = ["nights"]


def lacking_most(night: ManyNights) -> str:
    """The machine that lacks most: of which there is most to lose."""
    missing = night.fleet.missing()
    return max(night.fleet.assessed(), key=lambda machine_id: len(missing[machine_id]))


ODD: dict[str, dict[str, Any]] = {
    **{kind: {} for kind in ("500", "502", "503", "504", "reset", "cut", "html", "garbage")},
    **{kind: {} for kind in ("null_value", "no_value", "bare_list", "null_id", "error_in_200", "no_id")},
    **{kind: {} for kind in ("not_a_list", "not_an_object", "forbidden", "unlicensed", "redirect")},
    "bomb": {"size": 200_000_000},
    "nested": {},
    "long_error": {},
    "control_error": {},
    "echo": {},
    **{str(status): {"kind": "control_error", "status": status} for status in (401, 405, 409, 410, 412, 413, 418, 422)},
    "a number": {"kind": "garbage", "text": "7"},
    "null": {"kind": "garbage", "text": "null"},
    "not a number": {"kind": "garbage", "text": '{"value": NaN}'},
    "an id that is a list": {"kind": "garbage", "text": '{"value": [{"id": ["5000001"]}]}'},
    "an id that is no number": {"kind": "garbage", "text": '{"value": [{"id": ""}]}'},
    "nothing": {"kind": "garbage", "text": " "},
    "404 of nobody": {"kind": "bare_404"},
}


def odd(kind: str, machine_id: str) -> Fault:
    """A fault of one machine, for good."""
    return Fault(**{"kind": kind, "path": KBS, "machine": machine_id, **ODD[kind]})


@pytest.mark.parametrize("kind", ["500", "null_value", "null_id", "forbidden", "nothing", "404 of nobody"])
def test_a_machine_that_answers_oddly_for_good_holds_nobody_up(nights: StartNights, kind: str) -> None:
    """Three nights: it is `failed` with a reason, the others fresh, and activated from the second on."""
    night = nights(12)
    night.run()
    sick = lacking_most(night)
    night.simulator.faults.add(odd(kind, sick))
    for number in range(3):
        night.time_passes(nights=10)
        messages = night.run(status=0)
        assert (night.outcomes[sick], bool(night.reasons[sick])) == ("failed", True)
        assert bool(messages.of("ACTIVATE_VERSION", "missing_kbs")) == (number > 0)
        night.assert_true(but=[sick])
    night.simulator.faults.clear()
    night.time_passes()
    night.run()
    night.assert_true()


def test_machines_that_are_odd_in_forty_ways_hold_nobody_up(nights: StartNights) -> None:
    """Each is `failed`, with its reason in a line; all others are fresh, from the second night on activated."""
    night = nights(2 * len(ODD))
    night.run()
    sick = dict(zip(sorted(night.fleet.assessed())[3:], ODD, strict=False))
    assert len(sick) == len(ODD)
    night.simulator.faults.add(*(odd(kind, machine_id) for machine_id, kind in sick.items()))
    for number in range(2):
        night.time_passes(nights=10)
        messages = night.run(status=0 if number else 1)
        assert {sick[id_]: night.outcomes[id_] for id_ in sick} == dict.fromkeys(ODD, "failed")
        assert all("\n" not in night.reasons[id_] and len(night.reasons[id_]) < 1000 for id_ in sick)
        assert bool(messages.of("ACTIVATE_VERSION", "missing_kbs")) == (number > 0)
        assert night.true_pairs(but=sick) <= night.missing_now(but=sick)
    night.assert_true(but=sick)
    night.time_passes()
    night.run()
    assert {sick[id_] for id_ in sick if night.asked.count(id_) != 1} == set()
    night.simulator.faults.clear()
    night.time_passes()
    night.run()
    night.assert_true()


def test_two_new_ones_are_exit_status_1_and_hold_the_rest_back_for_a_night(nights: StartNights) -> None:
    """More than one, and more than one in a hundred; healed or not, the next night goes on without them."""
    night = nights()
    night.run()
    before = night.missing_now()
    sick = night.fleet.assessed()[4:20:15]
    night.simulator.faults.add(Fault("null_value", machine=sick[0]), Fault("500", machine=sick[1]))
    night.time_passes()
    messages = night.run(status=1)
    assert not messages.of("ACTIVATE_VERSION", "missing_kbs")
    assert night.missing_now() == before
    assert "2 machines" in messages.last_line
    night.time_passes(nights=5)
    assert night.run(status=0).of("ACTIVATE_VERSION", "missing_kbs")
    night.assert_true(but=sick)


def test_another_machine_fails_every_night(nights: StartNights) -> None:
    """Never the same: healed first thing the next night, then activated; the tables are at most a night old."""
    night = nights(60)
    night.run()
    ids = night.fleet.assessed()
    for number in range(4):
        night.simulator.faults.clear()
        night.simulator.faults.add(Fault("500", machine=ids[5 * number]))
        night.time_passes(nights=3)
        messages = night.run(status=0)
        versions = [message["version"] for message in messages.of("ACTIVATE_VERSION", "missing_kbs")]
        assert len(versions) == (1 if number else 0), "last night's sweep, healed"
        if number:
            assert night.asked[0] == ids[5 * (number - 1)], "first thing"
    night.simulator.faults.clear()
    night.time_passes()
    night.run()
    night.assert_true()


def test_who_failed_before_is_asked_in_one_call(nights: StartNights) -> None:
    """The sick do not eat the quota."""
    night = nights()
    night.run()
    sick = lacking_most(night)
    night.simulator.faults.add(Fault("503", machine=sick))
    night.time_passes()
    night.run()
    night.time_passes()
    night.run()
    for _ in range(2):
        night.time_passes()
        night.run()
        assert night.asked.count(sick) == 1
        assert len(night.asked) == len(night.fleet.assessed())


@pytest.mark.parametrize("kind", ["500", "reset", "forbidden", "null_value", "not_found"])
@pytest.mark.parametrize("where", ["first", "last", "middle"])
def test_twelve_in_a_row_are_sick_and_the_rest_is_not(nights: StartNights, kind: str, where: str) -> None:
    """They are no API that is down: the sweep ends, exit status 1 once; from the second night on all is well."""
    night = nights(60)
    night.run()
    ids = sorted(night.fleet.assessed())
    sick = {"first": ids[:12], "last": ids[-12:], "middle": ids[20:32]}[where]
    night.simulator.faults.add(*(Fault(kind, machine=machine_id) for machine_id in sick))
    night.time_passes()
    messages = night.run(status=0 if kind == "not_found" else 1)
    assert "API is down" not in messages.stderr
    assert {machine_id for machine_id, outcome in night.outcomes.items() if outcome == "answered"} == set(ids) - {*sick}
    night.time_passes(nights=10)
    night.run(status=0)
    if kind != "not_found":
        night.assert_true(but=sick)
    night.simulator.faults.clear()
    night.time_passes()
    night.run(status=0)
    night.assert_true()


@pytest.mark.parametrize("kind", ["503", "reset", "html", "forbidden", "not_a_list"])
def test_nobody_answers_any_more(nights: StartNights, kind: str) -> None:
    """From the third machine on, for every call: exit status 1, nothing is gone; the next run makes it true."""
    night = nights()
    night.run()
    before = night.missing_now()
    night.simulator.faults.add(Fault(kind, path=KBS, after=3))
    night.time_passes(nights=4)
    night.run(status=1)
    assert before & night.true_pairs() <= night.missing_now()
    night.simulator.faults.clear()
    night.run(status=0)
    night.time_passes()
    night.run(status=0)
    night.assert_true()


def test_more_are_sick_than_state_can_name(nights: StartNights) -> None:
    """The sweep ends as well, is not activated, exit status 1, and says so; all is well when they are."""
    night = nights(Fleet(440, seed=3, discovered=0, excluded=0, silent=0))
    night.run()
    before = night.missing_now()
    night.simulator.faults.add(*(Fault("null_value", machine=id_) for id_ in sorted(night.fleet.assessed())[::2]))
    for _ in range(2):
        night.time_passes()
        messages = night.run(status=1)
        assert not messages.of("ACTIVATE_VERSION", "missing_kbs")
        assert night.sweep["is_complete"]
        assert "more than STATE can name" in messages.last_line
        assert night.missing_now() == before
    night.simulator.faults.clear()
    night.time_passes()
    night.run()
    night.assert_true()


def test_a_sick_machine_that_leaves_falls_silent_or_is_excluded_is_no_longer_waited_for(nights: StartNights) -> None:
    """Each failed the night before, and held the sweep back."""
    night = nights(40)
    night.run()
    first, second, third = night.fleet.assessed()[3:24:8]
    night.simulator.faults.add(*(Fault("reset", machine=machine_id) for machine_id in (first, second, third)))
    night.time_passes()
    night.run(status=1)
    night.fleet.remove(first)
    night.fleet.exclude(second)
    night.fleet.change(third, onboardingStatus="CanBeOnboarded")
    night.time_passes()
    night.run(status=0)
    night.assert_true()


def test_a_sick_machine_in_a_sweep_of_many_short_runs(nights: StartNights) -> None:
    """The first machine of all is sick and slow: everybody's turn comes in a bounded number of runs."""
    night = nights(40, {**ALONE, "time_limit_minutes": 0.03}, latency=0.1)
    ids = sorted(night.fleet.assessed())
    night.simulator.faults.add(Fault("null_value", machine=ids[0]), Fault("503", machine=ids[1]))
    met: set[str] = set()
    runs = 0
    while not met.issuperset(ids):
        runs += 1
        assert runs < 20, len(met)
        night.time_passes()
        night.run(status=0)
        met |= set(night.asked)


@pytest.mark.parametrize("size", [1, 20])
def test_entries_of_the_list_without_an_id_are_dropped(nights: StartNights, size: int) -> None:
    """With a warning; the others are as ever."""
    night = nights(config={})
    night.run()
    night.simulator.faults.add(Fault("no_id_entry", size=size))
    night.time_passes(nights=2)
    messages = night.run(status=0)
    assert "WARN" in messages.stderr
    night.assert_true()


def test_ten_thousand_entries_without_an_id_are_a_wrong_host(nights: StartNights) -> None:
    night = nights()
    night.run()
    before = night.missing_now()
    night.simulator.faults.add(Fault("no_id_entry", size=10_000, times=100))
    night.time_passes()
    night.run(status=1)
    assert night.missing_now() == before


def test_a_kb_twice_in_an_answer_is_one_with_both_products(nights: StartNights) -> None:
    night = nights()
    night.simulator.faults.add(Fault("kb_twice"))
    night.run()
    night.assert_true()
    for row in night.target.rows["missing_kbs"].values():
        assert "edge_chromium-based" in row["products_names"]


@pytest.mark.parametrize("kind", ["export_surrogate", "export_not_utf8", "export_bom", "export_camel", "export_mixed"])
@pytest.mark.parametrize("column", ["DiskPaths", "DeviceName", "CveBatchTitle"])
def test_one_broken_string_is_not_a_broken_export(nights: StartNights, kind: str, column: str) -> None:
    night = nights(config={"missing_kbs_source": "export"})
    night.run()
    before = night.missing_now()
    night.simulator.faults.add(Fault(kind, text=column))
    night.simulator.exports.generate()
    night.time_passes()
    night.run(status=0)
    assert night.missing_now() == before
    assert night.sweep["is_believed"] is True


def test_ids_of_updates_as_exports_spell_them(nights: StartNights) -> None:
    """With `KB` or blanks around them, and some that are none: the same updates, each once."""
    night = nights(config={"missing_kbs_source": "export"})
    night.run()
    before = night.missing_now()
    night.simulator.faults.add(Fault("export_odd_ids"))
    night.simulator.exports.generate()
    night.time_passes()
    night.run(status=0)
    assert night.missing_now() == before
