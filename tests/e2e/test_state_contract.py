"""STATE: every key in every one, small, the same version after a break, and safe in Meltano's own merge."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fault, Fleet
from tests.support.contract import answers_of
from tests.support.environments import uv
from tests.support.process import started
from tests.support.singer import BOOKMARKS, HURRIED, Target, half_a_day_passes, lacking, named

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator

State = dict[str, Any]
Message = dict[str, Any]
NULL = type(None)
KINDS: dict[str, dict[str, tuple[type, ...]]] = {
    "machines": {
        "version": (int,),
        "listed": (int, NULL),
        "listed_short": (int, NULL),
        "listing": (int,),
        "listed_at": (str, NULL),
    },
    "sweep": {
        "version": (int,),
        "scope": (str,),
        "began_at": (str, NULL),
        "progress_at": (str, NULL),
        "after": (str, NULL),
        "deferred": (list,),
        "failed": (list,),
        "failed_before": (list,),
        "asked_all": (bool,),
        "complete": (bool,),
        "counts": (dict,),
        "answered_last": (int, NULL),
        "answered_short": (int, NULL),
        "pairs_last": (int, NULL),
        "pairs_short": (int, NULL),
        "source_time": (str, NULL),
    },
    "checks": {"version": (int,), "after": (str, NULL), "asked_all": (bool,), "counts": (dict,)},
}
"""The contract: all of these in every STATE, and no other."""
MOST_BYTES = 8192
AT_ONCE = replace(HURRIED, state=0.0)
"""A STATE after each machine."""
MELTANO = "meltano==4.4.1"


def sweep_of(state: State) -> dict[str, Any]:
    """The sweep's bookmark."""
    bookmark: dict[str, Any] = state["bookmarks"]["missing_kbs"]["sweep"]
    return bookmark


def checks_of(state: State) -> dict[str, Any]:
    """The same progress again, under the checks."""
    bookmark: dict[str, Any] = state["bookmarks"]["missing_kbs_checks"]
    return bookmark


def states_of(messages: Iterable[Message]) -> list[State]:
    """The value of each STATE."""
    return [message["value"] for message in messages if message["type"] == "STATE"]


def assert_contract(states: Iterable[State]) -> None:
    """Every key at every level, of its type, in few bytes."""
    counted = set()
    for state in states:
        assert set(state) == {"bookmarks"}
        assert set(state["bookmarks"]) == BOOKMARKS
        assert set(state["bookmarks"]["missing_kbs"]) == {"sweep"}
        sweep, checks = sweep_of(state), checks_of(state)
        for name, bookmark in (("machines", state["bookmarks"]["machines"]), ("sweep", sweep), ("checks", checks)):
            assert set(bookmark) == set(KINDS[name])
            assert {key: type(value) for key, value in bookmark.items() if type(value) not in KINDS[name][key]} == {}
        for name in ("version", "after", "asked_all"):
            assert checks[name] == sweep[name]
        shared = {name: value for name, value in checks["counts"].items() if name != "deferred"}
        assert shared.items() <= sweep["counts"].items()
        counted |= {(frozenset(sweep["counts"]), frozenset(checks["counts"]))}
        assert len(json.dumps(state)) < MOST_BYTES
    assert len(counted) == 1, "the counts have other keys at other times"


class Runs:
    """Runs that write a STATE with every machine, one after the other."""

    def __init__(self, folder: Path, simulator: Simulator, **config: Any) -> None:
        self.folder, self.simulator, self.config = folder, simulator, config
        self.target = Target()
        self.states: list[State] = []

    def run(self, *, status: int = 0, state: State | None = None, interrupt_after: int | None = None) -> list[Message]:
        """Run once, from the last state or another; what it wrote."""
        before = len(self.simulator.journal)
        state = self.target.state if state is None else state
        with started(self.folder, self.simulator, state, patience=AT_ONCE, **self.config) as run:
            if interrupt_after is not None:
                run.read_until(asked=interrupt_after)
                run.send(signal.SIGTERM)
            run.end()
        assert run.process.returncode == status, run.stderr
        self.asked = [entry.machine_id for entry in self.simulator.journal[before:] if entry.machine_id]
        self.target.take(run.messages())
        self.states += states_of(run.messages())
        return run.messages()

    @property
    def truth(self) -> dict[str, frozenset[str]]:
        """What the table of missing KBs should hold."""
        return lacking(answers_of(self.simulator.fleet))


