"""One machine that is sick, or answers oddly: it is `failed`, with the reason, and holds nobody up.

All through the real command line and a socket, night after night with the state passed on, hurried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from mde_simulator import Fault, Fleet
from tests.support import reader
from tests.support.nights import ManyNights

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartSimulator

KBS = "/api/machines/*/getmissingkbs"
ALONE = {"max_parallel_requests": 1}


class StartNights(Protocol):
    """Makes the nights of one tenant."""

    def __call__(self, fleet: Fleet | int = 30, config: dict[str, Any] | None = None, **options: Any) -> ManyNights:
        """A fleet, or how many machines; settings of the tap; the options are the Simulator's."""


@pytest.fixture
def nights(simulate: StartSimulator, tmp_path: Path) -> StartNights:
    """Runs of a tap that hardly pauses before it asks again."""

    def start(fleet: Fleet | int = 30, config: dict[str, Any] | None = None, **options: Any) -> ManyNights:
        return ManyNights(tmp_path, simulate(fleet, **options), config or {})

    return start


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
    "half a surrogate": {"kind": "garbage", "text": '{"value": [{"id": "\\ud800"}]}'},
    "an id that is a list": {"kind": "garbage", "text": '{"value": [{"id": ["5000001"]}]}'},
    "an id that is no number": {"kind": "garbage", "text": '{"value": [{"id": ""}]}'},
    "nothing": {"kind": "garbage", "text": " "},
}


@pytest.mark.parametrize("kind", ODD)
def test_a_machine_that_answers_oddly_for_good_holds_nobody_up(nights: StartNights, kind: str) -> None:
    """Three nights: it is `failed` with a reason, the others are asked, fresh, and from the second night on activated."""
    night = nights()
    night.run()
    sick = lacking_most(night)
    night.simulator.faults.add(Fault(**{"kind": kind, "path": KBS, "machine": sick, **ODD[kind]}))
    for number in range(3):
        night.time_passes(nights=10)
        messages = night.run(status=0)
        assert night.outcomes[sick] == "failed"
        assert night.reasons[sick]
        assert "\n" not in night.reasons[sick]
        assert sum(outcome == "answered" for outcome in night.outcomes.values()) == len(night.fleet.assessed()) - 1
        assert bool(messages.of("ACTIVATE_VERSION", "missing_kbs")) == (number > 0)
        night.assert_true(but=[sick])
    assert night.asked.count(sick) <= 2, "once, or twice where a sweep is healed first"
    night.simulator.faults.clear()
    night.time_passes()
    night.run()
    night.assert_true()
