"""An upgrade on any night: a STATE of the version before goes on without a loss, and so does a warehouse it filled."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fault, Fleet
from tests.support import earlier
from tests.support.contract import answers_of
from tests.support.singer import HURRIED, Messages, Target, lacking, run_tap
from tests.support.warehouse import assert_right_so_far, pairs, true_machines, true_missing_kbs

if TYPE_CHECKING:
    from pathlib import Path

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator
    from tests.e2e.conftest import Connect

State = dict[str, Any]


@pytest.fixture
def simulator(simulate: StartSimulator) -> Simulator:
    """A tenant with machines that are silent, excluded, not onboarded."""
    simulator = simulate(Fleet(80, seed=1, excluded=0.1, silent=0.1))
    assert {"not_onboarded", "excluded", "silent"} <= set(simulator.fleet.not_assessed().values())
    return simulator


def nights_of_the_earlier(folder: Path, simulator: Simulator) -> tuple[list[earlier.Message], ...]:
    """What the version before wrote in two nights, 30 days apart."""
    written: list[list[earlier.Message]] = []
    state: State = {}
    for days in (0, 30):
        simulator.fleet.pass_days(days)
        run = run_tap(folder, simulator, config=earlier.ASKS_EVERYBODY, state=state, patience=HURRIED)
        assert run.status == 0, run.stderr
        state = run.state
        written.append(earlier.messages_of(run.all))
    return tuple(written)


def target_of(*nights: list[earlier.Message]) -> Target:
    """A target that has loaded them."""
    target = Target()
    for messages in nights:
        target.take(messages)
    return target


def asked_by(folder: Path, simulator: Simulator, target: Target, state: State) -> tuple[Messages, set[str]]:
    """A run of today from that state, and whom it asked; nobody twice."""
    while 0 < sweep_of(state) - time.time() < 5:  # nights in one second: the sweep's version lies in the future
        time.sleep(0.05)
    before = len(simulator.journal)
    run = run_tap(folder, simulator, state=state, patience=HURRIED)
    assert run.status == 0, run.stderr
    target.take(run.all)
    asked = [entry.machine_id for entry in simulator.journal[before:] if entry.machine_id]
    assert len(asked) == len(set(asked))
    return run, set(asked)


def assert_true(target: Target, simulator: Simulator, sweep: int) -> None:
    """Nothing is lost: each machine has an outcome in the sweep, and what is missing now is the truth."""
    fleet = simulator.fleet
    assert target.missing_now == lacking(answers_of(fleet))
    assert {machine_id for machine_id, of in target.rows["missing_kbs_checks"] if of == sweep} == set(fleet.listed())
    assert {key for (key,) in target.rows["machines"]} == set(fleet.listed())
    judged = target.rows["sweeps"][sweep,]
    assert (judged["is_complete"], judged["is_believed"]) == (True, True)


def test_a_sweep_in_the_middle_is_gone_on_with(simulator: Simulator, tmp_path: Path) -> None:
    """Under the same version, with the machines after the cursor and those that it had deferred."""
    first, second = nights_of_the_earlier(tmp_path, simulator)
    half = earlier.up_to_check(second, 40)
    later = half.pop()["record"]["machine_id"]  # it said 404, and waited for its second turn
    while half[-1].get("record", {}).get("machine_id") == later:
        half.pop()
    target = target_of(first, half)
    before = len(target.rows["machines"])
    state = earlier.state_of(simulator, half, after=later, deferred=[later], answered_last=60)
    passed = {
        row["machine_id"] for row in target.rows["missing_kbs_checks"].values() if row["sweep"] == sweep_of(state)
    }

    run, asked = asked_by(tmp_path, simulator, target, state)
    assert run.sweep["version"] == sweep_of(state)
    assert asked == set(simulator.fleet.assessed()) - passed
    assert run.of("ACTIVATE_VERSION", "missing_kbs")
    # Silent machines that were asked before the upgrade answered that they lack nothing; the next sweep knows better.
    assert target.missing_now == lacking(answers_of(simulator.fleet))
    assert before == len(target.rows["machines"])
    assert_true(target, simulator, sweep_of(state))


def test_after_a_finished_sweep_a_new_one_begins(simulator: Simulator, tmp_path: Path) -> None:
    """Order goes on: it is later than the last one, even where that one's clock was ahead."""
    first, second = nights_of_the_earlier(tmp_path, simulator)
    target = target_of(first, second)
    ahead = sweep_of(earlier.state_of(simulator, second)) + 86400
    finished = {"asked_all": True, "complete": True, "answered_last": len(answers_of(simulator.fleet))}
    state = earlier.state_of(simulator, second, version=ahead, **finished)
    simulator.fleet.pass_days(30)

    run, asked = asked_by(tmp_path, simulator, target, state)
    assert run.sweep["version"] > ahead
    assert asked == set(simulator.fleet.assessed())
    assert target.missing == lacking(answers_of(simulator.fleet))
    assert_true(target, simulator, run.sweep["version"])


