"""A run broken off anywhere, by anything: what the target keeps is right, and little is asked again.

Each random moment is drawn from a seed and printed, so that pytest shows it with a failure.
"""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from mde_simulator import Fault, Fleet
from tap_mde_kbs.patience import Patience
from tests.support.contract import answers_of
from tests.support.pipeline import Interrupt, Pipeline, Run
from tests.support.process import started
from tests.support.singer import BOOKMARKS, Target, lacking
from tests.support.warehouse import pairs, true_machines, true_missing_kbs

if TYPE_CHECKING:
    from pathlib import Path

    from mde_simulator import Simulator
    from tests.conftest import StartSimulator
    from tests.e2e.conftest import Connect

KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
STATUS = {TERM: 143, INT: 130}
IN_FLIGHT = 4
LATENCY = 0.03
SOON = 60.0
"""Seconds in which a run that is told to end has ended, on however busy a machine; what it waits for takes longer."""


# Through PostgreSQL


def test_ten_interrupts_in_a_row_give_the_table_of_an_uninterrupted_run(
    simulate: StartSimulator, connect: Connect
) -> None:
    """SIGKILL, SIGTERM and SIGINT over 400 machines; then a run that completes the very same sweep."""
    simulator = simulate(400, latency=LATENCY)
    whole, warehouse_of_whole = connect(simulator)
    whole.run_whole()

    pipeline, warehouse = connect(simulator, patience=Patience(state=0.2))
    draw = random.Random(20)  # noqa: S311 - moments, nothing secret
    signals = [*[KILL, TERM, INT] * 3, KILL]
    draw.shuffle(signals)
    runs = []
    for number, each in enumerate(signals):
        calls = draw.randrange(1, 50) if number % 4 else None  # None: while it starts or lists
        interrupt = Interrupt(each, calls=calls, delay=draw.uniform(0, 0.2 if calls else 0.6))
        runs.append(interrupted(pipeline, interrupt))
    runs.append(pipeline.run_whole())

    assert warehouse.table() == warehouse_of_whole.table()
    assert warehouse.missing_kbs() == true_missing_kbs(simulator.fleet)
    assert warehouse.missing_now() == pairs(simulator.fleet)
    assert len(warehouse.query("SELECT DISTINCT sweep FROM missing_kbs_checks")) == 1
    assert_little_is_asked_again(runs)


def test_kill_9_of_tap_and_target_together_or_of_the_target_alone(simulate: StartSimulator, connect: Connect) -> None:
    """What the target had not passed on is done again, no more; a tap without a target ends quietly."""
    simulator = simulate(120, latency=LATENCY)
    pipeline, warehouse = connect(simulator, patience=Patience(state=0.2))
    draw = random.Random(21)  # noqa: S311 - moments, nothing secret
    runs = []
    for whom in ("both", "target", "both"):
        interrupt = Interrupt(KILL, whom, draw.randrange(10, 50), draw.uniform(0, 0.3))
        runs.append(interrupted(pipeline, interrupt))
        if whom == "target" and runs[-1].status:
            assert runs[-1].status == 1
            assert "Traceback" not in runs[-1].log
    runs.append(pipeline.run_whole())
    assert warehouse.missing_kbs() == true_missing_kbs(simulator.fleet)
    assert warehouse.machines() == true_machines(simulator.fleet)
    assert warehouse.missing_now() == pairs(simulator.fleet)
    assert_little_is_asked_again(runs)


def interrupted(pipeline: Pipeline, interrupt: Interrupt) -> Run:
    """A run that is broken off; what holds of every such run."""
    done = pipeline.run(interrupt)
    print(f"{interrupt}: status {done.status}, {len(done.asked)} machines asked, {len(done.passed_on)} STATEs")  # noqa: T201
    assert done.interrupted, done.log
    assert len(done.messages) >= len(done.passed_on)
    if interrupt.whom == "tap" and interrupt.signal in STATUS and done.output:
        assert done.status == STATUS[interrupt.signal], done.log
        assert done.seconds_to_end < SOON
        assert done.target_status == 0
        assert_state_is_current(done.messages)
        assert pipeline.state == last_state(done.messages)
    return done


def assert_little_is_asked_again(runs: list[Run]) -> None:
    """After each run, at most what it wrote since the last STATE passed on, and what was in flight."""
    for number, run in enumerate(runs):
        assert len(run.asked) == len(set(run.asked)), "a machine was asked twice in one run"
        later = {machine_id for other in runs[number + 1 :] for machine_id in other.asked}
        again = later & set(run.asked)
        assert len(again - run.written_since_state) <= IN_FLIGHT