def test_every_state_has_every_key_and_a_resumed_sweep_keeps_its_version(
    simulate: StartSimulator, tmp_path: Path
) -> None:
    """Deferred machines, a break, a failure, healing, half of the machines hidden."""
    simulator = simulate(60, latency=0.02)
    fleet = simulator.fleet
    runs = Runs(tmp_path, simulator)
    for machine_id in fleet.assessed()[::3]:
        simulator.faults.add(Fault("flapping", machine=machine_id))
    runs.run(status=143, interrupt_after=15)
    version = sweep_of(runs.target.state)["version"]
    runs.run()
    assert sweep_of(runs.target.state)["version"] == version
    assert any(sweep_of(state)["deferred"] for state in runs.states)
    assert runs.target.missing == runs.truth

    simulator.faults.clear()
    simulator.faults.add(Fault("500", machine=fleet.assessed()[4]))
    runs.run()
    failed_in = sweep_of(runs.target.state)["version"]
    assert failed_in > version
    simulator.faults.clear()
    runs.run()
    assert sweep_of(runs.target.state)["version"] == failed_in
    fleet.hide(fleet.listed()[::2])
    runs.run()
    runs.run()
    assert sweep_of(runs.target.state)["complete"]
    assert len(runs.states) > 100
    assert_contract(runs.states)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"bookmarks": {}},
        {"bookmarks": {"machines": {}, "missing_kbs": {}, "missing_kbs_checks": {}}},
        {"bookmarks": {"missing_kbs": {"sweep": {"version": 7, "later": 1}, "partitions": []}, "other": {"a": 1}}},
        {"bookmarks": {"machines": {"version": "7", "listed": -1}, "missing_kbs": {"sweep": {"failed": "all"}}}},
    ],
    ids=["nothing", "no bookmarks", "no keys", "keys of others", "odd values"],
)
def test_a_state_of_another_version_is_made_whole(simulate: StartSimulator, tmp_path: Path, state: State) -> None:
    """Keys left out, keys too many, values of another kind."""
    runs = Runs(tmp_path, simulate(6))
    runs.run(state=state)
    assert_contract(runs.states)
    assert runs.target.missing == runs.truth


def test_fifty_failed_machines_fit(simulate: StartSimulator, tmp_path: Path) -> None:
    """Now and in the sweep before, and others deferred."""
    simulator = simulate(Fleet(160, seed=1, discovered=0))
    ill = simulator.fleet.assessed()[::3][:50]
    simulator.faults.add(*(Fault("html", machine=machine_id) for machine_id in ill))
    runs = Runs(tmp_path, simulator, max_parallel_requests=24)
    runs.run(status=1)
    assert named(sweep_of(runs.target.state)["failed"]) == 50
    half_a_day_passes(runs.target.state)
    runs.run()
    assert named(sweep_of(runs.target.state)["failed_before"]) == 50
    assert_contract(runs.states)


@pytest.mark.parametrize("letter", ["x", "é"], ids=["ASCII", "escaped in JSON"])
def test_long_ids_fit(simulate: StartSimulator, tmp_path: Path, letter: str) -> None:
    """Four hundred letters each, every second one ill: so many are not kept, the run stops as with a dead API."""
    fleet = Fleet(20, seed=1, discovered=0)
    ids = [fleet.add(id=f"{number:03}{letter * 400}") for number in range(40)]
    simulator = simulate(fleet)
    simulator.faults.add(*(Fault("html", machine=machine_id) for machine_id in ids[::2]))
    runs = Runs(tmp_path, simulator, max_parallel_requests=24)
    runs.run(status=1)
    assert any(sweep_of(state)["failed"] or sweep_of(state)["deferred"] for state in runs.states)
    assert_contract(runs.states)
    simulator.faults.clear()
    runs.run()
    assert sweep_of(runs.target.state)["complete"]
    assert runs.target.missing == runs.truth