def test_a_sweep_that_a_machine_held_back_is_healed(simulator: Simulator, tmp_path: Path) -> None:
    """The machine is asked again, the sweep is activated, and nobody else is asked."""
    first, second = nights_of_the_earlier(tmp_path, simulator)
    ill = next(iter(lacking(answers_of(simulator.fleet))))
    second = [
        {**message, "record": {**message["record"], **FAILED}} if is_of(message, "missing_kbs_checks", ill) else message
        for message in second
        if message["type"] != "ACTIVATE_VERSION" and not is_of(message, "missing_kbs", ill)
    ]
    target = target_of(first, second)
    state = earlier.state_of(simulator, second, asked_all=True, failed=[ill], answered_last=60)

    run, asked = asked_by(tmp_path, simulator, target, state)
    assert asked == {ill}
    assert run.sweep["version"] == sweep_of(state)
    assert run.of("ACTIVATE_VERSION", "missing_kbs")
    assert target.missing == lacking(answers_of(simulator.fleet))
    assert_true(target, simulator, sweep_of(state))


def test_who_failed_before_the_upgrade_is_known_after_it(simulator: Simulator, tmp_path: Path) -> None:
    """It is asked once, holds nothing back, and the rest is activated."""
    _, second = nights_of_the_earlier(tmp_path, simulator)
    ill = next(iter(lacking(answers_of(simulator.fleet))))
    target = target_of(second)
    finished = {"asked_all": True, "complete": True, "answered_last": 60, "failed": [ill], "failed_before": [ill]}
    state = earlier.state_of(simulator, second, **finished)
    simulator.faults.add(Fault("500", machine=ill))

    run, asked = asked_by(tmp_path, simulator, target, state)
    assert asked == set(simulator.fleet.assessed())
    assert run.of("ACTIVATE_VERSION", "missing_kbs")


@pytest.mark.parametrize("middle", [True, False], ids=["in mid-sweep", "after a finished sweep"])
def test_a_warehouse_that_it_filled_answers_right_after_the_next_run(
    simulator: Simulator, connect: Connect, *, middle: bool
) -> None:
    """target-postgres adds the columns; rows without them count by the time of their check."""
    pipeline, warehouse = connect(simulator)
    first, second = nights_of_the_earlier(pipeline.folder, simulator)
    pipeline.load(first)
    if middle:
        second = earlier.up_to_check(second, 40)
        pipeline.state = earlier.state_of(simulator, second, answered_last=60)
    else:
        pipeline.state = earlier.state_of(simulator, second, asked_all=True, complete=True, answered_last=60)
    pipeline.load(second)
    assert {column for row in warehouse.all("missing_kbs") for column in row} & {"sweep"} == set()

    pipeline.run_whole()
    assert warehouse.rows_missing_now() == true_missing_kbs(simulator.fleet)
    assert warehouse.machines() == true_machines(simulator.fleet)
    assert bool(warehouse.query("SELECT 1 FROM missing_kbs WHERE sweep IS NULL AND _sdc_deleted_at IS NULL")) == middle


def test_a_warehouse_that_it_filled_is_right_in_the_middle_of_the_next_sweep(
    simulator: Simulator, connect: Connect
) -> None:
    """Out of time after the upgrade: who was not asked yet is as the version before left it."""
    pipeline, warehouse = connect(simulator)
    _, second = nights_of_the_earlier(pipeline.folder, simulator)
    pipeline.load(second)
    pipeline.state = earlier.state_of(simulator, second, asked_all=True, complete=True, answered_last=60)
    before = pairs(simulator.fleet)
    simulator.fleet.pass_days(30)
    simulator.faults.add(Fault("503", path="*/getmissingkbs", after=30))
    assert pipeline.run().status == 1
    assert_right_so_far(warehouse, before, simulator.fleet)


FAILED = {"outcome": "failed", "missing_kbs": None, "missing_kb_ids": None}


def is_of(message: earlier.Message, stream: str, machine_id: str) -> bool:
    """Whether it is a RECORD about the machine in that stream."""
    return message["type"] == "RECORD" and (message["stream"], message["record"].get("machine_id")) == (
        stream,
        machine_id,
    )


def sweep_of(state: State) -> int:
    """The version of the sweep in a STATE."""
    return int(state["bookmarks"]["missing_kbs"]["sweep"]["version"])