# The tap alone, its output read by hand


@pytest.mark.parametrize("each", [TERM, INT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_with_whole_lines_and_a_last_state_that_is_current(
    simulate: StartSimulator, tmp_path: Path, each: signal.Signals
) -> None:
    """At six moments, from the listing on; the runs together give the truth."""
    simulator = simulate(300, latency=LATENCY)
    draw = random.Random(int(each))  # noqa: S311 - moments, nothing secret
    target = Target()
    for _ in range(6):
        asked, delay = draw.randrange(40), draw.uniform(0, 0.1)
        print(f"{each.name} {delay * 1000:.0f} ms after {asked} calls")  # noqa: T201
        simulator.journal.clear()
        with started(tmp_path, simulator, target.state) as run:
            run.read_until(asked=asked, size=1)
            time.sleep(delay)
            run.send(each)
            assert run.end() < SOON
        assert run.process.returncode == STATUS[each]
        assert "Traceback" not in run.stderr
        assert_state_is_current(run.messages())
        target.take(run.messages())
    finish(tmp_path, simulator, target)


@pytest.mark.parametrize("pair", [(INT, TERM), (TERM, TERM), (INT, INT)], ids=["Meltano", "twice", "Ctrl-C twice"])
def test_a_second_signal_does_not_spoil_the_end(
    simulate: StartSimulator, tmp_path: Path, pair: tuple[signal.Signals, signal.Signals]
) -> None:
    """Ctrl-C reaches the whole group, and Meltano then also sends SIGTERM: two signals are the rule."""
    simulator = simulate(100, latency=LATENCY)
    target = Target()
    for apart in (0.0, 0.002, 0.02, 0.1):
        simulator.journal.clear()
        with started(tmp_path, simulator, target.state) as run:
            run.read_until(asked=8)
            run.send(*pair, apart=apart)
            assert run.end() < SOON
        assert run.process.returncode in STATUS.values()
        assert "Traceback" not in run.stderr
        assert_state_is_current(run.messages())
        target.take(run.messages())


WAITS: dict[str, tuple[list[Fault], dict[str, Any]]] = {
    "an answer": ([Fault("slow", path="*/getmissingkbs", seconds=600)], {}),
    "the machine list": ([Fault("slow", path="/api/machines", seconds=600)], {}),
    "a token": ([Fault("slow", path="*/token", seconds=600)], {}),
    "Retry-After": ([Fault("throttled", path="*/getmissingkbs", seconds=600)], {"max_parallel_requests": 1}),
    "the quota": ([], {"requests_per_minute": 8}),
    "a deferred machine's turn": ([Fault("not_found")], {}),
}


@pytest.mark.parametrize("waits_for", WAITS)
def test_a_signal_ends_it_whatever_it_waits_for(simulate: StartSimulator, tmp_path: Path, waits_for: str) -> None:
    """Minutes are not waited for, and the state is the contract's from the first."""
    faults, config = WAITS[waits_for]
    simulator = simulate(12, faults=faults)
    with started(tmp_path, simulator, **config) as run:
        while not any(entry.path.endswith("/token") for entry in simulator.journal):
            time.sleep(0.05)
        if waits_for not in {"the machine list", "a token"}:
            run.read_until(asked=1 if waits_for in {"an answer", "Retry-After"} else 6)
        time.sleep(0.3)
        run.send(TERM)
        assert run.end() < SOON
    assert run.process.returncode == STATUS[TERM], run.stderr
    assert "Traceback" not in run.stderr
    assert set(last_state(run.messages())["bookmarks"]) == BOOKMARKS


def test_what_went_out_before_a_long_wait_for_the_quota_is_in_a_state(simulate: StartSimulator, tmp_path: Path) -> None:
    """A kill in mid-wait asks nobody again whose rows were out seconds before it."""
    simulator = simulate(Fleet(machines=20, seed=1, discovered=0))
    with started(tmp_path, simulator, patience=Patience(state=2.0), requests_per_minute=8) as run:
        run.read_until(asked=6)
        time.sleep(5)
        run.send(KILL)
        run.end()
    messages = run.messages()
    checks = [
        each["record"]["machine_id"]
        for each in messages
        if each.get("stream") == "missing_kbs_checks" and "record" in each
    ]
    cursor = last_state(messages)["bookmarks"]["missing_kbs"]["sweep"]["after"]
    assert cursor == checks[-1]
    assert len(checks) == 6


def test_kill_9_at_any_byte_loses_nothing(simulate: StartSimulator, tmp_path: Path) -> None:
    """Six kills, in the middle of lines too: what came is whole lines but for the last, the rest comes later."""
    simulator = simulate(150, latency=0.01)
    draw = random.Random(9)  # noqa: S311 - moments, nothing secret
    target = Target()
    for _ in range(6):
        size = draw.randrange(100, 250_000)
        print(f"SIGKILL after {size} bytes")  # noqa: T201
        with started(tmp_path, simulator, target.state) as run:
            run.read_until(size=size)
            run.send(KILL)
            run.end()
        target.take(run.messages())
    finish(tmp_path, simulator, target)


@pytest.mark.parametrize("size", [0, 1, 150_000], ids=["at once", "after the first line", "in the middle"])
@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_a_target_that_goes_away_ends_it_quietly(
    simulate: StartSimulator, tmp_path: Path, size: int, level: str
) -> None:
    """`tap-mde-kbs | head -1`: not with 0, no traceback unless debugged, and the rest of the machines is not asked."""
    simulator = simulate(150, latency=LATENCY)
    with started(tmp_path, simulator, environ={"LOGLEVEL": level}) as run:
        run.read_until(size=size)
        assert run.process.stdout
        run.process.stdout.close()
        run.process.wait(SOON)
    assert run.process.returncode == 1
    if level == "INFO":
        assert "Traceback" not in run.stderr
        assert "BrokenPipe" not in run.stderr
        assert "Exception ignored" not in run.stderr
    assert "The target closed the pipe." in run.stderr.strip().splitlines()[-1]
    assert sum(entry.machine_id is not None for entry in simulator.journal) < 100


@pytest.mark.parametrize("each", [TERM, INT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_to_a_tap_that_waits_for_a_slow_target_leaves_whole_lines(
    simulate: StartSimulator, tmp_path: Path, each: signal.Signals
) -> None:
    """Blocked in the middle of a line on a full pipe: it ends once the target takes the rest of that line."""
    simulator = simulate(400)
    with started(tmp_path, simulator) as run:
        run.read_until(asked=8)
        read = len(run.output)
        stuck = None
        while stuck != (stuck := len(simulator.journal)):  # nobody reads: the pipe fills, nothing goes on
            time.sleep(0.5)
        run.send(each)
        time.sleep(0.2)
        assert run.process.poll() is None, "it ended in the middle of a line"
        assert run.end() < SOON
    assert run.process.returncode == STATUS[each]
    assert_state_is_current(run.messages())
    assert len(run.output) < read + 150_000, "it went on writing"


@pytest.mark.parametrize("each", [TERM, INT], ids=["SIGTERM", "SIGINT"])
def test_lines_longer_than_a_pipe_takes_at_once_stay_whole(
    simulate: StartSimulator, tmp_path: Path, each: signal.Signals
) -> None:
    """A machine with 50 KB of tags: the write is under way, and half of the line is out, when the signal comes."""
    simulator = simulate(30)
    for machine_id in simulator.fleet.listed():
        simulator.fleet.change(machine_id, machineTags=["tag" * 5] * 3000)
    for _ in range(3):
        with started(tmp_path, simulator) as run:
            run.read_until(size=60_000)
            time.sleep(0.3)  # nobody reads: the pipe fills, nothing goes on
            run.send(each)
            time.sleep(0.1)
            run.end()
        assert run.process.returncode == STATUS[each], run.stderr
        assert len(run.messages()) < 30


def last_state(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The value of the last STATE."""
    value: dict[str, Any] = [message for message in messages if message["type"] == "STATE"][-1]["value"]
    return value


def assert_state_is_current(messages: list[dict[str, Any]]) -> None:
    """The last STATE knows of every machine written, but for one just being written."""
    sweep = last_state(messages)["bookmarks"]["missing_kbs"]["sweep"]
    written = [
        message["record"]["machine_id"]
        for message in messages
        if message["type"] == "RECORD" and message["stream"] in {"missing_kbs", "missing_kbs_checks"}
    ]
    assert len({machine_id for machine_id in written if machine_id > (sweep["after"] or "")}) <= 1


def finish(folder: Path, simulator: Simulator, target: Target) -> None:
    """A last run, not interrupted: one sweep in all, and the table is the truth."""
    with started(folder, simulator, target.state) as run:
        run.end()
    assert run.process.returncode == 0, run.stderr
    target.take(run.messages())
    assert target.missing == target.missing_now == lacking(answers_of(simulator.fleet))
    assert {key for (key,) in target.rows["machines"]} == set(simulator.fleet.listed())
    assert len({sweep for _, sweep in target.rows["missing_kbs_checks"]}) == 1
