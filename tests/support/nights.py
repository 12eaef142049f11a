"""Many nights of one tenant: the state passed on, two played targets, and what must hold after each night.

One target deletes what ACTIVATE_VERSION says, the other deletes nothing: a reader concludes the same of both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.support import reader
from tests.support.singer import HURRIED, Messages, Target, run_tap

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from mde_simulator import Fleet, Simulator
    from tap_mde_kbs.patience import Patience
    from tests.conftest import StartSimulator

Pairs = set[tuple[str, str]]


@dataclass
class ManyNights:
    """Runs of one tenant, one after the other.

    Attributes:
        target: Deletes what is activated.
        kept: Deletes nothing.
        asked: The machines asked in the last run, once for every call.
    """

    folder: Path
    simulator: Simulator
    config: dict[str, Any] = field(default_factory=dict)
    target: Target = field(default_factory=Target)
    kept: Target = field(default_factory=Target)
    asked: list[str] = field(default_factory=list)

    @property
    def eager(self) -> Patience:
        """A tap that writes a STATE after each machine."""
        return replace(HURRIED, state=0)

    @property
    def fleet(self) -> Fleet:
        """The truth."""
        return self.simulator.fleet

    def run(self, *, status: int | None = 0, **options: Any) -> Messages:
        """Run once from the last state; it ends with this exit status (None: any), and the tables agree."""
        before = len(self.simulator.journal)
        options = {"config": self.config, "state": self.target.state, "patience": HURRIED, **options}
        messages = run_tap(self.folder, self.simulator, **options)
        self.asked = [entry.machine_id for entry in self.simulator.journal[before:] if entry.machine_id]
        assert status in {None, messages.status}, messages.stderr
        assert "Traceback" not in messages.stderr
        self.take(messages.all)
        return messages

    def take(self, messages: list[dict[str, Any]]) -> None:
        """Load what a run wrote, and look at the tables and at STATE."""
        keys = _keys(self.target.state) if self.target.state else None
        self.target.take(messages)
        self.kept.take(message for message in messages if message["type"] != "ACTIVATE_VERSION")
        for state in (message["value"] for message in messages if message["type"] == "STATE"):
            assert len(json.dumps(state)) < reader.ATMOST
            assert keys in {None, _keys(state)}, "every STATE has the same keys"
            keys = _keys(state)
        for sweep in reader.rows(self.target, "sweeps"):
            reader.assert_sums(self.target, sweep)

    def time_passes(self, days: float = 1, nights: int = 0) -> None:
        """The moments of STATE lie so much further back; the fleet lives so many nights."""
        self.target.state = _aged(self.target.state, timedelta(days=days))
        self.fleet.pass_days(nights)

    # What the tables say

    @property
    def sweep(self) -> dict[str, Any]:
        """The row of the newest sweep."""
        return reader.newest_sweep(self.target)

    @property
    def outcomes(self) -> dict[str, str]:
        """What became of each machine of the newest sweep."""
        checks = reader.checks_of(self.target, self.sweep["sweep"])
        return {machine_id: check["outcome"] for machine_id, check in checks.items()}

    @property
    def reasons(self) -> dict[str, str]:
        """Why machines of the newest sweep were not asked, or failed."""
        checks = reader.checks_of(self.target, self.sweep["sweep"])
        return {machine_id: check["reason"] for machine_id, check in checks.items() if check["reason"]}

    def missing_now(self, but: Collection[str] = ()) -> Pairs:
        """What a reader concludes, the same whether the target deletes or not; some machines left out."""
        found, all_kept = reader.missing_now(self.target), reader.missing_now(self.kept)
        found, all_kept = ({pair for pair in pairs if pair[0] not in but} for pairs in (found, all_kept))
        assert found == all_kept, "it differs between a target that deletes and one that does not"
        return found

    # The truth

    def true_pairs(self, but: Collection[str] = ()) -> Pairs:
        """What the assessed machines of the fleet lack today; of a source that is an export, what that says."""
        by_export = self.config.get("missing_kbs_source", "per_machine") != "per_machine"
        missing = self.simulator.exports.missing() if by_export else self.fleet.missing()
        return {(id_, kb) for id_ in self.fleet.assessed() if id_ not in but for kb in missing.get(id_, ())}

    def assert_true(self, but: Collection[str] = ()) -> None:
        """What a reader concludes is the truth of today, and every listed machine has its one outcome."""
        assert self.missing_now(but) == self.true_pairs(but)
        assert reader.present(self.target) == set(self.fleet.listed())
        unknown = self.fleet.not_assessed()
        expected = {id_: "skipped" if id_ in unknown else "answered" for id_ in self.fleet.listed()}
        assert {id_: kind for id_, kind in self.outcomes.items() if id_ not in but} == {
            id_: kind for id_, kind in expected.items() if id_ not in but
        }
        assert {id_: why for id_, why in self.reasons.items() if id_ not in but} == {
            id_: why for id_, why in unknown.items() if id_ not in but
        }
        assert self.sweep["is_believed"] is True


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


def _keys(state: Any, path: str = "") -> frozenset[str]:
    """All keys of a document, at every level."""
    if not isinstance(state, dict):
        return frozenset({path})
    return frozenset({path}).union(*(_keys(value, f"{path}/{key}") for key, value in state.items()))


def _aged(value: Any, age: timedelta) -> Any:
    """A document in which every moment lies further back."""
    if isinstance(value, dict):
        return {key: item if key in {"source_time", "listed_at"} else _aged(item, age) for key, item in value.items()}
    if isinstance(value, str) and value.endswith("Z"):
        return f"{datetime.fromisoformat(value.replace('Z', '+00:00')) - age:%Y-%m-%dT%H:%M:%S.%fZ}"
    return value