def test_a_state_comes_about_every_ten_seconds(simulate: StartSimulator, tmp_path: Path) -> None:
    """Of the command as it is, in the middle of a sweep that takes longer."""
    simulator = simulate(Fleet(60, seed=1, discovered=0), latency=0.22)
    with started(tmp_path, simulator, patience=None, max_parallel_requests=1) as run:
        run.end()
    assert run.process.returncode == 0
    states = states_of(run.messages())
    assert [sweep_of(state)["complete"] for state in states[-2:]] == [False, True]
    assert any(0 < sweep_of(state)["counts"]["answered"] < 60 for state in states)
    assert len(states) < 10
    assert_contract(states)


def test_every_state_leads_to_the_right_table(simulate: StartSimulator, tmp_path: Path) -> None:
    """What came before it, then the next run from it: none is too far, and nobody who was written is asked again."""
    simulator = simulate(40)
    simulator.faults.add(*(Fault("flapping", machine=machine_id) for machine_id in simulator.fleet.assessed()[::5]))
    runs = Runs(tmp_path, simulator)
    messages = runs.run()
    positions = [number for number, message in enumerate(messages) if message["type"] == "STATE"]
    for position in positions[:: max(1, len(positions) // 7)]:
        runs.target = Target()
        runs.target.take(messages[: position + 1])
        written = {machine_id for machine_id, _ in runs.target.rows.get("missing_kbs_checks", {})}
        complete = sweep_of(runs.target.state)["complete"]
        runs.run()
        assert runs.target.missing == runs.truth
        assert complete or written.isdisjoint(runs.asked)


# In Meltano's own hands


@pytest.fixture
def merge(tmp_path: Path) -> Any:
    """Meltano's state service, in an environment of its own that uv makes and keeps."""
    environ = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}

    def merged(histories: list[list[tuple[str, State]]]) -> list[State]:
        program = Path(__file__).parents[1] / "support" / "meltano_merge.py"
        results = tmp_path / "merged.json"
        command = [uv(), "run", "--no-project", "--isolated", "--with", MELTANO, "python", str(program)]
        done = subprocess.run(
            [*command, str(tmp_path / "project"), str(results)],
            input=json.dumps(histories),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environ,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found: list[State] = json.loads(results.read_text())
        return found

    return merged


@pytest.mark.long
def test_meltano_merges_any_state_over_any_other_to_that_state(
    simulate: StartSimulator, tmp_path: Path, merge: Any
) -> None:
    """Plain, `--full-refresh` (or `--state-strategy=merge`), `meltano state merge`: the next run from each is right."""
    simulator = simulate(30)
    fleet = simulator.fleet
    runs = Runs(tmp_path, simulator)
    simulator.faults.add(Fault("500", machine=fleet.assessed()[2]))
    runs.run()
    old = runs.target.state
    simulator.faults.clear()
    simulator.faults.add(*(Fault("flapping", machine=machine_id) for machine_id in fleet.assessed()[::5]))
    fleet.pass_days(30)
    new = states_of(runs.run(state={}))
    broken_off = new[len(new) // 2]
    histories, expected = [], []
    for state in new:
        for ending in ("plain", "full refresh", "meltano state merge"):
            for before in ([("plain", old)], [("plain", old), ("full refresh", broken_off)], []):
                histories.append([*before, (ending, state)])
                expected.append(state)
    results = merge(histories)
    assert results == expected

    for state in results[:: len(results) // 6]:
        runs.target.state = state
        runs.run()
        if sweep_of(runs.target.state)["version"] > sweep_of(state)["version"]:
            assert set(runs.asked) == set(fleet.assessed())
        assert runs.target.missing == runs.truth
